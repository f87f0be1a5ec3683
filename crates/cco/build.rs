//! Writes the version: the commit's date in UTC and its hash, `-dirty` where the tree was changed.

#![expect(clippy::disallowed_methods, reason = "a build script is told everything through the environment")]

use std::process::Command;

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).env("TZ", "UTC0").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_string())
}

fn from_git() -> Option<String> {
    let commit = git(&["log", "-1", "--abbrev=7", "--date=format-local:%Y.%m.%d", "--format=%cd+%h"])?;
    let dirty = !git(&["status", "--porcelain"])?.is_empty();
    Some(if dirty { format!("{commit}-dirty") } else { commit })
}

fn main() {
    for path in ["HEAD", "index"] {
        if let Some(path) = git(&["rev-parse", "--path-format=absolute", "--git-path", path]) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    println!("cargo::rerun-if-changed=..");
    println!("cargo::rerun-if-env-changed=CCO_VERSION");
    let given = std::env::var("CCO_VERSION").ok().filter(|v| !v.is_empty());
    let version = given.or_else(from_git).unwrap_or_else(|| {
        let part = |n: &str| std::env::var(format!("CARGO_PKG_VERSION_{n}")).unwrap_or_default();
        format!("{}.{:0>2}.{:0>2}+unknown", part("MAJOR"), part("MINOR"), part("PATCH"))
    });
    println!("cargo::rustc-env=CCO_VERSION={version}");
}
