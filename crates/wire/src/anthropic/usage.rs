//! Usage in Anthropic's shape: `usage` of a message, `message_start` or `message_delta`.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::members::{Malformed, Member, Members, text};
use crate::usage::{CacheWrite, Count, ITERATIONS, Iteration, IterationKind, Report, TOOLS, ToolUse, count};

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

/// A part beside the token counts, where it is given: a new form of it costs no count, but makes the usage incomplete.
fn read<T>(part: Option<Result<T, Malformed>>, incomplete: &mut bool) -> Option<T> {
    let read = part?;
    *incomplete |= read.is_err();
    read.ok()
}

/// The same of one that is read from its text.
fn part<T>(value: &[u8], incomplete: &mut bool, of: impl FnOnce(&[u8]) -> Result<T, Malformed>) -> Option<T> {
    read((value != b"null").then(|| of(value)), incomplete)
}

/// Puts a count in its place; one that is there already is a fault: nobody knows which of them holds.
fn once(place: &mut Option<u64>, seen: &mut u32, nth: u32, value: &[u8]) -> Result<(), Malformed> {
    let bit = 1 << nth;
    if *seen & bit != 0 {
        return Err(Malformed);
    }
    *seen |= bit;
    *place = count(value)?;
    Ok(())
}

/// Cache writes by how long they stay.
fn by_ttl(members: &mut Members<'_>) -> Result<CacheWrite, Malformed> {
    let (mut counts, mut seen) = ([None; 4], 0);
    while let Some(Member { key, value, .. }) = members.next()? {
        let nth = match &*key {
            b"ephemeral_5m_input_tokens" => 0,
            b"ephemeral_30m_input_tokens" => 1,
            b"ephemeral_1h_input_tokens" => 2,
            b"ephemeral_12h_input_tokens" => 3,
            _ => continue,
        };
        once(&mut counts[nth], &mut seen, nth as u32, value)?;
    }
    let [m5, m30, h1, h12] = counts.map(Option::unwrap_or_default);
    Ok(CacheWrite { m5, m30, h1, h12 })
}

/// How many of the output tokens were reasoning.
fn thinking_tokens(members: &mut Members<'_>) -> Result<Option<u64>, Malformed> {
    let (mut tokens, mut seen) = (None, 0);
    while let Some(Member { key, value, .. }) = members.next()? {
        if &*key == b"thinking_tokens" {
            once(&mut tokens, &mut seen, 0, value)?;
        }
    }
    Ok(tokens)
}

/// Reads a `usage` object.
pub(crate) fn report(object: &[u8]) -> Result<Report, Malformed> {
    report_of(&mut Members::of(object))
}

/// Reads the members of a `usage` object, to its end. What is beside the token counts is read by itself, so that a new form
/// of it costs no count.
pub(crate) fn report_of(members: &mut Members<'_>) -> Result<Report, Malformed> {
    let (mut report, mut seen, mut incomplete) = (Report::default(), 0, false);
    while let Some(key) = members.key()? {
        // Objects that are read are walked over once.
        match &*key {
            b"cache_creation" => {
                report.cache_write_by_ttl = read(members.object(by_ttl)?, &mut incomplete);
                continue;
            }
            b"output_tokens_details" => {
                report.reasoning = read(members.object(thinking_tokens)?, &mut incomplete).flatten();
                continue;
            }
            _ => {}
        }
        let value = members.text()?;
        match &*key {
            b"input_tokens" => once(&mut report.input, &mut seen, 0, value)?,
            b"cache_creation_input_tokens" => once(&mut report.cache_write, &mut seen, 1, value)?,
            b"cache_read_input_tokens" => once(&mut report.cache_read, &mut seen, 2, value)?,
            b"output_tokens" => once(&mut report.output, &mut seen, 3, value)?,
            b"server_tool_use" => {
                let read = |value: &[u8]| serde_json::from_slice::<ServerTools>(value).map_err(|_| Malformed);
                let tools = part(value, &mut incomplete, read).unwrap_or_default();
                incomplete |= tools.unread;
                (report.web_search, report.web_fetch) = (tools.web_search, tools.web_fetch);
                report.other_tools = Some(tools.other).filter(|tools| !tools.is_empty());
            }
            b"service_tier" => report.service_tier = text(value).map(|word| (&*word).into()),
            b"speed" => report.speed = text(value).map(|word| (&*word).into()),
            b"inference_geo" => report.region = text(value).filter(|word| !word.is_empty()).map(|word| (&*word).into()),
            b"iterations" => {
                let mut odd = false;
                let read = |value: &[u8]| {
                    let mut reader = serde_json::Deserializer::from_slice(value);
                    reader.deserialize_seq(Turns(&mut odd)).map_err(|_| Malformed)
                };
                report.iterations = part(value, &mut incomplete, read);
                incomplete |= odd;
            }
            _ => {}
        }
    }
    report.incomplete = incomplete;
    Ok(report)
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
            match turn(raw.get().as_bytes()) {
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

fn turn(object: &[u8]) -> Result<Iteration, Malformed> {
    // A turn has no turns.
    let report = Report { iterations: None, ..report(object)? };
    let (mut kind, mut model) = (None, None);
    let mut members = Members::of(object);
    while let Some(Member { key, value, .. }) = members.next()? {
        match &*key {
            b"type" => kind = text(value),
            b"model" => model = text(value),
            _ => {}
        }
    }
    Ok(Iteration::new((&*kind.unwrap_or_default()).into(), model.as_deref(), report))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::{ServiceTier, Speed, Usage};

    fn usage(json: &str) -> Usage {
        let mut usage = Usage::default();
        usage.set(report(json.as_bytes()).unwrap());
        usage
    }

    #[test]
    fn a_count_is_a_whole_number_that_is_not_negative() {
        for good in ["0", "7", "7.0", "18446744073709551615", "null"] {
            assert!(report(format!(r#"{{"input_tokens":{good}}}"#).as_bytes()).is_ok(), "{good}");
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
            assert!(report(format!(r#"{{"input_tokens":{bad}}}"#).as_bytes()).is_err(), "{bad}");
        }
        assert!(report(br#"{"input_tokens":1,"input_tokens":2}"#).is_err(), "which one?");
        assert!(report(b"null").is_err() && report(b"[]").is_err());
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
