//! Errors in Anthropic's shape: a JSON body, or an `error` event that ends a stream.

use std::borrow::Cow;

use serde_json::json;

use crate::error::{ApiError, ErrorKind};

/// The `error.type` that Anthropic's clients know for this kind.
pub fn kind_name(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::InvalidRequest
        | ErrorKind::PromptTooLong
        | ErrorKind::MethodNotAllowed
        | ErrorKind::HeadTooLarge => "invalid_request_error",
        ErrorKind::Authentication => "authentication_error",
        ErrorKind::Billing => "billing_error",
        ErrorKind::Permission => "permission_error",
        ErrorKind::NotFound => "not_found_error",
        ErrorKind::RequestTimeout | ErrorKind::UpstreamTimeout => "timeout_error",
        ErrorKind::TooLarge => "request_too_large",
        ErrorKind::Conflict => "conflict_error",
        ErrorKind::RateLimit | ErrorKind::Quota => "rate_limit_error",
        ErrorKind::Internal | ErrorKind::BadGateway | ErrorKind::Unavailable => "api_error",
        ErrorKind::Overloaded => "overloaded_error",
    }
}

/// The message of another provider's error, with the word by which Claude Code knows what to do about it, whatever the
/// provider says: it shortens a conversation that is too long.
pub(super) fn message(error: &ApiError) -> Cow<'_, str> {
    const TOO_LONG: &str = "capability_rejected: prompt_too_long";
    if error.kind != ErrorKind::PromptTooLong || error.message.contains(TOO_LONG) {
        return Cow::Borrowed(&error.message);
    }
    Cow::Owned(format!("{} ({TOO_LONG})", error.message))
}

/// The id of a request as clients know ids: it is what they show, and what they find in the head of the answer.
pub fn request_id(own: &str) -> Cow<'_, str> {
    const PREFIX: &str = "req_";
    if own.is_empty() || own.starts_with(PREFIX) {
        return Cow::Borrowed(own);
    }
    let mut id = String::from(PREFIX);
    id.extend(own.chars().filter(char::is_ascii_alphanumeric));
    Cow::Owned(id)
}

/// The body of an error answer.
pub fn body(kind: ErrorKind, message: &str, request_id: &str) -> Vec<u8> {
    let value = json!({
        "type": "error",
        "error": { "type": kind_name(kind), "message": message },
        "request_id": self::request_id(request_id),
    });
    value.to_string().into_bytes()
}

/// The event that ends a stream which cannot be finished.
pub fn event(kind: ErrorKind, message: &str, request_id: &str) -> Vec<u8> {
    let mut event = b"event: error\ndata: ".to_vec();
    event.extend_from_slice(&body(kind, message, request_id));
    event.extend_from_slice(b"\n\n");
    event
}

/// The event that keeps a silent stream alive.
pub const PING: &[u8] = b"event: ping\ndata: {\"type\": \"ping\"}\n\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_the_prefix_of_the_protocols_ids() {
        for (own, want) in [("019b-00ff", "req_019b00ff"), ("req_1", "req_1"), ("", "")] {
            let body: serde_json::Value = serde_json::from_slice(&body(ErrorKind::Internal, "m", own)).unwrap();
            assert_eq!(body["request_id"], want);
        }
    }

    #[test]
    fn an_error_event_is_one_well_formed_event() {
        let event = event(ErrorKind::BadGateway, "line\nbreak \"quoted\"", "id");
        let text = std::str::from_utf8(&event).unwrap();
        let data = text.strip_prefix("event: error\ndata: ").and_then(|t| t.strip_suffix("\n\n")).unwrap();
        assert!(!data.contains('\n'));
        let value: serde_json::Value = serde_json::from_str(data).unwrap();
        assert_eq!(value["error"]["message"], "line\nbreak \"quoted\"");
        assert_eq!(value["error"]["type"], "api_error");
    }
}
