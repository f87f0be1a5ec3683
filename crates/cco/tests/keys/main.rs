//! Every key of the configuration that works, changed: what the real program does differently then.
//!
//! A row is one key. The program runs twice, and the two configurations differ in that key alone. Where only paused time
//! or a network of its own can show the difference, the row names the test that does; it must exist. A key of the
//! reference without a row fails.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[expect(dead_code, unused_imports, reason = "what these tests leave out others need")]
#[path = "../common/mod.rs"]
mod common;

mod providers;
mod rest;
mod routing;
mod server;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use gateway::config::{Config, Effect, Key, Shape};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use common::{Answer, Gateway, Upstream, binary, lay_over, upstream};

/// Programs that run at a time.
const AT_A_TIME: usize = 4;

/// The variables that references mean.
const KEYS: [(&str, &str); 3] = [("ONE", "key-of-the-first"), ("TWO", "key-of-the-second"), ("THREE", "a-third-key")];

/// One key, and what shows that it works.
struct Row {
    /// Where it stands in a configuration, as a JSON pointer.
    at: &'static str,
    proof: Proof,
}

enum Proof {
    /// The program does one thing without the value, and another with it.
    Here { with: Value, value: Value, want: [&'static str; 2], probe: Probe },
    /// A test in this file, under `crates/`.
    There(&'static str, &'static str),
}

type Probe = Box<dyn Fn(Rig) -> Pin<Box<dyn Future<Output = String> + Send>> + Send>;

/// A row whose key has no value at first (or what `with` says), then this one.
fn row<F: Future<Output = String> + Send + 'static>(
    at: &'static str,
    with: Value,
    value: Value,
    want: [&'static str; 2],
    probe: impl Fn(Rig) -> F + Send + 'static,
) -> Row {
    Row { at, proof: Proof::Here { with, value, want, probe: Box::new(move |rig| Box::pin(probe(rig))) } }
}

/// A row that another test proves.
fn there(at: &'static str, file: &'static str, test: &'static str) -> Row {
    Row { at, proof: Proof::There(file, test) }
}

/// Two providers, and a configuration with a folder for it.
struct Rig {
    one: Arc<Upstream>,
    _two: Arc<Upstream>,
    config: Value,
    home: tempfile::TempDir,
}

/// A request, by what is out of the ordinary about it.
struct Ask {
    fields: &'static str,
    script: &'static str,
    stream: bool,
    body: Value,
}

impl Default for Ask {
    fn default() -> Self {
        Self { fields: "", script: "text=ok", stream: false, body: json!({}) }
    }
}

impl Ask {
    fn streamed(script: &'static str) -> Self {
        Self { script, stream: true, ..Self::default() }
    }

    fn whole(script: &'static str) -> Self {
        Self { script, ..Self::default() }
    }

    /// With these header lines.
    fn with(fields: &'static str) -> Self {
        Self { fields, ..Self::default() }
    }

    fn saying(body: Value) -> Self {
        Self { body, ..Self::default() }
    }

    fn model(model: &str) -> Self {
        Self::saying(json!({ "model": model }))
    }

    /// It brings no key: those of the configuration are spent.
    fn request(&self) -> Vec<u8> {
        let Self { fields, script, stream, body } = self;
        let mut told = json!({
            "model": "claude-sonnet-5-5", "max_tokens": 1000, "stream": stream,
            "messages": [{ "role": "user", "content": format!("[[sim {script}]]") }],
        });
        lay_over(&mut told, body.clone());
        let body = told.to_string();
        format!(
            "POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nanthropic-version: 2023-06-01\r\n{fields}\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .into()
    }
}

impl Rig {
    fn new(one: &Arc<Upstream>, two: &Arc<Upstream>, with: &Value, change: Option<(&str, &Value)>) -> Self {
        let at = |upstream: &Upstream| format!("http://{}", upstream.addr);
        let mut config = json!({
            "server": { "listen": "127.0.0.1:0" },
            "providers": {
                "anthropic": { "baseUrl": at(one), "apiKeyRef": "env:ONE" },
                "two": { "providerType": "anthropic-compatible", "baseUrl": at(two), "apiKeyRef": "env:TWO" },
            },
        });
        lay_over(&mut config, filled(with, one, two));
        if let Some((pointer, value)) = change {
            put(&mut config, pointer, filled(value, one, two));
        }
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("config.json"), config.to_string()).unwrap();
        Self { one: one.clone(), _two: two.clone(), config, home }
    }

    fn path(&self) -> &Path {
        self.home.path()
    }

    async fn gateway(&self) -> Gateway {
        Gateway::start_in(self.path(), &[], &KEYS).await
    }

    async fn ask(&self, ask: Ask) -> Answer {
        self.gateway().await.ask(ask.request()).await
    }

    /// The status of an answer, and who gave it.
    async fn served(&self, ask: Ask) -> String {
        let answer = self.ask(ask).await;
        format!("{} {}", answer.status, answer.header("x-cco-provider").unwrap_or("nobody"))
    }

    async fn status(&self, ask: Ask) -> String {
        self.ask(ask).await.status.to_string()
    }

    /// Where the first provider was asked.
    async fn target(&self, ask: Ask) -> String {
        let answer = self.ask(ask).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        self.one.last().target
    }

    /// What the first provider was told, at this pointer.
    async fn told(&self, ask: Ask, pointer: &str) -> String {
        let answer = self.ask(ask).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let body: Value = serde_json::from_slice(&self.one.last().body).unwrap();
        body.pointer(pointer).map_or("nothing".into(), ToString::to_string)
    }

    /// A field of the request that the first provider got.
    async fn sent(&self, ask: Ask, name: &str) -> String {
        let answer = self.ask(ask).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        self.one.last().header(name).map_or("nothing".into(), ToOwned::to_owned)
    }

    /// What a command of the program ends with.
    async fn command(&self, args: &[&str]) -> String {
        let output = binary().args(args).env("CCO_HOME", self.path()).envs(KEYS).output().await.unwrap();
        let code = output.status.code().unwrap();
        format!("{code} {}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    }
}

/// `ONE`, `TWO` for the addresses of the providers.
fn filled(value: &Value, one: &Upstream, two: &Upstream) -> Value {
    let text = value.to_string().replace("http://ONE", &format!("http://{}", one.addr));
    serde_json::from_str(&text.replace("http://TWO", &format!("http://{}", two.addr))).unwrap()
}

/// Puts a value at a pointer; what is not there on the way is made.
fn put(config: &mut Value, pointer: &str, value: Value) {
    let mut at = config;
    for name in pointer.split('/').skip(1) {
        at = match name.parse::<usize>() {
            Ok(index) => at.get_mut(index).expect("the list is there"),
            Err(_) => {
                if at.is_null() {
                    *at = json!({});
                }
                at.as_object_mut().expect("an object").entry(name).or_insert(Value::Null)
            }
        };
    }
    assert_ne!(*at, value, "{pointer}: the value must be another one");
    *at = value;
}

/// Runs the rows of a part of the table.
async fn check(rows: Vec<Row>) {
    let (mut tasks, mut faults) = (JoinSet::new(), String::new());
    let mut note = |done: Option<Result<Option<String>, _>>| match done {
        Some(done) => {
            let fault: Option<String> = done.unwrap_or_else(|why: tokio::task::JoinError| Some(format!("{why}\n")));
            faults += &fault.unwrap_or_default();
            true
        }
        None => false,
    };
    for row in rows {
        if tasks.len() == AT_A_TIME {
            note(tasks.join_next().await);
        }
        match row.proof {
            Proof::Here { with, value, want, probe } => {
                tasks.spawn(differs(row.at, with, value, want, probe));
            }
            Proof::There(..) => {}
        }
    }
    while note(tasks.join_next().await) {}
    assert!(faults.is_empty(), "\n{faults}");
}

async fn differs(at: &'static str, with: Value, value: Value, want: [&'static str; 2], probe: Probe) -> Option<String> {
    let (one, two) = (Arc::new(upstream().await), Arc::new(upstream().await));
    let before = probe(Rig::new(&one, &two, &with, None)).await;
    let after = probe(Rig::new(&one, &two, &with, Some((at, &value)))).await;
    assert_ne!(want[0], want[1], "{at}");
    (want != [&*before, &*after]).then(|| format!("{at}: {want:?} is to be, {before:?} and {after:?} is\n"))
}

fn table() -> Vec<Row> {
    [server::rows(), providers::rows(), routing::rows(), rest::rows()].into_iter().flatten().collect()
}

/// The keys that work, as `providers.*.timeoutSecs`, `routing.rules.*.when.model`.
fn working(keys: &[Key], at: &str, found: &mut BTreeSet<String>) {
    for key in keys.iter().filter(|key| key.effect == Effect::Now) {
        let path = format!("{at}{}", key.name);
        if !within(&key.shape, &path, found) {
            found.insert(path);
        }
    }
}

/// Whether there are keys within a shape; they are noted.
fn within(shape: &Shape, at: &str, found: &mut BTreeSet<String>) -> bool {
    match shape {
        Shape::Section(keys) => {
            working(keys, &format!("{at}."), found);
            true
        }
        Shape::Nullable(shape) => within(shape, at, found),
        Shape::List(shape) | Shape::Map(shape) => within(shape, &format!("{at}.*"), found),
        Shape::Either(a, b) => within(a, at, found) | within(b, at, found),
        _ => false,
    }
}

/// The key of the table that a pointer means.
fn key_of(pointer: &str, keys: &BTreeSet<String>) -> Option<String> {
    let names: Vec<&str> = pointer.split('/').skip(1).collect();
    let means = |key: &&String| {
        let parts: Vec<&str> = key.split('.').collect();
        parts.len() == names.len() && parts.iter().zip(&names).all(|(part, name)| part == name || *part == "*")
    };
    keys.iter().find(means).cloned()
}

#[test]
fn every_key_that_works_has_a_row_and_what_rows_name_is_there() {
    let (mut keys, mut shown, mut faults) = (BTreeSet::new(), BTreeSet::new(), String::new());
    working(&Config::keys(), "", &mut keys);
    assert!(keys.len() > 80 && keys.contains("routing.rules.*.when.model"), "{keys:?}");
    let crates = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    for row in table() {
        match key_of(row.at, &keys) {
            Some(key) => _ = shown.insert(key),
            // Maps of the user's own names are keys as a whole.
            None if keys.contains(&row.at[1..].replace('/', ".")) => _ = shown.insert(row.at[1..].replace('/', ".")),
            None => _ = writeln!(faults, "`{}` is no key that works", row.at),
        }
        if let Proof::There(file, test) = row.proof {
            let source = std::fs::read_to_string(crates.join(file)).unwrap_or_default();
            let name = format!("fn {test}(");
            let attribute = source.split_once(&name).map(|(before, _)| before.trim_end_matches("async ").trim_end());
            if !attribute.is_some_and(|before| before.lines().last().is_some_and(|line| line.contains("test"))) {
                _ = writeln!(faults, "`{}` names a test that is not there: `{test}` in crates/{file}", row.at);
            }
        }
    }
    for key in keys.difference(&shown) {
        _ = writeln!(faults, "`{key}` is said to work, and no row shows it");
    }
    assert!(faults.is_empty(), "\n{faults}");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_the_server_and_the_network() {
    check(server::rows()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_providers() {
    check(providers::rows()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_routing() {
    check(routing::rows()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_translation_costs_audit_and_log() {
    check(rest::rows()).await;
}
