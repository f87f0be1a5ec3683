//! The relayed chunk is the received memory: from the upstream's read to the client's write no byte is copied.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use gateway::net::Stream;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

use crate::common::client::{Client, messages, post};
use crate::common::pipes::{Upstream, in_house, in_house_with_pipes_of, once, peer, plain};
use crate::time::{DELTA, START, STOP};

/// Where bytes lay when they were read or written.
type Places = Arc<Mutex<Vec<(Range<usize>, Vec<u8>)>>>;

/// A pipe that notes where its user's memory is.
struct Noted {
    io: DuplexStream,
    read: Places,
    written: Places,
}

fn place(bytes: &[u8]) -> (Range<usize>, Vec<u8>) {
    let at = bytes.as_ptr() as usize;
    (at..at + bytes.len(), bytes.to_vec())
}

impl AsyncRead for Noted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.read.lock().unwrap().push(place(&buf.filled()[before..]));
        }
        read
    }
}

impl AsyncWrite for Noted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        if let Poll::Ready(Ok(n)) = written {
            self.written.lock().unwrap().push(place(&buf[..n]));
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        if let Poll::Ready(Ok(mut left)) = written {
            for slice in slices {
                let n = slice.len().min(left);
                left -= n;
                self.written.lock().unwrap().push(place(&slice[..n]));
            }
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Relays an answer that the upstream sends in these pieces; gives where its bytes were read, and where those lay that
/// were written to the client.
async fn relay(stream: bool, pieces: &[String]) -> (Places, Places) {
    in_house(plain, async |house| {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let (read, written) = (Places::default(), Places::default());
        let upstream = Noted { io: near, read: read.clone(), written: Places::default() };
        house.next_upstream(Upstream::Given(Stream::pipe(upstream)));
        let (near, client) = tokio::io::duplex(1 << 20);
        house.serve(Noted { io: near, read: Places::default(), written: written.clone() }, peer("127.0.0.1:1", true));
        let mut client = Client::new(client);
        client.send(messages(stream, "")).await;
        for piece in pieces {
            tokio::io::AsyncWriteExt::write_all(&mut far, piece.as_bytes()).await.unwrap();
            // Virtual: the gateway has read the piece and written what it may.
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        let reply = client.reply().await;
        assert_eq!(reply.status, 200);
        (read, written)
    })
    .await
}

/// How many written bytes equal `payload` and lay where they had been read.
fn check_identity(read: &Places, written: &Places, payload: &str) {
    let (read, written) = (read.lock().unwrap(), written.lock().unwrap());
    let all: Vec<u8> = written.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
    assert!(!all.is_empty());
    let (mut same, mut framing) = (Vec::new(), 0);
    for (at, bytes) in written.iter() {
        if read.iter().any(|(from, had)| {
            from.start <= at.start && at.end <= from.end && had[at.start - from.start..at.end - from.start] == bytes[..]
        }) {
            same.extend_from_slice(bytes);
        } else {
            framing += bytes.len();
        }
    }
    assert!(String::from_utf8_lossy(&same).contains(payload), "{} of {} bytes", same.len(), payload.len());
    // What is not the upstream's memory is our head and the chunks' sizes.
    assert!(framing < 600 + 20 * written.len(), "{framing} bytes of framing");
}

#[tokio::test(start_paused = true)]
async fn events_are_written_from_the_memory_they_were_read_into() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunk = |payload: &str| format!("{:x}\r\n{payload}\r\n", payload.len());
    let (half, other) = DELTA.split_at(30);
    let long = format!("event: content_block_delta\ndata: {}\n\n", "x".repeat(150_000));
    let pieces = [
        // Head and events in one read, a read of many events, one that ends within an event, one of a long event.
        format!("{head}{}", chunk(START)),
        chunk(&DELTA.repeat(50)),
        chunk(&format!("{DELTA}{half}")),
        chunk(other),
        chunk(&long),
        format!("{}0\r\n\r\n", chunk(STOP)),
    ];
    let (read, written) = relay(true, &pieces).await;
    check_identity(&read, &written, &format!("{START}{}{DELTA}{DELTA}{long}{STOP}", DELTA.repeat(50)));
}

/// A chain of two, with one try each.
fn two(settings: &mut serde_json::Value) {
    settings["providers"]["second"] = serde_json::json!({
        "providerType": "anthropic-compatible",
        "baseUrl": "http://second.test",
        "apiKeyRef": "env:OTHER_KEY",
    });
    settings["routing"] = serde_json::json!({ "fallbackChain": ["anthropic", "second"] });
    once(settings);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_goes_to_a_second_target_is_the_same_memory() {
    in_house_with_pipes_of(1 << 20, two, async |house| {
        let answers = [
            "HTTP/1.1 529 Overloaded\r\ncontent-length: 2\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
        ];
        let mut sent = Vec::new();
        for answer in answers {
            let (near, mut far) = tokio::io::duplex(1 << 20);
            let written = Places::default();
            let upstream = Noted { io: near, read: Places::default(), written: written.clone() };
            house.next_upstream(Upstream::Given(Stream::pipe(upstream)));
            tokio::io::AsyncWriteExt::write_all(&mut far, answer.as_bytes()).await.unwrap();
            sent.push((written, far));
        }
        let text = "x".repeat(300_000);
        let body = format!(r#"{{"model":"claude-sonnet-4-5","messages":[{{"role":"user","content":"{text}"}}]}}"#);
        let reply = house.client().ask(post("/v1/messages", "", &body)).await;
        assert_eq!((reply.status, reply.header("x-cco-attempts")), (200, Some("2")));
        // Where the body's bytes lay when they were written, its head apart.
        let places = |written: &Places| {
            let written = written.lock().unwrap();
            let large: Vec<_> = written.iter().map(|(at, _)| at.clone()).filter(|at| at.len() > 10_000).collect();
            let (first, last) = (large.first().unwrap().start, large.last().unwrap().end);
            assert_eq!(large.iter().map(ExactSizeIterator::len).sum::<usize>(), last - first, "in one piece");
            (first, last)
        };
        let (one, two) = (places(&sent[0].0), places(&sent[1].0));
        assert_eq!((one.1 - one.0, one), (body.len(), two));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_whole_answer_is_written_from_the_memory_it_was_read_into() {
    let body = format!("{{\"x\":\"{}\"}}", "y".repeat(500_000));
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
    let (read, written) = relay(false, &[head + &body[..100_000], body[100_000..].to_string()]).await;
    check_identity(&read, &written, &body);
}
