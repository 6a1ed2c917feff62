//! The CUDA backend: streams and events of NVIDIA's driver, which is loaded at run time.
//!
//! - **A marker owns a `CUevent`** while anybody may ask it, from a pool keyed by context and flags
//!   ([`pools`](super::pools)). The [`marker`](super::marker) module says who owns it and when it
//!   is used again.
//! - **Completion is remembered** through the stream's timeline: asking again is one atomic load,
//!   and a later marker of the stream completes the earlier ones (`values.rs`).
//! - **No lock is held across a call that may block in the driver.**
//! - **One watcher thread per context** serves callbacks, futures, waits with a deadline and parked
//!   host streams (`watcher.rs`).
//! - **Identity is the driver's number** (`cuStreamGetId`, `cuCtxGetId`), not the handle, which is
//!   used again. Where a driver has no such number, nothing is taken to be the same.
//! - **A fault ends its context**: the first one is what every marker and stream of it tells.
//!
//! | the driver does | so we |
//! |---|---|
//! | breaks any capture in global mode when an event is asked, from whatever thread | ask in relaxed mode |
//! | breaks a capture when a captured event is asked | know which are, and never ask them |
//! | breaks a capture when its stream is asked for its number (`cuStreamGetId`), in whatever mode | ask whether it is captured first |
//! | blocks `cuEventRecord` with timing when 1,020 are pending | hold no lock there, and say so |
//! | blocks `cuMemFree`, `cuMemFreeHost` and `cuModuleLoadData` while any stream is stalled | never free page-locked memory, and load test kernels before the first stall |
//! | needs a current context for creating, and for the default streams' handles, only | push it there only |

use std::{any::Any, ffi::c_void, sync::Arc};

use crate::{
    bracket,
    clock::Elapsed,
    contract::{Backend, DeviceImpl, DeviceRef, Look, Missing, Sample, StreamImpl},
    core::{DeviceCore, Streams},
    error::{Error, Result},
    place::Place,
    rerecord::Glimpse,
    sync::{Mutex, lock},
};

use super::context::{Context, relax_capture};
use super::driver::{ContextHandle, Driver, EventHandle, Ordinal, StreamHandle};
use super::fault::Fault;
use super::host_gates::open_at_exit;
use super::native_stream::{LEGACY, Origin, PER_THREAD};
use super::stream::CudaStream;
use super::waits::check_can_hold;

pub(crate) struct CudaDevice {
    core: Arc<DeviceCore>,
    pub(crate) context: &'static Context,
    default: Arc<CudaStream>,
    streams: Streams<CudaStream>,
}

/// How many GPUs there are.
pub(crate) fn count() -> Result<usize, Missing> {
    Ok(Driver::get()?.count)
}

/// As [`count`], without initialising the driver where that is possible.
pub(crate) fn ask() -> Result<usize, Missing> {
    Driver::count_uninitialised().unwrap_or_else(count)
}

/// As [`ask`]; `None` where only the driver can tell.
pub(crate) fn count_uninitialised() -> Option<usize> {
    Driver::count_uninitialised().map(|count| count.unwrap_or(0))
}

/// The device of this index, in its primary context; the same one each time.
pub(crate) fn open(index: usize) -> Result<DeviceRef> {
    let name = format!("cuda:{index}");
    let driver = Driver::to_call(&name)?;
    let failed = |fault| driver.error(fault, &name);
    let mut ordinal: Ordinal = 0;
    // SAFETY: `ordinal` is an int; the driver checks the index.
    unsafe { driver.device_get((&raw mut ordinal, index as i32)) }.map_err(failed)?;
    let mut raw = ContextHandle::NULL;
    // SAFETY: `raw` is one handle. It is kept for as long as the process lives, so never released.
    unsafe { driver.primary_retain((&raw mut raw, ordinal)) }.map_err(failed)?;
    Ok(device_of(driver, raw, || name.clone()))
}

/// The device of a context: made when it is first seen.
fn device_of(
    driver: &'static Driver,
    raw: ContextHandle,
    name: impl FnOnce() -> String,
) -> DeviceRef {
    static DEVICES: Mutex<Vec<(&'static Context, DeviceRef)>> = Mutex::new(Vec::new());
    let mut id = 0;
    // SAFETY: the context is alive: retained, or of a stream that is. `id` is a u64.
    let id = unsafe { driver.ctx_id((raw, &raw mut id)) }
        .is_ok()
        .then_some(id);
    let mut devices = lock(&DEVICES);
    if let Some((_, device)) = devices
        .iter()
        .find(|(context, _)| context.calls.is(raw, id))
    {
        return device.clone();
    }
    let (model, uuid) = (model_of(driver, raw).ok(), uuid_of(driver, raw).ok());
    let cache = cache_of(driver, raw);
    let context = Context::new(driver, raw, id, name(), model, uuid, cache);
    open_at_exit(context);
    // As the context, it is never forgotten.
    let device = DeviceRef::Static(Box::leak(Box::new(new_device(context))));
    devices.push((context, device.clone()));
    device
}

/// A device in `context`, with streams and an identity of its own.
pub(crate) fn new_device(context: &'static Context) -> CudaDevice {
    let core = context.device_core();
    let default = CudaStream::new(core.clone(), context, LEGACY, Origin::Legacy, false);
    let streams = Streams::new();
    streams.add(&default);
    CudaDevice {
        core,
        context,
        default,
        streams,
    }
}

/// The GPU's own name, such as `NVIDIA H200`; for humans.
pub(crate) fn model(device: &CudaDevice) -> Result<String> {
    let context = device.context;
    context.check_fork()?;
    model_of(context.driver, context.calls.raw).map_err(|fault| context.failed(fault, None))
}

fn model_of(driver: &Driver, context: ContextHandle) -> Result<String, Fault> {
    let (ordinal, mut name) = (ordinal_of(driver, context)?, [0_u8; 256]);
    // SAFETY: `name` has room for that many bytes, the last of which stays zero.
    unsafe { driver.device_name((name.as_mut_ptr().cast(), 255, ordinal)) }?;
    let length = name.iter().position(|&byte| byte == 0).unwrap_or(0);
    Ok(String::from_utf8_lossy(&name[..length]).into_owned())
}

fn uuid_of(driver: &Driver, context: ContextHandle) -> Result<[u8; 16], Fault> {
    let (ordinal, mut uuid) = (ordinal_of(driver, context)?, [0; 16]);
    // SAFETY: a UUID has that many bytes.
    unsafe { driver.device_uuid((&raw mut uuid, ordinal)) }?;
    Ok(uuid)
}

/// Whether processes can share events of the context's device; `true` where the driver does not
/// tell.
pub(super) fn shares_events(context: &Context) -> bool {
    /// `CU_DEVICE_ATTRIBUTE_IPC_EVENT_SUPPORTED`.
    const IPC_EVENTS: i32 = 125;
    let driver = context.driver;
    let Ok(ordinal) = ordinal_of(driver, context.calls.raw) else {
        return true;
    };
    let mut shares = 0;
    // SAFETY: `shares` is an int; the driver checks the number of the attribute.
    let told = unsafe { driver.device_attribute((&raw mut shares, IPC_EVENTS, ordinal)) };
    told.is_err() || shares != 0
}

/// The bytes of the GPU's last cache, where the driver tells.
fn cache_of(driver: &Driver, context: ContextHandle) -> Option<usize> {
    /// `CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE`.
    const L2_CACHE_SIZE: i32 = 38;
    let ordinal = ordinal_of(driver, context).ok()?;
    let mut bytes = 0;
    // SAFETY: `bytes` is an int; the driver checks the number of the attribute.
    unsafe { driver.device_attribute((&raw mut bytes, L2_CACHE_SIZE, ordinal)) }.ok()?;
    usize::try_from(bytes).ok().filter(|bytes| *bytes > 0)
}

/// The device that the context is of.
fn ordinal_of(driver: &Driver, context: ContextHandle) -> Result<Ordinal, Fault> {
    let (mut ordinal, mut popped): (Ordinal, _) = (0, ContextHandle::NULL);
    // SAFETY: the context is alive: retained, or of a stream that is.
    unsafe { driver.ctx_push((context,)) }?;
    // SAFETY: `ordinal` is an int, and what was pushed above is taken off again.
    let asked = unsafe {
        let asked = driver.ctx_device((&raw mut ordinal,));
        driver.ctx_pop((&raw mut popped,))?;
        asked
    };
    asked.map(|()| ordinal)
}

impl CudaDevice {
    pub(crate) fn make_stream(&self, blocking: bool) -> Result<Arc<CudaStream>> {
        let context = self.context;
        if let Some(lost) = context.lost() {
            return Err(lost);
        }
        let raw = context
            .pools
            .take_stream()
            .map_err(|fault| context.failed(fault, None))?;
        Ok(self.add(raw, Origin::Own, blocking))
    }

    fn add(&self, raw: StreamHandle, origin: Origin, blocking: bool) -> Arc<CudaStream> {
        let stream = CudaStream::new(self.core.clone(), self.context, raw, origin, blocking);
        self.streams.add(&stream);
        stream
    }

    /// A stream of the caller's in this context, or a default one: where it is known already, what
    /// is there, so that the two are equal.
    fn wrap(&self, raw: StreamHandle, origin: Origin) -> Arc<CudaStream> {
        if matches!(origin, Origin::Legacy) {
            return self.default.clone();
        }
        let stream = self.add(raw, origin, false);
        let known = self.streams.alive().into_iter().find(|known| {
            !Arc::ptr_eq(known, &stream)
                && known.native.number().is_some()
                && known.native.number() == stream.native.number()
                && matches!(stream.native.check_same_thread(&known.native), Ok(true))
        });
        known.unwrap_or(stream)
    }
}

/// See [`crate::cuda::device_from_raw`].
///
/// # Safety
/// As there.
pub(super) unsafe fn device_from_raw(
    context: *mut c_void,
    keep_alive: Arc<dyn Any + Send + Sync>,
) -> Result<DeviceRef> {
    let driver = driver()?;
    if context.is_null() {
        return Err(Error::Unsupported {
            what: "a null handle in place of a context".into(),
            device: "cuda".into(),
            remedy: "pass a CUcontext, or open the device by its name".into(),
        });
    }
    // SAFETY: the context is alive, as the caller promises.
    unsafe { device_in(driver, ContextHandle(context), Some(keep_alive)) }
}

/// See [`crate::cuda::stream_from_raw`].
///
/// # Safety
/// As there.
pub(super) unsafe fn stream_from_raw(
    handle: *mut c_void,
    keep_alive: Arc<dyn Any + Send + Sync>,
) -> Result<(Arc<CudaStream>, DeviceRef)> {
    let driver = driver()?;
    let raw = StreamHandle(handle);
    let (raw, origin) = match raw {
        StreamHandle::NULL | LEGACY => (LEGACY, Origin::Legacy),
        PER_THREAD => (PER_THREAD, Origin::PerThread(std::thread::current().id())),
        _ => (raw, Origin::Caller(keep_alive)),
    };
    let mut context = ContextHandle::NULL;
    match origin {
        // SAFETY: the stream is alive, as the caller promises; `context` is one handle.
        Origin::Caller(_) => unsafe { driver.stream_ctx((raw, &raw mut context)) },
        // The default streams are those of the context that is current.
        // SAFETY: `context` is one handle.
        _ => unsafe { driver.ctx_current((&raw mut context,)) },
    }
    .map_err(|fault| driver.error(fault, "cuda"))?;
    if context == ContextHandle::NULL {
        return Err(Error::Unsupported {
            what: "a default stream in a thread without a current context".into(),
            device: "cuda".into(),
            remedy: "make a context current first, or take the default stream of the device".into(),
        });
    }
    // SAFETY: the context of a stream that is alive.
    let device = unsafe { device_in(driver, context, None) }?;
    let stream = of_device(&*device)?.wrap(raw, origin);
    Ok((stream, device))
}

/// See [`crate::cuda::per_thread_stream`].
pub(super) fn per_thread_stream(device: &CudaDevice) -> Result<Arc<CudaStream>> {
    device.context.check_fork()?;
    match device.context.lost() {
        Some(lost) => Err(lost),
        None => Ok(device.wrap(PER_THREAD, Origin::PerThread(std::thread::current().id()))),
    }
}

fn driver() -> Result<&'static Driver> {
    Driver::to_call("cuda")
}

/// The device of a context of the caller's, which `keep_alive` keeps alive if there is one.
///
/// # Safety
/// The context is alive.
unsafe fn device_in(
    driver: &'static Driver,
    context: ContextHandle,
    keep_alive: Option<Arc<dyn Any + Send + Sync>>,
) -> Result<DeviceRef> {
    // SAFETY: passed on to the caller.
    let primary = unsafe { primary_index(driver, context) };
    if let Some(index) = primary.map_err(|fault| driver.error(fault, "cuda"))? {
        // It is retained by us.
        return open(index);
    }
    let name = || format!("cuda (context {:p})", context.0);
    let device = device_of(driver, context, name);
    if let Some(keep_alive) = keep_alive {
        // One is enough.
        let _ = of_device(&*device)?.context.keep_alive.set(keep_alive);
    }
    Ok(device)
}

/// Which device `context` is the primary context of, if it is one.
///
/// # Safety
/// The context is alive.
unsafe fn primary_index(driver: &Driver, context: ContextHandle) -> Result<Option<usize>, Fault> {
    for index in 0..count().unwrap_or(0) {
        let (mut ordinal, mut flags, mut active): (Ordinal, u32, i32) = (0, 0, 0);
        // SAFETY: each pointer is to one value of its type; the driver checks the index.
        unsafe {
            driver.device_get((&raw mut ordinal, index as i32))?;
            driver.primary_state((ordinal, &raw mut flags, &raw mut active))?;
        }
        if active == 0 {
            continue;
        }
        // An active primary context is only counted once more, not made.
        let mut primary = ContextHandle::NULL;
        // SAFETY: `primary` is one handle; the count taken is given back.
        unsafe {
            driver.primary_retain((&raw mut primary, ordinal))?;
            driver.primary_release((ordinal,))?;
        }
        if primary == context {
            return Ok(Some(index));
        }
    }
    Ok(None)
}

/// The CUDA device behind a device of any backend.
pub(crate) fn of_device(device: &dyn DeviceImpl) -> Result<&CudaDevice> {
    let any: &dyn Any = device;
    any.downcast_ref().ok_or_else(|| Error::Unsupported {
        what: "a call of CUDA".into(),
        device: device.core().name.clone(),
        remedy: "open a device whose name begins with cuda".into(),
    })
}

impl DeviceImpl for CudaDevice {
    fn core(&self) -> &Arc<DeviceCore> {
        &self.core
    }

    fn backend(&self) -> Backend {
        Backend::Cuda
    }

    fn uuid(&self) -> Option<[u8; 16]> {
        self.context.uuid
    }

    fn check_can_hold(&self) -> Result<()> {
        check_can_hold(&self.core.name)
    }

    fn prepare_thread(&self) {
        relax_capture();
    }

    fn default_stream(&self) -> Arc<dyn StreamImpl> {
        self.default.clone()
    }

    fn new_stream(&self) -> Result<Arc<dyn StreamImpl>> {
        Ok(self.make_stream(false)?)
    }

    fn keep_time(&self) -> Result<Option<Arc<dyn Any + Send + Sync>>> {
        self.context.keep_time().map(Some)
    }

    fn elapsed_between(&self, start: &Glimpse<'_>, end: &Glimpse<'_>) -> Option<Elapsed> {
        let (context, calls) = (self.context, &self.context.calls);
        if calls.is_forked() {
            return None;
        }
        let event = |glimpse: &Glimpse<'_>| glimpse.native().map(EventHandle::of_number);
        let millis = calls.elapsed(event(start)?, event(end)?).ok()??;
        // Before the clock learns from the time.
        let is_theirs = start.is_current() && end.is_current();
        is_theirs.then(|| context.interval_at_once(millis))?
    }

    fn streams(&self) -> Vec<Arc<dyn StreamImpl>> {
        let streams = self.streams.alive().into_iter();
        streams
            .map(|stream| stream as Arc<dyn StreamImpl>)
            .collect()
    }

    /// The driver tells differences of events only, so a reading is an event.
    fn correlate(&self, at: Place, look: Look<'_>) -> Result<Sample> {
        self.context.check_fork()?;
        bracket::sample(&*self.make_stream(false)?, at, look)
    }
}

/// The driver's own number for a stream (`cuStreamGetId`), which names it while the process lives:
/// a handle may name another stream once the first is destroyed. `None` where the driver has no
/// such numbers (before CUDA 12), or says that the handle is no stream; and while the stream is
/// captured, since asking would break the capture, in whatever mode.
///
/// # Safety
/// `handle` is a stream of this process's CUDA driver and is alive; or it names one of the default
/// streams, and a context is current in this thread.
///
/// # References
/// - [`cuStreamGetId`](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__STREAM.html)
pub unsafe fn stream_number(handle: *mut c_void) -> Option<u64> {
    // SAFETY: passed on to the caller.
    unsafe { driver().ok()?.number_of(StreamHandle(handle)) }
}
