//! Markers of CUDA streams.
//!
//! # Who owns a native event
//!
//! A marker owns its `CUevent` alone. So whoever holds the marker may ask the event, and when the
//! last holder lets go, or proves to be alone, the event may be recorded again:
//! - *alone*: [`Rerecord::begin`](crate::rerecord::Rerecord::begin) gives the marker that an event
//!   holds only when no other owner exists and none can come into being meanwhile, so the marker is
//!   changed in place: new value, same native event.
//! - *gone*: the marker's drop gives the event back to the pool.
//! - *kept*: an [`Event`](crate::Event) that is dropped, or is recorded on another stream than
//!   before, leaves its marker to the thread, one per thread, for the next record there, on any
//!   stream of the context; who takes it must prove to be alone, as above. So an event that is
//!   made, recorded and dropped, or that two streams record in turn, costs neither memory nor a
//!   native event.
//! - The watcher must outlive markers. [`MarkerImpl::ensure_watched`] moves the event into a
//!   [`Lease`] that the marker and the watcher share; a marker with a lease is never changed in
//!   place, and the lease's last owner gives the event back.

use std::{
    any::Any,
    cell::Cell,
    num::NonZeroUsize,
    sync::{Arc, OnceLock},
    time::Instant,
};

use super::{
    context::Context,
    driver::EventHandle,
    fault::{CAPTURED_EVENT, Fault, INVALID_VALUE},
    pools::Kind,
    values::Allocated,
    watched::{FailurePoint, Lease, Watch},
};
use crate::contract::{MarkerImpl, TimelineKnowledge};
use crate::timeline::Point;
use crate::{
    clock::{Elapsed, Timestamp},
    error::{Error, Result},
    place::Place,
    sync::spin_until,
    timeline::{Awaited, Reached, Timeline},
};

pub(super) struct CudaMarker {
    point: Point,
    pub(super) context: &'static Context,
    kind: Kind,
    pub(super) native: Native,
    lease: OnceLock<Arc<Lease>>,
}

/// What the driver knows of a marker.
pub(super) enum Native {
    /// An event of its own.
    Own(EventHandle),
    /// It is behind the failure point of its stream, and fails when that is reached.
    FailurePoint(Arc<FailurePoint>),
    /// Its stream had failed before: nothing was recorded.
    Failed,
    /// An event that belongs to a graph being captured; only waits of that capture know it.
    Captured(EventHandle),
}

thread_local! {
    /// The marker that an event of this thread let go of last. At the thread's end its native event
    /// goes to the pool.
    static KEPT: Cell<Option<Arc<CudaMarker>>> = const { Cell::new(None) };
}

/// The marker that this thread keeps, if any; perhaps not of the stream or kind that is wanted.
#[inline]
pub(super) fn kept() -> Option<Arc<CudaMarker>> {
    KEPT.try_with(Cell::take).ok().flatten()
}

impl CudaMarker {
    pub(super) fn new(
        context: &'static Context,
        kind: Kind,
        native: Native,
        allocated: Allocated<FailurePoint>,
        at: Place,
    ) -> CudaMarker {
        CudaMarker {
            point: Point {
                timeline: allocated.timeline,
                value: allocated.value,
                at,
                timing: kind.timing,
            },
            context,
            kind,
            native,
            lease: OnceLock::new(),
        }
    }

    /// The marker behind a marker of any backend, if it is one of CUDA.
    pub(super) fn of(marker: &dyn MarkerImpl) -> Option<&CudaMarker> {
        (marker as &dyn Any).downcast_ref()
    }

    /// Its native event, where it has one.
    pub(super) fn native_event(&self) -> Option<EventHandle> {
        match self.native {
            Native::Own(event) | Native::Captured(event) => Some(event),
            Native::FailurePoint(_) | Native::Failed => None,
        }
    }

    /// The event to record again in place, where nothing but the marker knows it.
    #[inline(always)]
    pub(super) fn event_again(&self) -> Option<EventHandle> {
        match self.native {
            Native::Own(event) if self.lease.get().is_none() => Some(event),
            _ => None,
        }
    }

    /// Its event was recorded again.
    #[inline(always)]
    pub(super) fn is_now(&mut self, value: u64, at: Place) {
        self.point.value = value;
        self.point.at = at;
    }

    /// Its event was recorded again, on the stream of another timeline. Nobody else may hold it.
    pub(super) fn is_now_on(&mut self, timeline: Arc<Timeline>, value: u64, at: Place) {
        self.point.timeline = timeline;
        self.is_now(value, at);
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// Asks the driver.
    #[cold]
    fn ask(&self) -> Result<bool> {
        let timeline = &self.point.timeline;
        let event = match &self.native {
            Native::Own(event) => *event,
            Native::FailurePoint(failure_point) => {
                failure_point.ask()?;
                return timeline.check(self.point.value);
            }
            Native::Failed => return timeline.check(self.point.value),
            Native::Captured(_) => return Err(self.captured()),
        };
        match self.context.calls.query(event) {
            Ok(false) => Ok(false),
            Ok(true) => {
                self.context.complete(timeline, self.point.value);
                timeline.check(self.point.value)
            }
            Err(fault) => Err(self.failed(fault)),
        }
    }

    /// What a fault of a call on this marker is to the caller.
    #[cold]
    fn failed(&self, fault: Fault) -> Error {
        let timeline = &self.point.timeline;
        let error = self.context.failed(fault, Some(timeline));
        // What sticks to the stream is what everyone sees.
        match timeline.check(self.point.value) {
            Err(first) => first,
            Ok(_) => error,
        }
    }

    /// Its native event, for the caller to keep while the marker lives, and to record again.
    pub(super) fn hand_out(&self) -> Option<EventHandle> {
        match &self.native {
            Native::Own(event) => {
                let lease = self
                    .lease
                    .get_or_init(|| Arc::new(Lease::new(self.context, self.kind, *event)));
                lease.hand_out();
                Some(*event)
            }
            Native::Captured(event) => Some(*event),
            Native::FailurePoint(_) | Native::Failed => None,
        }
    }

    fn captured(&self) -> Error {
        Error::Captured {
            marker: self.point.to_string(),
            ended: false,
        }
    }

    /// The error for a wait that the driver refused with `fault`, where the reason is that the
    /// marker is of a capture that has ended.
    pub(super) fn capture_ended(&self, fault: Fault) -> Option<Error> {
        match (&self.native, fault.code()) {
            // Driver 580 returns the first code for such events. The second is documented for calls
            // outside of a capture.
            (Native::Captured(_), Some(INVALID_VALUE | CAPTURED_EVENT)) => Some(Error::Captured {
                marker: self.point.to_string(),
                ended: true,
            }),
            _ => None,
        }
    }

    fn own_event(&self) -> Result<EventHandle> {
        match &self.native {
            Native::Own(event) => Ok(*event),
            Native::Captured(_) => Err(self.captured()),
            // A marker that has failed is never asked for its time.
            Native::FailurePoint(_) | Native::Failed => self.point.timeline.failure().map_or_else(
                || Err(self.context.driver.error(Fault::Missing("a time"), "CUDA")),
                Err,
            ),
        }
    }
}

impl Awaited for CudaMarker {
    fn point(&self) -> &Point {
        &self.point
    }

    fn query(&self) -> Result<bool> {
        self.point.query(|| self.ask())
    }
}

impl MarkerImpl for CudaMarker {
    fn timeline_knowledge(&self) -> TimelineKnowledge {
        match self.native {
            Native::Captured(_) => TimelineKnowledge::Nothing,
            _ => TimelineKnowledge::Completion,
        }
    }

    /// A native wait costs about as much as a query.
    fn is_known_complete(&self) -> bool {
        self.point.reached() == Reached::Yes
    }

    fn wait_until(&self, deadline: Option<Instant>) -> Result<bool> {
        let timeline = &self.point.timeline;
        if self.point.reached() != Reached::NotYet {
            return timeline.check(self.point.value);
        }
        if deadline.is_some() {
            // The driver's own wait has no deadline: look for a moment, then let the watcher watch.
            if spin_until(deadline, || !matches!(self.query(), Ok(false))) {
                return self.query();
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok(false);
            }
            self.ensure_watched()?;
            return timeline.wait(self.point.value, deadline);
        }
        let event = match &self.native {
            Native::Own(event) => *event,
            Native::FailurePoint(failure_point) => failure_point.event(),
            Native::Failed | Native::Captured(_) => return self.query(),
        };
        // In a forked child the driver refuses, and `failed` says why.
        match self.context.calls.synchronize(event) {
            Ok(()) if matches!(self.native, Native::Own(_)) => {
                self.context.complete(timeline, self.point.value);
                timeline.check(self.point.value)
            }
            Ok(()) => self.query(),
            Err(fault) => Err(self.failed(fault)),
        }
    }

    fn ensure_watched(&self) -> Result<()> {
        let stream = &self.point.timeline.stream;
        stream.device.check_fork()?;
        let watcher = &self.context.watcher;
        match &self.native {
            Native::Own(event) => watcher.watch(Watch::Event {
                lease: self
                    .lease
                    .get_or_init(|| Arc::new(Lease::new(self.context, self.kind, *event)))
                    .clone(),
                timeline: self.point.timeline.clone(),
                value: self.point.value,
            }),
            Native::FailurePoint(failure_point) => {
                watcher.watch(Watch::FailurePoint(failure_point.clone()))
            }
            Native::Failed => Ok(()),
            Native::Captured(_) => Err(self.captured()),
        }
    }

    fn may_complete_soon(&self) -> bool {
        matches!(self.native, Native::Own(_)) && self.context.watcher.may_settle_soon()
    }

    fn may_be_changed(&self) -> bool {
        self.event_again().is_some()
    }

    fn retire(self: Arc<Self>) {
        // Kept, it would hold back the report of a failure that nobody has asked for.
        if self.point.timeline.has_failed() {
            return;
        }
        // What is dropped here is the one kept before, or this one when the thread is ending.
        let _ = KEPT.try_with(|kept| kept.replace(Some(self)));
    }

    fn timestamp(&self) -> Result<Timestamp> {
        Err(Error::Unsupported {
            what: "the time of a single marker".into(),
            device: self.context.name.clone(),
            remedy: "CUDA tells only the time between two events: call elapsed()".into(),
        })
    }

    /// An event of the pool, which is never destroyed. Only one that was handed out is: whoever has
    /// it handed out keeps it for as long as the events that held the marker.
    fn timed_native(&self) -> Option<NonZeroUsize> {
        match self.native {
            Native::Own(event) if self.kind.timing => event.to_number(),
            _ => None,
        }
    }

    fn elapsed(&self, end: &dyn MarkerImpl) -> Result<Elapsed> {
        let Some(end) = CudaMarker::of(end) else {
            return Err(Error::DeviceMismatch {
                call: "elapsed",
                left: self.point.to_string(),
                right: end.point().to_string(),
            });
        };
        // The driver computes the time of two events that are known to be complete, too.
        self.context.check_fork()?;
        let events = (self.own_event()?, end.own_event()?);
        loop {
            match self.context.calls.elapsed(events.0, events.1) {
                Ok(Some(millis)) => {
                    return Ok(self.context.interval(events, millis));
                }
                // Complete by what a later marker tells (see `values`). The events themselves are
                // moments away: they were recorded by calls that raced with that later one.
                Ok(None) => {
                    for event in [events.0, events.1] {
                        self.context
                            .calls
                            .synchronize(event)
                            .map_err(|fault| self.failed(fault))?;
                    }
                }
                Err(fault) => return Err(self.failed(fault)),
            }
        }
    }
}

impl Drop for CudaMarker {
    fn drop(&mut self) {
        match self.native {
            Native::Own(event) if self.lease.get().is_none() => {
                self.context.pools.give_event(self.kind, event)
            }
            // A graph may know it: it is never recorded again.
            Native::Captured(event) => self.context.calls.destroy_event(event),
            _ => {}
        }
    }
}
