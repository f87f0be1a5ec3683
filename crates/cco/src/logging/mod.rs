//! The program's log: human on a terminal, one JSON object a line otherwise, on stderr or in files that give way to each
//! other, written by a thread of its own.

mod json;
mod rotate;
mod sink;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gateway::config::{Format, Level, Log, Note, NoteLevel};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::set_global_default;
use tracing::{Event, Subscriber, info, warn};
use tracing_subscriber::fmt::format::{self, Writer as Writing};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Registry, reload};

use crate::term;
use rotate::Rotating;
#[cfg(test)]
use sink::Sink;
use sink::Writer;

/// Keeps the log alive; what waits is written when it is dropped.
pub(crate) struct Logging {
    writer: Option<Writer>,
    change: Change,
}

/// Starts the log, in this file or on stderr. Of a process's calls only the first counts.
pub(crate) fn start(log: &Log, file: Option<&Path>) -> Logging {
    let on_terminal = file.is_none() && term::stderr_is_terminal();
    let human = Arc::new(AtomicBool::new(is_human(log, on_terminal)));
    let (filter, level) = reload::Layer::new(filter(log));
    let change = Change { level, human: human.clone(), on_terminal };
    let started = match file {
        Some(file) => Writer::start(Rotating::new(file, log.max_bytes as u64, log.files)),
        None => Writer::start(std::io::stderr()),
    };
    let Ok((sink, writer)) = started else { return Logging { writer: None, change } };
    let form = Form { human, for_people: format::Format::default(), for_programs: json::Json };
    let lines = tracing_subscriber::fmt::layer().event_format(form).with_writer(move || sink.clone());
    let lines = lines.with_ansi(file.is_none() && term::stderr_has_colors());
    let _ = set_global_default(tracing_subscriber::registry().with(filter).with(lines));
    Logging { writer: Some(writer), change }
}

fn is_human(log: &Log, on_terminal: bool) -> bool {
    match log.format {
        Format::Auto => on_terminal,
        Format::Human => true,
        Format::Json => false,
    }
}

fn filter(log: &Log) -> LevelFilter {
    match log.level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    }
}

/// What of the log can be another while it is written.
#[derive(Clone)]
struct Change {
    level: reload::Handle<LevelFilter, Registry>,
    human: Arc<AtomicBool>,
    on_terminal: bool,
}

/// A line in the form that holds at the moment.
struct Form {
    human: Arc<AtomicBool>,
    for_people: format::Format,
    for_programs: json::Json,
}

impl<S, N> FormatEvent<S, N> for Form
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'w> FormatFields<'w> + 'static,
{
    fn format_event(&self, spans: &FmtContext<'_, S, N>, out: Writing<'_>, event: &Event<'_>) -> fmt::Result {
        if self.human.load(Ordering::Relaxed) {
            self.for_people.format_event(spans, out, event)
        } else {
            self.for_programs.format_event(spans, out, event)
        }
    }
}

impl Logging {
    /// Gives the log another level and form, whenever it is called.
    pub(crate) fn changed(&self) -> impl Fn(&Log) + Send + Sync + 'static {
        let change = self.change.clone();
        move |log| {
            change.human.store(is_human(log, change.on_terminal), Ordering::Relaxed);
            // It is gone only with the process.
            let _ = change.level.reload(filter(log));
        }
    }

    /// Tells how many lines were dropped, whenever it is called.
    pub(crate) fn dropped(&self) -> impl Fn() -> u64 + Send + Sync + 'static {
        let read = self.writer.as_ref().map(Writer::dropped_then);
        move || read.as_ref().map_or(0, |read| read())
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        let lines = self.writer.as_ref().map_or(0, Writer::dropped);
        if lines > 0 {
            warn!(lines, "log lines were dropped because they could not be written fast enough");
        }
    }
}

#[cfg(test)]
fn json_subscriber(sink: Sink, level: LevelFilter) -> impl Subscriber + Send + Sync {
    let writer = move || sink.clone();
    tracing_subscriber::fmt().event_format(json::Json).with_max_level(level).with_writer(writer).finish()
}

/// A sink, and what was put into it once nothing more will be.
#[cfg(test)]
fn collected() -> (Sink, impl FnOnce() -> String) {
    let (sender, receiver) = std::sync::mpsc::sync_channel::<Vec<u8>>(1024);
    struct Out(std::sync::mpsc::SyncSender<Vec<u8>>);
    impl std::io::Write for Out {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(std::io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let (sink, writer) = Writer::start(Out(sender)).expect("a thread can be started");
    (sink, move || {
        drop(writer);
        String::from_utf8(receiver.iter().flatten().collect()).expect("the log is text")
    })
}

/// A note as a command prints it.
pub(crate) fn told(note: &Note) -> String {
    let level = match note.level {
        NoteLevel::Warn => "warning",
        NoteLevel::Info => "note",
    };
    let line = note.at.map(|(line, _)| format!("line {line}: ")).unwrap_or_default();
    format!("{level}: {line}{note}")
}

/// Writes what is worth knowing of a configuration.
pub(crate) fn notes(notes: &[Note]) {
    for note in notes {
        let line = note.at.map(|(line, _)| line);
        match note.level {
            NoteLevel::Warn => warn!(target: "cco::config", line, "{note}"),
            NoteLevel::Info => info!(target: "cco::config", line, "{note}"),
        }
    }
}
