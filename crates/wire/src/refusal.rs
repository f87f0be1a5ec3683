//! Reads what an upstream says went wrong, in whatever shape it says it.
//!
//! Providers of one protocol word their errors in many shapes, and proxies before them in their own; so this is one
//! tolerant reader for all, and the protocols only write errors.

use std::time::Duration;

use serde::Deserialize;

use crate::error::{ApiError, ErrorKind};
use crate::json::{Json, Str};

/// Bytes that are looked at of a message.
const MESSAGE: usize = 4096;
/// Bytes that are kept of a code.
const WORD: usize = 128;

/// The members that any provider's error has, at the top level or in `error`.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Shape<'a> {
    #[serde(borrow)]
    error: Option<Json<'a>>,
    message: Option<Json<'a>>,
    #[serde(rename = "type")]
    kind: Option<Json<'a>>,
    code: Option<Json<'a>>,
    status: Option<Json<'a>>,
    param: Option<Json<'a>>,
    details: Option<Json<'a>>,
}

#[derive(Deserialize)]
struct Details<'a> {
    #[serde(borrow)]
    error_code: Option<Str<'a>>,
}

/// The error that an answer of this status holds.
pub fn read(status: u16, body: &[u8]) -> ApiError {
    let text = std::str::from_utf8(body).unwrap_or_default();
    object(status, text).unwrap_or_else(|| {
        let message = format!("the upstream answered {status} without saying why in a form that can be read");
        ApiError::new(ErrorKind::of_status(status), message)
    })
}

/// The error within an answer that began well: the object itself, or one that has it as `error`.
pub fn within(json: &str) -> ApiError {
    let unreadable = || ApiError::new(ErrorKind::Internal, "the upstream failed and did not say why");
    object(0, json).unwrap_or_else(unreadable)
}

fn object(status: u16, text: &str) -> Option<ApiError> {
    // Google wraps it in a list.
    if let Ok(list) = serde_json::from_str::<Vec<Json<'_>>>(text) {
        return object(status, list.first()?.as_str());
    }
    let outer: Shape<'_> = serde_json::from_str(text).ok()?;
    let inner: Option<Shape<'_>> = outer.error.as_ref().and_then(|error| error.read().ok());
    let shape = inner.as_ref().unwrap_or(&outer);
    let string = |json: &Option<Json<'_>>| json.as_ref()?.read::<String>().ok();
    let message = string(&shape.message).or_else(|| string(&outer.error))?;
    let number = shape.code.as_ref().and_then(|code| code.read::<u16>().ok());
    let status = if status == 0 { number.unwrap_or(0) } else { status };
    let detail =
        shape.details.as_ref().and_then(|d| d.read::<Details<'_>>().ok()?.error_code.map(|c| c.0.into_owned()));
    // The most telling first.
    let words = [detail, string(&shape.code), string(&shape.kind), string(&shape.status)];
    let words: Vec<String> = words.into_iter().flatten().collect();
    let kind = kind(status, &words, &message);
    let message = if kind == ErrorKind::PromptTooLong { too_long(&message) } else { message };
    let code = words.into_iter().next().map(|word| bounded(&word, WORD).into());
    let param = string(&shape.param).map(|param| bounded(&param, WORD).into());
    let retry_after = wait(&message);
    Some(ApiError { code, param, retry_after, ..ApiError::new(kind, clean(&message)) })
}

fn bounded(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

fn kind(status: u16, words: &[String], message: &str) -> ErrorKind {
    let said = words.iter().find_map(|word| by_word(word));
    let lower = message.to_ascii_lowercase();
    let is_request = matches!(status, 0 | 400 | 413 | 422 | 500);
    match said {
        Some(kind @ (ErrorKind::PromptTooLong | ErrorKind::Overloaded)) => return kind,
        Some(ErrorKind::Quota) if status != 402 => return ErrorKind::Quota,
        _ if is_request && TOO_LONG.iter().any(|words| lower.contains(words)) => return ErrorKind::PromptTooLong,
        _ => {}
    }
    match status {
        // A status inside a stream is the number that stands for the kind, if there is any.
        0..=399 => said.unwrap_or(ErrorKind::Internal),
        // Some say every error with one of these; the word is nearer to the truth.
        400 | 500 => match said {
            Some(kind) if kind != ErrorKind::InvalidRequest || status == 400 => kind,
            _ => ErrorKind::of_status(status),
        },
        _ => ErrorKind::of_status(status),
    }
}

/// What providers say of a prompt that is longer than the context.
const TOO_LONG: &[&str] = &[
    "prompt is too long",
    "prompt too long",
    "maximum context length",
    "context window",
    "context length",
    "context size",
    "input is too long",
    "prompt_too_long",
];

fn by_word(word: &str) -> Option<ErrorKind> {
    Some(match word {
        "context_length_exceeded" | "string_above_max_length" | "exceed_context_size_error" => ErrorKind::PromptTooLong,
        "overloaded_error" | "overloaded" | "server_is_overloaded" | "slow_down" => ErrorKind::Overloaded,
        "insufficient_quota"
        | "billing_hard_limit_reached"
        | "contract_spend_limit_reached"
        | "enforced_spend_limit_reached" => ErrorKind::Quota,
        "billing_error" => ErrorKind::Billing,
        "rate_limit_error" | "rate_limit_exceeded" | "RESOURCE_EXHAUSTED" | "throttlingException" => {
            ErrorKind::RateLimit
        }
        "authentication_error" | "invalid_api_key" => ErrorKind::Authentication,
        "permission_error" => ErrorKind::Permission,
        "not_found_error" | "model_not_found" | "DeploymentNotFound" => ErrorKind::NotFound,
        "request_too_large" => ErrorKind::TooLarge,
        "timeout_error" => ErrorKind::UpstreamTimeout,
        "invalid_request_error" | "content_filter" | "invalid_prompt" => ErrorKind::InvalidRequest,
        "api_error" | "server_error" | "internal_error" => ErrorKind::Internal,
        _ => return None,
    })
}

/// The wording that clients act upon: with the prompt's length and the limit, where the message says them.
fn too_long(message: &str) -> String {
    const PREFIX: &str = "prompt is too long";
    if message.to_ascii_lowercase().starts_with(PREFIX) {
        return message.to_owned();
    }
    let numbers = message.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse::<u64>().ok());
    let numbers: Vec<u64> = numbers.filter(|n| *n >= 256).take(2).collect();
    match numbers[..] {
        [a, b] if a != b => format!("{PREFIX}: {} tokens > {} maximum", a.max(b), a.min(b)),
        _ => format!("{PREFIX}: {message}"),
    }
}

/// The time in "try again in 1.8s".
fn wait(message: &str) -> Option<Duration> {
    let rest = message.split_once("try again in ")?.1;
    let digits = rest.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
    let number: f64 = rest[..digits].parse().ok()?;
    let unit = rest[digits..].trim_start();
    let seconds = match unit {
        _ if unit.starts_with("ms") => number / 1000.0,
        _ if unit.starts_with('m') => number * 60.0,
        _ if unit.starts_with('s') => number,
        _ => return None,
    };
    Duration::try_from_secs_f64(seconds).ok().filter(|wait| *wait < Duration::from_secs(86400))
}

/// The message without addresses, keys and accounts of the upstream: they are the operator's, not the client's.
fn clean(message: &str) -> String {
    let message = bounded(message, MESSAGE);
    const PRIVATE: &[&str] = &["://", "sk-", "org-", "org_", "proj_", "proj-", "user_", "arn:"];
    let mut clean = String::with_capacity(message.len());
    for word in message.split_inclusive(char::is_whitespace) {
        if PRIVATE.iter().any(|mark| word.contains(mark)) {
            clean.push('…');
            clean.push_str(&word[word.trim_end().len()..]);
        } else {
            clean.push_str(word);
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(status: u16, body: &str, kind: ErrorKind, message: &str) {
        let got = read(status, body.as_bytes());
        assert_eq!((got.kind, &*got.message), (kind, message), "{body}");
    }

    #[test]
    fn every_shape_of_an_error_is_read() {
        use ErrorKind::*;
        check(404, r#"{"error":"model 'llama9' not found"}"#, NotFound, "model 'llama9' not found");
        check(429, r#"{"message":"throttle"}"#, RateLimit, "throttle");
        check(429, r#"[{"error":{"code":429,"message":"used","status":"RESOURCE_EXHAUSTED"}}]"#, RateLimit, "used");
        check(401, r#"{"error":{"code":"401","message":"denied"}}"#, Authentication, "denied");
        check(402, r#"{"error":{"code":402,"message":"no credit","metadata":null}}"#, Billing, "no credit");
        check(402, r#"{"error":{"message":"m","type":"x","code":"invalid_request_error"}}"#, Billing, "m");
        check(429, r#"{"error":{"message":"m","code":"insufficient_quota"}}"#, Quota, "m");
        check(503, r#"{"error":{"message":"m","type":"overloaded_error"}}"#, Overloaded, "m");
        check(500, r#"{"error":{"message":"m","type":"rate_limit_error"}}"#, RateLimit, "m");
        let spend = r#"{"type":"error","error":{"type":"rate_limit_error","message":"m","details":{"error_code":"enforced_spend_limit_reached"}}}"#;
        check(429, spend, Quota, "m");
        for odd in ["<html>", "", "null", "[]", "{}", r#"{"error":{}}"#, r#"{"error":3}"#, "\u{0}"] {
            let got = read(502, odd.as_bytes());
            assert_eq!(got.kind, BadGateway, "{odd}");
            assert!(got.message.contains("502") && !got.message.contains('<'), "{odd}");
        }
    }

    #[test]
    fn a_prompt_that_is_too_long_is_said_in_the_words_that_clients_know() {
        let context = |message: &str| {
            let body = format!(r#"{{"error":{{"message":"{message}","type":"invalid_request_error"}}}}"#);
            read(400, body.as_bytes())
        };
        let got = context("maximum context length is 272000 tokens, got 300123 (fixture)");
        assert_eq!(got.kind, ErrorKind::PromptTooLong);
        assert_eq!(&*got.message, "prompt is too long: 300123 tokens > 272000 maximum");
        let own = "prompt is too long: 210000 tokens > 200000 maximum";
        assert_eq!(&*context(own).message, own);
        assert_eq!(
            &*context("the request exceeds the available context size").message,
            "prompt is too long: the request exceeds the available context size"
        );
        assert_eq!(context("no such field").kind, ErrorKind::InvalidRequest);
    }

    #[test]
    fn an_error_inside_a_stream_is_known_by_its_words() {
        let kind = |json: &str| within(json).kind;
        assert_eq!(kind(r#"{"error":{"message":"m","type":"server_error"}}"#), ErrorKind::Internal);
        assert_eq!(kind(r#"{"code":"rate_limit_exceeded","message":"m"}"#), ErrorKind::RateLimit);
        assert_eq!(kind(r#"{"error":{"message":"m","code":529}}"#), ErrorKind::Overloaded);
        assert_eq!(kind(r#"{"error":"out of memory"}"#), ErrorKind::Internal);
        assert_eq!(kind("x"), ErrorKind::Internal);
        let wait = |text: &str| within(&format!(r#"{{"code":"rate_limit_exceeded","message":"{text}"}}"#)).retry_after;
        assert_eq!(wait("Please try again in 1.8s."), Some(Duration::from_millis(1800)));
        assert_eq!(wait("Please try again in 20ms."), Some(Duration::from_millis(20)));
        assert_eq!(wait("try again in 6m0s"), Some(Duration::from_secs(360)));
        assert_eq!((wait("try again in a while"), wait("try again in 9999999999999999999s")), (None, None));
    }

    #[test]
    fn the_operators_keys_and_accounts_are_not_shown() {
        let body = r#"{"error":{"message":"key sk-abc123 of org-9 is wrong, see https://example.org/keys for more"}}"#;
        assert_eq!(&*read(400, body.as_bytes()).message, "key … of … is wrong, see … for more");
    }
}
