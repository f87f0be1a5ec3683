//! Where secrets come in, and everything that must not hold them.

use std::path::{Path, PathBuf};

use ledger::archive::{Kind, Reader};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::common::dice::Dice;
use crate::common::{Answer, Client, Gateway, binary, contains, lay_over, soon};
use crate::search::{Canary, Search};
use crate::upstream::{ANSWER, Answers, Upstream};

/// All canaries that were planted.
struct Planted {
    dice: Dice,
    all: Vec<Canary>,
}

impl Planted {
    fn new(seed: u64) -> Self {
        Self { dice: Dice::new(seed), all: vec![] }
    }

    fn canary(&mut self, place: &'static str) -> &Canary {
        if let Some(at) = self.all.iter().position(|known| known.place == place) {
            return &self.all[at];
        }
        let canary = Canary::new(place, &mut self.dice);
        self.all.push(canary);
        &self.all[self.all.len() - 1]
    }

    /// A value for a place that takes anything.
    fn odd(&mut self, place: &'static str) -> String {
        self.canary(place).odd()
    }

    /// A value for a place that takes letters and digits.
    fn plain(&mut self, place: &'static str) -> String {
        self.canary(place).plain()
    }
}

fn whole(status: &str, fields: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\n{fields}content-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// What the upstream can answer, with a canary in each of its parts.
fn answers(planted: &mut Planted) -> Answers {
    let fields = format!(
        "set-cookie: session={}\r\nx-upstream-secret: {}\r\nwww-authenticate: Bearer realm=\"{}\"\r\n",
        planted.odd("the upstream's cookie"),
        planted.odd("the upstream's header"),
        planted.plain("the upstream's challenge")
    );
    let json = |text: String| Value::from(text).to_string();
    let event = |name: &str, data: String| format!("event: {name}\ndata: {{\"type\":\"{name}\",{data}}}\n\n");
    let delta = |index: u32, kind: &str, field: &str, text: String| {
        let text = Value::from(text);
        event("content_block_delta", format!("\"index\":{index},\"delta\":{{\"type\":\"{kind}\",\"{field}\":{text}}}"))
    };
    let block = |index: u32, block: &str, deltas: String| {
        event("content_block_start", format!("\"index\":{index},\"content_block\":{block}"))
            + &deltas
            + &event("content_block_stop", format!("\"index\":{index}"))
    };
    let start = event(
        "message_start",
        "\"message\":{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"claude-sonnet-5-5\",\
         \"content\":[],\"stop_reason\":null,\"usage\":{\"input_tokens\":9,\"output_tokens\":1}}"
            .into(),
    );
    let begun = start.clone()
        + &block(
            0,
            "{\"type\":\"thinking\",\"thinking\":\"\",\"signature\":\"\"}",
            delta(0, "thinking_delta", "thinking", planted.odd("what the model thinks"))
                + &delta(0, "signature_delta", "signature", planted.plain("a signature")),
        )
        + &block(
            1,
            "{\"type\":\"text\",\"text\":\"\"}",
            delta(1, "text_delta", "text", planted.odd("what the model says")),
        )
        + &block(
            2,
            "{\"type\":\"tool_use\",\"id\":\"toolu_1\",\"name\":\"Bash\",\"input\":{}}",
            delta(2, "input_json_delta", "partial_json", json(planted.odd("what a tool is called with"))),
        );
    let end = event("message_delta", "\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":7}".into())
        + &event("message_stop", "\"x\":1".into());
    let error = |kind: String, message: String| {
        format!("{{\"type\":\"error\",\"error\":{{\"type\":{},\"message\":{}}}}}", json(kind), json(message))
    };
    let failed = |message: String| {
        format!("event: error\ndata: {}\n\n", error("api_error".into(), format!("the key {message} is wrong")))
    };
    let events = format!("{fields}content-type: text/event-stream\r\n");
    let as_json = format!("{fields}content-type: application/json\r\n");
    let open = |body: &str| format!("HTTP/1.1 200 OK\r\n{events}\r\n{body}").into_bytes();
    let message = format!(
        "{{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"claude-sonnet-5-5\",\"stop_reason\":\"end_turn\",\
         \"content\":[{{\"type\":\"text\",\"text\":{}}}],\"usage\":{{\"input_tokens\":9,\"output_tokens\":7}}}}",
        json(planted.odd("a whole answer"))
    );
    let mut refused = |place| error("authentication_error".into(), format!("invalid key: {}", planted.odd(place)));
    let (said, said_whole) =
        (refused("the message of an error"), refused("the message of an error that is a whole 200"));
    let said_in_a_stream = failed(planted.odd("the message of an error in a stream"));
    let said_at_once = failed(planted.odd("the message of an error at once"));
    let kind = error(planted.odd("the type of an error"), "it went wrong".into());
    let page = format!("<html><b>{}</b></html>", planted.odd("an error page"));
    let reason = format!("500 {}", planted.plain("a reason phrase"));
    let redirect = format!("location: http://127.0.0.1:9/{}\r\n", planted.plain("a redirect"));
    let coding = format!("{as_json}content-encoding: {}\r\n", planted.plain("a content coding"));
    let raw = |text: String| (text.into_bytes(), false);
    let done = |bytes: Vec<u8>| (bytes, false);
    Answers::from([
        ("stream", done(whole("200 OK", &events, &format!("{begun}{end}")))),
        ("open", done(open(&format!("{begun}{end}")))),
        ("truncated", done(open(&begun))),
        ("stuck", (open(&begun), true)),
        ("failing", done(open(&format!("{start}{said_in_a_stream}")))),
        ("failing at once", done(open(&said_at_once))),
        ("whole", done(whole("200 OK", &as_json, &message))),
        ("error", done(whole("401 Unauthorized", &as_json, &said))),
        ("error in 200", done(whole("200 OK", &as_json, &said_whole))),
        ("odd error", done(whole("400 Bad Request", &as_json, &kind))),
        ("page", done(whole("502 Bad Gateway", "content-type: text/html\r\n", &page))),
        ("reason", done(whole(&reason, &as_json, "{}"))),
        ("coding", done(whole("200 OK", &coding, "{}"))),
        ("redirect", done(whole("307 Temporary Redirect", &redirect, ""))),
        ("garbage", raw(format!("{} and more\r\n\r\n", planted.odd("what is no HTTP")))),
        ("bad line", raw(format!("HTTP/1.1 200 OK\r\n{}\r\n\r\n", planted.odd("a line that is no header")))),
        ("bad length", raw(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", planted.plain("a length")))),
        (
            "bad chunk",
            raw(format!(
                "HTTP/1.1 200 OK\r\n{as_json}transfer-encoding: chunked\r\n\r\n2\r\n{{}}\r\n{}\r\n",
                planted.plain("the size of a chunk")
            )),
        ),
        ("nothing", raw(String::new())),
    ])
}

/// Names of answers that are relayed as they are; the others become an answer of our own.
const RELAYED: &[&str] = &[
    "stream",
    "open",
    "failing",
    "failing at once",
    "whole",
    "error",
    "error in 200",
    "odd error",
    "page",
    "reason",
    "coding",
];
/// These end in an error that the gateway writes.
const BROKEN_OFF: &[&str] = &["truncated"];
const REFUSED: &[&str] = &["redirect", "garbage", "bad line", "bad length", "nothing"];

/// What the heads that are kept may hold: their first lines, and what is known to be harmless.
const HEADS: [&str; 2] = ["a reason phrase", "a content coding"];
/// What upstreams say went wrong.
const SAID: &[&str] = &[
    "the message of an error",
    "the message of an error that is a whole 200",
    "the message of an error in a stream",
    "the message of an error at once",
];

/// Everything that a run has in it.
struct Run {
    home: PathBuf,
    /// For files that are nobody's business to find.
    scratch: PathBuf,
    config: PathBuf,
    planted: Planted,
    upstream: Upstream,
    gateway: Gateway,
    env: Vec<(&'static str, String)>,
    /// What was written to stdout and stderr by processes that are gone.
    logs: Vec<String>,
}

impl Run {
    async fn start(folder: &Path, seed: u64, more: Value) -> Self {
        let mut planted = Planted::new(seed);
        let upstream = Upstream::start(answers(&mut planted)).await;
        let (home, scratch) = (folder.join("home"), folder.join("scratch"));
        std::fs::create_dir(&home).unwrap();
        std::fs::create_dir(&scratch).unwrap();
        let private = |name: &str, content: String, mode| {
            let path = folder.join(name);
            std::fs::write(&path, content).unwrap();
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
            path.display().to_string()
        };
        // What a helper sees of the gateway, it writes down.
        let seen = folder.join("helper.seen");
        let helper = format!(
            "#!/bin/sh\ncat /proc/self/environ > {}\nprintf '%s' '{}'\n",
            seen.display(),
            planted.odd("the key of a helper")
        );
        let helper = private("helper", helper, 0o700);
        let filed = private("key", planted.odd("the key in a file"), 0o600);
        store(&home, &planted.odd("the key in the store")).await;
        let provider = |reference: String| {
            json!({
                "providerType": "anthropic-compatible", "baseUrl": format!("http://{}", upstream.addr),
                "apiKeyRef": reference, "apiKeyMode": "stored",
            })
        };
        let mut config = json!({
            "providers": {
                "anthropic": {
                    "baseUrl": format!("http://{}", upstream.addr),
                    "apiKeyRef": "env:STORED_KEY",
                    "headers": { "x-of-the-provider": planted.odd("a header of the configuration") },
                    "maxRetries": 0,
                },
                "filed": provider(format!("file:{filed}")),
                "helped": provider(format!("exec:{helper} {}", planted.plain("an argument of a helper"))),
                "kept": provider("credential:KEPT".into()),
            },
            "server": { "token": "env:TOKEN" },
            "audit": { "journalWaitMs": 30_000, "redact": [format!("{}[0-9]+", planted.plain("a pattern"))] },
        });
        lay_over(&mut config, more);
        let file = folder.join("config.json");
        std::fs::write(&file, config.to_string()).unwrap();
        let env = vec![
            ("STORED_KEY", planted.odd("the key in the environment")),
            ("TOKEN", planted.odd("the gateway's token")),
            ("SOMETHING_ELSE", planted.odd("the environment")),
            ("TMPDIR", scratch.display().to_string()),
        ];
        let gateway = launch(&home, &file, &env).await;
        Self { home, scratch, config: file, planted, upstream, gateway, env, logs: vec![] }
    }

    /// Kills the process and begins another.
    async fn crash(&mut self) {
        self.gateway.kill();
        self.gateway.ended().await;
        self.logs.push(self.gateway.log());
        self.gateway = launch(&self.home, &self.config, &self.env).await;
    }

    fn search(&self) -> Search {
        Search::new(&self.planted.all)
    }

    /// The header fields that every client sends.
    fn fields(&mut self, answer: &str) -> String {
        let mut fields = format!("anthropic-version: 2023-06-01\r\n{ANSWER}: {answer}\r\n");
        for (name, place) in [
            ("cookie", "a cookie"),
            ("proxy-authorization", "a proxy's password"),
            ("x-team-secret", "an unknown header"),
            ("x-goog-api-key", "another provider's key"),
            ("referer", "a referer"),
            ("x-claude-code-oauth-token", "a token among known headers"),
            ("x-stainless-key", "a key among known headers"),
        ] {
            fields += &format!("{name}: {}\r\n", self.planted.odd(place));
        }
        fields
    }

    /// A body with canaries wherever it says something.
    fn body(&mut self, stream: bool) -> String {
        let planted = &mut self.planted;
        json!({
            "model": "claude-sonnet-5-5", "max_tokens": 100, "stream": stream,
            "system": planted.odd("the system prompt"),
            "messages": [
                { "role": "user", "content": planted.odd("the prompt") },
                { "role": "assistant", "content": [{ "type": "tool_use", "id": "t", "name": "Read", "input": { "path": planted.odd("a tool's input") } }] },
                { "role": "user", "content": [{ "type": "tool_result", "tool_use_id": "t", "content": planted.odd("a tool's result") }] },
            ],
            "tools": [{ "name": "Read", "description": planted.odd("a tool's description"), "input_schema": { "type": "object" } }],
            "metadata": { "user_id": format!("{{\"device_id\":{},\"session_id\":\"s1\"}}", Value::from(planted.plain("a device"))) },
            "x_unknown": planted.odd("an unknown field"),
        })
        .to_string()
    }

    fn request(&mut self, method: &str, target: &str, key: &str, answer: &str, body: &str) -> Vec<u8> {
        let query = self.planted.plain("the query");
        let join = if target.contains('?') { '&' } else { '?' };
        let fields = self.fields(answer);
        let length = body.len();
        format!(
            "{method} {target}{join}key={query} HTTP/1.1\r\nHost: localhost\r\n{key}{fields}Content-Length: {length}\r\n\r\n{body}"
        )
        .into_bytes()
    }

    fn own_key(&mut self) -> String {
        format!("x-api-key: {}\r\n", self.planted.odd("the client's key"))
    }

    fn own_login(&mut self) -> String {
        format!("authorization: Bearer {}\r\n", self.planted.odd("the client's login"))
    }

    fn stored_key(&mut self) -> String {
        format!("x-api-key: cco\r\nx-cco-token: {}\r\n", self.planted.odd("the gateway's token"))
    }

    async fn ask(&self, request: &[u8]) -> Answer {
        self.gateway.ask(request).await
    }

    /// One of each kind of request and answer. What the gateway itself writes holds no secret.
    async fn traffic(&mut self) {
        let keys = [self.own_key(), self.own_login(), self.stored_key()];
        let names = RELAYED.iter().chain(BROKEN_OFF).chain(REFUSED).copied();
        let mut ours = vec![];
        for (n, name) in names.chain(["bad chunk"]).enumerate() {
            let body = self.body(n % 2 == 0 || name.contains("fail"));
            let request = self.request("POST", "/v1/messages?beta=true", &keys[n % 3], name, &body);
            let answer = self.ask(&request).await;
            if REFUSED.contains(&name) {
                assert_eq!(answer.status, 502, "{name}: {}", answer.text());
                ours.push((name, answer));
            } else if BROKEN_OFF.contains(&name) {
                let at = answer.text().rfind("event: error").expect("an error event of ours");
                let body = answer.body[at..].to_vec();
                ours.push((name, Answer { body, headers: vec![], ..answer }));
            } else if name == "stream" {
                for place in ["what the model thinks", "what the model says"] {
                    let text = Value::from(self.planted.odd(place)).to_string();
                    assert!(contains(&answer.body, text.as_bytes()), "{place} reached the client");
                }
            }
        }
        let body = self.body(false);
        for (method, target, answer) in [
            ("POST", "/v1/messages/count_tokens", "error"),
            ("GET", "/v1/models", "error"),
            ("POST", "/v1/files", "whole"),
            ("POST", "/v1/messages/batches", "error"),
            ("GET", "/v1/messages/batches/b1", "page"),
            ("GET", "/v1/files/f1/content", "whole"),
        ] {
            let body = if method == "GET" { "" } else { &*body };
            let request = self.request(method, target, &keys[0], answer, body);
            self.ask(&request).await;
        }

        // What is refused before anything goes up.
        let twice = body.replacen('{', "{\"model\":\"another\",", 1);
        let origin = format!("Origin: http://{}.example\r\n", self.planted.plain("an origin"));
        let wrong = format!("x-api-key: cco\r\nx-cco-token: {}\r\n", self.planted.odd("a wrong token"));
        let long = format!("{}x-long: {}\r\n", keys[0], self.planted.plain("a long header").repeat(20_000));
        for (name, method, target, key, body) in [
            ("two models", "POST", "/v1/messages", &keys[0], &*twice),
            ("no such path", "GET", "/nothing", &keys[0], ""),
            ("a wrong method", "DELETE", "/gateway/health", &keys[0], ""),
            ("a web page", "POST", "/v1/messages", &origin, &*body),
            ("a wrong token", "POST", "/v1/messages", &wrong, &*body),
            ("a long head", "POST", "/v1/messages", &long, &*body),
            ("a dotted path", "GET", "/v1/../messages", &keys[0], ""),
        ] {
            let request = self.request(method, target, key, "whole", body);
            let mut client = self.gateway.client().await;
            // It may be refused before it is sent.
            let _ = client.try_send(&request).await;
            let answer = client.answer().await;
            // To processes of our own user the token does not matter: the request went up.
            if name != "a wrong token" {
                assert!(answer.status >= 400, "{name}: {}", answer.status);
                ours.push((name, answer));
            }
        }
        let mut client = self.gateway.client().await;
        let head = format!("GET / HTTP/1.1\nHost: {}\r\n\r\n", self.planted.odd("a head that is none"));
        client.send_raw(head.as_bytes()).await.unwrap();
        ours.push(("no head", client.answer().await));
        let search = self.search();
        for (name, answer) in &ours {
            check_answer(&search, name, answer);
        }
    }

    /// Everything that can be asked for, by anybody and by those who have a token.
    async fn surfaces(&self) {
        let mut rights = vec![String::new()];
        for name in ["token", "admin-token"] {
            if let Ok(token) = std::fs::read_to_string(self.home.join(name)) {
                rights.push(format!("authorization: Bearer {}\r\n", token.trim()));
            }
        }
        let token = self.env.iter().find(|(name, _)| *name == "TOKEN").unwrap();
        rights.push(format!("authorization: Bearer {}\r\n", token.1));
        let search = self.search();
        for right in &rights {
            for path in [
                "/",
                "/health",
                "/metrics",
                "/gateway/health",
                "/gateway/providers",
                "/gateway/metrics",
                "/gateway/audit",
                "/gateway/audit?limit=1000",
                "/gateway/limits",
                "/gateway/sessions",
                "/gateway/costs",
            ] {
                let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{right}\r\n");
                check_answer(&search, path, &self.gateway.ask(request).await);
            }
        }
        let own = PathBuf::from(format!("/proc/{}", self.gateway.pid()));
        search.check("the command line", &std::fs::read(own.join("cmdline")).unwrap());
        for task in std::fs::read_dir(own.join("task")).unwrap() {
            let task = task.unwrap().path();
            search.check("a thread's name", &std::fs::read(task.join("comm")).unwrap_or_default());
            let children = std::fs::read_to_string(task.join("children")).unwrap_or_default();
            // Helpers come and go before the gateway serves: see what they wrote down.
            assert_eq!(children, "", "the gateway has children");
        }
    }

    /// What whoever may see everything is shown of each exchange, from the gateway or from its files alone.
    async fn looked_at(&self) {
        let search = self.but(&HEADS);
        let listed = self.command(&["logs", "--json", "--limit", "1000"]).await;
        let ids: Vec<String> = listed
            .lines()
            .filter(|line| line.starts_with('{'))
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].as_str().unwrap().to_owned())
            .collect();
        assert!(ids.len() > 20, "{listed}");
        search.check("the list", listed.as_bytes());
        for command in [
            &["logs"][..],
            &["logs", "--csv", "--limit", "1000"],
            &["logs", "--failed"],
            &["costs", "--by", "outcome"],
            &["sessions"],
            &["limits"],
            &["prices", "claude-sonnet-5-5"],
        ] {
            search.check(&command.join(" "), self.command(command).await.as_bytes());
        }
        // What an upstream said went wrong is shown from the body that is kept: it is what people ask for.
        let search = self.but(&[&HEADS[..], SAID].concat());
        for id in &ids[..12] {
            search.check("an exchange", self.command(&["logs", "show", id]).await.as_bytes());
            search.check("an exchange", self.command(&["logs", "show", id, "--json"]).await.as_bytes());
        }
    }

    /// Every canary but those of these places.
    fn but(&self, places: &[&str]) -> Search {
        Search::new(self.planted.all.iter().filter(|canary| !places.contains(&canary.place)))
    }

    /// What a command prints.
    async fn command(&self, args: &[&str]) -> String {
        let mut command = binary();
        command.args(args).env("CCO_HOME", &self.home).env("HOME", &self.home);
        let output = soon(command.output()).await.unwrap();
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    }

    /// Traffic that somebody watches: the words of answers are shown, and nothing else.
    async fn watched_traffic(&mut self) {
        let token = std::fs::read_to_string(self.home.join("admin-token")).unwrap();
        let mut viewer = self.gateway.client().await;
        let ask = |target: &str, fields: &str| format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
        let fields = format!("authorization: Bearer {}\r\n", token.trim());
        viewer.send(ask("/api/streams/subscribe", &fields)).await;
        let mut seen = viewer.head().await;
        viewer.read_until(&mut seen, ": watching").await;
        self.traffic().await;
        let fields = format!("{}x-cco-project: the-end\r\n{ANSWER}: whole\r\n", self.own_key());
        self.ask(ask("/v1/models", &fields).as_bytes()).await;
        viewer.read_until(&mut seen, "\"project\":\"the-end\"").await;
        let text = Value::from(self.planted.odd("what the model says")).to_string();
        assert!(contains(&seen.body, text.as_bytes()), "{}", seen.text());
        self.but(&["what the model says", "a whole answer"]).check("live events", &seen.body);
    }

    /// A stream and an upload that are under way, each with canaries in it.
    async fn open(&mut self) -> [Client; 2] {
        let (key, body) = (self.own_key(), self.body(true));
        let request = self.request("POST", "/v1/messages", &key, "stuck", &body);
        let mut stream = self.gateway.client().await;
        stream.send(&request).await;
        let mut answer = stream.head().await;
        stream.read_until(&mut answer, "toolu_1").await;
        let mut upload = self.gateway.client().await;
        upload.send(&request[..request.len() - 10]).await;
        [stream, upload]
    }

    /// Every file that the program wrote, and every line that it said.
    fn files_and_logs(&mut self) {
        self.logs.push(self.gateway.log());
        // The tokens of the installation are secrets too, everywhere but in their files.
        let search = self.search();
        let files = search.check_folder(&self.home, &[]) + search.check_folder(&self.scratch, &[]);
        assert!(files >= 2, "{files} files");
        for log in &self.logs {
            assert!(log.lines().count() > 5, "{log}");
            search.check("the log", log.as_bytes());
            for name in ["token", "admin-token"] {
                let token = std::fs::read_to_string(self.home.join(name)).unwrap_or_else(|_| "there is none".into());
                assert!(!log.contains(token.trim()), "the log holds the {name}");
            }
        }
    }
}

/// Stores a key as its user does.
async fn store(home: &Path, key: &str) {
    let mut command = binary();
    command.args(["credentials", "store", "KEPT", "--backend", "file"]).env("CCO_HOME", home).env("HOME", home);
    let mut child = command.stdin(std::process::Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(key.as_bytes()).await.unwrap();
    let output = soon(child.wait_with_output()).await.unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(!contains(&output.stdout, key.as_bytes()) && !contains(&output.stderr, key.as_bytes()));
}

async fn launch(home: &Path, config: &Path, env: &[(&'static str, String)]) -> Gateway {
    let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (*name, &**value)).collect();
    Gateway::start_in(home, &["--config", config.to_str().unwrap()], &env).await
}

#[track_caller]
fn check_answer(search: &Search, what: &str, answer: &Answer) {
    search.check(&format!("the answer to {what}"), &answer.body);
    search.check("a reason phrase", answer.reason.as_bytes());
    for (name, value) in &answer.headers {
        search.check(&format!("the header `{name}` of the answer to {what}"), value);
    }
}

/// All of it: traffic, a crash with exchanges under way, another process, its end.
async fn whole_run(more: Value) -> (tempfile::TempDir, Run) {
    let folder = tempfile::tempdir().unwrap();
    let seed = Dice::fresh_seed();
    let mut run = Run::start(folder.path(), seed, more).await;
    run.traffic().await;
    run.surfaces().await;
    let open = run.open().await;
    run.surfaces().await;
    run.crash().await;
    drop(open);
    run.surfaces().await;
    run.watched_traffic().await;
    run.surfaces().await;
    run.looked_at().await;
    // Files while it runs: the store's log is not yet in the store.
    run.files_and_logs();
    run.gateway.stop().await;
    run.files_and_logs();
    run.looked_at().await;

    // They were planted: the upstream got those that are meant for it.
    for place in [
        "an unknown header",
        "the client's key",
        "the client's login",
        "the key in the environment",
        "a header of the configuration",
    ] {
        let canary = run.planted.odd(place);
        assert!(run.upstream.got(&canary), "{place} went up");
    }
    for place in ["the query", "a device"] {
        let canary = run.planted.plain(place);
        assert!(run.upstream.got(&canary), "{place} went up");
    }
    for place in ["a cookie", "a proxy's password", "the gateway's token"] {
        let canary = run.planted.odd(place);
        assert!(!run.upstream.got(&canary), "{place} is not for the upstream");
    }
    // A helper gets the user's environment, but no key in it.
    let seen = std::fs::read(folder.path().join("helper.seen")).unwrap();
    let environment = run.planted.odd("the environment");
    assert!(contains(&seen, environment.as_bytes()), "what the helper saw was written down");
    let keys = run.planted.all.iter().filter(|canary| canary.place != "the environment");
    Search::new(keys).check("what a helper sees", &seen);
    (folder, run)
}

#[tokio::test]
async fn with_bodies_and_a_log_that_tells_everything_secrets_are_in_the_sealed_archive_only() {
    let (_folder, mut run) = whole_run(json!({ "log": { "level": "trace", "format": "json" } })).await;
    // There they are, for whoever has the key.
    let reader = Reader::open(&run.home.join("archive"), &run.home.join("archive.key")).unwrap();
    let (mut requests, mut answers, mut heads) = (0, 0, 0);
    let prompt = Value::from(run.planted.odd("the prompt")).to_string();
    let text = Value::from(run.planted.odd("what the model says")).to_string();
    // Of a head only what is known to be harmless is kept, and its first line.
    let search = run.but(&HEADS);
    for id in ids(&run.home) {
        let body = |kind| reader.read(id, kind).unwrap().map(|body| body.bytes().unwrap()).unwrap_or_default();
        requests += u32::from(contains(&body(Kind::Request), prompt.as_bytes()));
        answers += u32::from(contains(&body(Kind::Response), text.as_bytes()));
        for kind in [Kind::RequestHead, Kind::ResponseHead] {
            let head = body(kind);
            search.check("a head in the archive", &head);
            heads += u32::from(!head.is_empty());
        }
    }
    assert!(requests > 20 && answers > 5 && heads > 30, "{requests} requests, {answers} answers, {heads} heads");
}

#[tokio::test]
async fn without_bodies_and_with_a_log_for_people_there_are_no_secrets_at_all() {
    let more = json!({
        "log": { "level": "debug", "format": "human" },
        "audit": { "logRequestBodies": false, "logResponseBodies": false },
    });
    let (_folder, run) = whole_run(more).await;
    assert!(!run.home.join("archive").exists());
}

/// The ids of all records.
fn ids(home: &Path) -> Vec<[u8; 16]> {
    let db = rusqlite::Connection::open(home.join("ledger.db")).unwrap();
    let mut statement = db.prepare("SELECT id FROM record").unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

#[tokio::test]
async fn a_key_in_the_wrong_place_of_a_configuration_is_not_repeated() {
    let mut planted = Planted::new(Dice::fresh_seed());
    let (odd, plain) = (planted.odd("a configuration"), planted.plain("a configuration"));
    let search = Search::new(&planted.all);
    let folder = tempfile::tempdir().unwrap();
    let provider = |more: Value| {
        let mut provider = json!({ "baseUrl": "http://127.0.0.1:9" });
        lay_over(&mut provider, more);
        json!({ "providers": { "anthropic": provider } }).to_string()
    };
    let texts = [
        provider(json!({ "apiKeyRef": odd })),
        provider(json!({ "apiKeyRef": format!("sk-ant-{plain}") })),
        provider(json!({ "apiKeyRef": ["env:A", plain] })),
        provider(json!({ "apiKeyRef": format!("credential:{odd}") })),
        provider(json!({ "apiKeyMode": odd })),
        provider(json!({ "headers": { "authorization": [odd] } })),
        provider(json!({ "headers": { "x-a": format!("{plain}\n") } })),
        provider(json!({ "headers": { format!("x-api-key: {plain}"): "a" } })),
        provider(json!({ "headers": odd })),
        provider(json!({ "baseUrl": format!("https://user:{plain}@example.com") })),
        provider(json!({ "baseUrl": format!("https://example.com/?key={plain}") })),
        provider(json!({ "baseUrl": odd })),
        provider(json!({ "timeoutSecs": odd })),
        json!({ "server": { "token": odd } }).to_string(),
        json!({ "server": { "token": plain } }).to_string(),
        json!({ "network": { "proxy": format!("http://user:{plain}@example.com:70000") } }).to_string(),
        json!({ "network": { "proxy": format!("ftp://user:{plain}@example.com") } }).to_string(),
        json!({ "network": { "proxy": odd } }).to_string(),
        json!({ "audit": { "redact": [format!("({odd}")] } }).to_string(),
        json!({ "audit": { "redact": odd } }).to_string(),
        json!({ "routing": { "defaultProvider": odd } }).to_string(),
        // Half a file, and text that is no JSON, right at the secret.
        format!("{{ \"providers\": {{ \"anthropic\": {{ \"apiKeyRef\": \"{plain}"),
        format!("{{ \"server\": {{ \"token\": {plain} }} }}"),
        format!("{{ \"server\": {{ \"token\": \"{plain}\" \"{plain}\" }} }}"),
    ];
    let mut repeated = vec![];
    for text in texts {
        let file = folder.path().join("config.json");
        std::fs::write(&file, &text).unwrap();
        let mut command = binary();
        command.args(["serve", "--listen", "127.0.0.1:0", "--config"]).arg(&file);
        command.env("CCO_HOME", folder.path().join("home")).env("HOME", folder.path());
        let mut child = command.spawn().unwrap();
        let mut out = child.stdout.take().unwrap();
        let mut first = [0; 1];
        // Either it is refused, or it serves: then it has said what it had to say.
        let read = soon(tokio::io::AsyncReadExt::read(&mut out, &mut first)).await.unwrap();
        if read > 0 {
            child.start_kill().unwrap();
        }
        let output = soon(child.wait_with_output()).await.unwrap();
        assert!(read > 0 || output.status.code() == Some(78), "{text}: {output:?}");
        if !search.find(&output.stderr).is_empty() {
            repeated.push(format!("{text}\nis answered with\n{}", String::from_utf8_lossy(&output.stderr)));
        }
    }
    assert!(repeated.is_empty(), "{}", repeated.join("\n\n"));
}

#[tokio::test]
async fn the_password_of_a_proxy_shows_nowhere() {
    let mut planted = Planted::new(Dice::fresh_seed());
    let (password, said) = (planted.plain("the proxy's password"), planted.plain("what a proxy says"));
    let search = Search::new(&planted.all);
    let refusal =
        format!("HTTP/1.1 407 {said}\r\nproxy-authenticate: Basic realm=\"{said}\"\r\ncontent-length: 0\r\n\r\n");
    let proxy = Upstream::start(Answers::from([("", (refusal.into_bytes(), false))])).await;
    let config = json!({
        "providers": { "anthropic": { "baseUrl": "https://api.example.com", "maxRetries": 0 } },
        "network": { "proxy": format!("http://user:{password}@{}", proxy.addr) },
        "log": { "level": "trace" },
    });
    let folder = tempfile::tempdir().unwrap();
    let (home, file) = (folder.path().join("home"), folder.path().join("config.json"));
    std::fs::write(&file, config.to_string()).unwrap();
    let mut gateway = launch(&home, &file, &[]).await;
    let request = crate::common::request("POST", "/v1/messages", "", "{\"model\":\"m\",\"messages\":[]}");
    let answer = gateway.ask(request).await;
    assert_eq!(answer.status, 502, "{}", answer.text());
    check_answer(&search, "a proxy's refusal", &answer);
    let mut client = gateway.client().await;
    client.send("GET /gateway/health HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    check_answer(&search, "health", &client.answer().await);
    gateway.stop().await;
    assert!(proxy.got("CONNECT api.example.com:443"), "the proxy was asked");
    search.check("the log", gateway.log().as_bytes());
    search.check_folder(&home, &[]);
}
