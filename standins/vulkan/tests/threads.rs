//! External synchronization: which objects two threads may use at the same time.

mod support;

use ash::vk;
use support::*;

/// Runs `second` while `first` is stalled in a call of `name` on another thread.
fn overlap(
    name: &str,
    first: impl Fn(&Gpu) + Sync,
    second: impl Fn(&Gpu),
    violation: Option<&str>,
) {
    with_seeds(1, |session, gpu| {
        session.stall_call(name);
        std::thread::scope(|scope| {
            let stalled = scope.spawn(|| first(gpu));
            while session.stalled() == 0 {
                std::thread::yield_now();
            }
            second(gpu);
            session.release_stalled();
            stalled.join().unwrap();
        });
        session.clear_violations_of(violation.as_slice());
    });
}

fn submit_to(gpu: &Gpu, family: u32, index: u32) {
    gpu.submit(gpu.queue(family, index), &Batch::default())
        .unwrap();
}

#[test]
fn a_queue_is_used_by_one_thread_at_a_time() {
    let text = "is in use by vkQueueSubmit on another thread";
    overlap(
        "vkQueueSubmit",
        |gpu| submit_to(gpu, 0, 0),
        |gpu| submit_to(gpu, 0, 0),
        Some(text),
    );
    let wait = |gpu: &Gpu| gpu.queue_wait_idle(gpu.queue(0, 0)).unwrap();
    overlap(
        "vkQueueSubmit",
        |gpu| submit_to(gpu, 0, 0),
        wait,
        Some(text),
    );
    // and the other way round: a wait uses the queue until it ends
    let text = "is in use by vkQueueWaitIdle on another thread";
    overlap(
        "vkQueueWaitIdle",
        wait,
        |gpu| submit_to(gpu, 0, 0),
        Some(text),
    );
}

#[test]
fn two_queues_are_used_by_two_threads() {
    overlap(
        "vkQueueSubmit",
        |gpu| submit_to(gpu, 0, 0),
        |gpu| submit_to(gpu, 0, 1),
        None,
    );
}

#[test]
fn a_device_wait_uses_all_queues() {
    let wait = |gpu: &Gpu| {
        // SAFETY: the device is alive
        unsafe { gpu.device.device_wait_idle() }.unwrap();
    };
    let text = "is in use by vkDeviceWaitIdle on another thread";
    overlap(
        "vkDeviceWaitIdle",
        wait,
        |gpu| submit_to(gpu, 1, 1),
        Some(text),
    );
}

#[test]
fn a_command_pool_is_used_by_one_thread_at_a_time() {
    with_seeds(1, |session, gpu| {
        let (pool, other) = (gpu.pool(0), gpu.pool(0));
        let [one, two] = [pool, pool].map(|pool| gpu.buffer_of(pool));
        let alone = gpu.buffer_of(other);
        session.stall_call("vkBeginCommandBuffer");
        std::thread::scope(|scope| {
            let stalled = scope.spawn(|| gpu.begin(one, Default::default()));
            while session.stalled() == 0 {
                std::thread::yield_now();
            }
            gpu.begin(alone, Default::default()).unwrap();
            assert!(session.violations().is_empty());
            gpu.begin(two, Default::default()).unwrap();
            session.clear_violations_of(&["command pool"]);
            session.release_stalled();
            stalled.join().unwrap().unwrap();
        });
    });
}

#[test]
fn a_semaphore_that_a_thread_waits_for_must_not_be_destroyed() {
    with_seeds(10, |session, gpu| {
        let done = gpu.timeline(0);
        gpu.forget(done);
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| gpu.wait(done, 1, FOREVER));
            session.stall_call("vkDestroySemaphore");
            let destroyer = scope.spawn(|| {
                // SAFETY: the stand-in's wait does not need the handle
                unsafe { gpu.device.destroy_semaphore(done, None) };
            });
            while session.stalled() == 0 {
                std::thread::yield_now();
            }
            gpu.signal(done, 1).unwrap();
            let waited = waiter.join().unwrap();
            session.release_stalled();
            destroyer.join().unwrap();
            assert_eq!(waited, Ok(()));
        });
        session.clear_violations_of(&["is in use by"]);
    });
}

#[test]
fn semaphores_are_waited_for_and_signalled_by_many_threads() {
    with_seeds(10, |_, gpu| {
        let (gate, done, queue) = (gpu.timeline(0), gpu.timeline(0), gpu.queue(0, 0));
        let batch = Batch {
            waits: &[(gate, 1)],
            signals: &[(done, 1)],
            ..Batch::default()
        };
        gpu.submit(queue, &batch).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| gpu.wait(done, 1, FOREVER).unwrap());
                scope.spawn(|| while gpu.value(done).unwrap() < 1 {});
            }
            gpu.signal(gate, 1).unwrap();
        });
    });
}

#[test]
fn many_threads_submit_to_queues_of_their_own() {
    with_seeds(10, |session, gpu| {
        let done: Vec<vk::Semaphore> = (0..3).map(|_| gpu.timeline(0)).collect();
        std::thread::scope(|scope| {
            for (index, done) in (0..3).zip(&done) {
                scope.spawn(move || {
                    for value in 1..50 {
                        let batch = Batch {
                            signals: &[(*done, value)],
                            ..Batch::default()
                        };
                        gpu.submit(gpu.queue(0, index), &batch).unwrap();
                    }
                    gpu.wait(*done, 49, FOREVER).unwrap();
                });
            }
        });
        assert_eq!(session.calls("vkQueueSubmit"), 3 * 49);
    });
}
