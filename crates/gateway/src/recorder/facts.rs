//! Who asks: session, agent and project, from the headers that clients send and the metadata that older ones put in.

use http1::RequestHead;
use ledger::record::Parties;
use serde::Deserialize;
use wire::envelope::Envelope;

/// What a request says of its sender. All of it is the client's word: good for grouping and routing, never for rights.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// The client's session.
    pub session: Option<Box<str>>,
    /// The agent within the session.
    pub agent: Option<Box<str>>,
    /// The agent that called this one.
    pub parent_agent: Option<Box<str>>,
    /// What kind of agent.
    pub agent_type: Option<Box<str>>,
    /// The project, as `cco run` or the user names it.
    pub project: Option<Box<str>>,
}

impl Facts {
    /// From the headers; what they leave open, from `metadata.user_id`.
    pub fn of(head: &RequestHead, body: Option<(&[u8], &Envelope)>) -> Self {
        let text = |name: &str| {
            let value = std::str::from_utf8(head.get(name)?).ok()?.trim();
            (!value.is_empty()).then(|| value.into())
        };
        let mut facts = Self {
            session: text("x-claude-code-session-id"),
            agent: text("x-claude-code-agent-id"),
            parent_agent: text("x-claude-code-parent-agent-id"),
            agent_type: text("x-cco-agent").or_else(|| text("x-claude-code-agent-type")),
            project: text("x-cco-project"),
        };
        if facts.session.is_none()
            && let Some((body, envelope)) = body
        {
            facts.session = envelope.metadata_span.clone().and_then(|span| session_of(body.get(span)?));
        }
        facts
    }

    /// Puts what is known into a record's beginning.
    pub fn fill(self, parties: &mut Parties) {
        parties.session = self.session;
        parties.agent = self.agent;
        parties.parent_agent = self.parent_agent;
        parties.agent_type = self.agent_type;
        parties.project = self.project;
    }
}

#[derive(Deserialize)]
struct Metadata {
    user_id: Option<String>,
}

#[derive(Deserialize)]
struct User {
    session_id: Option<String>,
}

/// Claude Code writes its session into `metadata.user_id`: since 2.1 as JSON in a string, before that as
/// `user_<hash>_account_<id>_session_<uuid>`.
fn session_of(metadata: &[u8]) -> Option<Box<str>> {
    let user_id = serde_json::from_slice::<Metadata>(metadata).ok()?.user_id?;
    if user_id.starts_with('{') {
        return serde_json::from_str::<User>(&user_id).ok()?.session_id.filter(|s| !s.is_empty()).map(Into::into);
    }
    let (_, session) = user_id.rsplit_once("_session_")?;
    (!session.is_empty()).then(|| session.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;
    use http1::{Limits, Scan};

    fn facts(fields: &str, body: &str) -> Facts {
        let text = format!("POST /v1/messages HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
        let head = RequestHead::take(&mut BytesMut::from(&*text), &mut Scan::default(), &Limits::default());
        let envelope = Envelope::read(body.as_bytes()).unwrap();
        Facts::of(&head.unwrap().unwrap(), Some((body.as_bytes(), &envelope)))
    }

    #[test]
    fn headers_name_session_and_agents() {
        let found = facts(
            "X-Claude-Code-Session-Id: s\r\nx-claude-code-agent-id: a\r\nx-claude-code-parent-agent-id: p\r\n\
             x-cco-agent: scout\r\nx-claude-code-agent-type: custom\r\nx-cco-project: cco\r\n",
            r#"{"metadata":{"user_id":"user_x_account__session_other"}}"#,
        );
        let some = |text: &str| Some(text.into());
        let want = Facts {
            session: some("s"),
            agent: some("a"),
            parent_agent: some("p"),
            agent_type: some("scout"),
            project: some("cco"),
        };
        assert_eq!(found, want);
    }

    #[test]
    fn metadata_names_the_session_of_clients_without_headers() {
        let session = |body: &str| facts("", body).session;
        assert_eq!(session(r#"{"metadata":{"user_id":"user_ab_account__session_1-2"}}"#).as_deref(), Some("1-2"));
        let json = r#"{"metadata":{"user_id":"{\"device_id\":\"d\",\"session_id\":\"1-2\"}"}}"#;
        assert_eq!(session(json).as_deref(), Some("1-2"));
        for none in [
            r#"{"metadata":{"user_id":"me"}}"#,
            r#"{"metadata":{}}"#,
            r#"{"metadata":7}"#,
            "{}",
            r#"{"metadata":{"user_id":"{"}}"#,
        ] {
            assert_eq!(session(none), None, "{none}");
        }
    }
}
