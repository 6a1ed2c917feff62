//! A device, and the objects made on it.

use ash::vk;
use fencepost_sim_vulkan::vkGetInstanceProcAddr;
use std::ffi::{CStr, c_char};
use std::sync::Mutex;

/// How the device is made.
#[derive(Clone, Copy)]
pub(crate) struct Setup {
    pub(crate) physical: usize,
    pub(crate) api: u32,
    pub(crate) timeline: bool,
    pub(crate) host_reset: bool,
    pub(crate) sync2: bool,
    pub(crate) extensions: &'static [&'static CStr],
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            physical: 0,
            api: vk::API_VERSION_1_3,
            timeline: true,
            host_reset: true,
            sync2: true,
            extensions: &[],
        }
    }
}

/// An object that `Gpu::destroy` destroys.
pub(crate) enum Made {
    Semaphore(vk::Semaphore),
    Fence(vk::Fence),
    QueryPool(vk::QueryPool),
    CommandPool(vk::CommandPool),
    Buffer(vk::Buffer),
    Memory(vk::DeviceMemory),
    SetLayout(vk::DescriptorSetLayout),
    DescriptorPool(vk::DescriptorPool),
    PipelineLayout(vk::PipelineLayout),
    Module(vk::ShaderModule),
    Pipeline(vk::Pipeline),
}

/// A device with all its queues, and the objects made on it.
///
/// Its methods call Vulkan, whose functions are unsafe. Every such call relies on this: the handles
/// are alive, and arrays and structures live through the call. Where a test passes a stale handle,
/// the stand-in looks it up and finds nothing.
pub(crate) struct Gpu {
    pub(crate) entry: ash::Entry,
    pub(crate) instance: ash::Instance,
    pub(crate) physical: vk::PhysicalDevice,
    pub(crate) device: ash::Device,
    made: Mutex<Vec<Made>>,
}

pub(crate) fn entry() -> ash::Entry {
    let functions = ash::StaticFn {
        get_instance_proc_addr: vkGetInstanceProcAddr,
    };
    // SAFETY: the stand-in's function is the one of this name
    unsafe { ash::Entry::from_static_fn(functions) }
}

pub(crate) fn instance(entry: &ash::Entry, api: u32) -> ash::Instance {
    let app = vk::ApplicationInfo::default().api_version(api);
    let info = vk::InstanceCreateInfo::default().application_info(&app);
    // SAFETY: the structures live through the call
    unsafe { entry.create_instance(&info, None) }.unwrap()
}

pub(crate) fn physicals(instance: &ash::Instance) -> Vec<vk::PhysicalDevice> {
    // SAFETY: the instance is alive
    unsafe { instance.enumerate_physical_devices() }.unwrap()
}

pub(crate) fn families(
    instance: &ash::Instance,
    physical: vk::PhysicalDevice,
) -> Vec<vk::QueueFamilyProperties> {
    // SAFETY: the instance and its device are alive
    unsafe { instance.get_physical_device_queue_family_properties(physical) }
}

pub(crate) fn make_device(
    instance: &ash::Instance,
    physical: vk::PhysicalDevice,
    setup: &Setup,
) -> Result<ash::Device, vk::Result> {
    let priorities = [1.0; 8];
    let queues: Vec<_> = families(instance, physical)
        .iter()
        .enumerate()
        .map(|(family, properties)| {
            let count = properties.queue_count as usize;
            vk::DeviceQueueCreateInfo::default()
                .queue_family_index(family as u32)
                .queue_priorities(&priorities[..count])
        })
        .collect();
    let extensions: Vec<*const c_char> = setup.extensions.iter().map(|e| e.as_ptr()).collect();
    let mut features = vk::PhysicalDeviceVulkan12Features::default()
        .timeline_semaphore(setup.timeline)
        .host_query_reset(setup.host_reset);
    let mut sync2 =
        vk::PhysicalDeviceSynchronization2Features::default().synchronization2(setup.sync2);
    let info = vk::DeviceCreateInfo::default()
        .queue_create_infos(&queues)
        .enabled_extension_names(&extensions)
        .push_next(&mut features)
        .push_next(&mut sync2);
    // SAFETY: the structures live through the call
    unsafe { instance.create_device(physical, &info, None) }
}

impl Gpu {
    pub(crate) fn new(setup: Setup) -> Gpu {
        let entry = entry();
        let instance = instance(&entry, setup.api);
        let physical = physicals(&instance)[setup.physical];
        let device = make_device(&instance, physical, &setup).unwrap();
        Gpu {
            entry,
            instance,
            physical,
            device,
            made: Mutex::default(),
        }
    }

    /// Makes `destroy` destroy this object.
    pub(crate) fn keep(&self, made: Made) {
        self.made.lock().unwrap().push(made);
    }

    /// Destroys the device, its instance and all objects that were made on it.
    pub(crate) fn destroy(self) {
        let d = &self.device;
        // a lost device is idle too
        // SAFETY: as `Gpu` says
        let _ = unsafe { d.device_wait_idle() };
        for made in self.made.into_inner().unwrap().into_iter().rev() {
            // SAFETY: as `Gpu` says; each is destroyed once
            unsafe {
                match made {
                    Made::Semaphore(it) => d.destroy_semaphore(it, None),
                    Made::Fence(it) => d.destroy_fence(it, None),
                    Made::QueryPool(it) => d.destroy_query_pool(it, None),
                    Made::CommandPool(it) => d.destroy_command_pool(it, None),
                    Made::Buffer(it) => d.destroy_buffer(it, None),
                    Made::Memory(it) => d.free_memory(it, None),
                    Made::SetLayout(it) => d.destroy_descriptor_set_layout(it, None),
                    Made::DescriptorPool(it) => d.destroy_descriptor_pool(it, None),
                    Made::PipelineLayout(it) => d.destroy_pipeline_layout(it, None),
                    Made::Module(it) => d.destroy_shader_module(it, None),
                    Made::Pipeline(it) => d.destroy_pipeline(it, None),
                }
            }
        }
        // SAFETY: nothing of them is left
        unsafe {
            d.destroy_device(None);
            self.instance.destroy_instance(None);
        }
    }

    /// Makes `destroy` leave out this semaphore, which the test destroys.
    pub(crate) fn forget(&self, semaphore: vk::Semaphore) {
        let other = |made: &Made| !matches!(made, Made::Semaphore(it) if *it == semaphore);
        self.made.lock().unwrap().retain(other);
    }

    pub(crate) fn queue(&self, family: u32, index: u32) -> vk::Queue {
        // SAFETY: as `Gpu` says
        unsafe { self.device.get_device_queue(family, index) }
    }
}
