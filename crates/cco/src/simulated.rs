//! Gateway and simulator in this process, for the demonstration and for commands that need no provider.

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;

use gateway::client::Phases;
use gateway::config::{self, Config, Env, Paths};
use gateway::daemon::Server;
use gateway::gateway::{Counters, Current};
use gateway::{net, setup};
use sim::{Sim, SimConfig};
use tokio_util::sync::CancellationToken;

use crate::VERSION;

/// Connections that the one user may have.
const CONNECTIONS: usize = 64;
/// How long the last answers may finish.
const DRAIN_SECS: u64 = 5;

type Failed = Box<dyn Error + Send + Sync>;
type Running = JoinHandle<std::io::Result<()>>;

/// Both, running.
pub(crate) struct Simulated {
    /// Where the gateway answers.
    pub(crate) gateway: SocketAddr,
    /// Where the simulator answers.
    pub(crate) simulator: SocketAddr,
    /// The simulator itself.
    pub(crate) sim: Arc<Sim>,
    /// Its folder, gone when this goes.
    pub(crate) home: tempfile::TempDir,
    counters: Arc<Counters>,
    phases: Phases,
    stop: CancellationToken,
    threads: [Running; 2],
}

impl Simulated {
    /// Starts both on free ports of loopback, with a folder of their own.
    pub(crate) fn start() -> Result<Self, Failed> {
        let configured = |simulator: SocketAddr| {
            let text = serde_json::json!({ "providers": { "anthropic": {
                "providerType": "anthropic", "baseUrl": format!("http://{simulator}"), "apiKeyRef": ""
            } }, "server": { "drainSecs": DRAIN_SECS } });
            let (config, _) =
                config::parse(&text.to_string(), &Paths::default()).map_err(|faults| format!("{faults:?}"))?;
            Ok(config)
        };
        Self::with(configured, |folder| Env::fixed([("CCO_HOME", folder)]), 0)
    }

    /// The same with a configuration and an environment that know where the simulator and the folder are, and with room
    /// for so many more connections.
    pub(crate) fn with(
        configured: impl FnOnce(SocketAddr) -> Result<Config, Failed>,
        env: impl FnOnce(&str) -> Env,
        room: usize,
    ) -> Result<Self, Failed> {
        let home = tempfile::tempdir()?;
        let stop = CancellationToken::new();
        let (sim, simulator, sim_thread) = simulator(stop.clone(), room)?;
        let env = env(home.path().to_str().ok_or("the temporary folder's name is not UTF-8")?);
        let config = configured(simulator)?;
        let (state, _) =
            setup::gateway(&config, &env, VERSION, setup::dialer(&config, &env)?, setup::recorder(&config, &env)?.0)?;
        let listener = net::listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let (gateway, phases, counters) = (listener.local_addr()?, Phases::default(), state.counters.clone());
        let server = Server {
            listener,
            own: None,
            place: None,
            current: Current::new(state),
            phases: phases.clone(),
            workers: 1,
            max_connections: CONNECTIONS + room,
        };
        let gateway_thread = std::thread::Builder::new().name("gateway".into()).spawn(move || server.run())?;
        Ok(Self { gateway, simulator, sim, home, counters, phases, stop, threads: [gateway_thread, sim_thread] })
    }

    /// Ends both; the number of requests that were answered.
    pub(crate) fn stop(self) -> Result<u64, Failed> {
        self.phases.drain.cancel();
        self.stop.cancel();
        for thread in self.threads {
            thread.join().map_err(|_| "a server thread panicked")??;
        }
        Ok(self.counters.totals().0)
    }
}

fn simulator(stop: CancellationToken, room: usize) -> Result<(Arc<Sim>, SocketAddr, Running), Failed> {
    let default = SimConfig::default();
    let sim = Sim::new(SimConfig { says_so: true, max_connections: default.max_connections + room, ..default })?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let listener = runtime.block_on(sim.bind())?;
    let (address, served) = (listener.local_addr()?, sim.clone());
    let thread = std::thread::Builder::new().name("simulator".into()).spawn(move || {
        runtime.block_on(served.serve(listener, stop));
        Ok(())
    })?;
    Ok((sim, address, thread))
}
