//! The models that the simulator lists.

use serde_json::json;

use super::list_answer;
use crate::answer::{Answer, Refusal};
use crate::http::Head;

/// Id, name to display, when it was created; the newest first.
const MODELS: &[(&str, &str, &str)] = &[
    ("claude-opus-5-5", "Claude Opus 5.5", "2026-10-14T00:00:00Z"),
    ("claude-sonnet-5-5", "Claude Sonnet 5.5", "2026-09-30T00:00:00Z"),
    ("claude-haiku-5-5", "Claude Haiku 5.5", "2026-09-30T00:00:00Z"),
    ("claude-fable-5-2", "Claude Fable 5.2", "2026-09-02T00:00:00Z"),
    ("claude-opus-5", "Claude Opus 5", "2026-06-10T00:00:00Z"),
    ("claude-sonnet-5", "Claude Sonnet 5", "2026-05-20T00:00:00Z"),
    ("claude-haiku-4-5-20251001", "Claude Haiku 4.5", "2025-10-15T00:00:00Z"),
];

pub(super) fn is_known(id: &str) -> bool {
    MODELS.iter().any(|(known, ..)| *known == id)
}

pub(super) fn list(head: &Head) -> Result<Answer, Refusal> {
    let ids: Vec<&str> = MODELS.iter().map(|(id, ..)| *id).collect();
    list_answer(head, &ids, |at| object(MODELS[at]))
}

pub(super) fn get(id: &str) -> Result<Answer, Refusal> {
    let found = MODELS.iter().find(|(known, ..)| *known == id);
    found.map(|model| Answer::json(object(*model))).ok_or_else(|| Refusal::new(404, format!("model: {id}")))
}

/// The list as OpenAI writes it.
pub(super) fn openai_list() -> Answer {
    let data: Vec<_> = MODELS.iter().map(|(id, ..)| openai_object(id)).collect();
    Answer::json(json!({"object": "list", "data": data}).to_string())
}

pub(super) fn openai_get(id: &str) -> Result<Answer, Refusal> {
    let found = is_known(id).then(|| Answer::json(openai_object(id).to_string()));
    found.ok_or_else(|| Refusal::new(404, format!("The model '{id}' does not exist")))
}

fn openai_object(id: &str) -> serde_json::Value {
    json!({"id": id, "object": "model", "created": 1_795_305_600, "owned_by": "simulator"})
}

/// The list as Ollama writes it.
pub(super) fn tags() -> Answer {
    let model =
        |id: &str| json!({"name": id, "model": id, "modified_at": "2026-11-22T00:00:00Z", "size": 1, "digest": "0"});
    let models: Vec<_> = MODELS.iter().map(|(id, ..)| model(id)).collect();
    Answer::json(json!({"models": models}).to_string())
}

/// What Ollama shows of any model: how much context it holds.
pub(super) fn show() -> Answer {
    let info = json!({"general.architecture": "simulated", "simulated.context_length": 65_536});
    Answer::json(json!({"details": {"family": "simulated"}, "model_info": info}).to_string())
}

fn object((id, display_name, created_at): (&str, &str, &str)) -> String {
    json!({"type": "model", "id": id, "display_name": display_name, "created_at": created_at}).to_string()
}
