//! Instances: <https://docs.vulkan.org/spec/latest/chapters/initialization.html>.

use crate::driver::with_driver;
use crate::entry::{call, call_unlocked, call_void};
use crate::ffi::{Allocator, In, Out, characters, enumerate, slice};
use crate::physical::{PhysicalDevice, version_of};
use crate::table::Child;
use crate::usage::{invalid_usage, report_invalid_usage};
use ash::vk::{self, Handle};
use fencepost_sim::ffi::read_text;
use std::ffi::c_char;

#[derive(Debug)]
pub(crate) struct Instance {
    /// The lower of the requested and the supported version: 10 for 1.0, and so on.
    pub(crate) version: u32,
    extensions: Vec<String>,
    physicals: Vec<vk::PhysicalDevice>,
}

impl Instance {
    pub(crate) fn has(&self, extension: &str) -> bool {
        self.extensions.iter().any(|enabled| enabled == extension)
    }
}

impl Child for Instance {
    fn parent(&self) -> u64 {
        0
    }
}

pub(crate) extern "system" fn vkEnumerateInstanceVersion(version: Out<'_, u32>) -> vk::Result {
    call_unlocked("vkEnumerateInstanceVersion", 0, &[], || {
        let version = version.required()?;
        version.put(with_driver(|driver| version_of(driver.options.loader))?);
        Ok(())
    })
}

pub(crate) fn extension(name: &str) -> vk::ExtensionProperties {
    vk::ExtensionProperties {
        extension_name: characters(name),
        spec_version: 1,
    }
}

const PORTABILITY: &str = "VK_KHR_portability_enumeration";

fn extensions(portability: bool) -> &'static [&'static str] {
    match portability {
        true => &[PORTABILITY],
        false => &[],
    }
}

pub(crate) extern "system" fn vkEnumerateInstanceExtensionProperties(
    layer: *const c_char,
    count: *mut u32,
    properties: Out<'_, vk::ExtensionProperties>,
) -> vk::Result {
    call_unlocked("vkEnumerateInstanceExtensionProperties", 0, &[], || {
        if !layer.is_null() {
            return Err(vk::Result::ERROR_LAYER_NOT_PRESENT);
        }
        let portability = with_driver(|driver| driver.options.portability)?;
        let all = extensions(portability).iter().map(|name| extension(name));
        enumerate(count, properties, all)
    })
}

pub(crate) extern "system" fn vkEnumerateInstanceLayerProperties(
    count: *mut u32,
    properties: Out<'_, vk::LayerProperties>,
) -> vk::Result {
    call_unlocked("vkEnumerateInstanceLayerProperties", 0, &[], || {
        enumerate(count, properties, std::iter::empty::<vk::LayerProperties>())
    })
}

/// The names in an array of C strings.
///
/// # Safety
/// `first` is null, or an array of `count` C strings.
pub(crate) unsafe fn names(first: *const *const c_char, count: u32) -> Vec<String> {
    // SAFETY: the caller vouches for it
    let all = unsafe { slice(first, count) };
    // SAFETY: as above
    all.iter()
        .filter_map(|name| unsafe { read_text(*name) })
        .collect()
}

pub(crate) extern "system" fn vkCreateInstance(
    info: In<'_, vk::InstanceCreateInfo<'_>>,
    _: Allocator<'_>,
    instance: Out<'_, vk::Instance>,
) -> vk::Result {
    call("vkCreateInstance", vk::Instance::null(), &[], |driver| {
        let (info, out) = (info.required()?, instance.required()?);
        if info.enabled_layer_count > 0 {
            return Err(vk::Result::ERROR_LAYER_NOT_PRESENT);
        }
        // SAFETY: valid usage of VkInstanceCreateInfo
        let extensions = unsafe {
            names(
                info.pp_enabled_extension_names,
                info.enabled_extension_count,
            )
        };
        let have = self::extensions(driver.options.portability);
        if extensions.iter().any(|name| !have.contains(&&**name)) {
            return Err(vk::Result::ERROR_EXTENSION_NOT_PRESENT);
        }
        let all = info
            .flags
            .contains(vk::InstanceCreateFlags::ENUMERATE_PORTABILITY_KHR);
        if all && !extensions.iter().any(|name| name == PORTABILITY) {
            return Err(invalid_usage("a flag of an extension that is not enabled"));
        }
        if driver.options.portability && !all {
            // as the real loader, if it finds no other driver
            return Err(vk::Result::ERROR_INCOMPATIBLE_DRIVER);
        }
        // SAFETY: as above
        let asked = unsafe { info.p_application_info.as_ref() }.map_or(0, |app| app.api_version);
        let asked = match asked {
            0 => 10,
            version => 10 + vk::api_version_minor(version),
        };
        let instance = driver.instances.insert(Instance {
            version: asked.min(driver.options.loader as u32),
            extensions,
            physicals: Vec::new(),
        });
        let physicals: Vec<_> = (0..driver.options.devices as usize)
            .map(|index| {
                driver.physicals.insert(PhysicalDevice {
                    instance,
                    index,
                    lost: false,
                })
            })
            .collect();
        driver.instances.find_mut(instance)?.physicals = physicals;
        out.put(instance);
        Ok(())
    })
}

pub(crate) extern "system" fn vkDestroyInstance(instance: vk::Instance, _: Allocator<'_>) {
    if instance.is_null() {
        return;
    }
    call_void(
        "vkDestroyInstance",
        instance,
        &[instance.as_raw()],
        |driver| {
            let gone = driver.instances.find(instance)?.physicals.clone();
            let left = driver.devices.iter();
            let left = left.filter(|(_, d)| gone.contains(&d.physical)).count();
            if left > 0 {
                report_invalid_usage(&format!("{left} of its devices are left"));
            }
            driver.physicals.remove_all(instance);
            driver.instances.remove(vk::Instance::null(), instance)?;
            Ok(())
        },
    );
}

pub(crate) extern "system" fn vkEnumeratePhysicalDevices(
    instance: vk::Instance,
    count: *mut u32,
    devices: Out<'_, vk::PhysicalDevice>,
) -> vk::Result {
    call("vkEnumeratePhysicalDevices", instance, &[], |driver| {
        let all = driver.instances.find(instance)?.physicals.clone();
        enumerate(count, devices, all.into_iter())
    })
}
