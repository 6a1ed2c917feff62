//! Physical devices: <https://docs.vulkan.org/spec/latest/chapters/devsandqueues.html>,
//! <https://docs.vulkan.org/spec/latest/chapters/features.html>.

use crate::entry::{call, call_void};
use crate::ffi::{Out, characters, enumerate, extension_properties, fill_chain};
use crate::physical::{
    Family, device_extensions, families, memory_properties, properties as properties_of, uuid,
};
use crate::usage::invalid_usage;
use ash::vk;
use std::ffi::{c_char, c_void};

pub(crate) extern "system" fn vkEnumerateDeviceExtensionProperties(
    physical: vk::PhysicalDevice,
    layer: *const c_char,
    count: *mut u32,
    properties: Out<'_, vk::ExtensionProperties>,
) -> vk::Result {
    call(
        "vkEnumerateDeviceExtensionProperties",
        physical,
        &[],
        |driver| {
            driver.physicals.find(physical)?;
            if !layer.is_null() {
                return Err(vk::Result::ERROR_LAYER_NOT_PRESENT);
            }
            let all = device_extensions(&driver.options);
            enumerate(count, properties, all.into_iter().map(extension_properties))
        },
    )
}

pub(crate) extern "system" fn vkGetPhysicalDeviceProperties(
    physical: vk::PhysicalDevice,
    properties: Out<'_, vk::PhysicalDeviceProperties>,
) {
    call_void("vkGetPhysicalDeviceProperties", physical, &[], |driver| {
        let index = driver.physicals.find(physical)?.index;
        properties
            .required()?
            .put(properties_of(&driver.options, index));
        Ok(())
    });
}

pub(crate) extern "system" fn vkGetPhysicalDeviceProperties2(
    physical: vk::PhysicalDevice,
    properties: *mut vk::PhysicalDeviceProperties2<'_>,
) {
    call_void("vkGetPhysicalDeviceProperties2", physical, &[], |driver| {
        let index = driver.physicals.find(physical)?.index;
        // SAFETY: `pProperties` must be a valid pointer to this structure
        let Some(all) = (unsafe { properties.as_mut() }) else {
            return Err(invalid_usage("a pointer to a result is null"));
        };
        all.properties = properties_of(&driver.options, index);
        let difference = driver.options.max_difference;
        let driver_name = characters("fencepost-sim-vulkan");
        let driver_info = characters("a stand-in for tests");
        fill_chain(all.p_next, |kind, at| match kind {
            vk::StructureType::PHYSICAL_DEVICE_TIMELINE_SEMAPHORE_PROPERTIES => {
                // SAFETY: a structure with this `sType` must be of the type that belongs to it
                let it =
                    unsafe { &mut *at.cast::<vk::PhysicalDeviceTimelineSemaphoreProperties<'_>>() };
                it.max_timeline_semaphore_value_difference = difference;
            }
            vk::StructureType::PHYSICAL_DEVICE_VULKAN_1_2_PROPERTIES => {
                // SAFETY: as above
                let it = unsafe { &mut *at.cast::<vk::PhysicalDeviceVulkan12Properties<'_>>() };
                it.max_timeline_semaphore_value_difference = difference;
                (it.driver_name, it.driver_info) = (driver_name, driver_info);
            }
            vk::StructureType::PHYSICAL_DEVICE_DRIVER_PROPERTIES => {
                // SAFETY: as above
                let it = unsafe { &mut *at.cast::<vk::PhysicalDeviceDriverProperties<'_>>() };
                (it.driver_name, it.driver_info) = (driver_name, driver_info);
            }
            vk::StructureType::PHYSICAL_DEVICE_ID_PROPERTIES => {
                // SAFETY: as above
                let it = unsafe { &mut *at.cast::<vk::PhysicalDeviceIDProperties<'_>>() };
                (it.device_uuid, it.driver_uuid) = (uuid(index as u8), uuid(0xff));
                (it.device_luid_valid, it.device_node_mask) = (0, 0);
            }
            vk::StructureType::PHYSICAL_DEVICE_VULKAN_1_1_PROPERTIES => {
                // SAFETY: as above
                let it = unsafe { &mut *at.cast::<vk::PhysicalDeviceVulkan11Properties<'_>>() };
                (it.device_uuid, it.driver_uuid) = (uuid(index as u8), uuid(0xff));
                (it.device_luid_valid, it.device_node_mask) = (0, 0);
            }
            _ => {}
        });
        Ok(())
    });
}

pub(crate) extern "system" fn vkGetPhysicalDeviceFeatures(
    physical: vk::PhysicalDevice,
    features: Out<'_, vk::PhysicalDeviceFeatures>,
) {
    call_void("vkGetPhysicalDeviceFeatures", physical, &[], |driver| {
        driver.physicals.find(physical)?;
        features.required()?.put(Default::default());
        Ok(())
    });
}

pub(crate) extern "system" fn vkGetPhysicalDeviceFeatures2(
    physical: vk::PhysicalDevice,
    features: *mut vk::PhysicalDeviceFeatures2<'_>,
) {
    call_void("vkGetPhysicalDeviceFeatures2", physical, &[], |driver| {
        driver.physicals.find(physical)?;
        // SAFETY: `pFeatures` must be a valid pointer to this structure
        let Some(all) = (unsafe { features.as_mut() }) else {
            return Err(invalid_usage("a pointer to a result is null"));
        };
        all.features = Default::default();
        let options = &driver.options;
        let (timeline, reset, sync2) = (
            options.timeline.into(),
            options.host_reset.into(),
            options.sync2.into(),
        );
        fill_chain(all.p_next, |kind, at| match kind {
            vk::StructureType::PHYSICAL_DEVICE_VULKAN_1_2_FEATURES => {
                // SAFETY: a structure with this `sType` must be of the type that belongs to it
                let it = unsafe { &mut *at.cast::<vk::PhysicalDeviceVulkan12Features<'_>>() };
                (it.timeline_semaphore, it.host_query_reset) = (timeline, reset);
            }
            vk::StructureType::PHYSICAL_DEVICE_VULKAN_1_3_FEATURES => {
                // SAFETY: as above
                let it = unsafe { &mut *at.cast::<vk::PhysicalDeviceVulkan13Features<'_>>() };
                it.synchronization2 = sync2;
            }
            _ => one_feature(kind, at, [timeline, reset, sync2]),
        });
        Ok(())
    });
}

/// Fills a structure that has one feature.
fn one_feature(kind: vk::StructureType, at: *mut c_void, has: [vk::Bool32; 3]) {
    match kind {
        vk::StructureType::PHYSICAL_DEVICE_TIMELINE_SEMAPHORE_FEATURES => {
            // SAFETY: a structure with this `sType` must be of the type that belongs to it
            let it = unsafe { &mut *at.cast::<vk::PhysicalDeviceTimelineSemaphoreFeatures<'_>>() };
            it.timeline_semaphore = has[0];
        }
        vk::StructureType::PHYSICAL_DEVICE_HOST_QUERY_RESET_FEATURES => {
            // SAFETY: as above
            let it = unsafe { &mut *at.cast::<vk::PhysicalDeviceHostQueryResetFeatures<'_>>() };
            it.host_query_reset = has[1];
        }
        vk::StructureType::PHYSICAL_DEVICE_SYNCHRONIZATION_2_FEATURES => {
            // SAFETY: as above
            let it = unsafe { &mut *at.cast::<vk::PhysicalDeviceSynchronization2Features<'_>>() };
            it.synchronization2 = has[2];
        }
        _ => {}
    }
}

fn family_properties(family: &Family) -> vk::QueueFamilyProperties {
    vk::QueueFamilyProperties {
        queue_flags: family.flags,
        queue_count: family.count,
        timestamp_valid_bits: family.valid_bits,
        ..Default::default()
    }
}

pub(crate) extern "system" fn vkGetPhysicalDeviceQueueFamilyProperties(
    physical: vk::PhysicalDevice,
    count: *mut u32,
    properties: Out<'_, vk::QueueFamilyProperties>,
) {
    let name = "vkGetPhysicalDeviceQueueFamilyProperties";
    call_void(name, physical, &[], |driver| {
        driver.physicals.find(physical)?;
        let families = families(&driver.options);
        enumerate(count, properties, families.iter().map(family_properties))
    });
}

pub(crate) extern "system" fn vkGetPhysicalDeviceQueueFamilyProperties2(
    physical: vk::PhysicalDevice,
    count: *mut u32,
    properties: *mut vk::QueueFamilyProperties2<'_>,
) {
    let name = "vkGetPhysicalDeviceQueueFamilyProperties2";
    call_void(name, physical, &[], |driver| {
        driver.physicals.find(physical)?;
        let families = families(&driver.options);
        // SAFETY: a valid pointer to the count
        let Some(count) = (unsafe { count.as_mut() }) else {
            return Err(invalid_usage("the count is null"));
        };
        if !properties.is_null() {
            for (index, family) in families.iter().enumerate().take(*count as usize) {
                // SAFETY: a valid pointer to `count` structures
                let to = unsafe { &mut (*properties.add(index)).queue_family_properties };
                *to = family_properties(family);
            }
        }
        *count = families.len() as u32;
        Ok(())
    });
}

pub(crate) extern "system" fn vkGetPhysicalDeviceMemoryProperties(
    physical: vk::PhysicalDevice,
    properties: Out<'_, vk::PhysicalDeviceMemoryProperties>,
) {
    call_void(
        "vkGetPhysicalDeviceMemoryProperties",
        physical,
        &[],
        |driver| {
            driver.physicals.find(physical)?;
            properties
                .required()?
                .put(memory_properties(&driver.options));
            Ok(())
        },
    );
}

pub(crate) extern "system" fn vkGetPhysicalDeviceMemoryProperties2(
    physical: vk::PhysicalDevice,
    properties: *mut vk::PhysicalDeviceMemoryProperties2<'_>,
) {
    call_void(
        "vkGetPhysicalDeviceMemoryProperties2",
        physical,
        &[],
        |driver| {
            driver.physicals.find(physical)?;
            // SAFETY: `pMemoryProperties` must be a valid pointer to this structure
            match unsafe { properties.as_mut() } {
                Some(all) => all.memory_properties = memory_properties(&driver.options),
                None => return Err(invalid_usage("a pointer to a result is null")),
            }
            Ok(())
        },
    );
}
