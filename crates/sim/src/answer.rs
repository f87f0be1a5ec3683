//! An answer before it meets the wire, and the refusals in the provider's shape.

use bytes::Bytes;

use crate::dialect::Dialect;
use crate::reply::{Piece, Pieces};

/// Status, headers and body. The framing is decided when it is delivered.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Pieces,
    /// The length of a body that is known whole; `None` for a stream.
    pub(crate) length: Option<u64>,
}

impl Answer {
    pub(crate) fn whole(status: u16, content_type: &str, body: impl Into<Bytes>) -> Self {
        let body: Bytes = body.into();
        Self {
            status,
            headers: vec![("Content-Type".to_owned(), content_type.to_owned())],
            length: Some(body.len() as u64),
            body: Box::new(std::iter::once(Piece::now(body)).filter(|piece| !piece.bytes.is_empty())),
        }
    }

    pub(crate) fn json(body: impl Into<Bytes>) -> Self {
        Self::whole(200, "application/json", body)
    }

    pub(crate) fn stream(events: Pieces) -> Self {
        let headers = [("Content-Type", "text/event-stream; charset=utf-8"), ("Cache-Control", "no-cache")];
        Self {
            status: 200,
            headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
            body: events,
            length: None,
        }
    }

    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

/// An error that the provider would answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) kind: String,
    pub(crate) message: String,
    pub(crate) retry_after: Option<u64>,
}

impl Refusal {
    pub(crate) fn new(status: u16, message: impl Into<String>) -> Self {
        Self { status, kind: kind_of(status).to_owned(), message: message.into(), retry_after: None }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(400, message)
    }

    pub(crate) fn not_found() -> Self {
        Self::new(404, "Not found")
    }

    /// What the script orders.
    pub(crate) fn ordered(status: u16, retry_after: Option<u64>) -> Self {
        let message = match status {
            429 => "Number of requests has exceeded your rate limit (ordered by the simulator's script)",
            529 => "Overloaded",
            500 => "Internal server error",
            _ => "This error was ordered by the simulator's script",
        };
        Self { retry_after, ..Self::new(status, message) }
    }

    pub(crate) fn answer(&self, request_id: &str, dialect: Dialect) -> Answer {
        let (status, body) = dialect.error(self, request_id);
        let answer = Answer::whole(status, "application/json", body);
        match self.retry_after {
            Some(seconds) => answer.header("retry-after", seconds.to_string()),
            None => answer,
        }
    }
}

/// The error type that the provider gives to a status.
fn kind_of(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        408 | 504 => "timeout_error",
        409 => "conflict_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        529 => "overloaded_error",
        500.. => "api_error",
        _ => "invalid_request_error",
    }
}

/// The status that belongs to an error type, for answers that are no streams.
pub(crate) fn status_of(kind: &str) -> u16 {
    [400, 401, 402, 403, 404, 409, 413, 429, 529, 504]
        .into_iter()
        .find(|status| kind_of(*status) == kind)
        .unwrap_or(500)
}

/// The words of a status line.
pub(crate) fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        307 => "Temporary Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Payload Too Large",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        529 => "Site is overloaded",
        _ => "Scripted",
    }
}
