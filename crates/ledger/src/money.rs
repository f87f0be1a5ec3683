//! Amounts of money as whole numbers: billionths of a dollar where it is stored, trillionths where it is computed.

use serde::{Deserialize, Serialize};

/// Billionths of a US dollar: what an exchange costs, after rounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NanoUsd(pub i64);
