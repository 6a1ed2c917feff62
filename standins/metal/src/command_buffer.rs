//! `MTLCommandBuffer`: <https://developer.apple.com/documentation/metal/mtlcommandbuffer>

use crate::encoder::{BlitEncoder, ComputeEncoder};
use crate::event::SharedEvent;
use crate::gpu::{DeviceRef, Gpu};
use crate::queue::{CommandQueue, Permit};
use crate::report::{self, Failure};
use crate::{foundation, runtime};
use block2::{DynBlock, RcBlock};
use fencepost_sim::{Batch, Command, Outcome, Status, lock};
use objc2::rc::Retained;
use objc2::runtime::{AnyObject, NSObject, NSObjectProtocol, ProtocolObject};
use objc2::{AnyThread, ClassType, DefinedClass, Message, define_class, msg_send};
use objc2_foundation::{NSError, NSString};
use objc2_metal::{
    MTLBlitCommandEncoder, MTLCommandBuffer, MTLCommandBufferError, MTLCommandBufferStatus,
    MTLCommandQueue, MTLComputeCommandEncoder, MTLDevice, MTLDispatchType, MTLEvent,
};
use std::ptr::NonNull;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

type Block = DynBlock<dyn Fn(NonNull<ProtocolObject<dyn MTLCommandBuffer>>)>;
pub(crate) type Handler = RcBlock<dyn Fn(NonNull<ProtocolObject<dyn MTLCommandBuffer>>)>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    Encoding,
    Enqueued,
    Committed,
}

pub(crate) struct State {
    pub(crate) stage: Stage,
    pub(crate) encoder_is_open: bool,
    pub(crate) commands: Vec<Command>,
    /// The objects that its commands use, if it retains them. Released once it has completed.
    pub(crate) kept: Vec<Retained<AnyObject>>,
    /// The addresses of the events that it uses. Events are not resources, so no documentation says
    /// that a command buffer retains them: the code that encodes them must keep them alive.
    pub(crate) events: Vec<usize>,
    /// The handlers. Each is taken out when it is called.
    pub(crate) scheduled: Vec<Option<Handler>>,
    pub(crate) completed: Vec<Option<Handler>>,
    /// How many completed handlers have not returned.
    pub(crate) handlers_left: usize,
    /// How many scheduled handlers have not returned.
    pub(crate) scheduled_left: usize,
    /// Held until it has completed.
    pub(crate) permit: Option<Permit>,
    pub(crate) batch: Option<Batch>,
    pub(crate) planned: Option<Failure>,
    /// Whether the device refused the submit.
    pub(crate) refused: bool,
    /// Whether `end` has run.
    pub(crate) ended: bool,
    pub(crate) error: Option<Retained<NSError>>,
    pub(crate) label: Option<Retained<NSString>>,
}

pub(crate) struct BufferVariables {
    pub(crate) queue: Retained<CommandQueue>,
    pub(crate) retained: bool,
    pub(crate) state: Mutex<State>,
    pub(crate) changed: Condvar,
}

define_class!(
    // SAFETY: NSObject has no requirements on its subclasses
    #[unsafe(super(NSObject))]
    #[name = "SimCommandBuffer"]
    #[ivars = BufferVariables]
    pub(crate) struct CommandBuffer;

    // SAFETY: as every subclass of NSObject
    unsafe impl NSObjectProtocol for CommandBuffer {}

    // SAFETY: the methods have the types that the protocol gives them
    unsafe impl MTLCommandBuffer for CommandBuffer {
        #[unsafe(method_id(device))]
        fn device(&self) -> Retained<ProtocolObject<dyn MTLDevice>> {
            self.device_of().object.clone()
        }

        #[unsafe(method_id(commandQueue))]
        fn command_queue(&self) -> Retained<ProtocolObject<dyn MTLCommandQueue>> {
            ProtocolObject::from_retained(self.ivars().queue.clone())
        }

        #[unsafe(method(retainedReferences))]
        fn retained_references(&self) -> bool {
            self.ivars().retained
        }

        #[unsafe(method_id(label))]
        fn label(&self) -> Option<Retained<NSString>> {
            self.state().label.clone()
        }

        #[unsafe(method(setLabel:))]
        fn set_label(&self, label: Option<&NSString>) {
            self.state().label = label.map(Message::retain);
        }

        #[unsafe(method(GPUStartTime))]
        fn gpu_start_time(&self) -> f64 {
            self.time(|outcome| outcome.start.unwrap_or(0))
        }

        #[unsafe(method(GPUEndTime))]
        fn gpu_end_time(&self) -> f64 {
            self.time(|outcome| outcome.end)
        }

        #[unsafe(method(kernelStartTime))]
        fn kernel_start_time(&self) -> f64 {
            self.time(|outcome| outcome.start.unwrap_or(0))
        }

        #[unsafe(method(kernelEndTime))]
        fn kernel_end_time(&self) -> f64 {
            self.time(|outcome| outcome.end)
        }

        #[unsafe(method(status))]
        fn status(&self) -> MTLCommandBufferStatus {
            self.status_of(&self.state())
        }

        #[unsafe(method_id(error))]
        fn error(&self) -> Option<Retained<NSError>> {
            self.failure()
        }

        #[unsafe(method(encodeWaitForEvent:value:))]
        fn encode_wait(&self, event: &ProtocolObject<dyn MTLEvent>, value: u64) {
            self.encode_event("encodeWaitForEvent:value:", event, |event| {
                Command::wait(event.semaphore(), value)
            });
        }

        #[unsafe(method(encodeSignalEvent:value:))]
        fn encode_signal(&self, event: &ProtocolObject<dyn MTLEvent>, value: u64) {
            self.encode_event("encodeSignalEvent:value:", event, |event| {
                Command::signal(event.semaphore(), value)
            });
        }

        #[unsafe(method(addScheduledHandler:))]
        fn add_scheduled_handler(&self, block: *mut Block) {
            self.add_handler("addScheduledHandler:", block, |state, handler| {
                state.scheduled.push(Some(handler));
                state.scheduled_left += 1;
            });
        }

        #[unsafe(method(addCompletedHandler:))]
        fn add_completed_handler(&self, block: *mut Block) {
            self.add_handler("addCompletedHandler:", block, |state, handler| {
                state.completed.push(Some(handler));
                state.handlers_left += 1;
            });
        }

        #[unsafe(method_id(blitCommandEncoder))]
        fn blit_command_encoder(
            &self,
        ) -> Option<Retained<ProtocolObject<dyn MTLBlitCommandEncoder>>> {
            let open = self.open_encoder("blitCommandEncoder");
            open.then(|| ProtocolObject::from_retained(BlitEncoder::make(self.retain())))
        }

        #[unsafe(method_id(computeCommandEncoder))]
        fn compute_command_encoder(
            &self,
        ) -> Option<Retained<ProtocolObject<dyn MTLComputeCommandEncoder>>> {
            let open = self.open_encoder("computeCommandEncoder");
            open.then(|| ProtocolObject::from_retained(ComputeEncoder::make(self.retain())))
        }

        #[unsafe(method_id(computeCommandEncoderWithDispatchType:))]
        fn compute_command_encoder_of(
            &self,
            _serial_or_concurrent: MTLDispatchType,
        ) -> Option<Retained<ProtocolObject<dyn MTLComputeCommandEncoder>>> {
            let open = self.open_encoder("computeCommandEncoder");
            open.then(|| ProtocolObject::from_retained(ComputeEncoder::make(self.retain())))
        }

        #[unsafe(method(enqueue))]
        fn enqueue(&self) {
            if self.advance("enqueue", Stage::Enqueued) {
                self.ivars().queue.enqueue(self);
            }
        }

        #[unsafe(method(commit))]
        fn commit(&self) {
            let is_enqueued = self.state().stage == Stage::Enqueued;
            if self.advance("commit", Stage::Committed) {
                if !is_enqueued {
                    self.ivars().queue.enqueue(self);
                }
                self.ivars().queue.flush();
            }
        }

        #[unsafe(method(waitUntilScheduled))]
        fn wait_until_scheduled(&self) {
            self.wait("waitUntilScheduled", |state| {
                let begun = self.status_of(state) >= MTLCommandBufferStatus::Scheduled;
                (begun && state.scheduled_left == 0) || state.ended
            });
        }

        /// Returns after the completed handlers.
        #[unsafe(method(waitUntilCompleted))]
        fn wait_until_completed(&self) {
            self.wait("waitUntilCompleted", |state| {
                state.ended && state.handlers_left == 0
            });
        }
    }
);

// SAFETY: everything in it is thread-safe or behind a lock, except for the blocks: whoever adds one
// vouches that another thread may call it
unsafe impl Send for CommandBuffer {}
// SAFETY: as above
unsafe impl Sync for CommandBuffer {}

impl CommandBuffer {
    pub(crate) fn make(
        queue: Retained<CommandQueue>,
        permit: Permit,
        retained: bool,
    ) -> Retained<CommandBuffer> {
        let state = State {
            stage: Stage::Encoding,
            encoder_is_open: false,
            commands: Vec::new(),
            kept: Vec::new(),
            events: Vec::new(),
            scheduled: Vec::new(),
            completed: Vec::new(),
            handlers_left: 0,
            scheduled_left: 0,
            permit: Some(permit),
            batch: None,
            planned: None,
            refused: false,
            ended: false,
            error: None,
            label: None,
        };
        let this = CommandBuffer::alloc().set_ivars(BufferVariables {
            queue,
            retained,
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        // SAFETY: NSObject's init
        unsafe { msg_send![super(this), init] }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.ivars().state)
    }

    pub(crate) fn device_of(&self) -> &DeviceRef {
        self.ivars().queue.device_of()
    }

    pub(crate) fn gpu(&self) -> &Arc<Gpu> {
        &self.device_of().gpu
    }

    pub(crate) fn is_committed(&self) -> bool {
        self.state().stage == Stage::Committed
    }

    // --- encoding

    fn open_encoder(&self, what: &'static str) -> bool {
        if report::is_refused(what) {
            return false;
        }
        let mut state = self.state();
        if state.stage == Stage::Committed {
            report::violation(&format!("{what} after commit"));
        }
        if state.encoder_is_open {
            report::violation(&format!("{what} while another encoder is open"));
        }
        state.encoder_is_open = true;
        true
    }

    pub(crate) fn close_encoder(&self) {
        self.state().encoder_is_open = false;
    }

    fn encode_event(
        &self,
        what: &str,
        event: &ProtocolObject<dyn MTLEvent>,
        command: impl FnOnce(&SharedEvent) -> Command,
    ) {
        let Some(event) = SharedEvent::from_protocol(event) else {
            return report::violation(&format!("{what} with an event that is not the stand-in's"));
        };
        if self.state().encoder_is_open {
            report::violation(&format!("{what} while an encoder is open"));
        }
        self.encode(what, &[], vec![command(event)]);
        self.state().events.push(std::ptr::from_ref(event).addr());
    }

    /// Reports events that were deallocated while the command buffer used them. Each completed
    /// handler calls it first; later calls find no events.
    pub(crate) fn check_events(&self) {
        let events = std::mem::take(&mut self.state().events);
        let is_dead = |address: &usize| !runtime::is_alive(std::ptr::without_provenance(*address));
        if events.iter().any(is_dead) {
            report::violation(
                "a command buffer uses a deallocated SimSharedEvent, which it does not keep alive",
            );
        }
    }

    /// Appends commands that use these objects.
    pub(crate) fn encode(&self, what: &str, used: &[&AnyObject], mut commands: Vec<Command>) {
        let mut state = self.state();
        if state.stage == Stage::Committed {
            return report::violation(&format!("{what} after commit"));
        }
        for object in used {
            if self.ivars().retained {
                state.kept.push(object.retain());
            } else {
                let name = object.class().name().to_string_lossy().into_owned();
                let address = std::ptr::from_ref(*object).addr();
                let check = move || {
                    if !runtime::is_alive(std::ptr::without_provenance(address)) {
                        report::violation(&format!(
                            "a command buffer without retained references uses a deallocated {name}"
                        ));
                    }
                };
                state.commands.push(Command::run(check));
            }
        }
        state.commands.append(&mut commands);
    }

    fn add_handler(&self, what: &str, block: *mut Block, add: impl FnOnce(&mut State, Handler)) {
        // SAFETY: the caller passes a block
        let Some(handler) = (unsafe { RcBlock::copy(block) }) else {
            return report::violation(&format!("{what} with no block"));
        };
        let mut state = self.state();
        if state.stage == Stage::Committed {
            drop(state);
            return report::violation(&format!("{what} after commit"));
        }
        if state.encoder_is_open && !self.gpu().setup.handlers_beside_encoders {
            report::violation(&format!("{what} while an encoder is open"));
        }
        add(&mut state, handler);
    }

    // --- status, times and error

    pub(crate) fn outcome(&self, state: &State) -> Option<Outcome> {
        match state.batch.as_ref()?.status() {
            Status::Ended(outcome) => Some(outcome),
            _ => None,
        }
    }

    pub(crate) fn status_of(&self, state: &State) -> MTLCommandBufferStatus {
        match (&state.batch, state.stage) {
            _ if state.refused => MTLCommandBufferStatus::Error,
            (None, Stage::Encoding) => MTLCommandBufferStatus::NotEnqueued,
            (None, Stage::Enqueued) => MTLCommandBufferStatus::Enqueued,
            (None, Stage::Committed) => MTLCommandBufferStatus::Committed,
            (Some(batch), _) => match batch.status() {
                Status::Queued => MTLCommandBufferStatus::Committed,
                Status::Running => MTLCommandBufferStatus::Scheduled,
                Status::Ended(outcome) if outcome.error.is_some() => MTLCommandBufferStatus::Error,
                Status::Ended(_) => MTLCommandBufferStatus::Completed,
            },
        }
    }

    /// A time in seconds of the host's clock. 0 until the command buffer has ended. In some failed
    /// ones, which the seed chooses, it stays 0.
    fn time(&self, which: impl FnOnce(&Outcome) -> u64) -> f64 {
        let state = self.state();
        let Some(outcome) = self.outcome(&state) else {
            return 0.0;
        };
        let number = state.batch.as_ref().map_or(0, Batch::id);
        drop(state);
        if outcome.error.is_some() && (number ^ self.gpu().sim.seed()) & 1 == 0 {
            return 0.0;
        }
        // a tick of the device's clock is a nanosecond of the host's
        which(&outcome) as f64 / 1e9
    }

    fn failure(&self) -> Option<Retained<NSError>> {
        let mut state = self.state();
        let why = match state.refused {
            true => "the device was removed".to_owned(),
            false => self.outcome(&state)?.error?,
        };
        if state.error.is_none() {
            let error = match &state.planned {
                Some(failure) if failure.text == why => failure.error,
                _ if self.gpu().is_removed() => MTLCommandBufferError::DeviceRemoved,
                _ => MTLCommandBufferError::Internal,
            };
            let code = error.0.cast_signed();
            state.error = Some(foundation::error("MTLCommandBufferErrorDomain", code, &why));
        }
        state.error.clone()
    }
}

pub(crate) fn register() {
    CommandBuffer::class();
}
