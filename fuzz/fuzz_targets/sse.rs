//! The splitter of server-sent events.
#![no_main]

#[path = "../checks/cuts.rs"]
mod cuts;
#[path = "../checks/sse.rs"]
mod sse;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sse::check(bytes));
