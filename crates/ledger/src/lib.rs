//! What happened and what it cost: prices, records, journal, store. No HTTP.

pub mod archive;
pub mod money;
pub mod price;
pub mod private;
pub mod redact;
