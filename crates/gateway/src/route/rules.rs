//! The part of a configuration that routing asks, taken apart once.

use wire::protocol::Protocol;

use super::answers::{Gate, Subject};
use super::facts::Facts;
use super::model::Names;
use super::{Changes, Keys};
use crate::catalog::ProviderKind;
use crate::client::inbound::Operation;
use crate::config::{Agent, Config, Hours, KeyMode, NanoUsd, Pick, ProviderConfig, Rule};
use crate::glob::Glob;
use crate::party::Guess;

/// How keys begin whose vendor they tell, and the kind of provider that they are for. The longer beginning first.
const FORMS: [(&str, &str); 5] = [
    ("sk-ant-", "anthropic"),
    ("sk-proj-", "openai"),
    ("sk-svcacct-", "openai"),
    ("sk-admin-", "openai"),
    ("sk-or-", "openrouter"),
];
/// How many vendors' keys begin, OpenAI's older ones among them.
const COMMON_FORM: &str = "sk-";
/// Providers of this kind speak for OpenAI where the user says so: its keys go to one that is the default.
const COMPATIBLE: &str = "openai-compatible";

/// The vendor whose form a key has, as the catalog calls its kind; `None`: it could be anybody's.
pub fn vendor_of_key(key: &str) -> Option<&'static str> {
    FORMS.iter().find(|(form, _)| key.starts_with(form)).map(|(_, vendor)| *vendor)
}

/// The rules of one configuration.
#[derive(Debug)]
pub struct RuleSet {
    pub(super) providers: Box<[Known]>,
    pub(super) rules: Box<[Compiled]>,
    /// What is looked at of each rule first.
    pub(super) gates: Box<[Gate]>,
    /// Every condition once, however many rules have it.
    pub(super) tests: Box<[Test]>,
    /// The names of all headers that rules look at.
    pub(super) headers: Box<[Box<str>]>,
    pub(super) agents: Box<[(Glob, Choice)]>,
    /// Parts of models' names in lower case.
    pub(super) tiers: Box<[(Box<str>, u16)]>,
    pub(super) default: u16,
    pub(super) chain: Box<[u16]>,
    pub(super) affinity: bool,
    pub(super) max_switch: Option<NanoUsd>,
    pub(super) on_subscription_limit: Option<u16>,
    guess: Guess,
}

/// A provider, as far as routing asks.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) name: Box<str>,
    pub(super) enabled: bool,
    /// The protocol that is forced.
    pub(super) forced: Option<Protocol>,
    pub(super) names: Names,
    pub(super) takes_callers_keys: bool,
    /// The kind needs no key.
    pub(super) keyless: bool,
    /// References to keys.
    pub(super) keys: usize,
    /// What to do where there is no key, nor a reference to one.
    pub(super) no_key: Box<str>,
    kind: &'static ProviderKind,
}

/// All references are taken to lead to a key: for those who ask what would be.
#[derive(Debug)]
pub struct Assumed(Box<[u64]>);

impl Assumed {
    /// Of this configuration.
    pub fn of(config: &Config) -> Self {
        Self(config.providers.iter().map(|provider| (1u64 << provider.api_keys.len().min(63)) - 1).collect())
    }
}

impl Keys for Assumed {
    fn stored(&self, provider: u16) -> u64 {
        self.0.get(usize::from(provider)).copied().unwrap_or(0)
    }

    fn why_none(&self, _: u16) -> Option<String> {
        None
    }
}

/// A provider that somebody chose, and the model to ask it for.
#[derive(Debug)]
pub(super) struct Choice {
    pub(super) provider: u16,
    pub(super) model: Option<Box<str>>,
    pub(super) weight: u32,
}

/// A rule.
#[derive(Debug)]
pub(super) struct Compiled {
    pub(super) rule: Rule,
    /// The places of its conditions, cheap ones first.
    pub(super) tests: Box<[usize]>,
    pub(super) choices: Box<[Choice]>,
    pub(super) pick: Pick,
}

/// One condition.
#[derive(Debug, PartialEq)]
pub(super) enum Test {
    /// One of the patterns fits.
    Text(Subject, Box<[Glob]>),
    Stream(bool),
    Protocol(Protocol),
    InFlightOver(u64),
    Hours(Box<[Hours]>),
    Tools(bool),
    Thinking(bool),
    Agent(Agent),
    PromptTokensOver(u64),
    PromptTokensUpTo(u64),
    Images(bool),
    /// None of the rule's providers is configured.
    Never,
}

impl Test {
    /// Whether it holds. Texts have to be looked up first; see [`Answers`](super::answers::Answers).
    pub(super) fn holds(&self, facts: &Facts<'_>) -> bool {
        match self {
            Self::Stream(want) => facts.stream == *want,
            Self::Protocol(want) => facts.protocol == *want,
            Self::InFlightOver(limit) => facts.in_flight > *limit,
            Self::Hours(hours) => hours.iter().any(|hours| hours.contains(facts.unix)),
            Self::Tools(want) => facts.tools() == *want,
            Self::Thinking(want) => facts.thinking() == *want,
            Self::Agent(want) => facts.party.is_sub_agent() == (*want == Agent::Sub),
            Self::PromptTokensOver(limit) => facts.prompt_tokens() > *limit,
            Self::PromptTokensUpTo(limit) => facts.prompt_tokens() <= *limit,
            Self::Images(want) => facts.images() == *want,
            Self::Text(..) | Self::Never => false,
        }
    }
}

impl RuleSet {
    /// Takes the configuration apart.
    pub fn compile(config: &Config) -> Self {
        let routing = &config.routing;
        let find =
            |name: &str| config.providers.iter().position(|p| p.name == name).and_then(|at| u16::try_from(at).ok());
        let choice = |provider: &str, model: &Option<String>, weight| {
            Some(Choice { provider: find(provider)?, model: model.as_deref().map(Into::into), weight })
        };
        let mut headers: Vec<Box<str>> = Vec::new();
        let mut header = |name: &str| {
            headers.iter().position(|known| known.eq_ignore_ascii_case(name)).unwrap_or_else(|| {
                headers.push(name.into());
                headers.len() - 1
            })
        };
        let mut all: Vec<Test> = Vec::new();
        let mut compiled = |rule: &Rule| {
            let chosen = rule.then.providers.iter();
            let choices: Box<[_]> = chosen.filter_map(|one| choice(&one.provider, &one.model, one.weight)).collect();
            let mut tests = tests(rule, &mut header);
            if choices.is_empty() && !rule.then.providers.is_empty() {
                tests.insert(0, Test::Never);
            }
            let place = |test| {
                all.iter().position(|known| *known == test).unwrap_or_else(|| {
                    all.push(test);
                    all.len() - 1
                })
            };
            let tests = tests.into_iter().map(place).collect();
            Compiled { rule: rule.clone(), tests, choices, pick: rule.then.pick }
        };
        let agents = routing
            .agent_rules
            .iter()
            .filter_map(|(name, target)| Some((Glob::new(name), choice(&target.provider, &target.model, 1)?)));
        let tiers = routing.model_tier_rules.iter();
        let rules: Box<[_]> = routing.rules.iter().map(&mut compiled).collect();
        Self {
            providers: config.providers.iter().map(Known::new).collect(),
            gates: rules.iter().map(|rule| Gate::new(&rule.tests, &all)).collect(),
            rules,
            tests: all.into(),
            headers: headers.into(),
            agents: agents.collect(),
            tiers: tiers.filter_map(|(tier, name)| Some((tier.to_ascii_lowercase().into(), find(name)?))).collect(),
            default: find(&routing.default_provider).unwrap_or(0),
            chain: routing.fallback_chain.iter().filter_map(|name| find(name)).collect(),
            affinity: routing.affinity,
            max_switch: routing.max_switch_cost,
            on_subscription_limit: find(&routing.on_subscription_limit),
            guess: if routing.guess_agent_types { Guess::ByPrompt } else { Guess::Never },
        }
    }

    /// How the types of agents are found.
    pub fn guess(&self) -> Guess {
        self.guess
    }

    /// Whether another provider serves when a caller's subscription is used up.
    pub fn replaces_subscriptions(&self) -> bool {
        self.on_subscription_limit.is_some()
    }

    /// Who serves when a caller's subscription is used up.
    pub fn replacement(&self) -> Option<&str> {
        self.on_subscription_limit.map(|provider| self.name(provider))
    }

    /// The default provider and the chain, as requests go through them where no rule matches.
    pub fn line(&self) -> impl Iterator<Item = u16> {
        [self.default].into_iter().chain(self.chain.iter().copied())
    }

    /// The provider's name.
    pub fn name(&self, provider: u16) -> &str {
        self.providers.get(usize::from(provider)).map_or("", |known| &known.name)
    }

    /// The place of the provider of this name.
    pub fn find(&self, name: &str) -> Option<u16> {
        self.providers.iter().position(|known| &*known.name == name).and_then(|at| u16::try_from(at).ok())
    }

    /// What the rule at this place changes.
    pub fn changes(&self, rule: Option<usize>) -> Changes<'_> {
        rule.and_then(|at| self.rules.get(at)).map(|rule| Changes::of(&rule.rule)).unwrap_or_default()
    }

    /// The provider that a key of this vendor would go to if it were enabled.
    pub fn switched_off(&self, vendor: &str) -> Option<&str> {
        let is_it = |known: &&Known| known.kind.name == vendor && !known.enabled && known.takes_callers_keys;
        self.providers.iter().find(is_it).map(|known| &*known.name)
    }

    /// The one provider that a caller's own key goes to. A key whose form tells its vendor goes to a provider of that
    /// kind and to no other; `None`: there is none, and the key is not spent. Any other key goes to the provider that the
    /// gateway stands in for, which is the default one (or the first of the chain that is enabled).
    pub fn home_of_key(&self, key: &str, protocol: Protocol) -> Option<u16> {
        let known = |at: u16| self.providers.get(usize::from(at));
        let all = (0..self.providers.len()).filter_map(|at| u16::try_from(at).ok());
        let of_kind = |name: &str| {
            let is_it = |at: &u16| known(*at).is_some_and(|it| it.kind.name == name && it.takes_callers_key());
            self.line().chain(all).find(is_it)
        };
        let default = || self.line().find(|at| known(*at).is_some_and(|it| it.enabled)).unwrap_or(self.default);
        if let Some(vendor) = vendor_of_key(key) {
            let speaks_for =
                |at: &u16| known(*at).is_some_and(|it| it.kind.name == COMPATIBLE && it.takes_callers_key());
            return of_kind(vendor).or_else(|| Some(default()).filter(speaks_for).filter(|_| vendor != "anthropic"));
        }
        let of_openai = matches!(protocol, Protocol::OpenAiChat | Protocol::OpenAiResponses);
        if of_openai && key.starts_with(COMMON_FORM) {
            // One that is asked in its own protocol and wants keys is meant by them; any other is not.
            let wants = |it: &Known| !it.kind.keyless || it.kind.name == COMPATIBLE;
            let is_meant = |it: &Known| wants(it) && it.kind.way(protocol, it.forced).protocol == protocol;
            if !known(default()).is_some_and(is_meant) {
                return of_kind("openai").or_else(|| Some(default()));
            }
        }
        Some(default())
    }
}

impl Known {
    fn new(config: &ProviderConfig) -> Self {
        let no_key = match config.kind.key_variable {
            Some(variable) => format!("set `{variable}` where the gateway runs, or `apiKeyRef`, or send your own key"),
            None => "set `apiKeyRef`, or send your own key".into(),
        };
        Self {
            name: config.name.as_str().into(),
            enabled: config.enabled && config.kind.supported,
            forced: config.protocol,
            // A deployment serves one model, whatever was asked for.
            names: Names::new(
                &config.model_aliases,
                config.default_model.as_deref().or(config.deployment.as_deref()),
                config.kind,
                config.protocol,
            ),
            takes_callers_keys: config.key_mode == KeyMode::Client,
            keyless: config.kind.keyless && config.api_keys.is_empty(),
            keys: config.api_keys.len(),
            no_key: no_key.into(),
            kind: config.kind,
        }
    }

    fn takes_callers_key(&self) -> bool {
        self.enabled && self.takes_callers_keys
    }

    /// Whether it can do this for a client of that protocol: what is asked of a model is translated, anything else is not.
    pub(super) fn serves(&self, protocol: Protocol, operation: Operation) -> bool {
        operation.is_held() || self.kind.way(protocol, self.forced).protocol == protocol
    }
}

/// The conditions of a rule, those that are answered soonest first. `header` gives the place of a header's name.
fn tests(rule: &Rule, mut header: impl FnMut(&str) -> usize) -> Vec<Test> {
    let when = &rule.when;
    let text = |subject, globs: &[Glob]| (!globs.is_empty()).then(|| Test::Text(subject, globs.into()));
    let texts = [
        text(Subject::Model, &when.model),
        text(Subject::Session, &when.session),
        text(Subject::Project, &when.project),
        text(Subject::KeyId, &when.key_id),
    ];
    let headers = when
        .headers
        .iter()
        .map(|(name, globs)| Some(Test::Text(Subject::Header(header(name)), globs.as_slice().into())));
    let at_hand = [
        when.stream.map(Test::Stream),
        when.protocol.map(Test::Protocol),
        when.in_flight_over.map(Test::InFlightOver),
        (!when.hours.is_empty()).then(|| Test::Hours(when.hours.as_slice().into())),
        when.tools.map(Test::Tools),
        when.thinking.map(Test::Thinking),
    ];
    let into_the_body = [
        when.agent.map(Test::Agent),
        text(Subject::AgentType, &when.agent_type),
        when.prompt_tokens_over.map(Test::PromptTokensOver),
        when.prompt_tokens_up_to.map(Test::PromptTokensUpTo),
        when.images.map(Test::Images),
    ];
    texts.into_iter().chain(headers).chain(at_hand).chain(into_the_body).flatten().collect()
}
