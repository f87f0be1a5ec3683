//! `cco audit purge`: records and bodies go for good.

use std::process::ExitCode;

use gateway::admin::ask::encoded;

use crate::cli::look::{Audit, AuditCommand, Purge};
use crate::source::{self, Failure, Source};
use crate::{term, text};

/// Does what was asked for.
pub(crate) fn run(options: &Audit) -> ExitCode {
    let AuditCommand::Purge(options) = &options.command;
    source::ended(purge(options))
}

fn purge(options: &Purge) -> Result<(), Failure> {
    let zone = source::here();
    let (word, value, what) = match (&options.exchange, &options.session, &options.before) {
        (Some(id), ..) => ("id", id.as_str(), format!("the exchange `{id}`")),
        (_, Some(session), _) => ("session", session.as_str(), format!("everything of the session `{session}`")),
        (.., Some(before)) => {
            let now = gateway::recorder::now_us();
            let at = ledger::query::time(before, now, &|at| zone.at(at)).map_err(Failure::usage)?;
            ("before", before.as_str(), format!("everything before {}", source::clock(at, &zone)))
        }
        _ => ("all", "", "everything that was recorded".into()),
    };
    let mut source = Source::open_to_remove()?;
    if !options.yes && !term::confirmed(format_args!("Remove {what} for good?")).unwrap_or(false) {
        return Err(Failure::new("nothing was removed").help("`--yes` removes it without asking"));
    }
    let query = format!("{}&{}", encoded(word, value), encoded("zone", &zone.text()));
    let told = term::patiently("removing", || source.change(&format!("/gateway/audit/purge?{query}")))?;
    let n = |name: &str| told[name].as_u64().unwrap_or(0);
    let bodies = match n("bodies") {
        _ if options.all => "all bodies".into(),
        1 => "1 body".into(),
        n => format!("{n} bodies"),
    };
    let records = text::of(told["records"].as_i64().unwrap_or(0), "record");
    term::line(format_args!("removed: {records}, {bodies} ({} bytes of the disk)", n("bytes")));
    for (name, what) in [
        ("busy", "files hold some of it and are being written by another process: purge again when that has ended"),
        ("unreadable", "places could not be read: what was to go may be in them"),
        ("lost", "bodies that were to stay could not be read any more, and went as well"),
    ] {
        if n(name) > 0 {
            term::note(format_args!("{} {what}", n(name)));
        }
    }
    Ok(())
}
