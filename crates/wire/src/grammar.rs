//! Which orders of events are legal: what every decoder promises and every encoder relies on.

use crate::event::{Block, Delta, Event};

/// Follows one answer and says where it is not legal.
#[derive(Debug, Clone, Default)]
pub struct Grammar {
    state: State,
    /// What the open block has had.
    open: Option<Open>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    Before,
    Within,
    Over,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    Text,
    Refusal,
    Thinking,
    /// Its signature has been given: nothing may follow.
    Sealed,
    Redacted,
    Call,
    Extra,
}

impl Grammar {
    /// The next event; an error names what it breaks.
    pub fn event(&mut self, event: &Event<'_>) -> Result<(), &'static str> {
        if self.state == State::Over {
            return Err("an event after the last one");
        }
        match (event, self.state) {
            (Event::Ping, _) => {}
            (Event::Error(_), _) => self.state = State::Over,
            (Event::Start(_), State::Before) => self.state = State::Within,
            (Event::Start(_), _) => return Err("a second start"),
            (_, State::Before) => return Err("an event before the start"),
            (Event::Open(_), _) if self.open.is_some() => return Err("a block within a block"),
            (Event::Open(block), _) => self.open = Some(opened(block)?),
            (Event::Delta(delta), _) => self.open = Some(fed(self.open.ok_or("a delta outside of a block")?, delta)?),
            (Event::Close, _) => drop(self.open.take().ok_or("the end of no block")?),
            (Event::Stop(_), _) if self.open.is_some() => return Err("the end within a block"),
            (Event::Stop(_), _) => self.state = State::Over,
        }
        Ok(())
    }

    /// Whether the answer has ended, well or badly.
    pub fn is_over(&self) -> bool {
        self.state == State::Over
    }
}

fn opened(block: &Block<'_>) -> Result<Open, &'static str> {
    Ok(match block {
        Block::Text => Open::Text,
        Block::Refusal => Open::Refusal,
        Block::Thinking => Open::Thinking,
        Block::Redacted(_) => Open::Redacted,
        Block::Call { name, .. } if name.is_empty() => return Err("a call without a name"),
        Block::Call { .. } => Open::Call,
        Block::Extra(_) => Open::Extra,
    })
}

fn fed(open: Open, delta: &Delta<'_>) -> Result<Open, &'static str> {
    match (open, delta) {
        (Open::Thinking, Delta::Opaque(_)) => Ok(Open::Sealed),
        (Open::Text | Open::Refusal | Open::Thinking, Delta::Text(_))
        | (Open::Text, Delta::Citation(_))
        | (Open::Call, Delta::Input(_))
        | (Open::Extra, Delta::Input(_))
        | (_, Delta::Extra(_)) => Ok(open),
        (Open::Sealed, _) => Err("more thinking after its signature"),
        _ => Err("a delta of another kind than its block"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Start, Stop, StopReason};

    #[track_caller]
    fn check(events: &[Event<'_>], want: Result<(), &str>) {
        let mut grammar = Grammar::default();
        let got = events.iter().try_for_each(|event| grammar.event(event));
        assert_eq!(got, want, "{events:?}");
    }

    #[test]
    fn one_block_is_open_at_a_time_and_each_takes_its_own_deltas() {
        let start = || Event::Start(Start::default());
        let call = |name: &'static str| Event::Open(Block::Call { id: "a".into(), name: name.into(), custom: false });
        let text = || Event::Delta(Delta::Text("x".into()));
        let stop = || Event::Stop(Stop::new(StopReason::EndTurn));
        check(&[Event::Ping, start(), Event::Open(Block::Text), text(), Event::Ping, Event::Close, stop()], Ok(()));
        check(&[start(), stop(), Event::Ping], Err("an event after the last one"));
        check(&[start(), start()], Err("a second start"));
        check(&[text()], Err("an event before the start"));
        check(&[start(), call("a"), call("b")], Err("a block within a block"));
        check(&[start(), call("")], Err("a call without a name"));
        check(&[start(), call("a"), text()], Err("a delta of another kind than its block"));
        check(&[start(), text()], Err("a delta outside of a block"));
        check(&[start(), Event::Close], Err("the end of no block"));
        check(&[start(), call("a"), stop()], Err("the end within a block"));
    }
}
