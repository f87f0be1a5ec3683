//! `cco config`: the file is found, written, shown, checked and changed.

use crate::home::{Home, Said};

fn config(home: &Home, args: &[&str]) -> Said {
    home.command(&[&["config"], args].concat()).output().unwrap().into()
}

#[test]
fn the_first_file_changes_nothing_and_is_not_written_over() {
    let home = Home::new();
    let before = config(&home, &["show", "--json"]).done();
    let written = config(&home, &["init"]).done();
    assert!(written.contains("config.json") && written.contains("config.schema.json"), "{written}");
    let values = |shown: &str| -> Vec<(String, String)> {
        let shown: serde_json::Value = serde_json::from_str(shown).unwrap();
        let rows = shown["settings"].as_array().unwrap();
        rows.iter().map(|row| (row["key"].to_string(), row["value"].to_string())).collect()
    };
    let after = config(&home, &["show", "--json"]).done();
    assert_eq!(values(&before), values(&after), "all of it is the default");
    assert!(config(&home, &["validate"]).done().ends_with("config.json: good\n"));
    let schema: serde_json::Value =
        serde_json::from_slice(&std::fs::read(home.file("config.schema.json")).unwrap()).unwrap();
    assert_eq!(schema["else"]["properties"]["log"]["type"], "object");
    let refused = config(&home, &["init"]).failed(1);
    assert!(refused.contains("is there already") && refused.contains("help: "), "{refused}");
    config(&home, &["init", "--force"]).done();
}

#[test]
fn the_folder_of_the_first_file_is_for_its_user_alone() {
    let mut home = Home::new();
    let folder = home.file("of/mine");
    home.set("CCO_HOME", folder.to_str().unwrap());
    config(&home, &["init"]).done();
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&folder).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn a_key_is_set_in_its_place_and_the_comments_stay() {
    let home = Home::new();
    config(&home, &["init"]).done();
    assert_eq!(
        config(&home, &["set", "server.listen", "127.0.0.1:8000"]).done(),
        "server.listen = \"127.0.0.1:8000\"\n"
    );
    assert_eq!(config(&home, &["get", "server.listen"]).done(), "127.0.0.1:8000\n");
    config(&home, &["set", "server.hosts", "a,b"]).done();
    assert_eq!(config(&home, &["get", "server.hosts"]).done(), "[\"a\",\"b\"]\n");
    assert_eq!(config(&home, &["get", "server.hosts[1]"]).done(), "b\n");
    config(&home, &["set", "providers.anthropic.headers", "{\"x-team\": \"geheim\"}"]).done();
    let text = std::fs::read_to_string(home.file("config.json")).unwrap();
    assert!(text.contains("// One port for everything.") && text.contains("geheim"), "{text}");
    let shown = config(&home, &["show", "providers"]).done();
    assert!(!shown.contains("geheim") && shown.contains("x-team"), "{shown}");
    config(&home, &["set", "server.hosts", "--default"]).done();
    assert_eq!(config(&home, &["get", "server.hosts"]).done(), "[]\n");
}

#[test]
fn what_would_break_the_file_is_refused_and_changes_nothing() {
    let home = Home::new();
    config(&home, &["init"]).done();
    let before = std::fs::read(home.file("config.json")).unwrap();
    let refused = config(&home, &["set", "server.listen", "0.0.0.0:1"]).failed(78);
    assert!(refused.contains("server.allowRemote") && refused.contains("nothing was changed"), "{refused}");
    let refused = config(&home, &["set", "server.lisen", "x"]).failed(2);
    assert!(refused.contains("did you mean `listen`?"), "{refused}");
    let refused = config(&home, &["set", "server.maxConnections", "many"]).failed(78);
    assert!(refused.contains("whole number"), "{refused}");
    assert_eq!(std::fs::read(home.file("config.json")).unwrap(), before);
}

#[test]
fn a_value_tells_where_it_comes_from() {
    let mut home = Home::new();
    std::fs::write(home.file("config.json"), "{\n  \"log\": { \"level\": \"warn\" }\n}").unwrap();
    home.set("CCO_SERVER_PING_SECS", "7");
    let shown = config(&home, &["show", "--changed"]).done();
    let lines: Vec<_> =
        shown.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(lines, ["server.pingSecs = 7 # CCO_SERVER_PING_SECS", "log.level = \"warn\" # line 2"]);
    let said = config(&home, &["set", "server.pingSecs", "9"]);
    assert!(said.code == Some(0) && said.err.contains("`CCO_SERVER_PING_SECS` comes before the file"), "{}", said.err);
    home.set("CCO_SERVER_PING_SECS", "often");
    let refused = config(&home, &["show"]).failed(78);
    assert!(refused.contains("`CCO_SERVER_PING_SECS`: server.pingSecs: must be a number"), "{refused}");
}

#[test]
fn the_file_is_sought_in_order() {
    let mut home = Home::new();
    let said = config(&home, &["path"]);
    assert_eq!(said.out.trim(), home.file("config.json").to_str().unwrap());
    assert!(said.err.contains("the defaults hold"), "{}", said.err);
    let other = home.file("other.json");
    home.set("CCO_CONFIG", other.to_str().unwrap());
    assert_eq!(config(&home, &["path"]).out.trim(), other.to_str().unwrap());
    let third = home.file("third.json");
    assert_eq!(config(&home, &["--config", third.to_str().unwrap(), "path"]).out.trim(), third.to_str().unwrap());
    let missing = config(&home, &["validate"]).failed(78);
    assert!(missing.contains("named by the variable `CCO_CONFIG`"), "{missing}");
}

#[test]
fn validate_tells_all_faults_and_models_that_are_gone() {
    let home = Home::new();
    std::fs::write(home.file("config.json"), r#"{ "servr": {}, "log": { "level": "loud" } }"#).unwrap();
    let refused = config(&home, &["validate"]).failed(78);
    assert!(refused.contains("did you mean `server`?") && refused.contains("\"loud\""), "{refused}");
    let text = r#"{ "providers": { "anthropic": { "defaultModel": "claude-sonnet-4-20250514" } } }"#;
    std::fs::write(home.file("config.json"), text).unwrap();
    let said = config(&home, &["validate"]).done();
    assert!(said.contains("warning: providers.anthropic.defaultModel: `claude-sonnet-4-20250514` was retired on 2026-06-15: use `claude-sonnet-5-5`"), "{said}");
}
