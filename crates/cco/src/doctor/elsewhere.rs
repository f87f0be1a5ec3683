//! Any gateway at a URL, examined with what can be asked from outside: one answer, one stream, and what must be refused.

use serde_json::{Value, json};

use super::Card;
use super::http::Target;
use super::judge::{self, Events};

/// Asks it for these things, in this order. The two answers cost what they cost.
pub(super) async fn examine(target: &Target, model: &str, card: &mut Card) {
    let is_ours = health(target, card).await;
    models(target, card).await;
    answer(target, model, card).await;
    stream(target, model, is_ours, card).await;
    errors(target, card).await;
}

fn prompt(model: &str, stream: bool) -> Vec<u8> {
    json!({
        "model": model, "max_tokens": 64, "stream": stream,
        "messages": [{ "role": "user", "content": "Count from one to twenty in words." }],
    })
    .to_string()
    .into()
}

/// Whether it is one of ours.
async fn health(target: &Target, card: &mut Card) -> bool {
    for path in ["/gateway/health", "/health"] {
        let Ok(answer) = target.ask("GET", path, &[], b"").await else { continue };
        let told = answer.json();
        if answer.status != 200 || !told.is_object() {
            continue;
        }
        let is_ours = path == "/gateway/health" && told["version"].is_string();
        match told["status"].as_str() {
            None | Some("healthy" | "ok" | "up" | "pass") => card.good("health", format!("{path} says so")),
            Some(other) => card.bad("health", format!("{path} says `{other}`"), "look at what else it says there"),
        }
        return is_ours;
    }
    card.odd("health", "it has neither /gateway/health nor /health", "it is no cco, or something is in front of it");
    false
}

async fn models(target: &Target, card: &mut Card) {
    match target.ask("GET", "/v1/models?limit=1000", &[], b"").await {
        Ok(answer) if answer.status == 200 && answer.json()["data"].is_array() => {
            card.good("models", format!("{} are listed", answer.json()["data"].as_array().map_or(0, Vec::len)));
        }
        Ok(answer) => card.odd("models", answer.shown(), "clients that ask for the list find none"),
        Err(why) => card.bad("models", why, "is the address right, and does somebody listen there?"),
    }
}

async fn answer(target: &Target, model: &str, card: &mut Card) {
    let answer = match target.ask("POST", "/v1/messages", &[], &prompt(model, false)).await {
        Ok(answer) => answer,
        Err(why) => return card.bad("answer", why, "is the address right, and does somebody listen there?"),
    };
    let told = answer.json();
    match (answer.status, told["usage"]["output_tokens"].as_u64()) {
        (200, Some(tokens)) if told["type"] == "message" => {
            card.good("answer", format!("a message of {tokens} tokens"))
        }
        (200, _) => card.bad(
            "answer",
            "it is no message with its usage",
            "what is in front of the provider must not change answers",
        ),
        (401 | 403, _) => card.bad("answer", answer.shown(), "set `ANTHROPIC_API_KEY` to a key that it takes"),
        (404, _) => card.bad("answer", answer.shown(), "name a model that it has with --model"),
        _ => card.bad("answer", answer.shown(), "the message says what is wrong"),
    }
}

async fn stream(target: &Target, model: &str, is_ours: bool, card: &mut Card) {
    let answer = match target.ask("POST", "/v1/messages", &[], &prompt(model, true)).await {
        Ok(answer) if answer.status == 200 => answer,
        Ok(answer) => return card.bad("stream", answer.shown(), "the message says what is wrong"),
        Err(why) => return card.bad("stream", why, "is the address right, and does somebody listen there?"),
    };
    let missing = judge::missing(&answer);
    if missing.is_empty() {
        card.good("headers", "the four that a stream should have");
    } else {
        let found = format!("no {}", missing.join(", "));
        let fix = "a proxy in between may hold streams back: have it pass these headers";
        // Without the type no client reads a stream; without the others it depends on who is in between.
        let is_needed = is_ours || missing[0].contains("content-type");
        if is_needed { card.bad("headers", found, fix) } else { card.odd("headers", found, fix) }
    }
    let events = Events::of(&answer.body);
    let counts: Vec<_> = events.counts.iter().map(|(name, count)| format!("{count} {name}")).collect();
    match &events.fault {
        Some(fault) => card.bad("order", fault.clone(), "what is in front of the provider must not change streams"),
        None => card.good("order", format!("legal: {}", counts.join(", "))),
    }
    let ((pieces, span), deltas) = (judge::pieces(&answer), events.count("content_block_delta"));
    if deltas > 3 && (pieces < 3 || span.is_zero()) {
        let found = format!("{deltas} deltas arrived in {pieces} pieces within {} ms", span.as_millis());
        card.bad(
            "increments",
            found,
            "something collects the stream: turn its buffering off (nginx: `proxy_buffering off`)",
        );
    } else {
        card.good("increments", format!("{deltas} deltas in {pieces} pieces over {} ms", span.as_millis()));
    }
}

async fn errors(target: &Target, card: &mut Card) {
    let asked: [(&str, &[u8]); 2] = [
        ("a request without messages", b"{\"model\":\"claude-haiku-5-5\",\"max_tokens\":1}"),
        ("what is no JSON", b"{ \"model\": "),
    ];
    let mut faults = Vec::new();
    for (what, body) in asked {
        match target.ask("POST", "/v1/messages", &[], body).await {
            Ok(answer) if !(400..500).contains(&answer.status) => faults.push(format!("{what} gets {}", answer.status)),
            Ok(answer) => {
                let told: Value = answer.json();
                faults.extend(
                    judge::error_fault(&told).map(|fault| format!("{what} gets {}, and {fault}", answer.status)),
                );
            }
            Err(why) => faults.push(format!("{what}: {why}")),
        }
    }
    if faults.is_empty() {
        card.good("errors", "in the protocol's shape");
    } else {
        card.bad("errors", faults.join("\n"), "clients cannot tell people what is wrong");
    }
}
