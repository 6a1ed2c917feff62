//! A stream's marker timeline as the counter that its epochs are told by.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use ash::vk;

use super::{fault::Fault, gpu::SLICE, native::Native, time::SlotTime, watcher::Watch};
use crate::{
    epochs::{Counter, Epoch},
    error::Result,
};

impl Counter for Native {
    type Time = SlotTime;

    #[inline]
    fn read(&self) -> Result<u64> {
        self.gpu.check_fork()?;
        // Counters of a lost device may stand still, and markers of dropped streams have heard of
        // no loss.
        if let Some(lost) = self.gpu.lost() {
            return Err(lost);
        }
        let counter = self
            .gpu
            .counter(self.marker_timeline)
            .map_err(|fault| self.gpu.failed(fault))?;
        self.reached(counter);
        Ok(counter)
    }

    fn wait(&self, epoch: &Epoch, native: u64, deadline: Option<Instant>) -> Result<()> {
        /// The longest call while the epoch may fail: the host may learn of a failure that the
        /// semaphore does not show.
        const AT_ONCE: Duration = Duration::from_millis(10);
        let longest = match epoch.may_fail() {
            true => AT_ONCE,
            false => SLICE,
        };
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout = left.unwrap_or(longest).min(longest);
        let (semaphores, values) = ([self.marker_timeline], [native]);
        let info = vk::SemaphoreWaitInfo::default()
            .semaphores(&semaphores)
            .values(&values);
        // SAFETY: our own timeline semaphore, alive while `self` is borrowed.
        match unsafe {
            let nanos = timeout.as_nanos() as u64;
            self.gpu.device.wait_semaphores(&info, nanos)
        } {
            Ok(()) => Ok(()),
            Err(vk::Result::TIMEOUT) => {
                self.gpu.look_for_a_loss();
                Ok(())
            }
            Err(result) => Err(self.gpu.failed(Fault {
                call: "vkWaitSemaphores",
                result,
            })),
        }
    }

    fn watch(self: &Arc<Self>, epoch: &Arc<Epoch>, native: u64) -> Result<()> {
        self.watcher.watch(Watch::Marker {
            native: self.clone(),
            epoch: epoch.clone(),
            value: native,
        })
    }
}
