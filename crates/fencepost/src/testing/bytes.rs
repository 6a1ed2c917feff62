//! Counting bytes on a device: the work of `fencepost run`.

use std::{any::Any, fmt, sync::Arc};

use crate::{
    error::{Error, Result},
    stream::Stream,
};

/// Memory of a device for one chunk of bytes and the 256 counts of their values.
///
/// The host fills it, a stream counts, and another may add the counts to a sum. It does not order
/// these steps: the caller does, with events.
///
/// ```
/// use fencepost::{Device, Error, testing::work::ByteCounter};
/// // Host streams count with closures of your own.
/// let counter = ByteCounter::new(&Device::open("host")?, 16);
/// assert!(matches!(counter, Err(Error::Unsupported { .. })));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone)]
pub struct ByteCounter {
    inner: Arc<dyn ByteCounterImpl>,
}

/// The backend's part of a counter.
pub(crate) trait ByteCounterImpl: Send + Sync + Any {
    /// Calls `fill` with memory that the device can read, of at most the capacity.
    fn fill(&self, len: usize, fill: &mut dyn FnMut(&mut [u8]));
    /// Device work on `stream`: the counts become those of the first `len` bytes.
    fn count(&self, stream: &Stream, len: usize) -> Result<()>;
    /// Device work on `stream`: adds the counts to those of `into`.
    fn add_to(&self, stream: &Stream, into: &ByteCounter) -> Result<()>;
    /// The counts, once the work on them is done.
    fn read(&self) -> Result<[u64; 256]>;
}

impl ByteCounter {
    pub(super) fn of(inner: Arc<dyn ByteCounterImpl>) -> ByteCounter {
        ByteCounter { inner }
    }

    /// Calls `fill` with room for `len` bytes, or for the capacity if that is less. No work that
    /// reads them may be pending.
    ///
    /// ```no_run
    /// # use fencepost::{Device, testing::work::ByteCounter};
    /// # let counter = ByteCounter::new(&Device::open("cuda:0")?, 1 << 20)?;
    /// counter.fill(3, |bytes| bytes.copy_from_slice(b"abc"));
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn fill<R>(&self, len: usize, fill: impl FnOnce(&mut [u8]) -> R) -> Option<R> {
        let (mut fill, mut result) = (Some(fill), None);
        self.inner.fill(len, &mut |bytes| {
            result = fill.take().map(|fill| fill(bytes));
        });
        result
    }

    /// Work on `stream` after which the counts are those of the first `len` bytes. Never waits for
    /// it.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a stream of another backend; the driver's error.
    ///
    /// ```no_run
    /// # use fencepost::{Device, testing::work::ByteCounter};
    /// # let device = Device::open("cuda:0")?;
    /// # let counter = ByteCounter::new(&device, 1 << 20)?;
    /// let stream = device.new_stream()?;
    /// counter.count(&stream, 3)?;
    /// stream.synchronize()?;
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn count(&self, stream: &Stream, len: usize) -> Result<()> {
        self.inner.count(stream, len)
    }

    /// Work on `stream` that adds the counts to those of `into`. Never waits for it.
    ///
    /// # Errors
    /// Those of [`count`](ByteCounter::count).
    ///
    /// ```no_run
    /// # use fencepost::{Device, testing::work::ByteCounter};
    /// # let device = Device::open("cuda:0")?;
    /// # let counter = ByteCounter::new(&device, 1 << 20)?;
    /// let (stream, sum) = (device.new_stream()?, ByteCounter::new(&device, 0)?);
    /// counter.add_to(&stream, &sum)?;
    /// stream.synchronize()?;
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn add_to(&self, stream: &Stream, into: &ByteCounter) -> Result<()> {
        self.inner.add_to(stream, into)
    }

    /// The counts. Call it when the work on them is done. Blocks for a copy at most.
    ///
    /// # Errors
    /// The driver's, where the memory has to be copied (CUDA, OpenCL).
    ///
    /// ```no_run
    /// # use fencepost::{Device, testing::work::ByteCounter};
    /// let sum = ByteCounter::new(&Device::open("cuda:0")?, 0)?;
    /// assert_eq!(sum.read()?, [0; 256]);
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn read(&self) -> Result<[u64; 256]> {
        self.inner.read()
    }

    /// The backend's own.
    #[cfg(any(feature = "cuda", feature = "opencl", feature = "vulkan", has_metal))]
    pub(crate) fn inner(&self) -> &dyn ByteCounterImpl {
        &*self.inner
    }
}

/// The error of a device whose streams run closures.
pub(crate) fn no_counter(device: &str) -> Error {
    Error::Unsupported {
        what: "counting bytes by a kernel".into(),
        device: device.into(),
        remedy: "launch a closure that counts".into(),
    }
}

impl fmt::Debug for ByteCounter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ByteCounter")
    }
}
