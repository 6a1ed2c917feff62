//! The bare loader's calls: one native call for each operation, and nothing kept.

use std::{
    cell::Cell,
    ffi::{c_int, c_void},
    ptr::{null, null_mut},
    sync::OnceLock,
};

use fencepost::{Device, opencl};

use crate::Stop;

/// A `cl_command_queue`, `cl_context` or `cl_event`.
type Handle = *mut c_void;

/// `CL_EVENT_COMMAND_EXECUTION_STATUS`
const EXECUTION_STATUS: u32 = 0x11d3;
/// `CL_QUEUE_CONTEXT`
const QUEUE_CONTEXT: u32 = 0x1090;
/// `CL_QUEUE_DEVICE`
const QUEUE_DEVICE: u32 = 0x1091;
/// `CL_QUEUE_PROPERTIES`, and the property `CL_QUEUE_PROFILING_ENABLE`: ours have it, too.
const PROPERTIES: [u64; 3] = [0x1093, 2, 0];

macro_rules! functions {
    ($($name:ident = $symbol:literal ($($argument:ty),*) -> $result:ty;)*) => {
        /// The loader's functions.
        struct Loader {
            $($name: unsafe extern "system" fn($($argument),*) -> $result,)*
        }

        impl Loader {
            fn load(library: &libloading::Library) -> Result<Loader, libloading::Error> {
                Ok(Loader {
                    // SAFETY: the symbol is a function of OpenCL with this C signature; see
                    // https://registry.khronos.org/OpenCL/specs/3.0-unified/html/OpenCL_API.html.
                    // The library is never unloaded, so the pointer stays good.
                    $($name: unsafe { *library.get($symbol)? },)*
                })
            }
        }
    };
}

functions! {
    queue_info = "clGetCommandQueueInfo"
        (Handle, u32, usize, *mut c_void, *mut usize) -> c_int;
    create_queue = "clCreateCommandQueueWithProperties"
        (Handle, Handle, *const u64, *mut c_int) -> Handle;
    release_queue = "clReleaseCommandQueue" (Handle) -> c_int;
    marker = "clEnqueueMarkerWithWaitList" (Handle, u32, *const Handle, *mut Handle) -> c_int;
    barrier = "clEnqueueBarrierWithWaitList" (Handle, u32, *const Handle, *mut Handle) -> c_int;
    flush = "clFlush" (Handle) -> c_int;
    finish = "clFinish" (Handle) -> c_int;
    event_info = "clGetEventInfo" (Handle, u32, usize, *mut c_void, *mut usize) -> c_int;
    wait = "clWaitForEvents" (u32, *const Handle) -> c_int;
    release_event = "clReleaseEvent" (Handle) -> c_int;
    user_event = "clCreateUserEvent" (Handle, *mut c_int) -> Handle;
    set_user_event = "clSetUserEventStatus" (Handle, c_int) -> c_int;
}

impl Loader {
    /// The loader that the library has loaded. Loading it again gives the same one.
    fn get() -> Result<&'static Loader, Stop> {
        static LOADER: OnceLock<Result<Loader, String>> = OnceLock::new();
        let loader = LOADER.get_or_init(|| {
            let named =
                std::env::var_os("FENCEPOST_OPENCL_LIBRARY").filter(|name| !name.is_empty());
            let default = if cfg!(windows) {
                "OpenCL.dll"
            } else if cfg!(target_vendor = "apple") {
                "/System/Library/Frameworks/OpenCL.framework/OpenCL"
            } else {
                "libOpenCL.so.1"
            };
            // SAFETY: the library is loaded already, so that no initialiser of it runs.
            let library = unsafe { libloading::Library::new(named.unwrap_or(default.into())) };
            let library = library.map_err(|error| error.to_string())?;
            let loader = Loader::load(&library).map_err(|error| error.to_string());
            // Drivers have threads and exit handlers: unloading them is never safe.
            std::mem::forget(library);
            loader
        });
        loader.as_ref().map_err(|why| Stop::Failed(why.clone()))
    }

    /// A handle that the queue tells.
    fn of_queue(&self, queue: Handle, what: u32) -> Result<Handle, Stop> {
        let mut found: Handle = null_mut();
        // SAFETY: the queue is alive; `found` is one handle.
        let status = unsafe {
            let size = size_of::<Handle>();
            (self.queue_info)(queue, what, size, (&raw mut found).cast(), null_mut())
        };
        check("clGetCommandQueueInfo", status).map(|()| found)
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
    Stop::Failed(format!("{call} failed with OpenCL's error {code}"))
}

/// A native queue, for measuring only.
pub(super) struct Queue {
    loader: &'static Loader,
    raw: Handle,
    context: Handle,
    /// What holds the queue, or null.
    gate: Cell<Handle>,
    /// Keeps the context alive.
    _owner: fencepost::Stream,
}

/// A native event; released when dropped.
pub(super) struct Event {
    loader: &'static Loader,
    raw: Handle,
}

// SAFETY: OpenCL's calls for events may be made by any thread, also at the same time.
unsafe impl Send for Event {}
// SAFETY: as above.
unsafe impl Sync for Event {}

impl Queue {
    /// A queue in the context of `device`.
    pub(super) fn new(device: &Device) -> Result<Queue, Stop> {
        let loader = Loader::get()?;
        let owner = device.new_stream()?;
        let ours = opencl::stream_as_raw(&owner)
            .ok_or_else(|| Stop::Failed(format!("{owner} is no stream of OpenCL")))?;
        let context = loader.of_queue(ours, QUEUE_CONTEXT)?;
        let id = loader.of_queue(ours, QUEUE_DEVICE)?;
        let mut status = 0;
        // SAFETY: the context and its device are alive; the list of properties ends with 0.
        let raw =
            unsafe { (loader.create_queue)(context, id, PROPERTIES.as_ptr(), &raw mut status) };
        check("clCreateCommandQueueWithProperties", status)?;
        Ok(Queue {
            loader,
            raw,
            context,
            gate: Cell::new(null_mut()),
            _owner: owner,
        })
    }

    /// `clEnqueueMarkerWithWaitList` and `clFlush`.
    #[inline]
    pub(super) fn mark(&self) -> Result<Event, Stop> {
        let mut raw: Handle = null_mut();
        // SAFETY: the queue is alive; `raw` is one handle.
        let status = unsafe { (self.loader.marker)(self.raw, 0, null(), &raw mut raw) };
        check("clEnqueueMarkerWithWaitList", status)?;
        // SAFETY: as above.
        check("clFlush", unsafe { (self.loader.flush)(self.raw) })?;
        Ok(Event {
            loader: self.loader,
            raw,
        })
    }

    /// `clCreateUserEvent`, `clEnqueueBarrierWithWaitList` and `clFlush`.
    pub(super) fn block(&self) -> Result<(), Stop> {
        let mut status = 0;
        // SAFETY: the context is alive.
        let gate = unsafe { (self.loader.user_event)(self.context, &raw mut status) };
        check("clCreateUserEvent", status)?;
        self.gate.set(gate);
        // SAFETY: the queue and the event are alive.
        let status = unsafe { (self.loader.barrier)(self.raw, 1, &raw const gate, null_mut()) };
        check("clEnqueueBarrierWithWaitList", status)?;
        // SAFETY: as above.
        check("clFlush", unsafe { (self.loader.flush)(self.raw) })
    }

    /// `clSetUserEventStatus` and `clReleaseEvent`, if the queue is blocked.
    pub(super) fn unblock(&self) -> Result<(), Stop> {
        let gate = self.gate.replace(null_mut());
        if gate.is_null() {
            return Ok(());
        }
        // SAFETY: the user event is alive, and has no status yet. 0 is CL_COMPLETE.
        let status = unsafe { (self.loader.set_user_event)(gate, 0) };
        // SAFETY: nobody else has it.
        unsafe { (self.loader.release_event)(gate) };
        check("clSetUserEventStatus", status)
    }

    /// `clFinish`.
    pub(super) fn finish(&self) -> Result<(), Stop> {
        // SAFETY: the queue is alive.
        check("clFinish", unsafe { (self.loader.finish)(self.raw) })
    }
}

impl Event {
    /// `clGetEventInfo`.
    #[inline]
    pub(super) fn query(&self) -> Result<bool, Stop> {
        let mut status: c_int = 0;
        let size = size_of::<c_int>();
        let value = (&raw mut status).cast();
        // SAFETY: the event is alive; `status` is an int.
        let code = unsafe {
            (self.loader.event_info)(self.raw, EXECUTION_STATUS, size, value, null_mut())
        };
        check("clGetEventInfo", code).map(|()| status == 0)
    }

    /// `clWaitForEvents`.
    #[inline]
    pub(super) fn wait(&self) -> Result<(), Stop> {
        // SAFETY: the event is alive.
        check("clWaitForEvents", unsafe {
            (self.loader.wait)(1, &raw const self.raw)
        })
    }
}

impl Drop for Event {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: made by us, and nobody else has it.
        unsafe { (self.loader.release_event)(self.raw) };
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        let _ = self.unblock();
        // SAFETY: made by us, and nobody else has it.
        unsafe { (self.loader.release_queue)(self.raw) };
    }
}
