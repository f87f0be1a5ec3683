//! Who is on the other end of an accepted connection.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::net::SocketAddr;

use crate::net;

/// The other end of a connection, and ours.
#[derive(Debug, Clone)]
pub struct Peer {
    remote: SocketAddr,
    local: SocketAddr,
    /// Whether it is a process of our own user: looked up when first asked, once a connection.
    own_user: OnceCell<bool>,
    /// Whether it came over the socket that only our own user can connect to.
    own_socket: bool,
}

impl Peer {
    /// Of an accepted socket.
    pub fn new(remote: SocketAddr, local: SocketAddr) -> Self {
        Self { remote, local, own_user: OnceCell::new(), own_socket: false }
    }

    /// One whose user is known.
    pub fn known(remote: SocketAddr, local: SocketAddr, own_user: bool) -> Self {
        Self { remote, local, own_user: OnceCell::from(own_user), own_socket: false }
    }

    /// One that came over our own socket, and is of our own user.
    pub fn over_own_socket() -> Self {
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        Self { own_socket: true, ..Self::known(nowhere, nowhere, true) }
    }

    /// Whether it came over the socket that only our own user can connect to: no page of a browser's can.
    pub fn is_on_own_socket(&self) -> bool {
        self.own_socket
    }

    /// The address and port that it connected to.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Whether it is on this machine.
    pub fn is_loopback(&self) -> bool {
        self.remote.ip().to_canonical().is_loopback()
    }

    /// Who that is, as far as it is known without looking it up.
    pub fn name(&self, by_token: bool) -> Cow<'static, str> {
        let who = if self.own_user.get() == Some(&true) {
            "own user"
        } else if by_token {
            "token"
        } else {
            "this machine"
        };
        if self.is_loopback() { who.into() } else { format!("{who} at {}", self.remote.ip().to_canonical()).into() }
    }

    /// Whether it is a process of our own user on this machine. `false` where the system does not tell.
    pub fn is_own_user(&self) -> bool {
        let look_up = || net::peer_uid(self.local, self.remote) == Some(net::own_uid());
        self.is_loopback() && *self.own_user.get_or_init(look_up)
    }
}
