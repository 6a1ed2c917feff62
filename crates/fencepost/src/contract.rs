//! The contract: what a backend provides, in one place.
//!
//! The nouns (`Device`, `Stream`, `Marker`, `Event`) reach a backend through the three traits here
//! and through nothing else. A backend's private modules know none of the nouns. A call goes down
//! once and comes back once. A new backend is a folder beside this file, a line in `registry.rs`,
//! and a run of the conformance suite.
//!
//! What every backend builds on:
//! - **One [`Timeline`](crate::timeline::Timeline) per stream** is what the host knows of it. A
//!   marker is a value on it. Values are handed out in the order of the stream.
//! - **Completion is reported through the timeline** (`advance`, `fail`), by whoever learns of it:
//!   a worker of the host, the watcher, a completed handler, or a query that asked the driver.
//!   Threads, futures, callbacks and parked host streams all wait there. So a backend serves all of
//!   them once [`MarkerImpl::ensure_watched`] makes sure that somebody watches.
//! - **A failed stream still records**: the marker has failed from the start. So what a user sees
//!   does not depend on who learnt of the failure first.

use std::{
    any::Any,
    fmt,
    num::NonZeroUsize,
    ops::Deref,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    clock::{Elapsed, Timestamp},
    core::{DeviceCore, StreamCore, Work},
    error::{Error, Result},
    place::Place,
    rerecord::{Glimpse, Rerecord, Rerecorded},
    timeline::{Awaited, Ticket, Waiter},
};

/// Why a backend has no device to open.
#[derive(Clone, Debug)]
pub(crate) enum Missing {
    /// There is none on this machine, or in this build: what would bring one.
    Absent(String),
    /// A driver is there, and failed: nothing else is to be taken in its place unasked.
    #[cfg_attr(
        not(any(feature = "cuda", feature = "opencl", feature = "vulkan", has_metal)),
        allow(dead_code)
    )]
    Failed(Error),
}

impl Missing {
    /// What it is to who asked for this device.
    pub(crate) fn error(self, device: &str) -> Error {
        match self {
            Missing::Absent(why) => Error::Unavailable {
                device: device.into(),
                why,
            },
            Missing::Failed(error) => error,
        }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Missing::Absent(why) => f.write_str(why),
            Missing::Failed(error) => error.fmt(f),
        }
    }
}

/// What a backend's device provides.
pub(crate) trait DeviceImpl: Send + Sync + Any {
    /// The device's facts: name, identity, clock, and where its callbacks run.
    fn core(&self) -> &Arc<DeviceCore>;

    /// The API it is reached through.
    fn backend(&self) -> Backend;

    /// The UUID of the GPU, where the API tells one that other APIs tell too.
    fn uuid(&self) -> Option<[u8; 16]> {
        None
    }

    /// An error where no stream of it can be held for the host, as
    /// [`wait_foreign`](StreamImpl::wait_foreign) holds it.
    fn check_can_hold(&self) -> Result<()> {
        Ok(())
    }

    /// The stream that exists from the start. The same one each time.
    fn default_stream(&self) -> Arc<dyn StreamImpl>;

    /// A stream of its own.
    fn new_stream(&self) -> Result<Arc<dyn StreamImpl>>;

    /// Keeps long times exact while what it gives lives; `None` where they are exact anyway.
    fn keep_time(&self) -> Result<Option<Arc<dyn Any + Send + Sync>>> {
        Ok(None)
    }

    /// The time between two complete markers of the device by their [native
    /// objects](MarkerImpl::timed_native), where one call of a driver tells and nothing is out of
    /// the ordinary; else `None`. Others may record these objects meanwhile: an answer counts only
    /// if both glimpses [are current](Glimpse::is_current) after it. Takes no lock, fires no
    /// waiters, and gives nothing in a forked child.
    fn elapsed_between(&self, start: &Glimpse<'_>, end: &Glimpse<'_>) -> Option<Elapsed> {
        let _ = (start, end);
        None
    }

    /// Called on a thread of the library before it asks the device for what it knows, while other
    /// threads may be capturing work into graphs.
    #[cfg_attr(not(feature = "trace"), allow(dead_code))]
    fn prepare_thread(&self) {}

    /// The streams that are alive, for waiting for all of them.
    fn streams(&self) -> Vec<Arc<dyn StreamImpl>>;

    /// Reads the device's clock beside the host's, as closely as the API can. It may wait for a
    /// stamp of its own, never for a stream of the caller's, but for what shares its hardware
    /// queue. `at` is the source line of the caller. While it waits it looks now and then, and
    /// gives up with [`Error::Timeout`] if that returns `false`.
    fn correlate(&self, at: Place, look: Look<'_>) -> Result<Sample>;
}

/// Whether to go on: what is asked now and then in a long wait.
pub(crate) type Look<'a> = &'a mut dyn FnMut() -> bool;

/// A moment on a device's clock and on the host's.
#[derive(Clone)]
pub(crate) struct Sample {
    pub(crate) stamp: Stamp,
    pub(crate) host: Instant,
    /// How far the two may be apart at most.
    pub(crate) error: Duration,
    /// Whether the device's clock is the host's own, so that the two do not drift apart.
    pub(crate) is_host_clock: bool,
}

/// A moment on a device's clock.
#[derive(Clone)]
pub(crate) enum Stamp {
    Clock(Timestamp),
    /// A complete marker of the device with timing.
    #[cfg_attr(
        not(any(
            feature = "cuda",
            feature = "opencl",
            feature = "vulkan",
            feature = "wgpu30"
        )),
        allow(dead_code)
    )]
    Marker(Arc<dyn MarkerImpl>),
}

impl Sample {
    /// What was read at some time between `before` and `after`.
    #[cfg_attr(not(has_gpu), allow(dead_code))]
    pub(crate) fn between(before: Instant, after: Instant, stamp: Stamp) -> Sample {
        let half = after.saturating_duration_since(before) / 2;
        Sample {
            stamp,
            host: before + half,
            // The division rounds down.
            error: half + Duration::from_nanos(1),
            is_host_clock: false,
        }
    }

    /// The better one of two.
    #[cfg_attr(not(has_gpu), allow(dead_code))]
    pub(crate) fn or_closer(self, other: Sample) -> Sample {
        match other.error < self.error {
            true => other,
            false => self,
        }
    }
}

impl Stamp {
    /// The time from this stamp to `marker`, which is complete, timed and of the same device.
    pub(crate) fn elapsed(&self, marker: &dyn MarkerImpl) -> Result<Elapsed> {
        match self {
            Stamp::Clock(timestamp) => timestamp.elapsed(&marker.timestamp()?),
            Stamp::Marker(first) => Ok(marker.elapsed(&**first)?.reversed()),
        }
    }

    /// The time from this stamp to another one of the same device.
    pub(crate) fn until(&self, later: &Stamp) -> Result<Elapsed> {
        match (self, later) {
            (Stamp::Clock(start), Stamp::Clock(end)) => start.elapsed(end),
            (start, Stamp::Marker(end)) => start.elapsed(&**end),
            (Stamp::Marker(start), end) => Ok(end.elapsed(&**start)?.reversed()),
        }
    }
}

/// What a backend's stream provides. No call waits for the device's progress.
pub(crate) trait StreamImpl: Send + Sync + Any {
    /// The identity of the stream, and what the host knows of it.
    fn core(&self) -> &Arc<StreamCore>;

    /// Puts a marker behind everything submitted so far, and submits it. `at` is the source line of
    /// the caller. On an error nothing has changed.
    fn mark(&self, timing: bool, at: Place) -> Result<Arc<dyn MarkerImpl>>;

    /// Records an event again in place, if the backend can. [`Rerecord::begin`] gives it the marker
    /// that the event holds, if nobody else holds that. The backend records the marker's native
    /// object again, and gives the marker a new value on the same timeline, and `at`. Fires no
    /// waiters.
    ///
    /// `None` if it cannot, or if the driver refuses. Then nothing has changed, except that a value
    /// may be used up, and the caller calls [`mark`](StreamImpl::mark).
    fn record_again(&self, event: Rerecord<'_>, at: Place) -> Option<Rerecorded> {
        let _ = (event, at);
        None
    }

    /// Makes later work run after `marker`, natively for markers of its own kind, else as the
    /// backend can; [`Error::ForeignWait`] where it cannot. A failed marker fails this stream.
    fn wait(&self, marker: &Arc<dyn MarkerImpl>) -> Result<()>;

    /// An error where a wait for what is no part of it would break a capture of the caller's.
    /// Changes nothing.
    fn check_may_wait(&self) -> Result<()> {
        Ok(())
    }

    /// As [`wait`](StreamImpl::wait), also for pending markers of other backends, at the price of
    /// stalling the hardware queue.
    fn wait_foreign(&self, marker: &Arc<dyn MarkerImpl>) -> Result<()> {
        self.wait(marker)
    }

    /// How many markers are known to be complete, without asking a driver.
    fn completed(&self) -> u64;

    /// Whether everything submitted so far is done, where the API tells without a marker; else
    /// `None`.
    fn is_idle(&self) -> Result<Option<bool>> {
        Ok(None)
    }

    /// The failure that sticks to the stream, if one does.
    fn failure(&self) -> Option<Error>;

    /// Forgets a failure, and the waits behind it, so that what is submitted from now on runs and
    /// does not fail by them. An error if the device is lost.
    fn clear_error(&self) -> Result<()>;

    /// Queues a write over more memory than the device's last cache holds, so that what runs next
    /// finds nothing of its own there. The first call makes that memory, which may block while a
    /// stream is held; the later ones do not.
    fn overwrite_cache(&self, at: Place) -> Result<()> {
        let _ = at;
        Err(Error::Unsupported {
            what: "a cold cache: its API tells no size of one".into(),
            device: self.core().device.name.clone(),
            remedy: "measure with a warm one".into(),
        })
    }

    /// Whether later work of the stream runs after its earlier markers without a wait for them.
    fn is_in_order(&self) -> bool {
        true
    }

    /// Runs a closure on the stream: host streams only.
    fn launch(&self, work: Work, at: Place) -> Result<()> {
        let _ = (work, at);
        Err(Error::Unsupported {
            what: "launching a host closure".into(),
            device: self.core().device.name.clone(),
            remedy: "launch it on a host stream, and let one stream wait for the other".into(),
        })
    }
}

/// How much of a marker's status its timeline tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimelineKnowledge {
    /// Nothing: the marker is to be asked.
    Nothing,
    /// That it is complete, once somebody has learnt of it; while pending, the marker is to be
    /// asked.
    #[cfg_attr(not(has_gpu), allow(dead_code))]
    Completion,
    /// Everything.
    All,
}

/// What a backend's marker provides. All of it may be called by many threads at once. Nobody who
/// holds a marker sees it change: [`StreamImpl::record_again`] changes one only while nobody else
/// holds it. `Any`, so that a stream can recognise markers of its own kind.
pub(crate) trait MarkerImpl: Awaited + Any {
    /// How much the timeline alone tells of this marker: what it tells, a query need not ask a
    /// driver for.
    fn timeline_knowledge(&self) -> TimelineKnowledge {
        TimelineKnowledge::Nothing
    }

    /// Whether it is known to be complete. A backend whose driver answers no faster than it waits
    /// does not ask.
    fn is_known_complete(&self) -> bool {
        matches!(self.query(), Ok(true))
    }

    /// Blocks until complete (`true`), failed, or the deadline (`false`). As written here for a
    /// marker whose timeline tells everything.
    fn wait_until(&self, deadline: Option<Instant>) -> Result<bool> {
        let point = self.point();
        point.timeline.wait(point.value, deadline)
    }

    /// Makes sure that somebody advances the timeline when this marker completes, for those who
    /// registered there. The host needs nothing.
    fn ensure_watched(&self) -> Result<()> {
        Ok(())
    }

    /// Whether it may well complete before a thread that watches it could tell. A future, and the
    /// thread for callbacks, look for a moment then, before they have it watched.
    fn may_complete_soon(&self) -> bool {
        false
    }

    /// An event that held it is dropped, or holds another one: a backend may keep the marker for
    /// the next record, if nobody else holds it. Never blocks, never calls a driver.
    fn retire(self: Arc<Self>) {}

    /// Whether a [forgotten](crate::bindings::forget) event may keep it, to change it in place by
    /// its next record. As written here for backends whose events nobody forgets.
    fn may_be_changed(&self) -> bool {
        false
    }

    /// When it completed. Called only for a complete marker with timing; as written here for a
    /// kind of marker that has none.
    fn timestamp(&self) -> Result<Timestamp> {
        Err(Error::timing_disabled("held"))
    }

    /// What its device's [`elapsed_between`](DeviceImpl::elapsed_between) takes for it, once it is
    /// complete: a native object that may be asked for a time as long as the process lives, whoever
    /// records it again. `None` for a marker without timing.
    fn timed_native(&self) -> Option<NonZeroUsize> {
        None
    }

    /// As [`elapsed`](MarkerImpl::elapsed), where no driver is called; else `None`. Both markers
    /// are complete and of one device, perhaps without timing. They are taken out of their events,
    /// and nobody else reaches them meanwhile: so no lock is taken and no waiter fired.
    fn elapsed_at_once(&self, end: &dyn MarkerImpl) -> Option<Elapsed> {
        let _ = end;
        None
    }

    /// The time from this marker to `end`, both complete, timed and of one device.
    fn elapsed(&self, end: &dyn MarkerImpl) -> Result<Elapsed> {
        self.timestamp()?.elapsed(&end.timestamp()?)
    }
}

impl dyn MarkerImpl {
    /// Fires `waiter` once the marker is complete or has failed: from another thread, or right here
    /// when that is so already.
    pub(crate) fn notify(&self, waiter: Waiter) -> Result<Option<Ticket>> {
        let point = self.point();
        match point.timeline.register(point.value, waiter) {
            Ok(ticket) => match self.ensure_watched() {
                Ok(()) => Ok(Some(ticket)),
                Err(error) => {
                    drop(point.timeline.cancel(ticket));
                    Err(error)
                }
            },
            Err(waiter) => {
                point.timeline.fire_late(point.value, waiter);
                Ok(None)
            }
        }
    }
}

impl fmt::Display for dyn MarkerImpl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.point().fmt(f)
    }
}

/// A shared reference to a device.
#[derive(Clone)]
pub(crate) enum DeviceRef {
    Counted(Arc<dyn DeviceImpl>),
    /// A device that lives until the process ends, so that its references need not be counted.
    #[cfg_attr(not(feature = "cuda"), allow(dead_code))]
    Static(&'static dyn DeviceImpl),
}

impl Deref for DeviceRef {
    type Target = dyn DeviceImpl;

    #[inline]
    fn deref(&self) -> &dyn DeviceImpl {
        match self {
            DeviceRef::Counted(device) => &**device,
            DeviceRef::Static(device) => *device,
        }
    }
}

impl DeviceRef {
    pub(crate) fn new(device: impl DeviceImpl) -> DeviceRef {
        DeviceRef::Counted(Arc::new(device))
    }
}

/// Two are equal when events of one may be recorded on streams of the other.
impl PartialEq for DeviceRef {
    #[inline]
    fn eq(&self, other: &DeviceRef) -> bool {
        match (self, other) {
            // Nearly always the two are clones of one reference.
            (DeviceRef::Static(one), DeviceRef::Static(two)) if std::ptr::addr_eq(*one, *two) => {
                true
            }
            (DeviceRef::Counted(one), DeviceRef::Counted(two)) if Arc::ptr_eq(one, two) => true,
            _ => self.core().id == other.core().id,
        }
    }
}

/// An API that devices are reached through.
///
/// ```
/// use fencepost::{Backend, Device};
/// assert_eq!(Device::open("host")?.backend(), Backend::Host);
/// # Ok::<(), fencepost::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Backend {
    /// Threads of this process. Always there.
    Host,
    /// Apple's Metal.
    Metal,
    /// NVIDIA's CUDA driver.
    Cuda,
    /// Vulkan 1.2 and later.
    Vulkan,
    /// OpenCL 1.2 and later.
    OpenCl,
    /// wgpu 30, on devices of the caller's.
    Wgpu30,
}

impl Backend {
    /// The name that device names begin with.
    ///
    /// ```
    /// assert_eq!(fencepost::Backend::Cuda.name(), "cuda");
    /// ```
    pub fn name(self) -> &'static str {
        match self {
            Backend::Host => "host",
            Backend::Metal => "metal",
            Backend::Cuda => "cuda",
            Backend::Vulkan => "vulkan",
            Backend::OpenCl => "opencl",
            Backend::Wgpu30 => "wgpu30",
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
