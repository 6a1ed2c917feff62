//! `MTLCommandQueue`: <https://developer.apple.com/documentation/metal/mtlcommandqueue>

use crate::command_buffer::CommandBuffer;
use crate::gpu::DeviceRef;
use crate::report;
use fencepost_sim::{Queue, lock};
use objc2::rc::{Allocated, Retained};
use objc2::runtime::{AnyObject, NSObject, NSObjectProtocol, ProtocolObject};
use objc2::{AnyThread, ClassType, DefinedClass, Message, define_class, msg_send};
use objc2_foundation::NSString;
use objc2_metal::{MTLCommandBuffer, MTLCommandBufferDescriptor, MTLCommandQueue, MTLDevice};
use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// How many uncompleted command buffers a queue has, and how many it may have.
pub(crate) struct Capacity {
    used: Mutex<usize>,
    most: usize,
    left: Condvar,
}

/// A permit to be one of the uncompleted command buffers of a queue.
pub(crate) struct Permit(Arc<Capacity>);

impl Drop for Permit {
    fn drop(&mut self) {
        *lock(&self.0.used) -= 1;
        self.0.left.notify_one();
    }
}

pub(crate) struct QueueVariables {
    sim: Queue,
    device: DeviceRef,
    capacity: Arc<Capacity>,
    /// The enqueued command buffers that are not submitted. One that is not committed blocks the
    /// later ones.
    enqueued: Mutex<VecDeque<Retained<CommandBuffer>>>,
    label: Mutex<Option<Retained<NSString>>>,
}

define_class!(
    // SAFETY: NSObject has no requirements on its subclasses
    #[unsafe(super(NSObject))]
    #[name = "SimCommandQueue"]
    #[ivars = QueueVariables]
    pub(crate) struct CommandQueue;

    // SAFETY: as every subclass of NSObject
    unsafe impl NSObjectProtocol for CommandQueue {}

    // SAFETY: the methods have the types that the protocol gives them
    unsafe impl MTLCommandQueue for CommandQueue {
        #[unsafe(method_id(device))]
        fn device(&self) -> Retained<ProtocolObject<dyn MTLDevice>> {
            self.ivars().device.object.clone()
        }

        #[unsafe(method_id(label))]
        fn label(&self) -> Option<Retained<NSString>> {
            lock(&self.ivars().label).clone()
        }

        #[unsafe(method(setLabel:))]
        fn set_label(&self, label: Option<&NSString>) {
            *lock(&self.ivars().label) = label.map(Message::retain);
        }

        #[unsafe(method_id(commandBuffer))]
        fn command_buffer(&self) -> Option<Retained<ProtocolObject<dyn MTLCommandBuffer>>> {
            self.make_command_buffer(true)
        }

        #[unsafe(method_id(commandBufferWithUnretainedReferences))]
        fn command_buffer_unretained(
            &self,
        ) -> Option<Retained<ProtocolObject<dyn MTLCommandBuffer>>> {
            self.make_command_buffer(false)
        }

        #[unsafe(method_id(commandBufferWithDescriptor:))]
        fn command_buffer_described(
            &self,
            descriptor: &MTLCommandBufferDescriptor,
        ) -> Option<Retained<ProtocolObject<dyn MTLCommandBuffer>>> {
            let object: &AnyObject = descriptor.as_ref();
            let retained = object
                .downcast_ref::<Descriptor>()
                .is_none_or(|described| described.ivars().retained.get());
            self.make_command_buffer(retained)
        }
    }
);

// SAFETY: everything in it is thread-safe or behind a lock
unsafe impl Send for CommandQueue {}
// SAFETY: as above
unsafe impl Sync for CommandQueue {}

impl CommandQueue {
    /// `None` on a removed device.
    pub(crate) fn make(device: DeviceRef, most: usize) -> Option<Retained<CommandQueue>> {
        if most == 0 {
            report::violation("newCommandQueueWithMaxCommandBufferCount: with 0");
        }
        let this = CommandQueue::alloc().set_ivars(QueueVariables {
            sim: device.gpu.new_queue()?,
            device,
            capacity: Arc::new(Capacity {
                used: Mutex::new(0),
                most: most.max(1),
                left: Condvar::new(),
            }),
            enqueued: Mutex::default(),
            label: Mutex::new(None),
        });
        // SAFETY: NSObject's init
        unsafe { msg_send![super(this), init] }
    }

    /// The stand-in's object behind the protocol; `None` for any other.
    pub(crate) fn from_protocol(
        queue: &ProtocolObject<dyn MTLCommandQueue>,
    ) -> Option<&CommandQueue> {
        let object: &AnyObject = queue.as_ref();
        object.downcast_ref()
    }

    pub(crate) fn sim(&self) -> &Queue {
        &self.ivars().sim
    }

    pub(crate) fn device_of(&self) -> &DeviceRef {
        &self.ivars().device
    }

    fn make_command_buffer(
        &self,
        retained: bool,
    ) -> Option<Retained<ProtocolObject<dyn MTLCommandBuffer>>> {
        if report::is_refused("commandBuffer") {
            return None;
        }
        let permit = self.acquire_permit();
        let buffer = CommandBuffer::make(self.retain(), permit, retained);
        Some(ProtocolObject::from_retained(buffer))
    }

    /// Blocks while the queue has as many uncompleted command buffers as it may have.
    fn acquire_permit(&self) -> Permit {
        let QueueVariables {
            capacity, device, ..
        } = self.ivars();
        let gpu = &device.gpu;
        let mut used = lock(&capacity.used);
        let mut counted = false;
        while *used >= capacity.most && !gpu.is_removed() {
            if !counted {
                gpu.blocked.fetch_add(1, Ordering::SeqCst);
                counted = true;
            }
            // polls, since a removal wakes no thread here
            let again = Duration::from_millis(50);
            used = capacity
                .left
                .wait_timeout(used, again)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        if counted {
            gpu.blocked.fetch_sub(1, Ordering::SeqCst);
        }
        *used += 1;
        Permit(capacity.clone())
    }

    /// Appends a command buffer to the queue.
    pub(crate) fn enqueue(&self, buffer: &CommandBuffer) {
        lock(&self.ivars().enqueued).push_back(buffer.retain());
    }

    /// Submits the committed command buffers that have no uncommitted one before them.
    pub(crate) fn flush(&self) {
        let mut submitted = Vec::new();
        let mut enqueued = lock(&self.ivars().enqueued);
        while enqueued.front().is_some_and(|first| first.is_committed()) {
            if let Some(buffer) = enqueued.pop_front() {
                // with the lock held, so that the commits of two threads keep their order
                buffer.submit();
                submitted.push(buffer);
            }
        }
        drop(enqueued);
        // without the lock, since the last release may run code that calls this
        drop(submitted);
    }
}

pub(crate) struct DescriptorVariables {
    retained: Cell<bool>,
    error_options: Cell<usize>,
}

define_class!(
    // SAFETY: NSObject has no requirements on its subclasses
    #[unsafe(super(NSObject))]
    #[name = "MTLCommandBufferDescriptor"]
    #[ivars = DescriptorVariables]
    struct Descriptor;

    impl Descriptor {
        #[unsafe(method_id(init))]
        fn init_default(this: Allocated<Self>) -> Retained<Self> {
            let this = this.set_ivars(DescriptorVariables {
                retained: Cell::new(true),
                error_options: Cell::new(0),
            });
            // SAFETY: NSObject's init
            unsafe { msg_send![super(this), init] }
        }

        #[unsafe(method(retainedReferences))]
        fn retained_references(&self) -> bool {
            self.ivars().retained.get()
        }

        #[unsafe(method(setRetainedReferences:))]
        fn set_retained_references(&self, retained: bool) {
            self.ivars().retained.set(retained);
        }

        /// Stored only: detailed errors are not simulated.
        #[unsafe(method(errorOptions))]
        fn error_options(&self) -> usize {
            self.ivars().error_options.get()
        }

        #[unsafe(method(setErrorOptions:))]
        fn set_error_options(&self, options: usize) {
            self.ivars().error_options.set(options);
        }
    }
);

pub(crate) fn register() {
    CommandQueue::class();
    Descriptor::class();
}
