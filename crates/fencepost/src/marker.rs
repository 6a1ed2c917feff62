//! One recorded point on a stream.

use std::{
    fmt,
    future::{Future, IntoFuture},
    hash::{Hash, Hasher},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use crate::{
    clock::{Elapsed, Timestamp},
    contract::MarkerImpl,
    correlation::{Correlation, HostTime},
    deadlock,
    device::Device,
    error::{Error, Result},
    explain,
    panics::contain,
    place::Place,
    sync::spin_until,
    timeline::{Reached, Ticket, Waiter},
};

/// A driver that does not show the time of a complete marker for so long never will.
const SHOWN: Duration = Duration::from_secs(10);

/// One recorded point on a stream. It is complete once all work submitted before it is.
///
/// Immutable and cheap to clone. Reading consumes nothing: any number of threads may query, wait
/// and read the time, in any order. The stream may be dropped before its markers.
///
/// Made by [`Stream::record`](crate::Stream::record), or taken out of an event by
/// [`Event::marker`](crate::Event::marker).
///
/// ```
/// let stream = fencepost::Device::open("host")?.new_stream()?;
/// stream.launch(|| println!("work"))?;
/// let marker = stream.record()?;
/// marker.synchronize()?;
/// assert!(marker.query()?);
/// # Ok::<(), fencepost::Error>(())
/// ```
#[derive(Clone)]
pub struct Marker {
    imp: Arc<dyn MarkerImpl>,
    device: Device,
}

/// The state of a marker, or of the marker that an event holds.
///
/// ```
/// use fencepost::{Device, Event, Status};
///
/// let device = Device::open("host")?;
/// let event = Event::new(&device);
/// assert_eq!(event.status()?, Status::Unrecorded);
/// event.record(&device.default_stream())?;
/// event.synchronize()?;
/// assert_eq!(event.status()?, Status::Complete);
/// # Ok::<(), fencepost::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// The event holds no marker yet.
    Unrecorded,
    /// Some work submitted before the marker is not done yet.
    Pending,
    /// All work submitted before the marker is done.
    Complete,
}

impl Status {
    /// That of a marker.
    pub(crate) fn of(complete: bool) -> Status {
        match complete {
            true => Status::Complete,
            false => Status::Pending,
        }
    }
}

impl Marker {
    pub(crate) fn new(imp: Arc<dyn MarkerImpl>, device: Device) -> Marker {
        Marker { imp, device }
    }

    pub(crate) fn imp(&self) -> &Arc<dyn MarkerImpl> {
        &self.imp
    }

    /// An error in a process forked from the one that opened the device.
    #[inline]
    pub(crate) fn check_fork(&self) -> Result<()> {
        self.device.core().check_fork()
    }

    /// The device that the marker was recorded on.
    ///
    /// ```
    /// let device = fencepost::Device::open("host")?;
    /// assert_eq!(device.default_stream().record()?.device(), &device);
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Whether the marker is complete. Never blocks.
    ///
    /// # Errors
    /// The failure of its stream or device once the marker can no longer complete, as
    /// [`Error::StreamFailed`] or [`Error::DeviceLost`]; [`Error::Captured`];
    /// [`Error::Abandoned`]; [`Error::Forked`] for a marker that is not known to be complete.
    ///
    /// # References
    /// - [`cuEventQuery`](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__EVENT.html),
    ///   [`vkGetSemaphoreCounterValue`](https://registry.khronos.org/vulkan/specs/latest/man/html/vkGetSemaphoreCounterValue.html),
    ///   [`clGetEventInfo`](https://registry.khronos.org/OpenCL/specs/3.0-unified/html/OpenCL_API.html#clGetEventInfo),
    ///   [`MTLCommandBuffer.addCompletedHandler`](https://developer.apple.com/documentation/metal/mtlcommandbuffer/addcompletedhandler(_:))
    /// - wgpu: as Vulkan or Metal; on other APIs
    ///   [`Device::poll`](https://docs.rs/wgpu/30.0.2/wgpu/struct.Device.html#method.poll)
    /// - Metal and host: one atomic load
    ///
    /// ```
    /// let stream = fencepost::Device::open("host")?.new_stream()?;
    /// assert!(stream.record()?.query()?, "nothing was submitted before it");
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn query(&self) -> Result<bool> {
        self.imp.query().map_err(Error::seen)
    }

    /// [`Pending`](Status::Pending) or [`Complete`](Status::Complete). Never blocks.
    ///
    /// # Errors
    /// Those of [`query`](Marker::query).
    ///
    /// ```
    /// # use fencepost::Status;
    /// let stream = fencepost::Device::open("host")?.new_stream()?;
    /// assert_eq!(stream.record()?.status()?, Status::Complete);
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn status(&self) -> Result<Status> {
        Ok(Status::of(self.query()?))
    }

    /// Blocks the calling thread until the marker is complete. It spins for some microseconds, then
    /// sleeps; on CUDA it spins in the driver, unless the stream was made with
    /// `cuda::StreamOptions::blocking_sync`.
    ///
    /// Inside host work, other streams go on while this blocks.
    ///
    /// # Errors
    /// Those of [`query`](Marker::query); [`Error::WouldDeadlock`] when called from host work that
    /// the marker waits for, directly or through other streams; [`Error::NotSubmitted`];
    /// [`Error::Forked`].
    ///
    /// # References
    /// - [`cuEventSynchronize`](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__EVENT.html)
    /// - [`vkWaitSemaphores`](https://registry.khronos.org/vulkan/specs/latest/man/html/vkWaitSemaphores.html)
    /// - [`clWaitForEvents`](https://registry.khronos.org/OpenCL/specs/3.0-unified/html/OpenCL_API.html#clWaitForEvents)
    /// - wgpu: as Vulkan; on other APIs looks with growing pauses
    /// - Metal and host: [`std::thread::park`]
    ///
    /// ```
    /// let stream = fencepost::Device::open("host")?.new_stream()?;
    /// stream.launch(|| println!("done before synchronize() returns"))?;
    /// stream.record()?.synchronize()?;
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn synchronize(&self) -> Result<()> {
        match self.wait_until(None)? {
            true => Ok(()),
            // A wait that ends early has seen nothing complete.
            false => Err(self.timeout(Duration::MAX)),
        }
    }

    /// As [`synchronize`](Marker::synchronize), but for no longer than `limit`. With a limit of
    /// zero it only looks.
    ///
    /// # Errors
    /// [`Error::Timeout`] where the limit has passed: it says which marker of which stream was
    /// awaited, which source line recorded it, how far the stream has come, and what is stuck at
    /// the end of the chain of waits. Those of [`synchronize`](Marker::synchronize).
    ///
    /// ```
    /// use std::time::Duration;
    /// let stream = fencepost::Device::open("host")?.new_stream()?;
    /// stream.record()?.synchronize_timeout(Duration::from_secs(5))?;
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn synchronize_timeout(&self, limit: Duration) -> Result<()> {
        let start = Instant::now();
        // A limit beyond the end of the clock is no limit.
        if self.wait_until(start.checked_add(limit))? {
            return Ok(());
        }
        Err(self.timeout(limit))
    }

    /// Blocks until complete (`true`), failed, or `deadline` (`false`).
    pub(crate) fn wait_until(&self, deadline: Option<Instant>) -> Result<bool> {
        if self.query()? {
            return Ok(true);
        }
        self.check_fork()?;
        deadlock::block_on(&self.imp, deadline).map_err(Error::seen)
    }

    pub(crate) fn timeout(&self, limit: Duration) -> Error {
        explain::timeout(&self.imp, limit)
    }

    /// When the marker completed, in ticks of its device's clock. Never blocks.
    ///
    /// # Errors
    /// [`Error::TimingDisabled`] for a marker without timing; [`Error::NotReady`] while it is
    /// pending; [`Error::Unsupported`] on CUDA, which tells differences only; those of
    /// [`query`](Marker::query).
    ///
    /// # References
    /// - [`vkGetQueryPoolResults`](https://registry.khronos.org/vulkan/specs/latest/man/html/vkGetQueryPoolResults.html)
    /// - [`clGetEventProfilingInfo`](https://registry.khronos.org/OpenCL/specs/3.0-unified/html/OpenCL_API.html#clGetEventProfilingInfo)
    /// - [`MTLCommandBuffer.gpuEndTime`](https://developer.apple.com/documentation/metal/mtlcommandbuffer/gpuendtime)
    /// - wgpu: [`CommandEncoder::write_timestamp`](https://docs.rs/wgpu/30.0.2/wgpu/struct.CommandEncoder.html#method.write_timestamp)
    /// - host: [`std::time::Instant`]
    ///
    /// ```
    /// let stream = fencepost::Device::open("host")?.new_stream()?;
    /// let marker = stream.record_timed()?;
    /// assert!(marker.timestamp()?.ticks() > 0);
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn timestamp(&self) -> Result<Timestamp> {
        self.require_timing("held")?;
        self.require_complete("held")?;
        self.imp.timestamp().map_err(Error::seen)
    }

    /// When the marker completed, by the host's monotonic clock: the instant to which
    /// `correlation` brings the time on the device's clock, and how far the truth may be from it.
    /// That is what the correlation is uncertain by at that instant, and the
    /// [uncertainty](Elapsed::uncertainty) of the way from there on the device's clock. Times of
    /// several devices compare. Never blocks.
    ///
    /// # Errors
    /// In this order: [`Error::TimingDisabled`] for a marker without timing;
    /// [`Error::DeviceMismatch`] for a correlation of another device; [`Error::NotReady`] while the
    /// marker is pending, and its failure where it has failed; [`Error::Ambiguous`].
    ///
    /// # References
    /// - those of [`elapsed`](Marker::elapsed)
    ///
    /// ```
    /// use std::time::Instant;
    /// let device = fencepost::Device::open("host")?;
    /// let before = Instant::now();
    /// let marker = device.default_stream().record_timed()?;
    /// marker.synchronize()?;
    /// let time = marker.host_time(&device.correlate()?)?;
    /// assert!(before <= time.latest() && time.earliest() <= Instant::now());
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn host_time(&self, correlation: &Correlation) -> Result<HostTime> {
        self.require_timing("held")?;
        correlation.check_device(&self.imp.point().timeline.stream.device, &*self.imp)?;
        self.require_complete("held")?;
        correlation.time_of(&*self.imp).map_err(Error::seen)
    }

    /// The time from this marker to `end`, on the device's clock. Negative if `end` is earlier.
    /// Never blocks.
    ///
    /// # Errors
    /// In this order: [`Error::TimingDisabled`] for a marker without timing;
    /// [`Error::DeviceMismatch`] for markers of two devices; [`Error::NotReady`] while one of them
    /// is pending, and the failure of one that has failed; [`Error::Ambiguous`] where the clock
    /// wraps and nobody looked at one of them for about as long as it runs.
    ///
    /// # References
    /// - [`cuEventElapsedTime`](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__EVENT.html)
    /// - [`clGetEventProfilingInfo`](https://registry.khronos.org/OpenCL/specs/3.0-unified/html/OpenCL_API.html#clGetEventProfilingInfo)
    /// - wgpu: [`CommandEncoder::write_timestamp`](https://docs.rs/wgpu/30.0.2/wgpu/struct.CommandEncoder.html#method.write_timestamp)
    /// - [`vkGetQueryPoolResults`](https://registry.khronos.org/vulkan/specs/latest/man/html/vkGetQueryPoolResults.html)
    /// - [`MTLCommandBuffer.gpuEndTime`](https://developer.apple.com/documentation/metal/mtlcommandbuffer/gpuendtime)
    /// - host: [`std::time::Instant`]
    ///
    /// ```
    /// let stream = fencepost::Device::open("host")?.new_stream()?;
    /// let start = stream.record_timed()?;
    /// let end = stream.record_timed()?;
    /// println!("{}", start.elapsed(&end)?);
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn elapsed(&self, end: &Marker) -> Result<Elapsed> {
        self.comparable(end)?;
        self.require_complete("start")?;
        end.require_complete("end")?;
        self.imp.elapsed(&*end.imp).map_err(Error::seen)
    }

    /// As [`elapsed`](Marker::elapsed), after it has waited for both.
    pub(crate) fn elapsed_after(&self, end: &Marker) -> Result<Elapsed> {
        self.comparable(end)?;
        self.synchronize()?;
        end.synchronize()?;
        let asked = Instant::now();
        loop {
            match self.imp.elapsed(&*end.imp) {
                // A driver may show a time a moment after it says that the marker is complete.
                Err(Error::NotReady { complete: true, .. }) if asked.elapsed() < SHOWN => {
                    std::thread::sleep(Duration::from_micros(50));
                }
                told => return told.map_err(Error::seen),
            }
        }
    }

    fn comparable(&self, end: &Marker) -> Result<()> {
        self.require_timing("start")?;
        end.require_timing("end")?;
        let (left, right) = (self.imp.point(), end.imp.point());
        let devices = (&left.timeline.stream.device, &right.timeline.stream.device);
        if devices.0.id != devices.1.id {
            return Err(Error::DeviceMismatch {
                call: "elapsed",
                left: left.to_string(),
                right: right.to_string(),
            });
        }
        Ok(())
    }

    fn require_timing(&self, which: &'static str) -> Result<()> {
        match self.imp.point().timing {
            true => Ok(()),
            false => Err(Error::timing_disabled(which)),
        }
    }

    fn require_complete(&self, which: &'static str) -> Result<()> {
        match self.query()? {
            true => Ok(()),
            false => Err(Error::not_ready(which, self.to_string())),
        }
    }

    /// Calls `callback` once the marker is complete or has failed. Where that is so already, it is
    /// called soon, but never on the calling thread. Never blocks.
    ///
    /// Callbacks run on a thread of the library, without any lock of the library, one at a time for
    /// each device. Those of one stream come in the order of its markers, whichever threads learn
    /// of their completion, unless the stream's error is
    /// [cleared](crate::Stream::clear_error) between them; those of several streams come in any.
    /// Those of one marker come in the order of their registration. One for a marker that is
    /// complete already comes behind those that are due.
    ///
    /// Callbacks may use every call of this crate; one that blocks delays those behind it. A panic
    /// in one is caught: the panic hook reports it, and
    /// [`Device::callback_panics`](crate::Device::callback_panics) counts it. Callbacks that are
    /// pending when the process ends never run.
    ///
    /// # Errors
    /// [`Error::Backend`] where no thread can be started to watch the marker; [`Error::Captured`];
    /// [`Error::NotSubmitted`]; [`Error::Forked`]. The callback is dropped then.
    ///
    /// ```
    /// let stream = fencepost::Device::open("host")?.new_stream()?;
    /// let (tell, told) = std::sync::mpsc::channel();
    /// stream.record()?.on_complete(move |result| tell.send(result.is_ok()).unwrap())?;
    /// assert_eq!(told.recv(), Ok(true));
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn on_complete(&self, callback: impl FnOnce(Result<()>) + Send + 'static) -> Result<()> {
        self.call_back(callback).map(drop)
    }

    /// As [`on_complete`](Marker::on_complete). `None` where the callback is on its way already.
    fn call_back(
        &self,
        callback: impl FnOnce(Result<()>) + Send + 'static,
    ) -> Result<Option<Ticket>> {
        self.check_fork()?;
        let callbacks = self.imp.point().timeline.stream.device.callbacks.clone();
        let callback = move |result: Result<()>| callback(result.map_err(Error::seen));
        let waiter = Waiter::Callback(callbacks, Box::new(callback));
        match self.imp.may_complete_soon() {
            true => Ok(self.look_by_callback(waiter)),
            false => self.imp.notify(waiter),
        }
    }

    /// As `notify`, but the thread for callbacks looks for a moment before the marker is watched.
    /// Where it is complete by then, one thread is woken in place of two.
    fn look_by_callback(&self, callback: Waiter) -> Option<Ticket> {
        let point = self.imp.point();
        let ticket = match point.timeline.register(point.value, callback) {
            Ok(ticket) => ticket,
            Err(callback) => {
                point.timeline.fire_late(point.value, callback);
                return None;
            }
        };
        let imp = self.imp.clone();
        let look = move || {
            // A look that finds it complete queues the callback, which comes behind this.
            spin_until(None, || !matches!(imp.query(), Ok(false)));
            let point = imp.point();
            if point.reached() == Reached::NotYet
                && let Err(error) = imp.ensure_watched()
                && let Some(callback) = point.timeline.cancel(ticket)
            {
                callback.fire(&Err(error));
            }
        };
        point.timeline.stream.device.callbacks.call(Box::new(look));
        Some(ticket)
    }

    /// See [`crate::bindings::on_complete`].
    pub(crate) fn call_back_cancellable(
        &self,
        callback: impl FnOnce(Result<()>) + Send + 'static,
    ) -> Result<impl Fn() + Send + Sync + 'static> {
        let ticket = self.call_back(callback)?;
        let timeline = Arc::downgrade(&self.imp.point().timeline);
        Ok(move || {
            // In a forked child nothing is called back, and a thread of the parent may have held
            // the lock.
            if let (Some(ticket), Some(timeline)) = (ticket, timeline.upgrade())
                && timeline.stream.device.check_fork().is_ok()
            {
                // Dropped without the lock.
                drop(timeline.cancel(ticket));
            }
        })
    }

    /// Whether the marker has a timestamp once it is complete.
    ///
    /// ```
    /// let stream = fencepost::Device::open("host")?.new_stream()?;
    /// assert!(!stream.record()?.has_timing());
    /// assert!(stream.record_timed()?.has_timing());
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn has_timing(&self) -> bool {
        self.imp.point().timing
    }

    /// The number of the marker on its stream, counted from 1.
    ///
    /// ```
    /// let stream = fencepost::Device::open("host")?.new_stream()?;
    /// assert_eq!((stream.record()?.value(), stream.record()?.value()), (1, 2));
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn value(&self) -> u64 {
        self.imp.point().value
    }

    /// The [`id`](crate::Stream::id) of the stream it was recorded on.
    ///
    /// ```
    /// let stream = fencepost::Device::open("host")?.new_stream()?;
    /// assert_eq!(stream.record()?.stream_id(), stream.id());
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn stream_id(&self) -> u64 {
        self.imp.point().timeline.stream.id
    }

    /// The line of source code that recorded the marker.
    ///
    /// ```
    /// let stream = fencepost::Device::open("host")?.new_stream()?;
    /// let marker = stream.record()?;
    /// println!("recorded at {}", marker.recorded_at());
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn recorded_at(&self) -> Place {
        self.imp.point().at
    }
}

/// Two markers are equal when they are the same recording.
impl PartialEq for Marker {
    fn eq(&self, other: &Marker) -> bool {
        self.imp.point() == other.imp.point()
    }
}

impl Eq for Marker {}

impl Hash for Marker {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.imp.point().hash(state);
    }
}

impl fmt::Display for Marker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.imp.point().fmt(f)
    }
}

impl fmt::Debug for Marker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.imp.point().reached() {
            Reached::Yes => "Complete",
            Reached::NotYet => "Pending",
            Reached::Failed => "Failed",
        };
        write!(f, "Marker({self}, {state})")
    }
}

impl IntoFuture for Marker {
    type Output = Result<()>;
    type IntoFuture = MarkerFuture;

    fn into_future(self) -> MarkerFuture {
        MarkerFuture::new(Some(self))
    }
}

impl IntoFuture for &Marker {
    type Output = Result<()>;
    type IntoFuture = MarkerFuture;

    fn into_future(self) -> MarkerFuture {
        MarkerFuture::new(Some(self.clone()))
    }
}

/// The future of a marker: `.await` on a marker or an event makes one.
///
/// It needs no async runtime of its own and works in any. It resolves to the failure where the
/// marker fails. Dropping it cancels the wake-up only; the device's work goes on.
///
/// Where CUDA's work may well be over before a sleeping thread could be woken, the first poll looks
/// for up to 15 µs before it gives the thread back.
///
/// ```
/// # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
/// # runtime.block_on(async {
/// let stream = fencepost::Device::open("host")?.new_stream()?;
/// stream.launch(|| println!("work"))?;
/// stream.record()?.await?;
/// # Ok::<(), fencepost::Error>(())
/// # }).unwrap();
/// ```
#[must_use = "futures do nothing unless awaited"]
pub struct MarkerFuture {
    marker: Option<Marker>,
    registered: Option<(Ticket, Waker)>,
}

impl MarkerFuture {
    /// The future of `marker`. Without one it is ready at once.
    pub(crate) fn new(marker: Option<Marker>) -> MarkerFuture {
        MarkerFuture {
            marker,
            registered: None,
        }
    }

    fn forget(&mut self) {
        if let (Some(marker), Some((ticket, _))) = (&self.marker, self.registered.take()) {
            // What the parent registered is not this process's, nor is the lock.
            if marker.check_fork().is_err() {
                return;
            }
            // Dropping a waker runs code of the user's. So no lock is held here, and a panic in it
            // is caught.
            let waiter = marker.imp.point().timeline.cancel(ticket);
            contain(|| drop(waiter));
        }
    }
}

impl Future for MarkerFuture {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let Some(marker) = self.marker.clone() else {
            return Poll::Ready(Ok(()));
        };
        let mut done = marker.query();
        if matches!(done, Ok(false)) && self.registered.is_none() && marker.imp.may_complete_soon()
        {
            spin_until(None, || {
                done = marker.query();
                !matches!(done, Ok(false))
            });
        }
        match done {
            Ok(false) => {}
            done => {
                self.forget();
                return Poll::Ready(done.map(drop));
            }
        }
        if let Some((_, waker)) = &self.registered
            && waker.will_wake(cx.waker())
        {
            return Poll::Pending;
        }
        self.forget();
        let waker = cx.waker().clone();
        match marker.imp.notify(Waiter::Waker(waker.clone())) {
            Ok(Some(ticket)) => {
                self.registered = Some((ticket, waker));
                Poll::Pending
            }
            // It has just completed and woken the task, so the next poll will see that.
            Ok(None) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error.seen())),
        }
    }
}

impl Drop for MarkerFuture {
    fn drop(&mut self) {
        self.forget();
    }
}

impl fmt::Debug for MarkerFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MarkerFuture").field(&self.marker).finish()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::{
        clock::host_clock,
        timeline::{Awaited, Point, Timeline},
    };

    /// It is complete, and its time is not readable before it was asked for a few times.
    struct Late(Point, AtomicU32);

    impl Awaited for Late {
        fn point(&self) -> &Point {
            &self.0
        }

        fn query(&self) -> Result<bool> {
            Ok(true)
        }
    }

    impl MarkerImpl for Late {
        fn wait_until(&self, _: Option<Instant>) -> Result<bool> {
            Ok(true)
        }

        fn timestamp(&self) -> Result<Timestamp> {
            match self.1.fetch_add(1, Ordering::Relaxed) {
                0..3 => Err(Error::time_not_ready("held", "a marker of a test".into())),
                _ => Ok(Timestamp::new(7, host_clock())),
            }
        }
    }

    #[test]
    fn a_time_that_the_driver_shows_late_is_waited_for_by_who_may_block() {
        let device = Device::open("host").unwrap();
        let core = device.default_stream().imp().core().clone();
        let point = Point {
            timeline: Timeline::new(core, 1),
            value: 1,
            at: Place::caller(),
            timing: true,
        };
        let marker = Marker::new(Arc::new(Late(point, AtomicU32::new(0))), device);
        let error = marker.elapsed(&marker).unwrap_err();
        assert!(matches!(error, Error::NotReady { complete: true, .. }));
        let text = error.to_string();
        assert!(
            text.contains("complete, but its time is not readable yet"),
            "{text}"
        );
        assert!(text.contains("ask again"), "{text}");
        assert_eq!(marker.elapsed_after(&marker).unwrap().as_nanos_f64(), 0.0);
    }
}
