//! Wrong handles and calls give violations, and never crash.

mod support;

use ash::vk;
use support::*;

const BAD: vk::Result = vk::Result::ERROR_VALIDATION_FAILED_EXT;
const NONE: vk::CommandBufferUsageFlags = vk::CommandBufferUsageFlags::empty();

/// Submits a wait to a queue, and returns the semaphore that it waits for.
fn submit_wait(gpu: &Gpu, queue: vk::Queue) -> vk::Semaphore {
    let gate = gpu.timeline(0);
    let batch = Batch {
        waits: &[(gate, 1)],
        ..Batch::default()
    };
    gpu.submit(queue, &batch).unwrap();
    gate
}

fn submit(gpu: &Gpu, queue: vk::Queue, buffers: &[vk::CommandBuffer]) -> Result<(), vk::Result> {
    let batch = Batch {
        buffers,
        ..Batch::default()
    };
    gpu.submit(queue, &batch)
}

#[test]
fn stale_foreign_and_made_up_handles_are_violations() {
    with_seeds(1, |session, gpu| {
        let stale = gpu.timeline(0);
        gpu.forget(stale);
        // SAFETY: nothing uses it
        unsafe { gpu.device.destroy_semaphore(stale, None) };
        assert_eq!(gpu.value(stale), Err(BAD));
        assert_eq!(gpu.value(made_up()), Err(BAD));
        assert_eq!(gpu.queue_wait_idle(made_up()), Err(BAD));
        // SAFETY: the stand-in looks the handle up
        unsafe { gpu.device.destroy_semaphore(stale, None) };
        let other = make_device(&gpu.instance, gpu.physical, &Setup::default()).unwrap();
        let own = gpu.timeline(0);
        // SAFETY: as above
        let foreign = unsafe { other.get_semaphore_counter_value(own) };
        assert_eq!(foreign, Err(BAD));
        // SAFETY: nothing of it is left
        unsafe { other.destroy_device(None) };
        session.clear_violations_of(&[
            "was destroyed",
            "was never created",
            "was never created",
            "was destroyed",
            "does not belong to device",
        ]);
    });
}

#[test]
fn objects_that_pending_work_uses_must_not_be_destroyed() {
    with_seeds(10, |session, gpu| {
        let queue = gpu.queue(0, 0);
        let gate = submit_wait(gpu, queue);
        let (d, done) = (&gpu.device, gpu.timeline(0));
        let info = vk::FenceCreateInfo::default();
        // SAFETY: the device is alive
        let fence = unsafe { d.create_fence(&info, None) }.unwrap();
        let info = vk::QueryPoolCreateInfo::default()
            .query_type(vk::QueryType::TIMESTAMP)
            .query_count(2);
        // SAFETY: the device is alive
        let queries = unsafe { d.create_query_pool(&info, None) }.unwrap();
        let info = vk::CommandPoolCreateInfo::default();
        // SAFETY: the device is alive
        let pool = unsafe { d.create_command_pool(&info, None) }.unwrap();
        let work = gpu.record(pool, NONE, |buffer| gpu.cmd_reset(buffer, queries, 2));
        let batch = Batch {
            buffers: &[work],
            signals: &[(done, 1)],
            fence,
            ..Batch::default()
        };
        gpu.submit(queue, &batch).unwrap();
        gpu.forget(done);
        // SAFETY: the stand-in keeps what its work needs
        unsafe {
            d.destroy_semaphore(done, None);
            d.destroy_fence(fence, None);
            d.destroy_query_pool(queries, None);
            d.destroy_command_pool(pool, None);
        }
        session.clear_violations_of(&[
            "semaphore",
            "a fence is destroyed",
            "query pool",
            "command buffer",
        ]);
        gpu.signal(gate, 1).unwrap();
    });
}

#[test]
fn timeline_values_must_grow() {
    with_seeds(10, |session, gpu| {
        let (done, queue) = (gpu.timeline(5), gpu.queue(0, 0));
        let mark = |value| {
            let batch = Batch {
                signals: &[(done, value)],
                ..Batch::default()
            };
            gpu.submit(queue, &batch)
        };
        assert_eq!(gpu.signal(done, 5), Err(BAD));
        assert_eq!(mark(5), Err(BAD));
        let gate = submit_wait(gpu, queue);
        mark(8).unwrap();
        // a later signal on the same queue, and a signal of the host, which may run first
        assert_eq!(mark(8), Err(BAD));
        assert_eq!(gpu.signal(done, 8), Err(BAD));
        // a value below a pending one is valid
        gpu.signal(done, 7).unwrap();
        gpu.signal(gate, 1).unwrap();
        gpu.wait(done, 8, FOREVER).unwrap();
        session.clear_violations_of(&[
            "was signalled with 5",
            "signalled with 5 after 5",
            "signalled with 8 after 8",
            "while 8 is pending",
        ]);
    });
}

#[test]
fn signals_of_two_queues_in_the_wrong_order_are_found_when_they_run() {
    let found = fencepost_sim::find_seed(50, |seed| {
        let session = control().session(*seed, &[]);
        let gpu = Gpu::new(Setup::default());
        let done = gpu.timeline(0);
        for (index, value) in [(0, 1), (1, 2)] {
            let batch = Batch {
                signals: &[(done, value)],
                ..Batch::default()
            };
            gpu.submit(gpu.queue(0, index), &batch).unwrap();
        }
        gpu.wait(done, 2, FOREVER).unwrap();
        gpu.destroy();
        let violations = session.violations();
        let text = "is at 2 and was signalled with 1";
        violations.iter().any(|violation| violation.contains(text))
    });
    assert!(found.is_some());
}

#[test]
fn values_must_not_be_too_far_apart() {
    let options = [("MAX_DIFFERENCE", 100)];
    with_seed(1, &options, Setup::default(), |session, gpu| {
        let done = gpu.timeline(0);
        gpu.signal(done, 100).unwrap();
        assert_eq!(gpu.signal(done, 201), Err(BAD));
        assert_eq!(gpu.wait(done, 201, 0), Err(BAD));
        session.clear_violations_of(&["more than 100", "more than 100"]);
    });
}

#[test]
fn binary_semaphores_alternate_and_fences_are_used_once() {
    with_seeds(1, |session, gpu| {
        let (queue, semaphore) = (gpu.queue(0, 0), gpu.binary());
        let fence = gpu.fence(Default::default());
        let gate = submit_wait(gpu, queue);
        let signal = Batch {
            signals: &[(semaphore, 0)],
            ..Batch::default()
        };
        let wait = Batch {
            waits: &[(semaphore, 0)],
            fence,
            ..Batch::default()
        };
        assert_eq!(gpu.submit(queue, &wait), Err(BAD));
        gpu.submit(queue, &signal).unwrap();
        assert_eq!(gpu.submit(queue, &signal), Err(BAD));
        gpu.submit(queue, &wait).unwrap();
        let again = Batch {
            fence,
            ..Batch::default()
        };
        assert_eq!(gpu.submit(queue, &again), Err(BAD));
        // SAFETY: the stand-in refuses
        assert_eq!(unsafe { gpu.device.reset_fences(&[fence]) }, Err(BAD));
        gpu.signal(gate, 1).unwrap();
        gpu.wait_fence(fence, FOREVER).unwrap();
        assert_eq!(gpu.submit(queue, &again), Err(BAD));
        assert_eq!(gpu.value(semaphore), Err(BAD));
        session.clear_violations_of(&[
            "has no pending signal",
            "signalled again before a wait",
            "belongs to an earlier submit",
            "is reset while pending work will signal",
            "already signalled",
            "is binary",
        ]);
    });
}

#[test]
fn queries_are_reset_before_they_are_written_and_read() {
    with_seeds(1, |session, gpu| {
        let (pool, queries, queue) = (gpu.pool(0), gpu.queries(4), gpu.queue(0, 0));
        assert_eq!(gpu.results(queries, 1, Default::default()), Err(BAD));
        let write = gpu.record(pool, NONE, |buffer| gpu.cmd_timestamp(buffer, queries, 0));
        submit(gpu, queue, &[write]).unwrap();
        gpu.queue_wait_idle(queue).unwrap();
        gpu.host_reset(queries, 0, 4);
        submit(gpu, queue, &[write]).unwrap();
        gpu.queue_wait_idle(queue).unwrap();
        let first = gpu.results(queries, 1, Default::default()).unwrap();
        submit(gpu, queue, &[write]).unwrap();
        gpu.queue_wait_idle(queue).unwrap();
        assert_eq!(gpu.results(queries, 1, Default::default()), Ok(first));
        let gate = submit_wait(gpu, queue);
        submit(gpu, queue, &[write]).unwrap();
        gpu.host_reset(queries, 0, 1);
        gpu.host_reset(queries, 1, 4);
        let partial = gpu.results(queries, 1, vk::QueryResultFlags::PARTIAL);
        assert_eq!(partial, Err(BAD));
        session.clear_violations_of(&[
            "was never reset",
            "which was not reset",
            "which was not reset",
            "query 0 is reset while pending work uses it",
            "are not all in a pool of 4",
            "no partial results",
        ]);
        gpu.signal(gate, 1).unwrap();
        gpu.queue_wait_idle(queue).unwrap();
        session.clear_violations_of(&["which was not reset"]);
        let none = gpu.pool(2);
        gpu.record(none, NONE, |buffer| gpu.cmd_timestamp(buffer, queries, 1));
        session.clear_violations_of(&["the queue family has no timestamps"]);
    });
}

#[test]
fn only_recorded_command_buffers_are_submitted_as_their_flags_and_pool_permit() {
    with_seeds(1, |session, gpu| {
        let (pool, queue) = (gpu.pool(0), gpu.queue(0, 0));
        let empty = gpu.buffer_of(pool);
        assert_eq!(submit(gpu, queue, &[empty]), Err(BAD));
        assert_eq!(gpu.end(empty), Err(BAD));
        gpu.begin(empty, NONE).unwrap();
        assert_eq!(gpu.begin(empty, NONE), Err(BAD));
        assert_eq!(submit(gpu, queue, &[empty]), Err(BAD));
        gpu.end(empty).unwrap();
        gpu.cmd_barrier(empty);
        let elsewhere = submit(gpu, gpu.queue(1, 0), &[empty]);
        assert_eq!(elsewhere, Err(BAD));
        let once = gpu.record(pool, vk::CommandBufferUsageFlags::ONE_TIME_SUBMIT, |_| ());
        submit(gpu, queue, &[once]).unwrap();
        gpu.queue_wait_idle(queue).unwrap();
        assert_eq!(submit(gpu, queue, &[once]), Err(BAD));
        session.clear_violations_of(&[
            "not recorded",
            "not being recorded",
            "already being recorded",
            "not recorded",
            "not being recorded",
            "another queue family",
            "ONE_TIME_SUBMIT",
        ]);
    });
}

#[test]
fn a_pending_command_buffer_must_not_be_changed() {
    with_seeds(1, |session, gpu| {
        let (pool, queue) = (gpu.pool(0), gpu.queue(0, 0));
        let plain = gpu.record(pool, NONE, |_| ());
        let shared = vk::CommandBufferUsageFlags::SIMULTANEOUS_USE;
        let shared = gpu.record(pool, shared, |_| ());
        let gate = submit_wait(gpu, queue);
        submit(gpu, queue, &[plain, shared, shared]).unwrap();
        submit(gpu, queue, &[shared]).unwrap();
        assert_eq!(submit(gpu, queue, &[plain]), Err(BAD));
        assert_eq!(gpu.begin(plain, NONE), Err(BAD));
        // SAFETY: the stand-in refuses
        let reset = unsafe {
            let flags = vk::CommandPoolResetFlags::empty();
            gpu.device.reset_command_pool(pool, flags)
        };
        assert_eq!(reset, Err(BAD));
        gpu.signal(gate, 1).unwrap();
        gpu.queue_wait_idle(queue).unwrap();
        gpu.begin(plain, NONE).unwrap();
        gpu.end(plain).unwrap();
        session.clear_violations_of(&["SIMULTANEOUS_USE", "is pending", "is pending"]);
    });
}

#[test]
fn a_command_buffer_is_invalid_once_an_object_in_it_is_destroyed_or_updated() {
    with_seeds(1, |session, gpu| {
        let (pool, queue) = (gpu.pool(0), gpu.queue(0, 0));
        let (log, other) = (gpu.words(4, 1), gpu.words(4, 1));
        let append = gpu.kernel(c"fencepost_append", &[log.buffer]);
        let work = gpu.record(pool, NONE, |buffer| gpu.cmd_run(buffer, &append, 1));
        gpu.update(append.set, 0, other.buffer);
        assert_eq!(submit(gpu, queue, &[work]), Err(BAD));
        assert_eq!(submit(gpu, queue, &[work]), Err(BAD));
        let info = vk::QueryPoolCreateInfo::default()
            .query_type(vk::QueryType::TIMESTAMP)
            .query_count(1);
        // SAFETY: the device is alive
        let queries = unsafe { gpu.device.create_query_pool(&info, None) }.unwrap();
        let work = gpu.record(pool, NONE, |buffer| gpu.cmd_reset(buffer, queries, 1));
        // SAFETY: nothing pending uses it
        unsafe { gpu.device.destroy_query_pool(queries, None) };
        assert_eq!(submit(gpu, queue, &[work]), Err(BAD));
        session.clear_violations_of(&["was updated", "an invalid", "query pool"]);
    });
}

#[test]
fn features_and_functions_that_were_not_enabled_are_not_used() {
    let setup = Setup {
        api: vk::API_VERSION_1_2,
        timeline: false,
        host_reset: false,
        sync2: false,
        ..Setup::default()
    };
    with_seed(1, &[], setup, |session, gpu| {
        let (queue, queries) = (gpu.queue(0, 0), gpu.queries(1));
        assert_eq!(gpu.try_timeline(0), Err(BAD));
        gpu.host_reset(queries, 0, 1);
        // a loader returns such functions too, since other devices may have them
        let name = c"vkQueueSubmit2";
        // SAFETY: a C string
        let found = unsafe {
            let instance = gpu.instance.handle();
            gpu.entry.get_instance_proc_addr(instance, name.as_ptr())
        };
        // SAFETY: the type of the function of this name
        let submit_2: vk::PFN_vkQueueSubmit2 = unsafe { std::mem::transmute(found.unwrap()) };
        // SAFETY: nothing is submitted
        let result = unsafe { submit_2(queue, 0, std::ptr::null(), vk::Fence::null()) };
        assert_eq!(result, BAD);
        session.clear_violations_of(&[
            "timelineSemaphore was not enabled",
            "hostQueryReset was not enabled",
            "neither its version nor its extension",
        ]);
    });
}

#[test]
fn synchronization2_needs_its_feature_even_in_1_3() {
    let setup = Setup {
        sync2: false,
        ..Setup::default()
    };
    with_seed(1, &[], setup, |session, gpu| {
        let all = vk::PipelineStageFlags2::ALL_COMMANDS;
        let result = gpu.submit_2(gpu.queue(0, 0), &Batch::default(), all);
        assert_eq!(result, Err(BAD));
        let (pool, queries) = (gpu.pool(0), gpu.queries(1));
        gpu.record(pool, NONE, |buffer| {
            // SAFETY: the handles are alive
            unsafe { gpu.device.cmd_write_timestamp2(buffer, all, queries, 0) }
        });
        session.clear_violations_of(&["synchronization2", "synchronization2"]);
    });
}

#[test]
fn only_memory_that_is_visible_to_the_host_is_mapped_and_only_once() {
    with_seeds(1, |session, gpu| {
        let words = gpu.words(32, 2);
        let (d, flags) = (&gpu.device, vk::MemoryMapFlags::empty());
        // SAFETY: the stand-in checks the arguments before it returns a pointer
        let again = unsafe { d.map_memory(words.memory, 0, 64, flags) }.map(drop);
        assert_eq!(again, Err(BAD));
        let range = vk::MappedMemoryRange::default()
            .memory(words.memory)
            .offset(4)
            .size(4);
        // SAFETY: as above
        let odd = unsafe { d.flush_mapped_memory_ranges(&[range]) };
        assert_eq!(odd, Err(BAD));
        // SAFETY: as above
        unsafe { d.unmap_memory(words.memory) };
        // SAFETY: as above
        unsafe { d.unmap_memory(words.memory) };
        // SAFETY: as above
        let beyond = unsafe { d.map_memory(words.memory, 0, 1 << 20, flags) }.map(drop);
        assert_eq!(beyond, Err(BAD));
        let info = vk::MemoryAllocateInfo::default().allocation_size(4096);
        // SAFETY: the device is alive
        let hidden = unsafe { d.allocate_memory(&info, None) }.unwrap();
        // SAFETY: as above
        let unseen = unsafe { d.map_memory(hidden, 0, 4096, flags) }.map(drop);
        assert_eq!(unseen, Err(BAD));
        // SAFETY: nothing uses it
        unsafe { d.free_memory(hidden, None) };
        session.clear_violations_of(&[
            "already mapped",
            "nonCoherentAtomSize",
            "not mapped",
            "beyond the memory's end",
            "not visible to the host",
        ]);
    });
}

#[test]
fn objects_that_outlive_their_device_are_reported() {
    let session = control().session(1, &[]);
    let gpu = Gpu::new(Setup::default());
    let gate = submit_wait(&gpu, gpu.queue(0, 0));
    gpu.forget(gate);
    // SAFETY: the stand-in reports what is left
    unsafe { gpu.device.destroy_device(None) };
    // SAFETY: nothing of it is left
    unsafe { gpu.instance.destroy_instance(None) };
    session.clear_violations_of(&["queues are not idle", "objects are left: semaphore"]);
    assert_eq!(session.live(), Default::default());
}

#[test]
fn a_restart_invalidates_old_handles() {
    let session = control().session(1, &[]);
    let gpu = Gpu::new(Setup::default());
    let (old, words) = (gpu.timeline(0), gpu.words(4, 1));
    session.restart(session.seed(), &[]);
    assert_eq!(gpu.value(old), Err(BAD));
    session.clear_violations_of(&["was never created"]);
    // the memory is still mapped
    words.set(0, 1);
    assert_eq!(words.get(0), 1);
}
