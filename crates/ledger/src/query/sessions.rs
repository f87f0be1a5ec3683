//! Sessions and the agents in them, as a tree.

use std::collections::HashMap;

use super::{Group, Key, Totals};

/// Levels of agents under agents; what is deeper stands beside the others.
const DEEPEST: usize = 32;

/// The last sessions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sessions {
    /// The one that something was recorded of last is the first.
    pub sessions: Vec<Session>,
    /// Over everything that is meant, also the sessions that are not listed.
    pub totals: Totals,
    /// Whether there are more than these.
    pub more: bool,
}

/// A session.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Session {
    /// Its id; empty for everything that belongs to none.
    pub id: String,
    /// The projects that it worked on.
    pub projects: Vec<String>,
    /// Its sums, with all its agents.
    pub totals: Totals,
    /// When the first of its exchanges began, in microseconds since 1970.
    pub first_us: i64,
    /// When the last of them began.
    pub last_us: i64,
    /// Its agents; those that were called by one of them stand under it. The main one has no id.
    pub agents: Vec<Agent>,
}

/// An agent of a session.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Agent {
    /// Its id; empty for the main one.
    pub id: String,
    /// Its kind, where it is known.
    pub kind: String,
    /// Who called it, where that is known.
    pub parent: String,
    /// Its own sums, without those of the agents that it called.
    pub totals: Totals,
    /// When the first of its exchanges began, in microseconds since 1970.
    pub first_us: i64,
    /// When the last of them began.
    pub last_us: i64,
    /// The agents that it called.
    pub agents: Vec<Agent>,
}

impl Sessions {
    /// What sums are needed for each of to build the tree.
    pub(crate) const KEYS: [Key; 5] = [Key::Session, Key::AgentId, Key::ParentAgent, Key::AgentType, Key::Project];

    /// From the sums for these keys, in the order of these ids.
    pub(crate) fn build(ids: &[String], groups: impl IntoIterator<Item = Group>) -> Vec<Session> {
        let mut found: HashMap<String, (Session, HashMap<String, Agent>)> = HashMap::new();
        for group in groups {
            let Ok([id, agent, parent, kind, project]) = <[String; 5]>::try_from(group.keys) else { continue };
            let (session, agents) = found.entry(id).or_default();
            if agents.is_empty() {
                session.first_us = i64::MAX;
            }
            session.totals.add(&group.totals);
            session.first_us = session.first_us.min(group.first_us);
            session.last_us = session.last_us.max(group.last_us);
            if !project.is_empty() && !session.projects.contains(&project) {
                session.projects.push(project);
            }
            let fresh = || Agent { id: agent.clone(), first_us: i64::MAX, ..Agent::default() };
            let agent = agents.entry(agent.clone()).or_insert_with(fresh);
            agent.totals.add(&group.totals);
            agent.first_us = agent.first_us.min(group.first_us);
            agent.last_us = agent.last_us.max(group.last_us);
            for (known, said) in [(&mut agent.kind, kind), (&mut agent.parent, parent)] {
                if known.is_empty() {
                    *known = said;
                }
            }
        }
        let of = |id: &String| {
            let (mut session, agents) = found.remove(id)?;
            session.id.clone_from(id);
            session.projects.sort_unstable();
            session.agents = tree(agents);
            Some(session)
        };
        ids.iter().filter_map(of).collect()
    }
}

/// Puts agents under those who called them; the first to begin comes first.
fn tree(mut agents: HashMap<String, Agent>) -> Vec<Agent> {
    let mut under: HashMap<String, Vec<String>> = HashMap::new();
    let mut roots = Vec::new();
    for (id, agent) in &agents {
        if has_a_place(&agents, agent) {
            under.entry(agent.parent.clone()).or_default().push(id.clone());
        } else {
            roots.push(id.clone());
        }
    }
    grown(&mut agents, &under, &roots)
}

/// Whether those who called it, one after the other, come to an end, and soon.
fn has_a_place(agents: &HashMap<String, Agent>, agent: &Agent) -> bool {
    let mut parent = &agent.parent;
    for level in 0..DEEPEST {
        match agents.get(parent) {
            Some(next) if !parent.is_empty() => parent = &next.parent,
            _ => return level > 0,
        }
    }
    false
}

fn grown(agents: &mut HashMap<String, Agent>, under: &HashMap<String, Vec<String>>, ids: &[String]) -> Vec<Agent> {
    let mut grown: Vec<Agent> = Vec::with_capacity(ids.len());
    for id in ids {
        let Some(mut agent) = agents.remove(id) else { continue };
        agent.agents = under.get(id).map_or_else(Vec::new, |ids| self::grown(agents, under, ids));
        grown.push(agent);
    }
    grown.sort_unstable_by(|a, b| (a.first_us, &a.id).cmp(&(b.first_us, &b.id)));
    grown
}

#[cfg(test)]
mod tests {
    use super::super::Sums;
    use super::*;

    /// Session, agent, parent, kind, project, and when it began.
    fn group(keys: [&str; 5], first_us: i64) -> Group {
        let paid = Sums { requests: 1, ..Sums::default() };
        let totals = Totals { paid, ..Totals::default() };
        Group { keys: keys.map(String::from).into(), totals, first_us, last_us: first_us + 5, exact: true }
    }

    fn shown(agents: &[Agent]) -> String {
        let one = |agent: &Agent| {
            let under = if agent.agents.is_empty() { String::new() } else { format!("({})", shown(&agent.agents)) };
            format!("{}{under}", if agent.id.is_empty() { "main" } else { &agent.id })
        };
        agents.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    #[track_caller]
    fn check_tree(pairs: &[(&str, &str)], want: &str) {
        let groups = pairs.iter().zip(1..).map(|((agent, parent), n)| group(["s", agent, parent, "", ""], n));
        let sessions = Sessions::build(&["s".into()], groups);
        assert_eq!(shown(&sessions[0].agents), want);
        assert_eq!(sessions[0].totals.all().requests, pairs.len() as i64);
    }

    #[test]
    fn agents_stand_under_those_who_called_them() {
        check_tree(&[("", ""), ("a", ""), ("b", "a"), ("c", "b"), ("d", "a")], "main a(b(c) d)");
        check_tree(&[("b", "a"), ("a", "gone")], "a(b)");
        check_tree(&[("a", "a")], "a");
        check_tree(&[("a", "b"), ("b", "a"), ("c", "b")], "a b c");
    }

    #[test]
    fn a_chain_of_agents_that_is_too_long_is_cut_and_none_is_lost() {
        let names: Vec<String> = (0..2000).map(|n| format!("n{n:04}")).collect();
        let pairs: Vec<(&str, &str)> =
            names.iter().enumerate().map(|(n, name)| (&**name, if n == 0 { "" } else { &*names[n - 1] })).collect();
        let groups = pairs.iter().zip(1..).map(|((agent, parent), n)| group(["s", agent, parent, "", ""], n));
        let sessions = Sessions::build(&["s".into()], groups);
        assert_eq!(shown(&sessions[0].agents).matches('n').count(), 2000);
    }

    #[test]
    fn what_is_said_of_a_session_in_many_groups_comes_together() {
        let groups = [
            group(["s", "", "", "", "web"], 10),
            group(["s", "a", "", "", "api"], 20),
            group(["s", "a", "m", "Explore", "web"], 5),
            group(["t", "", "", "", ""], 1),
            group(["unasked", "", "", "", ""], 1),
        ];
        let sessions = Sessions::build(&["t".into(), "s".into(), "u".into()], groups);
        assert_eq!(sessions.iter().map(|s| &*s.id).collect::<Vec<_>>(), ["t", "s"]);
        let s = &sessions[1];
        assert_eq!((s.first_us, s.last_us, s.totals.all().requests), (5, 25, 3));
        assert_eq!(s.projects, ["api", "web"]);
        assert_eq!((&*s.agents[0].id, &*s.agents[0].kind, &*s.agents[0].parent), ("a", "Explore", "m"));
        assert_eq!((s.agents[0].first_us, s.agents[0].last_us, s.agents[0].totals.all().requests), (5, 25, 2));
    }
}
