//! A lock for a few instructions at a time. It is never held while the driver is called, and never
//! while other code of the program runs.

use std::{
    cell::UnsafeCell,
    ops::{Deref, DerefMut},
    sync::atomic::{AtomicBool, Ordering},
};

/// `std`'s mutex costs as much without contention, but may sleep in the system with it; the holder
/// of this one is always about to let go.
#[derive(Debug, Default)]
pub(crate) struct Lock<T> {
    taken: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: `taken` admits one thread at a time
unsafe impl<T: Send> Sync for Lock<T> {}

pub(crate) struct Guard<'a, T>(&'a Lock<T>);

/// How often a thread looks before it lets others run, among them a preempted holder.
const SPINS: u32 = 64;

impl<T> Lock<T> {
    pub(crate) const fn new(value: T) -> Lock<T> {
        Lock {
            taken: AtomicBool::new(false),
            value: UnsafeCell::new(value),
        }
    }

    #[inline]
    pub(crate) fn lock(&self) -> Guard<'_, T> {
        if self.taken.swap(true, Ordering::Acquire) {
            self.wait();
        }
        Guard(self)
    }

    /// Takes the lock until [`let_go`](Lock::let_go).
    pub(crate) fn hold(&self) {
        std::mem::forget(self.lock());
    }

    /// # Safety
    /// The lock is held by [`hold`](Lock::hold), and nobody has let it go since.
    pub(crate) unsafe fn let_go(&self) {
        self.taken.store(false, Ordering::Release);
    }

    #[cold]
    fn wait(&self) {
        let mut looked = 0;
        loop {
            while self.taken.load(Ordering::Relaxed) {
                looked += 1;
                match looked < SPINS {
                    true => std::hint::spin_loop(),
                    false => std::thread::yield_now(),
                }
            }
            if !self.taken.swap(true, Ordering::Acquire) {
                return;
            }
        }
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the guard is the only one
        unsafe { &*self.0.value.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above
        unsafe { &mut *self.0.value.get() }
    }
}

impl<T> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        self.0.taken.store(false, Ordering::Release);
    }
}
