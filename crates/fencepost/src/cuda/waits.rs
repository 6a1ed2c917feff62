//! Waits of CUDA streams for markers, on the device and through the host.

use std::sync::{Arc, Weak};

use super::{
    context::Context,
    driver::EventHandle,
    host_gates::HostGate,
    marker::{CudaMarker, Native},
    pools::Kind,
    stream::CudaStream,
    watched::{FailurePoint, Watch},
};
use crate::{
    contract::{MarkerImpl, StreamImpl},
    error::{Cause, Error, Result},
    host_gate::{GateWait, HostGated, PublishedWait, failed_wait, open_after},
    sync::Ids,
    timeline::{Awaited, Reached, Timeline, Waiter},
};

/// The numbers of waits for what may fail unseen.
static NUMBERS: Ids = Ids::new();

impl CudaStream {
    pub(super) fn wait_native(&self, marker: &Arc<dyn MarkerImpl>, imp: &CudaMarker) -> Result<()> {
        let Some(timeline) = self.live_timeline() else {
            return Ok(());
        };
        // In front of anything else: a failure of the marker needs a record, too.
        match &imp.native {
            Native::Captured(_) => self.native.joins_capture(),
            _ => self.check_may_wait()?,
        }
        let (event, upstream) = match &imp.native {
            Native::Own(event) | Native::Captured(event) => (*event, None),
            Native::FailurePoint(failure_point) => {
                (failure_point.event(), Some(&failure_point.cause))
            }
            Native::Failed => {
                self.fail_by_wait(marker);
                return Ok(());
            }
        };
        // Asked first: what may fail is forgotten only once the marker is known to have failed.
        let may_fail = self.may_fail_unseen(imp);
        if imp.point().reached() == Reached::Failed {
            self.fail_by_wait(marker);
            return Ok(());
        }
        // Waits inside a capture are the graph's, which a failure of now says nothing about.
        let upstream_wait = match may_fail && !matches!(self.native.is_capturing(), Ok(true)) {
            true => Some(self.begin_upstream_wait(marker, &timeline)?),
            false => None,
        };
        // The caller holds the marker, so the event is alive, and this marker's.
        let waited = self
            .native
            .call(|raw| self.context.calls.wait_event(raw, event, 0));
        if waited.is_ok() {
            self.core.waits_on_device(imp.point());
        }
        if let (Ok(()), None) = (&waited, upstream) {
            if let Some(upstream_wait) = upstream_wait {
                self.watch_upstream(marker, upstream_wait);
            }
            return Ok(());
        }
        if let Some(upstream_wait) = upstream_wait {
            upstream_wait.settled();
        }
        match (waited, upstream) {
            // The stream it waits for ends before that marker, so this one ends here.
            (Ok(()), Some(cause)) => {
                self.fail_from_here(&cause.through(marker.to_string()));
                Ok(())
            }
            (Ok(()), None) => Ok(()),
            (Err(fault), _) => match imp.capture_ended(fault) {
                Some(error) => Err(error),
                None => self.refused(fault, &timeline),
            },
        }
    }

    /// Whether a marker may fail where the driver knows nothing of it, so that it would let this
    /// stream go on.
    fn may_fail_unseen(&self, imp: &CudaMarker) -> bool {
        let (timeline, value) = (&imp.point().timeline, imp.point().value);
        let blocked = timeline.stream.blocked();
        !std::ptr::eq(self.context, imp.context)
            || blocked.is_some_and(|wait| wait.after < value)
            || imp.context.upstreams.may_fail(timeline, value)
    }

    /// Counts a wait for a marker that may fail unseen, and marks where it begins: should the
    /// marker fail, the stream ends there. What is behind the wait may be held by others for
    /// longer.
    fn begin_upstream_wait(
        &self,
        marker: &Arc<dyn MarkerImpl>,
        timeline: &Arc<Timeline>,
    ) -> Result<UnseenWait> {
        let (context, kind) = (self.context, self.kind(false));
        let (number, after) = (NUMBERS.next(), self.values.last());
        let failed = |fault| context.failed(fault, Some(timeline));
        let event = context.pools.take_event(kind).map_err(failed)?;
        // From here on it goes back to the pool on every way out.
        let wait = UnseenWait {
            stream: self.me.clone(),
            context,
            kind,
            event: Some(event),
            timeline: timeline.clone(),
            number,
            after,
        };
        self.native
            .call(|raw| context.calls.record(event, raw))
            .map_err(failed)?;
        context.upstreams.add(number, timeline, after, marker);
        Ok(wait)
    }

    /// Forgets the wait once its marker is complete; fails this stream, and wakes who waits, when
    /// it fails.
    fn watch_upstream(&self, marker: &Arc<dyn MarkerImpl>, upstream_wait: UnseenWait) {
        let text = marker.to_string();
        let call = Waiter::Call(Box::new(move |result: Result<()>| match result {
            Ok(()) => upstream_wait.settled(),
            Err(error) => upstream_wait.fail(failed_wait(text, &error)),
        }));
        // Where nobody can watch it, the markers behind it still ask.
        drop(marker.notify(call));
    }
}

/// A wait for what may fail unseen, counted until its marker is complete. Where the marker fails,
/// the failure point takes it over.
struct UnseenWait {
    stream: Weak<CudaStream>,
    context: &'static Context,
    kind: Kind,
    /// Recorded in front of the wait: there the stream ends should the marker fail.
    event: Option<EventHandle>,
    /// What the stream was on then.
    timeline: Arc<Timeline>,
    number: u64,
    /// The last marker in front of it.
    after: u64,
}

impl UnseenWait {
    /// Nothing depends on it any more.
    fn settled(self) {
        self.context.upstreams.settled(self.number);
    }

    /// Ends the stream where the wait begins. Makes no call of the driver.
    fn fail(mut self, cause: Cause) {
        let Some(event) = self.event.take() else {
            return;
        };
        let (context, kind, after) = (self.context, self.kind, self.after);
        let wait = Some(self.number);
        let timeline = self.timeline.clone();
        let failure_point = FailurePoint::new(context, kind, event, timeline, after, cause, wait);
        let failure_point = Arc::new(failure_point);
        // Without a stream, its markers may be asked for longer.
        if let Some(stream) = self.stream.upgrade() {
            let values = &stream.values;
            values.set_failure_point(&self.timeline, failure_point.clone());
        }
        // The watcher settles it. Where it cannot be asked, it is settled here.
        let watch = Watch::FailurePoint(failure_point.clone());
        if context.watcher.watch(watch).is_err() {
            failure_point.give_up();
        }
    }
}

impl Drop for UnseenWait {
    fn drop(&mut self) {
        // In a forked child a thread of the parent may have held the locks.
        if self.context.calls.is_forked() {
            return;
        }
        if let Some(event) = self.event.take() {
            self.context.pools.give_event(self.kind, event);
        }
    }
}

impl CudaStream {
    /// An error where nothing may hold the stream back for the host. It comes before anything is
    /// submitted.
    fn check_may_be_held(&self) -> Result<()> {
        check_can_hold(&self.core.device.name)?;
        self.check_not_captured("waiting for the host")
    }

    /// An error where the stream is in a capture, which `what` would break.
    pub(super) fn check_not_captured(&self, what: &str) -> Result<()> {
        match self.native.is_in_capture() {
            Ok(false) => Ok(()),
            Ok(true) => Err(Error::Unsupported {
                what: format!(
                    "{what} on {}, which is being captured into a graph",
                    self.core
                ),
                device: self.core.device.name.clone(),
                remedy: "wait before the capture begins, or on the stream that launches the graph"
                    .into(),
            }),
            Err(fault) => Err(self.context.failed(fault, None)),
        }
    }
}

/// An error where streams cannot wait for a value in memory. Whether a device can is told by
/// `cuStreamWaitValue32` itself: the attribute for it is of the call's first version, which is
/// deprecated.
pub(super) fn check_can_hold(device: &str) -> Result<()> {
    match cfg!(windows) {
        false => Ok(()),
        true => Err(Error::Unsupported {
            what: "holding a stream for the host on Windows, where cuStreamWaitValue32 was never \
                   tried"
                .into(),
            device: device.into(),
            remedy: "let a host stream wait, or block on the marker with synchronize()".into(),
        }),
    }
}

impl HostGated for CudaStream {
    /// The driver knows nothing of the marker. So the wait counts among those for what may fail
    /// unseen: nothing behind it counts as complete once the marker has failed, and the gate can be
    /// opened without asking the driver, which may be blocked until it opens.
    fn block_until(&self, marker: &Arc<dyn MarkerImpl>) -> Result<()> {
        self.check_may_be_held()?;
        let Some(timeline) = self.live_timeline() else {
            return Ok(());
        };
        let context = self.context;
        let gate = match context.gates.take() {
            Ok(gate) => gate,
            Err(fault) => return self.refused(fault, &timeline),
        };
        // Should the marker fail, this stream ends where the wait begins.
        let upstream = match self.begin_upstream_wait(marker, &timeline) {
            Ok(upstream) => upstream,
            Err(error) => {
                context.gates.open(gate);
                return match timeline.has_failed() {
                    true => Ok(()),
                    false => Err(error),
                };
            }
        };
        if let Err(fault) = self.native.call(|raw| context.gates.block(raw, gate)) {
            upstream.settled();
            context.gates.open(gate);
            return self.refused(fault, &timeline);
        }
        let published = vec![PublishedWait::new(&self.core, marker, upstream.after)];
        let wait = SubmittedWait {
            upstream: Some(upstream),
            gate,
            context,
        };
        open_after(marker, wait, published)
    }

    /// Where the driver blocks the record, no lock is held: the gates in front of it, which may be
    /// what it waits for, still end.
    fn fail_from_here(&self, cause: &Cause) {
        let Some(timeline) = self.live_timeline() else {
            return;
        };
        let (context, kind) = (self.context, self.kind(false));
        let before = self.values.last();
        let recorded = context.pools.take_event(kind).and_then(|event| {
            let recorded = self.native.call(|raw| context.calls.record(event, raw));
            recorded
                .map(|()| event)
                .inspect_err(|_| context.pools.give_event(kind, event))
        });
        match recorded {
            Ok(event) => {
                let (cause, of) = (cause.clone(), timeline.clone());
                let failure_point =
                    FailurePoint::new(context, kind, event, of, before, cause, None);
                let failure_point = Arc::new(failure_point);
                self.values.set_failure_point(&timeline, failure_point);
            }
            Err(fault) => {
                drop(context.failed(fault, Some(&timeline)));
                timeline.fail(cause, false).fire();
            }
        }
    }
}

/// A wait for a host gate.
struct SubmittedWait {
    /// None where the marker has failed.
    upstream: Option<UnseenWait>,
    gate: HostGate,
    context: &'static Context,
}

impl GateWait for SubmittedWait {
    /// Makes no call of the driver.
    fn settle(&mut self, result: Result<(), Cause>) {
        if let (Err(cause), Some(upstream)) = (result, self.upstream.take()) {
            upstream.fail(cause);
        }
    }

    fn open(&mut self) {
        if let Some(upstream) = self.upstream.take() {
            upstream.settled();
        }
        self.context.gates.open(self.gate);
    }
}
