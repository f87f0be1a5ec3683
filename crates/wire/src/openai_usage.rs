//! Usage in OpenAI's shapes.

use serde::Deserialize;

use crate::json::Writer;
use crate::usage::{CacheWrite, Report, Usage};

/// The object as it is written, under the names of both protocols. DeepSeek tells the cached part in a field of its own.
#[derive(Deserialize)]
struct Written {
    prompt_tokens: Option<u64>,
    input_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    output_tokens: Option<u64>,
    prompt_tokens_details: Option<Prompt>,
    input_tokens_details: Option<Prompt>,
    completion_tokens_details: Option<Completion>,
    output_tokens_details: Option<Completion>,
    prompt_cache_hit_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct Prompt {
    cached_tokens: Option<u64>,
    cache_write_tokens: Option<u64>,
    cache_write_tokens_details: Option<ByTtl>,
}

#[derive(Deserialize)]
struct ByTtl {
    ttl_12h_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct Completion {
    reasoning_tokens: Option<u64>,
}

/// Reads a `usage` object. The prompt includes what was cached, and the completion what was reasoned.
pub(crate) fn read(json: &str) -> serde_json::Result<Usage> {
    let written: Written = serde_json::from_str(json)?;
    let details = written.prompt_tokens_details.or(written.input_tokens_details);
    let details = details.as_ref();
    let cached = details.and_then(|d| d.cached_tokens).or(written.prompt_cache_hit_tokens).unwrap_or(0);
    let wrote = details.and_then(|d| d.cache_write_tokens).unwrap_or(0);
    let by_ttl = details.and_then(|d| d.cache_write_tokens_details.as_ref());
    // OpenAI keeps what it caches for thirty minutes, if it does not say otherwise.
    let h12 = by_ttl.and_then(|by_ttl| by_ttl.ttl_12h_tokens).unwrap_or(0).min(wrote);
    let completion = written.completion_tokens_details.or(written.output_tokens_details);
    let prompt = written.prompt_tokens.or(written.input_tokens);
    let mut usage = Usage::default();
    usage.set(Report {
        input: prompt.map(|all| all.saturating_sub(cached).saturating_sub(wrote)),
        cache_read: Some(cached),
        cache_write_by_ttl: Some(CacheWrite { m30: wrote - h12, h12, ..CacheWrite::default() }),
        output: written.completion_tokens.or(written.output_tokens),
        reasoning: completion.and_then(|details| details.reasoning_tokens),
        ..Report::default()
    });
    Ok(usage)
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
}
