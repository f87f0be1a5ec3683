//! Writes requests.

use std::borrow::Cow;

use super::OWN;
use crate::codec::{Encoded, Target};
use crate::fit::{self, Fit, FittedTool, Group};
use crate::json::{self, Writer};
use crate::openai::{arguments, asker, data_url, word_of_choice};
use crate::plain::{self, as_text, join};
use crate::quirks::{MaxTokens, Quirks, ReasoningForm, ThinkingBack};
use crate::request::{
    Call, Content, Document, Format, Image, Input, Part, Request, Role, Source, Thought, ToolChoice, ToolKind,
};
use crate::writing::{sampling, top_level};

/// A request for a server that speaks Chat Completions.
pub(super) fn request(request: &Request<'_>, target: &Target<'_>) -> Encoded {
    // Only the Responses API of this provider has it.
    let quirks = &Quirks { web_search: false, ..*target.quirks };
    let fit = fit::fit(request, OWN, &Target { quirks, ..*target });
    let has_tools = !fit.tools.is_empty() || fit.groups.iter().any(|group| group.calls().next().is_some());
    let writer = Messages { quirks, must_think: quirks.thinking_back == ThinkingBack::Text && has_tools };
    let mut body = Vec::new();
    json::object(&mut body, |o| {
        o.str("model", target.model);
        o.list("messages", |list| {
            writer.system(list, &fit);
            fit.groups.iter().for_each(|group| writer.group(list, group));
        });
        if !fit.tools.is_empty() {
            o.list("tools", |list| {
                for tool in &fit.tools {
                    list.push_object(|o| define(o, tool, quirks));
                }
            });
        }
        choose(o, &fit);
        if fit.parallel_tools == Some(false) {
            o.bool("parallel_tool_calls", false);
        }
        if let Some(most) = fit.max_tokens {
            o.uint(
                if quirks.max_tokens == MaxTokens::Completion { "max_completion_tokens" } else { "max_tokens" },
                most,
            );
        }
        if !fit.stop.is_empty() {
            o.list("stop", |list| fit.stop.iter().for_each(|text| list.push_str(text)));
        }
        sampling(o, &fit.sampling);
        reasoning(o, &fit, quirks);
        response_format(o, &fit);
        if quirks.verbosity {
            o.str_if("verbosity", request.verbosity.as_deref());
        }
        asker(o, quirks, fit.user.as_deref(), request.cache_key.as_deref());
        if request.stream {
            o.bool("stream", true);
            if quirks.stream_usage {
                o.object("stream_options", |o| {
                    o.bool("include_usage", true);
                });
            }
        }
        top_level(o, OWN, &request.extras);
    });
    Encoded { body, losses: fit.losses, back: fit.back, is_idle: request.max_tokens == Some(0) }
}

fn define(o: &mut Writer<'_>, fitted: &FittedTool<'_>, quirks: &Quirks) {
    let FittedTool { tool, name, description, strict } = fitted;
    match &tool.kind {
        ToolKind::Server { definition, .. } => o.members(&definition.value, &[]),
        ToolKind::Custom { format } if quirks.custom_tools => {
            o.str("type", "custom").object("custom", |o| {
                o.str("name", name).str_if("description", *description);
                if let Some(format) = format {
                    o.raw("format", format.as_str());
                }
            });
        }
        _ => {
            o.str("type", "function").object("function", |o| {
                o.str("name", name).str_if("description", *description).raw("parameters", &fitted.schema());
                if *strict {
                    o.bool("strict", true);
                }
            });
        }
    }
}

fn choose(o: &mut Writer<'_>, fit: &Fit<'_>) {
    let Some(choice) = &fit.tool_choice else { return };
    o.str_if("tool_choice", word_of_choice(choice));
    if let ToolChoice::Tool(name) = choice {
        let is_custom = |t: &&FittedTool<'_>| t.name == *name && matches!(t.tool.kind, ToolKind::Custom { .. });
        let custom = fit.back.custom.is_empty() && fit.tools.iter().any(|tool| is_custom(&tool));
        let kind = if custom { "custom" } else { "function" };
        o.object("tool_choice", |o| {
            o.str("type", kind).object(kind, |o| {
                o.str("name", name);
            });
        });
    }
}

fn reasoning(o: &mut Writer<'_>, fit: &Fit<'_>, quirks: &Quirks) {
    let is_off = fit.thought == Some(Thought::Off);
    if quirks.reasoning == ReasoningForm::SwitchAndEffort {
        if let Some(thought) = fit.thought {
            o.object("thinking", |o| {
                o.str("type", if thought == Thought::Off { "disabled" } else { "enabled" });
            });
        }
    } else if is_off {
        o.str("reasoning_effort", "none");
    }
    o.str_if("reasoning_effort", fit.effort.map(|effort| effort.as_str()));
}

fn response_format(o: &mut Writer<'_>, fit: &Fit<'_>) {
    match fit.format {
        Format::Text => {}
        Format::JsonObject => {
            o.object("response_format", |o| {
                o.str("type", "json_object");
            });
        }
        Format::JsonSchema { name, description, schema, .. } => {
            o.object("response_format", |o| {
                o.str("type", "json_schema").object("json_schema", |o| {
                    o.str("name", name.as_deref().unwrap_or("output")).str_if("description", description.as_deref());
                    o.raw("schema", schema.as_str());
                    if fit.strict_format {
                        o.bool("strict", true);
                    }
                });
            });
        }
    }
}

struct Messages<'q> {
    quirks: &'q Quirks,
    /// Whether every turn of the model has to say what it thought, were it nothing.
    must_think: bool,
}

impl Messages<'_> {
    fn system(&self, list: &mut Writer<'_>, fit: &Fit<'_>) {
        let text = fit.system_text();
        if !text.is_empty() {
            self.instructions(list, &text);
        }
    }

    fn instructions(&self, list: &mut Writer<'_>, text: &str) {
        list.push_object(|o| {
            o.str("role", self.quirks.system_role.as_str()).str("content", text);
        });
    }

    fn group(&self, list: &mut Writer<'_>, group: &Group<'_>) {
        match group.role {
            Role::System => self.instructions(list, &group.joined(plain::text, "\n\n")),
            Role::Assistant => self.assistant(list, group),
            Role::User => self.user(list, group),
        }
    }

    fn assistant(&self, list: &mut Writer<'_>, group: &Group<'_>) {
        let said = group.text();
        let refused = group.joined(plain::refusal, "");
        let has_calls = group.calls().next().is_some();
        let thought = group.joined(plain::thought, "\n");
        let is_own = |part: &Cow<'_, Part<'_>>| matches!(&part.content, Content::Extra(extra) if extra.origin == OWN);
        let has_own = group.parts.iter().any(is_own);
        if said.is_empty() && refused.is_empty() && thought.is_empty() && !has_calls && !has_own {
            return;
        }
        // A message has to say or to call something.
        let said =
            if has_calls || !refused.is_empty() { Some(&*said).filter(|said| !said.is_empty()) } else { Some(&*said) };
        list.push_object(|o| {
            o.str("role", "assistant");
            if has_own {
                let parts = group.parts.iter().filter(|part| is_own(part) || matches!(part.content, Content::Text(_)));
                o.list("content", |list| parts.for_each(|part| push(list, part)));
            } else {
                o.str_or_null("content", said);
            }
            o.str_if("refusal", Some(&*refused).filter(|refused| !refused.is_empty()));
            if !thought.is_empty() || self.must_think {
                o.str("reasoning_content", if thought.is_empty() { " " } else { &thought });
            }
            if has_calls {
                o.list("tool_calls", |list| {
                    for Call { id, name, input } in group.calls() {
                        let (id, name) = (fit::id(id, self.quirks.id_most), fit::name(name, self.quirks.name_most));
                        list.push_object(|o| call(o, &id, &name, input, self.quirks.custom_tools));
                    }
                });
            }
        });
    }

    fn user(&self, list: &mut Writer<'_>, group: &Group<'_>) {
        // Results carry text alone; images in them follow after all results.
        let mut attached: Vec<(String, &Part<'_>)> = Vec::new();
        for result in group.results() {
            let content = plain::result(result, OWN, &mut attached);
            list.push_object(|o| {
                o.str("role", "tool").str("tool_call_id", &fit::id(&result.id, self.quirks.id_most));
                o.str("content", if content.is_empty() { self.quirks.empty_result } else { &content });
            });
        }
        let rest = || group.parts.iter().filter(|part| !matches!(part.content, Content::Result(_)));
        let texts: Option<Vec<Cow<'_, str>>> = rest().map(|part| as_text(&part.content, OWN)).collect();
        let text = texts.filter(|_| attached.is_empty());
        let text = text.as_ref().map(|texts| join(texts.iter().map(|text| &**text), "\n\n"));
        if text.as_ref().is_some_and(|text| text.is_empty()) {
            return;
        }
        list.push_object(|o| {
            o.str("role", "user");
            match text {
                Some(text) => {
                    o.str("content", &text);
                }
                None => {
                    o.list("content", |list| {
                        for (caption, part) in &attached {
                            push_text(list, caption);
                            push(list, part);
                        }
                        rest().for_each(|part| push(list, part));
                    });
                }
            }
        });
    }
}

/// The members of a call, in requests and in answers.
pub(super) fn call(o: &mut Writer<'_>, id: &str, name: &str, input: &Input<'_>, custom_tools: bool) {
    o.str("id", id);
    match input {
        Input::Text(input) if custom_tools => o.str("type", "custom").object("custom", |o| {
            o.str("name", name).str("input", input);
        }),
        input => o.str("type", "function").object("function", |o| {
            o.str("name", name).str("arguments", &arguments(input));
        }),
    };
}

fn push_text(list: &mut Writer<'_>, text: &str) {
    list.push_object(|o| {
        o.str("type", "text").str("text", text);
    });
}

fn push(list: &mut Writer<'_>, part: &Part<'_>) {
    match &part.content {
        Content::Image(Image { source, detail }) => list.push_object(|o| {
            o.str("type", "image_url").object("image_url", |o| {
                match source {
                    Source::Base64 { media_type, data } => o.with("url", |out| data_url(out, media_type, data)),
                    Source::Url(url) | Source::File(url) | Source::Text(url) => o.str("url", url),
                    Source::Parts(_) => o,
                };
                o.str_if("detail", detail.as_deref());
            });
        }),
        Content::Document(Document { source: Source::Base64 { media_type, data }, title, .. }) => {
            list.push_object(|o| {
                o.str("type", "file").object("file", |o| {
                    o.str("filename", title.as_deref().unwrap_or("document.pdf"));
                    o.with("file_data", |out| data_url(out, media_type, data));
                });
            })
        }
        Content::Document(Document { source: Source::File(id), .. }) => list.push_object(|o| {
            o.str("type", "file").object("file", |o| {
                o.str("file_id", id);
            });
        }),
        Content::Document(Document { source: Source::Parts(parts), title, context, .. }) => {
            let head = [title.as_deref(), context.as_deref()].into_iter().flatten();
            head.filter(|text| !text.is_empty()).for_each(|text| push_text(list, text));
            parts.iter().for_each(|part| push(list, part));
        }
        Content::Extra(extra) if extra.origin == OWN => list.push_raw(extra.value.as_str()),
        content => match as_text(content, OWN) {
            Some(text) if !text.is_empty() => push_text(list, &text),
            _ => {}
        },
    }
}
