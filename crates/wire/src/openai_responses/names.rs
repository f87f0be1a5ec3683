//! Tools in a namespace, under one name each: other protocols know plain names only.
//!
//! A name with a slash is no name of a function in any protocol, so none is ever taken for one in a namespace.

use std::borrow::Cow;

/// The namespace of tools that are in none.
const DEFAULT: &str = "functions";

/// The one name of a tool.
pub(super) fn join<'a>(namespace: Option<&str>, name: Cow<'a, str>) -> Cow<'a, str> {
    match namespace {
        Some(namespace) if !namespace.is_empty() && namespace != DEFAULT => format!("{namespace}/{name}").into(),
        _ => name,
    }
}

/// The namespace and the name of a tool in it.
pub(super) fn split(name: &str) -> (Option<&str>, &str) {
    match name.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => (Some(namespace), name),
        _ => (None, name),
    }
}
