//! Lets only legal orders of events out of a decoder, whatever its upstream sends.

use crate::codec::Sink;
use crate::error::{ApiError, ErrorKind};
use crate::event::Event;
use crate::grammar::Grammar;

/// Stands between a decoder and those who rely on [the grammar](crate::grammar).
#[derive(Debug, Clone, Default)]
pub struct Guard {
    grammar: Grammar,
}

impl Guard {
    /// Hands an event on. One that is not legal here becomes the error that ends the answer; after the end there is
    /// nothing.
    pub fn emit(&mut self, event: Event<'_>, sink: &mut Sink<'_>) {
        if self.grammar.is_over() {
            return;
        }
        match self.grammar.event(&event) {
            Ok(()) => sink(event),
            Err(why) => self.fail(format!("the upstream's answer is out of order: {why}"), sink),
        }
    }

    /// Ends the answer: what the upstream sends is not an answer.
    pub fn fail(&mut self, message: impl Into<Box<str>>, sink: &mut Sink<'_>) {
        self.emit(Event::Error(ApiError::new(ErrorKind::BadGateway, message)), sink);
    }

    /// Ends the answer: the upstream closed before it was whole.
    pub fn truncated(&mut self, sink: &mut Sink<'_>) {
        self.fail("the upstream closed the stream before its answer was whole", sink);
    }

    /// Whether the answer has ended.
    pub fn is_over(&self) -> bool {
        self.grammar.is_over()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Block, Start};

    #[test]
    fn an_illegal_event_ends_the_answer_with_an_error() {
        let (mut guard, mut seen) = (Guard::default(), Vec::new());
        let mut sink = |event: Event<'_>| seen.push(format!("{event:?}"));
        for event in [Event::Start(Start::default()), Event::Close, Event::Ping, Event::Open(Block::Text)] {
            guard.emit(event, &mut sink);
        }
        assert!(seen.len() == 2 && seen[1].contains("out of order: the end of no block"), "{seen:#?}");
    }
}
