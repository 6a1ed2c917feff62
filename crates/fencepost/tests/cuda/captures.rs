//! Streams that are captured into a graph.

use std::{
    future::{Future as _, IntoFuture},
    pin::Pin,
    sync::{Arc, mpsc},
    task,
    time::Duration,
};

use fencepost::{
    Device, Error, Event, Gate, Waitable, bindings,
    cuda::{self, RawEvent, RawEventOptions},
    measure, synchronize_all, synchronize_any,
    testing::{self, work},
};

use crate::{
    PATIENCE,
    bare::{Bare, Graph, Handle, make_current},
    gpu,
};

#[test]
fn a_capture_survives_everything_we_do_meanwhile() {
    let Some(gpu) = gpu() else { return };
    let device = &gpu.device;
    let (stream, joined, busy) = (
        device.new_stream().unwrap(),
        device.new_stream().unwrap(),
        device.new_stream().unwrap(),
    );
    // Its handle is known outside, so that the library looks for a capture.
    assert!(!cuda::stream_as_raw(&joined).unwrap().is_null());
    // A callback is pending on another stream meanwhile: the watcher queries its event.
    work::spin(&busy, 50_000_000).unwrap();
    let pending = busy.record().unwrap();
    let (tell, told) = mpsc::channel();
    pending
        .on_complete(move |result| tell.send(result.is_ok()).unwrap_or(()))
        .unwrap();
    let complete = busy.record().unwrap();
    let graph = Graph::capture(&stream, || {
        let inside = stream.record().unwrap();
        joined.wait(&inside).unwrap();
        work::spin(&joined, 1000).unwrap();
        stream.wait(&joined.record().unwrap()).unwrap();
        for error in [
            inside.query().unwrap_err(),
            inside.synchronize().unwrap_err(),
            inside.synchronize_timeout(PATIENCE).unwrap_err(),
            inside.on_complete(|_| {}).unwrap_err(),
        ] {
            assert!(matches!(error, Error::Captured { .. }), "{error:?}");
        }
        let start = stream.record_timed().unwrap();
        assert!(matches!(start.elapsed(&start), Err(Error::Captured { .. })));
        drop((inside, start));
        // On this thread and on others: queries, waits, records, new streams, events, drops.
        assert!(!pending.query().unwrap());
        let elsewhere = device.clone();
        std::thread::spawn(move || {
            let stream = elsewhere.new_stream().unwrap();
            let event = Event::with_timing(&elsewhere);
            event.record(&stream).unwrap();
            event.synchronize_timeout(PATIENCE).unwrap();
            event.record(&stream).unwrap();
            event.synchronize().unwrap();
            assert_eq!(event.elapsed_time(&event).unwrap(), 0.0);
        })
        .join()
        .unwrap();
        assert!(told.recv_timeout(PATIENCE).unwrap());
        complete.synchronize_timeout(PATIENCE).unwrap();
    });
    let Some(graph) = graph else {
        return println!("left out: the driver has no graphs");
    };
    for _ in 0..3 {
        graph.run();
    }
    stream.synchronize_timeout(PATIENCE).unwrap();
    let after = stream.record().unwrap();
    after.synchronize_timeout(PATIENCE).unwrap();
    assert!(after.query().unwrap());
}

#[test]
fn asking_and_marking_the_legacy_stream_breaks_no_capture() {
    let Some(gpu) = gpu() else { return };
    let device = &gpu.device;
    let bare = Bare::new();
    type Create = unsafe extern "system" fn(*mut Handle, u32) -> i32;
    let mut raw = std::ptr::null_mut();
    make_current(&bare);
    // The legacy default stream waits for a stream that is made without flags, and it for that.
    // SAFETY: an out-pointer to one handle.
    let code = unsafe { bare.find::<Create>("cuStreamCreate").unwrap()(&raw mut raw, 0) };
    assert_eq!(code, 0);
    // SAFETY: alive for ever, since nothing destroys it.
    let captured = unsafe { cuda::stream_from_raw(raw, Arc::new(())) }.unwrap();
    let (legacy, event) = (device.default_stream(), Event::new(device));
    let raw_event = RawEvent::new(device, RawEventOptions::default()).unwrap();
    // Loads the kernel.
    work::spin(&captured, 1000).unwrap();
    event.record(&legacy).unwrap();
    event.record(&legacy).unwrap();
    let graph = Graph::capture(&captured, || {
        work::spin(&captured, 1000).unwrap();
        for refused in [
            legacy.query().map(drop),
            legacy.record().map(drop),
            legacy.record_timed().map(drop),
            event.record(&legacy),
            legacy.synchronize(),
            legacy.synchronize_timeout(PATIENCE),
            raw_event.record(&legacy),
            raw_event.wait(&legacy),
            device.synchronize(),
        ] {
            let error = refused.unwrap_err();
            assert!(matches!(error, Error::Backend { .. }), "{error:?}");
            let text = error.to_string();
            assert!(text.contains("once the capture has ended"), "{text}");
        }
        assert!(legacy.error().is_none());
        assert!(event.query().is_ok(), "it holds what it held before");
    });
    if let Some(graph) = graph {
        graph.run();
    }
    legacy.synchronize_timeout(PATIENCE).unwrap();
    assert!(legacy.query().unwrap());
    captured.synchronize_timeout(PATIENCE).unwrap();
}

#[test]
fn a_wait_of_a_whole_device_breaks_no_capture() {
    let Some(gpu) = gpu() else { return };
    let device = &gpu.device;
    let [stream, producer, other] = [(); 3].map(|()| device.new_stream().unwrap());
    let event = Event::new(device);
    let gate = work::gate(&producer).unwrap();
    event.record(&producer).unwrap();
    let graph = Graph::capture(&stream, || {
        let refused = device.wait_event(&event).unwrap_err();
        assert!(matches!(refused, Error::Unsupported { .. }), "{refused:?}");
        assert!(refused.to_string().contains("captured into a graph"));
        // No stream was made to wait.
        other.synchronize_timeout(PATIENCE).unwrap();
    });
    let Some(graph) = graph else {
        return println!("left out: the driver has no graphs");
    };
    graph.run();
    device.wait_event(&event).unwrap();
    let behind = other.record().unwrap();
    assert!(!behind.query().unwrap());
    gate.open();
    behind.synchronize_timeout(PATIENCE).unwrap();
}

#[test]
fn waits_that_would_break_a_capture_are_refused() {
    let Some(gpu) = gpu() else { return };
    let device = testing::cuda::fresh(&gpu.device).unwrap();
    let [stream, joined, held, other] = [(); 4].map(|()| device.new_stream().unwrap());
    let gate = Gate::with_limit(&device, Duration::MAX).unwrap();
    let event = Event::new(&device);
    let stall = work::gate(&held).unwrap();
    event.record(&held).unwrap();
    let failed = Gate::new(&device).unwrap();
    failed.fail("the disk is full");
    let fails = device.new_stream().unwrap();
    failed.wait(&fails).unwrap();
    let mut markers = vec![fails.record().unwrap()];
    assert!(fails.synchronize_timeout(PATIENCE).is_err());
    markers.push(fails.record().unwrap());
    let refused = |result: fencepost::Result<()>| {
        let error = result.unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }), "{error:?}");
        assert!(error.to_string().contains("being captured"), "{error}");
    };
    let graph = Graph::capture(&stream, || {
        joined.wait(&stream.record().unwrap()).unwrap();
        for captured in [&stream, &joined] {
            refused(gate.wait(captured));
            refused(event.wait(captured));
            refused(failed.wait(captured));
            for marker in &markers {
                refused(captured.wait(marker));
            }
        }
        gate.wait(&other).unwrap();
        stream.wait(&joined.record().unwrap()).unwrap();
    });
    stall.open();
    gate.open();
    if let Some(graph) = graph {
        graph.run();
    }
    for stream in [&stream, &joined, &held, &other] {
        stream.synchronize_timeout(PATIENCE).unwrap();
    }
}

#[test]
fn measuring_a_captured_stream_is_refused_and_breaks_no_capture() {
    let Some(gpu) = gpu() else { return };
    let stream = gpu.device.new_stream().unwrap();
    let graph = Graph::capture(&stream, || {
        let mut calls = 0;
        let found = measure(&stream, || {
            calls += 1;
            Ok::<_, Error>(())
        });
        let error = found.unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }), "{error:?}");
        assert!(error.to_string().contains("being captured"), "{error}");
        assert_eq!(calls, 0);
    });
    if let Some(graph) = graph {
        graph.run();
    }
    stream.synchronize_timeout(PATIENCE).unwrap();
}

#[test]
fn a_wait_for_a_marker_of_a_capture_is_refused_when_it_is_made() {
    let Some(gpu) = gpu() else { return };
    let device = &gpu.device;
    let (stream, other) = (device.new_stream().unwrap(), device.new_stream().unwrap());
    let host = Device::new_host(1).new_stream().unwrap();
    let raw = RawEvent::new(device, RawEventOptions::default()).unwrap();
    let mut kept = None;
    let graph = Graph::capture(&stream, || {
        let inside = stream.record().unwrap();
        let refused = host.wait(&inside).unwrap_err();
        assert!(matches!(refused, Error::Captured { .. }), "{refused:?}");
        raw.record(&stream).unwrap();
        kept = Some(inside);
    });
    let (Some(graph), Some(inside)) = (graph, kept) else {
        return println!("left out: the driver has no graphs");
    };
    let mut awaited = (&raw).into_future();
    let looked = Pin::new(&mut awaited).poll(&mut task::Context::from_waker(task::Waker::noop()));
    let (tell, told) = mpsc::channel();
    raw.on_complete(move |result| tell.send(result).unwrap_or(()))
        .unwrap();
    for refused in [
        raw.query().unwrap_err(),
        raw.wait(&host).unwrap_err(),
        told.recv_timeout(PATIENCE).unwrap().unwrap_err(),
        match looked {
            task::Poll::Ready(result) => result.unwrap_err(),
            task::Poll::Pending => panic!("a raw event of a capture never completes"),
        },
    ] {
        assert!(matches!(refused, Error::Captured { .. }), "{refused:?}");
    }
    let refused = host.wait(&inside).unwrap_err();
    assert!(matches!(refused, Error::Captured { .. }), "{refused:?}");
    // Among many it is the one that ends the wait.
    let held = work::gate(&other).unwrap();
    let pending = other.record().unwrap();
    for one in [&inside as &dyn Waitable, &raw] {
        let (index, ended) = synchronize_any([&pending, one]).unwrap();
        assert_eq!(index, 1);
        assert!(matches!(ended, Err(Error::Captured { .. })), "{ended:?}");
        let all = synchronize_all([&pending, one]);
        assert!(matches!(all, Err(Error::Captured { .. })), "{all:?}");
    }
    held.open();
    for refused in [other.wait(&inside), other.wait_foreign(&inside)] {
        let refused = refused.unwrap_err();
        println!("{refused}");
        assert!(
            matches!(refused, Error::Captured { ended: true, .. }),
            "{refused:?}"
        );
        assert!(refused.to_string().contains("launch the graph"));
    }
    // None of the streams has failed.
    for stream in [&host, &other] {
        stream.synchronize_timeout(PATIENCE).unwrap();
    }
    graph.run();
    other.wait(&stream.record().unwrap()).unwrap();
    other.synchronize_timeout(PATIENCE).unwrap();
}

#[test]
fn external_events_time_the_inside_of_a_graph() {
    let Some(gpu) = gpu() else { return };
    let device = &gpu.device;
    let (stream, other) = (device.new_stream().unwrap(), device.new_stream().unwrap());
    let external = RawEventOptions::default().external(true);
    let timed = || RawEvent::new(device, external.timing(true)).unwrap();
    let (start, end) = (timed(), timed());
    let ready = RawEvent::new(device, external).unwrap();
    assert!(ready.query().unwrap(), "unrecorded, so nothing to wait for");
    let never = start.elapsed(&end).unwrap_err();
    assert!(matches!(never, Error::NotRecorded { .. }), "{never:?}");
    let untimed = start.elapsed(&ready).unwrap_err();
    assert!(
        matches!(untimed, Error::TimingDisabled { which: "end", .. }),
        "{untimed:?}"
    );
    let graph = Graph::capture(&stream, || {
        ready.wait(&stream).unwrap();
        start.record(&stream).unwrap();
        work::spin(&stream, 2_000_000).unwrap();
        end.record(&stream).unwrap();
        // An event that is not external belongs to the capture.
        assert!(matches!(
            stream.record().unwrap().query(),
            Err(Error::Captured { .. })
        ));
    });
    let Some(graph) = graph else {
        return println!("left out: the driver has no graphs");
    };
    let unlaunched = start.elapsed(&end).unwrap_err();
    assert!(
        matches!(
            unlaunched,
            Error::NotRecorded {
                which: "start",
                in_graph: true,
                ..
            }
        ) && unlaunched.to_string().contains("launch the graph first"),
        "{unlaunched:?}: {unlaunched}"
    );
    for _ in 0..3 {
        // Each run of the graph waits for the latest record outside of it.
        work::spin(&other, 5_000_000).unwrap();
        ready.record(&other).unwrap();
        graph.run();
        end.synchronize().unwrap();
        assert!(ready.query().unwrap(), "the graph did not wait");
        let took = start.elapsed(&end).unwrap();
        println!("the graph's inside took {took}");
        assert!(took.as_millis_f64() >= 1.9, "{took}");
    }
    // Outside of a capture they are recorded when the call is made.
    start.record(&stream).unwrap();
    end.record(&stream).unwrap();
    end.synchronize().unwrap();
    assert!(start.query().unwrap());
    assert!(!start.elapsed(&end).unwrap().is_negative());
}

#[test]
fn a_stream_is_wrapped_and_marked_inside_its_own_capture() {
    let Some(gpu) = gpu() else { return };
    let device = &gpu.device;
    let theirs = device.new_stream().unwrap();
    let raw = cuda::stream_as_raw(&theirs).unwrap();
    let external = RawEventOptions::default().timing(true).external(true);
    let [start, end] = [(); 2].map(|()| RawEvent::new(device, external).unwrap());
    let graph = Graph::capture(&theirs, || {
        // SAFETY: `theirs` owns it and is kept.
        let wrapped = unsafe { cuda::stream_from_raw(raw, Arc::new(theirs.clone())) }.unwrap();
        // SAFETY: the same.
        let number = unsafe { bindings::stream_number(raw) };
        assert_eq!(number, None, "asking would break the capture");
        start.record(&wrapped).unwrap();
        work::spin(&theirs, 1_000_000).unwrap();
        end.record(&wrapped).unwrap();
        let marker = wrapped.record().unwrap();
        assert!(matches!(marker.query(), Err(Error::Captured { .. })));
    });
    let Some(graph) = graph else {
        return println!("left out: the driver has no graphs");
    };
    graph.run();
    end.synchronize().unwrap();
    assert!(!start.elapsed(&end).unwrap().is_negative());
    // SAFETY: as above.
    let again = unsafe { cuda::stream_from_raw(raw, Arc::new(theirs.clone())) }.unwrap();
    assert_eq!(again, theirs, "known again once the capture is over");
}
