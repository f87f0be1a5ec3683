//! What a request is, as far as routing asks. What costs a look into the body is looked at when a rule asks for it.

use std::cell::{Cell, OnceCell};
use std::fmt;

use http1::RequestHead;
use memchr::memmem;
use wire::envelope::Envelope;
use wire::protocol::Protocol;

use super::answers::Subject;
use crate::client::inbound::Operation;
use crate::health::Prompt;
use crate::party::{Guess, Party};

/// What some clients put behind a model's name to say that they want its long context.
const LONG_CONTEXT: &str = "[1m]";
/// What an image is taken to cost, in tokens, however many bytes it has.
const IMAGE_TOKENS: u64 = 1500;
/// Bytes of a prompt to one token, where nothing better is known.
const BYTES_PER_TOKEN: u64 = 4;
/// Bodies up to this size are counted as they are; in larger ones pictures are looked for.
const SMALL: usize = 64 * 1024;

/// What a request is.
pub struct Facts<'a> {
    /// What the client speaks.
    pub protocol: Protocol,
    /// What it asks for.
    pub operation: Operation,
    /// The model as it was asked for, without a `[1m]` behind it.
    pub model: Option<&'a str>,
    /// Whether the `[1m]` was there.
    pub long_context: bool,
    /// Whether a stream is asked for.
    pub stream: bool,
    /// Who asks.
    pub party: Party<'a>,
    /// The caller's key, as records show it.
    pub key_id: Option<&'a str>,
    /// Requests that the gateway serves at the moment.
    pub in_flight: u64,
    /// Seconds since 1970.
    pub unix: i64,
    head: &'a RequestHead,
    body: Option<(&'a [u8], &'a Envelope)>,
    /// Bytes and tokens of the session's last prompt, if there was one.
    scale: Cell<Option<(u64, u64)>>,
    prompt_tokens: OnceCell<u64>,
    images: OnceCell<bool>,
}

impl fmt::Debug for Facts<'_> {
    // Never the body.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Facts({:?}, {:?}, {:?})", self.operation, self.model, self.party)
    }
}

impl<'a> Facts<'a> {
    /// Of a request whose body, where it is held and readable, is this. What the network does not tell (`key_id`,
    /// `in_flight`, `unix`) is for the caller to set.
    pub fn of(
        head: &'a RequestHead,
        body: Option<(&'a [u8], &'a Envelope)>,
        protocol: Protocol,
        operation: Operation,
        guess: Guess,
    ) -> Self {
        let asked = body.and_then(|(_, envelope)| envelope.model.as_deref());
        let short = asked.and_then(|model| model.strip_suffix(LONG_CONTEXT));
        Self {
            protocol,
            operation,
            model: short.or(asked),
            long_context: short.is_some(),
            stream: body.is_some_and(|(_, envelope)| envelope.stream == Some(true)),
            party: Party::of(head, body, guess),
            key_id: None,
            in_flight: 0,
            unix: 0,
            head,
            body,
            scale: Cell::new(None),
            prompt_tokens: OnceCell::new(),
            images: OnceCell::new(),
        }
    }

    /// The size of the prompt is known.
    pub fn set_prompt_tokens(&mut self, tokens: u64) {
        self.prompt_tokens = OnceCell::from(tokens);
    }

    /// The session's last prompt had so many bytes and came to so many tokens: this one will be alike.
    pub(super) fn scale_by(&self, bytes: u64, tokens: u64) {
        if bytes > 0 && tokens > 0 {
            self.scale.set(Some((bytes, tokens)));
        }
    }

    /// Bytes of what counts as prompt.
    pub fn prompt_bytes(&self) -> u64 {
        let Some((_, envelope)) = self.body else { return 0 };
        let spans = [&envelope.system_span, &envelope.messages_span, &envelope.tools_span];
        spans.iter().filter_map(|span| span.as_ref()).map(|span| span.len() as u64).sum()
    }

    /// The size of the prompt in tokens: an estimate.
    pub fn prompt_tokens(&self) -> u64 {
        *self.prompt_tokens.get_or_init(|| {
            let bytes = self.prompt_bytes();
            if let Some((before, tokens)) = self.scale.get() {
                return u64::try_from(u128::from(bytes) * u128::from(tokens) / u128::from(before)).unwrap_or(u64::MAX);
            }
            let (pictures, count) = match self.messages() {
                Some(messages) if messages.len() > SMALL => pictures(messages),
                _ => (0, 0),
            };
            bytes.saturating_sub(pictures) / BYTES_PER_TOKEN + count * IMAGE_TOKENS
        })
    }

    fn span(&self, span: impl Fn(&Envelope) -> &Option<std::ops::Range<usize>>) -> Option<&'a [u8]> {
        let (body, envelope) = self.body?;
        body.get(span(envelope).clone()?)
    }

    fn messages(&self) -> Option<&'a [u8]> {
        self.span(|envelope| &envelope.messages_span)
    }

    /// Whether tools are offered.
    pub fn tools(&self) -> bool {
        self.span(|envelope| &envelope.tools_span).is_some_and(|tools| !is_empty(tools))
    }

    /// Whether the model is asked to think.
    pub fn thinking(&self) -> bool {
        let off = |value: &[u8]| {
            value == b"null"
                || memmem::find(value, b"\"disabled\"").is_some()
                || memmem::find(value, b"\"none\"").is_some()
        };
        self.span(|envelope| &envelope.thinking_span).is_some_and(|value| !off(value))
    }

    /// Whether there are images in the conversation.
    pub fn images(&self) -> bool {
        *self.images.get_or_init(|| {
            let Some(messages) = self.messages() else { return false };
            // In the text of a string its quotes are escaped: a bare token is a value or a key.
            [&b"\"image\""[..], b"\"image_url\"", b"\"input_image\""]
                .iter()
                .any(|word| memmem::find_iter(messages, word).any(|at| is_type(&messages[..at])))
        })
    }

    /// What patterns are held against; `headers` are the names of those that any rule asks for.
    pub(super) fn text(&self, subject: Subject, headers: &[Box<str>]) -> Option<&[u8]> {
        match subject {
            Subject::Model => self.model.map(str::as_bytes),
            Subject::Session => self.party.session.as_deref().map(str::as_bytes),
            Subject::Project => self.party.project.as_deref().map(str::as_bytes),
            Subject::KeyId => self.key_id.map(str::as_bytes),
            Subject::AgentType => self.party.agent_type().map(str::as_bytes),
            Subject::Header(at) => self.head.get(&headers[at]),
        }
    }
}

impl Prompt for Facts<'_> {
    fn tokens(&self) -> u64 {
        self.prompt_tokens()
    }
}

/// Whether a list or an object holds nothing.
fn is_empty(value: &[u8]) -> bool {
    value == b"null" || value.get(1..value.len().saturating_sub(1)).is_none_or(|inner| inner.trim_ascii().is_empty())
}

/// Whether what comes behind this is the value of a key `type`.
fn is_type(before: &[u8]) -> bool {
    let Some(before) = before.trim_ascii_end().strip_suffix(b":") else { return false };
    before.trim_ascii_end().ends_with(b"\"type\"")
}

/// Bytes of data that is no text, and in how many pieces: `"data": "…"`, and URLs that hold it.
fn pictures(messages: &[u8]) -> (u64, u64) {
    let values = memmem::find_iter(messages, b"\"data\"").filter_map(|at| {
        let value = messages[at + 6..].trim_ascii_start().strip_prefix(b":")?;
        value.trim_ascii_start().strip_prefix(b"\"")
    });
    let urls = memmem::find_iter(messages, b";base64,").map(|at| &messages[at..]);
    let lengths = values.chain(urls).filter_map(|value| memchr::memchr(b'"', value)).filter(|length| *length > 1024);
    lengths.fold((0, 0), |(bytes, count), length| (bytes + length as u64, count + 1))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use bytes::BytesMut;
    use http1::{Limits, Scan};

    pub(in crate::route) fn with<R>(fields: &str, body: &str, ask: impl FnOnce(Facts<'_>) -> R) -> R {
        let text = format!("POST /v1/messages HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
        let head = RequestHead::take(&mut BytesMut::from(&*text), &mut Scan::default(), &Limits::default());
        let (head, envelope) = (head.unwrap().unwrap(), Envelope::read(body.as_bytes()).unwrap());
        let body = Some((body.as_bytes(), &envelope));
        ask(Facts::of(&head, body, Protocol::AnthropicMessages, Operation::Generation, Guess::Never))
    }

    #[track_caller]
    fn check(body: &str, want: (bool, bool, bool)) {
        with("", body, |facts| assert_eq!((facts.tools(), facts.thinking(), facts.images()), want, "{body}"));
    }

    #[test]
    fn the_body_tells_of_tools_thinking_and_images() {
        check("{}", (false, false, false));
        check(r#"{"tools":[ ],"thinking":{"type":"disabled"}}"#, (false, false, false));
        check(r#"{"tools":null,"thinking":null,"messages":null}"#, (false, false, false));
        check(r#"{"tools":[{"name":"x"}],"thinking":{"type":"adaptive"}}"#, (true, true, false));
        check(r#"{"reasoning":{"effort":"none"}}"#, (false, false, false));
        check(r#"{"reasoning_effort":"low"}"#, (false, true, false));
        check(r#"{"messages":[{"content":[{"type":"image","source":{}}]}]}"#, (false, false, true));
        check(r#"{"messages":[{"content":[{"source":{}, "type" : "image_url"}]}]}"#, (false, false, true));
        check(r#"{"input":[{"content":[{"type":"input_image"}]}]}"#, (false, false, true));
        check(r#"{"messages":[{"content":"an \"type\":\"image\" in a text"}]}"#, (false, false, false));
        check(r#"{"messages":[{"name":"image"}],"system":[{"type":"image"}]}"#, (false, false, false));
    }

    #[test]
    fn the_long_context_is_asked_for_behind_the_models_name() {
        let model = |body: &str| with("", body, |facts| (facts.model.map(str::to_owned), facts.long_context));
        assert_eq!(model(r#"{"model":"claude-sonnet-5-5[1m]"}"#), (Some("claude-sonnet-5-5".into()), true));
        assert_eq!(model(r#"{"model":"claude-sonnet-5-5"}"#), (Some("claude-sonnet-5-5".into()), false));
        assert_eq!(model("{}"), (None, false));
    }

    #[test]
    fn the_size_of_a_prompt_is_that_of_its_text() {
        let tokens = |body: &str| with("", body, |facts| facts.prompt_tokens());
        let text = "x".repeat(400_000);
        assert_eq!(tokens(&format!(r#"{{"system":"{text}","metadata":"{text}"}}"#)), 100_000);
        assert_eq!(tokens("{}"), 0);
        for picture in [
            format!(r#"{{"type":"base64", "data" : "{text}"}}"#),
            format!(r#"{{"url":"data:image/png;base64,{text}"}}"#),
        ] {
            let got = tokens(&format!(r#"{{"messages":[{picture},{picture}]}}"#));
            assert!((3000..3100).contains(&got), "{got}");
        }
    }

    #[test]
    fn the_sessions_last_prompt_is_the_best_measure() {
        with("", &format!(r#"{{"messages":"{}"}}"#, "x".repeat(8998)), |facts| {
            facts.scale_by(3000, 1000);
            assert_eq!(facts.prompt_tokens(), 3000);
        });
        with("", "{}", |mut facts| {
            facts.set_prompt_tokens(7);
            assert_eq!(facts.prompt_tokens(), 7);
        });
    }
}
