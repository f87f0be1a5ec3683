//! Where the file is sought, and what may lie there.

use super::*;

#[test]
fn paths_begin_at_the_users_folder_or_at_the_files() {
    let paths = Paths { folder: Some("/etc/cco".into()), user_home: Some("/u".into()) };
    let text = r#"{ "network": { "caFile": "ca.pem" }, "audit": { "dbPath": "/abs/db" },
        "providers": { "anthropic": { "apiKeyRef": "file:~/key" } } }"#;
    let (config, _) = parse(text, &paths).unwrap();
    assert_eq!(config.network.ca_file, Some("/etc/cco/ca.pem".into()));
    assert_eq!(config.audit.db_path, Some("/abs/db".into()));
    assert_eq!(config.providers[0].api_keys, [CredentialRef::File("/u/key".into())]);
}

#[test]
fn the_file_is_sought_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, ping: u32| {
        let path = folder.path().join(name);
        std::fs::write(&path, format!(r#"{{ "server": {{ "pingSecs": {ping} }} }}"#)).unwrap();
        path
    };
    let home = folder.path().to_str().unwrap();
    let ping = |named: Option<&Path>, env: Env| load(named, &env).map(|loaded| loaded.config.server.ping.as_secs());
    assert_eq!(ping(None, Env::fixed([("CCO_HOME", home)])).unwrap(), 15, "no file: defaults");
    assert_eq!(ping(None, Env::fixed([])).unwrap(), 15, "not even a home: defaults");
    let in_home = write("config.json", 1);
    let (by_variable, by_option) = (write("b.json", 2), write("c.json", 3));
    let variable = by_variable.to_str().unwrap();
    let loaded = load(None, &Env::fixed([("CCO_HOME", home)])).unwrap();
    assert_eq!((loaded.config.server.ping.as_secs(), loaded.file), (1, Some(in_home)));
    assert_eq!(ping(None, Env::fixed([("CCO_HOME", home), ("CCO_CONFIG", variable)])).unwrap(), 2);
    assert_eq!(ping(Some(&by_option), Env::fixed([("CCO_HOME", home), ("CCO_CONFIG", variable)])).unwrap(), 3);
    let missing = folder.path().join("missing.json");
    let error = ping(Some(&missing), Env::fixed([])).unwrap_err().to_string();
    assert!(error.contains("missing.json") && error.contains("`--config`"), "{error}");
    let error = ping(None, Env::fixed([("CCO_CONFIG", missing.to_str().unwrap())])).unwrap_err().to_string();
    assert!(error.contains("`CCO_CONFIG`"), "{error}");
}

#[test]
fn a_file_that_is_no_text_is_a_fault_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.json");
    std::fs::write(&path, b"{\n  \"x\": \"\xff\" }").unwrap();
    let error = load(Some(&path), &Env::fixed([])).unwrap_err().to_string();
    assert!(error.contains("c.json:2:9: not UTF-8\n  help: save"), "{error}");
    std::fs::write(&path, vec![b' '; MAX_FILE as usize + 1]).unwrap();
    let error = load(Some(&path), &Env::fixed([])).unwrap_err().to_string();
    assert!(error.contains("larger than 4 MiB"), "{error}");
}

/// Whoever opens one waits until somebody writes: for ever.
#[test]
fn a_pipe_is_no_configuration_and_nobody_waits_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.json");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    let error = load(Some(&path), &Env::fixed([])).unwrap_err().to_string();
    assert!(error.ends_with("named by `--config`: it is a pipe: write it to a file"), "{error}");
}
