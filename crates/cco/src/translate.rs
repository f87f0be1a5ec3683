//! `cco translate`: what a request or an answer becomes in another protocol, and what is lost.

use std::io::Read;
use std::process::ExitCode;

use gateway::catalog::Way;
use gateway::translation::{self, Answer, Losses, Protocol, Upstream};
use serde_json::{Value, json};

use crate::{cli, term};

/// The longest input that is read.
const MOST: u64 = 256 << 20;

/// What came of it.
struct Result {
    /// What was read: a request, an answer, a stream or an error.
    what: &'static str,
    out: Vec<u8>,
    losses: Vec<(String, String)>,
    more: Value,
}

/// Why there is nothing.
struct Refused {
    message: String,
    field: Option<String>,
}

/// Translates one file.
pub(crate) fn run(options: &cli::translate::Translate) -> ExitCode {
    let input = match read(options) {
        Ok(input) => input,
        Err(why) => {
            let name = options.file.as_deref().map_or("standard input".into(), |file| format!("`{}`", file.display()));
            term::error(format_args!("{name} cannot be read"), Some(&why), None);
            return ExitCode::FAILURE;
        }
    };
    match translated(options, &input) {
        Ok(result) if options.json => {
            let losses = result.losses.iter().map(|(path, reason)| json!({ "path": path, "reason": reason }));
            let text = String::from_utf8_lossy(&result.out);
            let body = serde_json::from_str(&text).unwrap_or_else(|_| Value::from(&*text));
            let mut whole = json!({ "is": result.what, "result": body, "losses": losses.collect::<Vec<_>>() });
            for (name, value) in result.more.as_object().into_iter().flatten() {
                whole[name] = value.clone();
            }
            term::line(whole);
            ExitCode::SUCCESS
        }
        Ok(result) => {
            for (path, reason) in &result.losses {
                term::note(format_args!("not carried: {path}: {reason}"));
            }
            term::bytes(&result.out);
            if !result.out.ends_with(b"\n") {
                term::line("");
            }
            ExitCode::SUCCESS
        }
        Err(Refused { message, field }) => {
            if options.json {
                term::line(json!({ "refused": message, "field": field }));
            } else {
                term::error("this is not translated", Some(&message), None);
            }
            ExitCode::FAILURE
        }
    }
}

fn read(options: &cli::translate::Translate) -> std::io::Result<Vec<u8>> {
    let mut input = Vec::new();
    match &options.file {
        Some(file) => std::fs::File::open(file)?.take(MOST).read_to_end(&mut input)?,
        None => std::io::stdin().lock().take(MOST).read_to_end(&mut input)?,
    };
    Ok(input)
}

fn translated(options: &cli::translate::Translate, input: &[u8]) -> std::result::Result<Result, Refused> {
    let read = serde_json::from_slice::<Value>(input);
    if let (Err(why), true) = (&read, input.trim_ascii_start().starts_with(b"{") && options.from != Protocol::Ollama) {
        return Err(Refused { message: format!("it begins like JSON and is none: {why}"), field: None });
    }
    let object = read.ok().filter(Value::is_object);
    match &object {
        Some(body) if body.get("messages").or(body.get("input")).is_some() => request(options, body, input),
        Some(body) if body.get("error").is_some_and(|error| !error.is_null()) => error(options, input),
        Some(_) => answer(options, input, false),
        None => answer(options, input, true),
    }
}

fn spoken(client: Protocol) -> std::result::Result<(), Refused> {
    if translation::is_spoken(client) {
        return Ok(());
    }
    let message = format!("clients do not speak `{}`: it is a protocol of upstreams alone", client.as_str());
    Err(Refused { message, field: None })
}

fn request(options: &cli::translate::Translate, body: &Value, input: &[u8]) -> std::result::Result<Result, Refused> {
    spoken(options.from)?;
    let asked = body["model"].as_str().unwrap_or_default();
    // What some clients put behind a name is for the gateway alone.
    let model = options.model.as_deref().unwrap_or(asked.strip_suffix("[1m]").unwrap_or(asked));
    let way = options.provider.and_then(|kind| kind.ways.iter().find(|way| way.protocol == options.to));
    let quirks = translation::quirks(options.to, way.map(|way: &Way| way.quirks), model);
    let prompt = translation::count(options.from, input, input.len()).ok();
    let upstream = Upstream { protocol: options.to, model, quirks: &quirks, max_output: None, prompt };
    let translated = translation::request(options.from, &upstream, input, asked, "unasked")
        .map_err(|why| Refused { message: why.message.into(), field: why.param.map(String::from) })?;
    if options.strict
        && let Some(why) = translation::refuse(&translated.losses)
    {
        return Err(Refused { message: why.message.into(), field: why.param.map(String::from) });
    }
    Ok(Result {
        what: "request",
        losses: named(&translated.losses),
        out: translated.body.to_vec(),
        more: json!({ "inputTokensEstimate": translated.answer.input_estimate() }),
    })
}

fn named(losses: &Losses) -> Vec<(String, String)> {
    losses.iter().map(|loss| (loss.path.to_string(), loss.reason.to_string())).collect()
}

fn answer(options: &cli::translate::Translate, input: &[u8], is_stream: bool) -> std::result::Result<Result, Refused> {
    spoken(options.to)?;
    let model = options.model.as_deref().unwrap_or("model");
    let answer = Answer::unasked(options.to, options.from, model, is_stream);
    let (what, out, metered) = if is_stream {
        let mut stream = answer.stream();
        stream.push(input);
        stream.end();
        ("stream", stream.take().unwrap_or_default().to_vec(), stream.metered())
    } else {
        let whole = answer.whole(input);
        let (out, metered) = whole.map_err(|why| Refused { message: why.message.into(), field: None })?;
        ("answer", out, metered)
    };
    let tokens = metered.usage.known().map(|usage| {
        let tokens = &usage.tokens;
        json!({ "input": tokens.input, "cacheRead": tokens.cache_read, "cacheWrite": tokens.cache_write.total(),
            "output": tokens.output })
    });
    let more = json!({ "stopReason": metered.stop_reason, "model": metered.model, "tokens": tokens });
    Ok(Result { what, out, losses: named(&metered.lost), more })
}

fn error(options: &cli::translate::Translate, input: &[u8]) -> std::result::Result<Result, Refused> {
    spoken(options.to)?;
    let (status, _, out) = translation::error(options.to, &translation::upstream_error(400, input, None), "unasked");
    Ok(Result { what: "error", out, losses: Vec::new(), more: json!({ "status": status }) })
}
