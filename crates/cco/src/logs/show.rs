//! `cco logs show`: one exchange, with what went wrong and what to do.

use gateway::admin::ask::Zone;
use ledger::price::Flags;
use ledger::record::{Outcome, Record};
use serde_json::Value;

use super::explain::explain;
use super::record;
use crate::cli::look::Show;
use crate::source::{self, Failure, Source};
use crate::term;
use crate::text::{self, Side, Table};

/// What may stand in an address, and in any of the words for an exchange.
fn word(text: &str) -> Result<&str, Failure> {
    // As errors in Anthropic's shape and heads of answers tell it.
    let text = text.strip_prefix("req_").unwrap_or(text);
    let fine = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    fine.then_some(text).ok_or_else(|| {
        Failure::usage(format!("`{text}` is no exchange"))
            .help("write an id, the first digits of its last eight, `last` or `last-error`")
    })
}

pub(super) fn show(options: &Show) -> Result<(), Failure> {
    let word = word(&options.exchange)?;
    let mut source = Source::open()?;
    if options.request || options.response || options.raw {
        let which = if options.request { "request" } else { "response" };
        return body(&source.bytes(&format!("/gateway/audit/{word}/{which}"))?, options.raw);
    }
    let told = source.json(&format!("/gateway/audit/{word}"))?;
    if options.json {
        term::line(if told["record"].is_null() { &told } else { &told["record"] });
        return Ok(());
    }
    if !told["refused"].is_null() {
        refused(&told["refused"], &source::here());
        return Ok(());
    }
    let record = record(&told["record"]).ok_or_else(|| Failure::new("the record cannot be read by this version"))?;
    if options.route {
        route(&record);
        return Ok(());
    }
    let zone = source::here();
    let said = said(&mut source, word, &record, &told);
    let (cause, help) = explain(&record, said.as_deref());
    term::line(format_args!("cause: {}\nhelp:  {}\n", text::line(&cause), text::line(&help)));
    about(&record, &told, &zone);
    attempts(&record);
    for (title, name) in [("request", "request_head"), ("answer", "response_head")] {
        if let Some(head) = told[name].as_str() {
            term::line(format_args!("\n{title}'s head\n  {}", text::lines(head.trim_end()).replace('\n', "\n  ")));
        }
    }
    bodies(&record, &told);
    Ok(())
}

/// Microseconds between two attempts that are worth a word.
const WAIT_US: u64 = 5_000;
/// Bytes of an answer that is looked into for what it says went wrong.
const ERROR: u64 = 1 << 20;

/// What the upstream said went wrong: records do not quote it, kept bodies do.
fn said(source: &mut Source, word: &str, record: &Record, told: &Value) -> Option<String> {
    if record.outcome != Outcome::UpstreamError || told["response"]["bytes"].as_u64()? > ERROR {
        return None;
    }
    let bytes = source.bytes(&format!("/gateway/audit/{word}/response")).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let event = text.rsplit_once("event: error\n").and_then(|(_, rest)| rest.lines().next()?.strip_prefix("data: "));
    let error: Value = serde_json::from_str(event.unwrap_or(&text)).ok()?;
    error["error"]["message"].as_str().map(|message| text::cut(message, 500).into_owned())
}

/// A body, as it is or as it can be looked at.
fn body(bytes: &[u8], raw: bool) -> Result<(), Failure> {
    if raw {
        term::bytes(bytes);
        return Ok(());
    }
    let text = String::from_utf8_lossy(bytes);
    // A JSON object is easier to read in lines; anything else stays as it is.
    let pretty =
        serde_json::from_slice::<Value>(bytes).ok().and_then(|value| serde_json::to_string_pretty(&value).ok());
    term::line(text::lines(pretty.as_deref().unwrap_or(&text)));
    Ok(())
}

/// Where a cost is missing and no reason is kept.
const NOT_COMPUTED: &str = "none was computed (`costTracking.enabled`); `cco prices recompute` does it now";

/// What was refused before it became an exchange.
fn refused(told: &Value, zone: &Zone) {
    let text = |name: &str| text::line(told[name].as_str().unwrap_or("-")).into_owned();
    term::line(format_args!("cause: cco refused the request before it became an exchange: {}", text("error")));
    term::line("help:  correct the request as the message says, and send it again\n");
    field("id", &text("id"));
    field("time", &told["time"].as_str().and_then(source::micros).map_or("-".into(), |us| source::clock(us, zone)));
    field("asked", format!("{} {}", text("method"), text("path")).trim());
    field("status", &told["status"].to_string());
}

fn field(name: &str, value: &str) {
    term::line(format_args!("  {name:<10}{value}"));
}

fn about(record: &Record, told: &Value, zone: &Zone) {
    let parties = &record.parties;
    let clean = |text: &str| text::line(text).into_owned();
    let named = |name: &str, value: Option<&str>| value.map(|value| format!("{name} {}", clean(value)));
    let joined = |parts: Vec<Option<String>>| parts.into_iter().flatten().collect::<Vec<_>>().join(", ");
    let ms = |us: u64| text::took(us as f64 / 1e3);
    field("id", &record.id.to_string());
    let ago = (gateway::recorder::now_us() - record.ended_us) / 1_000_000;
    field("time", &format!("{} ({} ago)", source::clock(record.started_us, zone), text::span(ago)));
    let stream = if parties.stream { ", as a stream" } else { "" };
    let model = parties.requested_model.as_deref().map(|model| format!(" for {}", clean(model))).unwrap_or_default();
    field("asked", &format!("{}{model}{stream}", clean(&parties.endpoint)));
    let served = [parties.provider.as_deref(), parties.model.as_deref()].into_iter().flatten().map(clean);
    field("served by", &served.collect::<Vec<_>>().join(" "));
    let who = joined(vec![
        named("session", parties.session.as_deref()),
        named("agent", parties.agent.as_deref()),
        named("kind", parties.agent_type.as_deref()),
        named("called by", parties.parent_agent.as_deref()),
        named("project", parties.project.as_deref()),
    ]);
    if !who.is_empty() {
        field("who", &who);
    }
    if let Some(caller) = &parties.caller {
        field("caller", &clean(caller));
    }
    let status = record.status.map(|status| format!(", status {status}")).unwrap_or_default();
    field("outcome", &format!("{}{status}", record.outcome));
    if let Some(usage) = record.used() {
        let some = |n: u64, what: &str| (n > 0).then(|| format!("{n} {what}"));
        let counts = |input: u64, read: u64, written: u64, output: String| {
            let cached = [some(read, "from the cache"), some(written, "into the cache")];
            joined([&[Some(format!("{input} in"))], &cached[..], &[Some(output)]].concat())
        };
        let (own, estimated) = (&usage.tokens, if record.is_estimated() { " (counted by us)" } else { "" });
        let output = format!("{} out{estimated}", record.output());
        field("tokens", &counts(own.input, own.cache_read, own.cache_write.total(), output));
        // What is billed beside the answer: summaries, advice.
        let (turns, more) = usage.turns();
        if let Ok(turns @ 1..) = i64::try_from(turns) {
            let what = format!("and {}", text::of(turns, "more turn"));
            let output = format!("{} out", more.output);
            let more = counts(more.input, more.cache_read, more.cache_write.total(), output);
            field("", &format!("{what}: {more}"));
        }
        let mut tools =
            vec![some(usage.web_search, "web_search_requests"), some(usage.web_fetch, "web_fetch_requests")];
        tools.extend(usage.other_tools.iter().map(|tool| some(tool.requests, &clean(&tool.name))));
        let tools = joined(tools);
        if !tools.is_empty() {
            field("tools", &tools);
        }
    } else if record.usage.is_some() {
        field("tokens", "not known: the upstream's counts cannot be believed (`--json` has them)");
    } else if record.usage_unknown {
        field("tokens", "not known: the upstream did not say");
    }
    match (record.cost, &record.price_version) {
        (Some(cost), version) => {
            let who = match parties {
                _ if parties.simulated => ", which nobody paid: the simulator served",
                _ if parties.notional => ", which a subscription paid for",
                _ => "",
            };
            field("cost", &format!("${cost} at the prices of {}{who}", version.as_deref().unwrap_or("-")));
        }
        (None, _) if record.usage.is_some() => {
            let why = record.unpriced.map_or(NOT_COMPUTED.into(), |why| why.to_string());
            field("cost", &format!("not known: {why}"));
        }
        (None, _) => {}
    }
    // That a subscription pays is said with the cost.
    for words in (Flags { notional: false, ..record.cost_flags }).words() {
        field("", words);
    }
    field(
        "took",
        &joined(vec![
            super::took(record),
            record.first_byte_us.map(|us| format!("first byte after {}", ms(us))),
            record.first_token_us.map(|us| format!("first token after {}", ms(us))),
        ]),
    );
    if record.deliveries > 0 {
        field("clients", &format!("{} got it, or a part of it", record.deliveries));
    }
    if record.continued > 0 {
        field("continued", "the answer broke off, and a further request went on with it");
    }
    field("bytes", &format!("{} up, {} down", record.bytes_in, record.bytes_out));
    if let Some(id) = &record.upstream_request_id {
        field("upstream", &clean(id));
    }
    if let Some(key) = &record.credential {
        field("key", &clean(key.as_str()));
    }
    for loss in &record.losses {
        field("lost", &clean(loss));
    }
    if let Some(why) = told["archive"].as_str() {
        field("archive", &clean(why));
    }
}

fn attempts(record: &Record) {
    if record.attempts.is_empty() {
        return;
    }
    let mut table = Table::new(&[
        ("", Side::Right),
        ("provider", Side::Left),
        ("model", Side::Left),
        ("outcome", Side::Left),
        ("status", Side::Right),
        ("began", Side::Right),
        ("took", Side::Right),
        ("error", Side::Left),
    ]);
    for (n, attempt) in record.attempts.iter().enumerate() {
        let clean = |text: Option<&str>| text::line(text.unwrap_or("-")).into_owned();
        let ms = |us: u64| text::took(us as f64 / 1e3);
        table.row(vec![
            (n + 1).to_string(),
            clean(Some(&attempt.provider)),
            clean(attempt.model.as_deref()),
            attempt.outcome.to_string(),
            attempt.status.map_or("-".into(), |status| status.to_string()),
            ms(attempt.started_us),
            ms(attempt.duration_us),
            clean(attempt.error.as_deref()),
        ]);
    }
    let widths = table.widths(&[]);
    term::line(format_args!("\nattempts\n  {}", table.heading(&widths)));
    table.lines(&widths, None).for_each(|line| term::line(format_args!("  {line}")));
}

/// Why it went where it went, and what it waited for on the way.
fn route(record: &Record) {
    let told = record.route.as_deref().unwrap_or("there was nothing to choose from: one provider, and no rules");
    term::line(format_args!("route\n  {}", text::lines(told).replace('\n', "\n  ")));
    attempts(record);
    let mut waits = Vec::new();
    let mut free = None;
    let ms = |us: u64| text::took(us as f64 / 1e3);
    // Those that ran beside another one did not wait for it.
    let mut in_order: Vec<_> = record.attempts.iter().enumerate().collect();
    in_order.sort_by_key(|(_, attempt)| attempt.started_us);
    for (n, attempt) in in_order {
        if attempt.queued_us > 0 {
            waits.push(format!("attempt {}: {} for its turn at `{}`", n + 1, ms(attempt.queued_us), attempt.provider));
        }
        let between = free.map_or(0, |free| attempt.started_us.saturating_sub(attempt.queued_us).saturating_sub(free));
        if between >= WAIT_US {
            waits.push(format!("attempt {}: {} after the one before", n + 1, ms(between)));
        }
        free = free.max(Some(attempt.started_us.saturating_add(attempt.duration_us)));
    }
    if !waits.is_empty() {
        term::line(format_args!("\nwaits\n  {}", text::lines(&waits.join("\n")).replace('\n', "\n  ")));
    }
}

/// Which bodies are there, and how they are seen.
fn bodies(record: &Record, told: &Value) {
    let mut headed = false;
    for name in ["request", "response"] {
        let body = &told[name];
        if let Some(bytes) = body["bytes"].as_u64() {
            if !std::mem::replace(&mut headed, true) {
                term::line("\nbodies");
            }
            let redacted = if body["redacted"] == true { ", redacted" } else { "" };
            let id = record.id.short();
            term::line(format_args!("  {name}: {bytes} bytes{redacted}: cco logs show {id} --{name}"));
        }
    }
}
