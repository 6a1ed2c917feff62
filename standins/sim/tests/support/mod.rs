//! Helpers for the tests.
#![allow(dead_code, unreachable_pub)] // no test file uses all of it

use fencepost_sim::{Config, Order, Queue, SimDevice};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A timeout that only a hang reaches.
pub const HANG_TIMEOUT: Option<Duration> = Some(fencepost_sim::HANG_TIMEOUT);

pub fn device(seed: u64) -> SimDevice {
    device_with(Config::seeded(seed))
}

pub fn device_with(config: Config) -> SimDevice {
    SimDevice::new(config).unwrap()
}

pub fn queue(device: &SimDevice, order: Order) -> Queue {
    device.new_queue_with(order).unwrap()
}

/// Records the order in which things ran.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<u32>>>);

impl Log {
    /// Work that appends `token`.
    pub fn add(&self, token: u32) -> impl FnOnce() + Send + 'static + use<> {
        let log = self.clone();
        move || log.0.lock().unwrap().push(token)
    }

    pub fn seen(&self) -> Vec<u32> {
        self.0.lock().unwrap().clone()
    }
}
