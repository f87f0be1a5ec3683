//! Heads of requests.
#![no_main]

#[path = "../checks/cuts.rs"]
mod cuts;
#[allow(dead_code, reason = "the other kind of head has a target of its own")]
#[path = "../checks/head.rs"]
mod head;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| head::check_request(bytes));
