//! A lock for a few instructions at a time. It is never held while the driver is called, and never
//! while other code of the program runs.

use std::{
    cell::Cell,
    ops::{Deref, DerefMut},
};

use crate::sync::{AtomicUsize, Ordering, UnsafeCell, let_others_run};

/// `std`'s mutex costs as much without contention, but may sleep in the system with it; the holder
/// of this one is always about to let go.
#[derive(Debug)]
#[cfg_attr(not(loom), derive(Default))]
pub(crate) struct Lock<T> {
    /// 0: nobody has it. Else the thread that has, by its [`Me`], with [`FORKS`] while it forks.
    holder: AtomicUsize,
    value: UnsafeCell<T>,
}

// SAFETY: `holder` is one thread at a time
unsafe impl<T: Send> Sync for Lock<T> {}

pub(crate) struct Guard<'a, T>(&'a Lock<T>);

/// Added to a thread: it has the lock while it forks.
const FORKS: usize = 1;

/// A thread, to its locks: a number that no other thread has, and is not 0. It stays in a forked
/// child.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Me(usize);

impl Me {
    /// The calling thread.
    #[inline]
    pub(crate) fn get() -> Me {
        thread_local! {
            // Of two bytes, so that the lowest bit of its address is free for [`FORKS`].
            static PLACE: Cell<u16> = const { Cell::new(0) };
        }
        PLACE.with(|place| Me(place.as_ptr().addr()))
    }
}

impl<T> Lock<T> {
    #[cfg(not(loom))]
    pub(crate) const fn new(value: T) -> Lock<T> {
        Lock {
            holder: AtomicUsize::new(0),
            value: UnsafeCell::new(value),
        }
    }

    #[cfg(loom)]
    pub(crate) fn new(value: T) -> Lock<T> {
        Lock {
            holder: AtomicUsize::new(0),
            value: UnsafeCell::new(value),
        }
    }

    #[inline]
    pub(crate) fn lock(&self) -> Guard<'_, T> {
        self.lock_by(Me::get())
    }

    /// [`lock`](Lock::lock), where the thread knows itself already.
    #[inline]
    pub(crate) fn lock_by(&self, Me(me): Me) -> Guard<'_, T> {
        if !self.take(me) {
            self.wait(me);
        }
        Guard(self)
    }

    /// Takes the lock until [`let_go`](Lock::let_go), since the calling thread forks. Where it
    /// has the lock already, a signal handler forks in the midst of what holds it: that is not
    /// waited for, and goes on once the handler has returned, in the forked child too.
    pub(crate) fn hold(&self) {
        let Me(me) = Me::get();
        if self.holder.load(Ordering::Relaxed) & !FORKS != me && !self.take(me | FORKS) {
            self.wait(me | FORKS);
        }
    }

    /// Ends what [`hold`](Lock::hold) has begun, on the same thread or in its forked child.
    pub(crate) fn let_go(&self) {
        if self.holder.load(Ordering::Relaxed) == Me::get().0 | FORKS {
            self.holder.store(0, Ordering::Release);
        }
    }

    #[inline]
    fn take(&self, holder: usize) -> bool {
        let taken = self
            .holder
            .compare_exchange(0, holder, Ordering::Acquire, Ordering::Relaxed);
        taken.is_ok()
    }

    #[cold]
    fn wait(&self, holder: usize) {
        let mut looked: u32 = 0;
        // loom may show an old holder for ever, but takes the lock where it is free.
        let seems_free = || cfg!(loom) || self.holder.load(Ordering::Relaxed) == 0;
        while !(seems_free() && self.take(holder)) {
            looked = looked.saturating_add(1);
            let_others_run(looked);
        }
    }
}

impl<'a, T> Guard<'a, T> {
    /// The lock that this holds.
    #[inline]
    pub(crate) fn of(&self) -> &'a Lock<T> {
        self.0
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the guard is the only one
        self.0.value.with(|value| unsafe { &*value })
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above
        self.0.value.with_mut(|value| unsafe { &mut *value })
    }
}

impl<T> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        self.0.holder.store(0, Ordering::Release);
    }
}
