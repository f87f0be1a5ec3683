//! What the system's manager is told, so that the gateway starts with the login: a user unit of systemd, or an agent of
//! launchd.

use std::path::{Path, PathBuf};

use gateway::config::{Env, XDG_CONFIG_HOME};

/// What the manager calls it.
pub(crate) const UNIT: &str = "cco.service";
#[cfg(target_os = "macos")]
pub(crate) const AGENT: &str = "dev.cco.gateway";

/// The file that the manager reads.
pub(crate) fn file(env: &Env) -> Option<PathBuf> {
    if cfg!(target_os = "macos") {
        return Some(env.user_home()?.join("Library/LaunchAgents/dev.cco.gateway.plist"));
    }
    let folder = env.read(&XDG_CONFIG_HOME).map(PathBuf::from).or_else(|| Some(env.user_home()?.join(".config")))?;
    Some(folder.join("systemd/user").join(UNIT))
}

/// What the manager was told. There is one such file for a user, and a home may be any folder: that of another home is
/// not this one's to change.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Registered {
    /// Nothing.
    Nothing,
    /// To start the gateway of this home.
    Ours(PathBuf),
    /// To start that of another home, as far as it can be told.
    Others(PathBuf, Option<PathBuf>),
}

/// What the manager was told of this home.
pub(crate) fn registered(env: &Env) -> Registered {
    let Some(file) = file(env) else { return Registered::Nothing };
    let text = match std::fs::read_to_string(&file) {
        Ok(text) => text,
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => return Registered::Nothing,
        Err(_) => return Registered::Others(file, None),
    };
    let real = |path: &Path| path.canonicalize().or_else(|_| std::path::absolute(path)).ok();
    match (home_in(&text), env.home()) {
        (Some(theirs), Some(ours)) if real(&theirs) == real(&ours) => Registered::Ours(file),
        (theirs, _) => Registered::Others(file, theirs),
    }
}

impl Registered {
    /// Why this home is not registered, where another is.
    pub(crate) fn of_another(&self) -> Option<String> {
        let Self::Others(file, home) = self else { return None };
        let home = home.as_ref().map_or_else(|| "another home".into(), |home| format!("`{}`", home.display()));
        Some(format!("`{}` starts the gateway of {home}", file.display()))
    }
}

/// The home that is written into such a file.
fn home_in(text: &str) -> Option<PathBuf> {
    if let Some((_, rest)) = text.split_once("<key>CCO_HOME</key><string>") {
        let home = rest.split_once("</string>")?.0;
        return Some(home.replace("&gt;", ">").replace("&lt;", "<").replace("&amp;", "&").into());
    }
    let line = text.lines().find_map(|line| line.strip_prefix("Environment=\"CCO_HOME=")?.strip_suffix('"'))?;
    let (mut home, mut chars) = (String::new(), line.chars());
    while let Some(c) = chars.next() {
        // Both signs stand before the one that is meant.
        home.push(if matches!(c, '\\' | '%') { chars.next()? } else { c });
    }
    Some(home.into())
}

/// What the manager starts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Started<'a> {
    pub(crate) program: &'a Path,
    pub(crate) home: &'a Path,
    /// The file of the configuration, where it is not that of the home.
    pub(crate) config: Option<&'a Path>,
}

/// The content of the file.
pub(crate) fn text(started: Started<'_>) -> String {
    if cfg!(target_os = "macos") { agent(started) } else { unit(started) }
}

/// The unit. It forbids what neither the gateway nor a helper of `exec:` needs; a helper may be any program, so that its
/// files and its memory stay as they are.
fn unit(started: Started<'_>) -> String {
    let Started { program, home, config } = started;
    // A `$` would be taken for a variable.
    let config = config.map(|file| format!(" --config {}", quoted(&file.display().to_string()).replace('$', "$$")));
    format!(
        "\
[Unit]
Description=cco, an LLM gateway
Documentation=man:cco(1)

[Service]
Type=notify
# A new process that takes over says so itself.
NotifyAccess=all
ExecStart={program} serve --log-file{config}
ExecReload=/bin/kill -HUP $MAINPID
Environment={home}
Restart=on-failure
RestartSec=1
# A faulty configuration does not become better by trying again.
RestartPreventExitStatus=78
TimeoutStopSec=infinity
KillMode=mixed
UMask=0077
LimitCORE=0
LimitNOFILE=65536
NoNewPrivileges=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native

[Install]
WantedBy=default.target
",
        program = quoted(&program.display().to_string()),
        config = config.unwrap_or_default(),
        home = quoted(&format!("CCO_HOME={}", home.display())),
    )
}

/// A word as systemd reads it.
fn quoted(word: &str) -> String {
    let word = word.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%");
    format!("\"{word}\"")
}

/// The agent.
fn agent(started: Started<'_>) -> String {
    let Started { program, home, config } = started;
    let escaped = |path: &Path| {
        let text = path.display().to_string();
        text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
    };
    let config = config.map(|file| format!("<string>--config</string><string>{}</string>", escaped(file)));
    format!(
        "\
<?xml version=\"1.0\" encoding=\"UTF-8\"?>
<!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">
<plist version=\"1.0\">
<dict>
  <key>Label</key><string>dev.cco.gateway</string>
  <key>ProgramArguments</key>
  <array><string>{}</string><string>serve</string><string>--log-file</string>{}</array>
  <key>EnvironmentVariables</key>
  <dict><key>CCO_HOME</key><string>{}</string></dict>
  <key>RunAtLoad</key><true/>
  <key>KeepAlive</key><dict><key>SuccessfulExit</key><false/></dict>
  <key>AbandonProcessGroup</key><true/>
  <key>Umask</key><integer>63</integer>
</dict>
</plist>
",
        escaped(program),
        config.unwrap_or_default(),
        escaped(home),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started<'a>(program: &'a str, home: &'a str) -> Started<'a> {
        Started { program: Path::new(program), home: Path::new(home), config: None }
    }

    #[test]
    fn paths_are_written_as_each_manager_reads_them() {
        let ours = started("/opt/my tools/cco", "/srv/a%b\"c/.cco");
        let text = unit(ours);
        assert!(text.contains("ExecStart=\"/opt/my tools/cco\" serve --log-file\n"), "{text}");
        assert!(text.contains("Environment=\"CCO_HOME=/srv/a%%b\\\"c/.cco\"\n"), "{text}");
        let text = unit(Started { config: Some(Path::new("/srv/$a b%.json")), ..ours });
        assert!(text.contains("cco\" serve --log-file --config \"/srv/$$a b%%.json\"\n"), "{text}");
        let text = agent(started("/opt/a&b/cco", "/srv/<me>/.cco"));
        assert!(text.contains("<string>/opt/a&amp;b/cco</string>"), "{text}");
        assert!(text.contains("<string>/srv/&lt;me&gt;/.cco</string>"), "{text}");
    }

    #[test]
    fn the_home_is_read_as_it_was_written() {
        for home in ["~/.cco", "/srv/a%b\"c\\d/.cco", "/srv/<me> & you/.cco"] {
            for text in [unit(started("/bin/cco", home)), agent(started("/bin/cco", home))] {
                assert_eq!(home_in(&text), Some(home.into()), "{text}");
            }
        }
        assert_eq!(home_in("[Service]\nExecStart=/bin/cco serve\n"), None);
    }
}
