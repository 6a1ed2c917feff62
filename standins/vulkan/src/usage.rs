//! Violations of valid usage, and the log that holds them.

use ash::vk;
use fencepost_sim::CallLog;
use std::cell::Cell;

/// What the functions behind the API return. `Err` holds every result but `SUCCESS`, also one that
/// is no error, such as `NOT_READY`.
pub(crate) type VkResult<T = ()> = Result<T, vk::Result>;

pub(crate) static LOG: CallLog<vk::Result> = CallLog::new("Vulkan");

thread_local! {
    static CURRENT_CALL: Cell<&'static str> = const { Cell::new("") };
}

/// The function that this thread is calling, for violations.
pub(crate) fn current_call() -> &'static str {
    CURRENT_CALL.try_with(Cell::get).unwrap_or("")
}

pub(crate) fn set_current_call(name: &'static str) {
    let _ = CURRENT_CALL.try_with(|current| current.set(name));
}

/// Reports a use that the specification forbids. The call continues.
pub(crate) fn report_invalid_usage(what: &str) {
    LOG.violation(&format!("{}: {what}", current_call()));
}

/// Reports a use that the specification forbids. Returns the result of the call.
pub(crate) fn invalid_usage(what: &str) -> vk::Result {
    report_invalid_usage(what);
    vk::Result::ERROR_VALIDATION_FAILED_EXT
}

/// The result for an error of the simulated device.
pub(crate) fn out_of_host_memory(_: fencepost_sim::Error) -> vk::Result {
    vk::Result::ERROR_OUT_OF_HOST_MEMORY
}
