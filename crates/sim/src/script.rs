//! The marker language: what a prompt, a header or a flag asks the simulator to do.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde_json::value::RawValue;

use crate::fault::Fault;

/// What opens a marker in a prompt; `]]` closes it.
const OPEN: &str = "[[sim";

/// What the simulator does, turn by turn. Written as the inside of a marker: `"text=hello".parse::<Script>()`.
#[derive(Clone, Debug, Default)]
pub struct Script {
    pub(crate) turns: Vec<Turn>,
}

/// One answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Turn {
    pub(crate) blocks: Vec<Block>,
    pub(crate) stop: Option<String>,
    pub(crate) usage: SaidUsage,
    pub(crate) status: Option<u16>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) raw: Option<String>,
    /// Before the first event.
    pub(crate) first: Duration,
    /// Before each further event.
    pub(crate) every: Duration,
    /// After each piece that was written.
    pub(crate) gap: Duration,
    pub(crate) chunk: Option<u64>,
    pub(crate) cuts: Vec<u64>,
    pub(crate) size: Option<usize>,
    pub(crate) crlf: bool,
    pub(crate) pings: bool,
    pub(crate) faults: Vec<Fault>,
    pub(crate) times: Option<u64>,
}

/// Token counts that the script states; what it leaves open is estimated.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SaidUsage {
    pub(crate) input: Option<u64>,
    pub(crate) output: Option<u64>,
    pub(crate) thinking: Option<u64>,
    pub(crate) cache_read: u64,
    pub(crate) cache_5m: u64,
    pub(crate) cache_1h: u64,
}

/// One block of content.
#[derive(Clone, Debug)]
pub(crate) enum Block {
    Text(String),
    /// Generated text: so many deltas of so many bytes.
    Filler {
        deltas: u64,
        size: usize,
        fill: String,
    },
    Thinking(String),
    Redacted,
    /// Names in order of preference, and the input as it was written.
    Tool {
        names: Vec<String>,
        input: String,
    },
}

/// A script that cannot be read, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadScript(String);

impl BadScript {
    pub(crate) fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

impl fmt::Display for BadScript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadScript {}

impl FromStr for Script {
    type Err = BadScript;

    fn from_str(text: &str) -> Result<Self, BadScript> {
        let mut reader = Reader { rest: text, in_marker: false, script: Script { turns: vec![Turn::default()] } };
        reader.items()?;
        Ok(reader.script)
    }
}

impl Script {
    /// The markers in `text`, read as one script; `None` if there is none.
    pub(crate) fn from_markers(text: &str) -> Option<Result<Self, BadScript>> {
        let mut at = find_marker(text)?;
        let mut reader = Reader { rest: "", in_marker: true, script: Script { turns: vec![Turn::default()] } };
        let mut rest = text;
        loop {
            reader.rest = &rest[at + OPEN.len()..];
            if let Err(why) = reader.items() {
                return Some(Err(why));
            }
            rest = reader.rest;
            match find_marker(rest) {
                Some(next) => at = next,
                None => return Some(Ok(reader.script)),
            }
        }
    }

    /// The answer to a conversation that already holds `answered` answers. Behind its last turn a script goes on with
    /// that one, unless it calls tools: that would never end.
    pub(crate) fn turn(&self, answered: usize) -> Turn {
        match (self.turns.get(answered), self.turns.last()) {
            (Some(turn), _) => turn.clone(),
            (None, Some(last)) if !last.blocks.iter().any(|block| matches!(block, Block::Tool { .. })) => last.clone(),
            (None, Some(_)) => {
                Turn { blocks: vec![Block::Text("The script is at its end.".to_owned())], ..Turn::default() }
            }
            (None, None) => Turn::default(),
        }
    }
}

/// Where the next marker starts: `[[sim` and then white space or the end of the marker.
fn find_marker(text: &str) -> Option<usize> {
    let mut from = 0;
    loop {
        let at = from + text.get(from..)?.find(OPEN)?;
        let after = &text[at + OPEN.len()..];
        if after.starts_with(char::is_whitespace) || after.starts_with("]]") {
            return Some(at);
        }
        from = at + OPEN.len();
    }
}

struct Reader<'a> {
    rest: &'a str,
    in_marker: bool,
    script: Script,
}

/// A value as it was written: a bare word, or JSON.
#[derive(Clone, Copy)]
struct Value<'a>(&'a str);

impl<'a> Reader<'a> {
    /// Reads items up to the end of the marker, or of the text outside of one.
    fn items(&mut self) -> Result<(), BadScript> {
        let (mut deltas, mut fill) = (None, None);
        loop {
            self.rest = self.rest.trim_start();
            if self.in_marker {
                if let Some(rest) = self.rest.strip_prefix("]]") {
                    self.rest = rest;
                    return self.close_turn(deltas, fill);
                }
                if self.rest.is_empty() {
                    return Err(BadScript::new("a `[[sim` marker has no closing `]]`"));
                }
            } else if self.rest.is_empty() {
                return self.close_turn(deltas, fill);
            }
            let key = self.key()?;
            let value = match self.rest.strip_prefix('=') {
                Some(rest) => {
                    self.rest = rest;
                    Some(self.value()?)
                }
                None => None,
            };
            if key == "then" {
                self.close_turn(deltas.take(), fill.take())?;
                self.script.turns.push(Turn::default());
                continue;
            }
            let turn = self.script.turns.last_mut().expect("a script is read from its first turn on");
            match (key, value) {
                ("crlf", None) => turn.crlf = true,
                ("pings", None) => turn.pings = true,
                ("redacted", None) => turn.blocks.push(Block::Redacted),
                ("text", Some(v)) => turn.blocks.push(Block::Text(v.string()?)),
                ("thinking", Some(v)) => turn.blocks.push(Block::Thinking(v.string()?)),
                ("tool", Some(v)) => {
                    let names = v.string()?.split('|').map(str::to_owned).collect();
                    turn.blocks.push(Block::Tool { names, input: "{}".to_owned() });
                }
                ("input", Some(v)) => match turn.blocks.last_mut() {
                    Some(Block::Tool { input, .. }) if v.0.starts_with('{') => *input = v.0.to_owned(),
                    Some(Block::Tool { .. }) => return Err(BadScript::new("`input` wants a JSON object")),
                    _ => return Err(BadScript::new("`input` belongs behind a `tool`")),
                },
                ("stop", Some(v)) => turn.stop = Some(v.string()?),
                ("input_tokens", Some(v)) => turn.usage.input = Some(v.number(key)?),
                ("output_tokens", Some(v)) => turn.usage.output = Some(v.number(key)?),
                ("thinking_tokens", Some(v)) => turn.usage.thinking = Some(v.number(key)?),
                ("cache_read", Some(v)) => turn.usage.cache_read = v.number(key)?,
                ("cache_5m", Some(v)) => turn.usage.cache_5m = v.number(key)?,
                ("cache_1h", Some(v)) => turn.usage.cache_1h = v.number(key)?,
                ("first", Some(v)) => turn.first = Duration::from_millis(v.number(key)?),
                ("every", Some(v)) => turn.every = Duration::from_millis(v.number(key)?),
                ("gap", Some(v)) => turn.gap = Duration::from_millis(v.number(key)?),
                ("events", Some(v)) => deltas = Some(v.number(key)?),
                ("size", Some(v)) => turn.size = Some(v.number(key)?.clamp(1, MAX_DELTA) as usize),
                ("fill", Some(v)) => fill = Some(v.string()?),
                ("chunk", Some(v)) => turn.chunk = Some(v.number(key)?.max(1)),
                ("cuts", Some(v)) => {
                    turn.cuts = serde_json::from_str(v.0)
                        .map_err(|_| BadScript::new("`cuts` wants a list of offsets like `[3,17]`"))?;
                    turn.cuts.sort_unstable();
                }
                ("raw", Some(v)) => turn.raw = Some(v.string()?),
                ("status", Some(v)) => {
                    let status = u16::try_from(v.number(key)?).ok().filter(|status| (200..=599).contains(status));
                    turn.status =
                        Some(status.ok_or_else(|| BadScript::new("`status` wants a number from 200 to 599"))?);
                }
                ("header", Some(v)) => {
                    let line = v.string()?;
                    let (name, value) = line
                        .split_once(':')
                        .filter(|_| !line.contains(['\r', '\n']))
                        .ok_or_else(|| BadScript::new("`header` wants one line like `\"x-name: value\"`"))?;
                    turn.headers.push((name.trim().to_owned(), value.trim().to_owned()));
                }
                ("fault", Some(v)) => turn.faults.push(v.string()?.parse()?),
                ("times", Some(v)) => turn.times = Some(v.number(key)?),
                ("crlf" | "pings" | "redacted", Some(_)) => {
                    return Err(BadScript::new(format!("`{key}` takes no value in a script")));
                }
                (_, None) => {
                    return Err(BadScript::new(format!("`{key}` is no word of a script, or it needs `{key}=VALUE`")));
                }
                (_, Some(_)) => return Err(BadScript::new(format!("`{key}` is no key of a script"))),
            }
        }
    }

    /// Generated text stands behind what else the turn says.
    fn close_turn(&mut self, deltas: Option<u64>, fill: Option<String>) -> Result<(), BadScript> {
        let turn = self.script.turns.last_mut().expect("a script is read from its first turn on");
        match (deltas, fill) {
            (Some(deltas), fill) => {
                let fill = fill.filter(|fill| !fill.is_empty()).unwrap_or_else(|| "All work and no play. ".to_owned());
                turn.blocks.push(Block::Filler { deltas, size: turn.size.unwrap_or(16), fill });
            }
            (None, Some(_)) => return Err(BadScript::new("`fill` belongs to `events`, which is missing")),
            (None, None) => {}
        }
        Ok(())
    }

    fn key(&mut self) -> Result<&'a str, BadScript> {
        let end =
            self.rest.find(|c: char| !(c.is_ascii_alphanumeric() || "_-.".contains(c))).unwrap_or(self.rest.len());
        let (key, rest) = self.rest.split_at(end);
        self.rest = rest;
        match key {
            "" => Err(BadScript::new(format!("a script has no word that starts with `{}`", first_of(rest)))),
            key => Ok(key),
        }
    }

    fn value(&mut self) -> Result<Value<'a>, BadScript> {
        if self.rest.starts_with(['"', '{', '[']) {
            let mut values = serde_json::Deserializer::from_str(self.rest).into_iter::<&'a RawValue>();
            let value = match values.next() {
                Some(Ok(value)) => value.get(),
                Some(Err(why)) => return Err(BadScript::new(format!("a value in a script is not JSON: {why}"))),
                None => return Err(BadScript::new("a value is missing in a script")),
            };
            self.rest = &self.rest[values.byte_offset()..];
            return Ok(Value(value));
        }
        let word = self.rest.find(char::is_whitespace).unwrap_or(self.rest.len());
        let end = if self.in_marker { self.rest.find("]]").map_or(word, |close| close.min(word)) } else { word };
        let (value, rest) = self.rest.split_at(end);
        self.rest = rest;
        Ok(Value(value))
    }
}

/// The longest delta that is generated: enough for the largest event that anybody tests.
const MAX_DELTA: u64 = 64 << 20;

fn first_of(text: &str) -> &str {
    let end = text.char_indices().nth(1).map_or(text.len(), |(at, _)| at);
    &text[..end]
}

impl Value<'_> {
    fn string(self) -> Result<String, BadScript> {
        if !self.0.starts_with('"') {
            return Ok(self.0.to_owned());
        }
        serde_json::from_str(self.0).map_err(|why| BadScript::new(format!("a string in a script: {why}")))
    }

    fn number(self, key: &str) -> Result<u64, BadScript> {
        self.0.parse().map_err(|_| BadScript::new(format!("`{key}` wants a number, not `{}`", self.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marked(text: &str) -> Script {
        Script::from_markers(text).expect("a marker").expect("a script")
    }

    #[test]
    fn a_marker_is_found_between_other_words_and_read_as_turns() {
        let script = marked(r#"please [[sim tool=Read input={"file_path":"/a ]] b"} then text="it says ]]"]] thanks"#);
        assert_eq!(script.turns.len(), 2);
        assert!(matches!(&script.turns[0].blocks[..], [Block::Tool { names, input }]
            if names == &["Read"] && input == r#"{"file_path":"/a ]] b"}"#));
        assert!(matches!(&script.turns[1].blocks[..], [Block::Text(text)] if text == "it says ]]"));
    }

    #[test]
    fn a_marker_inside_a_tool_input_stays_in_it() {
        let script = marked(r#"[[sim tool=Agent|Task input={"prompt":"[[sim text=\"inner\"]]"} then text=outer]]"#);
        assert_eq!(script.turns.len(), 2);
        assert!(matches!(&script.turns[1].blocks[..], [Block::Text(text)] if text == "outer"));
    }

    #[test]
    fn several_markers_are_one_script() {
        let script = marked("[[sim fault=529 times=2]] and [[sim text=a]]");
        assert_eq!(script.turns.len(), 1);
        assert_eq!(
            (script.turns[0].faults.len(), script.turns[0].times, script.turns[0].blocks.len()),
            (1, Some(2), 1)
        );
    }

    #[test]
    fn words_that_only_look_like_markers_are_left_alone() {
        assert!(Script::from_markers("a [[simple]] word and [[ sim ]]").is_none());
        assert!(Script::from_markers("[[sim]]").is_some());
    }

    #[test]
    fn a_script_behind_its_end_repeats_text_but_never_tools() {
        let script: Script = "text=a then text=b".parse().unwrap();
        assert!(matches!(&script.turn(7).blocks[..], [Block::Text(text)] if text == "b"));
        let script: Script = "tool=Read".parse().unwrap();
        assert!(matches!(&script.turn(1).blocks[..], [Block::Text(_)]));
    }

    #[test]
    fn what_is_wrong_in_a_script_is_named() {
        for (wrong, names) in [
            ("colour=red", "`colour`"),
            ("text", "`text=VALUE`"),
            ("input={}", "`tool`"),
            ("text=\"open", "not JSON"),
            ("every=soon", "`soon`"),
            ("fault=54", "`54`"),
            ("=", "`=`"),
            ("raw", "`raw`"),
            ("fill=x", "`events`"),
            ("header=\"a: b\\r\\nc: d\"", "`header`"),
        ] {
            let said = wrong.parse::<Script>().expect_err(wrong).to_string();
            assert!(said.contains(names), "{wrong}: {said}");
        }
        assert!(Script::from_markers("[[sim text=a").expect("a marker").is_err());
    }
}
