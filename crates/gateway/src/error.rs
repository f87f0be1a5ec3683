//! What we answer when we do not relay: one type, worded in the caller's protocol at the very end.

use std::borrow::Cow;

use wire::error::ApiError;
pub use wire::error::ErrorKind;

/// Whether repeating the same request can help, as we tell clients that retry by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Retry {
    /// Say nothing: the client's own rules hold.
    #[default]
    Unsaid,
    /// `x-should-retry: false`: nothing changes until a human does something.
    Never,
    /// `retry-after`, in seconds.
    After(u32),
}

/// An answer of our own: what is wrong and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The kind, which gives the HTTP status.
    pub kind: ErrorKind,
    /// A sentence for a person; never a key, never a prompt.
    pub message: Cow<'static, str>,
    /// Whether trying again makes sense.
    pub retry: Retry,
    /// Whether the connection ends with this answer because what follows on it cannot be trusted.
    pub close: bool,
    /// The methods that a 405 names as allowed.
    pub allow: Option<&'static str>,
    /// The field of the request that is at fault, where it is one.
    pub param: Option<Box<str>>,
    /// A word for programs, where there is one.
    pub code: Option<Box<str>>,
}

impl Refusal {
    /// A refusal that says nothing about retries and keeps the connection.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, message: message.into(), retry: Retry::Unsaid, close: false, allow: None, param: None, code: None }
    }

    /// What everybody is told who still waits when the process ends.
    pub fn shutting_down() -> Self {
        Self::new(ErrorKind::Unavailable, "the gateway is shutting down: try again").retry(Retry::After(1)).close()
    }

    /// With advice on retrying.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// What a translation says to the client.
    pub fn of(error: &ApiError) -> Self {
        let (param, code) = (error.param.clone(), error.code.clone());
        Self { param, code, ..Self::new(error.kind, String::from(&*error.message)) }
    }

    /// With the methods that are allowed instead.
    pub fn allow(mut self, methods: &'static str) -> Self {
        self.allow = Some(methods);
        self
    }

    /// With the connection ended.
    pub fn close(mut self) -> Self {
        self.close = true;
        self
    }
}
