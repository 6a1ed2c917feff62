//! Host waits, the stepping thread, and drops while work is pending.

mod support;

use fencepost_sim::{Config, Error, Live, Order, Status, Submission, WaitFor, Waited, with_seeds};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use support::{HANG_TIMEOUT, Log, device, device_with, queue};

const SOON: Option<Duration> = Some(Duration::from_millis(5));

#[test]
fn a_wait_times_out_while_work_is_blocked_and_ends_when_it_is_not() {
    let device = device(1);
    let queue = queue(&device, Order::InOrder);
    let (gate, done) = (device.new_gate().unwrap(), device.new_semaphore(0).unwrap());
    let flag = device.new_flag(false).unwrap();
    let batch = queue
        .submit(Submission::new().gate(&gate).signal(&done, 3))
        .unwrap();
    let _stepper = device.spawn_stepper().unwrap();
    assert_eq!(done.wait(1, SOON), Ok(Waited::TimedOut));
    assert_eq!(done.wait(1, Some(Duration::ZERO)), Ok(Waited::TimedOut));
    assert_eq!(batch.wait(SOON), Waited::TimedOut);
    assert_eq!(queue.wait_idle(SOON), Ok(Waited::TimedOut));
    assert_eq!(device.wait_idle(SOON), Ok(Waited::TimedOut));
    assert_eq!(flag.wait(SOON), Ok(Waited::TimedOut));
    assert_eq!(device.wait_until(SOON, || false), Waited::TimedOut);
    gate.open();
    assert_eq!(done.wait(3, HANG_TIMEOUT), Ok(Waited::Reached));
    assert_eq!(done.wait(4, SOON), Ok(Waited::TimedOut));
    assert_eq!(batch.wait(HANG_TIMEOUT), Waited::Reached);
    assert_eq!(queue.wait_idle(HANG_TIMEOUT), Ok(Waited::Reached));
    assert_eq!(device.wait_idle(HANG_TIMEOUT), Ok(Waited::Reached));
    assert_eq!(
        device.wait_until(HANG_TIMEOUT, || done.value() == Ok(3)),
        Waited::Reached
    );
}

#[test]
fn a_timeout_beyond_the_clock_is_no_limit() {
    let device = device(1);
    let flag = device.new_flag(false).unwrap();
    let setter = std::thread::spawn({
        let flag = flag.clone();
        move || flag.set()
    });
    assert_eq!(flag.wait(Some(Duration::MAX)), Ok(Waited::Reached));
    setter.join().unwrap();
}

#[test]
fn the_host_waits_for_all_or_any() {
    let device = device(1);
    let (a, b) = (
        device.new_semaphore(1).unwrap(),
        device.new_semaphore(0).unwrap(),
    );
    let both = [(&a, 1), (&b, 1)];
    assert_eq!(
        device.wait_semaphores(WaitFor::Any, &both, SOON),
        Ok(Waited::Reached)
    );
    assert_eq!(
        device.wait_semaphores(WaitFor::All, &both, SOON),
        Ok(Waited::TimedOut)
    );
    b.signal(1).unwrap();
    assert_eq!(
        device.wait_semaphores(WaitFor::All, &both, SOON),
        Ok(Waited::Reached)
    );
}

#[test]
fn losing_the_device_ends_a_wait() {
    let device = device(1);
    let never = device.new_semaphore(0).unwrap();
    let waiter = std::thread::spawn(move || never.wait(1, HANG_TIMEOUT));
    device.lose("gone");
    assert_eq!(
        waiter.join().unwrap(),
        Err(Error::DeviceLost("gone".into()))
    );
}

#[test]
fn thousands_of_submits_from_several_threads_complete() {
    const THREADS: u64 = 4;
    const EACH: u64 = 1000;
    for order in [Order::InOrder, Order::Overlapping, Order::OrderedSignals] {
        let device = device_with(Config {
            trace_capacity: 100,
            ..Config::seeded(1)
        });
        let ran = Arc::new(AtomicUsize::new(0));
        let completed = Arc::new(AtomicUsize::new(0));
        let stepper = device.spawn_stepper().unwrap();
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                let (device, ran, completed) = (device.clone(), ran.clone(), completed.clone());
                std::thread::spawn(move || {
                    let queue = queue(&device, order);
                    let timeline = device.new_semaphore(0).unwrap();
                    for value in 1..=EACH {
                        let (ran, completed) = (ran.clone(), completed.clone());
                        let work = Submission::new()
                            .wait(&timeline, value - 1)
                            .run(move || _ = ran.fetch_add(1, Ordering::SeqCst))
                            .signal(&timeline, value)
                            .on_completed(move |_| _ = completed.fetch_add(1, Ordering::SeqCst));
                        queue.submit(work).unwrap();
                        if value % 100 == 0 {
                            assert_eq!(timeline.wait(value, HANG_TIMEOUT), Ok(Waited::Reached));
                        }
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(device.wait_idle(HANG_TIMEOUT), Ok(Waited::Reached));
        let all = (THREADS * EACH) as usize;
        let over = device.wait_until(HANG_TIMEOUT, || completed.load(Ordering::SeqCst) == all);
        assert_eq!((over, ran.load(Ordering::SeqCst)), (Waited::Reached, all));
        assert_eq!(device.violations(), []);
        assert_eq!(device.trace().len(), 100);
        drop(stepper);
        assert_eq!(device.live(), Live::default());
    }
}

#[test]
fn a_hundred_thousand_pending_batches_run() {
    const ALL: u64 = 100_000;
    let device = device_with(Config {
        trace_capacity: 0,
        ..Config::seeded(1)
    });
    let queue = queue(&device, Order::InOrder);
    let (gate, done) = (device.new_gate().unwrap(), device.new_semaphore(0).unwrap());
    queue.submit(Submission::new().gate(&gate)).unwrap();
    for value in 1..=ALL {
        queue
            .submit(Submission::new().signal(&done, value))
            .unwrap();
    }
    device.run_until_idle();
    assert_eq!((done.value(), queue.pending()), (Ok(0), ALL as usize + 1));
    gate.open();
    device.run_until_idle();
    assert_eq!((done.value(), queue.pending()), (Ok(ALL), 0));
}

#[test]
fn a_wait_with_handlers_returns_after_the_handlers() {
    with_seeds(50, |seed| {
        let (device, log) = (device(seed), Log::default());
        let queue = queue(&device, Order::Overlapping);
        let _stepper = device.spawn_stepper().unwrap();
        let (scheduled, completed) = (log.add(1), log.add(2));
        let batch = queue
            .submit(
                Submission::new()
                    .on_scheduled(scheduled)
                    .on_completed(move |_| completed()),
            )
            .unwrap();
        assert_eq!(batch.wait_with_handlers(HANG_TIMEOUT), Waited::Reached);
        assert_eq!(log.seen().len(), 2);
    });
}

#[test]
fn the_stepper_polls_conditions() {
    let device = device(1);
    let queue = queue(&device, Order::InOrder);
    let word = Arc::new(AtomicUsize::new(0));
    let seen = word.clone();
    let until = fencepost_sim::Command::wait_until(move || seen.load(Ordering::SeqCst) == 1);
    queue.submit(Submission::new().then(until)).unwrap();
    let _stepper = device.spawn_stepper().unwrap();
    assert_eq!(queue.wait_idle(SOON), Ok(Waited::TimedOut));
    word.store(1, Ordering::SeqCst);
    assert_eq!(queue.wait_idle(HANG_TIMEOUT), Ok(Waited::Reached));
}

#[test]
fn work_may_wait_on_the_host_while_another_thread_steps() {
    let device = device(1);
    let (first, second) = (
        queue(&device, Order::InOrder),
        queue(&device, Order::InOrder),
    );
    let done = device.new_semaphore(0).unwrap();
    let waited = done.clone();
    first
        .submit(
            Submission::new()
                .run(move || assert_eq!(waited.wait(1, HANG_TIMEOUT), Ok(Waited::Reached))),
        )
        .unwrap();
    second.submit(Submission::new().signal(&done, 1)).unwrap();
    let _steppers = [
        device.spawn_stepper().unwrap(),
        device.spawn_stepper().unwrap(),
    ];
    assert_eq!(device.wait_idle(HANG_TIMEOUT), Ok(Waited::Reached));
    let idle = first.submit(Submission::new()).unwrap();
    assert_eq!(idle.wait(HANG_TIMEOUT), Waited::Reached);
    assert!(matches!(idle.status(), Status::Ended(outcome) if outcome.error.is_none()));
}

#[test]
fn dropping_a_device_drops_its_pending_work() {
    with_seeds(50, |seed| {
        let (device, log) = (device(seed), Log::default());
        let queue = queue(&device, Order::Overlapping);
        let (gate, never) = (device.new_gate().unwrap(), device.new_semaphore(0).unwrap());
        // work and handlers may own handles of the device: they must neither keep it alive nor
        // deadlock its drop
        let (held, token) = (queue.clone(), log.add(1));
        let work = Submission::new()
            .run(|| ())
            .gate(&gate)
            .run(move || drop((held, token)))
            .signal(&never, 1);
        let held = queue.clone();
        let batch = queue
            .submit(work.on_scheduled(|| ()).on_completed(move |_| drop(held)))
            .unwrap();
        for _ in 0..seed % 4 {
            device.step();
        }
        let waiter = std::thread::spawn({
            let never = never.clone();
            move || never.wait(1, HANG_TIMEOUT)
        });
        drop(device);
        assert_eq!(waiter.join().unwrap(), Err(Error::DeviceClosed));
        assert_eq!(batch.wait_with_handlers(HANG_TIMEOUT), Waited::Reached);
        assert!(matches!(batch.status(), Status::Ended(outcome) if outcome.error.is_some()));
        assert_eq!(
            queue.submit(Submission::new()).unwrap_err(),
            Error::DeviceClosed
        );
        assert_eq!(log.seen(), []);
    });
}

#[test]
fn values_owned_by_dropped_work_are_dropped() {
    let device = device(1);
    let queue = queue(&device, Order::InOrder);
    let owned = Arc::new(());
    let (by_work, by_handler) = (owned.clone(), owned.clone());
    let (queue_in_work, queue_in_handler) = (queue.clone(), queue.clone());
    let gate = device.new_gate().unwrap();
    let work = Submission::new()
        .gate(&gate)
        .run(move || drop((by_work, queue_in_work)));
    queue
        .submit(work.on_completed(move |_| drop((by_handler, queue_in_handler))))
        .unwrap();
    drop(queue);
    assert_eq!(Arc::strong_count(&owned), 3);
    drop(device);
    assert_eq!(Arc::strong_count(&owned), 1);
}

#[test]
fn semaphores_outlive_their_device() {
    let semaphore = device(1).new_semaphore(0).unwrap();
    semaphore.signal(2).unwrap();
    assert_eq!(semaphore.wait(2, None), Ok(Waited::Reached));
    assert_eq!(semaphore.wait(3, None), Err(Error::DeviceClosed));
    assert_eq!(semaphore.notify(1, |_| ()), Err(Error::DeviceClosed));
}

#[test]
fn a_stepper_may_be_dropped_by_the_work_it_runs() {
    let device = device(1);
    let queue = queue(&device, Order::InOrder);
    let stepper = device.spawn_stepper().unwrap();
    let batch = queue
        .submit(Submission::new().run(move || drop(stepper)))
        .unwrap();
    // the stepper ends after that step, so this thread makes the remaining ones
    let over = device.wait_until(HANG_TIMEOUT, || {
        device.run_until_idle();
        matches!(batch.status(), Status::Ended(_))
    });
    assert_eq!(over, Waited::Reached);
}

#[test]
fn work_in_progress_is_neither_run_twice_nor_overtaken() {
    with_seeds(50, |seed| {
        let (device, log) = (device(seed), Log::default());
        let queue = queue(&device, Order::InOrder);
        let (again, first) = (device.clone(), log.add(1));
        let work = Submission::new().run(move || {
            again.run_until_idle();
            first();
        });
        queue.submit(work.run(log.add(2))).unwrap();
        queue.submit(Submission::new().run(log.add(3))).unwrap();
        device.run_until_idle();
        assert_eq!(log.seen(), [1, 2, 3]);
    });
}

#[test]
fn handlers_of_a_dropped_device_never_run() {
    with_seeds(50, |seed| {
        let (kept, log) = (device(seed), Log::default());
        let dropped = kept.another(Config::seeded(0)).unwrap();
        let handler = log.add(1);
        let work = Submission::new().on_completed(move |_| handler());
        let batch = queue(&dropped, Order::InOrder).submit(work).unwrap();
        assert!(dropped.run_until(|| matches!(batch.status(), Status::Ended(_))));
        drop(dropped);
        kept.run_until_idle();
        assert_eq!(log.seen(), []);
        assert_eq!(kept.live().handlers, 0);
        assert_eq!(batch.wait_with_handlers(HANG_TIMEOUT), Waited::Reached);
    });
}
