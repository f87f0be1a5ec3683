//! A pattern in which `*` stands for any text, taken apart once. Letters of either case are the same.

use std::borrow::Cow;
use std::fmt;

/// A pattern.
#[derive(Clone, PartialEq, Eq)]
pub struct Glob {
    /// As it was written.
    text: Box<str>,
    parts: Parts,
}

/// The letters of a text in lower case, a bit each. Those that names are made of have bits of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Letters(u64);

impl Letters {
    /// Of a text of which nothing is known: any may be in it.
    pub const ANY: Self = Self(u64::MAX);

    fn of(folded: &[u8]) -> Self {
        // `a` to `z` lie above the middle, digits and what stands between words below it.
        Self(folded.iter().fold(0, |bits, byte| bits | 1 << ((byte >> 1 & 32) | (byte & 31))))
    }

    /// Whether a text of those letters may hold all of these.
    pub fn are_among(self, others: Self) -> bool {
        self.0 & !others.0 == 0
    }

    /// Those that are in both.
    #[must_use]
    pub fn common(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

/// What stands around the stars, in lower case.
#[derive(Clone, PartialEq, Eq)]
enum Parts {
    /// There is no star.
    Exact(Box<str>),
    /// Before the first star, after the last one, and between them.
    Around { head: Box<str>, tail: Box<str>, middle: Box<[Box<str>]> },
}

/// A text in lower case: made once for all patterns that it is held against, and most texts are in lower case already.
#[derive(Debug, Clone)]
pub struct Folded<'a>(Cow<'a, [u8]>);

impl<'a> Folded<'a> {
    /// Of this text, which need not be UTF-8.
    pub fn of(text: &'a [u8]) -> Self {
        // All of it is looked at, many bytes at a time: hardly any text has such a letter.
        let has_upper = text.iter().fold(false, |found, byte| found | byte.is_ascii_uppercase());
        Self(if has_upper { text.to_ascii_lowercase().into() } else { text.into() })
    }

    /// What it is made of.
    pub fn letters(&self) -> Letters {
        Letters::of(&self.0)
    }
}

impl Glob {
    /// Takes a pattern apart.
    pub fn new(text: &str) -> Self {
        let lower = text.to_ascii_lowercase();
        let parts = match lower.split_once('*') {
            Some((head, rest)) => {
                let (middle, tail) = rest.rsplit_once('*').unwrap_or(("", rest));
                let middle = middle.split('*').filter(|part| !part.is_empty()).map(Into::into).collect();
                Parts::Around { head: head.into(), tail: tail.into(), middle }
            }
            None => Parts::Exact(lower.into()),
        };
        Self { text: text.into(), parts }
    }

    /// Whether the whole text is as the pattern says.
    pub fn matches(&self, text: &str) -> bool {
        self.matches_folded(&Folded::of(text.as_bytes()))
    }

    /// The same for a text that is held against many patterns.
    pub fn matches_folded(&self, Folded(text): &Folded<'_>) -> bool {
        let (head, tail, middle) = match &self.parts {
            Parts::Exact(lower) => return **text == *lower.as_bytes(),
            Parts::Around { head, tail, middle } => (head.as_bytes(), tail.as_bytes(), middle),
        };
        if text.len() < head.len() + tail.len() || !is_same(&text[..head.len()], head) {
            return false;
        }
        let mut rest = &text[head.len()..];
        let tail_at = rest.len() - tail.len();
        if !is_same(&rest[tail_at..], tail) {
            return false;
        }
        rest = &rest[..tail_at];
        // Each part at its first place: if that does not lead to the end, no later place does.
        middle.iter().all(|part| match find(rest, part.as_bytes()) {
            Some(at) => {
                rest = &rest[at + part.len()..];
                true
            }
            None => false,
        })
    }

    /// What is in every text that is as the pattern says.
    pub fn letters(&self) -> Letters {
        let lower = self.text.to_ascii_lowercase();
        Letters::of(&lower.bytes().filter(|byte| *byte != b'*').collect::<Vec<_>>())
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Glob({:?})", self.text)
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Where a part that is not empty stands first. Texts here are names: a search that prepares itself would cost more.
fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    let (first, rest) = part.split_first()?;
    let last = text.len().checked_sub(part.len())?;
    // Most places do not even begin alike.
    (0..=last).find(|at| text[*at] == *first && is_same(&text[at + 1..at + part.len()], rest))
}

/// Whether two texts of one length are the same: of names, nearly always the first letter tells.
fn is_same(a: &[u8], b: &[u8]) -> bool {
    a.iter().zip(b).all(|(a, b)| a == b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(pattern: &str, yes: &[&str], no: &[&str]) {
        let glob = Glob::new(pattern);
        for text in yes {
            assert!(glob.matches(text), "{pattern} and {text}");
        }
        for text in no {
            assert!(!glob.matches(text), "{pattern} and {text}");
        }
    }

    #[test]
    fn a_star_stands_for_any_text() {
        check("claude-*", &["claude-opus-5-5", "claude-", "Claude-x"], &["claude", "xclaude-", ""]);
        check("*haiku*", &["haiku", "claude-haiku-5-5"], &["claude-hai-ku"]);
        check("*-mini", &["gpt-6-mini", "-mini"], &["mini", "gpt-mini-6"]);
        check("a*b*c", &["abc", "aXbYc", "abbcc"], &["ac", "acb", "abcd"]);
        check("ab*ba", &["abba", "abxba"], &["aba", "ab"]);
        check("*", &["", "anything"], &[]);
        check("**a**", &["a", "bab"], &["", "b"]);
        check("exact", &["exact", "EXACT"], &["exactly", ""]);
        check("", &[""], &["a"]);
    }

    #[test]
    fn letters_tell_names_apart() {
        let can_be =
            |pattern: &str, text: &str| Glob::new(pattern).letters().are_among(Folded::of(text.as_bytes()).letters());
        assert!(can_be("*", "") && can_be("Claude-*", "claude-x") && !can_be("claude-*", "gpt-6"));
        let made_of = "abcdefghijklmnopqrstuvwxyz0123456789-._:/@ ";
        for (at, letter) in made_of.char_indices() {
            let others: String = made_of.chars().filter(|other| *other != letter).collect();
            assert!(!can_be(&made_of[at..=at], &others), "`{letter}` is one of its own");
        }
    }

    /// By its definition.
    fn naive(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), None) => naive(rest, text),
            (Some((b'*', rest)), Some((_, shorter))) => naive(rest, text) || naive(pattern, shorter),
            (Some((a, pattern)), Some((b, text))) => a.eq_ignore_ascii_case(b) && naive(pattern, text),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn it_matches_what_its_definition_says(pattern in "[abA*]{0,8}", text in "[abB]{0,10}") {
            let (glob, folded) = (Glob::new(&pattern), Folded::of(text.as_bytes()));
            let matches = naive(pattern.as_bytes(), text.as_bytes());
            prop_assert_eq!(glob.matches(&text), matches);
            prop_assert!(!matches || glob.letters().are_among(folded.letters()));
        }
    }
}
