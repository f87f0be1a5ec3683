//! Connections to upstreams, and those that wait for their next request.

use std::cell::RefCell;
use std::time::Duration;

use foldhash::HashMap;
use tokio::time::Instant;

use crate::io::{Inbox, is_quiet};
use crate::net::Stream;
use crate::origin::Origin;

/// Idle connections that are kept for one origin.
const PER_ORIGIN: usize = 256;
/// How long a connection waits for its next request. Upstreams close at 60 s and later; we go first.
const IDLE: Duration = Duration::from_secs(50);

/// One connection to an upstream, with what was read from it and not yet understood.
#[derive(Debug)]
pub struct Connection {
    /// The transport.
    pub io: Stream,
    /// What was read.
    pub inbox: Inbox,
    /// Whether it has carried an exchange before.
    pub reused: bool,
}

impl Connection {
    /// A fresh connection.
    pub fn new(io: Stream) -> Self {
        Self { io, inbox: Inbox::default(), reused: false }
    }
}

/// The idle connections of one worker.
#[derive(Debug, Default)]
pub struct Pool {
    idle: RefCell<HashMap<Origin, Vec<(Connection, Instant)>>>,
}

impl Pool {
    /// The connection to this origin that was used last and is still open and quiet now.
    pub fn take(&self, origin: &Origin, now: Instant) -> Option<Connection> {
        let mut idle = self.idle.borrow_mut();
        let list = idle.get_mut(origin)?;
        while let Some((mut connection, since)) = list.pop() {
            // One that sent something nobody asked for may have meant it for somebody else's request.
            if now - since < IDLE && is_quiet(&mut connection.inbox, &mut connection.io) {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection for the next request to this origin, if its upstream has said nothing beyond its answer.
    pub fn put(&self, origin: &Origin, mut connection: Connection) {
        if !is_quiet(&mut connection.inbox, &mut connection.io) {
            return;
        }
        connection.reused = true;
        let mut idle = self.idle.borrow_mut();
        let list = match idle.get_mut(origin) {
            Some(list) => list,
            None => idle.entry(origin.clone()).or_default(),
        };
        if list.len() < PER_ORIGIN {
            list.push((connection, Instant::now()));
        }
    }

    /// Closes what has waited too long.
    pub fn sweep(&self) {
        let now = Instant::now();
        self.idle.borrow_mut().retain(|_, list| {
            list.retain(|(_, since)| now - *since < IDLE);
            !list.is_empty()
        });
    }

    /// Closes everything.
    pub fn clear(&self) {
        self.idle.borrow_mut().clear();
    }

    /// Connections that wait now.
    pub fn len(&self) -> usize {
        self.idle.borrow().values().map(Vec::len).sum()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
