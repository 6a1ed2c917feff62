//! Markers that are values on a counter.

use std::{any::Any, panic::Location, sync::Arc, time::Instant};

use super::{
    Counter, Time,
    epoch::{Epoch, Outlook},
    reserve::ReservedMarker,
    values::Allocated,
};
use crate::contract::{MarkerImpl, TimelineKnowledge};
use crate::timeline::Point;
use crate::{
    clock::{Elapsed, Timestamp},
    error::{Error, Result},
    sync::spin_until,
    timeline::Awaited,
};

pub(crate) struct CountedMarker<C: Counter> {
    point: Point,
    pub(crate) epoch: Arc<Epoch>,
    pub(crate) counter: Arc<C>,
    time: Option<C::Time>,
}

impl<C: Counter> CountedMarker<C> {
    /// The marker at `place`, whose submit gave it a time if it has timing.
    pub(crate) fn new(
        counter: Arc<C>,
        place: Allocated<Option<C::Time>>,
        timing: bool,
        at: &'static Location<'static>,
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

    /// It was recorded again in place, on its own stream. Whoever watches the old value watches the
    /// epoch, so nobody misses it.
    #[inline]
    pub(crate) fn is_now(
        &mut self,
        value: u64,
        time: Option<C::Time>,
        at: &'static Location<'static>,
    ) {
        self.point.value = value;
        self.point.at = at;
        self.time = time;
    }

    /// The value that the counter has once the marker is complete; `None` where it fails instead.
    pub(crate) fn native(&self) -> Option<u64> {
        match self.epoch.outlook(self.point.value) {
            Outlook::Completes(native) => Some(native),
            Outlook::Fails(..) => None,
        }
    }

    /// What its submit gave; `None` behind a failure.
    #[cfg(has_metal)]
    pub(crate) fn submitted(&self) -> Option<&C::Time> {
        self.time.as_ref()
    }

    /// The value of the counter at which the marker's fate is known.
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

    /// What sticks to the stream is what everyone sees.
    fn failed(&self, error: Error) -> Error {
        self.check().err().unwrap_or(error)
    }

    fn time(&self) -> Result<&C::Time> {
        self.time
            .as_ref()
            .ok_or(Error::TimingDisabled { which: "held" })
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
        let any: &dyn Any = end;
        if let Some(reserved) = any.downcast_ref::<ReservedMarker<C>>() {
            return self.elapsed(reserved.submitted()?);
        }
        match any.downcast_ref::<CountedMarker<C>>() {
            Some(end) => self.time()?.elapsed(end.time()?),
            None => self.timestamp()?.elapsed(&end.timestamp()?),
        }
    }
}
