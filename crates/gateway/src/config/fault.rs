//! What is wrong with a configuration, and what its reader should know: each with its place in the text.

use std::fmt;

/// One thing that must be corrected before the configuration can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// The environment variable that it stands in, where that is not the text.
    pub variable: Option<String>,
    /// The key, for example `providers.anthropic.baseUrl`; empty for the text as a whole.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

/// How much a [`Note`] matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoteLevel {
    /// Good to know.
    Info,
    /// Odd, but usable.
    Warn,
}

/// Something worth a line in the log, though the configuration can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// How much it matters.
    pub level: NoteLevel,
    /// Line and column, from 1, where it belongs to a place in the text.
    pub at: Option<(usize, usize)>,
    /// The key it is about; empty for none.
    pub path: String,
    /// What there is to know.
    pub message: String,
}

impl Note {
    /// A note without a place in a configuration text.
    pub fn new(level: NoteLevel, message: impl Into<String>) -> Self {
        Self { level, at: None, path: String::new(), message: message.into() }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

/// All faults of one text. Its `Display` is what the user sees: `file:line:column: path: message`, then `help: …`; what
/// an environment variable says has that in the place of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults {
    /// The file, as the user knows it.
    pub file: String,
    /// In the order of the text; never empty.
    pub faults: Vec<Fault>,
}

impl Faults {
    /// What a change of this key brings in, and what was there before it. A value that is set answers for all that is
    /// wrong with it; of other keys only what was right before counts. Lines move, so that no place is compared.
    pub fn brought_in(before: &[Fault], after: Vec<Fault>, set: Option<&str>) -> (Vec<Fault>, Vec<Fault>) {
        let count = |all: &[Fault], path: &str| all.iter().filter(|fault| fault.path == path).count();
        let own = |path: &str| {
            let rest = set.and_then(|set| path.strip_prefix(set));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        let is_new = |fault: &Fault| own(&fault.path) || count(&after, &fault.path) > count(before, &fault.path);
        let new: Vec<bool> = after.iter().map(is_new).collect();
        let (mut brought, mut there) = (Vec::new(), Vec::new());
        for (fault, is_new) in after.into_iter().zip(new) {
            if is_new { brought.push(fault) } else { there.push(fault) }
        }
        (brought, there)
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, fault) in self.faults.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            match &fault.variable {
                Some(variable) => write!(f, "`{variable}`: ")?,
                None => write!(f, "{}:{}:{}: ", self.file, fault.line, fault.column)?,
            }
            if !fault.path.is_empty() {
                write!(f, "{}: ", fault.path)?;
            }
            f.write_str(&fault.message)?;
            if let Some(help) = &fault.help {
                write!(f, "\n  help: {help}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

/// Turns byte offsets into lines and columns.
#[derive(Debug)]
pub(super) struct Lines<'t> {
    text: &'t str,
    /// Byte offset of the first character of each line.
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(i, _)| i + 1)).collect();
        Self { text, starts }
    }

    /// Line and column, both from 1; the column counts characters.
    pub(super) fn at(&self, offset: usize) -> (usize, usize) {
        let offset = self.text.floor_char_boundary(offset);
        let line = self.starts.partition_point(|&start| start <= offset) - 1;
        (line + 1, self.text[self.starts[line]..offset].chars().count() + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_and_offsets_past_the_end_stay_inside() {
        let lines = Lines::new("a\nüß=x\r\n");
        assert_eq!(lines.at(0), (1, 1));
        assert_eq!(lines.at(2), (2, 1));
        assert_eq!(lines.at("a\nüß".len()), (2, 3));
        assert_eq!(lines.at(3), (2, 1), "in the middle of a character");
        assert_eq!(lines.at(999), (3, 1));
        assert_eq!(Lines::new("").at(0), (1, 1));
    }

    #[test]
    fn a_change_answers_for_what_it_sets_and_for_what_was_right_before() {
        let fault = |line, path: &str, message: &str| Fault {
            line,
            column: 1,
            variable: None,
            path: path.into(),
            message: message.into(),
            help: None,
        };
        let before = [fault(1, "servr", "unknown key"), fault(2, "log.level", "\"loud\" is not known here")];
        let paths = |all: Vec<Fault>| all.into_iter().map(|fault| fault.path).collect::<Vec<_>>();
        let check = |after: &[Fault], set, new: &[&str], there: &[&str]| {
            let (brought, old) = Faults::brought_in(&before, after.to_vec(), set);
            assert_eq!(
                (paths(brought), paths(old)),
                (new.iter().map(|p| (*p).to_owned()).collect(), there.iter().map(|p| (*p).to_owned()).collect())
            );
        };
        let moved = [fault(3, "servr", "unknown key"), fault(4, "log.level", "\"loud\" is not known here")];
        check(&moved, Some("server.listen"), &[], &["servr", "log.level"]);
        check(&moved, Some("log.level"), &["log.level"], &["servr"]);
        check(&moved, Some("log"), &["log.level"], &["servr"]);
        check(&moved, Some("log.lev"), &[], &["servr", "log.level"]);
        check(&moved[..1], None, &[], &["servr"]);
        let other = [moved[0].clone(), fault(9, "providers.a.baseUrl", "is missing")];
        check(&other, Some("providers.a.providerType"), &["providers.a.baseUrl"], &["servr"]);
        let twice = [moved[0].clone(), moved[0].clone()];
        check(&twice, Some("log.level"), &["servr", "servr"], &[]);
    }

    #[test]
    fn faults_print_as_a_compiler_would() {
        let fault = |line, path: &str, help: Option<&str>| Fault {
            line,
            column: 5,
            variable: None,
            path: path.into(),
            message: "is odd".into(),
            help: help.map(Into::into),
        };
        let all =
            Faults { file: "c.json".into(), faults: vec![fault(1, "", None), fault(2, "a.b", Some("make it even"))] };
        assert_eq!(all.to_string(), "c.json:1:5: is odd\nc.json:2:5: a.b: is odd\n  help: make it even");
    }
}
