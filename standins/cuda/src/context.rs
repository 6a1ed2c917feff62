//! Devices and contexts: <https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__DEVICE.html>,
//! <https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__PRIMARY__CTX.html>,
//! <https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__CTX.html>.

use crate::boundary::{Out, put_text};
use crate::codes::{
    CUDA_ERROR_CONTEXT_IS_DESTROYED, CUDA_ERROR_INVALID_CONTEXT, CUDA_ERROR_INVALID_DEVICE,
    CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_LAUNCH_FAILED, CUDA_ERROR_NO_DEVICE,
    CUDA_ERROR_OUT_OF_MEMORY, CUresult, Done,
};
use crate::control;
use crate::entry::{INITIALISED, call, call_then, plain, with_face};
use crate::face::Face;
use crate::work::{Point, wait_all};
use fencepost_sim::{Error, SimDevice};
use std::cell::RefCell;
use std::ffi::{c_char, c_int, c_uint};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A key, never a pointer.
pub type CUcontext = usize;
/// A device's number.
pub type CUdevice = c_int;

/// What every device's name is.
pub const NAME: &str = "fencepost stand-in (no NVIDIA hardware)";

/// The first error of a context, which every later call on it returns.
#[derive(Debug, Default)]
pub(crate) struct Trouble(AtomicU32);

impl Trouble {
    pub(crate) fn code(&self) -> CUresult {
        self.0.load(Ordering::SeqCst)
    }

    pub(crate) fn check(&self) -> Done {
        match self.code() {
            0 => Ok(()),
            code => Err(code),
        }
    }
}

/// A context is one simulated device: resetting it makes another, and the error that stuck to it is
/// gone.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) id: u64,
    pub(crate) gpu: usize,
    pub(crate) device: SimDevice,
    pub(crate) trouble: Arc<Trouble>,
    /// The ends of destroyed streams, and whether those were blocking streams: their work runs on.
    pub(crate) orphans: Mutex<Vec<(bool, Arc<Point>)>>,
}

impl Context {
    pub(crate) fn destroyed(&self) -> bool {
        self.trouble.code() == CUDA_ERROR_CONTEXT_IS_DESTROYED
    }

    /// An error that sticks: all pending work of the context is given up.
    pub(crate) fn fail(&self, code: CUresult, why: &str) {
        let first = self
            .trouble
            .0
            .compare_exchange(0, code, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok();
        if first {
            control::note(&format!("context {} fails with {code}: {why}", self.id));
        }
        self.device.lose(why);
    }

    fn destroy(&self) {
        self.end(CUDA_ERROR_CONTEXT_IS_DESTROYED);
    }

    /// Every later call, and every wait under way, gets this error.
    pub(crate) fn end(&self, code: CUresult) {
        self.trouble.0.store(code, Ordering::SeqCst);
        self.device.lose("the context is gone");
    }

    pub(crate) fn adopt(&self, blocking: bool, end: Arc<Point>) {
        let mut orphans = self.orphans.lock().unwrap_or_else(PoisonError::into_inner);
        orphans.retain(|(_, point)| !point.settled());
        orphans.push((blocking, end));
    }

    fn orphans(&self, all: bool) -> Vec<Arc<Point>> {
        let orphans = self.orphans.lock().unwrap_or_else(PoisonError::into_inner);
        orphans
            .iter()
            .filter(|(blocking, _)| all || *blocking)
            .map(|(_, point)| point.clone())
            .collect()
    }

    /// What a refusal by the simulated device means here.
    pub(crate) fn code_of(&self, error: &Error) -> CUresult {
        match (self.trouble.code(), error) {
            (0, Error::OutOfMemory) => CUDA_ERROR_OUT_OF_MEMORY,
            (0, _) => CUDA_ERROR_LAUNCH_FAILED,
            (code, _) => code,
        }
    }
}

/// One GPU and its primary context.
#[derive(Debug, Default)]
pub(crate) struct Gpu {
    /// The same for life: a reset changes what it names, not the handle.
    primary: Option<usize>,
    pub(crate) retains: u32,
    pub(crate) lost: Option<CUresult>,
    /// Launches that are to fail: how many more there are until then, and how.
    pub(crate) bad_launches: Vec<(u64, CUresult)>,
}

thread_local! {
    static STACK: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

fn stack<R>(body: impl FnOnce(&mut Vec<usize>) -> R) -> Done<R> {
    // a thread that is ending has no current context any more
    STACK
        .try_with(|stack| body(&mut stack.borrow_mut()))
        .map_err(|_| CUDA_ERROR_INVALID_CONTEXT)
}

fn current_handle() -> usize {
    stack(|stack| stack.last().copied().unwrap_or(0)).unwrap_or(0)
}

impl Face {
    pub(crate) fn gpu(&mut self, device: CUdevice) -> Done<&mut Gpu> {
        let index = usize::try_from(device).map_err(|_| CUDA_ERROR_INVALID_DEVICE)?;
        self.gpus.get_mut(index).ok_or(CUDA_ERROR_INVALID_DEVICE)
    }

    /// The calling thread's current context, in good health.
    pub(crate) fn current(&self) -> Done<Arc<Context>> {
        let context = self
            .contexts
            .get(current_handle())
            .map_err(|_| CUDA_ERROR_INVALID_CONTEXT)?;
        context.trouble.check()?;
        Ok(context.clone())
    }

    pub(crate) fn context(&self, handle: CUcontext) -> Done<Arc<Context>> {
        self.contexts
            .get(handle)
            .cloned()
            .map_err(|missing| self.misused("context", handle, missing))
    }

    pub(crate) fn handle_of(&self, context: &Context) -> Done<CUcontext> {
        self.contexts
            .iter()
            .find_map(|(handle, other)| (other.id == context.id).then_some(handle))
            .ok_or(CUDA_ERROR_CONTEXT_IS_DESTROYED)
    }

    fn new_context(&mut self, gpu: usize) -> Done<Arc<Context>> {
        if let Some(code) = self.gpus.get(gpu).and_then(|gpu| gpu.lost) {
            return Err(code);
        }
        let device = self
            .root
            .another(self.config.clone())
            .map_err(|_| CUDA_ERROR_OUT_OF_MEMORY)?;
        Ok(Arc::new(Context {
            id: self.new_id(),
            gpu,
            device,
            trouble: Arc::default(),
            orphans: Mutex::default(),
        }))
    }

    fn primary(&self, device: CUdevice) -> Option<&Arc<Context>> {
        let gpu = self.gpus.get(usize::try_from(device).ok()?)?;
        self.contexts.get(gpu.primary?).ok()
    }

    fn retain(&mut self, device: CUdevice) -> Done<CUcontext> {
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

    pub(crate) fn reset_primary(&mut self, device: CUdevice) -> Done {
        self.gpu(device)?;
        if let Some(context) = self.primary(device).cloned() {
            self.forget(&context);
        }
        Ok(())
    }

    /// Its objects stay in their tables until they are destroyed by name: code that did not see the
    /// reset coming will still do so.
    fn forget(&mut self, context: &Context) {
        context.destroy();
        self.memory.forget(context.id);
        let recycle = self.recycle;
        let (streams, id) = (&mut self.streams, context.id);
        self.defaults.retain(|(of, _), stream| {
            if *of == id {
                // the next machine makes its own
                let _ = streams.remove(*stream, recycle);
            }
            *of != id
        });
    }

    /// The points that the work submitted to a context so far ends at.
    pub(crate) fn ends_of(&self, context: &Context, all: bool) -> Vec<Arc<Point>> {
        self.streams
            .iter()
            .filter(|(_, stream)| {
                stream.context.id == context.id && (all || stream.blocks_legacy())
            })
            .filter_map(|(_, stream)| stream.last.clone())
            .chain(context.orphans(all))
            .filter(|point| !point.settled())
            .collect()
    }
}

/// Makes the driver usable.
#[unsafe(no_mangle)]
pub extern "C" fn cuInit(flags: c_uint) -> CUresult {
    plain("cuInit", || {
        if flags != 0 {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        if with_face(|face| face.gpus.is_empty())? {
            return Err(CUDA_ERROR_NO_DEVICE);
        }
        INITIALISED.store(true, Ordering::SeqCst);
        Ok(())
    })
}

/// The version of CUDA: 13.0.
#[unsafe(no_mangle)]
pub extern "C" fn cuDriverGetVersion(version: Out<'_, c_int>) -> CUresult {
    plain("cuDriverGetVersion", || {
        version.needed()?.put(13000);
        Ok(())
    })
}

/// How many devices there are.
#[unsafe(no_mangle)]
pub extern "C" fn cuDeviceGetCount(count: Out<'_, c_int>) -> CUresult {
    call("cuDeviceGetCount", |face| {
        count.needed()?.put(face.gpus.len() as c_int);
        Ok(())
    })
}

/// The device with this number.
#[unsafe(no_mangle)]
pub extern "C" fn cuDeviceGet(device: Out<'_, CUdevice>, ordinal: c_int) -> CUresult {
    call("cuDeviceGet", |face| {
        let device = device.needed()?;
        face.gpu(ordinal)?;
        device.put(ordinal);
        Ok(())
    })
}

/// The device's name, which says what it is.
///
/// # Safety
/// `name` is null or has room for `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetName(
    name: *mut c_char,
    len: c_int,
    device: CUdevice,
) -> CUresult {
    call("cuDeviceGetName", |face| {
        face.gpu(device)?;
        let room = usize::try_from(len).unwrap_or(0);
        if name.is_null() || room == 0 {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        // SAFETY: `len` is the maximum length of the string to store in `name`
        unsafe { put_text(NAME, name, room) };
        Ok(())
    })
}

/// One of the device's attributes; those that mean nothing here are 0.
#[unsafe(no_mangle)]
pub extern "C" fn cuDeviceGetAttribute(
    value: Out<'_, c_int>,
    attribute: c_int,
    device: CUdevice,
) -> CUresult {
    call("cuDeviceGetAttribute", |face| {
        let value = value.needed()?;
        face.gpu(device)?;
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
            // CAN_MAP_HOST_MEMORY, CONCURRENT_KERNELS, ASYNC_ENGINE_COUNT, UNIFIED_ADDRESSING,
            // STREAM_PRIORITIES_SUPPORTED
            19 | 31 | 40 | 41 | 78 => 1,
            // PCI_BUS_ID
            33 => device + 1,
            // COMPUTE_CAPABILITY_MAJOR
            75 => 9,
            // CAN_USE_STREAM_MEM_OPS_V1, CAN_USE_STREAM_WAIT_VALUE_NOR (both numbers),
            // IPC_EVENT_SUPPORTED
            92 | 94 | 123 | 125 => 1,
            _ => 0,
        });
        Ok(())
    })
}

/// Sixteen bytes that name a device.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CUuuid {
    /// The bytes.
    pub bytes: [u8; 16],
}

/// Bytes that begin with `fencepost-sim` and end with the device's number.
#[unsafe(no_mangle)]
pub extern "C" fn cuDeviceGetUuid_v2(uuid: Out<'_, CUuuid>, device: CUdevice) -> CUresult {
    call("cuDeviceGetUuid_v2", |face| {
        let uuid = uuid.needed()?;
        face.gpu(device)?;
        let mut bytes = *b"fencepost-sim\0\0\0";
        bytes[15] = device as u8;
        uuid.put(CUuuid { bytes });
        Ok(())
    })
}

/// Retains the primary context, making it if need be.
#[unsafe(no_mangle)]
pub extern "C" fn cuDevicePrimaryCtxRetain(
    context: Out<'_, CUcontext>,
    device: CUdevice,
) -> CUresult {
    call("cuDevicePrimaryCtxRetain", |face| {
        let context = context.needed()?;
        context.put(face.retain(device)?);
        Ok(())
    })
}

/// Releases the primary context; the last release destroys it.
#[unsafe(no_mangle)]
pub extern "C" fn cuDevicePrimaryCtxRelease_v2(device: CUdevice) -> CUresult {
    call("cuDevicePrimaryCtxRelease_v2", |face| {
        let gpu = face.gpu(device)?;
        if gpu.retains == 0 {
            control::violation("cuDevicePrimaryCtxRelease_v2: the context is not retained");
            return Err(CUDA_ERROR_INVALID_CONTEXT);
        }
        gpu.retains -= 1;
        if gpu.retains == 0 {
            face.reset_primary(device)?;
        }
        Ok(())
    })
}

/// The primary context's flags, and whether it is there.
#[unsafe(no_mangle)]
pub extern "C" fn cuDevicePrimaryCtxGetState(
    device: CUdevice,
    flags: Out<'_, c_uint>,
    active: Out<'_, c_int>,
) -> CUresult {
    call("cuDevicePrimaryCtxGetState", |face| {
        let (flags, active) = (flags.needed()?, active.needed()?);
        face.gpu(device)?;
        flags.put(0);
        active.put(face.primary(device).is_some_and(|c| !c.destroyed()).into());
        Ok(())
    })
}

/// Destroys everything in the primary context, and the error that sticks to it. Its retain count
/// stays.
#[unsafe(no_mangle)]
pub extern "C" fn cuDevicePrimaryCtxReset_v2(device: CUdevice) -> CUresult {
    call("cuDevicePrimaryCtxReset_v2", |face| {
        face.reset_primary(device)
    })
}

/// A context beside the primary one, made current.
#[unsafe(no_mangle)]
pub extern "C" fn cuCtxCreate_v2(
    context: Out<'_, CUcontext>,
    _flags: c_uint,
    device: CUdevice,
) -> CUresult {
    call("cuCtxCreate_v2", |face| {
        let out = context.needed()?;
        face.gpu(device)?;
        let context = face.new_context(device as usize)?;
        let handle = face.contexts.insert(context);
        stack(|stack| stack.push(handle))?;
        out.put(handle);
        Ok(())
    })
}

/// Destroys such a context and everything in it.
#[unsafe(no_mangle)]
pub extern "C" fn cuCtxDestroy_v2(context: CUcontext) -> CUresult {
    call("cuCtxDestroy_v2", |face| {
        if face.gpus.iter().any(|gpu| gpu.primary == Some(context)) {
            return Err(CUDA_ERROR_INVALID_CONTEXT);
        }
        let gone = face
            .contexts
            .remove(context, face.recycle)
            .map_err(|missing| face.misused("context", context, missing))?;
        face.forget(&gone);
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
        context.needed()?.put(current_handle());
        Ok(())
    })
}

/// Makes a context current in place of the present one; null takes the present one away.
#[unsafe(no_mangle)]
pub extern "C" fn cuCtxSetCurrent(context: CUcontext) -> CUresult {
    call("cuCtxSetCurrent", |face| {
        // A primary context that was reset may still be made current: what is then called tells.
        if context != 0 {
            face.context(context)?;
        }
        stack(|stack| {
            stack.pop();
            if context != 0 {
                stack.push(context);
            }
        })
    })
}

/// Makes a context current and remembers the one before.
#[unsafe(no_mangle)]
pub extern "C" fn cuCtxPushCurrent_v2(context: CUcontext) -> CUresult {
    call("cuCtxPushCurrent_v2", |face| {
        if face.context(context)?.destroyed() {
            return Err(CUDA_ERROR_CONTEXT_IS_DESTROYED);
        }
        stack(|stack| stack.push(context))
    })
}

/// Makes the context current that was so before the last push.
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
    call("cuCtxGetDevice", |face| {
        let device = device.needed()?;
        device.put(face.current()?.gpu as CUdevice);
        Ok(())
    })
}

/// A number that no other context of this process ever has; null asks for the current one's.
#[unsafe(no_mangle)]
pub extern "C" fn cuCtxGetId(context: CUcontext, id: Out<'_, u64>) -> CUresult {
    call("cuCtxGetId", |face| {
        let id = id.needed()?;
        let context = match context {
            0 => face.current()?,
            handle => face.context(handle)?,
        };
        if context.destroyed() {
            return Err(CUDA_ERROR_CONTEXT_IS_DESTROYED);
        }
        id.put(context.id);
        Ok(())
    })
}

/// Waits for all work of the current context.
#[unsafe(no_mangle)]
pub extern "C" fn cuCtxSynchronize() -> CUresult {
    call_then(
        "cuCtxSynchronize",
        |face| {
            let context = face.current()?;
            face.refuse_in_any_capture_of(&context)?;
            face.unsafe_call()?;
            let ends = face.ends_of(&context, true);
            Ok((context, ends))
        },
        |(context, ends)| wait_all(&context, &ends),
    )
}
