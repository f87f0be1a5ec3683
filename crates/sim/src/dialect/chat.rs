//! OpenAI Chat Completions.

use std::iter;

use serde_json::{Value, json};

use super::responses::plain;
use super::{CREATED, Turns, is_name, known, once, texts};
use crate::answer::Refusal;
use crate::prompt::Prompt;
use crate::reply::{Part, Piece, Pieces, Reply, quoted};

const FIELDS: &[&str] = &[
    "model",
    "messages",
    "max_completion_tokens",
    "max_tokens",
    "stream",
    "stream_options",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "response_format",
    "reasoning_effort",
    "thinking",
    "verbosity",
    "stop",
    "temperature",
    "top_p",
    "top_k",
    "n",
    "seed",
    "logprobs",
    "top_logprobs",
    "logit_bias",
    "presence_penalty",
    "frequency_penalty",
    "user",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "service_tier",
    "store",
    "metadata",
    "modalities",
    "audio",
    "prediction",
    "web_search_options",
    "moderation",
    "functions",
    "function_call",
];

pub(super) fn prompt(body: &Value) -> Result<Value, Refusal> {
    known(body, FIELDS)?;
    let invalid = |text: String| Err(Refusal::invalid(text));
    let Some(messages) = body["messages"].as_array().filter(|messages| !messages.is_empty()) else {
        return invalid("Missing required parameter: 'messages'.".into());
    };
    if body["stream_options"].is_object() && body["stream"] != true {
        return invalid("The 'stream_options' parameter is only allowed when 'stream' is enabled.".into());
    }
    let mut turns = Turns::default();
    // Calls that the coming messages have to answer.
    let mut open: Vec<&str> = Vec::new();
    for (at, message) in messages.iter().enumerate() {
        let (role, place) = (message["role"].as_str().unwrap_or_default(), format!("messages[{at}].content"));
        if role != "tool" && !open.is_empty() {
            return invalid(format!(
                "An assistant message with 'tool_calls' must be followed by tool messages responding to each \
                 'tool_call_id'. The following tool_call_ids did not have response messages: {}",
                open.join(", ")
            ));
        }
        match role {
            "system" | "developer" => turns.text("system", texts(&message["content"], &place, &["text"])?),
            "user" => {
                let types = ["text", "image_url", "input_audio", "file"];
                turns.text("user", texts(&message["content"], &place, &types)?);
            }
            "assistant" => {
                let calls = message["tool_calls"].as_array();
                let said = texts(&message["content"], &place, &["text", "refusal"])?;
                if message["content"].is_null() && calls.is_none() && message["refusal"].is_null() {
                    return invalid(format!("Invalid value for '{place}': expected a string, got null."));
                }
                turns.text("assistant", said);
                for (n, call) in calls.into_iter().flatten().enumerate() {
                    let id = call["id"].as_str().filter(|id| (1..=40).contains(&id.len()));
                    let Some(id) = id else {
                        return invalid(format!("Invalid 'messages[{at}].tool_calls[{n}].id': 1 to 40 characters."));
                    };
                    let (name, input) = match call["type"].as_str() {
                        Some("custom") => (&call["custom"]["name"], &call["custom"]["input"]),
                        _ => (&call["function"]["name"], &call["function"]["arguments"]),
                    };
                    if !name.as_str().is_some_and(is_name) || !input.is_string() {
                        return invalid(format!("Invalid 'messages[{at}].tool_calls[{n}]': a name, and a string."));
                    }
                    turns.push("assistant", json!({"type": "tool_use", "id": id, "name": name, "input": {}}));
                    open.push(id);
                }
            }
            "tool" => {
                let id = message["tool_call_id"].as_str().unwrap_or_default();
                let Some(found) = open.iter().position(|known| *known == id) else {
                    return invalid(
                        "Invalid parameter: messages with role 'tool' must be a response to a preceding message with \
                         'tool_calls'."
                            .into(),
                    );
                };
                open.swap_remove(found);
                let text = texts(&message["content"], &place, &["text"])?;
                turns.push("user", json!({"type": "tool_result", "tool_use_id": id, "content": text}));
            }
            other => return invalid(format!("Invalid value: '{other}' at 'messages[{at}].role'.")),
        }
    }
    if !open.is_empty() {
        return invalid(format!("The following tool_call_ids did not have response messages: {}", open.join(", ")));
    }
    let mut tools = body["tools"].is_array().then(Vec::new);
    for (n, tool) in body["tools"].as_array().into_iter().flatten().enumerate() {
        let kind = tool["type"].as_str().unwrap_or_default();
        let name = tool[kind]["name"].as_str().filter(|name| is_name(name));
        let Some(name) = name.filter(|_| matches!(kind, "function" | "custom")) else {
            return invalid(format!("Invalid 'tools[{n}]': a function or a custom tool with a name."));
        };
        tools.iter_mut().for_each(|tools| tools.push(json!({"name": name, "custom": kind == "custom"})));
    }
    if tools.is_none() && !(body["tool_choice"].is_null() && body["parallel_tool_calls"].is_null()) {
        return invalid("'tool_choice' and 'parallel_tool_calls' are only allowed when 'tools' are specified.".into());
    }
    Ok(turns.into_prompt(body, body["stream"] == true, tools))
}

pub(super) fn error(kind: &str, code: Option<&str>, message: &str) -> String {
    json!({"error": {"message": message, "type": kind, "param": null, "code": code}}).to_string()
}

fn finish(reply: &Reply) -> &str {
    match reply.stop_reason.as_str() {
        "tool_use" => "tool_calls",
        "max_tokens" => "length",
        "refusal" => "content_filter",
        "end_turn" | "stop_sequence" | "pause_turn" => "stop",
        other => other,
    }
}

fn usage(reply: &Reply) -> Value {
    let usage = &reply.usage;
    let wrote = usage.cache_5m + usage.cache_1h;
    let prompt = usage.input + usage.cache_read + wrote;
    json!({
        "prompt_tokens": prompt,
        "completion_tokens": usage.output,
        "total_tokens": prompt + usage.output,
        "prompt_tokens_details": {"cached_tokens": usage.cache_read, "audio_tokens": 0, "cache_write_tokens": wrote},
        "completion_tokens_details": {"reasoning_tokens": usage.thinking, "audio_tokens": 0},
    })
}

fn id(reply: &Reply) -> String {
    reply.id.replace("msg_", "chatcmpl-")
}

pub(super) fn whole(reply: &Reply, prompt: &Prompt) -> String {
    let mut message = json!({"role": "assistant", "content": null, "refusal": null});
    let (mut text, mut thinking, mut calls) = (None::<String>, String::new(), Vec::new());
    for part in &reply.blocks {
        match part {
            Part::Text(_) | Part::Filler { .. } => text.get_or_insert_default().push_str(&part.all()),
            Part::Thinking { text, .. } => thinking.push_str(text),
            Part::Redacted { .. } => {}
            Part::Tool { id, name, input } if prompt.custom.contains(name) => {
                calls.push(json!({"id": id, "type": "custom", "custom": {"name": name, "input": plain(input)}}));
            }
            Part::Tool { id, name, input } => {
                calls.push(json!({"id": id, "type": "function", "function": {"name": name, "arguments": input}}));
            }
        }
    }
    message["content"] = text.into();
    if !thinking.is_empty() {
        message["reasoning_content"] = thinking.into();
    }
    if !calls.is_empty() {
        message["tool_calls"] = calls.into();
    }
    json!({
        "id": id(reply), "object": "chat.completion", "created": CREATED, "model": reply.model,
        "choices": [{"index": 0, "message": message, "logprobs": null, "finish_reason": finish(reply)}],
        "usage": usage(reply), "service_tier": "default",
    })
    .to_string()
}

pub(super) fn events(reply: &Reply, prompt: &Prompt, size: Option<usize>) -> Pieces {
    let usage_chunk = prompt.usage_chunk;
    let (id, model) = (quoted(&id(reply)), quoted(&reply.model));
    let head = format!(
        r#"{{"id":{id},"object":"chat.completion.chunk","created":{CREATED},"model":{model},"service_tier":"default""#
    );
    let tail = if usage_chunk { r#","usage":null}"# } else { "}" };
    let chunk = move |delta: &str, finish: &str| {
        Piece::now(format!(
            "data: {head},\"choices\":[{{\"index\":0,\"delta\":{delta},\"logprobs\":null,\"finish_reason\":{finish}}}]{tail}\n\n"
        ))
    };
    let closing = usage_chunk.then(|| {
        let usage = usage(reply);
        format!(
            "data: {}\n\n",
            json!({"id": self::id(reply), "object": "chat.completion.chunk", "created": CREATED, "model": reply.model,
                "service_tier": "default", "choices": [], "usage": usage})
        )
    });
    let mut events: Pieces = Box::new(iter::once(chunk(r#"{"role":"assistant","content":"","refusal":null}"#, "null")));
    let mut calls = 0;
    for part in &reply.blocks {
        let chunk = chunk.clone();
        let pieces = part.pieces(size);
        events = match part {
            Part::Text(_) | Part::Filler { .. } => Box::new(
                events.chain(pieces.map(move |text| chunk(&format!(r#"{{"content":{}}}"#, quoted(&text)), "null"))),
            ),
            Part::Thinking { .. } => Box::new(events.chain(
                pieces.map(move |text| chunk(&format!(r#"{{"reasoning_content":{}}}"#, quoted(&text)), "null")),
            )),
            Part::Redacted { .. } => events,
            Part::Tool { id, name, input } => {
                // A custom tool gets text, every other one JSON.
                let custom = prompt.custom.contains(name);
                let (kind, field) = if custom { ("custom", "input") } else { ("function", "arguments") };
                let pieces = if custom { Part::Text(plain(input)).pieces(size) } else { pieces };
                let (id, name, at) = (quoted(id), quoted(name), calls);
                calls += 1;
                let first = chunk(
                    &format!(
                        r#"{{"tool_calls":[{{"index":{at},"id":{id},"type":"{kind}","{kind}":{{"name":{name},"{field}":""}}}}]}}"#
                    ),
                    "null",
                );
                let fragments = pieces.map(move |text| {
                    let text = quoted(&text);
                    let delta = format!(r#"{{"tool_calls":[{{"index":{at},"{kind}":{{"{field}":{text}}}}}]}}"#);
                    chunk(&delta, "null")
                });
                Box::new(events.chain(iter::once(first)).chain(fragments))
            }
        };
    }
    let last = chunk("{}", &quoted(finish(reply)));
    let closing = closing.map(Piece::now);
    Box::new(events.chain(iter::once(last)).chain(closing).chain(once("data: [DONE]\n\n")))
}
