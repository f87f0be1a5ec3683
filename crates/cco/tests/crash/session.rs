//! An agent's session, which sends its whole context again with every turn: what the archive makes of it.

use std::collections::HashMap;
use std::path::Path;

use ledger::archive::{Kind, Reader};
use serde_json::{Value, json};

use crate::account::rows;
use crate::common::dice::Dice;
use crate::common::{Client, Gateway, request, upstream};
use crate::simulator::TAG;

const TURNS: usize = 100;
/// The last request has about this many bytes.
const LAST: usize = 500_000;

/// Lines that look like a program: every one is new, and words come again.
fn code(dice: &mut Dice, bytes: usize) -> String {
    const WORDS: &[&str] = &[
        "self", "let", "match", "record", "client", "answer", "upstream", "fn", "return", "Some", "None", "Result",
        "await", "stream", "journal", "bytes", "header", "for", "in", "if", "else", "mut", "impl", "struct", "buffer",
        "position",
    ];
    let mut text = String::new();
    while text.len() < bytes {
        text.push_str(&" ".repeat(4 * dice.below(4) as usize));
        for _ in 0..3 + dice.below(6) {
            text.push_str(dice.pick::<&str>(WORDS));
            text.push_str(dice.pick::<&str>(&[" ", ".", "(", ") ", " = ", "::", ", "]));
        }
        text.push_str(&format!("{}; // {}\n", dice.word(6), dice.number() % 1000));
    }
    text
}

/// Every file of the archive but the room that it keeps in reserve.
fn archived(folder: &Path) -> u64 {
    let files = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    files.filter(|file| file.file_name() != "reserve").map(|file| file.metadata().unwrap().len()).sum()
}

#[tokio::test]
async fn a_session_of_a_hundred_turns_takes_a_twentieth_of_its_bytes_and_every_body_is_read_back() {
    let upstream = upstream().await;
    let mut gateway = Gateway::start(&upstream, json!({})).await;
    let mut dice = Dice::new(100);
    let tools: Vec<Value> = (0..20)
        .map(|n| json!({ "name": format!("Tool{n}"), "description": code(&mut dice, 1500), "input_schema": { "type": "object" } }))
        .collect();
    let system = json!([{ "type": "text", "text": code(&mut dice, 15_000), "cache_control": { "type": "ephemeral" } }]);
    let mut messages = vec![json!({ "role": "user", "content": "Find what is slow, and say why." })];
    let grow = (LAST - 50_000) / TURNS;
    let (mut sent, mut raw) = (HashMap::new(), 0_u64);
    let mut client = Client::connect(gateway.addr).await;
    for turn in 0..TURNS {
        // The mark of what is to be cached moves on with every turn, as agents do it.
        let mut marked = messages.clone();
        marked.last_mut().unwrap()["cache_control"] = json!({ "type": "ephemeral" });
        let body = json!({
            "model": "claude-sonnet-5-5", "max_tokens": 32_000, "stream": true,
            "system": system, "tools": tools, "messages": marked,
        })
        .to_string();
        let tag = format!("turn-{turn}");
        let fields = format!("{TAG}: {tag}\r\nx-sim: events=120 size=12\r\n");
        let answer = client.ask(request("POST", "/v1/messages", &fields, &body)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        raw += (body.len() + answer.body.len()) as u64;
        let call = json!({ "type": "tool_use", "id": format!("t{turn}"), "name": "Tool1", "input": { "path": code(&mut dice, grow / 4) } });
        messages.push(
            json!({ "role": "assistant", "content": [{ "type": "text", "text": code(&mut dice, grow / 8) }, call] }),
        );
        let result =
            json!({ "type": "tool_result", "tool_use_id": format!("t{turn}"), "content": code(&mut dice, grow / 2) });
        messages.push(json!({ "role": "user", "content": [result] }));
        sent.insert(tag, (body.into_bytes(), answer.body));
    }
    let longest = sent.values().map(|(request, _)| request.len()).max().unwrap();
    assert!((LAST * 9 / 10..LAST * 12 / 10).contains(&longest), "the last request has {longest} bytes");
    let skipped = gateway.health().await["bodies"]["skipped"].clone();
    assert!(skipped.as_object().unwrap().values().all(|n| *n == 0), "{skipped}");
    gateway.stop().await;

    let (archive, home) = (gateway.home().join("archive"), gateway.home());
    let reader = Reader::open(&archive, &home.join("archive.key")).unwrap();
    let rows = rows(home);
    assert_eq!(rows.len(), TURNS);
    for (tag, row) in &rows {
        let id = u128::from_str_radix(&row.id, 16).unwrap().to_be_bytes();
        let read = |kind| {
            reader.read(id, kind).unwrap().unwrap_or_else(|| panic!("{tag}: {kind:?} is missing")).bytes().unwrap()
        };
        let (request, answer) = &sent[tag];
        // Not `assert_eq`: half a megabyte tells nobody anything.
        assert!(read(Kind::Request) == *request, "{tag}: the request's body is another");
        assert!(read(Kind::Response) == *answer, "{tag}: the answer's body is another");
        assert!(!read(Kind::RequestHead).is_empty() && !read(Kind::ResponseHead).is_empty(), "{tag}");
    }
    let kept = archived(&archive);
    println!("{raw} bytes are kept in {kept}: 1/{}", raw / kept.max(1));
    assert!(kept * 20 <= raw, "{raw} bytes are kept in {kept}: 1/{}", raw / kept.max(1));
}
