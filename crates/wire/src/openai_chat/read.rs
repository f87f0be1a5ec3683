//! Reads requests.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::OWN;
use crate::error::ApiError;
use crate::json::{self, Json, Str, TextOr, record};
use crate::loss::{Place, Weight};
use crate::opaque::Extra;
use crate::openai::{self, Schema};
use crate::reading::{self, Read, Rest, below, extras, fault, owned, parse, some};
use crate::request::{
    Call, Content, Document, Image, Input, Part, Request, Role, Source, Thinking, Thought, Tool, ToolChoice, ToolKind,
    ToolResult, Turn,
};

record! {
    /// The body of a request.
    Body<'a> {
        model: Str<'a> = "model",
        messages: Vec<Message<'a>> = "messages",
        tools: Vec<&'a RawValue> = "tools",
        functions: Vec<Function<'a>> = "functions",
        tool_choice: &'a RawValue = "tool_choice",
        function_call: &'a RawValue = "function_call",
        parallel_tool_calls: bool = "parallel_tool_calls",
        max_tokens: u64 = "max_tokens",
        max_completion_tokens: u64 = "max_completion_tokens",
        stop: TextOr<'a, Str<'a>> = "stop",
        temperature: f64 = "temperature",
        top_p: f64 = "top_p",
        top_k: u64 = "top_k",
        presence_penalty: f64 = "presence_penalty",
        frequency_penalty: f64 = "frequency_penalty",
        seed: i64 = "seed",
        n: u64 = "n",
        response_format: ResponseFormat<'a> = "response_format",
        reasoning_effort: Str<'a> = "reasoning_effort",
        thinking: Switch<'a> = "thinking",
        verbosity: Str<'a> = "verbosity",
        user: Str<'a> = "user",
        safety_identifier: Str<'a> = "safety_identifier",
        prompt_cache_key: Str<'a> = "prompt_cache_key",
        stream: bool = "stream",
        stream_options: StreamOptions<'a> = "stream_options",
    }
}

record! {
    Message<'a> {
        role: Str<'a> = "role",
        content: TextOr<'a, &'a RawValue> = "content",
        refusal: Str<'a> = "refusal",
        reasoning_content: Str<'a> = "reasoning_content",
        reasoning: Str<'a> = "reasoning",
        tool_calls: Vec<ToolCall<'a>> = "tool_calls",
        function_call: CalledFunction<'a> = "function_call",
        tool_call_id: Str<'a> = "tool_call_id",
        name: Str<'a> = "name",
    }
}

record! {
    ToolCall<'a> {
        id: Str<'a> = "id",
        function: CalledFunction<'a> = "function",
        custom: CalledCustom<'a> = "custom",
    }
}

record! {
    CalledFunction<'a> {
        name: Str<'a> = "name",
        arguments: Str<'a> = "arguments",
    }
}

record! {
    CalledCustom<'a> {
        name: Str<'a> = "name",
        input: Str<'a> = "input",
    }
}

record! {
    ContentPart<'a> {
        kind: Str<'a> = "type",
        text: Str<'a> = "text",
        refusal: Str<'a> = "refusal",
        image_url: ImageUrl<'a> = "image_url",
        file: File<'a> = "file",
    }
}

record! {
    ImageUrl<'a> {
        url: Str<'a> = "url",
        detail: Str<'a> = "detail",
    }
}

record! {
    File<'a> {
        file_data: Str<'a> = "file_data",
        file_id: Str<'a> = "file_id",
        filename: Str<'a> = "filename",
    }
}

record! {
    Definition<'a> {
        kind: Str<'a> = "type",
        function: Function<'a> = "function",
        custom: Custom<'a> = "custom",
    }
}

record! {
    Function<'a> {
        name: Str<'a> = "name",
        description: Str<'a> = "description",
        parameters: &'a RawValue = "parameters",
        strict: bool = "strict",
    }
}

record! {
    Custom<'a> {
        name: Str<'a> = "name",
        description: Str<'a> = "description",
        format: &'a RawValue = "format",
    }
}

record! {
    ResponseFormat<'a> {
        kind: Str<'a> = "type",
        json_schema: Schema<'a> = "json_schema",
    }
}

record! {
    /// DeepSeek's way to switch thinking on and off.
    Switch<'a> {
        kind: Str<'a> = "type",
    }
}

record! {
    StreamOptions<'a> {
        include_usage: bool = "include_usage",
        // A stream that is written here has no padding to switch off.
        include_obfuscation: &'a RawValue = "include_obfuscation",
    }
}

record! {
    Choice<'a> {
        kind: Str<'a> = "type",
        name: Str<'a> = "name",
        function: Named<'a> = "function",
        custom: Named<'a> = "custom",
        allowed_tools: Allowed<'a> = "allowed_tools",
    }
}

record! {
    Named<'a> {
        name: Str<'a> = "name",
    }
}

record! {
    Allowed<'a> {
        mode: Str<'a> = "mode",
        tools: Vec<Choice<'a>> = "tools",
    }
}

/// Members that have no neutral form.
fn hints<'a>(rest: Rest<'a>) -> Vec<Extra<'a>> {
    extras(OWN, rest, |_, _| Weight::Hint).collect()
}

/// Those of an object in a field.
fn inner<'a>(field: &'static str, rest: Rest<'a>) -> impl Iterator<Item = Extra<'a>> {
    below(OWN, field, rest, Weight::Hint)
}

/// Those of a message. What was cited is the answer's; it says nothing to the next one.
fn of_message<'a>(rest: Rest<'a>) -> Vec<Extra<'a>> {
    extras(OWN, rest, |name, _| if name == "annotations" { Weight::Silent } else { Weight::Hint }).collect()
}

/// Those of a call. Clients send back what they were told in pieces, with the numbers of the pieces.
fn of_call<'a>(rest: Rest<'a>) -> impl Iterator<Item = Extra<'a>> {
    extras(OWN, rest, |name, _| if matches!(name, "type" | "index") { Weight::Silent } else { Weight::Hint })
}

/// What it means to leave out a field of the top level.
fn weight(name: &str, value: &str) -> Weight {
    match name {
        // They keep records, sort bills and tune caches at the provider; they do not change the answer.
        "store" | "metadata" | "service_tier" | "prompt_cache_options" | "prompt_cache_retention" => Weight::Silent,
        "modalities" if !value.contains("audio") => Weight::Silent,
        "modalities" | "audio" => Weight::Meaning,
        "logprobs" if value == "false" => Weight::Silent,
        _ => Weight::Hint,
    }
}

/// A client's request.
pub(super) fn request(body: &[u8]) -> Read<Request<'_>> {
    let body: Body<'_> = reading::body(body)?;
    if body.n.is_some_and(|n| n != 1) {
        let code = Some("unsupported_value".into());
        return Err(ApiError { code, ..fault("n", "only 1 is supported by this model") });
    }
    let mut request = Request::new(OWN);
    request.model = owned(body.model).ok_or_else(|| fault("model", "it is required"))?;
    for (n, raw) in body.tools.unwrap_or_default().into_iter().enumerate() {
        request.tools.push(tool(raw, Place::new("tools", n))?);
    }
    for (n, definition) in body.functions.unwrap_or_default().into_iter().enumerate() {
        request.tools.push(function(definition, Place::new("functions", n))?);
    }
    let messages = body.messages.ok_or_else(|| fault("messages", "it is required"))?;
    for (n, mut message) in messages.into_iter().enumerate() {
        let place = Place::new("messages", n);
        let role = message.role.take();
        let (role, parts) = match role.as_deref() {
            Some("system" | "developer") => (Role::System, parts(message.content.take(), place, "content")?),
            Some("user") => (Role::User, parts(message.content.take(), place, "content")?),
            Some("assistant") => (Role::Assistant, said(&mut message, place)?),
            Some("tool" | "function") => (Role::User, vec![result(&mut message, place)?]),
            _ => return Err(fault(place.inner("role"), "it is not known")),
        };
        let mut extras = of_message(message.rest);
        if let Some(Str(name)) = message.name {
            extras.push(Extra::new(OWN, "name", Json::string(&name), Weight::Hint));
        }
        // Instructions before everything else are the system prompt.
        if role == Role::System && request.turns.is_empty() {
            request.extras.extend(extras.into_iter().map(|extra| extra.at(place)));
            request.system.extend(parts);
        } else {
            request.turns.push(Turn { role, parts, extras, place });
        }
    }
    let choice = body.tool_choice.or(body.function_call);
    request.tool_choice = choice.map(|raw| tool_choice(raw, &mut request.extras)).transpose()?;
    request.parallel_tools = body.parallel_tool_calls;
    request.max_tokens = body.max_completion_tokens.or(body.max_tokens);
    request.stop = match body.stop {
        None => Vec::new(),
        Some(TextOr::Text(one)) => vec![one],
        Some(TextOr::List(list)) => list.into_iter().map(|Str(text)| text).collect(),
    };
    let sampling = &mut request.sampling;
    (sampling.temperature, sampling.top_p, sampling.top_k) = (body.temperature, body.top_p, body.top_k);
    (sampling.presence_penalty, sampling.frequency_penalty) = (body.presence_penalty, body.frequency_penalty);
    sampling.seed = body.seed;
    if let Some(thinking) = body.thinking {
        request.reasoning.mode = match thinking.kind.as_deref() {
            Some("enabled") => Some(Thought::Adaptive),
            Some("disabled") => Some(Thought::Off),
            // Left to the model, as it is without the field.
            None | Some("auto" | "adaptive") => None,
            Some(_) => return Err(fault("thinking.type", "it is not known")),
        };
        request.extras.extend(inner("thinking", thinking.rest));
    }
    openai::effort(body.reasoning_effort, "reasoning_effort", &mut request.reasoning)?;
    if let Some(mut format) = body.response_format {
        let schema = format.json_schema.as_mut().map(|schema| std::mem::take(&mut schema.rest));
        request.extras.extend(inner("response_format", format.rest));
        request.extras.extend(inner("response_format.json_schema", schema.unwrap_or_default()));
        request.format = openai::format(format.kind.as_deref(), || format.json_schema, "response_format")?;
    }
    request.verbosity = owned(body.verbosity);
    request.user = owned(body.safety_identifier).or(owned(body.user));
    request.cache_key = owned(body.prompt_cache_key);
    request.stream = body.stream.unwrap_or(false);
    if let Some(options) = body.stream_options {
        request.stream_usage = options.include_usage.unwrap_or(false);
        request.extras.extend(inner("stream_options", options.rest));
    } else {
        request.stream_usage = false;
    }
    request.extras.extend(extras(OWN, body.rest, weight));
    Ok(request)
}

fn parts<'a>(content: Option<TextOr<'a, &'a RawValue>>, place: Place, field: &'static str) -> Read<Vec<Part<'a>>> {
    match content {
        None => Ok(Vec::new()),
        Some(TextOr::Text(text)) => Ok(vec![Part::new(text, place.inner(field))]),
        Some(TextOr::List(list)) => {
            list.into_iter().enumerate().map(|(n, raw)| part(raw, place.part(field, n))).collect()
        }
    }
}

fn part(raw: &RawValue, place: Place) -> Read<Part<'_>> {
    let part: ContentPart<'_> = parse(raw, place)?;
    let kind = part.kind.as_deref().ok_or_else(|| fault(place, "the part has no `type`"))?;
    let need = || fault(place, format!("a `{kind}` part needs `{kind}`"));
    let mut within = Vec::new();
    let content = match kind {
        "text" => owned(part.text).ok_or_else(need)?.into(),
        "refusal" => Content::Refusal(owned(part.refusal).ok_or_else(need)?),
        "image_url" => {
            let image = part.image_url.ok_or_else(need)?;
            within.extend(inner("image_url", image.rest));
            let source = openai::image(owned(image.url).ok_or_else(need)?, place)?;
            Content::Image(Image { source, detail: owned(image.detail) })
        }
        "file" => {
            let file = part.file.ok_or_else(need)?;
            within.extend(inner("file", file.rest));
            let source = match (owned(file.file_data), owned(file.file_id)) {
                (Some(data), _) => openai::file(data, place)?,
                (None, Some(id)) => Source::File(id),
                (None, None) => return Err(fault(place, "the file has neither `file_data` nor `file_id`")),
            };
            let title = owned(file.filename);
            Content::Document(Document { source, title, context: None, citations: false })
        }
        // Audio and whatever may come: an answer without it would be one to another question.
        _ => Content::Extra(Extra::new(OWN, kind.to_owned(), raw, Weight::Meaning)),
    };
    let extras = match &content {
        Content::Extra(_) => Vec::new(),
        _ => hints(part.rest).into_iter().chain(within).collect(),
    };
    Ok(Part { extras, ..Part::new(content, place) })
}

/// What the model said: thinking, text, calls.
fn said<'a>(message: &mut Message<'a>, place: Place) -> Read<Vec<Part<'a>>> {
    let mut said = Vec::new();
    if let Some(text) = some(message.reasoning_content.take().or(message.reasoning.take())) {
        let thinking = Thinking { text, opaque: None, redacted: false };
        said.push(Part::new(Content::Thinking(thinking), place.inner("reasoning_content")));
    }
    said.extend(parts(message.content.take(), place, "content")?);
    if let Some(Str(text)) = message.refusal.take() {
        said.push(Part::new(Content::Refusal(text), place.inner("refusal")));
    }
    if let Some(call) = message.function_call.take() {
        let place = place.inner("function_call");
        let id = call.name.as_deref().map(legacy_id).ok_or_else(|| fault(place, "it needs `name`"))?;
        let (content, extras) = called(id.into(), call, place)?;
        said.push(Part { extras, ..Part::new(content, place) });
    }
    for (n, call) in message.tool_calls.take().unwrap_or_default().into_iter().enumerate() {
        let place = place.part("tool_calls", n);
        let id = owned(call.id).ok_or_else(|| fault(place, "it needs `id`"))?;
        let (content, mut extras) = match (call.function, call.custom) {
            (Some(function), _) => called(id, function, place)?,
            (None, Some(custom)) => {
                let name = owned(custom.name).ok_or_else(|| fault(place, "it needs `name`"))?;
                let input = Input::Text(owned(custom.input).unwrap_or_default());
                (Content::Call(Call { id, name, input }), inner("custom", custom.rest).collect())
            }
            (None, None) => return Err(fault(place, "it needs `function`")),
        };
        extras.extend(of_call(call.rest));
        said.push(Part { extras, ..Part::new(content, place) });
    }
    Ok(said)
}

/// The id of a call from the time before calls had ids.
fn legacy_id(name: &str) -> String {
    format!("call_{name}")
}

/// A call of a function, and the members of the function that have no neutral form.
fn called<'a>(id: Cow<'a, str>, function: CalledFunction<'a>, place: Place) -> Read<(Content<'a>, Vec<Extra<'a>>)> {
    let name = owned(function.name).ok_or_else(|| fault(place, "it needs `name`"))?;
    let input = openai::input(owned(function.arguments).unwrap_or_default());
    if !input.is_whole() {
        return Err(fault(place, "its `arguments` are no JSON"));
    }
    Ok((Content::Call(Call { id, name, input }), inner("function", function.rest).collect()))
}

fn result<'a>(message: &mut Message<'a>, place: Place) -> Read<Part<'a>> {
    let id = match (message.tool_call_id.take(), &message.name) {
        (Some(Str(id)), _) => id,
        (None, Some(name)) => legacy_id(name).into(),
        (None, None) => return Err(fault(place, "a `tool` message needs `tool_call_id`")),
    };
    let content = parts(message.content.take(), place, "content")?;
    message.name = None;
    Ok(Part::new(Content::Result(ToolResult { id, content, is_error: false }), place))
}

fn tool(raw: &RawValue, place: Place) -> Read<Tool<'_>> {
    let definition: Definition<'_> = parse(raw, place)?;
    let need = |field: &str| fault(place, format!("the tool needs `{field}`"));
    match definition.kind {
        Some(kind) if &*kind == "function" => {
            let mut tool = function(definition.function.ok_or_else(|| need("function"))?, place)?;
            tool.extras.extend(hints(definition.rest));
            Ok(tool)
        }
        Some(kind) if &*kind == "custom" => {
            let custom = definition.custom.ok_or_else(|| need("custom"))?;
            Ok(Tool {
                name: owned(custom.name).ok_or_else(|| need("name"))?,
                description: owned(custom.description),
                kind: ToolKind::Custom { format: custom.format.map(|raw| grammar(raw, place)).transpose()?.flatten() },
                cache: None,
                extras: hints(custom.rest).into_iter().chain(hints(definition.rest)).collect(),
                place,
            })
        }
        None if definition.function.is_some() => {
            let mut tool = function(definition.function.unwrap_or_default(), place)?;
            tool.extras.extend(hints(definition.rest));
            Ok(tool)
        }
        Some(Str(kind)) => Ok(Tool {
            name: kind.clone(),
            description: None,
            kind: ToolKind::Server { ability: None, definition: Extra::new(OWN, kind, raw, Weight::Hint) },
            cache: None,
            extras: Vec::new(),
            place,
        }),
        None => Err(need("type")),
    }
}

fn function(function: Function<'_>, place: Place) -> Read<Tool<'_>> {
    Ok(Tool {
        name: owned(function.name).ok_or_else(|| fault(place, "the function needs `name`"))?,
        description: owned(function.description),
        kind: ToolKind::Function { schema: function.parameters.map(Json::from), strict: function.strict },
        cache: None,
        extras: hints(function.rest),
        place,
    })
}

fn tool_choice<'a>(raw: &'a RawValue, extras: &mut Vec<Extra<'a>>) -> Read<ToolChoice<'a>> {
    if let Some(choice) = openai::choice_of_word(raw) {
        return choice;
    }
    let mut choice: Choice<'_> = parse(raw, "tool_choice")?;
    extras.extend(inner("tool_choice", std::mem::take(&mut choice.rest)));
    if let Some(allowed) = choice.allowed_tools {
        extras.extend(inner("tool_choice.allowed_tools", allowed.rest));
        let names = allowed.tools.unwrap_or_default().into_iter().filter_map(chosen).collect();
        return Ok(ToolChoice::Among { names, required: allowed.mode.as_deref() == Some("required") });
    }
    chosen(choice).map(ToolChoice::Tool).ok_or_else(|| fault("tool_choice", "it names no tool"))
}

fn chosen(choice: Choice<'_>) -> Option<Cow<'_, str>> {
    choice.function.or(choice.custom).and_then(|named| owned(named.name)).or(owned(choice.name))
}

/// The grammar of a custom tool; `None` for plain text.
fn grammar(raw: &RawValue, place: Place) -> Read<Option<Json<'_>>> {
    let format = Json::from(raw);
    let members = json::members(&format);
    let of = |name: &str| members.iter().find(|(key, _)| key == name).map(|(_, value)| *value);
    let is_defined =
        |grammar: &RawValue| json::members(&Json::from(grammar)).iter().any(|(key, _)| key == "definition");
    match of("type").map(RawValue::get) {
        Some("\"text\"") => Ok(None),
        Some("\"grammar\"") if of("grammar").is_some_and(is_defined) => Ok(Some(raw.into())),
        _ => Err(fault(place, openai::NO_FORMAT)),
    }
}
