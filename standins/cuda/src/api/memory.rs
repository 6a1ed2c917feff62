//! Memory: <https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__MEM.html>.

use crate::codes::{
    CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, CUresult, CudaResult,
};
use crate::cupti::{Call, Params, traced};
use crate::driver::Driver;
use crate::entry::{call, call_then};
use crate::ffi::Out;
use crate::log::LOG;
use crate::memory::MAX_SIZE;
use crate::types::{CUcontext, CUdeviceptr, CUstream};
use crate::work::Work;
use fencepost_sim::lock;
use std::ffi::{c_uchar, c_uint, c_void};
use std::sync::{Arc, Mutex};

/// Allocates device memory.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemAlloc_v2(address: Out<'_, CUdeviceptr>, len: usize) -> CUresult {
    call("cuMemAlloc_v2", |driver| {
        let address = address.required()?;
        let context = driver.current()?;
        driver.check_unsafe_call()?;
        address.put(driver.memory.allocate(len, context.id, false)?);
        Ok(())
    })
}

/// Frees device memory. As real drivers do, it first waits for all earlier work of the context.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemFree_v2(address: CUdeviceptr) -> CUresult {
    traced(Call::MemFree, &Params(address, (), ()), None, || {
        free("cuMemFree_v2", address, false)
    })
}

/// Allocates page-locked host memory.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemHostAlloc(
    pointer: Out<'_, *mut c_void>,
    len: usize,
    flags: c_uint,
) -> CUresult {
    call("cuMemHostAlloc", |driver| {
        let pointer = pointer.required()?;
        let context = driver.current()?;
        // PORTABLE, DEVICEMAP, WRITECOMBINED
        if flags & !7 != 0 {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        driver.check_unsafe_call()?;
        let address = driver.memory.allocate(len, context.id, true)?;
        pointer.put(std::ptr::with_exposed_provenance_mut(address as usize));
        Ok(())
    })
}

/// Frees page-locked host memory. As real drivers do, it first waits for all earlier work of the
/// context.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemFreeHost(pointer: *mut c_void) -> CUresult {
    traced(Call::MemFreeHost, &Params(pointer, (), ()), None, || {
        free("cuMemFreeHost", pointer.addr() as u64, true)
    })
}

fn free(name: &'static str, address: u64, host: bool) -> CUresult {
    call_then(
        name,
        |driver| {
            let context = driver.current()?;
            driver.check_unsafe_call()?;
            driver.refuse_in_any_capture_of(&context)?;
            let markers = driver.last_markers(&context, true);
            Ok((driver.memory.clone(), context, markers))
        },
        |(memory, context, markers)| {
            context.wait_all(&markers)?;
            memory.free(address, host).inspect_err(|_| {
                LOG.violation(&format!("{name}: {address:#x} is not allocated"));
            })
        },
    )
}

/// The device's address of page-locked host memory, which is the host's.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemHostGetDevicePointer_v2(
    address: Out<'_, CUdeviceptr>,
    pointer: *mut c_void,
    flags: c_uint,
) -> CUresult {
    call("cuMemHostGetDevicePointer_v2", |driver| {
        let address = address.required()?;
        driver.current()?;
        if flags != 0 || !driver.memory.is_page_locked(pointer, 1) {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        address.put(pointer.addr() as u64);
        Ok(())
    })
}

/// Copies to the host, behind all work of the legacy default stream, and blocks until that is done.
///
/// # Safety
/// `to` has space for `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoH_v2(
    to: *mut c_void,
    from: CUdeviceptr,
    len: usize,
) -> CUresult {
    let prepare = |driver: &mut Driver| {
        driver.check_unsafe_call()?;
        Ok(1)
    };
    // SAFETY: the caller vouches for it
    unsafe { download("cuMemcpyDtoH_v2", to, from, len, prepare) }
}

/// Copies to the host in a stream. If the memory is not page-locked, it blocks until that is done.
///
/// # Safety
/// `to` has space for `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoHAsync_v2(
    to: *mut c_void,
    from: CUdeviceptr,
    len: usize,
    stream: CUstream,
) -> CUresult {
    let mut locked = false;
    let queued = call("cuMemcpyDtoHAsync_v2", |driver| {
        locked = driver.memory.is_page_locked(to, len);
        if !locked {
            return Ok(());
        }
        let stream = driver.stream_key(stream)?;
        let to = to.addr() as u64;
        driver.push(stream, Work::Copy { from, to, len }).map(drop)
    });
    if locked || queued != 0 {
        return queued;
    }
    // SAFETY: the caller vouches for it
    unsafe { download("cuMemcpyDtoHAsync_v2", to, from, len, |_| Ok(stream)) }
}

/// # Safety
/// `to` has space for `len` bytes.
unsafe fn download(
    name: &'static str,
    to: *mut c_void,
    from: CUdeviceptr,
    len: usize,
    stream: impl FnOnce(&mut Driver) -> CudaResult<CUstream>,
) -> CUresult {
    call_then(
        name,
        |driver| {
            let stream = stream(driver)?;
            let stream = driver.stream_key(stream)?;
            let into = Arc::new(Mutex::new(vec![0; len]));
            let copy = Work::Download {
                from,
                into: into.clone(),
            };
            let context = driver.check_stream(stream)?;
            if driver.capture_of(stream).is_some() {
                driver.invalidate_of(stream);
                return Err(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
            }
            Ok((context, driver.push(stream, copy)?, into))
        },
        |(context, end, into)| {
            // the device never accesses the caller's memory, which may be freed once this call has
            // returned an error
            context.wait_all(end.as_slice())?;
            let bytes = lock(&into);
            // SAFETY: the caller has space for `len` bytes, which is what `bytes` holds
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to.cast(), bytes.len()) };
            Ok(())
        },
    )
}

/// Copies to the device, behind all work of the legacy default stream, and blocks until that is
/// done.
///
/// # Safety
/// `from` holds `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyHtoD_v2(
    to: CUdeviceptr,
    from: *const c_void,
    len: usize,
) -> CUresult {
    call_then(
        "cuMemcpyHtoD_v2",
        |driver| {
            driver.check_unsafe_call()?;
            let stream = driver.stream_key(1)?;
            let context = driver.check_stream(stream)?;
            // SAFETY: the caller vouches for it
            let bytes = unsafe { staged(from, len) };
            Ok((context, driver.push(stream, Work::Upload { bytes, to })?))
        },
        |(context, end)| context.wait_all(end.as_slice()),
    )
}

/// Copies to the device in a stream. Page-locked memory is read when the copy runs, other memory
/// during the call.
///
/// # Safety
/// `from` holds `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyHtoDAsync_v2(
    to: CUdeviceptr,
    from: *const c_void,
    len: usize,
    stream: CUstream,
) -> CUresult {
    call("cuMemcpyHtoDAsync_v2", |driver| {
        let stream = driver.stream_key(stream)?;
        let copy = if driver.memory.is_page_locked(from, len) {
            let from = from.addr() as u64;
            Work::Copy { from, to, len }
        } else {
            // SAFETY: the caller vouches for it
            let bytes = unsafe { staged(from, len) };
            Work::Upload { bytes, to }
        };
        driver.push(stream, copy).map(drop)
    })
}

/// Copies between the memory of two contexts in a stream.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemcpyPeerAsync(
    to: CUdeviceptr,
    to_context: CUcontext,
    from: CUdeviceptr,
    from_context: CUcontext,
    len: usize,
    stream: CUstream,
) -> CUresult {
    call("cuMemcpyPeerAsync", |driver| {
        let stream = driver.stream_key(stream)?;
        for (context, address) in [(to_context, to), (from_context, from)] {
            let context = driver.context(context)?;
            if !driver.memory.is_of(context.id, address) {
                return Err(CUDA_ERROR_INVALID_VALUE);
            }
        }
        driver.push(stream, Work::Copy { from, to, len }).map(drop)
    })
}

/// # Safety
/// `from` holds `len` bytes.
unsafe fn staged(from: *const c_void, len: usize) -> Arc<[u8]> {
    if from.is_null() || len == 0 {
        return Arc::default();
    }
    // SAFETY: the caller vouches for it
    unsafe { std::slice::from_raw_parts(from.cast(), len) }.into()
}

/// Fills memory with a byte.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemsetD8Async(
    to: CUdeviceptr,
    value: c_uchar,
    times: usize,
    stream: CUstream,
) -> CUresult {
    fill("cuMemsetD8Async", to, vec![value], times, stream)
}

/// Fills memory with a word.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemsetD32Async(
    to: CUdeviceptr,
    value: c_uint,
    times: usize,
    stream: CUstream,
) -> CUresult {
    let pattern = value.to_ne_bytes().to_vec();
    fill("cuMemsetD32Async", to, pattern, times, stream)
}

fn fill(
    name: &'static str,
    to: CUdeviceptr,
    pattern: Vec<u8>,
    times: usize,
    stream: CUstream,
) -> CUresult {
    call(name, |driver| {
        if !to.is_multiple_of(pattern.len() as u64) || times > MAX_SIZE {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        let stream = driver.stream_key(stream)?;
        let fill = Work::Fill { to, pattern, times };
        driver.push(stream, fill).map(drop)
    })
}
