//! When handlers run, and what the host sees by then.

mod support;

use fencepost_sim::{Order, Status, Submission, find_seed, with_seeds};
use std::sync::{Arc, Mutex};
use support::{Log, device, queue};

const SEEDS: u64 = 300;
const LISTENER: u32 = 1;
const COMPLETED: u32 = 2;

/// The order in which a semaphore's listener and a batch's completed handler are called.
fn listener_and_handler(seed: u64) -> Vec<u32> {
    let (device, log) = (device(seed), Log::default());
    let queue = queue(&device, Order::Overlapping);
    let done = device.new_semaphore(0).unwrap();
    let listener = log.add(LISTENER);
    done.notify(1, move |_| listener()).unwrap();
    let completed = log.add(COMPLETED);
    queue
        .submit(
            Submission::new()
                .signal(&done, 1)
                .on_completed(move |_| completed()),
        )
        .unwrap();
    device.run_until_idle();
    log.seen()
}

#[test]
fn a_completed_handler_runs_before_or_after_a_listener() {
    assert!(
        find_seed(SEEDS, |&seed| listener_and_handler(seed)
            == [LISTENER, COMPLETED])
        .is_some()
    );
    assert!(
        find_seed(SEEDS, |&seed| listener_and_handler(seed)
            == [COMPLETED, LISTENER])
        .is_some()
    );
}

#[test]
fn a_signal_is_always_seen_before_the_end_of_its_batch() {
    with_seeds(SEEDS, |seed| {
        let device = device(seed);
        let queue = queue(&device, Order::Overlapping);
        let done = device.new_semaphore(0).unwrap();
        let batch = queue.submit(Submission::new().signal(&done, 1)).unwrap();
        assert_eq!(batch.status(), Status::Queued);
        assert!(device.run_until(|| done.value().unwrap() == 1));
        // as a Metal shared event is signalled while the buffer has no GPUEndTime
        assert_eq!(batch.status(), Status::Running);
        device.run_until_idle();
        let Status::Ended(outcome) = batch.status() else {
            panic!("{:?}", batch.status())
        };
        assert_eq!(outcome.error, None);
        assert!(outcome.start.unwrap() <= outcome.end);
    });
}

#[test]
fn handlers_of_two_batches_run_in_either_order() {
    let handlers = |seed: u64| {
        let (device, log) = (device(seed), Log::default());
        let queue = queue(&device, Order::InOrder);
        for token in [1, 2] {
            let handler = log.add(token);
            queue
                .submit(Submission::new().on_completed(move |_| handler()))
                .unwrap();
        }
        device.run_until_idle();
        log.seen()
    };
    assert!(find_seed(SEEDS, |&seed| handlers(seed) == [1, 2]).is_some());
    assert!(find_seed(SEEDS, |&seed| handlers(seed) == [2, 1]).is_some());
}

#[test]
fn listeners_of_two_semaphores_run_in_either_order() {
    let listeners = |seed: u64| {
        let (device, log) = (device(seed), Log::default());
        let queue = queue(&device, Order::InOrder);
        let semaphores = [
            device.new_semaphore(0).unwrap(),
            device.new_semaphore(0).unwrap(),
        ];
        for (semaphore, token) in semaphores.iter().zip([1, 2]) {
            let listener = log.add(token);
            semaphore.notify(1, move |_| listener()).unwrap();
        }
        queue
            .submit(
                Submission::new()
                    .signal(&semaphores[0], 1)
                    .signal(&semaphores[1], 1),
            )
            .unwrap();
        device.run_until_idle();
        log.seen()
    };
    assert!(find_seed(SEEDS, |&seed| listeners(seed) == [1, 2]).is_some());
    assert!(find_seed(SEEDS, |&seed| listeners(seed) == [2, 1]).is_some());
}

#[test]
fn a_listener_runs_once_and_not_before_its_value() {
    with_seeds(SEEDS, |seed| {
        let device = device(seed);
        let semaphore = device.new_semaphore(5).unwrap();
        let calls = Arc::new(Mutex::new(Vec::new()));
        for at in [5, 7] {
            let calls = calls.clone();
            semaphore
                .notify(at, move |value| calls.lock().unwrap().push((at, value)))
                .unwrap();
        }
        device.run_until_idle();
        semaphore.signal(6).unwrap();
        device.run_until_idle();
        assert_eq!(*calls.lock().unwrap(), [(5, 5)]);
        semaphore.signal(9).unwrap();
        device.run_until_idle();
        assert_eq!(*calls.lock().unwrap(), [(5, 5), (7, 9)]);
    });
}

#[test]
fn a_scheduled_handler_runs_before_or_after_the_end_but_not_before_the_start() {
    let handlers = |seed: u64| {
        let (device, log) = (device(seed), Log::default());
        let queue = queue(&device, Order::InOrder);
        let gate = device.new_gate().unwrap();
        let (scheduled, completed) = (log.add(1), log.add(2));
        queue.submit(Submission::new().gate(&gate)).unwrap();
        queue
            .submit(
                Submission::new()
                    .on_scheduled(scheduled)
                    .on_completed(move |_| completed()),
            )
            .unwrap();
        device.run_until_idle();
        assert_eq!(log.seen(), []);
        gate.open();
        device.run_until_idle();
        log.seen()
    };
    assert!(find_seed(SEEDS, |&seed| handlers(seed) == [1, 2]).is_some());
    assert!(find_seed(SEEDS, |&seed| handlers(seed) == [2, 1]).is_some());
}

#[test]
fn a_handler_may_submit() {
    let (device, log) = (device(1), Log::default());
    let queue = queue(&device, Order::InOrder);
    let (again, work) = (queue.clone(), log.add(1));
    let handler = move |_| {
        again.submit(Submission::new().run(work)).unwrap();
    };
    queue
        .submit(Submission::new().on_completed(handler))
        .unwrap();
    device.run_until_idle();
    assert_eq!(log.seen(), [1]);
}

#[test]
fn a_machine_is_quiescent_once_its_handlers_have_run() {
    with_seeds(SEEDS, |seed| {
        let device = device(seed);
        let queue = queue(&device, Order::Overlapping);
        let never = device.new_semaphore(0).unwrap();
        never.notify(1, |_| panic!("never reached")).unwrap();
        assert!(device.is_quiescent());
        let (inside, saw) = (device.clone(), Arc::new(Mutex::new(None)));
        let seen = saw.clone();
        queue
            .submit(Submission::new().on_completed(move |_| {
                *seen.lock().unwrap() = Some(inside.is_quiescent());
            }))
            .unwrap();
        while device.step() {
            assert!(device.is_quiescent() == saw.lock().unwrap().is_some());
        }
        assert_eq!(*saw.lock().unwrap(), Some(false));
        assert!(device.is_quiescent());
    });
}
