//! One `VkDevice`, ours or the caller's: its functions, its queues, the streams on it, the thread
//! that waits for them, and the loss that ended it.
//!
//! - **Everything that belongs to the device holds it.** A stream that is dropped while its work is
//!   pending is buried by the waiter, which holds the device until then; so the device's children
//!   are always gone before the device, ours or the caller's, and no drop waits.
//! - **Functions that a device may lack are looked up by name**, not assumed from a version: a
//!   caller's device may be older than its driver.

use std::{
    any::Any,
    ffi::CStr,
    sync::{
        Arc, Once, OnceLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use ash::{Device as Table, Instance, vk};

use super::{
    fork,
    native::{HostGate, Watch},
    queue::{Queue, Submitter},
    stream::VkStream,
};
use crate::{
    clock::Clock,
    core::DeviceCore,
    diagnostics,
    error::{Cause, Error, Result},
    sync::{Mutex, lock, sleep},
    vulkan::QueueLock,
    watcher::{Sleep, Watcher},
};
use crate::{
    core::Streams,
    workers::{CallbackQueue, Pool},
};

pub(crate) struct Gpu {
    pub(crate) device: Arc<Table>,
    #[cfg(feature = "conformance")]
    pub(super) instance: Instance,
    #[cfg(feature = "conformance")]
    pub(super) physical: vk::PhysicalDevice,
    pub(super) submitter: Submitter,
    /// `vkCmdWriteTimestamp2`, where the device has it.
    pub(super) write2: Option<vk::PFN_vkCmdWriteTimestamp2>,
    /// Whether queries are reset by the host, not in the queue.
    pub(super) host_reset: bool,
    pub(super) name: String,
    pub(super) families: Vec<vk::QueueFamilyProperties>,
    pub(super) clock: Clock,
    callbacks: Arc<CallbackQueue>,
    /// Those that new streams are put on.
    pub(super) queues: Mutex<Vec<Arc<Queue>>>,
    /// Others of the caller's, as long as they have streams.
    wrapped: Mutex<Vec<Weak<Queue>>>,
    streams: Streams<VkStream>,
    /// What streams wait for until the host opens it.
    gates: Mutex<Vec<Weak<HostGate>>>,
    pub(super) waiter: Watcher<Watch, Sleeper>,
    dead: OnceLock<Cause>,
    /// The process is ending, and its driver may be taken apart.
    left: AtomicBool,
    owner: u32,
    /// The same, by the count of forks.
    home: u32,
    /// `None` for a device of ours.
    keep_alive: Option<Arc<dyn Any + Send + Sync>>,
    #[cfg(feature = "conformance")]
    pub(super) kernels: OnceLock<Result<super::work::Kernels>>,
}

/// A call that the driver refused.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(super) call: &'static str,
    pub(super) result: vk::Result,
}

/// What a device is made of, ours or the caller's.
pub(super) struct Parts {
    pub(super) instance: Instance,
    pub(super) physical: vk::PhysicalDevice,
    pub(super) device: Table,
    pub(super) synchronization2: bool,
    pub(super) host_reset: bool,
    pub(super) name: String,
    pub(super) keep_alive: Option<Arc<dyn Any + Send + Sync>>,
}

/// What this backend calls of every device.
const NEEDED: [&CStr; 6] = [
    c"vkQueueSubmit",
    c"vkCreateSemaphore",
    c"vkGetSemaphoreCounterValue",
    c"vkWaitSemaphores",
    c"vkSignalSemaphore",
    c"vkGetQueryPoolResults",
];

impl Gpu {
    /// # Safety
    /// The parts belong together and are alive, until `keep_alive` is dropped where there is one;
    /// the features that they name, and timeline semaphores, are enabled.
    pub(super) unsafe fn new(parts: Parts) -> Result<Arc<Gpu>> {
        let Parts {
            instance,
            physical,
            device,
            ..
        } = &parts;
        let find = |names: &[&CStr]| {
            names.iter().find_map(|name| {
                // SAFETY: the device is alive; the name is a C string.
                unsafe { (instance.fp_v1_0().get_device_proc_addr)(device.handle(), name.as_ptr()) }
            })
        };
        if let Some(missing) = NEEDED.iter().find(|name| find(&[name]).is_none()) {
            return Err(Error::Unavailable {
                device: parts.name.clone(),
                why: format!(
                    "its driver has no {}; update the driver, or make the device with Vulkan 1.2",
                    missing.to_string_lossy()
                ),
            });
        }
        // The caller said that the feature is enabled; a driver without its functions is used as an
        // older one.
        let two =
            find(&[c"vkQueueSubmit2", c"vkQueueSubmit2KHR"]).filter(|_| parts.synchronization2);
        let write2 = find(&[c"vkCmdWriteTimestamp2", c"vkCmdWriteTimestamp2KHR"])
            .filter(|_| parts.synchronization2);
        let host_reset = parts.host_reset && find(&[c"vkResetQueryPool"]).is_some();
        let mut driver = vk::PhysicalDeviceDriverProperties::default();
        let mut facts = vk::PhysicalDeviceProperties2::default().push_next(&mut driver);
        // SAFETY: the physical device is of the instance; the chain is alive during the call.
        unsafe { instance.get_physical_device_properties2(*physical, &mut facts) };
        let facts = facts.properties;
        // SAFETY: as above.
        let families = unsafe { instance.get_physical_device_queue_family_properties(*physical) };
        let model = facts
            .device_name_as_c_str()
            .map_or("a device".into(), |name| {
                name.to_string_lossy().into_owned()
            });
        let device = Arc::new(parts.device);
        let wake = timeline_semaphore(&device).map_err(|result| Error::Backend {
            call: "vkCreateSemaphore",
            code: result.as_raw().into(),
            text: format!("{result}; enable timelineSemaphore when making the device"),
        })?;
        let gpu = Arc::new(Gpu {
            submitter: Submitter {
                // SAFETY: found by this name, which is of a function of this type.
                two: two.map(|found| unsafe {
                    std::mem::transmute::<unsafe extern "system" fn(), vk::PFN_vkQueueSubmit2>(
                        found,
                    )
                }),
                one: device.fp_v1_0().queue_submit,
            },
            // SAFETY: as above.
            write2: write2.map(|found| unsafe {
                std::mem::transmute::<unsafe extern "system" fn(), vk::PFN_vkCmdWriteTimestamp2>(
                    found,
                )
            }),
            host_reset,
            clock: clock(&model, facts.limits.timestamp_period, &families),
            waiter: Watcher::new(
                "fencepost-vulkan",
                Sleeper {
                    device: device.clone(),
                    wake,
                    looks: driver.driver_id == vk::DriverId::MESA_LLVMPIPE,
                },
            ),
            device,
            #[cfg(feature = "conformance")]
            instance: parts.instance,
            #[cfg(feature = "conformance")]
            physical: parts.physical,
            name: parts.name,
            families,
            callbacks: Arc::new(CallbackQueue::new(Arc::new(Pool::new(1)))),
            queues: Mutex::new(Vec::new()),
            wrapped: Mutex::new(Vec::new()),
            streams: Streams::new(),
            gates: Mutex::new(Vec::new()),
            dead: OnceLock::new(),
            left: AtomicBool::new(false),
            owner: std::process::id(),
            home: fork::number(),
            keep_alive: parts.keep_alive,
            #[cfg(feature = "conformance")]
            kernels: OnceLock::new(),
        });
        leave_at_exit(&gpu);
        Ok(gpu)
    }

    pub(super) fn device_core(&self) -> Arc<DeviceCore> {
        DeviceCore::new(
            self.name.clone(),
            self.clock.clone(),
            self.callbacks.clone(),
        )
    }

    pub(super) fn is_forked(&self) -> bool {
        self.owner != std::process::id()
    }

    /// An error in a forked child, before any lock that a thread of the parent may hold, and before
    /// the driver.
    #[inline]
    pub(super) fn check_fork(&self) -> Result<()> {
        match self.home == fork::current() {
            true => Ok(()),
            false => Err(Error::Forked {
                device: self.name.clone(),
            }),
        }
    }

    /// Whether the driver is out of reach: in a forked child, and when the process is ending. Drops
    /// then leave everything where it is.
    pub(super) fn is_gone(&self) -> bool {
        self.left.load(Ordering::Acquire) || self.is_forked()
    }

    /// The queue with the fewest streams.
    pub(super) fn quietest_queue(&self) -> Option<Arc<Queue>> {
        let queues = lock(&self.queues);
        queues
            .iter()
            .min_by_key(|queue| queue.users.load(Ordering::Relaxed))
            .cloned()
    }

    /// A queue of the caller's. One that is known keeps the lock it has: two locks would guard
    /// nothing.
    pub(super) fn wrapped(
        &self,
        raw: vk::Queue,
        family: u32,
        guard: Arc<dyn QueueLock>,
    ) -> Arc<Queue> {
        let known = lock(&self.queues)
            .iter()
            .find(|queue| queue.raw == raw)
            .cloned();
        if let Some(known) = known {
            return known;
        }
        let mut wrapped = lock(&self.wrapped);
        wrapped.retain(|queue| queue.strong_count() > 0);
        if let Some(known) = wrapped
            .iter()
            .filter_map(Weak::upgrade)
            .find(|queue| queue.raw == raw)
        {
            return known;
        }
        let queue = Arc::new(Queue::new(raw, family, Some(guard)));
        wrapped.push(Arc::downgrade(&queue));
        queue
    }

    pub(super) fn add_stream(&self, stream: &Arc<VkStream>) {
        self.streams.add(stream);
    }

    pub(super) fn streams(&self) -> Vec<Arc<VkStream>> {
        self.streams.alive()
    }

    pub(super) fn lost(&self) -> Option<Error> {
        self.dead.get().map(|cause| Error::DeviceLost {
            device: self.name.clone(),
            cause: cause.clone(),
        })
    }

    /// What a refused call is to the caller. A loss fails every stream, with the first such call as
    /// their cause. Call it without any lock.
    #[cold]
    pub(super) fn failed(&self, fault: Fault) -> Error {
        let Fault { call, result } = fault;
        if self.is_forked() {
            return Error::Forked {
                device: self.name.clone(),
            };
        }
        if result != vk::Result::ERROR_DEVICE_LOST {
            return Error::Backend {
                call,
                code: result.as_raw().into(),
                text: format!("{result}; {}", remedy(result)),
            };
        }
        let mut first = false;
        let cause = self.dead.get_or_init(|| {
            first = true;
            Cause::new(format!(
                "{call} said that the device is lost: a fault of the work on it, or of its driver"
            ))
        });
        for stream in self.streams() {
            stream.lose(cause);
        }
        if first {
            diagnostics::device_lost(&self.name, cause);
        }
        Error::DeviceLost {
            device: self.name.clone(),
            cause: cause.clone(),
        }
    }

    pub(super) fn timeline_semaphore(&self) -> Result<vk::Semaphore, Fault> {
        timeline_semaphore(&self.device).map_err(|result| Fault {
            call: "vkCreateSemaphore",
            result,
        })
    }

    /// The value of a timeline semaphore. Never blocks.
    #[inline]
    pub(super) fn counter(&self, semaphore: vk::Semaphore) -> Result<u64, Fault> {
        /// No stream gets there: so some drivers tell of a lost device, and call it a success
        /// ([Vulkan-ValidationLayers
        /// #4566](https://github.com/KhronosGroup/Vulkan-ValidationLayers/issues/4566)).
        const BEYOND: u64 = 1 << 63;
        // SAFETY: a timeline semaphore of this device, which its owner keeps alive.
        let value = match unsafe { self.device.get_semaphore_counter_value(semaphore) } {
            Ok(BEYOND..) => Err(vk::Result::ERROR_DEVICE_LOST),
            other => other,
        };
        value.map_err(|result| Fault {
            call: "vkGetSemaphoreCounterValue",
            result,
        })
    }

    pub(super) fn add_gate(&self, gate: &Arc<HostGate>) {
        let mut gates = lock(&self.gates);
        if gates.len() == gates.capacity() {
            // Before it grows: so sweeping costs no more than growing would.
            gates.retain(|gate| gate.strong_count() > 0);
        }
        gates.push(Arc::downgrade(gate));
    }

    /// Opens whatever gates the host keeps closed, where the process is ending.
    fn open_all_gates(&self) {
        let gates: Vec<_> = match self.gates.try_lock() {
            Ok(gates) => gates.iter().filter_map(Weak::upgrade).collect(),
            Err(_) => return,
        };
        for gate in gates {
            gate.open();
            // Its drop would call the driver.
            std::mem::forget(gate);
        }
    }

    /// Signals a timeline semaphore from the host. A refusal is that of a lost device: nothing
    /// waits there.
    pub(super) fn signal(&self, semaphore: vk::Semaphore, value: u64) {
        if self.is_gone() {
            return;
        }
        let info = vk::SemaphoreSignalInfo::default()
            .semaphore(semaphore)
            .value(value);
        // SAFETY: a timeline semaphore that only the host signals, with growing values.
        let _ = unsafe { self.device.signal_semaphore(&info) };
    }
}

fn remedy(result: vk::Result) -> &'static str {
    match result {
        vk::Result::ERROR_OUT_OF_HOST_MEMORY => "the process has no memory left: free some",
        vk::Result::ERROR_OUT_OF_DEVICE_MEMORY => {
            "the device has no memory left: free some, or drop events and streams"
        }
        vk::Result::ERROR_TOO_MANY_OBJECTS => "drop events and streams",
        _ => "run again with FENCEPOST_VULKAN_VALIDATION=1, and update the driver",
    }
}

pub(super) fn timeline_semaphore(device: &Table) -> Result<vk::Semaphore, vk::Result> {
    let mut kind = vk::SemaphoreTypeCreateInfo::default()
        .semaphore_type(vk::SemaphoreType::TIMELINE)
        .initial_value(0);
    let info = vk::SemaphoreCreateInfo::default().push_next(&mut kind);
    // SAFETY: the device is alive and has timeline semaphores; the chain is alive during the call.
    unsafe { device.create_semaphore(&info, None) }
}

/// The clock names the device, so that every report tells what it was measured on: a stand-in's
/// name says that it is one. Its bits are those that all its families have; the time between two
/// markers uses those of their own.
fn clock(model: &str, period: f32, families: &[vk::QueueFamilyProperties]) -> Clock {
    let bits = families.iter().map(|family| family.timestamp_valid_bits);
    let bits = bits.filter(|&bits| bits > 0).min().unwrap_or(64);
    let period = f64::from(period);
    // A duration has whole nanoseconds: rounded up, so that no clock seems finer than it is.
    let resolution = Duration::from_nanos(period.ceil().max(1.0) as u64);
    Clock::new(
        format!("Vulkan timestamps of {model}"),
        period,
        bits,
        resolution,
    )
}

/// Takes the waiter's thread out of the driver before the process takes the driver apart: drivers
/// and layers do that in handlers of their own, which run after those that were registered later,
/// and crash whoever is in them. NVIDIA's also waits there for every queue to come to rest, so what
/// the host holds is let go.
fn leave_at_exit(gpu: &Arc<Gpu>) {
    static ALL: Mutex<Vec<Weak<Gpu>>> = Mutex::new(Vec::new());
    static ONCE: Once = Once::new();
    unsafe extern "C" {
        fn atexit(handler: extern "C" fn()) -> std::ffi::c_int;
    }
    extern "C" fn leave() {
        let Ok(all) = ALL.try_lock() else {
            return;
        };
        for gpu in all.iter().filter_map(Weak::upgrade) {
            // A moment only: a driver that does not come back must not keep the process.
            for _ in 0..200 {
                if gpu.is_forked() || gpu.waiter.leave() {
                    break;
                }
                sleep(Duration::from_millis(1));
            }
            if !gpu.is_forked() {
                gpu.open_all_gates();
            }
            gpu.left.store(true, Ordering::Release);
            // Its drop would call the driver.
            std::mem::forget(gpu);
        }
    }
    let mut all = lock(&ALL);
    all.retain(|gpu| gpu.strong_count() > 0);
    all.push(Arc::downgrade(gpu));
    drop(all);
    ONCE.call_once(|| {
        // SAFETY: C's atexit, with a function that never unwinds: it takes no lock that a panic may
        // have poisoned. https://en.cppreference.com/w/c/program/atexit Where it is refused, the
        // process ends as it would without.
        let _ = unsafe { atexit(leave) };
    });
}

impl Drop for Gpu {
    fn drop(&mut self) {
        self.waiter.close();
        if self.is_gone() {
            return;
        }
        let device = &self.device;
        #[cfg(feature = "conformance")]
        if let Some(Ok(kernels)) = self.kernels.get() {
            kernels.destroy(device);
        }
        // SAFETY: ours, and nobody sleeps on it: whoever is watched holds this device.
        unsafe { device.destroy_semaphore(self.waiter.sleeper().wake, None) };
        if self.keep_alive.is_none() {
            // SAFETY: made by us; whatever was made of it held it, and is destroyed. Every
            // semaphore has come to its last value, so this waits at most for what a queue does
            // behind its last signal.
            unsafe {
                let _ = device.device_wait_idle();
                device.destroy_device(None);
            }
        }
    }
}

/// How the waiter's thread sleeps.
pub(super) struct Sleeper {
    device: Arc<Table>,
    wake: vk::Semaphore,
    /// Whether the driver spins while it waits for one of many, so that looking now and then is
    /// better.
    looks: bool,
}

impl Sleep<Watch> for Sleeper {
    fn sleep(&self, lowest: &[Arc<Watch>], sequence: u64, _: Duration) {
        let points: Option<Vec<_>> = lowest.iter().map(|watch| watch.point()).collect();
        let Some(points) = points else {
            // Something is due already.
            return;
        };
        let (mut semaphores, mut values): (Vec<_>, Vec<_>) = points.into_iter().unzip();
        semaphores.push(self.wake);
        values.push(sequence);
        let info = vk::SemaphoreWaitInfo::default()
            .flags(vk::SemaphoreWaitFlags::ANY)
            .semaphores(&semaphores)
            .values(&values);
        let timeout = if self.looks { 0 } else { u64::MAX };
        let mut pause = Duration::from_micros(20);
        loop {
            // SAFETY: timeline semaphores of this device; what is watched keeps them alive, and the
            // device.
            match unsafe { self.device.wait_semaphores(&info, timeout) } {
                Err(vk::Result::TIMEOUT) => {
                    sleep(pause);
                    pause = (pause * 2).min(Duration::from_millis(1));
                }
                Err(result) => {
                    // Counters need not tell of a loss: it is known from here on.
                    if let Some(watch) = lowest.first() {
                        let call = "vkWaitSemaphores";
                        watch.gpu().failed(Fault { call, result });
                    }
                    // A wait that fails at once must not spin.
                    return sleep(Duration::from_millis(1));
                }
                Ok(()) => return,
            }
        }
    }

    fn wake(&self, sequence: u64) {
        let info = vk::SemaphoreSignalInfo::default()
            .semaphore(self.wake)
            .value(sequence);
        // SAFETY: ours, signalled under the waiter's lock with growing values, by somebody who
        // holds the device.
        let _ = unsafe { self.device.signal_semaphore(&info) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_promises_what_all_families_have() {
        let families =
            [64, 36, 0].map(|bits| vk::QueueFamilyProperties::default().timestamp_valid_bits(bits));
        let clock = clock("a GPU", 52.083_332, &families);
        assert_eq!(
            clock.valid_bits(),
            36,
            "families without timestamps have no say"
        );
        assert_eq!(clock.resolution(), Duration::from_nanos(53));
        assert!((clock.tick_nanos() - 52.083_332).abs() < 1e-5);
        assert!(clock.name().contains("a GPU"));
    }

    #[test]
    fn a_wrap_between_start_and_end_is_seen_through() {
        for (bits, tick) in [(64, 1.0), (36, 1.0), (32, 52.5)] {
            let families = [vk::QueueFamilyProperties::default().timestamp_valid_bits(bits)];
            let clock = clock("a GPU", tick, &families);
            let top = crate::vulkan::timer::mask(bits);
            let ten = f64::from(tick) * 10.0;
            assert_eq!(
                clock.between(bits, top - 4, 5).as_nanos_f64(),
                ten,
                "{bits} bits"
            );
            assert_eq!(
                clock.between(bits, 5, top - 4).as_nanos_f64(),
                -ten,
                "{bits} bits"
            );
        }
    }

    #[test]
    fn two_families_are_compared_by_the_bits_that_both_have() {
        let families =
            [64, 36].map(|bits| vk::QueueFamilyProperties::default().timestamp_valid_bits(bits));
        let clock = clock("a GPU", 1.0, &families);
        let start = (7 << 36) + 5;
        let end = (start + 10) & crate::vulkan::timer::mask(36);
        assert_eq!(clock.between(36, start, end).as_nanos_f64(), 10.0);
    }
}
