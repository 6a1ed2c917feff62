//! Fences:
//! <https://docs.vulkan.org/spec/latest/chapters/synchronization.html#synchronization-fences>.

use crate::entry::{call, call_then, call_void};
use crate::external_sync::using;
use crate::fence::Fence;
use crate::ffi::{Allocator, Array, In, Out, timeout_of};
use crate::usage::{invalid_usage, report_invalid_usage};
use ash::vk::{self, Handle};
use fencepost_sim::{Flag, Waited};

pub(crate) extern "system" fn vkCreateFence(
    device: vk::Device,
    info: In<'_, vk::FenceCreateInfo<'_>>,
    _: Allocator<'_>,
    fence: Out<'_, vk::Fence>,
) -> vk::Result {
    call("vkCreateFence", device, &[], |driver| {
        let (info, out) = (info.required()?, fence.required()?);
        driver.device(device)?;
        let flag = driver.new_flag(info.flags.contains(vk::FenceCreateFlags::SIGNALED))?;
        out.put(driver.fences.insert(Fence {
            device,
            flag,
            submitted: false,
        }));
        Ok(())
    })
}

pub(crate) extern "system" fn vkDestroyFence(
    device: vk::Device,
    fence: vk::Fence,
    _: Allocator<'_>,
) {
    if fence.is_null() {
        return;
    }
    call_void("vkDestroyFence", device, &[fence.as_raw()], |driver| {
        let shared = driver.device(device)?.shared.clone();
        if driver.fences.get(device, fence)?.pending(&shared) {
            report_invalid_usage("a fence is destroyed while pending work will signal it");
        }
        driver.fences.remove(device, fence).map(drop)
    });
}

pub(crate) extern "system" fn vkGetFenceStatus(device: vk::Device, fence: vk::Fence) -> vk::Result {
    call("vkGetFenceStatus", device, &[], |driver| {
        let set = driver.fences.get(device, fence)?.flag.is_set();
        driver.device(device)?.shared.check()?;
        if set {
            Ok(())
        } else {
            Err(vk::Result::NOT_READY)
        }
    })
}

pub(crate) extern "system" fn vkResetFences(
    device: vk::Device,
    count: u32,
    fences: Array<'_, vk::Fence>,
) -> vk::Result {
    let fences = fences.of(count);
    let exclusive: Vec<u64> = fences.iter().map(|fence| fence.as_raw()).collect();
    call("vkResetFences", device, &exclusive, |driver| {
        let shared = driver.device(device)?.shared.clone();
        for fence in fences {
            let flag = driver.new_flag(false)?;
            let fence = driver.fences.get_mut(device, *fence)?;
            if fence.pending(&shared) {
                return Err(invalid_usage(
                    "a fence is reset while pending work will signal it",
                ));
            }
            (fence.flag, fence.submitted) = (flag, false);
        }
        Ok(())
    })
}

pub(crate) extern "system" fn vkWaitForFences(
    device: vk::Device,
    count: u32,
    fences: Array<'_, vk::Fence>,
    all: vk::Bool32,
    timeout: u64,
) -> vk::Result {
    let fences = fences.of(count);
    call_then(
        "vkWaitForFences",
        device,
        &[],
        |driver| {
            if fences.is_empty() {
                return Err(invalid_usage("there are no fences"));
            }
            let mut flags = Vec::new();
            for fence in fences {
                flags.push(driver.fences.get(device, *fence)?.flag.clone());
            }
            let shared = driver.device(device)?.shared.clone();
            shared.check()?;
            let using = using(fences.iter().map(|fence| fence.as_raw()));
            Ok((shared, flags, using))
        },
        |(shared, flags, _using)| {
            let over = || match all {
                0 => flags.iter().any(Flag::is_set),
                _ => flags.iter().all(Flag::is_set),
            };
            let ended = || over() || shared.lost();
            match shared.sim.wait_until(timeout_of(timeout), ended) {
                _ if over() => Ok(()),
                Waited::Reached => Err(vk::Result::ERROR_DEVICE_LOST),
                Waited::TimedOut => Err(vk::Result::TIMEOUT),
            }
        },
    )
}
