//! A cheap fold over the events of a streamed answer: what has begun, what has ended, and how.
//!
//! It parses only what can carry news. It can never fail: an event that it cannot read changes nothing.

use crate::sse::RawEvent;

/// How far a streamed answer has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Progress {
    /// Nothing but comments and pings so far.
    #[default]
    Nothing,
    /// The first event of content has been seen.
    Begun,
    /// The event that ends every whole answer has been seen.
    Ended,
    /// The upstream said, inside the stream, that it failed.
    Failed,
}

/// Follows one stream of the Anthropic Messages protocol.
#[derive(Debug, Clone, Default)]
pub struct Meter {
    progress: Progress,
}

impl Meter {
    /// How far the stream has come.
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// Whether the event that ends the stream, well or badly, has been seen.
    pub fn is_over(&self) -> bool {
        self.progress >= Progress::Ended
    }

    /// Looks at the next event.
    pub fn event(&mut self, event: &RawEvent<'_>) {
        if self.is_over() {
            return;
        }
        match event.name() {
            Some(b"content_block_delta") if self.progress == Progress::Begun => {}
            Some(b"message_stop") => self.progress = Progress::Ended,
            Some(b"error") => self.progress = Progress::Failed,
            Some(b"ping") | None => {}
            Some(_) => self.progress = Progress::Begun,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sse::Splitter;

    fn fold(stream: &str) -> Progress {
        let (mut splitter, mut meter) = (Splitter::new(1 << 20), Meter::default());
        splitter.push(stream.as_bytes(), |event| meter.event(&event));
        meter.progress()
    }

    #[test]
    fn pings_and_comments_are_no_beginning() {
        assert_eq!(fold(": hi\n\nevent: ping\ndata: {}\n\n"), Progress::Nothing);
        assert_eq!(fold("event: ping\ndata: {}\n\nevent: message_start\ndata: {}\n\n"), Progress::Begun);
    }

    #[test]
    fn an_answer_ends_with_its_last_event_and_not_with_its_name_in_a_text() {
        assert_eq!(fold("event: content_block_delta\ndata: event: message_stop\n\n"), Progress::Begun);
        assert_eq!(fold("event: message_stop\ndata: {}\n\n"), Progress::Ended);
        assert_eq!(fold("event: message_stop\ndata: {}"), Progress::Nothing);
        assert_eq!(fold("event: error\ndata: {}\n\nevent: message_stop\ndata: {}\n\n"), Progress::Failed);
    }
}
