//! The Vulkan face of the simulated device.

#![deny(missing_docs, unsafe_op_in_unsafe_fn)]
#![allow(non_snake_case)]
#![allow(clippy::too_many_arguments)]

mod boundary;
mod buffer;
mod calls;
mod command;
mod control;
mod descriptor;
mod device;
mod face;
mod fence;
mod instance;
mod kernel;
mod memory;
mod options;
mod pipeline;
mod pool;
mod procs;
mod query;
mod semaphore;
mod submit;
mod table;
mod wrapper;

pub use control::*;
pub use procs::{FUNCTIONS, vkGetInstanceProcAddr};
pub use wrapper::{Control, Live, Session, library_path};
