//! The fuzz targets' checks, on their committed corpora.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[path = "../../../fuzz/checks/body.rs"]
mod body;
#[path = "../../../fuzz/checks/corpus.rs"]
mod corpus;
#[path = "../../../fuzz/checks/cuts.rs"]
mod cuts;
#[path = "../../../fuzz/checks/head.rs"]
mod head;

#[test]
fn every_request_head_of_the_corpus_has_one_meaning_wherever_it_is_cut() {
    corpus::each("request_head", head::check_request);
}

#[test]
fn every_response_head_of_the_corpus_has_one_meaning_wherever_it_is_cut() {
    corpus::each("response_head", head::check_response);
}

#[test]
fn every_body_of_the_corpus_has_one_payload_wherever_it_is_cut() {
    corpus::each("body", body::check);
}
