//! `MTLBuffer`: <https://developer.apple.com/documentation/metal/mtlbuffer>

use crate::gpu::{DeviceRef, Gpu};
use crate::memory::Memory;
use crate::report;
use fencepost_sim::lock;
use objc2::rc::Retained;
use objc2::runtime::{NSObject, NSObjectProtocol, ProtocolObject};
use objc2::{AnyThread, ClassType, DefinedClass, Message, define_class, msg_send};
use objc2_foundation::{NSRange, NSString};
use objc2_metal::{MTLAllocation, MTLBuffer, MTLDevice, MTLResource, MTLResourceOptions};
use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex};

pub(crate) struct BufferVariables {
    memory: Arc<Memory>,
    device: DeviceRef,
    options: MTLResourceOptions,
    label: Mutex<Option<Retained<NSString>>>,
}

define_class!(
    // SAFETY: NSObject has no requirements on its subclasses
    #[unsafe(super(NSObject))]
    #[name = "SimBuffer"]
    #[ivars = BufferVariables]
    pub(crate) struct Buffer;

    // SAFETY: as every subclass of NSObject
    unsafe impl NSObjectProtocol for Buffer {}

    // SAFETY: the methods have the types that the protocol gives them
    unsafe impl MTLAllocation for Buffer {
        #[unsafe(method(allocatedSize))]
        fn allocated_size(&self) -> usize {
            self.memory().length()
        }
    }

    // SAFETY: the methods have the types that the protocol gives them
    unsafe impl MTLResource for Buffer {
        #[unsafe(method_id(label))]
        fn label(&self) -> Option<Retained<NSString>> {
            lock(&self.ivars().label).clone()
        }

        #[unsafe(method(setLabel:))]
        fn set_label(&self, label: Option<&NSString>) {
            *lock(&self.ivars().label) = label.map(Message::retain);
        }

        #[unsafe(method_id(device))]
        fn device(&self) -> Retained<ProtocolObject<dyn MTLDevice>> {
            self.ivars().device.object.clone()
        }

        #[unsafe(method(resourceOptions))]
        fn resource_options(&self) -> MTLResourceOptions {
            self.ivars().options
        }
    }

    // SAFETY: the methods have the types that the protocol gives them
    unsafe impl MTLBuffer for Buffer {
        #[unsafe(method(length))]
        fn length(&self) -> usize {
            self.memory().length()
        }

        #[unsafe(method(contents))]
        fn contents(&self) -> NonNull<c_void> {
            if self
                .ivars()
                .options
                .contains(MTLResourceOptions::StorageModePrivate)
            {
                report::violation("contents of a private buffer, which is NULL on hardware");
            }
            self.memory().start()
        }

        #[unsafe(method(didModifyRange:))]
        fn did_modify_range(&self, _range: NSRange) {}
    }
);

// SAFETY: the memory consists of atomics, and the rest is behind a lock or never changes
unsafe impl Send for Buffer {}
// SAFETY: as above
unsafe impl Sync for Buffer {}

impl Buffer {
    pub(crate) fn make(
        device: DeviceRef,
        length: usize,
        options: MTLResourceOptions,
    ) -> Retained<Buffer> {
        let this = Buffer::alloc().set_ivars(BufferVariables {
            memory: Arc::new(Memory::new(length)),
            device,
            options,
            label: Mutex::new(None),
        });
        // SAFETY: NSObject's init
        unsafe { msg_send![super(this), init] }
    }

    pub(crate) fn memory(&self) -> &Arc<Memory> {
        &self.ivars().memory
    }

    pub(crate) fn gpu(&self) -> &Arc<Gpu> {
        &self.ivars().device.gpu
    }
}

pub(crate) fn register() {
    Buffer::class();
}
