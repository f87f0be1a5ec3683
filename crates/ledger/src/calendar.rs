//! Times as people write them, and days as their calendar has them.

use std::fmt;

/// Where the user is: seconds east of Greenwich at a time, given in seconds since 1970.
pub type Zone<'a> = &'a (dyn Fn(i64) -> i32 + Sync);

/// Greenwich.
pub const UTC: Zone<'static> = &|_| 0;

/// A time on the command line that is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadTime(String);

impl fmt::Display for BadTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` is no time: write how long ago (`90s`, `30m`, `2h`, `7d`), `today`, `yesterday`, or a day as `2026-11-22`, \
             with a time of day if you like (`2026-11-22T14:30`)",
            self.0
        )
    }
}

impl std::error::Error for BadTime {}

const SECOND_US: i64 = 1_000_000;
const DAY_S: i64 = 86_400;

/// What `--since` and `--until` take, as microseconds since 1970.
pub fn time(text: &str, now_us: i64, zone: Zone<'_>) -> Result<i64, BadTime> {
    let bad = || BadTime(text.chars().take(64).collect());
    let now = now_us.div_euclid(SECOND_US);
    let text = text.trim();
    let today = |before: i64| {
        let here = now + i64::from(zone(now));
        local(here.div_euclid(DAY_S) - before, 0, zone)
    };
    match text {
        "today" => Ok(today(0) * SECOND_US),
        "yesterday" => Ok(today(1) * SECOND_US),
        _ => match ago(text) {
            Some(Some(ago)) => Ok(now_us.saturating_sub(ago)),
            Some(None) => Err(bad()),
            None => date(text, zone).ok_or_else(bad),
        },
    }
}

/// `Some(None)`: it looks like one, but is too large.
fn ago(text: &str) -> Option<Option<i64>> {
    let unit = match text.chars().last()? {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => DAY_S,
        'w' => 7 * DAY_S,
        _ => return None,
    };
    let digits = &text[..text.len() - 1];
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(digits.parse::<i64>().ok().and_then(|n| n.checked_mul(unit)?.checked_mul(SECOND_US)))
}

/// In microseconds since 1970.
fn date(text: &str, zone: Zone<'_>) -> Option<i64> {
    let (day, rest) = text.split_at_checked(10)?;
    let mut parts = day.split('-');
    let mut number = |digits: usize| {
        let part = parts.next()?;
        (part.len() == digits && part.bytes().all(|b| b.is_ascii_digit())).then(|| part.parse::<i64>().ok())?
    };
    let (year, month, day_of_month) = (number(4)?, number(2)?, number(2)?);
    let day = days_of(year, month, day_of_month);
    if civil(day) != (year, month, day_of_month) {
        return None;
    }
    if rest.is_empty() {
        return Some(local(day, 0, zone) * SECOND_US);
    }
    let clock = rest.strip_prefix(['T', ' '])?;
    let (clock, utc) = clock.strip_suffix('Z').map_or((clock, false), |clock| (clock, true));
    let (clock, us) = match clock.split_once('.') {
        // Only seconds have parts.
        Some((clock, part)) if clock.len() == 8 => (clock, micros(part)?),
        Some(_) => return None,
        None => (clock, 0),
    };
    let mut seconds = 0;
    let mut parts = clock.split(':');
    for (unit, most, needed) in [(3600, 23, true), (60, 59, true), (1, 59, false)] {
        match parts.next() {
            Some(part) if part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit()) => {
                seconds += part.parse::<i64>().ok().filter(|n| *n <= most)? * unit;
            }
            None if !needed => {}
            _ => return None,
        }
    }
    if parts.next().is_some() {
        return None;
    }
    let seconds = if utc { day * DAY_S + seconds } else { local(day, seconds, zone) };
    Some(seconds * SECOND_US + us)
}

/// The digits behind the point of a second.
fn micros(digits: &str) -> Option<i64> {
    let fits = (1..=9).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    fits.then(|| format!("{digits:0<6}")[..6].parse().ok())?
}

/// The time at which a clock on the wall there shows this.
fn local(day: i64, seconds: i64, zone: Zone<'_>) -> i64 {
    let shown = day * DAY_S + seconds;
    let guess = shown - i64::from(zone(shown));
    shown - i64::from(zone(guess))
}

/// The day of a time, as `2026-11-22`, where the user is.
pub fn day(unix_s: i64, zone: Zone<'_>) -> String {
    let (year, month, day) = civil((unix_s + i64::from(zone(unix_s))).div_euclid(DAY_S));
    format!("{year:04}-{month:02}-{day:02}")
}

/// Days since 1970 of a date. Years are counted from March, so that the leap day is the last.
pub fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The date of a day since 1970: year, month and day.
pub fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One hour east, and two from the end of March to the end of October of 2026.
    fn berlin(unix_s: i64) -> i32 {
        if (1_774_746_000..1_792_890_000).contains(&unix_s) { 7200 } else { 3600 }
    }

    /// Sunday, 22 November 2026, 13:58:20 UTC.
    const NOW: i64 = 1_795_355_900_000_000;

    #[track_caller]
    fn check_time(text: &str, want: &str) {
        let us = time(text, NOW, &berlin).unwrap();
        assert_eq!(us, time(want, NOW, UTC).unwrap(), "{text}");
    }

    #[test]
    fn times_are_read_as_a_person_there_means_them() {
        assert_eq!(time("2h", NOW, UTC), Ok(NOW - 7_200_000_000));
        assert_eq!(time(" 7d ", NOW, UTC), Ok(NOW - 604_800_000_000));
        check_time("today", "2026-11-21T23:00");
        check_time("yesterday", "2026-11-20T23:00");
        check_time("2026-07-01", "2026-06-30T22:00");
        check_time("2026-07-01T14:30", "2026-07-01T12:30");
        check_time("2026-07-01 14:30:59", "2026-07-01T12:30:59");
        check_time("2026-07-01T14:30Z", "2026-07-01T14:30");
        check_time("2026-03-29", "2026-03-28T23:00");
        check_time("2026-03-30", "2026-03-29T22:00");
        assert_eq!(time("1970-01-01", NOW, UTC), Ok(0));
        for (text, us) in
            [("0.5Z", 500_000), ("1.000001Z", 1_000_001), ("1.123456789Z", 1_123_456), ("1.25", 1_250_000)]
        {
            assert_eq!(time(&format!("1970-01-01T00:00:0{text}"), NOW, UTC), Ok(us), "{text}");
        }
        assert_eq!(time("2024-02-29", NOW, UTC), Ok(1_709_164_800_000_000));
    }

    #[test]
    fn what_is_no_time_is_refused_with_examples() {
        for bad in [
            "",
            "h",
            "2",
            "-2h",
            "2 h",
            "tomorrow",
            "2026-02-29",
            "2026-13-01",
            "2026-1-01",
            "2026-11-22T",
            "2026-11-22T24:00",
            "2026-11-22T1:00",
            "2026-11-22T10:00:00:00",
            "2026-11-22T10:00:00.",
            "2026-11-22T10:00:00.x",
            "2026-11-22T10:00.5",
            "2026-11-22T10:00:00.0123456789",
            "99999999999999999d",
            "é026-11-22",
            "2026-11-2é",
        ] {
            let why = time(bad, NOW, UTC).unwrap_err().to_string();
            assert!(why.contains("2026-11-22"), "{bad}: {why}");
        }
    }

    #[test]
    fn a_day_is_the_one_of_the_users_calendar() {
        let at = |text| time(text, NOW, UTC).unwrap() / 1_000_000;
        assert_eq!(day(at("2026-11-21T22:59"), &berlin), "2026-11-21");
        assert_eq!(day(at("2026-11-21T23:00"), &berlin), "2026-11-22");
        assert_eq!(day(at("2026-11-21T23:00"), UTC), "2026-11-21");
        assert_eq!(day(-1, UTC), "1969-12-31");
    }

    proptest! {
        #[test]
        fn every_day_has_one_date(days in -1_000_000i64..1_000_000) {
            let (year, month, day) = civil(days);
            prop_assert!((1..=12).contains(&month) && (1..=31).contains(&day));
            prop_assert_eq!(days_of(year, month, day), days);
        }
    }
}
