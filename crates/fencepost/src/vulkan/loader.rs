//! The Vulkan loader, found at run time, and the instance that devices of our own are made with.

use std::{
    ffi::{CStr, c_void},
    io::Write,
    sync::OnceLock,
};

use ash::{Entry, Instance, ext, khr, vk};

use crate::{
    contract::Missing,
    error::Error,
    fork::{Once, Process},
};

/// The loader, our instance, and the devices worth opening.
pub(super) struct Loader {
    /// Kept also because unloading the library would unload the driver.
    entry: Entry,
    pub(super) instance: Instance,
    /// The version that the instance was made for, which limits the version of its devices.
    pub(super) version: u32,
    /// The process that it was loaded in.
    home: Process,
    pub(super) devices: Vec<Found>,
}

/// A device that this backend can use.
pub(super) struct Found {
    pub(super) raw: vk::PhysicalDevice,
    pub(super) name: String,
    /// A driver that computes on the processor.
    pub(super) software: bool,
}

/// Gets each message of the validation layer, beside stderr: tests set it.
pub(crate) static LISTENER: OnceLock<fn(String)> = OnceLock::new();

/// Names the library to load in place of the system's loader.
const LIBRARY: &str = "FENCEPOST_VULKAN_LIBRARY";
/// Asks for the validation layer.
const VALIDATION: &str = "FENCEPOST_VULKAN_VALIDATION";

impl Loader {
    /// The one loader of this process, or of the one that it was forked from, where it must not be
    /// called; or why there is none, and what would bring it.
    pub(super) fn get() -> Result<&'static Loader, Missing> {
        static LOADER: Once<Result<Loader, Missing>> = Once::new();
        let kept = LOADER.get_or_try_make(
            || Ok(load()),
            || {
                Missing::Failed(Error::Forked {
                    device: "vulkan".into(),
                })
            },
        );
        kept?.as_ref().map_err(Clone::clone)
    }

    /// The loader, for calls on this device.
    pub(super) fn to_call(device: &str) -> Result<&'static Loader, Error> {
        let loader = Loader::get().map_err(|missing| missing.error(device))?;
        match loader.home.is_this() {
            true => Ok(loader),
            false => Err(Error::Forked {
                device: device.into(),
            }),
        }
    }
}

impl Loader {
    /// Whether calibrated timestamps, by this one of their two extensions, read the clock of the
    /// device.
    pub(super) fn reads_the_clock_of(&self, device: vk::PhysicalDevice, extension: &CStr) -> bool {
        let (entry, instance) = (&self.entry, &self.instance);
        // SAFETY: a device of this instance, which has the extension.
        let domains = unsafe {
            match extension == khr::calibrated_timestamps::NAME {
                true => khr::calibrated_timestamps::Instance::new(entry, instance)
                    .get_physical_device_calibrateable_time_domains(device),
                false => ext::calibrated_timestamps::Instance::new(entry, instance)
                    .get_physical_device_calibrateable_time_domains(device),
            }
        };
        domains.is_ok_and(|domains| domains.contains(&vk::TimeDomainKHR::DEVICE))
    }
}

fn failed(why: String) -> Missing {
    Missing::Failed(Error::Unavailable {
        device: "vulkan".into(),
        why,
    })
}

fn load() -> Result<Loader, Missing> {
    let named = std::env::var_os(LIBRARY).filter(|name| !name.is_empty());
    let entry = match &named {
        // SAFETY: loading runs the library's initialisers; the user named it as a Vulkan loader.
        Some(path) => unsafe { Entry::load_from(path) }.map_err(|error| {
            failed(format!(
                "{LIBRARY} names {}, which cannot be loaded as a Vulkan loader: {error}; unset it, \
                 or name a Vulkan loader",
                path.to_string_lossy()
            ))
        })?,
        // SAFETY: the system's loader, by the name that its installation uses.
        None => unsafe { Entry::load() }.map_err(|error| {
            Missing::Absent(format!(
                "no Vulkan loader: {error}; install one (as the package libvulkan1 or \
                 vulkan-loader) and the GPU's driver, or name a loader in {LIBRARY}"
            ))
        })?,
    };
    // SAFETY: the entry was just loaded.
    let version = unsafe { entry.try_enumerate_instance_version() }
        .map_err(|error| failed(format!("the Vulkan loader does not work: {error}")))?
        .unwrap_or(vk::API_VERSION_1_0);
    if version < vk::API_VERSION_1_2 {
        return Err(Missing::Absent(format!(
            "the Vulkan loader is of version {}, and this needs 1.2; update it",
            shown(version)
        )));
    }
    let version = version.min(vk::API_VERSION_1_3);
    let instance = instance(&entry, version)?;
    let devices = devices(&instance)?;
    Ok(Loader {
        entry,
        instance,
        version,
        home: Process::this(),
        devices,
    })
}

fn shown(version: u32) -> String {
    let (major, minor) = (
        vk::api_version_major(version),
        vk::api_version_minor(version),
    );
    format!("{major}.{minor}")
}

pub(super) fn is_named(extension: &vk::ExtensionProperties, name: &CStr) -> bool {
    extension.extension_name_as_c_str() == Ok(name)
}

fn instance(entry: &Entry, version: u32) -> Result<Instance, Missing> {
    let application = vk::ApplicationInfo::default()
        .engine_name(c"fencepost")
        .api_version(version);
    let mut info = vk::InstanceCreateInfo::default().application_info(&application);
    let validate = std::env::var_os(VALIDATION).is_some_and(|on| on == "1");
    let layers = [c"VK_LAYER_KHRONOS_validation".as_ptr()];
    // SAFETY: the entry was loaded.
    let known = unsafe { entry.enumerate_instance_extension_properties(None) };
    let portability = khr::portability_enumeration::NAME;
    let mut extensions = Vec::new();
    if known.is_ok_and(|known| known.iter().any(|one| is_named(one, portability))) {
        // Without it the loader hides drivers that do not conform, such as MoltenVK.
        extensions.push(portability.as_ptr());
        info = info.flags(vk::InstanceCreateFlags::ENUMERATE_PORTABILITY_KHR);
    }
    let enabled = [vk::ValidationFeatureEnableEXT::SYNCHRONIZATION_VALIDATION];
    let mut features = vk::ValidationFeaturesEXT::default().enabled_validation_features(&enabled);
    let mut messenger = messenger();
    if validate {
        extensions.push(ext::debug_utils::NAME.as_ptr());
        info = info
            .enabled_layer_names(&layers)
            .push_next(&mut features)
            .push_next(&mut messenger);
    }
    info = info.enabled_extension_names(&extensions);
    // SAFETY: everything that `info` points to is alive until the call is over.
    let instance = unsafe { entry.create_instance(&info, None) }.map_err(|error| match error {
        vk::Result::ERROR_INCOMPATIBLE_DRIVER => Missing::Absent(
            "the Vulkan loader finds no driver; install the GPU's (or mesa-vulkan-drivers for a \
             software one)"
                .into(),
        ),
        vk::Result::ERROR_LAYER_NOT_PRESENT => failed(format!(
            "{VALIDATION} asks for the validation layer, which is not installed; unset it, or \
             install vulkan-validationlayers"
        )),
        error => failed(format!(
            "vkCreateInstance failed: {error}; try vulkaninfo, and reinstall the driver"
        )),
    })?;
    if validate {
        let debug = ext::debug_utils::Instance::new(entry, &instance);
        // SAFETY: the instance is alive and has the extension. Neither the messenger nor the
        // instance is ever destroyed.
        let made = unsafe { debug.create_debug_utils_messenger(&self::messenger(), None) };
        made.map_err(|error| failed(format!("the validation layer takes no messenger: {error}")))?;
    }
    Ok(instance)
}

fn messenger() -> vk::DebugUtilsMessengerCreateInfoEXT<'static> {
    use vk::{
        DebugUtilsMessageSeverityFlagsEXT as Severity, DebugUtilsMessageTypeFlagsEXT as Kind,
    };
    vk::DebugUtilsMessengerCreateInfoEXT::default()
        .message_severity(Severity::WARNING | Severity::ERROR)
        .message_type(Kind::VALIDATION | Kind::PERFORMANCE)
        .pfn_user_callback(Some(heard))
}

unsafe extern "system" fn heard(
    _: vk::DebugUtilsMessageSeverityFlagsEXT,
    _: vk::DebugUtilsMessageTypeFlagsEXT,
    data: *const vk::DebugUtilsMessengerCallbackDataEXT<'_>,
    _: *mut c_void,
) -> vk::Bool32 {
    // SAFETY: null, or a message that is alive during the call.
    if let Some(data) = unsafe { data.as_ref() }
        && !data.p_message.is_null()
    {
        // SAFETY: a C string, by the specification of the structure.
        let text = unsafe { CStr::from_ptr(data.p_message) }.to_string_lossy();
        // Not eprintln, which panics where stderr is closed.
        let _ = writeln!(std::io::stderr(), "vulkan validation: {text}");
        if let Some(listen) = LISTENER.get() {
            listen(text.into_owned());
        }
    }
    vk::FALSE
}

/// The devices that this backend can use, hardware first; or why there is none.
fn devices(instance: &Instance) -> Result<Vec<Found>, Missing> {
    // SAFETY: the instance is alive.
    let all = unsafe { instance.enumerate_physical_devices() }.map_err(|error| {
        failed(format!(
            "vkEnumeratePhysicalDevices failed: {error}; reinstall the GPU's driver"
        ))
    })?;
    let (mut usable, mut unusable) = (Vec::new(), Vec::new());
    for raw in all {
        // SAFETY: a device of this instance.
        let facts = unsafe { instance.get_physical_device_properties(raw) };
        let name = facts
            .device_name_as_c_str()
            .map_or("a device".into(), |name| {
                name.to_string_lossy().into_owned()
            });
        if facts.api_version < vk::API_VERSION_1_2 {
            unusable.push(format!("{name} has Vulkan {}", shown(facts.api_version)));
            continue;
        }
        let mut timeline = vk::PhysicalDeviceTimelineSemaphoreFeatures::default();
        let mut features = vk::PhysicalDeviceFeatures2::default().push_next(&mut timeline);
        // SAFETY: as above; the chain is alive during the call.
        unsafe { instance.get_physical_device_features2(raw, &mut features) };
        if timeline.timeline_semaphore == vk::FALSE {
            unusable.push(format!("{name} has no timeline semaphores"));
            continue;
        }
        usable.push(Found {
            raw,
            name,
            software: facts.device_type == vk::PhysicalDeviceType::CPU,
        });
    }
    usable.sort_by_key(|found| found.software);
    match (usable.is_empty(), unusable.is_empty()) {
        (false, _) => Ok(usable),
        (true, true) => Err(Missing::Absent(
            "the Vulkan loader is installed and finds no device; install the GPU's driver".into(),
        )),
        (true, false) => Err(Missing::Absent(format!(
            "no device here has Vulkan 1.2 with timeline semaphores ({}); update the GPU's driver",
            unusable.join(", ")
        ))),
    }
}
