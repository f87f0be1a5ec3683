//! The pipeline from an accepted connection to an answer.

mod account;
mod answer;
mod attempt;
pub mod caller;
pub mod connection;
mod continued;
mod dispatch;
mod down;
mod exchange;
mod hedge;
mod limits;
mod replay;
mod request;
mod step;
mod translated;
