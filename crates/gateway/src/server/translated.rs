//! What is different where a target speaks another protocol than the client.

use bytes::{Bytes, BytesMut};
use http1::{Framing, Limits, RequestHead, ResponseHead, Scan, write};
use ledger::record::Outcome as Recorded;
use tokio::time::Instant;
use wire::error::ApiError;
use wire::meter::Metered;
use wire::protocol::Protocol;

use crate::catalog::{self, Way};
use crate::client::inbound::HeldBody;
use crate::client::{Client, Interrupted};
use crate::coding::{self, Coding, Decoder};
use crate::config::OnLoss;
use crate::error::{ErrorKind, Refusal, Retry};
use crate::gateway::Worker;
use crate::headers::{self, SHOULD_RETRY};
use crate::io::Io;
use crate::provider::Provider;
use crate::relay::{Ended, View};
use crate::route::{Changes, Target};
use crate::server::answer::Ready;
use crate::server::dispatch::Won;
use crate::server::exchange::{Exchange, Failure};
use crate::server::limits;
use crate::server::request::{Credential, Fitted, Outgoing};
use crate::server::step::{Passing, unix_ms};
use crate::translation::{self, Answer, Losses, Upstream};

/// Bytes of a whole answer that is translated, and that it may unpack to.
pub(super) const WHOLE: usize = 64 * 1024 * 1024;

/// What is told of a client's request where it is translated.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asks<'a> {
    pub(super) protocol: Protocol,
    pub(super) id: &'a str,
    pub(super) on_loss: OnLoss,
    /// The provider that the caller's own credentials are for.
    pub(super) home: Option<u16>,
    /// What is made of its body once for all targets.
    pub(super) fitted: &'a Fitted,
}

/// The model as the target calls it.
pub(super) fn model<'m>(provider: &'m Provider, target: &Target<'m>, body: &'m HeldBody) -> &'m str {
    let asked = body.envelope.model.as_deref().unwrap_or_default();
    provider.model(if target.model.is_empty() { asked } else { target.model })
}

/// Bytes of a prompt that the tokenizer sees where the estimate serves until the truth follows, and where it is the answer.
const SAMPLED: usize = 8 << 10;
const COUNTED: usize = 256 << 10;
/// Bytes that are counted on the thread that serves: more would keep its other connections waiting.
const AT_ONCE: usize = 2 << 10;

/// How many tokens a prompt comes to, by estimate.
async fn estimate(protocol: Protocol, text: &Bytes, most: usize) -> Result<u64, ApiError> {
    if text.len() <= AT_ONCE && translation::is_ready_to_count() {
        return translation::count(protocol, text, most);
    }
    let text = text.clone();
    let counted = tokio::task::spawn_blocking(move || translation::count(protocol, &text, most)).await;
    // It fails when the process ends meanwhile.
    counted.unwrap_or(Ok(1))
}

/// Learns what has to be known before a request can be written for a target that speaks another protocol: how long its
/// prompt is, where somebody is told so, and, nearly always known already, how much the model holds.
pub(super) async fn learn<S: Io>(
    client: &mut Client<S>,
    worker: &Worker,
    asks: Asks<'_>,
    provider: &Provider,
    way: &Way,
    target: &Target<'_>,
    body: &HeldBody,
) -> Result<(), Failure> {
    let is_told = asks.protocol == Protocol::AnthropicMessages || way.reserves_context();
    if is_told && asks.fitted.prompt.get().is_none() {
        // A body that cannot be read is refused by who writes the request.
        let _ = asks.fitted.prompt.set(estimate(asks.protocol, &body.text, SAMPLED).await.ok());
    }
    let model = model(provider, target, body);
    if !provider.has_to_tell_context(way, model) {
        return Ok(());
    }
    let mut learning = std::pin::pin!(provider.learn_context(&*worker.gateway.dialer, model));
    // It keeps its own time.
    let deadline = Instant::now() + provider.timeouts.head;
    match client.watch(deadline, |cx| learning.as_mut().poll(cx)).await {
        Ok(()) | Err(Interrupted::Deadline) => Ok(()),
        Err(why) => Err(why.into()),
    }
}

/// The request for a target that speaks another protocol.
pub(super) fn prepare(
    asks: Asks<'_>,
    head: &RequestHead,
    body: &HeldBody,
    provider: &Provider,
    target: &Target<'_>,
    changes: &Changes<'_>,
    credential: Option<&Credential>,
) -> Result<Outgoing, ApiError> {
    let way = provider.way(asks.protocol);
    let asked = body.envelope.model.as_deref().unwrap_or_default();
    let model = model(provider, target, body);
    let quirks = provider.quirks(way, model);
    let (protocol, prompt) = (way.protocol, asks.fitted.prompt.get().copied().flatten());
    let upstream = Upstream { protocol, model, quirks: &quirks, max_output: provider.max_output, prompt };
    let translated = translation::request(asks.protocol, &upstream, &body.text, asked, asks.id)?;
    if let (OnLoss::Refuse, Some(refused)) = (asks.on_loss, translation::refuse(&translated.losses)) {
        return Err(refused);
    }
    let mut out = BytesMut::with_capacity(1024);
    write::request_line(&mut out, "POST", &provider.generation(way));
    write::field(&mut out, b"host", provider.base.origin.host_header().as_bytes());
    let accept: &[u8] = match (translated.answer.is_stream(), way.protocol) {
        (true, Protocol::Ollama) => b"application/x-ndjson",
        (true, _) => b"text/event-stream",
        (false, _) => b"application/json",
    };
    write::field(&mut out, b"accept", accept);
    write::field(&mut out, b"accept-encoding", b"identity");
    write::field(&mut out, b"content-type", b"application/json");
    if let Some(agent) = head.get("user-agent") {
        write::field(&mut out, b"user-agent", agent);
    }
    if way.protocol == Protocol::AnthropicMessages {
        let (name, version) = headers::ANTHROPIC_VERSION;
        write::field(&mut out, name.as_bytes(), version.as_bytes());
    }
    headers::own_fields(&mut out, changes.headers, &provider.headers);
    if let Some(credential) = credential {
        credential.write(&mut out);
    }
    write::content_length(&mut out, translated.body.len() as u64);
    headers::end(&mut out);
    Ok(Outgoing {
        head: out.freeze(),
        body: Some([translated.body, Bytes::new(), Bytes::new()]),
        losses: translated.losses,
        is_idle: translated.is_idle,
        _room: None,
        answer: Some(translated.answer),
    })
}

/// The head of an answer in the client's protocol; without a length, of a stream.
pub(super) fn head(status: u16, content_type: &str, fields: &[(&str, String)], length: Option<usize>) -> ResponseHead {
    let mut out = BytesMut::with_capacity(256);
    let reason = if status < 400 { "OK" } else { ErrorKind::of_status(status).reason() };
    write::status_line(&mut out, status, reason.as_bytes());
    write::field(&mut out, b"content-type", content_type.as_bytes());
    for (name, value) in fields {
        write::field(&mut out, name.as_bytes(), value.as_bytes());
    }
    match length {
        Some(length) => write::content_length(&mut out, length as u64),
        None => write::field(&mut out, b"transfer-encoding", b"chunked"),
    }
    headers::end(&mut out);
    let taken = ResponseHead::take(&mut out, &mut Scan::default(), &Limits::default(), false);
    taken.ok().flatten().expect("it was written a moment ago")
}

/// What the head of an answer tells its client: an id, and what the upstream says of its limits.
pub(super) fn fields(answer: &Answer, theirs: &ResponseHead) -> Vec<(&'static str, String)> {
    let mut fields = limits::fields(answer.client(), theirs, unix_ms());
    fields.push(answer.own_id());
    fields
}

/// Whether a provider of this kind says by this status that it does not count tokens. The one that always counts means
/// something else by it.
pub(super) fn does_not_count(provider: &Provider, status: u16) -> bool {
    matches!(status, 404 | 405 | 501) && provider.kind != catalog::anthropic()
}

/// An error answer in the client's protocol.
pub(super) fn refused(answer: &Answer, theirs: &ResponseHead, error: &ApiError, id: &str) -> (ResponseHead, Bytes) {
    let (status, mut told, body) = translation::error(answer.client(), error, id);
    told.append(&mut fields(answer, theirs));
    // Clients of every protocol obey it.
    let obeyed = theirs.get(SHOULD_RETRY).filter(|word| matches!(*word, b"true" | b"false"));
    if let (Some(word), false) = (obeyed, told.iter().any(|(name, _)| *name == SHOULD_RETRY)) {
        told.push((SHOULD_RETRY, String::from_utf8_lossy(word).into_owned()));
    }
    let fields = told;
    let body = Bytes::from(body);
    (head(status, "application/json", &fields, Some(body.len())), body)
}

/// How the answer of an upstream that was asked in another protocol is seen: as a stream to be translated, or (`None`) as
/// a whole that has to be at hand first.
pub(super) fn view(answer: &Answer, theirs: &ResponseHead) -> Option<View> {
    let kind = theirs.get("content-type").map(<[u8]>::to_ascii_lowercase);
    let streams = |kind: &[u8]| kind.starts_with(b"text/event-stream") || kind.starts_with(b"application/x-ndjson");
    if !answer.is_stream() || !kind.is_none_or(|kind| streams(&kind)) || theirs.framing == Framing::None {
        return None;
    }
    let decoder = match Coding::of(theirs.get("content-encoding")) {
        Ok(None) => None,
        Ok(Some(coding)) => Some(Box::new(Decoder::new(coding, WHOLE as u64)?)),
        Err(_) => return None,
    };
    Some(View::Translated(Box::new(answer.stream()), decoder, None))
}

/// A whole answer in the client's protocol.
pub(super) fn whole(answer: &Answer, theirs: &ResponseHead, body: &[u8]) -> Result<(Bytes, Metered), ApiError> {
    let body = coding::plain(theirs.get("content-encoding"), body, WHOLE);
    answer.whole(&body).map(|(body, metered)| (body.into(), metered))
}

impl Exchange {
    /// The models that the configuration names, where no provider has a list of them in the client's protocol.
    pub(super) async fn models<S: Io>(
        &mut self,
        client: &mut Client<S>,
        head: &RequestHead,
        worker: &Worker,
    ) -> Result<(Ended, bool), Failure> {
        let providers = &worker.gateway.providers;
        let named =
            providers.iter().flat_map(|provider| provider.models.iter().map(|model| (&**model, &*provider.name)));
        let mut known: Vec<(&str, &str)> = Vec::new();
        for (model, provider) in named {
            if !known.iter().any(|(other, _)| *other == model) {
                known.push((model, provider));
            }
        }
        let one = head.path().strip_prefix("/v1/models/").filter(|id| !id.is_empty());
        let found: Vec<_> = known.into_iter().filter(|(model, _)| one.is_none_or(|one| one == *model)).collect();
        let body = match (one, found.first()) {
            (Some(one), None) => {
                let message = format!("no model `{one}` is named in the configuration");
                return Err(Refusal::new(ErrorKind::NotFound, message).into());
            }
            (Some(_), Some((model, provider))) => translation::model(self.protocol, model, provider),
            (None, _) => translation::models(self.protocol, &found),
        };
        let name = providers.first().map_or("", |provider| &provider.name);
        self.answer_translated(client, head, worker, (name, ""), ("application/json", &[]), body.to_string().into())
            .await
    }

    /// Counts a prompt in place of a provider that does not.
    pub(super) async fn count<S: Io>(
        &mut self,
        client: &mut Client<S>,
        head: &RequestHead,
        worker: &Worker,
        provider: &Provider,
        body: &HeldBody,
    ) -> Result<(Ended, bool), Failure> {
        let counted = estimate(self.protocol, &body.text, COUNTED).await;
        let tokens = counted.map_err(|why| Refusal::of(&why).retry(Retry::Never))?;
        let mut losses = Losses::default();
        losses.hint("input_tokens", format!("`{}` does not count: this is our estimate", provider.name));
        self.lose(&losses);
        let body = serde_json::json!({ "input_tokens": tokens }).to_string();
        let told = (&*provider.name, "input_tokens");
        self.answer_translated(client, head, worker, told, ("application/json", &[]), body.into()).await
    }

    /// Answers a client with a whole answer that was translated.
    pub(super) async fn whole<S: Io>(
        &mut self,
        client: &mut Client<S>,
        head: &RequestHead,
        worker: &Worker,
        won: Won<'_>,
        body: Bytes,
        metered: Metered,
    ) -> Result<(Ended, bool), Failure> {
        let Won { provider, passing, mut lost, .. } = won;
        let Passing { answer, source, said, .. } = *passing;
        source.release(&worker.pool, &provider.base.origin);
        // The head is not sent yet: it names what is lost on the way down as well.
        lost.append(metered.lost.clone());
        let lost = lost.to_string();
        self.came_to(metered, said, body.len() as u64);
        let ready = Ready { answer: &answer, body, provider: &provider.name, lost: &lost, final_word: false };
        self.send_whole(client, head, worker, ready, Recorded::Success).await
    }

    /// Answers a client with what is at hand, whole, in its own protocol.
    pub(super) async fn answer_translated<S: Io>(
        &mut self,
        client: &mut Client<S>,
        request: &RequestHead,
        worker: &Worker,
        (provider, lost): (&str, &str),
        (content_type, fields): (&str, &[(&str, String)]),
        body: Bytes,
    ) -> Result<(Ended, bool), Failure> {
        self.status = 200;
        let answer = head(200, content_type, fields, Some(body.len()));
        let ready = Ready { answer: &answer, body, provider, lost, final_word: false };
        self.send_whole(client, request, worker, ready, Recorded::Success).await
    }
}
