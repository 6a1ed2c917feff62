//! Who hands out a stream's values.
//!
//! `open` is the submit lock: whoever holds it submits, and the order of values is the order of submits. The
//! driver may block under it, so nothing that must not block takes it; readers look at `shown`.

use std::sync::Arc;

use super::segment::Segment;
use crate::{
    error::Cause,
    sync::{Mutex, MutexGuard, Ordering, lock},
    timeline::{StreamCore, Wake},
};

pub(crate) struct Account {
    core: Arc<StreamCore>,
    open: Mutex<Open>,
    shown: Mutex<Arc<Segment>>,
}

/// What is known under the submit lock.
pub(crate) struct Open {
    pub(crate) segment: Arc<Segment>,
    /// The last value handed out.
    pub(crate) last: u64,
}

/// Where a marker stands.
pub(crate) struct Place<T> {
    pub(crate) segment: Arc<Segment>,
    pub(crate) value: u64,
    /// What its submit gave; `None` behind a failure, where nothing is submitted.
    pub(crate) submitted: Option<T>,
}

impl Open {
    /// As [`Account::end`]; what it gives is to be fired without the submit lock.
    #[must_use]
    pub(crate) fn end<R>(
        &self,
        cause: &Cause,
        submit: impl FnOnce(u64) -> Result<(), R>,
    ) -> Option<Wake> {
        if self.segment.is_closed() {
            return None;
        }
        let native = self.segment.close(self.last, cause.clone());
        match submit(native) {
            Ok(()) => None,
            Err(_) => Some(self.segment.timeline.fail(cause, false)),
        }
    }
}

impl Account {
    pub(crate) fn new(core: Arc<StreamCore>) -> Account {
        let segment = Segment::new(&core, 0, 0);
        Account {
            core,
            shown: Mutex::new(segment.clone()),
            open: Mutex::new(Open { segment, last: 0 }),
        }
    }

    /// The segment that is recorded on now. Never blocks on a submit.
    pub(crate) fn now(&self) -> Arc<Segment> {
        lock(&self.shown).clone()
    }

    /// The submit lock.
    pub(crate) fn open(&self) -> MutexGuard<'_, Open> {
        lock(&self.open)
    }

    /// Hands out a value for which `submit` signals the native value that it is given. Where that fails,
    /// nothing has changed.
    #[inline]
    pub(crate) fn record<T, R>(
        &self,
        submit: impl FnOnce(u64) -> Result<T, R>,
    ) -> Result<Place<T>, R> {
        let mut open = self.open();
        let value = open.last + 1;
        let submitted = match open.segment.is_closed() {
            true => None,
            false => Some(submit(open.segment.native(value))?),
        };
        open.last = value;
        self.core.recorded.store(value, Ordering::Release);
        Ok(Place {
            segment: open.segment.clone(),
            value,
            submitted,
        })
    }

    /// As [`record`](Account::record), for a marker that is on `segment` already; `None` where the stream has left that
    /// or the submit was refused, and nothing has changed.
    #[inline]
    pub(super) fn record_again<T, R>(
        &self,
        segment: &Arc<Segment>,
        submit: impl FnOnce(u64) -> Result<T, R>,
    ) -> Option<(u64, T)> {
        let mut open = self.open();
        if !Arc::ptr_eq(&open.segment, segment) || segment.is_closed() {
            return None;
        }
        let value = open.last + 1;
        let submitted = submit(segment.native(value)).ok()?;
        open.last = value;
        self.core.recorded.store(value, Ordering::Release);
        Some((value, submitted))
    }

    /// Other work in the stream's order; `None` behind a failure, where nothing is submitted.
    pub(crate) fn submit<T, R>(
        &self,
        submit: impl FnOnce(&Open) -> Result<T, R>,
    ) -> Result<Option<T>, R> {
        let open = self.open();
        match open.segment.is_closed() {
            true => Ok(None),
            false => submit(&open).map(Some),
        }
    }

    /// Ends the stream behind what was submitted so far: `submit` signals the native value that it is given.
    /// Where that fails, the stream has failed at once. No-op where it has an end.
    pub(crate) fn end<R>(&self, cause: &Cause, submit: impl FnOnce(u64) -> Result<(), R>) {
        let wake = self.open().end(cause, submit);
        if let Some(wake) = wake {
            wake.fire();
        }
    }

    /// Goes on behind a failure; no-op without one.
    pub(crate) fn reopen(&self) {
        let mut open = self.open();
        if !open.segment.timeline.has_failed() {
            return;
        }
        // One more than the old offset: the end took a native value.
        let fresh = Segment::new(&self.core, open.last, open.segment.offset() + 1);
        open.segment = fresh.clone();
        let old = std::mem::replace(&mut *lock(&self.shown), fresh);
        drop(open);
        drop(old);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::{
        sync::{AtomicU64, thread},
        timeline::{Reached, loom_tests::stream_core},
    };

    /// Signals at once, as a device that is never busy; a value may only grow.
    fn signal(counter: &AtomicU64, native: u64) -> Result<(), ()> {
        let before = counter.swap(native, Ordering::AcqRel);
        assert!(before < native, "{native} was signalled after {before}");
        Ok(())
    }

    #[test]
    fn two_recorders_get_two_values_in_order_of_their_signals() {
        loom::model(|| {
            let account = Arc::new(Account::new(stream_core()));
            let counter = Arc::new(AtomicU64::new(0));
            let other = {
                let (account, counter) = (account.clone(), counter.clone());
                thread::spawn(move || {
                    account
                        .record(|native| signal(&counter, native))
                        .unwrap()
                        .value
                })
            };
            let mine = account
                .record(|native| signal(&counter, native))
                .unwrap()
                .value;
            assert_ne!(mine, other.join().unwrap());
        });
    }

    #[test]
    fn a_refused_submit_takes_no_value() {
        loom::model(|| {
            let account = Account::new(stream_core());
            assert!(account.record(|_| Err::<(), ()>(())).is_err());
            assert_eq!(account.record(|_| Ok::<(), ()>(())).unwrap().value, 1);
        });
    }

    #[test]
    fn a_record_beside_an_end_is_in_front_of_it_or_fails() {
        loom::model(|| {
            let account = Arc::new(Account::new(stream_core()));
            let counter = Arc::new(AtomicU64::new(0));
            let recording = {
                let (account, counter) = (account.clone(), counter.clone());
                thread::spawn(move || account.record(|native| signal(&counter, native)).unwrap())
            };
            account.end(&Cause::new("x"), |native| signal(&counter, native));
            let place = recording.join().unwrap();
            place.segment.settle(counter.load(Ordering::Acquire));
            let expected = match place.submitted {
                Some(()) => Reached::Yes,
                None => Reached::Failed,
            };
            assert_eq!(place.segment.timeline.reached(place.value), expected);
            account.reopen();
            let next = account.record(|native| signal(&counter, native)).unwrap();
            assert_eq!(next.segment.timeline.reached(next.value), Reached::NotYet);
            next.segment.settle(counter.load(Ordering::Acquire));
            assert_eq!(next.segment.timeline.reached(next.value), Reached::Yes);
            assert_eq!(place.segment.timeline.reached(place.value), expected);
        });
    }
}
