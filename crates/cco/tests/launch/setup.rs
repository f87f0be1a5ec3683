//! A client's settings file, changed and brought back.

use serde_json::{Value, json};

use crate::common::upstream;
use crate::{cco, gateway, output, text};

#[tokio::test]
async fn claude_is_set_up_shown_and_taken_back_byte_for_byte() {
    let upstream = upstream().await;
    let gateway = gateway(&upstream, None).await;
    let settings = gateway.home().join("user/.claude/settings.json");
    std::fs::create_dir_all(settings.parent().unwrap()).unwrap();
    let before = "{\n  // mine\n  \"model\": \"opus\"\n}\n";
    std::fs::write(&settings, before).unwrap();

    let asked = output(&mut cco(gateway.home(), &["setup", "claude", "--pay", "own"])).await;
    assert_eq!(asked.status.code(), Some(1), "nobody was there to agree");
    assert_eq!(std::fs::read_to_string(&settings).unwrap(), before);

    let done = output(&mut cco(gateway.home(), &["setup", "claude", "--pay", "own", "--yes"])).await;
    let (out, err) = (text(&done.stdout), text(&done.stderr));
    assert!(done.status.success(), "{err}");
    let base = format!("\"ANTHROPIC_BASE_URL\": \"http://{}\"", gateway.addr);
    assert!(out.lines().any(|line| line.starts_with('+') && line.contains(&base)), "{out}");
    let after = std::fs::read_to_string(&settings).unwrap();
    assert!(after.contains(&base) && after.contains("// mine") && !after.contains("TOKEN"), "{after}");

    let again = output(&mut cco(gateway.home(), &["setup", "claude", "--pay", "own", "--yes"])).await;
    assert!(text(&again.stdout).contains("claude is set up already"), "{}", text(&again.stdout));
    let list = output(&mut cco(gateway.home(), &["setup", "--list"])).await;
    assert!(text(&list.stdout).starts_with("claude    set up in"), "{}", text(&list.stdout));
    let list = output(&mut cco(gateway.home(), &["setup", "--list", "--json"])).await;
    let rows: Vec<Value> = text(&list.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((rows.len(), &rows[0]["state"], &rows[1]["state"]), (3, &json!("set up"), &json!("not set up")));
    assert_eq!(rows[0]["file"], json!(settings));
    let list = output(&mut cco(gateway.home(), &["setup", "--list"])).await;
    assert!(text(&list.stdout).contains("codex     not set up"), "{}", text(&list.stdout));

    let undone = output(&mut cco(gateway.home(), &["setup", "claude", "--undo", "--yes"])).await;
    assert!(undone.status.success(), "{}", text(&undone.stderr));
    assert_eq!(std::fs::read_to_string(&settings).unwrap(), before);
    let nothing = output(&mut cco(gateway.home(), &["setup", "claude", "--undo"])).await;
    assert!(text(&nothing.stdout).contains("nothing to undo"), "{}", text(&nothing.stdout));
}

#[tokio::test]
async fn who_is_sent_where_the_gateway_will_not_be_is_told() {
    let upstream = upstream().await;
    // On a port that is another one at each start.
    let gateway = gateway(&upstream, None).await;
    let set_up = || async { output(&mut cco(gateway.home(), &["setup", "claude", "--pay", "own", "--yes"])).await };
    let told = set_up().await;
    let err = text(&told.stderr);
    assert!(err.contains("warning: the gateway is somewhere else after its next start\n"), "{err}");
    assert!(err.contains(&format!("help: `cco config set server.listen {}` keeps it there", gateway.addr)), "{err}");
    // The port of another start.
    let settings = gateway.home().join("user/.claude/settings.json");
    let memory = gateway.home().join("setup/claude.json");
    for file in [&settings, &memory] {
        let then = std::fs::read_to_string(file).unwrap().replace(&gateway.addr.to_string(), "127.0.0.1:9");
        std::fs::write(file, then).unwrap();
    }
    let list = output(&mut cco(gateway.home(), &["setup", "--list"])).await;
    let out = text(&list.stdout);
    assert!(out.contains("for http://127.0.0.1:9, and the gateway is not there: `cco setup claude`\n"), "{out}");
    set_up().await;
    let list = output(&mut cco(gateway.home(), &["setup", "--list"])).await;
    assert!(!text(&list.stdout).contains("not there"), "{}", text(&list.stdout));
}

#[tokio::test]
async fn each_settings_file_that_was_changed_is_brought_back() {
    let upstream = upstream().await;
    let gateway = gateway(&upstream, None).await;
    let user = gateway.home().join("user");
    let files = [user.join(".claude/settings.json"), user.join("other/settings.json")];
    for file in &files {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, "{ \"model\": \"opus\" }").unwrap();
    }
    for folder in [None, Some(user.join("other"))] {
        let mut command = cco(gateway.home(), &["setup", "claude", "--pay", "own", "--yes"]);
        command.envs(folder.map(|folder| ("CLAUDE_CONFIG_DIR", folder)));
        let done = output(&mut command).await;
        assert!(done.status.success(), "{}", text(&done.stderr));
    }
    assert!(files.iter().all(|file| std::fs::read_to_string(file).unwrap().contains("ANTHROPIC_BASE_URL")));
    let list = output(&mut cco(gateway.home(), &["setup", "--list"])).await;
    for file in &files {
        assert!(text(&list.stdout).contains(&format!("set up in `{}`", file.display())), "{}", text(&list.stdout));
    }
    let undone = output(&mut cco(gateway.home(), &["setup", "claude", "--undo", "--yes"])).await;
    assert!(undone.status.success(), "{}", text(&undone.stderr));
    assert!(files.iter().all(|file| std::fs::read_to_string(file).unwrap() == "{ \"model\": \"opus\" }"));
}

#[tokio::test]
async fn what_comes_before_our_settings_is_said() {
    let upstream = upstream().await;
    let gateway = gateway(&upstream, None).await;
    let project = gateway.home().join("user/web/.claude");
    std::fs::create_dir_all(&project).unwrap();
    std::fs::write(project.join("settings.local.json"), r#"{"env":{"ANTHROPIC_BASE_URL":"http://elsewhere"}}"#)
        .unwrap();
    let mut command = cco(gateway.home(), &["setup", "--list"]);
    let list = output(command.env("CLAUDE_CODE_USE_BEDROCK", "1")).await;
    let out = text(&list.stdout);
    assert!(out.contains("settings.local.json` says http://elsewhere"), "{out}");
    assert!(out.contains("CLAUDE_CODE_USE_BEDROCK is set here"), "{out}");
}

#[tokio::test]
async fn codex_and_opencode_get_files_that_were_not_there_and_lose_them() {
    let upstream = upstream().await;
    let gateway = gateway(&upstream, Some("sk-ant-api03-of-the-gateway-56-9999")).await;
    let user = gateway.home().join("user");
    for (client, file, line) in [
        ("codex", ".codex/config.toml", format!("base_url = \"http://{}/v1\"", gateway.addr)),
        ("opencode", ".config/opencode/opencode.json", format!("\"baseURL\": \"http://{}/v1\"", gateway.addr)),
    ] {
        let done = output(&mut cco(gateway.home(), &["setup", client, "--pay", "stored", "--yes"])).await;
        assert!(done.status.success(), "{}", text(&done.stderr));
        let written = std::fs::read_to_string(user.join(file)).unwrap();
        assert!(written.contains(&line), "{written}");
        assert!(!written.contains("sk-ant"), "{written}");
        let undone = output(&mut cco(gateway.home(), &["setup", client, "--undo", "--yes"])).await;
        assert!(undone.status.success(), "{}", text(&undone.stderr));
        assert!(!user.join(file).exists());
    }
}

#[tokio::test]
async fn of_a_file_only_what_changes_is_shown_and_no_key_of_others() {
    let upstream = upstream().await;
    let gateway = gateway(&upstream, Some("sk-ant-api03-of-the-gateway-56-9999")).await;
    let settings = gateway.home().join("user/.codex/config.toml");
    std::fs::create_dir_all(settings.parent().unwrap()).unwrap();
    let own: String = (0..40).map(|n| format!("[profiles.p{n}]\nmodel = \"m{n}\"\n")).collect();
    let secret = "[model_providers.mine]\nexperimental_bearer_token = \"0123456789-4f2a\"\n";
    std::fs::write(&settings, format!("model = \"gpt-5\"\n\n{own}{secret}")).unwrap();
    let done = output(&mut cco(gateway.home(), &["setup", "codex", "--pay", "stored", "--yes"])).await;
    let out = text(&done.stdout);
    assert!(done.status.success(), "{}", text(&done.stderr));
    let changed: Vec<&str> = out.lines().filter(|line| line.starts_with(['+', '-'])).collect();
    assert!(changed.iter().all(|line| line.starts_with('+')) && (5..9).contains(&changed.len()), "{out}");
    assert!(out.lines().count() < 25 && out.contains("+ model_provider = \"cco\""), "{out}");
    assert!(!out.contains("0123456789"), "{out}");
}

#[tokio::test]
async fn a_settings_file_that_cannot_be_read_is_left_alone() {
    let upstream = upstream().await;
    let gateway = gateway(&upstream, None).await;
    let settings = gateway.home().join("user/.claude/settings.json");
    std::fs::create_dir_all(settings.parent().unwrap()).unwrap();
    let path = settings.display();
    for (broken, why) in [
        ("{ broken", "the file is not well-formed: "),
        ("[]", "what is in it is no object: write `{}` in its place"),
        (r#"{"env":"x"}"#, "`env` in it is no object: write `{}` in its place"),
    ] {
        std::fs::write(&settings, broken).unwrap();
        let refused = output(&mut cco(gateway.home(), &["setup", "claude", "--pay", "own", "--yes"])).await;
        assert_eq!(refused.status.code(), Some(1));
        let said = format!("error: the settings of claude are left as they are\ncause: `{path}`: {why}");
        assert!(text(&refused.stderr).starts_with(&said), "{}", text(&refused.stderr));
        let help = format!("\nhelp: correct `{path}`, then `cco setup claude`\n");
        assert!(text(&refused.stderr).ends_with(&help), "{}", text(&refused.stderr));
        assert_eq!(std::fs::read_to_string(&settings).unwrap(), broken);
    }
    std::fs::write(&settings, "{\n  \"env\": {\n    broken\n").unwrap();
    let refused = output(&mut cco(gateway.home(), &["setup", "claude", "--pay", "own", "--yes"])).await;
    assert!(text(&refused.stderr).contains("not well-formed: line 3, column 5: "), "{}", text(&refused.stderr));
    let codex = gateway.home().join("user/.codex/config.toml");
    std::fs::create_dir_all(codex.parent().unwrap()).unwrap();
    std::fs::write(&codex, "model = \"a\"\n[broken\n").unwrap();
    let refused = output(&mut cco(gateway.home(), &["setup", "codex", "--pay", "own", "--yes"])).await;
    assert!(
        text(&refused.stderr).contains("config.toml`: the file is not well-formed: line 2: "),
        "{}",
        text(&refused.stderr)
    );
}
