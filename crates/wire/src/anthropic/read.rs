//! Reads requests, and the content blocks that requests and whole answers share.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::OWN;
use crate::json::{Json, Str, TextOr, record};
use crate::loss::{Place, Weight};
use crate::opaque::{Extra, Opaque};
use crate::reading::{self, Read, below, extras, fault, media_type, owned, parse};
use crate::request::{
    Ability, CacheMark, Call, Content, Display, Document, Effort, Format, Image, Input, Part, Request, Role, Source,
    Text, Thinking, Thought, Tool, ToolChoice, ToolKind, ToolResult, Turn,
};

record! {
    /// The body of a request.
    Body<'a> {
        model: Str<'a> = "model",
        messages: Vec<Message<'a>> = "messages",
        system: TextOr<'a, &'a RawValue> = "system",
        tools: Vec<&'a RawValue> = "tools",
        tool_choice: Choice<'a> = "tool_choice",
        max_tokens: u64 = "max_tokens",
        stop_sequences: Vec<Str<'a>> = "stop_sequences",
        temperature: f64 = "temperature",
        top_p: f64 = "top_p",
        top_k: u64 = "top_k",
        thinking: ThinkingConfig<'a> = "thinking",
        output_config: OutputConfig<'a> = "output_config",
        metadata: Metadata<'a> = "metadata",
        stream: bool = "stream",
    }
}

record! {
    Message<'a> {
        role: Str<'a> = "role",
        content: TextOr<'a, &'a RawValue> = "content",
    }
}

record! {
    /// A content block of any type: which fields it has depends on `type`.
    Block<'a> {
        kind: Str<'a> = "type",
        text: Str<'a> = "text",
        citations: &'a RawValue = "citations",
        cache_control: CacheControl<'a> = "cache_control",
        source: &'a RawValue = "source",
        title: Str<'a> = "title",
        context: Str<'a> = "context",
        id: Str<'a> = "id",
        name: Str<'a> = "name",
        input: &'a RawValue = "input",
        tool_use_id: Str<'a> = "tool_use_id",
        tool_name: Str<'a> = "tool_name",
        content: TextOr<'a, &'a RawValue> = "content",
        is_error: bool = "is_error",
        thinking: Str<'a> = "thinking",
        signature: Str<'a> = "signature",
        data: Str<'a> = "data",
    }
}

record! {
    SourceObject<'a> {
        kind: Str<'a> = "type",
        media_type: Str<'a> = "media_type",
        data: Str<'a> = "data",
        url: Str<'a> = "url",
        file_id: Str<'a> = "file_id",
        content: TextOr<'a, &'a RawValue> = "content",
    }
}

record! {
    Definition<'a> {
        kind: Str<'a> = "type",
        name: Str<'a> = "name",
        description: Str<'a> = "description",
        input_schema: &'a RawValue = "input_schema",
        strict: bool = "strict",
        cache_control: CacheControl<'a> = "cache_control",
    }
}

record! {
    Choice<'a> {
        kind: Str<'a> = "type",
        name: Str<'a> = "name",
        disable_parallel_tool_use: bool = "disable_parallel_tool_use",
    }
}

record! {
    ThinkingConfig<'a> {
        kind: Str<'a> = "type",
        budget_tokens: u64 = "budget_tokens",
        display: Str<'a> = "display",
    }
}

record! {
    OutputConfig<'a> {
        effort: Str<'a> = "effort",
        format: SchemaFormat<'a> = "format",
    }
}

record! {
    SchemaFormat<'a> {
        kind: Str<'a> = "type",
        schema: &'a RawValue = "schema",
    }
}

record! {
    Metadata<'a> {
        user_id: Str<'a> = "user_id",
    }
}

record! {
    CacheControl<'a> {
        ttl: Str<'a> = "ttl",
    }
}

#[derive(Deserialize)]
struct Enabled {
    #[serde(default)]
    enabled: bool,
}

/// How deep results and documents may hold each other.
const DEPTH: u8 = 8;

/// A client's request.
pub(super) fn request(body: &[u8]) -> Read<Request<'_>> {
    let body: Body<'_> = reading::body(body)?;
    let mut request = Request::new(OWN);
    request.model = owned(body.model).ok_or_else(|| fault("model", "it is required"))?;
    request.system = match body.system {
        None => Vec::new(),
        Some(TextOr::Text(text)) => vec![system_text(text, Place::field("system"))],
        Some(TextOr::List(blocks)) => {
            let part = |(n, raw)| Ok(as_system(block(raw, Place::new("system", n), DEPTH)?));
            blocks.into_iter().enumerate().map(part).collect::<Read<_>>()?
        }
    };
    let tools = body.tools.unwrap_or_default().into_iter().enumerate();
    request.tools = tools.map(|(n, raw)| tool(raw, Place::new("tools", n))).collect::<Read<_>>()?;
    let messages = body.messages.ok_or_else(|| fault("messages", "it is required"))?;
    for (n, message) in messages.into_iter().enumerate() {
        let turn = turn(message, Place::new("messages", n), &mut request.tools)?;
        request.turns.push(turn);
    }
    if let Some(mut choice) = body.tool_choice {
        request.parallel_tools = choice.disable_parallel_tool_use.map(|disabled| !disabled);
        request.extras.extend(below(OWN, "tool_choice", std::mem::take(&mut choice.rest), Weight::Hint));
        request.tool_choice = Some(tool_choice(choice)?);
    }
    request.max_tokens = body.max_tokens;
    request.stop = body.stop_sequences.unwrap_or_default().into_iter().map(|Str(text)| text).collect();
    request.sampling.temperature = body.temperature;
    request.sampling.top_p = body.top_p;
    request.sampling.top_k = body.top_k;
    request.stream = body.stream.unwrap_or(false);
    if let Some(thinking) = body.thinking {
        request.reasoning.mode = match thinking.kind.as_deref() {
            Some("adaptive") => Some(Thought::Adaptive),
            Some("enabled") => Some(thinking.budget_tokens.map_or(Thought::Adaptive, Thought::Budget)),
            Some("disabled") => Some(Thought::Off),
            Some("between_tools") => Some(Thought::BetweenTools),
            _ => return Err(fault("thinking.type", "it is not known")),
        };
        request.reasoning.display = match thinking.display.as_deref() {
            Some("summarized") => Some(Display::Summary),
            Some("omitted") => Some(Display::Omitted),
            Some("updates") => Some(Display::Updates),
            _ => None,
        };
        request.extras.extend(below(OWN, "thinking", thinking.rest, Weight::Silent));
    }
    if let Some(config) = body.output_config {
        if let Some(effort) = config.effort {
            let known = Effort::from_word(&effort).ok_or_else(|| fault("output_config.effort", "it is not known"))?;
            request.reasoning.effort = Some(known);
        }
        if let Some(mut format) = config.format {
            let rest = std::mem::take(&mut format.rest);
            request.extras.extend(below(OWN, "output_config.format", rest, Weight::Hint));
            let schema = format.schema.filter(|_| format.kind.as_deref() == Some("json_schema"));
            let schema = schema.ok_or_else(|| fault("output_config.format", "it needs a `schema`"))?.into();
            request.format = Format::JsonSchema { name: None, description: None, schema, strict: Some(true) };
        }
        request.extras.extend(below(OWN, "output_config", config.rest, Weight::Hint));
    }
    if let Some(metadata) = body.metadata {
        request.user = owned(metadata.user_id);
        request.extras.extend(below(OWN, "metadata", metadata.rest, Weight::Hint));
    }
    request.extras.extend(extras(OWN, body.rest, |name, _| match name {
        "diagnostics" | "cache_control" | "service_tier" | "fallback_credit_token" | "billing_policy" => Weight::Silent,
        "mcp_servers" | "fallbacks" | "thread" => Weight::Meaning,
        _ => Weight::Hint,
    }));
    Ok(request)
}

fn system_text<'a>(text: Cow<'a, str>, place: Place) -> Part<'a> {
    as_system(Part::new(text, place))
}

/// The block by which Claude Code names itself is for Anthropic alone.
fn as_system(mut part: Part<'_>) -> Part<'_> {
    if let Content::Text(text) = &part.content
        && text.text.starts_with("x-anthropic-billing-header:")
    {
        let value = Json::object(|o| {
            o.str("type", "text").str("text", &text.text);
        });
        part.content = Content::Extra(Extra::new(OWN, "text", value, Weight::Silent));
    }
    part
}

fn turn<'a>(message: Message<'a>, place: Place, tools: &mut Vec<Tool<'a>>) -> Read<Turn<'a>> {
    let role = match message.role.as_deref() {
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        Some("system") => Role::System,
        _ => return Err(fault(place.inner("role"), "it is not `user`, `assistant` or `system`")),
    };
    let content = message.content.ok_or_else(|| fault(place.inner("content"), "it is required"))?;
    let mut parts = parts(content, place, DEPTH)?;
    if role == Role::System {
        parts.iter_mut().for_each(|part| change_tools(part, tools));
    }
    let extras = extras(OWN, message.rest, |_, _| Weight::Hint).collect();
    Ok(Turn { role, parts, extras, place })
}

/// A system turn may add tools and take them away: the list that others are told is the one after all changes.
fn change_tools<'a>(part: &mut Part<'a>, tools: &mut Vec<Tool<'a>>) {
    let Content::Extra(change) = &mut part.content else { return };
    let (is_addition, is_removal) = (change.name == "tool_addition", change.name == "tool_removal");
    if !is_addition && !is_removal {
        return;
    }
    #[derive(Deserialize)]
    struct Named {
        name: Option<String>,
        tool_name: Option<String>,
        tool: Option<Box<Named>>,
    }
    let named = change.value.read::<Named>().ok();
    let named = named.and_then(|named| named.tool.and_then(|tool| tool.name).or(named.tool_name).or(named.name));
    let known = named.filter(|name| tools.iter().any(|tool| tool.name == *name));
    change.weight = match known {
        // A tool whose loading was deferred is told from the beginning.
        Some(_) if is_addition => Weight::Silent,
        Some(name) => {
            tools.retain(|tool| tool.name != name);
            Weight::Silent
        }
        None => Weight::Meaning,
    };
}

fn parts<'a>(content: TextOr<'a, &'a RawValue>, place: Place, depth: u8) -> Read<Vec<Part<'a>>> {
    match content {
        TextOr::Text(text) => Ok(vec![Part::new(text, place.inner("content"))]),
        TextOr::List(blocks) => {
            let part = |(n, raw)| block(raw, place.part("content", n), depth);
            blocks.into_iter().enumerate().map(part).collect()
        }
    }
}

/// One content block, of a request or of a whole answer.
pub(super) fn block<'a>(raw: &'a RawValue, place: Place, depth: u8) -> Read<Part<'a>> {
    let block: Block<'_> = parse(raw, place)?;
    let Some(kind) = block.kind.as_deref() else { return Err(fault(place, "the block has no `type`")) };
    let depth = depth.checked_sub(1).ok_or_else(|| fault(place, "blocks lie too deep in each other"))?;
    let need = |field: &str| fault(place, format!("a `{kind}` block needs `{field}`"));
    let whole = |weight| Content::Extra(Extra::new(OWN, kind.to_owned(), raw, weight));
    let mut within = Vec::new();
    let mut source = |raw| source(raw, place, depth, &mut within);
    let cites =
        || block.citations.and_then(|raw| serde_json::from_str(raw.get()).ok()).is_some_and(|c: Enabled| c.enabled);
    let content = match kind {
        "text" => {
            let text = owned(block.text).ok_or_else(|| need("text"))?;
            let citations: Option<Vec<Json<'_>>> =
                block.citations.and_then(|citations| serde_json::from_str(citations.get()).ok());
            let citation = |value: Json<'a>| Extra::new(OWN, "citations", value, Weight::Hint);
            let citations = citations.unwrap_or_default().into_iter().map(citation).collect();
            Content::Text(Text { text, citations })
        }
        "image" => match source(block.source.ok_or_else(|| need("source"))?)? {
            None => whole(Weight::Meaning),
            Some(Source::Text(_) | Source::Parts(_)) => return Err(fault(place, "an image is not made of text")),
            Some(source) => Content::Image(Image { source, detail: None }),
        },
        "document" => match source(block.source.ok_or_else(|| need("source"))?)? {
            None => whole(Weight::Meaning),
            Some(source) => Content::Document(Document {
                source,
                title: owned(block.title),
                context: owned(block.context),
                citations: cites(),
            }),
        },
        // What a search of the client's found: a document in parts, told with where it is from.
        "search_result" => Content::Document(Document {
            source: Source::Parts(parts(block.content.ok_or_else(|| need("content"))?, place, depth)?),
            title: owned(block.title),
            context: block.source.and_then(|source| serde_json::from_str::<Str<'_>>(source.get()).ok()).map(|s| s.0),
            citations: cites(),
        }),
        "tool_use" => Content::Call(Call {
            id: owned(block.id).ok_or_else(|| need("id"))?,
            name: owned(block.name).ok_or_else(|| need("name"))?,
            input: Input::Json(block.input.map_or(Json::EMPTY, Json::from)),
        }),
        "tool_result" => Content::Result(ToolResult {
            id: owned(block.tool_use_id).ok_or_else(|| need("tool_use_id"))?,
            content: block.content.map_or(Ok(Vec::new()), |content| parts(content, place, depth))?,
            is_error: block.is_error.unwrap_or(false),
        }),
        "thinking" => Content::Thinking(Thinking {
            text: owned(block.thinking).unwrap_or_default(),
            opaque: block.signature.filter(|s| !s.is_empty()).and_then(|Str(text)| Opaque::open(OWN, text)),
            redacted: false,
        }),
        "redacted_thinking" => Content::Thinking(Thinking {
            text: Cow::Borrowed(""),
            opaque: Opaque::open(OWN, owned(block.data).ok_or_else(|| need("data"))?),
            redacted: true,
        }),
        // The tool is in the list already; what is found is told in words.
        "tool_reference" => {
            let name = block.tool_name.ok_or_else(|| need("tool_name"))?;
            Cow::<str>::Owned(format!("[the tool `{}` can be used]", &*name)).into()
        }
        // A summary of what was before: without it the rest makes no sense.
        "compaction" => match block.content {
            Some(TextOr::Text(text)) => text.into(),
            _ => whole(Weight::Meaning),
        },
        "container_upload" => whole(Weight::Meaning),
        _ => whole(Weight::Hint),
    };
    let extras = match &content {
        Content::Extra(_) => Vec::new(),
        _ => extras(OWN, block.rest, |name, _| match name {
            "caller" | "toolset_name" => Weight::Silent,
            _ => Weight::Hint,
        })
        .chain(within)
        .collect(),
    };
    Ok(Part { content, cache: block.cache_control.map(mark), extras, place })
}

fn mark(control: CacheControl<'_>) -> CacheMark {
    match control.ttl.as_deref() {
        Some("1h") => CacheMark::Hour1,
        Some("5m") => CacheMark::Minutes5,
        _ => CacheMark::Default,
    }
}

/// Where an image or a document lies; `None` for a way that is not known.
fn source<'a>(raw: &'a RawValue, place: Place, depth: u8, within: &mut Vec<Extra<'a>>) -> Read<Option<Source<'a>>> {
    let source: SourceObject<'_> = parse(raw, place)?;
    within.extend(below(OWN, "source", source.rest, Weight::Hint));
    let need = |field: &str| fault(place, format!("its `source` needs `{field}`"));
    Ok(Some(match source.kind.as_deref() {
        Some("base64") => {
            let named = owned(source.media_type).ok_or_else(|| need("media_type"))?;
            let data = owned(source.data).ok_or_else(|| need("data"))?;
            let media_type = media_type(named, &data);
            let media_type = media_type.ok_or_else(|| fault(place, "the `media_type` of its `source` is none"))?;
            Source::Base64 { media_type, data }
        }
        Some("url") => Source::Url(owned(source.url).ok_or_else(|| need("url"))?),
        Some("file") => Source::File(owned(source.file_id).ok_or_else(|| need("file_id"))?),
        Some("text") => Source::Text(owned(source.data).ok_or_else(|| need("data"))?),
        Some("content") => Source::Parts(parts(source.content.ok_or_else(|| need("content"))?, place, depth)?),
        _ => return Ok(None),
    }))
}

fn tool(raw: &RawValue, place: Place) -> Read<Tool<'_>> {
    let tool: Definition<'_> = parse(raw, place)?;
    let typed = tool.kind.filter(|kind| &**kind != "custom");
    let kind = match &typed {
        Some(kind) => ToolKind::Server {
            ability: kind.starts_with("web_search").then_some(Ability::WebSearch),
            definition: Extra::new(OWN, kind.0.clone(), raw, Weight::Hint),
        },
        None => ToolKind::Function { schema: tool.input_schema.map(Json::from), strict: tool.strict },
    };
    // A toolset has no name of its own.
    let name =
        owned(tool.name).or(typed.map(|Str(kind)| kind)).ok_or_else(|| fault(place, "the tool has no `name`"))?;
    let extras = match &kind {
        ToolKind::Server { .. } => Vec::new(),
        _ => extras(OWN, tool.rest, |name, _| match name {
            "defer_loading" | "input_examples" | "eager_input_streaming" | "allowed_callers" => Weight::Silent,
            _ => Weight::Hint,
        })
        .collect(),
    };
    let description = owned(tool.description);
    Ok(Tool { name, description, kind, cache: tool.cache_control.map(mark), extras, place })
}

fn tool_choice(choice: Choice<'_>) -> Read<ToolChoice<'_>> {
    Ok(match choice.kind.as_deref() {
        Some("auto") => ToolChoice::Auto,
        Some("any") => ToolChoice::Any,
        Some("none") => ToolChoice::None,
        Some("tool") => ToolChoice::Tool(owned(choice.name).ok_or_else(|| fault("tool_choice", "it needs `name`"))?),
        _ => return Err(fault("tool_choice.type", "it is not known")),
    })
}
