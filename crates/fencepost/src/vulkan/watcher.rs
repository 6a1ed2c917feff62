//! A thread that waits for what others want to be told of, without any Vulkan.
//!
//! It sleeps in the driver until one of many semaphores has come to its value; one more semaphore
//! is there to wake it for something new. Of a lane (a stream's epoch) it waits only for the
//! lowest, for a lane completes in order.
//!
//! # The protocol
//!
//! | `thread` | meaning | who moves it on |
//! |---|---|---|
//! | `None` | no thread yet | `watch`, which starts it |
//! | `Awake` | it will look at everything in `watched` before it sleeps | itself |
//! | `Asleep` | it sleeps in the driver until something is due or `sequence` is signalled | itself, or `watch` and `look_again`, which signal |
//! | `Parked` | nothing is watched | `watch`, which unparks it, or `close` |
//!
//! *Invariant: what is in `watched` is slept for, or the thread is `Awake`.* All of it is under one
//! lock, also the signal of a sequence, so that turns are signalled in order; looking and sleeping
//! happen outside of it.

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use crate::{
    error::{Error, Result},
    sync::{Mutex, lock, park, thread},
};

/// Something to look at until it is settled.
pub(super) trait Watched: Send + Sync + 'static {
    /// Its lane, and its place there: of a lane, only the lowest is waited for.
    fn key(&self) -> (usize, u64);

    /// Looks, without blocking, and tells those who wait. `true` when there is nothing more to
    /// watch.
    fn look(&self) -> bool;
}

/// How the thread sleeps.
pub(super) trait Sleep<W>: Send + Sync + 'static {
    /// Until one of `lowest` may be settled or `sequence` is signalled. May come back early.
    fn sleep(&self, lowest: &[Arc<W>], sequence: u64);

    /// Signals `sequence`. Called under a lock, with growing turns.
    fn wake(&self, sequence: u64);
}

pub(super) struct Watcher<W, S> {
    shared: Arc<Shared<W, S>>,
}

struct Shared<W, S> {
    state: Mutex<State<W>>,
    sleep: S,
}

struct State<W> {
    watched: BTreeMap<(usize, u64), Arc<W>>,
    thread: Thread,
    /// The last sequence that was signalled.
    sequence: u64,
    closed: bool,
    /// The process is ending: the driver is not to be called any more.
    leaving: bool,
}

enum Thread {
    None,
    Awake,
    Asleep,
    Parked(thread::Thread),
}

impl<W: Watched, S: Sleep<W>> Watcher<W, S> {
    pub(super) fn new(sleep: S) -> Watcher<W, S> {
        Watcher {
            shared: Arc::new(Shared {
                state: Mutex::new(State {
                    watched: BTreeMap::new(),
                    thread: Thread::None,
                    sequence: 0,
                    closed: false,
                    leaving: false,
                }),
                sleep,
            }),
        }
    }

    pub(super) fn sleeper(&self) -> &S {
        &self.shared.sleep
    }

    /// Watches `what` from now on; no-op when something with its key is watched already.
    pub(super) fn watch(&self, what: W) -> Result<()> {
        let what = Arc::new(what);
        let mut state = lock(&self.shared.state);
        if state.leaving {
            return Ok(());
        }
        state.watched.entry(what.key()).or_insert(what);
        match std::mem::replace(&mut state.thread, Thread::Awake) {
            Thread::Awake => Ok(()),
            Thread::Asleep => {
                state.sequence += 1;
                self.shared.sleep.wake(state.sequence);
                Ok(())
            }
            Thread::Parked(thread) => {
                drop(state);
                thread.unpark();
                Ok(())
            }
            Thread::None => self.start(&mut state).inspect_err(|_| {
                // Without a thread there was nothing to watch before.
                state.thread = Thread::None;
                let refused = std::mem::take(&mut state.watched);
                drop(state);
                drop(refused);
            }),
        }
    }

    /// Under the lock: what others watch meanwhile would be lost with a thread that cannot be
    /// started.
    fn start(&self, _: &mut State<W>) -> Result<()> {
        let shared = self.shared.clone();
        let spawned = thread::Builder::new()
            .name("fencepost-vulkan".into())
            .spawn(move || run(&shared));
        spawned.map(drop).map_err(|error| Error::Backend {
            call: "std::thread::Builder::spawn",
            code: error.raw_os_error().unwrap_or(-1).into(),
            text: format!("{error}; end some threads, or raise the process's limit"),
        })
    }

    /// Has everything looked at again: what is waited for may have changed.
    pub(super) fn look_again(&self) {
        let mut state = lock(&self.shared.state);
        if matches!(state.thread, Thread::Asleep) && !state.leaving {
            state.thread = Thread::Awake;
            state.sequence += 1;
            self.shared.sleep.wake(state.sequence);
        }
    }

    /// Takes the thread out of the driver, for good; `false` while it is still there. What is
    /// watched is never told.
    pub(super) fn leave(&self) -> bool {
        let mut state = lock(&self.shared.state);
        if !std::mem::replace(&mut state.leaving, true) && matches!(state.thread, Thread::Asleep) {
            state.sequence += 1;
            self.shared.sleep.wake(state.sequence);
        }
        matches!(state.thread, Thread::None | Thread::Parked(_))
    }

    /// Lets the thread end; nothing is watched any more.
    pub(super) fn close(&self) {
        let mut state = lock(&self.shared.state);
        state.closed = true;
        if let Thread::Parked(thread) = &state.thread {
            let thread = thread.clone();
            drop(state);
            thread.unpark();
        }
    }
}

fn run<W: Watched, S: Sleep<W>>(shared: &Shared<W, S>) {
    loop {
        let mut state = lock(&shared.state);
        if state.leaving {
            state.thread = Thread::None;
            return;
        }
        if state.watched.is_empty() {
            // Under loom the model ends here, since nothing else would.
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
        state.thread = Thread::Asleep;
        drop(state);
        shared.sleep.sleep(&lowest, sequence);
        let mut state = lock(&shared.state);
        state.thread = Thread::Awake;
        let leaving = state.leaving;
        drop(state);
        if leaving {
            // Not even to be dropped: that may call the driver.
            std::mem::forget(lowest);
            continue;
        }
        for what in lowest {
            if what.look() {
                let settled = lock(&shared.state).watched.remove(&what.key());
                // What it holds goes without the lock.
                drop(settled);
            }
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

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::{
        sync::{AtomicU64, AtomicUsize, Ordering},
        timeline::{Timeline, Waiter, loom_tests::stream_core},
    };

    /// Sleeps by looking; what is due is due at once, so that the model ends.
    struct Nap(AtomicU64);

    impl Sleep<Ready> for Nap {
        fn sleep(&self, _: &[Arc<Ready>], _: u64) {
            thread::yield_now();
        }
        fn wake(&self, sequence: u64) {
            assert_eq!(
                self.0.swap(sequence, Ordering::SeqCst) + 1,
                sequence,
                "wake sequence is in order"
            );
        }
    }

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

    #[test]
    fn whoever_registers_and_watches_is_told() {
        loom::model(|| {
            let watcher = Watcher::<Ready, Nap>::new(Nap(AtomicU64::new(0)));
            let told = Arc::new(AtomicUsize::new(0));
            let timeline = Timeline::new(stream_core(), 0);
            for value in [1, 2] {
                let count = told.clone();
                let call = Waiter::Call(Box::new(move |_| {
                    count.fetch_add(1, Ordering::SeqCst);
                }));
                if let Err(waiter) = timeline.register(value, call) {
                    waiter.fire(&Ok(()));
                }
                let timeline = timeline.clone();
                watcher.watch(Ready { timeline, value }).unwrap();
            }
            // Were one never told, this would never end, which loom reports.
            while told.load(Ordering::SeqCst) != 2 {
                thread::yield_now();
            }
        });
    }
}
