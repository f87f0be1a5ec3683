//! The configuration of a command, or what is wrong with it.

use std::io;
use std::path::Path;
use std::process::ExitCode;

use gateway::config::{self, Env, Faults, LoadError, Loaded};
use gateway::system;

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
            term::error(format!("{what}\n{faults}"), None, Some(&remedy(file, &faults)));
        }
        Err(LoadError::Unreadable { file: wanted, error, named_by }) => {
            let quoted = system::quoted(&wanted);
            let help = match error.kind() {
                io::ErrorKind::NotFound => format!("`cco config --config {quoted} init` writes a first one"),
                _ => format!("see what it is and whose: `ls -ld {quoted}`"),
            };
            let error = LoadError::Unreadable { file: wanted, error, named_by };
            term::error("there is no configuration", Some(&error), Some(&help));
        }
    }
    Err(ExitCode::from(EXIT_CONFIG))
}

/// What to do about faults: where they are, and the command that looks again.
pub(crate) fn remedy(named: Option<&Path>, faults: &Faults) -> String {
    let again = named.map(|file| format!(" --config {}", system::quoted(file))).unwrap_or_default();
    let again = format!("`cco config validate{again}` looks again");
    let mut variables: Vec<_> = faults.faults.iter().filter_map(|fault| fault.variable.as_deref()).collect();
    variables.dedup();
    match (variables.len(), faults.faults.iter().any(|fault| fault.variable.is_none())) {
        (0, _) => format!("correct `{}`; {again}", faults.file),
        (_, false) => format!("`unset {}`, or set it right; {again}", variables.join(" ")),
        (_, true) => format!("correct `{}`, and `unset {}`; {again}", faults.file, variables.join(" ")),
    }
}
