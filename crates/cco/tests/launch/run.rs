//! One command, or a shell, on the gateway.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::common::{Client, Gateway, soon, upstream};
use crate::{cco, furnish, gateway, output, text};

const OWN: &str = "sk-ant-api03-of-the-user-0123-4f2a";
const STORED: &str = "sk-ant-api03-of-the-gateway-56-9999";

#[tokio::test]
async fn a_command_is_sent_to_the_gateway_with_its_own_key_and_what_it_cost_is_said() {
    let upstream = upstream().await;
    let gateway = gateway(&upstream, None).await;
    let mut command = cco(gateway.home(), &["run", "--", "claude"]);
    let ran = output(command.env("ANTHROPIC_API_KEY", OWN)).await;
    let (out, err) = (text(&ran.stdout), text(&ran.stderr));
    assert!(ran.status.success(), "{err}");
    assert!(out.starts_with(&format!("base http://{}\nkey {OWN} token \n", gateway.addr)), "{out}");
    assert!(out.contains("said so"), "{out}");
    assert!(err.contains("note: paying with: your key ANTHROPIC_API_KEY (…4f2a)\n"), "{err}");
    let arrived = upstream.last_ended().await;
    let head = format!("{:?}", arrived.headers);
    assert!(!head.contains("x-cco") && !head.contains("secret-branch"), "{head}");

    let costs = output(&mut cco(gateway.home(), &["costs", "--by", "project", "--json"])).await;
    let row: Value = serde_json::from_str(text(&costs.stdout).trim()).unwrap();
    assert_eq!((row["project"].as_str(), row["requests"].as_i64()), (Some("web"), Some(1)), "{row}");
    let cost = row["cost_usd"].as_f64().filter(|usd| *usd > 0.0).unwrap();
    let said = err.lines().find(|line| line.contains("session 5e551011")).unwrap_or_else(|| panic!("{err}"));
    let said: f64 = said.split_once('$').unwrap().1.split(' ').next().unwrap().parse().unwrap();
    assert!((said - cost).abs() < 0.000_051, "{said} {cost}");
}

#[tokio::test]
async fn the_stored_key_pays_where_the_client_has_none_or_it_is_asked_for() {
    let upstream = upstream().await;
    let gateway = gateway(&upstream, Some(STORED)).await;
    for (args, own) in [(&["run", "--", "claude"][..], false), (&["run", "--pay", "stored", "--", "claude"], true)] {
        let mut command = cco(gateway.home(), args);
        if own {
            command.env("ANTHROPIC_API_KEY", OWN);
        }
        // A variable of the same name here is not the gateway's.
        let ran = output(command.env("STORED_KEY", "sk-ant-api03-of-this-shell-0123-0000")).await;
        let (out, err) = (text(&ran.stdout), text(&ran.stderr));
        assert!(out.contains("key none token given") && out.contains("said so"), "{out} {err}");
        assert!(err.contains("note: paying with: stored key STORED_KEY (…9999)\n"), "{err}");
        let arrived = format!("{:?}", upstream.last_ended().await.headers);
        assert!(!arrived.contains(OWN), "{arrived}");
    }
    let mut command = cco(gateway.home(), &["run", "--pay", "own", "--quiet", "--", "claude"]);
    let own = output(command.env("ANTHROPIC_API_KEY", OWN)).await;
    assert!(text(&own.stdout).contains(&format!("key {OWN} token \n")), "{}", text(&own.stdout));
    assert_eq!(text(&own.stderr), "", "quiet is quiet");
}

#[tokio::test]
async fn who_wants_to_pay_and_has_nothing_to_pay_with_is_not_paid_for() {
    let upstream = upstream().await;
    let gateway = gateway(&upstream, Some(STORED)).await;
    for args in [
        &["run", "--pay", "own", "--", "claude"][..],
        &["env", "--pay", "own"],
        &["setup", "codex", "--pay", "own", "--yes"],
    ] {
        let refused = output(&mut cco(gateway.home(), args)).await;
        let err = text(&refused.stderr);
        assert_eq!((refused.status.code(), text(&refused.stdout)), (Some(1), ""), "{args:?} {err}");
        assert!(err.starts_with("error: the client has no login or key of its own"), "{err}");
        assert!(err.contains("cause: what it asks would be paid with: stored key STORED_KEY (…9999)\n"), "{err}");
        assert!(err.contains("help: ") && err.contains("_API_KEY`"), "{err}");
    }
}

#[tokio::test]
async fn a_command_is_told_what_it_cost_itself_and_not_the_one_before() {
    let upstream = upstream().await;
    let gateway = gateway(&upstream, Some(STORED)).await;
    // All within a second, in one project and with one session.
    for _ in 0..3 {
        let ran = output(&mut cco(gateway.home(), &["run", "--", "claude"])).await;
        assert!(text(&ran.stderr).contains("(1 request, "), "{}", text(&ran.stderr));
    }
}

#[tokio::test]
async fn of_two_runs_at_a_time_in_one_project_each_is_told_its_own() {
    let upstream = upstream().await;
    let gateway = gateway(&upstream, Some(STORED)).await;
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_cco"), gateway.home().join("bin/cco")).unwrap();
    let said = |err: &str| -> Vec<String> {
        let lines = err.lines().filter(|line| line.contains("session 5e551011"));
        lines.map(|line| line.split_once('(').unwrap().1.split_once(',').unwrap().0.to_owned()).collect()
    };
    let both = "claude && claude && cco run -- claude";
    let ran = output(&mut cco(gateway.home(), &["run", "--", "sh", "-c", both])).await;
    assert_eq!(said(text(&ran.stderr)), ["1 request", "2 requests"], "{}", text(&ran.stderr));
    // Where there is no folder to name a project by.
    let ran = output(cco(gateway.home(), &["run", "--", "claude"]).current_dir("/")).await;
    assert_eq!(said(text(&ran.stderr)), ["1 request"], "{}", text(&ran.stderr));
    let arrived = format!("{:?}", upstream.last_ended().await.headers);
    assert!(!arrived.contains("x-cco"), "{arrived}");
}

/// Ends whoever serves a home at last.
struct Ended(std::path::PathBuf);

impl Drop for Ended {
    fn drop(&mut self) {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_cco"));
        command.args(["daemon", "stop", "--within", "0"]).env_clear().env("CCO_HOME", &self.0);
        let _ = command.stdout(std::process::Stdio::null()).status();
    }
}

#[tokio::test]
async fn what_it_cost_is_known_too_where_another_gateway_has_taken_over_or_none_is_left() {
    let upstream = upstream().await;
    let home = tempfile::tempdir().unwrap();
    furnish(home.path());
    let _ended = Ended(home.path().to_owned());
    let provider = json!({ "baseUrl": format!("http://{}", upstream.addr), "apiKeyRef": "env:STORED_KEY" });
    let config = json!({ "server": { "listen": "127.0.0.1:0" }, "providers": { "anthropic": provider } });
    std::fs::write(home.path().join("config.json"), config.to_string()).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_cco"), home.path().join("bin/cco")).unwrap();
    let started = output(cco(home.path(), &["daemon", "start"]).env("STORED_KEY", STORED)).await;
    let address = text(&started.stdout).split_once("http://").unwrap().1.lines().next().unwrap();
    // The first one has to wait for this, and does not end before.
    let mut waiting = Client::connect(address.parse().unwrap()).await;
    waiting.send(crate::common::streamed("events=4 fault=stall=3ev")).await;
    waiting.head().await;
    for (then, want) in [("cco daemon restart", "(1 request, "), ("cco daemon stop --within 0", "(1 request, ")] {
        let ran = output(&mut cco(home.path(), &["run", "--", "sh", "-c", &format!("claude && {then}")])).await;
        let err = text(&ran.stderr);
        assert!(ran.status.success(), "{then}: {err}{}", text(&ran.stdout));
        let said =
            err.lines().find(|line| line.contains("session 5e551011")).unwrap_or_else(|| panic!("{then}: {err}"));
        assert!(said.contains(want), "{then}: {said}");
    }
}

#[tokio::test]
async fn the_exit_code_is_that_of_the_command() {
    let upstream = upstream().await;
    let gateway = gateway(&upstream, Some(STORED)).await;
    let code = |ran: std::process::Output| ran.status.code();
    let mut command = cco(gateway.home(), &["run", "--", "claude"]);
    assert_eq!(code(output(command.env("WITH_CODE", "7")).await), Some(7));
    let killed = output(&mut cco(gateway.home(), &["run", "-q", "--", "sh", "-c", "kill -9 $$"])).await;
    assert_eq!(code(killed), Some(137));
    let missing = output(&mut cco(gateway.home(), &["run", "-q", "--", "no-such-client"])).await;
    assert!(text(&missing.stderr).contains("error: `no-such-client` cannot be started"), "{}", text(&missing.stderr));
    assert_eq!(code(missing), Some(1));
    assert_eq!(code(output(&mut cco(gateway.home(), &["run"])).await), Some(2));
}

#[tokio::test]
async fn a_cost_that_cannot_be_told_does_not_change_the_exit_code() {
    let upstream = upstream().await;
    let provider = json!({ "baseUrl": format!("http://{}", upstream.addr), "apiKeyRef": "" });
    let config = json!({ "audit": { "enabled": false }, "providers": { "anthropic": provider } });
    let gateway = Gateway::start_with(config, &[], &[]).await;
    furnish(gateway.home());
    for code in ["0", "7"] {
        let mut command = cco(gateway.home(), &["run", "--", "claude"]);
        let ran = output(command.env("ANTHROPIC_API_KEY", OWN).env("WITH_CODE", code)).await;
        let err = text(&ran.stderr);
        assert_eq!(ran.status.code().map(|code| code.to_string()).as_deref(), Some(code), "{err}");
        assert!(err.contains("note: what this cost is not known: ") && !err.contains("error: "), "{err}");
    }
}

#[tokio::test]
async fn what_a_client_cost_that_names_no_project_is_said_too() {
    let upstream = upstream().await;
    let gateway = gateway(&upstream, Some(STORED)).await;
    let body = r#"{"model":"claude-sonnet-5-5","max_tokens":100,"messages":[{"role":"user","content":"x"}]}"#;
    let ask = format!(
        r#"curl -sS --fail "$ANTHROPIC_BASE_URL/v1/messages" -H "authorization: Bearer $ANTHROPIC_AUTH_TOKEN" \
           -H "anthropic-version: 2023-06-01" -H "content-type: application/json" -d '{body}'"#
    );
    let ran = output(&mut cco(gateway.home(), &["run", "--", "sh", "-c", &ask])).await;
    let err = text(&ran.stderr);
    assert!(ran.status.success() && err.contains("note: requests that name no project: "), "{err}");
    assert!(err.contains("(1 request, ") && !err.contains("no request went"), "{err}");
    let ran = output(&mut cco(gateway.home(), &["run", "--", "sh", "-c", "exit 0"])).await;
    assert!(text(&ran.stderr).contains("note: no request went through the gateway"), "{}", text(&ran.stderr));
}

#[tokio::test]
async fn whoever_ends_us_ends_the_command() {
    let upstream = upstream().await;
    let gateway = gateway(&upstream, Some(STORED)).await;
    let script = "trap 'echo ended; exit 5' TERM; echo ready; while :; do read -r line || sleep 0.05; done";
    let mut child = cco(gateway.home(), &["run", "-q", "--", "sh", "-c", script]).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(soon(out.next_line()).await.unwrap().as_deref(), Some("ready"));
    let pid = Pid::from_raw(child.id().unwrap() as i32);
    // What the keys of a terminal send means the command, which got it too.
    kill(pid, Signal::SIGINT).unwrap();
    kill(pid, Signal::SIGTERM).unwrap();
    assert_eq!(soon(out.next_line()).await.unwrap().as_deref(), Some("ended"));
    assert_eq!(soon(child.wait()).await.unwrap().code(), Some(5));
}

#[tokio::test]
async fn without_a_gateway_of_ours_nothing_is_started() {
    let home = tempfile::tempdir().unwrap();
    furnish(home.path());
    for args in [&["run", "--", "claude"][..], &["env"], &["setup", "claude", "--yes"]] {
        let mut command = cco(home.path(), args);
        let ran = output(command.env("ANTHROPIC_API_KEY", OWN)).await;
        let said = "error: no gateway of yours answers\nhelp: cco daemon start\n";
        assert_eq!((ran.status.code(), text(&ran.stdout), text(&ran.stderr)), (Some(3), "", said), "{args:?}");
    }
    for args in [&["watch"][..], &["providers", "reset", "anthropic"]] {
        let ran = output(&mut cco(home.path(), args)).await;
        let said = "error: no gateway is running here\nhelp: cco daemon start\n";
        assert_eq!((ran.status.code(), text(&ran.stderr)), (Some(3), said), "{args:?}");
    }
    let ran = output(&mut cco(home.path(), &["--url", "http://127.0.0.1:9", "watch"])).await;
    assert_eq!(ran.status.code(), Some(3));
    assert!(
        text(&ran.stderr).starts_with("error: nobody answers at http://127.0.0.1:9\ncause: "),
        "{}",
        text(&ran.stderr)
    );
}

/// Runs the program on a terminal, in which this is typed.
async fn on_a_terminal(home: &std::path::Path, args: &str, typed: &str) -> (Option<i32>, String) {
    use tokio::io::AsyncWriteExt as _;
    let mut command = tokio::process::Command::new("script");
    let line = format!("'{}' {args}", env!("CARGO_BIN_EXE_cco"));
    command.args(["-qec", &line, "/dev/null"]).current_dir(home.join("user/web")).env_clear();
    command.env("CCO_HOME", home).env("HOME", home.join("user")).env("PATH", crate::path(home)).env("SHELL", "/bin/sh");
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(typed.as_bytes()).await.unwrap();
    let ended = soon(child.wait_with_output()).await.unwrap();
    drop(stdin);
    (ended.status.code(), text(&ended.stdout).replace('\r', ""))
}

/// A program of this home's own, first in `PATH`.
fn program(home: &std::path::Path, name: &str, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    let file = home.join("bin").join(name);
    std::fs::write(&file, text).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[tokio::test]
async fn a_person_is_asked_whether_a_gateway_is_to_be_started() {
    let home = tempfile::tempdir().unwrap();
    furnish(home.path());
    let _ended = Ended(home.path().to_owned());
    std::fs::write(home.path().join("config.json"), r#"{ "server": { "listen": "127.0.0.1:0" } }"#).unwrap();
    program(home.path(), "systemctl", "#!/bin/sh\nexit 1\n");
    let (code, said) = on_a_terminal(home.path(), "setup claude --pay own", "n\n").await;
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("No gateway is running. Start one now (`cco daemon start`)? [y/N]"), "{said}");
    assert!(said.contains("error: no gateway of yours answers"), "{said}");
    let (code, said) = on_a_terminal(home.path(), "run --pay own -- sh -c 'echo it runs'", "y\n").await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("started: PID ") && said.contains("it runs"), "{said}");
    let (code, said) = on_a_terminal(home.path(), "run --pay own -- sh -c 'echo again'", "").await;
    assert!(code == Some(0) && !said.contains("No gateway"), "{said}");
}

#[tokio::test]
async fn where_the_system_can_start_one_with_the_login_that_is_offered() {
    let home = tempfile::tempdir().unwrap();
    furnish(home.path());
    let _ended = Ended(home.path().to_owned());
    std::fs::write(home.path().join("config.json"), r#"{ "server": { "listen": "127.0.0.1:0" } }"#).unwrap();
    // A manager that does what it is told: it starts the program that stands in the unit.
    let cco = env!("CARGO_BIN_EXE_cco");
    let manager = format!(
        "#!/bin/sh\necho \"$@\" >> \"$HOME/told\"\ncase \"$*\" in *enable*) '{cco}' serve --log-file > /dev/null 2>&1 & ;; esac\n"
    );
    program(home.path(), "systemctl", &manager);
    let (code, said) = on_a_terminal(home.path(), "setup claude --pay own --yes", "y\n").await;
    assert_eq!(code, Some(0), "{said}");
    let asked = "No gateway is running. Start one now, and with every login (`cco daemon install`)? [y/N]";
    assert!(said.contains(asked) && said.contains("claude now asks http://127.0.0.1:"), "{said}");
    let told = std::fs::read_to_string(home.path().join("user/told")).unwrap();
    assert_eq!(
        told,
        "--user show-environment\n--user show-environment\n--user daemon-reload\n--user enable --now cco.service\n"
    );
}

#[tokio::test]
async fn a_simulator_needs_nothing_and_leaves_nothing() {
    let home = tempfile::tempdir().unwrap();
    furnish(home.path());
    let ran = output(&mut cco(home.path(), &["run", "--simulated", "--", "claude"])).await;
    let (out, err) = (text(&ran.stdout), text(&ran.stderr));
    assert!(ran.status.success() && out.contains("said so"), "{out} {err}");
    assert!(err.contains("note: simulated: every answer is made up"), "{err}");
    assert!(err.ends_with("note: simulated: 1 request, $0\n"), "{err}");
    let left: Vec<_> = std::fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

/// A client that says how it was started.
const SAYS: &str =
    "#!/bin/sh\nfor argument; do echo \"said $argument\"; done\necho \"cloud ${CLAUDE_CODE_USE_BEDROCK-none}\"\n";

#[tokio::test]
async fn settings_that_a_client_puts_before_its_environment_do_not_lead_it_elsewhere() {
    let upstream = upstream().await;
    let gateway = gateway(&upstream, Some(STORED)).await;
    program(gateway.home(), "claude", SAYS);
    let set_up = output(&mut cco(gateway.home(), &["setup", "claude", "--pay", "stored", "--yes"])).await;
    assert!(set_up.status.success(), "{}", text(&set_up.stderr));
    let mut command = cco(gateway.home(), &["run", "--simulated", "--", "claude", "-p", "hi"]);
    let ran = output(command.env("CLAUDE_CODE_USE_BEDROCK", "1")).await;
    let said: Vec<&str> = text(&ran.stdout).lines().collect();
    assert_eq!((said[0], &said[2..]), ("said --settings", &["said -p", "said hi", "cloud none"][..]), "{said:?}");
    let again: Value = serde_json::from_str(said[1].strip_prefix("said ").unwrap()).unwrap();
    assert_eq!(again["env"]["ANTHROPIC_AUTH_TOKEN"], "", "it would have the stored key pay");
    let base = again["env"]["ANTHROPIC_BASE_URL"].as_str().unwrap();
    assert!(base.starts_with("http://127.0.0.1:") && base != format!("http://{}", gateway.addr), "{base}");
    let ran = output(&mut cco(gateway.home(), &["run", "-q", "--", "claude"])).await;
    assert_eq!(text(&ran.stdout), "cloud none\n", "it says the same as the settings");
    let args = ["run", "--simulated", "--", "claude", "--settings", "{}"];
    let ran = output(&mut cco(gateway.home(), &args)).await;
    assert_eq!((ran.status.code(), text(&ran.stdout)), (Some(1), ""));
    assert!(text(&ran.stderr).contains("help: `cco setup claude --undo`"), "{}", text(&ran.stderr));
}

#[tokio::test]
async fn opencode_is_told_by_a_configuration_in_its_environment() {
    let upstream = upstream().await;
    let gateway = gateway(&upstream, Some(STORED)).await;
    program(gateway.home(), "opencode", "#!/bin/sh\necho \"$OPENCODE_CONFIG_CONTENT\"\n");
    let ran = output(&mut cco(gateway.home(), &["run", "--", "opencode"])).await;
    let config: Value = serde_json::from_str(text(&ran.stdout)).unwrap();
    let options = &config["provider"]["anthropic"]["options"];
    assert_eq!(options["baseURL"], format!("http://{}/v1", gateway.addr));
    let token = std::fs::read_to_string(gateway.home().join("token")).unwrap();
    assert_eq!((&options["apiKey"], &options["headers"]["x-cco-project"]), (&json!(token.trim()), &json!("web")));
}

#[tokio::test]
async fn codex_is_told_by_its_command_line() {
    let upstream = upstream().await;
    let gateway = gateway(&upstream, Some(STORED)).await;
    program(gateway.home(), "codex", SAYS);
    let ran = output(&mut cco(gateway.home(), &["run", "--", "codex", "exec", "hi"])).await;
    let said: Vec<&str> = text(&ran.stdout).lines().collect();
    assert_eq!((said[0], said[1], said[2]), ("said -c", "said model_provider=\"cco\"", "said -c"), "{said:?}");
    assert!(said[3].contains(&format!("base_url = \"http://{}/v1\"", gateway.addr)), "{said:?}");
    assert!(said[3].contains("x-cco-project = \"web\""), "{said:?}");
    let token = std::fs::read_to_string(gateway.home().join("token")).unwrap();
    assert!(!text(&ran.stdout).contains(token.trim()), "{said:?}");
    assert_eq!(said[4..], ["said exec", "said hi", "cloud none"]);
}

#[tokio::test]
async fn a_shell_reads_what_env_prints() {
    let upstream = upstream().await;
    let gateway = gateway(&upstream, Some(STORED)).await;
    let cco_path = env!("CARGO_BIN_EXE_cco");
    let script = format!(
        r#"eval "$('{cco_path}' env)"; echo "$ANTHROPIC_BASE_URL ${{ANTHROPIC_AUTH_TOKEN:+token}}"
           eval "$('{cco_path}' env --undo)"; echo "${{ANTHROPIC_BASE_URL-none}} ${{ANTHROPIC_AUTH_TOKEN-none}}""#
    );
    let mut shell = tokio::process::Command::new("sh");
    shell.args(["-c", &script]).env_clear().env("CCO_HOME", gateway.home()).env("HOME", gateway.home());
    let ran = output(shell.env("PATH", "/usr/bin:/bin")).await;
    assert_eq!(text(&ran.stdout), format!("http://{} token\nnone none\n", gateway.addr), "{}", text(&ran.stderr));
}

#[tokio::test]
async fn a_shell_gets_its_own_words_whatever_the_login_shell_is() {
    let upstream = upstream().await;
    let gateway = gateway(&upstream, Some(STORED)).await;
    let cco_path = env!("CARGO_BIN_EXE_cco");
    let (fish, others) = (format!("'{cco_path}' -q env | source"), format!(r#"eval "$('{cco_path}' -q env)""#));
    for (shell, read, login) in
        [("fish", &fish, "/bin/bash"), ("bash", &others, "/usr/bin/fish"), ("zsh", &others, "/usr/bin/fish")]
    {
        let mut command = tokio::process::Command::new(shell);
        command.args(["-c", &format!("{read}; echo $ANTHROPIC_BASE_URL")]).env_clear().env("PATH", "/usr/bin:/bin");
        command.env("CCO_HOME", gateway.home()).env("HOME", gateway.home()).env("SHELL", login);
        let ran = output(&mut command).await;
        assert_eq!(text(&ran.stdout), format!("http://{}\n", gateway.addr), "{shell}: {}", text(&ran.stderr));
    }
}

#[tokio::test]
async fn what_a_shell_had_before_comes_back() {
    let upstream = upstream().await;
    let gateway = gateway(&upstream, Some(STORED)).await;
    let cco_path = env!("CARGO_BIN_EXE_cco");
    let own = [
        ("ANTHROPIC_API_KEY", "it's \"mine\" $HOME"),
        ("ANTHROPIC_AUTH_TOKEN", "my token"),
        ("OPENAI_API_KEY", ""),
        ("CLAUDE_CODE_OAUTH_TOKEN", "my login"),
        ("OPENAI_BASE_URL", "http://mine"),
        ("HTTP_PROXY", "http://proxy.example.org:1"),
        ("NO_PROXY", "intra.example.org"),
    ];
    let shown = "env | grep -E '^(ANTHROPIC|OPENAI|CLAUDE|NO_PROXY|no_proxy|CCO_)' | grep -v CCO_HOME | sort";
    for (shell, options) in [("sh", ""), ("bash", ""), ("zsh", "--no-rcs"), ("fish", "--no-config")] {
        for pay in ["own", "stored"] {
            let read = |args: &str| match shell {
                "fish" => format!("'{cco_path}' -q env {args} --shell fish | source"),
                _ => format!(r#"eval "$('{cco_path}' -q env {args})""#),
            };
            let (on, off) = (read(&format!("--pay {pay}")), read("--undo"));
            // Twice: what was before is not what the first call made of it.
            let script = format!("{shown}; echo @@; {on}; {on}; {shown}; echo @@; {off}; {shown}; {off}");
            let mut command = tokio::process::Command::new(shell);
            command
                .args(Some(options).filter(|options| !options.is_empty()))
                .args(["-c", &script])
                .env_clear()
                .envs(own)
                .env("PATH", "/usr/bin:/bin");
            let ran = output(command.env("CCO_HOME", gateway.home()).env("HOME", gateway.home())).await;
            let parts: Vec<_> = text(&ran.stdout).split("@@\n").collect();
            assert_eq!(parts.len(), 3, "{shell}: {}", text(&ran.stderr));
            assert!(parts[1].contains(&format!("ANTHROPIC_BASE_URL=http://{}", gateway.addr)), "{}", parts[1]);
            assert_eq!(parts[1].contains("mine\""), pay == "own", "what others pay with is kept from what is started");
            assert_eq!(parts[0], parts[2], "{shell}, {pay}: {}", text(&ran.stderr));
        }
    }
}
