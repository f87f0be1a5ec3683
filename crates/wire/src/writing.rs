//! What the writers of requests and answers share.

use crate::json::Writer;
use crate::opaque::Extra;
use crate::protocol::Protocol;
use crate::request::Sampling;

/// The name of an answer: the upstream's with the prefix of the client's protocol, or one of our own.
pub(crate) fn answer_id(prefix: &str, upstream: &str, own: &str) -> String {
    match upstream {
        "" => format!("{prefix}{own}"),
        id if id.starts_with(prefix) => id.to_owned(),
        id => format!("{prefix}{id}"),
    }
}

/// How tokens are drawn, in the words that all protocols have in common.
pub(crate) fn sampling(o: &mut Writer<'_>, sampling: &Sampling) {
    let Sampling { temperature, top_p, top_k, presence_penalty, frequency_penalty, seed } = *sampling;
    for (name, value) in [
        ("temperature", temperature),
        ("top_p", top_p),
        ("presence_penalty", presence_penalty),
        ("frequency_penalty", frequency_penalty),
    ] {
        if let Some(value) = value {
            o.number(name, value);
        }
    }
    if let Some(top_k) = top_k {
        o.uint("top_k", top_k);
    }
    if let Some(seed) = seed {
        o.raw("seed", &seed.to_string());
    }
}

/// Members that only the protocol `own` knows.
pub(crate) fn extras<'e>(o: &mut Writer<'_>, own: Protocol, extras: impl IntoIterator<Item = &'e Extra<'e>>) {
    for extra in extras.into_iter().filter(|extra| extra.origin == own) {
        o.raw(&extra.name, extra.value.as_str());
    }
}

/// Fields of the top level that only the protocol `own` knows.
pub(crate) fn top_level(o: &mut Writer<'_>, own: Protocol, of: &[Extra<'_>]) {
    extras(o, own, of.iter().filter(|extra| !extra.name.contains('.')));
}

/// Members of a field's object that only the protocol `own` knows.
pub(crate) fn below(o: &mut Writer<'_>, own: Protocol, of: &[Extra<'_>], field: &str) {
    for (name, extra) in within(own, of, field) {
        o.raw(name, extra.value.as_str());
    }
}

/// Whether a field's object has members that only the protocol `own` knows.
pub(crate) fn has_below(own: Protocol, of: &[Extra<'_>], field: &str) -> bool {
    within(own, of, field).next().is_some()
}

fn within<'e>(own: Protocol, of: &'e [Extra<'e>], field: &str) -> impl Iterator<Item = (&'e str, &'e Extra<'e>)> {
    of.iter().filter(move |extra| extra.origin == own).filter_map(move |extra| {
        let name = extra.name.strip_prefix(field)?.strip_prefix('.')?;
        Some((name, extra))
    })
}
