//! Which orders the scheduler takes, and which it never does.

mod support;

use fencepost_sim::{
    Command, Config, Order, Submission, TraceEntry, TraceEvent, find_seed, with_seeds,
};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use support::{Log, device, device_with, queue};

const SEEDS: u64 = 300;

/// A little of everything, on three queues.
fn busy_trace(seed: u64) -> Vec<TraceEntry> {
    let device = device(seed);
    let queues = [Order::InOrder, Order::Overlapping, Order::OrderedSignals]
        .map(|order| queue(&device, order));
    let semaphore = device.new_semaphore(0).unwrap();
    let slot = device.new_slot().unwrap();
    semaphore.notify(2, |_| ()).unwrap();
    for round in 0..4 {
        for queue in &queues {
            queue
                .submit(Submission::new().run(|| ()).run(|| ()).on_completed(|_| ()))
                .unwrap();
        }
        queues[0]
            .submit(Submission::new().signal(&semaphore, round + 1))
            .unwrap();
        queues[1]
            .submit(Submission::new().wait(&semaphore, round).run(|| ()))
            .unwrap();
    }
    queues[2]
        .submit(Submission::new().timestamp(&slot))
        .unwrap();
    device.run_until_idle();
    assert_eq!(device.pending_work(), Vec::<String>::new());
    device.trace()
}

#[test]
fn one_seed_gives_one_trace() {
    with_seeds(20, |seed| assert_eq!(busy_trace(seed), busy_trace(seed)));
}

#[test]
fn other_seeds_give_other_traces() {
    let traces: HashSet<String> = (0..50)
        .map(|seed| {
            busy_trace(seed)
                .iter()
                .map(|entry| format!("{entry}\n"))
                .collect()
        })
        .collect();
    assert_eq!(traces.len(), 50);
}

#[test]
fn every_batch_is_submitted_started_and_reported_once() {
    with_seeds(50, |seed| {
        let trace = busy_trace(seed);
        let of = |pick: fn(&TraceEvent) -> Option<u64>| {
            let mut batches: Vec<u64> = trace
                .iter()
                .filter_map(|entry| pick(&entry.event))
                .collect();
            batches.sort_unstable();
            batches
        };
        let all: Vec<u64> = (0..21).collect();
        assert_eq!(
            of(|e| if let TraceEvent::Submitted { batch, .. } = e {
                Some(*batch)
            } else {
                None
            }),
            all
        );
        assert_eq!(
            of(|e| if let TraceEvent::Started { batch, .. } = e {
                Some(*batch)
            } else {
                None
            }),
            all
        );
        assert_eq!(
            of(|e| if let TraceEvent::Completed { batch, .. } = e {
                Some(*batch)
            } else {
                None
            }),
            all
        );
    });
}

#[test]
fn in_order_queue_runs_everything_in_order() {
    with_seeds(SEEDS, |seed| {
        let (device, log) = (device(seed), Log::default());
        let stream = queue(&device, Order::InOrder);
        let other = queue(&device, Order::InOrder);
        for token in 0..10 {
            stream
                .submit(
                    Submission::new()
                        .run(log.add(2 * token))
                        .run(log.add(2 * token + 1)),
                )
                .unwrap();
            other.submit(Submission::new().run(|| ())).unwrap();
        }
        device.run_until_idle();
        assert_eq!(log.seen(), (0..20).collect::<Vec<_>>());
    });
}

#[test]
fn in_order_work_waits_for_the_end_of_earlier_work() {
    with_seeds(SEEDS, |seed| {
        let (device, log) = (device(seed), Log::default());
        let stream = queue(&device, Order::InOrder);
        let gate = device.new_gate().unwrap();
        stream.submit(Submission::new().gate(&gate)).unwrap();
        stream.submit(Submission::new().run(log.add(1))).unwrap();
        device.run_until_idle();
        assert_eq!(log.seen(), []);
        gate.open();
        device.run_until_idle();
        assert_eq!(log.seen(), [1]);
    });
}

/// Two queues, one of which should wait for the other.
fn producer_and_consumer(seed: u64, order: Order, wait: bool) -> Vec<u32> {
    let (device, log) = (device(seed), Log::default());
    let (producer, consumer) = (queue(&device, order), queue(&device, order));
    let done = device.new_semaphore(0).unwrap();
    producer
        .submit(Submission::new().run(log.add(1)).signal(&done, 1))
        .unwrap();
    let consume = if wait {
        Submission::new().wait(&done, 1)
    } else {
        Submission::new()
    };
    consumer.submit(consume.run(log.add(2))).unwrap();
    device.run_until_idle();
    log.seen()
}

#[test]
fn a_missing_wait_shows_on_some_seed() {
    for order in [Order::InOrder, Order::Overlapping, Order::OrderedSignals] {
        assert!(
            find_seed(SEEDS, |&seed| producer_and_consumer(seed, order, false)
                == [2, 1])
            .is_some()
        );
    }
}

#[test]
fn a_wait_orders_two_queues_on_every_seed() {
    with_seeds(SEEDS, |seed| {
        for order in [Order::InOrder, Order::Overlapping, Order::OrderedSignals] {
            assert_eq!(producer_and_consumer(seed, order, true), [1, 2]);
        }
    });
}

/// The order of two batches' work on one queue.
fn two_batches(seed: u64, order: Order) -> Vec<u32> {
    let (device, log) = (device(seed), Log::default());
    let queue = queue(&device, order);
    queue.submit(Submission::new().run(log.add(1))).unwrap();
    queue.submit(Submission::new().run(log.add(2))).unwrap();
    device.run_until_idle();
    log.seen()
}

#[test]
fn work_of_overlapping_batches_is_reordered_on_some_seed() {
    for order in [Order::Overlapping, Order::OrderedSignals] {
        assert!(find_seed(SEEDS, |&seed| two_batches(seed, order) == [2, 1]).is_some());
        assert!(find_seed(SEEDS, |&seed| two_batches(seed, order) == [1, 2]).is_some());
    }
}

/// The order in which two batches of one queue are reported complete.
fn reports(seed: u64, order: Order) -> Vec<u64> {
    let device = device(seed);
    let queue = queue(&device, order);
    for _ in 0..2 {
        queue.submit(Submission::new().run(|| ())).unwrap();
    }
    device.run_until_idle();
    let reported = |entry: &TraceEntry| match entry.event {
        TraceEvent::Completed { batch, .. } => Some(batch),
        _ => None,
    };
    device.trace().iter().filter_map(reported).collect()
}

#[test]
fn overlapping_batches_complete_out_of_order_on_some_seed() {
    assert!(find_seed(SEEDS, |&seed| reports(seed, Order::Overlapping) == [1, 0]).is_some());
}

#[test]
fn other_queues_report_batches_in_order() {
    with_seeds(SEEDS, |seed| {
        assert_eq!(reports(seed, Order::InOrder), [0, 1]);
        assert_eq!(reports(seed, Order::OrderedSignals), [0, 1]);
    });
}

#[test]
fn commands_of_one_overlapping_batch_run_in_order() {
    with_seeds(SEEDS, |seed| {
        let (device, log) = (device(seed), Log::default());
        let queue = queue(&device, Order::Overlapping);
        queue
            .submit(
                Submission::new()
                    .run(log.add(1))
                    .run(log.add(2))
                    .run(log.add(3)),
            )
            .unwrap();
        queue.submit(Submission::new().run(|| ())).unwrap();
        device.run_until_idle();
        assert_eq!(log.seen(), [1, 2, 3]);
    });
}

/// Whether a signal in a batch of its own came before the work submitted earlier was over.
fn signal_overtakes_work(seed: u64, order: Order) -> bool {
    let device = device(seed);
    let queue = queue(&device, order);
    let (gate, done) = (device.new_gate().unwrap(), device.new_semaphore(0).unwrap());
    queue.submit(Submission::new().gate(&gate)).unwrap();
    queue.submit(Submission::new().signal(&done, 1)).unwrap();
    device.run_until_idle();
    let early = done.value().unwrap() == 1;
    gate.open();
    device.run_until_idle();
    assert_eq!(done.value().unwrap(), 1);
    early
}

#[test]
fn a_signal_of_its_own_proves_nothing_on_an_overlapping_queue() {
    assert!(
        find_seed(SEEDS, |&seed| signal_overtakes_work(
            seed,
            Order::Overlapping
        ))
        .is_some()
    );
}

#[test]
fn a_signal_follows_all_earlier_work_on_the_other_queues() {
    with_seeds(SEEDS, |seed| {
        assert!(!signal_overtakes_work(seed, Order::InOrder));
        assert!(!signal_overtakes_work(seed, Order::OrderedSignals));
    });
}

/// Whether work passed a batch of the same queue that waits.
fn work_passes_a_wait(seed: u64, order: Order, channels: Option<usize>) -> bool {
    let (device, log) = (
        device_with(Config {
            channels,
            ..Config::seeded(seed)
        }),
        Log::default(),
    );
    let queue = queue(&device, order);
    let go = device.new_semaphore(0).unwrap();
    queue
        .submit(Submission::new().wait(&go, 1).run(log.add(1)))
        .unwrap();
    queue.submit(Submission::new().run(log.add(2))).unwrap();
    device.run_until_idle();
    let passed = !log.seen().is_empty();
    go.signal(1).unwrap();
    device.run_until_idle();
    assert_eq!(log.seen().len(), 2);
    passed
}

#[test]
fn work_passes_a_waiting_batch_only_where_batches_are_free() {
    assert!(
        find_seed(SEEDS, |&seed| work_passes_a_wait(
            seed,
            Order::Overlapping,
            None
        ))
        .is_some()
    );
    with_seeds(SEEDS, |seed| {
        assert!(!work_passes_a_wait(seed, Order::InOrder, None));
        assert!(!work_passes_a_wait(seed, Order::OrderedSignals, None));
    });
}

#[test]
fn a_channel_of_its_own_makes_a_wait_stop_the_whole_queue() {
    // a wait that has started stops the later batch; one that has not cannot be passed either
    with_seeds(SEEDS, |seed| {
        assert!(!work_passes_a_wait(seed, Order::Overlapping, Some(1)))
    });
}

/// Whether a stalled stream stalls another one.
fn other_stream_stalls(seed: u64, channels: Option<usize>) -> bool {
    let (device, log) = (
        device_with(Config {
            channels,
            ..Config::seeded(seed)
        }),
        Log::default(),
    );
    let (stalled, other) = (
        queue(&device, Order::InOrder),
        queue(&device, Order::InOrder),
    );
    let go = device.new_semaphore(0).unwrap();
    stalled.submit(Submission::new().wait(&go, 1)).unwrap();
    other.submit(Submission::new().run(log.add(1))).unwrap();
    device.run_until_idle();
    let stalls = log.seen().is_empty();
    go.signal(1).unwrap();
    device.run_until_idle();
    assert_eq!(log.seen(), [1]);
    stalls
}

#[test]
fn a_wait_stalls_the_streams_that_share_its_channel_and_no_others() {
    with_seeds(SEEDS, |seed| {
        assert!(other_stream_stalls(seed, Some(1)));
        assert!(!other_stream_stalls(seed, Some(2)));
        assert!(!other_stream_stalls(seed, None));
    });
}

#[test]
fn no_more_batches_overlap_than_configured() {
    let most = |max_overlap| {
        let mut most = 0;
        for seed in 0..20 {
            let device = device_with(Config {
                max_overlap,
                ..Config::seeded(seed)
            });
            let queue = queue(&device, Order::Overlapping);
            let gate = device.new_gate().unwrap();
            for _ in 0..10 {
                queue.submit(Submission::new().gate(&gate)).unwrap();
            }
            device.run_until_idle();
            let started = |entry: &&TraceEntry| matches!(entry.event, TraceEvent::Started { .. });
            most = most.max(device.trace().iter().filter(started).count());
        }
        most
    };
    assert_eq!(most(1), 1);
    assert_eq!(most(4), 4);
}

#[test]
fn a_batch_may_lag_far_behind_the_others() {
    let lags = |seed: u64| {
        let (device, log) = (device(seed), Log::default());
        let (slow, busy) = (
            queue(&device, Order::InOrder),
            queue(&device, Order::InOrder),
        );
        slow.submit(Submission::new().run(log.add(99))).unwrap();
        for token in 0..20 {
            busy.submit(Submission::new().run(log.add(token))).unwrap();
        }
        device.run_until_idle();
        log.seen().last() == Some(&99)
    };
    // at even chances this is as likely as twenty heads in a row
    assert!(find_seed(SEEDS, |&seed| lags(seed)).is_some());
}

#[test]
fn a_wait_may_come_before_its_signal_is_submitted() {
    with_seeds(SEEDS, |seed| {
        let (device, log) = (device(seed), Log::default());
        let (first, second) = (
            queue(&device, Order::Overlapping),
            queue(&device, Order::Overlapping),
        );
        let done = device.new_semaphore(0).unwrap();
        second
            .submit(Submission::new().wait(&done, 1).run(log.add(2)))
            .unwrap();
        device.run_until_idle();
        first
            .submit(Submission::new().run(log.add(1)).signal(&done, 1))
            .unwrap();
        device.run_until_idle();
        assert_eq!(log.seen(), [1, 2]);
    });
}

#[test]
fn flags_hold_work_back_until_set_and_after_reset() {
    with_seeds(SEEDS, |seed| {
        let (device, log) = (device(seed), Log::default());
        let (first, second) = (
            queue(&device, Order::InOrder),
            queue(&device, Order::InOrder),
        );
        let flag = device.new_flag(false).unwrap();
        let consume = || Submission::new().then(Command::WaitFlag(flag.clone()));
        second
            .submit(
                consume()
                    .then(Command::ResetFlag(flag.clone()))
                    .run(log.add(1)),
            )
            .unwrap();
        second.submit(consume().run(log.add(2))).unwrap();
        device.run_until_idle();
        assert_eq!(log.seen(), []);
        first
            .submit(Submission::new().then(Command::SetFlag(flag.clone())))
            .unwrap();
        device.run_until_idle();
        assert_eq!(log.seen(), [1]);
        flag.set();
        device.run_until_idle();
        assert_eq!(log.seen(), [1, 2]);
        flag.reset();
        assert!(!flag.is_set());
    });
}

#[test]
fn a_wait_for_a_condition_goes_on_once_it_holds() {
    let (device, log) = (device(1), Log::default());
    let queue = queue(&device, Order::InOrder);
    let word = Arc::new(AtomicBool::new(false));
    let seen = word.clone();
    let until = Command::WaitUntil(Box::new(move || seen.load(Ordering::SeqCst)));
    queue
        .submit(Submission::new().then(until).run(log.add(1)))
        .unwrap();
    device.run_until_idle();
    assert_eq!(log.seen(), []);
    word.store(true, Ordering::SeqCst);
    device.run_until_idle();
    assert_eq!(log.seen(), [1]);
}

#[test]
fn devices_of_one_machine_wait_for_each_other() {
    with_seeds(SEEDS, |seed| {
        let (here, log) = (device(seed), Log::default());
        let there = here.another(Config::seeded(0)).unwrap();
        let done = here.new_semaphore(0).unwrap();
        let (producer, consumer) = (here.new_queue().unwrap(), there.new_queue().unwrap());
        assert_ne!(producer.id(), consumer.id());
        consumer
            .submit(Submission::new().wait(&done, 1).run(log.add(2)))
            .unwrap();
        producer
            .submit(Submission::new().run(log.add(1)).signal(&done, 1))
            .unwrap();
        there.run_until_idle();
        assert_eq!(log.seen(), [1, 2]);
    });
}

#[test]
fn run_until_stops_as_soon_as_the_condition_holds() {
    let device = device(3);
    let queue = queue(&device, Order::InOrder);
    let ran = Arc::new(AtomicUsize::new(0));
    for _ in 0..10 {
        let ran = ran.clone();
        queue
            .submit(Submission::new().run(move || _ = ran.fetch_add(1, Ordering::SeqCst)))
            .unwrap();
    }
    assert!(device.run_until(|| ran.load(Ordering::SeqCst) == 5));
    assert_eq!(ran.load(Ordering::SeqCst), 5);
    assert!(!device.run_until(|| ran.load(Ordering::SeqCst) == 11));
    assert_eq!(ran.load(Ordering::SeqCst), 10);
}
