//! Vulkan programs that are stuck, in the ways that people report.

use std::{
    ffi::CStr,
    path::PathBuf,
    sync::Mutex,
    time::{Duration, Instant},
};

use ash::{
    Entry,
    ext::{debug_utils, headless_surface},
    khr::{external_semaphore_fd, surface, swapchain, synchronization2},
    vk,
};

use super::cuda::Cuda;

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

/// Whether an extension is among those that were found.
fn has(found: Result<Vec<vk::ExtensionProperties>, vk::Result>, name: &CStr) -> bool {
    found.is_ok_and(|found| {
        let mut names = found.iter().map(|of| of.extension_name_as_c_str());
        names.any(|found| found == Ok(name))
    })
}

/// Also says whether it has surfaces that nobody sees.
fn make_instance(entry: &Entry) -> Result<(ash::Instance, bool), String> {
    let application = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_2);
    // SAFETY: it has no requirement
    let found = unsafe { entry.enumerate_instance_extension_properties(None) };
    let has_surface = has(found, headless_surface::NAME);
    let mut extensions = vec![debug_utils::NAME.as_ptr()];
    if has_surface {
        extensions.extend([surface::NAME.as_ptr(), headless_surface::NAME.as_ptr()]);
    }
    let info = vk::InstanceCreateInfo::default()
        .application_info(&application)
        .enabled_extension_names(&extensions);
    // SAFETY: the structure is complete, and what it points to is alive
    let instance = unsafe { entry.create_instance(&info, None) };
    let instance = instance.map_err(|error| error.to_string())?;
    Ok((instance, has_surface))
}

/// Whether a binary semaphore can be exported and imported. Mesa 26.2's lavapipe has the extension,
/// and refuses it.
fn shares_binary(instance: &ash::Instance, physical: vk::PhysicalDevice) -> bool {
    let kind = vk::ExternalSemaphoreHandleTypeFlags::OPAQUE_FD;
    let info = vk::PhysicalDeviceExternalSemaphoreInfo::default().handle_type(kind);
    let mut facts = vk::ExternalSemaphoreProperties::default();
    // SAFETY: the instance is alive, and of Vulkan 1.1 or later
    unsafe {
        instance.get_physical_device_external_semaphore_properties(physical, &info, &mut facts);
    }
    let both = vk::ExternalSemaphoreFeatureFlags::EXPORTABLE
        | vk::ExternalSemaphoreFeatureFlags::IMPORTABLE;
    facts.external_semaphore_features.contains(both)
}

fn takes_sparse_bindings(instance: &ash::Instance, physical: vk::PhysicalDevice) -> bool {
    // SAFETY: the instance is alive
    let (features, families) = unsafe {
        (
            instance.get_physical_device_features(physical),
            instance.get_physical_device_queue_family_properties(physical),
        )
    };
    let flags = families.first().map(|family| family.queue_flags);
    features.sparse_binding == vk::TRUE
        && flags.is_some_and(|flags| flags.contains(vk::QueueFlags::SPARSE_BINDING))
}

/// A device with one queue, and what gives objects their names.
pub(crate) struct Gpu {
    /// What the driver calls the device.
    pub(crate) model: String,
    entry: Entry,
    instance: ash::Instance,
    pub(crate) device: ash::Device,
    queue: vk::Queue,
    names: debug_utils::Device,
    /// `vkQueueSubmit2KHR`, where the device has it.
    second: Option<synchronization2::Device>,
    physical: vk::PhysicalDevice,
    /// Whether images can be presented to nobody.
    presents: bool,
    /// What exports and imports semaphores, where the device has it.
    pub(crate) shares: Option<external_semaphore_fd::Device>,
    /// Whether the queue takes sparse bindings.
    binds: bool,
}

impl Gpu {
    pub(crate) fn open() -> Gpu {
        Gpu::try_open().expect("a device")
    }

    /// The error says why there is none.
    pub(crate) fn try_open() -> Result<Gpu, String> {
        // SAFETY: the loader is the system's own
        let entry = unsafe { Entry::load() }.map_err(|error| error.to_string())?;
        let (instance, has_surface) = make_instance(&entry)?;
        // SAFETY: the instance is alive
        let physical = unsafe { instance.enumerate_physical_devices() };
        let physical = physical.map_err(|error| error.to_string())?;
        let physical = *physical.first().ok_or("no device")?;
        // SAFETY: as above
        let facts = unsafe { instance.get_physical_device_properties(physical) };
        let model = facts.device_name_as_c_str().unwrap_or_default();
        let model = model.to_string_lossy().into_owned();
        // SAFETY: as above
        let found = unsafe { instance.enumerate_device_extension_properties(physical) };
        let has_second = has(found.clone(), synchronization2::NAME);
        let shares =
            has(found.clone(), external_semaphore_fd::NAME) && shares_binary(&instance, physical);
        let presents = has_surface && has(found, swapchain::NAME);
        let wanted = [
            (has_second, synchronization2::NAME),
            (shares, external_semaphore_fd::NAME),
            (presents, swapchain::NAME),
        ];
        let extensions = wanted.iter().filter(|(has, _)| *has);
        let extensions: Vec<_> = extensions.map(|(_, name)| name.as_ptr()).collect();
        let binds = takes_sparse_bindings(&instance, physical);
        let features = vk::PhysicalDeviceFeatures::default().sparse_binding(binds);
        let queues = [vk::DeviceQueueCreateInfo::default().queue_priorities(&[1.0])];
        let mut timeline =
            vk::PhysicalDeviceTimelineSemaphoreFeatures::default().timeline_semaphore(true);
        let mut second =
            vk::PhysicalDeviceSynchronization2Features::default().synchronization2(true);
        let mut info = vk::DeviceCreateInfo::default()
            .queue_create_infos(&queues)
            .enabled_extension_names(&extensions)
            .enabled_features(&features)
            .push_next(&mut timeline);
        if has_second {
            info = info.push_next(&mut second);
        }
        // SAFETY: as above
        let device = unsafe { instance.create_device(physical, &info, None) };
        let device = device.map_err(|error| error.to_string())?;
        // SAFETY: the device has one queue of this family
        let queue = unsafe { device.get_device_queue(0, 0) };
        Ok(Gpu {
            model,
            names: debug_utils::Device::new(&instance, &device),
            second: has_second.then(|| synchronization2::Device::new(&instance, &device)),
            shares: shares.then(|| external_semaphore_fd::Device::new(&instance, &device)),
            binds,
            entry,
            physical,
            presents,
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

/// As this project's own waits look for a lost device.
fn empty_submits_meanwhile(gpu: &Gpu) {
    let frame = gpu.timeline(c"frame");
    gpu.submit(&[(frame, 2)], &[], vk::Fence::null());
    loop {
        // SAFETY: no other thread uses the queue
        unsafe { gpu.device.queue_submit(gpu.queue, &[], vk::Fence::null()) }.expect("a submit");
        std::thread::sleep(Duration::from_millis(50));
    }
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

/// A sparse binding that waits, where the queue takes some.
fn sparse_binding(gpu: &Gpu) {
    let frame = gpu.timeline(c"frame");
    if !gpu.binds {
        return gpu.submit(&[(frame, 3)], &[], vk::Fence::null());
    }
    let (waits, values) = ([frame], [3]);
    let mut values = vk::TimelineSemaphoreSubmitInfo::default().wait_semaphore_values(&values);
    let info = vk::BindSparseInfo::default()
        .wait_semaphores(&waits)
        .push_next(&mut values);
    let fence = vk::Fence::null();
    // SAFETY: the structure is complete, and no other thread uses the queue
    unsafe { gpu.device.queue_bind_sparse(gpu.queue, &[info], fence) }.expect("a binding");
}

/// Waits for a semaphore that shares its state with another one, where the device has such.
fn shared_semaphore(gpu: &Gpu) {
    let loaded = gpu.timeline(c"loaded");
    let Some(shares) = &gpu.shares else {
        return gpu.submit(&[(loaded, 1)], &[], vk::Fence::null());
    };
    let kind = vk::ExternalSemaphoreHandleTypeFlags::OPAQUE_FD;
    let mut exported = vk::ExportSemaphoreCreateInfo::default().handle_types(kind);
    let info = vk::SemaphoreCreateInfo::default().push_next(&mut exported);
    // SAFETY: the device has the extension
    let exported = unsafe { gpu.device.create_semaphore(&info, None) }.expect("a semaphore");
    let info = vk::SemaphoreGetFdInfoKHR::default()
        .semaphore(exported)
        .handle_type(kind);
    // SAFETY: the semaphore can be exported so
    let fd = unsafe { shares.get_semaphore_fd(&info) }.expect("a descriptor");
    let imported = gpu.binary();
    gpu.name(imported, c"imported");
    let info = vk::ImportSemaphoreFdInfoKHR::default()
        .semaphore(imported)
        .handle_type(kind)
        .fd(fd);
    // SAFETY: the descriptor is a semaphore's, and given away
    unsafe { shares.import_semaphore_fd(&info) }.expect("an import");
    gpu.submit(&[], &[(exported, 0)], vk::Fence::null());
    gpu.submit(&[(imported, 0), (loaded, 1)], &[], vk::Fence::null());
}

/// Images that are presented to nobody.
struct Images {
    of: surface::Instance,
    surface: vk::SurfaceKHR,
    device: swapchain::Device,
    chain: vk::SwapchainKHR,
    count: usize,
}

impl Images {
    fn new(gpu: &Gpu) -> Images {
        let headless = headless_surface::Instance::new(&gpu.entry, &gpu.instance);
        let info = vk::HeadlessSurfaceCreateInfoEXT::default();
        // SAFETY: the instance has the extension
        let surface = unsafe { headless.create_headless_surface(&info, None) };
        let surface = surface.expect("a surface");
        let of = surface::Instance::new(&gpu.entry, &gpu.instance);
        // SAFETY: both are alive
        let (formats, limits, can) = unsafe {
            (
                of.get_physical_device_surface_formats(gpu.physical, surface),
                of.get_physical_device_surface_capabilities(gpu.physical, surface),
                of.get_physical_device_surface_support(gpu.physical, 0, surface),
            )
        };
        assert!(can.expect("whether it presents"));
        let (format, limits) = (formats.expect("formats")[0], limits.expect("limits"));
        let info = vk::SwapchainCreateInfoKHR::default()
            .surface(surface)
            .min_image_count(limits.min_image_count)
            .image_format(format.format)
            .image_color_space(format.color_space)
            .image_extent(vk::Extent2D {
                width: 64,
                height: 64,
            })
            .image_array_layers(1)
            .image_usage(vk::ImageUsageFlags::COLOR_ATTACHMENT)
            .image_sharing_mode(vk::SharingMode::EXCLUSIVE)
            .pre_transform(limits.current_transform)
            .composite_alpha(vk::CompositeAlphaFlagsKHR::OPAQUE)
            .present_mode(vk::PresentModeKHR::FIFO);
        let device = swapchain::Device::new(&gpu.instance, &gpu.device);
        // SAFETY: the device has the extension, and the surface is alive
        let chain = unsafe { device.create_swapchain(&info, None) }.expect("images");
        // SAFETY: as above
        let images = unsafe { device.get_swapchain_images(chain) };
        let count = images.expect("images").len();
        Images {
            of,
            surface,
            device,
            chain,
            count,
        }
    }

    fn destroy(self) {
        // SAFETY: nothing uses the images
        unsafe {
            self.device.destroy_swapchain(self.chain, None);
            self.of.destroy_surface(self.surface, None);
        }
    }

    fn acquire(&self, semaphore: vk::Semaphore) -> u32 {
        let fence = vk::Fence::null();
        // SAFETY: no other thread uses the images
        let acquired = unsafe {
            self.device
                .acquire_next_image(self.chain, u64::MAX, semaphore, fence)
        };
        acquired.expect("an image").0
    }
}

fn behind_an_image(gpu: &Gpu) {
    let (image, loaded) = (gpu.binary(), gpu.timeline(c"loaded"));
    gpu.name(image, c"image");
    if gpu.presents {
        Images::new(gpu).acquire(image);
        gpu.submit(&[(image, 0), (loaded, 1)], &[], vk::Fence::null());
    } else {
        gpu.submit(&[(loaded, 1)], &[], vk::Fence::null());
    }
}

/// Holds a stream of CUDA and a queue of Vulkan.
fn cuda_too(gpu: &Gpu) {
    let library = std::env::var_os("FENCEPOST_CUDA_LIBRARY").expect("the stand-in's path");
    let cuda = Cuda::load(&PathBuf::from(library));
    let (mut context, mut words, mut stream) = (0, std::ptr::null_mut(), 0);
    cuda.init(0);
    cuda.retain(&raw mut context, 0);
    cuda.set_current(context);
    cuda.allocate_host(&raw mut words, 64, 0);
    cuda.create_stream(&raw mut stream, 1);
    cuda.wait_value(stream, words.addr() as u64, 1, 0);
    value_nobody_signals(gpu);
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
            "no batch that was submitted signals it; only the host (vkSignalSemaphore), a later \
             batch or",
            "has been in vkQueueWaitIdle for queue 1 \"main\" of device 1, for ",
        ],
    },
    Program {
        name: "empty_submits_meanwhile",
        run: empty_submits_meanwhile,
        set: &[],
        told: &[
            "nothing has moved for 500 ms",
            "1 batch pending, 1 submitted",
            "batch 1 waits for value 2 of timeline semaphore 1 \"frame\", which is at 0, for ",
        ],
    },
    Program {
        name: "value_too_high",
        run: value_too_high,
        set: &[],
        told: &[
            "has been in vkWaitSemaphores for value 4 of timeline semaphore 1 \"frame\", which is \
             at 3, for ",
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
             at 0, for ",
            "batch 2 of queue 1 of device 1 signals it",
        ],
    },
    Program {
        name: "waits_for_its_own_later_batch",
        run: waits_for_its_own_later_batch,
        set: &[],
        told: &[
            "The waits form a circle, which ends only if the host (vkSignalSemaphore) or a later \
             batch signals one of these values",
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
            "has been in vkWaitForFences for fence 1 \"in flight\", for ",
            "that fence was never submitted, so nothing signals it",
        ],
    },
    Program {
        name: "fence_reset",
        run: fence_reset,
        set: &[],
        told: &[
            "has been in vkWaitForFences for fence 1, for ",
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
            "2 batches pending, 2 submitted",
            "batch 1 waits for value 1 of timeline semaphore 1 \"loaded\", which is at 0",
            "has been in vk",
        ],
    },
    Program {
        name: "behind_an_image",
        run: behind_an_image,
        set: &[],
        told: &["batch 1 waits for value 1 of timeline semaphore 2 \"loaded\", which is at 0"],
    },
    Program {
        name: "cuda_too",
        run: cuda_too,
        set: &[],
        told: &[
            "stream 1 of cuda:0: 1 piece of work pending",
            "waits for a value in memory (cuStreamWaitValue)",
            "batch 1 waits for value 2 of timeline semaphore 1 \"frame\", which is at 0",
        ],
    },
    Program {
        name: "sparse_binding",
        run: sparse_binding,
        set: &[],
        told: &["batch 1 waits for value 3 of timeline semaphore 1 \"frame\", which is at 0"],
    },
    Program {
        name: "shared_semaphore",
        run: shared_semaphore,
        set: &[],
        told: &["waits for value 1 of timeline semaphore 1 \"loaded\", which is at 0"],
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

/// Presents images, if that is possible here.
fn presents(gpu: &Gpu) {
    if gpu.presents {
        let images = Images::new(gpu);
        let (image, fence) = (gpu.binary(), gpu.fence());
        let drawn: Vec<_> = (0..images.count).map(|_| gpu.binary()).collect();
        for _ in 0..20 {
            let index = images.acquire(image);
            let drawn = drawn[index as usize];
            gpu.submit(&[(image, 0)], &[(drawn, 0)], fence);
            let (waits, chains, indices) = ([drawn], [images.chain], [index]);
            let info = vk::PresentInfoKHR::default()
                .wait_semaphores(&waits)
                .swapchains(&chains)
                .image_indices(&indices);
            // SAFETY: no other thread uses the queue or the images
            unsafe { images.device.queue_present(gpu.queue, &info) }.expect("a present");
            assert!(gpu.wait_for(fence, u64::MAX));
            // SAFETY: nothing uses the fence
            unsafe { gpu.device.reset_fences(&[fence]) }.expect("a reset");
        }
    }
    gpu.idle();
    std::process::exit(5);
}

/// Makes, uses and destroys semaphores and fences on several threads.
fn many_threads(gpu: &Gpu) {
    let alone = Mutex::new(());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for value in 1..=200 {
                    let (done, fence) = (gpu.timeline(c"done"), gpu.fence());
                    let submit = || {
                        let _alone = alone.lock().unwrap();
                        gpu.submit(&[(done, value)], &[(done, value + 1)], fence);
                    };
                    submit();
                    // Long enough for the watching to ask now and then.
                    std::thread::sleep(Duration::from_millis(1));
                    gpu.signal(done, value);
                    assert!(gpu.wait_for(fence, u64::MAX));
                    // SAFETY: nothing uses the fence
                    unsafe { gpu.device.reset_fences(&[fence]) }.expect("a reset");
                    // SAFETY: what was submitted is complete
                    unsafe {
                        gpu.device.destroy_semaphore(done, None);
                        gpu.device.destroy_fence(fence, None);
                    }
                }
            });
        }
    });
    std::process::exit(6);
}

/// What calls cost, in nanoseconds: a name and the median of some turns, a line each.
fn prices(gpu: &Gpu) {
    const TURNS: usize = 41;
    const CALLS: u64 = 200;

    let (done, fence) = (gpu.timeline(c"done"), gpu.fence());
    let mut value = 0;
    let mut told = |name: &str, call: &mut dyn FnMut(u64)| {
        let mut turns: Vec<u64> = Vec::new();
        for _ in 0..TURNS {
            let begun = Instant::now();
            for _ in 0..CALLS {
                value += 1;
                call(value);
            }
            turns.push(begun.elapsed().as_nanos() as u64 / CALLS);
            gpu.idle();
        }
        turns.sort_unstable();
        println!("PRICE {name}: {}", turns[TURNS / 2]);
    };
    told("submit", &mut |_| gpu.submit(&[], &[], vk::Fence::null()));
    told("submit that signals a value", &mut |value| {
        gpu.submit(&[], &[(done, value)], vk::Fence::null());
    });
    told("submit with a fence, wait, reset", &mut |_| {
        gpu.submit(&[], &[], fence);
        assert!(gpu.wait_for(fence, u64::MAX));
        // SAFETY: nothing uses the fence
        unsafe { gpu.device.reset_fences(&[fence]) }.expect("a reset");
    });
    told("wait for a reached value", &mut |_| gpu.wait(done, 1));
    told("new semaphore, dropped", &mut |_| {
        let semaphore = gpu.binary();
        // SAFETY: nothing uses it
        unsafe { gpu.device.destroy_semaphore(semaphore, None) };
    });
    std::process::exit(0);
}

/// How many submits `many_calls` makes.
pub(crate) const CALLS: &str = "FENCEPOST_TEST_CALLS";

/// Makes calls again and again, and prints how many bytes of memory the process has after a quarter
/// of them and at the end.
fn many_calls(gpu: &Gpu) {
    let calls: u64 = std::env::var(CALLS).map_or(2000, |calls| calls.parse().expect("a number"));
    let done = gpu.timeline(c"done");
    let info = vk::CommandPoolCreateInfo::default();
    // SAFETY: the device has queues of family 0
    let pool = unsafe { gpu.device.create_command_pool(&info, None) }.expect("a pool");
    for value in 1..=calls {
        gpu.submit(&[], &[(done, value)], vk::Fence::null());
        if value % 4 == 0 {
            make_and_drop(gpu, pool);
        }
        if value % 2000 == 0 && gpu.presents {
            Images::new(gpu).destroy();
        }
        if [calls / 4, calls].contains(&value) {
            println!("MEMORY {}", resident());
        }
    }
    std::process::exit(0);
}

/// Uses a command buffer, a binary semaphore and a fence, which are made for it.
fn make_and_drop(gpu: &Gpu, pool: vk::CommandPool) {
    let (copied, fence) = (gpu.binary(), gpu.fence());
    gpu.name(copied, c"copied");
    let info = vk::CommandBufferAllocateInfo::default()
        .command_pool(pool)
        .command_buffer_count(1);
    // SAFETY: all objects are alive, and what is freed is not in use
    unsafe {
        let buffers = gpu
            .device
            .allocate_command_buffers(&info)
            .expect("a buffer");
        let begin = vk::CommandBufferBeginInfo::default();
        gpu.device
            .begin_command_buffer(buffers[0], &begin)
            .expect("a recording");
        gpu.device
            .end_command_buffer(buffers[0])
            .expect("a recording");
        let signals = [copied];
        let info = vk::SubmitInfo::default()
            .command_buffers(&buffers)
            .signal_semaphores(&signals);
        gpu.device
            .queue_submit(gpu.queue, &[info], vk::Fence::null())
            .expect("a submit");
        gpu.submit(&[(copied, 0)], &[], fence);
        assert!(gpu.wait_for(fence, u64::MAX));
        gpu.idle();
        gpu.device.free_command_buffers(pool, &buffers);
        gpu.device.destroy_fence(fence, None);
        gpu.device.destroy_semaphore(copied, None);
    }
}

/// The memory that this process has, in bytes.
fn resident() -> u64 {
    let sizes = std::fs::read_to_string("/proc/self/statm").expect("sizes");
    let pages: u64 = sizes
        .split(' ')
        .nth(1)
        .expect("a size")
        .parse()
        .expect("pages");
    // SAFETY: it has no requirement
    pages * unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as u64
}

/// Not valid: a signal must raise the value.
fn signals_a_lower_value(gpu: &Gpu) {
    let done = gpu.timeline(c"done");
    gpu.signal(done, 2);
    gpu.signal(done, 1);
    std::process::exit(0);
}

fn does_nothing(_: &Gpu) {
    std::process::exit(0);
}

fn submits_once(gpu: &Gpu) {
    gpu.submit(&[], &[], vk::Fence::null());
    std::process::exit(0);
}

fn is_killed(gpu: &Gpu) {
    gpu.submit(&[], &[], vk::Fence::null());
    // SAFETY: it has no requirement
    unsafe { libc::raise(libc::SIGKILL) };
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
        name: "presents",
        run: presents,
        set: &[],
        told: &[],
    },
    Program {
        name: "many_threads",
        run: many_threads,
        set: &[],
        told: &[],
    },
    Program {
        name: "many_calls",
        run: many_calls,
        set: &[],
        told: &[],
    },
    Program {
        name: "does_nothing",
        run: does_nothing,
        set: &[],
        told: &[],
    },
    Program {
        name: "submits_once",
        run: submits_once,
        set: &[],
        told: &[],
    },
    Program {
        name: "is_killed",
        run: is_killed,
        set: &[],
        told: &[],
    },
    Program {
        name: "prices",
        run: prices,
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
