//! Random runs of operations, held against the model, on the first GPU or its stand-in.
#![cfg(all(feature = "cuda", not(loom)))]

use std::time::Duration;

use fencepost::{
    Device,
    conformance::{Mutant, mutated},
    cuda,
};
use proptest::{
    prelude::*,
    strategy::ValueTree,
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

/// A model that agrees with anything would prove nothing.
#[test]
fn the_model_tells_mutants_of_the_gpu_apart() {
    const RUNS: usize = 1000;
    let Some(device) = gpu() else { return };
    common::in_a_process_of_its_own(|| {
        for mutant in [
            Mutant::WaitDoesNothing,
            Mutant::QueryAlwaysTrue,
            Mutant::FailureLooksPending,
            Mutant::SignalBeforeTheWork,
        ] {
            let mut runner = TestRunner::deterministic();
            let caught = (0..RUNS).any(|_| {
                let ops = model::ops()
                    .new_tree(&mut runner)
                    .expect("a strategy")
                    .current();
                let device = mutated(&cuda::fresh(&device).unwrap(), mutant);
                model::run(&device, &ops, Duration::from_secs(1)).is_err()
            });
            assert!(caught, "the model agrees with {mutant} in {RUNS} runs");
        }
    });
}
