//! The stand-in's functions, as a program that is linked with the driver calls them.

use std::ffi::{c_char, c_int, c_uint, c_void};

use libloading::Library;

macro_rules! functions {
    ($($name:ident = $symbol:literal ($($argument:ident: $type:ty),*);)*) => {
        /// The driver.
        pub(crate) struct Cuda { $(pub(crate) $name: unsafe extern "C" fn($($type),*) -> c_int,)* }

        impl Cuda {
            pub(crate) fn load(path: &std::path::Path) -> Cuda {
                // SAFETY: the library is the stand-in, which may be loaded anywhere
                let library = unsafe { Library::new(path) }.expect("the stand-in loads");
                let library: &'static Library = Box::leak(Box::new(library));
                Cuda {
                    // SAFETY: cuda.h declares the functions of these names with these types
                    $($name: *unsafe { library.get($symbol.to_bytes_with_nul()) }
                        .expect(stringify!($name)),)*
                }
            }

            // The driver's functions have that many arguments.
            $(#[allow(clippy::too_many_arguments)]
            pub(crate) fn $name(&self, $($argument: $type),*) {
                // SAFETY: the scenarios pass what each function takes
                let code = unsafe { (self.$name)($($argument),*) };
                assert_eq!(code, 0, "{}", stringify!($name));
            })*
        }
    };
}

impl Cuda {
    /// As `create_stream`, with its code.
    ///
    /// # Safety
    /// The pointer is to a handle.
    pub(crate) unsafe fn call_create_stream(&self, stream: *mut Stream, flags: c_uint) -> c_int {
        // SAFETY: the caller vouches for it
        unsafe { (self.create_stream)(stream, flags) }
    }
}

pub(crate) type Stream = usize;
pub(crate) type Event = usize;

functions! {
    init = c"cuInit" (flags: c_uint);
    retain = c"cuDevicePrimaryCtxRetain" (context: *mut usize, device: c_int);
    set_current = c"cuCtxSetCurrent" (context: usize);
    synchronize = c"cuCtxSynchronize" ();
    create_stream = c"cuStreamCreate" (stream: *mut Stream, flags: c_uint);
    destroy_stream = c"cuStreamDestroy_v2" (stream: Stream);
    synchronize_stream = c"cuStreamSynchronize" (stream: Stream);
    create_event = c"cuEventCreate" (event: *mut Event, flags: c_uint);
    destroy_event = c"cuEventDestroy_v2" (event: Event);
    record = c"cuEventRecord" (event: Event, stream: Stream);
    wait = c"cuStreamWaitEvent" (stream: Stream, event: Event, flags: c_uint);
    synchronize_event = c"cuEventSynchronize" (event: Event);
    wait_value =
        c"cuStreamWaitValue32_v2" (stream: Stream, address: u64, value: u32, flags: c_uint);
    write_value =
        c"cuStreamWriteValue32_v2" (stream: Stream, address: u64, value: u32, flags: c_uint);
    allocate_host = c"cuMemHostAlloc" (pointer: *mut *mut c_void, len: usize, flags: c_uint);
    allocate = c"cuMemAlloc_v2" (address: *mut u64, len: usize);
    free = c"cuMemFree_v2" (address: u64);
    load_module = c"cuModuleLoadData" (module: *mut usize, image: *const c_void);
    get_function =
        c"cuModuleGetFunction" (function: *mut usize, module: usize, name: *const c_char);
    launch_kernel = c"cuLaunchKernel" (
        function: usize, grid_x: c_uint, grid_y: c_uint, grid_z: c_uint, block_x: c_uint,
        block_y: c_uint, block_z: c_uint, shared: c_uint, stream: Stream,
        parameters: *mut *mut c_void, extra: *mut *mut c_void
    );
    launch_host = c"cuLaunchHostFunc" (
        stream: Stream, function: unsafe extern "C" fn(*mut c_void), data: *mut c_void
    );
    begin_capture = c"cuStreamBeginCapture_v2" (stream: Stream, mode: c_uint);
    end_capture = c"cuStreamEndCapture" (stream: Stream, graph: *mut usize);
    instantiate = c"cuGraphInstantiateWithFlags" (exec: *mut usize, graph: usize, flags: u64);
    launch_graph = c"cuGraphLaunch" (exec: usize, stream: Stream);
}
