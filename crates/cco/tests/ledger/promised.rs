//! The four results that the documentation promises, by the script that everybody can run.

use std::path::PathBuf;
use std::process::{Output, Stdio};

use serde_json::json;

use crate::common::{Gateway, soon, upstream};
use crate::stop;

async fn check(url: &str) -> Output {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../scripts/check-gateway.sh");
    let mut command = tokio::process::Command::new("sh");
    command.arg(script).arg(url).env("ANTHROPIC_API_KEY", "sk-ant-of-the-check").stdin(Stdio::null());
    soon(command.output()).await.unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn health_an_answer_a_stream_and_metrics_that_count_two() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&upstream, json!({})).await;
    let output = check(&format!("http://{}", gateway.addr)).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    let want = "1/4 health: healthy\n2/4 answer: a message\n3/4 stream: from message_start to message_stop\n\
                4/4 metrics: 0 before, 2 after\n";
    assert_eq!(text(&output.stdout), want);
}

#[tokio::test]
async fn the_check_fails_where_a_promise_is_broken() {
    let upstream = upstream().await;
    // Metrics that do not count.
    let gateway = Gateway::start(&upstream, json!({ "audit": { "enabled": false } })).await;
    let url = format!("http://{}", gateway.addr);
    let output = check(&url).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).starts_with("FAILED /gateway/metrics: status 503"), "{}", text(&output.stderr));
    // A stream that breaks off.
    let truncated = sim::SimConfig { default: "fault=truncate".parse().unwrap(), ..Default::default() };
    let broken = crate::common::upstream_with(truncated).await;
    let gateway = Gateway::start(&broken, json!({})).await;
    let output = check(&format!("http://{}", gateway.addr)).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).starts_with("FAILED "), "{}", text(&output.stderr));
    // Nobody there.
    stop(gateway).await;
    let output = check("http://127.0.0.1:9").await;
    assert_eq!(output.status.code(), Some(1));
}
