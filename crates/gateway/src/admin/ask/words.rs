//! The query of an address: its words and values, and where the one who asks is.

/// The words of a query with their values, percent-decoded; a word alone has an empty value.
pub(in crate::admin) fn words(query: &str) -> impl Iterator<Item = (String, String)> {
    query.split('&').filter(|part| !part.is_empty()).map(|part| {
        let (word, value) = part.split_once('=').unwrap_or((part, ""));
        (decoded(word), decoded(value))
    })
}

fn decoded(text: &str) -> String {
    let text = text.replace('+', " ");
    percent_encoding::percent_decode_str(&text).decode_utf8_lossy().into_owned()
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
        let all: Vec<_> = words("since=2h&failed&project=a%20b%26c+d&&x=%zz").collect();
        let want = [("since", "2h"), ("failed", ""), ("project", "a b&c d"), ("x", "%zz")];
        assert_eq!(all, want.map(|(word, value)| (word.to_owned(), value.to_owned())));
        let odd = "a&b=c d+é%";
        assert_eq!(words(&encoded("x", odd)).next(), Some(("x".into(), odd.into())));
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
