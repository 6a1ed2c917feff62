//! What the protocols of this library stand on: of `std`, or of loom where that explores them.

#[cfg(loom)]
pub(crate) use loom::{
    cell::UnsafeCell,
    sync::atomic::{AtomicPtr, AtomicUsize, Ordering, fence},
};
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering, fence};

/// What a protocol guards. Under loom every use of it is checked.
#[cfg(not(loom))]
#[derive(Debug, Default)]
pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T> UnsafeCell<T> {
    pub(crate) const fn new(value: T) -> UnsafeCell<T> {
        UnsafeCell(std::cell::UnsafeCell::new(value))
    }

    #[inline]
    pub(crate) fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
        f(self.0.get())
    }

    #[inline]
    pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.0.get())
    }
}

/// For a thread that has looked this often whether a lock is free.
#[cfg(not(loom))]
pub(crate) fn let_others_run(looked: u32) {
    /// How often it looks before it lets others run, among them a preempted holder.
    const SPINS: u32 = 64;
    /// How often it looks before it sleeps each time. A thread of real-time priority lets only its
    /// equals run otherwise.
    const YIELDS: u32 = 1024;
    const SLEEP: std::time::Duration = std::time::Duration::from_micros(50);

    match looked {
        ..SPINS => std::hint::spin_loop(),
        SPINS..YIELDS => std::thread::yield_now(),
        _ => std::thread::sleep(SLEEP),
    }
}

#[cfg(loom)]
pub(crate) fn let_others_run(_looked: u32) {
    loom::thread::yield_now();
}
