//! The conformance suite's work on Vulkan streams: kernels that write to memory the host sees.
//!
//! Each piece of work is a command buffer of its own, between two barriers: one that puts it behind
//! everything submitted to the queue before it, and one that shows the host what it wrote. A
//! semaphore does the second for the device only ([host
//! access](https://registry.khronos.org/vulkan/specs/latest/html/vkspec.html#synchronization-submission-host-writes)).

use std::{
    any::Any,
    collections::VecDeque,
    ffi::CStr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use ash::{Device as Table, vk};

use super::{device::stream_as_vulkan, fault::Fault, gpu::Gpu, stream::VkStream};
use crate::{
    contract::StreamImpl,
    error::{Cause, Error, Result},
    host_gate::HostGated,
    sync::{Mutex, lock},
    testing::{
        TestWork,
        bytes::ByteCounterImpl,
        work::{Gate, Log, LogImpl},
    },
};

/// The kernels of one device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kernels {
    module: vk::ShaderModule,
    set_layout: vk::DescriptorSetLayout,
    layout: vk::PipelineLayout,
    append: vk::Pipeline,
    pub(super) histogram: vk::Pipeline,
    pub(super) reduce: vk::Pipeline,
    spin: vk::Pipeline,
}

fn fault(call: &'static str) -> impl Fn(vk::Result) -> Fault {
    move |result| Fault { call, result }
}

/// Makes the kernels, once.
pub(super) fn kernels(gpu: &Gpu) -> Result<Kernels> {
    gpu.kernels
        .get_or_init(|| Kernels::new(gpu).map_err(|fault| gpu.failed(fault)))
        .clone()
}

impl Kernels {
    fn new(gpu: &Gpu) -> Result<Kernels, Fault> {
        let device = &gpu.device;
        let words: Vec<u32> = crate::vulkan::KERNELS
            .chunks_exact(4)
            .map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
            .collect();
        let info = vk::ShaderModuleCreateInfo::default().code(&words);
        // SAFETY: valid SPIR-V, checked by naga when it was made. Here and below, the device is
        // alive, and what the structures point to is alive during the call. What a failure leaves
        // behind goes with the device.
        let module = unsafe { device.create_shader_module(&info, None) }
            .map_err(fault("vkCreateShaderModule"))?;
        let binding = |binding| {
            vk::DescriptorSetLayoutBinding::default()
                .binding(binding)
                .descriptor_type(vk::DescriptorType::STORAGE_BUFFER)
                .descriptor_count(1)
                .stage_flags(vk::ShaderStageFlags::COMPUTE)
        };
        let bindings = [binding(0), binding(1)];
        let info = vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings);
        // SAFETY: as above.
        let set_layout = unsafe { device.create_descriptor_set_layout(&info, None) }
            .map_err(fault("vkCreateDescriptorSetLayout"))?;
        let (layouts, ranges) = (
            [set_layout],
            [vk::PushConstantRange::default()
                .stage_flags(vk::ShaderStageFlags::COMPUTE)
                .size(4)],
        );
        let info = vk::PipelineLayoutCreateInfo::default()
            .set_layouts(&layouts)
            .push_constant_ranges(&ranges);
        // SAFETY: as above.
        let layout = unsafe { device.create_pipeline_layout(&info, None) }
            .map_err(fault("vkCreatePipelineLayout"))?;
        let pipeline = |name: &CStr| {
            let stage = vk::PipelineShaderStageCreateInfo::default()
                .stage(vk::ShaderStageFlags::COMPUTE)
                .module(module)
                .name(name);
            let info = [vk::ComputePipelineCreateInfo::default()
                .stage(stage)
                .layout(layout)];
            // SAFETY: as above; the module has an entry point of this name.
            let made =
                unsafe { device.create_compute_pipelines(vk::PipelineCache::null(), &info, None) };
            made.map(|pipelines| pipelines[0])
                .map_err(|(_, result)| fault("vkCreateComputePipelines")(result))
        };
        Ok(Kernels {
            module,
            set_layout,
            layout,
            append: pipeline(c"fencepost_append")?,
            histogram: pipeline(c"fencepost_histogram")?,
            reduce: pipeline(c"fencepost_reduce")?,
            spin: pipeline(c"fencepost_spin")?,
        })
    }

    pub(super) fn destroy(&self, device: &Table) {
        // SAFETY: made by us of this device, on which nothing runs any more.
        unsafe {
            for pipeline in [self.append, self.histogram, self.reduce, self.spin] {
                device.destroy_pipeline(pipeline, None);
            }
            device.destroy_pipeline_layout(self.layout, None);
            device.destroy_descriptor_set_layout(self.set_layout, None);
            device.destroy_shader_module(self.module, None);
        }
    }
}

/// Memory that host and device see, zeroed.
pub(super) struct Memory {
    gpu: Arc<Gpu>,
    pub(super) buffer: vk::Buffer,
    memory: vk::DeviceMemory,
    /// Where the host sees it.
    pub(super) at: usize,
    pub(super) bytes: usize,
}

impl Memory {
    /// Room for `bytes`, in whole words.
    pub(super) fn new(gpu: &Arc<Gpu>, bytes: usize) -> Result<Arc<Memory>> {
        Memory::make(gpu, bytes.next_multiple_of(4).max(4)).map_err(|fault| gpu.failed(fault))
    }

    fn make(gpu: &Arc<Gpu>, bytes: usize) -> Result<Arc<Memory>, Fault> {
        let device = &gpu.device;
        let usage = vk::BufferUsageFlags::STORAGE_BUFFER | vk::BufferUsageFlags::TRANSFER_DST;
        let info = vk::BufferCreateInfo::default()
            .size(bytes as u64)
            .usage(usage);
        // SAFETY: the device is alive, here and below. What a failure leaves behind goes with the
        // process.
        let buffer =
            unsafe { device.create_buffer(&info, None) }.map_err(fault("vkCreateBuffer"))?;
        // SAFETY: the buffer was just made.
        let needs = unsafe { device.get_buffer_memory_requirements(buffer) };
        // SAFETY: the physical device is the instance's.
        let types = unsafe {
            gpu.instance
                .get_physical_device_memory_properties(gpu.physical)
        };
        let wanted = vk::MemoryPropertyFlags::HOST_VISIBLE | vk::MemoryPropertyFlags::HOST_COHERENT;
        // Every device has one such type for buffers:
        // https://registry.khronos.org/vulkan/specs/latest/html/vkspec.html#memory-device-properties
        let kind = (0..)
            .zip(types.memory_types_as_slice())
            .find(|(index, kind)| {
                needs.memory_type_bits & (1 << index) != 0 && kind.property_flags.contains(wanted)
            })
            .map_or(0, |(index, _)| index);
        let info = vk::MemoryAllocateInfo::default()
            .allocation_size(needs.size)
            .memory_type_index(kind);
        // SAFETY: the memory is bound to the buffer it was sized for, and mapped once for its whole
        // life.
        let (memory, at) = unsafe {
            let memory = device
                .allocate_memory(&info, None)
                .map_err(fault("vkAllocateMemory"))?;
            device
                .bind_buffer_memory(buffer, memory, 0)
                .map_err(fault("vkBindBufferMemory"))?;
            let at = device
                .map_memory(memory, 0, vk::WHOLE_SIZE, vk::MemoryMapFlags::empty())
                .map_err(fault("vkMapMemory"))?;
            at.cast::<u8>().write_bytes(0, bytes);
            (memory, at)
        };
        Ok(Arc::new(Memory {
            gpu: gpu.clone(),
            buffer,
            memory,
            at: at as usize,
            bytes,
        }))
    }

    /// One word of it.
    pub(super) fn word(&self, index: usize) -> &AtomicU32 {
        assert!(index < self.bytes / 4);
        // SAFETY: within memory that is mapped as long as `self` lives, aligned, and read and
        // written as whole words.
        unsafe { AtomicU32::from_ptr((self.at + index * 4) as *mut u32) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.gpu.is_gone() {
            return;
        }
        // SAFETY: made by us; work that uses it holds it until it is done.
        unsafe {
            self.gpu.device.destroy_buffer(self.buffer, None);
            self.gpu.device.free_memory(self.memory, None);
        }
    }
}

/// Memory as a kernel's bindings.
pub(super) struct Bound {
    gpu: Arc<Gpu>,
    pool: vk::DescriptorPool,
    set: vk::DescriptorSet,
    pub(super) memory: Vec<Arc<Memory>>,
}

impl Bound {
    pub(super) fn new(gpu: &Arc<Gpu>, memory: Vec<Arc<Memory>>) -> Result<Arc<Bound>> {
        let kernels = kernels(gpu)?;
        Bound::make(gpu, &kernels, memory).map_err(|fault| gpu.failed(fault))
    }

    fn make(
        gpu: &Arc<Gpu>,
        kernels: &Kernels,
        memory: Vec<Arc<Memory>>,
    ) -> Result<Arc<Bound>, Fault> {
        let device = &gpu.device;
        let sizes = [vk::DescriptorPoolSize::default()
            .ty(vk::DescriptorType::STORAGE_BUFFER)
            .descriptor_count(2)];
        let info = vk::DescriptorPoolCreateInfo::default()
            .max_sets(1)
            .pool_sizes(&sizes);
        // SAFETY: the device is alive.
        let pool = unsafe { device.create_descriptor_pool(&info, None) }
            .map_err(fault("vkCreateDescriptorPool"))?;
        let layouts = [kernels.set_layout];
        let info = vk::DescriptorSetAllocateInfo::default()
            .descriptor_pool(pool)
            .set_layouts(&layouts);
        // SAFETY: the pool is new and has room for it.
        let set = unsafe { device.allocate_descriptor_sets(&info) }
            .map_err(fault("vkAllocateDescriptorSets"))?[0];
        for (binding, memory) in (0..).zip(&memory) {
            let buffer = [vk::DescriptorBufferInfo::default()
                .buffer(memory.buffer)
                .range(vk::WHOLE_SIZE)];
            let write = [vk::WriteDescriptorSet::default()
                .dst_set(set)
                .dst_binding(binding)
                .descriptor_type(vk::DescriptorType::STORAGE_BUFFER)
                .buffer_info(&buffer)];
            // SAFETY: no submitted work uses the set yet; the buffer lives as long as the set.
            unsafe { device.update_descriptor_sets(&write, &[]) };
        }
        Ok(Arc::new(Bound {
            gpu: gpu.clone(),
            pool,
            set,
            memory,
        }))
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if !self.gpu.is_gone() {
            // SAFETY: made by us; work that uses its set holds it until it is done.
            unsafe { self.gpu.device.destroy_descriptor_pool(self.pool, None) };
        }
    }
}

/// The command buffers of one stream's work.
pub(super) struct Work {
    commands: vk::CommandPool,
    /// In order of the trail's value at which they are free.
    used: Mutex<VecDeque<(u64, vk::CommandBuffer)>>,
}

impl Work {
    fn new(gpu: &Gpu, family: u32) -> Result<Work, Fault> {
        let info = vk::CommandPoolCreateInfo::default()
            .queue_family_index(family)
            .flags(vk::CommandPoolCreateFlags::RESET_COMMAND_BUFFER);
        // SAFETY: the device is alive and has the family.
        let commands = unsafe { gpu.device.create_command_pool(&info, None) }
            .map_err(fault("vkCreateCommandPool"))?;
        Ok(Work {
            commands,
            used: Mutex::new(VecDeque::new()),
        })
    }

    pub(super) fn destroy(self, device: &Table) {
        // SAFETY: made by us; nothing of it is pending.
        unsafe { device.destroy_command_pool(self.commands, None) };
    }
}

/// One kernel, `groups` workgroups of it, with `word` to push; in front of it, `zeroed` is filled
/// with zeroes.
pub(super) struct Dispatch {
    pub(super) pipeline: vk::Pipeline,
    pub(super) groups: u32,
    pub(super) word: u32,
    pub(super) zeroed: Option<vk::Buffer>,
}

/// Submits a kernel to `stream`; `Ok(false)` where it lies behind a failure.
pub(super) fn dispatch(stream: &VkStream, bound: &Arc<Bound>, dispatch: &Dispatch) -> Result<bool> {
    let gpu = &stream.gpu;
    let layout = kernels(gpu)?.layout;
    let native = &stream.native;
    let uses: Arc<dyn Any + Send + Sync> = bound.clone();
    stream.run(uses, || {
        // Under the submit lock: nobody else uses the pool.
        if native.work.get().is_none() {
            let _ = native.work.set(Work::new(gpu, stream.queue.family)?);
        }
        let Some(work) = native.work.get() else {
            return Err(fault("vkCreateCommandPool")(vk::Result::ERROR_UNKNOWN));
        };
        let (reached, next) = native.work_reached();
        let mut used = lock(&work.used);
        let buffer = match used.front() {
            Some(&(value, buffer)) if value <= reached => {
                used.pop_front();
                buffer
            }
            _ => allocate(gpu, work.commands)?,
        };
        used.push_back((next, buffer));
        drop(used);
        // SAFETY: the buffer is new or no longer pending, and the pool is used under the submit
        // lock only.
        unsafe { record(gpu, buffer, layout, bound.set, dispatch) }?;
        Ok(buffer)
    })
}

fn allocate(gpu: &Gpu, commands: vk::CommandPool) -> Result<vk::CommandBuffer, Fault> {
    let info = vk::CommandBufferAllocateInfo::default()
        .command_pool(commands)
        .level(vk::CommandBufferLevel::PRIMARY)
        .command_buffer_count(1);
    // SAFETY: the pool is alive, and used under the submit lock only.
    let buffers = unsafe { gpu.device.allocate_command_buffers(&info) };
    Ok(buffers.map_err(fault("vkAllocateCommandBuffers"))?[0])
}

/// # Safety
/// The buffer is not pending, and nobody else uses its pool; the set fits the layout.
unsafe fn record(
    gpu: &Gpu,
    buffer: vk::CommandBuffer,
    layout: vk::PipelineLayout,
    set: vk::DescriptorSet,
    dispatch: &Dispatch,
) -> Result<(), Fault> {
    use vk::{AccessFlags as Access, PipelineStageFlags as Stage};
    let device = &gpu.device;
    let barrier = |from: (Stage, Access), to: (Stage, Access)| {
        let barrier = [vk::MemoryBarrier::default()
            .src_access_mask(from.1)
            .dst_access_mask(to.1)];
        // SAFETY: passed on to the caller.
        unsafe {
            let none = vk::DependencyFlags::empty();
            device.cmd_pipeline_barrier(buffer, from.0, to.0, none, &barrier, &[], &[]);
        }
    };
    let kernel = (
        Stage::COMPUTE_SHADER,
        Access::SHADER_READ | Access::SHADER_WRITE,
    );
    let before = (Stage::ALL_COMMANDS, Access::MEMORY_WRITE);
    let fill = (Stage::TRANSFER, Access::TRANSFER_WRITE);
    let info =
        vk::CommandBufferBeginInfo::default().flags(vk::CommandBufferUsageFlags::ONE_TIME_SUBMIT);
    // SAFETY: passed on to the caller.
    unsafe {
        device
            .begin_command_buffer(buffer, &info)
            .map_err(fault("vkBeginCommandBuffer"))?;
        match dispatch.zeroed {
            None => barrier(before, kernel),
            Some(zeroed) => {
                barrier(before, (fill.0 | kernel.0, fill.1 | kernel.1));
                device.cmd_fill_buffer(buffer, zeroed, 0, vk::WHOLE_SIZE, 0);
                barrier(fill, kernel);
            }
        }
        let point = vk::PipelineBindPoint::COMPUTE;
        device.cmd_bind_pipeline(buffer, point, dispatch.pipeline);
        device.cmd_bind_descriptor_sets(buffer, point, layout, 0, &[set], &[]);
        let word = dispatch.word.to_ne_bytes();
        device.cmd_push_constants(buffer, layout, vk::ShaderStageFlags::COMPUTE, 0, &word);
        device.cmd_dispatch(buffer, dispatch.groups, 1, 1);
        barrier(
            (kernel.0, Access::SHADER_WRITE),
            (Stage::HOST, Access::HOST_READ),
        );
        device
            .end_command_buffer(buffer)
            .map_err(fault("vkEndCommandBuffer"))
    }
}

const WORDS: usize = 1 << 14;

/// The work of one device.
pub(super) struct VkWork {
    pub(super) gpu: Arc<Gpu>,
}

impl TestWork for VkWork {
    fn new_log(&self) -> Result<Log> {
        new_log(&self.gpu)
    }

    fn gate(&self, stream: &dyn StreamImpl) -> Result<Gate> {
        let gate = stream_as_vulkan(stream)?.wait_for_gate(|_, _| ())?;
        Ok(Gate::new(move || {
            // Behind a failure there is nothing to hold back.
            if let Some(gate) = gate {
                gate.open();
            }
        }))
    }

    fn append(&self, stream: &dyn StreamImpl, log: &Log, token: u32) -> Result<()> {
        match append(stream_as_vulkan(stream)?, log, token)? {
            true => Ok(()),
            // What is submitted behind a failure never runs.
            false => stream.failure().map_or(Ok(()), Err),
        }
    }

    /// The stream ends here, by the backend's own way of ending one: a real fault loses the whole
    /// device.
    fn fail(&self, stream: &dyn StreamImpl, text: &str) -> Result<()> {
        stream_as_vulkan(stream)?.fail_from_here(&Cause::new(text));
        Ok(())
    }

    fn shares_order(&self, one: &dyn StreamImpl, two: &dyn StreamImpl) -> bool {
        match (stream_as_vulkan(one), stream_as_vulkan(two)) {
            (Ok(one), Ok(two)) => Arc::ptr_eq(&one.queue, &two.queue),
            _ => false,
        }
    }

    fn byte_counter(&self, capacity: usize) -> Result<Arc<dyn ByteCounterImpl>> {
        super::bytes::new(&self.gpu, capacity)
    }
}

fn new_log(gpu: &Arc<Gpu>) -> Result<Log> {
    let memory = Memory::new(gpu, WORDS * 4)?;
    let bound = Bound::new(gpu, vec![memory])?;
    Ok(Log::on_device(Arc::new(VkLog { bound })))
}

/// Writes `token` where it runs in the order; `Ok(false)` behind a failure.
fn append(stream: &VkStream, log: &Log, token: u32) -> Result<bool> {
    let log: &dyn Any = log.inner();
    let Some(log) = log
        .downcast_ref::<VkLog>()
        .filter(|log| Arc::ptr_eq(&log.bound.gpu, &stream.gpu))
    else {
        return Err(Error::Unsupported {
            what: "a log of another device".into(),
            device: stream.gpu.name.clone(),
            remedy: "make the log on this device".into(),
        });
    };
    let work = Dispatch {
        pipeline: kernels(&stream.gpu)?.append,
        groups: 1,
        word: token,
        zeroed: None,
    };
    dispatch(stream, &log.bound, &work)
}

/// Keeps the device busy for some rounds of a loop.
pub(super) fn spin(stream: &VkStream, rounds: u32) -> Result<()> {
    let gpu = &stream.gpu;
    let bound = Bound::new(gpu, vec![Memory::new(gpu, 4)?])?;
    let work = Dispatch {
        pipeline: kernels(gpu)?.spin,
        groups: 1,
        word: rounds,
        zeroed: None,
    };
    dispatch(stream, &bound, &work).map(drop)
}

/// A count, and the tokens.
struct VkLog {
    bound: Arc<Bound>,
}

impl LogImpl for VkLog {
    fn push(&self, token: u32) {
        let memory = &self.bound.memory[0];
        let at = memory.word(0).fetch_add(1, Ordering::SeqCst) as usize;
        if at < WORDS - 1 {
            memory.word(1 + at).store(token, Ordering::SeqCst);
        }
    }

    fn read(&self) -> Result<Vec<u32>> {
        let memory = &self.bound.memory[0];
        let count = memory.word(0).load(Ordering::SeqCst) as usize;
        Ok((0..count.min(WORDS - 1))
            .map(|at| memory.word(1 + at).load(Ordering::SeqCst))
            .collect())
    }
}
