//! Names of errors: <https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__ERROR.html>.

use crate::codes::describe;
use crate::codes::{CUDA_ERROR_INVALID_VALUE, CUresult, CudaResult};
use crate::entry::call_unlocked;
use crate::ffi::Out;
use std::ffi::c_char;

/// The name of an error.
#[unsafe(no_mangle)]
pub extern "C" fn cuGetErrorName(error: CUresult, name: Out<'_, *const c_char>) -> CUresult {
    call_unlocked("cuGetErrorName", || {
        describe_to(error, name, |(name, _)| name)
    })
}

/// The meaning of an error.
#[unsafe(no_mangle)]
pub extern "C" fn cuGetErrorString(error: CUresult, text: Out<'_, *const c_char>) -> CUresult {
    call_unlocked("cuGetErrorString", || {
        describe_to(error, text, |(_, text)| text)
    })
}

fn describe_to(
    error: CUresult,
    out: Out<'_, *const c_char>,
    which: impl FnOnce((&'static str, &'static str)) -> &'static str,
) -> CudaResult {
    let out = out.required()?;
    let known = describe(error).map(which);
    out.put(known.map_or(std::ptr::null(), |text| text.as_ptr().cast()));
    known.map(drop).ok_or(CUDA_ERROR_INVALID_VALUE)
}
