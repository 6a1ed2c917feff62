//! Planned faults and their effects.

mod support;

use fencepost_sim::{
    Config, Error, Fault, Order, Outcome, SimDevice, Status, Sticky, Submission, TraceEntry,
    TraceEvent, Violation, Waited, WhenFull, with_seeds,
};
use std::sync::{Arc, Mutex};
use support::{HANG_TIMEOUT, Log, device, device_with, queue};

const SEEDS: u64 = 100;

fn outcome(status: Status) -> Outcome {
    match status {
        Status::Ended(outcome) => outcome,
        other => panic!("not ended: {other:?}"),
    }
}

#[test]
fn a_failed_submit_runs_nothing_and_the_next_one_works() {
    let (device, log) = (device(1), Log::default());
    let queue = queue(&device, Order::InOrder);
    device.inject(Fault::Submit {
        queue: Some(0),
        nth: 2,
    });
    let done = device.new_semaphore(0).unwrap();
    queue.submit(Submission::new().run(log.add(1))).unwrap();
    let failed = queue.submit(
        Submission::new()
            .run(log.add(2))
            .signal(&done, 1)
            .on_completed(|_| ()),
    );
    assert_eq!(failed.unwrap_err(), Error::SubmitFailed);
    queue.submit(Submission::new().run(log.add(3))).unwrap();
    device.run_until_idle();
    assert_eq!(log.seen(), [1, 3]);
    assert_eq!(done.value().unwrap(), 0);
    assert_eq!(device.live().handlers, 0);
}

#[test]
fn a_submit_fault_counts_the_submits_of_one_queue_or_of_all() {
    let device = device(1);
    let (first, second) = (
        queue(&device, Order::InOrder),
        queue(&device, Order::InOrder),
    );
    device.inject(Fault::Submit {
        queue: Some(1),
        nth: 1,
    });
    assert!(first.submit(Submission::new()).is_ok());
    assert!(second.submit(Submission::new()).is_err());
    device.inject(Fault::Submit {
        queue: None,
        nth: 2,
    });
    assert!(second.submit(Submission::new()).is_ok());
    assert!(first.submit(Submission::new()).is_err());
}

#[test]
fn a_failed_batch_stops_where_it_failed_and_signals_nothing() {
    with_seeds(SEEDS, |seed| {
        let (device, log) = (device(seed), Log::default());
        let queue = queue(&device, Order::InOrder);
        let done = device.new_semaphore(0).unwrap();
        device.inject(Fault::Batch {
            queue: None,
            nth: 1,
            after: 1,
        });
        let reported = Arc::new(Mutex::new(None));
        let report = reported.clone();
        let work = Submission::new()
            .run(log.add(1))
            .run(log.add(2))
            .signal(&done, 1);
        let batch = queue
            .submit(work.on_completed(move |end| *report.lock().unwrap() = Some(end)))
            .unwrap();
        queue.submit(Submission::new().run(log.add(3))).unwrap();
        device.run_until_idle();
        assert_eq!(log.seen(), [1, 3]);
        assert_eq!(done.value().unwrap(), 0);
        let ended = outcome(batch.status());
        assert!(ended.error.is_some());
        assert_eq!(reported.lock().unwrap().take(), Some(ended));
    });
}

#[test]
fn a_batch_that_fails_at_its_end_has_run_its_commands() {
    let (device, log) = (device(1), Log::default());
    device.inject(Fault::Batch {
        queue: None,
        nth: 1,
        after: 5,
    });
    let batch = device
        .new_queue()
        .unwrap()
        .submit(Submission::new().run(log.add(1)))
        .unwrap();
    device.run_until_idle();
    assert_eq!(log.seen(), [1]);
    assert!(outcome(batch.status()).error.is_some());
}

#[test]
fn work_that_panics_or_fails_fails_its_batch() {
    let device = device(1);
    let queue = queue(&device, Order::InOrder);
    let panicked = queue
        .submit(Submission::new().run(|| panic!("on purpose")))
        .unwrap();
    let failed = queue.submit(Submission::new().fail("bad address")).unwrap();
    let fine = queue.submit(Submission::new()).unwrap();
    device.run_until_idle();
    assert!(
        outcome(panicked.status())
            .error
            .unwrap()
            .contains("on purpose")
    );
    assert_eq!(outcome(failed.status()).error.unwrap(), "bad address");
    assert_eq!(outcome(fine.status()).error, None);
}

#[test]
fn a_failure_sticks_to_the_queue_until_it_is_cleared() {
    with_seeds(SEEDS, |seed| {
        let config = Config {
            sticky: Sticky::Queue,
            ..Config::seeded(seed)
        };
        let (device, log) = (device_with(config), Log::default());
        let (broken, fine) = (
            queue(&device, Order::InOrder),
            queue(&device, Order::InOrder),
        );
        broken.submit(Submission::new().fail("broken")).unwrap();
        let behind = broken.submit(Submission::new().run(log.add(1))).unwrap();
        let other = fine.submit(Submission::new().run(log.add(2))).unwrap();
        device.run_until_idle();
        assert_eq!(log.seen(), [2]);
        assert_eq!(outcome(behind.status()).error.as_deref(), Some("broken"));
        assert_eq!(outcome(behind.status()).start, None);
        assert_eq!(outcome(other.status()).error, None);
        let refused = Err(Error::QueueFailed("broken".into()));
        assert_eq!(broken.submit(Submission::new()).map(|_| ()), refused);
        assert_eq!(broken.wait_idle(None).map(|_| ()), refused);
        assert_eq!(fine.wait_idle(None), Ok(Waited::Reached));
        broken.clear_error();
        assert_eq!(broken.error(), None);
        broken.submit(Submission::new().run(log.add(3))).unwrap();
        device.run_until_idle();
        assert_eq!(log.seen(), [2, 3]);
    });
}

#[test]
fn a_failure_that_sticks_to_the_device_loses_it() {
    let device = device_with(Config {
        sticky: Sticky::Device,
        ..Config::seeded(1)
    });
    let (broken, other) = (
        queue(&device, Order::InOrder),
        queue(&device, Order::InOrder),
    );
    let gate = device.new_gate().unwrap();
    let held = other.submit(Submission::new().gate(&gate)).unwrap();
    broken
        .submit(Submission::new().fail("bad address"))
        .unwrap();
    device.run_until_idle();
    assert_eq!(device.lost(), Some("bad address".into()));
    assert_eq!(outcome(held.status()).error.as_deref(), Some("bad address"));
}

#[test]
fn pending_work_and_later_calls_of_a_lost_device_fail() {
    with_seeds(SEEDS, |seed| {
        let (device, log) = (device(seed), Log::default());
        let queue = queue(&device, Order::Overlapping);
        let (gate, reached, never) = (
            device.new_gate().unwrap(),
            device.new_semaphore(1).unwrap(),
            device.new_semaphore(0).unwrap(),
        );
        let work = || {
            Submission::new()
                .gate(&gate)
                .run(log.add(1))
                .signal(&never, 1)
        };
        let batches = [queue.submit(work()).unwrap(), queue.submit(work()).unwrap()];
        device.run_until_idle();
        device.lose("gone");
        gate.open();
        device.run_until_idle();
        assert_eq!(log.seen(), []);
        for batch in batches {
            assert_eq!(outcome(batch.status()).error.as_deref(), Some("gone"));
        }
        let lost = Error::DeviceLost("gone".into());
        assert_eq!(queue.submit(Submission::new()).unwrap_err(), lost);
        assert_eq!(queue.wait_idle(None).unwrap_err(), lost);
        assert_eq!(device.wait_idle(None).unwrap_err(), lost);
        assert_eq!(device.new_semaphore(0).unwrap_err(), lost);
        assert_eq!(device.new_queue().unwrap_err(), lost);
        assert_eq!(never.wait(1, None), Err(lost));
        // a value that was reached before the loss stays reached
        assert_eq!(reached.wait(1, None), Ok(Waited::Reached));
    });
}

#[test]
fn a_device_is_lost_after_the_planned_steps() {
    let lost_at = |after_steps| {
        let device = device(1);
        let queue = queue(&device, Order::InOrder);
        for _ in 0..10 {
            queue.submit(Submission::new().run(|| ())).unwrap();
        }
        device.inject(Fault::LoseDevice { after_steps });
        assert!(device.run_until(|| device.lost().is_some()));
        device
            .trace()
            .iter()
            .find(|entry| matches!(entry.event, TraceEvent::Lost { .. }))
            .unwrap()
            .step
    };
    assert_eq!((lost_at(1), lost_at(7)), (1, 7));
}

#[test]
fn losing_one_device_leaves_the_other_alone() {
    let here = device(1);
    let there = here.another(Config::seeded(1)).unwrap();
    here.lose("gone");
    let batch = there
        .new_queue()
        .unwrap()
        .submit(Submission::new())
        .unwrap();
    there.run_until_idle();
    assert_eq!(outcome(batch.status()).error, None);
    assert_eq!(there.lost(), None);
}

#[test]
fn memory_runs_out_at_the_planned_creation() {
    let device = device(1);
    device.inject(Fault::OutOfMemory { nth: 2 });
    let _kept = device.new_semaphore(0).unwrap();
    assert_eq!(device.new_query().unwrap_err(), Error::OutOfMemory);
    assert_eq!(device.live().queries, 0);
    assert!(device.new_query().is_ok());
}

#[test]
fn a_paused_queue_runs_nothing_until_it_is_resumed() {
    with_seeds(SEEDS, |seed| {
        let (device, log) = (device(seed), Log::default());
        let (paused, other) = (
            queue(&device, Order::Overlapping),
            queue(&device, Order::Overlapping),
        );
        paused.submit(Submission::new().run(log.add(1))).unwrap();
        other.submit(Submission::new().run(log.add(2))).unwrap();
        assert!(device.pause_queue(0));
        device.run_until_idle();
        assert_eq!(log.seen(), [2]);
        assert!(device.pending_work()[0].contains("paused"));
        assert!(device.resume_queue(0));
        device.run_until_idle();
        assert_eq!(log.seen(), [2, 1]);
    });
    assert!(!device(1).pause_queue(0));
}

#[test]
fn a_full_queue_refuses() {
    let device = device_with(Config {
        max_pending: Some(2),
        ..Config::seeded(1)
    });
    let queue = queue(&device, Order::InOrder);
    queue.submit(Submission::new()).unwrap();
    queue.submit(Submission::new()).unwrap();
    assert_eq!(
        queue.submit(Submission::new()).unwrap_err(),
        Error::QueueFull(2)
    );
    assert_eq!(queue.pending(), 2);
    device.run_until_idle();
    assert_eq!(queue.pending(), 0);
    queue.submit(Submission::new()).unwrap();
}

/// Waits until a submit has blocked on a full queue.
fn wait_until_blocked(device: &SimDevice) {
    let blocked = |entry: &TraceEntry| matches!(entry.event, TraceEvent::Blocked { .. });
    let over = device.wait_until(HANG_TIMEOUT, || device.trace().iter().any(blocked));
    assert_eq!(over, Waited::Reached);
}

#[test]
fn a_full_queue_blocks_until_there_is_room() {
    let device = device_with(Config {
        max_pending: Some(2),
        when_full: WhenFull::Block,
        ..Config::seeded(1)
    });
    let queue = queue(&device, Order::InOrder);
    let gate = device.new_gate().unwrap();
    for _ in 0..2 {
        queue.submit(Submission::new().gate(&gate)).unwrap();
    }
    let _stepper = device.spawn_stepper().unwrap();
    let blocked = std::thread::spawn({
        let queue = queue.clone();
        move || queue.submit(Submission::new()).map(|_| ())
    });
    wait_until_blocked(&device);
    assert!(!blocked.is_finished());
    gate.open();
    assert_eq!(blocked.join().unwrap(), Ok(()));
    assert_eq!(queue.wait_idle(HANG_TIMEOUT), Ok(Waited::Reached));
}

#[test]
fn losing_the_device_ends_a_blocked_submit() {
    let device = device_with(Config {
        max_pending: Some(1),
        when_full: WhenFull::Block,
        ..Config::seeded(1)
    });
    let queue = queue(&device, Order::InOrder);
    queue.submit(Submission::new()).unwrap();
    let blocked = std::thread::spawn(move || queue.submit(Submission::new()).map(|_| ()));
    wait_until_blocked(&device);
    device.lose("gone");
    assert_eq!(
        blocked.join().unwrap(),
        Err(Error::DeviceLost("gone".into()))
    );
}

#[test]
fn a_handler_that_panics_is_a_violation_and_the_others_run() {
    let (device, log) = (device(1), Log::default());
    let queue = queue(&device, Order::InOrder);
    let second = log.add(1);
    let batch = queue
        .submit(
            Submission::new()
                .on_completed(|_| panic!("on purpose"))
                .on_completed(move |_| second()),
        )
        .unwrap();
    device.run_until_idle();
    assert_eq!(log.seen(), [1]);
    assert_eq!(
        device.violations(),
        [Violation::HandlerPanicked {
            text: "on purpose".into()
        }]
    );
    assert_eq!(batch.wait_with_handlers(None), Waited::Reached);
}

#[test]
fn a_batch_that_fails_before_it_starts_never_calls_its_scheduled_handler() {
    let (device, log) = (device(1), Log::default());
    let queue = queue(&device, Order::InOrder);
    let completed = log.add(2);
    let work = Submission::new()
        .on_scheduled(log.add(1))
        .on_completed(move |_| completed());
    let batch = queue.submit(work).unwrap();
    device.lose("gone");
    device.run_until_idle();
    assert_eq!(log.seen(), [2]);
    assert_eq!(batch.wait_with_handlers(HANG_TIMEOUT), Waited::Reached);
    assert_eq!(device.live().handlers, 0);
}
