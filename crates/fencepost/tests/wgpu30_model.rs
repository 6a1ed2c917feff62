//! Random runs of operations on a device of wgpu, compared with the model.
#![cfg(all(feature = "wgpu30", not(loom)))]

use fencepost::testing::work;

mod common;
#[path = "common/wgpu.rs"]
mod gpus;
#[path = "common/model.rs"]
mod model;

#[test]
fn the_device_does_what_the_model_says() {
    let Some(gpu) = gpus::gpu() else { return };
    model::holds_for(&gpu.fencepost(), 150, work::share_order);
}
