//! Semaphores:
//! <https://docs.vulkan.org/spec/latest/chapters/synchronization.html#synchronization-semaphores>.

use crate::boundary::{Allocator, Done, In, Out, find, slice};
use crate::calls::{call, call_then, misuse, using, void};
use crate::face::{Face, Ticket, no_room};
use crate::table::Child;
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

type Submitted = (u64, Arc<Ticket>);

#[derive(Debug)]
pub(crate) enum Kind {
    /// The signal that no wait was submitted for yet, if there is one. Each signal has a flag of
    /// its own.
    Binary(Option<Flag>),
    Timeline {
        sim: fencepost_sim::Semaphore,
        /// The signals of each queue that may be pending, oldest first: their values grow.
        signals: BTreeMap<vk::Queue, VecDeque<Submitted>>,
        /// The highest value that is waited for on a queue.
        wait: Option<Submitted>,
    },
}

impl Child for Semaphore {
    fn parent(&self) -> u64 {
        self.device.as_raw()
    }
}

/// No limit at all is said with all bits.
pub(crate) fn timeout_of(ns: u64) -> Option<Duration> {
    (ns != u64::MAX).then(|| Duration::from_nanos(ns))
}

impl Semaphore {
    pub(crate) fn timeline(&self) -> Done<&fencepost_sim::Semaphore> {
        match &self.kind {
            Kind::Timeline { sim, .. } => Ok(sim),
            Kind::Binary(_) => Err(misuse("the semaphore is binary")),
        }
    }

    /// The counter; a destroyed semaphore has left its table, so the simulated one always tells.
    pub(crate) fn value(&self) -> Done<u64> {
        self.timeline()?.value().map_err(no_room)
    }

    /// The signals that have not been executed: of each queue the lowest and the highest.
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

    /// `maxTimelineSemaphoreValueDifference`: from the counter and everything outstanding. The
    /// lowest of that is the counter, since waits below it hold nothing any more.
    fn check_difference(&self, value: u64, most: u64) -> Done {
        let wait = match &self.kind {
            Kind::Timeline { wait, .. } => wait.as_ref(),
            Kind::Binary(_) => None,
        };
        let wait = wait.filter(|(_, ticket)| !ticket.over());
        let all = self.pending().map(|(_, _, highest)| highest);
        let all = all.chain(wait.map(|(value, _)| *value));
        let farthest = all
            .chain([self.value()?])
            .map(|other| other.abs_diff(value))
            .max();
        if farthest.is_some_and(|distance| distance > most) {
            return Err(misuse(&format!(
                "value {value} is more than {most} from the others"
            )));
        }
        Ok(())
    }

    /// A signal that is submitted to a queue.
    pub(crate) fn check_signal(&self, queue: vk::Queue, value: u64, most: u64) -> Done {
        match &self.kind {
            Kind::Binary(None) => Ok(()),
            Kind::Binary(Some(_)) => Err(misuse(
                "a binary semaphore is signalled again before a wait",
            )),
            Kind::Timeline { .. } => {
                let now = self.value()?;
                let same_queue = self.pending().filter(|(on, ..)| *on == queue);
                let reached = same_queue.map(|(_, _, highest)| highest).chain([now]).max();
                // those of other queues may be ordered by waits: what they break shows when the
                // device comes to it
                if reached.is_some_and(|reached| value <= reached) {
                    let reached = reached.unwrap_or(0);
                    return Err(misuse(&format!(
                        "a timeline semaphore is signalled with {value}, and {reached} comes before"
                    )));
                }
                self.check_difference(value, most)
            }
        }
    }

    pub(crate) fn check_wait(&self, value: u64, most: u64) -> Done {
        match &self.kind {
            Kind::Binary(Some(_)) => Ok(()),
            Kind::Binary(None) => Err(misuse(
                "a binary semaphore is waited for that nobody was asked to signal",
            )),
            Kind::Timeline { .. } => self.check_difference(value, most),
        }
    }

    /// Forgets what is executed, so that nothing grows.
    pub(crate) fn submitted(
        &mut self,
        signal: Option<vk::Queue>,
        value: u64,
        ticket: &Arc<Ticket>,
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
                all.push_back((value, ticket.clone()));
            }
            None => {
                let higher = |(other, of): &Submitted| *other >= value && !of.over();
                if !wait.as_ref().is_some_and(higher) {
                    *wait = Some((value, ticket.clone()));
                }
            }
        }
    }
}

/// Or given up with its device.
fn executed((value, ticket): &Submitted, now: u64) -> bool {
    *value <= now || ticket.device.lost()
}

pub(crate) extern "system" fn vkCreateSemaphore(
    device: vk::Device,
    info: In<'_, vk::SemaphoreCreateInfo<'_>>,
    _: Allocator<'_>,
    semaphore: Out<'_, vk::Semaphore>,
) -> vk::Result {
    call("vkCreateSemaphore", device, &[], |face| {
        let (info, out) = (info.needed()?, semaphore.needed()?);
        let owner = face.device(device)?;
        let kind = match find::<vk::SemaphoreTypeCreateInfo<'_>>(info.p_next) {
            Some(it) if it.semaphore_type == vk::SemaphoreType::TIMELINE => {
                owner.need(owner.features.timeline, "timelineSemaphore")?;
                Kind::Timeline {
                    sim: face.root.new_semaphore(it.initial_value).map_err(no_room)?,
                    signals: BTreeMap::new(),
                    wait: None,
                }
            }
            Some(it) if it.initial_value != 0 => {
                return Err(misuse("a binary semaphore has no initial value"));
            }
            _ => Kind::Binary(None),
        };
        out.put(face.semaphores.insert(Semaphore { device, kind }));
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
    void(
        "vkDestroySemaphore",
        device,
        &[semaphore.as_raw()],
        |face| {
            face.semaphores.get(device, semaphore)?;
            face.retire(semaphore);
            face.semaphores.remove(device, semaphore).map(drop)
        },
    );
}

fn counter_value(
    name: &'static str,
    device: vk::Device,
    semaphore: vk::Semaphore,
    value: Out<'_, u64>,
) -> vk::Result {
    call(name, device, &[], |face| {
        let value = value.needed()?;
        let semaphore = face.semaphores.get(device, semaphore)?;
        let now = semaphore.value()?;
        let lost = face.device(device)?.shared.lost();
        value.put(match (lost, face.options.lost_counters) {
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
        |face: &mut Face| {
            let info = info.needed()?;
            let count = info.semaphore_count;
            // SAFETY: valid usage of VkSemaphoreWaitInfo
            let handles = unsafe { slice(info.p_semaphores, count) };
            // SAFETY: as above
            let values = unsafe { slice(info.p_values, count) };
            if handles.is_empty() || values.len() != handles.len() {
                return Err(misuse("there must be semaphores, and a value for each"));
            }
            let most = face.options.max_difference;
            let mut all = Vec::new();
            for (handle, value) in handles.iter().zip(values) {
                let semaphore = face.semaphores.get(device, *handle)?;
                semaphore.check_difference(*value, most)?;
                all.push((semaphore.timeline()?.clone(), *value));
            }
            let shared = face.device(device)?.shared.clone();
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
    call(name, device, &[], |face| {
        let info = info.needed()?;
        let most = face.options.max_difference;
        let semaphore = face.semaphores.get(device, info.semaphore)?;
        let (now, value) = (semaphore.value()?, info.value);
        if value <= now {
            return Err(misuse(&format!(
                "the counter is at {now} and was signalled with {value}"
            )));
        }
        if let Some((_, pending, _)) = semaphore.pending().find(|(_, lowest, _)| value >= *lowest) {
            return Err(misuse(&format!(
                "{value} is signalled by the host while {pending} is pending on a queue"
            )));
        }
        semaphore.check_difference(value, most)?;
        semaphore.timeline()?.signal(value).map_err(no_room)
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
