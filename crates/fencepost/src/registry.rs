//! The list of all backends.

#[cfg(all(feature = "cuda", not(loom)))]
use crate::cuda::device as cuda;
#[cfg(has_metal)]
use crate::metal::device as metal;
#[cfg(all(feature = "opencl", not(loom)))]
use crate::opencl::device as opencl;
#[cfg(all(feature = "vulkan", not(loom)))]
use crate::vulkan::open as vulkan;
use crate::{
    contract::{Backend, DeviceRef, Missing},
    error::{Error, Result},
    host,
};

/// A backend, as devices are found and opened through it.
pub(crate) struct Entry {
    pub(crate) backend: Backend,
    /// How many devices there are. In a forked child, how many there were before.
    pub(crate) count: fn() -> Result<usize, Missing>,
    /// As `count`, for who opens none: without initialising a driver where that is possible.
    pub(crate) ask: fn() -> Result<usize, Missing>,
    /// Opens the device of this index, which is below `count`.
    pub(crate) open: fn(usize) -> Result<DeviceRef>,
    /// Whether its first device, if it has one, is preferred to the host.
    pub(crate) preferred: fn() -> bool,
}

/// Every backend, in order of preference.
pub(crate) const REGISTRY: [Entry; 5] = [
    METAL,
    CUDA,
    VULKAN,
    OPENCL,
    Entry {
        backend: Backend::Host,
        count: || Ok(1),
        ask: || Ok(1),
        open: |_| Ok(host::shared()),
        preferred: || true,
    },
];

#[cfg(has_metal)]
const METAL: Entry = Entry {
    backend: Backend::Metal,
    count: metal::count,
    ask: metal::count,
    open: metal::open,
    preferred: || true,
};
#[cfg(not(has_metal))]
const METAL: Entry = Entry {
    backend: Backend::Metal,
    count: no_metal,
    ask: no_metal,
    open: none_to_open,
    preferred: || false,
};

#[cfg(not(has_metal))]
fn no_metal() -> Result<usize, Missing> {
    Err(Missing::Absent(match cfg!(target_vendor = "apple") {
        true => LEFT_OUT.replace("NAME", "metal"),
        false => format!("{} has no Metal; a Mac brings it", std::env::consts::OS),
    }))
}

#[cfg(all(feature = "cuda", not(loom)))]
const CUDA: Entry = Entry {
    backend: Backend::Cuda,
    count: cuda::count,
    ask: cuda::ask,
    open: cuda::open,
    preferred: || true,
};
#[cfg(not(all(feature = "cuda", not(loom))))]
const CUDA: Entry = Entry {
    backend: Backend::Cuda,
    count: || Err(Missing::Absent(LEFT_OUT.replace("NAME", "cuda"))),
    ask: || Err(Missing::Absent(LEFT_OUT.replace("NAME", "cuda"))),
    open: none_to_open,
    preferred: || false,
};

#[cfg(all(feature = "vulkan", not(loom)))]
const VULKAN: Entry = Entry {
    backend: Backend::Vulkan,
    count: vulkan::count,
    ask: vulkan::count,
    open: vulkan::open,
    preferred: vulkan::is_hardware,
};
#[cfg(not(all(feature = "vulkan", not(loom))))]
const VULKAN: Entry = Entry {
    backend: Backend::Vulkan,
    count: || Err(Missing::Absent(LEFT_OUT.replace("NAME", "vulkan"))),
    ask: || Err(Missing::Absent(LEFT_OUT.replace("NAME", "vulkan"))),
    open: none_to_open,
    preferred: || false,
};

#[cfg(all(feature = "opencl", not(loom)))]
const OPENCL: Entry = Entry {
    backend: Backend::OpenCl,
    count: opencl::count,
    ask: opencl::count,
    open: opencl::open,
    preferred: opencl::is_hardware,
};
#[cfg(not(all(feature = "opencl", not(loom))))]
const OPENCL: Entry = Entry {
    backend: Backend::OpenCl,
    count: || Err(Missing::Absent(LEFT_OUT.replace("NAME", "opencl"))),
    ask: || Err(Missing::Absent(LEFT_OUT.replace("NAME", "opencl"))),
    open: none_to_open,
    preferred: || false,
};

#[cfg_attr(
    all(feature = "cuda", feature = "opencl", feature = "vulkan", has_metal),
    allow(dead_code)
)]
const LEFT_OUT: &str = "this build leaves it out; build with the cargo feature \"NAME\"";

/// For backends without devices in this build.
#[cfg_attr(
    all(feature = "cuda", feature = "opencl", feature = "vulkan", has_metal),
    allow(dead_code)
)]
fn none_to_open(index: usize) -> Result<DeviceRef> {
    Err(Error::Unavailable {
        device: format!("device {index}"),
        why: "its backend has no devices here".into(),
    })
}
