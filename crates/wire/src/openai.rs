//! What OpenAI's two protocols share: errors, files in `data:` URLs, arguments of functions, words for tool choice, effort
//! and form of an answer, service tiers.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::error::{ApiError, ErrorKind};
use crate::json::{self, Json, Str, Writer, record};
use crate::loss::Place;
use crate::quirks::{Quirks, UserField};
use crate::reading::{Read, fault, media_type, owned};
use crate::request::{Effort, Format, Input, Reasoning, Source, Thought, ToolChoice};
use crate::usage::ServiceTier;

/// What is said of a custom tool with another format.
pub(crate) const NO_FORMAT: &str = "the `format` of a custom tool is a `text`, or a `grammar` with a `definition`";

/// The HTTP status by which OpenAI's clients know the kind.
pub(crate) fn status(kind: ErrorKind) -> u16 {
    match kind {
        ErrorKind::Billing => 429,
        ErrorKind::Overloaded => 503,
        other => other.status(),
    }
}

/// The words for `type` and `code`.
fn words(error: &ApiError) -> (&'static str, Option<&str>) {
    const REQUEST: &str = "invalid_request_error";
    match error.kind {
        ErrorKind::PromptTooLong => (REQUEST, Some("context_length_exceeded")),
        ErrorKind::Authentication => (REQUEST, Some("invalid_api_key")),
        ErrorKind::Permission => (REQUEST, Some("permission_denied")),
        // Not every 404 is about a model.
        ErrorKind::NotFound if error.code.as_deref() == Some("unknown_url") => (REQUEST, error.code.as_deref()),
        ErrorKind::NotFound => (REQUEST, Some("model_not_found")),
        ErrorKind::Billing | ErrorKind::Quota => ("insufficient_quota", Some("insufficient_quota")),
        ErrorKind::RateLimit => ("rate_limit_exceeded", Some("rate_limit_exceeded")),
        // The type is no code.
        ErrorKind::InvalidRequest => (REQUEST, error.code.as_deref().filter(|code| *code != REQUEST)),
        ErrorKind::MethodNotAllowed
        | ErrorKind::RequestTimeout
        | ErrorKind::Conflict
        | ErrorKind::TooLarge
        | ErrorKind::HeadTooLarge => (REQUEST, None),
        ErrorKind::Internal | ErrorKind::BadGateway | ErrorKind::Unavailable | ErrorKind::UpstreamTimeout => {
            ("server_error", None)
        }
        ErrorKind::Overloaded => ("server_error", Some("overloaded")),
    }
}

/// The body of an error answer, and the data of the event that ends a stream of Chat Completions.
pub(crate) fn error(error: &ApiError, out: &mut Vec<u8>) {
    let (kind, code) = words(error);
    json::object(out, |o| {
        o.object("error", |o| {
            o.str("message", &error.message).str("type", kind);
            o.str_or_null("param", error.param.as_deref()).str_or_null("code", code);
        });
    });
}

/// The bytes in a `data:` URL.
fn inline(url: Cow<'_, str>) -> Option<Source<'_>> {
    let (head, data) = match url {
        Cow::Borrowed(url) => {
            let (head, data) = url.strip_prefix("data:")?.split_once(',')?;
            (Cow::Borrowed(head), Cow::Borrowed(data))
        }
        Cow::Owned(url) => {
            let (head, data) = url.strip_prefix("data:")?.split_once(',')?;
            (Cow::Owned(head.to_owned()), Cow::Owned(data.to_owned()))
        }
    };
    let named = head.strip_suffix(";base64")?.split(';').next().unwrap_or_default();
    let media_type = media_type(named.to_owned().into(), &data)?;
    Some(Source::Base64 { media_type, data })
}

/// Writes a `data:` URL as a JSON string.
pub(crate) fn data_url(out: &mut Vec<u8>, media_type: &str, data: &str) {
    out.extend_from_slice(b"\"data:");
    json::escape(out, media_type);
    out.extend_from_slice(b";base64,");
    json::escape(out, data);
    out.push(b'"');
}

/// The arguments of a function: the object as it was written, or plain text as the one string of an object.
pub(crate) fn arguments<'i>(input: &'i Input<'_>) -> Cow<'i, str> {
    match input {
        Input::Json(json) => Cow::Borrowed(json.as_str()),
        Input::Cut(text) => Cow::Borrowed(text),
        Input::Text(text) => {
            let mut out = Vec::new();
            json::object(&mut out, |o| {
                o.str("input", text);
            });
            String::from_utf8(out).expect("it is written from text").into()
        }
    }
}

/// The tier that served, in the words of the rest of the house.
pub(crate) fn tier(word: &str) -> ServiceTier {
    match word {
        "default" | "auto" => ServiceTier::Standard,
        other => other.into(),
    }
}

/// The tier in OpenAI's words.
pub(crate) fn tier_word(tier: &ServiceTier) -> &str {
    if *tier == ServiceTier::Standard { "default" } else { tier.as_str() }
}

record! {
    /// The form of an answer, where it is JSON of a schema.
    Schema<'a> {
        kind: Str<'a> = "type",
        name: Str<'a> = "name",
        description: Str<'a> = "description",
        schema: &'a RawValue = "schema",
        strict: bool = "strict",
    }
}

/// The form of an answer that a client asks for at `path` by the word `kind`, and, for one of a schema, by `schema`.
pub(crate) fn format<'a>(
    kind: Option<&str>,
    schema: impl FnOnce() -> Option<Schema<'a>>,
    path: &'static str,
) -> Read<Format<'a>> {
    match kind {
        Some("text") => Ok(Format::Text),
        Some("json_object") => Ok(Format::JsonObject),
        Some("json_schema") => {
            let Schema { name, description, schema, strict, .. } = schema().unwrap_or_default();
            let schema = schema.ok_or_else(|| fault(path, "it needs a `schema`"))?.into();
            Ok(Format::JsonSchema { name: owned(name), description: owned(description), schema, strict })
        }
        _ => Err(fault(format_args!("{path}.type"), "it is not known")),
    }
}

/// How hard to think, by the word at `path`; one word stands for not at all.
pub(crate) fn effort(word: Option<Str<'_>>, path: &'static str, reasoning: &mut Reasoning) -> Read<()> {
    match word.as_deref() {
        None => {}
        Some("none") => reasoning.mode = Some(Thought::Off),
        Some(word) => {
            reasoning.effort = Some(Effort::from_word(word).ok_or_else(|| fault(path, "it is not known"))?);
        }
    }
    Ok(())
}

/// The choice of tools, where a word says it; `None` where an object does.
pub(crate) fn choice_of_word(raw: &RawValue) -> Option<Read<ToolChoice<'static>>> {
    let word: Str<'_> = serde_json::from_str(raw.get()).ok()?;
    Some(match &*word {
        "auto" => Ok(ToolChoice::Auto),
        "none" => Ok(ToolChoice::None),
        "required" => Ok(ToolChoice::Any),
        _ => Err(fault("tool_choice", "it is not known")),
    })
}

/// The choice of tools as a word; `None` for one that names a tool.
pub(crate) fn word_of_choice(choice: &ToolChoice<'_>) -> Option<&'static str> {
    match choice {
        ToolChoice::Auto | ToolChoice::Among { .. } => Some("auto"),
        ToolChoice::Any => Some("required"),
        ToolChoice::None => Some("none"),
        ToolChoice::Tool(_) => None,
    }
}

/// Where an image is that a client names by a URL.
pub(crate) fn image(url: Cow<'_, str>, place: Place) -> Read<Source<'_>> {
    if !url.starts_with("data:") {
        return Ok(Source::Url(url));
    }
    inline(url).ok_or_else(|| fault(place, "the image is no base64 `data:` URL"))
}

/// The bytes of a file that a client sends.
pub(crate) fn file(data: Cow<'_, str>, place: Place) -> Read<Source<'_>> {
    inline(data).ok_or_else(|| fault(place, "the file is no base64 `data:` URL"))
}

/// Arguments of a function as they are read. What is no JSON is [cut](Input::Cut); some models say `null` for none.
pub(crate) fn input(arguments: Cow<'_, str>) -> Input<'_> {
    if matches!(arguments.trim_ascii(), "" | "null") {
        return Input::Json(Json::EMPTY);
    }
    Json::read_from(arguments).map_or_else(Input::Cut, Input::Json)
}

/// Who asks, and under which key the provider looks for a cached prefix.
pub(crate) fn asker(o: &mut Writer<'_>, quirks: &Quirks, user: Option<&str>, cache_key: Option<&str>) {
    match quirks.user {
        UserField::None => {}
        UserField::SafetyIdentifier => {
            o.str_if("safety_identifier", user);
        }
        UserField::User => {
            o.str_if("user", user);
        }
    }
    if quirks.cache_key {
        o.str_if("prompt_cache_key", cache_key);
    }
}
