//! Is a key accepted? One small request that costs nothing: the list of models.

use std::fmt;
use std::time::Duration;

use bytes::BytesMut;
use http1::write;
use tokio::time::{Instant, timeout_at};

use super::way::join;
use crate::catalog::ProviderKind;
use crate::headers;
use crate::net::{Dial, DialError};
use crate::origin::BaseUrl;
use crate::secret::Secret;
use crate::upstream::{Connection, Flight, SendError, Sender};

/// The most of an answer that is read for what it says.
const ANSWER: usize = 64 * 1024;

/// Where a key is tried.
#[derive(Debug, Clone, Copy)]
pub struct Probe<'a> {
    /// What the provider is.
    pub kind: &'static ProviderKind,
    /// Where it lives.
    pub base: &'a BaseUrl,
    /// What the configuration adds to its requests.
    pub headers: &'a [(String, Secret)],
    /// How long all of it may take.
    pub limit: Duration,
}

/// What a provider made of a key.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It takes it.
    Accepted,
    /// It does not: the status, and what it said.
    Rejected(u16, Option<String>),
    /// It answered, but not so that one could tell.
    Unclear(u16, Option<String>),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, status, said) = match self {
            Self::Accepted => return f.write_str("accepted"),
            Self::Rejected(status, said) => ("rejected", status, said),
            Self::Unclear(status, said) => ("cannot be told", status, said),
        };
        match said {
            Some(said) => write!(f, "{word} ({status}: {said})"),
            None => write!(f, "{word} ({status})"),
        }
    }
}

/// Why there is no verdict.
#[derive(Debug)]
pub enum ProbeError {
    /// The provider cannot be reached.
    Dial(DialError),
    /// The connection broke, or what came is no HTTP.
    Send(SendError),
    /// It took too long.
    Slow(Duration),
}

impl fmt::Display for ProbeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dial(why) => why.fmt(f),
            Self::Send(why) => why.fmt(f),
            Self::Slow(limit) => write!(f, "there was no answer within {} seconds", limit.as_secs()),
        }
    }
}

impl std::error::Error for ProbeError {}

impl Probe<'_> {
    /// Asks for the list of models with this key.
    pub async fn run(self, key: &Secret, dialer: &dyn Dial) -> Result<Verdict, ProbeError> {
        let deadline = Instant::now() + self.limit;
        let slow = |_| ProbeError::Slow(self.limit);
        let io = timeout_at(deadline, dialer.dial(&self.base.origin, self.limit)).await.map_err(slow)?;
        let connection = Connection::new(io.map_err(ProbeError::Dial)?);
        let mut flight = Flight::new(connection, Sender::new([self.request(key)], None), false);
        let head = timeout_at(deadline, std::future::poll_fn(|cx| flight.poll_head(cx))).await.map_err(slow)?;
        let head = head.map_err(ProbeError::Send)?;
        let status = head.status;
        if status == 200 {
            return Ok(Verdict::Accepted);
        }
        let mut body = flight.into_body(&head);
        let said = timeout_at(deadline, body.collect(ANSWER)).await.ok().and_then(Result::ok).flatten();
        let said = said.as_deref().and_then(message);
        Ok(match status {
            401 | 403 => Verdict::Rejected(status, said),
            _ => Verdict::Unclear(status, said),
        })
    }

    fn request(self, key: &Secret) -> bytes::Bytes {
        let mut out = BytesMut::with_capacity(1024);
        write::request_line(&mut out, "GET", &join(&self.base.path, &self.kind.ways[0], "/v1/models?limit=1"));
        write::field(&mut out, b"host", self.base.origin.host_header().as_bytes());
        write::field(&mut out, b"accept", b"application/json");
        write::field(&mut out, b"accept-encoding", b"identity");
        let (name, version) = headers::ANTHROPIC_VERSION;
        write::field(&mut out, name.as_bytes(), version.as_bytes());
        for (name, value) in self.headers {
            write::field(&mut out, name.as_bytes(), value.expose().as_bytes());
        }
        let form = self.kind.auth.of_key(key.expose());
        let value = Secret::new(format!("{}{}", form.prefix(), key.expose()));
        write::field(&mut out, form.header().as_bytes(), value.expose().as_bytes());
        headers::end(&mut out);
        out.freeze()
    }
}

/// What an error of a provider's says, on one line and without anything that a terminal would obey.
fn message(body: &[u8]) -> Option<String> {
    let body: serde_json::Value = serde_json::from_slice(body).ok()?;
    let error = &body["error"];
    let text = error["message"].as_str().or_else(|| error.as_str())?;
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect();
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_provider_says_is_shown_on_one_line() {
        let said = |body: &str| message(body.as_bytes());
        assert_eq!(
            said(r#"{"type":"error","error":{"type":"x","message":"invalid\nx-api-key\u001b[2J"}}"#).as_deref(),
            Some("invalid x-api-key [2J")
        );
        assert_eq!(said(r#"{"error":"no such model"}"#).as_deref(), Some("no such model"));
        assert_eq!((said("<html>"), said("{}"), said(r#"{"error":{"message":""}}"#)), (None, None, None));
        assert_eq!(Verdict::Rejected(401, said(r#"{"error":"no"}"#)).to_string(), "rejected (401: no)");
        assert_eq!(Verdict::Unclear(404, None).to_string(), "cannot be told (404)");
    }
}
