//! Under which name a provider is asked for a model.

use wire::protocol::Protocol;

use crate::catalog::ProviderKind;
use crate::glob::Glob;

/// Words that stand for a size of Claude, whatever its version.
const TIERS: &[&str] = &["opus", "sonnet", "haiku", "fable", "mythos"];

/// Models that only one maker's services have under their bare names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Claude,
    Gpt,
    DeepSeek,
}

impl Family {
    fn of(model: &str) -> Option<Self> {
        let model = model.as_bytes();
        let begins = |words: &[&str]| {
            let is_it =
                |word: &&str| model.get(..word.len()).is_some_and(|it| it.eq_ignore_ascii_case(word.as_bytes()));
            words.iter().any(is_it)
        };
        // Without the models that anybody may serve.
        let family = if begins(&["claude"]) {
            Self::Claude
        } else if begins(&["gpt-", "o1", "o3", "o4", "chatgpt", "codex"]) && !begins(&["gpt-oss"]) {
            Self::Gpt
        } else if begins(&["deepseek-"]) && !begins(&["deepseek-r1", "deepseek-coder"]) {
            Self::DeepSeek
        } else {
            return None;
        };
        // With a tag or a maker before them names are as those who serve them write them.
        memchr::memchr2(b':', b'/', model).is_none().then_some(family)
    }
}

/// What a kind of provider has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Serves {
    /// One maker's models.
    Family(Family),
    /// Models under names of its own.
    Own,
    /// Models that are free, under any name; one that is told to stand for others does.
    Free,
    /// Whatever it likes.
    Anything,
}

impl Serves {
    fn of(kind: &ProviderKind, forced: Option<Protocol>) -> Self {
        match kind.name {
            // Claude on Foundry.
            "azure" if forced == Some(Protocol::AnthropicMessages) => Self::Family(Family::Claude),
            "anthropic" | "bedrock" | "vertex" => Self::Family(Family::Claude),
            "openai" | "azure" => Self::Family(Family::Gpt),
            "deepseek" => Self::Family(Family::DeepSeek),
            "ollama" | "openrouter" => Self::Own,
            "vllm" | "llamacpp" => Self::Free,
            _ => Self::Anything,
        }
    }
}

/// How a provider comes to be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rank {
    /// Somebody chose it for this request: it is taken to know the name.
    Chosen,
    /// It stands in for another.
    Fallback,
}

/// What is done for a model that the provider does not have, and no other one stands for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Foreign;

/// The names of one provider's models.
#[derive(Debug)]
pub(super) struct Names {
    /// Patterns before tiers.
    aliases: Box<[(Alias, Box<str>)]>,
    default: Option<Box<str>>,
    serves: Serves,
}

#[derive(Debug)]
enum Alias {
    Pattern(Glob),
    /// A tier is a word of the name.
    Tier(Box<str>),
}

impl Alias {
    fn matches(&self, model: &str) -> bool {
        match self {
            Self::Pattern(glob) => glob.matches(model),
            Self::Tier(tier) => model.split(['-', '.', '/', ':', '@']).any(|word| word.eq_ignore_ascii_case(tier)),
        }
    }
}

impl Names {
    /// `forced` is the protocol that the configuration forces.
    pub(super) fn new(
        aliases: &[(String, String)],
        default: Option<&str>,
        kind: &ProviderKind,
        forced: Option<Protocol>,
    ) -> Self {
        let alias = |(asked, own): &(String, String)| {
            let tier = TIERS.iter().any(|tier| tier.eq_ignore_ascii_case(asked));
            let alias = if tier { Alias::Tier(asked.as_str().into()) } else { Alias::Pattern(Glob::new(asked)) };
            (alias, own.as_str().into())
        };
        let mut aliases: Vec<_> = aliases.iter().map(alias).collect();
        aliases.sort_by_key(|(alias, _)| matches!(alias, Alias::Tier(_)));
        Self { aliases: aliases.into(), default: default.map(Into::into), serves: Serves::of(kind, forced) }
    }

    /// The name to ask for: an alias, else the name itself where the provider can be taken to know it, else the default.
    pub(super) fn resolve<'p>(&'p self, model: &'p str, rank: Rank) -> Result<&'p str, Foreign> {
        let exact = |(alias, _): &&(Alias, Box<str>)| match alias {
            Alias::Pattern(glob) => glob.as_str() == model,
            Alias::Tier(tier) => **tier == *model,
        };
        let alias =
            self.aliases.iter().find(exact).or_else(|| self.aliases.iter().find(|(alias, _)| alias.matches(model)));
        if let Some((_, own)) = alias {
            return Ok(own);
        }
        let knows = match (self.serves, Family::of(model)) {
            (Serves::Family(own), Some(family)) => Some(own == family),
            (Serves::Own, Some(_)) => Some(false),
            (Serves::Free, Some(_)) if self.default.is_some() => Some(false),
            // Nobody knows this name but the provider that was chosen for it.
            (_, None) => None,
            (Serves::Free | Serves::Anything, Some(_)) => None,
        };
        match (knows, rank, self.default.as_deref()) {
            (Some(true), ..) | (None, Rank::Chosen, _) => Ok(model),
            (_, _, Some(default)) => Ok(default),
            (None, Rank::Fallback, None) => Ok(model),
            (Some(false), _, None) => Err(Foreign),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog;

    struct Of<'a> {
        kind: &'a str,
        default: Option<&'a str>,
        aliases: &'a [(&'a str, &'a str)],
        forced: Option<Protocol>,
    }

    #[track_caller]
    fn check(of: &Of<'_>, model: &str, chosen: Result<&str, Foreign>, fallback: Result<&str, Foreign>) {
        let aliases: Vec<_> = of.aliases.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect();
        let names = Names::new(&aliases, of.default, catalog::find(of.kind).unwrap(), of.forced);
        let got = (names.resolve(model, Rank::Chosen), names.resolve(model, Rank::Fallback));
        assert_eq!(got, (chosen, fallback), "{model} of {}", of.kind);
    }

    #[test]
    fn a_model_goes_to_its_makers_services_under_its_own_name() {
        let anthropic = Of { kind: "anthropic", default: Some("claude-sonnet-5-5"), aliases: &[], forced: None };
        check(&anthropic, "claude-opus-5-5", Ok("claude-opus-5-5"), Ok("claude-opus-5-5"));
        check(&anthropic, "gpt-6", Ok("claude-sonnet-5-5"), Ok("claude-sonnet-5-5"));
        check(&anthropic, "mine", Ok("mine"), Ok("claude-sonnet-5-5"));
        let deepseek = Of { kind: "deepseek", default: None, aliases: &[], forced: None };
        check(&deepseek, "claude-opus-5-5", Err(Foreign), Err(Foreign));
        check(&deepseek, "deepseek-flash", Ok("deepseek-flash"), Ok("deepseek-flash"));
        check(&deepseek, "mine", Ok("mine"), Ok("mine"));
        let azure = Of { kind: "azure", default: Some("gpt-6"), aliases: &[], forced: None };
        check(&azure, "o3-mini", Ok("o3-mini"), Ok("o3-mini"));
        check(&azure, "claude-x", Ok("gpt-6"), Ok("gpt-6"));
        let foundry = Of { default: Some("claude-opus-5-5"), forced: Some(Protocol::AnthropicMessages), ..azure };
        check(&foundry, "claude-haiku-5-5", Ok("claude-haiku-5-5"), Ok("claude-haiku-5-5"));
        check(&foundry, "gpt-6", Ok("claude-opus-5-5"), Ok("claude-opus-5-5"));
    }

    #[test]
    fn a_service_of_unknown_models_takes_what_it_is_chosen_for() {
        let any = Of { kind: "anthropic-compatible", default: None, aliases: &[], forced: None };
        check(&any, "claude-opus-5-5", Ok("claude-opus-5-5"), Ok("claude-opus-5-5"));
        let any = Of { default: Some("glm-6"), ..any };
        check(&any, "claude-opus-5-5", Ok("claude-opus-5-5"), Ok("glm-6"));
        let ollama = Of { kind: "ollama", default: Some("qwen4:8b"), aliases: &[], forced: None };
        check(&ollama, "claude-opus-5-5", Ok("qwen4:8b"), Ok("qwen4:8b"));
        check(&ollama, "llama5", Ok("llama5"), Ok("qwen4:8b"));
        check(&Of { default: None, ..ollama }, "gpt-6", Err(Foreign), Err(Foreign));
    }

    #[test]
    fn free_models_are_known_by_their_names_wherever_they_are_served() {
        let ollama = Of { kind: "ollama", default: Some("qwen4:8b"), aliases: &[], forced: None };
        for free in ["gpt-oss:20b", "gpt-oss", "deepseek-r1:8b", "deepseek-r1", "hf.co/deepseek-x/y"] {
            check(&ollama, free, Ok(free), Ok("qwen4:8b"));
            check(&Of { default: None, ..ollama }, free, Ok(free), Ok(free));
        }
        let vllm = Of { kind: "vllm", default: Some("qwen4"), aliases: &[], forced: None };
        check(&vllm, "claude-opus-5-5", Ok("qwen4"), Ok("qwen4"));
        check(&vllm, "gpt-oss-120b", Ok("gpt-oss-120b"), Ok("qwen4"));
        check(&Of { default: None, ..vllm }, "claude-opus-5-5", Ok("claude-opus-5-5"), Ok("claude-opus-5-5"));
    }

    #[test]
    fn aliases_come_first_the_exact_ones_before_patterns_and_tiers() {
        let aliases = &[("claude-*", "c"), ("haiku", "h"), ("claude-opus-5-5", "o"), ("fast", "f")];
        let deepseek = Of { kind: "deepseek", default: Some("d"), aliases, forced: None };
        check(&deepseek, "claude-opus-5-5", Ok("o"), Ok("o"));
        check(&deepseek, "claude-haiku-5-5", Ok("c"), Ok("c"));
        check(&deepseek, "haiku", Ok("h"), Ok("h"));
        check(&deepseek, "anthropic/haiku-9", Ok("h"), Ok("h"));
        check(&deepseek, "haikus-9", Ok("haikus-9"), Ok("d"));
        check(&deepseek, "FAST", Ok("f"), Ok("f"));
        let in_any_order = &[("opus", "tier"), ("claude-opus-*", "pattern"), ("o*", "wide")];
        let deepseek = Of { aliases: in_any_order, ..deepseek };
        check(&deepseek, "claude-opus-5-5", Ok("pattern"), Ok("pattern"));
        check(&deepseek, "opus", Ok("tier"), Ok("tier"));
    }
}
