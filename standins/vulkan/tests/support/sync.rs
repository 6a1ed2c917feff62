//! Semaphores and fences.

use super::gpu::{Gpu, Made};
use ash::vk;

impl Gpu {
    pub(crate) fn try_timeline(&self, value: u64) -> Result<vk::Semaphore, vk::Result> {
        let mut kind = vk::SemaphoreTypeCreateInfo::default()
            .semaphore_type(vk::SemaphoreType::TIMELINE)
            .initial_value(value);
        let info = vk::SemaphoreCreateInfo::default().push_next(&mut kind);
        // SAFETY: as `Gpu` says
        let made = unsafe { self.device.create_semaphore(&info, None) }?;
        self.keep(Made::Semaphore(made));
        Ok(made)
    }

    pub(crate) fn timeline(&self, value: u64) -> vk::Semaphore {
        self.try_timeline(value).unwrap()
    }

    pub(crate) fn binary(&self) -> vk::Semaphore {
        let info = vk::SemaphoreCreateInfo::default();
        // SAFETY: as `Gpu` says
        let made = unsafe { self.device.create_semaphore(&info, None) }.unwrap();
        self.keep(Made::Semaphore(made));
        made
    }

    pub(crate) fn fence(&self, flags: vk::FenceCreateFlags) -> vk::Fence {
        let info = vk::FenceCreateInfo::default().flags(flags);
        // SAFETY: as `Gpu` says
        let made = unsafe { self.device.create_fence(&info, None) }.unwrap();
        self.keep(Made::Fence(made));
        made
    }

    pub(crate) fn signaled(&self, fence: vk::Fence) -> Result<bool, vk::Result> {
        // SAFETY: as `Gpu` says
        unsafe { self.device.get_fence_status(fence) }
    }

    pub(crate) fn wait_fence(&self, fence: vk::Fence, timeout: u64) -> Result<(), vk::Result> {
        // SAFETY: as `Gpu` says
        unsafe { self.device.wait_for_fences(&[fence], true, timeout) }
    }

    pub(crate) fn value(&self, semaphore: vk::Semaphore) -> Result<u64, vk::Result> {
        // SAFETY: as `Gpu` says
        unsafe { self.device.get_semaphore_counter_value(semaphore) }
    }

    pub(crate) fn wait_with(
        &self,
        flags: vk::SemaphoreWaitFlags,
        all: &[(vk::Semaphore, u64)],
        timeout: u64,
    ) -> Result<(), vk::Result> {
        let (semaphores, values): (Vec<_>, Vec<_>) = all.iter().copied().unzip();
        let info = vk::SemaphoreWaitInfo::default()
            .flags(flags)
            .semaphores(&semaphores)
            .values(&values);
        // SAFETY: as `Gpu` says
        unsafe { self.device.wait_semaphores(&info, timeout) }
    }

    pub(crate) fn wait(
        &self,
        semaphore: vk::Semaphore,
        value: u64,
        timeout: u64,
    ) -> Result<(), vk::Result> {
        let all = vk::SemaphoreWaitFlags::empty();
        self.wait_with(all, &[(semaphore, value)], timeout)
    }

    pub(crate) fn signal(&self, semaphore: vk::Semaphore, value: u64) -> Result<(), vk::Result> {
        let info = vk::SemaphoreSignalInfo::default()
            .semaphore(semaphore)
            .value(value);
        // SAFETY: as `Gpu` says
        unsafe { self.device.signal_semaphore(&info) }
    }
}
