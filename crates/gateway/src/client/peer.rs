//! Who is on the other end of an accepted connection.

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
}

impl Peer {
    /// Of an accepted socket.
    pub fn new(remote: SocketAddr, local: SocketAddr) -> Self {
        Self { remote, local, own_user: OnceCell::new() }
    }

    /// One whose user is known.
    pub fn known(remote: SocketAddr, local: SocketAddr, own_user: bool) -> Self {
        Self { remote, local, own_user: OnceCell::from(own_user) }
    }

    /// The address and port that it connected to.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Whether it is on this machine.
    pub fn is_loopback(&self) -> bool {
        self.remote.ip().to_canonical().is_loopback()
    }

    /// Whether it is a process of our own user on this machine. `false` where the system does not tell.
    pub fn is_own_user(&self) -> bool {
        let look_up = || net::peer_uid(self.local, self.remote) == Some(net::own_uid());
        self.is_loopback() && *self.own_user.get_or_init(look_up)
    }
}
