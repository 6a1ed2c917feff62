//! One OpenCL context and one device of it: its calls, its gates and its watcher.
//!
//! **Each device of a context has a [`Context`] of its own.** They share the `cl_context`, whose
//! events all of its devices may wait for.
//!
//! **A context is never released.** There are as many as devices, and a few more where the caller
//! brings some. So a handle names the same context for as long as the process lives, and markers
//! and streams borrow it for ever.

use std::{
    ffi::c_void,
    sync::{Arc, OnceLock},
    time::Duration,
};

#[cfg(feature = "conformance")]
use super::loader::KernelHandle;
use super::{
    event::{COMPLETE, ClEvent, Events},
    fault::{Fault, Status, check},
    gates::{Gates, HostGate},
    loader::{
        ContextHandle, DeviceHandle, EventHandle, Loader, MemoryHandle, PROFILING, QueueHandle, ask,
    },
    loss::ContextLoss,
    watched::{Callbacks, Watch},
};
use crate::{
    clock::Clock,
    core::DeviceCore,
    error::{Error, Result},
    sync::{Mutex, lock},
    watcher::Watcher,
    workers::{CallbackQueue, Pool},
};

pub(crate) struct Context {
    pub(crate) loader: &'static Loader,
    pub(crate) raw: ContextHandle,
    pub(crate) device: DeviceHandle,
    pub(crate) name: String,
    pub(super) model: String,
    pub(super) uuid: Option<[u8; 16]>,
    pub(super) clock: Clock,
    pub(super) callbacks: Arc<CallbackQueue>,
    pub(super) events: Events,
    pub(super) gates: Gates,
    pub(super) watcher: Watcher<Watch, Callbacks>,
    /// Whether the timer of the device counts on the clock of its profiling times.
    pub(super) has_timer: OnceLock<bool>,
    /// Memory that is larger than the device's last cache; made when it is first asked for.
    larger_than_cache: Mutex<Option<(MemoryHandle, usize)>>,
}

/// `CL_QUEUE_OUT_OF_ORDER_EXEC_MODE_ENABLE`.
pub(super) const OUT_OF_ORDER: u64 = 1;
/// `CL_QUEUE_ON_DEVICE`.
pub(super) const ON_DEVICE: u64 = 4;

impl Context {
    /// Lives as long as the process. `raw` is retained for it.
    pub(super) fn new(
        loader: &'static Loader,
        raw: ContextHandle,
        device: DeviceHandle,
        name: String,
    ) -> &'static Context {
        let model = loader.text(device, ask::DEVICE_NAME);
        // The clock names the device, so that every report tells what it was measured on.
        let clock = format!("OpenCL profiling of {model}");
        let stated = loader.fact(device, ask::DEVICE_TIMER_RESOLUTION, 0_usize);
        let resolution = Duration::from_nanos(stated.unwrap_or(0).max(1) as u64);
        let clock = Clock::learning(clock, 1.0, 64, resolution, 1).kept_for_ever();
        let loss = ContextLoss::new(loader, raw, device, name.clone());
        // OpenCL 2.1 brought the call for it.
        let has_timer = match loader.version_of(device) < Some((2, 1)) {
            true => OnceLock::from(false),
            false => OnceLock::new(),
        };
        Box::leak(Box::new(Context {
            loader,
            raw,
            device,
            name,
            model,
            uuid: loader.fact(device, ask::DEVICE_UUID, [0_u8; 16]).ok(),
            clock,
            callbacks: Arc::new(CallbackQueue::new(Arc::new(Pool::new(1)))),
            events: Events::new(loader, loss),
            gates: Gates::new(loader, raw),
            watcher: Watcher::new("fencepost-opencl", Callbacks::new()),
            has_timer,
            larger_than_cache: Mutex::new(None),
        }))
    }

    pub(super) fn device_core(&self) -> Arc<DeviceCore> {
        DeviceCore::new(
            self.name.clone(),
            self.clock.clone(),
            self.callbacks.clone(),
        )
    }

    /// Whether this process was forked from the one that opened the context.
    pub(crate) fn is_forked(&self) -> bool {
        self.events.is_forked()
    }

    /// An error in a process forked from the one that opened the context, where the driver must not
    /// be called.
    pub(crate) fn check_fork(&self) -> Result<()> {
        match self.is_forked() {
            false => Ok(()),
            true => Err(Error::Forked {
                device: self.name.clone(),
            }),
        }
    }

    /// Whether the context is lost, and what fails with it.
    pub(super) fn loss(&self) -> &ContextLoss {
        &self.events.loss
    }

    /// An error in a forked child, and once the context is lost.
    pub(super) fn check_usable(&self) -> Result<()> {
        self.check_fork()?;
        self.loss().lost().map_or(Ok(()), Err)
    }

    /// The error for the caller of a faulted call. Call it without any lock: a context that is lost
    /// fails its streams.
    pub(crate) fn failed(&self, fault: Fault) -> Error {
        match self.check_fork() {
            Ok(()) => self.loss().error(fault),
            Err(forked) => forked,
        }
    }

    /// A new in-order queue with profiling.
    pub(crate) fn new_queue(&self) -> Result<QueueHandle, Fault> {
        self.queue_with(PROFILING)
    }

    pub(crate) fn queue_with(&self, properties: u64) -> Result<QueueHandle, Fault> {
        self.loader.new_queue(self.raw, self.device, properties)
    }

    /// A marker behind everything on `queue`. It is not submitted yet.
    #[inline]
    pub(super) fn mark(&'static self, queue: QueueHandle) -> Result<ClEvent, Fault> {
        self.event_of(|out| {
            // SAFETY: the queue is alive, as its owner promises; `out` is for one handle.
            unsafe { self.loader.marker(queue, 0, std::ptr::null(), out) }
        })
    }

    /// The event of what `submit` submits, which stores its handle.
    fn event_of(
        &'static self,
        submit: impl FnOnce(*mut EventHandle) -> Result<(), Fault>,
    ) -> Result<ClEvent, Fault> {
        let mut raw = EventHandle::NULL;
        submit(&raw mut raw)?;
        Ok(ClEvent::new(&self.events, raw))
    }

    /// Makes later work of `queue` run after `event`, which is of this `cl_context`. The result is
    /// the event of that barrier.
    pub(super) fn barrier(
        &'static self,
        queue: QueueHandle,
        event: EventHandle,
    ) -> Result<ClEvent, Fault> {
        let mut raw = EventHandle::NULL;
        // SAFETY: the queue is alive, as its owner promises, and so is the event: the caller holds
        // its owner.
        unsafe {
            self.loader
                .barrier(queue, 1, &raw const event, &raw mut raw)
        }?;
        Ok(ClEvent::of_wait(&self.events, raw))
    }

    /// As [`flush`](Loader::flush), for a queue that its owner keeps alive.
    pub(crate) fn flush(&self, queue: QueueHandle) -> Result<(), Fault> {
        // SAFETY: the queue is alive.
        unsafe { self.loader.flush(queue) }
    }

    /// Lets a stream go on. Call it without any lock: the driver may run work and callbacks in it.
    pub(crate) fn open_gate(&self, gate: HostGate) {
        if !self.is_forked() {
            self.gates.open(gate);
        }
    }

    /// What the device's timer counts now, on the clock of its profiling times. Only where
    /// [`has_timer`](Context::has_timer) is not known to be false.
    pub(super) fn timer(&self) -> Result<u64, Fault> {
        let (mut device, mut host) = (0, 0);
        // SAFETY: both are u64s.
        unsafe {
            self.loader
                .device_and_host_timer(self.device, &raw mut device, &raw mut host)
        }?;
        Ok(device)
    }

    /// Has the watcher look again once `event` is over, where the driver calls back.
    pub(super) fn call_back(&'static self, event: EventHandle) {
        let data = std::ptr::from_ref(self).cast_mut().cast();
        // SAFETY: the event is alive; the function takes a context, which is never freed.
        // A driver that refuses is asked by the watcher all the same.
        let _ = unsafe {
            self.loader
                .event_callback(event, COMPLETE, called_back, data)
        };
    }

    /// Memory of twice the size of the device's last cache; `None` where the driver does not tell
    /// that.
    pub(super) fn larger_than_cache(&self) -> Result<Option<(MemoryHandle, usize)>, Fault> {
        let told = self
            .loader
            .fact(self.device, ask::DEVICE_CACHE_BYTES, 0_u64);
        let cache = usize::try_from(told.unwrap_or(0)).unwrap_or(0);
        if cache == 0 {
            return Ok(None);
        }
        if let Some(made) = *lock(&self.larger_than_cache) {
            return Ok(Some(made));
        }
        let bytes = (cache * 2).next_multiple_of(4);
        let memory = self.new_memory(bytes)?;
        let mut known = lock(&self.larger_than_cache);
        if let Some(made) = *known {
            drop(known);
            self.release_memory(memory);
            return Ok(Some(made));
        }
        *known = Some((memory, bytes));
        Ok(*known)
    }

    /// Memory of the device.
    pub(crate) fn new_memory(&self, bytes: usize) -> Result<MemoryHandle, Fault> {
        /// `CL_MEM_READ_WRITE`.
        const READ_WRITE: u64 = 1;
        let mut code = 0;
        // SAFETY: the context is retained; there is no host memory.
        let memory = unsafe {
            self.loader.create_buffer(
                self.raw,
                READ_WRITE,
                bytes,
                std::ptr::null_mut(),
                &raw mut code,
            )
        }?;
        check("clCreateBuffer", code)?;
        Ok(MemoryHandle(memory))
    }

    pub(crate) fn release_memory(&self, memory: MemoryHandle) {
        if !self.is_forked() {
            // SAFETY: ours, and its last owner has let go; the driver frees it once no command
            // uses it.
            let _ = unsafe { self.loader.release_memory(memory) };
        }
    }

    /// Writes zeros over memory of this context. The result is the event of that.
    pub(super) fn fill(
        &'static self,
        queue: QueueHandle,
        memory: MemoryHandle,
        bytes: usize,
    ) -> Result<ClEvent, Fault> {
        let zero = 0_u32;
        let pattern = (&raw const zero).cast();
        let (size, list) = (size_of::<u32>(), std::ptr::null());
        self.event_of(|out| {
            // SAFETY: the queue and the memory are alive; the driver copies the pattern in the
            // call; `out` is for one handle.
            unsafe {
                self.loader
                    .fill(queue, memory, pattern, size, 0, bytes, 0, list, out)
            }
        })
    }
}

/// For the work of tests.
#[cfg(feature = "conformance")]
impl Context {
    /// Work on `queue` that is pending until the result is called with its status.
    pub(crate) fn pending_work(
        &'static self,
        queue: QueueHandle,
    ) -> Result<impl FnOnce(Status) + Send + use<>, Fault> {
        let mut code = 0;
        // SAFETY: the context is retained.
        let event = unsafe { self.loader.create_user_event(self.raw, &raw mut code) }?;
        check("clCreateUserEvent", code)?;
        let event = EventHandle(event);
        self.barrier(queue, event)?;
        self.flush(queue)?;
        Ok(move |status| {
            // SAFETY: the event is alive, and was never set before.
            let _ = unsafe { self.loader.set_user_event(event, status) };
            // SAFETY: ours, and not used any more.
            let _ = unsafe { self.loader.release_event(event) };
        })
    }

    /// Writes zeros over memory of this context.
    pub(crate) fn clear(
        &'static self,
        queue: QueueHandle,
        memory: MemoryHandle,
        bytes: usize,
    ) -> Result<(), Fault> {
        self.fill(queue, memory, bytes).map(drop)
    }

    /// Copies `bytes` bytes from the host's memory.
    pub(crate) fn write(
        &'static self,
        queue: QueueHandle,
        memory: MemoryHandle,
        from: *const c_void,
        bytes: usize,
    ) -> Result<(), Fault> {
        let list = std::ptr::null();
        let event = self.event_of(|out| {
            // SAFETY: queue and memory are alive; the host's memory is of that size, and is there
            // until the copy is done, as the callers see to; `out` is for one handle.
            unsafe {
                self.loader
                    .write(queue, memory, 0, 0, bytes, from, 0, list, out)
            }
        });
        event.map(drop)
    }

    /// Launches a kernel of one dimension, whose arguments are set.
    pub(crate) fn launch(
        &'static self,
        queue: QueueHandle,
        kernel: KernelHandle,
        (items, group): (usize, usize),
    ) -> Result<(), Fault> {
        let (offset, items, group) = (std::ptr::null(), &raw const items, &raw const group);
        let list = std::ptr::null();
        let event = self.event_of(|out| {
            // SAFETY: queue and kernel are alive, and so is the memory until the kernel has run, as
            // the callers see to; all counts are of one dimension; `out` is for one handle.
            unsafe {
                self.loader
                    .launch(queue, kernel, 1, offset, items, group, 0, list, out)
            }
        });
        event.map(drop)
    }

    /// Copies `bytes` bytes to the host's memory. Blocks until that is done.
    pub(crate) fn read(
        &self,
        queue: QueueHandle,
        memory: MemoryHandle,
        to: *mut c_void,
        bytes: usize,
    ) -> Result<(), Fault> {
        let (list, out) = (std::ptr::null(), std::ptr::null_mut());
        // SAFETY: as in `write`.
        unsafe {
            self.loader
                .read(queue, memory, 1, 0, bytes, to, 0, list, out)
        }
    }
}

/// What drivers call, on any thread, perhaps inside of a call of ours: it hands over to the
/// watcher.
extern "system" fn called_back(_: EventHandle, _: Status, data: *mut c_void) {
    // SAFETY: the address that `call_back` gave, of a context that is never freed.
    let context = unsafe { &*data.cast_const().cast::<Context>() };
    if !context.is_forked() {
        context.watcher.sleeper().called_back();
        context.watcher.look_again();
    }
}
