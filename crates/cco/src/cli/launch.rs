//! Commands that send clients to the gateway.

use std::ffi::OsString;

use clap::{Args, ValueEnum};

use crate::launch::Wanted;

/// `cco run`
#[derive(Debug, Args)]
#[command(after_help = "The command's requests are marked with the project, and at its end it is said what they cost.
Who pays: the client's own login or key if it has one, else the gateway's stored key. A line says which.

Examples:
  cco run -- claude
  cco run --pay stored -- claude -p 'what changed here?'
  cco run --simulated -- claude          without key, network and configuration
  cco run -- python3 agent.py            any client of the official SDKs

Exit code: that of the command; 1 if it was not started, 2 wrong usage, 3 no gateway is running.")]
pub(crate) struct Run {
    /// Who pays
    #[arg(long, value_name = "WHO")]
    pub(crate) pay: Option<Wanted>,
    /// Mark requests with this project [default: the repository's or the folder's name]
    #[arg(long, value_name = "NAME")]
    pub(crate) project: Option<String>,
    /// Let a simulator answer, started for this command
    #[arg(long, conflicts_with = "pay")]
    pub(crate) simulated: bool,
    /// Say nothing about who pays and what it cost
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

/// `cco env`
#[derive(Debug, Args)]
#[command(after_help = r#"Examples:
  eval "$(cco env)"                  bash, zsh
  cco env | source                   fish
  eval "$(cco env --undo)"

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no gateway is running."#)]
pub(crate) struct ForShell {
    /// The shell that is to read it [default: the one that calls, else your login shell]
    #[arg(long, value_name = "SHELL")]
    pub(crate) shell: Option<Shell>,
    /// Who pays [default: own if a key is set here, else stored]
    #[arg(long, value_name = "WHO")]
    pub(crate) pay: Option<Wanted>,
    /// Take the variables back
    #[arg(long, conflicts_with = "pay")]
    pub(crate) undo: bool,
}

/// Shells whose words we know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Zsh,
    Fish,
    Powershell,
}

/// `cco setup`
#[derive(Debug, Args)]
#[command(after_help = "Shows what would change in the client's own settings file, and changes it if you agree.
The file as it was is kept: `--undo` brings it back, or removes only what is ours if it has changed since.

Examples:
  cco setup claude
  cco setup codex --pay stored --yes
  cco setup claude --undo
  cco setup --list                  what is set up, and what comes before it

Exit codes: 0 done, 1 failed or not agreed to, 2 wrong usage, 3 no gateway is running.")]
pub(crate) struct Setup {
    /// The client
    #[arg(required_unless_present = "list")]
    pub(crate) client: Option<Known>,
    /// Who pays [default: own if the client has a login or key, else stored]
    #[arg(long, value_name = "WHO", conflicts_with_all = ["undo", "list"])]
    pub(crate) pay: Option<Wanted>,
    /// Take it back
    #[arg(long, conflicts_with = "list")]
    pub(crate) undo: bool,
    /// What is set up
    #[arg(long)]
    pub(crate) list: bool,
    /// With `--list`: as JSON, for programs
    #[arg(long, requires = "list")]
    pub(crate) json: bool,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
}

/// Clients with a settings file that we know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Known {
    Claude,
    Codex,
    Opencode,
}
