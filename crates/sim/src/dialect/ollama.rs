//! Ollama's own protocol: lines of JSON.

use std::iter;

use serde_json::{Value, json};

use super::{Turns, once};
use crate::answer::Refusal;
use crate::reply::{Part, Piece, Pieces, Reply, quoted};

/// What a server reserves that is not told.
const CONTEXT: u64 = 4096;
const CREATED: &str = "2026-11-22T00:00:00.000000Z";

pub(super) fn prompt(body: &Value) -> Result<Value, Refusal> {
    let invalid = |text: String| Err(Refusal::invalid(text));
    let Some(messages) = body["messages"].as_array() else { return invalid("messages are required".into()) };
    let mut turns = Turns::default();
    let mut open: Vec<String> = Vec::new();
    let mut length = 0;
    for (at, message) in messages.iter().enumerate() {
        let text = message["content"].as_str().or(message["content"].is_null().then_some(""));
        let Some(text) = text else { return invalid(format!("messages[{at}].content is no string")) };
        length += text.len() as u64;
        let is_bytes = |image: &Value| image.as_str().is_some_and(|data| !data.contains(':'));
        if !message["images"].as_array().into_iter().flatten().all(is_bytes) {
            return invalid(format!("messages[{at}].images: illegal base64 data"));
        }
        match message["role"].as_str().unwrap_or_default() {
            "system" => turns.text("system", text.to_owned()),
            "user" => turns.text("user", text.to_owned()),
            "assistant" => {
                turns.text("assistant", text.to_owned());
                open.clear();
                for (n, call) in message["tool_calls"].as_array().into_iter().flatten().enumerate() {
                    if !call["function"]["arguments"].is_object() {
                        return invalid("json: cannot unmarshal string into Go struct field of type map".into());
                    }
                    let id = call["id"].as_str().map_or_else(|| format!("call_{at}_{n}"), str::to_owned);
                    turns.push("assistant", json!({"type": "tool_use", "id": id, "name": "x", "input": {}}));
                    open.push(id);
                }
            }
            "tool" => {
                let named = message["tool_call_id"].as_str();
                let at = named.map_or(Some(0), |named| open.iter().position(|id| id == named));
                let Some(id) = at.filter(|at| *at < open.len()).map(|at| open.remove(at)) else {
                    return invalid("a tool's result without its call".into());
                };
                turns.push("user", json!({"type": "tool_result", "tool_use_id": id, "content": text}));
            }
            other => return invalid(format!("invalid role: {other}")),
        }
    }
    let context = body["options"]["num_ctx"].as_u64().unwrap_or(CONTEXT);
    if length.div_ceil(4) > context && body["truncate"] == false {
        return invalid("the input length exceeds the context length".into());
    }
    let tools = body["tools"]
        .as_array()
        .map(|tools| tools.iter().map(|tool| json!({"name": tool["function"]["name"]})).collect::<Vec<_>>());
    Ok(turns.into_prompt(body, body["stream"] != false, tools))
}

fn done(reply: &Reply) -> String {
    let usage = &reply.usage;
    let reason = if reply.stop_reason == "max_tokens" { "length" } else { "stop" };
    let prompt = usage.input + usage.cache_read + usage.cache_5m + usage.cache_1h;
    format!(
        r#""done":true,"done_reason":"{reason}","total_duration":1000,"load_duration":1,"prompt_eval_count":{prompt},"prompt_eval_duration":1,"eval_count":{},"eval_duration":1"#,
        usage.output
    )
}

fn call(part: &Part) -> Option<String> {
    let Part::Tool { id, name, input } = part else { return None };
    Some(format!(r#"{{"id":{},"function":{{"index":0,"name":{},"arguments":{input}}}}}"#, quoted(id), quoted(name)))
}

pub(super) fn whole(reply: &Reply) -> String {
    let (mut text, mut thinking) = (String::new(), String::new());
    for part in &reply.blocks {
        match part {
            Part::Text(_) | Part::Filler { .. } => text.push_str(&part.all()),
            Part::Thinking { text, .. } => thinking.push_str(text),
            Part::Redacted { .. } | Part::Tool { .. } => {}
        }
    }
    let mut message = format!(r#""role":"assistant","content":{}"#, quoted(&text));
    if !thinking.is_empty() {
        message.push_str(&format!(r#","thinking":{}"#, quoted(&thinking)));
    }
    let calls: Vec<String> = reply.blocks.iter().filter_map(call).collect();
    if !calls.is_empty() {
        message.push_str(&format!(r#","tool_calls":[{}]"#, calls.join(",")));
    }
    let (model, done) = (quoted(&reply.model), done(reply));
    format!(r#"{{"model":{model},"created_at":"{CREATED}","message":{{{message}}},{done}}}"#)
}

pub(super) fn events(reply: &Reply, size: Option<usize>) -> Pieces {
    let head =
        format!(r#"{{"model":{},"created_at":"{CREATED}","message":{{"role":"assistant","#, quoted(&reply.model));
    let closing = format!("{head}\"content\":\"\"}},{}}}\n", done(reply));
    let mut events: Pieces = Box::new(iter::empty());
    for part in &reply.blocks {
        let (head, pieces) = (head.clone(), part.pieces(size));
        let line = move |fields: String| Piece::now(format!("{head}{fields}}},\"done\":false}}\n"));
        events = match part {
            Part::Text(_) | Part::Filler { .. } => {
                Box::new(events.chain(pieces.map(move |text| line(format!(r#""content":{}"#, quoted(&text))))))
            }
            Part::Thinking { .. } => Box::new(
                events.chain(pieces.map(move |text| line(format!(r#""content":"","thinking":{}"#, quoted(&text))))),
            ),
            Part::Redacted { .. } => events,
            Part::Tool { .. } => {
                let call = call(part).unwrap_or_default();
                Box::new(events.chain(iter::once(line(format!(r#""content":"","tool_calls":[{call}]"#)))))
            }
        };
    }
    Box::new(events.chain(once(closing)))
}
