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
//! - *kept*: an [`Event`](crate::Event) that is dropped leaves its marker to the thread, one per
//!   thread, for the next record there; who takes it must prove to be alone, as above. So an event
//!   that is made, recorded and dropped costs neither memory nor a native event.
//! - The watcher must outlive markers. [`MarkerImpl::ensure_watched`] moves the event into a
//!   [`Lease`] that the marker and the watcher share; a marker with a lease is never changed in
//!   place, and the lease's last owner gives the event back.

use std::{
    any::Any,
    cell::Cell,
    panic::Location,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use super::{
    context::{Context, HostGate, Kind},
    driver::{EventHandle, Fault, Meaning},
    values::Allocated,
};
use crate::contract::{MarkerImpl, TimelineKnowledge};
use crate::timeline::Point;
use crate::{
    clock::{Elapsed, Timestamp},
    error::{Cause, Error, Result},
    sync::{Mutex, lock, spin_until},
    timeline::{Awaited, Reached, Timeline},
    watcher::Watched,
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
    /// It is behind the end of its stream, and fails when that is reached.
    FailurePoint(Arc<FailurePoint>),
    /// Its stream had failed before: nothing was recorded.
    Failed,
    /// An event that belongs to a graph being captured; only waits of that capture know it.
    Captured(EventHandle),
}

/// An event that the watcher may be asking, or the caller recording.
pub(super) struct Lease {
    context: &'static Context,
    kind: Kind,
    event: EventHandle,
    /// Whether the caller has it, for good: then it is destroyed in the end, and never used again.
    handed_out: AtomicBool,
}

/// Where a stream ends: once `event` is complete, so are the markers up to `before`, and those
/// above have failed.
pub(super) struct FailurePoint {
    lease: Lease,
    pub(super) timeline: Arc<Timeline>,
    before: u64,
    pub(super) cause: Cause,
    /// A gate to open once the stream counts as failed.
    held: Mutex<Option<HostGate>>,
}

/// What the watcher watches.
pub(super) enum Watch {
    Event {
        lease: Arc<Lease>,
        timeline: Arc<Timeline>,
        value: u64,
    },
    FailurePoint(Arc<FailurePoint>),
}

thread_local! {
    /// The marker that the last event dropped by this thread held. At the thread's end its native
    /// event goes to the pool.
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
        place: Allocated<FailurePoint>,
        at: &'static Location<'static>,
    ) -> CudaMarker {
        CudaMarker {
            point: Point {
                timeline: place.timeline,
                value: place.value,
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
    pub(super) fn is_now(&mut self, value: u64, at: &'static Location<'static>) {
        self.point.value = value;
        self.point.at = at;
    }

    /// Asks the driver.
    #[cold]
    fn ask(&self) -> Result<bool> {
        let timeline = &self.point.timeline;
        let event = match &self.native {
            Native::Own(event) => *event,
            Native::FailurePoint(end) => {
                end.ask()?;
                return timeline.check(self.point.value);
            }
            Native::Failed => return timeline.check(self.point.value),
            Native::Captured(_) => return Err(self.captured()),
        };
        match self.context.query(event) {
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
                lease.handed_out.store(true, Ordering::Relaxed);
                Some(*event)
            }
            Native::Captured(event) => Some(*event),
            Native::FailurePoint(_) | Native::Failed => None,
        }
    }

    fn captured(&self) -> Error {
        Error::Captured {
            marker: self.point.to_string(),
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
        match self.point.reached() {
            Reached::Yes => Ok(true),
            Reached::NotYet => self.ask(),
            // What failed has failed for good, whatever the driver may say later.
            Reached::Failed => self.point.timeline.check(self.point.value),
        }
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
            Native::FailurePoint(end) => end.lease.event,
            Native::Failed | Native::Captured(_) => return self.query(),
        };
        // In a forked child the driver refuses, and `failed` says why.
        match self.context.synchronize(event) {
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
            Native::FailurePoint(end) => watcher.watch(Watch::FailurePoint(end.clone())),
            Native::Failed => Ok(()),
            Native::Captured(_) => Err(self.captured()),
        }
    }

    fn retire(self: Arc<Self>) {
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

    fn elapsed(&self, end: &dyn MarkerImpl) -> Result<Elapsed> {
        let device = &self.point.timeline.stream.device;
        let Some(end) = CudaMarker::of(end) else {
            return Err(Error::DeviceMismatch {
                call: "elapsed",
                left: self.point.to_string(),
                right: end.point().to_string(),
            });
        };
        let events = (self.own_event()?, end.own_event()?);
        loop {
            match self.context.elapsed(events.0, events.1) {
                Ok(Some(millis)) => {
                    let nanos = f64::from(millis) * 1e6;
                    return Ok(Elapsed::new(nanos, device.clock.clone()));
                }
                // Complete by what a later marker tells (see `values`). The events themselves are
                // moments away: they were recorded by calls that raced with that later one.
                Ok(None) => {
                    for event in [events.0, events.1] {
                        self.context
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
            Native::Own(event) if self.lease.get().is_none() => self.context.give(self.kind, event),
            // A graph may know it: it is never recorded again.
            Native::Captured(event) => self.context.destroy(event),
            _ => {}
        }
    }
}

impl Lease {
    fn new(context: &'static Context, kind: Kind, event: EventHandle) -> Lease {
        Lease {
            context,
            kind,
            event,
            handed_out: AtomicBool::new(false),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        match *self.handed_out.get_mut() {
            true => self.context.destroy(self.event),
            false => self.context.give(self.kind, self.event),
        }
    }
}

impl FailurePoint {
    /// An end at `event`, which is recorded and the end's from now on.
    pub(super) fn new(
        context: &'static Context,
        kind: Kind,
        event: EventHandle,
        timeline: Arc<Timeline>,
        before: u64,
        cause: Cause,
        held: Option<HostGate>,
    ) -> FailurePoint {
        FailurePoint {
            lease: Lease::new(context, kind, event),
            timeline,
            before,
            cause,
            held: Mutex::new(held),
        }
    }

    /// The same end, with a cause, and a gate to open once the stream has failed by it.
    pub(super) fn with(self, cause: Cause, gate: HostGate) -> FailurePoint {
        FailurePoint {
            cause,
            held: Mutex::new(Some(gate)),
            ..self
        }
    }

    /// Fails the stream now, where nobody can watch for the end.
    pub(super) fn give_up(&self) {
        self.timeline.fail(&self.cause, false).fire();
        self.release();
    }

    pub(super) fn event(&self) -> EventHandle {
        self.lease.event
    }

    /// Fails the stream if its end has been reached; `true` when it has.
    pub(super) fn ask(&self) -> Result<bool> {
        if self.timeline.has_failed() {
            self.release();
            return Ok(true);
        }
        let context = self.lease.context;
        match context.query(self.lease.event) {
            Ok(false) => Ok(false),
            Ok(true) => {
                context.complete(&self.timeline, self.before);
                self.timeline.fail(&self.cause, false).fire();
                self.release();
                Ok(true)
            }
            Err(fault) => {
                let error = context.failed(fault, Some(&self.timeline));
                self.release();
                Err(error)
            }
        }
    }

    /// Only once the stream counts as failed: nothing behind the gate may count as complete.
    fn release(&self) {
        let held = lock(&self.held).take();
        if let Some(gate) = held {
            self.lease.context.open(gate);
        }
    }
}

impl Watched for Watch {
    fn key(&self) -> (usize, u64) {
        match self {
            Watch::Event {
                timeline, value, ..
            } => (Arc::as_ptr(timeline) as usize, *value),
            // A lane of its own: the marker at `before` may be watched too, and of two things with
            // one key the second is not watched. No timeline lies at the odd address.
            Watch::FailurePoint(end) => (Arc::as_ptr(&end.timeline) as usize + 1, end.before),
        }
    }

    fn look(&self) -> bool {
        match self {
            Watch::Event {
                lease,
                timeline,
                value,
            } => {
                if timeline.reached(*value) != Reached::NotYet {
                    return true;
                }
                match lease.context.query(lease.event) {
                    Ok(false) => false,
                    Ok(true) => {
                        lease.context.complete(timeline, *value);
                        true
                    }
                    // The process is ending: nobody is told any more.
                    Err(fault) if fault.meaning() == Meaning::Gone => true,
                    Err(fault) => {
                        let error = lease.context.failed(fault, Some(timeline));
                        if !timeline.has_failed() {
                            // Nobody can watch it any more, so those who wait must not wait for
                            // ever.
                            timeline.fail(&Cause::new(error.to_string()), false).fire();
                        }
                        true
                    }
                }
            }
            Watch::FailurePoint(end) => !matches!(end.ask(), Ok(false)),
        }
    }
}
