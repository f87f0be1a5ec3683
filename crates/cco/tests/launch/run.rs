//! One command, or a shell, on the gateway.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::common::{Gateway, soon, upstream};
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
        let ran = output(command.env("STORED_KEY", STORED)).await;
        let (out, err) = (text(&ran.stdout), text(&ran.stderr));
        assert!(out.contains("key none token given") && out.contains("said so"), "{out} {err}");
        let reported =
            err.contains("paying with: stored key ANTHROPIC_API_KEY") || err.contains("stored key STORED_KEY (…9999)");
        assert!(reported, "{err}");
        let arrived = format!("{:?}", upstream.last_ended().await.headers);
        assert!(!arrived.contains(OWN), "{arrived}");
    }
    let refused = output(&mut cco(gateway.home(), &["run", "--pay", "own", "--quiet", "--", "claude"])).await;
    assert!(text(&refused.stdout).contains("key none token \n"), "{}", text(&refused.stdout));
    assert_eq!(text(&refused.stderr), "", "quiet is quiet");
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
    assert!(err.contains("(1 requests, ") && !err.contains("no request went"), "{err}");
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
        assert_eq!((ran.status.code(), text(&ran.stdout)), (Some(1), ""), "{args:?}");
        assert!(text(&ran.stderr).contains("error: no gateway of yours answers"), "{}", text(&ran.stderr));
        assert!(text(&ran.stderr).contains("help: cco daemon start"), "{}", text(&ran.stderr));
    }
}

#[tokio::test]
async fn a_simulator_needs_nothing_and_leaves_nothing() {
    let home = tempfile::tempdir().unwrap();
    furnish(home.path());
    let ran = output(&mut cco(home.path(), &["run", "--simulated", "--", "claude"])).await;
    let (out, err) = (text(&ran.stdout), text(&ran.stderr));
    assert!(ran.status.success() && out.contains("said so"), "{out} {err}");
    assert!(err.contains("note: simulated: every answer is made up"), "{err}");
    assert!(err.ends_with("note: simulated: 1 requests, $0\n"), "{err}");
    let left: Vec<_> = std::fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
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
