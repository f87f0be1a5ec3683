//! What the parts of a test run came to, and the table that says so.

use std::fmt;
use std::time::Duration;

use crate::Fault;

/// Tests counted in one part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) skipped: usize,
}

impl Tally {
    pub(crate) const ONE: Self = Self { passed: 1, failed: 0, skipped: 0 };

    fn add(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            skipped: self.skipped + other.skipped,
        }
    }
}

/// How a part ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It ran to its end and counted this; it is good only if nothing in it failed.
    Ran(Tally),
    /// It could not do its work, or ended badly; what was counted until then, and why: in one line, behind which others
    /// may follow that are shown below the table.
    Failed(Tally, Fault),
    /// It was left out on purpose or for lack of an optional tool, and why.
    NotRun(String),
}

/// One line of the table.
pub(crate) struct Line {
    pub(crate) part: &'static str,
    pub(crate) took: Duration,
    pub(crate) outcome: Outcome,
}

/// All lines, in the order they ran.
#[derive(Default)]
pub(crate) struct Report {
    pub(crate) lines: Vec<Line>,
}

impl Outcome {
    /// A part that failed counts at least one failure, and one that was not run one skipped: neither can look like a pass.
    fn tally(&self) -> Tally {
        match self {
            Self::Ran(tally) => *tally,
            Self::Failed(tally, _) => Tally { failed: tally.failed.max(1), ..*tally },
            Self::NotRun(_) => Tally { skipped: 1, ..Tally::default() },
        }
    }
}

impl Report {
    fn total(&self) -> Tally {
        self.lines.iter().fold(Tally::default(), |sum, line| sum.add(line.outcome.tally()))
    }

    /// Whether the part of this name ran and is good.
    pub(crate) fn succeeded(&self, part: &str) -> bool {
        let good = |outcome: &Outcome| matches!(outcome, Outcome::Ran(tally) if tally.failed == 0);
        self.lines.iter().any(|line| line.part == part && good(&line.outcome))
    }

    /// Whether anything failed, or nothing at all was tested.
    pub(crate) fn failed(&self) -> bool {
        let total = self.total();
        total.failed > 0 || total.passed == 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: f64 = self.lines.iter().map(|line| line.took.as_secs_f64()).sum();
        writeln!(f, "\n{:<24} {:>8} {:>6}  result", "part", "seconds", "share")?;
        for Line { part, took, outcome } in &self.lines {
            let secs = took.as_secs_f64();
            let share = if all > 0.0 { 100.0 * secs / all } else { 0.0 };
            write!(f, "{part:<24} {secs:>8.1} {share:>5.0}%  ")?;
            let Tally { passed, failed, skipped } = outcome.tally();
            match outcome {
                Outcome::NotRun(why) => writeln!(f, "not run: {why}")?,
                Outcome::Failed(_, why) => writeln!(f, "FAILED: {}", why.lines().next().unwrap_or_default())?,
                Outcome::Ran(_) if failed > 0 => writeln!(f, "FAILED: {failed} of {}", passed + failed)?,
                Outcome::Ran(_) if skipped > 0 => writeln!(f, "ok: {passed}, and {skipped} skipped")?,
                Outcome::Ran(_) => writeln!(f, "ok: {passed}")?,
            }
        }
        writeln!(f, "{:<24} {all:>8.1}   100%", "all")?;
        for Line { part, outcome, .. } in &self.lines {
            if let Outcome::Failed(_, why) = outcome
                && let Some((_, more)) = why.split_once('\n')
            {
                writeln!(f, "\n{part} said last:\n{more}")?;
            }
        }
        // Alone on a line and in this form, because test runners' readers look for it.
        let Tally { passed, failed, skipped } = self.total();
        writeln!(f, "\n{passed} passed, {failed} failed, {skipped} skipped")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(outcomes: Vec<Outcome>) -> Report {
        let line = |outcome| Line { part: "part", took: Duration::from_secs(1), outcome };
        Report { lines: outcomes.into_iter().map(line).collect() }
    }

    #[test]
    fn a_part_that_failed_without_a_count_still_counts_as_a_failure() {
        let report = report(vec![Outcome::Ran(Tally::ONE), Outcome::Failed(Tally::default(), "no node".into())]);
        assert!(report.failed());
        let text = report.to_string();
        assert!(text.contains("50%  FAILED: no node"), "{text}");
        assert!(text.ends_with("\n1 passed, 1 failed, 0 skipped\n"), "{text}");
    }

    #[test]
    fn what_a_failed_part_said_last_stands_below_the_table() {
        let text = report(vec![Outcome::Failed(Tally::default(), "exit status: 1\none\ntwo".into())]).to_string();
        assert!(text.contains("FAILED: exit status: 1\nall"), "{text}");
        assert!(text.contains("100%\n\npart said last:\none\ntwo\n\n0 passed, 1 failed"), "{text}");
    }

    #[test]
    fn what_was_not_run_is_skipped_and_never_passed() {
        let report = report(vec![Outcome::Ran(Tally::ONE), Outcome::NotRun("no `cargo-deny` here".into())]);
        assert!(!report.failed());
        let text = report.to_string();
        assert!(text.contains("not run: no `cargo-deny` here"), "{text}");
        assert!(text.ends_with("\n1 passed, 0 failed, 1 skipped\n"), "{text}");
    }

    #[test]
    fn a_run_that_tested_nothing_is_not_a_good_run() {
        assert!(report(vec![]).failed());
        assert!(report(vec![Outcome::NotRun("left out".into())]).failed());
    }

    #[test]
    fn a_failed_test_fails_its_part() {
        let report = report(vec![Outcome::Ran(Tally { passed: 2, failed: 1, skipped: 0 })]);
        assert!(report.failed());
        assert!(report.to_string().contains("FAILED: 1 of 3"));
    }
}
