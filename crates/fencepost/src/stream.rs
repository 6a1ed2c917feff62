//! An in-order queue of a device.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
    time::{Duration, Instant},
};

#[cfg(all(feature = "trace", not(loom)))]
use crate::observe;
use crate::{
    contract::{MarkerImpl, StreamImpl},
    core::Work,
    device::Device,
    error::{Error, Result, Returned},
    fork::Process,
    marker::Marker,
    place::Place,
    sync::Ordering,
    timeline::Point,
};

/// An in-order queue of a device: work, markers and waits take effect in the order in which they
/// were submitted.
///
/// Cheap to clone. All clones are the same stream, and any thread may use them; what several
/// threads submit at the same time gets some order. Dropping a stream never blocks, and what was
/// submitted still runs.
///
/// Made by [`Device::new_stream`], or around a queue of yours by the `stream_from_raw` of its
/// backend's module, on wgpu by `wgpu30::stream`.
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
    /// The process that opened its device, and its number: within reach without a call.
    process: Process,
    id: u64,
}

/// How far a stream has come, as [`Stream::progress`] tells.
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
    /// How many of them are complete. After [`Stream::clear_error`], those that had failed count
    /// too.
    pub completed: u64,
}

impl Stream {
    pub(crate) fn new(imp: Arc<dyn StreamImpl>, device: Device) -> Stream {
        Stream {
            process: device.core().process,
            id: imp.core().id,
            imp,
            device,
        }
    }

    pub(crate) fn imp(&self) -> &dyn StreamImpl {
        &*self.imp
    }

    /// For who must not keep the stream alive.
    #[cfg(all(feature = "trace", not(loom)))]
    pub(crate) fn downgrade(&self) -> std::sync::Weak<dyn StreamImpl> {
        Arc::downgrade(&self.imp)
    }

    /// An error in a process forked from the one that opened the device. It comes before any lock:
    /// a thread of the parent may hold it for ever.
    #[inline]
    pub(crate) fn check_fork(&self) -> Result<()> {
        match self.process.is_this() {
            true => Ok(()),
            false => self.device.core().check_fork(),
        }
    }

    /// The device that the stream belongs to.
    ///
    /// ```
    /// let device = fencepost::Device::open("host")?;
    /// assert_eq!(device.new_stream()?.device(), &device);
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// A number that identifies the stream in this process. It is never reused.
    ///
    /// ```
    /// let device = fencepost::Device::open("host")?;
    /// assert_ne!(device.new_stream()?.id(), device.new_stream()?.id());
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Gives the stream a name, for the texts of errors, [`Display`](fmt::Display) and
    /// [`Debug`](fmt::Debug): `stream 3 "load" of host`. All clones have it. An empty name takes it
    /// away. Never blocks.
    ///
    /// ```
    /// let stream = fencepost::Device::open("host")?.new_stream()?;
    /// stream.set_name("load");
    /// assert_eq!(stream.name().as_deref(), Some("load"));
    /// assert_eq!(stream.to_string(), format!("stream {} \"load\" of host", stream.id()));
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn set_name(&self, name: &str) {
        self.imp.core().name.set(name);
    }

    /// The stream itself, after [`set_name`](Stream::set_name).
    ///
    /// ```
    /// let load = fencepost::Device::open("host")?.new_stream()?.with_name("load");
    /// assert_eq!(load.name().as_deref(), Some("load"));
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    #[must_use]
    pub fn with_name(self, name: &str) -> Stream {
        self.set_name(name);
        self
    }

    /// The name that [`set_name`](Stream::set_name) gave it, if it has one. Never blocks.
    ///
    /// ```
    /// assert_eq!(fencepost::Device::open("host")?.new_stream()?.name(), None);
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn name(&self) -> Option<String> {
        self.imp.core().name.to_owned()
    }

    /// Runs a closure on the stream, after everything submitted before it. For host streams only.
    ///
    /// Returns at once. The closure runs on a thread of the library and may use every call of this
    /// crate. It may block: while it waits through this crate, its thread counts as free and other
    /// streams go on; if it blocks otherwise and starves them, more threads are started. A panic in
    /// it fails the stream.
    ///
    /// # Errors
    /// [`Error::StreamFailed`] where the stream has failed, so that the closure would never run;
    /// [`Error::Unsupported`] on a GPU's stream; [`Error::Backend`] where no thread can be started;
    /// [`Error::Forked`].
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
        self.launch_at(work, Place::caller())
    }

    /// See [`crate::bindings::launch_at`].
    pub(crate) fn launch_at(&self, work: impl FnOnce() + Send + 'static, at: Place) -> Result<()> {
        self.launch_work(
            Box::new(|| {
                work();
                Ok(())
            }),
            at,
        )
    }

    fn launch_work(&self, work: Work, at: Place) -> Result<()> {
        self.check_fork()?;
        self.imp.launch(work, at).map_err(Error::seen)
    }

    /// As [`launch`](Stream::launch), for a closure that may return an error, which fails the
    /// stream as a panic does.
    ///
    /// The [`Cause`](crate::Cause) of the failure names the line of this call and has the error's
    /// text; its [`source`](std::error::Error::source) is the error itself. A returned
    /// [`Error::StreamFailed`] or [`Error::DeviceLost`] passes on the failure that it tells of, as
    /// a wait does. The error may be dropped on any thread.
    ///
    /// # Errors
    /// Those of [`launch`](Stream::launch). What the closure returns is for whoever waits for the
    /// work.
    ///
    /// # References
    /// - those of [`launch`](Stream::launch)
    ///
    /// ```
    /// let stream = fencepost::Device::open("host")?.new_stream()?;
    /// stream.try_launch(|| "12a".parse::<u32>().map(drop))?;
    /// let error = stream.synchronize().unwrap_err();
    /// assert!(error.to_string().contains("returned an error: invalid digit found in string"));
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    #[track_caller]
    pub fn try_launch<E>(&self, work: impl FnOnce() -> Result<(), E> + Send + 'static) -> Result<()>
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let work = || work().map_err(|error| Returned::new(error.into()));
        self.launch_work(Box::new(work), Place::caller())
    }

    /// Records a marker behind everything submitted so far, and submits it. Never waits for the
    /// device.
    ///
    /// Where a driver's queue is full, the driver itself may block the call: see the module of the
    /// backend.
    ///
    /// On a failed stream it succeeds, and the marker has failed from the start.
    ///
    /// # Errors
    /// [`Error::Backend`] where the driver refuses the submit; [`Error::WouldBlock`] where a Metal
    /// stream has too many uncompleted command buffers; [`Error::Unsupported`] for a Metal stream
    /// on a queue of yours; [`Error::Forked`].
    ///
    /// # References
    /// - those of [`Event::record`](crate::Event::record)
    ///
    /// ```
    /// let stream = fencepost::Device::open("host")?.new_stream()?;
    /// let marker = stream.record()?;
    /// marker.synchronize()?;
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    #[track_caller]
    pub fn record(&self) -> Result<Marker> {
        self.mark(false, Place::caller())
    }

    /// Records a marker with a timestamp of the device, for [`Marker::elapsed`] and
    /// [`Marker::timestamp`]. Else like [`record`](Stream::record).
    ///
    /// # Errors
    /// Those of [`record`](Stream::record); [`Error::Unsupported`] where the queue has no
    /// timestamps.
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
        self.mark(true, Place::caller())
    }

    pub(crate) fn mark(&self, timing: bool, at: Place) -> Result<Marker> {
        self.check_fork()?;
        let imp = self.imp.mark(timing, at).map_err(Error::seen)?;
        Ok(Marker::new(imp, self.device.clone()))
    }

    /// Makes later work of this stream run after `marker`. The calling thread never blocks.
    ///
    /// Does nothing if the marker is complete, or on this very stream, unless that is a queue of
    /// OpenCL that runs out of order. If the marker fails, this stream fails too, and its
    /// [`Cause`](crate::Cause) names the marker and the first failure.
    ///
    /// # Errors
    /// Those of [`Event::wait`](crate::Event::wait).
    ///
    /// # References
    /// - those of [`Event::wait`](crate::Event::wait)
    ///
    /// ```
    /// let device = fencepost::Device::open("host")?;
    /// let (first, second) = (device.new_stream()?, device.new_stream()?);
    /// second.wait(&first.record()?)?;
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn wait(&self, marker: &Marker) -> Result<()> {
        self.check_fork()?;
        if !self.is_behind(&**marker.imp()) {
            marker.check_fork()?;
            self.imp.wait(marker.imp()).map_err(Error::seen)?;
        }
        self.waits_behind(marker.imp().point());
        Ok(())
    }

    /// Tells who observes of a wait that was made.
    #[cfg_attr(not(feature = "trace"), allow(clippy::unused_self))]
    #[inline]
    pub(crate) fn waits_behind(&self, point: &Point) {
        #[cfg(all(feature = "trace", not(loom)))]
        if observe::any() {
            observe::waits(&observe::Wait {
                awaited: &point.timeline.stream,
                value: point.value,
                waiting: self.imp.core(),
                after: self.imp.core().recorded.load(Ordering::Acquire),
            });
        }
        #[cfg(not(all(feature = "trace", not(loom))))]
        let _ = point;
    }

    /// Whether a wait of this stream for `marker` has nothing to do.
    pub(crate) fn is_behind(&self, marker: &dyn MarkerImpl) -> bool {
        let is_own = marker.point().timeline.stream.id == self.id();
        (is_own && self.imp.is_in_order()) || marker.is_known_complete()
    }

    /// Makes later work of this stream run after `marker`, even if that is a pending marker of
    /// another backend. The calling thread never blocks.
    ///
    /// Such a wait has a price on a GPU: it stalls the hardware queue, and every stream that shares
    /// it, until the host has seen the marker complete. On a host stream this is the same as
    /// [`wait`](Stream::wait).
    ///
    /// A deadlock is reported where it can be seen: host work that blocks on something behind this
    /// wait, while the marker depends on that very work, gets [`Error::WouldDeadlock`].
    ///
    /// # Errors
    /// Those of [`wait`](Stream::wait), except [`Error::ForeignWait`]. On wgpu, whose queue cannot
    /// be held, [`Error::Unsupported`] takes its place.
    ///
    /// # References
    /// - [`cuStreamWaitValue32`](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__MEMOP.html)
    /// - [`vkSignalSemaphore`](https://registry.khronos.org/vulkan/specs/latest/man/html/vkSignalSemaphore.html)
    /// - [`clSetUserEventStatus`](https://registry.khronos.org/OpenCL/specs/3.0-unified/html/OpenCL_API.html#clSetUserEventStatus)
    /// - [`MTLSharedEvent.signaledValue`](https://developer.apple.com/documentation/metal/mtlsharedevent/signaledvalue)
    ///
    /// ```
    /// let device = fencepost::Device::open("host")?;
    /// let (first, second) = (device.new_stream()?, device.new_stream()?);
    /// second.wait_foreign(&first.record()?)?;
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn wait_foreign(&self, marker: &Marker) -> Result<()> {
        self.check_fork()?;
        if !self.is_behind(&**marker.imp()) {
            marker.check_fork()?;
            self.imp.wait_foreign(marker.imp()).map_err(Error::seen)?;
        }
        self.waits_behind(marker.imp().point());
        Ok(())
    }

    /// Whether everything submitted so far is complete. Never waits for the device.
    ///
    /// Only CUDA has such a query. Elsewhere this records a marker, which
    /// [`progress`](Stream::progress) counts, and queries that.
    ///
    /// # Errors
    /// The stream's failure, and those of [`record`](Stream::record).
    ///
    /// # References
    /// - [`cuStreamQuery`](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__STREAM.html)
    /// - elsewhere: those of [`record`](Stream::record) and [`Marker::query`]
    ///
    /// ```
    /// let stream = fencepost::Device::open("host")?.new_stream()?;
    /// assert!(stream.query()?);
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    #[track_caller]
    pub fn query(&self) -> Result<bool> {
        self.check_fork()?;
        match self.imp.is_idle().map_err(Error::seen)? {
            Some(idle) => Ok(idle),
            None => self.record()?.query(),
        }
    }

    /// Blocks the calling thread until everything submitted so far is complete. It records a marker
    /// for that, which [`progress`](Stream::progress) counts.
    ///
    /// # Errors
    /// Those of [`record`](Stream::record) and of [`Marker::synchronize`].
    ///
    /// # References
    /// - those of [`Marker::synchronize`]
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

    /// As [`synchronize`](Stream::synchronize), but for no longer than `limit`.
    ///
    /// # Errors
    /// [`Error::Timeout`] where the limit has passed; those of
    /// [`synchronize`](Stream::synchronize).
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

    /// Queues a write over more than the device's last cache holds.
    #[track_caller]
    pub(crate) fn overwrite_cache(&self) -> Result<()> {
        self.check_fork()?;
        self.imp
            .overwrite_cache(Place::caller())
            .map_err(Error::seen)
    }

    /// How many markers were recorded on the stream, and how many of them are complete. Never
    /// blocks and asks no driver, so a count may lag behind the device.
    ///
    /// The two are read one after the other, and the stream may go on in between. `completed` never
    /// exceeds `recorded`. In a forked child nothing is known to be complete.
    ///
    /// ```
    /// let stream = fencepost::Device::open("host")?.new_stream()?;
    /// let before = stream.progress().recorded;
    /// stream.record()?;
    /// assert_eq!(stream.progress().recorded, before + 1);
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn progress(&self) -> Progress {
        let completed = match self.process.is_this() {
            true => self.imp.completed(),
            false => 0,
        };
        let recorded = self.imp.core().recorded.load(Ordering::Acquire);
        Progress {
            recorded: recorded.max(completed),
            completed,
        }
    }

    /// The failure of the stream, if it has failed. It stays until
    /// [`clear_error`](Stream::clear_error). Never blocks. In a forked child, which cannot use the
    /// stream, it is [`Error::Forked`].
    ///
    /// ```
    /// let stream = fencepost::Device::open("host")?.new_stream()?;
    /// assert!(stream.error().is_none());
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn error(&self) -> Option<Error> {
        match self.check_fork() {
            Ok(()) => self.imp.failure().map(Error::seen),
            Err(forked) => Some(forked),
        }
    }

    /// Makes a failed stream usable again: what is submitted from now on runs. Markers that have
    /// failed stay failed. Does nothing on a stream that has not failed. Never blocks.
    ///
    /// The waits that lie behind the failure are forgotten with it: whatever they waited for may
    /// fail later, and does not fail what is submitted from now on. The host drops them. A GPU,
    /// from which no API can take a wait back, still runs what comes behind them once they are
    /// over.
    ///
    /// # Errors
    /// [`Error::DeviceLost`]: a lost device stays lost; [`Error::Forked`].
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
        self.check_fork()?;
        // Who clears it knows of it.
        drop(self.error());
        self.imp.clear_error().map_err(Error::seen)
    }
}

/// A device's streams.
impl Device {
    /// The stream that the device has from the start. The same one each time. Never blocks.
    ///
    /// # References
    /// - [CUDA's legacy default stream](https://docs.nvidia.com/cuda/cuda-driver-api/stream-sync-behavior.html)
    /// - elsewhere: an ordinary stream
    ///
    /// ```
    /// let device = fencepost::Device::open("host")?;
    /// assert_eq!(device.default_stream(), device.default_stream());
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn default_stream(&self) -> Stream {
        Stream::new(self.imp().default_stream(), self.clone())
    }

    /// Makes a stream. It is in order within itself and unordered against all other streams. Never
    /// waits for the device.
    ///
    /// # Errors
    /// [`Error::Backend`] where the driver makes no more; [`Error::DeviceLost`]; [`Error::Forked`].
    ///
    /// # References
    /// - [`cuStreamCreate`](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__STREAM.html)
    ///   with `CU_STREAM_NON_BLOCKING`
    /// - [`vkCreateSemaphore`](https://registry.khronos.org/vulkan/specs/latest/man/html/vkCreateSemaphore.html),
    ///   a timeline on one of the device's queues
    /// - [`clCreateCommandQueueWithProperties`](https://registry.khronos.org/OpenCL/specs/3.0-unified/html/OpenCL_API.html#clCreateCommandQueueWithProperties)
    /// - [`makeCommandQueue`](https://developer.apple.com/documentation/metal/mtldevice/makecommandqueue())
    /// - host: memory, no thread
    ///
    /// ```
    /// let stream = fencepost::Device::open("host")?.new_stream()?;
    /// stream.launch(|| println!("work"))?;
    /// stream.synchronize()?;
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn new_stream(&self) -> Result<Stream> {
        self.core().check_fork()?;
        Ok(Stream::new(
            self.imp().new_stream().map_err(Error::seen)?,
            self.clone(),
        ))
    }

    /// Blocks the calling thread until everything submitted so far to the device's streams is
    /// complete. It records a marker on each live stream and waits for all of these. Other threads
    /// may submit more meanwhile.
    ///
    /// # Errors
    /// [`Error::WouldDeadlock`] when called from host work of one of these streams; else the first
    /// failure. An error is returned only after all other streams were waited for.
    ///
    /// # References
    /// - those of [`Stream::synchronize`], for each stream. Unlike
    ///   [`cuCtxSynchronize`](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__CTX.html)
    ///   and [`vkDeviceWaitIdle`](https://registry.khronos.org/vulkan/specs/latest/man/html/vkDeviceWaitIdle.html),
    ///   it does not wait for queues that no stream knows
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
        self.synchronize_until(None, Duration::MAX, Place::caller())
    }

    /// As [`synchronize`](Device::synchronize), but for no longer than `limit` in all.
    ///
    /// # Errors
    /// [`Error::Timeout`] for the first stream that is not complete in time; those of
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
        self.synchronize_until(Instant::now().checked_add(limit), limit, Place::caller())
    }

    fn synchronize_until(
        &self,
        deadline: Option<Instant>,
        limit: Duration,
        at: Place,
    ) -> Result<()> {
        self.core().check_fork()?;
        let mut first = Ok(());
        let mut markers = Vec::new();
        for marker in self.record_all(at) {
            match marker {
                Ok(marker) => markers.push(marker),
                Err(error) => first = first.and(Err(error)),
            }
        }
        for marker in markers {
            match marker.wait_until(deadline) {
                Ok(true) => {}
                Ok(false) => first = first.and(Err(marker.timeout(limit))),
                // A mistake of the caller's: reported whatever else has failed.
                Err(error @ Error::WouldDeadlock { .. }) => first = Err(error),
                Err(error) => first = first.and(Err(error)),
            }
        }
        first
    }

    /// See [`crate::bindings::record_all`].
    pub(crate) fn record_all(&self, at: Place) -> Vec<Result<Marker>> {
        if let Err(forked) = self.core().check_fork() {
            return vec![Err(forked)];
        }
        let streams = self.imp().streams().into_iter();
        let record = |stream| Stream::new(stream, self.clone()).mark(false, at);
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
