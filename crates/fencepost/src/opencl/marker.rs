//! Markers of OpenCL streams.
//!
//! A marker shares its `cl_event` with its stream's account, which holds it until it is known to be
//! over. It is released when nobody holds the marker any more, either.

use std::{
    any::Any,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use super::{
    account::{Account, Recorded},
    context::Context,
    event::ClEvent,
    watched::Watch,
};
use crate::{
    clock::Timestamp,
    contract::{MarkerImpl, TimelineKnowledge},
    error::{Error, Result},
    place::Place,
    sync::spin_until,
    timeline::{Awaited, Point, Reached},
};

pub(super) struct ClMarker {
    pub(super) point: Point,
    pub(super) context: &'static Context,
    pub(super) account: Arc<Account<ClMarker>>,
    /// `None` where the stream had failed and the driver refused.
    pub(super) event: Option<Arc<ClEvent>>,
    /// Whether the driver was told to call back once it is over.
    pub(super) calls_back: AtomicBool,
}

impl ClMarker {
    /// The marker was recorded again in place, and has its new event.
    #[inline]
    pub(super) fn is_now(&mut self, value: u64, at: Place) {
        self.point.value = value;
        self.point.at = at;
        *self.calls_back.get_mut() = false;
    }

    /// The marker behind a marker of any backend, if it is one of OpenCL.
    pub(super) fn of(marker: &dyn MarkerImpl) -> Option<&ClMarker> {
        (marker as &dyn Any).downcast_ref()
    }

    /// Asks the driver of what is in front of it, too: a failure there is told while the marker's
    /// own event may be pending for long.
    #[cold]
    fn look(&self) -> Result<bool> {
        self.account.settle(self.point.value);
        self.point.timeline.check(self.point.value)
    }
}

impl Recorded for ClMarker {
    type Event = ClEvent;

    fn place_of(marker: &dyn MarkerImpl) -> Option<(Arc<Account<ClMarker>>, u64)> {
        let marker = ClMarker::of(marker)?;
        Some((marker.account.clone(), marker.point.value))
    }
}

impl Awaited for ClMarker {
    fn point(&self) -> &Point {
        &self.point
    }

    fn query(&self) -> Result<bool> {
        self.point.query(|| self.look())
    }
}

impl MarkerImpl for ClMarker {
    fn timeline_knowledge(&self) -> TimelineKnowledge {
        TimelineKnowledge::Completion
    }

    fn wait_until(&self, deadline: Option<Instant>) -> Result<bool> {
        let timeline = &self.point.timeline;
        if self.point.reached() != Reached::NotYet {
            return timeline.check(self.point.value);
        }
        self.context.check_fork()?;
        match (deadline, &self.event) {
            (None, Some(event)) => {
                // What it says of a failure is not believed: see `account`.
                let _ = event.wait();
                if self.query()? {
                    return Ok(true);
                }
            }
            // The driver's own wait has no deadline: look for a moment, then let the watcher watch.
            _ => {
                if spin_until(deadline, || !matches!(self.query(), Ok(false))) {
                    return self.query();
                }
                if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                    return Ok(false);
                }
            }
        }
        self.ensure_watched()?;
        timeline.wait(self.point.value, deadline)
    }

    fn ensure_watched(&self) -> Result<()> {
        self.context.check_fork()?;
        if self.point.reached() != Reached::NotYet {
            return Ok(());
        }
        self.context.watcher.watch(Watch {
            account: self.account.clone(),
            timeline: self.point.timeline.clone(),
            value: self.point.value,
        })?;
        if let (Some(event), false) = (&self.event, self.calls_back.swap(true, Ordering::AcqRel)) {
            self.context.call_back(event.raw);
        }
        Ok(())
    }

    fn may_complete_soon(&self) -> bool {
        self.context.watcher.may_settle_soon()
    }

    /// The time at which the marker had ended. It may start before what is in front of it has
    /// ended: it has to complete after that only.
    fn timestamp(&self) -> Result<Timestamp> {
        self.context.check_fork()?;
        let Some(event) = &self.event else {
            return Err(Error::not_recorded("held"));
        };
        match event.time() {
            Ok(0) => Err(Error::Backend {
                call: "clGetEventProfilingInfo",
                code: 0,
                text: "the driver has no time of this marker (0); update the driver".into(),
            }),
            Ok(time) => Ok(Timestamp::new(time, self.context.clock.clone())),
            Err(fault) => Err(self.context.failed(fault)),
        }
    }
}
