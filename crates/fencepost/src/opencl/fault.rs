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
/// `CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST`.
pub(super) const WAITED_FOR_FAILED: Status = -14;
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

/// The names of the codes from -1 down, in the header `cl.h`.
const OF_RUN_TIME: [&str; 19] = [
    "CL_DEVICE_NOT_FOUND",
    "CL_DEVICE_NOT_AVAILABLE",
    "CL_COMPILER_NOT_AVAILABLE",
    "CL_MEM_OBJECT_ALLOCATION_FAILURE",
    "CL_OUT_OF_RESOURCES",
    "CL_OUT_OF_HOST_MEMORY",
    "CL_PROFILING_INFO_NOT_AVAILABLE",
    "CL_MEM_COPY_OVERLAP",
    "CL_IMAGE_FORMAT_MISMATCH",
    "CL_IMAGE_FORMAT_NOT_SUPPORTED",
    "CL_BUILD_PROGRAM_FAILURE",
    "CL_MAP_FAILURE",
    "CL_MISALIGNED_SUB_BUFFER_OFFSET",
    "CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST",
    "CL_COMPILE_PROGRAM_FAILURE",
    "CL_LINKER_NOT_AVAILABLE",
    "CL_LINK_PROGRAM_FAILURE",
    "CL_DEVICE_PARTITION_FAILED",
    "CL_KERNEL_ARG_INFO_NOT_AVAILABLE",
];

/// The same from -30 down.
const OF_ARGUMENTS: [&str; 43] = [
    "CL_INVALID_VALUE",
    "CL_INVALID_DEVICE_TYPE",
    "CL_INVALID_PLATFORM",
    "CL_INVALID_DEVICE",
    "CL_INVALID_CONTEXT",
    "CL_INVALID_QUEUE_PROPERTIES",
    "CL_INVALID_COMMAND_QUEUE",
    "CL_INVALID_HOST_PTR",
    "CL_INVALID_MEM_OBJECT",
    "CL_INVALID_IMAGE_FORMAT_DESCRIPTOR",
    "CL_INVALID_IMAGE_SIZE",
    "CL_INVALID_SAMPLER",
    "CL_INVALID_BINARY",
    "CL_INVALID_BUILD_OPTIONS",
    "CL_INVALID_PROGRAM",
    "CL_INVALID_PROGRAM_EXECUTABLE",
    "CL_INVALID_KERNEL_NAME",
    "CL_INVALID_KERNEL_DEFINITION",
    "CL_INVALID_KERNEL",
    "CL_INVALID_ARG_INDEX",
    "CL_INVALID_ARG_VALUE",
    "CL_INVALID_ARG_SIZE",
    "CL_INVALID_KERNEL_ARGS",
    "CL_INVALID_WORK_DIMENSION",
    "CL_INVALID_WORK_GROUP_SIZE",
    "CL_INVALID_WORK_ITEM_SIZE",
    "CL_INVALID_GLOBAL_OFFSET",
    "CL_INVALID_EVENT_WAIT_LIST",
    "CL_INVALID_EVENT",
    "CL_INVALID_OPERATION",
    "CL_INVALID_GL_OBJECT",
    "CL_INVALID_BUFFER_SIZE",
    "CL_INVALID_MIP_LEVEL",
    "CL_INVALID_GLOBAL_WORK_SIZE",
    "CL_INVALID_PROPERTY",
    "CL_INVALID_IMAGE_DESCRIPTOR",
    "CL_INVALID_COMPILER_OPTIONS",
    "CL_INVALID_LINKER_OPTIONS",
    "CL_INVALID_DEVICE_PARTITION_COUNT",
    "CL_INVALID_PIPE_SIZE",
    "CL_INVALID_DEVICE_QUEUE",
    "CL_INVALID_SPEC_ID",
    "CL_MAX_SIZE_RESTRICTION_EXCEEDED",
];

/// The name of a code in the header `cl.h`.
fn in_header(code: Status) -> Option<&'static str> {
    let below = |first: Status| {
        first
            .checked_sub(code)
            .and_then(|at| usize::try_from(at).ok())
    };
    let named = |names: &'static [&'static str], first| names.get(below(first)?).copied();
    named(&OF_RUN_TIME, -1).or_else(|| named(&OF_ARGUMENTS, -30))
}

/// Whether OpenCL names the code.
pub(super) fn is_named(code: Status) -> bool {
    code == SUCCESS || in_header(code).is_some()
}

/// The name of a code.
pub(super) fn name(code: Status) -> &'static str {
    in_header(code).unwrap_or(match code {
        PLATFORM_NOT_FOUND => "CL_PLATFORM_NOT_FOUND_KHR",
        -9999 => "NVIDIA's code for a kernel's illegal access to memory",
        ..-1000 => "a code of an extension, or of the driver's vendor alone",
        _ => "a code that OpenCL does not name",
    })
}

/// What the negative status of an event means.
pub(super) fn failed_work(status: Status) -> String {
    match status {
        // PoCL says so of what waited for failed work. As a code it is a missing device.
        -1 => "work of the stream failed; the driver tells no cause (status -1)".into(),
        _ => format!("work of the stream ended with {status}, {}", name(status)),
    }
}

/// What to do about a code, as the end of a sentence; empty where nothing is known.
fn remedy(code: Status) -> &'static str {
    match code {
        -2 => "; the device is in use elsewhere, or was reset",
        -4 | -6 => "; free memory, or use fewer streams and events",
        -5 => "; free device memory, or look for a kernel that faults: drivers say this then, too",
        -34 | -36 => "; its owner has released it too often, or work that failed took it along",
        -9999 => "; a kernel reads or writes where it must not",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_the_names_of_the_header() {
        let named = [
            (-1, "CL_DEVICE_NOT_FOUND"),
            (-14, "CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST"),
            (-19, "CL_KERNEL_ARG_INFO_NOT_AVAILABLE"),
            (-30, "CL_INVALID_VALUE"),
            (-42, "CL_INVALID_BINARY"),
            (-59, "CL_INVALID_OPERATION"),
            (-72, "CL_MAX_SIZE_RESTRICTION_EXCEEDED"),
            (PLATFORM_NOT_FOUND, "CL_PLATFORM_NOT_FOUND_KHR"),
        ];
        for (code, expected) in named {
            assert_eq!(name(code), expected, "{code}");
        }
        for code in [Status::MIN, -5000, -500, -73, -29, -20, 1, Status::MAX] {
            assert!(!name(code).starts_with("CL_"), "{code}");
        }
    }

    #[test]
    fn a_failure_without_a_cause_is_not_called_a_missing_device() {
        assert!(!failed_work(-1).contains(name(-1)));
        assert!(failed_work(-42).contains(name(-42)));
    }
}
