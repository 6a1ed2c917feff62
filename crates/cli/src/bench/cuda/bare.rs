//! The bare driver: one native call for each operation, and nothing kept.

use std::{
    ffi::{c_int, c_uint, c_void},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread::{self, Thread},
};

use fencepost::{Device, cuda};

use crate::Stop;

/// A `CUcontext`, `CUstream` or `CUevent`.
type Handle = *mut c_void;

/// A `CUhostFn`.
type HostFunction = extern "system" fn(Handle);

/// What the driver's own event query returns for an event that is not complete.
const NOT_READY: c_int = 600;

macro_rules! functions {
    ($($name:ident = $symbol:literal $(or $older:literal)? ($($argument:ty),*);)*) => {
        /// The driver's functions.
        struct Driver {
            $($name: unsafe extern "system" fn($($argument),*) -> c_int,)*
        }

        impl Driver {
            fn load(library: &libloading::Library) -> Result<Driver, libloading::Error> {
                Ok(Driver {
                    // SAFETY: the symbol is a function of the driver API with this C signature; see
                    // https://docs.nvidia.com/cuda/cuda-driver-api/. The library is never unloaded,
                    // so the pointer stays good.
                    $($name: unsafe {
                        let found = library.get(concat!($symbol, "\0").as_bytes());
                        $(let found = found
                            .or_else(|_| library.get(concat!($older, "\0").as_bytes()));)?
                        *found?
                    },)*
                })
            }
        }
    };
}

functions! {
    stream_context = "cuStreamGetCtx" (Handle, *mut Handle);
    push_context = "cuCtxPushCurrent_v2" (Handle);
    create = "cuEventCreate" (*mut Handle, c_uint);
    destroy = "cuEventDestroy_v2" (Handle);
    record = "cuEventRecord" (Handle, Handle);
    query = "cuEventQuery" (Handle);
    synchronize = "cuEventSynchronize" (Handle);
    wait = "cuStreamWaitEvent" (Handle, Handle, c_uint);
    wait_value = "cuStreamWaitValue32_v2" (Handle, u64, u32, c_uint);
    call_host = "cuLaunchHostFunc" (Handle, HostFunction, Handle);
    host_alloc = "cuMemHostAlloc" (*mut Handle, usize, c_uint);
    host_pointer = "cuMemHostGetDevicePointer_v2" (*mut u64, Handle, c_uint);
    elapsed = "cuEventElapsedTime_v2" or "cuEventElapsedTime" (*mut f32, Handle, Handle);
    context_id = "cuCtxGetId" or "cuCtxGetApiVersion" (Handle, *mut u64);
}

impl Driver {
    /// The driver that the library has loaded. Loading it again gives the same one.
    fn get() -> Result<&'static Driver, Stop> {
        static DRIVER: OnceLock<Result<Driver, String>> = OnceLock::new();
        let driver = DRIVER.get_or_init(|| {
            let named = std::env::var_os("FENCEPOST_CUDA_LIBRARY").filter(|name| !name.is_empty());
            let default = match cfg!(windows) {
                true => "nvcuda.dll",
                false => "libcuda.so.1",
            };
            // SAFETY: the library is loaded already, so that no initialiser of it runs.
            let library = unsafe { libloading::Library::new(named.unwrap_or(default.into())) };
            let library = library.map_err(|error| error.to_string())?;
            let driver = Driver::load(&library).map_err(|error| error.to_string());
            // The driver has threads and exit handlers: unloading it is never safe.
            std::mem::forget(library);
            driver
        });
        driver.as_ref().map_err(|why| Stop::Failed(why.clone()))
    }
}

#[inline]
fn check(call: &'static str, status: c_int) -> Result<(), Stop> {
    match status {
        0 => Ok(()),
        code => Err(refused(call, code)),
    }
}

#[cold]
fn refused(call: &'static str, code: c_int) -> Stop {
    Stop::Failed(format!("{call} failed with CUDA's error {code}"))
}

/// A native stream, for measuring only.
pub(super) struct Stream {
    driver: &'static Driver,
    raw: Handle,
    context: Handle,
    /// Owns the native stream, and takes the kernels of a measurement.
    pub(super) owner: fencepost::Stream,
}

/// A native event; destroyed when dropped.
pub(super) struct Event {
    driver: &'static Driver,
    raw: Handle,
}

/// Memory that the device can wait for a value in.
pub(super) struct Word {
    cell: &'static AtomicU32,
    device: u64,
}

impl Stream {
    /// A stream of `device`. The device's context stays current in the calling thread, so that bare
    /// calls pay for nothing but themselves.
    pub(super) fn new(device: &Device) -> Result<Stream, Stop> {
        let driver = Driver::get()?;
        let owner = device.new_stream()?;
        let raw = cuda::stream_as_raw(&owner)
            .ok_or_else(|| Stop::Failed(format!("{owner} is no stream of CUDA")))?;
        let mut context: Handle = std::ptr::null_mut();
        // SAFETY: the stream is alive; `context` is one handle.
        let status = unsafe { (driver.stream_context)(raw, &raw mut context) };
        check("cuStreamGetCtx", status)?;
        // SAFETY: the context of a device lives as long as the process.
        check("cuCtxPushCurrent", unsafe {
            (driver.push_context)(context)
        })?;
        Ok(Stream {
            driver,
            raw,
            context,
            owner,
        })
    }

    /// `cuEventCreate`.
    #[inline]
    pub(super) fn event(&self, timing: bool) -> Result<Event, Stop> {
        let mut raw: Handle = std::ptr::null_mut();
        // CU_EVENT_DISABLE_TIMING
        let flags = if timing { 0 } else { 2 };
        // SAFETY: `raw` is one handle.
        let status = unsafe { (self.driver.create)(&raw mut raw, flags) };
        check("cuEventCreate", status)?;
        Ok(Event {
            driver: self.driver,
            raw,
        })
    }

    /// `cuEventRecord`.
    #[inline]
    pub(super) fn record(&self, event: &Event) -> Result<(), Stop> {
        // SAFETY: both are alive and of one context.
        let status = unsafe { (self.driver.record)(event.raw, self.raw) };
        check("cuEventRecord", status)
    }

    /// `cuStreamWaitEvent`.
    #[inline]
    pub(super) fn wait(&self, event: &Event) -> Result<(), Stop> {
        // SAFETY: as in `record`.
        let status = unsafe { (self.driver.wait)(self.raw, event.raw, 0) };
        check("cuStreamWaitEvent", status)
    }

    /// A word of page-locked memory, which is never freed: see [`Word`].
    pub(super) fn word(&self) -> Result<Word, Stop> {
        let (mut host, mut device): (Handle, u64) = (std::ptr::null_mut(), 0);
        // CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP
        // SAFETY: `host` is one pointer; the stream's context is current.
        let status = unsafe { (self.driver.host_alloc)(&raw mut host, 4096, 0b11) };
        check("cuMemHostAlloc", status)?;
        // SAFETY: `device` is one device pointer; `host` was just allocated and mapped.
        let status = unsafe { (self.driver.host_pointer)(&raw mut device, host, 0) };
        check("cuMemHostGetDevicePointer", status)?;
        // SAFETY: aligned, freshly allocated and never freed; the device only reads it.
        let cell = unsafe { AtomicU32::from_ptr(host.cast()) };
        cell.store(0, Ordering::Release);
        Ok(Word { cell, device })
    }

    /// `cuStreamWaitValue32`, and the store that ends the wait.
    #[inline]
    pub(super) fn wait_and_store(&self, word: &Word) -> Result<(), Stop> {
        let next = word.cell.load(Ordering::Relaxed).wrapping_add(1);
        // SAFETY: the stream is alive, and so is the memory, for ever. 0 is
        // CU_STREAM_WAIT_VALUE_GEQ.
        let status = unsafe { (self.driver.wait_value)(self.raw, word.device, next, 0) };
        check("cuStreamWaitValue32", status)?;
        word.cell.store(next, Ordering::Release);
        Ok(())
    }

    /// `cuEventElapsedTime` with what a safe call cannot do without. A driver crashes when it is
    /// given an event of a context that was reset, so that it is asked for the context's number
    /// first; one from before CUDA 12, which has no such number, for the context's API version. No
    /// other thread may record one of the events again meanwhile, so that each is locked.
    #[inline]
    pub(super) fn checked_elapsed(
        &self,
        start: (&Event, &AtomicBool),
        end: (&Event, &AtomicBool),
    ) -> Result<Option<f32>, Stop> {
        let mut id = 0;
        for (_, locked) in [start, end] {
            if locked.swap(true, Ordering::Acquire) {
                return Ok(None);
            }
        }
        // SAFETY: the context lives as long as the process; `id` is a u64.
        let status = unsafe { (self.driver.context_id)(self.context, &raw mut id) };
        check("cuCtxGetId", status)?;
        let millis = start.0.elapsed(end.0);
        for (_, locked) in [start, end] {
            locked.store(false, Ordering::Release);
        }
        millis.map(Some)
    }

    /// Has the driver wake the calling thread once what is on the stream is complete, and sleeps
    /// until then: `cuLaunchHostFunc`.
    pub(super) fn call_back(&self) -> Result<(), Stop> {
        struct Call {
            thread: Thread,
            is_done: AtomicBool,
        }
        extern "system" fn wake(call: Handle) {
            // SAFETY: a reference that was given to the driver for this one call.
            let call = unsafe { Arc::from_raw(call.cast::<Call>().cast_const()) };
            call.is_done.store(true, Ordering::Release);
            call.thread.unpark();
        }
        let call = Arc::new(Call {
            thread: thread::current(),
            is_done: AtomicBool::new(false),
        });
        let given = Arc::into_raw(call.clone());
        // SAFETY: the stream is alive; the function takes the reference, once.
        let status = unsafe { (self.driver.call_host)(self.raw, wake, given.cast_mut().cast()) };
        if status != 0 {
            // SAFETY: the driver has refused the call, and makes none.
            drop(unsafe { Arc::from_raw(given) });
        }
        check("cuLaunchHostFunc", status)?;
        while !call.is_done.load(Ordering::Acquire) {
            thread::park();
        }
        Ok(())
    }

    /// Waits for everything on the stream, by an event of its own.
    pub(super) fn synchronize(&self) -> Result<(), Stop> {
        let event = self.event(false)?;
        self.record(&event)?;
        event.synchronize()
    }
}

impl Event {
    /// `cuEventQuery`.
    #[inline]
    pub(super) fn query(&self) -> Result<bool, Stop> {
        // SAFETY: the event is alive.
        match unsafe { (self.driver.query)(self.raw) } {
            NOT_READY => Ok(false),
            status => check("cuEventQuery", status).map(|()| true),
        }
    }

    /// `cuEventSynchronize`.
    #[inline]
    pub(super) fn synchronize(&self) -> Result<(), Stop> {
        // SAFETY: the event is alive.
        let status = unsafe { (self.driver.synchronize)(self.raw) };
        check("cuEventSynchronize", status)
    }

    /// `cuEventElapsedTime`: since CUDA 12.8, C's header means the newer function by that name.
    #[inline]
    pub(super) fn elapsed(&self, end: &Event) -> Result<f32, Stop> {
        let mut millis = 0.0;
        // SAFETY: both events are alive and `millis` is one float.
        let status = unsafe { (self.driver.elapsed)(&raw mut millis, self.raw, end.raw) };
        check("cuEventElapsedTime", status).map(|()| millis)
    }
}

impl Drop for Event {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: made by us, and nobody else has it.
        unsafe { (self.driver.destroy)(self.raw) };
    }
}
