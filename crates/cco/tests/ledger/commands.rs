//! The commands that list and sum up, as people see them.

use std::process::Stdio;

use ledger::sample;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::common::{Gateway, binary, prompt, request, soon, streamed, upstream, whole};
use crate::{cco, cco_at, home, printed, recorded, stop, text};

const NO_GATEWAY: &str = "note: no gateway is running here: this is from the files in ";

/// 1000 tokens in, 3000 from the cache, 50 out.
fn used(record: &mut ledger::record::Record) {
    let tokens = &mut record.usage.as_mut().unwrap().tokens;
    *tokens = Default::default();
    (tokens.input, tokens.cache_read, tokens.output) = (1000, 3000, 50);
}

fn lines(output: &str) -> Vec<Value> {
    output.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|why| panic!("{why}: {line}"))).collect()
}

#[tokio::test]
async fn logs_are_a_table_the_last_at_its_end() {
    let records: Vec<_> = (15..19).map(sample::record).collect();
    let home = recorded(&records);
    let output = cco(home.path(), &["logs"]).await;
    let want = "\
TIME                 ID        OUTCOME             MODEL                 PROVIDER       IN  CACHED     OUT      COST      TOOK  WHAT
2026-11-01 00:01:56  f18552c9  success             deepseek-flash        deepseek    89.5k    96 %     814   $0.0512    13.9 s  cco
2026-11-01 00:02:04  c3a2a69f  success             deepseek-flash        deepseek    72.6k    98 %      45   $0.0261    15.4 s  cco
2026-11-01 00:02:12  acf5315b  upstream_error 529  deepseek-flash        deepseek        -       -       -         -    16.3 s  cco · the provider `anthropic` is overloaded
2026-11-01 00:02:19  7523cf3e  success             deepseek-flash        deepseek    22.5k    96 %     347   $0.0146    411 ms  cco · Explore
";
    assert_eq!(printed(&output), want);
    assert!(text(&output.stderr).starts_with(NO_GATEWAY), "{}", text(&output.stderr));
    let output = cco_at(home.path(), "CET-1CEST,M3.5.0,M10.5.0/3", &["logs", "--limit", "1"]).await;
    assert!(printed(&output).contains("\n2026-11-01 01:02:19  7523cf3e  "), "{}", printed(&output));
}

#[tokio::test]
async fn one_vocabulary_says_which_exchanges_are_meant() {
    let records: Vec<_> = (0..200).map(sample::record).collect();
    let home = recorded(&records);
    let some = |name: &Option<Box<str>>, value: &str| name.as_deref() == Some(value);
    let session = records[60].parties.session.clone().unwrap();
    let half: Vec<String> = vec![format!("{}*", &session[..8])];
    type Meant<'a> = Box<dyn Fn(&ledger::record::Record) -> bool + 'a>;
    let cases: Vec<(Vec<&str>, Meant<'_>)> = vec![
        (vec![], Box::new(|_| true)),
        (vec!["--failed"], Box::new(|r| r.outcome.is_failure())),
        (vec!["--model", "claude-haiku-5-5"], Box::new(|r| some(&r.parties.model, "claude-haiku-5-5"))),
        (
            vec!["--model", "*haiku*", "--project", "cco"],
            Box::new(|r| some(&r.parties.model, "claude-haiku-5-5") && some(&r.parties.project, "cco")),
        ),
        (vec!["--provider", "deepseek"], Box::new(|r| some(&r.parties.provider, "deepseek"))),
        (vec!["--agent", "Explore"], Box::new(|r| some(&r.parties.agent_type, "Explore"))),
        (vec!["--session", &half[0]], Box::new(|r| r.parties.session == Some(session.clone()))),
        (vec!["--since", "2026-11-01T00:10"], Box::new(|r| r.started_us >= sample::EPOCH_US + 600_000_000)),
        (
            vec!["--since", "2026-11-01T00:10", "--until", "2026-11-01T00:15"],
            Box::new(|r| (600_000_000..900_000_000).contains(&(r.started_us - sample::EPOCH_US))),
        ),
    ];
    for (args, meant) in cases {
        let all = [&["logs", "--json", "--limit", "1000"], &args[..]].concat();
        let output = cco(home.path(), &all).await;
        let ids: Vec<String> =
            lines(printed(&output)).iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect();
        let want: Vec<String> = records.iter().filter(|r| meant(r)).map(|r| r.id.to_string()).collect();
        assert!(!want.is_empty() && ids == want, "{args:?}: {} of {}", ids.len(), want.len());
        // The same words mean the same to the sums.
        let all = [&["costs", "--json", "--by", "operation"], &args[..]].concat();
        let output = cco(home.path(), &all).await;
        let counted: i64 = lines(printed(&output)).iter().map(|row| row["requests"].as_i64().unwrap()).sum();
        assert_eq!(counted, want.len() as i64, "{args:?}");
    }
    for (args, want) in [
        (&["logs", "--since", "soon"][..], "`soon` is no time"),
        (&["costs", "--limit", "0"], "from 1 to 100000"),
        (&["logs", "--json", "--csv"], "--csv"),
        (&["logs", "--grep", "("], "--grep"),
        (&["costs", "--by", "colour"], "project"),
    ] {
        let output = cco(home.path(), args).await;
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(output.stdout.is_empty() && text(&output.stderr).contains(want), "{args:?}: {}", text(&output.stderr));
    }
}

#[tokio::test]
async fn comma_separated_values_have_a_heading_and_quotes_where_they_must() {
    let mut record = sample::record(0);
    record.parties.project = Some("a \"b\", c".into());
    record.parties.session = None;
    let home = recorded(&[record]);
    let output = cco(home.path(), &["logs", "--csv"]).await;
    let rows: Vec<&str> = printed(&output).lines().collect();
    assert!(rows[0].starts_with("time,id,operation,outcome,status,provider,model,session,"), "{}", rows[0]);
    assert!(rows[1].contains(",deepseek-flash,,,,\"a \"\"b\"\", c\","), "{}", rows[1]);
    assert_eq!(rows.len(), 2);
    let output = cco(home.path(), &["costs", "--csv", "--by", "project"]).await;
    assert!(printed(&output).starts_with("project,requests,failed,input_tokens,"), "{}", printed(&output));
    assert!(printed(&output).contains("\n\"a \"\"b\"\", c\",1,0,"), "{}", printed(&output));
}

#[tokio::test]
async fn what_a_model_or_client_chose_cannot_move_the_cursor() {
    let mut record = sample::record(0);
    record.parties.model = Some("m\u{1b}[2J\u{9b}1m".into());
    record.parties.project = Some("p\r\u{202e}".into());
    record.parties.agent = Some("a\u{7}".into());
    record.parties.agent_type = None;
    record.error = Some("e\u{1b}]0;title\u{7}\nsecond line".into());
    let home = recorded(&[record]);
    for args in [
        &["logs"][..],
        &["logs", "show", "last"],
        &["costs", "--by", "model"],
        &["costs", "--by", "project"],
        &["sessions"],
    ] {
        let output = cco(home.path(), args).await;
        let shown = printed(&output);
        assert!(!shown.contains(|c: char| c.is_control() && c != '\n' || c == '\u{202e}'), "{args:?}: {shown:?}");
        let escaped = ["\\u{1b}[2J", "\\u{202e}", "\\u{7}"].iter().any(|escape| shown.contains(escape));
        assert!(escaped, "{args:?}: {shown}");
    }
}

#[tokio::test]
async fn a_gateway_that_runs_is_asked_and_knows_what_has_just_ended() {
    let upstream = upstream().await;
    let home = home(&upstream, json!({}));
    let gateway = Gateway::start_in(home.path(), &[], &[]).await;
    for n in 0..5 {
        let id = gateway.ask(whole(&format!("text=answer-{n}"))).await.id().to_owned();
        let output = cco(home.path(), &["logs", "--json", "--limit", "1"]).await;
        assert_eq!(lines(printed(&output))[0]["id"], id);
        assert_eq!(text(&output.stderr), "");
    }
    let running = cco(home.path(), &["costs", "--json"]).await;
    stop(gateway).await;
    let stopped = cco(home.path(), &["costs", "--json"]).await;
    assert_eq!(printed(&running), printed(&stopped), "both ways say the same");
    assert!(text(&stopped.stderr).starts_with(NO_GATEWAY), "{}", text(&stopped.stderr));
}

#[tokio::test]
async fn after_a_crash_the_files_tell_what_the_journal_holds() {
    let upstream = upstream().await;
    let home = home(&upstream, json!({}));
    let mut gateway = Gateway::start_in(home.path(), &[], &[]).await;
    let id = gateway.ask(whole("text=hi")).await.id().to_owned();
    let mut hanging = gateway.client().await;
    hanging.send(streamed("fault=stall")).await;
    let interrupted = hanging.head().await.id().to_owned();
    gateway.signal("KILL").await;
    gateway.ended().await;
    assert!(home.path().join("cco.sock").exists(), "it had no time to tidy up");
    let output = cco(home.path(), &["logs", "--json"]).await;
    let rows = lines(printed(&output));
    let told: Vec<_> = rows.iter().map(|row| (row["id"].as_str().unwrap(), row["outcome"].as_str().unwrap())).collect();
    assert_eq!(told, [(&*id, "success"), (&*interrupted, "interrupted")]);
    assert!(text(&output.stderr).starts_with(NO_GATEWAY), "{}", text(&output.stderr));
}

#[tokio::test]
async fn where_nothing_was_recorded_that_is_said() {
    let home = tempfile::tempdir().unwrap();
    for args in [&["logs"][..], &["costs"], &["sessions"], &["limits"], &["logs", "show", "last"]] {
        let output = cco(home.path(), args).await;
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        let said = text(&output.stderr);
        assert!(said.contains("error: nothing has been recorded yet\nhelp: `cco run -- claude`"), "{args:?}: {said}");
    }
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0, "looking makes no files");
}

#[tokio::test]
async fn logs_are_followed_as_they_come() {
    let upstream = upstream().await;
    let home = home(&upstream, json!({}));
    let gateway = Gateway::start_in(home.path(), &[], &[]).await;
    let before = gateway.ask(whole("text=before")).await.id().to_owned();
    let mut command = binary();
    command.args(["logs", "-f", "--json", "--failed"]).env("CCO_HOME", home.path()).stdout(Stdio::piped());
    let failed = gateway.ask(whole("fault=529")).await.id().to_owned();
    let mut child = command.spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = async || {
        let line = soon(out.next_line()).await.unwrap().expect("it goes on");
        serde_json::from_str::<Value>(&line).unwrap()["id"].as_str().unwrap().to_owned()
    };
    assert_eq!(next().await, failed);
    for _ in 0..3 {
        gateway.ask(whole("text=fine")).await;
        let failed = gateway.ask(whole("fault=500")).await.id().to_owned();
        assert_eq!(next().await, failed, "what went well, as {before}, is not shown");
    }
    // Another gateway takes over.
    stop(gateway).await;
    let gateway = Gateway::start_in(home.path(), &[], &[]).await;
    let later = gateway.ask(whole("fault=500")).await.id().to_owned();
    assert_eq!(next().await, later);
}

#[tokio::test]
async fn bodies_are_searched() {
    let upstream = upstream().await;
    let home = home(&upstream, json!({}));
    let gateway = Gateway::start_in(home.path(), &[], &[]).await;
    let say = |text: &str| request("POST", "/v1/messages", "x-sim: text=yes\r\n", prompt(text, false));
    gateway.ask(say("nothing of interest")).await;
    let id = gateway.ask(say("the needle in the hay \\u001b[2J")).await.id().to_owned();
    gateway.ask(say("needless")).await;
    for running in [true, false] {
        let output = cco(home.path(), &["logs", "--grep", "need[l]e in", "--json"]).await;
        let rows = lines(printed(&output));
        assert_eq!(rows.iter().map(|row| row["id"].as_str().unwrap()).collect::<Vec<_>>(), [&*id], "{running}");
        assert_eq!(rows[0]["found"]["in"], "request");
        let output = cco(home.path(), &["logs", "--grep", "NEEDLE"]).await;
        assert_eq!(printed(&output), "");
        assert!(text(&output.stderr).contains("nothing that is kept fits"), "{}", text(&output.stderr));
        if running {
            gateway.signal("TERM").await;
            gateway.log_line(&["\"stopped\""]).await;
        }
    }
}

#[tokio::test]
async fn costs_have_a_bar_a_row_and_a_total() {
    let mut records: Vec<_> = (0..4).map(sample::record).collect();
    for (record, (day, cost, model)) in records.iter_mut().zip([
        (0, 3_000_000_000, "claude-opus-5-5"),
        (0, 500_000_000, "claude-haiku-5-5"),
        (1, 1_750_000_000, "claude-haiku-5-5"),
        (1, 0, "my-own"),
    ]) {
        record.started_us = sample::EPOCH_US + day * 86_400_000_000 + 82_800_000_000;
        record.parties.model = Some(model.into());
        (record.parties.notional, record.parties.simulated) = (false, false);
        record.cost = Some(ledger::money::NanoUsd(cost)).filter(|cost| cost.0 > 0);
        used(record);
    }
    records[2].parties.notional = true;
    let home = recorded(&records);
    let output = cco(home.path(), &["costs"]).await;
    let want = "\
DAY            COST                            REQUESTS     IN  CACHED  OUT
2026-11-01    $3.50  ████████████████████████         2  8.00k    75 %  100
2026-11-02        -  ████████████                     2  8.00k    75 %  100  + $1.75 by subscription
total       ≥ $3.50                                   4  16.0k    75 %  200  + $1.75 by subscription
";
    assert_eq!(printed(&output), want);
    let said = text(&output.stderr);
    assert!(said.contains("note: not in the cost: 1 request without a price"), "{said}");
    assert!(said.contains("note: $1.75 of a subscription's use is not in the cost"), "{said}");
    // An hour to the east all of it was a day later.
    let output = cco_at(home.path(), "CET-1CEST,M3.5.0,M10.5.0/3", &["costs", "--json"]).await;
    let days: Vec<Value> = lines(printed(&output)).iter().map(|row| row["day"].clone()).collect();
    assert_eq!(days, ["2026-11-02", "2026-11-03"]);
    let output = cco(home.path(), &["costs", "--by", "model", "--since", "2026-11-02"]).await;
    let want = "\
MODEL             COST                            REQUESTS     IN  CACHED  OUT
claude-haiku-5-5    $0  ████████████████████████         1  4.00k    75 %   50  + $1.75 by subscription
my-own               -                                   1  4.00k    75 %   50
total                -                                   2  8.00k    75 %  100  + $1.75 by subscription
";
    assert_eq!(printed(&output), want);
}

#[tokio::test]
async fn people_are_shown_the_dearest_rows_and_programs_all() {
    let mut records: Vec<_> = (0..60).map(|n| sample::record(40 * n)).collect();
    for (n, record) in records.iter_mut().enumerate() {
        record.parties.model = Some(format!("model-{n:02}").into());
        (record.parties.notional, record.parties.simulated) = (false, false);
        record.cost = Some(ledger::money::NanoUsd(n as i64 * 10_000_000));
        used(record);
    }
    let home = recorded(&records);
    let rows = |output: &std::process::Output| {
        let names = printed(output).matches("model-").count();
        (names, text(&output.stderr).contains("there are more rows than these"))
    };
    let output = cco(home.path(), &["costs", "--by", "model"]).await;
    assert_eq!(rows(&output), (50, true));
    let shown = printed(&output);
    assert!(shown.contains("\nmodel-59  $0.5900") && !shown.contains("model-09"), "{shown}");
    assert!(shown.contains("\ntotal      $17.70"), "{shown}");
    assert_eq!(rows(&cco(home.path(), &["costs", "--by", "model", "--limit", "55"]).await), (55, true));
    for form in ["--json", "--csv"] {
        assert_eq!(rows(&cco(home.path(), &["costs", "--by", "model", form]).await), (60, false), "{form}");
    }
}

#[tokio::test]
async fn a_list_that_is_longer_than_an_answer_comes_whole_and_in_order() {
    let records: Vec<_> = (0..2300).map(sample::record).collect();
    let home = recorded(&records);
    for (limit, want) in [(2500, 2300), (2000, 2000), (1001, 1001)] {
        let output = cco(home.path(), &["logs", "--json", "--limit", &limit.to_string()]).await;
        let ids: Vec<String> = lines(printed(&output)).iter().map(|row| row["id"].as_str().unwrap().into()).collect();
        let all: Vec<String> = (2300 - want..2300).map(|n| sample::id(n).to_string()).collect();
        assert_eq!(ids, all, "{limit}");
    }
    let gateway = Gateway::start_in(home.path(), &[], &[]).await;
    let answer = gateway.ask(crate::get("/gateway/audit?limit=5000", &crate::admin(&gateway))).await.json();
    assert_eq!(answer["records"].as_array().unwrap().len(), 1000);
    let next = answer["next"].as_i64().unwrap();
    let rest = gateway
        .ask(crate::get(&format!("/gateway/audit?limit=1300&before={next}"), &crate::admin(&gateway)))
        .await
        .json();
    assert_eq!((rest["records"][0]["seq"].as_i64(), rest["next"].is_number()), (Some(next - 1), true));
    let output = cco(home.path(), &["logs", "--csv", "--limit", "2250"]).await;
    assert_eq!(printed(&output).lines().count(), 2251);
}

#[tokio::test]
async fn sessions_are_trees_of_agents() {
    let mut records: Vec<_> = (0..5).map(sample::record).collect();
    for (record, (session, agent, parent, kind)) in records.iter_mut().zip([
        ("one", "", "", ""),
        ("one", "a1", "", "Explore"),
        ("one", "a2", "a1", "Bash"),
        ("one", "a3", "", ""),
        ("two", "", "", ""),
    ]) {
        let some = |text: &str| (!text.is_empty()).then(|| Box::from(text));
        let parties = &mut record.parties;
        (parties.session, parties.agent) = (some(session), some(agent));
        (parties.parent_agent, parties.agent_type) = (some(parent), some(kind));
        (parties.notional, parties.simulated, parties.project) = (false, false, some("site"));
        record.cost = Some(ledger::money::NanoUsd(250_000_000));
        used(record);
    }
    let home = recorded(&records);
    let output = cco(home.path(), &["sessions"]).await;
    let want = "\
SESSION        LAST                 REQUESTS     COST     IN  CACHED  OUT  PROJECT
two            2026-11-01 00:00:31         1  $0.2500  4.00k    75 %   50  site
one            2026-11-01 00:00:23         4    $1.00  16.0k    75 %  200  site
├─ main        2026-11-01 00:00:00         1  $0.2500  4.00k    75 %   50
├─ Explore a1  2026-11-01 00:00:07         1  $0.2500  4.00k    75 %   50
│  └─ Bash a2  2026-11-01 00:00:15         1  $0.2500  4.00k    75 %   50
└─ a3          2026-11-01 00:00:23         1  $0.2500  4.00k    75 %   50
total                                      5    $1.25  20.0k    75 %  250
";
    assert_eq!(printed(&output), want);
    let output = cco(home.path(), &["sessions", "--json", "--session", "one"]).await;
    let rows = lines(printed(&output));
    assert_eq!((rows.len(), &rows[0]["agents"][1]["agents"][0]["kind"]), (1, &json!("Bash")));
}

#[tokio::test]
async fn limits_are_those_that_each_provider_said_last_of_each_key() {
    let upstream = upstream().await;
    let home = home(&upstream, json!({}));
    let gateway = Gateway::start_in(home.path(), &[], &[]).await;
    let with = |headers: &[(&str, &str)]| {
        let headers = headers.iter().map(|(name, value)| format!(" header=\"anthropic-ratelimit-{name}: {value}\""));
        streamed(&format!("text=hi{}", headers.collect::<String>()))
    };
    let later =
        (std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() + 3630).to_string();
    gateway.ask(with(&[("unified-5h-utilization", "0.10"), ("unified-7d-utilization", "0.10")])).await;
    gateway
        .ask(with(&[
            ("unified-5h-utilization", "0.62"),
            ("unified-5h-reset", &later),
            ("unified-5h-status", "allowed_warning"),
            ("unified-7d-utilization", "0.25"),
            ("tokens-limit", "80000"),
            ("tokens-remaining", "20000"),
        ]))
        .await;
    for _ in 0..2 {
        let output = cco(home.path(), &["limits"]).await;
        let shown = printed(&output);
        assert!(shown.starts_with("anthropic …-key, as of 20"), "{shown}");
        for row in [
            "  subscription, 5 hours  ████████████▍░░░░░░░  62 %      -      -  1 h 0 min  allowed_warning\n",
            "  subscription, week     █████░░░░░░░░░░░░░░░  25 %      -      -          -\n",
            "  tokens                 ███████████████░░░░░  75 %  20.0k  80.0k          -\n",
        ] {
            assert!(shown.contains(row), "`{row}` is not in:\n{shown}");
        }
        let output = cco(home.path(), &["limits", "--json"]).await;
        let rows = lines(printed(&output));
        assert_eq!((rows.len(), &rows[0]["said"]["unified-5h-utilization"]), (1, &json!("0.62")));
        for (which, found) in [
            (&["--provider", "anth*"][..], 1),
            (&["--provider", "openai"], 0),
            (&["--since", "1h", "--limit", "1"], 1),
            (&["--until", "1h"], 0),
        ] {
            let output = cco(home.path(), &[&["limits", "--json"], which].concat()).await;
            assert_eq!(lines(printed(&output)).len(), found, "{which:?}");
        }
        gateway.signal("TERM").await;
        gateway.log_line(&["\"stopped\""]).await;
    }
}

#[tokio::test]
async fn prices_are_listed_with_where_they_are_from() {
    let home = tempfile::tempdir().unwrap();
    let config = json!({ "costTracking": { "pricingOverrides": { "my-sonnet-5-5": { "inputPerMillion": 1.5 } } } });
    std::fs::write(home.path().join("config.json"), config.to_string()).unwrap();
    let output = cco(home.path(), &["prices", "sonnet-5-5"]).await;
    let shown = printed(&output);
    let row = |name: &str| {
        shown.lines().find(|line| line.contains(&format!(" {name} "))).unwrap_or_else(|| panic!("{shown}"))
    };
    let words = |line: &str| line.split_whitespace().map(String::from).collect::<Vec<_>>();
    assert_eq!(words(row("my-sonnet-5-5"))[..4], ["(every)", "my-sonnet-5-5", "1.5", "-"]);
    assert_eq!(words(row("claude-sonnet-5-5"))[..7], ["anthropic", "claude-sonnet-5-5", "2", "10", "0.1", "2.5", "4"]);
    assert!(row("my-sonnet-5-5").contains("configuration "));
    let output = cco(home.path(), &["prices", "my-sonnet", "--json"]).await;
    assert_eq!(lines(printed(&output))[0]["input"], 1.5);
    // A name with a date is found as it is when it is billed.
    let output = cco(home.path(), &["prices", "claude-sonnet-5-5-20260929"]).await;
    assert!(printed(&output).contains(" claude-sonnet-5-5 "), "{}", printed(&output));
    let want = "note: `claude-sonnet-5-5-20260929` of anthropic is billed as `claude-sonnet-5-5`\n";
    assert!(text(&output.stderr).contains(want), "{}", text(&output.stderr));
    let output = cco(home.path(), &["prices", "no-such-model"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("`costTracking.pricingOverrides`"), "{}", text(&output.stderr));
}

#[tokio::test]
async fn the_admin_token_is_printed_alone() {
    let home = tempfile::tempdir().unwrap();
    let output = cco(home.path(), &["token"]).await;
    let token = printed(&output).trim_end().to_owned();
    assert!(token.starts_with("cco-") && token.len() > 40 && !token.contains(char::is_whitespace), "{token}");
    assert_eq!(std::fs::read_to_string(home.path().join("admin-token")).unwrap().trim(), token);
    assert_eq!(printed(&cco(home.path(), &["token"]).await).trim_end(), token, "it stays the same");
}
