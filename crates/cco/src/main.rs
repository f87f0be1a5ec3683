//! The binary: reads the command line, runs one command, returns its exit code.

mod cli;
mod demo;
mod logging;
mod serve;
mod simulate;
mod term;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};

/// `YYYY.MM.DD+<hash>`, with `-dirty` where the tree was changed.
const VERSION: &str = env!("CCO_VERSION");

/// The configuration must be corrected (`EX_CONFIG` of sysexits.h).
const EXIT_CONFIG: u8 = 78;

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Serve(options) => serve::run(&options),
        Command::Simulate(options) => simulate::run(&options),
        Command::Demo(options) => demo::run(&options),
    }
}
