//! `cco daemon` and `cco status` as they can be typed.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::look::Logs;

/// `cco daemon`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cco daemon start
  cco daemon restart         running streams finish in the old process
  cco daemon logs --program

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not running, 78 the configuration must be corrected.")]
pub(crate) struct Daemon {
    #[command(subcommand)]
    pub(crate) command: DaemonCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DaemonCommand {
    /// Start the gateway in the background; returns when it answers
    Start(Start),
    /// Stop it; running streams may finish (`server.drainSecs`)
    Stop(Stop),
    /// Let a new process take over; running streams finish in the old one
    #[command(after_help = "Example:\n  cco daemon restart        after an upgrade: no request fails")]
    Restart,
    /// Whether it runs, and how it is
    Status(Status),
    /// The last exchanges, or the program's own log
    Logs(Box<DaemonLogs>),
    /// Have the system start it with every login
    Install(Install),
    /// Have it start with the login no more
    #[command(after_help = "Example:\n  cco daemon uninstall")]
    Uninstall,
}

/// `cco daemon start`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cco daemon start
  cco daemon start --config ./cco.json")]
pub(crate) struct Start {
    /// Configuration file [default: $CCO_CONFIG, else config.json in $CCO_HOME]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// `cco daemon stop`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cco daemon stop
  cco daemon stop --within 5         streams that then still run are ended")]
pub(crate) struct Stop {
    /// End what still runs after so many seconds [default: `server.drainSecs`]
    #[arg(long, value_name = "SECS", value_parser = clap::value_parser!(u32).range(0..=86_400))]
    pub(crate) within: Option<u32>,
}

/// `cco status`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cco status
  cco status --json | jq .port

Exit codes: 0 it runs, 3 it does not.")]
pub(crate) struct Status {
    /// As JSON, for programs
    #[arg(long)]
    pub(crate) json: bool,
}

/// `cco daemon logs`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cco daemon logs                    the same as `cco logs`
  cco daemon logs --program -f       what the program says of itself, as it says it")]
pub(crate) struct DaemonLogs {
    /// The program's own log
    #[arg(long)]
    pub(crate) program: bool,
    #[command(flatten)]
    pub(crate) logs: Logs,
}

/// `cco daemon install`
#[derive(Debug, Args)]
#[command(after_help = "On Linux a unit of the user's systemd, on macOS an agent of launchd.

Examples:
  cco daemon install
  cco daemon install --print")]
pub(crate) struct Install {
    /// Configuration file [default: $CCO_CONFIG, else config.json in $CCO_HOME]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Only print what would be written
    #[arg(long)]
    pub(crate) print: bool,
}
