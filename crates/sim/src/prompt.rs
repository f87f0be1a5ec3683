//! What a generation request says, as far as an answer depends on it; and the rules that the provider enforces.

use serde_json::Value;

use crate::answer::Refusal;
use crate::dialect::Dialect;
use crate::digest::sha256_hex;
use crate::reply::{signature, signature_start};
use crate::script::{BadScript, Script};

/// A generation request, read.
#[derive(Clone, Debug)]
pub(crate) struct Prompt {
    pub(crate) model: String,
    pub(crate) stream: bool,
    /// The names of the tools; `None` if the request has no list of them.
    pub(crate) tools: Option<Vec<String>>,
    /// Never 0; the same for equal prompts.
    pub(crate) input_tokens: u64,
    /// The script of the newest user message that holds a marker.
    pub(crate) marked: Option<Result<Script, BadScript>>,
    /// How many answers the conversation holds behind that message; without one, behind its start.
    pub(crate) answered: usize,
    /// What equal attempts at the same turn have in common, whatever else a client changes between them.
    pub(crate) turn_key: String,
    /// The digest of the body: the ids of the answer come from it.
    pub(crate) key: String,
    /// Whether a stream is to end with an event of its own for the usage.
    pub(crate) usage_chunk: bool,
    /// The names of tools that take plain text.
    pub(crate) custom: Vec<String>,
}

/// Which rules hold: a request to count tokens needs no `max_tokens`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Generate,
    Count,
}

impl Prompt {
    pub(crate) fn read(body: &[u8], operation: Operation, dialect: Dialect) -> Result<Self, Refusal> {
        let parsed: Value = serde_json::from_slice(body)
            .map_err(|why| Refusal::invalid(format!("The request body is not valid JSON: {why}")))?;
        Self::from_value(&*dialect.prompt(&parsed)?, sha256_hex([body]), operation)
    }

    pub(crate) fn from_value(body: &Value, key: String, operation: Operation) -> Result<Self, Refusal> {
        if !body.is_object() {
            return Err(Refusal::invalid("The request body is not a JSON object"));
        }
        let model = match &body["model"] {
            Value::String(model) if !model.is_empty() => model.clone(),
            Value::Null => return Err(Refusal::invalid("model: Field required")),
            _ => return Err(Refusal::invalid("model: Input should be a valid string")),
        };
        if operation == Operation::Generate && body["max_tokens"].as_u64().is_none() {
            return Err(Refusal::invalid("max_tokens: Field required"));
        }
        let stream = match &body["stream"] {
            Value::Null => false,
            Value::Bool(stream) => *stream,
            _ => return Err(Refusal::invalid("stream: Input should be a valid boolean")),
        };
        let Some(messages) = body["messages"].as_array() else {
            return Err(Refusal::invalid("messages: Field required"));
        };
        check_messages(messages)?;

        let tools = body["tools"]
            .as_array()
            .map(|tools| tools.iter().filter_map(|tool| tool["name"].as_str().map(str::to_owned)).collect::<Vec<_>>());
        let length: usize = ["system", "messages", "tools"].iter().map(|part| text_length(&body[*part])).sum();
        let newest = messages.iter().enumerate().rev().find_map(|(at, message)| {
            let text = (role(message) == "user").then(|| text_of(message))?;
            Some((at, Script::from_markers(&text)?, text))
        });
        let (from, marked, text) = match newest {
            Some((at, script, text)) => (at, Some(script), text),
            None => (0, None, messages.first().map(text_of).unwrap_or_default()),
        };
        let answered = answers_behind(&messages[from..]);
        let custom = body["tools"].as_array().into_iter().flatten().filter(|tool| tool["custom"] == true);
        let custom = custom.filter_map(|tool| tool["name"].as_str().map(str::to_owned)).collect();
        Ok(Self {
            usage_chunk: body["usage_chunk"] == true,
            custom,
            turn_key: sha256_hex([text.as_bytes(), &answered.to_be_bytes()]),
            model,
            stream,
            tools,
            input_tokens: length.div_ceil(4).max(1) as u64,
            marked,
            answered,
            key,
        })
    }
}

fn role(message: &Value) -> &str {
    message["role"].as_str().unwrap_or_default()
}

/// The text of a message; what tools returned is none.
fn text_of(message: &Value) -> String {
    match &message["content"] {
        Value::String(text) => text.clone(),
        Value::Array(blocks) => {
            let texts =
                blocks.iter().filter(|block| block["type"] == "text").filter_map(|block| block["text"].as_str());
            texts.collect::<Vec<_>>().join("\n")
        }
        _ => String::new(),
    }
}

/// Runs of assistant messages that something follows: an unfinished last one is a beginning that we go on with.
fn answers_behind(messages: &[Value]) -> usize {
    let roles: Vec<&str> = messages.iter().map(role).filter(|role| *role != "system").collect();
    roles.windows(2).filter(|pair| pair[0] == "assistant" && pair[1] != "assistant").count()
}

/// The bytes of all strings and numbers of a value: an estimate that is the same for equal prompts.
fn text_length(value: &Value) -> usize {
    match value {
        Value::Null => 0,
        Value::Bool(_) => 1,
        Value::Number(_) => 4,
        Value::String(text) => text.len(),
        Value::Array(values) => values.iter().map(text_length).sum(),
        Value::Object(fields) => fields.iter().map(|(name, value)| name.len() + text_length(value)).sum(),
    }
}

fn check_messages(messages: &[Value]) -> Result<(), Refusal> {
    let first = messages.first().ok_or_else(|| Refusal::invalid("messages: at least one message is required"))?;
    if role(first) != "user" {
        return Err(Refusal::invalid("messages: first message must use the \"user\" role"));
    }
    // Calls that the coming user turn has to answer.
    let mut open: Vec<&str> = Vec::new();
    let mut last_role = "";
    for (at, message) in messages.iter().enumerate() {
        let role = role(message);
        if !matches!(role, "user" | "assistant" | "system") {
            return Err(Refusal::invalid(format!(
                "messages.{at}.role: Input should be 'user', 'assistant' or 'system'"
            )));
        }
        if role == "system" {
            continue;
        }
        if role == "assistant" && last_role == "user" && !open.is_empty() {
            return Err(unanswered(at, &open));
        }
        let blocks = match &message["content"] {
            Value::String(_) => &[],
            Value::Array(blocks) => blocks.as_slice(),
            _ => return Err(Refusal::invalid(format!("messages.{at}.content: Field required"))),
        };
        for (place, block) in blocks.iter().enumerate() {
            match block["type"].as_str() {
                None => return Err(Refusal::invalid(format!("messages.{at}.content.{place}.type: Field required"))),
                Some("tool_use") if role == "assistant" => open.extend(block["id"].as_str()),
                Some("tool_result") => {
                    let id = block["tool_use_id"].as_str().unwrap_or_default();
                    let Some(found) = open.iter().position(|known| *known == id) else {
                        return Err(Refusal::invalid(format!(
                            "messages.{at}.content.{place}: unexpected `tool_use_id` found in `tool_result` blocks: {id}. \
                             Each `tool_result` block must have a corresponding `tool_use` block in the previous message."
                        )));
                    };
                    open.swap_remove(found);
                }
                Some("thinking") => check_signature(at, place, block)?,
                Some(_) => {}
            }
        }
        last_role = role;
    }
    if last_role == "user" && !open.is_empty() {
        return Err(unanswered(messages.len(), &open));
    }
    Ok(())
}

fn unanswered(at: usize, open: &[&str]) -> Refusal {
    Refusal::invalid(format!(
        "messages.{}: `tool_use` ids were found without `tool_result` blocks immediately after: {}.",
        at.saturating_sub(1),
        open.join(", ")
    ))
}

/// Thinking of ours has to come back as we gave it. Of other signatures we know nothing.
fn check_signature(at: usize, place: usize, block: &Value) -> Result<(), Refusal> {
    let said = block["signature"].as_str().unwrap_or_default();
    let text = block["thinking"].as_str().unwrap_or_default();
    if said.starts_with(&signature_start()) && said != signature(text) {
        return Err(Refusal::invalid(format!(
            "messages.{at}.content.{place}: Invalid `signature` in `thinking` block"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<Prompt, Refusal> {
        Prompt::read(body.as_bytes(), Operation::Generate, Dialect::Anthropic)
    }

    #[test]
    fn the_turn_is_counted_from_the_newest_marker() {
        let prompt = read(
            r#"{"model":"m","max_tokens":1,"messages":[
                {"role":"user","content":"[[sim text=old]]"},
                {"role":"assistant","content":"old"},
                {"role":"user","content":[{"type":"text","text":"[[sim tool=A then tool=B then text=c]]"}]},
                {"role":"system","content":"a note"},
                {"role":"assistant","content":[{"type":"tool_use","id":"t1","name":"A","input":{}}]},
                {"role":"user","content":[{"type":"tool_result","tool_use_id":"t1","content":"[[sim text=no]]"}]},
                {"role":"assistant","content":[{"type":"tool_use","id":"t2","name":"B","input":{}}]},
                {"role":"system","content":"another"},
                {"role":"user","content":[{"type":"tool_result","tool_use_id":"t2","content":"x"},{"type":"text","text":"go on"}]}
            ]}"#,
        )
        .unwrap();
        assert_eq!(prompt.answered, 2);
        assert_eq!(prompt.marked.unwrap().unwrap().turns.len(), 3);
    }

    #[test]
    fn rules_of_the_provider_are_enforced() {
        for (body, says) in [
            ("{", "not valid JSON"),
            ("[]", "JSON object"),
            (r#"{"max_tokens":1,"messages":[{"role":"user","content":"a"}]}"#, "model"),
            (r#"{"model":"m","messages":[{"role":"user","content":"a"}]}"#, "max_tokens"),
            (r#"{"model":"m","max_tokens":1,"messages":[]}"#, "at least one"),
            (r#"{"model":"m","max_tokens":1,"messages":[{"role":"assistant","content":"a"}]}"#, "first message"),
            (r#"{"model":"m","max_tokens":1,"stream":"yes","messages":[{"role":"user","content":"a"}]}"#, "stream"),
            (
                r#"{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"a"},{"role":"assistant","content":[{"type":"tool_use","id":"t"}]},{"role":"user","content":"b"}]}"#,
                "without `tool_result`",
            ),
            (
                r#"{"model":"m","max_tokens":1,"messages":[{"role":"user","content":[{"type":"tool_result","tool_use_id":"t"}]}]}"#,
                "unexpected `tool_use_id`",
            ),
        ] {
            let said = read(body).expect_err(body).message;
            assert!(said.contains(says), "{body}: {said}");
        }
    }

    #[test]
    fn changed_thinking_is_refused_if_the_signature_is_ours() {
        let body = |text: &str, signature: &str| {
            format!(
                r#"{{"model":"m","max_tokens":1,"messages":[{{"role":"user","content":"a"}},{{"role":"assistant","content":[{{"type":"thinking","thinking":"{text}","signature":"{signature}"}}]}},{{"role":"user","content":"b"}}]}}"#
            )
        };
        assert!(read(&body("so", &signature("so"))).is_ok());
        assert!(read(&body("so, changed", &signature("so"))).is_err());
        assert!(read(&body("so", "somebody else's")).is_ok());
    }
}
