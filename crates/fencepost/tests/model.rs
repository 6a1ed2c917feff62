//! Random runs of operations, held against a model, on the host.
#![cfg(not(loom))]

use std::time::Duration;

use fencepost::{
    Device,
    conformance::{Mutant, mutated},
};
use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, TestRunner},
};

#[path = "common/model.rs"]
mod model;

proptest! {
    #![proptest_config(Config { cases: 400, max_shrink_iters: 500, failure_persistence: None, ..Config::default() })]

    #[test]
    fn the_host_does_what_the_model_says(ops in model::ops(), workers in 1..4_usize) {
        let device = Device::new_host(workers);
        prop_assert_eq!(model::run(&device, &ops, Duration::from_secs(20)), Ok(()));
    }
}

/// A model that agrees with anything would prove nothing.
#[test]
fn the_model_tells_mutants_apart() {
    const RUNS: usize = 3000;
    for mutant in [
        Mutant::WaitDoesNothing,
        Mutant::WaitForTheLatest,
        Mutant::FailureStopsAtTheWait,
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
            let device = mutated(&Device::new_host(2), mutant);
            model::run(&device, &ops, Duration::from_secs(1)).is_err()
        });
        assert!(caught, "the model agrees with {mutant} in {RUNS} runs");
    }
}
