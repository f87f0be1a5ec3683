//! Takes elements out of lists of a JSON text, without moving any other byte.

use std::ops::Range;

use serde_json::value::RawValue;

/// What is to be taken out.
#[derive(Debug, Default)]
pub(crate) struct Cuts(Vec<Range<usize>>);

impl Cuts {
    /// Those elements of one list that `leave` marks, each with one comma. All of them lie in `text`.
    pub(crate) fn elements(&mut self, text: &str, all: &[&RawValue], leave: &[bool]) {
        let at = |raw: &RawValue| raw.get().as_ptr() as usize - text.as_ptr() as usize;
        let end = |raw: &RawValue| at(raw) + raw.get().len();
        // The first that stays takes no comma before it.
        let first = leave.iter().position(|leave| !leave).unwrap_or(all.len());
        for (n, raw) in all.iter().enumerate().filter(|(n, _)| leave[*n]) {
            self.0.push(match all.get(n + 1) {
                Some(next) if n < first => at(raw)..at(next),
                None if n == 0 || first == all.len() => at(raw)..end(raw),
                _ => end(all[n - 1])..end(raw),
            });
        }
    }

    /// The text without them; `None` where there are none.
    pub(crate) fn apply(mut self, text: &[u8]) -> Option<Vec<u8>> {
        if self.0.is_empty() {
            return None;
        }
        self.0.sort_unstable_by_key(|cut| cut.start);
        let (mut out, mut at) = (Vec::with_capacity(text.len()), 0);
        for cut in self.0 {
            out.extend_from_slice(&text[at..cut.start]);
            at = cut.end;
        }
        out.extend_from_slice(&text[at..]);
        Some(out)
    }
}
