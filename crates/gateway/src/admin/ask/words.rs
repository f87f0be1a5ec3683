//! The query of an address: its words and values, and where the one who asks is.

use super::Wrong;

/// The words of a query with their values, percent-decoded; a word alone has an empty value. What cannot be read, and a
/// word that is there twice, would mean something else than was asked.
pub(in crate::admin) fn words(query: &str) -> Result<Vec<(String, String)>, Wrong> {
    let mut words: Vec<(String, String)> = Vec::new();
    for part in query.split('&').filter(|part| !part.is_empty()) {
        let (word, value) = part.split_once('=').unwrap_or((part, ""));
        let (word, value) = (decoded(word)?, decoded(value)?);
        if words.iter().any(|(known, _)| *known == word) {
            return Err(Wrong::Question(format!("`{word}` is given twice: give it once")));
        }
        words.push((word, value));
    }
    Ok(words)
}

fn decoded(text: &str) -> Result<String, Wrong> {
    let spaced = text.replace('+', " ");
    let bytes = spaced.as_bytes();
    let is_hex = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_hexdigit);
    let broken = bytes.iter().enumerate().any(|(at, byte)| *byte == b'%' && !(is_hex(at + 1) && is_hex(at + 2)));
    let decoded = percent_encoding::percent_decode_str(&spaced).decode_utf8();
    match decoded {
        Ok(decoded) if !broken => Ok(decoded.into_owned()),
        _ => {
            let shown: String = text.chars().take(64).collect();
            Err(Wrong::Question(format!(
                "`{shown}` cannot be read: write other signs as `%` and two digits of their UTF-8"
            )))
        }
    }
}

/// A word and its value as they stand in a query.
pub fn encoded(word: &str, value: &str) -> String {
    let value = percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC);
    format!("{word}={value}")
}

/// Changes of the clock that one zone may have.
const CHANGES: usize = 256;

/// Where the one who asks is: seconds east of Greenwich, and until when.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Zone {
    /// Before this time (seconds since 1970) the clock is so far ahead; in order.
    until: Vec<(i64, i32)>,
    /// And so far afterwards.
    then: i32,
}

impl Zone {
    /// A clock that changes at these times (seconds since 1970), each with what holds before it, and what holds then.
    pub fn new(until: impl IntoIterator<Item = (i64, i32)>, then: i32) -> Self {
        Self { until: until.into_iter().take(CHANGES).collect(), then }
    }

    /// Reads `3600`, or `7200@1792890000,3600`: two hours until then, one afterwards.
    pub(in crate::admin) fn read(text: &str) -> Option<Self> {
        let mut zone = Self::default();
        let mut parts = text.split(',').peekable();
        while let Some(part) = parts.next() {
            let offset = |text: &str| text.parse().ok().filter(|offset: &i32| offset.abs() <= 86_400);
            match part.split_once('@') {
                // What holds afterwards must follow.
                Some((before, at)) if zone.until.len() < CHANGES && parts.peek().is_some() => {
                    zone.until.push((at.parse().ok()?, offset(before)?))
                }
                None if parts.peek().is_none() => zone.then = offset(part)?,
                _ => return None,
            }
        }
        zone.until.is_sorted().then_some(zone)
    }

    /// As [`read`](Self::read) takes it.
    pub fn text(&self) -> String {
        let changes = self.until.iter().map(|(at, before)| format!("{before}@{at},"));
        format!("{}{}", changes.collect::<String>(), self.then)
    }

    /// What the clock is ahead of Greenwich at a time.
    pub fn at(&self, unix_s: i64) -> i32 {
        self.until.iter().find(|(at, _)| unix_s < *at).map_or(self.then, |(_, before)| *before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_as_it_was_written() {
        let all = words("since=2h&failed&project=a%20b%26c+d&&x=%25").unwrap();
        let want = [("since", "2h"), ("failed", ""), ("project", "a b&c d"), ("x", "%")];
        assert_eq!(all, want.map(|(word, value)| (word.to_owned(), value.to_owned())));
        let odd = "a&b=c d+é%";
        assert_eq!(words(&encoded("x", odd)).unwrap(), [("x".into(), odd.into())]);
    }

    #[test]
    fn what_cannot_be_read_and_what_is_there_twice_is_refused() {
        for (query, want) in [
            ("a=1&a=2", "`a` is given twice"),
            ("failed&failed", "`failed` is given twice"),
            ("a=%zz", "`%zz` cannot be read"),
            ("a=%f", "cannot be read"),
            ("a=%ff", "cannot be read"),
        ] {
            let why = words(query).unwrap_err().to_string();
            assert!(why.contains(want), "{query}: {why}");
        }
    }

    #[test]
    fn a_zone_changes_when_it_says() {
        let zone = Zone::read("3600@100,7200@200,3600").unwrap();
        assert_eq!([99, 100, 199, 200].map(|at| zone.at(at)), [3600, 7200, 7200, 3600]);
        assert_eq!(Zone::read(&zone.text()), Some(zone));
        assert_eq!(Zone::read("-18000").unwrap().at(0), -18_000);
        for bad in ["", "x", "1,2", "3600@200,7200@100,0", "99999999", "1@2"] {
            assert_eq!(Zone::read(bad), None, "{bad}");
        }
    }
}
