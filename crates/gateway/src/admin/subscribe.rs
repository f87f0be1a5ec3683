//! `/api/streams/subscribe`: what happens at the moment, as a stream of events.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http1::{RequestHead, write};
use tokio::time::Instant;

use crate::client::{Client, Interrupted};
use crate::gateway::Worker;
use crate::headers::{self, REQUEST_ID};
use crate::io::Io;
use crate::live::Viewer;

/// A viewer hears something at least this often.
const QUIET: Duration = Duration::from_secs(15);
/// Events that go out in one write.
const TOGETHER: usize = 64;

/// Sends events until the viewer goes or the gateway ends. The connection ends with it.
pub async fn stream<S: Io>(
    client: &mut Client<S>,
    head: &RequestHead,
    worker: &Worker,
    mut viewer: Viewer,
    request_id: &str,
) {
    let chunked = head.minor > 0;
    client.out.push(answer_head(chunked, request_id));
    // Whoever reads is told at once that it is heard.
    let mut pieces = vec![Bytes::from_static(b": watching\n\n")];
    loop {
        if chunked {
            client.out.push_chunk(pieces.drain(..));
        } else {
            pieces.drain(..).for_each(|piece| client.out.push(piece));
        }
        if !client.flush().await {
            return;
        }
        let next = {
            let drained = worker.phases.drain.cancelled();
            let mut next = std::pin::pin!(async {
                tokio::select! {
                    biased;
                    () = drained => None,
                    // Whoever watches wants to see the process that serves now.
                    () = worker.retired.cancelled() => None,
                    event = viewer.next() => Some(event),
                }
            });
            client.watch(Instant::now() + QUIET, |cx| next.as_mut().poll(cx)).await
        };
        match next {
            Ok(Some(event)) => pieces.push(event),
            Err(Interrupted::Deadline) => pieces.push(Bytes::from_static(b": nothing new\n\n")),
            Ok(None) | Err(Interrupted::Cut) => break,
            Err(Interrupted::Gone) => return,
        }
        while pieces.len() < TOGETHER
            && let Some(event) = viewer.more()
        {
            pieces.push(event);
        }
    }
    if chunked {
        client.out.push_last_chunk();
        client.flush().await;
    }
}

fn answer_head(chunked: bool, request_id: &str) -> Bytes {
    let mut out = BytesMut::with_capacity(256);
    write::status_line(&mut out, 200, b"OK");
    let fields = [("content-type", "text/event-stream"), ("connection", "close"), (REQUEST_ID, request_id)];
    for (name, value) in fields.iter().chain(headers::STREAM) {
        write::field(&mut out, name.as_bytes(), value.as_bytes());
    }
    if chunked {
        write::field(&mut out, b"transfer-encoding", b"chunked");
    }
    headers::end(&mut out);
    out.freeze()
}
