//! The one printer: everything that goes to stdout and stderr.

use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use clap::ColorChoice;
use gateway::config::{Env, NO_COLOR};
use tokio::time::Instant;

use crate::text;

/// Work that takes less than this shows no progress.
const PATIENCE: Duration = Duration::from_secs(1);
/// A bar of progress is drawn at most so often.
const REDRAW: Duration = Duration::from_millis(100);

/// Why something did not get to stdout: the first time. A full disk, for example.
static LOST: OnceLock<std::io::Error> = OnceLock::new();

/// Something on stdout, at once; `false` where nobody reads it. A reader that has gone away has what it wanted; any
/// other reason is told at the end.
fn out(write: impl FnOnce(&mut std::io::StdoutLock<'static>) -> std::io::Result<()>) -> bool {
    let mut out = std::io::stdout().lock();
    let Err(why) = write(&mut out).and_then(|()| out.flush()) else { return true };
    if why.kind() != std::io::ErrorKind::BrokenPipe {
        let _ = LOST.set(why);
    }
    false
}

/// The end of the program: with this exit code, where all that it said got to stdout.
pub(crate) fn ended(code: ExitCode) -> ExitCode {
    let Some(why) = LOST.get() else { return code };
    error("the output is not whole", Some(why), Some("is the disk full that it goes to? `df -h` shows it"));
    if code == ExitCode::SUCCESS { ExitCode::FAILURE } else { code }
}

/// A line on stdout. A reader that has gone away is no reason to stop.
pub(crate) fn line(text: impl Display) {
    heard(text);
}

/// The same for those who stop when nobody reads: `false` then.
pub(crate) fn heard(text: impl Display) -> bool {
    out(|out| writeln!(out, "{text}"))
}

/// The same for lines of JSON and of comma-separated values: as they are for programs, escaped where a person sees them.
pub(crate) fn data(line: impl Display) -> bool {
    if stdout_is_terminal() { heard(text::data(&line.to_string())) } else { heard(line) }
}

/// Text on stdout without a line end, for those who stop when nobody reads: `false` then.
pub(crate) fn heard_part(text: impl Display) -> bool {
    out(|out| write!(out, "{text}"))
}

/// Text on stdout, at once and without a line end.
pub(crate) fn part(text: impl Display) {
    heard_part(text);
}

/// Bytes on stdout, as they are.
pub(crate) fn bytes(bytes: &[u8]) {
    out(|out| out.write_all(bytes));
}

/// What the user wants of every output.
static QUIET: AtomicBool = AtomicBool::new(false);
static COLORS: OnceLock<ColorChoice> = OnceLock::new();

/// Says once what the user wants of every output.
pub(crate) fn set(quiet: bool, colors: Option<ColorChoice>) {
    QUIET.store(quiet, Ordering::Relaxed);
    let _ = COLORS.set(colors.unwrap_or(ColorChoice::Auto));
}

/// The command that runs, as it is typed.
static COMMAND: OnceLock<String> = OnceLock::new();

/// Says once which command runs: `cco logs show`.
pub(crate) fn runs(command: String) {
    let _ = COMMAND.set(command);
}

/// Where it stands what the command that runs takes.
pub(crate) fn its_help() -> String {
    format!("`{} --help` shows what it takes", COMMAND.get().map_or("cco", String::as_str))
}

/// Whether what goes to stderr may have colours.
pub(crate) fn stderr_has_colors() -> bool {
    match COLORS.get() {
        Some(ColorChoice::Always) => true,
        Some(ColorChoice::Never) => false,
        _ => stderr_is_terminal() && Env::process().read(&NO_COLOR).is_none(),
    }
}

/// What is worth knowing besides, on stderr.
pub(crate) fn note(text: impl Display) {
    if QUIET.load(Ordering::Relaxed) {
        return;
    }
    let _ = writeln!(std::io::stderr().lock(), "note: {text}");
}

/// A line on stderr, as another process said it.
pub(crate) fn report(text: impl Display) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
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
    if QUIET.load(Ordering::Relaxed) {
        return;
    }
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

/// The characters of a line on the terminal; `None` where there is none, and lines may be as long as they are.
pub(crate) fn width() -> Option<usize> {
    let terminal_size::Width(width) = terminal_size::terminal_size_of(std::io::stdout())?.0;
    (width > 0).then_some(usize::from(width))
}

/// Asks a question that is answered with yes or no. `None`: there is nobody to ask.
pub(crate) fn confirmed(question: impl Display) -> Option<bool> {
    if !std::io::stdin().is_terminal() || !stderr_is_terminal() {
        return None;
    }
    let mut out = std::io::stderr().lock();
    let _ = write!(out, "{question} [y/N] ").and_then(|()| out.flush());
    let mut answer = String::new();
    let _ = std::io::stdin().read_line(&mut answer);
    Some(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// How far a piece of work has come, on stderr: shown on a terminal only, and only when it takes a while.
#[derive(Debug)]
pub(crate) struct Progress {
    what: &'static str,
    began: Instant,
    drawn: Option<Instant>,
}

impl Progress {
    pub(crate) fn new(what: &'static str) -> Self {
        Self { what, began: Instant::now(), drawn: None }
    }

    /// So much of `all` is done.
    pub(crate) fn at(&mut self, done: u64, all: u64) {
        let now = Instant::now();
        let due = self.drawn.map_or(self.began + PATIENCE, |drawn| drawn + REDRAW);
        if now < due || !stderr_is_terminal() {
            return;
        }
        self.drawn = Some(now);
        let part = if all == 0 { 0.0 } else { done as f64 / all as f64 };
        let bar = text::bar(part, 30);
        let mut out = std::io::stderr().lock();
        let _ = write!(out, "\r{} {bar:<30} {:>4}  {done} of {all}", self.what, text::percent(part.min(1.0)));
        let _ = out.flush();
    }
}

/// Does a piece of work of which nobody knows how far it has come; on a terminal the seconds are shown meanwhile.
pub(crate) fn patiently<T>(what: &'static str, work: impl FnOnce() -> T) -> T {
    if !stderr_is_terminal() {
        return work();
    }
    let (done, began) = (Done::default(), Instant::now());
    std::thread::scope(|scope| {
        scope.spawn(|| done.shown(what, began));
        // Told in any case: the thread must not outlast a panic.
        let _told = Telling(&done);
        work()
    })
}

/// Whether a piece of work is done.
#[derive(Default)]
struct Done(Mutex<bool>, Condvar);

impl Done {
    /// Shows the seconds until it is.
    fn shown(&self, what: &str, began: Instant) {
        let mut done = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut drawn = false;
        while !*done {
            let took = began.elapsed();
            if took >= PATIENCE {
                drawn = true;
                let mut out = std::io::stderr().lock();
                let _ = write!(out, "\r{what} … {} s", took.as_secs()).and_then(|()| out.flush());
            }
            done = self.1.wait_timeout(done, REDRAW).unwrap_or_else(PoisonError::into_inner).0;
        }
        if drawn {
            let _ = write!(std::io::stderr().lock(), "\r\x1b[K");
        }
    }
}

struct Telling<'a>(&'a Done);

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.1.notify_all();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.drawn.is_some() {
            let mut out = std::io::stderr().lock();
            let _ = write!(out, "\r\x1b[K").and_then(|()| out.flush());
        }
    }
}
