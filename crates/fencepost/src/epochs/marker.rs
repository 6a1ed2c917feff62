//! Markers that are values on a counter.

use std::{any::Any, sync::Arc, time::Instant};

use super::{
    counter::{Counter, Time},
    epoch::{Epoch, Expected},
    reserve::State,
    values::Allocated,
};
use crate::{
    clock::{Elapsed, Timestamp},
    contract::{MarkerImpl, TimelineKnowledge},
    error::{Error, Result},
    place::Place,
    sync::spin_until,
    timeline::{Awaited, Point},
};

pub(crate) struct CountedMarker<C: Counter> {
    point: Point,
    pub(crate) epoch: Arc<Epoch>,
    pub(crate) counter: Arc<C>,
    time: Option<C::Time>,
}

impl<C: Counter> CountedMarker<C> {
    /// The marker at `place`. If it has timing, its submit has given it a time.
    pub(crate) fn new(
        counter: Arc<C>,
        place: Allocated<Option<C::Time>>,
        timing: bool,
        at: Place,
    ) -> CountedMarker<C> {
        CountedMarker {
            point: Point {
                timeline: place.epoch.timeline.clone(),
                value: place.value,
                at,
                timing,
            },
            epoch: place.epoch,
            counter,
            time: place.submitted.flatten(),
        }
    }

    /// The marker of this kind behind one of any backend; an error where it is reserved, and its
    /// work is not known to be submitted.
    pub(crate) fn of(marker: &dyn MarkerImpl) -> Option<Result<&CountedMarker<C>>> {
        let any: &dyn Any = marker;
        match any.downcast_ref::<ReservedMarker<C>>() {
            Some(reserved) => Some(reserved.submitted()),
            None => any.downcast_ref().map(Ok),
        }
    }

    /// As [`of`](CountedMarker::of), also for a marker that is only reserved.
    pub(crate) fn of_reserved(marker: &dyn MarkerImpl) -> Option<&CountedMarker<C>> {
        let any: &dyn Any = marker;
        match any.downcast_ref::<ReservedMarker<C>>() {
            Some(reserved) => Some(&reserved.inner),
            None => any.downcast_ref(),
        }
    }

    /// Tells the marker that it was recorded again in place, on its own stream. Whoever watches its
    /// old value settles the whole epoch, so no waiter is missed.
    #[inline]
    pub(crate) fn is_now(&mut self, value: u64, time: Option<C::Time>, at: Place) {
        self.point.value = value;
        self.point.at = at;
        self.time = time;
    }

    /// The value that the counter has once the marker is complete; `None` where it fails instead.
    pub(crate) fn native(&self) -> Option<u64> {
        match self.epoch.expected(self.point.value) {
            Expected::Completes(native) => Some(native),
            Expected::Fails(..) => None,
        }
    }

    /// What its submit gave; `None` behind a failure.
    #[cfg(has_metal)]
    pub(crate) fn submitted(&self) -> Option<&C::Time> {
        self.time.as_ref()
    }

    /// The value of the counter at which it is known whether the marker completes.
    fn known_at(&self) -> u64 {
        self.epoch.known_at(self.epoch.native(self.point.value))
    }

    /// Reads the counter.
    #[cold]
    fn ask(&self) -> Result<bool> {
        match self.counter.read() {
            Ok(counter) => {
                self.epoch.settle(counter);
                self.check()
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    fn check(&self) -> Result<bool> {
        self.point.timeline.check(self.point.value)
    }

    /// The failure of the stream, which everyone sees; else `error`.
    fn failed(&self, error: Error) -> Error {
        self.check().err().unwrap_or(error)
    }

    fn time(&self) -> Result<&C::Time> {
        self.time
            .as_ref()
            .ok_or_else(|| Error::timing_disabled("held"))
    }
}

impl<C: Counter> Awaited for CountedMarker<C> {
    fn point(&self) -> &Point {
        &self.point
    }

    fn query(&self) -> Result<bool> {
        self.point.query(|| self.ask())
    }
}

impl<C: Counter> MarkerImpl for CountedMarker<C> {
    fn timeline_knowledge(&self) -> TimelineKnowledge {
        TimelineKnowledge::Completion
    }

    fn wait_until(&self, deadline: Option<Instant>) -> Result<bool> {
        if spin_until(deadline, || !matches!(self.query(), Ok(false))) {
            return self.query();
        }
        self.point.timeline.stream.device.check_fork()?;
        loop {
            // A failure point may have come in front of it meanwhile, so both are asked for anew.
            self.counter
                .wait(&self.epoch, self.known_at(), deadline)
                .map_err(|error| self.failed(error))?;
            match self.query() {
                Ok(false) => {}
                known => return known,
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok(false);
            }
        }
    }

    fn ensure_watched(&self) -> Result<()> {
        self.point.timeline.stream.device.check_fork()?;
        self.counter.watch(&self.epoch, self.known_at())
    }

    fn timestamp(&self) -> Result<Timestamp> {
        self.time()?.timestamp()
    }

    fn elapsed(&self, end: &dyn MarkerImpl) -> Result<Elapsed> {
        match CountedMarker::<C>::of(end).transpose()? {
            Some(end) => self.time()?.elapsed(end.time()?),
            None => self.timestamp()?.elapsed(&end.timestamp()?),
        }
    }
}

/// A reserved marker: its counter is its own, and reaches one value only.
pub(crate) struct ReservedMarker<C: Counter> {
    inner: CountedMarker<C>,
    state: Arc<State>,
}

impl<C: Counter> ReservedMarker<C> {
    pub(crate) fn new(inner: CountedMarker<C>, state: Arc<State>) -> ReservedMarker<C> {
        ReservedMarker { inner, state }
    }

    /// The marker, if it is known to be submitted.
    pub(crate) fn submitted(&self) -> Result<&CountedMarker<C>> {
        self.state.check(self.point()).map(|()| &self.inner)
    }
}

impl<C: Counter> Awaited for ReservedMarker<C> {
    fn point(&self) -> &Point {
        self.inner.point()
    }

    fn query(&self) -> Result<bool> {
        match self.submitted() {
            Ok(inner) => inner.query(),
            Err(Error::NotSubmitted { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl<C: Counter> MarkerImpl for ReservedMarker<C> {
    fn is_known_complete(&self) -> bool {
        self.state.is_submitted() && self.inner.is_known_complete()
    }

    fn wait_until(&self, deadline: Option<Instant>) -> Result<bool> {
        self.submitted()?.wait_until(deadline)
    }

    fn ensure_watched(&self) -> Result<()> {
        self.submitted()?.ensure_watched()
    }

    fn timestamp(&self) -> Result<Timestamp> {
        self.submitted()?.timestamp()
    }

    fn elapsed(&self, end: &dyn MarkerImpl) -> Result<Elapsed> {
        self.submitted()?.elapsed(end)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::{
        clock::host_clock,
        core::{Callbacks, DeviceCore, Job, StreamCore},
        epochs::ValueAllocator,
        wraps::Reading,
    };

    struct Never;
    impl Callbacks for Never {
        fn push(&self, _: Job) {}
        fn start(&self) {}
        fn panics(&self) -> u64 {
            0
        }
    }

    /// A time that tells more beside its like than alone, as one of a family with more valid bits
    /// than others have.
    struct Ticks(u64);
    impl Time for Ticks {
        fn timestamp(&self) -> Result<Timestamp> {
            Ok(Timestamp::new(self.0 & 0xf, host_clock()))
        }
        fn elapsed(&self, end: &Ticks) -> Result<Elapsed> {
            let [start, end] = [self.0, end.0].map(|ticks| Reading {
                ticks,
                bits: 64,
                bounds: None,
            });
            host_clock().between(start, end)
        }
    }

    struct Done;
    impl Counter for Done {
        type Time = Ticks;
        fn read(&self) -> Result<u64> {
            Ok(1)
        }
        fn wait(&self, _: &Epoch, _: u64, _: Option<Instant>) -> Result<()> {
            Ok(())
        }
        fn watch(self: &Arc<Self>, _: &Arc<Epoch>, _: u64) -> Result<()> {
            Ok(())
        }
    }

    #[test]
    fn times_are_compared_whole_whichever_marker_is_reserved() {
        let device = DeviceCore::new("", host_clock(), Arc::new(Never));
        let marker = |ticks| {
            let values = ValueAllocator::new(StreamCore::new(device.clone()));
            let time = |_| Ok::<_, Error>(Some(Ticks(ticks)));
            let place = values.record(time).unwrap();
            CountedMarker::new(Arc::new(Done), place, true, Place::caller())
        };
        let reserved = |ticks| {
            let state = State::reserved();
            state.submitted();
            ReservedMarker::new(marker(ticks), state)
        };
        for elapsed in [
            marker(1).elapsed(&marker(21)),
            reserved(1).elapsed(&marker(21)),
            reserved(1).elapsed(&reserved(21)),
            marker(1).elapsed(&reserved(21)),
        ] {
            assert_eq!(elapsed.unwrap().as_nanos_f64(), 20.0);
        }
    }
}
