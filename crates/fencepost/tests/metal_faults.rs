//! Faults of Metal, injected into the stand-in: the user sees the first cause, and nothing hangs or
//! leaks. Nothing here counts as Apple hardware.
#![cfg(all(metal_sim, not(loom)))]

use std::{sync::mpsc, time::Duration};

use fencepost::{
    Device, Error, Event, Status, metal,
    testing::{self, work},
};
use fencepost_sim_metal::Setup;
use objc2_metal::{MTLCommandBuffer, MTLCommandBufferError, MTLSharedEvent};

#[path = "metal/support.rs"]
mod support;

use support::*;

const TIMEOUT: MTLCommandBufferError = MTLCommandBufferError::Timeout;
const TEXT: &str = "Caused GPU Timeout Error";

#[test]
fn a_buffer_that_fails_without_its_signals_fails_its_stream_and_releases_everyone() {
    with_gpu(|device, session| {
        let (stream, other) = (device.new_stream().unwrap(), device.new_stream().unwrap());
        let (log, theirs) = (work::new_log(device).unwrap(), Theirs::new(device));
        let gate = work::gate(&stream).unwrap();
        let before = stream.record_timed().unwrap();
        session.fail_commit(1, TIMEOUT, TEXT);
        work::append(&stream, &log, 1).unwrap();
        let marker = stream.record_timed().unwrap();
        // All that may wait: another stream, a buffer of the caller, a host stream, a callback, a
        // thread.
        other.wait(&marker).unwrap();
        let behind = other.record_timed().unwrap();
        let buffer = theirs.buffer();
        metal::wait_into(&marker, &buffer).unwrap();
        let reserved = metal::record_into(device, &buffer).unwrap();
        buffer.commit();
        let reserved = reserved.submitted();
        let host = Device::new_host(1).new_stream().unwrap();
        host.wait(&marker).unwrap();
        let on_host = host.record().unwrap();
        let (tell, told) = mpsc::channel();
        marker
            .on_complete(move |result| tell.send(result.is_err()).unwrap())
            .unwrap();
        let blocked = {
            let marker = marker.clone();
            std::thread::spawn(move || marker.synchronize().unwrap_err())
        };
        gate.open();
        done(&before);
        fails(&marker, TEXT, 0);
        fails(&behind, TEXT, 1);
        fails(&on_host, TEXT, 1);
        // Only the device knows that it depends on the marker, and the device goes on.
        done(&reserved);
        assert!(told.recv_timeout(PATIENCE).unwrap());
        assert!(blocked.join().unwrap().to_string().contains(TEXT));
        assert!(log.read().unwrap().is_empty(), "the work that failed ran");
        assert!(stream.error().unwrap().to_string().contains(TEXT));
        assert!(matches!(
            metal::command_buffer(&stream).unwrap_err(),
            Error::StreamFailed { .. }
        ));
        for stream in [&stream, &other] {
            stream.clear_error().unwrap();
            work::append(stream, &log, 2).unwrap();
            stream.synchronize_timeout(PATIENCE).unwrap();
        }
        assert_eq!(log.read().unwrap(), [2, 2]);
        fails(&marker, TEXT, 0);
    });
}

/// The value that releases it would let those in between overtake the first.
#[test]
fn a_later_buffer_that_fails_first_releases_nobody_too_early() {
    with_gpu(|device, session| {
        let stream = device.new_stream().unwrap();
        let log = work::new_log(device).unwrap();
        let gate = work::gate(&stream).unwrap();
        session.fail_commit(3, TIMEOUT, TEXT);
        let mut markers = Vec::new();
        for token in 1..=4 {
            work::append(&stream, &log, token).unwrap();
            markers.push(stream.record().unwrap());
        }
        let (event, value) = metal::marker_as_raw(&markers[0]).unwrap();
        std::thread::sleep(Duration::from_millis(5));
        assert!(event.signaledValue() < value, "the gate holds all of them");
        gate.open();
        done(&markers[0]);
        done(&markers[1]);
        fails(&markers[2], TEXT, 0);
        fails(&markers[3], TEXT, 0);
        // Buffers that were committed behind the failure run, in their order.
        assert!(session.wait_idle(PATIENCE));
        assert_eq!(log.read().unwrap(), [1, 2, 4]);
    });
}

#[test]
fn a_buffer_that_fails_after_its_signal_has_failed_all_the_same() {
    with_gpu(|device, session| {
        let stream = device.new_stream().unwrap();
        // The blit, and the signal.
        session.fail_commit_after(1, 2, MTLCommandBufferError::PageFault, "page fault");
        let marker = stream.record_timed().unwrap();
        fails(&marker, "page fault", 0);
        assert!(marker.timestamp().is_err());
        stream.clear_error().unwrap();
        stream.synchronize_timeout(PATIENCE).unwrap();
    });
}

#[test]
fn the_first_of_several_failures_is_the_one_that_is_told() {
    with_gpu(|device, session| {
        let stream = device.new_stream().unwrap();
        session.pause_all();
        session.fail_commit(2, TIMEOUT, "the first");
        session.fail_commit(3, TIMEOUT, "the second");
        let markers: Vec<_> = (0..4).map(|_| stream.record_timed().unwrap()).collect();
        session.resume_all();
        done(&markers[0]);
        for marker in &markers[1..] {
            fails(marker, "the first", 0);
        }
    });
}

#[test]
fn a_failed_buffer_of_the_callers_fails_its_reservation() {
    with_gpu(|device, session| {
        let (stream, theirs) = (device.new_stream().unwrap(), Theirs::new(device));
        let buffer = theirs.buffer();
        theirs.fill(&buffer, 1);
        let reserved = metal::record_into(device, &buffer).unwrap();
        session.fail_commit(1, TIMEOUT, TEXT);
        buffer.commit();
        let marker = reserved.submitted();
        stream.wait(&marker).unwrap();
        let behind = stream.record_timed().unwrap();
        fails(&marker, TEXT, 0);
        fails(&behind, TEXT, 1);
        assert_eq!(theirs.value(), 0);
    });
}

#[test]
fn a_sandbox_without_shared_events_says_so() {
    let setup = Setup {
        shared_events: false,
        ..Setup::seeded(1)
    };
    with_setup(setup, |session| {
        let error = testing::metal::fresh(0).unwrap_err();
        assert!(error.to_string().contains("sandbox"), "{error}");
        session.shared_events(true);
        let device = testing::metal::fresh(0).unwrap();
        let stream = device.new_stream().unwrap();
        let theirs = Theirs::new(&device);
        session.shared_events(false);
        let buffer = theirs.buffer();
        for error in [
            device.new_stream().unwrap_err(),
            metal::record_into(&device, &buffer).unwrap_err(),
            work::gate(&stream).map(drop).unwrap_err(),
        ] {
            assert!(error.to_string().contains("newSharedEvent"), "{error}");
        }
        // A stream that has its event goes on.
        done(&stream.record_timed().unwrap());
    });
}

#[test]
fn a_queue_that_cannot_be_made_is_an_error() {
    with_gpu(|device, session| {
        session.fail_call("newCommandQueue", 1);
        let error = device.new_stream().unwrap_err();
        assert!(error.to_string().contains("drop streams"), "{error}");
        device.new_stream().unwrap().synchronize().unwrap();
    });
}

#[test]
fn a_refused_record_leaves_the_event_and_the_stream_as_they_were() {
    with_gpu(|device, session| {
        let other = device.new_stream().unwrap();
        let event = Event::with_timing(device);
        for call in [
            "commandBuffer",
            "newBufferWithLength:options:",
            "blitCommandEncoder",
        ] {
            let stream = device.new_stream().unwrap();
            let held = event.marker();
            let status = event.status().unwrap();
            session.fail_call(call, 1);
            let error = event.record(&stream).unwrap_err();
            assert!(matches!(error, Error::Backend { .. }), "{error:?}");
            assert!(error.to_string().contains("nil"), "{error}");
            assert_eq!((event.marker(), event.status().unwrap()), (held, status));
            session.clear_faults();
            // An earlier wait is not lost with the refused buffer.
            let gate = work::gate(&other).unwrap();
            stream.wait(&other.record().unwrap()).unwrap();
            session.fail_call("commandBuffer", 1);
            assert!(stream.record().is_err() && metal::command_buffer(&stream).is_ok());
            event.record(&stream).unwrap();
            assert_eq!(event.status().unwrap(), Status::Pending);
            gate.open();
            event.synchronize_timeout(PATIENCE).unwrap();
            assert!(stream.error().is_none());
        }
    });
}

#[test]
fn a_full_queue_is_an_error_and_never_blocks() {
    with_setup(Setup::seeded(fencepost_sim::seed_or(1)), |session| {
        let device = gpu();
        let (stream, other) = (device.new_stream().unwrap(), device.new_stream().unwrap());
        // The producer is not committed yet: the thread that commits it would block.
        let producer = metal::command_buffer(&other).unwrap();
        stream.wait(&other.record().unwrap()).unwrap();
        let mut markers = Vec::new();
        let error = loop {
            match stream.record_timed() {
                Ok(marker) => markers.push(marker),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, Error::WouldBlock { .. }), "{error:?}");
        assert!(markers.len() >= 64, "only {} fit", markers.len());
        assert!(error.to_string().contains("synchronize()"), "{error}");
        assert!(error.to_string().contains(&stream.to_string()), "{error}");
        let work = metal::command_buffer(&stream).unwrap_err();
        assert!(matches!(work, Error::WouldBlock { .. }), "{work:?}");
        assert_eq!(session.blocked(), 0);
        // Calls that need no command buffer work.
        let last = stream.record().unwrap();
        stream.wait(&other.record().unwrap()).unwrap();
        producer.commit();
        done(&last);
        done(&stream.record_timed().unwrap());
    });
}

#[test]
fn a_handler_may_come_after_everything_was_dropped() {
    with_gpu(|device, session| {
        session.pause_callbacks();
        let weak = {
            let stream = device.new_stream().unwrap();
            let event = Event::with_timing(device);
            event.record(&stream).unwrap();
            let marker = event.marker().unwrap();
            let (native, value) = metal::marker_as_raw(&marker).unwrap();
            drop(event);
            while native.signaledValue() < value {
                std::thread::yield_now();
            }
            assert!(!marker.query().unwrap(), "its handler has not come");
            marker
        };
        assert!(session.wait_idle(PATIENCE));
        assert!(session.paused_callbacks() > 0);
        drop(weak);
        session.resume_callbacks();
    });
}

#[test]
fn a_removed_device_releases_everyone_who_waits() {
    with_gpu(|device, session| {
        let (stream, other) = (device.new_stream().unwrap(), device.new_stream().unwrap());
        let early = stream.record_timed().unwrap();
        done(&early);
        let gate = work::gate(&stream).unwrap();
        let marker = stream.record_timed().unwrap();
        other.wait(&marker).unwrap();
        let behind = other.record_timed().unwrap();
        let second = testing::metal::fresh(1).unwrap();
        let there = second.new_stream().unwrap();
        there.wait(&marker).unwrap();
        let across = there.record_timed().unwrap();
        let blocked = {
            let marker = marker.clone();
            std::thread::spawn(move || marker.synchronize().unwrap_err())
        };
        let raw = metal::device_as_raw(device).unwrap();
        assert!(session.remove(&raw));
        let error = blocked.join().unwrap();
        assert!(matches!(error, Error::DeviceLost { .. }), "{error:?}");
        for marker in [&marker, &behind] {
            let error = marker.synchronize_timeout(PATIENCE).unwrap_err();
            assert!(matches!(error, Error::DeviceLost { .. }), "{error:?}");
            assert!(error.to_string().contains("removed"), "{error}");
        }
        fails(&across, "removed", 1);
        assert!(early.query().unwrap(), "a complete marker stays complete");
        for error in [
            stream.clear_error().unwrap_err(),
            device.new_stream().unwrap_err(),
            other.synchronize().unwrap_err(),
        ] {
            assert!(matches!(error, Error::DeviceLost { .. }), "{error:?}");
        }
        gate.open();
        // The other device works as before.
        there.clear_error().unwrap();
        done(&there.record_timed().unwrap());
    });
}

#[test]
fn the_end_of_buffers_of_which_one_fails_has_failed_and_releases_everyone() {
    with_gpu(|device, session| {
        for first_fails in [true, false] {
            let (stream, theirs) = (device.new_stream().unwrap(), Theirs::new(device));
            let (one, other) = (theirs.buffer(), theirs.buffer());
            for buffer in [&one, &other] {
                theirs.fill(buffer, 1);
            }
            let reserved = metal::record_end(device, &[&one, &other], None).unwrap();
            session.pause_all();
            if first_fails {
                session.fail_commit(1, TIMEOUT, TEXT);
            }
            one.commit();
            let marker = reserved.submitted();
            stream.wait(&marker).unwrap();
            let behind = stream.record_timed().unwrap();
            let buffer = theirs.buffer();
            metal::wait_into(&marker, &buffer).unwrap();
            let waits = metal::record_end(device, &[&buffer], None).unwrap();
            buffer.commit();
            let waits = waits.submitted();
            session.resume_all();
            is_pending(&waits);
            if !first_fails {
                session.fail_commit(1, TIMEOUT, TEXT);
            }
            other.commit();
            fails(&marker, TEXT, 0);
            fails(&behind, TEXT, 1);
            done(&waits);
            let refused = metal::record_end(device, &[&theirs.buffer()], Some(&marker));
            assert!(refused.unwrap_err().to_string().contains(TEXT));
        }
    });
}

#[test]
fn an_end_behind_one_that_fails_fails_with_it() {
    with_gpu(|device, session| {
        let theirs = Theirs::new(device);
        let (one, other) = (theirs.buffer(), theirs.buffer());
        session.fail_commit(1, TIMEOUT, TEXT);
        session.pause_all();
        let reserved = metal::record_end(device, &[&one], None).unwrap();
        one.commit();
        let marker = reserved.submitted();
        let reserved = metal::record_end(device, &[&other], Some(&marker)).unwrap();
        other.commit();
        let behind = reserved.submitted();
        session.resume_all();
        fails(&behind, TEXT, 1);
        fails(&marker, TEXT, 0);
    });
}
