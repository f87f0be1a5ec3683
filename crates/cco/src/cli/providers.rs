//! What can be typed behind `cco providers`.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use gateway::config::CredentialRef;

/// `cco providers`
#[derive(Debug, Args)]
#[command(
    after_help = "A provider that keeps failing is left alone for a while: then one request finds out. `reset` forgets what
is held against it.

Examples:
  cco providers                            which there are, and how they are
  cco providers add deepseek               asks for what is missing
  cco providers add https://api.example.com/v1 --model some-model
  cco providers test deepseek

Exit codes: 0 done, 1 failed, 2 wrong usage, 78 the configuration must be corrected."
)]
pub(crate) struct Providers {
    #[command(subcommand)]
    pub(crate) command: Option<ProvidersCommand>,
    #[command(flatten)]
    pub(crate) list: ListProviders,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ProvidersCommand {
    /// Write a provider into the configuration, keep its key, and send one test request
    Add(Box<AddProvider>),
    /// Show them, as without a command
    #[command(after_help = "Example:
  cco providers list --json")]
    List(ListProviders),
    /// Send one small request through a provider
    Test(TestProvider),
    /// Take a provider out of the configuration
    Remove(RemoveProvider),
    /// Forget what is held against a provider: everything is tried anew
    #[command(after_help = "Example:
  cco providers reset anthropic")]
    Reset {
        /// The provider
        name: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ListProviders {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Configuration file [default: $CCO_CONFIG, else config.json in $CCO_HOME]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "What is not said is asked for, where there is a terminal. A gateway that runs takes the new provider up by itself;
which requests it gets, `routing` says (docs/routing.md).

Examples:
  cco providers add deepseek --model deepseek-v4-pro
  cco providers add azure --base-url https://NAME.openai.azure.com --deployment gpt-5
  cco providers add ollama --model qwen3:30b --num-ctx 65536
  echo \"$KEY\" | cco providers add https://api.example.com/v1 --model some-model --key-stdin"
)]
pub(crate) struct AddProvider {
    /// What it is (`azure`, `deepseek`, `ollama`, `openrouter`, …), or its URL
    #[arg(value_name = "KIND|URL")]
    pub(crate) what: String,
    /// What the configuration calls it [default: its kind, or a word of its URL]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Where its API is [default: that of its kind]
    #[arg(long, value_name = "URL")]
    pub(crate) base_url: Option<String>,
    /// The model that is used where the asked one is not of this provider
    #[arg(long)]
    pub(crate) model: Option<String>,
    /// Azure: the deployment
    #[arg(long)]
    pub(crate) deployment: Option<String>,
    /// Azure: the version of its dated API
    #[arg(long, value_name = "VERSION")]
    pub(crate) api_version: Option<String>,
    /// The protocol to speak with it, where it speaks several
    #[arg(long, value_parser = PossibleValuesParser::new(["anthropic", "openai-chat", "openai-responses", "ollama"]))]
    pub(crate) protocol: Option<String>,
    /// Ollama: a fixed size of the context in tokens
    #[arg(long, value_name = "TOKENS")]
    pub(crate) num_ctx: Option<u32>,
    /// Where its key is: env:NAME, credential:NAME, file:PATH or exec:COMMAND
    #[arg(long, value_name = "REF", conflicts_with = "key_stdin")]
    pub(crate) key_ref: Option<CredentialRef>,
    /// Read its key from standard input
    #[arg(long)]
    pub(crate) key_stdin: bool,
    /// Put it in the place of one that has the same name
    #[arg(long)]
    pub(crate) replace: bool,
    /// Send no test request
    #[arg(long)]
    pub(crate) no_test: bool,
    /// Configuration file [default: $CCO_CONFIG, else config.json in $CCO_HOME]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "The request asks for a word and costs next to nothing. It takes the way that a client of Anthropic's protocol takes,
without a gateway that runs, and is not recorded.

Examples:
  cco providers test deepseek
  cco providers test openrouter --model qwen/qwen3-30b

Exit codes: 0 it answers, 1 it does not, 78 the configuration must be corrected."
)]
pub(crate) struct TestProvider {
    /// The provider
    pub(crate) name: String,
    /// The model [default: the provider's `defaultModel` or `deployment`]
    #[arg(long)]
    pub(crate) model: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Configuration file [default: $CCO_CONFIG, else config.json in $CCO_HOME]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "Its key stays where it is kept: `cco credentials delete` removes it.

Example:
  cco providers remove deepseek")]
pub(crate) struct RemoveProvider {
    /// The provider
    pub(crate) name: String,
    /// Configuration file [default: $CCO_CONFIG, else config.json in $CCO_HOME]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}
