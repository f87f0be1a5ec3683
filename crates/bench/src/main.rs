//! Measures cco beside nginx. `cargo xtask bench` builds and runs it; mock and load are processes of their own, so that
//! each can be pinned to a core.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a tool talks to its user")]
#![expect(clippy::disallowed_methods, reason = "the rules on clocks are for the gateway, not for what measures it")]

mod calls;
mod count;
mod inside;
mod load;
mod mock;
mod picture;
mod plan;
mod process;
mod records;
mod rows;
mod run;
mod soak;
mod subject;
mod table;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// What can be typed.
#[derive(Debug, Parser)]
#[command(name = "bench", about = "Measures cco beside nginx")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure everything, in interleaved rounds
    Run(run::Options),
    /// Load one gateway for minutes with what is hard to bear, and look at what it keeps
    Soak(soak::Options),
    /// Load a build that counts which of its ways are taken
    Train(subject::Site),
    /// Count the system calls of a request and of an event (needs strace)
    Calls(subject::Site),
    /// Draw what was measured
    Picture(picture::Options),
    /// Do one piece of work so often, to be counted
    #[command(hide = true)]
    Count(count::Options),
    /// Serve scripted answers, as an upstream
    #[command(hide = true)]
    Mock(mock::Options),
    /// Send requests and print what came of them as JSON
    #[command(hide = true)]
    Load(load::Options),
}

/// Why a tool ends early, in words for its user.
type Fault = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(options) => run::run(&options),
        Command::Soak(options) => soak::run(&options),
        Command::Train(options) => run::train(&options),
        Command::Calls(options) => calls::run(&options),
        Command::Picture(options) => picture::run(&options),
        Command::Count(options) => count::run(&options),
        Command::Mock(options) => on_one_thread(mock::serve(options)),
        Command::Load(options) => on_one_thread(load::run(options)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("bench: {fault}");
            ExitCode::FAILURE
        }
    }
}

fn on_one_thread(work: impl Future<Output = Result<(), Fault>>) -> Result<(), Fault> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, work)
}
