//! Physical devices: their queue families, extensions, properties and memory.

use crate::ffi::characters;
use crate::options::Options;
use crate::table::Child;
use ash::vk::{self, Handle};

/// The name of every device.
const NAME: &str = "fencepost stand-in (no Vulkan hardware)";

#[derive(Debug)]
pub(crate) struct PhysicalDevice {
    pub(crate) instance: vk::Instance,
    pub(crate) index: usize,
    /// Whether it is removed, so that creating a device fails from now on.
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

pub(crate) fn families(options: &Options) -> Vec<Family> {
    let work = vk::QueueFlags::COMPUTE | vk::QueueFlags::TRANSFER;
    let family = |flags, count, bits| Family {
        flags,
        count,
        valid_bits: options.valid_bits.unwrap_or(bits) as u32,
    };
    let graphics = work | vk::QueueFlags::GRAPHICS;
    if options.single_queue {
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

pub(crate) fn device_extensions(options: &Options) -> Vec<&'static str> {
    let mut all = Vec::new();
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

/// Nanoseconds per tick. They differ between devices.
pub(crate) fn period(index: usize) -> f32 {
    [1.0, 52.083_332][index % 2]
}

pub(crate) fn properties(options: &Options, index: usize) -> vk::PhysicalDeviceProperties {
    let limits = vk::PhysicalDeviceLimits {
        max_memory_allocation_count: options.max_allocations as u32,
        max_storage_buffer_range: 1 << 27,
        max_push_constants_size: 128,
        max_bound_descriptor_sets: 4,
        max_compute_work_group_count: [65535; 3],
        max_compute_work_group_invocations: 256,
        max_compute_work_group_size: [256, 256, 64],
        min_storage_buffer_offset_alignment: 64,
        min_memory_map_alignment: 4096,
        non_coherent_atom_size: 64,
        timestamp_compute_and_graphics: (families(options).iter().all(|f| f.valid_bits > 0)).into(),
        timestamp_period: period(index),
        ..Default::default()
    };
    vk::PhysicalDeviceProperties {
        api_version: version_of(options.api),
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

pub(crate) fn memory_properties(options: &Options) -> vk::PhysicalDeviceMemoryProperties {
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
        heap.size = options.heap;
        if index == 0 {
            heap.flags = vk::MemoryHeapFlags::DEVICE_LOCAL;
        }
    }
    all
}

/// The version of Vulkan that an option names: 12 is 1.2.
pub(crate) fn version_of(number: u64) -> u32 {
    vk::make_api_version(0, 1, number as u32 % 10, 0)
}

/// Sixteen bytes that begin with `fencepost-sim`.
pub(crate) fn uuid(last: u8) -> [u8; 16] {
    let mut bytes = *b"fencepost-sim\0\0\0";
    bytes[15] = last;
    bytes
}
