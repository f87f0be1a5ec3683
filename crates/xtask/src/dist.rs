//! `cargo xtask dist`: what is published: an archive and a Debian package with binary, manual pages and completions, a
//! list of what is in them, the script that installs them, and checksums of all. The same sources give the same bytes, with
//! the same profile of the training, which is written beside them.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use crate::{Fault, Places, sbom, shell, tar, trained};

/// What lies in both packages beside what the program writes of itself: from, and to below `share/doc/cco`.
const DOCUMENTS: &[&str] = &["README.md", "CHANGELOG.md", "SECURITY.md", "LICENSE-MIT", "LICENSE-APACHE"];

/// Completions: the shell, and where its scripts are looked for.
const COMPLETIONS: &[(&str, &str)] = &[
    ("bash", "share/bash-completion/completions/cco"),
    ("zsh", "share/zsh/site-functions/_cco"),
    ("fish", "share/fish/vendor_completions.d/cco.fish"),
];

/// A file of a package: its path, its bytes, and whether it is a program.
pub(crate) struct Entry {
    pub(crate) path: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) is_program: bool,
}

/// How the program is built.
pub(crate) enum Build<'a> {
    /// With this profile of cargo's, and no more.
    Plain(&'a str),
    /// As it is published; with the profile of an earlier training, or of one now.
    Trained(Option<&'a Path>),
}

/// `cargo xtask dist [--profile NAME | --training FILE] [--out DIR]`
pub(crate) fn dist<'a>(mut words: impl Iterator<Item = &'a str>, usage: &str) -> Result<ExitCode, Fault> {
    let places = Places::find()?;
    let (mut build, mut out) = (Build::Trained(None), places.target.join("package"));
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| format!("`{word}` needs a value\n\n{usage}"))?;
        match word {
            "--profile" => build = Build::Plain(value),
            "--training" => build = Build::Trained(Some(Path::new(value))),
            "--out" => out = std::path::absolute(value).map_err(|e| e.to_string())?,
            other => return Err(format!("`dist` knows no `{other}`\n\n{usage}")),
        }
    }
    for file in make(&places, &build, &out)? {
        println!("{}", file.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds and writes everything to `out`, which is emptied first.
pub(crate) fn make(places: &Places, build: &Build<'_>, out: &Path) -> Result<Vec<PathBuf>, Fault> {
    let (binary, training) = match build {
        Build::Plain(profile) => (plain(places, profile)?, None),
        Build::Trained(training) => {
            let built = trained::build(places, *training)?;
            (built.program, Some(built.profile))
        }
    };
    let cannot = |what: &Path| {
        let what = what.display().to_string();
        move |e| format!("cannot write `{what}`: {e}")
    };
    if out.exists() {
        fs::remove_dir_all(out).map_err(cannot(out))?;
    }
    fs::create_dir_all(out).map_err(cannot(out))?;
    let version = shell::told(Command::new(&binary).arg("version"))?.trim().to_owned();
    let host = trained::host()?;
    let bill = sbom::of(places, &version, &host)?;
    let entries = entries(places, &binary, &bill)?;
    let time = committed(places);

    let name = format!("cco-{version}-{host}");
    let archive = out.join(format!("{name}.tar.gz"));
    let inside: Vec<_> = entries.iter().map(|entry| (format!("{name}/{}", entry.path), entry)).collect();
    let packed = gzip(&tar::archive(&inside, time)?)?;
    fs::write(&archive, packed).map_err(cannot(&archive))?;

    let mut written = vec![archive];
    if let Some(architecture) = debian_architecture(&host) {
        let package = debian(&entries, &version, architecture, time)?;
        written.push(put(out, &format!("cco_{version}_{architecture}.deb"), &package)?);
    }
    written.push(put(out, "sbom.cdx.json", bill.as_bytes())?);
    if let Some(training) = training {
        let bytes = fs::read(&training).map_err(|e| format!("cannot read `{}`: {e}", training.display()))?;
        written.push(put(out, &format!("{name}.profdata"), &bytes)?);
    }
    let installer = fs::read(places.root.join("packaging/install.sh")).map_err(|e| format!("install.sh: {e}"))?;
    written.push(put(out, "install.sh", &installer)?);
    let sums = written.iter().map(|path| sha256(path)).collect::<Result<String, _>>()?;
    written.push(put(out, "SHA256SUMS", sums.as_bytes())?);
    Ok(written)
}

fn plain(places: &Places, profile: &str) -> Result<PathBuf, Fault> {
    shell::build(places, &["--package", "cco", "--profile", profile])?;
    // Cargo's own name for the folder of its development profile.
    Ok(places.target.join(if profile == "dev" { "debug" } else { profile }).join("cco"))
}

fn put(folder: &Path, name: &str, bytes: &[u8]) -> Result<PathBuf, Fault> {
    let path = folder.join(name);
    fs::write(&path, bytes).map_err(|e| format!("cannot write `{}`: {e}", path.display()))?;
    Ok(path)
}

/// When the sources were committed: the time of every file, so that the same sources give the same bytes.
fn committed(places: &Places) -> u64 {
    let told = Command::new("git").args(["log", "-1", "--format=%ct"]).current_dir(&places.root).output();
    told.ok().and_then(|out| String::from_utf8_lossy(&out.stdout).trim().parse().ok()).unwrap_or(0)
}

fn entries(places: &Places, binary: &Path, bill: &str) -> Result<Vec<Entry>, Fault> {
    let read = |path: &Path| fs::read(path).map_err(|e| format!("cannot read `{}`: {e}", path.display()));
    let file = |path: String, bytes: Vec<u8>| Entry { path, bytes, is_program: false };
    let mut entries = vec![Entry { path: "bin/cco".into(), bytes: read(binary)?, is_program: true }];
    let pages = places.target.join("package-man");
    let _ = fs::remove_dir_all(&pages);
    shell::told(Command::new(binary).arg("man").arg(&pages))?;
    let mut names: Vec<_> = fs::read_dir(&pages)
        .map_err(|e| e.to_string())?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    names.sort();
    for name in names {
        entries.push(file(format!("share/man/man1/{name}.gz"), gzip(&read(&pages.join(&name))?)?));
    }
    for (shell, path) in COMPLETIONS {
        entries
            .push(file((*path).into(), shell::told(Command::new(binary).args(["completions", shell]))?.into_bytes()));
    }
    for name in DOCUMENTS {
        entries.push(file(format!("share/doc/cco/{name}"), read(&places.root.join(name))?));
    }
    entries.push(file("share/doc/cco/sbom.cdx.json".into(), bill.as_bytes().to_vec()));
    Ok(entries)
}

/// What Debian calls this kind of machine; `None`: it has no package for it.
fn debian_architecture(host: &str) -> Option<&'static str> {
    match host.split_once('-')? {
        ("x86_64", rest) if rest.contains("linux-gnu") => Some("amd64"),
        ("aarch64", rest) if rest.contains("linux-gnu") => Some("arm64"),
        _ => None,
    }
}

/// A Debian package: two archives and a word about its form, one behind the other.
fn debian(entries: &[Entry], version: &str, architecture: &str, time: u64) -> Result<Vec<u8>, Fault> {
    let kib = entries.iter().map(|entry| entry.bytes.len().div_ceil(1024)).sum::<usize>();
    let control = format!(
        "Package: cco\nVersion: {version}\nArchitecture: {architecture}\nMaintainer: The cco developers <cco@localhost>\n\
         Installed-Size: {kib}\nDepends: libc6 (>= 2.36)\nRecommends: ca-certificates\nSection: net\nPriority: optional\n\
         Description: LLM gateway that relays streams byte for byte\n \
         A daemon between coding agents and their providers: it keeps keys, routes, translates,\n \
         falls over, and accounts for every request.\n"
    );
    let data: Vec<_> = entries.iter().map(|entry| (format!("./usr/{}", entry.path), entry)).collect();
    let file = |path: &str, text: String| Entry { path: path.into(), bytes: text.into_bytes(), is_program: false };
    let control = file("./control", control);
    let mut package = b"!<arch>\n".to_vec();
    for (name, bytes) in [
        ("debian-binary", b"2.0\n".to_vec()),
        ("control.tar.gz", gzip(&tar::archive(&[("./control".into(), &control)], time)?)?),
        ("data.tar.gz", gzip(&tar::archive(&data, time)?)?),
    ] {
        let head = format!("{name:<16}{time:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 100_644, bytes.len());
        package.extend_from_slice(head.as_bytes());
        package.extend_from_slice(&bytes);
        // Every part begins at an even place.
        package.resize(package.len().next_multiple_of(2), b'\n');
    }
    Ok(package)
}

/// Packed, without a time and a name.
fn gzip(bytes: &[u8]) -> Result<Vec<u8>, Fault> {
    let failed = |e: std::io::Error| format!("cannot run `gzip`: {e}");
    let mut child = Command::new("gzip")
        .args(["-9", "-n", "-c"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let mut input = child.stdin.take().expect("it is piped");
    let bytes = bytes.to_vec();
    let writer = std::thread::spawn(move || input.write_all(&bytes));
    let packed = child.wait_with_output().map_err(failed)?;
    let fed = writer.join().is_ok_and(|wrote| wrote.is_ok());
    if fed && packed.status.success() { Ok(packed.stdout) } else { Err("`gzip` failed".into()) }
}

/// A line of `SHA256SUMS`, as `sha256sum` and `shasum -a 256` write and read it.
fn sha256(path: &Path) -> Result<String, Fault> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let (program, args): (_, &[&str]) =
        if shell::exists("sha256sum") { ("sha256sum", &[]) } else { ("shasum", &["-a", "256"]) };
    let ran =
        Command::new(program).args(args).arg(path).output().map_err(|e| format!("cannot run `{program}`: {e}"))?;
    let told = String::from_utf8_lossy(&ran.stdout).into_owned();
    let sum = told.split_whitespace().next().filter(|sum| sum.len() == 64 && ran.status.success());
    sum.map(|sum| format!("{sum}  {name}\n")).ok_or_else(|| format!("`{program}` failed for `{name}`"))
}
