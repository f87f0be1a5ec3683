//! What we answer ourselves: the state, the metrics, the probes that clients send to warm a connection.

mod access;
mod metrics;
mod prometheus;
mod shape;
mod state;

use http1::RequestHead;

use crate::client::peer::Peer;
use crate::client::respond::Answer;
use crate::error::{ErrorKind, Refusal, Retry};
use crate::gateway::{Gateway, Worker};

pub use access::{Access, is_admin};

/// What can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Probe,
    Alive,
    Health,
    Providers,
    Metrics,
    Reset,
    Prometheus,
}

/// One path of ours.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// GET (then HEAD as well) or POST.
    pub method: &'static str,
    /// The path.
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
    get("/gateway/metrics", Access::Machine, What::Metrics),
    post("/gateway/metrics/reset", Access::Admin, What::Reset),
    get("/metrics", Access::Machine, What::Prometheus),
];

/// Answers a request whose path is no upstream's.
pub async fn answer(head: &RequestHead, peer: &Peer, worker: &Worker) -> Result<Answer, Refusal> {
    let gateway = &*worker.gateway;
    let what = route(head, peer, gateway)?.what;
    Ok(match what {
        What::Probe => Answer::text("cco\n"),
        What::Alive => Answer::json(&serde_json::json!({ "status": "healthy" })),
        What::Health => Answer::json(&state::health(gateway)),
        What::Providers => Answer::json(&state::providers(gateway)),
        What::Metrics => Answer::json(&metrics::read(gateway, is_admin(head, peer, gateway)).await?),
        What::Reset => Answer::json(&metrics::reset(gateway).await?),
        What::Prometheus => prometheus::scrape(gateway).await,
    })
}

/// What is asked, if it is there and may be asked.
fn route(head: &RequestHead, peer: &Peer, gateway: &Gateway) -> Result<&'static Route, Refusal> {
    let (path, method) = (head.path(), head.method());
    let Some(route) = ROUTES.iter().find(|route| route.path == path) else {
        let message =
            format!("there is nothing at `{path}`: model requests go to `/v1/…`, the state is at `/gateway/health`");
        return Err(Refusal::new(ErrorKind::NotFound, message).retry(Retry::Never));
    };
    let allow = if route.method == "GET" { "GET, HEAD" } else { route.method };
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
                Access::Admin => "the admin token",
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
