//! Who pays: the client's own login or key, or the gateway's stored one. Decided before the client starts, and said.

use std::fmt;
use std::path::PathBuf;

use gateway::config::Env;
use serde_json::Value;

use super::client::Client;
use super::found::Found;
use crate::source::Failure;

/// What can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Wanted {
    /// The client's own login or key
    Own,
    /// A key that the gateway keeps
    Stored,
}

/// What was decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Pay {
    /// The client itself, with what.
    Own(String),
    /// The gateway, with what.
    Stored(String),
}

impl fmt::Display for Pay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Own(what) | Self::Stored(what)) = self;
        write!(f, "paying with: {what}")
    }
}

impl Pay {
    /// As asked for; where nothing is, the client's own credential, else the stored key.
    pub(super) fn decide(wanted: Option<Wanted>, client: Client, env: &Env, found: &Found) -> Result<Self, Failure> {
        let own = own(client, env);
        match (wanted, own, &found.stored) {
            (Some(Wanted::Own) | None, Some(own), _) => Ok(Self::Own(own)),
            // The gateway would pay for its requests, since they bring no key.
            (Some(Wanted::Own), None, Some(stored)) => {
                Err(Failure::new("the client has no login or key of its own, as far as can be seen")
                    .because(format!("what it asks would be paid with: {stored}"))
                    .help(client.remedy()))
            }
            (Some(Wanted::Own), None, None) => Ok(Self::Own("what the client logs in with".into())),
            (Some(Wanted::Stored) | None, _, Some(stored)) => Ok(Self::Stored(stored.clone())),
            (Some(Wanted::Stored), _, None) => {
                Err(Failure::new("the gateway has no stored key for this client").help(found.remedy.clone()))
            }
            // Claude Code asks its user to log in, which is the usual way to begin.
            (None, None, None) if client == Client::Claude => Ok(Self::Own("what you log in with".into())),
            (None, None, None) => {
                Err(Failure::new("nobody pays: the client has no key, and the gateway has none stored for it")
                    .help(found.remedy.clone()))
            }
        }
    }
}

impl Client {
    /// How it comes to have a login or a key of its own.
    fn remedy(self) -> &'static str {
        match self {
            Self::Claude => "start `claude` by itself and log in, or set `ANTHROPIC_API_KEY`",
            Self::Codex => "set `OPENAI_API_KEY`",
            Self::OpenCode => "log in with `opencode auth login`, or set `ANTHROPIC_API_KEY`",
            Self::Other => "set `ANTHROPIC_API_KEY` or `OPENAI_API_KEY`, whichever the client takes",
        }
    }
}

/// What a client would pay with by itself. Files of others are only looked at, never a keyring.
fn own(client: Client, env: &Env) -> Option<String> {
    let key = |name: &str| {
        let value = env.named(name)?;
        let value = value.to_string_lossy();
        (!value.is_empty()).then(|| format!("your key {name} (…{})", last(&value)))
    };
    match client {
        Client::Claude => key("ANTHROPIC_AUTH_TOKEN")
            .or_else(|| key("ANTHROPIC_API_KEY"))
            .or_else(|| env.named("CLAUDE_CODE_OAUTH_TOKEN").map(|_| "your claude.ai login".to_owned()))
            .or_else(|| claude(env)),
        Client::Codex => key("OPENAI_API_KEY"),
        Client::OpenCode => key("ANTHROPIC_API_KEY").or_else(|| opencode(env)),
        Client::Other => {
            key("ANTHROPIC_API_KEY").or_else(|| key("ANTHROPIC_AUTH_TOKEN")).or_else(|| key("OPENAI_API_KEY"))
        }
    }
}

/// A file of somebody else, as far as it is JSON.
fn json(path: PathBuf) -> Option<Value> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// What OpenCode keeps itself.
fn opencode(env: &Env) -> Option<String> {
    let data = env.named("XDG_DATA_HOME").filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let data = data.or_else(|| Some(env.user_home()?.join(".local/share")))?;
    match &json(data.join("opencode/auth.json"))?["anthropic"] {
        Value::Object(login) => Some(match login.get("key").and_then(Value::as_str) {
            Some(key) => format!("the key that OpenCode keeps (…{})", last(key)),
            None => "your login in OpenCode".into(),
        }),
        _ => None,
    }
}

/// What Claude Code keeps itself.
fn claude(env: &Env) -> Option<String> {
    let folder = claude_folder(env)?;
    let settings = json(folder.join("settings.json")).unwrap_or_default();
    if settings["apiKeyHelper"].is_string() {
        return Some("the key of your `apiKeyHelper`".into());
    }
    if let Some(name) = ["ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_API_KEY"].iter().find(|name| {
        settings["env"][**name].as_str().is_some_and(|value| value != gateway::server::caller::PLACEHOLDER)
    }) {
        return Some(format!("{name} in your Claude settings"));
    }
    let login = json(folder.join(".credentials.json")).is_some_and(|kept| kept["claudeAiOauth"].is_object());
    let user = match env.named("CLAUDE_CONFIG_DIR") {
        Some(_) => folder.join(".claude.json"),
        None => env.user_home()?.join(".claude.json"),
    };
    let user = json(user).unwrap_or_default();
    if login || user["oauthAccount"].is_object() {
        return Some("your claude.ai login".into());
    }
    user["primaryApiKey"].as_str().map(|key| format!("the key that Claude keeps (…{})", last(key)))
}

/// Where Claude Code keeps its files.
pub(super) fn claude_folder(env: &Env) -> Option<PathBuf> {
    let named = env.named("CLAUDE_CONFIG_DIR").filter(|folder| !folder.is_empty());
    named.map(PathBuf::from).or_else(|| Some(env.user_home()?.join(".claude")))
}

/// The end of a key, by which its owner knows it.
fn last(key: &str) -> String {
    let count = key.chars().count();
    // Of a short one, the end would be most of it.
    if count < 12 { String::new() } else { key.chars().skip(count - 4).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "sk-ant-api03-0123456789-4f2a";

    fn decide(wanted: Option<Wanted>, client: Client, env: &Env, stored: Option<&str>) -> Result<String, ()> {
        let stored = stored.map(|key| format!("stored key {key}"));
        let found = Found {
            base: String::new(),
            lasts: true,
            stored,
            remedy: String::new(),
            file: None,
            pid: None,
            version: String::new(),
        };
        Pay::decide(wanted, client, env, &found).map(|pay| pay.to_string()).map_err(drop)
    }

    #[test]
    fn a_client_that_has_a_key_pays_itself_unless_told_otherwise() {
        let env = Env::fixed([("ANTHROPIC_API_KEY", KEY)]);
        let own = Ok("paying with: your key ANTHROPIC_API_KEY (…4f2a)".to_owned());
        assert_eq!(decide(None, Client::Claude, &env, Some("K (…9999)")), own);
        assert_eq!(decide(None, Client::Other, &env, None), own);
        let stored = Ok("paying with: stored key K (…9999)".to_owned());
        assert_eq!(decide(Some(Wanted::Stored), Client::Claude, &env, Some("K (…9999)")), stored);
        assert_eq!(decide(None, Client::Claude, &Env::fixed([]), Some("K (…9999)")), stored);
    }

    #[test]
    fn nothing_is_paid_for_by_accident() {
        let none = Env::fixed([]);
        assert!(decide(Some(Wanted::Stored), Client::Claude, &none, None).is_err());
        assert!(decide(None, Client::Other, &none, None).is_err());
        assert!(decide(None, Client::Claude, &none, None).unwrap().contains("log in"));
        for client in [Client::Claude, Client::Codex, Client::OpenCode, Client::Other] {
            assert!(decide(Some(Wanted::Own), client, &none, Some("K (…9999)")).is_err(), "the stored key would pay");
            assert!(decide(Some(Wanted::Own), client, &none, None).unwrap().contains("logs in"));
        }
    }

    #[test]
    fn what_opencode_keeps_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let env = Env::fixed([("HOME", folder.path().to_str().unwrap())]);
        let file = folder.path().join(".local/share/opencode/auth.json");
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        for (text, want) in [
            (r#"{"openai":{"type":"api","key":"x"}}"#, None),
            (r#"{"anthropic":{"type":"oauth","access":"x"}}"#, Some("your login in OpenCode")),
            (r#"{"anthropic":{"type":"api","key":"sk-ant-api03-4f2a"}}"#, Some("the key that OpenCode keeps (…4f2a)")),
        ] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(own(Client::OpenCode, &env).as_deref(), want);
        }
    }

    #[test]
    fn a_login_is_found_where_claude_keeps_it() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().to_str().unwrap();
        let env = Env::fixed([("HOME", home)]);
        assert_eq!(own(Client::Claude, &env), None);
        std::fs::create_dir(folder.path().join(".claude")).unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write(".claude.json", r#"{"primaryApiKey":"sk-ant-api03-0123456789-4f2a"}"#);
        assert_eq!(own(Client::Claude, &env).unwrap(), "the key that Claude keeps (…4f2a)");
        write(".claude/.credentials.json", r#"{"claudeAiOauth":{"accessToken":"x"}}"#);
        assert_eq!(own(Client::Claude, &env).unwrap(), "your claude.ai login");
        write(".claude/settings.json", r#"{"apiKeyHelper":"/bin/key"}"#);
        assert_eq!(own(Client::Claude, &env).unwrap(), "the key of your `apiKeyHelper`");
        // What `cco setup --pay stored` wrote is no key of the user's.
        write(".claude/settings.json", r#"{"env":{"ANTHROPIC_AUTH_TOKEN":"cco"}}"#);
        assert_eq!(own(Client::Claude, &env).unwrap(), "your claude.ai login");
    }

    #[test]
    fn a_short_key_is_not_shown_by_its_end() {
        let env = Env::fixed([("ANTHROPIC_API_KEY", "short")]);
        assert_eq!(own(Client::Other, &env).unwrap(), "your key ANTHROPIC_API_KEY (…)");
    }
}
