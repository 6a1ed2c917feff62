//! Random sequences of operations on the stand-in for a Vulkan driver, which
//! `FENCEPOST_VULKAN_LIBRARY` must name, compared with the model.
#![no_main]

use std::sync::LazyLock;

use fencepost::{Device, testing::work};
use libfuzzer_sys::fuzz_target;

mod common;

static DEVICE: LazyLock<Device> = LazyLock::new(|| {
    Device::open("vulkan:0").expect("FENCEPOST_VULKAN_LIBRARY names the stand-in")
});

fuzz_target!(|bytes: &[u8]| common::run(&DEVICE, bytes, work::share_order));
