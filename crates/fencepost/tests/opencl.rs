//! Tests of the OpenCL backend. Without an implementation of OpenCL: the error says so. With one:
//! the conformance suite, its mutants, and what belongs to OpenCL alone.
//!
//! Without a device, tests that need one count as skipped.
#![cfg(all(feature = "opencl", not(loom)))]

use std::{
    sync::{Barrier, Mutex, mpsc},
    time::Duration,
};

use fencepost::{
    Backend, Device, Error, Event, Gate, Stream, bindings, opencl,
    testing::{self, work},
};

mod common;
#[path = "common/suite.rs"]
mod suite;

/// The first device, if there is one.
fn device() -> Option<Device> {
    match suite::missing(Backend::OpenCl) {
        Some(why) => {
            common::skip(&common::test_name(), &why);
            None
        }
        None => Some(Device::open("opencl:0").unwrap()),
    }
}

const PATIENCE: Duration = fencepost_sim::HANG_TIMEOUT;

/// `CL_QUEUE_OUT_OF_ORDER_EXEC_MODE_ENABLE`.
const OUT_OF_ORDER: u64 = 1;
/// `CL_QUEUE_PROFILING_ENABLE`.
const PROFILING: u64 = 2;

/// A stream on a queue of a caller's, with these properties.
fn wrapped(device: &Device, properties: u64) -> Stream {
    let queue = testing::opencl::queue(device, properties).unwrap();
    // SAFETY: the queue is never released.
    unsafe { opencl::stream_from_raw(queue) }.unwrap()
}

#[test]
fn a_marker_completes_and_has_a_time() {
    let Some(device) = device() else { return };
    let stream = device.new_stream().unwrap();
    let (start, end) = (Event::with_timing(&device), Event::with_timing(&device));
    start.record(&stream).unwrap();
    end.record(&stream).unwrap();
    end.synchronize().unwrap();
    assert!(start.query().unwrap());
    assert!(start.elapsed_time(&end).unwrap() >= 0.0);
}

#[test]
fn without_a_driver_it_is_an_error_that_says_so() {
    suite::a_missing_driver_is_an_error_that_says_so(Backend::OpenCl);
}

#[test]
fn a_library_that_is_no_loader_is_an_error() {
    suite::another_library_is_an_error(
        "a_library_that_is_no_loader_is_an_error",
        Backend::OpenCl,
        "FENCEPOST_OPENCL_LIBRARY",
        |text| text.contains("FENCEPOST_OPENCL_LIBRARY"),
    );
}

#[test]
fn a_device_keeps_every_promise() {
    let Some(device) = device() else { return };
    // Other tests make streams of the first device fail, which whoever waits for all of them sees.
    let device = testing::opencl::fresh(&device).unwrap();
    let passed = suite::keeps_every_promise(&device, |_| false);
    assert!(passed >= 80, "only {passed} cases passed");
}

/// In a process of its own: some mutants leave hanging threads and held queues behind.
#[test]
fn every_mutant_dies_by_every_case_that_claims_it() {
    let Some(device) = device() else { return };
    common::in_a_process_of_its_own(|| {
        suite::every_mutant_dies("mutants-opencl", "Mutants of the OpenCL backend", || {
            testing::opencl::fresh(&device).unwrap()
        });
    });
}

/// The device, if its driver tells that work has failed.
fn that_tells_failures() -> Option<Device> {
    let device = device()?;
    let stream = device.new_stream().unwrap();
    let fail = testing::opencl::work_that_fails(&stream).unwrap();
    let marker = stream.record().unwrap();
    fail(-42);
    if marker.synchronize_timeout(PATIENCE).is_err() {
        return Some(device);
    }
    let why = "the driver calls complete what a failure has kept from running";
    common::skip(&common::test_name(), why);
    None
}

#[test]
fn a_failure_of_the_drivers_is_told_with_its_first_cause() {
    let Some(device) = that_tells_failures() else {
        return;
    };
    let streams: Vec<_> = (0..3).map(|_| device.new_stream().unwrap()).collect();
    let fail = testing::opencl::work_that_fails(&streams[0]).unwrap();
    let mut markers = vec![streams[0].record().unwrap()];
    for stream in &streams[1..] {
        stream.wait(markers.last().unwrap()).unwrap();
        markers.push(stream.record().unwrap());
    }
    fail(-42);
    // The last one first: it asks what it depends on.
    for (hops, marker) in markers.iter().enumerate().rev() {
        let error = marker.synchronize_timeout(PATIENCE).unwrap_err();
        let cause = error.cause().expect("a failure has a cause");
        assert!(
            cause.root().contains("work of the stream")
                && !cause.root().contains("CL_DEVICE_NOT_FOUND"),
            "{error}"
        );
        assert_eq!(cause.hops(), hops, "{error}");
    }
}

#[test]
fn a_stream_is_usable_again_after_a_failure_of_the_drivers() {
    let Some(device) = that_tells_failures() else {
        return;
    };
    let stream = device.new_stream().unwrap();
    let fail = testing::opencl::work_that_fails(&stream).unwrap();
    let failed = stream.record().unwrap();
    fail(-42);
    assert!(failed.synchronize_timeout(PATIENCE).is_err());
    stream.clear_error().unwrap();
    let again = stream.record().unwrap().synchronize_timeout(PATIENCE);
    // Whatever the driver does to that queue.
    let fresh = device.new_stream().unwrap();
    fresh.synchronize_timeout(PATIENCE).unwrap();
    if let Err(error) = again {
        assert!(matches!(error, Error::StreamFailed { .. }), "{error:?}");
        let why = "the driver fails whatever is submitted to a queue after a failure in it";
        common::skip(&common::test_name(), why);
    }
}

#[test]
fn a_failure_that_no_callback_tells_is_told() {
    let Some(device) = that_tells_failures() else {
        return;
    };
    let stream = device.new_stream().unwrap();
    let fail = testing::opencl::work_that_fails(&stream).unwrap();
    let marker = stream.record().unwrap();
    let (tell, told) = mpsc::channel();
    marker
        .on_complete(move |result| drop(tell.send(result)))
        .unwrap();
    // By now the watcher has looked, and sleeps.
    std::thread::sleep(Duration::from_millis(50));
    fail(-42);
    let told = told.recv_timeout(PATIENCE).unwrap();
    assert!(matches!(told, Err(Error::StreamFailed { .. })), "{told:?}");
}

#[test]
fn a_failure_between_markers_is_not_passed_over() {
    let Some(device) = that_tells_failures() else {
        return;
    };
    let stream = device.new_stream().unwrap();
    let before = stream.record().unwrap();
    let fail = testing::opencl::work_that_fails(&stream).unwrap();
    let failed = stream.record().unwrap();
    fail(-42);
    // Some drivers run what is submitted now, and call it complete.
    let after = stream.record().unwrap();
    assert!(after.synchronize_timeout(PATIENCE).is_err());
    assert!(failed.query().is_err(), "it was passed over");
    assert!(before.query().unwrap());
}

/// A wait marks what is in front of it. That tells of a failure there, also while the wait goes on
/// and where the driver calls complete what comes behind.
#[test]
fn a_failure_in_front_of_a_wait_is_told_whatever_becomes_of_the_wait() {
    let Some(device) = that_tells_failures() else {
        return;
    };
    let (held, stream) = (device.new_stream().unwrap(), device.new_stream().unwrap());
    let gate = work::gate(&held).unwrap();
    let pending = held.record().unwrap();
    let fail = testing::opencl::work_that_fails(&stream).unwrap();
    stream.wait(&pending).unwrap();
    let behind = stream.record().unwrap();
    fail(-42);
    let told = behind.synchronize_timeout(PATIENCE).unwrap_err();
    assert!(matches!(told, Error::StreamFailed { .. }), "{told:?}");
    assert!(!pending.query().unwrap());

    let other = device.new_stream().unwrap();
    let fail = testing::opencl::work_that_fails(&other).unwrap();
    other.wait(&pending).unwrap();
    fail(-42);
    gate.open();
    pending.synchronize_timeout(PATIENCE).unwrap();
    let after = other.record().unwrap().synchronize_timeout(PATIENCE);
    assert!(after.is_err(), "it was passed over");
}

/// PoCL 3.1 ends the process where a wait has failed whose event is gone when what it waits for is
/// over.
#[test]
fn a_stream_may_fail_while_it_waits() {
    let Some(device) = that_tells_failures() else {
        return;
    };
    common::in_a_process_of_its_own(|| {
        for through_host in [false, true].repeat(20) {
            let (held, stream) = (device.new_stream().unwrap(), device.new_stream().unwrap());
            let gate = Gate::new(&device).unwrap();
            gate.wait(&held).unwrap();
            let pending = held.record().unwrap();
            let fail = testing::opencl::work_that_fails(&stream).unwrap();
            match through_host {
                false => stream.wait(&pending).unwrap(),
                true => gate.wait(&stream).unwrap(),
            }
            let behind = stream.record().unwrap();
            fail(-42);
            assert!(behind.synchronize_timeout(PATIENCE).is_err());
            // All that the stream keeps is looked at.
            assert!(stream.error().is_some());
            drop((behind, stream));
            gate.open();
            pending.synchronize_timeout(PATIENCE).unwrap();
        }
    });
}

/// A few threads record, wait, fail and clear on the same streams, through the driver and through
/// the host. None of them waits for a marker that is never told.
#[test]
fn threads_that_wait_for_each_others_streams_beside_failures_all_go_on() {
    let Some(device) = device() else { return };
    let other = testing::opencl::elsewhere(&device).unwrap();
    let [one, two] = [(); 2].map(|()| device.new_stream().unwrap());
    let there = other.new_stream().unwrap();
    let host = Device::open("host").unwrap().new_stream().unwrap();
    let streams = [&one, &two, &there, &host];
    std::thread::scope(|scope| {
        for number in 0..4 {
            scope.spawn(move || {
                for round in 0..300 {
                    let (from, to) = (streams[(round + number) % 4], streams[round / 4 % 4]);
                    let marker = from.record().unwrap();
                    to.wait_foreign(&marker).unwrap();
                    let behind = to.record().unwrap();
                    match round % 8 {
                        3 => work::fail(to, "on purpose").unwrap(),
                        6 => streams
                            .iter()
                            .for_each(|stream| stream.clear_error().unwrap()),
                        7 => {
                            let ended = behind.synchronize_timeout(PATIENCE);
                            assert!(!matches!(ended, Err(Error::Timeout(_))), "{ended:?}");
                        }
                        _ => {}
                    }
                }
            });
        }
    });
    for stream in streams {
        let ended = stream.synchronize_timeout(PATIENCE);
        assert!(!matches!(ended, Err(Error::Timeout(_))), "{ended:?}");
    }
}

#[test]
fn a_queue_of_the_callers_is_a_stream() {
    let Some(device) = device() else { return };
    let queue = testing::opencl::queue(&device, PROFILING).unwrap();
    // SAFETY: the queue is never released.
    let (stream, again) = unsafe {
        let stream = opencl::stream_from_raw(queue).unwrap();
        (stream, opencl::stream_from_raw(queue).unwrap())
    };
    assert_eq!(stream, again);
    assert_eq!(opencl::stream_as_raw(&stream), Some(queue));
    assert_eq!(
        stream.device(),
        &device,
        "its context is that of the device"
    );
    let start = stream.record_timed().unwrap();
    let ours = device.new_stream().unwrap();
    ours.wait(&start).unwrap();
    let end = ours.record_timed().unwrap();
    end.synchronize_timeout(PATIENCE).unwrap();
    assert!(!start.elapsed(&end).unwrap().is_negative());
}

#[test]
fn a_queue_that_two_threads_wrap_is_one_stream() {
    let Some(device) = device() else { return };
    let queue = testing::opencl::queue(&device, PROFILING).unwrap() as usize;
    let (start, end) = (Barrier::new(2), Barrier::new(2));
    let wrap = || {
        start.wait();
        // SAFETY: the queue is never released.
        let stream = unsafe { opencl::stream_from_raw(queue as *mut _) }.unwrap();
        // The stream of either thread is alive until both have one.
        end.wait();
        stream
    };
    for _ in 0..2000 {
        let (one, other) = std::thread::scope(|scope| {
            let other = scope.spawn(wrap);
            (wrap(), other.join().unwrap())
        });
        assert_eq!(one, other);
    }
}

#[test]
fn a_queue_without_profiling_has_no_times_and_names_the_property() {
    let Some(device) = device() else { return };
    let stream = wrapped(&device, 0);
    let error = stream.record_timed().unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error:?}");
    assert!(
        error.to_string().contains("CL_QUEUE_PROFILING_ENABLE"),
        "{error}"
    );
    stream
        .record()
        .unwrap()
        .synchronize_timeout(PATIENCE)
        .unwrap();
}

#[test]
fn a_queue_that_runs_out_of_order_is_ordered_by_waits() {
    let Some(device) = device() else { return };
    let stream = wrapped(&device, OUT_OF_ORDER | PROFILING);
    let log = work::new_log(&device).unwrap();
    let (gate, held) = (Gate::new(&device).unwrap(), device.new_stream().unwrap());
    gate.wait(&held).unwrap();
    let first = held.record().unwrap();
    stream.wait(&first).unwrap();
    work::append(&stream, &log, 1).unwrap();
    let one = stream.record().unwrap();
    // Its own marker: on a queue that runs in order there would be nothing to do.
    stream.wait(&one).unwrap();
    work::append(&stream, &log, 2).unwrap();
    let two = stream.record_timed().unwrap();
    assert!(!two.query().unwrap(), "it is behind a closed gate");
    gate.open();
    two.synchronize_timeout(PATIENCE).unwrap();
    assert_eq!(log.read().unwrap(), [1, 2]);
    assert!(one.query().unwrap());
}

/// Records `event` once more; whether that made no new marker.
fn is_in_place(event: &Event, stream: &Stream) -> bool {
    let in_place = bindings::record_in_place(event, stream, bindings::unknown_place());
    if !in_place {
        event.record(stream).unwrap();
    }
    in_place
}

/// An event that was recorded on `stream` as often as it takes: the first record has no marker to
/// change, and the second one makes the stream the event's primary one.
fn recorded_in_place(device: &Device, stream: &Stream) -> Event {
    let event = Event::new(device);
    let first = [(); 3].map(|()| is_in_place(&event, stream));
    assert_eq!(first, [false, false, true]);
    event
}

/// Now and then a record makes a marker, and takes off what is over. That is no matter of how many
/// were pending before.
#[test]
fn an_event_is_recorded_in_place_whatever_was_pending_before() {
    let Some(device) = device() else { return };
    for burst in 48..80 {
        let stream = device.new_stream().unwrap();
        let event = recorded_in_place(&device, &stream);
        let gate = work::gate(&stream).unwrap();
        for _ in 0..burst {
            is_in_place(&event, &stream);
        }
        gate.open();
        let made = (0..100).filter(|_| {
            // Asks of all that is pending, and records nothing.
            while bindings::peek(&event) != Some(true) {
                assert!(stream.error().is_none());
            }
            !is_in_place(&event, &stream)
        });
        let made = made.count();
        assert!(
            made <= 4,
            "{made} of 100 records made a marker after {burst}"
        );
    }
}

/// Whoever holds the marker sees it as it is.
#[test]
fn a_record_in_place_keeps_other_holders_of_the_marker() {
    let Some(device) = device() else { return };
    let stream = device.new_stream().unwrap();
    let event = recorded_in_place(&device, &stream);
    let before = event.marker().unwrap();
    let native = opencl::marker_as_raw(&before);
    let gate = work::gate(&stream).unwrap();
    assert!(!is_in_place(&event, &stream), "its marker has an owner");
    before.synchronize_timeout(PATIENCE).unwrap();
    assert_eq!(opencl::marker_as_raw(&before), native);
    assert!(!event.query().unwrap());
    gate.open();
    event.synchronize_timeout(PATIENCE).unwrap();
}

#[test]
fn bad_handles_are_errors() {
    let Some(device) = device() else { return };
    let none = std::ptr::null_mut();
    // SAFETY: null is looked for.
    let errors = unsafe {
        [
            opencl::stream_from_raw(none).unwrap_err(),
            opencl::device_from_raw(none, none).unwrap_err(),
        ]
    };
    for error in errors {
        assert!(matches!(error, Error::Unsupported { .. }), "{error:?}");
    }
    assert!(opencl::stream_as_raw(&device.default_stream()).is_some());
    let host = Device::open("host").unwrap();
    assert!(opencl::stream_as_raw(&host.default_stream()).is_none());
    assert!(opencl::device_as_raw(&host).is_none());
    assert!(opencl::model(&host).is_err());
}

#[test]
fn streams_of_two_contexts_wait_for_each_other_through_the_host() {
    let Some(device) = device() else { return };
    let other = testing::opencl::elsewhere(&device).unwrap();
    assert_ne!(device, other);
    assert!(other.name().starts_with("opencl (context "), "{other}");
    let (here, there) = (device.new_stream().unwrap(), other.new_stream().unwrap());
    let gate = work::gate(&here).unwrap();
    there.wait(&here.record().unwrap()).unwrap();
    let passed = there.record().unwrap();
    let early = passed.synchronize_timeout(Duration::from_millis(20));
    assert!(matches!(early, Err(Error::Timeout(_))), "{early:?}");
    let start = here.record_timed().unwrap();
    let mixed = start.elapsed(&there.record_timed().unwrap());
    assert!(
        matches!(mixed, Err(Error::DeviceMismatch { .. })),
        "{mixed:?}"
    );
    gate.open();
    passed.synchronize_timeout(PATIENCE).unwrap();
}

#[test]
#[ignore = "needs drivers of two platforms"]
fn streams_of_two_platforms_wait_for_each_other_through_the_host() {
    let devices: Vec<_> = (0..)
        .map_while(|number| Device::open(&format!("opencl:{number}")).ok())
        .collect();
    let platform = |device: &Device| opencl::platform(device).unwrap();
    let first = &devices[0];
    let is_other = |device: &&Device| platform(device) != platform(first);
    let other = devices.iter().find(is_other).expect("another platform");
    for (here, there) in [(first, other), (other, first)] {
        let (here, there) = (here.new_stream().unwrap(), there.new_stream().unwrap());
        let gate = work::gate(&here).unwrap();
        there.wait(&here.record().unwrap()).unwrap();
        let passed = there.record().unwrap();
        let early = passed.synchronize_timeout(Duration::from_millis(20));
        let text = early.unwrap_err().to_string();
        assert!(text.contains(&format!("stuck is {here}")), "{text}");
        gate.open();
        passed.synchronize_timeout(PATIENCE).unwrap();
        let gate = work::gate(&here).unwrap();
        work::fail(&here, "the disk is full").unwrap();
        there.wait(&here.record().unwrap()).unwrap();
        let behind = there.record().unwrap();
        gate.open();
        let error = behind.synchronize_timeout(PATIENCE).unwrap_err();
        assert_eq!(error.cause().unwrap().root(), "the disk is full");
    }
}

#[test]
fn a_failure_reaches_another_context() {
    let Some(device) = that_tells_failures() else {
        return;
    };
    let other = testing::opencl::elsewhere(&device).unwrap();
    let (here, there) = (device.new_stream().unwrap(), other.new_stream().unwrap());
    let fail = testing::opencl::work_that_fails(&here).unwrap();
    there.wait(&here.record().unwrap()).unwrap();
    let behind = there.record().unwrap();
    fail(-42);
    let error = behind.synchronize_timeout(PATIENCE).unwrap_err();
    assert_eq!(error.cause().unwrap().hops(), 1, "{error}");
}

/// Runs `scenario` with two devices of one context, in a process of its own. PoCL shows as many
/// devices as the variable names.
fn on_two_devices(scenario: impl FnOnce(&Device, &Device)) {
    if !common::is_child() && device().is_none() {
        return;
    }
    common::in_a_process_with(&[("POCL_DEVICES", "pthread pthread")], || {
        let found = ["opencl:0", "opencl:1"].map(Device::open);
        let [Ok(first), Ok(second)] = found else {
            return common::skip(&common::test_name(), "the driver has one device");
        };
        let devices = testing::opencl::together(&[first, second]).unwrap();
        scenario(&devices[0], &devices[1]);
    });
}

#[test]
fn two_devices_of_one_context_are_told_apart() {
    on_two_devices(|one, other| {
        assert_ne!(one, other);
        let context = |device| opencl::device_as_raw(device).unwrap().0;
        assert_eq!(context(one), context(other));
        for (device, number) in [(one, "device 1 of 2"), (other, "device 2 of 2")] {
            assert!(device.name().starts_with("opencl (context "), "{device}");
            assert!(device.name().contains(number), "{device}");
            let stream = wrapped(device, PROFILING);
            assert_eq!(stream.device(), device);
            stream.synchronize_timeout(PATIENCE).unwrap();
        }
    });
}

#[test]
fn streams_of_two_devices_of_one_context_wait_for_each_other_on_the_device() {
    on_two_devices(|one, other| {
        for (one, other) in [(one, other), (other, one)] {
            let (here, there) = (wrapped(one, PROFILING), wrapped(other, PROFILING));
            let gate = work::gate(&here).unwrap();
            let start = here.record_timed().unwrap();
            there.wait(&start).unwrap();
            let passed = there.record_timed().unwrap();
            let early = passed.synchronize_timeout(Duration::from_millis(20));
            let text = early.unwrap_err().to_string();
            // A wait through the host would not need to say so.
            let stuck = format!("as far as the host sees, stuck is {here}");
            assert!(text.contains(&stuck), "no \"{stuck}\" in: {text}");
            gate.open();
            passed.synchronize_timeout(PATIENCE).unwrap();
            assert!(start.query().unwrap());
            let mixed = start.elapsed(&passed);
            assert!(
                matches!(mixed, Err(Error::DeviceMismatch { .. })),
                "{mixed:?}"
            );
        }
    });
}

#[test]
fn a_failure_reaches_another_device_of_its_context() {
    on_two_devices(|one, other| {
        let (here, there) = (one.new_stream().unwrap(), other.new_stream().unwrap());
        let back = one.new_stream().unwrap();
        let fail = testing::opencl::work_that_fails(&here).unwrap();
        there.wait(&here.record().unwrap()).unwrap();
        let behind = there.record().unwrap();
        back.wait(&behind).unwrap();
        let last = back.record().unwrap();
        fail(-42);
        let error = last.synchronize_timeout(PATIENCE).unwrap_err();
        let cause = error.cause().unwrap();
        assert!(cause.root().contains("work of the stream"), "{error}");
        assert_eq!(cause.hops(), 2, "{error}");
        assert!(behind.query().is_err());
        // One that the driver knows nothing of.
        let (here, there) = (one.new_stream().unwrap(), other.new_stream().unwrap());
        let gate = work::gate(&here).unwrap();
        work::fail(&here, "the disk is full").unwrap();
        there.wait(&here.record().unwrap()).unwrap();
        let behind = there.record().unwrap();
        gate.open();
        let error = behind.synchronize_timeout(PATIENCE).unwrap_err();
        assert_eq!(error.cause().unwrap().root(), "the disk is full");
        there.clear_error().unwrap();
        there.synchronize_timeout(PATIENCE).unwrap();
    });
}

#[test]
fn a_process_may_end_while_one_device_waits_for_another() {
    on_two_devices(|one, other| {
        static KEPT: Mutex<Option<(Stream, Stream, Gate)>> = Mutex::new(None);
        let (here, there) = (one.new_stream().unwrap(), other.new_stream().unwrap());
        let gate = Gate::with_limit(one, Duration::MAX).unwrap();
        gate.wait(&here).unwrap();
        there.wait(&here.record().unwrap()).unwrap();
        let behind = there.record().unwrap();
        here.wait(&behind).unwrap();
        assert!(!here.record().unwrap().query().unwrap());
        *KEPT.lock().unwrap() = Some((here, there, gate));
    });
}

#[test]
fn a_process_may_end_with_anything_pending() {
    if device().is_some() {
        suite::a_process_may_end_with_anything_pending("opencl:0");
    }
}

/// The end of the process lets a held stream go, and the thread for callbacks is about to look at
/// that moment.
#[test]
fn a_callback_that_is_pending_when_the_process_ends_never_runs() {
    static GO_ON: Mutex<Option<mpsc::Sender<()>>> = Mutex::new(None);
    static KEPT: Mutex<Option<work::Gate>> = Mutex::new(None);
    extern "C" fn let_callbacks_go_on() {
        if let Some(go_on) = GO_ON.lock().unwrap().take() {
            let _ = go_on.send(());
            std::thread::sleep(Duration::from_millis(300));
        }
    }
    if device().is_none() {
        return;
    }
    common::in_a_process_of_its_own(|| {
        unsafe extern "C" {
            fn atexit(handler: extern "C" fn()) -> std::ffi::c_int;
        }
        // A context registers its handler when it is made, so this one runs behind that.
        // SAFETY: a function that takes and returns nothing, and does not unwind.
        assert_eq!(unsafe { atexit(let_callbacks_go_on) }, 0);
        let device = testing::opencl::elsewhere(&Device::open("opencl:0").unwrap()).unwrap();
        let (go_on, gone_on) = mpsc::channel();
        *GO_ON.lock().unwrap() = Some(go_on);
        let complete = device.new_stream().unwrap().record().unwrap();
        complete.synchronize_timeout(PATIENCE).unwrap();
        let stream = device.new_stream().unwrap();
        let gate = work::gate(&stream).unwrap();
        let pending = stream.record().unwrap();
        *KEPT.lock().unwrap() = Some(gate);
        // Callbacks of a device run one after the other.
        complete
            .on_complete(move |_| {
                let _ = gone_on.recv_timeout(PATIENCE);
            })
            .unwrap();
        pending
            .on_complete(|result| {
                eprintln!("called at the end of the process: {result:?}");
                std::process::abort();
            })
            .unwrap();
    });
}

#[test]
fn a_process_may_end_with_a_closed_gate() {
    if device().is_some() {
        suite::a_process_may_end_with_a_closed_gate("opencl:0", true);
    }
}

#[cfg(unix)]
#[test]
fn a_forked_child_is_told_so() {
    if device().is_some() {
        suite::a_forked_child_is_told_so("opencl:0", |device, _| {
            matches!(opencl::platform(device), Err(Error::Forked { .. }))
        });
    }
}
