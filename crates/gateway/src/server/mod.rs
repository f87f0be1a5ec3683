//! The pipeline from an accepted connection to an answer.

mod account;
mod answer;
mod attempt;
pub mod caller;
pub mod connection;
mod dispatch;
mod exchange;
mod limits;
mod request;
mod step;
mod translated;
