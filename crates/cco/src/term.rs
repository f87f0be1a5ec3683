//! The one printer: everything that goes to stdout and stderr.

use std::fmt::Display;
use std::io::{IsTerminal, Write};

/// A line on stdout. A reader that has gone away is no reason to stop.
pub(crate) fn line(text: impl Display) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// Text on stdout, at once and without a line end.
pub(crate) fn part(text: impl Display) {
    let mut out = std::io::stdout().lock();
    let _ = write!(out, "{text}").and_then(|()| out.flush());
}

/// What went wrong, why, and what to do, on stderr.
pub(crate) fn error(what: impl Display, cause: Option<&dyn Display>, help: Option<&str>) {
    let mut out = std::io::stderr().lock();
    let _ = writeln!(out, "error: {what}");
    if let Some(cause) = cause {
        let _ = writeln!(out, "cause: {cause}");
    }
    if let Some(help) = help {
        let _ = writeln!(out, "help: {help}");
    }
}

/// What should be known, on stderr.
pub(crate) fn warning(what: impl Display, help: Option<&str>) {
    let mut out = std::io::stderr().lock();
    let _ = writeln!(out, "warning: {what}");
    if let Some(help) = help {
        let _ = writeln!(out, "help: {help}");
    }
}

/// Whether a person reads what goes to stdout.
pub(crate) fn stdout_is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// Whether a person reads what goes to stderr.
pub(crate) fn stderr_is_terminal() -> bool {
    std::io::stderr().is_terminal()
}
