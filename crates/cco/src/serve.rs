//! `cco serve`: the gateway in the foreground.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use gateway::advice;
use gateway::client::Phases;
use gateway::config::{Env, NOTIFY_SOCKET};
use gateway::daemon::Server;
use gateway::gateway::Current;
use gateway::net::{self, Listener, OwnSocket};
use gateway::reload::Reloader;
use gateway::setup;
use gateway::system::{self, Lock, Parent, Refusal};
use tracing::{info, warn};

use crate::memory::GivesBack;
use crate::{EXIT_BUSY, EXIT_CONFIG, VERSION, cli, credentials, load, logging, successor, term};

/// Descriptors that are not client connections' or their upstreams': files, log, listener.
const RESERVED_FDS: u64 = 64;

/// Serves until it is told to stop.
pub(crate) fn run(options: &cli::Serve) -> ExitCode {
    let (parent, mut inherited) = match options.parent.then(Inherited::take).transpose() {
        Ok(taken) => taken.unzip(),
        Err(why) => {
            term::error("whoever started this process has gone", Some(&why), Some("use `cco daemon start`"));
            return ExitCode::FAILURE;
        }
    };
    let env = Env::process();
    let loaded = match load::configuration(options.config.as_deref(), &env) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let env = credentials::with_passphrase(env);
    let listen = options.listen.unwrap_or(loaded.config.server.listen);
    let guarded = loaded.config.server.allow_remote && loaded.config.server.token.is_some();
    if !listen.ip().is_loopback() && !guarded {
        let help = "`cco config set server.token env:CCO_TOKEN`, then `cco config set server.allowRemote true`";
        term::error(format!("{listen} can be reached from other machines"), None, Some(help));
        return ExitCode::from(EXIT_CONFIG);
    }
    let faults = setup::faults(&loaded.config, &env);
    if !faults.is_empty() {
        let file = loaded.file.as_ref().map(|file| format!("{}: ", file.display())).unwrap_or_default();
        let faults: String = faults.iter().map(|fault| format!("\n{file}{fault}")).collect();
        let help = "correct it, or what it names; `cco config validate` looks again";
        term::error(format!("the configuration cannot be used{faults}"), None, Some(help));
        return ExitCode::from(EXIT_CONFIG);
    }
    let place = match place(&env, &mut inherited, options.log_file) {
        Ok(place) => place,
        Err(code) => return code,
    };
    // Before anything that has something to say of itself: the ledger's threads do from their first moment.
    let file = options.log_file.then(|| env.home().map(|home| setup::log_path(&home))).flatten();
    if let Some(folder) = file.as_deref().and_then(Path::parent)
        && let Err(why) = system::folder(folder)
    {
        unusable(folder, &why);
        return ExitCode::FAILURE;
    }
    let log = logging::start(&loaded.config.log, file.as_deref());
    if file.is_some() {
        // Nobody reads stderr any more.
        std::panic::set_hook(Box::new(|panic| tracing::error!(target: "cco::panic", "{panic}")));
    }
    let made = setup::dialer(&loaded.config, &env).and_then(|dialer| {
        let (recorder, mut notes) = setup::recorder(&loaded.config, &env)?;
        let (gateway, more) = setup::gateway(&loaded.config, &env, VERSION, dialer, recorder)?;
        notes.extend(more);
        Ok((gateway, notes))
    });
    let (gateway, notes) = match made {
        Ok(made) => made,
        Err(error) => {
            let help = "`cco doctor` looks at everything that it needs";
            term::error("the configuration cannot be used", Some(&error), Some(help));
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    gateway.counters.log_dropped.set(log.dropped());
    logging::notes(&loaded.notes);
    logging::notes(&notes);
    logging::notes(&advice::models(&loaded.config, advice::today()));
    let handed_over = inherited.as_mut().and_then(|inherited| inherited.listener(listen));
    let is_heir = inherited.is_some_and(|inherited| inherited.is_heir);
    let listener = match handed_over.map_or_else(|| net::listen(listen), Ok) {
        Ok(listener) => listener,
        Err(error) => {
            let (cause, help) = cannot_listen(listen, &error, options.listen.is_some());
            term::error(format!("cannot listen on {listen}"), Some(&cause), Some(&help));
            return ExitCode::FAILURE;
        }
    };
    let descriptors = net::raise_nofile_limit();
    let affordable = usize::try_from(descriptors.saturating_sub(RESERVED_FDS) / 2).unwrap_or(usize::MAX).max(1);
    let wanted = loaded.config.server.max_connections;
    if affordable < wanted {
        info!(
            wanted,
            used = affordable,
            "fewer connections than `server.maxConnections`: the limit of open files is {descriptors}"
        );
    }
    let bound = listener.local_addr().unwrap_or(listen);
    let current = Current::new(gateway);
    let process = current.get().process.clone();
    let _ = process.address.set(bound);
    if let Some(file) = file {
        let _ = process.log.set(file);
        // Only a service has a successor: who serves on a terminal wants to see it end.
        if let Err(why) = successor::raise(&current, &listener, place.as_ref()) {
            warn!("this process cannot be replaced by another one: {why}");
        }
    }
    let server = Server {
        listener,
        own: own_socket(&env, is_heir),
        place,
        current: current.clone(),
        phases: Phases::default(),
        workers: options.workers.map_or_else(default_workers, usize::from),
        max_connections: affordable,
    };
    let reloader = Reloader::new(current, options.config.as_deref(), &env, &loaded).with_log(log.changed());
    if let Err(why) = reloader.start() {
        warn!("changes of the configuration are not noticed: no thread can be started: {why}");
    }
    let (file, workers) = (loaded.file.as_ref().map(|file| file.display().to_string()), server.workers);
    let ready = || {
        term::line(format_args!("listening on http://{bound}"));
        info!(version = VERSION, address = %bound, workers, config = file.as_deref().unwrap_or("defaults"), "serving");
        if let Some(manager) = env.read(&NOTIFY_SOCKET) {
            let message = format!("MAINPID={}\nREADY=1\n", std::process::id());
            if let Err(why) = system::notify(&manager, &message) {
                warn!("the system's manager cannot be told that the gateway is ready: {why}");
            }
        }
        if let Some(parent) = parent {
            parent.tell(&serde_json::json!({ "pid": std::process::id(), "address": bound }).to_string());
        }
    };
    let _gives_back = GivesBack::start();
    match server.run_until_signalled(ready) {
        Ok(()) => {
            info!("stopped");
            ExitCode::SUCCESS
        }
        Err(error) => {
            term::error("the gateway failed", Some(&error), None);
            ExitCode::FAILURE
        }
    }
}

/// What a process got from the one that started it.
struct Inherited {
    /// Listener and lock of a gateway whose place this one takes.
    files: Vec<OwnedFd>,
    is_heir: bool,
}

impl Inherited {
    fn take() -> io::Result<(Parent, Self)> {
        system::leave_session();
        let (parent, files) = Parent::of_stdin()?;
        let is_heir = !files.is_empty();
        Ok((parent, Self { files, is_heir }))
    }

    /// The listener, unless another address is wanted by now.
    fn listener(&mut self, wanted: SocketAddr) -> Option<Listener> {
        let listener = Listener::from(self.files.drain(..).next()?);
        let address = listener.local_addr().ok()?;
        (wanted.port() == 0 || wanted == address).then_some(listener)
    }

    fn lock(&mut self) -> Option<Lock> {
        (self.files.len() > 1).then(|| Lock::handed_over(self.files.remove(1)))
    }
}

/// The place of the gateway of this home: there is one. Who only serves in the foreground may do without it.
fn place(env: &Env, inherited: &mut Option<Inherited>, is_service: bool) -> Result<Option<Arc<Lock>>, ExitCode> {
    if let Some(lock) = inherited.as_mut().and_then(Inherited::lock) {
        return Ok(Some(Arc::new(lock)));
    }
    let Some(home) = env.home() else { return Ok(None) };
    let locked = system::folder(&home).and_then(|()| Ok(system::try_lock(&setup::lock_path(&home))?));
    match locked {
        Ok(Some(lock)) => Ok(Some(Arc::new(lock))),
        _ if !is_service => Ok(None),
        Ok(None) => {
            let help = "`cco status` shows it";
            term::error(format!("another gateway serves `{}` already", home.display()), None, Some(help));
            Err(ExitCode::from(EXIT_BUSY))
        }
        Err(why) => {
            unusable(&home, &why);
            Err(ExitCode::FAILURE)
        }
    }
}

/// Says why a folder cannot be ours, and what helps.
fn unusable(folder: &Path, why: &Refusal) {
    let repair = if let Refusal::Unsafe(flaw) = why { flaw.repair(folder) } else { None };
    let help = match repair {
        Some(command) => format!("`{command}`, or name a folder of your own: `cco --home FOLDER …`"),
        None => "`cco --home FOLDER …`, or `CCO_HOME`, names a folder of your own".into(),
    };
    term::error(format!("`{}` cannot be used", folder.display()), Some(why), Some(&help));
}

/// Where commands of our own user ask. Without it they read the files.
fn own_socket(env: &Env, is_heir: bool) -> Option<OwnSocket> {
    let path = setup::own_socket(&env.home()?);
    let bind = if is_heir { OwnSocket::take_over } else { OwnSocket::bind };
    bind(&path).inspect_err(|why| warn!("commands cannot ask this gateway over `{}`: {why}", path.display())).ok()
}

fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn cannot_listen(address: SocketAddr, error: &io::Error, was_typed: bool) -> (String, String) {
    let other = match (was_typed, error.kind() == io::ErrorKind::AddrInUse) {
        (true, _) => "`--listen 127.0.0.1:0` takes any free port".to_owned(),
        (false, true) => format!("`cco config set server.listen {}:PORT` chooses another port", host(address)),
        (false, false) => "`cco config set server.listen --default` goes back to 127.0.0.1:54548".to_owned(),
    };
    if error.kind() == io::ErrorKind::AddrInUse {
        let holder = net::port_holder(address).unwrap_or_else(|| "another program".into());
        return (format!("the port is held by {holder}"), format!("stop it, or {other}"));
    }
    (error.to_string(), other)
}

/// The address without its port, as it is written before one.
fn host(address: SocketAddr) -> String {
    match address {
        SocketAddr::V4(address) => address.ip().to_string(),
        SocketAddr::V6(address) => format!("[{}]", address.ip()),
    }
}
