//! Which exchanges are meant: one vocabulary for the command line and for addresses.

use std::fmt;

use crate::calendar::{BadTime, Zone, time};
use crate::record::Operation;

/// Rows that are given where no limit is asked for.
pub const DEFAULT_LIMIT: u32 = 100;
/// No question gets more rows than this.
pub const MOST: u32 = 100_000;

/// Which exchanges are meant. Everything that is set must hold. A name may hold `*` for any text; an empty one means
/// those that have none.
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
    /// The kind of agent.
    pub agent_type: Option<String>,
    /// The session.
    pub session: Option<String>,
    /// The project.
    pub project: Option<String>,
    /// The one call of `cco run`. It is found among the records: say since when, too.
    pub run: Option<String>,
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

/// The words that [`Filter::set`] knows.
const WORDS: [&str; 15] = [
    "since",
    "until",
    "model",
    "provider",
    "agent",
    "agent-type",
    "session",
    "project",
    "run",
    "operation",
    "failed",
    "simulated",
    "limit",
    "after",
    "before",
];

/// Why a filter is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadFilter {
    /// There is no such word.
    Word(String),
    /// The time is none.
    Time(BadTime),
    /// The value says nothing here: the word, the value, and what it may be.
    Value(&'static str, String, &'static str),
    /// It ends before it begins.
    Backwards,
}

impl fmt::Display for BadFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(word) => write!(f, "`{word}` is no filter: there are `{}`", WORDS.join("`, `")),
            Self::Time(bad) => bad.fmt(f),
            Self::Backwards => f.write_str("nothing lies between `since` and `until`: `until` must be the later one"),
            Self::Value(word, value, want) => write!(f, "`{value}` cannot stand for `{word}`: write {want}"),
        }
    }
}

impl std::error::Error for BadFilter {}

impl Filter {
    /// Sets what a word of the command line, or of an address, means. Times are those of the user's clock. `failed` and
    /// `simulated` may stand alone: then their value is empty.
    pub fn set(&mut self, word: &str, value: &str, now_us: i64, zone: Zone<'_>) -> Result<(), BadFilter> {
        let cut = || value.chars().take(64).collect::<String>();
        let name = || Some(value.to_owned());
        let at = || time(value, now_us, zone).map(Some).map_err(BadFilter::Time);
        let yes = |word| match value {
            "" | "true" | "1" | "yes" => Ok(true),
            "false" | "0" | "no" => Ok(false),
            _ => Err(BadFilter::Value(word, cut(), "`true` or `false`")),
        };
        let place = |word| {
            let number = value.parse().ok().filter(|n| *n >= 0);
            number.map(Some).ok_or_else(|| BadFilter::Value(word, cut(), "the `seq` of a record"))
        };
        match word {
            "since" => self.since_us = at()?,
            "until" => self.until_us = at()?,
            "model" => self.model = name(),
            "provider" => self.provider = name(),
            "agent" => self.agent = name(),
            "agent-type" => self.agent_type = name(),
            "session" => self.session = name(),
            "project" => self.project = name(),
            "run" => self.run = name(),
            "operation" => {
                let want = "`generation`, `count_tokens`, `models`, `batches` or `opaque`";
                let operation = Operation::named(value).ok_or_else(|| BadFilter::Value("operation", cut(), want))?;
                self.operation = Some(operation);
            }
            "failed" => self.failed = yes("failed")?,
            "simulated" => self.simulated = Some(yes("simulated")?),
            "limit" => {
                let limit = value.parse().ok().filter(|n| (1..=MOST).contains(n));
                let want = "a number from 1 to 100000";
                self.limit = Some(limit.ok_or_else(|| BadFilter::Value("limit", cut(), want))?);
            }
            "after" => self.after_seq = place("after")?,
            "before" => self.before_seq = place("before")?,
            _ => return Err(BadFilter::Word(word.chars().take(64).collect())),
        }
        Ok(())
    }

    /// Whether what was set can be meant together.
    pub fn check(&self) -> Result<(), BadFilter> {
        match (self.since_us, self.until_us) {
            (Some(since), Some(until)) if since >= until => Err(BadFilter::Backwards),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calendar::UTC;

    /// Sunday, 22 November 2026, 13:58:20 UTC.
    const NOW: i64 = 1_795_355_900_000_000;

    fn of(words: &[(&str, &str)]) -> Result<Filter, BadFilter> {
        let mut filter = Filter::default();
        words.iter().try_for_each(|(word, value)| filter.set(word, value, NOW, UTC))?;
        Ok(filter)
    }

    #[test]
    fn every_word_sets_what_it_says() {
        for word in WORDS {
            let value = match word {
                "since" | "until" => "2h",
                "operation" => "generation",
                "failed" | "simulated" => "",
                _ => "7",
            };
            assert_ne!(of(&[(word, value)]).unwrap(), Filter::default(), "{word}");
        }
        let want = Filter { since_us: Some(NOW - 7_200_000_000), failed: true, limit: Some(7), ..Filter::default() };
        assert_eq!(of(&[("since", "2h"), ("failed", ""), ("limit", "7")]), Ok(want));
        assert_eq!(of(&[("simulated", "no")]).unwrap().simulated, Some(false));
        assert_eq!(of(&[("agent-type", "Explore")]).unwrap().agent_type.as_deref(), Some("Explore"));
    }

    #[test]
    fn what_says_nothing_is_refused_and_the_remedy_told() {
        for (word, value, want) in [
            ("sinse", "2h", "`since`"),
            ("since", "soon", "how long ago"),
            ("limit", "0", "from 1 to 100000"),
            ("limit", "100001", "from 1 to 100000"),
            ("failed", "perhaps", "`true` or `false`"),
            ("operation", "talk", "`generation`"),
            ("after", "-1", "`seq`"),
            ("before", "x", "`seq`"),
        ] {
            let why = of(&[(word, value)]).unwrap_err().to_string();
            assert!(why.contains(want) && why.contains(if want == "`since`" { word } else { value }), "{why}");
        }
    }

    #[test]
    fn a_time_that_ends_before_it_begins_is_none() {
        assert_eq!(of(&[("since", "1h"), ("until", "2h")]).unwrap().check(), Err(BadFilter::Backwards));
        assert_eq!(of(&[("since", "2h"), ("until", "1h")]).unwrap().check(), Ok(()));
    }
}
