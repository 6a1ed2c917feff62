//! The thread that sleeps until the device completes something: one for each device that is waited
//! for.
//!
//! Callbacks, futures, parked host streams and waits with a deadline are registered with a
//! [`Timeline`](crate::timeline::Timeline). The watcher is who advances it. Nothing in here knows a
//! driver: a backend says what is watched ([`Watched`]) and how the thread sleeps ([`Sleep`]).
//!
//! What is watched is sorted into lanes. A lane completes in order (it is a stream's timeline), so
//! the thread looks at the lowest of each lane only.
//!
//! # The protocol
//!
//! | `thread` | meaning | who moves it on |
//! |---|---|---|
//! | `None` | there is no thread | `watch`, which starts one |
//! | `Awake` | it sees everything in `watched` before it sleeps again | itself |
//! | `Asleep` | it is in [`Sleep::sleep`], for the lowest of each lane | itself, or `watch`, `look_again` and `leave`, which wake it |
//! | `Parked` | nothing is watched | `watch` and `close`, which unpark it |
//!
//! *Invariant: the thread sleeps for everything in `watched`, or is `Awake`, or about to start.*
//! All of it is under one lock, [`Sleep::wake`] too, so that wake sequences are signalled in order.
//! Looking, sleeping and unparking happen outside of it.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    diagnostics,
    error::{Error, Result},
    sync::{Mutex, MutexGuard, lock, park, thread},
};

/// Something to look at until it is settled.
pub(crate) trait Watched: Send + Sync + 'static {
    /// Its lane, and its place there.
    fn key(&self) -> (usize, u64);

    /// Looks, without blocking, and wakes those who wait. `true` when there is nothing more to
    /// watch.
    fn look(&self) -> bool;
}

/// How the thread sleeps.
pub(crate) trait Sleep<W>: Send + Sync + 'static {
    /// Called first on the thread.
    fn prepare(&self) {}

    /// Sleeps until one of `lowest` may be settled, or [`wake`](Sleep::wake) is called with
    /// `sequence`, or the thread is unparked. May return early. `quiet` is how long nothing was
    /// settled; zero means that there is something to look at right now.
    fn sleep(&self, lowest: &[Arc<W>], sequence: u64, quiet: Duration);

    /// Ends the sleep that was begun with `sequence`, where unparking the thread does not. Called
    /// under a lock, with each number once, in order.
    fn wake(&self, sequence: u64) {
        let _ = sequence;
    }
}

pub(crate) struct Watcher<W, S> {
    shared: Arc<Shared<W, S>>,
}

/// To wake the thread, and to be woken by it, was measured to take some 30 µs.
const SOON: Duration = Duration::from_micros(60);

struct Shared<W, S> {
    /// The thread's name.
    name: &'static str,
    state: Mutex<State<W>>,
    sleep: S,
}

struct State<W> {
    watched: BTreeMap<(usize, u64), Arc<W>>,
    thread: Thread,
    /// The last wake sequence that was signalled.
    sequence: u64,
    /// Whether something was added since the thread last went through `watched`.
    added: bool,
    /// When something was settled last, or came to be watched.
    since: Instant,
    /// How long the thread waited for what was settled last: zero where that was so at once.
    waited: Duration,
    /// Whether the thread is to end once nothing is watched.
    closed: bool,
    /// Whether the process is ending: the driver must not be called any more.
    leaving: bool,
}

enum Thread {
    None,
    Awake,
    Asleep(thread::Thread),
    Parked(thread::Thread),
}

impl<W: Watched, S: Sleep<W>> Watcher<W, S> {
    /// Starts no thread yet. `name` is what the thread will be called.
    pub(crate) fn new(name: &'static str, sleep: S) -> Watcher<W, S> {
        Watcher {
            shared: Arc::new(Shared {
                name,
                state: Mutex::new(State {
                    watched: BTreeMap::new(),
                    thread: Thread::None,
                    sequence: 0,
                    added: false,
                    since: Instant::now(),
                    waited: Duration::ZERO,
                    closed: false,
                    leaving: false,
                }),
                sleep,
            }),
        }
    }

    /// Watches `what` from now on. Does nothing when something with its key is watched already; the
    /// caller must then hold what `what` holds, since it is dropped under the lock.
    pub(crate) fn watch(&self, what: W) -> Result<()> {
        let mut state = lock(&self.shared.state);
        if state.leaving {
            return Ok(());
        }
        // Also beside something that is watched for long: the pauses are short again.
        state.since = Instant::now();
        state
            .watched
            .entry(what.key())
            .or_insert_with(|| Arc::new(what));
        state.added = true;
        match &state.thread {
            Thread::Awake => Ok(()),
            Thread::Asleep(_) => {
                self.shared.wake(state);
                Ok(())
            }
            Thread::Parked(thread) => {
                let thread = thread.clone();
                state.thread = Thread::Awake;
                drop(state);
                thread.unpark();
                Ok(())
            }
            Thread::None => self.start(state),
        }
    }

    /// Watches what has `key` no longer. Its thread may be looking at it at this moment.
    #[cfg_attr(not(feature = "cuda"), allow(dead_code))]
    pub(crate) fn unwatch(&self, key: (usize, u64)) {
        let gone = lock(&self.shared.state).watched.remove(&key);
        // What it holds is dropped without the lock.
        drop(gone);
    }

    /// Whether something to watch may well be settled before the thread would wake up for it: it
    /// would be alone, and what was watched last took next to no time.
    #[cfg_attr(not(any(feature = "cuda", feature = "opencl")), allow(dead_code))]
    pub(crate) fn may_settle_soon(&self) -> bool {
        let state = lock(&self.shared.state);
        state.watched.is_empty() && state.waited < SOON
    }

    /// Starts the thread, under the lock: what others add meanwhile would be lost with a thread
    /// that cannot be started.
    fn start(&self, mut state: MutexGuard<'_, State<W>>) -> Result<()> {
        let shared = self.shared.clone();
        let spawned = thread::Builder::new()
            .name(shared.name.into())
            .spawn(move || run(&shared));
        let Err(error) = spawned else {
            state.thread = Thread::Awake;
            return Ok(());
        };
        // Without a thread nothing was watched before.
        let refused = std::mem::take(&mut state.watched);
        drop(state);
        drop(refused);
        let error = Error::no_thread(&error);
        diagnostics::thread_not_started(self.shared.name, &error);
        Err(error)
    }
}

/// For devices that end, and drivers that are taken apart when the process ends.
#[cfg_attr(not(feature = "vulkan"), allow(dead_code))]
impl<W: Watched, S: Sleep<W>> Watcher<W, S> {
    pub(crate) fn sleeper(&self) -> &S {
        &self.shared.sleep
    }

    /// Has everything looked at again: what the thread sleeps for may have changed.
    pub(crate) fn look_again(&self) {
        let state = lock(&self.shared.state);
        if !state.leaving {
            self.shared.wake(state);
        }
    }

    /// Takes the thread out of the driver, for good; `false` while it is still there. Those who
    /// wait for what is watched are never woken.
    pub(crate) fn leave(&self) -> bool {
        let mut state = lock(&self.shared.state);
        state.leaving = true;
        let left = matches!(state.thread, Thread::None | Thread::Parked(_));
        self.shared.wake(state);
        left
    }

    /// Lets the thread end. Nothing is watched any more.
    pub(crate) fn close(&self) {
        let mut state = lock(&self.shared.state);
        state.closed = true;
        if let Thread::Parked(thread) = &state.thread {
            let thread = thread.clone();
            drop(state);
            thread.unpark();
        }
    }
}

impl<W: Watched, S: Sleep<W>> Shared<W, S> {
    /// Wakes the thread if it is asleep.
    fn wake(&self, mut state: MutexGuard<'_, State<W>>) {
        let Thread::Asleep(thread) = &state.thread else {
            return;
        };
        let thread = thread.clone();
        state.thread = Thread::Awake;
        state.sequence += 1;
        self.sleep.wake(state.sequence);
        drop(state);
        thread.unpark();
    }
}

fn run<W: Watched, S: Sleep<W>>(shared: &Shared<W, S>) {
    shared.sleep.prepare();
    let mut settled = true;
    loop {
        let mut state = lock(&shared.state);
        if state.leaving {
            state.thread = Thread::None;
            return;
        }
        if state.watched.is_empty() {
            // Under loom the model ends here, since nothing else would end it.
            if state.closed || cfg!(loom) {
                state.thread = Thread::None;
                return;
            }
            state.thread = Thread::Parked(thread::current());
            drop(state);
            park(None);
            continue;
        }
        let lowest = lowest(&state.watched);
        let sequence = state.sequence + 1;
        let quiet = match std::mem::take(&mut state.added) || settled {
            true => Duration::ZERO,
            false => state.since.elapsed(),
        };
        state.thread = Thread::Asleep(thread::current());
        drop(state);
        shared.sleep.sleep(&lowest, sequence, quiet);
        let mut state = lock(&shared.state);
        state.thread = Thread::Awake;
        let leaving = state.leaving;
        drop(state);
        if leaving {
            // Dropping what is watched may call the driver.
            std::mem::forget(lowest);
            continue;
        }
        settled = false;
        for what in lowest {
            if what.look() {
                settled = true;
                let over = lock(&shared.state).watched.remove(&what.key());
                // What it holds is dropped without the lock.
                drop(over);
            }
        }
        if settled {
            let mut state = lock(&shared.state);
            state.since = Instant::now();
            state.waited = quiet;
        }
    }
}

/// The lowest of each lane.
fn lowest<W>(watched: &BTreeMap<(usize, u64), Arc<W>>) -> Vec<Arc<W>> {
    let mut found = Vec::new();
    let mut after = Bound::Unbounded;
    while let Some((&(lane, _), what)) = watched.range((after, Bound::Unbounded)).next() {
        found.push(what.clone());
        after = Bound::Excluded((lane, u64::MAX));
    }
    found
}

#[cfg(any(feature = "cuda", feature = "wgpu30", loom))]
pub(crate) const SHORTEST_PAUSE: Duration = Duration::from_micros(20);
#[cfg(any(feature = "cuda", feature = "wgpu30", loom))]
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_millis(1);

/// How long to pause before the next look, where nothing has happened for `quiet`: a hundredth of
/// that, but 20 µs at least and a millisecond at most. So latency is at most 1/100 of the wait, and
/// a long wait costs next to nothing.
#[cfg(any(feature = "cuda", feature = "wgpu30", loom))]
pub(crate) fn pause_after(quiet: Duration) -> Duration {
    (quiet / 100).clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
}

/// Sleep for drivers that cannot wait for one of many: pauses that grow, with a look behind each.
/// A look with its pause takes some 4 µs of a core (H200).
#[cfg(any(feature = "cuda", loom))]
pub(crate) struct Pauses {
    /// Called first on the thread.
    pub(crate) prepare: fn(),
}

#[cfg(any(feature = "cuda", loom))]
impl<W> Sleep<W> for Pauses {
    fn prepare(&self) {
        (self.prepare)();
    }

    fn sleep(&self, _: &[Arc<W>], _: u64, quiet: Duration) {
        if quiet.is_zero() {
            return;
        }
        park(Some(pause_after(quiet)));
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::{
        sync::{AtomicU64, AtomicUsize, Ordering},
        timeline::{Timeline, Waiter, loom_tests::stream_core},
    };

    /// Completes its value the first time it is looked at.
    struct Ready {
        timeline: Arc<Timeline>,
        value: u64,
    }

    impl Watched for Ready {
        fn key(&self) -> (usize, u64) {
            (Arc::as_ptr(&self.timeline) as usize, self.value)
        }
        fn look(&self) -> bool {
            self.timeline.advance(self.value).fire();
            true
        }
    }

    /// Registers for the first two values of `timeline` and has both watched. Counts in `fired` how
    /// many waiters were fired.
    fn watch_two<S: Sleep<Ready>>(
        watcher: &Watcher<Ready, S>,
        timeline: &Arc<Timeline>,
        fired: &Arc<AtomicUsize>,
    ) {
        for value in [1, 2] {
            let count = fired.clone();
            let call = Waiter::Call(Box::new(move |_| {
                count.fetch_add(1, Ordering::SeqCst);
            }));
            if let Err(waiter) = timeline.register(value, call) {
                waiter.fire(&Ok(()));
            }
            let timeline = timeline.clone();
            watcher.watch(Ready { timeline, value }).unwrap();
        }
    }

    /// Were one never fired, this would never end, which loom reports.
    fn both_are_fired(fired: &AtomicUsize) {
        while fired.load(Ordering::SeqCst) != 2 {
            thread::yield_now();
        }
    }

    #[test]
    fn whoever_registers_and_watches_is_woken() {
        loom::model(|| {
            let watcher = Watcher::new("loom", Pauses { prepare: || () });
            let fired = Arc::new(AtomicUsize::new(0));
            let timeline = Timeline::new(stream_core(), 0);
            watch_two(&watcher, &timeline, &fired);
            let waiter = {
                let timeline = timeline.clone();
                thread::spawn(move || timeline.wait(2, None).unwrap())
            };
            assert!(waiter.join().unwrap());
            // A thread that looks may see the value before the callbacks are fired.
            both_are_fired(&fired);
        });
    }

    #[test]
    fn what_is_taken_back_takes_nothing_else_with_it() {
        loom::model(|| {
            let watcher = Watcher::new("loom", Pauses { prepare: || () });
            let watch = |fired: &Arc<AtomicUsize>| {
                let timeline = Timeline::new(stream_core(), 0);
                let count = fired.clone();
                let call = Waiter::Call(Box::new(move |_| {
                    count.fetch_add(1, Ordering::SeqCst);
                }));
                assert!(timeline.register(1, call).is_ok());
                let ready = Ready { timeline, value: 1 };
                let key = ready.key();
                watcher.watch(ready).unwrap();
                key
            };
            let first = watch(&Arc::new(AtomicUsize::new(0)));
            watcher.unwatch(first);
            // The thread may have ended in between, or be about to sleep: this one is seen.
            let fired = Arc::new(AtomicUsize::new(0));
            watch(&fired);
            while fired.load(Ordering::SeqCst) == 0 {
                thread::yield_now();
            }
        });
    }

    /// Sleeps by looking, as in a driver. What is due is due at once, so that the model ends.
    struct Nap(AtomicU64);

    impl Sleep<Ready> for Nap {
        fn sleep(&self, _: &[Arc<Ready>], _: u64, _: Duration) {
            thread::yield_now();
        }
        fn wake(&self, sequence: u64) {
            let before = self.0.swap(sequence, Ordering::SeqCst);
            assert_eq!(before + 1, sequence, "wake sequences are in order");
        }
    }

    #[test]
    fn whoever_wakes_the_driver_is_woken_and_wakes_in_order() {
        loom::model(|| {
            let watcher = Watcher::new("loom", Nap(AtomicU64::new(0)));
            let fired = Arc::new(AtomicUsize::new(0));
            let timeline = Timeline::new(stream_core(), 0);
            watch_two(&watcher, &timeline, &fired);
            both_are_fired(&fired);
        });
    }

    /// Due once `after` is set, and sets `sets`.
    struct Link {
        lane: usize,
        after: Arc<AtomicUsize>,
        sets: Arc<AtomicUsize>,
    }

    impl Watched for Link {
        fn key(&self) -> (usize, u64) {
            (self.lane, 0)
        }
        fn look(&self) -> bool {
            let due = self.after.load(Ordering::SeqCst) != 0;
            if due {
                self.sets.store(1, Ordering::SeqCst);
            }
            due
        }
    }

    /// Blocks until something is due or the sequence is signalled, as a driver does.
    struct Driver(AtomicU64);

    impl Sleep<Link> for Driver {
        fn sleep(&self, lowest: &[Arc<Link>], sequence: u64, _: Duration) {
            let due = |link: &Arc<Link>| link.after.load(Ordering::SeqCst) != 0;
            while !lowest.iter().any(due) && self.0.load(Ordering::SeqCst) < sequence {
                park(None);
            }
        }
        fn wake(&self, sequence: u64) {
            self.0.store(sequence, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_sleeping_thread_is_woken_for_what_is_new() {
        loom::model(|| {
            let watcher = Watcher::new("loom", Driver(AtomicU64::new(0)));
            let cell = |value| Arc::new(AtomicUsize::new(value));
            let (due, second, fired) = (cell(1), cell(0), cell(0));
            let link = |lane, after: &Arc<AtomicUsize>, sets: &Arc<AtomicUsize>| Link {
                lane,
                after: after.clone(),
                sets: sets.clone(),
            };
            // The first is due only once the thread has looked at the second.
            watcher.watch(link(1, &second, &fired)).unwrap();
            watcher.watch(link(2, &due, &second)).unwrap();
            while fired.load(Ordering::SeqCst) == 0 {
                thread::yield_now();
            }
        });
    }
}
