//! The program's log: human on a terminal, one JSON object a line otherwise, written by a thread of its own.

use gateway::config::{Format, Level, Log, Note, NoteLevel};
use tracing::level_filters::LevelFilter;
use tracing::{info, warn};
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};

use crate::term;

/// Lines that may wait to be written; more are dropped and counted, so that a slow disk never slows a stream.
const WAITING: usize = 16 * 1024;

/// Keeps the log alive; what waits is written when it is dropped.
pub(crate) struct Logging {
    dropped: ErrorCounter,
    _guard: WorkerGuard,
}

/// Starts the log. Of a process's calls only the first counts.
pub(crate) fn start(log: &Log) -> Logging {
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(WAITING)
        .lossy(true)
        .thread_name("cco-log")
        .finish(std::io::stderr());
    let dropped = writer.error_counter();
    let human = match log.format {
        Format::Auto => term::stderr_is_terminal(),
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
    let builder = tracing_subscriber::fmt().with_max_level(level).with_writer(writer);
    let _ = if human {
        tracing::subscriber::set_global_default(builder.with_ansi(term::stderr_is_terminal()).finish())
    } else {
        tracing::subscriber::set_global_default(builder.json().flatten_event(true).finish())
    };
    Logging { dropped, _guard: guard }
}

impl Drop for Logging {
    fn drop(&mut self) {
        let lines = self.dropped.dropped_lines();
        if lines > 0 {
            warn!(lines, "log lines were dropped because they could not be written fast enough");
        }
    }
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
