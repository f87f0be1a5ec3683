//! Reasoning as it stands in an item: its text as a summary, and what its provider wants back in `encrypted_content`.

use std::borrow::Cow;

use super::OWN;
use crate::json::Writer;
use crate::opaque::{MARK, Opaque, UNSIGNED};
use crate::request::Thinking;

/// What stands in place of an id where another provider hides its thinking altogether.
const REDACTED: &str = "redacted";

/// What an item seals: whose it is, and whether its text is hidden altogether.
pub(super) fn open<'a>(id: Option<Cow<'a, str>>, encrypted: Option<Cow<'a, str>>) -> (Option<Opaque<'a>>, bool) {
    match encrypted {
        Some(text) if text.starts_with(MARK) => match Opaque::open(OWN, text) {
            Some(opaque) if opaque.origin != OWN && opaque.id.as_deref() == Some(REDACTED) => {
                (Some(Opaque { id: None, ..opaque }), true)
            }
            foreign => (foreign, false),
        },
        own => {
            let id = id.filter(|id| !id.is_empty());
            (Some(Opaque { origin: OWN, id, data: own.unwrap_or_default() }), false)
        }
    }
}

/// The content of `encrypted_content` for what is sealed; `None` where the provider itself sealed nothing.
pub(super) fn seal<'o>(opaque: Option<&'o Opaque<'_>>, redacted: bool) -> Option<Cow<'o, str>> {
    match opaque {
        Some(opaque) if opaque.origin == OWN => Some(Cow::Borrowed(&*opaque.data)).filter(|data| !data.is_empty()),
        Some(opaque) if redacted => {
            let hidden = Opaque { id: Some(Cow::Borrowed(REDACTED)), ..opaque.borrowed() };
            Some(Cow::Owned(hidden.seal(OWN).into_owned()))
        }
        Some(opaque) => Some(opaque.seal(OWN)),
        // Whoever reads it later must see that it is not OpenAI's.
        None => Some(Cow::Borrowed(UNSIGNED)),
    }
}

/// The id of the item that was read, where it is one of this protocol.
pub(super) fn id<'o>(opaque: Option<&'o Opaque<'_>>) -> Option<&'o str> {
    opaque.filter(|opaque| opaque.origin == OWN)?.id.as_deref()
}

/// The members of an item that reasoning is written as.
pub(super) fn write(o: &mut Writer<'_>, thinking: &Thinking<'_>) {
    o.list("summary", |list| {
        if !thinking.text.is_empty() {
            list.push_object(|o| {
                o.str("type", "summary_text").str("text", &thinking.text);
            });
        }
    });
    o.str_if("encrypted_content", seal(thinking.opaque.as_ref(), thinking.redacted).as_deref());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Protocol;

    #[test]
    fn the_reasoning_of_every_provider_comes_back_as_it_was() {
        let claude = |data: &'static str| Opaque { origin: Protocol::AnthropicMessages, id: None, data: data.into() };
        let own = Opaque { origin: OWN, id: Some("rs_1".into()), data: "gAAAA".into() };
        for (opaque, redacted) in [(claude("RklY"), false), (claude(""), false), (claude("hidden"), true)] {
            let text = seal(Some(&opaque), redacted).unwrap().into_owned();
            assert_eq!(open(Some("rs_9".into()), Some(text.into())), (Some(opaque), redacted));
        }
        assert_eq!((seal(Some(&own), false).as_deref(), id(Some(&own))), (Some("gAAAA"), Some("rs_1")));
        assert_eq!(open(Some("rs_1".into()), Some("gAAAA".into())), (Some(own), false));
        assert_eq!(open(None, seal(None, false)), (None, false), "nobody's stays nobody's");
        assert_eq!(open(None, Some("cco1:?".into())), (None, false), "a mark that cannot be read is nobody's");
    }
}
