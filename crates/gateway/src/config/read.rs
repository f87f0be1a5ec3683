//! Reading a typed value out of the span-keeping tree: every fault is noted with its place, none stops the reading.

use jsonc_parser::ast::{Object, ObjectProp, Value};
use jsonc_parser::common::Ranged;

use super::fault::{Fault, Lines, Note, NoteLevel};
use super::form::{Effect, Kind, Shape};
use super::overrides::Overrides;
use super::settings::{Setting, Source, json};

/// Where in the configuration we are, as messages name it: `providers.anthropic.baseUrl`, `routing.fallbackChain[1]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Place(pub(super) String);

impl Place {
    /// The place of a key in this one.
    pub(super) fn key(&self, key: &str) -> Self {
        let plain = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-$".contains(&b));
        let key = match key.split_once(char::is_whitespace) {
            _ if plain => key.to_string(),
            // A whole header line that stands where its name should: behind the blank is its value.
            Some((name, _)) => format!("\"{} …\"", name.escape_debug()),
            None => format!("{key:?}"),
        };
        if self.0.is_empty() { Self(key) } else { Self(format!("{}.{key}", self.0)) }
    }

    /// The place of an element of the list in this one.
    pub(super) fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }
}

/// What is wrong with one value, before it has a place.
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) message: String,
    pub(super) help: Option<String>,
}

impl Wrong {
    pub(super) fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: Some(help.into()) }
    }
}

/// A value of the wrong type.
pub(super) fn mistyped(wanted: &str, example: &str, found: &Value<'_>) -> Wrong {
    // Numbers and truth values are often put in quotes; nothing else of a text is repeated.
    if let Some(text) = found.as_string_lit().map(|text| text.value.trim())
        && !example.starts_with(['"', '[', '{'])
        && (text.parse::<f64>().is_ok_and(f64::is_finite) || text.parse::<bool>().is_ok())
    {
        return Wrong::new(format!("must be {wanted}, not a string"), format!("write `{text}`, without quotes"));
    }
    Wrong::new(format!("must be {wanted}, not {}", type_of(found)), format!("write for example `{example}`"))
}

/// Collects what is found while a text is read.
#[derive(Debug)]
pub(super) struct Reader<'t> {
    lines: Lines<'t>,
    pub(super) paths: &'t super::Paths,
    /// What stands before the text.
    overrides: Option<&'t Overrides>,
    /// Where the values come from that are being read, where that is not the text.
    source: Option<Source>,
    /// What holds, key by key; filled only where somebody wants it.
    settings: Option<Vec<Setting>>,
    faults: Vec<(usize, Fault)>,
    notes: Vec<Note>,
    /// Keys that are set to something but have no effect yet: section, key, offset.
    idle: Vec<(String, String, usize)>,
}

impl<'t> Reader<'t> {
    pub(super) fn new(text: &'t str, paths: &'t super::Paths) -> Self {
        Self {
            lines: Lines::new(text),
            paths,
            overrides: None,
            source: None,
            settings: None,
            faults: Vec::new(),
            notes: Vec::new(),
            idle: Vec::new(),
        }
    }

    /// One that asks these variables first and writes down what holds.
    pub(super) fn whole(text: &'t str, paths: &'t super::Paths, overrides: &'t Overrides) -> Self {
        Self { overrides: Some(overrides), settings: Some(Vec::new()), ..Self::new(text, paths) }
    }

    /// Whether a variable stands for the key at this place.
    pub(super) fn is_overridden(&self, place: &Place) -> bool {
        self.overrides.is_some_and(|overrides| overrides.at(&place.0).is_some())
    }

    /// Writes down what holds for a key.
    fn record(&mut self, place: &Place, value: &Value<'_>, shape: &Shape) {
        let source = self.source.clone().unwrap_or_else(|| Source::File(self.line(offset(value))));
        if let Some(settings) = &mut self.settings {
            settings.push(Setting::new(&place.0, &json(value), shape, source));
        }
    }

    /// Corrects what was written down of a key that derives its default from another.
    pub(super) fn derived(&mut self, place: &str, value: &serde_json::Value) {
        let shape = Shape::List(Box::new(Shape::Text("provider")));
        if let Some(setting) = self.settings.iter_mut().flatten().find(|setting| setting.path == place)
            && setting.source == Source::Default
        {
            *setting = Setting::new(place, value, &shape, Source::Default);
        }
    }

    /// What holds, key by key, in the order of the table. What stands within a value that is shown as a whole is left out.
    pub(super) fn settings(&mut self) -> Vec<Setting> {
        let all = self.settings.take().unwrap_or_default();
        let within = |setting: &Setting| {
            all.iter()
                .any(|other| setting.path.strip_prefix(&other.path).is_some_and(|rest| rest.starts_with(['.', '['])))
        };
        all.iter().filter(|setting| !within(setting)).cloned().collect()
    }

    /// Reads from another text than ours: a default, or what a variable says.
    fn aside<T>(&mut self, source: Source, read: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.source.replace(source);
        let read = read(self);
        self.source = before;
        read
    }

    /// Notes a fault at a byte offset.
    pub(super) fn fault(&mut self, offset: usize, place: &Place, wrong: Wrong) {
        let (line, column) = self.lines.at(offset);
        let variable = match &self.source {
            Some(Source::Variable(name)) => Some(name.clone()),
            _ => None,
        };
        let fault = Fault { line, column, variable, path: place.0.clone(), message: wrong.message, help: wrong.help };
        self.faults.push((offset, fault));
    }

    /// Writes a note that belongs to a byte offset.
    pub(super) fn note(&mut self, level: NoteLevel, offset: usize, place: &Place, message: impl Into<String>) {
        self.notes.push(Note {
            level,
            at: Some(self.lines.at(offset)),
            path: place.0.clone(),
            message: message.into(),
        });
    }

    /// Remembers a key that is set but does nothing yet.
    pub(super) fn idle(&mut self, section: &Place, key: &str, offset: usize) {
        self.idle.push((section.0.clone(), key.to_string(), offset));
    }

    /// The line of a byte offset.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.lines.at(offset).0
    }

    /// Whether a fault was found at exactly this place.
    pub(super) fn is_faulty(&self, place: &str) -> bool {
        self.faults.iter().any(|(_, fault)| fault.path == place)
    }

    /// Whether a fault was found at this place or within it.
    pub(super) fn is_faulty_below(&self, place: &str) -> bool {
        let within =
            |path: &str| path.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
        self.faults.iter().any(|(_, fault)| within(&fault.path))
    }

    /// Ends the reading: the faults in the order of the text, or the notes.
    pub(super) fn finish(mut self) -> Result<Vec<Note>, Vec<Fault>> {
        if !self.faults.is_empty() {
            self.faults.sort_by_key(|(offset, fault)| (fault.variable.is_none(), *offset));
            return Err(self.faults.into_iter().map(|(_, fault)| fault).collect());
        }
        // One note a section, however many of its keys have no effect.
        while let Some((section, _, first)) = self.idle.first().cloned() {
            let (of_it, rest) = self.idle.into_iter().partition(|(s, ..)| *s == section);
            self.idle = rest;
            let keys: Vec<_> = of_it.into_iter().map(|(_, key, _)| format!("`{key}`")).collect();
            let verb = if keys.len() == 1 { "has" } else { "have" };
            let message = format!("{} {verb} no effect in this version", keys.join(", "));
            self.note(NoteLevel::Info, first, &Place(section), message);
        }
        self.notes.extend(self.overrides.map(Overrides::strangers).unwrap_or_default());
        Ok(self.notes)
    }
}

/// Where a value begins.
pub(super) fn offset(value: &Value<'_>) -> usize {
    value.range().start
}

/// What a value is, as messages name it.
pub(super) fn type_of(value: &Value<'_>) -> &'static str {
    match value {
        Value::StringLit(_) => "a string",
        Value::NumberLit(_) => "a number",
        Value::BooleanLit(_) => "a boolean",
        Value::Object(_) => "an object",
        Value::Array(_) => "a list",
        Value::NullKeyword(_) => "null",
    }
}

/// The properties of an object, each name once: a repetition is a fault, and the first one counts.
pub(super) fn properties<'v, 't>(
    object: &'v Object<'t>,
    place: &Place,
    reader: &mut Reader<'_>,
) -> Vec<(&'v str, &'v ObjectProp<'t>)> {
    let mut seen = std::collections::HashMap::new();
    let mut once = Vec::with_capacity(object.properties.len());
    for property in &object.properties {
        let name = property.name.as_str();
        match seen.entry(name) {
            std::collections::hash_map::Entry::Vacant(free) => {
                free.insert(property.range.start);
                once.push((name, property));
            }
            std::collections::hash_map::Entry::Occupied(first) => {
                let line = reader.line(*first.get());
                let wrong =
                    Wrong::new(format!("`{name}` is given twice, first on line {line}"), "remove one of the two");
                reader.fault(property.range.start, &place.key(name), wrong);
            }
        }
    }
    once
}

/// A section that is being read.
pub(super) struct Section<'v, 't> {
    place: Place,
    /// Where the object begins; `None` where there is none.
    offset: Option<usize>,
    properties: Vec<(&'v str, &'v ObjectProp<'t>)>,
}

impl<'v, 't> Section<'v, 't> {
    /// Opens the object; whatever is not among `known` is a fault.
    pub(super) fn open(value: Option<&'v Value<'t>>, known: &[&str], place: &Place, reader: &mut Reader<'_>) -> Self {
        let properties = match value {
            Some(Value::Object(object)) => properties(object, place, reader),
            Some(other) => {
                reader.fault(offset(other), place, mistyped("an object", "{ … }", other));
                return Self { place: place.clone(), offset: None, properties: Vec::new() };
            }
            None => Vec::new(),
        };
        for (name, property) in &properties {
            // Editors find the schema of the file by this key.
            let schema = *name == "$schema" && place.0.is_empty();
            if !known.contains(name) && !schema {
                reader.fault(property.range.start, &place.key(name), super::suggest::unknown_key(name, known));
            }
        }
        Self { place: place.clone(), offset: value.map(offset), properties }
    }

    /// Reads one key; in its absence, or where it is wrong, the default. A variable that stands for it comes first.
    pub(super) fn take<T: PartialEq>(&self, key: &str, kind: Kind<T>, effect: Effect, reader: &mut Reader<'_>) -> T {
        let place = self.place.key(key);
        // Sections and providers are shown key by key, everything else as a whole.
        let is_leaf = !matches!(kind.form.shape, Shape::Section(_)) && place.0 != "providers";
        if let Some((name, value)) = reader.overrides.filter(|_| is_leaf).and_then(|all| all.at(&place.0)) {
            let text = kind.form.shape.value_of(value).to_string();
            let tree = super::tree(&text).ok().flatten().expect("what was made as JSON is JSON");
            let read = reader.aside(Source::Variable(name.into()), |reader| {
                reader.record(&place, &tree, &kind.form.shape);
                (kind.form.read)(&tree, &place, reader)
            });
            return read.unwrap_or(kind.absent);
        }
        let Some((_, property)) = self.properties.iter().find(|(name, _)| *name == key) else {
            if let (true, Some(offset)) = (kind.required, self.offset) {
                reader.fault(offset, &place, Wrong::new("is missing", format!("add `\"{key}\": …`")));
            }
            // What is below it is read for those who want to know, and where a variable stands for a part of it.
            let wanted = reader.settings.is_some() || reader.overrides.is_some_and(|all| all.below(&place.0));
            let Some(default) = kind.default.as_ref().filter(|_| wanted) else { return kind.absent };
            let text = default.to_string();
            let tree = super::tree(&text).ok().flatten().expect("a default is well-formed JSON");
            return reader.aside(Source::Default, |reader| {
                if is_leaf {
                    reader.record(&place, &tree, &kind.form.shape);
                    return kind.absent;
                }
                (kind.form.read)(&tree, &place, reader).unwrap_or(kind.absent)
            });
        };
        if is_leaf {
            reader.record(&place, &property.value, &kind.form.shape);
        }
        match (kind.form.read)(&property.value, &place, reader) {
            Some(value) => {
                if effect == Effect::Later && value != kind.absent {
                    reader.idle(&self.place, key, property.range.start);
                }
                value
            }
            None => kind.absent,
        }
    }
}
