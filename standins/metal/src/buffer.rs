//! `MTLBuffer`: <https://developer.apple.com/documentation/metal/mtlbuffer>

use crate::device::Device;
use crate::machine::lock;
use objc2::rc::Retained;
use objc2::runtime::{NSObject, NSObjectProtocol, ProtocolObject};
use objc2::{AnyThread, ClassType, DefinedClass, Message, define_class, msg_send};
use objc2_foundation::{NSRange, NSString};
use objc2_metal::{MTLAllocation, MTLBuffer, MTLDevice, MTLResource, MTLResourceOptions};
use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex};

/// Memory that host and device share. As on hardware, who looks at it while work writes to it sees
/// anything.
pub(crate) struct Memory {
    words: Box<[AtomicU32]>,
    length: usize,
}

impl Memory {
    pub(crate) fn new(length: usize) -> Memory {
        Memory {
            words: (0..length.div_ceil(4)).map(|_| AtomicU32::new(0)).collect(),
            length,
        }
    }

    pub(crate) fn length(&self) -> usize {
        self.length
    }

    /// The words from a byte offset on, which is a multiple of 4; those wholly inside.
    pub(crate) fn words(&self, offset: usize) -> &[AtomicU32] {
        self.words[..self.length / 4]
            .get(offset / 4..)
            .unwrap_or_default()
    }

    pub(crate) fn start(&self) -> NonNull<c_void> {
        NonNull::from(&*self.words).cast()
    }

    /// Whether so many bytes from there on are inside.
    pub(crate) fn has(&self, offset: usize, length: usize) -> bool {
        offset
            .checked_add(length)
            .is_some_and(|end| end <= self.length)
    }

    pub(crate) fn fill(&self, range: NSRange, value: u8) {
        if self.has(range.location, range.length) {
            let to = self.start().cast::<u8>();
            // SAFETY: inside of the memory, and its words are atomics, which may be written through
            // a shared reference
            unsafe { to.add(range.location).write_bytes(value, range.length) };
        }
    }

    pub(crate) fn write(&self, offset: usize, bytes: &[u8]) {
        if self.has(offset, bytes.len()) {
            let to = self.start().cast::<u8>();
            // SAFETY: as in `fill`, and the bytes are elsewhere
            unsafe {
                to.add(offset)
                    .as_ptr()
                    .copy_from_nonoverlapping(bytes.as_ptr(), bytes.len())
            };
        }
    }

    pub(crate) fn copy(&self, from: usize, to: &Memory, at: usize, length: usize) {
        if self.has(from, length) && to.has(at, length) {
            let source = self.start().cast::<u8>();
            let target = to.start().cast::<u8>();
            // SAFETY: as in `fill`; both may be one memory, so the ranges may overlap
            unsafe {
                target
                    .add(at)
                    .as_ptr()
                    .copy_from(source.add(from).as_ptr(), length)
            };
        }
    }
}

pub(crate) struct BufferVariables {
    memory: Arc<Memory>,
    device: Retained<Device>,
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
            ProtocolObject::from_retained(self.ivars().device.clone())
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
                crate::report::violation("contents of a private buffer, which gives NULL");
            }
            self.memory().start()
        }

        #[unsafe(method(didModifyRange:))]
        fn did_modify_range(&self, _range: NSRange) {}
    }
);

// SAFETY: the memory is made of atomics, the rest is behind a lock or never changes
unsafe impl Send for Buffer {}
// SAFETY: as above
unsafe impl Sync for Buffer {}

impl Buffer {
    pub(crate) fn make(
        device: &Device,
        length: usize,
        options: MTLResourceOptions,
    ) -> Retained<Buffer> {
        let this = Buffer::alloc().set_ivars(BufferVariables {
            memory: Arc::new(Memory::new(length)),
            device: device.retain(),
            options,
            label: Mutex::new(None),
        });
        // SAFETY: NSObject's init
        unsafe { msg_send![super(this), init] }
    }

    pub(crate) fn memory(&self) -> &Arc<Memory> {
        &self.ivars().memory
    }

    pub(crate) fn device_of(&self) -> &Device {
        &self.ivars().device
    }
}

pub(crate) fn register() {
    Buffer::class();
}
