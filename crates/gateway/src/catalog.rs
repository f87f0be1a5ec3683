//! One row a provider kind: what it speaks, where it lives by default, how it wants to see a key.

use std::fmt;

use wire::protocol::Protocol;

/// The header form in which an upstream wants its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Auth {
    /// `x-api-key: KEY`
    XApiKey,
    /// `authorization: Bearer KEY`
    Bearer,
    /// `api-key: KEY`
    ApiKey,
}

impl Auth {
    /// The header's name, in lower case.
    pub fn header(self) -> &'static str {
        match self {
            Self::XApiKey => "x-api-key",
            Self::Bearer => "authorization",
            Self::ApiKey => "api-key",
        }
    }

    /// What stands before the key in the header's value.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Bearer => "Bearer ",
            Self::XApiKey | Self::ApiKey => "",
        }
    }
}

/// What a `providerType` means.
#[derive(PartialEq, Eq)]
pub struct ProviderKind {
    /// As `providerType` names it.
    pub name: &'static str,
    /// Whether this version can talk to it. A row that is only known is refused where it is enabled.
    pub supported: bool,
    /// What it speaks, the preferred one first.
    pub protocols: &'static [Protocol],
    /// Where it lives when the configuration says nothing; `None`: `baseUrl` must be given.
    pub base_url: Option<&'static str>,
    /// How it wants to see a key.
    pub auth: Auth,
    /// The environment variable that holds its key when the configuration says nothing; `None`: no key.
    pub key_variable: Option<&'static str>,
    /// The model that is meant when the asked one is not its own.
    pub default_model: Option<&'static str>,
}

impl fmt::Debug for ProviderKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProviderKind({})", self.name)
    }
}

/// All kinds that the configuration may name.
pub static CATALOG: &[ProviderKind] = &[
    ProviderKind {
        name: "anthropic",
        supported: true,
        protocols: &[Protocol::AnthropicMessages],
        base_url: Some("https://api.anthropic.com"),
        auth: Auth::XApiKey,
        key_variable: Some("ANTHROPIC_API_KEY"),
        default_model: Some("claude-sonnet-5-5"),
    },
    ProviderKind {
        name: "anthropic-compatible",
        supported: true,
        protocols: &[Protocol::AnthropicMessages],
        base_url: None,
        auth: Auth::XApiKey,
        key_variable: None,
        default_model: None,
    },
    later("openai", &[Protocol::OpenAiResponses, Protocol::OpenAiChat], Auth::Bearer, Some("https://api.openai.com")),
    later("azure", &[Protocol::OpenAiResponses, Protocol::OpenAiChat], Auth::ApiKey, None),
    later(
        "deepseek",
        &[Protocol::AnthropicMessages, Protocol::OpenAiChat],
        Auth::Bearer,
        Some("https://api.deepseek.com/anthropic"),
    ),
    later("ollama", &[Protocol::Ollama], Auth::Bearer, Some("http://127.0.0.1:11434")),
    later("openrouter", &[Protocol::OpenAiChat], Auth::Bearer, Some("https://openrouter.ai/api")),
    later("openai-compatible", &[Protocol::OpenAiChat], Auth::Bearer, None),
    later("bedrock", &[Protocol::AnthropicMessages], Auth::Bearer, None),
    later("vertex", &[Protocol::AnthropicMessages], Auth::Bearer, None),
];

/// A row that is known by name, so that the message can say that a later version speaks to it.
const fn later(
    name: &'static str,
    protocols: &'static [Protocol],
    auth: Auth,
    base_url: Option<&'static str>,
) -> ProviderKind {
    ProviderKind { name, supported: false, protocols, base_url, auth, key_variable: None, default_model: None }
}

/// The row of that name.
pub fn find(name: &str) -> Option<&'static ProviderKind> {
    CATALOG.iter().find(|kind| kind.name == name)
}

/// The row of the provider that is there without any configuration.
pub fn anthropic() -> &'static ProviderKind {
    &CATALOG[0]
}

/// The names that this version can talk to.
pub fn supported() -> impl Iterator<Item = &'static str> {
    CATALOG.iter().filter(|kind| kind.supported).map(|kind| kind.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin::BaseUrl;

    #[test]
    fn every_row_is_well_formed_and_its_name_is_its_own() {
        for kind in CATALOG {
            assert!(std::ptr::eq(find(kind.name).unwrap(), kind), "{} stands twice", kind.name);
            assert!(!kind.protocols.is_empty());
            if let Some(url) = kind.base_url {
                url.parse::<BaseUrl>().unwrap();
            }
        }
        assert_eq!(anthropic().name, "anthropic");
        assert_eq!(supported().collect::<Vec<_>>(), ["anthropic", "anthropic-compatible"]);
    }
}
