//! Members of an answer for which its reader has no use: found while it is read, so that they can be named as lost.

use std::borrow::Cow;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::loss::Losses;

/// Names that are kept of one object; an upstream that has more to say than that is told of no further.
const MOST: usize = 128;

/// The members of one object that say something and are not read.
#[derive(Debug, Default)]
#[expect(clippy::box_collection, reason = "there are nearly never any, and objects with it are moved about")]
pub(crate) struct Unread<'a>(Option<Box<Vec<Cow<'a, str>>>>);

impl<'a> Unread<'a> {
    /// Takes the value of a member that nobody reads.
    #[inline(never)]
    pub(crate) fn member<A: MapAccess<'a>>(&mut self, key: Cow<'a, str>, map: &mut A) -> Result<(), A::Error> {
        if let Some(value) = map.next_value::<Option<&'a RawValue>>()?
            && says(value.get())
        {
            self.keep(key);
        }
        Ok(())
    }

    #[cold]
    fn keep(&mut self, key: Cow<'a, str>) {
        let names = self.0.get_or_insert_default();
        if names.len() < MOST {
            names.push(key);
        }
    }

    /// Whether there are none.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Names them as lost, behind the names of the objects that they are in.
    #[inline]
    pub(crate) fn name(&self, losses: &mut Losses, within: &[&str]) {
        if let Some(names) = &self.0 {
            each(names, losses, within);
        }
    }
}

#[cold]
fn each(names: &[Cow<'_, str>], losses: &mut Losses, within: &[&str]) {
    names.iter().for_each(|name| losses.left_out(within, name));
}

/// Whether a JSON value says anything: `null`, empty texts, lists and objects, and what is made of such, do not.
pub(crate) fn says(json: &str) -> bool {
    match json.as_bytes() {
        b"null" | b"\"\"" | b"[]" | b"{}" | b"" => false,
        // What lies too deep to be looked through is something.
        [b'[' | b'{', ..] => serde_json::from_str::<Says>(json).map_or(true, |says| says.0),
        _ => true,
    }
}

struct Says(bool);

impl<'de> Deserialize<'de> for Says {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SaysVisitor;
        impl<'de> Visitor<'de> for SaysVisitor {
            type Value = Says;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a value")
            }
            fn visit_unit<E: Error>(self) -> Result<Says, E> {
                Ok(Says(false))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Says, E> {
                Ok(Says(!text.is_empty()))
            }
            fn visit_bool<E: Error>(self, _: bool) -> Result<Says, E> {
                Ok(Says(true))
            }
            fn visit_u64<E: Error>(self, _: u64) -> Result<Says, E> {
                Ok(Says(true))
            }
            fn visit_i64<E: Error>(self, _: i64) -> Result<Says, E> {
                Ok(Says(true))
            }
            fn visit_f64<E: Error>(self, _: f64) -> Result<Says, E> {
                Ok(Says(true))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Says, A::Error> {
                while let Some(Says(says)) = list.next_element()? {
                    if says {
                        while list.next_element::<IgnoredAny>()?.is_some() {}
                        return Ok(Says(true));
                    }
                }
                Ok(Says(false))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Says, A::Error> {
                while let Some((IgnoredAny, Says(says))) = map.next_entry()? {
                    if says {
                        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                        return Ok(Says(true));
                    }
                }
                Ok(Says(false))
            }
        }
        deserializer.deserialize_any(SaysVisitor)
    }
}

/// Declares an object of an upstream's answer: fields that are read as their type, where absent and `null` are the same;
/// the members that are passed by, because they mean nothing to a client or it is told of them otherwise; and `unread`,
/// the names of all others that say something. A field that is given twice is an error. Where nothing is passed by, it is
/// `_ = ""`: no member has an empty name.
macro_rules! answer {
    ($(#[$doc:meta])* $name:ident<$a:lifetime> {
        $($(#[$field_doc:meta])* $field:ident: $type:ty = $key:pat,)*
        _ = $passed:pat,
    }) => {
        $(#[$doc])*
        #[derive(Debug, Default)]
        struct $name<$a> {
            $($(#[$field_doc])* $field: Option<$type>,)*
            unread: $crate::unread::Unread<$a>,
        }

        impl<'de: $a, $a> serde::Deserialize<'de> for $name<$a> {
            #[inline]
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                #[expect(non_camel_case_types, reason = "they are called as the fields are")]
                enum Key<'k> {
                    $($field,)*
                    passed_by,
                    unknown(std::borrow::Cow<'k, str>),
                }
                impl<'de> serde::Deserialize<'de> for Key<'de> {
                    #[inline]
                    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                        struct KeyVisitor;
                        impl<'de> serde::de::Visitor<'de> for KeyVisitor {
                            type Value = Key<'de>;
                            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                                f.write_str("a name")
                            }
                            #[inline]
                            fn visit_borrowed_str<E: serde::de::Error>(self, key: &'de str) -> Result<Self::Value, E> {
                                Ok(match key {
                                    $($key => Key::$field,)*
                                    $passed => Key::passed_by,
                                    other => Key::unknown(other.into()),
                                })
                            }
                            #[inline]
                            fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<Self::Value, E> {
                                Ok(match key {
                                    $($key => Key::$field,)*
                                    $passed => Key::passed_by,
                                    other => Key::unknown(other.to_owned().into()),
                                })
                            }
                        }
                        deserializer.deserialize_identifier(KeyVisitor)
                    }
                }
                struct AnswerVisitor<$a>(std::marker::PhantomData<&$a ()>);
                impl<'de: $a, $a> serde::de::Visitor<'de> for AnswerVisitor<$a> {
                    type Value = $name<$a>;
                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("an object")
                    }
                    #[inline]
                    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                        $(let mut $field: Option<Option<$type>> = None;)*
                        let mut unread = $crate::unread::Unread::default();
                        while let Some(key) = map.next_key::<Key<'de>>()? {
                            match key {
                                $(Key::$field => {
                                    if $field.is_some() {
                                        return Err(serde::de::Error::duplicate_field(stringify!($field)));
                                    }
                                    $field = Some(map.next_value()?);
                                })*
                                Key::passed_by => {
                                    map.next_value::<serde::de::IgnoredAny>()?;
                                }
                                Key::unknown(key) => unread.member(key, &mut map)?,
                            }
                        }
                        Ok($name { $($field: $field.flatten(),)* unread })
                    }
                }
                deserializer.deserialize_map(AnswerVisitor(std::marker::PhantomData))
            }
        }
    };
}
pub(crate) use answer;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::Str;

    answer! {
        /// As a protocol folder would declare it.
        Sample<'a> {
            name: Str<'a> = "name" | "alias",
            count: u64 = "count",
            _ = "id" | "object",
        }
    }

    fn read(text: &str) -> (Sample<'_>, String) {
        let (sample, mut losses) = (serde_json::from_str::<Sample<'_>>(text).unwrap(), Losses::default());
        sample.unread.name(&mut losses, &["a", "b"]);
        (sample, losses.to_string())
    }

    #[test]
    fn what_says_something_and_is_not_read_is_named() {
        let (sample, lost) = read(r#"{"id":7,"alias":"n","new":0,"count":null,"object":{"x":1},"\u006f":[null,[2]]}"#);
        assert_eq!((sample.name.as_deref(), sample.count, &*lost), (Some("n"), None, "a.b.new, a.b.o"));
        assert!(serde_json::from_str::<Sample<'_>>(r#"{"name":"a","alias":"b"}"#).is_err());
        assert!(serde_json::from_str::<Sample<'_>>("[]").is_err());
    }

    #[test]
    fn what_is_empty_all_through_says_nothing() {
        for (json, want) in [
            ("null", false),
            ("\"\"", false),
            ("[ ]", false),
            ("{ }", false),
            (r#"{"content":[],"refusal":null,"x":[{},""]}"#, false),
            (r#"{"content":[],"refusal":[null,{"a":0}],"b":1}"#, true),
            ("false", true),
            ("0", true),
            ("[-1,2]", true),
            ("[1.5]", true),
            ("[true]", true),
            (r#"["x"]"#, true),
        ] {
            assert_eq!(says(json), want, "{json}");
        }
    }

    #[test]
    fn what_lies_deep_is_read_all_the_same_and_names_are_bounded() {
        let deep = format!(r#"{{"deep":{}{},"name":"n"}}"#, "[".repeat(5000), "]".repeat(5000));
        let (sample, lost) = read(&deep);
        assert_eq!((sample.name.as_deref(), &*lost), (Some("n"), "a.b.deep"));
        let many: Vec<String> = (0..5000).map(|n| format!("\"m{n}\":1")).collect();
        let all = format!("{{{}}}", many.join(","));
        let (sample, lost) = read(&all);
        assert_eq!(sample.unread.0.unwrap().len(), MOST);
        assert!(lost.ends_with(", and 64 more"), "{lost}");
    }
}
