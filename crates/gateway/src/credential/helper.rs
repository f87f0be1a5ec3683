//! Helper programs that print a key: `exec:COMMAND`, run without a shell, within a limit of time, and not more often
//! than needed.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::secret::Secret;
use crate::system;

/// How long a helper may take.
const LIMIT: Duration = Duration::from_secs(15);
/// How often a helper that runs is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// What a child of a helper may still say after the helper has ended.
const QUIET: Duration = Duration::from_millis(200);
/// The most that a helper may print.
const LONGEST: usize = 64 * 1024;
/// Helpers whose keys are remembered.
const MOST: usize = 64;

/// The helpers of a configuration, and what they said last.
#[derive(Default)]
pub(super) struct Helpers {
    said: Mutex<BTreeMap<String, (Instant, Secret)>>,
    /// Variables that helpers do not get: other keys.
    hidden: Mutex<Vec<String>>,
}

impl Helpers {
    /// Keeps these variables from all helpers.
    pub(super) fn hide<'a>(&self, names: impl IntoIterator<Item = &'a str>) {
        let mut hidden = self.hidden.lock().unwrap_or_else(PoisonError::into_inner);
        for name in names {
            if !hidden.iter().any(|there| there == name) {
                hidden.push(name.into());
            }
        }
    }

    /// What the helper said within this time, else what it says now. `stopped` ends it early.
    pub(super) fn key(&self, command: &str, max_age: Duration, stopped: &dyn Fn() -> bool) -> Result<Secret, String> {
        {
            let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((_, key)) = said.get(command).filter(|(at, _)| at.elapsed() < max_age) {
                return Ok(key.clone());
            }
        }
        let hidden = self.hidden.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let key = run(command, &hidden, LIMIT, stopped)?;
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.len() < MOST || said.contains_key(command) {
            said.insert(command.into(), (Instant::now(), key.clone()));
        }
        Ok(key)
    }
}

/// Runs a helper to its end, or to the end of its time.
fn run(command: &str, hidden: &[String], limit: Duration, stopped: &dyn Fn() -> bool) -> Result<Secret, String> {
    let words = words(command).ok_or("a quotation mark has no partner")?;
    let (program, arguments) = words.split_first().ok_or("there is no program")?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    for name in hidden {
        command.env_remove(name);
    }
    system::own_group(&mut command);
    let mut child = command.spawn().map_err(|why| format!("it cannot be started: {why}"))?;
    let heard = listen(&mut child);
    let outcome = follow(&mut child, &heard, Instant::now() + limit, stopped);
    if outcome.is_err() {
        system::end_group(&mut child);
    }
    let printed = outcome.map_err(|why| match why {
        Failure::Slow => format!("it took more than {} seconds", limit.as_secs_f32()),
        Failure::Stopped => "it was ended with the gateway".into(),
        Failure::Long => "it printed more than 64 KiB".into(),
        Failure::Status(status) => format!("it failed ({status})"),
        Failure::Io(why) => format!("it cannot be waited for: {why}"),
    })?;
    match super::key(&printed) {
        Ok(Some(key)) => Ok(key),
        Ok(None) => Err("it printed nothing".into()),
        Err(what) => Err(format!("what it printed is no key: {what}")),
    }
}

enum Failure {
    Slow,
    Stopped,
    Long,
    Status(std::process::ExitStatus),
    Io(std::io::Error),
}

/// Reads what the helper prints, in a thread of its own that ends with the pipe.
fn listen(child: &mut Child) -> Receiver<Zeroizing<Vec<u8>>> {
    let (sender, receiver): (SyncSender<Zeroizing<Vec<u8>>>, _) = sync_channel(4);
    if let Some(mut out) = child.stdout.take() {
        std::thread::spawn(move || {
            loop {
                let mut part = Zeroizing::new(vec![0; 4096]);
                match out.read(&mut part) {
                    Ok(0) => return,
                    Ok(n) => part.truncate(n),
                    Err(why) if why.kind() == std::io::ErrorKind::Interrupted => continue,
                    Err(_) => return,
                }
                if sender.send(part).is_err() {
                    return;
                }
            }
        });
    }
    receiver
}

fn follow(
    child: &mut Child,
    heard: &Receiver<Zeroizing<Vec<u8>>>,
    deadline: Instant,
    stopped: &dyn Fn() -> bool,
) -> Result<Zeroizing<Vec<u8>>, Failure> {
    // The room is made at once: growing would leave copies behind.
    let mut printed = Zeroizing::new(Vec::with_capacity(LONGEST));
    let (mut open, mut ended) = (true, None);
    loop {
        if ended.is_none() {
            ended = child.try_wait().map_err(Failure::Io)?.map(|status| (status, Instant::now()));
        }
        // Something that the helper left running may keep the pipe open.
        let quiet = ended.is_some_and(|(_, at)| at.elapsed() > QUIET);
        match ended {
            Some((status, _)) if !open || quiet => {
                return if status.success() { Ok(printed) } else { Err(Failure::Status(status)) };
            }
            _ => {}
        }
        if stopped() {
            return Err(Failure::Stopped);
        }
        if Instant::now() >= deadline {
            return Err(Failure::Slow);
        }
        match heard.recv_timeout(LOOK) {
            Ok(part) if printed.len() + part.len() > LONGEST => return Err(Failure::Long),
            Ok(part) => printed.extend_from_slice(&part),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) if open => open = false,
            // Nothing more is said: what remains is its end. There is nothing to wait on but time.
            Err(RecvTimeoutError::Disconnected) => std::thread::park_timeout(LOOK),
        }
    }
}

/// The words of a command: separated by blanks, which quotation marks and backslashes keep together. No variables, no
/// patterns: there is no shell.
fn words(command: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut letters = command.chars();
    while let Some(letter) = letters.next() {
        match letter {
            ' ' | '\t' | '\n' | '\r' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match letters.next()? {
                        '\'' => break,
                        other => word.push(other),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match letters.next()? {
                        '"' => break,
                        '\\' => match letters.next()? {
                            escaped @ ('"' | '\\') => word.push(escaped),
                            other => word.extend(['\\', other]),
                        },
                        other => word.push(other),
                    }
                }
            }
            '\\' => word.get_or_insert_default().push(letters.next()?),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENT: &dyn Fn() -> bool = &|| false;

    fn ran(command: &str) -> Result<String, String> {
        run(command, &[], Duration::from_secs(20), PATIENT).map(|key| key.expose().to_owned())
    }

    #[test]
    fn words_are_kept_together_by_quotation_marks() {
        for (command, want) in [
            ("pass show  anthropic", Some(vec!["pass", "show", "anthropic"])),
            (r#"a 'b c' "d \"e\" \x" f\ g"#, Some(vec!["a", "b c", r#"d "e" \x"#, "f g"])),
            ("a '' b", Some(vec!["a", "", "b"])),
            (r#"--x="y z"'!'"#, Some(vec!["--x=y z!"])),
            ("$HOME *", Some(vec!["$HOME", "*"])),
            ("a 'b", None),
            ("a \"b", None),
            ("a \\", None),
        ] {
            let want = want.map(|words| words.into_iter().map(str::to_owned).collect::<Vec<_>>());
            assert_eq!(words(command), want, "{command}");
        }
    }

    #[test]
    fn what_a_helper_prints_is_the_key() {
        assert_eq!(ran("echo sk-ant-1"), Ok("sk-ant-1".into()));
        assert_eq!(ran("sh -c 'echo; printf \"  key \"; echo noise >&2'"), Ok("key".into()));
    }

    #[test]
    fn a_helper_that_fails_says_how() {
        for (command, why) in [
            ("no-such-program-here", "cannot be started"),
            ("false", "exit status: 1"),
            ("sh -c 'echo key; exit 3'", "exit status: 3"),
            ("true", "printed nothing"),
            ("echo two words", "no key"),
            ("sh -c 'yes | head -c 100000'", "more than 64 KiB"),
            ("'", "no partner"),
        ] {
            let error = ran(command).unwrap_err();
            assert!(error.contains(why), "{command}: {error}");
        }
    }

    #[test]
    fn a_helper_that_hangs_is_ended_with_its_children() {
        let folder = tempfile::tempdir().unwrap();
        let pid = folder.path().join("pid");
        let command = format!("sh -c 'sleep 600 & echo $! > {}; wait'", pid.display());
        // Long enough for it to write down the number of its child.
        let ready = || std::fs::read_to_string(&pid).is_ok_and(|text| text.ends_with('\n'));
        let error = run(&command, &[], Duration::from_secs(60), &ready).unwrap_err();
        assert!(error.contains("ended with the gateway"), "{error}");
        let child = std::fs::read_to_string(&pid).unwrap();
        let gone = || {
            let state = std::fs::read_to_string(format!("/proc/{}/stat", child.trim())).unwrap_or_default();
            // A dead process may wait for whoever inherited it to ask for its end.
            state.is_empty() || state.contains(") Z ")
        };
        let until = Instant::now() + Duration::from_secs(20);
        while !gone() {
            assert!(Instant::now() < until, "the child of the helper still runs");
            std::thread::yield_now();
        }
        let slow = run("sleep 600", &[], Duration::from_millis(50), PATIENT).unwrap_err();
        assert!(slow.contains("more than 0.05 seconds"), "{slow}");
    }

    #[test]
    fn what_a_helper_leaves_running_does_not_hold_up_its_key() {
        let started = Instant::now();
        assert_eq!(ran("sh -c 'sleep 5 & echo key'"), Ok("key".into()));
        assert!(started.elapsed() < Duration::from_secs(4));
    }

    #[test]
    fn a_helper_does_not_get_the_variables_that_hold_keys() {
        let helpers = Helpers::default();
        helpers.hide(["HOME", "HOME", "X"]);
        let shown = helpers.key("sh -c 'echo [$HOME]'", Duration::ZERO, PATIENT).unwrap();
        assert_eq!(shown.expose(), "[]");
    }

    #[test]
    fn a_helper_runs_again_only_when_its_key_is_old() {
        let folder = tempfile::tempdir().unwrap();
        let count = folder.path().join("count");
        let command = format!("sh -c 'echo x >> {0}; wc -l < {0}'", count.display());
        let helpers = Helpers::default();
        let key = |age| helpers.key(&command, age, PATIENT).unwrap().expose().to_owned();
        assert_eq!(key(Duration::from_secs(600)), "1");
        assert_eq!(key(Duration::from_secs(600)), "1");
        assert_eq!(key(Duration::ZERO), "2");
        assert_eq!(key(Duration::from_secs(600)), "2");
    }
}
