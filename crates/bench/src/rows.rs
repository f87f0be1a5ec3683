//! What is loaded onto whom, and the figures that are read from it.

use serde_json::Value;

use crate::subject::Subject;
use crate::subject::Subject::{
    Cco, CcoAgain, CcoBodies, CcoOff, CcoQuiet, CcoRoutes, CcoTls, CcoTranslates, Direct, LiteLlm, Nginx, NginxAgain,
    NginxTls, NginxTlsAgain, OneWorker, OneWorkerAgain, Portkey, TwoWorkers,
};

/// One kind of load.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    /// Of the load generator; `None`: nothing is sent, the start is what is measured.
    pub(crate) flags: Option<&'static str>,
    /// Milliseconds before it counts, at least.
    pub(crate) warmup: u64,
    /// In the order of a round.
    pub(crate) subjects: &'static [Subject],
}

/// Everything between nginx and nginx again.
const ROUND: &[Subject] = &[Nginx, Cco, Direct, NginxAgain];

pub(crate) const LOADS: &[Load] = &[
    Load {
        name: "small",
        what: "64 connections, 500 B up, 1 KB down",
        flags: Some("--conns 64"),
        warmup: 0,
        subjects: &[Nginx, Cco, CcoOff, CcoQuiet, Direct, Portkey, LiteLlm, NginxAgain],
    },
    Load {
        name: "large",
        what: "64 connections, 200 KB up, 1 KB down",
        flags: Some("--conns 64 --body 200000"),
        warmup: 0,
        subjects: ROUND,
    },
    Load {
        name: "fast",
        what: "16 streams of 500 events, as fast as they come",
        flags: Some("--conns 16 --events 500"),
        warmup: 0,
        subjects: ROUND,
    },
    Load {
        name: "translated",
        what: "16 streams of 500 events, as fast as they come, as they pass and from Chat Completions",
        flags: Some("--conns 16 --events 500"),
        warmup: 0,
        subjects: &[Cco, CcoTranslates, CcoAgain],
    },
    Load {
        name: "rewritten",
        what: "64 connections, 200 KB up, 1 KB down, as they pass and to Chat Completions",
        flags: Some("--conns 64 --body 200000"),
        warmup: 0,
        subjects: &[Cco, CcoTranslates, CcoAgain],
    },
    Load {
        name: "routed",
        what: "64 connections, 500 B up, 1 KB down, without rules and with a hundred",
        flags: Some("--conns 64"),
        warmup: 0,
        subjects: &[Cco, CcoRoutes, CcoAgain],
    },
    Load {
        name: "paced",
        what: "200 streams of 100 events, 20 ms apart",
        flags: Some("--conns 200 --events 100 --delay 20 --ramp 1900"),
        warmup: 2200,
        subjects: ROUND,
    },
    Load {
        name: "tls",
        what: "16 streams of 500 events, as fast as they come, from an upstream that speaks TLS",
        flags: Some("--conns 16 --events 500"),
        warmup: 0,
        subjects: &[NginxTls, CcoTls, NginxTlsAgain],
    },
    Load { name: "one", what: "1 connection, small requests", flags: Some("--conns 1"), warmup: 0, subjects: ROUND },
    Load {
        name: "open",
        what: "500 small requests/s, open loop",
        flags: Some("--conns 64 --rate 500"),
        warmup: 0,
        subjects: ROUND,
    },
    Load {
        name: "bodies",
        what: "2,000 requests/s of 4 KB, each unlike all others, open loop",
        flags: Some("--conns 64 --rate 2000 --body 4000 --unique"),
        warmup: 0,
        subjects: &[Nginx, Cco, CcoBodies, CcoAgain, NginxAgain],
    },
    Load {
        name: "lag",
        what: "1 stream of 400 events, 2 ms apart",
        flags: Some("--conns 1 --events 400 --delay 2"),
        warmup: 0,
        subjects: ROUND,
    },
    Load {
        name: "many",
        what: "1,000 streams of 40 events, 250 ms apart",
        flags: Some("--conns 1000 --events 40 --delay 250 --ramp 1500"),
        warmup: 2500,
        subjects: &[Nginx, Cco, NginxAgain],
    },
    Load {
        name: "start",
        what: "from the start of the process to the first whole answer",
        flags: None,
        warmup: 0,
        subjects: &[Nginx, Cco, NginxAgain],
    },
    Load {
        name: "workers",
        what: "2,500 small requests/s offered, nothing pinned",
        flags: Some("--conns 64 --rate 2500"),
        warmup: 0,
        subjects: &[OneWorker, TwoWorkers, OneWorkerAgain],
    },
];

/// How two subjects are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compare {
    /// One divided by the other.
    Ratio,
    /// What each adds to the path without a gateway, divided.
    Added,
    /// One less the other, in the unit of the goal.
    More,
    /// The figure itself, in the unit of the goal.
    Figure,
}

/// One line of the table.
#[derive(Debug)]
pub(crate) struct Figure {
    pub(crate) title: &'static str,
    pub(crate) load: &'static str,
    pub(crate) of: Subject,
    pub(crate) to: Subject,
    pub(crate) again: Subject,
    pub(crate) unit: &'static str,
    pub(crate) compare: Compare,
    pub(crate) goal: f64,
    pub(crate) limit: f64,
    pub(crate) value: fn(&Value) -> Option<f64>,
}

/// Against nginx.
const fn to_nginx(
    title: &'static str,
    load: &'static str,
    (unit, value): (&'static str, fn(&Value) -> Option<f64>),
    compare: Compare,
    (goal, limit): (f64, f64),
) -> Figure {
    Figure { title, load, of: Cco, to: Nginx, again: NginxAgain, unit, compare, goal, limit, value }
}

/// What only cco has, measured by [`ALONE`].
const fn alone(
    title: &'static str,
    load: &'static str,
    unit: &'static str,
    value: fn(&Value) -> Option<f64>,
    (goal, limit): (f64, f64),
) -> Figure {
    to_nginx(title, load, (unit, value), Compare::Figure, (goal, limit))
}

/// Measurements that no load of [`LOADS`] makes.
pub(crate) const ALONE: [&str; 2] = ["waits", "waves"];

/// Another gateway against nginx, beside our own figure: nothing is expected of it.
const fn peer(title: &'static str, of: Subject) -> Figure {
    Figure { of, ..to_nginx(title, "small", CPU_PER_REQUEST, Compare::Ratio, (f64::INFINITY, f64::INFINITY)) }
}

fn per(row: &Value, of: &str) -> Option<f64> {
    Some(positive(&row["cpu_us"])? / positive(&row[of])?)
}

/// What is nothing, or less, was not measured: all figures are of something that takes time or room.
fn positive(value: &Value) -> Option<f64> {
    value.as_f64().filter(|n| *n > 0.0)
}

const CPU_PER_REQUEST: (&str, fn(&Value) -> Option<f64>) = ("µs", |row| per(row, "requests"));
const CPU_PER_EVENT: (&str, fn(&Value) -> Option<f64>) = ("µs", |row| per(row, "events"));
const LATENCY: (&str, fn(&Value) -> Option<f64>) = ("µs", |row| positive(&row["latency_us"]["p50"]));
const DELAY: (&str, fn(&Value) -> Option<f64>) = ("µs", |row| positive(&row["delay_us"]["p50"]));
const PEAK: (&str, fn(&Value) -> Option<f64>) = ("MB", |row| Some(positive(&row["rss_kb"]["peak"])? / 1024.0));
const IDLE: (&str, fn(&Value) -> Option<f64>) = ("MB", |row| Some(positive(&row["idle_kb"])? / 1024.0));
const START: (&str, fn(&Value) -> Option<f64>) = ("ms", |row| positive(&row["start_ms"]));

pub(crate) const FIGURES: &[Figure] = &[
    to_nginx("CPU per small request", "small", CPU_PER_REQUEST, Compare::Ratio, (1.0, 1.25)),
    Figure {
        of: CcoQuiet,
        ..to_nginx("… with `log.level` \"warn\"", "small", CPU_PER_REQUEST, Compare::Ratio, (1.0, 1.25))
    },
    Figure {
        of: CcoOff,
        ..to_nginx("… with `audit.enabled` false", "small", CPU_PER_REQUEST, Compare::Ratio, (1.0, 1.25))
    },
    peer("… of Portkey's gateway", Portkey),
    peer("… of LiteLLM's proxy", LiteLlm),
    Figure {
        of: CcoBodies,
        ..to_nginx("… more than nginx's, bodies kept", "bodies", CPU_PER_REQUEST, Compare::More, (40.0, 60.0))
    },
    Figure {
        of: CcoBodies,
        to: Cco,
        again: CcoAgain,
        ..to_nginx("… more than without them", "bodies", CPU_PER_REQUEST, Compare::More, (f64::INFINITY, f64::INFINITY))
    },
    to_nginx("CPU per request of 200 KB", "large", CPU_PER_REQUEST, Compare::Ratio, (0.75, 1.1)),
    to_nginx("CPU per event, as fast as they come", "fast", CPU_PER_EVENT, Compare::Ratio, (1.0, 1.3)),
    Figure {
        title: "CPU per event translated, to one that passes",
        load: "translated",
        of: CcoTranslates,
        to: Cco,
        again: CcoAgain,
        unit: "µs",
        compare: Compare::Ratio,
        goal: 1.5,
        limit: 1.0 / 0.6,
        value: CPU_PER_EVENT.1,
    },
    Figure {
        title: "CPU per request of 200 KB translated, more than one that passes",
        load: "rewritten",
        of: CcoTranslates,
        to: Cco,
        again: CcoAgain,
        unit: "µs",
        compare: Compare::More,
        goal: 2000.0,
        limit: 5000.0,
        value: CPU_PER_REQUEST.1,
    },
    Figure {
        title: "CPU per small request with 100 rules, to none",
        load: "routed",
        of: CcoRoutes,
        to: Cco,
        again: CcoAgain,
        unit: "µs",
        compare: Compare::Ratio,
        goal: 1.03,
        limit: 1.05,
        value: CPU_PER_REQUEST.1,
    },
    to_nginx("CPU per event, 20 ms apart", "paced", CPU_PER_EVENT, Compare::Ratio, (1.0, 1.2)),
    Figure {
        of: CcoTls,
        to: NginxTls,
        again: NginxTlsAgain,
        ..to_nginx("CPU per event, upstream with TLS", "tls", CPU_PER_EVENT, Compare::Ratio, (1.1, 1.4))
    },
    to_nginx("added p50, 1 connection", "one", LATENCY, Compare::Added, (1.05, 1.3)),
    to_nginx("added p50, 500 requests/s open loop", "open", LATENCY, Compare::Added, (1.1, 1.4)),
    to_nginx("delay per event p50, one fast stream", "lag", DELAY, Compare::Ratio, (1.1, 1.5)),
    to_nginx("delay per event p50, 200 slow streams", "paced", DELAY, Compare::Ratio, (1.1, 1.5)),
    to_nginx("memory, idle", "start", IDLE, Compare::Figure, (16.0, 30.0)),
    to_nginx("memory, 1,000 slow streams", "many", PEAK, Compare::Figure, (36.0, 64.0)),
    alone(
        "memory after three waves of 9,000 idle streams, to one",
        "waves",
        "×",
        |row| positive(&row["growth"]),
        (1.0, 1.15),
    ),
    alone("wait for the journal, p50", "waits", "µs", |row| positive(&row["p50_us"]), (30.0, 100.0)),
    alone("wait for the journal, p99", "waits", "µs", |row| positive(&row["p99_us"]), (1000.0, 5000.0)),
    to_nginx("start to first answer", "start", START, Compare::Figure, (20.0, 60.0)),
    Figure {
        title: "CPU per request, two workers to one",
        load: "workers",
        of: TwoWorkers,
        to: OneWorker,
        again: OneWorkerAgain,
        unit: "µs",
        compare: Compare::Ratio,
        goal: 1.05,
        limit: 1.2,
        value: CPU_PER_REQUEST.1,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_is_read_from_a_load_that_measures_all_it_compares() {
        for figure in FIGURES {
            if ALONE.contains(&figure.load) {
                continue;
            }
            let load = LOADS.iter().find(|load| load.name == figure.load).unwrap();
            for subject in [figure.of, figure.to, figure.again] {
                assert!(load.subjects.contains(&subject), "{}", figure.title);
            }
            assert!(figure.compare != Compare::Added || load.subjects.contains(&Direct), "{}", figure.title);
            assert!(figure.goal <= figure.limit);
        }
    }

    #[test]
    fn what_is_nothing_was_not_measured() {
        let row = |cpu: Value, requests: u64| serde_json::json!({ "cpu_us": cpu, "requests": requests });
        assert_eq!(per(&row(30.into(), 2), "requests"), Some(15.0));
        for none in [row(0.into(), 2), row(Value::Null, 2), row(30.into(), 0), row((-1).into(), 2)] {
            assert_eq!(per(&none, "requests"), None, "{none}");
        }
    }
}
