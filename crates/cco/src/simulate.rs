//! `cco simulate`: a provider that needs no key.

use std::process::ExitCode;

use sim::{Script, Sim, SimConfig};
use tokio_util::sync::CancellationToken;

use crate::{cli, term};

/// Serves until it is told to stop.
pub(crate) fn run(options: &cli::Simulate) -> ExitCode {
    let script = match options.script.as_deref().map(str::parse::<Script>).transpose() {
        Ok(script) => script.unwrap_or_default(),
        Err(error) => {
            term::error("the script cannot be read", Some(&error), Some("docs/simulator.md lists what can be written"));
            return ExitCode::from(2);
        }
    };
    let config = SimConfig {
        listen: options.listen,
        journal: options.journal.clone(),
        journal_bodies: options.journal_bodies,
        journal_secrets: options.journal_secrets,
        transcripts: options.transcripts.clone(),
        default: script,
        default_for: options.script_times,
        require_key: options.require_key,
        keys: options.keys.clone(),
        known_models_only: options.known_models,
        says_so: !options.unmarked,
        origin: options.origin.clone(),
        ..SimConfig::default()
    };
    let served = tokio::runtime::Builder::new_current_thread().enable_all().build().and_then(|runtime| {
        runtime.block_on(async {
            let sim = Sim::new(config)?;
            let listener = sim.bind().await?;
            term::line(format_args!("simulator listening on http://{}", listener.local_addr()?));
            let stop = CancellationToken::new();
            let serving = sim.serve(listener, stop.clone());
            let mut serving = std::pin::pin!(serving);
            tokio::select! {
                () = &mut serving => {}
                signalled = gateway::daemon::signalled() => {
                    signalled?;
                    stop.cancel();
                    serving.await;
                }
            }
            Ok(())
        })
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            term::error(format!("the simulator cannot serve on {}", options.listen), Some(&error), None);
            ExitCode::FAILURE
        }
    }
}
