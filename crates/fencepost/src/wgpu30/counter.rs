//! A stream's counter: how its values ride along with submits, and are read and waited for.
//!
//! wgpu lets anybody submit to its queue at any time, and has no call that stages a signal and
//! submits in one. So what is staged rides along with the next submit, whoever makes it.
//!
//! # The protocol
//!
//! 1. *Stage*, under the stream's submit lock: a value is handed out, and the next submit is to
//!    raise the counter to it, in place of an earlier value that no submit has taken.
//! 2. *Submit*, under no lock: wgpu calls callbacks of the user's here, and these may record.
//! 3. *Look back*, under the lock of `staged`: if this value is the last one staged, and no submit
//!    has taken it, wgpu refused the submit.
//!
//! *Invariant: at most one value is staged, the highest, and each value that it stands for (`first`
//! to `last`) was handed out before.* A submit that takes it comes after everything that was
//! submitted before those values were handed out, whoever made it, so a marker is never complete
//! too early. Who staged the last value looks back last; so a refused value is always found.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{gpu::Gpu, signal::Signal, time::MarkTime, watcher::Watch};
use crate::{
    epochs::{Counter, Epoch},
    error::{Cause, Result},
    panics::contain,
    sync::{AtomicU64, Mutex, Ordering, lock, park},
};

pub(crate) struct Native {
    pub(super) gpu: Arc<Gpu>,
    pub(super) signal: Signal,
    staged: Mutex<Staged>,
    /// The last value whose submit has returned.
    submitted: AtomicU64,
}

/// The values that ride along with the next submit, or rode along with the last.
struct Staged {
    first: u64,
    last: u64,
}

/// wgpu refused the submits of all values from this one on.
pub(super) struct Refused(pub(super) u64);

/// How long a wait goes on before it looks whether a signal was lost.
const SLICE: Duration = Duration::from_secs(1);

impl Native {
    pub(super) fn new(gpu: &Arc<Gpu>, signal: Signal) -> Arc<Native> {
        Arc::new(Native {
            gpu: gpu.clone(),
            signal,
            staged: Mutex::new(Staged { first: 0, last: 0 }),
            submitted: AtomicU64::new(0),
        })
    }

    /// Stages a value. Called under the stream's submit lock, so that values grow.
    pub(super) fn stage(&self, queue: &wgpu::Queue, native: u64) {
        let mut staged = lock(&self.staged);
        if !self.signal.stage(queue, native) {
            staged.first = native;
        }
        staged.last = native;
    }

    /// Submits what carries a staged value. Call it without any lock.
    pub(super) fn submit(
        &self,
        queue: &wgpu::Queue,
        native: u64,
        work: Option<wgpu::CommandBuffer>,
    ) -> Result<(), Refused> {
        let mut index = None;
        contain(|| index = Some(queue.submit(work)));
        if let Signal::Told(told) = &self.signal {
            if index.is_some_and(|index| self.was_refused(index)) {
                return Err(Refused(native));
            }
            let tell = told.tell(native);
            contain(|| queue.on_submitted_work_done(move || drop(tell)));
        } else {
            let staged = lock(&self.staged);
            if staged.last == native && self.signal.withdraw(queue) {
                return Err(Refused(staged.first));
            }
        }
        self.submitted.fetch_max(native, Ordering::AcqRel);
        Ok(())
    }

    /// Whether wgpu gave this index to a submit that it refused.
    fn was_refused(&self, index: wgpu::SubmissionIndex) -> bool {
        let mut refused = false;
        contain(|| {
            let polled = self.gpu.device.poll(wgpu::PollType::Wait {
                submission_index: Some(index),
                // Waits for nothing.
                timeout: Some(Duration::ZERO),
            });
            refused = matches!(polled, Err(wgpu::PollError::WrongSubmissionIndex(..)));
        });
        refused
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

    /// The last value whose submit has returned.
    pub(super) fn submitted(&self) -> u64 {
        self.submitted.load(Ordering::Acquire)
    }

    /// Whether submits that carry values are still to complete.
    pub(super) fn is_pending(&self) -> bool {
        let submitted = self.submitted();
        self.gpu.lost().is_none() && self.value().is_ok_and(|value| value < submitted)
    }

    /// A value that is waited for did not come for a while. If nothing is left on the queue, it
    /// never comes: a submit that failed in the driver has taken the signal with it, since the
    /// process or the device had no memory left.
    pub(super) fn look_for_a_lost_signal(&self) -> Result<()> {
        let submitted = self.submitted();
        if self.gpu.poll()? != wgpu::PollStatus::QueueEmpty {
            return Ok(());
        }
        // A driver may signal the two semaphores of a batch one after the other.
        std::thread::sleep(Duration::from_millis(10));
        if self.value()? >= submitted {
            return Ok(());
        }
        Err(self.gpu.lose(|| {
            Cause::new(
                "wgpu's queue is empty, but the signal of a submit did not come: the submit failed \
                 in the driver, as where memory runs out",
            )
        }))
    }

    /// Looks with growing pauses until `deadline`.
    fn poll_until(&self, native: u64, deadline: Instant) -> Result<()> {
        const SHORTEST: Duration = Duration::from_micros(20);
        const LONGEST: Duration = Duration::from_millis(1);
        let start = Instant::now();
        while self.read()? < native && Instant::now() < deadline {
            let pause = (start.elapsed() / 100).clamp(SHORTEST, LONGEST);
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
        self.gpu.watch(Watch::marker(self, epoch, native))
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
