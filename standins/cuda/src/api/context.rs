//! Contexts: <https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__PRIMARY__CTX.html>,
//! <https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__CTX.html>.

use crate::codes::{
    CUDA_ERROR_CONTEXT_IS_DESTROYED, CUDA_ERROR_INVALID_CONTEXT, CUDA_ERROR_OUT_OF_MEMORY,
    CUresult, CudaResult,
};
use crate::context::{Context, current_handle, stack};
use crate::cupti::{Call, Params, traced};
use crate::driver::Driver;
use crate::entry::{call, call_then};
use crate::ffi::Out;
use crate::log::LOG;
use crate::marker::Marker;
use crate::types::{CUcontext, CUdevice};
use fencepost_sim::{Config, drift_of, offset_of};
use std::ffi::{c_int, c_uint};
use std::sync::Arc;

impl Driver {
    /// The calling thread's current context, if it has no sticky error.
    pub(crate) fn current(&self) -> CudaResult<Arc<Context>> {
        let context = self
            .contexts
            .get(current_handle())
            .map_err(|_| CUDA_ERROR_INVALID_CONTEXT)?;
        context.sticky_error.check()?;
        Ok(context.clone())
    }

    pub(crate) fn context(&self, handle: CUcontext) -> CudaResult<Arc<Context>> {
        self.contexts
            .get(handle)
            .cloned()
            .map_err(|why| self.bad_handle("context", handle, why))
    }

    pub(crate) fn handle_of(&self, context: &Context) -> CudaResult<CUcontext> {
        self.contexts
            .iter()
            .find_map(|(handle, other)| (other.id == context.id).then_some(handle))
            .ok_or(CUDA_ERROR_CONTEXT_IS_DESTROYED)
    }

    fn new_context(&mut self, gpu: usize) -> CudaResult<Arc<Context>> {
        if let Some(code) = self.gpus.get(gpu).and_then(|gpu| gpu.lost) {
            return Err(code);
        }
        let config = Config {
            drift_ppm: drift_of(self.drift, gpu),
            initial_tick: self.config.initial_tick + offset_of(gpu),
            ..self.config.clone()
        };
        let device = self
            .root
            .another(config)
            .map_err(|_| CUDA_ERROR_OUT_OF_MEMORY)?;
        Ok(Context::new(self.new_id(), gpu, device))
    }

    fn primary(&self, device: CUdevice) -> Option<&Arc<Context>> {
        let gpu = self.gpus.get(usize::try_from(device).ok()?)?;
        self.contexts.get(gpu.primary?).ok()
    }

    fn retain(&mut self, device: CUdevice) -> CudaResult<CUcontext> {
        if let Some(code) = self.gpu(device)?.lost {
            return Err(code);
        }
        let handle = match self.gpu(device)?.primary {
            Some(handle) => {
                if self.context(handle)?.destroyed() {
                    let context = self.new_context(device as usize)?;
                    if let Ok(place) = self.contexts.get_mut(handle) {
                        *place = context;
                    }
                }
                handle
            }
            None => {
                let context = self.new_context(device as usize)?;
                let handle = self.contexts.insert(context);
                self.gpu(device)?.primary = Some(handle);
                handle
            }
        };
        self.gpu(device)?.retains += 1;
        Ok(handle)
    }

    pub(crate) fn reset_primary(&mut self, device: CUdevice) -> CudaResult {
        self.gpu(device)?;
        if let Some(context) = self.primary(device).cloned() {
            self.destroy_context(&context);
        }
        Ok(())
    }

    /// Destroys a context. Its objects stay in their tables, since code that does not know of the
    /// reset still destroys them by their handles.
    fn destroy_context(&mut self, context: &Context) {
        context.end(CUDA_ERROR_CONTEXT_IS_DESTROYED);
        self.memory.free_all(context.id);
        let (streams, recycle) = (&mut self.streams, self.recycle);
        self.defaults.retain(|(of, _), stream| {
            if *of == context.id {
                let _ = streams.remove(*stream, recycle);
            }
            *of != context.id
        });
    }

    /// The last markers of the streams of a context: of all, or of the blocking ones.
    pub(crate) fn last_markers(&self, context: &Context, all: bool) -> Vec<Arc<Marker>> {
        self.streams
            .iter()
            .filter(|(_, stream)| stream.context.id == context.id && (all || stream.is_blocking()))
            .filter_map(|(_, stream)| stream.last.clone())
            .chain(context.destroyed_streams(all))
            .filter(|marker| !marker.settled())
            .collect()
    }
}

/// Retains the primary context, and creates it if it is not active.
#[unsafe(no_mangle)]
pub extern "C" fn cuDevicePrimaryCtxRetain(
    context: Out<'_, CUcontext>,
    device: CUdevice,
) -> CUresult {
    call("cuDevicePrimaryCtxRetain", |driver| {
        let context = context.required()?;
        context.put(driver.retain(device)?);
        Ok(())
    })
}

/// Releases the primary context. The last release destroys it.
#[unsafe(no_mangle)]
pub extern "C" fn cuDevicePrimaryCtxRelease_v2(device: CUdevice) -> CUresult {
    call("cuDevicePrimaryCtxRelease_v2", |driver| {
        let gpu = driver.gpu(device)?;
        if gpu.retains == 0 {
            LOG.violation("cuDevicePrimaryCtxRelease_v2: the context is not retained");
            return Err(CUDA_ERROR_INVALID_CONTEXT);
        }
        gpu.retains -= 1;
        if gpu.retains == 0 {
            driver.reset_primary(device)?;
        }
        Ok(())
    })
}

/// The primary context's flags, and whether it is active.
#[unsafe(no_mangle)]
pub extern "C" fn cuDevicePrimaryCtxGetState(
    device: CUdevice,
    flags: Out<'_, c_uint>,
    active: Out<'_, c_int>,
) -> CUresult {
    call("cuDevicePrimaryCtxGetState", |driver| {
        let (flags, active) = (flags.required()?, active.required()?);
        driver.gpu(device)?;
        flags.put(0);
        active.put(
            driver
                .primary(device)
                .is_some_and(|c| !c.destroyed())
                .into(),
        );
        Ok(())
    })
}

/// Destroys all objects of the primary context, and its sticky error. Its retain count does not
/// change.
#[unsafe(no_mangle)]
pub extern "C" fn cuDevicePrimaryCtxReset_v2(device: CUdevice) -> CUresult {
    call("cuDevicePrimaryCtxReset_v2", |driver| {
        driver.reset_primary(device)
    })
}

/// Creates a context that is not the primary one, and makes it current.
#[unsafe(no_mangle)]
pub extern "C" fn cuCtxCreate_v2(
    context: Out<'_, CUcontext>,
    _flags: c_uint,
    device: CUdevice,
) -> CUresult {
    call("cuCtxCreate_v2", |driver| {
        let out = context.required()?;
        driver.gpu(device)?;
        let context = driver.new_context(device as usize)?;
        let handle = driver.contexts.insert(context);
        stack(|stack| stack.push(handle))?;
        out.put(handle);
        Ok(())
    })
}

/// Destroys a context that is not the primary one, with its objects.
#[unsafe(no_mangle)]
pub extern "C" fn cuCtxDestroy_v2(context: CUcontext) -> CUresult {
    call("cuCtxDestroy_v2", |driver| {
        if driver.gpus.iter().any(|gpu| gpu.primary == Some(context)) {
            return Err(CUDA_ERROR_INVALID_CONTEXT);
        }
        let removed = driver
            .contexts
            .remove(context, driver.recycle)
            .map_err(|why| driver.bad_handle("context", context, why))?;
        driver.destroy_context(&removed);
        stack(|stack| {
            if stack.last() == Some(&context) {
                stack.pop();
            }
        })
    })
}

/// The calling thread's current context, or null.
#[unsafe(no_mangle)]
pub extern "C" fn cuCtxGetCurrent(context: Out<'_, CUcontext>) -> CUresult {
    call("cuCtxGetCurrent", |_| {
        context.required()?.put(current_handle());
        Ok(())
    })
}

/// Replaces the current context. Null removes it.
#[unsafe(no_mangle)]
pub extern "C" fn cuCtxSetCurrent(context: CUcontext) -> CUresult {
    call("cuCtxSetCurrent", |driver| {
        // a primary context that was reset may become current: later calls return the error
        if context != 0 {
            driver.context(context)?;
        }
        stack(|stack| {
            stack.pop();
            if context != 0 {
                stack.push(context);
            }
        })
    })
}

/// Pushes a context on the stack and makes it current.
#[unsafe(no_mangle)]
pub extern "C" fn cuCtxPushCurrent_v2(context: CUcontext) -> CUresult {
    call("cuCtxPushCurrent_v2", |driver| {
        if driver.context(context)?.destroyed() {
            return Err(CUDA_ERROR_CONTEXT_IS_DESTROYED);
        }
        stack(|stack| stack.push(context))
    })
}

/// Pops the current context from the stack.
#[unsafe(no_mangle)]
pub extern "C" fn cuCtxPopCurrent_v2(context: Out<'_, CUcontext>) -> CUresult {
    call("cuCtxPopCurrent_v2", |_| {
        let popped = stack(Vec::pop)?.ok_or(CUDA_ERROR_INVALID_CONTEXT)?;
        context.put(popped);
        Ok(())
    })
}

/// The current context's device.
#[unsafe(no_mangle)]
pub extern "C" fn cuCtxGetDevice(device: Out<'_, CUdevice>) -> CUresult {
    call("cuCtxGetDevice", |driver| {
        let device = device.required()?;
        device.put(driver.current()?.gpu as CUdevice);
        Ok(())
    })
}

/// The id of a context, which no other context of this process ever has. Null stands for the
/// current context.
#[unsafe(no_mangle)]
pub extern "C" fn cuCtxGetId(context: CUcontext, id: Out<'_, u64>) -> CUresult {
    call("cuCtxGetId", |driver| {
        let id = id.required()?;
        let context = match context {
            0 => driver.current()?,
            handle => driver.context(handle)?,
        };
        if context.destroyed() {
            return Err(CUDA_ERROR_CONTEXT_IS_DESTROYED);
        }
        id.put(context.id);
        Ok(())
    })
}

/// Blocks until all work of the current context is complete.
#[unsafe(no_mangle)]
pub extern "C" fn cuCtxSynchronize() -> CUresult {
    traced(Call::CtxSynchronize, &Params((), (), ()), None, || {
        call_then(
            "cuCtxSynchronize",
            |driver| {
                let context = driver.current()?;
                driver.refuse_in_any_capture_of(&context)?;
                driver.check_unsafe_call()?;
                let markers = driver.last_markers(&context, true);
                Ok((context, markers))
            },
            |(context, markers)| context.wait_all(&markers),
        )
    })
}
