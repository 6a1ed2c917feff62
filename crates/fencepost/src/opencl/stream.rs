//! OpenCL streams: in-order queues of our own, and the caller's queues.

use std::{
    any::Any,
    sync::{Arc, Weak, atomic::AtomicBool},
};

use super::{
    account::{Account, Unsettled},
    context::{Context, OUT_OF_ORDER},
    event::ClEvent,
    exit,
    fault::Fault,
    gates::HostGate,
    loader::{EventHandle, PROFILING, QueueHandle},
    marker::ClMarker,
    watched::Watch,
};
use crate::{
    contract::{MarkerImpl, StreamImpl},
    core::{DeviceCore, DeviceWork, StreamCore},
    error::{Cause, Error, Result},
    host_gate::{GateWait, HostGated, PublishedWait, open_after},
    place::Place,
    rerecord::{Rerecord, Rerecorded},
    timeline::{Awaited, Point},
};

pub(crate) struct ClStream {
    core: Arc<StreamCore>,
    pub(crate) context: &'static Context,
    /// Retained, and released in the drop.
    pub(crate) queue: QueueHandle,
    /// What the queue was made with.
    properties: u64,
    pub(super) account: Arc<Account<ClMarker>>,
}

/// The OpenCL stream behind a stream of any backend.
pub(crate) fn of_stream(stream: &dyn StreamImpl) -> Result<&ClStream> {
    let any: &dyn Any = stream;
    any.downcast_ref().ok_or_else(|| Error::Unsupported {
        what: "a call of OpenCL".into(),
        device: stream.core().device.name.clone(),
        remedy: "use a stream of an OpenCL device".into(),
    })
}

impl ClStream {
    /// `queue` is retained for the stream.
    pub(super) fn new(
        device: Arc<DeviceCore>,
        context: &'static Context,
        queue: QueueHandle,
        properties: u64,
    ) -> Arc<ClStream> {
        let core = StreamCore::new(device);
        let stream = Arc::new(ClStream {
            account: Account::new(core.clone()),
            core: core.clone(),
            context,
            queue,
            properties,
        });
        let me = Arc::downgrade(&stream);
        let work: Weak<dyn DeviceWork> = me;
        drop(core.device_work.set(work));
        let account: Arc<dyn Unsettled> = stream.account.clone();
        context.loss().add(&account);
        stream
    }

    fn marker(&self, event: Option<Arc<ClEvent>>, point: Point) -> ClMarker {
        ClMarker {
            point,
            context: self.context,
            account: self.account.clone(),
            event,
            calls_back: AtomicBool::new(false),
        }
    }

    /// A native marker behind everything so far, submitted.
    fn mark_native(&self) -> Result<Arc<ClEvent>, Fault> {
        let event = Arc::new(self.context.mark(self.queue)?);
        match self.context.flush(self.queue) {
            Ok(()) => Ok(event),
            Err(fault) => {
                self.account.keep(event);
                Err(fault)
            }
        }
    }

    /// A marker in front of a wait.
    fn mark_in_front(&self) -> Result<Arc<ClEvent>, Fault> {
        let in_front = Arc::new(self.context.mark(self.queue)?);
        self.account.keep(in_front.clone());
        Ok(in_front)
    }

    /// Makes later work run after `event`, which is of this `cl_context`.
    fn wait_event(&self, event: EventHandle) -> Result<(), Fault> {
        let barrier = self.context.barrier(self.queue, event)?;
        self.account.keep(Arc::new(barrier));
        Ok(())
    }

    /// Holds the stream until the gate that it gives is opened.
    fn block_native(&self) -> Result<HostGate, Fault> {
        let gates = &self.context.gates;
        let gate = gates.close()?;
        let waits = self.wait_event(gate.0);
        waits.inspect_err(|_| gates.open(gate))?;
        // What is in front need not wait for the next record.
        let _ = self.context.flush(self.queue);
        exit::used();
        Ok(gate)
    }

    /// Holds the stream until the gate that it gives is opened, by the driver alone.
    #[cfg(feature = "conformance")]
    pub(crate) fn close_gate(&self) -> Result<HostGate> {
        self.block_native()
            .map_err(|fault| self.context.failed(fault))
    }

    /// Whether what is submitted now counts: the stream has not failed, and does not fail once what
    /// was submitted before is over.
    #[cfg(feature = "conformance")]
    pub(crate) fn is_alive(&self) -> bool {
        !self.account.has_ended()
    }

    /// What a refused call means; `Ok` where the stream has failed, which its markers tell.
    #[cold]
    fn refused(&self, fault: Fault) -> Result<()> {
        match self.account.timeline().has_failed() {
            true => Ok(()),
            false => Err(self.context.failed(fault)),
        }
    }

    /// A wait for a marker of the same `cl_context`.
    fn wait_native(
        &self,
        marker: &Arc<dyn MarkerImpl>,
        imp: &ClMarker,
        event: EventHandle,
    ) -> Result<()> {
        match imp.query() {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(_) => {
                self.fail_by_wait(marker);
                return Ok(());
            }
        }
        let is_own = Arc::ptr_eq(&imp.account, &self.account);
        let waited = match is_own {
            // The account is in order anyway.
            true => {
                let marked = self.mark_in_front();
                marked.and_then(|_| self.wait_event(event)).map(Some)
            }
            false => self.wait_in_account(marker, false, |_| self.wait_event(event)),
        };
        match waited {
            Ok(Some(())) => {
                self.core.waits_on_device(imp.point());
                Ok(())
            }
            Ok(None) => Ok(()),
            // Drivers refuse to wait for what has failed.
            Err(_) if imp.query().is_err() => {
                self.fail_by_wait(marker);
                Ok(())
            }
            Err(fault) => self.refused(fault),
        }
    }

    /// A wait by `native`, which gets the last value in front of it. `None` where the stream fails
    /// anyway.
    fn wait_in_account<R>(
        &self,
        marker: &Arc<dyn MarkerImpl>,
        through_host: bool,
        native: impl FnOnce(u64) -> Result<R, Fault>,
    ) -> Result<Option<R>, Fault> {
        if self.account.has_ended() {
            return Ok(None);
        }
        let in_front = self.mark_in_front()?;
        let Some(wait) = self.account.wait(marker, through_host, in_front) else {
            return Ok(None);
        };
        match native(wait.after) {
            Ok(submitted) => {
                wait.submitted();
                Ok(Some(submitted))
            }
            Err(fault) => {
                self.account.take_back(wait);
                Err(fault)
            }
        }
    }

    fn wait_for(&self, marker: &Arc<dyn MarkerImpl>, foreign: bool) -> Result<()> {
        self.context.check_fork()?;
        let native = match ClMarker::of(&**marker) {
            Some(imp) => {
                if let (true, Some(event)) = (imp.context.raw == self.context.raw, &imp.event) {
                    return self.wait_native(marker, imp, event.raw);
                }
                true
            }
            None => false,
        };
        // An event is of one context and may be waited for on every device of that. For one of
        // another context the host waits.
        self.wait_unseen(marker, native || foreign)
    }
}

impl DeviceWork for ClStream {
    fn look(&self) -> bool {
        self.account.settle(u64::MAX);
        self.account.is_settled()
    }
}

impl StreamImpl for ClStream {
    fn core(&self) -> &Arc<StreamCore> {
        &self.core
    }

    fn mark(&self, timing: bool, at: Place) -> Result<Arc<dyn MarkerImpl>> {
        self.context.check_fork()?;
        if timing && self.properties & PROFILING == 0 {
            return Err(no_profiling(&self.core));
        }
        let make = |event, timeline, value| {
            let point = Point {
                timeline,
                value,
                at,
                timing,
            };
            self.marker(event, point)
        };
        let account = &self.account;
        match self.mark_native() {
            Ok(event) => {
                let of_marker = event.clone();
                let make = |timeline, value| make(Some(of_marker), timeline, value);
                Ok(account.record(event, make))
            }
            Err(fault) => {
                let marker = account.record_refused(|timeline, value| make(None, timeline, value));
                Ok(marker.ok_or_else(|| self.context.failed(fault))?)
            }
        }
    }

    /// The driver is called first: it may call back in there, which may use the event, so the
    /// event's slot is not taken then.
    fn record_again(&self, event: Rerecord<'_>, at: Place) -> Option<Rerecorded> {
        if !event.may_begin(&self.core) || self.account.is_full() {
            return None;
        }
        self.context.check_fork().ok()?;
        let native = self.mark_native().ok()?;
        let Some((mut marker, lock)) = event.begin::<ClMarker>() else {
            self.account.keep(native);
            return None;
        };
        let ClMarker {
            point,
            event: of_marker,
            ..
        } = &mut *marker;
        let account = &self.account;
        let value = account.record_again(lock, &point.timeline, native, of_marker)?;
        marker.is_now(value, at);
        Some(marker.finish())
    }

    fn wait(&self, marker: &Arc<dyn MarkerImpl>) -> Result<()> {
        self.wait_for(marker, false)
    }

    fn wait_foreign(&self, marker: &Arc<dyn MarkerImpl>) -> Result<()> {
        self.wait_for(marker, true)
    }

    fn is_in_order(&self) -> bool {
        self.properties & OUT_OF_ORDER == 0
    }

    fn completed(&self) -> u64 {
        self.account.timeline().completed()
    }

    fn failure(&self) -> Option<Error> {
        if let Err(forked) = self.context.check_fork() {
            return Some(forked);
        }
        self.account.settle(u64::MAX);
        self.account.timeline().failure()
    }

    fn clear_error(&self) -> Result<()> {
        self.context.check_usable()?;
        self.account.settle(u64::MAX);
        self.account.start_new_epoch();
        self.context.loss().check(&*self.account)
    }

    fn overwrite_cache(&self, _: Place) -> Result<()> {
        let context = self.context;
        context.check_fork()?;
        let failed = |fault| context.failed(fault);
        let Some((memory, bytes)) = context.larger_than_cache().map_err(failed)? else {
            return Err(Error::Unsupported {
                what: "a cold cache: its driver tells no size of one".into(),
                device: context.name.clone(),
                remedy: "measure with a warm one".into(),
            });
        };
        let event = context.fill(self.queue, memory, bytes).map_err(failed)?;
        self.account.keep(Arc::new(event));
        Ok(())
    }
}

/// Timing on a queue of the caller's that has none.
fn no_profiling(stream: &StreamCore) -> Error {
    Error::Unsupported {
        what: format!("timing on {stream}, whose queue was made without CL_QUEUE_PROFILING_ENABLE"),
        device: stream.device.name.clone(),
        remedy: "make the queue with that property, or record without timing".into(),
    }
}

impl HostGated for ClStream {
    /// The driver knows nothing of the marker, and lets the stream go on once the gate is open. The
    /// account fails what is behind the wait if the marker fails.
    fn block_until(&self, marker: &Arc<dyn MarkerImpl>) -> Result<()> {
        let blocked = self.wait_in_account(marker, true, |after| {
            let gate = self.block_native()?;
            Ok((gate, PublishedWait::new(&self.core, marker, after)))
        });
        let (gate, published) = match blocked {
            Ok(Some(blocked)) => blocked,
            Ok(None) => return Ok(()),
            Err(fault) => return self.refused(fault),
        };
        let wait = SubmittedWait {
            gate,
            context: self.context,
        };
        open_after(marker, wait, vec![published])
    }

    fn fail_from_here(&self, cause: &Cause) {
        match self.mark_native() {
            Ok(at) => self.account.end(at, cause.clone()),
            Err(_) => self.account.fail(cause),
        }
    }
}

/// A wait for a host gate.
struct SubmittedWait {
    gate: HostGate,
    context: &'static Context,
}

impl GateWait for SubmittedWait {
    /// The account asks the marker before it believes what is behind the gate.
    fn settle(&mut self, _: Result<(), Cause>) {}

    fn open(&mut self) {
        self.context.open_gate(self.gate);
    }
}

impl Drop for ClStream {
    fn drop(&mut self) {
        let context = self.context;
        if context.is_forked() {
            return;
        }
        // Accounts of streams that wait for each other hold each other until they are settled.
        self.account.settle(u64::MAX);
        if !self.account.is_done() {
            let rest = Watch {
                account: self.account.clone(),
                timeline: self.account.timeline(),
                value: Watch::ALL,
            };
            drop(context.watcher.watch(rest));
        }
        // SAFETY: retained for the stream. Work that is submitted still runs.
        let _ = unsafe { context.loader.release_queue(self.queue) };
    }
}
