//! TLS in front of a plain server: makes any test upstream an `https` one.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::certs::ServerCert;

/// What one finished handshake agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handshake {
    /// The name that the client asked for; clients send none for an address.
    pub server_name: Option<String>,
    /// The protocol that was chosen.
    pub alpn: Option<Vec<u8>>,
    /// The client came back to an earlier session.
    pub resumed: bool,
}

/// The running front.
pub struct TlsFront {
    /// Where it listens.
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Handshake>>>,
    _tasks: JoinSet<()>,
}

impl TlsFront {
    /// The handshakes that came to an end well, in order.
    pub fn handshakes(&self) -> Vec<Handshake> {
        self.seen.lock().unwrap().clone()
    }
}

/// Terminates TLS on the listener with the certificate, and forwards the plain bytes to the target, both ways, for as
/// many connections as come.
pub fn tls_front(listener: TcpListener, cert: &ServerCert, target: SocketAddr) -> TlsFront {
    let (address, acceptor) = (listener.local_addr().unwrap(), cert.acceptor());
    let seen: Arc<Mutex<Vec<Handshake>>> = Arc::default();
    let record = seen.clone();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((tcp, _)) = listener.accept().await {
            let (acceptor, record) = (acceptor.clone(), record.clone());
            connections.spawn(async move {
                tcp.set_nodelay(true).unwrap();
                let Ok(mut tls) = acceptor.accept(tcp).await else { return };
                let state = tls.get_ref().1;
                record.lock().unwrap().push(Handshake {
                    server_name: state.server_name().map(str::to_owned),
                    alpn: state.alpn_protocol().map(<[u8]>::to_vec),
                    resumed: state.handshake_kind() == Some(rustls::HandshakeKind::Resumed),
                });
                let Ok(mut plain) = TcpStream::connect(target).await else { return };
                plain.set_nodelay(true).unwrap();
                // How it ends is the business of the two ends.
                let _ = copy_bidirectional(&mut tls, &mut plain).await;
            });
        }
    });
    TlsFront { address, seen, _tasks: tasks }
}
