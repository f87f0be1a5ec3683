//! Options of sockets that we listen on and accept, and the limit on how many there may be.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::TcpStream;

use super::dial::RECEIVE_BUFFER;

/// The kernel's send buffer of an accepted connection. Left alone it grows to many megabytes for every client that has
/// stopped reading, and that memory shows nowhere in the process. (Linux books twice this number, and caps it at
/// `net.core.wmem_max`.)
pub const SEND_BUFFER: usize = 256 * 1024;

/// Connections that wait to be accepted; one more is not answered, and its client asks again a second later, then three,
/// then seven. (Linux allows no more than `net.core.somaxconn`, which is this by default.)
const BACKLOG: i32 = 4096;

/// What clients connect to.
pub type Listener = TcpListener;

/// Opens a listener, ready to be given to the runtime. The port may have been in use a moment ago, but nobody can
/// listen on it beside us. A listener on `[::]` takes IPv4 as well.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // On Windows the option means something else: to take the port from whoever has it.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    // Accepted connections inherit it, in time for their first window.
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Sets the options of a connection that was just accepted.
pub fn accepted(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_send_buffer_size(SEND_BUFFER)
}

/// Makes the end of a connection a reset: what is not sent by then is lost, and the other side sees a failure.
pub fn reset_on_close(stream: &TcpStream) {
    // Where the system refuses, the end is an orderly one.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// Raises the soft limit of open files to the hard one, as far as the system lets us, and returns what holds then.
#[cfg(unix)]
pub fn raise_nofile_limit() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    /// More than anybody has connections; some systems refuse "unlimited", or the number of the hard limit.
    const PLENTY: u64 = 1 << 20;
    const MACOS: u64 = 10_240;

    let limit = getrlimit(Resource::Nofile);
    let Some(soft) = limit.current else { return u64::MAX };
    for want in [limit.maximum.unwrap_or(PLENTY), MACOS] {
        if want <= soft {
            break;
        }
        let raised = Rlimit { current: Some(want), maximum: limit.maximum };
        if setrlimit(Resource::Nofile, raised).is_ok() {
            return want;
        }
    }
    soft
}

/// There is no such limit here.
#[cfg(not(unix))]
pub fn raise_nofile_limit() -> u64 {
    u64::MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_listener_is_alone_on_its_port_and_its_connections_have_bounded_buffers() {
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(listen(address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let (client, server) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (_client, server) = (client.unwrap(), server.unwrap().0);
        accepted(&server).unwrap();
        assert!(server.nodelay().unwrap());
        let socket = SockRef::from(&server);
        assert!(socket.send_buffer_size().unwrap() <= 2 * SEND_BUFFER);
        assert!(socket.recv_buffer_size().unwrap() <= 2 * RECEIVE_BUFFER);
    }

    #[cfg(unix)]
    #[test]
    fn the_limit_of_open_files_ends_up_at_the_hard_one() {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        let raised = raise_nofile_limit();
        assert!(limit.current.is_none_or(|soft| raised >= soft));
        if cfg!(target_os = "linux") {
            assert_eq!(Some(raised), limit.maximum.or(Some(raised)));
        }
        assert_eq!(raise_nofile_limit(), raised, "a second call changes nothing");
    }
}
