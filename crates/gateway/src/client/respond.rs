//! Answers of our own, in the caller's protocol.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use http1::write;
use wire::error::ApiError;
use wire::protocol::Protocol;

use crate::error::{ErrorKind, Refusal, Retry};
use crate::headers::{self, REQUEST_ID};
use crate::translation;

/// An answer that is whole in memory.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Its reason phrase.
    pub reason: &'static str,
    /// `content-type`.
    pub content_type: &'static str,
    /// Further fields.
    pub fields: Vec<(&'static str, String)>,
    /// The body.
    pub body: Bytes,
}

/// What every error of ours ends with: where there is more about it.
const DETAILS: &str = "; details: cco logs show ";
/// Digits of an id that a person copies.
const SHORT: usize = 8;

/// The message with the command that tells more; as it is where there is no id.
pub fn with_details<'a>(message: &'a str, request_id: &str) -> Cow<'a, str> {
    match request_id.len().checked_sub(SHORT).and_then(|at| request_id.get(at..)) {
        Some(short) => format!("{message}{DETAILS}{short}").into(),
        None => message.into(),
    }
}

/// The message of an error of ours without the command.
pub fn without_details(message: &str) -> &str {
    message.split_once(DETAILS).map_or(message, |(message, _)| message)
}

impl Answer {
    /// 200 with JSON.
    pub fn json(value: &serde_json::Value) -> Self {
        let body = Bytes::from(value.to_string());
        Self { status: 200, reason: "OK", content_type: "application/json", fields: Vec::new(), body }
    }

    /// 200 with text.
    pub fn text(body: impl Into<Bytes>) -> Self {
        Self {
            status: 200,
            reason: "OK",
            content_type: "text/plain; charset=utf-8",
            fields: Vec::new(),
            body: body.into(),
        }
    }

    /// A refusal in the caller's protocol.
    pub fn refusal(refusal: &Refusal, protocol: Protocol, request_id: &str) -> Self {
        let mut fields = Vec::new();
        match refusal.retry {
            Retry::Unsaid => {}
            Retry::Never => fields.push(("x-should-retry", "false".into())),
            Retry::After(seconds) => fields.push(("retry-after", seconds.to_string())),
        }
        if let Some(methods) = refusal.allow {
            fields.push(("allow", methods.into()));
        }
        if !request_id.is_empty() {
            fields.push(translation::own_id(protocol, request_id));
        }
        let message = with_details(&refusal.message, request_id);
        let mut error = ApiError::new(refusal.kind, message);
        (error.param, error.code) = (refusal.param.clone(), refusal.code.clone());
        let (status, _, body) = translation::error(protocol, &error, request_id);
        let reason = ErrorKind::of_status(status).reason();
        let reason = if status == refusal.kind.status() { refusal.kind.reason() } else { reason };
        Self { status, reason, content_type: "application/json", fields, body: body.into() }
    }

    /// Head and body as bytes.
    pub fn encode(&self, request_id: &str, keep_alive: bool, to_head: bool) -> [Bytes; 2] {
        let mut head = BytesMut::with_capacity(256);
        write::status_line(&mut head, self.status, self.reason.as_bytes());
        write::field(&mut head, b"content-type", self.content_type.as_bytes());
        for (name, value) in &self.fields {
            write::field(&mut head, name.as_bytes(), value.as_bytes());
        }
        write::field(&mut head, REQUEST_ID.as_bytes(), request_id.as_bytes());
        if !keep_alive {
            write::field(&mut head, b"connection", b"close");
        }
        write::content_length(&mut head, self.body.len() as u64);
        headers::end(&mut head);
        [head.freeze(), if to_head { Bytes::new() } else { self.body.clone() }]
    }
}
