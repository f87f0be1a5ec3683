//! Whose key goes where: to no vendor but its own, and what is said of a key to no one but its owner.

use serde_json::{Value, json};

use crate::common::client::{BODY, get, post};
use crate::common::pipes::{House, Step, in_house, once, peer, send};

/// An answer of an upstream's with this status and body.
fn answer(status: &str, body: &str) -> Step {
    send(format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    ))
}

const MESSAGE: &str = r#"{"type":"message","role":"assistant","model":"m","content":[{"type":"text","text":"hi"}],"stop_reason":"end_turn","usage":{"input_tokens":1,"output_tokens":2}}"#;
const CHAT: &str = r#"{"id":"c","object":"chat.completion","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#;
/// What OpenAI says of a wrong key quotes a part of it.
const WRONG_KEY: &str = r#"{"error":{"message":"Incorrect API key provided: sk-other","type":"invalid_request_error","param":null,"code":"invalid_api_key"}}"#;

/// These providers in place of the house's own; the first is the default.
fn providers(settings: &mut Value, all: &[(&str, Value)]) {
    settings["providers"] = json!({});
    for (name, provider) in all {
        settings["providers"][*name] = provider.clone();
        settings["providers"][*name]["baseUrl"] = format!("http://{name}.test").into();
    }
    settings["routing"]["defaultProvider"] = all[0].0.into();
    once(settings);
}

/// What the scripted upstream at this place of the order got.
fn head(house: &House, at: usize) -> String {
    let seen = house.seen.borrow()[at].text();
    seen.split("\r\n\r\n").next().unwrap().to_ascii_lowercase()
}

fn chat(fields: &str) -> Vec<u8> {
    post("/v1/chat/completions", fields, r#"{"model":"gpt-5","messages":[{"role":"user","content":"hi"}]}"#)
}

#[tokio::test(start_paused = true)]
async fn a_key_of_one_vendor_is_not_sent_to_another() {
    let edit = |settings: &mut Value| {
        providers(settings, &[("deepseek", json!({ "apiKeyRef": "env:OTHER_KEY", "defaultModel": "deepseek-chat" }))]);
    };
    for key in ["authorization: Bearer sk-ant-oat01-callers-own", "x-api-key: sk-ant-api03-callers-own"] {
        in_house(edit, async |house| {
            house.script([Step::Request, answer("200 OK", MESSAGE)]);
            let request = post("/v1/messages", &format!("{key}\r\n"), BODY);
            assert_eq!(house.client().ask(&request).await.status, 200);
            let sent = head(house, 0);
            assert!(sent.contains("sk-other-key") && !sent.contains("sk-ant-"), "{sent}");
            // Who may spend nothing else is told what is missing.
            let refused = house.client_as(peer("127.0.0.1:40000", false)).ask(&request).await;
            let (kind, message) = refused.refusal();
            assert_eq!((refused.status, &*kind), (401, "authentication_error"));
            assert!(message.contains("`anthropic`") && !message.contains("sk-ant-"), "{message}");
            assert_eq!((refused.header("x-should-retry"), house.dialed()), (Some("false"), 1));
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_of_openai_goes_to_openai_though_another_is_the_default() {
    let edit = |settings: &mut Value| {
        providers(settings, &[("anthropic", json!({})), ("openai", json!({ "apiKeyRef": "env:OTHER_KEY" }))]);
        settings["routing"]["fallbackChain"] = json!(["anthropic", "openai"]);
    };
    in_house(edit, async |house| {
        house.script([Step::Request, answer("200 OK", CHAT)]);
        let stranger = peer("127.0.0.1:40000", false);
        let reply = house.client_as(stranger).ask(chat("authorization: Bearer sk-proj-callers-own\r\n")).await;
        assert_eq!((reply.status, reply.header("x-cco-provider")), (200, Some("openai")), "{}", reply.text());
        let sent = head(house, 0);
        assert!(sent.contains("host: openai.test") && sent.contains("bearer sk-proj-callers-own"), "{sent}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_wrong_key_of_ours_is_told_as_ours_whatever_was_asked() {
    let edit = |settings: &mut Value| providers(settings, &[("anthropic", json!({ "apiKeyRef": "env:OTHER_KEY" }))]);
    let batch = r#"{"requests":[]}"#;
    let uploads = [post("/v1/messages/batches", "", batch), post("/v1/files", "", "data"), get("/v1/files/x", "")];
    for request in uploads {
        in_house(edit, async |house| {
            house.script([Step::Request, answer("401 Unauthorized", WRONG_KEY)]);
            let reply = house.client().ask(&request).await;
            assert_eq!((reply.status, reply.header("x-should-retry")), (502, Some("false")), "{}", reply.text());
            assert!(reply.text().contains("does not accept the gateway's key") && !reply.text().contains("sk-other"));
            assert_eq!(
                (reply.header("x-cco-provider"), reply.header("x-cco-attempts")),
                (Some("anthropic"), Some("1"))
            );
        })
        .await;
    }
    in_house(edit, async |house| {
        let refused = "HTTP/1.1 401 Unauthorized\r\nconnection: close\r\ncontent-length: 9\r\n\r\n";
        house.script([Step::Request, send(refused)]);
        let mut client = house.client();
        client.send(String::from_utf8(get("/v1/models", "")).unwrap().replacen("GET", "HEAD", 1)).await;
        assert_eq!(client.reply_to("HEAD").await.status, 502);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_wrong_key_of_the_callers_is_told_as_the_callers_where_it_is_translated_too() {
    // Anthropic's client at a provider that speaks Chat Completions, and the other way round.
    let own = "x-api-key: callers-own\r\n";
    for (provider, request) in [
        (json!({ "providerType": "openai-compatible", "defaultModel": "m" }), post("/v1/messages", own, BODY)),
        (
            json!({ "providerType": "anthropic-compatible", "defaultModel": "m" }),
            chat("authorization: Bearer callers-own\r\n"),
        ),
    ] {
        let edit = |settings: &mut Value| providers(settings, &[("other", provider.clone())]);
        in_house(edit, async |house| {
            house.script([Step::Request, answer("401 Unauthorized", WRONG_KEY)]);
            let reply = house.client().ask(&request).await;
            assert_eq!(reply.status, 401, "{}", reply.text());
            assert!(head(house, 0).contains("callers-own"));
        })
        .await;
    }
}

/// A history with reasoning that nobody signed.
const UNSIGNED: &str = r#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"a"},{"role":"assistant","content":[{"type":"thinking","thinking":"hm","signature":""},{"type":"text","text":"b"}]},{"role":"user","content":"c"}]}"#;

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_sign_gets_its_own_reasoning_back() {
    for (kind, stays) in [("anthropic-compatible", true), ("anthropic", false)] {
        let edit = |settings: &mut Value| {
            let provider = json!({ "providerType": kind, "apiKeyRef": "env:OTHER_KEY" });
            providers(settings, &[("first", provider.clone()), ("second", provider)]);
            settings["routing"]["fallbackChain"] = json!(["first", "second"]);
        };
        in_house(edit, async |house| {
            house.script([Step::Request, answer("503 Service Unavailable", "{}")]);
            house.script([Step::Request, answer("200 OK", MESSAGE)]);
            let reply = house.client().ask(post("/v1/messages", "", UNSIGNED)).await;
            assert_eq!((reply.status, reply.header("x-cco-attempts")), (200, Some("2")));
            for seen in house.seen.borrow().iter() {
                let body = seen.text().split_once("\r\n\r\n").unwrap().1.to_string();
                assert_eq!(body == UNSIGNED, stays, "{kind}: {body}");
                assert_eq!(body.contains("hm"), stays);
            }
            let place = "messages[1].content[0]";
            assert_eq!(reply.header("x-cco-loss"), (!stays).then_some(place));
            let losses = &house.records()[0].losses;
            assert_eq!(losses.iter().map(|loss| loss.starts_with(place)).collect::<Vec<_>>(), vec![true; losses.len()]);
            assert_eq!(losses.len(), usize::from(!stays), "{losses:?}");
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn credentials_under_other_names_go_to_the_callers_own_provider_alone() {
    let edit = |settings: &mut Value| {
        let other = json!({ "providerType": "anthropic-compatible", "apiKeyRef": "env:OTHER_KEY" });
        providers(settings, &[("anthropic", json!({})), ("second", other)]);
        settings["routing"]["fallbackChain"] = json!(["anthropic", "second"]);
    };
    in_house(edit, async |house| {
        house.script([Step::Request, answer("503 Service Unavailable", "{}")]);
        house.script([Step::Request, answer("200 OK", MESSAGE)]);
        let fields = "x-api-key: sk-ant-api03-callers-own\r\ncf-aig-authorization: Bearer canary\r\nx-portkey-api-key: canary\r\n";
        assert_eq!(house.client().ask(post("/v1/messages", fields, BODY)).await.status, 200);
        let canaries: Vec<usize> = (0..2).map(|at| head(house, at).matches("canary").count()).collect();
        assert_eq!(canaries, [2, 0]);
    })
    .await;
}
