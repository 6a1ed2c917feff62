//! A guard that keeps long times exact.

use std::{any::Any, fmt, sync::Arc};

use crate::device::Device;

/// Keeps long times of a device exact while it lives: see
/// [`Device::keep_time`](crate::Device::keep_time).
///
/// Dropping it ends what it does, and never blocks.
///
/// ```
/// use fencepost::Device;
///
/// let device = Device::open("host")?;
/// let keeper = device.keep_time()?;
/// let stream = device.default_stream();
/// let (start, end) = (stream.record_timed()?, stream.record_timed()?);
/// end.synchronize()?;
/// println!("{} ± {:?}", start.elapsed(&end)?, start.elapsed(&end)?.uncertainty());
/// drop(keeper);
/// # Ok::<(), fencepost::Error>(())
/// ```
#[must_use = "times are kept while it lives"]
pub struct TimeKeeper {
    device: Device,
    /// `None` on a device whose clock is exact.
    _guard: Option<Arc<dyn Any + Send + Sync>>,
}

impl TimeKeeper {
    pub(crate) fn new(device: Device, guard: Option<Arc<dyn Any + Send + Sync>>) -> TimeKeeper {
        TimeKeeper {
            device,
            _guard: guard,
        }
    }

    /// The device whose time it keeps.
    ///
    /// ```
    /// let device = fencepost::Device::open("host")?;
    /// assert_eq!(device.keep_time()?.device(), &device);
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn device(&self) -> &Device {
        &self.device
    }
}

impl fmt::Debug for TimeKeeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TimeKeeper").field(&self.device).finish()
    }
}
