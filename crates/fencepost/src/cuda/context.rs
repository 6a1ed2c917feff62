//! One CUDA context: its pools, its host gates, its devices, its watcher, and the fault that ended
//! it.
//!
//! **A context is never freed.** There are as many as GPUs, and a few more where the caller brings
//! some. So markers and streams borrow it for ever, and the hot path counts no references.

use std::{
    any::Any,
    sync::{Arc, OnceLock},
    time::Duration,
};

use super::{
    cache::CacheMemory,
    calls::Calls,
    driver::{ContextHandle, Driver, RELAXED},
    fault::{Fault, Meaning},
    host_gates::HostGates,
    keeper::Kept,
    pools::Pools,
    upstreams::Upstreams,
    watched::Watch,
};
use crate::workers::{CallbackQueue, Pool};
use crate::{
    clock::Clock,
    core::DeviceCore,
    error::{Cause, Error, Result},
    lost::{Loses, Lost},
    timeline::Timeline,
    watcher::{Pauses, Watcher},
};

pub(crate) struct Context {
    pub(super) driver: &'static Driver,
    pub(crate) calls: Calls,
    pub(crate) name: String,
    /// The GPU's.
    pub(super) uuid: Option<[u8; 16]>,
    pub(super) clock: Clock,
    pub(super) callbacks: Arc<CallbackQueue>,
    pub(super) pools: Pools,
    pub(crate) gates: HostGates,
    pub(super) cache: CacheMemory,
    pub(super) watcher: Watcher<Watch, Pauses>,
    pub(super) upstreams: Upstreams,
    pub(super) kept: Kept,
    /// Nothing in it works once a fault has ended it.
    lost: Lost<dyn Loses>,
    /// What keeps it alive, where it is the caller's and is no primary one.
    pub(super) keep_alive: OnceLock<Arc<dyn Any + Send + Sync>>,
}

/// The error of the events, by the driver's reference of `cuEventElapsedTime`: about half a
/// microsecond. Finer steps are seen on hardware, of 32 ns on an H200.
const RESOLUTION: Duration = Duration::from_nanos(500);

/// In nanoseconds. Times are rounded to them, so that a clock whose steps are no whole number of
/// nanoseconds would seem to have finer ones.
const FINEST_STEP: u64 = 8;

impl Context {
    /// Lives as long as the process.
    pub(super) fn new(
        driver: &'static Driver,
        raw: ContextHandle,
        id: Option<u64>,
        name: String,
        model: Option<String>,
        uuid: Option<[u8; 16]>,
        cache: Option<usize>,
    ) -> &'static Context {
        // The clock names the GPU, so that every report tells what it was measured on: a stand-in's
        // name says that it is one.
        let clock = format!("CUDA events of {}", model.as_ref().unwrap_or(&name));
        let calls = Calls::new(driver, raw, id);
        Box::leak(Box::new(Context {
            driver,
            calls,
            clock: Clock::learning(clock, 1.0, 64, RESOLUTION, FINEST_STEP).kept_for_ever(),
            lost: Lost::new(name.clone()),
            name,
            uuid,
            callbacks: Arc::new(CallbackQueue::new(Arc::new(Pool::new(1)))),
            pools: Pools::new(calls),
            gates: HostGates::new(calls),
            cache: CacheMemory::new(calls, cache),
            watcher: Watcher::new(
                "fencepost-cuda",
                Pauses {
                    prepare: prepare_watcher,
                },
            ),
            upstreams: Upstreams::new(),
            kept: Kept::new(),
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

    /// See [`Lost::add`].
    pub(super) fn add_stream(&self, stream: &Arc<dyn Loses>) {
        self.lost.add(stream);
    }

    /// See [`Lost::check`].
    pub(super) fn check_loss(&self, stream: &dyn Loses) -> Result<()> {
        self.lost.check(stream)
    }

    /// An error in a process forked from the one that opened the context, where the driver must not
    /// be called.
    pub(crate) fn check_fork(&self) -> Result<()> {
        match self.calls.is_forked() {
            false => Ok(()),
            true => Err(Error::Forked {
                device: self.name.clone(),
            }),
        }
    }

    /// The error of everything in a context that has died.
    pub(super) fn lost(&self) -> Option<Error> {
        self.lost.error()
    }

    /// Completes the marker at `value`, as the driver says, and those before it; but only up to the
    /// first wait for something that has failed. Fires waiters: call it without any lock.
    #[inline]
    pub(super) fn complete(&self, timeline: &Timeline, value: u64) {
        match self.upstreams.failed(timeline, value) {
            None => timeline.advance(value).fire(),
            Some(failed) => {
                timeline.advance(failed.after).fire();
                let cause = Cause::of(&failed.error).through(failed.marker);
                timeline.fail(&cause, false).fire();
            }
        }
    }

    /// The error for the caller of a faulted call on a marker or stream of `timeline`. A fault that
    /// ends the context fails all of its streams, with the first such fault as their cause. Call it
    /// without any lock.
    pub(crate) fn failed(&self, fault: Fault, timeline: Option<&Timeline>) -> Error {
        if self.calls.is_forked() {
            return Error::Forked {
                device: self.name.clone(),
            };
        }
        if fault.meaning() != Meaning::Fatal {
            return self.driver.error(fault, &self.name);
        }
        let cause = || Cause::new(self.driver.describe(fault));
        let lost = self.lost.declare(cause);
        // That of a stream which is dropped is not found.
        if let Some(timeline) = timeline {
            timeline.fail(&Cause::of(&lost), true).fire();
        }
        lost
    }
}

/// Has the system end this thread's pauses when they are over. It may add 50 µs otherwise, which is
/// more than most of them last ([prctl](https://man7.org/linux/man-pages/man2/PR_SET_TIMERSLACK.2const.html)).
#[cfg(target_os = "linux")]
fn sharpen_pauses() {
    use std::ffi::{c_int, c_ulong};

    unsafe extern "C" {
        fn prctl(option: c_int, ...) -> c_int;
    }
    const PR_SET_TIMERSLACK: c_int = 29;
    let nanos: c_ulong = 1;
    // SAFETY: this option takes one unsigned long, and concerns the calling thread alone.
    unsafe { prctl(PR_SET_TIMERSLACK, nanos) };
}

#[cfg(not(target_os = "linux"))]
fn sharpen_pauses() {}

/// A thread of the library queries events while anybody may be capturing: in relaxed mode, a query
/// breaks no capture.
pub(super) fn prepare_watcher() {
    relax_capture();
    sharpen_pauses();
}

/// See [`prepare_watcher`].
pub(super) fn relax_capture() {
    if let Ok(driver) = Driver::get() {
        let mut mode = RELAXED;
        // SAFETY: `mode` is an int.
        let _ = unsafe { driver.exchange_capture_mode((&raw mut mode,)) };
    }
}
