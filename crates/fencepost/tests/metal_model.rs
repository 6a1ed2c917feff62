//! Random runs of operations on the stand-in for Metal, compared with the model. Nothing here
//! counts as Apple hardware.
#![cfg(all(metal_sim, not(loom)))]

use fencepost::{Device, testing};
use fencepost_sim_metal::Control;

mod common;
#[path = "common/model.rs"]
mod model;

#[test]
fn the_device_does_what_the_model_says() {
    let device = Device::open("metal").unwrap();
    model::holds_for(&device, 300, |_, _| false);
    assert_eq!(Control.violations(), Vec::<String>::new());
}

#[test]
fn the_model_tells_mutants_of_the_device_apart() {
    common::in_a_process_of_its_own(|| {
        model::tells_gpus_apart(|| testing::metal::fresh(0).unwrap());
    });
}
