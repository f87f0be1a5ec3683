//! One small request through a provider: does it answer, and what does it cost?

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use gateway::client::Phases;
use gateway::config::{Config, Env, KeyMode};
use gateway::daemon::Server;
use gateway::gateway::Current;
use gateway::{advice, net, setup};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::cli::providers::TestProvider;
use crate::{VERSION, load, term, text};

/// How long a provider may take: a model that is loaded first takes its time.
const PATIENCE: Duration = Duration::from_secs(180);
/// Bytes of an answer that are taken.
const LARGEST: u64 = 1 << 20;

/// What became of the request.
pub(super) struct Trial {
    name: String,
    model: String,
    outcome: Result<Answered, String>,
    price: Price,
}

struct Answered {
    took: Duration,
    input: u64,
    output: u64,
}

/// In dollars for a million tokens.
enum Price {
    Known { input: String, output: String },
    Free,
    Unknown,
}

/// Runs `cco providers test`.
pub(super) fn test(options: &TestProvider, env: &Env) -> Result<ExitCode, ExitCode> {
    let config = load::configuration(options.config.as_deref(), env)?.config;
    let trial = tried(config, env, &options.name, options.model.as_deref())?;
    if options.json {
        term::line(trial.json());
    } else {
        trial.show();
    }
    Ok(trial.code())
}

/// Sends the request: through a gateway of its own that knows this provider alone and records into a folder that goes.
pub(super) fn tried(mut config: Config, env: &Env, name: &str, model: Option<&str>) -> Result<Trial, ExitCode> {
    config.providers.retain(|provider| provider.name == name);
    let Some(provider) = config.providers.first_mut() else {
        let what = format!("the configuration has no provider `{}`", text::line(name));
        return Err(super::failed(what, "`cco providers list` shows them"));
    };
    let own = provider.default_model.as_deref().or(provider.deployment.as_deref()).or(provider.kind.default_model);
    let Some(model) = model.or(own).map(str::to_owned) else {
        let help = format!("`cco providers test {name} --model MODEL` names one");
        return Err(super::failed(format!("`{name}` has no `defaultModel`"), &help));
    };
    provider.enabled = true;
    provider.key_mode = KeyMode::Stored;
    provider.max_retries = 0;
    provider.model_aliases.clear();
    provider.default_model = Some(model.clone());
    let price = price(&config, &model);
    let routing = &mut config.routing;
    routing.default_provider = name.to_owned();
    routing.fallback_chain = vec![name.to_owned()];
    (routing.rules, routing.agent_rules, routing.model_tier_rules) = (Vec::new(), Vec::new(), Vec::new());
    config.server.token = None;
    let outcome = term::patiently("waiting for the answer", || asked(&config, env, &model))
        .unwrap_or_else(|why| Err(why.to_string()));
    Ok(Trial { name: name.to_owned(), model, outcome, price })
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

fn asked(config: &Config, env: &Env, model: &str) -> Result<Result<Answered, String>, Failed> {
    let folder = tempfile::tempdir()?;
    let own = Env::fixed([("CCO_HOME", folder.path().to_str().ok_or("the temporary folder's name is not UTF-8")?)]);
    let (recorder, _) = setup::recorder(config, &own)?;
    let (state, _) = setup::gateway(config, env, VERSION, setup::dialer(config, env)?, recorder)?;
    let listener = net::listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let (address, phases) = (listener.local_addr()?, Phases::default());
    let server = Server {
        listener,
        own: None,
        place: None,
        current: Current::new(state),
        phases: phases.clone(),
        workers: 1,
        max_connections: 4,
    };
    let thread = std::thread::Builder::new().name("gateway".into()).spawn(move || server.run())?;
    let answer = ask(address, model);
    phases.drain.cancel();
    thread.join().map_err(|_| "a server thread panicked")??;
    Ok(answer?)
}

/// As the simplest of clients: version 1.0, so that the body ends with the connection.
fn ask(address: SocketAddr, model: &str) -> io::Result<Result<Answered, String>> {
    let body = json!({
        "model": model, "max_tokens": 64,
        "messages": [{ "role": "user", "content": "Answer with the word OK." }],
    })
    .to_string();
    let start = Instant::now();
    let mut socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    write!(
        socket,
        "POST /v1/messages HTTP/1.0\r\nhost: {address}\r\nx-api-key: cco\r\nanthropic-version: 2023-06-01\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = Vec::new();
    socket.take(LARGEST).read_to_end(&mut answer)?;
    let took = start.elapsed();
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).unwrap_or("no HTTP");
    let told: Value = serde_json::from_str(body).unwrap_or_default();
    let count = |name: &str| told["usage"][name].as_u64().unwrap_or(0);
    if status == "200" && told["content"].is_array() {
        return Ok(Ok(Answered { took, input: count("input_tokens"), output: count("output_tokens") }));
    }
    let said = told["error"]["message"].as_str().unwrap_or("it answered with what is no message");
    // Nothing of this is in the log.
    let said = said.split("; details: cco logs").next().unwrap_or(said);
    Ok(Err(format!("{said} (status {status})")))
}

fn price(config: &Config, model: &str) -> Price {
    let Ok(prices) = setup::prices(config) else { return Price::Unknown };
    let provider = config.providers.first().map_or("", |provider| advice::billed_as(&prices, provider));
    let Some(found) = prices.find(provider, model) else { return Price::Unknown };
    if found.price.is_free() {
        return Price::Free;
    }
    let dollars = |rate: Option<ledger::money::Rate>| rate.map_or("-".into(), |rate| rate.to_string());
    Price::Known { input: dollars(found.price.rates.input), output: dollars(found.price.rates.output) }
}

impl Trial {
    /// For people.
    pub(super) fn show(&self) {
        let (name, model) = (&self.name, text::line(&self.model));
        match &self.outcome {
            Ok(Answered { took, input, output }) => term::line(format_args!(
                "`{name}` answers: {model} in {}, {input} tokens in, {output} out",
                text::took(took.as_secs_f64() * 1000.0)
            )),
            Err(why) => {
                let help = format!("`cco providers test {name}` tries it again");
                term::error(format_args!("`{name}` did not answer"), Some(&text::line(why)), Some(&help));
            }
        }
        match &self.price {
            Price::Known { input, output } => {
                term::line(format_args!("price of {model}: ${input} in, ${output} out, for a million tokens"));
            }
            Price::Free => term::line(format_args!("price of {model}: nothing")),
            Price::Unknown => {
                term::line(format_args!("price of {model}: none is known; `costTracking.pricingOverrides` sets one"));
            }
        }
    }

    fn json(&self) -> Value {
        let price = match &self.price {
            Price::Known { input, output } => json!({ "input": input, "output": output }),
            Price::Free => json!({ "input": "0", "output": "0" }),
            Price::Unknown => Value::Null,
        };
        let mut told =
            json!({ "provider": self.name, "model": self.model, "ok": self.outcome.is_ok(), "price": price });
        match &self.outcome {
            Ok(Answered { took, input, output }) => {
                told["ms"] = json!(u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
                (told["input_tokens"], told["output_tokens"]) = (json!(input), json!(output));
            }
            Err(why) => told["error"] = why.as_str().into(),
        }
        told
    }

    pub(super) fn code(&self) -> ExitCode {
        if self.outcome.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
