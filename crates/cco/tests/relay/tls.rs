//! Encrypted upstreams, private authorities, proxies; and why a connection does not come about.

use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::common::{Ended, Gateway, Upstream, streamed, upstream, whole};
use crate::net::certs::{Ca, ServerCert, Valid};
use crate::net::connect_proxy::{Asked, ConnectProxy, Manner};
use crate::net::tls_front::{TlsFront, tls_front};
use crate::transcripts::{check_streams, every_border};

/// TLS in front of a simulator.
async fn front(upstream: &Upstream, cert: &ServerCert) -> TlsFront {
    tls_front(TcpListener::bind("127.0.0.1:0").await.unwrap(), cert, upstream.addr)
}

/// A gateway that trusts this authority, for a provider at this host.
async fn trusting(ca: &Ca, host: &str, front: &TlsFront, proxy: Value) -> Gateway {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), ca.pem()).unwrap();
    let config = json!({
        "network": { "caFile": file.path(), "proxy": proxy },
        "providers": { "anthropic": { "baseUrl": format!("https://{host}:{}", front.address.port()) } },
    });
    Gateway::start_with(config, &[], &[]).await
}

#[tokio::test]
async fn recorded_streams_arrive_byte_equal_over_tls_with_a_private_authority() {
    let upstream = upstream().await;
    let ca = Ca::new("private");
    let front = front(&upstream, &ca.server(&["127.0.0.1"], Valid::Now)).await;
    let gateway = trusting(&ca, "127.0.0.1", &front, json!("none")).await;
    check_streams(&gateway, every_border).await;
    let handshakes = front.handshakes();
    assert!(handshakes.len() <= 2 * crate::transcripts::streams().len(), "connections are used again");
    assert!(handshakes.iter().all(|one| one.alpn.as_deref() == Some(b"http/1.1")), "{handshakes:?}");
}

#[tokio::test]
async fn recorded_streams_arrive_byte_equal_through_a_connect_proxy() {
    let upstream = upstream().await;
    let ca = Ca::new("private");
    let front = front(&upstream, &ca.server(&["llm.example"], Valid::Now)).await;
    let proxy = ConnectProxy::start(Manner::Good).await;
    let gateway = trusting(&ca, "llm.example", &front, json!(proxy.url())).await;
    check_streams(&gateway, every_border).await;
    let asked = Asked { target: format!("llm.example:{}", front.address.port()), authorization: None, opened: true };
    assert!(!proxy.asked().is_empty() && proxy.asked().iter().all(|one| *one == asked), "{:?}", proxy.asked());
    assert_eq!(proxy.asked().len(), front.handshakes().len(), "nothing went past the proxy");
    assert!(front.handshakes().iter().all(|one| one.server_name.as_deref() == Some("llm.example")));
}

#[tokio::test]
async fn the_proxy_of_the_environment_is_used_when_the_configuration_says_so() {
    let upstream = upstream().await;
    let ca = Ca::new("private");
    let front = front(&upstream, &ca.server(&["llm.example"], Valid::Now)).await;
    let proxy = ConnectProxy::start(Manner::Password("Basic dXNlcjpwYXNz".into())).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, ca.pem()).unwrap();
    let config = json!({
        "network": { "caFile": file, "proxy": "env" },
        "providers": { "anthropic": { "baseUrl": format!("https://llm.example:{}", front.address.port()) } },
    });
    let with_password = proxy.url().replace("://", "://user:pass@");
    let gateway = Gateway::start_with(config.clone(), &[], &[("HTTPS_PROXY", &with_password)]).await;
    let answer = gateway.ask(streamed("text=hidden")).await;
    assert!(answer.ended == Ended::Whole && answer.text().contains("hidden"), "{}", answer.text());
    assert_eq!(proxy.asked().len(), 1);
    let gateway = Gateway::start_with(config, &[], &[("HTTPS_PROXY", &proxy.url())]).await;
    let message = gateway.ask(whole("text=hi")).await.refusal(502, "api_error");
    assert!(message.contains("the proxy asks for a user and a password"), "{message}");
}

/// Checks that a request gets a 502 that says all of this, also in the log.
async fn check_refused(gateway: &Gateway, says: &[&str]) {
    for request in [streamed("text=hi"), whole("text=hi")] {
        let answer = gateway.ask(request).await;
        let message = answer.refusal(502, "api_error");
        let line = gateway.log_line(&[answer.id()]).await;
        for part in says.iter().chain(&["`anthropic`"]) {
            assert!(message.contains(part), "`{part}` is not in: {message}");
            assert!(line["cause"].as_str().unwrap().contains(part), "{line}");
        }
    }
}

#[tokio::test]
async fn an_unknown_authority_is_named_as_the_cause() {
    let upstream = upstream().await;
    let (known, other) = (Ca::new("known"), Ca::new("other"));
    let front = front(&upstream, &other.server(&["127.0.0.1"], Valid::Now)).await;
    let gateway = trusting(&known, "127.0.0.1", &front, json!("none")).await;
    check_refused(&gateway, &["the certificate comes from an unknown authority", "`network.caFile`"]).await;
    assert_eq!(upstream.sim.requests().len(), 0);
}

#[tokio::test]
async fn a_certificate_outside_of_its_time_is_named_as_the_cause() {
    let upstream = upstream().await;
    let ca = Ca::new("private");
    for (valid, says) in
        [(Valid::Expired, "the certificate has expired"), (Valid::NotYet, "the certificate is not valid yet")]
    {
        let front = front(&upstream, &ca.server(&["127.0.0.1"], valid)).await;
        let gateway = trusting(&ca, "127.0.0.1", &front, json!("none")).await;
        check_refused(&gateway, &[says, "clock"]).await;
    }
    assert_eq!(upstream.sim.requests().len(), 0);
}

#[tokio::test]
async fn a_certificate_for_another_name_is_named_as_the_cause() {
    let upstream = upstream().await;
    let ca = Ca::new("private");
    let front = front(&upstream, &ca.server(&["other.example"], Valid::Now)).await;
    let proxy = ConnectProxy::start(Manner::Good).await;
    for (host, proxy) in [("127.0.0.1", json!("none")), ("llm.example", json!(proxy.url()))] {
        let gateway = trusting(&ca, host, &front, proxy).await;
        check_refused(&gateway, &["the certificate is for another name", "`baseUrl`"]).await;
    }
    assert_eq!(upstream.sim.requests().len(), 0);
}

#[tokio::test]
async fn a_port_without_tls_is_named_as_the_cause() {
    let upstream = upstream().await;
    let ca = Ca::new("private");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), ca.pem()).unwrap();
    let config = json!({
        "network": { "caFile": file.path() },
        "providers": { "anthropic": { "baseUrl": format!("https://{}", upstream.addr) } },
    });
    let gateway = Gateway::start_with(config, &[], &[]).await;
    check_refused(&gateway, &["`http://`"]).await;
}

#[tokio::test]
async fn a_proxy_that_does_not_help_is_named_as_the_cause() {
    let upstream = upstream().await;
    let ca = Ca::new("private");
    let front = front(&upstream, &ca.server(&["llm.example"], Valid::Now)).await;
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let refusing = ConnectProxy::start(Manner::Answer(b"HTTP/1.1 403 Forbidden\r\n\r\n".to_vec())).await;
    let odd = ConnectProxy::start(Manner::Answer(b"SSH-2.0-x\r\n\r\n".to_vec())).await;
    for (proxy, says) in [
        (format!("http://{closed}"), "the proxy could not be reached"),
        (refusing.url(), "the proxy refused to connect"),
        (odd.url(), "the proxy did not answer as a proxy does"),
    ] {
        let gateway = trusting(&ca, "llm.example", &front, json!(proxy)).await;
        check_refused(&gateway, &[says]).await;
    }
    assert_eq!(front.handshakes(), []);
}
