//! Writes requests, and the content blocks that requests and whole answers share.

use std::borrow::Cow;

use super::OWN;
use crate::codec::{Encoded, Target};
use crate::fit::{self, Field, Fit, FittedTool, Group};
use crate::json::{self, Writer};
use crate::loss::Weight;
use crate::opaque::UNSIGNED;
use crate::quirks::{Quirks, ReasoningForm};
use crate::request::{
    CacheMark, Call, Content, Display, Document, Format, Input, Part, Request, Role, Source, Text, Thinking, Thought,
    ToolChoice, ToolKind, ToolResult,
};
use crate::writing::{below, extras, has_below, sampling, top_level};

/// What is asked for where neither client nor catalog say how many tokens: every model that is served gives as many.
const MAX_TOKENS: u64 = 8192;
/// The fewest tokens of thinking that can be asked for.
const LEAST_BUDGET: u64 = 1024;
/// The least `top_p` that goes with thinking.
const LEAST_TOP_P: f64 = 0.95;

/// Why a model is not asked to think.
const FORCED: &str = "a model that is made to call a tool does not think";

/// A request for a Claude model.
pub(super) fn request(request: &Request<'_>, target: &Target<'_>) -> Encoded {
    // What the protocol has no field for.
    let quirks = &Quirks { penalties: false, ..*target.quirks };
    let mut fit = fit::fit(request, OWN, &Target { quirks, ..*target });
    let max_tokens = fit.max_tokens.or(target.max_output).unwrap_or(MAX_TOKENS);
    settle_thinking(&mut fit, request, quirks, max_tokens);
    settle_sampling(&mut fit, request, quirks);
    let stop = stop(&mut fit, request);
    let mut body = Vec::new();
    json::object(&mut body, |o| {
        o.str("model", target.model).uint("max_tokens", max_tokens);
        if request.stream {
            o.bool("stream", true);
        }
        if let Some(name) = &fit.user {
            o.object("metadata", |o| {
                o.str("user_id", name);
            });
        }
        if !fit.tools.is_empty() {
            o.list("tools", |list| fit.tools.iter().for_each(|t| list.push_object(|o| tool(o, t))));
        }
        choice(o, &fit);
        system(o, &fit);
        o.list("messages", |list| {
            for group in &fit.groups {
                list.push_object(|o| message(o, group));
            }
        });
        if !stop.is_empty() {
            o.list("stop_sequences", |list| stop.iter().for_each(|text| list.push_str(text)));
        }
        sampling(o, &fit.sampling);
        if let Some(thought) = fit.thought {
            o.object("thinking", |o| {
                thinking(o, thought, request.reasoning.display);
                below(o, OWN, &request.extras, "thinking");
            });
        }
        let has_more = has_below(OWN, &request.extras, "output_config");
        if fit.effort.is_some() || matches!(fit.format, Format::JsonSchema { .. }) || has_more {
            o.object("output_config", |o| {
                o.str_if("effort", fit.effort.map(|effort| effort.as_str()));
                if let Format::JsonSchema { schema, .. } = fit.format {
                    o.object("format", |o| {
                        o.str("type", "json_schema").raw("schema", schema.as_str());
                    });
                }
                below(o, OWN, &request.extras, "output_config");
            });
        }
        top_level(o, OWN, &request.extras);
    });
    Encoded { body, losses: fit.losses, back: fit.back, is_idle: request.max_tokens == Some(0) }
}

/// Thinking by a number of tokens has rules that the API answers with a 400; an effort alone has some models not think.
fn settle_thinking(fit: &mut Fit<'_>, request: &Request<'_>, quirks: &Quirks, max_tokens: u64) {
    let forced = matches!(fit.tool_choice, Some(ToolChoice::Any | ToolChoice::Tool(_)));
    let is_asked = fit.effort.is_some() && fit.thought.is_none() && request.source != OWN;
    if is_asked && quirks.reasoning == ReasoningForm::SwitchAndEffort {
        if forced {
            fit.losses.hint(Field::Effort.of(request.source), FORCED);
        } else {
            fit.thought = Some(Thought::Adaptive);
        }
    }
    let Some(Thought::Budget(budget)) = fit.thought else { return };
    let budget = if budget < max_tokens { budget } else { max_tokens / 4 * 3 };
    let why = if budget < LEAST_BUDGET {
        "the answer is too short to think before it"
    } else if forced && request.source != OWN {
        FORCED
    } else if in_unsigned_loop(&fit.groups) {
        "the thinking before the last calls was another provider's"
    } else {
        fit.thought = Some(Thought::Budget(budget));
        return;
    };
    fit.thought = None;
    fit.losses.hint(Field::Thinking.of(request.source), why);
}

/// A model that thinks is a 400 with sampling of another kind than its own. What was asked of the API itself, the API
/// answers.
fn settle_sampling(fit: &mut Fit<'_>, request: &Request<'_>, quirks: &Quirks) {
    if request.source == OWN {
        return;
    }
    let sampling = &mut fit.sampling;
    if let (Some(temperature), Some(top_p), false) = (sampling.temperature, sampling.top_p, quirks.sampling_by_both) {
        // One that is as it would be anyway is not missed.
        if temperature == 1.0 && top_p != 1.0 {
            sampling.temperature = None;
        } else {
            sampling.top_p = None;
            let weight = if top_p == 1.0 { Weight::Silent } else { Weight::Hint };
            fit.losses.add("top_p", "the model takes a temperature or this, not both", weight);
        }
    }
    if matches!(fit.thought, None | Some(Thought::Off)) {
        return;
    }
    let (top_p, temperature) = (
        sampling.top_p.take_if(|top_p| *top_p < LEAST_TOP_P).is_some(),
        sampling.temperature.take_if(|temperature| *temperature != 1.0).is_some(),
    );
    for (path, is_lost) in [("temperature", temperature), ("top_p", top_p), ("top_k", sampling.top_k.take().is_some())]
    {
        if is_lost {
            fit.losses.hint(path, "the model does not take it while it thinks");
        }
    }
}

/// Whether the conversation ends with results of calls before which no thinking of Claude's is left.
fn in_unsigned_loop(groups: &[Group<'_>]) -> bool {
    let [.., calls, results] = groups else { return false };
    let signed = |part: &Cow<'_, Part<'_>>| matches!(&part.content, Content::Thinking(thinking) if is_own(thinking));
    results.results().next().is_some() && calls.calls().next().is_some() && !calls.parts.iter().any(signed)
}

fn is_own(thinking: &Thinking<'_>) -> bool {
    thinking.opaque.as_ref().is_some_and(|opaque| opaque.origin == OWN && opaque.id.is_none())
}

fn stop<'r>(fit: &mut Fit<'r>, request: &Request<'_>) -> Vec<&'r str> {
    let is_blank = |text: &&str| text.trim().is_empty();
    for (n, text) in request.stop.iter().enumerate() {
        if is_blank(&&**text) {
            let path = Field::Stop.of(request.source);
            fit.losses.hint(format_args!("{path}[{n}]"), "the upstream takes no stop sequence of white space alone");
        }
    }
    fit.stop.iter().copied().filter(|text| !is_blank(text)).collect()
}

fn cache(o: &mut Writer<'_>, mark: Option<CacheMark>) {
    let Some(mark) = mark else { return };
    o.object("cache_control", |o| {
        o.str("type", "ephemeral");
        match mark {
            CacheMark::Default => {}
            CacheMark::Minutes5 => {
                o.str("ttl", "5m");
            }
            CacheMark::Hour1 => {
                o.str("ttl", "1h");
            }
        }
    });
}

fn tool(o: &mut Writer<'_>, fitted: &FittedTool<'_>) {
    let FittedTool { tool, name, description, strict } = fitted;
    if let ToolKind::Server { definition, .. } = &tool.kind {
        return o.members(&definition.value, &[]);
    }
    o.str("name", name).str_if("description", *description).raw("input_schema", &fitted.schema());
    if *strict {
        o.bool("strict", true);
    }
    extras(o, OWN, &tool.extras);
    cache(o, tool.cache);
}

fn choice(o: &mut Writer<'_>, fit: &Fit<'_>) {
    let auto = fit.parallel_tools.map(|_| ToolChoice::Auto);
    let Some(choice) = fit.tool_choice.as_ref().or(auto.as_ref()) else { return };
    o.object("tool_choice", |o| {
        match choice {
            ToolChoice::Auto | ToolChoice::Among { .. } => o.str("type", "auto"),
            ToolChoice::Any => o.str("type", "any"),
            ToolChoice::None => o.str("type", "none"),
            ToolChoice::Tool(name) => o.str("type", "tool").str("name", name),
        };
        if fit.parallel_tools == Some(false) && *choice != ToolChoice::None {
            o.bool("disable_parallel_tool_use", true);
        }
    });
}

fn system(o: &mut Writer<'_>, fit: &Fit<'_>) {
    match (&fit.system[..], &fit.note) {
        ([], None) => {}
        ([], Some(note)) => {
            o.str("system", note);
        }
        ([one], None) if plain(one).is_some() => {
            o.str("system", plain(one).unwrap_or_default());
        }
        (parts, note) => {
            o.list("system", |list| {
                parts.iter().for_each(|part| block(list, part));
                if let Some(note) = note {
                    list.push_object(|o| {
                        o.str("type", "text").str("text", note);
                    });
                }
            });
        }
    }
}

/// The text of a part that is nothing else.
fn plain<'p>(part: &'p Part<'_>) -> Option<&'p str> {
    match &part.content {
        _ if part.cache.is_some() || part.extras.iter().any(|extra| extra.origin == OWN) => None,
        Content::Text(Text { text, citations }) if citations.is_empty() => Some(text),
        Content::Refusal(text) => Some(text),
        _ => None,
    }
}

fn message(o: &mut Writer<'_>, group: &Group<'_>) {
    o.str(
        "role",
        match group.role {
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::System => "system",
        },
    );
    match &group.parts[..] {
        [one] if plain(one).is_some() => {
            o.str("content", plain(one).unwrap_or_default());
        }
        parts => {
            o.list("content", |list| parts.iter().for_each(|part| block(list, part)));
        }
    }
    extras(o, OWN, group.extras.iter().copied());
}

fn thinking(o: &mut Writer<'_>, thought: Thought, display: Option<Display>) {
    let kind = match thought {
        Thought::Off => "disabled",
        Thought::Adaptive => "adaptive",
        Thought::BetweenTools => "between_tools",
        Thought::Budget(_) => "enabled",
    };
    o.str("type", kind);
    if let Thought::Budget(tokens) = thought {
        o.uint("budget_tokens", tokens);
    }
    let word = display.filter(|_| thought != Thought::Off).map(|display| match display {
        Display::Omitted => "omitted",
        Display::Summary | Display::Concise | Display::Detailed => "summarized",
        Display::Updates => "updates",
    });
    o.str_if("display", word);
}

/// One content block of an answer. Thinking of other providers is sealed, so that it comes back.
pub(super) fn answer(list: &mut Writer<'_>, part: &Part<'_>) {
    match &part.content {
        Content::Thinking(Thinking { text, opaque, redacted: false }) => list.push_object(|o| {
            let sealed = opaque.as_ref().map(|opaque| opaque.seal(OWN));
            o.str("type", "thinking").str("thinking", text).str("signature", sealed.as_deref().unwrap_or(UNSIGNED));
        }),
        Content::Call(Call { id, name, input }) => list.push_object(|o| call(o, id, name, input)),
        _ => block(list, part),
    }
}

/// One content block. Thinking of other providers is left out: Claude would reject it.
pub(super) fn block(list: &mut Writer<'_>, part: &Part<'_>) {
    match &part.content {
        Content::Thinking(thinking) if !is_own(thinking) => {}
        Content::Extra(extra) if extra.origin != OWN => {}
        Content::Extra(extra) => list.push_object(|o| {
            o.members(&extra.value, &["cache_control"]);
            cache(o, part.cache);
        }),
        content => list.push_object(|o| {
            fields(o, content);
            top_level(o, OWN, &part.extras);
            cache(o, part.cache);
        }),
    }
}

fn fields(o: &mut Writer<'_>, content: &Content<'_>) {
    match content {
        Content::Text(Text { text, citations }) => {
            o.str("type", "text").str("text", text);
            if citations.iter().any(|citation| citation.origin == OWN) {
                let own = citations.iter().filter(|citation| citation.origin == OWN);
                o.list("citations", |list| own.for_each(|citation| list.push_raw(citation.value.as_str())));
            }
        }
        Content::Refusal(text) => {
            o.str("type", "text").str("text", text);
        }
        Content::Thinking(Thinking { text, opaque, redacted }) => {
            let data = opaque.as_ref().map_or("", |opaque| &opaque.data);
            match redacted {
                true => o.str("type", "redacted_thinking").str("data", data),
                false => o.str("type", "thinking").str("thinking", text).str("signature", data),
            };
        }
        Content::Image(image) => {
            o.str("type", "image").object("source", |o| source(o, &image.source));
        }
        Content::Document(Document { source: from, title, context, citations }) => {
            o.str("type", "document").object("source", |o| source(o, from));
            o.str_if("title", title.as_deref()).str_if("context", context.as_deref());
            if *citations {
                o.object("citations", |o| {
                    o.bool("enabled", true);
                });
            }
        }
        // Names and ids are those of the client; a target with other limits is told by `fit`.
        Content::Call(Call { id, name, input }) => call(o, &fit::id(id, ID_MOST), &fit::name(name, NAME_MOST), input),
        Content::Result(ToolResult { id, content, is_error }) => {
            o.str("type", "tool_result").str("tool_use_id", &fit::id(id, ID_MOST));
            let parts: Vec<_> = content.iter().filter(|part| !is_blank(part)).collect();
            match &parts[..] {
                [] => o.str("content", ""),
                [one] if plain(one).is_some() => o.str("content", plain(one).unwrap_or_default()),
                parts => o.list("content", |list| parts.iter().for_each(|part| block(list, part))),
            };
            if *is_error {
                o.bool("is_error", true);
            }
        }
        Content::Extra(_) => {}
    }
}

fn call(o: &mut Writer<'_>, id: &str, name: &str, input: &Input<'_>) {
    o.str("type", "tool_use").str("id", id).str("name", name);
    match input {
        Input::Json(json) if json.is_object() => o.raw("input", json.as_str()),
        // The API takes objects alone.
        Input::Json(json) => o.object("input", |o| {
            o.raw("input", json.as_str());
        }),
        Input::Cut(text) => o.object("input", |o| {
            o.str("_raw", text);
        }),
        Input::Text(text) => o.object("input", |o| {
            o.str("input", text);
        }),
    };
}

/// The API's limits of a call's id and a tool's name.
const ID_MOST: usize = 128;
const NAME_MOST: usize = 128;

fn is_blank(part: &Part<'_>) -> bool {
    matches!(&part.content, Content::Text(text) if text.text.is_empty())
}

fn source(o: &mut Writer<'_>, source: &Source<'_>) {
    match source {
        Source::Base64 { media_type, data } => {
            o.str("type", "base64").str("media_type", media_type).str("data", data);
        }
        Source::Url(url) => {
            o.str("type", "url").str("url", url);
        }
        Source::File(id) => {
            o.str("type", "file").str("file_id", id);
        }
        Source::Text(text) => {
            o.str("type", "text").str("media_type", "text/plain").str("data", text);
        }
        Source::Parts(parts) => {
            o.str("type", "content").list("content", |list| parts.iter().for_each(|part| block(list, part)));
        }
    }
}
