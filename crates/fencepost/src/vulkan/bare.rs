//! The same submits written by hand, for measuring what our calls cost beside them.
//!
//! By hand as a program would that knows its queue: the queue's lock, one submit, nothing kept.

use std::sync::Arc;

use ash::vk;

use super::{
    device::as_vulkan,
    fault::Fault,
    gpu::Gpu,
    queue::{Batch, Queue},
    timestamp,
};
use crate::{
    device::Device,
    error::{Error, Result},
};

/// A timeline semaphore on a queue of a device, and a few timestamp queries.
///
/// For measuring only: nothing orders it with streams of this crate but what the driver does.
///
/// ```no_run
/// use fencepost::{Device, vulkan::bare};
/// let mut line = bare::Line::new(&Device::open("vulkan:0")?)?;
/// line.record()?;
/// line.synchronize()?;
/// # Ok::<(), fencepost::Error>(())
/// ```
pub struct Line {
    gpu: Arc<Gpu>,
    queue: Arc<Queue>,
    semaphore: vk::Semaphore,
    value: u64,
    /// What the host holds the queue with, and how often it was held.
    hold: (vk::Semaphore, u64),
    commands: vk::CommandPool,
    queries: vk::QueryPool,
    buffers: Vec<vk::CommandBuffer>,
}

const QUERIES: u32 = 1024;

impl Line {
    /// On the queue with the fewest streams, as a new stream would be.
    ///
    /// ```no_run
    /// # use fencepost::{Device, vulkan::bare};
    /// drop(bare::Line::new(&Device::open("vulkan:0")?)?);
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn new(device: &Device) -> Result<Line> {
        let gpu = as_vulkan(device.imp())?.gpu.clone();
        let Some(queue) = gpu.quietest_queue() else {
            return Err(Error::Unavailable {
                device: gpu.name.clone(),
                why: "it has no queue".into(),
            });
        };
        let made = Line::make(&gpu, queue);
        made.map_err(|fault| gpu.failed(fault))
    }

    fn make(gpu: &Arc<Gpu>, queue: Arc<Queue>) -> Result<Line, Fault> {
        let fault = |call| move |result| Fault { call, result };
        let device = &gpu.device;
        let (semaphore, hold) = (gpu.timeline_semaphore()?, gpu.timeline_semaphore()?);
        let info = vk::CommandPoolCreateInfo::default().queue_family_index(queue.family);
        // SAFETY: the device is alive, here and below; nobody else has the pools.
        let commands = unsafe { device.create_command_pool(&info, None) }
            .map_err(fault("vkCreateCommandPool"))?;
        let info = vk::QueryPoolCreateInfo::default()
            .query_type(vk::QueryType::TIMESTAMP)
            .query_count(QUERIES);
        // SAFETY: as above.
        let queries =
            unsafe { device.create_query_pool(&info, None) }.map_err(fault("vkCreateQueryPool"))?;
        let info = vk::CommandBufferAllocateInfo::default()
            .command_pool(commands)
            .level(vk::CommandBufferLevel::PRIMARY)
            .command_buffer_count(QUERIES);
        // SAFETY: as above.
        let buffers = unsafe { device.allocate_command_buffers(&info) }
            .map_err(fault("vkAllocateCommandBuffers"))?;
        for (index, &buffer) in (0..).zip(&buffers) {
            // SAFETY: a new buffer, recorded once.
            unsafe {
                device
                    .begin_command_buffer(buffer, &vk::CommandBufferBeginInfo::default())
                    .map_err(fault("vkBeginCommandBuffer"))?;
                timestamp::write(gpu, buffer, queries, index, false);
                device
                    .end_command_buffer(buffer)
                    .map_err(fault("vkEndCommandBuffer"))?;
            }
        }
        Ok(Line {
            gpu: gpu.clone(),
            queue,
            semaphore,
            value: 0,
            hold: (hold, 0),
            commands,
            queries,
            buffers,
        })
    }

    /// HostGates back what is submitted to the queue from now on, so that no driver works while
    /// calls are measured.
    ///
    /// ```no_run
    /// # use fencepost::{Device, vulkan::bare};
    /// let mut line = bare::Line::new(&Device::open("vulkan:0")?)?;
    /// line.hold()?;
    /// line.record()?;
    /// line.release();
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn hold(&mut self) -> Result<()> {
        self.hold.1 += 1;
        let batch = Batch {
            wait: Some(self.hold),
            ..Batch::default()
        };
        let held = self.gpu.submitter.submit(&self.queue, batch);
        held.map_err(|fault| self.gpu.failed(fault))
    }

    /// Lets the queue go on, if it is held.
    ///
    /// ```no_run
    /// # use fencepost::{Device, vulkan::bare};
    /// bare::Line::new(&Device::open("vulkan:0")?)?.release();
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn release(&self) {
        let (hold, times) = self.hold;
        if self.gpu.counter(hold).is_ok_and(|gone| gone < times) {
            self.gpu.signal(hold, times);
        }
    }

    /// One submit that signals the next value.
    ///
    /// ```no_run
    /// # use fencepost::{Device, vulkan::bare};
    /// bare::Line::new(&Device::open("vulkan:0")?)?.record()?;
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    #[inline]
    pub fn record(&mut self) -> Result<()> {
        self.submit(&[])
    }

    /// The same with a timestamp. Call [`synchronize`](Line::synchronize) at least every 1024
    /// times.
    ///
    /// ```no_run
    /// # use fencepost::{Device, vulkan::bare};
    /// bare::Line::new(&Device::open("vulkan:0")?)?.record_timed()?;
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    #[inline]
    pub fn record_timed(&mut self) -> Result<()> {
        let index = (self.value % u64::from(QUERIES)) as u32;
        if self.gpu.host_reset {
            // SAFETY: the query's last use is complete, as the caller saw to.
            unsafe { self.gpu.device.reset_query_pool(self.queries, index, 1) };
        }
        self.submit(&[self.buffers[index as usize]])
    }

    #[inline]
    fn submit(&mut self, buffers: &[vk::CommandBuffer]) -> Result<()> {
        let value = self.value + 1;
        let submitter = self.gpu.submitter;
        let semaphore = self.semaphore;
        let result = self.queue.locked(|queue| match submitter.submit2 {
            Some(submit) => {
                let signal = [vk::SemaphoreSubmitInfo::default()
                    .semaphore(semaphore)
                    .value(value)
                    .stage_mask(vk::PipelineStageFlags2::ALL_COMMANDS)];
                let buffer = [vk::CommandBufferSubmitInfo::default()
                    .command_buffer(buffers.first().copied().unwrap_or_default())];
                let info = vk::SubmitInfo2::default()
                    .command_buffer_infos(&buffer[..buffers.len()])
                    .signal_semaphore_infos(&signal);
                // SAFETY: the queue's lock is held; the semaphore and buffer are alive, the buffer
                // not pending.
                unsafe { submit(queue, 1, &raw const info, vk::Fence::null()) }
            }
            None => {
                let (signals, values) = ([semaphore], [value]);
                let mut timeline =
                    vk::TimelineSemaphoreSubmitInfo::default().signal_semaphore_values(&values);
                let info = vk::SubmitInfo::default()
                    .command_buffers(buffers)
                    .signal_semaphores(&signals)
                    .push_next(&mut timeline);
                // SAFETY: as above.
                unsafe { (submitter.submit)(queue, 1, &raw const info, vk::Fence::null()) }
            }
        });
        match result {
            Some(vk::Result::SUCCESS) => {
                self.value = value;
                Ok(())
            }
            result => Err(self.gpu.failed(Fault {
                call: "vkQueueSubmit",
                result: result.unwrap_or(vk::Result::ERROR_UNKNOWN),
            })),
        }
    }

    /// `vkGetSemaphoreCounterValue`: whether everything recorded is complete.
    ///
    /// ```no_run
    /// # use fencepost::{Device, vulkan::bare};
    /// assert!(bare::Line::new(&Device::open("vulkan:0")?)?.query()?);
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    #[inline]
    pub fn query(&self) -> Result<bool> {
        let reached = self.gpu.counter(self.semaphore);
        let reached = reached.map_err(|fault| self.gpu.failed(fault))?;
        Ok(reached >= self.value)
    }

    /// `vkWaitSemaphores` for everything recorded.
    ///
    /// ```no_run
    /// # use fencepost::{Device, vulkan::bare};
    /// bare::Line::new(&Device::open("vulkan:0")?)?.synchronize()?;
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn synchronize(&self) -> Result<()> {
        let (semaphores, values) = ([self.semaphore], [self.value]);
        let info = vk::SemaphoreWaitInfo::default()
            .semaphores(&semaphores)
            .values(&values);
        // SAFETY: the semaphore is ours.
        unsafe { self.gpu.device.wait_semaphores(&info, u64::MAX) }.map_err(|result| {
            self.gpu.failed(Fault {
                call: "vkWaitSemaphores",
                result,
            })
        })
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.release();
        let _ = self.synchronize();
        let device = &self.gpu.device;
        // SAFETY: made by us, and everything is complete.
        unsafe {
            device.destroy_query_pool(self.queries, None);
            device.destroy_command_pool(self.commands, None);
            device.destroy_semaphore(self.semaphore, None);
            device.destroy_semaphore(self.hold.0, None);
        }
    }
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("bare::Line")
    }
}
