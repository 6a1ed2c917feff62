//! Streams on wgpu's queue.

use std::sync::{Arc, Weak};

use super::{
    counter::{DroppedStream, Native},
    gpu::{Gpu, GpuStream},
    queue::SharedQueue,
    staging::Refused,
    time::MarkTime,
    timer::{self, Reading},
};
use crate::{
    contract::{MarkerImpl, StreamImpl},
    core::{DeviceWork, StreamCore},
    epochs::{CountedMarker, Counter, Epoch, Expected, ValueAllocator},
    error::{Cause, Error, Result},
    host_gate::{failed_wait, foreign_wait},
    lost::Loses,
    place::Place,
    rerecord::{Rerecord, Rerecorded},
    timeline::{Awaited, Reached, Wake},
};
#[cfg(all(feature = "vulkan", not(target_vendor = "apple")))]
use crate::{timeline::Waiter, vulkan};

const ENCODER: wgpu::CommandEncoderDescriptor<'static> = wgpu::CommandEncoderDescriptor {
    label: Some("fencepost"),
};

pub(super) type WgpuMarker = CountedMarker<Native>;

pub(crate) struct WgpuStream {
    core: Arc<StreamCore>,
    pub(crate) gpu: Arc<Gpu>,
    pub(super) queue: Arc<SharedQueue>,
    values: ValueAllocator,
    native: Arc<Native>,
}

impl WgpuStream {
    pub(super) fn new(gpu: &Arc<Gpu>, queue: Arc<SharedQueue>) -> Result<Arc<WgpuStream>> {
        gpu.core.check_fork()?;
        if let Some(ended) = gpu.ended() {
            return Err(ended);
        }
        let native = Native::new(gpu, gpu.signal()?);
        let core = StreamCore::new(gpu.core.clone());
        let stream = Arc::new(WgpuStream {
            values: ValueAllocator::new(core.clone()),
            core,
            gpu: gpu.clone(),
            queue,
            native,
        });
        let work: Weak<dyn DeviceWork> = Arc::<WgpuStream>::downgrade(&stream);
        drop(stream.core.device_work.set(work));
        let known: Arc<dyn GpuStream> = stream.clone();
        gpu.add_stream(&known);
        Ok(stream)
    }

    /// Stages a value. Called under the submit lock.
    fn stage(&self, native: u64) {
        self.native.stage(&self.queue, native);
    }

    /// Submits what carries the staged value `native`. Where wgpu refuses that, the stream fails
    /// behind the last value that it took, and this is `false`. Call it without any lock.
    fn submit(&self, native: u64, work: Option<wgpu::CommandBuffer>) -> bool {
        let values = &self.values;
        match self.native.submit(&self.queue, native, work, values) {
            Ok(()) => true,
            Err(refused) => {
                self.refused(refused);
                false
            }
        }
    }

    #[cold]
    fn refused(&self, Refused(first): Refused) {
        let cause = self.gpu.refused();
        // Another one than that of the value only if that has failed already.
        let epoch = self.values.current_epoch();
        epoch.begin_may_fail();
        epoch.fail_after(epoch.before(first), &cause);
        if let Ok(counter) = self.native.read() {
            epoch.settle(counter);
        }
        self.gpu.look_again();
    }

    /// Submits work of a test's; `false` behind a failure, where nothing is submitted.
    #[cfg(feature = "conformance")]
    #[cfg_attr(target_vendor = "apple", allow(dead_code))]
    pub(crate) fn run(&self, work: wgpu::CommandBuffer) -> bool {
        let open = !self.values.current_epoch().is_closed();
        if open {
            crate::panics::contain(|| {
                self.queue.raw.submit([work]);
            });
        }
        open
    }

    /// Work that writes a time, and what reads it.
    fn timed(&self) -> Result<(wgpu::CommandBuffer, Reading)> {
        self.gpu.check_timing(true)?;
        let slot = timer::take(&self.gpu)?;
        self.gpu
            .scoped("wgpu::CommandEncoder::write_timestamp", || {
                let mut encoder = self.gpu.device.create_command_encoder(&ENCODER);
                slot.write(&mut encoder);
                let reading = Reading::new(&self.gpu, slot, &mut encoder, 1);
                (encoder.finish(), reading)
            })
    }

    /// Ends the stream here: what is recorded from now on fails with `cause`, once everything
    /// submitted so far is complete.
    pub(crate) fn fail_from_here(&self, cause: &Cause) {
        let mut staged = None;
        self.values.fail_from_here(cause, |native| {
            self.stage(native);
            staged = Some(native);
            Ok::<(), ()>(())
        });
        if let Some(native) = staged {
            self.submit(native, None);
        }
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

    /// Waits for a marker of the same queue, whose order keeps the wait by itself. What is left is
    /// that a failure goes along.
    fn wait_in_order(&self, marker: &Arc<dyn MarkerImpl>, imp: &WgpuMarker) {
        if imp.point().reached() == Reached::Failed {
            return self.fail_by_wait(marker);
        }
        let open = self.values.lock_submits();
        if open.epoch.is_closed() {
            return;
        }
        let (value, text) = (imp.point().value, || marker.to_string());
        let expected = imp.epoch.add_dependent(value, &open.epoch, open.last, text);
        self.core.waits_on_device(imp.point());
        drop(open);
        // The awaited stream fails in front of that marker, so this stream fails from here on.
        if let Expected::Fails(_, cause) = expected {
            self.fail_from_here(&cause.through(marker.to_string()));
        }
    }

    fn fail_by_wait(&self, marker: &Arc<dyn MarkerImpl>) {
        if let Err(error) = marker.query() {
            self.fail_from_here(&failed_wait(marker.to_string(), &error));
        }
    }

    /// Waits for a marker that the queue cannot see, if it is not pending.
    fn wait_unseen(&self, marker: &Arc<dyn MarkerImpl>, pending: impl Fn() -> Error) -> Result<()> {
        match marker.query() {
            Ok(true) => Ok(()),
            Ok(false) => Err(pending()),
            // It never completes: such a wait is a mistake in the call, not a failure of the work.
            Err(error @ Error::Captured { .. }) => Err(error),
            Err(error) => {
                self.fail_from_here(&failed_wait(marker.to_string(), &error));
                Ok(())
            }
        }
    }

    fn wait_for(&self, marker: &Arc<dyn MarkerImpl>, pending: impl Fn() -> Error) -> Result<()> {
        self.gpu.core.check_fork()?;
        match WgpuMarker::of(&**marker).transpose()? {
            Some(imp) if Arc::ptr_eq(&imp.counter.gpu, &self.gpu) => {
                self.wait_in_order(marker, imp);
                Ok(())
            }
            _ => {
                #[cfg(all(feature = "vulkan", not(target_vendor = "apple")))]
                if let Some(device) = self.gpu.vulkan_handle()
                    && let Some(found) = vulkan::marker::awaitable(&**marker, device)
                {
                    return self.wait_natively(marker, found?);
                }
                self.wait_unseen(marker, pending)
            }
        }
    }

    /// Has the next submit wait for a marker that the Vulkan backend has submitted to another queue
    /// of the same `VkDevice`. A marker of ours follows, so that somebody knows when the semaphore
    /// is not used any more.
    #[cfg(all(feature = "vulkan", not(target_vendor = "apple")))]
    fn wait_natively(
        &self,
        marker: &Arc<dyn MarkerImpl>,
        found: vulkan::marker::Awaitable,
    ) -> Result<()> {
        if marker.point().reached() == Reached::Failed {
            self.fail_by_wait(marker);
            return Ok(());
        }
        let open = self.values.lock_submits();
        if open.epoch.is_closed() {
            return Ok(());
        }
        let (value, text) = (marker.point().value, || marker.to_string());
        let expected = found
            .epoch
            .add_dependent(value, &open.epoch, open.last, text);
        if let (Expected::Completes(native), Some(hal)) = (&expected, self.queue.hal()) {
            super::vulkan::stage_wait(hal, found.semaphore, *native);
        }
        self.core.waits_on_device(marker.point());
        drop(open);
        if let Expected::Fails(_, cause) = expected {
            self.fail_from_here(&cause.through(marker.to_string()));
            return Ok(());
        }
        let behind = self.mark(false, Place::unknown())?;
        let free = Waiter::Call(Box::new(move |_| drop(found.keep)));
        behind.notify(free).map(drop)
    }
}

impl Loses for WgpuStream {
    fn lose(&self, cause: &Cause) -> Wake {
        self.values.lose(cause)
    }
}

impl GpuStream for WgpuStream {}

impl DeviceWork for WgpuStream {
    fn look(&self) -> bool {
        if let Ok(counter) = self.native.read() {
            self.values.current_epoch().settle(counter);
        }
        false
    }
}

impl StreamImpl for WgpuStream {
    fn core(&self) -> &Arc<StreamCore> {
        &self.core
    }

    fn mark(&self, timing: bool, at: Place) -> Result<Arc<dyn MarkerImpl>> {
        self.gpu.core.check_fork()?;
        let timed = timing.then(|| self.timed()).transpose()?;
        let (work, reading) = timed.unzip();
        let stamp = reading.as_ref().and_then(|reading| reading.stamp(0));
        let time = stamp.map(|stamp| MarkTime::new(&self.gpu, stamp));
        let place = self.values.record(|native| {
            self.stage(native);
            Ok::<_, Error>(time)
        })?;
        if place.submitted.is_some() {
            let is_taken = self.submit(place.epoch.native(place.value), work);
            // On a device that wgpu has lost the buffer may be invalid: to map that is an error.
            if let Some(reading) = reading.filter(|_| is_taken) {
                reading.submitted();
            }
        }
        let marker = WgpuMarker::new(self.native.clone(), place, timing, at);
        Ok(Arc::new(marker))
    }

    // A submit calls callbacks of the user's, which may ask the event. So its slot is free again
    // before the submit: whoever makes the next one, that carries the value.
    fn record_again(&self, event: Rerecord<'_>, at: Place) -> Option<Rerecorded> {
        self.gpu.core.check_fork().ok()?;
        if !self.native.rides_along() {
            return None;
        }
        let (mut marker, lock) = event.begin::<WgpuMarker>()?;
        drop(lock);
        if !Arc::ptr_eq(&marker.counter, &self.native) || marker.point().timing {
            return None;
        }
        let next = self.values.next_on(&marker.epoch)?;
        let native = next.native();
        self.stage(native);
        marker.is_now(next.submitted(), None, at);
        let recorded = marker.finish();
        self.submit(native, None);
        Some(recorded)
    }

    fn wait(&self, marker: &Arc<dyn MarkerImpl>) -> Result<()> {
        self.wait_for(marker, || {
            foreign_wait(self.core.to_string(), &**marker, false)
        })
    }

    fn wait_foreign(&self, marker: &Arc<dyn MarkerImpl>) -> Result<()> {
        self.wait_for(marker, || self.gpu.cannot_hold())
    }

    fn completed(&self) -> u64 {
        self.values.current_epoch().timeline.completed()
    }

    fn failure(&self) -> Option<Error> {
        self.refresh().timeline.failure()
    }

    fn clear_error(&self) -> Result<()> {
        self.refresh();
        if let Some(ended) = self.gpu.ended() {
            return Err(ended);
        }
        self.values.start_new_epoch();
        self.gpu.check_loss(self)
    }
}

impl Drop for WgpuStream {
    fn drop(&mut self) {
        if self.gpu.is_gone() || !self.native.is_pending() {
            return;
        }
        // If no thread can be started, it lives until the process ends.
        drop(self.gpu.watch(DroppedStream::new(&self.native)));
    }
}
