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
        if imp.point().reached() == Reached::Failed {
            self.fail_by_wait(marker);
            return Ok(());
        }
        match &imp.native {
            Native::Captured(_) => self.native.joins_capture(),
            _ => self.check_may_wait()?,
        }
        // Waits inside a capture are the graph's, which a failure of now says nothing about.
        let upstream_wait =
            match self.may_fail_unseen(imp) && !matches!(self.native.is_capturing(), Ok(true)) {
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
            self.context.upstreams.settled(upstream_wait.number);
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
        let (stream, value) = (&imp.point().timeline.stream, imp.point().value);
        !std::ptr::eq(self.context, imp.context)
            || stream.blocked().is_some_and(|wait| wait.after < value)
            || imp.context.upstreams.may_fail(stream.id, value)
    }

    /// Counts a wait for a marker that may fail unseen, and marks where it begins: should the
    /// marker fail, the stream ends there. What is behind the wait may be held by others for
    /// longer.
    fn begin_upstream_wait(
        &self,
        marker: &Arc<dyn MarkerImpl>,
        timeline: &Timeline,
    ) -> Result<UpstreamWait> {
        let (context, kind) = (self.context, self.kind(false));
        let (number, after) = (NUMBERS.next(), self.values.last());
        let failed = |fault| context.failed(fault, Some(timeline));
        let event = context.pools.take_event(kind).map_err(failed)?;
        // From here on it goes back to the pool on every way out.
        let upstream_wait = UpstreamWait {
            context,
            kind,
            event: Some(event),
            number,
            after,
        };
        self.native
            .call(|raw| context.calls.record(event, raw))
            .map_err(failed)?;
        context.upstreams.add(number, self.core.id, after, marker);
        Ok(upstream_wait)
    }

    /// Forgets the wait once its marker is complete; fails this stream, and wakes who waits, when
    /// it fails. Then the wait stays known until `clear_error`: what was recorded behind it may be
    /// complete for the driver.
    fn watch_upstream(&self, marker: &Arc<dyn MarkerImpl>, upstream_wait: UpstreamWait) {
        let (me, text) = (self.me.clone(), marker.to_string());
        let call = Waiter::Call(Box::new(move |result: Result<()>| match result {
            Ok(()) => upstream_wait
                .context
                .upstreams
                .settled(upstream_wait.number),
            Err(error) => {
                if let Some(stream) = me.upgrade() {
                    stream.fail_at(upstream_wait, failed_wait(text, &error));
                }
            }
        }));
        // Where nobody can watch it, the markers behind it still ask.
        drop(marker.notify(call));
    }

    /// Ends the stream where a wait begins, whose marker has failed.
    fn fail_at(&self, mut upstream_wait: UpstreamWait, cause: Cause) {
        let (timeline, _) = self.values.current();
        let Some(event) = upstream_wait.event.take() else {
            return;
        };
        let (context, kind, after) = (
            upstream_wait.context,
            upstream_wait.kind,
            upstream_wait.after,
        );
        let failure_point = self.values.set_failure_point(FailurePoint::new(
            context, kind, event, timeline, after, cause,
        ));
        if context
            .watcher
            .watch(Watch::FailurePoint(failure_point.clone()))
            .is_err()
        {
            failure_point.give_up();
        }
    }
}

/// A wait for what may fail unseen, until that is settled.
struct UpstreamWait {
    context: &'static Context,
    kind: Kind,
    /// Recorded in front of the wait.
    event: Option<EventHandle>,
    number: u64,
    /// The last marker in front of it.
    after: u64,
}

impl Drop for UpstreamWait {
    fn drop(&mut self) {
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
        let (kind, before) = (self.kind(false), self.values.last());
        // Should the marker fail, this stream ends where the wait begins: that point needs an
        // event.
        let event = context
            .pools
            .take_event(kind)
            .map_err(|fault| context.failed(fault, Some(&timeline)))?;
        let gate = match context.gates.take() {
            Ok(gate) => gate,
            Err(fault) => {
                context.pools.give_event(kind, event);
                return self.refused(fault, &timeline);
            }
        };
        let number = NUMBERS.next();
        context.upstreams.add(number, self.core.id, before, marker);
        let held = self.native.call(|raw| {
            context.calls.record(event, raw)?;
            context.gates.block(raw, gate)
        });
        if let Err(fault) = held {
            context.upstreams.settled(number);
            context.pools.give_event(kind, event);
            context.gates.open(gate);
            return self.refused(fault, &timeline);
        }
        let published = vec![PublishedWait::new(&self.core, marker, before)];
        let wait = SubmittedWait {
            stream: self.me.clone(),
            place: Some(WaitPlace {
                kind,
                event,
                timeline,
                before,
            }),
            upstream: Some(number),
            gate,
            context,
        };
        open_after(marker, wait, published)
    }

    fn fail_from_here(&self, cause: &Cause) {
        let kind = self.kind(false);
        let context = self.context;
        let closed = self.values.make_failure_point(|timeline, before| {
            let event = context.pools.take_event(kind)?;
            match self.native.call(|raw| context.calls.record(event, raw)) {
                Ok(()) => Ok(FailurePoint::new(
                    context,
                    kind,
                    event,
                    timeline.clone(),
                    before,
                    cause.clone(),
                )),
                Err(fault) => {
                    context.pools.give_event(kind, event);
                    Err(fault)
                }
            }
        });
        if let Err(fault) = closed {
            let (timeline, _) = self.values.current();
            drop(context.failed(fault, Some(&timeline)));
            timeline.fail(cause, false).fire();
        }
    }
}

/// A wait for a host gate.
struct SubmittedWait {
    stream: Weak<CudaStream>,
    /// Where it begins: there the stream ends should the marker fail.
    place: Option<WaitPlace>,
    /// Its number among the waits for what may fail unseen; none where it has failed.
    upstream: Option<u64>,
    gate: HostGate,
    context: &'static Context,
}

/// Where a wait begins on its stream.
struct WaitPlace {
    kind: Kind,
    /// Recorded in front of the wait.
    event: EventHandle,
    timeline: Arc<Timeline>,
    /// The last marker in front of it.
    before: u64,
}

impl GateWait for SubmittedWait {
    /// Makes no call of the driver.
    fn settle(&mut self, result: Result<(), Cause>) {
        let Err(cause) = result else {
            return;
        };
        let Some(place) = self.place.take() else {
            return;
        };
        self.upstream = None;
        let WaitPlace {
            kind,
            event,
            timeline,
            before,
        } = place;
        let point = FailurePoint::new(self.context, kind, event, timeline, before, cause);
        let point = match self.stream.upgrade() {
            Some(stream) => stream.values.set_failure_point(point),
            None => Arc::new(point),
        };
        // The watcher settles it. Where it cannot be asked, it is settled here.
        let watch = Watch::FailurePoint(point.clone());
        if self.context.watcher.watch(watch).is_err() {
            point.give_up();
        }
    }

    fn open(&mut self) {
        if let Some(number) = self.upstream.take() {
            self.context.upstreams.settled(number);
        }
        if let Some(place) = self.place.take() {
            self.context.pools.give_event(place.kind, place.event);
        }
        self.context.gates.open(self.gate);
    }
}
