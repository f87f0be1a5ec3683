//! An upstream that answers what its requests ask it to, with secrets in all of it, and remembers what it got.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::common::contains;

/// The header that names the answer.
pub(crate) const ANSWER: &str = "x-answer";

/// An answer: its bytes, and whether the connection stays open after them.
pub(crate) type Answers = HashMap<&'static str, (Vec<u8>, bool)>;

pub(crate) struct Upstream {
    pub(crate) addr: SocketAddr,
    got: Arc<Mutex<Vec<u8>>>,
    _stop: DropGuard,
}

impl Upstream {
    pub(crate) async fn start(answers: Answers) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (answers, got) = (Arc::new(answers), Arc::<Mutex<Vec<u8>>>::default());
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let (kept, stopped) = (got.clone(), stop.clone());
        tasks.clone().spawn(async move {
            while let Some(Ok((stream, _))) = stopped.run_until_cancelled(listener.accept()).await {
                let (answers, got, stopped) = (answers.clone(), kept.clone(), stopped.clone());
                tasks.spawn(async move { stopped.run_until_cancelled(serve(stream, &answers, &got)).await });
            }
        });
        Self { addr, got, _stop: stop.drop_guard() }
    }

    /// Whether this arrived.
    pub(crate) fn got(&self, text: &str) -> bool {
        contains(&self.got.lock().unwrap(), text.as_bytes())
    }
}

/// One request, one answer, and the end; what does not end stays open.
async fn serve(mut stream: TcpStream, answers: &Answers, got: &Mutex<Vec<u8>>) {
    let (mut bytes, mut piece) = (vec![], vec![0; 65_536]);
    let name = loop {
        match stream.read(&mut piece).await {
            Ok(n) if n > 0 => bytes.extend_from_slice(&piece[..n]),
            _ => return,
        }
        if let Some(name) = asked(&bytes) {
            break name;
        }
    };
    got.lock().unwrap().extend_from_slice(&bytes);
    let (answer, stays) = answers.get(&*name).unwrap_or_else(|| panic!("there is no answer `{name}`"));
    let _ = stream.write_all(answer).await;
    if *stays {
        let _ = stream.read(&mut piece).await;
    }
}

/// The answer that a request asks for, once it is whole.
fn asked(bytes: &[u8]) -> Option<String> {
    let head = bytes.windows(4).position(|end| end == b"\r\n\r\n")?;
    let field = |name: &str| {
        let lines = bytes[..head].split(|b| *b == b'\n');
        let mut values = lines.filter_map(|line| {
            let (key, value) = std::str::from_utf8(line).ok()?.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        });
        values.next()
    };
    let length: usize = field("content-length").map_or(0, |n| n.parse().unwrap());
    (bytes.len() >= head + 4 + length).then(|| field(ANSWER).unwrap_or_default())
}
