//! Submitting:
//! <https://docs.vulkan.org/spec/latest/chapters/cmdbuffers.html#commandbuffers-submission>.
//!
//! Each command is a batch on the simulated queue, so that commands without a barrier between them
//! run in any order, also across command buffers and submits. A barrier is a flag that is set after
//! everything earlier, and that everything later waits for.

use crate::batch::{SubmitFault, SubmittedBatch};
use crate::buffer::BufferRange;
use crate::command::{Command, blocks_work, new_stages, waits_for_work};
use crate::command_buffer::State;
use crate::device::{Queue, Shared};
use crate::driver::Driver;
use crate::entry::call;
use crate::ffi::{Array, find, slice};
use crate::memory::Span;
use crate::query::query_key;
use crate::semaphore::Kind;
use crate::table::name_of;
use crate::usage::{LOG, VkResult, invalid_usage, out_of_host_memory};
use ash::vk::{self, Handle, PipelineStageFlags2 as Stages};
use fencepost_sim::{Command as Step, Flag, Submission};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A semaphore in a submit.
#[derive(Clone, Copy, Debug)]
struct SemaphoreOp {
    semaphore: vk::Semaphore,
    value: u64,
    stages: Stages,
}

#[derive(Debug, Default)]
struct Batch {
    waits: Vec<SemaphoreOp>,
    buffers: Vec<vk::CommandBuffer>,
    signals: Vec<SemaphoreOp>,
}

/// The queue of a submit, without a borrow of the table.
struct TargetQueue {
    queue: vk::Queue,
    device: vk::Device,
    shared: Arc<Shared>,
    sim: fencepost_sim::Queue,
    family: u32,
    valid_bits: u32,
}

impl TargetQueue {
    fn of(handle: vk::Queue, queue: &Queue) -> TargetQueue {
        TargetQueue {
            queue: handle,
            device: queue.device,
            shared: queue.shared.clone(),
            sim: queue.sim.clone(),
            family: queue.family,
            valid_bits: queue.valid_bits,
        }
    }

    fn send(&self, steps: Vec<Step>) -> VkResult {
        let submission = steps.into_iter().fold(Submission::new(), Submission::then);
        let sent = self.sim.submit(submission);
        // only a lost device refuses a submit
        sent.map(drop).map_err(|_| vk::Result::ERROR_DEVICE_LOST)
    }

    fn mask(&self) -> u64 {
        match self.valid_bits {
            64.. => u64::MAX,
            bits => (1 << bits) - 1,
        }
    }
}

impl Driver {
    fn submit(&mut self, queue: vk::Queue, batches: Vec<Batch>, fence: vk::Fence) -> VkResult {
        let target = TargetQueue::of(queue, self.queues.find(queue)?);
        if !fence.is_null() {
            self.fences.get(target.device, fence)?.check_submit()?;
        }
        target.shared.check()?;
        let fault = self.due_fault();
        for batch in &batches {
            self.check(&target, batch)?;
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

    fn check(&mut self, target: &TargetQueue, batch: &Batch) -> VkResult {
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
                    "a command buffer is submitted that is not recorded",
                ));
            }
        }
        let gone = recorded.uses.iter().find(|used| !self.exists(**used));
        let gone = gone.map(|used| format!("{} was destroyed", name_of(*used)));
        let updated = recorded.sets.iter().find(|(set, version)| {
            let set = self.descriptor_sets.peek(*set);
            set.is_some_and(|set| set.version != *version)
        });
        let updated = updated.map(|(set, _)| format!("{} was updated", name_of(set.as_raw())));
        if let Some(why) = gone.or(updated) {
            self.command_buffers.find_mut(buffer)?.recorded.state = State::Invalid;
            return Err(invalid_usage(&format!(
                "an invalid command buffer is submitted: {why}"
            )));
        }
        Ok(())
    }

    fn enqueue(
        &mut self,
        target: &TargetQueue,
        batch: &Batch,
        fault: Option<SubmitFault>,
    ) -> VkResult {
        let submitted = Arc::new(SubmittedBatch {
            done: self.new_flag(false)?,
            device: target.shared.clone(),
        });
        // waits consume earlier signals, so they are handled before this batch's signals
        let mut early = Vec::new();
        let mut waits = Vec::new();
        for wait in &batch.waits {
            waits.push((blocks_work(wait.stages), self.wait_step(wait, &submitted)?));
        }
        let mut late = Vec::new();
        for signal in &batch.signals {
            let step = self.signal_step(target, signal, &submitted)?;
            match (fault, waits_for_work(signal.stages)) {
                (Some(SubmitFault::Silent), _) => {}
                (_, true) => late.push(step.in_order()),
                (_, false) => early.push(step.immediate()),
            }
        }
        for step in early {
            target.send(vec![step])?;
        }
        // a wait whose stages have no work blocks no work
        let (first, last): (Vec<_>, Vec<_>) = waits.into_iter().partition(|(blocks, _)| *blocks);
        for (_, step) in first {
            target.send(vec![step])?;
        }
        match fault {
            Some(SubmitFault::Hang) => {
                let gate = self.root.new_gate().map_err(out_of_host_memory)?;
                self.hanging.push(gate.clone());
                target.send(vec![Step::gate(&gate)])?;
            }
            Some(SubmitFault::Lose) => target.send(vec![Step::fail("a planned failure")])?,
            _ => {}
        }
        for buffer in &batch.buffers {
            self.enqueue_buffer(target, *buffer, &submitted)?;
        }
        for (_, step) in last {
            target.send(vec![step])?;
        }
        target.send(vec![Step::set_flag(&submitted.done)])?;
        late.into_iter()
            .try_for_each(|step| target.send(vec![step]))
    }

    fn wait_step(&mut self, wait: &SemaphoreOp, submitted: &Arc<SubmittedBatch>) -> VkResult<Step> {
        self.mark_in_use(wait.semaphore.as_raw(), submitted);
        let semaphore = self.semaphores.find_mut(wait.semaphore)?;
        semaphore.submitted(None, wait.value, submitted);
        match &mut semaphore.kind {
            Kind::Timeline { sim, .. } => Ok(Step::wait(sim, wait.value)),
            Kind::Binary(signal) => match signal.take() {
                Some(flag) => Ok(Step::wait_flag(&flag)),
                None => Err(invalid_usage("a binary semaphore is waited for twice")),
            },
        }
    }

    fn signal_step(
        &mut self,
        target: &TargetQueue,
        signal: &SemaphoreOp,
        submitted: &Arc<SubmittedBatch>,
    ) -> VkResult<Signal> {
        self.mark_in_use(signal.semaphore.as_raw(), submitted);
        let fresh = self.new_flag(false)?;
        let semaphore = self.semaphores.find_mut(signal.semaphore)?;
        semaphore.submitted(Some(target.queue), signal.value, submitted);
        Ok(match &mut semaphore.kind {
            Kind::Timeline { sim, .. } => Signal::Timeline(sim.clone(), signal.value),
            Kind::Binary(pending) => {
                *pending = Some(fresh.clone());
                Signal::Binary(fresh)
            }
        })
    }

    fn enqueue_buffer(
        &mut self,
        target: &TargetQueue,
        buffer: vk::CommandBuffer,
        submitted: &Arc<SubmittedBatch>,
    ) -> VkResult {
        self.mark_in_use(buffer.as_raw(), submitted);
        let recorded = &mut self.command_buffers.find_mut(buffer)?.recorded;
        recorded.submitted = true;
        let (commands, uses) = (recorded.commands.clone(), recorded.uses.clone());
        for used in uses {
            self.mark_in_use(used, submitted);
        }
        for command in commands {
            let steps = self.steps(target, command, submitted)?;
            target.send(steps)?;
        }
        Ok(())
    }

    /// The memory of a range that was checked by `range`.
    fn span(&self, buffer: vk::Buffer, range: (u64, u64)) -> VkResult<(Span, vk::DeviceMemory)> {
        let it = self.buffers.find(buffer)?;
        let Some((memory, offset)) = it.bound else {
            return Err(invalid_usage("a buffer has no memory"));
        };
        let whole = Span {
            block: self.memories.get(it.device, memory)?.block.clone(),
            first: offset as usize / 4,
            count: it.size as usize / 4,
        };
        Ok((whole.part(range.0, range.1), memory))
    }

    fn used_span(&mut self, range: BufferRange, submitted: &Arc<SubmittedBatch>) -> VkResult<Span> {
        let (span, memory) = self.span(range.0, range.1)?;
        self.mark_in_use(memory.as_raw(), submitted);
        Ok(span)
    }

    fn steps(
        &mut self,
        target: &TargetQueue,
        command: Command,
        submitted: &Arc<SubmittedBatch>,
    ) -> VkResult<Vec<Step>> {
        Ok(match command {
            Command::Barrier => {
                let flag = self.new_flag(false)?;
                vec![Step::set_flag(&flag), Step::wait_flag(&flag)]
            }
            Command::ResetQueries { pool, first, count } => {
                let it = self.query_pools.find(pool)?;
                let (queries, range) = (it.queries.clone(), it.range(first, count)?);
                for index in range.clone() {
                    self.mark_in_use(query_key(pool, index), submitted);
                }
                // ordered after earlier and before later commands that use the queries
                let flag = self.new_flag(false)?;
                vec![
                    Step::set_flag(&flag),
                    Step::run(move || queries.reset(range)),
                    Step::wait_flag(&flag),
                ]
            }
            Command::Timestamp { pool, index, early } => {
                self.mark_in_use(query_key(pool, index as usize), submitted);
                let queries = self.query_pools.find(pool)?.queries.clone();
                let (index, mask) = (index as usize, target.mask());
                if early {
                    // weak, since work that owned its device would keep the device alive
                    let device = Arc::downgrade(&target.shared);
                    let write = move || {
                        let tick = device.upgrade().map_or(0, |device| device.sim.tick());
                        queries.write(index, tick & mask);
                    };
                    return Ok(vec![Step::run(write)]);
                }
                let query = self.root.new_query().map_err(out_of_host_memory)?;
                let taken = query.clone();
                let write = move || queries.write(index, taken.read().unwrap_or(0) & mask);
                vec![Step::timestamp(&query), Step::run(write)]
            }
            Command::Fill { to, value } => {
                let to = self.used_span(to, submitted)?;
                vec![Step::run(move || store(&to, std::iter::repeat(value)))]
            }
            Command::Update { to, words } => {
                let to = self.used_span(to, submitted)?;
                vec![Step::run(move || store(&to, words))]
            }
            Command::Copy { from, to } => {
                let (from, to) = (
                    self.used_span(from, submitted)?,
                    self.used_span(to, submitted)?,
                );
                vec![Step::run(move || {
                    let words = (0..from.count).filter_map(|index| from.word(index));
                    store(&to, words.map(|word| word.load(Ordering::SeqCst)));
                })]
            }
            Command::Dispatch {
                kernel,
                places,
                push,
                groups,
            } => {
                let mut spans = Vec::new();
                for place in places {
                    spans.push(self.used_span(place, submitted)?);
                }
                let device = Arc::downgrade(&target.shared);
                vec![Step::run(move || kernel.run(&spans, push, groups, &device))]
            }
        })
    }
}

fn store(to: &Span, words: impl IntoIterator<Item = u32>) {
    for (index, word) in (0..to.count).zip(words) {
        if let Some(place) = to.word(index) {
            place.store(word, Ordering::SeqCst);
        }
    }
}

/// The signal of a semaphore.
enum Signal {
    Timeline(fencepost_sim::Semaphore, u64),
    Binary(Flag),
}

impl Signal {
    /// After everything submitted earlier to the queue.
    fn in_order(self) -> Step {
        match self {
            Signal::Timeline(semaphore, value) => Step::signal(&semaphore, value),
            Signal::Binary(flag) => Step::set_flag(&flag),
        }
    }

    /// In any order, since its stages have no work that it must wait for.
    fn immediate(self) -> Step {
        match self {
            Signal::Timeline(semaphore, value) => Step::run(move || {
                // the simulated device records a violation
                let _ = semaphore.signal(value);
            }),
            Signal::Binary(flag) => Step::run(move || flag.set()),
        }
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
