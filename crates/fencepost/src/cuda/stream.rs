//! CUDA streams, our own and the caller's.

use std::{
    any::Any,
    sync::{Arc, Weak},
};

use super::{
    context::Context,
    driver::StreamHandle,
    fault::Fault,
    marker::{self, CudaMarker, Native},
    native_stream::{NativeStream, Origin},
    pools::Kind,
    values::{Allocated, ValueAllocator},
    watched::FailurePoint,
};
use crate::{
    contract::{MarkerImpl, StreamImpl},
    place::Place,
    rerecord::{Lock, Rerecord, Rerecorded, alone},
};
use crate::{
    core::{DeviceCore, DeviceWork, StreamCore},
    error::{Cause, Error, Result},
    host_gate::HostGated,
    lost::Loses,
    timeline::{Awaited, Timeline, Wake},
};

pub(crate) struct CudaStream {
    pub(super) me: Weak<CudaStream>,
    pub(super) core: Arc<StreamCore>,
    pub(crate) context: &'static Context,
    pub(crate) native: NativeStream,
    /// Whether threads that synchronize with its markers sleep in the driver instead of spinning.
    blocking: bool,
    pub(super) values: ValueAllocator<FailurePoint>,
}

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
        let core = StreamCore::new(device);
        let stream = Arc::new_cyclic(|me: &Weak<CudaStream>| {
            let work: Weak<dyn DeviceWork> = me.clone();
            drop(core.device_work.set(work));
            CudaStream {
                me: me.clone(),
                values: ValueAllocator::new(core.clone()),
                core,
                context,
                native: NativeStream::new(context, raw, origin),
                blocking,
            }
        });
        let known: Arc<dyn Loses> = stream.clone();
        context.add_stream(&known);
        stream
    }

    /// Records into a marker that nobody else holds; `None` where that cannot be or was refused,
    /// and nothing has changed, but for a value that may be used up. `lock` is what the caller
    /// still has when it need not: it is dropped before the driver is called.
    #[inline(always)]
    fn record_into(
        &self,
        marker: &mut CudaMarker,
        lock: Option<Lock<'_>>,
        at: Place,
    ) -> Option<()> {
        let event = marker.event_again()?;
        self.native.check_thread().ok()?;
        // What is on this stream's timeline is of its context, and of its kind but for timing.
        let value = self.values.allocate_again(&marker.point().timeline, lock)?;
        self.native.record_outside_capture(event)?;
        marker.is_now(value, at);
        Some(())
    }

    /// Records into the marker that this thread has kept, if it is one that nobody else holds.
    #[inline]
    fn record_kept(&self, timing: bool, at: Place) -> Option<Arc<CudaMarker>> {
        let mut kept = marker::kept()?;
        let held = alone(&mut kept)?;
        if !std::ptr::eq(held.context, self.context) || held.kind() != self.kind(timing) {
            return None;
        }
        match Arc::ptr_eq(&held.point().timeline.stream, &self.core) {
            true => self.record_into(held, None, at)?,
            false => self.record_moved(held, at)?,
        }
        Some(kept)
    }

    /// As [`record_into`](CudaStream::record_into), for a marker of another stream of the context,
    /// of this one's kind. The other stream's order gets a gap, as where an event is dropped.
    #[inline(never)]
    fn record_moved(&self, marker: &mut CudaMarker, at: Place) -> Option<()> {
        let event = marker.event_again()?;
        self.native.check_thread().ok()?;
        let allocated = self.values.allocate();
        if allocated.failure_point.is_some() || allocated.timeline.has_failed() {
            return None;
        }
        self.native.record_outside_capture(event)?;
        marker.is_now_on(allocated.timeline, allocated.value, at);
        Some(())
    }

    pub(super) fn kind(&self, timing: bool) -> Kind {
        Kind {
            timing,
            blocking: self.blocking,
        }
    }

    /// What a refused call means; `Ok` where the stream has failed by it, which its markers tell.
    #[cold]
    pub(super) fn refused(&self, fault: Fault, timeline: &Timeline) -> Result<()> {
        let error = self.context.failed(fault, Some(timeline));
        match timeline.has_failed() {
            true => Ok(()),
            false => Err(error),
        }
    }

    /// Its timeline; `None` once the stream has failed, or fails when what was submitted is done.
    pub(crate) fn live_timeline(&self) -> Option<Arc<Timeline>> {
        let (timeline, failure_point) = self.values.current();
        (failure_point.is_none() && !timeline.has_failed()).then_some(timeline)
    }
}

impl DeviceWork for CudaStream {
    /// The driver tells of a stream whether all of it is done, and of no marker without its event.
    fn look(&self) -> bool {
        matches!(self.is_idle(), Ok(Some(true)))
    }
}

impl Loses for CudaStream {
    fn lose(&self, cause: &Cause) -> Wake {
        self.values.lose(cause)
    }
}

impl StreamImpl for CudaStream {
    fn core(&self) -> &Arc<StreamCore> {
        &self.core
    }

    fn mark(&self, timing: bool, at: Place) -> Result<Arc<dyn MarkerImpl>> {
        let (context, kind) = (self.context, self.kind(timing));
        if let Some(kept) = self.record_kept(timing, at) {
            return Ok(kept);
        }
        self.native.check_thread()?;
        let allocated = self.values.allocate();
        let marker = |native, allocated| {
            Ok(Arc::new(CudaMarker::new(context, kind, native, allocated, at)) as _)
        };
        if let Some(failure_point) = allocated.failure_point.clone() {
            return marker(Native::FailurePoint(failure_point), allocated);
        }
        if allocated.timeline.has_failed() {
            return marker(Native::Failed, allocated);
        }
        let recorded = self.native.call_in_capture_or_not(|raw, captured| {
            let event = context.pools.take_event(kind)?;
            match context.calls.record(event, raw) {
                Ok(()) => Ok((event, captured)),
                Err(fault) => {
                    context.pools.give_event(kind, event);
                    Err(fault)
                }
            }
        });
        match recorded {
            Ok((event, false)) => marker(Native::Own(event), allocated),
            Ok((event, true)) => {
                // It completes never, or each time the graph runs: no timeline may speak for it.
                let timeline = Timeline::new(self.core.clone(), 0);
                let allocated = Allocated {
                    timeline,
                    ..allocated
                };
                marker(Native::Captured(event), allocated)
            }
            Err(fault) => {
                self.refused(fault, &allocated.timeline)?;
                marker(Native::Failed, allocated)
            }
        }
    }

    fn record_again(&self, event: Rerecord<'_>, at: Place) -> Option<Rerecorded> {
        let (mut marker, lock) = event.begin::<CudaMarker>()?;
        self.record_into(&mut marker, Some(lock), at)?;
        Some(marker.finish())
    }

    fn wait(&self, marker: &Arc<dyn MarkerImpl>) -> Result<()> {
        self.native.check_thread()?;
        match CudaMarker::of(&**marker) {
            Some(imp) => self.wait_native(marker, imp),
            None => self.wait_unseen(marker, false),
        }
    }

    fn check_may_wait(&self) -> Result<()> {
        self.check_not_captured("waiting for what is outside of the graph")
    }

    fn wait_foreign(&self, marker: &Arc<dyn MarkerImpl>) -> Result<()> {
        self.native.check_thread()?;
        match CudaMarker::of(&**marker) {
            Some(imp) => self.wait_native(marker, imp),
            None => self.wait_unseen(marker, true),
        }
    }

    fn overwrite_cache(&self, _: Place) -> Result<()> {
        self.native.check_thread()?;
        let context = self.context;
        let failed = |fault| context.failed(fault, None);
        let Some(memory) = context.cache.get().map_err(failed)? else {
            return Err(Error::Unsupported {
                what: "a cold cache: its driver tells no size of one".into(),
                device: context.name.clone(),
                remedy: "measure with a warm one".into(),
            });
        };
        // SAFETY: the memory is of this context and never freed; the stream is alive in this call.
        let clear = |raw| unsafe { context.calls.clear(raw, memory.address, memory.count) };
        self.native.call(clear).map_err(failed)
    }

    fn completed(&self) -> u64 {
        self.values.current().0.completed()
    }

    /// A marker would be pending for some microseconds even on an idle stream, so that who asks in
    /// a loop would never hear that it is idle.
    fn is_idle(&self) -> Result<Option<bool>> {
        self.native.check_thread()?;
        let Some(timeline) = self.live_timeline() else {
            return Ok(None);
        };
        let asked = self
            .native
            .is_capturing()
            .and_then(|captured| match captured {
                // Asking would break the capture.
                true => Ok(None),
                false => self
                    .native
                    .call(|raw| self.context.calls.is_idle(raw))
                    .map(Some),
            });
        match asked {
            Err(Fault::Missing(_)) => Ok(None),
            asked => asked.map_err(|fault| self.context.failed(fault, Some(&timeline))),
        }
    }

    fn failure(&self) -> Option<Error> {
        let (timeline, failure_point) = self.values.current();
        if let Some(failure_point) = failure_point {
            let _ = failure_point.ask();
        }
        timeline.failure()
    }

    fn clear_error(&self) -> Result<()> {
        let (timeline, failure_point) = self.values.current();
        if let Some(failure_point) = failure_point {
            let _ = failure_point.ask();
        }
        if let Some(lost) = self.context.lost() {
            return Err(lost);
        }
        // Not while the failure is still to come: markers behind such a wait must not count as
        // complete.
        if timeline.has_failed() {
            self.values.start_new_epoch();
        }
        self.context.check_loss(self)
    }
}

impl Drop for CudaStream {
    fn drop(&mut self) {
        // Work that is submitted still runs.
        if let Some(raw) = self.native.own() {
            self.context.pools.give_stream(raw);
        }
    }
}
