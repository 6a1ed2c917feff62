//! Failures that nobody asks for are told to the hook, once; those that somebody has seen are not.
//! The hook is the process's, so one test sets it.
#![cfg(not(loom))]

use std::{
    panic::resume_unwind,
    sync::mpsc::{self, Receiver},
    time::Duration,
};

use fencepost::{Device, Error, Event, Stream, trace::Trace};

mod common;

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

    // A trace that comes across it asks for nobody, and keeps nothing of it alive.
    let trace = Trace::new();
    let stream = failing(&device, "traced");
    trace.span("work", &stream).end();
    assert_eq!(trace.collect().failed, 1);
    drop(stream);
    assert!(next(&told).contains("traced"));
    drop(trace);

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

    // A hook that panics takes no other report with it.
    let (tell, told) = mpsc::channel();
    fencepost::set_unobserved_hook(move |error| {
        let text = error.to_string();
        assert!(!text.contains("is too much"));
        tell.send(text).unwrap();
    });
    let (go, held) = mpsc::channel::<()>();
    let marker = device.default_stream().record().unwrap();
    let waits = move |_| held.recv().unwrap();
    marker.on_complete(waits).unwrap();
    let panics = device.callback_panics();
    drop(failing(&device, "is too much"));
    drop(failing(&device, "is next"));
    // Both are lost before the first is told.
    go.send(()).unwrap();
    let next = told.recv_timeout(PATIENCE).expect("a report");
    assert!(next.contains("is next"), "{next}");
    assert_eq!(device.callback_panics(), panics + 1);
}

/// Without a hook one line goes to standard error, which nobody may be reading.
#[cfg(unix)]
mod by_default {
    use std::{
        io::{BufRead as _, BufReader, Read as _},
        process::{Child, Stdio},
    };

    use super::*;

    /// A process that runs the same test as a child.
    fn child(test: &str) -> Child {
        let mut child = common::child(&format!("by_default::{test}"));
        child.stdout(Stdio::piped()).stderr(Stdio::piped());
        child.spawn().unwrap()
    }

    /// A stream that has failed.
    fn fail(device: &Device) -> Stream {
        let stream = device.new_stream().unwrap();
        stream.try_launch(|| Err("told by default")).unwrap();
        let (skipped, is_skipped) = mpsc::channel::<()>();
        // An error where it has failed already.
        let _ = stream.launch(move || drop(skipped));
        assert!(is_skipped.recv_timeout(PATIENCE).is_err());
        stream
    }

    #[test]
    fn a_drop_does_not_wait_for_who_reads_standard_error() {
        if common::is_child() {
            fill_standard_error();
            drop(fail(&Device::new_host(2)));
            // Whatever thread writes it: this one goes on, and the process ends.
            println!("goes on");
            std::process::exit(0);
        }
        let mut child = child("a_drop_does_not_wait_for_who_reads_standard_error");
        let (tell, told) = mpsc::channel();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        std::thread::spawn(move || {
            lines
                .map_while(Result::ok)
                .filter(|line| line.contains("goes on"))
                .for_each(|_| tell.send(()).unwrap_or(()));
        });
        let told = told.recv_timeout(PATIENCE);
        if told.is_err() {
            child.kill().unwrap();
        }
        let status = child.wait().unwrap();
        assert!(told.is_ok() && status.success(), "{status}");
    }

    /// So that the next write to it blocks.
    fn fill_standard_error() {
        let block = |on: bool| {
            let flags = if on { 0 } else { libc::O_NONBLOCK };
            // SAFETY: sets flags of standard error.
            assert_eq!(unsafe { libc::fcntl(2, libc::F_SETFL, flags) }, 0);
        };
        block(false);
        let dots = [b'.'; 1];
        // SAFETY: one byte.
        while unsafe { libc::write(2, dots.as_ptr().cast(), 1) } == 1 {}
        block(true);
    }

    #[test]
    fn what_is_not_written_yet_is_written_when_the_process_ends() {
        if common::is_child() {
            let device = Device::new_host(1);
            // The thread that writes is held up, until the process ends.
            let (_never, held) = mpsc::channel::<()>();
            let marker = device.default_stream().record().unwrap();
            marker.on_complete(move |_| held.recv().unwrap()).unwrap();
            // The worker may let go of a stream only when it has gone on to the next.
            for _ in 0..20 {
                drop(fail(&device));
            }
            std::process::exit(0);
        }
        let mut child = child("what_is_not_written_yet_is_written_when_the_process_ends");
        let mut text = String::new();
        let mut errors = child.stderr.take().unwrap();
        errors.read_to_string(&mut text).unwrap();
        assert!(child.wait().unwrap().success());
        assert!(text.contains("told by default"), "{text}");
    }
}
