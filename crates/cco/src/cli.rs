//! What can be typed.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// An LLM gateway that relays streams byte for byte.
#[derive(Debug, Parser)]
#[command(name = "cco", version = crate::VERSION, disable_help_subcommand = true)]
#[command(after_help = "Examples:
  cco demo                                       see it work, without key and network
  cco serve                                      serve on 127.0.0.1:54548
  ANTHROPIC_BASE_URL=http://127.0.0.1:54548 claude")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve in the foreground
    Serve(Serve),
    /// Run a provider that needs no key
    Simulate(Simulate),
    /// Run gateway and simulator together and watch a stream pass through
    Demo(Demo),
}

/// `cco serve`
#[derive(Debug, Args)]
#[command(after_help = "Without a configuration, the client's own key is passed on to https://api.anthropic.com.
SIGTERM or Ctrl-C: running streams may finish (`server.drainSecs`); a second one ends at once.

Examples:
  cco serve
  cco serve --listen 127.0.0.1:0
  cco serve --config ./cco.json

Exit codes: 0 stopped, 1 failed, 2 wrong usage, 78 the configuration must be corrected.")]
pub(crate) struct Serve {
    /// Configuration file [default: $CCO_CONFIG, else config.json in $CCO_HOME]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Address to listen on, instead of the configured one; port 0 takes any free one
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
    /// Threads that serve [default: one a core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) workers: Option<u16>,
}

/// `cco simulate`
#[derive(Debug, Args)]
#[command(after_help = "A prompt can hold markers that script the answer, for example:
  [[sim fault=529]]      the answer is an overload
  [[sim every=50ms]]     the deltas come 50 ms apart
All of them: docs/simulator.md.

Examples:
  cco simulate
  cco simulate --listen 127.0.0.1:8099 --journal requests.jsonl")]
pub(crate) struct Simulate {
    /// Address to listen on; port 0 takes any free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    pub(crate) listen: SocketAddr,
    /// File to which every received request is appended, one JSON object a line
    #[arg(long, value_name = "FILE")]
    pub(crate) journal: Option<PathBuf>,
    /// Write the bodies of requests to the journal too
    #[arg(long, requires = "journal")]
    pub(crate) journal_bodies: bool,
    /// Folder of recorded answers, for the marker `raw=NAME`
    #[arg(long, value_name = "DIR")]
    pub(crate) transcripts: Option<PathBuf>,
    /// What every answer does that its request does not script, for example "fault=529" or "every=50ms events=20"
    #[arg(long, value_name = "SCRIPT")]
    pub(crate) script: Option<String>,
    /// Answer 401 to requests without a credential
    #[arg(long)]
    pub(crate) require_key: bool,
}

/// `cco demo`
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Milliseconds between two tokens of the simulated answer
    #[arg(long, value_name = "MS", default_value_t = 40, value_parser = clap::value_parser!(u64).range(1..=2000))]
    pub(crate) every: u64,
}
