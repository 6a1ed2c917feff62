//! Recording commands: <https://docs.vulkan.org/spec/latest/chapters/clears.html>,
//! <https://docs.vulkan.org/spec/latest/chapters/dispatch.html>,
//! <https://docs.vulkan.org/spec/latest/chapters/synchronization.html>.

use crate::api::command_buffer::with_pool;
use crate::buffer::BufferRange;
use crate::command::{Command, blocks_work, new_stages, waits_for_work};
use crate::command_buffer::State;
use crate::driver::Driver;
use crate::entry::call_void;
use crate::ffi::{Array, In, slice};
use crate::physical::{Family, families};
use crate::usage::{VkResult, invalid_usage};
use ash::vk::{self, Handle, PipelineStageFlags2 as Stages};
use std::ffi::c_void;

/// Records the commands that `body` returns, each with the objects that it names.
fn record(
    name: &'static str,
    buffer: vk::CommandBuffer,
    body: impl FnOnce(&mut Driver, vk::Device) -> VkResult<Vec<(Command, Vec<u64>)>>,
) {
    call_void(name, buffer, &with_pool(buffer), |driver| {
        let it = driver.command_buffers.find(buffer)?;
        if it.recorded.state != State::Recording {
            return Err(invalid_usage("the command buffer is not being recorded"));
        }
        let device = it.device;
        let commands = body(driver, device)?;
        let recorded = &mut driver.command_buffers.find_mut(buffer)?.recorded;
        for (command, uses) in commands {
            recorded.commands.push(command);
            recorded.uses.extend(uses);
        }
        Ok(())
    });
}

pub(crate) extern "system" fn vkCmdResetQueryPool(
    buffer: vk::CommandBuffer,
    pool: vk::QueryPool,
    first: u32,
    count: u32,
) {
    record("vkCmdResetQueryPool", buffer, |driver, device| {
        driver.query_pools.get(device, pool)?.range(first, count)?;
        let command = Command::ResetQueries { pool, first, count };
        Ok(vec![(command, vec![pool.as_raw()])])
    });
}

fn timestamp(
    name: &'static str,
    buffer: vk::CommandBuffer,
    stages: Stages,
    pool: vk::QueryPool,
    index: u32,
) {
    record(name, buffer, |driver, device| {
        if name != "vkCmdWriteTimestamp" {
            driver.need_sync2(device)?;
        }
        driver.query_pools.get(device, pool)?.range(index, 1)?;
        let family = driver.command_buffers.find(buffer)?.pool;
        let family = driver.command_pools.find(family)?.family;
        let families = families(&driver.options);
        let has_timestamps = |f: &Family| f.valid_bits > 0;
        if !families.get(family as usize).is_some_and(has_timestamps) {
            return Err(invalid_usage("the queue family has no timestamps"));
        }
        if stages.as_raw().count_ones() > 1 {
            return Err(invalid_usage("a timestamp with more than one stage"));
        }
        let early = !waits_for_work(stages);
        let command = Command::Timestamp { pool, index, early };
        Ok(vec![(command, vec![pool.as_raw()])])
    });
}

pub(crate) extern "system" fn vkCmdWriteTimestamp(
    buffer: vk::CommandBuffer,
    stage: vk::PipelineStageFlags,
    pool: vk::QueryPool,
    index: u32,
) {
    timestamp(
        "vkCmdWriteTimestamp",
        buffer,
        new_stages(stage),
        pool,
        index,
    );
}

pub(crate) extern "system" fn vkCmdWriteTimestamp2(
    buffer: vk::CommandBuffer,
    stages: Stages,
    pool: vk::QueryPool,
    index: u32,
) {
    timestamp("vkCmdWriteTimestamp2", buffer, stages, pool, index);
}

pub(crate) extern "system" fn vkCmdWriteTimestamp2KHR(
    buffer: vk::CommandBuffer,
    stages: Stages,
    pool: vk::QueryPool,
    index: u32,
) {
    timestamp("vkCmdWriteTimestamp2KHR", buffer, stages, pool, index);
}

pub(crate) extern "system" fn vkCmdPipelineBarrier(
    buffer: vk::CommandBuffer,
    before: vk::PipelineStageFlags,
    after: vk::PipelineStageFlags,
    _: vk::DependencyFlags,
    _: u32,
    _: *const c_void,
    _: u32,
    _: *const c_void,
    _: u32,
    _: *const c_void,
) {
    record("vkCmdPipelineBarrier", buffer, |driver, device| {
        let empty = before.is_empty() || after.is_empty();
        if empty && !driver.device(device)?.features.sync2 {
            return Err(invalid_usage("a barrier must have stages"));
        }
        let orders = waits_for_work(new_stages(before)) && blocks_work(new_stages(after));
        Ok(orders
            .then_some((Command::Barrier, Vec::new()))
            .into_iter()
            .collect())
    });
}

fn barrier_2(name: &'static str, buffer: vk::CommandBuffer, info: In<'_, vk::DependencyInfo<'_>>) {
    record(name, buffer, |driver, device| {
        driver.need_sync2(device)?;
        let info = info.required()?;
        // SAFETY: valid usage of VkDependencyInfo
        let memory = unsafe { slice(info.p_memory_barriers, info.memory_barrier_count) };
        // SAFETY: as above
        let buffers = unsafe {
            slice(
                info.p_buffer_memory_barriers,
                info.buffer_memory_barrier_count,
            )
        };
        let memory = memory
            .iter()
            .map(|it| (it.src_stage_mask, it.dst_stage_mask));
        let buffers = buffers
            .iter()
            .map(|it| (it.src_stage_mask, it.dst_stage_mask));
        let orders = |(before, after)| waits_for_work(before) && blocks_work(after);
        let orders = memory.chain(buffers).any(orders);
        Ok(orders
            .then_some((Command::Barrier, Vec::new()))
            .into_iter()
            .collect())
    });
}

pub(crate) extern "system" fn vkCmdPipelineBarrier2(
    buffer: vk::CommandBuffer,
    info: In<'_, vk::DependencyInfo<'_>>,
) {
    barrier_2("vkCmdPipelineBarrier2", buffer, info);
}

pub(crate) extern "system" fn vkCmdPipelineBarrier2KHR(
    buffer: vk::CommandBuffer,
    info: In<'_, vk::DependencyInfo<'_>>,
) {
    barrier_2("vkCmdPipelineBarrier2KHR", buffer, info);
}

impl Driver {
    /// Reports the call of a function of synchronization2 if the feature is not enabled.
    fn need_sync2(&self, device: vk::Device) -> VkResult {
        let device = self.device(device)?;
        device.need(device.features.sync2, "synchronization2")
    }

    fn place(
        &self,
        device: vk::Device,
        buffer: vk::Buffer,
        offset: u64,
        size: u64,
        usage: vk::BufferUsageFlags,
    ) -> VkResult<BufferRange> {
        let it = self.buffers.get(device, buffer)?;
        it.check_usage(usage)?;
        Ok((buffer, it.range(offset, size)?))
    }
}

pub(crate) extern "system" fn vkCmdFillBuffer(
    buffer: vk::CommandBuffer,
    to: vk::Buffer,
    offset: u64,
    size: u64,
    value: u32,
) {
    record("vkCmdFillBuffer", buffer, |driver, device| {
        let usage = vk::BufferUsageFlags::TRANSFER_DST;
        let range = driver.place(device, to, offset, size, usage)?;
        Ok(vec![(
            Command::Fill { to: range, value },
            vec![to.as_raw()],
        )])
    });
}

pub(crate) extern "system" fn vkCmdUpdateBuffer(
    buffer: vk::CommandBuffer,
    to: vk::Buffer,
    offset: u64,
    size: u64,
    data: Array<'_, u32>,
) {
    record("vkCmdUpdateBuffer", buffer, |driver, device| {
        if size > 65536 {
            return Err(invalid_usage("an update is larger than 65536 bytes"));
        }
        let usage = vk::BufferUsageFlags::TRANSFER_DST;
        let range = driver.place(device, to, offset, size, usage)?;
        let words = data.of((size / 4) as u32).to_vec();
        Ok(vec![(
            Command::Update { to: range, words },
            vec![to.as_raw()],
        )])
    });
}

pub(crate) extern "system" fn vkCmdCopyBuffer(
    buffer: vk::CommandBuffer,
    from: vk::Buffer,
    to: vk::Buffer,
    count: u32,
    regions: Array<'_, vk::BufferCopy>,
) {
    record("vkCmdCopyBuffer", buffer, |driver, device| {
        let mut commands = Vec::new();
        for region in regions.of(count) {
            let usage = vk::BufferUsageFlags::TRANSFER_SRC;
            let source = driver.place(device, from, region.src_offset, region.size, usage)?;
            let usage = vk::BufferUsageFlags::TRANSFER_DST;
            let target = driver.place(device, to, region.dst_offset, region.size, usage)?;
            let command = Command::Copy {
                from: source,
                to: target,
            };
            commands.push((command, vec![from.as_raw(), to.as_raw()]));
        }
        Ok(commands)
    });
}

pub(crate) extern "system" fn vkCmdBindPipeline(
    buffer: vk::CommandBuffer,
    point: vk::PipelineBindPoint,
    pipeline: vk::Pipeline,
) {
    record("vkCmdBindPipeline", buffer, |driver, device| {
        driver.pipelines.get(device, pipeline)?;
        if point != vk::PipelineBindPoint::COMPUTE {
            return Err(invalid_usage(
                "a compute pipeline is bound at another bind point",
            ));
        }
        driver
            .command_buffers
            .find_mut(buffer)?
            .recorded
            .bound
            .pipeline = Some(pipeline);
        Ok(Vec::new())
    });
}

pub(crate) extern "system" fn vkCmdBindDescriptorSets(
    buffer: vk::CommandBuffer,
    point: vk::PipelineBindPoint,
    layout: vk::PipelineLayout,
    first: u32,
    count: u32,
    sets: Array<'_, vk::DescriptorSet>,
    _: u32,
    _: *const c_void,
) {
    record("vkCmdBindDescriptorSets", buffer, |driver, device| {
        let have = driver.pipeline_layouts.get(device, layout)?.sets;
        if point != vk::PipelineBindPoint::COMPUTE || first.saturating_add(count) > have {
            return Err(invalid_usage(
                "the layout has no such descriptor sets for compute",
            ));
        }
        for (index, set) in (first..).zip(sets.of(count)) {
            let version = driver.descriptor_sets.find(*set)?.version;
            let recorded = &mut driver.command_buffers.find_mut(buffer)?.recorded;
            recorded.sets.push((*set, version));
            if index == 0 {
                recorded.bound.set = Some(*set);
            }
        }
        Ok(Vec::new())
    });
}

pub(crate) extern "system" fn vkCmdPushConstants(
    buffer: vk::CommandBuffer,
    layout: vk::PipelineLayout,
    _: vk::ShaderStageFlags,
    offset: u32,
    size: u32,
    values: Array<'_, u32>,
) {
    record("vkCmdPushConstants", buffer, |driver, device| {
        let have = driver.pipeline_layouts.get(device, layout)?.push_bytes;
        let fits = offset.checked_add(size).is_some_and(|end| end <= have);
        if !fits || size == 0 || !(offset | size).is_multiple_of(4) {
            return Err(invalid_usage("the layout has no such push constants"));
        }
        if offset == 0 {
            let first = values.of(size / 4).first().copied();
            driver.command_buffers.find_mut(buffer)?.recorded.bound.push = first;
        }
        Ok(Vec::new())
    });
}

pub(crate) extern "system" fn vkCmdDispatch(buffer: vk::CommandBuffer, x: u32, y: u32, z: u32) {
    record("vkCmdDispatch", buffer, |driver, device| {
        if [x, y, z].into_iter().any(|count| count > 65535) {
            return Err(invalid_usage(
                "more workgroups than maxComputeWorkGroupCount",
            ));
        }
        let bound = &driver.command_buffers.find(buffer)?.recorded.bound;
        let Some(pipeline) = bound.pipeline else {
            return Err(invalid_usage("no pipeline is bound"));
        };
        let kernel = driver.pipelines.get(device, pipeline)?.kernel;
        let Some(set) = bound.set else {
            return Err(invalid_usage("no descriptor set is bound"));
        };
        let push = match bound.push {
            Some(push) => push,
            None if kernel.reads_push_constant() => {
                return Err(invalid_usage("no push constant was pushed"));
            }
            None => 0,
        };
        let buffers = &driver.descriptor_sets.find(set)?.buffers;
        let ranges = (0..kernel.bindings()).map(|binding| buffers.get(&binding).copied());
        let Some(ranges) = ranges.collect::<Option<Vec<BufferRange>>>() else {
            return Err(invalid_usage(
                "the descriptor set lacks a buffer that the kernel uses",
            ));
        };
        let mut uses = vec![pipeline.as_raw(), set.as_raw()];
        uses.extend(ranges.iter().map(|(buffer, _)| buffer.as_raw()));
        let groups = x.saturating_mul(y).saturating_mul(z);
        let command = Command::Dispatch {
            kernel,
            ranges,
            push,
            groups,
        };
        Ok(vec![(command, uses)])
    });
}
