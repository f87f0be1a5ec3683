//! Where the user is: what days are, and what a clock on the wall shows.

use gateway::admin::ask::Zone;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use ledger::query::day;

/// Years that are looked back for changes of the clock, and forward.
const YEARS: (i64, i64) = (15, 2);

/// The user's clock.
pub(crate) fn here() -> Zone {
    of(&TimeZone::system(), Timestamp::now())
}

fn of(zone: &TimeZone, now: Timestamp) -> Zone {
    let hours = |years: i64| (years * 365 * 24).hours();
    let (Ok(from), Ok(to)) = (now.checked_sub(hours(YEARS.0)), now.checked_add(hours(YEARS.1))) else {
        return Zone::default();
    };
    let (mut offset, mut until) = (zone.to_offset(from).seconds(), Vec::new());
    for change in zone.following(from).take_while(|change| change.timestamp() < to) {
        until.push((change.timestamp().as_second(), offset));
        offset = change.offset().seconds();
    }
    Zone::new(until, offset)
}

/// What a clock and a calendar there show, to the second.
pub(crate) fn clock(us: i64, zone: &Zone) -> String {
    let seconds = us.div_euclid(1_000_000);
    let of_day = (seconds + i64::from(zone.at(seconds))).rem_euclid(86_400);
    let (h, m, s) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{} {h:02}:{m:02}:{s:02}", day(seconds, &|at| zone.at(at)))
}

/// A time as answers give it, in microseconds since 1970.
pub(crate) fn micros(time: &str) -> Option<i64> {
    time.parse::<Timestamp>().ok().map(Timestamp::as_microsecond)
}

/// A time as questions take it, to the microsecond.
pub(crate) fn exactly(us: i64) -> String {
    Timestamp::from_microsecond(us).unwrap_or(Timestamp::UNIX_EPOCH).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_shows_summer_and_winter() {
        let berlin = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let zone = of(&berlin, "2026-11-22T12:00:00Z".parse().unwrap());
        let shown = |time: &str| clock(micros(time).unwrap(), &zone);
        assert_eq!(shown("2026-11-22T13:58:20.123Z"), "2026-11-22 14:58:20");
        assert_eq!(shown("2026-07-01T22:30:00.000Z"), "2026-07-02 00:30:00");
        assert_eq!(shown("2013-07-01T22:30:00Z"), "2013-07-02 00:30:00");
        assert_eq!(of(&TimeZone::UTC, Timestamp::UNIX_EPOCH), Zone::default());
    }

    #[test]
    fn a_time_that_is_asked_for_exactly_is_understood_exactly() {
        for us in [0, 1_795_355_900_000_000, 1_795_355_900_123_456, 1_795_355_900_500_000, 1] {
            assert_eq!(ledger::query::time(&exactly(us), 0, ledger::query::UTC), Ok(us));
        }
    }
}
