//! Submitting:
//! <https://docs.vulkan.org/spec/latest/chapters/cmdbuffers.html#commandbuffers-submission>.
//!
//! Each command becomes a batch of its own on the simulated queue, so that commands without a
//! barrier between them run in any order, across command buffers and submits too. A barrier is a
//! flag that everything earlier sets and everything later waits for.

use crate::boundary::{Array, Done, find, slice};
use crate::calls::{call, misuse};
use crate::command::{Command, Place, holds_work, new_stages, waits_for_work};
use crate::device::{Queue, Shared};
use crate::face::{Face, SubmitFault, Ticket, no_room};
use crate::memory::Span;
use crate::pool::State;
use crate::query::query_key;
use crate::semaphore::Kind;
use crate::table::name_of;
use ash::vk::{self, Handle, PipelineStageFlags2 as Stages};
use fencepost_sim::{Command as Step, Flag, Submission};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A semaphore in a submit.
#[derive(Clone, Copy, Debug)]
struct Named {
    semaphore: vk::Semaphore,
    value: u64,
    stages: Stages,
}

#[derive(Debug, Default)]
struct Batch {
    waits: Vec<Named>,
    buffers: Vec<vk::CommandBuffer>,
    signals: Vec<Named>,
}

/// What the simulated queue needs, without its handle in the table.
struct Target {
    queue: vk::Queue,
    device: vk::Device,
    shared: Arc<Shared>,
    sim: fencepost_sim::Queue,
    family: u32,
    valid_bits: u32,
}

impl Target {
    fn of(handle: vk::Queue, queue: &Queue) -> Target {
        Target {
            queue: handle,
            device: queue.device,
            shared: queue.shared.clone(),
            sim: queue.sim.clone(),
            family: queue.family,
            valid_bits: queue.valid_bits,
        }
    }

    fn send(&self, steps: Vec<Step>) -> Done {
        let submission = steps.into_iter().fold(Submission::new(), Submission::then);
        let sent = self.sim.submit(submission);
        // nothing is refused but by a lost device
        sent.map(drop).map_err(|_| vk::Result::ERROR_DEVICE_LOST)
    }

    fn mask(&self) -> u64 {
        match self.valid_bits {
            64.. => u64::MAX,
            bits => (1 << bits) - 1,
        }
    }
}

impl Face {
    fn submit(&mut self, queue: vk::Queue, batches: Vec<Batch>, fence: vk::Fence) -> Done {
        let target = Target::of(queue, self.queues.find(queue)?);
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

    /// What a test has planned for this submit.
    fn due_fault(&mut self) -> Option<SubmitFault> {
        for (left, _) in &mut self.submit_faults {
            *left = left.saturating_sub(1);
        }
        let due = self.submit_faults.iter().position(|(left, _)| *left == 0)?;
        let fault = self.submit_faults.remove(due).1;
        crate::control::note(&format!("a planned fault of a submit: {fault:?}"));
        Some(fault)
    }

    fn check(&mut self, target: &Target, batch: &Batch) -> Done {
        let most = self.options.max_difference;
        for wait in &batch.waits {
            let semaphore = self.semaphores.get(target.device, wait.semaphore)?;
            semaphore.check_wait(wait.value, most)?;
        }
        for signal in &batch.signals {
            let semaphore = self.semaphores.get(target.device, signal.semaphore)?;
            // the wait of this very batch makes room for the signal
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

    fn check_buffer(&mut self, target: &Target, buffer: vk::CommandBuffer) -> Done {
        let it = self.command_buffers.find(buffer)?;
        let (recorded, pool) = (&it.recorded, it.pool);
        if it.device != target.device {
            return Err(misuse("a command buffer of another device is submitted"));
        }
        if self.command_pools.find(pool)?.family != target.family {
            return Err(misuse(
                "a command buffer of another queue family is submitted",
            ));
        }
        let simultaneous = vk::CommandBufferUsageFlags::SIMULTANEOUS_USE;
        let pending = self.in_use(buffer.as_raw());
        if pending && !recorded.usage.contains(simultaneous) {
            return Err(misuse(
                "a pending command buffer is submitted without SIMULTANEOUS_USE",
            ));
        }
        let once = vk::CommandBufferUsageFlags::ONE_TIME_SUBMIT;
        if recorded.submitted && recorded.usage.contains(once) {
            return Err(misuse(
                "a command buffer with ONE_TIME_SUBMIT is submitted again",
            ));
        }
        match recorded.state {
            State::Executable => {}
            State::Invalid => return Err(misuse("an invalid command buffer is submitted")),
            State::Initial | State::Recording => {
                return Err(misuse("a command buffer is submitted that is not recorded"));
            }
        }
        let gone = recorded.uses.iter().find(|used| !self.is_there(**used));
        let gone = gone.map(|used| format!("{} was destroyed", name_of(*used)));
        let updated = recorded.sets.iter().find(|(set, version)| {
            let set = self.descriptor_sets.peek(*set);
            set.is_some_and(|set| set.version != *version)
        });
        let updated = updated.map(|(set, _)| format!("{} was updated", name_of(set.as_raw())));
        if let Some(why) = gone.or(updated) {
            self.command_buffers.find_mut(buffer)?.recorded.state = State::Invalid;
            return Err(misuse(&format!(
                "an invalid command buffer is submitted: {why}"
            )));
        }
        Ok(())
    }

    fn enqueue(&mut self, target: &Target, batch: &Batch, fault: Option<SubmitFault>) -> Done {
        let ticket = Arc::new(Ticket {
            done: self.new_flag(false)?,
            device: target.shared.clone(),
        });
        // waits take the signals that were submitted before this batch's own
        let mut early = Vec::new();
        let mut waits = Vec::new();
        for wait in &batch.waits {
            waits.push((holds_work(wait.stages), self.wait_step(wait, &ticket)?));
        }
        let mut late = Vec::new();
        for signal in &batch.signals {
            let step = self.signal_step(target, signal, &ticket)?;
            match (fault, waits_for_work(signal.stages)) {
                (Some(SubmitFault::Silent), _) => {}
                (_, true) => late.push(step.in_order()),
                (_, false) => early.push(step.immediate()),
            }
        }
        for step in early {
            target.send(vec![step])?;
        }
        // a wait that holds no stage of work holds no work
        let (first, last): (Vec<_>, Vec<_>) = waits.into_iter().partition(|(holds, _)| *holds);
        for (_, step) in first {
            target.send(vec![step])?;
        }
        match fault {
            Some(SubmitFault::Hang) => {
                let gate = self.root.new_gate().map_err(no_room)?;
                self.hanging.push(gate.clone());
                target.send(vec![Step::gate(&gate)])?;
            }
            Some(SubmitFault::Lose) => target.send(vec![Step::fail("a planned failure")])?,
            _ => {}
        }
        for buffer in &batch.buffers {
            self.enqueue_buffer(target, *buffer, &ticket)?;
        }
        for (_, step) in last {
            target.send(vec![step])?;
        }
        target.send(vec![Step::set_flag(&ticket.done)])?;
        late.into_iter()
            .try_for_each(|step| target.send(vec![step]))
    }

    fn wait_step(&mut self, wait: &Named, ticket: &Arc<Ticket>) -> Done<Step> {
        self.use_by(wait.semaphore.as_raw(), ticket);
        let semaphore = self.semaphores.find_mut(wait.semaphore)?;
        semaphore.submitted(None, wait.value, ticket);
        match &mut semaphore.kind {
            Kind::Timeline { sim, .. } => Ok(Step::wait(sim, wait.value)),
            Kind::Binary(signal) => match signal.take() {
                Some(flag) => Ok(Step::wait_flag(&flag)),
                None => Err(misuse("a binary semaphore is waited for twice")),
            },
        }
    }

    fn signal_step(
        &mut self,
        target: &Target,
        signal: &Named,
        ticket: &Arc<Ticket>,
    ) -> Done<Signal> {
        self.use_by(signal.semaphore.as_raw(), ticket);
        let fresh = self.new_flag(false)?;
        let semaphore = self.semaphores.find_mut(signal.semaphore)?;
        semaphore.submitted(Some(target.queue), signal.value, ticket);
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
        target: &Target,
        buffer: vk::CommandBuffer,
        ticket: &Arc<Ticket>,
    ) -> Done {
        self.use_by(buffer.as_raw(), ticket);
        let recorded = &mut self.command_buffers.find_mut(buffer)?.recorded;
        recorded.submitted = true;
        let (commands, uses) = (recorded.commands.clone(), recorded.uses.clone());
        for used in uses {
            self.use_by(used, ticket);
        }
        for command in commands {
            let steps = self.steps(target, command, ticket)?;
            target.send(steps)?;
        }
        Ok(())
    }

    fn used_span(&mut self, place: Place, ticket: &Arc<Ticket>) -> Done<Span> {
        let (span, memory) = self.span(place.0, place.1)?;
        self.use_by(memory.as_raw(), ticket);
        Ok(span)
    }

    fn steps(
        &mut self,
        target: &Target,
        command: Command,
        ticket: &Arc<Ticket>,
    ) -> Done<Vec<Step>> {
        Ok(match command {
            Command::Barrier => {
                let flag = self.new_flag(false)?;
                vec![Step::set_flag(&flag), Step::wait_flag(&flag)]
            }
            Command::ResetQueries { pool, first, count } => {
                let it = self.query_pools.find(pool)?;
                let (queries, range) = (it.queries.clone(), it.range(first, count)?);
                for index in range.clone() {
                    self.use_by(query_key(pool, index), ticket);
                }
                // after the earlier commands that use the queries, and before the later ones
                let flag = self.new_flag(false)?;
                vec![
                    Step::set_flag(&flag),
                    Step::run(move || queries.reset(range)),
                    Step::wait_flag(&flag),
                ]
            }
            Command::Timestamp { pool, index, early } => {
                self.use_by(query_key(pool, index as usize), ticket);
                let queries = self.query_pools.find(pool)?.queries.clone();
                let (index, mask) = (index as usize, target.mask());
                if early {
                    // weak, since work that owned its device would keep it alive
                    let device = Arc::downgrade(&target.shared);
                    let write = move || {
                        let tick = device.upgrade().map_or(0, |device| device.sim.tick());
                        queries.write(index, tick & mask);
                    };
                    return Ok(vec![Step::run(write)]);
                }
                let query = self.root.new_query().map_err(no_room)?;
                let taken = query.clone();
                let write = move || queries.write(index, taken.read().unwrap_or(0) & mask);
                vec![Step::timestamp(&query), Step::run(write)]
            }
            Command::Fill { to, value } => {
                let to = self.used_span(to, ticket)?;
                vec![Step::run(move || store(&to, std::iter::repeat(value)))]
            }
            Command::Update { to, words } => {
                let to = self.used_span(to, ticket)?;
                vec![Step::run(move || store(&to, words))]
            }
            Command::Copy { from, to } => {
                let (from, to) = (self.used_span(from, ticket)?, self.used_span(to, ticket)?);
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
                    spans.push(self.used_span(place, ticket)?);
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

    /// In any order: its stages are none that work has, so it need not wait for the work.
    fn immediate(self) -> Step {
        match self {
            Signal::Timeline(semaphore, value) => Step::run(move || {
                // what is wrong with it is among the violations of the simulated device
                let _ = semaphore.signal(value);
            }),
            Signal::Binary(flag) => Step::run(move || flag.set()),
        }
    }
}

/// The values for the semaphores of an old submit.
fn values<'a>(count: u32, first: *const u64) -> &'a [u64] {
    // SAFETY: valid usage of VkTimelineSemaphoreSubmitInfo
    unsafe { slice(first, count) }
}

fn old_batch(face: &Face, info: &vk::SubmitInfo<'_>) -> Done<Batch> {
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
                face.semaphores.find(*semaphore)?.kind,
                Kind::Timeline { .. }
            ) && (value.is_none() || values.len() != semaphores.len())
            {
                return Err(misuse("there must be a value for each semaphore"));
            }
            all.push(Named {
                semaphore: *semaphore,
                value: value.unwrap_or(0),
                stages: stages(index),
            });
        }
        Ok(all)
    };
    if stages.len() != waits.len() {
        return Err(misuse("there must be stages for each wait"));
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
    let named = |info: &vk::SemaphoreSubmitInfo<'_>| Named {
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

/// Of a submit, the queue, the fence and the command buffers' pools are nobody else's meanwhile.
fn exclusive(queue: vk::Queue, fence: vk::Fence) -> [u64; 2] {
    [queue.as_raw(), fence.as_raw()]
}

pub(crate) extern "system" fn vkQueueSubmit(
    queue: vk::Queue,
    count: u32,
    infos: Array<'_, vk::SubmitInfo<'_>>,
    fence: vk::Fence,
) -> vk::Result {
    call("vkQueueSubmit", queue, &exclusive(queue, fence), |face| {
        let batches = infos.of(count).iter().map(|info| old_batch(face, info));
        let batches = batches.collect::<Done<Vec<_>>>()?;
        face.submit(queue, batches, fence)
    })
}

fn submit_2(
    name: &'static str,
    queue: vk::Queue,
    infos: &[vk::SubmitInfo2<'_>],
    fence: vk::Fence,
) -> vk::Result {
    call(name, queue, &exclusive(queue, fence), |face| {
        let device = face.device(face.queues.find(queue)?.device)?;
        device.need(device.features.sync2, "synchronization2")?;
        face.submit(queue, infos.iter().map(new_batch).collect(), fence)
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
