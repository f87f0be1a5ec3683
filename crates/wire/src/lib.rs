//! What is said on the wire between clients and providers: no I/O, no HTTP, no clock.

pub mod anthropic;
pub mod codec;
pub mod envelope;
pub mod error;
pub mod event;
pub mod fit;
pub mod grammar;
pub mod guard;
pub mod json;
pub mod lanes;
pub mod loss;
pub mod message;
pub mod meter;
pub mod models;
pub mod opaque;
mod openai;
pub mod openai_chat;
mod plain;
pub mod protocol;
pub mod quirks;
pub mod refusal;
pub mod request;
pub mod sse;
pub mod text_input;
pub mod transcode;
pub mod usage;
