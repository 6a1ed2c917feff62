//! Spans that are not taken in yet: a fixed number of slots for each stream.
//!
//! A slot has the two events that a span is recorded by, which are used again and again. Whoever
//! records a span takes a free slot and gives it back as ended. Whoever collects looks at the ended
//! ones and frees those that are complete.
//!
//! | state | who may change the slot | becomes |
//! |---|---|---|
//! | `Free` | nobody: its index is in `free` | `Open`, by [`begin`](Pending::begin) |
//! | `Open` | who began it | `Ended` by [`end`](Pending::end), or `Free` by [`give_up`](Pending::give_up) |
//! | `Ended` | who collects; one thread at a time, by a lock of its own | `Free` by [`free`](Pending::free) |
//!
//! *Invariant: an index is in `free` exactly if its slot is `Free`, so that no two spans share a
//! slot.* All changes are made under one lock, which is held for a few moves of memory, and never
//! while a driver is called or a thread is woken. The events themselves are used without the lock:
//! by the owner of the slot alone, who has a reference to them of its own. That one moves from the
//! slot to its owner and back, so that no reference is counted: whoever counts writes to memory
//! that the thread which records next has to fetch back.

use std::sync::Arc;

use super::{
    text::Text,
    value::{self, Attributes, Value},
};
use crate::sync::BriefLock;

/// The slots of a stream. `P` is its pair of events.
pub(super) struct Pending<P>(BriefLock<Slots<P>>);

struct Slots<P> {
    slots: Vec<Slot<P>>,
    /// Free slots; the last one is the next that is used.
    free: Vec<u32>,
    budget: usize,
    /// How many are ended.
    ended: usize,
    begun: u64,
}

struct Slot<P> {
    state: State,
    pair: Option<Arc<P>>,
    /// Another reference to the pair, for who opens the slot, or collects what is there.
    spare: Option<Arc<P>>,
    noted: Noted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Free,
    Open,
    Ended,
}

/// What is known of a span besides its events.
#[derive(Clone, Debug, Default)]
pub(super) struct Noted {
    pub(super) name: Text,
    pub(super) attributes: Attributes,
    pub(super) is_mark: bool,
    /// The place in the order in which the stream's spans were begun.
    pub(super) number: u64,
}

/// A slot that is open, for who began it.
pub(super) struct Begun<P> {
    pub(super) slot: u32,
    pub(super) pair: Arc<P>,
}

/// A span that is pending, for who collects.
pub(super) struct Ended<P> {
    pub(super) slot: u32,
    pub(super) pair: Arc<P>,
    pub(super) is_mark: bool,
    number: u64,
}

impl<P> Pending<P> {
    pub(super) fn new(budget: usize) -> Pending<P> {
        Pending(BriefLock::over(Slots {
            slots: Vec::new(),
            free: Vec::new(),
            budget,
            ended: 0,
            begun: 0,
        }))
    }

    /// Takes a free slot. `None` where all are used.
    #[inline]
    pub(super) fn begin(
        &self,
        name: &str,
        is_mark: bool,
        make: impl FnOnce() -> Option<P>,
    ) -> Option<Begun<P>> {
        let mut slots = self.0.lock();
        let slots = &mut *slots;
        let index = match slots.free.pop() {
            Some(index) => index,
            None if slots.slots.len() < slots.budget => slots.add(),
            None => return None,
        };
        slots.begun += 1;
        let slot = slots.slots.get_mut(index as usize)?;
        let pair = match slot.spare.take() {
            Some(pair) => pair,
            None => slot.another(make)?,
        };
        slot.state = State::Open;
        slot.noted.name.set(name);
        slot.noted.is_mark = is_mark;
        slot.noted.number = slots.begun;
        Some(Begun { slot: index, pair })
    }

    /// Notes an attribute of a span that is open.
    pub(super) fn note(&self, slot: u32, name: &str, value: Value) {
        let mut slots = self.0.lock();
        if let Some(slot) = slots.slots.get_mut(slot as usize) {
            value::note(&mut slot.noted.attributes, name, value);
        }
    }

    /// Gives the slot to who collects. Tells how many of the budget are ended by now.
    #[inline]
    pub(super) fn end(&self, begun: Begun<P>) -> usize {
        let mut slots = self.0.lock();
        let Some(slot) = slots.slots.get_mut(begun.slot as usize) else {
            // It is closed. The pair is dropped without the lock.
            drop(slots);
            return 0;
        };
        slot.state = State::Ended;
        debug_assert!(slot.spare.is_none());
        slot.spare = Some(begun.pair);
        slots.ended += 1;
        slots.ended
    }

    /// Frees a slot whose span could not be recorded.
    pub(super) fn give_up(&self, slot: u32) {
        let gone = self.0.lock().clear(slot);
        drop(gone);
    }

    /// The spans that are ended, in the order in which they were begun. They stay where they are.
    pub(super) fn ended(&self) -> Vec<Ended<P>> {
        self.list(State::Ended, |slot| slot.pair.clone())
    }

    /// As [`ended`](Pending::ended), for who [frees](Pending::free) them or [gives them
    /// back](Pending::give_back).
    pub(super) fn take_ended(&self) -> Vec<Ended<P>> {
        self.list(State::Ended, |slot| {
            slot.spare.take().or_else(|| slot.pair.clone())
        })
    }

    /// The spans that are open.
    pub(super) fn open(&self) -> Vec<Ended<P>> {
        self.list(State::Open, |slot| slot.pair.clone())
    }

    fn list(&self, state: State, pair: impl Fn(&mut Slot<P>) -> Option<Arc<P>>) -> Vec<Ended<P>> {
        let mut slots = self.0.lock();
        let all = slots.slots.iter_mut().zip(0..);
        let mut list: Vec<_> = all
            .filter(|(slot, _)| slot.state == state)
            .filter_map(|(slot, index)| {
                Some(Ended {
                    slot: index,
                    pair: pair(slot)?,
                    is_mark: slot.noted.is_mark,
                    number: slot.noted.number,
                })
            })
            .collect();
        drop(slots);
        list.sort_unstable_by_key(|ended| ended.number);
        list
    }

    /// What is known of spans that are taken in. It is gone from their slots then.
    pub(super) fn take(&self, taken: impl ExactSizeIterator<Item = u32>) -> Vec<Noted> {
        let mut noted = Vec::with_capacity(taken.len());
        let mut slots = self.0.lock();
        noted.extend(taken.map(|slot| {
            let slot = slots.slots.get_mut(slot as usize);
            slot.map(|slot| std::mem::take(&mut slot.noted))
                .unwrap_or_default()
        }));
        drop(slots);
        noted
    }

    /// A copy of what is known of a span, where it is still the one that was listed.
    pub(super) fn noted(&self, listed: &Ended<P>) -> Option<Noted> {
        let slots = self.0.lock();
        let slot = slots.slots.get(listed.slot as usize)?;
        (slot.noted.number == listed.number).then(|| slot.noted.clone())
    }

    /// Frees slots whose spans are taken in. Without `keep` their events are not used again.
    pub(super) fn free(&self, taken: impl IntoIterator<Item = (Ended<P>, bool)>) {
        let mut gone = Vec::new();
        let mut slots = self.0.lock();
        for (ended, keep) in taken {
            // Nothing is ended any more where it was closed since they were listed.
            slots.ended = slots.ended.saturating_sub(1);
            let attributes = slots.clear(ended.slot);
            let before = slots.give(ended.slot, ended.pair);
            let slot = slots.slots.get_mut(ended.slot as usize);
            let pair = slot.filter(|_| !keep).map(Slot::take_pair);
            if attributes.is_some() || before.is_some() || pair.is_some() {
                gone.push((attributes, before, pair));
            }
        }
        drop(slots);
        // Dropped without the lock: events go back to their pools.
        drop(gone);
    }

    /// Leaves spans that were taken as they are, for the next time.
    pub(super) fn give_back(&self, taken: impl IntoIterator<Item = Ended<P>>) {
        let mut gone = Vec::new();
        let mut slots = self.0.lock();
        for ended in taken {
            gone.extend(slots.give(ended.slot, ended.pair));
        }
        drop(slots);
        drop(gone);
    }

    /// Drops the events of all free slots.
    pub(super) fn drop_free(&self) {
        let mut slots = self.0.lock();
        let free = slots
            .slots
            .iter_mut()
            .filter(|slot| slot.state == State::Free);
        let gone: Vec<_> = free.map(Slot::take_pair).collect();
        drop(slots);
        drop(gone);
    }

    /// How many are open, and how many are ended.
    pub(super) fn count(&self) -> (usize, usize) {
        let slots = self.0.lock();
        (
            slots.slots.len() - slots.free.len() - slots.ended,
            slots.ended,
        )
    }

    /// No span is begun from now on, and nothing is kept.
    pub(super) fn close(&self) {
        let mut slots = self.0.lock();
        slots.budget = 0;
        slots.free.clear();
        slots.ended = 0;
        let gone = std::mem::take(&mut slots.slots);
        drop(slots);
        drop(gone);
    }
}

impl<P> Slot<P> {
    /// A further reference to its pair, which `make` makes where there is none.
    #[cold]
    fn another(&mut self, make: impl FnOnce() -> Option<P>) -> Option<Arc<P>> {
        if self.pair.is_none() {
            self.pair = Some(Arc::new(make()?));
        }
        self.pair.clone()
    }

    fn take_pair(&mut self) -> [Option<Arc<P>>; 2] {
        [self.pair.take(), self.spare.take()]
    }
}

impl<P> Slots<P> {
    fn add(&mut self) -> u32 {
        self.slots.push(Slot {
            state: State::Free,
            pair: None,
            spare: None,
            noted: Noted::default(),
        });
        self.slots.len() as u32 - 1
    }

    /// Puts a reference to its pair back into the slot. What it gives is dropped without the lock.
    fn give(&mut self, index: u32, pair: Arc<P>) -> Option<Arc<P>> {
        match self.slots.get_mut(index as usize) {
            Some(slot) => slot.spare.replace(pair),
            None => Some(pair),
        }
    }

    /// Frees the slot. What it gives is dropped without the lock.
    fn clear(&mut self, index: u32) -> Attributes {
        let slot = self.slots.get_mut(index as usize)?;
        slot.state = State::Free;
        self.free.push(index);
        slot.noted.attributes.take()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_kept_and_slots_are_used_again() {
        let (pending, mut made) = (Pending::new(2), 0);
        let mut begin = |name: &str| {
            pending.begin(name, false, || {
                made += 1;
                Some(made)
            })
        };
        let (one, two) = (begin("one").unwrap(), begin("two").unwrap());
        assert!(begin("three").is_none());
        assert_eq!((*one.pair, *two.pair), (1, 2));
        pending.note(two.slot, "bytes", 7_u32.into());
        assert_eq!(pending.count(), (2, 0));
        assert_eq!(pending.end(two), 1);
        assert_eq!(pending.end(one), 2);
        let ended = pending.take_ended();
        let noted = pending.take(ended.iter().map(|ended| ended.slot));
        let names: Vec<_> = noted.iter().map(|noted| noted.name.get()).collect();
        assert_eq!(
            names,
            ["one", "two"],
            "in the order in which they were begun"
        );
        pending.give_back(ended);
        let keep = pending.take_ended().into_iter().zip([true, false]);
        pending.free(keep);
        assert_eq!(pending.count(), (0, 0));
        let again = [begin("three").unwrap(), begin("four").unwrap()];
        let mut pairs = again.map(|begun| *begun.pair);
        pairs.sort_unstable();
        assert_eq!(pairs, [1, 3], "the second is not used again");
        assert!(
            pending
                .open()
                .iter()
                .all(|open| pending.noted(open).unwrap().attributes.is_none())
        );
    }
}

#[cfg(all(test, not(loom)))]
mod closing_tests {
    use super::*;

    /// As where a trace is dropped while its thread collects and a span is open.
    #[test]
    fn what_is_closed_may_be_freed_and_ended_all_the_same() {
        let pending = Pending::new(4);
        let begin = |name| pending.begin(name, false, || Some(())).unwrap();
        let (over, open) = (begin("over"), begin("open"));
        pending.end(over);
        let listed = pending.take_ended();
        pending.close();
        pending.free(listed.into_iter().map(|ended| (ended, true)));
        assert_eq!(pending.count(), (0, 0));
        pending.end(open);
        assert_eq!(pending.count(), (0, 0));
        assert!(pending.begin("late", false, || Some(())).is_none());
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::sync::{AtomicUsize, Ordering, thread};

    /// Two threads record on one stream while a third collects. No pair has two owners, and no
    /// span is lost or taken twice.
    #[test]
    fn each_span_is_taken_once_and_no_two_share_their_events() {
        loom::model(|| {
            let pending = Arc::new(Pending::new(2));
            let record = |pending: Arc<Pending<AtomicUsize>>, name: &'static str| {
                thread::spawn(move || {
                    let Some(begun) = pending.begin(name, false, || Some(AtomicUsize::new(0)))
                    else {
                        return 0;
                    };
                    assert_eq!(begun.pair.fetch_add(1, Ordering::Relaxed), 0, "it is mine");
                    pending.end(begun);
                    1
                })
            };
            let recording = [record(pending.clone(), "a"), record(pending.clone(), "b")];
            let collect = || {
                let ended = pending.take_ended();
                for ended in &ended {
                    assert_eq!(ended.pair.fetch_sub(1, Ordering::Relaxed), 1, "it is over");
                }
                let count = ended.len();
                pending.free(ended.into_iter().map(|ended| (ended, true)));
                count
            };
            let early = collect();
            let recorded: usize = recording.into_iter().map(|r| r.join().unwrap()).sum();
            assert_eq!(early + collect(), recorded);
            assert_eq!(pending.count(), (0, 0));
        });
    }
}
