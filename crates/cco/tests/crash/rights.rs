//! Tests that need rights which not every user has: a file system of their own, or to hold another process's thread.

use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Stdio};

/// Runs a test as a process of its own that has the rights of root, if only over itself and what it starts. That needs
/// root, or a kernel that lets users have name spaces. Without either this fails; it does not pass.
pub(crate) fn as_root(test: &str) {
    run(test, "exec \"$2\"", &[]);
}

/// The same with a file system of this size, which is read from the input.
pub(crate) fn on_a_small_disk(test: &str, size: &str) {
    run(test, &format!("mount -t tmpfs -o mode=700,size={size} tmpfs \"$1\" && exec \"$2\""), &["--mount"]);
}

fn run(test: &str, how: &str, spaces: &[&str]) {
    let home = tempfile::tempdir().unwrap();
    let is_root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    let mut command = Command::new("unshare");
    command.args(spaces);
    if !is_root {
        command.args(["--user", "--map-root-user"]);
    }
    let script = format!("{how} --exact {test} --ignored --nocapture");
    command.args(["sh", "-c", &script, "sh"]).arg(home.path()).arg(std::env::current_exe().unwrap());
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut process = command.spawn().expect("`unshare` of util-linux can be run");
    writeln!(process.stdin.as_mut().unwrap(), "{}", home.path().display()).unwrap();
    let ran = process.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    // A name that no test has is no failure for whoever runs tests by their names.
    let is_done = ran.status.success() && said.contains("\ntest result: ok. 1 passed; ");
    assert!(is_done, "`{test}` failed, or it could not have the rights that it needs: {}\n{said}", ran.status);
}
