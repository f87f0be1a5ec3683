//! Turns and parts that say something to the target: what is left of the conversation.

use std::borrow::Cow;

use super::Fitter;
use crate::quirks::ThinkingBack;
use crate::request::{Content, Document, Part, Role, Source, Turn};

/// A turn that says something to the target.
#[derive(Clone, Copy)]
pub(super) struct Spoken<'r> {
    pub(super) turn: &'r Turn<'r>,
    /// Whether the model says or calls something after it and before anybody else does.
    pub(super) goes_on: bool,
}

impl<'r> Fitter<'r, '_> {
    /// Whether a part says something to the target.
    pub(super) fn speaks(&self, part: &Part<'_>) -> bool {
        match &part.content {
            Content::Text(text) => !text.text.is_empty(),
            Content::Refusal(text) => !text.is_empty(),
            Content::Extra(extra) => extra.origin == self.own,
            Content::Document(Document { source, title, context, .. }) => {
                let says = |text: &Option<Cow<'_, str>>| text.as_ref().is_some_and(|text| !text.is_empty());
                let inner = match source {
                    Source::Text(text) => !text.is_empty(),
                    Source::Parts(parts) => parts.iter().any(|part| self.speaks(part)),
                    _ => true,
                };
                inner || says(title) || says(context)
            }
            Content::Thinking(thinking) => match self.quirks.thinking_back {
                ThinkingBack::None => false,
                ThinkingBack::Own => thinking.opaque.as_ref().is_some_and(|opaque| opaque.origin == self.own),
                ThinkingBack::Led => thinking.opaque.as_ref().is_some_and(|opaque| {
                    // Only its own clients may name what the provider keeps instead of bringing it.
                    opaque.origin == self.own && (self.request.source == self.own || !opaque.data.is_empty())
                }),
                ThinkingBack::Text => !thinking.text.is_empty(),
            },
            _ => true,
        }
    }

    /// Whether a part is what thinking leads to.
    fn is_led_to(&self, part: &Part<'_>) -> bool {
        !matches!(part.content, Content::Thinking(_) | Content::Extra(_)) && self.speaks(part)
    }

    /// The parts of a turn that say something to the target.
    pub(super) fn said(&self, Spoken { turn, goes_on }: Spoken<'r>) -> impl Iterator<Item = &'r Part<'r>> {
        turn.parts
            .iter()
            .enumerate()
            .filter(move |(at, part)| {
                let must_lead = self.quirks.thinking_back == ThinkingBack::Led;
                let leads = || goes_on || turn.parts[at + 1..].iter().any(|part| self.is_led_to(part));
                self.speaks(part) && (!must_lead || !matches!(part.content, Content::Thinking(_)) || leads())
            })
            .map(|(_, part)| part)
    }

    /// The turns that are left: those that say nothing stand between no others.
    pub(super) fn spoken(&self) -> Vec<Spoken<'r>> {
        let mut spoken = Vec::with_capacity(self.request.turns.len());
        // From the end: whether the model goes on, and how many calls before have their results here or later.
        let (mut goes_on, mut open) = (false, 0_usize);
        for turn in self.request.turns.iter().rev() {
            let one = Spoken { turn, goes_on };
            if self.said(one).next().is_none() {
                continue;
            }
            spoken.push(one);
            open = turn.parts.iter().rev().fold(open, |open, part| match part.content {
                Content::Result(_) => open + 1,
                Content::Call(_) => open.saturating_sub(1),
                _ => open,
            });
            goes_on = match turn.role {
                Role::Assistant => goes_on || turn.parts.iter().any(|part| self.is_led_to(part)),
                Role::User => false,
                // It will wait for the results.
                Role::System => goes_on && open > 0,
            };
        }
        spoken.reverse();
        spoken
    }
}
