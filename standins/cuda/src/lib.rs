//! A stand-in for the CUDA driver, for tests only: a library with the functions of the CUDA driver
//! API that fencepost's CUDA backend calls, on the simulated device of [`fencepost_sim`].
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
//! | variable | meaning |
//! |---|---|
//! | `FENCEPOST_SIM_SEED` | the scheduler's seed; random by default, and printed with every fault and violation |
//! | `FENCEPOST_SIM_CUDA_DEVICES` | the number of devices; 2 by default |
//! | `FENCEPOST_SIM_CUDA_CHANNELS` | the number of hardware channels that the streams of a context share, so that a blocked stream blocks others; by default each stream has its own |
//! | `FENCEPOST_SIM_CUDA_QUEUE_DEPTH` | how many pieces of work a stream holds before calls block; any number by default |
//! | `FENCEPOST_SIM_CUDA_RECYCLE` | `1`: handles of destroyed objects are used again |
//!
//! No variable removes a function, since a library's exports are fixed. How the backend copes
//! without a symbol is for its own tests to show.
//!
//! # What it models
//!
//! * The work of a stream runs in order. Streams run in any order relative to each other, except
//!   for waits and the legacy default stream.
//! * An event holds the marker of its latest record. A wait keeps the marker that it was given. An
//!   event is not complete early: the timestamp and the completion of a record are steps of the
//!   scheduler.
//! * An error of work sticks to the context: every later call on it returns the first error until
//!   the primary context is reset. Pending work is dropped, and waits for it end, also those of
//!   other contexts' streams.
//! * Handles are keys, never pointers. A stale, foreign or made-up one gives an error and a
//!   violation.
//! * In the child of a fork every call returns `CUDA_ERROR_NOT_INITIALIZED`.
//!
//! # What it does not model
//!
//! Kernels other than those listed in the module `kernel`; overlap inside kernels; lazy loading
//! that blocks; priorities of streams; peer access; graphs that are not captured. Each module names
//! the documentation that it follows. Where that leaves an error code open, the code here is a
//! guess until it is compared with a driver's.

#![deny(missing_docs, unsafe_op_in_unsafe_fn)]
#![allow(non_snake_case)]
// the API's functions have this many
#![allow(clippy::too_many_arguments)]

mod api;
pub mod codes;
mod context;
mod control;
mod control_functions;
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
