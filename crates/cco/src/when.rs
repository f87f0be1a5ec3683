//! Points in time, for people and for programs.

use std::time::SystemTime;

use ledger::calendar;

/// Seconds since 1970 as RFC 3339 writes them, in UTC.
pub(crate) fn rfc3339(seconds: u64) -> String {
    let second = seconds % 86_400;
    let day = calendar::day(i64::try_from(seconds).unwrap_or(i64::MAX), calendar::UTC);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{day}T{hour:02}:{minute:02}:{second:02}Z")
}

/// How long ago that is, in one unit.
pub(crate) fn ago(seconds: u64) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    span(now.saturating_sub(seconds))
}

fn span(seconds: u64) -> String {
    let units = [(365 * 86_400, "year"), (86_400, "day"), (3600, "hour"), (60, "minute")];
    match units.iter().find(|(length, _)| seconds >= *length) {
        Some((length, unit)) => {
            let count = seconds / length;
            format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
        }
        None => "moments".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_become_the_date_that_the_calendar_has() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_764_655_435, "2025-12-02T06:03:55Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(seconds), text);
        }
    }

    #[test]
    fn an_age_is_told_in_one_unit() {
        for (seconds, text) in [
            (0, "moments"),
            (59, "moments"),
            (60, "1 minute"),
            (7199, "1 hour"),
            (172_800, "2 days"),
            (40_000_000, "1 year"),
        ] {
            assert_eq!(span(seconds), text);
        }
    }
}
