//! The clients that we know: how they are called, and what tells them where the gateway is.

use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use gateway::config::Env;
use gateway::secret::Secret;
use serde_json::{Value, json};
use toml_edit::InlineTable;

use super::project::{self, Project};

/// A client, as far as it makes a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Client {
    Claude,
    Codex,
    OpenCode,
    Other,
}

impl Client {
    /// By the name of a program.
    pub(super) fn of(program: &OsStr) -> Self {
        match Path::new(program).file_stem().and_then(OsStr::to_str) {
            Some("claude") => Self::Claude,
            Some("codex") => Self::Codex,
            Some("opencode") => Self::OpenCode,
            _ => Self::Other,
        }
    }
}

/// Where a program on this machine reaches a gateway that listens there.
pub(super) fn base(listen: SocketAddr) -> String {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    format!("http://{}", SocketAddr::new(ip, listen.port()))
}

/// What changes in a client's environment.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) set: Vec<(&'static str, String)>,
    pub(super) unset: Vec<&'static str>,
}

impl Changes {
    /// The variables that change.
    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.unset.iter().copied().chain(self.set.iter().map(|(name, _)| *name))
    }
}

/// Sends clients to the gateway at `base`. With `token`, the gateway pays, and the client's own credentials stay out of
/// its environment: it would prefer some of them.
pub(super) fn changes(base: &str, token: Option<&Secret>, project: Option<&Project>, env: &Env) -> Changes {
    let mut changes = Changes::default();
    changes.set.push(("ANTHROPIC_BASE_URL", base.to_owned()));
    changes.set.push(("OPENAI_BASE_URL", format!("{base}/v1")));
    if let Some(token) = token {
        changes.set.push(("ANTHROPIC_AUTH_TOKEN", token.expose().to_owned()));
        changes.set.push(("OPENAI_API_KEY", token.expose().to_owned()));
        changes.unset.extend(["ANTHROPIC_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN"]);
    }
    let text = |name: &str| env.named(name).map(|value| value.to_string_lossy().into_owned());
    if let Some(headers) = project.map(Project::headers).filter(|headers| !headers.is_empty()) {
        let own = text("ANTHROPIC_CUSTOM_HEADERS");
        let own = if project.is_some_and(|project| project.run.is_some()) {
            own.map(|own| project::not_of_a_run(&own))
        } else {
            own
        };
        let own = own.filter(|own| !own.trim().is_empty());
        let own = own.map(|own| own.trim_end().to_owned() + "\n").unwrap_or_default();
        changes.set.push(("ANTHROPIC_CUSTOM_HEADERS", own + &headers));
    }
    // A proxy does not reach this machine's loopback.
    let proxied = ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
    if proxied.iter().any(|name| text(name).is_some_and(|value| !value.is_empty())) {
        for name in ["NO_PROXY", "no_proxy"] {
            let own = text(name).unwrap_or_default();
            if own.trim() != "*" && !own.split(',').any(|host| host.trim() == "127.0.0.1") {
                let own = if own.is_empty() { own } else { own + "," };
                changes.set.push((name, own + "127.0.0.1,localhost"));
            }
        }
    }
    changes
}

/// Sends a client to the gateway at `base` that does not do what its environment says: what its command line says
/// before anything else.
pub(super) fn arguments(client: Client, base: &str, project: Option<&Project>) -> Vec<String> {
    if client != Client::Codex {
        return Vec::new();
    }
    let mut provider = InlineTable::new();
    let named = [("name", "cco"), ("wire_api", "responses"), ("env_key", "OPENAI_API_KEY")];
    for (key, value) in named.into_iter().chain([("base_url", &*format!("{base}/v1"))]) {
        provider.insert(key, value.into());
    }
    if let Some(project) = project {
        let headers = project.headers();
        let headers = headers.lines().filter_map(|line| line.split_once(": "));
        provider.insert("http_headers", headers.collect::<InlineTable>().into());
    }
    let of_provider = format!("model_providers.cco={}", provider.to_string().trim());
    vec!["-c".into(), "model_provider=\"cco\"".into(), "-c".into(), of_provider]
}

/// The variable that sends OpenCode to the gateway at `base`, with this key if it is not to take its own. What is in it
/// already stays, but for that.
pub(super) fn opencode(base: &str, key: Option<&str>, project: Option<&Project>, env: &Env) -> (&'static str, String) {
    let name = "OPENCODE_CONFIG_CONTENT";
    let own = env.named(name).and_then(|own| serde_json::from_str(own.to_str()?).ok());
    let mut config: Value = own.filter(Value::is_object).unwrap_or_else(|| json!({}));
    let mut at = &mut config;
    for step in ["provider", "anthropic", "options"] {
        at = &mut at[step];
        if !at.is_object() {
            *at = json!({});
        }
    }
    at["baseURL"] = format!("{base}/v1").into();
    if let Some(key) = key {
        at["apiKey"] = key.into();
    }
    if let Some(project) = project {
        if !at["headers"].is_object() {
            at["headers"] = json!({});
        }
        for (name, value) in project.headers().lines().filter_map(|line| line.split_once(": ")) {
            at["headers"][name] = value.into();
        }
    }
    (name, config.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(env: &Env, token: Option<&Secret>) -> Vec<(&'static str, String)> {
        let project = Project { name: "web".into(), branch: Some("fix/a".into()), run: None };
        changes("http://127.0.0.1:1", token, Some(&project), env).set
    }

    fn value<'a>(set: &'a [(&'static str, String)], name: &str) -> Option<&'a str> {
        set.iter().find(|(n, _)| *n == name).map(|(_, value)| value.as_str())
    }

    #[test]
    fn a_program_is_known_by_its_name_wherever_it_lies() {
        for (program, client) in
            [("claude", Client::Claude), ("/opt/x/codex", Client::Codex), ("opencode.exe", Client::OpenCode)]
        {
            assert_eq!(Client::of(OsStr::new(program)), client);
        }
        assert_eq!(Client::of(OsStr::new("python3")), Client::Other);
    }

    #[test]
    fn an_address_that_means_every_interface_is_reached_over_loopback() {
        let base = |listen: &str| base(listen.parse().unwrap());
        assert_eq!(base("0.0.0.0:54548"), "http://127.0.0.1:54548");
        assert_eq!(base("[::]:1"), "http://[::1]:1");
        assert_eq!(base("127.0.0.1:8080"), "http://127.0.0.1:8080");
    }

    #[test]
    fn the_users_own_headers_stay_and_ours_follow() {
        let plain = set(&Env::fixed([]), None);
        assert_eq!(value(&plain, "ANTHROPIC_CUSTOM_HEADERS"), Some("x-cco-project: web\nx-cco-branch: fix/a"));
        let both = set(&Env::fixed([("ANTHROPIC_CUSTOM_HEADERS", "x-team: a\n")]), None);
        let want = "x-team: a\nx-cco-project: web\nx-cco-branch: fix/a";
        assert_eq!(value(&both, "ANTHROPIC_CUSTOM_HEADERS"), Some(want));
    }

    #[test]
    fn only_who_is_paid_for_gets_the_token() {
        let env = Env::fixed([("ANTHROPIC_API_KEY", "sk-ant-own")]);
        assert_eq!(value(&set(&env, None), "ANTHROPIC_AUTH_TOKEN"), None);
        let token = Secret::new("cco-token-1");
        assert_eq!(value(&set(&env, Some(&token)), "ANTHROPIC_AUTH_TOKEN"), Some("cco-token-1"));
        assert!(changes("b", Some(&token), None, &env).unset.contains(&"ANTHROPIC_API_KEY"));
    }

    #[test]
    fn codex_is_sent_by_its_command_line() {
        let project = Project { name: "web \"a\"".into(), branch: Some("fix".into()), run: Some("1f-2".into()) };
        let said = arguments(Client::Codex, "http://127.0.0.1:1", Some(&project));
        assert_eq!((&*said[0], &*said[1], &*said[2]), ("-c", "model_provider=\"cco\"", "-c"));
        let table: toml_edit::DocumentMut = said[3].parse().unwrap();
        let provider = &table["model_providers"]["cco"];
        let text = |key: &str| provider[key].as_str();
        assert_eq!(text("base_url"), Some("http://127.0.0.1:1/v1"));
        assert_eq!((text("wire_api"), text("env_key")), (Some("responses"), Some("OPENAI_API_KEY")));
        let headers = &provider["http_headers"];
        assert_eq!(headers["x-cco-project"].as_str(), Some("web%20\"a\""));
        assert_eq!((headers["x-cco-branch"].as_str(), headers["x-cco-run"].as_str()), (Some("fix"), Some("1f-2")));
        assert!(arguments(Client::Claude, "b", None).is_empty() && arguments(Client::Other, "b", None).is_empty());
    }

    #[test]
    fn opencode_is_sent_by_a_configuration_in_its_environment() {
        let project = Project { name: "web".into(), branch: None, run: None };
        let told = |own: &'static str, key, project| {
            let env = Env::fixed([("OPENCODE_CONFIG_CONTENT", own)]);
            serde_json::from_str::<Value>(&opencode("http://b", key, project, &env).1).unwrap()
        };
        let options = |options: Value| json!({ "provider": { "anthropic": { "options": options } } });
        assert_eq!(told("", None, None), options(json!({ "baseURL": "http://b/v1" })));
        let headers = json!({ "x-cco-project": "web" });
        let all = options(json!({ "baseURL": "http://b/v1", "apiKey": "k", "headers": headers }));
        assert_eq!(told("no JSON", Some("k"), Some(&project)), all);
        let own =
            r#"{"model":"m","provider":{"anthropic":{"options":{"headers":{"a":"b"},"baseURL":"x"}},"openai":1}}"#;
        let mut want = json!({ "model": "m", "provider": { "openai": 1 } });
        want["provider"]["anthropic"]["options"] =
            json!({ "baseURL": "http://b/v1", "headers": { "a": "b", "x-cco-project": "web" } });
        assert_eq!(told(own, None, Some(&project)), want);
    }

    #[test]
    fn a_proxy_is_kept_away_from_loopback() {
        let with = |no: &'static str| set(&Env::fixed([("HTTPS_PROXY", "http://p:1"), ("NO_PROXY", no)]), None);
        assert_eq!(value(&with("corp"), "NO_PROXY"), Some("corp,127.0.0.1,localhost"));
        assert_eq!(value(&with("a, 127.0.0.1"), "NO_PROXY"), None);
        assert_eq!(value(&with("*"), "NO_PROXY"), None);
        assert_eq!(value(&set(&Env::fixed([]), None), "NO_PROXY"), None);
    }
}
