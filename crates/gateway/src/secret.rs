//! A value that must not be printed: keys, tokens.

use std::fmt;
use zeroize::Zeroizing;

/// A secret text. `Debug` prints a mark, `Display` and `Serialize` do not exist; [`Secret::expose`] is the one way out.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes the text over; it is wiped from memory when the last owner drops it.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text itself. Every call is a place where a secret leaves its type: keep them few.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The last four characters, to tell two keys apart; nothing for a text too short to hide in.
    pub fn last4(&self) -> Option<&str> {
        let at = self.0.len().checked_sub(4)?;
        if at < 8 { None } else { self.0.get(at..) }
    }

    /// Compares in a time that does not depend on where the two differ.
    pub fn matches(&self, other: &[u8]) -> bool {
        use subtle::ConstantTimeEq;
        self.0.as_bytes().ct_eq(other).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_print_itself() {
        let secret = Secret::new("sk-ant-api03-abcdefgh");
        assert_eq!(format!("{secret:?}"), "Secret(…)");
        assert_eq!(secret.last4(), Some("efgh"));
        assert_eq!(Secret::new("short").last4(), None);
        assert!(secret.matches(b"sk-ant-api03-abcdefgh") && !secret.matches(b"sk-ant-api03-abcdefgx"));
    }
}
