//! `cco watch`: what happens at the moment, as it happens.

use std::process::ExitCode;

use gateway::config::Env;
use serde_json::Value;

use crate::cli::look::Watch;
use crate::source::{self, Failure, Source};
use crate::{term, text};

/// Watches until nobody reads, or the gateway ends.
pub(crate) fn run(options: &Watch) -> ExitCode {
    source::ended(watch(options))
}

fn watch(options: &Watch) -> Result<(), Failure> {
    let source = Source::answering(&Env::process()).map_err(|why| Failure::absent(source::NOBODY, &why))?;
    let mut shown = Shown::default();
    source.watch(|name, data| {
        let Ok(mut event) = serde_json::from_str::<Value>(data) else { return true };
        if options.json {
            event["event"] = name.into();
            return term::data(event);
        }
        term::heard_part(shown.event(name, &event))
    })
}

/// What stands on the screen.
#[derive(Debug, Default)]
struct Shown {
    /// Whose words stand in the line that is not finished.
    open: Option<String>,
}

impl Shown {
    /// What is to be printed for an event.
    fn event(&mut self, name: &str, event: &Value) -> String {
        let text = |name: &str| event[name].as_str().map(|text| text::line(text).into_owned());
        let short = text("short").unwrap_or_default();
        if name == "text_delta" {
            let said = text::lines(event["text"].as_str().unwrap_or_default()).replace('\n', &format!("\n{short} │ "));
            return if self.open.as_ref() == Some(&short) {
                said
            } else {
                format!("{}{short} │ {said}", self.closed(Some(short.clone())))
            };
        }
        let parts = |names: &[&str]| names.iter().filter_map(|name| text(name)).collect::<Vec<_>>().join(" ");
        let line = match name {
            "started" => {
                let who = [("session", "session"), ("agent_type", "agent"), ("project", "project")];
                let who = who.iter().filter_map(|(name, word)| Some(format!(", {word} {}", text(name)?)));
                format!("{short} ▶ {}{}", parts(&["operation", "provider", "model"]), who.collect::<String>())
            }
            "completed" | "error" => {
                let mark = if name == "error" { "✗" } else { "✓" };
                let took = event["duration_ms"].as_f64().map(|ms| format!(", {}", text::took(ms)));
                let tokens = event["output_tokens"].as_i64().map(|n| format!(", {} tokens", text::count(n)));
                let cost = event["cost_usd"].as_f64().map(|usd| format!(", {}", text::usd(usd)));
                let error = text("error").map(|error| format!(": {error}"));
                let more = [took, tokens, cost, error].into_iter().flatten().collect::<String>();
                format!("{short} {mark} {}{more}", parts(&["outcome", "provider", "model"]))
            }
            "lag" => format!("… {} events were skipped: this terminal is too slow", event["skipped"]),
            name => format!("{short} {}", text::line(name)),
        };
        format!("{}{line}\n", self.closed(None))
    }

    /// Ends the line that is not finished, if there is one; the next belongs to `open`.
    fn closed(&mut self, open: Option<String>) -> &'static str {
        if std::mem::replace(&mut self.open, open).is_some() { "\n" } else { "" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn two_streams_at_once_stay_apart_and_cannot_move_the_cursor() {
        let mut shown = Shown::default();
        let mut all = String::new();
        for (name, event) in [
            (
                "started",
                json!({ "short": "a", "operation": "generation", "provider": "p", "model": "m", "session": "s" }),
            ),
            ("text_delta", json!({ "short": "a", "text": "one " })),
            ("text_delta", json!({ "short": "a", "text": "two\nthree\u{1b}[2J" })),
            ("text_delta", json!({ "short": "b", "text": "other" })),
            ("lag", json!({ "skipped": 7 })),
            (
                "completed",
                json!({ "short": "a", "outcome": "success", "duration_ms": 1500.0, "output_tokens": 12, "cost_usd": 0.5 }),
            ),
            ("error", json!({ "short": "b", "outcome": "truncated", "error": "it broke\u{7}" })),
        ] {
            all.push_str(&shown.event(name, &event));
        }
        let want = "a ▶ generation p m, session s\na │ one two\na │ three\\u{1b}[2J\nb │ other\n\
                    … 7 events were skipped: this terminal is too slow\n\
                    a ✓ success, 1.5 s, 12 tokens, $0.5000\nb ✗ truncated: it broke\\u{7}\n";
        assert_eq!(all, want);
    }
}
