//! What a stream has of Metal's: its queue, its shared event, and the handlers that tell how far it
//! has come.
//!
//! - **Each command buffer of a stream has an ordinal**: it waits for the one before it first, and
//!   signals its own last. Buffers of a queue start in order but may overlap; this chain makes them
//!   run one after the other.
//! - **A marker is an ordinal.** Where nothing was submitted since the last buffer, a marker
//!   without timing is that buffer's, and costs no buffer of its own.
//! - **A wait costs no buffer either**: the next one begins with it.
//! - **The host learns of completion from completed handlers alone**, through the
//!   [`CompletionOrder`]. The event's value may be seen before the buffer has a status or an end
//!   time, so nobody looks at it.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use objc2::rc::{Retained, autoreleasepool};
use objc2_metal::{
    MTLBlitCommandEncoder, MTLBuffer, MTLCommandBuffer, MTLCommandEncoder, MTLCommandQueue,
    MTLDevice, MTLResourceOptions,
};

use super::{
    completion_order::{self, CompletionOrder, Step},
    gpu::Gpu,
    objects::{CommandBuffer, Ended, Event, Object, Time, nil, on_completed},
};
use crate::{
    clock::{Clock, Timestamp},
    epochs::{self, Counter, Epoch, HostGates},
    error::{Cause, Error, Result},
    sync::{Mutex, lock},
    timeline::Wake,
};

/// How many command buffers of ours may be uncompleted. Metal's own default is 64, and then
/// `commandBuffer` blocks; nothing says what more room costs.
pub(super) const MOST_BUFFERS: usize = 1024;
/// In a queue of the caller's, which may have any number of its own besides.
const MOST_OF_CALLERS: usize = 48;
/// A buffer's handler may run a little before its place is free.
pub(super) const SLACK: usize = 64;

pub(crate) struct Native {
    pub(super) gpu: Arc<Gpu>,
    /// `None` for a reservation, whose buffer is the caller's.
    queue: Option<Object<dyn MTLCommandQueue>>,
    pub(super) event: Event,
    completion_order: CompletionOrder,
    /// Under the stream's submit lock only.
    pub(super) tail: Mutex<Tail>,
    uncompleted: AtomicUsize,
    /// The buffers that somebody encodes into, by address, and their ordinals.
    open: Mutex<Vec<(usize, u64)>>,
    /// How many there may be.
    most: usize,
    /// What the host holds the stream with, and the turns of it.
    hold: OnceLock<Event>,
    holds: HostGates,
    /// What the blits of timed markers write to.
    scratch: OnceLock<Object<dyn MTLBuffer>>,
}

/// The end of what was submitted.
#[derive(Default)]
pub(super) struct Tail {
    /// The ordinal of the last buffer.
    pub(super) ordinal: u64,
    /// What the next buffer waits for: each event once, with the largest value.
    pub(super) waits: Vec<(Event, u64)>,
}

impl Tail {
    pub(super) fn wait_for(&mut self, event: &Event, value: u64) {
        match self.waits.iter_mut().find(|(known, _)| known.is(event)) {
            Some((_, known)) => *known = value.max(*known),
            None => self.waits.push((event.clone(), value)),
        }
    }
}

/// Where a marker is on its stream's event, and its time.
pub(crate) struct Stamp {
    pub(super) ordinal: u64,
    time: Option<Arc<Time>>,
    clock: Clock,
}

impl epochs::Time for Stamp {
    fn timestamp(&self) -> Result<Timestamp> {
        let Some(time) = &self.time else {
            return Err(Error::TimingDisabled { which: "held" });
        };
        match time.get() {
            Some(ticks) => Ok(Timestamp::new(ticks, self.clock.clone())),
            None => Err(Error::Backend {
                call: "MTLCommandBuffer.GPUEndTime",
                code: 0,
                text: "Metal gave no time for a command buffer that is complete; record again"
                    .into(),
            }),
        }
    }
}

/// A step that somebody will say is over. Dropped unsaid, it has failed, so that nobody waits for
/// ever.
pub(crate) struct Turn {
    pub(super) native: Arc<Native>,
    turn: u64,
    over: bool,
    /// The events that its buffer waits for. Metal says of resources that a command buffer keeps
    /// them alive, and of events nothing.
    _kept: Vec<(Event, u64)>,
}

impl Turn {
    pub(super) fn finish(mut self, result: Result<(), Cause>) {
        self.over = true;
        self.native.finish(self.turn, result);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.over {
            let cause = Cause::new("what it was to run behind was given up without a word");
            self.native.finish(self.turn, Err(cause));
        }
    }
}

/// Raises the event from the host when the last who holds this lets it go.
pub(super) struct Raise {
    native: Arc<Native>,
    ordinal: u64,
}

impl Drop for Raise {
    fn drop(&mut self) {
        if !self.native.gpu.is_forked() {
            self.native.event.raise(self.ordinal);
        }
    }
}

impl Native {
    /// A native of its own queue, or of the caller's.
    pub(super) fn new(
        gpu: &Arc<Gpu>,
        queue: Option<Object<dyn MTLCommandQueue>>,
    ) -> Result<Arc<Native>> {
        let (queue, most) = match queue {
            Some(queue) => (queue, MOST_OF_CALLERS),
            None => {
                let most = MOST_BUFFERS + SLACK;
                let queue = gpu.device.newCommandQueueWithMaxCommandBufferCount(most);
                let queue = queue.ok_or_else(|| {
                    let remedy = "drop streams, of which each has a queue";
                    nil("MTLDevice.newCommandQueueWithMaxCommandBufferCount", remedy)
                })?;
                (Object::new(queue), MOST_BUFFERS)
            }
        };
        Native::make(gpu, Some(queue), most)
    }

    /// A native for one marker in a buffer of the caller's.
    pub(super) fn single(gpu: &Arc<Gpu>) -> Result<Arc<Native>> {
        Native::make(gpu, None, 0)
    }

    fn make(
        gpu: &Arc<Gpu>,
        queue: Option<Object<dyn MTLCommandQueue>>,
        most: usize,
    ) -> Result<Arc<Native>> {
        Ok(Arc::new(Native {
            event: gpu.event()?,
            gpu: gpu.clone(),
            queue,
            completion_order: CompletionOrder::new(),
            tail: Mutex::new(Tail::default()),
            uncompleted: AtomicUsize::new(0),
            open: Mutex::new(Vec::new()),
            most,
            hold: OnceLock::new(),
            holds: HostGates::new(),
            scratch: OnceLock::new(),
        }))
    }

    pub(super) fn stamp(&self, ordinal: u64, time: Option<Arc<Time>>) -> Stamp {
        Stamp {
            ordinal,
            time,
            clock: self.gpu.core.clock.clone(),
        }
    }

    /// A command buffer that begins where the stream ends. Nothing has changed until it is
    /// [taken](Native::take). Called under the submit lock, in an autorelease pool. Never blocks:
    /// it counts what is uncompleted.
    pub(super) fn begin(&self, tail: &Tail) -> Result<Retained<CommandBuffer>> {
        let pending = self.uncompleted.load(Ordering::Acquire);
        if pending >= self.most {
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
        if tail.ordinal > 0 {
            self.event.wait_in(&buffer, tail.ordinal);
        }
        for (event, value) in &tail.waits {
            event.wait_in(&buffer, *value);
        }
        Ok(buffer)
    }

    /// Gives the buffer that was begun its ordinal, and what says that it is over. Called under the
    /// submit lock.
    pub(super) fn take(
        self: &Arc<Self>,
        tail: &mut Tail,
        epoch: &Arc<Epoch>,
        before: u64,
    ) -> (u64, Turn) {
        tail.ordinal += 1;
        self.uncompleted.fetch_add(1, Ordering::AcqRel);
        let ordinal = tail.ordinal;
        let mut turn = self.push(epoch, Step::Buffer { ordinal, before });
        turn._kept = std::mem::take(&mut tail.waits);
        (ordinal, turn)
    }

    /// Somebody encodes into the buffer, until it is [closed](Native::close).
    pub(super) fn open(&self, buffer: &CommandBuffer, ordinal: u64) {
        lock(&self.open).push((std::ptr::from_ref(buffer).addr(), ordinal));
    }

    pub(super) fn close(&self, ordinal: u64) {
        lock(&self.open).retain(|(_, open)| *open != ordinal);
    }

    /// Whether what has this ordinal completes only when the buffer has.
    pub(super) fn is_behind(&self, ordinal: u64, buffer: &CommandBuffer) -> bool {
        let address = std::ptr::from_ref(buffer).addr();
        let open = lock(&self.open);
        let mut behind = open.iter().filter(|(_, open)| *open <= ordinal);
        behind.any(|(open, _)| *open == address)
    }

    pub(super) fn push(self: &Arc<Self>, epoch: &Arc<Epoch>, step: Step) -> Turn {
        Turn {
            turn: self.completion_order.push(epoch, step),
            native: self.clone(),
            over: false,
            _kept: Vec::new(),
        }
    }

    /// A marker's value, or an end's, behind everything so far. Called under the submit lock; fire
    /// it without.
    pub(super) fn value(&self, epoch: &Arc<Epoch>, native: u64) -> Vec<Wake> {
        self.completion_order.value(epoch, native)
    }

    /// Ends a buffer that was taken, and is to be committed: it signals its ordinal behind what it
    /// holds now, and tells when it is complete. All its encoders have ended.
    pub(super) fn finish_buffer(
        &self,
        buffer: &CommandBuffer,
        ordinal: u64,
        turn: Turn,
        time: Option<Arc<Time>>,
    ) {
        self.event.signal_in(buffer, ordinal);
        tell(buffer, turn, time, || {});
    }

    /// As [`finish_buffer`](Native::finish_buffer) for several, where encoders may be open: nothing
    /// is encoded, and the host raises the event to the ordinal that this gives once all is over:
    /// them, and whatever drops the other part.
    pub(super) fn follow_buffers(
        self: &Arc<Self>,
        buffers: &[&CommandBuffer],
        epoch: &Arc<Epoch>,
        before: u64,
        time: &Arc<Time>,
    ) -> (u64, Arc<Raise>) {
        let mut tail = lock(&self.tail);
        let turns: Vec<_> = buffers
            .iter()
            .map(|_| self.take(&mut tail, epoch, before).1)
            .collect();
        let ordinal = tail.ordinal;
        drop(tail);
        let raise = Arc::new(Raise {
            native: self.clone(),
            ordinal,
        });
        for (buffer, turn) in buffers.iter().zip(turns) {
            // Let go within the handler, which Metal may keep for longer.
            let raise = Mutex::new(Some(raise.clone()));
            tell(buffer, turn, Some(time.clone()), move || {
                drop(lock(&raise).take())
            });
        }
        (ordinal, raise)
    }

    /// Encodes the least work there is: nothing promises a time to a buffer without any.
    pub(super) fn blit(&self, buffer: &CommandBuffer) -> Result<()> {
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

    fn finish(&self, turn: u64, result: Result<(), Cause>) {
        if !self.gpu.is_forked() {
            completion_order::fire(
                self.completion_order
                    .finish(turn, result, |ordinal| self.event.raise(ordinal)),
            );
        }
    }

    /// The event that the host holds the stream with.
    pub(super) fn hold(&self) -> Result<&Event> {
        if let Some(hold) = self.hold.get() {
            return Ok(hold);
        }
        let fresh = self.gpu.event()?;
        Ok(self.hold.get_or_init(|| fresh))
    }

    /// Takes a turn of the hold. Called under the submit lock.
    pub(super) fn take_hold(&self) -> u64 {
        self.holds.take()
    }

    /// A turn of the hold is done.
    pub(super) fn let_go(&self, turn: u64) {
        if self.gpu.is_forked() {
            return;
        }
        self.holds.done(turn, |gone| {
            if let Some(hold) = self.hold.get() {
                hold.raise(gone);
            }
        });
    }
}

/// Has a buffer that was taken tell when it is over; `over` is called first.
fn tell(
    buffer: &CommandBuffer,
    turn: Turn,
    time: Option<Arc<Time>>,
    over: impl Fn() + Send + Sync + 'static,
) {
    // Called once; the type of a block cannot say so.
    let turn = Mutex::new(Some(turn));
    on_completed(buffer, move |ended| {
        let turn = lock(&turn).take();
        if let Some(turn) = turn {
            over();
            completed(turn, time.as_deref(), ended);
        }
    });
}

/// A buffer has ended: its time first, then who waits for it.
fn completed(turn: Turn, time: Option<&Time>, ended: Ended) {
    turn.native.uncompleted.fetch_sub(1, Ordering::AcqRel);
    if let Some(time) = time {
        time.set(ended.ticks);
    }
    let result = match ended.failure {
        None => Ok(()),
        Some((cause, gone)) => {
            if gone {
                turn.native.gpu.lose(&cause);
            }
            Err(cause)
        }
    };
    turn.finish(result);
}

impl Counter for Native {
    type Time = Stamp;

    fn read(&self) -> Result<u64> {
        Ok(self.completion_order.reached())
    }

    /// By the timeline, with its deadline: a value that the host raises may not wake Metal's own
    /// waiters.
    fn wait(&self, epoch: &Epoch, native: u64, deadline: Option<Instant>) -> Result<()> {
        epoch.wait(native, deadline)
    }

    /// The handlers do.
    fn watch(self: &Arc<Self>, _: &Arc<Epoch>, _: u64) -> Result<()> {
        Ok(())
    }
}

/// In an autorelease pool: for every call of ours that calls Metal.
pub(super) fn pooled<R>(call: impl FnOnce() -> R) -> R {
    autoreleasepool(|_| call())
}
