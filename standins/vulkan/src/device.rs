//! Devices and their queues.

use crate::table::Child;
use crate::usage::{LOG, VkResult, invalid_usage};
use ash::vk::{self, Handle};
use fencepost_sim::SimDevice;
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// The part of a device that waits and submitted work use without the driver's lock.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) sim: SimDevice,
    pub(crate) physical: usize,
    /// Whether only a submit tells of a loss, and waits and counters after it.
    pub(crate) hides_loss: bool,
    /// A submit has told of it.
    pub(crate) told: AtomicBool,
}

impl Shared {
    pub(crate) fn lost(&self) -> bool {
        self.sim.lost().is_some()
    }

    /// Whether waits and counters tell that the device is lost.
    pub(crate) fn shows_loss(&self) -> bool {
        self.lost() && (!self.hides_loss || self.told.load(Ordering::Acquire))
    }

    /// As [`check`](Shared::check), by a submit.
    pub(crate) fn check_submit(&self) -> VkResult {
        self.told.fetch_or(self.lost(), Ordering::AcqRel);
        self.check()
    }

    pub(crate) fn check(&self) -> VkResult {
        if self.lost() {
            return Err(vk::Result::ERROR_DEVICE_LOST);
        }
        Ok(())
    }

    /// Marks the device as lost. Its pending work is dropped:
    /// <https://docs.vulkan.org/spec/latest/chapters/devsandqueues.html#devsandqueues-lost-device>.
    pub(crate) fn lose(&self, why: &str) {
        if !self.lost() {
            LOG.note(&format!("device {} is lost: {why}", self.physical));
        }
        self.sim.lose(why);
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Features {
    pub(crate) timeline: bool,
    pub(crate) host_reset: bool,
    pub(crate) sync2: bool,
}

#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) physical: vk::PhysicalDevice,
    /// The lower of the instance's and the device's version: 10 for 1.0, 12 for 1.2.
    pub(crate) version: u32,
    pub(crate) extensions: Vec<String>,
    pub(crate) features: Features,
    pub(crate) shared: Arc<Shared>,
}

impl Device {
    pub(crate) fn has(&self, extension: &str) -> bool {
        self.extensions.iter().any(|enabled| enabled == extension)
    }

    /// Reports the use of a feature that is not enabled.
    pub(crate) fn need(&self, enabled: bool, feature: &str) -> VkResult {
        if enabled {
            return Ok(());
        }
        Err(invalid_usage(&format!(
            "the feature {feature} was not enabled"
        )))
    }
}

impl Child for Device {
    fn parent(&self) -> u64 {
        self.physical.as_raw()
    }
}

#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) device: vk::Device,
    pub(crate) shared: Arc<Shared>,
    pub(crate) sim: fencepost_sim::Queue,
    pub(crate) family: u32,
    pub(crate) index: u32,
    pub(crate) valid_bits: u32,
}

impl Child for Queue {
    fn parent(&self) -> u64 {
        self.device.as_raw()
    }
}
