//! A client's settings file with our keys in it: put there, found again, and taken out without touching the rest.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use gateway::config::{self, KeyPath};
use gateway::system;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::folders;

/// The largest settings file that is changed.
const LARGEST: u64 = 4 << 20;

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Form {
    /// JSON, comments and all.
    Json,
    Toml,
}

/// Keys with the values that they get, each key's steps joined with dots.
pub(super) type Keys = Vec<(String, Value)>;

/// What was done to a file, as it is remembered.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Change {
    pub(super) path: PathBuf,
    pub(super) form: Form,
    /// `None`: there was no such file.
    pub(super) before: Option<String>,
    pub(super) after: String,
    pub(super) keys: Keys,
    /// Folders that were made for it, the outermost first.
    #[serde(default)]
    pub(super) made: Vec<PathBuf>,
}

/// Why a file is not changed.
#[derive(Debug)]
pub(super) struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Refused {
    /// The same of a file.
    fn within(self, path: &Path) -> Self {
        Self(format!("`{}`: {}", path.display(), self.0))
    }
}

impl Change {
    /// What would change; `earlier`: what was done before and is still there.
    pub(super) fn plan(path: &Path, form: Form, keys: Keys, earlier: Option<&Self>) -> Result<Self, Refused> {
        let now = read(path)?;
        // Without what we did before, so that it can be taken back whole.
        let before = match earlier {
            Some(earlier) => earlier.undone(now.as_deref())?,
            None => now,
        };
        let mut after = before.clone().unwrap_or_default();
        for (key, value) in &keys {
            after = form.put(&after, key, Some(value)).map_err(|why| why.within(path))?;
        }
        let mut made = earlier.map(|earlier| earlier.made.clone()).unwrap_or_default();
        made.extend(path.parent().map(folders::missing).unwrap_or_default());
        Ok(Self { path: path.into(), form, before, after, keys, made })
    }

    /// The file without our keys: as it was, if nobody changed it since; else only our keys go. `None`: no file.
    pub(super) fn undone(&self, now: Option<&str>) -> Result<Option<String>, Refused> {
        self.taken_out(now).map_err(|why| why.within(&self.path))
    }

    fn taken_out(&self, now: Option<&str>) -> Result<Option<String>, Refused> {
        let Some(now) = now else { return Ok(None) };
        if now == self.after {
            return Ok(self.before.clone());
        }
        let before = self.before.as_deref().unwrap_or_default();
        let mut text = now.to_owned();
        for (key, value) in &self.keys {
            // What somebody else has set since is theirs.
            if self.form.get(&text, key)?.as_ref() != Some(value) {
                continue;
            }
            let earlier = self.form.get(before, key)?;
            text = self.form.put(&text, key, earlier.as_ref())?;
            // What we made around it goes if nothing else is in it.
            for (at, _) in key.match_indices('.').collect::<Vec<_>>().into_iter().rev() {
                let around = &key[..at];
                let empty =
                    self.form.get(&text, around)?.is_some_and(|value| value.as_object().is_some_and(|o| o.is_empty()));
                if empty && self.form.get(before, around)?.is_none() {
                    text = self.form.put(&text, around, None)?;
                }
            }
        }
        Ok(Some(text))
    }

    /// Whether the file still has all of our keys.
    pub(super) fn stands(&self) -> bool {
        let Ok(Some(now)) = read(&self.path) else { return false };
        self.keys.iter().all(|(key, value)| matches!(self.form.get(&now, key), Ok(Some(found)) if found == *value))
    }
}

impl Form {
    /// The value at a key.
    pub(super) fn get(self, text: &str, key: &str) -> Result<Option<Value>, Refused> {
        let whole: Value = match self {
            _ if text.trim().is_empty() => return Ok(None),
            Self::Json => config::plain(text).map_err(|why| Refused(why.to_string()))?,
            Self::Toml => {
                let table: toml_edit::DocumentMut = text.parse().map_err(|why| not_toml(text, &why))?;
                return Ok(key.split('.').try_fold(table.as_item(), |item, step| item.get(step)).and_then(from_toml));
            }
        };
        Ok(key.split('.').try_fold(&whole, |value, step| value.get(step)).cloned())
    }

    /// All of it, where it is JSON.
    fn whole(self, text: &str) -> Result<Option<Value>, Refused> {
        if self != Self::Json || text.trim().is_empty() {
            return Ok(None);
        }
        config::plain(text).map(Some).map_err(|why| Refused(why.to_string()))
    }

    /// The text with this value at this key; `None` removes the key.
    fn put(self, text: &str, key: &str, value: Option<&Value>) -> Result<String, Refused> {
        if self == Self::Json {
            let around = key.match_indices('.').map(|(at, _)| &key[..at]);
            for place in [""].into_iter().chain(around) {
                let there = if place.is_empty() { self.whole(text)? } else { self.get(text, place)? };
                if there.is_some_and(|there| !there.is_object()) {
                    let what = if place.is_empty() { "what is in it".into() } else { format!("`{place}` in it") };
                    return Err(Refused(format!("{what} is no object: write `{{}}` in its place, then try again")));
                }
            }
            let key: KeyPath = key.parse().expect("our own keys are well-formed");
            return config::edited_of_another(text, &key, value).map_err(|why| Refused(why.to_string()));
        }
        let mut document: toml_edit::DocumentMut = text.parse().map_err(|why| not_toml(text, &why))?;
        let mut at = document.as_table_mut() as &mut dyn toml_edit::TableLike;
        let (around, name) = key.rsplit_once('.').unwrap_or(("", key));
        for step in around.split('.').filter(|step| !step.is_empty()) {
            let made = || {
                let mut table = toml_edit::Table::new();
                table.set_implicit(true);
                toml_edit::Item::Table(table)
            };
            at = at.entry(step).or_insert_with(made).as_table_like_mut().ok_or_else(|| {
                Refused(format!("`{step}` is not a table in this file: set what it belongs to first"))
            })?;
        }
        match value.and_then(to_toml) {
            Some(value) => drop(at.insert(name, toml_edit::value(value))),
            None => drop(at.remove(name)),
        }
        Ok(as_it_was_written(text, &document.to_string()))
    }
}

/// With what the reading of TOML forgets: the mark of UTF-8 at the beginning, and ends of lines as Windows has them.
fn as_it_was_written(before: &str, after: &str) -> String {
    let mark = if before.starts_with('\u{feff}') { "\u{feff}" } else { "" };
    let ends = before.matches('\n').count();
    let is_windows = ends > 0 && before.matches("\r\n").count() == ends;
    format!("{mark}{}", if is_windows { after.replace('\n', "\r\n") } else { after.to_owned() })
}

fn not_toml(text: &str, why: &toml_edit::TomlError) -> Refused {
    let before = why.span().and_then(|span| text.get(..span.start));
    let line = before.map(|before| format!("line {}: ", before.matches('\n').count() + 1)).unwrap_or_default();
    Refused(format!("the file is not well-formed: {line}{}", why.message()))
}

/// Of the values that we set, and of tables whether they are empty.
fn from_toml(item: &toml_edit::Item) -> Option<Value> {
    if let Some(table) = item.as_table_like() {
        return Some(
            table.iter().map(|(name, _)| (name.to_owned(), Value::Null)).collect::<serde_json::Map<_, _>>().into(),
        );
    }
    match item.as_value()? {
        toml_edit::Value::String(text) => Some(text.value().as_str().into()),
        toml_edit::Value::Boolean(boolean) => Some((*boolean.value()).into()),
        toml_edit::Value::Integer(number) => Some((*number.value()).into()),
        _ => Some(Value::Null),
    }
}

fn to_toml(value: &Value) -> Option<toml_edit::Value> {
    match value {
        Value::String(text) => Some(text.as_str().into()),
        Value::Bool(boolean) => Some((*boolean).into()),
        Value::Number(number) => number.as_i64().map(Into::into),
        _ => None,
    }
}

/// The file's text; `None`: there is none.
pub(super) fn read(path: &Path) -> Result<Option<String>, Refused> {
    let cannot = |why: &dyn fmt::Display| Refused(format!("`{}` cannot be read: {why}", path.display()));
    match std::fs::metadata(path) {
        Ok(about) if about.len() > LARGEST => return Err(cannot(&"it is too large for a settings file")),
        Ok(_) => {}
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(why) => return Err(cannot(&why)),
    }
    std::fs::read_to_string(path).map(Some).map_err(|why| cannot(&why))
}

/// Gives a file this text, or removes it. A link stays one, and rights stay as they were.
pub(super) fn write(path: &Path, text: Option<&str>) -> io::Result<()> {
    let real = path.canonicalize().unwrap_or_else(|_| path.into());
    let Some(text) = text else { return std::fs::remove_file(&real) };
    let folder = real.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    io::Write::write_all(&mut file, text.as_bytes())?;
    if let Ok(about) = std::fs::metadata(&real) {
        file.as_file().set_permissions(about.permissions())?;
    }
    file.as_file().sync_all()?;
    file.persist(&real)?;
    Ok(())
}

/// Where it is remembered what was done for a client.
fn memory(home: &Path, client: &str) -> PathBuf {
    home.join("setup").join(format!("{client}.json"))
}

/// What was done for a client: one change for each of its files, since a variable can name another one.
pub(super) fn remembered(home: &Path, client: &str) -> Result<Vec<Change>, Refused> {
    let path = memory(home, client);
    match std::fs::read(&path) {
        Ok(bytes) => {
            serde_json::from_slice(&bytes).map_err(|why| Refused(format!("`{}` cannot be read: {why}", path.display())))
        }
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(why) => Err(Refused(format!("`{}` cannot be read: {why}", path.display()))),
    }
}

/// Remembers it, before it is done: a file of ours alone, since what it keeps may hold keys.
pub(super) fn remember(home: &Path, client: &str, change: &Change) -> io::Result<()> {
    for folder in [home, &home.join("setup")] {
        system::folder(folder).map_err(|why| io::Error::other(why.to_string()))?;
    }
    changed(home, client, &change.path, Some(change))
}

/// Forgets what was done to a file, once it is taken back.
pub(super) fn forget(home: &Path, client: &str, file: &Path) -> io::Result<()> {
    changed(home, client, file, None)
}

fn changed(home: &Path, client: &str, file: &Path, change: Option<&Change>) -> io::Result<()> {
    let _lock = system::lock(&home.join("setup/lock"))?;
    let mut all = remembered(home, client).map_err(|why| io::Error::other(why.to_string()))?;
    all.retain(|kept| kept.path != file);
    all.extend(change.cloned());
    let path = memory(home, client);
    if all.is_empty() { std::fs::remove_file(&path) } else { system::replace(&path, &serde_json::to_vec_pretty(&all)?) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn change(form: Form, before: Option<&str>, keys: &[(&str, Value)]) -> (tempfile::TempDir, Change) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("settings");
        if let Some(before) = before {
            std::fs::write(&path, before).unwrap();
        }
        let keys = keys.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
        let change = Change::plan(&path, form, keys, None).unwrap();
        write(&path, Some(&change.after)).unwrap();
        (folder, change)
    }

    fn url() -> [(&'static str, Value); 1] {
        [("env.ANTHROPIC_BASE_URL", json!("http://127.0.0.1:1"))]
    }

    const OWN: &str = "{\n  // mine\n  \"model\": \"opus\",\n  \"env\": { \"A\": \"1\" }\n}\n";

    #[test]
    fn what_nobody_touched_since_comes_back_byte_for_byte() {
        for before in [None, Some(""), Some("{}"), Some(OWN), Some(r#"{"env":{"ANTHROPIC_BASE_URL":"x"}}"#)] {
            let (_folder, change) = change(Form::Json, before, &url());
            assert!(change.stands(), "{}", change.after);
            assert_eq!(change.undone(Some(&change.after)).unwrap().as_deref(), before);
        }
    }

    #[test]
    fn the_mark_of_an_editor_on_windows_stays_and_its_ends_of_lines_do() {
        let toml = [("model_provider", json!("cco"))];
        for (form, text, keys) in
            [(Form::Json, "\u{feff}{\r\n  \"a\": 3\r\n}\r\n", &url()), (Form::Toml, "\u{feff}a = 3\r\n", &toml)]
        {
            let (_folder, change) = change(form, Some(text), keys);
            assert!(change.stands() && change.after.starts_with('\u{feff}'), "{:?}", change.after);
            assert!(!change.after[3..].contains('\u{feff}'), "{:?}", change.after);
            assert!(!change.after.replace("\r\n", "").contains('\n'), "{:?}", change.after);
            let since = change.after.replace('3', "4");
            assert_eq!(change.undone(Some(&since)).unwrap().unwrap(), text.replace('3', "4"));
        }
    }

    /// Our configuration may stand in a file of others, for example in this one.
    #[test]
    fn a_section_of_ours_does_not_get_the_clients_keys() {
        let before = r#"{ "llmGateway": { "log": { "level": "warn" } } }"#;
        let (_folder, change) = change(Form::Json, Some(before), &url());
        let after = config::plain(&change.after).unwrap();
        assert_eq!(after["env"]["ANTHROPIC_BASE_URL"], "http://127.0.0.1:1", "{}", change.after);
        assert_eq!(after["llmGateway"], json!({ "log": { "level": "warn" } }));
        assert!(change.stands());
    }

    #[test]
    fn what_was_changed_since_stays_and_only_ours_goes() {
        let (_folder, change) = change(Form::Json, Some("{\n  \"model\": \"opus\"\n}\n"), &url());
        let since = change.after.replace("opus", "sonnet");
        assert_eq!(change.undone(Some(&since)).unwrap().unwrap(), "{\n  \"model\": \"sonnet\"\n}\n");
        let theirs = change.after.replace("127.0.0.1:1", "elsewhere");
        assert_eq!(change.undone(Some(&theirs)).unwrap().unwrap(), theirs, "what another has set is left alone");
        assert_eq!(change.undone(None).unwrap(), None);
    }

    #[test]
    fn an_earlier_value_of_the_users_comes_back() {
        let before = r#"{"env":{"ANTHROPIC_BASE_URL":"http://mine"},"a":1}"#;
        let (_folder, change) = change(Form::Json, Some(before), &url());
        let since = change.after.replace("\"a\":1", "\"a\":2");
        assert_eq!(change.undone(Some(&since)).unwrap().unwrap(), before.replace("\"a\":1", "\"a\":2"));
    }

    #[test]
    fn set_up_again_it_can_still_be_taken_back_whole() {
        let (_folder, first) = change(Form::Json, Some(OWN), &url());
        let keys = vec![("env.ANTHROPIC_BASE_URL".to_owned(), json!("http://127.0.0.1:2"))];
        let second = Change::plan(&first.path, Form::Json, keys, Some(&first)).unwrap();
        assert!(second.after.contains("127.0.0.1:2") && second.after.contains("// mine"));
        assert_eq!(second.undone(Some(&second.after)).unwrap().as_deref(), Some(OWN));
    }

    #[test]
    fn toml_keeps_its_comments_too() {
        let before = "# mine\nmodel = \"o\" # this one\n\n[profiles.a]\nmodel = \"b\"\n";
        let keys = [("model_provider", json!("cco")), ("model_providers.cco.base_url", json!("http://127.0.0.1:1/v1"))];
        let (_folder, change) = change(Form::Toml, Some(before), &keys);
        assert!(
            change.after.contains("# this one") && change.after.contains("[model_providers.cco]"),
            "{}",
            change.after
        );
        assert!(change.stands());
        assert_eq!(change.undone(Some(&change.after)).unwrap().as_deref(), Some(before));
        let since = change.after.replace("\"b\"", "\"c\"");
        assert_eq!(change.undone(Some(&since)).unwrap().unwrap(), before.replace("\"b\"", "\"c\""));
    }

    #[test]
    fn each_file_of_a_client_has_a_memory_of_its_own() {
        let home = tempfile::tempdir().unwrap();
        let files = || -> Vec<PathBuf> {
            remembered(home.path(), "claude").unwrap().into_iter().map(|change| change.path).collect()
        };
        let ((_a, a), (_b, b)) = (change(Form::Json, None, &url()), change(Form::Json, Some("{}"), &url()));
        for one in [&a, &b, &a] {
            remember(home.path(), "claude", one).unwrap();
        }
        assert_eq!(files(), [b.path.clone(), a.path.clone()]);
        forget(home.path(), "claude", &b.path).unwrap();
        assert_eq!(files(), std::slice::from_ref(&a.path));
        forget(home.path(), "claude", &a.path).unwrap();
        assert!(files().is_empty() && !home.path().join("setup/claude.json").exists());
    }

    #[test]
    fn a_file_that_is_not_well_formed_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("settings");
        for (form, text) in [(Form::Json, "{ nothing"), (Form::Json, "[]"), (Form::Toml, "= 1")] {
            std::fs::write(&path, text).unwrap();
            assert!(Change::plan(&path, form, vec![("a.b".into(), json!(1))], None).is_err(), "{text}");
        }
    }

    #[test]
    fn folders_that_were_made_for_a_file_go_with_it_unless_something_else_is_in_them() {
        let folder = tempfile::tempdir().unwrap();
        let (outer, inner) = (folder.path().join("a"), folder.path().join("a/b"));
        let path = inner.join("settings");
        let keys = || vec![("env.A".to_owned(), json!("1"))];
        let first = Change::plan(&path, Form::Json, keys(), None).unwrap();
        assert_eq!(first.made, [outer.clone(), inner.clone()]);
        write(&path, Some(&first.after)).unwrap();
        let again = Change::plan(&path, Form::Json, keys(), Some(&first)).unwrap();
        assert_eq!(again.made, first.made, "what was made before is remembered");
        std::fs::write(outer.join("theirs"), "").unwrap();
        write(&path, None).unwrap();
        folders::remove(&again.made);
        assert!(outer.exists() && !inner.exists());
        let old = serde_json::to_value(&again).map(|mut old| old.as_object_mut().unwrap().remove("made").map(|_| old));
        let old: Change = serde_json::from_value(old.unwrap().unwrap()).unwrap();
        assert!(old.made.is_empty(), "what an older version remembered is still read");
    }

    #[test]
    fn a_link_stays_one_and_rights_stay() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let (real, link) = (folder.path().join("real"), folder.path().join("link"));
        std::fs::write(&real, "{}").unwrap();
        std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        write(&link, Some("{\"a\":1}")).unwrap();
        assert!(link.is_symlink());
        assert_eq!(std::fs::read_to_string(&real).unwrap(), "{\"a\":1}");
        assert_eq!(std::fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o640);
    }
}
