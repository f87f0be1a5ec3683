//! Writes requests.

use std::borrow::Cow;

use super::{OWN, context};
use crate::codec::{Encoded, Target};
use crate::fit::{self, Fit, FittedTool, Group};
use crate::json::{self, Writer};
use crate::plain::{self, as_text, join};
use crate::quirks::{Images, Quirks};
use crate::request::{Content, Format, Image, Input, Part, Request, Role, Source, Thought};
use crate::writing::sampling;

/// A request for a server that speaks Ollama's own protocol.
pub(super) fn request(request: &Request<'_>, target: &Target<'_>) -> Encoded {
    // What the protocol has no field for: an image lies in the request or is not seen.
    let images = if target.quirks.images == Images::None { Images::None } else { Images::Inline };
    let quirks = &Quirks { images, image_detail: false, documents: false, document_urls: false, ..*target.quirks };
    let fit = fit::fit(request, OWN, &Target { quirks, ..*target });
    let mut body = Vec::new();
    json::object(&mut body, |o| {
        o.str("model", target.model);
        o.list("messages", |list| {
            system(list, &fit);
            fit.groups.iter().for_each(|group| message(list, group, &fit, quirks));
        });
        if !fit.tools.is_empty() {
            o.list("tools", |list| fit.tools.iter().for_each(|tool| list.push_object(|o| define(o, tool))));
        }
        match fit.format {
            Format::Text => {}
            Format::JsonObject => {
                o.str("format", "json");
            }
            Format::JsonSchema { schema, .. } => {
                o.raw("format", schema.as_str());
            }
        }
        match (fit.thought, fit.effort) {
            (Some(Thought::Off), _) => {
                o.bool("think", false);
            }
            (_, Some(effort)) => {
                o.str("think", effort.as_str());
            }
            (Some(_), None) => {
                o.bool("think", true);
            }
            (None, None) => {}
        }
        // Left to itself, the server streams, and leaves out the beginning of what is too long.
        o.bool("stream", request.stream).bool("truncate", false).bool("shift", false);
        o.object("options", |o| options(o, target.input_estimate, &fit, quirks));
    });
    Encoded { body, losses: fit.losses, back: fit.back, is_idle: request.max_tokens == Some(0) }
}

fn options(o: &mut Writer<'_>, prompt: u64, fit: &Fit<'_>, quirks: &Quirks) {
    let context = quirks.context_fixed.unwrap_or_else(|| {
        let note = fit.note.as_deref().map_or(0, str::len) as u64;
        context::reserved(prompt + note, fit.max_tokens, quirks.context_most)
    });
    o.uint("num_ctx", context);
    if let Some(most) = fit.max_tokens {
        o.uint("num_predict", most);
    }
    sampling(o, &fit.sampling);
    if !fit.stop.is_empty() {
        o.list("stop", |list| fit.stop.iter().for_each(|text| list.push_str(text)));
    }
}

fn define(o: &mut Writer<'_>, tool: &FittedTool<'_>) {
    o.str("type", "function").object("function", |o| {
        o.str("name", &tool.name).str_if("description", tool.description).raw("parameters", &tool.schema());
    });
}

fn said(list: &mut Writer<'_>, role: &str, text: &str) {
    list.push_object(|o| {
        o.str("role", role).str("content", text);
    });
}

fn system(list: &mut Writer<'_>, fit: &Fit<'_>) {
    let text = fit.system_text();
    if !text.is_empty() {
        said(list, "system", &text);
    }
}

fn message(list: &mut Writer<'_>, group: &Group<'_>, fit: &Fit<'_>, quirks: &Quirks) {
    match group.role {
        Role::System => said(list, "system", &group.joined(plain::text, "\n\n")),
        Role::User => user(list, group, fit, quirks),
        Role::Assistant => assistant(list, group, quirks),
    }
}

fn assistant(list: &mut Writer<'_>, group: &Group<'_>, quirks: &Quirks) {
    let thought = group.joined(plain::thought, "\n");
    let refused = group.joined(plain::refusal, "\n\n");
    let text = group.text();
    let has_calls = group.calls().next().is_some();
    if text.is_empty() && refused.is_empty() && !has_calls {
        return;
    }
    list.push_object(|o| {
        o.str("role", "assistant").str("content", &join([&*text, &*refused].into_iter(), "\n\n"));
        o.str_if("thinking", Some(&*thought).filter(|thought| !thought.is_empty()));
        if has_calls {
            o.list("tool_calls", |list| {
                for call in group.calls() {
                    list.push_object(|o| {
                        o.str("id", &fit::id(&call.id, quirks.id_most)).object("function", |o| {
                            o.str("name", &fit::name(&call.name, quirks.name_most));
                            match &call.input {
                                Input::Json(json) if json.is_object() => o.raw("arguments", json.as_str()),
                                Input::Json(json) => o.object("arguments", |o| {
                                    o.raw("input", json.as_str());
                                }),
                                Input::Text(text) | Input::Cut(text) => o.object("arguments", |o| {
                                    o.str("input", text);
                                }),
                            };
                        });
                    });
                }
            });
        }
    });
}

fn user(list: &mut Writer<'_>, group: &Group<'_>, fit: &Fit<'_>, quirks: &Quirks) {
    // Images are seen in messages of the user's alone: those of results follow after all results.
    let mut attached: Vec<(String, &Part<'_>)> = Vec::new();
    for result in group.results() {
        let content = plain::result(result, OWN, &mut attached);
        let mut calls = fit.groups.iter().flat_map(|group| group.calls());
        list.push_object(|o| {
            o.str("role", "tool").str("content", if content.is_empty() { quirks.empty_result } else { &content });
            if let Some(call) = calls.find(|call| call.id == result.id) {
                o.str("tool_name", &fit::name(&call.name, quirks.name_most));
            }
            o.str("tool_call_id", &fit::id(&result.id, quirks.id_most));
        });
    }
    let rest = || group.parts.iter().filter(|part| !matches!(part.content, Content::Result(_)));
    let captions = attached.iter().map(|(caption, _)| Cow::Borrowed(&**caption));
    let texts: Vec<Cow<'_, str>> = captions.chain(rest().filter_map(|part| as_text(&part.content, OWN))).collect();
    let text = join(texts.iter().map(|text| &**text), "\n\n");
    let mut images =
        attached.iter().map(|(_, part)| *part).chain(rest().map(|part| &**part)).filter_map(image).peekable();
    if text.is_empty() && images.peek().is_none() {
        return;
    }
    list.push_object(|o| {
        o.str("role", "user").str("content", &text);
        if images.peek().is_some() {
            o.list("images", |list| images.for_each(|data| list.push_str(data)));
        }
    });
}

/// The bytes of an image, in base64.
fn image<'p>(part: &'p Part<'_>) -> Option<&'p str> {
    match &part.content {
        Content::Image(Image { source: Source::Base64 { data, .. }, .. }) => Some(data),
        _ => None,
    }
}
