//! What Claude Code's settings files say comes before its environment: where that is something else than what it is
//! started for, its command line says it again, which comes before both.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use gateway::config::Env;
use gateway::server::caller::PLACEHOLDER;
use serde_json::{Map, Value};

use super::kept::{self, Form};
use super::pay;
use crate::source::Failure;
use crate::text;

/// Variables that send Claude Code to a cloud, whatever its address says.
pub(super) const CLOUDS: [&str; 3] = ["CLAUDE_CODE_USE_BEDROCK", "CLAUDE_CODE_USE_VERTEX", "CLAUDE_CODE_USE_FOUNDRY"];

/// What a command is started for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The client pays.
    Own,
    /// The gateway pays.
    Stored,
    /// Nobody pays.
    Simulated,
}

/// The settings that belong to a project, in the folder that Claude Code is started in: what comes first is the last.
pub(super) fn of_project(here: &Path) -> [PathBuf; 2] {
    [here.join(".claude/settings.json"), here.join(".claude/settings.local.json")]
}

/// The settings that nothing comes before.
pub(super) fn managed() -> PathBuf {
    let path = if cfg!(target_os = "macos") {
        "/Library/Application Support/ClaudeCode/managed-settings.json"
    } else {
        "/etc/claude-code/managed-settings.json"
    };
    path.into()
}

/// The variable that a settings file sets. One that cannot be read says nothing, to Claude Code either.
pub(super) fn said(file: &Path, name: &str) -> Option<String> {
    let text = kept::read(file).ok()??;
    match Form::Json.get(&text, &format!("env.{name}")) {
        Ok(Some(Value::String(value))) => Some(value),
        _ => None,
    }
}

/// The arguments that say it again. `command` is what Claude Code is started with otherwise.
pub(super) fn arguments(
    command: &[OsString],
    base: &str,
    purpose: Purpose,
    here: Option<&Path>,
    env: &Env,
) -> Result<Vec<String>, Failure> {
    let user = pay::claude_folder(env).map(|folder| folder.join("settings.json"));
    let files: Vec<PathBuf> = user.into_iter().chain(here.into_iter().flat_map(of_project)).collect();
    let found = |name: &str| files.iter().rev().find_map(|file| Some((file, said(file, name)?)));
    let mut again = Map::new();
    let mut because: Option<&PathBuf> = None;
    let names = ["ANTHROPIC_BASE_URL", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN"];
    for name in names.into_iter().chain(CLOUDS) {
        let Some((file, value)) = found(name) else { continue };
        let wanted = match (name, purpose) {
            ("ANTHROPIC_BASE_URL", _) => base,
            ("ANTHROPIC_AUTH_TOKEN", Purpose::Stored) => PLACEHOLDER,
            // What `cco setup --pay stored` has put there: it asks for the stored key.
            ("ANTHROPIC_AUTH_TOKEN", Purpose::Own) if value == PLACEHOLDER => "",
            ("ANTHROPIC_API_KEY", Purpose::Simulated) => "simulated",
            (_, Purpose::Own) => continue,
            (_, Purpose::Stored | Purpose::Simulated) => "",
        };
        if value != wanted {
            again.insert(name.to_owned(), wanted.into());
            because = because.or(Some(file));
        }
    }
    let fixed = said(&managed(), "ANTHROPIC_BASE_URL").filter(|url| url != base);
    if let Some(url) = fixed {
        let why = format!("`{}` says {}", managed().display(), text::line(&url));
        return Err(Failure::new("the settings that are managed for Claude Code send it elsewhere").because(why));
    }
    let Some(file) = because else { return Ok(Vec::new()) };
    let is_own = |argument: &&OsString| {
        argument.to_str().is_some_and(|text| text == "--settings" || text.starts_with("--settings="))
    };
    if command.iter().any(|argument| is_own(&argument)) {
        let names: Vec<_> = again.keys().map(String::as_str).collect();
        return Err(Failure::new("the settings of Claude Code come before what it would be told")
            .because(format!(
                "`{}` sets {}, and the command has a `--settings` of its own",
                file.display(),
                names.join(", ")
            ))
            .help("`cco setup claude --undo` takes back what `cco setup` set; or leave `--settings` out"));
    }
    Ok(vec!["--settings".into(), serde_json::json!({ "env": again }).to_string()])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The variables that are said again where the user's settings set these.
    fn again(set: &str, purpose: Purpose) -> Value {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".claude")).unwrap();
        std::fs::write(home.path().join(".claude/settings.json"), format!("{{\"env\":{set}}}")).unwrap();
        let env = Env::fixed([("HOME", home.path().to_str().unwrap())]);
        let said = arguments(&["claude".into()], "http://new", purpose, Some(home.path()), &env).unwrap();
        said.get(1).map_or(Value::Null, |text| serde_json::from_str::<Value>(text).unwrap()["env"].take())
    }

    #[test]
    fn what_a_settings_file_says_otherwise_is_said_again() {
        let ours = r#"{"ANTHROPIC_BASE_URL":"http://new","ANTHROPIC_AUTH_TOKEN":"cco"}"#;
        assert_eq!(again(ours, Purpose::Stored), Value::Null);
        assert_eq!(again(ours, Purpose::Own), serde_json::json!({ "ANTHROPIC_AUTH_TOKEN": "" }));
        let old = r#"{"ANTHROPIC_BASE_URL":"http://old","ANTHROPIC_AUTH_TOKEN":"cco","CLAUDE_CODE_USE_VERTEX":"1"}"#;
        assert_eq!(
            again(old, Purpose::Simulated),
            serde_json::json!({ "ANTHROPIC_BASE_URL": "http://new", "ANTHROPIC_AUTH_TOKEN": "", "CLAUDE_CODE_USE_VERTEX": "" })
        );
        let own = r#"{"ANTHROPIC_API_KEY":"sk-ant-own"}"#;
        assert_eq!(again(own, Purpose::Own), Value::Null, "the client's own key pays");
        assert_eq!(again(own, Purpose::Stored), serde_json::json!({ "ANTHROPIC_API_KEY": "" }));
        assert_eq!(again(own, Purpose::Simulated), serde_json::json!({ "ANTHROPIC_API_KEY": "simulated" }));
        assert_eq!(again("{}", Purpose::Simulated), Value::Null);
    }

    #[test]
    fn a_project_comes_before_its_user_and_other_settings_of_the_command_are_not_laid_over() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".claude")).unwrap();
        let write = |name: &str, url: &str| {
            let text = format!(r#"{{"env":{{"ANTHROPIC_BASE_URL":"{url}"}}}}"#);
            std::fs::write(home.path().join(".claude").join(name), text).unwrap();
        };
        write("settings.json", "http://old");
        write("settings.local.json", "http://new");
        let env = Env::fixed([("HOME", home.path().to_str().unwrap())]);
        let ask = |command: &[&str]| {
            let command: Vec<OsString> = command.iter().map(Into::into).collect();
            arguments(&command, "http://new", Purpose::Own, Some(home.path()), &env)
        };
        assert_eq!(ask(&["claude", "--settings", "{}"]).unwrap(), Vec::<String>::new());
        write("settings.local.json", "http://other");
        assert!(ask(&["claude", "--settings={}"]).unwrap_err().to_string().contains("come before"));
    }
}
