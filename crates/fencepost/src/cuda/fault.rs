//! What the driver's error codes mean, and what to do about them
//! ([`CUresult`](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__TYPES.html)).

use std::ffi::c_int;

/// What every function of the driver returns.
pub(crate) type Status = c_int;

/// The answer of the function named `call`.
#[inline]
pub(crate) fn check(call: &'static str, status: Status) -> Result<(), Fault> {
    match status {
        0 => Ok(()),
        code => Err(Fault::Code { call, code }),
    }
}

/// Why a call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The driver has no such function.
    Missing(&'static str),
    /// It returned this code.
    Code { call: &'static str, code: Status },
}

/// How far the effect of a code reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// `CUDA_ERROR_NOT_READY`: no error.
    NotReady,
    /// The driver has shut down: the process is about to end.
    Gone,
    /// The context is beyond repair, and everything in it.
    Fatal,
    /// This call alone failed.
    Refused,
}

pub(super) const NOT_READY: Status = 600;
pub(super) const INVALID_VALUE: Status = 1;
pub(super) const INVALID_HANDLE: Status = 400;
pub(super) const CAPTURED_EVENT: Status = 907;
pub(super) const CAPTURE_IMPLICIT: Status = 906;
const DEINITIALIZED: Status = 4;
pub(super) const NOT_INITIALIZED: Status = 3;
pub(super) const NOT_SUPPORTED: Status = 801;
pub(super) const NO_DEVICE: Status = 100;
pub(super) const STUB_LIBRARY: Status = 34;

impl Fault {
    /// `CUDA_ERROR_CONTEXT_IS_DESTROYED`, as the driver would say it.
    pub(super) const CONTEXT_GONE: Fault = Fault::Code {
        call: "cuCtxGetId",
        code: 709,
    };

    pub(super) fn code(self) -> Option<Status> {
        match self {
            Fault::Missing(_) => None,
            Fault::Code { code, .. } => Some(code),
        }
    }

    /// By the driver's reference: an error after which the process is "in an inconsistent state",
    /// so that any further work returns it again, ends the context.
    pub(super) fn meaning(self) -> Meaning {
        match self {
            Fault::Missing(_) => Meaning::Refused,
            Fault::Code { code, .. } => match code {
                NOT_READY => Meaning::NotReady,
                DEINITIALIZED => Meaning::Gone,
                // ECC, NVLink; MPS and other exceptions on the device; a context that is gone.
                214 | 220 | 226 | 700 | 702 | 709 | 710 | 714..=719 | 721 => Meaning::Fatal,
                // Device unavailable, external device, unknown: nothing is known to work after
                // them.
                46 | 911 | 999 => Meaning::Fatal,
                _ => Meaning::Refused,
            },
        }
    }
}

/// What to do about a code, as the end of a sentence; empty where nothing is known.
pub(super) fn remedy(code: Status) -> &'static str {
    match code {
        2 => "; free device memory, or use fewer streams and events",
        34 => {
            "; the library that was loaded is the CUDA toolkit's stub: take its folder (stubs) out \
             of LD_LIBRARY_PATH, so that the driver's own libcuda.so.1 is found"
        }
        NO_DEVICE => {
            "; look at CUDA_VISIBLE_DEVICES, and start a container with its GPUs \
             (docker run --gpus)"
        }
        803 => {
            "; the driver's library and its kernel module differ in version, as after an update: \
             restart the machine, or make the library of the module's version (or NVIDIA's package \
             for forward compatibility) the one that is found; nvidia-smi shows the version"
        }
        804 => {
            "; forward compatibility works on data centre GPUs only: take the folder of \
             cuda-compat out of LD_LIBRARY_PATH"
        }
        999 => {
            "; the driver's kernel module may be in a wrong state: run nvidia-smi, load the module \
             again (nvidia-modprobe -u creates its device files), or restart the machine"
        }
        NOT_INITIALIZED => "; a process forked from one that uses CUDA must exec() before it does",
        DEINITIALIZED => "; the process is shutting down",
        201 | 709 => {
            "; the context was destroyed or reset while streams or events of it were in use"
        }
        400 => "; the stream or event was destroyed elsewhere",
        700 | 714..=719 => {
            "; a kernel failed: compute-sanitizer finds which, and the process must be restarted"
        }
        CAPTURE_IMPLICIT => {
            "; a stream that the legacy default stream waits for is being captured: use the legacy \
             stream once the capture has ended, or capture a stream made with \
             CU_STREAM_NON_BLOCKING"
        }
        900..=907 => "; the stream is being captured into a graph",
        _ => "",
    }
}
