//! Fences:
//! <https://docs.vulkan.org/spec/latest/chapters/synchronization.html#synchronization-fences>.

use crate::boundary::{Allocator, Array, Done, In, Out};
use crate::calls::{call, call_then, complain, misuse, using, void};
use crate::device::Shared;
use crate::semaphore::timeout_of;
use crate::table::Child;
use ash::vk::{self, Handle};
use fencepost_sim::{Flag, Waited};

/// Each submission has a flag of its own, so that a late signal never reaches a fence that was
/// reset.
#[derive(Debug)]
pub(crate) struct Fence {
    device: vk::Device,
    pub(crate) flag: Flag,
    pub(crate) submitted: bool,
}

impl Child for Fence {
    fn parent(&self) -> u64 {
        self.device.as_raw()
    }
}

impl Fence {
    /// Whether pending work will signal it.
    pub(crate) fn pending(&self, shared: &Shared) -> bool {
        self.submitted && !self.flag.is_set() && !shared.lost()
    }

    pub(crate) fn check_submit(&self) -> Done {
        if self.flag.is_set() {
            return Err(misuse("the fence is signalled already"));
        }
        if self.submitted {
            return Err(misuse("the fence belongs to an earlier submit"));
        }
        Ok(())
    }
}

pub(crate) extern "system" fn vkCreateFence(
    device: vk::Device,
    info: In<'_, vk::FenceCreateInfo<'_>>,
    _: Allocator<'_>,
    fence: Out<'_, vk::Fence>,
) -> vk::Result {
    call("vkCreateFence", device, &[], |face| {
        let (info, out) = (info.needed()?, fence.needed()?);
        face.device(device)?;
        let flag = face.new_flag(info.flags.contains(vk::FenceCreateFlags::SIGNALED))?;
        out.put(face.fences.insert(Fence {
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
    void("vkDestroyFence", device, &[fence.as_raw()], |face| {
        let shared = face.device(device)?.shared.clone();
        if face.fences.get(device, fence)?.pending(&shared) {
            complain("a fence is destroyed that pending work will signal");
        }
        face.fences.remove(device, fence).map(drop)
    });
}

pub(crate) extern "system" fn vkGetFenceStatus(device: vk::Device, fence: vk::Fence) -> vk::Result {
    call("vkGetFenceStatus", device, &[], |face| {
        let set = face.fences.get(device, fence)?.flag.is_set();
        face.device(device)?.shared.check()?;
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
    call("vkResetFences", device, &exclusive, |face| {
        let shared = face.device(device)?.shared.clone();
        for fence in fences {
            let flag = face.new_flag(false)?;
            let fence = face.fences.get_mut(device, *fence)?;
            if fence.pending(&shared) {
                return Err(misuse("a fence is reset that pending work will signal"));
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
        |face| {
            if fences.is_empty() {
                return Err(misuse("there must be fences"));
            }
            let mut flags = Vec::new();
            for fence in fences {
                flags.push(face.fences.get(device, *fence)?.flag.clone());
            }
            let shared = face.device(device)?.shared.clone();
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
