//! Random runs of operations on a device of wgpu, compared with the model.
#![cfg(all(feature = "wgpu30", not(loom)))]

use fencepost::testing::{Mutant, work};

mod common;
#[path = "common/wgpu.rs"]
mod gpus;
#[path = "common/model.rs"]
mod model;

/// A device whose queue the tests can hold.
fn that_holds() -> Option<gpus::Gpu> {
    let gpu = gpus::gpu()?;
    gpus::hold(&gpu.stream())?;
    Some(gpu)
}

#[test]
fn the_device_does_what_the_model_says() {
    let Some(gpu) = that_holds() else { return };
    model::holds_for(&gpu.fencepost(), 150, work::share_order);
}

/// The mutants that show on one queue, whose order hides a wait that is missing.
#[test]
fn the_model_tells_mutants_of_the_device_apart() {
    let Some(gpu) = that_holds() else { return };
    drop(gpu);
    common::in_a_process_of_its_own(|| {
        let mutants = [
            Mutant::QueryAlwaysTrue,
            Mutant::FailureLooksPending,
            Mutant::SignalBeforeTheWork,
        ];
        let gpu = that_holds().unwrap();
        model::tells_apart(|| gpu.fencepost(), &mutants, 1000);
    });
}
