//! One row a provider kind: what it speaks and where, where it lives by default, how it wants to see a key.

use std::fmt;

use wire::models;
use wire::protocol::Protocol;
use wire::quirks::{Images, Quirks, ReasoningForm};
use wire::request::Effort;

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

    /// The form for this key: what Azure's Entra gives in place of a key is a bearer's token (a JWT).
    pub fn of_key(self, key: &str) -> Self {
        let is_token = key.starts_with("eyJ") && key.bytes().filter(|byte| *byte == b'.').count() == 2;
        if is_token { Self::Bearer } else { self }
    }

    /// What stands before the key in the header's value.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Bearer => "Bearer ",
            Self::XApiKey | Self::ApiKey => "",
        }
    }
}

/// One protocol that a kind of provider speaks.
pub struct Way {
    /// The protocol.
    pub protocol: Protocol,
    /// What stands before the protocol's own paths.
    pub prefix: &'static str,
    /// Whether it is spoken only where the configuration says so: where a provider has it, but not for every model, or
    /// only with losses that nobody is told of.
    pub only_forced: bool,
    /// How it wants to see a key there, if not as everywhere.
    pub auth: Option<Auth>,
    /// What it takes, for a model of that name.
    pub quirks: fn(&str) -> Quirks,
}

impl Way {
    const fn new(protocol: Protocol, prefix: &'static str, quirks: fn(&str) -> Quirks) -> Self {
        Self { protocol, prefix, only_forced: false, auth: None, quirks }
    }

    const fn only_forced(self) -> Self {
        Self { only_forced: true, ..self }
    }

    const fn auth(self, auth: Auth) -> Self {
        Self { auth: Some(auth), ..self }
    }

    /// Whether the size of the context is part of a request.
    pub fn reserves_context(&self) -> bool {
        self.protocol == Protocol::Ollama
    }
}

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Way({}{})", self.prefix, self.protocol.as_str())
    }
}

/// What a `providerType` means.
pub struct ProviderKind {
    /// As `providerType` names it.
    pub name: &'static str,
    /// Whether this version can talk to it. A row that is only known is refused where it is enabled.
    pub supported: bool,
    /// What it speaks, the preferred one first.
    pub ways: &'static [Way],
    /// Where it lives when the configuration says nothing; `None`: `baseUrl` must be given.
    pub base_url: Option<&'static str>,
    /// How it wants to see a key.
    pub auth: Auth,
    /// The environment variable that holds its key when the configuration says nothing; `None`: no key.
    pub key_variable: Option<&'static str>,
    /// Whether it serves without a key.
    pub keyless: bool,
    /// The model that is meant when the asked one is not its own.
    pub default_model: Option<&'static str>,
}

impl PartialEq for ProviderKind {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for ProviderKind {}

impl ProviderKind {
    /// How a client of that protocol is served: in its own protocol where that is offered, else in the preferred one.
    /// `forced` is what the configuration says.
    pub fn way(&self, client: Protocol, forced: Option<Protocol>) -> &'static Way {
        let of = |protocol: Protocol| self.ways.iter().find(move |way| way.protocol == protocol);
        let own = || of(client).filter(|way| !way.only_forced);
        forced.and_then(of).or_else(own).unwrap_or(&self.ways[0])
    }
}

impl fmt::Debug for ProviderKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProviderKind({})", self.name)
    }
}

const ANTHROPIC: Protocol = Protocol::AnthropicMessages;
const CHAT: Protocol = Protocol::OpenAiChat;
const RESPONSES: Protocol = Protocol::OpenAiResponses;

/// A server of unknown make.
fn compatible(_: &str) -> Quirks {
    Quirks::COMPATIBLE
}

/// The same where it is known to take a little more.
fn open_weights(_: &str) -> Quirks {
    Quirks { top_k: true, ..Quirks::COMPATIBLE }
}

fn openrouter(_: &str) -> Quirks {
    const EFFORTS: &[Effort] = &[Effort::Minimal, Effort::Low, Effort::Medium, Effort::High];
    Quirks { documents: true, top_k: true, reasoning: ReasoningForm::Effort, efforts: EFFORTS, ..Quirks::COMPATIBLE }
}

fn deepseek(model: &str) -> Quirks {
    Quirks { images: deepseek_images(model), ..Quirks::DEEPSEEK }
}

/// DeepSeek's Anthropic endpoint: what it does not know, it ignores.
fn deepseek_anthropic(model: &str) -> Quirks {
    let images = deepseek_images(model);
    Quirks { images, documents: false, document_urls: false, sampling: true, ..Quirks::ANTHROPIC }
}

/// Of DeepSeek's models the small one sees.
fn deepseek_images(model: &str) -> Images {
    if model.contains("flash") { Images::All } else { Images::None }
}

/// Azure does not search the web for its models.
fn azure_responses(model: &str) -> Quirks {
    Quirks { web_search: false, ..models::responses(model) }
}

/// All kinds that the configuration may name.
pub static CATALOG: &[ProviderKind] = &[
    ProviderKind {
        key_variable: Some("ANTHROPIC_API_KEY"),
        default_model: Some("claude-sonnet-5-5"),
        ..row("anthropic", &[Way::new(ANTHROPIC, "", models::claude)], Auth::XApiKey, Some("https://api.anthropic.com"))
    },
    row("anthropic-compatible", &[Way::new(ANTHROPIC, "", models::claude)], Auth::XApiKey, None),
    ProviderKind {
        key_variable: Some("OPENAI_API_KEY"),
        // Newer models do not reason beside tools in Chat Completions.
        ..row(
            "openai",
            &[Way::new(RESPONSES, "", models::responses), Way::new(CHAT, "", models::openai)],
            Auth::Bearer,
            Some("https://api.openai.com"),
        )
    },
    ProviderKind {
        key_variable: Some("AZURE_OPENAI_API_KEY"),
        ..row(
            "azure",
            &[
                Way::new(RESPONSES, "/openai", azure_responses),
                Way::new(CHAT, "/openai", models::openai),
                // Claude on Foundry.
                Way::new(ANTHROPIC, "/anthropic", models::claude).auth(Auth::XApiKey).only_forced(),
            ],
            Auth::ApiKey,
            None,
        )
    },
    ProviderKind {
        key_variable: Some("DEEPSEEK_API_KEY"),
        ..row(
            "deepseek",
            &[Way::new(CHAT, "", deepseek), Way::new(ANTHROPIC, "/anthropic", deepseek_anthropic)],
            Auth::Bearer,
            Some("https://api.deepseek.com"),
        )
    },
    ProviderKind {
        keyless: true,
        // Its other protocols cut long prompts in silence.
        ..row(
            "ollama",
            &[
                Way::new(Protocol::Ollama, "", models::ollama),
                Way::new(ANTHROPIC, "", |_| Quirks { documents: false, document_urls: false, ..Quirks::ANTHROPIC })
                    .only_forced(),
                Way::new(CHAT, "", compatible).only_forced(),
                Way::new(RESPONSES, "", compatible).only_forced(),
            ],
            Auth::Bearer,
            Some("http://127.0.0.1:11434"),
        )
    },
    ProviderKind {
        key_variable: Some("OPENROUTER_API_KEY"),
        ..row(
            "openrouter",
            &[
                Way::new(CHAT, "", openrouter),
                Way::new(ANTHROPIC, "", models::claude),
                Way::new(RESPONSES, "", openrouter).only_forced(),
            ],
            Auth::Bearer,
            Some("https://openrouter.ai/api"),
        )
    },
    ProviderKind { keyless: true, ..row("vllm", OPEN_WEIGHTS, Auth::Bearer, Some("http://127.0.0.1:8000")) },
    ProviderKind { keyless: true, ..row("llamacpp", OPEN_WEIGHTS, Auth::Bearer, Some("http://127.0.0.1:8080")) },
    ProviderKind {
        keyless: true,
        ..row(
            "openai-compatible",
            &[
                Way::new(CHAT, "", compatible),
                Way::new(RESPONSES, "", compatible).only_forced(),
                Way::new(ANTHROPIC, "", models::claude).only_forced(),
            ],
            Auth::Bearer,
            None,
        )
    },
    ProviderKind { supported: false, ..row("bedrock", &[Way::new(ANTHROPIC, "", models::claude)], Auth::Bearer, None) },
    ProviderKind { supported: false, ..row("vertex", &[Way::new(ANTHROPIC, "", models::claude)], Auth::Bearer, None) },
];

/// Servers of open models: some versions of them speak more than Chat Completions.
static OPEN_WEIGHTS: &[Way] = &[
    Way::new(CHAT, "", open_weights),
    Way::new(RESPONSES, "", open_weights).only_forced(),
    Way::new(ANTHROPIC, "", models::claude).only_forced(),
];

/// A row with nothing but what every row has.
const fn row(name: &'static str, ways: &'static [Way], auth: Auth, base_url: Option<&'static str>) -> ProviderKind {
    ProviderKind {
        name,
        supported: true,
        ways,
        auth,
        base_url,
        key_variable: None,
        keyless: false,
        default_model: None,
    }
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
            assert!(kind.ways.first().is_some_and(|way| !way.only_forced), "{} speaks nothing by itself", kind.name);
            if let Some(url) = kind.base_url {
                url.parse::<BaseUrl>().unwrap();
            }
        }
        assert_eq!(anthropic().name, "anthropic");
        let all: Vec<_> = supported().collect();
        assert_eq!(all.len() + 2, CATALOG.len());
        assert!(all.contains(&"ollama") && !all.contains(&"bedrock"));
    }

    #[test]
    fn a_token_of_entras_is_shown_as_a_bearers() {
        assert_eq!(Auth::ApiKey.of_key("eyJ0eXAi.eyJhdWQi.c2ln"), Auth::Bearer);
        for key in ["0123456789abcdef", "eyJ0eXAi", "sk-ant-api03-a.b.c"] {
            assert_eq!((Auth::ApiKey.of_key(key), Auth::XApiKey.of_key(key)), (Auth::ApiKey, Auth::XApiKey), "{key}");
        }
    }

    #[test]
    fn of_deepseeks_models_the_one_that_sees_is_shown_images() {
        for way in find("deepseek").unwrap().ways {
            let images = ["deepseek-flash", "deepseek-v4-flash", "deepseek-v4-pro", ""].map(|m| (way.quirks)(m).images);
            assert_eq!(images, [Images::All, Images::All, Images::None, Images::None], "{way:?}");
        }
    }

    #[test]
    fn a_client_is_served_in_its_own_protocol_where_that_is_offered() {
        use Protocol::{AnthropicMessages as A, Ollama as O, OpenAiChat as C, OpenAiResponses as R};
        for (kind, forced, want) in [
            ("anthropic", None, [A, A, A]),
            ("openai", None, [R, C, R]),
            ("openai", Some(C), [C, C, C]),
            ("azure", None, [R, C, R]),
            ("azure", Some(A), [A, A, A]),
            ("deepseek", None, [A, C, C]),
            ("ollama", None, [O, O, O]),
            ("ollama", Some(A), [A, A, A]),
            ("openrouter", None, [A, C, C]),
            ("vllm", None, [C, C, C]),
            ("openai-compatible", None, [C, C, C]),
        ] {
            let kind = find(kind).unwrap();
            let got = [A, C, R].map(|client| kind.way(client, forced).protocol);
            assert_eq!(got, want, "{} {forced:?}", kind.name);
        }
    }
}
