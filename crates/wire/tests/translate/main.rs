//! Translation from every protocol into every other, on recorded requests and answers.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod golden;
mod support;
mod transcripts;
