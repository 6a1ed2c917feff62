//! Helpers for the tests: the calls that a Metal backend makes, through objc2-metal's interface.

#![allow(dead_code, reason = "no test file uses all of it")]

use block2::RcBlock;
use fencepost_sim_metal::{Control, Session, Setup};
use objc2::AnyThread;
use objc2::rc::{Retained, autoreleasepool};
use objc2::runtime::ProtocolObject;
use objc2_metal::*;
use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A timeout that only a hang reaches.
pub(crate) const GENEROUS: Duration = fencepost_sim::HANG_TIMEOUT;

pub(crate) type Obj<T> = Retained<ProtocolObject<T>>;

/// Runs a test with the seeds `0..count` or the one in the environment, each on a machine of its
/// own, on which it must leave nothing behind.
pub(crate) fn with_seeds(count: u64, test: impl Fn(&Session)) {
    fencepost_sim::with_seeds(count, |seed| with_setup(Setup::seeded(seed), &test));
}

pub(crate) fn with_setup(setup: Setup, test: impl FnOnce(&Session)) {
    let session = Control.session(setup);
    autoreleasepool(|_| test(&session));
    nothing_is_left(&session);
    assert_eq!(session.violations(), Vec::<String>::new());
}

/// Runs a test of misuse. The violations must contain these words, in this order.
pub(crate) fn violates(words: &[&str], test: impl FnOnce(&Session)) {
    let session = Control.session(Setup::seeded(fencepost_sim::seed_or(1)));
    autoreleasepool(|_| test(&session));
    nothing_is_left(&session);
    let violations = session.violations();
    assert_eq!(violations.len(), words.len(), "{violations:?}");
    for (violation, words) in violations.iter().zip(words) {
        assert!(violation.contains(words), "{violation:?} lacks {words:?}");
    }
}

pub(crate) fn nothing_is_left(session: &Session) {
    assert!(session.wait_idle(GENEROUS), "{:?}", session.pending_work());
    assert_eq!(session.live(), BTreeMap::new());
}

pub(crate) fn device() -> Obj<dyn MTLDevice> {
    MTLCreateSystemDefaultDevice().expect("a device")
}

pub(crate) struct Gpu {
    pub(crate) device: Obj<dyn MTLDevice>,
    pub(crate) queue: Obj<dyn MTLCommandQueue>,
}

impl Gpu {
    pub(crate) fn open() -> Gpu {
        let device = device();
        let queue = device.newCommandQueue().expect("a queue");
        Gpu { device, queue }
    }

    pub(crate) fn event(&self) -> Obj<dyn MTLSharedEvent> {
        self.device.newSharedEvent().expect("an event")
    }

    pub(crate) fn buffer(&self, length: usize) -> Obj<dyn MTLBuffer> {
        let options = MTLResourceOptions::StorageModeShared;
        self.device
            .newBufferWithLength_options(length, options)
            .expect("a buffer")
    }

    pub(crate) fn command_buffer(&self) -> Obj<dyn MTLCommandBuffer> {
        self.queue.commandBuffer().expect("a command buffer")
    }

    /// A command buffer that fills the whole buffer.
    pub(crate) fn filling(
        &self,
        buffer: &ProtocolObject<dyn MTLBuffer>,
        value: u8,
    ) -> Obj<dyn MTLCommandBuffer> {
        let command_buffer = self.command_buffer();
        fill(&command_buffer, buffer, value);
        command_buffer
    }
}

pub(crate) fn fill(
    to: &ProtocolObject<dyn MTLCommandBuffer>,
    buffer: &ProtocolObject<dyn MTLBuffer>,
    value: u8,
) {
    let blit = to.blitCommandEncoder().expect("an encoder");
    blit.fillBuffer_range_value(buffer, (0..buffer.length()).into(), value);
    blit.endEncoding();
}

pub(crate) fn wait_for(
    command_buffer: &ProtocolObject<dyn MTLCommandBuffer>,
    event: &ProtocolObject<dyn MTLSharedEvent>,
    value: u64,
) {
    command_buffer.encodeWaitForEvent_value(ProtocolObject::from_ref(event), value);
}

pub(crate) fn signal(
    command_buffer: &ProtocolObject<dyn MTLCommandBuffer>,
    event: &ProtocolObject<dyn MTLSharedEvent>,
    value: u64,
) {
    command_buffer.encodeSignalEvent_value(ProtocolObject::from_ref(event), value);
}

/// How a command buffer looked to its completed handler.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Seen {
    pub(crate) status: MTLCommandBufferStatus,
    pub(crate) start: f64,
    pub(crate) end: f64,
    pub(crate) error: Option<(MTLCommandBufferError, String)>,
}

pub(crate) fn look(command_buffer: &ProtocolObject<dyn MTLCommandBuffer>) -> Seen {
    Seen {
        status: command_buffer.status(),
        start: command_buffer.GPUStartTime(),
        end: command_buffer.GPUEndTime(),
        error: command_buffer.error().map(|error| {
            let code = MTLCommandBufferError(error.code().cast_unsigned());
            (code, error.localizedDescription().to_string())
        }),
    }
}

pub(crate) fn on_completed(
    command_buffer: &ProtocolObject<dyn MTLCommandBuffer>,
    handler: impl Fn(Seen) + Send + 'static,
) {
    let block = RcBlock::new(
        move |completed: NonNull<ProtocolObject<dyn MTLCommandBuffer>>| {
            // SAFETY: alive while its handler is called
            handler(look(unsafe { completed.as_ref() }));
        },
    );
    // SAFETY: the handler is Send
    unsafe { command_buffer.addCompletedHandler(RcBlock::as_ptr(&block)) };
}

/// Commits, and gives what the completed handler sees.
pub(crate) fn commit(command_buffer: &ProtocolObject<dyn MTLCommandBuffer>) -> Receiver<Seen> {
    let (sender, seen) = channel();
    on_completed(command_buffer, move |saw| {
        let _ = sender.send(saw);
    });
    command_buffer.commit();
    seen
}

pub(crate) fn on_scheduled(
    command_buffer: &ProtocolObject<dyn MTLCommandBuffer>,
    handler: impl Fn(MTLCommandBufferStatus) + Send + 'static,
) {
    let block = RcBlock::new(
        move |scheduled: NonNull<ProtocolObject<dyn MTLCommandBuffer>>| {
            // SAFETY: alive while its handler is called
            handler(unsafe { scheduled.as_ref() }.status());
        },
    );
    // SAFETY: the handler is Send
    unsafe { command_buffer.addScheduledHandler(RcBlock::as_ptr(&block)) };
}

pub(crate) fn notify(
    event: &ProtocolObject<dyn MTLSharedEvent>,
    listener: &MTLSharedEventListener,
    value: u64,
    handler: impl Fn(u64) + Send + 'static,
) {
    let block = RcBlock::new(
        move |_: NonNull<ProtocolObject<dyn MTLSharedEvent>>, reached: u64| handler(reached),
    );
    // SAFETY: the handler is Send
    unsafe { event.notifyListener_atValue_block(listener, value, RcBlock::as_ptr(&block)) };
}

/// A listener on a dispatch queue that is also given.
pub(crate) fn listener_on_a_queue() -> (
    Retained<MTLSharedEventListener>,
    dispatch2::DispatchRetained<dispatch2::DispatchQueue>,
) {
    let queue = dispatch2::DispatchQueue::new("test", None);
    // SAFETY: blocks on it may run in any thread
    let listener = unsafe {
        MTLSharedEventListener::initWithDispatchQueue(MTLSharedEventListener::alloc(), &queue)
    };
    (listener, queue)
}

pub(crate) fn words(buffer: &ProtocolObject<dyn MTLBuffer>) -> &[AtomicU32] {
    let start = buffer.contents().cast();
    // SAFETY: so many words are there as long as the buffer is, and atomics may be written by
    // others
    unsafe { std::slice::from_raw_parts(start.as_ptr(), buffer.length() / 4) }
}

pub(crate) fn word(buffer: &ProtocolObject<dyn MTLBuffer>, place: usize) -> u32 {
    words(buffer)[place].load(Ordering::SeqCst)
}

/// Notes in the order in which they were taken.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u64>>>);

impl Log {
    pub(crate) fn add(&self, what: u64) {
        self.0.lock().unwrap().push(what);
    }

    pub(crate) fn seen(&self) -> Vec<u64> {
        self.0.lock().unwrap().clone()
    }
}

pub(crate) const SOURCE: &str = "
#include <metal_stdlib>
// kernel void fencepost_in_a_comment(
struct _mslBufferSizes { uint size0; };
kernel void fencepost_append(device int& a [[buffer(0)]]) {}
kernel void fencepost_histogram(device int& a [[buffer(0)]]) {}
[[kernel]] void fencepost_reduce(device int& a [[buffer(0)]]) {}
kernel void fencepost_spin(device int& a [[buffer(0)]]) {}
kernel void somebody_elses(device int& a [[buffer(0)]]) {}
";

pub(crate) fn pipeline(gpu: &Gpu, name: &str) -> Obj<dyn MTLComputePipelineState> {
    let source = objc2_foundation::NSString::from_str(SOURCE);
    let library = gpu
        .device
        .newLibraryWithSource_options_error(&source, None)
        .expect("a library");
    let name = objc2_foundation::NSString::from_str(name);
    let function = library.newFunctionWithName(&name).expect("a function");
    gpu.device
        .newComputePipelineStateWithFunction_error(&function)
        .expect("a pipeline")
}

pub(crate) fn size(width: usize) -> MTLSize {
    MTLSize {
        width,
        height: 1,
        depth: 1,
    }
}

pub(crate) fn set_word(
    encoder: &ProtocolObject<dyn MTLComputeCommandEncoder>,
    index: usize,
    word: u32,
) {
    // SAFETY: four bytes, which are copied
    unsafe { encoder.setBytes_length_atIndex(NonNull::from(&word).cast(), 4, index) };
}

/// Runs a kernel: buffers from 0 on, the push constant in 2, the size of buffer 0 in 3.
pub(crate) fn dispatch(
    to: &ProtocolObject<dyn MTLCommandBuffer>,
    pipeline: &ProtocolObject<dyn MTLComputePipelineState>,
    buffers: &[&ProtocolObject<dyn MTLBuffer>],
    constant: u32,
    (groups, threads): (usize, usize),
) {
    let encoder = to.computeCommandEncoder().expect("an encoder");
    encoder.setComputePipelineState(pipeline);
    for (index, buffer) in buffers.iter().enumerate() {
        // SAFETY: the kernels stay inside of their buffers
        unsafe { encoder.setBuffer_offset_atIndex(Some(buffer), 0, index) };
    }
    set_word(&encoder, 2, constant);
    set_word(&encoder, 3, buffers[0].length() as u32);
    // SAFETY: of the one index that a kernel may have
    unsafe { encoder.setThreadgroupMemoryLength_atIndex(1024, 0) };
    encoder.dispatchThreadgroups_threadsPerThreadgroup(size(groups), size(threads));
    encoder.endEncoding();
}
