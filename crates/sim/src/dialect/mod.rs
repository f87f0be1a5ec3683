//! The protocols that the simulator speaks beside its own form of a prompt and of an answer, told apart by the path.

mod chat;
mod ollama;
mod responses;

use std::borrow::Cow;
use std::iter;

use serde_json::{Value, json};

use crate::answer::{Answer, Refusal};
use crate::http::Head;
use crate::prompt::Prompt;
use crate::reply::{Piece, Pieces, Reply, error_event, event, quoted};
use crate::script::Turn;

/// How a request is written, and its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Anthropic Messages, and everything else of that provider.
    #[default]
    Anthropic,
    /// OpenAI Chat Completions, and what else OpenAI has.
    Chat,
    /// OpenAI Responses.
    Responses,
    /// Ollama's own.
    Ollama,
}

/// The path as the provider itself has it: without what stands before it where several protocols share a host.
pub(crate) fn canonical(path: &str) -> Cow<'_, str> {
    if let Some(rest) = path.strip_prefix("/openai/deployments/")
        && let Some((_, rest)) = rest.split_once('/')
    {
        return Cow::Owned(format!("/v1/{rest}"));
    }
    let rest = ["/anthropic", "/openai", "/api"].iter().find_map(|prefix| path.strip_prefix(prefix));
    Cow::Borrowed(rest.filter(|rest| rest.starts_with("/v1/")).unwrap_or(path))
}

impl Dialect {
    /// Of a request's head; `path` is the canonical one.
    pub(crate) fn of(head: &Head, path: &str) -> Self {
        match path {
            "/v1/chat/completions" | "/v1/embeddings" => Self::Chat,
            "/v1/responses" => Self::Responses,
            _ if path.starts_with("/api/") && path != "/api/hello" => Self::Ollama,
            // Both have this list; who does not name Anthropic's version means the other.
            _ if path == "/v1/models" || path.starts_with("/v1/models/") => {
                let bearer = head.header("authorization").is_some() || head.header("api-key").is_some();
                if bearer && head.header("anthropic-version").is_none() { Self::Chat } else { Self::Anthropic }
            }
            _ => Self::Anthropic,
        }
    }

    /// The request in the form that [`Prompt`] reads, if it keeps the protocol's rules.
    pub(crate) fn prompt(self, body: &Value) -> Result<Cow<'_, Value>, Refusal> {
        match self {
            Self::Anthropic => Ok(Cow::Borrowed(body)),
            Self::Chat => chat::prompt(body).map(Cow::Owned),
            Self::Responses => responses::prompt(body).map(Cow::Owned),
            Self::Ollama => ollama::prompt(body).map(Cow::Owned),
        }
    }

    /// The whole answer.
    pub(crate) fn whole(self, reply: &Reply, prompt: &Prompt) -> String {
        match self {
            Self::Anthropic => reply.whole(),
            Self::Chat => chat::whole(reply, prompt),
            Self::Responses => responses::whole(reply, prompt),
            Self::Ollama => ollama::whole(reply),
        }
    }

    /// The streamed answer, one piece for each event.
    pub(crate) fn events(self, reply: &Reply, prompt: &Prompt, turn: &Turn) -> Pieces {
        let events = match self {
            Self::Anthropic => return reply.events(turn),
            Self::Chat => chat::events(reply, prompt, turn.size),
            Self::Responses => responses::events(reply, prompt, turn.size),
            Self::Ollama => ollama::events(reply, turn.size),
        };
        self.dress(events, turn)
    }

    /// The timing, the line ends and the signs of life that the turn asks for.
    pub(crate) fn dress(self, events: Pieces, turn: &Turn) -> Pieces {
        let alive: &'static str = match self {
            Self::Anthropic => "event: ping\ndata: {\"type\":\"ping\"}\n\n",
            Self::Chat | Self::Responses => ": keep-alive\n\n",
            Self::Ollama => "",
        };
        crate::reply::dress(events, turn, alive)
    }

    /// What a stream is sent as.
    pub(crate) fn stream(self, events: Pieces) -> Answer {
        let mut answer = Answer::stream(events);
        if self == Self::Ollama {
            answer.headers = vec![("Content-Type".to_owned(), "application/x-ndjson".to_owned())];
        }
        answer
    }

    /// An event that says within a stream that the provider failed; `kind` is a word of Anthropic's.
    pub(crate) fn error_event(self, kind: &str, message: &str, request_id: &str) -> Piece {
        let (code, text) = (responses::code(kind), quoted(message));
        match self {
            Self::Anthropic => error_event(kind, message, request_id),
            Self::Chat => Piece::now(format!("data: {}\n\n", chat::error(code, None, message))),
            Self::Responses => event(
                "response.failed",
                &format!(
                    r#""sequence_number":999999,"response":{{"id":"resp_sim","object":"response","status":"failed","output":[],"usage":null,"error":{{"code":"{code}","message":{text}}}}}"#
                ),
            ),
            Self::Ollama => Piece::now(format!("{{\"error\":{text}}}\n")),
        }
    }

    /// The body of an error answer, and its status.
    pub(crate) fn error(self, refusal: &Refusal, request_id: &str) -> (u16, String) {
        let Refusal { status, kind, message, .. } = refusal;
        match self {
            Self::Anthropic => {
                let (kind, message, id) = (quoted(kind), quoted(message), quoted(request_id));
                let body =
                    format!(r#"{{"type":"error","error":{{"type":{kind},"message":{message}}},"request_id":{id}}}"#);
                (*status, body)
            }
            Self::Chat | Self::Responses => {
                let (status, kind, code) = match *status {
                    401 => (401, "invalid_request_error", Some("invalid_api_key")),
                    402 => (429, "insufficient_quota", Some("insufficient_quota")),
                    404 => (404, "invalid_request_error", Some("model_not_found")),
                    429 => (429, "requests", Some("rate_limit_exceeded")),
                    status @ 500.. => (status.min(504), "server_error", None),
                    status => (status, "invalid_request_error", None),
                };
                (status, chat::error(kind, code, message))
            }
            Self::Ollama => ((*status).min(504), json!({"error": message}).to_string()),
        }
    }

    /// The headers of every answer.
    pub(crate) fn account(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Anthropic => ACCOUNT,
            Self::Chat | Self::Responses => OPENAI,
            Self::Ollama => &[],
        }
    }

    /// The name under which the answer's id goes out.
    pub(crate) fn id_header(self) -> &'static str {
        if matches!(self, Self::Chat | Self::Responses) { "x-request-id" } else { "request-id" }
    }
}

/// Headers of every answer under `/v1/`. They never change, so that answers can be compared.
const ACCOUNT: &[(&str, &str)] = &[
    ("anthropic-organization-id", "00000000-0000-4000-8000-00000051e000"),
    ("anthropic-ratelimit-requests-limit", "4000"),
    ("anthropic-ratelimit-requests-remaining", "3999"),
    ("anthropic-ratelimit-requests-reset", "2026-11-22T00:01:00Z"),
    ("anthropic-ratelimit-input-tokens-limit", "2000000"),
    ("anthropic-ratelimit-input-tokens-remaining", "1999000"),
    ("anthropic-ratelimit-input-tokens-reset", "2026-11-22T00:01:00Z"),
    ("anthropic-ratelimit-output-tokens-limit", "400000"),
    ("anthropic-ratelimit-output-tokens-remaining", "400000"),
    ("anthropic-ratelimit-output-tokens-reset", "2026-11-22T00:01:00Z"),
];

/// The same of OpenAI's two protocols.
const OPENAI: &[(&str, &str)] = &[
    ("openai-organization", "org-simulator"),
    ("openai-processing-ms", "1"),
    ("openai-version", "2020-10-01"),
    ("x-ratelimit-limit-requests", "4000"),
    ("x-ratelimit-remaining-requests", "3999"),
    ("x-ratelimit-reset-requests", "15ms"),
    ("x-ratelimit-limit-tokens", "2000000"),
    ("x-ratelimit-remaining-tokens", "1999000"),
    ("x-ratelimit-reset-tokens", "30ms"),
];

/// When everything was created: answers never change.
const CREATED: u64 = 1_795_305_600;

/// The fields that a protocol knows; any other is refused, as the provider refuses it.
fn known(body: &Value, fields: &[&str]) -> Result<(), Refusal> {
    let unknown = body.as_object().into_iter().flatten().find(|(name, _)| !fields.contains(&name.as_str()));
    match unknown {
        Some((name, _)) => Err(Refusal::invalid(format!("Unknown parameter: '{name}'."))),
        None => Ok(()),
    }
}

/// The texts of a content: a string, or parts of the given types.
fn texts(content: &Value, place: &str, types: &[&str]) -> Result<String, Refusal> {
    match content {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text.clone()),
        Value::Array(parts) if !parts.is_empty() => {
            let mut all = Vec::new();
            for (n, part) in parts.iter().enumerate() {
                let kind = part["type"].as_str().unwrap_or_default();
                if !types.contains(&kind) {
                    return Err(Refusal::invalid(format!("Invalid value: '{kind}' at '{place}[{n}].type'.")));
                }
                all.extend(part["text"].as_str());
            }
            Ok(all.join("\n"))
        }
        _ => Err(Refusal::invalid(format!("Invalid type for '{place}': expected a string or a list of parts."))),
    }
}

/// A name that a tool may have.
fn is_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    (1..=64).contains(&name.len()) && name.bytes().all(fits)
}

/// A conversation in the form of [`Prompt`], put together turn by turn.
#[derive(Default)]
struct Turns(Vec<Value>);

impl Turns {
    /// Adds a block to the last turn of that role, or begins one.
    fn push(&mut self, role: &str, block: Value) {
        match self.0.last_mut() {
            Some(last) if last["role"] == role => {
                if let Some(content) = last["content"].as_array_mut() {
                    content.push(block);
                }
            }
            _ => self.0.push(json!({"role": role, "content": [block]})),
        }
    }

    fn text(&mut self, role: &str, text: String) {
        self.push(role, json!({"type": "text", "text": text}));
    }

    /// The whole of it: others may begin with something else than a user's turn.
    fn into_prompt(mut self, body: &Value, stream: bool, tools: Option<Vec<Value>>) -> Value {
        if self.0.first().is_none_or(|turn| turn["role"] != "user") {
            self.0.insert(0, json!({"role": "user", "content": []}));
        }
        let usage_chunk = body["stream_options"]["include_usage"] == true;
        let mut prompt = json!({
            "model": body["model"], "max_tokens": 1, "stream": stream, "messages": self.0, "usage_chunk": usage_chunk,
        });
        if let Some(tools) = tools {
            prompt["tools"] = tools.into();
        }
        prompt
    }
}

fn once(piece: impl Into<bytes::Bytes>) -> impl Iterator<Item = Piece> + Send {
    iter::once(Piece::now(piece))
}
