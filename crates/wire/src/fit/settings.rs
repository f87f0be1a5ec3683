//! Everything that is one field: reasoning, the form of the answer, stop sequences, sampling, the end user.

use super::Fitter;
use super::names::hashed;
use super::paths::Field;
use crate::json::Json;
use crate::loss::Weight;
use crate::protocol::Protocol;
use crate::quirks::{Formats, ReasoningForm, UserField};
use crate::request::{Effort, Format, Reasoning, Sampling, Thought};

impl<'r> Fitter<'r, '_> {
    pub(super) fn reasoning(&mut self, has_tools: bool) -> (Option<Thought>, Option<Effort>) {
        let Reasoning { mode, effort, .. } = self.request.reasoning;
        let (thinking, effort_path) = (self.path(Field::Thinking), self.path(Field::Effort));
        let effort_path = if effort.is_some() { effort_path } else { thinking };
        let known = |effort: Effort| effort.nearest(self.quirks.efforts);
        if self.quirks.reasoning == ReasoningForm::None {
            if effort.is_some() || !matches!(mode, None | Some(Thought::Off)) {
                self.losses.hint(effort_path, "this model does not reason");
            }
            return (None, None);
        }
        if has_tools && !self.quirks.reasoning_with_tools {
            if mode != Some(Thought::Off) {
                self.losses.hint(effort_path, "this model does not reason while it has tools");
            }
            return (Some(Thought::Off), None);
        }
        if mode == Some(Thought::Off) {
            if self.quirks.reasoning_off {
                return (mode, None);
            }
            self.losses.hint(thinking, "this model cannot be kept from reasoning: the lowest effort is asked for");
            return (None, self.quirks.efforts.first().copied());
        }
        if self.quirks.reasoning == ReasoningForm::Budget {
            let budget = match (mode, effort) {
                (Some(Thought::Budget(tokens)), _) => Some(tokens),
                (_, Some(effort)) => Some(effort.budget()),
                (Some(_), None) => Some(Effort::Medium.budget()),
                (None, None) => None,
            };
            return (budget.map(Thought::Budget), None);
        }
        let by_budget = match (mode, effort) {
            (Some(Thought::Budget(tokens)), None) => {
                self.losses.hint(thinking, "the upstream takes an effort, not a number of tokens");
                Some(Effort::of_budget(tokens))
            }
            _ => None,
        };
        let thought = mode.map(|mode| if mode == Thought::BetweenTools { mode } else { Thought::Adaptive });
        (thought, effort.or(by_budget).and_then(known))
    }

    pub(super) fn format(&mut self) -> (&'r Format<'r>, Option<String>) {
        let format = &self.request.format;
        let note = |schema: Option<&Json<'_>>| {
            let mut note = "Answer with one JSON object and nothing else.".to_owned();
            if let Some(schema) = schema {
                note.push_str(" It must be valid against this JSON schema: ");
                note.push_str(schema.as_str());
            }
            note
        };
        let told = "the upstream does not enforce it: it is told in the system prompt";
        let path = self.path(Field::Format);
        let has_description = matches!(self.own, Protocol::OpenAiChat | Protocol::OpenAiResponses);
        if let (Format::JsonSchema { description: Some(_), .. }, false) = (format, has_description) {
            let path = if self.request.source == Protocol::OpenAiChat { "response_format.json_schema" } else { path };
            self.losses.hint(format_args!("{path}.description"), "the upstream takes the schema alone");
        }
        match (format, self.quirks.formats) {
            (Format::Text, _) | (_, Formats::Schema) => (format, None),
            (Format::JsonSchema { .. }, Formats::SchemaOnly) | (Format::JsonObject, Formats::Object) => (format, None),
            (Format::JsonObject, _) => {
                self.losses.hint(path, told);
                (&Format::Text, Some(note(None)))
            }
            (Format::JsonSchema { schema, .. }, formats) => {
                self.losses.hint(path, told);
                let object = if formats == Formats::Object { &Format::JsonObject } else { &Format::Text };
                (object, Some(note(Some(schema))))
            }
        }
    }

    pub(super) fn strict_format(&mut self, format: &Format<'_>) -> bool {
        let Format::JsonSchema { schema, strict, .. } = format else { return false };
        let (can, wanted) = (self.holds_to(Some(schema)), *strict == Some(true));
        if wanted && !can {
            self.losses.hint(self.path(Field::Format), "the upstream may depart from this schema");
        }
        wanted && can
    }

    pub(super) fn max_tokens(&mut self, most: Option<u64>) -> Option<u64> {
        let asked = self.request.max_tokens?;
        let Some(most) = most.filter(|most| *most < asked) else { return Some(asked) };
        self.losses.hint(self.path(Field::MaxTokens), format!("the model gives at most {most}: as many are asked for"));
        Some(most)
    }

    pub(super) fn stop(&mut self) -> Vec<&'r str> {
        let stop = self.request.stop.iter().map(|text| &**text);
        let (path, most) = (self.path(Field::Stop), self.quirks.stop_most);
        if most == 0 && !self.request.stop.is_empty() {
            self.losses.refuse(path, "this model takes no stop sequences");
        } else if self.request.stop.len() > most {
            self.losses.hint(path, format!("the upstream takes {most} stop sequences: the first are sent"));
        }
        stop.take(most).collect()
    }

    pub(super) fn sampling(&mut self) -> Sampling {
        let (asked, quirks) = (self.request.sampling, self.quirks);
        let mut keep = |path: &'static str, value: Option<f64>, usual: f64, taken: bool| {
            if let (Some(value), false) = (value, taken) {
                let weight = if value == usual { Weight::Silent } else { Weight::Hint };
                self.losses.add(path, "this model does not take it", weight);
            }
            value.filter(|_| taken)
        };
        let temperature = keep("temperature", asked.temperature, 1.0, quirks.sampling);
        let top_p = keep("top_p", asked.top_p, 1.0, quirks.sampling);
        let presence_penalty = keep("presence_penalty", asked.presence_penalty, 0.0, quirks.penalties);
        let frequency_penalty = keep("frequency_penalty", asked.frequency_penalty, 0.0, quirks.penalties);
        let top_k = asked.top_k.filter(|_| quirks.top_k);
        let seed = asked.seed.filter(|_| quirks.penalties);
        if top_k != asked.top_k {
            self.losses.hint("top_k", "the upstream does not take it");
        }
        if seed != asked.seed {
            self.losses.hint("seed", "the upstream does not take it");
        }
        let most = f64::from(quirks.temperature_most) / 10.0;
        if temperature.is_some_and(|asked| asked > most) {
            self.losses.hint("temperature", format!("the upstream takes at most {most}"));
        }
        let temperature = temperature.map(|asked| asked.min(most));
        if self.request.verbosity.is_some() && !quirks.verbosity {
            self.losses.hint(self.path(Field::Verbosity), "the upstream does not take it");
        }
        Sampling { temperature, top_p, top_k, presence_penalty, frequency_penalty, seed }
    }

    pub(super) fn user(&self) -> Option<String> {
        let user = self.request.user.as_deref().filter(|_| self.quirks.user != UserField::None)?;
        Some(if self.request.source == self.own { user.to_owned() } else { hashed(user) })
    }
}
