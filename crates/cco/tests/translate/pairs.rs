//! Every client is served by every provider.

use serde_json::{Value, json};

use crate::common::upstream;
use crate::{Client, PROVIDERS, PROVIDERS_KEY, gateway, gateway_of, post, provider};

const SAYS: &str =
    "[[sim text=\"Hello there\" tool=f input={\"x\":1.5} input_tokens=123 output_tokens=45 then text=\"All done\"]]";

#[tokio::test]
async fn every_client_is_served_by_every_provider_streamed_and_whole() {
    let upstream = upstream().await;
    for (name, path) in PROVIDERS {
        let gateway = gateway_of(name, &upstream).await;
        for client in Client::ALL {
            for stream in [true, false] {
                let answer = client.ask(&gateway, &client.body(SAYS, stream)).await;
                let at = format!("{client:?} at {name}, stream {stream}: {}", answer.text());
                assert_eq!(answer.status, 200, "{at}");
                let kind = if stream { "text/event-stream" } else { "application/json" };
                assert!(answer.header("content-type").unwrap().starts_with(kind), "{at}");
                assert_eq!(answer.header("x-cco-provider"), Some(*name), "{at}");
                let (text, arguments, input, output) = client.read(&answer, stream);
                assert_eq!((&*text, &*arguments, input, output), ("Hello there", "{\"x\":1.5}", 123, 45), "{at}");
                let sent = upstream.last_ended().await;
                let body: Value = serde_json::from_slice(&sent.body).unwrap();
                if client == Client::Anthropic {
                    assert_eq!(sent.target.split('?').next(), Some(*path), "{at}");
                }
                // A deployment is what an Azure resource has instead of models.
                let model = if name.starts_with("azure") { "d" } else { "asked-model" };
                assert_eq!(body["model"], model, "{at}: {body}");
                let key = sent.headers.iter().find(|(_, value)| String::from_utf8_lossy(value).contains(PROVIDERS_KEY));
                assert_eq!(key.is_some(), *name != "ollama", "{at}: {:?}", sent.headers);
            }
        }
        // What was used is in the ledger as the upstream said it.
        let metrics = gateway.ask(crate::get("/gateway/metrics")).await.json();
        let text = metrics.to_string();
        assert!(text.contains(&(6 * 123).to_string()) && text.contains(&(6 * 45).to_string()), "{name}: {text}");
    }
}

#[tokio::test]
async fn a_deployment_is_asked_whatever_model_the_client_names() {
    let upstream = upstream().await;
    for name in ["azure", "azure-dated"] {
        let mut azure = provider(name, &upstream);
        azure.as_object_mut().unwrap().remove("defaultModel");
        let gateway = gateway(&[(name, azure)], json!({})).await;
        for client in Client::ALL {
            for asked in ["claude-opus-5-5", "gpt-5", "mine"] {
                let mut body = client.body(SAYS, true);
                body["model"] = asked.into();
                let answer = client.ask(&gateway, &body).await;
                assert_eq!(answer.status, 200, "{asked} of {client:?} at {name}: {}", answer.text());
                let sent: Value = serde_json::from_slice(&upstream.last_ended().await.body).unwrap();
                assert_eq!(sent["model"], "d", "{asked} of {client:?} at {name}: {sent}");
            }
        }
    }
}

#[tokio::test]
async fn a_tool_loop_of_an_anthropic_client_comes_to_its_end_at_every_provider() {
    let upstream = upstream().await;
    for (name, _) in PROVIDERS {
        let gateway = gateway_of(name, &upstream).await;
        let mut body = Client::Anthropic.body(
            "[[sim thinking=\"I look\" text=\"Looking.\" tool=f input={\"x\":1} tool=f input={\"x\":2} then thinking=\"I saw\" text=\"All done\"]]",
            false,
        );
        let first = Client::Anthropic.ask(&gateway, &body).await;
        assert_eq!(first.status, 200, "{name}: {}", first.text());
        let content = first.json()["content"].clone();
        let calls: Vec<&Value> =
            content.as_array().unwrap().iter().filter(|block| block["type"] == "tool_use").collect();
        assert_eq!((calls.len(), &first.json()["stop_reason"]), (2, &json!("tool_use")), "{name}: {content}");
        let results: Vec<Value> = calls
            .iter()
            .map(|call| json!({ "type": "tool_result", "tool_use_id": call["id"], "content": "42" }))
            .collect();
        let turns = body["messages"].as_array_mut().unwrap();
        turns.extend([
            json!({ "role": "assistant", "content": content }),
            json!({ "role": "user", "content": results }),
        ]);
        let second = Client::Anthropic.ask(&gateway, &body).await;
        assert!(second.text().contains("All done"), "{name}: {}", second.text());
    }
}

#[tokio::test]
async fn a_session_survives_a_switch_of_providers_with_thinking_in_its_history() {
    let upstream = upstream().await;
    let claude = gateway_of("anthropic", &upstream).await;
    let openai = gateway_of("openai", &upstream).await;
    let mut body = Client::Anthropic
        .body("[[sim thinking=one text=a then thinking=two text=b then thinking=three text=c]]", false);
    for (gateway, text) in [(&claude, "a"), (&openai, "b"), (&claude, "c")] {
        let answer = Client::Anthropic.ask(gateway, &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let content = answer.json()["content"].clone();
        assert_eq!(content[1]["text"], text, "{content}");
        assert!(content[0]["signature"].as_str().is_some_and(|signature| !signature.is_empty()), "{content}");
        let turns = body["messages"].as_array_mut().unwrap();
        turns.extend([
            json!({ "role": "assistant", "content": content }),
            json!({ "role": "user", "content": "go on" }),
        ]);
    }
    // Claude was sent its own thinking, and not that of the other.
    let sent = String::from_utf8(upstream.last_ended().await.body.to_vec()).unwrap();
    assert!(sent.contains("\"thinking\":\"one\"") && !sent.contains("\"two\"") && !sent.contains("cco1:"), "{sent}");
}

#[tokio::test]
async fn thinking_without_a_signature_goes_back_to_nobody_who_asks_claude() {
    let upstream = upstream().await;
    for (name, model, stays) in [
        ("openrouter", "anthropic/claude-opus-5-5", false),
        ("openrouter", "deepseek/deepseek-v4-pro", true),
        ("deepseek", "deepseek-v4-pro", true),
        ("anthropic", "claude-opus-5-5", false),
    ] {
        let gateway = gateway_of(name, &upstream).await;
        let mut body = Client::Anthropic.body("[[sim text=x]]", false);
        body["model"] = model.into();
        body["messages"].as_array_mut().unwrap().extend([
            json!({ "role": "assistant", "content": [
                { "type": "thinking", "thinking": "unsigned", "signature": "" }, { "type": "text", "text": "y" }] }),
            json!({ "role": "user", "content": "go on" }),
        ]);
        Client::Anthropic.ask(&gateway, &body).await;
        let sent = String::from_utf8(upstream.last_ended().await.body.to_vec()).unwrap();
        assert_eq!(sent.contains("unsigned"), stays, "{name} {model}: {sent}");
    }
}

#[tokio::test]
async fn between_equal_protocols_of_openai_the_bytes_pass_untouched() {
    let upstream = upstream().await;
    let provider = json!({ "baseUrl": format!("http://{}", upstream.addr), "apiKeyRef": "env:PROVIDERS_KEY", "providerType": "openai" });
    let gateway = gateway(&[("openai", provider)], json!({})).await;
    for (client, model) in [(Client::Chat, "gpt-5.1"), (Client::Responses, "gpt-6.1-sol")] {
        for stream in [true, false] {
            let mut body = client.body(SAYS, stream);
            body["model"] = model.into();
            let text = format!(" {body} ");
            let answer = gateway.ask(post(client.path(), "", &text)).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            let sent = upstream.last_ended().await;
            assert_eq!(String::from_utf8_lossy(&sent.body), text);
            let mut direct = crate::common::Client::connect(upstream.addr).await;
            let straight = direct.ask(post(client.path(), "", &text)).await;
            assert_eq!(String::from_utf8_lossy(&answer.body), String::from_utf8_lossy(&straight.body));
            assert_eq!(answer.header("openai-organization"), Some("org-simulator"));
        }
    }
    let metrics = gateway.ask(crate::get("/gateway/metrics")).await.text().to_owned();
    assert!(metrics.contains(&(4 * 123).to_string()), "usage is read in passing: {metrics}");
}

#[tokio::test]
async fn what_cannot_be_carried_is_named_or_refused() {
    let upstream = upstream().await;
    let warns = gateway_of("openai-compatible", &upstream).await;
    let mut body = Client::Anthropic.body("[[sim text=x]]", false);
    body["top_k"] = json!(5);
    let answer = Client::Anthropic.ask(&warns, &body).await;
    assert_eq!((answer.status, answer.header("x-cco-loss")), (200, Some("top_k")), "{}", answer.text());
    let kind = ("openai-compatible", provider("openai-compatible", &upstream));
    let refuses = gateway(&[kind], json!({ "translation": { "onLoss": "refuse" } })).await;
    let before = upstream.sim.requests().len();
    let refused = Client::Anthropic.ask(&refuses, &body).await;
    assert!(refused.refusal(400, "invalid_request_error").contains("top_k"));
    let two = json!({ "model": "m", "n": 2, "messages": [{ "role": "user", "content": "x" }] });
    let claude = gateway_of("anthropic", &upstream).await;
    let refused = Client::Chat.ask(&claude, &two).await;
    assert_eq!((refused.status, &refused.json()["error"]["param"]), (400, &json!("n")), "{}", refused.text());
    assert_eq!(upstream.sim.requests().len(), before, "nothing of it was sent");
}

#[tokio::test]
async fn prompts_are_counted_where_the_provider_does_not() {
    let upstream = upstream().await;
    let gateway = gateway_of("ollama", &upstream).await;
    let body = json!({ "model": "m", "messages": [{ "role": "user", "content": "how many tokens is this?" }] });
    let head = "anthropic-version: 2023-06-01\r\n";
    let answer = gateway.ask(post("/v1/messages/count_tokens", head, &body.to_string())).await;
    assert_eq!((answer.status, answer.header("x-cco-loss")), (200, Some("input_tokens")));
    assert!((5..12).contains(&answer.json()["input_tokens"].as_u64().unwrap()), "{}", answer.text());
    assert_eq!(upstream.sim.requests().len(), 0);
}

#[tokio::test]
async fn what_is_not_translated_is_not_found_and_says_what_it_takes() {
    let upstream = upstream().await;
    let gateway = gateway_of("ollama", &upstream).await;
    for (path, protocol) in [
        ("/v1/responses/compact", "openai-responses"),
        ("/v1/embeddings", "openai-chat"),
        ("/v1/messages/batches", "anthropic"),
    ] {
        let answer = gateway.ask(post(path, "", "{}")).await;
        assert_eq!(answer.status, 404, "{path}: {}", answer.text());
        let error = answer.json()["error"].clone();
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(&format!("speaks `{protocol}` itself")), "{path}: {error}");
        assert!(
            message.contains("`ollama`") && matches!(error["code"].as_str(), None | Some("unknown_url")),
            "{path}: {error}"
        );
    }
    // Where one speaks it, it passes unread.
    let openai = gateway_of("openai", &upstream).await;
    let answer = openai.ask(post("/v1/responses/compact", "", "{}")).await;
    assert!(!answer.text().contains("not translated"), "{}", answer.text());
    assert_eq!(upstream.last_ended().await.target, "/v1/responses/compact");
}

#[tokio::test]
async fn a_prompt_that_only_warms_a_cache_is_answered_by_ourselves() {
    let upstream = upstream().await;
    let gateway = gateway_of("vllm", &upstream).await;
    let mut body = Client::Anthropic.body("warm", false);
    body["max_tokens"] = json!(0);
    let answer = Client::Anthropic.ask(&gateway, &body).await;
    assert_eq!((answer.status, &answer.json()["content"]), (200, &json!([])), "{}", answer.text());
    assert_eq!(upstream.sim.requests().len(), 0);
}

#[tokio::test]
async fn models_are_listed_in_the_callers_shape_where_no_provider_does() {
    let upstream = upstream().await;
    let mut ollama = provider("ollama", &upstream);
    ollama["modelAliases"] = json!({ "claude-haiku-5-5": "small", "gpt-*": "large" });
    let gateway = gateway(&[("ollama", ollama)], json!({})).await;
    let ids =
        |body: &Value| body["data"].as_array().unwrap().iter().map(|model| model["id"].clone()).collect::<Vec<_>>();
    let list = |version: &str, path: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nauthorization: Bearer cco\r\n{version}\r\n")
    };
    let anthropic = gateway.ask(list("anthropic-version: 2023-06-01\r\n", "/v1/models?limit=1000")).await.json();
    assert_eq!(
        (ids(&anthropic), &anthropic["has_more"]),
        (vec![json!("their-model"), json!("claude-haiku-5-5")], &json!(false))
    );
    let openai = gateway.ask(list("", "/v1/models")).await.json();
    assert_eq!((&openai["object"], &openai["data"][0]["owned_by"]), (&json!("list"), &json!("ollama")));
    let one = gateway.ask(list("", "/v1/models/their-model")).await.json();
    assert_eq!(one["object"], "model");
    assert_eq!(gateway.ask(list("", "/v1/models/none")).await.status, 404);
    // Somebody else has a list of its own, but is not asked.
    let beside = [("ollama", provider("ollama", &upstream)), ("anthropic", provider("anthropic", &upstream))];
    let routing = json!({ "routing": { "fallbackChain": [] } });
    let gateway = crate::gateway(&beside, routing).await;
    let anthropic = gateway.ask(list("anthropic-version: 2023-06-01\r\n", "/v1/models")).await;
    assert_eq!((anthropic.status, ids(&anthropic.json())), (200, vec![json!("their-model")]), "{}", anthropic.text());
    assert_eq!(upstream.sim.requests().len(), 0);
}

#[tokio::test]
async fn whoever_watches_sees_what_a_translated_answer_says() {
    let upstream = upstream().await;
    let gateway = gateway_of("ollama", &upstream).await;
    let mut viewer = gateway.client().await;
    let token = std::fs::read_to_string(gateway.home().join("admin-token")).unwrap();
    let ask = "GET /api/streams/subscribe HTTP/1.1\r\nHost: localhost\r\nauthorization: Bearer ";
    viewer.send(format!("{ask}{}\r\n\r\n", token.trim())).await;
    let mut seen = viewer.head().await;
    assert_eq!(seen.status, 200);
    viewer.read_until(&mut seen, ": watching\n\n").await;
    let answer = Client::Anthropic.ask(&gateway, &Client::Anthropic.body("[[sim text=\"seen by all\"]]", true)).await;
    assert_eq!(answer.status, 200);
    viewer.read_until(&mut seen, "event: completed").await;
    let text = String::from_utf8_lossy(&seen.body).into_owned();
    assert!(text.contains("event: started") && text.contains("\"seen \"") && text.contains("\"all\""), "{text}");
}
