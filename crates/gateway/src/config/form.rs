//! What may stand at a key, how it is read and what counts in its absence: the words of which the table of keys is made.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use jsonc_parser::ast::Value;
use serde_json::Value as Json;

use super::read::{Place, Reader, Wrong, mistyped, offset, properties};

/// One key of a section: the line of the table from which reading, documentation and schema are made.
#[derive(Debug, Clone)]
pub struct Key {
    /// As the file names it.
    pub name: &'static str,
    /// What it means, in a sentence or two.
    pub doc: &'static str,
    /// Whether it does something in this version.
    pub effect: Effect,
    /// What may stand there.
    pub shape: Shape,
    /// What counts when it is absent, as the file would write it; `None`: it must be given.
    pub default: Option<Json>,
}

/// Whether a key does something in this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Changing it changes behaviour.
    Now,
    /// It is read and checked; a note says that it has no effect.
    Later,
}

/// What may stand at a key.
#[derive(Debug, Clone)]
pub enum Shape {
    /// `true` or `false`.
    Boolean,
    /// A whole number, with its smallest and largest value.
    Integer(u64, u64),
    /// A number that may have decimals, with its smallest and largest value.
    Number(f64, f64),
    /// A text; the word says of which sort.
    Text(&'static str),
    /// One of these texts.
    Choice(Vec<&'static str>),
    /// `null` or that.
    Nullable(Box<Shape>),
    /// Either of the two.
    Either(Box<Shape>, Box<Shape>),
    /// A list of these.
    List(Box<Shape>),
    /// An object with names of the user's own.
    Map(Box<Shape>),
    /// An object with these keys.
    Section(Vec<Key>),
}

type Read<T> = Box<dyn Fn(&Value<'_>, &Place, &mut Reader<'_>) -> Option<T>>;

/// What may stand at a key and how it is read.
pub(super) struct Form<T> {
    pub(super) shape: Shape,
    /// `None`: a fault was noted.
    pub(super) read: Read<T>,
}

/// A form with what counts in the key's absence.
pub(super) struct Kind<T> {
    pub(super) form: Form<T>,
    /// As the file would write it.
    pub(super) default: Option<Json>,
    /// As the program uses it.
    pub(super) absent: T,
    /// Absence is a fault.
    pub(super) required: bool,
}

impl<T> fmt::Debug for Kind<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kind({:?}, {:?})", self.form.shape, self.default)
    }
}

impl<T: 'static> Form<T> {
    /// Reads a value by a function that knows nothing of places.
    fn scalar(shape: Shape, read: impl Fn(&Value<'_>, &Reader<'_>) -> Result<T, Wrong> + 'static) -> Self {
        let read = move |value: &Value<'_>, place: &Place, reader: &mut Reader<'_>| match read(value, reader) {
            Ok(value) => Some(value),
            Err(wrong) => {
                reader.fault(offset(value), place, wrong);
                None
            }
        };
        Self { shape, read: Box::new(read) }
    }

    /// With a default, written as the file would write it.
    pub(super) fn or(self, default: impl Into<Json>) -> Kind<T> {
        let default = default.into();
        let absent = self.read_default(&default);
        Kind { form: self, default: Some(default), absent, required: false }
    }

    /// Must be given; `meanwhile` stands in its place until the fault is told.
    pub(super) fn required(self, meanwhile: impl Into<Json>) -> Kind<T> {
        let absent = self.read_default(&meanwhile.into());
        Kind { form: self, default: None, absent, required: true }
    }

    /// `null`, which is also the default, or a value.
    pub(super) fn or_null(self) -> Kind<Option<T>>
    where
        T: Clone,
    {
        self.or_null_for(None)
    }

    /// `null`, which means the default, or a value. The default may be nothing.
    pub(super) fn or_null_for(self, default: Option<&str>) -> Kind<Option<T>>
    where
        T: Clone,
    {
        let absent = default.map(|text| self.read_default(&text.into()));
        let (shape, read, for_null) = (Shape::Nullable(Box::new(self.shape)), self.read, absent.clone());
        let read: Read<Option<T>> = Box::new(move |value, place, reader| match value {
            Value::NullKeyword(_) => Some(for_null.clone()),
            value => read(value, place, reader).map(Some),
        });
        let default = Some(default.map_or(Json::Null, Into::into));
        Kind { form: Form { shape, read }, default, absent, required: false }
    }

    fn read_default(&self, default: &Json) -> T {
        let text = default.to_string();
        let tree = super::tree(&text).ok().flatten().expect("a default is well-formed JSON");
        let paths = super::Paths::default();
        let mut reader = Reader::new(&text, &paths);
        let value = (self.read)(&tree, &Place::default(), &mut reader);
        assert!(reader.finish().is_ok_and(|notes| notes.is_empty()), "the default `{text}` is accepted without a word");
        value.expect("a default is of its own form")
    }

    /// A list of these.
    pub(super) fn list(self) -> Form<Vec<T>> {
        let (shape, read) = (Shape::List(Box::new(self.shape)), self.read);
        let read: Read<Vec<T>> = Box::new(move |value, place, reader| {
            let Value::Array(array) = value else {
                reader.fault(offset(value), place, mistyped("a list", "[ … ]", value));
                return None;
            };
            let items = array.elements.iter().enumerate();
            Some(items.filter_map(|(i, item)| read(item, &place.index(i), reader)).collect())
        });
        Form { shape, read }
    }

    /// One of these, or a list of them; `null` is an empty list.
    pub(super) fn one_or_more(self) -> Form<Vec<T>> {
        let (shape, read) = (self.shape, self.read);
        let shape = Shape::Either(Box::new(shape.clone()), Box::new(Shape::List(Box::new(shape))));
        let read: Read<Vec<T>> = Box::new(move |value, place, reader| match value {
            Value::Array(array) => {
                let items = array.elements.iter().enumerate();
                Some(items.filter_map(|(i, item)| read(item, &place.index(i), reader)).collect())
            }
            Value::NullKeyword(_) => Some(Vec::new()),
            one => read(one, place, reader).map(|one| vec![one]),
        });
        Form { shape, read }
    }

    /// An object of these, in the order of the file; `name` judges each name.
    pub(super) fn map(self, name: fn(&str) -> Result<(), Wrong>) -> Form<Vec<(String, T)>> {
        let read = self.read;
        map_with(self.shape, move |key, value, place, reader| {
            let fine = name(key).map_err(|wrong| reader.fault(value.range.start, place, wrong)).is_ok();
            let value = read(&value.value, place, reader)?;
            fine.then(|| (key.to_string(), value))
        })
    }
}

/// An object with names of the user's own, in the order of the file.
pub(super) fn map_with<T: 'static>(
    shape: Shape,
    read: impl Fn(&str, &jsonc_parser::ast::ObjectProp<'_>, &Place, &mut Reader<'_>) -> Option<T> + 'static,
) -> Form<Vec<T>> {
    let read: Read<Vec<T>> = Box::new(move |value, place, reader| {
        let Value::Object(object) = value else {
            reader.fault(offset(value), place, mistyped("an object", "{ … }", value));
            return None;
        };
        let properties = properties(object, place, reader);
        Some(properties.into_iter().filter_map(|(name, p)| read(name, p, &place.key(name), reader)).collect())
    });
    Form { shape: Shape::Map(Box::new(shape)), read }
}

/// Accepts every name but the empty one.
pub(super) fn any_name(name: &str) -> Result<(), Wrong> {
    if name.is_empty() { Err(Wrong::new("the name is empty", "give it a name")) } else { Ok(()) }
}

/// `true` or `false`.
pub(super) fn boolean() -> Form<bool> {
    Form::scalar(Shape::Boolean, |value, _| match value {
        Value::BooleanLit(b) => Ok(b.value),
        other => Err(mistyped("true or false", "true", other)),
    })
}

/// A whole number.
pub(super) fn integer<T: TryFrom<u64> + 'static>(range: RangeInclusive<u64>) -> Form<T> {
    let (min, max) = range.into_inner();
    Form::scalar(Shape::Integer(min, max), move |value, _| {
        let Value::NumberLit(number) = value else {
            return Err(mistyped("a whole number", &min.max(1).to_string(), value));
        };
        let wrong = || {
            Wrong::new(
                format!("must be a whole number from {min} to {max}"),
                "write it without sign, decimals or exponent",
            )
        };
        let n: u64 = number.value.parse().map_err(|_| wrong())?;
        if n < min || n > max {
            return Err(Wrong::new(
                format!("{n} is out of range"),
                format!("write a whole number from {min} to {max}"),
            ));
        }
        T::try_from(n).map_err(|_| wrong())
    })
}

/// A number in a unit, decimals allowed, handed on as a whole number of the small unit of which `scale` make one.
fn measure<T: 'static>(range: RangeInclusive<f64>, scale: f64, make: fn(u64) -> T) -> Form<T> {
    let (min, max) = range.into_inner();
    Form::scalar(Shape::Number(min, max), move |value, _| {
        let Value::NumberLit(number) = value else {
            return Err(mistyped("a number", &min.max(1.0).to_string(), value));
        };
        let n: f64 = number.value.parse().unwrap_or(f64::NAN);
        if !(min..=max).contains(&n) {
            return Err(Wrong::new("out of range", format!("write a number from {min} to {max}")));
        }
        Ok(make((n * scale).round() as u64))
    })
}

/// A time in seconds.
pub(super) fn secs(range: RangeInclusive<f64>) -> Form<Duration> {
    measure(range, 1e3, Duration::from_millis)
}

/// A time in milliseconds.
pub(super) fn millis(range: RangeInclusive<f64>) -> Form<Duration> {
    measure(range, 1e3, Duration::from_micros)
}

/// A time in days.
pub(super) fn days(range: RangeInclusive<f64>) -> Form<Duration> {
    measure(range, 86_400.0, Duration::from_secs)
}

/// A size in MiB, handed on in bytes.
pub(super) fn mebibytes(range: RangeInclusive<f64>) -> Form<usize> {
    measure(range, 1_048_576.0, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX))
}

/// A size in GiB, handed on in bytes.
pub(super) fn gibibytes(range: RangeInclusive<f64>) -> Form<u64> {
    measure(range, 1_073_741_824.0, |bytes| bytes)
}

/// An amount of money in US dollars, as a whole number of nano-dollars: exact, so that a bill is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct NanoUsd(pub u64);

/// US dollars.
pub(super) fn dollars() -> Form<NanoUsd> {
    const MAX: u64 = 1_000_000;
    Form::scalar(Shape::Number(0.0, MAX as f64), |value, _| {
        let Value::NumberLit(number) = value else { return Err(mistyped("an amount in US dollars", "1.25", value)) };
        let wrong = || {
            let help = format!("write a plain decimal from 0 to {MAX} with at most nine decimals, for example 1.25");
            Wrong::new("no amount that can be kept exactly", help)
        };
        let (whole, decimals) = number.value.split_once('.').unwrap_or((number.value, ""));
        let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(decimals) || decimals.len() > 9 {
            return Err(wrong());
        }
        let whole: u64 = whole.parse().map_err(|_| wrong())?;
        let nanos: u64 = format!("{decimals:0<9}").parse().map_err(|_| wrong())?;
        if whole > MAX || (whole == MAX && nanos > 0) {
            return Err(wrong());
        }
        Ok(NanoUsd(whole * 1_000_000_000 + nanos))
    })
}

/// A text that a function judges and turns into a value.
pub(super) fn text<T: 'static>(
    sort: &'static str,
    example: &'static str,
    parse: impl Fn(&str, &Reader<'_>) -> Result<T, Wrong> + 'static,
) -> Form<T> {
    Form::scalar(Shape::Text(sort), move |value, reader| match value {
        Value::StringLit(text) => parse(&text.value, reader),
        other => Err(mistyped("a string", example, other)),
    })
}

/// Any text but the empty one.
pub(super) fn words(sort: &'static str) -> Form<String> {
    text(sort, "\"…\"", |text, _| match text.trim() {
        "" => Err(Wrong::new("is empty", "write something, or remove the key")),
        text => Ok(text.to_string()),
    })
}

/// Longer texts are not meant to be one of a few words.
const LONGEST_TYPO: usize = 16;

/// One of a few words.
pub(super) fn choice<T: Copy + 'static>(words: &'static [(&'static str, T)]) -> Form<T> {
    let names: Vec<_> = words.iter().map(|(word, _)| *word).collect();
    Form::scalar(Shape::Choice(names.clone()), move |value, _| {
        let list = || names.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ");
        let Value::StringLit(text) = value else {
            return Err(Wrong::new(
                format!("must be a string, not {}", super::read::type_of(value)),
                format!("write one of {}", list()),
            ));
        };
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text.value) {
            return Ok(*value);
        }
        let help = match super::suggest::nearest(&text.value, names.iter().copied()) {
            Some(near) => format!("did you mean \"{near}\"? It may be one of {}", list()),
            None => format!("write one of {}", list()),
        };
        // A typing error is repeated; a key that was pasted here is not.
        let message = match &*text.value {
            short if short.len() <= LONGEST_TYPO => format!("{short:?} is not known here"),
            _ => "this is not known here".into(),
        };
        Err(Wrong::new(message, help))
    })
}

/// The path of a file. `~/` is the user's folder, a relative path begins at the configuration file's.
pub(super) fn path() -> Form<PathBuf> {
    text("path", "\"~/certs/company.pem\"", |text, reader| match text {
        "" => Err(Wrong::new("the path is empty", "write a path, or remove the key")),
        text if text.contains('\0') => Err(Wrong::new("a path cannot contain a zero byte", "remove it")),
        text => Ok(reader.paths.resolve(text.as_ref())),
    })
}

/// A section: an object whose keys are a part of the table.
pub(super) trait Keys: Sized + 'static {
    fn read(value: Option<&Value<'_>>, place: &Place, reader: &mut Reader<'_>) -> Self;
    fn keys() -> Vec<Key>;
}

/// An object with the keys of a section.
pub(super) fn section<S: Keys>() -> Form<S> {
    let read = |value: &Value<'_>, place: &Place, reader: &mut Reader<'_>| Some(S::read(Some(value), place, reader));
    Form { shape: Shape::Section(S::keys()), read: Box::new(read) }
}
