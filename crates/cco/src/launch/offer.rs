//! Where no gateway answers, a person at a terminal is asked whether one is to be started.

use std::process::{Command, Stdio};

use gateway::config::Env;

use super::client::Client;
use super::found::Found;
use crate::cli::daemon::{Install, Start};
use crate::service::{self, Registered};
use crate::source::Failure;
use crate::{background, term};

/// The gateway that answers; where none does, the one that was agreed to.
pub(super) fn gateway(env: &Env, client: Client) -> Result<Found, Failure> {
    let absent = match Found::gateway(env, client) {
        // What a start says is on stdout, which must not be somebody else's.
        Err(absent) if absent.is_unheard() && term::stdout_is_terminal() => absent,
        done => return done,
    };
    let with_login = can_install(env);
    let question = if with_login {
        "No gateway is running. Start one now, and with every login (`cco daemon install`)?"
    } else {
        "No gateway is running. Start one now (`cco daemon start`)?"
    };
    if term::confirmed(question) != Some(true) {
        return Err(absent);
    }
    if with_login {
        background::install(env, &Install { config: None, print: false })?;
    } else {
        background::start(env, &Start { config: None })?;
    }
    Found::gateway(env, client)
}

/// Whether the system's manager can be told to start one, and is not yet.
fn can_install(env: &Env) -> bool {
    if !matches!(service::registered(env), Registered::Nothing) {
        return false;
    }
    if cfg!(target_os = "macos") {
        return true;
    }
    let mut asked = Command::new("systemctl");
    asked.args(["--user", "show-environment"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    asked.status().is_ok_and(|status| status.success())
}
