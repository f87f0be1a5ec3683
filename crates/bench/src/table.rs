//! From raw measurements to a table of medians and ratios, beside what equals differ by on this machine.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::rows::{ALONE, Compare, FIGURES, Figure};
use crate::subject::Subject;

/// Median, lowest and highest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.retain(|n| n.is_finite());
        values.sort_by(f64::total_cmp);
        let (low, high) = (*values.first()?, *values.last()?);
        Some(Self { median: middle(&values)?, low, high })
    }

    fn json(self) -> Value {
        json!({ "median": self.median, "low": self.low, "high": self.high })
    }
}

/// The median of what is sorted.
fn middle(sorted: &[f64]) -> Option<f64> {
    let n = sorted.len() / 2;
    let high = *sorted.get(n)?;
    Some(if sorted.len() % 2 == 1 { high } else { (sorted[n - 1] + high) / 2.0 })
}

/// One line of the table, computed.
#[derive(Debug)]
pub(crate) struct Line {
    figure: &'static Figure,
    of: Option<Spread>,
    to: Option<Spread>,
    direct: Option<Spread>,
    ratio: Option<Spread>,
    /// The second measurement of nginx divided by the first.
    equals: Option<Spread>,
    /// How far these two are apart in the middle round, whichever is the larger.
    noise: Option<f64>,
}

/// Where equals differ by more than this, a ratio to them says nothing.
const TOO_NOISY: f64 = 1.2;
/// Said of what was asked for and has no value: the run fails.
pub(crate) const NOT_MEASURED: &str = "not measured";
/// Said of what can be judged neither as met nor as missed.
pub(crate) const CANNOT_JUDGE: &str = "too noisy to judge";

/// Values by round of one subject.
fn values(rows: &[Value], figure: &Figure, subject: Subject) -> BTreeMap<u64, f64> {
    rows.iter()
        .filter(|row| row["load"] == figure.load && row["subject"] == subject.name())
        .filter_map(|row| Some((row["round"].as_u64()?, (figure.value)(row)?)))
        .collect()
}

impl Line {
    fn of(figure: &'static Figure, rows: &[Value]) -> Option<Self> {
        let get = |subject| values(rows, figure, subject);
        let (of, first, again, direct) = (get(figure.of), get(figure.to), get(figure.again), get(Subject::Direct));
        // What nobody asked for is not missed; another gateway is asked for by itself.
        let is_its =
            |row: &Value| row["load"] == figure.load && (!figure.of.is_peer() || row["subject"] == figure.of.name());
        if !rows.iter().any(is_its) {
            return None;
        }
        let base = |round: &u64| match figure.compare {
            Compare::Added => direct.get(round).copied(),
            Compare::Ratio | Compare::Figure | Compare::More => Some(0.0),
        };
        let ratio = of.iter().filter_map(|(round, n)| {
            let base = base(round)?;
            let to = (first.get(round)? + again.get(round)?) / 2.0;
            if figure.compare == Compare::More {
                return Some(n - to);
            }
            // Who is as quick as no gateway at all was not measured well enough.
            (*n > base && to > base).then(|| (n - base) / (to - base))
        });
        let ratio: Vec<f64> = ratio.collect();
        let equals = first.iter().filter_map(|(round, n)| {
            let (base, again) = (base(round)?, *again.get(round)?);
            Some(if *n > base && again > base { (again - base) / (n - base) } else { f64::INFINITY })
        });
        let equals: Vec<f64> = equals.collect();
        let mut apart: Vec<f64> = equals.iter().map(|e| e.max(1.0 / e)).collect();
        apart.sort_by(f64::total_cmp);
        let spread = |of: &BTreeMap<u64, f64>| Spread::of(of.values().copied().collect());
        let both = first.values().chain(again.values()).copied().collect();
        Some(Self {
            figure,
            of: spread(&of),
            to: Spread::of(both),
            // Where no process is watched there is no CPU to compare with.
            direct: spread(&direct).filter(|direct| direct.median > 0.0),
            // A round that has none is not left out in silence.
            ratio: Spread::of(ratio.clone()).filter(|_| ratio.len() == of.len()),
            equals: Spread::of(equals),
            noise: middle(&apart),
        })
    }

    /// What is held against the goal.
    fn judged(&self) -> Option<f64> {
        match self.figure.compare {
            Compare::Figure => self.of.map(|of| of.median),
            Compare::Ratio | Compare::Added | Compare::More => self.ratio.map(|ratio| ratio.median),
        }
    }

    /// A goal is missed only beyond what equals differ by.
    fn verdict(&self) -> &'static str {
        let Some(got) = self.judged() else { return NOT_MEASURED };
        let noise = match self.figure.compare {
            Compare::Figure | Compare::More => 1.0,
            Compare::Ratio | Compare::Added => self.noise.unwrap_or(1.0),
        };
        let (goal, limit) = (self.figure.goal, self.figure.limit);
        if goal.is_infinite() {
            return "for comparison";
        }
        if noise > TOO_NOISY {
            return CANNOT_JUDGE;
        }
        if got <= goal {
            "goal met"
        } else if got <= goal * noise {
            "goal met within noise"
        } else if got <= limit {
            "under the limit"
        } else if got <= limit * noise {
            "at the limit, within noise"
        } else {
            "OVER THE LIMIT"
        }
    }

    fn json(&self) -> Value {
        json!({
            "figure": self.figure.title,
            "load": self.figure.load,
            "of": self.figure.of.name(),
            "to": self.figure.to.name(),
            "unit": self.figure.unit,
            "goal": self.figure.goal,
            "limit": self.figure.limit,
            "value": self.of.map(Spread::json),
            "value_of_other": self.to.map(Spread::json),
            "direct": self.direct.map(Spread::json),
            "ratio": self.ratio.map(Spread::json),
            "judged": self.judged(),
            "equals": self.equals.map(Spread::json),
            "noise": self.noise,
            "verdict": self.verdict(),
        })
    }
}

/// The table as text, and as data.
pub(crate) fn table(rows: &[Value]) -> (String, Value) {
    let lines: Vec<Line> = FIGURES.iter().filter_map(|figure| Line::of(figure, rows)).collect();
    let data = lines.iter().map(Line::json).collect();
    let mut cells = vec![
        ["figure", "goal (limit)", "direct", "other", "measured", "to other", "other to itself", ""].map(str::to_owned),
    ];
    for line in &lines {
        let figure = line.figure;
        let number = |spread: Option<Spread>| {
            spread.map_or(NOT_MEASURED.to_owned(), |s| format!("{} {}", short(s.median), figure.unit))
        };
        let ratio = |spread: Option<Spread>| {
            spread.map_or("–".to_owned(), |s| format!("{:.2} [{:.2}–{:.2}]", s.median, s.low, s.high))
        };
        let unit = if matches!(figure.compare, Compare::Figure | Compare::More) { figure.unit } else { "×" };
        cells.push([
            figure.title.into(),
            if figure.goal.is_infinite() {
                "–".into()
            } else {
                format!("{} ({}) {unit}", rounded(figure.goal), rounded(figure.limit))
            },
            line.direct.map_or("–".to_owned(), |_| number(line.direct)),
            match line.to {
                None if ALONE.contains(&figure.load) => "–".into(),
                to => format!("{}: {}", figure.to.name(), number(to)),
            },
            number(line.of),
            ratio(line.ratio),
            ratio(line.equals),
            line.verdict().into(),
        ]);
    }
    let width = |n: usize| cells.iter().map(|row| row[n].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..8).map(width).collect();
    let mut text = String::new();
    for (n, row) in cells.iter().enumerate() {
        let padded: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text += &format!("| {} |\n", padded.join(" | "));
        if n == 0 {
            let rules: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
            text += &format!("| {} |\n", rules.join(" | "));
        }
    }
    (text, data)
}

/// As it was set, with two decimals at most.
fn rounded(n: f64) -> f64 {
    (n * 100.0).round() / 100.0
}

/// Three digits that count.
fn short(n: f64) -> String {
    match n.abs() {
        n if n >= 100.0 => format!("{n:.0}"),
        n if n >= 10.0 => format!("{n:.1}"),
        _ => format!("{n:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(cco: [f64; 3]) -> Vec<Value> {
        let mut rows = Vec::new();
        for (round, n) in cco.into_iter().enumerate() {
            for (subject, cpu) in [("nginx", 20.0), ("cco", n), ("direct", 0.0), ("nginx again", 22.0)] {
                rows.push(json!({ "load": "small", "subject": subject, "round": round, "cpu_us": cpu * 100.0, "requests": 100 }));
            }
        }
        rows
    }

    #[track_caller]
    fn check(cco: [f64; 3], ratio: f64, verdict: &str) {
        let line = Line::of(&FIGURES[0], &rows(cco)).unwrap();
        assert!((line.ratio.unwrap().median - ratio).abs() < 0.001, "{line:?}");
        assert_eq!(line.verdict(), verdict);
    }

    #[test]
    fn a_goal_is_missed_only_beyond_what_equals_differ_by() {
        check([18.0, 21.0, 25.0], 1.0, "goal met");
        check([22.05, 22.05, 22.05], 1.05, "goal met within noise");
        check([25.2, 25.2, 25.2], 1.2, "under the limit");
        check([27.3, 27.3, 27.3], 1.3, "at the limit, within noise");
        check([42.0, 42.0, 42.0], 2.0, "OVER THE LIMIT");
    }

    #[test]
    fn more_rounds_make_no_goal_easier_and_equals_that_differ_are_not_judged() {
        let rows = |again: [f64; 3]| -> Vec<Value> {
            let of = |round: usize| [("nginx", 20.0), ("cco", 28.0), ("nginx again", again[round])];
            let row = |round: usize, (subject, cpu): (&str, f64)| json!({ "load": "small", "subject": subject, "round": round, "cpu_us": cpu, "requests": 1 });
            (0..3).flat_map(|round| of(round).map(|it| row(round, it))).collect()
        };
        let verdict = |again| Line::of(&FIGURES[0], &rows(again)).unwrap().verdict();
        assert_eq!(verdict([20.0, 20.0, 40.0]), "OVER THE LIMIT", "one bad round is no excuse");
        assert_eq!(verdict([20.0, 36.0, 11.0]), CANNOT_JUDGE);
    }

    #[test]
    fn who_adds_nothing_or_ended_was_not_measured_and_stands_in_the_table() {
        let row = |subject: &str, p50: f64| json!({ "load": "one", "subject": subject, "round": 0, "latency_us": { "p50": p50 } });
        let with = |nginx: f64| [row("nginx", nginx), row("cco", 90.0), row("direct", 80.0), row("nginx again", nginx)];
        let verdict = |rows: &[Value]| table(rows).1[0]["verdict"].clone();
        assert_eq!(verdict(&with(100.0)), "goal met");
        assert_eq!(verdict(&with(70.0)), NOT_MEASURED);
        let ended = [json!({ "load": "small", "subject": "cco", "round": 0, "requests": 0, "cpu_us": 0.0 })];
        let (text, data) = table(&ended);
        assert_eq!((data.as_array().unwrap().len(), &data[0]["verdict"]), (3, &json!(NOT_MEASURED)));
        assert!(text.contains(NOT_MEASURED));
    }

    #[test]
    fn what_was_not_asked_for_is_not_in_the_table() {
        let (text, data) = table(&rows([20.0; 3]));
        assert_eq!(data.as_array().unwrap().len(), 3);
        assert!(text.contains("CPU per small request") && !text.contains("200 KB"));
        let without: Vec<Value> = rows([20.0; 3]).into_iter().filter(|row| row["subject"] == "cco").collect();
        assert!(table(&without).0.contains(NOT_MEASURED));
    }
}
