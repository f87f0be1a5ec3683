//! The relay loop: read once from the upstream, look, write once to the client.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use wire::error::ErrorKind;
use wire::meter::{Metered, Progress};

use super::{Beginning, Seam, View};
use crate::client::Client;
use crate::client::respond::with_details;
use crate::coding::Unpacked;
use crate::io::Io;
use crate::upstream::{UploadError, UpstreamBody};

/// Reads in a row after which the clock, the client and the process are looked at.
const BURST: u32 = 16;

/// How the client learns where the body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framed {
    /// `transfer-encoding: chunked`.
    Chunked,
    /// `content-length`, which the upstream gave.
    Length,
    /// By the end of the connection: HTTP/1.0.
    Close,
}

/// After the process was told to end, a client that takes nothing has so long to take what is on its way, and its last
/// word behind it.
const LAST_WORD: Duration = Duration::from_secs(1);

/// When a relay begins, and how long it may be without what.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// When it begins.
    pub from: Instant,
    /// Silence towards the client after which we put in a ping.
    pub ping: Duration,
    /// Silence of the upstream, and of a client that takes nothing, after which we end.
    pub idle: Duration,
    /// When the longest stream ends.
    pub end: Instant,
}

/// The time-out of an upstream that is silent.
pub const IDLE: &str = "idle";

/// How an exchange ended, as its log line says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// The upstream's answer arrived whole.
    Complete,
    /// The upstream said within its stream that it failed, and so the client was told.
    UpstreamError,
    /// The answer broke off, with the reason.
    Truncated(String),
    /// The client closed before the end.
    ClientGone,
    /// The client took nothing for too long.
    ClientStalled,
    /// The upstream was silent for too long, or the stream too long in all.
    Timeout(&'static str),
    /// The process ended first.
    Shutdown,
}

/// What is known of an answer when its end is.
#[derive(Debug)]
pub struct Seen<'a> {
    /// How it ends.
    pub ended: &'a Ended,
    /// What it came to, where it could be read.
    pub metered: Option<Box<Metered>>,
    /// Bytes of the upstream's body so far.
    pub payload: u64,
    /// When its first token came.
    pub first_token: Option<Instant>,
    /// When its end came.
    pub at: Instant,
}

impl Paused {
    /// When its first token came, and how much of it was sent.
    pub fn so_far(&self) -> (Option<Instant>, u64) {
        (self.first_token, self.payload)
    }
}

/// Awaited before the last bytes leave.
pub type Gate = Pin<Box<dyn Future<Output = ()>>>;

/// Sees what passes, and is told once how an answer ends, before its client can know.
pub trait Settle {
    /// Bytes of the body: the upstream's as they came, or the client's where they are translated.
    fn keep(&mut self, piece: &[u8]);

    /// Its first content came, at this moment.
    fn begins(&mut self, _: Instant) {}

    /// Takes the outcome over. The gate, if there is one, ends by itself within a bounded time.
    fn settle(&mut self, seen: Seen<'_>) -> Option<Gate>;
}

/// One answer on its way.
pub struct Relay<'a, S> {
    client: &'a mut Client<S>,
    source: &'a mut UpstreamBody,
    framed: Framed,
    view: View,
    limits: Limits,
    /// For the error event.
    request_id: &'a str,
    settle: &'a mut dyn Settle,
    /// How the answer ended as far as its record goes: what happens to the connection afterwards changes it no more.
    settled: Option<Ended>,
    gate: Option<Gate>,
    first_token: Option<Instant>,
    fresh: Vec<Bytes>,
    ready: Vec<Bytes>,
    /// The time, where it was asked for since this task was woken: what is done at one go is done at one moment.
    now: Option<Instant>,
    last_read: Instant,
    last_sent: Instant,
    ended: Option<Ended>,
    /// When whoever has not taken its last word is given up.
    given_up: Option<Instant>,
    /// Whether the client is left without a proper end of its message, so that it knows.
    aborted: bool,
    payload: u64,
    /// It broke off and can be gone on with: why, and how.
    paused: Option<(String, Seam)>,
}

impl<S> std::fmt::Debug for Relay<'_, S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Relay({:?})", self.view)
    }
}

/// What a relay leaves behind.
#[derive(Debug)]
pub struct Report {
    /// How it ended.
    pub ended: Ended,
    /// Whether the client's connection must end with it.
    pub aborted: bool,
    /// Bytes of the upstream's body that were sent on.
    pub payload: u64,
    /// It is not over: its upstream broke off, and somebody may go on with it.
    pub paused: Option<Box<Paused>>,
}

/// An answer that broke off and can be gone on with.
#[derive(Debug)]
pub struct Paused {
    /// Why it broke off.
    pub why: String,
    /// How it can be gone on with.
    pub seam: Seam,
    /// What was seen of it.
    pub view: View,
    first_token: Option<Instant>,
    payload: u64,
}

impl<'a, S: Io> Relay<'a, S> {
    /// A relay whose head stands in the client's outbox.
    pub fn new(
        client: &'a mut Client<S>,
        source: &'a mut UpstreamBody,
        framed: Framed,
        view: View,
        limits: Limits,
        request_id: &'a str,
        settle: &'a mut dyn Settle,
    ) -> Self {
        let now = limits.from;
        let (fresh, ready) = (Vec::new(), Vec::new());
        let (last_read, last_sent) = (now, now);
        let (ended, aborted, payload) = (None, false, 0);
        let (settled, gate, first_token, given_up, paused) = (None, None, None, None, None);
        Self {
            client,
            source,
            framed,
            view,
            limits,
            request_id,
            settle,
            settled,
            gate,
            first_token,
            fresh,
            ready,
            now: Some(now),
            last_read,
            last_sent,
            ended,
            given_up,
            aborted,
            payload,
            paused,
        }
    }

    /// Goes on where another relay of the same answer was paused, and its client has its head.
    #[must_use]
    pub fn after(mut self, first_token: Option<Instant>, payload: u64) -> Self {
        (self.first_token, self.payload) = (first_token, payload);
        self
    }

    /// Begins with what was read of the stream that is put behind another one.
    pub fn join(&mut self, beginning: &Beginning) {
        let View::Joined(joined) = &mut self.view else { return };
        let good = beginning.raw.iter().all(|piece| joined.join(piece));
        self.ready.extend(joined.take());
        if good {
            self.pass_on();
        } else {
            self.break_off("the upstream's stream does not go on with the one that broke off".into());
        }
    }

    /// Ends it as what it is: broken off.
    pub fn break_off(&mut self, why: String) {
        self.ready.clear();
        self.fail(ErrorKind::BadGateway, &why, Ended::Truncated(why.clone()));
    }

    /// Begins with what was read and held back.
    pub fn begin_with(&mut self, beginning: Beginning) {
        let Beginning { raw, ready, first_content, .. } = beginning;
        if raw.is_empty() {
            return;
        }
        self.keep(&raw);
        (self.ready, self.first_token) = (ready, first_content);
        self.pass_on();
    }

    /// Relays to the end. It is run once.
    pub async fn run(&mut self) -> Report {
        let mut first = true;
        let ended = std::future::poll_fn(|cx| {
            if std::mem::take(&mut first) {
                // What came with the head goes out with the head.
                let _ = self.poll_source(cx);
            } else {
                self.now = None;
            }
            self.poll(cx)
        })
        .await;
        let paused = self.paused.take().filter(|_| self.settled.is_none()).map(|(why, seam)| {
            let view = std::mem::replace(&mut self.view, View::Plain);
            let (first_token, payload) = (self.first_token, self.payload);
            Box::new(Paused { why, seam, view, first_token, payload })
        });
        let ended = self.settled.take().unwrap_or(ended);
        Report { ended, aborted: self.aborted, payload: self.payload, paused }
    }

    /// This moment.
    fn now(&mut self) -> Instant {
        *self.now.get_or_insert_with(Instant::now)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        let mut reads = 0;
        loop {
            if let Some(gate) = &mut self.gate {
                ready!(gate.as_mut().poll(cx));
                self.gate = None;
            }
            let mut more = false;
            let before = self.client.out.written();
            let blocked = match self.client.out.poll_flush(&mut self.client.io, cx) {
                Poll::Ready(Ok(())) => false,
                Poll::Ready(Err(_)) => return self.abandon(Ended::ClientGone),
                Poll::Pending => true,
            };
            if self.client.out.written() != before {
                self.last_sent = self.now();
            }
            if !blocked {
                if let Some(ended) = self.ended.take() {
                    return Poll::Ready(ended);
                }
                if let Some((why, _)) = &self.paused {
                    return Poll::Ready(Ended::Truncated(why.clone()));
                }
                // While the client takes nothing, nothing is read: the upstream feels its pace.
                more = self.poll_source(cx).is_ready();
                reads += 1;
                // Where there is always more, everything else is looked at between.
                if more && (self.ended.is_some() || self.paused.is_some() || reads % BURST != 0) {
                    continue;
                }
            }
            match self.poll_client(cx) {
                Poll::Ready(ended) => return self.abandon(ended),
                Poll::Pending => {}
            }
            if self.ended.is_none() && self.client.poll_cut(cx).is_ready() {
                self.fail(ErrorKind::Unavailable, "the gateway is shutting down: try again", Ended::Shutdown);
                self.given_up = Some(self.now() + LAST_WORD);
                continue;
            }
            let idle = if blocked { self.last_sent } else { self.last_read } + self.limits.idle;
            let idle = self.given_up.map_or(idle, |given_up| idle.min(given_up));
            let ping = if blocked || !self.may_ping() { None } else { Some(self.last_sent + self.limits.ping) };
            let mut deadline = ping.map_or(idle, |ping| ping.min(idle));
            // After its last word a client only has to take what there is.
            if self.ended.is_none() {
                deadline = deadline.min(self.limits.end);
            }
            // A busy task may be told that its timer pends although its time is over: the clock knows better.
            let late = self.client.alarm.poll(deadline, cx).is_ready();
            if late {
                self.now = None;
            }
            let now = self.now();
            if !late && now < deadline {
                if more {
                    self.now = None;
                    continue;
                }
                return Poll::Pending;
            }
            if blocked && idle <= now {
                let ended = self.ended.take().unwrap_or(Ended::ClientStalled);
                return self.abandon(ended);
            } else if idle <= now {
                let message = format!("the upstream sent nothing for {:?}", self.limits.idle);
                self.fail(ErrorKind::UpstreamTimeout, &message, Ended::Timeout(IDLE));
            } else if self.ended.is_none() && self.limits.end <= now {
                self.fail(ErrorKind::UpstreamTimeout, "the stream reached `maxStreamSecs`", Ended::Timeout("too long"));
            } else if ping.is_some_and(|ping| ping <= now) {
                match &mut self.view {
                    View::Translated(streaming, ..) => {
                        streaming.ping();
                        self.ready.extend(streaming.take());
                    }
                    View::Events(events) => self.ready.push(events.ping()),
                    View::Joined(joined) => self.ready.push(joined.seen().ping()),
                    View::Plain | View::Whole(_) | View::Coded(..) => {}
                }
                self.send();
            }
        }
    }

    /// Reads the upstream once and puts what it brought into the outbox. Ready when something changed.
    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.ended.is_some() || self.paused.is_some() {
            return Poll::Pending;
        }
        match self.source.poll_read(&mut self.fresh, cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(end)) => {
                self.last_read = self.now();
                self.deliver();
                if end && self.ended.is_none() {
                    self.finish();
                }
                Poll::Ready(())
            }
            Poll::Ready(Err(broken)) => {
                self.broke(broken.to_string());
                Poll::Ready(())
            }
        }
    }

    /// Watches the client's direction: the rest of its upload, or its going away.
    fn poll_client(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        let (sender, connection) = self.source.sending();
        if sender.is_uploading() {
            let Client { io, inbox, .. } = &mut *self.client;
            match sender.poll_upload(&mut connection.io, io, inbox, cx) {
                Poll::Ready(Err(UploadError::ClientGone)) => return Poll::Ready(Ended::ClientGone),
                Poll::Ready(Err(UploadError::Framing(e))) => return Poll::Ready(Ended::Truncated(e.to_string())),
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
            if sender.is_uploading() {
                return Poll::Pending;
            }
        }
        // An upstream may answer before it has read everything, and wait for the rest.
        let _ = sender.poll_write(&mut connection.io, cx);
        self.client.poll_gone(cx).map(|()| Ended::ClientGone)
    }

    /// Looks at what one read brought and lets go of what may be sent.
    fn deliver(&mut self) {
        let fresh = std::mem::take(&mut self.fresh);
        self.keep(&fresh);
        self.fresh = fresh;
        match &mut self.view {
            View::Plain => self.ready.append(&mut self.fresh),
            View::Whole(whole) => {
                self.fresh.iter().for_each(|piece| whole.keep(piece));
                self.ready.append(&mut self.fresh);
            }
            view @ (View::Events(_) | View::Translated(..) | View::Joined(_)) => {
                if !view.pass(&mut self.fresh, &mut self.ready) {
                    return self.broke("the upstream's stream cannot be unpacked".into());
                }
            }
            View::Coded(events, decoder) => {
                for piece in &self.fresh {
                    let Some(machine) = decoder else { break };
                    match machine.push(piece, |plain| events.look(plain)) {
                        Unpacked::Plain => {}
                        Unpacked::Unreadable => *decoder = None,
                        Unpacked::Bomb => {
                            self.fresh.clear();
                            return self.broke("the upstream's stream unpacks to far more than it should".into());
                        }
                    }
                }
                self.ready.append(&mut self.fresh);
            }
        }
        self.pass_on();
    }

    /// Sends what is ready, and looks how far the answer has come.
    fn pass_on(&mut self) {
        self.payload += self.ready.iter().map(|piece| piece.len() as u64).sum::<u64>();
        self.send();
        if matches!(&self.view, View::Events(events) if events.is_endless()) {
            self.broke("an event of the upstream's has no end".into());
        }
        let (progress, has_content) = self.view.progress();
        if self.first_token.is_none() && has_content {
            let now = self.now();
            self.first_token = Some(now);
            self.settle.begins(now);
        }
        // The client knows the end when it has this event, whatever the connection does afterwards.
        match progress {
            Progress::Ended => self.settle(&Ended::Complete),
            Progress::Failed => self.settle(&self.failed()),
            Progress::Nothing | Progress::Begun => {}
        }
    }

    /// How an answer ended that says itself that it failed.
    fn failed(&self) -> Ended {
        match &self.view {
            // So we say where it could not be read.
            View::Translated(streaming, ..) => match streaming.error() {
                Some(error) if error.kind == ErrorKind::BadGateway => Ended::Truncated(error.message.to_string()),
                _ => Ended::UpstreamError,
            },
            _ => Ended::UpstreamError,
        }
    }

    /// Hands the outcome over, once; what stands in the outbox waits for the gate.
    fn settle(&mut self, ended: &Ended) {
        if self.settled.is_some() {
            return;
        }
        let metered = self.view.metered();
        // Some say within a good answer that they failed.
        let fails = metered.as_ref().is_some_and(|metered| metered.error.is_some());
        let ended = match (&self.view, ended) {
            (View::Whole(whole), Ended::Complete) if whole.accepted && fails => &Ended::UpstreamError,
            _ => ended,
        };
        self.settled = Some(ended.clone());
        let (payload, first_token, at) = (self.payload, self.first_token, self.now());
        self.gate = self.settle.settle(Seen { ended, metered, payload, first_token, at });
    }

    /// Bytes of the upstream's go into the archive as they came. What is translated goes there as its client gets it.
    fn keep(&mut self, fresh: &[Bytes]) {
        if !matches!(self.view, View::Translated(..) | View::Joined(_)) {
            fresh.iter().for_each(|piece| self.settle.keep(piece));
        }
    }

    fn send(&mut self) {
        if matches!(self.view, View::Translated(..) | View::Joined(_)) {
            self.ready.iter().for_each(|piece| self.settle.keep(piece));
        }
        match self.framed {
            Framed::Chunked => self.client.out.push_chunk(self.ready.drain(..)),
            Framed::Length | Framed::Close => self.ready.drain(..).for_each(|piece| self.client.out.push(piece)),
        }
    }

    fn close(&mut self) {
        if self.framed == Framed::Chunked {
            self.client.out.push_last_chunk();
        }
    }

    /// The upstream's body is over: whole, or only its framing is.
    fn finish(&mut self) {
        let whole = match &mut self.view {
            View::Plain => true,
            View::Whole(whole) if whole.breaks_off() => {
                return self.broke("the upstream closed the connection before the end".into());
            }
            View::Whole(_) => true,
            View::Events(events) => {
                events.end();
                if events.was_whole() {
                    events.release(&mut self.ready);
                }
                events.was_whole()
            }
            View::Joined(joined) => {
                joined.events().end();
                joined.seen().was_whole()
            }
            // A decoder that has failed knows nothing against the stream.
            View::Coded(events, decoder) => {
                events.end();
                decoder.is_none() || events.was_whole()
            }
            View::Translated(streaming, ..) => {
                streaming.end();
                self.ready.extend(streaming.take());
                true
            }
        };
        if !whole {
            return self.broke("the upstream's stream ended before its last event".into());
        }
        self.payload += self.ready.iter().map(|piece| piece.len() as u64).sum::<u64>();
        self.send();
        self.close();
        let ended = if self.view.progress().0 == Progress::Failed { self.failed() } else { Ended::Complete };
        self.settle(&ended);
        self.ended = Some(ended);
    }

    /// The upstream's body broke off.
    fn broke(&mut self, why: String) {
        if self.settled.is_none()
            && self.framed == Framed::Chunked
            && let View::Events(events) = &mut self.view
            && let Some(seam) = events.seam()
        {
            self.paused = Some((why, seam));
            return;
        }
        self.fail(ErrorKind::BadGateway, &why, Ended::Truncated(why.clone()));
    }

    /// Ends the answer so that the client cannot take it for whole: with an error event where one can be put in, else
    /// by breaking the connection.
    fn fail(&mut self, kind: ErrorKind, message: &str, ended: Ended) {
        if self.is_over() {
            // The last event is with the client: what happens afterwards is of no interest to it. But where it was told a
            // length, bytes of that are missing: its connection cannot carry another answer.
            self.aborted = self.framed == Framed::Length;
            self.close();
            self.ended = Some(Ended::Complete);
            return;
        }
        match &mut self.view {
            View::Events(events) if events.at_border() && self.framed != Framed::Length => {
                self.ready.clear();
                self.ready.push(events.last_word(kind, &with_details(message, self.request_id), self.request_id));
                self.send();
                self.close();
            }
            View::Joined(joined) => {
                self.ready.clear();
                self.ready.push(joined.seen().last_word(
                    kind,
                    &with_details(message, self.request_id),
                    self.request_id,
                ));
                self.send();
                self.close();
            }
            View::Translated(streaming, ..) => {
                streaming.fail(kind, &with_details(message, self.request_id));
                self.ready.extend(streaming.take());
                self.send();
                self.close();
            }
            _ => self.aborted = true,
        }
        self.settle(&ended);
        self.ended = Some(ended);
    }

    /// Whether the event that ends the answer has been seen.
    fn is_over(&self) -> bool {
        self.view.progress().0 >= Progress::Ended
    }

    fn may_ping(&self) -> bool {
        let can = match &self.view {
            View::Events(events) => events.at_border(),
            View::Translated(..) | View::Joined(_) => true,
            View::Plain | View::Whole(_) | View::Coded(..) => false,
        };
        self.ended.is_none() && can && !self.is_over()
    }

    /// Ends without a last word: there is nobody who would take it.
    fn abandon(&mut self, ended: Ended) -> Poll<Ended> {
        self.settle(&ended);
        self.client.out.clear();
        self.aborted = true;
        Poll::Ready(ended)
    }
}
