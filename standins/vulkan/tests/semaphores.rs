//! Timeline semaphores and fences, as the host sees them.

mod support;

use ash::vk;
use std::time::{Duration, Instant};
use support::*;

#[test]
fn the_host_signals_and_waits_for_any_or_all() {
    with_seeds(10, |_, gpu| {
        let (one, two) = (gpu.timeline(5), gpu.timeline(0));
        let both = [(one, 5), (two, 1)];
        let (any, all) = (vk::SemaphoreWaitFlags::ANY, vk::SemaphoreWaitFlags::empty());
        assert_eq!(gpu.value(one), Ok(5));
        assert_eq!(gpu.wait_with(any, &both, FOREVER), Ok(()));
        assert_eq!(gpu.wait_with(all, &both, 0), Err(vk::Result::TIMEOUT));
        let begun = Instant::now();
        let short = gpu.wait_with(all, &both, 2_000_000);
        assert_eq!(short, Err(vk::Result::TIMEOUT));
        // never early; nothing limits how late it is
        assert!(begun.elapsed() >= Duration::from_millis(2));
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| gpu.wait_with(all, &both, FOREVER));
            gpu.signal(two, 9).unwrap();
            assert_eq!(waiter.join().unwrap(), Ok(()));
        });
        assert_eq!(gpu.value(two), Ok(9));
    });
}

#[test]
fn a_fence_is_signalled_once_all_earlier_work_is_complete_and_can_be_reset() {
    with_seeds(30, |_, gpu| {
        let (gate, queue) = (gpu.timeline(0), gpu.queue(1, 1));
        let fence = gpu.fence(Default::default());
        for round in 1..=3 {
            let gated = Batch {
                waits: &[(gate, round)],
                ..Batch::default()
            };
            gpu.submit(queue, &gated).unwrap();
            // no batch, only the fence
            // SAFETY: the queue and the fence are alive
            unsafe { gpu.device.queue_submit(queue, &[], fence) }.unwrap();
            assert_eq!(gpu.signaled(fence), Ok(false));
            assert_eq!(gpu.wait_fence(fence, 1000), Err(vk::Result::TIMEOUT));
            gpu.signal(gate, round).unwrap();
            gpu.wait_fence(fence, FOREVER).unwrap();
            assert_eq!(gpu.signaled(fence), Ok(true));
            // SAFETY: nothing uses the fence
            unsafe { gpu.device.reset_fences(&[fence]) }.unwrap();
            assert_eq!(gpu.signaled(fence), Ok(false));
        }
        let set = gpu.fence(vk::FenceCreateFlags::SIGNALED);
        assert_eq!(gpu.signaled(set), Ok(true));
        // SAFETY: both are alive
        let any = unsafe { gpu.device.wait_for_fences(&[fence, set], false, 0) };
        assert_eq!(any, Ok(()));
    });
}

#[test]
fn objects_may_be_destroyed_as_soon_as_a_signal_of_their_batch_is_seen() {
    with_seeds(100, |_, gpu| {
        let (pool, queue) = (gpu.pool(0), gpu.queue(0, 0));
        let done = gpu.timeline(0);
        let buffer = gpu.record(pool, Default::default(), |_| ());
        for value in 1..20 {
            let batch = Batch {
                buffers: &[buffer],
                signals: &[(done, value)],
                ..Batch::default()
            };
            gpu.submit(queue, &batch).unwrap();
            gpu.wait(done, value, FOREVER).unwrap();
            gpu.begin(buffer, Default::default()).unwrap();
            gpu.end(buffer).unwrap();
        }
        gpu.forget(done);
        // SAFETY: its last signal was seen
        unsafe { gpu.device.destroy_semaphore(done, None) };
    });
}

#[test]
fn the_aliases_of_extensions_are_the_same_functions() {
    let setup = Setup {
        api: vk::API_VERSION_1_2,
        extensions: &[
            c"VK_KHR_timeline_semaphore",
            c"VK_KHR_synchronization2",
            c"VK_EXT_host_query_reset",
        ],
        ..Setup::default()
    };
    with_seed(3, &[("API", 12)], setup, |session, gpu| {
        let timeline = ash::khr::timeline_semaphore::Device::new(&gpu.instance, &gpu.device);
        let sync2 = ash::khr::synchronization2::Device::new(&gpu.instance, &gpu.device);
        let reset = ash::ext::host_query_reset::Device::new(&gpu.instance, &gpu.device);
        let (done, pool, queries) = (gpu.timeline(0), gpu.pool(0), gpu.queries(1));
        let stage = vk::PipelineStageFlags2::ALL_COMMANDS;
        // SAFETY: the handles are alive, and the structures live through the calls
        unsafe { (reset.fp().reset_query_pool_ext)(gpu.device.handle(), queries, 0, 1) };
        let buffer = gpu.record(pool, Default::default(), |buffer| {
            let memory = [vk::MemoryBarrier2::default()
                .src_stage_mask(stage)
                .dst_stage_mask(stage)];
            let barrier = vk::DependencyInfo::default().memory_barriers(&memory);
            // SAFETY: as above
            unsafe {
                sync2.cmd_pipeline_barrier2(buffer, &barrier);
                sync2.cmd_write_timestamp2(buffer, stage, queries, 0);
            }
        });
        let buffers = [vk::CommandBufferSubmitInfo::default().command_buffer(buffer)];
        let signals = [vk::SemaphoreSubmitInfo::default()
            .semaphore(done)
            .value(1)
            .stage_mask(stage)];
        let info = vk::SubmitInfo2::default()
            .command_buffer_infos(&buffers)
            .signal_semaphore_infos(&signals);
        // SAFETY: as above
        unsafe { sync2.queue_submit2(gpu.queue(0, 0), &[info], vk::Fence::null()) }.unwrap();
        let (semaphores, values) = ([done], [1]);
        let wait = vk::SemaphoreWaitInfo::default()
            .semaphores(&semaphores)
            .values(&values);
        // SAFETY: as above
        unsafe { timeline.wait_semaphores(&wait, FOREVER) }.unwrap();
        let signal = vk::SemaphoreSignalInfo::default().semaphore(done).value(2);
        // SAFETY: as above
        unsafe { timeline.signal_semaphore(&signal) }.unwrap();
        // SAFETY: as above
        assert_eq!(unsafe { timeline.get_semaphore_counter_value(done) }, Ok(2));
        assert!(gpu.results(queries, 1, Default::default()).is_ok());
        assert_eq!(session.calls("vkQueueSubmit2KHR"), 1);
    });
}
