//! Misuse of Metal, and the violations that the stand-in reports.
#![cfg(metal_sim)]

mod support;

use objc2::rc::autoreleasepool;
use objc2::runtime::ProtocolObject;
use objc2_metal::*;
use std::ptr::NonNull;
use support::*;

#[test]
fn a_second_commit() {
    violates(
        &["commit of a command buffer that was already Committed"],
        |_| {
            let buffer = Gpu::open().command_buffer();
            buffer.commit();
            buffer.commit();
            buffer.waitUntilCompleted();
        },
    );
}

#[test]
fn an_enqueue_too_late() {
    let words = [
        "enqueue of a command buffer that was already Enqueued",
        "enqueue of a command buffer that was already Committed",
    ];
    violates(&words, |_| {
        let buffer = Gpu::open().command_buffer();
        buffer.enqueue();
        buffer.enqueue();
        buffer.commit();
        buffer.enqueue();
    });
}

#[test]
fn a_commit_with_an_open_encoder() {
    violates(
        &["commit of a command buffer whose encoder is open"],
        |_| {
            let buffer = Gpu::open().command_buffer();
            let blit = buffer.blitCommandEncoder().unwrap();
            buffer.commit();
            blit.endEncoding();
            buffer.waitUntilCompleted();
        },
    );
}

#[test]
fn an_encoder_that_is_never_ended() {
    violates(
        &[
            "released without endEncoding",
            "released without endEncoding",
        ],
        |_| {
            let gpu = Gpu::open();
            autoreleasepool(|_| drop(gpu.command_buffer().blitCommandEncoder()));
            autoreleasepool(|_| drop(gpu.command_buffer().computeCommandEncoder()));
        },
    );
}

#[test]
fn an_encoder_used_after_its_end() {
    let words = [
        "fillBuffer:range:value: after endEncoding",
        "endEncoding of an encoder that has ended",
        "setBytes:length:atIndex: after endEncoding",
        "memoryBarrierWithScope: after endEncoding",
    ];
    violates(&words, |_| {
        let gpu = Gpu::open();
        let (bytes, buffer) = (gpu.buffer(4), gpu.command_buffer());
        let blit = buffer.blitCommandEncoder().unwrap();
        blit.endEncoding();
        blit.fillBuffer_range_value(&bytes, (0..4).into(), 1);
        blit.endEncoding();
        let compute = buffer.computeCommandEncoder().unwrap();
        compute.memoryBarrierWithScope(MTLBarrierScope::Buffers);
        compute.endEncoding();
        set_word(&compute, 2, 1);
        compute.memoryBarrierWithScope(MTLBarrierScope::Buffers);
        buffer.commit();
        buffer.waitUntilCompleted();
        assert_eq!(word(&bytes, 0), 0);
    });
}

#[test]
fn two_encoders_at_once_and_events_between() {
    let words = [
        "computeCommandEncoder while another encoder is open",
        "encodeSignalEvent:value: while an encoder is open",
    ];
    violates(&words, |_| {
        let gpu = Gpu::open();
        let (event, buffer) = (gpu.event(), gpu.command_buffer());
        let blit = buffer.blitCommandEncoder().unwrap();
        let compute = buffer.computeCommandEncoder().unwrap();
        signal(&buffer, &event, 1);
        compute.endEncoding();
        blit.endEncoding();
    });
}

#[test]
fn encoding_and_handlers_after_the_commit() {
    let words = [
        "addCompletedHandler: while an encoder is open",
        "encodeSignalEvent:value: after commit",
        "encodeWaitForEvent:value: after commit",
        "blitCommandEncoder after commit",
        "fillBuffer:range:value: after commit",
        "addCompletedHandler: after commit",
        "addScheduledHandler: after commit",
    ];
    violates(&words, |session| {
        let gpu = Gpu::open();
        let (event, bytes) = (gpu.event(), gpu.buffer(4));
        let buffer = gpu.command_buffer();
        let blit = buffer.blitCommandEncoder().unwrap();
        on_completed(&buffer, |_| {});
        blit.endEncoding();
        buffer.commit();
        signal(&buffer, &event, 1);
        wait_for(&buffer, &event, 1);
        fill(&buffer, &bytes, 1);
        on_completed(&buffer, |_| panic!("never called"));
        on_scheduled(&buffer, |_| panic!("never called"));
        assert!(session.wait_idle(GENEROUS));
        assert_eq!((event.signaledValue(), word(&bytes, 0)), (0, 0));
    });
}

#[test]
fn waiting_for_what_was_not_committed() {
    violates(
        &[
            "waitUntilCompleted before commit",
            "waitUntilScheduled before commit",
        ],
        |_| {
            let buffer = Gpu::open().command_buffer();
            buffer.waitUntilCompleted();
            buffer.waitUntilScheduled();
        },
    );
}

#[test]
fn a_value_lowered_by_the_host_or_the_device() {
    let words = [
        "setSignaledValue: lowers a shared event's value from 5 to 4",
        "is at 5 and was signalled with 3",
    ];
    violates(&words, |_| {
        let gpu = Gpu::open();
        let event = gpu.event();
        event.setSignaledValue(5);
        // the same value again is no lower
        event.setSignaledValue(5);
        event.setSignaledValue(4);
        let buffer = gpu.command_buffer();
        signal(&buffer, &event, 3);
        buffer.commit();
        buffer.waitUntilCompleted();
        assert_eq!(event.signaledValue(), 5);
    });
}

#[test]
fn an_object_freed_under_a_buffer_that_retains_nothing() {
    let words = [
        "uses a deallocated SimBuffer",
        "uses a deallocated SimSharedEvent",
    ];
    violates(&words, |session| {
        let gpu = Gpu::open();
        let kept = gpu.buffer(4);
        session.pause_all();
        autoreleasepool(|_| {
            let (event, bytes) = (gpu.event(), gpu.buffer(4));
            let buffer = gpu.queue.commandBufferWithUnretainedReferences().unwrap();
            assert!(!buffer.retainedReferences());
            signal(&buffer, &event, 1);
            fill(&buffer, &bytes, 1);
            fill(&buffer, &kept, 1);
            buffer.commit();
        });
        session.resume_all();
        assert!(session.wait_idle(GENEROUS));
    });
}

/// Those are no resources: nothing says that a command buffer keeps them alive.
#[test]
fn an_event_freed_under_a_buffer_that_retains_resources() {
    violates(&["uses a deallocated SimSharedEvent"], |session| {
        let gpu = Gpu::open();
        session.pause_all();
        autoreleasepool(|_| {
            let (event, buffer) = (gpu.event(), gpu.command_buffer());
            signal(&buffer, &event, 1);
            buffer.commit();
        });
        session.resume_all();
        assert!(session.wait_idle(GENEROUS));
    });
}

#[test]
fn a_buffer_that_retains_keeps_what_it_uses_until_it_has_completed() {
    with_seeds(20, |session| {
        let gpu = Gpu::open();
        session.pause_all();
        let described = MTLCommandBufferDescriptor::new();
        autoreleasepool(|_| {
            let bytes = gpu.buffer(4);
            let buffer = gpu.queue.commandBufferWithDescriptor(&described).unwrap();
            assert!(buffer.retainedReferences());
            fill(&buffer, &bytes, 1);
            buffer.commit();
        });
        let live = session.live();
        assert_eq!((live["SimBuffer"], live["SimCommandBuffer"]), (1, 1));
        session.resume_all();
        assert!(session.wait_idle(GENEROUS));
        assert!(!session.live().contains_key("SimBuffer"));
    });
    with_seeds(1, |_| {
        let described = MTLCommandBufferDescriptor::new();
        described.setRetainedReferences(false);
        described.setErrorOptions(MTLCommandBufferErrorOption::EncoderExecutionStatus);
        let buffer = Gpu::open()
            .queue
            .commandBufferWithDescriptor(&described)
            .unwrap();
        assert!(!buffer.retainedReferences());
    });
}

#[test]
fn ranges_outside_of_a_buffer_and_buffers_without_length() {
    let words = [
        "fillBuffer:range:value:: outside of the buffer",
        "size:: outside of the buffer",
        "fillBuffer:range:value:: no bytes",
        "fillBuffer:range:value:: no multiples of 4",
        "size:: no multiples of 4",
        "contents of a private buffer",
        "setBuffer:offset:atIndex:: outside of the buffer",
        "with a length of 0",
    ];
    violates(&words, |_| {
        let gpu = Gpu::open();
        let (bytes, buffer) = (gpu.buffer(4), gpu.command_buffer());
        let blit = buffer.blitCommandEncoder().unwrap();
        blit.fillBuffer_range_value(&bytes, (2..6).into(), 1);
        // SAFETY: not inside of both, which the stand-in refuses
        unsafe {
            blit.copyFromBuffer_sourceOffset_toBuffer_destinationOffset_size(
                &bytes, 0, &bytes, 2, 4,
            )
        };
        blit.fillBuffer_range_value(&bytes, (0..0).into(), 1);
        blit.fillBuffer_range_value(&bytes, (0..3).into(), 1);
        // SAFETY: as above
        unsafe {
            blit.copyFromBuffer_sourceOffset_toBuffer_destinationOffset_size(
                &bytes, 0, &bytes, 2, 2,
            )
        };
        blit.endEncoding();
        let private = MTLResourceOptions::StorageModePrivate;
        let private = gpu.device.newBufferWithLength_options(4, private).unwrap();
        let _ = private.contents();
        let compute = buffer.computeCommandEncoder().unwrap();
        // SAFETY: as above
        unsafe { compute.setBuffer_offset_atIndex(Some(&bytes), 8, 0) };
        compute.endEncoding();
        assert!(
            gpu.device
                .newBufferWithLength_options(0, MTLResourceOptions::empty())
                .is_none()
        );
    });
}

#[test]
fn a_buffer_of_another_device() {
    violates(&["with a buffer of another device"], |_| {
        let gpu = Gpu::open();
        let other = MTLCopyAllDevices().iter().nth(1).unwrap();
        let bytes = other
            .newBufferWithLength_options(4, MTLResourceOptions::empty())
            .unwrap();
        fill(&gpu.command_buffer(), &bytes, 1);
    });
}

#[test]
fn a_thread_without_an_autorelease_pool() {
    violates(
        &["a SimCommandBuffer was autoreleased with no autorelease pool in place"],
        |session| {
            let gpu = Gpu::open();
            let queue = &gpu.queue;
            std::thread::scope(|threads| {
                let careless = threads.spawn(move || {
                    drop(queue.commandBuffer().unwrap());
                    // still there: it goes with the thread, as on macOS
                    assert_eq!(session.live()["SimCommandBuffer"], 1);
                });
                careless.join().unwrap();
            });
        },
    );
}

#[test]
fn a_panic_that_leaves_a_block() {
    violates(
        &["a panic left a block, which ends the process on macOS: on purpose"],
        |_| {
            let buffer = Gpu::open().command_buffer();
            on_completed(&buffer, |_| panic!("on purpose"));
            buffer.commit();
            buffer.waitUntilCompleted();
        },
    );
}

#[test]
fn work_that_waits_for_itself_on_a_dispatch_queue() {
    violates(
        &["dispatch_sync to the queue that the caller runs on"],
        |session| {
            let queue = dispatch2::DispatchQueue::new("test", None);
            let (same, (sender, receiver)) = (queue.clone(), std::sync::mpsc::channel());
            queue.exec_sync(|| {});
            queue.exec_async(move || {
                same.exec_sync(|| {});
                sender.send(()).unwrap();
            });
            receiver.recv_timeout(GENEROUS).unwrap();
            assert!(session.wait_idle(GENEROUS));
        },
    );
}

#[test]
fn kernels_want_their_arguments() {
    let words = [
        "without a compute pipeline state",
        "nothing is bound at buffer 0",
        "no push constants at buffer 2",
        "no sizes at buffer 3",
        "no size at buffer 3 is that of buffer 0",
        "Append runs in groups of 1, not of 32",
        "buffer 0 has fewer than 512 words",
        "threadgroup memory 0 has 0 bytes, not 1024",
        "100 is no multiple of 16",
        "index 31 of 31",
        "more than 4096 bytes",
    ];
    violates(&words, |_| {
        let gpu = Gpu::open();
        let (append, reduce, histogram) = (
            pipeline(&gpu, "fencepost_append"),
            pipeline(&gpu, "fencepost_reduce"),
            pipeline(&gpu, "fencepost_histogram"),
        );
        let (bytes, buffer) = (gpu.buffer(64), gpu.command_buffer());
        let encoder = buffer.computeCommandEncoder().unwrap();
        let go =
            |threads| encoder.dispatchThreadgroups_threadsPerThreadgroup(size(1), size(threads));
        go(1);
        encoder.setComputePipelineState(&append);
        go(1);
        // SAFETY: the kernel stays inside
        unsafe { encoder.setBuffer_offset_atIndex(Some(&bytes), 0, 0) };
        go(1);
        set_word(&encoder, 2, 5);
        go(1);
        set_word(&encoder, 3, 63);
        go(1);
        set_word(&encoder, 3, 64);
        go(32);
        encoder.setComputePipelineState(&reduce);
        go(256);
        encoder.setComputePipelineState(&histogram);
        go(256);
        // SAFETY: Metal takes no such length
        unsafe { encoder.setThreadgroupMemoryLength_atIndex(100, 0) };
        set_word(&encoder, 31, 1);
        let long = [0_u8; 4100];
        // SAFETY: so many bytes are there
        unsafe { encoder.setBytes_length_atIndex(NonNull::from(&long).cast(), long.len(), 4) };
        encoder.endEncoding();
    });
}

#[test]
fn leaks_are_counted_by_class() {
    let session = fencepost_sim_metal::Control.session(fencepost_sim_metal::Setup::seeded(1));
    let (leaked, device) = autoreleasepool(|_| {
        let gpu = Gpu::open();
        let event = gpu.event();
        let block = block2::RcBlock::new(|| {});
        (std::mem::ManuallyDrop::new((event, block)), gpu.device)
    });
    assert!(session.wait_idle(GENEROUS));
    let live = session.live();
    assert_eq!(
        (live["SimSharedEvent"], live["block"], live["SimDevice"]),
        (1, 1, 1)
    );
    drop(std::mem::ManuallyDrop::into_inner(leaked));
    let _: &ProtocolObject<dyn MTLDevice> = &device;
    drop(device);
    assert!(session.live().is_empty(), "{:?}", session.live());
    assert!(session.violations().is_empty());
}
