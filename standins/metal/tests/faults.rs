//! Planned faults and their effects.
#![cfg(metal_sim)]

mod support;

use fencepost_sim::find_seed;
use fencepost_sim_metal::{Control, Setup};
use objc2_foundation::NSString;
use objc2_metal::*;
use std::sync::mpsc::channel;
use support::*;

const SEEDS: u64 = 30;
const TIMEOUT: &str = "Caused GPU Timeout Error (00000002:kIOGPUCommandBufferCallbackErrorTimeout)";

#[test]
fn a_failed_buffer_never_sends_its_signals_and_says_why() {
    with_seeds(SEEDS, |session| {
        let gpu = Gpu::open();
        let (event, buffer) = (gpu.event(), gpu.buffer(4));
        session.fail_commit(2, MTLCommandBufferError::Timeout, TIMEOUT);
        let good = gpu.filling(&buffer, 1);
        signal(&good, &event, 1);
        let good = commit(&good);
        let bad = gpu.command_buffer();
        wait_for(&bad, &event, 1);
        fill(&bad, &buffer, 2);
        signal(&bad, &event, 2);
        let seen = commit(&bad).recv_timeout(GENEROUS).unwrap();
        assert_eq!(seen.status, MTLCommandBufferStatus::Error);
        assert_eq!(
            seen.error,
            Some((MTLCommandBufferError::Timeout, TIMEOUT.into()))
        );
        assert_eq!(
            bad.error().unwrap().domain().to_string(),
            "MTLCommandBufferErrorDomain"
        );
        assert_eq!(good.recv_timeout(GENEROUS).unwrap().error, None);
        assert!(session.wait_idle(GENEROUS));
        assert_eq!((event.signaledValue(), word(&buffer, 0)), (1, 0x0101_0101));
        // others go on as before
        let next = gpu.command_buffer();
        signal(&next, &event, 3);
        next.commit();
        next.waitUntilCompleted();
        assert_eq!((event.signaledValue(), next.error()), (3, None));
    });
}

#[test]
fn a_failed_buffer_may_have_no_times() {
    let end = |seed: u64| {
        let mut end = 0.0;
        with_setup(Setup::seeded(seed), |session| {
            session.fail_commit(1, MTLCommandBufferError::PageFault, "page fault");
            end = commit(&Gpu::open().command_buffer())
                .recv_timeout(GENEROUS)
                .unwrap()
                .end;
        });
        end
    };
    assert!(find_seed(20, |&seed| end(seed) == 0.0).is_some());
    assert!(find_seed(20, |&seed| end(seed) > 0.0).is_some());
}

#[test]
fn a_buffer_fails_after_as_many_commands_as_the_fault_says() {
    with_seeds(SEEDS, |session| {
        let gpu = Gpu::open();
        let event = gpu.event();
        session.fail_commit_after(1, 2, MTLCommandBufferError::Internal, "stopped");
        let buffer = gpu.command_buffer();
        for value in 1..=3 {
            signal(&buffer, &event, value);
        }
        buffer.commit();
        buffer.waitUntilCompleted();
        assert_eq!(
            (event.signaledValue(), buffer.status()),
            (2, MTLCommandBufferStatus::Error)
        );
    });
}

#[test]
fn the_nth_call_returns_nil() {
    with_seeds(1, |session| {
        let gpu = Gpu::open();
        session.fail_call("newCommandQueue", 2);
        assert!(gpu.device.newCommandQueue().is_some());
        assert!(
            gpu.device
                .newCommandQueueWithMaxCommandBufferCount(8)
                .is_none()
        );
        assert!(gpu.device.newCommandQueue().is_some());
        assert_eq!(session.calls("newCommandQueue"), 4);
        session.fail_call("commandBuffer", 1);
        assert!(gpu.queue.commandBuffer().is_none());
        session.fail_calls_from("newSharedEvent", 2);
        assert!(gpu.device.newSharedEvent().is_some());
        assert!(gpu.device.newSharedEvent().is_none());
        assert!(gpu.device.newSharedEvent().is_none());
        session.clear_faults();
        assert!(gpu.device.newSharedEvent().is_some());
        for encoder in ["blitCommandEncoder", "computeCommandEncoder"] {
            session.fail_call(encoder, 1);
        }
        let buffer = gpu.command_buffer();
        assert!(buffer.blitCommandEncoder().is_none() && buffer.computeCommandEncoder().is_none());
        session.fail_call("newBufferWithLength:options:", 1);
        assert!(
            gpu.device
                .newBufferWithLength_options(4, MTLResourceOptions::empty())
                .is_none()
        );
        session.fail_call("MTLCreateSystemDefaultDevice", 1);
        assert!(MTLCreateSystemDefaultDevice().is_none());
        assert!(MTLCreateSystemDefaultDevice().is_some());
    });
}

#[test]
#[should_panic(expected = "does not count newThing")]
fn a_fault_for_an_unknown_call_panics() {
    Control.fail_call("newThing", 1);
}

#[test]
fn libraries_functions_and_pipelines_fail_with_an_error() {
    with_seeds(1, |session| {
        let gpu = Gpu::open();
        let (source, nothing) = (NSString::from_str(SOURCE), NSString::from_str("int x;"));
        let build = |source| gpu.device.newLibraryWithSource_options_error(source, None);
        let error = build(&nothing).unwrap_err();
        assert_eq!(
            (error.domain().to_string(), error.code()),
            ("MTLLibraryErrorDomain".into(), 3)
        );
        session.fail_call("newLibraryWithSource:options:error:", 1);
        assert!(build(&source).is_err());
        let options = MTLCompileOptions::new();
        let library = gpu
            .device
            .newLibraryWithSource_options_error(&source, Some(&options))
            .unwrap();
        let names: Vec<String> = library
            .functionNames()
            .iter()
            .map(|name| name.to_string())
            .collect();
        assert_eq!(names.len(), 5, "{names:?}");
        let name = NSString::from_str("fencepost_append");
        session.fail_call("newFunctionWithName:", 1);
        assert!(library.newFunctionWithName(&name).is_none());
        assert!(
            library
                .newFunctionWithName(&NSString::from_str("fencepost_nothing"))
                .is_none()
        );
        assert!(
            library
                .newFunctionWithName(&NSString::from_str("fencepost_in_a_comment"))
                .is_none()
        );
        let function = library.newFunctionWithName(&name).unwrap();
        assert_eq!(function.name(), name);
        session.fail_call("newComputePipelineStateWithFunction:error:", 1);
        let build = |function: &_| {
            gpu.device
                .newComputePipelineStateWithFunction_error(function)
        };
        assert!(build(&function).is_err());
        assert_eq!(
            build(&function).unwrap().maxTotalThreadsPerThreadgroup(),
            1024
        );
        // the stand-in cannot run what it does not know
        let unknown = library
            .newFunctionWithName(&NSString::from_str("somebody_elses"))
            .unwrap();
        let error = build(&unknown).unwrap_err();
        assert!(
            error
                .localizedDescription()
                .to_string()
                .contains("somebody_elses")
        );
    });
}

#[test]
fn a_sandbox_may_have_no_shared_events() {
    let setup = Setup {
        shared_events: false,
        ..Setup::seeded(1)
    };
    with_setup(setup, |session| {
        let gpu = Gpu::open();
        assert!(gpu.device.newSharedEvent().is_none());
        session.shared_events(true);
        assert!(gpu.device.newSharedEvent().is_some());
    });
}

#[test]
fn a_machine_may_have_no_device() {
    with_setup(
        Setup {
            devices: 0,
            ..Setup::seeded(1)
        },
        |_| {
            assert!(MTLCreateSystemDefaultDevice().is_none());
            assert_eq!(MTLCopyAllDevices().count(), 0);
        },
    );
}

#[test]
fn held_work_stays_pending() {
    with_seeds(SEEDS, |session| {
        let gpu = Gpu::open();
        let event = gpu.event();
        session.pause_all();
        // a queue made meanwhile is paused too
        let late = gpu.device.newCommandQueue().unwrap();
        let buffers = [gpu.command_buffer(), late.commandBuffer().unwrap()];
        for (buffer, value) in buffers.iter().zip(1..) {
            if value == 2 {
                wait_for(buffer, &event, 1);
            }
            signal(buffer, &event, value);
            buffer.commit();
        }
        assert!(!event.waitUntilSignaledValue_timeoutMS(1, 3));
        assert!(
            buffers
                .iter()
                .all(|buffer| buffer.status() == MTLCommandBufferStatus::Committed)
        );
        assert_eq!(session.pending_work().len(), 2);
        assert!(!session.wait_idle(std::time::Duration::from_millis(1)));
        session.resume_all();
        assert!(event.waitUntilSignaledValue_timeoutMS(2, 60_000));
        assert!(session.wait_idle(GENEROUS));
    });
}

#[test]
fn one_queue_may_be_held_alone() {
    with_seeds(SEEDS, |session| {
        let gpu = Gpu::open();
        let (event, other) = (gpu.event(), gpu.device.newCommandQueue().unwrap());
        session.pause(&gpu.queue);
        let paused = gpu.command_buffer();
        signal(&paused, &event, 2);
        paused.commit();
        let free = other.commandBuffer().unwrap();
        signal(&free, &event, 1);
        free.commit();
        free.waitUntilCompleted();
        assert_eq!(event.signaledValue(), 1);
        session.resume(&gpu.queue);
        paused.waitUntilCompleted();
    });
}

#[test]
fn a_handler_may_run_after_everything_was_dropped() {
    with_seeds(SEEDS, |session| {
        let (sender, receiver) = channel();
        session.pause_callbacks();
        {
            let gpu = Gpu::open();
            let event = gpu.event();
            let buffer = gpu.command_buffer();
            signal(&buffer, &event, 1);
            let completed = sender.clone();
            on_completed(&buffer, move |seen| {
                completed.send(seen.status.0 as u64).unwrap()
            });
            let scheduled = sender.clone();
            on_scheduled(&buffer, move |_| scheduled.send(100).unwrap());
            buffer.commit();
            assert!(event.waitUntilSignaledValue_timeoutMS(1, 60_000));
            // an event stays until its command buffers have completed
            assert!(session.wait_idle(GENEROUS));
        }
        assert_eq!(receiver.try_iter().count(), 0);
        assert_eq!(session.paused_callbacks(), 2);
        session.resume_callbacks();
        assert!(session.wait_idle(GENEROUS));
        let mut received: Vec<u64> = receiver.try_iter().collect();
        received.sort_unstable();
        // complete by then, whatever else came first
        assert_eq!(received, [MTLCommandBufferStatus::Completed.0 as u64, 100]);
    });
}

#[test]
fn notifications_may_come_late_too() {
    with_seeds(SEEDS, |session| {
        let gpu = Gpu::open();
        let (event, (listener, _queue)) = (gpu.event(), listener_on_a_queue());
        let (sender, receiver) = channel();
        session.pause_callbacks();
        notify(&event, &listener, 1, move |value| {
            sender.send(value).unwrap()
        });
        event.setSignaledValue(1);
        assert!(session.wait_idle(GENEROUS));
        assert!(receiver.try_recv().is_err());
        session.resume_callbacks();
        assert_eq!(receiver.recv_timeout(GENEROUS), Ok(1));
    });
}

#[test]
fn a_removed_device_fails_what_is_pending_and_makes_nothing_new() {
    with_seeds(SEEDS, |session| {
        let gpu = Gpu::open();
        let (event, never) = (gpu.event(), gpu.event());
        let pending = gpu.command_buffer();
        wait_for(&pending, &never, 1);
        signal(&pending, &event, 1);
        let pending_seen = commit(&pending);
        let open = gpu.command_buffer();
        assert!(session.remove(&gpu.device));
        let removed = Some((
            MTLCommandBufferError::DeviceRemoved,
            "the device was removed".into(),
        ));
        let seen = pending_seen.recv_timeout(GENEROUS).unwrap();
        assert_eq!(
            (seen.status, seen.error),
            (MTLCommandBufferStatus::Error, removed.clone())
        );
        // what is committed now fails as well, and so does what is made now
        for buffer in [open, gpu.command_buffer()] {
            signal(&buffer, &event, 2);
            let seen = commit(&buffer).recv_timeout(GENEROUS).unwrap();
            assert_eq!(
                (seen.status, seen.error),
                (MTLCommandBufferStatus::Error, removed.clone())
            );
            assert_eq!((seen.start, seen.end), (0.0, 0.0));
            buffer.waitUntilCompleted();
            buffer.waitUntilScheduled();
        }
        assert!(gpu.device.newCommandQueue().is_none());
        assert!(gpu.device.newSharedEvent().is_none());
        assert!(
            gpu.device
                .newBufferWithLength_options(4, MTLResourceOptions::empty())
                .is_none()
        );
        // the event is still there, and a wait for it ends by its time alone
        assert!(!event.waitUntilSignaledValue_timeoutMS(1, 3));
        event.setSignaledValue(1);
        assert!(event.waitUntilSignaledValue_timeoutMS(1, 60_000));
        // the other device is well
        let devices = MTLCopyAllDevices();
        let other = devices.iter().nth(1).unwrap();
        let buffer = other.newCommandQueue().unwrap().commandBuffer().unwrap();
        assert_eq!(commit(&buffer).recv_timeout(GENEROUS).unwrap().error, None);
    });
}

#[test]
fn a_blocked_command_buffer_call_returns_when_the_device_is_removed() {
    with_seeds(3, |session| {
        let gpu = Gpu::open();
        session.pause_all();
        let queue = gpu
            .device
            .newCommandQueueWithMaxCommandBufferCount(1)
            .unwrap();
        queue.commandBuffer().unwrap().commit();
        std::thread::scope(|threads| {
            let blocked =
                threads.spawn(|| objc2::rc::autoreleasepool(|_| queue.commandBuffer().is_some()));
            let start = std::time::Instant::now();
            while session.blocked() == 0 {
                assert!(start.elapsed() < GENEROUS);
                std::thread::yield_now();
            }
            assert!(session.remove(&gpu.device));
            assert!(blocked.join().unwrap());
        });
        session.resume_all();
    });
}
