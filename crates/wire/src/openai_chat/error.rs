//! Errors in OpenAI's shape.

use crate::error::{ApiError, ErrorKind};
use crate::json;

/// The HTTP status by which OpenAI's clients know the kind.
pub(super) fn status(kind: ErrorKind) -> u16 {
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

/// The body of an error answer, and the data of the event that ends a stream.
pub(super) fn body(error: &ApiError, out: &mut Vec<u8>) {
    let (kind, code) = words(error);
    json::object(out, |o| {
        o.object("error", |o| {
            o.str("message", &error.message).str("type", kind);
            o.str_or_null("param", error.param.as_deref()).str_or_null("code", code);
        });
    });
}
