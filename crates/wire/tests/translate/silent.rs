//! Nothing is left out in silence: what nobody knows is named, or lies in what is named or says nothing by a rule.

use serde_json::{Value, json};
use wire::codec::Target;
use wire::protocol::Protocol;
use wire::transcode;

use crate::support::{requests, targets};

/// What is in these members is the client's own: they are carried as they are.
const OPAQUE: &[&str] = &["input_schema", "parameters", "schema", "input", "arguments"];

/// Objects that say nothing to another provider, whatever is in them: notes for bills and caches, how thinking is shown,
/// what an answer was made of. What may be called has to be a tool of the list, and a grammar is carried or named whole.
const SILENT: &[&str] = &[
    ".cache_control",
    ".prompt_cache_breakpoint",
    ".annotations[]",
    ".input_examples[]",
    ".summary[]",
    ".format",
    ".format.grammar",
    "thinking",
    "metadata",
    "client_metadata",
    "stream_options",
    "tool_choice.tools[]",
    "tool_choice.custom",
    "tool_choice.function",
    "tool_choice.allowed_tools.tools[]",
    "tool_choice.allowed_tools.tools[].function",
];

/// A tool that is known already, and one that is taken away, with what takes it away.
const UNTOLD: &[(&str, &str)] = &[
    ("tools_that_came_later", "input[3].tools[1]"),
    ("system_within", "tools[1]"),
    ("system_within", "messages[4].content[0]"),
];

/// One step into a JSON value.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Member(String),
    Element(usize),
}

pub(crate) fn at<'v>(value: &'v mut Value, path: &[Step]) -> &'v mut Value {
    path.iter().fold(value, |value, step| match step {
        Step::Member(name) => &mut value[name],
        Step::Element(n) => &mut value[n],
    })
}

/// The paths of all objects in a request but those that are the client's own.
pub(crate) fn objects(value: &Value, path: &mut Vec<Step>, found: &mut Vec<Vec<Step>>) {
    match value {
        Value::Object(members) => {
            found.push(path.clone());
            for (name, value) in members {
                // The input of Responses is the conversation.
                if OPAQUE.contains(&&**name) && !(path.is_empty() && name == "input") {
                    continue;
                }
                path.push(Step::Member(name.clone()));
                objects(value, path, found);
                path.pop();
            }
        }
        Value::Array(elements) => {
            for (n, value) in elements.iter().enumerate() {
                path.push(Step::Element(n));
                objects(value, path, found);
                path.pop();
            }
        }
        _ => {}
    }
}

/// The path as losses tell it, and without its numbers.
pub(crate) fn shown(path: &[Step]) -> (String, String) {
    let (mut exact, mut plain) = (String::new(), String::new());
    for step in path {
        match step {
            Step::Member(name) => {
                let dot = if exact.is_empty() { "" } else { "." };
                exact.push_str(&format!("{dot}{name}"));
                plain.push_str(&format!("{dot}{name}"));
            }
            Step::Element(n) => {
                exact.push_str(&format!("[{n}]"));
                plain.push_str("[]");
            }
        }
    }
    (exact, plain)
}

/// What becomes of a request for one upstream.
struct Became {
    to: &'static str,
    body: String,
    /// What is named as lost: paths and reasons.
    lost: Vec<(String, String)>,
}

/// What is sent to an upstream of each other protocol, and what is named as lost; those that are refused are left out.
fn became(from: Protocol, request: &Value) -> Vec<Became> {
    let body = request.to_string();
    let Ok(request) = transcode::inbound(from).unwrap().decode_request(body.as_bytes()) else { return Vec::new() };
    let mut became = Vec::new();
    for to in targets().into_iter().filter(|to| to.protocol != from) {
        let target = Target { model: "m", max_output: to.max_output, quirks: &to.quirks, input_estimate: 7 };
        let encoded = to.upstream().encode_request(&request, &target);
        if encoded.losses.refused().is_none() {
            let lost = encoded.losses.iter().map(|loss| (loss.path.to_string(), loss.reason.to_string())).collect();
            became.push(Became { to: to.name, body: String::from_utf8(encoded.body).unwrap(), lost });
        }
    }
    became
}

#[test]
fn what_nobody_knows_is_named_wherever_it_stands() {
    const PROBE: &str = "nobody_knows_it";
    let (mut looked_at, mut silent) = (0, Vec::new());
    for case in requests() {
        let Ok(whole) = serde_json::from_slice::<Value>(&case.body) else { continue };
        let mut found = Vec::new();
        objects(&whole, &mut Vec::new(), &mut found);
        for path in found {
            let (exact, plain) = shown(&path);
            if UNTOLD.contains(&(&*case.name, &*exact)) {
                continue;
            }
            let is_rule = |rule: &&&str| plain == **rule || rule.starts_with('.') && plain.ends_with(**rule);
            if SILENT.iter().any(|rule| is_rule(&rule)) {
                continue;
            }
            let mut request = whole.clone();
            at(&mut request, &path).as_object_mut().unwrap().insert(PROBE.into(), json!(1));
            for Became { to, body, lost } in became(case.from, &request) {
                looked_at += 1;
                let is_within = |path: &str| {
                    exact.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
                };
                let is_named = lost.iter().any(|(path, _)| path.contains(PROBE) || is_within(path));
                if !is_named && !body.contains(PROBE) {
                    silent.push(format!("{}, for {to}: {exact}", case.name));
                }
            }
        }
    }
    assert!(silent.is_empty(), "{}", silent.join("\n"));
    assert!(looked_at > 1000, "{looked_at}");
}

/// What is named as lost for an upstream.
fn lost(from: Protocol, to: &str, request: &Value) -> Vec<String> {
    let mut became = became(from, request).into_iter();
    let of_it = became.find(|became| became.to == to).expect("it is not refused");
    of_it.lost.into_iter().map(|(path, reason)| format!("{path}: {reason}")).collect()
}

#[test]
fn what_a_search_found_asks_for_quotes_as_documents_do() {
    let found = json!({ "type": "search_result", "source": "s", "title": "t", "citations": { "enabled": true },
        "content": [{ "type": "text", "text": "x" }] });
    let request = json!({ "model": "m", "max_tokens": 9, "messages": [{ "role": "user", "content": [found] }] });
    let want = "messages[0].content[0].citations: the upstream does not say what it quotes";
    assert_eq!(lost(Protocol::AnthropicMessages, "openai", &request), [want]);
}

#[test]
fn the_description_of_a_form_is_named_where_there_is_no_field_for_it() {
    let schema = json!({ "name": "n", "description": "d", "schema": { "type": "object" } });
    let format = json!({ "type": "json_schema", "json_schema": schema });
    let messages = json!([{ "role": "user", "content": "hi" }]);
    let request = json!({ "model": "m", "messages": messages, "response_format": format });
    let want = "response_format.json_schema.description: the upstream takes the schema alone";
    assert!(lost(Protocol::OpenAiChat, "claude", &request).contains(&want.to_owned()));
    assert!(lost(Protocol::OpenAiChat, "responses", &request).is_empty());
}

#[test]
fn a_conversation_that_comes_back_as_it_was_told_loses_nothing() {
    let function = json!({ "name": "f", "arguments": "{}" });
    let call = json!({ "index": 0, "id": "call_1", "type": "function", "function": function });
    let request = json!({ "model": "m", "messages": [
        { "role": "user", "content": "hi" },
        { "role": "assistant", "content": null, "refusal": null, "annotations": [], "audio": null,
            "function_call": null, "tool_calls": [call] },
        { "role": "tool", "tool_call_id": "call_1", "content": "x" },
    ] });
    for to in ["claude", "responses", "ollama"] {
        assert_eq!(lost(Protocol::OpenAiChat, to, &request), [""; 0], "{to}");
    }
}
