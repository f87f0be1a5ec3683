//! Fits a request to its target: what every encoder would otherwise decide for itself, decided once.
//!
//! An encoder writes what it finds here in the shape of its protocol, and adds the few losses that only that shape has.
//! Here is the whole in the order of its steps; each step has a file of its own.

mod foreign;
mod groups;
mod names;
mod pairs;
mod paths;
mod schemas;
mod settings;
mod tools;
mod turns;

use std::borrow::Cow;

use crate::codec::{Back, Target};
use crate::loss::Losses;
use crate::plain::{join, text};
use crate::protocol::Protocol;
use crate::quirks::Quirks;
use crate::request::{Effort, Format, Part, Request, Sampling, Thought, ToolChoice};

pub use groups::Group;
pub use names::{id, name};
pub use paths::Field;
pub use tools::FittedTool;

#[derive(Debug)]
pub struct Fit<'r> {
    /// The system prompt, with the instructions that stand before all other turns: texts that are not empty, and extras
    /// of the target's protocol.
    pub system: Vec<&'r Part<'r>>,
    /// What has to be said in the system prompt because the target has no field for it.
    pub note: Option<String>,
    /// The conversation: no two neighbours have the same role, results come first and in the order of their calls, no
    /// text is empty, instructions stand between turns only where they may, and of the thinking there is what goes back.
    pub groups: Vec<Group<'r>>,
    /// The tools that the target can be told of.
    pub tools: Vec<FittedTool<'r>>,
    /// Never without tools.
    pub tool_choice: Option<ToolChoice<'r>>,
    /// `Some(false)` or nothing: every provider calls side by side by itself.
    pub parallel_tools: Option<bool>,
    /// The most tokens of output, within the model's limit.
    pub max_tokens: Option<u64>,
    /// The stop sequences that are taken.
    pub stop: Vec<&'r str>,
    /// What is taken of it.
    pub sampling: Sampling,
    /// Whether to think.
    pub thought: Option<Thought>,
    /// How hard: one of the efforts that the target knows.
    pub effort: Option<Effort>,
    /// The form of the answer that the target can be asked for.
    pub format: &'r Format<'r>,
    /// Whether the target holds to the schema of the answer.
    pub strict_format: bool,
    /// The end user: as a hash where the client speaks another protocol.
    pub user: Option<String>,
    /// What is not carried.
    pub losses: Losses,
    /// What the answer's reader needs to know.
    pub back: Back,
}

/// Fits the request to a target that speaks `own`.
pub fn fit<'r>(request: &'r Request<'r>, own: Protocol, target: &Target<'_>) -> Fit<'r> {
    let quirks = target.quirks;
    let mut losses = Losses::default();
    let mut fitter = Fitter { request, own, quirks, losses: &mut losses };
    let mut back = Back::default();
    fitter.extras();
    let spoken = fitter.spoken();
    fitter.pairs(&spoken);
    let tools = fitter.tools(&mut back);
    let (tools, tool_choice) = fitter.tool_choice(tools);
    let (thought, effort) = fitter.reasoning(!tools.is_empty());
    let (format, note) = fitter.format();
    let strict_format = fitter.strict_format(format);
    let (system, groups) = fitter.groups(spoken);
    Fit {
        system,
        note,
        groups,
        parallel_tools: fitter.parallel_tools(!tools.is_empty()),
        tools,
        tool_choice,
        max_tokens: fitter.max_tokens(target.max_output),
        stop: fitter.stop(),
        sampling: fitter.sampling(),
        thought,
        effort,
        format,
        strict_format,
        user: fitter.user(),
        losses,
        back,
    }
}

impl Fit<'_> {
    /// The system prompt as one text, for protocols that know no more of it.
    pub fn system_text(&self) -> Cow<'_, str> {
        let texts = self.system.iter().filter_map(|part| text(&part.content));
        join(texts.chain(self.note.as_deref()), "\n\n")
    }
}

/// A request that is being fitted.
struct Fitter<'r, 'l> {
    request: &'r Request<'r>,
    /// What the target speaks.
    own: Protocol,
    quirks: &'l Quirks,
    losses: &'l mut Losses,
}

impl Fitter<'_, '_> {
    /// A field as the client calls it.
    fn path(&self, field: Field) -> &'static str {
        field.of(self.request.source)
    }
}
