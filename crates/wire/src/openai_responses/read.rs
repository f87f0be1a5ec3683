//! Reads requests.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::{OWN, item, names};
use crate::json::{Json, Str, TextOr, record};
use crate::loss::{Place, Weight};
use crate::opaque::Extra;
use crate::openai::{self, Schema};
use crate::reading::{self, Read, below, extras, fault, owned, parse};
use crate::request::{Ability, Content, Display, Part, Request, Role, Tool, ToolChoice, ToolKind, Turn};

record! {
    /// The body of a request.
    Body<'a> {
        model: Str<'a> = "model",
        input: TextOr<'a, &'a RawValue> = "input",
        instructions: Str<'a> = "instructions",
        tools: Vec<&'a RawValue> = "tools",
        tool_choice: &'a RawValue = "tool_choice",
        parallel_tool_calls: bool = "parallel_tool_calls",
        max_output_tokens: u64 = "max_output_tokens",
        temperature: f64 = "temperature",
        top_p: f64 = "top_p",
        reasoning: ReasoningConfig<'a> = "reasoning",
        text: TextConfig<'a> = "text",
        user: Str<'a> = "user",
        safety_identifier: Str<'a> = "safety_identifier",
        prompt_cache_key: Str<'a> = "prompt_cache_key",
        stream: bool = "stream",
    }
}

record! {
    ReasoningConfig<'a> {
        effort: Str<'a> = "effort",
        summary: Str<'a> = "summary",
        // What it was called before.
        generate_summary: Str<'a> = "generate_summary",
    }
}

record! {
    TextConfig<'a> {
        format: Schema<'a> = "format",
        verbosity: Str<'a> = "verbosity",
    }
}

record! {
    /// A tool of any type: which fields it has depends on `type`.
    Definition<'a> {
        kind: Str<'a> = "type",
        name: Str<'a> = "name",
        description: Str<'a> = "description",
        parameters: &'a RawValue = "parameters",
        strict: bool = "strict",
        format: &'a RawValue = "format",
        tools: Vec<&'a RawValue> = "tools",
    }
}

record! {
    /// The grammar of a custom tool.
    Grammar<'a> {
        kind: Str<'a> = "type",
        definition: &'a RawValue = "definition",
        syntax: &'a RawValue = "syntax",
    }
}

record! {
    Choice<'a> {
        kind: Str<'a> = "type",
        name: Str<'a> = "name",
        namespace: Str<'a> = "namespace",
        mode: Str<'a> = "mode",
        tools: Vec<Choice<'a>> = "tools",
    }
}

/// What it means to leave out a field of the top level.
fn weight(name: &str, value: &str) -> Weight {
    match name {
        // They keep records, sort bills and tune caches at the provider; they do not change the answer.
        "metadata"
        | "client_metadata"
        | "service_tier"
        | "prompt_cache_options"
        | "prompt_cache_retention"
        | "stream_options" => Weight::Silent,
        "store" | "background" if value == "false" => Weight::Silent,
        "truncation" if value == "\"disabled\"" => Weight::Silent,
        "top_logprobs" if value == "0" => Weight::Silent,
        // Sealed reasoning is always included.
        "include" if value.split(',').all(|word| word.contains("reasoning.encrypted_content") || word.len() <= 2) => {
            Weight::Silent
        }
        // What the provider keeps belongs to the conversation; nobody waits for what runs in the background.
        "previous_response_id" | "conversation" | "prompt" | "background" => Weight::Meaning,
        _ => Weight::Hint,
    }
}

/// A client's request.
pub(super) fn request(body: &[u8]) -> Read<Request<'_>> {
    let body: Body<'_> = reading::body(body)?;
    let mut request = Request::new(OWN);
    request.model = owned(body.model).ok_or_else(|| fault("model", "it is required"))?;
    if let Some(Str(text)) = body.instructions {
        request.system.push(Part::new(text, Place::field("instructions")));
    }
    for (n, raw) in body.tools.unwrap_or_default().into_iter().enumerate() {
        tool(raw, Place::new("tools", n), &mut request.tools)?;
    }
    match body.input {
        // What is asked may lie at the provider as well.
        None => {}
        Some(TextOr::Text(text)) => {
            let place = Place::field("input");
            let parts = vec![Part::new(text, place)];
            request.turns.push(Turn { role: Role::User, parts, extras: Vec::new(), place });
        }
        Some(TextOr::List(items)) => {
            for (n, raw) in items.into_iter().enumerate() {
                let place = Place::new("input", n);
                let turn = turn(raw, place, &mut request.tools)?;
                if is_tools(&turn) {
                    let more: Definition<'_> = parse(raw, place)?;
                    let rest = extras(OWN, more.rest, |name, _| match name {
                        "id" | "role" | "status" => Weight::Silent,
                        _ => Weight::Hint,
                    });
                    request.extras.extend(rest.map(|extra| extra.at(place)));
                    continue;
                }
                // Instructions before everything else are the system prompt.
                let is_text = || turn.parts.iter().all(|part| matches!(part.content, Content::Text(_)));
                if turn.role == Role::System && request.turns.is_empty() && is_text() {
                    request.extras.extend(turn.extras.into_iter().map(|extra| extra.at(turn.place)));
                    request.system.extend(turn.parts);
                } else {
                    request.turns.push(turn);
                }
            }
        }
    }
    request.tool_choice = body.tool_choice.map(|raw| tool_choice(raw, &mut request.extras)).transpose()?;
    request.parallel_tools = body.parallel_tool_calls;
    request.max_tokens = body.max_output_tokens;
    (request.sampling.temperature, request.sampling.top_p) = (body.temperature, body.top_p);
    if let Some(config) = body.reasoning {
        reasoning(config, &mut request)?;
    }
    if let Some(config) = body.text {
        request.verbosity = owned(config.verbosity);
        if let Some(mut asked) = config.format {
            let (kind, rest) = (asked.kind.take(), std::mem::take(&mut asked.rest));
            request.extras.extend(below(OWN, "text.format", rest, Weight::Hint));
            request.format = openai::format(kind.as_deref(), || Some(asked), "text.format")?;
        }
        request.extras.extend(below(OWN, "text", config.rest, Weight::Hint));
    }
    request.user = owned(body.safety_identifier).or(owned(body.user));
    request.cache_key = owned(body.prompt_cache_key);
    request.stream = body.stream.unwrap_or(false);
    request.extras.extend(extras(OWN, body.rest, weight));
    Ok(request)
}

/// Whether it only brings tools, which are in the list.
fn is_tools(turn: &Turn<'_>) -> bool {
    matches!(&turn.parts[..], [Part { content: Content::Extra(extra), .. }] if extra.name == "additional_tools")
}

/// One item; tools that come with it are added to the list: it is the one after all items.
fn turn<'a>(raw: &'a RawValue, place: Place, tools: &mut Vec<Tool<'a>>) -> Read<Turn<'a>> {
    let turn = item::read(raw, place)?;
    for part in &turn.parts {
        match &part.content {
            Content::Call(call) if !call.input.is_whole() => {
                return Err(fault(place, "its `arguments` are no JSON"));
            }
            Content::Extra(extra) if matches!(&*extra.name, "additional_tools" | "tool_search_output") => {
                let more: Definition<'_> = parse(raw, place)?;
                for (n, raw) in more.tools.unwrap_or_default().into_iter().enumerate() {
                    let known = tools.len();
                    tool(raw, place.part("tools", n), tools)?;
                    for at in (known..tools.len()).rev() {
                        if tools[..known].iter().any(|tool| tool.name == tools[at].name) {
                            tools.remove(at);
                        }
                    }
                }
            }
            _ => {}
        }
    }
    Ok(turn)
}

fn reasoning<'a>(config: ReasoningConfig<'a>, request: &mut Request<'a>) -> Read<()> {
    openai::effort(config.effort, "reasoning.effort", &mut request.reasoning)?;
    request.reasoning.display = match config.summary.or(config.generate_summary).as_deref() {
        None => None,
        Some("concise") => Some(Display::Concise),
        Some("detailed") => Some(Display::Detailed),
        Some("none") => Some(Display::Omitted),
        Some(_) => Some(Display::Summary),
    };
    request.extras.extend(below(OWN, "reasoning", config.rest, Weight::Hint));
    Ok(())
}

/// One tool, or all in a namespace.
fn tool<'a>(raw: &'a RawValue, place: Place, tools: &mut Vec<Tool<'a>>) -> Read<()> {
    let definition: Definition<'_> = parse(raw, place)?;
    if definition.kind.as_deref() != Some("namespace") {
        tools.push(one(definition, raw, None, place)?);
        return Ok(());
    }
    let namespace = owned(definition.name).ok_or_else(|| fault(place, "the namespace needs `name`"))?;
    let mut rest: Vec<_> = below(OWN, "namespace", definition.rest, Weight::Hint).collect();
    for (n, raw) in definition.tools.unwrap_or_default().into_iter().enumerate() {
        let place = place.part("tools", n);
        let mut tool = one(parse(raw, place)?, raw, Some(&namespace), place)?;
        // What is said of all of them is said with the first.
        if let (0, Some(all)) = (n, definition.description.as_deref().filter(|text| !text.trim().is_empty())) {
            let own = tool.description.as_deref().unwrap_or_default();
            tool.description = Some(format!("[{namespace}: {all}]\n{own}").trim_end().to_owned().into());
        }
        tool.extras.append(&mut rest);
        tools.push(tool);
    }
    Ok(())
}

fn one<'a>(definition: Definition<'a>, raw: &'a RawValue, namespace: Option<&str>, place: Place) -> Read<Tool<'a>> {
    let Some(Str(kind)) = definition.kind else { return Err(fault(place, "the tool needs `type`")) };
    let kind = match &*kind {
        "function" => ToolKind::Function { schema: definition.parameters.map(Json::from), strict: definition.strict },
        "custom" => {
            ToolKind::Custom { format: definition.format.map(|raw| grammar(raw, place)).transpose()?.flatten() }
        }
        _ => {
            let ability = kind.starts_with("web_search").then_some(Ability::WebSearch);
            let name = definition.name.map_or_else(|| kind.clone(), |Str(name)| name);
            let kind = ToolKind::Server { ability, definition: Extra::new(OWN, kind, raw, Weight::Hint) };
            return Ok(Tool { name, description: None, kind, cache: None, extras: Vec::new(), place });
        }
    };
    let name = owned(definition.name).ok_or_else(|| fault(place, "the tool needs `name`"))?;
    let weight = |name: &str, value: &str| match name {
        // When a tool is loaded, and who calls it beside the model, does not change what it is.
        "defer_loading" | "output_schema" => Weight::Silent,
        "allowed_callers" if value.contains("\"direct\"") => Weight::Silent,
        _ => Weight::Hint,
    };
    Ok(Tool {
        name: names::join(namespace, name),
        description: owned(definition.description),
        kind,
        cache: None,
        extras: extras(OWN, definition.rest, weight).collect(),
        place,
    })
}

/// The grammar of a custom tool, in the form of Chat Completions; `None` for plain text.
fn grammar(raw: &RawValue, place: Place) -> Read<Option<Json<'_>>> {
    let grammar: Grammar<'_> = parse(raw, place)?;
    let definition = match (grammar.kind.as_deref(), grammar.definition) {
        (Some("text"), _) => return Ok(None),
        (Some("grammar"), Some(definition)) => definition,
        _ => return Err(fault(place, openai::NO_FORMAT)),
    };
    Ok(Some(Json::object(|o| {
        o.str("type", "grammar").object("grammar", |o| {
            o.raw("definition", definition.get());
            if let Some(syntax) = grammar.syntax {
                o.raw("syntax", syntax.get());
            }
        });
    })))
}

fn tool_choice<'a>(raw: &'a RawValue, extras: &mut Vec<Extra<'a>>) -> Read<ToolChoice<'a>> {
    if let Some(choice) = openai::choice_of_word(raw) {
        return choice;
    }
    let mut choice: Choice<'_> = parse(raw, "tool_choice")?;
    extras.extend(below(OWN, "tool_choice", std::mem::take(&mut choice.rest), Weight::Hint));
    if choice.kind.as_deref() == Some("allowed_tools") {
        let required = choice.mode.as_deref() == Some("required");
        let names = choice.tools.unwrap_or_default().into_iter().filter_map(chosen).collect();
        return Ok(ToolChoice::Among { names, required });
    }
    chosen(choice).map(ToolChoice::Tool).ok_or_else(|| fault("tool_choice", "it names no tool"))
}

/// The tool's name; one of the provider's own has its type for one.
fn chosen(choice: Choice<'_>) -> Option<Cow<'_, str>> {
    let name = owned(choice.name).map(|name| names::join(choice.namespace.as_deref(), name));
    name.or(owned(choice.kind))
}
