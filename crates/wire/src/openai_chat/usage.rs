//! Usage in the shape of Chat Completions.

use serde::Deserialize;

use crate::json::Writer;
use crate::usage::{CacheWrite, Report, Usage};

/// The object as it is written. DeepSeek tells the cached part in a field of its own.
#[derive(Deserialize)]
struct Written {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    prompt_tokens_details: Option<Prompt>,
    completion_tokens_details: Option<Completion>,
    prompt_cache_hit_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct Prompt {
    cached_tokens: Option<u64>,
    cache_write_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct Completion {
    reasoning_tokens: Option<u64>,
}

/// Reads a `usage` object. The prompt includes what was cached, and the completion what was reasoned.
pub(crate) fn read(json: &str) -> serde_json::Result<Usage> {
    let written: Written = serde_json::from_str(json)?;
    let details = written.prompt_tokens_details.as_ref();
    let cached = details.and_then(|d| d.cached_tokens).or(written.prompt_cache_hit_tokens).unwrap_or(0);
    let wrote = details.and_then(|d| d.cache_write_tokens).unwrap_or(0);
    let mut usage = Usage::default();
    usage.set(Report {
        input: written.prompt_tokens.map(|all| all.saturating_sub(cached).saturating_sub(wrote)),
        cache_read: Some(cached),
        // OpenAI keeps what it caches for thirty minutes.
        cache_write_by_ttl: Some(CacheWrite { m30: wrote, ..CacheWrite::default() }),
        output: written.completion_tokens,
        reasoning: written.completion_tokens_details.and_then(|details| details.reasoning_tokens),
        ..Report::default()
    });
    Ok(usage)
}

/// Writes the members of a `usage` object.
pub(super) fn write(o: &mut Writer<'_>, usage: &Usage) {
    let tokens = &usage.tokens;
    o.uint("prompt_tokens", tokens.prompt()).uint("completion_tokens", tokens.output);
    o.uint("total_tokens", tokens.total());
    o.object("prompt_tokens_details", |o| {
        o.uint("cached_tokens", tokens.cache_read).uint("cache_write_tokens", tokens.cache_write.total());
    });
    o.object("completion_tokens_details", |o| {
        o.uint("reasoning_tokens", usage.reasoning);
    });
}
