//! Locks; and in tests, every order in which threads can take them.

#[cfg(not(test))]
mod plain {
    use std::sync::{Mutex, MutexGuard, PoisonError};

    /// What is locked.
    pub type Locked<'m, T> = MutexGuard<'m, T>;

    /// Locks. Whoever panicked while it held the lock left nothing half done.
    pub fn lock<T>(mutex: &Mutex<T>) -> Locked<'_, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(not(test))]
pub use plain::{Locked, lock};

#[cfg(test)]
pub use orders::{Locked, lock};

#[cfg(test)]
pub mod orders {
    //! Threads that take turns: one runs at a time, and another may go on wherever a lock is about to be taken, or where
    //! the one that runs waits. What happened is done again with each other choice, until there is none left. A thread
    //! that could go on is stopped for another one at most so many times in one run, which is where mistakes are: with
    //! any number of stops the runs would have no end.

    use std::cell::RefCell;
    use std::ops::{Deref, DerefMut};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
    use std::task::{Wake, Waker};
    use std::thread::{self, Thread};

    /// What is locked.
    #[derive(Debug)]
    pub struct Locked<'m, T>(Option<MutexGuard<'m, T>>, usize);

    impl<T> Deref for Locked<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            self.0.as_ref().expect("it is there until it is dropped")
        }
    }

    impl<T> DerefMut for Locked<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.0.as_mut().expect("it is there until it is dropped")
        }
    }

    impl<T> Drop for Locked<'_, T> {
        fn drop(&mut self) {
            self.0 = None;
            if let Some((table, _)) = seat() {
                table.released(self.1);
            }
        }
    }

    /// Locks, when it is this thread's turn.
    pub fn lock<T>(mutex: &Mutex<T>) -> Locked<'_, T> {
        let place = std::ptr::from_ref(mutex).addr();
        let plain = || Locked(Some(mutex.lock().unwrap_or_else(PoisonError::into_inner)), place);
        let Some((table, me)) = seat().filter(|_| !thread::panicking()) else { return plain() };
        table.pass(me, Seat::Ready);
        loop {
            match mutex.try_lock() {
                Ok(guard) => return Locked(Some(guard), place),
                Err(TryLockError::Poisoned(why)) => return Locked(Some(why.into_inner()), place),
                Err(TryLockError::WouldBlock) => table.pass(me, Seat::Waits(place)),
            }
        }
    }

    const GIVEN_UP: &str = "nobody can go on";

    thread_local! {
        static SEAT: RefCell<Option<(Arc<Table>, usize)>> = const { RefCell::new(None) };
    }

    fn seat() -> Option<(Arc<Table>, usize)> {
        SEAT.with(|seat| seat.borrow().clone())
    }

    /// What wakes a thread.
    #[derive(Debug, Default)]
    pub struct Bell(AtomicBool);

    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    impl Bell {
        /// One that has not rung.
        pub fn with_waker() -> (Arc<Self>, Waker) {
            let bell = Arc::<Self>::default();
            (bell.clone(), bell.into())
        }

        /// Waits until it rings, and begins anew.
        pub fn wait(self: &Arc<Self>) {
            let (table, me) = seat().expect("it is one of several threads");
            table.pass(me, Seat::Sleeps(self.clone()));
            self.0.store(false, Ordering::SeqCst);
        }
    }

    /// What a thread does.
    enum Seat {
        /// It runs, or could.
        Ready,
        /// It waits for the lock at this place.
        Waits(usize),
        /// It waits for this.
        Sleeps(Arc<Bell>),
        Done,
    }

    impl Seat {
        fn can_run(&self) -> bool {
            match self {
                Self::Ready => true,
                Self::Sleeps(bell) => bell.0.load(Ordering::SeqCst),
                Self::Waits(_) | Self::Done => false,
            }
        }
    }

    /// Threads that take turns.
    struct Table(Mutex<State>);

    struct State {
        seats: Vec<Seat>,
        /// Who has sat down.
        threads: Vec<Option<Thread>>,
        /// Whose turn it is.
        runs: usize,
        /// The choices that are to be made first.
        plan: Vec<usize>,
        /// The choices that were made, each of how many.
        made: Vec<(usize, usize)>,
        /// How often one was stopped that could have gone on.
        stops: usize,
        most_stops: usize,
        /// Nobody can go on, or somebody has panicked.
        over: bool,
    }

    impl Table {
        fn lock(&self) -> MutexGuard<'_, State> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }

        /// Gives the turn to whom it is given, and waits until it comes back.
        fn pass(&self, me: usize, seat: Seat) {
            let mut state = self.lock();
            let is_done = matches!(seat, Seat::Done);
            state.seats[me] = seat;
            state.choose(me);
            // One is woken and not all of them: that is most of what a run takes.
            let woken = if state.over { 0..state.threads.len() } else { state.runs..state.runs + 1 };
            let woken = woken.filter(|other| *other != me).filter_map(|other| state.threads.get(other)?.clone());
            let woken: Vec<Thread> = woken.collect();
            drop(state);
            woken.iter().for_each(Thread::unpark);
            if !is_done {
                let is_over = self.wait(me);
                assert!(!is_over || thread::panicking(), "{GIVEN_UP}");
            }
        }

        /// Waits for this seat's turn; whether it is all over instead.
        fn wait(&self, me: usize) -> bool {
            loop {
                let state = self.lock();
                if state.runs == me || state.over {
                    return state.over;
                }
                drop(state);
                thread::park();
            }
        }

        fn released(&self, place: usize) {
            for seat in &mut self.lock().seats {
                if matches!(seat, Seat::Waits(for_it) if *for_it == place) {
                    *seat = Seat::Ready;
                }
            }
        }
    }

    impl State {
        fn choose(&mut self, me: usize) {
            let can_go_on = self.seats[me].can_run();
            let others = (0..self.seats.len()).filter(|other| *other != me && self.seats[*other].can_run());
            let mut choices: Vec<usize> = can_go_on.then_some(me).into_iter().chain(others).collect();
            if can_go_on && self.stops >= self.most_stops {
                choices.truncate(1);
            }
            let Some(chosen) = (match choices.len() {
                0 => None,
                1 => Some(choices[0]),
                many => {
                    let chosen = self.plan.get(self.made.len()).copied().unwrap_or(0);
                    self.made.push((chosen, many));
                    Some(choices[chosen])
                }
            }) else {
                self.over |= self.seats.iter().any(|seat| !matches!(seat, Seat::Done));
                return;
            };
            self.stops += usize::from(can_go_on && chosen != me);
            self.seats[chosen] = Seat::Ready;
            self.runs = chosen;
        }
    }

    /// What one thread does.
    pub type Part<'p> = Box<dyn FnOnce() + Send + 'p>;

    /// Runs the same parts again and again, in every order that stops a thread at most so many times; `parts` makes what
    /// they work on anew, and `check` looks at it afterwards. How many orders there were.
    pub fn all<W: Sync>(
        most_stops: usize,
        world: impl Fn() -> W,
        parts: fn(&W) -> Vec<Part<'_>>,
        check: impl Fn(W),
    ) -> usize {
        let (mut plan, mut runs) = (Vec::new(), 0);
        loop {
            let world = world();
            let made = run(most_stops, plan, parts(&world));
            check(world);
            runs += 1;
            // The last choice that can be made in another way.
            let Some(last) = made.iter().rposition(|(chosen, of)| chosen + 1 < *of) else { return runs };
            plan = made[..last].iter().map(|(chosen, _)| *chosen).chain([made[last].0 + 1]).collect();
        }
    }

    fn run<'p>(most_stops: usize, plan: Vec<usize>, parts: Vec<Part<'p>>) -> Vec<(usize, usize)> {
        // The last seat is nobody's: it is from there that the first turn is given.
        let seats = parts.iter().map(|_| Seat::Ready).chain([Seat::Done]).collect();
        let threads = vec![None; parts.len()];
        let mut state = State { seats, threads, runs: 0, plan, made: Vec::new(), stops: 0, most_stops, over: false };
        state.choose(parts.len());
        let table = Arc::new(Table(Mutex::new(state)));
        let failed = thread::scope(|scope| {
            let begin = |(me, part): (usize, Part<'p>)| {
                let table = table.clone();
                scope.spawn(move || {
                    SEAT.with(|seat| *seat.borrow_mut() = Some((table.clone(), me)));
                    table.lock().threads[me] = Some(thread::current());
                    table.wait(me);
                    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(part));
                    table.lock().over |= done.is_err();
                    table.pass(me, Seat::Done);
                    done
                })
            };
            let running: Vec<_> = parts.into_iter().enumerate().map(begin).collect();
            let ends = running.into_iter().map(|thread| thread.join().expect("its panic was caught"));
            let mut said: Vec<String> = ends.filter_map(Result::err).map(|why| said(&*why)).collect();
            // Those that were given up because of it say nothing new.
            said.sort_by_key(|said| said.contains(GIVEN_UP));
            said.into_iter().next()
        });
        let made = std::mem::take(&mut table.lock().made);
        if let Some(why) = failed {
            let choices: Vec<usize> = made.iter().map(|(chosen, _)| *chosen).collect();
            panic!("in the order {choices:?}: {why}");
        }
        made
    }

    fn said(why: &(dyn std::any::Any + Send)) -> String {
        let text = why.downcast_ref::<String>().cloned();
        text.or_else(|| why.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default()
    }

    #[test]
    fn all_orders_of_two_threads_are_run_and_what_goes_wrong_in_one_of_them_is_found() {
        // Each adds one to what it read before: in some orders one of the two is lost.
        fn adds(counter: &Mutex<u32>) -> Part<'_> {
            Box::new(move || {
                let before = *lock(counter);
                *lock(counter) = before + 1;
            })
        }
        let found = std::cell::Cell::new((0, 0));
        let orders = all(
            9,
            || Mutex::new(0),
            |counter| vec![adds(counter), adds(counter)],
            |counter| {
                let (right, wrong) = found.get();
                let sum = counter.into_inner().unwrap();
                found.set(if sum == 2 { (right + 1, wrong) } else { (right, wrong + 1) });
            },
        );
        let (right, wrong) = found.get();
        assert!(right > 0 && wrong > 0 && right + wrong == orders, "{right} right, {wrong} wrong, {orders} in all");
    }

    #[test]
    fn threads_that_wait_for_each_other_for_ever_are_found() {
        fn holds<'m>(one: &'m Mutex<()>, two: &'m Mutex<()>) -> Part<'m> {
            Box::new(move || {
                let _held = lock(one);
                drop(lock(two));
            })
        }
        let two = || (Mutex::new(()), Mutex::new(()));
        let hangs = std::panic::catch_unwind(|| all(2, two, |(a, b)| vec![holds(a, b), holds(b, a)], |_| {}));
        assert!(said(&*hangs.unwrap_err()).contains(GIVEN_UP));
    }
}
