//! What an event holds, and recording it again in place.
//!
//! A [`Slot`] is the storage of one event: the marker, what a query needs to know of it, and the
//! lock of both. A backend never sees it. Of an event that is recorded again it gets a
//! [`Rerecord`], by which it may change the held marker in place.
//!
//! # Recording again
//!
//! A marker is immutable for everybody who holds it. Recording an event again makes a new one, but
//! for one case: where the event is the marker's only owner, the backend may record the marker's
//! native object once more and give the marker its new value.
//!
//! | step | by | state of the slot |
//! |---|---|---|
//! | [`Slot::rerecord`] | the event | as it was |
//! | [`Rerecord::begin`] proves that nobody else holds the marker | the backend | `TAKEN` |
//! | takes the stream's next value, drops the lock that `begin` gave, calls the driver | the backend | `TAKEN` |
//! | changes the marker by the [`Recording`], then [`Recording::finish`] | the backend | as the table below says |
//!
//! A backend that stops in between drops the `Recording`; then the event holds what it held before.
//! Nobody can come to hold the marker meanwhile, since only an owner of the slot hands it out.
//!
//! A driver that calls back inside of a call of ours may run code that uses the event, and would
//! wait for ever on a slot that its own thread has taken. OpenCL's backend therefore calls the
//! driver before `begin`. Whether `begin` is likely to succeed then is told by
//! [`Rerecord::may_begin`], without a lock. wgpu's backend calls wgpu after `finish`: the value is
//! staged before, and the next submit carries it, whoever makes that.
//!
//! # The word
//!
//! | low two bits | meaning | high bits |
//! |---|---|---|
//! | `UNRECORDED` | no marker | 0 |
//! | `UNRECORDED` | no marker for anybody but the next record: [`BLANK`] | 1 |
//! | `COMPLETE` | the marker is complete | the generation |
//! | `ASK` | only the marker itself can tell | the generation |
//! | `PRIMARY` | the primary timeline at this value tells | the marker's value |
//!
//! An owner of the slot writes it: with a new marker, where the marker is forgotten, and after a
//! query that found the marker complete, if the word still is the one that the query had read. Each
//! marker to be asked has a generation of its own, which keeps that replacement honest: two words
//! are equal only when they stand for the same marker.
//!
//! # The lock
//!
//! A record that changes the held marker in place needs two things to itself: the slot, and the
//! next value of its stream. Each has a lock, which costs an atomic read-modify-write. So a slot
//! whose marker was changed in place is *delegated* to the stream: from then on the stream's own
//! lock, which such a record takes anyway, guards the slot as well.
//!
//! | `state` | who owns what is held |
//! |---|---|
//! | `OWN` | whoever has the slot's own lock |
//! | `DELEGATED` | whoever has the lock of the stream that is `primary` |
//! | `TAKEN` | one thread, which changes the marker, perhaps in the driver, or reads its time: no lock |
//!
//! *Invariant: only an owner writes `state`, and but for `TAKEN`, with which it stays one, as the
//! last thing it does; at no time are there two.* A thread takes the lock that `state` names, then
//! looks again. What it sees then is true: each change away from a lock's own state is made by a
//! holder of that lock, so whoever takes the lock later sees it; or by [`Slot::forget`], which has
//! the slot to itself. So of two threads that each hold one of the locks, one at most is admitted;
//! neither lock admits anyone while `TAKEN`. Every change of `state` is a release, and every look
//! before entering an acquire, so the next owner sees what the last one did. The event's
//! `loom_tests` explore it.
//!
//! A complete marker that keeps its time itself may also be [lent](Slot::lend_complete), for the
//! look at that: the slot is `TAKEN` meanwhile, and nothing changes. Queries find it complete by
//! the word. Whoever has one marker lent never waits for a second one.
//!
//! # A time without a lock
//!
//! Where a native object tells the time of a marker, and outlives it, `timed` names it, and a time
//! is read without a lock: others may record the event meanwhile, and then the answer is dropped.
//!
//! | who reads, by a [`Glimpse`] | who records again in place | who [puts](Slot::put) another marker |
//! |---|---|---|
//! | loads the word: it says complete | stores `TAKEN` in `state` | stores a word that says nothing |
//! | loads `timed` | a release fence | a release fence |
//! | asks the driver | records the native object | stores `timed` |
//! | an acquire fence | stores the new word | stores the new word |
//! | loads `state`, then the word again | stores `state` | |
//!
//! *Invariant: if `state` is not `TAKEN` then, and the word is the same, the answer is of the
//! marker that the word stands for.* An answer, or a `timed`, of a later marker comes from a write
//! behind one of the fences. So the loads behind the reader's fence see what was stored in front of
//! that, or something later: `TAKEN`, or a word that differs, since no word that says complete
//! comes again. Where `state` is seen as it is after `TAKEN`, the new word is seen too. A marker
//! that is replaced gives its native object back after the new word is stored, so whoever records
//! that next is no exception. All of this needs a driver whose calls are thread-safe: who is told
//! of a record sees what the recording thread did before it. The event's `loom_tests` explore it.
//!
//! Nobody who has one of these locks waits for another of them: they need no order. As with any
//! lock, a process that is forked while another thread is inside finds it held for ever.

#![allow(unsafe_code)]
// The host records nothing again, and Metal makes a marker for each record.
#![cfg_attr(
    not(any(
        feature = "cuda",
        feature = "opencl",
        feature = "vulkan",
        feature = "wgpu30",
        loom
    )),
    allow(dead_code)
)]

use std::{
    any::Any,
    num::NonZeroUsize,
    ops::{Deref, DerefMut},
    ptr::NonNull,
    sync::Arc,
};

use spin::once::Once;

use crate::{
    contract::{MarkerImpl, TimelineKnowledge},
    core::StreamCore,
    fork::Process,
    sync::{
        AtomicBool, AtomicU64, AtomicUsize, BriefGuard, BriefLock, MutPtr, Ordering, UnsafeCell,
        fence, look_until,
    },
    timeline::{Reached, Timeline},
};

/// The place for a marker, which any number of threads may use.
pub(crate) struct Slot {
    word: AtomicU64,
    /// The native object that tells the marker's time, where it may be asked without a lock; else
    /// 0.
    timed: AtomicUsize,
    /// Whether the marker was handed out since it came, so that others may hold it. A hint.
    is_shared: AtomicBool,
    state: AtomicU64,
    lock: BriefLock,
    /// Set before the first word that is `PRIMARY` is stored.
    primary: Once<Primary>,
    held: UnsafeCell<Held>,
}

// SAFETY: `held` is reached by its owner alone, and one owner sees what the last one did: the
// protocol above. So it is what a `Mutex` is, which is `Sync` for what is `Send`.
unsafe impl Sync for Slot where Held: Send {}

/// The timeline of the event's first stream, since it was made or [forgotten](Slot::forget), or of
/// the first that it was recorded on again where markers must be asked while they are pending:
/// recording on that stream, which is what most events do, keeps queries free of locks.
struct Primary {
    timeline: Arc<Timeline>,
    /// Whether it also tells that a marker is pending.
    tells_all: bool,
    /// That of its device, within reach of a query.
    process: Process,
}

struct Held {
    marker: Option<Arc<dyn MarkerImpl>>,
    /// Whether the marker may be recorded again: it has timing exactly if the event has.
    is_like_ours: bool,
    generation: u64,
    /// Whether the slot is to be delegated to the primary stream.
    delegate: bool,
}

/// Somebody changes the marker in place.
pub(crate) struct Taken;

/// The right to try to record an event again in place. Not used, it costs nothing and changes
/// nothing.
pub(crate) struct Rerecord<'a>(&'a Slot);

/// An event that is being recorded again, and its marker, which is the recording's alone. Dropped
/// without [`finish`](Recording::finish), it leaves the event as it was.
pub(crate) struct Recording<'a, M> {
    marker: NonNull<M>,
    held: MutPtr<Held>,
    /// Dropped last: it lets the next owner in.
    leave: Leave<'a>,
}

/// The complete marker of an event, for one look at its time: the event's slot is taken, so that
/// the marker is neither changed nor dropped. It costs one atomic read-modify-write, where a clone
/// of the marker costs three.
pub(crate) struct Lent<'a> {
    marker: NonNull<dyn MarkerImpl>,
    _held: MutPtr<Held>,
    /// Dropped last: it lets the next owner in.
    _leave: Leave<'a>,
}

/// A look at an event whose marker is complete, and whose time a native object tells. It costs no
/// atomic read-modify-write, and keeps nobody out.
pub(crate) struct Glimpse<'a> {
    slot: &'a Slot,
    word: u64,
}

/// The proof that an event was recorded again: only [`Recording::finish`] makes one.
pub(crate) struct Rerecorded(());

/// The lock that guards a slot, or that of a stream's order, or both in one.
pub(crate) struct Lock<'a> {
    _guard: BriefGuard<'a>,
    /// The stream whose lock it is.
    stream: Option<&'a StreamCore>,
}

const TAG: u64 = 0b11;
const UNRECORDED: u64 = 0;
/// The whole word of a slot that was [forgotten](Slot::forget).
const BLANK: u64 = 1 << 2 | UNRECORDED;
const COMPLETE: u64 = 1;
const ASK: u64 = 2;
const PRIMARY: u64 = 3;

const OWN: u64 = 0;
const DELEGATED: u64 = 1;
const TAKEN: u64 = 2;

impl<'a> Lock<'a> {
    /// The lock of the order of `stream`, which `had` may be already; else that is dropped first,
    /// so that nobody has two.
    #[inline(always)]
    pub(crate) fn of(stream: &'a StreamCore, had: Option<Lock<'a>>) -> Lock<'a> {
        match had {
            Some(had) if had.stream.is_some_and(|mine| std::ptr::eq(mine, stream)) => had,
            other => {
                drop(other);
                Lock {
                    _guard: stream.order.lock(),
                    stream: Some(stream),
                }
            }
        }
    }
}

impl<'a> Rerecord<'a> {
    /// Whether the held marker is on the primary timeline, that is of `stream`, and was handed out
    /// to nobody: [`begin`](Rerecord::begin) then fails only where another thread comes in between.
    /// Three atomic loads.
    #[inline(always)]
    #[cfg_attr(not(feature = "opencl"), allow(dead_code))]
    pub(crate) fn may_begin(&self, stream: &StreamCore) -> bool {
        let slot = self.0;
        let is_primary = slot.word() & TAG == PRIMARY && !slot.is_shared.load(Ordering::Relaxed);
        let primary = slot.primary.get().filter(|_| is_primary);
        primary.is_some_and(|primary| std::ptr::eq(&*primary.timeline.stream, stream))
    }

    /// The held marker, to be changed in place; and the lock that guards the slot, which may be
    /// that of the stream's order already. Drop the lock before the driver is called: the marker is
    /// the recording's without it.
    ///
    /// `None` where there is none that may be changed: the marker is no `M`, differs from the event
    /// in timing, or is held by others too.
    #[inline(always)]
    pub(crate) fn begin<M: MarkerImpl>(self) -> Option<(Recording<'a, M>, Lock<'a>)> {
        let slot = self.0;
        if slot.word.load(Ordering::Relaxed) == UNRECORDED {
            return None;
        }
        let lock = slot.lock();
        let held = slot.held.get_mut();
        let marker = held.with(|held| {
            // SAFETY: whoever has this lock while `state` names it is the only owner.
            unsafe { &mut *held }.changeable::<M>()
        })?;
        slot.state.store(TAKEN, Ordering::Release);
        // Before the driver is called: see "A time without a lock".
        fence(Ordering::Release);
        let leave = Leave(slot);
        Some((
            Recording {
                marker,
                held,
                leave,
            },
            lock,
        ))
    }
}

impl<M: MarkerImpl> Recording<'_, M> {
    /// Lets queries see what the marker is now: its new value on the timeline that it was on.
    #[inline(always)]
    pub(crate) fn finish(self) -> Rerecorded {
        let slot = self.leave.0;
        let value = self.point().value;
        self.held.with(|held| {
            // SAFETY: the only owner, as long as the slot is taken.
            let held = unsafe { &mut *held };
            match slot.word.load(Ordering::Relaxed) & TAG {
                // As for each first record.
                UNRECORDED => slot.publish(held, None),
                // The timeline is the same, so what was at primary still is.
                PRIMARY => {
                    slot.word.store(value << 2 | PRIMARY, Ordering::Release);
                    held.delegate = true;
                }
                _ => slot.publish_again(held),
            }
        });
        Rerecorded(())
    }
}

impl<M> Deref for Recording<'_, M> {
    type Target = M;

    #[inline(always)]
    fn deref(&self) -> &M {
        // SAFETY: the slot's own `Arc` keeps the marker alive, and is its only owner; the slot is
        // taken, so nobody else reaches that.
        unsafe { self.marker.as_ref() }
    }
}

impl<M> DerefMut for Recording<'_, M> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut M {
        // SAFETY: as above; and `self` is borrowed exclusively.
        unsafe { self.marker.as_mut() }
    }
}

#[cfg_attr(not(feature = "cuda"), allow(dead_code))]
impl Glimpse<'_> {
    /// What the marker gave as its [`timed_native`](MarkerImpl::timed_native), or a later one of
    /// the event did.
    #[inline]
    pub(crate) fn native(&self) -> Option<NonZeroUsize> {
        NonZeroUsize::new(self.slot.timed.load(Ordering::Relaxed))
    }

    /// The marker's value, where the word tells it.
    #[cfg_attr(not(feature = "trace"), allow(dead_code))]
    #[inline]
    pub(crate) fn value(&self) -> Option<u64> {
        (self.word & TAG == PRIMARY).then_some(self.word >> 2)
    }

    /// Whether the event still holds the marker, and nobody records that again: then what the
    /// native object has told so far is of that marker.
    #[inline]
    pub(crate) fn is_current(&self) -> bool {
        fence(Ordering::Acquire);
        self.slot.state.load(Ordering::Acquire) != TAKEN
            && self.slot.word.load(Ordering::Relaxed) == self.word
    }
}

impl Deref for Lent<'_> {
    type Target = dyn MarkerImpl;

    #[inline]
    fn deref(&self) -> &dyn MarkerImpl {
        // SAFETY: the slot's own `Arc` keeps the marker alive; the slot is taken, so nobody drops
        // or changes that.
        unsafe { self.marker.as_ref() }
    }
}

impl Held {
    /// The marker, if it may be changed: one of type `M`, of the event's own kind, that nobody else
    /// holds.
    #[inline(always)]
    fn changeable<M: MarkerImpl>(&mut self) -> Option<NonNull<M>> {
        match &mut self.marker {
            Some(marker) if self.is_like_ours => {
                let marker: &mut dyn Any = alone(marker)?;
                marker.downcast_mut().map(NonNull::from)
            }
            _ => None,
        }
    }
}

/// The marker, if this is its only owner: as [`Arc::get_mut`], for less. That one locks the count
/// of weak owners, which markers never have.
#[inline]
pub(crate) fn alone<M: MarkerImpl + ?Sized>(marker: &mut Arc<M>) -> Option<&mut M> {
    debug_assert_eq!(Arc::weak_count(marker), 0);
    if Arc::strong_count(marker) != 1 {
        return None;
    }
    // What former owners did with the marker happened before they let go of it.
    fence(Ordering::Acquire);
    // SAFETY: the count is one and this `Arc` is borrowed exclusively, so no other owner exists,
    // and none can come from a clone meanwhile. None can come from a `Weak` either: nothing in this
    // crate makes one of a marker, and markers leave the crate only inside types that cannot.
    Some(unsafe { &mut *Arc::as_ptr(marker).cast_mut() })
}

impl Slot {
    pub(crate) fn new() -> Slot {
        Slot {
            word: AtomicU64::new(UNRECORDED),
            timed: AtomicUsize::new(0),
            is_shared: AtomicBool::new(false),
            state: AtomicU64::new(OWN),
            lock: BriefLock::new(),
            primary: Once::new(),
            held: UnsafeCell::new(Held {
                marker: None,
                is_like_ours: true,
                generation: 0,
                delegate: false,
            }),
        }
    }

    /// What the marker is known by until another one comes; for [`remember`](Slot::remember).
    #[inline]
    pub(crate) fn word(&self) -> u64 {
        self.word.load(Ordering::Acquire)
    }

    /// Whether the marker is complete, or there is none, where that can be told without a lock and
    /// a driver. Three atomic loads at most: the word, the timeline, and the number of forks.
    #[inline]
    pub(crate) fn peek(&self) -> Option<bool> {
        let word = self.word();
        match word & TAG {
            UNRECORDED | COMPLETE => Some(true),
            PRIMARY => {
                // SAFETY: it was set before such a word was stored, and the word was loaded in
                // order.
                let primary = unsafe { self.primary.get_unchecked() };
                match primary.timeline.reached(word >> 2) {
                    Reached::Yes => Some(true),
                    // In a forked child it would stay pending for ever.
                    Reached::NotYet if primary.tells_all && primary.process.is_this() => {
                        Some(false)
                    }
                    // The held marker may be a later one, of another stream, by now.
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// Whether there is a marker.
    #[inline]
    pub(crate) fn is_recorded(&self) -> bool {
        self.word() & TAG != UNRECORDED
    }

    /// Makes it blank: as if nothing had been recorded, but the next record may change the marker
    /// in place. Returns whether it did: not for a marker that cannot be changed, that others hold,
    /// or that differs from the event in timing, nor for one whose stream has failed, since keeping
    /// that would hold back the report of a failure that nobody has asked for.
    pub(crate) fn forget(&mut self) -> bool {
        let may_be_kept = self.held.with_mut(|held| {
            // SAFETY: `self` is borrowed exclusively.
            let held = unsafe { &mut *held };
            let may_be_kept = match &mut held.marker {
                Some(marker) if held.is_like_ours => alone(marker).is_some_and(|marker| {
                    marker.may_be_changed() && !marker.point().timeline.has_failed()
                }),
                _ => false,
            };
            held.delegate &= !may_be_kept;
            may_be_kept
        });
        if may_be_kept {
            self.word.store(BLANK, Ordering::Release);
            // The next records may be on other streams, of which the primary would tell nothing.
            // Nobody waits for this slot: `self` is borrowed exclusively.
            self.leave(false);
            self.primary = Once::new();
        }
        may_be_kept
    }

    /// The marker that `word` stands for is complete.
    pub(crate) fn remember(&self, word: u64) {
        if word & TAG == ASK {
            self.with(|_| {
                if self.word.load(Ordering::Relaxed) == word {
                    let complete = word & !TAG | COMPLETE;
                    self.word.store(complete, Ordering::Release);
                }
            });
        }
    }

    /// The marker that is held now. Waits while it is changed in place, but not for a first record.
    pub(crate) fn marker(&self) -> Option<Arc<dyn MarkerImpl>> {
        // Nobody but the next record knows what a blank slot holds.
        if !self.is_recorded() {
            return None;
        }
        self.with(|held| self.hand_out(held))
    }

    /// As [`marker`](Slot::marker), without waiting.
    pub(crate) fn try_marker(&self) -> Result<Option<Arc<dyn MarkerImpl>>, Taken> {
        if !self.is_recorded() {
            return Ok(None);
        }
        match self.try_lock() {
            Some(lock) => Ok(self.with_lock(lock, |held| self.hand_out(held))),
            None => Err(Taken),
        }
    }

    fn hand_out(&self, held: &Held) -> Option<Arc<dyn MarkerImpl>> {
        self.is_shared.store(true, Ordering::Relaxed);
        held.marker.clone()
    }

    /// A look at the marker, where that is known to be complete without asking, and a native object
    /// tells its time.
    #[inline(always)]
    pub(crate) fn glimpse(&self) -> Option<Glimpse<'_>> {
        let word = self.word();
        let is_complete = match word & TAG {
            COMPLETE => true,
            PRIMARY => {
                // SAFETY: as in `peek`.
                let primary = unsafe { self.primary.get_unchecked() };
                primary.timeline.reached(word >> 2) == Reached::Yes
            }
            _ => false,
        };
        let has_native = self.timed.load(Ordering::Relaxed) != 0;
        (is_complete && has_native).then_some(Glimpse { slot: self, word })
    }

    /// The marker, where it is known to be complete without asking, and the slot is not taken.
    ///
    /// Queries take no lock while it is lent: the word says that it is complete. Everything else
    /// that wants the marker waits.
    #[inline]
    pub(crate) fn lend_complete(&self) -> Option<Lent<'_>> {
        let lock = self.try_lock()?;
        // Under the lock the word is that of the held marker.
        if self.peek() != Some(true) || !self.is_recorded() {
            return None;
        }
        let held = self.held.get_mut();
        let marker = held.with(|held| {
            // SAFETY: whoever has this lock while `state` names it is the only owner.
            unsafe { &*held }.marker.as_deref().map(NonNull::from)
        })?;
        self.state.store(TAKEN, Ordering::Release);
        drop(lock);
        Some(Lent {
            marker,
            _held: held,
            _leave: Leave(self),
        })
    }

    /// Holds `marker` from now on; `is_like_ours` says whether it may be recorded again.
    #[inline]
    pub(crate) fn put(&self, marker: Arc<dyn MarkerImpl>, is_like_ours: bool) {
        // Where a pending marker is to be asked anyway, a primary is worth its cost only to an
        // event that is recorded again.
        let word = match marker.timeline_knowledge() {
            TimelineKnowledge::All => self.word_of(&marker),
            TimelineKnowledge::Completion if self.is_recorded() => self.word_of(&marker),
            _ => None,
        };
        let timed = marker.timed_native().filter(|_| is_like_ours);
        let old = self.with(|held| {
            self.is_shared.store(false, Ordering::Relaxed);
            self.change_timed(held, timed);
            self.publish(held, word);
            held.is_like_ours = is_like_ours;
            held.delegate = false;
            held.marker.replace(marker)
        });
        // The last owner of a marker may hand native objects back: not under the lock, and behind
        // the word of the new one.
        if let Some(old) = old {
            fence(Ordering::Release);
            old.retire();
        }
    }

    /// What a backend needs to record again what is held here.
    #[inline]
    pub(crate) fn rerecord(&self) -> Rerecord<'_> {
        Rerecord(self)
    }

    #[inline(never)]
    fn publish_again(&self, held: &mut Held) {
        let word = held.marker.as_ref().and_then(|marker| self.word_of(marker));
        self.publish(held, word);
        held.delegate = word.is_some();
    }

    /// The word of a marker whose status its primary timeline tells.
    #[inline]
    fn word_of(&self, marker: &Arc<dyn MarkerImpl>) -> Option<u64> {
        let (point, knowledge) = (marker.point(), marker.timeline_knowledge());
        if knowledge == TimelineKnowledge::Nothing {
            return None;
        }
        let primary = self.primary.call_once(|| Primary {
            timeline: point.timeline.clone(),
            tells_all: knowledge == TimelineKnowledge::All,
            process: point.timeline.stream.device.process,
        });
        Arc::ptr_eq(&primary.timeline, &point.timeline).then_some(point.value << 2 | PRIMARY)
    }

    /// Names the native object of a new marker, whose word is published next.
    #[inline]
    fn change_timed(&self, held: &mut Held, timed: Option<NonZeroUsize>) {
        let timed = timed.map_or(0, NonZeroUsize::get);
        if timed == self.timed.load(Ordering::Relaxed) {
            return;
        }
        if self.is_recorded() {
            // Nobody takes the new one for that of the marker before.
            self.publish(held, None);
            fence(Ordering::Release);
        }
        self.timed.store(timed, Ordering::Relaxed);
    }

    /// Lets queries know of a new marker, by its own word or as one to be asked.
    #[inline]
    fn publish(&self, held: &mut Held, word: Option<u64>) {
        let word = word.unwrap_or_else(|| {
            held.generation += 1;
            held.generation << 2 | ASK
        });
        self.word.store(word, Ordering::Release);
    }

    /// Takes the lock that guards what is held, once nobody changes that in place.
    fn lock(&self) -> Lock<'_> {
        loop {
            match self.try_lock() {
                Some(lock) => return lock,
                None => self.wait(),
            }
        }
    }

    /// As [`lock`](Slot::lock); `None` while somebody changes what is held in place.
    fn try_lock(&self) -> Option<Lock<'_>> {
        loop {
            let state = self.state.load(Ordering::Acquire);
            if state == TAKEN {
                return None;
            }
            // Nothing is delegated before there is a primary.
            let lock = match (state, self.primary.get()) {
                (DELEGATED, Some(primary)) => Lock::of(&primary.timeline.stream, None),
                _ => Lock {
                    _guard: self.lock.lock(),
                    stream: None,
                },
            };
            if self.state.load(Ordering::Acquire) == state {
                return Some(lock);
            }
        }
    }

    /// Waits while somebody changes it in place: for long only where the driver's queue is full, or
    /// a lock of the caller's own is held that guards a Vulkan queue.
    #[cold]
    fn wait(&self) {
        look_until(|| self.state.load(Ordering::Relaxed) != TAKEN);
    }

    /// Calls `f` with what is held, under the lock: briefly, calling no driver and taking no lock.
    #[inline]
    fn with<R>(&self, f: impl FnOnce(&mut Held) -> R) -> R {
        self.with_lock(self.lock(), f)
    }

    #[inline]
    fn with_lock<R>(&self, lock: Lock<'_>, f: impl FnOnce(&mut Held) -> R) -> R {
        let (result, delegate) = self.held.with_mut(|held| {
            // SAFETY: whoever has this lock while `state` names it is the only owner.
            let held = unsafe { &mut *held };
            (f(held), held.delegate)
        });
        if delegate != lock.stream.is_some() {
            self.leave(delegate);
        }
        result
    }

    /// Lets the next owner in.
    #[inline]
    fn leave(&self, delegate: bool) {
        let state = match delegate {
            true => DELEGATED,
            false => OWN,
        };
        self.state.store(state, Ordering::Release);
    }

    /// Whether the primary stream's lock guards it.
    #[cfg(all(test, loom))]
    pub(crate) fn is_delegated(&self) -> bool {
        self.state.load(Ordering::Acquire) == DELEGATED
    }

    /// Without locking: nobody else can be inside.
    pub(crate) fn take_marker(&mut self) -> Option<Arc<dyn MarkerImpl>> {
        self.held.with_mut(|held| {
            // SAFETY: `self` is borrowed exclusively.
            unsafe { (*held).marker.take() }
        })
    }
}

/// Lets the next owner in, whatever happens.
struct Leave<'a>(&'a Slot);

impl Drop for Leave<'_> {
    #[inline]
    fn drop(&mut self) {
        let delegate = self.0.held.with_mut(|held| {
            // SAFETY: still the only owner, and nothing is borrowed from it any more.
            unsafe { (*held).delegate }
        });
        self.0.leave(delegate);
    }
}
