//! Reads items: what a conversation consists of, in requests and in whole answers.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{OWN, names, sealed};
use crate::json::{Json, Str, TextOr, record};
use crate::loss::{Place, Weight};
use crate::opaque::Extra;
use crate::openai::{self, input};
use crate::reading::{Read, extras, fault, owned, parse};
use crate::request::{
    CacheMark, Call, Content, Document, Image, Input, Part, Role, Source, Text, Thinking, ToolResult, Turn,
};

record! {
    /// An item of any type: which fields it has, and of which form, depends on `type`.
    Item<'a> {
        kind: Str<'a> = "type",
        id: Str<'a> = "id",
        status: &'a RawValue = "status",
        role: Str<'a> = "role",
        content: &'a RawValue = "content",
        call_id: Str<'a> = "call_id",
        name: Str<'a> = "name",
        namespace: Str<'a> = "namespace",
        arguments: &'a RawValue = "arguments",
        input: &'a RawValue = "input",
        output: &'a RawValue = "output",
        summary: &'a RawValue = "summary",
        encrypted_content: Str<'a> = "encrypted_content",
    }
}

record! {
    ContentPart<'a> {
        kind: Str<'a> = "type",
        text: Str<'a> = "text",
        annotations: Vec<Json<'a>> = "annotations",
        logprobs: &'a RawValue = "logprobs",
        refusal: Str<'a> = "refusal",
        image_url: Str<'a> = "image_url",
        detail: Str<'a> = "detail",
        file_data: Str<'a> = "file_data",
        file_id: Str<'a> = "file_id",
        file_url: Str<'a> = "file_url",
        filename: Str<'a> = "filename",
        prompt_cache_breakpoint: &'a RawValue = "prompt_cache_breakpoint",
    }
}

#[derive(Deserialize)]
struct TextPart<'a> {
    #[serde(borrow)]
    text: Option<Str<'a>>,
}

/// What it means to leave out an item that has no neutral form.
fn weight(kind: &str) -> Weight {
    match kind {
        // What the provider ran by itself: the answer that came of it is there.
        "web_search_call"
        | "file_search_call"
        | "code_interpreter_call"
        | "image_generation_call"
        | "mcp_list_tools"
        | "mcp_call"
        | "mcp_approval_request"
        | "mcp_approval_response"
        | "tool_search_call"
        | "tool_search_output"
        | "program"
        | "program_output" => Weight::Hint,
        // What the client ran, what the provider keeps, and whatever may come: the rest would make no sense.
        _ => Weight::Meaning,
    }
}

/// One item, as a turn of its own. Arguments that are no JSON are [cut](Input::Cut).
pub(super) fn read(raw: &RawValue, place: Place) -> Read<Turn<'_>> {
    let mut item: Item<'_> = parse(raw, place)?;
    // The type of a message may be left out.
    let kind = match item.kind.take() {
        Some(Str(kind)) => kind,
        None if item.role.is_some() => Cow::Borrowed("message"),
        None => return Err(fault(place, "the item has no `type`")),
    };
    let need = |field: &str| fault(place, format!("a `{kind}` item needs `{field}`"));
    let rest = std::mem::take(&mut item.rest);
    let (role, content) = match &*kind {
        "message" => return message(Item { rest, ..item }, raw, place),
        "reasoning" => (Role::Assistant, Content::Thinking(thinking(item, place)?)),
        "function_call" => {
            let arguments: Str<'_> = item.arguments.map_or(Ok(Str::default()), |raw| parse(raw, place))?;
            let name = owned(item.name).ok_or_else(|| need("name"))?;
            let name = names::join(item.namespace.as_deref(), name);
            let id = owned(item.call_id).ok_or_else(|| need("call_id"))?;
            (Role::Assistant, Content::Call(Call { id, name, input: input(arguments.0) }))
        }
        "custom_tool_call" => {
            let text: Str<'_> = item.input.map_or(Ok(Str::default()), |raw| parse(raw, place))?;
            let name = owned(item.name).ok_or_else(|| need("name"))?;
            let name = names::join(item.namespace.as_deref(), name);
            let id = owned(item.call_id).ok_or_else(|| need("call_id"))?;
            (Role::Assistant, Content::Call(Call { id, name, input: Input::Text(text.0) }))
        }
        "function_call_output" | "custom_tool_call_output" => {
            let id = owned(item.call_id).ok_or_else(|| need("call_id"))?;
            let content = match item.output.map(|raw| parse(raw, place)).transpose()? {
                None => Vec::new(),
                Some(TextOr::Text(text)) => vec![Part::new(text, place.inner("output"))],
                Some(TextOr::List(list)) => {
                    let part = |(n, raw)| {
                        let place = place.part("output", n);
                        Ok(part(raw, place)?.unwrap_or_else(|| unknown("output", raw, place)))
                    };
                    list.into_iter().enumerate().map(part).collect::<Read<_>>()?
                }
            };
            (Role::User, Content::Result(ToolResult { id, content, is_error: false }))
        }
        _ => {
            let role = if kind.ends_with("_output") { Role::User } else { Role::Assistant };
            (role, Content::Extra(Extra::new(OWN, kind.clone(), raw, weight(&kind))))
        }
    };
    let extras = match &content {
        Content::Extra(_) => Vec::new(),
        // Who wrote it down, and who made the call, changes nothing of what was said.
        _ => extras(OWN, rest, |name, _| match name {
            "phase" | "created_by" | "caller" => Weight::Silent,
            _ => Weight::Hint,
        })
        .collect(),
    };
    Ok(Turn { role, parts: vec![Part { extras, ..Part::new(content, place) }], extras: Vec::new(), place })
}

fn unknown<'a>(name: &str, raw: &'a RawValue, place: Place) -> Part<'a> {
    Part::new(Content::Extra(Extra::new(OWN, name.to_owned(), raw, Weight::Meaning)), place)
}

fn message<'a>(item: Item<'a>, raw: &'a RawValue, place: Place) -> Read<Turn<'a>> {
    let role = match item.role.as_deref() {
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        Some("system" | "developer") => Role::System,
        _ => return Err(fault(place.inner("role"), "it is not `user`, `assistant`, `system` or `developer`")),
    };
    let content = item.content.ok_or_else(|| fault(place.inner("content"), "it is required"))?;
    let parts = match parse(content, place.inner("content"))? {
        TextOr::Text(text) => vec![Part::new(text, place.inner("content"))],
        TextOr::List(list) => {
            let mut parts = Vec::with_capacity(list.len());
            for (n, one) in list.into_iter().enumerate() {
                let place = place.part("content", n);
                match part(one, place)? {
                    Some(part) => parts.push(part),
                    // A message that says something without a neutral form has none as a whole.
                    None => {
                        parts = vec![unknown("message", raw, place)];
                        break;
                    }
                }
            }
            parts
        }
    };
    let extras =
        extras(OWN, item.rest, |name, _| if name == "phase" { Weight::Silent } else { Weight::Hint }).collect();
    Ok(Turn { role, parts, extras, place })
}

/// One part of a message's content; `None` for a type that is not known.
fn part<'a>(raw: &'a RawValue, place: Place) -> Read<Option<Part<'a>>> {
    let part: ContentPart<'_> = parse(raw, place)?;
    let kind = part.kind.as_deref().ok_or_else(|| fault(place, "the part has no `type`"))?;
    let need = |field: &str| fault(place, format!("a `{kind}` part needs `{field}`"));
    let content = match kind {
        "input_text" | "output_text" | "text" | "summary_text" => {
            let citation = |value: Json<'a>| Extra::new(OWN, "annotations", value, Weight::Silent);
            let citations = part.annotations.unwrap_or_default().into_iter().map(citation).collect();
            Content::Text(Text { text: owned(part.text).ok_or_else(|| need("text"))?, citations })
        }
        "refusal" => Content::Refusal(owned(part.refusal).ok_or_else(|| need("refusal"))?),
        "input_image" => {
            let source = match (owned(part.image_url), owned(part.file_id)) {
                (Some(url), _) => openai::image(url, place)?,
                (None, Some(id)) => Source::File(id),
                (None, None) => return Err(need("image_url")),
            };
            Content::Image(Image { source, detail: owned(part.detail) })
        }
        "input_file" => {
            let source = match (owned(part.file_data), owned(part.file_url), owned(part.file_id)) {
                (Some(data), ..) => openai::file(data, place)?,
                (None, Some(url), _) => Source::Url(url),
                (None, None, Some(id)) => Source::File(id),
                (None, None, None) => return Err(need("file_data")),
            };
            Content::Document(Document { source, title: owned(part.filename), context: None, citations: false })
        }
        _ => return Ok(None),
    };
    let extras = extras(OWN, part.rest, |_, _| Weight::Hint).collect();
    let cache = part.prompt_cache_breakpoint.map(|_| CacheMark::Default);
    Ok(Some(Part { content, cache, extras, place }))
}

fn thinking(item: Item<'_>, place: Place) -> Read<Thinking<'_>> {
    let texts = |raw: Option<&'_ RawValue>| -> Read<Vec<String>> {
        let parts: Vec<TextPart<'_>> = raw.map_or(Ok(Vec::new()), |raw| parse(raw, place))?;
        Ok(parts.into_iter().filter_map(|part| Some(part.text?.0.into_owned())).collect())
    };
    let mut text = texts(item.summary)?;
    if text.is_empty() {
        text = texts(item.content)?;
    }
    let (opaque, redacted) = sealed::open(owned(item.id), owned(item.encrypted_content));
    Ok(Thinking { text: text.join("\n\n").into(), opaque, redacted })
}
