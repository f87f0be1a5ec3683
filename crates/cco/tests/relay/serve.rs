//! The program itself: how it starts, what it says, how it stops.

use std::process::Output;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::common::{
    Ended, Gateway, KEY, Piece, binary, contains, error_event, prompt, request, soon, streamed, upstream, whole,
};

/// Runs the program to its end.
async fn run(args: &[&str], home: &std::path::Path) -> Output {
    soon(binary().args(args).env("CCO_HOME", home).env("HOME", home).output()).await.unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn the_version_is_a_date_and_a_commit() {
    let home = tempfile::tempdir().unwrap();
    let output = run(&["--version"], home.path()).await;
    assert!(output.status.success());
    let version = text(&output.stdout).strip_prefix("cco ").unwrap().trim_end();
    let (date, commit) = version.split_once('+').unwrap();
    let lengths: Vec<usize> = date.split('.').map(str::len).collect();
    assert!(lengths == [4, 2, 2] && date.bytes().all(|b| b == b'.' || b.is_ascii_digit()), "{version}");
    let commit = commit.strip_suffix("-dirty").unwrap_or(commit);
    let is_hash = commit.len() >= 7 && commit.bytes().all(|b| b.is_ascii_hexdigit());
    assert!(is_hash || commit == "unknown", "{version}");
}

#[tokio::test]
async fn the_configuration_that_users_have_loads_as_it_is() {
    let config = json!({
        "providers": { "anthropic": {
            "enabled": true,
            "providerType": "anthropic",
            "baseUrl": "https://api.anthropic.com",
            "apiKeyRef": "env:ANTHROPIC_API_KEY",
            "defaultModel": "claude-sonnet-4-20250514",
            "maxRetries": 3,
            "timeoutSecs": 120
        } },
        "routing": {
            "defaultProvider": "anthropic",
            "fallbackChain": ["anthropic", "azure", "deepseek", "ollama"]
        },
        "audit": { "enabled": true, "logRequestBodies": true, "logResponseBodies": true }
    });
    for config in [config.clone(), json!({ "llmGateway": config, "somethingElse": { "ours": false } })] {
        let gateway = Gateway::start_with(config, &[], &[("ANTHROPIC_API_KEY", "sk-ant-stored")]).await;
        let health = gateway.health().await;
        assert_eq!((&health["status"], &health["providers"]), (&json!("healthy"), &json!({ "anthropic": true })));
        gateway.log_line(&["\"serving\""]).await;
        for name in ["azure", "deepseek", "ollama"] {
            let lines = gateway.log().lines().filter(|line| line.contains(name)).count();
            assert_eq!(lines, 1, "`{name}` is reported once: {}", gateway.log());
        }
    }
}

#[tokio::test]
async fn all_faults_of_a_configuration_are_told_at_once() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("broken.json");
    let config = "{\n  // A comment is fine.\n  \"server\": { \"pingSecs\": \"often\", \"listne\": \"127.0.0.1:1\" },\n  \
                  \"providers\": { \"anthropic\": {\n    \"baseUrl\": \"not a url\",\n    \"timeoutSecs\": -1,\n  } },\n}\n";
    std::fs::write(&file, config).unwrap();
    let path = file.to_str().unwrap();
    let output = run(&["serve", "--listen", "127.0.0.1:0", "--config", path], home.path()).await;
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(78), ""));
    let said = text(&output.stderr);
    assert!(said.contains("4 faults"), "{said}");
    for (place, key, more) in [
        ("3:27", "server.pingSecs", ""),
        ("3:36", "server.listne", "`listen`"),
        ("5:16", "providers.anthropic.baseUrl", ""),
        ("6:20", "providers.anthropic.timeoutSecs", ""),
    ] {
        let start = format!("{path}:{place}: {key}: ");
        let fault = said.split_once(&start).unwrap_or_else(|| panic!("`{start}` is not in: {said}")).1;
        let fault: String = fault.lines().take(2).collect();
        assert!(fault.contains(more) && fault.contains("help: "), "{fault}");
    }
    // What it leads to is looked at once it reads well.
    let config = json!({
        "server": { "token": "env:CCO_TEST_NOT_SET" },
        "network": { "caFile": "no-such.pem" },
        "costTracking": { "pricesFile": "no-such.json" },
    });
    std::fs::write(&file, config.to_string()).unwrap();
    let output = run(&["serve", "--listen", "127.0.0.1:0", "--config", path], home.path()).await;
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(78), ""));
    let said = text(&output.stderr);
    for (key, name) in [
        ("server.token", "env:CCO_TEST_NOT_SET"),
        ("network.caFile", "no-such.pem"),
        ("costTracking.pricesFile", "no-such.json"),
    ] {
        let start = format!("{path}: {key}: ");
        let line = said.lines().find(|line| line.starts_with(&start));
        assert!(line.is_some_and(|line| line.contains(name)), "`{start}` with `{name}` is not in: {said}");
    }
    // Prices that nothing would ever be billed at.
    std::fs::write(
        home.path().join("prices.json"),
        r#"{"schema":1,"version":"v","providers":{"anthropix":{"models":{}}}}"#,
    )
    .unwrap();
    let prices = home.path().join("prices.json");
    std::fs::write(&file, json!({ "costTracking": { "pricesFile": prices } }).to_string()).unwrap();
    let output = run(&["serve", "--listen", "127.0.0.1:0", "--config", path], home.path()).await;
    let said = text(&output.stderr);
    assert!(said.contains("providers.anthropix") && said.contains("hosts"), "{said}");
    let output = run(&["serve", "--config", "/does/not/exist.json"], home.path()).await;
    assert_eq!(output.status.code(), Some(78));
    assert!(text(&output.stderr).contains("/does/not/exist.json"), "{}", text(&output.stderr));
}

#[tokio::test]
async fn a_taken_port_is_told_with_its_holder() {
    let home = tempfile::tempdir().unwrap();
    let held = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = held.local_addr().unwrap().to_string();
    let output = run(&["serve", "--listen", &address], home.path()).await;
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    for part in [&address, "held by", &std::process::id().to_string(), "--listen"] {
        assert!(said.contains(part), "`{part}` is not in: {said}");
    }
}

#[tokio::test]
async fn wrong_usage_is_told_with_exit_code_2() {
    let home = tempfile::tempdir().unwrap();
    for args in [&["serve", "--listen", "nowhere"][..], &["serve", "--port", "1"], &["nothing"]] {
        let output = run(args, home.path()).await;
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{args:?}");
    }
}

#[tokio::test]
async fn an_address_that_others_can_reach_needs_a_permission_and_a_token() {
    let home = tempfile::tempdir().unwrap();
    let output = run(&["serve", "--listen", "0.0.0.0:0"], home.path()).await;
    assert_eq!(output.status.code(), Some(78));
    let said = text(&output.stderr);
    assert!(
        said.contains("set server.allowRemote true`") && said.contains("set server.token env:CCO_TOKEN`"),
        "{said}"
    );
}

#[tokio::test]
async fn health_is_told_without_a_look_at_the_network() {
    let upstream = upstream().await;
    let more = json!({ "providers": {
        "spare": { "providerType": "anthropic-compatible", "baseUrl": "http://127.0.0.1:9", "apiKeyMode": "stored", "apiKeyRef": "env:NOT_SET" },
        "off": { "enabled": false, "providerType": "openai" },
    } });
    let gateway = Gateway::start(&upstream, more).await;
    let health = gateway.ask(request("GET", "/gateway/health", "", "")).await;
    assert_eq!((health.status, health.header("content-type")), (200, Some("application/json")));
    let health = health.json();
    assert_eq!(health["status"], "healthy");
    assert_eq!(health["providers"], json!({ "anthropic": true, "spare": false, "off": false }));
    assert_eq!(gateway.ask(request("GET", "/health", "", "")).await.json()["status"], "healthy");
    let rows = gateway.ask(request("GET", "/gateway/providers", "", "")).await.json();
    assert_eq!(rows["providers"][0]["name"], "anthropic");
    assert!(!rows.to_string().contains("sk-ant"), "{rows}");
    for target in ["/", "/api/hello"] {
        let mut client = gateway.client().await;
        client.send(request("HEAD", target, "", "")).await;
        assert_eq!(client.head_only().await.status, 200, "{target}");
    }
    let message = gateway.ask(request("GET", "/nothing", "", "")).await.refusal(404, "not_found_error");
    let (said, _) = message.split_once("; details: ").unwrap();
    assert_eq!(said, "there is nothing at `/nothing`: model requests go to `/v1/…`, the state is at `/gateway/health`");
    let wrong = gateway.ask(request("POST", "/gateway/health", "", "x")).await;
    wrong.refusal(405, "invalid_request_error");
    assert_eq!(wrong.header("allow"), Some("GET, HEAD"));
    assert_eq!(upstream.sim.connections_seen(), 0);
}

#[tokio::test]
async fn the_log_has_one_line_a_request_and_neither_keys_nor_prompts() {
    const SECRET: &str = "canary-of-the-prompt";
    let upstream = upstream().await;
    let more = json!({
        "log": { "level": "trace" },
        "providers": { "anthropic": { "headers": { "x-team": "canary-of-a-header" }, "apiKeyRef": "env:STORED" } },
    });
    let mut config = json!({ "providers": { "anthropic": { "baseUrl": format!("http://{}", upstream.addr) } } });
    crate::common::lay_over(&mut config, more);
    let mut gateway = Gateway::start_with(config, &[], &[("STORED", "sk-ant-canary-of-the-stored-key")]).await;
    let say = |script: &str, stream| {
        let body = prompt(&format!("{SECRET} [[sim {script}]]"), stream);
        request("POST", &format!("/v1/messages?q={SECRET}"), "x-secret: canary-of-a-field\r\n", body)
    };
    let requests = [
        (say("text=canary-of-the-answer", true), 200, "success"),
        (say("text=canary-of-the-answer", false), 200, "success"),
        (say("fault=529", false), 529, "upstream_error"),
        (say("fault=error-mid", true), 200, "upstream_error"),
        (say("fault=truncate text=canary-of-the-answer", true), 200, "truncated"),
        (say("fault=redirect=http://127.0.0.1/canary-of-a-url", false), 502, "upstream_error"),
        (say("fault=garbage", false), 502, "upstream_error"),
        (request("POST", "/v1/messages", "", format!("{{\"model\":\"a\",\"model\":\"{SECRET}\"}}")), 400, "rejected"),
        (request("GET", "/v1/../x", "", ""), 400, "rejected"),
        (String::from_utf8(say("text=x", true)).unwrap().replace(KEY, "cco").into_bytes(), 200, "success"),
    ];
    let mut ids = Vec::new();
    for (bytes, status, outcome) in &requests {
        let answer = gateway.ask(bytes).await;
        assert_eq!(answer.status, *status, "{}", answer.text());
        let line = gateway.log_line(&["\"cco::request\"", answer.id()]).await;
        assert_eq!((&line["status"], &line["outcome"]), (&json!(status), &json!(outcome)), "{line}");
        assert_eq!((&line["level"], &line["id"]), (&json!("INFO"), &json!(answer.id())), "{line}");
        ids.push(answer.id().to_owned());
    }
    assert_eq!(upstream.last().header("x-api-key"), Some("sk-ant-canary-of-the-stored-key"));
    // One that goes away before its answer.
    let mut client = gateway.client().await;
    client.send(say("fault=no-bytes", true)).await;
    soon(upstream.sim.wait_for(|all| all.last().is_some_and(|last| last.end.is_none()))).await;
    drop(client);
    gateway.log_line(&["\"client_disconnected\""]).await;
    gateway.signal("TERM").await;
    assert!(gateway.ended().await.success());
    gateway.log_line(&["\"stopped\""]).await;

    let log = gateway.log();
    for line in log.lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|why| panic!("{why}: {line}"));
        assert!(line["timestamp"].is_string() && line["level"].is_string() && line["message"].is_string(), "{line}");
    }
    for id in ids {
        let about = log.lines().filter(|line| line.contains("cco::request") && line.contains(&id)).count();
        assert_eq!(about, 1, "one line a request");
    }
    let about = log.lines().filter(|line| line.contains("cco::request") && line.contains("\"outcome\"")).count();
    assert_eq!(about, requests.len() + 1);
    assert!(!log.contains("canary"), "{log}");
    let token = std::fs::read_to_string(gateway.home().join("token")).unwrap();
    assert!(token.trim().len() >= 20 && !log.contains(token.trim()), "the token of the installation is a secret too");
}

#[tokio::test]
async fn a_running_stream_finishes_when_the_program_is_told_to_stop() {
    let upstream = upstream().await;
    let mut gateway = Gateway::start(&upstream, json!({})).await;
    let mut idle = gateway.client().await;
    assert_eq!(idle.ask(whole("text=hi")).await.status, 200);
    let mut client = gateway.client().await;
    client.send(streamed("text=\"one two three\" every=150")).await;
    let mut answer = client.head().await;
    client.read_until(&mut answer, "content_block_delta").await;
    gateway.signal("TERM").await;
    gateway.log_line(&["stopping"]).await;
    assert!(idle.is_closed().await, "a connection that waits is closed");
    let refused = tokio::net::TcpStream::connect(gateway.addr).await;
    assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    client.read_until(&mut answer, "message_stop").await;
    assert!(matches!(client.piece().await, Piece::End(Ended::Whole)));
    assert!(client.is_closed().await);
    let ended = Instant::now();
    assert!(gateway.ended().await.success());
    assert!(ended.elapsed() < Duration::from_secs(3), "it waits neither for `drainSecs` nor for clients to hang up");
    assert!(!upstream.sim.requests().iter().any(sim::Received::client_gone));
}

#[tokio::test]
async fn what_does_not_end_in_drain_secs_ends_with_an_error_event() {
    let upstream = upstream().await;
    for signal in ["TERM", "INT"] {
        let mut gateway = Gateway::start(&upstream, json!({ "server": { "drainSecs": 0.4 } })).await;
        let mut endless = gateway.client().await;
        endless.send(streamed("fault=endless every=20")).await;
        let mut answer = endless.head().await;
        endless.read_until(&mut answer, "and so on").await;
        let arrived = upstream.sim.requests().len();
        let mut waiting = gateway.client().await;
        waiting.send(whole("fault=no-bytes")).await;
        soon(upstream.sim.wait_for(|all| all.len() > arrived)).await;
        let told = Instant::now();
        gateway.signal(signal).await;
        let ended = loop {
            match endless.piece().await {
                Piece::Data(data) => answer.body.extend_from_slice(&data),
                Piece::End(ended) => break ended,
            }
        };
        assert!(told.elapsed() >= Duration::from_millis(400), "{:?}", told.elapsed());
        assert_eq!(ended, Ended::Whole);
        let events = answer.text().rfind("event: error").unwrap();
        let error = error_event(&answer.body[events..], answer.id());
        assert!(error["message"].as_str().unwrap().contains("shutting down"), "{error}");
        let refused = waiting.answer().await;
        refused.refusal(503, "api_error");
        assert!(refused.header("retry-after").is_some());
        assert_eq!(gateway.ended().await.code(), Some(0));
        assert_eq!(gateway.log_line(&[answer.id()]).await["outcome"], "truncated");
    }
}

#[tokio::test]
async fn who_was_told_that_it_listens_can_stop_it_in_order() {
    for _ in 0..20 {
        let mut gateway = Gateway::start_with(json!({}), &[], &[]).await;
        gateway.stop().await;
    }
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let upstream = upstream().await;
    let mut gateway = Gateway::start(&upstream, json!({})).await;
    let mut client = gateway.client().await;
    client.send(streamed("fault=endless every=20")).await;
    let mut answer = client.head().await;
    client.read_until(&mut answer, "and so on").await;
    gateway.signal("TERM").await;
    gateway.log_line(&["stopping"]).await;
    let told = Instant::now();
    gateway.signal("TERM").await;
    gateway.ended().await;
    assert!(told.elapsed() < Duration::from_secs(5), "it was to wait 30 s");
    let ended = loop {
        if let Piece::End(ended) = client.piece().await {
            break ended;
        }
    };
    assert_ne!(ended, Ended::Whole);
}

#[tokio::test]
async fn the_demonstration_shows_a_stream_and_ends_well() {
    let home = tempfile::tempdir().unwrap();
    let output = run(&["demo", "--every", "1"], home.path()).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    let shown = text(&output.stdout);
    for part in ["Hello! I am a simulated model behind cco.", "message_stop", "status \"healthy\"", "cco added"] {
        assert!(shown.contains(part), "`{part}` is not in: {shown}");
    }
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0, "its home is a temporary one");
}

#[tokio::test]
async fn the_simulator_of_the_program_answers_and_journals() {
    let home = tempfile::tempdir().unwrap();
    let journal = home.path().join("journal.jsonl");
    let mut command = binary();
    command.args(["simulate", "--require-key", "--journal"]).arg(&journal);
    let mut child = command.spawn().unwrap();
    let mut out = tokio::io::BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    soon(tokio::io::AsyncBufReadExt::read_line(&mut out, &mut line)).await.unwrap();
    let address = line.trim().strip_prefix("simulator listening on http://").expect(&line).parse().unwrap();
    let answer = crate::common::Client::connect(address).await.ask(streamed("text=there")).await;
    assert!(answer.status == 200 && contains(&answer.body, b"there"));
    let journal = std::fs::read_to_string(&journal).unwrap();
    assert!(journal.contains("\"target\":\"/v1/messages\"") && !journal.contains(KEY), "{journal}");
}

#[tokio::test]
async fn what_the_simulator_of_the_program_is_told_it_does() {
    let home = tempfile::tempdir().unwrap();
    let journal = home.path().join("journal.jsonl");
    let mut command = binary();
    command.args(["simulate", "--script", "fault=529", "--script-times", "1", "--key", "other", "--key", KEY]);
    command.args(["--known-models", "--origin", "https://example.test:81/", "--journal-bodies", "--journal-secrets"]);
    let mut child = command.arg("--journal").arg(&journal).spawn().unwrap();
    let mut out = tokio::io::BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    soon(tokio::io::AsyncBufReadExt::read_line(&mut out, &mut line)).await.unwrap();
    let address = line.trim().strip_prefix("simulator listening on http://").expect(&line).parse().unwrap();
    let mut client = crate::common::Client::connect(address).await;
    for status in [529, 200] {
        let plain = request("POST", "/v1/messages", "", prompt("hello", false));
        assert_eq!(client.ask(plain).await.status, status);
    }
    let unknown = prompt("hello", false).replacen("claude-sonnet-5-5", "nobody", 1);
    assert_eq!(client.ask(request("POST", "/v1/messages", "", unknown)).await.status, 404);
    let batch = format!(r#"{{"requests":[{{"custom_id":"a","params":{}}}]}}"#, prompt("hello", false));
    let batch = client.ask(request("POST", "/v1/messages/batches", "", batch)).await.json();
    let target = format!("/v1/messages/batches/{}", batch["id"].as_str().unwrap());
    let batch = client.ask(request("GET", &target, "", "")).await.json();
    assert_eq!(batch["results_url"], format!("https://example.test:81{target}/results"));
    let wrong = String::from_utf8(request("GET", "/v1/models", "", "")).unwrap().replace(KEY, "wrong");
    assert_eq!(client.ask(wrong.into_bytes()).await.status, 401);
    let journal = std::fs::read_to_string(&journal).unwrap();
    assert!(journal.contains(KEY) && journal.contains("nobody"), "{journal}");
    // An option that would do nothing alone is a slip.
    for args in [&["--script-times", "1"][..], &["--journal-secrets"], &["--origin", "example.test"], &["--key", ""]] {
        let output = run(&[&["simulate"], args].concat(), home.path()).await;
        assert_eq!(output.status.code(), Some(2), "{args:?}");
    }
}
