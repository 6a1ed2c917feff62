//! The slot for the latest marker.

use std::{fmt, future::IntoFuture, sync::Arc, time::Duration};

#[cfg(all(feature = "trace", not(loom)))]
use crate::observe;
#[cfg(feature = "trace")]
use crate::rerecord::Glimpse;
use crate::{
    clock::Elapsed,
    device::Device,
    error::{Error, Result},
    marker::{Marker, MarkerFuture, Status},
    name::Name,
    place::Place,
    rerecord::{Slot, Taken},
    stream::Stream,
};

/// A slot that holds the latest marker recorded into it: what PyTorch and CUDA call an event.
///
/// [`record`](Event::record) puts a marker on a stream and stores it in the event.
/// [`wait`](Event::wait) makes a stream wait for the marker that is held *now*. Recording again
/// replaces the marker, and changes nothing about earlier waits and readings. An event that was
/// never recorded counts as complete, and waiting for it does nothing.
///
/// Any number of threads may call it at the same time. Dropping an event never blocks, and changes
/// nothing about the device's work.
///
/// ```
/// use fencepost::{Device, Event};
///
/// let device = Device::open("host")?;
/// let (load, compute) = (device.new_stream()?, device.new_stream()?);
/// let loaded = Event::new(&device);
///
/// load.launch(|| println!("load"))?;
/// loaded.record(&load)?;
/// loaded.wait(&compute)?;
/// compute.launch(|| println!("compute, after the load"))?;
/// compute.synchronize()?;
/// # Ok::<(), fencepost::Error>(())
/// ```
pub struct Event {
    device: Device,
    timing: bool,
    name: Name,
    slot: Slot,
}

impl Event {
    /// Makes an event without timing, which is the cheapest kind. It calls no driver and never
    /// blocks: native events are made when one is recorded.
    ///
    /// # References
    /// - [`cuEventCreate`](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__EVENT.html) with
    ///   `CU_EVENT_DISABLE_TIMING`, at the first record
    ///
    /// ```
    /// use fencepost::{Device, Event};
    /// let event = Event::new(&Device::open("host")?);
    /// assert!(event.query()?, "an unrecorded event counts as complete");
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn new(device: &Device) -> Event {
        Event::make(device, false)
    }

    /// Makes an event whose markers have a timestamp of the device. Else like
    /// [`new`](Event::new).
    ///
    /// # References
    /// - [`cuEventCreate`](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__EVENT.html), at
    ///   the first record
    ///
    /// ```
    /// use fencepost::{Device, Event};
    /// assert!(Event::with_timing(&Device::open("host")?).has_timing());
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn with_timing(device: &Device) -> Event {
        Event::make(device, true)
    }

    fn make(device: &Device, timing: bool) -> Event {
        Event {
            device: device.clone(),
            timing,
            name: Name::default(),
            slot: Slot::new(),
        }
    }

    /// Records a marker behind everything submitted to `stream` so far, submits it, and holds it
    /// from now on. Never waits for the device.
    ///
    /// Where a driver's queue is full, the driver itself may block the call: see the module of the
    /// backend.
    ///
    /// On a failed stream it succeeds. The marker has failed from the start, and a query of it
    /// returns the first cause.
    ///
    /// # Errors
    /// [`Error::DeviceMismatch`] for a stream of another device; those of
    /// [`Stream::record`](crate::Stream::record), and of
    /// [`Stream::record_timed`](crate::Stream::record_timed) for an event with timing. The event
    /// then holds what it held before.
    ///
    /// # References
    /// - [`cuEventRecord`](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__EVENT.html)
    /// - [`vkQueueSubmit2`](https://registry.khronos.org/vulkan/specs/latest/man/html/vkQueueSubmit2.html)
    /// - [`clEnqueueMarkerWithWaitList`](https://registry.khronos.org/OpenCL/specs/3.0-unified/html/OpenCL_API.html#clEnqueueMarkerWithWaitList)
    /// - [`encodeSignalEvent`](https://developer.apple.com/documentation/metal/mtlcommandbuffer/encodesignalevent(_:value:))
    /// - wgpu: [`Queue::submit`](https://docs.rs/wgpu/30.0.2/wgpu/struct.Queue.html#method.submit)
    /// - host: the stream's queue
    ///
    /// ```
    /// use fencepost::{Device, Event};
    /// let device = Device::open("host")?;
    /// let event = Event::new(&device);
    /// event.record(&device.default_stream())?;
    /// event.synchronize()?;
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    #[inline]
    #[track_caller]
    pub fn record(&self, stream: &Stream) -> Result<()> {
        self.record_at(stream, Place::caller())
    }

    /// See [`crate::bindings::record_at`].
    #[inline]
    pub(crate) fn record_at(&self, stream: &Stream, at: Place) -> Result<()> {
        stream.check_fork()?;
        match stream.imp().record_again(self.slot.rerecord(), at) {
            Some(_) => Ok(()),
            None => self.record_new(stream, at),
        }
    }

    /// See [`crate::bindings::record_elsewhere_at`].
    #[inline]
    pub(crate) fn record_elsewhere_at(&self, stream: &Stream, at: Place) -> Result<()> {
        stream.check_fork()?;
        self.record_new(stream, at)
    }

    /// See [`crate::bindings::record_in_place`].
    #[inline]
    pub(crate) fn record_in_place(&self, stream: &Stream, at: Place) -> bool {
        if stream.check_fork().is_err() {
            return false;
        }
        let again = stream.imp().record_again(self.slot.rerecord(), at);
        again.is_some()
    }

    /// Records with a marker that is new to the event. Not part of `record`, so that recording in
    /// place stays short.
    #[inline(never)]
    fn record_new(&self, stream: &Stream, at: Place) -> Result<()> {
        if self.device != *stream.device() {
            // Of the parent's event and a stream of the child's own.
            self.check_fork()?;
            return Err(self.of_another_device(stream));
        }
        self.slot.put(stream.imp().mark(self.timing, at)?, true);
        Ok(())
    }

    /// Holds `marker` from now on, as if the event had been recorded where the marker is: for
    /// markers in work that the caller submits. Never blocks. Times need timing in both the event
    /// and the marker.
    ///
    /// # Errors
    /// [`Error::DeviceMismatch`] for a marker of another device. The event then holds what it held
    /// before.
    ///
    /// ```
    /// use fencepost::{Device, Event};
    /// let device = Device::open("host")?;
    /// let event = Event::new(&device);
    /// event.set_marker(device.default_stream().record()?)?;
    /// event.synchronize()?;
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn set_marker(&self, marker: Marker) -> Result<()> {
        let of = &marker.imp().point().timeline.stream.device;
        if !Arc::ptr_eq(of, self.device.core()) {
            return Err(Error::DeviceMismatch {
                call: "set_marker",
                left: self.in_words(),
                right: marker.to_string(),
            });
        }
        let is_like_ours = marker.has_timing() == self.timing;
        self.slot.put(marker.imp().clone(), is_like_ours);
        Ok(())
    }

    /// `event "loaded" of host`, or `an event of host`.
    fn in_words(&self) -> String {
        let device = self.device.core();
        match self.name() {
            Some(name) => format!("event {name:?} of {device}"),
            None => format!("an event of {device}"),
        }
    }

    #[cold]
    fn of_another_device(&self, stream: &Stream) -> Error {
        Error::DeviceMismatch {
            call: "record",
            left: self.in_words(),
            right: stream.to_string(),
        }
    }

    /// Makes later work of `stream` run after the marker that is held now. The calling thread never
    /// blocks.
    ///
    /// Does nothing if the event was never recorded, or if its marker is complete or on `stream`
    /// itself, unless that is a queue of OpenCL that runs out of order. The marker may be of
    /// another device of the same backend. Where the API cannot make the device wait for that, the
    /// host waits in its place, except on wgpu. If the marker fails, `stream` fails too, and its
    /// [`Cause`](crate::Cause) names the marker and the first failure.
    ///
    /// # Errors
    /// [`Error::ForeignWait`] for a GPU's stream and a pending marker of another backend, and for a
    /// stream of wgpu and one of another device; [`Error::NotSubmitted`] for a reserved marker;
    /// [`Error::Backend`] where the driver refuses the wait; [`Error::Unsupported`] for a Metal
    /// stream on a queue of yours; [`Error::Forked`].
    ///
    /// # References
    /// - [`cuStreamWaitEvent`](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__STREAM.html)
    /// - [`encodeWaitForEvent`](https://developer.apple.com/documentation/metal/mtlcommandbuffer/encodewaitforevent(_:value:))
    /// - [`vkQueueSubmit2`](https://registry.khronos.org/vulkan/specs/latest/man/html/vkQueueSubmit2.html)
    /// - [`clEnqueueBarrierWithWaitList`](https://registry.khronos.org/OpenCL/specs/3.0-unified/html/OpenCL_API.html#clEnqueueBarrierWithWaitList)
    /// - wgpu: none within a device, whose queue keeps the order
    /// - host: the stream's queue parks, and no thread blocks
    ///
    /// ```
    /// use fencepost::{Device, Event};
    /// let device = Device::open("host")?;
    /// let (first, second) = (device.new_stream()?, device.new_stream()?);
    /// let event = Event::new(&device);
    /// event.record(&first)?;
    /// event.wait(&second)?;
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn wait(&self, stream: &Stream) -> Result<()> {
        stream.check_fork()?;
        if self.slot.peek() == Some(true) {
            self.is_awaited(stream);
            return Ok(());
        }
        self.check_fork()?;
        let word = self.slot.word();
        let Some(marker) = self.slot.marker() else {
            return Ok(());
        };
        if !stream.is_behind(&*marker) {
            stream.imp().wait(&marker).map_err(Error::seen)?;
        } else if marker.is_known_complete() {
            self.slot.remember(word);
        }
        stream.waits_behind(marker.point());
        Ok(())
    }

    /// Tells who observes of a wait of `stream` for what is complete.
    #[inline]
    #[cfg_attr(not(feature = "trace"), allow(clippy::unused_self))]
    fn is_awaited(&self, stream: &Stream) {
        #[cfg(all(feature = "trace", not(loom)))]
        if observe::any()
            && self.check_fork().is_ok()
            && let Some(marker) = self.slot.marker()
        {
            stream.waits_behind(marker.point());
        }
        #[cfg(not(all(feature = "trace", not(loom))))]
        let _ = stream;
    }

    /// Whether the marker that is held is complete. `true` if there is none. Never blocks.
    ///
    /// # Errors
    /// Those of [`Marker::query`]. A failure is an error, never `false`.
    ///
    /// # References
    /// - those of [`Marker::query`]
    ///
    /// ```
    /// use fencepost::{Device, Event};
    /// let device = Device::open("host")?;
    /// let event = Event::new(&device);
    /// event.record(&device.default_stream())?;
    /// while !event.query()? { std::thread::yield_now() }
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    #[inline]
    pub fn query(&self) -> Result<bool> {
        match self.peek() {
            Some(known) => Ok(known),
            None => self.ask(),
        }
    }

    /// See [`crate::bindings::forget`].
    pub(crate) fn forget(&mut self) -> bool {
        self.slot.forget()
    }

    /// See [`crate::bindings::is_recorded`].
    #[inline]
    pub(crate) fn is_recorded(&self) -> bool {
        self.slot.is_recorded()
    }

    /// See [`Slot::glimpse`].
    #[cfg(feature = "trace")]
    pub(crate) fn glimpse(&self) -> Option<Glimpse<'_>> {
        self.slot.glimpse()
    }

    /// See [`crate::bindings::peek`].
    #[inline]
    pub(crate) fn peek(&self) -> Option<bool> {
        self.slot.peek()
    }

    /// An error in a process forked from the one that opened the device. Without a lock: a thread
    /// of the parent may hold that of the slot for ever.
    fn check_fork(&self) -> Result<()> {
        self.device.core().check_fork()
    }

    /// Asks the held marker itself, and remembers that it is complete.
    #[cold]
    fn ask(&self) -> Result<bool> {
        self.check_fork()?;
        let word = self.slot.word();
        let marker = match self.slot.try_marker() {
            Ok(Some(marker)) => marker,
            Ok(None) => return Ok(true),
            // Another thread records it, in a call that the driver may block, or reads its time.
            Err(Taken) => return Ok(self.slot.peek() == Some(true)),
        };
        let complete = marker.query().map_err(Error::seen)?;
        if complete {
            // If the marker is newer than the word, the word has changed, and this does nothing.
            self.slot.remember(word);
        }
        Ok(complete)
    }

    /// [`Unrecorded`](Status::Unrecorded), [`Pending`](Status::Pending) or
    /// [`Complete`](Status::Complete). Never blocks.
    ///
    /// # Errors
    /// Those of [`query`](Event::query).
    ///
    /// ```
    /// use fencepost::{Device, Event, Status};
    /// let event = Event::new(&Device::open("host")?);
    /// assert_eq!(event.status()?, Status::Unrecorded);
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn status(&self) -> Result<Status> {
        if let Err(forked) = self.check_fork() {
            return match self.slot.peek() {
                Some(true) if self.slot.is_recorded() => Ok(Status::Complete),
                Some(true) => Ok(Status::Unrecorded),
                _ => Err(forked),
            };
        }
        match self.slot.try_marker() {
            Ok(None) => Ok(Status::Unrecorded),
            Ok(Some(marker)) => Ok(Status::of(marker.query().map_err(Error::seen)?)),
            // Another thread records it, or reads the time of a complete marker.
            Err(Taken) => Ok(Status::of(self.slot.peek() == Some(true))),
        }
    }

    /// Blocks the calling thread until the marker that is held now is complete. Returns at once if
    /// there is none. Other threads may use the event meanwhile.
    ///
    /// # Errors
    /// Those of [`Marker::synchronize`].
    ///
    /// # References
    /// - those of [`Marker::synchronize`]
    ///
    /// ```
    /// use fencepost::{Device, Event};
    /// let device = Device::open("host")?;
    /// let event = Event::new(&device);
    /// event.record(&device.default_stream())?;
    /// event.synchronize()?;
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn synchronize(&self) -> Result<()> {
        if self.slot.peek() == Some(true) {
            return Ok(());
        }
        self.check_fork()?;
        match self.marker() {
            None => Ok(()),
            Some(marker) => marker.synchronize(),
        }
    }

    /// As [`synchronize`](Event::synchronize), but for no longer than `limit`.
    ///
    /// # Errors
    /// Those of [`Marker::synchronize_timeout`].
    ///
    /// ```
    /// use std::time::Duration;
    /// use fencepost::{Device, Event};
    /// let device = Device::open("host")?;
    /// let event = Event::new(&device);
    /// event.record(&device.default_stream())?;
    /// event.synchronize_timeout(Duration::from_secs(5))?;
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn synchronize_timeout(&self, limit: Duration) -> Result<()> {
        if self.slot.peek() == Some(true) {
            return Ok(());
        }
        self.check_fork()?;
        match self.marker() {
            None => Ok(()),
            Some(marker) => marker
                .synchronize_timeout(limit)
                .map_err(|error| error.of_event(self.name())),
        }
    }

    /// The time from this event to `end` in milliseconds, on the device's clock: PyTorch's call.
    /// Negative if `end` is earlier. Blocks until both markers are complete. To wait with a limit,
    /// call [`synchronize_timeout`](Event::synchronize_timeout), then [`elapsed`](Event::elapsed).
    ///
    /// Reading consumes nothing: it may be called again, also after
    /// [`synchronize`](Event::synchronize), and with the events in other pairs.
    ///
    /// # Errors
    /// Before any waiting, in this order: [`Error::TimingDisabled`], [`Error::NotRecorded`],
    /// [`Error::DeviceMismatch`]. Then those of [`synchronize`](Event::synchronize).
    ///
    /// # References
    /// - those of [`Marker::elapsed`]
    ///
    /// ```
    /// use fencepost::{Device, Event};
    /// let device = Device::open("host")?;
    /// let stream = device.default_stream();
    /// let (start, end) = (Event::with_timing(&device), Event::with_timing(&device));
    /// start.record(&stream)?;
    /// stream.launch(|| println!("the work to time"))?;
    /// end.record(&stream)?;
    /// println!("{:.3} ms", start.elapsed_time(&end)?);
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn elapsed_time(&self, end: &Event) -> Result<f64> {
        if let Some(elapsed) = self.elapsed_at_once(end) {
            return Ok(elapsed.as_millis_f64());
        }
        let pair = self.pair(end);
        let elapsed = pair.and_then(|(first, last)| first.elapsed_after(&last));
        Ok(self.named(end, elapsed)?.as_millis_f64())
    }

    /// The time from this event to `end`, on the device's clock. Negative if `end` is earlier.
    /// Never blocks.
    ///
    /// # Errors
    /// In this order: [`Error::TimingDisabled`], [`Error::NotRecorded`], [`Error::DeviceMismatch`];
    /// then [`Error::NotReady`] while one of the markers is pending, and the failure of one that
    /// has failed.
    ///
    /// # References
    /// - those of [`Marker::elapsed`]
    ///
    /// ```
    /// use fencepost::{Device, Event};
    /// let device = Device::open("host")?;
    /// let stream = device.default_stream();
    /// let (start, end) = (Event::with_timing(&device), Event::with_timing(&device));
    /// start.record(&stream)?;
    /// end.record(&stream)?;
    /// end.synchronize()?;
    /// let elapsed = start.elapsed(&end)?;
    /// println!("{elapsed} by {}", elapsed.clock());
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn elapsed(&self, end: &Event) -> Result<Elapsed> {
        match self.elapsed_at_once(end) {
            Some(elapsed) => Ok(elapsed),
            None => self.elapsed_of_markers(end),
        }
    }

    #[inline(never)]
    fn elapsed_of_markers(&self, end: &Event) -> Result<Elapsed> {
        let words = (self.slot.word(), end.slot.word());
        let pair = self.pair(end);
        let elapsed = self.named(end, pair.and_then(|(first, last)| first.elapsed(&last)))?;
        // Both are complete. If a marker is newer than its word, this does nothing.
        self.slot.remember(words.0);
        end.slot.remember(words.1);
        Ok(elapsed)
    }

    /// The time between two markers that are known to be complete, where the backend tells without
    /// further ado; else `None`.
    #[inline(always)]
    pub(crate) fn elapsed_at_once(&self, end: &Event) -> Option<Elapsed> {
        if let (Some(first), Some(last)) = (self.slot.glimpse(), end.slot.glimpse())
            && self.device == end.device
        {
            return self.device.imp().elapsed_between(&first, &last);
        }
        self.elapsed_of_lent(end)
    }

    /// The same where a marker itself tells its time.
    #[inline(never)]
    fn elapsed_of_lent(&self, end: &Event) -> Option<Elapsed> {
        if !(self.timing && end.timing) || self.device != end.device || self.check_fork().is_err() {
            return None;
        }
        // Of one event with itself the second is taken, and so `None`. No thread waits for the
        // second while it has the first.
        let (start, end) = (self.slot.lend_complete()?, end.slot.lend_complete()?);
        start.elapsed_at_once(&*end)
    }

    /// The result for a pair of events, whose error names the event that it is about.
    fn named<T>(&self, end: &Event, result: Result<T>) -> Result<T> {
        result.map_err(|error| error.of_events(self.name(), end.name()))
    }

    /// The two markers that are held now, after the checks that need no waiting.
    fn pair(&self, end: &Event) -> Result<(Marker, Marker)> {
        for (event, which) in [(self, "start"), (end, "end")] {
            if !event.timing {
                return Err(Error::timing_disabled(which));
            }
        }
        let held = |event: &Event, which| event.marker().ok_or_else(|| Error::not_recorded(which));
        let pair = (held(self, "start")?, held(end, "end")?);
        if self.device != end.device {
            return Err(Error::DeviceMismatch {
                call: "elapsed",
                left: self.in_words(),
                right: end.in_words(),
            });
        }
        Ok(pair)
    }

    /// Calls `callback` once the marker that is held now is complete or has failed, and soon if
    /// there is none. Never on the calling thread, and never blocks. See [`Marker::on_complete`].
    ///
    /// # Errors
    /// Those of [`Marker::on_complete`].
    ///
    /// ```
    /// use fencepost::{Device, Event};
    /// let device = Device::open("host")?;
    /// let event = Event::new(&device);
    /// event.record(&device.default_stream())?;
    /// event.on_complete(|result| println!("done: {result:?}"))?;
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn on_complete(&self, callback: impl FnOnce(Result<()>) + Send + 'static) -> Result<()> {
        self.check_fork()?;
        match self.marker() {
            Some(marker) => marker.on_complete(callback),
            None => {
                let callbacks = &self.device.core().callbacks;
                callbacks.call(Box::new(move || callback(Ok(()))));
                Ok(())
            }
        }
    }

    /// The marker that is held now. It stays the same when the event is recorded again.
    ///
    /// While another thread is recording this very event, and the driver blocks that thread because
    /// its queue is full, this call blocks too. So do all calls that need the marker, except
    /// [`query`](Event::query) and [`status`](Event::status): they report it as pending.
    ///
    /// ```
    /// use fencepost::{Device, Event};
    /// let device = Device::open("host")?;
    /// let event = Event::new(&device);
    /// assert!(event.marker().is_none());
    /// event.record(&device.default_stream())?;
    /// assert!(event.marker().is_some());
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn marker(&self) -> Option<Marker> {
        let imp = self.slot.marker()?;
        Some(Marker::new(imp, self.device.clone()))
    }

    /// Gives the event a name, for the texts of errors and [`Debug`](fmt::Debug). An empty name
    /// takes it away. Never blocks.
    ///
    /// ```
    /// use fencepost::{Device, Event};
    /// let event = Event::new(&Device::open("host")?);
    /// event.set_name("loaded");
    /// assert_eq!(event.name().as_deref(), Some("loaded"));
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn set_name(&self, name: &str) {
        self.name.set(name);
    }

    /// The name that [`set_name`](Event::set_name) gave it, if it has one. Never blocks.
    ///
    /// ```
    /// use fencepost::{Device, Event};
    /// assert_eq!(Event::new(&Device::open("host")?).name(), None);
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn name(&self) -> Option<String> {
        self.name.to_owned()
    }

    /// The device that the event was made for.
    ///
    /// ```
    /// use fencepost::{Device, Event};
    /// let device = Device::open("host")?;
    /// assert_eq!(Event::new(&device).device(), &device);
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Whether its markers have a timestamp.
    ///
    /// ```
    /// use fencepost::{Device, Event};
    /// assert!(!Event::new(&Device::open("host")?).has_timing());
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn has_timing(&self) -> bool {
        self.timing
    }
}

/// Waits for events.
impl Stream {
    /// Makes later work of this stream run after the marker that `event` holds now. The same as
    /// [`event.wait(stream)`](Event::wait), with the stream in front. The calling thread never
    /// blocks.
    ///
    /// # Errors
    /// Those of [`Event::wait`].
    ///
    /// # References
    /// - those of [`Event::wait`]
    ///
    /// ```
    /// use fencepost::{Device, Event};
    /// let device = Device::open("host")?;
    /// let (first, second) = (device.new_stream()?, device.new_stream()?);
    /// let event = Event::new(&device);
    /// event.record(&first)?;
    /// second.wait_event(&event)?;
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn wait_event(&self, event: &Event) -> Result<()> {
        event.wait(self)
    }
}

/// Waits for events.
impl Device {
    /// Makes later work of every live stream of this device run after the marker that `event` holds
    /// now. The calling thread never blocks.
    ///
    /// All streams wait for the same marker, also if another thread records the event meanwhile. A
    /// stream that is made later does not wait. Does nothing if the event was never recorded or its
    /// marker is complete; the stream that it was recorded on goes on.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) while a stream of the device is being
    /// captured into a CUDA graph, which the wait would break; then no stream was made to wait.
    /// Those of [`Event::wait`]: the first one, after every other stream was made to wait.
    ///
    /// # References
    /// - those of [`Event::wait`], for each stream
    ///
    /// ```
    /// use fencepost::{Device, Event};
    /// let device = Device::new_host(2);
    /// let (load, one, two) = (device.new_stream()?, device.new_stream()?, device.new_stream()?);
    /// let loaded = Event::new(&device);
    /// load.launch(|| println!("load"))?;
    /// loaded.record(&load)?;
    /// device.wait_event(&loaded)?;
    /// one.launch(|| println!("after the load"))?;
    /// two.launch(|| println!("after the load too"))?;
    /// device.synchronize()?;
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn wait_event(&self, event: &Event) -> Result<()> {
        self.core().check_fork()?;
        #[cfg(all(feature = "trace", not(loom)))]
        let is_observed = observe::any();
        #[cfg(not(all(feature = "trace", not(loom))))]
        let is_observed = false;
        if event.slot.peek() == Some(true) && !is_observed {
            return Ok(());
        }
        event.check_fork()?;
        let Some(marker) = event.marker() else {
            return Ok(());
        };
        let streams = self.imp().streams();
        for stream in &streams {
            stream.check_may_wait()?;
        }
        let mut first = Ok(());
        for stream in streams {
            first = first.and(Stream::new(stream, self.clone()).wait(&marker));
        }
        first
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if let Some(marker) = self.slot.take_marker() {
            marker.retire();
        }
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut event = f.debug_struct("Event");
        if let Some(name) = self.name() {
            event.field("name", &name);
        }
        event
            .field("device", &self.device.name())
            .field("timing", &self.timing)
            .field("marker", &self.marker())
            .finish()
    }
}

/// Awaits the marker that is held when the future is made. Ready at once if there is none.
///
/// ```
/// # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
/// # runtime.block_on(async {
/// use fencepost::{Device, Event};
/// let device = Device::open("host")?;
/// let event = Event::new(&device);
/// event.record(&device.default_stream())?;
/// (&event).await?;
/// # Ok::<(), fencepost::Error>(())
/// # }).unwrap();
/// ```
impl IntoFuture for &Event {
    type Output = Result<()>;
    type IntoFuture = MarkerFuture;

    fn into_future(self) -> MarkerFuture {
        MarkerFuture::new(self.marker())
    }
}

#[cfg(all(test, loom))]
#[path = "event_loom_tests.rs"]
mod loom_tests;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_complete_event_is_complete_while_its_time_is_read() {
        let device = Device::open("host").unwrap();
        let event = Event::with_timing(&device);
        event.record(&device.new_stream().unwrap()).unwrap();
        event.synchronize().unwrap();
        assert!(event.query().unwrap());
        let lent = event.slot.lend_complete();
        assert!(lent.is_some());
        assert_eq!(event.status().unwrap(), Status::Complete);
        assert!(event.query().unwrap() && event.ask().unwrap());
        drop(lent);
        assert_eq!(event.status().unwrap(), Status::Complete);
    }
}
