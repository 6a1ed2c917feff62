//! The state of the simulated driver.

use crate::batch::{SubmitFault, SubmittedBatch};
use crate::buffer::Buffer;
use crate::command_buffer::{CommandBuffer, CommandPool};
use crate::descriptor::{DescriptorPool, DescriptorSet, SetLayout};
use crate::device::{Device, Queue};
use crate::fence::Fence;
use crate::instance::Instance;
use crate::memory::{Memory, keep_alive};
use crate::options::Options;
use crate::physical::PhysicalDevice;
use crate::pipeline::{Cache, Module, Pipeline, PipelineLayout};
use crate::query::QueryPool;
use crate::semaphore::Semaphore;
use crate::table::{Table, kind_of, name_of, next_epoch};
use crate::usage::{LOG, VkResult, out_of_host_memory, report_invalid_usage};
use ash::vk::{self, Handle, ObjectType};
use fencepost_sim::{Config, Flag, Order, Planned, SimDevice, Stepper, Sticky, lock, random_seed};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

pub(crate) static DRIVER: Mutex<Option<Driver>> = Mutex::new(None);

/// The simulated machine of this process, and all its objects.
#[derive(Debug)]
pub(crate) struct Driver {
    pub(crate) options: Options,
    /// A device that is never lost. Flags, gates and semaphores are created on it, so that a lost
    /// device can have them too.
    pub(crate) root: SimDevice,
    pub(crate) config: Config,
    /// `CLOCK_MONOTONIC` when the machine was created.
    pub(crate) began: u64,
    pub(crate) instances: Table<vk::Instance, Instance>,
    pub(crate) physicals: Table<vk::PhysicalDevice, PhysicalDevice>,
    pub(crate) devices: Table<vk::Device, Device>,
    pub(crate) queues: Table<vk::Queue, Queue>,
    pub(crate) semaphores: Table<vk::Semaphore, Semaphore>,
    pub(crate) fences: Table<vk::Fence, Fence>,
    pub(crate) query_pools: Table<vk::QueryPool, QueryPool>,
    pub(crate) command_pools: Table<vk::CommandPool, CommandPool>,
    pub(crate) command_buffers: Table<vk::CommandBuffer, CommandBuffer>,
    pub(crate) buffers: Table<vk::Buffer, Buffer>,
    pub(crate) memories: Table<vk::DeviceMemory, Memory>,
    pub(crate) set_layouts: Table<vk::DescriptorSetLayout, SetLayout>,
    pub(crate) descriptor_pools: Table<vk::DescriptorPool, DescriptorPool>,
    pub(crate) descriptor_sets: Table<vk::DescriptorSet, DescriptorSet>,
    pub(crate) pipeline_layouts: Table<vk::PipelineLayout, PipelineLayout>,
    pub(crate) modules: Table<vk::ShaderModule, Module>,
    pub(crate) caches: Table<vk::PipelineCache, Cache>,
    pub(crate) pipelines: Table<vk::Pipeline, Pipeline>,
    /// The batches that use an object, oldest first.
    uses: BTreeMap<u64, VecDeque<Arc<SubmittedBatch>>>,
    /// The faults that tests have planned for submits.
    pub(crate) submit_faults: Planned<SubmitFault>,
    /// The gates of hanging batches.
    pub(crate) hanging: Vec<fencepost_sim::Gate>,
    _stepper: Stepper,
}

/// Runs `body` with the driver locked. The first call creates the machine.
pub(crate) fn with_driver<R>(body: impl FnOnce(&mut Driver) -> R) -> VkResult<R> {
    let mut driver = lock(&DRIVER);
    if driver.is_none() {
        *driver = Some(Driver::new(None)?);
    }
    driver.as_mut().map(body).ok_or(vk::Result::ERROR_UNKNOWN)
}

impl Driver {
    pub(crate) fn new(seed: Option<u64>) -> VkResult<Driver> {
        let seed = seed.unwrap_or_else(random_seed);
        let options = Options::read();
        let config = Config {
            order: Order::OrderedSignals,
            // each command is a batch
            max_overlap: 16,
            sticky: Sticky::Device,
            initial_tick: options.clock,
            calibration_error_ns: 500,
            // tests block queues from the host and measure that time with the device's clock
            follows_real_time: true,
            // all objects belong to the root device; this crate checks which device may use them
            shares_objects: true,
            trace_capacity: 4096,
            ..Config::seeded(seed)
        };
        let failed = vk::Result::ERROR_INITIALIZATION_FAILED;
        let root = SimDevice::new(config.clone()).map_err(|_| failed)?;
        let stepper = root.spawn_stepper().map_err(|_| failed)?;
        let epoch = next_epoch();
        LOG.set_seed(seed);
        let began = monotonic().saturating_sub(root.host_ns());
        Ok(Driver {
            options,
            root,
            config,
            began,
            instances: Table::new(epoch),
            physicals: Table::new(epoch),
            devices: Table::new(epoch),
            queues: Table::new(epoch),
            semaphores: Table::new(epoch),
            fences: Table::new(epoch),
            query_pools: Table::new(epoch),
            command_pools: Table::new(epoch),
            command_buffers: Table::new(epoch),
            buffers: Table::new(epoch),
            memories: Table::new(epoch),
            set_layouts: Table::new(epoch),
            descriptor_pools: Table::new(epoch),
            descriptor_sets: Table::new(epoch),
            pipeline_layouts: Table::new(epoch),
            modules: Table::new(epoch),
            caches: Table::new(epoch),
            pipelines: Table::new(epoch),
            uses: BTreeMap::new(),
            submit_faults: Planned::default(),
            hanging: Vec::new(),
            _stepper: stepper,
        })
    }

    pub(crate) fn device(&self, device: vk::Device) -> VkResult<&Device> {
        self.devices.find(device)
    }

    pub(crate) fn keep_mapped_memory(&self) {
        let mapped = self.memories.iter().filter(|(_, it)| it.mapped.is_some());
        keep_alive(mapped.map(|(_, it)| it.block.clone()));
    }

    pub(crate) fn new_flag(&self, set: bool) -> VkResult<Flag> {
        self.root.new_flag(set).map_err(out_of_host_memory)
    }

    /// Marks the object as in use until the batch is over.
    pub(crate) fn mark_in_use(&mut self, handle: u64, submitted: &Arc<SubmittedBatch>) {
        let uses = self.uses.entry(handle).or_default();
        while uses.front().is_some_and(|earliest| earliest.over()) {
            uses.pop_front();
        }
        uses.push_back(submitted.clone());
    }

    pub(crate) fn in_use(&self, handle: u64) -> bool {
        let uses = self.uses.get(&handle);
        uses.is_some_and(|uses| uses.iter().any(|submitted| !submitted.over()))
    }

    /// Reports the destruction of an object that pending work uses.
    pub(crate) fn check_unused(&mut self, handle: impl Handle) {
        let handle = handle.as_raw();
        if self.in_use(handle) {
            let name = name_of(handle);
            report_invalid_usage(&format!("{name} is destroyed while pending work uses it"));
        }
        self.uses.remove(&handle);
    }

    pub(crate) fn forget_uses(&mut self, handle: u64) {
        self.uses.remove(&handle);
    }

    /// Whether an object that a command buffer uses still exists.
    pub(crate) fn exists(&self, handle: u64) -> bool {
        match kind_of(handle) {
            ObjectType::BUFFER => self.buffers.contains(handle),
            ObjectType::QUERY_POOL => self.query_pools.contains(handle),
            ObjectType::PIPELINE => self.pipelines.contains(handle),
            ObjectType::DESCRIPTOR_SET => self.descriptor_sets.contains(handle),
            _ => true,
        }
    }
}

/// The time of `CLOCK_MONOTONIC` in nanoseconds.
#[cfg(unix)]
fn monotonic() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: a valid pointer to a time
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    (time.tv_sec as u64) * 1_000_000_000 + time.tv_nsec as u64
}

/// Elsewhere the stand-in only has to build: nothing loads it.
#[cfg(not(unix))]
fn monotonic() -> u64 {
    static FIRST: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    let first = FIRST.get_or_init(std::time::Instant::now);
    first.elapsed().as_nanos() as u64
}
