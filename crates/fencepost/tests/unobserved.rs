//! Failures that nobody asks for are told to the hook, once; those that somebody has seen are not.
//! The hook is the process's, so one test sets it.
#![cfg(not(loom))]

use std::{
    panic::resume_unwind,
    sync::mpsc::{self, Receiver},
    time::Duration,
};

use fencepost::{Device, Error, Event, Stream};

const PATIENCE: Duration = fencepost_sim::HANG_TIMEOUT;

/// A stream that has failed by `text`, which nobody has asked.
fn failing(device: &Device, text: &str) -> Stream {
    let stream = device.new_stream().unwrap();
    let text = text.to_owned();
    let (go, held) = mpsc::channel::<()>();
    let fails = move || {
        let _ = held.recv();
        resume_unwind(Box::new(text))
    };
    stream.launch(fails).unwrap();
    // What is behind the failure is dropped once the stream has failed.
    let (skipped, is_skipped) = mpsc::channel::<()>();
    stream.launch(move || drop(skipped)).unwrap();
    drop(go);
    assert!(is_skipped.recv_timeout(PATIENCE).is_err());
    stream
}

/// The next report.
fn next(told: &Receiver<Error>) -> String {
    let error = told.recv_timeout(PATIENCE).expect("a report");
    assert!(matches!(error, Error::StreamFailed { .. }), "{error:?}");
    error.to_string()
}

#[test]
fn a_failure_that_nobody_asks_for_is_reported_once() {
    let (tell, told) = mpsc::channel();
    fencepost::set_unobserved_hook(move |error| tell.send(error.clone()).unwrap());
    let device = Device::new_host(2);
    // A report that should not be is found in front of the next one that should.
    let nothing_before = |text: &str| {
        drop(failing(&device, text));
        let report = next(&told);
        assert!(report.contains(text), "{report}");
    };

    nothing_before("dropped");

    // Whoever has seen it in any way knows of it.
    let stream = failing(&device, "synchronized");
    assert!(stream.synchronize().is_err());
    drop(stream);
    let stream = failing(&device, "asked");
    assert!(stream.error().is_some());
    drop(stream);
    let stream = failing(&device, "called back");
    let (call, called) = mpsc::channel();
    let marker = stream.record().unwrap();
    let callback = move |result: fencepost::Result<()>| call.send(result.is_err()).unwrap();
    marker.on_complete(callback).unwrap();
    assert_eq!(called.recv_timeout(PATIENCE), Ok(true));
    drop((stream, marker));
    let stream = failing(&device, "an event's");
    let event = Event::new(&device);
    event.record(&stream).unwrap();
    assert!(event.synchronize_timeout(PATIENCE).is_err());
    drop((stream, event));
    nothing_before("after those that were seen");

    // A marker keeps it: it may still be asked.
    let stream = failing(&device, "kept by a marker");
    let marker = stream.record().unwrap();
    drop(stream);
    nothing_before("while a marker is kept");
    drop(marker);
    assert!(next(&told).contains("kept by a marker"));

    // Streams that inherit it are one report, and whoever sees it at any of them has seen it.
    for seen in [false, true] {
        let first = failing(&device, "inherited");
        let others = [(); 3].map(|()| device.new_stream().unwrap());
        for other in &others {
            other.wait(&first.record().unwrap()).unwrap();
        }
        drop(first);
        let failed = |stream: &Stream| stream.synchronize_timeout(PATIENCE).is_err();
        if seen {
            assert!(failed(&others[1]));
        }
        drop(others);
        if !seen {
            assert!(next(&told).contains("inherited"));
        }
        nothing_before("after those that were inherited");
    }

    // Who clears it knows of it.
    let stream = failing(&device, "cleared");
    stream.clear_error().unwrap();
    drop(stream);
    nothing_before("after one that was cleared");
}
