//! What happens on a terminal: a real one, from script(1).

use std::io::{Read as _, Write as _};
use std::process::{Child, Stdio};

use crate::home::{Home, KEY, OTHER};

/// The program on a terminal.
pub(crate) struct Session {
    child: Child,
    seen: String,
}

impl Session {
    fn start(home: &Home, args: &str) -> Self {
        Self::run(home, &format!("credentials {args}"))
    }

    /// `cco …`
    pub(crate) fn run(home: &Home, args: &str) -> Self {
        let command = format!("{} {args}", env!("CARGO_BIN_EXE_cco"));
        let mut script =
            home.wrapped("script", &["--quiet", "--return", "--flush", "--command", &command, "/dev/null"]);
        script.env("SHELL", "/bin/sh").stdin(Stdio::piped());
        Self { child: script.spawn().expect("script(1), of util-linux, is there"), seen: String::new() }
    }

    /// Waits until it has asked this, and answers.
    pub(crate) fn answer(&mut self, question: &str, answer: &str) {
        let mut byte = [0];
        while !self.seen.ends_with(question) {
            let read = self.child.stdout.as_mut().unwrap().read(&mut byte).unwrap();
            assert_eq!(read, 1, "it ended without asking {question:?}: {}", self.seen);
            self.seen.push(char::from(byte[0]));
        }
        self.child.stdin.as_mut().unwrap().write_all(answer.as_bytes()).unwrap();
    }

    /// Its exit code, and all that stood on the terminal.
    pub(crate) fn end(mut self) -> (Option<i32>, String) {
        let mut rest = Vec::new();
        self.child.stdout.take().unwrap().read_to_end(&mut rest).unwrap();
        let code = self.child.wait().unwrap().code();
        (code, self.seen + &String::from_utf8_lossy(&rest))
    }
}

#[test]
fn a_key_that_is_typed_is_not_shown() {
    let home = Home::new();
    let mut session = Session::start(&home, "store A");
    session.answer("Key for `A` (it is not shown): ", &format!("{KEY}x\x7f\r"));
    let (code, seen) = session.end();
    assert_eq!(code, Some(0), "{seen}");
    assert!(seen.contains("stored `A` (…6789)") && !seen.contains("canary"), "{seen}");
    assert_eq!(home.retrieve("A"), format!("{KEY}\n"));
    // Typing can be broken off.
    let mut session = Session::start(&home, "store A");
    session.answer("(it is not shown): ", "canary\x03");
    let (code, seen) = session.end();
    assert_eq!(code, Some(1));
    assert!(seen.contains("error: nothing was typed") && !seen.contains("canary"), "{seen}");
    assert_eq!(home.retrieve("A"), format!("{KEY}\n"));
}

#[test]
fn a_terminal_is_shown_a_key_only_when_its_user_says_so() {
    let home = Home::new();
    home.store("A", KEY);
    let mut session = Session::start(&home, "retrieve A");
    session.answer("Show `A` on this terminal? [y/N] ", "\r");
    let (code, seen) = session.end();
    assert_eq!(code, Some(1));
    assert!(seen.contains("error: `A` is not shown") && !seen.contains("canary"), "{seen}");
    let mut session = Session::start(&home, "retrieve A");
    session.answer("[y/N] ", "y\r");
    let (code, seen) = session.end();
    assert!(code == Some(0) && seen.contains(KEY), "{seen}");
    let (code, seen) = Session::start(&home, "retrieve A --yes").end();
    assert!(code == Some(0) && seen.contains(KEY) && !seen.contains("[y/N]"), "{seen}");
}

#[test]
fn a_passphrase_is_asked_for_and_asked_twice_when_it_is_new() {
    let home = Home::new();
    let mut session = Session::start(&home, "store A --backend passphrase");
    session.answer("(it is not shown): ", &format!("{KEY}\r"));
    session.answer("Passphrase of the credentials: ", "correct horse\r");
    session.answer("The same once more: ", "correct hors\r");
    let (code, seen) = session.end();
    assert!(code == Some(1) && seen.contains("error: the two passphrases differ"), "{seen}");
    assert!(!home.file("credentials").exists());
    let mut session = Session::start(&home, "store A --backend passphrase");
    session.answer("(it is not shown): ", &format!("{KEY}\r"));
    session.answer("Passphrase of the credentials: ", "correct horse\r");
    session.answer("The same once more: ", "correct horse\r");
    let (code, seen) = session.end();
    assert!(code == Some(0) && !seen.contains("horse"), "{seen}");
    // A store that is there asks once, also where the key comes from elsewhere.
    let mut session = Session::start(&home, &format!("store B {OTHER}"));
    session.answer("Passphrase of the credentials: ", "correct horse\r");
    assert_eq!(session.end().0, Some(0));
    let mut session = Session::start(&home, "retrieve B --yes");
    session.answer("Passphrase of the credentials: ", "correct horse\r");
    let (code, seen) = session.end();
    assert!(code == Some(0) && seen.contains(OTHER), "{seen}");
    let mut session = Session::start(&home, "list");
    session.answer("Passphrase of the credentials: ", "wrong\r");
    let (code, seen) = session.end();
    assert!(code == Some(1) && seen.contains("cause: the passphrase is wrong"), "{seen}");
}

/// Whether there are colours in it; what clears a line is none.
fn coloured(shown: &str) -> bool {
    shown
        .split("\x1b[")
        .skip(1)
        .any(|rest| rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';').starts_with('m'))
}

/// What the program's own log looks like on a terminal.
fn served(home: &Home, color: &str) -> String {
    let mut session = Session::run(home, &format!("{color} serve --listen 127.0.0.1:0"));
    // Ctrl-C, once it serves.
    session.answer("listening on ", "\x03");
    session.end().1
}

#[test]
fn colours_are_for_terminals_and_can_be_turned_off() {
    let mut home = Home::new();
    home.set("TERM", "xterm-256color");
    let shown = |home: &Home, args: &str| Session::run(home, args).end().1;
    let help = ["--help", "daemon --help"];
    let others =
        ["", "daemon", "deamon", "status", "doctor", "config show", "providers", "credentials retrieve X --yes"];
    for args in help {
        assert!(coloured(&shown(&home, args)), "`{args}` has colours on a terminal");
        assert!(!coloured(&shown(&home, &format!("--color never {args}"))), "`{args}` with --color never");
    }
    assert!(coloured(&served(&home, "")) && !coloured(&served(&home, "--color never")));
    home.set("NO_COLOR", "1");
    for args in help.iter().chain(&others) {
        let shown = shown(&home, args);
        assert!(!coloured(&shown), "`{args}` with NO_COLOR: {shown:?}");
    }
    assert!(!coloured(&served(&home, "")) && coloured(&served(&home, "--color always")), "who asks for them gets them");
    home.unset("NO_COLOR");
    let piped = |args: &str| {
        let args: Vec<_> = args.split_whitespace().collect();
        let said: crate::home::Said = home.command(&args).output().unwrap().into();
        said.out + &said.err
    };
    for args in help.iter().chain(&others) {
        assert!(!piped(args).contains('\x1b'), "`{args}` through a pipe");
    }
    assert!(coloured(&piped("--color always daemon --help")));
}
