//! Markers: recorded again in place, their callbacks, and their times.

use std::{
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Instant,
};

use fencepost::{Error, Event, Status, bindings, cuda, measure::Measure, testing::work};

use crate::{
    PATIENCE,
    bare::{Bare, Handle, make_current},
    common, gpu,
};

#[test]
fn a_record_in_place_keeps_other_holders_of_the_marker() {
    let Some(gpu) = gpu() else { return };
    let device = &gpu.device;
    let stream = device.new_stream().unwrap();
    let event = Event::with_timing(device);
    event.record(&stream).unwrap();
    let mut native = Vec::new();
    let mut look = |event: &Event| {
        let marker = event.marker().unwrap();
        native.push(cuda::marker_as_raw(&marker, |raw| raw as usize).unwrap());
        marker.value()
    };
    let first = look(&event);
    event.record(&stream).unwrap();
    assert!(look(&event) > first);
    let held = event.marker().unwrap();
    event.record(&stream).unwrap();
    look(&event);
    assert_eq!(native[0], native[1], "nobody held it: the same CUevent");
    assert_ne!(native[1], native[2], "it was held: another CUevent");
    event.synchronize().unwrap();
    let apart = held.elapsed(&event.marker().unwrap()).unwrap();
    assert!(apart.as_nanos_f64() > 0.0, "{apart}");
}

#[test]
fn a_forgotten_event_is_as_new_and_is_recorded_in_place() {
    let Some(gpu) = gpu() else { return };
    let device = &gpu.device;
    let (stream, other) = (device.new_stream().unwrap(), device.new_stream().unwrap());
    for new_event in [Event::new, Event::with_timing] {
        let mut event = new_event(device);
        assert!(!bindings::forget(&mut event), "nothing was recorded");
        let gate = work::gate(&stream).unwrap();
        event.record(&stream).unwrap();
        assert!(!event.query().unwrap());
        assert!(bindings::forget(&mut event));
        assert_eq!(event.status().unwrap(), Status::Unrecorded);
        assert!(event.query().unwrap() && event.marker().is_none());
        let refused = event.elapsed(&event).unwrap_err();
        assert!(matches!(
            refused,
            Error::NotRecorded { .. } | Error::TimingDisabled { .. }
        ));
        event.wait(&other).unwrap();
        other
            .record()
            .unwrap()
            .synchronize_timeout(PATIENCE)
            .unwrap();
        gate.open();
        for _ in 0..2 {
            assert!(bindings::record_in_place(
                &event,
                &stream,
                bindings::unknown_place()
            ));
            // The driver's own wait: the watcher would share the marker's native event.
            event.synchronize().unwrap();
            assert!(bindings::forget(&mut event));
        }
        event.record(&other).unwrap();
        event.synchronize_timeout(PATIENCE).unwrap();
        let held = event.marker().unwrap();
        assert!(
            !bindings::forget(&mut event),
            "somebody else holds its marker"
        );
        drop(held);
        work::fail(&other, "it broke").unwrap();
        event.record(&other).unwrap();
        assert!(event.synchronize_timeout(PATIENCE).is_err());
        assert!(!bindings::forget(&mut event), "its stream has failed");
        assert!(event.query().is_err());
        other.clear_error().unwrap();
    }
}

#[test]
fn a_marker_that_is_recorded_again_on_another_stream_is_told_by_that_one_alone() {
    let Some(gpu) = gpu() else { return };
    let device = &gpu.device;
    let [held, second, third] = [(); 3].map(|()| device.new_stream().unwrap());
    for new_event in [Event::new, Event::with_timing] {
        let event = new_event(device);
        let gate = work::gate(&held).unwrap();
        // A dropped event leaves its marker to this thread, pending; so does one that moves on.
        new_event(device).record(&held).unwrap();
        for stream in [&second, &held, &third, &second, &third, &held, &third] {
            event.record(stream).unwrap();
            if std::ptr::eq(stream, &held) {
                assert!(!event.query().unwrap());
            } else {
                event.synchronize_timeout(PATIENCE).unwrap();
            }
        }
        event.record(&held).unwrap();
        let waited = event.marker().unwrap();
        event.record(&third).unwrap();
        event.synchronize_timeout(PATIENCE).unwrap();
        assert!(!waited.query().unwrap());
        gate.open();
        waited.synchronize_timeout(PATIENCE).unwrap();
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_callback_for_what_is_over_needs_no_watcher() {
    common::in_a_process_of_its_own(|| {
        let Some(gpu) = gpu() else { return };
        let stream = gpu.device.new_stream().unwrap();
        let bare = Bare::new();
        make_current(&bare);
        let synchronize: unsafe extern "system" fn(Handle) -> i32 =
            bare.find("cuStreamSynchronize").unwrap();
        let marker = stream.record().unwrap();
        // SAFETY: a stream that is alive. The library does not learn of it.
        let done = unsafe { synchronize(cuda::stream_as_raw(&stream).unwrap()) };
        assert_eq!(done, 0);
        let (tell, told) = mpsc::channel();
        marker
            .on_complete(move |result| tell.send(result).unwrap())
            .unwrap();
        told.recv_timeout(PATIENCE).unwrap().unwrap();
        let threads = std::fs::read_dir("/proc/self/task").unwrap();
        let names = threads
            .map(|thread| std::fs::read_to_string(thread.unwrap().path().join("comm")).unwrap());
        let names: Vec<_> = names.map(|name| name.trim().to_owned()).collect();
        assert!(
            !names.iter().any(|name| name == "fencepost-cuda"),
            "{names:?}"
        );
    });
}

/// On the stand-in a kernel takes its length on the simulated clock, which also follows the host's:
/// so it may take longer, and never less.
#[test]
fn a_slope_is_no_shorter_than_the_kernel() {
    let Some(gpu) = gpu() else { return };
    let stream = gpu.device.new_stream().unwrap();
    for micros in [5, 50] {
        let spin = || work::spin(&stream, micros * 1_000);
        let found = Measure::new(&stream).run(spin).unwrap();
        println!("a spin of {micros} µs: {found}");
        // Samples scatter to both sides.
        assert!(found.median() > micros as f64 * 0.9e-6, "{found}");
    }
}

/// `elapsed_time` is the driver's own time between the same two native events, and no less than the
/// kernel between them took.
#[test]
fn times_are_the_drivers_own() {
    let Some(gpu) = gpu() else { return };
    let bare = Bare::new();
    type Elapsed = unsafe extern "system" fn(*mut f32, Handle, Handle) -> i32;
    let elapsed = bare.find::<Elapsed>("cuEventElapsedTime").unwrap();
    make_current(&bare);
    let stream = gpu.device.new_stream().unwrap();
    let (start, end) = (
        Event::with_timing(&gpu.device),
        Event::with_timing(&gpu.device),
    );
    for nanos in [10_000, 100_000, 1_000_000, 100_000_000] {
        start.record(&stream).unwrap();
        work::spin(&stream, nanos).unwrap();
        end.record(&stream).unwrap();
        let ours = start.elapsed_time(&end).unwrap();
        let markers = [&start, &end].map(|event| event.marker().unwrap());
        let [first, last] = [&markers[0], &markers[1]]
            .map(|marker| cuda::marker_as_raw(marker, |raw| raw).unwrap());
        let mut theirs = 0.0;
        // SAFETY: an out-pointer; the markers keep both events, which are recorded and complete.
        assert_eq!(unsafe { elapsed(&raw mut theirs, first, last) }, 0);
        println!("{nanos} ns: ours {ours} ms, the driver's {theirs} ms");
        assert_eq!(ours as f32, theirs);
        assert!(ours * 1e6 >= nanos as f64 - 1500.0, "shorter than it spun");
    }
}

/// Times are read without a lock while others record the same native events. What is told then is
/// the time between two of their markers, or that one is pending.
#[test]
fn times_may_be_read_while_other_threads_record_the_events() {
    let Some(gpu) = gpu() else { return };
    let stream = gpu.device.new_stream().unwrap();
    let events = [(); 2].map(|()| Event::with_timing(&gpu.device));
    let record = || events.iter().try_for_each(|event| event.record(&stream));
    let (begin, done) = (Instant::now(), AtomicBool::new(false));
    record().unwrap();
    stream.synchronize().unwrap();
    std::thread::scope(|scope| {
        let reading = [(); 2].map(|()| {
            scope.spawn(|| {
                let mut told = 0;
                while !done.load(Ordering::Relaxed) {
                    match events[0].elapsed(&events[1]) {
                        Ok(time) => {
                            told += 1;
                            // Of the same records, by a clock that may be a little faster.
                            assert!(time.unsigned() <= begin.elapsed() * 2, "{time}");
                        }
                        Err(Error::NotReady { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
                told
            })
        });
        for round in 0..2000 {
            record().unwrap();
            if round % 8 == 0 {
                stream.synchronize().unwrap();
            }
        }
        done.store(true, Ordering::Relaxed);
        let told = reading.map(|reading| reading.join().unwrap());
        println!("{told:?} times were told");
    });
    stream.synchronize().unwrap();
    assert!(!events[0].elapsed(&events[1]).unwrap().is_negative());
}
