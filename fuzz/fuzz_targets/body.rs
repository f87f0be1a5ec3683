//! Body framing.
#![no_main]

#[path = "../checks/body.rs"]
mod body;
#[path = "../checks/cuts.rs"]
mod cuts;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| body::check(bytes));
