//! Waits for words in memory, writes to them, and host functions:
//! <https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__MEMOP.html>,
//! <https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__EXEC.html>.

use crate::codes::{CUDA_ERROR_ILLEGAL_ADDRESS, CUDA_ERROR_INVALID_VALUE, CUresult, CudaResult};
use crate::cupti::{Call, Params, traced};
use crate::driver::Driver;
use crate::entry::call;
use crate::memory::Span;
use crate::types::{CUdeviceptr, CUstream};
use crate::work::{Compare, HostFunction, Work};
use std::ffi::{c_uint, c_void};

impl Driver {
    fn word(&self, address: CUdeviceptr) -> CudaResult<Span> {
        if !address.is_multiple_of(4) {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        self.memory.span(address, 4).map_err(|code| match code {
            CUDA_ERROR_ILLEGAL_ADDRESS => CUDA_ERROR_INVALID_VALUE,
            code => code,
        })
    }
}

/// Makes later work of the stream wait until a word satisfies a comparison.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamWaitValue32_v2(
    stream: CUstream,
    address: CUdeviceptr,
    value: u32,
    flags: c_uint,
) -> CUresult {
    let params = Params(stream, address, [value, flags]);
    traced(Call::StreamWaitValue32, &params, None, || {
        call("cuStreamWaitValue32_v2", |driver| {
            // CU_STREAM_WAIT_VALUE_FLUSH changes nothing here
            let compare = match flags & !(1 << 30) {
                0 => Compare::Geq,
                1 => Compare::Eq,
                2 => Compare::And,
                3 => Compare::Nor,
                _ => return Err(CUDA_ERROR_INVALID_VALUE),
            };
            let stream = driver.stream_key(stream)?;
            let wait = Work::Wait {
                word: driver.word(address)?,
                value,
                compare,
            };
            driver.push(stream, wait).map(drop)
        })
    })
}

/// Writes a word once earlier work of the stream is complete.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamWriteValue32_v2(
    stream: CUstream,
    address: CUdeviceptr,
    value: u32,
    flags: c_uint,
) -> CUresult {
    let params = Params(stream, address, [value, flags]);
    traced(Call::StreamWriteValue32, &params, None, || {
        call("cuStreamWriteValue32_v2", |driver| {
            // CU_STREAM_WRITE_VALUE_NO_MEMORY_BARRIER changes nothing here
            if flags & !1 != 0 {
                return Err(CUDA_ERROR_INVALID_VALUE);
            }
            let stream = driver.stream_key(stream)?;
            let word = driver.word(address)?;
            driver.push(stream, Work::Write { word, value }).map(drop)
        })
    })
}

/// Calls a function on a thread of the driver once earlier work of the stream is complete. The
/// function is not called once the context has failed.
///
/// # Safety
/// `function` may be called with `data` then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLaunchHostFunc(
    stream: CUstream,
    function: Option<unsafe extern "C" fn(*mut c_void)>,
    data: *mut c_void,
) -> CUresult {
    traced(
        Call::LaunchHostFunc,
        &Params(stream, function, data),
        None,
        || {
            call("cuLaunchHostFunc", |driver| {
                let call = function.ok_or(CUDA_ERROR_INVALID_VALUE)?;
                let stream = driver.stream_key(stream)?;
                let function = HostFunction { call, data };
                driver.push(stream, Work::Host(function)).map(drop)
            })
        },
    )
}
