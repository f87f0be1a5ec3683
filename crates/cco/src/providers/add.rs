//! `cco providers add`: asks for what a kind of provider needs, keeps its key, and writes it into the configuration.

use std::process::ExitCode;

use gateway::catalog::{self, ProviderKind};
use gateway::config::{CredentialRef, Env};
use gateway::origin::BaseUrl;
use gateway::system::Terminal;
use serde_json::{Map, Value, json};

use super::{failed, is_written, place, trial};
use crate::cli::providers::AddProvider;
use crate::{configure, credentials, load, term, text};

/// Hosts of Azure's, each with the name of somebody's resource before it.
const AZURE: &[&str] = &[".openai.azure.com", ".services.ai.azure.com", ".cognitiveservices.azure.com"];

/// Runs the command.
pub(super) fn add(options: &AddProvider, env: Env) -> Result<ExitCode, ExitCode> {
    let named = options.config.as_deref();
    let (kind, url) = meant(options)?;
    let name = options.name.clone().unwrap_or_else(|| named_after(kind, url.as_ref()));
    let path = place(&name)?;
    let before = load::configuration(named, &env)?;
    let written: Vec<&str> = before
        .config
        .providers
        .iter()
        .map(|provider| &*provider.name)
        .filter(|name| is_written(&before, name))
        .collect();
    if written.contains(&&*name) && !options.replace {
        let what = format!("the configuration has a provider `{name}` already");
        return Err(failed(what, "give it another name with `--name`, or say `--replace`"));
    }
    let terminal = Terminal::open();
    let ask = |question: &str| -> Option<String> {
        let answer = terminal.as_ref()?.ask(question).ok()?;
        (!answer.is_empty()).then_some(answer)
    };

    let mut entry = Map::new();
    let mut put = |key: &str, value: Value| drop(entry.insert(key.into(), value));
    put("providerType", kind.name.into());
    let url = match url {
        None => ask_for_url(kind, &ask)?,
        said => said,
    };
    match url {
        Some(url) => put("baseUrl", url.to_string().into()),
        None if kind.base_url.is_some() => {}
        None => return Err(missing(kind, "address", "--base-url")),
    }
    let mut deployment = options.deployment.clone();
    if kind.name == "azure" && deployment.is_none() && options.model.is_none() {
        deployment = ask("Deployment: ");
    }
    let model = options.model.clone();
    let needs_model = model.is_none() && deployment.is_none() && kind.default_model.is_none();
    let model = if needs_model { ask("Model: ") } else { model };
    if needs_model && model.is_none() {
        return Err(missing(kind, "model", if kind.name == "azure" { "--deployment" } else { "--model" }));
    }
    for (key, value) in [
        ("defaultModel", model),
        ("deployment", deployment),
        ("apiVersion", options.api_version.clone()),
        ("protocol", options.protocol.clone()),
    ] {
        if let Some(value) = value {
            put(key, value.into());
        }
    }
    if let Some(tokens) = options.num_ctx {
        put("numCtx", json!(tokens));
    }
    if let Some(reference) = key(options, kind, &name, &env, terminal.is_some())? {
        put("apiKeyRef", reference.to_string().into());
    }

    // Where nothing is written, one provider is there by itself; where one is, it is the default. Both stay as they are.
    match *written {
        [] if name != catalog::anthropic().name => {
            configure::change(named, &env, &place(catalog::anthropic().name)?, Some(&json!({})))?;
        }
        [only] if only != name => {
            let key = "routing.defaultProvider".parse().expect("it is a key of ours");
            configure::change(named, &env, &key, Some(&json!(before.config.routing.default_provider)))?;
        }
        _ => {}
    }
    let file = configure::change(named, &env, &path, Some(&Value::Object(entry)))?;
    term::line(format_args!("added `{name}` to {}", file.display()));
    let config = load::configuration(named, &env)?.config;
    let routing = &config.routing;
    if routing.default_provider != name && !routing.fallback_chain.contains(&name) {
        let chain = routing.fallback_chain.join(",");
        term::note(format_args!(
            "`routing` says which requests it gets, for example: `cco config set routing.fallbackChain {chain},{name}`"
        ));
    }
    if options.no_test {
        return Ok(ExitCode::SUCCESS);
    }
    let trial = trial::tried(config, &env, &name, None)?;
    trial.show();
    Ok(trial.code())
}

/// What is to be added, and where it is if that was said.
fn meant(options: &AddProvider) -> Result<(&'static ProviderKind, Option<BaseUrl>), ExitCode> {
    let usage = |what: String, help: &str| {
        term::error(what, None, Some(help));
        ExitCode::from(2)
    };
    let url = options.base_url.as_deref().map(address).transpose()?;
    let what = &*options.what;
    if what.contains("://") {
        if url.is_some() {
            return Err(usage("there are two addresses".into(), "leave out `--base-url`"));
        }
        let url = address(what)?;
        return Ok((behind(&url, options.protocol.as_deref()), Some(url)));
    }
    let known: Vec<&str> = catalog::supported().collect();
    match catalog::find(what).filter(|kind| kind.supported) {
        Some(kind) => Ok((kind, url)),
        None => Err(usage(
            format!("there is no kind of provider `{}`", text::line(what)),
            &format!("take one of {}, or an address such as `https://HOST/v1`", known.join(", ")),
        )),
    }
}

/// What is to be expected behind an address.
fn behind(url: &BaseUrl, protocol: Option<&str>) -> &'static ProviderKind {
    let host = &*url.origin.host;
    let lives_there = |kind: &&ProviderKind| {
        let home: Option<BaseUrl> = kind.base_url.and_then(|base| base.parse().ok());
        home.is_some_and(|home| home.origin == url.origin)
    };
    let name = match protocol {
        _ if AZURE.iter().any(|end| host.ends_with(end)) => "azure",
        Some("anthropic") => "anthropic-compatible",
        Some("ollama") => "ollama",
        _ => "openai-compatible",
    };
    let own = catalog::CATALOG.iter().filter(|kind| kind.supported).find(lives_there);
    own.or_else(|| catalog::find(name)).unwrap_or_else(|| catalog::anthropic())
}

/// What stands before a country's letters in the place of a name.
const SECOND: &[&str] = &["ac", "co", "com", "edu", "gov", "ne", "net", "or", "org"];

/// The kind, or the word of an address that says most.
fn named_after(kind: &ProviderKind, url: Option<&BaseUrl>) -> String {
    let host = url.filter(|_| kind.name.ends_with("-compatible")).map_or("", |url| &*url.origin.host);
    if host.parse::<std::net::IpAddr>().is_ok() {
        return kind.name.into();
    }
    let words: Vec<&str> = host.rsplit('.').filter(|word| !word.is_empty()).collect();
    let word = match *words {
        [country, second, own, ..] if country.len() == 2 && SECOND.contains(&second) => own,
        [_, own, ..] | [own] => own,
        [] => kind.name,
    };
    // What is named like a kind is taken for one.
    if catalog::find(word).is_some() { kind.name.into() } else { word.into() }
}

fn ask_for_url(kind: &ProviderKind, ask: &dyn Fn(&str) -> Option<String>) -> Result<Option<BaseUrl>, ExitCode> {
    if kind.base_url.is_some() {
        return Ok(None);
    }
    let like = if kind.name == "azure" { "https://NAME.openai.azure.com" } else { "https://HOST/v1" };
    ask(&format!("Address, such as {like}: ")).map(|typed| address(&typed)).transpose()
}

/// An address as it was typed.
fn address(typed: &str) -> Result<BaseUrl, ExitCode> {
    typed.parse().map_err(|why| {
        let what = format!("`{}` is no address: {why}", text::line(typed));
        term::error(what, None, Some("write it as `https://HOST/PATH`"));
        ExitCode::from(2)
    })
}

fn missing(kind: &ProviderKind, what: &str, option: &str) -> ExitCode {
    let help = format!("say it with `{option}`");
    term::error(format_args!("`{}` needs its {what}", kind.name), None, Some(&help));
    ExitCode::from(2)
}

/// Where its key is; one that is typed or comes in is kept first.
fn key(
    options: &AddProvider,
    kind: &ProviderKind,
    name: &str,
    env: &Env,
    is_attended: bool,
) -> Result<Option<CredentialRef>, ExitCode> {
    if let Some(reference) = &options.key_ref {
        return Ok(Some(reference.clone()));
    }
    let own = kind.key_variable.filter(|_| name == kind.name).map(str::to_owned);
    let stored = own.unwrap_or_else(|| format!("{}_API_KEY", name.to_ascii_uppercase().replace('-', "_")));
    if !options.key_stdin {
        if env.named(&stored).is_some() {
            term::note(format_args!("its key is the variable `{stored}`, which the gateway has to see too"));
            return Ok(Some(CredentialRef::Env(stored)));
        }
        if credentials::is_kept(env, &stored) {
            term::note(format_args!("its key is `{stored}`, which is kept already"));
            return Ok(Some(CredentialRef::Stored(stored)));
        }
        let serves_without = kind.keyless || kind.key_variable.is_none();
        if serves_without && (!is_attended || kind.base_url.is_some()) {
            return Ok(None);
        }
        if serves_without && term::confirmed(format_args!("Does `{name}` want a key?")) != Some(true) {
            return Ok(None);
        }
        if !is_attended {
            let help = "give it with `--key-stdin`, or say with `--key-ref` where it is";
            return Err(failed(format_args!("`{name}` needs a key"), help));
        }
    }
    let value = credentials::read(&stored).map_err(credentials::Failed::told)?;
    credentials::keep(env.clone(), &stored, &value).map_err(credentials::Failed::told)?;
    Ok(Some(CredentialRef::Stored(stored)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_tells_what_is_behind_it_and_gives_it_a_name() {
        for (url, protocol, kind, name) in [
            ("https://api.deepseek.com/v1", None, "deepseek", "deepseek"),
            ("https://openrouter.ai/api/v1", None, "openrouter", "openrouter"),
            ("https://mine.openai.azure.com", None, "azure", "azure"),
            ("https://mine.services.ai.azure.com", Some("anthropic"), "azure", "azure"),
            ("https://api.example.com/v1", None, "openai-compatible", "example"),
            ("https://gateway.example.com", Some("anthropic"), "anthropic-compatible", "example"),
            ("http://localhost:1234/v1", None, "openai-compatible", "localhost"),
            ("http://127.0.0.1:11434", None, "ollama", "ollama"),
            ("http://10.0.0.7:8000/v1", None, "openai-compatible", "openai-compatible"),
            ("http://10.0.0.7:11434", Some("ollama"), "ollama", "ollama"),
            ("http://[::1]:8000/v1", None, "openai-compatible", "openai-compatible"),
            ("https://api.example.co.uk/v1", None, "openai-compatible", "example"),
            ("https://example.com.au", None, "openai-compatible", "example"),
            ("https://co.uk", None, "openai-compatible", "co"),
            ("https://llm.mine.ai", None, "openai-compatible", "mine"),
            ("https://xn--mnchen-3ya.de/v1", None, "openai-compatible", "xn--mnchen-3ya"),
            ("http://box:8000", None, "openai-compatible", "box"),
            ("https://api.anthropic.example.com", None, "openai-compatible", "example"),
            ("https://anthropic.example", None, "openai-compatible", "openai-compatible"),
        ] {
            let url: BaseUrl = url.parse().unwrap();
            let found = behind(&url, protocol);
            assert_eq!((found.name, &*named_after(found, Some(&url))), (kind, name), "{url}");
        }
    }
}
