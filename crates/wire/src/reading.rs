//! What the readers of all protocols share: JSON at a place of a request, and what has no neutral form.

use std::borrow::Cow;
use std::fmt::Display;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::{ApiError, ErrorKind};
use crate::json::{Json, Str};
use crate::loss::Weight;
use crate::opaque::Extra;
use crate::protocol::Protocol;

/// What is read, or the 400 that names the field.
pub(crate) type Read<T> = Result<T, ApiError>;

/// A 400 that names the field.
pub(crate) fn fault(place: impl Display, why: impl Display) -> ApiError {
    ApiError::new(ErrorKind::InvalidRequest, format!("{place}: {why}")).at(place)
}

/// The body of a request.
pub(crate) fn body<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Read<T> {
    let text = std::str::from_utf8(body).map_err(|_| fault("body", "it is not UTF-8"))?;
    serde_json::from_str(text)
        .map_err(|why| ApiError::new(ErrorKind::InvalidRequest, format!("the request body cannot be read: {why}")))
}

/// The JSON of one place of a request.
pub(crate) fn parse<'a, T: Deserialize<'a>>(raw: &'a RawValue, place: impl Display) -> Read<T> {
    serde_json::from_str(raw.get()).map_err(|why| fault(place, why))
}

/// The text of a field.
pub(crate) fn owned<'a>(text: Option<Str<'a>>) -> Option<Cow<'a, str>> {
    text.map(|Str(text)| text)
}

/// The text of a field, where it says something.
pub(crate) fn some<'a>(text: Option<Str<'a>>) -> Option<Cow<'a, str>> {
    owned(text).filter(|text| !text.is_empty())
}

/// Members without a neutral form, as [`record!`](crate::json::record) keeps them.
pub(crate) type Rest<'a> = Vec<(Cow<'a, str>, Json<'a>)>;

/// Members that only the protocol `own` knows; `weigh` says of a name and a value what they mean.
pub(crate) fn extras<'a>(
    own: Protocol,
    rest: Rest<'a>,
    weigh: impl Fn(&str, &str) -> Weight,
) -> impl Iterator<Item = Extra<'a>> {
    rest.into_iter().map(move |(name, value)| {
        let weight = weigh(&name, value.as_str());
        Extra::new(own, name, value, weight)
    })
}

/// Members of a field's object that only the protocol `own` knows: the field's name stands before theirs.
pub(crate) fn below<'a>(
    own: Protocol,
    field: &'static str,
    rest: Rest<'a>,
    weight: Weight,
) -> impl Iterator<Item = Extra<'a>> {
    rest.into_iter().map(move |(name, value)| Extra::new(own, format!("{field}.{name}"), value, weight))
}

/// What bytes in base64 are: as the client names it, or, where that is missing or says nothing, by how they begin. `None`:
/// no media type, which could not be told apart from the data in a `data:` URL.
pub(crate) fn media_type<'a>(named: Cow<'a, str>, data: &str) -> Option<Cow<'a, str>> {
    const BEGINNINGS: [(&str, &str); 5] = [
        ("iVBORw0KGgo", "image/png"),
        ("/9j/", "image/jpeg"),
        ("R0lGOD", "image/gif"),
        ("UklGR", "image/webp"),
        ("JVBERi", "application/pdf"),
    ];
    match &*named {
        "" | "application/octet-stream" => {
            let known = BEGINNINGS.iter().find(|(beginning, _)| data.starts_with(beginning));
            return known.map(|(_, media_type)| Cow::Borrowed(*media_type));
        }
        "image/jpg" => return Some("image/jpeg".into()),
        _ => {}
    }
    // RFC 6838, 4.2.
    let is_name =
        |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b));
    named.split_once('/').is_some_and(|(kind, within)| is_name(kind) && is_name(within)).then_some(named)
}

/// An answer that cannot be read.
pub(crate) fn unreadable() -> ApiError {
    ApiError::new(ErrorKind::BadGateway, "the upstream's answer cannot be read")
}

/// A whole answer, and its text.
pub(crate) fn answer<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<(&'a str, T), ApiError> {
    let text = std::str::from_utf8(body).map_err(|_| unreadable())?;
    Ok((text, serde_json::from_str(text).map_err(|_| unreadable())?))
}
