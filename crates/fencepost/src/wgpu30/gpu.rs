//! One device of wgpu's: its facts, what watches it, and what ended it. Knows its streams and what
//! is watched by traits only.
//!
//! A device ends in two ways. It is *lost* when its driver says so: then every stream has failed.
//! It is *closed* when wgpu takes no more submits of it, after `Device::destroy` or a loss that
//! wgpu saw: then what was submitted before still completes.

use std::{
    future::Future,
    mem::ManuallyDrop,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{Arc, Weak},
    task::{Context, Poll, Waker},
    time::Duration,
};

#[cfg(not(target_vendor = "apple"))]
use super::vulkan::{self, Fault, HalQueue, Table};
use super::{
    exit,
    signal::{Signal, Told},
    slots::Slots,
    watcher::{Sleeper, Watch},
};
use crate::{
    clock::Clock,
    contract::{Backend, StreamImpl},
    core::{DeviceCore, Loss},
    error::{Cause, Error, Result},
    fork::{Lasting, Process},
    lost::{Loses, Lost},
    panics::{discard, text_of},
    sync::{AtomicBool, Ordering},
    watcher::Watcher,
    workers::{CallbackQueue, Pool},
};

/// A stream, as its device knows it.
pub(super) trait GpuStream: StreamImpl + Loses {}

pub(crate) struct Gpu {
    pub(crate) device: ManuallyDrop<wgpu::Device>,
    pub(crate) core: Arc<DeviceCore>,
    #[cfg(not(target_vendor = "apple"))]
    table: Option<Arc<Table>>,
    #[cfg(target_vendor = "apple")]
    polls: bool,
    /// Those of the device, which is dear to ask.
    features: wgpu::Features,
    /// The length of a tick in nanoseconds, where the clock wraps and wgpu gives nanoseconds in
    /// place of ticks (`InstanceFlags::AUTOMATIC_TIMESTAMP_NORMALIZATION`).
    normalised: Option<f32>,
    pub(super) slots: Slots,
    watcher: Watcher<Box<dyn Watch>, Sleeper>,
    lost: Lost<dyn GpuStream>,
    closed: Loss,
    /// Whether the process is ending, and its driver may be taken apart.
    exiting: AtomicBool,
    /// The last of the fields.
    destroyed: exit::Destroyed,
}

/// An error in a process that was forked after the first use: its driver stays with the parent.
fn check_fork() -> Result<()> {
    static CALLER: Lasting<Process> = Lasting::new();
    match CALLER.get_or_make(Process::this).is_this() {
        true => Ok(()),
        false => Err(Error::Forked {
            device: Backend::Wgpu30.name().into(),
        }),
    }
}

impl Gpu {
    /// `polls` has it go without signals of ours, as on APIs that have none.
    pub(super) fn new(device: &wgpu::Device, queue: &wgpu::Queue, polls: bool) -> Result<Arc<Gpu>> {
        check_fork()?;
        let info = device.adapter_info();
        #[cfg(not(target_vendor = "apple"))]
        if !vulkan::belong_together(device, queue) {
            return Err(Error::DeviceMismatch {
                call: "fencepost::wgpu30::stream",
                left: format!("a wgpu::Device on {}", info.name),
                right: "a wgpu::Queue of another".into(),
            });
        }
        #[cfg(not(target_vendor = "apple"))]
        let table = Table::of(device).map_err(|fault| fault.error())?;
        #[cfg(not(target_vendor = "apple"))]
        let table = table.filter(|_| !polls);
        #[cfg(not(target_vendor = "apple"))]
        let bits = table.as_ref().map_or(64, |table| table.valid_bits);
        #[cfg(target_vendor = "apple")]
        let bits = 64;
        let shown = queue.get_timestamp_period();
        #[cfg(not(target_vendor = "apple"))]
        let tick = HalQueue::of(queue).map_or(shown, |queue| queue.tick());
        #[cfg(target_vendor = "apple")]
        let tick = shown;
        let normalised = (bits < 64 && tick != shown).then_some(tick);
        let period = f64::from(normalised.unwrap_or(shown));
        let clock = Clock::learning(
            format!("wgpu timestamps of {}", info.name),
            period,
            bits,
            Duration::from_nanos(period.ceil().max(1.0) as u64),
            1,
        );
        let callbacks = Arc::new(CallbackQueue::new(Arc::new(Pool::new(1))));
        let name = format!("wgpu30 ({})", info.name);
        let core = DeviceCore::new(name.clone(), clock, callbacks);
        #[cfg(not(target_vendor = "apple"))]
        let sleeper = Sleeper::new(table.clone()).map_err(|fault| fault.error())?;
        #[cfg(target_vendor = "apple")]
        let sleeper = Sleeper::new();
        let gpu = Arc::new(Gpu {
            device: ManuallyDrop::new(device.clone()),
            core,
            #[cfg(not(target_vendor = "apple"))]
            table,
            #[cfg(target_vendor = "apple")]
            polls,
            features: device.features(),
            normalised,
            slots: Slots::new(),
            watcher: Watcher::new("fencepost-wgpu", sleeper),
            lost: Lost::new(name),
            closed: Loss::new(),
            exiting: AtomicBool::new(false),
            destroyed: exit::Destroyed::not_yet(),
        });
        let leaves: Weak<dyn exit::Leave> = Arc::<Gpu>::downgrade(&gpu);
        exit::leave_at_exit(leaves, &gpu.destroyed);
        Ok(gpu)
    }

    pub(super) fn name(&self) -> &str {
        &self.core.name
    }

    /// What a new stream's submits raise.
    #[cfg(not(target_vendor = "apple"))]
    pub(super) fn signal(&self) -> Result<Signal> {
        match &self.table {
            Some(table) => {
                let timeline = table.timeline().map_err(|fault| self.failed(&fault))?;
                Ok(Signal::Semaphore(timeline))
            }
            None => Ok(Signal::Told(Told::new())),
        }
    }

    /// What a new stream's submits raise.
    #[cfg(target_vendor = "apple")]
    pub(super) fn signal(&self) -> Result<Signal> {
        match super::metal::Event::new(&self.device) {
            Some(event) if !self.polls => Ok(Signal::Event(event)),
            _ => Ok(Signal::Told(Told::new())),
        }
    }

    /// The `VkDevice`, where wgpu is on Vulkan.
    #[cfg(all(feature = "vulkan", not(target_vendor = "apple")))]
    pub(super) fn vulkan_handle(&self) -> Option<ash::vk::Device> {
        self.table.as_ref().map(|table| table.handle())
    }

    /// See [`Lost::add`].
    pub(super) fn add_stream(&self, stream: &Arc<dyn GpuStream>) {
        self.lost.add(stream);
    }

    pub(super) fn streams(&self) -> Vec<Arc<dyn GpuStream>> {
        self.lost.streams()
    }

    pub(super) fn watch(&self, watch: impl Watch) -> Result<()> {
        self.watcher.watch(Box::new(watch))?;
        exit::used();
        Ok(())
    }

    /// Has the watcher look at all markers that it watches: some may have failed by now.
    pub(super) fn look_again(&self) {
        if !self.is_gone() {
            self.watcher.look_again();
        }
    }

    /// Whether the driver must not be called: in a forked child, and when the process is ending.
    /// Drops then destroy nothing.
    pub(super) fn is_gone(&self) -> bool {
        self.exiting.load(Ordering::Acquire) || !self.core.process.is_this()
    }

    /// Has wgpu look what is complete, and call the callbacks that are due. Never waits. A panic of
    /// a callback that is not ours ends here: the panic hook has told of it.
    pub(super) fn poll(&self) -> Result<wgpu::PollStatus> {
        /// How wgpu's panic begins when it finds the device lost.
        const LOST: &str = "Error in Device::poll";
        let poll = || self.device.poll(wgpu::PollType::Poll);
        let payload = match catch_unwind(AssertUnwindSafe(poll)) {
            Ok(polled) => return Ok(polled.unwrap_or(wgpu::PollStatus::Poll)),
            Err(payload) => payload,
        };
        let text = text_of(&*payload);
        discard(payload);
        match text.starts_with(LOST) {
            true => Err(self.lose(|| Cause::new(text))),
            false => Ok(wgpu::PollStatus::Poll),
        }
    }

    /// Calls `make`, whose errors come back from here instead of ending up with the caller's
    /// handler, or in a panic where there is none. `call` is what such an error names.
    ///
    /// A scope takes 1,260 of the 30,000 instructions of a timed record. So there is none for
    /// internal errors, which wgpu has of pipelines only: nothing but a test makes one here.
    pub(crate) fn scoped<R>(&self, call: &'static str, make: impl FnOnce() -> R) -> Result<R> {
        let filters = [
            wgpu::ErrorFilter::OutOfMemory,
            wgpu::ErrorFilter::Validation,
        ];
        let scopes = filters.map(|filter| self.device.push_error_scope(filter));
        let made = catch_unwind(AssertUnwindSafe(make));
        // The last one pushed is popped first.
        let errors = scopes
            .into_iter()
            .rev()
            .filter_map(|scope| now(scope.pop()));
        let error = errors.last().map(|error| error.to_string());
        let text = match made {
            Ok(made) if error.is_none() => return Ok(made),
            Ok(_) => error.unwrap_or_default(),
            Err(payload) => {
                let text = text_of(&*payload);
                discard(payload);
                text
            }
        };
        Err(Error::Backend {
            call,
            code: -1,
            text: text.split_whitespace().collect::<Vec<_>>().join(" "),
        })
    }

    /// An error unless the device has what timing takes: inside of encoders, or around passes.
    pub(super) fn check_timing(&self, in_encoders: bool) -> Result<()> {
        if !self.features.contains(wgpu::Features::TIMESTAMP_QUERY) {
            return Err(self.no_timing("TIMESTAMP_QUERY"));
        }
        let inside = wgpu::Features::TIMESTAMP_QUERY_INSIDE_ENCODERS;
        if in_encoders && !self.features.contains(inside) {
            return Err(self.no_timing("TIMESTAMP_QUERY_INSIDE_ENCODERS"));
        }
        Ok(())
    }

    /// The ticks behind what a query was resolved to. Nanoseconds would wrap at no power of two.
    pub(super) fn ticks(&self, resolved: u64) -> u64 {
        match self.normalised {
            Some(tick) => ticks_of(resolved, tick),
            None => resolved,
        }
    }

    pub(super) fn no_timing(&self, feature: &str) -> Error {
        Error::Unsupported {
            what: format!("timing without wgpu::Features::{feature}"),
            device: self.core.name.clone(),
            remedy: format!(
                "name {feature} in the required_features of the wgpu::DeviceDescriptor, where the \
                 adapter has it"
            ),
        }
    }

    /// The error of every call, once the device is lost or closed.
    pub(super) fn ended(&self) -> Option<Error> {
        self.lost().or_else(|| self.closed.error(self.name()))
    }

    /// The error of every call, once the device is lost.
    pub(super) fn lost(&self) -> Option<Error> {
        self.lost.error()
    }

    /// See [`Lost::check`].
    pub(super) fn check_loss(&self, stream: &dyn GpuStream) -> Result<()> {
        self.lost.check(stream)
    }

    /// Why a submit was refused. Later ones will be, too.
    #[cold]
    pub(super) fn refused(&self) -> Cause {
        let why = "wgpu takes no more submits of this device: it was destroyed, or lost before; \
                   the device's lost callback tells which";
        let error = match self.lost() {
            Some(lost) => lost,
            None => {
                let cause = || Cause::new(why);
                self.closed.declare(self.name(), cause, |_| ())
            }
        };
        Cause::of(&error)
    }

    /// The device is lost, by `cause` if nothing was its cause before: every stream fails. Call it
    /// without any lock.
    #[cold]
    pub(super) fn lose(&self, cause: impl FnOnce() -> Cause) -> Error {
        self.lost.declare(cause)
    }

    /// The error of a call that the driver refused. A loss fails every stream. Call it without any
    /// lock.
    #[cfg(not(target_vendor = "apple"))]
    #[cold]
    pub(super) fn failed(&self, fault: &Fault) -> Error {
        if let Err(forked) = self.core.check_fork() {
            return forked;
        }
        if fault.result != ash::vk::Result::ERROR_DEVICE_LOST {
            return fault.error();
        }
        self.lose(|| {
            Cause::new(format!(
                "{} said that the device is lost: a fault of the work on it, or of its driver",
                fault.call
            ))
        })
    }

    /// The error of holding a stream for the host.
    pub(super) fn cannot_hold(&self) -> Error {
        Error::Unsupported {
            what: "holding a stream for the host: wgpu chains its submits by binary semaphores, \
                   and one that waits for a signal that is not submitted yet is invalid"
                .into(),
            device: self.core.name.clone(),
            remedy: "wait on the host before you submit, or let a host stream wait for wgpu".into(),
        }
    }
}

impl exit::Leave for Gpu {
    fn is_gone(&self) -> bool {
        self.is_gone()
    }

    fn leave(&self) -> bool {
        self.watcher.leave()
    }

    fn exit(&self) {
        self.exiting.store(true, Ordering::Release);
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        self.watcher.close();
        if self.is_gone() {
            self.slots.forget();
            return;
        }
        self.watcher.sleeper().destroy();
        // SAFETY: dropped once, here, and not used after.
        unsafe { ManuallyDrop::drop(&mut self.device) };
    }
}

/// The first number of ticks, each `tick` nanoseconds long, that makes this number of whole
/// nanoseconds.
fn ticks_of(nanoseconds: u64, tick: f32) -> u64 {
    // With this many binary places the length is exact down to 15 ps, and nothing overflows.
    const PLACES: u32 = 40;
    let tick = (f64::from(tick) * (1_u64 << PLACES) as f64) as u128;
    (u128::from(nanoseconds) << PLACES).div_ceil(tick.max(1)) as u64
}

/// What a future of wgpu's gives, which is ready at once but in browsers.
fn now<T>(future: impl Future<Output = Option<T>>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ticks_come_back_from_the_nanoseconds_that_wgpu_made_of_them() {
        for tick in [83.333_f32, 52.083_332, 10.0, 1.5] {
            for ticks in [0, 1, 2, 12_345, (1 << 36) - 1, (1 << 50) + 7] {
                // As wgpu's shader: times a fraction that is the f32 exactly, rounded down.
                let exact = (f64::from(tick) * (1_u64 << 30) as f64) as u128;
                let nanoseconds = (u128::from(ticks) * exact) >> 30;
                assert_eq!(ticks_of(nanoseconds as u64, tick), ticks, "{tick} ns");
            }
        }
    }
}
