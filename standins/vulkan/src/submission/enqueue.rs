//! Enqueues a batch on the simulated queue.

use crate::batch::{SubmitFault, SubmittedBatch};
use crate::command::{blocks_work, waits_for_work};
use crate::driver::Driver;
use crate::semaphore::Kind;
use crate::submission::{Batch, SemaphoreOp, TargetQueue};
use crate::usage::{VkResult, invalid_usage, out_of_host_memory};
use ash::vk::{self, Handle};
use fencepost_sim::{Command as Step, Flag};
use std::sync::Arc;

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

    /// Without an order, since its stages have no work that it must wait for.
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

impl Driver {
    pub(crate) fn enqueue(
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
        // a wait whose stages have no work blocks no work, so it comes last
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
        let flag = self.new_flag(false)?;
        let semaphore = self.semaphores.find_mut(signal.semaphore)?;
        semaphore.submitted(Some(target.queue), signal.value, submitted);
        Ok(match &mut semaphore.kind {
            Kind::Timeline { sim, .. } => Signal::Timeline(sim.clone(), signal.value),
            Kind::Binary(pending) => {
                *pending = Some(flag.clone());
                Signal::Binary(flag)
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
}
