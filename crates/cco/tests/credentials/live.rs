//! Stored keys in a running gateway: spent, changed and deleted without a restart.

use serde_json::json;

use crate::common::{Answer, Gateway, prompt, soon, until, upstream};
use crate::home::{Home, KEY, OTHER};

/// A request of a client that brings no key.
pub(crate) fn unsigned() -> Vec<u8> {
    let body = prompt("Hello.", false);
    let head = format!(
        "POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nanthropic-version: 2023-06-01\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body.as_bytes()].concat()
}

/// A gateway in this home.
async fn serve(home: &Home, more: &[(&str, &str)]) -> Gateway {
    let folder = home.path().to_str().unwrap();
    let env = [&[("CCO_HOME", folder), ("HOME", folder), ("PATH", "/usr/bin:/bin")], more].concat();
    Gateway::start_with(json!({}), &[], &env).await
}

/// Asks until the answer is as it should be.
async fn ask_until(gateway: &Gateway, holds: impl Fn(&Answer) -> bool) -> Answer {
    soon(async {
        loop {
            let answer = gateway.ask(unsigned()).await;
            if holds(&answer) {
                return answer;
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_key_is_spent_from_the_start() {
    let upstream = upstream().await;
    for reference in ["credential:A", "env:A"] {
        let home = Home::new();
        home.configure(upstream.addr, reference);
        home.store("A", KEY);
        let gateway = serve(&home, &[]).await;
        assert_eq!(gateway.ask(unsigned()).await.status, 200);
        assert_eq!(upstream.last().header_all("x-api-key"), [KEY], "{reference}");
        assert_eq!(gateway.health().await["providers"]["anthropic"], true);
    }
    // What is set in the environment goes before what is stored.
    let home = Home::new();
    home.configure(upstream.addr, "env:A");
    home.store("A", KEY);
    let gateway = serve(&home, &[("A", OTHER)]).await;
    assert_eq!(gateway.ask(unsigned()).await.status, 200);
    assert_eq!(upstream.last().header_all("x-api-key"), [OTHER]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_stored_changed_or_deleted_is_so_in_the_running_gateway() {
    let upstream = upstream().await;
    for reference in ["credential:A", "env:A"] {
        let home = Home::new();
        home.configure(upstream.addr, reference);
        let gateway = serve(&home, &[]).await;
        gateway.ask(unsigned()).await.refusal(401, "authentication_error");
        for key in [KEY, OTHER] {
            home.store("A", key);
            ask_until(&gateway, |answer| answer.status == 200 && upstream.last().header_all("x-api-key") == [key])
                .await;
            gateway.log_line(&["the key is another one", "anthropic", &key[key.len() - 4..]]).await;
        }
        assert_eq!(home.run(&["delete", "A"]).done(), "deleted `A`\n");
        let answer = ask_until(&gateway, |answer| answer.status == 401).await;
        let why = answer.refusal(401, "authentication_error");
        assert!(why.contains("there is no key for the provider `anthropic`"), "{why}");
        let log = gateway.log();
        assert!(!log.contains("canary") && !log.contains("kanarie"), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_changes_lets_in_who_shows_the_new_one() {
    let upstream = upstream().await;
    let home = Home::new();
    home.store("TOKEN", "token-of-before");
    home.store("A", KEY);
    let config = json!({
        "server": { "token": "credential:TOKEN" },
        "providers": { "anthropic": {
            "baseUrl": format!("http://{}", upstream.addr), "apiKeyRef": "credential:A", "apiKeyMode": "client",
        } },
    });
    std::fs::write(home.file("config.json"), config.to_string()).unwrap();
    let gateway = serve(&home, &[]).await;
    // Who shows the token spends the stored key; any other word in its place is a key of the caller's own.
    let spent = async |token: &str| {
        let request = String::from_utf8(unsigned()).unwrap();
        gateway.ask(request.replace("Host:", &format!("x-api-key: {token}\r\nHost:"))).await;
        upstream.last().header("x-api-key").unwrap().to_owned()
    };
    assert_eq!(spent("token-of-before").await, KEY);
    home.store("TOKEN", "token-of-now");
    until(async || spent("token-of-now").await == KEY).await;
    assert_eq!(spent("token-of-before").await, "token-of-before");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_breaks_keeps_its_last_key_in_use_and_is_told() {
    let upstream = upstream().await;
    let home = Home::new();
    home.configure(upstream.addr, "credential:A");
    home.store("A", KEY);
    let gateway = serve(&home, &[]).await;
    let whole = std::fs::read(home.file("credentials")).unwrap();
    std::fs::write(home.file("credentials"), &whole[..whole.len() - 1]).unwrap();
    gateway.log_line(&["the key cannot be looked up", "ends too early"]).await;
    assert_eq!(gateway.ask(unsigned()).await.status, 200);
    assert_eq!(upstream.last().header_all("x-api-key"), [KEY]);
    std::fs::write(home.file("credentials"), &whole).unwrap();
    home.store("A", OTHER);
    ask_until(&gateway, |_| upstream.last().header_all("x-api-key") == [OTHER]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_helper_is_asked_again_after_its_time() {
    let upstream = upstream().await;
    let home = Home::new();
    let key = home.file("key");
    std::fs::write(&key, KEY).unwrap();
    let config = json!({ "providers": { "anthropic": {
        "baseUrl": format!("http://{}", upstream.addr),
        "apiKeyRef": format!("exec:sh -c 'echo x >> \"{0}.count\"; cat \"{0}\"'", key.display()),
        "apiKeyTtlSecs": 0.3,
    } } });
    std::fs::write(home.file("config.json"), config.to_string()).unwrap();
    let gateway = serve(&home, &[]).await;
    assert_eq!(gateway.ask(unsigned()).await.status, 200);
    assert_eq!(upstream.last().header_all("x-api-key"), [KEY]);
    std::fs::write(&key, OTHER).unwrap();
    ask_until(&gateway, |_| upstream.last().header_all("x-api-key") == [OTHER]).await;
    // Requests do not run it: there were more of them than there was time for helpers.
    let asked = upstream.sim.requests().len();
    let ran = std::fs::read_to_string(home.file("key.count")).unwrap().lines().count();
    assert!(ran < asked, "{ran} runs for {asked} requests");
    std::fs::remove_file(&key).unwrap();
    gateway.log_line(&["the key cannot be looked up", "exit status: 1"]).await;
    assert_eq!(gateway.ask(unsigned()).await.status, 200);
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_helper_that_hangs_holds_up_nobody() {
    let upstream = upstream().await;
    let home = Home::new();
    let started = home.file("started");
    // At the start it answers; after that it hangs.
    let script = format!("test -e \"{0}\" && exec sleep 600; touch \"{0}\"; echo {KEY}", started.display());
    let config = json!({ "providers": { "anthropic": {
        "baseUrl": format!("http://{}", upstream.addr), "apiKeyRef": format!("exec:sh -c '{script}'"), "apiKeyTtlSecs": 0.05,
    } } });
    std::fs::write(home.file("config.json"), config.to_string()).unwrap();
    let mut gateway = serve(&home, &[]).await;
    let hangs = || {
        let own = |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let all = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let parent = |pid: &str| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)?.parse::<u32>().ok())
        };
        all.filter(|pid| parent(pid) == Some(gateway.pid())).any(|pid| own(&pid).starts_with("sleep\x00600"))
    };
    until(async || hangs()).await;
    for _ in 0..20 {
        assert_eq!(gateway.ask(unsigned()).await.status, 200);
    }
    assert_eq!(upstream.last().header_all("x-api-key"), [KEY]);
    gateway.signal("TERM").await;
    assert!(gateway.ended().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_use_of_a_key_is_told() {
    let upstream = upstream().await;
    let home = Home::new();
    home.configure(upstream.addr, "credential:A");
    home.store("A", KEY);
    home.store("B", OTHER);
    let mut gateway = serve(&home, &[]).await;
    assert_eq!(gateway.ask(unsigned()).await.status, 200);
    gateway.signal("TERM").await;
    assert!(gateway.ended().await.success());
    let list: serde_json::Value = serde_json::from_str(&home.run(&["list", "--json"]).done()).unwrap();
    assert!(list[0]["last_used_at"].is_string() && list[1]["last_used_at"].is_null(), "{list}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_passphrase_from_the_environment_opens_the_store_of_a_gateway() {
    let upstream = upstream().await;
    let mut home = Home::new();
    home.configure(upstream.addr, "credential:A");
    home.set("CCO_PASSPHRASE", "correct horse");
    home.run_with(&["store", "A", "--backend", "passphrase"], KEY).done();
    let gateway = serve(&home, &[("CCO_PASSPHRASE", "correct horse")]).await;
    assert_eq!(gateway.ask(unsigned()).await.status, 200);
    assert_eq!(upstream.last().header_all("x-api-key"), [KEY]);
    // Without it, the gateway serves those who bring a key of their own, and says what is missing to the others.
    let gateway = serve(&home, &[]).await;
    let why = gateway.ask(unsigned()).await.refusal(401, "authentication_error");
    assert!(why.contains("locked with a passphrase") && why.contains("`CCO_PASSPHRASE`"), "{why}");
    assert_eq!(gateway.ask(crate::common::whole("")).await.status, 200);
}
