//! Heads of requests.
#![no_main]

#[path = "../checks/cuts.rs"]
mod cuts;
#[path = "../checks/head.rs"]
mod head;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| head::check_request(bytes));
