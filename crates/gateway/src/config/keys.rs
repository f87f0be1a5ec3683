//! The table of keys: each with its name in the file, its field, its type, its default, its meaning and whether it works
//! in this version. Everything that depends on the set of keys is made from here.
//!
//! The descriptions are those of the documentation, in the units of the file. In the fields every time is a [`Duration`]
//! and every size is in bytes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use jsonc_parser::ast::Value;
use wire::protocol::Protocol;

use super::credential::CredentialRef;
use super::form::Effect::Now;
use super::form::{
    Key, Keys, Kind, NanoUsd, any_name, boolean, choice, days, dollars, gibibytes, integer, mebibytes, millis, path,
    secs, section, words,
};
use super::hours::Hours;
use super::proxy::ProxySetting;
use super::read::{Place, Reader, Section};
use super::values::{
    base_url, chosen, credential, credentials, glob, header_name, headers, host, hours, listen, origin, pattern,
    protocol, provider_name, provider_type, providers, proxy, target,
};
use crate::catalog::ProviderKind;
use crate::glob::Glob;
use crate::origin::BaseUrl;
use crate::secret::Secret;

/// Declares a section: for each key its doc, field, type, name in the file, kind (form and default) and effect.
macro_rules! section {
    (
        $(#[doc = $doc:literal])*
        pub struct $name:ident { $($body:tt)* }
    ) => {
        section! { @struct [$(#[doc = $doc])*] $name (_unit: ()) given {} $($body)* }

        impl Keys for $name {
            fn read(value: Option<&Value<'_>>, place: &Place, reader: &mut Reader<'_>) -> Self {
                Self::read_with((), value, place, reader)
            }

            fn keys() -> Vec<Key> {
                Self::keys_with(())
            }
        }

        impl Default for $name {
            fn default() -> Self {
                let paths = super::Paths::default();
                Self::read(None, &Place::default(), &mut Reader::new("", &paths))
            }
        }
    };
    (
        $(#[doc = $doc:literal])*
        pub struct $name:ident ($ctx:ident : $ctxty:ty) given { $($given:tt)* } $($body:tt)*
    ) => {
        section! { @struct [$(#[doc = $doc])*] $name ($ctx: $ctxty) given { $($given)* } $($body)* }
    };
    (
        @struct [$($attr:tt)*] $name:ident ($ctx:ident : $ctxty:ty)
        given { $( $(#[doc = $gdoc:literal])* $gfield:ident : $gty:ty = $gvalue:expr; )* }
        $( $(#[doc = $fdoc:literal])* $field:ident : $ty:ty = $key:literal, $kind:expr, $effect:ident; )*
    ) => {
        $($attr)*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name {
            $( $(#[doc = $gdoc])* pub $gfield: $gty, )*
            $( $(#[doc = $fdoc])* pub $field: $ty, )*
        }

        impl $name {
            pub(super) fn read_with(
                $ctx: $ctxty,
                value: Option<&Value<'_>>,
                place: &Place,
                reader: &mut Reader<'_>,
            ) -> Self {
                let section = Section::open(value, &[$($key),*], place, reader);
                $( let $field: $ty = section.take($key, $kind, $effect, reader); )*
                Self { $($gfield: $gvalue,)* $($field,)* }
            }

            pub(super) fn keys_with($ctx: $ctxty) -> Vec<Key> {
                vec![$({
                    let kind: Kind<$ty> = $kind;
                    let doc = concat!($($fdoc),*).trim();
                    Key { name: $key, doc, effect: $effect, shape: kind.form.shape, default: kind.default }
                }),*]
            }
        }
    };
}

section! {
    /// The whole configuration, complete and checked.
    pub struct Config {
        /// The listener and its limits.
        server: Server = "server", section().or(empty()), Now;
        /// How upstreams are reached.
        network: Network = "network", section().or(empty()), Now;
        /// Who is spoken to: any number of providers, under names of your own.
        providers: Vec<ProviderConfig> = "providers", providers().or(serde_json::json!({ "anthropic": {} })), Now;
        /// Which provider gets a request.
        routing: Routing = "routing", section().or(empty()), Now;
        /// Between different protocols.
        translation: Translation = "translation", section().or(empty()), Now;
        /// What requests cost.
        cost_tracking: CostTracking = "costTracking", section().or(empty()), Now;
        /// What is kept of requests and answers.
        audit: Audit = "audit", section().or(empty()), Now;
        /// The program's own log.
        log: Log = "log", section().or(empty()), Now;
    }
}

section! {
    /// The listener and its limits.
    pub struct Server {
        /// The address that serves everything; port 0 takes any free one, which is printed.
        listen: SocketAddr = "listen", listen().or("127.0.0.1:54548"), Now;
        /// Permits an address that other machines can reach; needs `token`.
        allow_remote: bool = "allowRemote", boolean().or(false), Now;
        /// Reference to the token whose bearer may spend stored keys; without one, a token is made at the first start.
        token: Option<CredentialRef> = "token", credential().or_null(), Now;
        /// Lets any caller on the loopback interface spend stored keys.
        open_stored_keys: bool = "openStoredKeys", boolean().or(false), Now;
        /// Further names that a `Host` header may carry (dev containers).
        hosts: Vec<String> = "hosts", host().list().or(none()), Now;
        /// Further origins that a browser may call from (editor webviews).
        origins: Vec<String> = "origins", origin().list().or(none()), Now;
        /// The largest request body, in MiB.
        max_body: usize = "maxBodyMb", mebibytes(0.001..=4096.0).or(64), Now;
        /// The sum of all bodies that are held, in MiB; beyond it reading waits for 5 seconds, then requests are refused with 529.
        max_held: usize = "maxHeldMb", mebibytes(0.001..=1_048_576.0).or(512), Now;
        /// Connections at a time.
        max_connections: usize = "maxConnections", integer(1..=1_000_000).or(16384), Now;
        /// How long running answers may finish at the end of the program, in seconds.
        drain: Duration = "drainSecs", secs(0.0..=86_400.0).or(30), Now;
        /// How long running answers may finish in the old process after a restart, in seconds.
        restart_drain: Duration = "restartDrainSecs", secs(0.0..=604_800.0).or(3600), Now;
        /// After this much silence of the upstream, in seconds, a stream gets a `ping` of ours.
        ping: Duration = "pingSecs", secs(0.05..=3600.0).or(15), Now;
    }
}

section! {
    /// How upstreams are reached.
    pub struct Network {
        /// "none", "env" (`HTTPS_PROXY`, `NO_PROXY`) or the URL of an HTTP proxy.
        proxy: ProxySetting = "proxy", proxy().or("none"), Now;
        /// PEM file with certificate authorities that are trusted beside the operating system's.
        ca_file: Option<PathBuf> = "caFile", path().or_null(), Now;
    }
}

/// What is known of a provider before its keys are read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry<'a> {
    pub(super) name: &'a str,
    pub(super) kind: &'static ProviderKind,
    /// `providerType` may be left out where the name is that of a row.
    pub(super) kind_is_named: bool,
}

section! {
    /// One provider. Its base URL is `None` only where it is not enabled.
    pub struct ProviderConfig(entry: Entry<'_>)
    given {
        /// As the configuration calls it.
        name: String = entry.name.to_string();
    }
    /// Whether it may be used.
    enabled: bool = "enabled", boolean().or(true), Now;
    /// What it is. "bedrock" and "vertex" come with a later version and are accepted where `enabled` is false.
    kind: &'static ProviderKind = "providerType", provider_type(entry), Now;
    /// The protocol to speak with it, where it speaks more than one.
    protocol: Option<Protocol> = "protocol", choice(protocol()).or_null(), Now;
    /// Where its API is; what is asked for is put behind it. The default is that of the kind, where it has one.
    base_url: Option<BaseUrl> = "baseUrl", base_url().or_null_for(entry.kind.base_url), Now;
    /// Where its key is: a reference or a list of them; the empty text means none.
    api_keys: Vec<CredentialRef> = "apiKeyRef", credentials(entry), Now;
    /// How long what a helper (`exec:`) printed is used before it is asked again, in seconds.
    api_key_ttl: Duration = "apiKeyTtlSecs", secs(0.05..=604_800.0).or(300), Now;
    /// Whose key is used: "client" takes the caller's own, else ours; "stored" always ours.
    key_mode: KeyMode = "apiKeyMode", choice(&[("client", KeyMode::Client), ("stored", KeyMode::Stored)]).or("client"), Now;
    /// The model that is used where the asked one is not of this provider.
    default_model: Option<String> = "defaultModel", words("model").or_null_for(entry.kind.default_model), Now;
    /// The provider's models by the names that are asked for.
    model_aliases: Vec<(String, String)> = "modelAliases", words("model").map(any_name).or(empty()), Now;
    /// How often one target is tried again at most.
    max_retries: u32 = "maxRetries", integer(0..=100).or(1), Now;
    /// How long the head of a streaming answer may take, in seconds; other answers wait at least 600 seconds.
    timeout: Duration = "timeoutSecs", secs(0.05..=86_400.0).or(600), Now;
    /// How long a connection may take to open, in seconds.
    connect_timeout: Duration = "connectTimeoutSecs", secs(0.05..=3600.0).or(10), Now;
    /// The longest silence within an answer, in seconds.
    idle_timeout: Duration = "idleTimeoutSecs", secs(0.05..=86_400.0).or(300), Now;
    /// The longest time that a stream may take in all, in seconds.
    max_stream: Duration = "maxStreamSecs", secs(0.05..=604_800.0).or(7200), Now;
    /// Headers that are added to every request to it.
    headers: Vec<(String, Secret)> = "headers", headers().or(empty()), Now;
    /// Azure: the deployment.
    deployment: Option<String> = "deployment", words("deployment").or_null(), Now;
    /// Azure: the version of its API.
    api_version: Option<String> = "apiVersion", words("version").or_null(), Now;
    /// Ollama: a fixed size of the context in tokens; `null` takes it from the request.
    num_ctx: Option<u32> = "numCtx", integer(1..=1_000_000_000).or_null(), Now;
    /// The most tokens of output that its models give: a client that asks for more in another protocol asks for this.
    /// `null`: what is known of the model by its name.
    max_output: Option<u32> = "maxOutputTokens", integer(1..=1_000_000_000).or_null(), Now;
    /// Requests to it at a time; `null`: any number.
    max_concurrent: Option<usize> = "maxConcurrent", integer(1..=1_000_000).or_null(), Now;
    /// Requests that may wait for their turn.
    max_queued: usize = "maxQueued", integer(0..=1_000_000).or(64), Now;
}

/// Whose key goes to a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyMode {
    /// The caller's own, else ours.
    Client,
    /// Always ours.
    Stored,
}

section! {
    /// Which provider gets a request.
    pub struct Routing {
        /// The provider of every request that no rule sends elsewhere.
        default_provider: String = "defaultProvider", provider_name().or("anthropic"), Now;
        /// The providers that are tried in this order; names that are not configured are reported once and skipped.
        fallback_chain: Vec<String> = "fallbackChain", provider_name().list().or(vec!["anthropic"]), Now;
        /// Where requests of an agent type go: a provider, or provider and model.
        agent_rules: Vec<(String, Target)> = "agentRules", target().map(any_name).or(empty()), Now;
        /// The provider of all models whose name contains a text.
        model_tier_rules: Vec<(String, String)> = "modelTierRules", provider_name().map(any_name).or(empty()), Now;
        /// Rules that come before `agentRules`; the first that matches decides.
        rules: Vec<Rule> = "rules", section().list().or(none()), Now;
        /// Keeps a session at its provider and key.
        affinity: bool = "affinity", boolean().or(true), Now;
        /// Refuses a switch whose cold prompt cache costs more than this, in US dollars.
        max_switch_cost: Option<NanoUsd> = "maxSwitchCostUsd", dollars().or_null(), Now;
        /// Asks a second target beside the first when that has not begun its stream after this many milliseconds; the slower one is cancelled.
        hedge_after: Option<Duration> = "hedgeAfterMs", millis(1.0..=3_600_000.0).or_null(), Now;
        /// How many seconds long an answer whose client is gone goes on, for the same request to get it; 0: not at all.
        replay: Duration = "replaySecs", secs(0.0..=86_400.0).or(0), Now;
        /// After this many seconds without content an accepted answer is kept, and its comments and pings are relayed.
        commit_after: Duration = "commitAfterSecs", secs(0.0..=3600.0).or(20), Now;
        /// Guesses the type of an agent whose client does not tell it from the beginning of its system prompt (Claude Code's built-in ones).
        guess_agent_types: bool = "guessAgentTypes", boolean().or(false), Now;
        /// Lets a model that continues a partial answer of its own do so when its stream breaks off.
        continue_on_break: bool = "continueOnBreak", boolean().or(false), Now;
        /// What follows when a subscription is used up: "pass" hands the refusal on, a provider's name lets that one serve.
        on_subscription_limit: String = "onSubscriptionLimit", provider_name().or("pass"), Now;
    }
}

section! {
    /// A provider, and the model to ask it for.
    pub struct Target {
        /// The provider's name.
        provider: String = "provider", provider_name().required("anthropic"), Now;
        /// The model, where it is not to be the asked one.
        model: Option<String> = "model", words("model").or_null(), Now;
    }
}

section! {
    /// A rule of routing.
    pub struct Rule {
        /// As logs and records call it.
        name: Option<String> = "name", words("name").or_null(), Now;
        /// All of these must hold; what is null or empty holds always. Where a list is given, one of it must hold.
        when: When = "when", section().or(empty()), Now;
        /// What then holds.
        then: Use = "use", section().required(empty()), Now;
    }
}

section! {
    /// The conditions of a rule. In a pattern `*` stands for any text.
    pub struct When {
        /// Patterns of the asked model.
        model: Vec<Glob> = "model", glob().one_or_more().or(none()), Now;
        /// The protocol that the client speaks.
        protocol: Option<Protocol> = "protocol", choice(protocol()).or_null(), Now;
        /// Who asks: "main" is the client's main loop, "sub" an agent that it started.
        agent: Option<Agent> = "agent", choice(&[("main", Agent::Main), ("sub", Agent::Sub)]).or_null(), Now;
        /// Patterns of the agent's type.
        agent_type: Vec<Glob> = "agentType", glob().one_or_more().or(none()), Now;
        /// Patterns of the client's session.
        session: Vec<Glob> = "session", glob().one_or_more().or(none()), Now;
        /// Patterns of the project, as the header `x-cco-project` names it.
        project: Vec<Glob> = "project", glob().one_or_more().or(none()), Now;
        /// Request headers, with patterns of their values; all of them must match.
        headers: Vec<(String, Vec<Glob>)> = "headers", glob().one_or_more().map(header_name).or(empty()), Now;
        /// Patterns of the caller's key, as records show it: its last four characters behind `…`.
        key_id: Vec<Glob> = "keyId", glob().one_or_more().or(none()), Now;
        /// Whether a stream is asked for.
        stream: Option<bool> = "stream", boolean().or_null(), Now;
        /// Whether the model is asked to think.
        thinking: Option<bool> = "thinking", boolean().or_null(), Now;
        /// Whether tools are offered.
        tools: Option<bool> = "tools", boolean().or_null(), Now;
        /// Whether there are images in it.
        images: Option<bool> = "images", boolean().or_null(), Now;
        /// The prompt is longer than this many tokens. They are estimated: from the session's last answer, else from the size.
        prompt_tokens_over: Option<u64> = "promptTokensOver", integer(0..=1_000_000_000).or_null(), Now;
        /// The prompt is at most this many tokens long.
        prompt_tokens_up_to: Option<u64> = "promptTokensUpTo", integer(0..=1_000_000_000).or_null(), Now;
        /// The gateway serves more than this many requests at the moment.
        in_flight_over: Option<u64> = "inFlightOver", integer(0..=1_000_000).or_null(), Now;
        /// Hours of the week in UTC, for example "mon-fri 09:00-17:00" or "22:00-06:00".
        hours: Vec<Hours> = "hoursUtc", hours().one_or_more().or(none()), Now;
    }
}

/// Who asks, as far as a client tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Agent {
    /// The client's main loop.
    Main,
    /// An agent that it started.
    Sub,
}

section! {
    /// The consequence of a rule.
    pub struct Use {
        /// The providers that are tried: names, or objects that also name the model to ask this one for. Without any, those that would be tried without the rule.
        providers: Vec<Choice> = "providers", chosen().list().or(none()), Now;
        /// Which of the providers comes first: "order" takes them as they are listed, "weight" draws by `weight`, "latency" takes the one that has begun its answers the soonest.
        pick: Pick = "pick", choice(&[("order", Pick::Order), ("weight", Pick::Weight), ("latency", Pick::Latency)]).or("order"), Now;
        /// Whether `fallbackChain` follows behind them.
        fallback: bool = "fallback", boolean().or(true), Now;
        /// The model, where it is not to be the asked one.
        model: Option<String> = "model", words("model").or_null(), Now;
        /// In place of the providers' own `timeoutSecs`.
        timeout: Option<Duration> = "timeoutSecs", secs(0.05..=86_400.0).or_null(), Now;
        /// In place of the providers' own `idleTimeoutSecs`.
        idle_timeout: Option<Duration> = "idleTimeoutSecs", secs(0.05..=86_400.0).or_null(), Now;
        /// In place of the providers' own `maxStreamSecs`.
        max_stream: Option<Duration> = "maxStreamSecs", secs(0.05..=604_800.0).or_null(), Now;
        /// Headers that are added to the request, in place of the providers' own of the same names.
        headers: Vec<(String, Secret)> = "headers", headers().or(empty()), Now;
        /// Refuses the request with this message; nothing else can stand beside it.
        refuse: Option<String> = "refuse", words("message").or_null(), Now;
    }
}

section! {
    /// One of the providers of a rule.
    pub struct Choice {
        /// The provider's name.
        provider: String = "provider", provider_name().required("anthropic"), Now;
        /// The model, where it is not to be the rule's or the asked one.
        model: Option<String> = "model", words("model").or_null(), Now;
        /// How often it comes first, in relation to the others; 0: only when they cannot be used.
        weight: u32 = "weight", integer(0..=1_000_000).or(1), Now;
    }
}

/// Which of the providers of a rule comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pick {
    /// The first one.
    Order,
    /// One by chance, by weight.
    Weight,
    /// The one that has begun its answers the soonest.
    Latency,
}

section! {
    /// Between different protocols.
    pub struct Translation {
        /// What follows when a translation cannot carry something of a request: "warn" goes on and says so, "refuse" does
        /// not.
        on_loss: OnLoss = "onLoss", choice(&[("warn", OnLoss::Warn), ("refuse", OnLoss::Refuse)]).or("warn"), Now;
    }
}

/// What follows when a translation cannot carry something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnLoss {
    /// Go on and say so.
    Warn,
    /// Refuse the request.
    Refuse,
}

section! {
    /// What requests cost.
    pub struct CostTracking {
        /// Whether costs are computed.
        enabled: bool = "enabled", boolean().or(true), Now;
        /// Prices by model that come before the built-in ones.
        pricing_overrides: Vec<(String, Price)> = "pricingOverrides", section().map(any_name).or(empty()), Now;
        /// A file with prices that come before the built-in ones.
        prices_file: Option<PathBuf> = "pricesFile", path().or_null(), Now;
    }
}

section! {
    /// Prices of a model, in US dollars for a million tokens; `null`: not known.
    pub struct Price {
        /// Input that was not cached.
        input: Option<NanoUsd> = "inputPerMillion", dollars().or_null(), Now;
        /// Output.
        output: Option<NanoUsd> = "outputPerMillion", dollars().or_null(), Now;
        /// Input that was written to the cache.
        cache_write: Option<NanoUsd> = "cacheWritePerMillion", dollars().or_null(), Now;
        /// Input that was read from the cache.
        cache_read: Option<NanoUsd> = "cacheReadPerMillion", dollars().or_null(), Now;
    }
}

section! {
    /// What is kept of requests and answers.
    pub struct Audit {
        /// Whether anything is kept.
        enabled: bool = "enabled", boolean().or(true), Now;
        /// Whether the bodies of requests are kept.
        request_bodies: bool = "logRequestBodies", boolean().or(true), Now;
        /// Whether the bodies of answers are kept.
        response_bodies: bool = "logResponseBodies", boolean().or(true), Now;
        /// Whether kept bodies are encrypted.
        encrypt: bool = "encrypt", boolean().or(true), Now;
        /// How long they are kept, in days.
        retention: Duration = "retentionDays", days(0.0..=36_500.0).or(30), Now;
        /// How much room they may take, in GiB.
        max_bytes: u64 = "maxGb", gibibytes(0.001..=1_048_576.0).or(2), Now;
        /// The database; without one a file in our folder.
        db_path: Option<PathBuf> = "dbPath", path().or_null(), Now;
        /// Patterns whose matches are not kept.
        redact: Vec<String> = "redact", pattern().list().or(none()), Now;
        /// What follows when nothing can be written: "continue" serves all the same, "refuse" does not.
        on_failure: OnFailure = "onFailure", choice(&[("continue", OnFailure::Continue), ("refuse", OnFailure::Refuse)]).or("continue"), Now;
        /// How long an answer may wait for its record, in milliseconds.
        journal_wait: Duration = "journalWaitMs", millis(0.0..=60_000.0).or(100), Now;
    }
}

/// What follows when the audit cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// Serve all the same.
    Continue,
    /// Refuse requests.
    Refuse,
}

section! {
    /// The program's own log.
    pub struct Log {
        /// What is the least important that is written.
        level: Level = "level", choice(&[
            ("error", Level::Error), ("warn", Level::Warn), ("info", Level::Info), ("debug", Level::Debug), ("trace", Level::Trace),
        ]).or("info"), Now;
        /// "human" or "json"; "auto" is for people on a terminal and JSON otherwise.
        format: Format = "format", choice(&[("auto", Format::Auto), ("human", Format::Human), ("json", Format::Json)]).or("auto"), Now;
        /// The size at which a new file is begun, in MiB; where the log goes to a file.
        max_bytes: usize = "maxMb", mebibytes(0.001..=1_048_576.0).or(10), Now;
        /// How many files are kept.
        files: u32 = "files", integer(1..=1000).or(5), Now;
    }
}

/// How important a line of the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Data lost, or a human needed.
    Error,
    /// Odd, but handled.
    Warn,
    /// The life of the program.
    Info,
    /// One line an exchange.
    Debug,
    /// One line a frame.
    Trace,
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people on a terminal, as JSON otherwise.
    Auto,
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

fn empty() -> serde_json::Value {
    serde_json::json!({})
}

fn none() -> serde_json::Value {
    serde_json::json!([])
}
