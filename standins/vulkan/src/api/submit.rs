//! Submitting:
//! <https://docs.vulkan.org/spec/latest/chapters/cmdbuffers.html#commandbuffers-submission>.

use crate::batch::SubmitFault;
use crate::command::new_stages;
use crate::driver::Driver;
use crate::entry::call;
use crate::ffi::{Array, find, slice};
use crate::semaphore::Kind;
use crate::submission::{Batch, SemaphoreOp, TargetQueue};
use crate::usage::{LOG, VkResult, invalid_usage};
use ash::vk::{self, Handle, PipelineStageFlags2 as Stages};
use fencepost_sim::Command as Step;

impl Driver {
    fn submit(&mut self, queue: vk::Queue, batches: Vec<Batch>, fence: vk::Fence) -> VkResult {
        let target = TargetQueue::of(queue, self.queues.find(queue)?);
        if !fence.is_null() {
            self.fences.get(target.device, fence)?.check_submit()?;
        }
        target.shared.check_submit()?;
        let fault = match batches.is_empty() {
            true => None,
            false => self.due_fault(),
        };
        for batch in &batches {
            self.check_batch(&target, batch)?;
            self.enqueue(&target, batch, fault)?;
        }
        if fence.is_null() {
            return Ok(());
        }
        let fence = self.fences.get_mut(target.device, fence)?;
        fence.submitted = true;
        if fault == Some(SubmitFault::Silent) {
            return Ok(());
        }
        target.send(vec![Step::set_flag(&fence.flag)])
    }

    /// Counts a submit, and returns the fault that a test has planned for it.
    fn due_fault(&mut self) -> Option<SubmitFault> {
        let fault = self.submit_faults.occur()?;
        LOG.note(&format!("a planned fault of a submit: {fault:?}"));
        Some(fault)
    }
}

/// The values of the semaphores of a `VkSubmitInfo`.
fn values<'a>(count: u32, first: *const u64) -> &'a [u64] {
    // SAFETY: valid usage of VkTimelineSemaphoreSubmitInfo
    unsafe { slice(first, count) }
}

fn old_batch(driver: &Driver, info: &vk::SubmitInfo<'_>) -> VkResult<Batch> {
    // SAFETY: valid usage of VkSubmitInfo
    let waits = unsafe { slice(info.p_wait_semaphores, info.wait_semaphore_count) };
    // SAFETY: as above
    let stages = unsafe { slice(info.p_wait_dst_stage_mask, info.wait_semaphore_count) };
    // SAFETY: as above
    let signals = unsafe { slice(info.p_signal_semaphores, info.signal_semaphore_count) };
    // SAFETY: as above
    let buffers = unsafe { slice(info.p_command_buffers, info.command_buffer_count) };
    let timeline = find::<vk::TimelineSemaphoreSubmitInfo<'_>>(info.p_next);
    let named = |semaphores: &[vk::Semaphore], values: &[u64], stages: &dyn Fn(usize) -> Stages| {
        let mut all = Vec::new();
        for (index, semaphore) in semaphores.iter().enumerate() {
            let value = values.get(index).copied();
            if matches!(
                driver.semaphores.find(*semaphore)?.kind,
                Kind::Timeline { .. }
            ) && (value.is_none() || values.len() != semaphores.len())
            {
                return Err(invalid_usage("there must be a value for each semaphore"));
            }
            all.push(SemaphoreOp {
                semaphore: *semaphore,
                value: value.unwrap_or(0),
                stages: stages(index),
            });
        }
        Ok(all)
    };
    if stages.len() != waits.len() {
        return Err(invalid_usage("there must be stages for each wait"));
    }
    let wait_values = timeline.map_or(&[][..], |it| {
        values(it.wait_semaphore_value_count, it.p_wait_semaphore_values)
    });
    let signal_values = timeline.map_or(&[][..], |it| {
        values(
            it.signal_semaphore_value_count,
            it.p_signal_semaphore_values,
        )
    });
    Ok(Batch {
        waits: named(waits, wait_values, &|index| new_stages(stages[index]))?,
        buffers: buffers.to_vec(),
        signals: named(signals, signal_values, &|_| Stages::ALL_COMMANDS)?,
    })
}

fn new_batch(info: &vk::SubmitInfo2<'_>) -> Batch {
    // SAFETY: valid usage of VkSubmitInfo2
    let waits = unsafe { slice(info.p_wait_semaphore_infos, info.wait_semaphore_info_count) };
    // SAFETY: as above
    let signals = unsafe {
        slice(
            info.p_signal_semaphore_infos,
            info.signal_semaphore_info_count,
        )
    };
    // SAFETY: as above
    let buffers = unsafe { slice(info.p_command_buffer_infos, info.command_buffer_info_count) };
    let named = |info: &vk::SemaphoreSubmitInfo<'_>| SemaphoreOp {
        semaphore: info.semaphore,
        value: info.value,
        stages: info.stage_mask,
    };
    Batch {
        waits: waits.iter().map(named).collect(),
        buffers: buffers.iter().map(|info| info.command_buffer).collect(),
        signals: signals.iter().map(named).collect(),
    }
}

/// The handles of a submit that need external synchronization.
fn exclusive(queue: vk::Queue, fence: vk::Fence) -> [u64; 2] {
    [queue.as_raw(), fence.as_raw()]
}

pub(crate) extern "system" fn vkQueueSubmit(
    queue: vk::Queue,
    count: u32,
    infos: Array<'_, vk::SubmitInfo<'_>>,
    fence: vk::Fence,
) -> vk::Result {
    call("vkQueueSubmit", queue, &exclusive(queue, fence), |driver| {
        let batches = infos.of(count).iter().map(|info| old_batch(driver, info));
        let batches = batches.collect::<VkResult<Vec<_>>>()?;
        driver.submit(queue, batches, fence)
    })
}

fn submit_2(
    name: &'static str,
    queue: vk::Queue,
    infos: &[vk::SubmitInfo2<'_>],
    fence: vk::Fence,
) -> vk::Result {
    call(name, queue, &exclusive(queue, fence), |driver| {
        let device = driver.device(driver.queues.find(queue)?.device)?;
        device.need(device.features.sync2, "synchronization2")?;
        driver.submit(queue, infos.iter().map(new_batch).collect(), fence)
    })
}

pub(crate) extern "system" fn vkQueueSubmit2(
    queue: vk::Queue,
    count: u32,
    infos: Array<'_, vk::SubmitInfo2<'_>>,
    fence: vk::Fence,
) -> vk::Result {
    submit_2("vkQueueSubmit2", queue, infos.of(count), fence)
}

pub(crate) extern "system" fn vkQueueSubmit2KHR(
    queue: vk::Queue,
    count: u32,
    infos: Array<'_, vk::SubmitInfo2<'_>>,
    fence: vk::Fence,
) -> vk::Result {
    submit_2("vkQueueSubmit2KHR", queue, infos.of(count), fence)
}
