//! Usage in Anthropic's shape: `usage` of a message, `message_start` or `message_delta`.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::usage::{CacheWrite, Count, ITERATIONS, Iteration, IterationKind, Report, TOOLS, ToolUse};

/// The object as it is written. What is beside the token counts stays text until it is asked for, so that a new form of
/// it costs no count.
#[derive(Deserialize)]
struct Written<'a> {
    input_tokens: Option<Count>,
    cache_creation_input_tokens: Option<Count>,
    cache_read_input_tokens: Option<Count>,
    output_tokens: Option<Count>,
    #[serde(borrow)]
    cache_creation: Option<&'a RawValue>,
    output_tokens_details: Option<&'a RawValue>,
    server_tool_use: Option<&'a RawValue>,
    service_tier: Option<&'a RawValue>,
    speed: Option<&'a RawValue>,
    inference_geo: Option<&'a RawValue>,
    iterations: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct ByTtl {
    ephemeral_5m_input_tokens: Option<Count>,
    ephemeral_30m_input_tokens: Option<Count>,
    ephemeral_1h_input_tokens: Option<Count>,
    ephemeral_12h_input_tokens: Option<Count>,
}

#[derive(Deserialize)]
struct Details {
    thinking_tokens: Option<Count>,
}

#[derive(Default)]
struct ServerTools {
    web_search: Option<u64>,
    web_fetch: Option<u64>,
    /// Those that have no name here and were used, and one more than are kept where there are more.
    other: Vec<ToolUse>,
    /// Whether the use of one of these is no count.
    unread: bool,
}

/// A tool by its name.
enum Tool {
    WebSearch,
    WebFetch,
    Other(Box<str>),
}

impl<'de> Deserialize<'de> for Tool {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;
        impl Visitor<'_> for Name {
            type Value = Tool;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a tool")
            }
            fn visit_str<E: Error>(self, name: &str) -> Result<Tool, E> {
                Ok(match name {
                    "web_search_requests" => Tool::WebSearch,
                    "web_fetch_requests" => Tool::WebFetch,
                    other => Tool::Other(other.into()),
                })
            }
        }
        deserializer.deserialize_identifier(Name)
    }
}

impl<'de> Deserialize<'de> for ServerTools {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Tools;
        impl<'de> Visitor<'de> for Tools {
            type Value = ServerTools;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("how often each tool was used")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ServerTools, A::Error> {
                let mut tools = ServerTools::default();
                let count = |count: Option<Count>| count.map(|Count(n)| n);
                while let Some(tool) = map.next_key()? {
                    match tool {
                        Tool::WebSearch => tools.web_search = count(map.next_value()?),
                        Tool::WebFetch => tools.web_fetch = count(map.next_value()?),
                        Tool::Other(name) => {
                            match serde_json::from_str(map.next_value::<&RawValue>()?.get()).map(count) {
                                Ok(None | Some(0)) => {}
                                Ok(Some(n)) if tools.other.len() <= TOOLS => tools.other.push(ToolUse::new(&name, n)),
                                // What is over the bound is what says that there was more.
                                Ok(Some(_)) => {}
                                Err(_) => tools.unread = true,
                            }
                        }
                    }
                }
                Ok(tools)
            }
        }
        deserializer.deserialize_map(Tools)
    }
}

#[derive(Deserialize)]
struct Turn<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    model: Option<&'a RawValue>,
}

/// The text of a JSON string; `None` for every other value.
pub(crate) fn text(raw: Option<&RawValue>) -> Option<Box<str>> {
    serde_json::from_str(raw?.get()).ok()
}

/// Reads a `usage` object.
pub(crate) fn report(json: &str) -> serde_json::Result<Report> {
    let written: Written<'_> = serde_json::from_str(json)?;
    let mut incomplete = false;
    fn part<'a, T: Deserialize<'a>>(raw: Option<&'a RawValue>, incomplete: &mut bool) -> Option<T> {
        let read = serde_json::from_str(raw?.get());
        *incomplete |= read.is_err();
        read.ok()
    }
    let n = |count: Option<Count>| count.map(|Count(n)| n);
    let by_ttl: Option<ByTtl> = part(written.cache_creation, &mut incomplete);
    let details: Option<Details> = part(written.output_tokens_details, &mut incomplete);
    let tools: ServerTools = part(written.server_tool_use, &mut incomplete).unwrap_or_default();
    incomplete |= tools.unread;
    let iterations = written.iterations.and_then(|raw| {
        let read = serde_json::Deserializer::from_str(raw.get()).deserialize_seq(Turns(&mut incomplete));
        incomplete |= read.is_err();
        read.ok()
    });
    Ok(Report {
        input: n(written.input_tokens),
        cache_read: n(written.cache_read_input_tokens),
        cache_write: n(written.cache_creation_input_tokens),
        cache_write_by_ttl: by_ttl.map(|by_ttl| CacheWrite {
            m5: n(by_ttl.ephemeral_5m_input_tokens).unwrap_or(0),
            m30: n(by_ttl.ephemeral_30m_input_tokens).unwrap_or(0),
            h1: n(by_ttl.ephemeral_1h_input_tokens).unwrap_or(0),
            h12: n(by_ttl.ephemeral_12h_input_tokens).unwrap_or(0),
        }),
        output: n(written.output_tokens),
        reasoning: details.and_then(|details| n(details.thinking_tokens)),
        web_search: tools.web_search,
        web_fetch: tools.web_fetch,
        other_tools: Some(tools.other).filter(|tools| !tools.is_empty()),
        service_tier: text(written.service_tier).map(Into::into),
        speed: text(written.speed).map(Into::into),
        region: text(written.inference_geo).filter(|region| !region.is_empty()),
        iterations,
        incomplete,
    })
}

/// Reads `iterations` one by one, so that a long list takes no memory. An ordinary turn is not kept: its tokens are in
/// the totals, and it says nothing about the bill.
struct Turns<'a>(&'a mut bool);

impl<'de> Visitor<'de> for Turns<'_> {
    type Value = Vec<Iteration>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of turns")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut kept = Vec::new();
        while let Some(raw) = list.next_element::<&'de RawValue>()? {
            match turn(raw.get()) {
                Ok(turn) if turn.kind == IterationKind::Message => {}
                // What is over the bound is what says that there was more.
                Ok(turn) if kept.len() <= ITERATIONS => {
                    *self.0 |= matches!(turn.kind, IterationKind::Other(_));
                    kept.push(turn);
                }
                Ok(_) => {}
                Err(_) => *self.0 = true,
            }
        }
        Ok(kept)
    }
}

fn turn(json: &str) -> serde_json::Result<Iteration> {
    let head: Turn<'_> = serde_json::from_str(json)?;
    let kind = text(head.kind).unwrap_or_default();
    let mut report = report(json)?;
    // A turn has no turns.
    report.iterations = None;
    Ok(Iteration::new(kind.into(), text(head.model).as_deref(), report))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::{ServiceTier, Speed, Usage};

    fn usage(json: &str) -> Usage {
        let mut usage = Usage::default();
        usage.set(report(json).unwrap());
        usage
    }

    #[test]
    fn a_count_is_a_whole_number_that_is_not_negative() {
        for good in ["0", "7", "7.0", "18446744073709551615", "null"] {
            assert!(report(&format!(r#"{{"input_tokens":{good}}}"#)).is_ok(), "{good}");
        }
        for bad in [
            "-1",
            "1.5",
            "1e300",
            "1e999",
            "18446744073709551616",
            "\"7\"",
            "true",
            "[]",
            "{}",
            "",
            "9007199254740994.0",
        ] {
            assert!(report(&format!(r#"{{"input_tokens":{bad}}}"#)).is_err(), "{bad}");
        }
        assert!(report(r#"{"input_tokens":1,"input_tokens":2}"#).is_err(), "which one?");
        assert!(report("null").is_err() && report("[]").is_err());
    }

    #[test]
    fn what_stands_beside_the_counts_is_read_or_said_to_be_missing() {
        let all = usage(
            r#"{"input_tokens":1,"cache_creation":{"ephemeral_1h_input_tokens":4,"ephemeral_5m_input_tokens":null},
                "output_tokens_details":{"thinking_tokens":3},"server_tool_use":{"web_search_requests":2,"other":9},
                "service_tier":"priority","speed":"fast","inference_geo":"us","output_tokens":8}"#,
        );
        assert_eq!((all.tokens.input, all.tokens.cache_write.h1, all.tokens.output, all.reasoning), (1, 4, 8, 3));
        assert_eq!((all.web_search, all.web_fetch, all.incomplete), (2, 0, false));
        assert_eq!(all.other_tools, [ToolUse::new("other", 9)], "it is not known to be free");
        assert_eq!((all.service_tier, all.speed), (Some(ServiceTier::Priority), Some(Speed::Fast)));
        assert_eq!(all.region.as_deref(), Some("us"));
        for odd in [
            r#""server_tool_use":[1]"#,
            r#""server_tool_use":{"hours":0.5}"#,
            r#""cache_creation":7"#,
            r#""iterations":{}"#,
            r#""iterations":[{"type":"compaction","input_tokens":-1}]"#,
            r#""iterations":[3]"#,
            r#""iterations":[{"type":"new_kind","input_tokens":1}]"#,
        ] {
            let usage = usage(&format!(r#"{{"input_tokens":5,"output_tokens":6,{odd}}}"#));
            assert_eq!((usage.tokens.input, usage.tokens.output, usage.incomplete), (5, 6, true), "{odd}");
        }
        let odd = usage(r#"{"input_tokens":5,"speed":{},"service_tier":3,"inference_geo":""}"#);
        assert!(odd.speed.is_none() && odd.service_tier.is_none() && odd.region.is_none() && !odd.incomplete);
    }

    #[test]
    fn turns_that_are_billed_apart_are_kept_with_their_model() {
        let usage = usage(
            r#"{"input_tokens":5,"output_tokens":6,"iterations":[
                {"type":"message","input_tokens":5,"output_tokens":6},
                {"type":"compaction","input_tokens":100,"output_tokens":20,"cache_creation_input_tokens":3},
                {"type":"advisor_message","model":"claude-opus-5-5","input_tokens":7,"cache_read_input_tokens":9,
                 "cache_creation":{"ephemeral_1h_input_tokens":2},"cache_creation_input_tokens":2,"output_tokens":1},
                {"type":"fallback_message","model":"claude-opus-5","input_tokens":5,"output_tokens":6}]}"#,
        );
        let kinds: Vec<_> = usage.iterations.iter().map(|turn| turn.kind.as_str()).collect();
        assert_eq!(kinds, ["compaction", "advisor_message", "fallback_message"]);
        assert_eq!((usage.iterations[0].tokens.input, usage.iterations[0].ttl_assumed), (100, true));
        let advice = &usage.iterations[1];
        assert_eq!((advice.model.as_deref(), advice.ttl_assumed), (Some("claude-opus-5-5"), false));
        assert_eq!((advice.tokens.cache_read, advice.tokens.cache_write.h1), (9, 2));
        assert_eq!((usage.fallback_model(), usage.incomplete), (Some("claude-opus-5"), false));
    }

    #[test]
    fn tools_without_a_name_here_are_kept_and_bounded_and_unused_ones_are_not() {
        let kept =
            usage(r#"{"server_tool_use":{"foo_requests":3,"bar_requests":0,"baz":null,"web_search_requests":1}}"#);
        assert_eq!(kept.other_tools, [ToolUse::new("foo_requests", 3)]);
        assert_eq!((kept.web_search, kept.incomplete), (1, false));
        let many: Vec<String> = (0..50).map(|n| format!(r#""{}{n}":1"#, "é".repeat(100))).collect();
        let kept = usage(&format!(r#"{{"server_tool_use":{{{}}}}}"#, many.join(",")));
        assert!(kept.other_tools.len() == 8 && kept.other_tools[0].name.len() == 64 && kept.incomplete);
    }

    #[test]
    fn a_list_of_turns_is_bounded() {
        let many = vec![r#"{"type":"compaction"}"#; 5000].join(",");
        let usage = usage(&format!(r#"{{"iterations":[{many}]}}"#));
        assert!(usage.iterations.len() == 64 && usage.incomplete);
    }
}
