//! Fits a request to its target: what every encoder would otherwise decide for itself, decided once.
//!
//! An encoder writes what it finds here in the shape of its protocol, and adds the few losses that only that shape has.

use std::borrow::Cow;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::codec::{Back, Target};
use crate::json::Json;
use crate::loss::{Losses, Place, Weight};
use crate::opaque::Extra;
use crate::protocol::Protocol;
use crate::quirks::{Choices, Formats, Images, Quirks, ReasoningForm, Strict, ThinkingBack, UserField};
use crate::request::{
    Ability, Call, Content, Document, Effort, Format, Image, Part, Reasoning, Request, Role, Sampling, Source, Thought,
    Tool, ToolChoice, ToolKind, ToolResult, Turn,
};

/// A request as the target can take it.
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

/// A tool as the target can be told of it.
#[derive(Debug, Clone)]
pub struct FittedTool<'r> {
    /// As the client defines it.
    pub tool: &'r Tool<'r>,
    /// Its name, within the target's limits.
    pub name: Cow<'r, str>,
    /// What it does, within the target's limits.
    pub description: Option<&'r str>,
    /// Whether the target is to hold to its schema, and can.
    pub strict: bool,
}

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
        max_tokens: match (request.max_tokens, target.max_output) {
            (Some(asked), Some(most)) => Some(asked.min(most)),
            (asked, _) => asked,
        },
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

/// The fields that are named by each protocol in its own way.
#[derive(Debug, Clone, Copy)]
enum Field {
    Thinking,
    Effort,
    Format,
    Stop,
    Verbosity,
    Parallel,
}

impl Field {
    fn of(self, source: Protocol) -> &'static str {
        use Protocol::{AnthropicMessages as A, OpenAiChat as C, OpenAiResponses as R};
        match (self, source) {
            (Self::Thinking, A) => "thinking",
            (Self::Effort, A) => "output_config.effort",
            (Self::Thinking | Self::Effort, R) => "reasoning",
            (Self::Thinking | Self::Effort, _) => "reasoning_effort",
            (Self::Format, A) => "output_config.format",
            (Self::Format, R) => "text.format",
            (Self::Format, _) => "response_format",
            (Self::Stop, C) => "stop",
            (Self::Stop, _) => "stop_sequences",
            (Self::Verbosity, R) => "text.verbosity",
            (Self::Verbosity, _) => "verbosity",
            (Self::Parallel, A) => "tool_choice.disable_parallel_tool_use",
            (Self::Parallel, _) => "parallel_tool_calls",
        }
    }
}

/// A turn that says something to the target.
#[derive(Clone, Copy)]
struct Spoken<'r> {
    turn: &'r Turn<'r>,
    /// Whether the model says or calls something after it and before anybody else does.
    goes_on: bool,
}

struct Fitter<'r, 'l> {
    request: &'r Request<'r>,
    own: Protocol,
    quirks: &'l Quirks,
    losses: &'l mut Losses,
}

impl<'r> Fitter<'r, '_> {
    fn path(&self, field: Field) -> &'static str {
        field.of(self.request.source)
    }

    /// Whether a part says something to the target.
    fn speaks(&self, part: &Part<'_>) -> bool {
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
    fn said(&self, Spoken { turn, goes_on }: Spoken<'r>) -> impl Iterator<Item = &'r Part<'r>> {
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
    fn spoken(&self) -> Vec<Spoken<'r>> {
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

    /// What only the source knows, and images and documents that the target does not see.
    fn extras(&mut self) {
        for extra in &self.request.extras {
            self.extra(&extra.name, extra);
        }
        for part in &self.request.system {
            self.instruction(part);
            self.part(part);
        }
        for turn in &self.request.turns {
            for extra in &turn.extras {
                self.extra(format_args!("{}.{}", turn.place, extra.name), extra);
            }
            for part in &turn.parts {
                if turn.role == Role::System {
                    self.instruction(part);
                }
                self.part(part);
            }
        }
        for tool in &self.request.tools {
            for extra in &tool.extras {
                self.extra(format_args!("{}.{}", tool.place, extra.name), extra);
            }
        }
    }

    fn instruction(&mut self, part: &Part<'_>) {
        if !matches!(part.content, Content::Text(_) | Content::Extra(_)) {
            self.losses.refuse(part.place, "instructions are made of text");
        }
    }

    fn extra(&mut self, path: impl std::fmt::Display, extra: &Extra<'_>) {
        if extra.origin != self.own && extra.weight > Weight::Silent {
            let reason = format!("it has no counterpart in the {} protocol", self.own.as_str());
            self.losses.add(path, reason, extra.weight);
        }
    }

    fn part(&mut self, part: &Part<'_>) {
        let place = part.place;
        for extra in &part.extras {
            self.extra(format_args!("{place}.{}", extra.name), extra);
        }
        match &part.content {
            Content::Extra(extra) if extra.origin != self.own => {
                let reason = format!("`{}` has no counterpart in the {} protocol", extra.name, self.own.as_str());
                self.losses.add(place, reason, extra.weight);
            }
            Content::Extra(_) => {}
            Content::Text(text) => {
                for citation in &text.citations {
                    self.extra(format_args!("{place}.citations"), citation);
                }
            }
            Content::Image(image) => self.image(place, image),
            Content::Document(document) => self.document(place, document),
            Content::Result(result) => result.content.iter().for_each(|part| self.part(part)),
            Content::Call(_) | Content::Thinking(_) | Content::Refusal(_) => {}
        }
    }

    fn image(&mut self, place: Place, image: &Image<'_>) {
        match (&image.source, self.quirks.images) {
            (_, Images::None) => self.losses.refuse(place, "this model does not see images"),
            (Source::File(_), _) if self.request.source != self.own => {
                self.losses.refuse(place, "the file lies at another provider: send the image itself");
            }
            (Source::Url(_), Images::Inline) => {
                self.losses.refuse(place, "this upstream does not fetch images: send it as base64");
            }
            _ => {}
        }
        if let (Some(detail), false) = (&image.detail, self.quirks.image_detail)
            && detail != "auto"
        {
            self.losses.hint(format_args!("{place}.detail"), "the upstream chooses how closely it looks");
        }
    }

    fn document(&mut self, place: Place, document: &Document<'_>) {
        match &document.source {
            Source::Base64 { .. } if !self.quirks.documents => {
                self.losses.refuse(place, "this model does not read documents: send their text");
            }
            Source::Url(_) if !self.quirks.document_urls => {
                self.losses.refuse(place, "this upstream does not fetch documents: send it as base64");
            }
            Source::File(_) if self.request.source != self.own => {
                self.losses.refuse(place, "the file lies at another provider: send the document itself");
            }
            Source::Parts(parts) => parts.iter().for_each(|part| self.part(part)),
            _ => {}
        }
        if document.citations && self.request.source != self.own {
            self.losses.hint(format_args!("{place}.citations"), "the upstream does not say what it quotes");
        }
    }

    /// Every result follows its call, and every call but those of the last turn has its result: instructions may stand
    /// between the two, and may not follow calls that are left without. Clients know these two sentences of Anthropic's.
    fn pairs(&mut self, spoken: &[Spoken<'r>]) {
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

    fn tools(&mut self, back: &mut Back) -> Vec<FittedTool<'r>> {
        let mut fitted = Vec::with_capacity(self.request.tools.len());
        for tool in &self.request.tools {
            match &tool.kind {
                ToolKind::Function { .. } => {}
                ToolKind::Custom { format } if !self.quirks.custom_tools => {
                    if format.is_some() {
                        let reason = "the upstream does not hold to a grammar";
                        self.losses.hint(format_args!("{}.format", tool.place), reason);
                    }
                    back.custom.push((*tool.name).into());
                }
                ToolKind::Custom { .. } => {}
                ToolKind::Server { definition, .. } if definition.origin == self.own => {}
                ToolKind::Server { ability: Some(Ability::WebSearch), .. } if self.quirks.web_search => {}
                ToolKind::Server { definition, .. } => {
                    let reason = format!("the upstream has no tool `{}`", definition.name);
                    let weight = if self.forces(&tool.name) { Weight::Meaning } else { Weight::Hint };
                    self.losses.add(tool.place, reason, weight);
                    continue;
                }
            }
            let name = name(&tool.name, self.quirks.name_most);
            if let Cow::Owned(sent) = &name {
                back.names.push((sent.as_str().into(), (*tool.name).into()));
            }
            fitted.push(FittedTool { tool, name, description: self.description(tool), strict: self.strict(tool) });
        }
        fitted
    }

    fn description(&mut self, tool: &'r Tool<'r>) -> Option<&'r str> {
        let (text, most) = (tool.description.as_deref()?, self.quirks.description_most);
        if text.len() > most {
            let reason = format!("the upstream takes at most {most} bytes: the beginning is sent");
            self.losses.hint(format_args!("{}.description", tool.place), reason);
        }
        Some(&text[..text.floor_char_boundary(most)])
    }

    fn strict(&mut self, tool: &Tool<'_>) -> bool {
        let ToolKind::Function { schema, strict: Some(true) } = &tool.kind else { return false };
        let can = self.holds_to(schema.as_ref());
        if !can {
            self.losses.hint(format_args!("{}.strict", tool.place), "the upstream cannot hold to this schema");
        }
        can
    }

    fn holds_to(&self, schema: Option<&Json<'_>>) -> bool {
        match self.quirks.strict {
            Strict::None => false,
            Strict::Any => true,
            Strict::Closed => schema.is_some_and(is_closed),
        }
    }

    fn strict_format(&mut self, format: &Format<'_>) -> bool {
        let Format::JsonSchema { schema, strict, .. } = format else { return false };
        let (can, wanted) = (self.holds_to(Some(schema)), *strict == Some(true));
        if wanted && !can {
            self.losses.hint(self.path(Field::Format), "the upstream may depart from this schema");
        }
        wanted && can
    }

    /// Whether the request wants that tool to be called.
    fn forces(&self, tool: &str) -> bool {
        match &self.request.tool_choice {
            Some(ToolChoice::Tool(name)) => name == tool,
            Some(ToolChoice::Among { names, required }) => *required && names.iter().any(|name| name == tool),
            _ => false,
        }
    }

    fn tool_choice(&mut self, mut tools: Vec<FittedTool<'r>>) -> (Vec<FittedTool<'r>>, Option<ToolChoice<'r>>) {
        let mut choice = match &self.request.tool_choice {
            Some(ToolChoice::Among { names, required }) => {
                tools.retain(|fitted| names.contains(&fitted.tool.name));
                if *required { ToolChoice::Any } else { ToolChoice::Auto }
            }
            Some(ToolChoice::Tool(tool)) => ToolChoice::Tool(name(tool, self.quirks.name_most)),
            Some(choice) => choice.clone(),
            None => return (tools, None),
        };
        let forced = matches!(choice, ToolChoice::Any | ToolChoice::Tool(_));
        match self.quirks.tool_choice {
            Choices::Ignored | Choices::Unforced if forced => {
                self.losses.refuse("tool_choice", "the upstream cannot be made to call a tool: use `auto`");
            }
            Choices::Softened if forced => {
                self.losses.hint("tool_choice", "the upstream cannot be made to call a tool: `auto` is sent");
                choice = ToolChoice::Auto;
            }
            // Nobody calls a tool that it is not told of.
            Choices::Ignored if choice == ToolChoice::None => return (Vec::new(), None),
            Choices::Ignored => return (tools, None),
            _ => {}
        }
        if tools.is_empty() {
            if forced && self.losses.refused().is_none() {
                self.losses.refuse("tool_choice", "there is no tool to call");
            }
            return (tools, None);
        }
        (tools, Some(choice))
    }

    fn parallel_tools(&mut self, has_tools: bool) -> Option<bool> {
        match self.request.parallel_tools {
            Some(false) if !has_tools => None,
            Some(false) if self.quirks.parallel_tools => Some(false),
            Some(false) => {
                self.losses.hint(self.path(Field::Parallel), "the upstream may call several tools at once");
                None
            }
            _ => None,
        }
    }

    fn reasoning(&mut self, has_tools: bool) -> (Option<Thought>, Option<Effort>) {
        let Reasoning { mode, effort, .. } = self.request.reasoning;
        let (thinking, effort_path) = (self.path(Field::Thinking), self.path(Field::Effort));
        let effort_path = if effort.is_some() { effort_path } else { thinking };
        let known = |effort: Effort| effort.nearest(self.quirks.efforts);
        if self.quirks.reasoning == ReasoningForm::None {
            if effort.is_some() || !matches!(mode, None | Some(Thought::Off)) {
                self.losses.hint(effort_path, "this model does not reason");
            }
            return (None, None);
        }
        if has_tools && !self.quirks.reasoning_with_tools {
            if mode != Some(Thought::Off) {
                self.losses.hint(effort_path, "this model does not reason while it has tools");
            }
            return (Some(Thought::Off), None);
        }
        if mode == Some(Thought::Off) {
            if self.quirks.reasoning_off {
                return (mode, None);
            }
            self.losses.hint(thinking, "this model cannot be kept from reasoning: the lowest effort is asked for");
            return (None, self.quirks.efforts.first().copied());
        }
        if self.quirks.reasoning == ReasoningForm::Budget {
            let budget = match (mode, effort) {
                (Some(Thought::Budget(tokens)), _) => Some(tokens),
                (_, Some(effort)) => Some(effort.budget()),
                (Some(_), None) => Some(Effort::Medium.budget()),
                (None, None) => None,
            };
            return (budget.map(Thought::Budget), None);
        }
        let by_budget = match (mode, effort) {
            (Some(Thought::Budget(tokens)), None) => {
                self.losses.hint(thinking, "the upstream takes an effort, not a number of tokens");
                Some(Effort::of_budget(tokens))
            }
            _ => None,
        };
        let thought = mode.map(|mode| if mode == Thought::BetweenTools { mode } else { Thought::Adaptive });
        (thought, effort.or(by_budget).and_then(known))
    }

    fn format(&mut self) -> (&'r Format<'r>, Option<String>) {
        let format = &self.request.format;
        let note = |schema: Option<&Json<'_>>| {
            let mut note = "Answer with one JSON object and nothing else.".to_owned();
            if let Some(schema) = schema {
                note.push_str(" It must be valid against this JSON schema: ");
                note.push_str(schema.as_str());
            }
            note
        };
        let told = "the upstream does not enforce it: it is told in the system prompt";
        let path = self.path(Field::Format);
        match (format, self.quirks.formats) {
            (Format::Text, _) | (_, Formats::Schema) => (format, None),
            (Format::JsonSchema { .. }, Formats::SchemaOnly) | (Format::JsonObject, Formats::Object) => (format, None),
            (Format::JsonObject, _) => {
                self.losses.hint(path, told);
                (&Format::Text, Some(note(None)))
            }
            (Format::JsonSchema { schema, .. }, formats) => {
                self.losses.hint(path, told);
                let object = if formats == Formats::Object { &Format::JsonObject } else { &Format::Text };
                (object, Some(note(Some(schema))))
            }
        }
    }

    fn stop(&mut self) -> Vec<&'r str> {
        let stop = self.request.stop.iter().map(|text| &**text);
        let (path, most) = (self.path(Field::Stop), self.quirks.stop_most);
        if most == 0 && !self.request.stop.is_empty() {
            self.losses.refuse(path, "this model takes no stop sequences");
        } else if self.request.stop.len() > most {
            self.losses.hint(path, format!("the upstream takes {most} stop sequences: the first are sent"));
        }
        stop.take(most).collect()
    }

    fn sampling(&mut self) -> Sampling {
        let (asked, quirks) = (self.request.sampling, self.quirks);
        let mut keep = |path: &'static str, value: Option<f64>, usual: f64, taken: bool| {
            if let (Some(value), false) = (value, taken) {
                let weight = if value == usual { Weight::Silent } else { Weight::Hint };
                self.losses.add(path, "this model does not take it", weight);
            }
            value.filter(|_| taken)
        };
        let temperature = keep("temperature", asked.temperature, 1.0, quirks.sampling);
        let top_p = keep("top_p", asked.top_p, 1.0, quirks.sampling);
        let presence_penalty = keep("presence_penalty", asked.presence_penalty, 0.0, quirks.penalties);
        let frequency_penalty = keep("frequency_penalty", asked.frequency_penalty, 0.0, quirks.penalties);
        let top_k = asked.top_k.filter(|_| quirks.top_k);
        let seed = asked.seed.filter(|_| quirks.penalties);
        if top_k != asked.top_k {
            self.losses.hint("top_k", "the upstream does not take it");
        }
        if seed != asked.seed {
            self.losses.hint("seed", "the upstream does not take it");
        }
        let most = f64::from(quirks.temperature_most) / 10.0;
        if temperature.is_some_and(|asked| asked > most) {
            self.losses.hint("temperature", format!("the upstream takes at most {most}"));
        }
        let temperature = temperature.map(|asked| asked.min(most));
        if self.request.verbosity.is_some() && !quirks.verbosity {
            self.losses.hint(self.path(Field::Verbosity), "the upstream does not take it");
        }
        Sampling { temperature, top_p, top_k, presence_penalty, frequency_penalty, seed }
    }

    fn user(&self) -> Option<String> {
        let user = self.request.user.as_deref().filter(|_| self.quirks.user != UserField::None)?;
        Some(if self.request.source == self.own { user.to_owned() } else { hashed(user) })
    }

    fn groups(&mut self, spoken: Vec<Spoken<'r>>) -> (Vec<&'r Part<'r>>, Vec<Group<'r>>) {
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

/// A tool's name as it can be sent: unchanged, or the same short one each time.
pub fn name(name: &str, most: usize) -> Cow<'_, str> {
    fitting(name, most)
}

/// A call's id as it can be sent: unchanged, or the same short one each time.
pub fn id(id: &str, most: usize) -> Cow<'_, str> {
    fitting(id, most)
}

fn fitting(word: &str, most: usize) -> Cow<'_, str> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if word.len() <= most && !word.is_empty() && word.bytes().all(fits) {
        return Cow::Borrowed(word);
    }
    // FNV-1a: told apart it must be, hidden it need not be.
    let hash = word.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |n, b| (n ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    let kept = word.bytes().map(|byte| if fits(byte) { char::from(byte) } else { '_' });
    let mut short: String = kept.take(most.saturating_sub(17)).collect();
    short.push_str(&format!("_{hash:016x}"));
    Cow::Owned(short)
}

/// A name of an end user that tells two apart and tells nothing else.
fn hashed(user: &str) -> String {
    if user.len() == 64 && user.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return user.to_owned();
    }
    Sha256::digest(user.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A tool's schema as every provider takes it: an object that says that it is one.
pub fn object_schema<'a>(schema: Option<&'a Json<'_>>) -> Cow<'a, str> {
    const EMPTY: &str = r#"{"type":"object","properties":{}}"#;
    let Some(schema) = schema else { return Cow::Borrowed(EMPTY) };
    let members = crate::json::members(schema);
    let has = |key: &str| members.iter().any(|(name, _)| name == key);
    match (has("type"), has("properties")) {
        _ if members.is_empty() => Cow::Borrowed(EMPTY),
        (true, true) => Cow::Borrowed(schema.as_str()),
        (has_type, has_properties) => {
            let mut out = Vec::new();
            crate::json::object(&mut out, |o| {
                if !has_type {
                    o.str("type", "object");
                }
                o.members(schema, &[]);
                if !has_properties {
                    o.raw("properties", "{}");
                }
            });
            Cow::Owned(String::from_utf8(out).expect("it is written from text"))
        }
    }
}

/// The schema of a function that stands for a tool that takes plain text.
pub const TEXT_INPUT: &str = r#"{"type":"object","properties":{"input":{"type":"string"}},"required":["input"]}"#;

/// Whether every object in a schema lists all its properties as required and allows no others.
fn is_closed(schema: &Json<'_>) -> bool {
    fn closed(schema: &Value) -> bool {
        let Value::Object(members) = schema else {
            return match schema {
                Value::Array(list) => list.iter().all(closed),
                _ => true,
            };
        };
        let properties = members.get("properties").and_then(Value::as_object);
        if properties.is_some() || members.get("type").is_some_and(|kind| kind == "object") {
            let required = members.get("required").and_then(Value::as_array);
            let lists = |key: &String| required.is_some_and(|list| list.iter().any(|name| name == key));
            if members.get("additionalProperties") != Some(&Value::Bool(false))
                || !properties.into_iter().flatten().all(|(key, schema)| lists(key) && closed(schema))
            {
                return false;
            }
        }
        members
            .iter()
            .filter(|(key, _)| !matches!(key.as_str(), "properties" | "enum" | "const"))
            .all(|(_, v)| closed(v))
    }
    let is_object = |value: &Value| value.get("properties").is_some() || value["type"] == "object";
    schema.read::<Value>().is_ok_and(|value| is_object(&value) && closed(&value))
}
