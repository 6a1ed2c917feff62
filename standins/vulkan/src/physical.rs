//! PhysicalDevice devices: <https://docs.vulkan.org/spec/latest/chapters/devsandqueues.html>,
//! <https://docs.vulkan.org/spec/latest/chapters/features.html>.

use crate::driver::Driver;
use crate::entry::{call, call_void};
use crate::ffi::{Out, characters, enumerate, fill_chain};
use crate::instance::extension;
use crate::table::Child;
use crate::usage::invalid_usage;
use ash::vk::{self, Handle};
use std::ffi::{c_char, c_void};

/// The name of every device.
pub(crate) const NAME: &str = "fencepost stand-in (no Vulkan hardware)";

#[derive(Debug)]
pub(crate) struct PhysicalDevice {
    pub(crate) instance: vk::Instance,
    pub(crate) index: usize,
    /// Whether it is removed for good, so that creating a device fails.
    pub(crate) lost: bool,
}

impl Child for PhysicalDevice {
    fn parent(&self) -> u64 {
        self.instance.as_raw()
    }
}

/// It must be enabled if it is supported: VUID-VkDeviceCreateInfo-pProperties-04451.
pub(crate) const PORTABILITY_SUBSET: &str = "VK_KHR_portability_subset";

/// A queue family.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Family {
    pub(crate) flags: vk::QueueFlags,
    pub(crate) count: u32,
    pub(crate) valid_bits: u32,
}

impl Driver {
    pub(crate) fn families(&self) -> Vec<Family> {
        let work = vk::QueueFlags::COMPUTE | vk::QueueFlags::TRANSFER;
        let family = |flags, count, bits| Family {
            flags,
            count,
            valid_bits: self.options.valid_bits.unwrap_or(bits) as u32,
        };
        let graphics = work | vk::QueueFlags::GRAPHICS;
        if self.options.single_queue {
            return vec![family(graphics, 1, 64)];
        }
        vec![
            family(graphics, 3, 64),
            family(work, 2, 36),
            Family {
                flags: work,
                count: 1,
                valid_bits: 0,
            },
        ]
    }

    pub(crate) fn device_extensions(&self) -> Vec<&'static str> {
        let mut all = Vec::new();
        let options = &self.options;
        if options.timeline {
            all.push("VK_KHR_timeline_semaphore");
        }
        if options.host_reset {
            all.push("VK_EXT_host_query_reset");
        }
        if options.sync2 {
            all.push("VK_KHR_synchronization2");
        }
        if options.portability {
            all.push(PORTABILITY_SUBSET);
        }
        if options.calibrated {
            all.extend([
                "VK_EXT_calibrated_timestamps",
                "VK_KHR_calibrated_timestamps",
            ]);
        }
        all
    }

    pub(crate) fn api_version(&self) -> u32 {
        version_of(self.options.api)
    }

    /// Nanoseconds per tick, which differ between devices.
    pub(crate) fn period(index: usize) -> f32 {
        [1.0, 52.083_332][index % 2]
    }

    fn properties(&self, index: usize) -> vk::PhysicalDeviceProperties {
        let limits = vk::PhysicalDeviceLimits {
            max_memory_allocation_count: self.options.max_allocations as u32,
            max_storage_buffer_range: 1 << 27,
            max_push_constants_size: 128,
            max_bound_descriptor_sets: 4,
            max_compute_work_group_count: [65535; 3],
            max_compute_work_group_invocations: 256,
            max_compute_work_group_size: [256, 256, 64],
            min_storage_buffer_offset_alignment: 64,
            min_memory_map_alignment: 4096,
            non_coherent_atom_size: 64,
            timestamp_compute_and_graphics: (self.families().iter().all(|f| f.valid_bits > 0))
                .into(),
            timestamp_period: Driver::period(index),
            ..Default::default()
        };
        vk::PhysicalDeviceProperties {
            api_version: self.api_version(),
            driver_version: 1,
            vendor_id: 0x1_0000,
            device_id: index as u32 + 1,
            device_type: vk::PhysicalDeviceType::OTHER,
            device_name: characters(NAME),
            pipeline_cache_uuid: uuid(0xff),
            limits,
            ..Default::default()
        }
    }

    fn memory_properties(&self) -> vk::PhysicalDeviceMemoryProperties {
        let mut all = vk::PhysicalDeviceMemoryProperties::default();
        let visible = vk::MemoryPropertyFlags::HOST_VISIBLE;
        let types = [
            (vk::MemoryPropertyFlags::DEVICE_LOCAL, 0),
            (visible | vk::MemoryPropertyFlags::HOST_COHERENT, 1),
            (visible | vk::MemoryPropertyFlags::HOST_CACHED, 1),
        ];
        all.memory_type_count = types.len() as u32;
        for (to, (property_flags, heap_index)) in all.memory_types.iter_mut().zip(types) {
            *to = vk::MemoryType {
                property_flags,
                heap_index,
            };
        }
        all.memory_heap_count = 2;
        for (index, heap) in all.memory_heaps.iter_mut().take(2).enumerate() {
            heap.size = self.options.heap;
            if index == 0 {
                heap.flags = vk::MemoryHeapFlags::DEVICE_LOCAL;
            }
        }
        all
    }
}

/// 12 is 1.2, and so on.
pub(crate) fn version_of(number: u64) -> u32 {
    vk::make_api_version(0, 1, number as u32 % 10, 0)
}

/// Sixteen bytes that begin with `fencepost-sim`.
fn uuid(last: u8) -> [u8; 16] {
    let mut bytes = *b"fencepost-sim\0\0\0";
    bytes[15] = last;
    bytes
}

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
            let all = driver.device_extensions();
            enumerate(count, properties, all.into_iter().map(extension))
        },
    )
}

pub(crate) extern "system" fn vkGetPhysicalDeviceProperties(
    physical: vk::PhysicalDevice,
    properties: Out<'_, vk::PhysicalDeviceProperties>,
) {
    call_void("vkGetPhysicalDeviceProperties", physical, &[], |driver| {
        let index = driver.physicals.find(physical)?.index;
        properties.required()?.put(driver.properties(index));
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
            return Err(invalid_usage("a place for a result is null"));
        };
        all.properties = driver.properties(index);
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
            return Err(invalid_usage("a place for a result is null"));
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
        let families = driver.families();
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
        let families = driver.families();
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
            properties.required()?.put(driver.memory_properties());
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
                Some(all) => all.memory_properties = driver.memory_properties(),
                None => return Err(invalid_usage("a place for a result is null")),
            }
            Ok(())
        },
    );
}
