//! Random sequences of operations on the stand-in for CUDA's driver, which
//! `FENCEPOST_CUDA_LIBRARY` must name, compared with the model.
#![no_main]

use std::sync::LazyLock;

use fencepost::Device;
use libfuzzer_sys::fuzz_target;

mod common;

static DEVICE: LazyLock<Device> =
    LazyLock::new(|| Device::open("cuda:0").expect("FENCEPOST_CUDA_LIBRARY names the stand-in"));

fuzz_target!(|bytes: &[u8]| common::run(&DEVICE, bytes, |_, _| false));
