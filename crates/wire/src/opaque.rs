//! What only its own protocol understands, carried unopened: sealed reasoning, and fields and blocks without a neutral form.

use std::borrow::Cow;

use crate::json::Json;
use crate::loss::{Place, Weight};
use crate::protocol::Protocol;

/// What a sealed text begins with that is not the carrying protocol's own. No provider's does.
pub const MARK: &str = "cco1:";

/// What stands where a signature has to be and there is none: nobody's, and so never taken for the provider's own.
pub const UNSIGNED: &str = "cco1:none:0:";

/// Reasoning that a provider sealed, and wants back unchanged in the next turn.
///
/// A protocol that has one field for such a text carries its own as they are, and those of others [sealed](Self::seal)
/// with the name of their origin: so the reasoning of every provider survives a client that speaks another protocol, and
/// none is ever taken for that of another provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opaque<'a> {
    /// Whose it is.
    pub origin: Protocol,
    /// The id of the item, where the protocol has one.
    pub id: Option<Cow<'a, str>>,
    /// The sealed text. Empty where the origin does not seal: then the mark only says whose the plain text is.
    pub data: Cow<'a, str>,
}

impl<'a> Opaque<'a> {
    /// As it stands in the field of the protocol `of`: its own text bare, a foreign one marked.
    pub fn seal(&self, of: Protocol) -> Cow<'_, str> {
        if self.origin == of && self.id.is_none() {
            return Cow::Borrowed(&self.data);
        }
        let id = self.id.as_deref().unwrap_or_default();
        Cow::Owned(format!("{MARK}{}:{}:{id}{}", self.origin.as_str(), id.len(), self.data))
    }

    /// Reads the field of the protocol `of`. A mark that cannot be read is nobody's: `None`.
    pub fn open(of: Protocol, text: Cow<'a, str>) -> Option<Self> {
        if !text.starts_with(MARK) {
            return Some(Self { origin: of, id: None, data: text });
        }
        let mut parts = text[MARK.len()..].splitn(3, ':');
        let origin = Protocol::from_name(parts.next()?)?;
        let (length, rest) = (parts.next()?.parse().ok()?, parts.next()?);
        let (id, data) = rest.split_at_checked(length)?;
        let id = (!id.is_empty()).then(|| Cow::Owned(id.to_owned()));
        Some(Self { origin, id, data: Cow::Owned(data.to_owned()) })
    }

    /// The same in memory of its own.
    pub fn into_owned(self) -> Opaque<'static> {
        let id = self.id.map(|id| Cow::Owned(id.into_owned()));
        Opaque { origin: self.origin, id, data: Cow::Owned(self.data.into_owned()) }
    }

    /// The same without a copy.
    pub fn borrowed(&self) -> Opaque<'_> {
        let id = self.id.as_deref().map(Cow::Borrowed);
        Opaque { origin: self.origin, id, data: Cow::Borrowed(&self.data) }
    }
}

/// A field, block or item that only one protocol has. That protocol's encoder writes it back; every other encoder drops
/// it, with the loss that the decoder, who knows what it means, has weighed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extra<'a> {
    /// Whose it is.
    pub origin: Protocol,
    /// The field's name, or the block's or item's `type`.
    pub name: Cow<'a, str>,
    /// The field's value, or the whole block or item.
    pub value: Json<'a>,
    /// What it means to leave it out.
    pub weight: Weight,
}

impl<'a> Extra<'a> {
    /// What only the protocol `origin` knows.
    pub fn new(origin: Protocol, name: impl Into<Cow<'a, str>>, value: impl Into<Json<'a>>, weight: Weight) -> Self {
        Self { origin, name: name.into(), value: value.into(), weight }
    }

    /// The same, named by where it stands in the request: for what has no other place there.
    pub fn at(self, place: Place) -> Self {
        Self { name: format!("{place}.{}", self.name).into(), ..self }
    }

    /// The same in memory of its own.
    pub fn into_owned(self) -> Extra<'static> {
        let name = Cow::Owned(self.name.into_owned());
        Extra { origin: self.origin, name, value: self.value.into_owned(), weight: self.weight }
    }

    /// The same without a copy.
    pub fn borrowed(&self) -> Extra<'_> {
        let name = Cow::Borrowed(&*self.name);
        Extra { origin: self.origin, name, value: self.value.borrowed(), weight: self.weight }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_protocols_own_text_stays_bare_and_a_foreign_one_is_marked() {
        let own = Opaque { origin: Protocol::AnthropicMessages, id: None, data: "RklY==".into() };
        assert_eq!(own.seal(Protocol::AnthropicMessages), "RklY==");
        assert_eq!(own.seal(Protocol::OpenAiResponses), "cco1:anthropic:0:RklY==");
        for odd in ["cco1:", "cco1:x:0:", "cco1:anthropic:9:short", "cco1:anthropic:1:é", "cco1:anthropic:-1:a"] {
            assert_eq!(Opaque::open(Protocol::AnthropicMessages, odd.into()), None, "{odd}");
        }
    }

    proptest! {
        #[test]
        fn what_was_sealed_is_opened_as_it_was(id in proptest::option::of(".{1,9}"), data in "[^c].{0,20}", of in 0..4usize) {
            let origin = Protocol::OpenAiResponses;
            let opaque = Opaque { origin, id: id.map(Cow::Owned), data: data.into() };
            let of = Protocol::ALL[of];
            prop_assert_eq!(Opaque::open(of, opaque.seal(of)), Some(opaque.clone()));
        }
    }
}
