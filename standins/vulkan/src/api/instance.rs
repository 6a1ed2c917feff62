//! Instances: <https://docs.vulkan.org/spec/latest/chapters/initialization.html>.

use crate::driver::with_driver;
use crate::entry::{call, call_unlocked, call_void};
use crate::ffi::{Allocator, In, Out, enumerate, extension_properties, names};
use crate::instance::{Instance, PORTABILITY, instance_extensions};
use crate::physical::{PhysicalDevice, version_of};
use crate::usage::{invalid_usage, report_invalid_usage};
use ash::vk::{self, Handle};
use std::ffi::c_char;

pub(crate) extern "system" fn vkEnumerateInstanceVersion(version: Out<'_, u32>) -> vk::Result {
    call_unlocked("vkEnumerateInstanceVersion", 0, &[], || {
        let version = version.required()?;
        version.put(with_driver(|driver| version_of(driver.options.loader))?);
        Ok(())
    })
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
        let all = instance_extensions(portability).iter();
        let all = all.map(|name| extension_properties(name));
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
        let have = instance_extensions(driver.options.portability);
        if extensions.iter().any(|name| !have.contains(&&**name)) {
            return Err(vk::Result::ERROR_EXTENSION_NOT_PRESENT);
        }
        let all = info
            .flags
            .contains(vk::InstanceCreateFlags::ENUMERATE_PORTABILITY_KHR);
        if all && !extensions.iter().any(|name| name == PORTABILITY) {
            return Err(invalid_usage(
                "the flag of an extension that is not enabled",
            ));
        }
        if driver.options.portability && !all {
            // as the real loader does if it finds no other driver
            return Err(vk::Result::ERROR_INCOMPATIBLE_DRIVER);
        }
        // SAFETY: as above
        let requested =
            unsafe { info.p_application_info.as_ref() }.map_or(0, |app| app.api_version);
        let requested = match requested {
            0 => 10,
            version => 10 + vk::api_version_minor(version),
        };
        let instance = driver.instances.insert(Instance {
            version: requested.min(driver.options.loader as u32),
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
            let physicals = driver.instances.find(instance)?.physicals.clone();
            let left = driver.devices.iter();
            let left = left
                .filter(|(_, d)| physicals.contains(&d.physical))
                .count();
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
