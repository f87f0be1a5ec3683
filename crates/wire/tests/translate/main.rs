//! Translation as a whole: files of expected results, transcripts, any bytes at all.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod arguments;
mod asked;
mod chat;
#[path = "../../../../fuzz/checks/cuts.rs"]
mod cuts;
mod golden;
mod left_out;
mod odd;
mod ollama;
mod properties;
mod responses;
mod silent;
mod support;
mod transcripts;
#[path = "../../../../fuzz/checks/translate.rs"]
mod translate;
