//! Semaphores:
//! <https://docs.vulkan.org/spec/latest/chapters/synchronization.html#synchronization-semaphores>.

use crate::device::Shared;
use crate::driver::Driver;
use crate::entry::{call, call_then, call_void};
use crate::external_sync::using;
use crate::ffi::{Allocator, In, Out, find, slice, timeout_of};
use crate::semaphore::{Kind, Semaphore};
use crate::usage::{VkResult, invalid_usage, out_of_host_memory};
use ash::vk::{self, Handle};
use fencepost_sim::{WaitFor, Waited};
use std::collections::BTreeMap;

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
        let lost = driver.device(device)?.shared.shows_loss();
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

/// A wait that no loss ends before a submit has told of it.
fn wait_for_submits(
    shared: &Shared,
    which: WaitFor,
    all: &[(&fencepost_sim::Semaphore, u64)],
    timeout: u64,
) -> VkResult {
    let reached = |(semaphore, value): &(&fencepost_sim::Semaphore, u64)| {
        semaphore.value().is_ok_and(|reached| reached >= *value)
    };
    let over = || match which {
        WaitFor::All => all.iter().all(reached),
        WaitFor::Any => all.iter().any(reached),
    };
    let ended = || over() || shared.shows_loss();
    match shared.sim.wait_until(timeout_of(timeout), ended) {
        _ if over() => Ok(()),
        Waited::Reached => Err(vk::Result::ERROR_DEVICE_LOST),
        Waited::TimedOut => Err(vk::Result::TIMEOUT),
    }
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
                    "there must be semaphores and a value for each",
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
            if shared.shows_loss() {
                return Err(vk::Result::ERROR_DEVICE_LOST);
            }
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
            if shared.hides_loss {
                return wait_for_submits(&shared, which, &all, timeout);
            }
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
