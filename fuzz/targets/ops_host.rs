//! Random sequences of operations on the host, compared with the model.
#![no_main]

use std::sync::LazyLock;

use fencepost::Device;
use libfuzzer_sys::fuzz_target;

mod common;

static DEVICE: LazyLock<Device> = LazyLock::new(|| Device::new_host(2));

fuzz_target!(|bytes: &[u8]| common::run(&DEVICE, bytes, |_, _| false));
