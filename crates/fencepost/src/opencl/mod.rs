//! OpenCL: queues of the caller's own, and the native handles behind ours.
//!
//! With the feature `opencl`, [`Device::open`]`("opencl:0")` gives the first device of the first
//! platform in a context of its own.
#![allow(unsafe_code)]

mod account;
pub(crate) mod context;
pub(crate) mod device;
pub(crate) mod fault;
pub(crate) mod gates;
pub(crate) mod loader;
mod marker;
pub(crate) mod stream;
mod watched;

use self::device::of_device;
use crate::{device::Device, error::Result};

/// The device's name, such as `NVIDIA H200`.
///
/// # Errors
/// [`Error::Unsupported`](crate::Error::Unsupported) for a device of another backend.
///
/// ```no_run
/// println!("{}", fencepost::opencl::model(&fencepost::Device::open("opencl:0")?)?);
/// # Ok::<(), fencepost::Error>(())
/// ```
pub fn model(device: &Device) -> Result<String> {
    Ok(of_device(device.imp())?.context.model.clone())
}
