//! The answer that comes down: what we know of its bytes, and its head as the client gets it.

use std::rc::Rc;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http1::{Framing, RequestHead, ResponseHead, write};
use ledger::record::Outcome;
use tokio::time::Instant;

use crate::client::Client;
use crate::client::inbound::{Held, Operation};
use crate::coding::{Coding, Decoder};
use crate::error::{ErrorKind, Refusal};
use crate::gateway::Worker;
use crate::headers;
use crate::io::Io;
use crate::provider::Provider;
use crate::relay::{Ended, Events, Framed, View, Whole};
use crate::server::account::outcome;
use crate::server::dispatch::{Collected, Lost, What};
use crate::server::exchange::{Exchange, Failure};
use crate::server::step::{NotWhole, collected, no_room};
use crate::translation::LOSS;
use crate::upstream::UpstreamBody;

/// A batch object larger than this is not rewritten but refused.
const BATCH_OBJECT: usize = 16 * 1024 * 1024;
/// Bytes that a compressed stream may unfold to, however small it is.
const OBSERVED: u64 = 64 * 1024 * 1024;

pub(super) fn is_json(answer: &ResponseHead) -> bool {
    let plain = matches!(Coding::of(answer.get("content-encoding")), Ok(None));
    plain && answer.get("content-type").is_some_and(|v| v.to_ascii_lowercase().starts_with(b"application/json"))
}

/// What we know of an answer's bytes before they come. `asked`: whether the request was for a stream; `kept`: what copies
/// take their room from.
pub(super) fn view(
    operation: Operation,
    head: &RequestHead,
    answer: &ResponseHead,
    asked: bool,
    kept: &Arc<Held>,
) -> View {
    // An upstream that does not say what it sends is taken to send what it was asked for.
    let is_stream =
        answer.get("content-type").map_or(asked, |v| v.to_ascii_lowercase().starts_with(b"text/event-stream"));
    // An error answer is no stream, whatever it says: it passes as it is.
    let is_stream = is_stream && (200..300).contains(&answer.status);
    if operation.is_held() && !is_stream && head.method() != "HEAD" && answer.framing != Framing::None {
        let open_ended = answer.framing == Framing::UntilClose;
        return Coding::of(answer.get("content-encoding")).map_or(View::Plain, |coding| {
            let whole = Whole::new(coding, open_ended, kept.share());
            View::Whole(whole.accepted((200..300).contains(&answer.status)))
        });
    }
    if operation != Operation::Generation || !is_stream || answer.framing == Framing::None {
        return View::Plain;
    }
    match Coding::of(answer.get("content-encoding")) {
        Ok(None) => View::Events(Box::default()),
        Ok(Some(coding)) => View::Coded(Box::<Events>::default(), Decoder::new(coding, OBSERVED).map(Box::new)),
        Err(_) => View::Coded(Box::<Events>::default(), None),
    }
}

/// How the client learns where the answer ends.
pub(super) fn framed(head: &RequestHead, answer: &ResponseHead, view: &View) -> Framed {
    match (answer.framing, view) {
        (Framing::None, _) => Framed::Length,
        // A stream into which events may be put has no length that could be told before.
        (Framing::Length(_), View::Plain | View::Whole(_) | View::Coded(..)) => Framed::Length,
        _ if head.minor == 0 => Framed::Close,
        _ => Framed::Chunked,
    }
}

/// What we say of an exchange in the head of its answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told<'a> {
    pub(super) id: &'a str,
    pub(super) provider: &'a str,
    pub(super) attempts: u32,
    /// What a translation could not carry; empty where there is nothing.
    pub(super) lost: &'a str,
    /// Not to come again.
    pub(super) final_word: bool,
    /// Another provider serves because the caller's subscription is used up.
    pub(super) replaced: bool,
    pub(super) keep_alive: bool,
}

fn close_head(out: &mut BytesMut, told: &Told<'_>) {
    headers::exchange_fields(out, told.id, told.provider, told.attempts, told.final_word);
    if !told.lost.is_empty() {
        write::field(out, LOSS.as_bytes(), told.lost.as_bytes());
    }
    if told.replaced {
        write::field(out, headers::SUBSCRIPTION.as_bytes(), b"used-up");
    }
    let keep_alive = told.keep_alive;
    write::field(out, b"connection", if keep_alive { b"keep-alive" } else { b"close" });
}

/// The head of an answer that is relayed.
pub(super) fn answer_head(answer: &ResponseHead, view: &View, framed: Framed, told: &Told<'_>, to_head: bool) -> Bytes {
    let mut out = BytesMut::with_capacity(1024);
    write::status_line(&mut out, answer.status, answer.reason());
    headers::response_fields(&mut out, answer, told.final_word);
    if matches!(view, View::Events(_) | View::Coded(..) | View::Translated(..)) {
        headers::stream_fields(&mut out, answer);
    }
    close_head(&mut out, told);
    match (framed, answer.framing) {
        (Framed::Chunked, _) => write::field(&mut out, b"transfer-encoding", b"chunked"),
        (Framed::Length, Framing::Length(n)) => write::content_length(&mut out, n),
        // What an answer to HEAD says of the body it does not have.
        (Framed::Length, _) if to_head => {
            if let Some(length) = answer.get("content-length") {
                write::field(&mut out, b"content-length", length);
            }
        }
        (Framed::Length, _) if answer.status != 204 && answer.status != 304 => write::content_length(&mut out, 0),
        _ => {}
    }
    headers::end(&mut out);
    out.freeze()
}

/// Replaces the upstream's base by ours where a `results_url` begins with it.
fn rehome(body: &[u8], theirs: &str, ours: &str) -> Vec<u8> {
    let finder = memchr::memmem::Finder::new(b"\"results_url\"");
    let (mut out, mut rest) = (Vec::with_capacity(body.len()), body);
    while let Some(at) = finder.find(rest) {
        let value = at + b"\"results_url\"".len();
        let gap = rest[value..].iter().take_while(|b| b.is_ascii_whitespace() || **b == b':').count();
        let (before, after) = rest.split_at(value + gap);
        out.extend_from_slice(before);
        rest = after;
        if let Some(tail) = after.strip_prefix(b"\"").and_then(|a| a.strip_prefix(theirs.as_bytes()))
            && tail.first() == Some(&b'/')
        {
            out.push(b'"');
            out.extend_from_slice(ours.as_bytes());
            rest = tail;
        }
    }
    out.extend_from_slice(rest);
    out
}

impl Exchange {
    /// A batch object names a URL of the upstream's, which clients call as it is: its origin becomes ours.
    pub(super) async fn batch_object<S: Io>(
        &mut self,
        client: &mut Client<S>,
        head: &RequestHead,
        worker: &Rc<Worker>,
        provider: &Provider,
        answer: ResponseHead,
        mut source: UpstreamBody,
    ) -> Result<(Ended, bool), Failure> {
        let idle = provider.timeouts.idle;
        let (mut room, until) = (worker.gateway.kept.share(), Instant::now() + idle);
        let collected = collected(client, &mut source, &mut room, BATCH_OBJECT, idle, until).await?;
        client.unread &= source.sending().0.is_uploading();
        let whole = collected.map_err(|why| match why {
            NotWhole::TooLong => Refusal::new(ErrorKind::BadGateway, "the batch object is larger than 16 MB"),
            NotWhole::Broken(why) => Refusal::new(ErrorKind::BadGateway, why),
            NotWhole::Late => Refusal::new(ErrorKind::UpstreamTimeout, "the batch object did not arrive in time"),
            NotWhole::NoRoom => no_room(),
        })?;
        let ours = format!("http://{}", head.host());
        let body = Bytes::from(rehome(&whole, &provider.base.to_string(), &ours));
        source.release(&worker.pool, &provider.base.origin);
        let outcome = outcome(&Ended::Complete, self.status).0;
        let ready = Ready { answer: &answer, body, provider: &provider.name, lost: "", final_word: false };
        self.send_whole(client, head, worker, ready, outcome).await
    }

    /// What the head of an answer says of this exchange.
    pub(super) fn told<'a>(&'a self, provider: &'a str, final_word: bool) -> Told<'a> {
        let Self { id, attempts, replaced, .. } = self;
        Told { id, provider, attempts: *attempts, lost: "", final_word, replaced: *replaced, keep_alive: false }
    }

    /// Sends an answer that is whole, once its record is settled.
    pub(super) async fn send_whole<S: Io>(
        &mut self,
        client: &mut Client<S>,
        head: &RequestHead,
        worker: &Worker,
        ready: Ready<'_>,
        outcome: Outcome,
    ) -> Result<(Ended, bool), Failure> {
        let keep_alive = keeps(client, head, worker);
        let Ready { answer, body, provider, lost, final_word } = ready;
        let told = Told { keep_alive, lost, ..self.told(provider, final_word) };
        let answered = whole_answer(answer, body, &told);
        worker.gateway.counters.relayed(answered[1].len() as u64);
        answered.into_iter().for_each(|part| client.out.push(part));
        if let Some(settling) = self.settle(outcome, None) {
            settling.await;
        }
        let flushed = client.flush().await;
        Ok((if flushed { Ended::Complete } else { Ended::ClientGone }, keep_alive && flushed))
    }

    /// Gives the client the most useful of several failed answers, byte for byte.
    pub(super) async fn hand_over<S: Io>(
        &mut self,
        client: &mut Client<S>,
        head: &RequestHead,
        worker: &Worker,
        lost: Lost<'_>,
    ) -> Result<(Ended, bool), Failure> {
        self.provider.clone_from(&lost.provider.name);
        let Collected { head: answer, body, said } = match lost.what {
            What::Answer(collected) => *collected,
            What::Refusal(refusal) => return Err(refusal.into()),
        };
        self.status = answer.status;
        self.gave_up(lost.provider, answer.status, &body, said);
        let (provider, final_word) = (&*lost.provider.name, lost.final_word);
        let ready = Ready { answer: &answer, body, provider, lost: "", final_word };
        self.send_whole(client, head, worker, ready, Outcome::UpstreamError).await
    }
}

/// Whether the client's connection can carry another request once this one is answered.
pub(super) fn keeps<S>(client: &Client<S>, head: &RequestHead, worker: &Worker) -> bool {
    head.keep_alive && !client.unread && !worker.phases.drain.is_cancelled()
}

/// An answer that is whole, and what its head says besides.
#[derive(Debug)]
pub(super) struct Ready<'a> {
    pub(super) answer: &'a ResponseHead,
    pub(super) body: Bytes,
    pub(super) provider: &'a str,
    pub(super) lost: &'a str,
    pub(super) final_word: bool,
}

/// An answer whose body is at hand.
fn whole_answer(answer: &ResponseHead, body: Bytes, told: &Told<'_>) -> [Bytes; 2] {
    let mut out = BytesMut::with_capacity(1024);
    write::status_line(&mut out, answer.status, answer.reason());
    headers::response_fields(&mut out, answer, told.final_word);
    close_head(&mut out, told);
    write::content_length(&mut out, body.len() as u64);
    headers::end(&mut out);
    [out.freeze(), body]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_origin_of_a_results_url_changes() {
        let body = br#"{"id":"b","results_url" : "https://api.anthropic.com/v1/messages/batches/b/results","x":"https://api.anthropic.com/"}"#;
        let want = br#"{"id":"b","results_url" : "http://127.0.0.1:1/v1/messages/batches/b/results","x":"https://api.anthropic.com/"}"#;
        assert_eq!(rehome(body, "https://api.anthropic.com", "http://127.0.0.1:1"), want);
        for same in [
            &br#"{"results_url":null}"#[..],
            br#"{"results_url":"https://api.anthropic.com.evil/x"}"#,
            br#"{"results_url""#,
        ] {
            assert_eq!(rehome(same, "https://api.anthropic.com", "http://a"), same);
        }
    }
}
