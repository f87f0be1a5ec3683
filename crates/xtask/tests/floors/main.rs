//! Holds the house to its floors: what `ARCHITECTURE.md` lists under `## Floors` is what there is, and nothing imports
//! from its own floor or from one above it, so that no circle can close.

#![expect(clippy::unwrap_used, reason = "the whole crate is tests, its helpers too")]

mod source;
mod table;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use table::Table;

/// Names that only some modules may say. A pattern that ends in `*` is a beginning.
struct Reserved {
    what: &'static str,
    patterns: &'static [&'static str],
    allowed: &'static [&'static str],
}

const RESERVED: &[Reserved] = &[
    Reserved {
        what: "only `config` reads the environment",
        patterns: &["std::env::var*", "env::var*", "std::env::home_dir", "env::home_dir"],
        allowed: &["gateway::config"],
    },
    Reserved {
        what: "only `net` and `upstream` name sockets; `daemon` accepts them, `system` talks to the session's bus",
        patterns: &["tokio::net*", "std::net::Tcp*", "std::net::Udp*", "std::os::unix::net*", "socket2*"],
        allowed: &[
            "gateway::net",
            "gateway::upstream",
            "gateway::daemon",
            "gateway::system",
            "cco::demo",
            "cco::providers",
            "sim",
        ],
    },
    Reserved {
        what: "only `net` names TLS",
        patterns: &["rustls*", "tokio_rustls*", "native_tls*", "webpki*"],
        allowed: &["gateway::net"],
    },
    Reserved {
        what: "only `upstream` names an HTTP client",
        patterns: &["hyper*", "reqwest*", "h2", "h2::*", "ureq*"],
        allowed: &["gateway::upstream"],
    },
];

/// Crates without I/O, and what they must not depend on.
const PURE: &[(&str, &[&str])] = &[
    ("wire", &["tokio", "tokio-util", "http1", "http", "hyper", "mio", "socket2", "rustls"]),
    ("http1", &["tokio", "tokio-util", "hyper", "mio", "socket2", "rustls"]),
];

/// Tools of ours that are not part of what is shipped: floors bind them, reserved names do not.
const TOOLS: &[&str] = &["xtask", "bench"];

/// One crate as it lies on the disk.
#[derive(Debug, Default)]
struct Crate {
    /// `[dependencies]` and `[build-dependencies]`, for any target.
    dependencies: Vec<String>,
    /// What each file names, by its top-level module (empty: the root).
    files: Vec<(PathBuf, String, source::Source)>,
    modules: Vec<String>,
    /// The top-level modules that are folders.
    folders: Vec<String>,
}

type House = BTreeMap<String, Crate>;

fn dependencies(manifest: &str) -> Vec<String> {
    let mut counts = false;
    let mut names = Vec::new();
    for line in manifest.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[') {
            let section = section.trim_end_matches(']');
            counts = section.ends_with("dependencies") && !section.ends_with("dev-dependencies");
        } else if counts && !line.starts_with('#') {
            let end = line.find(|c: char| !(c.is_alphanumeric() || c == '-' || c == '_')).unwrap_or(line.len());
            if end > 0 {
                names.push(line[..end].to_owned());
            }
        }
    }
    names
}

fn read_crate(folder: &Path) -> Crate {
    let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
    let mut it = Crate { dependencies: dependencies(&manifest), ..Crate::default() };
    let mut test_only = Vec::new();
    let mut files = Vec::new();
    collect(&folder.join("src"), &mut Vec::new(), &mut files);
    for (path, module) in files {
        let source = source::read(&fs::read_to_string(&path).unwrap(), &module);
        test_only.extend(source.test_modules.iter().map(|name| [&module[..], std::slice::from_ref(name)].concat()));
        if let Some(top) = module.first()
            && !it.modules.contains(top)
        {
            it.modules.push(top.clone());
            if path.parent() != Some(&folder.join("src")) {
                it.folders.push(top.clone());
            }
        }
        it.files.push((path, module.join("::"), source));
    }
    let test_only: Vec<String> = test_only.iter().map(|path| path.join("::")).collect();
    let is_test = |module: &str| test_only.iter().any(|t| module == t || module.starts_with(&format!("{t}::")));
    it.files.retain(|(_, module, _)| !is_test(module));
    it.modules.retain(|module| !is_test(module));
    it
}

/// The files below `folder` with the modules that they are.
fn collect(folder: &Path, module: &mut Vec<String>, files: &mut Vec<(PathBuf, Vec<String>)>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            module.push(stem);
            collect(&path, module, files);
            module.pop();
        } else if path.extension().is_some_and(|e| e == "rs") {
            let is_root = stem == "mod" || module.is_empty() && (stem == "lib" || stem == "main");
            let own = if is_root { None } else { Some(stem) };
            files.push((path, module.iter().cloned().chain(own).collect()));
        }
    }
}

/// Every fault of the house against its table.
fn faults(house: &House, table: &Table) -> Vec<String> {
    let mut faults = Vec::new();
    for name in table.keys() {
        let exists = match name.split_once("::") {
            Some((of, module)) => house.get(of).is_some_and(|it| it.modules.iter().any(|m| m == module)),
            None => house.contains_key(name),
        };
        if !exists {
            faults.push(format!("`{name}` is in the floor table and does not exist: take its row out"));
        }
    }
    for (name, it) in house {
        let Some(floor) = table.get(name) else {
            faults.push(format!("the crate `{name}` is not in the floor table: give it a row"));
            continue;
        };
        for other in it.dependencies.iter().filter(|other| house.contains_key(*other)) {
            if table.get(other).is_none_or(|theirs| theirs.of_crate >= floor.of_crate) {
                faults.push(format!("the crate `{name}` (floor {floor}) depends on `{other}`, which is not below it"));
            }
        }
        for (pure, never) in PURE.iter().filter(|(pure, _)| pure == name) {
            for other in it.dependencies.iter().filter(|other| never.contains(&other.as_str())) {
                faults.push(format!("the crate `{pure}` has no I/O and must not depend on `{other}`"));
            }
        }
        modules(name, it, table, &mut faults);
        reserved(name, it, &mut faults);
    }
    // A `use` of several names of one module is one fault.
    faults.dedup();
    faults
}

/// Imports between the top-level modules of one crate.
fn modules(name: &str, it: &Crate, table: &Table, faults: &mut Vec<String>) {
    let is_listed = table.keys().any(|row| row.starts_with(&format!("{name}::")));
    let floor_of = |module: &str| table.get(&format!("{name}::{module}")).and_then(|floor| floor.of_module);
    for module in it.modules.iter().filter(|module| is_listed && floor_of(module).is_none()) {
        faults.push(format!("`{name}::{module}` is not in the floor table: give it a row"));
    }
    for (file, module, source) in &it.files {
        let own = module.split("::").next().unwrap_or_default();
        // The root joins all modules: it is the roof of its crate.
        if own.is_empty() {
            continue;
        }
        for path in source.paths.iter().filter(|path| path.of_this_crate) {
            let at = format!("{}:{}", file.display(), path.line);
            let Some(other) = path.segments.first() else { continue };
            if other == own || path.segments == ["self"] {
                continue;
            }
            // The protocols have a folder each, and one floor together.
            let is_folder = |m: &str| it.folders.iter().any(|f| f == m);
            if name == "wire" && is_folder(own) && is_folder(other) && floor_of(own) == floor_of(other) {
                faults.push(format!("{at}: the protocol `{own}` names the protocol `{other}`"));
            }
            if !is_listed {
                continue;
            }
            if !it.modules.contains(other) {
                faults.push(format!("{at}: `{own}` names `crate::{other}`, which is no module: name the one it is of"));
            } else if let (Some(ours), Some(theirs)) = (floor_of(own), floor_of(other))
                && theirs >= ours
            {
                faults.push(format!(
                    "{at}: `{name}::{own}` (floor {ours}) imports `{name}::{other}` (floor {theirs}), which is not below it"
                ));
            }
        }
    }
}

fn reserved(name: &str, it: &Crate, faults: &mut Vec<String>) {
    if TOOLS.contains(&name) {
        return;
    }
    for (file, module, source) in &it.files {
        let module = module.split("::").next().unwrap_or_default();
        let here = [name.to_owned(), format!("{name}::{module}")];
        for rule in RESERVED.iter().filter(|rule| !here.iter().any(|h| rule.allowed.contains(&h.as_str()))) {
            for path in source.paths.iter().filter(|path| !path.of_this_crate) {
                let text = path.segments.join("::");
                let fits = |pattern: &&str| match pattern.strip_suffix('*') {
                    Some(beginning) => text.starts_with(beginning),
                    None => text == *pattern,
                };
                if rule.patterns.iter().any(fits) {
                    faults.push(format!("{}:{}: `{text}`: {}", file.display(), path.line, rule.what));
                }
            }
        }
    }
}

fn house(crates: &Path) -> House {
    let mut house = House::new();
    for entry in fs::read_dir(crates).unwrap() {
        let path = entry.unwrap().path();
        if path.join("Cargo.toml").exists() {
            house.insert(path.file_name().unwrap().to_string_lossy().into_owned(), read_crate(&path));
        }
    }
    house
}

#[test]
fn nothing_imports_from_its_own_floor_or_from_one_above() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
    let text = fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap();
    let table = table::read(&text).unwrap_or_else(|faults| panic!("{}", faults.join("\n")));
    let house = house(&root.join("crates"));
    let faults = faults(&house, &table);
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
    // A reader that sees nothing finds no fault either.
    let seen = |of: &str, from: &str, to: &str| {
        house[of].files.iter().any(|(_, module, source)| {
            module.starts_with(from)
                && source.paths.iter().any(|p| p.of_this_crate && p.segments.first().is_some_and(|s| s == to))
        })
    };
    assert!(seen("gateway", "relay", "client") && seen("gateway", "server", "relay") && seen("wire", "meter", "sse"));
    assert!(house["gateway"].dependencies.iter().any(|d| d == "wire"));
}

/// A house of two crates, `low` and `high`, with the files given for `high`.
#[track_caller]
fn check(rows: &str, files: &[(&str, &str)], want: &[&str]) {
    let mut house = House::new();
    house.insert("low".into(), Crate::default());
    let mut high = Crate { dependencies: dependencies("[dependencies]\nlow.workspace = true\n"), ..Crate::default() };
    for (module, text) in files {
        high.modules.push((*module).into());
        high.files.push((format!("{module}.rs").into(), (*module).into(), source::read(text, &[(*module).into()])));
    }
    house.insert("high".into(), high);
    let table = table::read(&format!("## Floors\n| 0 | `low` | |\n| 1 | `high` | |\n{rows}")).unwrap();
    let got = faults(&house, &table);
    assert_eq!(got.len(), want.len(), "{got:#?}");
    for (got, want) in got.iter().zip(want) {
        assert!(got.contains(want), "{got} does not contain {want}");
    }
}

#[test]
fn an_import_upwards_sideways_or_around_is_a_fault() {
    let rows = "| 1.0 | `high::a` | |\n| 1.1 | `high::b`, `high::c` | |";
    check(rows, &[("a", ""), ("b", "use crate::a;"), ("c", "fn f() { super::a::g() }")], &[]);
    check(rows, &[("a", "use super::b::X;"), ("b", ""), ("c", "")], &["a.rs:1: `high::a` (floor 0) imports `high::b`"]);
    check(rows, &[("a", ""), ("b", "use crate::c;"), ("c", "")], &["imports `high::c` (floor 1)"]);
    check(rows, &[("a", "use crate::Everything;"), ("b", ""), ("c", "")], &["`crate::Everything`, which is no module"]);
}

#[test]
fn the_table_lists_what_there_is() {
    check("| 1.0 | `high::a` | |", &[("a", ""), ("b", "")], &["`high::b` is not in the floor table"]);
    check("| 1.0 | `high::a`, `high::b` | |", &[("a", "")], &["`high::b` is in the floor table and does not exist"]);
    check("| 2 | `higher` | |", &[], &["`higher` is in the floor table and does not exist"]);
    let mut house = House::new();
    house.insert("low".into(), Crate { dependencies: vec!["high".into()], ..Crate::default() });
    house.insert("high".into(), Crate::default());
    house.insert("new".into(), Crate::default());
    let got = faults(&house, &table::read("## Floors\n| 0 | `low` | |\n| 1 | `high` | |").unwrap());
    assert!(got[0].contains("`low` (floor 0) depends on `high`") && got[1].contains("`new` is not in the floor table"));
}

#[test]
fn reserved_names_are_found_in_modules_that_may_not_say_them() {
    check("", &[("a", "fn f() { std::env::var_os(\"X\"); env::args(); }")], &["only `config` reads the environment"]);
    check(
        "",
        &[("a", "use tokio::net::TcpStream;"), ("b", "use std::net::{IpAddr, TcpListener};")],
        &["sockets", "sockets"],
    );
    check("", &[("a", "use rustls::ClientConfig; use hyper::client;")], &["TLS", "HTTP client"]);
    check("", &[("a", "use std::net::SocketAddr; fn f() { config.net.tls() }")], &[]);
}

#[test]
fn a_pure_crate_has_no_io_and_no_protocol_names_another() {
    let mut house = House::new();
    let file =
        |module: &str, text: &str| (PathBuf::from(module), module.to_owned(), source::read(text, &[module.to_owned()]));
    let wire = Crate {
        dependencies: dependencies(
            "[dependencies]\ntokio = \"1\"\n[dev-dependencies]\nhttp1 = \"1\"\n[target.'cfg(unix)'.dependencies]\nhttp1.workspace = true",
        ),
        files: vec![file("one", "use crate::two::X;"), file("two", "")],
        modules: vec!["one".into(), "two".into()],
        folders: vec!["one".into(), "two".into()],
    };
    house.insert("wire".into(), wire);
    let got = faults(&house, &table::read("## Floors\n| 0 | `wire` | |").unwrap());
    assert_eq!(got.len(), 3, "{got:#?}");
    assert!(got[0].contains("`tokio`") && got[1].contains("`http1`") && got[2].contains("the protocol `one` names"));
}
