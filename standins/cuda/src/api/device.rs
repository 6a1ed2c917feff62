//! Devices: <https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__DEVICE.html>.

use super::cupti::inject;
use crate::codes::{
    CUDA_ERROR_INVALID_DEVICE, CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_NO_DEVICE, CUresult, CudaResult,
};
use crate::context::Gpu;
use crate::driver::Driver;
use crate::driver::with_driver;
use crate::entry::{INITIALIZED, call, call_unlocked};
use crate::ffi::Out;
use crate::types::{CUdevice, CUuuid};
use fencepost_sim::ffi::write_text;
use std::ffi::{c_char, c_int, c_uint};
use std::sync::atomic::Ordering;

/// The name of every device.
pub const NAME: &str = "fencepost stand-in (no NVIDIA hardware)";

impl Driver {
    pub(crate) fn gpu(&mut self, device: CUdevice) -> CudaResult<&mut Gpu> {
        let index = usize::try_from(device).map_err(|_| CUDA_ERROR_INVALID_DEVICE)?;
        self.gpus.get_mut(index).ok_or(CUDA_ERROR_INVALID_DEVICE)
    }
}

/// The UUID of the device of this index.
pub(super) fn uuid_of(index: usize) -> [u8; 16] {
    let mut bytes = *b"fencepost-sim\0\0\0";
    bytes[15] = index as u8;
    bytes
}

/// Initializes the driver.
#[unsafe(no_mangle)]
pub extern "C" fn cuInit(flags: c_uint) -> CUresult {
    call_unlocked("cuInit", || {
        if flags != 0 {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        if with_driver(|driver| driver.gpus.is_empty())? {
            return Err(CUDA_ERROR_NO_DEVICE);
        }
        // the driver is not initialized yet when the injected library is called
        inject();
        INITIALIZED.store(true, Ordering::SeqCst);
        Ok(())
    })
}

/// The version of CUDA: 13.0.
#[unsafe(no_mangle)]
pub extern "C" fn cuDriverGetVersion(version: Out<'_, c_int>) -> CUresult {
    call_unlocked("cuDriverGetVersion", || {
        version.required()?.put(13000);
        Ok(())
    })
}

/// The number of devices.
#[unsafe(no_mangle)]
pub extern "C" fn cuDeviceGetCount(count: Out<'_, c_int>) -> CUresult {
    call("cuDeviceGetCount", |driver| {
        count.required()?.put(driver.gpus.len() as c_int);
        Ok(())
    })
}

/// The device with this ordinal.
#[unsafe(no_mangle)]
pub extern "C" fn cuDeviceGet(device: Out<'_, CUdevice>, ordinal: c_int) -> CUresult {
    call("cuDeviceGet", |driver| {
        let device = device.required()?;
        driver.gpu(ordinal)?;
        device.put(ordinal);
        Ok(())
    })
}

/// The device's name, which says that it is a stand-in.
///
/// # Safety
/// `name` is null or has space for `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetName(
    name: *mut c_char,
    len: c_int,
    device: CUdevice,
) -> CUresult {
    call("cuDeviceGetName", |driver| {
        driver.gpu(device)?;
        let size = usize::try_from(len).unwrap_or(0);
        if name.is_null() || size == 0 {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        // SAFETY: `len` is the maximum length of the string to store in `name`
        unsafe { write_text(NAME, name, size) };
        Ok(())
    })
}

/// An attribute of the device. Those that the stand-in does not model are 0.
#[unsafe(no_mangle)]
pub extern "C" fn cuDeviceGetAttribute(
    value: Out<'_, c_int>,
    attribute: c_int,
    device: CUdevice,
) -> CUresult {
    call("cuDeviceGetAttribute", |driver| {
        let value = value.required()?;
        driver.gpu(device)?;
        value.put(match attribute {
            ..1 => return Err(CUDA_ERROR_INVALID_VALUE),
            // MAX_THREADS_PER_BLOCK and MAX_BLOCK_DIM_*
            1..=4 => 1024,
            // MAX_GRID_DIM_*
            5..=7 => 65535,
            // WARP_SIZE
            10 => 32,
            // MULTIPROCESSOR_COUNT
            16 => 4,
            // L2_CACHE_SIZE
            38 => 1 << 20,
            // CAN_MAP_HOST_MEMORY, CONCURRENT_KERNELS, ASYNC_ENGINE_COUNT, UNIFIED_ADDRESSING,
            // STREAM_PRIORITIES_SUPPORTED
            19 | 31 | 40 | 41 | 78 => 1,
            // PCI_BUS_ID
            33 => device + 1,
            // COMPUTE_CAPABILITY_MAJOR
            75 => 9,
            // CAN_USE_STREAM_MEM_OPS_V1, CAN_USE_STREAM_WAIT_VALUE_NOR (it has two numbers)
            92 | 94 | 123 => 1,
            // IPC_EVENT_SUPPORTED
            125 => driver.ipc_events.into(),
            _ => 0,
        });
        Ok(())
    })
}

/// Bytes that begin with `fencepost-sim` and end with the device's ordinal.
#[unsafe(no_mangle)]
pub extern "C" fn cuDeviceGetUuid_v2(uuid: Out<'_, CUuuid>, device: CUdevice) -> CUresult {
    call("cuDeviceGetUuid_v2", |driver| {
        let uuid = uuid.required()?;
        driver.gpu(device)?;
        uuid.put(CUuuid {
            bytes: uuid_of(device as usize),
        });
        Ok(())
    })
}
