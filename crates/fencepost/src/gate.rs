//! A point that the host opens.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

#[cfg(all(feature = "trace", not(loom)))]
use crate::observe;
use crate::{
    contract::{MarkerImpl, TimelineKnowledge},
    core::{DeviceCore, StreamCore},
    device::Device,
    error::{Cause, Error, InWords, Result},
    fork::PerProcess,
    place::Place,
    stream::Stream,
    sync::{AtomicBool, Mutex, Ordering, lock},
    timeline::{Awaited, Point, Reached, Timeline},
    workers::{Deadline, Deadlines, Expire},
};

/// A point that the host opens, and that streams can be made to wait for before it is open.
///
/// Any number of streams of the gate's device may wait for it. What is submitted to them behind the
/// wait runs once the gate is open. So work can be queued at leisure and then start all at once:
/// that is how to time work that is shorter than its submit.
///
/// A gate ends once, in one of two ways: [`open`](Gate::open), or a failure. It fails by
/// [`fail`](Gate::fail), when it is dropped before it is open, and when its limit has passed: ten
/// seconds after its first wait, unless [`with_limit`](Gate::with_limit) says otherwise. Whichever
/// comes first decides.
///
/// **A gate that fails lets the streams go too.** They fail, as they do when a marker fails that
/// they wait for. On a GPU the work that is queued behind the wait runs all the same, since no API
/// can take it back: but its markers have failed, and say why. On the host it never runs.
///
/// # What a held stream stalls
/// - The host: nothing else. The stream's queue is parked, and no thread waits.
/// - CUDA: `cuMemFree`, `cuMemFreeHost` and the loading of modules, which the first launch of a
///   kernel may bring, return only once the gate has ended. So did the making of a stream, in a
///   process that had used several contexts: make streams before. About 1,020 launches and timed
///   records fit behind a held stream, then the next call blocks. A held legacy default stream also
///   holds every stream that was made without `CU_STREAM_NON_BLOCKING`. Streams share 8 hardware
///   connections, or as many as `CUDA_DEVICE_MAX_CONNECTIONS` says: where more are held with work
///   behind, they may hold other streams that share theirs.
/// - Vulkan: the hardware queue, and every stream on it.
/// - OpenCL: the stream's command queue.
/// - Metal: the stream's command queue, which takes 1,024 uncompleted command buffers.
///
/// So a thread that blocks behind the gate in one of these ways cannot open it: the limit does.
/// When the process ends, all streams are let go.
///
/// ```
/// use fencepost::{Device, Gate};
///
/// let device = Device::open_best()?;
/// let stream = device.new_stream()?;
/// let gate = Gate::new(&device)?;
/// gate.wait(&stream)?;
/// let marker = stream.record()?;
/// assert!(!marker.query()?, "the gate is closed");
/// gate.open();
/// marker.synchronize()?;
/// # Ok::<(), fencepost::Error>(())
/// ```
pub struct Gate {
    barrier: Arc<Barrier>,
    device: Device,
}

/// How long a gate stays closed after its first wait, unless told otherwise.
const LIMIT: Duration = Duration::from_secs(10);

/// What streams wait for, and what decides how it ends.
///
/// # The protocol
/// `ended` is set by whoever opens or fails the gate, by one atomic exchange: the first one does
/// it, the others do nothing. `first_wait` is under a lock, so that one thread sets the limit.
///
/// *Invariant: when a wait returns without an error, the gate has ended, or its deadline is
/// pending, or it has none.* Who ends the gate sets `ended` first and takes the deadline out
/// second; who waits looks at `ended` under the lock under which it adds the deadline.
pub(crate) struct Barrier {
    point: Point,
    ended: AtomicBool,
    limit: Duration,
    first_wait: Mutex<FirstWait>,
}

enum FirstWait {
    ToCome,
    /// There was one.
    Was {
        /// Gone once the gate has ended.
        deadline: Option<Deadline>,
        /// How many waits there are, without those that were refused.
        waits: usize,
    },
}

impl Gate {
    /// A closed gate for streams of `device`, with a limit of ten seconds from its first wait.
    /// Never blocks, and makes no call of the driver.
    ///
    /// # Errors
    /// [`Error::Unsupported`] on CUDA on Windows, where holding a stream was never tried, and on
    /// wgpu, whose queue cannot be held; [`Error::Forked`].
    ///
    /// ```
    /// let device = fencepost::Device::open("host")?;
    /// let gate = fencepost::Gate::new(&device)?;
    /// assert!(!gate.is_open());
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    #[track_caller]
    pub fn new(device: &Device) -> Result<Gate> {
        Gate::made_at(device, LIMIT, Place::caller())
    }

    /// As [`new`](Gate::new), with another limit. [`Duration::MAX`] is none: then only
    /// [`open`](Gate::open), [`fail`](Gate::fail) and its drop end the gate.
    ///
    /// # Errors
    /// Those of [`new`](Gate::new).
    ///
    /// ```
    /// use std::time::Duration;
    /// use fencepost::{Device, Gate};
    ///
    /// let device = Device::open("host")?;
    /// let stream = device.new_stream()?;
    /// let gate = Gate::with_limit(&device, Duration::from_millis(1))?;
    /// gate.wait(&stream)?;
    /// let error = stream.synchronize().unwrap_err();
    /// assert!(error.to_string().contains("not opened within 1 ms"), "{error}");
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    #[track_caller]
    pub fn with_limit(device: &Device, limit: Duration) -> Result<Gate> {
        Gate::made_at(device, limit, Place::caller())
    }

    /// See [`crate::bindings::gate_state`].
    pub(crate) fn state(&self) -> &'static str {
        match self.barrier.point.reached() {
            Reached::Yes => "Open",
            Reached::NotYet => "Closed",
            Reached::Failed => "Failed",
        }
    }

    /// See [`crate::bindings::gate_at`].
    pub(crate) fn made_at(device: &Device, limit: Duration, at: Place) -> Result<Gate> {
        device.core().check_fork()?;
        device.imp().check_can_hold()?;
        Ok(Gate {
            barrier: Barrier::on(device.core(), limit, at),
            device: device.clone(),
        })
    }

    /// Makes later work of `stream` run once the gate is open. The calling thread never waits for
    /// that. Does nothing if the gate is open. If the gate fails, or has failed, the stream fails.
    ///
    /// Where the driver's queue is full, the driver itself may block the call, as it may block a
    /// record.
    ///
    /// # Errors
    /// On an error the stream does not wait.
    /// - [`Error::DeviceMismatch`] for a stream of another device.
    /// - [`Error::Unsupported`] on a CUDA stream that is being captured into a graph, which the
    ///   wait would break; on a CUDA device or driver without stream memory operations; on a Metal
    ///   stream around a queue of yours.
    /// - [`Error::Backend`] where the driver refuses the wait, or where no thread can be started
    ///   for the limit; [`Error::WouldBlock`] where a Metal stream has too many uncompleted command
    ///   buffers; [`Error::Forked`].
    ///
    /// # References
    /// - [`cuStreamWaitValue32`](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__MEMOP.html)
    /// - a [timeline semaphore](https://registry.khronos.org/vulkan/specs/latest/man/html/VkSemaphoreTypeCreateInfo.html)
    ///   for all gates of a stream, and a value of it for each wait
    /// - [`clCreateUserEvent`](https://registry.khronos.org/OpenCL/specs/3.0-unified/html/OpenCL_API.html#clCreateUserEvent)
    /// - [`encodeWaitForEvent`](https://developer.apple.com/documentation/metal/mtlcommandbuffer/encodewaitforevent(_:value:))
    /// - host: memory, no thread
    ///
    /// ```
    /// use fencepost::{Device, Gate};
    ///
    /// let device = Device::open("host")?;
    /// let (one, two) = (device.new_stream()?, device.new_stream()?);
    /// let gate = Gate::new(&device)?;
    /// gate.wait(&one)?;
    /// gate.wait(&two)?;
    /// one.launch(|| println!("when the gate is open"))?;
    /// two.launch(|| println!("then too"))?;
    /// gate.open();
    /// device.synchronize()?;
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn wait(&self, stream: &Stream) -> Result<()> {
        stream.check_fork()?;
        self.device.core().check_fork()?;
        if *stream.device() != self.device {
            return Err(Error::DeviceMismatch {
                call: "wait",
                left: self.to_string(),
                right: stream.to_string(),
            });
        }
        if self.is_open() {
            return Ok(());
        }
        self.barrier.begin_wait()?;
        let marker: Arc<dyn MarkerImpl> = self.barrier.clone();
        let waits = stream.imp().wait_foreign(&marker);
        match &waits {
            Ok(()) => stream.waits_behind(&self.barrier.point),
            Err(_) => self.barrier.wait_refused(),
        }
        waits.map_err(Error::seen)
    }

    /// Opens the gate: the streams that wait for it go on. Idempotent, and without effect on a gate
    /// that has failed, or in a forked child.
    ///
    /// It never blocks, whatever the device and other threads do: for each stream that waits it is
    /// one store into memory that the device reads, one signal of a semaphore or shared event, or
    /// on the host one push onto a queue.
    ///
    /// # References
    /// - CUDA: an atomic store into page-locked memory
    /// - [`vkSignalSemaphore`](https://registry.khronos.org/vulkan/specs/latest/man/html/vkSignalSemaphore.html)
    /// - [`clSetUserEventStatus`](https://registry.khronos.org/OpenCL/specs/3.0-unified/html/OpenCL_API.html#clSetUserEventStatus)
    /// - [`MTLSharedEvent.signaledValue`](https://developer.apple.com/documentation/metal/mtlsharedevent/signaledvalue)
    ///
    /// ```
    /// let gate = fencepost::Gate::new(&fencepost::Device::open("host")?)?;
    /// gate.open();
    /// assert!(gate.is_open());
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn open(&self) {
        self.barrier.open();
    }

    /// Fails the gate for this reason: the streams that wait for it go on and fail, and so do those
    /// that wait for it later. Idempotent, and without effect on a gate that is open, or in a
    /// forked child. Never blocks, as [`open`](Gate::open).
    ///
    /// ```
    /// use fencepost::{Device, Gate};
    ///
    /// let device = Device::open("host")?;
    /// let stream = device.new_stream()?;
    /// let gate = Gate::new(&device)?;
    /// gate.wait(&stream)?;
    /// gate.fail("the file is gone");
    /// let error = stream.synchronize().unwrap_err();
    /// assert!(error.cause().unwrap().root().ends_with("the file is gone"));
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn fail(&self, cause: impl fmt::Display) {
        let cause = Cause::new(format!("{} failed: {cause}", self.barrier.in_words()));
        // Who fails it knows of it.
        cause.first_cause().see();
        self.barrier.fail(|| cause);
    }

    /// Whether the gate is open. `false` while it is closed, and once it has failed. Never blocks.
    ///
    /// ```
    /// let gate = fencepost::Gate::new(&fencepost::Device::open("host")?)?;
    /// gate.fail("never mind");
    /// gate.open();
    /// assert!(!gate.is_open(), "it has failed before");
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn is_open(&self) -> bool {
        self.barrier.point.reached() == Reached::Yes
    }

    /// The device whose streams may wait for it.
    ///
    /// ```
    /// let device = fencepost::Device::open("host")?;
    /// assert_eq!(fencepost::Gate::new(&device)?.device(), &device);
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Gives the gate a name, for the texts of errors and [`Display`](fmt::Display): `gate 4
    /// "upload" of cuda:0`. An empty name takes it away. Never blocks.
    ///
    /// ```
    /// let gate = fencepost::Gate::new(&fencepost::Device::open("host")?)?;
    /// gate.set_name("upload");
    /// assert!(gate.to_string().ends_with("\"upload\" of host"));
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn set_name(&self, name: &str) {
        self.barrier.stream().name.set(name);
    }

    /// The name that [`set_name`](Gate::set_name) gave it, if it has one. Never blocks.
    ///
    /// ```
    /// let gate = fencepost::Gate::new(&fencepost::Device::open("host")?)?;
    /// assert_eq!(gate.name(), None);
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn name(&self) -> Option<String> {
        self.barrier.stream().name.to_owned()
    }
}

impl Barrier {
    /// A closed one for streams of `device`.
    pub(crate) fn on(device: &Arc<DeviceCore>, limit: Duration, at: Place) -> Arc<Barrier> {
        let timeline = Timeline::new(StreamCore::of_gate(device.clone()), 0);
        Arc::new(Barrier::new(timeline, limit, at))
    }

    /// `timeline` has no other marker.
    fn new(timeline: Arc<Timeline>, limit: Duration, at: Place) -> Barrier {
        Barrier {
            point: Point {
                timeline,
                value: 1,
                at,
                timing: false,
            },
            ended: AtomicBool::new(false),
            limit,
            first_wait: Mutex::new(FirstWait::ToCome),
        }
    }

    fn stream(&self) -> &StreamCore {
        &self.point.timeline.stream
    }

    /// As in `gate 4 "upload" of cuda:0, made at src/main.rs:7,`.
    fn in_words(&self) -> String {
        match self.point.at.is_known() {
            true => format!("{}, made at {},", self.stream(), self.point.at),
            false => self.stream().to_string(),
        }
    }

    /// Counts a wait, and sets the deadline with the first.
    fn begin_wait(self: &Arc<Self>) -> Result<()> {
        let mut first_wait = lock(&self.first_wait);
        if let FirstWait::Was { waits, .. } = &mut *first_wait {
            *waits += 1;
            return Ok(());
        }
        let at = match self.ended.load(Ordering::Acquire) {
            true => None,
            // A limit beyond the end of the clock is no limit.
            false => Instant::now().checked_add(self.limit),
        };
        let expires: Arc<dyn Expire> = self.clone();
        let add = |at| deadlines().add(at, Arc::downgrade(&expires));
        *first_wait = FirstWait::Was {
            deadline: at.map(add).transpose()?,
            waits: 1,
        };
        Ok(())
    }

    /// Takes back a wait that the stream has refused. Without another one the first is still to
    /// come.
    fn wait_refused(&self) {
        let mut first_wait = lock(&self.first_wait);
        let FirstWait::Was { deadline, waits } = &mut *first_wait else {
            return;
        };
        *waits -= 1;
        if *waits > 0 {
            return;
        }
        let deadline = deadline.take();
        *first_wait = FirstWait::ToCome;
        drop(first_wait);
        if let Some(deadline) = deadline {
            deadlines().remove(deadline);
        }
    }

    /// Whether the caller is the first to end it. In a forked child nobody ends it: it is the
    /// parent's.
    fn end(&self) -> bool {
        self.stream().device.check_fork().is_ok() && !self.ended.swap(true, Ordering::AcqRel)
    }

    /// See [`Gate::open`].
    pub(crate) fn open(&self) {
        if self.end() {
            #[cfg(all(feature = "trace", not(loom)))]
            if observe::any() {
                observe::opens(self.stream());
            }
            self.point.timeline.advance(1).fire();
            self.end_limit();
        }
    }

    fn fail(&self, cause: impl FnOnce() -> Cause) {
        if !self.end() {
            return;
        }
        let cause = cause();
        if !self.end_limit() {
            // No stream fails by it, so there is nothing to report.
            cause.first_cause().see();
        }
        self.point.timeline.fail(&cause, false).fire();
    }

    /// Takes the deadline out. Returns whether a stream was ever made to wait.
    fn end_limit(&self) -> bool {
        let mut first_wait = lock(&self.first_wait);
        let deadline = match &mut *first_wait {
            FirstWait::ToCome => return false,
            FirstWait::Was { deadline, .. } => deadline.take(),
        };
        drop(first_wait);
        if let Some(deadline) = deadline {
            deadlines().remove(deadline);
        }
        true
    }
}

/// Those of this process.
pub(crate) fn deadlines() -> &'static Arc<Deadlines> {
    static DEADLINES: PerProcess<Arc<Deadlines>> = PerProcess::new();
    DEADLINES.get_or_make(|_| Deadlines::new())
}

impl Expire for Barrier {
    fn expire(&self) {
        self.fail(|| {
            Cause::new(format!(
                "{} was not opened within {} of its first wait, which is its limit",
                self.in_words(),
                InWords(self.limit)
            ))
        });
    }
}

impl Awaited for Barrier {
    fn point(&self) -> &Point {
        &self.point
    }
}

/// A gate is the only marker of a timeline that the host advances.
impl MarkerImpl for Barrier {
    fn timeline_knowledge(&self) -> TimelineKnowledge {
        TimelineKnowledge::All
    }
}

impl Drop for Gate {
    /// Fails the gate if it is not open. Never blocks.
    fn drop(&mut self) {
        self.barrier.fail(|| {
            let gate = self.barrier.in_words();
            Cause::new(format!("{gate} was dropped before it was opened"))
        });
    }
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.barrier.stream().fmt(f)
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gate({self}, {})", self.state())
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::{
        sync::{AtomicUsize, thread},
        timeline::{Waiter, loom_tests::stream_core},
    };

    #[test]
    fn a_gate_ends_once_and_all_see_the_same_end() {
        loom::model(|| {
            let timeline = Timeline::new(stream_core(), 0);
            let barrier = Arc::new(Barrier::new(timeline, Duration::MAX, Place::caller()));
            let fired = Arc::new(AtomicUsize::new(0));
            let (count, seen) = (fired.clone(), Arc::new(AtomicBool::new(false)));
            let opened = seen.clone();
            let call = Waiter::Call(Box::new(move |result: Result<()>| {
                opened.store(result.is_ok(), Ordering::SeqCst);
                count.fetch_add(1, Ordering::SeqCst);
            }));
            assert!(barrier.point.timeline.register(1, call).is_ok());
            let others = [
                {
                    let barrier = barrier.clone();
                    thread::spawn(move || barrier.open())
                },
                {
                    let barrier = barrier.clone();
                    thread::spawn(move || barrier.expire())
                },
            ];
            barrier.fail(|| Cause::new("x"));
            for other in others {
                other.join().unwrap();
            }
            assert_eq!(fired.load(Ordering::SeqCst), 1);
            assert_eq!(barrier.query().is_ok(), seen.load(Ordering::SeqCst));
        });
    }
}
