//! What we answer ourselves: health, providers, the probes that clients send to warm a connection.

use http1::RequestHead;
use serde_json::{Map, Value, json};
use std::sync::atomic::Ordering;

use crate::client::respond::Answer;
use crate::config::KeyMode;
use crate::error::{ErrorKind, Refusal, Retry};
use crate::gateway::{Gateway, Worker};
use crate::provider::Provider;

/// Answers a request whose path is no upstream's.
pub fn answer(head: &RequestHead, worker: &Worker) -> Result<Answer, Refusal> {
    let gateway = &*worker.gateway;
    let answer: fn(&Gateway) -> Answer = match head.path() {
        "/" | "/api/hello" => |_| Answer::text("cco\n"),
        "/health" => |_| Answer::json(&json!({ "status": "healthy" })),
        "/gateway/health" => |gateway| Answer::json(&health(gateway)),
        "/gateway/providers" => |gateway| Answer::json(&providers(gateway)),
        path => {
            let message = format!(
                "there is nothing at `{path}`: model requests go to `/v1/…`, the state is at `/gateway/health`"
            );
            return Err(Refusal::new(ErrorKind::NotFound, message).retry(Retry::Never));
        }
    };
    if !matches!(head.method(), "GET" | "HEAD") {
        let message = format!("`{}` is not answered at `{}`: use GET", head.method(), head.path());
        return Err(Refusal::new(ErrorKind::MethodNotAllowed, message).retry(Retry::Never).allow("GET, HEAD"));
    }
    Ok(answer(gateway))
}

/// Whether a request can be sent there: with a key of ours or the caller's.
fn is_usable(provider: &Provider) -> bool {
    provider.key_mode == KeyMode::Client || provider.key.is_some()
}

fn health(gateway: &Gateway) -> Value {
    let disabled = gateway.disabled.iter().map(|name| (name.clone(), Value::Bool(false)));
    let enabled = gateway.providers.iter().map(|p| (p.name.clone(), Value::Bool(is_usable(p))));
    let usable: Map<String, Value> = enabled.chain(disabled).collect();
    let serves = gateway.target().is_ok_and(is_usable);
    let (requests, running, relayed_bytes) = gateway.counters.totals();
    json!({
        "status": if serves { "healthy" } else { "unhealthy" },
        "providers": usable,
        "version": gateway.version,
        "uptime_secs": gateway.started.elapsed().unwrap_or_default().as_secs(),
        "requests": { "total": requests, "running": running, "by_outcome": gateway.counters.outcomes() },
        "relayed_bytes": relayed_bytes,
        "connections": {
            "open": gateway.counters.connections.load(Ordering::Relaxed),
            "refused": gateway.counters.connections_refused.load(Ordering::Relaxed),
        },
        "held_bodies": { "bytes": gateway.held.used(), "max_bytes": gateway.held.limit() },
    })
}

fn providers(gateway: &Gateway) -> Value {
    let rows: Vec<Value> = gateway
        .providers
        .iter()
        .map(|p| {
            json!({
                "name": p.name,
                "type": p.kind.name,
                "base_url": p.base.to_string(),
                "usable": is_usable(p),
                "key": match p.key { Some(_) => "stored", None => "none" },
                "key_mode": match p.key_mode { KeyMode::Client => "client", KeyMode::Stored => "stored" },
                "serves": gateway.target().is_ok_and(|t| t.name == p.name),
            })
        })
        .collect();
    json!({ "providers": rows, "disabled": gateway.disabled })
}
