//! A reference to a credential: where a key is, never the key itself.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where a key is to be found.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum CredentialRef {
    /// `env:NAME`: the environment variable, else the stored credential of that name.
    Env(String),
    /// `credential:NAME`: the stored credential.
    Stored(String),
    /// `file:PATH`: the content of a file that only we may read.
    File(PathBuf),
    /// `exec:COMMAND`: what a helper prints.
    Exec(String),
}

/// The forms, as messages name them.
pub(crate) const FORMS: &str = "`env:NAME`, `credential:NAME`, `file:PATH` or `exec:COMMAND`";

/// Why a text is no reference. It never repeats the text: that may be a key which was pasted by mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRef {
    /// What is wrong.
    pub message: String,
    /// What to write.
    pub help: String,
}

impl fmt::Display for BadRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.message, self.help)
    }
}

impl std::error::Error for BadRef {}

impl FromStr for CredentialRef {
    type Err = BadRef;

    fn from_str(text: &str) -> Result<Self, BadRef> {
        let bad = |message: &str, help: String| Err(BadRef { message: message.into(), help });
        match text.split_once(':') {
            Some(("env", name)) if is_variable_name(name) => Ok(Self::Env(name.into())),
            Some(("env", _)) => bad(
                "`env:` is not followed by the name of a variable",
                "write for example `env:ANTHROPIC_API_KEY`".into(),
            ),
            Some(("credential", name)) if Self::is_stored_name(name) => Ok(Self::Stored(name.into())),
            Some(("credential", _)) => bad(
                "`credential:` is not followed by a name",
                "use letters, digits, `.`, `_` and `-`, at most 128, for example `credential:ANTHROPIC_API_KEY`".into(),
            ),
            Some(("file", path)) if !path.is_empty() && !path.contains('\0') => Ok(Self::File(path.into())),
            Some(("file", _)) => {
                bad("`file:` is not followed by a path", "write for example `file:~/.keys/anthropic`".into())
            }
            Some(("exec", command)) if !command.trim().is_empty() => Ok(Self::Exec(command.trim().into())),
            Some(("exec", _)) => {
                bad("`exec:` is not followed by a command", "write for example `exec:pass show anthropic`".into())
            }
            _ if looks_like_a_key(text) => bad(
                "this looks like a key itself, which does not belong in a configuration file",
                "`cco credentials store NAME` keeps it: write `credential:NAME`, or `env:NAME` for a variable".into(),
            ),
            _ if is_variable_name(text) && !text.bytes().any(|b| b.is_ascii_lowercase()) => {
                bad("no credential reference", format!("for the environment variable of that name write `env:{text}`"))
            }
            _ => bad("no credential reference", format!("write {FORMS}, or \"\" for none")),
        }
    }
}

/// A text that nobody would choose as a name: a known prefix, or long and without a separator.
fn looks_like_a_key(text: &str) -> bool {
    ["sk-", "sk_", "key-", "gsk_", "AIza", "eyJ", "Bearer "].iter().any(|prefix| text.starts_with(prefix))
        || (text.len() >= 20 && text.bytes().any(|b| b.is_ascii_digit()))
        || text.len() > 40
}

fn is_variable_name(name: &str) -> bool {
    name.len() <= 128
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

impl CredentialRef {
    /// Whether a stored credential can have this name.
    pub fn is_stored_name(name: &str) -> bool {
        (1..=128).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    }

    /// The name of the stored credential that this leads to, or may lead to.
    pub fn stored_name(&self) -> Option<&str> {
        match self {
            Self::Stored(name) | Self::Env(name) => Some(name),
            Self::File(_) | Self::Exec(_) => None,
        }
    }
}

impl fmt::Display for CredentialRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "env:{name}"),
            Self::Stored(name) => write!(f, "credential:{name}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            // Arguments of a helper may be secret themselves.
            Self::Exec(command) => match command.split_once(char::is_whitespace) {
                Some((program, _)) => write!(f, "exec:{program} …"),
                None => write!(f, "exec:{command}"),
            },
        }
    }
}

impl fmt::Debug for CredentialRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_four_forms_are_read_and_printed() {
        for text in ["env:A_KEY", "credential:my.key-1", "file:/etc/key", "file:C:/x", "exec:pass"] {
            assert_eq!(text.parse::<CredentialRef>().unwrap().to_string(), text);
        }
        let helper: CredentialRef = "exec: op read op://vault/item ".parse().unwrap();
        assert_eq!(helper, CredentialRef::Exec("op read op://vault/item".into()));
        assert_eq!(format!("{helper:?}"), "exec:op …");
    }

    #[test]
    fn what_is_no_reference_is_refused_without_repeating_a_key() {
        for bad in ["", "env:", "env:A B", "credential:", "credential:a b", "file:", "exec: ", "vault:x", "Env:A"] {
            assert!(bad.parse::<CredentialRef>().is_err(), "{bad}");
        }
        for key in ["sk-ant-api03-abcdefgh", "0123456789abcdef0123456789abcdef", "Bearer abc", "sk-x:y"] {
            let bad = key.parse::<CredentialRef>().unwrap_err();
            assert!(!bad.to_string().contains(key), "{bad}");
            assert!(bad.help.contains("env:NAME"), "{bad}");
        }
        assert!("ANTHROPIC_API_KEY".parse::<CredentialRef>().unwrap_err().help.contains("`env:ANTHROPIC_API_KEY`"));
    }
}
