//! A pattern in which `*` stands for any text, taken apart once. Letters of either case are the same.

use std::fmt;

/// A pattern.
#[derive(Clone, PartialEq, Eq)]
pub struct Glob {
    /// As it was written.
    text: Box<str>,
    parts: Parts,
}

/// What stands around the stars.
#[derive(Clone, PartialEq, Eq)]
enum Parts {
    Exact,
    /// Before the first star, after the last one, and between them.
    Around {
        head: u32,
        tail: u32,
        middle: Box<[Box<str>]>,
    },
}

impl Glob {
    /// Takes a pattern apart.
    pub fn new(text: &str) -> Self {
        let parts = match (text.find('*'), text.rfind('*')) {
            (Some(first), Some(last)) => {
                let middle = text.get(first + 1..last).unwrap_or_default().split('*').filter(|part| !part.is_empty());
                let size = |bytes: usize| u32::try_from(bytes).expect("a pattern comes from a file of some megabytes");
                let (head, tail) = (size(first), size(text.len() - last - 1));
                Parts::Around { head, tail, middle: middle.map(Into::into).collect() }
            }
            _ => Parts::Exact,
        };
        Self { text: text.into(), parts }
    }

    /// Whether the whole text is as the pattern says.
    pub fn matches(&self, text: &str) -> bool {
        self.matches_bytes(text.as_bytes())
    }

    /// The same for a text that need not be UTF-8.
    pub fn matches_bytes(&self, text: &[u8]) -> bool {
        let pattern = self.text.as_bytes();
        let Parts::Around { head, tail, middle } = &self.parts else { return text.eq_ignore_ascii_case(pattern) };
        let (head, tail) = (*head as usize, *tail as usize);
        if text.len() < head + tail
            || !text[..head].eq_ignore_ascii_case(&pattern[..head])
            || !text[text.len() - tail..].eq_ignore_ascii_case(&pattern[pattern.len() - tail..])
        {
            return false;
        }
        // Each part at its first place: if that does not lead to the end, no later place does.
        let mut rest = &text[head..text.len() - tail];
        middle.iter().all(|part| {
            let part = part.as_bytes();
            // Most places do not even begin alike.
            let first = part[0].to_ascii_lowercase();
            let alike = |place: &[u8]| place[0].to_ascii_lowercase() == first && place.eq_ignore_ascii_case(part);
            rest.windows(part.len()).position(alike).is_some_and(|at| {
                rest = &rest[at + part.len()..];
                true
            })
        })
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
            prop_assert_eq!(Glob::new(&pattern).matches(&text), naive(pattern.as_bytes(), text.as_bytes()));
        }
    }
}
