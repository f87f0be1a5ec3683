//! Keys over the network: providers on hosts of their own, and whatever is asked of them, no host ever sees a key that is
//! not for it.

use std::net::SocketAddr;

use serde_json::{Value, json};
use sim::{Received, SimConfig};

use crate::common::{Answer, Ended, Gateway, Upstream, lay_over, upstream_with};

/// The caller's own, which belongs to the first host.
const OWN: &str = "sk-ant-api03-of-the-caller-0123456789";
/// Its login, which does too.
const LOGIN: &str = "sk-ant-oat01-of-the-caller-0123456789";
/// What the caller sends besides, under names that sound like keys.
const BESIDES: &str = "a-secret-that-the-caller-sends-besides";
/// Ours: two of a pool, and one each of two others.
const KEYS: [(&str, &str); 4] = [
    ("POOL_ONE", "sk-pool-one-0123456789abcdef"),
    ("POOL_TWO", "sk-pool-two-0123456789abcdef"),
    ("SINGLE", "sk-single-0123456789abcdef"),
    ("CHAT", "sk-chat-0123456789abcdef"),
];

/// A host of the loopback's own network, which is one of its own for whoever looks at names and numbers.
async fn host(number: u8) -> Upstream {
    upstream_with(SimConfig { listen: SocketAddr::from(([127, 0, 0, number], 0)), ..SimConfig::default() }).await
}

/// Four providers, and a place that is none.
struct Hosts {
    home: Upstream,
    pool: Upstream,
    single: Upstream,
    chat: Upstream,
    outside: Upstream,
}

impl Hosts {
    async fn new() -> Self {
        let (home, pool, single) = (host(2).await, host(3).await, host(4).await);
        Self { home, pool, single, chat: host(5).await, outside: host(6).await }
    }

    /// What may be seen where.
    fn allowed(&self) -> [(&'static str, &Upstream, Vec<&'static str>); 5] {
        let key = |name: &str| KEYS.iter().find(|(known, _)| *known == name).unwrap().1;
        [
            ("home", &self.home, vec![OWN, LOGIN, BESIDES]),
            ("pool", &self.pool, vec![key("POOL_ONE"), key("POOL_TWO")]),
            ("single", &self.single, vec![key("SINGLE")]),
            ("chat", &self.chat, vec![key("CHAT")]),
            ("outside", &self.outside, vec![]),
        ]
    }

    fn config(&self, more: Value) -> Value {
        let at = |upstream: &Upstream| format!("http://{}", upstream.addr);
        let of = |kind: &str, upstream: &Upstream, keys: Value| json!({ "providerType": kind, "baseUrl": at(upstream), "apiKeyRef": keys, "maxRetries": 0 });
        let mut config = json!({
            "providers": {
                "home": { "providerType": "anthropic", "baseUrl": at(&self.home), "maxRetries": 0 },
                "pool": of("anthropic-compatible", &self.pool, json!(["env:POOL_ONE", "env:POOL_TWO"])),
                "single": of("anthropic-compatible", &self.single, json!("env:SINGLE")),
                "chat": of("openai-compatible", &self.chat, json!("env:CHAT")),
            },
            "routing": { "defaultProvider": "home", "fallbackChain": ["home", "pool", "single", "chat"] },
        });
        let chat =
            json!({ "baseUrl": format!("{}/v1", at(&self.chat)), "protocol": "openai-chat", "defaultModel": "m" });
        lay_over(&mut config, json!({ "providers": { "chat": chat } }));
        lay_over(&mut config, more);
        config
    }

    /// Nothing of all that arrived anywhere holds a key that is not for that place; and each key is somewhere.
    fn check(&self) {
        let every: Vec<&str> = KEYS.iter().map(|(_, key)| *key).chain([OWN, LOGIN, BESIDES]).collect();
        let mut arrived = Vec::new();
        for (name, upstream, allowed) in self.allowed() {
            for request in upstream.sim.requests() {
                for key in every.iter().filter(|key| holds(&request, key)) {
                    assert!(allowed.contains(key), "`{key}` came to {name}: {}", text(&request));
                    arrived.push(*key);
                }
                let ours = KEYS.iter().filter(|(_, key)| holds(&request, key)).count();
                assert!(ours <= 1, "of a pool one key is enough: {}", text(&request));
            }
        }
        for key in every {
            assert!(arrived.contains(&key), "`{key}` was never spent: nothing is shown of it");
        }
        assert_eq!(self.outside.sim.connections_seen(), 0, "nobody went where a redirect pointed");
    }
}

fn text(request: &Received) -> String {
    format!("{}{}", String::from_utf8_lossy(&request.head), String::from_utf8_lossy(&request.body))
}

fn holds(request: &Received, key: &str) -> bool {
    text(request).contains(key)
}

fn ask(fields: &str, stream: bool) -> Vec<u8> {
    let body = json!({
        "model": "claude-sonnet-4-5", "max_tokens": 1000, "stream": stream,
        "messages": [{ "role": "user", "content": "Hello." }],
    });
    let body = body.to_string();
    let besides =
        format!("cookie: session={BESIDES}\r\nx-goog-api-key: {BESIDES}\r\nproxy-authorization: Basic {BESIDES}\r\n");
    let head = format!(
        "POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nanthropic-version: 2023-06-01\r\n{fields}{besides}\
         x-portkey-api-key: {BESIDES}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    head.into_bytes()
}

fn by_key() -> String {
    format!("x-api-key: {OWN}\r\n")
}

fn by_login() -> String {
    format!("authorization: Bearer {LOGIN}\r\n")
}

/// These providers fail so.
fn faults(all: &[(&str, &str)]) -> Value {
    let provider = |(name, fault): &(&str, &str)| (name.to_string(), json!({ "headers": { "x-sim-fault": fault } }));
    json!({ "providers": all.iter().map(provider).collect::<serde_json::Map<_, _>>() })
}

#[track_caller]
fn check_served(answer: &Answer, provider: &str, attempts: &str) {
    let got = (answer.status, answer.ended, answer.header("x-cco-provider"), answer.header("x-cco-attempts"));
    assert_eq!(got, (200, Ended::Whole, Some(provider), Some(attempts)), "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_host_ever_sees_a_key_that_is_not_for_it() {
    let hosts = Hosts::new().await;
    let away = format!("redirect=http://{}/v1/messages", hosts.outside.addr);

    // Down the chain, with each kind of failure, for a key and for a login, streamed and whole.
    for (fields, stream) in [(by_key(), true), (by_login(), true), (by_key(), false)] {
        let failing = faults(&[("home", "529"), ("pool", "503"), ("single", &away)]);
        let gateway = Gateway::start_with(hosts.config(failing), &[], &KEYS).await;
        check_served(&gateway.ask(ask(&fields, stream)).await, "chat", "5");
    }
    // A redirect of the caller's own provider, and of each key of a pool.
    let gateway = Gateway::start_with(hosts.config(faults(&[("home", &away), ("pool", &away)])), &[], &KEYS).await;
    check_served(&gateway.ask(ask(&by_login(), true)).await, "single", "4");

    // Side by side: the caller's own and the first of the pool, then two of the pool.
    let late = "delay-head=400";
    for (slow, attempts) in [(&[("home", late)][..], "2"), (&[("home", "529"), ("pool", late)], "3")] {
        let mut slowly = faults(slow);
        lay_over(&mut slowly, json!({ "routing": { "hedgeAfterMs": 50 } }));
        let gateway = Gateway::start_with(hosts.config(slowly), &[], &KEYS).await;
        check_served(&gateway.ask(ask(&by_key(), true)).await, "pool", attempts);
    }

    // What broke off is gone on with by the same key at the same host: the caller's own, and one of the pool.
    let breaks = "text=\"one two three four\" fault=cut=4ev times=1";
    for provider in ["home", "pool"] {
        let mut config = json!({
            "providers": { provider: { "headers": { "x-sim": breaks } } },
            "routing": { "continueOnBreak": true },
        });
        if provider != "home" {
            lay_over(&mut config, faults(&[("home", "500")]));
        }
        let asked = if provider == "home" { &hosts.home } else { &hosts.pool };
        let before = asked.sim.requests().len();
        let gateway = Gateway::start_with(hosts.config(config), &[], &KEYS).await;
        let answer = gateway.ask(ask(&by_key(), true)).await;
        check_served(&answer, provider, if provider == "home" { "1" } else { "2" });
        assert!(answer.text().contains("message_stop") && !answer.text().contains("event: error"), "{}", answer.text());
        let [first, second] = &asked.sim.requests()[before..] else { panic!("two requests") };
        assert_eq!(first.header_all("x-api-key"), second.header_all("x-api-key"), "the same key");
    }

    // A subscription that is used up is replaced by a key of ours.
    let used_up = "status=429 header=\"anthropic-ratelimit-unified-status: rejected\" \
                   header=\"anthropic-ratelimit-unified-reset: 4102444800\"";
    let replaced = json!({
        "providers": { "home": { "headers": { "x-sim": used_up } } },
        "routing": { "onSubscriptionLimit": "single" },
    });
    let gateway = Gateway::start_with(hosts.config(replaced), &[], &KEYS).await;
    for attempts in ["2", "1"] {
        let answer = gateway.ask(ask(&by_login(), true)).await;
        check_served(&answer, "single", attempts);
        assert_eq!(answer.header("x-cco-subscription"), Some("used-up"));
    }
    hosts.check();
}
