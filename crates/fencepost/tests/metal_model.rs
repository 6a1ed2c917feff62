//! Random runs of operations, held against the model, on the stand-in for Metal. Nothing here counts as Apple hardware.
#![cfg(all(metal_sim, not(loom)))]

use std::time::Duration;

use fencepost::{Device, conformance::Mutant, metal};
use fencepost_sim_metal::Control;
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

mod common;
#[path = "common/model.rs"]
mod model;

#[test]
fn the_device_does_what_the_model_says() {
    let device = Device::open("metal").unwrap();
    let config = Config {
        cases: 300,
        max_shrink_iters: 20,
        failure_persistence: None,
        ..Config::default()
    };
    TestRunner::new(config)
        .run(&model::ops(), |ops| {
            prop_assert_eq!(model::run(&device, &ops, Duration::from_secs(10)), Ok(()));
            Ok(())
        })
        .unwrap();
    assert_eq!(Control.violations(), Vec::<String>::new());
}

#[test]
fn the_model_tells_mutants_of_the_device_apart() {
    let mutants = [
        Mutant::WaitDoesNothing,
        Mutant::QueryAlwaysTrue,
        Mutant::FailureLooksPending,
        Mutant::SignalBeforeTheWork,
    ];
    common::in_a_process_of_its_own(|| {
        model::tells_apart(|| metal::fresh(0).unwrap(), &mutants, 1000);
    });
}
