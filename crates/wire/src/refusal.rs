//! Reads what an upstream says went wrong, in whatever shape it says it.
//!
//! Providers of one protocol word their errors in many shapes, and proxies before them in their own; so this is one
//! tolerant reader for all, and the protocols only write errors.

use std::ops::Range;
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
    /// What frameworks say in place of an error: a text, or a list of faults.
    detail: Option<Json<'a>>,
    metadata: Option<Json<'a>>,
    /// What OpenRouter calls an error in every protocol, beside the word of the protocol.
    error_type: Option<Json<'a>>,
    /// The prompt and the context, of who says them beside its message.
    n_prompt_tokens: Option<Json<'a>>,
    n_ctx: Option<Json<'a>>,
}

#[derive(Deserialize)]
struct Details<'a> {
    #[serde(borrow)]
    error_code: Option<Str<'a>>,
}

#[derive(Deserialize)]
struct Fault<'a> {
    #[serde(borrow)]
    msg: Str<'a>,
}

/// What a provider that hands requests on says beside its error.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Metadata<'a> {
    /// What was said to it: an error as it came, mostly as a text.
    #[serde(borrow)]
    raw: Option<Json<'a>>,
    /// Why what was asked is not handed on.
    reasons: Option<Json<'a>>,
    /// What of it is the reason.
    flagged_input: Option<Json<'a>>,
    error_type: Option<Json<'a>>,
}

/// The error that an answer of this status holds.
pub fn read(status: u16, body: &[u8]) -> ApiError {
    object(status, &String::from_utf8_lossy(body)).unwrap_or_else(|| {
        let message = format!("the upstream answered {status} without saying why in a form that can be read");
        ApiError::new(ErrorKind::of_status(status), message)
    })
}

/// The error within an answer that began well: the object itself, or one that has it as `error`.
pub fn within(json: &str) -> ApiError {
    let unreadable = || ApiError::new(ErrorKind::Internal, "the upstream failed and did not say why");
    object(0, json).unwrap_or_else(unreadable)
}

/// The kind of error that a provider calls by this word; what nobody knows is a failure of its own.
pub fn of_word(word: &str) -> ErrorKind {
    by_word(word).unwrap_or(ErrorKind::Internal)
}

/// The error in an event that says nothing else of itself; `None`: it is something else.
pub(crate) fn unnamed(json: &str) -> Option<ApiError> {
    let shape: Shape<'_> = serde_json::from_str(json).ok()?;
    shape.error.as_ref()?;
    Some(within(json))
}

fn object(status: u16, text: &str) -> Option<ApiError> {
    // Google wraps it in a list.
    let list: Option<Vec<Json<'_>>> = serde_json::from_str(text).ok();
    let text = list.as_ref().map_or(Some(text), |list| Some(list.first()?.as_str()))?;
    let outer: Shape<'_> = serde_json::from_str(text).ok()?;
    let inner: Option<Shape<'_>> = outer.error.as_ref().and_then(|error| error.read().ok());
    let shape = inner.as_ref().unwrap_or(&outer);
    let message = string(&shape.message).or_else(|| string(&outer.error)).or_else(|| faults(&outer.detail))?;
    let number = shape.code.as_ref().and_then(|code| code.read::<u16>().ok());
    let status = if status == 0 { number.unwrap_or(0) } else { status };
    let metadata: Option<Metadata<'_>> = shape.metadata.as_ref().and_then(|metadata| metadata.read().ok());
    let metadata = metadata.unwrap_or_default();
    let mut message = match metadata.raw.as_ref().map(|raw| raw.read().unwrap_or_else(|_| raw.as_str().to_owned())) {
        // Whoever is behind it knows better. Quotes within quotes double, so that this cannot go deep.
        Some(raw) => match object(status, &raw) {
            Some(error) => return Some(error),
            None => format!("{message}: {raw}"),
        },
        None => message,
    };
    let detail =
        shape.details.as_ref().and_then(|d| d.read::<Details<'_>>().ok()?.error_code.map(|c| c.0.into_owned()));
    // The most telling first.
    let error_type = [&metadata.error_type, &shape.error_type, &outer.error_type].into_iter().find_map(string);
    let words = [detail, string(&shape.code), string(&shape.kind), string(&shape.status), error_type];
    let words: Vec<String> = words.into_iter().flatten().collect();
    if let Some(flagged) = flagged(status, &words, &message, &metadata) {
        message.push_str(&flagged);
        let code = Some(CONTENT_FILTER.into());
        return Some(ApiError { code, ..ApiError::new(ErrorKind::InvalidRequest, clean(&message)) });
    }
    let mut error = match kind(status, &words, &message) {
        ErrorKind::PromptTooLong => too_long(&message, number_of(&shape.n_prompt_tokens), number_of(&shape.n_ctx)),
        kind => ApiError::new(kind, clean(&message)),
    };
    error.code = error.code.or_else(|| words.first().map(|word| bounded(word, WORD).into()));
    error.param = string(&shape.param).map(|param| bounded(&param, WORD).into());
    error.retry_after = wait(&message);
    Some(error)
}

/// The code by which clients know that it is the content that is refused.
const CONTENT_FILTER: &str = "content_filter";

/// What is to be added to the message of an error that forbids what the request says, and not who sends it; `None`: it
/// is another error. Some say both with one status.
fn flagged(status: u16, words: &[String], message: &str, metadata: &Metadata<'_>) -> Option<String> {
    if status != 403 {
        return None;
    }
    let reasons: Vec<String> = metadata.reasons.as_ref().and_then(|reasons| reasons.read().ok()).unwrap_or_default();
    // OpenRouter in its metadata and by `error_type`, Azure by its code, and xAI in its message alone.
    let is_content = !reasons.is_empty()
        || metadata.flagged_input.is_some()
        || words.iter().any(|word| matches!(&**word, CONTENT_FILTER | "content_policy_violation" | "refusal"))
        || message.contains("violates usage guidelines");
    let unsaid = reasons.iter().any(|reason| !message.contains(&**reason));
    is_content.then(|| if unsaid { format!(" (flagged for: {})", reasons.join(", ")) } else { String::new() })
}

fn string(json: &Option<Json<'_>>) -> Option<String> {
    json.as_ref()?.read().ok()
}

fn number_of(json: &Option<Json<'_>>) -> Option<u64> {
    json.as_ref()?.read().ok()
}

/// A text, or the first of a list of faults.
fn faults(detail: &Option<Json<'_>>) -> Option<String> {
    let first = || Some(detail.as_ref()?.read::<Vec<Fault<'_>>>().ok()?.into_iter().next()?.msg.0.into_owned());
    string(detail).or_else(first)
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
        // Anthropic calls it a bad request.
        _ if matches!(status, 0 | 400) && lower.contains(NO_CREDIT) => return ErrorKind::Billing,
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
    "prompt_too_long",
    "maximum prompt length",
    "prompt exceeds max length",
    "context window",
    "context length",
    "context size",
    "context limit",
    "maximum model length",
    "model token limit",
    "maximum number of tokens allowed",
    "input is too long",
    "input token length too long",
];

/// What Anthropic says of an account without money.
const NO_CREDIT: &str = "credit balance is too low";

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

/// The wording that clients act upon: with the prompt's length and the limit, where they are said.
fn too_long(message: &str, prompt: Option<u64>, context: Option<u64>) -> ApiError {
    const PREFIX: &str = "prompt is too long";
    let of = |prompt: u64, most: u64| {
        ApiError::new(ErrorKind::PromptTooLong, format!("{PREFIX}: {prompt} tokens > {most} maximum"))
    };
    let lower = message.to_ascii_lowercase();
    if let (Some(prompt), Some(context)) = (prompt, context) {
        return of(prompt, context);
    }
    if lower.starts_with(PREFIX) {
        return ApiError::new(ErrorKind::PromptTooLong, clean(message));
    }
    match Asked::read(&lower) {
        Some(asked) if asked.prompt < asked.most => return asked.too_much(),
        Some(asked) => return of(asked.prompt, asked.most),
        None => {}
    }
    let numbers: Vec<u64> = numbers(&lower).map(|(_, n)| n).filter(|n| *n >= 256).take(2).collect();
    match numbers[..] {
        [a, b] if a != b => of(a.max(b), a.min(b)),
        _ => ApiError::new(ErrorKind::PromptTooLong, clean(&format!("{PREFIX}: {message}"))),
    }
}

/// What a request asked for that does not fit into the context together.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    prompt: u64,
    output: u64,
    most: u64,
}

impl Asked {
    /// Out of a message in small letters, where it tells all three.
    fn read(message: &str) -> Option<Self> {
        let after = |phrase: &str| {
            let end = message.find(phrase)? + phrase.len();
            let near = |(at, n): (Range<usize>, u64)| Some((at.start.checked_sub(end)?, n));
            numbers(message).find_map(near).filter(|(gap, _)| *gap <= " about ".len()).map(|(_, n)| n)
        };
        let before = |phrase: &str| {
            let start = message.find(phrase)?;
            numbers(message).find(|(at, _)| at.end == start).map(|(_, n)| n)
        };
        if let Some(prompt) = after("exceed context limit:") {
            return Some(Self { prompt, output: before(" >")?, most: after(" > ")? });
        }
        let most = after("context length is").or_else(|| after("context length of"))?;
        let output = [" in the completion", " in the output", " output tokens"].into_iter().find_map(before);
        let output = output.or_else(|| after("is too large:"))?;
        let prompt = before(" input tokens").or_else(|| after("you requested")?.checked_sub(output))?;
        Some(Self { prompt, output, most })
    }

    /// The prompt fits, and what may be answered does not fit beside it: to ask for less is enough. In the words by which
    /// Claude Code does that.
    fn too_much(&self) -> ApiError {
        let Self { prompt, output, most } = self;
        let message = format!("input length and `max_tokens` exceed context limit: {prompt} + {output} > {most}");
        let code = Some("context_length_exceeded".into());
        ApiError { code, ..ApiError::new(ErrorKind::InvalidRequest, message) }
    }
}

/// The numbers in a text, and where they stand. Commas may part thousands; what belongs to a name is none.
fn numbers(text: &str) -> impl Iterator<Item = (Range<usize>, u64)> {
    let of_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ',');
    let words = text.split_inclusive(move |c: char| !of_word(c)).scan(0, |end, word| {
        let start = *end;
        *end += word.len();
        Some((start, word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric())))
    });
    words.filter_map(|(start, word)| Some((start..start + word.len(), word.replace(',', "").parse().ok()?)))
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
        let credit = "Your credit balance is too low to access the Anthropic API.";
        let error = format!(r#"{{"type":"error","error":{{"type":"invalid_request_error","message":"{credit}"}}}}"#);
        check(400, &error, Billing, credit);
        check(404, &error, NotFound, credit);
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
    fn what_fits_into_the_context_but_for_its_answer_is_no_prompt_that_is_too_long() {
        for (message, want) in [
            (
                "This model's maximum context length is 8192 tokens. However, you requested 9300 tokens (7300 in the messages, 2000 in the completion).",
                "7300 + 2000 > 8192",
            ),
            (
                "This endpoint's maximum context length is 131,072 tokens. However, you requested about 140000 tokens (100000 of text input, 8000 of tool input, 32000 in the output).",
                "108000 + 32000 > 131072",
            ),
            (
                "'max_tokens' is too large: 32000. This model's maximum context length is 32768 tokens and your request has 2000 input tokens (32000 > 32768 - 2000).",
                "2000 + 32000 > 32768",
            ),
            (
                "This model's maximum context length is 4096 tokens. However, you requested 1000 output tokens and your prompt contains at least 3097 input tokens.",
                "3097 + 1000 > 4096",
            ),
            (
                "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000, decrease it",
                "190000 + 20000 > 200000",
            ),
        ] {
            let got = within(
                &serde_json::json!({ "error": { "message": message, "code": "context_length_exceeded" } }).to_string(),
            );
            assert_eq!(&*got.message, format!("input length and `max_tokens` exceed context limit: {want}"));
            assert_eq!((got.kind, got.code.as_deref()), (ErrorKind::InvalidRequest, Some("context_length_exceeded")));
        }
        let longer = "maximum context length is 8192 tokens. However, you requested 9300 tokens (9000 in the messages, 300 in the completion)";
        check(
            400,
            &format!(r#"{{"message":"{longer}"}}"#),
            ErrorKind::PromptTooLong,
            "prompt is too long: 9000 tokens > 8192 maximum",
        );
    }

    #[test]
    fn lengths_are_read_wherever_they_stand() {
        for (body, want) in [
            (
                r#"{"message":"Input tokens (300,123) exceed the context window of 272,000 tokens of gpt-5-2025-08-07"}"#,
                "300123 tokens > 272000 maximum",
            ),
            (
                r#"{"message":"gpt-4o-2024-08-06: the context length is 128000 tokens, got 130000."}"#,
                "130000 tokens > 128000 maximum",
            ),
            (
                r#"{"error":"maximum prompt length is 131072 but the request contains 140000 tokens."}"#,
                "140000 tokens > 131072 maximum",
            ),
            (
                r#"[{"error":{"message":"The input token count (1200000) exceeds the maximum number of tokens allowed (1048576)."}}]"#,
                "1200000 tokens > 1048576 maximum",
            ),
            (
                r#"{"error":{"message":"the request exceeds the available context size","type":"exceed_context_size_error","n_prompt_tokens":5000,"n_ctx":4096}}"#,
                "5000 tokens > 4096 maximum",
            ),
        ] {
            check(400, body, ErrorKind::PromptTooLong, &format!("prompt is too long: {want}"));
        }
    }

    #[test]
    fn what_was_said_to_a_provider_that_hands_on_is_what_counts() {
        let raw = |raw: &str| {
            serde_json::json!({ "error": { "message": "Provider returned error", "code": 400, "metadata": { "raw": raw } } }).to_string()
        };
        let long = r#"{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 9 tokens > 8 maximum"}}"#;
        check(400, &raw(long), ErrorKind::PromptTooLong, "prompt is too long: 9 tokens > 8 maximum");
        check(429, &raw("slow down"), ErrorKind::RateLimit, "Provider returned error: slow down");
        check(400, &raw("[]"), ErrorKind::InvalidRequest, "Provider returned error: []");
    }

    #[test]
    fn what_forbids_the_content_is_no_word_on_the_key() {
        use ErrorKind::{InvalidRequest, Permission};
        let told = |status, error: serde_json::Value| {
            let got = read(status, error.to_string().as_bytes());
            (got.kind, got.message.to_string(), got.code.map(String::from))
        };
        let flagged = |message: &str| {
            let metadata = serde_json::json!({
                "reasons": ["harassment", "violence"], "flagged_input": "you …", "provider_name": "OpenAI", "model_slug": "m",
            });
            serde_json::json!({ "error": { "code": 403, "message": message, "metadata": metadata } })
        };
        let code = Some("content_filter".to_owned());
        let named = "m requires moderation. Your input was flagged for \"harassment, violence\".";
        assert_eq!(told(403, flagged(named)), (InvalidRequest, named.into(), code.clone()));
        let full = "Forbidden (flagged for: harassment, violence)".to_owned();
        assert_eq!(told(403, flagged("Forbidden")), (InvalidRequest, full.clone(), code.clone()));
        assert_eq!(told(0, flagged("Forbidden")), (InvalidRequest, full, code.clone()), "within a stream");
        for error in [
            serde_json::json!({ "error": { "message": "m", "code": "content_policy_violation" } }),
            serde_json::json!({ "error": { "message": "m", "code": 403, "metadata": { "error_type": "refusal" } } }),
            serde_json::json!({ "error": { "message": "m", "type": "permission_error" }, "error_type": "content_policy_violation" }),
            serde_json::json!({ "error": { "message": "m", "code": "content_filter" } }),
        ] {
            assert_eq!(told(403, error.clone()).0, InvalidRequest, "{error}");
        }
        let grok = serde_json::json!({
            "code": "The caller does not have permission to execute the specified operation",
            "error": "Content violates usage guidelines. Failed check: SAFETY_CHECK_TYPE_BIO",
        });
        assert_eq!((told(403, grok.clone()).0, told(403, grok).2), (InvalidRequest, code));
        for error in [
            serde_json::json!({ "error": { "message": "m", "code": 403 } }),
            serde_json::json!({ "error": { "message": "m", "code": 403, "metadata": { "provider_name": "OpenAI" } } }),
            serde_json::json!({ "error": { "message": "m", "code": "invalid_request_error" } }),
            serde_json::json!({ "error": { "message": "m", "code": 403, "metadata": { "reasons": [] } } }),
        ] {
            assert_eq!(told(403, error.clone()).0, Permission, "{error}");
        }
        assert_eq!(told(401, flagged("m")).0, ErrorKind::Authentication);
    }

    #[test]
    fn what_the_provider_behind_said_is_read_where_it_is_no_text_too() {
        let behind = r#"{"error":{"message":"Provider returned error","code":400,"metadata":{"raw":{"error":{"message":"prompt is too long: 9 tokens > 8 maximum"}}}}}"#;
        check(400, behind, ErrorKind::PromptTooLong, "prompt is too long: 9 tokens > 8 maximum");
    }

    #[test]
    fn faults_of_a_schema_and_bytes_that_are_no_text_are_read() {
        check(422, r#"{"detail":[{"loc":["body","n"],"msg":"must be 1"}]}"#, ErrorKind::InvalidRequest, "must be 1");
        check(404, r#"{"detail":"Not Found"}"#, ErrorKind::NotFound, "Not Found");
        let got = read(400, b"{\"error\":{\"message\":\"a\xffb\"}}");
        assert_eq!(&*got.message, "a\u{fffd}b");
    }

    #[test]
    fn an_error_within_many_lists_does_no_harm() {
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        assert_eq!(read(502, deep.as_bytes()).kind, ErrorKind::BadGateway);
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
