//! Conversations of several turns: a tool loop, a sub-agent, retries, and the queue.

use serde_json::{Value, json};
use sim::{Script, SimConfig};

use crate::client::{Server, body, request, start, streamed, whole};

/// Sends a conversation; appends the answer to it.
async fn turn(server: &Server, messages: &mut Vec<Value>, tools: &[&str]) -> Value {
    let tools: Vec<Value> =
        tools.iter().map(|name| json!({"name": name, "input_schema": {"type": "object"}})).collect();
    let body = json!({"model": "m", "max_tokens": 9, "stream": true, "messages": messages, "tools": tools});
    let message = server.ask(&request("POST", "/v1/messages?beta=true", "", &body.to_string())).await.message();
    messages.push(json!({"role": "assistant", "content": message["content"]}));
    message
}

fn results(message: &Value, text: &str) -> Value {
    let calls = message["content"].as_array().unwrap().iter().filter(|block| block["type"] == "tool_use");
    let results = calls.map(|call| json!({"type": "tool_result", "tool_use_id": call["id"], "content": text}));
    json!({"role": "user", "content": results.collect::<Vec<_>>()})
}

#[tokio::test]
async fn a_tool_loop_follows_its_script_turn_by_turn() {
    let server = start(SimConfig::default()).await;
    let marker = r#"[[sim thinking=hm tool=Read input={"file_path":"/a"} tool=Read input={"file_path":"/b"}
        then text="once more" tool=Bash input={"command":"ls"} then text="all done"]]"#;
    let mut messages = vec![
        json!({"role": "user", "content": [{"type": "text", "text": "a reminder"}, {"type": "text", "text": marker}]}),
    ];
    // As the real client does: a note of the system between the turns.
    messages.push(json!({"role": "system", "content": "an environment"}));
    let first = turn(&server, &mut messages, &["Read", "Bash"]).await;
    assert_eq!(first["stop_reason"], "tool_use");
    assert_eq!(
        (&first["content"][1]["input"], &first["content"][2]["input"]),
        (&json!({"file_path": "/a"}), &json!({"file_path": "/b"}))
    );
    assert_ne!(first["content"][1]["id"], first["content"][2]["id"]);
    messages.push(results(&first, "the file says [[sim text=nothing]]"));
    let second = turn(&server, &mut messages, &["Read", "Bash"]).await;
    assert_eq!((&second["content"][0]["text"], &second["content"][1]["name"]), (&json!("once more"), &json!("Bash")));
    messages.push(results(&second, "a b c"));
    let third = turn(&server, &mut messages, &["Read", "Bash"]).await;
    assert_eq!((&third["content"][0]["text"], &third["stop_reason"]), (&json!("all done"), &json!("end_turn")));
    // A new prompt without a marker goes on with the last turn; one with a marker begins anew.
    messages.push(json!({"role": "user", "content": "and now?"}));
    assert_eq!(turn(&server, &mut messages, &["Read"]).await["content"][0]["text"], "all done");
    messages.push(json!({"role": "user", "content": "[[sim text=anew]]"}));
    assert_eq!(turn(&server, &mut messages, &["Read"]).await["content"][0]["text"], "anew");
}

#[tokio::test]
async fn a_sub_agent_follows_the_marker_in_its_own_prompt() {
    let server = start(SimConfig::default()).await;
    let marker = r#"[[sim tool=Agent|Task input={"description":"look","prompt":"find it [[sim tool=Grep input={\"pattern\":\"x\"} then text=\"found it\"]]"} then text="the agent is back"]]"#;
    let mut main = vec![json!({"role": "user", "content": marker})];
    let call = turn(&server, &mut main, &["Task", "Read"]).await;
    assert_eq!(call["content"][0]["name"], "Task", "the first name that the request offers");
    // The client starts the sub-agent with the prompt that the tool was called with.
    let mut sub = vec![json!({"role": "user", "content": call["content"][0]["input"]["prompt"]})];
    let grep = turn(&server, &mut sub, &["Grep"]).await;
    assert_eq!(grep["content"][0]["name"], "Grep");
    sub.push(results(&grep, "x:1"));
    let answer = turn(&server, &mut sub, &["Grep"]).await;
    assert_eq!(answer["content"][0]["text"], "found it");
    main.push(results(&call, answer["content"][0]["text"].as_str().unwrap()));
    assert_eq!(turn(&server, &mut main, &["Task", "Read"]).await["content"][0]["text"], "the agent is back");
}

#[tokio::test]
async fn a_tool_that_is_not_offered_is_not_called() {
    let server = start(SimConfig::default()).await;
    let mut messages = vec![json!({"role": "user", "content": "[[sim tool=Read]]"})];
    let message = turn(&server, &mut messages, &["Bash"]).await;
    assert_eq!(message["stop_reason"], "end_turn");
    assert!(message["content"][0]["text"].as_str().unwrap().contains("`Read`"));
    // A request without any list of tools is a test's: it gets what it asks for.
    assert_eq!(server.ask(&streamed("[[sim tool=Read]]")).await.message()["stop_reason"], "tool_use");
}

#[tokio::test]
async fn a_fault_that_goes_some_times_lets_the_retry_through() {
    let server = start(SimConfig::default()).await;
    let marker = "[[sim fault=529 times=2 text=at-last]]";
    assert_eq!(server.ask(&streamed(marker)).await.status, 529);
    // A client changes other things between its attempts, such as the form of the answer.
    assert_eq!(server.ask(&whole(marker)).await.status, 529);
    assert_eq!(server.ask(&streamed(marker)).await.message()["content"][0]["text"], "at-last");
    assert_eq!(server.ask(&streamed("[[sim fault=529 times=2 text=other]]")).await.status, 529);

    let by_header = request("POST", "/v1/messages", "x-sim-fault: 500 times=1\r\n", &body("[[sim text=x]]", false));
    assert_eq!(server.ask(&by_header).await.status, 500);
    assert_eq!(server.ask(&by_header).await.json()["content"][0]["text"], "x");
}

#[tokio::test]
async fn queue_header_marker_and_default_stand_in_this_order() {
    let default: Script = "text=default".parse().unwrap();
    let server = start(SimConfig { default, default_for: Some(2), ..SimConfig::default() }).await;
    let text = async |more: &str, prompt: &str| {
        let response = server.ask(&request("POST", "/v1/messages", more, &body(prompt, false))).await;
        response.json()["content"][0]["text"].as_str().unwrap_or("an error").to_owned()
    };
    assert_eq!(server.sim.script(vec!["text=q1 then text=q2".parse().unwrap()]), 0);
    let header = "x-sim: text=\"by header\"\r\n";
    assert_eq!(text(header, "[[sim text=m]]").await, "q1");
    assert_eq!(text(header, "[[sim text=m]]").await, "q2");
    assert_eq!(text(header, "[[sim text=m]]").await, "by header");
    assert_eq!(text("", "[[sim text=m]]").await, "m");
    assert_eq!(text("x-sim-fault: 401\r\n", "[[sim text=m]]").await, "an error");
    assert_eq!(text("", "plain").await, "default");
    assert_eq!(text("", "plain").await, "default");
    assert!(text("", "plain").await.starts_with("Hello!"), "the default went for two requests");
    let left_out = server.sim.script(vec!["text=x".parse().unwrap(); 5000]);
    assert_eq!(left_out, 5000 - 4096);
}
