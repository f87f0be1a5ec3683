//! `cco route`: where a request would go and why, and whether a file's expectations of that are met. No network.

use std::io::Read as _;
use std::path::Path;
use std::process::ExitCode;

use gateway::config::Env;
use gateway::route::rehearsal::{Answer, Case, Key, Question, Rehearsal, Role};
use serde_json::json;

use crate::{cli, load, term};

/// The largest request or file of expectations that is read.
const MAX_FILE: u64 = 64 << 20;

/// Runs one of the two.
pub(crate) fn run(options: &cli::Route) -> ExitCode {
    match &options.command {
        cli::RouteCommand::Explain(options) => explain(options),
        cli::RouteCommand::Test(options) => test(options),
    }
}

/// The content of a file; `-` is stdin.
fn read(file: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if file == Path::new("-") {
        std::io::stdin().lock().take(MAX_FILE).read_to_end(&mut bytes)?;
    } else {
        std::fs::File::open(file)?.take(MAX_FILE).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

fn explain(options: &cli::RouteExplain) -> ExitCode {
    let config = match load::configuration(options.config.as_deref(), &Env::process()) {
        Ok(loaded) => loaded.config,
        Err(code) => return code,
    };
    let question = match question(options) {
        Ok(question) => question,
        Err(code) => return code,
    };
    match Rehearsal::new(&config).ask(&question) {
        Ok(answer) => {
            if options.json {
                term::line(in_json(&answer));
            } else {
                term::part(&answer.explanation);
                if let Some(message) = &answer.refused {
                    term::line(format_args!("refused: {message}"));
                }
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            term::error(
                "this is no request",
                Some(&error),
                Some("`cco route explain --help` shows how to describe one"),
            );
            ExitCode::from(2)
        }
    }
}

/// What was typed, as a question.
fn question(options: &cli::RouteExplain) -> Result<Question, ExitCode> {
    let mut question = Question {
        protocol: options.protocol.clone(),
        model: options.model.clone(),
        agent: options.sub_agent.then_some(Role::Sub),
        agent_type: options.agent_type.clone(),
        session: options.session.clone(),
        project: options.project.clone(),
        headers: options.header.iter().cloned().collect(),
        key: match options.key {
            cli::RouteKey::Own => Key::Own,
            cli::RouteKey::OwnOnly => Key::OwnOnly,
            cli::RouteKey::Stored => Key::Stored,
        },
        key_id: options.key_id.clone(),
        stream: options.stream,
        thinking: options.thinking,
        tools: options.tools,
        images: options.images,
        prompt_tokens: options.prompt_tokens,
        in_flight: options.in_flight,
        at: options.at.clone(),
        body: None,
        raw: None,
    };
    let Some(file) = &options.request else { return Ok(question) };
    let bytes = read(file).map_err(|error| {
        term::error(format_args!("cannot read `{}`", file.display()), Some(&error), None);
        ExitCode::from(2)
    })?;
    // A body, or the whole request as it came over the network.
    match serde_json::from_slice(&bytes) {
        Ok(body) => question.body = Some(body),
        Err(_) => question.raw = Some(bytes),
    }
    Ok(question)
}

fn in_json(answer: &Answer) -> serde_json::Value {
    let targets: Vec<_> = answer
        .targets
        .iter()
        .map(|target| json!({ "provider": target.provider, "model": target.model, "key": target.key }))
        .collect();
    let candidates: Vec<_> = answer
        .explanation
        .candidates
        .iter()
        .map(|one| json!({ "provider": one.provider, "model": one.model, "verdict": one.verdict.as_str() }))
        .collect();
    let unmatched: Vec<_> = answer
        .explanation
        .unmatched
        .iter()
        .map(|one| json!({ "rule": one.rule + 1, "name": one.name, "condition": one.condition, "found": one.found }))
        .collect();
    json!({
        "targets": targets,
        "rule": answer.rule.as_ref().map(|(at, name)| json!({ "rule": at + 1, "name": name })),
        "cause": answer.cause,
        "refused": answer.refused,
        "unmatched": unmatched,
        "candidates": candidates,
    })
}

fn test(options: &cli::RouteTest) -> ExitCode {
    let config = match load::configuration(options.config.as_deref(), &Env::process()) {
        Ok(loaded) => loaded.config,
        Err(code) => return code,
    };
    let shown = options.file.display();
    let cases: Vec<Case> = match read(&options.file)
        .map_err(|error| error.to_string())
        .and_then(|bytes| serde_json::from_slice(&bytes).map_err(|error| error.to_string()))
    {
        Ok(cases) => cases,
        Err(error) => {
            let help = "the file is a JSON list of { \"name\", \"request\", \"expect\" }: see `cco route test --help`";
            term::error(format_args!("`{shown}` cannot be used"), Some(&error), Some(help));
            return ExitCode::from(2);
        }
    };
    if cases.is_empty() {
        term::error(format_args!("`{shown}` expects nothing"), None, Some("add at least one case"));
        return ExitCode::from(2);
    }
    let rehearsal = Rehearsal::new(&config);
    let mut failed = 0;
    for (at, case) in cases.iter().enumerate() {
        let name = case.name.clone().unwrap_or_else(|| format!("case {}", at + 1));
        let (unmet, why) = match rehearsal.ask(&case.request) {
            Ok(answer) => (case.expect.unmet(&answer), answer.explanation.to_string()),
            Err(error) => (vec![error.to_string()], String::new()),
        };
        if unmet.is_empty() {
            term::line(format_args!("ok      {name}"));
            continue;
        }
        failed += 1;
        term::line(format_args!("FAILED  {name}"));
        for line in unmet.iter().map(String::as_str).chain(why.lines()) {
            term::line(format_args!("        {line}"));
        }
    }
    term::line(format_args!("{} met, {failed} not met", cases.len() - failed));
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
