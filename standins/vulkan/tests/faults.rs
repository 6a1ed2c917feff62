//! Planned faults: failing calls, lost devices, work that hangs or never signals.

mod support;

use ash::vk;
use support::*;

const SEEDS: u64 = 30;
const LOST: vk::Result = vk::Result::ERROR_DEVICE_LOST;

#[test]
fn a_planned_failure_affects_only_the_call_that_it_names() {
    with_seeds(1, |session, gpu| {
        let memory = vk::Result::ERROR_OUT_OF_DEVICE_MEMORY;
        session.fail_call("vkCreateSemaphore", 2, memory);
        gpu.timeline(0);
        assert_eq!(gpu.try_timeline(0), Err(memory));
        let third = gpu.timeline(0);
        session.fail_calls_from("vkQueueSubmit", 1, vk::Result::ERROR_OUT_OF_HOST_MEMORY);
        let batch = Batch {
            signals: &[(third, 1)],
            ..Batch::default()
        };
        for _ in 0..3 {
            let failed = gpu.submit(gpu.queue(0, 0), &batch);
            assert_eq!(failed, Err(vk::Result::ERROR_OUT_OF_HOST_MEMORY));
        }
        session.clear_faults();
        assert_eq!(gpu.value(third), Ok(0));
        gpu.submit(gpu.queue(0, 0), &batch).unwrap();
        gpu.wait(third, 1, FOREVER).unwrap();
        assert_eq!(session.calls("vkQueueSubmit"), 4);
    });
}

/// Checks that every call that can return `ERROR_DEVICE_LOST` returns it.
fn returns_lost(gpu: &Gpu, semaphore: vk::Semaphore, fence: vk::Fence, queue: vk::Queue) {
    let batch = Batch {
        signals: &[(semaphore, 99)],
        ..Batch::default()
    };
    // SAFETY: the device is alive
    let idle = unsafe { gpu.device.device_wait_idle() };
    for result in [
        gpu.submit(queue, &batch),
        gpu.submit_2(queue, &batch, vk::PipelineStageFlags2::ALL_COMMANDS),
        gpu.wait(semaphore, 99, FOREVER),
        gpu.wait(semaphore, 99, 0),
        gpu.value(semaphore).map(drop),
        gpu.signaled(fence).map(drop),
        gpu.wait_fence(fence, FOREVER),
        gpu.queue_wait_idle(queue),
        idle,
    ] {
        assert_eq!(result, Err(LOST));
    }
    // these calls cannot return it
    gpu.timeline(0);
    gpu.fence(Default::default());
    gpu.pool(0);
}

#[test]
fn a_lost_device_drops_its_work_and_ends_waits() {
    with_seeds(SEEDS, |session, gpu| {
        let (gate, done, queue) = (gpu.timeline(0), gpu.timeline(0), gpu.queue(0, 0));
        let (fence, pool) = (gpu.fence(Default::default()), gpu.pool(0));
        let buffer = gpu.record(pool, Default::default(), |_| ());
        let batch = Batch {
            waits: &[(gate, 1)],
            buffers: &[buffer],
            signals: &[(done, 1)],
            fence,
        };
        gpu.submit(queue, &batch).unwrap();
        std::thread::scope(|scope| {
            let semaphore = scope.spawn(|| gpu.wait(done, 1, FOREVER));
            let fence = scope.spawn(|| gpu.wait_fence(fence, FOREVER));
            std::thread::yield_now();
            session.lose_device(0);
            assert_eq!(semaphore.join().unwrap(), Err(LOST));
            assert_eq!(fence.join().unwrap(), Err(LOST));
        });
        returns_lost(gpu, done, fence, queue);
    });
}

#[test]
fn one_device_is_lost_and_the_other_is_not() {
    with_seeds(1, |session, gpu| {
        session.lose_device(1);
        let done = gpu.timeline(0);
        let batch = Batch {
            signals: &[(done, 1)],
            ..Batch::default()
        };
        gpu.submit(gpu.queue(0, 0), &batch).unwrap();
        gpu.wait(done, 1, FOREVER).unwrap();
        session.remove_physical(1);
        let other = physicals(&gpu.instance)[1];
        let made = make_device(&gpu.instance, other, &Setup::default()).map(drop);
        assert_eq!(made, Err(LOST));
    });
}

#[test]
fn a_call_with_a_planned_device_lost_loses_the_device() {
    with_seeds(1, |session, gpu| {
        let (done, fence) = (gpu.timeline(0), gpu.fence(Default::default()));
        session.fail_call("vkQueueSubmit", 1, LOST);
        assert_eq!(gpu.submit(gpu.queue(0, 0), &Batch::default()), Err(LOST));
        returns_lost(gpu, done, fence, gpu.queue(1, 0));
    });
}

#[test]
fn failed_work_or_a_planned_step_loses_the_device() {
    with_seeds(SEEDS, |session, gpu| {
        let (done, fence, queue) = (
            gpu.timeline(0),
            gpu.fence(Default::default()),
            gpu.queue(0, 0),
        );
        if session.seed() % 2 == 0 {
            session.fail_submit(2);
        } else {
            session.lose_device_after(0, 5);
        }
        let mut submitted = 0;
        for value in 1..100 {
            let batch = Batch {
                signals: &[(done, value)],
                ..Batch::default()
            };
            if gpu.submit(queue, &batch).is_err() {
                break;
            }
            submitted = value;
            if gpu.wait(done, value, FOREVER).is_err() {
                break;
            }
        }
        assert!(submitted < 99);
        returns_lost(gpu, done, fence, queue);
    });
}

#[test]
fn work_that_hangs_blocks_its_queue_until_it_is_released() {
    with_seeds(SEEDS, |session, gpu| {
        let (one, two, other) = (gpu.timeline(0), gpu.timeline(0), gpu.timeline(0));
        session.hang_submit(1);
        for (queue, semaphore) in [
            (gpu.queue(0, 0), one),
            (gpu.queue(0, 0), two),
            (gpu.queue(0, 1), other),
        ] {
            let batch = Batch {
                signals: &[(semaphore, 1)],
                ..Batch::default()
            };
            gpu.submit(queue, &batch).unwrap();
        }
        gpu.wait(other, 1, FOREVER).unwrap();
        assert_eq!((gpu.value(one), gpu.value(two)), (Ok(0), Ok(0)));
        session.release_submits();
        gpu.wait(one, 1, FOREVER).unwrap();
        gpu.wait(two, 1, FOREVER).unwrap();
    });
}

#[test]
fn a_silent_submit_runs_and_never_signals() {
    with_seeds(SEEDS, |session, gpu| {
        let (done, fence) = (gpu.timeline(0), gpu.fence(Default::default()));
        let (log, pool, queue) = (gpu.words(4, 1), gpu.pool(0), gpu.queue(0, 0));
        let append = gpu.kernel(c"fencepost_append", &[log.buffer]);
        let work = gpu.record(pool, Default::default(), |buffer| {
            gpu.cmd_run(buffer, &append, 3)
        });
        session.silence_submit(1);
        let batch = Batch {
            buffers: &[work],
            signals: &[(done, 1)],
            fence,
            ..Batch::default()
        };
        gpu.submit(queue, &batch).unwrap();
        gpu.queue_wait_idle(queue).unwrap();
        assert_eq!(log.tokens(), [3]);
        assert_eq!(gpu.wait(done, 1, 0), Err(vk::Result::TIMEOUT));
        assert_eq!(gpu.signaled(fence), Ok(false));
        // the fence stays in use by the submit until the device is lost
        session.lose_device(0);
    });
}

#[test]
fn memory_runs_out() {
    let options = [("HEAP", 1 << 16), ("MAX_ALLOCATIONS", 2)];
    with_seed(1, &options, Setup::default(), |_, gpu| {
        let allocate = |size, kind| {
            let info = vk::MemoryAllocateInfo::default()
                .allocation_size(size)
                .memory_type_index(kind);
            // SAFETY: the device is alive
            unsafe { gpu.device.allocate_memory(&info, None) }
        };
        let too_much = allocate(1 << 17, 0);
        assert_eq!(too_much, Err(vk::Result::ERROR_OUT_OF_DEVICE_MEMORY));
        let (one, two) = (allocate(1 << 16, 0).unwrap(), allocate(1 << 15, 1).unwrap());
        assert_eq!(allocate(64, 1), Err(vk::Result::ERROR_TOO_MANY_OBJECTS));
        // SAFETY: nothing uses them
        unsafe {
            gpu.device.free_memory(one, None);
            gpu.device.free_memory(two, None);
        }
    });
}
