//! `cco sessions`: sessions and the agents in them, as trees.

use std::process::ExitCode;

use gateway::admin::named;
use serde_json::Value;

use crate::cli::look::Sessions;
use crate::costs::{self, cached, prompt};
use crate::logs::csv;
use crate::source::{self, Failure, Source};
use crate::term;
use crate::text::{self, Side, Table};

/// Sessions that are shown where nobody says how many.
const SESSIONS: u32 = 10;

/// Shows what was asked for.
pub(crate) fn run(options: &Sessions) -> ExitCode {
    source::ended(sessions(options))
}

fn sessions(options: &Sessions) -> Result<(), Failure> {
    if options.grep.is_some() {
        return Err(costs::ungreppable("sessions"));
    }
    let zone = source::here();
    let mut words = source::words(&options.look, &zone)?;
    if options.look.limit.is_none() {
        words.push(("limit", SESSIONS.to_string()));
    }
    let told = Source::open()?.json(&source::target("/gateway/sessions", &words, &zone))?;
    let sessions = told["sessions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let form = options.look.form;
    if form.json {
        sessions.iter().all(term::data);
        return Ok(());
    }
    if form.csv {
        let columns = [&["id", "first", "last", "projects", "agents"], costs::CSV].concat();
        let rows = sessions.iter().map(|session| {
            let mut names = Vec::new();
            named_agents(session, &mut names);
            let mut row = session.clone();
            row["projects"] = projects(session).join("; ").into();
            row["agents"] = names.join("; ").into();
            csv(&row, &columns)
        });
        [columns.join(",")].into_iter().chain(rows).all(term::data);
        return Ok(());
    }
    if sessions.is_empty() {
        term::note("no session that was recorded fits");
        return Ok(());
    }
    let mut table = Table::new(&[
        ("SESSION", Side::Left),
        ("LAST", Side::Left),
        ("REQUESTS", Side::Right),
        ("COST", Side::Right),
        ("IN", Side::Right),
        ("CACHED", Side::Right),
        ("OUT", Side::Right),
        ("PROJECT", Side::Left),
    ]);
    for session in sessions {
        let id = named(session["id"].as_str().unwrap_or_default(), "(none)");
        let mut cells = cells(text::line(&id).into_owned(), session, &zone);
        cells.push(text::line(&projects(session).join(", ")).into_owned());
        table.row(cells);
        agents(&mut table, session, "", &zone);
    }
    table.row(cells("total".into(), &told["total"], &zone));
    let widths = table.widths(&[]);
    term::line(table.heading(&widths));
    table.lines(&widths, None).for_each(term::line);
    if told["more"] == true {
        term::note("there are more sessions than these: the total has them all; `--limit` shows more");
    }
    costs::remarks(&told["total"]);
    Ok(())
}

fn projects(session: &Value) -> Vec<&str> {
    session["projects"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Kind and id of an agent, as far as there are any.
fn name_of(agent: &Value) -> String {
    match (agent["id"].as_str().unwrap_or_default(), agent["kind"].as_str().unwrap_or_default()) {
        ("", "") => "main".into(),
        ("", kind) => kind.to_owned(),
        (id, "") => id.to_owned(),
        (id, kind) => format!("{kind} {id}"),
    }
}

/// The agents of a session, each before those that it called.
fn named_agents(of: &Value, names: &mut Vec<String>) {
    for agent in of["agents"].as_array().into_iter().flatten() {
        names.push(name_of(agent));
        named_agents(agent, names);
    }
}

/// The agents under a session or an agent. One that is alone is the session itself.
fn agents(table: &mut Table, of: &Value, indent: &str, zone: &gateway::admin::ask::Zone) {
    let agents = of["agents"].as_array().map(Vec::as_slice).unwrap_or_default();
    let alone = indent.is_empty() && agents.len() == 1 && agents[0]["id"] == "";
    if alone && agents[0]["agents"].as_array().is_none_or(Vec::is_empty) {
        return;
    }
    for (n, agent) in agents.iter().enumerate() {
        let last = n + 1 == agents.len();
        let name = name_of(agent);
        let branch = if last { "└─ " } else { "├─ " };
        table.row(cells(format!("{indent}{branch}{}", text::line(&name)), agent, zone));
        agents_below(table, agent, indent, last, zone);
    }
}

fn agents_below(table: &mut Table, agent: &Value, indent: &str, last: bool, zone: &gateway::admin::ask::Zone) {
    let deeper = format!("{indent}{}", if last { "   " } else { "│  " });
    agents(table, agent, &deeper, zone);
}

fn cells(name: String, group: &Value, zone: &gateway::admin::ask::Zone) -> Vec<String> {
    let n = |name: &str| group[name].as_i64().unwrap_or(0);
    let last = group["last"].as_str().and_then(source::micros);
    // What a subscription paid for is marked: it was not spent.
    let cost = match costs::notional(group) {
        Some(usd) if !costs::is_paid(group) => format!("({usd})"),
        Some(usd) => format!("{} ({usd})", costs::paid(group)),
        None => costs::paid(group),
    };
    vec![
        name,
        last.map(|us| source::clock(us, zone)).unwrap_or_default(),
        n("requests").to_string(),
        cost,
        text::count(prompt(group)),
        cached(group),
        text::count(n("output_tokens")),
    ]
}
