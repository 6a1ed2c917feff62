//! The next layer's functions, by the device: what a followed call calls, and which calls are
//! followed.

use std::{
    collections::BTreeMap,
    ffi::{CStr, c_char},
    sync::Arc,
};

use ash::vk;

use super::{calls, presenting};
use crate::lock::Lock;

type Found = unsafe extern "system" fn();

macro_rules! followed {
    ($($field:ident: $pointer:ty = $ours:path, $($name:literal)+;)*) => {
        /// The functions of a device that are followed, as the next layer has them.
        #[derive(Clone)]
        pub(crate) struct Functions { $(pub(crate) $field: Option<$pointer>,)* }

        impl Functions {
            /// # Safety
            /// `get` finds the function of a name.
            unsafe fn find(get: impl Fn(&CStr) -> vk::PFN_vkVoidFunction) -> Functions {
                Functions {
                    $($field: {
                        let found: vk::PFN_vkVoidFunction = None$(.or_else(|| get($name)))+;
                        // SAFETY: Vulkan declares the functions of these names with this type
                        found.map(|found| unsafe {
                            std::mem::transmute::<Found, $pointer>(found)
                        })
                    },)*
                }
            }
        }

        /// What is called in place of the function of this name.
        pub(crate) fn in_place_of(name: &CStr) -> vk::PFN_vkVoidFunction {
            $(if [$($name),+].contains(&name) {
                let ours: $pointer = $ours;
                // SAFETY: whoever asks for a function by its name calls it with its type
                return Some(unsafe { std::mem::transmute::<$pointer, Found>(ours) });
            })*
            None
        }
    };
}

followed! {
    get_device_queue: vk::PFN_vkGetDeviceQueue = calls::get_device_queue, c"vkGetDeviceQueue";
    get_device_queue2: vk::PFN_vkGetDeviceQueue2 = calls::get_device_queue2, c"vkGetDeviceQueue2";
    queue_submit: vk::PFN_vkQueueSubmit = calls::queue_submit, c"vkQueueSubmit";
    queue_submit2: vk::PFN_vkQueueSubmit2 =
        calls::queue_submit2, c"vkQueueSubmit2" c"vkQueueSubmit2KHR";
    queue_bind_sparse: vk::PFN_vkQueueBindSparse = calls::queue_bind_sparse, c"vkQueueBindSparse";
    queue_wait_idle: vk::PFN_vkQueueWaitIdle = calls::queue_wait_idle, c"vkQueueWaitIdle";
    device_wait_idle: vk::PFN_vkDeviceWaitIdle = calls::device_wait_idle, c"vkDeviceWaitIdle";
    create_semaphore: vk::PFN_vkCreateSemaphore = calls::create_semaphore, c"vkCreateSemaphore";
    destroy_semaphore: vk::PFN_vkDestroySemaphore = calls::destroy_semaphore, c"vkDestroySemaphore";
    import_semaphore: vk::PFN_vkImportSemaphoreFdKHR =
        calls::import_semaphore, c"vkImportSemaphoreFdKHR";
    signal_semaphore: vk::PFN_vkSignalSemaphore =
        calls::signal_semaphore, c"vkSignalSemaphore" c"vkSignalSemaphoreKHR";
    wait_semaphores: vk::PFN_vkWaitSemaphores =
        calls::wait_semaphores, c"vkWaitSemaphores" c"vkWaitSemaphoresKHR";
    counter_value: vk::PFN_vkGetSemaphoreCounterValue =
        calls::counter_value, c"vkGetSemaphoreCounterValue" c"vkGetSemaphoreCounterValueKHR";
    create_fence: vk::PFN_vkCreateFence = calls::create_fence, c"vkCreateFence";
    destroy_fence: vk::PFN_vkDestroyFence = calls::destroy_fence, c"vkDestroyFence";
    import_fence: vk::PFN_vkImportFenceFdKHR = calls::import_fence, c"vkImportFenceFdKHR";
    export_fence: vk::PFN_vkGetFenceFdKHR = calls::export_fence, c"vkGetFenceFdKHR";
    reset_fences: vk::PFN_vkResetFences = calls::reset_fences, c"vkResetFences";
    fence_status: vk::PFN_vkGetFenceStatus = calls::fence_status, c"vkGetFenceStatus";
    wait_for_fences: vk::PFN_vkWaitForFences = calls::wait_for_fences, c"vkWaitForFences";
    create_swapchain: vk::PFN_vkCreateSwapchainKHR =
        presenting::create_swapchain, c"vkCreateSwapchainKHR";
    destroy_swapchain: vk::PFN_vkDestroySwapchainKHR =
        presenting::destroy_swapchain, c"vkDestroySwapchainKHR";
    acquire_next_image: vk::PFN_vkAcquireNextImageKHR =
        presenting::acquire_next_image, c"vkAcquireNextImageKHR";
    acquire_next_image2: vk::PFN_vkAcquireNextImage2KHR =
        presenting::acquire_next_image2, c"vkAcquireNextImage2KHR";
    queue_present: vk::PFN_vkQueuePresentKHR = presenting::queue_present, c"vkQueuePresentKHR";
    wait_for_present: vk::PFN_vkWaitForPresentKHR =
        presenting::wait_for_present, c"vkWaitForPresentKHR";
    wait_for_present2: presenting::WaitForPresent2 =
        presenting::wait_for_present2, c"vkWaitForPresent2KHR";
    query_results: vk::PFN_vkGetQueryPoolResults = calls::query_results, c"vkGetQueryPoolResults";
    set_name: vk::PFN_vkSetDebugUtilsObjectNameEXT =
        calls::set_name, c"vkSetDebugUtilsObjectNameEXT";
    destroy_device: vk::PFN_vkDestroyDevice = calls::destroy_device, c"vkDestroyDevice";
}

/// A device, as the layer calls it.
#[derive(Clone)]
pub(crate) struct Device {
    pub(crate) number: u64,
    pub(crate) handle: vk::Device,
    pub(crate) get: vk::PFN_vkGetDeviceProcAddr,
    pub(crate) next: Arc<Functions>,
}

pub(super) static DEVICES: Lock<BTreeMap<usize, Device>> = Lock::new(BTreeMap::new());

/// What the loader writes at the beginning of a dispatchable object: the same for all objects of a
/// device, and for all physical devices of an instance.
///
/// # Safety
/// The handle is one of a dispatchable object that is alive, and was not null.
pub(crate) unsafe fn key<T: vk::Handle>(handle: T) -> usize {
    let object = std::ptr::with_exposed_provenance::<usize>(handle.as_raw() as usize);
    // SAFETY: the caller vouches for it; the loader's table is the first word
    unsafe { object.read() }
}

/// The device of a dispatchable handle.
///
/// # Safety
/// As of [`key`].
#[inline]
pub(crate) unsafe fn device_of<T: vk::Handle>(handle: T) -> Option<Device> {
    // SAFETY: the caller vouches for it
    let key = unsafe { key(handle) };
    DEVICES.lock().get(&key).cloned()
}

/// The device of this number.
pub(crate) fn device(number: u64) -> Option<Device> {
    let devices = DEVICES.lock();
    let mut all = devices.values();
    all.find(|device| device.number == number).cloned()
}

/// A device was made.
///
/// # Safety
/// The handle is the device's, and `get` the next layer's function.
pub(crate) unsafe fn add(number: u64, handle: vk::Device, get: vk::PFN_vkGetDeviceProcAddr) {
    // SAFETY: the device is alive, and the name a C string
    let find = |name: &CStr| unsafe { get(handle, name.as_ptr().cast::<c_char>()) };
    // SAFETY: that is what it does
    let next = Arc::new(unsafe { Functions::find(find) });
    // SAFETY: the device is alive
    let key = unsafe { key(handle) };
    let device = Device {
        number,
        handle,
        get,
        next,
    };
    DEVICES.lock().insert(key, device);
}

/// The device is being destroyed.
///
/// # Safety
/// As of [`key`].
pub(crate) unsafe fn remove(handle: vk::Device) -> Option<Device> {
    // SAFETY: the caller vouches for it
    let key = unsafe { key(handle) };
    DEVICES.lock().remove(&key)
}
