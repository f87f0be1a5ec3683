//! Writes requests.

use super::{OWN, sealed};
use crate::codec::{Encoded, Target};
use crate::fit::{self, Fit, FittedTool, Group};
use crate::json::{self, Json, Writer};
use crate::loss::{Losses, Place};
use crate::openai::{arguments, asker, data_url, word_of_choice};
use crate::plain::{self, as_text, join};
use crate::quirks::{Quirks, ReasoningForm, ThinkingBack};
use crate::request::{
    Call, Content, Display, Document, Format, Image, Input, Part, Request, Role, Source, Thought, ToolChoice, ToolKind,
    ToolResult,
};
use crate::writing::{below, has_below, sampling, top_level};

/// The fewest tokens of output that can be asked for.
const LEAST_TOKENS: u64 = 16;

/// A request for a server that speaks Responses.
pub(super) fn request(request: &Request<'_>, target: &Target<'_>) -> Encoded {
    // What the protocol has no field for, and what it has for every model.
    let quirks = &Quirks {
        stop_most: 0,
        top_k: false,
        penalties: false,
        document_urls: target.quirks.documents,
        reasoning_with_tools: true,
        // What this provider sealed comes back with what it led to, and nobody else's.
        thinking_back: ThinkingBack::Led,
        ..*target.quirks
    };
    let fit = fit::fit(request, OWN, &Target { quirks, ..*target });
    let writer = Items { quirks, is_own: request.source == OWN, custom: custom_calls(&fit, quirks) };
    let mut losses = Losses::default();
    let mut body = Vec::new();
    json::object(&mut body, |o| {
        o.str("model", target.model);
        o.str_if("instructions", Some(&*fit.system_text()).filter(|text| !text.is_empty()));
        o.list("input", |list| fit.groups.iter().for_each(|group| writer.group(list, group)));
        if !fit.tools.is_empty() {
            o.list("tools", |list| {
                for tool in &fit.tools {
                    list.push_object(|o| define(o, tool, &writer, &mut losses));
                }
            });
        }
        choose(o, &fit, quirks);
        if fit.parallel_tools == Some(false) {
            o.bool("parallel_tool_calls", false);
        }
        if let Some(most) = fit.max_tokens {
            o.uint("max_output_tokens", most.max(LEAST_TOKENS));
        }
        sampling(o, &fit.sampling);
        reasoning(o, request, &fit, quirks);
        text_config(o, request, &fit, quirks);
        asker(o, quirks, fit.user.as_deref(), request.cache_key.as_deref());
        if request.stream {
            o.bool("stream", true);
        }
        if !writer.is_own {
            // Nobody would ever ask for what the provider kept; so the client carries the reasoning, sealed.
            o.bool("store", false);
            if quirks.reasoning != ReasoningForm::None {
                o.list("include", |list| list.push_str("reasoning.encrypted_content"));
            }
        }
        top_level(o, OWN, &request.extras);
    });
    let mut all = fit.losses;
    all.append(losses);
    Encoded { body, losses: all, back: fit.back, is_idle: request.max_tokens == Some(0) }
}

fn reasoning(o: &mut Writer<'_>, request: &Request<'_>, fit: &Fit<'_>, quirks: &Quirks) {
    let effort = match fit.thought {
        Some(Thought::Off) => Some("none"),
        _ => fit.effort.map(|effort| effort.as_str()),
    };
    // Some accounts may not see summaries: they are asked for only where the client does.
    let thinks = quirks.reasoning != ReasoningForm::None && fit.thought != Some(Thought::Off);
    let summary = request.reasoning.display.filter(|_| thinks).and_then(|display| match display {
        Display::Omitted => None,
        Display::Summary | Display::Updates => Some("auto"),
        Display::Concise => Some("concise"),
        Display::Detailed => Some("detailed"),
    });
    if effort.is_some() || summary.is_some() || has_below(OWN, &request.extras, "reasoning") {
        o.object("reasoning", |o| {
            o.str_if("effort", effort).str_if("summary", summary);
            below(o, OWN, &request.extras, "reasoning");
        });
    }
}

fn text_config(o: &mut Writer<'_>, request: &Request<'_>, fit: &Fit<'_>, quirks: &Quirks) {
    let verbosity = request.verbosity.as_deref().filter(|_| quirks.verbosity);
    if *fit.format == Format::Text && verbosity.is_none() && !has_below(OWN, &request.extras, "text") {
        return;
    }
    o.object("text", |o| {
        match fit.format {
            Format::Text => {}
            Format::JsonObject => {
                o.object("format", |o| {
                    o.str("type", "json_object");
                });
            }
            Format::JsonSchema { name, description, schema, .. } => {
                o.object("format", |o| {
                    o.str("type", "json_schema").str("name", name.as_deref().unwrap_or("output"));
                    o.str_if("description", description.as_deref()).raw("schema", schema.as_str());
                    o.bool("strict", fit.strict_format);
                });
            }
        }
        o.str_if("verbosity", verbosity);
        below(o, OWN, &request.extras, "text");
    });
}

fn define(o: &mut Writer<'_>, fitted: &FittedTool<'_>, items: &Items<'_>, losses: &mut Losses) {
    let FittedTool { tool, name, description, strict } = fitted;
    match &tool.kind {
        ToolKind::Server { definition, .. } if definition.origin == OWN => o.members(&definition.value, &[]),
        ToolKind::Server { definition, .. } => {
            o.str("type", "web_search");
            let known = web_search(o, &definition.value);
            for (field, _) in json::members(&definition.value) {
                if !known.contains(&&*field) {
                    losses.hint(format_args!("{}.{field}", tool.place), "the upstream's search does not take it");
                }
            }
        }
        ToolKind::Custom { format } if items.quirks.custom_tools => {
            o.str("type", "custom").str("name", name).str_if("description", *description);
            if let Some(format) = format {
                grammar(o, format);
            }
        }
        _ => {
            o.str("type", "function").str("name", name).str_if("description", *description);
            // Unlike Chat Completions, this protocol makes every schema strict that is not said to be loose.
            o.raw("parameters", &fitted.schema()).bool("strict", *strict);
        }
    }
    top_level(o, OWN, &tool.extras);
}

/// Writes what searches of all providers can be told; returns the fields that it takes care of.
fn web_search(o: &mut Writer<'_>, definition: &Json<'_>) -> &'static [&'static str] {
    for (field, value) in json::members(definition) {
        match &*field {
            "allowed_domains" => {
                o.object("filters", |o| {
                    o.raw("allowed_domains", value.get());
                });
            }
            "user_location" => {
                o.raw("user_location", value.get());
            }
            _ => {}
        }
    }
    &["type", "name", "cache_control", "allowed_domains", "user_location"]
}

/// The grammar of a custom tool lies flat here.
fn grammar(o: &mut Writer<'_>, format: &Json<'_>) {
    let inner = json::members(format).into_iter().find(|(key, _)| key == "grammar");
    o.object("format", |o| match inner {
        Some((_, inner)) => {
            let inner = Json::from(inner);
            let inner = json::members(&inner);
            o.str("type", "grammar");
            for field in ["definition", "syntax"] {
                if let Some((_, value)) = inner.iter().find(|(key, _)| key == field) {
                    o.raw(field, value.get());
                }
            }
        }
        None => o.members(format, &[]),
    });
}

fn choose(o: &mut Writer<'_>, fit: &Fit<'_>, quirks: &Quirks) {
    let Some(choice) = &fit.tool_choice else { return };
    o.str_if("tool_choice", word_of_choice(choice));
    if let ToolChoice::Tool(name) = choice {
        let tool = fit.tools.iter().find(|fitted| fitted.name == *name).map(|fitted| fitted.tool);
        o.object("tool_choice", |o| {
            match tool.map(|tool| &tool.kind) {
                Some(ToolKind::Server { definition, .. }) if definition.origin == OWN => {
                    o.str("type", &definition.name)
                }
                Some(ToolKind::Server { .. }) => o.str("type", "web_search"),
                Some(ToolKind::Custom { .. }) if quirks.custom_tools => o.str("type", "custom").str("name", name),
                _ => o.str("type", "function").str("name", name),
            };
        });
    }
}

/// The ids of calls whose input goes as plain text: their results have a type of their own.
fn custom_calls<'f>(fit: &'f Fit<'_>, quirks: &Quirks) -> Vec<&'f str> {
    if !quirks.custom_tools {
        return Vec::new();
    }
    let calls = fit.groups.iter().flat_map(|group| group.calls());
    calls.filter(|call| matches!(call.input, Input::Text(_))).map(|call| &*call.id).collect()
}

struct Items<'q> {
    quirks: &'q Quirks,
    is_own: bool,
    custom: Vec<&'q str>,
}

impl Items<'_> {
    fn group(&self, list: &mut Writer<'_>, group: &Group<'_>) {
        match group.role {
            Role::System => {
                self.message(list, self.quirks.system_role.as_str(), group.parts.iter().map(|part| &**part));
            }
            Role::User => self.user(list, group),
            Role::Assistant => self.assistant(list, group),
        }
    }

    fn user(&self, list: &mut Writer<'_>, group: &Group<'_>) {
        group.results().for_each(|result| self.result(list, result));
        let is_said = |part: &&Part<'_>| !matches!(part.content, Content::Result(_));
        self.message(list, "user", group.parts.iter().map(|part| &**part).filter(is_said));
    }

    /// Messages of text, images and documents, and items that only this protocol knows between them.
    fn message<'p>(&self, list: &mut Writer<'_>, role: &str, parts: impl Iterator<Item = &'p Part<'p>>) {
        let parts: Vec<&Part<'_>> = parts.collect();
        for run in parts.chunk_by(|a, b| own(a).is_none() && own(b).is_none()) {
            let is_empty = |part: &&Part<'_>| as_text(&part.content, OWN).is_some_and(|text| text.is_empty());
            match own(run[0]) {
                Some(whole) => list.push_raw(whole),
                None if run.iter().all(is_empty) => {}
                None => list.push_object(|o| {
                    o.str("type", "message").str("role", role);
                    o.list("content", |list| run.iter().for_each(|part| push(list, part)));
                }),
            }
        }
    }

    fn result(&self, list: &mut Writer<'_>, result: &ToolResult<'_>) {
        let is_custom = self.custom.contains(&&*result.id);
        list.push_object(|o| {
            o.str("type", if is_custom { "custom_tool_call_output" } else { "function_call_output" });
            o.str("call_id", &fit::id(&result.id, self.quirks.id_most));
            let texts: Option<Vec<_>> = result.content.iter().map(|part| as_text(&part.content, OWN)).collect();
            match texts {
                Some(texts) => {
                    let text = join(texts.iter().map(|text| &**text), "\n").into_owned();
                    let text = plain::failed(text, result);
                    o.str("output", if text.is_empty() { self.quirks.empty_result } else { &text });
                }
                None => {
                    o.list("output", |list| {
                        if result.is_error {
                            push_text(list, plain::failed(String::new(), result).trim_end());
                        }
                        result.content.iter().for_each(|part| push(list, part));
                    });
                }
            }
        });
    }

    fn assistant(&self, list: &mut Writer<'_>, group: &Group<'_>) {
        let mut said = Said::default();
        for part in &group.parts {
            match &part.content {
                Content::Text(text) => said.more(part, &text.text),
                Content::Refusal(text) => said.more(part, text),
                Content::Thinking(thinking) => {
                    said.end(list);
                    list.push_object(|o| {
                        o.str("type", "reasoning").str_if("id", sealed::id(thinking.opaque.as_ref()));
                        sealed::write(o, thinking);
                    });
                }
                Content::Call(call) => {
                    said.end(list);
                    list.push_object(|o| self.call(o, call));
                }
                Content::Extra(extra) if extra.origin == OWN => {
                    said.end(list);
                    list.push_raw(extra.value.as_str());
                }
                _ => {}
            }
        }
        said.end(list);
    }

    fn call(&self, o: &mut Writer<'_>, call: &Call<'_>) {
        let name = fit::name(&call.name, self.quirks.name_most);
        let id = fit::id(&call.id, self.quirks.id_most);
        match &call.input {
            Input::Text(input) if self.quirks.custom_tools => {
                o.str("type", "custom_tool_call").str("call_id", &id).str("name", &name).str("input", input);
            }
            input => {
                o.str("type", "function_call").str("call_id", &id).str("name", &name);
                o.str("arguments", &arguments(input));
            }
        }
    }
}

/// A message of the model's, in the one form that needs no id.
#[derive(Default)]
struct Said {
    text: String,
    last: Option<Place>,
}

impl Said {
    fn more(&mut self, part: &Part<'_>, text: &str) {
        if !self.text.is_empty() && self.last.is_none_or(|last| !part.place.follows(last)) {
            self.text.push_str("\n\n");
        }
        self.text.push_str(text);
        self.last = Some(part.place);
    }

    fn end(&mut self, list: &mut Writer<'_>) {
        if !self.text.is_empty() {
            list.push_object(|o| {
                o.str("type", "message").str("role", "assistant").str("content", &self.text);
            });
            self.text.clear();
        }
    }
}

/// What was read as a whole, because it has no neutral form.
fn own<'p>(part: &'p Part<'_>) -> Option<&'p str> {
    match &part.content {
        Content::Extra(extra) if extra.origin == OWN => Some(extra.value.as_str()),
        _ => None,
    }
}

fn push_text(list: &mut Writer<'_>, text: &str) {
    list.push_object(|o| {
        o.str("type", "input_text").str("text", text);
    });
}

fn push(list: &mut Writer<'_>, part: &Part<'_>) {
    match &part.content {
        Content::Image(Image { source, detail }) => list.push_object(|o| {
            o.str("type", "input_image");
            match source {
                Source::Base64 { media_type, data } => o.with("image_url", |out| data_url(out, media_type, data)),
                Source::File(id) => o.str("file_id", id),
                Source::Url(url) | Source::Text(url) => o.str("image_url", url),
                Source::Parts(_) => o,
            };
            o.str("detail", detail.as_deref().unwrap_or("auto"));
        }),
        Content::Document(Document { source: Source::Base64 { media_type, data }, title, .. }) => {
            list.push_object(|o| {
                o.str("type", "input_file").str("filename", title.as_deref().unwrap_or("document.pdf"));
                o.with("file_data", |out| data_url(out, media_type, data));
            });
        }
        Content::Document(Document { source: Source::Url(url), .. }) => list.push_object(|o| {
            o.str("type", "input_file").str("file_url", url);
        }),
        Content::Document(Document { source: Source::File(id), .. }) => list.push_object(|o| {
            o.str("type", "input_file").str("file_id", id);
        }),
        content => {
            if let Some(raw) = own(part) {
                list.push_raw(raw);
            } else if let Some(text) = as_text(content, OWN).filter(|text| !text.is_empty()) {
                push_text(list, &text);
            }
        }
    }
}
