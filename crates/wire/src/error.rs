//! Why a request failed, apart from how a protocol words it.

/// The kinds of failure that every protocol can express, with the HTTP status each is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// 400: the request cannot be given one meaning, or not by us.
    InvalidRequest,
    /// 401: no credential, or not one that is accepted.
    Authentication,
    /// 403: understood, and not allowed.
    Permission,
    /// 404: no such path, model or object.
    NotFound,
    /// 405: the path exists, the method does not.
    MethodNotAllowed,
    /// 408: the request did not arrive in time.
    RequestTimeout,
    /// 413: more bytes than are taken.
    TooLarge,
    /// 431: a head of more bytes or fields than are taken.
    HeadTooLarge,
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
            Self::InvalidRequest => 400,
            Self::Authentication => 401,
            Self::Permission => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::RequestTimeout => 408,
            Self::TooLarge => 413,
            Self::HeadTooLarge => 431,
            Self::BadGateway => 502,
            Self::Unavailable => 503,
            Self::UpstreamTimeout => 504,
            Self::Overloaded => 529,
        }
    }

    /// The standard reason phrase of the status.
    pub fn reason(self) -> &'static str {
        match self {
            Self::InvalidRequest => "Bad Request",
            Self::Authentication => "Unauthorized",
            Self::Permission => "Forbidden",
            Self::NotFound => "Not Found",
            Self::MethodNotAllowed => "Method Not Allowed",
            Self::RequestTimeout => "Request Timeout",
            Self::TooLarge => "Content Too Large",
            Self::HeadTooLarge => "Request Header Fields Too Large",
            Self::BadGateway => "Bad Gateway",
            Self::Unavailable => "Service Unavailable",
            Self::UpstreamTimeout => "Gateway Timeout",
            Self::Overloaded => "Overloaded",
        }
    }
}
