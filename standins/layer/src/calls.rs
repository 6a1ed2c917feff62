//! The calls that pass here: counted, refused where a test has planned it, or passed on.

use crate::chain::{Handle, original};
use crate::late;
use fencepost_sim::CallLog;
use std::ffi::{c_int, c_void};

pub(crate) static LOG: CallLog<c_int> = CallLog::new("Vulkan layer");

/// A `VkSemaphore` or any other object that is no pointer.
type Object = u64;
type Info = *const c_void;
type Out = *mut c_void;

/// Defines a function for each call. The first argument is a device or an object that has the
/// device's dispatch table.
macro_rules! calls {
    ($($name:ident = $kind:ident($($argument:ident: $type:ty),*);)*) => {
        /// The calls that a test can count. Those that return a `VkResult`, it can make fail.
        pub const FUNCTIONS: &[&str] = &[$(stringify!($name)),*];

        /// How the calls are numbered among the driver's own functions.
        #[allow(non_camel_case_types, clippy::enum_variant_names)]
        enum Number {
            $($name),*
        }

        /// Ours, in the order of [`FUNCTIONS`].
        pub(crate) fn ours() -> Vec<*const c_void> {
            vec![$($name as *const c_void),*]
        }

        $(calls! { @call $kind $name($($argument: $type),*) })*
    };

    // Refused, or passed on.
    (@call result $name:ident($($argument:ident: $type:ty),*)) => {
        unsafe extern "system" fn $name($($argument: $type),*) -> c_int {
            match LOG.count(stringify!($name)) {
                Some(code) => code,
                None => calls!(@pass $name($($argument: $type),*) -> c_int),
            }
        }
    };
    // Passed on. It may return another result than the driver's.
    (@call wait $name:ident($($argument:ident: $type:ty),*)) => {
        unsafe extern "system" fn $name($($argument: $type),*) -> c_int {
            let planned = LOG.count(stringify!($name));
            let result = calls!(@pass $name($($argument: $type),*) -> c_int);
            planned.unwrap_or(result)
        }
    };
    // Written out below.
    (@call by_hand $name:ident($($argument:ident: $type:ty),*)) => {};
    // Passed on. It has no result.
    (@call nothing $name:ident($($argument:ident: $type:ty),*)) => {
        unsafe extern "system" fn $name($($argument: $type),*) {
            LOG.count(stringify!($name));
            calls!(@pass $name($($argument: $type),*) -> ())
        }
    };

    (@pass $name:ident(
        $first:ident: $handle:ty $(, $argument:ident: $type:ty)*
    ) -> $result:ty) => {{
        type Real = unsafe extern "system" fn($handle $(, $type)*) -> $result;
        // SAFETY: the caller's object of a device
        let real = unsafe { original($first, Number::$name as usize) };
        // SAFETY: the next function of this name and type; the rest is the caller's
        unsafe { std::mem::transmute::<*const c_void, Real>(real)($first $(, $argument)*) }
    }};
}

calls! {
    vkAllocateMemory = result(device: Handle, info: Info, allocator: Info, memory: Out);
    vkBeginCommandBuffer = result(buffer: Handle, info: Info);
    vkCreateBuffer = result(device: Handle, info: Info, allocator: Info, buffer: Out);
    vkCreateQueryPool = result(device: Handle, info: Info, allocator: Info, pool: Out);
    vkCreateSemaphore = by_hand(device: Handle, info: Info, allocator: Info, semaphore: Out);
    vkDestroyBuffer = nothing(device: Handle, buffer: Object, allocator: Info);
    vkDestroyCommandPool = nothing(device: Handle, pool: Object, allocator: Info);
    vkDestroyQueryPool = nothing(device: Handle, pool: Object, allocator: Info);
    vkDestroySemaphore = nothing(device: Handle, semaphore: Object, allocator: Info);
    vkDeviceWaitIdle = wait(device: Handle);
    vkFreeMemory = nothing(device: Handle, memory: Object, allocator: Info);
    vkGetSemaphoreCounterValue = by_hand(device: Handle, semaphore: Object, value: *mut u64);
    vkMapMemory = result(
        device: Handle, memory: Object, offset: u64, size: u64, flags: u32, data: Out
    );
    vkQueueSubmit = result(queue: Handle, count: u32, submits: Info, fence: Object);
    vkQueueWaitIdle = wait(queue: Handle);
    vkSignalSemaphore = result(device: Handle, info: Info);
    vkWaitForFences = result(
        device: Handle, count: u32, fences: *const Object, all: u32, timeout: u64
    );
    vkWaitSemaphores = result(device: Handle, info: Info, timeout: u64);
}

unsafe extern "system" fn vkCreateSemaphore(
    device: Handle,
    info: Info,
    allocator: Info,
    semaphore: Out,
) -> c_int {
    if let Some(code) = LOG.count("vkCreateSemaphore") {
        return code;
    }
    let result = calls!(@pass vkCreateSemaphore(
        device: Handle, info: Info, allocator: Info, semaphore: Out
    ) -> c_int);
    if result == 0 {
        // SAFETY: the driver has just written a semaphore there
        late::made(unsafe { *semaphore.cast::<Object>() });
    }
    result
}

unsafe extern "system" fn vkGetSemaphoreCounterValue(
    device: Handle,
    semaphore: Object,
    value: *mut u64,
) -> c_int {
    if let Some(code) = LOG.count("vkGetSemaphoreCounterValue") {
        return code;
    }
    let result = calls!(@pass vkGetSemaphoreCounterValue(
        device: Handle, semaphore: Object, value: *mut u64
    ) -> c_int);
    if result == 0 {
        // SAFETY: the driver has just written a value there
        unsafe { *value = late::shown(semaphore, *value) };
    }
    result
}
