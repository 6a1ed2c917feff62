//! Faults of OpenCL, by a driver in front of a real one that makes chosen calls and events fail:
//! the user sees the first cause, nothing hangs or leaks, and drops stay silent.
//!
//! Each fault has a process of its own, since the faults are those of a whole process.
#![cfg(all(feature = "opencl", target_os = "linux", not(loom)))]

use std::{
    path::Path,
    sync::mpsc,
    time::{Duration, Instant},
};

use fencepost::{
    Device, Error, Event, Gate, Result, opencl,
    testing::{self, work},
};
use fencepost_sim_opencl::{Control, Tells};

mod common;
#[path = "common/loss.rs"]
mod loss;
#[path = "common/suite.rs"]
mod suite;

use loss::{everyone_is_told, is_loss};

const PATIENCE: Duration = fencepost_sim::HANG_TIMEOUT;
const OUT_OF_RESOURCES: i32 = -5;
const OUT_OF_HOST_MEMORY: i32 = -6;
const PROFILING_INFO_NOT_AVAILABLE: i32 = -7;
const INVALID_CONTEXT: i32 = -34;
const INVALID_COMMAND_QUEUE: i32 = -36;
/// A code of a driver's own.
const OF_THE_DRIVER: i32 = -9999;

const MARKER: &str = "clEnqueueMarkerWithWaitList";
const BARRIER: &str = "clEnqueueBarrierWithWaitList";

/// The driver that makes calls fail, if the loader was told to load it.
fn faults() -> Option<Control> {
    let named = std::env::var_os("OCL_ICD_VENDORS");
    let control = named.and_then(|named| Control::load(Path::new(&named)).ok());
    if control.is_none() {
        common::skip(
            &common::test_name(),
            "OCL_ICD_VENDORS names no libfencepost_sim_opencl.so",
        );
    }
    control
}

/// Runs `fault` with the first device, in a process of its own.
fn with_faults(fault: impl FnOnce(&Device, &Control)) {
    let Some(control) = faults() else { return };
    common::in_a_process_of_its_own(|| {
        let device = Device::open("opencl:0").unwrap();
        fault(&device, &control);
    });
}

fn done(event: &Event) -> Result<()> {
    event.synchronize_timeout(PATIENCE)
}

/// Of a thousand events that went, some may be left: a stream looks at its markers when somebody
/// asks, and with each 64th record or wait.
fn are_released(control: &Control, owned: i64) {
    let left = control.owned_events() - owned;
    assert!(left <= 128, "{left} events are left behind");
}

/// The error is of `call`, which returned `code`.
fn is_refusal(error: &Error, call: &str, code: i32) {
    let text = error.to_string();
    assert!(text.contains(call), "no \"{call}\" in: {text}");
    assert!(text.contains(&code.to_string()), "no {code} in: {text}");
}

#[test]
fn a_refused_record_leaves_the_event_as_it_was() {
    with_faults(|device, control| {
        let (stream, event) = (device.new_stream().unwrap(), Event::new(device));
        event.record(&stream).unwrap();
        done(&event).unwrap();
        let owned = control.owned_events();
        for (call, code) in [(MARKER, OUT_OF_RESOURCES), ("clFlush", OUT_OF_HOST_MEMORY)] {
            for _ in 0..500 {
                control.fail_call(call, 1, code);
                is_refusal(&event.record(&stream).unwrap_err(), call, code);
                assert!(event.query().unwrap(), "it holds the marker from before");
                // A marker whose flush was refused is pending until the next flush.
                stream.synchronize_timeout(PATIENCE).unwrap();
            }
            are_released(control, owned);
        }
        event.record(&stream).unwrap();
        done(&event).unwrap();
    });
}

/// Else work might stay with the host until somebody waits.
#[test]
fn each_record_is_submitted_by_one_flush() {
    with_faults(|device, control| {
        let stream = device.new_stream().unwrap();
        for new_event in [Event::new, Event::with_timing] {
            let event = new_event(device);
            // At first, and once it is recorded in place.
            for _ in 0..5 {
                let flushed = control.calls("clFlush");
                event.record(&stream).unwrap();
                assert_eq!(control.calls("clFlush") - flushed, 1);
            }
            done(&event).unwrap();
        }
    });
}

#[test]
fn a_refused_wait_is_an_error_and_holds_nothing() {
    with_faults(|device, control| {
        let (first, second) = (device.new_stream().unwrap(), device.new_stream().unwrap());
        let event = Event::new(device);
        let gate = work::gate(&first).unwrap();
        event.record(&first).unwrap();
        control.fail_call(BARRIER, 1, OUT_OF_RESOURCES);
        is_refusal(&event.wait(&second).unwrap_err(), BARRIER, OUT_OF_RESOURCES);
        second.synchronize_timeout(PATIENCE).unwrap();
        assert!(!event.query().unwrap());
        gate.open();
        done(&event).unwrap();
    });
}

#[test]
fn a_refused_gate_is_an_error_and_holds_nothing() {
    with_faults(|device, control| {
        let (stream, gate) = (device.new_stream().unwrap(), Gate::new(device).unwrap());
        let owned = control.owned_events();
        for call in ["clCreateUserEvent", BARRIER].repeat(500) {
            control.fail_call(call, 1, OUT_OF_RESOURCES);
            is_refusal(&gate.wait(&stream).unwrap_err(), call, OUT_OF_RESOURCES);
            stream.synchronize_timeout(PATIENCE).unwrap();
        }
        // A flush that fails may or may not have submitted the wait: opening the gate is safe.
        control.fail_call("clFlush", 1, OUT_OF_RESOURCES);
        let _ = gate.wait(&stream);
        gate.open();
        stream.synchronize_timeout(PATIENCE).unwrap();
        are_released(control, owned);
    });
}

#[test]
fn a_stream_that_cannot_be_made_is_an_error() {
    with_faults(|device, control| {
        let call = "clCreateCommandQueueWithProperties";
        control.fail_call(call, 1, OUT_OF_HOST_MEMORY);
        is_refusal(&device.new_stream().unwrap_err(), call, OUT_OF_HOST_MEMORY);
        let stream = device.new_stream().unwrap();
        stream.record().unwrap().synchronize().unwrap();
    });
}

#[test]
fn whoever_waits_is_told_though_no_callback_comes() {
    with_faults(|device, control| {
        let stream = device.new_stream().unwrap();
        // The driver says that it will call back, and never does; then it refuses.
        for code in [0, OUT_OF_RESOURCES] {
            control.clear_faults();
            control.fail_calls_from("clSetEventCallback", 1, code);
            let event = Event::new(device);
            let gate = work::gate(&stream).unwrap();
            event.record(&stream).unwrap();
            let (tell, told) = mpsc::channel();
            event
                .on_complete(move |result| {
                    let _ = tell.send(result.is_ok());
                })
                .unwrap();
            // By now the watcher has looked, and sleeps.
            std::thread::sleep(Duration::from_millis(50));
            gate.open();
            assert!(told.recv_timeout(PATIENCE).unwrap(), "{code}");
            done(&event).unwrap();
        }
    });
}

#[test]
fn an_event_that_ends_with_an_error_fails_everybody_who_waits() {
    with_faults(|device, control| {
        for tells in [Tells::EVERYWHERE, Tells::NO_CALLBACK] {
            let (first, second) = (device.new_stream().unwrap(), device.new_stream().unwrap());
            let (event, behind) = (Event::new(device), Event::new(device));
            let gate = work::gate(&first).unwrap();
            control.fail_event(MARKER, 1, OF_THE_DRIVER, tells);
            event.record(&first).unwrap();
            event.wait(&second).unwrap();
            behind.record(&second).unwrap();
            let (tell, told) = mpsc::channel();
            behind
                .on_complete(move |result| {
                    let _ = tell.send(result.is_err());
                })
                .unwrap();
            gate.open();
            let first_cause = |error: Error| error.cause().unwrap().root().to_string();
            for error in [done(&event).unwrap_err(), done(&behind).unwrap_err()] {
                let root = first_cause(error);
                assert!(
                    root.contains(&OF_THE_DRIVER.to_string()),
                    "{tells:?}: {root}"
                );
            }
            assert!(told.recv_timeout(PATIENCE).unwrap(), "{tells:?}");
            // Both streams stay failed, and are usable again when asked.
            for stream in [&first, &second] {
                assert!(stream.synchronize_timeout(PATIENCE).is_err());
                stream.clear_error().unwrap();
                stream.synchronize_timeout(PATIENCE).unwrap();
            }
        }
    });
}

#[test]
fn an_event_that_is_called_complete_and_fails_a_wait_has_failed() {
    with_faults(|device, control| {
        let stream = device.new_stream().unwrap();
        let (tell, told) = mpsc::channel();
        control.fail_event(MARKER, 1, OF_THE_DRIVER, Tells::COMPLETE);
        let marker = stream.record().unwrap();
        marker
            .on_complete(move |result| {
                let _ = tell.send(result.is_err());
            })
            .unwrap();
        assert!(marker.synchronize_timeout(PATIENCE).is_err());
        assert!(marker.query().is_err());
        assert!(told.recv_timeout(PATIENCE).unwrap());
    });
}

/// Every call on the device is refused with the first cause, also once the driver works again.
fn stays_lost(device: &Device, control: &Control, parts: &[&str]) {
    control.clear_faults();
    let stream = device.default_stream();
    for error in [
        device.new_stream().unwrap_err(),
        stream.clear_error().unwrap_err(),
        stream.synchronize_timeout(PATIENCE).unwrap_err(),
        stream.record_timed().unwrap().query().unwrap_err(),
        device.correlate().unwrap_err(),
    ] {
        is_loss(&error, parts);
    }
    let (context, id) = opencl::device_as_raw(device).unwrap();
    // SAFETY: the library never releases a context.
    let again = unsafe { opencl::device_from_raw(context, id) };
    is_loss(&again.unwrap_err(), parts);
}

/// By a record. The driver still says of what is pending that it is pending.
#[test]
fn a_lost_context_fails_everybody_with_the_first_cause() {
    with_faults(|_, control| {
        for (code, name) in [
            (INVALID_CONTEXT, "CL_INVALID_CONTEXT (-34)"),
            (INVALID_COMMAND_QUEUE, "CL_INVALID_COMMAND_QUEUE (-36)"),
            (OF_THE_DRIVER, "(-9999)"),
        ] {
            // A lost one is not opened again: this is another context each time.
            let device = Device::open("opencl:0").unwrap();
            let other = device.new_stream().unwrap();
            let parts = [MARKER, name];
            let lose = || {
                control.lose_context_quietly(code);
                is_loss(&other.record().unwrap_err(), &parts);
            };
            everyone_is_told(&device, lose, &parts);
            stays_lost(&device, control, &parts);
            let again = Device::open("opencl:0").unwrap();
            assert_ne!(again, device);
            again.synchronize_timeout(PATIENCE).unwrap();
        }
    });
}

/// Drivers say so of a device that has too little, and of a context that is lost.
#[test]
fn a_context_without_resources_that_refuses_all_is_lost() {
    with_faults(|device, control| {
        let other = device.new_stream().unwrap();
        let parts = [MARKER, "CL_OUT_OF_RESOURCES (-5)"];
        let lose = || {
            control.fail_call(MARKER, 1, OUT_OF_RESOURCES);
            control.lose_context_quietly(INVALID_COMMAND_QUEUE);
            is_loss(&other.record().unwrap_err(), &parts);
        };
        everyone_is_told(device, lose, &parts);
        stays_lost(device, control, &parts);
    });
}

#[test]
fn a_call_that_lacks_memory_or_is_wrong_tries_no_context() {
    with_faults(|device, control| {
        let stream = device.new_stream().unwrap();
        let made = control.calls("clCreateCommandQueueWithProperties");
        for code in [-4, OUT_OF_HOST_MEMORY, -14, -30, -59] {
            control.fail_call(MARKER, 1, code);
            is_refusal(&stream.record().unwrap_err(), MARKER, code);
            stream.synchronize_timeout(PATIENCE).unwrap();
        }
        assert_eq!(control.calls("clCreateCommandQueueWithProperties"), made);
    });
}

/// As Mesa's rusticl does to a queue once a failure has gone through it.
#[test]
fn a_queue_that_fails_for_good_fails_its_stream_each_time() {
    with_faults(|device, control| {
        let stream = device.new_stream().unwrap();
        for nth in 1..=100 {
            control.fail_event(MARKER, nth, -42, Tells::EVERYWHERE);
        }
        for _ in 0..3 {
            let error = stream.synchronize_timeout(PATIENCE).unwrap_err();
            assert!(matches!(error, Error::StreamFailed { .. }), "{error:?}");
            stream.clear_error().unwrap();
        }
        control.clear_faults();
        let fresh = device.new_stream().unwrap();
        fresh.synchronize_timeout(PATIENCE).unwrap();
    });
}

/// Nobody calls anything: the watcher asks.
#[test]
fn a_context_whose_events_cannot_be_asked_is_lost() {
    with_faults(|device, control| {
        let parts = ["clGetEventInfo", "CL_INVALID_CONTEXT (-34)"];
        everyone_is_told(device, || control.lose_context(INVALID_CONTEXT), &parts);
        stays_lost(device, control, &parts);
    });
}

#[test]
fn a_wait_that_tells_of_a_lost_context_fails_everybody() {
    with_faults(|device, control| {
        let other = device.new_stream().unwrap();
        let gate = work::gate(&other).unwrap();
        let marker = other.record().unwrap();
        let parts = ["clWaitForEvents", "CL_INVALID_COMMAND_QUEUE (-36)"];
        let lose = || {
            control.lose_context_quietly(INVALID_COMMAND_QUEUE);
            is_loss(&marker.synchronize().unwrap_err(), &parts);
        };
        everyone_is_told(device, lose, &parts);
        drop(gate);
    });
}

/// The status of the event is the first cause, not what is refused because of it.
#[test]
fn failed_work_that_takes_its_context_along_is_the_first_cause() {
    with_faults(|device, control| {
        let stream = device.new_stream().unwrap();
        let parts = ["work of the stream ended with -9999"];
        let lose = || {
            control.fail_event(MARKER, 1, OF_THE_DRIVER, Tells::EVERYWHERE);
            let marker = stream.record().unwrap();
            control.lose_context_quietly(INVALID_COMMAND_QUEUE);
            assert!(marker.synchronize_timeout(PATIENCE).is_err());
        };
        everyone_is_told(device, lose, &parts);
        stays_lost(device, control, &parts);
    });
}

/// Nobody calls anything of the other device.
#[test]
fn a_context_that_is_lost_for_one_device_is_tried_for_the_others() {
    let Some(control) = faults() else { return };
    common::in_a_process_with(&[("POCL_DEVICES", "pthread pthread")], || {
        let devices = ["opencl:0", "opencl:1"].map(|name| Device::open(name).unwrap());
        let devices = testing::opencl::together(&devices).unwrap();
        let stream = devices[0].new_stream().unwrap();
        let parts = [MARKER, "CL_INVALID_CONTEXT (-34)"];
        let lose = || {
            control.lose_context_quietly(INVALID_CONTEXT);
            is_loss(&stream.record().unwrap_err(), &parts);
        };
        everyone_is_told(&devices[1], lose, &parts);
    });
}

/// So the host need not see a marker complete before the other device goes on.
#[test]
fn a_wait_for_another_device_of_the_context_makes_no_gate() {
    let Some(control) = faults() else { return };
    common::in_a_process_with(&[("POCL_DEVICES", "pthread pthread")], || {
        let devices = ["opencl:0", "opencl:1"].map(|name| Device::open(name).unwrap());
        let devices = testing::opencl::together(&devices).unwrap();
        let streams = [0, 1].map(|at: usize| devices[at].new_stream().unwrap());
        let gate = work::gate(&streams[0]).unwrap();
        let made = control.calls("clCreateUserEvent");
        streams[1].wait(&streams[0].record().unwrap()).unwrap();
        let behind = streams[1].record().unwrap();
        assert_eq!(control.calls("clCreateUserEvent"), made);
        assert!(!behind.query().unwrap());
        // A refused one is an error, and holds nothing.
        control.fail_call(BARRIER, 1, OUT_OF_RESOURCES);
        let error = streams[0].wait(&behind).unwrap_err();
        is_refusal(&error, BARRIER, OUT_OF_RESOURCES);
        gate.open();
        for stream in &streams {
            stream.synchronize_timeout(PATIENCE).unwrap();
        }
    });
}

/// A code may mean both: a context that takes a new queue and its work is not lost.
#[test]
fn a_context_that_still_takes_work_is_not_lost() {
    with_faults(|device, control| {
        let (stream, other) = (device.new_stream().unwrap(), device.new_stream().unwrap());
        let gate = work::gate(&other).unwrap();
        let pending = other.record().unwrap();
        for code in [
            OUT_OF_RESOURCES,
            INVALID_CONTEXT,
            INVALID_COMMAND_QUEUE,
            OF_THE_DRIVER,
        ] {
            control.fail_call(MARKER, 1, code);
            let error = stream.record().unwrap_err();
            assert!(matches!(error, Error::Backend { .. }), "{error:?}");
            is_refusal(&error, MARKER, code);
            stream.synchronize_timeout(PATIENCE).unwrap();
        }
        // Memory may be short for all: that is no loss either.
        control.fail_calls_from(MARKER, 1, OUT_OF_RESOURCES);
        is_refusal(&stream.record().unwrap_err(), MARKER, OUT_OF_RESOURCES);
        control.clear_faults();
        stream.synchronize_timeout(PATIENCE).unwrap();
        assert!(!pending.query().unwrap());
        gate.open();
        pending.synchronize_timeout(PATIENCE).unwrap();
    });
}

#[test]
fn a_handle_that_was_released_is_refused_where_the_driver_sees_it() {
    with_faults(|device, control| {
        let call = "clRetainContext";
        control.fail_call(call, 1, INVALID_CONTEXT);
        let error = testing::opencl::elsewhere(device).unwrap_err();
        is_refusal(&error, call, INVALID_CONTEXT);
        let queue = testing::opencl::queue(device, 0).unwrap();
        for call in ["clGetCommandQueueInfo", "clRetainCommandQueue"] {
            control.fail_call(call, 1, INVALID_COMMAND_QUEUE);
            // SAFETY: the queue is never released.
            let error = unsafe { opencl::stream_from_raw(queue) }.unwrap_err();
            is_refusal(&error, call, INVALID_COMMAND_QUEUE);
        }
        // SAFETY: as above.
        let stream = unsafe { opencl::stream_from_raw(queue) }.unwrap();
        stream.synchronize_timeout(PATIENCE).unwrap();
    });
}

/// The whole suite, where a callback runs on whichever thread calls the driver next: a lock that it
/// takes and that is held across a call would hang.
#[test]
fn callbacks_may_run_inside_of_every_call() {
    with_faults(|device, control| {
        control.call_back_inside_calls();
        let passed = suite::keeps_every_promise(device, |_| false);
        assert!(passed >= 80, "only {passed} cases passed");
        assert!(control.calls("clSetEventCallback") > 0);
    });
}

#[test]
fn a_marker_has_a_time_where_only_its_end_has_one() {
    with_faults(|device, control| {
        control.have_end_alone();
        let stream = device.new_stream().unwrap();
        let (start, end) = (Event::with_timing(device), Event::with_timing(device));
        start.record(&stream).unwrap();
        end.record(&stream).unwrap();
        done(&end).unwrap();
        assert!(start.elapsed_time(&end).unwrap() >= 0.0);
    });
}

#[test]
fn a_time_that_the_driver_does_not_have_is_an_error() {
    with_faults(|device, control| {
        let stream = device.new_stream().unwrap();
        let (start, end) = (Event::with_timing(device), Event::with_timing(device));
        start.record(&stream).unwrap();
        end.record(&stream).unwrap();
        done(&end).unwrap();
        let call = "clGetEventProfilingInfo";
        control.fail_call(call, 1, PROFILING_INFO_NOT_AVAILABLE);
        let error = start.elapsed_time(&end).unwrap_err();
        is_refusal(&error, call, PROFILING_INFO_NOT_AVAILABLE);
        // The next call asks again. Success without a time is an error too.
        assert!(start.elapsed_time(&end).unwrap() >= 0.0);
        control.fail_call(call, 1, 0);
        assert!(start.elapsed_time(&end).is_err());
    });
}

#[test]
fn the_timer_of_a_device_is_read_where_it_counts_on_the_clock_of_times() {
    with_faults(|device, control| {
        let call = "clGetDeviceAndHostTimer";
        let hour = Duration::from_secs(3600);
        for (ahead, is_read) in [(Duration::ZERO, true), (hour, false)] {
            control.have_timer(ahead);
            let device = testing::opencl::elsewhere(device).unwrap();
            device.correlate().unwrap();
            let calls = control.calls(call);
            device.correlate().unwrap();
            assert_eq!(control.calls(call) > calls, is_read, "{ahead:?}");
            let case = "a_host_time_lies_between_reads_of_the_hosts_clock";
            suite::keeps(&device, &[case]);
        }
    });
}

#[test]
fn no_event_is_left_behind() {
    with_faults(|device, control| {
        let (first, second) = (device.new_stream().unwrap(), device.new_stream().unwrap());
        first.synchronize().unwrap();
        let owned = control.owned_events();
        let event = Event::with_timing(device);
        for round in 0..1000 {
            event.record(&first).unwrap();
            event.wait(&second).unwrap();
            Event::new(device).record(&second).unwrap();
            if round % 10 == 0 {
                second.synchronize_timeout(PATIENCE).unwrap();
            }
        }
        first.synchronize().unwrap();
        second.synchronize().unwrap();
        drop(event);
        are_released(control, owned);
    });
}

#[test]
fn the_events_of_a_burst_of_waits_go_once_somebody_asks() {
    with_faults(|device, control| {
        let (first, second) = (device.new_stream().unwrap(), device.new_stream().unwrap());
        second.synchronize().unwrap();
        let gate = work::gate(&first).unwrap();
        let marker = first.record().unwrap();
        let owned = control.owned_events();
        for _ in 0..1000 {
            second.wait(&marker).unwrap();
        }
        gate.open();
        second.synchronize_timeout(PATIENCE).unwrap();
        // A driver may say of the last one that it is over before it says so of those in front.
        let start = Instant::now();
        while control.owned_events() - owned > 2 {
            assert!(second.error().is_none());
            let left = control.owned_events() - owned;
            assert!(start.elapsed() < PATIENCE, "{left} events are left behind");
            std::thread::sleep(Duration::from_millis(1));
        }
    });
}

#[test]
fn an_event_is_kept_while_the_driver_does_not_say_that_it_is_over() {
    with_faults(|device, control| {
        let stream = device.new_stream().unwrap();
        let gate = work::gate(&stream).unwrap();
        let owned = control.owned_events();
        control.fail_calls_from("clGetEventInfo", 1, OUT_OF_RESOURCES);
        let marker = stream.record().unwrap();
        assert!(marker.query().is_err());
        drop((marker, stream));
        assert!(control.owned_events() > owned, "it was pending");
        control.clear_faults();
        gate.open();
    });
}

#[test]
fn a_device_that_cannot_be_opened_leaves_no_context_for_each_try() {
    let Some(control) = faults() else { return };
    common::in_a_process_of_its_own(|| {
        let call = "clCreateCommandQueueWithProperties";
        let before = control.calls("clCreateContext");
        for _ in 0..10 {
            control.fail_call(call, 1, OUT_OF_HOST_MEMORY);
            let error = Device::open("opencl:0").unwrap_err();
            is_refusal(&error, call, OUT_OF_HOST_MEMORY);
        }
        let device = Device::open("opencl:0").unwrap();
        assert_eq!(control.calls("clCreateContext") - before, 1);
        assert_eq!(device, Device::open("opencl:0").unwrap());
        let stream = device.new_stream().unwrap();
        stream
            .record()
            .unwrap()
            .synchronize_timeout(PATIENCE)
            .unwrap();
    });
}

/// What a new process that may not find a device says of `opencl:0`.
fn said_in_a_child(prepare: impl FnOnce(&mut std::process::Command)) -> String {
    let mut child = common::child(&common::test_name());
    prepare(&mut child);
    let output = child.output().unwrap();
    assert!(output.status.success());
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn say_why_there_is_none() {
    let error = Device::open("opencl:0").unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    assert!(!error.to_string().contains('\n'), "{error}");
    println!("said: {error}");
}

/// A loader has functions for all versions. What they find in the table of a driver of an older one
/// may be anything.
#[test]
fn nothing_is_called_that_a_device_is_too_old_for() {
    let Some(control) = faults() else { return };
    if common::is_child() {
        let device = Device::open("opencl:0").unwrap();
        let stream = device.new_stream().unwrap();
        let marker = stream.record_timed().unwrap();
        marker.synchronize_timeout(PATIENCE).unwrap();
        marker.host_time(&device.correlate().unwrap()).unwrap();
        assert!(control.calls("clCreateCommandQueue") > 0);
        for call in [
            "clCreateCommandQueueWithProperties",
            "clGetDeviceAndHostTimer",
        ] {
            assert_eq!(control.calls(call), 0, "{call}");
        }
        return;
    }
    said_in_a_child(|child| {
        child.env("FENCEPOST_SIM_OPENCL_VERSION", "1.2");
    });
}

#[test]
fn a_device_that_is_too_old_is_named() {
    if common::is_child() {
        return say_why_there_is_none();
    }
    if faults().is_none() {
        return;
    }
    let said = said_in_a_child(|child| {
        child.env("FENCEPOST_SIM_OPENCL_VERSION", "1.1");
    });
    assert!(said.contains("is older than OpenCL 1.2"), "{said}");
}

#[test]
fn a_loader_without_a_platform_says_so() {
    if common::is_child() {
        return say_why_there_is_none();
    }
    let Some(named) = std::env::var_os("OCL_ICD_VENDORS") else {
        return;
    };
    if faults().is_none() {
        return;
    }
    let folder = std::env::temp_dir().join(format!("fencepost-no-icd-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    // No driver at all, and one that loads and has no platform.
    for vendors in [folder.as_os_str(), &*named] {
        let said = said_in_a_child(|child| {
            child.env("OCL_ICD_VENDORS", vendors);
            child.env("FENCEPOST_SIM_OPENCL_BEHIND", "/nowhere/libdriver.so");
        });
        for part in [
            "finds no driver",
            "unset OCL_ICD_VENDORS, or install a driver",
        ] {
            assert!(said.contains(part), "no \"{part}\" in: {said}");
        }
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_platform_without_devices_is_named() {
    if common::is_child() {
        return say_why_there_is_none();
    }
    if faults().is_none() {
        return;
    }
    // A driver says that there is none, or succeeds and counts none.
    for fault in ["clGetDeviceIDs:1+:-1", "clGetDeviceIDs:1:0"] {
        let said = said_in_a_child(|child| {
            child.env("FENCEPOST_SIM_OPENCL_FAULTS", fault);
        });
        assert!(said.contains("has no device"), "{fault}: {said}");
        let platform = said.split("has no device").next().unwrap();
        assert!(platform.contains(" (OpenCL "), "{fault}: {said}");
    }
}

#[test]
fn a_driver_that_does_not_load_is_named_with_the_reason() {
    if common::is_child() {
        return say_why_there_is_none();
    }
    if faults().is_none() {
        return;
    }
    let folder = std::env::temp_dir().join(format!("fencepost-icd-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("broken.icd"), "/nowhere/libbroken.so\n").unwrap();
    let said = said_in_a_child(|child| {
        child.env("OCL_ICD_VENDORS", &folder);
    });
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(said.contains("/nowhere/libbroken.so"), "{said}");
    assert!(said.contains("cannot be loaded"), "{said}");
}
