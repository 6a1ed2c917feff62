//! Who is told of waits and of gates that are opened: the one hook in the nouns, and in CUDA's raw
//! events. It knows none of its observers.
//!
//! While nobody observes, a wait pays one relaxed load. The list is a process's own: in a forked
//! child nobody observes, and no lock is found held.

use std::sync::{
    Arc, PoisonError, RwLock, Weak,
    atomic::{AtomicUsize, Ordering},
};

use crate::{core::StreamCore, fork::PerProcess};

/// A wait that was made.
pub(crate) struct Wait<'a> {
    /// The stream of the awaited marker, or the gate.
    pub(crate) awaited: &'a Arc<StreamCore>,
    /// The marker's value.
    pub(crate) value: u64,
    pub(crate) waiting: &'a Arc<StreamCore>,
    /// The last value of the waiting stream in front of the wait.
    pub(crate) after: u64,
}

/// What observes. It is called without any lock, on the thread that makes the call.
pub(crate) trait Observer: Send + Sync {
    fn waits(&self, wait: &Wait<'_>);
    fn opens(&self, gate: &StreamCore);
}

/// How many there are, as far as anybody can tell without a lock. In a forked child it stays.
static COUNT: AtomicUsize = AtomicUsize::new(0);

type List = RwLock<Vec<Weak<dyn Observer>>>;

fn list() -> &'static List {
    static LIST: PerProcess<List> = PerProcess::new();
    LIST.get_or_make(|_| RwLock::default())
}

/// Tells `observer` from now on, until it is [removed](remove).
pub(crate) fn add(observer: Weak<dyn Observer>) {
    change(|list| list.push(observer));
}

/// Tells `observer` no more, whoever still holds it.
pub(crate) fn remove(observer: &Weak<dyn Observer>) {
    change(|list| list.retain(|other| !other.ptr_eq(observer)));
}

fn change(change: impl FnOnce(&mut Vec<Weak<dyn Observer>>)) {
    let mut list = list().write().unwrap_or_else(PoisonError::into_inner);
    change(&mut list);
    COUNT.store(list.len(), Ordering::Relaxed);
}

/// Whether anybody may observe.
#[inline]
pub(crate) fn any() -> bool {
    COUNT.load(Ordering::Relaxed) != 0
}

/// A stream waits, from now on. Waits for its own markers are none.
#[cold]
pub(crate) fn waits(wait: &Wait<'_>) {
    if wait.awaited.id != wait.waiting.id {
        tell(|observer| observer.waits(wait));
    }
}

/// A gate is open.
#[cold]
pub(crate) fn opens(gate: &StreamCore) {
    tell(|observer| observer.opens(gate));
}

fn tell(tell: impl Fn(&dyn Observer)) {
    let list = list().read().unwrap_or_else(PoisonError::into_inner);
    let observers: Vec<_> = list.iter().filter_map(Weak::upgrade).collect();
    drop(list);
    observers.iter().for_each(|observer| tell(&**observer));
}

#[cfg(test)]
pub(crate) fn is_told(observer: &Weak<dyn Observer>) -> bool {
    let list = list().read().unwrap_or_else(PoisonError::into_inner);
    list.iter().any(|other| other.ptr_eq(observer))
}
