//! What is ordered, and what is not.
#![cfg(metal_sim)]

mod support;

use fencepost_sim::find_seed;
use fencepost_sim_metal::{Control, Setup};
use objc2::runtime::ProtocolObject;
use objc2_metal::*;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};
use support::*;

const SEEDS: u64 = 40;
/// Far more than any that is needed.
const SEARCH: u64 = 300;

#[test]
fn work_signals_handlers_and_times_go_together() {
    with_seeds(SEEDS, |_| {
        let gpu = Gpu::open();
        let (event, buffer) = (gpu.event(), gpu.buffer(64));
        let first = gpu.filling(&buffer, 7);
        signal(&first, &event, 1);
        let first_seen = commit(&first);
        let second = gpu.command_buffer();
        wait_for(&second, &event, 1);
        fill(&second, &buffer, 9);
        signal(&second, &event, 2);
        let second_seen = commit(&second);
        assert!(event.waitUntilSignaledValue_timeoutMS(2, 60_000));
        assert_eq!(event.signaledValue(), 2);
        let first_seen = first_seen.recv_timeout(GENEROUS).unwrap();
        let second_seen = second_seen.recv_timeout(GENEROUS).unwrap();
        for seen in [&first_seen, &second_seen] {
            assert_eq!(seen.status, MTLCommandBufferStatus::Completed);
            assert_eq!(seen.error, None);
            assert!(0.0 < seen.start && seen.start <= seen.end);
        }
        // its last command runs after the other's signal, which runs before the other's end
        assert!(second_seen.end >= first_seen.start);
        assert_eq!(word(&buffer, 0), 0x0909_0909);
        first.waitUntilCompleted();
        assert_eq!(look(&first), first_seen);
    });
}

/// The order in which two buffers of one queue run that nothing orders, and those with an event
/// between them.
fn two_buffers(seed: u64, chained: bool) -> u8 {
    let mut last = 0;
    with_setup(Setup::seeded(seed), |session| {
        let gpu = Gpu::open();
        let (event, buffer) = (gpu.event(), gpu.buffer(4));
        // so that both are there when the first begins
        session.pause_all();
        let first = gpu.filling(&buffer, 1);
        signal(&first, &event, 1);
        first.commit();
        let second = gpu.command_buffer();
        if chained {
            wait_for(&second, &event, 1);
        }
        fill(&second, &buffer, 2);
        second.commit();
        session.resume_all();
        first.waitUntilCompleted();
        second.waitUntilCompleted();
        last = word(&buffer, 0) as u8;
    });
    last
}

#[test]
fn buffers_of_one_queue_overlap_where_no_event_orders_them() {
    assert!(find_seed(SEARCH, |&seed| two_buffers(seed, false) == 1).is_some());
    assert!(find_seed(SEARCH, |&seed| two_buffers(seed, false) == 2).is_some());
}

#[test]
fn buffers_chained_by_an_event_run_in_order() {
    fencepost_sim::with_seeds(SEEDS * 5, |seed| assert_eq!(two_buffers(seed, true), 2));
}

#[test]
fn a_signal_in_its_own_buffer_may_overtake_earlier_buffers() {
    let early = |seed: &u64| {
        let mut early = false;
        with_setup(Setup::seeded(*seed), |session| {
            let gpu = Gpu::open();
            let (event, buffer) = (gpu.event(), gpu.buffer(4));
            session.pause_all();
            gpu.filling(&buffer, 1).commit();
            let mark = gpu.command_buffer();
            signal(&mark, &event, 1);
            mark.commit();
            let (sender, receiver) = channel();
            let (listener, _queue) = listener_on_a_queue();
            let memory = gpu.buffer(4);
            let copy = gpu.command_buffer();
            wait_for(&copy, &event, 1);
            let blit = copy.blitCommandEncoder().unwrap();
            // SAFETY: inside of both
            unsafe {
                blit.copyFromBuffer_sourceOffset_toBuffer_destinationOffset_size(
                    &buffer, 0, &memory, 0, 4,
                );
            }
            blit.endEncoding();
            copy.commit();
            notify(&event, &listener, 1, move |value| {
                sender.send(value).unwrap()
            });
            session.resume_all();
            assert_eq!(receiver.recv_timeout(GENEROUS), Ok(1));
            copy.waitUntilCompleted();
            // the event must outlive every buffer that uses it
            mark.waitUntilCompleted();
            early = word(&memory, 0) == 0;
        });
        early
    };
    assert!(find_seed(SEARCH, early).is_some());
}

#[test]
fn a_queue_waits_for_another_and_for_the_host() {
    with_seeds(SEEDS, |_| {
        let gpu = Gpu::open();
        let other = Gpu {
            device: gpu.device.clone(),
            queue: gpu.device.newCommandQueue().unwrap(),
        };
        let (host, event, buffer) = (gpu.event(), gpu.event(), gpu.buffer(4));
        let second = other.command_buffer();
        wait_for(&second, &event, 5);
        fill(&second, &buffer, 2);
        second.commit();
        let first = gpu.command_buffer();
        wait_for(&first, &host, 1);
        fill(&first, &buffer, 1);
        signal(&first, &event, 5);
        first.commit();
        assert!(!event.waitUntilSignaledValue_timeoutMS(5, 3));
        assert_eq!(word(&buffer, 0), 0);
        assert!(second.status() < MTLCommandBufferStatus::Completed);
        assert_eq!(second.GPUEndTime(), 0.0);
        host.setSignaledValue(1);
        second.waitUntilCompleted();
        first.waitUntilCompleted();
        assert_eq!(word(&buffer, 0), 0x0202_0202);
    });
}

#[test]
fn a_value_may_be_seen_before_its_buffer_has_an_end_time() {
    let early = |seed: &u64| {
        let mut early = false;
        with_setup(Setup::seeded(*seed), |_| {
            let gpu = Gpu::open();
            let event = gpu.event();
            let buffer = gpu.command_buffer();
            signal(&buffer, &event, 1);
            buffer.commit();
            assert!(event.waitUntilSignaledValue_timeoutMS(1, 60_000));
            early =
                buffer.GPUEndTime() == 0.0 && buffer.status() < MTLCommandBufferStatus::Completed;
            buffer.waitUntilCompleted();
            assert!(buffer.GPUEndTime() > 0.0);
        });
        early
    };
    assert!(find_seed(SEARCH, early).is_some());
}

/// In which order the handlers of two chained buffers come, and the listener of the first one's
/// signal (9).
fn callbacks(seed: u64) -> Vec<u64> {
    let log = Log::default();
    with_setup(Setup::seeded(seed), |session| {
        let gpu = Gpu::open();
        let event = gpu.event();
        let listener = MTLSharedEventListener::new();
        session.pause_all();
        for value in 1..=2 {
            let buffer = gpu.command_buffer();
            wait_for(&buffer, &event, value - 1);
            signal(&buffer, &event, value);
            let log = log.clone();
            on_completed(&buffer, move |seen| {
                assert!(seen.end > 0.0);
                log.add(value);
            });
            buffer.commit();
        }
        let heard = log.clone();
        notify(&event, &listener, 1, move |_| heard.add(9));
        session.resume_all();
        assert!(session.wait_idle(GENEROUS));
    });
    log.seen()
}

#[test]
fn handlers_and_notifications_come_in_any_order() {
    for order in [[1, 2], [2, 1], [1, 9], [9, 1]] {
        let place = |seen: &[u64], what| seen.iter().position(|&other| other == what);
        let shows = |seed: &u64| {
            let seen = callbacks(*seed);
            place(&seen, order[0]) < place(&seen, order[1])
        };
        assert!(find_seed(SEARCH, shows).is_some(), "{order:?}");
    }
}

#[test]
fn notifications_of_one_event_come_once_each_with_a_value_that_was_reached() {
    with_seeds(SEEDS, |session| {
        let gpu = Gpu::open();
        let event = gpu.event();
        let (one, (other, queue)) = (MTLSharedEventListener::new(), listener_on_a_queue());
        assert_eq!(&*other.dispatchQueue() as *const _, &*queue as *const _);
        let (sender, receiver) = channel();
        for value in 1..=6 {
            let sender = sender.clone();
            let listener = if value % 2 == 0 { &one } else { &other };
            notify(&event, listener, value, move |reached| {
                sender.send((value, reached)).unwrap()
            });
        }
        // one that is never reached leaves nothing behind
        notify(&event, &one, 100, |_| panic!("never reached"));
        for value in 1..=5 {
            let buffer = gpu.command_buffer();
            wait_for(&buffer, &event, value - 1);
            signal(&buffer, &event, value);
            buffer.commit();
        }
        assert!(event.waitUntilSignaledValue_timeoutMS(5, 60_000));
        event.setSignaledValue(6);
        assert!(session.wait_idle(GENEROUS));
        let mut received: Vec<_> = receiver.try_iter().collect();
        received.sort_unstable();
        let values: Vec<u64> = received.iter().map(|(value, _)| *value).collect();
        assert_eq!(values, [1, 2, 3, 4, 5, 6]);
        assert!(
            received
                .iter()
                .all(|(value, reached)| reached >= value && *reached <= 6)
        );
    });
}

#[test]
fn a_notification_for_a_value_already_there_comes_too() {
    with_seeds(SEEDS, |_| {
        let event = Gpu::open().event();
        event.setSignaledValue(4);
        let (sender, receiver) = channel();
        notify(
            &event,
            &MTLSharedEventListener::sharedListener(),
            3,
            move |reached| sender.send(reached).unwrap(),
        );
        assert_eq!(receiver.recv_timeout(GENEROUS), Ok(4));
    });
}

#[test]
fn an_enqueued_buffer_keeps_its_place_in_the_queue() {
    with_seeds(SEEDS, |_| {
        let gpu = Gpu::open();
        let (event, buffer) = (gpu.event(), gpu.buffer(4));
        let first = gpu.filling(&buffer, 1);
        first.enqueue();
        assert_eq!(first.status(), MTLCommandBufferStatus::Enqueued);
        let second = gpu.command_buffer();
        assert_eq!(second.status(), MTLCommandBufferStatus::NotEnqueued);
        signal(&second, &event, 1);
        second.commit();
        // it cannot start before the first is committed
        assert!(!event.waitUntilSignaledValue_timeoutMS(1, 3));
        assert_eq!(second.status(), MTLCommandBufferStatus::Committed);
        first.commit();
        assert!(event.waitUntilSignaledValue_timeoutMS(1, 60_000));
        second.waitUntilCompleted();
    });
}

#[test]
fn scheduled_handlers_come_before_wait_until_scheduled_returns() {
    with_seeds(SEEDS, |_| {
        let gpu = Gpu::open();
        let host = gpu.event();
        let buffer = gpu.command_buffer();
        wait_for(&buffer, &host, 1);
        let (sender, receiver) = channel();
        on_scheduled(&buffer, move |status| sender.send(status).unwrap());
        buffer.commit();
        buffer.waitUntilScheduled();
        assert_eq!(receiver.try_recv(), Ok(MTLCommandBufferStatus::Scheduled));
        host.setSignaledValue(1);
        buffer.waitUntilCompleted();
    });
}

#[test]
fn wait_until_completed_returns_after_the_handlers() {
    with_seeds(SEEDS, |_| {
        let gpu = Gpu::open();
        let log = Log::default();
        let buffer = gpu.command_buffer();
        for number in 0..3 {
            let log = log.clone();
            on_completed(&buffer, move |_| log.add(number));
        }
        buffer.commit();
        buffer.waitUntilCompleted();
        assert_eq!(log.seen().len(), 3);
    });
}

#[test]
fn a_handler_may_use_metal_and_commit() {
    with_seeds(SEEDS, |session| {
        let gpu = Gpu::open();
        let event = gpu.event();
        let (queue, signalled) = (gpu.queue.clone(), event.clone());
        let first = gpu.command_buffer();
        on_completed(&first, move |_| {
            // the handler's thread has a pool
            let next = queue.commandBuffer().unwrap();
            signal(&next, &signalled, 1);
            next.commit();
        });
        first.commit();
        assert!(event.waitUntilSignaledValue_timeoutMS(1, 60_000));
        assert!(session.wait_idle(GENEROUS));
    });
}

#[test]
fn a_wait_may_stop_what_comes_later_in_its_queue() {
    // the other reading of Apple's text: with a channel for each queue, no buffer passes one that
    // waits
    let setup = Setup {
        channels: Some(1),
        ..Setup::seeded(fencepost_sim::seed_or(3))
    };
    with_setup(setup, |_| {
        let gpu = Gpu::open();
        let (host, event) = (gpu.event(), gpu.event());
        let first = gpu.command_buffer();
        wait_for(&first, &host, 1);
        first.commit();
        let second = gpu.command_buffer();
        signal(&second, &event, 1);
        second.commit();
        assert!(!event.waitUntilSignaledValue_timeoutMS(1, 20));
        host.setSignaledValue(1);
        assert!(event.waitUntilSignaledValue_timeoutMS(1, 60_000));
        // the events must outlive the buffers that use them
        first.waitUntilCompleted();
        second.waitUntilCompleted();
    });
}

#[test]
fn times_are_seconds_of_the_host_and_agree_with_sampled_timestamps() {
    with_seeds(SEEDS, |_| {
        let gpu = Gpu::open();
        let sample = || {
            let (mut host, mut device) = (0, 0);
            // SAFETY: places for one number each
            unsafe {
                gpu.device
                    .sampleTimestamps_gpuTimestamp((&mut host).into(), (&mut device).into())
            };
            (host, device)
        };
        let before = sample();
        let buffer = gpu.command_buffer();
        let seen = commit(&buffer).recv_timeout(GENEROUS).unwrap();
        let after = sample();
        assert!(before.0 as f64 / 1e9 <= seen.start && seen.end <= after.0 as f64 / 1e9);
        assert!(before.1 <= after.1);
    });
}

#[test]
fn events_are_shared_among_devices() {
    with_seeds(SEEDS, |_| {
        let devices = MTLCopyAllDevices();
        assert_eq!(devices.count(), 2);
        let devices: Vec<_> = devices.iter().collect();
        assert_eq!(devices[0].registryID(), device().registryID());
        assert_ne!(devices[0].registryID(), devices[1].registryID());
        assert!(devices[1].name().to_string().contains("stand-in"));
        assert!(devices[1].hasUnifiedMemory());
        let event = devices[0].newSharedEvent().unwrap();
        assert_eq!(
            event.device().unwrap().registryID(),
            devices[0].registryID()
        );
        let queues = [0, 1].map(|number| devices[number].newCommandQueue().unwrap());
        let second = queues[1].commandBuffer().unwrap();
        wait_for(&second, &event, 1);
        second.commit();
        let first = queues[0].commandBuffer().unwrap();
        signal(&first, &event, 1);
        first.commit();
        second.waitUntilCompleted();
        first.waitUntilCompleted();
        assert_eq!(second.device().registryID(), devices[1].registryID());
    });
}

#[test]
fn a_full_queue_blocks_the_thread_that_wants_another_buffer() {
    with_seeds(5, |session| {
        let gpu = Gpu::open();
        session.pause_all();
        let mut buffers: Vec<_> = (0..64).map(|_| gpu.command_buffer()).collect();
        for buffer in &buffers[1..] {
            buffer.commit();
        }
        std::thread::scope(|threads| {
            let queue = &gpu.queue;
            let blocked = threads.spawn(move || {
                objc2::rc::autoreleasepool(|_| queue.commandBuffer().unwrap().commit());
            });
            let start = Instant::now();
            while session.blocked() == 0 {
                assert!(start.elapsed() < GENEROUS);
                std::thread::sleep(Duration::from_millis(1));
            }
            assert!(!blocked.is_finished());
            session.resume_all();
            blocked.join().unwrap();
        });
        buffers[0].commit();
        assert!(session.wait_idle(GENEROUS));
        assert_eq!(session.blocked(), 0);
        buffers.clear();
    });
}

#[test]
fn uncommitted_buffers_count_until_they_are_freed() {
    with_seeds(5, |session| {
        let gpu = Gpu::open();
        let queue = gpu
            .device
            .newCommandQueueWithMaxCommandBufferCount(2)
            .unwrap();
        // each pool frees its two, so that a third pair finds room
        for _ in 0..3 {
            objc2::rc::autoreleasepool(|_| {
                let _two = (
                    queue.commandBuffer().unwrap(),
                    queue.commandBuffer().unwrap(),
                );
            });
        }
        assert_eq!(session.blocked(), 0);
    });
}

#[test]
fn a_queue_takes_thousands_of_buffers_one_after_the_other() {
    const MANY: u64 = 2000;
    with_seeds(1, |_| {
        let gpu = Gpu::open();
        let event = gpu.event();
        for value in 1..=MANY {
            objc2::rc::autoreleasepool(|_| {
                let buffer = gpu.command_buffer();
                wait_for(&buffer, &event, value - 1);
                signal(&buffer, &event, value);
                buffer.commit();
            });
        }
        assert!(event.waitUntilSignaledValue_timeoutMS(MANY, 60_000));
        assert!(Control.wait_idle(GENEROUS));
    });
}

#[test]
fn without_a_session_the_environment_makes_the_machine() {
    // in a process of its own: the others' sessions replace the machine
    if std::env::var_os("FENCEPOST_SIM_METAL_TEST_CHILD").is_some() {
        objc2::rc::autoreleasepool(|_| {
            assert_eq!(MTLCopyAllDevices().count(), 3);
            assert_eq!(Control.seed(), 77);
            assert!(device().newSharedEvent().is_none());
            let queue = device().newCommandQueue().unwrap();
            let buffer = queue.commandBuffer().unwrap();
            buffer.commit();
            buffer.waitUntilCompleted();
            let _: &ProtocolObject<dyn MTLCommandBuffer> = &buffer;
        });
        return;
    }
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "without_a_session_the_environment_makes_the_machine",
        ])
        .env("FENCEPOST_SIM_METAL_TEST_CHILD", "1")
        .env("FENCEPOST_SIM_SEED", "77")
        .env("FENCEPOST_SIM_METAL_DEVICES", "3")
        .env("FENCEPOST_SIM_METAL_SHARED_EVENTS", "0")
        .output()
        .unwrap();
    assert!(child.status.success(), "{child:?}");
}
