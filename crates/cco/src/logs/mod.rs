//! `cco logs`: the last exchanges, one line each.

mod explain;
mod show;

use std::process::ExitCode;
use std::time::Duration;

use gateway::admin::ask::Zone;
use ledger::record::{Outcome, Record};
use serde::Deserialize as _;
use serde_json::Value;
use tokio::time::Instant;

use crate::cli::look::{Form, Logs, LogsCommand};
use crate::source::{self, Failure, Source};
use crate::term::{self, Progress};
use crate::text::{self, Side, Table};

/// Rows that are shown where nobody says how many.
const ROWS: u32 = 25;
/// Records of which the bodies are searched at most.
const SEARCHED: u64 = 20_000;
/// How often it is looked for new records: what is shown is what the store has, and that tells nobody when it has more.
const AGAIN: Duration = Duration::from_millis(250);
/// How long it is asked on where the gateway refuses.
const REFUSED: Duration = Duration::from_secs(5);
/// Widths that columns have from the beginning, so that later rows stand under earlier ones.
const LEAST: [usize; 10] = [19, 8, 18, 20, 9, 6, 6, 6, 8, 8];

/// The columns that go first where the terminal is too narrow for all of them.
const FIRST_TO_GO: [usize; 5] = [4, 6, 9, 7, 5];
/// What is left at least for the last column.
const WHAT: usize = 8;

const HEAD: [(&str, Side); 11] = [
    ("TIME", Side::Left),
    ("ID", Side::Left),
    ("OUTCOME", Side::Left),
    ("MODEL", Side::Left),
    ("PROVIDER", Side::Left),
    ("IN", Side::Right),
    ("CACHED", Side::Right),
    ("OUT", Side::Right),
    ("COST", Side::Right),
    ("TOOK", Side::Right),
    ("WHAT", Side::Left),
];

/// Columns of comma-separated values.
const CSV: &[&str] = &[
    "time",
    "id",
    "operation",
    "outcome",
    "status",
    "provider",
    "model",
    "session",
    "agent",
    "agent_type",
    "project",
    "input_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "output_tokens",
    "cost_usd",
    "notional",
    "duration_us",
    "error",
];

/// Shows what was asked for.
pub(crate) fn run(options: &Logs) -> ExitCode {
    source::ended(match &options.command {
        Some(LogsCommand::Show(options)) => show::show(options),
        None => list(options),
    })
}

fn list(options: &Logs) -> Result<(), Failure> {
    let zone = source::here();
    let mut words = source::words(&options.look, &zone)?;
    if options.look.limit.is_none() {
        words.push(("limit", ROWS.to_string()));
    }
    if let Some(pattern) = &options.grep {
        ledger::redact::Pattern::new(pattern).map_err(|bad| Failure::usage(format!("--grep: {}", bad.message)))?;
        return search(options, pattern, words, &zone);
    }
    let mut source = Source::open()?;
    let before = if options.follow { newest(&mut source, &zone)? } else { 0 };
    let mut records = last(&mut source, &words, &zone)?;
    // The last one is what people look for: it stands where their eyes are.
    records.reverse();
    let mut printer = Printer::new(options.look.form, &zone);
    if !printer.print(&records) {
        return Ok(());
    }
    if !options.follow {
        if records.is_empty() && !options.look.form.json {
            term::note("nothing that was recorded fits");
        }
        return Ok(());
    }
    // The next ones, from the last that was recorded on, whether it was shown or not.
    let mut seq = before.max(records.iter().filter_map(seq_of).max().unwrap_or(0));
    words.retain(|(word, _)| !matches!(*word, "limit" | "since"));
    words.push(("limit", "1000".into()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let mut refused = None;
    loop {
        runtime.block_on(async { tokio::time::sleep(AGAIN).await });
        let after = [&words[..], &[("after", seq.to_string())]].concat();
        let told = match source.json(&source::target("/gateway/audit", &after, &zone)) {
            Ok(told) => told,
            // A gateway that begins or ends meanwhile is no reason to stop.
            Err(why) if why.is_unheard() => {
                source = Source::open()?;
                continue;
            }
            // A store that is busy is well again soon; recording that was turned off does not come back.
            Err(why) => {
                let since = *refused.get_or_insert_with(|| {
                    term::note(format_args!("waiting: {}", text::line(&why.to_string())));
                    Instant::now()
                });
                if since.elapsed() > REFUSED {
                    return Err(why);
                }
                continue;
            }
        };
        refused = None;
        let records = self::records(told);
        seq = records.iter().filter_map(seq_of).max().unwrap_or(seq);
        if !printer.print(&records) {
            return Ok(());
        }
    }
}

/// The last records, page by page.
fn last(source: &mut Source, words: &[(&str, String)], zone: &Zone) -> Result<Vec<Value>, Failure> {
    let limit = |(word, n): &(&str, String)| if *word == "limit" { n.parse().ok() } else { None };
    let most: usize = words.iter().find_map(limit).unwrap_or(0);
    let (mut found, mut progress) = (Vec::new(), Progress::new("reading"));
    let mut asked = words.to_vec();
    loop {
        let told = source.json(&source::target("/gateway/audit", &asked, zone))?;
        let next = told["next"].as_i64();
        found.extend(records(told));
        progress.at(found.len() as u64, most as u64);
        let Some(next) = next.filter(|_| found.len() < most) else { break };
        asked.retain(|(word, _)| !matches!(*word, "limit" | "before"));
        asked.extend([("limit", (most - found.len()).to_string()), ("before", next.to_string())]);
    }
    Ok(found)
}

/// The place of the record that came last.
fn newest(source: &mut Source, zone: &Zone) -> Result<i64, Failure> {
    let told = source.json(&source::target("/gateway/audit", &[("limit", "1".into())], zone))?;
    Ok(records(told).iter().filter_map(seq_of).max().unwrap_or(0))
}

fn records(mut told: Value) -> Vec<Value> {
    match told["records"].take() {
        Value::Array(records) => records,
        _ => Vec::new(),
    }
}

fn seq_of(record: &Value) -> Option<i64> {
    record["seq"].as_i64()
}

/// Looks through the bodies, some hundred records at a time.
fn search(options: &Logs, pattern: &str, words: Vec<(&str, String)>, zone: &Zone) -> Result<(), Failure> {
    let most: usize = words.iter().find(|(word, _)| *word == "limit").map_or(0, |(_, n)| n.parse().unwrap_or(0));
    let mut source = Source::open()?;
    let (mut found, mut searched, mut unread, mut next) = (Vec::new(), 0, 0, None::<i64>);
    let mut progress = Progress::new("searching");
    while found.len() < most && searched < SEARCHED {
        let mut asked = [&words[..], &[("grep", pattern.to_owned())]].concat();
        asked.extend(next.map(|before| ("before", before.to_string())));
        let told = source.json(&source::target("/gateway/audit", &asked, zone))?;
        searched += told["searched"].as_u64().unwrap_or(0);
        unread += told["unread"].as_u64().unwrap_or(0);
        next = told["next"].as_i64();
        found.extend(records(told));
        progress.at(searched, SEARCHED);
        if next.is_none() {
            break;
        }
    }
    drop(progress);
    found.truncate(most);
    found.reverse();
    Printer::new(options.look.form, zone).print(&found);
    if unread > 0 {
        term::note(format_args!("{unread} bodies could not be searched"));
    }
    if next.is_some() && found.len() < most {
        term::note(format_args!("the last {searched} exchanges were searched: go on with --until"));
    } else if found.is_empty() && !options.look.form.json {
        term::note("nothing that is kept fits");
    }
    Ok(())
}

/// Prints records as they come.
struct Printer<'a> {
    form: Form,
    zone: &'a Zone,
    headed: bool,
    /// Whether it was told what brackets mean.
    told: bool,
}

impl<'a> Printer<'a> {
    fn new(form: Form, zone: &'a Zone) -> Self {
        Self { form, zone, headed: false, told: false }
    }

    /// `false`: nobody reads any more.
    fn print(&mut self, records: &[Value]) -> bool {
        if self.form.json {
            return records.iter().all(term::data);
        }
        if self.form.csv {
            let heading = (!std::mem::replace(&mut self.headed, true)).then(|| CSV.join(","));
            let cells = |record: &Value| csv(record, CSV);
            return heading.into_iter().chain(records.iter().map(cells)).all(term::data);
        }
        let width = term::width();
        let (columns, least) = fitting(width);
        let mut table = Table::new(&columns.iter().map(|at| HEAD[*at]).collect::<Vec<_>>());
        for record in records {
            let cells = cells(record, self.zone);
            table.row(columns.iter().filter_map(|at| cells.get(*at).cloned()).collect());
        }
        let widths = table.widths(&least);
        if !records.is_empty() && !std::mem::replace(&mut self.headed, true) {
            let heading = table.heading(&widths);
            if !term::heard(text::cut(&heading, width.unwrap_or(usize::MAX))) {
                return false;
            }
        }
        let is_heard = table.lines(&widths, width).all(term::heard);
        if !self.told && records.iter().filter_map(record).any(|record| is_notional(&record)) {
            self.told = true;
            term::note("costs in brackets were not spent: a subscription paid");
        }
        is_heard
    }
}

/// The columns that a terminal has room for, and how wide each is at least: by its width alone, so that rows that come
/// later stand under the first ones.
fn fitting(width: Option<usize>) -> (Vec<usize>, Vec<usize>) {
    let least = |columns: &[usize]| columns.iter().filter_map(|at| LEAST.get(*at).copied()).collect::<Vec<_>>();
    let mut columns: Vec<usize> = (0..HEAD.len()).collect();
    let Some(width) = width else { return (columns.clone(), least(&columns)) };
    let mut go = FIRST_TO_GO.iter();
    while least(&columns).iter().map(|width| width + 2).sum::<usize>() + WHAT > width {
        let Some(gone) = go.next() else {
            // Times and ids are as wide as they are.
            return (columns, vec![LEAST[0], LEAST[1]]);
        };
        columns.retain(|at| at != gone);
    }
    let least = least(&columns);
    (columns, least)
}

/// A row of comma-separated values.
pub(crate) fn csv(value: &Value, columns: &[&str]) -> String {
    let cell = |column: &&str| match &value[*column] {
        Value::Null => String::new(),
        Value::String(text) => text::csv(&text::inert(text)).into_owned(),
        other => text::csv(&other.to_string()).into_owned(),
    };
    columns.iter().map(cell).collect::<Vec<_>>().join(",")
}

/// The record in an answer, which is that of this version or an older one.
fn record(value: &Value) -> Option<Record> {
    Record::deserialize(value).ok()
}

/// What a cost is told to be: at least so much, about so much, or what it would have been.
fn mark(record: &Record) -> String {
    let flags = &record.cost_flags;
    match () {
        () if record.parties.simulated => "(sim) ".into(),
        () if flags.incomplete => "≥ ".into(),
        () if flags.is_assumed() || record.is_estimated() => "≈ ".into(),
        () => String::new(),
    }
}

/// A cost with its mark; what nobody paid because a subscription did stands in brackets.
fn shown(record: &Record, usd: f64) -> String {
    let usd = mark(record) + &text::usd(usd);
    if is_notional(record) { format!("({usd})") } else { usd }
}

fn is_notional(record: &Record) -> bool {
    record.parties.notional && !record.parties.simulated && record.cost.is_some()
}

/// How long it took; of one that a crash ended, how long it was at least under way.
fn took(record: &Record) -> Option<String> {
    let ms = |us: u64| text::took(us as f64 / 1e3);
    let seen = u64::try_from(record.ended_us - record.started_us).ok().filter(|us| *us > 0);
    record.duration_us.map(ms).or_else(|| seen.map(|us| format!("≥ {}", ms(us))))
}

/// What is said of an error whose answer gives no reason that can be read, as pages of HTML do not.
fn unexplained(record: &Record) -> Option<String> {
    let status = record.status.filter(|_| record.outcome == Outcome::UpstreamError)?;
    Some(format!("{status}, and no reason that can be read"))
}

fn cells(value: &Value, zone: &Zone) -> Vec<String> {
    let Some(record) = record(value) else { return vec![text::line(&value.to_string()).into_owned()] };
    let parties = &record.parties;
    let some = |name: Option<&str>| text::line(name.unwrap_or("-")).into_owned();
    let billed = record.billed();
    let tokens = record.used().map(|_| billed);
    let n = |n: u64| text::count(i64::try_from(n).unwrap_or(i64::MAX));
    let outcome = match (record.outcome.is_failure(), record.status) {
        (true, Some(status))
            if record.outcome.as_str() == "upstream_error" || record.outcome.as_str() == "rejected" =>
        {
            format!("{} {status}", record.outcome)
        }
        _ => record.outcome.to_string(),
    };
    let agent = parties.agent_type.as_deref().or(parties.agent.as_deref());
    let what = [
        (parties.endpoint.as_ref() != "/v1/messages").then(|| parties.endpoint.to_string()),
        parties.project.as_deref().map(String::from),
        agent.map(String::from),
        record.error.as_deref().map(String::from).or_else(|| unexplained(&record)),
        value["found"]["excerpt"].as_str().map(|excerpt| format!("…{excerpt}…")),
    ];
    vec![
        source::clock(record.started_us, zone),
        record.id.short(),
        outcome,
        text::cut(&some(parties.model.as_deref()), 32).into_owned(),
        text::cut(&some(parties.provider.as_deref()), 16).into_owned(),
        tokens.map_or("-".into(), |t| n(t.prompt())),
        tokens
            .filter(|t| t.prompt() > 0)
            .map_or("-".into(), |t| text::percent(t.cache_read as f64 / t.prompt() as f64)),
        if tokens.is_some() || record.estimated_output.is_some() { n(billed.output) } else { "-".into() },
        value["cost_usd"].as_f64().map_or("-".into(), |usd| shown(&record, usd)),
        took(&record).unwrap_or("-".into()),
        text::line(&what.into_iter().flatten().collect::<Vec<_>>().join(" · ")).into_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_narrow_terminal_has_room_for_every_cost() {
        let names = |width| fitting(width).0.iter().map(|at| HEAD[*at].0).collect::<Vec<_>>().join(" ");
        let all = HEAD.map(|(name, _)| name).join(" ");
        assert_eq!((names(None), names(Some(140))), (all.clone(), all));
        assert_eq!(names(Some(120)), "TIME ID OUTCOME MODEL IN OUT COST TOOK WHAT");
        assert_eq!(names(Some(80)), "TIME ID OUTCOME MODEL COST WHAT");
        assert_eq!(names(Some(1)), names(Some(80)));
    }
}
