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
    assert!(refused.contains("server.allowRemote") && refused.contains("help: nothing was changed: "), "{refused}");
    let refused = config(&home, &["set", "server.lisen", "x"]).failed(2);
    assert!(refused.contains("did you mean `listen`?"), "{refused}");
    let refused = config(&home, &["set", "server.maxConnections", "many"]).failed(78);
    assert_eq!(
        refused,
        "error: `server.maxConnections` is not set: must be a whole number, not a string\n\
         help: nothing was changed: write for example `1`\n"
    );
    // It is no use to say one key after the other where none can stand alone.
    let refused = config(&home, &["set", "providers.mine.baseUrl", "http://127.0.0.1:1"]).failed(78);
    assert!(refused.contains("providers.mine.providerType: is missing"), "{refused}");
    assert!(refused.contains("help: nothing was changed: `cco providers add KIND --name mine`"), "{refused}");
    assert_eq!(std::fs::read(home.file("config.json")).unwrap(), before);
}

#[test]
fn faults_that_were_there_before_are_told_and_keep_no_key_from_being_set() {
    let home = Home::new();
    let file = home.file("config.json");
    std::fs::write(&file, "{\n  \"servr\": 1,\n  \"log\": { \"level\": \"loud\" }\n}\n").unwrap();
    let said = config(&home, &["set", "server.pingSecs", "9"]);
    assert_eq!((said.code, said.out.as_str()), (Some(0), "server.pingSecs = 9\n"), "{}", said.err);
    let shown = file.display();
    assert!(
        said.err.starts_with("warning: it is set, and the file still has faults that it had before\n"),
        "{}",
        said.err
    );
    assert!(said.err.contains(&format!("{shown}:2:3: servr: unknown key\n")), "{}", said.err);
    assert!(said.err.contains(&format!("{shown}:3:21: log.level: ")), "{}", said.err);
    assert!(
        said.err.contains(&format!("\nhelp: correct `{shown}`; `cco config validate` looks again\n")),
        "{}",
        said.err
    );
    // A wrong value is refused, whatever was there before.
    let refused = config(&home, &["set", "log.level", "shrill"]).failed(78);
    assert!(refused.starts_with("error: `log.level` is not set: \"shrill\" is not known here\n"), "{refused}");
    let said = config(&home, &["set", "log.level", "warn"]);
    assert!(said.code == Some(0) && said.err.contains("still has a fault that"), "{}", said.err);
    // And what is not known can be taken out.
    assert_eq!(config(&home, &["set", "servr", "--default"]).done(), "servr: removed\n");
    assert!(config(&home, &["validate"]).done().contains("good"));
    assert!(config(&home, &["set", "servr", "--default"]).failed(2).contains("did you mean `server`?"));
}

#[test]
fn of_several_who_set_keys_at_once_none_loses_what_another_has_set() {
    let home = Home::new();
    config(&home, &["init"]).done();
    let keys = [
        ("log.level", "warn"),
        ("log.files", "7"),
        ("server.pingSecs", "9"),
        ("server.drainSecs", "8"),
        ("audit.retentionDays", "6"),
        ("providers.anthropic.timeoutSecs", "5"),
    ];
    let children = keys.map(|(key, value)| home.command(&["config", "set", key, value]).spawn().unwrap());
    for (child, (key, value)) in children.into_iter().zip(keys) {
        let said = Said::from(child.wait_with_output().unwrap());
        assert_eq!(said.code, Some(0), "{key} = {value}: {}", said.err);
    }
    for (key, value) in keys {
        assert_eq!(config(&home, &["get", key]).done().trim(), value, "{key}");
    }
}

#[test]
fn a_file_that_is_not_well_formed_is_told_with_its_place_and_stays() {
    let home = Home::new();
    let file = home.file("config.json");
    std::fs::write(&file, "{\n  \"log\": { \"level\": }\n}\n").unwrap();
    let place = format!("{}:2:", file.display());
    for command in [&["set", "log.level", "warn"][..], &["validate"], &["show"], &["get", "log.level"]] {
        let refused = config(&home, command).failed(78);
        assert!(refused.contains(&place) && refused.contains("`cco config validate` looks again"), "{refused}");
    }
    assert!(std::fs::read_to_string(&file).unwrap().contains("\"level\": }"));
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
    assert!(refused.contains("\nhelp: `unset CCO_SERVER_PING_SECS`"), "{refused}");
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
    assert!(missing.contains(&format!("\nhelp: `cco config --config {} init`", other.display())), "{missing}");
    assert!(config(&home, &["path"]).err.contains("nothing starts without a file that is named"));
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
