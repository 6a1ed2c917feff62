//! Calls that the driver refused.

use ash::vk;

use crate::error::Error;

/// A call that the driver refused, and its reason.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(super) call: &'static str,
    pub(super) result: vk::Result,
}

impl Fault {
    /// Makes the fault of `call` from what the call returned.
    pub(crate) fn of(call: &'static str) -> impl Fn(vk::Result) -> Fault {
        move |result| Fault { call, result }
    }

    /// The error of a call that the device survives.
    pub(super) fn error(self) -> Error {
        let Fault { call, result } = self;
        Error::Backend {
            call,
            code: result.as_raw().into(),
            text: format!("{result}; {}", remedy(result)),
        }
    }
}

fn remedy(result: vk::Result) -> &'static str {
    match result {
        vk::Result::ERROR_OUT_OF_HOST_MEMORY => "the process has no memory left: free some",
        vk::Result::ERROR_OUT_OF_DEVICE_MEMORY => {
            "the device has no memory left: free some, or drop events and streams"
        }
        vk::Result::ERROR_TOO_MANY_OBJECTS => "drop events and streams",
        _ => "run again with FENCEPOST_VULKAN_VALIDATION=1, and update the driver",
    }
}
