//! What happened and what it cost: prices, records, journal, store, archive. No HTTP.

pub mod archive;
pub mod calendar;
pub mod journal;
pub mod limits;
pub mod loader;
pub mod money;
pub mod offline;
pub mod price;
pub mod private;
pub mod query;
pub mod record;
pub mod redact;
pub mod retention;
#[doc(hidden)]
pub mod sample;
mod service;
mod steady;
pub mod store;

pub use service::{Answer, Ledger, LedgerHealth, LedgerOptions};
