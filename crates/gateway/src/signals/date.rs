//! Points in time as headers write them, without a calendar library: RFC 3339 and the date of HTTP.

use ledger::calendar::days_of;

/// Seconds since 1970 of `2026-11-22T15:53:11Z`; fractions are dropped, offsets understood.
pub(super) fn rfc3339(text: &str) -> Option<i64> {
    let (date, rest) = text.split_once(['T', 't', ' '])?;
    let mut date = date.splitn(3, '-');
    let (year, month, day) = (digits(date.next()?, 4)?, digits(date.next()?, 2)?, digits(date.next()?, 2)?);
    let zone = rest.find(['Z', 'z', '+', '-'])?;
    let (time, zone) = rest.split_at(zone);
    let seconds = clock(time.split_once('.').map_or(time, |(whole, _)| whole))?;
    let offset = match zone.strip_prefix(['+', '-']) {
        Some(offset) => {
            let (hours, minutes) = offset.split_once(':')?;
            let offset = digits(hours, 2)? * 3600 + digits(minutes, 2)? * 60;
            if zone.starts_with('-') { -offset } else { offset }
        }
        None if zone.len() == 1 => 0,
        None => return None,
    };
    Some(days(year, month, day)? * 86_400 + seconds - offset)
}

/// Seconds since 1970 of `Sun, 22 Nov 2026 15:53:11 GMT`.
pub(super) fn http(text: &str) -> Option<i64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (_, rest) = text.split_once(", ")?;
    let mut words = rest.split(' ');
    let (day, month, year) = (words.next()?, words.next()?, words.next()?);
    let month = MONTHS.iter().position(|name| *name == month)? as i64 + 1;
    let seconds = clock(words.next()?)?;
    if words.next() != Some("GMT") || words.next().is_some() {
        return None;
    }
    Some(days(digits(year, 4)?, month, digits(day, 2)?)? * 86_400 + seconds)
}

/// A number of exactly so many digits.
fn digits(text: &str, count: usize) -> Option<i64> {
    (text.len() == count && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

/// Seconds of `15:53:11` since midnight; 60 stands for a leap second.
fn clock(text: &str) -> Option<i64> {
    let mut parts = text.splitn(3, ':');
    let (hour, minute, second) = (digits(parts.next()?, 2)?, digits(parts.next()?, 2)?, digits(parts.next()?, 2)?);
    (hour < 24 && minute < 60 && second <= 60).then_some(hour * 3600 + minute * 60 + second)
}

/// Days from the first of January 1970 to this one of the Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    Some(days_of(year, month, day))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_name_the_same_moment() {
        for (rfc, date, want) in [
            ("1970-01-01T00:00:00Z", "Thu, 01 Jan 1970 00:00:00 GMT", 0),
            ("2000-02-29T12:00:00Z", "Tue, 29 Feb 2000 12:00:00 GMT", 951_825_600),
            ("2026-11-22T15:53:11Z", "Sun, 22 Nov 2026 15:53:11 GMT", 1_795_362_791),
            ("2100-03-01T00:00:00Z", "Mon, 01 Mar 2100 00:00:00 GMT", 4_107_542_400),
        ] {
            assert_eq!((rfc3339(rfc), http(date)), (Some(want), Some(want)), "{rfc}");
        }
        assert_eq!(rfc3339("2026-11-22T15:53:11.987Z"), Some(1_795_362_791));
        assert_eq!(rfc3339("2026-11-22t17:53:11+02:00"), Some(1_795_362_791));
        assert_eq!(rfc3339("2026-11-22T10:23:11-05:30"), Some(1_795_362_791));
    }

    #[test]
    fn what_is_no_date_is_none() {
        for text in
            ["", "Z", "2026-11-22", "2026-11-22T15:53:11", "2026-13-01T00:00:00Z", "2026-11-22T24:00:00Z", "T:Z"]
        {
            assert_eq!(rfc3339(text), None, "{text}");
        }
        for text in ["", "Sun, ", "Sun, 22 Nov 2026 15:53:11 CET", "Sun, 22 Now 2026 15:53:11 GMT", "22 Nov 2026 GMT"] {
            assert_eq!(http(text), None, "{text}");
        }
    }
}
