//! Which orders the scheduler takes, and which it never takes.

mod support;

use fencepost_sim::{
    Command, Config, Order, Submission, TraceEntry, TraceEvent, find_seed, with_seeds,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use support::{Log, device, device_with, queue};

const SEEDS: u64 = 300;

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

/// The order of work on two queues, one of which should wait for the other.
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

/// Whether a signal in its own batch came before earlier work of the queue was complete.
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
fn on_an_overlapping_queue_a_signal_may_overtake_earlier_work() {
    assert!(
        find_seed(SEEDS, |&seed| signal_overtakes_work(
            seed,
            Order::Overlapping
        ))
        .is_some()
    );
}

#[test]
fn on_the_other_queues_a_signal_follows_all_earlier_work() {
    with_seeds(SEEDS, |seed| {
        assert!(!signal_overtakes_work(seed, Order::InOrder));
        assert!(!signal_overtakes_work(seed, Order::OrderedSignals));
    });
}

/// Whether work overtook a batch of the same queue that waits.
fn work_overtakes_a_wait(seed: u64, order: Order, channels: Option<usize>) -> bool {
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
    let overtook = !log.seen().is_empty();
    go.signal(1).unwrap();
    device.run_until_idle();
    assert_eq!(log.seen().len(), 2);
    overtook
}

#[test]
fn work_overtakes_a_waiting_batch_only_on_an_overlapping_queue() {
    assert!(
        find_seed(SEEDS, |&seed| work_overtakes_a_wait(
            seed,
            Order::Overlapping,
            None
        ))
        .is_some()
    );
    with_seeds(SEEDS, |seed| {
        assert!(!work_overtakes_a_wait(seed, Order::InOrder, None));
        assert!(!work_overtakes_a_wait(seed, Order::OrderedSignals, None));
    });
}

#[test]
fn on_a_channel_of_its_own_a_wait_blocks_the_whole_queue() {
    // a started wait blocks the later batch, and a batch that has not started is not overtaken
    with_seeds(SEEDS, |seed| {
        assert!(!work_overtakes_a_wait(seed, Order::Overlapping, Some(1)))
    });
}

/// Whether a stream that waits blocks another one.
fn other_stream_is_blocked(seed: u64, channels: Option<usize>) -> bool {
    let (device, log) = (
        device_with(Config {
            channels,
            ..Config::seeded(seed)
        }),
        Log::default(),
    );
    let (waiting, other) = (
        queue(&device, Order::InOrder),
        queue(&device, Order::InOrder),
    );
    let go = device.new_semaphore(0).unwrap();
    waiting.submit(Submission::new().wait(&go, 1)).unwrap();
    other.submit(Submission::new().run(log.add(1))).unwrap();
    device.run_until_idle();
    let blocked = log.seen().is_empty();
    go.signal(1).unwrap();
    device.run_until_idle();
    assert_eq!(log.seen(), [1]);
    blocked
}

#[test]
fn a_wait_blocks_the_streams_on_its_channel_and_no_others() {
    with_seeds(SEEDS, |seed| {
        assert!(other_stream_is_blocked(seed, Some(1)));
        assert!(!other_stream_is_blocked(seed, Some(2)));
        assert!(!other_stream_is_blocked(seed, None));
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
    // with equal weights this would be as unlikely as twenty heads in a row
    assert!(find_seed(SEEDS, |&seed| lags(seed)).is_some());
}

#[test]
fn a_wait_may_be_submitted_before_its_signal() {
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
fn flags_block_work_until_set_and_after_a_reset() {
    with_seeds(SEEDS, |seed| {
        let (device, log) = (device(seed), Log::default());
        let (first, second) = (
            queue(&device, Order::InOrder),
            queue(&device, Order::InOrder),
        );
        let flag = device.new_flag(false).unwrap();
        let consume = || Submission::new().then(Command::wait_flag(&flag));
        second
            .submit(consume().then(Command::reset_flag(&flag)).run(log.add(1)))
            .unwrap();
        second.submit(consume().run(log.add(2))).unwrap();
        device.run_until_idle();
        assert_eq!(log.seen(), []);
        first
            .submit(Submission::new().then(Command::set_flag(&flag)))
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
fn a_wait_for_a_condition_ends_once_it_holds() {
    let (device, log) = (device(1), Log::default());
    let queue = queue(&device, Order::InOrder);
    let word = Arc::new(AtomicBool::new(false));
    let seen = word.clone();
    let until = Command::wait_until(move || seen.load(Ordering::SeqCst));
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
