//! OpenAI Responses.

use std::iter;

use serde_json::{Value, json};

use super::{CREATED, Turns, is_name, known, texts};
use crate::answer::Refusal;
use crate::prompt::Prompt;
use crate::reply::{Part, Pieces, Reply, event, quoted, signature, signature_start};

const FIELDS: &[&str] = &[
    "model",
    "input",
    "instructions",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "reasoning",
    "text",
    "include",
    "store",
    "stream",
    "stream_options",
    "max_output_tokens",
    "max_tool_calls",
    "previous_response_id",
    "conversation",
    "truncation",
    "metadata",
    "prompt",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "safety_identifier",
    "user",
    "service_tier",
    "context_management",
    "background",
    "temperature",
    "top_p",
    "top_logprobs",
    "client_metadata",
];

pub(super) fn prompt(body: &Value) -> Result<Value, Refusal> {
    known(body, FIELDS)?;
    let mut turns = Turns::default();
    let mut open: Vec<&str> = Vec::new();
    match &body["input"] {
        Value::String(text) => turns.text("user", text.clone()),
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                self::item(item, at, items.get(at + 1), &mut turns, &mut open)?;
            }
        }
        _ => return Err(Refusal::invalid("Missing required parameter: 'input'.")),
    }
    if let Some(id) = open.first() {
        return Err(Refusal::invalid(format!("No tool output found for function call {id}.")));
    }
    if body["max_output_tokens"].as_u64().is_some_and(|most| most < 16) {
        return Err(Refusal::invalid("Invalid 'max_output_tokens': integer below minimum value: 16."));
    }
    let mut tools = body["tools"].is_array().then(Vec::new);
    for (n, tool) in body["tools"].as_array().into_iter().flatten().enumerate() {
        let is_named = matches!(tool["type"].as_str(), Some("function" | "custom"));
        if is_named && !tool["name"].as_str().is_some_and(is_name) {
            return Err(Refusal::invalid(format!("Invalid 'tools[{n}].name'.")));
        }
        if is_named {
            let is_custom = tool["type"] == "custom";
            tools.iter_mut().for_each(|tools| tools.push(json!({"name": tool["name"], "custom": is_custom})));
        }
    }
    Ok(turns.into_prompt(body, body["stream"] == true, tools))
}

fn item<'b>(
    item: &'b Value,
    at: usize,
    next: Option<&Value>,
    turns: &mut Turns,
    open: &mut Vec<&'b str>,
) -> Result<(), Refusal> {
    let invalid = |text: String| Err(Refusal::invalid(text));
    let place = format!("input[{at}].content");
    let id = || item["call_id"].as_str().filter(|id| (1..=64).contains(&id.len()));
    match item["type"].as_str().unwrap_or("message") {
        "message" => {
            let types: &[&str] = match item["role"].as_str() {
                Some("assistant") => &["output_text", "refusal"],
                _ => &["input_text", "input_image", "input_file"],
            };
            let text = texts(&item["content"], &place, types)?;
            match item["role"].as_str() {
                Some(role @ ("user" | "assistant")) => turns.text(role, text),
                Some("system" | "developer") => turns.text("system", text),
                _ => return invalid(format!("Invalid value at 'input[{at}].role'.")),
            }
        }
        kind @ ("function_call" | "custom_tool_call") => {
            let input = if kind == "function_call" { &item["arguments"] } else { &item["input"] };
            let (Some(id), true) = (id(), input.is_string() && item["name"].as_str().is_some_and(is_name)) else {
                return invalid(format!("Invalid 'input[{at}]': a call has `call_id`, `name`, and a string."));
            };
            turns.push("assistant", json!({"type": "tool_use", "id": id, "name": item["name"], "input": {}}));
            open.push(id);
        }
        kind @ ("function_call_output" | "custom_tool_call_output") => {
            let id = id().unwrap_or_default();
            let Some(found) = open.iter().position(|known| *known == id) else {
                return invalid(format!("No tool call found for {} with call_id {id}.", kind.replace('_', " ")));
            };
            open.swap_remove(found);
            let text = texts(&item["output"], &place, &["input_text", "input_image", "input_file"])?;
            turns.push("user", json!({"type": "tool_result", "tool_use_id": id, "content": text}));
        }
        "reasoning" => {
            let leads = |next: &Value| next["type"] != "function_call_output" && next["role"] != "user";
            if !next.is_some_and(leads) {
                return invalid("Item of type 'reasoning' was provided without its required following item.".into());
            }
            sealed(item)?;
        }
        _ => {}
    }
    Ok(())
}

/// Reasoning of ours has to come back as we gave it, and nobody else's is taken.
fn sealed(item: &Value) -> Result<(), Refusal> {
    let said = item["encrypted_content"].as_str().unwrap_or_default();
    let parts = item["summary"].as_array().into_iter().flatten();
    let text: String = parts.filter_map(|part| part["text"].as_str()).collect();
    let ours = said.starts_with(&signature_start()) && said == signature(&text);
    if ours || said.starts_with(&redacted_start()) || said.is_empty() {
        return Ok(());
    }
    Err(Refusal::invalid("The encrypted content for item could not be verified."))
}

/// How what is hidden altogether starts.
fn redacted_start() -> String {
    crate::digest::base64(b"sim-redacted")
}

/// The code of a failure, for a word of Anthropic's.
pub(super) fn code(kind: &str) -> &'static str {
    match kind {
        "overloaded_error" => "server_is_overloaded",
        "rate_limit_error" => "rate_limit_exceeded",
        "invalid_request_error" => "invalid_prompt",
        _ => "server_error",
    }
}

fn usage(reply: &Reply) -> Value {
    let usage = &reply.usage;
    let wrote = usage.cache_5m + usage.cache_1h;
    let input = usage.input + usage.cache_read + wrote;
    json!({
        "input_tokens": input,
        "input_tokens_details": {"cached_tokens": usage.cache_read, "cache_write_tokens": wrote},
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.thinking},
        "total_tokens": input + usage.output,
    })
}

fn id(reply: &Reply) -> String {
    reply.id.replace("msg_", "resp_")
}

/// An item, as it begins (without its text) or whole.
fn written(part: &Part, at: usize, prompt: &Prompt, is_whole: bool) -> Value {
    let status = if is_whole { "completed" } else { "in_progress" };
    let key = &prompt.key[..12];
    match part {
        Part::Text(_) | Part::Filler { .. } => {
            let content = match is_whole {
                true => json!([{"type": "output_text", "text": part.all(), "annotations": [], "logprobs": []}]),
                false => json!([]),
            };
            json!({"id": format!("msg_{key}{at}"), "type": "message", "status": status, "role": "assistant", "content": content})
        }
        Part::Thinking { text, signature } => {
            let summary = if is_whole { json!([{"type": "summary_text", "text": text}]) } else { json!([]) };
            json!({"id": format!("rs_{key}{at}"), "type": "reasoning", "summary": summary, "encrypted_content": signature, "status": status})
        }
        Part::Redacted { data } => {
            json!({"id": format!("rs_{key}{at}"), "type": "reasoning", "summary": [], "encrypted_content": data, "status": status})
        }
        Part::Tool { id, name, input } if prompt.custom.contains(name) => {
            let input = if is_whole { plain(input) } else { String::new() };
            json!({"id": format!("ctc_{key}{at}"), "type": "custom_tool_call", "status": status, "call_id": id, "name": name, "input": input})
        }
        Part::Tool { id, name, input } => {
            let arguments = if is_whole { input.as_str() } else { "" };
            json!({"id": format!("fc_{key}{at}"), "type": "function_call", "status": status, "call_id": id, "name": name, "arguments": arguments})
        }
    }
}

/// The input of a tool that takes plain text.
pub(super) fn plain(input: &str) -> String {
    let input: Value = serde_json::from_str(input).unwrap_or_default();
    input["input"].as_str().map_or_else(|| input.to_string(), str::to_owned)
}

fn response(reply: &Reply, prompt: &Prompt, status: &str) -> Value {
    let is_over = status != "in_progress";
    let items = reply.blocks.iter().enumerate().filter(|_| is_over);
    let output: Vec<Value> = items.map(|(at, part)| written(part, at, prompt, true)).collect();
    let details = match reply.stop_reason.as_str() {
        "max_tokens" if is_over => json!({"reason": "max_output_tokens"}),
        "refusal" if is_over => json!({"reason": "content_filter"}),
        _ => Value::Null,
    };
    json!({
        "id": id(reply), "object": "response", "created_at": CREATED, "status": status, "model": reply.model,
        "output": output, "parallel_tool_calls": true, "tool_choice": "auto", "tools": [], "error": null,
        "incomplete_details": details, "instructions": null, "metadata": {}, "temperature": null, "top_p": null,
        "usage": if is_over { usage(reply) } else { Value::Null },
    })
}

fn status(reply: &Reply) -> &'static str {
    if matches!(reply.stop_reason.as_str(), "max_tokens" | "refusal") { "incomplete" } else { "completed" }
}

pub(super) fn whole(reply: &Reply, prompt: &Prompt) -> String {
    response(reply, prompt, status(reply)).to_string()
}

pub(super) fn events(reply: &Reply, prompt: &Prompt, size: Option<usize>) -> Pieces {
    type Fields = Box<dyn Iterator<Item = (&'static str, String)> + Send>;
    let begun = response(reply, prompt, "in_progress");
    let mut events: Fields = Box::new(
        ["response.created", "response.in_progress"]
            .into_iter()
            .map(move |name| (name, format!(r#""response":{begun}"#))),
    );
    for (at, part) in reply.blocks.iter().enumerate() {
        let (begun, whole) = (written(part, at, prompt, false), written(part, at, prompt, true));
        let place = format!(r#""item_id":{},"output_index":{at}"#, begun["id"]);
        let added = ("response.output_item.added", format!(r#""output_index":{at},"item":{begun}"#));
        let done = ("response.output_item.done", format!(r#""output_index":{at},"item":{whole}"#));
        let pieces = |name: &'static str, more: &'static str, pieces: Box<dyn Iterator<Item = String> + Send>| {
            let place = place.clone();
            pieces.map(move |text| (name, format!(r#"{place}{more},"delta":{}"#, quoted(&text))))
        };
        let body: Fields = match part {
            Part::Text(_) | Part::Filler { .. } => {
                let shell = r#"{"type":"output_text","text":"","annotations":[],"logprobs":[]}"#;
                let (text, whole) = (quoted(&part.all()), whole["content"][0].to_string());
                let first = ("response.content_part.added", format!(r#"{place},"content_index":0,"part":{shell}"#));
                let deltas =
                    pieces("response.output_text.delta", r#","content_index":0,"logprobs":[]"#, part.pieces(size));
                let last = [
                    ("response.output_text.done", format!(r#"{place},"content_index":0,"logprobs":[],"text":{text}"#)),
                    ("response.content_part.done", format!(r#"{place},"content_index":0,"part":{whole}"#)),
                ];
                Box::new(iter::once(first).chain(deltas).chain(last))
            }
            Part::Thinking { text, .. } => {
                let part_of = |text: &str| format!(r#"{{"type":"summary_text","text":{}}}"#, quoted(text));
                let added = (
                    "response.reasoning_summary_part.added",
                    format!(r#"{place},"summary_index":0,"part":{}"#, part_of("")),
                );
                let deltas =
                    pieces("response.reasoning_summary_text.delta", r#","summary_index":0"#, part.pieces(size));
                let last = [
                    (
                        "response.reasoning_summary_text.done",
                        format!(r#"{place},"summary_index":0,"text":{}"#, quoted(text)),
                    ),
                    (
                        "response.reasoning_summary_part.done",
                        format!(r#"{place},"summary_index":0,"part":{}"#, part_of(text)),
                    ),
                ];
                Box::new(iter::once(added).chain(deltas).chain(last))
            }
            Part::Redacted { .. } => Box::new(iter::empty()),
            Part::Tool { name, input, .. } if prompt.custom.contains(name) => {
                let text = plain(input);
                let last = ("response.custom_tool_call_input.done", format!(r#"{place},"input":{}"#, quoted(&text)));
                let deltas = Box::new(Part::Text(text).pieces(size));
                Box::new(pieces("response.custom_tool_call_input.delta", "", deltas).chain([last]))
            }
            Part::Tool { name, input, .. } => {
                let (name, input) = (quoted(name), quoted(input));
                let last =
                    ("response.function_call_arguments.done", format!(r#"{place},"name":{name},"arguments":{input}"#));
                Box::new(pieces("response.function_call_arguments.delta", "", part.pieces(size)).chain([last]))
            }
        };
        events = Box::new(events.chain([added]).chain(body).chain([done]));
    }
    let over = response(reply, prompt, status(reply));
    let name = if status(reply) == "completed" { "response.completed" } else { "response.incomplete" };
    let all = events.chain([(name, format!(r#""response":{over}"#))]).enumerate();
    Box::new(all.map(|(n, (name, fields))| event(name, &format!(r#"{fields},"sequence_number":{n}"#))))
}
