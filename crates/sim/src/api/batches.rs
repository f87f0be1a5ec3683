//! Batches of requests: create, list, read, results, cancel, delete.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use super::{list_answer, wrong_method};
use crate::answer::{Answer, Refusal};
use crate::digest::sha256_hex;
use crate::fault::Kind;
use crate::prompt::{Operation, Prompt};
use crate::reply::{Piece, Reply, quoted};
use crate::script::Turn;
use crate::server::Request;

/// The newest batches; older ones fall out.
#[derive(Debug, Default)]
pub(super) struct Batches(Mutex<Stored>);

#[derive(Debug, Default)]
struct Stored {
    made: u64,
    batches: VecDeque<Batch>,
}

#[derive(Debug)]
struct Batch {
    id: String,
    origin: String,
    state: State,
    /// One line of results for each request.
    results: Vec<String>,
    errored: usize,
    bytes: usize,
}

/// A batch moves on by one step whenever it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    InProgress,
    Canceling,
    Ended,
    Canceled,
}

const MAX_BATCHES: usize = 200;
const MAX_BYTES: usize = 256 << 20;

impl Batches {
    pub(super) fn answer(&self, request: &Request<'_>, rest: &[&str], origin: Option<&str>) -> Result<Answer, Refusal> {
        let mut stored = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match (request.head.method.as_str(), rest) {
            ("POST", []) => {
                let host = request.head.header("host").unwrap_or("localhost");
                let origin = origin.map_or_else(|| format!("http://{host}"), str::to_owned);
                stored.add(&request.body, origin)
            }
            ("GET", []) => {
                let newest_first: Vec<&Batch> = stored.batches.iter().rev().collect();
                let ids: Vec<&str> = newest_first.iter().map(|batch| batch.id.as_str()).collect();
                list_answer(request.head, &ids, |at| newest_first[at].object())
            }
            ("GET", [id]) => {
                let batch = stored.find(id)?;
                batch.state = match batch.state {
                    State::InProgress | State::Ended => State::Ended,
                    State::Canceling | State::Canceled => State::Canceled,
                };
                Ok(Answer::json(batch.object()))
            }
            ("GET", [id, "results"]) => stored.find(id)?.results(),
            ("POST", [id, "cancel"]) => {
                let batch = stored.find(id)?;
                if batch.state == State::InProgress {
                    batch.state = State::Canceling;
                }
                Ok(Answer::json(batch.object()))
            }
            ("DELETE", [id]) => {
                if !matches!(stored.find(id)?.state, State::Ended | State::Canceled) {
                    return Err(Refusal::invalid("A batch that is being processed cannot be deleted; cancel it first"));
                }
                stored.batches.retain(|batch| batch.id != *id);
                Ok(Answer::json(json!({"id": id, "type": "message_batch_deleted"}).to_string()))
            }
            (_, [] | [_] | [_, "results" | "cancel"]) => Err(wrong_method()),
            _ => Err(Refusal::not_found()),
        }
    }
}

impl Stored {
    fn find(&mut self, id: &str) -> Result<&mut Batch, Refusal> {
        let found = self.batches.iter_mut().find(|batch| batch.id == id);
        found.ok_or_else(|| Refusal::new(404, format!("Batch not found: {id}")))
    }

    fn add(&mut self, body: &[u8], origin: String) -> Result<Answer, Refusal> {
        let parsed: Value = serde_json::from_slice(body)
            .map_err(|why| Refusal::invalid(format!("The request body is not valid JSON: {why}")))?;
        let requests = parsed["requests"].as_array().filter(|requests| !requests.is_empty());
        let requests = requests.ok_or_else(|| Refusal::invalid("requests: Field required"))?;
        let mut seen = HashSet::new();
        let mut results = Vec::new();
        let mut errored = 0;
        for (at, request) in requests.iter().enumerate() {
            let id = request["custom_id"].as_str();
            let id = id.ok_or_else(|| Refusal::invalid(format!("requests.{at}.custom_id: Field required")))?;
            if !seen.insert(id) {
                return Err(Refusal::invalid(format!("requests.{at}.custom_id: `{id}` stands there twice")));
            }
            let result = match answer_one(&request["params"], id) {
                Ok(message) => format!(r#"{{"type":"succeeded","message":{message}}}"#),
                Err(refusal) => {
                    errored += 1;
                    let (kind, message) = (quoted(&refusal.kind), quoted(&refusal.message));
                    format!(
                        r#"{{"type":"errored","error":{{"type":"error","error":{{"type":{kind},"message":{message}}}}}}}"#
                    )
                }
            };
            results.push(format!("{{\"custom_id\":{},\"result\":{result}}}\n", quoted(id)));
        }
        self.made += 1;
        let id = format!("msgbatch_sim_{:08}", self.made);
        let bytes = results.iter().map(String::len).sum();
        let batch = Batch { id, origin, state: State::InProgress, results, errored, bytes };
        let object = batch.object();
        self.batches.push_back(batch);
        let kept = |batches: &VecDeque<Batch>| batches.iter().map(|batch| batch.bytes).sum::<usize>();
        while self.batches.len() > MAX_BATCHES || (kept(&self.batches) > MAX_BYTES && self.batches.len() > 1) {
            self.batches.pop_front();
        }
        Ok(Answer::json(object))
    }
}

/// What the model says to one request of a batch. Of the faults only a status has a meaning here.
fn answer_one(params: &Value, custom_id: &str) -> Result<String, Refusal> {
    let key = sha256_hex([params.to_string().as_bytes(), custom_id.as_bytes()]);
    let prompt = Prompt::from_value(params, key, Operation::Generate)?;
    let turn = match &prompt.marked {
        Some(Ok(script)) => script.turn(prompt.answered),
        Some(Err(why)) => return Err(Refusal::invalid(format!("simulator: {why}"))),
        None => Turn::default(),
    };
    if let Some(Kind::Status { code, .. }) = turn.faults.first().map(|fault| &fault.kind) {
        return Err(Refusal::ordered(*code, None));
    }
    let reply = Reply::new(&turn, &prompt.key, &prompt.model, prompt.input_tokens, prompt.tools.as_deref());
    if reply.too_large_to_hold() {
        return Err(Refusal::invalid("simulator: more than 128 MiB of generated text needs `stream`"));
    }
    Ok(reply.whole())
}

impl Batch {
    fn object(&self) -> String {
        let all = self.results.len();
        let status = match self.state {
            State::InProgress => "in_progress",
            State::Canceling => "canceling",
            State::Ended | State::Canceled => "ended",
        };
        let over = status == "ended";
        let counts = match self.state {
            State::InProgress | State::Canceling => [all, 0, 0, 0],
            State::Ended => [0, all - self.errored, self.errored, 0],
            State::Canceled => [0, 0, 0, all],
        };
        let canceled = matches!(self.state, State::Canceling | State::Canceled);
        json!({
            "id": self.id,
            "type": "message_batch",
            "processing_status": status,
            "request_counts": {
                "processing": counts[0], "succeeded": counts[1], "errored": counts[2], "canceled": counts[3], "expired": 0,
            },
            "created_at": "2026-11-22T00:00:00Z",
            "expires_at": "2026-11-23T00:00:00Z",
            "ended_at": over.then_some("2026-11-22T00:01:00Z"),
            "cancel_initiated_at": canceled.then_some("2026-11-22T00:00:30Z"),
            "archived_at": null,
            "results_url": over.then(|| format!("{}/v1/messages/batches/{}/results", self.origin, self.id)),
        })
        .to_string()
    }

    fn results(&self) -> Result<Answer, Refusal> {
        let lines: Vec<String> = match self.state {
            State::InProgress | State::Canceling => {
                return Err(Refusal::new(404, "The results of this batch are not there before it has ended"));
            }
            State::Ended => self.results.clone(),
            State::Canceled => {
                let id = |line: &String| line.split(",\"result\":").next().unwrap_or_default().to_owned();
                self.results
                    .iter()
                    .map(|line| format!("{},\"result\":{{\"type\":\"canceled\"}}}}\n", id(line)))
                    .collect()
            }
        };
        let mut answer = Answer::whole(200, "application/x-jsonl", "");
        answer.length = None;
        answer.body = Box::new(lines.into_iter().map(Piece::now));
        Ok(answer)
    }
}
