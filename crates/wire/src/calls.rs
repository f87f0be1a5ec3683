//! Calls of tools under names and ids that their client can send back, whichever provider is asked next.

use std::borrow::Cow;

use crate::codec::Back;
use crate::fit;

/// The longest id of a call that every provider takes.
const ID_MOST: usize = 40;
/// Shorter ones count the calls of one answer (`0`, `call_1`): the next answer has them again.
const ID_LEAST: usize = 8;
/// The longest name of a tool that any provider takes.
const NAME_MOST: usize = 128;
/// Calls of one answer whose ids are compared.
const COMPARED: usize = 1024;

/// The calls of one answer.
#[derive(Debug)]
pub(crate) struct Calls {
    /// Our id of the request: no two have the same.
    own: Box<str>,
    back: Back,
    /// The ids so far, and how many calls there have been.
    ids: Vec<Box<str>>,
    count: usize,
}

impl Calls {
    /// None yet, of the answer to a request with that id of ours.
    pub(crate) fn new(back: Back, own: &str) -> Self {
        Self { own: own.into(), back, ids: Vec::new(), count: 0 }
    }

    /// The id of the next call: the upstream's, where it is one that every provider takes, and that no other call of the
    /// conversation has as far as that can be told. A provider that is asked later refuses the whole conversation for an
    /// id that is not, and the client would keep it for good.
    pub(crate) fn id<'a>(&mut self, given: Cow<'a, str>) -> Cow<'a, str> {
        let id = if given.len() < ID_LEAST { self.own_id() } else { fitted(given, ID_MOST) };
        let is_known = self.ids.iter().any(|known| **known == *id);
        let id = if is_known { self.own_id() } else { id };
        self.count += 1;
        if self.ids.len() < COMPARED {
            self.ids.push((*id).into());
        }
        id
    }

    fn own_id(&self) -> Cow<'static, str> {
        let id = format!("call_{}_{}", self.own, self.count);
        Cow::Owned(fit::id(&id, ID_MOST).into_owned())
    }

    /// The name of the tool as the client knows it; one that it cannot know, because the model made it up, in a form that
    /// every provider takes.
    pub(crate) fn name<'a>(&self, sent: Cow<'a, str>) -> Cow<'a, str> {
        match self.back.known(&sent) {
            Some(known) => Cow::Owned(known.to_owned()),
            None => fitted(sent, NAME_MOST),
        }
    }

    /// Whether the tool of that name takes plain text from the client's side.
    pub(crate) fn takes_text(&self, name: &str) -> bool {
        self.back.custom.iter().any(|custom| **custom == *name)
    }
}

fn fitted(word: Cow<'_, str>, most: usize) -> Cow<'_, str> {
    let short = match fit::name(&word, most) {
        Cow::Borrowed(_) => None,
        Cow::Owned(short) => Some(short),
    };
    short.map_or(word, Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_calls_of_a_conversation_have_the_same_id() {
        let ids = |own: &str, given: &[&'static str]| {
            let mut calls = Calls::new(Back::default(), own);
            given.iter().map(|id| calls.id((*id).into()).into_owned()).collect::<Vec<_>>()
        };
        assert_eq!(ids("req_1", &["toolu_01abc", "call_00_x"]), ["toolu_01abc", "call_00_x"]);
        assert_eq!(ids("req_1", &["", "0", "0"]), ["call_req_1_0", "call_req_1_1", "call_req_1_2"]);
        assert_ne!(ids("req_1", &["call_0"]), ids("req_2", &["call_0"]));
        assert_eq!(ids("req_1", &["the_same_id", "the_same_id"]), ["the_same_id", "call_req_1_1"]);
        let odd = ids(
            "0199e5a2-7b4c-7def-8123-456789abcdef",
            &["functions.Bash:0", "", "chatcmpl-tool-0123456789abcdef0123456789abcdef"],
        );
        for id in &odd {
            assert!(id.len() <= 40 && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b)), "{id}");
        }
        assert!(odd[0].starts_with("functions_Bash_0_"), "{odd:?}");
    }

    #[test]
    fn a_name_is_the_clients_or_one_that_every_provider_takes() {
        let names = vec![("my_tool_0123".into(), "my.tool".into())];
        let calls = Calls::new(Back { names, custom: vec!["my.tool".into()] }, "req_1");
        assert_eq!(calls.name("my_tool_0123".into()), "my.tool");
        assert_eq!(calls.name("my.tool".into()), "my.tool", "as instructions call it");
        assert!(calls.takes_text("my.tool") && !calls.takes_text("Bash"));
        assert_eq!(calls.name("Bash".into()), "Bash");
        let made_up = calls.name("functions.Bash".into());
        assert!(made_up.starts_with("functions_Bash_"), "{made_up}");
    }
}
