//! Commands that look at what was recorded, and the one vocabulary in which they are asked.

use clap::{Args, Subcommand};

/// Which exchanges are meant, and how they are shown.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Look {
    /// Begun at this time or later: how long ago (2h, 7d), today, yesterday, or a date (2026-11-22, 2026-11-22T14:30)
    #[arg(long, value_name = "TIME", help_heading = "Which")]
    pub(crate) since: Option<String>,
    /// Begun before this time
    #[arg(long, value_name = "TIME", help_heading = "Which")]
    pub(crate) until: Option<String>,
    /// Model; * stands for any text, here and below
    #[arg(long, value_name = "NAME", help_heading = "Which")]
    pub(crate) model: Option<String>,
    /// Provider
    #[arg(long, value_name = "NAME", help_heading = "Which")]
    pub(crate) provider: Option<String>,
    /// Agent, or kind of agent
    #[arg(long, value_name = "NAME", help_heading = "Which")]
    pub(crate) agent: Option<String>,
    /// Session
    #[arg(long, value_name = "ID", help_heading = "Which")]
    pub(crate) session: Option<String>,
    /// Project
    #[arg(long, value_name = "NAME", help_heading = "Which")]
    pub(crate) project: Option<String>,
    /// Only those in which something went wrong
    #[arg(long, help_heading = "Which")]
    pub(crate) failed: bool,
    /// At most so many rows
    #[arg(long, value_name = "N", help_heading = "Which")]
    pub(crate) limit: Option<u32>,
    #[command(flatten)]
    pub(crate) form: Form,
}

/// How things are shown.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(crate) struct Form {
    /// One JSON object a line
    #[arg(long, conflicts_with = "csv")]
    pub(crate) json: bool,
    /// Comma-separated values, with a heading
    #[arg(long)]
    pub(crate) csv: bool,
}

impl Look {
    /// The words that say which exchanges are meant.
    pub(crate) fn words(&self) -> Vec<(&'static str, String)> {
        let texts = [
            ("since", &self.since),
            ("until", &self.until),
            ("model", &self.model),
            ("provider", &self.provider),
            ("agent", &self.agent),
            ("session", &self.session),
            ("project", &self.project),
        ];
        let mut words: Vec<_> = texts.into_iter().filter_map(|(word, value)| Some((word, value.clone()?))).collect();
        if self.failed {
            words.push(("failed", "true".into()));
        }
        if let Some(limit) = self.limit {
            words.push(("limit", limit.to_string()));
        }
        words
    }
}

/// `cco logs`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(after_help = "Without --limit: the last 25.

Examples:
  cco logs                                   the last exchanges
  cco logs -f --failed                       failures, as they happen
  cco logs --since 2h --json | jq .cost_usd
  cco logs --grep 'panicked at' --limit 5    in the bodies that are kept
  cco logs show last-error                   what went wrong, and what to do")]
pub(crate) struct Logs {
    #[command(subcommand)]
    pub(crate) command: Option<LogsCommand>,
    #[command(flatten)]
    pub(crate) look: Look,
    /// Keep on printing what is recorded from now on
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only exchanges in whose bodies this regular expression is found; the last 20000 are searched
    #[arg(long, value_name = "REGEX", conflicts_with = "follow", help_heading = "Which")]
    pub(crate) grep: Option<String>,
}

/// What can be done with logs.
#[derive(Debug, Subcommand)]
pub(crate) enum LogsCommand {
    /// One exchange: what went wrong, what to do, every attempt, the headers
    Show(Show),
}

/// `cco logs show`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cco logs show last
  cco logs show 1a2b3c4d
  cco logs show last-error --response
  cco logs show last --route
  cco logs show 1a2b3c4d --request --raw > request.json")]
pub(crate) struct Show {
    /// An id, the first digits of its last eight, `last` or `last-error`
    pub(crate) exchange: String,
    /// The body of the request, with control bytes escaped
    #[arg(long, conflicts_with = "response")]
    pub(crate) request: bool,
    /// The body of the answer, with control bytes escaped
    #[arg(long)]
    pub(crate) response: bool,
    /// The body byte for byte: that of the answer if not said otherwise
    #[arg(long)]
    pub(crate) raw: bool,
    /// Why it went where it went: the rule, how each candidate was judged, attempts and waits
    #[arg(long, conflicts_with_all = ["request", "response", "raw"])]
    pub(crate) route: bool,
    /// One JSON object
    #[arg(long, conflicts_with_all = ["request", "response", "raw"])]
    pub(crate) json: bool,
}

/// `cco costs`
#[derive(Debug, Args)]
#[command(after_help = "What a subscription paid for is shown apart: it is what the same would have cost.
Without --limit: all days, or the 50 rows that cost most; --json and --csv have all.

Examples:
  cco costs                          by day
  cco costs --by model --since 7d
  cco costs --by agent --session 3f2a* --csv")]
pub(crate) struct Costs {
    /// For each of what
    #[arg(long, value_name = "WHAT", default_value = "day",
          value_parser = ["day", "model", "session", "agent", "agent-type", "project", "provider", "operation", "outcome"])]
    pub(crate) by: String,
    #[command(flatten)]
    pub(crate) look: Look,
    /// Of `cco logs` alone; here it is told why not
    #[arg(long, value_name = "REGEX", hide = true)]
    pub(crate) grep: Option<String>,
}

/// `cco sessions`
#[derive(Debug, Args)]
#[command(after_help = "Without --limit: the last 10.

Examples:
  cco sessions --since today
  cco sessions --project website --limit 5")]
pub(crate) struct Sessions {
    #[command(flatten)]
    pub(crate) look: Look,
    /// Of `cco logs` alone; here it is told why not
    #[arg(long, value_name = "REGEX", hide = true)]
    pub(crate) grep: Option<String>,
}

/// `cco limits`
#[derive(Debug, Args)]
#[command(after_help = "Each provider's last word on each key, the windows of a subscription included.

Examples:
  cco limits
  cco limits --json | jq .windows")]
pub(crate) struct Limits {
    /// Told at this time or later: how long ago (2h, 7d), today, yesterday, or a date
    #[arg(long, value_name = "TIME", help_heading = "Which")]
    pub(crate) since: Option<String>,
    /// Told before this time
    #[arg(long, value_name = "TIME", help_heading = "Which")]
    pub(crate) until: Option<String>,
    /// Provider; * stands for any text
    #[arg(long, value_name = "NAME", help_heading = "Which")]
    pub(crate) provider: Option<String>,
    /// At most so many keys
    #[arg(long, value_name = "N", help_heading = "Which")]
    pub(crate) limit: Option<u32>,
    #[command(flatten)]
    pub(crate) form: Form,
    #[command(flatten)]
    pub(crate) others: OfExchanges,
}

/// Words for exchanges, which say nothing of limits: whoever types one is told so.
#[derive(Debug, Args)]
pub(crate) struct OfExchanges {
    /// Model
    #[arg(long, value_name = "NAME", hide = true)]
    pub(crate) model: Option<String>,
    /// Agent
    #[arg(long, value_name = "NAME", hide = true)]
    pub(crate) agent: Option<String>,
    /// Session
    #[arg(long, value_name = "ID", hide = true)]
    pub(crate) session: Option<String>,
    /// Project
    #[arg(long, value_name = "NAME", hide = true)]
    pub(crate) project: Option<String>,
    /// Failures
    #[arg(long, hide = true)]
    pub(crate) failed: bool,
}

/// `cco prices`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(
    after_help = "Prices are dollars for a million tokens. Own ones: `costTracking.pricingOverrides`, `costTracking.pricesFile`.

Examples:
  cco prices sonnet
  cco prices recompute --since 30d"
)]
pub(crate) struct Prices {
    #[command(subcommand)]
    pub(crate) command: Option<PricesCommand>,
    /// Model, or a part of its name
    pub(crate) model: Option<String>,
    #[command(flatten)]
    pub(crate) form: Form,
}

/// What can be done with prices.
#[derive(Debug, Subcommand)]
pub(crate) enum PricesCommand {
    /// Price what was recorded again, from its raw usage, at the prices of now
    Recompute(Recompute),
}

/// `cco prices recompute`
#[derive(Debug, Args)]
#[command(after_help = "Example:
  cco prices recompute --since 30d --model 'claude-*'")]
pub(crate) struct Recompute {
    /// Only exchanges begun at this time or later [default: all]
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Only this model; * stands for any text
    #[arg(long, value_name = "NAME")]
    pub(crate) model: Option<String>,
}

/// `cco audit`
#[derive(Debug, Args)]
#[command(after_help = "Example:
  cco audit purge --before 7d")]
pub(crate) struct Audit {
    #[command(subcommand)]
    pub(crate) command: AuditCommand,
}

/// What can be done with what is kept.
#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Remove records and bodies for good
    Purge(Purge),
}

/// `cco audit purge`
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(false))]
#[command(after_help = "It works on a full disk, too. On a terminal it asks first.

Examples:
  cco audit purge 1a2b3c4d
  cco audit purge --before 30d
  cco audit purge --all --yes")]
pub(crate) struct Purge {
    /// One exchange, as `cco logs show` knows it
    #[arg(value_name = "ID", group = "what")]
    pub(crate) exchange: Option<String>,
    /// Everything of this session
    #[arg(long, value_name = "ID", group = "what")]
    pub(crate) session: Option<String>,
    /// Everything that began before this time
    #[arg(long, value_name = "TIME", group = "what")]
    pub(crate) before: Option<String>,
    /// Everything
    #[arg(long, group = "what")]
    pub(crate) all: bool,
    /// Do not ask
    #[arg(long, short)]
    pub(crate) yes: bool,
}

/// `cco watch`
#[derive(Debug, Args)]
#[command(
    after_help = "It sees what begins after it does. A terminal that is too slow loses events, never slows a stream.

Examples:
  cco watch
  cco watch --json | jq .model"
)]
pub(crate) struct Watch {
    /// One JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
}
