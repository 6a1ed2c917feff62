//! Random sequences of operations on the first OpenCL device, compared with the model. Under PoCL
//! it is a real driver, whose queues overlap.
#![no_main]

use std::sync::LazyLock;

use fencepost::Device;
use libfuzzer_sys::fuzz_target;

mod common;

static DEVICE: LazyLock<Device> =
    LazyLock::new(|| Device::open("opencl:0").expect("an OpenCL driver is installed"));

fuzz_target!(|bytes: &[u8]| common::run(&DEVICE, bytes, |_, _| false));
