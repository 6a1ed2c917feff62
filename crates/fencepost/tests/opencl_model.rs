//! Random runs of operations on the first OpenCL device, compared with the model.
#![cfg(all(feature = "opencl", not(loom)))]

use fencepost::{Device, testing};

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
