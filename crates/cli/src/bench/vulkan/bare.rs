//! The same submits written by hand, as a program writes them that knows its queue: the queue's
//! lock, one submit, and nothing kept.

use std::ffi::CStr;

use fencepost::{
    Device,
    vulkan::{
        ash::{self, vk},
        device_as_raw, physical_device_as_raw, stream_as_raw,
    },
};

use crate::Stop;

/// A timeline semaphore on a queue of a device, and a few timestamp queries. For measuring only.
pub(super) struct Stream {
    /// Tells the queue and its lock, and keeps the device alive. Nothing else is done with it.
    owner: fencepost::Stream,
    device: ash::Device,
    functions: Functions,
    semaphore: vk::Semaphore,
    value: u64,
    /// The queue is blocked until this has its value.
    gate: (vk::Semaphore, u64),
    commands: vk::CommandPool,
    queries: vk::QueryPool,
    buffers: Vec<vk::CommandBuffer>,
}

/// What depends on the optional features of a device.
struct Functions {
    submit: vk::PFN_vkQueueSubmit,
    /// With `synchronization2`.
    submit2: Option<vk::PFN_vkQueueSubmit2>,
    write2: Option<vk::PFN_vkCmdWriteTimestamp2>,
    /// With `hostQueryReset`: whether the host resets queries, and not the queue.
    host_reset: bool,
}

/// One submit: what it waits for, runs and signals.
#[derive(Default)]
struct Batch {
    wait: Option<(vk::Semaphore, u64)>,
    buffer: Option<vk::CommandBuffer>,
    signal: Option<(vk::Semaphore, u64)>,
}

const QUERIES: u32 = 1024;

/// Makes the error of a call from what it returned.
fn refused(call: &'static str) -> impl Fn(vk::Result) -> Stop {
    move |result| Stop::Failed(format!("{call} failed: {result}"))
}

impl Functions {
    /// The library enables each feature that a device has, on the devices that it opens by name.
    fn of(
        instance: &ash::Instance,
        physical: vk::PhysicalDevice,
        device: &ash::Device,
    ) -> Functions {
        let mut two = vk::PhysicalDeviceSynchronization2Features::default();
        let mut reset = vk::PhysicalDeviceHostQueryResetFeatures::default();
        let mut all = vk::PhysicalDeviceFeatures2::default()
            .push_next(&mut two)
            .push_next(&mut reset);
        // SAFETY: the physical device is of the instance; the chain is alive during the call.
        unsafe { instance.get_physical_device_features2(physical, &mut all) };
        let has_two = two.synchronization2 == vk::TRUE;
        let find = |names: [&CStr; 2]| {
            let mut found = names.into_iter().filter_map(|name| {
                // SAFETY: the device is alive; the name is a C string.
                unsafe { (instance.fp_v1_0().get_device_proc_addr)(device.handle(), name.as_ptr()) }
            });
            found.next().filter(|_| has_two)
        };
        type Found = unsafe extern "system" fn();
        Functions {
            submit: device.fp_v1_0().queue_submit,
            submit2: find([c"vkQueueSubmit2", c"vkQueueSubmit2KHR"]).map(|found| {
                // SAFETY: a function of this name has this type.
                unsafe { std::mem::transmute::<Found, vk::PFN_vkQueueSubmit2>(found) }
            }),
            write2: find([c"vkCmdWriteTimestamp2", c"vkCmdWriteTimestamp2KHR"]).map(|found| {
                // SAFETY: as above.
                unsafe { std::mem::transmute::<Found, vk::PFN_vkCmdWriteTimestamp2>(found) }
            }),
            host_reset: reset.host_query_reset == vk::TRUE,
        }
    }
}

impl Stream {
    /// On the queue that a new stream is put on.
    pub(super) fn new(fencepost_device: &Device) -> Result<Stream, Stop> {
        let owner = fencepost_device.new_stream()?;
        let family = stream_as_raw(&owner, |_, family| family)?;
        let device = device_as_raw(fencepost_device)?;
        let (instance, physical) = physical_device_as_raw(fencepost_device)?;
        let functions = Functions::of(&instance, physical, &device);
        let timeline = || {
            let mut kind =
                vk::SemaphoreTypeCreateInfo::default().semaphore_type(vk::SemaphoreType::TIMELINE);
            let info = vk::SemaphoreCreateInfo::default().push_next(&mut kind);
            // SAFETY: the device is alive, here and below; nobody else has what is made.
            unsafe { device.create_semaphore(&info, None) }.map_err(refused("vkCreateSemaphore"))
        };
        let (semaphore, gate) = (timeline()?, timeline()?);
        let info = vk::CommandPoolCreateInfo::default().queue_family_index(family);
        // SAFETY: as above.
        let commands = unsafe { device.create_command_pool(&info, None) }
            .map_err(refused("vkCreateCommandPool"))?;
        let info = vk::QueryPoolCreateInfo::default()
            .query_type(vk::QueryType::TIMESTAMP)
            .query_count(QUERIES);
        // SAFETY: as above.
        let queries = unsafe { device.create_query_pool(&info, None) }
            .map_err(refused("vkCreateQueryPool"))?;
        let info = vk::CommandBufferAllocateInfo::default()
            .command_pool(commands)
            .level(vk::CommandBufferLevel::PRIMARY)
            .command_buffer_count(QUERIES);
        // SAFETY: as above.
        let buffers = unsafe { device.allocate_command_buffers(&info) }
            .map_err(refused("vkAllocateCommandBuffers"))?;
        let stream = Stream {
            owner,
            device,
            functions,
            semaphore,
            value: 0,
            gate: (gate, 0),
            commands,
            queries,
            buffers,
        };
        for (index, &buffer) in (0..).zip(&stream.buffers) {
            // SAFETY: a new buffer, recorded once.
            unsafe { stream.write_timestamp(buffer, index) }?;
        }
        Ok(stream)
    }

    /// Records into `buffer` that it writes the query of this index.
    ///
    /// # Safety
    /// The buffer is not pending, and was not recorded before.
    unsafe fn write_timestamp(&self, buffer: vk::CommandBuffer, index: u32) -> Result<(), Stop> {
        let Stream {
            device, functions, ..
        } = self;
        // SAFETY: passed on to the caller; the queries are alive.
        unsafe {
            device
                .begin_command_buffer(buffer, &vk::CommandBufferBeginInfo::default())
                .map_err(refused("vkBeginCommandBuffer"))?;
            if !functions.host_reset {
                device.cmd_reset_query_pool(buffer, self.queries, index, 1);
            }
            match functions.write2 {
                Some(write) => {
                    let stage = vk::PipelineStageFlags2::ALL_COMMANDS;
                    write(buffer, stage, self.queries, index);
                }
                None => {
                    let stage = vk::PipelineStageFlags::BOTTOM_OF_PIPE;
                    device.cmd_write_timestamp(buffer, stage, self.queries, index);
                }
            }
            device
                .end_command_buffer(buffer)
                .map_err(refused("vkEndCommandBuffer"))
        }
    }

    /// Blocks the queue for what is submitted to it from now on, so that no driver works while
    /// calls are measured.
    pub(super) fn block(&mut self) -> Result<(), Stop> {
        self.gate.1 += 1;
        self.submit(Batch {
            wait: Some(self.gate),
            ..Batch::default()
        })
    }

    /// Unblocks the queue, if it is blocked.
    pub(super) fn unblock(&self) -> Result<(), Stop> {
        let (gate, value) = self.gate;
        if self.counter(gate)? >= value {
            return Ok(());
        }
        let info = vk::SemaphoreSignalInfo::default()
            .semaphore(gate)
            .value(value);
        // SAFETY: the semaphore is ours, and only the host signals it.
        unsafe { self.device.signal_semaphore(&info) }.map_err(refused("vkSignalSemaphore"))
    }

    /// One submit that signals the next value.
    #[inline]
    pub(super) fn record(&mut self) -> Result<(), Stop> {
        self.signal_next(None)
    }

    /// The same with a timestamp. Call [`synchronize`](Stream::synchronize) at least every 1024
    /// times.
    #[inline]
    pub(super) fn record_timed(&mut self) -> Result<(), Stop> {
        let index = (self.value % u64::from(QUERIES)) as u32;
        if self.functions.host_reset {
            // SAFETY: the query's last use is complete, as the caller saw to.
            unsafe { self.device.reset_query_pool(self.queries, index, 1) };
        }
        self.signal_next(Some(self.buffers[index as usize]))
    }

    #[inline]
    fn signal_next(&mut self, buffer: Option<vk::CommandBuffer>) -> Result<(), Stop> {
        let value = self.value + 1;
        self.submit(Batch {
            buffer,
            signal: Some((self.semaphore, value)),
            ..Batch::default()
        })?;
        self.value = value;
        Ok(())
    }

    #[inline]
    fn submit(&self, batch: Batch) -> Result<(), Stop> {
        let result = match self.functions.submit2 {
            Some(submit2) => self.with_submit2(submit2, batch),
            None => self.with_submit(batch),
        };
        match result? {
            vk::Result::SUCCESS => Ok(()),
            result => Err(refused("vkQueueSubmit")(result)),
        }
    }

    #[inline]
    fn with_submit2(
        &self,
        submit2: vk::PFN_vkQueueSubmit2,
        batch: Batch,
    ) -> Result<vk::Result, Stop> {
        let point = |(semaphore, value)| {
            vk::SemaphoreSubmitInfo::default()
                .semaphore(semaphore)
                .value(value)
                .stage_mask(vk::PipelineStageFlags2::ALL_COMMANDS)
        };
        let (wait, signal) = (batch.wait.map(point), batch.signal.map(point));
        let buffer = batch
            .buffer
            .map(|buffer| vk::CommandBufferSubmitInfo::default().command_buffer(buffer));
        let info = vk::SubmitInfo2::default()
            .wait_semaphore_infos(wait.as_slice())
            .command_buffer_infos(buffer.as_slice())
            .signal_semaphore_infos(signal.as_slice());
        Ok(stream_as_raw(&self.owner, |queue, _| {
            // SAFETY: the queue's lock is held; the semaphores and the buffer are alive, the buffer
            // not pending.
            unsafe { submit2(queue, 1, &raw const info, vk::Fence::null()) }
        })?)
    }

    #[inline]
    fn with_submit(&self, batch: Batch) -> Result<vk::Result, Stop> {
        let (wait, signal) = (batch.wait.unzip(), batch.signal.unzip());
        let stage = batch.wait.map(|_| vk::PipelineStageFlags::ALL_COMMANDS);
        let mut values = vk::TimelineSemaphoreSubmitInfo::default()
            .wait_semaphore_values(wait.1.as_slice())
            .signal_semaphore_values(signal.1.as_slice());
        let info = vk::SubmitInfo::default()
            .wait_semaphores(wait.0.as_slice())
            .wait_dst_stage_mask(stage.as_slice())
            .command_buffers(batch.buffer.as_slice())
            .signal_semaphores(signal.0.as_slice())
            .push_next(&mut values);
        Ok(stream_as_raw(&self.owner, |queue, _| {
            // SAFETY: as in `with_submit2`.
            unsafe { (self.functions.submit)(queue, 1, &raw const info, vk::Fence::null()) }
        })?)
    }

    /// Whether everything recorded is complete, by `vkGetSemaphoreCounterValue`.
    #[inline]
    pub(super) fn query(&self) -> Result<bool, Stop> {
        Ok(self.counter(self.semaphore)? >= self.value)
    }

    #[inline]
    fn counter(&self, semaphore: vk::Semaphore) -> Result<u64, Stop> {
        // SAFETY: the semaphore is ours.
        unsafe { self.device.get_semaphore_counter_value(semaphore) }
            .map_err(refused("vkGetSemaphoreCounterValue"))
    }

    /// `vkWaitSemaphores` for everything recorded.
    pub(super) fn synchronize(&self) -> Result<(), Stop> {
        let (semaphores, values) = ([self.semaphore], [self.value]);
        let info = vk::SemaphoreWaitInfo::default()
            .semaphores(&semaphores)
            .values(&values);
        // SAFETY: the semaphore is ours.
        unsafe { self.device.wait_semaphores(&info, u64::MAX) }.map_err(refused("vkWaitSemaphores"))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let _ = self.unblock();
        let _ = self.synchronize();
        let device = &self.device;
        // SAFETY: made by us, and everything is complete.
        unsafe {
            device.destroy_query_pool(self.queries, None);
            device.destroy_command_pool(self.commands, None);
            device.destroy_semaphore(self.semaphore, None);
            device.destroy_semaphore(self.gate.0, None);
        }
    }
}
