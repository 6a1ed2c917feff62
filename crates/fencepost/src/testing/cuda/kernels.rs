//! The suite's kernels, and the driver's functions that only the suite calls.

use std::{
    ffi::{CStr, c_char, c_uint, c_void},
    sync::OnceLock,
};

use crate::{
    cuda::{
        context::Context,
        driver::{DevicePointer, Driver, StreamHandle},
        fault::{Fault, Status, check},
        stream::CudaStream,
    },
    error::Result,
};

/// The driver compiles it for the GPU.
const PTX: &str = concat!(include_str!("kernels.ptx"), "\0");

/// A `CUfunction`.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Function(*mut c_void);

// SAFETY: an opaque name of something in the driver, which the driver's functions take from any
// thread; nothing here reads through it.
unsafe impl Send for Function {}
// SAFETY: as above; and it is plain data.
unsafe impl Sync for Function {}

/// A `CUmodule`.
type Module = *mut c_void;

macro_rules! functions {
    ($($field:ident = $symbol:literal ($($name:ident: $argument:ty),*);)*) => {
        /// Functions of the driver. Each is found or is [`Fault::Missing`] when it is called.
        pub(super) struct Functions {
            $($field: Option<unsafe extern "system" fn($($argument),*) -> Status>,)*
        }

        impl Functions {
            fn load(library: &libloading::Library) -> Functions {
                Functions {
                    // SAFETY: the symbol is a function of the driver API with this C signature; see
                    // https://docs.nvidia.com/cuda/cuda-driver-api/. The library is never unloaded,
                    // so the pointer stays good.
                    $($field: unsafe { library.get(concat!($symbol, "\0").as_bytes()) }
                        .ok()
                        .map(|found| *found),)*
                }
            }

            $(
                /// Calls the driver.
                ///
                /// # Safety
                /// What the driver's own reference asks of the arguments: pointers to memory of
                /// the right size, handles that are alive.
                #[allow(clippy::too_many_arguments)]
                pub(super) unsafe fn $field(&self, $($name: $argument),*) -> Result<(), Fault> {
                    match self.$field {
                        // SAFETY: passed on to the caller.
                        Some(function) => check($symbol, unsafe { function($($name),*) }),
                        None => Err(Fault::Missing($symbol)),
                    }
                }
            )*
        }
    };
}

functions! {
    alloc = "cuMemAlloc_v2" (address: *mut DevicePointer, bytes: usize);
    copy_in = "cuMemcpyHtoD_v2" (to: DevicePointer, from: *const c_void, bytes: usize);
    copy_out = "cuMemcpyDtoH_v2" (to: *mut c_void, from: DevicePointer, bytes: usize);
    copy_in_async = "cuMemcpyHtoDAsync_v2" (
        to: DevicePointer, from: *const c_void, bytes: usize, stream: StreamHandle
    );
    set_async = "cuMemsetD32Async" (
        to: DevicePointer, word: c_uint, words: usize, stream: StreamHandle
    );
    module_load = "cuModuleLoadData" (module: *mut Module, image: *const c_void);
    module_function = "cuModuleGetFunction" (
        function: *mut Function, module: Module, name: *const c_char
    );
    launch_kernel = "cuLaunchKernel" (
        function: Function,
        blocks: c_uint, blocks_y: c_uint, blocks_z: c_uint,
        threads: c_uint, threads_y: c_uint, threads_z: c_uint,
        shared_bytes: c_uint,
        stream: StreamHandle,
        arguments: *mut *mut c_void,
        extra: *mut *mut c_void
    );
}

impl Functions {
    /// Those of the driver that the backend has loaded.
    pub(super) fn get() -> Result<&'static Functions, Fault> {
        static FUNCTIONS: OnceLock<Option<Functions>> = OnceLock::new();
        let found = FUNCTIONS.get_or_init(|| {
            let library = Driver::open_library().ok()?;
            let functions = Functions::load(&library);
            // Never unloaded, as by the backend.
            std::mem::forget(library);
            Some(functions)
        });
        found.as_ref().ok_or(Fault::Missing("library"))
    }
}

/// The kernels of one context.
#[derive(Clone, Copy)]
pub(super) struct Kernels {
    append: Function,
    pub(super) histogram: Function,
    pub(super) reduce: Function,
    spin: Function,
    trap: Function,
}

impl Kernels {
    pub(super) fn load(context: &Context) -> Result<Kernels> {
        let load = context.calls.current(|| {
            let driver = Functions::get()?;
            let mut module: Module = std::ptr::null_mut();
            // SAFETY: PTX text that ends with a zero, which the driver copies.
            unsafe { driver.module_load(&raw mut module, PTX.as_ptr().cast::<c_void>()) }?;
            let function = |name: &CStr| {
                let mut function = Function(std::ptr::null_mut());
                // SAFETY: the module was just loaded and is never unloaded; the name is a C string.
                unsafe { driver.module_function(&raw mut function, module, name.as_ptr()) }?;
                Ok::<_, Fault>(function)
            };
            Ok(Kernels {
                append: function(c"fencepost_append")?,
                histogram: function(c"fencepost_histogram")?,
                reduce: function(c"fencepost_reduce")?,
                spin: function(c"fencepost_spin")?,
                trap: function(c"fencepost_trap")?,
            })
        });
        load.map_err(|fault| context.failed(fault, None))
    }

    /// Appends `token` to the log at this address.
    pub(super) fn append(&self, stream: &CudaStream, log: DevicePointer, token: u32) -> Result<()> {
        let (mut log, mut token) = (log, token);
        let mut arguments = [
            (&raw mut log).cast::<c_void>(),
            (&raw mut token).cast::<c_void>(),
        ];
        // SAFETY: the kernel takes these two; the log is page-locked memory that is never freed.
        unsafe { launch(stream, self.append, (1, 1), &mut arguments) }
    }

    pub(super) fn spin(&self, stream: &CudaStream, nanos: u64) -> Result<()> {
        let mut nanos = nanos;
        let mut arguments = [(&raw mut nanos).cast::<c_void>()];
        // SAFETY: the kernel takes this one.
        unsafe { launch(stream, self.spin, (1, 1), &mut arguments) }
    }

    pub(super) fn trap(&self, stream: &CudaStream) -> Result<()> {
        // SAFETY: the kernel takes none.
        unsafe { launch(stream, self.trap, (1, 1), &mut []) }
    }
}

/// Launches `function` on `stream` with this number of blocks and of threads in each.
///
/// # Safety
/// The function is of the stream's context. `arguments` point to values of the types that it takes
/// (kernels.cu), which the driver copies before it returns; what device addresses among them name
/// is alive until the kernel has run.
pub(super) unsafe fn launch(
    stream: &CudaStream,
    function: Function,
    (blocks, threads): (u32, u32),
    arguments: &mut [*mut c_void],
) -> Result<()> {
    let launched = stream.native.call(|raw| {
        let none = std::ptr::null_mut();
        // SAFETY: passed on to the caller.
        unsafe {
            Functions::get()?.launch_kernel(
                function,
                blocks,
                1,
                1,
                threads,
                1,
                1,
                0,
                raw,
                arguments.as_mut_ptr(),
                none,
            )
        }
    });
    launched.map_err(|fault| stream.context.failed(fault, None))
}
