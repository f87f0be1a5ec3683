//! The fuzz targets' checks, on their committed corpora.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[path = "../../../fuzz/checks/corpus.rs"]
mod corpus;
#[path = "../../../fuzz/checks/cuts.rs"]
mod cuts;
#[path = "../../../fuzz/checks/envelope.rs"]
mod envelope;
#[path = "../../../fuzz/checks/meter.rs"]
mod meter;
#[path = "../../../fuzz/checks/sse.rs"]
mod sse;
#[path = "../../../fuzz/checks/translate.rs"]
mod translate;

#[test]
fn every_stream_of_the_corpus_splits_as_its_lines_say_wherever_it_is_cut() {
    corpus::each("sse", sse::check);
}

#[test]
fn every_body_of_the_corpus_has_the_envelope_that_a_full_parser_finds() {
    corpus::each("envelope", envelope::check);
}

#[test]
fn every_answer_of_the_corpus_came_to_what_a_full_parser_reads_wherever_it_is_cut() {
    corpus::each("meter", meter::check);
}

#[test]
fn every_streamed_answer_of_the_corpus_is_translated_legally_wherever_it_is_cut() {
    corpus::each("translate_stream", translate::check_stream);
}

#[test]
fn every_whole_answer_of_the_corpus_is_translated() {
    corpus::each("translate_whole", translate::check_whole);
}

#[test]
fn every_request_of_the_corpus_says_the_same_when_it_is_written_again() {
    corpus::each("translate_request", translate::check_request);
}
