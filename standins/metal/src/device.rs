//! `MTLDevice`: <https://developer.apple.com/documentation/metal/mtldevice>

use crate::buffer::Buffer;
use crate::event::SharedEvent;
use crate::gpu::{BOOT_NS, DeviceRef, Gpu};
use crate::library::{Library, Pipeline, nil_with_error};
use crate::queue::CommandQueue;
use crate::{report, runtime};
use objc2::rc::Retained;
use objc2::runtime::{AnyObject, NSObject, NSObjectProtocol, ProtocolObject, Sel};
use objc2::{AnyThread, ClassType, DefinedClass, Message, define_class, msg_send, sel};
use objc2_foundation::{NSError, NSString};
use objc2_metal::{
    MTLBuffer, MTLCommandQueue, MTLCompileOptions, MTLComputePipelineState, MTLDevice, MTLFunction,
    MTLGPUFamily, MTLLibrary, MTLResourceOptions, MTLSharedEvent, MTLSize, MTLTimestamp,
};
use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering;

define_class!(
    // SAFETY: NSObject has no requirements on its subclasses
    #[unsafe(super(NSObject))]
    #[name = "SimDevice"]
    #[ivars = Arc<Gpu>]
    pub(crate) struct Device;

    // SAFETY: as every subclass of NSObject
    unsafe impl NSObjectProtocol for Device {
        /// The methods that an older system lacks can be called nevertheless, by code that does not
        /// ask.
        #[unsafe(method(respondsToSelector:))]
        fn responds(&self, selector: Sel) -> bool {
            let is_new = selector == sel!(supportsFamily:);
            self.class().responds_to(selector) && !(is_new && self.gpu().setup.is_before_10_15)
        }
    }

    // SAFETY: the methods have the types that the protocol gives them
    unsafe impl MTLDevice for Device {
        #[unsafe(method_id(name))]
        fn name(&self) -> Retained<NSString> {
            let number = self.gpu().sim.number();
            NSString::from_str(&format!("fencepost stand-in for Metal {number}"))
        }

        #[unsafe(method(registryID))]
        fn registry_id(&self) -> u64 {
            0x5_1e00_0000 + self.gpu().sim.number() as u64
        }

        #[unsafe(method(hasUnifiedMemory))]
        fn has_unified_memory(&self) -> bool {
            true
        }

        /// The families of the first Macs with Apple silicon.
        #[unsafe(method(supportsFamily:))]
        fn supports_family(&self, family: MTLGPUFamily) -> bool {
            let (apple, common) = (MTLGPUFamily::Apple7, MTLGPUFamily::Common3);
            (MTLGPUFamily::Apple1..=apple).contains(&family)
                || (MTLGPUFamily::Common1..=common).contains(&family)
                || family == MTLGPUFamily::Metal3
        }

        #[unsafe(method(isLowPower))]
        fn is_low_power(&self) -> bool {
            false
        }

        #[unsafe(method(isHeadless))]
        fn is_headless(&self) -> bool {
            true
        }

        #[unsafe(method(isRemovable))]
        fn is_removable(&self) -> bool {
            true
        }

        #[unsafe(method(maxThreadsPerThreadgroup))]
        fn max_threads(&self) -> MTLSize {
            MTLSize { width: 1024, height: 1024, depth: 1024 }
        }

        #[unsafe(method(maxBufferLength))]
        fn max_buffer_length(&self) -> usize {
            1 << 32
        }

        /// Host nanoseconds and ticks of the device's clock, read at about the same moment.
        #[unsafe(method(sampleTimestamps:gpuTimestamp:))]
        fn sample_timestamps(&self, cpu: NonNull<MTLTimestamp>, gpu: NonNull<MTLTimestamp>) {
            let both = self.gpu().sim.calibrate();
            // SAFETY: the caller passes places for one number each
            unsafe {
                cpu.write(BOOT_NS + both.host_ns);
                gpu.write(both.device_tick);
            }
        }

        #[unsafe(method_id(newCommandQueue))]
        fn new_command_queue(&self) -> Option<Retained<ProtocolObject<dyn MTLCommandQueue>>> {
            self.make_queue(self.gpu().setup.command_buffers)
        }

        #[unsafe(method_id(newCommandQueueWithMaxCommandBufferCount:))]
        fn new_command_queue_with_max(
            &self,
            most: usize,
        ) -> Option<Retained<ProtocolObject<dyn MTLCommandQueue>>> {
            self.make_queue(most)
        }

        #[unsafe(method_id(newSharedEvent))]
        fn new_shared_event(&self) -> Option<Retained<ProtocolObject<dyn MTLSharedEvent>>> {
            let refused = report::is_refused("newSharedEvent");
            let given = !refused && self.gpu().shared_events.load(Ordering::SeqCst);
            let event = given.then(|| SharedEvent::make(self.reference())).flatten();
            event.map(ProtocolObject::from_retained)
        }

        #[unsafe(method_id(newBufferWithLength:options:))]
        fn new_buffer(
            &self,
            length: usize,
            options: MTLResourceOptions,
        ) -> Option<Retained<ProtocolObject<dyn MTLBuffer>>> {
            self.make_buffer(length, options).map(ProtocolObject::from_retained)
        }

        #[unsafe(method_id(newBufferWithBytes:length:options:))]
        fn new_buffer_with_bytes(
            &self,
            bytes: NonNull<c_void>,
            length: usize,
            options: MTLResourceOptions,
        ) -> Option<Retained<ProtocolObject<dyn MTLBuffer>>> {
            let buffer = self.make_buffer(length, options);
            if let Some(buffer) = &buffer {
                // SAFETY: the caller vouches for as many bytes
                let bytes = unsafe { std::slice::from_raw_parts(bytes.cast().as_ptr(), length) };
                buffer.memory().write(0, bytes);
            }
            buffer.map(ProtocolObject::from_retained)
        }

        #[unsafe(method_id(newLibraryWithSource:options:error:))]
        fn new_library(
            &self,
            source: &NSString,
            _options: Option<&MTLCompileOptions>,
            error: *mut *mut NSError,
        ) -> Option<Retained<ProtocolObject<dyn MTLLibrary>>> {
            let made = match report::is_refused("newLibraryWithSource:options:error:") {
                true => Err(Library::refused()),
                false => Library::compile(self.reference(), source),
            };
            nil_with_error(made, error).map(ProtocolObject::from_retained)
        }

        #[unsafe(method_id(newComputePipelineStateWithFunction:error:))]
        fn new_pipeline(
            &self,
            function: &ProtocolObject<dyn MTLFunction>,
            error: *mut *mut NSError,
        ) -> Option<Retained<ProtocolObject<dyn MTLComputePipelineState>>> {
            let made = match report::is_refused("newComputePipelineStateWithFunction:error:") {
                true => Err(Pipeline::refused()),
                false => Pipeline::build(self.reference(), function),
            };
            nil_with_error(made, error).map(ProtocolObject::from_retained)
        }
    }
);

// SAFETY: everything in it is thread-safe
unsafe impl Send for Device {}
// SAFETY: as above
unsafe impl Sync for Device {}

impl Device {
    /// A device that the machine keeps. It counts as live only while other code has a reference
    /// too.
    pub(crate) fn make(gpu: Arc<Gpu>) -> Retained<Device> {
        let this = Device::alloc().set_ivars(gpu);
        // SAFETY: NSObject's init
        let device: Retained<Device> = unsafe { msg_send![super(this), init] };
        runtime::make_permanent(Retained::as_ptr(&device).cast());
        device
    }

    pub(crate) fn gpu(&self) -> &Arc<Gpu> {
        self.ivars()
    }

    fn reference(&self) -> DeviceRef {
        DeviceRef {
            object: ProtocolObject::from_retained(self.retain()),
            gpu: self.gpu().clone(),
        }
    }

    /// The stand-in's object behind the protocol; `None` for any other.
    pub(crate) fn from_protocol(device: &ProtocolObject<dyn MTLDevice>) -> Option<&Device> {
        let object: &AnyObject = device.as_ref();
        object.downcast_ref()
    }

    fn make_queue(&self, most: usize) -> Option<Retained<ProtocolObject<dyn MTLCommandQueue>>> {
        if report::is_refused("newCommandQueue") {
            return None;
        }
        CommandQueue::make(self.reference(), most).map(ProtocolObject::from_retained)
    }

    fn make_buffer(&self, length: usize, options: MTLResourceOptions) -> Option<Retained<Buffer>> {
        if report::is_refused("newBufferWithLength:options:") || self.gpu().is_removed() {
            return None;
        }
        if length == 0 {
            report::violation("newBufferWithLength:options: with a length of 0");
            return None;
        }
        Some(Buffer::make(self.reference(), length, options))
    }
}

pub(crate) fn register() {
    Device::class();
}
