//! What was seen of the program's events.
//!
//! An event has a slot, which is guarded by the lock of the stream that records it: see
//! `delegated.rs`. Slots are used again and never freed, so that threads may remember those that
//! they used last. A slot says whose it is, and is asked for that under the lock that guards it.
//! Where an event is destroyed, its slot stays its own, since the driver gives the same handle to
//! the next event. A table that has grown gives away those of destroyed events.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    sync::atomic::{AtomicBool, Ordering},
};

use crate::{
    cache::{Cache, spread},
    delegated::Delegated,
    lock::{Guard, Lock, Me},
    seen::{Inner, Mark, Stream},
};

/// What an event holds, as far as it was seen.
#[derive(Clone, Copy, Debug)]
pub(crate) enum EventState {
    Recorded(Mark),
    /// In the capture of the stream of this number.
    Captured(u64),
    Unseen,
    /// It may be recorded where it cannot be seen, at any time: by a graph, or by another process.
    Elsewhere,
}

/// Whose the slot is, and what that event holds. 0: it is nobody's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Holds {
    event: usize,
    /// Whether it may be recorded elsewhere, which stays so.
    elsewhere: bool,
    /// `None`: the event was not recorded, or is destroyed.
    state: Option<EventState>,
}

impl Holds {
    const fn new(event: usize) -> Holds {
        Holds {
            event,
            elsewhere: false,
            state: None,
        }
    }

    /// `false`: the slot is another's.
    #[inline]
    fn set(&mut self, event: usize, state: EventState) -> bool {
        let is_its = self.event == event;
        if is_its {
            self.elsewhere |= matches!(state, EventState::Elsewhere);
            self.state = Some(match state {
                // In a capture, only this process records it.
                EventState::Captured(_) => state,
                _ if self.elsewhere => EventState::Elsewhere,
                _ => state,
            });
        }
        is_its
    }
}

pub(crate) type Slot = Delegated<Holds, Inner>;

/// The events that a thread used last.
pub(crate) type EventCache = Cache<usize, &'static Slot, 64>;

#[derive(Default)]
struct HandleHash(u64);

impl Hasher for HandleHash {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_usize(usize::from(*byte));
        }
    }

    fn write_usize(&mut self, value: usize) {
        let mixed = spread(self.0 as usize ^ value);
        self.0 = mixed ^ mixed >> 32;
    }
}

#[derive(Debug)]
struct Shard {
    slots: HashMap<usize, &'static Slot, BuildHasherDefault<HandleHash>>,
    /// Those that are nobody's.
    free: Vec<&'static Slot>,
    /// After so many more events without a slot, those of destroyed events are given away.
    until_sweep: usize,
}

const SHARDS: usize = 64;
/// How many events a shard follows.
const EVENTS: usize = 1 << 16;
/// How many events there are at least, before slots of destroyed ones are looked for again.
const FEW: usize = 64;

/// Whether an event may have been recorded that has no slot. Set before such a record can happen.
static RECORDS_UNSEEN: AtomicBool = AtomicBool::new(false);

static EVENTS_SEEN: [Lock<Shard>; SHARDS] = [const {
    Lock::new(Shard {
        slots: HashMap::with_hasher(BuildHasherDefault::new()),
        free: Vec::new(),
        until_sweep: FEW,
    })
}; SHARDS];

fn shard(event: usize) -> &'static Lock<Shard> {
    &EVENTS_SEEN[(spread(event) >> 40) as usize % SHARDS]
}

impl Shard {
    /// The event's slot, a new one where it had none; `None`: there are too many.
    fn slot(&mut self, me: Me, event: usize) -> Option<&'static Slot> {
        if let Some(slot) = self.slots.get(&event) {
            return Some(slot);
        }
        match self.until_sweep.checked_sub(1) {
            Some(left) => self.until_sweep = left,
            None => self.sweep(me),
        }
        if self.slots.len() >= EVENTS {
            return None;
        }
        let holds = Holds::new(event);
        let slot = match self.free.pop() {
            Some(slot) => {
                slot.with(me, |value| *value = holds);
                slot
            }
            None => Box::leak(Box::new(Slot::new(holds))),
        };
        self.slots.insert(event, slot);
        Some(slot)
    }

    /// Takes their slots from destroyed events.
    #[cold]
    fn sweep(&mut self, me: Me) {
        let free = &mut self.free;
        self.slots.retain(|_, slot| {
            let is_used = slot.with(me, |holds| {
                if holds.state.is_none() {
                    holds.event = 0;
                }
                holds.state.is_some()
            });
            if !is_used {
                free.push(slot);
            }
            is_used
        });
        // So it costs each event the same, however many there are.
        self.until_sweep = self.slots.len().max(FEW);
    }
}

/// The slot that the event has, or had when the thread last found it. It may be another's by now.
#[inline]
pub(crate) fn find(me: Me, cache: &EventCache, event: usize) -> Option<&'static Slot> {
    cache
        .get(event, event)
        .or_else(|| look_up(me, cache, event))
}

#[cold]
fn look_up(me: Me, cache: &EventCache, event: usize) -> Option<&'static Slot> {
    let slot = *shard(event).lock_by(me).slots.get(&event)?;
    cache.set(event, event, slot);
    Some(slot)
}

/// The event holds `state` from now on, as what follows from the last work of `guard`'s stream.
/// `false`: it has no slot that is guarded by that stream, and nothing was written.
#[inline]
pub(crate) fn set_under(
    slot: Option<&'static Slot>,
    guard: &mut Guard<'_, Inner>,
    event: usize,
    state: EventState,
) -> bool {
    let set = |holds: &mut Holds| holds.set(event, state);
    slot.is_some_and(|slot| slot.with_primary(guard, set) == Some(true))
}

/// The event, which this stream records, holds `state` from now on.
///
/// The stream becomes the slot's primary where it recorded the event the last time too. An event of
/// two streams in turn stays where it is, since to write it there costs less than to move it.
#[cold]
pub(crate) fn set_on(
    me: Me,
    cache: &EventCache,
    entry: &'static Stream,
    event: usize,
    state: EventState,
) {
    let is_here = |state: Option<EventState>| match state {
        Some(EventState::Recorded(mark)) => std::ptr::eq(mark.stream.entry, entry),
        _ => false,
    };
    let set = |holds: &mut Holds| {
        let was_here = is_here(holds.state);
        holds.set(event, state).then_some(was_here)
    };
    if let Some(slot) = cache.get(event, event)
        && let Some(false) = slot.with(me, set)
    {
        return;
    }
    let mut shard = shard(event).lock_by(me);
    let Some(slot) = shard.slot(me, event) else {
        records_go_unseen();
        return;
    };
    slot.delegate(me, &entry.0, |holds| holds.set(event, state));
    cache.set(event, event, slot);
}

/// The event holds `state` from now on.
pub(crate) fn set(me: Me, event: usize, state: EventState) {
    if event == 0 {
        return;
    }
    let mut shard = shard(event).lock_by(me);
    match shard.slot(me, event) {
        Some(slot) => drop(slot.with(me, |holds| holds.set(event, state))),
        None => records_go_unseen(),
    }
}

/// The event is about to be destroyed.
pub(crate) fn forget(me: Me, cache: &EventCache, event: usize) {
    let forget = |holds: &mut Holds| {
        let is_its = holds.event == event;
        if is_its {
            *holds = Holds::new(event);
        }
        is_its
    };
    let is_done = |slot: &'static Slot| slot.with(me, forget);
    if !find(me, cache, event).is_some_and(is_done)
        && let Some(slot) = look_up(me, cache, event)
    {
        slot.with(me, forget);
    }
}

pub(crate) fn event(me: Me, event: usize) -> Option<EventState> {
    let shard = shard(event).lock_by(me);
    let slot = shard.slots.get(&event)?;
    slot.with(me, |holds| holds.state)
}

/// What a wait finds in an event: `None`, that it was never recorded.
pub(crate) fn awaited(me: Me, cache: &EventCache, handle: usize) -> Option<EventState> {
    let look = |holds: &mut Holds| (holds.event == handle).then_some(holds.state).flatten();
    let found = find(me, cache, handle).and_then(|slot| slot.with(me, look));
    let unseen = || {
        RECORDS_UNSEEN
            .load(Ordering::SeqCst)
            .then_some(EventState::Unseen)
    };
    found.or_else(|| event(me, handle)).or_else(unseen)
}

/// From now on, an event without a slot may have been recorded.
pub(crate) fn records_go_unseen() {
    RECORDS_UNSEEN.store(true, Ordering::SeqCst);
}

/// Nothing is known of any event any more.
pub(crate) fn forget_all() {
    records_go_unseen();
    let me = Me::get();
    let forget = |holds: &mut Holds| {
        if holds.state.is_some() {
            holds.set(holds.event, EventState::Unseen);
        }
    };
    for shard in &EVENTS_SEEN {
        for slot in shard.lock_by(me).slots.values() {
            slot.with(me, forget);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_of_destroyed_events_are_used_again_and_those_of_others_stay() {
        let me = Me::get();
        let mut shard = Shard {
            slots: HashMap::default(),
            free: Vec::new(),
            until_sweep: FEW,
        };
        let mut made = |event| {
            let slot = shard.slot(me, event).unwrap();
            slot.with(me, |holds| holds.state = Some(EventState::Unseen));
            (slot, shard.slots.len() + shard.free.len())
        };
        let stays: Vec<_> = (1..=100).map(|event| (event, made(event).0)).collect();
        for event in 1000..20_000 {
            let (slot, all) = made(event);
            assert!(all <= 2 * stays.len() + FEW + 2, "{all}");
            slot.with(me, |holds| holds.state = None);
        }
        for (event, slot) in stays {
            assert!(std::ptr::eq(shard.slot(me, event).unwrap(), slot));
            slot.with(me, |holds| {
                assert!(holds.event == event && holds.state.is_some());
            });
        }
    }
}
