//! A CONNECT proxy that keeps a record of what it tunnelled.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// How the proxy behaves.
#[derive(Debug, Clone)]
pub enum Manner {
    /// Opens every tunnel. Names are not looked up: every host is 127.0.0.1, at the port that was asked for.
    Good,
    /// The same, for those who send this value of `proxy-authorization`; others get 407.
    Password(String),
    /// Answers every request with these bytes, and closes.
    Answer(Vec<u8>),
    /// Never answers.
    Silent,
}

/// One request that the proxy got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// `host:port`
    pub target: String,
    /// `proxy-authorization`, if it was there.
    pub authorization: Option<String>,
    /// The tunnel was opened.
    pub opened: bool,
}

/// The running proxy.
pub struct ConnectProxy {
    /// Where it listens.
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    _tasks: JoinSet<()>,
}

impl ConnectProxy {
    /// Starts it.
    pub async fn start(manner: Manner) -> Self {
        Self::start_with(manner, None).await
    }

    /// Starts it as an `https://` proxy.
    pub async fn start_with(manner: Manner, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let record = asked.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                let (manner, record, tls) = (manner.clone(), record.clone(), tls.clone());
                connections.spawn(async move {
                    match tls {
                        None => serve(tcp, manner, record).await,
                        Some(tls) => {
                            if let Ok(io) = tls.accept(tcp).await {
                                serve(io, manner, record).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, asked, _tasks: tasks }
    }

    /// The value for `network.proxy`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What was asked of it so far, in order.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

async fn serve(mut io: impl AsyncRead + AsyncWrite + Unpin, manner: Manner, record: Arc<Mutex<Vec<Asked>>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match io.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
    let target = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()).unwrap_or("").to_owned();
    let authorization = head.lines().find_map(|line| line.strip_prefix("proxy-authorization: ")).map(str::to_owned);
    let opens = match &manner {
        Manner::Good => true,
        Manner::Password(value) => authorization.as_ref() == Some(value),
        Manner::Answer(_) | Manner::Silent => false,
    };
    let port = target.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok()).filter(|_| opens);
    record.lock().unwrap().push(Asked { target, authorization, opened: port.is_some() });
    let Some(port) = port else {
        let answer = match manner {
            Manner::Silent => return std::future::pending().await,
            Manner::Answer(bytes) => bytes,
            _ => b"HTTP/1.1 407 Proxy Authentication Required\r\nproxy-authenticate: Basic\r\n\r\n".to_vec(),
        };
        // The client may be gone already; and what it still sends is waited for, so that closing is no reset.
        let _ = io.write_all(&answer).await;
        let _ = io.shutdown().await;
        let _ = io.read_to_end(&mut Vec::new()).await;
        return;
    };
    let Ok(mut upstream) = TcpStream::connect(("127.0.0.1", port)).await else {
        let _ = io.write_all(b"HTTP/1.1 502 Bad Gateway\r\n\r\n").await;
        return;
    };
    if io.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.is_ok() {
        let _ = copy_bidirectional(&mut io, &mut upstream).await;
    }
}
