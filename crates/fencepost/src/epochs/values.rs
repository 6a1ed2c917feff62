//! The value allocator, which hands out a stream's values.
//!
//! The lock of `state` is the submit lock: whoever holds it submits, so the order of values is the
//! order of submits. The driver may block under it. Calls that must not block look at `current`
//! instead.

use std::sync::Arc;

use super::epoch::Epoch;
use crate::{
    core::StreamCore,
    error::Cause,
    lost::Loses,
    sync::{Mutex, MutexGuard, Ordering, lock},
    timeline::Wake,
};

pub(crate) struct ValueAllocator {
    core: Arc<StreamCore>,
    state: Mutex<SubmitState>,
    current: Mutex<Arc<Epoch>>,
}

/// What is known under the submit lock.
pub(crate) struct SubmitState {
    pub(crate) epoch: Arc<Epoch>,
    /// The last value handed out.
    pub(crate) last: u64,
}

/// A value that was handed out to a marker.
pub(crate) struct Allocated<T> {
    pub(crate) epoch: Arc<Epoch>,
    pub(crate) value: u64,
    /// What its submit returned; `None` behind a failure, where nothing is submitted.
    pub(crate) submitted: Option<T>,
}

/// The next value of a stream, and its submit lock. Dropped without
/// [`submitted`](NextValue::submitted), it is not used up.
pub(crate) struct NextValue<'a> {
    core: &'a StreamCore,
    state: MutexGuard<'a, SubmitState>,
}

impl NextValue<'_> {
    /// The native value for the submit to signal.
    #[inline]
    pub(crate) fn native(&self) -> u64 {
        self.state.epoch.native(self.state.last + 1)
    }

    /// Uses the value up, since its submit has succeeded, and gives it.
    #[inline]
    pub(crate) fn submitted(mut self) -> u64 {
        self.state.last += 1;
        let value = self.state.last;
        self.core.recorded.store(value, Ordering::Release);
        value
    }
}

impl SubmitState {
    /// As [`ValueAllocator::fail_from_here`]. The caller fires what it gives, without the submit
    /// lock.
    #[must_use]
    pub(crate) fn fail_from_here<R>(
        &self,
        cause: &Cause,
        submit: impl FnOnce(u64) -> Result<(), R>,
    ) -> Option<Wake> {
        if self.epoch.is_closed() {
            return None;
        }
        let native = self.epoch.close(self.last, cause.clone());
        match submit(native) {
            Ok(()) => None,
            Err(_) => Some(self.epoch.timeline.fail(cause, false)),
        }
    }
}

impl ValueAllocator {
    pub(crate) fn new(core: Arc<StreamCore>) -> ValueAllocator {
        ValueAllocator::with_offset(core, 0)
    }

    /// On a counter that has the value `offset` by now.
    pub(crate) fn with_offset(core: Arc<StreamCore>, offset: u64) -> ValueAllocator {
        let epoch = Epoch::new(&core, 0, offset);
        ValueAllocator {
            core,
            current: Mutex::new(epoch.clone()),
            state: Mutex::new(SubmitState { epoch, last: 0 }),
        }
    }

    /// The epoch that is recorded on now. Never blocks on a submit.
    pub(crate) fn current_epoch(&self) -> Arc<Epoch> {
        lock(&self.current).clone()
    }

    /// The submit lock.
    pub(crate) fn lock_submits(&self) -> MutexGuard<'_, SubmitState> {
        lock(&self.state)
    }

    /// Hands out the next value. `submit` is to signal the native value that it is given; if it
    /// fails, nothing has changed.
    #[inline]
    pub(crate) fn record<T, R>(
        &self,
        submit: impl FnOnce(u64) -> Result<T, R>,
    ) -> Result<Allocated<T>, R> {
        let mut state = self.lock_submits();
        let value = state.last + 1;
        let submitted = match state.epoch.is_closed() {
            true => None,
            false => Some(submit(state.epoch.native(value))?),
        };
        state.last = value;
        self.core.recorded.store(value, Ordering::Release);
        Ok(Allocated {
            epoch: state.epoch.clone(),
            value,
            submitted,
        })
    }

    /// The next value, for a marker that is on `epoch` already; `None` if that is closed, or is not
    /// the stream's epoch any more.
    #[inline]
    pub(crate) fn next_on(&self, epoch: &Arc<Epoch>) -> Option<NextValue<'_>> {
        let state = self.lock_submits();
        match Arc::ptr_eq(&state.epoch, epoch) && !epoch.is_closed() {
            true => Some(NextValue {
                core: &self.core,
                state,
            }),
            false => None,
        }
    }

    /// Submits work that is no marker, in the stream's order; `None` behind a failure, where
    /// nothing is submitted.
    pub(crate) fn submit<T, R>(
        &self,
        submit: impl FnOnce(&SubmitState) -> Result<T, R>,
    ) -> Result<Option<T>, R> {
        let state = self.lock_submits();
        match state.epoch.is_closed() {
            true => Ok(None),
            false => submit(&state).map(Some),
        }
    }

    /// Fails the stream behind what was submitted so far. `submit` is to signal the native value of
    /// the failure point, which it is given; if it fails, the stream fails at once. Does nothing if
    /// the epoch is closed.
    pub(crate) fn fail_from_here<R>(
        &self,
        cause: &Cause,
        submit: impl FnOnce(u64) -> Result<(), R>,
    ) {
        let wake = self.lock_submits().fail_from_here(cause, submit);
        if let Some(wake) = wake {
            wake.fire();
        }
    }

    /// Starts a new epoch after a failure; does nothing without one.
    pub(crate) fn start_new_epoch(&self) {
        let mut state = self.lock_submits();
        if !state.epoch.timeline.has_failed() {
            return;
        }
        // One more than the old offset: the failure point took a native value.
        let fresh = Epoch::new(&self.core, state.last, state.epoch.offset() + 1);
        state.epoch = fresh.clone();
        let old = std::mem::replace(&mut *lock(&self.current), fresh);
        drop(state);
        drop(old);
    }
}

impl Loses for ValueAllocator {
    fn lose(&self, cause: &Cause) -> Wake {
        self.current_epoch().timeline.fail(cause, true)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::{device::Device, timeline::Reached};

    /// As by gates of the host that fail one after the other, with nothing recorded behind them.
    #[test]
    fn a_stream_fails_again_and_again_though_its_counter_stays() {
        let stream = Device::open("host").unwrap().new_stream().unwrap();
        let values = ValueAllocator::new(stream.imp().core().clone());
        for round in 1..=3 {
            let epoch = values.current_epoch();
            epoch.begin_may_fail();
            epoch.fail_after(values.lock_submits().last, &Cause::new("x"));
            let failed = values.record(|_| Ok::<(), ()>(())).unwrap();
            assert_eq!(failed.submitted, None);
            epoch.settle(0);
            assert_eq!(
                epoch.timeline.reached(failed.value),
                Reached::Failed,
                "{round}"
            );
            values.start_new_epoch();
        }
        let mut signalled = 0;
        let next = values.record(|native| {
            signalled = native;
            Ok::<(), ()>(())
        });
        let next = next.unwrap();
        next.epoch.settle(signalled);
        assert_eq!(next.epoch.timeline.reached(next.value), Reached::Yes);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::{
        lost::loom_tests::{Epochs, a_loss_reaches_every_stream},
        sync::{AtomicU64, thread},
        timeline::{Reached, Timeline, loom_tests::stream_core},
    };

    impl Epochs for ValueAllocator {
        fn timeline(&self) -> Arc<Timeline> {
            self.current_epoch().timeline.clone()
        }

        fn start_new_epoch(&self) {
            ValueAllocator::start_new_epoch(self);
        }
    }

    #[test]
    fn a_loss_reaches_a_stream_that_is_made_or_cleared_beside_it() {
        a_loss_reaches_every_stream(|| Arc::new(ValueAllocator::new(stream_core())));
    }

    /// Signals at once, as a device that is never busy; a value may only grow.
    fn signal(counter: &AtomicU64, native: u64) -> Result<(), ()> {
        let before = counter.swap(native, Ordering::AcqRel);
        assert!(before < native, "{native} was signalled after {before}");
        Ok(())
    }

    #[test]
    fn two_recorders_get_two_values_in_order_of_their_signals() {
        loom::model(|| {
            let values = Arc::new(ValueAllocator::new(stream_core()));
            let counter = Arc::new(AtomicU64::new(0));
            let other = {
                let (values, counter) = (values.clone(), counter.clone());
                thread::spawn(move || {
                    values
                        .record(|native| signal(&counter, native))
                        .unwrap()
                        .value
                })
            };
            let mine = values
                .record(|native| signal(&counter, native))
                .unwrap()
                .value;
            assert_ne!(mine, other.join().unwrap());
        });
    }

    #[test]
    fn a_refused_submit_takes_no_value() {
        loom::model(|| {
            let values = ValueAllocator::new(stream_core());
            assert!(values.record(|_| Err::<(), ()>(())).is_err());
            assert_eq!(values.record(|_| Ok::<(), ()>(())).unwrap().value, 1);
        });
    }

    #[test]
    fn a_record_beside_a_failure_point_is_in_front_of_it_or_fails() {
        loom::model(|| {
            let values = Arc::new(ValueAllocator::new(stream_core()));
            let counter = Arc::new(AtomicU64::new(0));
            let recording = {
                let (values, counter) = (values.clone(), counter.clone());
                thread::spawn(move || values.record(|native| signal(&counter, native)).unwrap())
            };
            values.fail_from_here(&Cause::new("x"), |native| signal(&counter, native));
            let place = recording.join().unwrap();
            place.epoch.settle(counter.load(Ordering::Acquire));
            let expected = match place.submitted {
                Some(()) => Reached::Yes,
                None => Reached::Failed,
            };
            assert_eq!(place.epoch.timeline.reached(place.value), expected);
            values.start_new_epoch();
            let next = values.record(|native| signal(&counter, native)).unwrap();
            assert_eq!(next.epoch.timeline.reached(next.value), Reached::NotYet);
            next.epoch.settle(counter.load(Ordering::Acquire));
            assert_eq!(next.epoch.timeline.reached(next.value), Reached::Yes);
            assert_eq!(place.epoch.timeline.reached(place.value), expected);
        });
    }
}
