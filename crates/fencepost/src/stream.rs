//! An in-order queue of a device.

use std::{
    fmt,
    hash::{Hash, Hasher},
    panic::Location,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    contract::{MarkerImpl, StreamImpl},
    device::Device,
    error::{Error, Result},
    marker::Marker,
    sync::Ordering,
};

/// An in-order queue of a device. Cheap to clone; all clones are the same stream.
///
/// Work, markers and waits take effect in the order in which they were submitted. Dropping a stream
/// never blocks: what was submitted still runs.
///
/// ```
/// let stream = fencepost::Device::open("host")?.new_stream()?;
/// stream.launch(|| println!("first"))?;
/// stream.launch(|| println!("second"))?;
/// stream.synchronize()?;
/// # Ok::<(), fencepost::Error>(())
/// ```
#[derive(Clone)]
pub struct Stream {
    imp: Arc<dyn StreamImpl>,
    device: Device,
}

/// How far a stream has come.
///
/// ```
/// let stream = fencepost::Device::open("host")?.new_stream()?;
/// stream.record()?.synchronize()?;
/// let progress = stream.progress();
/// assert_eq!((progress.recorded, progress.completed), (1, 1));
/// # Ok::<(), fencepost::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Progress {
    /// How many markers were recorded on the stream.
    pub recorded: u64,
    /// How many of them are complete. After [`Stream::clear_error`], those that failed before it
    /// count as passed.
    pub completed: u64,
}

impl Stream {
    pub(crate) fn new(imp: Arc<dyn StreamImpl>, device: Device) -> Stream {
        Stream { imp, device }
    }

    #[cfg_attr(
        not(any(
            feature = "conformance",
            feature = "cuda",
            feature = "vulkan",
            has_metal
        )),
        allow(dead_code)
    )]
    pub(crate) fn imp(&self) -> &dyn StreamImpl {
        &*self.imp
    }

    /// The device it belongs to.
    ///
    /// ```
    /// let device = fencepost::Device::open("host")?;
    /// assert_eq!(device.new_stream()?.device(), &device);
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// A number that names this stream while the process lives; never used again.
    ///
    /// ```
    /// let device = fencepost::Device::open("host")?;
    /// assert_ne!(device.new_stream()?.id(), device.new_stream()?.id());
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn id(&self) -> u64 {
        self.imp.core().id
    }

    /// Runs `work` on this stream, after everything submitted before: host streams only.
    ///
    /// Returns at once; the work runs on a thread of the library. It may use every call of this
    /// crate, and may block: a wait through this crate lends the worker to other streams, and when
    /// other kinds of blocking starve them, more workers are started. A panic in it fails the
    /// stream.
    ///
    /// # Errors
    /// [`Error::StreamFailed`] when the stream has failed and the work would never run;
    /// [`Error::Unsupported`] on a GPU's stream; [`Error::Backend`] when no thread can be started.
    ///
    /// # References
    /// - host: [`std::thread::Builder::spawn`]
    ///
    /// ```
    /// let stream = fencepost::Device::open("host")?.new_stream()?;
    /// stream.launch(|| println!("on another thread"))?;
    /// stream.synchronize()?;
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    #[track_caller]
    pub fn launch(&self, work: impl FnOnce() + Send + 'static) -> Result<()> {
        self.imp.launch(Box::new(work), Location::caller())
    }

    /// Marks the point behind everything submitted so far, and submits it. Never waits for the
    /// device.
    ///
    /// # Errors
    /// What the driver says when it refuses the submit; [`Error::WouldBlock`] where a Metal stream
    /// has too many command buffers that are not complete.
    ///
    /// # References
    /// - as [`Event::record`](crate::Event::record)
    ///
    /// ```
    /// let stream = fencepost::Device::open("host")?.new_stream()?;
    /// let marker = stream.record()?;
    /// marker.synchronize()?;
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    #[track_caller]
    pub fn record(&self) -> Result<Marker> {
        self.mark(false)
    }

    /// As [`record`](Stream::record), with a device timestamp.
    ///
    /// # Errors
    /// As [`record`](Stream::record); [`Error::Unsupported`] where the queue has no timestamps.
    ///
    /// ```
    /// let stream = fencepost::Device::open("host")?.new_stream()?;
    /// let (start, end) = (stream.record_timed()?, stream.record_timed()?);
    /// end.synchronize()?;
    /// println!("{}", start.elapsed(&end)?);
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    #[track_caller]
    pub fn record_timed(&self) -> Result<Marker> {
        self.mark(true)
    }

    #[track_caller]
    pub(crate) fn mark(&self, timing: bool) -> Result<Marker> {
        let imp = self.imp.mark(timing, Location::caller())?;
        Ok(Marker::new(imp, self.device.clone()))
    }

    /// Makes later work of this stream run after `marker`. The calling thread never blocks.
    ///
    /// # Errors
    /// As [`Event::wait`](crate::Event::wait).
    ///
    /// # References
    /// - as [`Event::wait`](crate::Event::wait)
    ///
    /// ```
    /// let device = fencepost::Device::open("host")?;
    /// let (first, second) = (device.new_stream()?, device.new_stream()?);
    /// second.wait(&first.record()?)?;
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn wait(&self, marker: &Marker) -> Result<()> {
        match self.is_behind(&**marker.imp()) {
            true => Ok(()),
            false => self.imp.wait(marker.imp()),
        }
    }

    /// Whether a wait of this stream for `marker` needs nothing done.
    pub(crate) fn is_behind(&self, marker: &dyn MarkerImpl) -> bool {
        marker.point().timeline.stream.id == self.id() || marker.is_known_complete()
    }

    /// As [`wait`](Stream::wait), also for a pending marker of another backend, at a price: on a
    /// GPU it stalls the hardware queue, and with it every stream that shares the queue. On a host
    /// stream it is [`wait`](Stream::wait).
    ///
    /// A wait for a marker that exists closes no circle by itself. Host work that later blocks on
    /// what this wait holds up, and would have to end first, gets [`Error::WouldDeadlock`].
    ///
    /// # Errors
    /// What the driver says when it refuses.
    ///
    /// # References
    /// - [`cuStreamWaitValue32`](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__MEMOP.html)
    /// - [`vkSignalSemaphore`](https://registry.khronos.org/vulkan/specs/latest/man/html/vkSignalSemaphore.html)
    /// - [`MTLSharedEvent.signaledValue`](https://developer.apple.com/documentation/metal/mtlsharedevent/signaledvalue)
    ///
    /// ```
    /// let device = fencepost::Device::open("host")?;
    /// let (first, second) = (device.new_stream()?, device.new_stream()?);
    /// second.wait_foreign(&first.record()?)?;
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn wait_foreign(&self, marker: &Marker) -> Result<()> {
        match self.is_behind(&**marker.imp()) {
            true => Ok(()),
            false => self.imp.wait_foreign(marker.imp()),
        }
    }

    /// Whether everything submitted so far is done. Never blocks on the device's work. Where the
    /// API does not tell, it records a marker of its own, which [`progress`](Stream::progress)
    /// counts.
    ///
    /// # Errors
    /// The stream's failure, and those of [`record`](Stream::record).
    ///
    /// # References
    /// - [`cuStreamQuery`](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__STREAM.html)
    ///
    /// ```
    /// let stream = fencepost::Device::open("host")?.new_stream()?;
    /// assert!(stream.query()?);
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    #[track_caller]
    pub fn query(&self) -> Result<bool> {
        match self.imp.is_idle()? {
            Some(idle) => Ok(idle),
            None => self.record()?.query(),
        }
    }

    /// Blocks until everything submitted so far is done. Records a marker of its own, which
    /// [`progress`](Stream::progress) counts.
    ///
    /// # Errors
    /// The stream's failure, and those of [`Marker::synchronize`].
    ///
    /// # References
    /// - as [`Marker::synchronize`]
    ///
    /// ```
    /// let stream = fencepost::Device::open("host")?.new_stream()?;
    /// stream.launch(|| println!("work"))?;
    /// stream.synchronize()?;
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    #[track_caller]
    pub fn synchronize(&self) -> Result<()> {
        self.record()?.synchronize()
    }

    /// As [`synchronize`](Stream::synchronize), for at most `limit`.
    ///
    /// # Errors
    /// [`Error::Timeout`], and those of [`synchronize`](Stream::synchronize).
    ///
    /// ```
    /// use std::time::Duration;
    /// let stream = fencepost::Device::open("host")?.new_stream()?;
    /// stream.synchronize_timeout(Duration::from_secs(5))?;
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    #[track_caller]
    pub fn synchronize_timeout(&self, limit: Duration) -> Result<()> {
        self.record()?.synchronize_timeout(limit)
    }

    /// How many markers were recorded here, and how many are complete. Never blocks.
    ///
    /// The two are read one after the other, so a stream in use may have gone on in between; what
    /// is `completed` never exceeds what is `recorded`.
    ///
    /// ```
    /// let stream = fencepost::Device::open("host")?.new_stream()?;
    /// let before = stream.progress().recorded;
    /// stream.record()?;
    /// assert_eq!(stream.progress().recorded, before + 1);
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn progress(&self) -> Progress {
        let completed = self.imp.completed();
        let recorded = self.imp.core().recorded.load(Ordering::Acquire);
        Progress {
            recorded: recorded.max(completed),
            completed,
        }
    }

    /// The failure that sticks to this stream, if one does. Never blocks.
    ///
    /// ```
    /// let stream = fencepost::Device::open("host")?.new_stream()?;
    /// assert!(stream.error().is_none());
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn error(&self) -> Option<Error> {
        self.imp.failure()
    }

    /// Forgets a failure: what is submitted from now on runs. Markers that failed stay failed.
    /// Without a failure it does nothing.
    ///
    /// # Errors
    /// [`Error::DeviceLost`]: there is no way back from that.
    ///
    /// ```
    /// let stream = fencepost::Device::open("host")?.new_stream()?;
    /// stream.launch(|| std::panic::resume_unwind(Box::new("boom")))?;
    /// assert!(stream.synchronize().is_err());
    /// stream.clear_error()?;
    /// stream.synchronize()?;
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn clear_error(&self) -> Result<()> {
        self.imp.clear_error()
    }
}

/// A device's streams.
impl Device {
    /// The stream that exists from the start; the same one each time.
    ///
    /// # Panics
    /// Never: a backend that cannot give its default stream fails in [`open`](Device::open).
    ///
    /// ```
    /// let device = fencepost::Device::open("host")?;
    /// assert_eq!(device.default_stream(), device.default_stream());
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn default_stream(&self) -> Stream {
        Stream::new(self.imp().default_stream(), self.clone())
    }

    /// A new stream, in order within itself and unordered against all others.
    ///
    /// # Errors
    /// What the driver says when it makes no more.
    ///
    /// # References
    /// - [`cuStreamCreate`](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__STREAM.html)
    ///   with `CU_STREAM_NON_BLOCKING`,
    ///   [`makeCommandQueue`](https://developer.apple.com/documentation/metal/mtldevice/makecommandqueue())
    /// - host: memory, no thread
    ///
    /// ```
    /// let stream = fencepost::Device::open("host")?.new_stream()?;
    /// stream.launch(|| println!("work"))?;
    /// stream.synchronize()?;
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn new_stream(&self) -> Result<Stream> {
        Ok(Stream::new(self.imp().new_stream()?, self.clone()))
    }

    /// Blocks until everything submitted so far to any of its streams is done.
    ///
    /// Records a marker on each live stream. Streams of other threads may go on meanwhile.
    ///
    /// # Errors
    /// [`Error::WouldDeadlock`] from host work of one of its own streams; else the first failure
    /// met. Either after all streams were waited for.
    ///
    /// # References
    /// - [`cuCtxSynchronize`](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__CTX.html),
    ///   [`vkDeviceWaitIdle`](https://registry.khronos.org/vulkan/specs/latest/man/html/vkDeviceWaitIdle.html)
    ///
    /// ```
    /// let device = fencepost::Device::new_host(1);
    /// let stream = device.new_stream()?;
    /// stream.launch(|| println!("work"))?;
    /// device.synchronize()?;
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    #[track_caller]
    pub fn synchronize(&self) -> Result<()> {
        self.synchronize_until(None, Duration::MAX)
    }

    /// As [`synchronize`](Device::synchronize), for at most `limit` in all.
    ///
    /// # Errors
    /// [`Error::Timeout`] for the first stream that was not done in time, and those of
    /// [`synchronize`](Device::synchronize).
    ///
    /// ```
    /// use std::time::Duration;
    /// let device = fencepost::Device::new_host(1);
    /// device.synchronize_timeout(Duration::from_secs(5))?;
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    #[track_caller]
    pub fn synchronize_timeout(&self, limit: Duration) -> Result<()> {
        self.synchronize_until(Instant::now().checked_add(limit), limit)
    }

    #[track_caller]
    fn synchronize_until(&self, deadline: Option<Instant>, limit: Duration) -> Result<()> {
        let mut first = Ok(());
        let mut markers = Vec::new();
        for marker in self.record_all() {
            match marker {
                Ok(marker) => markers.push(marker),
                Err(error) => first = first.and(Err(error)),
            }
        }
        for marker in markers {
            match marker.wait_until(deadline) {
                Ok(true) => {}
                Ok(false) => first = first.and(Err(marker.timeout(limit))),
                // The caller's own mistake, which must not depend on what else has failed.
                Err(error @ Error::WouldDeadlock { .. }) => first = Err(error),
                Err(error) => first = first.and(Err(error)),
            }
        }
        first
    }

    /// See [`crate::bindings::record_all`].
    #[track_caller]
    pub(crate) fn record_all(&self) -> Vec<Result<Marker>> {
        let streams = self.imp().streams().into_iter();
        let record = |stream| Stream::new(stream, self.clone()).record();
        streams.map(record).collect()
    }
}

/// Two streams are equal when they are the same queue.
impl PartialEq for Stream {
    fn eq(&self, other: &Stream) -> bool {
        self.id() == other.id()
    }
}

impl Eq for Stream {}

impl Hash for Stream {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id().hash(state);
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.imp.core().fmt(f)
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stream({self}, {:?})", self.progress())
    }
}
