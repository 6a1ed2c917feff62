//! Vulkan programs that are stuck, in the ways that people report.

use std::{ffi::CStr, time::Duration};

use ash::{Entry, ext::debug_utils, khr::synchronization2, vk};

pub(crate) type Program = super::running::Program<Gpu>;

/// The validation layer's name.
pub(crate) const VALIDATION: &str = "VK_LAYER_KHRONOS_validation";

/// Whether the loader finds it.
pub(crate) fn has_validation() -> bool {
    // SAFETY: the loader is the system's own
    let Ok(entry) = (unsafe { Entry::load() }) else {
        return false;
    };
    // SAFETY: it has no requirement
    let layers = unsafe { entry.enumerate_instance_layer_properties() };
    layers.is_ok_and(|layers| {
        let mut names = layers.iter().map(|layer| layer.layer_name_as_c_str());
        names.any(|name| name.is_ok_and(|name| name.to_bytes() == VALIDATION.as_bytes()))
    })
}

/// A device with one queue, and what gives objects their names.
pub(crate) struct Gpu {
    _entry: Entry,
    instance: ash::Instance,
    pub(crate) device: ash::Device,
    queue: vk::Queue,
    names: debug_utils::Device,
    /// `vkQueueSubmit2KHR`, where the device has it.
    second: Option<synchronization2::Device>,
}

impl Gpu {
    pub(crate) fn open() -> Gpu {
        Gpu::try_open().expect("a device")
    }

    /// The error says why there is none.
    pub(crate) fn try_open() -> Result<Gpu, String> {
        // SAFETY: the loader is the system's own
        let entry = unsafe { Entry::load() }.map_err(|error| error.to_string())?;
        let application = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_2);
        let extensions = [debug_utils::NAME.as_ptr()];
        let info = vk::InstanceCreateInfo::default()
            .application_info(&application)
            .enabled_extension_names(&extensions);
        // SAFETY: the structure is complete, and what it points to is alive
        let instance = unsafe { entry.create_instance(&info, None) };
        let instance = instance.map_err(|error| error.to_string())?;
        // SAFETY: the instance is alive
        let physical = unsafe { instance.enumerate_physical_devices() };
        let physical = physical.map_err(|error| error.to_string())?;
        let physical = *physical.first().ok_or("no device")?;
        // SAFETY: as above
        let found = unsafe { instance.enumerate_device_extension_properties(physical) };
        let has_second = found.is_ok_and(|found| {
            let mut names = found.iter().map(|of| of.extension_name_as_c_str());
            names.any(|name| name == Ok(synchronization2::NAME))
        });
        let queues = [vk::DeviceQueueCreateInfo::default().queue_priorities(&[1.0])];
        let mut timeline =
            vk::PhysicalDeviceTimelineSemaphoreFeatures::default().timeline_semaphore(true);
        let mut second =
            vk::PhysicalDeviceSynchronization2Features::default().synchronization2(true);
        let extensions = [synchronization2::NAME.as_ptr()];
        let mut info = vk::DeviceCreateInfo::default()
            .queue_create_infos(&queues)
            .push_next(&mut timeline);
        if has_second {
            info = info
                .enabled_extension_names(&extensions)
                .push_next(&mut second);
        }
        // SAFETY: as above
        let device = unsafe { instance.create_device(physical, &info, None) };
        let device = device.map_err(|error| error.to_string())?;
        // SAFETY: the device has one queue of this family
        let queue = unsafe { device.get_device_queue(0, 0) };
        Ok(Gpu {
            names: debug_utils::Device::new(&instance, &device),
            second: has_second.then(|| synchronization2::Device::new(&instance, &device)),
            _entry: entry,
            instance,
            device,
            queue,
        })
    }

    fn name(&self, object: impl vk::Handle, name: &CStr) {
        let info = vk::DebugUtilsObjectNameInfoEXT::default()
            .object_handle(object)
            .object_name(name);
        // SAFETY: the object is the device's
        unsafe { self.names.set_debug_utils_object_name(&info) }.expect("a name");
    }

    fn timeline(&self, name: &CStr) -> vk::Semaphore {
        let mut kind = vk::SemaphoreTypeCreateInfo::default()
            .semaphore_type(vk::SemaphoreType::TIMELINE)
            .initial_value(0);
        let info = vk::SemaphoreCreateInfo::default().push_next(&mut kind);
        // SAFETY: the device has timeline semaphores
        let semaphore = unsafe { self.device.create_semaphore(&info, None) };
        let semaphore = semaphore.expect("a semaphore");
        self.name(semaphore, name);
        semaphore
    }

    fn binary(&self) -> vk::Semaphore {
        let info = vk::SemaphoreCreateInfo::default();
        // SAFETY: the device is alive
        unsafe { self.device.create_semaphore(&info, None) }.expect("a semaphore")
    }

    fn fence(&self) -> vk::Fence {
        let info = vk::FenceCreateInfo::default();
        // SAFETY: the device is alive
        unsafe { self.device.create_fence(&info, None) }.expect("a fence")
    }

    /// Submits a batch without work. Values are for timeline semaphores.
    fn submit(
        &self,
        waits: &[(vk::Semaphore, u64)],
        signals: &[(vk::Semaphore, u64)],
        fence: vk::Fence,
    ) {
        let of = |list: &[(vk::Semaphore, u64)]| -> (Vec<vk::Semaphore>, Vec<u64>) {
            list.iter().copied().unzip()
        };
        let ((waits, wait_values), (signals, signal_values)) = (of(waits), of(signals));
        let stages = vec![vk::PipelineStageFlags::ALL_COMMANDS; waits.len()];
        let mut values = vk::TimelineSemaphoreSubmitInfo::default()
            .wait_semaphore_values(&wait_values)
            .signal_semaphore_values(&signal_values);
        let info = vk::SubmitInfo::default()
            .wait_semaphores(&waits)
            .wait_dst_stage_mask(&stages)
            .signal_semaphores(&signals)
            .push_next(&mut values);
        // SAFETY: one thread at a time submits, and all objects are alive
        unsafe { self.device.queue_submit(self.queue, &[info], fence) }.expect("a submit");
    }

    fn signal(&self, semaphore: vk::Semaphore, value: u64) {
        let info = vk::SemaphoreSignalInfo::default()
            .semaphore(semaphore)
            .value(value);
        // SAFETY: the semaphore is alive
        let signalled = unsafe { self.device.signal_semaphore(&info) };
        if let Err(error) = signalled {
            println!("the signal failed: {error}");
        }
    }

    fn wait(&self, semaphore: vk::Semaphore, value: u64) {
        let (semaphores, values) = ([semaphore], [value]);
        let info = vk::SemaphoreWaitInfo::default()
            .semaphores(&semaphores)
            .values(&values);
        // SAFETY: the semaphore is alive
        unsafe { self.device.wait_semaphores(&info, u64::MAX) }.expect("a wait");
    }

    fn wait_for(&self, fence: vk::Fence, timeout: u64) -> bool {
        // SAFETY: the fence is alive
        let waited = unsafe { self.device.wait_for_fences(&[fence], true, timeout) };
        waited.is_ok()
    }

    fn idle(&self) {
        // SAFETY: no other thread uses the queue
        unsafe { self.device.queue_wait_idle(self.queue) }.expect("a wait");
    }
}

fn value_nobody_signals(gpu: &Gpu) {
    gpu.name(gpu.queue, c"main");
    let frame = gpu.timeline(c"frame");
    gpu.submit(&[(frame, 2)], &[], vk::Fence::null());
    gpu.idle();
}

fn value_too_high(gpu: &Gpu) {
    let frame = gpu.timeline(c"frame");
    for value in 1..=3 {
        gpu.submit(&[], &[(frame, value)], vk::Fence::null());
    }
    gpu.wait(frame, 4);
}

fn host_signal_never_sent(gpu: &Gpu) {
    let (loaded, done) = (gpu.timeline(c"loaded"), gpu.timeline(c"done"));
    gpu.submit(&[(loaded, 1)], &[], vk::Fence::null());
    gpu.submit(&[], &[(done, 1)], vk::Fence::null());
    gpu.wait(done, 1);
}

fn waits_for_its_own_later_batch(gpu: &Gpu) {
    let turn = gpu.timeline(c"turn");
    gpu.submit(&[(turn, 1)], &[], vk::Fence::null());
    gpu.submit(&[], &[(turn, 1)], vk::Fence::null());
}

fn fence_never_submitted(gpu: &Gpu) {
    let fence = gpu.fence();
    gpu.name(fence, c"in flight");
    gpu.wait_for(fence, u64::MAX);
}

fn fence_reset(gpu: &Gpu) {
    let fence = gpu.fence();
    gpu.submit(&[], &[], fence);
    assert!(gpu.wait_for(fence, u64::MAX));
    // SAFETY: nothing uses the fence
    unsafe { gpu.device.reset_fences(&[fence]) }.expect("a reset");
    // As a loop that looks at other things now and then.
    while !gpu.wait_for(fence, 50_000_000) {}
}

fn fence_behind_a_wait(gpu: &Gpu) {
    let (loaded, fence) = (gpu.timeline(c"loaded"), gpu.fence());
    gpu.submit(&[(loaded, 1)], &[], fence);
    // Asks again and again, as engines do.
    // SAFETY: the fence is alive
    while !unsafe { gpu.device.get_fence_status(fence) }.expect("a status") {
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Not valid: what a binary semaphore's signal depends on must have been submitted too.
fn behind_a_binary_semaphore(gpu: &Gpu) {
    let (loaded, copied, done) = (gpu.timeline(c"loaded"), gpu.binary(), gpu.timeline(c"done"));
    gpu.submit(&[(loaded, 1)], &[(copied, 0)], vk::Fence::null());
    gpu.submit(&[(copied, 0)], &[(done, 1)], vk::Fence::null());
    gpu.wait(done, 1);
}

fn second_submit(gpu: &Gpu) {
    let frame = gpu.timeline(c"frame");
    let Some(second) = &gpu.second else {
        return gpu.submit(&[(frame, 7)], &[], vk::Fence::null());
    };
    let wait = [vk::SemaphoreSubmitInfo::default()
        .semaphore(frame)
        .value(7)
        .stage_mask(vk::PipelineStageFlags2::ALL_COMMANDS)];
    let info = [vk::SubmitInfo2::default().wait_semaphore_infos(&wait)];
    // SAFETY: all objects are alive, and no other thread uses the queue
    unsafe { second.queue_submit2(gpu.queue, &info, vk::Fence::null()) }.expect("a submit");
}

pub(crate) static PROGRAMS: &[Program] = &[
    Program {
        name: "value_nobody_signals",
        run: value_nobody_signals,
        set: &[],
        told: &[
            "queue 1 \"main\" of device 1 (",
            "1 batch pending, 1 submitted",
            "batch 1 waits for value 2 of timeline semaphore 1 \"frame\", which is at 0, for ",
            "no batch that was submitted signals it; only the host (vkSignalSemaphore), or",
            "has been in vkQueueWaitIdle for queue 1 \"main\" of device 1 for ",
        ],
    },
    Program {
        name: "value_too_high",
        run: value_too_high,
        set: &[],
        told: &[
            "has been in vkWaitSemaphores for value 4 of timeline semaphore 1 \"frame\", which is \
             at 3 for ",
            "no batch that was submitted signals it",
        ],
    },
    Program {
        name: "host_signal_never_sent",
        run: host_signal_never_sent,
        set: &[],
        told: &[
            "queue 1 of device 1 (",
            "2 batches pending, 2 submitted",
            "batch 1 waits for value 1 of timeline semaphore 1 \"loaded\", which is at 0",
            "has been in vkWaitSemaphores for value 1 of timeline semaphore 2 \"done\", which is \
             at 0 for ",
            "batch 2 of queue 1 of device 1 signals it",
        ],
    },
    Program {
        name: "waits_for_its_own_later_batch",
        run: waits_for_its_own_later_batch,
        set: &[],
        told: &[
            "The waits form a circle, which ends only if the host signals one of these values",
            "batch 1 waits for value 1 of timeline semaphore 1 \"turn\", signalled by batch 2 of \
             queue 1 of device 1, for ",
        ],
    },
    Program {
        name: "fence_never_submitted",
        run: fence_never_submitted,
        set: &[],
        told: &[
            "No stream or queue has work pending.",
            "has been in vkWaitForFences for fence 1 \"in flight\" for ",
            "that fence was never submitted, so nothing signals it",
        ],
    },
    Program {
        name: "fence_reset",
        run: fence_reset,
        set: &[],
        told: &[
            "has been in vkWaitForFences for fence 1 for ",
            "that fence was reset and not submitted since, so nothing signals it",
        ],
    },
    Program {
        name: "fence_behind_a_wait",
        run: fence_behind_a_wait,
        set: &[],
        told: &["batch 1 waits for value 1 of timeline semaphore 1 \"loaded\", which is at 0"],
    },
    Program {
        name: "behind_a_binary_semaphore",
        run: behind_a_binary_semaphore,
        set: &[],
        // Mesa's driver does not return from the second submit before it knows the signal's batch.
        told: &[
            "batch 1 waits for value 1 of timeline semaphore 1 \"loaded\", which is at 0",
            "has been in vk",
        ],
    },
    Program {
        name: "second_submit",
        run: second_submit,
        set: &[],
        told: &["batch 1 waits for value 7 of timeline semaphore 1 \"frame\", which is at 0"],
    },
];

fn ends_well(gpu: &Gpu) {
    let (done, fence) = (gpu.timeline(c"done"), gpu.fence());
    gpu.submit(&[(done, 1)], &[(done, 2)], fence);
    gpu.signal(done, 1);
    assert!(gpu.wait_for(fence, u64::MAX));
    gpu.wait(done, 2);
    gpu.idle();
    // SAFETY: the queue is idle, and nothing is used again
    unsafe {
        gpu.device.destroy_fence(fence, None);
        gpu.device.destroy_semaphore(done, None);
        gpu.device.destroy_device(None);
        gpu.instance.destroy_instance(None);
    }
    std::process::exit(0);
}

/// Ends with a device that is there and has done all of its work.
fn leaves_its_device(gpu: &Gpu) {
    let done = gpu.timeline(c"done");
    for value in 1..=3000 {
        gpu.submit(&[], &[(done, value)], vk::Fence::null());
    }
    gpu.wait(done, 3000);
    std::process::exit(3);
}

/// Not valid: a signal must raise the value.
fn signals_a_lower_value(gpu: &Gpu) {
    let done = gpu.timeline(c"done");
    gpu.signal(done, 2);
    gpu.signal(done, 1);
    std::process::exit(0);
}

/// Programs of which nothing is stuck.
pub(crate) static OTHERS: &[Program] = &[
    Program {
        name: "ends_well",
        run: ends_well,
        set: &[],
        told: &[],
    },
    Program {
        name: "signals_a_lower_value",
        run: signals_a_lower_value,
        set: &[],
        told: &[],
    },
    Program {
        name: "leaves_its_device",
        run: leaves_its_device,
        set: &[],
        told: &[],
    },
];
