//! The checks of a submit.

use crate::command_buffer::State;
use crate::driver::Driver;
use crate::semaphore::Kind;
use crate::submission::{Batch, TargetQueue};
use crate::table::name_of;
use crate::usage::{VkResult, invalid_usage};
use ash::vk::{self, Handle};

impl Driver {
    pub(crate) fn check_batch(&mut self, target: &TargetQueue, batch: &Batch) -> VkResult {
        let most = self.options.max_difference;
        for wait in &batch.waits {
            let semaphore = self.semaphores.get(target.device, wait.semaphore)?;
            semaphore.check_wait(wait.value, most)?;
        }
        for signal in &batch.signals {
            let semaphore = self.semaphores.get(target.device, signal.semaphore)?;
            // a wait of the same batch consumes the earlier signal
            let waited = batch.waits.iter().any(|w| w.semaphore == signal.semaphore);
            if !(waited && matches!(semaphore.kind, Kind::Binary(_))) {
                semaphore.check_signal(target.queue, signal.value, most)?;
            }
        }
        for buffer in &batch.buffers {
            self.check_buffer(target, *buffer)?;
        }
        Ok(())
    }

    fn check_buffer(&mut self, target: &TargetQueue, buffer: vk::CommandBuffer) -> VkResult {
        let it = self.command_buffers.find(buffer)?;
        let (recorded, pool) = (&it.recorded, it.pool);
        if it.device != target.device {
            return Err(invalid_usage(
                "a command buffer of another device is submitted",
            ));
        }
        if self.command_pools.find(pool)?.family != target.family {
            return Err(invalid_usage(
                "a command buffer of another queue family is submitted",
            ));
        }
        let simultaneous = vk::CommandBufferUsageFlags::SIMULTANEOUS_USE;
        let pending = self.in_use(buffer.as_raw());
        if pending && !recorded.usage.contains(simultaneous) {
            return Err(invalid_usage(
                "a pending command buffer is submitted without SIMULTANEOUS_USE",
            ));
        }
        let once = vk::CommandBufferUsageFlags::ONE_TIME_SUBMIT;
        if recorded.submitted && recorded.usage.contains(once) {
            return Err(invalid_usage(
                "a command buffer with ONE_TIME_SUBMIT is submitted again",
            ));
        }
        match recorded.state {
            State::Executable => {}
            State::Invalid => return Err(invalid_usage("an invalid command buffer is submitted")),
            State::Initial | State::Recording => {
                return Err(invalid_usage(
                    "a command buffer that is not recorded is submitted",
                ));
            }
        }
        let destroyed = recorded.uses.iter().find(|used| !self.exists(**used));
        let destroyed = destroyed.map(|used| format!("{} was destroyed", name_of(*used)));
        let updated = recorded.sets.iter().find(|(set, version)| {
            let set = self.descriptor_sets.peek(*set);
            set.is_some_and(|set| set.version != *version)
        });
        let updated = updated.map(|(set, _)| format!("{} was updated", name_of(set.as_raw())));
        if let Some(why) = destroyed.or(updated) {
            self.command_buffers.find_mut(buffer)?.recorded.state = State::Invalid;
            return Err(invalid_usage(&format!(
                "an invalid command buffer is submitted: {why}"
            )));
        }
        Ok(())
    }
}
