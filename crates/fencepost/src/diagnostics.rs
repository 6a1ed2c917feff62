//! What happens on threads of the library, where no caller gets an error, as events of
//! [`tracing`](https://docs.rs/tracing): with the feature `tracing`; else nothing.
//!
//! A subscriber is code of the user's, so each function is called without any lock held.

#![cfg_attr(not(feature = "tracing"), allow(unused_variables))]

use crate::error::{Cause, Error};

/// A thread of this name could not be started.
pub(crate) fn thread_not_started(name: &str, error: &Error) {
    #[cfg(feature = "tracing")]
    tracing::error!(thread = name, %error, "a thread could not be started");
}

/// A device is lost, and every stream of it has failed.
#[cfg_attr(
    not(any(feature = "cuda", feature = "vulkan", feature = "wgpu30", has_metal)),
    allow(dead_code)
)]
pub(crate) fn device_lost(device: &str, cause: &Cause) {
    #[cfg(feature = "tracing")]
    tracing::error!(device, %cause, "a device is lost");
}

/// A callback of the user's panicked, which was caught.
pub(crate) fn callback_panicked(text: &str) {
    #[cfg(feature = "tracing")]
    tracing::error!(panic = text, "a completion callback panicked");
}
