//! Heads in both directions, to the byte; paths; methods; and how connections are used.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::common::{
    Answer, Client, Ended, Gateway, KEY, Upstream, contains, error_event, prompt, request, soon, streamed, upstream,
    whole,
};

/// A request's head, with the address that it goes to in place of `{to}`.
fn addressed(head: &str, to: std::net::SocketAddr) -> Vec<u8> {
    head.replace("{to}", &to.to_string()).replace('\n', "\r\n").into_bytes()
}

#[tokio::test]
async fn a_requests_head_arrives_as_it_was_sent_but_for_what_the_table_says() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&upstream, json!({})).await;
    let body = prompt("Hello.", false);
    let sent = format!(
        "POST /v1/messages?beta=true HTTP/1.1\nHost: {{to}}\nUser-Agent: claude-cli/2.1 (external, cli)\n\
         anthropic-Version: 2023-06-01\nanthropic-beta: one-2025,two\nx-api-key: {KEY}\nANTHROPIC-BETA: three\n\
         Accept: application/json\nAccept-Encoding: gzip, br\nContent-Type: application/json; charset=UTF-8\n\
         X-Stainless-Lang: js\nX-Stainless-Retry-Count: 0\nx-claude-code-session-id: 7\nX-App:   cli  \nX-Empty:\n\
         x-odd-CASE: a  b\tc\nreferer: http://x.test/\nContent-Length: {length}\nConnection: keep-alive, X-Hop\n\
         X-Hop: 1\nKeep-Alive: timeout=5\nTE: trailers\nTrailer: x-sum\nUpgrade: h2c\nProxy-Connection: keep-alive\n\
         Proxy-Authorization: Basic c2VjcmV0\nCookie: a=b\nForwarded: for=10.0.0.1\nX-Forwarded-For: 10.0.0.1\n\
         X-Forwarded-Host: x.test\nX-Forwarded-Proto: https\nX-Forwarded-Port: 1\nX-Forwarded-Server: x\n\
         X-Real-IP: 10.0.0.1\nVia: 1.1 x\nX-Goog-Api-Key: other\nX-Cco-Agent: scout\nx-CCO-anything: 1\n\
         x-last: {{\"json\": [1, 2]}}\n\n",
        length = body.len()
    );
    let want = format!(
        "POST /v1/messages?beta=true HTTP/1.1\nhost: {{to}}\nUser-Agent: claude-cli/2.1 (external, cli)\n\
         anthropic-Version: 2023-06-01\nanthropic-beta: one-2025,two\nANTHROPIC-BETA: three\n\
         Accept: application/json\nContent-Type: application/json; charset=UTF-8\n\
         X-Stainless-Lang: js\nX-Stainless-Retry-Count: 0\nx-claude-code-session-id: 7\nX-App: cli\nX-Empty: \n\
         x-odd-CASE: a  b\tc\nreferer: http://x.test/\n\
         x-last: {{\"json\": [1, 2]}}\naccept-encoding: identity\nx-api-key: {KEY}\ncontent-length: {length}\n\n",
        length = body.len()
    );
    let mut client = gateway.client().await;
    let answer = client.ask([addressed(&sent, gateway.addr), body.into_bytes()].concat()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let arrived = upstream.last();
    assert_eq!(String::from_utf8_lossy(&arrived.head), String::from_utf8_lossy(&addressed(&want, upstream.addr)));
    assert_eq!(arrived.oddities, [""; 0]);
}

#[tokio::test]
async fn values_that_are_no_text_pass_as_bytes() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&upstream, json!({})).await;
    let mut bytes =
        addressed("GET /v1/models HTTP/1.1\nHost: {to}\nx-api-key: k\nanthropic-version: 1\nX-Odd: ", gateway.addr);
    let odd: Vec<u8> = (0x80..=0xff).collect();
    bytes.extend_from_slice(&[&odd[..], b"\r\n\r\n"].concat());
    assert_eq!(gateway.ask(bytes).await.status, 200);
    let arrived = upstream.last();
    let (_, value) = arrived.headers.iter().find(|(name, _)| name == "X-Odd").unwrap();
    assert_eq!(value[..], odd[..]);
}

#[tokio::test]
async fn on_paths_whose_answers_we_do_not_read_the_clients_codings_pass() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&upstream, json!({})).await;
    for (method, target, coding) in [
        ("POST", "/v1/messages", "identity"),
        ("POST", "/v1/messages/count_tokens", "identity"),
        ("GET", "/v1/messages/batches", "identity"),
        ("GET", "/v1/models", "gzip, zstd"),
        ("GET", "/v1/models/claude-sonnet-5-5", "gzip, zstd"),
        ("GET", "/v1/messages/batches/b1/results", "gzip, zstd"),
        ("GET", "/v1/files/f1/content", "gzip, zstd"),
    ] {
        let body = if method == "POST" { prompt("Hello.", false) } else { String::new() };
        gateway.ask(request(method, target, "Accept-Encoding: gzip, zstd\r\n", body)).await;
        assert_eq!(upstream.last().header_all("accept-encoding"), [coding], "{method} {target}");
    }
}

#[tokio::test]
async fn headers_of_the_configuration_replace_those_of_the_client() {
    let upstream = upstream().await;
    let more = json!({ "providers": { "anthropic": { "headers": { "X-Team": "blue", "user-agent": "ours" } } } });
    let gateway = Gateway::start(&upstream, more).await;
    gateway.ask(request("GET", "/v1/models", "x-team: red\r\nUser-Agent: theirs\r\nX-Other: stays\r\n", "")).await;
    let arrived = upstream.last();
    assert_eq!((arrived.header_all("x-team"), arrived.header_all("user-agent")), (vec!["blue"], vec!["ours"]));
    assert_eq!(arrived.header("x-other"), Some("stays"));
}

/// What must not pass from the upstream to the client.
const KEPT_BACK: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "content-length",
    "set-cookie",
    "set-cookie2",
    "authorization",
    "x-api-key",
    "api-key",
    "x-goog-api-key",
    "www-authenticate",
    "proxy-authenticate",
    "proxy-authorization",
    "access-control-allow-origin",
    "access-control-allow-credentials",
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-allow-private-network",
    "access-control-expose-headers",
    "access-control-max-age",
    "strict-transport-security",
    "alt-svc",
    "nel",
    "report-to",
    "reporting-endpoints",
    "clear-site-data",
    "refresh",
    "location",
    "server",
    "via",
    "x-cco-agent",
    "x-hop",
];

/// Everything that passes, in its order and spelling; the id that the upstream gives each request is its own.
fn passing(answer: &Answer) -> Vec<(String, Bytes)> {
    let is_kept_back = |name: &str| KEPT_BACK.iter().any(|known| name.eq_ignore_ascii_case(known));
    let passes = answer.headers.iter().filter(|(name, _)| !is_kept_back(name));
    passes.map(|(n, v)| (n.clone(), if n == "request-id" { Bytes::new() } else { v.clone() })).collect()
}

fn field(name: &str, value: impl Into<String>) -> (String, Bytes) {
    (name.to_owned(), Bytes::from(value.into()))
}

#[tokio::test]
async fn an_answers_head_arrives_as_it_was_sent_but_for_what_the_table_says() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&upstream, json!({})).await;
    let mut script = "text=hi fault=set-cookie header=\"X-Odd-CASE: a  b\" header=\"anthropic-new: 1\"".to_owned();
    for name in KEPT_BACK.iter().filter(|name| !["transfer-encoding", "content-length", "connection"].contains(name)) {
        script.push_str(&format!(" header=\"{name}: from-upstream\""));
    }
    script.push_str(" header=\"Connection: X-Hop\" header=\"x-odd-case: again\"");
    for (is_stream, request) in [(false, whole(&script)), (true, streamed(&script))] {
        let direct = Client::connect(upstream.addr).await.ask(&request).await;
        let relayed = gateway.ask(&request).await;
        assert_eq!((direct.status, relayed.status), (200, 200), "{}", direct.text());
        let mut want = passing(&direct);
        if is_stream {
            want.push(field("x-accel-buffering", "no"));
        }
        want.push(field("x-cco-request-id", relayed.id()));
        want.push(field("x-cco-provider", "anthropic"));
        want.push(field("x-cco-attempts", "1"));
        want.push(field("connection", "keep-alive"));
        want.push(match direct.header("content-length") {
            Some(length) => field("content-length", length),
            None => field("transfer-encoding", "chunked"),
        });
        let mut got = relayed.headers.clone();
        for (name, value) in &mut got {
            if name == "request-id" {
                assert!(value.starts_with(b"req_"));
                *value = Bytes::new();
            }
        }
        assert_eq!(got, want);
        assert!(want.contains(&field("X-Odd-CASE", "a  b")) && want.contains(&field("x-odd-case", "again")));
        assert_eq!(relayed.reason, direct.reason);
    }
}

#[tokio::test]
async fn paths_and_queries_arrive_as_they_were_sent() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&upstream, json!({})).await;
    let mut client = gateway.client().await;
    for target in [
        "/v1/messages?beta=true",
        "/v1/models?limit=5&after_id=%7e&limit=6&&=",
        "/v1/models?",
        "/v1/odd/%E6%BC%A2/%e6?q=%zz&x=a+b;c|d^{}`\"<>[]",
        "/v1//double///slash/",
        "/v1/a%2Fb%5Cc%20d",
        "/v1/files/~a:b@c!$&'()*+,;=",
        "/v1/x?y=/../z&u=http://h/",
        "/v1/...",
        "/v1/",
    ] {
        client.ask(request("GET", target, "", "")).await;
        assert_eq!(upstream.last().target, target);
    }
    let arrived = upstream.sim.requests().len();
    for (target, status) in
        [("/v1/../admin", 400), ("/v1/%2e%2E/x", 400), ("/v1/b\u{e9}", 400), ("/v1", 404), ("/v2/x", 404)]
    {
        let answer = gateway.ask(request("GET", target, "", "")).await;
        assert_eq!(answer.status, status, "{target}");
    }
    assert_eq!(upstream.sim.requests().len(), arrived);
}

#[tokio::test]
async fn a_path_in_the_base_url_stands_before_the_clients() {
    let upstream = upstream().await;
    let base = format!("http://{}/team/a%20b", upstream.addr);
    let gateway = Gateway::start(&upstream, json!({ "providers": { "anthropic": { "baseUrl": base } } })).await;
    gateway.ask(request("GET", "/v1/models?limit=1", "", "")).await;
    assert_eq!(upstream.last().target, "/team/a%20b/v1/models?limit=1");
}

/// Asks for the same directly and through the gateway, and compares.
async fn check_same(
    upstream: &Upstream,
    gateway: &Gateway,
    method: &str,
    target: &str,
    body: &str,
) -> (Answer, Answer) {
    let bytes = request(method, target, "Content-Type: application/json\r\n", body);
    let mut answers = Vec::new();
    for to in [upstream.addr, gateway.addr] {
        let mut client = Client::connect(to).await;
        client.send(&bytes).await;
        answers.push(if method == "HEAD" { client.head_only().await } else { client.answer().await });
        if method == "HEAD" {
            // Were there a body, it would be taken for the next answer.
            client.send(request("GET", "/v1/models?behind", "", "")).await;
            assert_eq!(client.answer().await.status, 200);
        }
    }
    let [direct, relayed]: [Answer; 2] = answers.try_into().unwrap();
    assert_eq!((relayed.status, relayed.ended), (direct.status, direct.ended), "{method} {target}");
    for name in ["content-type", "content-length", "retry-after"] {
        assert_eq!(relayed.header(name), direct.header(name), "{method} {target}: {name}");
    }
    (direct, relayed)
}

#[tokio::test]
async fn every_path_under_v1_is_forwarded_whatever_the_method() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&upstream, json!({})).await;
    for (method, target, body) in [
        ("GET", "/v1/models", ""),
        ("GET", "/v1/models?limit=1", ""),
        ("GET", "/v1/models/claude-opus-5-5", ""),
        ("GET", "/v1/models/nobody", ""),
        ("POST", "/v1/messages/count_tokens", &prompt("How long is this?", false)),
        ("GET", "/v1/messages", ""),
        ("GET", "/v1/files", ""),
    ] {
        let (direct, relayed) = check_same(&upstream, &gateway, method, target, body).await;
        // The one thing that differs is the id of the request in an error.
        let plain = |answer: &Answer| answer.text().split("\"request_id\"").next().unwrap().to_owned();
        assert_eq!(plain(&relayed), plain(&direct), "{method} {target}");
    }
    for (method, target, body) in [
        ("HEAD", "/v1/models", ""),
        ("HEAD", "/v1/messages/batches", ""),
        ("PATCH", "/v1/organizations/x", "{\"a\":1}"),
        ("DELETE", "/v1/files/nothing", ""),
        ("PUT", "/v1/new/thing", "body"),
        ("OPTIONS", "/v1/messages", ""),
        ("M-SEARCH", "/v1/messages/batches/x/y/z", ""),
    ] {
        check_same(&upstream, &gateway, method, target, body).await;
        let arrived = upstream.sim.requests().into_iter().rfind(|one| one.target == target).unwrap();
        assert_eq!((&*arrived.method, &arrived.body[..]), (method, body.as_bytes()));
    }
}

#[tokio::test]
async fn a_batch_leads_back_to_the_gateway_for_its_results() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&upstream, json!({})).await;
    let requests = json!({ "requests": [
        { "custom_id": "one", "params": { "model": "m", "max_tokens": 9, "messages": [{ "role": "user", "content": "[[sim text=first]]" }] } },
        { "custom_id": "two", "params": { "model": "m", "max_tokens": 9, "messages": [{ "role": "user", "content": "[[sim fault=529]]" }] } },
    ] });
    let mut client = gateway.client().await;
    let json_type = "Content-Type: application/json\r\n";
    let made = client.ask(request("POST", "/v1/messages/batches", json_type, requests.to_string())).await;
    assert_eq!(made.status, 200, "{}", made.text());
    let path = format!("/v1/messages/batches/{}", made.json()["id"].as_str().unwrap());
    for target in [path.clone(), "/v1/messages/batches".to_owned()] {
        let (direct, relayed) = {
            let bytes = request("GET", &target, "", "");
            (Client::connect(upstream.addr).await.ask(&bytes).await, client.ask(&bytes).await)
        };
        let theirs = format!("\"results_url\":\"http://{}{path}/results\"", upstream.addr);
        assert!(direct.text().contains(&theirs), "{}", direct.text());
        let want =
            direct.text().replace(&theirs, &format!("\"results_url\":\"http://{}{path}/results\"", gateway.addr));
        assert_eq!(relayed.text(), want, "no other byte moves");
        assert_eq!(relayed.header("content-length"), Some(&*want.len().to_string()));
    }
    let results = client.ask(request("GET", &format!("{path}/results"), "", "")).await;
    let lines: Vec<Value> = results.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert!(results.text().contains("first") && results.text().contains("overloaded_error"), "{}", results.text());
    let cancelled = client.ask(request("POST", &format!("{path}/cancel"), "", "")).await;
    assert!(cancelled.text().contains(&gateway.addr.to_string()), "{}", cancelled.text());
    let deleted = client.ask(request("DELETE", &path, "", "")).await;
    assert_eq!((deleted.status, deleted.json()["type"].as_str()), (200, Some("message_batch_deleted")));
}

#[tokio::test]
async fn connections_are_used_again_on_both_sides() {
    let upstream = upstream().await;
    let gateway = Gateway::start_with(
        json!({ "providers": { "anthropic": { "baseUrl": format!("http://{}", upstream.addr) } } }),
        &["--workers", "1"],
        &[],
    )
    .await;
    let mut first = gateway.client().await;
    for n in 0..20 {
        let mut second;
        let client = if n % 2 == 0 {
            &mut first
        } else {
            second = gateway.client().await;
            &mut second
        };
        let answer = client.ask(if n % 3 == 0 { streamed("text=hi") } else { whole("text=hi") }).await;
        assert_eq!((answer.ended, answer.header("connection")), (Ended::Whole, Some("keep-alive")));
    }
    assert_eq!(upstream.sim.connections_seen(), 1, "one after the other needs one connection");
    assert_eq!(upstream.sim.requests().len(), 20);
}

#[tokio::test]
async fn a_connection_that_the_upstream_closed_meanwhile_is_not_noticed_by_the_client() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&upstream, json!({})).await;
    let mut client = gateway.client().await;
    for _ in 0..5 {
        // The upstream closes behind each answer without having said so.
        let answer = client.ask(whole("text=hi header=\"X-Still: here\" fault=surplus")).await;
        assert_eq!((answer.status, answer.ended), (200, Ended::Whole));
        assert!(!contains(&answer.body, b"surplus"));
        let answer = client.ask(streamed("text=fresh")).await;
        assert!(answer.status == 200 && contains(&answer.body, b"fresh"), "never another request's answer");
    }
}

#[tokio::test]
async fn requests_that_come_at_once_are_answered_in_their_order() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&upstream, json!({})).await;
    let mut client = gateway.client().await;
    let mut all = Vec::new();
    let mut wanted = Vec::new();
    for n in 0..30 {
        let (bytes, want) = match n % 4 {
            0 => (streamed(&format!("text=stream{n}")), format!("stream{n}")),
            1 => (whole(&format!("text=whole{n}")), format!("whole{n}")),
            2 => (request("GET", "/gateway/health", "", ""), "healthy".to_owned()),
            _ => (request("GET", "/v1/models", "", ""), "claude-".to_owned()),
        };
        all.extend_from_slice(
            &String::from_utf8(bytes).unwrap().replace("localhost", &gateway.addr.to_string()).into_bytes(),
        );
        wanted.push(want);
    }
    soon(client.send_raw(&all)).await.unwrap();
    for want in wanted {
        let answer = client.answer().await;
        assert!(answer.status == 200 && contains(&answer.body, want.as_bytes()), "{want}: {}", answer.text());
    }
}

#[tokio::test]
async fn a_head_that_comes_byte_by_byte_is_understood() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&upstream, json!({})).await;
    let mut client = gateway.client().await;
    let bytes = String::from_utf8(whole("text=slow")).unwrap().replace("localhost", &gateway.addr.to_string());
    for byte in bytes.as_bytes() {
        client.send_raw(&[*byte]).await.unwrap();
    }
    assert!(contains(&client.answer().await.body, b"slow"));
}

/// The same request in HTTP/1.0.
fn http10(request: Vec<u8>, more: &str) -> Vec<u8> {
    String::from_utf8(request).unwrap().replacen("HTTP/1.1\r\n", &format!("HTTP/1.0\r\n{more}"), 1).into_bytes()
}

#[tokio::test]
async fn a_client_of_http_1_0_gets_bodies_that_end_with_the_connection() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&upstream, json!({})).await;
    let direct = Client::connect(upstream.addr).await.ask(streamed("text=old")).await;
    let mut client = gateway.client().await;
    // Not through `ask`: the place of the host is another.
    let located = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().replace("localhost", &gateway.addr.to_string());
    client.send(located(http10(streamed("text=old"), "Connection: keep-alive\r\n"))).await;
    let answer = client.answer().await;
    assert_eq!((&*answer.version, answer.status, answer.ended), ("HTTP/1.1", 200, Ended::Whole));
    assert_eq!((answer.header("transfer-encoding"), answer.header("connection")), (None, Some("close")));
    assert_eq!(answer.text(), direct.text());

    let mut client = gateway.client().await;
    client.send(located(http10(streamed("text=\"one two\" fault=truncate=4"), ""))).await;
    let answer = client.answer().await;
    let events = answer.text().find("event: error").expect("the end is told");
    error_event(&answer.body[events..], answer.id());

    // An answer of known length leaves the connection open to whoever asked for that.
    let mut client = gateway.client().await;
    for _ in 0..2 {
        client.send(located(http10(whole("text=old"), "Connection: keep-alive\r\n"))).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.header("connection")), (200, Some("keep-alive")));
    }
    client.send(located(http10(whole("text=old"), ""))).await;
    assert_eq!(client.answer().await.header("connection"), Some("close"));
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn a_client_of_http_1_0_sees_that_a_packed_stream_broke_off() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&upstream, json!({})).await;
    let mut client = gateway.client().await;
    let bytes = http10(streamed("text=\"one two\" fault=gzip fault=cut=250"), "");
    client.send(String::from_utf8(bytes).unwrap().replace("localhost", &gateway.addr.to_string())).await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.header("content-encoding")), (200, Some("gzip")));
    assert_eq!(answer.ended, Ended::Reset, "an orderly end of the connection would be the end of the body");
}

#[tokio::test]
async fn an_upstream_of_http_1_0_is_understood() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&upstream, json!({})).await;
    let mut client = gateway.client().await;
    for _ in 0..3 {
        let direct = Client::connect(upstream.addr).await.ask(streamed("text=old")).await;
        let answer = client.ask(streamed("text=old fault=http10")).await;
        assert_eq!((answer.ended, answer.text()), (Ended::Whole, direct.text()));
        assert_eq!(answer.header("connection"), Some("keep-alive"), "our side is none of the upstream's business");
        let cut = client.ask(streamed("text=\"one two three\" fault=http10 fault=cut=400")).await;
        let events = cut.text().find("event: error").expect("the end is told");
        error_event(&cut.body[events..], cut.id());
        assert_eq!(cut.ended, Ended::Whole);
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (upstream, elsewhere) = (upstream().await, upstream().await);
    let gateway = Gateway::start(&upstream, json!({})).await;
    let script = format!("fault=redirect=http://{}/v1/messages", elsewhere.addr);
    for request in [streamed(&script), whole(&script)] {
        let answer = gateway.ask(request).await;
        let message = answer.refusal(502, "api_error");
        assert!(message.contains("redirect (307)") && message.contains("`baseUrl`"), "{message}");
        assert_eq!(answer.header("location"), None);
    }
    assert_eq!((upstream.sim.requests().len(), elsewhere.sim.requests().len()), (2, 0));
}
