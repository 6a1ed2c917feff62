//! Raw events: native events for life, which others may record and wait for.

use std::{
    future::{Future as _, IntoFuture},
    sync::{Arc, Mutex, mpsc},
    task,
    time::{Duration, Instant},
};

use fencepost::{
    Device, Error, Event, Stream, WaitSet, Waitable, bindings,
    cuda::{self, RawEvent, RawEventOptions},
    synchronize_all_timeout,
    testing::work,
    trace::Trace,
};

use crate::{
    PATIENCE,
    bare::{Bare, Handle, make_current},
    common, gpu,
};

#[test]
fn a_raw_event_is_one_event_for_life() {
    let Some(gpu) = gpu() else { return };
    let stream = gpu.device.new_stream().unwrap();
    let timed = RawEventOptions::default().timing(true);
    let own = RawEvent::new(&gpu.device, timed.blocking_sync(true)).unwrap();
    assert!(own.query().unwrap());

    // The raw event of a marker.
    let event = Event::with_timing(&gpu.device);
    let gate = work::gate(&stream).unwrap();
    event.record(&stream).unwrap();
    let held = bindings::raw_event_of(&event.marker().unwrap()).unwrap();
    let raw = held.raw();
    assert!(!held.query().unwrap());
    assert!(matches!(
        own.elapsed(&held),
        Err(Error::NotRecorded { .. }) | Err(Error::NotReady { .. })
    ));
    own.record(&stream).unwrap();
    // Recorded again, the event takes another native event, because this one has an owner.
    event.record(&stream).unwrap();
    cuda::marker_as_raw(&event.marker().unwrap(), |other| assert_ne!(other, raw));
    gate.open();
    held.record(&stream).unwrap();
    held.synchronize().unwrap();
    own.synchronize().unwrap();
    assert!(own.elapsed(&held).unwrap().as_millis_f64() >= 0.0);
    drop(event);
    // No other marker gets the native event of that one.
    for _ in 0..100 {
        let marker = stream.record_timed().unwrap();
        cuda::marker_as_raw(&marker, |other| assert_ne!(other, raw));
        marker.synchronize().unwrap();
    }
}

#[test]
fn an_event_of_the_callers_own_is_adopted() {
    /// What destroys the event when it is dropped, and says so.
    struct Owner(usize, Bare, mpsc::Sender<()>);
    impl Drop for Owner {
        fn drop(&mut self) {
            type Destroy = unsafe extern "system" fn(Handle) -> i32;
            let destroy = self.1.find::<Destroy>("cuEventDestroy_v2").unwrap();
            let event = std::ptr::with_exposed_provenance_mut(self.0);
            // SAFETY: the event is alive, and nobody knows it any more.
            assert_eq!(unsafe { destroy(event) }, 0, "somebody else destroyed it");
            let _ = self.2.send(());
        }
    }
    let Some(gpu) = gpu() else { return };
    let (device, bare) = (&gpu.device, Bare::new());
    let (stream, host) = (
        device.new_stream().unwrap(),
        Device::open("host").unwrap().new_stream().unwrap(),
    );
    type Create = unsafe extern "system" fn(*mut Handle, u32) -> i32;
    type Record = unsafe extern "system" fn(Handle, Handle) -> i32;
    let create = bare.find::<Create>("cuEventCreate").unwrap();
    let record = bare.find::<Record>("cuEventRecord").unwrap();
    let timed = RawEventOptions::default().timing(true);
    let adopt = |tell: &mpsc::Sender<()>| {
        make_current(&bare);
        let mut handle = std::ptr::null_mut();
        // SAFETY: an out-pointer to one handle; 0 is an event with timing.
        assert_eq!(unsafe { create(&raw mut handle, 0) }, 0);
        let owner = Owner(handle.expose_provenance(), Bare::new(), tell.clone());
        // SAFETY: the event is alive while its owner is.
        let event = unsafe { RawEvent::from_raw(device, handle, timed, Arc::new(owner)) };
        event.unwrap()
    };
    let (tell, told) = mpsc::channel();
    let (start, end) = (adopt(&tell), adopt(&tell));
    assert!(start.query().unwrap());
    start.record(&stream).unwrap();
    let gate = work::gate(&stream).unwrap();
    // Somebody else records it.
    let raw = cuda::stream_as_raw(&stream).unwrap();
    // SAFETY: both are alive.
    assert_eq!(unsafe { record(end.raw(), raw) }, 0);
    assert!(!end.query().unwrap());
    end.wait(&host).unwrap();
    end.wait(&device.new_stream().unwrap()).unwrap();
    let behind = host.record().unwrap();
    assert!(!behind.query().unwrap());
    gate.open();
    end.synchronize().unwrap();
    behind.synchronize_timeout(PATIENCE).unwrap();
    assert!(start.elapsed(&end).unwrap().as_millis_f64() >= 0.0);
    // Its owner lives until the last wait is over.
    let gate = work::gate(&stream).unwrap();
    end.record(&stream).unwrap();
    let future = (&end).into_future();
    drop((start, end));
    told.recv_timeout(PATIENCE).unwrap();
    assert!(told.try_recv().is_err());
    gate.open();
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
        .unwrap();
    told.recv_timeout(PATIENCE).unwrap();

    let null = std::ptr::null_mut();
    // SAFETY: null is refused before it is used.
    let refused = unsafe { RawEvent::from_raw(device, null, timed, Arc::new(())) };
    assert!(refused.unwrap_err().to_string().contains("null"));
}

#[test]
fn a_raw_event_can_be_awaited() {
    let Some(gpu) = gpu() else { return };
    let stream = gpu.device.new_stream().unwrap();
    let event = RawEvent::new(&gpu.device, RawEventOptions::default()).unwrap();
    let (tell, told) = mpsc::channel();
    let callback = |number: u32| {
        let tell = tell.clone();
        event.on_complete(move |result| tell.send((number, result.is_ok())).unwrap())
    };
    // Never recorded, it counts as complete.
    callback(0).unwrap();
    assert_eq!(told.recv_timeout(PATIENCE), Ok((0, true)));

    let gate = work::gate(&stream).unwrap();
    event.record(&stream).unwrap();
    callback(1).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        // Dropped while pending: the others are not affected.
        for _ in 0..100 {
            let gives_up = tokio::time::timeout(Duration::from_millis(1), &event).await;
            assert!(gives_up.is_err());
        }
        let opens = async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            gate.open();
        };
        let (first, second, ()) = tokio::join!(&event, &event, opens);
        first.unwrap();
        second.unwrap();
        (&event).await.unwrap();
    });
    assert_eq!(told.recv_timeout(PATIENCE), Ok((1, true)));

    // Beside markers, in a set and in a list.
    let gate = work::gate(&stream).unwrap();
    event.record(&stream).unwrap();
    let mut set = WaitSet::new();
    set.insert("raw", &event);
    let timed_out = set.synchronize_next_timeout(Duration::from_millis(10));
    assert!(matches!(timed_out, Err(Error::Timeout(_))), "{timed_out:?}");
    let marker = stream.record().unwrap();
    set.insert("marker", &marker);
    gate.open();
    synchronize_all_timeout([&event as &dyn Waitable, &marker], PATIENCE).unwrap();
    let mut ended = Vec::new();
    while let Some((key, result)) = set.synchronize_next_timeout(PATIENCE).unwrap() {
        result.unwrap();
        ended.push(key);
    }
    ended.sort_unstable();
    assert_eq!(ended, ["marker", "raw"]);

    // The future keeps the native event until it is over.
    let gate = work::gate(&stream).unwrap();
    event.record(&stream).unwrap();
    let future = (&event).into_future();
    drop(event);
    let opens = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(10));
        gate.open();
    });
    runtime.block_on(future).unwrap();
    opens.join().unwrap();
}

/// To clone a waker runs code of its owner's, which may wait for what a look at the event wakes.
#[test]
fn a_waker_of_a_raw_event_is_cloned_without_a_lock() {
    use std::task::{Context, RawWaker, RawWakerVTable, Waker};

    /// What is done when the second waker is cloned.
    static ON_CLONE: Mutex<Option<Box<dyn FnOnce() + Send>>> = Mutex::new(None);
    static VTABLE: RawWakerVTable = RawWakerVTable::new(
        |data| {
            let on_clone = ON_CLONE.lock().unwrap().take();
            on_clone.into_iter().for_each(|call| call());
            RawWaker::new(data, &VTABLE)
        },
        |_| (),
        |_| (),
        |_| (),
    );
    struct Woken(mpsc::Sender<()>);
    impl task::Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.send(()).unwrap_or(());
        }
    }

    let Some(gpu) = gpu() else { return };
    let stream = gpu.device.new_stream().unwrap();
    let gate = work::gate(&stream).unwrap();
    let event = RawEvent::new(&gpu.device, RawEventOptions::default()).unwrap();
    event.record(&stream).unwrap();
    let mut future = Box::pin((&event).into_future());
    let (tell, told) = mpsc::channel();
    let first = Waker::from(Arc::new(Woken(tell)));
    assert!(
        future
            .as_mut()
            .poll(&mut Context::from_waker(&first))
            .is_pending()
    );
    *ON_CLONE.lock().unwrap() = Some(Box::new(move || {
        gate.open();
        told.recv_timeout(PATIENCE)
            .expect("the first waker is woken");
    }));
    // SAFETY: the functions use no data.
    let second = unsafe { Waker::from_raw(RawWaker::new(std::ptr::null(), &VTABLE)) };
    let polled = future.as_mut().poll(&mut Context::from_waker(&second));
    assert!(
        polled.is_ready(),
        "it was over when the waker had been cloned"
    );
}

/// Streams that cannot wait for a `CUevent` wait for a look at it.
#[test]
fn a_host_stream_waits_for_a_raw_event() {
    let Some(gpu) = gpu() else { return };
    let stream = gpu.device.new_stream().unwrap();
    let host = Device::open("host").unwrap().new_stream().unwrap();
    let event = RawEvent::new(&gpu.device, RawEventOptions::default()).unwrap();
    event.wait(&host).unwrap();
    host.synchronize_timeout(PATIENCE).unwrap();

    let gate = work::gate(&stream).unwrap();
    event.record(&stream).unwrap();
    let line = line!() + 1;
    event.wait(&host).unwrap();
    let (tell, told) = mpsc::channel();
    host.launch(move || tell.send(()).unwrap()).unwrap();
    let behind = host.record().unwrap();
    let error = behind
        .synchronize_timeout(Duration::from_millis(20))
        .unwrap_err();
    assert!(told.try_recv().is_err(), "it did not wait");
    let text = error.to_string();
    assert!(
        text.contains("raw event") && text.contains(&format!("raw_events.rs:{line}")),
        "{text}"
    );
    gate.open();
    told.recv_timeout(PATIENCE).unwrap();
    behind.synchronize_timeout(PATIENCE).unwrap();

    // A wait that is never come to leaves nothing behind, and the event may go first.
    let gate = work::gate(&stream).unwrap();
    event.record(&stream).unwrap();
    let hold = work::gate(&host).unwrap();
    event.wait(&host).unwrap();
    event.wait_foreign(&host).unwrap();
    drop(event);
    hold.open();
    gate.open();
    host.synchronize_timeout(PATIENCE).unwrap();
}

#[test]
fn a_wait_for_a_raw_event_is_an_arrow_in_a_trace() {
    let Some(gpu) = gpu() else { return };
    let stream = |device: &Device| device.new_stream().unwrap();
    let (load, compute) = (stream(&gpu.device), stream(&gpu.device));
    let host = stream(&Device::open("host").unwrap());
    let event = RawEvent::new(&gpu.device, RawEventOptions::default()).unwrap();
    let trace = Trace::new();
    // It was never recorded.
    event.wait(&load).unwrap();
    let span = |name, stream: &Stream| {
        trace.span(name, stream).end();
    };
    span("load", &load);
    event.record(&load).unwrap();
    span("next", &load);
    for (name, stream) in [("compute", &compute), ("host", &host)] {
        event.wait(stream).unwrap();
        span(name, stream);
        stream.synchronize_timeout(PATIENCE).unwrap();
    }
    // A stream that waits for itself is no arrow.
    event.wait(&load).unwrap();
    span("last", &load);
    // As a marker's event that is handed out.
    let raw = bindings::raw_event_of(&compute.record().unwrap()).unwrap();
    raw.wait(&load).unwrap();
    span("behind", &load);
    load.synchronize_timeout(PATIENCE).unwrap();
    let begin = Instant::now();
    while trace.collect().finished < 6 {
        assert!(begin.elapsed() < PATIENCE, "{}", trace.summary());
        std::thread::yield_now();
    }
    let mut arrows = arrows_of(&trace);
    arrows.sort_unstable();
    let arrows: Vec<_> = arrows.iter().map(|[from, to]| [&**from, &**to]).collect();
    let expected = [["compute", "behind"], ["load", "compute"], ["load", "host"]];
    assert_eq!(arrows, expected);
}

/// The names of the spans at both ends of each arrow of a trace.
fn arrows_of(trace: &Trace) -> Vec<[String; 2]> {
    let path = std::env::temp_dir().join(format!("fencepost-arrows-{}.json", std::process::id()));
    trace.save(&path).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let file: serde_json::Value = serde_json::from_str(&text).unwrap();
    let all = file["traceEvents"].as_array().unwrap();
    let of = |kind: &'static str| all.iter().filter(move |event| event["ph"] == kind);
    let name = |arrow: &serde_json::Value| {
        // In Chrome's format an arrow is on the span that begins at its time.
        let place = |event: &serde_json::Value| (event["tid"].clone(), event["ts"].clone());
        let slice = of("X").find(|slice| place(slice) == place(arrow));
        let slice = slice.unwrap_or_else(|| panic!("{arrow} is at no span: {text}"));
        slice["name"].as_str().unwrap().to_owned()
    };
    let pair = |from: &serde_json::Value| {
        let to = of("f").find(|to| to["id"] == from["id"]).unwrap();
        [name(from), name(to)]
    };
    of("s").map(pair).collect()
}

#[test]
fn an_event_is_shared_with_another_process() {
    let name = "raw_events::an_event_is_shared_with_another_process";
    if let Ok(handle) = std::env::var("FENCEPOST_TEST_HANDLE") {
        let bytes: Vec<u8> = (0..64)
            .map(|i| u8::from_str_radix(&handle[i * 2..i * 2 + 2], 16).unwrap())
            .collect();
        let device = Device::open("cuda:0").unwrap();
        let event = RawEvent::open(&device, bytes.as_slice().try_into().unwrap()).unwrap();
        println!("in the other process: complete {}", event.query().unwrap());
        let stream = device.new_stream().unwrap();
        event.wait(&stream).unwrap();
        stream.synchronize_timeout(PATIENCE).unwrap();
        assert!(event.query().unwrap());
        return;
    }
    let Some(gpu) = gpu() else { return };
    let device = &gpu.device;
    let stream = device.new_stream().unwrap();
    let options = RawEventOptions::default().interprocess(true);
    let event = match RawEvent::new(device, options) {
        Err(Error::Unsupported { .. }) => return println!("left out: not supported here"),
        event => event.unwrap(),
    };
    assert!(event.query().unwrap());
    let handle = match event.export() {
        Err(Error::Unsupported { .. }) => return println!("left out: not supported here"),
        handle => handle.unwrap(),
    };
    let own = RawEvent::open(device, &handle).unwrap_err();
    assert!(
        own.to_string().contains("process that exported it"),
        "{own}"
    );
    work::spin(&stream, 3_000_000_000).unwrap();
    event.record(&stream).unwrap();
    assert!(!event.query().unwrap());
    let text: String = handle.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut child = common::child(name);
    child.env("FENCEPOST_TEST_HANDLE", text);
    let status = common::run(child);
    assert!(status.success(), "{status}");
    event.synchronize().unwrap();
    drop(event);
    // The driver may give these bytes to another process's event.
    let gone = RawEvent::open(device, &handle);
    let refused = gone.map_or_else(|error| error.to_string(), |_| String::new());
    assert!(!refused.contains("process that exported it"), "{refused}");
}

#[test]
fn an_event_that_processes_cannot_share_is_refused_where_it_is_made() {
    let Some(gpu) = gpu() else { return };
    let shared = RawEventOptions::default().interprocess(true);
    let error = RawEvent::new(&gpu.device, shared.timing(true)).unwrap_err();
    assert!(error.to_string().contains("shares no time"), "{error}");
    if !common::is_child() {
        drop(gpu);
        let mut child = common::child(&common::test_name());
        // Only the stand-in knows it.
        child.env("FENCEPOST_SIM_CUDA_IPC", "0");
        let status = common::run(child);
        return assert!(status.success(), "{status}");
    }
    match RawEvent::new(&gpu.device, shared) {
        Err(Error::Unsupported { what, .. }) => assert!(what.contains("other processes"), "{what}"),
        other => assert!(
            std::env::var_os("FENCEPOST_CUDA_LIBRARY").is_none(),
            "the stand-in shares no events: {other:?}"
        ),
    }
}
