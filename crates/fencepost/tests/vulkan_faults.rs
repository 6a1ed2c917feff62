//! Faults of the Vulkan driver, injected into the stand-in: the user sees the first cause, nothing
//! hangs or leaks, and drops stay silent.
//!
//! Each fault has a process of its own, since most of them end the device. Nothing here counts as
//! hardware.
#![cfg(all(feature = "vulkan", target_os = "linux", not(loom)))]

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{Mutex, mpsc},
    time::{Duration, Instant},
};

use ash::vk;
use fencepost::{Backend, Device, Error, Event, Found, Marker, Result, testing::work, vulkan};
use fencepost_sim_vulkan::Control;

mod common;
#[path = "common/loss.rs"]
mod loss;

use loss::{everyone_is_told, is_loss};

const PATIENCE: Duration = fencepost_sim::HANG_TIMEOUT;
/// What the first cause says of a device that the driver has lost.
const LOST: [&str; 1] = ["said that the device is lost"];

/// Runs `fault` on a stand-in with these options, in a process of its own. Afterwards, no call may
/// have done what the specification forbids.
fn with_driver(options: &[(&str, u64)], fault: impl FnOnce(&Control)) {
    let library = std::env::var_os("FENCEPOST_VULKAN_LIBRARY");
    let Some(control) = library.and_then(|library| Control::load(Path::new(&library)).ok()) else {
        return common::skip(
            &common::test_name(),
            "FENCEPOST_VULKAN_LIBRARY names no stand-in for the Vulkan driver",
        );
    };
    common::in_a_process_of_its_own(|| {
        control.restart(control.seed(), options);
        fault(&control);
        let violations = control.violations();
        assert!(violations.is_empty(), "{violations:?}");
    });
}

fn with_device(fault: impl FnOnce(&Device, &Control)) {
    with_driver(&[], |control| {
        fault(&Device::open("vulkan:0").unwrap(), control);
    });
}

fn done(event: &Event) -> Result<()> {
    event.synchronize_timeout(PATIENCE)
}

/// From now on every submit is refused, whichever call makes it.
fn refuse_submits(control: &Control, code: vk::Result) {
    for call in ["vkQueueSubmit", "vkQueueSubmit2"] {
        control.fail_calls_from(call, 1, code);
    }
}

#[test]
fn a_lost_device_releases_everyone_who_waits() {
    with_device(|device, control| {
        let (stream, other) = (device.new_stream().unwrap(), device.new_stream().unwrap());
        let before = stream.record().unwrap();
        before.synchronize_timeout(PATIENCE).unwrap();
        let gate = work::gate(&stream).unwrap();
        let event = Event::new(device);
        event.record(&stream).unwrap();
        other.wait(&event.marker().unwrap()).unwrap();
        let behind = other.record().unwrap();
        let (tell, told) = mpsc::channel();
        event
            .on_complete(move |result| drop(tell.send(result)))
            .unwrap();
        let host = Device::open("host").unwrap().new_stream().unwrap();
        host.wait(&behind).unwrap();
        let waiting = {
            let behind = behind.clone();
            std::thread::spawn(move || behind.synchronize_timeout(PATIENCE))
        };
        control.lose_device(0);
        let first = done(&event).unwrap_err();
        println!("said: {first}");
        assert!(matches!(first, Error::DeviceLost { .. }), "{first:?}");
        let root = first.cause().unwrap().root().to_owned();
        for error in [
            waiting.join().unwrap().unwrap_err(),
            told.recv_timeout(PATIENCE).unwrap().unwrap_err(),
            host.synchronize_timeout(PATIENCE).unwrap_err(),
            event.query().unwrap_err(),
            stream.error().unwrap(),
            other.error().unwrap(),
            stream.clear_error().unwrap_err(),
            device.new_stream().unwrap_err(),
        ] {
            assert_eq!(error.cause().unwrap().root(), root, "{error:?}");
        }
        assert!(before.query().unwrap(), "complete markers stay complete");
        drop((gate, event, behind, stream, other));
    });
}

#[test]
fn a_refused_submit_leaves_the_event_and_the_stream_as_they_were() {
    with_device(|device, control| {
        let (stream, event) = (device.new_stream().unwrap(), Event::new(device));
        event.record(&stream).unwrap();
        done(&event).unwrap();
        for _ in 0..20 {
            let held = event.marker();
            let recorded = stream.progress().recorded;
            refuse_submits(control, vk::Result::ERROR_OUT_OF_DEVICE_MEMORY);
            match event.record(&stream) {
                Err(Error::Backend {
                    call, code, text, ..
                }) => {
                    assert!(call.starts_with("vkQueueSubmit"), "{call}: {text}");
                    assert_eq!(code, -2, "{text}");
                }
                other => panic!("{other:?}"),
            }
            assert_eq!(event.marker(), held);
            assert_eq!(stream.progress().recorded, recorded);
            control.clear_faults();
            event.record(&stream).unwrap();
            done(&event).unwrap();
        }
        assert!(stream.error().is_none());
    });
}

#[test]
fn a_submit_that_loses_the_device_is_what_everyone_sees() {
    with_device(|device, control| {
        let (stream, other) = (device.new_stream().unwrap(), device.new_stream().unwrap());
        refuse_submits(control, vk::Result::ERROR_DEVICE_LOST);
        let event = Event::new(device);
        let first = event
            .record(&stream)
            .and_then(|()| done(&event))
            .unwrap_err();
        is_loss(&first, &["vkQueueSubmit"]);
        let later = other.record().and_then(|marker| marker.synchronize());
        is_loss(&later.unwrap_err(), &["vkQueueSubmit"]);
        is_loss(&stream.clear_error().unwrap_err(), &["vkQueueSubmit"]);
    });
}

#[test]
fn a_query_that_turns_to_an_error_is_never_false() {
    with_device(|device, control| {
        let stream = device.new_stream().unwrap();
        let gate = work::gate(&stream).unwrap();
        let marker = stream.record().unwrap();
        assert!(!marker.query().unwrap());
        control.fail_calls_from(
            "vkGetSemaphoreCounterValue",
            1,
            vk::Result::ERROR_DEVICE_LOST,
        );
        is_loss(
            &marker.query().unwrap_err(),
            &["vkGetSemaphoreCounterValue"],
        );
        drop(gate);
    });
}

#[test]
fn a_stream_that_cannot_be_made_is_an_error() {
    with_device(|device, control| {
        control.fail_calls_from("vkCreateSemaphore", 1, vk::Result::ERROR_OUT_OF_HOST_MEMORY);
        let error = device.new_stream().unwrap_err();
        assert!(error.to_string().contains("vkCreateSemaphore"), "{error}");
        control.clear_faults();
        let stream = device.new_stream().unwrap();
        stream.synchronize_timeout(PATIENCE).unwrap();
    });
}

#[test]
fn a_device_that_cannot_be_made_is_an_error() {
    with_driver(&[], |control| {
        control.fail_calls_from("vkCreateDevice", 1, vk::Result::ERROR_INITIALIZATION_FAILED);
        let error = Device::open("vulkan:0").unwrap_err();
        assert!(error.to_string().contains("vkCreateDevice"), "{error}");
        control.clear_faults();
        Device::open("vulkan:0").unwrap().synchronize().unwrap();
    });
}

#[test]
fn a_driver_without_timeline_semaphores_is_an_error_that_says_so() {
    with_driver(&[("API", 12), ("TIMELINE", 0)], |_| {
        let found = Device::list()
            .into_iter()
            .find(|found| found.backend == Backend::Vulkan)
            .unwrap();
        let why = found.missing.expect("there is no device");
        assert!(why.contains("timeline semaphores"), "{why}");
        let error = Device::open("vulkan:0").unwrap_err();
        assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
        assert!(error.to_string().contains("timeline semaphores"), "{error}");
    });
}

#[test]
fn a_family_without_timestamps_is_named_and_does_all_else() {
    with_driver(&[("VALID_BITS", 0)], |_| {
        let device = Device::open("vulkan:0").unwrap();
        let stream = device.new_stream().unwrap();
        let error = stream.record_timed().unwrap_err();
        println!("said: {error}");
        assert!(matches!(error, Error::Unsupported { .. }), "{error:?}");
        assert!(error.to_string().contains("queue family 0"), "{error}");
        let uncorrelated = device.correlate().unwrap_err();
        assert!(
            matches!(uncorrelated, Error::Unsupported { .. }),
            "{uncorrelated:?}"
        );
        assert!(stream.error().is_none());
        stream.synchronize_timeout(PATIENCE).unwrap();
    });
}

/// On a clock that starts over every 69 s.
#[test]
fn the_drift_of_a_clock_is_measured_by_calibrated_timestamps() {
    measures_the_drift(&[("DRIFT", 5000), ("VALID_BITS", 36)]);
}

#[test]
fn the_drift_of_a_clock_is_measured_by_stamps_of_our_own() {
    measures_the_drift(&[("DRIFT", 5000), ("CALIBRATED", 0)]);
}

fn measures_the_drift(options: &[(&str, u64)]) {
    with_driver(options, |_| {
        let device = Device::open("vulkan:0").unwrap();
        let stream = device.new_stream().unwrap();
        let first = device.correlate().unwrap();
        std::thread::sleep(Duration::from_millis(300));
        let before = Instant::now();
        let marker = stream.record_timed().unwrap();
        marker.synchronize_timeout(PATIENCE).unwrap();
        let after = Instant::now();
        std::thread::sleep(Duration::from_millis(300));
        let last = device.correlate().unwrap();
        assert_eq!((first.drift_ppm(), first.drift_bound_ppm()), (0.0, 100.0));
        let line = last.with_drift_since(&first).unwrap();
        println!(
            "{} ppm, ±{} ({first:?})",
            line.drift_ppm(),
            line.drift_bound_ppm()
        );
        // On a busy machine the readings may be too far apart to tell the drift.
        if line.drift_bound_ppm() < 100.0 {
            let off = (line.drift_ppm() - 5000.0).abs();
            assert!(off <= line.drift_bound_ppm(), "{off} ppm off");
            let time = marker.host_time(&line).unwrap();
            assert!(
                before <= time.latest() && time.earliest() <= after,
                "{time:?}"
            );
        }
    });
}

#[test]
fn a_clock_that_wraps_between_two_markers_gives_the_time_between_them() {
    let almost = (1_u64 << 36) - 2_000;
    with_driver(&[("VALID_BITS", 36), ("CLOCK", almost)], |_| {
        let device = Device::open("vulkan:0").unwrap();
        let stream = device.new_stream().unwrap();
        let mut begun = Instant::now();
        let mut last = stream.record_timed().unwrap();
        for _ in 0..50 {
            let before = Instant::now();
            work::spin(&stream, 1000).unwrap();
            let next = stream.record_timed().unwrap();
            next.synchronize_timeout(PATIENCE).unwrap();
            let took = last.elapsed(&next).unwrap();
            let back = next.elapsed(&last).unwrap();
            assert!(!took.is_negative(), "{took}");
            // The clock follows real time, but for what the work takes.
            let most = begun.elapsed().as_secs_f64() + 1.0;
            assert!(took.as_secs_f64() < most, "{took}, in {most} s at most");
            assert_eq!(took.as_nanos_f64(), -back.as_nanos_f64());
            (begun, last) = (before, next);
        }
    });
}

/// A counter of 26 bits and 1 ns starts over every 67 ms.
const FEW_BITS: u64 = 26;

#[test]
fn a_later_marker_is_later_however_often_the_clock_has_wrapped() {
    with_driver(&[("VALID_BITS", FEW_BITS)], |_| {
        let device = Device::open("vulkan:0").unwrap();
        let period = (1_u64 << device.clock().valid_bits()) as f64 * device.clock().tick_nanos();
        assert!((6e7..7e7).contains(&period), "{period} ns");
        let stream = device.new_stream().unwrap();
        for part in [0.0, 0.25, 0.55, 0.75, 0.95, 1.05, 2.5, 7.25] {
            // A busy machine may keep this thread from looking for so long that the host cannot
            // tell: then the library says so.
            let (start, end) = (Event::with_timing(&device), Event::with_timing(&device));
            let whole = Instant::now();
            start.record(&stream).unwrap();
            done(&start).unwrap();
            let between = Instant::now();
            std::thread::sleep(Duration::from_nanos((period * part) as u64));
            let between = between.elapsed();
            end.record(&stream).unwrap();
            done(&end).unwrap();
            let whole = whole.elapsed();
            match start.elapsed(&end) {
                Ok(took) => {
                    let nanos = took.as_nanos_f64();
                    assert!(
                        nanos >= between.as_nanos() as f64 * 0.999,
                        "{took}, {between:?}"
                    );
                    assert!(
                        nanos <= whole.as_nanos() as f64 + period / 4.0,
                        "{took}, {whole:?}"
                    );
                    assert_eq!(end.elapsed(&start).unwrap().as_nanos_f64(), -nanos);
                    let stamps = [&start, &end].map(|event| event.marker().unwrap().timestamp());
                    let [first, last] = stamps.map(Result::unwrap);
                    assert_eq!(first.elapsed(&last).unwrap().as_nanos_f64(), nanos);
                }
                Err(Error::Ambiguous { known_to, .. }) => {
                    let known_to = known_to.unwrap().as_nanos() as f64;
                    assert!(known_to > period / 2.0, "{known_to} ns");
                }
                Err(error) => panic!("{error}"),
            }
        }
    });
}

#[test]
fn a_marker_that_nobody_looked_at_for_a_period_has_no_time() {
    with_driver(&[("VALID_BITS", FEW_BITS)], |control| {
        let device = Device::open("vulkan:0").unwrap();
        let stream = device.new_stream().unwrap();
        let start = stream.record_timed().unwrap();
        assert!(control.wait_idle(PATIENCE));
        std::thread::sleep(Duration::from_millis(200));
        let end = stream.record_timed().unwrap();
        end.synchronize_timeout(PATIENCE).unwrap();
        assert_eq!(start.elapsed(&start).unwrap().as_nanos_f64(), 0.0);
        let stamp = start.timestamp().unwrap();
        assert_eq!(stamp.elapsed(&stamp).unwrap().as_nanos_f64(), 0.0);
        let error = start.elapsed(&end).unwrap_err();
        println!("said: {error}");
        assert!(matches!(error, Error::Ambiguous { .. }), "{error:?}");
        assert!(error.to_string().contains("67.1 ms"), "{error}");
        let error = start
            .timestamp()
            .unwrap()
            .elapsed(&end.timestamp().unwrap());
        assert!(matches!(error, Err(Error::Ambiguous { .. })), "{error:?}");
    });
}

#[test]
fn what_is_dropped_leaves_nothing_behind() {
    with_device(|device, control| {
        let once = || {
            let stream = device.new_stream().unwrap();
            let (start, end) = (Event::with_timing(device), Event::with_timing(device));
            start.record(&stream).unwrap();
            end.record(&stream).unwrap();
            drop(stream);
            done(&end).unwrap();
        };
        (0..20).for_each(|_| once());
        device.synchronize().unwrap();
        let before = control.live();
        (0..200).for_each(|_| once());
        device.synchronize().unwrap();
        // Another thread destroys what is pending, once it is complete.
        let (begun, mut after) = (Instant::now(), control.live());
        while after.semaphores > before.semaphores + 8 && begun.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(20));
            after = control.live();
        }
        println!("{before:?}\n{after:?}");
        assert!(after.semaphores <= before.semaphores + 8);
        assert!(after.query_pools <= before.query_pools + 8);
        assert!(after.command_buffers <= before.command_buffers + 600);
    });
}

#[test]
fn a_thousand_gates_make_no_more_semaphores_than_one() {
    with_device(|device, control| {
        let (stream, beside) = (device.new_stream().unwrap(), device.new_stream().unwrap());
        let once = || {
            let [gate, other] = [&stream, &beside].map(|stream| work::gate(stream).unwrap());
            let behind = [&stream, &beside].map(|stream| stream.record().unwrap());
            gate.open();
            other.open();
            for marker in behind {
                marker.synchronize_timeout(PATIENCE).unwrap();
            }
        };
        once();
        let counts = || ["vkCreateSemaphore", "vkDestroySemaphore"].map(|call| control.calls(call));
        let before = counts();
        (0..500).for_each(|_| once());
        assert_eq!(
            counts(),
            before,
            "each gate is a value of its stream's semaphore"
        );
    });
}

#[test]
fn gates_that_are_closed_together_open_by_one_semaphore() {
    with_device(|device, control| {
        let stream = device.new_stream().unwrap();
        let gates: Vec<_> = (0..100).map(|_| work::gate(&stream).unwrap()).collect();
        let behind = stream.record().unwrap();
        let before = control.live().semaphores;
        for gate in gates.into_iter().rev() {
            assert!(!behind.query().unwrap(), "the first gate is closed");
            gate.open();
        }
        behind.synchronize_timeout(PATIENCE).unwrap();
        assert_eq!(control.live().semaphores, before);
    });
}

/// A wait that was not submitted leaves a gate that nobody opens.
#[test]
fn a_gate_that_was_refused_holds_back_no_later_one() {
    with_device(|device, control| {
        let stream = device.new_stream().unwrap();
        let first = work::gate(&stream).unwrap();
        refuse_submits(control, vk::Result::ERROR_OUT_OF_DEVICE_MEMORY);
        assert!(work::gate(&stream).is_err());
        control.clear_faults();
        let last = work::gate(&stream).unwrap();
        let behind = stream.record().unwrap();
        first.open();
        assert!(!behind.query().unwrap(), "the last gate is closed");
        last.open();
        behind.synchronize_timeout(PATIENCE).unwrap();
    });
}

/// A later signal opens what an earlier one was to open.
#[test]
fn a_signal_that_was_refused_is_made_up_for_by_the_next_gate() {
    with_device(|device, control| {
        let stream = device.new_stream().unwrap();
        let refused = work::gate(&stream).unwrap();
        control.fail_calls_from("vkSignalSemaphore", 1, vk::Result::ERROR_OUT_OF_HOST_MEMORY);
        refused.open();
        control.clear_faults();
        let next = work::gate(&stream).unwrap();
        let behind = stream.record().unwrap();
        assert!(!behind.query().unwrap());
        next.open();
        behind.synchronize_timeout(PATIENCE).unwrap();
    });
}

#[test]
fn a_loss_reaches_markers_whose_stream_is_dropped() {
    with_device(|device, control| everyone_is_told(device, || control.lose_device(0), &LOST));
}

/// As NVIDIA's driver does ([Vulkan-ValidationLayers
/// #4566](https://github.com/KhronosGroup/Vulkan-ValidationLayers/issues/4566)).
#[test]
fn a_counter_with_all_bits_set_is_a_lost_device() {
    with_driver(&[("LOST_COUNTERS", 1)], |control| {
        let device = Device::open("vulkan:0").unwrap();
        everyone_is_told(&device, || control.lose_device(0), &LOST);
    });
}

#[test]
fn a_lost_device_whose_counters_stand_still_is_told_by_waiting() {
    with_driver(&[("LOST_COUNTERS", 2)], |control| {
        let device = Device::open("vulkan:0").unwrap();
        everyone_is_told(&device, || control.lose_device(0), &LOST);
    });
}

/// As NVIDIA's driver does with the device of a kernel that it has ended: waits time out, and
/// counters stand still.
#[test]
fn a_loss_that_only_submits_tell_reaches_everyone_who_waits() {
    with_driver(&[("LOST_COUNTERS", 3)], |control| {
        let device = Device::open("vulkan:0").unwrap();
        everyone_is_told(&device, || control.lose_device(0), &LOST);
    });
}

#[test]
fn a_loss_that_only_submits_tell_ends_a_wait_of_the_calling_thread() {
    with_driver(&[("LOST_COUNTERS", 3)], |control| {
        let stream = Device::open("vulkan:0").unwrap().new_stream().unwrap();
        let gate = work::gate(&stream).unwrap();
        let marker = stream.record().unwrap();
        let waiting = std::thread::spawn(move || marker.synchronize_timeout(PATIENCE));
        control.lose_device(0);
        is_loss(&waiting.join().unwrap().unwrap_err(), &LOST);
        drop(gate);
    });
}

/// As Python's waits are made, which look for signals in between.
#[test]
fn a_loss_that_only_submits_tell_ends_waits_in_small_slices() {
    with_driver(&[("LOST_COUNTERS", 3)], |control| {
        let stream = Device::open("vulkan:0").unwrap().new_stream().unwrap();
        let gate = work::gate(&stream).unwrap();
        let marker = stream.record().unwrap();
        control.lose_device(0);
        is_loss(&wait_in_slices(&marker), &LOST);
        drop(gate);
    });
}

#[test]
fn a_loss_that_only_submits_tell_ends_a_wait_on_a_stream_that_waits_for_the_host() {
    with_driver(&[("LOST_COUNTERS", 3)], |control| {
        let stream = Device::open("vulkan:0").unwrap().new_stream().unwrap();
        let host = Device::open("host").unwrap().new_stream().unwrap();
        let gate = work::gate(&host).unwrap();
        stream.wait_foreign(&host.record().unwrap()).unwrap();
        let marker = stream.record().unwrap();
        control.lose_device(0);
        is_loss(&marker.synchronize_timeout(PATIENCE).unwrap_err(), &LOST);
        drop(gate);
    });
}

/// Such a panic poisons the lock of its queue, here of each.
#[test]
fn a_loss_that_only_submits_tell_is_found_where_submits_of_the_callers_have_panicked() {
    with_driver(&[("LOST_COUNTERS", 3)], |control| {
        let device = Device::open("vulkan:0").unwrap();
        let streams: Vec<_> = (0..16).map(|_| device.new_stream().unwrap()).collect();
        for stream in &streams {
            let panics = || vulkan::stream_as_raw(stream, |_, _| -> () { panic!("as asked") });
            assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
        }
        let gate = work::gate(&streams[0]).unwrap();
        let marker = streams[0].record().unwrap();
        control.lose_device(0);
        is_loss(&marker.synchronize_timeout(PATIENCE).unwrap_err(), &LOST);
        drop(gate);
    });
}

/// How waits of 50 ms, made for as long as a hang takes, end.
fn wait_in_slices(marker: &Marker) -> Error {
    let start = Instant::now();
    loop {
        match marker.synchronize_timeout(Duration::from_millis(50)) {
            Err(Error::Timeout(_)) if start.elapsed() < PATIENCE => {}
            ended => return ended.unwrap_err(),
        }
    }
}

#[test]
fn a_device_that_was_lost_is_opened_anew() {
    with_device(|device, control| {
        control.lose_device(0);
        assert!(device.synchronize().is_err());
        let anew = Device::open("vulkan:0").unwrap();
        assert_ne!(anew.default_stream(), device.default_stream());
        anew.default_stream().synchronize_timeout(PATIENCE).unwrap();
        let again = Device::open("vulkan:0").unwrap();
        assert_eq!(again.default_stream(), anew.default_stream());
    });
}

#[test]
fn a_device_that_cannot_be_used_is_destroyed_again() {
    with_driver(&[], |control| {
        for nth in [1, 2] {
            control.fail_call(
                "vkCreateSemaphore",
                nth,
                vk::Result::ERROR_OUT_OF_HOST_MEMORY,
            );
            let error = Device::open("vulkan:0").unwrap_err();
            assert!(error.to_string().contains("vkCreateSemaphore"), "{error}");
            assert_eq!(control.live().devices, 0);
            control.clear_faults();
        }
    });
}

#[test]
fn queries_that_cannot_be_made_leave_nothing_behind() {
    with_device(|device, control| {
        let stream = device.new_stream().unwrap();
        // Creates the stream's pool of command buffers.
        let first = stream.record_timed().unwrap();
        let held: Vec<_> = (0..63).map(|_| stream.record_timed().unwrap()).collect();
        let before = control.live();
        for call in [
            "vkCreateQueryPool",
            "vkAllocateCommandBuffers",
            "vkBeginCommandBuffer",
            "vkEndCommandBuffer",
        ] {
            control.fail_call(call, 1, vk::Result::ERROR_OUT_OF_DEVICE_MEMORY);
            let error = stream.record_timed().unwrap_err();
            assert!(error.to_string().contains(call), "{error}");
            assert_eq!(control.live(), before, "after {call}");
        }
        stream.record_timed().unwrap();
        drop((first, held));
        stream.synchronize_timeout(PATIENCE).unwrap();
    });
}

/// Without memory for a thread, none can be started.
#[test]
fn whoever_asks_to_be_told_while_no_thread_starts_gets_an_error() {
    with_device(|device, _| {
        let stream = device.new_stream().unwrap();
        let gate = work::gate(&stream).unwrap();
        let marker = stream.record().unwrap();
        let limit = common::limit_memory(1 << 20);
        let told = marker.on_complete(|_| {});
        // The wait of the stream is pending: its semaphores may not be destroyed.
        drop(stream);
        common::limit_memory(limit);
        let error = told.unwrap_err();
        assert!(error.to_string().contains("spawn"), "{error}");
        let (tell, told) = mpsc::channel();
        marker
            .on_complete(move |result| drop(tell.send(result)))
            .unwrap();
        gate.open();
        told.recv_timeout(PATIENCE).unwrap().unwrap();
    });
}

/// An exit handler of a program, which runs after the driver's own.
#[test]
fn drops_behind_the_end_of_the_driver_call_nothing_of_it() {
    type Kept = (Device, Event, work::Gate, fencepost::Stream);
    static KEPT: Mutex<Option<Kept>> = Mutex::new(None);
    extern "C" fn drop_all() {
        let library = std::env::var_os("FENCEPOST_VULKAN_LIBRARY").unwrap();
        let control = Control::load(Path::new(&library)).unwrap();
        let calls = || {
            [
                "vkDestroySemaphore",
                "vkDestroyCommandPool",
                "vkDestroyQueryPool",
                "vkGetSemaphoreCounterValue",
                "vkWaitSemaphores",
                "vkSignalSemaphore",
            ]
            .map(|name| control.calls(name))
        };
        let before = calls();
        drop(KEPT.lock().map(|mut kept| kept.take()));
        if calls() != before {
            // SAFETY: ends the process at once.
            unsafe { libc::_exit(3) }
        }
    }
    with_driver(&[], |_| {
        // SAFETY: the handler is a function of this program, and does not unwind.
        assert_eq!(unsafe { libc::atexit(drop_all) }, 0);
        let device = Device::open("vulkan:0").unwrap();
        let stream = device.new_stream().unwrap();
        let done = Event::with_timing(&device);
        done.record(&stream).unwrap();
        stream.synchronize_timeout(PATIENCE).unwrap();
        let gate = work::gate(&stream).unwrap();
        done.record(&stream).unwrap();
        *KEPT.lock().unwrap() = Some((device, done, gate, stream));
    });
}

#[test]
fn an_older_loader_before_a_newer_driver_is_used_as_an_older_device() {
    with_driver(&[("API", 13), ("LOADER", 12), ("SYNC2", 1)], |control| {
        let device = Device::open("vulkan:0").unwrap();
        let stream = device.new_stream().unwrap();
        stream.record_timed().unwrap();
        stream.synchronize_timeout(PATIENCE).unwrap();
        // The extension is there, and so are its calls.
        assert!(control.calls("vkQueueSubmit2KHR") > 0);
    });
}

#[test]
fn drivers_that_do_not_conform_are_found() {
    with_driver(&[("PORTABILITY", 1)], |_| {
        let device = Device::open("vulkan:0").unwrap();
        device.synchronize().unwrap();
    });
}

#[test]
fn a_loader_without_a_driver_is_an_error_that_says_what_to_install() {
    with_driver(&[("DEVICES", 0)], |_| {
        let error = Device::open("vulkan:0").unwrap_err();
        assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
        assert!(error.to_string().contains("install the GPU's"), "{error}");
    });
}

#[test]
fn an_instance_that_no_driver_takes_is_an_error_that_says_what_to_install() {
    with_driver(&[], |control| {
        control.fail_call("vkCreateInstance", 1, vk::Result::ERROR_INCOMPATIBLE_DRIVER);
        let error = Device::open("vulkan:0").unwrap_err();
        assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
        assert!(error.to_string().contains("install the GPU's"), "{error}");
    });
}

/// In the child nobody goes on loading what a thread of the parent began to load.
#[test]
fn a_child_is_told_when_a_thread_of_its_parent_is_loading_the_driver() {
    with_driver(&[], |control| {
        control.stall_call("vkCreateInstance");
        let opening = std::thread::spawn(|| Device::open("vulkan:0").map(drop));
        while control.stalled() == 0 {
            std::thread::yield_now();
        }
        // SAFETY: the child calls nothing but this crate, which is what is tested, and _exit.
        let child = match unsafe { libc::fork() } {
            0 => {
                // SAFETY: ends a child that hangs.
                unsafe { libc::alarm(60) };
                let opened = Device::open("vulkan:0");
                let listed = Device::list();
                let is_missing =
                    |found: &Found| found.backend == Backend::Vulkan && found.missing.is_some();
                let told =
                    matches!(opened, Err(Error::Forked { .. })) && listed.iter().any(is_missing);
                // SAFETY: ends the child at once.
                unsafe { libc::_exit(i32::from(!told)) }
            }
            child => child,
        };
        let mut status = -1;
        // SAFETY: a child of ours; `status` is an int.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        control.release_stalled();
        opening.join().unwrap().unwrap();
        assert_eq!(status, 0, "the child hangs, or is not told");
    });
}
