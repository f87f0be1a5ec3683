//! The provider's API: which answer belongs to which request.

mod batches;
mod files;
mod models;

use std::iter;
use std::path::Path;

use serde_json::json;

use self::batches::Batches;
use self::files::Files;
use crate::SIMULATED;
use crate::answer::{Answer, Refusal, status_of};
use crate::coding::{self, Unpack};
use crate::dialect::{Dialect, canonical};
use crate::fault::{Fault, Kind};
use crate::http::Head;
use crate::prompt::{Operation, Prompt};
use crate::reply::{Piece, Pieces, Reply, event};
use crate::script::{BadScript, Script, Turn};
use crate::server::{Request, Sim};

/// What the provider stores.
#[derive(Debug, Default)]
pub(crate) struct Api {
    batches: Batches,
    files: Files,
}

impl Sim {
    /// The answer to a request, and how it is to be delivered.
    pub(crate) fn answer(&self, request: &Request<'_>) -> (Answer, Turn) {
        let head = request.head;
        let path = canonical(head.path());
        let dialect = Dialect::of(head, &path);
        if !path.starts_with("/v1/") && dialect != Dialect::Ollama {
            let answer = match (head.method.as_str(), &*path) {
                ("HEAD" | "GET", "/" | "/api/hello") => Answer::json(r#"{"message":"hello"}"#),
                _ => Refusal::not_found().answer(&request.id(), dialect),
            };
            return (answer.header("request-id", request.id()), Turn::default());
        }
        let (answer, turn) = self.answer_scripted(request, &path, dialect);
        let mut answer = answer.header(dialect.id_header(), request.id());
        if self.config.says_so {
            answer = answer.header(SIMULATED, "1");
        }
        let account = dialect.account();
        answer.headers.extend(account.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        answer.headers.extend(turn.headers.iter().cloned());
        if turn.faults.iter().any(|fault| fault.kind == Kind::SetCookie) {
            answer
                .headers
                .extend(NOT_FOR_CLIENTS.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        }
        (answer, turn)
    }

    fn answer_scripted(&self, request: &Request<'_>, path: &str, dialect: Dialect) -> (Answer, Turn) {
        let head = request.head;
        let operation = match (head.method.as_str(), path) {
            ("POST", "/v1/messages" | "/v1/chat/completions" | "/v1/responses" | "/api/chat") => {
                Some(Operation::Generate)
            }
            ("POST", "/v1/messages/count_tokens") => Some(Operation::Count),
            _ => None,
        };
        let prompt = operation.map(|operation| self.read_prompt(request, operation, dialect));
        let read = prompt.as_ref().and_then(|prompt| prompt.as_ref().ok());
        let turn = match self.choose(head, read, &request.body_sha256) {
            Ok(turn) => turn,
            Err(why) => {
                let refusal = Refusal::invalid(format!("simulator: {why}"));
                return (refusal.answer(&request.id(), dialect), Turn::default());
            }
        };
        let streams = read.is_some_and(|prompt| prompt.stream);
        if let Some(answer) =
            turn.faults.iter().find_map(|fault| ordered(fault, streams, &turn, &request.id(), dialect))
        {
            return (answer, turn);
        }
        let answer = self.check(head, dialect).and_then(|()| match (prompt, operation) {
            (Some(prompt), Some(Operation::Generate)) => self.generate(&prompt?, &turn, request, dialect),
            (Some(prompt), _) => Ok(Answer::json(json!({"input_tokens": prompt?.input_tokens}).to_string())),
            (None, _) => self.other(request, path, dialect),
        });
        let mut answer = answer.unwrap_or_else(|refusal| refusal.answer(&request.id(), dialect));
        if let Some(status) = turn.status {
            answer.status = status;
        }
        (answer, turn)
    }

    fn read_prompt(&self, request: &Request<'_>, operation: Operation, dialect: Dialect) -> Result<Prompt, Refusal> {
        let coding = request.head.header("content-encoding");
        let plain = coding::unpack(&request.body, coding, self.config.max_body).map_err(|why| match why {
            Unpack::Unknown(coding) => Refusal::invalid(format!("content-encoding: `{coding}` is not supported")),
            Unpack::Broken => Refusal::invalid("The request body is not what its content-encoding says"),
            Unpack::TooLarge => Refusal::new(413, "Request exceeds the maximum size after decoding"),
        })?;
        Prompt::read(&plain, operation, dialect)
    }

    /// A queued turn goes before everything; then what a header says, a marker, the default. Faults of a header stand
    /// in for those of the rest.
    fn choose(&self, head: &Head, prompt: Option<&Prompt>, body_sha256: &str) -> Result<Turn, BadScript> {
        if let Some(turn) = self.next_queued() {
            return Ok(turn);
        }
        let answered = prompt.map_or(0, |prompt| prompt.answered);
        let mut turn = match (head.header("x-sim"), prompt.and_then(|prompt| prompt.marked.as_ref())) {
            (Some(written), _) => written.parse::<Script>()?.turn(answered),
            (None, Some(script)) => script.as_ref().map_err(Clone::clone)?.turn(answered),
            (None, None) if !self.config.default.turns.is_empty() && self.default_goes() => {
                self.config.default.turn(answered)
            }
            (None, None) => Turn::default(),
        };
        let mut ordered = head.values("x-sim-fault").flat_map(str::split_whitespace).peekable();
        if ordered.peek().is_some() {
            (turn.faults, turn.times) = (Vec::new(), None);
            for word in ordered {
                match word.strip_prefix("times=").map(str::parse) {
                    Some(Ok(times)) => turn.times = Some(times),
                    Some(Err(_)) => return Err(BadScript::new("`times` wants a number")),
                    None => turn.faults.push(word.parse()?),
                }
            }
        }
        if let Some(times) = turn.times {
            let faults: Vec<String> = turn.faults.iter().map(ToString::to_string).collect();
            let key = prompt.map_or(body_sha256, |prompt| &prompt.turn_key);
            if !self.still_goes(format!("{key} {} {}", head.path(), faults.join(" ")), times) {
                turn.faults.clear();
            }
        }
        Ok(turn)
    }

    /// What every request under `/v1/` has to bring.
    fn check(&self, head: &Head, dialect: Dialect) -> Result<(), Refusal> {
        let bearer = head.values("authorization").filter_map(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        let mut credentials = head
            .values("x-api-key")
            .chain(head.values("api-key"))
            .chain(bearer)
            .filter(|key| !key.is_empty())
            .peekable();
        let wanted = self.config.require_key || !self.config.keys.is_empty();
        if wanted && credentials.peek().is_none() {
            return Err(Refusal::new(401, "x-api-key header is required"));
        }
        if !self.config.keys.is_empty() && !credentials.any(|key| self.config.keys.iter().any(|known| known == key)) {
            return Err(Refusal::new(401, "invalid x-api-key"));
        }
        match head.header("anthropic-version") {
            _ if dialect != Dialect::Anthropic => Ok(()),
            Some(version) if !version.is_empty() => Ok(()),
            _ => Err(Refusal::invalid("anthropic-version: header is required")),
        }
    }

    fn generate(
        &self,
        prompt: &Prompt,
        turn: &Turn,
        request: &Request<'_>,
        dialect: Dialect,
    ) -> Result<Answer, Refusal> {
        if self.config.known_models_only && !models::is_known(&prompt.model) {
            return Err(Refusal::new(404, format!("model: {}", prompt.model)));
        }
        if let Some(name) = &turn.raw {
            return self.replay(name, turn);
        }
        let reply = Reply::new(turn, &prompt.key, &prompt.model, prompt.input_tokens, prompt.tools.as_deref());
        let shaping = turn.faults.iter().map(|fault| &fault.kind);
        if prompt.stream {
            // The last event of this protocol says everything once more.
            if dialect == Dialect::Responses && reply.too_large_to_hold() {
                return Err(too_large());
            }
            let mut events = dialect.events(&reply, prompt, turn);
            for fault in shaping {
                events = match fault {
                    Kind::ErrorMid { kind, after } => {
                        let after = after.unwrap_or_else(|| dialect.events(&reply, prompt, turn).count() as u64 / 2);
                        let error = dialect.error_event(kind, "Overloaded", &request.id());
                        let error = Piece { after: turn.every, ..error };
                        Box::new(take(events, after).chain(iter::once(error)))
                    }
                    Kind::Truncate(after) => {
                        let count = dialect.events(&reply, prompt, turn).count() as u64;
                        take(events, after.unwrap_or(count / 2).min(count - 1))
                    }
                    Kind::Endless => endless(events, turn, dialect),
                    _ => events,
                };
            }
            return Ok(dialect.stream(events));
        }
        if reply.too_large_to_hold() {
            return Err(too_large());
        }
        let mut answer = Answer::json(dialect.whole(&reply, prompt));
        for fault in shaping {
            match fault {
                Kind::ErrorMid { kind, .. } => {
                    return Err(Refusal { kind: kind.clone(), ..Refusal::ordered(status_of(kind), None) });
                }
                Kind::Truncate(_) => {
                    let length = answer.length.take().unwrap_or_default() / 2;
                    let half = usize::try_from(length).unwrap_or(usize::MAX);
                    answer.body =
                        Box::new(answer.body.map(move |piece| Piece { bytes: piece.bytes.slice(..half), ..piece }));
                }
                _ => {}
            }
        }
        Ok(answer)
    }

    /// A file of the transcripts, byte for byte.
    fn replay(&self, name: &str, turn: &Turn) -> Result<Answer, Refusal> {
        let folder = self.config.transcripts.as_deref();
        let folder = folder
            .ok_or_else(|| Refusal::invalid("simulator: `raw` needs a folder of transcripts, and none is set"))?;
        let plain = !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', '\0']);
        if !plain {
            return Err(Refusal::invalid(format!("simulator: `raw={name}` is not the name of a file")));
        }
        let bytes = std::fs::read(folder.join(name))
            .map_err(|why| Refusal::new(404, format!("simulator: the transcript `{name}` cannot be read: {why}")))?;
        let kind = match Path::new(name).extension().and_then(|extension| extension.to_str()) {
            Some("sse") => return Ok(Answer::stream(once_after(turn, bytes))),
            Some("json") => "application/json",
            Some("ndjson") => "application/x-ndjson",
            Some("html") => "text/html",
            Some("bin") => "application/vnd.amazon.eventstream",
            _ => "application/octet-stream",
        };
        Ok(Answer::whole(200, kind, bytes))
    }

    fn other(&self, request: &Request<'_>, path: &str, dialect: Dialect) -> Result<Answer, Refusal> {
        let head = request.head;
        let parts: Vec<&str> = path.trim_start_matches("/v1/").split('/').collect();
        match (head.method.as_str(), parts.as_slice()) {
            ("GET", ["", "api", "tags"]) => Ok(models::tags()),
            ("POST", ["", "api", "show"]) => Ok(models::show()),
            ("GET", ["", "api", "version"]) => Ok(Answer::json(r#"{"version":"0.14.2"}"#)),
            ("GET", ["models"]) if dialect == Dialect::Chat => Ok(models::openai_list()),
            ("GET", ["models", id]) if dialect == Dialect::Chat => models::openai_get(id),
            ("POST", ["embeddings"]) => Ok(Answer::json(EMBEDDINGS)),
            (_, ["chat", "completions"] | ["responses"]) => Err(wrong_method()),
            ("GET", ["models"]) => models::list(head),
            ("GET", ["models", id]) => models::get(id),
            (_, ["models" | "messages"] | ["models", _] | ["messages", "count_tokens"]) => Err(wrong_method()),
            (_, ["messages", "batches", rest @ ..]) => {
                self.api.batches.answer(request, rest, self.config.origin.as_deref())
            }
            (_, ["files", rest @ ..]) => self.api.files.answer(request, rest),
            _ => Err(Refusal::not_found()),
        }
    }
}

/// One of a model that says the same of everything.
const EMBEDDINGS: &str = r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.25,-0.5,0.125]}],"model":"sim-embedding","usage":{"prompt_tokens":3,"total_tokens":3}}"#;

fn too_large() -> Refusal {
    Refusal::invalid("simulator: more than 128 MiB of generated text needs `stream`")
}

fn wrong_method() -> Refusal {
    Refusal::new(405, "Method Not Allowed")
}

/// An answer that a fault puts in the place of the real one.
fn ordered(fault: &Fault, streams: bool, turn: &Turn, request_id: &str, dialect: Dialect) -> Option<Answer> {
    Some(match &fault.kind {
        Kind::Status { code, retry_after } => Refusal::ordered(*code, *retry_after).answer(request_id, dialect),
        Kind::Html502 => Answer::whole(502, "text/html", "<html><body><h1>502 Bad Gateway</h1></body></html>\n"),
        Kind::Redirect(place) => Answer::whole(307, "text/plain", "elsewhere\n").header("Location", place.clone()),
        Kind::ErrorFirst { kind } if streams => {
            let error = dialect.error_event(kind, "Overloaded", request_id);
            dialect.stream(dialect.dress(Box::new(iter::once(error)), turn))
        }
        Kind::ErrorFirst { kind } => {
            Refusal { kind: kind.clone(), ..Refusal::ordered(status_of(kind), None) }.answer(request_id, dialect)
        }
        Kind::Bomb(mib) => Answer::stream(coding::bomb(*mib)).header("Content-Encoding", "gzip"),
        Kind::LongLine => Answer::stream(long_line()),
        Kind::Endless if !streams => dialect.stream(endless(Box::new(iter::empty()), turn, dialect)),
        _ => return None,
    })
}

fn take(events: Pieces, count: u64) -> Pieces {
    Box::new(events.take(usize::try_from(count).unwrap_or(usize::MAX)))
}

/// The start of a stream, and then text for ever.
fn endless(events: Pieces, turn: &Turn, dialect: Dialect) -> Pieces {
    let more = match dialect {
        Dialect::Anthropic => {
            event("content_block_delta", r#""index":0,"delta":{"type":"text_delta","text":"and so on, "}"#)
        }
        Dialect::Chat => Piece::now("data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"and so on, \"}}]}\n\n"),
        Dialect::Responses => event(
            "response.output_text.delta",
            r#""output_index":0,"content_index":0,"delta":"and so on, ","sequence_number":99"#,
        ),
        Dialect::Ollama => {
            Piece::now("{\"message\":{\"role\":\"assistant\",\"content\":\"and so on, \"},\"done\":false}\n")
        }
    };
    // Before the first delta come as many events as it takes to open a text.
    let before = if dialect == Dialect::Responses { 4 } else { 2 };
    Box::new(events.take(before).chain(iter::repeat(Piece { after: turn.every, ..more })))
}

/// The start of an event whose line has no end.
fn long_line() -> Pieces {
    let start = Piece::now("event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"text\":\"");
    Box::new(iter::once(start).chain(iter::repeat(Piece::now(vec![b'x'; 16 << 10]))))
}

fn once_after(turn: &Turn, bytes: Vec<u8>) -> Pieces {
    Box::new(iter::once(Piece { after: turn.first, ..Piece::now(bytes) }))
}

/// The part of a list that a request asks for: `limit`, `after_id`, `before_id`. `ids` are in the order of the list.
fn page(head: &Head, ids: &[&str]) -> Result<(std::ops::Range<usize>, bool), Refusal> {
    let limit = match head.query("limit").map(str::parse::<usize>) {
        None => 20,
        Some(Ok(limit)) if (1..=1000).contains(&limit) => limit,
        Some(_) => return Err(Refusal::invalid("limit: Input should be a number from 1 to 1000")),
    };
    let place = |name: &str| {
        head.query(name).map(|id| ids.iter().position(|known| *known == id).ok_or_else(Refusal::not_found))
    };
    match (place("after_id").transpose()?, place("before_id").transpose()?) {
        (_, Some(before)) => Ok((before.saturating_sub(limit)..before, before > limit)),
        (after, None) => {
            let start = after.map_or(0, |after| after + 1);
            let end = ids.len().min(start + limit);
            Ok((start..end, end < ids.len()))
        }
    }
}

/// A list in the provider's shape. `items` are JSON objects.
fn list_answer(head: &Head, ids: &[&str], items: impl Fn(usize) -> String) -> Result<Answer, Refusal> {
    let (range, has_more) = page(head, ids)?;
    let (first, last) =
        (ids.get(range.start).filter(|_| !range.is_empty()), range.clone().next_back().map(|at| ids[at]));
    let data: Vec<String> = range.map(items).collect();
    let tail = json!({"has_more": has_more, "first_id": first, "last_id": last}).to_string();
    Ok(Answer::json(format!(r#"{{"data":[{}],{}"#, data.join(","), &tail[1..])))
}

/// What `set-cookie` adds: headers that must not reach a client through a gateway.
const NOT_FOR_CLIENTS: &[(&str, &str)] = &[
    ("Set-Cookie", "session=sim-upstream-session; Path=/; HttpOnly"),
    ("Set-Cookie", "__cf_bm=sim-edge; Path=/"),
    ("Authorization", "Bearer sim-upstream-secret"),
    ("x-api-key", "sim-upstream-secret"),
    ("WWW-Authenticate", "Basic realm=\"sim\""),
    ("Proxy-Authenticate", "Basic realm=\"sim\""),
    ("Access-Control-Allow-Origin", "*"),
    ("Access-Control-Allow-Credentials", "true"),
    ("Strict-Transport-Security", "max-age=31536000"),
    ("Alt-Svc", "h3=\":443\""),
    ("Server", "simulator"),
];
