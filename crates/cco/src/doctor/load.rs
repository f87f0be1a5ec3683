//! Many streams at a time: short ones, long ones and large ones, each of which must arrive whole.

use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Card;
use super::http::{Broken, Target};
use super::judge::Events;

/// A short answer: so many deltas, so many milliseconds apart.
const SHORT: (u64, u64) = (25, 20);
/// A large one: so many deltas of so many bytes, as fast as they come.
const LARGE: (u64, u64) = (1000, 1000);
/// What goes up with every fifth request.
const UP: usize = 1 << 20;
/// Between a stream that failed and the next one: who refuses at once would be asked as fast as it can refuse.
const BREATH: Duration = Duration::from_millis(100);

/// What a stream is to be like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Short,
    /// As long as all of it takes.
    Long,
    Large,
}

impl Kind {
    fn of(n: usize) -> Self {
        match n % 10 {
            0 => Self::Large,
            1 | 2 => Self::Long,
            _ => Self::Short,
        }
    }

    fn script(self, left: Duration) -> (u64, String) {
        match self {
            Self::Short => (SHORT.0, format!("events={} every={}", SHORT.0, SHORT.1)),
            Self::Long => {
                let events = u64::try_from(left.as_millis() / 100).unwrap_or(1).max(5);
                (events, format!("events={events} every=100"))
            }
            Self::Large => (LARGE.0, format!("events={} size={}", LARGE.0, LARGE.1)),
        }
    }
}

/// What all streams came to.
#[derive(Debug, Default)]
struct Sum {
    streams: u64,
    bytes: u64,
    firsts: Vec<Duration>,
    faults: usize,
    first_fault: Option<String>,
}

/// Keeps so many streams open for so long.
pub(super) async fn run(gateway: &Target, model: &str, streams: usize, time: Duration, card: &mut Card) {
    let until = Instant::now() + time;
    let mut tasks = JoinSet::new();
    for n in 0..streams {
        let (gateway, model) = (gateway.clone(), model.to_owned());
        tasks.spawn(async move { one_after_the_other(&gateway, &model, n, until).await });
    }
    let mut sum = Sum::default();
    while let Some(done) = tasks.join_next().await {
        let Ok(done) = done else { continue };
        sum.streams += done.streams;
        sum.bytes += done.bytes;
        sum.firsts.extend(done.firsts);
        sum.faults += done.faults;
        sum.first_fault = sum.first_fault.or(done.first_fault);
    }
    sum.firsts.sort_unstable();
    let first = |part: usize| sum.firsts.get(sum.firsts.len() * part / 100).map_or(0, Duration::as_millis);
    let all = format!(
        "{} streams, {streams} at a time for {} s, {} MB; first event after {} ms (median), {} ms (99 of 100)",
        sum.streams,
        time.as_secs(),
        sum.bytes >> 20,
        first(50),
        first(99),
    );
    if sum.faults == 0 && sum.streams > 0 {
        return card.good("load", format!("all whole: {all}"));
    }
    let found = format!("{} of {all}\nthe first: {}", sum.faults, sum.first_fault.unwrap_or_default());
    card.bad(
        "load",
        found,
        "look at `server.maxConnections`, `server.maxHeldMb`, `maxConcurrent` and the limit of open files",
    );
}

async fn one_after_the_other(gateway: &Target, model: &str, n: usize, until: Instant) -> Sum {
    let mut sum = Sum::default();
    let mut turn = n;
    // Everybody has one stream, however short the time is.
    while sum.streams == 0 || Instant::now() < until {
        sum.streams += 1;
        let left = until.saturating_duration_since(Instant::now());
        match one(gateway, model, Kind::of(n), turn, left).await {
            Ok((first, bytes)) => {
                sum.firsts.push(first);
                sum.bytes += bytes;
            }
            Err(why) => {
                sum.faults += 1;
                sum.first_fault.get_or_insert(why);
                tokio::time::sleep(BREATH).await;
            }
        }
        turn += 1;
    }
    sum
}

async fn one(
    gateway: &Target,
    model: &str,
    kind: Kind,
    turn: usize,
    left: Duration,
) -> Result<(Duration, u64), Broken> {
    let (events, script) = kind.script(left);
    let up = if turn.is_multiple_of(5) { "x".repeat(UP) } else { String::new() };
    let body = json!({
        "model": model, "max_tokens": 1_000_000, "stream": true,
        "messages": [{ "role": "user", "content": format!("[[sim {script}]] {turn} {up}") }],
    });
    let began = Instant::now();
    let answer = gateway.ask("POST", "/v1/messages", &[], body.to_string().as_bytes()).await?;
    if answer.status != 200 {
        return Err(answer.shown());
    }
    let told = Events::of(&answer.body);
    if let Some(fault) = told.fault {
        return Err(fault);
    }
    let deltas = told.counts.get("content_block_delta").copied().unwrap_or(0);
    if deltas < events {
        return Err(format!("{deltas} of {events} deltas arrived"));
    }
    let first = answer.arrivals.first().map_or_else(|| began.elapsed(), |(at, _)| *at - began);
    Ok((first, answer.body.len() as u64))
}
