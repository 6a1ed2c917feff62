//! Random runs of operations on the first Vulkan device or the stand-in, compared with the model.
#![cfg(all(feature = "vulkan", not(loom)))]

use fencepost::{
    Device,
    testing::{self, work},
};

mod common;
#[path = "common/model.rs"]
mod model;

fn gpu() -> Option<Device> {
    // From here on the validation layer is heard.
    let _ = testing::vulkan::validation_messages();
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
    model::holds_for(&device, 150, work::share_order);
    let messages = testing::vulkan::validation_messages();
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
            "the stand-in shows it (FENCEPOST_VULKAN_STAND_IN=1): a driver with one queue hides \
             missing waits",
        );
    }
    common::in_a_process_of_its_own(|| {
        model::tells_gpus_apart(|| testing::vulkan::fresh(0, None).unwrap());
    });
}
