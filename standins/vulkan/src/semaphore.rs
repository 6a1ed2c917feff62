//! Semaphores:
//! <https://docs.vulkan.org/spec/latest/chapters/synchronization.html#synchronization-semaphores>.

use crate::driver::{Driver, SubmittedBatch, out_of_host_memory};
use crate::entry::{call, call_then, call_void, using};
use crate::ffi::{Allocator, In, Out, find, slice};
use crate::table::Child;
use crate::usage::{VkResult, invalid_usage};
use ash::vk::{self, Handle};
use fencepost_sim::{Flag, WaitFor, Waited};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug)]
pub(crate) struct Semaphore {
    device: vk::Device,
    pub(crate) kind: Kind,
}

type Submitted = (u64, Arc<SubmittedBatch>);

#[derive(Debug)]
pub(crate) enum Kind {
    /// The pending or executed signal that no submitted wait consumes, if any. Each signal has its
    /// own flag.
    Binary(Option<Flag>),
    Timeline {
        sim: fencepost_sim::Semaphore,
        /// The signals of each queue that may be pending, oldest first. Their values grow.
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

/// A timeout of all bits is no limit.
pub(crate) fn timeout_of(ns: u64) -> Option<Duration> {
    (ns != u64::MAX).then(|| Duration::from_nanos(ns))
}

impl Semaphore {
    pub(crate) fn timeline(&self) -> VkResult<&fencepost_sim::Semaphore> {
        match &self.kind {
            Kind::Timeline { sim, .. } => Ok(sim),
            Kind::Binary(_) => Err(invalid_usage("the semaphore is binary")),
        }
    }

    /// The counter. The simulated semaphore is never destroyed explicitly, so it always has a value.
    pub(crate) fn value(&self) -> VkResult<u64> {
        self.timeline()?.value().map_err(out_of_host_memory)
    }

    /// The pending signals: for each queue, the lowest and the highest value.
    fn pending(&self) -> impl Iterator<Item = (vk::Queue, u64, u64)> {
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
    /// waits. Waits below the counter no longer matter.
    fn check_difference(&self, value: u64, most: u64) -> VkResult {
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
                "value {value} is more than {most} from the others"
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
                // signals of other queues may be ordered by waits, so the simulated device checks
                // them when they run
                if reached.is_some_and(|reached| value <= reached) {
                    let reached = reached.unwrap_or(0);
                    return Err(invalid_usage(&format!(
                        "a timeline semaphore is signalled with {value}, and {reached} comes before"
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
                "a binary semaphore is waited for that nobody was asked to signal",
            )),
            Kind::Timeline { .. } => self.check_difference(value, most),
        }
    }

    /// Records a submitted signal or wait, and removes executed ones, so that memory stays bounded.
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

pub(crate) extern "system" fn vkCreateSemaphore(
    device: vk::Device,
    info: In<'_, vk::SemaphoreCreateInfo<'_>>,
    _: Allocator<'_>,
    semaphore: Out<'_, vk::Semaphore>,
) -> vk::Result {
    call("vkCreateSemaphore", device, &[], |driver| {
        let (info, out) = (info.required()?, semaphore.required()?);
        let owner = driver.device(device)?;
        let kind = match find::<vk::SemaphoreTypeCreateInfo<'_>>(info.p_next) {
            Some(it) if it.semaphore_type == vk::SemaphoreType::TIMELINE => {
                owner.need(owner.features.timeline, "timelineSemaphore")?;
                Kind::Timeline {
                    sim: driver
                        .root
                        .new_semaphore(it.initial_value)
                        .map_err(out_of_host_memory)?,
                    signals: BTreeMap::new(),
                    wait: None,
                }
            }
            Some(it) if it.initial_value != 0 => {
                return Err(invalid_usage("a binary semaphore has no initial value"));
            }
            _ => Kind::Binary(None),
        };
        out.put(driver.semaphores.insert(Semaphore { device, kind }));
        Ok(())
    })
}

pub(crate) extern "system" fn vkDestroySemaphore(
    device: vk::Device,
    semaphore: vk::Semaphore,
    _: Allocator<'_>,
) {
    if semaphore.is_null() {
        return;
    }
    call_void(
        "vkDestroySemaphore",
        device,
        &[semaphore.as_raw()],
        |driver| {
            driver.semaphores.get(device, semaphore)?;
            driver.check_unused(semaphore);
            driver.semaphores.remove(device, semaphore).map(drop)
        },
    );
}

fn counter_value(
    name: &'static str,
    device: vk::Device,
    semaphore: vk::Semaphore,
    value: Out<'_, u64>,
) -> vk::Result {
    call(name, device, &[], |driver| {
        let value = value.required()?;
        let semaphore = driver.semaphores.get(device, semaphore)?;
        let now = semaphore.value()?;
        let lost = driver.device(device)?.shared.lost();
        value.put(match (lost, driver.options.lost_counters) {
            (true, 0) => return Err(vk::Result::ERROR_DEVICE_LOST),
            (true, 1) => u64::MAX,
            _ => now,
        });
        Ok(())
    })
}

pub(crate) extern "system" fn vkGetSemaphoreCounterValue(
    device: vk::Device,
    semaphore: vk::Semaphore,
    value: Out<'_, u64>,
) -> vk::Result {
    counter_value("vkGetSemaphoreCounterValue", device, semaphore, value)
}

pub(crate) extern "system" fn vkGetSemaphoreCounterValueKHR(
    device: vk::Device,
    semaphore: vk::Semaphore,
    value: Out<'_, u64>,
) -> vk::Result {
    counter_value("vkGetSemaphoreCounterValueKHR", device, semaphore, value)
}

fn wait(
    name: &'static str,
    device: vk::Device,
    info: In<'_, vk::SemaphoreWaitInfo<'_>>,
    timeout: u64,
) -> vk::Result {
    call_then(
        name,
        device,
        &[],
        |driver: &mut Driver| {
            let info = info.required()?;
            let count = info.semaphore_count;
            // SAFETY: valid usage of VkSemaphoreWaitInfo
            let handles = unsafe { slice(info.p_semaphores, count) };
            // SAFETY: as above
            let values = unsafe { slice(info.p_values, count) };
            if handles.is_empty() || values.len() != handles.len() {
                return Err(invalid_usage(
                    "there must be semaphores, and a value for each",
                ));
            }
            let most = driver.options.max_difference;
            let mut all = Vec::new();
            for (handle, value) in handles.iter().zip(values) {
                let semaphore = driver.semaphores.get(device, *handle)?;
                semaphore.check_difference(*value, most)?;
                all.push((semaphore.timeline()?.clone(), *value));
            }
            let shared = driver.device(device)?.shared.clone();
            shared.check()?;
            let which = if info.flags.contains(vk::SemaphoreWaitFlags::ANY) {
                WaitFor::Any
            } else {
                WaitFor::All
            };
            let using = using(handles.iter().map(|handle| handle.as_raw()));
            Ok((shared, which, all, using))
        },
        |(shared, which, all, _using)| {
            let all: Vec<_> = all
                .iter()
                .map(|(semaphore, value)| (semaphore, *value))
                .collect();
            match shared.sim.wait_semaphores(which, &all, timeout_of(timeout)) {
                Ok(Waited::Reached) => Ok(()),
                Ok(Waited::TimedOut) => Err(vk::Result::TIMEOUT),
                Err(_) => Err(vk::Result::ERROR_DEVICE_LOST),
            }
        },
    )
}

pub(crate) extern "system" fn vkWaitSemaphores(
    device: vk::Device,
    info: In<'_, vk::SemaphoreWaitInfo<'_>>,
    timeout: u64,
) -> vk::Result {
    wait("vkWaitSemaphores", device, info, timeout)
}

pub(crate) extern "system" fn vkWaitSemaphoresKHR(
    device: vk::Device,
    info: In<'_, vk::SemaphoreWaitInfo<'_>>,
    timeout: u64,
) -> vk::Result {
    wait("vkWaitSemaphoresKHR", device, info, timeout)
}

fn signal(
    name: &'static str,
    device: vk::Device,
    info: In<'_, vk::SemaphoreSignalInfo<'_>>,
) -> vk::Result {
    call(name, device, &[], |driver| {
        let info = info.required()?;
        let most = driver.options.max_difference;
        let semaphore = driver.semaphores.get(device, info.semaphore)?;
        let (now, value) = (semaphore.value()?, info.value);
        if value <= now {
            return Err(invalid_usage(&format!(
                "the counter is at {now} and was signalled with {value}"
            )));
        }
        if let Some((_, pending, _)) = semaphore.pending().find(|(_, lowest, _)| value >= *lowest) {
            return Err(invalid_usage(&format!(
                "{value} is signalled by the host while {pending} is pending on a queue"
            )));
        }
        semaphore.check_difference(value, most)?;
        semaphore
            .timeline()?
            .signal(value)
            .map_err(out_of_host_memory)
    })
}

pub(crate) extern "system" fn vkSignalSemaphore(
    device: vk::Device,
    info: In<'_, vk::SemaphoreSignalInfo<'_>>,
) -> vk::Result {
    signal("vkSignalSemaphore", device, info)
}

pub(crate) extern "system" fn vkSignalSemaphoreKHR(
    device: vk::Device,
    info: In<'_, vk::SemaphoreSignalInfo<'_>>,
) -> vk::Result {
    signal("vkSignalSemaphoreKHR", device, info)
}
