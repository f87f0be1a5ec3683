//! `cco config` as it can be typed.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `cco config`
#[derive(Debug, Args)]
#[command(
    after_help = "A key is named by its path: server.listen, providers.anthropic.timeoutSecs, routing.rules[0].name.
All keys and their variables: docs/configuration.md.

Examples:
  cco config init
  cco config set server.listen 127.0.0.1:8000
  cco config show providers

Exit codes: 0 done, 1 failed, 2 wrong usage, 78 the configuration must be corrected."
)]
pub(crate) struct Configuration {
    #[command(subcommand)]
    pub(crate) command: ConfigCommand,
    /// Configuration file [default: $CCO_CONFIG, else config.json in $CCO_HOME]
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Write a first configuration file, with comments
    Init(Init),
    /// Print which file is read
    #[command(after_help = "Example:\n  $EDITOR \"$(cco config path)\"")]
    Path,
    /// Print what holds and where it comes from, secrets masked
    Show(Show),
    /// Read a file and say what is wrong with it
    #[command(after_help = "Example:\n  cco config validate --config ./cco.json")]
    Validate,
    /// Print the JSON Schema of the file
    #[command(after_help = "Example:\n  cco config schema > cco.schema.json")]
    Schema,
    /// Change a key in the file; its comments stay
    Set(Set),
    /// Print the value of one key, alone
    Get(Get),
    /// Have the running gateway load it again, and say what changed
    #[command(after_help = "Example:\n  cco config reload")]
    Reload,
}

/// `cco config init`
#[derive(Debug, Args)]
#[command(after_help = "Beside it goes config.schema.json, by which editors complete and check.

Example:
  cco config init")]
pub(crate) struct Init {
    /// Replace a file that is there
    #[arg(long)]
    pub(crate) force: bool,
}

/// `cco config show`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cco config show
  cco config show providers.anthropic
  cco config show --changed --json")]
pub(crate) struct Show {
    /// Only this key, or what is below it
    pub(crate) key: Option<String>,
    /// Only what is not the default
    #[arg(long)]
    pub(crate) changed: bool,
    /// As JSON, for programs
    #[arg(long)]
    pub(crate) json: bool,
}

/// `cco config set`
#[derive(Debug, Args)]
#[command(after_help = "A running gateway takes the change up by itself.

Examples:
  cco config set server.listen 127.0.0.1:8000
  cco config set server.hosts my-container,other
  cco config set providers.anthropic.timeoutSecs --default")]
pub(crate) struct Set {
    /// The key
    pub(crate) key: String,
    /// Its value: words need no quotation marks, commas make a list
    #[arg(required_unless_present = "default", allow_hyphen_values = true)]
    pub(crate) value: Option<String>,
    /// Remove the key from the file, so that its default holds
    #[arg(long, conflicts_with = "value")]
    pub(crate) default: bool,
}

/// `cco config get`
#[derive(Debug, Args)]
#[command(after_help = "Example:
  cco config get server.listen")]
pub(crate) struct Get {
    /// The key
    pub(crate) key: String,
}
