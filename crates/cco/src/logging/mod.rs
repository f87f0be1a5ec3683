//! The program's log: human on a terminal, one JSON object a line otherwise, on stderr or in files that give way to each
//! other, written by a thread of its own.

mod json;
mod rotate;
mod sink;

use std::path::Path;

use gateway::config::{Format, Level, Log, Note, NoteLevel};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::set_global_default;
use tracing::{Subscriber, info, warn};

use crate::term;
use rotate::Rotating;
use sink::{Sink, Writer};

/// Keeps the log alive; what waits is written when it is dropped.
pub(crate) struct Logging(Option<Writer>);

/// Starts the log, in this file or on stderr. Of a process's calls only the first counts.
pub(crate) fn start(log: &Log, file: Option<&Path>) -> Logging {
    let started = match file {
        Some(file) => Writer::start(Rotating::new(file, log.max_bytes as u64, log.files)),
        None => Writer::start(std::io::stderr()),
    };
    let Ok((sink, writer)) = started else { return Logging(None) };
    let on_terminal = file.is_none() && term::stderr_is_terminal();
    let human = match log.format {
        Format::Auto => on_terminal,
        Format::Human => true,
        Format::Json => false,
    };
    let level = match log.level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    };
    let _ = if human {
        let builder = tracing_subscriber::fmt().with_max_level(level).with_writer(move || sink.clone());
        set_global_default(builder.with_ansi(file.is_none() && term::stderr_has_colors()).finish())
    } else {
        set_global_default(json_subscriber(sink, level))
    };
    Logging(Some(writer))
}

fn json_subscriber(sink: Sink, level: LevelFilter) -> impl Subscriber + Send + Sync {
    let writer = move || sink.clone();
    tracing_subscriber::fmt().event_format(json::Json).with_max_level(level).with_writer(writer).finish()
}

impl Logging {
    /// Tells how many lines were dropped, whenever it is called.
    pub(crate) fn dropped(&self) -> impl Fn() -> u64 + Send + Sync + 'static {
        let read = self.0.as_ref().map(Writer::dropped_then);
        move || read.as_ref().map_or(0, |read| read())
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        let lines = self.0.as_ref().map_or(0, Writer::dropped);
        if lines > 0 {
            warn!(lines, "log lines were dropped because they could not be written fast enough");
        }
    }
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
