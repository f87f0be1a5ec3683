//! A folder of the program's own, and the program in it.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A key that must not show anywhere.
pub(crate) const KEY: &str = "sk-ant-api03-canary-0123456789";
/// Another one.
pub(crate) const OTHER: &str = "sk-ant-api03-kanarie-9876543210";

/// A home with nothing in it, and variables beside it.
pub(crate) struct Home {
    folder: tempfile::TempDir,
    env: Vec<(String, String)>,
}

/// What the program said.
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

impl Said {
    /// The output of a command that did what it was asked.
    #[track_caller]
    pub(crate) fn done(self) -> String {
        assert_eq!((self.code, self.err.as_str()), (Some(0), ""), "{}", self.out);
        self.out
    }

    /// The message of one that did not.
    #[track_caller]
    pub(crate) fn failed(self, code: i32) -> String {
        assert_eq!((self.code, self.out.as_str()), (Some(code), ""), "{}", self.err);
        assert!(!self.err.contains("canary") && !self.err.contains("kanarie"), "{}", self.err);
        self.err
    }
}

impl Home {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), env: Vec::new() }
    }

    pub(crate) fn set(&mut self, name: &str, value: impl Into<String>) {
        self.env.retain(|(there, _)| there != name);
        self.env.push((name.into(), value.into()));
    }

    pub(crate) fn unset(&mut self, name: &str) {
        self.env.retain(|(there, _)| there != name);
    }

    /// Where everything lies.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A file of the store.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The program, with these variables and no others.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        self.wrapped(env!("CARGO_BIN_EXE_cco"), args)
    }

    /// Another program in its place.
    pub(crate) fn wrapped(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args).env_clear().env("CCO_HOME", self.path()).env("HOME", self.path());
        command.env("PATH", "/usr/bin:/bin").envs(self.env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// `cco credentials …`
    pub(crate) fn run(&self, args: &[&str]) -> Said {
        self.command(&[&["credentials"], args].concat()).output().unwrap().into()
    }

    /// The same, with this on standard input.
    pub(crate) fn run_with(&self, args: &[&str], input: &str) -> Said {
        let mut child = self.command(&[&["credentials"], args].concat()).stdin(Stdio::piped()).spawn().unwrap();
        // A program that refuses does not read.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap().into()
    }

    /// Stores a key.
    #[track_caller]
    pub(crate) fn store(&self, name: &str, value: &str) {
        self.run_with(&["store", name], value).done();
    }

    /// Retrieves one.
    #[track_caller]
    pub(crate) fn retrieve(&self, name: &str) -> String {
        self.run(&["retrieve", name]).done()
    }

    /// Its configuration: one provider at this address, with this reference to its key.
    pub(crate) fn configure(&self, at: std::net::SocketAddr, reference: &str) {
        let config = serde_json::json!({ "providers": { "anthropic": {
            "baseUrl": format!("http://{at}"), "apiKeyRef": reference,
        } } });
        std::fs::write(self.file("config.json"), config.to_string()).unwrap();
    }
}
