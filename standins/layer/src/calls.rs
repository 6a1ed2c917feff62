//! The calls that pass here: counted, refused where a test has planned it, or passed on.

use crate::chain::{Handle, original};
use fencepost_sim::CallLog;
use std::ffi::{c_int, c_void};

pub(crate) static LOG: CallLog<c_int> = CallLog::new("Vulkan layer");

/// A `VkSemaphore` or any other object that is no pointer.
type Object = u64;
type Info = *const c_void;
type Out = *mut c_void;

/// Defines a function for each call. All return a `VkResult`, and the first argument is a device or
/// an object that has the device's dispatch table.
macro_rules! calls {
    ($($name:ident = $kind:ident($first:ident: Handle $(, $argument:ident: $type:ty)*);)*) => {
        /// The calls that a test can count and make fail.
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

        $(
            unsafe extern "system" fn $name($first: Handle $(, $argument: $type)*) -> c_int {
                let planned = LOG.count(stringify!($name));
                if let (Some(code), "refused") = (planned, stringify!($kind)) {
                    return code;
                }
                type Real = unsafe extern "system" fn(Handle $(, $type)*) -> c_int;
                // SAFETY: the caller's object of a device
                let real = unsafe { original($first, Number::$name as usize) };
                // SAFETY: the next function of this name and type; the rest is the caller's
                let result = unsafe {
                    std::mem::transmute::<*const c_void, Real>(real)($first $(, $argument)*)
                };
                planned.unwrap_or(result)
            }
        )*
    };
}

calls! {
    vkAllocateMemory = refused(device: Handle, info: Info, allocator: Info, memory: Out);
    vkBeginCommandBuffer = refused(buffer: Handle, info: Info);
    vkCreateBuffer = refused(device: Handle, info: Info, allocator: Info, buffer: Out);
    vkCreateQueryPool = refused(device: Handle, info: Info, allocator: Info, pool: Out);
    vkCreateSemaphore = refused(device: Handle, info: Info, allocator: Info, semaphore: Out);
    vkDeviceWaitIdle = called_before(device: Handle);
    vkGetSemaphoreCounterValue = refused(device: Handle, semaphore: Object, value: *mut u64);
    vkMapMemory = refused(
        device: Handle, memory: Object, offset: u64, size: u64, flags: u32, data: Out
    );
    vkQueueSubmit = refused(queue: Handle, count: u32, submits: Info, fence: Object);
    vkQueueWaitIdle = called_before(queue: Handle);
    vkSignalSemaphore = refused(device: Handle, info: Info);
    vkWaitForFences = refused(
        device: Handle, count: u32, fences: *const Object, all: u32, timeout: u64
    );
    vkWaitSemaphores = refused(device: Handle, info: Info, timeout: u64);
}
