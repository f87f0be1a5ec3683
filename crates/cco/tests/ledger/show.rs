//! `cco logs show`: cause and remedy, attempts, heads, bodies.

use serde_json::json;

use crate::common::{Gateway, KEY, contains, prompt, request, streamed, upstream, whole};
use crate::{cco, home, printed, recorded, stop, text};

#[tokio::test]
async fn what_went_wrong_comes_first_then_what_to_do() {
    let upstream = upstream().await;
    let home = home(&upstream, json!({}));
    let gateway = Gateway::start_in(home.path(), &[], &[]).await;
    let fields =
        "x-sim: fault=529\r\nx-claude-code-session-id: s1\r\nx-cco-project: site\r\nx-secret: hidden-value\r\n";
    let failed = gateway.ask(request("POST", "/v1/messages?beta=true", fields, prompt("Hello.", true))).await;
    gateway.ask(whole("text=fine")).await;
    for running in [true, false] {
        let output = cco(home.path(), &["logs", "show", "last-error"]).await;
        let shown = printed(&output);
        let begins = "cause: `anthropic` is overloaded (529): overloaded_error: Overloaded\n\
                      help:  wait and try again, or name another provider in `routing.fallbackChain`\n\n";
        assert!(shown.starts_with(begins), "{running}: {shown}");
        for part in [
            &format!("\n  id        {}\n", failed.id())[..],
            "\n  asked     /v1/messages for claude-sonnet-5-5, as a stream\n",
            "\n  who       session s1, project site\n",
            "\n  outcome   upstream_error, status 529\n",
            "\n  key       …-key\n",
            "\nattempts\n     provider   model              outcome         status",
            "\n  1  anthropic  claude-sonnet-5-5  upstream_error     529",
            "\nrequest's head\n  POST /v1/messages?***\n",
            "\n  x-api-key: ***\n",
            "\n  x-secret: ***\n",
            "\n  x-claude-code-session-id: s1\n",
            "\nanswer's head\n  529 ",
            "\nbodies\n  request: ",
        ] {
            assert!(shown.contains(part), "{running}: `{part}` is not in:\n{shown}");
        }
        for secret in [KEY, "hidden-value", "beta=true"] {
            assert!(!shown.contains(secret), "{shown}");
        }
        let order = ["cause:", "help:", "\nattempts", "\nrequest's head", "\nanswer's head", "\nbodies"];
        let places: Vec<usize> = order.iter().map(|part| shown.find(part).unwrap()).collect();
        assert!(places.is_sorted(), "{places:?}");
        let short = failed.id()[28..].to_owned();
        for word in [failed.id(), &short, &short[..6]] {
            let output = cco(home.path(), &["logs", "show", word, "--json"]).await;
            let row: serde_json::Value = serde_json::from_str(printed(&output)).unwrap();
            assert_eq!(row["id"], failed.id(), "{word}");
        }
        if running {
            gateway.signal("TERM").await;
            gateway.log_line(&["\"stopped\""]).await;
        }
    }
}

#[tokio::test]
async fn the_first_start_says_that_bodies_are_kept_and_how_to_turn_that_off() {
    let upstream = upstream().await;
    let said = "\"the bodies of requests and answers are kept on this machine, encrypted, for 30 days and up to 2 GB: \
                `audit.logRequestBodies` and `audit.logResponseBodies` turn it off\"";
    let kept = home(&upstream, json!({}));
    let off = home(&upstream, json!({ "audit": { "logRequestBodies": false, "logResponseBodies": false } }));
    for (home, first) in [(&kept, true), (&kept, false), (&off, false)] {
        let gateway = Gateway::start_in(home.path(), &[], &[]).await;
        gateway.log_line(&["\"serving\""]).await;
        assert_eq!(gateway.log().contains(said), first, "{}", gateway.log());
        stop(gateway).await;
    }
}

#[tokio::test]
async fn bodies_are_shown_escaped_or_given_byte_for_byte() {
    let upstream = upstream().await;
    let home = home(&upstream, json!({}));
    let gateway = Gateway::start_in(home.path(), &[], &[]).await;
    // A control byte stands in a JSON text escaped; in a comment of a stream it stands as it is.
    let body = prompt("Hello \u{1b}[2J [[sim text=hi]]", true).replace("\\u001b", "\\u001B");
    let answer = gateway.ask(request("POST", "/v1/messages", "", &body)).await;
    for running in [true, false] {
        let raw = cco(home.path(), &["logs", "show", "last", "--request", "--raw"]).await;
        assert_eq!(printed(&raw), body);
        let raw = cco(home.path(), &["logs", "show", "last", "--raw"]).await;
        assert_eq!(raw.stdout, answer.body);
        let shown = cco(home.path(), &["logs", "show", "last", "--request"]).await;
        assert!(printed(&shown).contains("\n  \"max_tokens\": 1000,\n"), "{}", printed(&shown));
        assert!(!contains(&shown.stdout, b"\x1b"));
        let shown = cco(home.path(), &["logs", "show", "last", "--response"]).await;
        assert_eq!(shown.stdout.trim_ascii(), answer.body.trim_ascii(), "a stream is shown as it is");
        if running {
            gateway.signal("TERM").await;
            gateway.log_line(&["\"stopped\""]).await;
        }
    }
}

#[tokio::test]
async fn control_bytes_of_an_answer_are_escaped_unless_they_are_asked_for() {
    let upstream = upstream().await;
    let home = home(&upstream, json!({}));
    let gateway = Gateway::start_in(home.path(), &[], &[]).await;
    // A request that is no JSON goes up as it came, and is kept so.
    let body = "no json \u{1b}[2J\u{7}";
    assert_eq!(gateway.ask(request("POST", "/v1/messages", "", body)).await.status, 400);
    let shown = cco(home.path(), &["logs", "show", "last", "--request"]).await;
    assert_eq!(printed(&shown), "no json \\u{1b}[2J\\u{7}\n");
    let raw = cco(home.path(), &["logs", "show", "last", "--request", "--raw"]).await;
    assert_eq!(printed(&raw), body);
    let shown = cco(home.path(), &["logs", "show", "last"]).await;
    let begins =
        "cause: `anthropic` refused the request (400): invalid_request_error: The request body is not valid JSON";
    assert!(printed(&shown).starts_with(begins), "{}", printed(&shown));
}

#[tokio::test]
async fn a_word_that_means_nothing_or_several_things_is_told() {
    let mut records: Vec<_> = (0..40).map(ledger::sample::record).collect();
    for (n, record) in (0..).zip(&mut records) {
        // The same first digits of the last eight.
        record.id = ledger::record::Id::v7(1_793_491_200_000 + n, 0xabcd_0000 + u128::from(n));
    }
    let home = recorded(&records[..2]);
    let output = cco(home.path(), &["logs", "show", "abcd00"]).await;
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    let both =
        records[..2].iter().all(|record| said.contains(&record.id.short()) && !said.contains(&record.id.to_string()));
    assert!(both && said.contains("error: `abcd00` is more than one: "), "{said}");
    let output = cco(home.path(), &["logs", "show", "abcd0001"]).await;
    assert!(printed(&output).contains(&records[1].id.to_string()));
    let output = cco(home.path(), &["logs", "show", "12345678"]).await;
    assert_eq!(output.status.code(), Some(1));
    let want = "error: no exchange is known as `12345678`\nhelp: `cco logs` lists what there is\n";
    assert!(text(&output.stderr).ends_with(want), "{}", text(&output.stderr));
    let output = cco(home.path(), &["logs", "show", "../../etc"]).await;
    assert_eq!(output.status.code(), Some(2));
    // One that is recorded has no bodies here.
    let output = cco(home.path(), &["logs", "show", "last", "--response"]).await;
    assert!(text(&output.stderr).contains("nothing of it is kept"), "{}", text(&output.stderr));
}

#[tokio::test]
async fn a_key_of_the_archive_that_is_gone_is_named_with_and_without_a_gateway() {
    let upstream = upstream().await;
    let home = home(&upstream, json!({}));
    let gateway = Gateway::start_in(home.path(), &[], &[]).await;
    gateway.ask(whole("text=hi")).await;
    stop(gateway).await;
    std::fs::remove_file(home.path().join("archive.key")).unwrap();
    let all = async || {
        for args in [&["logs", "show", "last", "--request"][..], &["logs", "--grep", "Hello"]] {
            let output = cco(home.path(), args).await;
            let told = text(&output.stderr);
            assert!(!output.status.success() && told.contains("archive.key` is not there"), "{args:?}: {told}");
        }
    };
    all().await;
    let gateway = Gateway::start_in(home.path(), &[], &[]).await;
    all().await;
    let output = cco(home.path(), &["status"]).await;
    assert!(text(&output.stdout).contains("   Archive of bodies: the key `"), "{}", text(&output.stdout));
    stop(gateway).await;
}

#[tokio::test]
async fn bodies_that_are_not_kept_are_not_promised() {
    let upstream = upstream().await;
    let home = home(&upstream, json!({ "audit": { "logRequestBodies": false, "logResponseBodies": false } }));
    let gateway = Gateway::start_in(home.path(), &[], &[]).await;
    gateway.ask(streamed("text=hi")).await;
    let output = cco(home.path(), &["logs", "show", "last"]).await;
    assert!(printed(&output).starts_with("cause: `anthropic` answered, and ended with `end_turn`\n"));
    assert!(!printed(&output).contains("bodies") && !printed(&output).contains("head"), "{}", printed(&output));
    stop(gateway).await;
}
