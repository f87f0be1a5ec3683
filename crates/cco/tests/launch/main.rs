//! Clients sent to the gateway with the real program: `cco run`, `cco env`, `cco setup`.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[expect(dead_code, unused_imports, reason = "what these tests leave out others need")]
#[path = "../common/mod.rs"]
mod common;

mod run;
mod setup;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Output;

use serde_json::json;
use tokio::process::Command;

use common::{Gateway, Upstream, binary, soon};

/// Finds programs where every system has them, and a client of ours first.
fn path(home: &Path) -> String {
    format!("{}:/usr/local/bin:/usr/bin:/bin", home.join("bin").display())
}

/// The program with the home of this gateway, and with a user's folder beside it.
fn cco(home: &Path, args: &[&str]) -> Command {
    let mut command = binary();
    command.args(args).env("CCO_HOME", home).env("HOME", home.join("user")).env("PATH", path(home));
    command.current_dir(home.join("user/web"));
    command
}

async fn output(command: &mut Command) -> Output {
    soon(command.output()).await.unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// A home with a user's folder, in it a repository, and a client that says what it was given and asks once.
fn furnish(home: &Path) {
    let web = home.join("user/web/.git");
    std::fs::create_dir_all(&web).unwrap();
    std::fs::write(web.join("HEAD"), "ref: refs/heads/fix/secret-branch\n").unwrap();
    std::fs::create_dir_all(home.join("bin")).unwrap();
    let client = r#"#!/bin/sh
echo "base $ANTHROPIC_BASE_URL"
echo "key ${ANTHROPIC_API_KEY-none} token ${ANTHROPIC_AUTH_TOKEN:+given}"
[ -n "$ANTHROPIC_AUTH_TOKEN" ] && key="Authorization: Bearer $ANTHROPIC_AUTH_TOKEN" || key="x-api-key: $ANTHROPIC_API_KEY"
printf '%s\n' "$ANTHROPIC_CUSTOM_HEADERS" > "$HOME/headers"
long=$(printf '%4000s' | sed 's/ /word /g')
curl -sS "$ANTHROPIC_BASE_URL/v1/messages" -H "$key" -H "@$HOME/headers" -H 'anthropic-version: 2023-06-01' \
  -H 'content-type: application/json' -H 'x-claude-code-session-id: 5e551011-0000-4000-8000-000000000001' \
  -d '{"model":"claude-sonnet-5-5","max_tokens":100,"messages":[{"role":"user","content":"[[sim text=\"said so\"]] '"$long"'"}]}'
exit "${WITH_CODE:-0}"
"#;
    let file = home.join("bin/claude");
    std::fs::write(&file, client).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// A gateway in a furnished home; with a stored key where one is given.
async fn gateway(upstream: &Upstream, key: Option<&str>) -> Gateway {
    let url = format!("http://{}", upstream.addr);
    let provider = match key {
        Some(_) => json!({ "baseUrl": url, "apiKeyRef": "env:STORED_KEY" }),
        None => json!({ "baseUrl": url, "apiKeyRef": "" }),
    };
    let config = json!({ "providers": { "anthropic": provider } });
    let env: Vec<_> = key.map(|key| ("STORED_KEY", key)).into_iter().collect();
    let gateway = Gateway::start_with(config, &[], &env).await;
    furnish(gateway.home());
    gateway
}
