//! What a request has been found to be, as far as rules have asked: each thing is looked at once.

use super::facts::Facts;
use super::rules::{RuleSet, Test};
use crate::glob::{Folded, Glob, Letters};

/// Conditions on texts whose answers are kept for the other rules that have them too; any further one is looked at again.
const KEPT: usize = 256;
/// Subjects whose texts are kept. The last of them are headers; any further one is looked at again.
const SUBJECTS: usize = 16;
/// The subjects before the headers.
const NAMED: usize = 5;

/// What patterns are held against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    Model,
    Session,
    Project,
    KeyId,
    AgentType,
    /// The header at this place of the names that any rule asks for.
    Header(usize),
}

impl Subject {
    fn place(self) -> usize {
        match self {
            Self::Model => 0,
            Self::Session => 1,
            Self::Project => 2,
            Self::KeyId => 3,
            Self::AgentType => 4,
            Self::Header(at) => NAMED + at,
        }
    }
}

/// What the text of one condition of a rule is made of. All of a configuration's lie side by side, and most rules are
/// refused by theirs without being touched.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gate {
    letters: Letters,
    /// The place of the subject.
    of: u32,
    /// The place of the condition.
    test: u32,
}

impl Gate {
    /// For a rule with these conditions.
    pub(super) fn new(tests: &[usize], all: &[Test]) -> Self {
        let narrow = |test: &usize| {
            let Test::Text(subject, globs) = &all[*test] else { return None };
            let letters = globs.iter().map(Glob::letters).reduce(Letters::common)?;
            (subject.place() < SUBJECTS && letters != Letters::default()).then_some((letters, subject.place(), *test))
        };
        let (letters, of, test) = tests.iter().find_map(narrow).unwrap_or_default();
        Self { letters, of: of as u32, test: test as u32 }
    }

    /// The condition that does not hold where a request does not pass.
    pub(super) fn test(&self) -> usize {
        self.test as usize
    }
}

/// What one request has been found to be.
#[derive(Debug)]
pub(super) struct Answers<'r, 'f> {
    rules: &'r RuleSet,
    facts: &'r Facts<'f>,
    /// A bit for each condition on a text: whether somebody has asked, and whether it holds.
    asked: [u64; KEPT / 64],
    holds: [u64; KEPT / 64],
    /// What those texts are made of that somebody has asked for.
    letters: [Letters; SUBJECTS],
    texts: [Option<Folded<'r>>; SUBJECTS],
}

impl<'r, 'f> Answers<'r, 'f> {
    /// Nobody has asked anything yet.
    pub(super) fn new(rules: &'r RuleSet, facts: &'r Facts<'f>) -> Self {
        let texts = [const { None }; SUBJECTS];
        Self {
            rules,
            facts,
            asked: Default::default(),
            holds: Default::default(),
            letters: [Letters::ANY; SUBJECTS],
            texts,
        }
    }

    /// Whether a rule may match, as far as is known.
    pub(super) fn may_pass(&self, gate: &Gate) -> bool {
        // No gate is made for a subject beyond these: the remainder spares a look at where they end.
        gate.letters.are_among(self.letters[gate.of as usize % SUBJECTS])
    }

    /// Whether the condition at this place holds.
    pub(super) fn ask(&mut self, at: usize) -> bool {
        match &self.rules.tests[at] {
            Test::Text(subject, globs) => self.fits_once(at, *subject, globs),
            test => test.holds(self.facts),
        }
    }

    /// [`Self::fits`], unless that is known already.
    fn fits_once(&mut self, at: usize, subject: Subject, globs: &[Glob]) -> bool {
        let (word, bit) = (at / 64, 1 << (at % 64));
        if word >= self.asked.len() {
            return self.fits(subject, globs);
        }
        if self.asked[word] & bit == 0 {
            self.asked[word] |= bit;
            self.holds[word] |= if self.fits(subject, globs) { bit } else { 0 };
        }
        self.holds[word] & bit != 0
    }

    /// Whether there is a text, and one of the patterns fits.
    fn fits(&mut self, subject: Subject, globs: &[Glob]) -> bool {
        let any = |text: &Folded<'_>| globs.iter().any(|glob| glob.matches_folded(text));
        let read = || self.facts.text(subject, &self.rules.headers).map(Folded::of);
        let at = subject.place();
        let (Some(letters), Some(text)) = (self.letters.get_mut(at), self.texts.get_mut(at)) else {
            return read().is_some_and(|text| any(&text));
        };
        if *letters == Letters::ANY {
            *text = read();
            *letters = text.as_ref().map(Folded::letters).unwrap_or_default();
        }
        text.as_ref().is_some_and(any)
    }
}
