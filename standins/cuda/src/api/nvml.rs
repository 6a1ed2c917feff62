//! The functions of NVIDIA's management library that tell which GPUs there are, without the driver:
//! <https://docs.nvidia.com/deploy/nvml-api/>. They initialise nothing, and they work in the child of
//! a fork.

use crate::driver::configured_devices;
use crate::ffi::Out;
use fencepost_sim::ffi::write_text;
use std::ffi::{c_char, c_int, c_uint};

const NVML_SUCCESS: c_int = 0;
const NVML_ERROR_INVALID_ARGUMENT: c_int = 2;
const NVML_ERROR_NOT_SUPPORTED: c_int = 3;

fn result(done: Option<()>) -> c_int {
    match done {
        Some(()) => NVML_SUCCESS,
        None => NVML_ERROR_INVALID_ARGUMENT,
    }
}

/// Begins to use the library.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlInit_v2() -> c_int {
    NVML_SUCCESS
}

/// Ends it.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlShutdown() -> c_int {
    NVML_SUCCESS
}

/// The number of GPUs.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetCount_v2(count: Out<'_, c_uint>) -> c_int {
    result(
        count
            .required()
            .ok()
            .map(|count| count.put(configured_devices() as c_uint)),
    )
}

/// The handle of the GPU of this index: its index plus one.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetHandleByIndex_v2(index: c_uint, device: Out<'_, usize>) -> c_int {
    let index = index as usize;
    let place = device
        .required()
        .ok()
        .filter(|_| index < configured_devices());
    result(place.map(|place| place.put(index + 1)))
}

/// Its UUID: that of `cuDeviceGetUuid_v2`.
///
/// # Safety
/// `uuid` is null or has space for `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetUUID(
    device: usize,
    uuid: *mut c_char,
    length: c_uint,
) -> c_int {
    if uuid.is_null() || !(1..=configured_devices()).contains(&device) {
        return NVML_ERROR_INVALID_ARGUMENT;
    }
    let bytes = super::device::uuid_of(device - 1);
    let hex = |range: std::ops::Range<usize>| -> String {
        bytes[range]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    };
    let parts = [hex(0..4), hex(4..6), hex(6..8), hex(8..10), hex(10..16)];
    let text = format!("GPU-{}", parts.join("-"));
    // SAFETY: the caller vouches for the space
    unsafe { write_text(&text, uuid, length as usize) };
    NVML_SUCCESS
}

/// Whether it is split (MIG): with `FENCEPOST_SIM_CUDA_MIG=1`; otherwise it cannot be split.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetMigMode(
    device: usize,
    current: Out<'_, c_uint>,
    pending: Out<'_, c_uint>,
) -> c_int {
    if !(1..=configured_devices()).contains(&device) {
        return NVML_ERROR_INVALID_ARGUMENT;
    }
    match std::env::var_os("FENCEPOST_SIM_CUDA_MIG").is_some_and(|on| on == "1") {
        true => {
            current.put(1);
            pending.put(1);
            NVML_SUCCESS
        }
        false => NVML_ERROR_NOT_SUPPORTED,
    }
}
