//! Stored files: upload, list, read, delete.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use serde_json::json;

use super::{list_answer, wrong_method};
use crate::answer::{Answer, Refusal};
use crate::server::Request;
use crate::upload::Upload;

/// The newest files; older ones fall out.
#[derive(Debug, Default)]
pub(super) struct Files(Mutex<Stored>);

#[derive(Debug, Default)]
struct Stored {
    made: u64,
    files: VecDeque<File>,
}

#[derive(Debug)]
struct File {
    id: String,
    name: String,
    mime: String,
    size: u64,
    content: Option<Bytes>,
}

const MAX_FILES: usize = 1000;
const MAX_BYTES: usize = 256 << 20;

impl Files {
    pub(super) fn answer(&self, request: &Request<'_>, rest: &[&str]) -> Result<Answer, Refusal> {
        let mut stored = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match (request.head.method.as_str(), rest) {
            ("POST", []) => stored.add(request.upload.as_ref()),
            ("GET", []) => {
                let newest_first: Vec<&File> = stored.files.iter().rev().collect();
                let ids: Vec<&str> = newest_first.iter().map(|file| file.id.as_str()).collect();
                list_answer(request.head, &ids, |at| newest_first[at].object())
            }
            ("GET", [id]) => stored.find(id).map(|at| Answer::json(stored.files[at].object())),
            ("GET", [id, "content"]) => {
                let file = &stored.files[stored.find(id)?];
                let content = file.content.clone();
                let content =
                    content.ok_or_else(|| Refusal::new(404, "simulator: this file was too long to be kept"))?;
                Ok(Answer::whole(200, &file.mime, content))
            }
            ("DELETE", [id]) => {
                let at = stored.find(id)?;
                stored.files.remove(at);
                Ok(Answer::json(json!({"id": id, "type": "file_deleted"}).to_string()))
            }
            (_, [] | [_] | [_, "content"]) => Err(wrong_method()),
            _ => Err(Refusal::not_found()),
        }
    }
}

impl Stored {
    fn find(&self, id: &str) -> Result<usize, Refusal> {
        let found = self.files.iter().position(|file| file.id == id);
        found.ok_or_else(|| Refusal::new(404, format!("File not found: {id}")))
    }

    fn add(&mut self, upload: Option<&Upload>) -> Result<Answer, Refusal> {
        let part = upload.and_then(Upload::file);
        let part =
            part.ok_or_else(|| Refusal::invalid("file: a multipart form with a part named `file` is required"))?;
        self.made += 1;
        let file = File {
            id: format!("file_sim_{:08}", self.made),
            name: part.name.clone(),
            mime: part.mime.clone(),
            size: part.size,
            content: part.content(),
        };
        let object = file.object();
        self.files.push_back(file);
        let kept = |files: &VecDeque<File>| {
            files.iter().filter_map(|file| file.content.as_ref()).map(Bytes::len).sum::<usize>()
        };
        while self.files.len() > MAX_FILES || (kept(&self.files) > MAX_BYTES && self.files.len() > 1) {
            self.files.pop_front();
        }
        Ok(Answer::json(object))
    }
}

impl File {
    fn object(&self) -> String {
        json!({
            "id": self.id, "type": "file", "filename": self.name, "mime_type": self.mime, "size_bytes": self.size,
            "created_at": "2026-11-22T00:00:00Z", "downloadable": self.content.is_some(),
        })
        .to_string()
    }
}
