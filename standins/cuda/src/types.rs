//! Handles and constants of the API, by the names of `cuda.h`.

use std::ffi::{c_int, c_uint};

/// A device's ordinal.
pub type CUdevice = c_int;
/// A handle: a key, never a pointer.
pub type CUcontext = usize;
/// A handle: a key, never a pointer, or one of the special streams.
pub type CUstream = usize;
/// A handle: a key, never a pointer.
pub type CUevent = usize;
/// A handle: a key, never a pointer.
pub type CUmodule = usize;
/// A handle: a key, never a pointer.
pub type CUfunction = usize;
/// A handle: a key, never a pointer.
pub type CUgraph = usize;
/// A handle: a key, never a pointer.
pub type CUgraphExec = usize;
/// An address in device memory, or of page-locked host memory.
pub type CUdeviceptr = u64;

/// The legacy default stream, which synchronizes with all blocking streams of its context. Null is
/// the same stream.
pub const CU_STREAM_LEGACY: CUstream = 1;
/// The default stream of the calling thread.
pub const CU_STREAM_PER_THREAD: CUstream = 2;
/// A stream that does not synchronize with the legacy default stream.
pub const CU_STREAM_NON_BLOCKING: c_uint = 1;

/// Waits for the event sleep and do not spin. The stand-in's always sleep.
pub const CU_EVENT_BLOCKING_SYNC: c_uint = 1;
/// The event has no timestamp.
pub const CU_EVENT_DISABLE_TIMING: c_uint = 2;
/// The event may be opened in another process.
pub const CU_EVENT_INTERPROCESS: c_uint = 4;

/// Potentially unsafe calls of any thread invalidate the capture.
pub const CU_STREAM_CAPTURE_MODE_GLOBAL: c_uint = 0;
/// Potentially unsafe calls of the capturing thread invalidate the capture.
pub const CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: c_uint = 1;
/// No call invalidates the capture for being potentially unsafe.
pub const CU_STREAM_CAPTURE_MODE_RELAXED: c_uint = 2;

/// Sixteen bytes that identify a device.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CUuuid {
    /// The bytes.
    pub bytes: [u8; 16],
}

/// The name of an event for other processes.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CUipcEventHandle {
    /// The bytes.
    pub reserved: [u8; 64],
}
