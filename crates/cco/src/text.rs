//! Numbers, times and strangers' words as people read them, and tables of them.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Whether a character could do something to a terminal, or hide what is there.
fn is_dangerous(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Words of a model, a client or a provider in one line: what could move a cursor or hide is escaped.
pub(crate) fn line(text: &str) -> Cow<'_, str> {
    escaped(text, |_| false)
}

/// The same in several lines.
pub(crate) fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| matches!(c, '\n' | '\t'))
}

/// Data for programs, as a person may see it on a terminal: escaped as JSON does it, which stays JSON.
pub(crate) fn data(text: &str) -> Cow<'_, str> {
    let is_bad = |c: char| is_dangerous(c) && !matches!(c, '\n' | '\t');
    if !text.contains(is_bad) {
        return Cow::Borrowed(text);
    }
    let mut clean = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_bad(c) {
            // A `String` takes everything, and all of these are below 0x10000.
            let _ = write!(clean, "\\u{:04x}", u32::from(c));
        } else {
            clean.push(c);
        }
    }
    Cow::Owned(clean)
}

fn escaped(text: &str, fine: impl Fn(char) -> bool) -> Cow<'_, str> {
    let is_bad = |c: char| is_dangerous(c) && !fine(c);
    if !text.contains(is_bad) {
        return Cow::Borrowed(text);
    }
    let mut clean = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            c if !is_bad(c) => clean.push(c),
            '\n' => clean.push_str("\\n"),
            '\r' => clean.push_str("\\r"),
            '\t' => clean.push_str("\\t"),
            c => {
                // A `String` takes everything.
                let _ = write!(clean, "\\u{{{:x}}}", u32::from(c));
            }
        }
    }
    Cow::Owned(clean)
}

/// The beginning of a text, with a mark where something is missing.
pub(crate) fn cut(text: &str, most: usize) -> Cow<'_, str> {
    if text.chars().count() <= most {
        return Cow::Borrowed(text);
    }
    let kept: String = text.chars().take(most.saturating_sub(1)).collect();
    Cow::Owned(format!("{kept}…"))
}

/// Dollars: whole cents from one dollar on, below it as many decimals as say something.
pub(crate) fn usd(dollars: f64) -> String {
    match dollars {
        0.0 => "$0".into(),
        d if d.abs() >= 0.995 => format!("${d:.2}"),
        d if d.abs() >= 0.000_095 => format!("${d:.4}"),
        _ => "<$0.0001".into(),
    }
}

/// A count in three digits or so.
pub(crate) fn count(n: i64) -> String {
    let (size, unit) = match n.unsigned_abs() {
        0..1000 => return n.to_string(),
        1000..999_500 => (1e3, "k"),
        999_500..999_500_000 => (1e6, "M"),
        _ => (1e9, "G"),
    };
    let scaled = n as f64 / size;
    let decimals = if scaled.abs() < 9.995 { 2 } else { usize::from(scaled.abs() < 99.95) };
    format!("{scaled:.decimals$}{unit}")
}

/// So many of something.
pub(crate) fn of(n: i64, what: &str) -> String {
    let end = if n == 1 { "" } else { "s" };
    format!("{n} {what}{end}")
}

/// A part of a whole.
pub(crate) fn percent(part: f64) -> String {
    format!("{:.0} %", part * 100.0)
}

/// How long something took, given in milliseconds.
pub(crate) fn took(ms: f64) -> String {
    match ms / 1e3 {
        s if s < 0.9995 => format!("{ms:.0} ms"),
        s if s < 59.95 => format!("{s:.1} s"),
        s => span(s.round() as i64),
    }
}

/// A span of time in its two largest units.
pub(crate) fn span(seconds: i64) -> String {
    let s = seconds.max(0);
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{} min {} s", s / 60, s % 60),
        3600..86_400 => format!("{} h {} min", s / 3600, s / 60 % 60),
        _ => format!("{} d {} h", s / 86_400, s / 3600 % 24),
    }
}

/// A bar whose length is a part (0 to 1) of `width` characters.
pub(crate) fn bar(part: f64, width: usize) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (part.clamp(0.0, 1.0) * (width * 8) as f64).round() as usize;
    // What is not nothing is seen.
    let eighths = if part > 0.0 { eighths.max(1) } else { eighths };
    format!("{}{}", "█".repeat(eighths / 8), EIGHTHS[eighths % 8])
}

/// On which side of its column a cell stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Left,
    Right,
}

/// Rows under a heading. The last column takes what is left of the width.
#[derive(Debug)]
pub(crate) struct Table {
    head: Vec<(&'static str, Side)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(head: &[(&'static str, Side)]) -> Self {
        Self { head: head.into(), rows: Vec::new() }
    }

    /// A row of cells, which were escaped where others chose them.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// The widths that the columns need, at least these.
    pub(crate) fn widths(&self, least: &[usize]) -> Vec<usize> {
        let cells = |at: usize| self.rows.iter().filter_map(move |row| row.get(at)).map(|cell| cell.chars().count());
        let one = |(at, (name, _)): (usize, &(&str, Side))| {
            cells(at).max().unwrap_or(0).max(name.chars().count()).max(least.get(at).copied().unwrap_or(0))
        };
        self.head.iter().enumerate().map(one).collect()
    }

    /// The heading.
    pub(crate) fn heading(&self, widths: &[usize]) -> String {
        self.joined(&self.head.iter().map(|(name, _)| (*name).to_owned()).collect::<Vec<_>>(), widths, None)
    }

    /// The rows, at most `width` characters wide.
    pub(crate) fn lines(&self, widths: &[usize], width: Option<usize>) -> impl Iterator<Item = String> {
        self.rows.iter().map(move |row| self.joined(row, widths, width))
    }

    fn joined(&self, cells: &[String], widths: &[usize], width: Option<usize>) -> String {
        let mut line = String::new();
        for ((cell, (_, side)), width) in cells.iter().zip(&self.head).zip(widths) {
            let pad = " ".repeat(width.saturating_sub(cell.chars().count()));
            if !line.is_empty() {
                line.push_str("  ");
            }
            match side {
                Side::Left => line.extend([cell.as_str(), &pad]),
                Side::Right => line.extend([pad.as_str(), cell]),
            }
        }
        let line = line.trim_end();
        width.map_or(Cow::Borrowed(line), |width| cut(line, width)).into_owned()
    }
}

/// Words of others as a cell that no spreadsheet takes for a formula: one that could be gets an apostrophe before it.
pub(crate) fn inert(cell: &str) -> Cow<'_, str> {
    if cell.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{cell}").into() } else { cell.into() }
}

/// A cell of comma-separated values.
pub(crate) fn csv(cell: &str) -> Cow<'_, str> {
    if cell.contains([',', '"', '\n', '\r']) {
        Cow::Owned(format!("\"{}\"", cell.replace('"', "\"\"")))
    } else {
        Cow::Borrowed(cell)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_do_something_to_a_terminal_is_escaped() {
        assert_eq!(line("a\x1b[2Jb\nc\u{9b}d\u{202e}e\u{7f}"), "a\\u{1b}[2Jb\\nc\\u{9b}d\\u{202e}e\\u{7f}");
        assert_eq!(lines("a\n\tb\r\x07"), "a\n\tb\\r\\u{7}");
        assert!(matches!(line("größer — 日本"), Cow::Borrowed(_)));
    }

    #[test]
    fn data_stays_data_and_moves_no_cursor() {
        let shown = data("a\x1b[2J,\u{9b}1m\u{202e}\u{feff}\n\t\r");
        assert_eq!(shown, "a\\u001b[2J,\\u009b1m\\u202e\\ufeff\n\t\\u000d");
        let value = serde_json::json!({ "model": "m\u{9b}1m\u{202e}\x1b\n" });
        let text = value.to_string();
        let shown = data(&text);
        assert!(!shown.contains(is_dangerous), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
        assert!(matches!(data("größer — 日本"), Cow::Borrowed(_)));
    }

    #[test]
    fn money_is_exact_where_it_is_little_and_short_where_it_is_much() {
        let shown = [0.0, 0.000_05, 0.0001, 0.0123, 0.99, 0.999, 1.0, 1234.567, -0.5].map(usd);
        assert_eq!(
            shown,
            ["$0", "<$0.0001", "$0.0001", "$0.0123", "$0.9900", "$1.00", "$1.00", "$1234.57", "$-0.5000"]
        );
    }

    #[test]
    fn counts_have_three_digits_or_so() {
        let shown = [0, 999, 1000, 12_345, 123_456, 999_499, 999_500, 12_345_678, 5_000_000_000].map(count);
        assert_eq!(shown, ["0", "999", "1.00k", "12.3k", "123k", "999k", "1.00M", "12.3M", "5.00G"]);
    }

    #[test]
    fn one_is_not_many() {
        assert_eq!([0, 1, 2].map(|n| of(n, "record")), ["0 records", "1 record", "2 records"]);
    }

    #[test]
    fn times_are_in_the_units_that_people_use() {
        assert_eq!(
            [0.4, 999.0, 1000.0, 59_900.0, 60_000.0].map(took),
            ["0 ms", "999 ms", "1.0 s", "59.9 s", "1 min 0 s"]
        );
        assert_eq!([59, 61, 3700, 90_000].map(span), ["59 s", "1 min 1 s", "1 h 1 min", "1 d 1 h"]);
    }

    #[test]
    fn a_bar_shows_what_is_not_nothing() {
        assert_eq!([0.0, 0.001, 0.5, 1.0, 2.0].map(|part| bar(part, 4)), ["", "▏", "██", "████", "████"]);
    }

    #[test]
    fn a_table_keeps_its_columns_and_its_width() {
        let mut table = Table::new(&[("NAME", Side::Left), ("N", Side::Right), ("WHY", Side::Left)]);
        table.row(["a", "1000", "a long reason"].map(String::from).into());
        table.row(["größer", "7", ""].map(String::from).into());
        let widths = table.widths(&[]);
        assert_eq!(table.heading(&widths), "NAME       N  WHY");
        let lines: Vec<String> = table.lines(&widths, Some(20)).collect();
        assert_eq!(lines, ["a       1000  a lon…", "größer     7"]);
    }

    #[test]
    fn what_could_be_a_formula_is_none() {
        for bad in ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"] {
            assert_eq!(inert(bad), format!("'{bad}"));
        }
        assert!(["", "a=1", "2026-11-22", "claude-opus"].iter().all(|fine| inert(fine) == *fine));
    }

    #[test]
    fn a_cell_with_a_comma_or_a_quote_is_quoted() {
        assert_eq!([csv("a"), csv("a,b"), csv("say \"x\"\n")], ["a", "\"a,b\"", "\"say \"\"x\"\"\n\""]);
    }
}
