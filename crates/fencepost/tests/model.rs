//! Random runs of operations on the host, compared with a model.
#![cfg(not(loom))]

use fencepost::{Device, testing::Mutant};
use proptest::{prelude::*, test_runner::Config};

#[path = "common/model.rs"]
mod model;

proptest! {
    #![proptest_config(Config {
        cases: 400,
        max_shrink_iters: 500,
        failure_persistence: None,
        ..Config::default()
    })]

    #[test]
    fn the_host_does_what_the_model_says(ops in model::ops(), workers in 1..4_usize) {
        let device = Device::new_host(workers);
        prop_assert_eq!(model::run(&device, &ops, fencepost_sim::HANG_TIMEOUT), Ok(()));
    }
}

#[test]
fn the_model_tells_mutants_apart() {
    let mutants = [
        Mutant::WaitDoesNothing,
        Mutant::WaitForTheLatest,
        Mutant::FailureStopsAtTheWait,
        Mutant::QueryAlwaysTrue,
        Mutant::FailureLooksPending,
        Mutant::SignalBeforeTheWork,
    ];
    model::tells_apart(|| Device::new_host(2), &mutants, 3000);
}
