//! The library, loaded in place of the Vulkan loader, and its properties.

mod support;

use ash::vk;
use fencepost_sim_vulkan::{Control, FUNCTIONS, Live, library_path};
use libloading::Library;
use std::ffi::CString;
use std::path::PathBuf;
use support::*;

/// A seed that no other test uses.
const SEED: u64 = 0x5eed_5eed;

fn path() -> PathBuf {
    library_path().expect("cargo builds the library beside its tests")
}

fn loaded(library: &Library) -> ash::Entry {
    // SAFETY: the type of the function of this name
    let found = unsafe { library.get::<vk::PFN_vkGetInstanceProcAddr>("vkGetInstanceProcAddr") };
    let functions = ash::StaticFn {
        get_instance_proc_addr: *found.unwrap(),
    };
    // SAFETY: the library stays loaded as long as the test
    unsafe { ash::Entry::from_static_fn(functions) }
}

#[test]
fn all_code_that_loads_the_same_path_shares_one_machine() {
    let control = Control::load(&path()).unwrap();
    // SAFETY: the library does nothing when it is loaded
    let library = unsafe { Library::new(path()) }.unwrap();
    let session = control.session(SEED, &[("DEVICES", 3)]);
    assert_eq!(session.seed(), SEED);
    let entry = loaded(&library);
    session.fail_call("vkCreateInstance", 1, vk::Result::ERROR_OUT_OF_HOST_MEMORY);
    let info = vk::InstanceCreateInfo::default();
    // SAFETY: the structure lives through the call
    let failed = unsafe { entry.create_instance(&info, None) }.map(drop);
    assert_eq!(failed, Err(vk::Result::ERROR_OUT_OF_HOST_MEMORY));
    let instance = instance(&entry, vk::API_VERSION_1_2);
    assert_eq!(session.calls("vkCreateInstance"), 2);
    assert_eq!(physicals(&instance).len(), 3);
    assert_eq!(session.live().instances, 1);
    // SAFETY: nothing of it is left
    unsafe { instance.destroy_instance(None) };
    assert_eq!(session.live(), Live::default());
    assert!(session.violations().is_empty());
    // the copy that is linked into this test has its own machine
    assert_ne!(Control::linked().seed(), SEED);
}

#[test]
fn an_instance_finds_every_function_and_a_device_only_enabled_ones() {
    let setup = Setup {
        api: vk::API_VERSION_1_2,
        extensions: &[c"VK_KHR_synchronization2"],
        ..Setup::default()
    };
    with_seed(1, &[], setup, |_, gpu| {
        let of_instance = |name: &str| {
            let name = CString::new(name).unwrap();
            let instance = gpu.instance.handle();
            // SAFETY: a C string
            unsafe { gpu.entry.get_instance_proc_addr(instance, name.as_ptr()) }.is_some()
        };
        let of_device = |name: &str| {
            let name = CString::new(name).unwrap();
            let get = gpu.instance.fp_v1_0().get_device_proc_addr;
            // SAFETY: a C string
            unsafe { get(gpu.device.handle(), name.as_ptr()) }.is_some()
        };
        for name in FUNCTIONS {
            let global = name.starts_with("vkEnumerateInstance") || *name == "vkCreateInstance";
            assert_eq!(of_instance(name), !global, "{name}");
        }
        assert!(!of_instance("vkCmdDraw"));
        for there in ["vkQueueSubmit", "vkWaitSemaphores", "vkQueueSubmit2KHR"] {
            assert!(of_device(there), "{there}");
        }
        for missing in [
            "vkQueueSubmit2",
            "vkWaitSemaphoresKHR",
            "vkCreateDevice",
            "vkGetCalibratedTimestampsEXT",
            "vkCmdDraw",
        ] {
            assert!(!of_device(missing), "{missing}");
        }
    });
}

#[test]
fn the_devices_are_named_as_stand_ins() {
    let session = control().session(1, &[]);
    let entry = entry();
    // SAFETY: the function has no requirement
    let version = unsafe { entry.try_enumerate_instance_version() }.unwrap();
    assert_eq!(version, Some(vk::API_VERSION_1_3));
    let instance = instance(&entry, vk::API_VERSION_1_3);
    let (mut periods, mut uuids) = (Vec::new(), Vec::new());
    for physical in physicals(&instance) {
        let mut timeline = vk::PhysicalDeviceTimelineSemaphoreProperties::default();
        let mut ids = vk::PhysicalDeviceIDProperties::default();
        let mut all = vk::PhysicalDeviceProperties2::default()
            .push_next(&mut timeline)
            .push_next(&mut ids);
        // SAFETY: the structures live through the call
        unsafe { instance.get_physical_device_properties2(physical, &mut all) };
        let name = all.properties.device_name_as_c_str().unwrap();
        assert_eq!(name, c"fencepost stand-in (no Vulkan hardware)");
        periods.push(all.properties.limits.timestamp_period);
        uuids.push(ids.device_uuid);
        assert_eq!(
            timeline.max_timeline_semaphore_value_difference,
            i32::MAX as u64
        );
        let families: Vec<_> = families(&instance, physical)
            .iter()
            .map(|family| (family.queue_count, family.timestamp_valid_bits))
            .collect();
        assert_eq!(families, [(3, 64), (2, 36), (1, 0)]);
    }
    assert_eq!(periods, [1.0, 52.083_332]);
    assert_ne!(uuids[0], uuids[1]);
    // SAFETY: nothing of it is left
    unsafe { instance.destroy_instance(None) };
    assert!(session.violations().is_empty());
}

/// Checks that a device is not created with the features and extensions that the options removed.
fn refuses_what_was_removed(instance: &ash::Instance, physical: vk::PhysicalDevice) {
    let none = Setup {
        timeline: false,
        host_reset: false,
        sync2: false,
        ..Setup::default()
    };
    let requested = [
        Setup {
            timeline: true,
            ..none
        },
        Setup {
            host_reset: true,
            ..none
        },
        Setup {
            sync2: true,
            ..none
        },
    ];
    for requested in requested {
        let refused = make_device(instance, physical, &requested).map(drop);
        assert_eq!(refused, Err(vk::Result::ERROR_FEATURE_NOT_PRESENT));
    }
    let requested = Setup {
        extensions: &[c"VK_KHR_synchronization2"],
        ..none
    };
    let refused = make_device(instance, physical, &requested).map(drop);
    assert_eq!(refused, Err(vk::Result::ERROR_EXTENSION_NOT_PRESENT));
}

#[test]
fn options_remove_what_a_driver_may_lack() {
    let options = [
        ("DEVICES", 1),
        ("API", 12),
        ("SYNC2", 0),
        ("HOST_RESET", 0),
        ("TIMELINE", 0),
        ("CALIBRATED", 0),
        ("SINGLE_QUEUE", 1),
        ("VALID_BITS", 40),
    ];
    let session = control().session(1, &options);
    let entry = entry();
    let instance = instance(&entry, vk::API_VERSION_1_3);
    let physicals = physicals(&instance);
    let [physical] = physicals[..] else {
        panic!("{} devices", physicals.len())
    };
    // SAFETY: the instance is alive
    let properties = unsafe { instance.get_physical_device_properties(physical) };
    assert_eq!(properties.api_version, vk::API_VERSION_1_2);
    let family = families(&instance, physical)[0];
    assert_eq!((family.queue_count, family.timestamp_valid_bits), (1, 40));
    // SAFETY: as above
    let extensions = unsafe { instance.enumerate_device_extension_properties(physical) };
    assert!(extensions.unwrap().is_empty());
    let mut features = vk::PhysicalDeviceVulkan12Features::default();
    let mut all = vk::PhysicalDeviceFeatures2::default().push_next(&mut features);
    // SAFETY: the structures live through the call
    unsafe { instance.get_physical_device_features2(physical, &mut all) };
    assert_eq!(
        (features.timeline_semaphore, features.host_query_reset),
        (0, 0)
    );
    refuses_what_was_removed(&instance, physical);
    // SAFETY: nothing of it is left
    unsafe { instance.destroy_instance(None) };
    assert!(session.violations().is_empty());
}
