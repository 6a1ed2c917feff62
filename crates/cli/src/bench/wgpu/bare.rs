//! The same by hand, as a program writes it that has wgpu alone.

use std::{
    hint::black_box,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
#[cfg(not(target_vendor = "apple"))]
use std::{
    ops::Deref,
    sync::{Mutex, MutexGuard, PoisonError},
};

use fencepost::wgpu30::wgpu::{
    self, Buffer, BufferUsages, CommandBuffer, CommandEncoderDescriptor, PollType, QuerySet,
};
#[cfg(not(target_vendor = "apple"))]
use fencepost::{vulkan::ash::vk, wgpu30::wgpu::hal};

use crate::{Stop, wgpu::Opened};

impl Opened {
    fn encoder(&self) -> wgpu::CommandEncoder {
        let description = CommandEncoderDescriptor::default();
        self.device.create_command_encoder(&description)
    }

    fn buffer(&self, size: u64, usage: BufferUsages) -> Buffer {
        self.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size,
            usage,
            mapped_at_creation: false,
        })
    }

    /// Waits for all that is submitted.
    pub(super) fn wait(&self) -> Result<(), Stop> {
        self.poll(PollType::wait_indefinitely())
    }

    pub(super) fn poll(&self, how: PollType) -> Result<(), Stop> {
        let failed = |why: wgpu::PollError| Stop::Failed(format!("Device::poll failed: {why}"));
        self.device.poll(how).map(drop).map_err(failed)
    }

    /// Polls without a pause until what is submitted is over.
    pub(super) fn poll_until_done(&self) -> Result<(), Stop> {
        let done = Arc::new(AtomicBool::new(false));
        let tell = done.clone();
        self.queue
            .on_submitted_work_done(move || tell.store(true, Ordering::Release));
        while !done.load(Ordering::Acquire) {
            self.poll(PollType::Poll)?;
        }
        Ok(())
    }
}

/// Submits that also signal a timeline semaphore, and then look whether wgpu took it: what every
/// marker has to do that completes without a poll, and fails if its submit was refused. Both are
/// under a lock, since any thread may stage a value at any time, but not the submit: that calls
/// callbacks. wgpu keeps its own lock of signals while it calls the driver, so that this lock may
/// be held for long, and is the system's.
#[cfg(not(target_vendor = "apple"))]
pub(super) struct Signalled {
    on: &'static Opened,
    queue: Box<dyn Deref<Target = hal::vulkan::Queue>>,
    semaphore: vk::Semaphore,
    value: Mutex<u64>,
}

#[cfg(not(target_vendor = "apple"))]
impl Signalled {
    /// `None` on a device that is not Vulkan's.
    pub(super) fn new(on: &'static Opened) -> Result<Option<Signalled>, Stop> {
        // SAFETY: nothing is destroyed through it.
        let Some(queue) = (unsafe { on.queue.as_hal::<hal::api::Vulkan>() }) else {
            return Ok(None);
        };
        let mut kind =
            vk::SemaphoreTypeCreateInfo::default().semaphore_type(vk::SemaphoreType::TIMELINE);
        let info = vk::SemaphoreCreateInfo::default().push_next(&mut kind);
        // SAFETY: the device is alive. The library uses timeline semaphores on it too.
        let semaphore = unsafe { queue.raw_device().create_semaphore(&info, None) };
        let failed = |why| Stop::Failed(format!("vkCreateSemaphore failed: {why}"));
        Ok(Some(Signalled {
            on,
            semaphore: semaphore.map_err(failed)?,
            queue: Box::new(queue),
            value: Mutex::new(0),
        }))
    }

    pub(super) fn submit(&self, work: Option<CommandBuffer>) {
        let mut value = self.lock();
        *value += 1;
        self.queue
            .add_signal_semaphore(self.semaphore, Some(*value));
        drop(value);
        self.on.queue.submit(work);
        let value = self.lock();
        black_box(self.queue.remove_signal_semaphore(self.semaphore));
        drop(value);
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        black_box(&self.value)
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(not(target_vendor = "apple"))]
impl Drop for Signalled {
    fn drop(&mut self) {
        if self.on.wait().is_ok() {
            // SAFETY: made of this device, and what signals it is complete.
            unsafe {
                self.queue
                    .raw_device()
                    .destroy_semaphore(self.semaphore, None)
            };
        }
    }
}

/// Timestamp queries, and where each is read.
///
/// What it costs in wgpu to use a buffer grows with the number of those that the device had before
/// it. So these are made when they are first needed, as those of the library are.
pub(super) struct Queries {
    on: &'static Opened,
    set: QuerySet,
    resolved: Buffer,
    mapped: Vec<Buffer>,
    next: u32,
}

/// More than a turn has.
const QUERIES: u32 = 1024;
const TICKS: u64 = size_of::<u64>() as u64;

impl Queries {
    pub(super) fn new(on: &'static Opened) -> Result<Queries, Stop> {
        let wanted = wgpu::Features::TIMESTAMP_QUERY_INSIDE_ENCODERS;
        if !on.device.features().contains(wanted) {
            return Err(Stop::Failed("this device has no timestamps".into()));
        }
        let size = u64::from(QUERIES) * wgpu::QUERY_RESOLVE_BUFFER_ALIGNMENT;
        Ok(Queries {
            on,
            set: on.device.create_query_set(&wgpu::QuerySetDescriptor {
                label: None,
                ty: wgpu::QueryType::Timestamp,
                count: QUERIES,
            }),
            resolved: on.buffer(size, BufferUsages::QUERY_RESOLVE | BufferUsages::COPY_SRC),
            mapped: Vec::new(),
            next: 0,
        })
    }

    /// Begins again with the first query, since all are over.
    pub(super) fn rewind(&mut self) {
        self.next = 0;
    }

    fn next(&mut self) -> u32 {
        let index = self.next;
        self.next = (index + 1) % QUERIES;
        index
    }

    /// A timestamp that nobody reads.
    pub(super) fn submit(&mut self) {
        let index = self.next();
        let mut encoder = self.on.encoder();
        encoder.write_timestamp(&self.set, index);
        self.on.queue.submit([encoder.finish()]);
    }

    /// A timestamp that comes to the host once it is written, and is read there.
    pub(super) fn submit_and_read(&mut self) {
        let (work, mapped) = self.encode();
        self.on.queue.submit([work]);
        read(&mapped);
    }

    /// The same with what a timed marker needs beside: no error of it is to come to the caller's
    /// handler, and its submit signals.
    #[cfg(not(target_vendor = "apple"))]
    pub(super) fn mark_and_read(&mut self, signalled: &Signalled) {
        let filters = [
            wgpu::ErrorFilter::OutOfMemory,
            wgpu::ErrorFilter::Validation,
        ];
        let scopes = filters.map(|filter| self.on.device.push_error_scope(filter));
        let (work, mapped) = self.encode();
        // The last one pushed is popped first.
        for scope in scopes.into_iter().rev() {
            drop(black_box(scope.pop()));
        }
        signalled.submit(Some(work));
        read(&mapped);
    }

    fn encode(&mut self) -> (CommandBuffer, Buffer) {
        let index = self.next();
        let at = u64::from(index) * wgpu::QUERY_RESOLVE_BUFFER_ALIGNMENT;
        if self.mapped.len() <= index as usize {
            let usage = BufferUsages::MAP_READ | BufferUsages::COPY_DST;
            self.mapped.push(self.on.buffer(TICKS, usage));
        }
        let mapped = &self.mapped[index as usize];
        let mut encoder = self.on.encoder();
        encoder.write_timestamp(&self.set, index);
        encoder.resolve_query_set(&self.set, index..index + 1, &self.resolved, at);
        encoder.copy_buffer_to_buffer(&self.resolved, at, mapped, 0, TICKS);
        (encoder.finish(), mapped.clone())
    }
}

fn read(mapped: &Buffer) {
    let of = mapped.clone();
    mapped.map_async(wgpu::MapMode::Read, .., move |ended| {
        if ended.is_ok() {
            let ticks = of.get_mapped_range(..);
            let _ = black_box(ticks.map(|ticks| ticks.to_vec()));
            of.unmap();
        }
    });
}

/// Work that takes the device some two milliseconds.
pub(super) struct Work {
    on: &'static Opened,
    buffer: Buffer,
    times: usize,
}

const WORK: Duration = Duration::from_millis(2);

impl Work {
    pub(super) fn new(on: &'static Opened) -> Result<Work, Stop> {
        let size = on.device.limits().max_buffer_size.min(16 << 20);
        let mut work = Work {
            on,
            buffer: on.buffer(size, BufferUsages::COPY_DST),
            times: 1,
        };
        while work.takes()? < WORK {
            work.times *= 2;
        }
        Ok(work)
    }

    /// How long one takes, with its submit and a wait: the best of a few, since a busy machine
    /// makes some longer, and the first takes the memory.
    pub(super) fn takes(&self) -> Result<Duration, Stop> {
        let mut best = Duration::MAX;
        for _ in 0..5 {
            let start = Instant::now();
            self.submit();
            self.on.wait()?;
            best = best.min(start.elapsed());
        }
        Ok(best)
    }

    pub(super) fn submit(&self) {
        self.on.queue.submit([self.encode()]);
    }

    fn encode(&self) -> CommandBuffer {
        let mut encoder = self.on.encoder();
        for _ in 0..self.times {
            encoder.clear_buffer(&self.buffer, 0, None);
        }
        encoder.finish()
    }
}
