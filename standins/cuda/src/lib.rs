//! A stand-in for the CUDA driver, for tests only. It is a library with the functions of the CUDA
//! driver API that fencepost's CUDA backend calls, on the simulated device of [`fencepost_sim`].
//!
//! It is a **stand-in**: no NVIDIA hardware, no NVIDIA code. The names of its devices say so, and
//! **a test on it never counts as a test on hardware**. Such a test shows only that the code does
//! not rely on more than CUDA's documentation promises, as this crate reads it, under a seeded
//! scheduler. Everything else needs a real driver.
//!
//! The backend loads it with `FENCEPOST_CUDA_LIBRARY=…/libfencepost_sim_cuda.so`
//! ([`library_path`]). Tests plan faults, and read counts and violations, through a [`Control`]
//! loaded from the same path:
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let path = fencepost_sim_cuda::library_path().ok_or("not built")?;
//! let control = fencepost_sim_cuda::Control::load(&path)?;
//! control.fail_call("cuEventRecord", 3, fencepost_sim_cuda::codes::CUDA_ERROR_OUT_OF_MEMORY);
//! // … run the backend …
//! assert!(control.violations().is_empty());
//! # Ok(())
//! # }
//! ```
//!
//! # Environment variables
//!
//! * `FENCEPOST_SIM_SEED`: the scheduler's seed. It is random by default, and printed with every
//!   fault and violation.
//! * `FENCEPOST_SIM_CUDA_DEVICES`: the number of devices. Default: 2.
//! * `FENCEPOST_SIM_CUDA_MIG`: `1` makes NVML say that every device is split.
//! * `FENCEPOST_SIM_CUDA_CHANNELS`: the number of hardware channels that the streams of a context
//!   share, so that a blocked stream blocks others. By default each stream has its own.
//! * `FENCEPOST_SIM_CUDA_QUEUE_DEPTH`: how much work may be pending on a stream before a call that
//!   submits more blocks. By default there is no limit.
//! * `FENCEPOST_SIM_CUDA_MODULE_WAITS`: `1` makes loading a module wait for all work of the
//!   context, as real drivers do while a stream is held.
//! * `FENCEPOST_SIM_CUDA_DRIFT`: by how many parts per million the clocks drift from the host's.
//!   Those of devices with even numbers are fast, the others slow. Default: 20.
//! * `FENCEPOST_SIM_CUDA_RECYCLE`: `1` uses handles of destroyed objects again.
//!
//! No variable removes a function, since the exports of a library are fixed. The backend's own
//! tests cover missing symbols.
//!
//! # What it models
//!
//! * The work of a stream runs in order. Streams run in any order relative to each other, except
//!   for waits and the legacy default stream.
//! * An event has the marker of its latest record. A wait keeps the marker that the event had when
//!   the wait was submitted. The timestamp and the completion of a record are steps of the
//!   scheduler, so an event is never complete early.
//! * An error of submitted work sticks to the context: every later call on it returns the first
//!   error until the primary context is reset. Pending work is dropped. Waits for it end, also
//!   those of other contexts' streams.
//! * Handles are keys, never pointers. An invalid handle gives an error and a violation: its object
//!   is destroyed or of another kind, or it was never returned.
//! * In the child of a fork every call returns `CUDA_ERROR_NOT_INITIALIZED`.
//! * `cuInit` loads the library that `CUDA_INJECTION64_PATH` names. The library is a stand-in for
//!   CUPTI too, as far as callbacks for some calls of the driver go.
//! * The library is a stand-in for NVML too, named in `FENCEPOST_NVML_LIBRARY`. Its functions
//!   neither initialise nor need the driver.
//!
//! # What it does not model
//!
//! Kernels other than those listed in the module `kernel`; overlap inside kernels; lazy loading
//! that blocks; priorities of streams; peer access; graphs that are not captured. Where CUDA's
//! documentation leaves an error code open, the code here is a guess until it is compared with that
//! of a driver.
//!
//! # Layers
//!
//! From bottom to top. A module names modules of lower layers, and of its own layer without a
//! circle.
//!
//! 1. `codes`, `types`, `ffi` (the C boundary), `log` and `table` (handles).
//! 2. The objects: `sticky_error`, `shared_event`, `marker`, `context`, `memory`, `kernel`, `work`,
//!    `event`, `stream`, `module` and `graph`. Their structures, and what these do without the
//!    driver's other objects.
//! 3. `driver`: the tables of all objects, behind one lock.
//! 4. `entry`: the part that all calls share: counts, planned faults and the driver's lock.
//!    `cupti`: who is told of calls.
//! 5. `api`: the functions of the driver API, by topic. Each module names the documentation that it
//!    follows.
//! 6. `control_functions`: what tests plan and inspect. `control` is its safe wrapper.

#![deny(missing_docs, unsafe_op_in_unsafe_fn)]
#![allow(non_snake_case)]
#![allow(clippy::too_many_arguments)] // the API's functions have that many

mod api;
pub mod codes;
mod context;
mod control;
mod control_functions;
mod cupti;
mod driver;
mod entry;
mod event;
mod ffi;
mod graph;
mod kernel;
mod log;
mod marker;
mod memory;
mod module;
mod shared_event;
mod sticky_error;
mod stream;
mod table;
mod types;
mod work;

pub use api::*;
pub use control::{Control, Live, Session, library_path};
pub use control_functions::*;
pub use cupti::{Callback, CallbackData};
pub use ffi::Out;
pub use types::*;

/// The functions of the driver API that the stand-in has.
pub const FUNCTIONS: &[&str] = &[
    "cuCtxCreate_v2",
    "cuCtxDestroy_v2",
    "cuCtxGetCurrent",
    "cuCtxGetDevice",
    "cuCtxGetId",
    "cuCtxPopCurrent_v2",
    "cuCtxPushCurrent_v2",
    "cuCtxSetCurrent",
    "cuCtxSynchronize",
    "cuDeviceGet",
    "cuDeviceGetAttribute",
    "cuDeviceGetCount",
    "cuDeviceGetName",
    "cuDeviceGetUuid_v2",
    "cuDevicePrimaryCtxGetState",
    "cuDevicePrimaryCtxRelease_v2",
    "cuDevicePrimaryCtxReset_v2",
    "cuDevicePrimaryCtxRetain",
    "cuDriverGetVersion",
    "cuEventCreate",
    "cuEventDestroy_v2",
    "cuEventElapsedTime",
    "cuEventElapsedTime_v2",
    "cuEventQuery",
    "cuEventRecord",
    "cuEventRecordWithFlags",
    "cuEventSynchronize",
    "cuGetErrorName",
    "cuGetErrorString",
    "cuGraphDestroy",
    "cuGraphExecDestroy",
    "cuGraphInstantiateWithFlags",
    "cuGraphLaunch",
    "cuInit",
    "cuIpcGetEventHandle",
    "cuIpcOpenEventHandle",
    "cuLaunchHostFunc",
    "cuLaunchKernel",
    "cuMemAlloc_v2",
    "cuMemFreeHost",
    "cuMemFree_v2",
    "cuMemHostAlloc",
    "cuMemHostGetDevicePointer_v2",
    "cuMemcpyDtoHAsync_v2",
    "cuMemcpyDtoH_v2",
    "cuMemcpyHtoDAsync_v2",
    "cuMemcpyHtoD_v2",
    "cuMemcpyPeerAsync",
    "cuMemsetD32Async",
    "cuMemsetD8Async",
    "cuModuleGetFunction",
    "cuModuleLoadData",
    "cuModuleUnload",
    "cuStreamBeginCapture_v2",
    "cuStreamCreate",
    "cuStreamCreateWithPriority",
    "cuStreamDestroy_v2",
    "cuStreamEndCapture",
    "cuStreamGetCaptureInfo_v2",
    "cuStreamGetCtx",
    "cuStreamGetFlags",
    "cuStreamGetId",
    "cuStreamIsCapturing",
    "cuStreamQuery",
    "cuStreamSynchronize",
    "cuStreamWaitEvent",
    "cuStreamWaitValue32_v2",
    "cuStreamWriteValue32_v2",
    "cuThreadExchangeStreamCaptureMode",
];
