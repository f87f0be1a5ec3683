//! `cco run`: one command with its requests sent through the gateway, and at its end what they cost.

use std::ffi::OsString;
use std::process::{Command, ExitCode};

use gateway::config::Env;
use gateway::secret::Secret;
use serde_json::Value;

use super::before::{self, Purpose};
use super::client::{self, Changes, Client};
use super::found::{self, Found};
use super::offer;
use super::pay::Pay;
use super::project::Project;
use crate::cli::launch::Run;
use crate::simulated::Simulated;
use crate::source::{self, Failure, Source};
use crate::{VERSION, costs, term, text};

/// Runs the command; its exit code is ours.
pub(crate) fn run(options: &Run) -> ExitCode {
    let done = if options.simulated { simulated(options) } else { through_gateway(options) };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(failure) => source::ended(Err(failure)),
    }
}

fn through_gateway(options: &Run) -> Result<u8, Failure> {
    let env = Env::process();
    let client = Client::of(&options.command[0]);
    let found = offer::gateway(&env, client)?;
    let pay = Pay::decide(options.pay, client, &env, &found)?;
    let token = matches!(pay, Pay::Stored(_)).then(|| found.token(&env)).transpose()?;
    let here = std::env::current_dir().ok();
    let began = gateway::recorder::now_us();
    let project = options.project.clone().map(|name| Project { name, ..Project::default() });
    let project = project.or_else(|| Project::of(here.as_deref()?)).unwrap_or_default();
    let run = format!("{began:x}-{:x}", std::process::id());
    let project = Project { run: Some(run.clone()), ..project };
    if !options.quiet {
        term::note(&pay);
    }
    let mut changes = client::changes(&found.base, token.as_ref(), Some(&project), &env);
    if client == Client::OpenCode {
        changes.set.push(client::opencode(&found.base, token.as_ref().map(Secret::expose), Some(&project), &env));
    }
    let purpose = if token.is_some() { Purpose::Stored } else { Purpose::Own };
    let arguments = arguments(&options.command, &found.base, purpose, Some(&project), &env)?;
    if client == Client::Claude {
        for name in before::CLOUDS.into_iter().filter(|name| env.named(name).is_some()) {
            term::warning(format_args!("{name} is set: Claude Code asks that cloud, not the gateway"), None);
        }
    }
    let code = started(&options.command, &arguments, &changes)?;
    if !options.quiet
        && let Err(why) = cost(&env, &found, began, run)
    {
        let older =
            if found.version == VERSION { "" } else { " (the gateway is another version: `cco daemon restart`)" };
        term::note(format_args!("what this cost is not known: {}{older}", text::line(&why.to_string())));
    }
    Ok(code)
}

fn simulated(options: &Run) -> Result<u8, Failure> {
    let simulated = Simulated::start().map_err(|why| Failure::new("the simulator did not start").because(why))?;
    let env = Env::process();
    let base = client::base(simulated.gateway);
    let mut changes = client::changes(&base, None, None, &env);
    changes.set.extend([
        ("ANTHROPIC_API_KEY", "simulated".to_owned()),
        ("OPENAI_API_KEY", "simulated".to_owned()),
        // The real provider is not asked, whatever else the client does when it starts.
        ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1".to_owned()),
    ]);
    changes.unset.extend(["ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN"]);
    changes.unset.extend(before::CLOUDS);
    if Client::of(&options.command[0]) == Client::OpenCode {
        changes.set.push(client::opencode(&base, Some("simulated"), None, &env));
    }
    if !options.quiet {
        term::note("simulated: every answer is made up by this program; nothing is asked over a network, paid or kept");
    }
    let arguments = arguments(&options.command, &base, Purpose::Simulated, None, &env)?;
    let code = started(&options.command, &arguments, &changes)?;
    match simulated.stop() {
        Ok(requests) if !options.quiet => {
            let requests = i64::try_from(requests).unwrap_or(i64::MAX);
            term::note(format_args!("simulated: {}, $0", text::of(requests, "request")));
        }
        Ok(_) => {}
        Err(why) => term::warning(format_args!("the simulator failed: {why}"), None),
    }
    Ok(code)
}

/// What a client is told before its own arguments, because it does not do what its environment says.
fn arguments(
    command: &[OsString],
    base: &str,
    purpose: Purpose,
    project: Option<&Project>,
    env: &Env,
) -> Result<Vec<String>, Failure> {
    match Client::of(&command[0]) {
        Client::Claude => before::arguments(command, base, purpose, std::env::current_dir().ok().as_deref(), env),
        client => Ok(client::arguments(client, base, project)),
    }
}

/// Starts a command in this terminal, with some arguments before its own, and waits for its end.
fn started(command: &[OsString], first: &[String], changes: &Changes) -> Result<u8, Failure> {
    let (program, arguments) = command.split_first().expect("the parser wants one at least");
    let mut child = Command::new(program);
    child.args(first).args(arguments);
    for name in &changes.unset {
        child.env_remove(name);
    }
    child.envs(changes.set.iter().map(|(name, value)| (name, value)));
    gateway::system::run_in_front(&mut child).map_err(|why| {
        let shown = text::line(&program.to_string_lossy()).into_owned();
        let help = if why.kind() == std::io::ErrorKind::NotFound {
            "is it installed, and in `PATH`?"
        } else {
            "try it without `cco run --`"
        };
        Failure::new(format!("`{shown}` cannot be started")).because(why).help(help)
    })
}

/// Says what was recorded of this run, by agent where there were several.
fn cost(env: &Env, found: &Found, began: i64, run: String) -> Result<(), Failure> {
    let mut source = recorded(env, found)?;
    let words = |run| [("since", source::exactly(began)), ("run", run), ("limit", "20".into())];
    let sessions = since(&mut source, &words(run))?;
    if sessions.is_empty() {
        // Not every client can be told to send headers.
        let mut others = since(&mut source, &words(String::new()))?;
        others.retain(|session| session["projects"].as_array().is_none_or(Vec::is_empty));
        for session in &others {
            term::note(format_args!("requests that name no project: {}", spent(session)));
        }
        if others.is_empty() {
            term::note("no request went through the gateway");
        }
        return Ok(());
    }
    for session in &sessions {
        let id = session["id"].as_str().filter(|id| !id.is_empty()).unwrap_or("(none)");
        term::note(format_args!("session {}: {}", text::line(id), spent(session)));
        let mut agents = Vec::new();
        named(session, &mut agents);
        if agents.len() > 1 {
            for (name, agent) in agents {
                term::note(format_args!("  {}: {}", text::line(&name), spent(agent)));
            }
        }
    }
    Ok(())
}

/// Who knows what was recorded: the gateway that was there at the start. Where another has taken its place, or none is
/// left, its files: what the old one recorded at the last the new one does not know of yet.
fn recorded(env: &Env, found: &Found) -> Result<Source, Failure> {
    if let Ok(gateway) = Source::answering(env)
        && found::pid(&gateway.answer("/gateway/health")?) == found.pid
    {
        return Ok(gateway);
    }
    Source::beside(env, found.file.as_deref())
}

/// The sessions that something was recorded of since then.
fn since(source: &mut Source, words: &[(&str, String)]) -> Result<Vec<Value>, Failure> {
    let target = source::target("/gateway/sessions", words, &source::here());
    let mut told = match source {
        // The gateway itself: what only the journal knows is no sum.
        Source::Gateway(_) => source.answer(&target)?,
        Source::Files(_) => source.json(&target)?,
    };
    if told["fresh"] == false {
        term::note("the newest requests may be missing");
    }
    let Value::Array(sessions) = told["sessions"].take() else { return Ok(Vec::new()) };
    Ok(sessions)
}

/// The agents of a tree, one after the other.
fn named<'a>(of: &'a Value, agents: &mut Vec<(String, &'a Value)>) {
    for agent in of["agents"].as_array().into_iter().flatten() {
        let (id, kind) = (agent["id"].as_str().unwrap_or_default(), agent["kind"].as_str().unwrap_or_default());
        let name = match (id, kind) {
            ("", "") => "main".to_owned(),
            (id, kind) => format!("{kind} {id}").trim().to_owned(),
        };
        agents.push((name, agent));
        named(agent, agents);
    }
}

fn spent(group: &Value) -> String {
    let n = |name: &str| group[name].as_i64().unwrap_or(0);
    let cost = match costs::notional(group) {
        Some(usd) if !costs::is_paid(group) => format!("{usd} by subscription"),
        Some(usd) => format!("{} + {usd} by subscription", costs::paid(group)),
        None => costs::paid(group),
    };
    let unpriced = match n("unpriced") {
        0 => String::new(),
        some => format!(", {some} without a price"),
    };
    let unknown = match n("usage_unknown") {
        0 => String::new(),
        some => format!(", {some} of unknown use"),
    };
    let (input, output) = (text::count(costs::prompt(group)), text::count(n("output_tokens")));
    format!("{cost} ({}, {input} tokens in, {output} out{unpriced}{unknown})", text::of(n("requests"), "request"))
}
