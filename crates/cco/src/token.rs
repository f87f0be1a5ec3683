//! `cco token`: the admin token, alone on stdout.

use std::process::ExitCode;

use gateway::config::Env;
use gateway::credential;

use crate::source::{self, Failure};
use crate::term;

/// Prints it; it is made where there is none yet.
pub(crate) fn run() -> ExitCode {
    source::ended(token())
}

fn token() -> Result<(), Failure> {
    let home = source::home(&Env::process())?;
    match credential::admin_token(Some(&home)) {
        (token, None) => {
            term::line(token.expose());
            Ok(())
        }
        (_, Some(note)) => Err(Failure::new("there is no admin token").because(note)),
    }
}
