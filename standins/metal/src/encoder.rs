//! Blit and compute encoders: <https://developer.apple.com/documentation/metal/mtlcommandencoder>

use crate::buffer::Buffer;
use crate::command_buffer::CommandBuffer;
use crate::kernels::{Binding, Kernel};
use crate::library::Pipeline;
use crate::memory::Memory;
use crate::report;
use fencepost_sim::{Command, lock};
use objc2::rc::Retained;
use objc2::runtime::{AnyObject, NSObject, NSObjectProtocol, ProtocolObject};
use objc2::{AnyThread, ClassType, DefinedClass, Message, define_class, msg_send};
use objc2_foundation::{NSRange, NSString};
use objc2_metal::{
    MTLBarrierScope, MTLBlitCommandEncoder, MTLBuffer, MTLCommandEncoder, MTLComputeCommandEncoder,
    MTLComputePipelineState, MTLDevice, MTLSize,
};
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// The part that all encoders share.
pub(crate) struct Open {
    command_buffer: Retained<CommandBuffer>,
    ended: AtomicBool,
    label: Mutex<Option<Retained<NSString>>>,
}

impl Open {
    fn new(command_buffer: Retained<CommandBuffer>) -> Open {
        Open {
            command_buffer,
            ended: AtomicBool::new(false),
            label: Mutex::new(None),
        }
    }

    fn end(&self) {
        if self.ended.swap(true, Ordering::SeqCst) {
            report::violation("endEncoding of an encoder that has ended");
        } else {
            self.command_buffer.close_encoder();
        }
    }

    fn is_open(&self, what: &str) -> bool {
        let ended = self.ended.load(Ordering::SeqCst);
        if ended {
            report::violation(&format!("{what} after endEncoding"));
        }
        !ended
    }

    fn encode(&self, what: &str, used: &[&AnyObject], commands: Vec<Command>) {
        if self.is_open(what) {
            self.command_buffer.encode(what, used, commands);
        }
    }

    /// The stand-in's object behind the protocol. `None`, with a violation, for any other object
    /// and for a buffer of another device.
    fn buffer<'a>(
        &self,
        what: &str,
        buffer: &'a ProtocolObject<dyn MTLBuffer>,
    ) -> Option<&'a Buffer> {
        let object: &AnyObject = buffer.as_ref();
        let Some(buffer) = object.downcast_ref::<Buffer>() else {
            report::violation(&format!("{what} with a buffer that is not the stand-in's"));
            return None;
        };
        if !Arc::ptr_eq(buffer.gpu(), self.command_buffer.gpu()) {
            report::violation(&format!("{what} with a buffer of another device"));
            return None;
        }
        Some(buffer)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if !self.ended.load(Ordering::SeqCst) {
            report::violation("a command encoder was released without endEncoding");
        }
    }
}

/// Whether a blit has bytes and its numbers are multiples of 4, as macOS requires:
/// <https://developer.apple.com/documentation/metal/mtlblitcommandencoder/fill(buffer:range:value:)>
fn is_whole_words(what: &str, numbers: &[usize], length: usize) -> bool {
    if length == 0 {
        report::violation(&format!("{what}: no bytes"));
    }
    let whole = numbers.iter().all(|number| number.is_multiple_of(4)) && length.is_multiple_of(4);
    if !whole {
        report::violation(&format!("{what}: no multiples of 4"));
    }
    length > 0 && whole
}

fn is_inside(what: &str, memory: &Memory, offset: usize, length: usize) -> bool {
    let inside = memory.has(offset, length);
    if !inside {
        report::violation(&format!("{what}: outside of the buffer"));
    }
    inside
}

define_class!(
    // SAFETY: NSObject has no requirements on its subclasses
    #[unsafe(super(NSObject))]
    #[name = "SimBlitCommandEncoder"]
    #[ivars = Open]
    pub(crate) struct BlitEncoder;

    // SAFETY: as every subclass of NSObject
    unsafe impl NSObjectProtocol for BlitEncoder {}

    // SAFETY: the methods have the types that the protocol gives them
    unsafe impl MTLCommandEncoder for BlitEncoder {
        #[unsafe(method_id(device))]
        fn device(&self) -> Retained<ProtocolObject<dyn MTLDevice>> {
            self.ivars().command_buffer.device_of().object.clone()
        }

        #[unsafe(method_id(label))]
        fn label(&self) -> Option<Retained<NSString>> {
            lock(&self.ivars().label).clone()
        }

        #[unsafe(method(setLabel:))]
        fn set_label(&self, label: Option<&NSString>) {
            *lock(&self.ivars().label) = label.map(Message::retain);
        }

        #[unsafe(method(endEncoding))]
        fn end_encoding(&self) {
            self.ivars().end();
        }
    }

    // SAFETY: the methods have the types that the protocol gives them
    unsafe impl MTLBlitCommandEncoder for BlitEncoder {
        #[unsafe(method(fillBuffer:range:value:))]
        fn fill(&self, buffer: &ProtocolObject<dyn MTLBuffer>, range: NSRange, value: u8) {
            let what = "fillBuffer:range:value:";
            let Some(buffer) = self.ivars().buffer(what, buffer) else {
                return;
            };
            let memory = buffer.memory().clone();
            if is_inside(what, &memory, range.location, range.length)
                && is_whole_words(what, &[range.location], range.length)
            {
                let run = Command::run(move || memory.fill(range, value));
                self.ivars().encode(what, &[buffer], vec![run]);
            }
        }

        #[unsafe(method(copyFromBuffer:sourceOffset:toBuffer:destinationOffset:size:))]
        fn copy(
            &self,
            from: &ProtocolObject<dyn MTLBuffer>,
            offset: usize,
            to: &ProtocolObject<dyn MTLBuffer>,
            at: usize,
            size: usize,
        ) {
            let what = "copyFromBuffer:sourceOffset:toBuffer:destinationOffset:size:";
            let open = self.ivars();
            let (Some(from), Some(to)) = (open.buffer(what, from), open.buffer(what, to)) else {
                return;
            };
            let (source, target) = (from.memory().clone(), to.memory().clone());
            if is_inside(what, &source, offset, size)
                && is_inside(what, &target, at, size)
                && is_whole_words(what, &[offset, at], size)
            {
                let run = Command::run(move || source.copy(offset, &target, at, size));
                open.encode(what, &[from, to], vec![run]);
            }
        }
    }
);

impl BlitEncoder {
    pub(crate) fn make(command_buffer: Retained<CommandBuffer>) -> Retained<BlitEncoder> {
        let this = BlitEncoder::alloc().set_ivars(Open::new(command_buffer));
        // SAFETY: NSObject's init
        unsafe { msg_send![super(this), init] }
    }
}

pub(crate) struct ComputeVariables {
    open: Open,
    state: Mutex<Arguments>,
}

#[derive(Default)]
struct Arguments {
    kernel: Option<Kernel>,
    bound: BTreeMap<usize, Binding>,
    /// The lengths of arguments in threadgroup memory.
    threadgroup: BTreeMap<usize, usize>,
    /// The bound objects, which a dispatch keeps alive.
    objects: BTreeMap<usize, Retained<AnyObject>>,
}

/// The greatest length of `setBytes:length:atIndex:`:
/// <https://developer.apple.com/documentation/metal/mtlcomputecommandencoder/setbytes(_:length:index:)>
const MOST_BYTES: usize = 4096;
const MOST_BUFFERS: usize = 31;
/// The key of the pipeline in `Arguments::objects`. The other keys are indices of arguments.
const PIPELINE: usize = usize::MAX;

define_class!(
    // SAFETY: NSObject has no requirements on its subclasses
    #[unsafe(super(NSObject))]
    #[name = "SimComputeCommandEncoder"]
    #[ivars = ComputeVariables]
    pub(crate) struct ComputeEncoder;

    // SAFETY: as every subclass of NSObject
    unsafe impl NSObjectProtocol for ComputeEncoder {}

    // SAFETY: the methods have the types that the protocol gives them
    unsafe impl MTLCommandEncoder for ComputeEncoder {
        #[unsafe(method_id(device))]
        fn device(&self) -> Retained<ProtocolObject<dyn MTLDevice>> {
            self.open().command_buffer.device_of().object.clone()
        }

        #[unsafe(method_id(label))]
        fn label(&self) -> Option<Retained<NSString>> {
            lock(&self.open().label).clone()
        }

        #[unsafe(method(setLabel:))]
        fn set_label(&self, label: Option<&NSString>) {
            *lock(&self.open().label) = label.map(Message::retain);
        }

        #[unsafe(method(endEncoding))]
        fn end_encoding(&self) {
            self.open().end();
        }
    }

    // SAFETY: the methods have the types that the protocol gives them
    unsafe impl MTLComputeCommandEncoder for ComputeEncoder {
        #[unsafe(method(setComputePipelineState:))]
        fn set_pipeline(&self, pipeline: &ProtocolObject<dyn MTLComputePipelineState>) {
            let object: &AnyObject = pipeline.as_ref();
            let Some(known) = object.downcast_ref::<Pipeline>() else {
                return report::violation(
                    "setComputePipelineState: with a pipeline that is not the stand-in's",
                );
            };
            if self.open().is_open("setComputePipelineState:") {
                let mut state = lock(&self.ivars().state);
                state.kernel = Some(known.kernel());
                state.objects.insert(PIPELINE, object.retain());
            }
        }

        #[unsafe(method(setBuffer:offset:atIndex:))]
        fn set_buffer(
            &self,
            buffer: Option<&ProtocolObject<dyn MTLBuffer>>,
            offset: usize,
            index: usize,
        ) {
            let what = "setBuffer:offset:atIndex:";
            let Some(buffer) = buffer else {
                let mut state = lock(&self.ivars().state);
                state.bound.remove(&index);
                state.objects.remove(&index);
                return;
            };
            if let Some(buffer) = self.open().buffer(what, buffer)
                && is_inside(what, buffer.memory(), offset, 0)
            {
                let binding = Binding {
                    memory: buffer.memory().clone(),
                    offset,
                };
                self.bind(what, index, binding, Some(buffer));
            }
        }

        #[unsafe(method(setBytes:length:atIndex:))]
        fn set_bytes(&self, bytes: NonNull<c_void>, length: usize, index: usize) {
            let what = "setBytes:length:atIndex:";
            if length > MOST_BYTES {
                return report::violation(&format!("{what}: more than {MOST_BYTES} bytes"));
            }
            // SAFETY: the caller vouches for as many bytes
            let bytes = unsafe { std::slice::from_raw_parts(bytes.cast().as_ptr(), length) };
            let memory = Arc::new(Memory::new(length));
            memory.write(0, bytes);
            self.bind(what, index, Binding { memory, offset: 0 }, None);
        }

        /// <https://developer.apple.com/documentation/metal/mtlcomputecommandencoder/setthreadgroupmemorylength(_:index:)>
        #[unsafe(method(setThreadgroupMemoryLength:atIndex:))]
        fn set_threadgroup_memory(&self, length: usize, index: usize) {
            let what = "setThreadgroupMemoryLength:atIndex:";
            if !length.is_multiple_of(16) {
                return report::violation(&format!("{what}: {length} is no multiple of 16"));
            }
            if index >= MOST_BUFFERS {
                return report::violation(&format!("{what}: index {index} of {MOST_BUFFERS}"));
            }
            if self.open().is_open(what) {
                let mut state = lock(&self.ivars().state);
                state.threadgroup.insert(index, length);
            }
        }

        #[unsafe(method(dispatchThreadgroups:threadsPerThreadgroup:))]
        fn dispatch_groups(&self, groups: MTLSize, threads: MTLSize) {
            let all = volume(groups).saturating_mul(volume(threads));
            self.dispatch(
                "dispatchThreadgroups:threadsPerThreadgroup:",
                all,
                volume(threads),
            );
        }

        #[unsafe(method(dispatchThreads:threadsPerThreadgroup:))]
        fn dispatch_threads(&self, all: MTLSize, threads: MTLSize) {
            self.dispatch(
                "dispatchThreads:threadsPerThreadgroup:",
                volume(all),
                volume(threads),
            );
        }

        /// Nothing to do: dispatches of one encoder do not overlap here.
        #[unsafe(method(memoryBarrierWithScope:))]
        fn memory_barrier(&self, _scope: MTLBarrierScope) {
            self.open().is_open("memoryBarrierWithScope:");
        }
    }
);

fn volume(size: MTLSize) -> usize {
    size.width
        .saturating_mul(size.height)
        .saturating_mul(size.depth)
}

impl ComputeEncoder {
    pub(crate) fn make(command_buffer: Retained<CommandBuffer>) -> Retained<ComputeEncoder> {
        let this = ComputeEncoder::alloc().set_ivars(ComputeVariables {
            open: Open::new(command_buffer),
            state: Mutex::default(),
        });
        // SAFETY: NSObject's init
        unsafe { msg_send![super(this), init] }
    }

    fn open(&self) -> &Open {
        &self.ivars().open
    }

    fn bind(&self, what: &str, index: usize, binding: Binding, object: Option<&AnyObject>) {
        if index >= MOST_BUFFERS {
            return report::violation(&format!("{what}: index {index} of {MOST_BUFFERS}"));
        }
        if !self.open().is_open(what) {
            return;
        }
        let mut state = lock(&self.ivars().state);
        state.bound.insert(index, binding);
        match object {
            Some(object) => state.objects.insert(index, object.retain()),
            None => state.objects.remove(&index),
        };
    }

    fn dispatch(&self, what: &str, invocations: usize, threads: usize) {
        let state = lock(&self.ivars().state);
        let Some(kernel) = state.kernel else {
            return report::violation(&format!("{what} without a compute pipeline state"));
        };
        if threads != kernel.threads() {
            let right = kernel.threads();
            report::violation(&format!(
                "{what}: {kernel:?} runs in groups of {right}, not of {threads}"
            ));
        }
        let device = &self.open().command_buffer.gpu().sim;
        match kernel.commands(&state.bound, &state.threadgroup, invocations, device) {
            Ok(commands) => {
                let used: Vec<&AnyObject> =
                    state.objects.values().map(|object| &**object).collect();
                self.open().encode(what, &used, commands);
            }
            Err(why) => report::violation(&format!("{what}: {kernel:?}: {why}")),
        }
    }
}

pub(crate) fn register() {
    BlitEncoder::class();
    ComputeEncoder::class();
}
