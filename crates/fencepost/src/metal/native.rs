//! The Metal side of a stream: its queue, its shared event, and what was submitted to them.
//!
//! - **Each command buffer of a stream has an ordinal.** It begins by waiting until the stream's
//!   shared event has the ordinal before its own, and ends by signalling its own. Command buffers
//!   of one queue start in order but may overlap; this chain makes them run one after the other.
//! - **A marker is an ordinal.** Where nothing was submitted since the last command buffer, a
//!   marker without timing has that buffer's ordinal, and needs no buffer of its own.
//! - **A wait needs no command buffer either**: the next one begins with it.
//! - **The host learns of completion from completed handlers alone**, through the
//!   [`CompletionOrder`]. The event may reach a value before the command buffer has its status or
//!   end time, so the host never reads the value.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Instant,
};

use objc2::rc::Retained;
use objc2_metal::{
    MTLBlitCommandEncoder, MTLBuffer, MTLCommandBuffer, MTLCommandEncoder, MTLCommandQueue,
    MTLDevice, MTLResourceOptions,
};

use super::{
    completion_order::{CompletionOrder, Step},
    gpu::Gpu,
    handlers::{Ended, on_completed},
    objects::{CommandBuffer, Event, Object, nil},
    time::{EndTime, Submission},
    wakes::fire_all,
};
use crate::{
    core::Streams,
    epochs::{Counter, Epoch, HostGates},
    error::{Cause, Error, Result},
    exit::at_exit,
    fork::PerProcess,
    sync::{Mutex, lock},
    timeline::Wake,
};

/// How many uncompleted command buffers a stream may have on its own queue. Metal's default limit
/// is 64, and `commandBuffer` blocks there; what a larger one costs is undocumented.
pub(super) const MAX_UNCOMPLETED: usize = 1024;
/// The same on a queue of the caller's, who may have any number of command buffers there too.
pub(super) const MAX_ON_CALLERS_QUEUE: usize = 48;
/// Room in a queue beyond [`MAX_UNCOMPLETED`]: a completed handler may run a little before Metal
/// frees the place of its command buffer.
pub(super) const SLACK: usize = 64;

pub(crate) struct Native {
    pub(super) gpu: Arc<Gpu>,
    /// `None` for a reservation, whose command buffers are the caller's.
    queue: Option<Object<dyn MTLCommandQueue>>,
    pub(super) event: Event,
    order: CompletionOrder,
    /// Locked under the stream's submit lock only.
    pub(crate) next: Mutex<NextBuffer>,
    uncompleted: AtomicUsize,
    /// The limit on `uncompleted`.
    max_uncompleted: usize,
    /// The command buffers that the caller is encoding into: their addresses and ordinals.
    encoding: Mutex<Vec<(usize, u64)>>,
    /// The event that the stream waits for at host gates. Its value is the ticket of the last gate
    /// such that all gates up to it are open.
    gate_event: OnceLock<Event>,
    gates: HostGates,
    /// The buffer that the blits of timed markers write to.
    scratch: OnceLock<Object<dyn MTLBuffer>>,
}

/// What the stream's next command buffer waits for.
#[derive(Default)]
pub(crate) struct NextBuffer {
    /// The ordinal of the last command buffer, on the stream's own event.
    pub(super) last: u64,
    /// Other events, each once, with the largest value that was asked for.
    pub(super) waits: Vec<(Event, u64)>,
}

impl NextBuffer {
    pub(super) fn wait_for(&mut self, event: &Event, value: u64) {
        match self.waits.iter_mut().find(|(known, _)| known.is(event)) {
            Some((_, known)) => *known = value.max(*known),
            None => self.waits.push((event.clone(), value)),
        }
    }
}

/// A step in the completion order that is not over. Whoever owns it must call
/// [`finish`](PendingStep::finish). If it is dropped instead, the step has failed: else everything
/// behind it would wait for ever.
pub(crate) struct PendingStep {
    pub(super) native: Arc<Native>,
    ticket: u64,
    finished: bool,
    /// The events that its command buffer waits for. Metal promises that a command buffer keeps
    /// resources alive, and says nothing of events.
    _kept_alive: Vec<(Event, u64)>,
}

impl PendingStep {
    pub(crate) fn finish(mut self, result: Result<(), Cause>) {
        self.finished = true;
        self.native.finish(self.ticket, result);
    }
}

impl Drop for PendingStep {
    fn drop(&mut self) {
        if !self.finished && !self.native.gpu.is_forked() {
            let cause = "the command buffer or wait in front of this work was dropped before it \
                         completed";
            self.native.finish(self.ticket, Err(Cause::new(cause)));
        }
    }
}

/// Signals an ordinal from the host when its last owner drops it.
pub(super) struct SignalOnDrop {
    native: Arc<Native>,
    ordinal: u64,
}

impl Drop for SignalOnDrop {
    fn drop(&mut self) {
        if !self.native.gpu.is_forked() {
            self.native.event.signal_from_host(self.ordinal);
        }
    }
}

/// A queue with room for the command buffers of a stream.
pub(super) fn new_queue(gpu: &Gpu) -> Result<Object<dyn MTLCommandQueue>> {
    let room = MAX_UNCOMPLETED + SLACK;
    let queue = gpu.device.newCommandQueueWithMaxCommandBufferCount(room);
    let queue = queue.ok_or_else(|| {
        let remedy = "drop streams, of which each has a queue";
        nil("MTLDevice.newCommandQueueWithMaxCommandBufferCount", remedy)
    })?;
    Ok(Object::new(queue))
}

impl Native {
    /// For a stream on `queue`; without one, for a marker in command buffers of the caller's.
    pub(super) fn new(
        gpu: &Arc<Gpu>,
        queue: Option<Object<dyn MTLCommandQueue>>,
        max_uncompleted: usize,
    ) -> Result<Arc<Native>> {
        Ok(Arc::new(Native {
            event: gpu.new_event()?,
            gpu: gpu.clone(),
            queue,
            order: CompletionOrder::new(),
            next: Mutex::new(NextBuffer::default()),
            uncompleted: AtomicUsize::new(0),
            max_uncompleted,
            encoding: Mutex::new(Vec::new()),
            gate_event: OnceLock::new(),
            gates: HostGates::new(),
            scratch: OnceLock::new(),
        }))
    }

    pub(super) fn submission(&self, ordinal: u64, end_time: Option<Arc<EndTime>>) -> Submission {
        Submission {
            ordinal,
            end_time,
            clock: self.gpu.core.clock.clone(),
        }
    }

    /// A command buffer that runs behind everything submitted so far. It gets its place in the
    /// order by [`place`](Native::place), and until then it may be dropped. Call it under the
    /// submit lock, in an autorelease pool. Never blocks: where too many command buffers are
    /// uncompleted, it is an error.
    pub(super) fn new_buffer(&self, next: &NextBuffer) -> Result<Retained<CommandBuffer>> {
        let pending = self.uncompleted.load(Ordering::Acquire);
        if pending >= self.max_uncompleted {
            return Err(Error::WouldBlock {
                stream: self.gpu.core.name.clone(),
                pending,
            });
        }
        let buffer = self.queue.as_ref().and_then(|queue| queue.commandBuffer());
        let buffer = buffer.ok_or_else(|| {
            nil(
                "MTLCommandQueue.commandBuffer",
                "free memory, or see whether the device is still there",
            )
        })?;
        if next.last > 0 {
            self.event.encode_wait(&buffer, next.last);
        }
        for (event, value) in &next.waits {
            event.encode_wait(&buffer, *value);
        }
        Ok(buffer)
    }

    /// Gives a command buffer its ordinal and its place in the completion order, behind the marker
    /// `before`. Call it under the submit lock.
    pub(super) fn place(
        self: &Arc<Self>,
        next: &mut NextBuffer,
        epoch: &Arc<Epoch>,
        before: u64,
    ) -> (u64, PendingStep) {
        next.last += 1;
        self.uncompleted.fetch_add(1, Ordering::AcqRel);
        let ordinal = next.last;
        let mut step = self.push(epoch, Step::Buffer { ordinal, before });
        step._kept_alive = std::mem::take(&mut next.waits);
        (ordinal, step)
    }

    /// Submits a command buffer with what `encode` puts into it, behind the marker `before`, and
    /// returns its ordinal. On an error nothing is submitted. Call it under the submit lock, in an
    /// autorelease pool. Never blocks.
    pub(crate) fn submit_buffer(
        self: &Arc<Self>,
        next: &mut NextBuffer,
        epoch: &Arc<Epoch>,
        before: u64,
        end_time: Option<Arc<EndTime>>,
        encode: impl FnOnce(&CommandBuffer) -> Result<()>,
    ) -> Result<u64> {
        let buffer = self.new_buffer(next)?;
        encode(&buffer)?;
        let (ordinal, step) = self.place(next, epoch, before);
        self.end_buffer(&buffer, ordinal, step, end_time);
        buffer.commit();
        Ok(ordinal)
    }

    /// The caller encodes into the command buffer from now on, until
    /// [`end_encoding`](Native::end_encoding).
    pub(super) fn begin_encoding(&self, buffer: &CommandBuffer, ordinal: u64) {
        lock(&self.encoding).push((std::ptr::from_ref(buffer).addr(), ordinal));
    }

    pub(super) fn end_encoding(&self, ordinal: u64) {
        lock(&self.encoding).retain(|(_, open)| *open != ordinal);
    }

    /// Whether `ordinal` is signalled only after `buffer`, which the caller is encoding into, has
    /// completed.
    pub(super) fn is_behind(&self, ordinal: u64, buffer: &CommandBuffer) -> bool {
        let address = std::ptr::from_ref(buffer).addr();
        let encoding = lock(&self.encoding);
        let mut in_front = encoding.iter().filter(|(_, open)| *open <= ordinal);
        in_front.any(|(open, _)| *open == address)
    }

    /// Adds a step to the completion order. Call it under the submit lock.
    pub(super) fn push(self: &Arc<Self>, epoch: &Arc<Epoch>, step: Step) -> PendingStep {
        PendingStep {
            ticket: self.order.push(epoch, step),
            native: self.clone(),
            finished: false,
            _kept_alive: Vec::new(),
        }
    }

    /// Adds the native value of a marker or of a failure point to the completion order. Call it
    /// under the submit lock. Fire the returned wakes when the lock is released.
    pub(super) fn push_value(&self, epoch: &Arc<Epoch>, native: u64) -> Vec<Wake> {
        self.order.push_value(epoch, native)
    }

    /// Ends a command buffer that has its place and is committed next: encodes the signal of its
    /// ordinal behind all else, and adds the handler that finishes its step. All its encoders must
    /// have ended.
    pub(super) fn end_buffer(
        &self,
        buffer: &CommandBuffer,
        ordinal: u64,
        step: PendingStep,
        end_time: Option<Arc<EndTime>>,
    ) {
        self.event.encode_signal(buffer, ordinal);
        finish_on_completed(buffer, step, end_time, || {});
    }

    /// As [`end_buffer`](Native::end_buffer), for several command buffers whose encoders may be
    /// open, so that nothing is encoded. Instead, the host signals the returned ordinal, once every
    /// buffer's handler and the caller have dropped the returned [`SignalOnDrop`].
    pub(super) fn follow_buffers(
        self: &Arc<Self>,
        buffers: &[&CommandBuffer],
        epoch: &Arc<Epoch>,
        before: u64,
        end_time: &Arc<EndTime>,
    ) -> (u64, Arc<SignalOnDrop>) {
        let mut next = lock(&self.next);
        let place = |_| self.place(&mut next, epoch, before).1;
        let steps: Vec<_> = buffers.iter().map(place).collect();
        let ordinal = next.last;
        drop(next);
        let signal = Arc::new(SignalOnDrop {
            native: self.clone(),
            ordinal,
        });
        for (buffer, step) in buffers.iter().zip(steps) {
            // The handler drops it when it runs: Metal may keep the handler itself for longer.
            let signal = Mutex::new(Some(signal.clone()));
            finish_on_completed(buffer, step, Some(end_time.clone()), move || {
                drop(lock(&signal).take())
            });
        }
        (ordinal, signal)
    }

    /// Encodes a fill of four bytes: Metal promises no time for a command buffer without work.
    pub(super) fn encode_least_work(&self, buffer: &CommandBuffer) -> Result<()> {
        let scratch = match self.scratch.get() {
            Some(scratch) => scratch,
            None => {
                let options = MTLResourceOptions::StorageModePrivate
                    | MTLResourceOptions::HazardTrackingModeUntracked;
                let fresh = self.gpu.device.newBufferWithLength_options(4, options);
                let fresh =
                    fresh.ok_or_else(|| nil("MTLDevice.newBufferWithLength", "free memory"))?;
                self.scratch.get_or_init(|| Object::new(fresh))
            }
        };
        let encoder = buffer
            .blitCommandEncoder()
            .ok_or_else(|| nil("MTLCommandBuffer.blitCommandEncoder", "free memory"))?;
        encoder.fillBuffer_range_value(scratch, (0..4).into(), 0);
        encoder.endEncoding();
        Ok(())
    }

    fn finish(&self, ticket: u64, result: Result<(), Cause>) {
        if !self.gpu.is_forked() {
            let signal = |ordinal| self.event.signal_from_host(ordinal);
            fire_all(self.order.finish(ticket, result, signal));
        }
    }

    /// The event that host gates open by.
    pub(super) fn gate_event(self: &Arc<Self>) -> Result<&Event> {
        if let Some(event) = self.gate_event.get() {
            return Ok(event);
        }
        let fresh = self.gpu.new_event()?;
        open_at_exit(self);
        Ok(self.gate_event.get_or_init(|| fresh))
    }

    /// The ticket of a new host gate. Call it under the submit lock.
    pub(super) fn take_gate(&self) -> u64 {
        self.gates.take()
    }

    /// For the end of the process: opens all host gates.
    fn open_all_gates(&self) {
        self.gates.all_done(|last| {
            if let Some(event) = self.gate_event.get() {
                event.signal_from_host(last);
            }
        });
    }

    /// Opens a host gate, once all gates in front of it are open.
    pub(super) fn open_gate(&self, ticket: u64) {
        if self.gpu.is_forked() {
            return;
        }
        self.gates.done(ticket, |opened| {
            if let Some(event) = self.gate_event.get() {
                event.signal_from_host(opened);
            }
        });
    }
}

/// The streams of this process that have a host gate.
static GATED: PerProcess<Streams<Native>> = PerProcess::new();

/// Opens the host gates of a stream when the process ends, before the system takes its queues
/// apart.
fn open_at_exit(native: &Arc<Native>) {
    static REGISTERED: AtomicBool = AtomicBool::new(false);
    GATED.get_or_make(|_| Streams::new()).add(native);
    at_exit(&REGISTERED, open_all_gates);
}

/// Opens all host gates, for the end of the process.
pub(crate) extern "C" fn open_all_gates() {
    for native in GATED.get_or_make(|_| Streams::new()).alive() {
        native.open_all_gates();
    }
}

/// Finishes `step` when the buffer has completed or failed, and calls `first` before that.
fn finish_on_completed(
    buffer: &CommandBuffer,
    step: PendingStep,
    end_time: Option<Arc<EndTime>>,
    first: impl Fn() + Send + Sync + 'static,
) {
    // Metal calls a handler once, but the type of a block allows several calls.
    let step = Mutex::new(Some(step));
    on_completed(buffer, move |ended| {
        let step = lock(&step).take();
        if let Some(step) = step {
            first();
            buffer_ended(step, end_time.as_deref(), ended);
        }
    });
}

/// Stores the time before the step is finished, so that a complete marker has it.
fn buffer_ended(step: PendingStep, end_time: Option<&EndTime>, ended: Ended) {
    step.native.uncompleted.fetch_sub(1, Ordering::AcqRel);
    if let Some(end_time) = end_time {
        end_time.set(ended.ticks);
    }
    let result = match ended.failure {
        None => Ok(()),
        Some(failure) => {
            if failure.is_device_lost {
                step.native.gpu.lose(&failure.cause);
            }
            Err(failure.cause)
        }
    };
    step.finish(result);
}

impl Counter for Native {
    type Time = Submission;

    fn read(&self) -> Result<u64> {
        Ok(self.order.reached())
    }

    /// Waits on the timeline, with its deadline: a signal from the host may not wake Metal's own
    /// host-side waiters.
    fn wait(&self, epoch: &Epoch, native: u64, deadline: Option<Instant>) -> Result<()> {
        epoch.wait(native, deadline)
    }

    /// Nothing to do: the completed handlers report every value.
    fn watch(self: &Arc<Self>, _: &Arc<Epoch>, _: u64) -> Result<()> {
        Ok(())
    }
}
