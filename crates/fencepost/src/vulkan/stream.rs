//! Vulkan streams. Each is in order on a hardware queue, which several may share.

use std::{
    any::Any,
    sync::{Arc, OnceLock, Weak},
};

use ash::vk;

use super::{
    exit,
    fault::Fault,
    gate::{GateTimeline, HostGate},
    gpu::{Gpu, GpuStream},
    marker::VkMarker,
    native::Native,
    queue::{Batch, Queue, SemaphoreValue},
    time::SlotTime,
    timer::Timer,
    watcher::DeviceWatcher,
};
use crate::{
    contract::{MarkerImpl, StreamImpl},
    core::{DeviceCore, DeviceWork, StreamCore},
    epochs::{Counter, Epoch, Expected, ValueAllocator},
    error::{Cause, Error, Result},
    host_gate::{GateWait, HostGated, PublishedWait, open_after},
    lost::Loses,
    place::Place,
    rerecord::{Rerecord, Rerecorded},
    sync::Ordering,
    timeline::{Awaited, Reached, Wake},
};

pub(crate) struct VkStream {
    core: Arc<StreamCore>,
    pub(crate) gpu: Arc<Gpu>,
    pub(crate) queue: Arc<Queue>,
    pub(crate) values: ValueAllocator,
    pub(super) native: Arc<Native>,
    /// Made with the first host gate.
    gates: OnceLock<Arc<GateTimeline>>,
    /// Keeps the caller's queue alive.
    _keep_alive: Option<Arc<dyn Any + Send + Sync>>,
}

impl VkStream {
    pub(super) fn new(
        device: Arc<DeviceCore>,
        watcher: &Arc<DeviceWatcher>,
        queue: Arc<Queue>,
        keep_alive: Option<Arc<dyn Any + Send + Sync>>,
    ) -> Result<Arc<VkStream>> {
        let gpu = &watcher.gpu;
        gpu.check_fork()?;
        if let Some(lost) = gpu.lost() {
            return Err(lost);
        }
        let native = Native::new(watcher).map_err(|fault| gpu.failed(fault))?;
        let core = StreamCore::new(device);
        let stream = Arc::new(VkStream {
            values: ValueAllocator::new(core.clone()),
            core,
            gpu: gpu.clone(),
            queue,
            native,
            gates: OnceLock::new(),
            _keep_alive: keep_alive,
        });
        let work: Weak<dyn DeviceWork> = Arc::<VkStream>::downgrade(&stream);
        drop(stream.core.device_work.set(work));
        gpu.add_stream(stream.clone());
        stream.queue.add_stream(&stream.core);
        Ok(stream)
    }

    /// Calls `submit` with the queue and its family, under the queue's lock; `None` if that is the
    /// caller's and does not call it.
    pub(super) fn with_queue<R>(&self, submit: impl FnOnce(vk::Queue, u32) -> R) -> Option<R> {
        self.queue.locked(|raw| submit(raw, self.queue.family))
    }

    /// Submits a signal of the value `native` on the marker timeline, behind everything submitted
    /// so far, and a timestamp if there is a `timer`. Called under the submit lock.
    #[inline]
    fn submit_mark(&self, timer: Option<&Timer>, native: u64) -> Result<Option<SlotTime>, Fault> {
        let (time, buffer) = match timer {
            Some(timer) => {
                let (time, buffer) = SlotTime::take(&self.native, timer, native)?;
                (Some(time), Some(buffer))
            }
            None => (None, None),
        };
        let batch = Batch {
            wait: None,
            buffer,
            signal: Some((self.native.marker_timeline, native)),
        };
        self.gpu.submitter.submit(&self.queue, batch)?;
        self.native.was_submitted(native);
        Ok(time)
    }

    /// The submit of a failure point, which signals as a marker does. Called under the submit lock.
    fn submit_end(&self, native: u64) -> Result<(), Fault> {
        self.submit_mark(None, native).map(drop)
    }

    /// Submits a batch that marks nothing and uses `uses`. Called under the submit lock.
    pub(crate) fn submit_work(
        &self,
        uses: Arc<dyn Any + Send + Sync>,
        wait: Option<SemaphoreValue>,
        buffer: Option<vk::CommandBuffer>,
    ) -> Result<(), Fault> {
        self.native.submit_work(uses, |signal| {
            let batch = Batch {
                wait,
                buffer,
                signal: Some(signal),
            };
            self.gpu.submitter.submit(&self.queue, batch)
        })
    }

    /// What to return after a call that the driver refused: `Ok` if the stream has failed by it,
    /// since its markers report that.
    #[cold]
    pub(crate) fn refused(&self, fault: Fault) -> Result<()> {
        let error = self.gpu.failed(fault);
        match self.values.current_epoch().timeline.has_failed() {
            true => Ok(()),
            false => Err(error),
        }
    }

    /// The query slots, made with the first timed record.
    fn timer(&self) -> Result<&Timer> {
        let timer = &self.native.timer;
        if let Some(timer) = timer.get() {
            return Ok(timer);
        }
        let fresh = Timer::new(&self.gpu, self.queue.family)?;
        if let Err(second) = timer.set(fresh) {
            second.destroy(&self.gpu.device);
        }
        let unknown = Fault {
            call: "vkCreateCommandPool",
            result: vk::Result::ERROR_UNKNOWN,
        };
        timer.get().ok_or_else(|| self.gpu.failed(unknown))
    }

    fn gates(&self) -> Result<&Arc<GateTimeline>, Fault> {
        if let Some(gates) = self.gates.get() {
            return Ok(gates);
        }
        let fresh = self.native.watcher.new_gate_timeline()?;
        Ok(self.gates.get_or_init(|| fresh))
    }

    /// The epoch that is recorded on now, after a look at the counter if it may have failed.
    fn refresh(&self) -> Arc<Epoch> {
        let epoch = self.values.current_epoch();
        if epoch.is_closed()
            && let Ok(counter) = self.native.read()
        {
            epoch.settle(counter);
        }
        epoch
    }

    fn wait_native(&self, marker: &Arc<dyn MarkerImpl>, imp: &VkMarker) -> Result<()> {
        if imp.point().reached() == Reached::Failed {
            self.fail_by_wait(marker);
            return Ok(());
        }
        let open = self.values.lock_submits();
        if open.epoch.is_closed() {
            return Ok(());
        }
        let value = imp.point().value;
        let text = || marker.to_string();
        let (native, upstream) = match imp.epoch.add_dependent(value, &open.epoch, open.last, text)
        {
            Expected::Completes(native) => (native, None),
            Expected::Fails(native, cause) => (native, Some(cause)),
        };
        let reached = (imp.counter.marker_timeline, native);
        if let Err(fault) = self.submit_work(imp.counter.clone(), Some(reached), None) {
            drop(open);
            return self.refused(fault);
        }
        self.core.waits_on_device(imp.point());
        // The awaited stream fails in front of that marker, so this stream fails from here on.
        let wake = upstream.and_then(|cause| {
            open.fail_from_here(&cause.through(marker.to_string()), |native| {
                self.submit_end(native)
            })
        });
        drop(open);
        if let Some(wake) = wake {
            wake.fire();
        }
        Ok(())
    }

    /// Makes the stream wait for a new gate, which the caller opens; `None` behind a failure, where
    /// nothing is submitted. Calls `submitted` with the epoch and its last value, under the submit
    /// lock.
    pub(crate) fn wait_for_gate(
        &self,
        submitted: impl FnOnce(&Arc<Epoch>, u64),
    ) -> Result<Option<Arc<HostGate>>> {
        let gates = self.gates().map_err(|fault| self.gpu.failed(fault))?;
        let waits = self.values.submit(|open| {
            let gate = gates.new_gate();
            self.submit_work(gate.clone(), Some(gate.opening()), None)?;
            submitted(&open.epoch, open.last);
            Ok(gate)
        });
        match waits {
            Ok(gate) => {
                exit::used();
                Ok(gate)
            }
            Err(fault) => self.refused(fault).map(|()| None),
        }
    }

    fn wait_for(&self, marker: &Arc<dyn MarkerImpl>, foreign: bool) -> Result<()> {
        self.gpu.check_fork()?;
        let native = match VkMarker::of(&**marker).transpose()? {
            Some(imp) if Arc::ptr_eq(&imp.counter.gpu, &self.gpu) => {
                return self.wait_native(marker, imp);
            }
            other => other.is_some(),
        };
        // A device cannot wait for a semaphore of another one, so the host waits in its place.
        self.wait_unseen(marker, native || foreign)
    }
}

impl DeviceWork for VkStream {
    fn look(&self) -> bool {
        if let Ok(counter) = self.native.read() {
            self.values.current_epoch().settle(counter);
        }
        false
    }
}

impl Loses for VkStream {
    fn lose(&self, cause: &Cause) -> Wake {
        self.values.lose(cause)
    }
}

impl GpuStream for VkStream {}

impl HostGated for VkStream {
    /// Everything that is submitted to the queue from now on waits too, so the wait is published on
    /// all streams of the queue.
    fn block_until(&self, marker: &Arc<dyn MarkerImpl>) -> Result<()> {
        let streams = self.queue.streams();
        let mut submitted = None;
        let gate = self.wait_for_gate(|epoch, before| {
            epoch.begin_may_fail();
            let publish = |stream: &Arc<StreamCore>| {
                let after = stream.recorded.load(Ordering::Acquire);
                PublishedWait::new(stream, marker, after)
            };
            let published: Vec<_> = streams.iter().map(publish).collect();
            submitted = Some((epoch.clone(), before, published));
        })?;
        let (Some(gate), Some((epoch, before, published))) = (gate, submitted) else {
            return Ok(());
        };
        let wait = SubmittedWait {
            watcher: self.native.watcher.clone(),
            gate,
            epoch,
            before,
        };
        open_after(marker, wait, published)
    }

    fn fail_from_here(&self, cause: &Cause) {
        self.values
            .fail_from_here(cause, |native| self.submit_end(native));
    }
}

/// A wait for a host gate, behind the marker `before` of `epoch`.
struct SubmittedWait {
    watcher: Arc<DeviceWatcher>,
    gate: Arc<HostGate>,
    epoch: Arc<Epoch>,
    before: u64,
}

impl GateWait for SubmittedWait {
    fn settle(&mut self, result: Result<(), Cause>) {
        if let Err(cause) = result {
            // Counted once more: `fail_after` takes one off, and so does `open`.
            self.epoch.begin_may_fail();
            self.epoch.fail_after(self.before, &cause);
            // Markers behind other gates may have failed with this one: their waiters are due.
            self.watcher.look_again();
        }
    }

    fn open(&mut self) {
        self.epoch.clear();
        self.gate.open();
    }
}

impl StreamImpl for VkStream {
    fn core(&self) -> &Arc<StreamCore> {
        &self.core
    }

    fn mark(&self, timing: bool, at: Place) -> Result<Arc<dyn MarkerImpl>> {
        self.gpu.check_fork()?;
        let timer = timing.then(|| self.timer()).transpose()?;
        let record = || self.values.record(|native| self.submit_mark(timer, native));
        let place = match record() {
            Ok(place) => place,
            Err(fault) => {
                self.refused(fault)?;
                // The stream has failed by it, so this marker fails from the start.
                record().map_err(|fault| self.gpu.failed(fault))?
            }
        };
        Ok(Arc::new(VkMarker::new(
            self.native.clone(),
            place,
            timing,
            at,
        )))
    }

    fn record_again(&self, event: Rerecord<'_>, at: Place) -> Option<Rerecorded> {
        self.gpu.check_fork().ok()?;
        let (mut marker, lock) = event.begin::<VkMarker>()?;
        drop(lock);
        if !Arc::ptr_eq(&marker.counter, &self.native) {
            return None;
        }
        let timer = match marker.point().timing {
            true => Some(self.timer().ok()?),
            false => None,
        };
        let next = self.values.next_on(&marker.epoch)?;
        let time = self.submit_mark(timer, next.native()).ok()?;
        let value = next.submitted();
        marker.is_now(value, time, at);
        Some(marker.finish())
    }

    fn wait(&self, marker: &Arc<dyn MarkerImpl>) -> Result<()> {
        self.wait_for(marker, false)
    }

    fn wait_foreign(&self, marker: &Arc<dyn MarkerImpl>) -> Result<()> {
        self.wait_for(marker, true)
    }

    fn completed(&self) -> u64 {
        self.values.current_epoch().timeline.completed()
    }

    fn failure(&self) -> Option<Error> {
        self.refresh().timeline.failure()
    }

    fn clear_error(&self) -> Result<()> {
        self.refresh();
        if let Some(lost) = self.gpu.lost() {
            return Err(lost);
        }
        self.values.start_new_epoch();
        self.gpu.check_loss(self)
    }
}

impl Drop for VkStream {
    fn drop(&mut self) {
        self.queue.remove_stream();
        self.native.stream_dropped();
    }
}
