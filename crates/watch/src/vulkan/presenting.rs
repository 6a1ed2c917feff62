//! Presentation, as `calls` follows the rest: what the presentation engine is given and gives back.

use std::ffi::{CStr, c_void};

use ash::vk::{self, Handle};

use super::{
    calls::{Inside, check, in_chain, list, next, note, of},
    seen::{Awaited, FenceState, Seen, Source},
};

/// `VkPresentWait2InfoKHR`.
#[repr(C)]
pub(crate) struct PresentWait2 {
    kind: vk::StructureType,
    next: *const c_void,
    id: u64,
    timeout: u64,
}

#[cfg(test)]
impl PresentWait2 {
    pub(crate) fn new(id: u64, timeout: u64) -> PresentWait2 {
        PresentWait2 {
            kind: vk::StructureType::from_raw(1_000_480_002),
            next: std::ptr::null(),
            id,
            timeout,
        }
    }
}

/// `PFN_vkWaitForPresent2KHR`.
pub(crate) type WaitForPresent2 =
    unsafe extern "system" fn(vk::Device, vk::SwapchainKHR, *const PresentWait2) -> vk::Result;

/// `VK_STRUCTURE_TYPE_PRESENT_ID_2_KHR`. Its structure is laid out as `VkPresentIdKHR`.
const PRESENT_ID_2: vk::StructureType = vk::StructureType::from_raw(1_000_479_001);

pub(super) unsafe extern "system" fn create_swapchain(
    device: vk::Device,
    info: *const vk::SwapchainCreateInfoKHR<'_>,
    allocator: *const vk::AllocationCallbacks<'_>,
    swapchain: *mut vk::SwapchainKHR,
) -> vk::Result {
    let (number, next) = next!(device, create_swapchain);
    // SAFETY: the arguments are the caller's
    let result = unsafe { next(device, info, allocator, swapchain) };
    if result == vk::Result::SUCCESS {
        // SAFETY: the call has made it
        let handle = unsafe { (*swapchain).as_raw() };
        note(|seen| seen.created_swapchain(number, handle));
    }
    result
}

pub(super) unsafe extern "system" fn destroy_swapchain(
    device: vk::Device,
    swapchain: vk::SwapchainKHR,
    allocator: *const vk::AllocationCallbacks<'_>,
) {
    // SAFETY: the caller passes a device that is alive
    let Some((number, next)) = (unsafe { of(device) }) else {
        return;
    };
    note(|seen| seen.destroyed_swapchain(number, swapchain.as_raw()));
    if let Some(next) = next.destroy_swapchain {
        // SAFETY: the arguments are the caller's
        unsafe { next(device, swapchain, allocator) };
    }
}

/// A present takes the signals of its semaphores. When it is over cannot be seen, so it is no
/// batch. It may have fences, which the presentation engine signals.
pub(super) unsafe extern "system" fn queue_present(
    queue: vk::Queue,
    info: *const vk::PresentInfoKHR<'_>,
) -> vk::Result {
    let (device, next) = next!(queue, queue_present);
    let inside = Inside::enter(c"vkQueuePresentKHR");
    // SAFETY: the arguments are the caller's
    let result = unsafe { next(queue, info) };
    note(|seen| {
        // SAFETY: the caller has passed this structure
        let semaphores = unsafe { list((*info).p_wait_semaphores, (*info).wait_semaphore_count) };
        for semaphore in semaphores {
            seen.wait(device, semaphore.as_raw(), 0);
        }
        let kind = vk::StructureType::SWAPCHAIN_PRESENT_FENCE_INFO_EXT;
        // SAFETY: as above, with its chain
        let fences = unsafe {
            in_chain::<vk::SwapchainPresentFenceInfoEXT<'_>>((*info).p_next, kind)
                .map_or(&[][..], |of| list(of.p_fences, of.swapchain_count))
        };
        for fence in fences {
            seen.set_fence(device, fence.as_raw(), FenceState::Acquire);
        }
        // SAFETY: as above
        unsafe { given_ids(seen, device, &*info) };
        seen.presented(queue.as_raw());
    });
    check(device, result);
    inside.exit(true);
    result
}

/// Writes down the ids that a present gives to its images, so that threads can wait for them.
///
/// # Safety
/// The structure is complete, and its chain.
unsafe fn given_ids(seen: &mut Seen, device: u64, info: &vk::PresentInfoKHR<'_>) {
    for kind in [vk::StructureType::PRESENT_ID_KHR, PRESENT_ID_2] {
        // SAFETY: the caller vouches for it
        let (swapchains, ids) = unsafe {
            let of = in_chain::<vk::PresentIdKHR<'_>>(info.p_next, kind);
            (
                list(info.p_swapchains, info.swapchain_count),
                of.map_or(&[][..], |of| list(of.p_present_ids, of.swapchain_count)),
            )
        };
        for (swapchain, id) in swapchains.iter().zip(ids) {
            seen.presented_as(device, swapchain.as_raw(), *id);
        }
    }
}

/// An image's semaphore and fence are signalled by the presentation engine.
fn acquired(device: u64, semaphore: vk::Semaphore, fence: vk::Fence) {
    note(|seen| {
        let semaphore = seen.semaphore(device, semaphore.as_raw());
        seen.will_signal(semaphore, Source::Acquire);
        seen.set_fence(device, fence.as_raw(), FenceState::Acquire);
    });
}

/// Whether an image was acquired.
fn has_image(result: vk::Result) -> bool {
    [vk::Result::SUCCESS, vk::Result::SUBOPTIMAL_KHR].contains(&result)
}

pub(super) unsafe extern "system" fn acquire_next_image(
    device: vk::Device,
    swapchain: vk::SwapchainKHR,
    timeout: u64,
    semaphore: vk::Semaphore,
    fence: vk::Fence,
    index: *mut u32,
) -> vk::Result {
    let (number, next) = next!(device, acquire_next_image);
    let inside = Inside::wait(c"vkAcquireNextImageKHR", |seen| {
        let number = seen.swapchain(number, swapchain.as_raw())?;
        Some(Awaited::Image(number))
    });
    // SAFETY: the arguments are the caller's
    let result = unsafe { next(device, swapchain, timeout, semaphore, fence, index) };
    if has_image(result) {
        acquired(number, semaphore, fence);
    }
    check(number, result);
    inside.ended(result, |_| {});
    inside.exit(has_image(result));
    result
}

pub(super) unsafe extern "system" fn acquire_next_image2(
    device: vk::Device,
    info: *const vk::AcquireNextImageInfoKHR<'_>,
    index: *mut u32,
) -> vk::Result {
    let (number, next) = next!(device, acquire_next_image2);
    let inside = Inside::wait(c"vkAcquireNextImage2KHR", |seen| {
        // SAFETY: the caller has passed this structure
        let swapchain = unsafe { (*info).swapchain };
        let number = seen.swapchain(number, swapchain.as_raw())?;
        Some(Awaited::Image(number))
    });
    // SAFETY: the arguments are the caller's
    let result = unsafe { next(device, info, index) };
    if has_image(result) {
        // SAFETY: the caller has passed this structure
        let (semaphore, fence) = unsafe { ((*info).semaphore, (*info).fence) };
        acquired(number, semaphore, fence);
    }
    check(number, result);
    inside.ended(result, |_| {});
    inside.exit(has_image(result));
    result
}

/// A thread waits until an image was presented to its user.
fn begin(name: &'static CStr, device: u64, swapchain: vk::SwapchainKHR, id: u64) -> Inside {
    Inside::wait(name, |seen| {
        let number = seen.swapchain(device, swapchain.as_raw())?;
        Some(Awaited::Present(number, id))
    })
}

pub(super) unsafe extern "system" fn wait_for_present(
    device: vk::Device,
    swapchain: vk::SwapchainKHR,
    id: u64,
    timeout: u64,
) -> vk::Result {
    let (number, next) = next!(device, wait_for_present);
    let inside = begin(c"vkWaitForPresentKHR", number, swapchain, id);
    // SAFETY: the arguments are the caller's
    let result = unsafe { next(device, swapchain, id, timeout) };
    check(number, result);
    inside.waited(result, |_| {});
    result
}

pub(super) unsafe extern "system" fn wait_for_present2(
    device: vk::Device,
    swapchain: vk::SwapchainKHR,
    info: *const PresentWait2,
) -> vk::Result {
    let (number, next) = next!(device, wait_for_present2);
    // SAFETY: the caller has passed this structure
    let id = unsafe { (*info).id };
    let inside = begin(c"vkWaitForPresent2KHR", number, swapchain, id);
    // SAFETY: the arguments are the caller's
    let result = unsafe { next(device, swapchain, info) };
    check(number, result);
    inside.waited(result, |_| {});
    result
}
