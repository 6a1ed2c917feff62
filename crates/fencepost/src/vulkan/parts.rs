//! What a device is made of, and what its driver says of it.

use std::{any::Any, ffi::CStr, sync::Arc, time::Duration};

use ash::{Device as Table, Instance, vk};

use crate::{
    clock::Clock,
    error::{Error, Result},
};

/// The optional features that the caller enabled when making the device, which Vulkan does not
/// tell. Without a feature, older calls are used in its place.
///
/// ```
/// let features = fencepost::vulkan::Features { synchronization2: true, ..Default::default() };
/// assert!(!features.host_query_reset);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Features {
    /// `VkPhysicalDeviceSynchronization2Features::synchronization2`, with Vulkan 1.3 or the
    /// extension.
    pub synchronization2: bool,
    /// `VkPhysicalDeviceHostQueryResetFeatures::hostQueryReset`.
    pub host_query_reset: bool,
    /// `VK_KHR_calibrated_timestamps` or `VK_EXT_calibrated_timestamps`, with
    /// `VK_TIME_DOMAIN_DEVICE` among the time domains that the device has. Without it,
    /// [`Device::correlate`](crate::Device::correlate) waits for a stamp of its own.
    pub calibrated_timestamps: bool,
}

/// What a device is made of, ours or the caller's.
pub(super) struct Parts {
    pub(super) instance: Instance,
    pub(super) physical: vk::PhysicalDevice,
    pub(super) device: Table,
    /// The optional features that are enabled.
    pub(super) features: Features,
    pub(super) name: String,
    pub(super) keep_alive: Option<Arc<dyn Any + Send + Sync>>,
}

/// What this backend calls of every device.
const NEEDED: [&CStr; 6] = [
    c"vkQueueSubmit",
    c"vkCreateSemaphore",
    c"vkGetSemaphoreCounterValue",
    c"vkWaitSemaphores",
    c"vkSignalSemaphore",
    c"vkGetQueryPoolResults",
];

/// The functions that a device may lack.
pub(super) struct Optional {
    pub(super) submit2: Option<vk::PFN_vkQueueSubmit2>,
    pub(super) write2: Option<vk::PFN_vkCmdWriteTimestamp2>,
    pub(super) host_reset: bool,
    pub(super) calibrated: Option<vk::PFN_vkGetCalibratedTimestampsKHR>,
}

impl Optional {
    /// Looks up what the features of `parts` bring; an error where a function is missing that every
    /// device needs.
    ///
    /// # Safety
    /// As [`Gpu::new`](super::gpu::Gpu::new).
    pub(super) unsafe fn find(parts: &Parts) -> Result<Optional> {
        let (instance, device) = (&parts.instance, &parts.device);
        let find = |names: &[&CStr]| {
            names.iter().find_map(|name| {
                // SAFETY: the device is alive; the name is a C string.
                unsafe { (instance.fp_v1_0().get_device_proc_addr)(device.handle(), name.as_ptr()) }
            })
        };
        if let Some(missing) = NEEDED.iter().find(|name| find(&[name]).is_none()) {
            return Err(Error::Unavailable {
                device: parts.name.clone(),
                why: format!(
                    "its driver has no {}; update the driver, or make the device with Vulkan 1.2",
                    missing.to_string_lossy()
                ),
            });
        }
        // The caller said that the features are enabled. If the driver lacks their functions all
        // the same, the older ones are used.
        let two = |names: &[&CStr]| find(names).filter(|_| parts.features.synchronization2);
        let calibrated = find(&[
            c"vkGetCalibratedTimestampsKHR",
            c"vkGetCalibratedTimestampsEXT",
        ])
        .filter(|_| parts.features.calibrated_timestamps);
        type Found = unsafe extern "system" fn();
        Ok(Optional {
            submit2: two(&[c"vkQueueSubmit2", c"vkQueueSubmit2KHR"]).map(|found| {
                // SAFETY: a function of this name has this type.
                unsafe { std::mem::transmute::<Found, vk::PFN_vkQueueSubmit2>(found) }
            }),
            write2: two(&[c"vkCmdWriteTimestamp2", c"vkCmdWriteTimestamp2KHR"]).map(|found| {
                // SAFETY: as above.
                unsafe { std::mem::transmute::<Found, vk::PFN_vkCmdWriteTimestamp2>(found) }
            }),
            host_reset: parts.features.host_query_reset && find(&[c"vkResetQueryPool"]).is_some(),
            calibrated: calibrated.map(|found| {
                // SAFETY: as above; both names have one type.
                unsafe { std::mem::transmute::<Found, vk::PFN_vkGetCalibratedTimestampsKHR>(found) }
            }),
        })
    }
}

/// What the driver says of a device.
pub(super) struct Facts {
    model: String,
    /// The nanoseconds of a tick.
    period: f32,
    pub(super) driver: vk::DriverId,
    pub(super) uuid: [u8; 16],
    pub(super) families: Vec<vk::QueueFamilyProperties>,
}

impl Facts {
    /// # Safety
    /// As [`Gpu::new`](super::gpu::Gpu::new).
    pub(super) unsafe fn of(parts: &Parts) -> Facts {
        let (instance, physical) = (&parts.instance, parts.physical);
        let mut driver = vk::PhysicalDeviceDriverProperties::default();
        let mut ids = vk::PhysicalDeviceIDProperties::default();
        let mut facts = vk::PhysicalDeviceProperties2::default()
            .push_next(&mut driver)
            .push_next(&mut ids);
        // SAFETY: the physical device is of the instance; the chain is alive during the call.
        unsafe { instance.get_physical_device_properties2(physical, &mut facts) };
        let facts = facts.properties;
        // SAFETY: as above.
        let families = unsafe { instance.get_physical_device_queue_family_properties(physical) };
        let model = facts.device_name_as_c_str();
        Facts {
            model: model.map_or("a device".into(), |name| {
                name.to_string_lossy().into_owned()
            }),
            period: facts.limits.timestamp_period,
            driver: driver.driver_id,
            uuid: ids.device_uuid,
            families,
        }
    }

    pub(super) fn clock(&self) -> Clock {
        clock(&self.model, self.period, &self.families)
    }
}

/// The clock names the device, so that every report says what it was measured on. Its valid bits
/// are those that all queue families have. The time between two markers uses the bits that their
/// own families have.
fn clock(model: &str, period: f32, families: &[vk::QueueFamilyProperties]) -> Clock {
    let bits = families.iter().map(|family| family.timestamp_valid_bits);
    let bits = bits.filter(|&bits| bits > 0).min().unwrap_or(64);
    let period = f64::from(period);
    // A duration has whole nanoseconds: rounded up, so that no clock seems finer than it is.
    let resolution = Duration::from_nanos(period.ceil().max(1.0) as u64);
    // Some count nanoseconds and move on by 32 of them.
    Clock::learning(
        format!("Vulkan timestamps of {model}"),
        period,
        bits,
        resolution,
        1,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wraps::{Bounds, Reading};

    #[test]
    fn a_clock_promises_what_all_families_have() {
        let families =
            [64, 36, 0].map(|bits| vk::QueueFamilyProperties::default().timestamp_valid_bits(bits));
        let clock = clock("a GPU", 52.083_332, &families);
        assert_eq!(
            clock.valid_bits(),
            36,
            "families without timestamps have no say"
        );
        assert_eq!(clock.resolution(), Duration::from_nanos(53));
        assert!((clock.tick_nanos() - 52.083_332).abs() < 1e-5);
        assert!(clock.name().contains("a GPU"));
    }

    /// The time between two readings that the host saw within a microsecond.
    fn between(clock: &Clock, bits: u32, start: u64, end: u64) -> f64 {
        let (before, after) = (0, 1000);
        let bounds = Some(Bounds { before, after });
        let [start, end] = [start, end].map(|ticks| Reading {
            ticks,
            bits,
            bounds,
        });
        clock.between(start, end).unwrap().as_nanos_f64()
    }

    #[test]
    fn a_wrap_between_start_and_end_is_seen_through() {
        for (bits, tick) in [(64, 1.0), (36, 1.0), (32, 52.5)] {
            let families = [vk::QueueFamilyProperties::default().timestamp_valid_bits(bits)];
            let clock = clock("a GPU", tick, &families);
            let top = crate::vulkan::timestamp::mask(bits);
            let ten = f64::from(tick) * 10.0;
            assert_eq!(between(&clock, bits, top - 4, 5), ten, "{bits} bits");
            assert_eq!(between(&clock, bits, 5, top - 4), -ten, "{bits} bits");
        }
    }

    #[test]
    fn two_families_are_compared_by_the_bits_that_both_have() {
        let families =
            [64, 36].map(|bits| vk::QueueFamilyProperties::default().timestamp_valid_bits(bits));
        let clock = clock("a GPU", 1.0, &families);
        let start = (7 << 36) + 5;
        let end = (start + 10) & crate::vulkan::timestamp::mask(36);
        assert_eq!(between(&clock, 36, start, end), 10.0);
    }
}
