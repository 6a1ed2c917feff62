//! What an event holds, and the lock of it.
//!
//! A record that changes the held marker in place needs two things to itself: the slot, and the next value of
//! its stream. Each has a lock, and an atomic read-modify-write is the dearest part of a record that is ours. So
//! a slot whose marker was changed in place is *lent* to the stream: from then on the stream's own lock, which
//! such a record takes anyway, guards the slot as well.
//!
//! # The protocol
//!
//! | `state` | who owns what is held |
//! |---|---|
//! | `OWN` | whoever has the slot's own lock |
//! | `LENT` | whoever has the lock of the stream that is `home` |
//! | `TAKEN` | one thread, which changes the marker in place, and may be inside the driver: it has no lock |
//!
//! *Invariant: only an owner writes `state`, as the last thing it does while it is one, and at no time are there
//! two.* A thread takes the lock that `state` names, then looks again. What it sees then is true: each change
//! away from a lock's own state is made by a holder of that lock, so whoever takes the lock later sees it. So
//! of two threads that each hold one of the locks, one at most finds its own state, and nobody finds his while
//! the slot is taken. Every change of `state` is a release, and every look an acquire, so the next owner sees
//! what the last one did. `loom_tests` explores it.
//!
//! Nobody who has one of these locks waits for another: the locks need no order.

#![allow(unsafe_code)]

use std::sync::{Arc, OnceLock};

use crate::{
    marker::Marker,
    sync::{AtomicU64, BriefGuard, BriefLock, Ordering, UnsafeCell, look_until},
    timeline::{StreamCore, Timeline},
};

/// The place for a marker, which any number of threads may use.
pub(crate) struct Slot {
    state: AtomicU64,
    lock: BriefLock,
    home: OnceLock<Home>,
    held: UnsafeCell<Held>,
}

// SAFETY: `held` is reached by its owner alone, and one owner sees what the last one did: the protocol above. So
// it is what a `Mutex` is, which is `Sync` for what is `Send`.
unsafe impl Sync for Slot where Held: Send {}

/// The timeline of the first stream whose records the event has made again, where timelines alone tell the
/// status: re-recording on that stream, which is what most events do, keeps queries free of locks.
pub(crate) struct Home {
    pub(crate) timeline: Arc<Timeline>,
    /// Whether it also tells that a marker is pending.
    pub(crate) tells_all: bool,
}

/// What an event holds.
pub(crate) struct Held {
    pub(crate) marker: Option<Marker>,
    /// Whether the marker has timing exactly if the event has: then it may be recorded again.
    pub(crate) is_like_ours: bool,
    /// Counts the markers.
    pub(crate) generation: u64,
    /// Whether the slot is to be lent to the home stream.
    pub(crate) lend: bool,
}

/// The lock that guards a slot now.
pub(crate) struct Lock<'a> {
    _guard: BriefGuard<'a>,
    /// The stream whose lock it is.
    stream: Option<&'a StreamCore>,
}

const OWN: u64 = 0;
const LENT: u64 = 1;
const TAKEN: u64 = 2;

impl Lock<'_> {
    /// Whether it is the lock of `stream`.
    #[inline]
    pub(crate) fn is_of(&self, stream: &StreamCore) -> bool {
        self.stream.is_some_and(|mine| std::ptr::eq(mine, stream))
    }
}

impl Slot {
    pub(crate) fn new() -> Slot {
        Slot {
            state: AtomicU64::new(OWN),
            lock: BriefLock::new(),
            home: OnceLock::new(),
            held: UnsafeCell::new(Held {
                marker: None,
                is_like_ours: true,
                generation: 0,
                lend: false,
            }),
        }
    }

    #[inline]
    pub(crate) fn home(&self) -> Option<&Home> {
        self.home.get()
    }

    /// The home: `timeline`, from now on, if there was none.
    #[inline]
    pub(crate) fn home_or(&self, timeline: &Arc<Timeline>, tells_all: bool) -> &Home {
        self.home.get_or_init(|| Home {
            timeline: timeline.clone(),
            tells_all,
        })
    }

    /// Takes the lock that guards what is held, once nobody changes that in place.
    #[inline]
    fn lock(&self) -> Lock<'_> {
        loop {
            let state = self.state.load(Ordering::Acquire);
            if state == TAKEN {
                self.wait();
                continue;
            }
            // Nothing is lent before there is a home.
            let stream = match (state, self.home.get()) {
                (LENT, Some(home)) => Some(&*home.timeline.stream),
                _ => None,
            };
            let guard = match stream {
                Some(stream) => stream.order.lock(),
                None => self.lock.lock(),
            };
            if self.state.load(Ordering::Acquire) == state {
                return Lock {
                    _guard: guard,
                    stream,
                };
            }
        }
    }

    /// Waits while somebody changes it in place: for long only where the driver's queue is full.
    #[cold]
    fn wait(&self) {
        look_until(|| self.state.load(Ordering::Relaxed) != TAKEN);
    }

    /// Calls `f` with what is held, under the lock: briefly, calling no driver and taking no lock.
    #[inline]
    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut Held) -> R) -> R {
        let lock = self.lock();
        let (result, lend) = self.held.with_mut(|held| {
            // SAFETY: whoever has this lock while `state` names it is the only owner.
            let held = unsafe { &mut *held };
            (f(held), held.lend)
        });
        if lend != lock.stream.is_some() {
            self.leave(lend);
        }
        result
    }

    /// Calls `f` with what is held, which is the caller's alone until `f` returns, also once `f` has dropped
    /// the lock: then it may take its time.
    #[inline]
    pub(crate) fn take<R>(&self, f: impl FnOnce(&mut Held, Lock<'_>) -> R) -> R {
        struct Leave<'a>(&'a Slot);
        impl Drop for Leave<'_> {
            fn drop(&mut self) {
                let lend = self.0.held.with_mut(|held| {
                    // SAFETY: still the only owner, and `f` has returned.
                    unsafe { (*held).lend }
                });
                self.0.leave(lend);
            }
        }

        let lock = self.lock();
        self.state.store(TAKEN, Ordering::Release);
        let _leave = Leave(self);
        self.held.with_mut(|held| {
            // SAFETY: whoever has this lock while `state` names it is the only owner, and with `TAKEN` it stays
            // so without the lock.
            f(unsafe { &mut *held }, lock)
        })
    }

    /// Lets the next owner in.
    #[inline]
    fn leave(&self, lend: bool) {
        let state = match lend {
            true => LENT,
            false => OWN,
        };
        self.state.store(state, Ordering::Release);
    }

    /// Whether the home stream's lock guards it.
    #[cfg(all(test, loom))]
    pub(crate) fn is_lent(&self) -> bool {
        self.state.load(Ordering::Acquire) == LENT
    }

    /// Without locking: nobody else can be inside.
    pub(crate) fn take_marker(&mut self) -> Option<Marker> {
        self.held.with_mut(|held| {
            // SAFETY: `self` is borrowed exclusively.
            unsafe { (*held).marker.take() }
        })
    }
}
