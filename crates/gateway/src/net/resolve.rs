//! From a host to addresses that may be connected to: a small cache over the system's resolver, and the rules.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex as AsyncMutex, Semaphore};
use tokio::time::Instant;

use super::error::{Cause, Fault};

/// How long an answer is used without asking again.
const FRESH: Duration = Duration::from_secs(30);
/// How long an answer is used when asking again fails: an outage of the name servers is not one of the upstream.
const STALE: Duration = Duration::from_secs(3600);
/// Names that are remembered. Hosts come from the configuration only, so this is never reached in practice.
const MAX_NAMES: usize = 64;
/// Look-ups under way at one time: each holds a thread, and a look-up cannot be interrupted.
const MAX_LOOKUPS: usize = 16;
/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 8;

/// How a name is looked up; called on a thread that may block.
pub type Lookup = Arc<dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync>;

/// A resolver with a memory.
pub(super) struct Resolver {
    lookup: Lookup,
    names: Mutex<HashMap<String, Arc<Name>>>,
    lookups: Arc<Semaphore>,
}

/// One remembered name. The lock makes simultaneous questions for it one question.
struct Name {
    asking: Arc<AsyncMutex<()>>,
    answer: Mutex<Option<Answer>>,
    created: Instant,
}

struct Answer {
    addresses: Arc<[IpAddr]>,
    at: Instant,
    doubted: bool,
}

impl Name {
    fn fresh(&self) -> Option<Arc<[IpAddr]>> {
        self.answer_if(|answer| answer.at.elapsed() < FRESH && !answer.doubted)
    }

    fn stale(&self) -> Option<Arc<[IpAddr]>> {
        self.answer_if(|answer| answer.at.elapsed() < STALE)
    }

    fn keep(&self, addresses: Arc<[IpAddr]>) {
        let answer = Answer { addresses, at: Instant::now(), doubted: false };
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
    }

    fn answer_if(&self, good: impl Fn(&Answer) -> bool) -> Option<Arc<[IpAddr]>> {
        let answer = self.answer.lock().unwrap_or_else(PoisonError::into_inner);
        answer.as_ref().filter(|answer| good(answer)).map(|answer| answer.addresses.clone())
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

impl Resolver {
    pub(super) fn new(lookup: Lookup) -> Self {
        Self { lookup, names: Mutex::default(), lookups: Arc::new(Semaphore::new(MAX_LOOKUPS)) }
    }

    /// The addresses of a host, the families taking turns; never empty.
    pub(super) async fn resolve(&self, host: &str) -> Result<Arc<[IpAddr]>, Fault> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok([address].into());
        }
        if is_localhost(host) {
            // Never a question to a name server; and local services listen on IPv4 more often.
            return Ok([IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)].into());
        }
        let name = self.name(host);
        if let Some(fresh) = name.fresh() {
            return Ok(fresh);
        }
        let asking = name.asking.clone().lock_owned().await;
        if let Some(fresh) = name.fresh() {
            return Ok(fresh);
        }
        let slot = self.lookups.clone().acquire_owned().await.expect("the semaphore is never closed");
        let (lookup, question, shared) = (self.lookup.clone(), host.to_owned(), name.clone());
        // All of it on the thread: whoever asked may leave at its deadline; the answer is kept for the next one, and
        // until it is there nobody asks again.
        let asked = tokio::task::spawn_blocking(move || {
            let found = lookup(&question).map(take_turns);
            if let Ok(addresses) = &found
                && !addresses.is_empty()
            {
                shared.keep(addresses.clone());
            }
            drop((asking, slot));
            found
        });
        let failure = match asked.await {
            Ok(Ok(addresses)) if !addresses.is_empty() => return Ok(addresses),
            Ok(Ok(_)) => Fault::new(Cause::DnsNotFound, format_args!("`{host}` has no address")),
            Ok(Err(e)) => Fault::new(cause_of(&e), format_args!("`{host}`: {e}")),
            Err(e) => Fault::new(Cause::DnsFailed, format_args!("`{host}`: {e}")),
        };
        name.stale().ok_or(failure)
    }

    /// Ask again next time, since none of the addresses could be reached; they stay as the answer of last resort.
    pub(super) fn doubt(&self, host: &str) {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = names.get(host)
            && let Some(answer) = &mut *name.answer.lock().unwrap_or_else(PoisonError::into_inner)
        {
            answer.doubted = true;
        }
    }

    fn name(&self, host: &str) -> Arc<Name> {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = names.get(host) {
            return name.clone();
        }
        if names.len() >= MAX_NAMES
            && let Some(oldest) = names.iter().min_by_key(|(_, n)| n.created).map(|(host, _)| host.clone())
        {
            names.remove(&oldest);
        }
        let name = Arc::new(Name { asking: Arc::default(), answer: Mutex::default(), created: Instant::now() });
        names.insert(host.to_owned(), name.clone());
        name
    }
}

/// The operating system's resolver.
pub(super) fn system_lookup() -> Lookup {
    Arc::new(|host| Ok((host, 0).to_socket_addrs()?.map(|address| address.ip()).collect()))
}

/// The system's resolver tells its reasons in words only.
fn cause_of(e: &io::Error) -> Cause {
    const HOST_NOT_FOUND_ON_WINDOWS: i32 = 11001;
    let said = e.to_string();
    let unknown = ["not known", "No address associated", "does not exist", "not found"];
    if e.raw_os_error() == Some(HOST_NOT_FOUND_ON_WINDOWS) || unknown.iter().any(|words| said.contains(words)) {
        Cause::DnsNotFound
    } else {
        Cause::DnsFailed
    }
}

/// Keeps the system's order within a family and lets the families alternate, so that a dead family costs one step.
fn take_turns(addresses: Vec<IpAddr>) -> Arc<[IpAddr]> {
    let mut seen = Vec::with_capacity(MAX_ADDRESSES);
    for address in addresses {
        if !seen.contains(&address) {
            seen.push(address);
        }
    }
    let first_is_v6 = seen.first().is_some_and(IpAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = seen.into_iter().partition(|a| a.is_ipv6() == first_is_v6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut turns = Vec::with_capacity(MAX_ADDRESSES);
    while turns.len() < MAX_ADDRESSES {
        let before = turns.len();
        turns.extend(first.next());
        turns.extend(second.next());
        if turns.len() == before {
            break;
        }
    }
    turns.truncate(MAX_ADDRESSES);
    turns.into()
}

/// `localhost` and everything below it is this machine, whatever a name server says.
pub(super) fn is_localhost(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    host == "localhost" || host.ends_with(".localhost")
}

/// The host means this machine by the way it is written.
pub fn names_loopback(host: &str) -> bool {
    is_localhost(host) || host.parse::<IpAddr>().is_ok_and(|address| plain(address).is_loopback())
}

/// The IPv4 address inside an IPv6 one that merely wraps it (mapped, or NAT64): rules are for the place it leads to.
pub(super) fn plain(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    match v6.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
            IpAddr::V4(Ipv4Addr::new(a, b, c, d))
        }
        _ => address.to_canonical(),
    }
}

/// Places that no configuration can mean as an upstream: link-local addresses (where clouds hand out the machine's own
/// credentials), the metadata services outside of that range, multicast, broadcast, "this network".
pub(super) fn is_forbidden(address: IpAddr) -> bool {
    match plain(address) {
        IpAddr::V4(v4) => {
            v4.is_link_local()
                || v4.is_broadcast()
                || v4.is_multicast()
                || v4.octets()[0] == 0
                || v4 == Ipv4Addr::new(100, 100, 100, 200)
                || v4 == Ipv4Addr::new(192, 0, 0, 192)
        }
        IpAddr::V6(v6) => {
            v6.is_unicast_link_local()
                || v6.is_multicast()
                || v6.is_unspecified()
                || v6 == Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// A resolver whose answers come from a list, and the count of questions it got.
    fn scripted(answers: Vec<io::Result<Vec<IpAddr>>>) -> (Resolver, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let (count, answers) = (asked.clone(), Mutex::new(answers.into_iter()));
        let lookup: Lookup = Arc::new(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            answers.lock().unwrap().next().expect("no more questions were expected")
        });
        (Resolver::new(lookup), asked)
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_used_for_half_a_minute_and_longer_when_asking_again_fails() {
        let (resolver, asked) =
            scripted(vec![Ok(vec![ip("192.0.2.1")]), Err(io::Error::other("no server")), Ok(vec![ip("192.0.2.2")])]);
        for (wait, want, questions) in
            [(0, "192.0.2.1", 1), (29, "192.0.2.1", 1), (2, "192.0.2.1", 2), (0, "192.0.2.2", 3)]
        {
            tokio::time::advance(Duration::from_secs(wait)).await;
            assert_eq!(resolver.resolve("llm.example").await.unwrap()[..], [ip(want)], "after {wait} s more");
            assert_eq!(asked.load(Ordering::SeqCst), questions);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_answer_is_not_served_for_ever() {
        let (resolver, _) = scripted(vec![Ok(vec![ip("192.0.2.1")]), Err(io::Error::other("no server"))]);
        resolver.resolve("llm.example").await.unwrap();
        tokio::time::advance(STALE).await;
        assert_eq!(resolver.resolve("llm.example").await.unwrap_err().cause, Cause::DnsFailed);
    }

    #[tokio::test]
    async fn simultaneous_questions_for_one_name_are_asked_once() {
        let (resolver, asked) = scripted(vec![Ok(vec![ip("192.0.2.1")])]);
        let (a, b, c) = tokio::join!(
            resolver.resolve("llm.example"),
            resolver.resolve("llm.example"),
            resolver.resolve("llm.example")
        );
        assert!(a.is_ok() && b.is_ok() && c.is_ok());
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn an_answer_that_comes_too_late_for_one_is_there_for_the_next() {
        let (gate, asked) = (Arc::new(std::sync::Barrier::new(2)), Arc::new(AtomicUsize::new(0)));
        let (wait, count) = (gate.clone(), asked.clone());
        let resolver = Resolver::new(Arc::new(move |_| {
            wait.wait();
            count.fetch_add(1, Ordering::SeqCst);
            Ok(vec![ip("192.0.2.1")])
        }));
        let impatient = tokio::time::timeout(Duration::from_millis(1), resolver.resolve("llm.example"));
        assert!(impatient.await.is_err());
        gate.wait();
        assert_eq!(resolver.resolve("llm.example").await.unwrap()[..], [ip("192.0.2.1")]);
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_doubted_answer_is_asked_for_again_but_stays_the_last_resort() {
        let (resolver, asked) =
            scripted(vec![Ok(vec![ip("192.0.2.1")]), Err(io::Error::other("no server")), Ok(vec![ip("192.0.2.2")])]);
        resolver.resolve("llm.example").await.unwrap();
        resolver.doubt("llm.example");
        assert_eq!(resolver.resolve("llm.example").await.unwrap()[..], [ip("192.0.2.1")]);
        assert_eq!(resolver.resolve("llm.example").await.unwrap()[..], [ip("192.0.2.2")]);
        assert_eq!(asked.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn the_memory_for_names_is_bounded() {
        let resolver = Resolver::new(Arc::new(|_| Ok(vec![IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))])));
        for n in 0..MAX_NAMES * 2 {
            resolver.resolve(&format!("{n}.example")).await.unwrap();
        }
        assert_eq!(resolver.names.lock().unwrap().len(), MAX_NAMES);
    }

    #[tokio::test]
    async fn a_name_that_does_not_exist_is_told_from_one_that_could_not_be_asked_for() {
        for (said, want) in [
            ("failed to lookup address information: Name or service not known", Cause::DnsNotFound),
            ("failed to lookup address information: No address associated with hostname", Cause::DnsNotFound),
            ("failed to lookup address information: nodename nor servname provided, or not known", Cause::DnsNotFound),
            ("failed to lookup address information: Temporary failure in name resolution", Cause::DnsFailed),
        ] {
            let (resolver, _) = scripted(vec![Err(io::Error::other(said))]);
            assert_eq!(resolver.resolve("llm.example").await.unwrap_err().cause, want, "{said}");
        }
        let (resolver, _) = scripted(vec![Ok(vec![])]);
        assert_eq!(resolver.resolve("llm.example").await.unwrap_err().cause, Cause::DnsNotFound);
    }

    #[tokio::test]
    async fn addresses_and_localhost_are_never_looked_up() {
        let (resolver, _) = scripted(vec![]);
        assert_eq!(resolver.resolve("::1").await.unwrap()[..], [ip("::1")]);
        assert_eq!(resolver.resolve("192.0.2.9").await.unwrap()[..], [ip("192.0.2.9")]);
        for host in ["localhost", "LOCALHOST.", "a.localhost"] {
            assert_eq!(resolver.resolve(host).await.unwrap()[..], [ip("127.0.0.1"), ip("::1")], "{host}");
        }
    }

    #[test]
    fn the_families_take_turns() {
        let given = ["2001:db8::1", "2001:db8::2", "192.0.2.1", "2001:db8::1", "192.0.2.2"].map(ip).to_vec();
        assert_eq!(take_turns(given)[..], ["2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2"].map(ip));
        assert_eq!(take_turns((0..99).map(|n| IpAddr::V4(Ipv4Addr::new(192, 0, 2, n))).collect()).len(), MAX_ADDRESSES);
    }

    #[test]
    fn forbidden_places_are_recognised_in_every_disguise() {
        for bad in [
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "fe80::1",
            "0.0.0.0",
            "0.1.2.3",
            "::",
            "224.0.0.1",
            "255.255.255.255",
            "ff02::1",
            "fd00:ec2::254",
            "100.100.100.200",
        ] {
            assert!(is_forbidden(ip(bad)), "{bad}");
        }
        for good in ["127.0.0.1", "::1", "10.0.0.1", "192.168.1.1", "100.64.0.1", "172.17.0.1", "fd00::1", "1.1.1.1"] {
            assert!(!is_forbidden(ip(good)), "{good}");
        }
    }
}
