//! The tests of the host that Miri can run: the conformance cases, and races with small numbers.
//! They run natively as well.
#![cfg(not(loom))]

use std::{sync::Arc, thread};

use fencepost::{
    Device, Event,
    testing::{self, Outcome, work},
};

#[test]
fn the_conformance_cases_hold() {
    let device = Device::new_host(2);
    let mut ran = 0;
    for case in testing::cases() {
        // Under Miri, a hundred thousand records take minutes, and so do 200 rounds in 8 threads.
        // Times of work mean nothing there.
        if [
            "a_hundred_thousand_records_may_be_pending",
            "one_event_is_used_by_many_threads",
            "a_span_is_as_long_as_its_work",
        ]
        .contains(&case.name)
            || case.about == "measure"
        {
            continue;
        }
        testing::run(&device, case.name, |case, outcome, _| {
            assert_eq!(*outcome, Outcome::Passed, "{}", case.name);
            ran += 1;
        });
    }
    assert!(ran >= 90, "only {ran} cases ran");
}

#[test]
fn a_few_threads_share_a_few_events() {
    let device = Device::new_host(2);
    let streams: Arc<Vec<_>> = Arc::new((0..3).map(|_| device.new_stream().unwrap()).collect());
    let events: Arc<Vec<_>> = Arc::new((0..3).map(|_| Event::with_timing(&device)).collect());
    let threads: Vec<_> = (0..4)
        .map(|number| {
            let (streams, events) = (streams.clone(), events.clone());
            thread::spawn(move || {
                for round in 0..10 {
                    let stream = &streams[(number + round) % 3];
                    let event = &events[(number * round) % 3];
                    stream.launch(|| {}).unwrap();
                    event.record(stream).unwrap();
                    event.wait(&streams[(number + 1) % 3]).unwrap();
                    let _ = event.query().unwrap();
                    event.synchronize().unwrap();
                    event.elapsed_time(event).unwrap();
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    device.synchronize().unwrap();
}

#[test]
fn pending_things_may_be_dropped_in_any_order() {
    let device = Device::new_host(1);
    let (one, two) = (device.new_stream().unwrap(), device.new_stream().unwrap());
    let gate = work::gate(&one).unwrap();
    let event = Event::new(&device);
    event.record(&one).unwrap();
    event.wait(&two).unwrap();
    event.on_complete(|_| {}).unwrap();
    let end = two.record().unwrap();
    drop((event, one, device));
    gate.open();
    end.synchronize().unwrap();
}
