//! Followed calls, with a driver of a few functions that do nothing; and forks.

use std::{
    ffi::{CStr, c_char, c_int},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use ash::vk::{self, Handle as _};

use super::{
    account::Account,
    presenting::{PresentWait2, WaitForPresent2},
    seen::{FenceState, Kind, SEEN, Source, Until, Wait},
    *,
};

type Found = unsafe extern "system" fn();

/// How often the driver was asked for a semaphore's value.
static ASKED_FOR: AtomicU64 = AtomicU64::new(0);

/// Functions of the driver that only succeed.
macro_rules! succeed {
    ($($ours:ident($($argument:ty),*);)*) => {
        $(unsafe extern "system" fn $ours($(_: $argument),*) -> vk::Result {
            vk::Result::SUCCESS
        })*
    };
}

succeed! {
    present(vk::Queue, *const vk::PresentInfoKHR<'_>);
    fence_fd(vk::Device, *const vk::FenceGetFdInfoKHR<'_>, *mut c_int);
    import_fence(vk::Device, *const vk::ImportFenceFdInfoKHR<'_>);
    import_semaphore(vk::Device, *const vk::ImportSemaphoreFdInfoKHR<'_>);
    submit(vk::Queue, u32, *const vk::SubmitInfo<'_>, vk::Fence);
    bind_sparse(vk::Queue, u32, *const vk::BindSparseInfo<'_>, vk::Fence);
    reset(vk::Device, u32, *const vk::Fence);
}

unsafe extern "system" fn value(_: vk::Device, _: vk::Semaphore, _: *mut u64) -> vk::Result {
    ASKED_FOR.fetch_add(1, Ordering::Relaxed);
    vk::Result::SUCCESS
}

unsafe extern "system" fn time_out(
    _: vk::Device,
    _: u32,
    _: *const vk::Fence,
    _: vk::Bool32,
    _: u64,
) -> vk::Result {
    vk::Result::TIMEOUT
}

unsafe extern "system" fn not_signalled(_: vk::Device, _: vk::Fence) -> vk::Result {
    vk::Result::NOT_READY
}

unsafe extern "system" fn swapchain(
    _: vk::Device,
    _: *const vk::SwapchainCreateInfoKHR<'_>,
    _: *const vk::AllocationCallbacks<'_>,
    made: *mut vk::SwapchainKHR,
) -> vk::Result {
    // SAFETY: the pointer is to a handle
    unsafe { *made = vk::SwapchainKHR::from_raw(SWAPCHAIN) };
    vk::Result::SUCCESS
}

unsafe extern "system" fn drop_swapchain(
    _: vk::Device,
    _: vk::SwapchainKHR,
    _: *const vk::AllocationCallbacks<'_>,
) {
}

/// What is told of the thread that waits for a present, while it does.
static TOLD: Mutex<Option<(String, Option<String>)>> = Mutex::new(None);

fn tell_of_this_thread() -> vk::Result {
    let account = asking::account(false);
    // SAFETY: it has no requirement
    let awaited = account.awaited_by(unsafe { libc::gettid() });
    *TOLD.lock().unwrap() = awaited.map(|awaited| account.words_of_thread(awaited));
    vk::Result::SUCCESS
}

unsafe extern "system" fn wait_for_present(
    _: vk::Device,
    _: vk::SwapchainKHR,
    _: u64,
    _: u64,
) -> vk::Result {
    tell_of_this_thread()
}

unsafe extern "system" fn wait_for_present2(
    _: vk::Device,
    _: vk::SwapchainKHR,
    _: *const PresentWait2,
) -> vk::Result {
    tell_of_this_thread()
}

unsafe extern "system" fn acquire(
    _: vk::Device,
    _: vk::SwapchainKHR,
    _: u64,
    _: vk::Semaphore,
    _: vk::Fence,
    _: *mut u32,
) -> vk::Result {
    tell_of_this_thread()
}

/// The function of a name, as the type that Vulkan declares it with.
macro_rules! found {
    ($name:expr, $($known:literal: $kind:ty = $function:expr;)*) => {
        match $name {
            $($known => {
                let function: $kind = $function;
                // SAFETY: whoever asks for a function by its name calls it with its type
                Some(unsafe { std::mem::transmute::<$kind, Found>(function) })
            })*
            _ => None,
        }
    };
}

unsafe extern "system" fn get(_: vk::Device, name: *const c_char) -> vk::PFN_vkVoidFunction {
    // SAFETY: the name is a C string
    let name = unsafe { CStr::from_ptr(name) };
    found! {
        name.to_bytes(),
        b"vkQueuePresentKHR": vk::PFN_vkQueuePresentKHR = present;
        b"vkGetFenceFdKHR": vk::PFN_vkGetFenceFdKHR = fence_fd;
        b"vkImportFenceFdKHR": vk::PFN_vkImportFenceFdKHR = import_fence;
        b"vkImportSemaphoreFdKHR": vk::PFN_vkImportSemaphoreFdKHR = import_semaphore;
        b"vkGetSemaphoreCounterValue": vk::PFN_vkGetSemaphoreCounterValue = value;
        b"vkGetFenceStatus": vk::PFN_vkGetFenceStatus = not_signalled;
        b"vkWaitForFences": vk::PFN_vkWaitForFences = time_out;
        b"vkResetFences": vk::PFN_vkResetFences = reset;
        b"vkQueueSubmit": vk::PFN_vkQueueSubmit = submit;
        b"vkQueueBindSparse": vk::PFN_vkQueueBindSparse = bind_sparse;
        b"vkCreateSwapchainKHR": vk::PFN_vkCreateSwapchainKHR = swapchain;
        b"vkDestroySwapchainKHR": vk::PFN_vkDestroySwapchainKHR = drop_swapchain;
        b"vkAcquireNextImageKHR": vk::PFN_vkAcquireNextImageKHR = acquire;
        b"vkWaitForPresentKHR": vk::PFN_vkWaitForPresentKHR = wait_for_present;
        b"vkWaitForPresent2KHR": WaitForPresent2 = wait_for_present2;
    }
}

/// What a program calls by this name.
macro_rules! called {
    ($name:literal: $kind:ty) => {
        // SAFETY: Vulkan declares the function of this name with this type
        unsafe {
            std::mem::transmute::<Found, $kind>(
                functions::in_place_of($name).expect("a followed function"),
            )
        }
    };
}

const FENCE: u64 = 0x70;
const SEMAPHORE: u64 = 0x80;
const BINARY: u64 = 0x90;
const SWAPCHAIN: u64 = 0xa0;

/// A device of a test's own, whose queue is the same dispatchable object.
struct Program {
    number: u64,
    device: vk::Device,
    queue: vk::Queue,
}

/// Runs a test with a device, which has a fence, a timeline semaphore and a binary one.
fn with_device(test: impl FnOnce(&Program)) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    FOLLOWS.store(true, Ordering::SeqCst);
    let table = AtomicUsize::new(0);
    let object = AtomicUsize::new(table.as_ptr().expose_provenance());
    let handle = object.as_ptr().expose_provenance() as u64;
    let (device, queue) = (vk::Device::from_raw(handle), vk::Queue::from_raw(handle));
    let number = SEEN.lock().created_device("none".into());
    // SAFETY: the first word of the object is its own, and `get` finds what it is asked for
    unsafe { functions::add(number, device, get) };
    {
        let mut seen = SEEN.lock();
        seen.got_queue(number, handle, 0);
        seen.created_fence(number, FENCE, false);
        seen.created_semaphore(number, SEMAPHORE, Some(0), false);
        seen.created_semaphore(number, BINARY, None, false);
    }
    test(&Program {
        number,
        device,
        queue,
    });
    // SAFETY: as above
    unsafe { functions::remove(device) };
    SEEN.lock().destroyed_device(number);
    FOLLOWS.store(false, Ordering::SeqCst);
}

fn succeeds(result: vk::Result) {
    assert_eq!(result, vk::Result::SUCCESS);
}

impl Program {
    /// Submits a batch that signals the fence.
    fn submit(&self, info: vk::SubmitInfo<'_>) {
        let submit = called!(c"vkQueueSubmit": vk::PFN_vkQueueSubmit);
        // SAFETY: the structure is complete
        let result = unsafe { submit(self.queue, 1, &raw const info, vk::Fence::from_raw(FENCE)) };
        assert_eq!(result, vk::Result::SUCCESS);
    }

    fn export_fence(&self, kind: vk::ExternalFenceHandleTypeFlags) {
        let get = called!(c"vkGetFenceFdKHR": vk::PFN_vkGetFenceFdKHR);
        let info = vk::FenceGetFdInfoKHR::default()
            .fence(vk::Fence::from_raw(FENCE))
            .handle_type(kind);
        let mut fd = 0;
        // SAFETY: the structure is complete, and the pointer to a number
        let result = unsafe { get(self.device, &raw const info, &raw mut fd) };
        assert_eq!(result, vk::Result::SUCCESS);
    }

    fn import_fence(&self, flags: vk::FenceImportFlags) {
        let import = called!(c"vkImportFenceFdKHR": vk::PFN_vkImportFenceFdKHR);
        let info = vk::ImportFenceFdInfoKHR::default()
            .fence(vk::Fence::from_raw(FENCE))
            .flags(flags)
            .handle_type(vk::ExternalFenceHandleTypeFlags::OPAQUE_FD);
        // SAFETY: the structure is complete
        let result = unsafe { import(self.device, &raw const info) };
        assert_eq!(result, vk::Result::SUCCESS);
    }

    fn reset_fence(&self) {
        let reset = called!(c"vkResetFences": vk::PFN_vkResetFences);
        let fence = vk::Fence::from_raw(FENCE);
        // SAFETY: the pointer is to one fence
        let result = unsafe { reset(self.device, 1, &raw const fence) };
        assert_eq!(result, vk::Result::SUCCESS);
    }

    fn state_of_fence(&self) -> FenceState {
        let seen = SEEN.lock();
        let number = seen.fence(self.number, FENCE).unwrap();
        seen.state.fences[&number].state
    }

    /// Whether the queue is known to have work, and what is told of a thread that waits for the
    /// fence.
    fn told(&self) -> (bool, String) {
        let fence = SEEN.lock().fence(self.number, FENCE).unwrap();
        let account = asking::account(true);
        let awaited = seen::Awaited::Fences(vec![fence], false);
        let remark = account.words_of_thread(&awaited).1;
        (account.is_busy(), remark.unwrap_or_default())
    }
}

#[test]
fn a_fence_that_a_present_signals_is_not_said_to_be_signalled_by_nothing() {
    with_device(|program| {
        let fences = [vk::Fence::null(), vk::Fence::from_raw(FENCE)];
        let mut fences = vk::SwapchainPresentFenceInfoEXT::default().fences(&fences);
        let info = vk::PresentInfoKHR::default().push_next(&mut fences);
        let present = called!(c"vkQueuePresentKHR": vk::PFN_vkQueuePresentKHR);
        // SAFETY: the structure is complete
        let result = unsafe { present(program.queue, &raw const info) };
        assert_eq!(result, vk::Result::SUCCESS);
        assert_eq!(program.state_of_fence(), FenceState::Acquire);
    });
}

#[test]
fn a_fence_whose_state_was_exported_tells_of_no_batch_any_more() {
    with_device(|program| {
        program.submit(vk::SubmitInfo::default());
        program.export_fence(vk::ExternalFenceHandleTypeFlags::SYNC_FD);
        assert_eq!(program.state_of_fence(), FenceState::Reset);
    });
}

#[test]
fn a_fence_that_another_process_has_too_may_have_been_reset_by_it() {
    with_device(|program| {
        program.submit(vk::SubmitInfo::default());
        assert!(program.told().0);
        program.export_fence(vk::ExternalFenceHandleTypeFlags::OPAQUE_FD);
        let (is_busy, remark) = program.told();
        assert!(!is_busy);
        assert!(
            remark.contains("signals it, but it is shared with what cannot be seen"),
            "{remark}"
        );
        // Also once it was reset here and submitted again.
        program.reset_fence();
        program.submit(vk::SubmitInfo::default());
        assert!(!program.told().0);
    });
}

#[test]
fn a_fence_that_was_imported_for_good_may_be_reset_elsewhere() {
    with_device(|program| {
        program.import_fence(vk::FenceImportFlags::empty());
        let (is_busy, remark) = program.told();
        assert!(!is_busy && remark.contains("it is shared with what cannot be seen"));
        program.submit(vk::SubmitInfo::default());
        assert!(!program.told().0);
    });
}

#[test]
fn a_fence_that_was_imported_until_its_reset_tells_of_batches_again() {
    with_device(|program| {
        program.import_fence(vk::FenceImportFlags::TEMPORARY);
        let (is_busy, remark) = program.told();
        assert!(!is_busy && remark.contains("what signals it cannot be seen"));
        program.reset_fence();
        program.submit(vk::SubmitInfo::default());
        let (is_busy, remark) = program.told();
        assert!(is_busy && remark.ends_with("signals it"), "{remark}");
    });
}

fn front(account: &Account, device: u64) -> (Wait, bool, Option<String>) {
    let all = account.queues_of(device);
    let fronts = account.fronts(all[0], u64::MAX);
    let front = fronts.first().expect("a wait");
    (front.wait, front.target.is_some(), account.remark(front))
}

#[test]
fn what_signals_an_imported_semaphore_is_not_guessed() {
    with_device(|program| {
        let import = called!(c"vkImportSemaphoreFdKHR": vk::PFN_vkImportSemaphoreFdKHR);
        let semaphore = vk::Semaphore::from_raw(BINARY);
        let info = vk::ImportSemaphoreFdInfoKHR::default()
            .semaphore(semaphore)
            .handle_type(vk::ExternalSemaphoreHandleTypeFlags::OPAQUE_FD);
        // SAFETY: the structure is complete
        let result = unsafe { import(program.device, &raw const info) };
        assert_eq!(result, vk::Result::SUCCESS);
        let (semaphores, stages) = ([semaphore], [vk::PipelineStageFlags::ALL_COMMANDS]);
        let waits = vk::SubmitInfo::default()
            .wait_semaphores(&semaphores)
            .wait_dst_stage_mask(&stages);
        program.submit(waits);
        let account = asking::account(true);
        let (wait, has_target, remark) = front(&account, program.number);
        assert!(matches!(wait.until, Until::Signal(Source::Unseen)) && !has_target);
        assert!(remark.unwrap().contains("such as another process"));
        // Its fence tells that the batch is not over.
        assert!(account.is_busy());
    });
}

#[test]
fn a_signal_that_may_have_been_taken_and_made_again_elsewhere_is_not_guessed() {
    with_device(|program| {
        let mut seen = SEEN.lock();
        let queue = seen.queue(program.queue.as_raw()).unwrap();
        seen.created_semaphore(program.number, BINARY, None, true);
        seen.submit(queue, Kind::Submit, Vec::new());
        seen.signal(queue, program.number, BINARY, 0);
        seen.completed(queue, 1);
        let wait = seen.wait(program.number, BINARY, 0).unwrap();
        assert!(matches!(wait.until, Until::Signal(Source::Unseen)));
    });
}

#[test]
fn a_sparse_binding_is_a_batch_with_its_waits_and_signals() {
    with_device(|program| {
        let bind = called!(c"vkQueueBindSparse": vk::PFN_vkQueueBindSparse);
        let semaphores = [vk::Semaphore::from_raw(SEMAPHORE)];
        let mut values = vk::TimelineSemaphoreSubmitInfo::default()
            .wait_semaphore_values(&[3])
            .signal_semaphore_values(&[4]);
        let infos = [
            vk::BindSparseInfo::default()
                .wait_semaphores(&semaphores)
                .signal_semaphores(&semaphores)
                .push_next(&mut values),
            vk::BindSparseInfo::default(),
        ];
        let fence = vk::Fence::from_raw(FENCE);
        // SAFETY: the structures are complete
        let result = unsafe { bind(program.queue, 2, infos.as_ptr(), fence) };
        assert_eq!(result, vk::Result::SUCCESS);
        let account = asking::account(false);
        let queue = account.queues_of(program.number)[0];
        let batches: Vec<_> = queue.pending().collect();
        assert_eq!((queue.submitted, queue.last.0), (2, Kind::SparseBinding));
        let semaphore = SEEN.lock().semaphore(program.number, SEMAPHORE).unwrap();
        assert_eq!(batches[0].signals, [(semaphore, 4)]);
        assert!(matches!(batches[0].waits[0].until, Until::Value(3)));
        let state = program.state_of_fence();
        let queue = queue.number;
        assert_eq!(state, FenceState::Submitted { queue, position: 2 });
    });
}

#[test]
fn a_thread_that_waits_for_a_present_is_told_which() {
    with_device(|program| {
        let device = program.device;
        let make = called!(c"vkCreateSwapchainKHR": vk::PFN_vkCreateSwapchainKHR);
        let present = called!(c"vkQueuePresentKHR": vk::PFN_vkQueuePresentKHR);
        let wait = called!(c"vkWaitForPresentKHR": vk::PFN_vkWaitForPresentKHR);
        let wait2 = called!(c"vkWaitForPresent2KHR": WaitForPresent2);
        let acquire = called!(c"vkAcquireNextImageKHR": vk::PFN_vkAcquireNextImageKHR);
        let destroy = called!(c"vkDestroySwapchainKHR": vk::PFN_vkDestroySwapchainKHR);
        let told = || {
            TOLD.lock()
                .unwrap()
                .take()
                .expect("what the thread waits for")
        };
        let info = vk::SwapchainCreateInfoKHR::default();
        let (mut swapchain, mut index) = (vk::SwapchainKHR::null(), 0);
        // SAFETY: the structures are complete, and the pointers to what they are made for
        unsafe {
            let allocator = std::ptr::null();
            succeeds(make(device, &raw const info, allocator, &raw mut swapchain));
            succeeds(wait(device, swapchain, 1, u64::MAX));
            let (words, remark) = told();
            assert!(words.starts_with("present 1 of swapchain "), "{words}");
            assert_eq!(remark.unwrap(), "no image of it was presented with an id");

            let (swapchains, images, ids) = ([swapchain], [0], [5]);
            let mut ids = vk::PresentIdKHR::default().present_ids(&ids);
            let info = vk::PresentInfoKHR::default()
                .swapchains(&swapchains)
                .image_indices(&images)
                .push_next(&mut ids);
            succeeds(present(program.queue, &raw const info));
            succeeds(wait(device, swapchain, 6, u64::MAX));
            let remark = told().1.unwrap();
            assert!(
                remark.ends_with("with that id: the highest is 5"),
                "{remark}"
            );
            let info = PresentWait2::new(5, u64::MAX);
            succeeds(wait2(device, swapchain, &raw const info));
            let remark = told().1.unwrap();
            assert!(remark.ends_with("is cannot be seen"), "{remark}");

            let (semaphore, fence) = (vk::Semaphore::null(), vk::Fence::null());
            let index = &raw mut index;
            succeeds(acquire(
                device,
                swapchain,
                u64::MAX,
                semaphore,
                fence,
                index,
            ));
            assert!(told().0.starts_with("an image of swapchain "));
            destroy(device, swapchain, std::ptr::null());
        }
        assert_eq!(SEEN.lock().swapchain(program.number, SWAPCHAIN), None);
    });
}

#[test]
fn nothing_is_asked_about_once_calls_are_not_followed() {
    with_device(|program| {
        {
            let mut seen = SEEN.lock();
            let semaphore = seen.semaphore(program.number, SEMAPHORE).unwrap();
            let queue = seen.queue(program.queue.as_raw()).unwrap();
            let wait = seen.wait(program.number, SEMAPHORE, 7).unwrap();
            assert_eq!(wait.semaphore, semaphore);
            seen.submit(queue, Kind::Submit, vec![wait]);
        }
        asking::account(true);
        assert_eq!(ASKED_FOR.swap(0, Ordering::Relaxed), 1);
        // From now on the program may have destroyed it.
        FOLLOWS.store(false, Ordering::SeqCst);
        asking::account(true);
        assert_eq!(ASKED_FOR.swap(0, Ordering::Relaxed), 0);
    });
}

#[test]
fn what_ended_threads_waited_for_is_forgotten() {
    with_device(|program| {
        let fence = vk::Fence::from_raw(FENCE);
        let wait = called!(c"vkWaitForFences": vk::PFN_vkWaitForFences);
        let device = program.device;
        std::thread::scope(|scope| {
            // SAFETY: the pointer is to one fence
            scope.spawn(move || unsafe { wait(device, 1, &raw const fence, vk::TRUE, 0) });
        });
        assert!(!SEEN.lock().state.threads.is_empty());
        // A scope may end before what its threads keep is dropped.
        while !SEEN.lock().state.threads.is_empty() {
            asking::forget_ended();
            std::thread::yield_now();
        }
    });
}

#[test]
#[cfg_attr(miri, ignore = "forks")]
fn a_forked_child_finds_no_lock_held() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: the functions are there as long as the process
    unsafe { libc::pthread_atfork(Some(hold_locks), Some(let_locks_go), Some(let_locks_go)) };
    let ends = AtomicBool::new(false);
    let hold = || {
        while !ends.load(Ordering::Relaxed) {
            let seen = SEEN.lock();
            std::thread::sleep(std::time::Duration::from_millis(1));
            drop(seen);
            std::thread::yield_now();
        }
    };
    let fork = || {
        // SAFETY: the child calls nothing but what is safe in a signal handler
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: as above; the alarm ends a child that hangs
            unsafe {
                libc::alarm(60);
                drop(SEEN.lock());
                drop(functions::DEVICES.lock());
                drop(layer::INSTANCES.lock());
                libc::_exit(0);
            }
        }
        let mut status = -1;
        // SAFETY: the child is our own, and the pointer is to a number
        unsafe { libc::waitpid(child, &raw mut status, 0) };
        status
    };
    std::thread::scope(|scope| {
        scope.spawn(hold);
        let ended: Vec<i32> = (0..20).map(|_| fork()).take_while(|of| *of == 0).collect();
        ends.store(true, Ordering::Relaxed);
        assert_eq!(ended, [0; 20]);
    });
}

#[test]
#[cfg_attr(miri, ignore = "forks")]
fn a_signal_handler_forks_in_the_midst_of_a_followed_call() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: the functions are there as long as the process
    unsafe { libc::pthread_atfork(Some(hold_locks), Some(let_locks_go), Some(let_locks_go)) };
    // SAFETY: the children call nothing but what is safe in a signal handler, and take locks that
    // none of their other threads can have
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: as above; the alarm ends a child that hangs
        unsafe {
            libc::alarm(60);
            let seen = SEEN.lock();
            // As a handler does that interrupts the thread here.
            let grandchild = libc::fork();
            if grandchild == 0 {
                libc::alarm(60);
            }
            drop(functions::DEVICES.lock());
            drop(seen);
            drop(SEEN.lock());
            let mut status = 0;
            if grandchild != 0 {
                libc::waitpid(grandchild, &raw mut status, 0);
            }
            libc::_exit(i32::from(status != 0));
        }
    }
    let mut status = -1;
    // SAFETY: the child is our own, and the pointer is to a number
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(status, 0);
}
