//! A Vulkan layer in front of a real driver, for tests only. It makes chosen calls fail, or shows
//! the counters of semaphores late; everything else is the driver's.
//!
//! A program meets it through the loader that it has anyway: `VK_LAYER_PATH` names a folder with a
//! manifest, which names the layer ([`NAME`]) and the library ([`library_path`]), and
//! `VK_INSTANCE_LAYERS` names the layer. So it also stands between a driver and libraries with a
//! use of Vulkan of their own, such as wgpu. The calls that pass here are listed in [`FUNCTIONS`].
//!
//! Tests plan faults through a [`Control`] loaded from the same path:
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let path = fencepost_sim_layer::library_path().ok_or("not built")?;
//! let control = fencepost_sim_layer::Control::load(&path)?;
//! // The second submit from now on is refused with VK_ERROR_OUT_OF_DEVICE_MEMORY.
//! control.fail_call("vkQueueSubmit", 2, -2);
//! # Ok(())
//! # }
//! ```
//!
//! A call that fails does nothing else, except that one which waits for the device to be idle has
//! waited: what is destroyed after it is not in use, also where the device only seems lost.
//!
//! # References
//! - [The interface of loader and layers](https://github.com/KhronosGroup/Vulkan-Loader/blob/main/docs/LoaderLayerInterface.md)

#![deny(missing_docs, unsafe_op_in_unsafe_fn)]
#![allow(non_snake_case)]

mod calls;
mod chain;
mod control;
mod late;

pub use calls::FUNCTIONS;
pub use chain::vkNegotiateLoaderLayerInterfaceVersion;
pub use control::*;
