//! Times a compute dispatch on a Vulkan device that this program made with ash.
//!
//! `cargo run --release -p fencepost --features vulkan --example vulkan_ash`

#[cfg(not(feature = "vulkan"))]
fn main() {
    println!("left out of this build: add --features vulkan");
}

#[cfg(feature = "vulkan")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    use std::sync::{Arc, Mutex};

    use fencepost::{Event, vulkan};

    let Some(own) = own::Device::new()? else {
        println!("no Vulkan device here");
        return Ok(());
    };
    let own = Arc::new(own);
    let work = own::Dispatch::new(own.clone())?;
    // Whoever submits to the queue does so under this lock, fencepost too.
    let lock = Arc::new(Mutex::new(()));
    // SAFETY: the parts belong together; Vulkan 1.2 with timeline semaphores and no optional
    // feature; the owner goes along, and destroys the device when it is dropped.
    let device = unsafe {
        vulkan::device_from_raw(
            own.instance.clone(),
            own.physical,
            own.device.clone(),
            vulkan::Features::default(),
            own.queue,
            own.family,
            lock.clone(),
            own.clone(),
        )
    }?;
    println!("{device}, clock: {}", device.clock());

    let stream = device.default_stream();
    let (start, end) = (Event::with_timing(&device), Event::with_timing(&device));
    start.record(&stream)?;
    {
        let _alone = lock.lock();
        work.submit()?;
    }
    end.record(&stream)?;
    println!("a dispatch took {:.3} ms", start.elapsed_time(&end)?);

    // The same from inside a command buffer of our own.
    let (reserved, buffer) = work.again(|buffer| {
        // SAFETY: the buffer is being recorded, for that family.
        unsafe { vulkan::record_into(&device, buffer, own.family) }
    })?;
    let reserved = reserved?;
    let (semaphore, value) =
        vulkan::marker_as_raw(&reserved.marker()).ok_or("it has a semaphore")?;
    {
        let _alone = lock.lock();
        work.submit_signalling(buffer, semaphore, value)?;
    }
    let inside = reserved.submitted();
    inside.synchronize()?;
    let last = end.marker().ok_or("it was recorded")?;
    println!(
        "the mark in the next buffer came {} later",
        last.elapsed(&inside)?
    );
    Ok(())
}

/// A device, a queue and a compute shader, as any program with ash has them.
#[cfg(feature = "vulkan")]
mod own {
    use std::sync::Arc;

    use ash::{prelude::VkResult, vk};

    pub(crate) struct Device {
        _entry: ash::Entry,
        pub(crate) instance: ash::Instance,
        pub(crate) physical: vk::PhysicalDevice,
        pub(crate) device: ash::Device,
        pub(crate) queue: vk::Queue,
        pub(crate) family: u32,
    }

    impl Device {
        /// The first device with timeline semaphores and a queue that computes.
        pub(crate) fn new() -> VkResult<Option<Device>> {
            let application = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_2);
            let info = vk::InstanceCreateInfo::default().application_info(&application);
            // SAFETY: what is made here is made in order, of things that are alive.
            unsafe {
                let Ok(entry) = ash::Entry::load() else {
                    return Ok(None);
                };
                let Ok(instance) = entry.create_instance(&info, None) else {
                    return Ok(None);
                };
                for physical in instance.enumerate_physical_devices()? {
                    let families = instance.get_physical_device_queue_family_properties(physical);
                    let family = families.iter().position(|family| {
                        family.queue_flags.contains(vk::QueueFlags::COMPUTE)
                            && family.timestamp_valid_bits > 0
                    });
                    let Some(family) = family.map(|family| family as u32) else {
                        continue;
                    };
                    let queues = [vk::DeviceQueueCreateInfo::default()
                        .queue_family_index(family)
                        .queue_priorities(&[1.0])];
                    let mut timeline = vk::PhysicalDeviceTimelineSemaphoreFeatures::default()
                        .timeline_semaphore(true);
                    let info = vk::DeviceCreateInfo::default()
                        .queue_create_infos(&queues)
                        .push_next(&mut timeline);
                    if let Ok(device) = instance.create_device(physical, &info, None) {
                        return Ok(Some(Device {
                            queue: device.get_device_queue(family, 0),
                            _entry: entry,
                            instance,
                            physical,
                            device,
                            family,
                        }));
                    }
                }
                instance.destroy_instance(None);
            }
            Ok(None)
        }
    }

    impl Drop for Device {
        fn drop(&mut self) {
            // SAFETY: everything made of them holds this.
            unsafe {
                self.device.destroy_device(None);
                self.instance.destroy_instance(None);
            }
        }
    }

    /// A shader that loops for a while, and what it runs on. It needs no memory but one word.
    pub(crate) struct Dispatch {
        own: Arc<Device>,
        module: vk::ShaderModule,
        set_layout: vk::DescriptorSetLayout,
        layout: vk::PipelineLayout,
        pipeline: vk::Pipeline,
        sets: vk::DescriptorPool,
        set: vk::DescriptorSet,
        buffer: vk::Buffer,
        memory: vk::DeviceMemory,
        commands: vk::CommandPool,
    }

    const ROUNDS: u32 = 10_000_000;

    impl Dispatch {
        pub(crate) fn new(own: Arc<Device>) -> VkResult<Dispatch> {
            let device = &own.device;
            let words: Vec<u32> = fencepost::testing::vulkan::KERNELS
                .chunks_exact(4)
                .map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
                .collect();
            let stages = vk::ShaderStageFlags::COMPUTE;
            let binding = [vk::DescriptorSetLayoutBinding::default()
                .descriptor_type(vk::DescriptorType::STORAGE_BUFFER)
                .descriptor_count(1)
                .stage_flags(stages)];
            let push = [vk::PushConstantRange::default().stage_flags(stages).size(4)];
            // SAFETY: as above.
            unsafe {
                let module = device.create_shader_module(
                    &vk::ShaderModuleCreateInfo::default().code(&words),
                    None,
                )?;
                let set_layout = device.create_descriptor_set_layout(
                    &vk::DescriptorSetLayoutCreateInfo::default().bindings(&binding),
                    None,
                )?;
                let set_layouts = [set_layout];
                let layout = device.create_pipeline_layout(
                    &vk::PipelineLayoutCreateInfo::default()
                        .set_layouts(&set_layouts)
                        .push_constant_ranges(&push),
                    None,
                )?;
                let stage = vk::PipelineShaderStageCreateInfo::default()
                    .stage(stages)
                    .module(module)
                    .name(c"fencepost_spin");
                let info = [vk::ComputePipelineCreateInfo::default()
                    .stage(stage)
                    .layout(layout)];
                let pipeline = device
                    .create_compute_pipelines(vk::PipelineCache::null(), &info, None)
                    .map_err(|(_, error)| error)?[0];
                let (buffer, memory) = own.word()?;
                let sizes = [vk::DescriptorPoolSize::default()
                    .ty(vk::DescriptorType::STORAGE_BUFFER)
                    .descriptor_count(1)];
                let sets = device.create_descriptor_pool(
                    &vk::DescriptorPoolCreateInfo::default()
                        .max_sets(1)
                        .pool_sizes(&sizes),
                    None,
                )?;
                let set = device.allocate_descriptor_sets(
                    &vk::DescriptorSetAllocateInfo::default()
                        .descriptor_pool(sets)
                        .set_layouts(&set_layouts),
                )?[0];
                let bound = [vk::DescriptorBufferInfo::default()
                    .buffer(buffer)
                    .range(vk::WHOLE_SIZE)];
                let write = [vk::WriteDescriptorSet::default()
                    .dst_set(set)
                    .descriptor_type(vk::DescriptorType::STORAGE_BUFFER)
                    .buffer_info(&bound)];
                device.update_descriptor_sets(&write, &[]);
                let commands = device.create_command_pool(
                    &vk::CommandPoolCreateInfo::default().queue_family_index(own.family),
                    None,
                )?;
                Ok(Dispatch {
                    module,
                    set_layout,
                    layout,
                    pipeline,
                    sets,
                    set,
                    buffer,
                    memory,
                    commands,
                    own,
                })
            }
        }

        /// Submits one dispatch. The queue's lock is held.
        pub(crate) fn submit(&self) -> VkResult<()> {
            let ((), buffer) = self.again(|_| ())?;
            let buffers = [buffer];
            let info = [vk::SubmitInfo::default().command_buffers(&buffers)];
            // SAFETY: the queue's lock is held; the buffer lives until the device is idle.
            unsafe {
                self.own
                    .device
                    .queue_submit(self.own.queue, &info, vk::Fence::null())
            }
        }

        /// A command buffer with one dispatch, and what `more` adds behind it.
        pub(crate) fn again<R>(
            &self,
            more: impl FnOnce(vk::CommandBuffer) -> R,
        ) -> VkResult<(R, vk::CommandBuffer)> {
            let device = &self.own.device;
            let info = vk::CommandBufferAllocateInfo::default()
                .command_pool(self.commands)
                .command_buffer_count(1);
            // SAFETY: the pool is used by this thread only; pipeline, layout and set belong
            // together.
            unsafe {
                let buffer = device.allocate_command_buffers(&info)?[0];
                device.begin_command_buffer(buffer, &vk::CommandBufferBeginInfo::default())?;
                let point = vk::PipelineBindPoint::COMPUTE;
                device.cmd_bind_pipeline(buffer, point, self.pipeline);
                device.cmd_bind_descriptor_sets(buffer, point, self.layout, 0, &[self.set], &[]);
                let rounds = ROUNDS.to_ne_bytes();
                device.cmd_push_constants(
                    buffer,
                    self.layout,
                    vk::ShaderStageFlags::COMPUTE,
                    0,
                    &rounds,
                );
                device.cmd_dispatch(buffer, 1, 1, 1);
                let result = more(buffer);
                device.end_command_buffer(buffer)?;
                Ok((result, buffer))
            }
        }

        /// Submits `buffer`, which signals the semaphore behind it. The queue's lock is held.
        pub(crate) fn submit_signalling(
            &self,
            buffer: vk::CommandBuffer,
            semaphore: vk::Semaphore,
            value: u64,
        ) -> VkResult<()> {
            let (buffers, semaphores, values) = ([buffer], [semaphore], [value]);
            let mut timeline =
                vk::TimelineSemaphoreSubmitInfo::default().signal_semaphore_values(&values);
            let info = [vk::SubmitInfo::default()
                .command_buffers(&buffers)
                .signal_semaphores(&semaphores)
                .push_next(&mut timeline)];
            // SAFETY: as in `submit`; the marker keeps the semaphore.
            unsafe {
                self.own
                    .device
                    .queue_submit(self.own.queue, &info, vk::Fence::null())
            }
        }
    }

    impl Device {
        /// A buffer of one word.
        fn word(&self) -> VkResult<(vk::Buffer, vk::DeviceMemory)> {
            let info = vk::BufferCreateInfo::default()
                .size(4)
                .usage(vk::BufferUsageFlags::STORAGE_BUFFER);
            // SAFETY: the memory is of a type that the buffer takes.
            unsafe {
                let buffer = self.device.create_buffer(&info, None)?;
                let needs = self.device.get_buffer_memory_requirements(buffer);
                let memory = self.device.allocate_memory(
                    &vk::MemoryAllocateInfo::default()
                        .allocation_size(needs.size)
                        .memory_type_index(needs.memory_type_bits.trailing_zeros()),
                    None,
                )?;
                self.device.bind_buffer_memory(buffer, memory, 0)?;
                Ok((buffer, memory))
            }
        }
    }

    impl Drop for Dispatch {
        fn drop(&mut self) {
            let device = &self.own.device;
            // SAFETY: nothing runs any more; each was made by us.
            unsafe {
                let _ = device.device_wait_idle();
                device.destroy_command_pool(self.commands, None);
                device.destroy_descriptor_pool(self.sets, None);
                device.destroy_buffer(self.buffer, None);
                device.free_memory(self.memory, None);
                device.destroy_pipeline(self.pipeline, None);
                device.destroy_pipeline_layout(self.layout, None);
                device.destroy_descriptor_set_layout(self.set_layout, None);
                device.destroy_shader_module(self.module, None);
            }
        }
    }
}
