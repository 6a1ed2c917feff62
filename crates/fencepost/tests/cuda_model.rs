//! Random runs of operations on the first GPU or the stand-in, compared with the model.
#![cfg(all(feature = "cuda", not(loom)))]

use fencepost::{Device, testing};

mod common;
#[path = "common/model.rs"]
mod model;

fn gpu() -> Option<Device> {
    match Device::open("cuda:0") {
        Ok(device) => Some(device),
        Err(why) => {
            common::skip(&common::test_name(), &why.to_string());
            None
        }
    }
}

#[test]
fn the_gpu_does_what_the_model_says() {
    let Some(device) = gpu() else { return };
    model::holds_for(&device, 150, |_, _| false);
}

#[test]
fn the_model_tells_mutants_of_the_gpu_apart() {
    let Some(device) = gpu() else { return };
    common::in_a_process_of_its_own(|| {
        model::tells_gpus_apart(|| testing::cuda::fresh(&device).unwrap());
    });
}
