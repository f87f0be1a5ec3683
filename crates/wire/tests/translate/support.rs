//! Cases from `testdata`, and what to do with them.

use std::path::{Path, PathBuf};

use serde_json::Value;
use wire::codec::{Back, Front, Inbound, Target, Upstream};
use wire::estimate::{self, Classes};
use wire::event::{Block, Delta, Event};
use wire::models;
use wire::protocol::Protocol;
use wire::quirks::Quirks;
use wire::request::Request;
use wire::transcode::{self, Stream};

pub(crate) fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn files(name: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(folder(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// A client's request.
pub(crate) struct Case {
    pub(crate) from: Protocol,
    pub(crate) name: String,
    pub(crate) body: Vec<u8>,
}

/// All requests in `testdata/requests` whose protocol can be read.
pub(crate) fn requests() -> Vec<Case> {
    let mut cases = Vec::new();
    for protocol in Protocol::ALL.into_iter().filter(|protocol| transcode::inbound(*protocol).is_some()) {
        for path in files(&format!("testdata/requests/{}", protocol.as_str())) {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            cases.push(Case { from: protocol, name, body: std::fs::read(path).unwrap() });
        }
    }
    assert!(cases.len() >= 30, "only {} requests", cases.len());
    cases
}

/// An upstream's answer, and what has to be understood from it.
pub(crate) struct Transcript {
    pub(crate) from: Protocol,
    pub(crate) name: String,
    pub(crate) status: u16,
    pub(crate) is_stream: bool,
    pub(crate) body: Vec<u8>,
    pub(crate) expect: Value,
}

/// All answers in `testdata` whose protocol can be read.
pub(crate) fn transcripts() -> Vec<Transcript> {
    let mut transcripts = Vec::new();
    for path in files("testdata/transcripts").into_iter().chain(files("testdata/upstreams")) {
        if !path.to_string_lossy().ends_with(".expect.json") {
            continue;
        }
        let expect: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let file = expect["file"].as_str().unwrap();
        let protocol = expect["protocol"].as_str().unwrap();
        let from = match protocol {
            _ if protocol.starts_with("anthropic") => Protocol::AnthropicMessages,
            _ if protocol.starts_with("openai-chat")
                || protocol.starts_with("azure-chat")
                || protocol.starts_with("deepseek") =>
            {
                Protocol::OpenAiChat
            }
            _ if protocol.starts_with("openai-responses") => Protocol::OpenAiResponses,
            _ if protocol.starts_with("ollama") => Protocol::Ollama,
            "http-error" => Protocol::OpenAiChat,
            other => panic!("protocol {other}"),
        };
        if transcode::upstream(from).is_none() {
            continue;
        }
        transcripts.push(Transcript {
            from,
            name: file.split('.').next().unwrap().to_owned(),
            status: expect["http_status"].as_u64().unwrap().try_into().unwrap(),
            is_stream: !file.ends_with(".json") && !file.ends_with(".html"),
            body: std::fs::read(path.with_file_name(file)).unwrap(),
            expect,
        });
    }
    assert!(transcripts.len() >= 40, "only {} transcripts", transcripts.len());
    transcripts
}

/// One upstream that requests are written for.
pub(crate) struct To {
    pub(crate) name: &'static str,
    pub(crate) protocol: Protocol,
    pub(crate) max_output: Option<u64>,
    pub(crate) quirks: Quirks,
}

impl To {
    pub(crate) fn target(&self, request: &Request<'_>) -> Target<'_> {
        let input_estimate = estimate::request(request, &Classes);
        Target { model: "the-upstreams-model", max_output: self.max_output, quirks: &self.quirks, input_estimate }
    }

    pub(crate) fn upstream(&self) -> &'static dyn Upstream {
        transcode::upstream(self.protocol).unwrap()
    }
}

/// Upstreams of every protocol, and of every kind that differs from its protocol.
pub(crate) fn targets() -> Vec<To> {
    let to = |name, protocol, max_output, quirks| To { name, protocol, max_output, quirks };
    use Protocol::{AnthropicMessages, Ollama, OpenAiChat, OpenAiResponses};
    let all = vec![
        to("claude", AnthropicMessages, Some(64000), models::claude("claude-sonnet-5-5")),
        to("claude-old", AnthropicMessages, None, models::claude("claude-sonnet-4-5")),
        to("openai", OpenAiChat, Some(16384), models::openai("gpt-4.1")),
        to("openai-reasoning", OpenAiChat, Some(16384), models::openai("gpt-5.2")),
        to("deepseek", OpenAiChat, None, Quirks::DEEPSEEK),
        to("compatible", OpenAiChat, None, Quirks::COMPATIBLE),
        to("responses", OpenAiResponses, Some(16384), Quirks::RESPONSES),
        to("ollama", Ollama, None, Quirks::OLLAMA),
    ];
    all.into_iter().filter(|to| transcode::upstream(to.protocol).is_some()).collect()
}

/// All protocols that clients speak.
pub(crate) fn clients() -> Vec<(Protocol, &'static dyn Inbound)> {
    Protocol::ALL.into_iter().filter_map(|protocol| Some((protocol, transcode::inbound(protocol)?))).collect()
}

pub(crate) const FRONT: Front<'static> = Front {
    id: "req_1",
    model: "the-model",
    created: 1_795_330_000,
    input_estimate: 77,
    stream_usage: true,
    show_reasoning: true,
};

/// The events of a streamed answer.
pub(crate) fn events(from: Protocol, pieces: &[&[u8]]) -> Vec<String> {
    let mut seen = Vec::new();
    each_event(from, pieces, |event| seen.push(format!("{event:?}")));
    seen
}

pub(crate) fn each_event(from: Protocol, pieces: &[&[u8]], mut each: impl FnMut(Event<'_>)) {
    let mut decoder = transcode::upstream(from).unwrap().decode_stream();
    pieces.iter().for_each(|piece| _ = decoder.push(piece, &mut each));
    decoder.end(&mut each);
}

/// The events in a short form: `think[…]`, `text[…]`, `no[…]`, `name#id(…)`, and how it ends.
pub(crate) fn short(from: Protocol, stream: &str) -> String {
    let mut out = String::new();
    let mut closing = "";
    each_event(from, &[stream.as_bytes()], |event| match event {
        Event::Start(_) => {}
        Event::Open(block) => {
            let (head, close) = match block {
                Block::Text => ("text[".to_owned(), "] "),
                Block::Refusal => ("no[".to_owned(), "] "),
                Block::Thinking => ("think[".to_owned(), "] "),
                Block::Redacted(_) => ("hidden[".to_owned(), "] "),
                Block::Call { id, name, custom } => (format!("{name}{}#{id}(", if custom { "!" } else { "" }), ") "),
                Block::Extra(extra) => (format!("{}[", extra.name), "] "),
            };
            out.push_str(&head);
            closing = close;
        }
        Event::Delta(Delta::Text(text) | Delta::Input(text)) => {
            out.push_str(&text);
            out.push('|');
        }
        Event::Delta(_) => out.push('~'),
        Event::Close => out.push_str(closing),
        Event::Stop(stop) => out.push_str(&format!("{:?}", stop.reason)),
        Event::Ping => out.push_str("ping "),
        Event::Error(error) => out.push_str(&format!("{:?}: {}", error.kind, error.message)),
    });
    out
}

/// The streamed answer in the client's protocol.
pub(crate) fn stream(from: Protocol, to: &dyn Inbound, pieces: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut stream = Stream::new(transcode::upstream(from).unwrap(), to, &Back::default(), &FRONT);
    pieces.iter().for_each(|piece| stream.push(piece, &mut out));
    stream.end(&mut out);
    assert!(stream.seen().is_over());
    out
}
