//! Helpers for the tests. Every test has its own machine, and leaves no object on it.

#![allow(dead_code, reason = "no test file uses all of it")]

use ash::vk::{self, Handle};
use fencepost_sim_vulkan::{Control, Live, Session, vkGetInstanceProcAddr};
use std::ffi::{CStr, c_char};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

/// A timeout that only a hang reaches.
pub(crate) const HANG_TIMEOUT: Duration = Duration::from_secs(60);
pub(crate) const FOREVER: u64 = u64::MAX;

pub(crate) fn control() -> &'static Control {
    static CONTROL: OnceLock<Control> = OnceLock::new();
    CONTROL.get_or_init(Control::linked)
}

/// Runs a test with device 0, with the seeds `0..count` or the one in the environment.
pub(crate) fn with_seeds(count: u64, test: impl Fn(&Session<'_>, &Gpu)) {
    fencepost_sim::with_seeds(count, |seed| with_seed(seed, &[], Setup::default(), &test));
}

pub(crate) fn with_seed(
    seed: u64,
    options: &[(&str, u64)],
    setup: Setup,
    test: impl Fn(&Session<'_>, &Gpu),
) {
    let session = control().session(seed, options);
    let gpu = Gpu::new(setup);
    test(&session, &gpu);
    gpu.destroy();
    assert!(
        session.wait_idle(HANG_TIMEOUT),
        "{}",
        session.pending_work()
    );
    assert_eq!(session.live(), Live::default());
    assert_eq!(session.violations(), Vec::<String>::new());
}

pub(crate) trait Forgive {
    fn clear_violations_of(&self, texts: &[&str]);
}

impl Forgive for Session<'_> {
    /// Forgets the violations, which must contain these texts, in this order.
    fn clear_violations_of(&self, texts: &[&str]) {
        let found = self.violations();
        assert_eq!(found.len(), texts.len(), "{found:#?}");
        for (found, text) in found.iter().zip(texts) {
            assert!(found.contains(text), "{found:?} has no {text:?}");
        }
        self.clear_violations();
    }
}

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

enum Made {
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

/// One batch: semaphores with values and command buffers.
#[derive(Default)]
pub(crate) struct Batch<'a> {
    pub(crate) waits: &'a [(vk::Semaphore, u64)],
    pub(crate) buffers: &'a [vk::CommandBuffer],
    pub(crate) signals: &'a [(vk::Semaphore, u64)],
    pub(crate) fence: vk::Fence,
}

/// What the calls of `Gpu` rely on: its handles are alive unless a test of misuse says otherwise,
/// which the stand-in finds out without following them; arrays and structures live through the
/// calls.
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

    fn keep(&self, made: Made) {
        self.made.lock().unwrap().push(made);
    }

    /// Destroys everything that `forget` was not called with.
    pub(crate) fn destroy(self) {
        let d = &self.device;
        // a lost device is idle too
        // SAFETY: see above
        let _ = unsafe { d.device_wait_idle() };
        for made in self.made.into_inner().unwrap().into_iter().rev() {
            // SAFETY: see above; each is destroyed once
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

    /// For a semaphore that the test destroys itself.
    pub(crate) fn forget(&self, semaphore: vk::Semaphore) {
        let other = |made: &Made| !matches!(made, Made::Semaphore(it) if *it == semaphore);
        self.made.lock().unwrap().retain(other);
    }

    pub(crate) fn queue(&self, family: u32, index: u32) -> vk::Queue {
        // SAFETY: see above
        unsafe { self.device.get_device_queue(family, index) }
    }

    pub(crate) fn try_timeline(&self, value: u64) -> Result<vk::Semaphore, vk::Result> {
        let mut kind = vk::SemaphoreTypeCreateInfo::default()
            .semaphore_type(vk::SemaphoreType::TIMELINE)
            .initial_value(value);
        let info = vk::SemaphoreCreateInfo::default().push_next(&mut kind);
        // SAFETY: see above
        let made = unsafe { self.device.create_semaphore(&info, None) }?;
        self.keep(Made::Semaphore(made));
        Ok(made)
    }

    pub(crate) fn timeline(&self, value: u64) -> vk::Semaphore {
        self.try_timeline(value).unwrap()
    }

    pub(crate) fn binary(&self) -> vk::Semaphore {
        let info = vk::SemaphoreCreateInfo::default();
        // SAFETY: see above
        let made = unsafe { self.device.create_semaphore(&info, None) }.unwrap();
        self.keep(Made::Semaphore(made));
        made
    }

    pub(crate) fn fence(&self, flags: vk::FenceCreateFlags) -> vk::Fence {
        let info = vk::FenceCreateInfo::default().flags(flags);
        // SAFETY: see above
        let made = unsafe { self.device.create_fence(&info, None) }.unwrap();
        self.keep(Made::Fence(made));
        made
    }

    pub(crate) fn signaled(&self, fence: vk::Fence) -> Result<bool, vk::Result> {
        // SAFETY: see above
        unsafe { self.device.get_fence_status(fence) }
    }

    pub(crate) fn wait_fence(&self, fence: vk::Fence, timeout: u64) -> Result<(), vk::Result> {
        // SAFETY: see above
        unsafe { self.device.wait_for_fences(&[fence], true, timeout) }
    }

    pub(crate) fn value(&self, semaphore: vk::Semaphore) -> Result<u64, vk::Result> {
        // SAFETY: see above
        unsafe { self.device.get_semaphore_counter_value(semaphore) }
    }

    pub(crate) fn wait_with(
        &self,
        flags: vk::SemaphoreWaitFlags,
        all: &[(vk::Semaphore, u64)],
        timeout: u64,
    ) -> Result<(), vk::Result> {
        let (semaphores, values): (Vec<_>, Vec<_>) = all.iter().copied().unzip();
        let info = vk::SemaphoreWaitInfo::default()
            .flags(flags)
            .semaphores(&semaphores)
            .values(&values);
        // SAFETY: see above
        unsafe { self.device.wait_semaphores(&info, timeout) }
    }

    pub(crate) fn wait(
        &self,
        semaphore: vk::Semaphore,
        value: u64,
        timeout: u64,
    ) -> Result<(), vk::Result> {
        let all = vk::SemaphoreWaitFlags::empty();
        self.wait_with(all, &[(semaphore, value)], timeout)
    }

    pub(crate) fn signal(&self, semaphore: vk::Semaphore, value: u64) -> Result<(), vk::Result> {
        let info = vk::SemaphoreSignalInfo::default()
            .semaphore(semaphore)
            .value(value);
        // SAFETY: see above
        unsafe { self.device.signal_semaphore(&info) }
    }

    /// With `vkQueueSubmit`.
    pub(crate) fn submit(&self, queue: vk::Queue, batch: &Batch<'_>) -> Result<(), vk::Result> {
        let (waits, wait_values): (Vec<_>, Vec<_>) = batch.waits.iter().copied().unzip();
        let (signals, signal_values): (Vec<_>, Vec<_>) = batch.signals.iter().copied().unzip();
        let stages = vec![vk::PipelineStageFlags::ALL_COMMANDS; waits.len()];
        let mut values = vk::TimelineSemaphoreSubmitInfo::default()
            .wait_semaphore_values(&wait_values)
            .signal_semaphore_values(&signal_values);
        let info = vk::SubmitInfo::default()
            .wait_semaphores(&waits)
            .wait_dst_stage_mask(&stages)
            .command_buffers(batch.buffers)
            .signal_semaphores(&signals)
            .push_next(&mut values);
        // SAFETY: see above
        unsafe { self.device.queue_submit(queue, &[info], batch.fence) }
    }

    /// With `vkQueueSubmit2`, and these stages for waits and signals.
    pub(crate) fn submit_2(
        &self,
        queue: vk::Queue,
        batch: &Batch<'_>,
        stages: vk::PipelineStageFlags2,
    ) -> Result<(), vk::Result> {
        let named = |&(semaphore, value): &(vk::Semaphore, u64)| {
            vk::SemaphoreSubmitInfo::default()
                .semaphore(semaphore)
                .value(value)
                .stage_mask(stages)
        };
        let waits: Vec<_> = batch.waits.iter().map(named).collect();
        let signals: Vec<_> = batch.signals.iter().map(named).collect();
        let buffer =
            |&it: &vk::CommandBuffer| vk::CommandBufferSubmitInfo::default().command_buffer(it);
        let buffers: Vec<_> = batch.buffers.iter().map(buffer).collect();
        let info = vk::SubmitInfo2::default()
            .wait_semaphore_infos(&waits)
            .command_buffer_infos(&buffers)
            .signal_semaphore_infos(&signals);
        // SAFETY: see above
        unsafe { self.device.queue_submit2(queue, &[info], batch.fence) }
    }

    pub(crate) fn queue_wait_idle(&self, queue: vk::Queue) -> Result<(), vk::Result> {
        // SAFETY: see above
        unsafe { self.device.queue_wait_idle(queue) }
    }

    pub(crate) fn pool(&self, family: u32) -> vk::CommandPool {
        let flags = vk::CommandPoolCreateFlags::RESET_COMMAND_BUFFER;
        let info = vk::CommandPoolCreateInfo::default()
            .queue_family_index(family)
            .flags(flags);
        // SAFETY: see above
        let made = unsafe { self.device.create_command_pool(&info, None) }.unwrap();
        self.keep(Made::CommandPool(made));
        made
    }

    pub(crate) fn buffer_of(&self, pool: vk::CommandPool) -> vk::CommandBuffer {
        let info = vk::CommandBufferAllocateInfo::default()
            .command_pool(pool)
            .command_buffer_count(1);
        // SAFETY: see above
        unsafe { self.device.allocate_command_buffers(&info) }.unwrap()[0]
    }

    pub(crate) fn begin(
        &self,
        buffer: vk::CommandBuffer,
        flags: vk::CommandBufferUsageFlags,
    ) -> Result<(), vk::Result> {
        let info = vk::CommandBufferBeginInfo::default().flags(flags);
        // SAFETY: see above
        unsafe { self.device.begin_command_buffer(buffer, &info) }
    }

    pub(crate) fn end(&self, buffer: vk::CommandBuffer) -> Result<(), vk::Result> {
        // SAFETY: see above
        unsafe { self.device.end_command_buffer(buffer) }
    }

    /// A command buffer with what `body` records.
    pub(crate) fn record(
        &self,
        pool: vk::CommandPool,
        flags: vk::CommandBufferUsageFlags,
        body: impl FnOnce(vk::CommandBuffer),
    ) -> vk::CommandBuffer {
        let buffer = self.buffer_of(pool);
        self.begin(buffer, flags).unwrap();
        body(buffer);
        self.end(buffer).unwrap();
        buffer
    }

    pub(crate) fn queries(&self, count: u32) -> vk::QueryPool {
        let info = vk::QueryPoolCreateInfo::default()
            .query_type(vk::QueryType::TIMESTAMP)
            .query_count(count);
        // SAFETY: see above
        let made = unsafe { self.device.create_query_pool(&info, None) }.unwrap();
        self.keep(Made::QueryPool(made));
        made
    }

    pub(crate) fn host_reset(&self, pool: vk::QueryPool, first: u32, count: u32) {
        // SAFETY: see above
        unsafe { self.device.reset_query_pool(pool, first, count) }
    }

    pub(crate) fn cmd_reset(&self, buffer: vk::CommandBuffer, pool: vk::QueryPool, count: u32) {
        // SAFETY: see above
        unsafe { self.device.cmd_reset_query_pool(buffer, pool, 0, count) }
    }

    pub(crate) fn cmd_timestamp(&self, buffer: vk::CommandBuffer, pool: vk::QueryPool, index: u32) {
        let stage = vk::PipelineStageFlags::BOTTOM_OF_PIPE;
        // SAFETY: see above
        unsafe { self.device.cmd_write_timestamp(buffer, stage, pool, index) }
    }

    /// Queries from 0 on, as numbers of 64 bits.
    pub(crate) fn results(
        &self,
        pool: vk::QueryPool,
        count: usize,
        flags: vk::QueryResultFlags,
    ) -> Result<Vec<u64>, vk::Result> {
        let mut data = vec![0_u64; count];
        let flags = flags | vk::QueryResultFlags::TYPE_64;
        // SAFETY: see above
        unsafe {
            self.device
                .get_query_pool_results(pool, 0, &mut data, flags)
        }?;
        Ok(data)
    }

    /// Orders all earlier commands before all later ones.
    pub(crate) fn cmd_barrier(&self, buffer: vk::CommandBuffer) {
        let all = vk::PipelineStageFlags::ALL_COMMANDS;
        self.cmd_barrier_with(buffer, all, all);
    }

    pub(crate) fn cmd_barrier_with(
        &self,
        buffer: vk::CommandBuffer,
        before: vk::PipelineStageFlags,
        after: vk::PipelineStageFlags,
    ) {
        let flags = vk::DependencyFlags::empty();
        let memory = vk::MemoryBarrier::default()
            .src_access_mask(vk::AccessFlags::MEMORY_WRITE)
            .dst_access_mask(vk::AccessFlags::MEMORY_READ | vk::AccessFlags::MEMORY_WRITE);
        let d = &self.device;
        // SAFETY: see above
        unsafe { d.cmd_pipeline_barrier(buffer, before, after, flags, &[memory], &[], &[]) }
    }

    /// A mapped buffer in memory of this type.
    pub(crate) fn words(&self, count: usize, kind: u32) -> Words<'_> {
        let info = vk::BufferCreateInfo::default()
            .size(4 * count as u64)
            .usage(
                vk::BufferUsageFlags::STORAGE_BUFFER
                    | vk::BufferUsageFlags::TRANSFER_SRC
                    | vk::BufferUsageFlags::TRANSFER_DST,
            );
        let d = &self.device;
        // SAFETY: see above
        let buffer = unsafe { d.create_buffer(&info, None) }.unwrap();
        // SAFETY: see above
        let needs = unsafe { d.get_buffer_memory_requirements(buffer) };
        let info = vk::MemoryAllocateInfo::default()
            .allocation_size(needs.size)
            .memory_type_index(kind);
        // SAFETY: see above
        let memory = unsafe { d.allocate_memory(&info, None) }.unwrap();
        // the memory goes after the buffer
        self.keep(Made::Memory(memory));
        self.keep(Made::Buffer(buffer));
        // SAFETY: see above
        unsafe { d.bind_buffer_memory(buffer, memory, 0) }.unwrap();
        let flags = vk::MemoryMapFlags::empty();
        // SAFETY: see above
        let mapped = unsafe { d.map_memory(memory, 0, vk::WHOLE_SIZE, flags) }.unwrap();
        let words = Words {
            gpu: self,
            buffer,
            memory,
            count,
            address: mapped.expose_provenance(),
        };
        (0..count).for_each(|index| words.set(index, 0));
        words
    }

    /// The kernels, and sets with a descriptor for each of these buffers.
    pub(crate) fn kernel(&self, name: &CStr, buffers: &[vk::Buffer]) -> Kernel {
        let d = &self.device;
        let bindings: Vec<_> = (0..buffers.len() as u32)
            .map(|binding| {
                vk::DescriptorSetLayoutBinding::default()
                    .binding(binding)
                    .descriptor_type(vk::DescriptorType::STORAGE_BUFFER)
                    .descriptor_count(1)
                    .stage_flags(vk::ShaderStageFlags::COMPUTE)
            })
            .collect();
        let info = vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings);
        // SAFETY: see above
        let set_layout = unsafe { d.create_descriptor_set_layout(&info, None) }.unwrap();
        self.keep(Made::SetLayout(set_layout));
        let sizes = [vk::DescriptorPoolSize::default()
            .ty(vk::DescriptorType::STORAGE_BUFFER)
            .descriptor_count(buffers.len() as u32)];
        let info = vk::DescriptorPoolCreateInfo::default()
            .max_sets(1)
            .pool_sizes(&sizes);
        // SAFETY: see above
        let pool = unsafe { d.create_descriptor_pool(&info, None) }.unwrap();
        self.keep(Made::DescriptorPool(pool));
        let layouts = [set_layout];
        let info = vk::DescriptorSetAllocateInfo::default()
            .descriptor_pool(pool)
            .set_layouts(&layouts);
        // SAFETY: see above
        let set = unsafe { d.allocate_descriptor_sets(&info) }.unwrap()[0];
        for (binding, buffer) in buffers.iter().enumerate() {
            self.update(set, binding as u32, *buffer);
        }
        let push = [vk::PushConstantRange::default()
            .stage_flags(vk::ShaderStageFlags::COMPUTE)
            .size(4)];
        let info = vk::PipelineLayoutCreateInfo::default()
            .set_layouts(&layouts)
            .push_constant_ranges(&push);
        // SAFETY: see above
        let layout = unsafe { d.create_pipeline_layout(&info, None) }.unwrap();
        self.keep(Made::PipelineLayout(layout));
        let code = spirv();
        let info = vk::ShaderModuleCreateInfo::default().code(&code);
        // SAFETY: see above
        let module = unsafe { d.create_shader_module(&info, None) }.unwrap();
        self.keep(Made::Module(module));
        let stage = vk::PipelineShaderStageCreateInfo::default()
            .stage(vk::ShaderStageFlags::COMPUTE)
            .module(module)
            .name(name);
        let info = vk::ComputePipelineCreateInfo::default()
            .stage(stage)
            .layout(layout);
        let cache = vk::PipelineCache::null();
        // SAFETY: see above
        let made = unsafe { d.create_compute_pipelines(cache, &[info], None) };
        let pipeline = made.map_err(|(_, code)| code).unwrap()[0];
        self.keep(Made::Pipeline(pipeline));
        Kernel {
            pipeline,
            layout,
            set,
        }
    }

    pub(crate) fn update(&self, set: vk::DescriptorSet, binding: u32, buffer: vk::Buffer) {
        let info = [vk::DescriptorBufferInfo::default()
            .buffer(buffer)
            .range(vk::WHOLE_SIZE)];
        let write = vk::WriteDescriptorSet::default()
            .dst_set(set)
            .dst_binding(binding)
            .descriptor_type(vk::DescriptorType::STORAGE_BUFFER)
            .buffer_info(&info);
        // SAFETY: see above
        unsafe { self.device.update_descriptor_sets(&[write], &[]) }
    }

    pub(crate) fn cmd_run(&self, buffer: vk::CommandBuffer, kernel: &Kernel, push: u32) {
        let (d, point) = (&self.device, vk::PipelineBindPoint::COMPUTE);
        let (layout, stage) = (kernel.layout, vk::ShaderStageFlags::COMPUTE);
        // SAFETY: see above
        unsafe {
            d.cmd_bind_pipeline(buffer, point, kernel.pipeline);
            d.cmd_bind_descriptor_sets(buffer, point, layout, 0, &[kernel.set], &[]);
            d.cmd_push_constants(buffer, layout, stage, 0, &push.to_le_bytes());
            d.cmd_dispatch(buffer, 1, 1, 1);
        }
    }
}

pub(crate) struct Kernel {
    pipeline: vk::Pipeline,
    layout: vk::PipelineLayout,
    pub(crate) set: vk::DescriptorSet,
}

/// A module with nothing but the entry points of the kernels.
fn spirv() -> Vec<u32> {
    let mut words = vec![0x0723_0203, 0x0001_0300, 0, 10, 0];
    for name in ["append", "histogram", "reduce", "spin"] {
        let mut bytes = format!("fencepost_{name}\0").into_bytes();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        words.extend([(3 + bytes.len() as u32 / 4) << 16 | 15, 5, 1]);
        let word = |four: &[u8]| u32::from_le_bytes([four[0], four[1], four[2], four[3]]);
        words.extend(bytes.chunks(4).map(word));
    }
    words
}

/// Words in a mapped buffer.
pub(crate) struct Words<'a> {
    gpu: &'a Gpu,
    pub(crate) buffer: vk::Buffer,
    pub(crate) memory: vk::DeviceMemory,
    count: usize,
    address: usize,
}

impl Words<'_> {
    fn word(&self, index: usize) -> &AtomicU32 {
        assert!(index < self.count);
        let first: *mut u32 = std::ptr::with_exposed_provenance_mut(self.address);
        // SAFETY: in bounds, aligned, and mapped until the device is destroyed
        unsafe { AtomicU32::from_ptr(first.add(index)) }
    }

    pub(crate) fn get(&self, index: usize) -> u32 {
        self.word(index).load(Ordering::SeqCst)
    }

    pub(crate) fn set(&self, index: usize, value: u32) {
        self.word(index).store(value, Ordering::SeqCst);
    }

    /// The tokens of a log of `fencepost_append`.
    pub(crate) fn tokens(&self) -> Vec<u32> {
        (0..self.get(0) as usize)
            .map(|index| self.get(1 + index))
            .collect()
    }

    fn range(&self) -> [vk::MappedMemoryRange<'static>; 1] {
        [vk::MappedMemoryRange::default()
            .memory(self.memory)
            .size(vk::WHOLE_SIZE)]
    }

    pub(crate) fn flush(&self) {
        // SAFETY: the memory is mapped
        unsafe { self.gpu.device.flush_mapped_memory_ranges(&self.range()) }.unwrap();
    }

    pub(crate) fn invalidate(&self) {
        // SAFETY: the memory is mapped
        unsafe {
            self.gpu
                .device
                .invalidate_mapped_memory_ranges(&self.range())
        }
        .unwrap();
    }
}

/// A handle that the stand-in never returned.
pub(crate) fn made_up<H: Handle>() -> H {
    H::from_raw(0xdead_beef)
}
