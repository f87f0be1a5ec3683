//! Who is at the other end of a connection on this machine, and who holds a port: what Linux tells in `/proc`.
//!
//! [`peer_uid`] is one question to the kernel, some microseconds; where the kernel does not take it, a table in `/proc`
//! is read instead, which takes milliseconds on a machine with many sockets: ask once per connection. [`port_holder`]
//! looks through all processes: only for the last words before giving up.

use std::net::SocketAddr;

#[cfg(target_os = "linux")]
pub(super) use imp::{Row, canonical};

/// The user whose process is at the other end of an accepted connection. Only connections over loopback have one, and
/// only where the system tells; otherwise there is none. A forwarder (a container's, `ssh -L`) is taken for its client.
pub fn peer_uid(local: SocketAddr, peer: SocketAddr) -> Option<u32> {
    let is_here = |address: SocketAddr| address.ip().to_canonical().is_loopback();
    if is_here(local) && is_here(peer) { imp::owner_of(peer, local) } else { None }
}

/// The user that we act as.
pub fn own_uid() -> u32 {
    imp::own_uid()
}

/// The process that listens on an address, in words: `pid 1234 (nginx)`. Processes of other users show only their user.
pub fn port_holder(address: SocketAddr) -> Option<String> {
    imp::port_holder(address)
}

#[cfg(not(target_os = "linux"))]
mod imp {
    use std::net::SocketAddr;

    pub(super) fn owner_of(_local: SocketAddr, _remote: SocketAddr) -> Option<u32> {
        None
    }

    #[cfg(unix)]
    pub(super) fn own_uid() -> u32 {
        rustix::process::geteuid().as_raw()
    }

    /// No user: equal to no peer's.
    #[cfg(not(unix))]
    pub(super) fn own_uid() -> u32 {
        u32::MAX
    }

    pub(super) fn port_holder(_address: SocketAddr) -> Option<String> {
        None
    }
}

#[cfg(target_os = "linux")]
mod imp {
    use std::fs;
    use std::io::{BufRead, BufReader, Read};
    use std::net::{IpAddr, SocketAddr};

    use super::super::diag;

    /// Connections of both families: an IPv4 connection of an IPv6 socket stands in the second file.
    const TABLES: [&str; 2] = ["/proc/net/tcp", "/proc/net/tcp6"];
    /// As much of a table is read: room for some 200,000 connections.
    const MAX_TABLE: u64 = 32 << 20;
    /// As many open files of other processes are looked at.
    const MAX_FILES: usize = 200_000;
    /// What the kernel says for a user that does not exist in our namespace: nobody in particular.
    const OVERFLOW_UID: u32 = 65534;

    const LISTEN: u8 = 0x0A;

    #[derive(Debug, PartialEq, Eq)]
    pub(in crate::net) struct Row {
        pub(in crate::net) local: SocketAddr,
        pub(in crate::net) remote: SocketAddr,
        pub(in crate::net) state: u8,
        pub(in crate::net) uid: u32,
        pub(in crate::net) inode: u64,
    }

    pub(super) fn own_uid() -> u32 {
        rustix::process::geteuid().as_raw()
    }

    pub(super) fn owner_of(local: SocketAddr, remote: SocketAddr) -> Option<u32> {
        let (local, remote) = (canonical(local), canonical(remote));
        let row = diag::connection(local, remote).ok().or_else(|| in_tables(local, remote))?;
        (has_owner(&row) && row.uid != OVERFLOW_UID).then_some(row.uid)
    }

    pub(in crate::net) fn in_tables(local: SocketAddr, remote: SocketAddr) -> Option<Row> {
        find(|row| (row.local == local && row.remote == remote).then_some(row))
    }

    /// A connection whose process has closed it lingers without an owner, and says user 0: that is not root's.
    pub(super) fn has_owner(row: &Row) -> bool {
        const ESTABLISHED: u8 = 0x01;
        const FIN_WAIT: [u8; 2] = [0x04, 0x05];
        const CLOSE_WAIT: u8 = 0x08;
        row.inode != 0 && (row.state == ESTABLISHED || row.state == CLOSE_WAIT || FIN_WAIT.contains(&row.state))
    }

    pub(super) fn port_holder(address: SocketAddr) -> Option<String> {
        let address = canonical(address);
        let row = find(|row| {
            let same_place =
                row.local.ip() == address.ip() || row.local.ip().is_unspecified() || address.ip().is_unspecified();
            (row.state == LISTEN && row.local.port() == address.port() && same_place).then_some(row)
        })?;
        Some(process_with(row.inode).unwrap_or_else(|| format!("a process of user {}", row.uid)))
    }

    fn process_with(inode: u64) -> Option<String> {
        let wanted = format!("socket:[{inode}]");
        let mut left = MAX_FILES;
        for process in fs::read_dir("/proc").ok()?.flatten() {
            let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            // Not ours to look into: the next one may be.
            let Ok(files) = fs::read_dir(process.path().join("fd")) else { continue };
            for file in files.flatten() {
                left = left.checked_sub(1)?;
                if fs::read_link(file.path()).is_ok_and(|target| target.as_os_str() == wanted.as_str()) {
                    let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
                    let name: String = name.trim_end().chars().filter(|c| !c.is_control()).collect();
                    return Some(if name.is_empty() { format!("pid {pid}") } else { format!("pid {pid} ({name})") });
                }
            }
        }
        None
    }

    /// The first row of either table that `pick` wants, read line by line.
    fn find(pick: impl Fn(Row) -> Option<Row>) -> Option<Row> {
        TABLES.iter().find_map(|table| {
            let file = fs::File::open(table).ok()?;
            let mut lines = BufReader::with_capacity(64 * 1024, file.take(MAX_TABLE));
            let mut line = Vec::with_capacity(256);
            loop {
                line.clear();
                if lines.read_until(b'\n', &mut line).ok()? == 0 {
                    return None;
                }
                if let Some(found) = std::str::from_utf8(&line).ok().and_then(parse).and_then(&pick) {
                    return Some(found);
                }
            }
        })
    }

    /// `sl local remote state queues timer retransmits uid timeout inode …`; the heading is no row.
    pub(super) fn parse(line: &str) -> Option<Row> {
        let mut fields = line.split_ascii_whitespace();
        let local = address(fields.nth(1)?)?;
        let remote = address(fields.next()?)?;
        let state = u8::from_str_radix(fields.next()?, 16).ok()?;
        let uid = fields.nth(3)?.parse().ok()?;
        let inode = fields.nth(1)?.parse().ok()?;
        Some(Row { local, remote, state, uid, inode })
    }

    /// `0100007F:1F90`: each 32-bit word of the address as this machine reads it, then the port as people do.
    fn address(text: &str) -> Option<SocketAddr> {
        let (words, port) = text.split_once(':')?;
        let word = |at: usize| {
            let word = words.get(at * 8..at * 8 + 8)?;
            u32::from_str_radix(word, 16).ok().map(u32::to_ne_bytes)
        };
        let ip = match words.len() {
            8 => IpAddr::from(word(0)?),
            32 => {
                let mut octets = [0; 16];
                for at in 0..4 {
                    octets[at * 4..at * 4 + 4].copy_from_slice(&word(at)?);
                }
                IpAddr::from(octets)
            }
            _ => return None,
        };
        Some(canonical(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?)))
    }

    /// IPv4 inside IPv6 is IPv4, and scopes do not matter.
    pub(in crate::net) fn canonical(address: SocketAddr) -> SocketAddr {
        SocketAddr::new(address.ip().to_canonical(), address.port())
    }
}

#[cfg(target_os = "linux")]
#[cfg(test)]
mod tests {
    use super::imp::{has_owner, in_tables, parse};
    use super::*;
    use std::net::{TcpListener, TcpStream};

    fn pair(listen: &str, connect: Option<&str>) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind(listen).unwrap();
        let mut to = listener.local_addr().unwrap();
        if let Some(ip) = connect {
            to.set_ip(ip.parse().unwrap());
        }
        let client = TcpStream::connect(to).unwrap();
        (client, listener.accept().unwrap().0)
    }

    fn uid_seen(server: &TcpStream) -> Option<u32> {
        peer_uid(server.local_addr().unwrap(), server.peer_addr().unwrap())
    }

    #[test]
    fn the_peer_of_a_loopback_connection_is_our_own_user() {
        for (listen, connect) in [("127.0.0.1:0", None), ("[::1]:0", None), ("[::]:0", Some("127.0.0.1"))] {
            let (_client, server) = pair(listen, connect);
            assert_eq!(uid_seen(&server), Some(own_uid()), "{listen}");
            // Where the kernel is not asked, its table says the same.
            let ends = (canonical(server.peer_addr().unwrap()), canonical(server.local_addr().unwrap()));
            let row = in_tables(ends.0, ends.1).expect("the connection stands in the table");
            assert_eq!((row.uid, has_owner(&row)), (own_uid(), true), "{listen}");
        }
    }

    #[test]
    fn a_peer_that_has_closed_its_socket_is_nobody() {
        let (client, server) = pair("127.0.0.1:0", None);
        client.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(uid_seen(&server), Some(own_uid()), "half closed, still held");
        drop(client);
        assert_eq!(uid_seen(&server), None);
    }

    #[test]
    fn addresses_that_are_not_loopback_have_no_user() {
        let (_client, server) = pair("127.0.0.1:0", None);
        let far = "192.0.2.1:1".parse().unwrap();
        assert_eq!(peer_uid(server.local_addr().unwrap(), far), None);
        assert_eq!(peer_uid(far, server.peer_addr().unwrap()), None);
        assert_eq!(peer_uid(server.local_addr().unwrap(), "127.0.0.1:1".parse().unwrap()), None);
    }

    #[test]
    fn the_holder_of_a_port_is_named() {
        // An address of its own: nobody else takes the port there once it is free.
        let listener = TcpListener::bind("127.0.0.42:0").unwrap();
        let address = listener.local_addr().unwrap();
        let comm = std::fs::read_to_string("/proc/self/comm").unwrap();
        let want = format!("pid {} ({})", std::process::id(), comm.trim_end());
        assert_eq!(port_holder(address), Some(want.clone()));
        assert_eq!(port_holder(SocketAddr::new([0, 0, 0, 0].into(), address.port())), Some(want));
        drop(listener);
        assert_eq!(port_holder(address), None);
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn a_row_of_the_kernels_table_is_read() {
        let line = "   3: 0100007F:D50E 0200007F:1F90 01 00000000:00000000 00:00000000 00000000  1000        0 734512 1 0000 20 4 30 10 -1";
        let want = Row {
            local: "127.0.0.1:54542".parse().unwrap(),
            remote: "127.0.0.2:8080".parse().unwrap(),
            state: 1,
            uid: 1000,
            inode: 734_512,
        };
        assert_eq!(parse(line).as_ref(), Some(&want));
        assert!(has_owner(&want));
        assert!(!has_owner(&Row { state: 6, ..parse(line).unwrap() }), "TIME_WAIT says user 0");
        assert!(!has_owner(&Row { inode: 0, ..parse(line).unwrap() }), "an orphan says user 0");
        let v6 =
            "   0: 00000000000000000000000001000000:1F90 0000000000000000FFFF00000100007F:0050 0A 0:0 0:0 0 0 0 1 1";
        let row = parse(v6).unwrap();
        assert_eq!((row.local, row.remote), ("[::1]:8080".parse().unwrap(), "127.0.0.1:80".parse().unwrap()));
        for bad in [
            "",
            "  sl  local_address rem_address   st tx_queue",
            "0: zz:1 zz:1 01",
            "0: 0100007F:1 é00007F:1 01 0 0 0 0 0 0",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
