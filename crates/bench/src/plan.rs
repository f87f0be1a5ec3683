//! What one request asks of the mock: a header that any gateway passes on, and the stamps in what it answers.

use rustix::time::{ClockId, clock_gettime};

/// The header's name, lower case.
pub(crate) const HEADER: &str = "x-bench";
/// What stands before the time in each delta.
pub(crate) const STAMP: &[u8] = b"\"t=";

/// How to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Bytes of a whole answer.
    pub(crate) bytes: usize,
    /// Deltas of a streamed one; 0: not streamed.
    pub(crate) events: u32,
    /// Milliseconds between two of them; 0: as fast as they go out, each in a write of its own.
    pub(crate) delay: u64,
}

impl Plan {
    /// As the header's value.
    pub(crate) fn to_value(self) -> String {
        format!("n={},e={},d={}", self.bytes, self.events, self.delay)
    }

    /// From the header's value; what it does not say is as small as can be.
    pub(crate) fn from_value(value: &[u8]) -> Self {
        let mut plan = Self { bytes: 0, events: 0, delay: 0 };
        for part in std::str::from_utf8(value).unwrap_or_default().split(',') {
            let Some((key, Ok(n))) = part.split_once('=').map(|(key, n)| (key.trim(), n.parse::<u64>())) else {
                continue;
            };
            match key {
                "n" => plan.bytes = n as usize,
                "e" => plan.events = n as u32,
                "d" => plan.delay = n,
                _ => {}
            }
        }
        plan
    }
}

/// What goes wrong with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// It is refused with this status.
    Refused(u16),
    /// The connection closes in the middle of a stream.
    Cut,
    /// The connection closes before there is an answer.
    Closed,
    /// There is never an answer.
    Never,
}

impl Trouble {
    /// As the header's value.
    pub(crate) fn to_value(self) -> String {
        match self {
            Self::Refused(status) => format!("f={status}"),
            Self::Cut => "f=1".into(),
            Self::Closed => "f=2".into(),
            Self::Never => "f=3".into(),
        }
    }

    /// From the header's value, where it says so.
    pub(crate) fn from_value(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?;
        match text.split(',').find_map(|part| part.trim().strip_prefix("f="))?.parse().ok()? {
            1 => Some(Self::Cut),
            2 => Some(Self::Closed),
            3 => Some(Self::Never),
            status @ 400..=599 => Some(Self::Refused(status)),
            _ => None,
        }
    }
}

/// Nanoseconds of a clock that all processes of the machine share.
pub(crate) fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_read_as_it_was_written() {
        for trouble in [Trouble::Refused(529), Trouble::Cut, Trouble::Closed, Trouble::Never] {
            assert_eq!(Trouble::from_value(trouble.to_value().as_bytes()), Some(trouble));
        }
        assert_eq!([Trouble::from_value(b"n=1,e=2,d=3"), Trouble::from_value(b"f=99")], [None, None]);
    }

    #[test]
    fn a_plan_is_read_as_it_was_written() {
        let plan = Plan { bytes: 1000, events: 500, delay: 20 };
        assert_eq!(Plan::from_value(plan.to_value().as_bytes()), plan);
        assert_eq!(Plan::from_value(b" e=3 ,x=1,d"), Plan { bytes: 0, events: 0, delay: 0 });
    }
}
