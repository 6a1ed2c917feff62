//! A stream's marker timeline as the counter that its epochs are told by.

use std::{sync::Arc, time::Instant};

use ash::vk;

use super::{fault::Fault, native::Native, time::SlotTime, watcher::Watch};
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
        const AT_ONCE: u64 = 10_000_000;
        let timeout = match deadline {
            None => u64::MAX,
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                u64::try_from(left.as_nanos()).unwrap_or(u64::MAX)
            }
        };
        let timeout = match epoch.may_fail() {
            true => timeout.min(AT_ONCE),
            false => timeout,
        };
        let (semaphores, values) = ([self.marker_timeline], [native]);
        let info = vk::SemaphoreWaitInfo::default()
            .semaphores(&semaphores)
            .values(&values);
        // SAFETY: our own timeline semaphore, alive while `self` is borrowed.
        match unsafe { self.gpu.device.wait_semaphores(&info, timeout) } {
            Ok(()) | Err(vk::Result::TIMEOUT) => Ok(()),
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
