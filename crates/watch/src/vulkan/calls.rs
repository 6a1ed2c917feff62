//! What is called in place of the functions of a device, on the threads of the program. Each calls
//! the next layer's function with the caller's own arguments, and writes down what came of it.

use std::{
    ffi::{CStr, c_int, c_void},
    sync::{Arc, atomic::Ordering},
};

use ash::vk::{self, Handle};

use super::{
    FOLLOWS,
    functions::{self, Functions},
    seen::{Awaited, FenceState, Kind, SEEN, Seen, Wait, name},
};
use crate::{
    asked::Asked,
    callback::guarded,
    threads::{self, Here, Thread},
};

/// What the driver is being asked about.
pub(crate) static ASKED: Asked = Asked::new();

/// Writes to what was seen, if calls are followed.
pub(super) fn note(write: impl FnOnce(&mut Seen)) {
    if FOLLOWS.load(Ordering::Relaxed) {
        guarded(|| write(&mut SEEN.lock()));
    }
}

/// A call that a thread is in.
pub(super) struct Inside(Option<&'static Thread>);

impl Inside {
    pub(super) fn enter(name: &'static CStr) -> Inside {
        let mut inside = Inside(None);
        if FOLLOWS.load(Ordering::Relaxed) {
            guarded(|| inside.0 = threads::here(Here::thread));
        }
        if let Some(thread) = inside.0 {
            thread.enter_vulkan(name);
        }
        inside
    }

    /// As `enter`, of a call that waits for what `awaited` says. A program that waits for the same
    /// again and again, for a while each time, has waited since the first.
    pub(super) fn wait(
        name: &'static CStr,
        awaited: impl FnOnce(&Seen) -> Option<Awaited>,
    ) -> Inside {
        let inside = Inside::enter(name);
        let Some(thread) = inside.0 else {
            return inside;
        };
        guarded(|| {
            let mut seen = SEEN.lock();
            let awaited = awaited(&seen);
            let threads = &mut seen.state.threads;
            let tid = thread.tid.load(Ordering::Relaxed);
            if awaited.is_some() && threads.get(&tid) == awaited.as_ref() {
                thread.goes_on();
            } else if let Some(awaited) = awaited {
                thread.begins();
                threads.insert(tid, awaited);
            }
        });
        inside
    }

    /// The call has returned. It has moved something if work was submitted or a value signalled.
    pub(super) fn exit(self, moves: bool) {
        if let Some(thread) = self.0 {
            thread.exit_vulkan(moves);
        }
    }

    /// The call has returned from its wait. `write` writes down what is complete.
    pub(super) fn waited(self, result: vk::Result, write: impl FnOnce(&mut Seen)) {
        self.ended(result, write);
        self.exit(false);
    }

    /// As `waited`, while the thread is still inside.
    pub(super) fn ended(&self, result: vk::Result, write: impl FnOnce(&mut Seen)) {
        if let Some(thread) = self.0
            && result != vk::Result::TIMEOUT
        {
            note(|seen| {
                seen.state
                    .threads
                    .remove(&thread.tid.load(Ordering::Relaxed));
                if result == vk::Result::SUCCESS {
                    write(seen);
                }
            });
        }
    }
}

/// The device of a handle that the program passes; its functions are there, or their names would
/// not have been found.
macro_rules! next {
    ($handle:expr, $field:ident) => {{
        // SAFETY: the caller passes a handle that is alive
        let device = unsafe { crate::vulkan::functions::device_of($handle) };
        match device.as_ref().and_then(|device| device.next.$field) {
            Some(next) => (device.map_or(0, |device| device.number), next),
            None => return vk::Result::ERROR_INITIALIZATION_FAILED,
        }
    }};
}
pub(super) use next;

/// A device may be lost at any call.
pub(super) fn check(device: u64, result: vk::Result) {
    if result == vk::Result::ERROR_DEVICE_LOST {
        note(|seen| seen.lost_device(device));
    }
}

/// What a pointer and a count name.
///
/// # Safety
/// The pointer is to that many, which live as long as the caller says.
pub(super) unsafe fn list<'a, T>(pointer: *const T, count: u32) -> &'a [T] {
    match pointer.is_null() {
        true => &[],
        // SAFETY: the caller vouches for it
        false => unsafe { std::slice::from_raw_parts(pointer, count as usize) },
    }
}

/// A structure of the chain behind `next`.
///
/// # Safety
/// `next` begins a chain of Vulkan's structures, and `T` is that of this kind.
pub(super) unsafe fn in_chain<'a, T>(
    mut next: *const c_void,
    kind: vk::StructureType,
) -> Option<&'a T> {
    while !next.is_null() {
        let base = next.cast::<vk::BaseInStructure<'_>>();
        // SAFETY: every structure of the chain begins so
        let (found, after) = unsafe { ((*base).s_type, (*base).p_next) };
        if found == kind {
            // SAFETY: the caller vouches for it
            return unsafe { next.cast::<T>().as_ref() };
        }
        next = after.cast();
    }
    None
}

/// The values of the timeline semaphores of a submit: for its waits, and for its signals.
///
/// # Safety
/// `next` begins a chain of Vulkan's structures.
unsafe fn values<'a>(next: *const c_void) -> (&'a [u64], &'a [u64]) {
    let kind = vk::StructureType::TIMELINE_SEMAPHORE_SUBMIT_INFO;
    // SAFETY: the caller vouches for it
    let info = unsafe { in_chain::<vk::TimelineSemaphoreSubmitInfo<'_>>(next, kind) };
    let Some(info) = info else {
        return (&[], &[]);
    };
    // SAFETY: the structure has these counts
    unsafe {
        (
            list(
                info.p_wait_semaphore_values,
                info.wait_semaphore_value_count,
            ),
            list(
                info.p_signal_semaphore_values,
                info.signal_semaphore_value_count,
            ),
        )
    }
}

/// Each with its value, or 0.
fn with_values<'a>(
    semaphores: &'a [vk::Semaphore],
    values: &'a [u64],
) -> impl Iterator<Item = (u64, u64)> + 'a {
    let values = values.iter().copied().chain(std::iter::repeat(0));
    semaphores
        .iter()
        .zip(values)
        .map(|(semaphore, value)| (semaphore.as_raw(), value))
}

/// A queue to which a call has submitted.
struct Submits<'a> {
    seen: &'a mut Seen,
    device: u64,
    queue: u64,
}

impl Submits<'_> {
    fn batch(
        &mut self,
        kind: Kind,
        waits: impl Iterator<Item = (u64, u64)>,
        signals: impl Iterator<Item = (u64, u64)>,
    ) {
        let waits: Vec<Wait> = waits
            .filter_map(|(semaphore, value)| self.seen.wait(self.device, semaphore, value))
            .collect();
        self.seen.submit(self.queue, kind, waits);
        for (semaphore, value) in signals {
            self.seen.signal(self.queue, self.device, semaphore, value);
        }
    }

    /// A batch whose timeline semaphores have their values in the chain behind `next`.
    ///
    /// # Safety
    /// `next` begins a chain of Vulkan's structures.
    unsafe fn batch_with_chain(
        &mut self,
        kind: Kind,
        waits: &[vk::Semaphore],
        signals: &[vk::Semaphore],
        next: *const c_void,
    ) {
        // SAFETY: the caller vouches for it
        let (wait_values, signal_values) = unsafe { values(next) };
        let waits = with_values(waits, wait_values);
        self.batch(kind, waits, with_values(signals, signal_values));
    }
}

/// Writes down what a call is about to submit: a driver may not return from the call before what it
/// waits for has come. Returns the queue, and how many batches it had before.
fn submit(
    device: u64,
    queue: vk::Queue,
    is_fence_alone: bool,
    batches: impl FnOnce(&mut Submits<'_>),
) -> Option<(u64, u64)> {
    let mut before = None;
    note(|seen| {
        let Some(queue) = seen.queue(queue.as_raw()) else {
            return;
        };
        before = seen
            .state
            .queues
            .get(&queue)
            .map(|of| (queue, of.submitted));
        batches(&mut Submits {
            seen,
            device,
            queue,
        });
        if is_fence_alone {
            seen.submit(queue, Kind::Fence, Vec::new());
        }
    });
    before
}

/// The call of `count` batches has returned: if it has failed, it has submitted nothing. Nobody
/// asks for its fence before.
fn submitted(
    device: u64,
    before: Option<(u64, u64)>,
    (count, fence): (u32, vk::Fence),
    result: vk::Result,
    inside: Inside,
) {
    if let Some((queue, before)) = before {
        note(|seen| match result {
            vk::Result::SUCCESS if fence.is_null() => {}
            vk::Result::SUCCESS => seen.submit_fence(queue, device, fence.as_raw()),
            _ => seen.take_back(queue, before),
        });
    }
    check(device, result);
    // An empty call moves nothing: by such calls, the waits of fencepost look for a lost device.
    let has_submitted = count != 0 || !fence.is_null();
    inside.exit(result == vk::Result::SUCCESS && has_submitted);
}

pub(super) unsafe extern "system" fn queue_submit(
    queue: vk::Queue,
    count: u32,
    infos: *const vk::SubmitInfo<'_>,
    fence: vk::Fence,
) -> vk::Result {
    let (device, next) = next!(queue, queue_submit);
    let inside = Inside::enter(c"vkQueueSubmit");
    let before = submit(device, queue, count == 0 && !fence.is_null(), |to| {
        // SAFETY: the caller has passed these structures
        for info in unsafe { list(infos, count) } {
            // SAFETY: as above
            unsafe {
                let waits = list(info.p_wait_semaphores, info.wait_semaphore_count);
                let signals = list(info.p_signal_semaphores, info.signal_semaphore_count);
                to.batch_with_chain(Kind::Submit, waits, signals, info.p_next);
            }
        }
    });
    // SAFETY: the arguments are the caller's
    let result = unsafe { next(queue, count, infos, fence) };
    submitted(device, before, (count, fence), result, inside);
    result
}

pub(super) unsafe extern "system" fn queue_submit2(
    queue: vk::Queue,
    count: u32,
    infos: *const vk::SubmitInfo2<'_>,
    fence: vk::Fence,
) -> vk::Result {
    let (device, next) = next!(queue, queue_submit2);
    let inside = Inside::enter(c"vkQueueSubmit2");
    let before = submit(device, queue, count == 0 && !fence.is_null(), |to| {
        // SAFETY: the caller has passed these structures
        for info in unsafe { list(infos, count) } {
            // SAFETY: as above
            let (waits, signals) = unsafe {
                (
                    list(info.p_wait_semaphore_infos, info.wait_semaphore_info_count),
                    list(
                        info.p_signal_semaphore_infos,
                        info.signal_semaphore_info_count,
                    ),
                )
            };
            let of = |info: &vk::SemaphoreSubmitInfo<'_>| (info.semaphore.as_raw(), info.value);
            let signals = signals.iter().map(of);
            to.batch(Kind::Submit, waits.iter().map(of), signals);
        }
    });
    // SAFETY: the arguments are the caller's
    let result = unsafe { next(queue, count, infos, fence) };
    submitted(device, before, (count, fence), result, inside);
    result
}

pub(super) unsafe extern "system" fn queue_bind_sparse(
    queue: vk::Queue,
    count: u32,
    infos: *const vk::BindSparseInfo<'_>,
    fence: vk::Fence,
) -> vk::Result {
    let (device, next) = next!(queue, queue_bind_sparse);
    let inside = Inside::enter(c"vkQueueBindSparse");
    let before = submit(device, queue, count == 0 && !fence.is_null(), |to| {
        // SAFETY: the caller has passed these structures
        for info in unsafe { list(infos, count) } {
            // SAFETY: as above
            unsafe {
                let waits = list(info.p_wait_semaphores, info.wait_semaphore_count);
                let signals = list(info.p_signal_semaphores, info.signal_semaphore_count);
                to.batch_with_chain(Kind::SparseBinding, waits, signals, info.p_next);
            }
        }
    });
    // SAFETY: the arguments are the caller's
    let result = unsafe { next(queue, count, infos, fence) };
    submitted(device, before, (count, fence), result, inside);
    result
}

pub(super) unsafe extern "system" fn queue_wait_idle(queue: vk::Queue) -> vk::Result {
    let (device, next) = next!(queue, queue_wait_idle);
    let mut until = None;
    let inside = Inside::wait(c"vkQueueWaitIdle", |seen| {
        let number = seen.queue(queue.as_raw())?;
        until = Some((number, seen.state.queues.get(&number)?.submitted));
        Some(Awaited::Queue(number))
    });
    // SAFETY: the arguments are the caller's
    let result = unsafe { next(queue) };
    check(device, result);
    inside.waited(result, |seen| {
        if let Some((queue, position)) = until {
            seen.completed(queue, position);
        }
    });
    result
}

pub(super) unsafe extern "system" fn device_wait_idle(device: vk::Device) -> vk::Result {
    let (number, next) = next!(device, device_wait_idle);
    let mut until = Vec::new();
    let inside = Inside::wait(c"vkDeviceWaitIdle", |seen| {
        let queues = seen.state.queues.values();
        let queues = queues.filter(|queue| queue.device == number);
        until.extend(queues.map(|queue| (queue.number, queue.submitted)));
        Some(Awaited::Device(number))
    });
    // SAFETY: the arguments are the caller's
    let result = unsafe { next(device) };
    check(number, result);
    inside.waited(result, |seen| {
        for (queue, position) in until {
            seen.completed(queue, position);
        }
    });
    result
}

pub(super) unsafe extern "system" fn get_device_queue(
    device: vk::Device,
    family: u32,
    index: u32,
    queue: *mut vk::Queue,
) {
    // SAFETY: the caller passes a device that is alive
    let Some((number, next)) = (unsafe { of(device) }) else {
        return;
    };
    if let Some(next) = next.get_device_queue {
        // SAFETY: the arguments are the caller's
        unsafe { next(device, family, index, queue) };
        // SAFETY: the call has written it
        let handle = unsafe { (*queue).as_raw() };
        note(|seen| seen.got_queue(number, handle, family));
    }
}

pub(super) unsafe extern "system" fn get_device_queue2(
    device: vk::Device,
    info: *const vk::DeviceQueueInfo2<'_>,
    queue: *mut vk::Queue,
) {
    // SAFETY: the caller passes a device that is alive
    let Some((number, next)) = (unsafe { of(device) }) else {
        return;
    };
    if let Some(next) = next.get_device_queue2 {
        // SAFETY: the arguments are the caller's
        unsafe { next(device, info, queue) };
        // SAFETY: the call has written the one, and the caller the other
        let (handle, family) = unsafe { ((*queue).as_raw(), (*info).queue_family_index) };
        note(|seen| seen.got_queue(number, handle, family));
    }
}

/// The number of a device, and what the next layer has for it.
///
/// # Safety
/// The device is alive.
pub(super) unsafe fn of(device: vk::Device) -> Option<(u64, Arc<Functions>)> {
    // SAFETY: the caller vouches for it
    let device = unsafe { functions::device_of(device) }?;
    Some((device.number, device.next))
}

pub(super) unsafe extern "system" fn create_semaphore(
    device: vk::Device,
    info: *const vk::SemaphoreCreateInfo<'_>,
    allocator: *const vk::AllocationCallbacks<'_>,
    semaphore: *mut vk::Semaphore,
) -> vk::Result {
    let (number, next) = next!(device, create_semaphore);
    // SAFETY: the arguments are the caller's
    let result = unsafe { next(device, info, allocator, semaphore) };
    if result == vk::Result::SUCCESS {
        note(|seen| {
            // SAFETY: the call has made it, and the caller has passed the structure's chain
            let (handle, kind, exported) = unsafe {
                let next = (*info).p_next;
                let kind = vk::StructureType::SEMAPHORE_TYPE_CREATE_INFO;
                let kind = in_chain::<vk::SemaphoreTypeCreateInfo<'_>>(next, kind);
                let exported = vk::StructureType::EXPORT_SEMAPHORE_CREATE_INFO;
                let exported = in_chain::<vk::ExportSemaphoreCreateInfo<'_>>(next, exported);
                ((*semaphore).as_raw(), kind, exported)
            };
            let value = kind
                .filter(|kind| kind.semaphore_type == vk::SemaphoreType::TIMELINE)
                .map(|kind| kind.initial_value);
            let is_shared = exported.is_some_and(|exported| !exported.handle_types.is_empty());
            seen.created_semaphore(number, handle, value, is_shared);
        });
    }
    result
}

pub(super) unsafe extern "system" fn destroy_semaphore(
    device: vk::Device,
    semaphore: vk::Semaphore,
    allocator: *const vk::AllocationCallbacks<'_>,
) {
    // SAFETY: the caller passes a device that is alive
    let Some((number, next)) = (unsafe { of(device) }) else {
        return;
    };
    note(|seen| seen.destroyed_semaphore(number, semaphore.as_raw()));
    wait_for_answer(semaphore.as_raw());
    if let Some(next) = next.destroy_semaphore {
        // SAFETY: the arguments are the caller's
        unsafe { next(device, semaphore, allocator) };
    }
}

/// Returns once the driver is not being asked about an object, whose name was taken away before.
fn wait_for_answer(handle: u64) {
    if handle != 0 {
        ASKED.wait(Some(handle as usize));
    }
}

pub(super) unsafe extern "system" fn import_semaphore(
    device: vk::Device,
    info: *const vk::ImportSemaphoreFdInfoKHR<'_>,
) -> vk::Result {
    let (number, next) = next!(device, import_semaphore);
    // SAFETY: the arguments are the caller's
    let result = unsafe { next(device, info) };
    if result == vk::Result::SUCCESS {
        // SAFETY: the caller has passed this structure
        let handle = unsafe { (*info).semaphore.as_raw() };
        note(|seen| seen.imported_semaphore(number, handle));
    }
    result
}

pub(super) unsafe extern "system" fn signal_semaphore(
    device: vk::Device,
    info: *const vk::SemaphoreSignalInfo<'_>,
) -> vk::Result {
    let (number, next) = next!(device, signal_semaphore);
    let inside = Inside::enter(c"vkSignalSemaphore");
    // SAFETY: the arguments are the caller's
    let result = unsafe { next(device, info) };
    if result == vk::Result::SUCCESS {
        // SAFETY: the caller has passed this structure
        let (handle, value) = unsafe { ((*info).semaphore.as_raw(), (*info).value) };
        note(|seen| {
            if let Some(semaphore) = seen.semaphore(number, handle) {
                seen.state.reached(semaphore, value);
            }
        });
    }
    check(number, result);
    inside.exit(result == vk::Result::SUCCESS);
    result
}

pub(super) unsafe extern "system" fn wait_semaphores(
    device: vk::Device,
    info: *const vk::SemaphoreWaitInfo<'_>,
    timeout: u64,
) -> vk::Result {
    let (number, next) = next!(device, wait_semaphores);
    // SAFETY: the caller has passed this structure
    let (any, semaphores, values) = unsafe {
        let count = (*info).semaphore_count;
        (
            (*info).flags.contains(vk::SemaphoreWaitFlags::ANY) && count > 1,
            list((*info).p_semaphores, count),
            list((*info).p_values, count),
        )
    };
    let named = |seen: &Seen| -> Vec<(u64, u64)> {
        let named = |(handle, value)| Some((seen.semaphore(number, handle)?, value));
        with_values(semaphores, values).filter_map(named).collect()
    };
    let inside = Inside::wait(c"vkWaitSemaphores", |seen| {
        Some(Awaited::Values(named(seen), any))
    });
    // SAFETY: the arguments are the caller's
    let result = unsafe { next(device, info, timeout) };
    check(number, result);
    inside.waited(result, |seen| {
        // Which of several it was is not told.
        let reached = if any { Vec::new() } else { named(seen) };
        for (semaphore, value) in reached {
            seen.state.reached(semaphore, value);
        }
    });
    result
}

pub(super) unsafe extern "system" fn counter_value(
    device: vk::Device,
    semaphore: vk::Semaphore,
    value: *mut u64,
) -> vk::Result {
    let (number, next) = next!(device, counter_value);
    // SAFETY: the arguments are the caller's
    let result = unsafe { next(device, semaphore, value) };
    if result == vk::Result::SUCCESS {
        // SAFETY: the call has written it
        let value = unsafe { *value };
        note(|seen| {
            if let Some(semaphore) = seen.semaphore(number, semaphore.as_raw()) {
                seen.state.reached(semaphore, value);
            }
        });
    }
    check(number, result);
    result
}

pub(super) unsafe extern "system" fn create_fence(
    device: vk::Device,
    info: *const vk::FenceCreateInfo<'_>,
    allocator: *const vk::AllocationCallbacks<'_>,
    fence: *mut vk::Fence,
) -> vk::Result {
    let (number, next) = next!(device, create_fence);
    // SAFETY: the arguments are the caller's
    let result = unsafe { next(device, info, allocator, fence) };
    if result == vk::Result::SUCCESS {
        // SAFETY: the call has made it, and the caller has passed the structure
        let (handle, flags) = unsafe { ((*fence).as_raw(), (*info).flags) };
        let is_signalled = flags.contains(vk::FenceCreateFlags::SIGNALED);
        note(|seen| seen.created_fence(number, handle, is_signalled));
    }
    result
}

pub(super) unsafe extern "system" fn destroy_fence(
    device: vk::Device,
    fence: vk::Fence,
    allocator: *const vk::AllocationCallbacks<'_>,
) {
    // SAFETY: the caller passes a device that is alive
    let Some((number, next)) = (unsafe { of(device) }) else {
        return;
    };
    note(|seen| seen.destroyed_fence(number, fence.as_raw()));
    wait_for_answer(fence.as_raw());
    if let Some(next) = next.destroy_fence {
        // SAFETY: the arguments are the caller's
        unsafe { next(device, fence, allocator) };
    }
}

pub(super) unsafe extern "system" fn import_fence(
    device: vk::Device,
    info: *const vk::ImportFenceFdInfoKHR<'_>,
) -> vk::Result {
    let (number, next) = next!(device, import_fence);
    // SAFETY: the caller has passed this structure
    let (handle, kind, flags) = unsafe {
        let info = &*info;
        (info.fence.as_raw(), info.handle_type, info.flags)
    };
    note(|seen| seen.set_fence(number, handle, FenceState::Unseen));
    wait_for_answer(handle);
    // SAFETY: the arguments are the caller's
    let result = unsafe { next(device, info) };
    // The state of a file of synchronization is taken as it is, until the next reset.
    let is_copied = kind == vk::ExternalFenceHandleTypeFlags::SYNC_FD;
    if result == vk::Result::SUCCESS
        && !is_copied
        && !flags.contains(vk::FenceImportFlags::TEMPORARY)
    {
        note(|seen| seen.shared_fence(number, handle));
    }
    result
}

/// A fence is shared with who imports it, or its state is taken as it is, which resets it.
pub(super) unsafe extern "system" fn export_fence(
    device: vk::Device,
    info: *const vk::FenceGetFdInfoKHR<'_>,
    fd: *mut c_int,
) -> vk::Result {
    let (number, next) = next!(device, export_fence);
    // SAFETY: the arguments are the caller's
    let result = unsafe { next(device, info, fd) };
    // SAFETY: the caller has passed this structure
    let (handle, kind) = unsafe { ((*info).fence.as_raw(), (*info).handle_type) };
    if result == vk::Result::SUCCESS {
        note(|seen| match kind {
            vk::ExternalFenceHandleTypeFlags::SYNC_FD => {
                seen.set_fence(number, handle, FenceState::Reset);
            }
            _ => seen.shared_fence(number, handle),
        });
    }
    result
}

pub(super) unsafe extern "system" fn reset_fences(
    device: vk::Device,
    count: u32,
    fences: *const vk::Fence,
) -> vk::Result {
    let (number, next) = next!(device, reset_fences);
    // SAFETY: the caller has passed these
    let reset = unsafe { list(fences, count) };
    note(|seen| {
        for fence in reset {
            seen.set_fence(number, fence.as_raw(), FenceState::Reset);
        }
    });
    for fence in reset {
        wait_for_answer(fence.as_raw());
    }
    // SAFETY: the arguments are the caller's
    unsafe { next(device, count, fences) }
}

pub(super) unsafe extern "system" fn fence_status(
    device: vk::Device,
    fence: vk::Fence,
) -> vk::Result {
    let (number, next) = next!(device, fence_status);
    // SAFETY: the arguments are the caller's
    let result = unsafe { next(device, fence) };
    if result == vk::Result::SUCCESS {
        note(|seen| {
            if let Some(fence) = seen.fence(number, fence.as_raw()) {
                seen.state.signalled(fence);
            }
        });
    }
    check(number, result);
    result
}

pub(super) unsafe extern "system" fn wait_for_fences(
    device: vk::Device,
    count: u32,
    fences: *const vk::Fence,
    all: vk::Bool32,
    timeout: u64,
) -> vk::Result {
    let (number, next) = next!(device, wait_for_fences);
    // SAFETY: the caller has passed these
    let awaited = unsafe { list(fences, count) };
    let any = all == vk::FALSE && count > 1;
    let named = |seen: &Seen| -> Vec<u64> {
        let named = |fence: &vk::Fence| seen.fence(number, fence.as_raw());
        awaited.iter().filter_map(named).collect()
    };
    let inside = Inside::wait(c"vkWaitForFences", |seen| {
        Some(Awaited::Fences(named(seen), any))
    });
    // SAFETY: the arguments are the caller's
    let result = unsafe { next(device, count, fences, all, timeout) };
    check(number, result);
    inside.waited(result, |seen| {
        // Which of several it was is not told.
        let signalled = if any { Vec::new() } else { named(seen) };
        for fence in signalled {
            seen.state.signalled(fence);
        }
    });
    result
}

/// With `VK_QUERY_RESULT_WAIT_BIT` it may not return.
pub(super) unsafe extern "system" fn query_results(
    device: vk::Device,
    pool: vk::QueryPool,
    first: u32,
    count: u32,
    size: usize,
    data: *mut c_void,
    stride: vk::DeviceSize,
    flags: vk::QueryResultFlags,
) -> vk::Result {
    let (number, next) = next!(device, query_results);
    let inside = Inside::enter(c"vkGetQueryPoolResults");
    // SAFETY: the arguments are the caller's
    let result = unsafe { next(device, pool, first, count, size, data, stride, flags) };
    check(number, result);
    inside.exit(false);
    result
}

pub(super) unsafe extern "system" fn set_name(
    device: vk::Device,
    info: *const vk::DebugUtilsObjectNameInfoEXT<'_>,
) -> vk::Result {
    let (number, next) = next!(device, set_name);
    note(|seen| {
        // SAFETY: the caller has passed this structure, whose name is a C string
        let (kind, handle, name) = unsafe {
            (
                (*info).object_type,
                (*info).object_handle,
                name((*info).p_object_name),
            )
        };
        match kind {
            vk::ObjectType::QUEUE => seen.name_queue(handle, name),
            vk::ObjectType::SEMAPHORE => seen.name_semaphore(number, handle, name),
            vk::ObjectType::FENCE => seen.name_fence(number, handle, name),
            vk::ObjectType::SWAPCHAIN_KHR => seen.name_swapchain(number, handle, name),
            _ => {}
        }
    });
    // SAFETY: the arguments are the caller's
    unsafe { next(device, info) }
}

pub(super) unsafe extern "system" fn destroy_device(
    device: vk::Device,
    allocator: *const vk::AllocationCallbacks<'_>,
) {
    if device.is_null() {
        return;
    }
    // SAFETY: the caller passes a device that is alive
    let Some(next) = (unsafe { functions::remove(device) }) else {
        return;
    };
    note(|seen| seen.destroyed_device(next.number));
    ASKED.wait(None);
    if let Some(destroy) = next.next.destroy_device {
        // SAFETY: the arguments are the caller's
        unsafe { destroy(device, allocator) };
    }
}
