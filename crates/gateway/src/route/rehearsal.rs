//! Questions to routing without a gateway: a request as somebody describes it, and what is expected of its plan.

use std::collections::BTreeMap;
use std::fmt;

use bytes::BytesMut;
use http1::{Limits, RequestHead, Scan};
use serde::Deserialize;
use serde_json::{Value, json};
use wire::envelope::Envelope;
use wire::protocol::Protocol;

use super::{Affinity, Assumed, Cause, Explanation, Facts, NoPlan, OwnKey, Purse, RuleSet, Subscriptions, View};
use crate::client::inbound::Operation;
use crate::config::Config;
use crate::health::{Health, Time};
use crate::signals::moment;

/// A request, described. Everything may be left out.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Question {
    /// What the client speaks, as the configuration names protocols.
    pub protocol: Option<String>,
    /// The asked model.
    pub model: Option<String>,
    /// "main" or "sub".
    pub agent: Option<Role>,
    /// The type of the agent.
    pub agent_type: Option<String>,
    /// The session.
    pub session: Option<String>,
    /// The project.
    pub project: Option<String>,
    /// Request headers.
    pub headers: BTreeMap<String, String>,
    /// Whose key it brings; [`Key::Own`] if nothing is said.
    pub key: Key,
    /// The caller's key, as records show it.
    pub key_id: Option<String>,
    /// Whether a stream is asked for.
    pub stream: bool,
    /// Whether the model is asked to think.
    pub thinking: bool,
    /// Whether tools are offered.
    pub tools: bool,
    /// Whether there are images in it.
    pub images: bool,
    /// The size of the prompt.
    pub prompt_tokens: Option<u64>,
    /// Requests that the gateway serves at the moment.
    pub in_flight: u64,
    /// The time: `2026-11-22T15:53:11Z`, or seconds since 1970.
    pub at: Option<String>,
    /// The body itself, in place of what else would make it up.
    pub body: Option<Value>,
    /// The head and the body as they came over the network, in place of everything that is a part of them.
    #[serde(skip)]
    pub raw: Option<Vec<u8>>,
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The client's main loop.
    Main,
    /// An agent that it started.
    Sub,
}

/// Whose key a request brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Key {
    /// Its own, of Anthropic's form, and the right to spend stored ones: as a client on one's own machine has it.
    #[default]
    Own,
    /// Its own and no such right.
    OwnOnly,
    /// None of its own, and the right.
    Stored,
}

/// What is expected of a plan. What is left out may be anything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Expected {
    /// The provider that comes first.
    pub provider: Option<String>,
    /// The model that it is asked for.
    pub model: Option<String>,
    /// All providers, in order.
    pub providers: Option<Vec<String>>,
    /// The name or the number (from 1) of the rule that matches; "none": no rule does.
    pub rule: Option<String>,
    /// The request is refused, in words that hold these.
    pub refused: Option<String>,
}

/// A question with what is expected of the answer.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What it is about.
    #[serde(default)]
    pub name: Option<String>,
    /// The request.
    pub request: Question,
    /// What must become of it.
    pub expect: Expected,
}

/// The description is of no request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadQuestion(String);

impl fmt::Display for BadQuestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadQuestion {}

/// One target of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Goes {
    /// The provider's name.
    pub provider: String,
    /// The model that it is asked for; empty: none.
    pub model: String,
    /// The credential, in words.
    pub key: String,
}

/// What becomes of a request.
#[derive(Debug, Clone)]
pub struct Answer {
    /// In the order in which they are tried.
    pub targets: Vec<Goes>,
    /// The rule that matches: its place and its name.
    pub rule: Option<(usize, Option<String>)>,
    /// What decided who comes first, as the configuration names it.
    pub cause: &'static str,
    /// The message, if it is refused.
    pub refused: Option<String>,
    /// Why.
    pub explanation: Explanation,
}

/// Answers questions about one configuration, as if everything worked and every reference led to a key.
#[derive(Debug)]
pub struct Rehearsal {
    rules: RuleSet,
    names: Vec<Option<String>>,
    keys: Assumed,
    health: Health,
    affinity: Affinity,
    subscriptions: Subscriptions,
}

impl Rehearsal {
    /// Of this configuration.
    pub fn new(config: &Config) -> Self {
        Self {
            rules: RuleSet::compile(config),
            names: config.routing.rules.iter().map(|rule| rule.name.clone()).collect(),
            keys: Assumed::of(config),
            health: Health::new(config.providers.iter().map(|provider| provider.name.clone())),
            affinity: Affinity::default(),
            subscriptions: Subscriptions::default(),
        }
    }

    /// What becomes of this request.
    pub fn ask(&self, question: &Question) -> Result<Answer, BadQuestion> {
        let (head, body) = question.parts()?;
        let envelope = Envelope::read(&body).map_err(|error| BadQuestion(error.to_string()))?;
        let protocol = match question.protocol.as_deref() {
            Some(name) => crate::config::protocol_named(name)
                .ok_or_else(|| BadQuestion(format!("`{name}` is no protocol: write for example \"anthropic\"")))?,
            None => Protocol::AnthropicMessages,
        };
        let operation = Operation::of(head.method(), head.path()).unwrap_or(Operation::Opaque);
        let mut facts = Facts::of(&head, Some((&body, &envelope)), protocol, operation, self.rules.guess());
        facts.key_id = question.key_id.as_deref();
        facts.in_flight = question.in_flight;
        facts.unix = question.unix()?;
        if let Some(tokens) = question.prompt_tokens {
            facts.set_prompt_tokens(tokens);
        }
        let own = self.rules.home_of_key("sk-ant-", protocol).map(|home| OwnKey { home, id: 0 });
        let purse = match question.key {
            Key::Own => Purse { own, stored: true },
            Key::OwnOnly => Purse { own, stored: false },
            Key::Stored => Purse { own: None, stored: true },
        };
        let view = View {
            now: Time::default(),
            health: &self.health,
            keys: &self.keys,
            affinity: &self.affinity,
            subscriptions: &self.subscriptions,
            prices: &(),
            chance: 0,
        };
        let (plan, explanation) = self.rules.explain(&facts, &purse, &view);
        let named = |at: usize| (at, self.names.get(at).cloned().flatten());
        Ok(match plan {
            Ok(plan) => Answer {
                targets: plan
                    .targets
                    .iter()
                    .map(|target| Goes {
                        provider: self.rules.name(target.provider).into(),
                        model: target.model.into(),
                        key: target.slot.to_string(),
                    })
                    .collect(),
                rule: plan.rule.map(named),
                cause: match plan.cause {
                    Cause::Rule(..) => "rules",
                    Cause::Agent(_) => "agentRules",
                    Cause::Tier(_) => "modelTierRules",
                    Cause::Default => "defaultProvider",
                    Cause::Subscription => "onSubscriptionLimit",
                },
                refused: None,
                explanation,
            },
            Err(why) => {
                let rule = match why {
                    NoPlan::Refused { rule, .. } => Some(named(rule)),
                    NoPlan::NoTarget { rule } => rule.map(named),
                };
                let refusal = self.rules.refusal(&facts, &purse, &view);
                Answer { targets: Vec::new(), rule, cause: "rules", refused: Some(refusal.message.into()), explanation }
            }
        })
    }
}

impl Question {
    fn unix(&self) -> Result<i64, BadQuestion> {
        let Some(at) = &self.at else { return Ok(0) };
        moment(at).ok_or_else(|| BadQuestion(format!("`{at}` is no time: write for example \"2026-11-22T15:53:11Z\"")))
    }

    fn parts(&self) -> Result<(RequestHead, Vec<u8>), BadQuestion> {
        let (mut bytes, body) = match &self.raw {
            Some(raw) => {
                // A file that a person wrote has bare line feeds.
                let text = String::from_utf8_lossy(raw);
                let text = text.replace("\r\n", "\n");
                let (head, body) = text.split_once("\n\n").unwrap_or((text.trim_end(), ""));
                let mut head = head.replace('\n', "\r\n");
                for (name, value) in &self.headers {
                    head.push_str(&format!("\r\n{name}: {value}"));
                }
                (BytesMut::from(format!("{head}\r\n\r\n").as_str()), body.as_bytes().to_vec())
            }
            None => (self.head(), self.made_up_body()),
        };
        let head = RequestHead::take(&mut bytes, &mut Scan::default(), &Limits::default())
            .map_err(|error| BadQuestion(format!("the head of the request cannot be read: {error}")))?
            .ok_or_else(|| BadQuestion("the head of the request is not whole: it ends with an empty line".into()))?;
        Ok((head, body))
    }

    fn head(&self) -> BytesMut {
        let mut head = String::from("POST /v1/messages HTTP/1.1\r\nhost: rehearsal\r\n");
        let mut field = |name: &str, value: &str| head.push_str(&format!("{name}: {value}\r\n"));
        if let Some(name) = &self.agent_type {
            field("x-cco-agent", name);
        }
        if self.agent == Some(Role::Sub) {
            field("x-claude-code-agent-id", "rehearsal");
        }
        if let Some(session) = &self.session {
            field("x-claude-code-session-id", session);
        }
        if let Some(project) = &self.project {
            field("x-cco-project", project);
        }
        for (name, value) in &self.headers {
            field(name, value);
        }
        head.push_str("\r\n");
        BytesMut::from(head.as_str())
    }

    fn made_up_body(&self) -> Vec<u8> {
        let mut body = match &self.body {
            Some(body) => body.clone(),
            None => json!({}),
        };
        if let Some(members) = body.as_object_mut() {
            let mut set = |key: &str, wanted: bool, value: Value| {
                if wanted {
                    members.insert(key.into(), value);
                }
            };
            set("model", self.model.is_some(), json!(self.model));
            set("stream", self.stream, json!(true));
            set("thinking", self.thinking, json!({ "type": "adaptive" }));
            set("tools", self.tools, json!([{ "name": "rehearsal" }]));
            set("messages", self.images, json!([{ "content": [{ "type": "image" }] }]));
        }
        body.to_string().into_bytes()
    }
}

impl Expected {
    /// What is not as expected, one line each.
    pub fn unmet(&self, answer: &Answer) -> Vec<String> {
        let mut unmet = Vec::new();
        let mut check = |what: &str, want: Option<String>, got: Option<String>| {
            if let Some(want) = want
                && got.as_ref() != Some(&want)
            {
                let got = got.map_or("nothing".into(), |got| format!("`{got}`"));
                unmet.push(format!("{what}: expected `{want}`, got {got}"));
            }
        };
        let first = answer.targets.first();
        check("provider", self.provider.clone(), first.map(|target| target.provider.clone()));
        check("model", self.model.clone(), first.map(|target| target.model.clone()));
        let all = answer.targets.iter().map(|target| target.provider.as_str()).collect::<Vec<_>>().join(", ");
        check("providers", self.providers.as_ref().map(|names| names.join(", ")), Some(all));
        let rule = match (&self.rule, &answer.rule) {
            (Some(want), Some((at, _))) if want.parse() == Ok(at + 1) => Some(want.clone()),
            (_, Some((at, name))) => Some(name.clone().unwrap_or_else(|| (at + 1).to_string())),
            (_, None) => Some("none".into()),
        };
        check("rule", self.rule.clone(), rule);
        match (&self.refused, &answer.refused) {
            (Some(want), Some(got)) if got.contains(want.as_str()) => {}
            (Some(want), got) => check("refused", Some(want.clone()), got.clone()),
            (None, Some(got)) => unmet.push(format!("refused: {got}")),
            (None, None) => {}
        }
        unmet
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Paths, parse};

    const CONFIG: &str = r#"{
        "providers": {
            "anthropic": {},
            "deepseek": { "providerType": "anthropic-compatible", "baseUrl": "https://d.test", "apiKeyRef": "env:D" },
        },
        "routing": {
            "fallbackChain": ["anthropic", "deepseek"],
            "agentRules": { "Explore": { "provider": "deepseek", "model": "deepseek-flash" } },
            "rules": [
                { "name": "long", "when": { "promptTokensOver": 150000 }, "use": { "providers": ["anthropic"] } },
                { "when": { "hoursUtc": "sun 00:00-24:00", "tools": true }, "use": { "refuse": "no tools on Sundays" } },
            ],
        },
    }"#;

    fn rehearsal() -> Rehearsal {
        Rehearsal::new(&parse(CONFIG, &Paths::default()).unwrap().0)
    }

    /// The expectations of a case that are not met.
    #[track_caller]
    fn check(case: &str, want: &[&str]) {
        let case: Case = serde_json::from_str(case).unwrap();
        let answer = rehearsal().ask(&case.request).unwrap();
        assert_eq!(case.expect.unmet(&answer), want, "{}", answer.explanation);
    }

    #[test]
    fn what_is_expected_and_so_is_met() {
        check(r#"{"request":{"model":"claude-opus-5-5"},"expect":{"provider":"anthropic","rule":"none"}}"#, &[]);
        check(
            r#"{"request":{"agent":"sub","agentType":"Explore","model":"claude-haiku-5-5"},
                "expect":{"provider":"deepseek","model":"deepseek-flash","providers":["deepseek","anthropic","deepseek"]}}"#,
            &[],
        );
        check(r#"{"request":{"promptTokens":200000},"expect":{"rule":"long"}}"#, &[]);
        check(r#"{"request":{"promptTokens":200000},"expect":{"rule":"1"}}"#, &[]);
        check(
            r#"{"request":{"tools":true,"at":"2026-11-22T12:00:00Z"},"expect":{"refused":"Sundays","rule":"2"}}"#,
            &[],
        );
        check(r#"{"request":{"key":"own-only"},"expect":{"providers":["anthropic"]}}"#, &[]);
    }

    #[test]
    fn what_is_not_met_is_told_with_what_came_instead() {
        check(
            r#"{"request":{"model":"m"},"expect":{"provider":"deepseek","model":"x","rule":"long","refused":"no"}}"#,
            &[
                "provider: expected `deepseek`, got `anthropic`",
                "model: expected `x`, got `m`",
                "rule: expected `long`, got `none`",
                "refused: expected `no`, got nothing",
            ],
        );
        check(
            r#"{"request":{"tools":true,"at":"1795348800"},"expect":{"provider":"anthropic"}}"#,
            &["provider: expected `anthropic`, got nothing", "refused: no tools on Sundays"],
        );
        check(r#"{"request":{"tools":true,"at":"1795348800"},"expect":{}}"#, &["refused: no tools on Sundays"]);
    }

    #[test]
    fn a_request_can_be_given_as_it_came() {
        let raw =
            b"POST /v1/messages?beta=true HTTP/1.1\nHost: x\nx-cco-agent: Explore\n\n{\"model\":\"claude-opus-5-5\"}\n";
        let answer = rehearsal().ask(&Question { raw: Some(raw.to_vec()), ..Question::default() }).unwrap();
        assert_eq!((answer.targets[0].provider.as_str(), answer.cause), ("deepseek", "agentRules"));
        let body = json!({ "model": "claude-opus-5-5", "metadata": { "agent_type": "Explore" } });
        let answer = rehearsal().ask(&Question { body: Some(body), ..Question::default() }).unwrap();
        assert_eq!(answer.targets[0].model, "deepseek-flash");
    }

    #[test]
    fn what_is_no_request_is_told() {
        let told = |question: Question| rehearsal().ask(&question).unwrap_err().to_string();
        assert!(told(Question { at: Some("soon".into()), ..Question::default() }).contains("`soon` is no time"));
        assert!(told(Question { protocol: Some("x".into()), ..Question::default() }).contains("`x` is no protocol"));
        assert!(told(Question { raw: Some(b"hello".to_vec()), ..Question::default() }).contains("cannot be read"));
        assert!(serde_json::from_str::<Case>(r#"{"request":{"modle":"m"},"expect":{}}"#).is_err());
        let header = BTreeMap::from([("a b".to_string(), "c".to_string())]);
        assert!(told(Question { headers: header, ..Question::default() }).contains("cannot be read"));
    }
}
