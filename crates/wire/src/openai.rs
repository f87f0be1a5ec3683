//! What OpenAI's two protocols share: errors, files in `data:` URLs, arguments of functions, service tiers.

use std::borrow::Cow;

use crate::error::{ApiError, ErrorKind};
use crate::json;
use crate::request::{Input, Source};
use crate::usage::{ServiceTier, Tokens, Usage};

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
        ErrorKind::NotFound => (REQUEST, Some("model_not_found")),
        ErrorKind::Billing | ErrorKind::Quota => ("insufficient_quota", Some("insufficient_quota")),
        ErrorKind::RateLimit => ("rate_limit_exceeded", Some("rate_limit_exceeded")),
        ErrorKind::InvalidRequest => (REQUEST, error.code.as_deref()),
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

/// The bytes in a `data:` URL. A media type that is missing or says nothing is seen by how images begin.
pub(crate) fn inline(url: Cow<'_, str>) -> Option<Source<'_>> {
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
    const BEGINNINGS: [(&str, &str); 5] = [
        ("iVBORw0KGgo", "image/png"),
        ("/9j/", "image/jpeg"),
        ("R0lGOD", "image/gif"),
        ("UklGR", "image/webp"),
        ("JVBERi", "application/pdf"),
    ];
    let media_type = match named {
        "" | "application/octet-stream" => {
            BEGINNINGS.iter().find(|(beginning, _)| data.starts_with(beginning))?.1.to_owned()
        }
        "image/jpg" => "image/jpeg".to_owned(),
        named => named.to_owned(),
    };
    Some(Source::Base64 { media_type: media_type.into(), data })
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

/// Counts that nobody gave: an estimate, never zero.
pub(crate) fn estimate(input: u64, bytes: u64) -> Usage {
    let tokens = Tokens { input: input.max(1), output: bytes.div_ceil(4).max(1), ..Tokens::default() };
    Usage { tokens, ..Usage::default() }
}
