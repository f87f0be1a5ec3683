//! What is known of Claude models by their name.

use crate::quirks::{Choices, Quirks, ReasoningForm};

/// The quirks of the model of that name; of one that is not known, those of the newest.
pub fn quirks(model: &str) -> Quirks {
    let mut quirks = Quirks::ANTHROPIC;
    let Some((family, version)) = version(model) else { return quirks };
    if version <= (4, 6) {
        (quirks.sampling, quirks.top_k, quirks.system_within) = (true, true, false);
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

/// Family and version in `claude-opus-4-5-20251101` and in `claude-3-5-sonnet-20241022`.
fn version(model: &str) -> Option<(&str, (u32, u32))> {
    let name = &model[model.find("claude-")? + "claude-".len()..];
    let mut words = name.split(['-', '@', ':', '[']).peekable();
    let mut family = words.next_if(|word| !starts_with_digit(word));
    // A date is no version.
    let mut number = || words.next_if(|word| word.len() <= 2)?.parse().ok();
    let (major, minor) = (number()?, number().unwrap_or(0));
    family = family.or_else(|| words.next());
    Some((family?, (major, minor)))
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
            assert_eq!(version(model), want, "{model}");
        }
    }

    #[test]
    fn older_models_take_a_temperature_and_newer_ones_cannot_be_forced() {
        assert!(quirks("claude-opus-4-6").sampling && !quirks("claude-opus-4-7").sampling);
        assert_eq!(quirks("claude-sonnet-4-5").reasoning, ReasoningForm::Budget);
        assert_eq!(quirks("claude-opus-5-5").tool_choice, Choices::Unforced);
        assert_eq!(quirks("claude-sonnet-5-5").tool_choice, Choices::All);
        assert_eq!(quirks("my-model"), Quirks::ANTHROPIC);
    }
}
