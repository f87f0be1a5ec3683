//! What streamed and whole answers came to.
#![no_main]

#[path = "../checks/cuts.rs"]
mod cuts;
#[path = "../checks/meter.rs"]
mod meter;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| meter::check(bytes));
