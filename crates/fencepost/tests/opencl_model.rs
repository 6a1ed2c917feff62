//! Random runs of operations on the first OpenCL device, compared with the model.
#![cfg(all(feature = "opencl", not(loom)))]

use fencepost::{
    Device,
    testing::{self, Mutant},
};

mod common;
#[path = "common/model.rs"]
mod model;

fn device() -> Option<Device> {
    match Device::open("opencl:0") {
        Ok(device) => Some(device),
        Err(why) => {
            common::skip(&common::test_name(), &why.to_string());
            None
        }
    }
}

#[test]
fn the_device_does_what_the_model_says() {
    let Some(device) = device() else { return };
    model::holds_for(&device, 150, |_, _| false);
}

#[test]
fn the_model_tells_mutants_of_the_device_apart() {
    let Some(device) = device() else { return };
    common::in_a_process_of_its_own(|| {
        model::tells_gpus_apart(|| testing::opencl::fresh(&device).unwrap());
    });
}

/// Two devices of one context, in a process of its own: PoCL shows as many devices as the variable
/// names. Its streams wait for each other on the device.
fn on_two_devices(scenario: impl FnOnce(&dyn Fn() -> Vec<Device>)) {
    if !common::is_child() && device().is_none() {
        return;
    }
    common::in_a_process_with(&[("POCL_DEVICES", "pthread pthread")], || {
        let found = ["opencl:0", "opencl:1"].map(Device::open);
        let [Ok(first), Ok(second)] = found else {
            return common::skip(&common::test_name(), "the driver has one device");
        };
        let devices = testing::opencl::together(&[first, second]).unwrap();
        scenario(&|| {
            let fresh = devices.iter().map(testing::opencl::fresh);
            fresh.collect::<Result<_, _>>().unwrap()
        });
    });
}

#[test]
fn two_devices_of_one_context_do_what_the_model_says() {
    on_two_devices(|make| model::holds_for_several(&make(), 150, |_, _| false));
}

#[test]
fn the_model_tells_a_wait_between_two_devices_that_does_nothing_apart() {
    on_two_devices(|make| {
        model::tells_several_apart(make, &[Mutant::WaitDoesNothing], 1000);
    });
}
