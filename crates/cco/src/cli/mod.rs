//! What can be typed.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ColorChoice, CommandFactory as _, Parser, Subcommand};
use gateway::config::CredentialRef;
use gateway::credential::Backend;
use gateway::origin::{BadUrl, BaseUrl};
use gateway::secret::Secret;

pub(crate) mod config;
pub(crate) mod daemon;
pub(crate) mod launch;
pub(crate) mod look;
pub(crate) mod providers;
pub(crate) mod translate;

/// An LLM gateway that relays streams byte for byte.
#[derive(Debug, Parser)]
#[command(name = "cco", version = crate::VERSION, disable_help_subcommand = true)]
#[command(subcommand_value_name = "COMMAND", subcommand_help_heading = "Commands")]
#[command(after_help = "Examples: cco demo (needs no key); cco daemon start; cco run -- claude; cco COMMAND --help
Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not running, 78 the configuration must be corrected")]
pub(crate) struct Cli {
    /// Folder for configuration, keys and data [default: $CCO_HOME, else ~/.cco]
    #[arg(long, value_name = "DIR", global = true, help_heading = "Everywhere")]
    pub(crate) home: Option<PathBuf>,
    /// For commands that look: the gateway to ask; CCO_ADMIN_TOKEN opens it
    #[arg(long, value_name = "URL", global = true, help_heading = "Everywhere")]
    pub(crate) url: Option<BaseUrl>,
    /// Colours: auto, always or never [default: auto; NO_COLOR turns them off]
    #[arg(
        long,
        value_name = "WHEN",
        global = true,
        value_enum,
        hide_possible_values = true,
        help_heading = "Everywhere"
    )]
    pub(crate) color: Option<ColorChoice>,
    /// Only what was asked for: no notes, no warnings
    #[arg(short, long, global = true, help_heading = "Everywhere")]
    pub(crate) quiet: bool,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// The commands, as the help shows them, each with what it is about in a few words.
pub(crate) const GROUPS: &[(&str, &[(&str, &str)])] = &[
    (
        "Run",
        &[
            ("serve", "in the foreground"),
            ("daemon", "in the background"),
            ("run", "a command through it"),
            ("setup", "a client through it"),
            ("env", "a shell through it"),
        ],
    ),
    (
        "Look",
        &[
            ("status", "whether and how it runs"),
            ("logs", "the last exchanges"),
            ("costs", "what was spent"),
            ("sessions", "sessions, their agents"),
            ("watch", "what happens just now"),
            ("limits", "what is left of limits"),
        ],
    ),
    (
        "Manage",
        &[
            ("config", "the configuration"),
            ("credentials", "keys, kept safely"),
            ("providers", "add, test, remove them"),
            ("prices", "the prices of models"),
            ("route", "where a request goes"),
        ],
    ),
    (
        "Check",
        &[
            ("doctor", "find what is wrong"),
            ("translate", "into other protocols"),
            ("demo", "watch a stream pass"),
            ("simulate", "a provider, no key"),
        ],
    ),
    (
        "Other",
        &[
            ("audit", "remove what is kept"),
            ("completions", "for your shell"),
            ("uninstall", "take everything back"),
            ("token", "the admin token"),
            ("version", "the version"),
        ],
    ),
];

/// The end of the first page: it has to fit on the smallest of screens with all else.
const EVERYWHERE: &str = "\
--home <DIR>    All it keeps [~/.cco]      --url <URL>    The gateway to look at
--color <WHEN>  auto, always, never        -q, --quiet    No notes, no warnings
-h, --help      Also: cco COMMAND --help   -V, --version  Print version
Examples: cco demo (needs no key); cco daemon start; cco run -- claude
Exit codes: 0 done, 1 failed, 2 usage, 3 not running, 78 configuration is wrong
";

/// All of it, with its commands in groups, for a terminal of this width.
pub(crate) fn command(width: Option<usize>) -> clap::Command {
    let mut groups = String::new();
    for (group, commands) in GROUPS {
        for (n, row) in commands.chunks(2).enumerate() {
            let group = if n == 0 { group } else { "" };
            let cell = |at: usize| row.get(at).copied().unwrap_or_default();
            let ((name, about), (next, of_next)) = (cell(0), cell(1));
            let line = format!("{group:<7} {name:<9}  {about:<23}  {next:<11}  {of_next}");
            groups.push_str(line.trim_end());
            groups.push('\n');
        }
    }
    let template = format!("{{about}}\n{{usage-heading}} {{usage}}\n\n{groups}\n{EVERYWHERE}");
    let command = flowing(Cli::command()).help_template(template);
    // Wider lines are hard to read, narrower ones leave no room beside an option.
    command.term_width(width.unwrap_or(WIDE).clamp(60, WIDE))
}

/// Characters of a line of help.
const WIDE: usize = 100;

/// With paragraphs behind the options that fill the lines of any width.
fn flowing(mut command: clap::Command) -> clap::Command {
    if let Some(text) = command.get_after_help().map(ToString::to_string) {
        let mut flowing = String::new();
        for line in text.lines() {
            let goes_on = |text: &str| !text.is_empty() && !text.starts_with(' ');
            let before = flowing.rsplit('\n').next().unwrap_or_default();
            let joins = goes_on(line) && goes_on(before) && !before.ends_with(':');
            match (flowing.is_empty(), joins) {
                (true, _) => {}
                (false, true) => flowing.push(' '),
                (false, false) => flowing.push('\n'),
            }
            flowing.push_str(line);
        }
        command = command.after_help(flowing);
    }
    let names: Vec<String> = command.get_subcommands().map(|inner| inner.get_name().to_owned()).collect();
    names.into_iter().fold(command, |command, name| command.mut_subcommand(name, flowing))
}

impl Command {
    /// Whether it only looks, so that it can look at a gateway anywhere.
    pub(crate) fn looks(&self) -> bool {
        match self {
            Self::Status(_)
            | Self::Logs(_)
            | Self::Costs(_)
            | Self::Sessions(_)
            | Self::Limits(_)
            | Self::Watch(_)
            | Self::Prices(_)
            | Self::Audit(_) => true,
            // What they write is the configuration that is here.
            Self::Providers(providers) => !matches!(
                providers.command,
                Some(providers::ProvidersCommand::Add(_) | providers::ProvidersCommand::Test(_))
                    | Some(providers::ProvidersCommand::Remove(_))
            ),
            Self::Daemon(daemon) => matches!(daemon.command, daemon::DaemonCommand::Status(_)),
            Self::Doctor(doctor) => !doctor.online && doctor.load.is_none(),
            _ => false,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve in the foreground
    Serve(Serve),
    /// Run a command with its requests sent through the gateway, and say what it cost
    Run(launch::Run),
    /// Send what this shell starts to the gateway
    Env(launch::ForShell),
    /// Send a client to the gateway from now on
    Setup(launch::Setup),
    /// Start, stop and replace the gateway in the background
    Daemon(daemon::Daemon),
    /// Whether the gateway runs, and how it is
    Status(daemon::Status),
    /// Keep keys safely, show and test them
    Credentials(Credentials),
    /// The last exchanges, or one of them with what went wrong
    Logs(look::Logs),
    /// What was spent, by day, model, session, agent, project or provider
    Costs(look::Costs),
    /// Sessions and their agents: cost, tokens, cache hits
    Sessions(look::Sessions),
    /// What is left of the providers' rate limits
    Limits(look::Limits),
    /// What happens at the moment
    Watch(look::Watch),
    /// The prices of models
    Prices(look::Prices),
    /// Remove what is kept
    Audit(look::Audit),
    /// Print the admin token
    #[command(
        after_help = "Example:\n  curl -H \"authorization: Bearer $(cco token)\" http://127.0.0.1:54548/gateway/logs"
    )]
    Token,
    /// Find, write, show, check and change the configuration
    Config(config::Configuration),
    /// Show where a request would go, and test that it goes there
    Route(Route),
    /// Add, test and remove providers, and show how they are
    Providers(providers::Providers),
    /// Show what a request or an answer becomes in another protocol, and what is lost
    Translate(translate::Translate),
    /// Look for what is wrong around the gateway, and say what to do
    Doctor(Doctor),
    /// Run a provider that needs no key
    Simulate(Simulate),
    /// Run gateway and simulator together and watch a stream pass through
    Demo(Demo),
    /// Take back what cco did on this machine
    Uninstall(Uninstall),
    /// Print what lets a shell complete commands
    Completions(Completions),
    /// Print the version
    #[command(after_help = "Example:\n  cco version")]
    Version,
    /// Write the manual pages
    #[command(hide = true)]
    Man(Man),
}

/// `cco doctor`
#[derive(Debug, Args)]
#[command(
    after_help = "Looks at configuration, folder, permissions, disk, port, clock, credentials, proxies, models, providers, clients.
Then it drives your configuration: a second gateway of its own asks a simulator in place of your providers, and what
becomes of requests and answers is compared byte for byte. Your records are not touched, and nothing is paid.
With --url it examines another gateway, whatever it is made of: two short answers, paid with `ANTHROPIC_API_KEY`.

Examples:
  cco doctor
  cco doctor --online        asks each provider whether it takes our key, which costs nothing
  cco doctor --load 100      and half a minute of 100 streams at a time
  cco doctor --url http://127.0.0.1:4000

Exit codes: 0 nothing is wrong, 1 something is."
)]
pub(crate) struct Doctor {
    /// Ask providers too
    #[arg(long)]
    pub(crate) online: bool,
    /// Keep so many streams open at a time: short, long and large ones
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=5000))]
    pub(crate) load: Option<u16>,
    /// For so many seconds
    #[arg(long, value_name = "SECS", requires = "load", default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=3600))]
    pub(crate) load_secs: u16,
    /// The model that is asked for [default: the provider's, else a cheap one]
    #[arg(long, value_name = "NAME")]
    pub(crate) model: Option<String>,
    /// As JSON, for programs
    #[arg(long)]
    pub(crate) json: bool,
}

/// `cco uninstall`
#[derive(Debug, Args)]
#[command(
    after_help = "Stops the gateway, unregisters it, undoes every setup, and removes stored credentials; says first what will go.

Examples:
  cco uninstall              records and configuration stay
  cco uninstall --purge      they go too"
)]
pub(crate) struct Uninstall {
    /// Remove configuration, records and logs too
    #[arg(long)]
    pub(crate) purge: bool,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
}

/// `cco completions`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cco completions bash > ~/.local/share/bash-completion/completions/cco
  cco completions zsh > \"${fpath[1]}/_cco\"
  cco completions fish > ~/.config/fish/completions/cco.fish")]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

/// `cco man`
#[derive(Debug, Args)]
#[command(after_help = "Example:
  cco man ~/.local/share/man/man1")]
pub(crate) struct Man {
    /// The folder that they go to, one page a command
    pub(crate) folder: PathBuf,
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
    /// Write the log to log/cco.log in $CCO_HOME instead of stderr, as a service does
    #[arg(long)]
    pub(crate) log_file: bool,
    /// Stdin leads to the process that started this one and waits for it
    #[arg(long, hide = true)]
    pub(crate) parent: bool,
}

/// `cco credentials`
#[derive(Debug, Args)]
#[command(after_help = "Keys are kept in the keyring of this system where one answers, else in an encrypted file.
A provider uses one where its `apiKeyRef` says `credential:NAME`, or `env:NAME` without that variable.

Examples:
  cco credentials store ANTHROPIC_API_KEY        asks for the key and does not show it
  pass show anthropic | cco credentials store ANTHROPIC_API_KEY
  cco credentials test ANTHROPIC_API_KEY

Exit codes: 0 done, 1 failed, 2 wrong usage, 78 the configuration must be corrected.")]
pub(crate) struct Credentials {
    #[command(subcommand)]
    pub(crate) command: CredentialsCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CredentialsCommand {
    /// Store a key: typed without echo, or from standard input
    Store(StoreCredential),
    /// Print a key
    Retrieve(RetrieveCredential),
    /// List what is stored, without the values
    List(ListCredentials),
    /// Delete a key
    Delete(DeleteCredential),
    /// Ask its provider whether a key is accepted
    Test(TestCredential),
}

/// `cco credentials store`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cco credentials store ANTHROPIC_API_KEY
  cco credentials store ANTHROPIC_API_KEY < key.txt
  cco credentials store ANTHROPIC_API_KEY --backend passphrase")]
pub(crate) struct StoreCredential {
    /// Letters, digits, `.`, `_` and `-`
    #[arg(value_parser = credential_name)]
    pub(crate) name: String,
    /// The key itself: better left out, since your shell remembers it and other users see it while this runs
    #[arg(value_parser = secret, allow_hyphen_values = true)]
    pub(crate) value: Option<Secret>,
    /// Where to keep keys, decided with the first one [default: keyring where one answers, else file]
    #[arg(long, value_name = "WHERE", value_parser = backend())]
    pub(crate) backend: Option<Backend>,
}

/// `cco credentials retrieve`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cco credentials retrieve ANTHROPIC_API_KEY
  cco credentials retrieve ANTHROPIC_API_KEY | wl-copy")]
pub(crate) struct RetrieveCredential {
    /// Its name
    #[arg(value_parser = credential_name)]
    pub(crate) name: String,
    /// Show it on a terminal without asking
    #[arg(short, long)]
    pub(crate) yes: bool,
}

/// `cco credentials list`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cco credentials list
  cco credentials list --json")]
pub(crate) struct ListCredentials {
    /// As JSON, for programs
    #[arg(long)]
    pub(crate) json: bool,
}

/// `cco credentials delete`
#[derive(Debug, Args)]
#[command(after_help = "Example:
  cco credentials delete ANTHROPIC_API_KEY")]
pub(crate) struct DeleteCredential {
    /// Its name
    #[arg(value_parser = credential_name)]
    pub(crate) name: String,
}

/// `cco credentials test`
#[derive(Debug, Args)]
#[command(
    after_help = "Asks every provider that the configuration gives this key to for its list of models, which costs nothing.

Examples:
  cco credentials test ANTHROPIC_API_KEY
  cco credentials test WORK_KEY --provider anthropic"
)]
pub(crate) struct TestCredential {
    /// Its name
    #[arg(value_parser = credential_name)]
    pub(crate) name: String,
    /// Ask this provider, also if the configuration gives it another key
    #[arg(long, value_name = "NAME")]
    pub(crate) provider: Option<String>,
    /// Configuration file [default: $CCO_CONFIG, else config.json in $CCO_HOME]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

fn credential_name(text: &str) -> Result<String, String> {
    if CredentialRef::is_stored_name(text) {
        return Ok(text.into());
    }
    Err("use letters, digits, `.`, `_` and `-`, at most 128".into())
}

fn secret(text: &str) -> Result<Secret, Infallible> {
    Ok(Secret::new(text))
}

fn backend() -> impl TypedValueParser<Value = Backend> {
    let named = |name: &str| Backend::ALL.into_iter().find(|backend| backend.name() == name);
    PossibleValuesParser::new(Backend::ALL.map(Backend::name))
        .map(move |name| named(&name).expect("the parser lets only these names pass"))
}

/// `cco simulate`
#[derive(Debug, Args)]
#[command(after_help = "A prompt can hold markers that script the answer, for example:
  [[sim fault=529]]      the answer is an overload
  [[sim every=50]]     the deltas come 50 ms apart
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
    /// Write credentials to the journal as they came, not their digests
    #[arg(long, requires = "journal")]
    pub(crate) journal_secrets: bool,
    /// Folder of recorded answers, for the marker `raw=NAME`
    #[arg(long, value_name = "DIR")]
    pub(crate) transcripts: Option<PathBuf>,
    /// What every answer does that its request does not script, for example "fault=529" or "every=50 events=20"
    #[arg(long, value_name = "SCRIPT")]
    pub(crate) script: Option<String>,
    /// Let the script go for the first N requests only
    #[arg(long, value_name = "N", requires = "script")]
    pub(crate) script_times: Option<u64>,
    /// Answer 401 to requests without a credential
    #[arg(long)]
    pub(crate) require_key: bool,
    /// Answer 401 to every credential but this one; may be repeated
    #[arg(long = "key", value_name = "KEY", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) keys: Vec<String>,
    /// Answer 404 to models that `GET /v1/models` does not list
    #[arg(long)]
    pub(crate) known_models: bool,
    /// Answers do not say that they are simulated: a gateway counts what they would cost as paid
    #[arg(long)]
    pub(crate) unmarked: bool,
    /// Origin of the `results_url` of batches [default: the one that the client asked]
    #[arg(long, value_name = "URL", value_parser = origin)]
    pub(crate) origin: Option<String>,
}

/// Scheme, host and port, without a path.
fn origin(text: &str) -> Result<String, String> {
    let url: BaseUrl = text.parse().map_err(|bad: BadUrl| bad.to_string())?;
    if url.path.is_empty() { Ok(url.to_string()) } else { Err("an origin has no path".into()) }
}

/// `cco demo`
#[derive(Debug, Args)]
#[command(after_help = "Example:
  cco demo --every 100")]
pub(crate) struct Demo {
    /// Milliseconds between two tokens of the simulated answer
    #[arg(long, value_name = "MS", default_value_t = 40, value_parser = clap::value_parser!(u64).range(1..=2000))]
    pub(crate) every: u64,
}

/// `cco route`
#[derive(Debug, Args)]
#[command(after_help = "Example:
  cco route explain --model claude-haiku-5-5")]
pub(crate) struct Route {
    #[command(subcommand)]
    pub(crate) command: RouteCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RouteCommand {
    /// Show where a request would go, and why
    Explain(Box<RouteExplain>),
    /// Check a file of requests and where they must go
    Test(RouteTest),
}

/// `cco route explain`
#[derive(Debug, Args)]
#[command(after_help = "Nothing is sent, and no key is read: every provider is taken to work and to have its key.

Examples:
  cco route explain --model claude-opus-5-5 --stream
  cco route explain --sub-agent --agent-type Explore --model claude-haiku-5-5
  cco route explain --request body.json --header 'x-team: rust'

Exit codes: 0 shown, 2 the request cannot be read, 78 the configuration must be corrected.")]
pub(crate) struct RouteExplain {
    /// Configuration file [default: $CCO_CONFIG, else config.json in $CCO_HOME]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The body of a request, or all of it as it goes over the network; `-` reads stdin
    #[arg(long, value_name = "FILE")]
    pub(crate) request: Option<PathBuf>,
    /// The asked model
    #[arg(long, value_name = "NAME")]
    pub(crate) model: Option<String>,
    /// The protocol that the client speaks [default: anthropic]
    #[arg(long, value_name = "NAME")]
    pub(crate) protocol: Option<String>,
    /// A request header; may be repeated
    #[arg(long, value_name = "NAME: VALUE", value_parser = header)]
    pub(crate) header: Vec<(String, String)>,
    /// An agent asks that the client's main loop started
    #[arg(long)]
    pub(crate) sub_agent: bool,
    /// The type of the agent
    #[arg(long, value_name = "TYPE")]
    pub(crate) agent_type: Option<String>,
    /// The client's session
    #[arg(long, value_name = "ID")]
    pub(crate) session: Option<String>,
    /// The project
    #[arg(long, value_name = "NAME")]
    pub(crate) project: Option<String>,
    /// Whose key the request brings: the caller's own, its own alone, or none
    #[arg(long, value_enum, default_value_t = RouteKey::Own)]
    pub(crate) key: RouteKey,
    /// The caller's key as records show it
    #[arg(long, value_name = "…abcd")]
    pub(crate) key_id: Option<String>,
    /// A stream is asked for
    #[arg(long)]
    pub(crate) stream: bool,
    /// The model is asked to think
    #[arg(long)]
    pub(crate) thinking: bool,
    /// Tools are offered
    #[arg(long)]
    pub(crate) tools: bool,
    /// There are images in it
    #[arg(long)]
    pub(crate) images: bool,
    /// The size of the prompt
    #[arg(long, value_name = "N")]
    pub(crate) prompt_tokens: Option<u64>,
    /// Requests that the gateway serves at the moment
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) in_flight: u64,
    /// The time, for example 2026-11-22T15:53:11Z
    #[arg(long, value_name = "TIME")]
    pub(crate) at: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Whose key a request brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum RouteKey {
    /// Its own, and the right to spend stored ones
    Own,
    /// Its own, and no such right
    OwnOnly,
    /// None of its own, and the right
    Stored,
}

/// The name and the value of a header.
fn header(text: &str) -> Result<(String, String), &'static str> {
    let (name, value) = text.split_once(':').ok_or("write it as `NAME: VALUE`")?;
    Ok((name.trim().to_string(), value.trim().to_string()))
}

/// `cco route test`
#[derive(Debug, Args)]
#[command(
    after_help = "The file is a JSON list. A request has the keys model, protocol, agent (\"main\" or \"sub\"), agentType, session,
project, headers, key (\"own\", \"own-only\" or \"stored\"), keyId, stream, thinking, tools, images, promptTokens,
inFlight, at, body; an expectation provider, model, providers, rule, refused. All of them may be left out.

Example:
  [
    {
      \"name\": \"sub-agents search cheaply\",
      \"request\": { \"model\": \"claude-haiku-5-5\", \"agent\": \"sub\", \"agentType\": \"Explore\" },
      \"expect\": { \"provider\": \"deepseek\", \"model\": \"deepseek-flash\" }
    }
  ]

Exit codes: 0 all are met, 1 some are not, 2 the file cannot be used, 78 the configuration must be corrected."
)]
pub(crate) struct RouteTest {
    /// Configuration file [default: $CCO_CONFIG, else config.json in $CCO_HOME]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The expectations; `-` reads stdin
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}
