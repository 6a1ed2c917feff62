//! What a stream has of Vulkan's: its semaphores and query slots, and how long they live.
//!
//! - **The marker timeline** is the timeline semaphore whose values are the stream's markers.
//! - **The work timeline** is signalled by batches that mark nothing (waits, and the suite's work),
//!   so that what they use is known to be free. A stream that only records has none.
//! - **A hold** is a semaphore of its own that the host signals, where the stream waits for what
//!   the device cannot see. The queue comes to them in their order, so they are let go in the order
//!   of the waits, whichever is signalled first.
//!
//! Whoever may ask a semaphore holds its [`Native`]: markers, streams, and batches of other streams
//! that wait on it, until those are known to be complete. Dropped while something is pending, it is
//! buried: the waiter destroys it once the device is through.

use std::{
    any::Any,
    collections::VecDeque,
    mem::ManuallyDrop,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use ash::vk;

use super::{
    gpu::{Fault, Gpu},
    queue::Point,
    timer::{SlotTime, Timer},
};
use crate::{
    epochs::{Counter, Epoch},
    error::{Cause, Error, Result},
    sync::{Mutex, lock},
    watcher::Watched,
};

pub(crate) struct Native {
    /// `None` only while it is dropped.
    body: Option<Body>,
}

/// The native objects; destroyed when nothing is pending.
pub(crate) struct Body {
    pub(super) gpu: Arc<Gpu>,
    pub(super) marker_timeline: vk::Semaphore,
    /// The last value of the marker timeline that was submitted.
    submitted: AtomicU64,
    work_timeline: OnceLock<Trail>,
    pub(super) timer: OnceLock<Timer>,
    #[cfg(feature = "conformance")]
    pub(super) work: OnceLock<super::work::Work>,
}

struct Trail {
    semaphore: vk::Semaphore,
    last: AtomicU64,
    /// What batches use, until the work timeline has come to their value.
    keep: Mutex<Uses>,
}

/// What holds a stream until the host signals it, with 1.
pub(super) struct HostGate {
    gpu: Arc<Gpu>,
    pub(super) semaphore: vk::Semaphore,
    opened: AtomicBool,
}

impl HostGate {
    pub(super) fn new(gpu: &Arc<Gpu>) -> Result<Arc<HostGate>, Fault> {
        let gate = Arc::new(HostGate {
            semaphore: gpu.timeline_semaphore()?,
            gpu: gpu.clone(),
            opened: AtomicBool::new(false),
        });
        gpu.add_gate(&gate);
        Ok(gate)
    }

    /// Has the waiter look at markers that may have failed by now.
    pub(super) fn look_again(&self) {
        if !self.gpu.is_gone() {
            self.gpu.waiter.look_again();
        }
    }

    /// Idempotent: a value is signalled once.
    pub(super) fn open(&self) {
        if !self.opened.swap(true, Ordering::AcqRel) {
            self.gpu.signal(self.semaphore, 1);
        }
    }
}

impl Drop for HostGate {
    fn drop(&mut self) {
        if !self.gpu.is_gone() {
            // SAFETY: made by us; the batch that waits for it holds it until it is complete
            // (`Body::work_timeline`).
            unsafe { self.gpu.device.destroy_semaphore(self.semaphore, None) };
        }
    }
}

/// What pending batches use, and who keeps it until then.
type Uses = VecDeque<(u64, Arc<dyn Any + Send + Sync>)>;

/// What the waiter watches.
pub(super) enum Watch {
    /// What the last batches of a dropped stream use.
    Uses {
        native: Arc<Native>,
        work_timeline: Point,
        uses: Uses,
    },
    Marker {
        native: Arc<Native>,
        epoch: Arc<Epoch>,
        value: u64,
    },
    Burial(ManuallyDrop<Box<Body>>),
}

impl Native {
    pub(super) fn new(gpu: &Arc<Gpu>) -> Result<Arc<Native>, Fault> {
        Ok(Arc::new(Native {
            body: Some(Body {
                marker_timeline: gpu.timeline_semaphore()?,
                gpu: gpu.clone(),
                submitted: AtomicU64::new(0),
                work_timeline: OnceLock::new(),
                timer: OnceLock::new(),
                #[cfg(feature = "conformance")]
                work: OnceLock::new(),
            }),
        }))
    }
}

impl Native {
    /// The stream is gone: nothing prunes what its batches use any more. Streams that waited for
    /// each other would keep each other for ever.
    pub(super) fn leave(self: &Arc<Self>) {
        let Some(work_timeline) = self.work_timeline.get() else {
            return;
        };
        if self.gpu.is_gone() {
            return;
        }
        let uses = std::mem::take(&mut *lock(&work_timeline.keep));
        let last = work_timeline.last.load(Ordering::Acquire);
        if uses.is_empty()
            || self
                .gpu
                .counter(work_timeline.semaphore)
                .is_ok_and(|reached| reached >= last)
        {
            return drop(uses);
        }
        let _ = self.gpu.waiter.watch(Watch::Uses {
            native: self.clone(),
            work_timeline: (work_timeline.semaphore, last),
            uses,
        });
    }
}

impl std::ops::Deref for Native {
    type Target = Body;

    #[inline]
    fn deref(&self) -> &Body {
        match &self.body {
            Some(body) => body,
            // Taken by the drop, which has the only reference.
            None => unreachable!("a native in use is not dropped"),
        }
    }
}

impl Body {
    /// A marker's value was submitted.
    #[inline]
    pub(super) fn was_submitted(&self, native: u64) {
        self.submitted.store(native, Ordering::Release);
    }

    /// Submits a batch that marks nothing: `submit` signals the point that it is given. `uses`
    /// lives until then. Called under the submit lock.
    pub(super) fn submit_work(
        &self,
        uses: Arc<dyn Any + Send + Sync>,
        submit: impl FnOnce(Point) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let work_timeline = match self.work_timeline.get() {
            Some(work_timeline) => work_timeline,
            None => {
                let fresh = Trail {
                    semaphore: self.gpu.timeline_semaphore()?,
                    last: AtomicU64::new(0),
                    keep: Mutex::new(VecDeque::new()),
                };
                self.work_timeline.get_or_init(|| fresh)
            }
        };
        let value = work_timeline.last.load(Ordering::Relaxed) + 1;
        submit((work_timeline.semaphore, value))?;
        work_timeline.last.store(value, Ordering::Release);
        let reached = self.gpu.counter(work_timeline.semaphore).unwrap_or(0);
        let mut keep = lock(&work_timeline.keep);
        let gone = keep.partition_point(|(value, _)| *value <= reached);
        let gone: Vec<_> = keep.drain(..gone).collect();
        keep.push_back((value, uses));
        drop(keep);
        // The last owner of another stream's native may be among them: without the lock.
        drop(gone);
        Ok(())
    }

    /// How far batches that mark nothing have come, and the value of the next.
    #[cfg(feature = "conformance")]
    pub(super) fn trail_reached(&self) -> (u64, u64) {
        self.work_timeline.get().map_or((0, 1), |work_timeline| {
            let reached = self.gpu.counter(work_timeline.semaphore).unwrap_or(0);
            (reached, work_timeline.last.load(Ordering::Relaxed) + 1)
        })
    }

    /// What is pending: the first point that is not reached.
    fn pending(&self) -> Option<Point> {
        let marker_timeline = Some((self.marker_timeline, self.submitted.load(Ordering::Acquire)));
        let work_timeline = self.work_timeline.get();
        let work_timeline = work_timeline.map(|work_timeline| {
            (
                work_timeline.semaphore,
                work_timeline.last.load(Ordering::Acquire),
            )
        });
        if self.gpu.lost().is_some() {
            return None;
        }
        [marker_timeline, work_timeline]
            .into_iter()
            .flatten()
            .find(|&(semaphore, value)| {
                match self.gpu.counter(semaphore) {
                    Ok(reached) => reached < value,
                    // Nothing runs on a lost device.
                    Err(fault) => fault.result != vk::Result::ERROR_DEVICE_LOST,
                }
            })
    }

    /// Destroys everything. Nothing is pending.
    fn destroy(&mut self) {
        let device = &self.gpu.device;
        #[cfg(feature = "conformance")]
        if let Some(work) = self.work.take() {
            work.destroy(device);
        }
        if let Some(timer) = self.timer.take() {
            timer.destroy(device);
        }
        let work_timeline = self
            .work_timeline
            .take()
            .map(|work_timeline| work_timeline.semaphore);
        for semaphore in [Some(self.marker_timeline), work_timeline]
            .into_iter()
            .flatten()
        {
            // SAFETY: made by us of this device; all batches that use it are complete, and nobody
            // else is left to ask.
            unsafe { device.destroy_semaphore(semaphore, None) };
        }
    }
}

impl Drop for Native {
    fn drop(&mut self) {
        let Some(mut body) = self.body.take() else {
            return;
        };
        if body.gpu.is_gone() {
            // The driver did not come along.
            return std::mem::forget(body);
        }
        if body.pending().is_none() {
            return body.destroy();
        }
        let gpu = body.gpu.clone();
        // Where no thread can be started the objects are left to the process's end.
        let _ = gpu
            .waiter
            .watch(Watch::Burial(ManuallyDrop::new(Box::new(body))));
    }
}

impl Counter for Native {
    type Time = SlotTime;

    #[inline]
    fn read(&self) -> Result<u64> {
        self.gpu.check_fork()?;
        // Counters of a lost device may stand still, and markers of dropped streams have heard of
        // no loss.
        if let Some(lost) = self.gpu.lost() {
            return Err(lost);
        }
        self.gpu
            .counter(self.marker_timeline)
            .map_err(|fault| self.gpu.failed(fault))
    }

    fn wait(&self, epoch: &Epoch, native: u64, deadline: Option<Instant>) -> Result<()> {
        /// How long to be in the driver at once, where the host may learn of a failure that comes
        /// in front.
        const AT_ONCE: u64 = 10_000_000;
        let timeout = match deadline {
            None => u64::MAX,
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                u64::try_from(left.as_nanos()).unwrap_or(u64::MAX)
            }
        };
        let timeout = match epoch.may_fail() {
            true => timeout.min(AT_ONCE),
            false => timeout,
        };
        let (semaphores, values) = ([self.marker_timeline], [native]);
        let info = vk::SemaphoreWaitInfo::default()
            .semaphores(&semaphores)
            .values(&values);
        // SAFETY: our own timeline semaphore, alive while `self` is borrowed.
        match unsafe { self.gpu.device.wait_semaphores(&info, timeout) } {
            Ok(()) | Err(vk::Result::TIMEOUT) => Ok(()),
            Err(result) => Err(self.gpu.failed(Fault {
                call: "vkWaitSemaphores",
                result,
            })),
        }
    }

    fn watch(self: &Arc<Self>, epoch: &Arc<Epoch>, native: u64) -> Result<()> {
        self.gpu.waiter.watch(Watch::Marker {
            native: self.clone(),
            epoch: epoch.clone(),
            value: native,
        })
    }
}

impl Watch {
    /// Whether the device is through with what a burial or a dropped stream's batches use.
    fn is_over(&self) -> bool {
        match self {
            Watch::Uses {
                native,
                work_timeline,
                ..
            } => {
                native.gpu.lost().is_some()
                    || native.gpu.counter(work_timeline.0).map_or_else(
                        |fault| fault.result == vk::Result::ERROR_DEVICE_LOST,
                        |reached| reached >= work_timeline.1,
                    )
            }
            Watch::Burial(body) => body.pending().is_none(),
            Watch::Marker { .. } => true,
        }
    }

    pub(super) fn gpu(&self) -> &Arc<Gpu> {
        match self {
            Watch::Uses { native, .. } | Watch::Marker { native, .. } => &native.gpu,
            Watch::Burial(body) => &body.gpu,
        }
    }

    /// What to sleep for; `None` when it is due.
    pub(super) fn point(&self) -> Option<Point> {
        match self {
            Watch::Marker {
                native,
                epoch,
                value,
            } => Some((native.marker_timeline, epoch.known_at(*value))),
            Watch::Uses { work_timeline, .. } => Some(*work_timeline),
            Watch::Burial(body) => body.pending(),
        }
    }
}

impl Watched for Watch {
    fn key(&self) -> (usize, u64) {
        match self {
            Watch::Marker { epoch, value, .. } => (Arc::as_ptr(epoch) as usize, *value),
            // Lanes of their own: no two of these lie within two bytes.
            Watch::Uses { native, .. } => (Arc::as_ptr(native) as usize + 2, 0),
            Watch::Burial(body) => ((&raw const ***body) as usize + 1, 0),
        }
    }

    fn look(&self) -> bool {
        match self {
            Watch::Marker {
                native,
                epoch,
                value,
            } => match native.read() {
                Ok(counter) => {
                    epoch.settle(counter);
                    counter >= *value || epoch.timeline.has_failed()
                }
                // A loss has failed the streams that are alive; this one may be dropped, or a
                // reservation's.
                Err(error) => {
                    let lost = matches!(error, Error::DeviceLost { .. });
                    epoch.timeline.fail(&Cause::of(&error), lost).fire();
                    true
                }
            },
            Watch::Uses { .. } | Watch::Burial(_) => self.is_over(),
        }
    }
}

/// Destroyed when the waiter lets go of it with nothing pending. Else it is left to the process's
/// end: what is pending may not lose what it uses.
impl Drop for Watch {
    fn drop(&mut self) {
        let over = !self.gpu().is_gone() && self.is_over();
        match self {
            Watch::Burial(body) if over => {
                body.destroy();
                // SAFETY: dropped once, here, and not used after.
                unsafe { ManuallyDrop::drop(body) };
            }
            Watch::Uses { uses, .. } if !over => std::mem::forget(std::mem::take(uses)),
            _ => {}
        }
    }
}
