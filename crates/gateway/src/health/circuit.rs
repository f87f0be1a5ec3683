//! One circuit: closed while a target works, open while it does not, and in between one real request that finds out.
//!
//! Time is passed in. An outcome weighs 2 if it failed, 1 if it was slow, 0 if it was good; the circuit opens when the
//! recent outcomes weigh at least [`EVIDENCE`] in all and at least 1 each on the average: half of them failed, or all of
//! them were slow, or a mixture. It stays open a little longer each time it opens again soon.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Time, Why};

/// Outcomes that are looked at.
pub(super) const RECENT: usize = 32;
/// Older ones are not.
pub(super) const AGE: Duration = Duration::from_secs(120);
/// Three failures.
pub(super) const EVIDENCE: u32 = 6;
/// How long a circuit is open the first time.
pub(super) const FIRST_REST: Duration = Duration::from_secs(5);
/// And at most, unless the upstream named a time itself.
pub(super) const LONGEST_REST: Duration = Duration::from_secs(120);
/// A circuit that opens again within this time after it closed rests longer than the last time.
pub(super) const SOON: Duration = Duration::from_secs(60);
/// The one request that finds out is given up on after this time, and another may try.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Whether requests go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// They do.
    Closed,
    /// They do not, until then.
    Open(Time),
    /// The next one does, and finds out for all.
    Ready,
    /// One is finding out; the others do not.
    Trying,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    Open { until: Time },
    Trying { since: Time },
}

/// How a request was let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Beside others.
    Normal,
    /// As the one that finds out.
    Probe { since: Time },
    /// Though the circuit was open: there was nothing else.
    Forced,
}

/// What a request came to, as far as a circuit is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Good,
    Slow,
    Failed(Why),
    /// Not to be asked again for this time; `None`: it did not say for how long.
    Limited(Option<Duration>, Why),
}

#[derive(Debug)]
pub(super) struct Circuit {
    state: State,
    recent: VecDeque<(Time, u8)>,
    /// How often it opened without being closed for long in between.
    trips: u32,
    closed_at: Option<Time>,
    why: Option<Why>,
}

impl Default for Circuit {
    fn default() -> Self {
        Self { state: State::Closed, recent: VecDeque::new(), trips: 0, closed_at: None, why: None }
    }
}

impl Circuit {
    pub(super) fn look(&self, now: Time) -> Look {
        match self.state {
            State::Closed => Look::Closed,
            State::Open { until } if now < until => Look::Open(until),
            State::Trying { since } if now < since + PATIENCE => Look::Trying,
            State::Open { .. } | State::Trying { .. } => Look::Ready,
        }
    }

    /// Lets a request through, if it may.
    pub(super) fn enter(&mut self, now: Time) -> Option<Kind> {
        match self.look(now) {
            Look::Closed => Some(Kind::Normal),
            Look::Ready => Some(self.probe(now)),
            Look::Open(_) | Look::Trying => None,
        }
    }

    /// Lets a request through in any case.
    pub(super) fn force(&mut self, now: Time) -> Kind {
        match self.look(now) {
            Look::Closed => Kind::Normal,
            Look::Ready | Look::Open(_) => self.probe(now),
            Look::Trying => Kind::Forced,
        }
    }

    fn probe(&mut self, now: Time) -> Kind {
        self.state = State::Trying { since: now };
        Kind::Probe { since: now }
    }

    /// A request that was let through is over, or far enough to be judged.
    pub(super) fn record(&mut self, now: Time, kind: Kind, verdict: Verdict) {
        let decides = match (kind, self.state) {
            (Kind::Probe { since }, State::Trying { since: current }) if since == current => true,
            // What began before it opened says nothing new.
            (_, State::Closed) => false,
            _ => {
                if let (Verdict::Limited(Some(wait), _), State::Open { until }) = (verdict, &mut self.state) {
                    *until = (*until).max(now + wait);
                }
                return;
            }
        };
        match (verdict, decides) {
            (Verdict::Limited(wait, why), _) => self.open(now, wait, why),
            (Verdict::Failed(why), true) => self.open(now, None, why),
            (Verdict::Good | Verdict::Slow, true) => {
                self.recent.clear();
                (self.state, self.closed_at, self.why) = (State::Closed, Some(now), None);
            }
            (Verdict::Good, false) => self.weigh(now, 0, None),
            (Verdict::Slow, false) => self.weigh(now, 1, Some(Why::Slow)),
            (Verdict::Failed(why), false) => self.weigh(now, 2, Some(why)),
        }
    }

    /// A request that was let through ended without saying anything about its target.
    pub(super) fn abandon(&mut self, kind: Kind) {
        if matches!((kind, self.state), (Kind::Probe { since }, State::Trying { since: current }) if since == current) {
            self.state = State::Open { until: Time::default() };
        }
    }

    fn weigh(&mut self, now: Time, weight: u8, why: Option<Why>) {
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back((now, weight));
        while self.recent.front().is_some_and(|(at, _)| *at + AGE < now) {
            self.recent.pop_front();
        }
        let Some(why) = why else { return };
        self.why = Some(why);
        let sum: u32 = self.recent.iter().map(|(_, weight)| u32::from(*weight)).sum();
        if sum >= EVIDENCE && sum as usize >= self.recent.len() {
            self.open(now, None, why);
        }
    }

    fn open(&mut self, now: Time, wait: Option<Duration>, why: Why) {
        let again = self.trips > 0 && self.closed_at.is_none_or(|at| now < at + SOON);
        self.trips = if again { self.trips + 1 } else { 1 };
        let rest = FIRST_REST.saturating_mul(1 << (self.trips - 1).min(16)).min(LONGEST_REST);
        self.recent.clear();
        self.closed_at = None;
        self.why = Some(why);
        self.state = State::Open { until: now + wait.unwrap_or(rest) };
    }

    /// Why it is open, or what went wrong last.
    pub(super) fn why(&self) -> Option<Why> {
        self.why
    }

    /// Of the recent outcomes: how many failed, how many were slow, how many there are.
    pub(super) fn counts(&self, now: Time) -> (usize, usize, usize) {
        let recent = || self.recent.iter().filter(|(at, _)| now <= *at + AGE);
        let of = |weight: u8| recent().filter(|(_, w)| *w == weight).count();
        (of(2), of(1), recent().count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DOWN: Verdict = Verdict::Failed(Why::Unreachable);

    fn at(ms: u64) -> Time {
        Time::from_ms(ms)
    }

    /// Normal requests that end so, one a second from second 1 on; then whether it is open.
    #[track_caller]
    fn check(verdicts: &[Verdict], open: bool) {
        let mut circuit = Circuit::default();
        for (second, verdict) in verdicts.iter().enumerate() {
            let now = at(1000 * (second as u64 + 1));
            let kind = circuit.enter(now).expect("it opens at the end, if at all");
            circuit.record(now, kind, *verdict);
        }
        let look = circuit.look(at(1000 * verdicts.len() as u64));
        assert_eq!(matches!(look, Look::Open(_)), open, "{verdicts:?}: {look:?}");
    }

    #[test]
    fn it_opens_on_the_rate_of_failures_and_of_slow_answers() {
        use Verdict::{Good, Slow};
        check(&[DOWN, DOWN], false);
        check(&[DOWN, DOWN, DOWN], true);
        check(&[Good, DOWN, DOWN, Good, Good, DOWN], true);
        check(&[Good, Good, Good, Good, DOWN, DOWN, DOWN], false);
        check(&[Good, Good, Good, Good, DOWN, DOWN, DOWN, DOWN], true);
        check(&[Slow; 5], false);
        check(&[Slow; 6], true);
        check(&[Good, Slow, Slow, Slow, Slow, Slow, Slow], false);
        check(&[Good, Slow, DOWN, Slow, Slow, DOWN], true);
        check(&[Verdict::Limited(Some(Duration::from_secs(30)), Why::Status(429))], true);
        check(&[Verdict::Limited(None, Why::Status(429))], true);
    }

    #[test]
    fn what_is_long_ago_does_not_count() {
        let mut circuit = Circuit::default();
        for ms in [0, 1000, 200_000] {
            circuit.record(at(ms), Kind::Normal, DOWN);
        }
        assert_eq!((circuit.look(at(200_000)), circuit.counts(at(200_000))), (Look::Closed, (1, 0, 1)));
    }

    /// Opens by three failures at this time.
    fn opened(ms: u64) -> Circuit {
        let mut circuit = Circuit::default();
        for _ in 0..3 {
            circuit.record(at(ms), Kind::Normal, DOWN);
        }
        circuit
    }

    #[test]
    fn one_request_finds_out_and_the_others_wait_for_it() {
        let mut circuit = opened(0);
        assert_eq!((circuit.look(at(4999)), circuit.enter(at(4999))), (Look::Open(at(5000)), None));
        assert_eq!(circuit.look(at(5000)), Look::Ready);
        let probe = circuit.enter(at(5000)).unwrap();
        assert_eq!((circuit.look(at(5001)), circuit.enter(at(5001))), (Look::Trying, None));
        circuit.record(at(6000), probe, Verdict::Good);
        assert_eq!((circuit.look(at(6000)), circuit.why()), (Look::Closed, None));
        circuit.record(at(6001), Kind::Normal, DOWN);
        assert_eq!(circuit.look(at(6001)), Look::Closed, "what was before counts no more");
    }

    #[test]
    fn each_failed_try_makes_the_rest_longer_up_to_a_limit() {
        let (mut circuit, mut now) = (opened(0), 0);
        for seconds in [5, 10, 20, 40, 80, 120, 120] {
            assert_eq!(circuit.look(at(now)), Look::Open(at(now + seconds * 1000)));
            now += seconds * 1000;
            let probe = circuit.enter(at(now)).unwrap();
            circuit.record(at(now), probe, DOWN);
        }
        now += 120_000;
        let probe = circuit.enter(at(now)).unwrap();
        circuit.record(at(now), probe, Verdict::Good);
        for _ in 0..3 {
            circuit.record(at(now + 60_000), Kind::Normal, DOWN);
        }
        assert_eq!(circuit.look(at(now + 60_000)), Look::Open(at(now + 65_000)), "it was well for long enough");
    }

    #[test]
    fn a_try_that_says_nothing_leaves_the_place_to_the_next() {
        let mut circuit = opened(0);
        let probe = circuit.enter(at(5000)).unwrap();
        circuit.abandon(probe);
        assert_eq!(circuit.look(at(5000)), Look::Ready);
        let silent = circuit.enter(at(6000)).unwrap();
        assert_eq!(circuit.look(at(35_999)), Look::Trying);
        let second = circuit.enter(at(36_000)).unwrap();
        circuit.record(at(36_001), silent, DOWN);
        assert_eq!(circuit.look(at(36_001)), Look::Trying, "the silent one has lost its say");
        circuit.record(at(36_002), second, Verdict::Good);
        assert_eq!(circuit.look(at(36_002)), Look::Closed);
    }

    #[test]
    fn where_there_is_nothing_else_a_request_goes_through_and_finds_out_too() {
        let mut circuit = opened(0);
        let forced = circuit.force(at(1));
        assert_eq!(circuit.force(at(2)), Kind::Forced);
        circuit.record(at(3), Kind::Forced, Verdict::Good);
        assert_eq!(circuit.look(at(3)), Look::Trying);
        circuit.record(at(4), forced, Verdict::Good);
        assert_eq!(circuit.look(at(4)), Look::Closed);
    }

    #[test]
    fn a_longer_time_that_the_upstream_names_counts_also_while_it_is_open() {
        let mut circuit = opened(0);
        circuit.record(at(1), Kind::Normal, Verdict::Limited(Some(Duration::from_secs(60)), Why::Status(429)));
        assert_eq!(circuit.look(at(1)), Look::Open(at(60_001)));
        circuit.record(at(2), Kind::Normal, Verdict::Limited(Some(Duration::from_secs(1)), Why::Status(429)));
        assert_eq!(circuit.look(at(2)), Look::Open(at(60_001)));
    }

    /// The same by its definition: nothing is forgotten, everything is computed anew.
    #[derive(Debug, Default)]
    struct Naive {
        /// All outcomes of closed times, with the opening after which they came.
        outcomes: Vec<(u64, usize, u32)>,
        /// When it was opened, until when it rests, and when it was closed again.
        openings: Vec<(u64, u64, Option<u64>)>,
        probes: Vec<u64>,
        /// The probe that is finding out.
        trying: Option<u64>,
    }

    impl Naive {
        fn is_closed(&self) -> bool {
            self.openings.last().is_none_or(|(.., closed)| closed.is_some())
        }

        fn look(&self, now: u64) -> Look {
            match (self.is_closed(), self.trying, self.openings.last()) {
                (true, ..) => Look::Closed,
                (_, Some(since), _) if now < since + 30_000 => Look::Trying,
                (_, Some(_), _) => Look::Ready,
                (_, None, Some((_, until, _))) if now < *until => Look::Open(at(*until)),
                _ => Look::Ready,
            }
        }

        fn open(&mut self, now: u64, wait: Option<u64>) {
            // Openings in a row, each less than a minute after the circuit was closed.
            let mut row = 0;
            let mut later = now;
            for (began, _, closed) in self.openings.iter().rev() {
                if closed.is_some_and(|closed| later >= closed + 60_000) {
                    break;
                }
                (row, later) = (row + 1, *began);
            }
            let rest = (0..row).fold(5000, |rest: u64, _| (rest * 2).min(120_000));
            self.openings.push((now, now + wait.unwrap_or(rest), None));
            self.trying = None;
        }

        fn weigh(&mut self, now: u64, weight: u32) {
            let era = self.openings.len();
            self.outcomes.push((now, era, weight));
            let recent = self.outcomes.iter().rev().filter(|(_, of, _)| *of == era).take(32);
            let weights: Vec<u32> =
                recent.filter(|(when, ..)| *when + 120_000 >= now).map(|(.., weight)| *weight).collect();
            let sum: u32 = weights.iter().sum();
            if weight > 0 && sum >= 6 && 2 * sum >= 2 * weights.len() as u32 {
                self.open(now, None);
            }
        }

        fn record(&mut self, now: u64, kind: Kind, verdict: Verdict) {
            let decides = matches!(kind, Kind::Probe { since } if self.trying.map(at) == Some(since));
            match verdict {
                Verdict::Limited(wait, _) if decides || self.is_closed() => {
                    self.open(now, wait.map(|wait| wait.as_millis() as u64));
                }
                Verdict::Limited(Some(wait), _) if self.trying.is_none() => {
                    let last = self.openings.last_mut().unwrap();
                    last.1 = last.1.max(now + wait.as_millis() as u64);
                }
                Verdict::Failed(_) if decides => self.open(now, None),
                Verdict::Good | Verdict::Slow if decides => {
                    self.openings.last_mut().unwrap().2 = Some(now);
                    self.trying = None;
                }
                Verdict::Good if self.is_closed() => self.weigh(now, 0),
                Verdict::Slow if self.is_closed() => self.weigh(now, 1),
                Verdict::Failed(_) if self.is_closed() => self.weigh(now, 2),
                _ => {}
            }
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Pass(u64),
        Enter,
        Force,
        End(prop::sample::Index, Verdict),
        Abandon(prop::sample::Index),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let verdict = prop_oneof![
            4 => Just(Verdict::Good),
            4 => Just(DOWN),
            2 => Just(Verdict::Slow),
            1 => (0u64..200).prop_map(|s| Verdict::Limited(Some(Duration::from_secs(s)), Why::Status(429))),
            1 => Just(Verdict::Limited(None, Why::Status(429))),
        ];
        let step = prop_oneof![
            3 => (0u64..20_000).prop_map(Step::Pass),
            1 => (0u64..200_000).prop_map(Step::Pass),
            8 => Just(Step::Enter),
            1 => Just(Step::Force),
            8 => (any::<prop::sample::Index>(), verdict).prop_map(|(which, verdict)| Step::End(which, verdict)),
            1 => any::<prop::sample::Index>().prop_map(Step::Abandon),
        ];
        prop::collection::vec(step, 1..200)
    }

    proptest! {
        #[test]
        fn it_does_what_its_definition_says(steps in steps()) {
            let (mut circuit, mut naive, mut now) = (Circuit::default(), Naive::default(), 1u64);
            let mut running: Vec<Kind> = Vec::new();
            for step in steps {
                // Each step has its own moment, as real ones do.
                now += 1;
                match step {
                    Step::Pass(ms) => now += ms,
                    Step::Enter | Step::Force => {
                        let look = naive.look(now);
                        let forced = matches!(step, Step::Force);
                        let kind = if forced { Some(circuit.force(at(now))) } else { circuit.enter(at(now)) };
                        let (is_open, is_ready) = (matches!(look, Look::Open(_)), look == Look::Ready);
                        let want = match look {
                            Look::Closed => Some(Kind::Normal),
                            _ if is_ready || forced && is_open => {
                                naive.trying = Some(now);
                                naive.probes.push(now);
                                Some(Kind::Probe { since: at(now) })
                            }
                            _ => forced.then_some(Kind::Forced),
                        };
                        prop_assert_eq!(kind, want);
                        running.extend(kind);
                    }
                    Step::End(which, verdict) if !running.is_empty() => {
                        let kind = running.swap_remove(which.index(running.len()));
                        circuit.record(at(now), kind, verdict);
                        naive.record(now, kind, verdict);
                    }
                    Step::Abandon(which) if !running.is_empty() => {
                        let kind = running.swap_remove(which.index(running.len()));
                        circuit.abandon(kind);
                        if matches!(kind, Kind::Probe { since } if naive.trying.map(at) == Some(since)) {
                            naive.trying = None;
                            naive.openings.last_mut().unwrap().1 = 0;
                        }
                    }
                    Step::End(..) | Step::Abandon(_) => {}
                }
                prop_assert_eq!(circuit.look(at(now)), naive.look(now));
                prop_assert!(circuit.recent.len() <= RECENT);
            }
        }
    }
}
