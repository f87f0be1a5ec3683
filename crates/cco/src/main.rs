//! The binary: reads the command line, runs one command, returns its exit code.

mod cli;
mod credentials;
mod demo;
mod load;
mod logging;
mod serve;
mod simulate;
mod term;
mod when;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};

/// `YYYY.MM.DD+<hash>`, with `-dirty` where the tree was changed.
const VERSION: &str = env!("CCO_VERSION");

/// The configuration must be corrected (`EX_CONFIG` of sysexits.h).
const EXIT_CONFIG: u8 = 78;

fn main() -> ExitCode {
    if let Err(why) = gateway::system::close_to_others() {
        term::warning(format_args!("the memory of this process is not closed to others: {why}"), None);
    }
    match Cli::parse().command {
        Command::Serve(options) => serve::run(&options),
        Command::Credentials(options) => credentials::run(&options),
        Command::Simulate(options) => simulate::run(&options),
        Command::Demo(options) => demo::run(&options),
    }
}
