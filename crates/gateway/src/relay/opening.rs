//! The beginning of a stream that its client has not begun to get: another target may still be asked for it.

use std::cell::Cell;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use wire::meter::Progress;
use wire::sse::Splitter;

use super::View;
use crate::client::{Client, Interrupted};
use crate::io::Io;
use crate::upstream::UpstreamBody;

/// Bytes that are held back; what is longer without any content is let go as it is.
const HELD: usize = 64 * 1024;

/// What was read of a stream and held back.
#[derive(Debug, Default)]
pub struct Beginning {
    /// As it came.
    pub(super) raw: Vec<Bytes>,
    /// Of that, what may be sent.
    pub(super) ready: Vec<Bytes>,
    /// When its first content came.
    pub(super) first_content: Option<Instant>,
    size: usize,
}

/// What a stream begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    /// With something good, or with nothing for so long that it is kept as it is.
    Good,
    /// With an error: the data of that event.
    Failed(Vec<u8>),
    /// It ended, or broke off, before any content; why.
    Empty(String),
    /// It was silent for too long.
    Silent,
}

impl Beginning {
    /// Everything that was read, in one piece.
    pub fn bytes(&self) -> Bytes {
        self.raw.concat().into()
    }

    /// Whether anything is held back.
    pub fn is_something(&self) -> bool {
        self.size > 0
    }

    /// When its first content came.
    pub fn first_content(&self) -> Option<Instant> {
        self.first_content
    }

    /// `false`: it cannot be unpacked.
    fn take(&mut self, fresh: &mut Vec<Bytes>, view: &mut View) -> bool {
        self.size += fresh.iter().map(Bytes::len).sum::<usize>();
        self.raw.extend(fresh.iter().cloned());
        let good = view.pass(fresh, &mut self.ready);
        if self.first_content.is_none() && view.progress().1 {
            self.first_content = Some(Instant::now());
        }
        good
    }

    /// What it begins with, if that is clear.
    fn opened(&self, view: &View) -> Option<Opened> {
        match view.progress() {
            (Progress::Failed, false) => Some(Opened::Failed(self.last_data(view))),
            (Progress::Failed | Progress::Ended, _) => Some(Opened::Good),
            (_, has_content) if has_content || self.size > HELD => Some(Opened::Good),
            (Progress::Nothing | Progress::Begun, _) => None,
        }
    }

    /// The data of the last event.
    fn last_data(&self, view: &View) -> Vec<u8> {
        if let Some(data) = view.error_data() {
            return data;
        }
        let mut last = Vec::new();
        let mut splitter = Splitter::new(HELD);
        for piece in &self.raw {
            splitter.push(piece, |event| {
                if event.name() == Some(b"error")
                    && let Some(data) = event.data()
                {
                    last = data.into_owned();
                }
            });
        }
        last
    }
}

/// Reads until it is clear what a stream begins with. Comments and pings say nothing; after `keep_after` of nothing else
/// the stream is kept, and after `idle` of silence it is not. `begun` is set when anything else has come.
pub async fn open<S: Io>(
    client: &mut Client<S>,
    source: &mut UpstreamBody,
    view: &mut View,
    idle: Duration,
    keep_after: Duration,
    begun: &Cell<bool>,
) -> Result<(Opened, Beginning), Interrupted> {
    let mut beginning = Beginning::default();
    let mut fresh = Vec::new();
    let kept = Instant::now() + keep_after;
    let mut silent = Instant::now() + idle;
    let opened = std::future::poll_fn(|cx| {
        loop {
            match source.poll_read(&mut fresh, cx) {
                Poll::Ready(Ok(end)) => {
                    silent = Instant::now() + idle;
                    if !beginning.take(&mut fresh, view) {
                        return Poll::Ready(Ok(Opened::Empty("its stream cannot be unpacked".into())));
                    }
                    begun.set(view.progress().0 != Progress::Nothing);
                    if let Some(opened) = beginning.opened(view) {
                        return Poll::Ready(Ok(opened));
                    }
                    if end {
                        let why = "it ended its stream before the first content";
                        return Poll::Ready(Ok(Opened::Empty(why.into())));
                    }
                }
                Poll::Ready(Err(why)) => return Poll::Ready(Ok(Opened::Empty(why.to_string()))),
                Poll::Pending => break,
            }
        }
        // An upstream may answer before it has read everything, and wait for the rest.
        let (sender, connection) = source.sending();
        let _ = sender.poll_write(&mut connection.io, cx);
        match client.poll_interrupted(kept.min(silent), cx) {
            Poll::Ready(Interrupted::Deadline) if silent < kept => Poll::Ready(Ok(Opened::Silent)),
            Poll::Ready(Interrupted::Deadline) => Poll::Ready(Ok(Opened::Good)),
            Poll::Ready(why) => Poll::Ready(Err(why)),
            Poll::Pending => Poll::Pending,
        }
    });
    let opened = opened.await?;
    Ok((opened, beginning))
}
