//! What the tests of every GPU backend run: the conformance suite, its mutants, and what a case
//! cannot hold, since it ends a process or needs one of its own.
#![allow(dead_code)]

use std::{
    future::{Future as _, IntoFuture as _},
    pin::pin,
    sync::Mutex,
    task::{Context, Poll, Waker},
    thread,
    time::{Duration, Instant},
};

use fencepost::{
    Backend, Device, Error, Event, Gate, Marker, Stream,
    testing::{self, Case, Outcome, work},
};

use super::common;

/// Why the backend has no device here, if it has none.
pub(crate) fn missing(backend: Backend) -> Option<String> {
    found(backend).missing
}

fn found(backend: Backend) -> fencepost::Found {
    Device::list()
        .into_iter()
        .find(|found| found.backend == backend)
        .expect("the registry has an entry for every backend")
}

/// Without a driver, opening a device is an error that says so; with one, the error is about the
/// number of the device.
pub(crate) fn a_missing_driver_is_an_error_that_says_so(backend: Backend) {
    let found = found(backend);
    let first = format!("{}:0", backend.name());
    match found.missing {
        Some(why) => {
            assert!(!why.is_empty());
            let error = Device::open(&first).unwrap_err();
            assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
            assert!(error.to_string().contains(&why), "{error}");
        }
        None => {
            assert_eq!(found.devices[0], first);
            let beyond = format!("{}:{}", backend.name(), found.devices.len());
            let error = Device::open(&beyond).unwrap_err();
            assert!(matches!(error, Error::UnknownDevice { .. }), "{error:?}");
        }
    }
}

/// The test `name`: a library that `variable` names and that is no driver is an error whose text
/// `explains`.
pub(crate) fn another_library_is_an_error(
    name: &str,
    backend: Backend,
    variable: &str,
    explains: impl Fn(&str) -> bool,
) {
    if common::is_child() {
        let error = Device::open(&format!("{}:0", backend.name())).unwrap_err();
        println!("said: {error}");
        assert!(explains(&error.to_string()), "{error}");
        return;
    }
    // A library that is not there, and one that is there and has none of the symbols.
    for library in ["/nowhere/libdriver.so", "libc.so.6"] {
        let mut child = common::child(name);
        child.env(variable, library);
        assert!(common::run(child).success(), "{library}");
    }
}

/// A process ends well with a held stream, a pending event and a callback, which never runs, though
/// exit handlers let the stream go on.
pub(crate) fn a_process_may_end_with_anything_pending(device: &str) {
    extern "C" fn linger() {
        thread::sleep(Duration::from_millis(300));
    }
    unsafe extern "C" {
        fn atexit(handler: extern "C" fn()) -> std::ffi::c_int;
    }
    common::in_a_process_of_its_own(|| {
        // SAFETY: C's atexit, with a function that never unwinds. It runs behind the handlers of
        // the library, which are registered later.
        assert_eq!(unsafe { atexit(linger) }, 0);
        static KEPT: Mutex<Vec<(Event, work::Gate)>> = Mutex::new(Vec::new());
        let device = Device::open(device).unwrap();
        let stream = device.new_stream().unwrap();
        let gate = work::gate(&stream).unwrap();
        let event = Event::with_timing(&device);
        event.record(&stream).unwrap();
        event.on_complete(|_| std::process::abort()).unwrap();
        KEPT.lock().unwrap().push((event, gate));
    });
}

/// A process ends well with a gate that is never opened or dropped; where `lets_go`, it is seen
/// that the stream is let go before that.
pub(crate) fn a_process_may_end_with_a_closed_gate(device: &str, lets_go: bool) {
    static KEPT: Mutex<Option<(Stream, Marker, Gate)>> = Mutex::new(None);
    extern "C" fn look() {
        let kept = KEPT.lock().unwrap();
        let Some((_, marker, _)) = &*kept else { return };
        let start = Instant::now();
        // No panic in here would fail the test.
        while !matches!(marker.query(), Ok(true)) {
            if start.elapsed() > fencepost_sim::HANG_TIMEOUT {
                eprintln!("the stream is still held: {marker:?}");
                std::process::abort();
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
    common::in_a_process_of_its_own(|| {
        unsafe extern "C" {
            fn atexit(handler: extern "C" fn()) -> std::ffi::c_int;
        }
        let look_at_exit = || {
            if lets_go {
                // SAFETY: a function that takes and returns nothing, and does not unwind.
                assert_eq!(unsafe { atexit(look) }, 0);
            }
        };
        // Handlers run in the reverse order, so both run after what opens the gate. The second is
        // that of a library which is loaded once the device is open.
        look_at_exit();
        let device = Device::open(device).unwrap();
        look_at_exit();
        let stream = device.new_stream().unwrap();
        let gate = Gate::with_limit(&device, Duration::MAX).unwrap();
        gate.wait(&stream).unwrap();
        let marker = stream.record().unwrap();
        *KEPT.lock().unwrap() = Some((stream, marker, gate));
    });
}

/// Every call in a forked child that needs a thread or the driver is an error that says so; `also`
/// checks the backend's own calls. Everything may be dropped there.
#[cfg(unix)]
pub(crate) fn a_forked_child_is_told_so(device: &str, also: impl Fn(&Device, &Event) -> bool) {
    common::in_a_process_of_its_own(|| {
        let device = Device::open(device).unwrap();
        let stream = device.new_stream().unwrap();
        let gate = work::gate(&stream).unwrap();
        let event = Event::with_timing(&device);
        event.record(&stream).unwrap();
        let other = device.new_stream().unwrap();
        let fresh = Event::new(&device);
        let marker = event.marker().unwrap();
        let behind = device.new_stream().unwrap();
        let [closed, dropped] = [(); 2].map(|()| Gate::with_limit(&device, Duration::MAX).unwrap());
        for gate in [&closed, &dropped] {
            gate.wait(&behind).unwrap();
        }
        let after = behind.record().unwrap();
        // SAFETY: the child does nothing that needs the threads it lost, and leaves by _exit.
        match unsafe { libc::fork() } {
            0 => {
                let mut awaited = pin!((&event).into_future());
                let context = &mut Context::from_waker(Waker::noop());
                let results = [
                    ("query", event.query().map(drop)),
                    ("status", event.status().map(drop)),
                    ("Marker::query", marker.query().map(drop)),
                    ("synchronize", event.synchronize()),
                    (
                        "synchronize_timeout",
                        event.synchronize_timeout(Duration::MAX),
                    ),
                    ("elapsed", event.elapsed(&event).map(drop)),
                    ("elapsed_time", event.elapsed_time(&event).map(drop)),
                    ("on_complete", event.on_complete(|_| {})),
                    ("on_complete of none", fresh.on_complete(|_| {})),
                    (
                        "await",
                        match awaited.as_mut().poll(context) {
                            Poll::Ready(result) => result,
                            Poll::Pending => Ok(()),
                        },
                    ),
                    ("record", event.record(&stream)),
                    ("record elsewhere", event.record(&other)),
                    ("first record", fresh.record(&other)),
                    ("Stream::record", stream.record().map(drop)),
                    ("record_timed", other.record_timed().map(drop)),
                    ("wait", event.wait(&other)),
                    ("Stream::wait", other.wait(&marker)),
                    ("wait_foreign", other.wait_foreign(&marker)),
                    ("Gate::wait", closed.wait(&other)),
                    ("Gate::new", Gate::new(&device).map(drop)),
                    ("Stream::query", other.query().map(drop)),
                    ("Stream::synchronize", other.synchronize()),
                    ("error", other.error().map_or(Ok(()), Err)),
                    ("clear_error", other.clear_error()),
                    ("new_stream", device.new_stream().map(drop)),
                    ("Device::synchronize", device.synchronize()),
                    ("open", Device::open(device.name()).map(drop)),
                ];
                let mut is_told = true;
                for (call, result) in &results {
                    if !matches!(result, Err(Error::Forked { .. })) {
                        is_told = false;
                        eprintln!("{call} in a forked child: {result:?}");
                    }
                }
                is_told &= also(&device, &event);
                closed.open();
                closed.fail("the child");
                is_told &= !closed.is_open();
                drop((event, gate, stream, other, fresh, marker, device));
                drop((dropped, after, behind));
                // SAFETY: ends the child at once.
                unsafe { libc::_exit(i32::from(!is_told)) };
            }
            child => {
                let mut status = -1;
                // SAFETY: a child of ours; `status` is an int.
                assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
                assert_eq!(status, 0, "the child was not told, or crashed");
            }
        }
        gate.open();
        event
            .synchronize_timeout(fencepost_sim::HANG_TIMEOUT)
            .unwrap();
        assert!(!closed.is_open() && !after.query().unwrap(), "{after:?}");
        closed.open();
        dropped.open();
        after
            .synchronize_timeout(fencepost_sim::HANG_TIMEOUT)
            .unwrap();
    });
}

/// Runs the cases of these names, each of which must pass.
pub(crate) fn keeps(device: &Device, names: &[&str]) {
    for name in names {
        let mut ran = 0;
        testing::run(device, name, |case, outcome, _| {
            ran += 1;
            assert_eq!(*outcome, Outcome::Passed, "{}", case.name);
        });
        assert!(ran > 0, "no case is called {name}");
    }
}

/// Runs every case but those that are left out, and returns how many passed.
pub(crate) fn keeps_every_promise(device: &Device, leave_out: impl Fn(&Case) -> bool) -> usize {
    println!("{device}, clock: {}", device.clock());
    let (mut passed, mut failed) = (0, Vec::new());
    for case in testing::cases() {
        if leave_out(case) {
            println!("left out {}", case.name);
            continue;
        }
        testing::run(device, case.name, |ran, outcome, time| match outcome {
            // The filter is a part of a name, and may fit several.
            _ if ran.name != case.name => {}
            Outcome::Passed => {
                passed += 1;
                println!("ok {} ({time:?})", case.name);
            }
            Outcome::Failed(why) => {
                println!("FAILED {}: {why}", case.name);
                failed.push(format!("{}: {why}", case.name));
            }
            Outcome::Skipped(why) => println!("skipped {}: {why}", case.name),
        });
    }
    println!("{passed} passed, {} failed", failed.len());
    assert!(failed.is_empty(), "{failed:#?}");
    passed
}

/// Runs the mutants of a backend, and leaves the table under `name`: each must die.
pub(crate) fn every_mutant_dies(name: &str, title: &str, make: impl Fn() -> Device + Sync) {
    let table = testing::kill_mutants(make);
    common::write_table(name, title, &table.to_string());
    let complaints = table.complaints();
    assert!(complaints.is_empty(), "{complaints:#?}");
}
