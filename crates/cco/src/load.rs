//! The configuration of a command, or what is wrong with it.

use std::path::Path;
use std::process::ExitCode;

use gateway::config::{self, Env, LoadError, Loaded};

use crate::{EXIT_CONFIG, term};

/// Reads it; where that fails, says why and gives the exit code.
pub(crate) fn configuration(file: Option<&Path>, env: &Env) -> Result<Loaded, ExitCode> {
    match config::load(file, env) {
        Ok(loaded) => return Ok(loaded),
        Err(LoadError::Faulty(faults)) => {
            let count = faults.faults.len();
            let what = if count == 1 {
                "the configuration has a fault".into()
            } else {
                format!("the configuration has {count} faults")
            };
            term::error(format!("{what}\n{faults}"), None, Some("correct the file and start again"));
        }
        Err(error) => {
            term::error(
                "there is no configuration",
                Some(&error),
                Some("name another file with --config, or none for the defaults"),
            );
        }
    }
    Err(ExitCode::from(EXIT_CONFIG))
}
