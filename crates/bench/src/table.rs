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
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 };
        Some(Self { median, low, high })
    }

    fn json(self) -> Value {
        json!({ "median": self.median, "low": self.low, "high": self.high })
    }
}

/// One line of the table, computed.
#[derive(Debug)]
pub(crate) struct Line {
    figure: &'static Figure,
    of: Spread,
    to: Option<Spread>,
    direct: Option<Spread>,
    ratio: Option<Spread>,
    /// The second measurement of nginx divided by the first.
    equals: Option<Spread>,
}

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
        let base = |round: &u64| match figure.compare {
            Compare::Added => direct.get(round).copied(),
            Compare::Ratio | Compare::Figure | Compare::More => Some(0.0),
        };
        let ratio = of.iter().filter_map(|(round, n)| {
            let base = base(round)?;
            let to = (first.get(round)? + again.get(round)?) / 2.0;
            Some(if figure.compare == Compare::More { n - to } else { (n - base) / (to - base) })
        });
        let equals = first.iter().filter_map(|(round, n)| {
            let base = base(round)?;
            Some((again.get(round)? - base) / (n - base))
        });
        let spread = |of: &BTreeMap<u64, f64>| Spread::of(of.values().copied().collect());
        let both = first.values().chain(again.values()).copied().collect();
        Some(Self {
            figure,
            of: spread(&of)?,
            to: Spread::of(both),
            // Where no process is watched there is no CPU to compare with.
            direct: spread(&direct).filter(|direct| direct.median > 0.0),
            ratio: Spread::of(ratio.collect()),
            equals: Spread::of(equals.collect()),
        })
    }

    /// What is held against the goal.
    fn judged(&self) -> Option<f64> {
        match self.figure.compare {
            Compare::Figure => Some(self.of.median),
            Compare::Ratio | Compare::Added | Compare::More => self.ratio.map(|ratio| ratio.median),
        }
    }

    /// A goal is missed only beyond what equals differ by.
    fn verdict(&self) -> &'static str {
        let Some(got) = self.judged() else { return "nothing to compare with" };
        let noise = match (self.figure.compare, self.equals) {
            (Compare::Figure | Compare::More, _) | (_, None) => 1.0,
            (_, Some(equals)) if equals.low > 0.0 => equals.high.max(1.0 / equals.low).max(1.0),
            (_, Some(equals)) => equals.high.max(1.0),
        };
        let (goal, limit) = (self.figure.goal, self.figure.limit);
        if goal.is_infinite() {
            return "for comparison";
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
            "value": self.of.json(),
            "value_of_other": self.to.map(Spread::json),
            "direct": self.direct.map(Spread::json),
            "ratio": self.ratio.map(Spread::json),
            "judged": self.judged(),
            "equals": self.equals.map(Spread::json),
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
            spread.map_or("not run".to_owned(), |s| format!("{} {}", short(s.median), figure.unit))
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
            number(Some(line.of)),
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
    fn what_was_not_measured_is_not_in_the_table() {
        let (text, data) = table(&rows([20.0; 3]));
        assert_eq!(data.as_array().unwrap().len(), 1);
        assert!(text.contains("CPU per small request") && !text.contains("200 KB"));
        let without: Vec<Value> = rows([20.0; 3]).into_iter().filter(|row| row["subject"] == "cco").collect();
        assert!(table(&without).0.contains("not run"));
    }
}
