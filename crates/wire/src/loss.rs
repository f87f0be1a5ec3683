//! What a translation could not carry: named, and either dropped with a warning or a reason to refuse the request.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::hash::{DefaultHasher, Hash, Hasher};

/// How much it matters that something is not carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// Nothing changes: the target does by itself what the source asked for, or the field only served the source.
    Silent,
    /// A hint: it may be dropped with a warning.
    Hint,
    /// The answer would be to another request: always refused, before anything is sent.
    Meaning,
}

/// Where something stands in a request: `messages[3].content[1]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    list: &'static str,
    item: u32,
    inner: &'static str,
    part: u32,
}

impl Place {
    /// An element of a list at the top level.
    pub fn new(list: &'static str, item: usize) -> Self {
        Self { list, item: u32::try_from(item).unwrap_or(u32::MAX), inner: "", part: 0 }
    }

    /// A field at the top level.
    pub fn field(name: &'static str) -> Self {
        Self { list: name, item: u32::MAX, inner: "", part: 0 }
    }

    /// An element of a list within it.
    pub fn part(self, inner: &'static str, part: usize) -> Self {
        Self { inner, part: u32::try_from(part).unwrap_or(u32::MAX), ..self }
    }

    /// Whether it stands right after the other in the same list.
    pub fn follows(self, other: Self) -> bool {
        (self.list, self.item, self.inner) == (other.list, other.item, other.inner)
            && other.part.checked_add(1) == Some(self.part)
    }

    /// A field within it.
    pub fn inner(self, inner: &'static str) -> Self {
        Self { inner, part: u32::MAX, ..self }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.list)?;
        if self.item != u32::MAX {
            write!(f, "[{}]", self.item)?;
        }
        if !self.inner.is_empty() {
            write!(f, ".{}", self.inner)?;
            if self.part != u32::MAX {
                write!(f, "[{}]", self.part)?;
            }
        }
        Ok(())
    }
}

/// One thing that was not carried. The path is the client's: the field as it stands in its request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// Where it stands in the client's request.
    pub path: Box<str>,
    /// Why it cannot be carried, or what was done instead.
    pub reason: Cow<'static, str>,
    /// Whether it may be dropped.
    pub weight: Weight,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.reason)
    }
}

/// Bytes of a path or a reason: they may hold the client's own words.
const LONGEST: usize = 300;
/// Bytes of all paths together, in a header.
const HEADER: usize = 1500;

fn bounded(text: Cow<'static, str>) -> Cow<'static, str> {
    if text.len() <= LONGEST { text } else { Cow::Owned(text[..text.floor_char_boundary(LONGEST)].to_owned()) }
}

/// How many losses are kept of one request or answer; more are counted.
const MOST: usize = 64;
/// How many are counted.
const COUNTED: usize = 1000;
/// Bytes of a member's name in an answer.
const NAME: usize = 64;

/// What is said of a member of an answer that nobody reads.
const LEFT_OUT: &str = "it is left out of translated answers";

/// What one translation could not carry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Losses {
    list: Vec<Loss>,
    /// What else there was: their digests, so that none is counted twice.
    more: BTreeSet<u64>,
}

/// A word of an upstream as it may be shown. What is none could be anything, even what the client said or what a terminal
/// obeys.
pub(crate) fn plain(word: &str) -> Cow<'_, str> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '$' | '@' | '/' | ':');
    if word.len() <= NAME && word.chars().all(is_plain) {
        word.into()
    } else {
        word.chars().take(NAME).map(|c| if is_plain(c) { c } else { '?' }).collect::<String>().into()
    }
}

impl Losses {
    /// Notes that a hint is dropped.
    pub fn hint(&mut self, path: impl fmt::Display, reason: impl Into<Cow<'static, str>>) {
        self.add(path, reason, Weight::Hint);
    }

    /// Notes that the request has to be refused.
    pub fn refuse(&mut self, path: impl fmt::Display, reason: impl Into<Cow<'static, str>>) {
        self.add(path, reason, Weight::Meaning);
    }

    /// Notes a loss of any weight; what changes nothing is not noted, what was noted already is not repeated.
    pub fn add(&mut self, path: impl fmt::Display, reason: impl Into<Cow<'static, str>>, weight: Weight) {
        if weight == Weight::Silent {
            return;
        }
        let (path, reason) = (bounded(path.to_string().into()), bounded(reason.into()));
        let loss = Loss { path: path.into(), reason, weight };
        if self.list.contains(&loss) {
            return;
        }
        // A reason to refuse is never crowded out by warnings.
        if self.list.len() >= MOST && (weight < Weight::Meaning || self.refused().is_some()) {
            let mut digest = DefaultHasher::new();
            (&loss.path, &loss.reason).hash(&mut digest);
            self.count(digest.finish());
        } else {
            self.list.push(loss);
        }
    }

    fn count(&mut self, digest: u64) {
        if self.more.len() < COUNTED {
            self.more.insert(digest);
        }
    }

    /// Notes that a member of an answer is left out; `within` are the objects that it is in. A stream may have it in each
    /// of its events: what was noted already costs a comparison.
    pub(crate) fn left_out(&mut self, within: &[&str], name: &str) {
        self.unsaid(within, name, || LEFT_OUT.into());
    }

    /// Notes that something of an answer is not carried, as [`left_out`](Self::left_out) does, for another reason.
    pub(crate) fn unsaid(&mut self, within: &[&str], name: &str, reason: impl FnOnce() -> Cow<'static, str>) {
        let name = plain(name);
        let is_it = |path: &str| {
            let rest = within.iter().try_fold(path, |path, step| path.strip_prefix(step)?.strip_prefix('.'));
            rest == Some(&name)
        };
        if self.list.iter().any(|loss| is_it(&loss.path)) {
            return;
        }
        let mut path = String::new();
        within.iter().for_each(|step| path.extend([step, "."]));
        self.add(path + &name, reason(), Weight::Hint);
    }

    /// The first loss that forbids sending the request.
    pub fn refused(&self) -> Option<&Loss> {
        self.list.iter().find(|loss| loss.weight == Weight::Meaning)
    }

    /// Whether nothing was lost.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The losses in the order in which they were found.
    pub fn iter(&self) -> std::slice::Iter<'_, Loss> {
        self.list.iter()
    }

    /// All of the other's whose paths are not here yet: a reader's behind those of the writer, who knows better why.
    pub(crate) fn complete(&mut self, other: &Self) {
        other.more.iter().for_each(|digest| self.count(*digest));
        for loss in &other.list {
            if !self.list.iter().any(|known| known.path == loss.path) {
                self.add(&loss.path, loss.reason.clone(), loss.weight);
            }
        }
    }

    /// All of another translation's.
    pub fn append(&mut self, other: Self) {
        other.more.into_iter().for_each(|digest| self.count(digest));
        other.list.into_iter().for_each(|loss| self.add(loss.path, loss.reason, loss.weight));
    }
}

impl<'a> IntoIterator for &'a Losses {
    type Item = &'a Loss;
    type IntoIter = std::slice::Iter<'a, Loss>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// As the header `x-cco-loss` shows them: the paths, joined by commas. What no header may hold is a question mark.
impl fmt::Display for Losses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut more, mut length) = (self.more.len(), 0);
        for loss in &self.list {
            if length + loss.path.len() > HEADER {
                more += 1;
                continue;
            }
            f.write_str(if length > 0 { ", " } else { "" })?;
            length += loss.path.len() + 2;
            loss.path.chars().try_for_each(|c| f.write_char(if c.is_ascii_graphic() || c == ' ' { c } else { '?' }))?;
        }
        if more > 0 { write!(f, ", and {more} more") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_reads_like_the_clients_own_path() {
        assert_eq!(Place::new("messages", 3).part("content", 1).to_string(), "messages[3].content[1]");
        assert_eq!(Place::new("tools", 0).to_string(), "tools[0]");
        assert_eq!(Place::new("messages", 1).inner("output_config").to_string(), "messages[1].output_config");
        assert_eq!(Place::field("n").to_string(), "n");
    }

    #[test]
    fn many_warnings_are_counted_and_never_hide_a_refusal() {
        let mut losses = Losses::default();
        losses.add("quiet", "the target does it anyway", Weight::Silent);
        for n in 0..100 {
            losses.hint(Place::new("tools", n % 80), "no such tool there");
        }
        assert_eq!((losses.iter().count(), losses.more.len(), losses.refused()), (64, 16, None));
        losses.refuse("n", "only one answer");
        losses.refuse("m", "another");
        assert_eq!(&*losses.refused().unwrap().path, "n");
        assert!(losses.to_string().ends_with("n, and 17 more"), "{losses}");
    }

    #[test]
    fn what_an_answer_repeats_is_named_once_and_counted_once() {
        let mut losses = Losses::default();
        for n in 0..1000 {
            losses.left_out(&["choices[]", "delta"], "annotations");
            losses.left_out(&["choices[]"], "delta.annotations");
            losses.left_out(&[], &format!("m{}", n % 70));
        }
        assert_eq!(losses.iter().count(), 64);
        let told = losses.to_string();
        assert!(
            told.starts_with("choices[].delta.annotations, m0, m1, ") && told.ends_with("m62, and 7 more"),
            "{told}"
        );
        (0..10_000).for_each(|n| losses.left_out(&["x"], &format!("{n}")));
        assert!(losses.to_string().ends_with("m62, and 1000 more"), "{losses}");
    }

    #[test]
    fn a_name_that_is_none_shows_nothing_of_what_it_says() {
        let mut losses = Losses::default();
        losses.left_out(&["a"], "my key is \"sk\", \u{e9}");
        losses.left_out(&[], &"x".repeat(500));
        assert_eq!(losses.to_string(), format!("a.my?key?is??sk????, {}", "x".repeat(64)));
    }

    #[test]
    fn the_clients_words_cannot_break_a_header() {
        let mut losses = Losses::default();
        losses.hint("field\r\nset-cookie: é", "r");
        losses.hint("x".repeat(5000), "y".repeat(5000));
        (0..20).for_each(|n| losses.hint(format!("{n}{}", "z".repeat(400)), "r"));
        let header = losses.to_string();
        assert!(header.starts_with("field??set-cookie: ?, xxx") && header.len() < 1600, "{header}");
        assert!(header.ends_with(", and 17 more"), "{header}");
        assert!(losses.iter().all(|loss| loss.path.len() <= 300 && loss.reason.len() <= 300));
    }
}
