//! A lock for a few instructions at a time. It is never held while the driver is called, and never
//! while other code of the program runs.

use std::{
    cell::UnsafeCell,
    ops::{Deref, DerefMut},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

/// `std`'s mutex costs as much without contention, but may sleep in the system with it; the holder
/// of this one is always about to let go.
#[derive(Debug, Default)]
pub(crate) struct Lock<T> {
    /// 0: nobody has it. Else the thread that has, by [`me`], with [`FORKS`] while it forks.
    holder: AtomicUsize,
    value: UnsafeCell<T>,
}

// SAFETY: `holder` is one thread at a time
unsafe impl<T: Send> Sync for Lock<T> {}

pub(crate) struct Guard<'a, T>(&'a Lock<T>);

/// Added to a thread: it has the lock while it forks.
const FORKS: usize = 1;

/// How often a thread looks before it lets others run, among them a preempted holder.
const SPINS: u32 = 64;
/// How often it looks before it sleeps each time. A thread of real-time priority lets only its
/// equals run otherwise.
const YIELDS: u32 = 1024;
const SLEEP: Duration = Duration::from_micros(50);

/// A number that no other thread has, and is not 0. It stays in a forked child.
#[inline]
fn me() -> usize {
    thread_local! {
        static PLACE: AtomicUsize = const { AtomicUsize::new(0) };
    }
    PLACE.with(|place| place.as_ptr().addr())
}

impl<T> Lock<T> {
    pub(crate) const fn new(value: T) -> Lock<T> {
        Lock {
            holder: AtomicUsize::new(0),
            value: UnsafeCell::new(value),
        }
    }

    #[inline]
    pub(crate) fn lock(&self) -> Guard<'_, T> {
        let me = me();
        if !self.take(me) {
            self.wait(me);
        }
        Guard(self)
    }

    /// Takes the lock until [`let_go`](Lock::let_go), since the calling thread forks. Where it
    /// has the lock already, a signal handler forks in the midst of what holds it: that is not
    /// waited for, and goes on once the handler has returned, in the forked child too.
    pub(crate) fn hold(&self) {
        let me = me();
        if self.holder.load(Ordering::Relaxed) & !FORKS != me && !self.take(me | FORKS) {
            self.wait(me | FORKS);
        }
    }

    /// Ends what [`hold`](Lock::hold) has begun, on the same thread or in its forked child.
    pub(crate) fn let_go(&self) {
        if self.holder.load(Ordering::Relaxed) == me() | FORKS {
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
        loop {
            while self.holder.load(Ordering::Relaxed) != 0 {
                looked = looked.saturating_add(1);
                match looked {
                    ..SPINS => std::hint::spin_loop(),
                    SPINS..YIELDS => std::thread::yield_now(),
                    _ => std::thread::sleep(SLEEP),
                }
            }
            if self.take(holder) {
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
        self.0.holder.store(0, Ordering::Release);
    }
}
