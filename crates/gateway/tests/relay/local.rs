//! Who may ask, and whose key goes up: pages, hosts, users, tokens.

use serde_json::{Value, json};

use crate::common::client::{BODY, Reply, get, messages, post};
use crate::common::pipes::{STORED_KEY, TOKEN, every_row, in_house, peer, plain};

/// Fields of the request beside its host; what they get.
const PAGES: &[(&str, u16)] = &[
    // Programs name no page.
    ("", 200),
    ("Sec-Fetch-Site: none\r\n", 200),
    ("Sec-Fetch-Mode: cors\r\n", 200),
    // Our own page, and the one that the configuration names.
    ("Origin: http://127.0.0.1:54548\r\n", 200),
    ("Origin: http://127.0.0.1:54548\r\nSec-Fetch-Site: same-origin\r\n", 200),
    ("Origin: vscode-webview://panel\r\nSec-Fetch-Site: cross-site\r\n", 200),
    ("Origin: VSCODE-webview://Panel\r\n", 200),
    // Everybody else's.
    ("Origin: null\r\n", 403),
    ("Origin:\r\n", 403),
    ("Origin: http://evil.test\r\n", 403),
    ("Origin: https://127.0.0.1:54548\r\n", 403),
    ("Origin: http://127.0.0.1:54549\r\n", 403),
    ("Origin: http://127.0.0.1\r\n", 403),
    ("Origin: http://localhost:54548\r\n", 403),
    ("Origin: http://127.0.0.1:54548.evil.test\r\n", 403),
    ("Origin: http://127.0.0.1:54548\r\nOrigin: http://evil.test\r\n", 403),
    ("Origin: http://evil.test\r\nSec-Fetch-Site: same-origin\r\n", 403),
    ("Sec-Fetch-Site: cross-site\r\n", 403),
    ("Sec-Fetch-Site: same-site\r\n", 403),
    ("Sec-Fetch-Site: anything\r\n", 403),
    ("Sec-Fetch-Site: none\r\nSec-Fetch-Site: cross-site\r\n", 403),
];

fn no_cors(reply: &Reply) {
    assert!(!reply.headers.iter().any(|(name, _)| name.to_ascii_lowercase().starts_with("access-control-")));
}

#[test]
fn a_page_of_somebody_else_gets_nothing_anywhere() {
    every_row(PAGES, async |(fields, status)| {
        in_house(
            |s| s["server"]["origins"] = json!(["vscode-webview://panel"]),
            async |house| {
                // Also not what costs nothing: the state, the probes, what does not exist.
                let own = get("/gateway/health", fields);
                let requests = [
                    (messages(true, fields), *status),
                    (get("/v1/models", &format!("x-api-key: k\r\n{fields}")), *status),
                    (own, *status),
                    (get("/health", fields), *status),
                    (get("/gateway/providers", fields), *status),
                    (get("/nothing", fields), if *status == 200 { 404 } else { 403 }),
                ];
                for (request, status) in requests {
                    let mut client = house.client();
                    let reply = client.ask(request).await;
                    assert_eq!(reply.status, status);
                    no_cors(&reply);
                    if status == 403 {
                        assert_eq!(reply.refusal().0, "permission_error");
                        client.closes().await;
                    }
                }
                let preflight = format!(
                    "OPTIONS /v1/messages HTTP/1.1\r\nHost: 127.0.0.1:54548\r\nx-api-key: k\r\n\
                 Access-Control-Request-Method: POST\r\nanthropic-version: 2023-06-01\r\n{fields}\r\n"
                );
                no_cors(&house.client().ask(preflight).await);
                if *status == 403 {
                    assert_eq!(house.dialed(), 0);
                }
            },
        )
        .await;
    });
}

/// `Host`, whether the peer is on this machine, the status.
const HOSTS: &[(&str, bool, u16)] = &[
    ("127.0.0.1:54548", true, 200),
    ("localhost:54548", true, 200),
    ("LocalHost:54548", true, 200),
    ("[::1]:54548", true, 200),
    ("gateway.test", true, 200),
    ("GATEWAY.test:1", true, 200),
    ("exact.test:99", true, 200),
    ("127.0.0.1:54548", false, 200),
    ("gateway.test", false, 200),
    ("exact.test", true, 403),
    ("exact.test:98", true, 403),
    ("evil.test", true, 403),
    ("evil.test:54548", true, 403),
    ("gateway.test.evil.test", true, 403),
    ("localhost.evil.test:54548", true, 403),
    ("localhost", true, 403),
    ("localhost:80", true, 403),
    ("localhost:054548", true, 403),
    ("localhost.:54548", true, 403),
    ("127.1:54548", true, 403),
    ("2130706433:54548", true, 403),
    ("0.0.0.0:54548", true, 403),
    ("10.0.0.1:54548", true, 403),
    ("[::]:54548", true, 403),
    ("localhost:54548", false, 403),
    ("[::1]:54548", false, 403),
];

#[test]
fn only_requests_that_mean_this_gateway_are_heard() {
    every_row(HOSTS, async |(host, local, status)| {
        in_house(
            |s| s["server"]["hosts"] = json!(["gateway.test", "exact.test:99"]),
            async |house| {
                let peer = peer(if *local { "127.0.0.1:40000" } else { "192.0.2.7:40000" }, false);
                for path in ["/health", "/v1/models"] {
                    let mut client = house.client_as(peer.clone());
                    let reply = client
                        .ask(format!(
                            "GET {path} HTTP/1.1\r\nHost: {host}\r\nx-api-key: k\r\nx-cco-token: {TOKEN}\r\n\
                         anthropic-version: 2023-06-01\r\n\r\n"
                        ))
                        .await;
                    assert_eq!(reply.status, *status, "{path}");
                }
                assert_eq!(house.dialed(), usize::from(*status == 200));
            },
        )
        .await;
    });
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    /// Our own user on this machine.
    Own,
    /// Somebody else on this machine.
    Other,
    /// Somebody on another machine.
    Remote,
}
use Who::{Other, Own, Remote};

/// How the gateway is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Setup {
    Default,
    /// `openStoredKeys`
    OpenKeys,
    /// `apiKeyMode: stored`
    AlwaysStored,
    /// No key of ours.
    NoKey,
}
use Setup::{AlwaysStored, Default, NoKey, OpenKeys};

/// What arrives above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Up {
    /// `x-api-key`
    Key(&'static str),
    /// `authorization: Bearer`
    Bearer(&'static str),
    /// Nothing: 401.
    No,
}
use Up::{Bearer, Key, No};

/// `{T}` is the token, `{OAT}` a subscription's.
const OAT: &str = "sk-ant-oat01-0123456789abcdef";

const KEYS: &[(Setup, Who, &str, Up)] = &[
    // The caller's own key, in the form it came in.
    (Default, Own, "x-api-key: mine\r\n", Key("mine")),
    (Default, Other, "x-api-key: mine\r\n", Key("mine")),
    (Default, Own, "X-API-KEY:  mine \r\n", Key("mine")),
    (Default, Own, "authorization: Bearer mine\r\n", Bearer("mine")),
    (Default, Other, "Authorization: bearer  mine\r\n", Bearer("mine")),
    (Default, Own, "authorization: Bearer sk-ant-api03-x\r\n", Bearer("sk-ant-api03-x")),
    (OpenKeys, Other, "x-api-key: mine\r\n", Key("mine")),
    (NoKey, Other, "x-api-key: mine\r\n", Key("mine")),
    // A subscription's token is a bearer, in whichever form it came.
    (Default, Own, "authorization: Bearer {OAT}\r\n", Bearer(OAT)),
    (Default, Other, "x-api-key: {OAT}\r\n", Bearer(OAT)),
    (Default, Own, "authorization: Bearer {OAT}\r\nx-api-key: other\r\n", Bearer(OAT)),
    (Default, Own, "authorization: Bearer other\r\nx-api-key: {OAT}\r\n", Bearer(OAT)),
    (Default, Own, "authorization: Bearer {OAT}\r\nx-api-key: {OAT}\r\n", Bearer(OAT)),
    // Two forms.
    (Default, Own, "authorization: Bearer same\r\nx-api-key: same\r\n", Key("same")),
    (Default, Own, "authorization: Bearer sk-ant-api03-a\r\nx-api-key: sk-ant-api03-b\r\n", Bearer("sk-ant-api03-a")),
    (Default, Own, "authorization: Bearer other\r\nx-api-key: mine\r\n", Key("mine")),
    (Default, Own, "authorization: Bearer cco\r\nx-api-key: mine\r\n", Key(STORED_KEY)),
    (Default, Other, "authorization: Bearer cco\r\nx-api-key: mine\r\n", Key("mine")),
    (Default, Own, "authorization: Bearer mine\r\nx-api-key: cco\r\n", Key(STORED_KEY)),
    (Default, Other, "authorization: Bearer mine\r\nx-api-key: cco\r\n", Bearer("mine")),
    (Default, Other, "authorization: Bearer {T}\r\nx-api-key: mine\r\n", Key(STORED_KEY)),
    (Default, Other, "authorization: Bearer {OAT}\r\nx-api-key: {T}\r\n", Key(STORED_KEY)),
    (Default, Own, "authorization: Bearer sk-ant-api03-a\r\nx-api-key: {OAT}\r\n", Bearer(OAT)),
    (Default, Own, "x-api-key: a\r\nx-api-key: a\r\n", Key("a")),
    (Default, Own, "x-api-key: a\r\nx-api-key: b\r\n", No),
    (Default, Own, "authorization: Bearer a\r\nauthorization: Bearer b\r\n", No),
    // The token, or the literal `cco`, for our own.
    (Default, Other, "x-api-key: {T}\r\n", Key(STORED_KEY)),
    (Default, Other, "authorization: Bearer {T}\r\n", Key(STORED_KEY)),
    (Default, Other, "x-cco-token: {T}\r\n", Key(STORED_KEY)),
    (Default, Other, "x-api-key: {T}x\r\n", Key("{T}x")),
    (Default, Own, "x-api-key: cco\r\n", Key(STORED_KEY)),
    (Default, Own, "authorization: Bearer cco\r\n", Key(STORED_KEY)),
    (Default, Other, "x-api-key: cco\r\n", No),
    (Default, Other, "authorization: Bearer cco\r\n", No),
    (OpenKeys, Other, "x-api-key: cco\r\n", Key(STORED_KEY)),
    // No key at all.
    (Default, Own, "", Key(STORED_KEY)),
    (Default, Own, "x-api-key:\r\n", Key(STORED_KEY)),
    (Default, Own, "authorization: Bearer\r\n", Key(STORED_KEY)),
    (Default, Other, "", No),
    // One that we cannot read is not none.
    (Default, Own, "authorization: Basic dTpw\r\n", No),
    (Default, Own, "authorization: sk-ant-api03-x\r\n", No),
    (Default, Other, "authorization: Basic dTpw\r\n", No),
    (Default, Own, "authorization: Basic dTpw\r\nx-api-key: mine\r\n", Key("mine")),
    (Default, Remote, "authorization: Basic dTpw\r\nx-cco-token: {T}\r\n", Key(STORED_KEY)),
    (Default, Other, "x-goog-api-key: theirs\r\ncookie: session=1\r\n", No),
    (OpenKeys, Other, "", Key(STORED_KEY)),
    (NoKey, Own, "", No),
    (NoKey, Own, "x-api-key: cco\r\n", No),
    (NoKey, Own, "x-api-key: {T}\r\n", No),
    // Over a network nothing goes without the token, and with it everything.
    (Default, Remote, "", No),
    (Default, Remote, "x-api-key: mine\r\n", No),
    (Default, Remote, "authorization: Bearer {OAT}\r\n", No),
    (OpenKeys, Remote, "", No),
    (OpenKeys, Remote, "x-api-key: cco\r\n", No),
    (Default, Remote, "x-api-key: {T}\r\n", Key(STORED_KEY)),
    (Default, Remote, "authorization: Bearer {T}\r\n", Key(STORED_KEY)),
    (Default, Remote, "x-cco-token: {T}\r\nx-api-key: mine\r\n", Key("mine")),
    (Default, Remote, "x-cco-token: {T}\r\nauthorization: Bearer {OAT}\r\n", Bearer(OAT)),
    (Default, Remote, "x-cco-token: wrong\r\nx-api-key: mine\r\n", No),
    // Always ours, for those who may.
    (AlwaysStored, Own, "x-api-key: mine\r\n", Key(STORED_KEY)),
    (AlwaysStored, Own, "authorization: Bearer {OAT}\r\n", Key(STORED_KEY)),
    (AlwaysStored, Other, "x-api-key: mine\r\n", No),
    (AlwaysStored, Other, "x-api-key: {T}\r\n", Key(STORED_KEY)),
    (AlwaysStored, Remote, "x-cco-token: {T}\r\nx-api-key: mine\r\n", Key(STORED_KEY)),
];

const BETA: &str = "oauth-2025-04-20,interleaved-thinking-2025-05-14";

#[test]
fn a_request_spends_the_key_that_it_may_spend_and_no_other() {
    every_row(KEYS, async |(setup, who, fields, up)| {
        let edit = |s: &mut Value| match setup {
            Default => {}
            OpenKeys => s["server"]["openStoredKeys"] = true.into(),
            AlwaysStored => s["providers"]["anthropic"]["apiKeyMode"] = "stored".into(),
            NoKey => s["providers"]["anthropic"]["apiKeyRef"] = "".into(),
        };
        in_house(edit, async |house| {
            let peer = match who {
                Own => peer("127.0.0.1:40000", true),
                Other => peer("127.0.0.1:40000", false),
                Remote => peer("192.0.2.7:40000", true),
            };
            let fill = |text: &str| text.replace("{T}", TOKEN).replace("{OAT}", OAT);
            let rest = format!(
                "anthropic-beta: {BETA}\r\nx-goog-api-key: google\r\napi-key:\r\ncookie: session=1\r\n\
                 proxy-authorization: Basic eA==\r\nx-cco-agent: scout\r\n"
            );
            let mut client = house.client_as(peer.clone());
            for request in [
                post("/v1/messages", &(fill(fields) + &rest), BODY),
                get("/v1/models", &(fill(fields) + &rest)),
                get("/v1/anything/else", &(fill(fields) + &rest)),
            ] {
                let reply = client.ask(request).await;
                if *up == No {
                    assert_eq!((reply.status, reply.refusal().0.as_str()), (401, "authentication_error"));
                    assert_eq!(reply.header("x-should-retry"), Some("false"));
                    assert!(!reply.text().contains("mine") && !reply.text().contains("oat01"), "a key in the answer");
                    client = house.client_as(peer.clone());
                    continue;
                }
                let arrived = house.sim.requests().pop().expect("it arrived");
                let (key, bearer) = match up {
                    Key(key) => (vec![fill(key)], vec![]),
                    Bearer(key) => (vec![], vec![format!("Bearer {}", fill(key))]),
                    No => unreachable!(),
                };
                assert_eq!(
                    (arrived.header_all("x-api-key"), arrived.header_all("authorization")),
                    (key.iter().map(String::as_str).collect(), bearer.iter().map(String::as_str).collect())
                );
                assert_eq!(arrived.header_all("anthropic-beta"), [BETA]);
                assert_eq!(arrived.header("host"), Some("upstream.test"));
                for never in
                    ["cookie", "x-goog-api-key", "api-key", "proxy-authorization", "x-cco-token", "x-cco-agent"]
                {
                    assert_eq!(arrived.header(never), None, "`{never}` went up");
                }
                assert_eq!(arrived.oddities, [""; 0]);
            }
            if *up == No {
                assert_eq!(house.dialed(), 0);
            }
        })
        .await;
    });
}

#[tokio::test(start_paused = true)]
async fn a_refusal_says_what_to_set() {
    in_house(
        |s| s["providers"]["anthropic"]["apiKeyRef"] = "env:NOT_SET".into(),
        async |house| {
            let (_, message) = house.client().ask(post("/v1/messages", "", BODY)).await.refusal();
            assert!(message.contains("set `NOT_SET`") && !message.contains("ANTHROPIC_API_KEY"), "{message}");
            let other = peer("127.0.0.1:40000", false);
            let (_, message) = house.client_as(other).ask(post("/v1/messages", "", BODY)).await.refusal();
            assert!(message.contains("x-api-key") && message.contains("server.openStoredKeys"), "{message}");
        },
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_upstreams_own_401_passes_as_it_is() {
    in_house(plain, async |house| {
        let reply = house.client().ask(messages(false, "x-sim-fault: 401\r\n")).await;
        assert_eq!((reply.status, reply.header("x-should-retry")), (401, None));
        assert!(reply.text().contains("req_sim_"), "{}", reply.text());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_is_not_there_is_404_and_what_is_only_read_is_405() {
    in_house(plain, async |house| {
        let mut client = house.client();
        for (method, path, status, kind) in [
            ("GET", "/nothing", 404, "not_found_error"),
            ("POST", "/nothing", 404, "not_found_error"),
            ("GET", "/v1", 404, "not_found_error"),
            ("GET", "/gateway", 404, "not_found_error"),
            ("POST", "/gateway/health", 405, "invalid_request_error"),
            ("DELETE", "/health", 405, "invalid_request_error"),
            ("PUT", "/gateway/providers", 405, "invalid_request_error"),
            ("POST", "/", 405, "invalid_request_error"),
        ] {
            let request = format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:54548\r\n\r\n");
            let reply = client.ask(request).await;
            assert_eq!((reply.status, reply.refusal().0.as_str()), (status, kind), "{method} {path}");
            assert_eq!(reply.header("x-should-retry"), Some("false"));
            assert_eq!(reply.header("allow"), (status == 405).then_some("GET, HEAD"));
        }
        // All on one connection; one with a body that nobody has read does not go on.
        let reply = client.ask(post("/gateway/health", "", "{}")).await;
        assert_eq!((reply.status, reply.header("connection")), (405, Some("close")));
        client.closes().await;
        for (method, path) in
            [("GET", "/"), ("HEAD", "/"), ("HEAD", "/api/hello"), ("GET", "/health"), ("HEAD", "/gateway/health")]
        {
            let mut client = house.client();
            client.send(format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:54548\r\n\r\n")).await;
            let reply = client.reply_to(method).await;
            assert_eq!((reply.status, reply.body.is_empty()), (200, method == "HEAD"), "{method} {path}");
            assert!(client.unread().is_empty());
        }
        assert_eq!(house.dialed(), 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_key_whose_provider_is_disabled_is_told_so_and_goes_nowhere_else() {
    let edit = |settings: &mut Value| {
        settings["providers"]["anthropic"]["enabled"] = false.into();
        settings["providers"]["other"] = json!({ "providerType": "openai-compatible", "baseUrl": "http://other.test", "apiKeyRef": "env:OTHER_KEY" });
        settings["routing"] = json!({ "fallbackChain": ["anthropic", "other"] });
    };
    in_house(edit, async |house| {
        let reply = house.client_as(peer("127.0.0.1:40000", false)).ask(messages(false, "")).await;
        let (kind, why) = reply.refusal();
        assert_eq!((reply.status, reply.header("x-should-retry"), house.dialed()), (503, Some("false"), 0), "{kind}");
        assert!(why.contains("the provider `anthropic`, which is disabled"), "{why}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn without_an_enabled_provider_every_request_is_503() {
    in_house(
        |s| s["providers"]["anthropic"]["enabled"] = false.into(),
        async |house| {
            let mut client = house.client();
            let reply = client.ask(get("/v1/models", "x-api-key: k\r\n")).await;
            assert_eq!((reply.status, reply.header("x-should-retry")), (503, Some("false")));
            let (_, message) = reply.refusal();
            assert!(message.contains("routing.defaultProvider"), "{message}");
            let health = client.ask(get("/gateway/health", "")).await;
            assert_eq!((health.status, &health.json()["providers"]), (200, &json!({ "anthropic": false })));
            assert_eq!(health.json()["status"], "unhealthy");
        },
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn of_a_body_in_chunks_the_payload_is_what_counts() {
    let edit = |s: &mut Value| {
        s["server"]["maxBodyMb"] = 0.01.into();
        s["server"]["maxHeldMb"] = 0.011.into();
    };
    in_house(edit, async |house| {
        let prompt = |length: usize| {
            let around = json!({ "model": "m", "max_tokens": 9, "messages": [{ "role": "user", "content": "" }] });
            let around = around.to_string();
            around.replace("\"\"", &format!("\"{}\"", "x".repeat(length - around.len())))
        };
        let chunks = |body: &str, size: usize| {
            let chunks = body.as_bytes().chunks(size);
            let chunks = chunks.map(|c| format!("{:x}\r\n{}\r\n", c.len(), String::from_utf8_lossy(c)));
            let head = "POST /v1/messages HTTP/1.1\r\nHost: 127.0.0.1:54548\r\nx-api-key: k\r\n\
                        anthropic-version: 2023-06-01\r\nTransfer-Encoding: chunked\r\n\r\n";
            format!("{head}{}0\r\n\r\n", chunks.collect::<String>())
        };
        // Six bytes of framing for each of payload.
        let reply = house.client().ask(chunks(&prompt(10_000), 1)).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        // Too large is too large, also where it would not fit into what may be held.
        for body in [prompt(10_500), prompt(30_000)] {
            let plain = post("/v1/messages", "x-api-key: k\r\n", &body);
            for request in [plain, chunks(&body, 4000).into_bytes()] {
                let reply = house.client().ask(request).await;
                assert_eq!((reply.status, reply.after.as_secs()), (413, 0));
                let (_, message) = reply.refusal();
                assert!(message.contains("larger than 0.01 MB"), "{message}");
            }
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn held_bodies_are_bounded_together_and_the_one_too_many_is_told_to_wait() {
    let edit = |s: &mut Value| {
        s["server"]["maxHeldMb"] = 1.into();
        s["server"]["maxBodyMb"] = 1.into();
    };
    in_house(edit, async |house| {
        let large = format!(r#"{{"model":"m","x":"{}"}}"#, "x".repeat(700_000));
        let request = post("/v1/messages", "x-api-key: k\r\nx-sim-fault: delay-head=20000\r\n", &large);
        let (mut first, mut second) = (house.client(), house.client());
        first.send(&request).await;
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        assert!((700_000..1 << 20).contains(&house.gateway.held.used()));
        let reply = second.ask(&request).await;
        assert_eq!((reply.status, reply.header("retry-after"), reply.after.as_secs()), (529, Some("5"), 5));
        assert_eq!(reply.refusal().0, "overloaded_error");
        // One that fits is served meanwhile, and so is one that waits until there is room.
        assert_eq!(house.client().ask(messages(false, "")).await.status, 200);
        let mut third = house.client();
        tokio::time::sleep(std::time::Duration::from_secs(11)).await;
        third.send(&request).await;
        assert!(first.reply().await.after.as_secs() >= 20);
        assert_eq!(third.reply().await.header("retry-after"), None);
    })
    .await;
}
