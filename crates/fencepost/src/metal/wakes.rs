//! Firing of waiters without recursion.

use std::{cell::RefCell, collections::VecDeque};

use crate::timeline::Wake;

#[cfg(not(loom))]
thread_local! {
    /// What this thread still has to fire, while it is firing.
    static DUE: RefCell<Option<VecDeque<Wake>>> = const { RefCell::new(None) };
}
// loom runs its threads on one thread of the system, so they need loom's own locals.
#[cfg(loom)]
loom::thread_local! {
    static DUE: RefCell<Option<VecDeque<Wake>>> = RefCell::new(None);
}

/// Fires `wakes` in order. Call it without any lock held.
///
/// A waiter may end a step of another stream and so call this function again. Such a nested call
/// only appends to the list of the outer one, so a chain of thousands of streams does not recurse.
pub(super) fn fire_all(wakes: Vec<Wake>) {
    if wakes.is_empty() {
        return;
    }
    let mut wakes = Some(wakes);
    let is_nested = DUE.try_with(|due| match &mut *due.borrow_mut() {
        Some(due) => {
            due.extend(wakes.take().into_iter().flatten());
            true
        }
        none => {
            *none = Some(wakes.take().into_iter().flatten().collect());
            false
        }
    });
    match is_nested {
        Ok(true) => {}
        Ok(false) => {
            while let Ok(Some(wake)) = DUE.try_with(|due| {
                let mut due = due.borrow_mut();
                let next = due.as_mut().and_then(VecDeque::pop_front);
                if next.is_none() {
                    *due = None;
                }
                next
            }) {
                wake.fire();
            }
        }
        // The thread is ending, and its locals are gone.
        Err(_) => wakes.into_iter().flatten().for_each(Wake::fire),
    }
}
