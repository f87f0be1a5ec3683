//! Who asks: session, agent and project, from what clients say of themselves.
//!
//! All of it is the client's word: good for grouping and routing, never for rights. What costs a look into the body is
//! looked at when it is asked for.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::fmt;

use http1::RequestHead;
use memchr::memmem;
use percent_encoding::percent_decode;
use serde::Deserialize;
use wire::envelope::Envelope;

/// Bytes of a name that are believed to be one.
const NAME: usize = 128;
/// Where Claude Code marks the requests of agents: at the beginning of what the operator says.
const MARK_WITHIN: usize = 1024;
/// What an agent's own prompt can hold to name its type.
const TYPE_MARK: &[u8] = b"agent-type=";

/// How the prompts of Claude Code's built-in agents begin. Nobody promises that they stay so.
const PROMPTS: &[(&[u8], &str)] = &[
    (b"You are a file search specialist for Claude Code", "Explore"),
    (b"You are a software architect and planning specialist", "Plan"),
    (b"You are an agent for Claude Code", "general-purpose"),
];

/// Whether the type of an agent is guessed where nothing names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Guess {
    /// It stays unknown.
    #[default]
    Never,
    /// By the beginning of its prompt.
    ByPrompt,
}

/// What a request says of its sender.
#[derive(Default)]
pub struct Party<'a> {
    /// The client's session.
    pub session: Option<Cow<'a, str>>,
    /// The agent within the session.
    pub agent: Option<&'a str>,
    /// The agent that called this one.
    pub parent_agent: Option<&'a str>,
    /// The project, as `cco run` or the user names it; what stands in the header as in a URL is read.
    pub project: Option<Cow<'a, str>>,
    /// The one call of `cco run` that it belongs to.
    pub run: Option<&'a str>,
    /// The user's word on the type of the agent.
    cco_agent: Option<&'a str>,
    /// The client's word on it.
    agent_type: Option<&'a str>,
    /// `subagent`, `main` or whatever else.
    class: Option<&'a str>,
    body: Option<(&'a [u8], &'a Envelope)>,
    guess: Guess,
    found_type: OnceCell<Option<Cow<'a, str>>>,
    found_sub: OnceCell<bool>,
}

impl fmt::Debug for Party<'_> {
    // Never the body.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Party(session {:?}, agent {:?}, project {:?})", self.session, self.agent, self.project)
    }
}

impl<'a> Party<'a> {
    /// From the head and, where it is at hand and readable, the body.
    pub fn of(head: &'a RequestHead, body: Option<(&'a [u8], &'a Envelope)>, guess: Guess) -> Self {
        let mut party = Self { body, guess, ..Self::default() };
        let (mut session, mut other_session, mut parent, mut project) = (None, None, None, None);
        for field in head.fields() {
            // What all these names begin with, and hardly any other does.
            if !matches!(field.name.first(), Some(b'x' | b'X' | b's' | b'S')) {
                continue;
            }
            let slot = match field.name.len() {
                9 if field.is("x-cco-run") => &mut party.run,
                10 if field.is("session-id") || field.is("session_id") => &mut other_session,
                11 if field.is("x-cco-agent") => &mut party.cco_agent,
                // OpenCode, with providers of others and with its own.
                12 if field.is("x-session-id") => &mut other_session,
                13 if field.is("x-cco-project") => {
                    project = project.or(name_of(field.value));
                    continue;
                }
                18 if field.is("x-opencode-session") => &mut other_session,
                19 if field.is("x-parent-session-id") => &mut parent,
                22 if field.is("x-claude-code-agent-id") => &mut party.agent,
                24 if field.is("x-claude-code-session-id") => &mut session,
                24 if field.is("x-claude-code-agent-type") => &mut party.agent_type,
                27 if field.is("x-claude-code-request-class") => &mut party.class,
                29 if field.is("x-claude-code-parent-agent-id") => &mut party.parent_agent,
                _ => continue,
            };
            let value = std::str::from_utf8(field.value).ok();
            *slot = slot.or(value.filter(|value| (1..=NAME).contains(&value.len())));
        }
        // Names that many programs use come after the one that only Claude Code does.
        session = session.or(other_session);
        if parent.is_some() {
            // An agent of OpenCode has a session of its own, within the one that called it.
            party.agent = party.agent.or(session).or(parent);
            session = parent;
        }
        party.project = project;
        party.session = session.map(Cow::Borrowed).or_else(|| session_of(party.metadata()?));
        party
    }

    fn metadata(&self) -> Option<&'a [u8]> {
        let (body, envelope) = self.body?;
        body.get(envelope.metadata_span.clone()?)
    }

    fn system(&self) -> Option<&'a [u8]> {
        let (body, envelope) = self.body?;
        body.get(envelope.system_span.clone()?)
    }

    /// Whether an agent asks that the client's main loop started.
    pub fn is_sub_agent(&self) -> bool {
        *self.found_sub.get_or_init(|| {
            self.agent.is_some()
                || self.class == Some("subagent")
                || self.system().is_some_and(|system| {
                    memmem::find(&system[..system.len().min(MARK_WITHIN)], b"cc_is_subagent=true").is_some()
                })
                || self.guess == Guess::ByPrompt && self.by_prompt().is_some()
        })
    }

    /// The type of the agent: as the user names it in a header or in the body, as the client does, as a mark in the
    /// agent's prompt does; a guess at last, where it is wanted.
    pub fn agent_type(&self) -> Option<&str> {
        let find = || {
            let said = self.cco_agent.map(Cow::Borrowed).or_else(|| self.in_body());
            // Of all agents that users define the client says no more than that.
            let client = self.agent_type.filter(|name| *name != "custom").map(Cow::Borrowed);
            said.or(client)
                .or_else(|| self.by_mark().map(Cow::Borrowed))
                .or(self.agent_type.map(Cow::Borrowed))
                .or_else(|| (self.guess == Guess::ByPrompt).then(|| self.by_prompt())?.map(Cow::Borrowed))
        };
        self.found_type.get_or_init(find).as_deref()
    }

    fn in_body(&self) -> Option<Cow<'a, str>> {
        let (_, envelope) = self.body?;
        let named = |name: &str| (1..=NAME).contains(&name.len());
        if let Some(name) = envelope.agent_type.as_deref().filter(|name| named(name)) {
            return Some(Cow::Borrowed(name));
        }
        #[derive(Deserialize)]
        struct Metadata<'a> {
            #[serde(borrow, default)]
            agent_type: Option<Cow<'a, str>>,
        }
        let metadata = self.metadata()?;
        memmem::find(metadata, b"agent_type")?;
        serde_json::from_slice::<Metadata<'a>>(metadata).ok()?.agent_type.filter(|name| named(name))
    }

    /// The name behind the last mark: the agent's own prompt is the last part of what the operator says.
    fn by_mark(&self) -> Option<&'a str> {
        let system = self.system()?;
        // Nearly always there is none, and forwards that is known much sooner.
        let first = memmem::find(system, TYPE_MARK)?;
        let last = first + memmem::rfind(&system[first..], TYPE_MARK)?;
        let name = &system[last + TYPE_MARK.len()..];
        let fits = |b: &u8| b.is_ascii_alphanumeric() || b"-_.:".contains(b);
        let name = &name[..name.iter().take(NAME).take_while(|b| fits(b)).count()];
        std::str::from_utf8(name).ok().filter(|name| !name.is_empty())
    }

    fn by_prompt(&self) -> Option<&'static str> {
        let system = self.system()?;
        PROMPTS.iter().find(|(prompt, _)| memmem::find(system, prompt).is_some()).map(|(_, name)| *name)
    }
}

/// A name in the value of a header, in which other than visible ASCII may be written as in a URL. What is no such writing
/// of a text that can be shown is the name itself.
fn name_of(value: &[u8]) -> Option<Cow<'_, str>> {
    let named = |name: &str| (1..=NAME).contains(&name.len());
    let written = std::str::from_utf8(value).ok()?;
    if value.len() <= 3 * NAME && memchr::memchr(b'%', value).is_some() {
        let name = percent_decode(value).decode_utf8().ok();
        if let Some(name) = name.filter(|name| named(name) && !name.contains(char::is_control)) {
            return Some(name);
        }
    }
    named(written).then_some(Cow::Borrowed(written))
}

/// Claude Code writes its session into `metadata.user_id`: since 2.1 as JSON in a string, before that as
/// `user_<hash>_account_<id>_session_<uuid>`.
fn session_of(metadata: &[u8]) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Metadata<'a> {
        #[serde(borrow)]
        user_id: Option<Cow<'a, str>>,
    }
    #[derive(Deserialize)]
    struct User {
        session_id: Option<String>,
    }
    let user_id = serde_json::from_slice::<Metadata<'_>>(metadata).ok()?.user_id?;
    if user_id.starts_with('{') {
        let session = serde_json::from_str::<User>(&user_id).ok()?.session_id;
        return session.filter(|s| (1..=NAME).contains(&s.len())).map(Cow::Owned);
    }
    let (_, session) = user_id.rsplit_once("_session_")?;
    if !(1..=NAME).contains(&session.len()) {
        return None;
    }
    Some(match user_id {
        Cow::Borrowed(whole) => Cow::Borrowed(&whole[whole.len() - session.len()..]),
        Cow::Owned(_) => Cow::Owned(session.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;
    use http1::{Limits, Scan};

    fn with<R>(fields: &str, body: &str, guess: Guess, ask: impl FnOnce(Party<'_>) -> R) -> R {
        let text = format!("POST /v1/messages HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
        let head = RequestHead::take(&mut BytesMut::from(&*text), &mut Scan::default(), &Limits::default());
        let (head, envelope) = (head.unwrap().unwrap(), Envelope::read(body.as_bytes()).unwrap());
        ask(Party::of(&head, Some((body.as_bytes(), &envelope)), guess))
    }

    /// Type of the agent, and whether it is one.
    #[track_caller]
    fn check(fields: &str, body: &str, guess: Guess, want: (Option<&str>, bool)) {
        with(fields, body, guess, |party| {
            assert_eq!((party.agent_type(), party.is_sub_agent()), want, "{fields} {body}");
        });
    }

    #[test]
    fn headers_name_session_agents_and_project() {
        let fields = "X-Claude-Code-Session-Id: s\r\nx-claude-code-agent-id: a\r\nx-claude-code-parent-agent-id: p\r\n\
             x-cco-project: cco\r\nx-cco-run: 1f-2\r\n";
        with(fields, r#"{"metadata":{"user_id":"user_x_account__session_other"}}"#, Guess::Never, |party| {
            assert_eq!((party.session.as_deref(), party.agent), (Some("s"), Some("a")));
            assert_eq!(
                (party.parent_agent, party.project.as_deref(), party.run),
                (Some("p"), Some("cco"), Some("1f-2"))
            );
        });
        let long = "%C3%A4".repeat(NAME / 2);
        for (written, want) in [
            ("my%20notes", "my notes"),
            ("caf%C3%A9", "caf\u{e9}"),
            (&*long, &*"\u{e4}".repeat(NAME / 2)),
            ("100%", "100%"),
            ("%1B[31m", "%1B[31m"),
            ("%FF", "%FF"),
        ] {
            with(&format!("x-cco-project: {written}\r\n"), "{}", Guess::Never, |party| {
                assert_eq!(party.project.as_deref(), Some(want), "{written}");
            });
        }
        with(&format!("x-cco-project: {}x\r\n", long), "{}", Guess::Never, |party| assert_eq!(party.project, None));
        with("session-id: codex\r\n", "{}", Guess::Never, |party| {
            assert_eq!(party.session.as_deref(), Some("codex"));
        });
        for name in ["X-Session-Id", "x-opencode-session"] {
            with(&format!("x-session-affinity: ses_a\r\n{name}: ses_a\r\n"), "{}", Guess::Never, |party| {
                assert_eq!((party.session.as_deref(), party.agent), (Some("ses_a"), None), "{name}");
                assert!(!party.is_sub_agent());
            });
            with(&format!("{name}: ses_b\r\nx-parent-session-id: ses_a\r\n"), "{}", Guess::Never, |party| {
                assert_eq!((party.session.as_deref(), party.agent), (Some("ses_a"), Some("ses_b")), "{name}");
                assert!(party.is_sub_agent());
            });
        }
        with("x-session-id: other\r\nx-claude-code-session-id: s\r\n", "{}", Guess::Never, |party| {
            assert_eq!(party.session.as_deref(), Some("s"), "a name that many use comes after one that only one does");
        });
        with("x-parent-session-id: ses_a\r\n", "{}", Guess::Never, |party| {
            assert_eq!(party.session.as_deref(), Some("ses_a"));
            assert!(party.is_sub_agent(), "also where it does not name itself");
        });
        with(&format!("session-id: {}\r\n", "x".repeat(300)), "{}", Guess::Never, |party| {
            assert_eq!(party.session, None, "no name is as long as that");
        });
    }

    #[test]
    fn metadata_names_the_session_of_clients_without_headers() {
        let session = |body: &str| with("", body, Guess::Never, |party| party.session.map(Cow::into_owned));
        assert_eq!(session(r#"{"metadata":{"user_id":"user_ab_account__session_1-2"}}"#).as_deref(), Some("1-2"));
        assert_eq!(session(r#"{"metadata":{"user_id":"us\u0065r_session_1-2"}}"#).as_deref(), Some("1-2"));
        let json = r#"{"metadata":{"user_id":"{\"device_id\":\"d\",\"session_id\":\"1-2\"}"}}"#;
        assert_eq!(session(json).as_deref(), Some("1-2"));
        for none in [
            r#"{"metadata":{"user_id":"me"}}"#,
            r#"{"metadata":{"user_id":"x_session_"}}"#,
            r#"{"metadata":{}}"#,
            r#"{"metadata":7}"#,
            "{}",
            r#"{"metadata":{"user_id":"{"}}"#,
        ] {
            assert_eq!(session(none), None, "{none}");
        }
    }

    #[test]
    fn the_type_of_an_agent_is_what_the_surest_source_says() {
        let sub = "x-claude-code-agent-id: a\r\n";
        let marked = r#"{"system":[{"text":"cc_version=2; cc_is_subagent=true;"},{"text":"agent-type=old"},{"text":"agent-type=code-scout\nFind."}]}"#;
        check(
            &format!("{sub}x-cco-agent: scout\r\nx-claude-code-agent-type: Plan\r\n"),
            marked,
            Guess::Never,
            (Some("scout"), true),
        );
        check(
            &format!("{sub}x-claude-code-agent-type: Plan\r\n"),
            r#"{"agent_type":"mine"}"#,
            Guess::Never,
            (Some("mine"), true),
        );
        check("", r#"{"metadata":{"agent_type":"mi\u006ee"}}"#, Guess::Never, (Some("mine"), false));
        check(&format!("{sub}x-claude-code-agent-type: Plan\r\n"), marked, Guess::Never, (Some("Plan"), true));
        check(&format!("{sub}x-claude-code-agent-type: custom\r\n"), marked, Guess::Never, (Some("code-scout"), true));
        check(&format!("{sub}x-claude-code-agent-type: custom\r\n"), "{}", Guess::Never, (Some("custom"), true));
        check("", marked, Guess::Never, (Some("code-scout"), true));
        check("", r#"{"system":"agent-type=\u00e4"}"#, Guess::Never, (None, false));
        check("", r#"{"messages":[{"content":"agent-type=no cc_is_subagent=true"}]}"#, Guess::Never, (None, false));
        check("x-claude-code-request-class: subagent\r\n", "{}", Guess::Never, (None, true));
        check("x-claude-code-request-class: main\r\n", "{}", Guess::Never, (None, false));
    }

    #[test]
    fn the_built_in_agents_are_guessed_only_where_it_is_wanted() {
        for (prompt, want) in [
            ("You are a file search specialist for Claude Code, Anthropic's official CLI.", "Explore"),
            ("You are a software architect and planning specialist for Claude Code.", "Plan"),
            ("You are an agent for Claude Code, Anthropic's official CLI for Claude.", "general-purpose"),
        ] {
            let body = format!(r#"{{"system":[{{"type":"text","text":"x"}},{{"type":"text","text":"{prompt}"}}]}}"#);
            check("", &body, Guess::Never, (None, false));
            check("", &body, Guess::ByPrompt, (Some(want), true));
        }
        let main = r#"{"system":"You are Claude Code, Anthropic's official CLI for Claude."}"#;
        check("", main, Guess::ByPrompt, (None, false));
    }
}
