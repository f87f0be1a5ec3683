//! Which tools the target is told of, and whether it has to call one.

use std::borrow::Cow;

use super::paths::Field;
use super::schemas::{TEXT_INPUT, object_schema};
use super::{Fitter, name};
use crate::codec::Back;
use crate::loss::Weight;
use crate::quirks::Choices;
use crate::request::{Ability, Tool, ToolChoice, ToolKind};

/// A tool as the target can be told of it.
#[derive(Debug, Clone)]
pub struct FittedTool<'r> {
    /// As the client defines it.
    pub tool: &'r Tool<'r>,
    /// Its name, within the target's limits.
    pub name: Cow<'r, str>,
    /// What it does, within the target's limits.
    pub description: Option<&'r str>,
    /// Whether the target is to hold to its schema, and can.
    pub strict: bool,
}

impl FittedTool<'_> {
    /// The schema of its input, as every provider takes it.
    pub fn schema(&self) -> Cow<'_, str> {
        match &self.tool.kind {
            ToolKind::Function { schema, .. } => object_schema(schema.as_ref()),
            _ => Cow::Borrowed(TEXT_INPUT),
        }
    }
}

impl<'r> Fitter<'r, '_> {
    pub(super) fn tools(&mut self, back: &mut Back) -> Vec<FittedTool<'r>> {
        let mut fitted = Vec::with_capacity(self.request.tools.len());
        for tool in &self.request.tools {
            match &tool.kind {
                ToolKind::Function { .. } => {}
                ToolKind::Custom { format } if !self.quirks.custom_tools => {
                    if format.is_some() {
                        let reason = "the upstream does not hold to a grammar";
                        self.losses.hint(format_args!("{}.format", tool.place), reason);
                    }
                    back.custom.push((*tool.name).into());
                }
                ToolKind::Custom { .. } => {}
                ToolKind::Server { definition, .. } if definition.origin == self.own => {}
                ToolKind::Server { ability: Some(Ability::WebSearch), .. } if self.quirks.web_search => {}
                ToolKind::Server { definition, .. } => {
                    let reason = format!("the upstream has no tool `{}`", definition.name);
                    let weight = if self.forces(&tool.name) { Weight::Meaning } else { Weight::Hint };
                    self.losses.add(tool.place, reason, weight);
                    continue;
                }
            }
            let name = name(&tool.name, self.quirks.name_most);
            if let Cow::Owned(sent) = &name {
                back.names.push((sent.as_str().into(), (*tool.name).into()));
            }
            fitted.push(FittedTool { tool, name, description: self.description(tool), strict: self.strict(tool) });
        }
        fitted
    }

    fn description(&mut self, tool: &'r Tool<'r>) -> Option<&'r str> {
        let (text, most) = (tool.description.as_deref()?, self.quirks.description_most);
        if text.len() > most {
            let reason = format!("the upstream takes at most {most} bytes: the beginning is sent");
            self.losses.hint(format_args!("{}.description", tool.place), reason);
        }
        Some(&text[..text.floor_char_boundary(most)])
    }

    fn strict(&mut self, tool: &Tool<'_>) -> bool {
        let ToolKind::Function { schema, strict: Some(true) } = &tool.kind else { return false };
        let can = self.holds_to(schema.as_ref());
        if !can {
            self.losses.hint(format_args!("{}.strict", tool.place), "the upstream cannot hold to this schema");
        }
        can
    }

    /// Whether the request wants that tool to be called.
    fn forces(&self, tool: &str) -> bool {
        match &self.request.tool_choice {
            Some(ToolChoice::Tool(name)) => name == tool,
            Some(ToolChoice::Among { names, required }) => *required && names.iter().any(|name| name == tool),
            _ => false,
        }
    }

    pub(super) fn tool_choice(
        &mut self,
        mut tools: Vec<FittedTool<'r>>,
    ) -> (Vec<FittedTool<'r>>, Option<ToolChoice<'r>>) {
        let mut choice = match &self.request.tool_choice {
            Some(ToolChoice::Among { names, required }) => {
                tools.retain(|fitted| names.contains(&fitted.tool.name));
                if *required { ToolChoice::Any } else { ToolChoice::Auto }
            }
            Some(ToolChoice::Tool(tool)) => ToolChoice::Tool(name(tool, self.quirks.name_most)),
            Some(choice) => choice.clone(),
            None => return (tools, None),
        };
        if let (ToolChoice::Tool(sent), Some(ToolChoice::Tool(asked))) = (&choice, &self.request.tool_choice)
            && self.losses.refused().is_none()
            && !tools.iter().any(|fitted| fitted.name == *sent)
        {
            self.losses.refuse("tool_choice", format!("there is no tool `{asked}` to call"));
        }
        let forced = matches!(choice, ToolChoice::Any | ToolChoice::Tool(_));
        match self.quirks.tool_choice {
            Choices::Ignored | Choices::Unforced if forced => {
                self.losses.refuse("tool_choice", "the upstream cannot be made to call a tool: use `auto`");
            }
            Choices::Softened if forced => {
                self.losses.hint("tool_choice", "the upstream cannot be made to call a tool: `auto` is sent");
                choice = ToolChoice::Auto;
            }
            // Nobody calls a tool that it is not told of.
            Choices::Ignored if choice == ToolChoice::None => return (Vec::new(), None),
            Choices::Ignored => return (tools, None),
            _ => {}
        }
        if tools.is_empty() {
            if forced && self.losses.refused().is_none() {
                self.losses.refuse("tool_choice", "there is no tool to call");
            }
            return (tools, None);
        }
        (tools, Some(choice))
    }

    pub(super) fn parallel_tools(&mut self, has_tools: bool) -> Option<bool> {
        match self.request.parallel_tools {
            Some(false) if !has_tools => None,
            Some(false) if self.quirks.parallel_tools => Some(false),
            Some(false) => {
                self.losses.hint(self.path(Field::Parallel), "the upstream may call several tools at once");
                None
            }
            _ => None,
        }
    }
}
