//! A value that is delegated to the lock of another: who has that one writes both under one lock.
//!
//! A record changes its stream and its event. An event is most often recorded again on the stream
//! where it was recorded last, so what it holds is guarded by the lock of that stream, its primary.
//!
//! | primary | the value is guarded by |
//! |---|---|
//! | none | its own lock |
//! | a lock | that lock |
//!
//! *Invariant: `primary` changes only under the value's own lock, and, where it is or becomes a
//! lock, under that lock too.* So whoever has a lock and reads it there has the value until it lets
//! that lock go; whoever has the value's own lock and reads none there has it likewise. What is
//! read there before the lock is taken is a hint, and is read again under it.
//!
//! Own locks come before primaries in the order of taking, and nobody has two primaries at a time.

use crate::{
    lock::{Guard, Lock, Me},
    sync::{AtomicPtr, Ordering, UnsafeCell},
};

#[derive(Debug)]
pub(crate) struct Delegated<T, P: 'static> {
    primary: AtomicPtr<Lock<P>>,
    own: Lock<()>,
    value: UnsafeCell<T>,
}

// SAFETY: `primary` and `own` let one thread at a time have the value
unsafe impl<T: Send, P: Send> Sync for Delegated<T, P> {}

impl<T, P> Delegated<T, P> {
    pub(crate) fn new(value: T) -> Delegated<T, P> {
        Delegated {
            primary: AtomicPtr::new(std::ptr::null_mut()),
            own: Lock::new(()),
            value: UnsafeCell::new(value),
        }
    }

    /// `None`: it has none.
    fn primary(&self) -> Option<&'static Lock<P>> {
        // SAFETY: it is null, or was made of a reference that lasts for ever
        unsafe { self.primary.load(Ordering::Acquire).as_ref() }
    }

    fn is_primary(&self, lock: &Lock<P>) -> bool {
        std::ptr::eq(self.primary.load(Ordering::Acquire), lock)
    }

    /// Only for who has the lock that guards it.
    #[inline]
    fn use_value<R>(&self, body: impl FnOnce(&mut T) -> R) -> R {
        // SAFETY: the caller has the lock
        self.value.with_mut(|value| body(unsafe { &mut *value }))
    }

    /// Runs `body`, which takes no lock, with the value.
    pub(crate) fn with<R>(&self, me: Me, body: impl FnOnce(&mut T) -> R) -> R {
        loop {
            match self.primary() {
                None => {
                    let _own = self.own.lock_by(me);
                    if self.primary().is_none() {
                        return self.use_value(body);
                    }
                }
                Some(primary) => {
                    let _guard = primary.lock_by(me);
                    if self.is_primary(primary) {
                        return self.use_value(body);
                    }
                }
            }
        }
    }

    /// The same for who has a lock already; `None`: that is not the primary.
    #[inline]
    pub(crate) fn with_primary<R>(
        &self,
        guard: &mut Guard<'_, P>,
        body: impl FnOnce(&mut T) -> R,
    ) -> Option<R> {
        self.is_primary(guard.of()).then(|| self.use_value(body))
    }

    /// Runs `body`, which takes no lock, with the value, whose primary `primary` is from now on.
    /// The caller has no primary's lock.
    pub(crate) fn delegate<R>(
        &self,
        me: Me,
        primary: &'static Lock<P>,
        body: impl FnOnce(&mut T) -> R,
    ) -> R {
        let _own = self.own.lock_by(me);
        if let Some(last) = self.primary() {
            let _guard = last.lock_by(me);
            self.primary.store(std::ptr::null_mut(), Ordering::Release);
        }
        let _guard = primary.lock_by(me);
        let primary = std::ptr::from_ref(primary).cast_mut();
        self.primary.store(primary, Ordering::Release);
        self.use_value(body)
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use loom::{sync::Arc, thread};

    use super::*;

    type Counts = Delegated<usize, usize>;

    fn lock() -> &'static Lock<usize> {
        Box::leak(Box::new(Lock::new(0)))
    }

    /// As a record does it.
    fn record(counts: &Counts, primary: &'static Lock<usize>) {
        let me = Me::get();
        let mut guard = primary.lock_by(me);
        *guard += 1;
        let done = counts.with_primary(&mut guard, |value| *value += 1);
        drop(guard);
        if done.is_none() {
            counts.delegate(me, primary, |value| *value += 1);
        }
    }

    #[test]
    fn who_reads_has_the_value_alone_while_its_primary_changes() {
        loom::model(|| {
            let (a, b) = (lock(), lock());
            let counts = Arc::new(Counts::new(0));
            let other = {
                let counts = counts.clone();
                thread::spawn(move || {
                    record(&counts, a);
                    record(&counts, b);
                })
            };
            let seen = counts.with(Me::get(), |value| {
                *value += 1;
                *value
            });
            assert!((1..=3).contains(&seen));
            other.join().unwrap();
            assert_eq!(counts.with(Me::get(), |value| *value), 3);
            assert_eq!((*a.lock(), *b.lock()), (1, 1));
        });
    }

    #[test]
    fn two_primaries_in_turn_do_not_stop_each_other() {
        loom::model(|| {
            let (a, b) = (lock(), lock());
            let counts = Arc::new(Counts::new(0));
            let other = {
                let counts = counts.clone();
                thread::spawn(move || {
                    record(&counts, a);
                    record(&counts, b);
                })
            };
            record(&counts, b);
            record(&counts, a);
            other.join().unwrap();
            assert_eq!(counts.with(Me::get(), |value| *value), 4);
        });
    }
}
