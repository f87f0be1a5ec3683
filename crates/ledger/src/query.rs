//! Questions to the ledger: one vocabulary of filters, and what the answers look like.

use std::fmt;

use crate::money::NanoUsd;
use crate::record::{Id, Operation, Record};

/// Rows that are given where no limit is asked for.
pub const DEFAULT_LIMIT: u32 = 100;
/// No question gets more rows than this.
pub const MOST: u32 = 100_000;

/// Which exchanges are meant. Everything that is set must hold; a name may hold `*` for any text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// Begun at this time or later, in microseconds since 1970.
    pub since_us: Option<i64>,
    /// Begun before this time.
    pub until_us: Option<i64>,
    /// The model that served, or else was asked for.
    pub model: Option<String>,
    /// Who served.
    pub provider: Option<String>,
    /// The agent or the kind of agent.
    pub agent: Option<String>,
    /// The session.
    pub session: Option<String>,
    /// The project.
    pub project: Option<String>,
    /// What was asked for.
    pub operation: Option<Operation>,
    /// Only those in which something went wrong.
    pub failed: bool,
    /// Only those that the simulator served, or only the others.
    pub simulated: Option<bool>,
    /// Only what was counted since the metrics were last reset.
    pub since_reset: bool,
    /// Only rows that were recorded after this one: how a list is followed. They come oldest first.
    pub after_seq: Option<i64>,
    /// Only rows that were recorded before this one: how a list is paged through.
    pub before_seq: Option<i64>,
    /// At most so many rows or groups.
    pub limit: Option<u32>,
}

impl Filter {
    /// The number of rows or groups that are given at most.
    pub fn limit(&self) -> u32 {
        self.limit.unwrap_or(DEFAULT_LIMIT).min(MOST)
    }
}

/// What sums are made for each of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Key {
    /// The day on which the exchange began, as `2026-11-22`, where the user is.
    Day,
    /// The model that served, or else was asked for.
    Model,
    /// The session.
    Session,
    /// The kind of agent where it is known, else the agent.
    Agent,
    /// The agent itself.
    AgentId,
    /// The kind of agent; empty for the main one.
    AgentType,
    /// The agent that called it.
    ParentAgent,
    /// The project.
    Project,
    /// Who served.
    Provider,
    /// What was asked for.
    Operation,
    /// How it ended.
    Outcome,
}

impl Key {
    /// From the name that the command line knows.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "day" => Self::Day,
            "model" => Self::Model,
            "session" => Self::Session,
            "agent" => Self::Agent,
            "project" => Self::Project,
            "provider" => Self::Provider,
            "operation" => Self::Operation,
            "outcome" => Self::Outcome,
            _ => return None,
        })
    }
}

/// Where the user is: seconds east of Greenwich at a time, given in seconds since 1970.
pub type Zone<'a> = &'a (dyn Fn(i64) -> i32 + Sync);

/// Greenwich.
pub const UTC: Zone<'static> = &|_| 0;

/// Sums over exchanges of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sums {
    /// Exchanges.
    pub requests: i64,
    /// Of these, those in which something went wrong.
    pub failed: i64,
    /// Input tokens that were neither read from a cache nor written to one.
    pub input: i64,
    /// Input tokens that were read from a cache.
    pub cache_read: i64,
    /// Input tokens that were written to a cache.
    pub cache_write: i64,
    /// Output tokens as billed: where no end was seen, as counted by us.
    pub output: i64,
    /// Web searches.
    pub web_searches: i64,
    /// Exchanges of which the output was counted by us.
    pub estimated: i64,
    /// Exchanges that used something that was not reported.
    pub usage_unknown: i64,
    /// Exchanges of which the price is not known: they are not in the cost.
    pub unpriced: i64,
    /// What they cost, as far as it is known.
    pub cost: NanoUsd,
    /// Microseconds of all that were timed.
    pub duration_us: i64,
    /// How many were timed.
    pub timed: i64,
    /// Microseconds until the first token, of all that had one.
    pub first_token_us: i64,
    /// How many had one.
    pub first_tokens: i64,
    /// Bytes of requests.
    pub bytes_in: i64,
    /// Bytes of answers.
    pub bytes_out: i64,
}

impl Sums {
    /// The whole prompt: input with its cached parts.
    pub fn prompt(&self) -> i64 {
        self.input.saturating_add(self.cache_read).saturating_add(self.cache_write)
    }

    /// The part of the prompt that came from a cache, between 0 and 1; `None` where there was no prompt.
    pub fn cache_hit_rate(&self) -> Option<f64> {
        (self.prompt() > 0).then(|| self.cache_read as f64 / self.prompt() as f64)
    }

    /// Adds another sum.
    pub fn add(&mut self, other: &Self) {
        let pairs = [
            (&mut self.requests, other.requests),
            (&mut self.failed, other.failed),
            (&mut self.input, other.input),
            (&mut self.cache_read, other.cache_read),
            (&mut self.cache_write, other.cache_write),
            (&mut self.output, other.output),
            (&mut self.web_searches, other.web_searches),
            (&mut self.estimated, other.estimated),
            (&mut self.usage_unknown, other.usage_unknown),
            (&mut self.unpriced, other.unpriced),
            (&mut self.cost.0, other.cost.0),
            (&mut self.duration_us, other.duration_us),
            (&mut self.timed, other.timed),
            (&mut self.first_token_us, other.first_token_us),
            (&mut self.first_tokens, other.first_tokens),
            (&mut self.bytes_in, other.bytes_in),
            (&mut self.bytes_out, other.bytes_out),
        ];
        for (to, more) in pairs {
            *to = to.saturating_add(more);
        }
    }
}

/// Sums, with what nobody paid for apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// What was paid for by use.
    pub paid: Sums,
    /// What a subscription paid for: the cost is what it would have been.
    pub notional: Sums,
    /// What the simulator served.
    pub simulated: Sums,
}

impl Totals {
    /// Everything together: for counts, never for money.
    pub fn all(&self) -> Sums {
        let mut all = self.paid;
        all.add(&self.notional);
        all.add(&self.simulated);
        all
    }

    /// Adds another one.
    pub fn add(&mut self, other: &Self) {
        self.paid.add(&other.paid);
        self.notional.add(&other.notional);
        self.simulated.add(&other.simulated);
    }
}

/// Sums for one value of every key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The values, in the order of the keys; empty where the exchanges have none.
    pub keys: Vec<String>,
    /// The sums.
    pub totals: Totals,
    /// When the first of them began, in microseconds since 1970; to a quarter of an hour where sums do not know better.
    pub first_us: i64,
    /// When the last of them began.
    pub last_us: i64,
}

/// Sums for every value of some keys.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Groups {
    /// By day, the days in order; else the dearest first.
    pub groups: Vec<Group>,
    /// Over everything that is meant, also what did not fit into the list.
    pub totals: Totals,
    /// Whether there are more groups than these.
    pub more: bool,
}

/// A record with its place in the order of recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Grows with every record. Clocks may jump; this does not.
    pub seq: i64,
    /// The record.
    pub record: Record,
}

/// What a short id stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// This one.
    One(Id),
    /// Nothing.
    None,
    /// More than one; some of them.
    Many(Vec<Id>),
}

/// How long exchanges took, over the last of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Latency {
    /// Over how many.
    pub of: u64,
    /// Half were at most as slow, in microseconds.
    pub p50_us: u64,
    /// Nine of ten were at most as slow.
    pub p90_us: u64,
    /// Ninety-nine of a hundred were at most as slow.
    pub p99_us: u64,
}

impl Latency {
    /// Of these times.
    pub fn of(mut times: Vec<u64>) -> Self {
        times.sort_unstable();
        let at = |part: usize| times.get((times.len() * part).div_ceil(100).saturating_sub(1)).copied().unwrap_or(0);
        Self { of: times.len() as u64, p50_us: at(50), p90_us: at(90), p99_us: at(99) }
    }
}

/// What `/gateway/metrics` tells, counted since the last reset.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Metrics {
    /// When the counting began, in microseconds since 1970; 0 if it was never reset.
    pub since_us: i64,
    /// Generations only.
    pub summary: Totals,
    /// Everything, by what was asked for.
    pub by_operation: Vec<Group>,
    /// Generations, by how they ended.
    pub by_outcome: Vec<Group>,
    /// Generations.
    pub by_provider: Vec<Group>,
    /// Generations.
    pub by_model: Vec<Group>,
    /// Generations, by the kind of agent; the dearest.
    pub by_agent: Vec<Group>,
    /// Generations; the sessions that were recorded last.
    pub by_session: Vec<Group>,
    /// Generations; the dearest.
    pub by_project: Vec<Group>,
    /// How long the last generations took.
    pub duration: Latency,
    /// How long their first token took.
    pub first_token: Latency,
}

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
    let seconds = match text {
        "today" => today(0),
        "yesterday" => today(1),
        _ => match ago(text) {
            Some(Some(ago)) => return Ok(now_us.saturating_sub(ago)),
            Some(None) => return Err(bad()),
            None => date(text, zone).ok_or_else(bad)?,
        },
    };
    Ok(seconds * SECOND_US)
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
        return Some(local(day, 0, zone));
    }
    let clock = rest.strip_prefix(['T', ' '])?;
    let (clock, utc) = clock.strip_suffix('Z').map_or((clock, false), |clock| (clock, true));
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
    Some(if utc { day * DAY_S + seconds } else { local(day, seconds, zone) })
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
fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The date of a day since 1970.
fn civil(days: i64) -> (i64, i64, i64) {
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

    #[test]
    fn percentiles_are_values_that_occurred() {
        assert_eq!(Latency::of(vec![]), Latency::default());
        assert_eq!(Latency::of(vec![7]), Latency { of: 1, p50_us: 7, p90_us: 7, p99_us: 7 });
        let many = Latency::of((1..=100).rev().collect());
        assert_eq!(many, Latency { of: 100, p50_us: 50, p90_us: 90, p99_us: 99 });
    }

    #[test]
    fn the_rate_of_cache_hits_is_none_without_a_prompt() {
        assert_eq!(Sums::default().cache_hit_rate(), None);
        let sums = Sums { input: 1, cache_read: 2, cache_write: 1, ..Sums::default() };
        assert_eq!(sums.cache_hit_rate(), Some(0.5));
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
