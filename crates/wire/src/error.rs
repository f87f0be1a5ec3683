//! Why a request failed, apart from how a protocol words it.

use std::fmt;
use std::time::Duration;

/// The kinds of failure that every protocol can express, with the HTTP status each is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// 400: the request cannot be given one meaning, or not by us.
    InvalidRequest,
    /// 400: the prompt is longer than the model's context. Clients shorten it and try again.
    PromptTooLong,
    /// 401: no credential, or not one that is accepted.
    Authentication,
    /// 402: the account has no money left, or may not spend more. Waiting does not help.
    Billing,
    /// 403: understood, and not allowed.
    Permission,
    /// 404: no such path, model or object.
    NotFound,
    /// 405: the path exists, the method does not.
    MethodNotAllowed,
    /// 408: the request did not arrive in time.
    RequestTimeout,
    /// 409: something else happens to the same object.
    Conflict,
    /// 413: more bytes than are taken.
    TooLarge,
    /// 429: too many requests or tokens for now.
    RateLimit,
    /// 429 as well: what was bought is used up, and waiting does not help.
    Quota,
    /// 431: a head of more bytes or fields than are taken.
    HeadTooLarge,
    /// 500: the upstream failed.
    Internal,
    /// 502: the upstream could not be reached or did not speak HTTP.
    BadGateway,
    /// 503: there is no provider to send this to.
    Unavailable,
    /// 504: the upstream did not answer in time.
    UpstreamTimeout,
    /// 529: shed because we hold as much as we may.
    Overloaded,
}

impl ErrorKind {
    /// The HTTP status.
    pub fn status(self) -> u16 {
        match self {
            Self::InvalidRequest | Self::PromptTooLong => 400,
            Self::Authentication => 401,
            Self::Billing => 402,
            Self::Permission => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::RequestTimeout => 408,
            Self::Conflict => 409,
            Self::TooLarge => 413,
            Self::RateLimit | Self::Quota => 429,
            Self::HeadTooLarge => 431,
            Self::Internal => 500,
            Self::BadGateway => 502,
            Self::Unavailable => 503,
            Self::UpstreamTimeout => 504,
            Self::Overloaded => 529,
        }
    }

    /// The standard reason phrase of the status.
    pub fn reason(self) -> &'static str {
        match self {
            Self::InvalidRequest | Self::PromptTooLong => "Bad Request",
            Self::Authentication => "Unauthorized",
            Self::Billing => "Payment Required",
            Self::Permission => "Forbidden",
            Self::NotFound => "Not Found",
            Self::MethodNotAllowed => "Method Not Allowed",
            Self::RequestTimeout => "Request Timeout",
            Self::Conflict => "Conflict",
            Self::TooLarge => "Content Too Large",
            Self::RateLimit | Self::Quota => "Too Many Requests",
            Self::HeadTooLarge => "Request Header Fields Too Large",
            Self::Internal => "Internal Server Error",
            Self::BadGateway => "Bad Gateway",
            Self::Unavailable => "Service Unavailable",
            Self::UpstreamTimeout => "Gateway Timeout",
            Self::Overloaded => "Overloaded",
        }
    }
}

impl ErrorKind {
    /// The kind that a status alone stands for. Below 400 there is none: then the upstream failed.
    pub fn of_status(status: u16) -> Self {
        match status {
            401 => Self::Authentication,
            402 => Self::Billing,
            403 => Self::Permission,
            404 => Self::NotFound,
            405 => Self::MethodNotAllowed,
            408 => Self::RequestTimeout,
            409 => Self::Conflict,
            413 => Self::TooLarge,
            429 => Self::RateLimit,
            431 => Self::HeadTooLarge,
            400..=499 => Self::InvalidRequest,
            502 => Self::BadGateway,
            503 => Self::Unavailable,
            504 => Self::UpstreamTimeout,
            529 => Self::Overloaded,
            _ => Self::Internal,
        }
    }

    /// Whether the same request could succeed after a while, at the same upstream.
    pub fn is_passing(self) -> bool {
        use ErrorKind::*;
        matches!(
            self,
            Conflict | RequestTimeout | RateLimit | Internal | BadGateway | Unavailable | UpstreamTimeout | Overloaded
        )
    }
}

/// Bytes of a message.
const MESSAGE: usize = 2048;

/// What went wrong with a request, in words that a client may see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// The kind, which every protocol can express.
    pub kind: ErrorKind,
    /// The message.
    pub message: Box<str>,
    /// The provider's own word for it, where it has one: `insufficient_quota`.
    pub code: Option<Box<str>>,
    /// The field of the client's request that is at fault.
    pub param: Option<Box<str>>,
    /// How long to wait, where the provider says so.
    pub retry_after: Option<Duration>,
}

impl ApiError {
    /// An error of which only kind and message are known.
    pub fn new(kind: ErrorKind, message: impl Into<Box<str>>) -> Self {
        let mut message = message.into();
        // A message may quote what it complains about.
        if message.len() > MESSAGE {
            message = message[..message.floor_char_boundary(MESSAGE)].into();
        }
        Self { kind, message, code: None, param: None, retry_after: None }
    }

    /// The same, where the upstream spoke of our credential and not of the client's: a client that is told of a 401 would
    /// log out, or try again with its own key.
    pub fn of_our_credential(self) -> Self {
        match self.kind {
            ErrorKind::Authentication | ErrorKind::Permission => {
                Self::new(ErrorKind::BadGateway, "the upstream rejected the gateway's credential")
            }
            _ => self,
        }
    }

    /// The same, at a field of the client's request.
    pub fn at(mut self, param: impl fmt::Display) -> Self {
        self.param = Some(param.to_string().into());
        self
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ApiError {}
