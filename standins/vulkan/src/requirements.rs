//! The version or extension that each function needs.

use crate::device::Device;
use crate::driver::Driver;
use crate::physical::device_extensions;
use crate::table::kind_of;
use crate::usage::{VkResult, invalid_usage};
use ash::vk::{self, Handle, ObjectType};

/// What a function requires: a version, or one of some extensions.
pub(crate) struct Needs {
    /// 11 for 1.1, 12 for 1.2.
    pub(crate) core: u32,
    pub(crate) extensions: &'static [&'static str],
}

impl Needs {
    pub(crate) fn enabled_on(&self, device: &Device) -> bool {
        device.version >= self.core || self.extensions.iter().any(|e| device.has(e))
    }
}

/// `None` for the functions of 1.0.
pub(crate) fn needs(name: &str) -> Option<Needs> {
    const NEVER: u32 = u32::MAX;
    let (core, extensions): (u32, &[&str]) = match name {
        "vkGetPhysicalDeviceProperties2"
        | "vkGetPhysicalDeviceFeatures2"
        | "vkGetPhysicalDeviceQueueFamilyProperties2"
        | "vkGetPhysicalDeviceMemoryProperties2"
        | "vkGetDeviceQueue2"
        | "vkTrimCommandPool"
        | "vkGetBufferMemoryRequirements2"
        | "vkBindBufferMemory2" => (11, &[]),
        "vkGetSemaphoreCounterValue"
        | "vkWaitSemaphores"
        | "vkSignalSemaphore"
        | "vkResetQueryPool" => (12, &[]),
        "vkQueueSubmit2" | "vkCmdWriteTimestamp2" | "vkCmdPipelineBarrier2" => (13, &[]),
        "vkGetSemaphoreCounterValueKHR" | "vkWaitSemaphoresKHR" | "vkSignalSemaphoreKHR" => {
            (NEVER, &["VK_KHR_timeline_semaphore"])
        }
        "vkResetQueryPoolEXT" => (NEVER, &["VK_EXT_host_query_reset"]),
        "vkQueueSubmit2KHR" | "vkCmdWriteTimestamp2KHR" | "vkCmdPipelineBarrier2KHR" => {
            (NEVER, &["VK_KHR_synchronization2"])
        }
        "vkGetPhysicalDeviceCalibrateableTimeDomainsEXT" | "vkGetCalibratedTimestampsEXT" => {
            (NEVER, &["VK_EXT_calibrated_timestamps"])
        }
        "vkGetPhysicalDeviceCalibrateableTimeDomainsKHR" | "vkGetCalibratedTimestampsKHR" => {
            (NEVER, &["VK_KHR_calibrated_timestamps"])
        }
        _ => return None,
    };
    Some(Needs { core, extensions })
}

impl Driver {
    /// The device that a dispatchable handle belongs to.
    pub(crate) fn device_of(&self, handle: u64) -> Option<vk::Device> {
        match kind_of(handle) {
            ObjectType::DEVICE => Some(vk::Device::from_raw(handle)),
            ObjectType::QUEUE => {
                let queue = self.queues.find(vk::Queue::from_raw(handle)).ok()?;
                Some(queue.device)
            }
            ObjectType::COMMAND_BUFFER => {
                let buffer = vk::CommandBuffer::from_raw(handle);
                Some(self.command_buffers.find(buffer).ok()?.device)
            }
            _ => None,
        }
    }

    /// Loses the device of a call that returns `ERROR_DEVICE_LOST` because a test has planned it.
    pub(crate) fn lose_device_of(&mut self, handle: u64) {
        let device = self
            .device_of(handle)
            .map(|device| self.devices.find(device));
        if let Some(Ok(device)) = device {
            device.shared.lose("a planned failure");
        }
    }

    /// Reports a call of a function if neither its version nor one of its extensions is enabled.
    pub(crate) fn check_enabled(&self, name: &str, target: u64) -> VkResult {
        let Some(needs) = needs(name) else {
            return Ok(());
        };
        let enabled = match self.device_of(target) {
            Some(device) => {
                let device = self.devices.find(device)?;
                needs.enabled_on(device)
            }
            None => match kind_of(target) {
                ObjectType::PHYSICAL_DEVICE => {
                    let physical = vk::PhysicalDevice::from_raw(target);
                    let instance = self.physicals.find(physical)?.instance;
                    let instance = self.instances.find(instance)?;
                    let have = device_extensions(&self.options);
                    // a physical-device function of a device extension requires only that the
                    // device supports the extension
                    let device_level = |e: &&&str| have.contains(&**e);
                    instance.version >= needs.core
                        || needs.extensions.iter().any(|e| instance.has(e))
                        || needs.extensions.iter().find(device_level).is_some()
                }
                _ => true,
            },
        };
        if enabled {
            return Ok(());
        }
        Err(invalid_usage(
            "neither its version nor its extension is enabled",
        ))
    }
}
