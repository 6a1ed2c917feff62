//! Semaphores.

use crate::batch::SubmittedBatch;
use crate::table::Child;
use crate::usage::{VkResult, invalid_usage, out_of_host_memory};
use ash::vk::{self, Handle};
use fencepost_sim::Flag;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

#[derive(Debug)]
pub(crate) struct Semaphore {
    pub(crate) device: vk::Device,
    pub(crate) kind: Kind,
}

type Submitted = (u64, Arc<SubmittedBatch>);

#[derive(Debug)]
pub(crate) enum Kind {
    /// The latest signal, pending or executed, if no submitted wait consumes it. Each signal has a
    /// flag of its own.
    Binary(Option<Flag>),
    Timeline {
        sim: fencepost_sim::Semaphore,
        /// For each queue, the signals that may be pending, in the order of their values.
        signals: BTreeMap<vk::Queue, VecDeque<Submitted>>,
        /// The highest value that a submitted wait waits for.
        wait: Option<Submitted>,
    },
}

impl Child for Semaphore {
    fn parent(&self) -> u64 {
        self.device.as_raw()
    }
}

impl Semaphore {
    pub(crate) fn timeline(&self) -> VkResult<&fencepost_sim::Semaphore> {
        match &self.kind {
            Kind::Timeline { sim, .. } => Ok(sim),
            Kind::Binary(_) => Err(invalid_usage("the semaphore is binary")),
        }
    }

    /// The counter's value. It never fails in practice: simulated semaphores are not destroyed
    /// explicitly.
    pub(crate) fn value(&self) -> VkResult<u64> {
        self.timeline()?.value().map_err(out_of_host_memory)
    }

    /// The pending signals: for each queue, the lowest and the highest value.
    pub(crate) fn pending(&self) -> impl Iterator<Item = (vk::Queue, u64, u64)> {
        let signals = match &self.kind {
            Kind::Timeline { signals, .. } => Some(signals),
            Kind::Binary(_) => None,
        };
        let now = self.sim_value();
        signals
            .into_iter()
            .flatten()
            .filter_map(move |(queue, all)| {
                let mut left = all.iter().skip_while(move |signal| executed(signal, now));
                let first = left.next()?.0;
                Some((*queue, first, all.back()?.0))
            })
    }

    fn sim_value(&self) -> u64 {
        match &self.kind {
            Kind::Timeline { sim, .. } => sim.value().unwrap_or(0),
            Kind::Binary(_) => 0,
        }
    }

    /// Checks `maxTimelineSemaphoreValueDifference` against the counter and all pending signals and
    /// waits. Waits that are over are ignored.
    pub(crate) fn check_difference(&self, value: u64, most: u64) -> VkResult {
        let wait = match &self.kind {
            Kind::Timeline { wait, .. } => wait.as_ref(),
            Kind::Binary(_) => None,
        };
        let wait = wait.filter(|(_, submitted)| !submitted.over());
        let all = self.pending().map(|(_, _, highest)| highest);
        let all = all.chain(wait.map(|(value, _)| *value));
        let farthest = all
            .chain([self.value()?])
            .map(|other| other.abs_diff(value))
            .max();
        if farthest.is_some_and(|distance| distance > most) {
            return Err(invalid_usage(&format!(
                "value {value} differs by more than {most} from the counter or a pending value"
            )));
        }
        Ok(())
    }

    /// Checks a signal that is submitted to a queue.
    pub(crate) fn check_signal(&self, queue: vk::Queue, value: u64, most: u64) -> VkResult {
        match &self.kind {
            Kind::Binary(None) => Ok(()),
            Kind::Binary(Some(_)) => Err(invalid_usage(
                "a binary semaphore is signalled again before a wait",
            )),
            Kind::Timeline { .. } => {
                let now = self.value()?;
                let same_queue = self.pending().filter(|(on, ..)| *on == queue);
                let reached = same_queue.map(|(_, _, highest)| highest).chain([now]).max();
                // waits may order signals of other queues, so the simulated device checks those
                // when they run
                if reached.is_some_and(|reached| value <= reached) {
                    let reached = reached.unwrap_or(0);
                    return Err(invalid_usage(&format!(
                        "a timeline semaphore is signalled with {value} after {reached}"
                    )));
                }
                self.check_difference(value, most)
            }
        }
    }

    pub(crate) fn check_wait(&self, value: u64, most: u64) -> VkResult {
        match &self.kind {
            Kind::Binary(Some(_)) => Ok(()),
            Kind::Binary(None) => Err(invalid_usage(
                "a wait for a binary semaphore that has no pending signal",
            )),
            Kind::Timeline { .. } => self.check_difference(value, most),
        }
    }

    /// Records a submitted signal or wait. Removes executed ones, so that memory stays bounded.
    pub(crate) fn submitted(
        &mut self,
        signal: Option<vk::Queue>,
        value: u64,
        submitted: &Arc<SubmittedBatch>,
    ) {
        let now = self.sim_value();
        let Kind::Timeline { signals, wait, .. } = &mut self.kind else {
            return;
        };
        match signal {
            Some(queue) => {
                let all = signals.entry(queue).or_default();
                while all.front().is_some_and(|signal| executed(signal, now)) {
                    all.pop_front();
                }
                all.push_back((value, submitted.clone()));
            }
            None => {
                let higher = |(other, of): &Submitted| *other >= value && !of.over();
                if !wait.as_ref().is_some_and(higher) {
                    *wait = Some((value, submitted.clone()));
                }
            }
        }
    }
}

/// Whether the signal is executed, or its device is lost.
fn executed((value, submitted): &Submitted, now: u64) -> bool {
    *value <= now || submitted.device.lost()
}
