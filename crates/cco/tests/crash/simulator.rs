//! `cco simulate` as a process of its own, and the account of its journal.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;

use crate::common::{binary, soon};

/// The header that names an exchange: the gateway records it as the session.
pub(crate) const TAG: &str = "x-claude-code-session-id";

/// A running simulator; it is killed when this is dropped.
pub(crate) struct Simulator {
    pub(crate) addr: SocketAddr,
    journal: PathBuf,
    child: Child,
}

/// What the simulator knows of one exchange.
#[derive(Debug, Default)]
pub(crate) struct Arrived {
    /// How often its request arrived.
    pub(crate) times: u32,
    /// How the answers ended.
    pub(crate) ends: Vec<String>,
}

impl Simulator {
    pub(crate) async fn start(folder: &Path) -> Self {
        let journal = folder.join("simulator.jsonl");
        let mut child = binary().args(["simulate", "--journal"]).arg(&journal).spawn().unwrap();
        let mut line = String::new();
        soon(BufReader::new(child.stdout.take().unwrap()).read_line(&mut line)).await.unwrap();
        let addr = line.trim().strip_prefix("simulator listening on http://").expect(&line).parse().unwrap();
        Self { addr, journal, child }
    }

    /// What arrived so far, by tag.
    pub(crate) fn arrived(&self) -> HashMap<String, Arrived> {
        let text = std::fs::read_to_string(&self.journal).unwrap_or_default();
        let (mut tags, mut arrived) = (HashMap::new(), HashMap::<String, Arrived>::new());
        // The last line may still be under way.
        for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            let line: Value = serde_json::from_str(line).unwrap_or_else(|why| panic!("{why}: {line}"));
            if let Some(end) = line["end"].as_str() {
                if let Some(tag) = tags.get(&line["seq"].as_u64()) {
                    arrived.entry(String::clone(tag)).or_default().ends.push(end.to_owned());
                }
                continue;
            }
            let headers = line["headers"].as_array().unwrap();
            let tag = headers.iter().find(|field| field[0].as_str().unwrap().eq_ignore_ascii_case(TAG));
            if let Some(tag) = tag.and_then(|field| field[1].as_str()) {
                tags.insert(line["seq"].as_u64(), tag.to_owned());
                arrived.entry(tag.to_owned()).or_default().times += 1;
            }
        }
        arrived
    }

    /// Ends it in order: its journal is whole.
    pub(crate) async fn stop(&mut self) {
        let pid = self.child.id().unwrap().to_string();
        assert!(std::process::Command::new("kill").args(["-s", "TERM", &pid]).status().unwrap().success());
        assert!(soon(self.child.wait()).await.unwrap().success());
    }
}
