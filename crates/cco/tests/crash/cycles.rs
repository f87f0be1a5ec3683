//! The real program under load, killed again and again: nothing is lost, nothing is there twice.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::json;
use tokio_util::task::TaskTracker;

use crate::account::{self, check, check_store, recovered, rows, segments};
use crate::common::dice::Dice;
use crate::common::gateway::Process;
use crate::common::{Gateway, prompt, request, until};
use crate::load::{Asker, End, KINDS, Kind, MODEL, Seen, any_kind};
use crate::simulator::{Simulator, TAG};

/// Clients at a time.
const CLIENTS: u64 = 6;

/// How a process comes to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Death {
    /// At some moment.
    Anytime,
    /// While it waits for its streams to end.
    Draining,
    /// In the moment in which a client has read the end of a stream.
    AtTheEnd,
    /// Soon after its start, while it loads what others left.
    Loading,
    /// Before it says that it listens.
    Starting,
}

const DEATHS: &[Death] = &[
    Death::Anytime,
    Death::AtTheEnd,
    Death::Draining,
    Death::AtTheEnd,
    Death::Loading,
    Death::Anytime,
    Death::Starting,
];

/// A number from the environment of the test.
#[expect(clippy::disallowed_methods, reason = "a test is told how long to run")]
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("`{name}` is no number: `{text}`")))
}

struct Test {
    home: std::path::PathBuf,
    simulator: Simulator,
    /// Everything that clients saw.
    seen: Arc<Mutex<Vec<Seen>>>,
    /// How much of it was compared already.
    compared: usize,
}

impl Test {
    async fn new(folder: &Path) -> Self {
        let simulator = Simulator::start(folder).await;
        let home = folder.join("home");
        std::fs::create_dir(&home).unwrap();
        let price = json!({
            "inputPerMillion": 3, "outputPerMillion": 15, "cacheWritePerMillion": 3.75, "cacheReadPerMillion": 0.3,
        });
        let config = json!({
            "providers": { "anthropic": { "baseUrl": format!("http://{}", simulator.addr), "maxRetries": 0 } },
            "costTracking": { "pricingOverrides": { MODEL: price } },
            // A busy machine may keep the journal waiting; what is asked here is what holds when it was not given up.
            "audit": { "journalWaitMs": 30_000 },
        });
        std::fs::write(home.join("config.json"), config.to_string()).unwrap();
        Self { home, simulator, seen: Arc::default(), compared: 0 }
    }

    async fn gateway(&self) -> Gateway {
        Gateway::start_in(&self.home, &["--workers", "2"], &[]).await
    }

    /// Clients that ask until there is nobody to ask.
    fn load(&self, tasks: &TaskTracker, gateway: &Gateway, cycle: u64, dice: &mut Dice) {
        for n in 0..CLIENTS {
            let (mut asker, mut dice) = (Asker::new(gateway.addr, Dice::new(dice.number())), Dice::new(dice.number()));
            let seen = self.seen.clone();
            tasks.spawn(async move {
                for turn in 0.. {
                    let tag = format!("cycle-{cycle}-{n}-{turn}");
                    let Some(one) = asker.ask(any_kind(&mut dice), tag, &mut || {}).await else { return };
                    seen.lock().unwrap().push(one);
                }
            });
        }
    }

    /// One process, from its start to its death.
    async fn cycle(&mut self, cycle: u64, death: Death, dice: &mut Dice) {
        if death == Death::Starting {
            let mut process = Process::begin(&self.home, &[], &[]);
            dice.moment(0..=120).await;
            process.kill();
            process.ended().await;
            return;
        }
        let mut gateway = self.gateway().await;
        if death != Death::Loading {
            recovered(&self.home).await;
            self.compare();
        }
        let tasks = TaskTracker::new();
        self.load(&tasks, &gateway, cycle, dice);
        match death {
            Death::Anytime => dice.moment(20..=320).await,
            Death::Loading => dice.moment(0..=60).await,
            Death::Draining => {
                dice.moment(0..=150).await;
                gateway.signal("TERM").await;
                dice.moment(0..=80).await;
            }
            Death::AtTheEnd => {
                let mut asker = Asker::new(gateway.addr, Dice::new(dice.number()));
                let turns = dice.below(6);
                for turn in 0..=turns {
                    // Streams, fast and slow, or whole answers.
                    let kind: &'static Kind = dice.pick(&KINDS[..5]);
                    let mut kill = || {
                        if turn == turns {
                            gateway.kill();
                        }
                    };
                    let tag = format!("cycle-{cycle}-end-{turn}");
                    let one = asker.ask(kind, tag, &mut kill).await.expect("the gateway lives until it is killed");
                    assert_eq!(one.end, End::Known, "{one:?}");
                    self.seen.lock().unwrap().push(one);
                }
            }
            Death::Starting => {}
        }
        gateway.kill();
        gateway.ended().await;
        tasks.close();
        tasks.wait().await;
    }

    /// The three accounts of what was not compared yet. The store knows everything.
    fn compare(&mut self) {
        if self.seen.lock().unwrap().is_empty() {
            // Before the first one, there may be no store yet.
            return;
        }
        let (rows, arrived) = (rows(&self.home), self.simulator.arrived());
        let seen = self.seen.lock().unwrap();
        for one in &seen[self.compared..] {
            check(one, rows.get(&one.tag), arrived.get(&one.tag));
        }
        for tag in arrived.keys() {
            assert!(rows.contains_key(tag), "the simulator got `{tag}`, and there is no record");
        }
        self.compared = seen.len();
    }
}

/// `CCO_CRASH_CYCLES` says how often, `CCO_CRASH_SEED` repeats a run as far as chance can be repeated.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_is_killed_at_any_moment_loses_nothing_and_doubles_nothing() {
    let cycles = number("CCO_CRASH_CYCLES").unwrap_or(50);
    let seed = number("CCO_CRASH_SEED").unwrap_or_else(Dice::fresh_seed);
    println!("to repeat: CCO_CRASH_SEED={seed} CCO_CRASH_CYCLES={cycles}");
    let folder = tempfile::tempdir().unwrap();
    let mut test = Test::new(folder.path()).await;
    let (mut dice, mut deaths) = (Dice::new(seed), BTreeMap::<Death, u32>::new());
    for cycle in 0..cycles {
        // Each kind of death has its turn, in an order that differs from run to run.
        let death = DEATHS[((cycle + seed) % DEATHS.len() as u64) as usize];
        *deaths.entry(death).or_default() += 1;
        test.cycle(cycle, death, &mut dice).await;
    }

    // One that lives: it takes over what the last one left, and ends in order.
    let mut gateway = test.gateway().await;
    recovered(&test.home).await;
    test.compare();
    gateway.stop().await;
    test.simulator.stop().await;
    test.compared = 0;
    test.compare();
    assert_eq!((segments(&test.home), account::files(&test.home, "damaged")), (0, 0));
    check_store(&test.home);

    // Everything that the store holds was asked for, and what succeeded did so for the simulator too.
    let (rows, arrived) = (rows(&test.home), test.simulator.arrived());
    let seen = test.seen.lock().unwrap();
    let asked: BTreeMap<&str, &Seen> = seen.iter().map(|one| (&*one.tag, one)).collect();
    let mut outcomes = BTreeMap::<&str, u32>::new();
    for (tag, row) in &rows {
        let one = asked.get(&**tag).unwrap_or_else(|| panic!("nobody asked for `{tag}`: {row:?}"));
        *outcomes.entry(&*row.outcome).or_default() += 1;
        if row.outcome == "success" {
            let ends = &arrived[tag].ends;
            assert!(ends.iter().any(|end| end == "complete" || end.starts_with("fault:")), "{one:?} {row:?} {ends:?}");
        }
    }
    let known = seen.iter().filter(|one| one.end == End::Known).count();
    println!("{} asked, {known} saw their end, {} records: {outcomes:?}; {deaths:?}", seen.len(), rows.len());
    if cycles >= 50 {
        // A test in which nothing happens proves nothing.
        assert!(known > 500, "only {known} exchanges came to their end");
        for outcome in ["success", "upstream_error", "client_disconnected", "truncated", "rejected", "interrupted"] {
            assert!(outcomes.get(outcome).is_some_and(|n| *n >= 10), "too few of `{outcome}`: {outcomes:?}");
        }
        let kinds: BTreeMap<&str, &Seen> = seen.iter().map(|one| (one.kind.name, one)).collect();
        assert_eq!(kinds.len(), KINDS.len(), "some kinds were never asked for");
    }
}

#[tokio::test]
async fn what_the_end_of_the_program_cuts_off_is_recorded() {
    for signals in [1, 2] {
        let folder = tempfile::tempdir().unwrap();
        let test = Test::new(folder.path()).await;
        let path = test.home.join("config.json");
        let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        config["server"] = json!({ "drainSecs": 0.3 });
        std::fs::write(&path, config.to_string()).unwrap();
        let mut gateway = test.gateway().await;
        let ask = |tag: &str, script: &str| {
            let fields = format!("{TAG}: {tag}\r\nx-sim: {script}\r\n");
            request("POST", "/v1/messages", &fields, prompt("Hello.", true))
        };
        let mut endless = gateway.client().await;
        endless.send(ask("endless", "fault=endless every=5")).await;
        let mut answer = endless.head().await;
        endless.read_until(&mut answer, "content_block_delta").await;
        let mut waiting = gateway.client().await;
        waiting.send(ask("waiting", "fault=no-bytes")).await;
        until(async || test.simulator.arrived().len() >= 2).await;
        for n in 0..signals {
            gateway.signal("TERM").await;
            if n == 0 {
                gateway.log_line(&["stopping"]).await;
            }
        }
        gateway.ended().await;
        if signals == 1 {
            // Everybody was told, so everybody has a record that says so.
            let rows = rows(&test.home);
            assert_eq!((&*rows["endless"].outcome, &*rows["waiting"].outcome), ("truncated", "rejected"));
            waiting.answer().await.refusal(503, "api_error");
        }
        // Nobody was told: what was open is taken over by the next one.
        let mut gateway = test.gateway().await;
        recovered(&test.home).await;
        gateway.stop().await;
        let rows = rows(&test.home);
        assert_eq!((rows.len(), segments(&test.home)), (2, 0), "{rows:?}");
        for row in rows.values() {
            assert!(
                ["truncated", "rejected", "interrupted", "client_disconnected"].contains(&&*row.outcome),
                "{row:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_gateways_share_a_folder_and_one_takes_over_when_the_other_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let mut test = Test::new(folder.path()).await;
    let (mut first, mut second) = (test.gateway().await, test.gateway().await);
    let (mut dice, tasks) = (Dice::new(2), TaskTracker::new());
    test.load(&tasks, &first, 1, &mut dice);
    let ask = async |gateway: &Gateway, tag: &str, turns: u64| {
        let mut asker = Asker::new(gateway.addr, Dice::new(turns));
        for turn in 0..turns {
            let one = asker.ask(&KINDS[turn as usize % 5], format!("{tag}-{turn}"), &mut || {}).await.unwrap();
            assert_eq!(one.end, End::Known, "{one:?}");
            test.seen.lock().unwrap().push(one);
        }
    };
    ask(&second, "second", 20).await;
    first.kill();
    first.ended().await;
    tasks.close();
    tasks.wait().await;
    ask(&second, "after", 5).await;
    // The one that lives looks every few seconds whether another has gone.
    recovered(&test.home).await;
    second.stop().await;
    test.simulator.stop().await;
    test.compare();
    assert_eq!((segments(&test.home), account::files(&test.home, "damaged")), (0, 0));
    check_store(&test.home);
    let seen = test.seen.lock().unwrap();
    assert!(seen.iter().filter(|one| one.end == End::Known && one.tag.starts_with("cycle")).count() > 5);
}
