//! Devices of our own: which there are, and how one is made.

use std::{ffi::CStr, sync::OnceLock};

use ash::{Instance, vk};

use super::{
    device::{VkDevice, as_vulkan},
    gpu::Gpu,
    loader::{self, Found, Loader},
    parts::{Features, Parts},
    queue::Queue,
};
use crate::{
    contract::{DeviceRef, Missing},
    error::{Error, Result},
    sync::{Mutex, lock},
};

/// How many devices there are.
pub(crate) fn count() -> Result<usize, Missing> {
    Loader::get().map(|loader| loader.devices.len())
}

/// Whether the first device is hardware, to be preferred to the host.
pub(crate) fn is_hardware() -> bool {
    Loader::get().is_ok_and(|loader| loader.devices.first().is_some_and(|first| !first.software))
}

/// The device of this index; the same one each time, until it is lost.
pub(crate) fn open(index: usize) -> Result<DeviceRef> {
    // Before the lock, which a thread of the parent may hold.
    Loader::to_call(&format!("vulkan:{index}"))?;
    static DEVICES: OnceLock<Mutex<Vec<(usize, DeviceRef)>>> = OnceLock::new();
    let mut devices = lock(DEVICES.get_or_init(|| Mutex::new(Vec::new())));
    if let Some((_, device)) = devices.iter().find(|(known, _)| *known == index)
        && as_vulkan(&**device)?.gpu.lost().is_none()
    {
        return Ok(device.clone());
    }
    let device = make(index, None)?;
    let lost: Vec<_> = devices
        .extract_if(.., |(known, _)| *known == index)
        .collect();
    devices.push((index, device.clone()));
    drop(devices);
    // Dropped without the lock: this may be the last owner.
    drop(lost);
    Ok(device)
}

/// Makes a `VkDevice` of our own, with the optional features that the device has and `only` allows.
pub(crate) fn make(index: usize, only: Option<Features>) -> Result<DeviceRef> {
    let name = format!("vulkan:{index}");
    let unavailable = |why: String| Error::Unavailable {
        device: name.clone(),
        why,
    };
    let loader = Loader::to_call(&name)?;
    let Some(found) = loader.devices.get(index) else {
        return Err(unavailable(format!(
            "there are {} Vulkan devices, counted from 0",
            loader.devices.len()
        )));
    };
    let instance = &loader.instance;
    let offer = Offer::of(loader, found);
    let features = only.map_or(offer.features, |only| Features {
        synchronization2: offer.features.synchronization2 && only.synchronization2,
        host_query_reset: offer.features.host_query_reset && only.host_query_reset,
        calibrated_timestamps: offer.features.calibrated_timestamps && only.calibrated_timestamps,
    });
    // SAFETY: a device of this instance.
    let families = unsafe { instance.get_physical_device_queue_family_properties(found.raw) };
    let (family, queues) = best_family(&families)
        .ok_or_else(|| unavailable(format!("{} has no queue that computes", found.name)))?;
    let device = offer
        .create(instance, found, features, (family, queues))
        .map_err(|error| {
            unavailable(format!(
                "vkCreateDevice failed: {error}; close other users of {}, or update its driver",
                found.name
            ))
        })?;
    let table = device.clone();
    // SAFETY: the device was just made, with these features; the instance lives as long as the
    // process.
    let gpu = unsafe {
        Gpu::new(Parts {
            instance: instance.clone(),
            physical: found.raw,
            device,
            features,
            name,
            keep_alive: None,
        })
    };
    let gpu = gpu.inspect_err(|_| {
        // SAFETY: made just now; nothing was made of it that is still there.
        unsafe { table.destroy_device(None) }
    })?;
    for index in 0..queues {
        // SAFETY: the device was made with that many queues of the family.
        let raw = unsafe { gpu.device.get_device_queue(family, index) };
        gpu.add_queue(Queue::new(raw, family, None));
    }
    VkDevice::new(gpu).map(DeviceRef::new)
}

/// The optional parts of a physical device that we can use.
struct Offer {
    /// Whether it has Vulkan 1.3, as our instance sees it.
    one_three: bool,
    /// Whether it does not conform, so that `VK_KHR_portability_subset` must be enabled.
    subset: bool,
    /// The extension that has calibrated timestamps.
    calibrated: Option<&'static CStr>,
    features: Features,
}

impl Offer {
    fn of(loader: &Loader, found: &Found) -> Offer {
        let instance = &loader.instance;
        // SAFETY: a device of this instance, here and below.
        let facts = unsafe { instance.get_physical_device_properties(found.raw) };
        // A device offers no newer version than its instance:
        // https://registry.khronos.org/vulkan/specs/latest/html/vkspec.html#extendingvulkan-coreversions
        let one_three = facts.api_version.min(loader.version) >= vk::API_VERSION_1_3;
        // SAFETY: as above.
        let extensions = unsafe { instance.enumerate_device_extension_properties(found.raw) };
        let extensions = extensions.unwrap_or_default();
        let has = |name| extensions.iter().any(|one| loader::is_named(one, name));
        let mut two = vk::PhysicalDeviceSynchronization2Features::default();
        let mut reset = vk::PhysicalDeviceHostQueryResetFeatures::default();
        let mut all = vk::PhysicalDeviceFeatures2::default().push_next(&mut reset);
        if one_three || has(ash::khr::synchronization2::NAME) {
            all = all.push_next(&mut two);
        }
        // SAFETY: as above; the chain is alive during the call.
        unsafe { instance.get_physical_device_features2(found.raw, &mut all) };
        let calibrated = [
            ash::khr::calibrated_timestamps::NAME,
            ash::ext::calibrated_timestamps::NAME,
        ];
        let calibrated = calibrated
            .into_iter()
            .find(|name| has(name) && loader.reads_the_clock_of(found.raw, name));
        Offer {
            one_three,
            subset: has(ash::khr::portability_subset::NAME),
            calibrated,
            features: Features {
                synchronization2: two.synchronization2 == vk::TRUE,
                host_query_reset: reset.host_query_reset == vk::TRUE,
                calibrated_timestamps: calibrated.is_some(),
            },
        }
    }

    /// Creates a device with `features`, and with `queues` queues of `family`.
    fn create(
        &self,
        instance: &Instance,
        found: &Found,
        features: Features,
        (family, queues): (u32, u32),
    ) -> Result<ash::Device, vk::Result> {
        let priorities = vec![1.0; queues as usize];
        let queue = [vk::DeviceQueueCreateInfo::default()
            .queue_family_index(family)
            .queue_priorities(&priorities)];
        let mut timeline =
            vk::PhysicalDeviceTimelineSemaphoreFeatures::default().timeline_semaphore(true);
        let mut two = vk::PhysicalDeviceSynchronization2Features::default().synchronization2(true);
        let mut reset = vk::PhysicalDeviceHostQueryResetFeatures::default().host_query_reset(true);
        let mut names = Vec::new();
        if self.subset {
            // To be enabled where it is there: VUID-VkDeviceCreateInfo-pProperties-04451.
            names.push(ash::khr::portability_subset::NAME.as_ptr());
        }
        let mut info = vk::DeviceCreateInfo::default()
            .queue_create_infos(&queue)
            .push_next(&mut timeline);
        if features.synchronization2 {
            info = info.push_next(&mut two);
            if !self.one_three {
                names.push(ash::khr::synchronization2::NAME.as_ptr());
            }
        }
        if features.host_query_reset {
            info = info.push_next(&mut reset);
        }
        if let Some(calibrated) = self.calibrated.filter(|_| features.calibrated_timestamps) {
            names.push(calibrated.as_ptr());
        }
        info = info.enabled_extension_names(&names);
        // SAFETY: the device has the features and extensions; the chain is alive during the call.
        unsafe { instance.create_device(found.raw, &info, None) }
    }
}

/// The queue family for our streams, and how many of its queues to use. Of the families that
/// compute, those with timestamps come first, and of these the one with the most queues. All
/// streams use one family, so that all their timestamps have the same valid bits.
fn best_family(families: &[vk::QueueFamilyProperties]) -> Option<(u32, u32)> {
    const MOST: u32 = 16;
    (0..)
        .zip(families)
        .filter(|(_, family)| family.queue_flags.contains(vk::QueueFlags::COMPUTE))
        .max_by_key(|(index, family)| {
            let timed = family.timestamp_valid_bits > 0;
            (
                timed,
                family.queue_count.min(MOST),
                std::cmp::Reverse(*index),
            )
        })
        .map(|(index, family)| (index, family.queue_count.min(MOST)))
}
