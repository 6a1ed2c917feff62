//! Random runs of operations, held against the model, on the first GPU or its stand-in.
#![cfg(all(feature = "cuda", not(loom)))]

use std::time::Duration;

use fencepost::{Device, conformance::Mutant, cuda};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

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
    let config = Config {
        cases: 150,
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
}

#[test]
fn the_model_tells_mutants_of_the_gpu_apart() {
    let Some(device) = gpu() else { return };
    let mutants = [
        Mutant::WaitDoesNothing,
        Mutant::QueryAlwaysTrue,
        Mutant::FailureLooksPending,
        Mutant::SignalBeforeTheWork,
    ];
    common::in_a_process_of_its_own(|| {
        model::tells_apart(|| cuda::fresh(&device).unwrap(), &mutants, 1000);
    });
}
