//! Names of tools, ids of calls and names of end users as they can be sent.

use std::borrow::Cow;

use sha2::{Digest, Sha256};

/// A tool's name as it can be sent: unchanged, or the same short one each time.
pub fn name(name: &str, most: usize) -> Cow<'_, str> {
    fitting(name, most)
}

/// A call's id as it can be sent: unchanged, or the same short one each time.
pub fn id(id: &str, most: usize) -> Cow<'_, str> {
    fitting(id, most)
}

fn fitting(word: &str, most: usize) -> Cow<'_, str> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if word.len() <= most && !word.is_empty() && word.bytes().all(fits) {
        return Cow::Borrowed(word);
    }
    // FNV-1a: told apart it must be, hidden it need not be.
    let hash = word.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |n, b| (n ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    let kept = word.bytes().map(|byte| if fits(byte) { char::from(byte) } else { '_' });
    let mut short: String = kept.take(most.saturating_sub(17)).collect();
    short.push_str(&format!("_{hash:016x}"));
    Cow::Owned(short)
}

/// A name of an end user that tells two apart and tells nothing else.
pub(super) fn hashed(user: &str) -> String {
    if user.len() == 64 && user.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return user.to_owned();
    }
    Sha256::digest(user.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}
