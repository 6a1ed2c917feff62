//! The functions of the driver API, by topic. Each file names the documentation that it follows.

mod capture;
mod context;
mod cupti;
mod device;
mod errors;
mod event;
mod graph;
mod ipc;
mod memop;
mod memory;
mod module;
mod nvml;
mod stream;
mod submit;

pub use capture::*;
pub use context::*;
pub use cupti::*;
pub use device::*;
pub use errors::*;
pub use event::*;
pub use graph::*;
pub use ipc::*;
pub use memop::*;
pub use memory::*;
pub use module::*;
pub use nvml::*;
pub use stream::*;
