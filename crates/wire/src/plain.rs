//! Parts as plain text, for protocols that carry text alone in some places.

use std::borrow::Cow;

use crate::protocol::Protocol;
use crate::request::{Content, Document, Part, Source, ToolResult};

/// The text of a part, if it is that.
pub(crate) fn text<'p>(content: &'p Content<'_>) -> Option<&'p str> {
    if let Content::Text(text) = content { Some(&text.text) } else { None }
}

/// The text by which the model declined, if it is that.
pub(crate) fn refusal<'p>(content: &'p Content<'_>) -> Option<&'p str> {
    if let Content::Refusal(text) = content { Some(text) } else { None }
}

/// The text of what the model thought, if it is that.
pub(crate) fn thought<'p>(content: &'p Content<'_>) -> Option<&'p str> {
    if let Content::Thinking(thinking) = content { Some(&thinking.text) } else { None }
}

/// The text that a part comes to, where it is text or made of it. What only the protocol `own` knows is none.
pub(crate) fn as_text<'p>(content: &'p Content<'_>, own: Protocol) -> Option<Cow<'p, str>> {
    match content {
        Content::Text(text) => Some(Cow::Borrowed(&text.text)),
        Content::Refusal(text) => Some(Cow::Borrowed(text)),
        Content::Document(Document { source, title, context, .. }) => {
            let inner: Cow<'_, str> = match source {
                Source::Text(text) => Cow::Borrowed(text),
                Source::Parts(parts) => {
                    let texts: Option<Vec<_>> = parts.iter().map(|part| as_text(&part.content, own)).collect();
                    texts?.join("\n\n").into()
                }
                _ => return None,
            };
            let head = [title.as_deref(), context.as_deref()];
            let head = head.into_iter().flatten().chain([&*inner]);
            Some(join(head, "\n").into_owned().into())
        }
        Content::Extra(extra) if extra.origin == own => None,
        // What has no counterpart is named as a loss, or refused.
        Content::Extra(_) | Content::Thinking(_) | Content::Call(_) | Content::Result(_) => Some(Cow::Borrowed("")),
        Content::Image(_) => None,
    }
}

/// Texts as one; those that are empty are left out.
pub(crate) fn join<'t>(texts: impl Iterator<Item = &'t str>, with: &str) -> Cow<'t, str> {
    let mut joined = Cow::Borrowed("");
    for text in texts.filter(|text| !text.is_empty()) {
        if joined.is_empty() {
            joined = Cow::Borrowed(text);
        } else {
            let joined = joined.to_mut();
            joined.push_str(with);
            joined.push_str(text);
        }
    }
    joined
}

/// The text of a result, for protocols whose results carry nothing else; what is no text is added to `attached`, to
/// follow in a message of the user's, with a caption that says where it belongs.
pub(crate) fn result<'p>(
    result: &'p ToolResult<'_>,
    own: Protocol,
    attached: &mut Vec<(String, &'p Part<'p>)>,
) -> String {
    let (mut lines, mut images) = (Vec::new(), 0);
    for part in &result.content {
        match as_text(&part.content, own) {
            Some(text) if text.is_empty() => {}
            Some(text) => lines.push(text),
            None => {
                images += 1;
                let what = if matches!(part.content, Content::Image(_)) { "image" } else { "document" };
                let line = format!("[{what} {images} of this result follows in the next user message]");
                lines.push(line.into());
                attached.push((format!("[{what} {images} from tool result {}]", result.id), part));
            }
        }
    }
    failed(lines.join("\n"), result)
}

/// The text of a result, marked where the tool failed: no other protocol than Anthropic's has a field for it.
pub(crate) fn failed(text: String, result: &ToolResult<'_>) -> String {
    if result.is_error { format!("[tool error] {text}") } else { text }
}
