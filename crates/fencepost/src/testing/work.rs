//! Work that tests put on a stream: the same on every backend.
//!
//! ```
//! use fencepost::{Device, testing::work};
//!
//! let device = Device::open("host")?;
//! let (stream, log) = (device.new_stream()?, work::new_log(&device)?);
//! let gate = work::gate(&stream)?;
//! work::append(&stream, &log, 7)?;
//! let marker = stream.record()?;
//! assert!(!marker.query()?, "the gate holds the stream back");
//! gate.open();
//! marker.synchronize()?;
//! assert_eq!(log.read()?, [7]);
//! # Ok::<(), fencepost::Error>(())
//! ```

use std::sync::Arc;

use super::test_work::TestWork;
use crate::{
    contract::DeviceImpl,
    device::Device,
    error::{Error, Result},
    place::Place,
    stream::Stream,
};

pub use super::{
    bytes::ByteCounter,
    test_work::{Gate, Log},
};

/// Gives the test work of a device, where it is of one kind.
type WorkOf = fn(&dyn DeviceImpl) -> Option<Arc<dyn TestWork>>;

/// One for each kind of device.
const KINDS: &[WorkOf] = &[
    #[cfg(has_metal)]
    super::metal::work_of,
    #[cfg(all(feature = "cuda", not(loom)))]
    super::cuda::work_of,
    #[cfg(all(feature = "opencl", not(loom)))]
    super::opencl::work_of,
    #[cfg(all(feature = "vulkan", not(loom)))]
    super::vulkan::work_of,
    #[cfg(all(feature = "wgpu30", not(target_vendor = "apple"), not(loom)))]
    super::wgpu30::work_of,
    super::host::work_of,
];

/// The test work of a device.
pub(super) fn of(device: &dyn DeviceImpl) -> Result<Arc<dyn TestWork>> {
    // A mutant comes first: it says that it is of the backend it wraps.
    #[cfg(feature = "mutants")]
    if let Some(inner) = super::mutants::wrapped_by(device) {
        return of(inner).map(super::mutants::work_around);
    }
    let mut found = KINDS.iter().filter_map(|work_of| work_of(device));
    found.next().ok_or_else(|| Error::Unsupported {
        what: "the work of the conformance suite".into(),
        device: device.core().name.clone(),
        remedy: "open a device of a backend that the suite knows".into(),
    })
}

/// Waits until the work that was put on OpenCL streams is over, 10 s at most: call it before the
/// process ends. PoCL 3.1 crashes when it is taken apart while it compiles a kernel, and the
/// process loses its exit code. Does nothing for other backends: none was seen to need it.
///
/// ```
/// use std::process::ExitCode;
///
/// use fencepost::testing::work;
///
/// fn main() -> ExitCode {
///     let code = ExitCode::SUCCESS; // the tests, on any device
///     work::settle();
///     code
/// }
/// ```
pub fn settle() {
    #[cfg(all(feature = "opencl", not(loom)))]
    crate::opencl::exit::settle();
}

fn work_of(stream: &Stream) -> Result<Arc<dyn TestWork>> {
    of(stream.device().imp())
}

/// Whether what holds up one of the two also holds up the other, for they share a hardware queue.
///
/// ```
/// # use fencepost::{Device, testing::work};
/// # let device = Device::open("host")?;
/// let (one, two) = (device.new_stream()?, device.new_stream()?);
/// assert!(!work::share_order(&one, &two));
/// # Ok::<(), fencepost::Error>(())
/// ```
pub fn share_order(one: &Stream, two: &Stream) -> bool {
    work_of(one).is_ok_and(|work| work.shares_order(one.imp(), two.imp()))
}

/// Holds back what is submitted to `stream` from now on, until the gate is opened or dropped. Never
/// waits for the device.
///
/// # Errors
/// [`Error::Unsupported`] where nothing can hold the stream; the driver's error.
///
/// ```
/// # use fencepost::{Device, testing::work};
/// # let device = Device::open("host")?;
/// # let stream = device.new_stream()?;
/// let gate = work::gate(&stream)?;
/// assert!(!stream.query()?);
/// gate.open();
/// stream.synchronize()?;
/// # Ok::<(), fencepost::Error>(())
/// ```
#[track_caller]
pub fn gate(stream: &Stream) -> Result<Gate> {
    gate_at(stream, Place::caller())
}

/// The same, with the line of another language that closes it.
#[doc(hidden)]
pub fn gate_at(stream: &Stream, at: Place) -> Result<Gate> {
    work_of(stream)?.gate(stream.imp(), at)
}

/// A log that streams of `device` can append to. May block on the device's work: make it before a
/// stream is held.
///
/// # Errors
/// The driver's, where there is no memory.
///
/// ```
/// # use fencepost::{Device, testing::work};
/// # let device = Device::open("host")?;
/// # let stream = device.new_stream()?;
/// let log = work::new_log(&device)?;
/// assert!(log.read()?.is_empty());
/// # Ok::<(), fencepost::Error>(())
/// ```
pub fn new_log(device: &Device) -> Result<Log> {
    of(device.imp())?.new_log()
}

/// Work on `stream` that writes `token` into `log`, where it ran in the order. Never waits for it.
///
/// # Errors
/// [`Error::Unsupported`] for a log of another backend; the stream's failure where no work can be
/// submitted behind it; the driver's error.
///
/// ```
/// # use fencepost::{Device, testing::work};
/// # let device = Device::open("host")?;
/// # let stream = device.new_stream()?;
/// let log = work::new_log(&device)?;
/// work::append(&stream, &log, 1)?;
/// stream.synchronize()?;
/// assert_eq!(log.read()?, [1]);
/// # Ok::<(), fencepost::Error>(())
/// ```
pub fn append(stream: &Stream, log: &Log, token: u32) -> Result<()> {
    work_of(stream)?.append(stream.imp(), log, token)
}

/// Work on `stream` that fails, with `text` in the first cause. Never waits for it.
///
/// # Errors
/// The driver's.
///
/// ```
/// # use fencepost::{Device, testing::work};
/// # let device = Device::open("host")?;
/// # let stream = device.new_stream()?;
/// work::fail(&stream, "a test's own fault")?;
/// assert!(stream.synchronize().is_err());
/// # Ok::<(), fencepost::Error>(())
/// ```
pub fn fail(stream: &Stream, text: &str) -> Result<()> {
    work_of(stream)?.fail(stream.imp(), text)
}

/// Keeps `stream` busy with one piece of work: for `amount` nanoseconds of the device's clock on
/// the host and on CUDA, and for that many rounds of a loop elsewhere. Never waits for it.
///
/// # Errors
/// The driver's.
///
/// ```
/// # use fencepost::{Device, testing::work};
/// # let device = Device::open("host")?;
/// # let stream = device.new_stream()?;
/// work::spin(&stream, 1_000_000)?;
/// stream.synchronize()?;
/// # Ok::<(), fencepost::Error>(())
/// ```
pub fn spin(stream: &Stream, amount: u64) -> Result<()> {
    work_of(stream)?.spin(stream.imp(), amount)
}

impl ByteCounter {
    /// Memory for `capacity` bytes; all counts are zero. May block on the device's work.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if streams run closures; the driver's error if there is no memory.
    ///
    /// ```no_run
    /// # use fencepost::{Device, testing::work::ByteCounter};
    /// let counter = ByteCounter::new(&Device::open("cuda:0")?, 1 << 20)?;
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn new(device: &Device, capacity: usize) -> Result<ByteCounter> {
        let counter = of(device.imp())?.byte_counter(capacity)?;
        Ok(ByteCounter::of(counter))
    }
}
