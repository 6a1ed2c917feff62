//! The functions of Vulkan, by topic. Each file names the chapter that it follows.

pub(crate) mod buffer;
pub(crate) mod clock;
pub(crate) mod command;
pub(crate) mod command_buffer;
pub(crate) mod descriptor;
pub(crate) mod device;
pub(crate) mod fence;
pub(crate) mod instance;
pub(crate) mod memory;
pub(crate) mod physical;
pub(crate) mod pipeline;
pub(crate) mod query;
pub(crate) mod semaphore;
pub(crate) mod submit;
