//! The manual test of streaming: its commands do what is said, and print what stands under them.

use std::path::Path;
use std::time::Duration;

use regex::Regex;
use tokio::process::Command;

use crate::text;

/// What is typed, and the lines that are said to be printed then.
#[derive(Default)]
struct Step {
    typed: Vec<String>,
    printed: Vec<String>,
}

fn steps(document: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let (mut within, mut indent) = (None, 0);
    for line in document.lines() {
        let bare = line.trim_start();
        match (within, bare) {
            (None, "```sh") => steps.push(Step::default()),
            (None, "```text") => assert!(steps.last().unwrap().printed.is_empty(), "two blocks under one"),
            (Some(_), "```") => {
                within = None;
                continue;
            }
            (Some(is_typed), _) => {
                let line = line.get(indent..).unwrap_or_default().to_owned();
                let step = steps.last_mut().unwrap();
                if is_typed { &mut step.typed } else { &mut step.printed }.push(line);
                continue;
            }
            _ => continue,
        }
        (within, indent) = (Some(bare == "```sh"), line.len() - bare.len());
    }
    steps
}

/// Lines without what is another one each time: ids, times, processes, versions, and how tables are spaced.
struct Shape(Vec<(Regex, &'static str)>);

impl Shape {
    fn new() -> Self {
        let rules = [
            (r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "ID"),
            (r"\breq_sim_\d+", "ID"),
            (r"\breq_[0-9a-f]{32}\b", "ID"),
            (r"\b[0-9a-f]{8}\b", "ID"),
            (r"\d{4}-\d\d-\d\d", "DAY"),
            (r"\d\d:\d\d:\d\d", "TIME"),
            (r"\d+(\.\d+)? ?(ms|s|min)\b", "TOOK"),
            (r"PID(:?) \d+", "PID$1 N"),
            (r"Version: \S+", "Version: V"),
            (r"\d+ pieces", "N pieces"),
            (r"\s+", " "),
        ];
        Self(rules.map(|(rule, by)| (Regex::new(rule).unwrap(), by)).into())
    }

    fn of(&self, line: &str) -> String {
        let shaped = self.0.iter().fold(line.trim().to_owned(), |line, (rule, by)| rule.replace_all(&line, *by).into());
        shaped.trim().to_owned()
    }

    /// Whether a line is as it is said to be: `…` at an end of it stands for anything.
    fn fits(&self, said: &str, line: &str) -> bool {
        let (said, line) = (said.trim(), self.of(line));
        match (said.strip_prefix('…'), said.strip_suffix('…')) {
            (Some(_), Some(_)) => line.contains(&self.of(said.trim_matches('…'))),
            (None, Some(begin)) => line.starts_with(&self.of(begin)),
            _ => line == self.of(said),
        }
    }

    /// What is said and was not printed. A line `…` stands for any lines.
    fn missing(&self, said: &[String], printed: &[String]) -> Option<String> {
        if said.is_empty() && !printed.is_empty() {
            return Some("nothing at all".into());
        }
        let pieces: Vec<&[String]> = said.split(|line| line.trim() == "…").collect();
        let mut at = 0;
        for (n, piece) in pieces.iter().enumerate() {
            let fits = |at: usize| {
                let lines = printed.get(at..at + piece.len());
                lines.is_some_and(|lines| piece.iter().zip(lines).all(|(said, line)| self.fits(said, line)))
            };
            let last = printed.len().saturating_sub(piece.len());
            let places = match (n, n + 1 == pieces.len() && !piece.is_empty()) {
                (0, true) if last > 0 => return Some(format!("only {} lines", piece.len())),
                (0, _) => 0..=0,
                (_, true) => last.max(at)..=last,
                _ => at..=last,
            };
            match places.into_iter().find(|at| fits(*at)) {
                Some(found) => at = found + piece.len(),
                None => return Some(piece.join("\n")),
            }
        }
        None
    }
}

fn lines(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    while lines.last().is_some_and(|line| line.trim().is_empty()) {
        lines.pop();
    }
    lines
}

#[test]
fn what_is_said_to_be_printed_is_compared_line_by_line() {
    let missing = |said: &str, printed: &str| Shape::new().missing(&lines(said), &lines(printed));
    assert_eq!(missing("a 5 ms\n01234567", "a  7.1 s\n89abcdef\n\n"), None);
    assert_eq!(missing("…\nb\n…\nd", "a\nb\nc\nc\nd"), None);
    assert_eq!(missing("a\n…", "a\nb"), None);
    assert_eq!(missing("{\"a\":…\n…b…", "{\"a\":1}\nabc"), None);
    for (said, printed) in [
        ("a", "a\nb"),
        ("a\nb", "a"),
        ("a\n…\nc", "a\nc\nd"),
        ("b\n…", "a\nb"),
        ("a\n…\nb\n…", "a\nc"),
        ("5", "6"),
        ("", "a"),
    ] {
        assert!(missing(said, printed).is_some(), "{said:?} {printed:?}");
    }
}

#[tokio::test]
async fn the_commands_of_the_manual_test_run_as_they_stand_and_print_what_is_said() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let document = std::fs::read_to_string(root.join("docs/MANUAL_STREAMING_TEST.md")).unwrap();
    let steps = steps(&document);
    assert!(steps.len() > 20, "{}", steps.len());
    // Ports of its own, so that it can run beside others; the program is found as `cco`.
    let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let ports = [("18099", free()), ("18548", free())];
    let mut script = String::from("set -e\nexec 2>&1\ntrap 'kill $(jobs -p) 2> /dev/null || true' EXIT\n");
    for step in &steps {
        script += &format!("{}\nprintf '\\n@@\\n'\n", step.typed.join("\n"));
    }
    let script = ports.iter().fold(script, |script, (said, free)| script.replace(said, free));
    let (home, bin) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_cco"), bin.path().join("cco")).unwrap();
    let run = |program: &str, args: &[&str]| {
        let mut command = Command::new(program);
        command.args(args).current_dir(&root).env_clear().env("CCO_HOME", home.path()).env("HOME", home.path());
        command.env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", bin.path().display())).kill_on_drop(true);
        command
    };
    // It has streams that take their time, one after the other.
    let most = Duration::from_secs(180);
    let output = tokio::time::timeout(most, run("bash", &["-c", &script]).output()).await;
    let _ = run("cco", &["daemon", "stop"]).output().await;
    let output = output.expect("it hangs").unwrap();
    let out = text(&output.stdout).replace(&home.path().display().to_string(), "~/.cco");
    assert!(output.status.success(), "{out}");
    let out = ports.iter().fold(out, |out, (said, free)| out.replace(free, said));
    let printed: Vec<&str> = out.split("\n@@\n").collect();
    assert_eq!(printed.len(), steps.len() + 1, "{out}");
    let shape = Shape::new();
    for (step, printed) in steps.iter().zip(printed) {
        if let Some(missing) = shape.missing(&lines(&step.printed.join("\n")), &lines(printed)) {
            panic!("not printed by\n{}\nas it is said:\n{missing}\nbut\n{printed}", step.typed.join("\n"));
        }
    }
}
