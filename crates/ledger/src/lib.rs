//! What happened and what it cost: prices, records, journal, store. No HTTP.

pub mod money;
pub mod price;
