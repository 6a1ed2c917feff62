//! The CUDA face of the simulated device: a library, for tests only, with the functions of the CUDA
//! driver API that fencepost's CUDA backend calls.
//!
//! It is a **stand-in**: no NVIDIA hardware, no NVIDIA code. Its devices say so in their name, and
//! **nothing that it shows counts as hardware**. What passes here is known not to rely on what
//! CUDA's documentation does not promise, as this crate reads it, under the seeded scheduler of
//! [`fencepost_sim`]. A real driver is the judge of everything else.
//!
//! The backend finds it with `FENCEPOST_CUDA_LIBRARY=…/libfencepost_sim_cuda.so`
//! ([`library_path`]). Tests plan faults and look at counts and violations through a [`Control`]
//! loaded from the same path:
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let path = fencepost_sim_cuda::library_path().ok_or("not built")?;
//! let control = fencepost_sim_cuda::Control::load(&path)?;
//! control.fail_call("cuEventRecord", 3, fencepost_sim_cuda::codes::CUDA_ERROR_OUT_OF_MEMORY);
//! // … the backend at work …
//! assert!(control.violations().is_empty());
//! # Ok(())
//! # }
//! ```
//!
//! | variable | says |
//! |---|---|
//! | `FENCEPOST_SIM_SEED` | the scheduler's seed; at random without it, and printed with every fault and violation |
//! | `FENCEPOST_SIM_CUDA_DEVICES` | how many devices there are: 2 |
//! | `FENCEPOST_SIM_CUDA_CHANNELS` | over how many hardware channels a context's streams are spread, so that a stopped one stops others; each has its own without it |
//! | `FENCEPOST_SIM_CUDA_QUEUE_DEPTH` | how many pieces of work a stream takes before calls block: any number |
//! | `FENCEPOST_SIM_CUDA_RECYCLE` | `1`: handles of destroyed objects are given out again |
//!
//! No variable takes a function away, since a library's exports are fixed: what the backend does
//! without a symbol is for a test of its own to show.
//!
//! # What it holds
//!
//! * Streams run in order each, and in any order among each other but for waits and the legacy
//!   default stream.
//! * An event holds the point of its latest record. Waits keep the point they were given. Nothing
//!   is said about an event before it is so: a record's timestamp and its completion are steps of
//!   the scheduler.
//! * Errors of work stick to the context, and every later call on it returns the first one until
//!   the primary context is reset. Pending work is given up, and waits for it, also those of other
//!   contexts' streams, end.
//! * Handles are keys, never pointers: one that is stale, foreign or made up gives an error and a
//!   violation.
//! * The child of a fork gets `CUDA_ERROR_NOT_INITIALIZED` from every call.
//!
//! # What it does not
//!
//! Kernels other than those listed in `module`; overlap inside of kernels; lazy loading that
//! stalls; streams' priorities; peer access; graphs other than by capture. The text of each module
//! names the documentation it was written from; where that leaves an error code open, this is a
//! guess until compared with a driver.

#![deny(missing_docs, unsafe_op_in_unsafe_fn)]
#![allow(non_snake_case)]
// each `# Safety` that is more than CUDA's own documentation of the function is stated
#![allow(clippy::too_many_arguments)]

mod boundary;
mod capture;
pub mod codes;
mod context;
mod control;
mod entry;
mod errors;
mod event;
mod face;
mod ipc;
mod memory;
mod module;
mod stream;
mod table;
mod work;
mod wrapper;

pub use boundary::Out;
pub use capture::*;
pub use context::*;
pub use control::*;
pub use errors::*;
pub use event::*;
pub use ipc::*;
pub use memory::*;
pub use module::*;
pub use stream::*;
pub use wrapper::{Control, Live, Session, library_path};

/// The functions of the driver API that it has.
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
