//! Names of errors: <https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__ERROR.html>.

use crate::boundary::Out;
use crate::codes::{CUDA_ERROR_INVALID_VALUE, CUresult, describe};
use crate::entry::plain;
use std::ffi::c_char;

/// An error's name.
#[unsafe(no_mangle)]
pub extern "C" fn cuGetErrorName(error: CUresult, name: Out<'_, *const c_char>) -> CUresult {
    plain("cuGetErrorName", || tell(error, name, |(name, _)| name))
}

/// An error's meaning.
#[unsafe(no_mangle)]
pub extern "C" fn cuGetErrorString(error: CUresult, text: Out<'_, *const c_char>) -> CUresult {
    plain("cuGetErrorString", || tell(error, text, |(_, text)| text))
}

fn tell(
    error: CUresult,
    out: Out<'_, *const c_char>,
    which: impl FnOnce((&'static str, &'static str)) -> &'static str,
) -> Result<(), CUresult> {
    let out = out.needed()?;
    let known = describe(error).map(which);
    out.put(known.map_or(std::ptr::null(), |text| text.as_ptr().cast()));
    known.map(drop).ok_or(CUDA_ERROR_INVALID_VALUE)
}
