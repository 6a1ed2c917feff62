//! Function pointers:
//! <https://docs.vulkan.org/spec/latest/chapters/initialization.html#initialization-functionpointers>.

use crate::api::{
    buffer, clock, command, command_buffer, descriptor, device, fence, instance, memory, physical,
    pipeline, query, semaphore, submit,
};
use crate::driver::with_driver;
use crate::requirements::needs;
use crate::usage::{report_invalid_usage, set_current_call};
use ash::vk::{self, Handle};
use fencepost_sim::ffi::read_text;
use std::ffi::c_char;

macro_rules! functions {
    ($($module:ident: $($name:ident),+;)*) => {
        /// The functions of the stand-in, except `vkGetInstanceProcAddr` and `vkGetDeviceProcAddr`.
        pub const FUNCTIONS: &[&str] = &[$($(stringify!($name),)+)*];

        fn address(name: &str) -> Option<*const ()> {
            Some(match name {
                $($(stringify!($name) => $module::$name as *const (),)+)*
                "vkGetInstanceProcAddr" => vkGetInstanceProcAddr as *const (),
                "vkGetDeviceProcAddr" => vkGetDeviceProcAddr as *const (),
                _ => return None,
            })
        }
    };
}

functions! {
    instance: vkEnumerateInstanceVersion, vkEnumerateInstanceExtensionProperties,
        vkEnumerateInstanceLayerProperties, vkCreateInstance, vkDestroyInstance,
        vkEnumeratePhysicalDevices;
    physical: vkEnumerateDeviceExtensionProperties, vkGetPhysicalDeviceProperties,
        vkGetPhysicalDeviceProperties2,
        vkGetPhysicalDeviceFeatures, vkGetPhysicalDeviceFeatures2,
        vkGetPhysicalDeviceQueueFamilyProperties, vkGetPhysicalDeviceQueueFamilyProperties2,
        vkGetPhysicalDeviceMemoryProperties, vkGetPhysicalDeviceMemoryProperties2;
    device: vkCreateDevice, vkDestroyDevice, vkGetDeviceQueue, vkGetDeviceQueue2, vkQueueWaitIdle,
        vkDeviceWaitIdle;
    clock: vkGetPhysicalDeviceCalibrateableTimeDomainsEXT,
        vkGetPhysicalDeviceCalibrateableTimeDomainsKHR, vkGetCalibratedTimestampsEXT,
        vkGetCalibratedTimestampsKHR;
    submit: vkQueueSubmit, vkQueueSubmit2, vkQueueSubmit2KHR;
    fence: vkCreateFence, vkDestroyFence, vkGetFenceStatus, vkResetFences, vkWaitForFences;
    semaphore: vkCreateSemaphore, vkDestroySemaphore, vkGetSemaphoreCounterValue,
        vkGetSemaphoreCounterValueKHR, vkWaitSemaphores, vkWaitSemaphoresKHR, vkSignalSemaphore,
        vkSignalSemaphoreKHR;
    query: vkCreateQueryPool, vkDestroyQueryPool, vkResetQueryPool, vkResetQueryPoolEXT,
        vkGetQueryPoolResults;
    command_buffer: vkCreateCommandPool, vkDestroyCommandPool, vkResetCommandPool,
        vkTrimCommandPool, vkAllocateCommandBuffers, vkFreeCommandBuffers, vkBeginCommandBuffer,
        vkEndCommandBuffer, vkResetCommandBuffer;
    command: vkCmdResetQueryPool, vkCmdWriteTimestamp, vkCmdWriteTimestamp2,
        vkCmdWriteTimestamp2KHR, vkCmdPipelineBarrier, vkCmdPipelineBarrier2,
        vkCmdPipelineBarrier2KHR, vkCmdFillBuffer, vkCmdUpdateBuffer, vkCmdCopyBuffer,
        vkCmdBindPipeline, vkCmdBindDescriptorSets, vkCmdPushConstants, vkCmdDispatch;
    buffer: vkCreateBuffer, vkDestroyBuffer, vkGetBufferMemoryRequirements,
        vkGetBufferMemoryRequirements2, vkBindBufferMemory, vkBindBufferMemory2;
    memory: vkAllocateMemory, vkFreeMemory, vkMapMemory, vkUnmapMemory, vkFlushMappedMemoryRanges,
        vkInvalidateMappedMemoryRanges;
    descriptor: vkCreateDescriptorSetLayout, vkDestroyDescriptorSetLayout, vkCreateDescriptorPool,
        vkDestroyDescriptorPool, vkResetDescriptorPool, vkAllocateDescriptorSets,
        vkFreeDescriptorSets, vkUpdateDescriptorSets;
    pipeline: vkCreateShaderModule, vkDestroyShaderModule, vkCreatePipelineLayout,
        vkDestroyPipelineLayout, vkCreatePipelineCache, vkGetPipelineCacheData,
        vkDestroyPipelineCache, vkCreateComputePipelines, vkDestroyPipeline;
}

/// Which handle a function is called on.
#[derive(PartialEq, Eq)]
enum Level {
    Global,
    Instance,
    Device,
}

fn level(name: &str) -> Level {
    match name {
        "vkCreateInstance" | "vkGetInstanceProcAddr" => Level::Global,
        "vkDestroyInstance"
        | "vkCreateDevice"
        | "vkEnumeratePhysicalDevices"
        | "vkEnumerateDeviceExtensionProperties" => Level::Instance,
        _ if name.starts_with("vkEnumerateInstance") => Level::Global,
        _ if name.starts_with("vkGetPhysicalDevice") => Level::Instance,
        _ => Level::Device,
    }
}

fn function(name: &str) -> vk::PFN_vkVoidFunction {
    let address = address(name)?;
    // SAFETY: it is the address of a function, and the caller casts it to the type of its name
    unsafe { std::mem::transmute::<*const (), vk::PFN_vkVoidFunction>(address) }
}

/// Finds a function by its name. Without an instance it finds the functions that need none, with
/// one all others.
///
/// # Safety
/// `name` is null or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn vkGetInstanceProcAddr(
    instance: vk::Instance,
    name: *const c_char,
) -> vk::PFN_vkVoidFunction {
    // SAFETY: the caller vouches for it
    let name = unsafe { read_text(name) }?;
    set_current_call("vkGetInstanceProcAddr");
    let level = level(&name);
    if instance.is_null() {
        return function(&name).filter(|_| level == Level::Global);
    }
    let known = with_driver(|driver| driver.instances.find(instance).is_ok()).unwrap_or(false);
    function(&name).filter(|_| known && (level != Level::Global || name == "vkGetInstanceProcAddr"))
}

/// Finds a function of a device by its name, if it is enabled on the device.
///
/// # Safety
/// `name` is null or a C string.
unsafe extern "system" fn vkGetDeviceProcAddr(
    device: vk::Device,
    name: *const c_char,
) -> vk::PFN_vkVoidFunction {
    // SAFETY: the caller vouches for it
    let name = unsafe { read_text(name) }?;
    set_current_call("vkGetDeviceProcAddr");
    let enabled = with_driver(|driver| {
        let Some(device) = driver.devices.peek(device) else {
            report_invalid_usage(&format!("device {:#x} is not a device", device.as_raw()));
            return false;
        };
        needs(&name).is_none_or(|needs| needs.enabled_on(device))
    });
    let enabled = enabled.unwrap_or(false) && level(&name) == Level::Device;
    function(&name).filter(|_| enabled)
}

#[cfg(test)]
mod tests {
    use super::{FUNCTIONS, Level, function, level};

    #[test]
    fn every_function_has_an_address_and_four_are_global() {
        assert!(FUNCTIONS.iter().all(|name| function(name).is_some()));
        let global = FUNCTIONS.iter().filter(|name| level(name) == Level::Global);
        assert_eq!(global.count(), 4);
        assert!(function("vkCmdDraw").is_none());
    }
}
