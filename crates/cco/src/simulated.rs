//! Gateway and simulator in this process, for the demonstration and for commands that need no provider.

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;

use gateway::client::Phases;
use gateway::config::{self, Env, Paths};
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
        let home = tempfile::tempdir()?;
        let stop = CancellationToken::new();
        let (simulator, sim_thread) = simulator(stop.clone())?;
        let folder = home.path().to_str().ok_or("the temporary folder's name is not UTF-8")?;
        let env = Env::fixed([("CCO_HOME", folder)]);
        let text = serde_json::json!({ "providers": { "anthropic": {
            "providerType": "anthropic", "baseUrl": format!("http://{simulator}"), "apiKeyRef": ""
        } }, "server": { "drainSecs": DRAIN_SECS } });
        let (config, _) =
            config::parse(&text.to_string(), &Paths::default()).map_err(|faults| format!("{faults:?}"))?;
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
            max_connections: CONNECTIONS,
        };
        let gateway_thread = std::thread::Builder::new().name("gateway".into()).spawn(move || server.run())?;
        Ok(Self { gateway, simulator, home, counters, phases, stop, threads: [gateway_thread, sim_thread] })
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

fn simulator(stop: CancellationToken) -> Result<(SocketAddr, Running), Failed> {
    let sim = Sim::new(SimConfig { says_so: true, ..SimConfig::default() })?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let listener = runtime.block_on(sim.bind())?;
    let address = listener.local_addr()?;
    let thread = std::thread::Builder::new().name("simulator".into()).spawn(move || {
        runtime.block_on(sim.serve(listener, stop));
        Ok(())
    })?;
    Ok((address, thread))
}
