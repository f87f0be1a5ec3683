//! What users see of the ledger: metrics, live events, and the commands that read it; through the real program.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[expect(dead_code, reason = "what these tests leave out others need")]
#[path = "../common/mod.rs"]
mod common;

mod access;
mod change;
mod commands;
mod errors;
mod facts;
mod live;
mod metrics;
mod prometheus;
mod promised;
mod show;
mod socket;
mod sums;

use std::path::Path;
use std::process::Output;

use common::{Gateway, Upstream, binary, request, soon};
use ledger::record::Record;
use ledger::store::sqlite::Sqlite;
use ledger::store::{Batch, Store};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What the admin token's file holds, as a header.
fn admin(gateway: &Gateway) -> String {
    let token = std::fs::read_to_string(gateway.home().join("admin-token")).unwrap();
    format!("Authorization: Bearer {}\r\n", token.trim())
}

/// A home with a gateway's configuration in it, whose only provider is this simulator.
fn home(upstream: &Upstream, more: serde_json::Value) -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    let base = format!("http://{}", upstream.addr);
    let mut config = serde_json::json!({ "providers": { "anthropic": { "baseUrl": base } } });
    common::lay_over(&mut config, more);
    std::fs::write(home.path().join("config.json"), config.to_string()).unwrap();
    home
}

/// A home without a gateway, in which this was recorded.
fn recorded(records: &[Record]) -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    let store = Sqlite::new(home.path().join("ledger.db"));
    let batch = Batch { records, segment: "s", position: 1, complete: false };
    store.writer().unwrap().load(&batch).unwrap();
    home
}

/// Tells a gateway to stop, and waits until it has.
async fn stop(mut gateway: Gateway) {
    gateway.signal("TERM").await;
    assert!(gateway.ended().await.success(), "{}", gateway.log());
}

/// A GET without a key, with these fields.
fn get(target: &str, fields: &str) -> Vec<u8> {
    let bytes = request("GET", target, fields, "");
    String::from_utf8(bytes).unwrap().replace(&format!("x-api-key: {}\r\n", common::KEY), "").into_bytes()
}

/// Runs a command to its end, in a place where clocks show UTC.
async fn cco(home: &Path, args: &[&str]) -> Output {
    cco_at(home, "UTC", args).await
}

/// The same where clocks show something else.
async fn cco_at(home: &Path, zone: &str, args: &[&str]) -> Output {
    let mut command = binary();
    command.args(args).env("CCO_HOME", home).env("HOME", home).env("TZ", zone);
    soon(command.output()).await.unwrap()
}

/// What a command that went well printed.
#[track_caller]
fn printed(output: &Output) -> &str {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// One request over the socket of our own user: the status, and the body.
async fn over_socket(home: &Path, method: &str, target: &str) -> (u16, String) {
    let mut stream = tokio::net::UnixStream::connect(home.join("cco.sock")).await.unwrap();
    let request = format!("{method} {target} HTTP/1.0\r\nHost: evil.test\r\nOrigin: http://evil.test\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}
