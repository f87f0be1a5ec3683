//! JSON that is handed on as the text it came as, and JSON that is written without being built first.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserializer, Error, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

/// One JSON value as the text that it was written as: key order, number forms and unknown keys survive.
#[derive(Clone, PartialEq, Eq)]
pub struct Json<'a>(Cow<'a, str>);

impl<'a> Json<'a> {
    /// An empty object.
    pub const EMPTY: Json<'static> = Json(Cow::Borrowed("{}"));

    /// The text, if it is one JSON value.
    pub fn parse(text: impl Into<Cow<'a, str>>) -> Option<Self> {
        Self::read_from(text.into()).ok()
    }

    /// The text as one JSON value, or the text again.
    pub fn read_from(text: Cow<'a, str>) -> Result<Self, Cow<'a, str>> {
        if serde_json::from_str::<IgnoredAny>(&text).is_err() {
            return Err(text);
        }
        Ok(Self(match text {
            Cow::Borrowed(text) => Cow::Borrowed(text.trim_ascii()),
            Cow::Owned(text) if text.trim_ascii().len() < text.len() => Cow::Owned(text.trim_ascii().to_owned()),
            owned => owned,
        }))
    }

    /// A string as JSON.
    pub fn string(text: &str) -> Json<'static> {
        let mut out = Vec::new();
        string(&mut out, text);
        Json(Cow::Owned(String::from_utf8(out).expect("it is written from text")))
    }

    /// The object that `fill` writes.
    pub fn object(fill: impl FnOnce(&mut Writer<'_>)) -> Json<'static> {
        let mut out = Vec::new();
        object(&mut out, fill);
        Json(Cow::Owned(String::from_utf8(out).expect("it is written from text")))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is an object.
    pub fn is_object(&self) -> bool {
        self.0.starts_with('{')
    }

    /// Reads it as a value of some type.
    pub fn read<'de, T: Deserialize<'de>>(&'de self) -> serde_json::Result<T> {
        serde_json::from_str(&self.0)
    }

    /// The same in memory of its own.
    pub fn into_owned(self) -> Json<'static> {
        Json(Cow::Owned(self.0.into_owned()))
    }

    /// The same without a copy.
    pub fn borrowed(&self) -> Json<'_> {
        Json(Cow::Borrowed(&self.0))
    }
}

impl fmt::Debug for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'a> From<&'a RawValue> for Json<'a> {
    fn from(raw: &'a RawValue) -> Self {
        Self(Cow::Borrowed(raw.get()))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Json<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&'de RawValue>::deserialize(deserializer).map(Self::from)
    }
}

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_str(&self.0).map_err(serde::ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

/// The methods of a visitor that make its value of a string, borrowed where it has no escapes.
macro_rules! texts {
    ($de:lifetime, $made:expr) => {
        fn visit_borrowed_str<E: serde::de::Error>(self, text: &$de str) -> Result<Self::Value, E> {
            Ok($made(std::borrow::Cow::Borrowed(text)))
        }
        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
            Ok($made(std::borrow::Cow::Owned(text.to_owned())))
        }
    };
}
pub(crate) use texts;

/// A JSON string, borrowed where it has no escapes, also within an `Option` or a list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Str<'a>(pub Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Str<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct StrVisitor;
        impl<'de> Visitor<'de> for StrVisitor {
            type Value = Str<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            texts!('de, Str);
            fn visit_string<E: Error>(self, text: String) -> Result<Str<'de>, E> {
                Ok(Str(Cow::Owned(text)))
            }
        }
        deserializer.deserialize_str(StrVisitor)
    }
}

impl std::ops::Deref for Str<'_> {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

/// A string, or a list: many fields of requests take both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextOr<'a, T> {
    /// The string.
    Text(Cow<'a, str>),
    /// The list.
    List(Vec<T>),
}

impl<'de: 'a, 'a, T: Deserialize<'de>> Deserialize<'de> for TextOr<'a, T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EitherVisitor<'a, T>(PhantomData<(&'a (), T)>);
        impl<'de: 'a, 'a, T: Deserialize<'de>> Visitor<'de> for EitherVisitor<'a, T> {
            type Value = TextOr<'a, T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list")
            }
            texts!('de, TextOr::Text);
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut elements = Vec::new();
                while let Some(element) = list.next_element()? {
                    elements.push(element);
                }
                Ok(TextOr::List(elements))
            }
        }
        deserializer.deserialize_any(EitherVisitor(PhantomData))
    }
}

/// A list without what is `null` in it.
#[derive(Debug)]
pub(crate) struct Present<T>(pub(crate) Vec<T>);

impl<T> Default for Present<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Present<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PresentVisitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for PresentVisitor<T> {
            type Value = Present<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut elements = Vec::new();
                while let Some(element) = list.next_element::<Option<T>>()? {
                    elements.extend(element);
                }
                Ok(Present(elements))
            }
        }
        deserializer.deserialize_seq(PresentVisitor(PhantomData))
    }
}

/// Declares the object of a protocol: fields that are read as their type, where absent and `null` are the same, and
/// `rest`, every other member in its order, so that nothing is overlooked. A field that is given twice is an error.
macro_rules! record {
    ($(#[$doc:meta])* $name:ident<$a:lifetime> { $($field:ident: $type:ty = $key:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Default)]
        pub(crate) struct $name<$a> {
            $(pub(crate) $field: Option<$type>,)*
            pub(crate) rest: Vec<(std::borrow::Cow<$a, str>, $crate::json::Json<$a>)>,
        }

        impl<'de: $a, $a> serde::Deserialize<'de> for $name<$a> {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct RecordVisitor<$a>(std::marker::PhantomData<&$a ()>);
                impl<'de: $a, $a> serde::de::Visitor<'de> for RecordVisitor<$a> {
                    type Value = $name<$a>;
                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("an object")
                    }
                    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                        use serde::de::Error;
                        let mut record = $name::default();
                        $(let mut $field = false;)*
                        while let Some(key) = map.next_key::<$crate::json::Str<'de>>()? {
                            match &*key {
                                $($key => {
                                    if std::mem::replace(&mut $field, true) {
                                        return Err(A::Error::custom(concat!("`", $key, "` is given twice")));
                                    }
                                    let value = map.next_value::<Option<$type>>();
                                    record.$field = value.map_err(|e| $crate::json::within::<A::Error>($key, &e))?;
                                })*
                                _ => {
                                    if let Some(value) = map.next_value::<Option<$crate::json::Json<'de>>>()? {
                                        record.rest.push((key.0, value));
                                    }
                                }
                            }
                        }
                        Ok(record)
                    }
                }
                deserializer.deserialize_map(RecordVisitor(std::marker::PhantomData))
            }
        }
    };
}
pub(crate) use record;

/// An error with the field that it is in before it.
pub(crate) fn within<E: Error>(key: &str, error: &E) -> E {
    let text = error.to_string();
    // serde_json tells line and column; those of the outermost field are told once more, and one telling is enough.
    let text = text.rfind(" at line ").map_or(&*text, |at| &text[..at]);
    if text.starts_with('`') && !text.ends_with("twice") {
        return E::custom(format_args!("`{key}.{}", &text[1..]));
    }
    E::custom(format_args!("`{key}`: {text}"))
}

/// Writes the members of one object, or the elements of one list, straight into a buffer.
///
/// ```
/// let mut out = Vec::new();
/// wire::json::object(&mut out, |o| {
///     o.str("model", "m").uint("n", 1);
///     o.list("stop", |l| l.push_str("\n"));
/// });
/// assert_eq!(out, br#"{"model":"m","n":1,"stop":["\n"]}"#);
/// ```
#[derive(Debug)]
pub struct Writer<'w> {
    out: &'w mut Vec<u8>,
    begun: bool,
}

/// Writes an object at the end of `out`.
pub fn object(out: &mut Vec<u8>, fill: impl FnOnce(&mut Writer<'_>)) {
    out.push(b'{');
    fill(&mut Writer { out, begun: false });
    out.push(b'}');
}

/// Writes a list at the end of `out`.
pub fn list(out: &mut Vec<u8>, fill: impl FnOnce(&mut Writer<'_>)) {
    out.push(b'[');
    fill(&mut Writer { out, begun: false });
    out.push(b']');
}

/// Writes a string with its quotes and escapes at the end of `out`.
pub fn string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    escape(out, text);
    out.push(b'"');
}

/// Whether a text stands for itself between the quotes of a string: it has no quote, no backslash and no control
/// character. (U+007F counts as one: JSON takes it as it is, a terminal does not.)
pub fn is_plain(text: &str) -> bool {
    const fn each(byte: u8) -> u64 {
        u64::from_ne_bytes([byte; 8])
    }
    // The highest bit of a byte that is zero, or that is below 0x20; perhaps of others above the first of them.
    let zero = |eight: u64| eight.wrapping_sub(each(1)) & !eight;
    let special = |eight: u64| {
        let control = eight.wrapping_sub(each(0x20)) & !eight;
        (control | zero(eight ^ each(b'"')) | zero(eight ^ each(b'\\')) | zero(eight ^ each(0x7f))) & each(0x80)
    };
    let bytes = text.as_bytes();
    match bytes.last_chunk() {
        // Eight at a time and without a stop; the last eight may have been among those before.
        Some(last) => {
            let eights = bytes.as_chunks().0.iter().chain([last]);
            eights.fold(0, |found, eight| found | special(u64::from_le_bytes(*eight))) == 0
        }
        None => !bytes.iter().any(|byte| matches!(byte, ..0x20 | b'"' | b'\\' | 0x7f)),
    }
}

/// Bytes of a text that is probably plain.
const SHORT: usize = 64;

/// Writes the inside of a string, without quotes.
pub fn escape(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    // Long ones nearly always have ends of lines.
    if bytes.len() <= SHORT && is_plain(text) {
        return out.extend_from_slice(bytes);
    }
    let mut from = 0;
    for (at, byte) in bytes.iter().enumerate() {
        let short = match byte {
            b'"' => b'"',
            b'\\' => b'\\',
            0x20.. => continue,
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            _ => b'u',
        };
        out.extend_from_slice(&bytes[from..at]);
        from = at + 1;
        if short == b'u' {
            const HEX: &[u8; 16] = b"0123456789abcdef";
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        } else {
            out.extend_from_slice(&[b'\\', short]);
        }
    }
    out.extend_from_slice(&bytes[from..]);
}

/// The same JSON where it has halves of characters (`\ud83d` without `\ude00`), each with U+FFFD in its place; `None` where
/// there are none. Programs that count in UTF-16 cut a text between the two, and no reader takes a half.
pub fn whole_characters(json: &str) -> Option<String> {
    let unit = |at: usize| {
        let digits = json.get(at..at + 6)?.strip_prefix("\\u")?;
        u16::from_str_radix(digits, 16).ok()
    };
    let (mut out, mut from, mut at) = (String::new(), 0, 0);
    while let Some(next) = memchr::memchr(b'\\', &json.as_bytes()[at..]) {
        at += next;
        match (unit(at), unit(at + 6)) {
            (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => at += 12,
            (Some(0xD800..=0xDFFF), _) => {
                out.push_str(&json[from..at]);
                out.push_str("\\ufffd");
                at += 6;
                from = at;
            }
            _ => at = (at + 2).min(json.len()),
        }
    }
    (from > 0).then(|| out + &json[from..])
}

/// Writes a whole number in decimal digits.
pub fn digits(out: &mut Vec<u8>, mut n: u64) {
    let mut text = [0; 20];
    let mut at = text.len();
    loop {
        at -= 1;
        text[at] = b'0' + (n % 10) as u8;
        n /= 10;
        if n == 0 {
            break;
        }
    }
    out.extend_from_slice(&text[at..]);
}

/// Writes a value in one line: between the tokens of JSON a line end means what a space means.
fn one_line(out: &mut Vec<u8>, json: &str) {
    let from = out.len();
    out.extend_from_slice(json.as_bytes());
    if memchr::memchr2(b'\n', b'\r', &out[from..]).is_some() {
        out[from..].iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
    }
}

impl Writer<'_> {
    fn comma(&mut self) {
        if std::mem::replace(&mut self.begun, true) {
            self.out.push(b',');
        }
    }

    fn key(&mut self, key: &str) -> &mut Vec<u8> {
        self.comma();
        string(self.out, key);
        self.out.push(b':');
        self.out
    }

    /// A member that is a string.
    pub fn str(&mut self, key: &str, value: &str) -> &mut Self {
        string(self.key(key), value);
        self
    }

    /// A member that is a string, if there is one.
    pub fn str_if(&mut self, key: &str, value: Option<&str>) -> &mut Self {
        if let Some(value) = value {
            self.str(key, value);
        }
        self
    }

    /// A member that is a string, or `null`.
    pub fn str_or_null(&mut self, key: &str, value: Option<&str>) -> &mut Self {
        match value {
            Some(value) => self.str(key, value),
            None => self.null(key),
        }
    }

    /// A member that is a whole number.
    pub fn uint(&mut self, key: &str, value: u64) -> &mut Self {
        digits(self.key(key), value);
        self
    }

    /// A member that is a number; one that JSON cannot express is `null`.
    pub fn number(&mut self, key: &str, value: f64) -> &mut Self {
        let text = serde_json::Number::from_f64(value).map_or_else(|| "null".to_owned(), |n| n.to_string());
        self.raw(key, &text)
    }

    /// A member that is true or false.
    pub fn bool(&mut self, key: &str, value: bool) -> &mut Self {
        self.raw(key, if value { "true" } else { "false" })
    }

    /// A member that is `null`.
    pub fn null(&mut self, key: &str) -> &mut Self {
        self.raw(key, "null")
    }

    /// A member whose value is JSON already.
    pub fn raw(&mut self, key: &str, json: &str) -> &mut Self {
        one_line(self.key(key), json);
        self
    }

    /// A member whose value `fill` writes as JSON.
    pub fn with(&mut self, key: &str, fill: impl FnOnce(&mut Vec<u8>)) -> &mut Self {
        fill(self.key(key));
        self
    }

    /// A member that is an object.
    pub fn object(&mut self, key: &str, fill: impl FnOnce(&mut Writer<'_>)) -> &mut Self {
        object(self.key(key), fill);
        self
    }

    /// A member that is a list.
    pub fn list(&mut self, key: &str, fill: impl FnOnce(&mut Writer<'_>)) -> &mut Self {
        list(self.key(key), fill);
        self
    }

    /// An element that is a string.
    pub fn push_str(&mut self, value: &str) {
        self.comma();
        string(self.out, value);
    }

    /// An element that is JSON already.
    pub fn push_raw(&mut self, json: &str) {
        self.comma();
        one_line(self.out, json);
    }

    /// An element that is an object.
    pub fn push_object(&mut self, fill: impl FnOnce(&mut Writer<'_>)) {
        self.comma();
        object(self.out, fill);
    }

    /// The members of an object that is JSON already, less those that `leave` names.
    pub fn members(&mut self, json: &Json<'_>, leave: &[&str]) {
        for (key, value) in members(json) {
            if !leave.contains(&&*key) {
                self.raw(&key, value.get());
            }
        }
    }
}

/// The members of an object in their order; none if it is no object.
pub fn members<'a>(json: &'a Json<'_>) -> Vec<(Cow<'a, str>, &'a RawValue)> {
    struct Members;
    impl<'de> Visitor<'de> for Members {
        type Value = Vec<(Cow<'de, str>, &'de RawValue)>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members = Vec::new();
            while let Some((key, value)) = map.next_entry::<Str<'de>, &'de RawValue>()? {
                members.push((key.0, value));
            }
            Ok(members)
        }
    }
    serde_json::Deserializer::from_str(&json.0).deserialize_map(Members).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_plain_text_is_one_that_is_written_as_it_is(text in "[ -~\u{1e}-\u{24}\u{7e}-\u{81}é]{0,40}", odd in "[\u{0}-\u{22}\\\\\u{7f}]?", at in 0usize..40) {
            let at = text.floor_char_boundary(at.min(text.len()));
            for text in [text.clone(), format!("{}{odd}{}", &text[..at], &text[at..])] {
                let is_special = |c: char| c < ' ' || matches!(c, '"' | '\\' | '\u{7f}');
                prop_assert_eq!(is_plain(&text), !text.contains(is_special), "{:?}", &text);
                let mut out = Vec::new();
                string(&mut out, &text);
                prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
            }
        }
    }

    #[test]
    fn json_keeps_the_form_of_numbers_and_the_order_of_keys() {
        let text = r#"{"b":1.0,"a":123456789012345678901234567890,"b":"\ud83d\ude00"}"#;
        let json = Json::parse(format!(" {text}\n")).unwrap();
        assert_eq!(json.as_str(), text);
        let mut out = Vec::new();
        object(&mut out, |o| o.members(&json, &["a"]));
        assert_eq!(String::from_utf8(out).unwrap(), r#"{"b":1.0,"b":"\ud83d\ude00"}"#);
        assert!(Json::parse("{} x").is_none() && Json::parse("").is_none() && Json::parse("{'a':1}").is_none());
    }

    #[test]
    fn halves_of_characters_are_replaced_and_whole_ones_stay() {
        let whole = |json: &str| whole_characters(json);
        for same in ["", "{}", r#""\ud83d\ude00""#, r#""\\ud83d""#, r#""\u00e9\n""#, r#""\"#, r#""\u12"#, "\"\u{e9}\""]
        {
            assert_eq!(whole(same), None, "{same}");
        }
        for (half, want) in [
            (r#""a\ud83d""#, r#""a\ufffd""#),
            (r#""\uDE00b""#, r#""\ufffdb""#),
            (r#""\ud83d\ud83d\ude00\\\ude00é""#, r#""\ufffd\ud83d\ude00\\\ufffdé""#),
            (r#""\ud83d\u00e9""#, r#""\ufffd\u00e9""#),
        ] {
            assert_eq!(whole(half).as_deref(), Some(want), "{half}");
            assert!(serde_json::from_str::<String>(want).is_ok());
        }
    }

    #[test]
    fn what_is_written_stays_in_one_line() {
        let mut out = Vec::new();
        list(&mut out, |l| l.push_raw("{\n \"a\":\r\n \"x\\n\"}"));
        assert_eq!(out, b"[{  \"a\":   \"x\\n\"}]");
    }

    #[test]
    fn a_string_within_an_option_is_borrowed() {
        let text: Option<Str<'_>> = serde_json::from_str("\"plain\"").unwrap();
        assert!(matches!(text.unwrap().0, Cow::Borrowed("plain")));
        let text: Option<Str<'_>> = serde_json::from_str("\"a\\nb\"").unwrap();
        assert_eq!(&*text.unwrap(), "a\nb");
    }

    record! {
        /// As a protocol folder would declare it.
        Sample<'a> {
            name: Str<'a> = "name",
            inner: Box<Sample<'a>> = "inner",
            list: TextOr<'a, u64> = "list",
        }
    }

    #[test]
    fn a_record_keeps_what_it_does_not_know_and_names_what_is_wrong() {
        let sample: Sample<'_> =
            serde_json::from_str(r#"{"name":"n","new":[1.0],"inner":null,"gone":null,"list":[1,2]}"#).unwrap();
        assert_eq!((sample.name.as_deref(), sample.inner.is_none()), (Some("n"), true));
        assert_eq!(sample.list, Some(TextOr::List(vec![1, 2])));
        assert_eq!(sample.rest, [("new".into(), Json::parse("[1.0]").unwrap())]);
        let error = |text: &str| serde_json::from_str::<Sample<'_>>(text).unwrap_err().to_string();
        assert!(
            error(r#"{"inner":{"inner":{"name":3}}}"#).starts_with("`inner.inner.name`: invalid type: integer `3`")
        );
        assert!(error(r#"{"name":"a","name":"b"}"#).starts_with("`name` is given twice"));
        assert!(error("[]").starts_with("invalid type: sequence, expected an object"));
    }

    proptest! {
        #[test]
        fn a_written_string_is_read_as_it_was(text in any::<String>(), control in "[\\x00-\\x1f\"\\\\]{0,8}") {
            let text = text + &control;
            let mut out = Vec::new();
            string(&mut out, &text);
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }

        #[test]
        fn written_digits_are_read_as_the_number(n in any::<u64>()) {
            let mut out = Vec::new();
            digits(&mut out, n);
            prop_assert_eq!(String::from_utf8(out).unwrap(), n.to_string());
        }
    }
}
