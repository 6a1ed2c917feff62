//! The one simulated machine of this process, and its tables.

use crate::boundary::Done;
use crate::buffer::Buffer;
use crate::calls::{complain, misuse};
use crate::command::{CommandBuffer, CommandPool};
use crate::descriptor::{DescriptorPool, DescriptorSet, SetLayout};
use crate::device::{Device, Queue, Shared};
use crate::fence::Fence;
use crate::instance::Instance;
use crate::memory::Memory;
use crate::options::Options;
use crate::physical::Physical;
use crate::pipeline::{Cache, Module, Pipeline, PipelineLayout};
use crate::procs;
use crate::query::QueryPool;
use crate::semaphore::Semaphore;
use crate::table::{Table, kind_of, name_of, next_epoch};
use crate::{clock, control};
use ash::vk::{self, Handle, ObjectType};
use fencepost_sim::{Config, Flag, Order, SimDevice, Stepper, Sticky, seed_or};
use std::collections::{BTreeMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};

pub(crate) static FACE: Mutex<Option<Face>> = Mutex::new(None);

/// One batch of work as far as its objects are concerned: they are in use until it is over.
///
/// `done` is set before the batch's signals, so that whoever has seen one of those may destroy and
/// reset.
#[derive(Debug)]
pub(crate) struct Ticket {
    pub(crate) done: Flag,
    pub(crate) device: Arc<Shared>,
}

impl Ticket {
    /// Complete; or given up with its device, which counts as complete.
    pub(crate) fn over(&self) -> bool {
        self.done.is_set() || self.device.lost()
    }
}

#[derive(Debug)]
pub(crate) struct Face {
    pub(crate) options: Options,
    /// Never lost: what is made on it can be made on behalf of a lost device too.
    pub(crate) root: SimDevice,
    pub(crate) config: Config,
    /// `CLOCK_MONOTONIC` then.
    pub(crate) began: u64,
    pub(crate) instances: Table<vk::Instance, Instance>,
    pub(crate) physicals: Table<vk::PhysicalDevice, Physical>,
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
    /// Which batches use an object, oldest first.
    uses: BTreeMap<u64, VecDeque<Arc<Ticket>>>,
    /// What tests have planned for submits: how many are left until it strikes, and what.
    pub(crate) submit_faults: Vec<(u64, SubmitFault)>,
    /// Batches that hang until they are told.
    pub(crate) hanging: Vec<fencepost_sim::Gate>,
    _stepper: Stepper,
}

/// What happens to a submit that a test has picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SubmitFault {
    /// Its work runs until it is released.
    Hang,
    /// Its work runs; its semaphores and its fence are never signalled.
    Silent,
    /// Its work fails and the device is lost.
    Lose,
}

/// Runs `body` with the machine, made on first use, locked.
pub(crate) fn with_face<R>(body: impl FnOnce(&mut Face) -> R) -> Done<R> {
    let mut face = FACE.lock().unwrap_or_else(PoisonError::into_inner);
    if face.is_none() {
        *face = Some(Face::new(None)?);
    }
    face.as_mut().map(body).ok_or(vk::Result::ERROR_UNKNOWN)
}

impl Face {
    pub(crate) fn new(seed: Option<u64>) -> Done<Face> {
        // a hasher's keys are the one source of chance in the standard library
        let seed = seed.unwrap_or_else(|| seed_or(RandomState::new().hash_one(0) >> 32));
        let options = Options::read();
        let config = Config {
            order: Order::OrderedSignals,
            // each command is a batch of its own
            max_overlap: 16,
            sticky: Sticky::Device,
            initial_tick: options.clock,
            calibration_error_ns: 500,
            // tests hold queues from the host, and look at how long by the device's clock
            follows_real_time: true,
            // the objects are the root's; whose they are here is checked here
            shares_objects: true,
            trace_capacity: 4096,
            ..Config::seeded(seed)
        };
        let failed = vk::Result::ERROR_INITIALIZATION_FAILED;
        let root = SimDevice::new(config.clone()).map_err(|_| failed)?;
        let stepper = root.spawn_stepper().map_err(|_| failed)?;
        let epoch = next_epoch();
        control::use_seed(seed);
        Ok(Face {
            options,
            root,
            config,
            began: clock::monotonic(),
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
            submit_faults: Vec::new(),
            hanging: Vec::new(),
            _stepper: stepper,
        })
    }

    pub(crate) fn new_flag(&self, set: bool) -> Done<Flag> {
        self.root.new_flag(set).map_err(no_room)
    }

    /// Work names the object from now on, until the ticket is over.
    pub(crate) fn use_by(&mut self, handle: u64, ticket: &Arc<Ticket>) {
        let uses = self.uses.entry(handle).or_default();
        while uses.front().is_some_and(|earliest| earliest.over()) {
            uses.pop_front();
        }
        uses.push_back(ticket.clone());
    }

    pub(crate) fn in_use(&self, handle: u64) -> bool {
        let uses = self.uses.get(&handle);
        uses.is_some_and(|uses| uses.iter().any(|ticket| !ticket.over()))
    }

    /// An object is about to be destroyed, which pending work forbids.
    pub(crate) fn retire(&mut self, handle: impl Handle) {
        let handle = handle.as_raw();
        if self.in_use(handle) {
            let name = name_of(handle);
            complain(&format!("{name} is destroyed while pending work uses it"));
        }
        self.uses.remove(&handle);
    }

    pub(crate) fn forget_uses(&mut self, handle: u64) {
        self.uses.remove(&handle);
    }

    /// Whether a command buffer that names this object is still valid.
    pub(crate) fn is_there(&self, handle: u64) -> bool {
        match kind_of(handle) {
            ObjectType::BUFFER => self.buffers.contains(handle),
            ObjectType::QUERY_POOL => self.query_pools.contains(handle),
            ObjectType::PIPELINE => self.pipelines.contains(handle),
            ObjectType::DESCRIPTOR_SET => self.descriptor_sets.contains(handle),
            _ => true,
        }
    }

    /// The device that a dispatchable handle belongs to.
    pub(crate) fn device_of(&self, handle: u64) -> Option<vk::Device> {
        match kind_of(handle) {
            ObjectType::DEVICE => Some(vk::Device::from_raw(handle)),
            ObjectType::QUEUE => {
                let queue = self.queues.find(vk::Queue::from_raw(handle)).ok()?;
                Some(queue.device)
            }
            ObjectType::COMMAND_BUFFER => {
                let buffer = vk::CommandBuffer::from_raw(handle);
                Some(self.command_buffers.find(buffer).ok()?.device)
            }
            _ => None,
        }
    }

    /// A call was told to say that its device is lost: then it is.
    pub(crate) fn lose_by(&mut self, handle: u64) {
        let device = self
            .device_of(handle)
            .map(|device| self.devices.find(device));
        if let Some(Ok(device)) = device {
            device.shared.lose("a planned failure");
        }
    }

    /// Functions of versions and extensions that were not enabled must not be called.
    pub(crate) fn check_enabled(&self, name: &str, target: u64) -> Done {
        let Some(needs) = procs::needs(name) else {
            return Ok(());
        };
        let enabled = match self.device_of(target) {
            Some(device) => {
                let device = self.devices.find(device)?;
                device.version >= needs.core || needs.extensions.iter().any(|e| device.has(e))
            }
            None => match kind_of(target) {
                ObjectType::PHYSICAL_DEVICE => {
                    let physical = vk::PhysicalDevice::from_raw(target);
                    let instance = self.physicals.find(physical)?.instance;
                    let instance = self.instances.find(instance)?;
                    // physical-device functions of a device extension need that the device has it,
                    // no more
                    let device_level = |e: &&&str| self.device_extensions().contains(&**e);
                    instance.version >= needs.core
                        || needs.extensions.iter().any(|e| instance.has(e))
                        || needs.extensions.iter().find(device_level).is_some()
                }
                _ => true,
            },
        };
        if enabled {
            return Ok(());
        }
        Err(misuse("neither its version nor its extension is enabled"))
    }
}

/// What a refusal by the simulated device means here.
pub(crate) fn no_room(_: fencepost_sim::Error) -> vk::Result {
    vk::Result::ERROR_OUT_OF_HOST_MEMORY
}
