//! One CUDA context: its pools of events and streams, its host gates, its devices, and the fault
//! that ended it.
//!
//! - **A context is never forgotten.** There are as many as GPUs, and a few more where the caller
//!   brings some; so markers and streams borrow it for ever and no counting is needed on the hot
//!   path.
//! - **The pool is keyed by context and flags.** An event goes back when its marker's last owner
//!   lets go, also while it is pending: `cuEventRecord` on a pending event replaces what it
//!   captured and leaves waits made before alone
//!   ([`cuStreamWaitEvent`](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__STREAM.html)).
//! - **Streams are not destroyed, they are used again.** `cuStreamDestroy` waits while another
//!   thread is stuck in the driver's full queue, and a drop must not; so a dropped stream goes to a
//!   pool, and the next new one is the first there that has nothing left to do.
//! - **Host gates are never freed.** Freeing page-locked memory blocks while any stream is stalled
//!   (docs/measurements/cuda-stalls.md), and a stalled stream is what they are for.

use std::{
    any::Any,
    collections::VecDeque,
    ffi::c_void,
    sync::{
        Arc, OnceLock, TryLockError, Weak,
        atomic::{AtomicU32, Ordering as StdOrdering},
    },
    time::Duration,
};

use super::{
    driver::{
        ContextHandle, Driver, EventHandle, Fault, Meaning, NOT_READY, RELAXED, StreamHandle,
    },
    marker::Watch,
    upstreams::Upstreams,
};
use crate::workers::{CallbackQueue, Pool};
use crate::{
    clock::Clock,
    core::DeviceCore,
    diagnostics,
    error::{Cause, Error, Result},
    sync::{Mutex, lock},
    timeline::Timeline,
    watcher::{Pauses, Watcher},
};

pub(crate) struct Context {
    pub(super) driver: &'static Driver,
    pub(super) raw: ContextHandle,
    /// What the driver calls it; never used again, while `raw` may be. Old drivers have none.
    id: Option<u64>,
    pub(crate) name: String,
    pub(super) clock: Clock,
    callbacks: Arc<CallbackQueue>,
    pools: [Mutex<Vec<EventHandle>>; 4],
    idle_streams: Mutex<VecDeque<StreamHandle>>,
    gates: Mutex<Vec<HostGate>>,
    pub(super) watcher: Watcher<Watch, Pauses>,
    pub(super) upstreams: Upstreams,
    /// The streams of its devices.
    devices: Mutex<Vec<Weak<dyn Lose>>>,
    /// Why nothing in it works any more.
    dead: OnceLock<Cause>,
    owner: u32,
    /// What keeps it alive, where it is the caller's and is no primary one.
    pub(super) keep_alive: OnceLock<Arc<dyn Any + Send + Sync>>,
}

/// What ends with its context.
pub(super) trait Lose: Send + Sync {
    /// The context is gone, for this reason. Called without any lock.
    fn lose(&self, cause: &Cause);
}

/// Which pool an event belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) timing: bool,
    /// Threads that synchronize sleep instead of spinning.
    pub(super) blocking: bool,
}

impl Kind {
    fn index(self) -> usize {
        usize::from(self.timing) | usize::from(self.blocking) << 1
    }

    /// `CU_EVENT_BLOCKING_SYNC` is 1, `CU_EVENT_DISABLE_TIMING` is 2.
    fn flags(self) -> u32 {
        u32::from(self.blocking) | u32::from(!self.timing) << 1
    }
}

/// What holds a stream until the host opens it: 32 bits of page-locked memory that only grow. Each
/// use waits for one more than the last, so a gate can be used again as soon as it is open: what
/// waited for it before goes on all the same.
#[derive(Clone, Copy)]
pub(crate) struct HostGate {
    host: usize,
    device: u64,
    /// The value that opens it.
    opens_at: u32,
}

/// The error of the events, by the driver's reference of `cuEventElapsedTime`: about half a
/// microsecond.
const RESOLUTION: Duration = Duration::from_nanos(500);

impl Context {
    /// Lives as long as the process.
    pub(super) fn new(
        driver: &'static Driver,
        raw: ContextHandle,
        id: Option<u64>,
        name: String,
        model: Option<String>,
    ) -> &'static Context {
        // The clock names the GPU, so that every report tells what it was measured on: a stand-in's
        // name says that it is one.
        let clock = format!("CUDA events of {}", model.as_ref().unwrap_or(&name));
        Box::leak(Box::new(Context {
            driver,
            raw,
            id,
            clock: Clock::new(clock, 1.0, 64, RESOLUTION),
            name,
            callbacks: Arc::new(CallbackQueue::new(Arc::new(Pool::new(1)))),
            pools: [const { Vec::new() }; 4].map(Mutex::new),
            idle_streams: Mutex::new(VecDeque::new()),
            gates: Mutex::new(Vec::new()),
            watcher: Watcher::new(
                "fencepost-cuda",
                Pauses {
                    prepare: prepare_watcher,
                },
            ),
            upstreams: Upstreams::new(),
            devices: Mutex::new(Vec::new()),
            dead: OnceLock::new(),
            owner: std::process::id(),
            keep_alive: OnceLock::new(),
        }))
    }

    /// What a device in this context shares.
    pub(super) fn device_core(&self) -> Arc<DeviceCore> {
        DeviceCore::new(
            self.name.clone(),
            self.clock.clone(),
            self.callbacks.clone(),
        )
    }

    /// Whether it is the context that `raw` names now; `id` is the driver's number for that one.
    pub(super) fn is(&self, raw: ContextHandle, id: Option<u64>) -> bool {
        self.raw == raw && self.id == id
    }

    /// Whether the context is still the one it was. Another part of the process may have destroyed
    /// or reset it; the driver tells that when it is asked for the context's number, and crashes
    /// when given a stream or event that was in it (seen on driver 580). Between the two calls lies
    /// a race that only whoever resets can close.
    #[inline(always)]
    pub(super) fn check_alive(&self) -> Result<(), Fault> {
        let Some(id) = self.id else {
            return Ok(());
        };
        let mut now = 0;
        // SAFETY: `now` is a u64; the driver looks the handle up before it uses it.
        unsafe { self.driver.ctx_id((self.raw, &raw mut now)) }?;
        match now == id {
            true => Ok(()),
            false => Err(Fault::CONTEXT_GONE),
        }
    }

    pub(super) fn is_forked(&self) -> bool {
        self.owner != std::process::id()
    }

    /// Calls the driver with this context current, and puts back what was current before.
    pub(crate) fn current<R>(&self, call: impl FnOnce() -> Result<R, Fault>) -> Result<R, Fault> {
        self.check_alive()?;
        // SAFETY: the context is retained, or its owner keeps it alive (stream_from_raw).
        unsafe { self.driver.ctx_push((self.raw,)) }?;
        let result = call();
        let mut popped = ContextHandle::NULL;
        // SAFETY: takes off what was pushed above.
        let _ = unsafe { self.driver.ctx_pop((&raw mut popped,)) };
        result
    }

    fn relaxed<R>(&self, call: impl FnOnce() -> R) -> R {
        self.driver.relaxed(call)
    }

    /// An event to record, from the pool or new.
    pub(super) fn take(&self, kind: Kind) -> Result<EventHandle, Fault> {
        if let Some(event) = lock(&self.pools[kind.index()]).pop() {
            return Ok(event);
        }
        self.create(kind.flags())
    }

    pub(super) fn create(&self, flags: u32) -> Result<EventHandle, Fault> {
        let mut event = EventHandle::NULL;
        self.current(|| {
            // SAFETY: `event` is one handle.
            unsafe { self.driver.event_create((&raw mut event, flags)) }
        })?;
        Ok(event)
    }

    /// Takes an event back. Calls no driver, so it is safe at any time, also after the driver is
    /// gone.
    pub(super) fn give(&self, kind: Kind, event: EventHandle) {
        self.put_back(&self.pools[kind.index()], |pool| pool.push(event));
    }

    /// A stream of ours that has nothing to do: a dropped one, or a new one.
    pub(super) fn take_stream(&self) -> Result<StreamHandle, Fault> {
        self.check_alive()?;
        // Of those dropped lately some may be busy; a few are asked, then making one is cheaper.
        for _ in 0..STREAMS_TO_ASK {
            let Some(stream) = lock(&self.idle_streams).pop_front() else {
                break;
            };
            // SAFETY: ours, of this context, which is alive; nobody else has it now.
            match self.relaxed(|| unsafe { self.driver.stream_query((stream,)) }) {
                Ok(()) => return Ok(stream),
                // Busy, or left by its owner in the middle of a capture.
                Err(fault) if fault.meaning() != Meaning::Fatal => {
                    lock(&self.idle_streams).push_back(stream);
                }
                Err(fault) => return Err(fault),
            }
        }
        let mut stream = StreamHandle::NULL;
        self.current(|| {
            // CU_STREAM_NON_BLOCKING: unordered against the legacy default stream too.
            // SAFETY: `stream` is one handle.
            unsafe { self.driver.stream_create((&raw mut stream, 1)) }
        })?;
        Ok(stream)
    }

    /// Takes a stream of ours back, perhaps with work still to do. Calls no driver.
    pub(super) fn give_stream(&self, stream: StreamHandle) {
        self.put_back(&self.idle_streams, |streams| streams.push_back(stream));
    }

    /// Puts something into a pool, from a drop.
    fn put_back<T>(&self, pool: &Mutex<T>, put: impl FnOnce(&mut T)) {
        // In a forked child the lock may be held by a thread that did not come along.
        for _ in 0..1000 {
            match pool.try_lock() {
                Ok(mut pool) => return put(&mut pool),
                Err(TryLockError::Poisoned(pool)) => return put(&mut pool.into_inner()),
                Err(TryLockError::WouldBlock) => std::hint::spin_loop(),
            }
        }
        if !self.is_forked() {
            put(&mut lock(pool));
        }
    }

    /// Destroys an event that must not be recorded again. A refusal is not told: nothing can be
    /// done about it, and after the driver's end there is no driver to call.
    pub(super) fn destroy(&self, event: EventHandle) {
        if !self.is_forked() && self.check_alive().is_ok() {
            // SAFETY: the event is ours, and its last owner has let go; the driver frees it once it
            // is complete.
            let _ = unsafe { self.driver.event_destroy((event,)) };
        }
    }

    /// Records `event` on `stream`. No lock is held: the driver may block here while its queue is
    /// full.
    #[inline(always)]
    pub(super) fn record(&self, event: EventHandle, stream: StreamHandle) -> Result<(), Fault> {
        // SAFETY: the event is one of this context's pool, and alive; the stream is of this context
        // and alive, as its owner promises.
        unsafe { self.driver.event_record((event, stream)) }
    }

    /// Makes later work of `stream` run after what `event` has captured now. The event may be of
    /// another context or device.
    pub(super) fn wait_event(
        &self,
        stream: StreamHandle,
        event: EventHandle,
        flags: u32,
    ) -> Result<(), Fault> {
        // SAFETY: both handles come from this driver and are alive: whoever calls holds their
        // owners. https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__STREAM.html
        unsafe { self.driver.stream_wait_event((stream, event, flags)) }
    }

    /// Whether `event` is complete. Never blocks.
    pub(super) fn query(&self, event: EventHandle) -> Result<bool, Fault> {
        // SAFETY: as in `record`.
        match self.relaxed(|| unsafe { self.driver.event_query((event,)) }) {
            Ok(()) => Ok(true),
            Err(fault) if fault.code() == Some(NOT_READY) => Ok(false),
            Err(fault) => Err(fault),
        }
    }

    /// Whether `stream` has nothing left to do. Never blocks.
    pub(super) fn is_idle(&self, stream: StreamHandle) -> Result<bool, Fault> {
        // SAFETY: as in `record`.
        match self.relaxed(|| unsafe { self.driver.stream_query((stream,)) }) {
            Ok(()) => Ok(true),
            Err(fault) if fault.code() == Some(NOT_READY) => Ok(false),
            Err(fault) => Err(fault),
        }
    }

    /// Blocks until `event` is complete.
    pub(super) fn synchronize(&self, event: EventHandle) -> Result<(), Fault> {
        // SAFETY: as in `record`.
        self.relaxed(|| unsafe { self.driver.event_synchronize((event,)) })
    }

    /// Milliseconds, as the driver gives them; `Ok(None)` while one of the two is pending.
    pub(super) fn elapsed(
        &self,
        start: EventHandle,
        end: EventHandle,
    ) -> Result<Option<f32>, Fault> {
        self.check_alive()?;
        let mut time = 0.0;
        // SAFETY: as in `record`; `time` is one float.
        match self.relaxed(|| unsafe { self.driver.event_elapsed((&raw mut time, start, end)) }) {
            Ok(()) => Ok(Some(time)),
            Err(fault) if fault.code() == Some(NOT_READY) => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// A closed gate.
    pub(crate) fn take_gate(&self) -> Result<HostGate, Fault> {
        let mut gates = lock(&self.gates);
        if gates.is_empty() {
            let (host, device) = self.pinned(PAGE)?;
            gates.extend((0..PAGE / 4).map(|i| HostGate {
                host: host + i * 4,
                device: device + i as u64 * 4,
                opens_at: 0,
            }));
        }
        let mut gate = gates.pop().ok_or(Fault::Missing("page-locked memory"))?;
        gate.opens_at = gate.opens_at.wrapping_add(1);
        Ok(gate)
    }

    /// Lets the stream that waits for the gate go on, and takes the gate back.
    pub(crate) fn open(&self, gate: HostGate) {
        // SAFETY: aligned, part of a page that is never freed, and written by nobody else: a gate
        // has one holder, and the device only reads it.
        let cell = unsafe { AtomicU32::from_ptr(gate.host as *mut u32) };
        cell.store(gate.opens_at, StdOrdering::Release);
        lock(&self.gates).push(gate);
    }

    /// Takes back a gate that nobody waits for.
    pub(crate) fn unused(&self, gate: HostGate) {
        self.open(gate);
    }

    /// Holds `stream` until `gate` is opened.
    pub(crate) fn wait_gate(&self, stream: StreamHandle, gate: HostGate) -> Result<(), Fault> {
        // SAFETY: the address is device-visible page-locked memory that is never freed.
        // CU_STREAM_WAIT_VALUE_GEQ is 0, and compares cyclically.
        unsafe {
            self.driver
                .stream_wait_value((stream, gate.device, gate.opens_at, 0))
        }
    }

    /// Zeroed page-locked memory that the device sees: its addresses for the host and the device.
    /// Never freed.
    pub(crate) fn pinned(&self, bytes: usize) -> Result<(usize, u64), Fault> {
        let (mut host, mut device): (*mut c_void, u64) = (std::ptr::null_mut(), 0);
        self.current(|| {
            // CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP: for streams of every context.
            // SAFETY: `host` is one pointer.
            unsafe { self.driver.host_alloc((&raw mut host, bytes, 0b11)) }?;
            // SAFETY: `device` is one device pointer; `host` was just allocated and mapped.
            unsafe { self.driver.host_pointer((&raw mut device, host, 0)) }
        })?;
        // SAFETY: freshly allocated, of that many bytes, and known to nobody else yet.
        unsafe { host.cast::<u8>().write_bytes(0, bytes) };
        Ok((host as usize, device))
    }

    /// Whatever ends with the context, from now on.
    pub(super) fn add_device(&self, device: Weak<dyn Lose>) {
        let mut devices = lock(&self.devices);
        devices.retain(|device| device.strong_count() > 0);
        devices.push(device);
    }

    /// The error of everything in a context that has died.
    pub(super) fn lost(&self) -> Option<Error> {
        self.dead.get().map(|cause| Error::DeviceLost {
            device: self.name.clone(),
            cause: cause.clone(),
        })
    }

    /// The driver calls the marker at `value` complete, and with it those before: so they are, up
    /// to the first wait for something that has failed. Fires waiters; call it without any lock.
    #[inline]
    pub(super) fn complete(&self, timeline: &Timeline, value: u64) {
        match self.upstreams.failed(timeline.stream.id, value) {
            None => timeline.advance(value).fire(),
            Some(failed) => {
                timeline.advance(failed.after).fire();
                let cause = Cause::of(&failed.error).through(failed.marker);
                timeline.fail(&cause, false).fire();
            }
        }
    }

    /// What a fault met at a marker or stream of `timeline` is to the caller. One that ends the
    /// context fails all of its streams, with the first such fault as their cause. Call it without
    /// any lock.
    pub(crate) fn failed(&self, fault: Fault, timeline: Option<&Timeline>) -> Error {
        if self.is_forked() {
            return Error::Forked {
                device: self.name.clone(),
            };
        }
        if fault.meaning() != Meaning::Fatal {
            return self.driver.error(fault, &self.name);
        }
        let mut first = false;
        let cause = self.dead.get_or_init(|| {
            first = true;
            Cause::new(self.driver.describe(fault))
        });
        let devices: Vec<_> = lock(&self.devices)
            .iter()
            .filter_map(Weak::upgrade)
            .collect();
        for device in devices {
            device.lose(cause);
        }
        if first {
            diagnostics::device_lost(&self.name, cause);
        }
        if let Some(timeline) = timeline {
            timeline.fail(cause, true).fire();
        }
        Error::DeviceLost {
            device: self.name.clone(),
            cause: cause.clone(),
        }
    }
}

const PAGE: usize = 4096;
const STREAMS_TO_ASK: usize = 4;

/// The watcher's thread asks events while anybody may be capturing.
fn prepare_watcher() {
    if let Ok(driver) = Driver::get() {
        let mut mode = RELAXED;
        // SAFETY: `mode` is an int.
        let _ = unsafe { driver.exchange_capture_mode((&raw mut mode,)) };
    }
}
