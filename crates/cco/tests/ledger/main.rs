//! What users see of the ledger: metrics, and the commands that read it; through the real program.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[expect(dead_code, unused_imports, reason = "what these tests leave out others need")]
#[path = "../common/mod.rs"]
mod common;

mod metrics;
mod prometheus;
mod promised;

use common::{Gateway, Upstream, request};

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
