//! Random runs of operations, held against the model, on the first Vulkan device or its stand-in.
#![cfg(all(feature = "vulkan", not(loom)))]

use std::time::Duration;

use fencepost::{Device, conformance::Mutant, vulkan};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

mod common;
#[path = "common/model.rs"]
mod model;

fn gpu() -> Option<Device> {
    match Device::open("vulkan:0") {
        Ok(device) => Some(device),
        Err(why) => {
            common::skip(&common::test_name(), &why.to_string());
            None
        }
    }
}

#[test]
fn the_device_does_what_the_model_says() {
    let Some(device) = gpu() else { return };
    let config = Config {
        cases: 150,
        max_shrink_iters: 20,
        failure_persistence: None,
        ..Config::default()
    };
    TestRunner::new(config)
        .run(&model::ops(), |ops| {
            let patience = Duration::from_secs(10);
            let told = model::run_shared(&device, &ops, patience, vulkan::share_a_queue);
            prop_assert_eq!(told, Ok(()));
            Ok(())
        })
        .unwrap();
    let messages = vulkan::validation_messages();
    let serious = messages
        .iter()
        .filter(|text| !text.contains("UNASSIGNED-VkSemaphore-state-timeout"));
    assert_eq!(serious.count(), 0, "{messages:#?}");
}

#[test]
fn the_model_tells_mutants_of_the_device_apart() {
    if gpu().is_none() {
        return;
    }
    if !std::env::var("FENCEPOST_VULKAN_STAND_IN").is_ok_and(|on| on == "1") {
        return common::skip(
            &common::test_name(),
            "the stand-in shows it (FENCEPOST_VULKAN_STAND_IN=1): a driver with one queue hides missing waits",
        );
    }
    let mutants = [
        Mutant::WaitDoesNothing,
        Mutant::QueryAlwaysTrue,
        Mutant::FailureLooksPending,
        Mutant::SignalBeforeTheWork,
    ];
    common::in_a_process_of_its_own(|| {
        model::tells_apart(|| vulkan::fresh(0, None).unwrap(), &mutants, 1000);
    });
}
