//! Which work is ordered, and which is not.

mod support;

use ash::vk;
use fencepost_sim_vulkan::Session;
use std::cell::RefCell;
use std::collections::BTreeSet;
use support::*;

const SEEDS: u64 = 60;
const NONE: vk::CommandBufferUsageFlags = vk::CommandBufferUsageFlags::empty();

/// How two pieces of work are submitted, to two queues or to one.
#[derive(Clone, Copy, Default)]
struct Case {
    /// Both on the same queue.
    one_queue: bool,
    /// The second waits for a value that the first signals.
    wait: bool,
    /// A barrier with these stages stands before the second.
    barrier: Option<(vk::PipelineStageFlags, vk::PipelineStageFlags)>,
    /// The stages of waits and signals, submitted with `vkQueueSubmit2`.
    stages: Option<vk::PipelineStageFlags2>,
    /// The second is submitted first.
    reversed: bool,
}

/// The orders in which the two run over many seeds.
fn orders(case: Case) -> BTreeSet<Vec<u32>> {
    let seen = RefCell::new(BTreeSet::new());
    // always all seeds, since the one seed of a replay cannot show two orders
    for seed in 0..SEEDS {
        with_seed(seed, &[], Setup::default(), |_, gpu| {
            let second_index = if case.one_queue { 0 } else { 1 };
            let (first, second) = (gpu.queue(0, 0), gpu.queue(0, second_index));
            let (log, pool) = (gpu.words(16, 1), gpu.pool(0));
            let append = gpu.kernel(c"fencepost_append", &[log.buffer]);
            let (gate, done) = (gpu.timeline(0), gpu.timeline(0));
            let one = gpu.record(pool, NONE, |buffer| gpu.cmd_run(buffer, &append, 1));
            let two = gpu.record(pool, NONE, |buffer| {
                if let Some((before, after)) = case.barrier {
                    gpu.cmd_barrier_with(buffer, before, after);
                }
                gpu.cmd_run(buffer, &append, 2);
            });
            let submit = |queue, batch: &Batch<'_>| match case.stages {
                Some(stages) => gpu.submit_2(queue, batch, stages).unwrap(),
                None => gpu.submit(queue, batch).unwrap(),
            };
            // neither may run before both are submitted
            for queue in [first, second] {
                let gated = Batch {
                    waits: &[(gate, 1)],
                    ..Batch::default()
                };
                gpu.submit(queue, &gated).unwrap();
            }
            let submit_first = || {
                let batch = Batch {
                    buffers: &[one],
                    signals: &[(done, 1)],
                    ..Batch::default()
                };
                submit(first, &batch);
            };
            let submit_second = || {
                let batch = Batch {
                    waits: if case.wait { &[(done, 1)] } else { &[] },
                    buffers: &[two],
                    ..Batch::default()
                };
                submit(second, &batch);
            };
            if case.reversed {
                submit_second();
                submit_first();
            } else {
                submit_first();
                submit_second();
            }
            gpu.signal(gate, 1).unwrap();
            gpu.queue_wait_idle(first).unwrap();
            gpu.queue_wait_idle(second).unwrap();
            seen.borrow_mut().insert(log.tokens());
        });
    }
    seen.into_inner()
}

fn one_order() -> BTreeSet<Vec<u32>> {
    [vec![1, 2]].into()
}

fn any_order() -> BTreeSet<Vec<u32>> {
    [vec![1, 2], vec![2, 1]].into()
}

#[test]
fn without_a_wait_two_queues_run_in_any_order() {
    assert_eq!(orders(Case::default()), any_order());
}

#[test]
fn a_wait_orders_two_queues() {
    let wait = Case {
        wait: true,
        ..Case::default()
    };
    assert_eq!(orders(wait), one_order());
}

#[test]
fn a_wait_may_be_submitted_before_its_signal() {
    let reversed = Case {
        wait: true,
        reversed: true,
        ..Case::default()
    };
    assert_eq!(orders(reversed), one_order());
}

#[test]
fn without_a_barrier_one_queue_runs_in_any_order() {
    let one_queue = Case {
        one_queue: true,
        ..Case::default()
    };
    assert_eq!(orders(one_queue), any_order());
}

#[test]
fn a_barrier_orders_one_queue_if_its_stages_are_those_of_the_work() {
    let barrier = |before, after| Case {
        one_queue: true,
        barrier: Some((before, after)),
        ..Case::default()
    };
    type S = vk::PipelineStageFlags;
    let compute = S::COMPUTE_SHADER;
    assert_eq!(orders(barrier(compute, compute)), one_order());
    assert_eq!(
        orders(barrier(S::BOTTOM_OF_PIPE, S::TOP_OF_PIPE)),
        one_order()
    );
    assert_eq!(orders(barrier(S::TOP_OF_PIPE, compute)), any_order());
    assert_eq!(orders(barrier(compute, S::HOST)), any_order());
}

#[test]
fn waits_and_signals_order_only_the_stages_that_they_name() {
    type S = vk::PipelineStageFlags2;
    let with = |stages| Case {
        wait: true,
        stages: Some(stages),
        ..Case::default()
    };
    assert_eq!(orders(with(S::ALL_COMMANDS)), one_order());
    assert_eq!(orders(with(S::COMPUTE_SHADER)), one_order());
    assert_eq!(orders(with(S::NONE)), any_order());
}

/// Runs a test with a queue that waits for a timeline semaphore, the gate.
fn gated(test: impl Fn(&Session<'_>, &Gpu, vk::Semaphore, vk::Queue)) {
    with_seeds(SEEDS, |session, gpu| {
        let (gate, queue) = (gpu.timeline(0), gpu.queue(0, 0));
        let gated = Batch {
            waits: &[(gate, 1)],
            ..Batch::default()
        };
        gpu.submit(queue, &gated).unwrap();
        test(session, gpu, gate, queue);
    });
}

#[test]
fn a_signal_comes_after_everything_submitted_before_to_the_queue() {
    gated(|_, gpu, gate, queue| {
        let (log, pool, done) = (gpu.words(40, 1), gpu.pool(0), gpu.timeline(0));
        let append = gpu.kernel(c"fencepost_append", &[log.buffer]);
        let buffers: Vec<_> = (0..10)
            .map(|token| gpu.record(pool, NONE, |buffer| gpu.cmd_run(buffer, &append, token)))
            .collect();
        for buffer in &buffers {
            let batch = Batch {
                buffers: std::slice::from_ref(buffer),
                ..Batch::default()
            };
            gpu.submit(queue, &batch).unwrap();
        }
        let mark = Batch {
            signals: &[(done, 7)],
            ..Batch::default()
        };
        gpu.submit(queue, &mark).unwrap();
        assert_eq!(gpu.value(done), Ok(0));
        gpu.signal(gate, 1).unwrap();
        gpu.wait(done, 7, FOREVER).unwrap();
        assert_eq!(log.tokens().iter().sum::<u32>(), 45);
    });
}

#[test]
fn a_value_is_seen_before_its_batch_is_reported_complete() {
    let seen = fencepost_sim::find_seed(200, |seed| {
        let found = RefCell::new(false);
        with_seed(*seed, &[], Setup::default(), |_, gpu| {
            let (done, fence) = (gpu.timeline(0), gpu.fence(Default::default()));
            let batch = Batch {
                signals: &[(done, 1)],
                fence,
                ..Batch::default()
            };
            gpu.submit(gpu.queue(0, 0), &batch).unwrap();
            gpu.wait(done, 1, FOREVER).unwrap();
            *found.borrow_mut() = gpu.signaled(fence) == Ok(false);
            gpu.wait_fence(fence, FOREVER).unwrap();
        });
        found.into_inner()
    });
    assert!(seen.is_some());
}

#[test]
fn a_binary_semaphore_orders_two_queues_again_and_again() {
    with_seeds(SEEDS, |_, gpu| {
        let (log, pool, semaphore) = (gpu.words(40, 1), gpu.pool(0), gpu.binary());
        let append = gpu.kernel(c"fencepost_append", &[log.buffer]);
        let last = gpu.fence(Default::default());
        for token in 0..6 {
            let work = gpu.record(pool, NONE, |buffer| gpu.cmd_run(buffer, &append, token));
            let batch = Batch {
                waits: if token == 0 { &[] } else { &[(semaphore, 0)] },
                buffers: &[work],
                signals: if token == 5 { &[] } else { &[(semaphore, 0)] },
                fence: if token == 5 { last } else { vk::Fence::null() },
            };
            gpu.submit(gpu.queue(0, token % 2), &batch).unwrap();
        }
        gpu.wait_fence(last, FOREVER).unwrap();
        assert_eq!(log.tokens(), [0, 1, 2, 3, 4, 5]);
    });
}

#[test]
fn a_paused_queue_blocks_no_other() {
    with_seeds(SEEDS, |session, gpu| {
        let (paused, free) = (gpu.queue(0, 0), gpu.queue(1, 0));
        let (one, two) = (gpu.timeline(0), gpu.timeline(0));
        session.pause(paused);
        for (queue, semaphore) in [(paused, one), (free, two)] {
            let batch = Batch {
                signals: &[(semaphore, 1)],
                ..Batch::default()
            };
            gpu.submit(queue, &batch).unwrap();
        }
        gpu.queue_wait_idle(free).unwrap();
        assert_eq!((gpu.value(one), gpu.value(two)), (Ok(0), Ok(1)));
        assert_eq!(gpu.wait(one, 1, 1000), Err(vk::Result::TIMEOUT));
        session.resume(paused);
        gpu.wait(one, 1, FOREVER).unwrap();
    });
}

#[test]
fn kernels_count_bytes_and_add_counts() {
    with_seeds(10, |_, gpu| {
        let text = b"fencepost";
        let (data, counts, sum) = (gpu.words(3, 1), gpu.words(512, 1), gpu.words(512, 1));
        for (index, four) in text.chunks(4).enumerate() {
            let mut word = [0; 4];
            word[..four.len()].copy_from_slice(four);
            data.set(index, u32::from_le_bytes(word));
        }
        // the low word carries
        sum.set(usize::from(b'e'), u32::MAX);
        let histogram = gpu.kernel(c"fencepost_histogram", &[data.buffer, counts.buffer]);
        let reduce = gpu.kernel(c"fencepost_reduce", &[counts.buffer, sum.buffer]);
        let (pool, fence) = (gpu.pool(0), gpu.fence(Default::default()));
        let work = gpu.record(pool, NONE, |buffer| {
            gpu.cmd_run(buffer, &histogram, text.len() as u32);
            gpu.cmd_barrier(buffer);
            gpu.cmd_run(buffer, &reduce, 0);
        });
        let batch = Batch {
            buffers: &[work],
            fence,
            ..Batch::default()
        };
        gpu.submit(gpu.queue(0, 0), &batch).unwrap();
        gpu.wait_fence(fence, FOREVER).unwrap();
        assert_eq!(counts.get(usize::from(b'e')), 2);
        let e = usize::from(b'e');
        assert_eq!((sum.get(e), sum.get(256 + e)), (1, 1));
        assert_eq!((0..512).map(|index| counts.get(index)).sum::<u32>(), 9);
    });
}

#[test]
fn transfers_run_and_memory_that_is_not_coherent_needs_flushes() {
    with_seeds(10, |_, gpu| {
        let (from, to) = (gpu.words(16, 2), gpu.words(16, 2));
        let (pool, d) = (gpu.pool(0), &gpu.device);
        from.flush();
        from.set(3, 33);
        let copy = |flush: bool| {
            let fence = gpu.fence(Default::default());
            let work = gpu.record(pool, NONE, |buffer| {
                let region = vk::BufferCopy::default().size(32);
                // SAFETY: the buffers are alive
                unsafe {
                    d.cmd_fill_buffer(buffer, to.buffer, 32, vk::WHOLE_SIZE, 7);
                    d.cmd_update_buffer(buffer, to.buffer, 60, &9_u32.to_le_bytes());
                    d.cmd_copy_buffer(buffer, from.buffer, to.buffer, &[region]);
                }
            });
            if flush {
                from.flush();
            }
            let batch = Batch {
                buffers: &[work],
                fence,
                ..Batch::default()
            };
            gpu.submit(gpu.queue(0, 0), &batch).unwrap();
            gpu.wait_fence(fence, FOREVER).unwrap();
        };
        copy(false);
        assert_eq!((to.get(3), to.get(8)), (0, 0));
        to.invalidate();
        assert_eq!((to.get(3), to.get(8)), (0, 7));
        // two writes without a barrier between them
        assert!([7, 9].contains(&to.get(15)));
        copy(true);
        to.invalidate();
        assert_eq!(to.get(3), 33);
    });
}
