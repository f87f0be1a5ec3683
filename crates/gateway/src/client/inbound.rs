//! What a request asks for, and its body where that is held whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http1::{BodyDecoder, Framing, RequestHead, Step};
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;
use wire::envelope::{Envelope, EnvelopeError};
use wire::protocol::Protocol;

use crate::client::{Client, Interrupted};
use crate::coding::{self, Coding};
use crate::error::{ErrorKind, Refusal, Retry};
use crate::headers;
use crate::io::Io;

/// What is asked of an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// An answer of a model.
    Generation,
    /// The size of a prompt.
    CountTokens,
    /// The list of models, or one of them.
    Models,
    /// Batches: their objects hold a URL of the upstream's.
    Batches,
    /// Anything else, which is forwarded unread.
    Opaque,
}

impl Operation {
    /// Of a path below `/v1`; `None` for paths that are not an upstream's.
    pub fn of(method: &str, path: &str) -> Option<Self> {
        let rest = path.strip_prefix("/v1/")?;
        Some(match (method, rest) {
            ("POST", "messages" | "chat/completions" | "responses") => Self::Generation,
            ("POST", "messages/count_tokens") => Self::CountTokens,
            ("GET", "models") => Self::Models,
            ("GET", _) if rest.starts_with("models/") => Self::Models,
            (_, "messages/batches") => Self::Batches,
            (_, _) if rest.starts_with("messages/batches/") && !rest.ends_with("/results") => Self::Batches,
            _ => Self::Opaque,
        })
    }

    /// As the log names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Generation => "generation",
            Self::CountTokens => "count_tokens",
            Self::Models => "models",
            Self::Batches | Self::Opaque => "opaque",
        }
    }

    /// As records name it.
    pub fn recorded(self) -> ledger::record::Operation {
        use ledger::record::Operation as Recorded;
        match self {
            Self::Generation => Recorded::Generation,
            Self::CountTokens => Recorded::CountTokens,
            Self::Models => Recorded::Models,
            Self::Batches => Recorded::Batches,
            Self::Opaque => Recorded::Opaque,
        }
    }

    /// Whether the request's body is held, because another attempt may need it.
    pub fn is_held(self) -> bool {
        matches!(self, Self::Generation | Self::CountTokens)
    }

    /// Whether we must be able to read the answer.
    pub fn coding(self) -> headers::Coding {
        match self {
            Self::Generation | Self::CountTokens | Self::Batches => headers::Coding::Identity,
            Self::Models | Self::Opaque => headers::Coding::Callers,
        }
    }
}

/// What a client speaks, by what it asks for. Both have a list of models: who names Anthropic's version means that one.
pub fn protocol(head: &RequestHead) -> Protocol {
    let rest = head.path().strip_prefix("/v1/").unwrap_or_default();
    let below = |name: &str| rest.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    match rest {
        _ if below("responses") => Protocol::OpenAiResponses,
        _ if below("chat") || below("embeddings") => Protocol::OpenAiChat,
        _ if below("models") && head.get("anthropic-version").is_none() && head.get("x-api-key").is_none() => {
            if head.get("authorization").is_some() { Protocol::OpenAiChat } else { Protocol::AnthropicMessages }
        }
        _ => Protocol::AnthropicMessages,
    }
}

/// The sum of all request bodies that are held, and its bound.
#[derive(Debug)]
pub struct Held {
    used: AtomicUsize,
    limit: usize,
    freed: Notify,
    /// Turns to unpack a body.
    unpacking: Semaphore,
}

impl Held {
    /// At most `limit` bytes.
    pub fn new(limit: usize) -> Arc<Self> {
        let (used, freed, unpacking) = (AtomicUsize::new(0), Notify::new(), Semaphore::new(UNPACKING));
        Arc::new(Self { used, limit, freed, unpacking })
    }

    /// Bytes held now.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// The bound in bytes.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// A share of it that is nothing yet.
    pub fn share(self: &Arc<Self>) -> Claim {
        Claim { held: self.clone(), bytes: 0 }
    }
}

/// One body's share of what is held; given back on drop.
#[derive(Debug)]
pub struct Claim {
    held: Arc<Held>,
    bytes: usize,
}

impl Claim {
    /// Claims `more` bytes if they fit.
    pub fn grow(&mut self, more: usize) -> bool {
        let before = self.held.used.fetch_add(more, Ordering::Relaxed);
        if before + more > self.held.limit {
            self.held.used.fetch_sub(more, Ordering::Relaxed);
            return false;
        }
        self.bytes += more;
        true
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.held.used.fetch_sub(self.bytes, Ordering::Relaxed);
        self.held.freed.notify_waiters();
    }
}

/// A request's body, whole.
#[derive(Debug)]
pub struct HeldBody {
    /// As it came.
    pub bytes: Bytes,
    /// As it reads: unpacked, where it was packed; empty where it cannot be read.
    pub text: Bytes,
    /// What that says at its top level.
    pub envelope: Envelope,
    _claim: Claim,
}

impl HeldBody {
    /// One made of it, beside it; `None`: there is no room, or it cannot be read.
    pub fn another(&self, text: Bytes) -> Option<Self> {
        let _claim = self.room_for(text.len())?;
        let envelope = Envelope::read(&text).ok()?;
        Some(Self { bytes: text.clone(), text, envelope, _claim })
    }

    /// Room for what is made of it, beside it; `None`: there is none.
    pub fn room_for(&self, bytes: usize) -> Option<Claim> {
        let mut claim = self._claim.held.share();
        claim.grow(bytes).then_some(claim)
    }
}

/// Why there is no body.
#[derive(Debug)]
pub enum NoBody {
    /// The client is to be told.
    Refused(Refusal),
    /// There is nobody to tell.
    Gone,
}

impl From<Refusal> for NoBody {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Reading stops for so long when too much is held.
const WAIT_FOR_ROOM: Duration = Duration::from_secs(5);
/// Packed bodies that are unpacked at a time; each may become as large as one body may be.
const UNPACKING: usize = 4;
/// Memory that a body is given room for before its bytes are there, however long it says it is.
const FIRST_ROOM: u64 = 1024 * 1024;

/// No byte of a body for so long: the client is asked no further.
const SILENCE: Duration = Duration::from_secs(30);
/// Bytes a second that a body must come with, on the average, once [`SILENCE`] is over.
const SLOWEST: u64 = 1024;

/// How slowly a body may arrive.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    began: Instant,
    last: Instant,
    bytes: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Self::new()
    }
}

impl Pace {
    /// Of a body whose first byte may come now.
    pub fn new() -> Self {
        let now = Instant::now();
        Self { began: now, last: now, bytes: 0 }
    }

    /// So many bytes are there in all.
    pub fn reached(&mut self, bytes: u64) {
        if self.bytes != bytes {
            (self.bytes, self.last) = (bytes, Instant::now());
        }
    }

    /// For so long it was not the client that was waited for.
    fn excuse(&mut self, waited: Duration) {
        self.began += waited;
        self.last += waited;
    }

    /// When the last byte came.
    pub fn last(&self) -> Instant {
        self.last
    }

    /// When the next byte must be there.
    pub fn deadline(&self) -> Instant {
        (self.last + SILENCE).min(self.began + SILENCE + Duration::from_secs(self.bytes / SLOWEST))
    }

    /// What a client is told whose deadline has passed.
    pub fn too_slow() -> Refusal {
        Refusal::new(ErrorKind::RequestTimeout, "the request body did not arrive in time").close()
    }
}

/// Reads a body that is held whole.
pub async fn read_held<S: Io>(
    client: &mut Client<S>,
    head: &RequestHead,
    held: &Arc<Held>,
    max: usize,
) -> Result<HeldBody, NoBody> {
    let too_large = || {
        // As the configuration says it, where the bound is no whole number of MB too.
        let mb = (max as f64 / f64::from(1 << 20) * 1000.0).round() / 1000.0;
        let message = format!("the request body is larger than {mb} MB: raise `server.maxBodyMb` if it should pass");
        NoBody::Refused(Refusal::new(ErrorKind::TooLarge, message).retry(Retry::Never).close())
    };
    if matches!(head.framing, Framing::Length(n) if n > max as u64) {
        return Err(too_large());
    }
    let coding = Coding::of(head.get("content-encoding"));
    let mut claim = held.share();
    let mut pace = Pace::new();
    if head.expects_continue {
        client.out.push(Bytes::from_static(b"HTTP/1.1 100 Continue\r\n\r\n"));
    }
    let bytes = match head.framing {
        Framing::Length(n) => {
            client.inbox.expect(n.min(FIRST_ROOM) as usize);
            let n = n as usize;
            // What came with the head is held like the rest.
            let at_hand = client.inbox.len().min(n);
            room_for(client, &mut claim, &mut pace, at_hand).await?;
            while client.inbox.len() < n {
                let missing = n - claim.bytes;
                arrive(client, &mut claim, &mut pace, missing).await?;
            }
            client.inbox.take(n)
        }
        Framing::None => Bytes::new(),
        Framing::Chunked | Framing::UntilClose => {
            let (mut decoder, mut body) = (BodyDecoder::new(head.framing), BytesMut::new());
            loop {
                match decoder.next(&mut client.inbox) {
                    Ok(Step::Data(data)) if body.len() + data.len() > max => return Err(too_large()),
                    Ok(Step::Data(data)) => {
                        // What is held is the payload: of the framing there is no more than one read.
                        room_for(client, &mut claim, &mut pace, data.len()).await?;
                        body.extend_from_slice(&data);
                    }
                    Ok(Step::End) => break body.freeze(),
                    Ok(Step::More) => arrive(client, &mut claim, &mut pace, 0).await?,
                    Err(e) => return Err(Refusal::new(ErrorKind::InvalidRequest, e.to_string()).close().into()),
                }
            }
        }
    };
    client.unread = false;
    let (mut text, envelope) = match coding {
        Ok(None) => (bytes.clone(), Envelope::read(&bytes)),
        Ok(Some(coding)) => unpacked(coding, &bytes, max, held).await,
        Err(coding::Unknown) => (Bytes::new(), Ok(Envelope::default())),
    };
    let mut envelope = envelope.map_err(|e @ EnvelopeError::Twice(_)| {
        Refusal::new(ErrorKind::InvalidRequest, format!("{e}: send it once")).retry(Retry::Never)
    })?;
    if bytes.as_ptr() != text.as_ptr() && !claim.grow(text.len()) {
        // There is no room to keep what was unpacked: its names are known, its places would lead nowhere.
        let Envelope { model, stream, agent_type, is_object, .. } = envelope;
        envelope = Envelope { model, stream, agent_type, is_object, ..Envelope::default() };
        text = Bytes::new();
    }
    Ok(HeldBody { bytes, text, envelope, _claim: claim })
}

/// A packed body unpacked, and what it says. Little can unfold to much: so this happens beside the thread, whose other
/// connections go on meanwhile, and not with many at a time, because it is not among what is counted as held.
async fn unpacked(coding: Coding, packed: &Bytes, max: usize, held: &Held) -> (Bytes, Result<Envelope, EnvelopeError>) {
    let _turn = held.unpacking.acquire().await;
    let packed = packed.clone();
    let unpack = move || {
        let text = Bytes::from(coding::decode(coding, &packed, max).unwrap_or_default());
        let envelope = Envelope::read(&text);
        (text, envelope)
    };
    // It fails when the process ends meanwhile.
    tokio::task::spawn_blocking(unpack).await.unwrap_or_else(|_| (Bytes::new(), Ok(Envelope::default())))
}

/// Waits for more bytes of a body and claims `at_most` of them.
async fn arrive<S: Io>(
    client: &mut Client<S>,
    claim: &mut Claim,
    pace: &mut Pace,
    at_most: usize,
) -> Result<(), NoBody> {
    pace.reached(claim.bytes as u64);
    let deadline = pace.deadline();
    let read = std::future::poll_fn(|cx| {
        if matches!(client.out.poll_flush(&mut client.io, cx), Poll::Ready(Err(_))) {
            return Poll::Ready(Err(Interrupted::Gone));
        }
        match client.inbox.poll_fill(&mut client.io, cx) {
            Poll::Ready(Ok(n)) if n > 0 => return Poll::Ready(Ok(n)),
            Poll::Ready(_) => return Poll::Ready(Err(Interrupted::Gone)),
            Poll::Pending => {}
        }
        if client.poll_cut(cx).is_ready() {
            return Poll::Ready(Err(Interrupted::Cut));
        }
        client.alarm.poll(deadline, cx).map(|()| Err(Interrupted::Deadline))
    });
    match read.await {
        Ok(read) => room_for(client, claim, pace, read.min(at_most)).await,
        Err(Interrupted::Deadline) => Err(Pace::too_slow().into()),
        Err(Interrupted::Cut) => Err(Refusal::shutting_down().into()),
        Err(Interrupted::Gone) => Err(NoBody::Gone),
    }
}

/// Claims `more` bytes, which have been read, and waits for room where there is none.
async fn room_for<S: Io>(
    client: &mut Client<S>,
    claim: &mut Claim,
    pace: &mut Pace,
    more: usize,
) -> Result<(), NoBody> {
    if claim.grow(more) {
        return Ok(());
    }
    // Others may finish soon; until then nothing is read, and the client's sending comes to rest.
    let from = Instant::now();
    let held = claim.held.clone();
    let room = client.alarm.within(from + WAIT_FOR_ROOM, async {
        loop {
            let freed = held.freed.notified();
            if claim.grow(more) {
                break;
            }
            freed.await;
        }
    });
    room.await.ok_or_else(overloaded)?;
    pace.excuse(from.elapsed());
    Ok(())
}

fn overloaded() -> Refusal {
    let message = "the gateway holds as many request bodies as it may (`server.maxHeldMb`): try again";
    Refusal::new(ErrorKind::Overloaded, message).retry(Retry::After(5)).close()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_tell_what_is_asked() {
        for (method, path, want) in [
            ("POST", "/v1/messages", Some(Operation::Generation)),
            ("POST", "/v1/chat/completions", Some(Operation::Generation)),
            ("POST", "/v1/responses", Some(Operation::Generation)),
            ("GET", "/v1/responses/resp_1", Some(Operation::Opaque)),
            ("POST", "/v1/embeddings", Some(Operation::Opaque)),
            ("GET", "/v1/messages", Some(Operation::Opaque)),
            ("POST", "/v1/messages/count_tokens", Some(Operation::CountTokens)),
            ("GET", "/v1/models", Some(Operation::Models)),
            ("GET", "/v1/models/claude-x", Some(Operation::Models)),
            ("POST", "/v1/messages/batches", Some(Operation::Batches)),
            ("GET", "/v1/messages/batches/b1", Some(Operation::Batches)),
            ("GET", "/v1/messages/batches/b1/results", Some(Operation::Opaque)),
            ("POST", "/v1/files", Some(Operation::Opaque)),
            ("GET", "/v1", None),
            ("GET", "/v2/messages", None),
            ("GET", "/health", None),
        ] {
            assert_eq!(Operation::of(method, path), want, "{method} {path}");
        }
    }

    #[test]
    fn a_packed_body_is_unpacked_beside_the_thread_and_not_many_are_at_a_time() {
        use std::io::Write;
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        packer.write_all(br#"{"model":"m","metadata":{}}"#).unwrap();
        let packed = Bytes::from(packer.finish().unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
        runtime.block_on(async {
            let held = Held::new(100);
            let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
            // The one thread for such work is busy: so this one would do it itself, or not.
            let (done, busy) = std::sync::mpsc::sync_channel::<()>(0);
            let other = tokio::task::spawn_blocking(move || busy.recv());
            let mut work = Box::pin(unpacked(Coding::Gzip, &packed, 1000, &held));
            assert!(work.as_mut().poll(&mut cx).is_pending());
            assert_eq!(held.unpacking.available_permits(), UNPACKING - 1);
            drop(done);
            let (text, envelope) = work.await;
            other.await.unwrap().unwrap_err();
            let envelope = envelope.unwrap();
            assert_eq!(&text[envelope.metadata_span.unwrap()], b"{}");
            assert_eq!(envelope.model.as_deref(), Some("m"));
            // Without a turn nothing begins.
            let turns = held.unpacking.acquire_many(UNPACKING as u32).await.unwrap();
            let mut work = Box::pin(unpacked(Coding::Gzip, &packed, 1000, &held));
            assert!(work.as_mut().poll(&mut cx).is_pending());
            drop(turns);
            assert_eq!(work.await.1.unwrap().model.as_deref(), Some("m"));
        });
    }

    #[test]
    fn what_is_held_never_exceeds_its_bound_and_is_given_back() {
        let held = Held::new(100);
        let mut one = Claim { held: held.clone(), bytes: 0 };
        let mut two = Claim { held: held.clone(), bytes: 0 };
        assert!(one.grow(60) && !two.grow(41) && two.grow(40));
        assert_eq!(held.used(), 100);
        drop(one);
        assert!(two.grow(60));
        drop(two);
        assert_eq!(held.used(), 0);
    }
}
