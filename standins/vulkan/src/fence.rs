//! Fences.

use crate::device::Shared;
use crate::table::Child;
use crate::usage::{VkResult, invalid_usage};
use ash::vk::{self, Handle};
use fencepost_sim::Flag;

/// A reset replaces the flag, so that the signal of an earlier submit never reaches a fence that
/// was reset.
#[derive(Debug)]
pub(crate) struct Fence {
    pub(crate) device: vk::Device,
    pub(crate) flag: Flag,
    pub(crate) submitted: bool,
}

impl Child for Fence {
    fn parent(&self) -> u64 {
        self.device.as_raw()
    }
}

impl Fence {
    /// Whether pending work will signal the fence.
    pub(crate) fn pending(&self, shared: &Shared) -> bool {
        self.submitted && !self.flag.is_set() && !shared.lost()
    }

    pub(crate) fn check_submit(&self) -> VkResult {
        if self.flag.is_set() {
            return Err(invalid_usage("the fence is already signalled"));
        }
        if self.submitted {
            return Err(invalid_usage("the fence belongs to an earlier submit"));
        }
        Ok(())
    }
}
