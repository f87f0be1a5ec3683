//! Usage in OpenAI's shapes.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::json::Writer;
use crate::usage::{CacheWrite, Count, Report, Usage};

/// The object as it is written, under the names of both protocols. DeepSeek tells the cached part in a field of its own.
/// What is beside the counts stays text until it is asked for, so that an odd form of it costs no count.
#[derive(Deserialize)]
struct Written<'a> {
    prompt_tokens: Option<Count>,
    input_tokens: Option<Count>,
    completion_tokens: Option<Count>,
    output_tokens: Option<Count>,
    #[serde(borrow)]
    prompt_tokens_details: Option<&'a RawValue>,
    input_tokens_details: Option<&'a RawValue>,
    completion_tokens_details: Option<&'a RawValue>,
    output_tokens_details: Option<&'a RawValue>,
    prompt_cache_hit_tokens: Option<Count>,
}

#[derive(Deserialize, Default)]
struct Prompt<'a> {
    cached_tokens: Option<Count>,
    cache_write_tokens: Option<Count>,
    #[serde(borrow)]
    cache_write_tokens_details: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
struct ByTtl {
    ttl_12h_tokens: Option<Count>,
}

#[derive(Deserialize, Default)]
struct Completion {
    reasoning_tokens: Option<Count>,
}

/// An object beside the counts: nothing, where there is none, and noted where it cannot be read.
fn beside<'a, T: Deserialize<'a> + Default>(raw: Option<&'a RawValue>, incomplete: &mut bool) -> T {
    match raw.map(RawValue::get) {
        // Some servers write an empty list for an empty object.
        None | Some("[]") => T::default(),
        Some(text) => serde_json::from_str(text).unwrap_or_else(|_| {
            *incomplete = true;
            T::default()
        }),
    }
}

/// Reads a `usage` object; `None` where its counts cannot be read: then the usage is not known. The prompt includes what
/// was cached, and the completion what was reasoned.
pub(crate) fn read(json: &str) -> Option<Usage> {
    let written: Written<'_> = serde_json::from_str(json).ok()?;
    let mut incomplete = false;
    let n = |count: Option<Count>| count.map(|Count(n)| n);
    let details: Prompt<'_> = beside(written.prompt_tokens_details.or(written.input_tokens_details), &mut incomplete);
    let by_ttl: ByTtl = beside(details.cache_write_tokens_details, &mut incomplete);
    let completion: Completion =
        beside(written.completion_tokens_details.or(written.output_tokens_details), &mut incomplete);
    let cached = n(details.cached_tokens.or(written.prompt_cache_hit_tokens)).unwrap_or(0);
    let wrote = n(details.cache_write_tokens).unwrap_or(0);
    // OpenAI keeps what it caches for thirty minutes, if it does not say otherwise.
    let h12 = n(by_ttl.ttl_12h_tokens).unwrap_or(0).min(wrote);
    let prompt = written.prompt_tokens.or(written.input_tokens);
    let output = written.completion_tokens.or(written.output_tokens);
    if prompt.is_none() && output.is_none() {
        return None;
    }
    let mut usage = Usage::default();
    usage.set(Report {
        input: n(prompt).map(|all| all.saturating_sub(cached).saturating_sub(wrote)),
        cache_read: Some(cached),
        cache_write_by_ttl: Some(CacheWrite { m30: wrote - h12, h12, ..CacheWrite::default() }),
        output: n(output),
        reasoning: n(completion.reasoning_tokens),
        incomplete,
        ..Report::default()
    });
    Some(usage)
}

/// How a protocol calls the prompt and the answer.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Names {
    /// `prompt_tokens`, `completion_tokens`.
    Chat,
    /// `input_tokens`, `output_tokens`.
    Responses,
}

/// Writes the members of a `usage` object.
pub(crate) fn write(o: &mut Writer<'_>, usage: &Usage, names: Names) {
    let [prompt, completion, prompt_details, completion_details] = match names {
        Names::Chat => ["prompt_tokens", "completion_tokens", "prompt_tokens_details", "completion_tokens_details"],
        Names::Responses => ["input_tokens", "output_tokens", "input_tokens_details", "output_tokens_details"],
    };
    let tokens = &usage.tokens;
    o.uint(prompt, tokens.prompt()).uint(completion, tokens.output).uint("total_tokens", tokens.total());
    o.object(prompt_details, |o| {
        o.uint("cached_tokens", tokens.cache_read).uint("cache_write_tokens", tokens.cache_write.total());
    });
    o.object(completion_details, |o| {
        o.uint("reasoning_tokens", usage.reasoning);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_cached_is_counted_once_under_either_name() {
        let chat = r#"{"prompt_tokens":10,"prompt_tokens_details":{"cached_tokens":4,"cache_write_tokens":5},
            "completion_tokens":7,"completion_tokens_details":{"reasoning_tokens":3}}"#;
        let responses = chat.replace("prompt_tokens", "input_tokens").replace("completion_tokens", "output_tokens");
        let usage = read(chat).unwrap();
        assert_eq!(read(&responses).unwrap(), usage);
        let tokens = &usage.tokens;
        assert_eq!((tokens.input, tokens.cache_read, tokens.cache_write.m30, tokens.output), (1, 4, 5, 7));
        assert_eq!(usage.reasoning, 3);
        let deepseek =
            read(r#"{"prompt_tokens":10,"prompt_cache_hit_tokens":4,"prompt_cache_miss_tokens":6}"#).unwrap();
        assert_eq!((deepseek.tokens.input, deepseek.tokens.cache_read), (6, 4));
        let long = r#"{"input_tokens":9,"input_tokens_details":{"cached_tokens":9,"cache_write_tokens":6,
            "cache_write_tokens_details":{"ttl_12h_tokens":2,"ttl_30m_tokens":4}}}"#;
        let long = read(long).unwrap().tokens;
        assert_eq!((long.input, long.cache_write.m30, long.cache_write.h12), (0, 4, 2));
    }
    #[test]
    fn an_odd_form_of_usage_costs_only_what_it_hides() {
        let fraction = read(r#"{"prompt_tokens":7.0,"completion_tokens":3,"prompt_tokens_details":[]}"#).unwrap();
        assert_eq!((fraction.tokens.input, fraction.tokens.output, fraction.incomplete), (7, 3, false));
        for odd in [r#""prompt_tokens_details":"none""#, r#""completion_tokens_details":{"reasoning_tokens":-1}"#] {
            let usage = read(&format!(r#"{{"prompt_tokens":7,"completion_tokens":3,{odd}}}"#)).unwrap();
            assert_eq!((usage.tokens.input, usage.tokens.output, usage.incomplete), (7, 3, true), "{odd}");
        }
        for lost in [r#"{"prompt_tokens":"7"}"#, r#"{"prompt_tokens":7,"completion_tokens":-1}"#, "{}", "[]", "3"] {
            assert_eq!(read(lost), None, "{lost}");
        }
    }
}
