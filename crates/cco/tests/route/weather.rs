//! Bad weather on the way to the first of two providers, over real connections: the client gets a whole answer, or the
//! beginning of one and a word that it broke off.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::common::{Client, Ended, Gateway, Upstream, contains, prompt, soon, until, upstream};
use crate::failover::{check_served, unsigned};

/// What happens to the bytes of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weather {
    /// Nothing.
    Fair,
    /// The connection is reset behind so many bytes.
    Reset(usize),
    /// It ends there in order, while the other direction stays open.
    HalfClosed(usize),
    /// Every piece is late by so many milliseconds.
    Latency(u64),
    /// They come in pieces of this size.
    Slices(usize),
    /// So many bytes a hundredth of a second.
    Bandwidth(usize),
}
use Weather::{Bandwidth, Fair, HalfClosed, Latency, Reset, Slices};

/// Stands between the gateway and a provider; it can be killed, and come back at the same place.
struct Proxy {
    addr: SocketAddr,
    down: Arc<AtomicBool>,
    killed: Arc<std::sync::Mutex<CancellationToken>>,
    open: Arc<AtomicUsize>,
    _tasks: TaskTracker,
    _stop: DropGuard,
}

impl Proxy {
    async fn before(upstream: &Upstream, weather: Weather) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (addr, to) = (listener.local_addr().unwrap(), upstream.addr);
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let (down, open) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let killed = Arc::new(std::sync::Mutex::new(CancellationToken::new()));
        let (serving, ended, is_down, running, kill) =
            (tasks.clone(), stop.clone(), down.clone(), open.clone(), killed.clone());
        tasks.spawn(async move {
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = ended.cancelled() => return,
                };
                let Ok((near, _)) = accepted else { return };
                if is_down.load(Ordering::SeqCst) {
                    let _ = near.set_zero_linger();
                    continue;
                }
                let (ended, kill, running) = (ended.clone(), kill.lock().unwrap().clone(), running.clone());
                running.fetch_add(1, Ordering::SeqCst);
                serving.spawn(async move {
                    let far = TcpStream::connect(to).await.unwrap();
                    let (near, far) = (Arc::new(near), Arc::new(far));
                    let reset = tokio::select! {
                        reset = blow(weather, &near, &far) => reset,
                        () = kill.cancelled() => true,
                        () = ended.cancelled() => false,
                    };
                    if reset {
                        let _ = near.set_zero_linger();
                    }
                    running.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { addr, down, killed, open, _tasks: tasks, _stop: stop.drop_guard() }
    }

    /// Goes down with all that it was doing.
    fn go_down(&self) {
        self.down.store(true, Ordering::SeqCst);
        // Whoever comes when it is back is not meant by this.
        std::mem::take(&mut *self.killed.lock().unwrap()).cancel();
    }

    fn come_back(&self) {
        self.down.store(false, Ordering::SeqCst);
    }
}

/// Hands requests on as they are, and answers as the weather is. `true`: its end is a reset.
async fn blow(weather: Weather, near: &TcpStream, far: &TcpStream) -> bool {
    let up = async {
        let mut space = vec![0; 64 * 1024];
        while let Ok(n) = read(near, &mut space).await
            && n > 0
            && write(far, &space[..n]).await.is_ok()
        {}
    };
    let down = async {
        let (mut space, mut passed) = (vec![0; 16 * 1024], 0);
        loop {
            let n = match read(far, &mut space).await {
                Ok(n) if n > 0 => n,
                _ => return false,
            };
            let left = match weather {
                Reset(at) | HalfClosed(at) => n.min(usize::saturating_sub(at, passed)),
                _ => n,
            };
            if let Latency(ms) = weather {
                tokio::time::sleep(Duration::from_millis(ms)).await;
            }
            let size = match weather {
                Slices(size) | Bandwidth(size) => size,
                _ => left.max(1),
            };
            for piece in space[..left].chunks(size) {
                if write(near, piece).await.is_err() {
                    return false;
                }
                match weather {
                    Bandwidth(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                    _ => tokio::task::yield_now().await,
                }
            }
            passed += left;
            match weather {
                Reset(at) if passed >= at => return true,
                HalfClosed(at) if passed >= at => {
                    // Only this direction ends.
                    end_writing(near);
                    std::future::pending::<()>().await;
                }
                _ => {}
            }
        }
    };
    let (up, down) = (std::pin::pin!(up), std::pin::pin!(down));
    let up = async {
        up.await;
        // The gateway has gone: so does the answer.
        false
    };
    tokio::select! {
        reset = down => reset,
        reset = up => reset,
    }
}

async fn read(from: &TcpStream, space: &mut [u8]) -> std::io::Result<usize> {
    loop {
        from.readable().await?;
        match from.try_read(space) {
            Err(why) if why.kind() == std::io::ErrorKind::WouldBlock => {}
            other => return other,
        }
    }
}

async fn write(to: &TcpStream, mut bytes: &[u8]) -> std::io::Result<()> {
    while !bytes.is_empty() {
        to.writable().await?;
        match to.try_write(bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(why) if why.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(why) => return Err(why),
        }
    }
    Ok(())
}

/// Ends the direction in which we write.
fn end_writing(stream: &TcpStream) {
    use std::os::fd::AsFd as _;
    let same = std::net::TcpStream::from(stream.as_fd().try_clone_to_owned().unwrap());
    let _ = same.shutdown(std::net::Shutdown::Write);
}

/// A gateway whose first provider is behind the proxy, and whose second is not.
async fn behind(proxy: &Proxy, second: &Upstream) -> Gateway {
    let provider = |addr: SocketAddr, key: &str| {
        json!({
            "providerType": "anthropic-compatible", "baseUrl": format!("http://{addr}"),
            "apiKeyRef": format!("env:{key}"), "maxRetries": 0,
        })
    };
    let mut config = json!({
        "providers": { "first": provider(proxy.addr, "FIRST"), "second": provider(second.addr, "SECOND") },
        "routing": { "defaultProvider": "first", "fallbackChain": ["first", "second"] },
    });
    // What a prompt scripts is for the first one alone.
    config["providers"]["second"]["headers"] = json!({ "x-sim": "text=fine" });
    Gateway::start_with(config, &[], &[("FIRST", "sk-key-of-the-first"), ("SECOND", "sk-key-of-the-second")]).await
}

/// A stream that takes its time.
fn scripted(script: &str) -> Vec<u8> {
    let body = prompt(&format!("Hello. [[sim {script}]]"), true);
    let head = format!(
        "POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nanthropic-version: 2023-06-01\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body.as_bytes()].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_the_weather_does_a_client_gets_a_whole_answer_or_is_told() {
    let second = upstream().await;
    for weather in [
        Fair,
        Latency(20),
        Slices(1),
        Slices(7),
        Bandwidth(500),
        Reset(0),
        Reset(100),
        Reset(1500),
        HalfClosed(0),
        HalfClosed(100),
        HalfClosed(1500),
    ] {
        let first = upstream().await;
        let proxy = Proxy::before(&first, weather).await;
        let gateway = behind(&proxy, &second).await;
        let answer = gateway.ask(scripted("events=40 size=40")).await;
        assert_eq!((answer.status, answer.ended), (200, Ended::Whole), "{weather:?}");
        let text = answer.text();
        assert_eq!(text.matches("event: message_start").count(), 1, "{weather:?}: {text}");
        match weather {
            Reset(1500) | HalfClosed(1500) => {
                assert_eq!(answer.header("x-cco-provider"), Some("first"));
                assert!(text.contains("event: error") && !text.contains("event: message_stop"), "{weather:?}: {text}");
            }
            Reset(_) | HalfClosed(_) => check_served(&answer, "second", "2"),
            _ => check_served(&answer, "first", "1"),
        }
        assert_eq!(text.contains("event: message_stop"), !text.contains("event: error"), "{weather:?}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_streams_while_the_first_provider_is_killed_and_comes_back() {
    const BEGUN: usize = 250;
    const WAITING: usize = 250;
    let (first, second) = (upstream().await, upstream().await);
    let proxy = Proxy::before(&first, Fair).await;
    let gateway = Arc::new(behind(&proxy, &second).await);
    let mut tasks = tokio::task::JoinSet::new();
    let begun = Arc::new(tokio::sync::Semaphore::new(0));
    for n in 0..BEGUN + WAITING {
        let (gateway, begun) = (gateway.clone(), begun.clone());
        tasks.spawn(async move {
            let mut client = gateway.client().await;
            // Of the second half nothing has come when it happens. The first half would take very long.
            let request =
                if n < BEGUN { scripted("events=5000 every=1000") } else { scripted("fault=delay-head=600000") };
            client.send(request).await;
            if n >= BEGUN {
                let answer = client.answer().await;
                return (n, answer);
            }
            let mut answer = client.head().await;
            client.read_until(&mut answer, "content_block_delta").await;
            begun.add_permits(1);
            let rest = rest(&mut client, answer).await;
            (n, rest)
        });
    }
    let all_begun = soon(begun.acquire_many(BEGUN as u32)).await.unwrap();
    // All are on their way. Some may have been sent to the second one by what the first says of its rate limits.
    until(async || gateway.health().await["requests"]["total"] == BEGUN + WAITING).await;
    assert!(proxy.open.load(Ordering::SeqCst) > BEGUN, "most of them are at the first one");
    drop(all_begun);
    let before = gateway.memory_now();
    proxy.go_down();
    let (mut told, mut served) = (0, 0);
    while let Some(done) = tasks.join_next().await {
        let (n, answer) = done.unwrap();
        assert_eq!((answer.status, answer.ended), (200, Ended::Whole), "{}", answer.text());
        if n < BEGUN && answer.header("x-cco-provider") == Some("first") {
            let text = answer.text();
            let (whole, error) = text.split_once("event: error\ndata: ").expect("an error event");
            assert!(whole.ends_with("\n\n") && error.contains("\"type\":\"api_error\""), "{error}");
            told += 1;
        } else {
            assert_eq!(answer.header("x-cco-provider"), Some("second"), "{}", answer.text());
            assert!(contains(&answer.body, b"event: message_stop"), "{}", answer.text());
            served += 1;
        }
    }
    assert_eq!(told + served, BEGUN + WAITING);
    assert!(told > BEGUN / 2, "{told} streams had begun");
    // While it is down nobody notices.
    for _ in 0..20 {
        let answer = gateway.ask(unsigned(true)).await;
        assert_eq!((answer.status, answer.header("x-cco-provider")), (200, Some("second")));
    }
    proxy.come_back();
    // The circuit lets one request try, and that finds it well.
    let back = async {
        loop {
            let answer = gateway.ask(unsigned(true)).await;
            assert_eq!((answer.status, answer.ended), (200, Ended::Whole), "{}", answer.text());
            if answer.header("x-cco-provider") == Some("first") {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(180), back).await.expect("it is found again");
    let after = gateway.memory_now();
    assert!(after < before + (24 << 20), "memory grew from {before} to {after} bytes");
}

/// The rest of an answer whose beginning was read.
async fn rest(client: &mut Client, mut answer: crate::common::Answer) -> crate::common::Answer {
    answer.ended = loop {
        match client.piece().await {
            crate::common::Piece::Data(data) => answer.body.extend_from_slice(&data),
            crate::common::Piece::End(ended) => break ended,
        }
    };
    answer
}
