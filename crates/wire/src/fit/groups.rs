//! Turns put together as the target takes them: instructions first, neighbours of one role as one, results in order.

use std::borrow::Cow;

use super::Fitter;
use super::turns::Spoken;
use crate::loss::Place;
use crate::opaque::Extra;
use crate::plain::join;
use crate::request::{Call, Content, Part, Role, ToolResult};

/// Turns of one role that follow each other.
#[derive(Debug)]
pub struct Group<'r> {
    /// Whose.
    pub role: Role,
    /// What they say.
    pub parts: Vec<Cow<'r, Part<'r>>>,
    /// Fields of the first turn that only the source knows.
    pub extras: Vec<&'r Extra<'r>>,
    /// Where the first stands in the client's request.
    pub place: Place,
}

impl<'r> Fitter<'r, '_> {
    pub(super) fn groups(&mut self, spoken: Vec<Spoken<'r>>) -> (Vec<&'r Part<'r>>, Vec<Group<'r>>) {
        let mut system: Vec<&'r Part<'r>> = self.request.system.iter().filter(|part| self.speaks(part)).collect();
        let mut groups: Vec<Group<'r>> = Vec::new();
        // Instructions that stand between calls and their results wait until after the last of them.
        let (mut held, mut open): (Vec<Spoken<'r>>, usize) = (Vec::new(), 0);
        for one in spoken {
            if one.turn.role == Role::System && groups.is_empty() {
                system.extend(self.said(one));
                continue;
            }
            if one.turn.role == Role::System && open > 0 {
                held.push(one);
                continue;
            }
            open = one.turn.parts.iter().fold(open, |open, part| match part.content {
                Content::Call(_) => open + 1,
                Content::Result(_) => open.saturating_sub(1),
                _ => open,
            });
            self.push(&mut groups, one);
            if open == 0 {
                held.drain(..).for_each(|one| self.push(&mut groups, one));
            }
        }
        held.into_iter().for_each(|one| self.push(&mut groups, one));
        for at in 1..groups.len() {
            let (before, after) = groups.split_at_mut(at);
            if after[0].role == Role::User {
                let order: Vec<&str> = before[at - 1].calls().map(|call| &*call.id).collect();
                after[0].parts.sort_by_key(|part| match &part.content {
                    Content::Result(result) => order.iter().position(|id| *id == result.id).unwrap_or(order.len()),
                    _ => usize::MAX,
                });
            }
        }
        (system, groups)
    }

    fn push(&mut self, groups: &mut Vec<Group<'r>>, one: Spoken<'r>) {
        let turn = one.turn;
        let mut parts: Vec<Cow<'r, Part<'r>>> = self.said(one).map(Cow::Borrowed).collect();
        let mut role = turn.role;
        if role == Role::System && !self.quirks.system_within {
            role = Role::User;
            for part in &mut parts {
                if let Content::Text(text) = &mut part.to_mut().content {
                    text.text = format!("<system>\n{}\n</system>", text.text).into();
                    let reason =
                        "the upstream takes instructions at the beginning only: it is sent as a marked user text";
                    self.losses.hint(turn.place, reason);
                }
            }
        }
        match groups.last_mut() {
            Some(last) if last.role == role => last.parts.append(&mut parts),
            _ => {
                let extras = if role == turn.role { turn.extras.iter().collect() } else { Vec::new() };
                groups.push(Group { role, parts, extras, place: turn.place });
            }
        }
    }
}

impl Group<'_> {
    /// All its text as one: pieces that follow each other belong together, others are set apart.
    pub fn text(&self) -> Cow<'_, str> {
        let mut joined = Cow::Borrowed("");
        let mut last: Option<Place> = None;
        for part in &self.parts {
            let Content::Text(text) = &part.content else { continue };
            if joined.is_empty() {
                joined = Cow::Borrowed(&*text.text);
            } else {
                let apart = last.is_none_or(|last| !part.place.follows(last));
                joined.to_mut().push_str(if apart { "\n\n" } else { "" });
                joined.to_mut().push_str(&text.text);
            }
            last = Some(part.place);
        }
        joined
    }

    /// All texts of one kind as one.
    pub fn joined(&self, pick: impl for<'p> Fn(&'p Content<'_>) -> Option<&'p str>, with: &str) -> Cow<'_, str> {
        join(self.parts.iter().filter_map(|part| pick(&part.content)), with)
    }

    /// The calls of tools in it.
    pub fn calls(&self) -> impl Iterator<Item = &Call<'_>> {
        self.parts.iter().filter_map(|part| match &part.content {
            Content::Call(call) => Some(call),
            _ => None,
        })
    }

    /// The results of tools in it.
    pub fn results(&self) -> impl Iterator<Item = &ToolResult<'_>> {
        self.parts.iter().filter_map(|part| match &part.content {
            Content::Result(result) => Some(result),
            _ => None,
        })
    }
}
