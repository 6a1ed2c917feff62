//! The runtime and the classes of Foundation, as objc2 sees them.
#![cfg(metal_sim)]

mod support;

use block2::RcBlock;
use fencepost_sim_metal::Control;
use objc2::rc::{Retained, Weak, autoreleasepool};
use objc2::runtime::{AnyClass, AnyObject, NSObject, NSObjectProtocol, ProtocolObject};
use objc2::{ClassType, Message, msg_send, sel};
use objc2_foundation::{NSArray, NSError, NSString};
use objc2_metal::*;
use std::collections::BTreeMap;
use support::*;

/// Alone on the machine, without looking at what is left: the test panics.
fn alone(test: impl FnOnce(&Gpu)) {
    let _session = Control.session(fencepost_sim_metal::Setup::seeded(1));
    autoreleasepool(|_| test(&Gpu::open()));
}

#[test]
fn strings_arrays_and_errors_say_what_they_hold() {
    with_seeds(1, |session| {
        let (first, second) = (NSString::from_str("fünf"), NSString::from_str("x"));
        assert_eq!(first.to_string(), "fünf");
        assert_eq!((first.len(), first.length()), (5, 4));
        assert_eq!(first, NSString::from_str("fünf"));
        assert_ne!(first, second);
        assert_eq!(first.hash(), NSString::from_str("fünf").hash());
        let list = NSArray::from_slice(&[&*first, &*second]);
        assert_eq!(list.to_vec().len(), 2);
        let texts: Vec<String> = list.iter().map(|text| text.to_string()).collect();
        assert_eq!(texts, ["fünf", "x"]);
        assert_eq!(list.firstObject().unwrap(), first);
        let error = NSError::new(7, &second);
        assert_eq!((error.code(), error.domain().to_string()), (7, "x".into()));
        // the error has a text too
        assert_eq!(session.live()["NSString"], 3);
    });
}

#[test]
fn weak_references_end_with_their_object() {
    with_seeds(1, |_| {
        let object = NSObject::new();
        let weak = Weak::from_retained(&object);
        let copy = weak.clone();
        assert_eq!(weak.load().as_deref(), Some(&*object));
        drop(object);
        assert!(weak.load().is_none() && copy.load().is_none());
    });
}

#[test]
fn objects_know_their_class() {
    with_seeds(1, |_| {
        let gpu = Gpu::open();
        let object: &AnyObject = gpu.queue.as_ref();
        assert_eq!(object.class().name(), c"SimCommandQueue");
        assert!(gpu.queue.isKindOfClass(NSObject::class()));
        assert!(!gpu.queue.isKindOfClass(NSString::class()));
        assert!(object.class().responds_to(sel!(commandBuffer)));
        assert_eq!(AnyClass::get(c"NSString"), Some(NSString::class()));
        assert_eq!(AnyClass::get(c"NSNothing"), None);
        assert!(format!("{:?}", gpu.event()).contains("SimSharedEvent"));
    });
}

#[test]
fn a_pool_releases_when_it_ends() {
    with_seeds(1, |session| {
        let gpu = Gpu::open();
        autoreleasepool(|_| {
            drop(gpu.command_buffer());
            assert_eq!(session.live()["SimCommandBuffer"], 1);
            autoreleasepool(|_| drop(gpu.command_buffer()));
            assert_eq!(session.live()["SimCommandBuffer"], 1);
        });
        assert!(!session.live().contains_key("SimCommandBuffer"));
    });
}

#[test]
fn blocks_are_freed_with_what_they_hold() {
    with_seeds(1, |session| {
        let event = Gpu::open().event();
        let held = event.clone();
        let block = RcBlock::new(move || {
            let _ = held.signaledValue();
        });
        let again = block.clone();
        again.call(());
        drop((event, block));
        assert_eq!(session.live()["SimSharedEvent"], 1);
        drop(again);
        assert_eq!(session.live(), BTreeMap::new());
    });
}

#[test]
fn dispatch_queues_run_work_in_order_with_a_pool() {
    with_seeds(1, |session| {
        let queue = dispatch2::DispatchQueue::new("in order", None);
        let (log, gpu) = (Log::default(), Gpu::open());
        for number in 0..20 {
            let (log, metal) = (log.clone(), gpu.queue.clone());
            queue.exec_async(move || {
                drop(metal.commandBuffer().unwrap());
                log.add(number);
            });
        }
        queue.exec_sync(|| {});
        assert_eq!(log.seen(), (0..20).collect::<Vec<_>>());
        let global = dispatch2::DispatchQueue::global_queue(
            dispatch2::GlobalQueueIdentifier::QualityOfService(dispatch2::DispatchQoS::Default),
        );
        let many = log.clone();
        global.exec_async(move || many.add(99));
        assert!(session.wait_idle(GENEROUS));
        assert_eq!(log.seen().len(), 21);
    });
}

#[test]
#[cfg_attr(
    not(debug_assertions),
    ignore = "objc2 checks messages in debug builds only"
)]
#[should_panic(expected = "method not found")]
fn a_wrong_selector() {
    alone(|gpu| {
        let event = gpu.event();
        // SAFETY: there is no such method, which is the point
        let _: u64 = unsafe { msg_send![&event, signalledValue] };
    });
}

#[test]
#[cfg_attr(
    not(debug_assertions),
    ignore = "objc2 checks messages in debug builds only"
)]
#[should_panic(expected = "expected return to have type code")]
fn a_wrong_return_type() {
    alone(|gpu| {
        let event = gpu.event();
        // SAFETY: another type is returned, which is the point
        let _: u32 = unsafe { msg_send![&event, signaledValue] };
    });
}

#[test]
#[cfg_attr(
    not(debug_assertions),
    ignore = "objc2 checks messages in debug builds only"
)]
#[should_panic(expected = "expected argument at index 0 to have type code")]
fn a_wrong_argument_type() {
    alone(|gpu| {
        let event = gpu.event();
        // SAFETY: another type is taken, which is the point
        let _: () = unsafe { msg_send![&event, setSignaledValue: 1_i32] };
    });
}

#[test]
#[should_panic(expected = "newSharedEventHandle")]
fn a_method_that_is_not_simulated() {
    alone(|gpu| {
        let _ = gpu.event().newSharedEventHandle();
    });
}

#[test]
#[should_panic(expected = "release of a deallocated SimSharedEvent")]
fn an_over_release() {
    alone(|gpu| {
        let event = gpu.event();
        let pointer = Retained::as_ptr(&event).cast_mut();
        drop(event);
        // SAFETY: nobody owns this reference, which is the point
        drop(unsafe { Retained::from_raw(pointer) });
    });
}

#[test]
#[should_panic(expected = "signaledValue of a deallocated SimSharedEvent")]
fn a_use_after_free() {
    alone(|gpu| {
        let event = gpu.event();
        let pointer: *const ProtocolObject<dyn MTLSharedEvent> = Retained::as_ptr(&event);
        drop(event);
        // SAFETY: the object is dead, which is the point
        unsafe { (*pointer).signaledValue() };
    });
}

#[test]
#[should_panic(expected = "retain of a deallocated SimBuffer")]
fn a_retain_after_free() {
    alone(|gpu| {
        let buffer = gpu.buffer(4);
        let pointer = Retained::as_ptr(&buffer);
        drop(buffer);
        // SAFETY: the object is dead, which is the point
        drop(unsafe { (*pointer).retain() });
    });
}

#[test]
#[should_panic(expected = "release of a freed block")]
fn an_over_release_of_a_block() {
    alone(|_| {
        let block = RcBlock::new(|| {});
        let pointer = RcBlock::as_ptr(&block);
        drop(block);
        // SAFETY: nobody owns this reference, which is the point
        drop(unsafe { RcBlock::from_raw(pointer) });
    });
}

#[test]
fn memory_of_the_dead_is_not_used_again() {
    with_seeds(1, |_| {
        let gpu = Gpu::open();
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..200 {
            assert!(seen.insert(Retained::as_ptr(&gpu.event()).cast::<()>().addr()));
        }
    });
}

#[test]
fn a_mistake_is_also_written_down() {
    let session = Control.session(fencepost_sim_metal::Setup::seeded(1));
    let caught = std::panic::catch_unwind(|| {
        autoreleasepool(|_| {
            let buffer = Gpu::open().buffer(4);
            let pointer = Retained::as_ptr(&buffer);
            drop(buffer);
            // SAFETY: the object is dead, which is the point
            unsafe { (*pointer).length() }
        })
    });
    assert!(caught.is_err());
    let violations = session.violations();
    assert!(
        violations.len() == 1 && violations[0].contains("length of a deallocated SimBuffer"),
        "{violations:?}"
    );
}
