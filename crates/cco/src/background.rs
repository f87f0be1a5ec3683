//! `cco daemon`: the gateway in the background is started, stopped, replaced and registered with the system.

use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use gateway::config::{CCO_CONFIG, CCO_HOME, Env};
use gateway::setup;
use gateway::system::{self, Other, Successor};
use tokio::time::Instant;

use crate::cli::daemon::{Daemon, DaemonCommand, DaemonLogs, Install, Start};
use crate::service::{Registered, Started};
use crate::source::{self, Failure, Source};
use crate::status::{self, Told};
use crate::{EXIT_BUSY, EXIT_CONFIG, folders, logs, service, term};

/// A start may open a large ledger.
const START: Duration = Duration::from_secs(60);
/// An end that takes longer is worth a word.
const SHORT: Duration = Duration::from_secs(1);
/// How long running streams may take, where the gateway does not say it.
const DRAIN: Duration = Duration::from_secs(30);
/// What the ledger may take after the last stream.
const LAST: Duration = Duration::from_secs(60);
/// How often something is looked at that says nothing by itself.
const LOOK: Duration = Duration::from_millis(50);
/// Lines of the program's log that are shown with a failed start, and if nothing else is said.
const LAST_LINES: usize = 10;
/// Lines of the program's log.
const LINES: u32 = 50;

/// Runs one of the commands.
pub(crate) fn run(options: &Daemon) -> ExitCode {
    let env = Env::process();
    let done = match &options.command {
        DaemonCommand::Start(options) => start(&env, options),
        DaemonCommand::Stop(options) => stop_within(&env, options.within),
        DaemonCommand::Restart => restart(&env),
        DaemonCommand::Status(options) => return status::run(options),
        DaemonCommand::Logs(options) if options.program => program_log(&env, options),
        DaemonCommand::Logs(options) => return logs::run(&options.logs),
        DaemonCommand::Install(options) => install(&env, options),
        DaemonCommand::Uninstall => uninstall(&env),
    };
    source::ended(done)
}

fn told(env: &Env) -> Option<Told> {
    Told::by(&mut Source::gateway(env).ok()?).ok()
}

/// Who runs, and where everything is.
fn introduce(what: &str, told: &Told) {
    let pid = told.pid().map_or_else(|| "unknown".into(), |pid| pid.to_string());
    term::line(format_args!("{what}: PID {pid}, http://{}", told.address()));
    term::line(format_args!("log:    {}", told.log()));
    term::line(format_args!("config: {}", told.file()));
}

pub(crate) fn start(env: &Env, options: &Start) -> Result<(), Failure> {
    if let Some(told) = told(env) {
        return settled(env, options, "already running", &told);
    }
    if options.config.is_none() && is_managed(env) && systemctl(&["start", service::UNIT]).is_ok() {
        return await_start(env, options);
    }
    let home = source::home(env)?;
    let home = std::path::absolute(&home).unwrap_or(home);
    let log = setup::log_path(&home);
    let before = std::fs::metadata(&log).map_or(0, |about| about.len());
    let program = std::env::current_exe().map_err(|why| Failure::new("this program cannot be found").because(why))?;
    let mut command = Command::new(program);
    command.args(["serve", "--log-file", "--parent"]).env(CCO_HOME.names[0], &home);
    let named = options.config.clone().or_else(|| env.read(&CCO_CONFIG).map(PathBuf::from));
    if let Some(file) = named {
        command.arg("--config").arg(std::path::absolute(&file).unwrap_or(file));
    }
    // A folder that somebody wants to unmount or remove must not be ours.
    command.current_dir("/");
    let successor =
        Successor::start(&mut command, &[]).map_err(|why| Failure::new("no process can be started").because(why))?;
    match successor.ready(START) {
        Ok(_) => {
            let told =
                told(env).ok_or_else(|| Failure::new("the gateway was started, and does not answer any more"))?;
            introduce("started", &told);
            Ok(())
        }
        Err(dead) => {
            let code = dead.status.and_then(|status| status.code());
            // Somebody else was faster.
            if code == Some(i32::from(EXIT_BUSY)) {
                return await_start(env, options);
            }
            term::report(match dead.status {
                Some(_) => "error: the gateway did not start",
                None => "error: the gateway did not become ready in time and was ended",
            });
            let lines = last_lines(&log, before);
            if !lines.is_empty() {
                term::report(format_args!("note: the last lines of {}:", log.display()));
                lines.iter().for_each(|line| term::report(format_args!("  {line}")));
            }
            // Last: it ends with what helps.
            match dead.said.trim_end() {
                "" => term::report("help: `cco serve` shows on the terminal how far it comes"),
                said => term::report(said),
            }
            let code = code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
            Err(Failure::told(code.max(1)))
        }
    }
}

/// One that was started by somebody else is there: it may have been started with another configuration.
fn settled(env: &Env, options: &Start, what: &str, told: &Told) -> Result<(), Failure> {
    let wanted = options.config.clone().or_else(|| env.read(&CCO_CONFIG).map(PathBuf::from));
    let real = |path: &Path| path.canonicalize().or_else(|_| std::path::absolute(path)).ok();
    let Some(wanted) = wanted.filter(|wanted| real(wanted) != real(Path::new(told.file()))) else {
        introduce(what, told);
        return Ok(());
    };
    let option = if options.config.is_some() {
        format!(" --config {}", system::quoted(&std::path::absolute(&wanted).unwrap_or(wanted)))
    } else {
        String::new()
    };
    let help = match is_managed(env) {
        true => format!("`cco daemon install{option}` registers it with the other one"),
        false => format!("`cco daemon stop && cco daemon start{option}` lets the other one come into use"),
    };
    let pid = told.pid().map_or_else(|| "unknown".into(), |pid| pid.to_string());
    let found = format!("PID {pid} at http://{} reads {}", told.address(), told.file());
    if options.config.is_some() {
        return Err(Failure::new("a gateway runs already, with another configuration").because(found).help(help));
    }
    introduce(what, told);
    term::warning("it does not read the file that `CCO_CONFIG` names", Some(&help));
    Ok(())
}

/// Waits for one that somebody else starts.
fn await_start(env: &Env, options: &Start) -> Result<(), Failure> {
    let until = Instant::now() + START;
    while Instant::now() < until {
        if let Some(told) = told(env) {
            return settled(env, options, "running", &told);
        }
        std::thread::park_timeout(LOOK);
    }
    Err(Failure::new("another process of this home holds the place of the gateway, and does not answer")
        .help("`cco daemon logs --program` may say why"))
}

/// What was written to the log since it had this length.
fn last_lines(log: &Path, before: u64) -> Vec<String> {
    let Ok(mut file) = std::fs::File::open(log) else { return Vec::new() };
    let _ = file.seek(SeekFrom::Start(before));
    let mut text = Vec::new();
    let _ = file.take(1 << 20).read_to_end(&mut text);
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().map(|line| crate::text::line(line).into_owned()).collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].to_vec()
}

/// Stops the gateway of this home, and waits for its end.
pub(crate) fn stop(env: &Env) -> Result<(), Failure> {
    stop_within(env, None)
}

/// The same, where running streams may finish for so many seconds.
fn stop_within(env: &Env, within: Option<u32>) -> Result<(), Failure> {
    let Ok(mut gateway) = Source::gateway(env) else {
        term::line("not running");
        return Ok(());
    };
    let asked = within.map(|secs| format!("?within={secs}")).unwrap_or_default();
    let told = gateway.change(&format!("/gateway/drain{asked}"))?;
    let pid = told["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
    let Some(pid) = pid else { return Err(Failure::new("the gateway does not say which process it is")) };
    // Nobody is signalled: the gateway ends by itself, and is only looked at.
    let process = Other::of(pid);
    if !process.ends(SHORT) {
        let drain = told["within_secs"].as_f64().and_then(|secs| Duration::try_from_secs_f64(secs).ok());
        let drain = within.map(|secs| Duration::from_secs(secs.into())).or(drain);
        match within {
            Some(secs) => term::note(format_args!("running streams may finish, for {secs} s")),
            None => term::note("running streams may finish (`server.drainSecs`)"),
        }
        if !process.ends(drain.unwrap_or(DRAIN) + LAST) {
            let help = format!("`kill {pid}` ends it at once; `cco daemon logs --program` may say what it waits for");
            return Err(Failure::new(format!("the gateway was told to stop and has not ended: PID {pid}")).help(help));
        }
    }
    term::line(format_args!("stopped: PID {pid}"));
    Ok(())
}

fn restart(env: &Env) -> Result<(), Failure> {
    let Ok(mut gateway) = Source::gateway(env) else { return start(env, &Start { config: None }) };
    let old = gateway.json("/gateway/health")?["process"]["pid"].clone();
    let new = gateway.change("/gateway/restart").map_err(|why| why.coded(2, EXIT_CONFIG))?;
    let told = told(env).ok_or_else(|| Failure::new("the new process does not answer any more"))?;
    introduce("restarted", &told);
    if new["pid"] != old {
        term::line(format_args!("PID {old} ends when its last stream has (`server.restartDrainSecs`)"));
    }
    Ok(())
}

/// The program's own log, the last lines of it and what follows.
fn program_log(env: &Env, options: &DaemonLogs) -> Result<(), Failure> {
    let log = match told(env) {
        Some(told) => PathBuf::from(told.log()),
        None => setup::log_path(&source::home(env)?),
    };
    let cannot = |why| {
        let failure = Failure::new(format!("`{}` cannot be read", log.display())).because(why);
        failure.help("`cco daemon start` and a service write it; `cco serve` in a terminal writes there")
    };
    let file = std::fs::File::open(&log).map_err(cannot)?;
    let (mut reader, mut lines) = (BufReader::new(file), std::collections::VecDeque::new());
    let most = options.logs.look.limit.unwrap_or(LINES) as usize;
    let mut line = String::new();
    while reader.read_line(&mut line).map_err(cannot)? > 0 {
        lines.push_back(crate::text::line(line.trim_end()).into_owned());
        if lines.len() > most {
            lines.pop_front();
        }
        line.clear();
    }
    if !lines.iter().all(term::heard) || !options.logs.follow {
        return Ok(());
    }
    loop {
        match reader.read_line(&mut line).map_err(cannot)? {
            0 => {
                // A full file has given way to a new one.
                if !system::is_at(reader.get_ref(), &log)
                    && let Ok(file) = std::fs::File::open(&log)
                {
                    reader = BufReader::new(file);
                }
                std::thread::park_timeout(LOOK * 4);
            }
            _ if !line.ends_with('\n') => {}
            _ => {
                if !term::heard(crate::text::line(line.trim_end())) {
                    return Ok(());
                }
                line.clear();
            }
        }
    }
}

/// Whether the system's manager starts the gateway of this home.
fn is_managed(env: &Env) -> bool {
    !cfg!(target_os = "macos") && matches!(service::registered(env), Registered::Ours(_))
}

/// Runs systemctl for the user, silently.
fn systemctl(args: &[&str]) -> Result<(), Failure> {
    manager("systemctl", &[&["--user"], args].concat())
}

fn manager(program: &str, args: &[&str]) -> Result<(), Failure> {
    let shown = format!("{program} {}", args.join(" "));
    let failed = |why: String| Failure::new(format!("`{shown}` failed")).because(why);
    let ran = Command::new(program).args(args).output().map_err(|why| failed(why.to_string()))?;
    if ran.status.success() {
        return Ok(());
    }
    Err(failed(crate::text::lines(String::from_utf8_lossy(&ran.stderr).trim()).into_owned()))
}

pub(crate) fn install(env: &Env, options: &Install) -> Result<(), Failure> {
    let home = source::home(env)?;
    let home = std::path::absolute(&home).unwrap_or(home);
    let program = std::env::current_exe().map_err(|why| Failure::new("this program cannot be found").because(why))?;
    let config = options.config.clone().or_else(|| env.read(&CCO_CONFIG).map(PathBuf::from));
    let config = config.map(|file| std::path::absolute(&file).unwrap_or(file));
    let text = service::text(Started { program: &program, home: &home, config: config.as_deref() });
    if options.print {
        term::part(text);
        return Ok(());
    }
    let lost = || Failure::new("`HOME` is not set").help("`export HOME=FOLDER` says which folder is the user's");
    let file = service::file(env).ok_or_else(lost)?;
    if let Some(why) = service::registered(env).of_another() {
        let help = "one gateway can start with the login: `cco --home FOLDER daemon uninstall` unregisters that one";
        return Err(Failure::new("nothing was installed").because(why).help(help));
    }
    // Before anything is written or stopped: over SSH, under `su`, in a container there may be no manager.
    if !cfg!(target_os = "macos") {
        systemctl(&["show-environment"]).map_err(|why| {
            let help = "`cco daemon start` starts it for now; in a session of your own (`machinectl shell` in place of \
                        `su`, `loginctl enable-linger` for one that lasts) the same command installs it";
            Failure::new("nothing was installed: the user's systemd does not answer").because(why.whole()).help(help)
        })?;
    }
    let cannot = |why: std::io::Error| Failure::new(format!("`{}` cannot be written", file.display())).because(why);
    if let Some(folder) = file.parent() {
        let made = folders::missing(folder);
        std::fs::create_dir_all(folder).map_err(cannot)?;
        // They go with the file. Who cannot remember that leaves empty folders behind, no more.
        if !made.is_empty() && system::folder(&home).is_ok() {
            let made: Vec<_> = made.iter().map(|folder| folder.display().to_string()).collect();
            let _ = system::replace(&made_for_service(&home), made.join("\n").as_bytes());
        }
    }
    std::fs::write(&file, text).map_err(cannot)?;
    term::line(format_args!("written: {}", file.display()));
    // One that was started by hand gives way: from now on the system looks after it.
    if Source::gateway(env).is_ok() {
        stop(env)?;
    }
    let started = if cfg!(target_os = "macos") {
        manager("launchctl", &["load", "-w", &file.display().to_string()])
    } else {
        systemctl(&["daemon-reload"]).and_then(|()| systemctl(&["enable", "--now", service::UNIT]))
    };
    started.map_err(|why| why.help("the file stays; `cco daemon uninstall` removes it"))?;
    await_start(env, &Start { config })?;
    term::line("it starts with every login from now on; `cco daemon uninstall` undoes that");
    if !cfg!(target_os = "macos") {
        term::note("`loginctl enable-linger` lets it start with the system, before anybody has logged in");
    }
    Ok(())
}

/// Unregisters it with the system.
pub(crate) fn uninstall(env: &Env) -> Result<(), Failure> {
    let registered = service::registered(env);
    if let Some(why) = registered.of_another() {
        let help = "`cco --home FOLDER daemon uninstall` unregisters that one";
        return Err(Failure::new("the gateway of this home is not installed").because(why).help(help));
    }
    let Registered::Ours(file) = registered else {
        term::line("not installed");
        return Ok(());
    };
    let stopped = if cfg!(target_os = "macos") {
        manager("launchctl", &["unload", "-w", &file.display().to_string()])
    } else {
        systemctl(&["disable", "--now", service::UNIT])
    };
    std::fs::remove_file(&file)
        .map_err(|why| Failure::new(format!("`{}` cannot be removed", file.display())).because(why))?;
    term::line(format_args!("removed: {}", file.display()));
    if !cfg!(target_os = "macos") {
        // A manager that does not run has nothing to forget.
        let _ = systemctl(&["daemon-reload"]);
    }
    if let Ok(home) = source::home(env)
        && let Ok(made) = std::fs::read_to_string(made_for_service(&home))
    {
        folders::remove(&made.lines().map(PathBuf::from).collect::<Vec<_>>());
        let _ = std::fs::remove_file(made_for_service(&home));
    }
    stopped
}

/// Which folders were made for the file of the system's manager.
fn made_for_service(home: &Path) -> PathBuf {
    home.join("setup.service")
}
