//! Hours of the week, as a rule of routing names them: `mon-fri 09:00-17:00`, in UTC.

use std::str::FromStr;

/// The days in the order in which they are counted here: the first of January 1970 was a Thursday.
const DAYS: [&str; 7] = ["thu", "fri", "sat", "sun", "mon", "tue", "wed"];
/// Minutes of a day.
const DAY: u16 = 24 * 60;

/// Hours on some days of the week, UTC. Where they go over midnight, the day is that on which they begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hours {
    /// One bit a day, Thursday first.
    days: u8,
    /// The first minute of the day.
    from: u16,
    /// The minute behind the last.
    to: u16,
}

/// The text names no hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadHours;

impl FromStr for Hours {
    type Err = BadHours;

    fn from_str(text: &str) -> Result<Self, BadHours> {
        let (days, hours) = text.trim().rsplit_once(' ').unwrap_or(("mon-sun", text.trim()));
        let (from, to) = hours.split_once('-').ok_or(BadHours)?;
        let (from, to) = (minute(from)?, minute(to)?);
        if from == to || from == DAY {
            return Err(BadHours);
        }
        let mut bits = 0;
        for part in days.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (mut at, last) = (day(first)?, day(last)?);
            loop {
                bits |= 1 << at;
                if at == last {
                    break;
                }
                at = (at + 1) % 7;
            }
        }
        Ok(Self { days: bits, from, to })
    }
}

fn day(text: &str) -> Result<usize, BadHours> {
    DAYS.iter().position(|day| text.trim().eq_ignore_ascii_case(day)).ok_or(BadHours)
}

/// The minute of a day that `09:00` names; `24:00` is its end.
fn minute(text: &str) -> Result<u16, BadHours> {
    let (hours, minutes) = text.split_once(':').ok_or(BadHours)?;
    let number = |text: &str| match text.len() {
        2 if text.bytes().all(|b| b.is_ascii_digit()) => text.parse::<u16>().map_err(|_| BadHours),
        _ => Err(BadHours),
    };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    let at = hours * 60 + minutes;
    if minutes > 59 || at > DAY { Err(BadHours) } else { Ok(at) }
}

impl Hours {
    /// Whether a moment, in seconds since 1970, is within.
    pub fn contains(&self, unix: i64) -> bool {
        let (days, seconds) = (unix.div_euclid(86_400), unix.rem_euclid(86_400));
        let on = |days: i64| self.days & (1 << days.rem_euclid(7)) != 0;
        let now = (seconds / 60) as u16;
        if self.from < self.to {
            return on(days) && (self.from..self.to).contains(&now);
        }
        on(days) && now >= self.from || on(days - 1) && now < self.to
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Monday, the 23rd of November 2026, 00:00 UTC.
    const MONDAY: i64 = 1_795_392_000;

    #[track_caller]
    fn check(text: &str, days_and_minutes: &[(i64, i64, bool)]) {
        let hours: Hours = text.parse().unwrap();
        for (day, minute, want) in days_and_minutes {
            assert_eq!(hours.contains(MONDAY + day * 86_400 + minute * 60), *want, "{text} on {day} at {minute}");
        }
    }

    #[test]
    fn hours_begin_with_their_first_minute_and_end_before_their_last() {
        check("09:00-17:30", &[(0, 539, false), (0, 540, true), (5, 1049, true), (5, 1050, false)]);
        check("00:00-24:00", &[(0, 0, true), (6, 1439, true)]);
        check("mon-fri 09:00-17:00", &[(0, 600, true), (4, 600, true), (5, 600, false), (6, 600, false)]);
        check("Sat,sun 00:00-24:00", &[(4, 600, false), (5, 600, true), (6, 600, true), (7, 600, false)]);
        check("sat-mon,wed 01:00-02:00", &[(0, 60, true), (1, 60, false), (2, 60, true), (5, 60, true)]);
    }

    #[test]
    fn a_night_belongs_to_the_day_on_which_it_begins() {
        check("22:00-06:00", &[(0, 0, true), (0, 360, false), (0, 1319, false), (0, 1320, true)]);
        check(
            "fri 22:00-06:00",
            &[(4, 100, false), (4, 1320, true), (5, 100, true), (5, 1320, false), (6, 100, false)],
        );
        check("sun 22:00-24:00", &[(6, 1439, true), (7, 0, false)]);
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "9:00-17:00",
            "09:00",
            "09:00-09:00",
            "25:00-26:00",
            "09:60-10:00",
            "someday 09:00-10:00",
            "24:00-01:00",
        ] {
            assert_eq!(text.parse::<Hours>(), Err(BadHours), "{text}");
        }
    }
}
