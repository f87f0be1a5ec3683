//! The installed configuration, driven: a second gateway in this process with that configuration, on a port of its own
//! and in a folder of its own, between a client and a simulator that show what became of every byte.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gateway::config::{Config, CredentialRef, Env, KeyMode, ProxySetting};
use gateway::credential::{self, Resolver};
use gateway::net::{Dial, Dialer, Settings};
use gateway::origin::{BaseUrl, Origin, Scheme};
use serde_json::{Value, json};
use sim::{EndKind, Received, Sim};
use tokio::time::{Instant, timeout};

use super::Card;
use super::http::{Broken, Target, Whole};
use super::judge::{self, Events};
use super::load;
use crate::simulated::Simulated;

/// The model that is asked for where the default provider names none.
const MODEL: &str = "claude-sonnet-5-5";
/// The key that the client brings, and that stands in for every stored one: nobody's.
const KEY: &str = "sk-ant-api03-nobodys-key-of-the-doctor";
/// The variable that it is read from.
const VARIABLE: &str = "CCO_DOCTOR_KEY";
/// Nobody waits longer for a ping; longer ones are looked at in the configuration.
const PING: Duration = Duration::from_secs(1);
/// A client that counts seconds of silence gives up after 300.
const LONGEST_PING: Duration = Duration::from_secs(240);
/// A ping may be so late, and a disconnect be noticed so late.
const LATE: Duration = Duration::from_secs(2);
/// Events so many milliseconds apart, and how many.
const EVERY: u64 = 20;
const DELTAS: u64 = 15;
/// The largest body that the provider takes.
const LARGE: usize = 32 << 20;
/// Bodies beyond this have no tag that is looked for.
const SMALL: usize = 64 << 10;

/// Whatever the user's machine has beside, this is not touched by it, and does not touch it.
fn configured(config: &Config, simulator: SocketAddr) -> Config {
    let mut config = config.clone();
    config.server.token = None;
    config.server.ping = config.server.ping.min(PING);
    config.server.drain = Duration::from_secs(2);
    config.network.proxy = ProxySetting::None;
    config.network.ca_file = None;
    config.audit.db_path = None;
    for provider in &mut config.providers {
        provider.base_url = Some(BaseUrl { origin: origin(simulator), path: String::new() });
        if !provider.api_keys.is_empty() || provider.key_mode == KeyMode::Stored {
            provider.api_keys = vec![CredentialRef::Env(VARIABLE.into())];
        }
    }
    config
}

/// What became of one check: what was found, or that and what to do about it.
type Verdict = Result<String, (String, &'static str)>;

const REPORT: &str =
    "this must not be: restart the gateway with the newest version, and report it with your configuration";

/// What is driven.
pub(super) struct Rig {
    gateway: Target,
    /// The simulator, without anything in between.
    direct: Target,
    sim: Arc<Sim>,
    model: String,
    /// After so long the gateway is to send a ping, and what the configuration says of that.
    ping: [Duration; 2],
    max_body: usize,
    /// Fields that the configuration itself sends, in lower case.
    set: Vec<String>,
}

/// Drives it, and puts what was seen on the card. `load`: so many streams at a time, for so long.
pub(super) fn run(config: &Config, model: Option<&str>, load: Option<(usize, Duration)>, card: &mut Card) {
    let room = load.map_or(0, |(streams, _)| streams);
    let simulated = match started(config, room) {
        Ok(simulated) => simulated,
        Err(why) => {
            return card.bad("driven", format!("the configuration does not start: {why}"), "cco config validate");
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let driven = runtime.map_err(|why| why.to_string()).and_then(|runtime| {
        let mut rig = Rig::new(simulated.gateway, &simulated, config)?;
        rig.model = model.map_or(rig.model, str::to_owned);
        runtime.block_on(async {
            if rig.examine(card).await
                && let Some((streams, time)) = load
            {
                load::run(&rig.gateway, &rig.model, streams, time, card).await;
            }
        });
        Ok(())
    });
    let stopped = simulated.stop().map(drop).map_err(|why| why.to_string());
    if let Err(why) = driven.and(stopped) {
        card.bad("driven", why, "try again");
    }
}

/// Gateway and simulator, with this configuration.
fn started(config: &Config, room: usize) -> Result<Simulated, String> {
    let env = |folder: &str| Env::fixed([("CCO_HOME", folder), (VARIABLE, KEY)]);
    Simulated::with(|at| Ok(configured(config, at)), env, room).map_err(|why| why.to_string())
}

impl Rig {
    /// With a gateway at this address in front of the simulator.
    fn new(gateway: SocketAddr, simulated: &Simulated, config: &Config) -> Result<Self, Broken> {
        let (token, _) = credential::server_token(None, Some(simulated.home.path()), &Resolver::new(Env::fixed([])))
            .map_err(|why| why.to_string())?;
        let token = token.get().map(|token| token.expose().to_owned()).unwrap_or_default();
        let dialer: Arc<dyn Dial> = Arc::new(Dialer::new(Settings::default()));
        let target = |at: SocketAddr, more: &[(&str, &str)]| {
            let fields = [("x-api-key", KEY), ("anthropic-version", "2023-06-01")];
            let fields = fields.iter().chain(more).map(|(name, value)| ((*name).into(), (*value).into())).collect();
            Target { base: BaseUrl { origin: origin(at), path: String::new() }, dialer: dialer.clone(), fields }
        };
        let of = |name: &String| config.providers.iter().find(|provider| provider.name == *name);
        let model = of(&config.routing.default_provider).and_then(|provider| provider.default_model.clone());
        let set = config.providers.iter().flat_map(|provider| &provider.headers);
        let set = set.chain(config.routing.rules.iter().flat_map(|rule| &rule.then.headers));
        Ok(Self {
            gateway: target(gateway, &[("x-cco-token", &token)]),
            direct: target(simulated.simulator, &[]),
            sim: simulated.sim.clone(),
            model: model.unwrap_or_else(|| MODEL.into()),
            ping: [config.server.ping.min(PING), config.server.ping],
            max_body: config.server.max_body,
            set: set.map(|(name, _)| name.to_ascii_lowercase()).collect(),
        })
    }

    /// All checks. `false`: they could not be made, since requests are refused.
    pub(super) async fn examine(&self, card: &mut Card) -> bool {
        match self.gateway.ask("POST", "/v1/messages", &[], &self.prompt("first", "text=ok", false)).await {
            Ok(answer) if answer.status == 200 => {}
            Ok(answer) => {
                let found = format!("a request for `{}` is refused: {}", self.model, answer.shown());
                card.bad(
                    "driven",
                    found,
                    "`cco route explain --model …` shows why; `cco doctor --model NAME` asks for another one",
                );
                return false;
            }
            Err(why) => {
                card.bad("driven", why, REPORT);
                return false;
            }
        }
        // Silence takes its time: meanwhile the others are looked at.
        let others = async {
            [
                ("bytes", self.bytes().await),
                ("headers", self.headers().await),
                ("stream", self.stream().await),
                ("disconnect", self.disconnect().await),
                ("errors", self.errors().await),
            ]
        };
        let (ping, others) = tokio::join!(self.pings(), others);
        // Last and alone: it is work, and keeps the others waiting.
        let large = self.large().await;
        for (what, verdict) in others.into_iter().chain([("ping", ping), ("large body", large)]) {
            match verdict {
                Ok(found) => card.good(what, found),
                Err((found, fix)) => card.bad(what, found, fix),
            }
        }
        if self.ping[1] > LONGEST_PING {
            let found =
                format!("`server.pingSecs` is {}: clients give up after 300 s of silence", self.ping[1].as_secs());
            card.odd("ping", found, "cco config set server.pingSecs --default");
        }
        true
    }

    /// A request for an answer as this script says; by its tag it is found again.
    fn prompt(&self, tag: &str, script: &str, stream: bool) -> Vec<u8> {
        json!({
            "model": self.model, "max_tokens": 1000, "stream": stream,
            "messages": [{ "role": "user", "content": format!("{} [[sim {script}]]", tagged(tag)) }],
        })
        .to_string()
        .into()
    }

    async fn send(&self, tag: &str, script: &str, stream: bool) -> Result<Whole, (String, &'static str)> {
        self.gateway.ask("POST", "/v1/messages", &[], &self.prompt(tag, script, stream)).await.map_err(broken)
    }

    /// What the simulator received last with this tag, as soon as it is so.
    async fn arrived(&self, tag: &str, holds: impl Fn(&Received) -> bool) -> Option<Received> {
        let tag = tagged(tag);
        let is_it = |it: &Received| it.body.len() < SMALL && contains(&it.body, tag.as_bytes());
        let fits = |all: &[Received]| all.iter().rev().find(|it| is_it(it)).is_some_and(&holds);
        timeout(LATE, self.sim.wait_for(fits)).await.ok()?;
        self.sim.requests().into_iter().rev().find(is_it)
    }

    /// Request and answer pass byte for byte.
    async fn bytes(&self) -> Verdict {
        let sent = peculiar(&self.model);
        let answer = self.gateway.ask("POST", "/v1/messages", &[], sent.as_bytes()).await.map_err(broken)?;
        let came = self.arrived("bytes", |_| true).await.ok_or_else(|| lost("the request"))?;
        if is_translated(&came) {
            return Ok(format!("`{}` goes to {}, another protocol: there they are made anew", self.model, came.path()));
        }
        let body: Value = serde_json::from_slice(&came.body).unwrap_or_default();
        let model = body["model"].as_str().unwrap_or_default();
        if came.body != peculiar(model) {
            let at = came.body.iter().zip(peculiar(model).as_bytes()).take_while(|(a, b)| a == b).count();
            return Err((format!("the request's body arrives changed, from byte {at} on"), REPORT));
        }
        let direct = self.direct.ask("POST", "/v1/messages", &[], &came.body).await.map_err(broken)?;
        if (answer.status, &answer.body) != (direct.status, &direct.body) {
            let at = answer.body.iter().zip(&direct.body).take_while(|(a, b)| a == b).count();
            return Err((format!("the answer's body arrives changed, from byte {at} on"), REPORT));
        }
        let as_it_is = if model == self.model { "" } else { ", but for the model that the configuration puts in" };
        Ok(format!(
            "{} of the request and {} of the answer arrive as they were sent{as_it_is}",
            sent.len(),
            answer.body.len()
        ))
    }

    /// What a client says in its head arrives, and what is between it and the gateway does not.
    async fn headers(&self) -> Verdict {
        let fields = [
            ("anthropic-beta", "doctor-2026-01-01,another-2026-02-02"),
            ("user-agent", "doctor/1 (cli)"),
            ("x-app", "cli"),
            ("x-claude-code-session-id", "d0c70000-0000-4000-8000-000000000001"),
        ];
        let private =
            [("x-cco-project", "secret"), ("x-cco-branch", "secret"), ("connection", "x-hop"), ("x-hop", "1")];
        let target = "/v1/messages?beta=true";
        let script = r#"text=ok header="anthropic-ratelimit-requests-remaining: 7""#;
        let body = self.prompt("headers", script, false);
        let answer = self.gateway.ask("POST", target, &[&fields[..], &private[..]].concat(), &body).await;
        let answer = answer.map_err(broken)?;
        let came = self.arrived("headers", |_| true).await.ok_or_else(|| lost("the request"))?;
        let mut faults = Vec::new();
        for (name, _) in &came.headers {
            if name.to_ascii_lowercase().starts_with("x-cco") || name.eq_ignore_ascii_case("x-hop") {
                faults.push(format!("`{name}` is not the provider's business and arrives"));
            }
        }
        if !came.headers.iter().any(|(_, value)| contains(value, KEY.as_bytes())) {
            faults.push("the client's key does not arrive".into());
        }
        if !is_translated(&came) {
            if !came.target.ends_with(target) {
                faults.push(format!("`{target}` arrives as `{}`", came.target));
            }
            for (name, value) in fields.iter().filter(|(name, _)| !self.set.iter().any(|set| set == name)) {
                if came.header_all(name) != [*value] {
                    faults.push(format!("`{name}` does not arrive as it was sent"));
                }
            }
            for name in ["anthropic-ratelimit-requests-remaining", "request-id"] {
                if answer.field(name).is_none() {
                    faults.push(format!("the provider's `{name}` does not come back"));
                }
            }
        }
        told(faults, "they arrive as they were sent; what is private to the gateway does not")
    }

    /// Each event is passed on when it comes.
    async fn stream(&self) -> Verdict {
        let answer = self.send("stream", &format!("events={DELTAS} every={EVERY}"), true).await?;
        let mut faults: Vec<_> = judge::missing(&answer).into_iter().map(|field| format!("no {field}")).collect();
        let events = Events::of(&answer.body);
        faults.extend(events.fault.clone());
        let (pieces, span) = judge::pieces(&answer);
        if (pieces as u64) < DELTAS / 2 || span < Duration::from_millis(EVERY * DELTAS / 2) {
            faults.push(format!(
                "{} events arrived in {pieces} pieces within {} ms",
                events.count("content_block_delta"),
                span.as_millis()
            ));
        }
        told(faults, &format!("four headers, legal order, {pieces} pieces over {} ms", span.as_millis()))
    }

    /// Silence of the provider is bridged; and when the client goes, it is noticed in the silence.
    async fn pings(&self) -> Verdict {
        let body = self.prompt("ping", "events=100 every=5 fault=stall=8ev", true);
        let mut answer = self.gateway.begin("POST", "/v1/messages", &[], &body).await.map_err(broken)?;
        let (mut seen, mut quiet_since, mut pings) = (Vec::new(), Instant::now(), Vec::new());
        let waited = timeout(self.ping[0] * 2 + LATE * 2, async {
            while pings.len() < 2 {
                let piece = answer.piece().await?;
                if piece.is_empty() {
                    return Err("the stream ended in the silence".to_owned());
                }
                // The provider's own first ping comes with the beginning.
                if contains(&piece, b"event: ping") && contains(&seen, b"event: content_block_delta") {
                    pings.push(quiet_since.elapsed());
                }
                seen.extend_from_slice(&piece);
                quiet_since = Instant::now();
            }
            Ok(())
        });
        let configured = self.ping[1].as_secs_f64();
        match waited.await {
            Ok(done) => done.map_err(broken)?,
            Err(_) => {
                return Err((
                    format!("{} pings in a silence of {} s", pings.len(), (self.ping[0] * 2 + LATE * 2).as_secs()),
                    REPORT,
                ));
            }
        }
        let wanted = self.ping[0] / 2..self.ping[0] + LATE;
        if let Some(ping) = pings.iter().find(|ping| !wanted.contains(ping)) {
            return Err((
                format!("a ping after {} ms instead of {}", ping.as_millis(), self.ping[0].as_millis()),
                REPORT,
            ));
        }
        drop(answer);
        self.gone("ping").await?;
        let asked = self.ping[0].as_millis();
        Ok(format!(
            "after {} ms of silence, {asked} being asked for here and {configured} s by the configuration",
            pings[0].as_millis()
        ))
    }

    /// A body of 32 MB arrives whole.
    async fn large(&self) -> Verdict {
        if self.max_body < LARGE {
            let found = format!("`server.maxBodyMb` is {}: clients send up to 32 MB", self.max_body >> 20);
            return Err((found, "cco config set server.maxBodyMb --default"));
        }
        let text: String = ('a'..='z').chain('0'..='9').cycle().take(LARGE - (64 << 10)).collect();
        let body = json!({
            "model": self.model, "max_tokens": 100, "stream": false,
            "messages": [{ "role": "user", "content": format!("[[sim text=large]] {text}") }],
        });
        let (body, began) = (body.to_string().into_bytes(), Instant::now());
        let answer = self.gateway.ask("POST", "/v1/messages", &[], &body).await.map_err(broken)?;
        let took = began.elapsed().as_millis();
        let came = self.sim.requests().into_iter().rev().find(|it| it.body_len > (LARGE / 2) as u64);
        let came = came.ok_or_else(|| (format!("it does not arrive: {}", answer.shown()), REPORT))?;
        let is_same = came.body_len == body.len() as u64 && came.body == body;
        // Where the model is another one, its name stands in the place of the asked one.
        let is_like = came.body_complete && came.body_len.abs_diff(body.len() as u64) < 64 << 10;
        match answer.status {
            200 if is_same || is_like => Ok(format!("{} MB arrive whole, in {took} ms", body.len().div_ceil(1 << 20))),
            200 => Err((format!("{} of {} bytes arrive", came.body_len, body.len()), REPORT)),
            _ if is_translated(&came) && came.body_complete => {
                Ok("it arrives, and that provider does not want it".into())
            }
            _ => Err((answer.shown(), REPORT)),
        }
    }

    /// The simulator has seen that the client is gone.
    async fn gone(&self, tag: &str) -> Result<Duration, (String, &'static str)> {
        let began = Instant::now();
        let is_gone = |it: &Received| it.end.as_ref().is_some_and(|end| end.kind == EndKind::ClientGone);
        match self.arrived(tag, is_gone).await {
            Some(_) => Ok(began.elapsed()),
            None => Err((format!("{} s after the client has gone the provider still answers", LATE.as_secs()), REPORT)),
        }
    }

    /// When the client goes, so does the request to the provider: within a stream, and before there was an answer.
    async fn disconnect(&self) -> Verdict {
        let body = self.prompt("leaving", "events=100000 every=20", true);
        let mut answer = self.gateway.begin("POST", "/v1/messages", &[], &body).await.map_err(broken)?;
        answer.piece().await.map_err(broken)?;
        drop(answer);
        let within = self.gone("leaving").await?;
        let body = self.prompt("leaving early", "text=late fault=delay-head=30000", true);
        let asked = self.gateway.begin("POST", "/v1/messages", &[], &body);
        tokio::select! {
            answer = asked => {
                let status = answer.map(|answer| answer.status).map_err(broken)?;
                return Err((format!("status {status} where the provider has not answered yet"), REPORT));
            }
            came = self.arrived("leaving early", |_| true) => came.ok_or_else(|| lost("the request"))?,
        };
        let before = self.gone("leaving early").await?;
        Ok(format!(
            "noticed after {} ms within a stream, {} ms before an answer",
            within.as_millis(),
            before.as_millis()
        ))
    }

    /// Errors of the provider arrive as they are, and what is ours has the protocol's shape.
    async fn errors(&self) -> Verdict {
        let mut faults = Vec::new();
        let message = |body: &Value| body["error"]["message"].as_str().map(str::to_owned);
        for (fault, status) in [("400", 400), ("529", 529), ("429=1", 429)] {
            let tag = format!("error {status}");
            let answer = self.send(&tag, &format!("fault={fault}"), true).await?;
            let told = answer.json();
            let came = self.arrived(&tag, |_| true).await.ok_or_else(|| lost("the request"))?;
            // Protocols without a 529 say it with another status: that one is to arrive.
            let direct = self.direct.ask("POST", &came.target, &[], &came.body).await.map_err(broken)?;
            if answer.status != direct.status {
                faults.push(format!("the provider's {} arrives as {}", direct.status, answer.status));
            } else if let Some(fault) = judge::error_fault(&told) {
                faults.push(format!("the provider's {status} is not in shape: {fault}"));
            } else if !is_translated(&came) {
                if message(&told) != message(&direct.json()) {
                    faults.push(format!("the provider's {status} arrives with other words"));
                }
                if answer.field("retry-after") != direct.field("retry-after") {
                    faults.push(format!("`retry-after` of a {status} does not arrive"));
                }
            }
        }
        for (fault, what) in [("error-mid", "an error within a stream"), ("truncate", "a stream without its end")] {
            let answer = self.send(fault, &format!("events=20 fault={fault}"), true).await?;
            let events = Events::of(&answer.body);
            if events.count("message_stop") > 0 || (answer.is_whole && events.count("error") != 1) {
                faults.push(format!("{what} arrives as if nothing were wrong"));
            }
        }
        let refused = self.gateway.ask("POST", "/v1/messages", &[], b"{ \"model\": ").await.map_err(broken)?;
        match judge::error_fault(&refused.json()) {
            _ if refused.status != 400 => {
                faults.push(format!("what is no JSON gets {} instead of 400", refused.status))
            }
            Some(fault) => faults.push(format!("the gateway's own 400 is not in shape: {fault}")),
            None => {}
        }
        told(faults, "the provider's arrive as they are, within streams too; the gateway's own have their shape")
    }
}

fn origin(at: SocketAddr) -> Origin {
    Origin { scheme: Scheme::Http, host: at.ip().to_string(), port: at.port() }
}

fn broken(why: Broken) -> (String, &'static str) {
    (why, REPORT)
}

fn lost(what: &str) -> (String, &'static str) {
    (format!("{what} does not arrive at the provider"), REPORT)
}

fn told(faults: Vec<String>, good: &str) -> Verdict {
    if faults.is_empty() { Ok(good.into()) } else { Err((faults.join("\n"), REPORT)) }
}

fn tagged(tag: &str) -> String {
    format!("The doctor looks at: {tag}.")
}

/// Whether it was asked for in another protocol than that of the client.
fn is_translated(came: &Received) -> bool {
    !came.path().ends_with("/v1/messages")
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// A body that anybody who reads and writes it anew would change: white space, escapes, forms of numbers, the order of
/// keys, a key that nobody knows.
fn peculiar(model: &str) -> String {
    let model = Value::from(model);
    let text = tagged("bytes");
    format!(
        "{{ \"stream\" :true,\n\t\"x_future\":[1.50,1e2,-0.0,\"\\u00e9\\/\",{{\"z\":1,\"a\":2}}], \"model\": {model},\"max_tokens\":1000,\
         \r\n\"messages\":[{{\"role\":\"user\",\"content\":[{{\"text\":\"{text} \\u2603 \\ud83d\\ude00 [[sim text=\\\"caf\\u00e9\\\"]]\",\
         \"type\":\"text\"}}]}}] }}\n"
    )
}

#[cfg(test)]
#[expect(dead_code, reason = "what these tests leave out others need")]
#[path = "../../tests/scripts/broken.rs"]
mod between;

#[cfg(test)]
mod tests {
    use gateway::config::{Paths, parse};

    use super::between::{Break, broken};
    use super::*;
    use crate::doctor::State;

    fn config(text: &str) -> Config {
        parse(text, &Paths::default()).unwrap().0
    }

    /// Drives a configuration with something broken in front of its gateway: the checks that are red.
    fn red(text: &str, how: Option<Break>) -> Vec<&'static str> {
        let config = config(text);
        let simulated = started(&config, 0).unwrap();
        let mut card = Card::default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let proxy = match how {
                Some(how) => Some(broken(simulated.gateway, how).await),
                None => None,
            };
            let at = proxy.as_ref().map_or(simulated.gateway, |proxy| proxy.addr);
            Rig::new(at, &simulated, &config).unwrap().examine(&mut card).await;
        });
        simulated.stop().unwrap();
        println!("{how:?}: {card:#?}");
        card.0.iter().filter(|finding| finding.state == State::Bad).map(|finding| finding.what).collect()
    }

    #[test]
    fn a_sound_gateway_is_green_whatever_its_configuration_sends_where() {
        for text in [
            "{}",
            r#"{ "providers": { "anthropic": { "apiKeyMode": "stored", "headers": { "x-app": "ours" } } } }"#,
            r#"{ "providers": { "anthropic": { "modelAliases": { "claude-sonnet-5-5": "claude-opus-5-5" } } } }"#,
            r#"{ "providers": { "deepseek": { "defaultModel": "deepseek-chat" } }, "audit": { "enabled": false }, "server": { "pingSecs": 30 } }"#,
            r#"{ "providers": { "openai": { "defaultModel": "gpt-5" } } }"#,
        ] {
            assert_eq!(red(text, None), [] as [&str; 0], "{text}");
        }
    }

    #[test]
    fn each_way_to_be_broken_turns_its_check_red() {
        for (how, want) in [
            (Break::Asked("\\u2603", "\\u2604"), &["bytes"][..]),
            (Break::Words("message_stop", "massage_stop"), &["bytes", "stream"]),
            (Break::Asked("doctor/1", "doctor/2"), &["headers"]),
            (Break::Words("ratelimit-requests", "ratelimit-requezts"), &["headers"]),
            (Break::Words("x-accel-buffering", "x-accel-bufferinq"), &["stream"]),
            (Break::Words("event: ping", "event: pang"), &["bytes", "stream", "ping"]),
            (Break::Upto(16 << 20), &["large body"]),
            (Break::Stays, &["disconnect", "ping"]),
            (Break::Words("\"type\":\"error\"", "\"type\":\"errir\""), &["errors"]),
            (Break::Words(" 529 ", " 503 "), &["errors"]),
        ] {
            assert_eq!(red("{}", Some(how)), want, "{how:?}");
        }
    }

    #[test]
    fn a_configuration_that_cannot_carry_what_clients_send_is_red() {
        assert_eq!(red(r#"{ "server": { "maxBodyMb": 8 } }"#, None), ["large body"]);
        let refusing = r#"{ "routing": { "rules": [{ "use": { "refuse": "not today" } }] } }"#;
        assert_eq!(red(refusing, None), ["driven"]);
    }

    #[test]
    fn nothing_of_the_user_is_used() {
        let config = config(
            r#"{ "server": { "token": "exec:rm token" }, "audit": { "dbPath": "/var/ledger.db" }, "network": { "proxy": "http://p:1" },
                 "providers": { "anthropic": { "apiKeyRef": "exec:vault" }, "ollama": {} } }"#,
        );
        let made = configured(&config, "127.0.0.1:7".parse().unwrap());
        let told = format!("{made:?}");
        assert!(!told.contains("exec") && !told.contains("/var/") && !told.contains("http://p"), "{told}");
        assert!(made.providers.iter().all(|p| p.base_url.as_ref().unwrap().to_string() == "http://127.0.0.1:7"));
        assert!(made.providers[1].api_keys.is_empty(), "who needs none gets none");
    }
}
