//! The few functions of the driver that are asked how far streams are. None of them is followed,
//! and none blocks by what CUDA's documentation says:
//! <https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__STREAM.html>.

use std::{
    ffi::{CString, c_int, c_uint, c_void},
    os::unix::ffi::OsStrExt,
};

type Query = unsafe extern "C" fn(usize) -> c_int;
type Put = unsafe extern "C" fn(*mut c_int) -> c_int;
type PrimaryState = unsafe extern "C" fn(c_int, *mut c_uint, *mut c_int) -> c_int;
type PutHandle = unsafe extern "C" fn(*mut usize) -> c_int;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Driver {
    stream_query: Query,
    event_query: Query,
    push: Query,
    pop: PutHandle,
    device: Put,
    exchange_mode: Put,
    primary_state: PrimaryState,
}

pub(crate) const SUCCESS: c_int = 0;
pub(crate) const NOT_READY: c_int = 600;
/// `CU_STREAM_CAPTURE_MODE_RELAXED`.
const RELAXED: c_int = 2;

/// A library that is in the process already, or that the variable names.
pub(crate) fn open(variable: &str, names: &[&str]) -> Option<*mut c_void> {
    match std::env::var_os(variable) {
        Some(path) => dlopen(path.as_bytes(), 0),
        None => loaded(names),
    }
}

/// The first of these libraries that is in the process already.
pub(crate) fn loaded(names: &[&str]) -> Option<*mut c_void> {
    names
        .iter()
        .find_map(|name| dlopen(name.as_bytes(), libc::RTLD_NOLOAD))
}

fn dlopen(name: &[u8], flags: c_int) -> Option<*mut c_void> {
    let name = CString::new(name).ok()?;
    // SAFETY: the name is a C string; the library is one that the program uses, or was told to
    let library = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_LAZY | flags) };
    (!library.is_null()).then_some(library)
}

/// A function of a library.
pub(crate) fn symbol(library: *mut c_void, name: &str) -> Option<*mut c_void> {
    let name = CString::new(name).ok()?;
    // SAFETY: the library is open, and the name a C string
    let found = unsafe { libc::dlsym(library, name.as_ptr()) };
    (!found.is_null()).then_some(found)
}

impl Driver {
    /// The driver that has loaded this library.
    pub(crate) fn find() -> Option<Driver> {
        let library = open("FENCEPOST_CUDA_LIBRARY", &["libcuda.so.1", "libcuda.so"])?;
        let find = |name| symbol(library, name);
        // SAFETY: cuda.h declares the functions of these names with these types
        unsafe {
            Some(Driver {
                stream_query: std::mem::transmute::<*mut c_void, Query>(find("cuStreamQuery")?),
                event_query: std::mem::transmute::<*mut c_void, Query>(find("cuEventQuery")?),
                push: std::mem::transmute::<*mut c_void, Query>(find("cuCtxPushCurrent_v2")?),
                pop: std::mem::transmute::<*mut c_void, PutHandle>(find("cuCtxPopCurrent_v2")?),
                device: std::mem::transmute::<*mut c_void, Put>(find("cuCtxGetDevice")?),
                primary_state: std::mem::transmute::<*mut c_void, PrimaryState>(find(
                    "cuDevicePrimaryCtxGetState",
                )?),
                exchange_mode: std::mem::transmute::<*mut c_void, Put>(find(
                    "cuThreadExchangeStreamCaptureMode",
                )?),
            })
        }
    }

    /// From now on, calls of this thread break no capture of other threads.
    pub(crate) fn relax(&self) {
        let mut mode = RELAXED;
        // SAFETY: the pointer is to an int, and the function is documented for any thread
        unsafe { (self.exchange_mode)(&raw mut mode) };
    }

    /// Whether the device's primary context is there.
    pub(crate) fn is_active(&self, device: c_int) -> bool {
        let (mut flags, mut active) = (0, 0);
        // SAFETY: the pointers are to numbers of these types
        let code = unsafe { (self.primary_state)(device, &raw mut flags, &raw mut active) };
        code == SUCCESS && active != 0
    }

    /// # Safety
    /// The stream is not destroyed meanwhile.
    pub(crate) unsafe fn stream_query(&self, stream: usize) -> c_int {
        // SAFETY: the caller vouches for it
        unsafe { (self.stream_query)(stream) }
    }

    /// # Safety
    /// The event is not destroyed meanwhile.
    pub(crate) unsafe fn event_query(&self, event: usize) -> c_int {
        // SAFETY: the caller vouches for it
        unsafe { (self.event_query)(event) }
    }

    /// Runs `body` with the context current, and tells the number of its device.
    ///
    /// # Safety
    /// The context is not destroyed meanwhile.
    pub(crate) unsafe fn within<R>(
        &self,
        context: usize,
        body: impl FnOnce(Option<c_int>) -> R,
    ) -> Option<R> {
        // SAFETY: the caller vouches for it
        if unsafe { (self.push)(context) } != SUCCESS {
            return None;
        }
        let mut device = -1;
        // SAFETY: the pointer is to an int
        let code = unsafe { (self.device)(&raw mut device) };
        let result = body((code == SUCCESS).then_some(device));
        let mut popped = 0;
        // SAFETY: the pointer is to a handle; it takes away what was pushed above
        unsafe { (self.pop)(&raw mut popped) };
        Some(result)
    }
}
