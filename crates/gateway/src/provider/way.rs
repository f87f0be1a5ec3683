//! Where and how a provider is asked, for a client of one protocol.

use std::borrow::Cow;

use wire::protocol::Protocol;
use wire::quirks::Quirks;

use super::Provider;
use crate::catalog::{Auth, Way};

impl Provider {
    /// How a client of that protocol is served.
    pub fn way(&self, client: Protocol) -> &'static Way {
        self.kind.way(client, self.protocol)
    }

    /// The form in which it wants to see a key.
    pub fn auth(&self, way: &Way) -> Auth {
        way.auth.unwrap_or(self.kind.auth)
    }

    /// The name under which it is asked for a model: an Azure resource knows deployments.
    pub fn model<'m>(&'m self, model: &'m str) -> &'m str {
        self.deployment.as_deref().unwrap_or(model)
    }

    /// What it takes, for a model of that name.
    pub fn quirks(&self, way: &Way, model: &str) -> Quirks {
        let context_most = if way.reserves_context() { self.contexts.most(model) } else { None };
        Quirks { context_fixed: self.num_ctx, context_most, ..(way.quirks)(model) }
    }

    /// Path and query of a generation.
    pub fn generation(&self, way: &Way) -> String {
        let own = match way.protocol {
            Protocol::AnthropicMessages => "/v1/messages",
            Protocol::OpenAiChat => "/v1/chat/completions",
            Protocol::OpenAiResponses => "/v1/responses",
            Protocol::Ollama => "/api/chat",
        };
        self.target(way, own).into_owned()
    }

    /// Path and query for what a client of the way's protocol asks for.
    pub fn target<'t>(&self, way: &Way, asked: &'t str) -> Cow<'t, str> {
        if let (Some(deployment), Some(version), true) =
            (&self.deployment, &self.api_version, way.protocol != Protocol::AnthropicMessages)
        {
            let rest = asked.strip_prefix("/v1").unwrap_or(asked);
            let and = if rest.contains('?') { '&' } else { '?' };
            let base = self.base.path.trim_end_matches("/openai");
            return format!("{base}/openai/deployments/{deployment}{rest}{and}api-version={version}").into();
        }
        if self.base.path.is_empty() && way.prefix.is_empty() {
            return Cow::Borrowed(asked);
        }
        join(&self.base.path, way, asked).into()
    }
}

/// The base's path and the way's, without what both name: people write a base with and without them.
pub(super) fn join(base: &str, way: &Way, asked: &str) -> String {
    let own = format!("{}{asked}", way.prefix);
    // The base of another protocol of the same host.
    let base = if way.protocol == Protocol::AnthropicMessages { base } else { base.trim_end_matches("/anthropic") };
    let borders = base.match_indices('/').map(|(at, _)| at);
    let shared =
        borders.map(|at| &base[at..]).find(|tail| own.strip_prefix(*tail).is_some_and(|rest| rest.starts_with('/')));
    format!("{}{own}", &base[..base.len() - shared.map_or(0, str::len)])
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{Config, Env, Paths, parse};
    use crate::credential::Resolver;

    fn provider(text: &str) -> Provider {
        let text = format!(r#"{{ "providers": {{ "p": {{ {text} }} }}, "routing": {{ "defaultProvider": "p" }} }}"#);
        let config: Config = parse(&text, &Paths::default()).unwrap_or_else(|faults| panic!("{faults:?}")).0;
        assert_eq!(config.providers[0].connect_timeout, Duration::from_secs(10));
        Provider::new(&config.providers[0], 0, &Resolver::new(Env::fixed([] as [(&str, &str); 0])), None).unwrap()
    }

    #[track_caller]
    fn check(text: &str, client: Protocol, want: &str) {
        let provider = provider(text);
        assert_eq!(provider.generation(provider.way(client)), want, "{text}");
    }

    #[test]
    fn a_generation_is_asked_for_where_the_provider_has_it() {
        use Protocol::{AnthropicMessages as A, OpenAiChat as C, OpenAiResponses as R};
        check(r#""providerType": "openai""#, A, "/v1/responses");
        check(r#""providerType": "openai""#, C, "/v1/chat/completions");
        check(r#""providerType": "openai", "baseUrl": "https://x.test/v1""#, R, "/v1/responses");
        check(r#""providerType": "openai-compatible", "baseUrl": "https://x.test/a/v1/""#, A, "/a/v1/chat/completions");
        check(r#""providerType": "openrouter""#, A, "/api/v1/messages");
        check(
            r#""providerType": "openrouter", "baseUrl": "https://openrouter.ai/api/v1""#,
            C,
            "/api/v1/chat/completions",
        );
        check(r#""providerType": "openrouter", "baseUrl": "https://openrouter.ai/api/v1""#, A, "/api/v1/messages");
        check(r#""providerType": "anthropic-compatible", "baseUrl": "https://x.test/a/v1""#, A, "/a/v1/messages");
        check(r#""providerType": "anthropic-compatible", "baseUrl": "https://x.test/a""#, A, "/a/v1/messages");
        check(r#""providerType": "deepseek""#, A, "/anthropic/v1/messages");
        check(r#""providerType": "deepseek""#, C, "/v1/chat/completions");
        check(
            r#""providerType": "deepseek", "baseUrl": "https://api.deepseek.com/anthropic""#,
            A,
            "/anthropic/v1/messages",
        );
        check(
            r#""providerType": "deepseek", "baseUrl": "https://api.deepseek.com/anthropic""#,
            R,
            "/v1/chat/completions",
        );
        check(r#""providerType": "ollama""#, A, "/api/chat");
        check(r#""providerType": "ollama", "protocol": "anthropic""#, A, "/v1/messages");
        let azure = r#""providerType": "azure", "baseUrl": "https://r.openai.azure.com"#;
        check(&format!(r#"{azure}""#), A, "/openai/v1/responses");
        check(&format!(r#"{azure}/openai/v1""#), C, "/openai/v1/chat/completions");
        check(&format!(r#"{azure}/openai""#), C, "/openai/v1/chat/completions");
        check(&format!(r#"{azure}", "protocol": "anthropic""#), A, "/anthropic/v1/messages");
        let dated = format!(r#"{azure}", "deployment": "d", "apiVersion": "2024-10-21""#);
        check(&dated, C, "/openai/deployments/d/chat/completions?api-version=2024-10-21");
        assert_eq!(provider(&dated).model("gpt"), "d");
    }

    #[test]
    fn a_dated_azure_deployment_has_chat_completions_only() {
        use Protocol::{AnthropicMessages as A, OpenAiResponses as R};
        let dated =
            r#""providerType": "azure", "baseUrl": "https://r.test", "deployment": "d", "apiVersion": "2024-10-21""#;
        check(dated, A, "/openai/deployments/d/chat/completions?api-version=2024-10-21");
        check(dated, R, "/openai/deployments/d/chat/completions?api-version=2024-10-21");
    }

    #[test]
    fn the_list_of_models_is_where_the_generations_are() {
        let list = |kind: &str, base: &str| join(base, &crate::catalog::find(kind).unwrap().ways[0], "/v1/models");
        assert_eq!(list("anthropic", ""), "/v1/models");
        assert_eq!(list("anthropic-compatible", "/x"), "/x/v1/models");
        assert_eq!(list("openai", "/v1"), "/v1/models");
        assert_eq!(list("azure", ""), "/openai/v1/models");
        assert_eq!(list("openrouter", "/api/v1"), "/api/v1/models");
        assert_eq!(list("deepseek", "/anthropic"), "/v1/models");
    }

    #[test]
    fn a_fixed_context_is_asked_of_every_model() {
        let provider = provider(r#""providerType": "ollama", "numCtx": 32768"#);
        let quirks = provider.quirks(provider.way(Protocol::AnthropicMessages), "qwen3:8b");
        assert_eq!(quirks.context_fixed, Some(32_768));
    }
}
