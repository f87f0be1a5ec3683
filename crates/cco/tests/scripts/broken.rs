//! Something between client and gateway that breaks one promise.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// What is broken.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Break {
    /// The first words, wherever an answer has them, become the second, which are as long.
    Words(&'static str, &'static str),
    /// Answers are passed on when they are whole.
    HeldBack,
    /// Messages are asked for once more.
    Twice,
    /// The first words of a request become the second, which are as long.
    Asked(&'static str, &'static str),
    /// Requests are refused beyond so many bytes.
    Upto(usize),
    /// The upstream is asked on when the client is gone.
    Stays,
}

/// It runs as long as this lives.
pub(crate) struct Broken {
    pub(crate) addr: SocketAddr,
    _tasks: TaskTracker,
    _stop: DropGuard,
}

/// Puts one in front of a gateway.
pub(crate) async fn broken(gateway: SocketAddr, how: Break) -> Broken {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let (until, within) = (stop.clone(), tasks.clone());
    tasks.spawn(until.clone().run_until_cancelled_owned(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            within.spawn(until.clone().run_until_cancelled_owned(async move {
                // A client that goes is no fault of ours.
                let _ = pass(client, gateway, how).await;
            }));
        }
    }));
    Broken { addr, _tasks: tasks, _stop: stop.drop_guard() }
}

/// One request, whose body is small enough to come with its head or right behind it.
async fn pass(mut client: TcpStream, gateway: SocketAddr, how: Break) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !is_whole(&request) {
        if client.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let mut request = asking(&request, gateway);
    match how {
        Break::Asked(from, to) => request = replaced(&request, from.as_bytes(), to.as_bytes()),
        Break::Upto(most) if request.len() > most => {
            return client.write_all(b"HTTP/1.1 413 Payload Too Large\r\ncontent-length: 0\r\n\r\n").await;
        }
        _ => {}
    }
    if matches!(how, Break::Twice) && request.starts_with(b"POST /v1/messages ") {
        let mut again = TcpStream::connect(gateway).await?;
        let closing = String::from_utf8_lossy(&request).replacen("\r\n", "\r\nconnection: close\r\n", 1);
        again.write_all(closing.as_bytes()).await?;
        again.read_to_end(&mut Vec::new()).await?;
    }
    let mut upstream = TcpStream::connect(gateway).await?;
    upstream.write_all(&request).await?;
    let (mut buffer, mut answer) = (vec![0; 65_536], Vec::new());
    loop {
        let read = tokio::select! {
            read = upstream.read(&mut buffer) => read?,
            _ = client.read_u8(), if !matches!(how, Break::Stays) => return Ok(()),
        };
        let piece = match how {
            Break::Words(from, to) => replaced(&buffer[..read], from.as_bytes(), to.as_bytes()),
            _ => buffer[..read].to_vec(),
        };
        answer.extend_from_slice(&piece);
        let ended = read == 0 || answer_is_whole(&answer);
        if !matches!(how, Break::HeldBack) {
            let written = client.write_all(&piece).await;
            if !matches!(how, Break::Stays) {
                written?;
            }
        } else if ended {
            client.write_all(&answer).await?;
        }
        if read == 0 {
            return Ok(());
        }
    }
}

/// The request with the gateway's own name in it: that it refuses others is its right.
fn asking(request: &[u8], gateway: SocketAddr) -> Vec<u8> {
    let request = String::from_utf8_lossy(request);
    let lines = request.split("\r\n").map(|line| match line.split_once(": ") {
        Some((name, _)) if name.eq_ignore_ascii_case("host") => format!("Host: {gateway}"),
        _ => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\r\n").into_bytes()
}

fn split(message: &[u8]) -> Option<(String, &[u8])> {
    let end = message.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    Some((String::from_utf8_lossy(&message[..end]).to_lowercase(), &message[end..]))
}

fn length(head: &str) -> Option<usize> {
    head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok())
}

fn is_whole(request: &[u8]) -> bool {
    split(request).is_some_and(|(head, body)| body.len() >= length(&head).unwrap_or(0))
}

fn answer_is_whole(answer: &[u8]) -> bool {
    split(answer).is_some_and(|(head, body)| match length(&head) {
        Some(length) => body.len() >= length,
        None => body.ends_with(b"0\r\n\r\n"),
    })
}

fn replaced(piece: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len(), "lengths are told before");
    let mut piece = piece.to_vec();
    let mut at = 0;
    while let Some(found) = piece[at..].windows(from.len()).position(|window| window == from) {
        piece[at + found..at + found + from.len()].copy_from_slice(to);
        at += found + from.len();
    }
    piece
}
