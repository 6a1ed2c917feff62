//! Modules and launches: <https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__MODULE.html>,
//! <https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__EXEC.html>.

use crate::codes::{
    CUDA_ERROR_INVALID_HANDLE, CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_NOT_FOUND, CUresult,
};
use crate::cupti::{Call, Params, traced};
use crate::driver::with_driver;
use crate::entry::{call, call_then};
use crate::ffi::Out;
use crate::ffi::text;
use crate::kernel::{KernelName, Launch};
use crate::module::{Function, Module};
use crate::types::{CUfunction, CUmodule, CUstream};
use crate::work::Work;
use std::ffi::{c_char, c_uint, c_void};

/// Loads a module. The stand-in does not read the image.
#[unsafe(no_mangle)]
pub extern "C" fn cuModuleLoadData(module: Out<'_, CUmodule>, image: *const c_void) -> CUresult {
    let params = Params(module.pointer(), image, ());
    traced(Call::ModuleLoadData, &params, None, || {
        call_then(
            "cuModuleLoadData",
            |driver| {
                let module = module.required()?;
                let context = driver.current()?;
                if image.is_null() {
                    return Err(CUDA_ERROR_INVALID_VALUE);
                }
                driver.check_unsafe_call()?;
                let waits = match driver.module_waits {
                    true => driver.last_markers(&context, true),
                    false => Vec::new(),
                };
                module.put(driver.modules.insert(Module {
                    context: context.clone(),
                }));
                Ok((context, waits))
            },
            |(context, waits)| context.wait_all(&waits),
        )
    })
}

/// Unloads a module.
#[unsafe(no_mangle)]
pub extern "C" fn cuModuleUnload(module: CUmodule) -> CUresult {
    traced(Call::ModuleUnload, &Params(module, (), ()), None, || {
        call("cuModuleUnload", |driver| {
            driver.check_unsafe_call()?;
            let removed = driver
                .modules
                .remove(module, driver.recycle)
                .map_err(|why| driver.bad_handle("module", module, why))?;
            let stale: Vec<_> = driver
                .functions
                .iter()
                .filter_map(|(handle, function)| (function.module == module).then_some(handle))
                .collect();
            for function in stale {
                let _ = driver.functions.remove(function, driver.recycle);
            }
            removed.context.sticky_error.check()
        })
    })
}

/// A kernel by its name: one of those in the module `kernel`.
///
/// # Safety
/// `name` is null or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleGetFunction(
    function: Out<'_, CUfunction>,
    module: CUmodule,
    name: *const c_char,
) -> CUresult {
    call("cuModuleGetFunction", |driver| {
        let out = function.required()?;
        let of = driver
            .modules
            .get(module)
            .map_err(|why| driver.bad_handle("module", module, why))?;
        of.context.sticky_error.check()?;
        // SAFETY: the caller vouches for it
        let name = unsafe { text(name) }?;
        let name = KernelName::of(&name).ok_or(CUDA_ERROR_NOT_FOUND)?;
        out.put(driver.functions.insert(Function { module, name }));
        Ok(())
    })
}

/// Launches a kernel. The stand-in runs it once, whatever the size of the grid.
///
/// # Safety
/// `parameters` holds a pointer to an argument for each parameter of the kernel.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLaunchKernel(
    function: CUfunction,
    grid_x: c_uint,
    grid_y: c_uint,
    grid_z: c_uint,
    block_x: c_uint,
    block_y: c_uint,
    block_z: c_uint,
    shared_bytes: c_uint,
    stream: CUstream,
    parameters: *mut *mut c_void,
    extra: *mut *mut c_void,
) -> CUresult {
    let sizes = [
        grid_x,
        grid_y,
        grid_z,
        block_x,
        block_y,
        block_z,
        shared_bytes,
    ];
    let symbol = with_driver(|driver| driver.functions.get(function).ok().map(|f| f.name.symbol()));
    let symbol = symbol.ok().flatten();
    traced(
        Call::LaunchKernel,
        &Params(function, sizes, stream),
        symbol,
        || {
            call("cuLaunchKernel", |driver| {
                let function = driver
                    .functions
                    .get(function)
                    .map_err(|why| driver.bad_handle("function", function, why))?
                    .clone();
                let sizes = [grid_x, grid_y, grid_z, block_x, block_y, block_z];
                let threads = [block_x, block_y, block_z].map(u64::from);
                let threads = threads.into_iter().fold(1, u64::saturating_mul);
                if sizes.contains(&0) || threads > 1024 || !extra.is_null() {
                    return Err(CUDA_ERROR_INVALID_VALUE);
                }
                let stream = driver.stream_key(stream)?;
                let context = driver.stream_ref(stream)?.context.id;
                let module = driver
                    .modules
                    .get(function.module)
                    .map_err(|why| driver.bad_handle("module", function.module, why))?;
                if module.context.id != context {
                    return Err(CUDA_ERROR_INVALID_HANDLE);
                }
                let sizes = function.name.parameters();
                if parameters.is_null() && !sizes.is_empty() {
                    return Err(CUDA_ERROR_INVALID_VALUE);
                }
                // SAFETY: the caller vouches for it, and the pointer is not null where there are
                // parameters
                let arguments = unsafe { arguments(parameters, sizes) };
                let launch = Launch {
                    name: function.name,
                    arguments,
                };
                driver.push(stream, Work::Kernel(launch)).map(drop)
            })
        },
    )
}

/// # Safety
/// `parameters` holds a pointer to an argument of each of the sizes.
unsafe fn arguments(parameters: *mut *mut c_void, sizes: &[usize]) -> Vec<u64> {
    let argument = |(index, size): (usize, &usize)| {
        // SAFETY: there are as many pointers as sizes
        let argument = unsafe { *parameters.add(index) };
        // SAFETY: each points to an argument of its size, aligned or not
        unsafe {
            match size {
                4 => argument.cast::<u32>().read_unaligned().into(),
                _ => argument.cast::<u64>().read_unaligned(),
            }
        }
    };
    sizes.iter().enumerate().map(argument).collect()
}
