//! What is known of models by their name, where their providers' servers differ by model.

use crate::quirks::{Choices, Quirks, ReasoningForm};
use crate::request::Effort;

/// The quirks of the Claude model of that name; of one that is not known, those of the newest.
pub fn claude(model: &str) -> Quirks {
    let mut quirks = Quirks::ANTHROPIC;
    let Some((family, version)) = claude_version(model) else { return quirks };
    if version <= (4, 6) {
        (quirks.sampling, quirks.top_k, quirks.system_within) = (true, true, false);
    }
    quirks.sampling_by_both = version < (4, 1);
    // Later ones think without being told to.
    if version < (5, 5) {
        quirks.reasoning = ReasoningForm::SwitchAndEffort;
    }
    if version == (4, 6) {
        quirks.efforts = &[Effort::Low, Effort::Medium, Effort::High, Effort::Max];
    }
    if version < (4, 6) {
        quirks.reasoning = ReasoningForm::Budget;
    }
    if version < (3, 7) {
        quirks.reasoning = ReasoningForm::None;
    }
    if (family == "opus" && version >= (5, 5)) || (family == "fable" && version >= (5, 1)) {
        (quirks.tool_choice, quirks.reasoning_off) = (Choices::Unforced, false);
    }
    quirks
}

/// Whether a model goes on where the last turn of a request, which is its own, leaves off: Claude's later ones refuse that.
/// Of others nothing is known; who does not says so.
pub fn continues_turns(model: &str) -> bool {
    match claude_version(model) {
        Some((_, version)) => version < (4, 6),
        None => !model.contains("claude"),
    }
}

/// Family and version in `claude-opus-4-5-20251101` and in `claude-3-5-sonnet-20241022`.
fn claude_version(model: &str) -> Option<(&str, (u32, u32))> {
    let name = &model[model.find("claude-")? + "claude-".len()..];
    let mut words = name.split(['-', '@', ':', '[']).peekable();
    let mut family = words.next_if(|word| !starts_with_digit(word));
    // A date is no version.
    let mut number = || words.next_if(|word| word.len() <= 2)?.parse().ok();
    let (major, minor) = (number()?, number().unwrap_or(0));
    family = family.or_else(|| words.next());
    Some((family?, (major, minor)))
}

/// The quirks of the model of that name at OpenAI, behind Chat Completions; of one that is not known, those of a model
/// that reasons.
pub fn openai(model: &str) -> Quirks {
    const GPT_5: &[Effort] = &[Effort::Minimal, Effort::Low, Effort::Medium, Effort::High];
    const O_SERIES: &[Effort] = &[Effort::Low, Effort::Medium, Effort::High];
    const LATER: &[Effort] = &[Effort::Low, Effort::Medium, Effort::High, Effort::XHigh];
    let reasons = Quirks::OPENAI_REASONING;
    if model.starts_with("o1") || model.starts_with("o3") || model.starts_with("o4") {
        return Quirks { efforts: O_SERIES, reasoning_off: false, ..reasons };
    }
    let Some(name) = model.strip_prefix("gpt-") else { return reasons };
    let number = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let major = number(name);
    let minor = name[major..].strip_prefix('.').map_or(0, |rest| rest[..number(rest)].parse().unwrap_or(0));
    match (name[..major].parse().unwrap_or(u32::MAX), minor) {
        (..=4, _) => Quirks::OPENAI,
        (5, _) if name.contains("chat") => Quirks::OPENAI,
        (5, 0) => Quirks { efforts: GPT_5, reasoning_off: false, ..reasons },
        (5, ..=3) => Quirks { efforts: LATER, ..reasons },
        _ => Quirks { efforts: LATER, reasoning_with_tools: false, ..reasons },
    }
}

/// The same behind Responses.
pub fn responses(model: &str) -> Quirks {
    Quirks { document_urls: true, web_search: true, ..openai(model) }
}

/// The quirks of the model of that name at Ollama. A server refuses to be asked for thinking by a model that it does not
/// know to think, and lets those think that it does: so only the models known here are told.
pub fn ollama(model: &str) -> Quirks {
    const LEVELS: &[Effort] = &[Effort::Low, Effort::Medium, Effort::High];
    let name = model.rsplit('/').next().unwrap_or(model);
    let starts = |beginnings: &[&str]| beginnings.iter().any(|beginning| name.starts_with(beginning));
    if starts(&["gpt-oss"]) {
        return Quirks { reasoning: ReasoningForm::Effort, efforts: LEVELS, reasoning_off: false, ..Quirks::OLLAMA };
    }
    let is_plain = ["coder", "instruct", "embedding"].iter().any(|word| name.contains(word));
    if starts(&["qwen3", "deepseek-r1", "deepseek-v3.1", "deepseek-v3.2", "magistral"]) && !is_plain {
        // They think or they do not.
        return Quirks { efforts: &[], ..Quirks::OLLAMA };
    }
    Quirks { reasoning: ReasoningForm::None, ..Quirks::OLLAMA }
}

/// The most tokens of output that the model of that name gives; `None` where that is not known. As of 2026-11-22, from
/// where the prices are: LiteLLM's list of models (MIT licence).
pub fn max_output(model: &str) -> Option<u64> {
    if let Some((family, version)) = claude_version(model) {
        return Some(match (family, version) {
            (_, (..=2, _) | (3, ..=4)) => 4096,
            (_, (3, ..=6)) => 8192,
            ("opus", (4, ..=1)) => 32_000,
            (_, (4, 6..) | (5.., _)) => 128_000,
            _ => 64_000,
        });
    }
    // A name stands before those that begin with it.
    const BY_NAME: &[(&str, u64)] = &[
        ("gpt-3.5", 4096),
        ("gpt-4o-2024-05-13", 4096),
        ("gpt-4o", 16_384),
        ("gpt-4.1", 32_768),
        ("gpt-4-", 4096),
        ("gpt-5-chat", 16_384),
        ("gpt-5.1-chat", 16_384),
        ("gpt-5.2-chat", 16_384),
        ("gpt-5.3-chat", 16_384),
        ("gpt-5-pro", 272_000),
        ("gpt-5", 128_000),
        ("gpt-6", 128_000),
        ("o1-mini", 65_536),
        ("o1-preview", 32_768),
        ("o1", 100_000),
        ("o3", 100_000),
        ("o4", 100_000),
        ("deepseek-chat", 8192),
        ("deepseek-reasoner", 65_536),
        ("deepseek-flash", 393_216),
        ("deepseek-v4", 393_216),
        ("gemini-", 65_535),
    ];
    // As OpenRouter names them.
    let model = model.rsplit('/').next().unwrap_or(model);
    BY_NAME.iter().find(|(beginning, _)| model.starts_with(beginning)).map(|(_, most)| *most)
}

fn starts_with_digit(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn family_and_version_are_read_from_every_form_of_a_name() {
        for (model, want) in [
            ("claude-opus-5-5", Some(("opus", (5, 5)))),
            ("claude-sonnet-4-5-20250929", Some(("sonnet", (4, 5)))),
            ("claude-sonnet-4-20250514", Some(("sonnet", (4, 0)))),
            ("claude-3-5-sonnet-20241022", Some(("sonnet", (3, 5)))),
            ("us.anthropic.claude-opus-4-6-v1:0", Some(("opus", (4, 6)))),
            ("claude-opus-4-6@20260101", Some(("opus", (4, 6)))),
            ("claude-fable-5-2[1m]", Some(("fable", (5, 2)))),
            ("claude-next", None),
            ("gpt-6.1", None),
        ] {
            assert_eq!(claude_version(model), want, "{model}");
        }
    }

    #[test]
    fn older_models_take_a_temperature_and_newer_ones_cannot_be_forced() {
        assert!(claude("claude-opus-4-6").sampling && !claude("claude-opus-4-7").sampling);
        assert!(claude("claude-sonnet-4").sampling_by_both && !claude("claude-opus-4-1").sampling_by_both);
        assert_eq!(claude("claude-sonnet-4-5").reasoning, ReasoningForm::Budget);
        assert_eq!(claude("claude-opus-4-8").reasoning, ReasoningForm::SwitchAndEffort);
        assert_eq!(claude("claude-sonnet-5-5").reasoning, ReasoningForm::Effort);
        assert_eq!(claude("claude-opus-5-5").tool_choice, Choices::Unforced);
        assert_eq!(claude("claude-sonnet-5-5").tool_choice, Choices::All);
        assert_eq!(claude("my-model"), Quirks::ANTHROPIC);
    }

    #[test]
    fn a_model_at_ollama_is_asked_to_think_only_if_it_is_known_to() {
        let form = |model: &str| (ollama(model).reasoning, ollama(model).efforts.len());
        assert_eq!(form("gpt-oss:20b"), (ReasoningForm::Effort, 3));
        assert_eq!(form("hf.co/somebody/qwen3:8b"), (ReasoningForm::SwitchAndEffort, 0));
        for model in ["qwen3-coder:30b", "llama3.2", "my-model", ""] {
            assert_eq!(form(model).0, ReasoningForm::None, "{model}");
        }
    }

    #[test]
    fn the_longest_answer_is_known_of_many_models() {
        for (model, want) in [
            ("claude-3-haiku-20240307", Some(4096)),
            ("claude-3-5-sonnet-20241022", Some(8192)),
            ("claude-opus-4-1-20250805", Some(32_000)),
            ("claude-sonnet-4-5", Some(64_000)),
            ("claude-opus-5-5", Some(128_000)),
            ("claude-haiku-4-5", Some(64_000)),
            ("claude-sonnet-4-6", Some(128_000)),
            ("claude-haiku-5-5", Some(128_000)),
            ("claude-3-7-sonnet-20250219", Some(64_000)),
            ("gpt-4o-mini", Some(16_384)),
            ("gpt-4o-2024-05-13", Some(4096)),
            ("openai/gpt-5.2-chat", Some(16_384)),
            ("gpt-5-pro", Some(272_000)),
            ("deepseek-v4-pro", Some(393_216)),
            ("deepseek-r1:14b", None),
            ("gpt-4.1", Some(32_768)),
            ("gpt-5.2", Some(128_000)),
            ("o3-mini", Some(100_000)),
            ("qwen3:8b", None),
            ("my-deployment", None),
        ] {
            assert_eq!(max_output(model), want, "{model}");
        }
    }

    #[test]
    fn newer_models_of_openai_do_not_reason_beside_tools_in_chat() {
        assert_eq!(openai("gpt-4o-mini"), Quirks::OPENAI);
        assert_eq!(openai("gpt-4.1"), Quirks::OPENAI);
        assert_eq!(openai("gpt-5-chat-latest"), Quirks::OPENAI);
        assert!(!openai("gpt-5").reasoning_off && openai("gpt-5.1").reasoning_off && !openai("o3-mini").reasoning_off);
        assert!(openai("gpt-5.3").reasoning_with_tools && !openai("gpt-5.4").reasoning_with_tools);
        assert!(!openai("gpt-6.1-sol").reasoning_with_tools);
        assert_eq!(openai("my-deployment"), Quirks::OPENAI_REASONING);
    }

    #[test]
    fn models_that_take_the_beginning_of_their_turn_are_known() {
        for model in ["claude-3-5-haiku-20241022", "claude-sonnet-4-5", "claude-opus-4-1", "deepseek-chat"] {
            assert!(continues_turns(model), "{model}");
        }
        for model in ["claude-opus-4-6", "claude-sonnet-5-5", "claude-mythos", "us.anthropic.claude-opus-4-7"] {
            assert!(!continues_turns(model), "{model}");
        }
    }
}
