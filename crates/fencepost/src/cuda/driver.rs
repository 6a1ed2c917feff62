//! The driver's functions, which are found at run time. Only this file knows their C signatures.
//!
//! - **Own table, each symbol optional.** Without the library the backend is unavailable. Without a
//!   symbol, the one call that needs it fails with [`Fault::Missing`]. Nothing panics.
//! - **Loaded once, never unloaded.** The driver has threads and exit handlers of its own.
//! - **Handles are opaque.** They are passed back unchanged and never dereferenced. They may cross
//!   threads, because the driver API is thread-safe
//!   ([CUDA programming guide, driver API](https://docs.nvidia.com/cuda/cuda-driver-api/)).

use std::{
    ffi::{CStr, OsString, c_char, c_int, c_uint, c_void},
    fmt,
    num::NonZeroUsize,
};

use super::fault::{Fault, NO_DEVICE, NOT_SUPPORTED, STUB_LIBRARY, Status, check, remedy};
use super::nvml;
use crate::{
    contract::Missing,
    error::Error,
    fork::{Once, Process},
};

/// The environment variable that names a library to load in place of the driver's.
const LIBRARY_VARIABLE: &str = "FENCEPOST_CUDA_LIBRARY";

const LIBRARY: &str = if cfg!(windows) {
    "nvcuda.dll"
} else {
    "libcuda.so.1"
};

macro_rules! handles {
    ($($name:ident $what:literal)*) => {$(
        #[doc = $what]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(transparent)]
        pub(crate) struct $name(pub(super) *mut c_void);

        // SAFETY: an opaque handle, which the driver's functions take from any thread. Nothing here
        // dereferences it.
        unsafe impl Send for $name {}
        // SAFETY: as above; and it is plain data.
        unsafe impl Sync for $name {}

        impl $name {
            #[allow(dead_code)] // Some kinds of handle are never null here.
            pub(super) const NULL: $name = $name(std::ptr::null_mut());
        }
    )*};
}

handles! {
    ContextHandle "A `CUcontext`."
    StreamHandle "A `CUstream`."
    EventHandle "A `CUevent`."
}

impl EventHandle {
    /// As a number, which [`of_number`](EventHandle::of_number) takes.
    #[inline]
    pub(super) fn to_number(self) -> Option<NonZeroUsize> {
        NonZeroUsize::new(self.0.expose_provenance())
    }

    #[inline]
    pub(super) fn of_number(number: NonZeroUsize) -> EventHandle {
        EventHandle(std::ptr::with_exposed_provenance_mut(number.get()))
    }
}

/// A `CUdeviceptr`.
pub(crate) type DevicePointer = u64;
/// A `CUdevice`.
pub(super) type Ordinal = c_int;
/// A `CUipcEventHandle`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct IpcHandle(pub(super) [u8; 64]);

macro_rules! table {
    ($($field:ident = $symbol:literal $(or $older:literal)? ($($argument:ty),*);)*) => {
        /// The functions that were found.
        pub(super) struct Table {
            $($field: Option<unsafe extern "system" fn($($argument),*) -> Status>,)*
        }

        impl Table {
            fn load(library: &libloading::Library) -> Table {
                Table {
                    // SAFETY: the symbol is a function of the driver API with this C signature; see
                    // https://docs.nvidia.com/cuda/cuda-driver-api/. The library is never unloaded,
                    // so the pointer stays good.
                    $($field: unsafe {
                        let found = library.get(concat!($symbol, "\0").as_bytes());
                        $(let found = found
                            .or_else(|_| library.get(concat!($older, "\0").as_bytes()));)?
                        found.ok().map(|found| *found)
                    },)*
                }
            }
        }

        /// The names of the functions, by the fields of the table.
        #[allow(non_upper_case_globals)]
        pub(super) mod names {
            $(pub(in crate::cuda) const $field: &str = $symbol;)*
        }

        impl Driver {
            $(
                /// Calls the driver.
                ///
                /// # Safety
                /// The arguments are as the driver's reference demands: pointers are to memory of
                /// the right size, and handles are alive.
                #[inline]
                pub(super) unsafe fn $field(&self, call: table!(@tuple $($argument),*))
                    -> Result<(), Fault>
                {
                    match self.table.$field {
                        // SAFETY: passed on to the caller.
                        Some(function) => check(names::$field, unsafe {
                            table!(@spread function, call, $($argument),*)
                        }),
                        None => Err(Fault::Missing(names::$field)),
                    }
                }
            )*
        }
    };
    (@tuple $($argument:ty),*) => { ($($argument,)*) };
    (@spread $f:ident, $c:ident, ) => {{ let () = $c; $f() }};
    (@spread $f:ident, $c:ident, $a:ty) => { $f($c.0) };
    (@spread $f:ident, $c:ident, $a:ty, $b:ty) => { $f($c.0, $c.1) };
    (@spread $f:ident, $c:ident, $a:ty, $b:ty, $d:ty) => { $f($c.0, $c.1, $c.2) };
    (@spread $f:ident, $c:ident, $a:ty, $b:ty, $d:ty, $e:ty) => { $f($c.0, $c.1, $c.2, $c.3) };
}

table! {
    init = "cuInit" (c_uint);
    driver_version = "cuDriverGetVersion" (*mut c_int);
    device_count = "cuDeviceGetCount" (*mut c_int);
    device_get = "cuDeviceGet" (*mut Ordinal, c_int);
    device_uuid = "cuDeviceGetUuid_v2" (*mut [u8; 16], Ordinal);
    device_name = "cuDeviceGetName" (*mut c_char, c_int, Ordinal);
    primary_retain = "cuDevicePrimaryCtxRetain" (*mut ContextHandle, Ordinal);
    primary_release = "cuDevicePrimaryCtxRelease_v2" (Ordinal);
    primary_state = "cuDevicePrimaryCtxGetState" (Ordinal, *mut c_uint, *mut c_int);
    device_attribute = "cuDeviceGetAttribute" (*mut c_int, c_int, Ordinal);
    ctx_current = "cuCtxGetCurrent" (*mut ContextHandle);
    ctx_push = "cuCtxPushCurrent_v2" (ContextHandle);
    ctx_pop = "cuCtxPopCurrent_v2" (*mut ContextHandle);
    ctx_device = "cuCtxGetDevice" (*mut Ordinal);
    ctx_id = "cuCtxGetId" (ContextHandle, *mut u64);
    stream_create = "cuStreamCreate" (*mut StreamHandle, c_uint);
    stream_ctx = "cuStreamGetCtx" (StreamHandle, *mut ContextHandle);
    stream_id = "cuStreamGetId" (StreamHandle, *mut u64);
    stream_query = "cuStreamQuery" (StreamHandle);
    stream_wait_event = "cuStreamWaitEvent" (StreamHandle, EventHandle, c_uint);
    stream_is_capturing = "cuStreamIsCapturing" (StreamHandle, *mut c_int);
    exchange_capture_mode = "cuThreadExchangeStreamCaptureMode" (*mut c_int);
    stream_wait_value = "cuStreamWaitValue32_v2" (StreamHandle, DevicePointer, u32, c_uint);
    event_create = "cuEventCreate" (*mut EventHandle, c_uint);
    event_destroy = "cuEventDestroy_v2" (EventHandle);
    event_record = "cuEventRecord" (EventHandle, StreamHandle);
    event_record_with_flags = "cuEventRecordWithFlags" (EventHandle, StreamHandle, c_uint);
    event_query = "cuEventQuery" (EventHandle);
    event_synchronize = "cuEventSynchronize" (EventHandle);
    // That of CUDA 12.8 does not look for errors of other work, and takes a quarter of the time (61
    // ns against 261 on driver 580).
    event_elapsed = "cuEventElapsedTime_v2" or "cuEventElapsedTime"
        (*mut f32, EventHandle, EventHandle);
    ipc_get_event = "cuIpcGetEventHandle" (*mut IpcHandle, EventHandle);
    ipc_open_event = "cuIpcOpenEventHandle" (*mut EventHandle, IpcHandle);
    mem_alloc = "cuMemAlloc_v2" (*mut DevicePointer, usize);
    set_words = "cuMemsetD32Async" (DevicePointer, c_uint, usize, StreamHandle);
    host_alloc = "cuMemHostAlloc" (*mut *mut c_void, usize, c_uint);
    host_pointer = "cuMemHostGetDevicePointer_v2" (*mut DevicePointer, *mut c_void, c_uint);
    error_name = "cuGetErrorName" (Status, *mut *const c_char);
    error_string = "cuGetErrorString" (Status, *mut *const c_char);
}

/// The driver, loaded and initialised.
pub(crate) struct Driver {
    table: Table,
    /// `major * 1000 + minor * 10`, as the driver counts.
    pub(super) version: c_int,
    /// How many GPUs it has shown to this process and to its forked children.
    pub(super) count: usize,
    /// The process that initialised it.
    process: Process,
}

/// `CU_STREAM_CAPTURE_MODE_RELAXED`.
pub(super) const RELAXED: c_int = 2;

static DRIVER: Once<Driver> = Once::new();

impl Driver {
    /// The driver; or why it cannot be used, and what to do about that. The next call tries again
    /// then. In a forked child it must not be called.
    pub(super) fn get() -> Result<&'static Driver, Missing> {
        DRIVER.get_or_try_make(Driver::load, || {
            Missing::Failed(Error::Forked {
                device: "cuda".into(),
            })
        })
    }

    /// How many GPUs there are, without initialising the driver; `None` where only it can tell.
    pub(super) fn count_uninitialised() -> Option<Result<usize, Missing>> {
        if let Some(driver) = DRIVER.get() {
            return Some(Ok(driver.count));
        }
        // Loading the driver's library initialises nothing.
        match Driver::library() {
            Err(missing) => return Some(Err(missing)),
            // Unloading it is never safe.
            Ok(library) => std::mem::forget(library),
        }
        match nvml::count(named().is_some())? {
            0 => Some(Err(no_gpu())),
            count => Some(Ok(count)),
        }
    }

    /// The driver, for calls on this device.
    pub(super) fn to_call(device: &str) -> Result<&'static Driver, Error> {
        let driver = Driver::get().map_err(|missing| missing.error(device))?;
        match driver.is_forked() {
            false => Ok(driver),
            true => Err(Error::Forked {
                device: device.into(),
            }),
        }
    }

    /// Whether this process was forked from the one that initialised the driver.
    pub(super) fn is_forked(&self) -> bool {
        !self.process.is_this()
    }

    fn library() -> Result<libloading::Library, Missing> {
        Driver::open_library().map_err(|why| match named() {
            Some(_) => failed(why),
            None => Missing::Absent(why),
        })
    }

    fn load() -> Result<Driver, Missing> {
        let library = Driver::library()?;
        let mut driver = Driver {
            table: Table::load(&library),
            version: 0,
            count: 0,
            process: Process::this(),
        };
        // The driver has threads and exit handlers: unloading it is never safe.
        std::mem::forget(library);
        // SAFETY: takes no pointer.
        unsafe { driver.init((0,)) }.map_err(|fault| match fault.code() {
            Some(NO_DEVICE) => no_gpu(),
            Some(STUB_LIBRARY) => Missing::Absent(format!(
                "NVIDIA's driver was not found{}",
                remedy(STUB_LIBRARY)
            )),
            _ => failed(format!(
                "NVIDIA's driver does not start: {}",
                driver.describe(fault)
            )),
        })?;
        let (mut version, mut count) = (0, 0);
        // SAFETY: `count` is an int.
        unsafe { driver.device_count((&raw mut count,)) }
            .map_err(|fault| failed(driver.describe(fault)))?;
        driver.count = usize::try_from(count).unwrap_or(0);
        if driver.count == 0 {
            return Err(no_gpu());
        }
        // SAFETY: `version` is an int.
        if unsafe { driver.driver_version((&raw mut version,)) }.is_ok() {
            driver.version = version;
        }
        Ok(driver)
    }

    /// The driver's library. Opening it again gives the same library.
    pub(crate) fn open_library() -> Result<libloading::Library, String> {
        let named = named();
        let path = named.clone().unwrap_or_else(|| LIBRARY.into());
        // SAFETY: loading runs the library's initialisers. The default is the system's own driver;
        // the variable is set by whoever runs the process, as LD_PRELOAD would be.
        unsafe { libloading::Library::new(&path) }.map_err(|error| match named {
            Some(_) => format!(
                "{LIBRARY_VARIABLE} names a library that cannot be loaded ({})",
                std::error::Error::source(&error).map_or(error.to_string(), ToString::to_string)
            ),
            None => format!(
                "NVIDIA's driver is not installed ({LIBRARY} was not found); \
                 install it, or make it visible to this process or container"
            ),
        })
    }

    /// Makes a call of the driver in relaxed mode, where it breaks no capture. In the other modes,
    /// some calls, such as a query of an event, break captures in global mode, also those of other
    /// threads ([stream
    /// capture](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__STREAM.html)).
    pub(super) fn relaxed<R>(&self, call: impl FnOnce() -> R) -> R {
        let mut mode = RELAXED;
        // SAFETY: `mode` is an int. The old mode comes back in it.
        let changed = unsafe { self.exchange_capture_mode((&raw mut mode,)) }.is_ok();
        let result = call();
        if changed {
            // SAFETY: as above.
            let _ = unsafe { self.exchange_capture_mode((&raw mut mode,)) };
        }
        result
    }

    /// The driver's own number for a stream; `None` where it has none, and while the stream is
    /// captured, since the question would break the capture in every mode.
    ///
    /// # Safety
    /// The stream is alive; or it is a default one, and a context is current in this thread.
    pub(super) unsafe fn number_of(&self, stream: StreamHandle) -> Option<u64> {
        let (mut status, mut id) = (0, 0);
        // SAFETY: the stream is alive; `status` is an int.
        match unsafe { self.stream_is_capturing((stream, &raw mut status)) } {
            Ok(()) if status == 0 => {}
            // A driver from before captures.
            Err(Fault::Missing(_)) => {}
            _ => return None,
        }
        // SAFETY: the stream is alive; `id` is a u64.
        unsafe { self.stream_id((stream, &raw mut id)) }.ok()?;
        Some(id)
    }

    /// The fault in words, and what to do about it where that is known.
    pub(super) fn describe(&self, fault: Fault) -> String {
        let (call, code) = match fault {
            Fault::Missing(symbol) => return format!("the driver has no {symbol}"),
            Fault::Code { call, code } => (call, code),
        };
        format!(
            "{call} failed with {} ({code}){}",
            self.text(code),
            remedy(code)
        )
    }

    /// The name of a code and the driver's description of it, as `NAME: description`.
    pub(super) fn text(&self, code: Status) -> String {
        let ask = |function: &dyn Fn(*mut *const c_char) -> Result<(), Fault>| {
            let mut text: *const c_char = std::ptr::null();
            match function(&raw mut text) {
                // SAFETY: on success the driver returns a string of static lifetime, or null for a
                // code that it does not know.
                Ok(()) if !text.is_null() => Some(
                    unsafe { CStr::from_ptr(text) }
                        .to_string_lossy()
                        .into_owned(),
                ),
                _ => None,
            }
        };
        // SAFETY: the pointer is to one pointer.
        let name = ask(&|text| unsafe { self.error_name((code, text)) });
        // SAFETY: as above.
        let text = ask(&|text| unsafe { self.error_string((code, text)) });
        match (name, text) {
            (Some(name), Some(text)) => format!("{name}: {text}"),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => format!("code {code}"),
        }
    }

    /// The error for the caller of a call on `device` that failed with `fault`.
    pub(super) fn error(&self, fault: Fault, device: &str) -> Error {
        match fault {
            Fault::Missing(symbol) => Error::Unsupported {
                what: format!("a call that needs {symbol}, which this driver lacks"),
                device: device.into(),
                remedy: "install a newer driver".into(),
            },
            Fault::Code { call, code } if code == NOT_SUPPORTED => Error::Unsupported {
                what: call.into(),
                device: device.into(),
                remedy: "the driver refuses it on this device".into(),
            },
            Fault::Code { call, code } => Error::Backend {
                call,
                code: code.into(),
                text: format!("{}{}", self.text(code), remedy(code)),
            },
        }
    }
}

/// What is loaded in place of the driver.
fn named() -> Option<OsString> {
    std::env::var_os(LIBRARY_VARIABLE).filter(|name| !name.is_empty())
}

fn no_gpu() -> Missing {
    Missing::Absent(format!(
        "NVIDIA's driver is installed and finds no GPU{}",
        remedy(NO_DEVICE)
    ))
}

fn failed(why: String) -> Missing {
    Missing::Failed(Error::Unavailable {
        device: "cuda".into(),
        why,
    })
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Driver({})", self.version)
    }
}
