//! What OpenCL's error codes mean, and what to do about them
//! ([error codes](https://registry.khronos.org/OpenCL/specs/3.0-unified/html/OpenCL_API.html#error_codes)).

use crate::error::Error;

/// What the functions of OpenCL return.
pub(crate) type Status = i32;

/// Why a call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The loader has no such function.
    Missing(&'static str),
    /// It returned this code.
    Code { call: &'static str, code: Status },
}

pub(super) const SUCCESS: Status = 0;
pub(super) const DEVICE_NOT_FOUND: Status = -1;
pub(super) const PROFILING_NOT_AVAILABLE: Status = -7;
pub(super) const INVALID_OPERATION: Status = -59;
pub(super) const PLATFORM_NOT_FOUND: Status = -1001;

/// The answer of the function named `call`.
#[inline]
pub(super) fn check(call: &'static str, status: Status) -> Result<(), Fault> {
    match status {
        SUCCESS => Ok(()),
        code => Err(Fault::Code { call, code }),
    }
}

impl Fault {
    /// The answer of a function that writes its code elsewhere.
    #[cfg(feature = "conformance")]
    pub(crate) fn of(call: &'static str, code: Status) -> Result<(), Fault> {
        check(call, code)
    }

    pub(crate) fn code(self) -> Option<Status> {
        match self {
            Fault::Missing(_) => None,
            Fault::Code { code, .. } => Some(code),
        }
    }

    /// The error for the caller of a call on `device`.
    pub(crate) fn error(self, device: &str) -> Error {
        match self {
            Fault::Missing(symbol) => Error::Unsupported {
                what: format!("a call that needs {symbol}, which the OpenCL loader lacks"),
                device: device.into(),
                remedy: "install a newer OpenCL loader".into(),
            },
            Fault::Code { call, code } => Error::Backend {
                call,
                code: code.into(),
                text: format!("{}{}", name(code), remedy(code)),
            },
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Fault::Missing(symbol) => write!(f, "the OpenCL loader has no {symbol}"),
            Fault::Code { call, code } => {
                write!(
                    f,
                    "{call} failed with {} ({code}){}",
                    name(code),
                    remedy(code)
                )
            }
        }
    }
}

/// The name of a code in the header `cl.h`.
pub(super) fn name(code: Status) -> &'static str {
    match code {
        -1 => "CL_DEVICE_NOT_FOUND",
        -2 => "CL_DEVICE_NOT_AVAILABLE",
        -3 => "CL_COMPILER_NOT_AVAILABLE",
        -4 => "CL_MEM_OBJECT_ALLOCATION_FAILURE",
        -5 => "CL_OUT_OF_RESOURCES",
        -6 => "CL_OUT_OF_HOST_MEMORY",
        PROFILING_NOT_AVAILABLE => "CL_PROFILING_INFO_NOT_AVAILABLE",
        -11 => "CL_BUILD_PROGRAM_FAILURE",
        -14 => "CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST",
        -30 => "CL_INVALID_VALUE",
        -32 => "CL_INVALID_PLATFORM",
        -33 => "CL_INVALID_DEVICE",
        -34 => "CL_INVALID_CONTEXT",
        -35 => "CL_INVALID_QUEUE_PROPERTIES",
        -36 => "CL_INVALID_COMMAND_QUEUE",
        -57 => "CL_INVALID_EVENT_WAIT_LIST",
        -58 => "CL_INVALID_EVENT",
        INVALID_OPERATION => "CL_INVALID_OPERATION",
        PLATFORM_NOT_FOUND => "CL_PLATFORM_NOT_FOUND_KHR",
        -9999 => "an illegal access of a kernel to memory, as NVIDIA's driver tells it",
        _ => "a code that only the driver's vendor knows",
    }
}

/// What to do about a code, as the end of a sentence; empty where nothing is known.
fn remedy(code: Status) -> &'static str {
    match code {
        -2 => "; the device is in use elsewhere, or was reset",
        -4 | -6 => "; free memory, or use fewer streams and events",
        -5 => {
            "; free device memory; NVIDIA's driver also tells so of a kernel that faulted, after \
               which the context is lost"
        }
        -34 | -36 => {
            "; the context or queue was released while streams or markers of it were in use"
        }
        -9999 => "; the context is lost: restart the process",
        _ => "",
    }
}
