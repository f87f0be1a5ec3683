//! Rows of `server` and `network`.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::common::{Answer, Client, Gateway, Piece, binary, contains, soon};
use crate::{Ask, Rig, Row, row, there};

pub(crate) fn rows() -> Vec<Row> {
    vec![
        row("/server/listen", json!({}), json!("127.0.0.2:0"), ["127.0.0.1", "127.0.0.2"], listens),
        row(
            "/server/allowRemote",
            json!({ "server": { "listen": "0.0.0.0:0", "token": "env:ONE" } }),
            json!(true),
            ["78", "0"],
            |rig: Rig| async move {
                let said = rig.command(&["config", "validate"]).await;
                said.split(' ').next().unwrap().to_owned()
            },
        ),
        // Who shows the token spends the stored key; any other word in its place is a key of the caller's own.
        row(
            "/server/token",
            json!({}),
            json!("env:THREE"),
            ["a-third-key", "key-of-the-first"],
            |rig: Rig| async move { rig.sent(Ask::with("x-api-key: a-third-key\r\n"), "x-api-key").await },
        ),
        there(
            "/server/openStoredKeys",
            "gateway/tests/relay/local.rs",
            "a_request_spends_the_key_that_it_may_spend_and_no_other",
        ),
        row("/server/hosts", json!({}), json!(["my-container"]), ["403", "200"], |rig: Rig| async move {
            let foreign = "GET /health HTTP/1.1\r\nHost: my-container\r\n\r\n";
            rig.gateway().await.ask(foreign).await.status.to_string()
        }),
        row("/server/origins", json!({}), json!(["vscode-webview://abc"]), ["403", "200"], |rig: Rig| async move {
            let webview = "GET /health HTTP/1.1\r\nHost: localhost\r\nOrigin: vscode-webview://abc\r\n\r\n";
            rig.gateway().await.ask(webview).await.status.to_string()
        }),
        row("/server/maxBodyMb", json!({}), json!(0.001), ["200", "413"], |rig: Rig| async move {
            rig.status(Ask::saying(large())).await
        }),
        row(
            "/server/maxHeldMb",
            json!({ "server": { "maxBodyMb": 0.006 } }),
            json!(0.006),
            ["200", "529"],
            |rig: Rig| async move {
                let gateway = rig.gateway().await;
                let mut first = gateway.client().await;
                let held = Ask { body: large(), ..Ask::whole("text=ok fault=no-bytes") };
                first.send(held.request()).await;
                soon(rig.one.sim.wait_for(|all| !all.is_empty())).await;
                let status = gateway.ask(Ask::saying(large()).request()).await.status.to_string();
                drop(first);
                status
            },
        ),
        row("/server/maxConnections", json!({}), json!(1), ["200", "529"], |rig: Rig| async move {
            let gateway = rig.gateway().await;
            let mut first = gateway.client().await;
            first.ask("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
            let status = gateway.ask("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").await.status.to_string();
            drop(first);
            status
        }),
        row("/server/drainSecs", json!({}), json!(0), ["whole", "cut"], |rig: Rig| async move {
            let mut gateway = rig.gateway().await;
            let mut client = gateway.client().await;
            client.send(Ask::streamed("events=20 every=100").request()).await;
            let mut answer = client.head().await;
            client.read_until(&mut answer, "content_block_delta").await;
            gateway.signal("TERM").await;
            let answer = to_the_end(client, answer).await;
            gateway.ended().await;
            answer
        }),
        row("/server/restartDrainSecs", json!({}), json!(0), ["whole", "cut"], restarted),
        row("/server/pingSecs", json!({}), json!(0.2), ["no ping of ours", "pings"], |rig: Rig| async move {
            let answer = rig.ask(Ask::streamed("events=2 every=1500")).await;
            // The provider itself sends one.
            let pings = answer.text().matches("event: ping").count();
            if pings > 1 { "pings".into() } else { "no ping of ours".to_owned() }
        }),
        there(
            "/network/proxy",
            "cco/tests/relay/tls.rs",
            "the_proxy_of_the_environment_is_used_when_the_configuration_says_so",
        ),
        there(
            "/network/caFile",
            "cco/tests/relay/tls.rs",
            "recorded_streams_arrive_byte_equal_over_tls_with_a_private_authority",
        ),
    ]
}

/// The address without its port.
async fn listens(rig: Rig) -> String {
    let mut child = binary().arg("serve").env("CCO_HOME", rig.path()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = soon(lines.next_line()).await.unwrap().expect("it starts");
    let address = line.strip_prefix("listening on http://").expect(&line);
    address.rsplit_once(':').unwrap().0.to_owned()
}

fn large() -> serde_json::Value {
    json!({ "system": "x".repeat(4000) })
}

/// How a stream ends.
async fn to_the_end(mut client: Client, mut answer: Answer) -> String {
    while let Piece::Data(bytes) = soon(client.piece()).await {
        answer.body.extend_from_slice(&bytes);
    }
    if contains(&answer.body, b"message_stop") { "whole".into() } else { "cut".into() }
}

/// What becomes of a stream of the process that another one replaces.
async fn restarted(rig: Rig) -> String {
    let said = rig.daemon("start").await;
    let address = said.split_once("http://").expect(&said).1.lines().next().unwrap().parse().unwrap();
    let mut client = Client::connect(address).await;
    client.send(Ask::streamed("events=20 every=100").request()).await;
    let mut answer = client.head().await;
    client.read_until(&mut answer, "content_block_delta").await;
    rig.daemon("restart").await;
    let ended = to_the_end(client, answer).await;
    rig.daemon("stop").await;
    ended
}

impl Rig {
    /// `cco daemon …` with the keys of the providers.
    pub(crate) async fn daemon(&self, what: &str) -> String {
        let mut command = binary();
        command.args(["daemon", what]).env("CCO_HOME", self.path()).env("HOME", self.path()).envs(crate::KEYS);
        let output = tokio::time::timeout(Duration::from_secs(120), command.output()).await.unwrap().unwrap();
        assert!(output.status.success(), "{what}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

/// Asks again and again until it is as `holds` says.
pub(crate) async fn until(gateway: &Gateway, ask: impl Fn() -> Ask, holds: impl Fn(&Answer) -> bool) {
    crate::common::until(async || holds(&gateway.ask(ask().request()).await)).await;
}
