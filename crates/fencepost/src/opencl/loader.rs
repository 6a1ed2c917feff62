//! The loader's functions, which are found at run time, and the devices that it finds. Only this
//! file knows their C signatures.
//!
//! - **Own table, each symbol optional.** Without the loader the backend is unavailable. Without a
//!   symbol, the one call that needs it fails with [`Fault::Missing`]. Nothing panics.
//! - **Loaded once, never unloaded.** Drivers have threads and exit handlers of their own.
//! - **Handles are opaque.** They are passed back unchanged and never dereferenced. They may cross
//!   threads: OpenCL's calls are thread-safe but for those on one `cl_kernel`
//!   ([multiple host threads](https://registry.khronos.org/OpenCL/specs/3.0-unified/html/OpenCL_API.html#_multiple_host_threads)).

use std::{
    ffi::{CStr, OsString, c_char, c_void},
    fmt,
    path::{Path, PathBuf},
};

use super::fault::{DEVICE_NOT_FOUND, Fault, PLATFORM_NOT_FOUND, Status, check};
use crate::{
    contract::Missing,
    error::Error,
    fork::{Once, Process},
};

/// The environment variable that names a library to load in place of the system's loader.
const LIBRARY_VARIABLE: &str = "FENCEPOST_OPENCL_LIBRARY";

const LIBRARY: &str = if cfg!(windows) {
    "OpenCL.dll"
} else if cfg!(target_vendor = "apple") {
    "/System/Library/Frameworks/OpenCL.framework/OpenCL"
} else {
    "libOpenCL.so.1"
};

macro_rules! handles {
    ($($name:ident $what:literal)*) => {$(
        #[doc = $what]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(transparent)]
        pub(crate) struct $name(pub(crate) *mut c_void);

        // SAFETY: an opaque handle, which the loader's functions take from any thread. Nothing here
        // dereferences it.
        unsafe impl Send for $name {}
        // SAFETY: as above; and it is plain data.
        unsafe impl Sync for $name {}

        impl $name {
            #[allow(dead_code)] // Some kinds of handle are never null here.
            pub(crate) const NULL: $name = $name(std::ptr::null_mut());
        }
    )*};
}

handles! {
    PlatformHandle "A `cl_platform_id`."
    DeviceHandle "A `cl_device_id`."
    ContextHandle "A `cl_context`."
    QueueHandle "A `cl_command_queue`."
    EventHandle "A `cl_event`."
    ProgramHandle "A `cl_program`."
    KernelHandle "A `cl_kernel`."
    MemoryHandle "A `cl_mem`."
}

/// What `clSetEventCallback` calls.
pub(super) type EventCallback = extern "system" fn(EventHandle, Status, *mut c_void);

type ContextCallback = extern "system" fn(*const c_char, *const c_void, usize, *mut c_void);
type BuildCallback = extern "system" fn(ProgramHandle, *mut c_void);

macro_rules! table {
    ($($field:ident = $symbol:literal ($($name:ident: $argument:ty),*) -> $result:ty;)*) => {
        /// The functions that were found.
        #[cfg_attr(not(feature = "conformance"), allow(dead_code))] // Some are for test work alone.
        pub(super) struct Table {
            $($field: Option<unsafe extern "system" fn($($argument),*) -> $result>,)*
        }

        impl Table {
            fn load(library: &libloading::Library) -> Table {
                Table {
                    // SAFETY: the symbol is a function of OpenCL with this C signature; see
                    // https://registry.khronos.org/OpenCL/specs/3.0-unified/html/OpenCL_API.html.
                    // The library is never unloaded, so the pointer stays good.
                    $($field: unsafe {
                        let found = library.get(concat!($symbol, "\0").as_bytes());
                        found.ok().map(|found| *found)
                    },)*
                }
            }
        }

        #[allow(clippy::too_many_arguments)]
        #[cfg_attr(not(feature = "conformance"), allow(dead_code))] // As above.
        impl Loader {
            $(
                /// Calls the function.
                ///
                /// # Safety
                /// The arguments are as the reference demands: pointers are to memory of the right
                /// size, and handles are alive.
                #[inline]
                pub(crate) unsafe fn $field(&self, $($name: $argument),*)
                    -> Result<<$result as Returned>::Of, Fault>
                {
                    match self.table.$field {
                        // SAFETY: passed on to the caller.
                        Some(function) => unsafe { function($($name),*) }.result($symbol),
                        None => Err(Fault::Missing($symbol)),
                    }
                }
            )*
        }
    };
}

/// What a function returns, as a result.
pub(crate) trait Returned {
    type Of;
    fn result(self, call: &'static str) -> Result<Self::Of, Fault>;
}

impl Returned for Status {
    type Of = ();

    #[inline]
    fn result(self, call: &'static str) -> Result<(), Fault> {
        check(call, self)
    }
}

/// An object that was made; the caller checks the code that the function writes elsewhere.
impl Returned for *mut c_void {
    type Of = *mut c_void;

    #[inline]
    fn result(self, _: &'static str) -> Result<*mut c_void, Fault> {
        Ok(self)
    }
}

table! {
    platforms = "clGetPlatformIDs" (room: u32, out: *mut PlatformHandle, count: *mut u32) -> Status;
    platform_info = "clGetPlatformInfo"
        (platform: PlatformHandle, what: u32, size: usize, out: *mut c_void, needed: *mut usize)
        -> Status;
    devices = "clGetDeviceIDs"
        (platform: PlatformHandle, kind: u64, room: u32, out: *mut DeviceHandle, count: *mut u32)
        -> Status;
    device_info = "clGetDeviceInfo"
        (device: DeviceHandle, what: u32, size: usize, out: *mut c_void, needed: *mut usize)
        -> Status;
    create_context = "clCreateContext"
        (properties: *const isize, count: u32, devices: *const DeviceHandle,
         callback: Option<ContextCallback>, data: *mut c_void, code: *mut Status) -> *mut c_void;
    context_info = "clGetContextInfo"
        (context: ContextHandle, what: u32, size: usize, out: *mut c_void, needed: *mut usize)
        -> Status;
    retain_context = "clRetainContext" (context: ContextHandle) -> Status;
    release_context = "clReleaseContext" (context: ContextHandle) -> Status;
    create_queue = "clCreateCommandQueueWithProperties"
        (context: ContextHandle, device: DeviceHandle, properties: *const u64, code: *mut Status)
        -> *mut c_void;
    create_queue_1 = "clCreateCommandQueue"
        (context: ContextHandle, device: DeviceHandle, properties: u64, code: *mut Status)
        -> *mut c_void;
    retain_queue = "clRetainCommandQueue" (queue: QueueHandle) -> Status;
    release_queue = "clReleaseCommandQueue" (queue: QueueHandle) -> Status;
    queue_info = "clGetCommandQueueInfo"
        (queue: QueueHandle, what: u32, size: usize, out: *mut c_void, needed: *mut usize)
        -> Status;
    flush = "clFlush" (queue: QueueHandle) -> Status;
    marker = "clEnqueueMarkerWithWaitList"
        (queue: QueueHandle, count: u32, list: *const EventHandle, out: *mut EventHandle) -> Status;
    barrier = "clEnqueueBarrierWithWaitList"
        (queue: QueueHandle, count: u32, list: *const EventHandle, out: *mut EventHandle) -> Status;
    create_user_event = "clCreateUserEvent" (context: ContextHandle, code: *mut Status)
        -> *mut c_void;
    set_user_event = "clSetUserEventStatus" (event: EventHandle, status: Status) -> Status;
    event_info = "clGetEventInfo"
        (event: EventHandle, what: u32, size: usize, out: *mut c_void, needed: *mut usize)
        -> Status;
    event_time = "clGetEventProfilingInfo"
        (event: EventHandle, what: u32, size: usize, out: *mut c_void, needed: *mut usize)
        -> Status;
    event_callback = "clSetEventCallback"
        (event: EventHandle, status: Status, callback: EventCallback, data: *mut c_void) -> Status;
    wait_for_events = "clWaitForEvents" (count: u32, list: *const EventHandle) -> Status;
    release_event = "clReleaseEvent" (event: EventHandle) -> Status;
    device_and_host_timer = "clGetDeviceAndHostTimer"
        (device: DeviceHandle, device_time: *mut u64, host_time: *mut u64) -> Status;
    create_buffer = "clCreateBuffer"
        (context: ContextHandle, flags: u64, size: usize, host: *mut c_void, code: *mut Status)
        -> *mut c_void;
    release_memory = "clReleaseMemObject" (memory: MemoryHandle) -> Status;
    fill = "clEnqueueFillBuffer"
        (queue: QueueHandle, memory: MemoryHandle, pattern: *const c_void, pattern_size: usize,
         offset: usize, size: usize, count: u32, list: *const EventHandle, out: *mut EventHandle)
        -> Status;
    write = "clEnqueueWriteBuffer"
        (queue: QueueHandle, memory: MemoryHandle, blocking: u32, offset: usize, size: usize,
         from: *const c_void, count: u32, list: *const EventHandle, out: *mut EventHandle)
        -> Status;
    read = "clEnqueueReadBuffer"
        (queue: QueueHandle, memory: MemoryHandle, blocking: u32, offset: usize, size: usize,
         to: *mut c_void, count: u32, list: *const EventHandle, out: *mut EventHandle) -> Status;
    create_program = "clCreateProgramWithSource"
        (context: ContextHandle, count: u32, texts: *const *const c_char, lengths: *const usize,
         code: *mut Status) -> *mut c_void;
    build = "clBuildProgram"
        (program: ProgramHandle, count: u32, devices: *const DeviceHandle, options: *const c_char,
         callback: Option<BuildCallback>, data: *mut c_void) -> Status;
    build_info = "clGetProgramBuildInfo"
        (program: ProgramHandle, device: DeviceHandle, what: u32, size: usize, out: *mut c_void,
         needed: *mut usize) -> Status;
    create_kernel = "clCreateKernel"
        (program: ProgramHandle, name: *const c_char, code: *mut Status) -> *mut c_void;
    release_kernel = "clReleaseKernel" (kernel: KernelHandle) -> Status;
    set_argument = "clSetKernelArg"
        (kernel: KernelHandle, index: u32, size: usize, value: *const c_void) -> Status;
    launch = "clEnqueueNDRangeKernel"
        (queue: QueueHandle, kernel: KernelHandle, dimensions: u32, offset: *const usize,
         global: *const usize, local: *const usize, count: u32, list: *const EventHandle,
         out: *mut EventHandle) -> Status;
}

/// `CL_QUEUE_PROFILING_ENABLE`.
pub(super) const PROFILING: u64 = 2;
/// `CL_QUEUE_PROPERTIES`.
const QUEUE_PROPERTIES: u64 = 0x1093;

/// `CL_DEVICE_TYPE_ALL`.
const ALL: u64 = 0xFFFF_FFFF;
/// `CL_DEVICE_TYPE_GPU` and `CL_DEVICE_TYPE_ACCELERATOR`.
const HARDWARE: u64 = 0b1100;

/// What is asked of platforms and devices.
pub(super) mod ask {
    pub(in crate::opencl) const PLATFORM_NAME: u32 = 0x0902;
    pub(in crate::opencl) const PLATFORM_VERSION: u32 = 0x0901;
    pub(in crate::opencl) const DEVICE_TYPE: u32 = 0x1000;
    pub(in crate::opencl) const DEVICE_CACHE_BYTES: u32 = 0x101E;
    pub(in crate::opencl) const DEVICE_TIMER_RESOLUTION: u32 = 0x1025;
    pub(in crate::opencl) const DEVICE_NAME: u32 = 0x102B;
    pub(in crate::opencl) const DEVICE_VERSION: u32 = 0x102F;
    pub(in crate::opencl) const DEVICE_PLATFORM: u32 = 0x1031;
    /// Of the extension `cl_khr_device_uuid`.
    pub(in crate::opencl) const DEVICE_UUID: u32 = 0x106A;
    pub(in crate::opencl) const CONTEXT_DEVICES: u32 = 0x1081;
    pub(in crate::opencl) const QUEUE_CONTEXT: u32 = 0x1090;
    pub(in crate::opencl) const QUEUE_DEVICE: u32 = 0x1091;
    pub(in crate::opencl) const QUEUE_PROPERTIES: u32 = 0x1093;
    pub(in crate::opencl) const EVENT_STATUS: u32 = 0x11D3;
    pub(in crate::opencl) const TIME_OF_END: u32 = 0x1283;
}

/// The loader, with the devices that it has found.
pub(crate) struct Loader {
    table: Table,
    /// In the order of their numbers: platform by platform.
    pub(super) found: Vec<DeviceHandle>,
    /// The process that loaded it.
    process: Process,
}

static LOADER: Once<Loader> = Once::new();

impl Loader {
    /// The loader; or why it cannot be used, and what to do about that. The next call tries again
    /// then. In a forked child it must not be called.
    pub(super) fn get() -> Result<&'static Loader, Missing> {
        LOADER.get_or_try_make(Loader::load, || {
            Missing::Failed(Error::Forked {
                device: "opencl".into(),
            })
        })
    }

    /// The loader, for calls on this device.
    pub(super) fn to_call(device: &str) -> Result<&'static Loader, Error> {
        let loader = Loader::get().map_err(|missing| missing.error(device))?;
        match loader.is_forked() {
            false => Ok(loader),
            true => Err(Error::Forked {
                device: device.into(),
            }),
        }
    }

    /// Whether this process was forked from the one that loaded it.
    pub(super) fn is_forked(&self) -> bool {
        !self.process.is_this()
    }

    fn load() -> Result<Loader, Missing> {
        let library = open_library()?;
        let mut loader = Loader {
            table: Table::load(&library),
            found: Vec::new(),
            process: Process::this(),
        };
        // Drivers have threads and exit handlers: unloading them is never safe.
        std::mem::forget(library);
        loader.found = loader.find()?;
        Ok(loader)
    }

    /// The devices of all platforms that have what the backend needs.
    fn find(&self) -> Result<Vec<DeviceHandle>, Missing> {
        let platforms = self.all_platforms().map_err(|fault| match fault {
            Fault::Code { code, .. } if code == PLATFORM_NOT_FOUND => no_platform(),
            Fault::Missing(symbol) => failed(format!(
                "the library {} is no OpenCL loader: it has no {symbol}",
                match named() {
                    Some(name) => format!(
                        "{}, which {LIBRARY_VARIABLE} names,",
                        Path::new(&name).display()
                    ),
                    None => LIBRARY.into(),
                }
            )),
            Fault::Code { .. } => failed(fault.to_string()),
        })?;
        if platforms.is_empty() {
            return Err(no_platform());
        }
        let (mut found, mut reasons) = (Vec::new(), Vec::new());
        for platform in platforms {
            match self.devices_of(platform) {
                Ok(devices) if devices.is_empty() => {
                    reasons.push(format!("{} has no device", self.describe(platform)));
                }
                Ok(devices) => {
                    for device in devices {
                        match self.is_too_old(device) {
                            false => found.push(device),
                            true => reasons.push(format!(
                                "{} is older than OpenCL 1.2",
                                self.text(device, ask::DEVICE_NAME)
                            )),
                        }
                    }
                }
                Err(fault) => reasons.push(format!("{}: {fault}", self.describe(platform))),
            }
        }
        match found.is_empty() {
            false => Ok(found),
            true => Err(Missing::Absent(format!(
                "OpenCL is installed and finds no device: {}",
                reasons.join("; ")
            ))),
        }
    }

    fn all_platforms(&self) -> Result<Vec<PlatformHandle>, Fault> {
        let mut count = 0;
        // SAFETY: `count` is a u32, and there is no room for a platform.
        unsafe { self.platforms(0, std::ptr::null_mut(), &raw mut count) }?;
        // No room is an error with a place for platforms.
        if count == 0 {
            return Ok(Vec::new());
        }
        let mut platforms = vec![PlatformHandle::NULL; count as usize];
        // SAFETY: there is room for `count` platforms.
        unsafe { self.platforms(count, platforms.as_mut_ptr(), &raw mut count) }?;
        platforms.truncate(count as usize);
        Ok(platforms)
    }

    fn devices_of(&self, platform: PlatformHandle) -> Result<Vec<DeviceHandle>, Fault> {
        let mut count = 0;
        // SAFETY: the platform is one of the loader's; `count` is a u32, and there is no room for a
        // device.
        match unsafe { self.devices(platform, ALL, 0, std::ptr::null_mut(), &raw mut count) } {
            Err(fault) if fault.code() == Some(DEVICE_NOT_FOUND) => return Ok(Vec::new()),
            asked => asked?,
        }
        if count == 0 {
            return Ok(Vec::new());
        }
        let mut devices = vec![DeviceHandle::NULL; count as usize];
        // SAFETY: as above, with room for `count` devices.
        unsafe { self.devices(platform, ALL, count, devices.as_mut_ptr(), &raw mut count) }?;
        devices.truncate(count as usize);
        Ok(devices)
    }

    /// Whether the device is older than OpenCL 1.2, which brought markers with a wait list.
    fn is_too_old(&self, device: DeviceHandle) -> bool {
        let version = self.version_of(device);
        version.is_some_and(|version| version < (1, 2))
    }

    /// The version of OpenCL that a device has; `None`, below every other, where it does not say.
    /// What a later version brought must not be called. A newer loader has a function for it all
    /// the same, which calls whatever the driver's table has in that place.
    pub(super) fn version_of(&self, device: DeviceHandle) -> Option<(u32, u32)> {
        version(&self.text(device, ask::DEVICE_VERSION))
    }

    /// A platform's name and version.
    fn describe(&self, platform: PlatformHandle) -> String {
        let part = |what| {
            text(|size, out, needed| {
                // SAFETY: the platform is one of the loader's; there is room for `size` bytes.
                unsafe { self.platform_info(platform, what, size, out, needed) }
            })
        };
        let name = part(ask::PLATFORM_NAME).unwrap_or_else(|_| "a platform".into());
        match part(ask::PLATFORM_VERSION) {
            Ok(version) => format!("{name} ({})", version.trim()),
            Err(_) => name,
        }
    }

    /// The platform of a device: its name and version.
    pub(super) fn platform_of(&self, device: DeviceHandle) -> String {
        match self.fact(device, ask::DEVICE_PLATFORM, PlatformHandle::NULL) {
            Ok(platform) => self.describe(platform),
            Err(_) => "a platform that its driver does not name".into(),
        }
    }

    /// What a device says of itself, in words; empty where it does not say.
    pub(super) fn text(&self, device: DeviceHandle, what: u32) -> String {
        let asked = text(|size, out, needed| {
            // SAFETY: the device is one of the loader's; there is room for `size` bytes.
            unsafe { self.device_info(device, what, size, out, needed) }
        });
        asked.unwrap_or_default().trim().into()
    }

    /// A fact of a device, which is as large as `initial`.
    pub(super) fn fact<T: Copy>(
        &self,
        device: DeviceHandle,
        what: u32,
        initial: T,
    ) -> Result<T, Fault> {
        let mut value = initial;
        let out = (&raw mut value).cast();
        let size = size_of::<T>();
        // SAFETY: `value` has room for `size` bytes, and the callers ask for plain data.
        unsafe { self.device_info(device, what, size, out, std::ptr::null_mut()) }?;
        Ok(value)
    }

    /// The devices of a context, in the order in which it was made with them.
    ///
    /// # Safety
    /// The context is alive.
    pub(super) unsafe fn devices_in(
        &self,
        context: ContextHandle,
    ) -> Result<Vec<DeviceHandle>, Fault> {
        let (what, none) = (ask::CONTEXT_DEVICES, std::ptr::null_mut());
        let mut bytes = 0;
        // SAFETY: passed on to the caller; there is no room for a device.
        unsafe { self.context_info(context, what, 0, none, &raw mut bytes) }?;
        let mut devices = vec![DeviceHandle::NULL; bytes / size_of::<DeviceHandle>()];
        let (room, out) = (size_of_val(&*devices), devices.as_mut_ptr().cast());
        // SAFETY: as above, with room for so many bytes.
        unsafe { self.context_info(context, what, room, out, std::ptr::null_mut()) }?;
        Ok(devices)
    }

    /// A fact of a queue, which is as large as `initial`.
    ///
    /// # Safety
    /// The queue is alive. `initial` is of the type of the answer.
    pub(super) unsafe fn of_queue<T: Copy>(
        &self,
        queue: QueueHandle,
        what: u32,
        initial: T,
    ) -> Result<T, Fault> {
        let mut value = initial;
        let (out, size) = ((&raw mut value).cast(), size_of::<T>());
        // SAFETY: passed on to the caller; `value` has room for `size` bytes.
        unsafe { self.queue_info(queue, what, size, out, std::ptr::null_mut()) }?;
        Ok(value)
    }

    /// A new queue of a context that is retained, for a device of it.
    pub(super) fn new_queue(
        &self,
        context: ContextHandle,
        device: DeviceHandle,
        properties: u64,
    ) -> Result<QueueHandle, Fault> {
        let mut code = 0;
        if self.version_of(device) >= Some((2, 0)) {
            let list = [QUEUE_PROPERTIES, properties, 0];
            // SAFETY: the context is retained, and the device is of it; the list ends with 0.
            let queue = unsafe { self.create_queue(context, device, list.as_ptr(), &raw mut code) };
            // A loader of OpenCL 1.2, such as Wine's, has no such function for a newer device.
            if !matches!(queue, Err(Fault::Missing(_))) {
                check("clCreateCommandQueueWithProperties", code)?;
                return Ok(QueueHandle(queue?));
            }
        }
        // SAFETY: as above.
        let queue = unsafe { self.create_queue_1(context, device, properties, &raw mut code) };
        check("clCreateCommandQueue", code)?;
        Ok(QueueHandle(queue?))
    }

    /// Whether the device is no CPU.
    pub(super) fn is_hardware(&self, device: DeviceHandle) -> bool {
        self.fact(device, ask::DEVICE_TYPE, 0_u64)
            .is_ok_and(|kind| kind & HARDWARE != 0)
    }
}

/// The version that a text such as `OpenCL 1.2 pocl` begins with.
fn version(text: &str) -> Option<(u32, u32)> {
    let version = text.strip_prefix("OpenCL ")?.split(' ').next()?;
    let (major, minor) = version.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// A text that a function gives in two calls: its length, then its bytes.
pub(crate) fn text(
    ask: impl Fn(usize, *mut c_void, *mut usize) -> Result<(), Fault>,
) -> Result<String, Fault> {
    let mut needed = 0;
    ask(0, std::ptr::null_mut(), &raw mut needed)?;
    let mut bytes = vec![0_u8; needed];
    ask(needed, bytes.as_mut_ptr().cast(), std::ptr::null_mut())?;
    let text = CStr::from_bytes_until_nul(&bytes).map(CStr::to_bytes);
    Ok(String::from_utf8_lossy(text.unwrap_or(&bytes)).into_owned())
}

/// The loader's library. Opening it again gives the same library.
fn open_library() -> Result<libloading::Library, Missing> {
    let named = named();
    let path = named.clone().unwrap_or_else(|| LIBRARY.into());
    // SAFETY: loading runs the library's initialisers. The default is the system's own loader; the
    // variable is set by whoever runs the process, as LD_PRELOAD would be.
    unsafe { libloading::Library::new(&path) }.map_err(|error| match named {
        Some(_) => failed(format!(
            "{LIBRARY_VARIABLE} names a library that cannot be loaded ({}); name an OpenCL loader, \
             or unset it for the system's",
            reason(&error)
        )),
        None => Missing::Absent(format!(
            "no OpenCL loader is installed ({LIBRARY} was not found); install one \
             (Debian's ocl-icd-libopencl1) and a driver, such as the GPU's own or PoCL \
             (pocl-opencl-icd)"
        )),
    })
}

/// The system's words for why a library was not loaded.
fn reason(error: &libloading::Error) -> String {
    std::error::Error::source(error).map_or(error.to_string(), ToString::to_string)
}

/// What is loaded in place of the loader.
fn named() -> Option<OsString> {
    std::env::var_os(LIBRARY_VARIABLE).filter(|name| !name.is_empty())
}

/// The loader has found no driver: why not, as far as that can be seen from here.
fn no_platform() -> Missing {
    let variable = std::env::var_os("OCL_ICD_VENDORS").filter(|name| !name.is_empty());
    let vendors = PathBuf::from(variable.clone().unwrap_or("/etc/OpenCL/vendors".into()));
    let (set_by, remedy) = match variable {
        Some(_) => (
            format!(" (OCL_ICD_VENDORS is {})", vendors.display()),
            "unset OCL_ICD_VENDORS, or ",
        ),
        None => (String::new(), ""),
    };
    let mut text = format!("an OpenCL loader is installed and finds no driver{set_by}");
    for line in broken_drivers(&vendors) {
        text.push_str("; ");
        text.push_str(&line);
    }
    text.push_str("; ");
    text.push_str(remedy);
    text.push_str("install a driver, such as the GPU's own or PoCL (pocl-opencl-icd)");
    Missing::Absent(text)
}

/// The drivers that files in `vendors`, or that file, name and that cannot be loaded, with the
/// reason. A loader itself says nothing of them.
fn broken_drivers(vendors: &Path) -> Vec<String> {
    let files: Vec<PathBuf> = match std::fs::read_dir(vendors) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
        Err(_) => vec![vendors.into()],
    };
    let of_driver = |file: &PathBuf| file.extension().is_some_and(|end| end == "icd");
    let broken = |file: PathBuf| {
        let text = match std::fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) => return Some(format!("{} cannot be read: {error}", file.display())),
        };
        let library = text.lines().next().unwrap_or("").trim().to_owned();
        // SAFETY: the loader has just tried to load the same library.
        match unsafe { libloading::Library::new(&library) } {
            Ok(loaded) => {
                // Unloading a driver is never safe.
                std::mem::forget(loaded);
                None
            }
            Err(error) => Some(format!(
                "{} names {library}, which cannot be loaded ({})",
                file.display(),
                reason(&error)
            )),
        }
    };
    files
        .into_iter()
        .filter(of_driver)
        .filter_map(broken)
        .collect()
}

fn failed(why: String) -> Missing {
    Missing::Failed(Error::Unavailable {
        device: "opencl".into(),
        why,
    })
}

impl fmt::Debug for Loader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Loader({} devices)", self.found.len())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_drivers_write_them() {
        for (text, expected) in [
            ("OpenCL 1.2 (Oclgrind 21.10)", Some((1, 2))),
            ("OpenCL 3.0 PoCL HSTR: cpu", Some((3, 0))),
            ("OpenCL 3.1 ", Some((3, 1))),
            ("OpenCL 1.1", Some((1, 1))),
            ("", None),
            ("OpenCL C 1.2", None),
        ] {
            assert_eq!(version(text), expected, "{text}");
        }
    }

    #[test]
    fn a_driver_that_cannot_be_loaded_is_named_with_its_file() {
        let folder = std::env::temp_dir().join(format!("fencepost-icd-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("broken.icd");
        std::fs::write(&file, "/nowhere/libdriver.so\n").unwrap();
        // A folder, and one file of it.
        for vendors in [&folder, &file] {
            let broken = broken_drivers(vendors);
            assert_eq!(broken.len(), 1, "{broken:?}");
            for part in ["broken.icd", "/nowhere/libdriver.so", "cannot be loaded"] {
                assert!(broken[0].contains(part), "{broken:?}");
            }
        }
        let missing = broken_drivers(&folder.join("missing.icd"));
        assert!(missing[0].contains("cannot be read"), "{missing:?}");
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(broken_drivers(&folder).is_empty());
    }
}
