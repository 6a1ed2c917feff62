//! Leaks and violations are found.

mod support;

use fencepost_sim::{
    Command, Config, Error, Live, ObjectKind, Order, Reuse, Submission, Violation,
};
use support::{Log, device, device_with, queue};

#[test]
fn correct_use_leaves_no_violation_and_no_object() {
    let device = device(1);
    {
        let queue = queue(&device, Order::InOrder);
        let (semaphore, flag) = (
            device.new_semaphore(0).unwrap(),
            device.new_flag(false).unwrap(),
        );
        let (query, gate) = (device.new_query().unwrap(), device.new_gate().unwrap());
        let recording = device.new_recording(Reuse::Once).unwrap();
        semaphore.notify(1, |_| ()).unwrap();
        let work = Submission::new()
            .gate(&gate)
            .timestamp(&query)
            .signal(&semaphore, 1)
            .then(Command::set_flag(&flag))
            .on_scheduled(|| ())
            .on_completed(|_| ())
            .recording(&recording);
        queue.submit(work).unwrap();
        let all = Live {
            queues: 1,
            semaphores: 1,
            flags: 1,
            queries: 1,
            gates: 1,
            recordings: 1,
            handlers: 3,
        };
        assert_eq!(device.live(), all);
        gate.open();
        device.run_until_idle();
        assert_eq!(device.live(), Live { handlers: 0, ..all });
    }
    assert_eq!(device.live(), Live::default());
    assert_eq!(device.violations(), []);
}

#[test]
fn pending_work_keeps_its_objects_alive() {
    let device = device(1);
    let queue = queue(&device, Order::InOrder);
    let (gate, semaphore) = (device.new_gate().unwrap(), device.new_semaphore(0).unwrap());
    queue
        .submit(Submission::new().gate(&gate).signal(&semaphore, 1))
        .unwrap();
    drop((semaphore, queue));
    assert_eq!(
        device.live(),
        Live {
            gates: 1,
            semaphores: 1,
            ..Live::default()
        }
    );
    gate.open();
    drop(gate);
    device.run_until_idle();
    assert_eq!(device.live(), Live::default());
    assert_eq!(device.violations(), []);
}

#[test]
fn a_handler_that_never_runs_is_counted() {
    let device = device(1);
    let semaphore = device.new_semaphore(0).unwrap();
    semaphore.notify(1, |_| ()).unwrap();
    device.run_until_idle();
    assert_eq!(device.live().handlers, 1);
    drop(semaphore);
    assert_eq!(device.live(), Live::default());
}

#[test]
fn a_signal_that_is_not_greater_changes_nothing_and_is_a_violation() {
    let device = device(1);
    let queue = queue(&device, Order::InOrder);
    let semaphore = device.new_semaphore(5).unwrap();
    semaphore.signal(5).unwrap();
    queue
        .submit(Submission::new().signal(&semaphore, 4))
        .unwrap();
    device.run_until_idle();
    assert_eq!(semaphore.value(), Ok(5));
    let id = semaphore.id();
    assert_eq!(
        device.violations(),
        [
            Violation::ValueNotGreater {
                semaphore: id,
                current: 5,
                value: 5
            },
            Violation::ValueNotGreater {
                semaphore: id,
                current: 5,
                value: 4
            },
        ]
    );
}

#[test]
fn using_a_destroyed_semaphore_is_a_violation() {
    let device = device(1);
    let queue = queue(&device, Order::InOrder);
    let semaphore = device.new_semaphore(0).unwrap();
    semaphore.destroy();
    assert_eq!(device.live().semaphores, 0);
    let destroyed = Error::Destroyed(ObjectKind::Semaphore);
    assert_eq!(semaphore.wait(0, None), Err(destroyed.clone()));
    assert_eq!(semaphore.value(), Err(destroyed.clone()));
    assert_eq!(semaphore.signal(1), Err(destroyed.clone()));
    assert_eq!(semaphore.notify(0, |_| ()), Err(destroyed.clone()));
    assert_eq!(
        queue
            .submit(Submission::new().wait(&semaphore, 0))
            .unwrap_err(),
        destroyed
    );
    semaphore.destroy();
    let violations = device.violations();
    assert_eq!(violations.len(), 6, "{violations:?}");
    let id = semaphore.id();
    for violation in violations {
        assert!(
            matches!(
                violation,
                Violation::UsedAfterDestroy { kind: ObjectKind::Semaphore, id: of, .. } if of == id
            ),
            "{violation}"
        );
    }
    drop(semaphore);
    assert_eq!(device.live().semaphores, 0);
}

#[test]
fn destroying_an_object_is_a_violation_until_the_work_that_uses_it_is_complete() {
    let device = device(1);
    let queue = queue(&device, Order::InOrder);
    let (early, late) = (
        device.new_semaphore(0).unwrap(),
        device.new_semaphore(0).unwrap(),
    );
    queue
        .submit(Submission::new().signal(&early, 1).signal(&late, 1))
        .unwrap();
    early.destroy();
    device.run_until_idle();
    late.destroy();
    assert_eq!(
        device.violations(),
        [Violation::DestroyedInUse {
            kind: ObjectKind::Semaphore,
            id: early.id()
        }]
    );
}

#[test]
fn a_second_write_without_a_reset_keeps_the_first_timestamp_and_is_a_violation() {
    let device = device(1);
    let queue = queue(&device, Order::InOrder);
    let query = device.new_query().unwrap();
    queue.submit(Submission::new().timestamp(&query)).unwrap();
    device.run_until_idle();
    let first = query.read();
    queue.submit(Submission::new().timestamp(&query)).unwrap();
    device.run_until_idle();
    assert_eq!(query.read(), first);
    assert_eq!(
        device.violations(),
        [Violation::QueryNotReset { query: query.id() }]
    );
}

#[test]
fn a_query_can_be_written_again_after_a_reset_by_the_device_or_the_host() {
    let device = device(1);
    let queue = queue(&device, Order::InOrder);
    let query = device.new_query().unwrap();
    let again = || {
        Submission::new()
            .then(Command::reset_query(&query))
            .timestamp(&query)
    };
    queue.submit(again()).unwrap();
    device.run_until_idle();
    let first = query.read().unwrap();
    queue.submit(again().run(|| ()).run(|| ())).unwrap();
    device.run_until_idle();
    assert!(query.read().unwrap() > first);
    query.reset();
    assert_eq!(query.read(), None);
    assert_eq!(device.violations(), []);
}

#[test]
fn resetting_a_query_in_use_is_a_violation() {
    let device = device(1);
    let query = device.new_query().unwrap();
    device
        .new_queue()
        .unwrap()
        .submit(Submission::new().timestamp(&query))
        .unwrap();
    query.reset();
    assert_eq!(
        device.violations(),
        [Violation::ResetInUse { query: query.id() }]
    );
}

#[test]
fn a_double_submit_is_refused_and_is_a_violation() {
    let (device, log) = (device(1), Log::default());
    let queue = queue(&device, Order::InOrder);
    let once = device.new_recording(Reuse::Once).unwrap();
    let often = device.new_recording(Reuse::WhenComplete).unwrap();
    for recording in [&once, &often] {
        queue
            .submit(Submission::new().recording(recording).run(log.add(1)))
            .unwrap();
        let again = queue.submit(Submission::new().recording(recording).run(log.add(2)));
        assert_eq!(again.unwrap_err(), Error::AlreadySubmitted);
    }
    assert_eq!(device.violations().len(), 2);
    device.run_until_idle();
    assert_eq!(log.seen(), [1, 1]);
    queue.submit(Submission::new().recording(&often)).unwrap();
    assert!(queue.submit(Submission::new().recording(&once)).is_err());
    let double: Vec<u64> = device
        .violations()
        .iter()
        .map(|v| {
            if let Violation::DoubleSubmit { recording, .. } = v {
                *recording
            } else {
                panic!("{v}")
            }
        })
        .collect();
    assert_eq!(double, [once.id(), often.id(), once.id()]);
}

#[test]
fn a_refused_submit_does_not_use_up_its_recording() {
    let device = device_with(Config {
        max_pending: Some(1),
        ..Config::seeded(1)
    });
    let queue = queue(&device, Order::InOrder);
    let once = device.new_recording(Reuse::Once).unwrap();
    queue.submit(Submission::new()).unwrap();
    assert!(queue.submit(Submission::new().recording(&once)).is_err());
    device.run_until_idle();
    assert!(queue.submit(Submission::new().recording(&once)).is_ok());
    assert_eq!(device.violations(), []);
}

#[test]
fn objects_of_another_machine_or_an_unshared_device_are_refused() {
    let other = Err(Error::OtherDevice(ObjectKind::Semaphore));
    let (here, elsewhere) = (device(1), device(1));
    let foreign = elsewhere.new_semaphore(0).unwrap();
    let queue = here.new_queue().unwrap();
    assert_eq!(
        queue
            .submit(Submission::new().wait(&foreign, 0))
            .map(|_| ()),
        other
    );
    let private = here
        .another(Config {
            shares_objects: false,
            ..Config::seeded(1)
        })
        .unwrap();
    let ours = here.new_semaphore(0).unwrap();
    let private_queue = private.new_queue().unwrap();
    assert_eq!(
        private_queue
            .submit(Submission::new().wait(&ours, 0))
            .map(|_| ()),
        other
    );
    assert!(queue.submit(Submission::new().wait(&ours, 0)).is_ok());
}

#[test]
fn stand_ins_report_violations_of_their_own() {
    let device = device(1);
    device.report_violation(Violation::Reported("commit with an open encoder".into()));
    assert_eq!(
        device.violations()[0].to_string(),
        "commit with an open encoder"
    );
}
