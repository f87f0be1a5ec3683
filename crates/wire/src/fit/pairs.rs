//! Calls of tools and their results belong together.

use super::Fitter;
use super::turns::Spoken;
use crate::loss::{Losses, Place};
use crate::request::{Content, Role};

impl<'r> Fitter<'r, '_> {
    /// Every result follows its call, and every call but those of the last turn has its result: instructions may stand
    /// between the two, and may not follow calls that are left without. Clients know these two sentences of Anthropic's.
    pub(super) fn pairs(&mut self, spoken: &[Spoken<'r>]) {
        let mut open: Vec<(&str, Place)> = Vec::new();
        let mut answered_by: Option<Role> = None;
        // Whether instructions wait for the results of open calls.
        let mut instructed = false;
        let unanswered = |open: &mut Vec<(&str, Place)>, losses: &mut Losses| {
            for (id, place) in open.drain(..) {
                let reason = format!(
                    "`tool_use` ids were found without `tool_result` blocks immediately after: {id}. Each `tool_use` \
                     block must have a corresponding `tool_result` block in the next message."
                );
                losses.refuse(place, reason);
            }
        };
        for Spoken { turn, .. } in spoken {
            if turn.role == Role::Assistant && answered_by != Some(Role::Assistant) {
                unanswered(&mut open, self.losses);
            }
            for part in &turn.parts {
                match &part.content {
                    Content::Call(call) => open.push((&call.id, part.place)),
                    Content::Result(result) => match open.iter().position(|(id, _)| *id == result.id) {
                        Some(at) => drop(open.swap_remove(at)),
                        None => {
                            let reason = format!(
                                "unexpected `tool_use_id` found in `tool_result` blocks: {}. Each `tool_result` block \
                                 must have a corresponding `tool_use` block in the previous message.",
                                result.id
                            );
                            self.losses.refuse(part.place, reason);
                        }
                    },
                    _ => {}
                }
            }
            match turn.role {
                Role::System => instructed = true,
                role => answered_by = Some(role),
            }
            instructed &= !open.is_empty();
        }
        if instructed || answered_by == Some(Role::User) {
            unanswered(&mut open, self.losses);
        }
    }
}
