//! `MTLSharedEvent` and its listener:
//! <https://developer.apple.com/documentation/metal/mtlsharedevent>

use crate::dispatch::{Carried, DispatchQueue};
use crate::gpu::{DeviceRef, Gpu};
use crate::{report, runtime};
use block2::{DynBlock, RcBlock};
use fencepost_sim::{Semaphore, Waited, lock};
use objc2::rc::{Allocated, Retained, Weak};
use objc2::runtime::{AnyObject, NSObject, NSObjectProtocol, ProtocolObject};
use objc2::{AnyThread, ClassType, DefinedClass, Message, define_class, msg_send};
use objc2_foundation::NSString;
use objc2_metal::{MTLDevice, MTLEvent, MTLSharedEvent};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

type Block = DynBlock<dyn Fn(NonNull<ProtocolObject<dyn MTLSharedEvent>>, u64)>;

pub(crate) struct EventVariables {
    semaphore: Semaphore,
    device: DeviceRef,
    label: Mutex<Option<Retained<NSString>>>,
}

define_class!(
    // SAFETY: NSObject has no requirements on its subclasses
    #[unsafe(super(NSObject))]
    #[name = "SimSharedEvent"]
    #[ivars = EventVariables]
    pub(crate) struct SharedEvent;

    // SAFETY: as every subclass of NSObject
    unsafe impl NSObjectProtocol for SharedEvent {}

    // SAFETY: the methods have the types that the protocol gives them
    unsafe impl MTLEvent for SharedEvent {
        #[unsafe(method_id(device))]
        fn device(&self) -> Option<Retained<ProtocolObject<dyn MTLDevice>>> {
            Some(self.ivars().device.object.clone())
        }

        #[unsafe(method_id(label))]
        fn label(&self) -> Option<Retained<NSString>> {
            lock(&self.ivars().label).clone()
        }

        #[unsafe(method(setLabel:))]
        fn set_label(&self, label: Option<&NSString>) {
            *lock(&self.ivars().label) = label.map(Message::retain);
        }
    }

    // SAFETY: the methods have the types that the protocol gives them
    unsafe impl MTLSharedEvent for SharedEvent {
        #[unsafe(method(signaledValue))]
        fn signaled_value(&self) -> u64 {
            self.value()
        }

        #[unsafe(method(setSignaledValue:))]
        fn set_signaled_value(&self, value: u64) {
            let current = self.value();
            if value < current {
                report::violation(&format!(
                    "setSignaledValue: lowers a shared event's value from {current} to {value}"
                ));
            } else if value > current {
                // fails only for a destroyed semaphore, and this one is never destroyed
                let _ = self.semaphore().signal(value);
            }
        }

        #[unsafe(method(waitUntilSignaledValue:timeoutMS:))]
        fn wait_until(&self, value: u64, milliseconds: u64) -> bool {
            let timeout = (milliseconds < u64::MAX).then(|| Duration::from_millis(milliseconds));
            match self.semaphore().wait(value, timeout) {
                Ok(waited) => waited == Waited::Reached,
                // the documentation does not say that a removed device ends such a wait
                Err(_) => {
                    let reached = || self.value() >= value;
                    self.gpu().sim.wait_until(timeout, reached) == Waited::Reached
                }
            }
        }

        #[unsafe(method(notifyListener:atValue:block:))]
        fn notify(&self, listener: &Listener, value: u64, block: *mut Block) {
            // SAFETY: the caller passes a block
            let Some(block) = (unsafe { RcBlock::copy(block) }) else {
                return report::violation("notifyListener:atValue:block: with no block");
            };
            let gpu = self.gpu().clone();
            let worker = listener.ivars().worker().clone();
            // the documentation does not say whether a listener retains its event; here it does not
            let event = Carried((Weak::new(self), block));
            // fails only for a destroyed semaphore, and this one is never destroyed
            let _ = self.semaphore().notify(value, move |reached| {
                let call = move || {
                    let (event, block) = event.into_inner();
                    if let Some(event) = event.load() {
                        let event = ProtocolObject::from_ref(&*event);
                        block.call((NonNull::from(event), reached));
                    }
                };
                gpu.callbacks.deliver(&worker, Box::new(call));
            });
        }
    }
);

// SAFETY: everything in it is thread-safe or behind a lock
unsafe impl Send for SharedEvent {}
// SAFETY: as above
unsafe impl Sync for SharedEvent {}

impl SharedEvent {
    /// `None` on a removed device.
    pub(crate) fn make(device: DeviceRef) -> Option<Retained<SharedEvent>> {
        let this = SharedEvent::alloc().set_ivars(EventVariables {
            semaphore: device.gpu.sim.new_semaphore(0).ok()?,
            device,
            label: Mutex::new(None),
        });
        // SAFETY: NSObject's init
        unsafe { msg_send![super(this), init] }
    }

    /// The stand-in's object behind the protocol; `None` for any other.
    pub(crate) fn from_protocol(event: &ProtocolObject<dyn MTLEvent>) -> Option<&SharedEvent> {
        let object: &AnyObject = event.as_ref();
        object.downcast_ref()
    }

    pub(crate) fn semaphore(&self) -> &Semaphore {
        &self.ivars().semaphore
    }

    fn gpu(&self) -> &Arc<Gpu> {
        &self.ivars().device.gpu
    }

    fn value(&self) -> u64 {
        self.semaphore().value().unwrap_or(0)
    }
}

define_class!(
    // SAFETY: NSObject has no requirements on its subclasses
    #[unsafe(super(NSObject))]
    #[name = "MTLSharedEventListener"]
    #[ivars = Retained<DispatchQueue>]
    pub(crate) struct Listener;

    impl Listener {
        #[unsafe(method_id(init))]
        fn init_alone(this: Allocated<Self>) -> Option<Retained<Self>> {
            let queue = DispatchQueue::serial(c"MTLSharedEventListener (stand-in)");
            queue.and_then(|queue| Listener::fill(this, queue))
        }

        #[unsafe(method_id(initWithDispatchQueue:))]
        fn init_with_queue(this: Allocated<Self>, queue: &DispatchQueue) -> Option<Retained<Self>> {
            Listener::fill(this, queue.retain())
        }

        #[unsafe(method_id(dispatchQueue))]
        fn dispatch_queue(&self) -> Retained<DispatchQueue> {
            self.ivars().clone()
        }

        #[unsafe(method_id(sharedListener))]
        fn shared() -> Option<Retained<Listener>> {
            static SHARED: OnceLock<Option<Carried<Retained<Listener>>>> = OnceLock::new();
            let shared = SHARED.get_or_init(|| {
                let queue = DispatchQueue::serial(c"shared MTLSharedEventListener (stand-in)")?;
                runtime::make_permanent(Retained::as_ptr(&queue).cast());
                let listener = Listener::fill(Listener::alloc(), queue)?;
                runtime::make_permanent(Retained::as_ptr(&listener).cast());
                Some(Carried(listener))
            });
            shared.as_ref().map(|shared| shared.0.clone())
        }
    }
);

impl Listener {
    fn fill(
        this: Allocated<Listener>,
        queue: Retained<DispatchQueue>,
    ) -> Option<Retained<Listener>> {
        let this = this.set_ivars(queue);
        // SAFETY: NSObject's init
        unsafe { msg_send![super(this), init] }
    }
}

pub(crate) fn register() {
    SharedEvent::class();
    Listener::class();
}
