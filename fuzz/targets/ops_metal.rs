//! Random sequences of operations on the stand-in for Metal, compared with the model. Without
//! `--cfg metal_sim` there is no such stand-in, and nothing to do.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[cfg(metal_sim)]
mod common;

#[cfg(metal_sim)]
fn device() -> &'static fencepost::Device {
    use std::sync::LazyLock;

    // Links the stand-in.
    use fencepost_sim_metal as _;

    static DEVICE: LazyLock<fencepost::Device> =
        LazyLock::new(|| fencepost::Device::open("metal").expect("the stand-in is linked"));
    &DEVICE
}

#[cfg(metal_sim)]
fuzz_target!(|bytes: &[u8]| common::run(device(), bytes, |_, _| false));

#[cfg(not(metal_sim))]
fuzz_target!(|bytes: &[u8]| {
    let _ = bytes;
});
