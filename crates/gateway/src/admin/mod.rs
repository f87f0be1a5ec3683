//! What we answer ourselves: the state, the metrics, the ledger, what happens at the moment, and the probes that clients
//! send to warm a connection.

mod access;
pub mod ask;
pub mod change;
mod ledger;
mod metrics;
mod prometheus;
mod shape;
mod state;
mod subscribe;
mod upstreams;

use http1::RequestHead;
use serde_json::json;

use crate::client::peer::Peer;
use crate::client::respond::Answer;
use crate::error::{ErrorKind, Refusal, Retry};
use crate::gateway::{Gateway, Worker};
use crate::live::Viewer;

pub use access::{Access, is_admin};
pub use shape::named;
pub use subscribe::stream as subscribe;

/// What can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Probe,
    Alive,
    Health,
    Providers,
    ResetProvider,
    Metrics,
    Reset,
    Prometheus,
    Ledger,
    Change,
    Subscribe,
    Reload,
    Restart,
    Drain,
}

/// What the one who asks gets.
#[derive(Debug)]
pub enum Reply {
    /// An answer that is whole.
    Answer(Answer),
    /// What happens from now on.
    Live(Viewer),
}

/// One path of ours.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// GET (then HEAD as well) or POST.
    pub method: &'static str,
    /// The path; `*` in it stands for any one part.
    pub path: &'static str,
    /// Who may ask.
    pub access: Access,
    what: What,
}

const fn get(path: &'static str, access: Access, what: What) -> Route {
    Route { method: "GET", path, access, what }
}

const fn post(path: &'static str, access: Access, what: What) -> Route {
    Route { method: "POST", path, access, what }
}

/// Everything that is ours, and who may ask for it: `SECURITY.md` says the same in words.
pub const ROUTES: &[Route] = &[
    get("/", Access::Anyone, What::Probe),
    get("/api/hello", Access::Anyone, What::Probe),
    get("/health", Access::Anyone, What::Alive),
    get("/gateway/health", Access::Machine, What::Health),
    get("/gateway/providers", Access::Machine, What::Providers),
    post("/gateway/providers/reset", Access::Admin, What::ResetProvider),
    get("/gateway/metrics", Access::Machine, What::Metrics),
    post("/gateway/metrics/reset", Access::Admin, What::Reset),
    get("/metrics", Access::Machine, What::Prometheus),
    get("/gateway/audit", Access::Admin, What::Ledger),
    post("/gateway/audit/purge", Access::Admin, What::Change),
    get("/gateway/audit/*", Access::Admin, What::Ledger),
    get("/gateway/audit/*/request", Access::Admin, What::Ledger),
    get("/gateway/audit/*/response", Access::Admin, What::Ledger),
    get("/gateway/costs", Access::Admin, What::Ledger),
    get("/gateway/sessions", Access::Admin, What::Ledger),
    get("/gateway/limits", Access::Admin, What::Ledger),
    post("/gateway/prices/recompute", Access::Admin, What::Change),
    get("/api/streams/subscribe", Access::Admin, What::Subscribe),
    post("/gateway/reload", Access::Admin, What::Reload),
    post("/gateway/restart", Access::Admin, What::Restart),
    post("/gateway/drain", Access::Admin, What::Drain),
];

impl Route {
    fn fits(&self, path: &str) -> bool {
        let (mut wanted, mut asked) = (self.path.split('/'), path.split('/'));
        loop {
            match (wanted.next(), asked.next()) {
                (None, None) => return true,
                (Some("*"), Some(part)) if !part.is_empty() => {}
                (Some(wanted), Some(asked)) if wanted == asked => {}
                _ => return false,
            }
        }
    }
}

/// Answers a request whose path is no upstream's.
pub async fn answer(head: &RequestHead, peer: &Peer, worker: &Worker) -> Result<Reply, Refusal> {
    let gateway = &*worker.gateway;
    let what = route(head, peer, gateway)?.what;
    Ok(Reply::Answer(match what {
        What::Probe => Answer::text("cco\n"),
        What::Alive => Answer::json(&json!({ "status": "healthy" })),
        What::Health => Answer::json(&state::health(gateway)),
        What::Providers => Answer::json(&upstreams::providers(gateway, is_admin(head, peer, gateway))),
        What::ResetProvider => Answer::json(&upstreams::reset(gateway, head.target())?),
        What::Metrics if head.target().contains('?') => {
            let message = "metrics are of everything since the last reset and take no filter: `/gateway/costs` does";
            return Err(Refusal::new(ErrorKind::InvalidRequest, message).retry(Retry::Never));
        }
        What::Metrics => Answer::json(&metrics::read(gateway, is_admin(head, peer, gateway)).await?),
        What::Reset => Answer::json(&metrics::reset(gateway).await?),
        What::Prometheus => prometheus::scrape(gateway).await,
        What::Ledger => ledger::ask(gateway, head.target()).await?,
        What::Change => ledger::change(gateway, head.target()).await?,
        What::Subscribe => {
            let message = "as many watch as may: try again when one of them has ended";
            let full = || Refusal::new(ErrorKind::Overloaded, message).retry(Retry::After(5));
            return Ok(Reply::Live(gateway.recorder.live().watch().ok_or_else(full)?));
        }
        What::Reload => Answer::json(&state::reload(gateway).await?),
        What::Restart => Answer::json(&state::restart(gateway).await?),
        What::Drain => {
            if let Some(within) = within(head.target()) {
                let _ = gateway.process.within.set(within);
            }
            gateway.stop.cancel();
            let within = gateway.drain.as_secs_f64();
            Answer::json(&json!({ "stopping": true, "pid": std::process::id(), "within_secs": within }))
        }
    }))
}

/// How long running answers may finish, where whoever asks says it: `?within=5`, in seconds.
fn within(target: &str) -> Option<std::time::Duration> {
    let (_, query) = target.split_once('?')?;
    let secs = query.split('&').find_map(|word| word.strip_prefix("within="))?.parse::<u32>().ok()?;
    Some(std::time::Duration::from_secs(secs.into()))
}

/// What is asked, if it is there and may be asked.
fn route(head: &RequestHead, peer: &Peer, gateway: &Gateway) -> Result<&'static Route, Refusal> {
    let (path, method) = (head.path(), head.method());
    let Some(route) = ROUTES.iter().find(|route| route.fits(path)) else {
        let message =
            format!("there is nothing at `{path}`: model requests go to `/v1/…`, the state is at `/gateway/health`");
        return Err(Refusal::new(ErrorKind::NotFound, message).retry(Retry::Never));
    };
    let is_endless = matches!(route.what, What::Subscribe);
    let allow = if route.method == "GET" && !is_endless { "GET, HEAD" } else { route.method };
    if !allow.split(", ").any(|allowed| allowed == method) {
        let message = format!("`{method}` is not answered at `{path}`: use {}", route.method);
        return Err(Refusal::new(ErrorKind::MethodNotAllowed, message).retry(Retry::Never).allow(allow));
    }
    access::check(route.access, head, peer, gateway)?;
    Ok(route)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows of the table in `SECURITY.md`: the paths in backticks, and who may ask.
    fn rows() -> Vec<(Vec<String>, String)> {
        let text = include_str!("../../../../SECURITY.md");
        let table = text.split("## Who may ask what").nth(1).expect("the table has a heading");
        let cells = table.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |")?.split_once(" | "));
        let paths = |cell: &str| cell.split('`').skip(1).step_by(2).map(String::from).collect();
        cells.map(|(cell, who)| (paths(cell), who.to_owned())).collect()
    }

    #[test]
    fn the_table_of_who_may_ask_lists_every_path_with_its_right() {
        let rows = rows();
        for route in ROUTES {
            let name = if route.method == "POST" { format!("POST {}", route.path) } else { route.path.to_owned() };
            let who = rows.iter().find(|(paths, _)| paths.contains(&name)).map(|(_, who)| &**who);
            let want = match route.access {
                Access::Anyone => "everybody who passes",
                Access::Machine => "everybody on this machine",
                Access::Admin => "holders of the admin token, our own user over the socket",
            };
            assert!(who.is_some_and(|who| who.contains(want)), "`{name}` is for {want}: the table says {who:?}");
        }
    }

    #[test]
    fn a_path_is_answered_by_one_method() {
        for route in ROUTES {
            assert_eq!(ROUTES.iter().filter(|other| other.path == route.path).count(), 1, "{}", route.path);
        }
    }
}
