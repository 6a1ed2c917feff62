//! A stream's counter: how submits signal its values, and how these are read and waited for.
//! `staging.rs` says which submit raises it.

use std::{
    mem::forget,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    gpu::Gpu,
    queue::SharedQueue,
    signal::Signal,
    staging::{Refused, Staging},
    time::MarkTime,
    watcher::Watch,
};
#[cfg(not(target_vendor = "apple"))]
use super::{vulkan::Fault, watcher::Due};
use crate::{
    epochs::{Counter, Epoch, ValueAllocator},
    error::{Cause, Result},
    panics::contain,
    sync::{AtomicBool, Mutex, Ordering, lock, park},
    watcher::{Watched, pause_after},
};

pub(crate) struct Native {
    pub(super) gpu: Arc<Gpu>,
    pub(super) signal: Signal,
    staging: Staging,
    /// The value that is missing though the queue is empty, and since when it was seen so.
    missing: Mutex<Option<(u64, Instant)>>,
}

/// How long a wait goes on before it looks whether a signal was lost.
const SLICE: Duration = Duration::from_secs(1);

/// How long a signal may be missing on an empty queue. A driver may signal the semaphores of a
/// batch one after the other, with pauses between them on a busy machine.
const MISSING: Duration = Duration::from_secs(5);

impl Native {
    pub(super) fn new(gpu: &Arc<Gpu>, signal: Signal) -> Arc<Native> {
        Arc::new(Native {
            gpu: gpu.clone(),
            signal,
            staging: Staging::new(),
            missing: Mutex::new(None),
        })
    }

    /// Whether the next submit raises the counter, so that a value that was handed out is on its
    /// way whoever submits.
    pub(super) fn rides_along(&self) -> bool {
        !matches!(self.signal, Signal::Told(_))
    }

    /// Stages a value. Call it under the submit lock of the stream's `values`, so that they grow.
    pub(super) fn stage(&self, queue: &SharedQueue, native: u64) {
        let add = || {
            if let Some(hal) = queue.hal() {
                self.signal.stage(hal, native);
            }
        };
        self.staging.stage(native, || self.withdraw(queue), add);
    }

    fn withdraw(&self, queue: &SharedQueue) -> bool {
        queue.hal().is_some_and(|hal| self.signal.withdraw(hal))
    }

    /// Submits what carries a staged value. Call it without any lock.
    pub(super) fn submit(
        &self,
        queue: &SharedQueue,
        native: u64,
        work: Option<wgpu::CommandBuffer>,
        values: &ValueAllocator,
    ) -> Result<(), Refused> {
        contain(|| {
            queue.raw.submit(work);
        });
        if let Signal::Told(told) = &self.signal {
            if self.is_refusing() {
                return Err(Refused(native));
            }
            let tell = told.tell(native);
            contain(|| queue.raw.on_submitted_work_done(move || drop(tell)));
        }
        let _submits = values.lock_submits();
        self.staging.look_back(native, || self.withdraw(queue))
    }

    /// Whether wgpu takes no submits any more: then to map a buffer fails at once. A wait for the
    /// index of a submit tells that, too. But it may panic while other threads submit or poll, and
    /// then it drops the callbacks that are due, the user's among them.
    fn is_refusing(&self) -> bool {
        let failed = Arc::new(AtomicBool::new(false));
        let tell = failed.clone();
        let mapped = self.gpu.scoped("wgpu::Buffer::map_async", || {
            let buffer = self.gpu.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("fencepost"),
                size: 4,
                usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            });
            buffer.map_async(wgpu::MapMode::Read, .., move |mapped| {
                tell.fetch_or(mapped.is_err(), Ordering::AcqRel);
            });
            buffer
        });
        let fails = failed.load(Ordering::Acquire);
        // A buffer that is dropped calls what is to be told of its mapping with an error.
        drop(mapped);
        fails
    }

    /// The counter. Calls no driver where that is a number of ours.
    fn value(&self) -> Result<u64> {
        match &self.signal {
            #[cfg(not(target_vendor = "apple"))]
            Signal::Semaphore(semaphore) => {
                semaphore.value().map_err(|fault| self.gpu.failed(&fault))
            }
            #[cfg(target_vendor = "apple")]
            Signal::Event(event) => Ok(event.value()),
            Signal::Told(told) => Ok(told.value()),
        }
    }

    /// The last value that a submit is known to have taken.
    fn submitted(&self) -> u64 {
        self.staging.taken()
    }

    /// What to sleep for until the counter has reached `value`.
    #[cfg(not(target_vendor = "apple"))]
    fn due(&self, value: u64) -> Due<'_> {
        match &self.signal {
            Signal::Semaphore(semaphore) => Due::At(semaphore, value),
            Signal::Told(_) => Due::Poll,
        }
    }

    /// The watcher slept for a value, and it has not come: by a fault, or after a while.
    #[cfg(not(target_vendor = "apple"))]
    fn has_not_come(&self, fault: Option<&Fault>) {
        match fault {
            Some(fault) => drop(self.gpu.failed(fault)),
            None => drop(self.look_for_a_lost_signal()),
        }
    }

    /// Whether submits that carry values are still to complete.
    pub(super) fn is_pending(&self) -> bool {
        let submitted = self.submitted();
        self.gpu.lost().is_none() && self.value().is_ok_and(|value| value < submitted)
    }

    /// A value that is waited for did not come for a while. If nothing is left on the queue, it
    /// never comes: a submit that failed in the driver has taken the signal with it, since the
    /// process or the device had no memory left.
    fn look_for_a_lost_signal(&self) -> Result<()> {
        self.look_for_a_lost_signal_after(MISSING)
    }

    fn look_for_a_lost_signal_after(&self, limit: Duration) -> Result<()> {
        let submitted = self.submitted();
        let is_empty = self.gpu.poll()? == wgpu::PollStatus::QueueEmpty;
        let mut missing = lock(&self.missing);
        if !is_empty || self.value()? >= submitted {
            *missing = None;
            return Ok(());
        }
        let since = match *missing {
            Some((value, since)) if value == submitted => since,
            _ => missing.insert((submitted, Instant::now())).1,
        };
        drop(missing);
        if since.elapsed() < limit {
            return Ok(());
        }
        Err(self.gpu.lose(|| {
            Cause::new(
                "wgpu's queue is empty, but the signal of a submit did not come: the submit failed \
                 in the driver, for example because memory ran out",
            )
        }))
    }

    /// Looks with growing pauses until `deadline`.
    fn poll_until(&self, native: u64, deadline: Instant) -> Result<()> {
        let start = Instant::now();
        while self.read()? < native && Instant::now() < deadline {
            let pause = pause_after(start.elapsed());
            park(Some(
                pause.min(deadline.saturating_duration_since(Instant::now())),
            ));
        }
        Ok(())
    }
}

impl Counter for Native {
    type Time = MarkTime;

    fn read(&self) -> Result<u64> {
        self.gpu.core.check_fork()?;
        if let Some(lost) = self.gpu.lost() {
            return Err(lost);
        }
        if let Signal::Told(_) = &self.signal {
            self.gpu.poll()?;
        }
        self.value()
    }

    fn wait(&self, epoch: &Epoch, native: u64, deadline: Option<Instant>) -> Result<()> {
        /// The longest wait while the epoch may fail: the host may learn of a failure that the
        /// counter does not show.
        const AT_ONCE: Duration = Duration::from_millis(10);
        let slice = match epoch.may_fail() {
            true => AT_ONCE,
            false => SLICE,
        };
        let end = Instant::now() + slice;
        let until = deadline.map_or(end, |deadline| deadline.min(end));
        match &self.signal {
            #[cfg(not(target_vendor = "apple"))]
            Signal::Semaphore(semaphore) => {
                let waited = semaphore.wait(native, until);
                waited.map_err(|fault| self.gpu.failed(&fault))?;
            }
            _ => self.poll_until(native, until)?,
        }
        match slice == SLICE && Instant::now() >= end {
            true => self.look_for_a_lost_signal(),
            false => Ok(()),
        }
    }

    fn watch(self: &Arc<Self>, epoch: &Arc<Epoch>, native: u64) -> Result<()> {
        self.gpu.watch(AwaitedMarker {
            native: self.clone(),
            epoch: epoch.clone(),
            value: native,
        })
    }
}

/// While a submit is pending its stream or the watcher has an owner of this, so nothing is pending
/// here, except on a device that is lost.
impl Drop for Native {
    fn drop(&mut self) {
        if !self.gpu.is_gone() {
            self.signal.destroy();
        }
    }
}

/// A marker that somebody waits for.
struct AwaitedMarker {
    native: Arc<Native>,
    epoch: Arc<Epoch>,
    value: u64,
}

impl Watched for AwaitedMarker {
    fn key(&self) -> (usize, u64) {
        (Arc::as_ptr(&self.epoch) as usize, self.value)
    }

    fn look(&self) -> bool {
        self.native.look_at(&self.epoch, self.value)
    }
}

impl Watch for AwaitedMarker {
    #[cfg(not(target_vendor = "apple"))]
    fn due(&self) -> Due<'_> {
        self.native.due(self.epoch.known_at(self.value))
    }

    #[cfg(not(target_vendor = "apple"))]
    fn has_not_come(&self, fault: Option<&Fault>) {
        self.native.has_not_come(fault);
    }
}

/// The counter of a dropped stream, which must live until no submit raises it any more.
pub(super) struct DroppedStream(Arc<Native>);

impl DroppedStream {
    pub(super) fn new(native: &Arc<Native>) -> DroppedStream {
        DroppedStream(native.clone())
    }
}

impl Watched for DroppedStream {
    fn key(&self) -> (usize, u64) {
        (Arc::as_ptr(&self.0) as usize + 1, 0)
    }

    fn look(&self) -> bool {
        !self.0.is_pending()
    }
}

impl Watch for DroppedStream {
    #[cfg(not(target_vendor = "apple"))]
    fn due(&self) -> Due<'_> {
        self.0.due(self.0.submitted())
    }

    #[cfg(not(target_vendor = "apple"))]
    fn has_not_come(&self, fault: Option<&Fault>) {
        self.0.has_not_come(fault);
    }
}

/// What could not be watched to its end lives until the process ends.
impl Drop for DroppedStream {
    fn drop(&mut self) {
        if self.0.is_pending() {
            forget(self.0.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::Future,
        pin::pin,
        task::{Context, Poll, Waker},
    };

    use super::*;
    use crate::{error::Error, wgpu30};

    fn ready<T>(future: impl Future<Output = T>) -> T {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => value,
            Poll::Pending => unreachable!("wgpu's futures are ready at once"),
        }
    }

    #[test]
    fn a_signal_that_a_failed_submit_took_is_missed() {
        let wanted = wgpu::InstanceDescriptor::new_without_display_handle();
        let instance = wgpu::Instance::new(wanted);
        let found = ready(instance.enumerate_adapters(wgpu::Backends::all()));
        let Some(adapter) = found.into_iter().next() else {
            return println!("skipped: wgpu finds no device");
        };
        let (device, queue) = ready(adapter.request_device(&Default::default())).unwrap();
        let stream = wgpu30::stream(&device, &queue).unwrap();
        let gpu = Gpu::new(&device, &queue, false).unwrap();
        let native = Native::new(&gpu, gpu.signal().unwrap());
        native.look_for_a_lost_signal_after(Duration::ZERO).unwrap();
        // As after a submit that took the signal, and failed in the driver.
        native.staging.stage(1, || false, || ());
        native.staging.look_back(1, || false).unwrap();
        native.look_for_a_lost_signal().unwrap();
        assert!(gpu.lost().is_none(), "it may come yet");
        let lost = native.look_for_a_lost_signal_after(Duration::ZERO);
        let lost = lost.unwrap_err();
        assert!(matches!(lost, Error::DeviceLost { .. }), "{lost}");
        assert!(native.read().is_err());
        stream.record().unwrap().synchronize().unwrap();
    }
}
