//! What the lock of a stream's order guards, beside the slots of events.
//!
//! A record in place needs its event's slot, and what its backend keeps of the stream. Where one
//! lock guards both, that costs one atomic read-modify-write (see [`rerecord`](crate::rerecord)).

#![allow(unsafe_code)]

use std::{
    ops::{Deref, DerefMut},
    sync::Arc,
};

use crate::{
    core::StreamCore,
    rerecord::Lock,
    sync::{MutPtr, UnsafeCell},
};

/// A value that the lock of the stream's order guards.
pub(crate) struct Ordered<T> {
    pub(crate) stream: Arc<StreamCore>,
    value: UnsafeCell<T>,
}

/// Access to the value, for as long as the lock is held.
pub(crate) struct Guard<'a, T> {
    value: MutPtr<T>,
    /// Dropped last: it lets the next owner in.
    _lock: Lock<'a>,
}

// SAFETY: `value` is reached under the lock alone. So this is what a `Mutex` is, which is `Sync`
// for what is `Send`.
unsafe impl<T: Send> Sync for Ordered<T> {}

impl<T> Ordered<T> {
    pub(crate) fn new(stream: Arc<StreamCore>, value: T) -> Ordered<T> {
        Ordered {
            stream,
            value: UnsafeCell::new(value),
        }
    }

    #[inline]
    pub(crate) fn lock(&self) -> Guard<'_, T> {
        self.guard(Lock::of(&self.stream, None))
    }

    /// As [`lock`](Ordered::lock), for a thread that has a lock, perhaps this one.
    #[inline(always)]
    pub(crate) fn lock_from<'a>(&'a self, had: Lock<'a>) -> Guard<'a, T> {
        self.guard(Lock::of(&self.stream, Some(had)))
    }

    #[inline(always)]
    fn guard<'a>(&'a self, lock: Lock<'a>) -> Guard<'a, T> {
        Guard {
            value: self.value.get_mut(),
            _lock: lock,
        }
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: whoever has the lock is alone with the value.
        self.value.with(|value| unsafe { &*value })
    }
}

impl<T> DerefMut for Guard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above; and `self` is borrowed exclusively.
        self.value.with(|value| unsafe { &mut *value })
    }
}
