//! What a backend provides for the suite: the work that tests put on a stream, and what it makes.

use std::{
    any::Any,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use super::bytes::ByteCounterImpl;
use crate::{contract::StreamImpl, error::Result, place::Place};

/// The work that tests put on one device's streams: what a backend provides for the suite.
///
/// Streams are given as the contract knows them, and are of the same device.
pub(crate) trait TestWork: Send + Sync {
    /// A log that the device's streams can append to.
    fn new_log(&self) -> Result<Log>;

    /// Holds `stream` until the gate is opened. `at` is where a test made it.
    ///
    /// On the host it is what a [`Gate`](crate::Gate) is. On a GPU the driver alone holds the
    /// stream: work behind a `Gate` counts as work that may fail, and most cases are about work
    /// that may not.
    fn gate(&self, stream: &dyn StreamImpl, at: Place) -> Result<Gate>;

    /// Device work that writes `token` where it ran in the order.
    fn append(&self, stream: &dyn StreamImpl, log: &Log, token: u32) -> Result<()>;

    /// Device work that fails, naming `text`, as a fault of a user's own work would.
    fn fail(&self, stream: &dyn StreamImpl, text: &str) -> Result<()>;

    /// Keeps the device busy, as [`spin`](super::work::spin) says.
    fn spin(&self, stream: &dyn StreamImpl, amount: u64) -> Result<()>;

    /// Whether what holds up one of the two also holds up the other, for they share a hardware
    /// queue.
    fn shares_order(&self, one: &dyn StreamImpl, two: &dyn StreamImpl) -> bool {
        let _ = (one, two);
        false
    }

    /// Memory for counting bytes by kernels, for `capacity` of them.
    fn byte_counter(&self, capacity: usize) -> Result<Arc<dyn ByteCounterImpl>>;
}

/// Holds a stream's later work back until it is opened; dropping it opens it.
///
/// ```
/// # use fencepost::{Device, testing::work};
/// # let device = Device::open("host")?;
/// # let stream = device.new_stream()?;
/// let gate = work::gate(&stream)?;
/// let marker = stream.record()?;
/// drop(gate);
/// marker.synchronize()?;
/// # Ok::<(), fencepost::Error>(())
/// ```
pub struct Gate {
    open: Option<Box<dyn FnOnce() + Send>>,
}

impl Gate {
    pub(crate) fn new(open: impl FnOnce() + Send + 'static) -> Gate {
        Gate {
            open: Some(Box::new(open)),
        }
    }

    /// Lets the stream go on. Never blocks.
    ///
    /// ```
    /// # use fencepost::{Device, testing::work};
    /// # let stream = Device::open("host")?.new_stream()?;
    /// let gate = work::gate(&stream)?;
    /// gate.open();
    /// stream.synchronize()?;
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn open(mut self) {
        self.release();
    }

    fn release(&mut self) {
        if let Some(open) = self.open.take() {
            open();
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.release();
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gate")
    }
}

/// Where device work leaves its tokens in the order in which it ran.
///
/// ```
/// # use fencepost::{Device, testing::work};
/// # let device = Device::open("host")?;
/// # let stream = device.new_stream()?;
/// let log = work::new_log(&device)?;
/// work::append(&stream, &log, 1)?;
/// stream.synchronize()?;
/// assert_eq!(log.clone().read()?, [1]);
/// # Ok::<(), fencepost::Error>(())
/// ```
#[derive(Clone)]
pub struct Log {
    inner: Arc<dyn LogImpl>,
}

/// What a backend's log provides.
pub(crate) trait LogImpl: Send + Sync + Any {
    /// Adds a token from host work; a device's own work adds its tokens itself.
    fn push(&self, token: u32);
    /// The tokens so far.
    fn read(&self) -> Result<Vec<u32>>;
    /// Where a device's own work finds it, where it can.
    fn device_address(&self) -> Option<u64> {
        None
    }
}

impl Log {
    pub(crate) fn in_memory() -> Log {
        struct InMemory(Mutex<Vec<u32>>);
        impl LogImpl for InMemory {
            fn push(&self, token: u32) {
                self.0
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(token);
            }
            fn read(&self) -> Result<Vec<u32>> {
                Ok(self
                    .0
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .clone())
            }
        }
        Log {
            inner: Arc::new(InMemory(Mutex::new(Vec::new()))),
        }
    }

    /// A log in memory that a device's own work writes to.
    #[cfg_attr(not(has_gpu), allow(dead_code))]
    pub(crate) fn on_device(inner: Arc<dyn LogImpl>) -> Log {
        Log { inner }
    }

    #[cfg_attr(not(feature = "cuda"), allow(dead_code))]
    pub(crate) fn device_address(&self) -> Option<u64> {
        self.inner.device_address()
    }

    /// The backend's own.
    #[cfg(any(feature = "opencl", feature = "vulkan", feature = "wgpu30", has_metal))]
    pub(crate) fn inner(&self) -> &dyn LogImpl {
        &*self.inner
    }

    pub(crate) fn push(&self, token: u32) {
        self.inner.push(token);
    }

    /// The tokens so far, in the order in which the device wrote them. Those of work that is
    /// pending may or may not be among them. Blocks for a copy at most.
    ///
    /// # Errors
    /// The driver's, where the memory has to be copied (OpenCL).
    ///
    /// ```
    /// # use fencepost::{Device, testing::work};
    /// # let device = Device::open("host")?;
    /// assert!(work::new_log(&device)?.read()?.is_empty());
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn read(&self) -> Result<Vec<u32>> {
        self.inner.read()
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Log")
    }
}
