//! What one key alone cannot tell: references between sections, and conditions that join several keys.

use jsonc_parser::ast::Value;
use wire::protocol::Protocol;

use super::fault::NoteLevel::{Info, Warn};
use super::keys::{Config, ProviderConfig, Routing, Rule, Server, Use, When};
use super::read::{Place, Reader, Wrong, offset};
use super::suggest::nearest;
use crate::catalog;
use crate::origin::Scheme;

/// The section that holds our content where the file is shared with other programs.
pub(super) const SECTION: &str = "llmGateway";

/// The value that holds our keys: the whole, or the section `llmGateway`.
pub(super) fn content<'v, 't>(root: Option<&'v Value<'t>>, reader: &mut Reader<'_>) -> Option<&'v Value<'t>> {
    let object = root?.as_object();
    let Some(ours) = object.and_then(|object| object.get(SECTION)) else { return root };
    let mut others = Vec::new();
    for property in &object.expect("it has the section").properties {
        match property.name.as_str() {
            "$schema" => {}
            SECTION if property.range == ours.range => {}
            SECTION => {
                let wrong = Wrong::new(format!("`{SECTION}` is given twice"), "remove one of the two");
                reader.fault(property.range.start, &Place::default().key(SECTION), wrong);
            }
            other => others.push(format!("`{other}`")),
        }
    }
    if !others.is_empty() {
        let are = if others.len() == 1 { "stands beside it and is" } else { "stand beside it and are" };
        let message = format!("the configuration is read from `{SECTION}`; {} {are} ignored", others.join(", "));
        reader.note(Info, ours.range.start, &Place::default(), message);
    }
    Some(&ours.value)
}

/// The value at a path of keys, if it is given.
fn find<'v, 't>(root: Option<&'v Value<'t>>, path: &[&str]) -> Option<&'v Value<'t>> {
    path.iter().try_fold(root?, |value, key| {
        // Of a repeated key the first counts, as in the reading.
        let mut properties = value.as_object()?.properties.iter();
        properties.find(|property| property.name.as_str() == *key).map(|property| &property.value)
    })
}

/// Where a path of keys is, or would have to be: the offset of the innermost value that is given.
fn locate(root: Option<&Value<'_>>, path: &[&str]) -> usize {
    (0..=path.len()).rev().find_map(|n| find(root, &path[..n])).map_or(0, offset)
}

fn place(path: &[&str]) -> Place {
    path.iter().fold(Place::default(), |place, key| place.key(key))
}

/// Checks what joins several keys, and fills what one key derives from another.
pub(super) fn whole(config: &mut Config, root: Option<&Value<'_>>, reader: &mut Reader<'_>) {
    if config.providers.is_empty() {
        config.providers = Config::default().providers;
    }
    server(&config.server, root, reader);
    for provider in &config.providers {
        one_provider(provider, root, reader);
    }
    default_provider(config, root, reader);
    fallback_chain(config, root, reader);
    rules(config, root, reader);
    reader.derived("routing.defaultProvider", &config.routing.default_provider.as_str().into());
    reader.derived("routing.fallbackChain", &config.routing.fallback_chain.clone().into());
}

fn server(server: &Server, root: Option<&Value<'_>>, reader: &mut Reader<'_>) {
    let path = ["server", "listen"];
    // A token that was wrong has its own fault; it is not missing.
    let mut assumed = server.clone();
    if reader.is_faulty("server.token") {
        assumed.token = Some(super::credential::CredentialRef::Env("TOKEN".into()));
    }
    if let Err(help) = assumed.may_listen_on(server.listen) {
        let message = format!("`{}` can be reached by other machines", server.listen);
        reader.fault(locate(root, &path), &place(&path), Wrong::new(message, help));
    }
    if server.max_held < server.max_body
        && !reader.is_faulty("server.maxHeldMb")
        && !reader.is_faulty("server.maxBodyMb")
    {
        let given = if find(root, &["server", "maxHeldMb"]).is_some() { "maxHeldMb" } else { "maxBodyMb" };
        let path = ["server", given];
        let wrong =
            Wrong::new("`maxHeldMb` is less than `maxBodyMb`", "all bodies together need at least the room of one");
        reader.fault(locate(root, &path), &place(&path), wrong);
    }
}

impl Server {
    /// Whether this address may be listened on; otherwise what to set.
    pub fn may_listen_on(&self, address: std::net::SocketAddr) -> Result<(), String> {
        if address.ip().to_canonical().is_loopback() {
            return Ok(());
        }
        match (self.allow_remote, self.token.is_some()) {
            (true, true) => Ok(()),
            (false, true) => Err("set `server.allowRemote` to true, or listen on 127.0.0.1".into()),
            (true, false) => Err("set `server.token`, for example to \"env:CCO_TOKEN\", or listen on 127.0.0.1".into()),
            (false, false) => Err("set `server.allowRemote` to true and `server.token` to a reference such as \
                                   \"env:CCO_TOKEN\", or listen on 127.0.0.1"
                .into()),
        }
    }
}

fn one_provider(provider: &ProviderConfig, root: Option<&Value<'_>>, reader: &mut Reader<'_>) {
    let name = provider.name.as_str();
    let whole = ["providers", name];
    let kind = ["providers", name, "providerType"];
    let base = ["providers", name, "baseUrl"];
    if !provider.kind.supported {
        let message = format!("providers of kind `{}` come with a later version", provider.kind.name);
        if provider.enabled {
            let supported: Vec<_> = catalog::supported().map(|name| format!("\"{name}\"")).collect();
            let help = format!("set `enabled` to false; this version speaks to {}", supported.join(", "));
            reader.fault(locate(root, &kind), &place(&kind), Wrong::new(message, help));
        } else {
            reader.note(Info, locate(root, &whole), &place(&whole), message);
        }
        return;
    }
    if let Some(forced) = provider.protocol
        && !provider.kind.ways.iter().any(|way| way.protocol == forced)
    {
        let path = ["providers", name, "protocol"];
        let known: Vec<_> = provider.kind.ways.iter().map(|way| format!("\"{}\"", way.protocol.as_str())).collect();
        let help = format!("write {}, or null", known.join(" or "));
        let message = format!("kind `{}` does not speak \"{}\"", provider.kind.name, forced.as_str());
        reader.fault(locate(root, &path), &place(&path), Wrong::new(message, help));
    }
    if provider.api_version.is_some() && provider.deployment.is_none() {
        let path = ["providers", name, "apiVersion"];
        let wrong = Wrong::new("it needs a `deployment`", "add `deployment`, or leave both out for the v1 API");
        reader.fault(locate(root, &path), &place(&path), wrong);
    }
    match &provider.base_url {
        None if provider.enabled && !reader.is_faulty(&place(&base).0) => {
            let help =
                format!("kind `{}` has no default address: add `\"baseUrl\": \"https://…\"`", provider.kind.name);
            reader.fault(locate(root, &base), &place(&base), Wrong::new("is missing", help));
        }
        Some(url) => {
            let offset = locate(root, &base);
            if url.origin.scheme == Scheme::Http && !is_loopback(&url.origin.host) {
                let message = "requests, with their key, go over the network unencrypted: use https";
                reader.note(Warn, offset, &place(&base), message);
            }
            let is_anthropic = provider.kind.ways[0].protocol == Protocol::AnthropicMessages;
            if url.path.ends_with("/v1") && is_anthropic {
                let message =
                    format!("requests will go to `{url}/v1/…`: leave out the `/v1` at the end if that is one too many");
                reader.note(Warn, offset, &place(&base), message);
            }
        }
        None => {}
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host.ends_with(".localhost")
        || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

fn names(config: &Config) -> Vec<&str> {
    config.providers.iter().map(|provider| provider.name.as_str()).collect()
}

/// What to do about the name of a provider that is not there.
fn instead_of(name: &str, config: &Config) -> String {
    match nearest(name, names(config)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => {
            let names: Vec<_> = names(config).iter().map(|name| format!("`{name}`")).collect();
            format!("add it to `providers`, or name one that is there: {}", names.join(", "))
        }
    }
}

fn default_provider(config: &mut Config, root: Option<&Value<'_>>, reader: &mut Reader<'_>) {
    let path = ["routing", "defaultProvider"];
    let given = find(root, &path).is_some() || reader.is_overridden(&place(&path));
    if !names(config).contains(&config.routing.default_provider.as_str()) && !reader.is_faulty(&place(&path).0) {
        let mut usable = config.providers.iter().filter(|provider| provider.enabled);
        match (given, usable.next(), usable.next()) {
            // Where there is only one, it needs no mention.
            (false, Some(only), None) => config.routing.default_provider = only.name.clone(),
            (false, ..) => {
                let help = format!("set `routing.defaultProvider` to {}", one_of(&names(config)));
                reader.fault(locate(root, &path), &place(&path), Wrong::new("is missing", help));
            }
            (true, ..) => {
                let name = &config.routing.default_provider;
                let wrong = Wrong::new(format!("`{name}` is not a configured provider"), instead_of(name, config));
                reader.fault(locate(root, &path), &place(&path), wrong);
            }
        }
    }
    let name = &config.routing.default_provider;
    if config.providers.iter().any(|provider| provider.name == *name && !provider.enabled) {
        let message = format!("`{name}` is not enabled: others serve in its place, where rules or the chain name them");
        reader.note(Warn, locate(root, &path), &place(&path), message);
    }
}

fn one_of(names: &[&str]) -> String {
    names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(" or ")
}

fn fallback_chain(config: &mut Config, root: Option<&Value<'_>>, reader: &mut Reader<'_>) {
    let path = ["routing", "fallbackChain"];
    if find(root, &path).is_none() && !reader.is_overridden(&place(&path)) {
        config.routing.fallback_chain = vec![config.routing.default_provider.clone()];
        return;
    }
    let mut chain: Vec<String> = Vec::new();
    for name in &config.routing.fallback_chain {
        if !chain.contains(name) {
            chain.push(name.clone());
        }
    }
    skipped(chain.iter().map(String::as_str), config, &path, root, reader);
    chain.retain(|name| names(config).contains(&name.as_str()));
    config.routing.fallback_chain = chain;
}

/// One note on all names at this path that are not configured.
fn skipped<'n>(
    used: impl Iterator<Item = &'n str>,
    config: &Config,
    path: &[&str],
    root: Option<&Value<'_>>,
    reader: &mut Reader<'_>,
) {
    let configured = names(config);
    let mut absent: Vec<&str> = Vec::new();
    for name in used {
        if !configured.contains(&name) && !absent.contains(&name) {
            absent.push(name);
        }
    }
    if absent.is_empty() {
        return;
    }
    let described: Vec<_> = absent
        .iter()
        .map(|name| match nearest(name, configured.iter().copied()) {
            Some(near) => format!("`{name}` (did you mean `{near}`?)"),
            None => format!("`{name}`"),
        })
        .collect();
    let are = if absent.len() == 1 { "is not configured and is" } else { "are not configured and are" };
    reader.note(Info, locate(root, path), &place(path), format!("{} {are} skipped", described.join(", ")));
}

/// Whether a rule can match, says something, and only what can hold together.
fn one_rule(at: usize, rule: &Rule, root: Option<&Value<'_>>, reader: &mut Reader<'_>) {
    let given = find(root, &["routing", "rules"]).and_then(Value::as_array);
    let given = given.and_then(|rules| rules.elements.get(at));
    let place = place(&["routing", "rules"]).index(at);
    if let Some(when) = find(given, &["when"]) {
        let place = place.key("when");
        if let Some((name, _)) = rule.when.headers.iter().find(|(_, patterns)| patterns.is_empty()) {
            let wrong = Wrong::new("there is no pattern", "write one, `*` for any value, or remove the header");
            reader.fault(offset(when), &place.key("headers").key(name), wrong);
        }
        if let (Some(over), Some(up_to)) = (rule.when.prompt_tokens_over, rule.when.prompt_tokens_up_to)
            && over >= up_to
        {
            let message = "no prompt is longer than `promptTokensOver` and no longer than `promptTokensUpTo`";
            reader.fault(offset(when), &place, Wrong::new(message, "make the first the smaller of the two"));
        }
    }
    let (Some(then), place) = (find(given, &["use"]), place.key("use")) else { return };
    let wrong = match &rule.then.refuse {
        None if rule.then == Use::default() => {
            let help = "set `providers`, `model`, `headers`, a time or `refuse`, or remove the rule";
            Wrong::new("this rule does nothing", help)
        }
        Some(message) if rule.then != (Use { refuse: Some(message.clone()), ..Use::default() }) => {
            Wrong::new("`refuse` cannot stand beside other keys", "remove the others, or `refuse`")
        }
        _ => return,
    };
    if !reader.is_faulty_below(&place.0) {
        reader.fault(offset(then), &place, wrong);
    }
}

fn rules(config: &Config, root: Option<&Value<'_>>, reader: &mut Reader<'_>) {
    for (at, rule) in config.routing.rules.iter().enumerate() {
        one_rule(at, rule, root, reader);
    }
    if let Some((at, rule)) = config.routing.rules.iter().enumerate().find(|(_, rule)| rule.when == When::default())
        && let Some(behind) = config.routing.rules.get(at + 1)
    {
        let name = |at: usize, rule: &Rule| rule.name.clone().unwrap_or_else(|| format!("rules[{at}]"));
        let message = format!(
            "`{}` has no conditions: it holds always, and `{}` is never reached",
            name(at, rule),
            name(at + 1, behind)
        );
        let path = ["routing", "rules"];
        reader.note(Warn, locate(root, &path), &place(&path), message);
    }
    let Routing { agent_rules, model_tier_rules, rules, on_subscription_limit: limit, .. } = &config.routing;
    let agents = agent_rules.iter().map(|(_, target)| target.provider.as_str());
    skipped(agents, config, &["routing", "agentRules"], root, reader);
    let tiers = model_tier_rules.iter().map(|(_, provider)| provider.as_str());
    skipped(tiers, config, &["routing", "modelTierRules"], root, reader);
    let in_rules = rules.iter().flat_map(|rule| &rule.then.providers).map(|choice| choice.provider.as_str());
    skipped(in_rules, config, &["routing", "rules"], root, reader);
    let path = ["routing", "onSubscriptionLimit"];
    if limit != "pass" && !names(config).contains(&limit.as_str()) {
        let help = format!("write \"pass\" or the name of a provider; {}", instead_of(limit, config));
        let message = format!("`{limit}` is not a configured provider");
        reader.fault(locate(root, &path), &place(&path), Wrong::new(message, help));
    }
}
