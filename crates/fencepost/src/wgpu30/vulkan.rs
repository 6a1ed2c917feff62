//! Timeline semaphores that wgpu's submits signal.

use std::{
    ops::Deref,
    sync::Arc,
    time::{Duration, Instant},
};

use ash::vk;
use wgpu::hal::{Device as _, DeviceError, Queue as _, api::Vulkan, vulkan as hal};

use crate::error::Error;

const SEMAPHORE: &str = "vkCreateSemaphore";

/// A call that the driver refused, and its reason.
pub(super) struct Fault {
    pub(super) call: &'static str,
    pub(super) result: vk::Result,
}

impl Fault {
    /// The error of a call that the device survives.
    pub(super) fn error(&self) -> Error {
        Error::Backend {
            call: self.call,
            code: self.result.as_raw().into(),
            text: format!("{}; free memory, or update the driver", self.result),
        }
    }
}

/// The functions of a `VkDevice` of wgpu's, which has timeline semaphores enabled.
pub(super) struct Table {
    device: ash::Device,
    /// Whether the driver spins in a wait for one of several semaphores.
    pub(super) spins: bool,
    /// The valid bits of timestamps on the queue.
    pub(super) valid_bits: u32,
}

impl Table {
    /// `None` for a device of another API, and for one without timeline semaphores.
    pub(super) fn of(device: &wgpu::Device) -> Result<Option<Arc<Table>>, Fault> {
        let info = device.adapter_info();
        // SAFETY: nothing is destroyed through it.
        let Some(hal) = (unsafe { device.as_hal::<Vulkan>() }) else {
            return Ok(None);
        };
        // SAFETY: the device is alive. wgpu makes a fence of this kind only where timeline
        // semaphores are enabled.
        let fence = unsafe { hal.create_fence() }.map_err(|error| Fault {
            call: SEMAPHORE,
            result: match error {
                DeviceError::OutOfMemory => vk::Result::ERROR_OUT_OF_DEVICE_MEMORY,
                DeviceError::Lost => vk::Result::ERROR_DEVICE_LOST,
                _ => vk::Result::ERROR_UNKNOWN,
            },
        })?;
        let enabled = matches!(fence, hal::Fence::TimelineSemaphore(_));
        // SAFETY: just made, and used by nobody.
        unsafe { hal.destroy_fence(fence) };
        let table = hal.raw_device();
        let instance = hal.shared_instance().raw_instance();
        let has = |name: &std::ffi::CStr| {
            // SAFETY: a device of this instance, and a name that ends with a zero.
            let found = unsafe { instance.get_device_proc_addr(table.handle(), name.as_ptr()) };
            found.is_some()
        };
        // A device of Vulkan 1.1 has them under the extension's names only.
        if !enabled || !has(c"vkWaitSemaphores") || !has(c"vkGetSemaphoreCounterValue") {
            return Ok(None);
        }
        // SAFETY: the device's own physical device.
        let families = unsafe {
            instance.get_physical_device_queue_family_properties(hal.raw_physical_device())
        };
        let family = families.get(hal.queue_family_index() as usize);
        Ok(Some(Arc::new(Table {
            device: table.clone(),
            spins: info.driver == "llvmpipe",
            valid_bits: family.map_or(64, |family| family.timestamp_valid_bits),
        })))
    }

    /// The `VkDevice`.
    #[cfg(feature = "vulkan")]
    pub(super) fn handle(&self) -> vk::Device {
        self.device.handle()
    }

    /// A new timeline semaphore, with the value 0.
    pub(super) fn timeline(self: &Arc<Self>) -> Result<Timeline, Fault> {
        let mut kind = vk::SemaphoreTypeCreateInfo::default()
            .semaphore_type(vk::SemaphoreType::TIMELINE)
            .initial_value(0);
        let info = vk::SemaphoreCreateInfo::default().push_next(&mut kind);
        // SAFETY: the device is alive and has timeline semaphores; the chain is alive during the
        // call.
        let raw = unsafe { self.device.create_semaphore(&info, None) };
        let raw = raw.map_err(|result| Fault {
            call: SEMAPHORE,
            result,
        })?;
        Ok(Timeline {
            table: self.clone(),
            raw,
        })
    }

    /// Blocks until one of `awaited` has its value, or until `timeout`: `false`. It may spin for a
    /// moment, never longer, where the driver would.
    pub(super) fn wait_any(
        &self,
        awaited: &[(&Timeline, u64)],
        timeout: Duration,
    ) -> Result<bool, Fault> {
        let semaphores: Vec<_> = awaited.iter().map(|(timeline, _)| timeline.raw).collect();
        let values: Vec<_> = awaited.iter().map(|(_, value)| *value).collect();
        let info = vk::SemaphoreWaitInfo::default()
            .flags(vk::SemaphoreWaitFlags::ANY)
            .semaphores(&semaphores)
            .values(&values);
        let timeout = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
        // SAFETY: timeline semaphores of this device, which their owners keep alive.
        match unsafe { self.device.wait_semaphores(&info, timeout) } {
            Ok(()) => Ok(true),
            Err(vk::Result::TIMEOUT) => Ok(false),
            Err(result) => Err(Fault {
                call: "vkWaitSemaphores",
                result,
            }),
        }
    }
}

/// Whether the queue is that of the device.
pub(super) fn belong_together(device: &wgpu::Device, queue: &wgpu::Queue) -> bool {
    // SAFETY: nothing is destroyed through them, here and below.
    let device = unsafe { device.as_hal::<Vulkan>() };
    // SAFETY: as above.
    let queue = unsafe { queue.as_hal::<Vulkan>() };
    match (device, queue) {
        (Some(device), Some(queue)) => {
            device.raw_queue() == queue.as_raw()
                && device.raw_device().handle() == queue.raw_device().handle()
        }
        (None, None) => true,
        _ => false,
    }
}

/// Whether the two are one queue. Where they are not Vulkan's, nothing but wgpu can tell.
pub(super) fn is_one(one: &wgpu::Queue, two: &wgpu::Queue) -> bool {
    // SAFETY: nothing is destroyed through them.
    let hal = [one, two].map(|queue| unsafe { queue.as_hal::<Vulkan>() });
    match hal {
        [Some(one), Some(two)] => {
            one.as_raw() == two.as_raw() && one.raw_device().handle() == two.raw_device().handle()
        }
        [None, None] => one == two,
        _ => false,
    }
}

/// A queue as wgpu-hal has it, which lives as long as this. To ask wgpu for it takes 20 ns.
pub(super) struct HalQueue(Box<dyn Deref<Target = hal::Queue> + Send + Sync>);

impl HalQueue {
    /// `None` for a queue of another API.
    pub(super) fn of(queue: &wgpu::Queue) -> Option<HalQueue> {
        // SAFETY: nothing is destroyed through it.
        let hal = unsafe { queue.as_hal::<Vulkan>() }?;
        Some(HalQueue(Box::new(hal)))
    }

    /// The length of a tick of the device in nanoseconds.
    pub(super) fn tick(&self) -> f32 {
        // SAFETY: the queue is alive; this only reads.
        unsafe { self.0.get_timestamp_period() }
    }
}

/// A timeline semaphore of ours. Its owner calls [`destroy`](Timeline::destroy).
pub(super) struct Timeline {
    table: Arc<Table>,
    raw: vk::Semaphore,
}

impl Timeline {
    /// Its value. Never blocks.
    pub(super) fn value(&self) -> Result<u64, Fault> {
        /// No stream reaches this value. Some drivers report a lost device by such a value and the
        /// result of a success ([Vulkan-ValidationLayers
        /// #4566](https://github.com/KhronosGroup/Vulkan-ValidationLayers/issues/4566)).
        const BEYOND: u64 = 1 << 63;
        // SAFETY: a timeline semaphore of this device, which is alive.
        let value = match unsafe { self.table.device.get_semaphore_counter_value(self.raw) } {
            Ok(BEYOND..) => Err(vk::Result::ERROR_DEVICE_LOST),
            other => other,
        };
        value.map_err(|result| Fault {
            call: "vkGetSemaphoreCounterValue",
            result,
        })
    }

    /// Blocks until it has `value`, or until `deadline`.
    pub(super) fn wait(&self, value: u64, deadline: Instant) -> Result<(), Fault> {
        let left = deadline.saturating_duration_since(Instant::now());
        self.table.wait_any(&[(self, value)], left).map(drop)
    }

    /// Signals it from the host. Only a lost device refuses that.
    pub(super) fn signal(&self, value: u64) {
        let info = vk::SemaphoreSignalInfo::default()
            .semaphore(self.raw)
            .value(value);
        // SAFETY: a timeline semaphore that only the host signals, with growing values.
        let _ = unsafe { self.table.device.signal_semaphore(&info) };
    }

    /// The semaphore must be alive until what signals it is complete (`counter.rs`).
    pub(super) fn stage(&self, queue: &HalQueue, value: u64) {
        queue.0.add_signal_semaphore(self.raw, Some(value));
    }

    pub(super) fn withdraw(&self, queue: &HalQueue) -> bool {
        queue.0.remove_signal_semaphore(self.raw)
    }

    /// Destroys it. Called once, when nothing that uses it is pending.
    pub(super) fn destroy(&self) {
        // SAFETY: made by us of this device, which is alive; nobody uses it after.
        unsafe { self.table.device.destroy_semaphore(self.raw, None) };
    }
}

/// Has the next submit of `queue`, whoever makes it, wait for a timeline semaphore of its device.
/// The caller keeps that alive until the submit is complete.
#[cfg(feature = "vulkan")]
pub(super) fn stage_wait(queue: &HalQueue, semaphore: vk::Semaphore, value: u64) {
    let stages = vk::PipelineStageFlags::ALL_COMMANDS;
    queue.0.add_wait_semaphore(semaphore, Some(value), stages);
}
