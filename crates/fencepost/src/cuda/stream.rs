//! CUDA streams, our own and the caller's.

use std::{
    any::Any,
    ffi::c_void,
    panic::Location,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, ThreadId},
};

use super::{
    context::{Context, HostGate, Kind, Lose},
    driver::{EventHandle, Fault, StreamHandle},
    marker::{self, CudaMarker, FailurePoint, Native, Watch},
    values::{Allocated, ValueAllocator},
};
use crate::{
    contract::{MarkerImpl, StreamImpl},
    rerecord::{Lock, Rerecord, Rerecorded, alone},
};
use crate::{
    core::{DeviceCore, StreamCore, Streams},
    error::{Cause, Error, Result},
    host_gate::{GateWait, HostGated, PublishedWait, failed_wait, open_after},
    sync::Ids,
    timeline::{Awaited, Reached, Timeline, Waiter},
};

pub(crate) struct CudaStream {
    me: Weak<CudaStream>,
    core: Arc<StreamCore>,
    pub(crate) context: &'static Context,
    raw: StreamHandle,
    origin: Origin,
    /// The driver's number for it, never used again; a handle may be.
    native_id: Option<u64>,
    /// Whether somebody else may put it into a capture: its handle is known outside.
    shared: AtomicBool,
    /// Whether threads that synchronize with its markers sleep in the driver instead of spinning.
    blocking: bool,
    values: ValueAllocator<FailurePoint>,
}

/// Whose stream it is, and what a call on it needs.
pub(super) enum Origin {
    /// Made by us, destroyed by us.
    Own,
    /// The caller's, kept alive by this.
    Caller(#[allow(dead_code)] Arc<dyn Any + Send + Sync>),
    /// The legacy default stream: whichever context is current when it is named.
    Legacy,
    /// The per-thread default stream of this thread: another stream in every other thread.
    PerThread(ThreadId),
}

/// `CU_STREAM_LEGACY`; the null handle means the same to functions compiled without per-thread
/// default streams, as all of ours are.
pub(super) const LEGACY: StreamHandle = StreamHandle(std::ptr::without_provenance_mut(1));
/// `CU_STREAM_PER_THREAD`.
pub(super) const PER_THREAD: StreamHandle = StreamHandle(std::ptr::without_provenance_mut(2));

/// The CUDA stream behind a stream of any backend.
pub(crate) fn of_stream(stream: &dyn StreamImpl) -> Result<&CudaStream> {
    let any: &dyn Any = stream;
    any.downcast_ref().ok_or_else(|| Error::Unsupported {
        what: "a call of CUDA".into(),
        device: stream.core().device.name.clone(),
        remedy: "use a stream of a CUDA device".into(),
    })
}

impl CudaStream {
    pub(super) fn new(
        device: Arc<DeviceCore>,
        context: &'static Context,
        raw: StreamHandle,
        origin: Origin,
        blocking: bool,
    ) -> Arc<CudaStream> {
        // SAFETY: the stream is alive; for a default one its context is made current below.
        let ask = || unsafe { context.driver.number_of(raw) };
        let native_id = match origin {
            Origin::Own | Origin::Caller(_) => ask(),
            Origin::Legacy | Origin::PerThread(_) => context.current(|| Ok(ask())).ok().flatten(),
        };
        let core = StreamCore::new(device);
        Arc::new_cyclic(|me| CudaStream {
            me: me.clone(),
            values: ValueAllocator::new(core.clone()),
            core,
            context,
            raw,
            shared: AtomicBool::new(!matches!(origin, Origin::Own)),
            origin,
            native_id,
            blocking,
        })
    }

    pub(super) fn native_id(&self) -> Option<u64> {
        self.native_id
    }

    /// Its handle, for the caller's own submits.
    pub(super) fn export(&self) -> *mut c_void {
        self.shared.store(true, Ordering::Relaxed);
        self.raw.0
    }

    /// Calls the driver with this stream's handle.
    #[inline]
    pub(crate) fn call<R>(
        &self,
        call: impl FnOnce(StreamHandle) -> Result<R, Fault>,
    ) -> Result<R, Fault> {
        match self.origin {
            // These need no current context (seen on driver 580; docs/measurements).
            Origin::Own | Origin::Caller(_) => {
                self.context.check_alive()?;
                call(self.raw)
            }
            Origin::Legacy | Origin::PerThread(_) => self.context.current(|| call(self.raw)),
        }
    }

    /// Whether the handle of `other` may be used wherever ours may.
    pub(super) fn check_same_thread(&self, other: &CudaStream) -> Result<bool> {
        self.check_thread()?;
        other.check_thread()?;
        Ok(matches!(self.origin, Origin::PerThread(_))
            == matches!(other.origin, Origin::PerThread(_)))
    }

    #[inline]
    fn check_thread(&self) -> Result<()> {
        match self.origin {
            Origin::PerThread(thread) => self.check_own_thread(thread),
            _ => Ok(()),
        }
    }

    fn check_own_thread(&self, owner: ThreadId) -> Result<()> {
        if owner == thread::current().id() {
            return Ok(());
        }
        Err(Error::Unsupported {
            what: "using one thread's per-thread default stream from another".into(),
            device: self.context.name.clone(),
            remedy: "its handle means another stream there: use a stream made with \
                     cuStreamCreate, or wrap the handle in this thread"
                .into(),
        })
    }

    /// Whether a capture is going on in it.
    #[inline]
    pub(super) fn is_capturing(&self) -> Result<bool, Fault> {
        match self.shared.load(Ordering::Relaxed) {
            true => self.ask_whether_capturing(),
            false => Ok(false),
        }
    }

    #[inline(never)]
    fn ask_whether_capturing(&self) -> Result<bool, Fault> {
        self.call(|raw| self.raw_is_capturing(raw))
    }

    #[inline]
    fn raw_is_capturing(&self, raw: StreamHandle) -> Result<bool, Fault> {
        let mut status = 0;
        // SAFETY: the stream is alive, `status` is an int.
        let asked = unsafe {
            self.context
                .driver
                .stream_is_capturing((raw, &raw mut status))
        };
        match asked {
            Ok(()) => Ok(status != 0),
            // A driver from before captures.
            Err(Fault::Missing(_)) => Ok(false),
            // CUDA_ERROR_STREAM_CAPTURE_IMPLICIT: another stream is captured in a way that the
            // legacy stream must not disturb. It is not captured itself; the record will tell.
            Err(Fault::Code { code: 906, .. }) => Ok(false),
            Err(fault) => Err(fault),
        }
    }

    /// Records into a marker that nobody else holds; `None` where that cannot be or was refused,
    /// and nothing has changed, but for a value that may be used up. `lock` is what the caller
    /// still has when it need not: it is dropped before the driver is called.
    #[inline(always)]
    fn record_into(
        &self,
        marker: &mut CudaMarker,
        lock: Option<Lock<'_>>,
        at: &'static Location<'static>,
    ) -> Option<()> {
        let (context, raw) = (self.context, self.raw);
        let event = marker.event_again()?;
        self.check_thread().ok()?;
        // What is on this stream's timeline is of its context, and of its kind but for timing.
        let value = self.values.allocate_again(&marker.point().timeline, lock)?;
        match self.origin {
            // As `call`, once for both of its uses.
            Origin::Own | Origin::Caller(_) => {
                context.check_alive().ok()?;
                if self.shared.load(Ordering::Relaxed)
                    && !matches!(self.raw_is_capturing(raw), Ok(false))
                {
                    return None;
                }
                context.record(event, raw).ok()?;
            }
            Origin::Legacy | Origin::PerThread(_) => self.record_default(event)?,
        }
        marker.is_now(value, at);
        Some(())
    }

    #[inline(never)]
    fn record_default(&self, event: EventHandle) -> Option<()> {
        match self.is_capturing() {
            Ok(false) => self.call(|raw| self.context.record(event, raw)).ok(),
            _ => None,
        }
    }

    /// Records into the marker that this thread has kept, if it is one that nobody else holds.
    #[inline]
    fn record_kept(&self, timing: bool, at: &'static Location<'static>) -> Option<Arc<CudaMarker>> {
        let mut kept = marker::kept()?;
        let held = alone(&mut kept)?;
        if held.point().timing != timing {
            return None;
        }
        self.record_into(held, None, at)?;
        Some(kept)
    }

    fn kind(&self, timing: bool) -> Kind {
        Kind {
            timing,
            blocking: self.blocking,
        }
    }

    /// What a refused call means; `Ok` where the stream has failed by it, which its markers tell.
    #[cold]
    fn refused(&self, fault: Fault, timeline: &Timeline) -> Result<()> {
        let error = self.context.failed(fault, Some(timeline));
        match timeline.has_failed() {
            true => Ok(()),
            false => Err(error),
        }
    }

    /// Its timeline; `None` once the stream has failed, or fails when what was submitted is done.
    pub(crate) fn open_timeline(&self) -> Option<Arc<Timeline>> {
        let (timeline, end) = self.values.now();
        (end.is_none() && !timeline.has_failed()).then_some(timeline)
    }

    fn wait_native(&self, marker: &Arc<dyn MarkerImpl>, imp: &CudaMarker) -> Result<()> {
        let Some(timeline) = self.open_timeline() else {
            return Ok(());
        };
        let (event, upstream) = match &imp.native {
            Native::Own(event) | Native::Captured(event) => (*event, None),
            Native::FailurePoint(end) => (end.event(), Some(&end.cause)),
            Native::Failed => {
                self.fail_by_wait(marker);
                return Ok(());
            }
        };
        if imp.point().reached() == Reached::Failed {
            self.fail_by_wait(marker);
            return Ok(());
        }
        // Waits inside a capture are the graph's, which a failure of now says nothing about.
        let crossing = match self.may_fail_unseen(imp) && !matches!(self.is_capturing(), Ok(true)) {
            true => Some(self.depend_on(marker, &timeline)?),
            false => None,
        };
        // The caller holds the marker, so the event is alive, and this marker's.
        let waited = self.call(|raw| self.context.wait_event(raw, event, 0));
        if let (Ok(()), None) = (&waited, upstream) {
            if let Some(crossing) = crossing {
                self.follow(marker, crossing);
            }
            return Ok(());
        }
        if let Some(crossing) = crossing {
            self.context.upstreams.over(crossing.number);
        }
        match (waited, upstream) {
            // The stream it waits for ends before that marker, so this one ends here.
            (Ok(()), Some(cause)) => {
                self.fail_from_here(&cause.through(marker.to_string()));
                Ok(())
            }
            (Ok(()), None) => Ok(()),
            (Err(fault), _) => self.refused(fault, &timeline),
        }
    }

    /// Whether a marker may fail where the driver knows nothing of it, so that it would let this
    /// stream go on.
    fn may_fail_unseen(&self, imp: &CudaMarker) -> bool {
        let (stream, value) = (&imp.point().timeline.stream, imp.point().value);
        !std::ptr::eq(self.context, imp.context)
            || stream.blocked().is_some_and(|wait| wait.after < value)
            || imp.context.upstreams.concern(stream.id, value)
    }

    /// Counts a wait for a marker that may fail unseen, and marks where it begins: should the
    /// marker fail, the stream ends there. What is behind the wait may be held by others for
    /// longer.
    fn depend_on(&self, marker: &Arc<dyn MarkerImpl>, timeline: &Timeline) -> Result<Crossing> {
        static NUMBERS: Ids = Ids::new();
        let (context, kind) = (self.context, self.kind(false));
        let (number, after) = (NUMBERS.next(), self.values.last());
        let failed = |fault| context.failed(fault, Some(timeline));
        let event = context.take(kind).map_err(failed)?;
        // From here on it goes back to the pool on every way out.
        let crossing = Crossing {
            context,
            kind,
            event: Some(event),
            number,
            after,
        };
        self.call(|raw| context.record(event, raw))
            .map_err(failed)?;
        context.upstreams.add(number, self.core.id, after, marker);
        Ok(crossing)
    }

    /// Forgets the wait once its marker is complete; fails this stream, and wakes who waits, when
    /// it fails. Then the wait stays known until `clear_error`: what was recorded behind it may be
    /// complete for the driver.
    fn follow(&self, marker: &Arc<dyn MarkerImpl>, crossing: Crossing) {
        let (me, text) = (self.me.clone(), marker.to_string());
        let call = Waiter::Call(Box::new(move |result: Result<()>| match result {
            Ok(()) => crossing.context.upstreams.over(crossing.number),
            Err(error) => {
                if let Some(stream) = me.upgrade() {
                    stream.end_at(crossing, failed_wait(text, &error));
                }
            }
        }));
        // Where nobody can watch it, the markers behind it still ask.
        drop(marker.notify(call));
    }

    /// Ends the stream where a wait begins, whose marker has failed.
    fn end_at(&self, mut crossing: Crossing, cause: Cause) {
        let (timeline, _) = self.values.now();
        let Some(event) = crossing.event.take() else {
            return;
        };
        let (context, kind, after) = (crossing.context, crossing.kind, crossing.after);
        let end = self.values.end_at(FailurePoint::new(
            context, kind, event, timeline, after, cause, None,
        ));
        if context
            .watcher
            .watch(Watch::FailurePoint(end.clone()))
            .is_err()
        {
            end.give_up();
        }
    }
}

impl Lose for Streams<CudaStream> {
    fn lose(&self, cause: &Cause) {
        for stream in self.alive() {
            let (timeline, _) = stream.values.now();
            timeline.fail(cause, true).fire();
        }
    }
}

/// A wait for what may fail unseen, until that is settled.
struct Crossing {
    context: &'static Context,
    kind: Kind,
    /// Recorded in front of the wait.
    event: Option<EventHandle>,
    number: u64,
    /// The last marker in front of it.
    after: u64,
}

impl Drop for Crossing {
    fn drop(&mut self) {
        if let Some(event) = self.event.take() {
            self.context.give(self.kind, event);
        }
    }
}

impl HostGated for CudaStream {
    fn block_until(&self, marker: &Arc<dyn MarkerImpl>) -> Result<()> {
        let Some(timeline) = self.open_timeline() else {
            return Ok(());
        };
        let context = self.context;
        let (kind, before) = (self.kind(false), self.values.last());
        // Should the marker fail, this stream ends where the wait begins: that point needs an
        // event.
        let event = context
            .take(kind)
            .map_err(|fault| context.failed(fault, Some(&timeline)))?;
        let gate = match context.take_gate() {
            Ok(gate) => gate,
            Err(fault) => {
                context.give(kind, event);
                return self.refused(fault, &timeline);
            }
        };
        let held = self.call(|raw| {
            context.record(event, raw)?;
            context.wait_gate(raw, gate)
        });
        if let Err(fault) = held {
            context.give(kind, event);
            context.unused(gate);
            return self.refused(fault, &timeline);
        }
        let published = vec![PublishedWait::new(&self.core, marker, before)];
        let wait = SubmittedWait {
            stream: self.me.clone(),
            end: Some(FailurePoint::new(
                context,
                kind,
                event,
                timeline,
                before,
                Cause::new(""),
                None,
            )),
            gate: Some(gate),
            context,
        };
        open_after(marker, wait, published)
    }

    fn fail_from_here(&self, cause: &Cause) {
        let kind = self.kind(false);
        let context = self.context;
        let closed = self.values.close(|timeline, before| {
            let event = context.take(kind)?;
            match self.call(|raw| context.record(event, raw)) {
                Ok(()) => Ok(FailurePoint::new(
                    context,
                    kind,
                    event,
                    timeline.clone(),
                    before,
                    cause.clone(),
                    None,
                )),
                Err(fault) => {
                    context.give(kind, event);
                    Err(fault)
                }
            }
        });
        if let Err(fault) = closed {
            let (timeline, _) = self.values.now();
            drop(context.failed(fault, Some(&timeline)));
            timeline.fail(cause, false).fire();
        }
    }
}

/// A wait for a host gate. Should its marker fail, the stream ends at `end`, where the wait begins.
struct SubmittedWait {
    stream: Weak<CudaStream>,
    end: Option<FailurePoint>,
    gate: Option<HostGate>,
    context: &'static Context,
}

impl GateWait for SubmittedWait {
    /// Where the marker has failed, the failure point opens the gate once the stream has failed.
    fn settle(&mut self, result: Result<(), Cause>) {
        let Err(cause) = result else {
            return;
        };
        let (Some(end), Some(gate)) = (self.end.take(), self.gate.take()) else {
            return;
        };
        let end = end.with(cause, gate);
        let end = match self.stream.upgrade() {
            Some(stream) => stream.values.end_at(end),
            None => Arc::new(end),
        };
        // The watcher settles it. Where it cannot be asked, it is settled here.
        let watch = Watch::FailurePoint(end.clone());
        if self.context.watcher.watch(watch).is_err() {
            end.give_up();
        }
    }

    fn open(&mut self) {
        if let Some(gate) = self.gate.take() {
            self.context.open(gate);
        }
    }
}

impl StreamImpl for CudaStream {
    fn core(&self) -> &Arc<StreamCore> {
        &self.core
    }

    fn mark(&self, timing: bool, at: &'static Location<'static>) -> Result<Arc<dyn MarkerImpl>> {
        let (context, kind) = (self.context, self.kind(timing));
        if let Some(kept) = self.record_kept(timing, at) {
            return Ok(kept);
        }
        self.check_thread()?;
        let place = self.values.allocate();
        let marker =
            |native, place| Ok(Arc::new(CudaMarker::new(context, kind, native, place, at)) as _);
        if let Some(end) = place.end.clone() {
            return marker(Native::FailurePoint(end), place);
        }
        if place.timeline.has_failed() {
            return marker(Native::Failed, place);
        }
        let recorded = self.is_capturing().and_then(|captured| {
            let event = context.take(kind)?;
            match self.call(|raw| context.record(event, raw)) {
                Ok(()) => Ok((event, captured)),
                Err(fault) => {
                    context.give(kind, event);
                    Err(fault)
                }
            }
        });
        match recorded {
            Ok((event, false)) => marker(Native::Own(event), place),
            Ok((event, true)) => {
                // It completes never, or each time the graph runs: no timeline may speak for it.
                let timeline = Timeline::new(self.core.clone(), 0);
                let place = Allocated { timeline, ..place };
                marker(Native::Captured(event), place)
            }
            Err(fault) => {
                self.refused(fault, &place.timeline)?;
                marker(Native::Failed, place)
            }
        }
    }

    fn record_again(
        &self,
        event: Rerecord<'_>,
        at: &'static Location<'static>,
    ) -> Option<Rerecorded> {
        let (mut marker, lock) = event.begin::<CudaMarker>()?;
        self.record_into(&mut marker, Some(lock), at)?;
        Some(marker.finish())
    }

    fn wait(&self, marker: &Arc<dyn MarkerImpl>) -> Result<()> {
        self.check_thread()?;
        match CudaMarker::of(&**marker) {
            Some(imp) => self.wait_native(marker, imp),
            None => self.wait_unseen(marker, false),
        }
    }

    fn wait_foreign(&self, marker: &Arc<dyn MarkerImpl>) -> Result<()> {
        self.check_thread()?;
        match CudaMarker::of(&**marker) {
            Some(imp) => self.wait_native(marker, imp),
            None => self.wait_unseen(marker, true),
        }
    }

    fn completed(&self) -> u64 {
        self.values.now().0.completed()
    }

    /// A marker would be pending for some microseconds even on an idle stream, so that who asks in
    /// a loop would never hear that it is idle.
    fn is_idle(&self) -> Result<Option<bool>> {
        self.check_thread()?;
        let Some(timeline) = self.open_timeline() else {
            return Ok(None);
        };
        let asked = self.is_capturing().and_then(|capturing| match capturing {
            // Asking would break the capture.
            true => Ok(None),
            false => self.call(|raw| self.context.is_idle(raw)).map(Some),
        });
        match asked {
            Err(Fault::Missing(_)) => Ok(None),
            asked => asked.map_err(|fault| self.context.failed(fault, Some(&timeline))),
        }
    }

    fn failure(&self) -> Option<Error> {
        let (timeline, end) = self.values.now();
        if let Some(end) = end {
            let _ = end.ask();
        }
        timeline.failure()
    }

    fn clear_error(&self) -> Result<()> {
        let (_, end) = self.values.now();
        if let Some(end) = end {
            let _ = end.ask();
        }
        if let Some(lost) = self.context.lost() {
            return Err(lost);
        }
        self.context.upstreams.forget_failed(self.core.id);
        self.values.reopen();
        Ok(())
    }
}

impl Drop for CudaStream {
    fn drop(&mut self) {
        // Work that is submitted still runs.
        if matches!(self.origin, Origin::Own) {
            self.context.give_stream(self.raw);
        }
    }
}
