//! Faults of the CUDA driver, injected call by call into the stand-in: the user sees the first
//! cause, nothing hangs or leaks, and drops stay silent.
//!
//! Each fault has a process of its own, since most of them end the context. Nothing here counts as
//! hardware.
#![cfg(all(feature = "cuda", target_os = "linux", not(loom)))]

use std::{
    path::Path,
    sync::mpsc,
    time::{Duration, Instant},
};

use fencepost::{
    Device, Error, Event, Gate, Marker, Result, Status, Stream, cuda, testing, testing::work,
    trace::Trace,
};
use fencepost_sim_cuda::Control;

mod common;
#[path = "common/events.rs"]
mod events;

const PATIENCE: Duration = fencepost_sim::HANG_TIMEOUT;
const OUT_OF_MEMORY: u32 = 2;
const NOT_SUPPORTED: u32 = 801;
const ILLEGAL_ADDRESS: u32 = 700;
const LAUNCH_FAILED: u32 = 719;
const UNKNOWN: u32 = 999;

/// Runs `fault` with a device of the stand-in, in a process of its own. Afterwards, no call may
/// have done what CUDA's documentation forbids.
fn with_stand_in(fault: impl FnOnce(&Device, &Control)) {
    let library = std::env::var_os("FENCEPOST_CUDA_LIBRARY");
    let Some(control) = library.and_then(|library| Control::load(Path::new(&library)).ok()) else {
        return common::skip(
            &common::test_name(),
            "FENCEPOST_CUDA_LIBRARY names no stand-in for the CUDA driver",
        );
    };
    common::in_a_process_of_its_own(|| {
        let device = Device::open("cuda:0").unwrap();
        fault(&device, &control);
        assert!(
            control.violations().is_empty(),
            "{:?}",
            control.violations()
        );
    });
}

fn done(event: &Event) -> Result<()> {
    event.synchronize_timeout(PATIENCE)
}

/// The error is a lost device, and its first cause names `call`.
fn is_loss(error: &Error, call: &str) {
    assert!(matches!(error, Error::DeviceLost { .. }), "{error:?}");
    let root = error.cause().unwrap().root();
    assert!(
        root.contains(call),
        "\"{call}\" is not in the first cause: {root}"
    );
}

#[test]
fn an_event_that_cannot_be_made_leaves_everything_as_it_was() {
    with_stand_in(|device, control| {
        let (stream, event) = (device.new_stream().unwrap(), Event::new(device));
        event.record(&stream).unwrap();
        done(&event).unwrap();
        let held = event.marker();
        control.fail_calls_from("cuEventCreate", 1, OUT_OF_MEMORY);
        // More events than any pool has.
        let gate = work::gate(&stream).unwrap();
        let mut refused = 0;
        let mut events = Vec::new();
        for _ in 0..100 {
            let fresh = Event::new(device);
            match fresh.record(&stream) {
                Ok(()) => events.push(fresh),
                Err(Error::Backend { call, code, .. }) => {
                    assert_eq!((call, code), ("cuEventCreate", OUT_OF_MEMORY.into()));
                    assert_eq!(fresh.status().unwrap(), Status::Unrecorded);
                    refused += 1;
                }
                Err(other) => panic!("{other:?}"),
            }
        }
        assert!(refused > 0, "every event came from the pool");
        assert_eq!(event.marker(), held);
        gate.open();
        control.clear_faults();
        let fresh = Event::new(device);
        fresh.record(&stream).unwrap();
        done(&fresh).unwrap();
        for event in &events {
            done(event).unwrap();
        }
    });
}

#[test]
fn a_refused_record_leaves_the_event_and_the_stream_as_they_were() {
    with_stand_in(|device, control| {
        let (stream, event) = (device.new_stream().unwrap(), Event::new(device));
        event.record(&stream).unwrap();
        done(&event).unwrap();
        let events = control.live().events;
        for _ in 0..50 {
            let held = event.marker();
            // The call itself, and the retry after a refused record in place.
            control.fail_calls_from("cuEventRecord", 1, OUT_OF_MEMORY);
            match event.record(&stream) {
                Err(Error::Backend { call, code, .. }) => {
                    assert_eq!((call, code), ("cuEventRecord", OUT_OF_MEMORY.into()));
                }
                other => panic!("{other:?}"),
            }
            assert_eq!(event.marker(), held);
            assert!(event.query().unwrap());
            control.clear_faults();
            event.record(&stream).unwrap();
            done(&event).unwrap();
        }
        let grown = control.live().events - events;
        assert!(grown <= 2, "{grown} events leaked");
        assert!(stream.error().is_none());
    });
}

#[test]
fn a_record_that_ends_the_context_is_what_everyone_sees() {
    with_stand_in(|device, control| {
        let (stream, other) = (device.new_stream().unwrap(), device.new_stream().unwrap());
        let before = stream.record().unwrap();
        before.synchronize_timeout(PATIENCE).unwrap();
        control.fail_calls_from("cuEventRecord", 1, ILLEGAL_ADDRESS);
        let event = Event::new(device);
        // Either the record fails, or its marker does.
        let first = event
            .record(&stream)
            .and_then(|()| done(&event))
            .unwrap_err();
        is_loss(&first, "cuEventRecord");
        is_loss(&stream.error().unwrap(), "cuEventRecord");
        let later = other.record().and_then(|marker| marker.synchronize());
        is_loss(&later.unwrap_err(), "cuEventRecord");
        is_loss(&stream.clear_error().unwrap_err(), "cuEventRecord");
        assert!(before.query().unwrap(), "a complete marker stays complete");
    });
}

#[test]
fn a_query_that_turns_to_an_error_is_never_false() {
    with_stand_in(|device, control| {
        let (stream, event) = (device.new_stream().unwrap(), Event::new(device));
        let gate = work::gate(&stream).unwrap();
        event.record(&stream).unwrap();
        assert!(!event.query().unwrap());
        control.fail_calls_from("cuEventQuery", 1, LAUNCH_FAILED);
        is_loss(&event.query().unwrap_err(), "cuEventQuery");
        control.clear_faults();
        // The failure stays, whatever the driver reports from now on.
        is_loss(&event.query().unwrap_err(), "cuEventQuery");
        is_loss(&event.status().unwrap_err(), "cuEventQuery");
        is_loss(&done(&event).unwrap_err(), "cuEventQuery");
        gate.open();
    });
}

#[test]
fn a_launch_failure_releases_everyone_who_waits() {
    with_stand_in(|device, control| {
        let stream = device.new_stream().unwrap();
        let log = work::new_log(device).unwrap();
        let gate = work::gate(&stream).unwrap();
        control.fail_launch(0, 1, LAUNCH_FAILED);
        work::append(&stream, &log, 1).unwrap();
        let marker = stream.record().unwrap();
        let host = Device::new_host(1).new_stream().unwrap();
        host.wait(&marker).unwrap();
        let after = host.record().unwrap();
        let (tell, told) = mpsc::channel();
        marker
            .on_complete(move |result| drop(tell.send(result)))
            .unwrap();
        let blocked: Vec<_> = (0..3)
            .map(|_| {
                let marker = marker.clone();
                std::thread::spawn(move || marker.synchronize_timeout(PATIENCE))
            })
            .collect();
        std::thread::sleep(Duration::from_millis(20));
        gate.open();
        for thread in blocked {
            is_loss(&thread.join().unwrap().unwrap_err(), "");
        }
        is_loss(&told.recv_timeout(PATIENCE).unwrap().unwrap_err(), "");
        let chained = after.synchronize_timeout(PATIENCE).unwrap_err();
        assert_eq!(chained.cause().unwrap().hops(), 1, "{chained}");
        assert!(log.read().unwrap().is_empty(), "the work that failed ran");
        is_loss(&device.new_stream().unwrap_err(), "");
    });
}

#[test]
fn a_lost_device_is_one_event_of_tracing() {
    with_stand_in(|device, control| {
        let events = events::listen();
        let stream = device.new_stream().unwrap();
        control.fail_calls_from("cuEventRecord", 1, ILLEGAL_ADDRESS);
        is_loss(
            &stream
                .record()
                .and_then(|marker| marker.synchronize())
                .unwrap_err(),
            "cuEventRecord",
        );
        is_loss(&device.new_stream().unwrap_err(), "cuEventRecord");
        let event = events.recv_timeout(PATIENCE).unwrap();
        assert!(event.starts_with("ERROR"), "{event}");
        assert!(event.contains("a device is lost"), "{event}");
        assert!(event.contains("cuda:0"), "{event}");
        assert!(event.contains("cuEventRecord"), "{event}");
        // Whoever meets the loss later does not report it again.
        assert!(events.try_recv().is_err());
    });
}

#[test]
fn a_lost_device_releases_everyone_who_waits() {
    with_stand_in(|device, control| {
        let (stream, other) = (device.new_stream().unwrap(), device.new_stream().unwrap());
        let gate = work::gate(&stream).unwrap();
        let marker = stream.record().unwrap();
        other.wait(&marker).unwrap();
        let behind = other.record().unwrap();
        let blocked = {
            let marker = marker.clone();
            std::thread::spawn(move || marker.synchronize())
        };
        std::thread::sleep(Duration::from_millis(20));
        control.lose_device(0, UNKNOWN);
        is_loss(&blocked.join().unwrap().unwrap_err(), "");
        is_loss(&behind.synchronize_timeout(PATIENCE).unwrap_err(), "");
        gate.open();
        drop((stream, other, marker, behind));
        // The other device of the machine works as before.
        let second = Device::open("cuda:1").unwrap();
        second.synchronize_timeout(PATIENCE).unwrap();
    });
}

#[test]
fn a_stream_that_cannot_be_made_is_an_error() {
    with_stand_in(|device, control| {
        control.fail_call("cuStreamCreate", 1, OUT_OF_MEMORY);
        match device.new_stream() {
            Err(Error::Backend { call, code, .. }) => {
                assert_eq!((call, code), ("cuStreamCreate", OUT_OF_MEMORY.into()));
            }
            other => panic!("{other:?}"),
        }
        device.new_stream().unwrap().synchronize().unwrap();
    });
}

#[test]
fn a_refused_wait_is_an_error_and_holds_nothing_back() {
    with_stand_in(|device, control| {
        let (producer, consumer) = (device.new_stream().unwrap(), device.new_stream().unwrap());
        let gate = work::gate(&producer).unwrap();
        let marker = producer.record().unwrap();
        control.fail_call("cuStreamWaitEvent", 1, OUT_OF_MEMORY);
        match consumer.wait(&marker) {
            Err(Error::Backend { call, .. }) => assert_eq!(call, "cuStreamWaitEvent"),
            other => panic!("{other:?}"),
        }
        consumer.synchronize_timeout(PATIENCE).unwrap();
        gate.open();
        marker.synchronize_timeout(PATIENCE).unwrap();
    });
}

#[test]
fn a_device_that_cannot_be_held_says_so_and_holds_nothing_back() {
    with_stand_in(|device, control| {
        let stream = device.new_stream().unwrap();
        let gate = Gate::with_limit(device, Duration::MAX).unwrap();
        control.fail_call("cuStreamWaitValue32_v2", 1, NOT_SUPPORTED);
        let refused = gate.wait(&stream).unwrap_err();
        assert!(matches!(refused, Error::Unsupported { .. }), "{refused:?}");
        assert!(
            refused.to_string().contains("cuStreamWaitValue32"),
            "{refused}"
        );
        stream.synchronize_timeout(PATIENCE).unwrap();
        let other = Gate::with_limit(device, Duration::MAX).unwrap();
        other.wait(&stream).unwrap();
        gate.wait(&stream).unwrap();
        let behind = stream.record().unwrap();
        assert!(!behind.query().unwrap());
        other.open();
        gate.fail("the disk is full");
        let failed = behind.synchronize_timeout(PATIENCE).unwrap_err();
        assert!(failed.to_string().contains("the disk is full"), "{failed}");
    });
}

#[test]
fn after_the_drivers_end_drops_are_quiet_and_calls_are_errors() {
    with_stand_in(|device, control| {
        let (stream, event) = (device.new_stream().unwrap(), Event::with_timing(device));
        event.record(&stream).unwrap();
        done(&event).unwrap();
        let gate = work::gate(&stream).unwrap();
        let pending = stream.record().unwrap();
        pending.on_complete(|_| ()).unwrap();
        control.deinitialize();
        assert!(event.query().unwrap(), "what is known needs no driver");
        // Errors, whatever their text; no crash, and no hang.
        assert!(Event::new(device).record(&stream).is_err());
        assert!(device.new_stream().is_err());
        drop(gate);
        drop((event, pending, stream));
    });
}

#[test]
fn ten_thousand_events_in_use_and_dropped_leave_a_bounded_pool() {
    with_stand_in(|device, control| {
        let before = control.live();
        for _ in 0..100 {
            let stream = device.new_stream().unwrap();
            let events: Vec<_> = (0..100)
                .map(|i| match i % 2 {
                    0 => Event::new(device),
                    _ => Event::with_timing(device),
                })
                .collect();
            for event in &events {
                event.record(&stream).unwrap();
            }
            stream.synchronize_timeout(PATIENCE).unwrap();
        }
        let after = control.live();
        let events = after.events - before.events;
        assert!(events <= 150, "{events} native events for 100 at a time");
        let streams = after.streams - before.streams;
        assert!(streams <= 1, "{streams} streams are left");
    });
}

/// A timed marker on an idle stream, and the device's clock at it.
fn timed(stream: &Stream, control: &Control) -> (Marker, u64) {
    let marker = stream.record_timed().unwrap();
    marker.synchronize_timeout(PATIENCE).unwrap();
    let tick = cuda::marker_as_raw(&marker, |event| control.event_tick(event as usize));
    (marker, tick.flatten().unwrap())
}

/// Lets simulated time pass, with an anchor after each step, as a keeper's thread makes them.
fn pass(device: &Device, control: &Control, nanos: u64) {
    const STEP: u64 = 200_000_000;
    for _ in 0..nanos / STEP {
        control.advance(STEP);
        testing::cuda::anchor_now(device).unwrap();
        assert!(control.wait_idle(PATIENCE));
    }
}

/// The nanoseconds by which the time between the two is off; it is never more than it says.
fn off(start: &(Marker, u64), end: &(Marker, u64)) -> f64 {
    let told = start.0.elapsed(&end.0).unwrap();
    let off = (told.as_nanos_f64() - (end.1 as f64 - start.1 as f64)).abs();
    let uncertainty = told.uncertainty();
    println!("{told}, off by {off} ns, said {uncertainty:?}");
    assert!(off <= uncertainty.as_nanos() as f64 + 1.0);
    assert!(uncertainty >= told.resolution());
    let back = end.0.elapsed(&start.0).unwrap();
    assert_eq!(back.as_nanos_f64(), -told.as_nanos_f64());
    uncertainty.as_nanos() as f64
}

/// The threads that keep time.
fn keepers() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let name = |task: &std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm"));
    tasks
        .filter(|task| name(task).is_ok_and(|name| name.trim() == "fencepost-time"))
        .count()
}

const HOUR: u64 = 3_600_000_000_000;

#[test]
fn an_hour_is_told_within_a_microsecond_while_time_is_kept() {
    with_stand_in(|device, control| {
        // A slow machine would make links of more than a quarter of a second, beyond which an `f32`
        // of milliseconds is not exact.
        control.leave_real_time();
        let pass = |nanos| pass(device, control, nanos);
        let stream = device.new_stream().unwrap();
        let before = timed(&stream, control);
        control.advance(10_000_000_000);
        let keeper = device.keep_time().unwrap();
        let second = device.keep_time().unwrap();
        pass(2_000_000_000);
        assert_eq!(device.clock().resolution(), Duration::from_nanos(32));
        let start = timed(&stream, control);
        pass(60_000_000_000);
        let minute = timed(&stream, control);
        pass(HOUR / 2);
        drop(keeper);
        pass(HOUR / 2);
        let end = timed(&stream, control);
        pass(1_000_000_000);
        assert!(off(&start, &end) < 1000.0, "an hour");
        assert!(off(&start, &minute) < 1000.0, "a minute");
        assert!(off(&before, &end) < 2000.0, "from 10 s before");
        let events = control.live().events;
        assert!(events < 1000, "{events} events after an hour");
        drop(second);
        assert!(
            off(&start, &end) < 1000.0,
            "when nobody keeps the time any more"
        );
    });
}

#[test]
fn a_time_that_nobody_kept_says_how_uncertain_it_is() {
    with_stand_in(|device, control| {
        let stream = device.new_stream().unwrap();
        let start = timed(&stream, control);
        control.advance(HOUR);
        let end = timed(&stream, control);
        let uncertainty = off(&start, &end);
        assert!(uncertainty > 100_000.0, "{uncertainty} ns");
        assert_eq!(keepers(), 0);
    });
}

#[test]
fn a_trace_keeps_the_time_of_its_devices() {
    with_stand_in(|device, control| {
        control.leave_real_time();
        let (trace, stream) = (Trace::new(), device.new_stream().unwrap());
        trace.span("first", &stream).end();
        let begin = Instant::now();
        while trace.collect().finished < 1 {
            assert!(begin.elapsed() < PATIENCE, "{}", trace.summary());
            assert!(control.wait_idle(PATIENCE));
        }
        let pass = |nanos| pass(device, control, nanos);
        pass(2_000_000_000);
        let start = timed(&stream, control);
        pass(HOUR);
        let end = timed(&stream, control);
        pass(1_000_000_000);
        assert!(off(&start, &end) < 1000.0, "an hour");
        become_as_many_as(1);
        drop(trace);
        become_as_many_as(0);
    });
}

#[test]
fn spans_of_a_lost_device_have_failed_and_the_trace_goes_on() {
    with_stand_in(|device, control| {
        let (trace, stream) = (Trace::new(), device.new_stream().unwrap());
        let come_to = |finished, failed| {
            let begin = Instant::now();
            loop {
                let summary = trace.collect();
                if (summary.finished, summary.failed) == (finished, failed) {
                    return summary;
                }
                assert!(begin.elapsed() < PATIENCE, "{summary}");
                std::thread::yield_now();
            }
        };
        trace.span("before", &stream).end();
        stream.synchronize_timeout(PATIENCE).unwrap();
        come_to(1, 0);
        let gate = Gate::with_limit(device, Duration::MAX).unwrap();
        gate.wait(&stream).unwrap();
        trace.span("held", &stream).end();
        let open = trace.span("open", &stream);
        control.fail_contexts(0, ILLEGAL_ADDRESS);
        gate.open();
        assert!(stream.synchronize_timeout(PATIENCE).is_err());
        open.end();
        trace.span("after", &stream).end();
        let host = Device::open("host").unwrap().new_stream().unwrap();
        trace.span("elsewhere", &host).end();
        trace.host_span("here").end();
        host.synchronize_timeout(PATIENCE).unwrap();
        let summary = come_to(3, 3);
        assert_eq!((summary.unfinished, summary.dropped), (0, 0), "{summary}");
    });
}

/// Waits until so many threads keep time: one gives itself its name, so it is not found at once.
fn become_as_many_as(count: usize) {
    let deadline = Instant::now() + PATIENCE;
    while keepers() != count {
        assert!(Instant::now() < deadline, "there never were {count}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_keeper_ends_with_its_guard_and_survives_a_lost_device() {
    with_stand_in(|device, control| {
        let keeper = device.keep_time().unwrap();
        become_as_many_as(1);
        drop(keeper);
        become_as_many_as(0);
        let keeper = device.keep_time().unwrap();
        become_as_many_as(1);
        control.fail_contexts(0, ILLEGAL_ADDRESS);
        become_as_many_as(0);
        drop(keeper);
        let stream = device.default_stream();
        let error = stream
            .record()
            .and_then(|marker| marker.synchronize())
            .unwrap_err();
        assert!(matches!(error, Error::DeviceLost { .. }), "{error:?}");
        assert!(matches!(device.keep_time(), Err(Error::DeviceLost { .. })));
    });
}

#[test]
fn a_process_may_fork_and_end_while_time_is_kept() {
    with_stand_in(|device, control| {
        let keeper = device.keep_time().unwrap();
        pass(device, control, 1_000_000_000);
        // SAFETY: the child calls this crate alone, which is what is tested, and `_exit`.
        match unsafe { libc::fork() } {
            -1 => panic!("fork failed"),
            0 => {
                let refused = matches!(device.keep_time(), Err(Error::Forked { .. }));
                drop(keeper);
                // SAFETY: ends the child at once, without what the parent does at its end.
                unsafe { libc::_exit(i32::from(!refused)) }
            }
            child => {
                let mut status = 0;
                // SAFETY: `status` is a place for an int, and `child` is our own.
                assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
                assert_eq!(status, 0, "the child's checks failed");
            }
        }
        // It lives until the process ends, and so does its thread.
        std::mem::forget(keeper);
    });
}

#[test]
fn a_keeper_that_cannot_begin_says_why() {
    with_stand_in(|device, control| {
        for call in ["cuStreamCreate", "cuEventCreate", "cuEventRecord"] {
            control.fail_calls_from(call, 1, OUT_OF_MEMORY);
            let error = device.keep_time().unwrap_err();
            println!("said: {error}");
            assert!(error.to_string().contains(call), "{error}");
            control.clear_faults();
        }
        let _keeper = device.keep_time().unwrap();
    });
}

#[test]
fn a_refused_wait_for_a_gate_starts_no_limit() {
    with_stand_in(|device, control| {
        let stream = device.new_stream().unwrap();
        // Far longer than the call that is refused takes, also on a loaded machine.
        let limit = Duration::from_secs(1);
        let gate = Gate::with_limit(device, limit).unwrap();
        control.fail_calls_from("cuStreamWaitValue32_v2", 1, NOT_SUPPORTED);
        assert!(gate.wait(&stream).is_err());
        control.clear_faults();
        std::thread::sleep(limit + Duration::from_millis(50));
        gate.open();
        assert!(gate.is_open(), "it has failed at a limit: {gate:?}");
    });
}

#[test]
fn a_gate_ends_while_another_wait_of_its_stream_blocks_in_the_driver() {
    with_stand_in(|device, control| {
        let stream = device.new_stream().unwrap();
        let [gate, failed] = [(); 2].map(|()| Gate::with_limit(device, Duration::MAX).unwrap());
        failed.fail("the disk is full");
        gate.wait(&stream).unwrap();
        control.queue_depth(1);
        let (tell, told) = mpsc::channel();
        let (blocked, begun) = (stream.clone(), tell.clone());
        let waiting = std::thread::spawn(move || {
            begun.send(()).unwrap();
            failed.wait(&blocked).unwrap();
        });
        told.recv_timeout(PATIENCE).unwrap();
        // The queue is full, so the wait stays in the driver.
        std::thread::sleep(Duration::from_millis(50));
        assert!(!waiting.is_finished());
        let ending = std::thread::spawn(move || {
            gate.fail("the file is gone");
            tell.send(()).unwrap();
        });
        told.recv_timeout(PATIENCE).expect("the gate has ended");
        ending.join().unwrap();
        waiting.join().unwrap();
        control.queue_depth(0);
        assert!(stream.synchronize_timeout(PATIENCE).is_err());
    });
}

#[test]
fn a_failure_of_a_gate_that_nobody_asks_for_is_reported() {
    with_stand_in(|device, _| {
        let (tell, told) = mpsc::channel();
        fencepost::set_unobserved_hook(move |error| tell.send(error.to_string()).unwrap());
        let reported = |text: &str| {
            let report = told.recv_timeout(PATIENCE).expect("a report");
            assert!(report.contains(text), "{report}");
        };
        let held = |limit| {
            let stream = device.new_stream().unwrap();
            let gate = Gate::with_limit(device, limit).unwrap();
            gate.wait(&stream).unwrap();
            let marker = stream.record().unwrap();
            (stream, gate, marker)
        };
        let (stream, gate, marker) = held(Duration::MAX);
        drop((stream, marker));
        drop(gate);
        reported("was dropped before it was opened");
        let (stream, gate, marker) = held(Duration::MAX);
        drop(gate);
        drop((marker, stream));
        reported("was dropped before it was opened");
        let (stream, gate, marker) = held(Duration::from_millis(1));
        drop((marker, stream));
        while format!("{gate:?}").contains("Closed") {
            std::thread::yield_now();
        }
        drop(gate);
        reported("was not opened within");
    });
}
