//! Dialing over real sockets: every way in which it works, and every cause for which it does not.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::certs::{Ca, ServerCert, Valid};
use common::connect_proxy::{Asked, ConnectProxy, Manner};
use common::tls_front::{Handshake, TlsFront, tls_front};
use gateway::net::{
    Cause, Dial, DialError, Dialer, ExtraRoots, Lookup, Proxy, ProxyEnv, RECEIVE_BUFFER, Settings, Step, Stream,
};
use gateway::origin::{BaseUrl, Origin};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// Enough for anything that works, on a machine that is busy.
const AMPLE: Duration = Duration::from_secs(30);
/// Enough to get to the step that never ends.
const SHORT: Duration = Duration::from_millis(500);

/// An upstream that says everything back in capitals.
struct Echo {
    address: SocketAddr,
    _tasks: JoinSet<()>,
}

async fn echo() -> Echo {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut tcp, _)) = listener.accept().await {
            connections.spawn(async move {
                let mut buf = [0; 1024];
                while let Ok(n @ 1..) = tcp.read(&mut buf).await {
                    buf[..n].make_ascii_uppercase();
                    if tcp.write_all(&buf[..n]).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    Echo { address, _tasks: tasks }
}

/// The echo behind TLS.
async fn secure_echo(cert: &ServerCert) -> (TlsFront, Echo) {
    let echo = echo().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    (tls_front(listener, cert, echo.address), echo)
}

fn origin(url: impl AsRef<str>) -> Origin {
    url.as_ref().parse::<BaseUrl>().unwrap().origin
}

/// A name server for which every name is this machine.
fn all_names_are_here() -> Lookup {
    Arc::new(|_| Ok(vec![IpAddr::from([127, 0, 0, 1])]))
}

/// A name server that fails the test when it is asked.
fn no_names() -> Lookup {
    Arc::new(|name| panic!("`{name}` was looked up"))
}

/// A dialer that trusts only what the settings say.
fn dialer(settings: Settings) -> Dialer {
    Dialer::with_system(settings, all_names_are_here(), Vec::new)
}

fn trusting(ca: &Ca) -> Dialer {
    dialer(Settings { extra_roots: ca.roots(), ..Settings::default() })
}

fn through(proxy: &str) -> Proxy {
    Proxy::parse(proxy, &ProxyEnv::default()).unwrap()
}

async fn check_works(dialer: &Dialer, origin: &Origin) -> Stream {
    let mut stream = dialer.dial(origin, AMPLE).await.unwrap();
    stream.write_all(b"are you there").await.unwrap();
    stream.flush().await.unwrap();
    let mut answer = [0; 13];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"ARE YOU THERE");
    stream
}

#[track_caller]
fn check_error(result: Result<Stream, DialError>, origin: &Origin, cause: Cause) -> String {
    let error = result.expect_err("no connection should have come about");
    assert_eq!((&error.origin, error.cause), (origin, cause), "{error}");
    let said = error.to_string();
    assert!(said.contains(&origin.to_string()) && said.contains(cause.remedy()), "{said}");
    said
}

#[tokio::test]
async fn a_plain_upstream_is_reached_with_the_options_that_bound_its_memory() {
    let echo = echo().await;
    let plain = dialer(Settings::default());
    let stream = check_works(&plain, &origin(format!("http://{}", echo.address))).await;
    assert_eq!(stream.peer_addr(), Some(echo.address));
    let Stream::Tcp(tcp) = stream else { panic!("{stream:?}") };
    assert!(tcp.nodelay().unwrap());
    let socket = socket2::SockRef::from(&tcp);
    assert!(socket.keepalive().unwrap());
    assert!(socket.recv_buffer_size().unwrap() <= 2 * RECEIVE_BUFFER);
}

#[tokio::test]
async fn a_private_authority_is_trusted_when_configured_and_sessions_are_resumed() {
    let ca = Ca::new("private");
    let (front, _echo) = secure_echo(&ca.server(&["llm.example"], Valid::Now)).await;
    let (dialer, at) = (trusting(&ca), origin(format!("https://llm.example:{}", front.address.port())));
    for _ in 0..2 {
        let stream = check_works(&dialer, &at).await;
        assert!(matches!(stream, Stream::Tls(_)) && stream.peer_addr() == Some(front.address), "{stream:?}");
    }
    let seen =
        |resumed| Handshake { server_name: Some("llm.example".into()), alpn: Some(b"http/1.1".to_vec()), resumed };
    assert_eq!(front.handshakes(), [seen(false), seen(true)]);
}

#[tokio::test]
async fn a_certificate_for_an_address_is_good_for_that_address() {
    let ca = Ca::new("private");
    let (front, _echo) = secure_echo(&ca.server(&["127.0.0.1"], Valid::Now)).await;
    let dialer = Dialer::with_system(Settings { extra_roots: ca.roots(), ..Settings::default() }, no_names(), Vec::new);
    check_works(&dialer, &origin(format!("https://{}", front.address))).await;
}

#[tokio::test]
async fn an_upstream_with_tls_1_2_only_is_good_enough() {
    let ca = Ca::new("private");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = origin(format!("https://llm.example:{}", listener.local_addr().unwrap().port()));
    let acceptor = ca.server(&["llm.example"], Valid::Now).acceptor_for(&[&rustls::version::TLS12]);
    let dialer = trusting(&ca);
    let (client, server) =
        tokio::join!(dialer.dial(&at, AMPLE), async { acceptor.accept(listener.accept().await.unwrap().0).await });
    let version = server.unwrap().get_ref().1.protocol_version();
    assert_eq!((client.is_ok(), version), (true, Some(rustls::ProtocolVersion::TLSv1_2)));
}

#[tokio::test]
async fn every_fault_of_a_certificate_has_a_cause_of_its_own() {
    let (ca, stranger) = (Ca::new("private"), Ca::new("somebody else"));
    for (signer, name, valid, cause, remedy) in [
        (&stranger, "llm.example", Valid::Now, Cause::CertificateUnknownCa, "`network.caFile`"),
        (&ca, "llm.example", Valid::Expired, Cause::CertificateExpired, "clock"),
        (&ca, "llm.example", Valid::NotYet, Cause::CertificateNotYetValid, "clock"),
        (&ca, "other.example", Valid::Now, Cause::CertificateWrongName, "`baseUrl`"),
    ] {
        let (front, _echo) = secure_echo(&signer.server(&[name], valid)).await;
        let at = origin(format!("https://llm.example:{}", front.address.port()));
        let said = check_error(trusting(&ca).dial(&at, AMPLE).await, &at, cause);
        assert!(said.contains(remedy), "{said}");
        assert_eq!(front.handshakes(), [], "{cause:?}");
    }
}

#[tokio::test]
async fn a_certificate_that_vouches_for_itself_is_trusted_only_when_configured() {
    let (cert, pem) = ServerCert::self_signed(&["llm.example"]);
    let (front, _echo) = secure_echo(&cert).await;
    let at = origin(format!("https://llm.example:{}", front.address.port()));
    check_error(trusting(&Ca::new("other")).dial(&at, AMPLE).await, &at, Cause::CertificateUnknownCa);
    let extra_roots = Some(ExtraRoots::parse(pem.as_bytes()).unwrap());
    check_works(&dialer(Settings { extra_roots, ..Settings::default() }), &at).await;
}

#[tokio::test]
async fn the_systems_roots_and_the_configured_ones_count_together() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let (one, two) = (Ca::new("one"), Ca::new("two"));
    std::fs::write(file.path(), format!("# ours\n{}\n{}", one.pem(), two.pem())).unwrap();
    let extra = ExtraRoots::read(file.path()).unwrap();
    assert_eq!(extra.len(), 2);
    // The real loader: what it finds must not keep ours from counting, nor the other way round.
    let dialer =
        Dialer::with_system(Settings { extra_roots: Some(extra), ..Settings::default() }, all_names_are_here(), || {
            rustls_native_certs::load_native_certs().certs
        });
    for (ca, cause) in [(&one, None), (&two, None), (&Ca::new("three"), Some(Cause::CertificateUnknownCa))] {
        let (front, _echo) = secure_echo(&ca.server(&["llm.example"], Valid::Now)).await;
        let at = origin(format!("https://llm.example:{}", front.address.port()));
        match cause {
            None => drop(check_works(&dialer, &at).await),
            Some(cause) => drop(check_error(dialer.dial(&at, AMPLE).await, &at, cause)),
        }
    }
}

#[tokio::test]
async fn without_authorities_plain_upstreams_work_and_https_says_what_to_install() {
    let echo = echo().await;
    let bare = dialer(Settings::default());
    check_works(&bare, &origin(format!("http://{}", echo.address))).await;
    let at = origin(format!("https://llm.example:{}", echo.address.port()));
    let said = check_error(bare.dial(&at, AMPLE).await, &at, Cause::NoRoots);
    assert!(said.contains("ca-certificates"), "{said}");
}

#[tokio::test]
async fn a_port_without_tls_is_told_from_a_port_that_closes() {
    let ca = Ca::new("private");
    for (answer, cause) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], Cause::NotTls),
        (b"", Cause::Reset),
        // A TLS alert: handshake failure.
        (b"\x15\x03\x03\x00\x02\x02\x28", Cause::TlsProtocol),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = origin(format!("https://llm.example:{}", listener.local_addr().unwrap().port()));
        let dialer = trusting(&ca);
        let (result, ()) = tokio::join!(dialer.dial(&at, AMPLE), async {
            let (mut tcp, _) = listener.accept().await.unwrap();
            tcp.write_all(answer).await.unwrap();
            tcp.shutdown().await.unwrap();
            // Until the client has had enough.
            let _ = tcp.read_to_end(&mut Vec::new()).await;
        });
        check_error(result, &at, cause);
    }
}

#[tokio::test]
async fn an_upstream_that_offers_only_another_protocol_is_refused() {
    let ca = Ca::new("private");
    let mut cert = ca.server(&["llm.example"], Valid::Now);
    cert.alpn = vec![b"h2".to_vec()];
    let (front, _echo) = secure_echo(&cert).await;
    let at = origin(format!("https://llm.example:{}", front.address.port()));
    let said = check_error(trusting(&ca).dial(&at, AMPLE).await, &at, Cause::TlsProtocol);
    assert!(said.contains("HTTP/1.1"), "{said}");
}

#[tokio::test]
async fn a_port_on_which_nobody_listens_is_refused() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let at = origin(format!("http://{free}"));
    let said = check_error(dialer(Settings::default()).dial(&at, AMPLE).await, &at, Cause::Refused);
    assert!(said.contains(&free.to_string()), "{said}");
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_a_fault_of_the_name() {
    let missing: Lookup =
        Arc::new(|_| Err(io::Error::other("failed to lookup address information: Name or service not known")));
    let at = origin("https://nowhere.example");
    let dialer = Dialer::with_system(Settings::default(), missing, Vec::new);
    check_error(dialer.dial(&at, AMPLE).await, &at, Cause::DnsNotFound);
}

#[tokio::test]
async fn the_systems_resolver_knows_no_name_below_invalid() {
    // Whether it says "does not exist" or "cannot ask" depends on whether this machine has a network.
    let at = origin("http://cco-test.invalid");
    let error = Dialer::new(Settings::default()).dial(&at, AMPLE).await.unwrap_err();
    assert!(matches!(error.cause, Cause::DnsNotFound | Cause::DnsFailed), "{error}");
}

#[tokio::test]
async fn an_address_that_refuses_does_not_stand_in_the_way_of_the_next() {
    let echo = echo().await;
    // Nobody listens on the echo's port at 127.0.0.77: refused. Addresses of a family that is not there fail as well.
    let lookup: Lookup = Arc::new(|_| Ok(["127.0.0.77", "100::1", "127.0.0.1"].map(|a| a.parse().unwrap()).to_vec()));
    let ca = Ca::new("private");
    let settings = Settings { extra_roots: ca.roots(), ..Settings::default() };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let front = tls_front(listener, &ca.server(&["llm.example"], Valid::Now), echo.address);
    let dialer = Dialer::with_system(settings, lookup, Vec::new);
    check_works(&dialer, &origin(format!("https://llm.example:{}", front.address.port()))).await;
}

#[tokio::test]
async fn time_runs_out_at_the_step_that_is_named() {
    let ca = Ca::new("private");
    // A listener that never accepts: the kernel completes the connection, nobody speaks.
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = mute.local_addr().unwrap().port();
    let at = origin(format!("https://llm.example:{port}"));
    // Trust is made ready first, so that a slow machine does not spend the time on it.
    let dialer = trusting(&ca);
    dialer.warm().await;
    check_error(dialer.dial(&at, SHORT).await, &at, Cause::TimedOut(Step::Tls));

    let silent = ConnectProxy::start(Manner::Silent).await;
    let proxied = through_proxy(&silent, &ca);
    let error = proxied.dial(&at, SHORT).await.unwrap_err();
    assert!(error.is_timeout() && error.is_proxy() && error.cause == Cause::TimedOut(Step::Proxy), "{error}");
    assert_eq!(silent.asked().len(), 1);
}

fn through_proxy(proxy: &ConnectProxy, ca: &Ca) -> Dialer {
    dialer(Settings { proxy: through(&proxy.url()), extra_roots: ca.roots() })
}

#[tokio::test]
async fn a_name_server_that_does_not_answer_runs_into_the_limit() {
    let gate = Arc::new(std::sync::Barrier::new(2));
    let wait = gate.clone();
    let hanging: Lookup = Arc::new(move |_| {
        wait.wait();
        Ok(vec![])
    });
    let at = origin("https://llm.example");
    let dialer = Dialer::with_system(Settings::default(), hanging, Vec::new);
    check_error(dialer.dial(&at, Duration::from_millis(20)).await, &at, Cause::TimedOut(Step::Dns));
    gate.wait();
}

/// A host that takes no connection: Linux completes none once the backlog is full, and answers nothing.
#[cfg(target_os = "linux")]
struct Deaf {
    _listener: socket2::Socket,
    _waiting: Vec<Stream>,
    error: DialError,
}

#[cfg(target_os = "linux")]
async fn deaf(address: SocketAddr) -> Deaf {
    let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    listener.bind(&address.into()).unwrap();
    listener.listen(0).unwrap();
    let at = origin(format!("http://{}", listener.local_addr().unwrap().as_socket().unwrap()));
    let dialer = dialer(Settings::default());
    let mut waiting = Vec::new();
    loop {
        assert!(waiting.len() < 16, "the backlog never fills");
        match dialer.dial(&at, SHORT).await {
            Ok(stream) => waiting.push(stream),
            Err(error) => return Deaf { _listener: listener, _waiting: waiting, error },
        }
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_host_that_does_not_take_the_connection_runs_into_the_limit() {
    let deaf = deaf(SocketAddr::from(([127, 0, 0, 1], 0))).await;
    assert_eq!(deaf.error.cause, Cause::TimedOut(Step::Connect), "{}", deaf.error);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_address_that_stays_mute_does_not_stand_in_the_way_of_the_next() {
    let ca = Ca::new("private");
    let (front, _echo) = secure_echo(&ca.server(&["llm.example"], Valid::Now)).await;
    let port = front.address.port();
    let _deaf = deaf(SocketAddr::from(([127, 0, 0, 78], port))).await;
    let lookup: Lookup = Arc::new(|_| Ok(["127.0.0.78", "127.0.0.1"].map(|a| a.parse().unwrap()).to_vec()));
    let settings = Settings { extra_roots: ca.roots(), ..Settings::default() };
    check_works(&Dialer::with_system(settings, lookup, Vec::new), &origin(format!("https://llm.example:{port}"))).await;
}

#[tokio::test]
async fn https_and_http_upstreams_are_tunnelled_and_the_proxy_does_the_looking_up() {
    let ca = Ca::new("private");
    let (front, echo) = secure_echo(&ca.server(&["llm.example"], Valid::Now)).await;
    let proxy = ConnectProxy::start(Manner::Good).await;
    let settings = Settings { proxy: through(&proxy.url()), extra_roots: ca.roots() };
    let dialer = Dialer::with_system(settings, no_names(), Vec::new);
    let targets = [format!("llm.example:{}", front.address.port()), format!("llm.example:{}", echo.address.port())];
    let stream = check_works(&dialer, &origin(format!("https://{}", targets[0]))).await;
    assert!(matches!(stream, Stream::Tls(_)) && stream.peer_addr() == Some(proxy.address), "{stream:?}");
    check_works(&dialer, &origin(format!("http://{}", targets[1]))).await;
    let tunnels = targets.map(|target| Asked { target, authorization: None, opened: true });
    assert_eq!(proxy.asked(), tunnels);
}

#[tokio::test]
async fn faults_of_the_upstream_keep_their_cause_behind_a_proxy() {
    let (ca, stranger) = (Ca::new("private"), Ca::new("somebody else"));
    let (front, _echo) = secure_echo(&stranger.server(&["llm.example"], Valid::Now)).await;
    let proxy = ConnectProxy::start(Manner::Good).await;
    let at = origin(format!("https://llm.example:{}", front.address.port()));
    check_error(through_proxy(&proxy, &ca).dial(&at, AMPLE).await, &at, Cause::CertificateUnknownCa);
}

#[tokio::test]
async fn a_proxy_may_be_spoken_to_over_tls() {
    let ca = Ca::new("private");
    let (front, _echo) = secure_echo(&ca.server(&["llm.example"], Valid::Now)).await;
    let acceptor = ca.server(&["proxy.example"], Valid::Now).acceptor();
    let proxy = ConnectProxy::start_with(Manner::Good, Some(acceptor)).await;
    let dialer = dialer(Settings {
        proxy: through(&format!("https://proxy.example:{}", proxy.address.port())),
        extra_roots: ca.roots(),
    });
    check_works(&dialer, &origin(format!("https://llm.example:{}", front.address.port()))).await;
    assert_eq!(proxy.asked().len(), 1);
}

#[tokio::test]
async fn a_proxy_with_a_password_gets_it_and_nobody_else_does() {
    let echo = echo().await;
    // base64 of `user:secret`
    let proxy = ConnectProxy::start(Manner::Password("Basic dXNlcjpzZWNyZXQ=".into())).await;
    let at = origin(format!("http://llm.example:{}", echo.address.port()));
    let with = |pair: &str| {
        dialer(Settings { proxy: through(&format!("http://{pair}{}", proxy.address)), ..Settings::default() })
    };
    check_works(&with("user:secret@"), &at).await;
    for (pair, sent) in [("", None), ("user:wrong@", Some("Basic dXNlcjp3cm9uZw==".to_owned()))] {
        let dialer = with(pair);
        let said = check_error(dialer.dial(&at, AMPLE).await, &at, Cause::ProxyRefused(407));
        assert!(said.contains("user:password") && !said.contains("wrong") && !format!("{dialer:?}").contains("wrong"));
        assert_eq!(proxy.asked().last().unwrap().authorization, sent);
    }
}

#[tokio::test]
async fn a_proxy_that_refuses_or_talks_nonsense_or_is_not_there_is_named() {
    let at = origin("https://llm.example");
    let surplus = b"HTTP/1.1 200 OK\r\n\r\nsurplus".to_vec();
    for (answer, cause) in [
        (b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n".to_vec(), Cause::ProxyRefused(403)),
        (b"220 mail.example ESMTP\r\n".to_vec(), Cause::ProxyProtocol),
        (surplus, Cause::ProxyProtocol),
        (b"HTTP/1.1 200 OK\r\n".repeat(1000), Cause::ProxyProtocol),
        (vec![], Cause::ProxyProtocol),
    ] {
        let proxy = ConnectProxy::start(Manner::Answer(answer)).await;
        let dialer = dialer(Settings { proxy: through(&proxy.url()), ..Settings::default() });
        let said = check_error(dialer.dial(&at, AMPLE).await, &at, cause);
        assert!(said.contains(&proxy.url()), "{said}");
    }
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let dialer = dialer(Settings { proxy: through(&format!("http://{free}")), ..Settings::default() });
    let said = check_error(dialer.dial(&at, AMPLE).await, &at, Cause::ProxyUnreachable);
    assert!(said.contains("refused"), "{said}");
}

#[tokio::test]
async fn an_upstream_on_this_machine_is_never_sent_to_a_proxy() {
    let echo = echo().await;
    let proxy = ConnectProxy::start(Manner::Good).await;
    let dialer = dialer(Settings { proxy: through(&proxy.url()), ..Settings::default() });
    for host in ["127.0.0.1", "localhost"] {
        check_works(&dialer, &origin(format!("http://{host}:{}", echo.address.port()))).await;
    }
    assert_eq!(proxy.asked(), []);
}

/// The 127.0.0.1 at the end of it all would take the connection: what keeps us away is the rule alone.
#[tokio::test]
async fn no_spelling_and_no_name_server_leads_to_a_forbidden_place() {
    let connected = Arc::new(AtomicUsize::new(0));
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut tasks = JoinSet::new();
    let count = connected.clone();
    tasks.spawn(async move {
        while listener.accept().await.is_ok() {
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    let proxy = ConnectProxy::start(Manner::Good).await;
    for setting in ["none", &proxy.url()] {
        let dialer = dialer(Settings { proxy: through(setting), ..Settings::default() });
        for host in [
            "0.0.0.0",
            "0",
            "0x0.0",
            "169.254.169.254",
            "0xa9fea9fe",
            "2852039166",
            "0251.0376.0251.0376",
            "[::ffff:169.254.169.254]",
            "[::]",
            "[::ffff:0.0.0.0]",
            "[fe80::1]",
        ] {
            for scheme in ["http", "https"] {
                let at = origin(format!("{scheme}://{host}:{port}"));
                check_error(dialer.dial(&at, AMPLE).await, &at, Cause::AddressForbidden);
            }
        }
    }
    // A name that turns out to be this machine, or the metadata service.
    for (address, schemes) in
        [("127.0.0.1", &["http"][..]), ("::ffff:127.0.0.1", &["http"]), ("169.254.169.254", &["http", "https"])]
    {
        let lookup: Lookup = Arc::new(move |_| Ok(vec![address.parse().unwrap()]));
        let dialer = Dialer::with_system(Settings::default(), lookup, Vec::new);
        for scheme in schemes {
            let at = origin(format!("{scheme}://rebound.example:{port}"));
            check_error(dialer.dial(&at, AMPLE).await, &at, Cause::AddressForbidden);
        }
    }
    assert_eq!((connected.load(Ordering::SeqCst), proxy.asked().len()), (0, 0));
}
