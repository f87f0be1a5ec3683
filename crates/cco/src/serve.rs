//! `cco serve`: the gateway in the foreground.

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;

use gateway::advice;
use gateway::client::Phases;
use gateway::config::Env;
use gateway::daemon::Server;
use gateway::gateway::Current;
use gateway::net::{self, OwnSocket};
use gateway::reload::Reloader;
use gateway::setup;
use tracing::{info, warn};

use crate::{EXIT_CONFIG, VERSION, cli, credentials, load, logging, term};

/// Descriptors that are not client connections' or their upstreams': files, log, listener.
const RESERVED_FDS: u64 = 64;

/// Serves until it is told to stop.
pub(crate) fn run(options: &cli::Serve) -> ExitCode {
    let env = Env::process();
    let loaded = match load::configuration(options.config.as_deref(), &env) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let env = credentials::with_passphrase(env);
    let listen = options.listen.unwrap_or(loaded.config.server.listen);
    let guarded = loaded.config.server.allow_remote && loaded.config.server.token.is_some();
    if !listen.ip().is_loopback() && !guarded {
        let help = "set `server.allowRemote` and `server.token` in the configuration first";
        term::error(format!("{listen} can be reached from other machines"), None, Some(help));
        return ExitCode::from(EXIT_CONFIG);
    }
    let faults = setup::faults(&loaded.config, &env);
    if !faults.is_empty() {
        let file = loaded.file.as_ref().map(|file| format!("{}: ", file.display())).unwrap_or_default();
        let faults: String = faults.iter().map(|fault| format!("\n{file}{fault}")).collect();
        term::error(format!("the configuration cannot be used{faults}"), None, Some("correct it and start again"));
        return ExitCode::from(EXIT_CONFIG);
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
            term::error("the configuration cannot be used", Some(&error), None);
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let log = logging::start(&loaded.config.log);
    gateway.counters.log_dropped.set(log.dropped());
    logging::notes(&loaded.notes);
    logging::notes(&notes);
    logging::notes(&advice::models(&loaded.config, advice::today()));
    let listener = match net::listen(listen) {
        Ok(listener) => listener,
        Err(error) => {
            let (cause, help) = cannot_listen(listen, &error);
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
    // Set once, here.
    let _ = gateway.counters.listening.set(bound);
    let current = Current::new(gateway);
    let server = Server {
        listener,
        own: own_socket(&env),
        current: current.clone(),
        phases: Phases::default(),
        workers: options.workers.map_or_else(default_workers, usize::from),
        max_connections: affordable,
    };
    if let Err(why) = Reloader::new(current, options.config.as_deref(), &env, &loaded).start() {
        warn!("changes of the configuration are not noticed: no thread can be started: {why}");
    }
    let (file, workers) = (loaded.file.as_ref().map(|file| file.display().to_string()), server.workers);
    let ready = || {
        term::line(format_args!("listening on http://{bound}"));
        info!(version = VERSION, address = %bound, workers, config = file.as_deref().unwrap_or("defaults"), "serving");
    };
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

/// Where commands of our own user ask. Without it they read the files.
fn own_socket(env: &Env) -> Option<OwnSocket> {
    let path = setup::own_socket(&env.home()?);
    OwnSocket::bind(&path)
        .inspect_err(|why| warn!("commands cannot ask this gateway over `{}`: {why}", path.display()))
        .ok()
}

fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn cannot_listen(address: SocketAddr, error: &io::Error) -> (String, String) {
    if error.kind() == io::ErrorKind::AddrInUse {
        let holder = net::port_holder(address).unwrap_or_else(|| "another program".into());
        return (format!("the port is held by {holder}"), "stop it, or choose another port with --listen".into());
    }
    (error.to_string(), "choose another address with --listen".into())
}
