//! Translation: requests.
#![no_main]

#[path = "../checks/cuts.rs"]
mod cuts;
#[path = "../checks/translate.rs"]
mod translate;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| translate::check_request(bytes));
