//! A thread that watches what others wait for, without any CUDA.
//!
//! The driver has no way to wait for one of many events, so the watcher looks at them in turn. It
//! looks only at the lowest of each lane (a stream's timeline), for a lane completes in order; and
//! it pauses for a sixteenth of the time that nothing has happened, at most a millisecond, so that
//! a wait is told late by at most that share and a long one costs next to nothing.
//!
//! # The protocol
//!
//! | `thread` | meaning | who moves it on |
//! |---|---|---|
//! | `None` | no thread yet | `watch`, which starts it |
//! | `Awake` | it will look at everything in `watched` | itself, when it sees `watched` empty |
//! | `Asleep` | it parks until woken | `watch`, which makes it `Awake` and unparks it |
//!
//! *Invariant: while `watched` is not empty, the thread is `Awake` or about to be started.* All of
//! it is under one lock; looking happens outside of it.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    error::{Error, Result},
    sync::{Mutex, lock, park, thread},
};

/// Something to look at until it is settled.
pub(super) trait Watched: Send + Sync + 'static {
    /// Its lane, and its place there: of a lane, only the lowest is looked at.
    fn key(&self) -> (usize, u64);

    /// Looks, without blocking, and tells those who wait. `true` when there is nothing more to
    /// watch.
    fn look(&self) -> bool;
}

pub(super) struct Watcher<W> {
    shared: Arc<Shared<W>>,
}

struct Shared<W> {
    state: Mutex<State<W>>,
    /// Called first on the watcher's thread.
    prepare: fn(),
}

struct State<W> {
    watched: BTreeMap<(usize, u64), Arc<W>>,
    thread: Thread,
}

enum Thread {
    None,
    Awake(Option<thread::Thread>),
    Asleep(thread::Thread),
}

/// How long it looks without any pause.
const EAGER: Duration = Duration::from_micros(50);
const SHORTEST: Duration = Duration::from_micros(10);
const LONGEST: Duration = Duration::from_millis(1);

impl<W: Watched> Watcher<W> {
    pub(super) fn new(prepare: fn()) -> Watcher<W> {
        Watcher {
            shared: Arc::new(Shared {
                state: Mutex::new(State {
                    watched: BTreeMap::new(),
                    thread: Thread::None,
                }),
                prepare,
            }),
        }
    }

    /// Watches `what` from now on; no-op when something with its key is watched already.
    pub(super) fn watch(&self, what: W) -> Result<()> {
        let mut state = lock(&self.shared.state);
        state
            .watched
            .entry(what.key())
            .or_insert_with(|| Arc::new(what));
        match std::mem::replace(&mut state.thread, Thread::Awake(None)) {
            Thread::Awake(running) => {
                // It may be in a pause that is long for something new.
                let wake = running.clone();
                state.thread = Thread::Awake(running);
                drop(state);
                if let Some(thread) = wake {
                    thread.unpark();
                }
                Ok(())
            }
            Thread::Asleep(thread) => {
                state.thread = Thread::Awake(Some(thread.clone()));
                drop(state);
                thread.unpark();
                Ok(())
            }
            Thread::None => {
                let shared = self.shared.clone();
                // Under the lock: whoever came meanwhile would count on a thread that there may
                // never be.
                let spawned = thread::Builder::new()
                    .name("fencepost-cuda".into())
                    .spawn(move || run(&shared));
                spawned.map(drop).map_err(|error| {
                    state.thread = Thread::None;
                    state.watched.clear();
                    Error::Backend {
                        call: "std::thread::Builder::spawn",
                        code: error.raw_os_error().unwrap_or(-1).into(),
                        text: format!("{error}; end some threads, or raise the process's limit"),
                    }
                })
            }
        }
    }
}

fn run<W: Watched>(shared: &Shared<W>) {
    (shared.prepare)();
    let mut quiet_since = Instant::now();
    loop {
        let mut state = lock(&shared.state);
        if state.watched.is_empty() {
            // Under loom the model ends here, since nothing else would.
            if cfg!(loom) {
                state.thread = Thread::None;
                return;
            }
            state.thread = Thread::Asleep(thread::current());
            drop(state);
            park(None);
            // An unpark that was meant for a pause: whoever watches next finds `Asleep` or has made
            // it `Awake`; looking once more harms nothing.
            let mut state = lock(&shared.state);
            if !state.watched.is_empty() {
                state.thread = Thread::Awake(Some(thread::current()));
            }
            quiet_since = Instant::now();
            continue;
        }
        if let Thread::Awake(running @ None) = &mut state.thread {
            *running = Some(thread::current());
        }
        let lowest = lowest(&state.watched);
        drop(state);
        let mut settled = false;
        for what in lowest {
            if what.look() {
                settled = true;
                lock(&shared.state).watched.remove(&what.key());
            }
        }
        if settled {
            quiet_since = Instant::now();
        } else {
            pause(quiet_since.elapsed());
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

fn pause(quiet: Duration) {
    if cfg!(loom) || quiet < EAGER {
        thread::yield_now();
    } else {
        park(Some((quiet / 16).clamp(SHORTEST, LONGEST)));
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::{
        sync::{AtomicUsize, Ordering},
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

    #[test]
    fn whoever_registers_and_watches_is_told() {
        loom::model(|| {
            let watcher = Arc::new(Watcher::<Ready>::new(|| ()));
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
            let waiter = {
                let timeline = timeline.clone();
                thread::spawn(move || timeline.wait(2, None).unwrap())
            };
            assert!(waiter.join().unwrap());
            // A thread that looks may see the value before the callbacks are fired; they are,
            // though: were they not, this would never end, which loom reports.
            while told.load(Ordering::SeqCst) != 2 {
                thread::yield_now();
            }
        });
    }
}
