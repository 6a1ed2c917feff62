//! Tests of the CUDA backend. Without NVIDIA's driver: the error says so. With it: the conformance
//! suite, its mutants, and what belongs to CUDA alone.
//!
//! Without a device, tests that need one count as skipped.
#![cfg(all(feature = "cuda", not(loom)))]

use std::{
    future::{Future as _, IntoFuture},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    task,
    time::{Duration, Instant},
};

use fencepost::{
    Backend, Device, Error, Event, Gate, Marker, Status, Stream, WaitSet, Waitable, bindings,
    cuda::{self, RawEvent, RawEventOptions},
    measure,
    measure::Measure,
    synchronize_all, synchronize_all_timeout, synchronize_any,
    testing::{self, work},
    trace::Trace,
};

mod common;
#[path = "common/suite.rs"]
mod suite;

/// The first GPU, if there is one, for one test at a time: tests share its queues and context.
fn gpu() -> Option<Gpu> {
    static ONE: Mutex<()> = Mutex::new(());
    let alone = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    match suite::missing(Backend::Cuda) {
        Some(why) => {
            common::skip(&common::test_name(), &why);
            None
        }
        None => Some(Gpu {
            device: Device::open("cuda:0").unwrap(),
            _alone: alone,
        }),
    }
}

struct Gpu {
    device: Device,
    _alone: MutexGuard<'static, ()>,
}

const PATIENCE: Duration = fencepost_sim::HANG_TIMEOUT;

#[test]
fn without_a_driver_it_is_an_error_that_says_so() {
    suite::a_missing_driver_is_an_error_that_says_so(Backend::Cuda);
}

#[test]
fn a_library_that_is_no_driver_is_an_error() {
    suite::another_library_is_an_error(
        "a_library_that_is_no_driver_is_an_error",
        Backend::Cuda,
        "FENCEPOST_CUDA_LIBRARY",
        |text| text.contains("FENCEPOST_CUDA_LIBRARY") || text.contains("has no cuInit"),
    );
}

#[test]
fn a_gpu_keeps_every_promise() {
    let Some(gpu) = gpu() else { return };
    let device = &gpu.device;
    println!("{device} is {}", cuda::model(device).unwrap());
    // Under compute-sanitizer, destroying a stream waits for its work, which it does not otherwise.
    // The variable names the case about that, to leave it out.
    let without = std::env::var("FENCEPOST_TEST_WITHOUT").unwrap_or_default();
    let passed = suite::keeps_every_promise(device, |case| case.name == without);
    assert!(passed >= 80, "only {passed} cases ran");
}

/// In a process of its own: some mutants leave threads behind that hang, and streams that stay
/// stalled.
#[test]
fn every_mutant_dies_by_every_case_that_claims_it() {
    let Some(gpu) = gpu() else { return };
    common::in_a_process_of_its_own(|| {
        suite::every_mutant_dies("mutants-cuda", "Mutants of the CUDA backend", || {
            testing::cuda::fresh(&gpu.device).unwrap()
        });
    });
}

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
fn a_stream_wrapped_twice_is_the_same() {
    let Some(gpu) = gpu() else { return };
    let device = &gpu.device;
    let stream = device.new_stream().unwrap();
    let raw = cuda::stream_as_raw(&stream).unwrap();
    // SAFETY: the stream is kept alive by what is given along.
    let again = unsafe { cuda::stream_from_raw(raw, Arc::new(stream.clone())) }.unwrap();
    assert_eq!(again, stream);
    assert_eq!(again.device(), device);
    let other = device.new_stream().unwrap();
    assert_ne!(other, stream);
    assert!(cuda::stream_as_raw(&Device::open("host").unwrap().default_stream()).is_none());
}

#[test]
fn default_streams_are_told_apart() {
    let Some(gpu) = gpu() else { return };
    let device = &gpu.device;
    let legacy = device.default_stream();
    legacy
        .record()
        .unwrap()
        .synchronize_timeout(PATIENCE)
        .unwrap();
    let timed = (
        legacy.record_timed().unwrap(),
        legacy.record_timed().unwrap(),
    );
    timed.1.synchronize_timeout(PATIENCE).unwrap();
    assert!(!timed.0.elapsed(&timed.1).unwrap().is_negative());
}

#[test]
fn blocking_streams_synchronize() {
    let Some(gpu) = gpu() else { return };
    let device = &gpu.device;
    let options = cuda::StreamOptions::default().blocking_sync(true);
    let stream = cuda::new_stream(device, options).unwrap();
    for _ in 0..10 {
        let event = Event::new(device);
        event.record(&stream).unwrap();
        event.synchronize().unwrap();
        assert_eq!(event.status().unwrap(), Status::Complete);
    }
}

#[test]
fn a_fault_of_a_kernel_is_what_everyone_sees() {
    if gpu().is_none() {
        return;
    }
    common::in_a_process_of_its_own(|| {
        let device = Device::open("cuda:0").unwrap();
        let (stream, other) = (device.new_stream().unwrap(), device.new_stream().unwrap());
        let before = stream.record_timed().unwrap();
        before.synchronize_timeout(PATIENCE).unwrap();
        let waiting = other.record().unwrap();
        waiting.synchronize_timeout(PATIENCE).unwrap();
        testing::cuda::trap(&stream).unwrap();
        let after = stream.record().unwrap();
        let (tell, told) = mpsc::channel();
        after
            .on_complete(move |result| drop(tell.send(result)))
            .unwrap();
        let first = after.synchronize_timeout(PATIENCE).unwrap_err();
        assert!(matches!(first, Error::DeviceLost { .. }), "{first:?}");
        println!("said: {first}");
        let heard = told.recv_timeout(PATIENCE).unwrap().unwrap_err();
        assert_eq!(heard.to_string(), first.to_string());
        assert!(before.query().unwrap(), "complete markers stay complete");
        for error in [
            other
                .record()
                .and_then(|marker| marker.synchronize())
                .unwrap_err(),
            device.new_stream().unwrap_err(),
            stream.clear_error().unwrap_err(),
            device.synchronize().unwrap_err(),
            stream.error().unwrap(),
        ] {
            assert!(matches!(error, Error::DeviceLost { .. }), "{error:?}");
            assert_eq!(error.cause().unwrap().root(), first.cause().unwrap().root());
        }
    });
}

#[test]
fn a_full_queue_blocks_in_the_driver_and_under_no_lock_of_ours() {
    let Some(gpu) = gpu() else { return };
    let device = &gpu.device;
    let host = Device::new_host(1).new_stream().unwrap();
    let stream = device.new_stream().unwrap();
    let (event, complete) = (Event::new(device), Event::new(device));
    complete.record(&stream).unwrap();
    complete.synchronize().unwrap();
    // A host stream holds it and goes on by itself: a driver that blocks may hold a lock of its
    // own, so that calls of other threads block too, also those of this one.
    let (answered, wait) = mpsc::channel::<()>();
    host.launch(move || wait.recv_timeout(Duration::from_secs(5)).unwrap_or(()))
        .unwrap();
    stream.wait_foreign(&host.record().unwrap()).unwrap();
    event.record(&stream).unwrap();
    let recorder = stream.clone();
    let thread = std::thread::spawn(move || {
        for _ in 0..3000 {
            recorder.record_timed().unwrap();
        }
    });
    std::thread::sleep(Duration::from_millis(300));
    let start = Instant::now();
    let progress = stream.progress();
    assert!(complete.query().unwrap());
    complete.wait(&stream).unwrap();
    assert!(event.marker().is_some());
    let ours = start.elapsed();
    println!("{progress:?} with the queue full; calls without the driver took {ours:?}");
    assert!(progress.recorded > progress.completed);
    let other = device.new_stream().unwrap();
    println!("a new stream took {:?}", start.elapsed() - ours);
    other
        .record()
        .unwrap()
        .synchronize_timeout(PATIENCE)
        .unwrap();
    println!("its record took {:?}", start.elapsed() - ours);
    drop(answered);
    thread.join().unwrap();
    stream.synchronize_timeout(PATIENCE).unwrap();
    event.synchronize().unwrap();
    // The stand-in's queue has no end. docs/measurements says what the driver does.
    assert!(stream.progress().completed >= 3000);
}

/// The driver's functions that tests call themselves, apart from the library under test.
struct Bare(libloading::Library);

impl Bare {
    fn new() -> Bare {
        let name = std::env::var_os("FENCEPOST_CUDA_LIBRARY").unwrap_or("libcuda.so.1".into());
        // SAFETY: the driver, which the library under test has loaded already.
        Bare(unsafe { libloading::Library::new(name) }.unwrap())
    }

    /// The function of this name, with this C signature; `None` if the library has none.
    fn find<T: Copy>(&self, name: &str) -> Option<T> {
        // SAFETY: each caller names the signature of the driver's reference.
        unsafe { self.0.get::<T>(name.as_bytes()) }
            .ok()
            .map(|found| *found)
    }
}

type Handle = *mut std::ffi::c_void;

/// A stream's work, captured into a graph.
struct Graph {
    ready: Handle,
    stream: Handle,
    launch: unsafe extern "system" fn(Handle, Handle) -> i32,
}

impl Graph {
    /// Captures what `work` submits to `stream`, in the global mode, which an unsafe call of any
    /// thread breaks. `None` if the driver has no graphs.
    fn capture(stream: &Stream, work: impl FnOnce()) -> Option<Graph> {
        let bare = Bare::new();
        type Begin = unsafe extern "system" fn(Handle, u32) -> i32;
        type End = unsafe extern "system" fn(Handle, *mut Handle) -> i32;
        type Instantiate = unsafe extern "system" fn(*mut Handle, Handle, u64) -> i32;
        let begin = bare.find::<Begin>("cuStreamBeginCapture_v2")?;
        let end = bare.find::<End>("cuStreamEndCapture")?;
        let instantiate = bare.find::<Instantiate>("cuGraphInstantiateWithFlags")?;
        let launch = bare.find("cuGraphLaunch")?;
        let stream = cuda::stream_as_raw(stream).unwrap();
        // SAFETY: the stream is alive; 0 is the global mode.
        assert_eq!(unsafe { begin(stream, 0) }, 0);
        work();
        let (mut graph, mut ready) = (std::ptr::null_mut(), std::ptr::null_mut());
        make_current(&bare);
        // SAFETY: out-pointers to handles; the stream is alive. Making a graph ready needs a
        // current context, which there is.
        unsafe {
            assert_eq!(
                end(stream, &raw mut graph),
                0,
                "something broke the capture"
            );
            assert_eq!(instantiate(&raw mut ready, graph, 0), 0);
        }
        Some(Graph {
            ready,
            stream,
            launch,
        })
    }

    fn run(&self) {
        // SAFETY: both are alive: nothing destroys them.
        assert_eq!(unsafe { (self.launch)(self.ready, self.stream) }, 0);
    }
}

/// Makes the first device's primary context current in this thread.
fn make_current(bare: &Bare) {
    type Retain = unsafe extern "system" fn(*mut Handle, i32) -> i32;
    type SetCurrent = unsafe extern "system" fn(Handle) -> i32;
    let retain = bare.find::<Retain>("cuDevicePrimaryCtxRetain").unwrap();
    let set_current = bare.find::<SetCurrent>("cuCtxSetCurrent").unwrap();
    let mut context = std::ptr::null_mut();
    // SAFETY: an out-pointer to one handle, which is alive from then on.
    unsafe {
        assert_eq!(retain(&raw mut context, 0), 0);
        assert_eq!(set_current(context), 0);
    }
}

/// The context that is current in this thread, as a number.
fn current_context(bare: &Bare) -> usize {
    type Current = unsafe extern "system" fn(*mut Handle) -> i32;
    let mut context = std::ptr::null_mut();
    // SAFETY: an out-pointer to one handle.
    let code = unsafe { bare.find::<Current>("cuCtxGetCurrent").unwrap()(&raw mut context) };
    assert_eq!(code, 0);
    context.addr()
}

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

#[test]
fn a_dropped_stream_is_used_again_once_its_work_is_done() {
    let Some(gpu) = gpu() else { return };
    let device = &gpu.device;
    // More than other tests can have left idle, and all busy.
    let busy: Vec<Stream> = (0..20).map(|_| device.new_stream().unwrap()).collect();
    let gate = work::gate(&busy[0]).unwrap();
    let opened = busy[0].record().unwrap();
    for stream in &busy {
        stream.wait(&opened).unwrap();
    }
    let handles: Vec<Handle> = busy.iter().filter_map(cuda::stream_as_raw).collect();
    let last = busy[19].record().unwrap();
    drop(busy);
    for _ in 0..20 {
        let fresh = device.new_stream().unwrap();
        assert!(!handles.contains(&cuda::stream_as_raw(&fresh).unwrap()));
        fresh.synchronize_timeout(PATIENCE).unwrap();
    }
    gate.open();
    last.synchronize_timeout(PATIENCE).unwrap();
    device.synchronize().unwrap();
    let mut again = 0;
    let streams: Vec<Stream> = (0..20).map(|_| device.new_stream().unwrap()).collect();
    for stream in &streams {
        again += usize::from(handles.contains(&cuda::stream_as_raw(stream).unwrap()));
        stream.synchronize_timeout(PATIENCE).unwrap();
    }
    println!("{again} of 20 streams were used again");
    assert!(again > 0);
}

#[test]
fn each_thread_has_its_own_default_stream() {
    let Some(gpu) = gpu() else { return };
    let device = &gpu.device;
    const PER_THREAD: usize = 2;
    let wrapped = || {
        make_current(&Bare::new());
        // SAFETY: a handle that is always good, in the context just made current.
        unsafe { cuda::stream_from_raw(std::ptr::without_provenance_mut(PER_THREAD), Arc::new(())) }
            .unwrap()
    };
    let mine = wrapped();
    assert_eq!(mine.device(), device);
    assert_ne!(mine, device.default_stream());
    assert_eq!(mine, wrapped(), "the same stream once more");
    assert_eq!(mine, cuda::per_thread_stream(device).unwrap());
    if let Ok(second) = Device::open("cuda:1") {
        let before = current_context(&Bare::new());
        let theirs = cuda::per_thread_stream(&second).unwrap();
        theirs.synchronize_timeout(PATIENCE).unwrap();
        assert_eq!(theirs.device(), &second);
        assert_ne!(theirs, second.default_stream());
        assert_eq!(current_context(&Bare::new()), before);
    }
    let (ready, go) = (mpsc::channel(), mpsc::channel());
    std::thread::scope(|scope| {
        let (mine, tell, taken) = (&mine, ready.0, go.1);
        let thread = scope.spawn(move || {
            // Before any stream is stalled: a driver may block a thread's first use of its own
            // stream while one is.
            let theirs = wrapped();
            assert_ne!(theirs, *mine);
            tell.send(()).unwrap();
            let (held, gate): (Marker, work::Gate) = taken.recv().unwrap();
            // Here the handle means another stream, so the other thread's wrapper is refused…
            let refused = mine.record().unwrap_err();
            assert!(matches!(refused, Error::Unsupported { .. }), "{refused:?}");
            // …and this thread's own is not held up by it.
            theirs.synchronize_timeout(PATIENCE).unwrap();
            // Any thread may use a marker.
            assert!(!held.query().unwrap());
            theirs.wait(&held).unwrap();
            let behind = theirs.record().unwrap();
            assert!(!behind.query().unwrap());
            gate.open();
            behind.synchronize_timeout(PATIENCE).unwrap();
            assert!(held.query().unwrap());
        });
        ready.1.recv().unwrap();
        let gate = work::gate(mine).unwrap();
        go.0.send((mine.record().unwrap(), gate)).unwrap();
        thread.join().unwrap();
    });
}

#[test]
fn a_context_of_the_callers_own_is_a_device_of_its_own() {
    let Some(gpu) = gpu() else { return };
    let bare = Bare::new();
    type CtxCreate = unsafe extern "system" fn(*mut Handle, u32, i32) -> i32;
    type StreamCreate = unsafe extern "system" fn(*mut Handle, u32) -> i32;
    let create = bare.find::<CtxCreate>("cuCtxCreate_v2").unwrap();
    let new_stream = bare.find::<StreamCreate>("cuStreamCreate").unwrap();
    type Retain = unsafe extern "system" fn(*mut Handle, i32) -> i32;
    let retain = bare.find::<Retain>("cuDevicePrimaryCtxRetain").unwrap();
    let [mut context, mut primary, mut raw] = [std::ptr::null_mut(); 3];
    // SAFETY: out-pointers to one handle each. Creating a context makes it current.
    unsafe {
        assert_eq!(create(&raw mut context, 0, 0), 0);
        assert_eq!(retain(&raw mut primary, 0), 0);
        assert_eq!(new_stream(&raw mut raw, 1), 0);
    }
    // SAFETY: the stream and its context live as long as the process.
    let stream = unsafe { cuda::stream_from_raw(raw, Arc::new(())) }.unwrap();
    let device = stream.device().clone();
    println!("{device} beside {}", gpu.device);
    assert_ne!(device, gpu.device);
    // SAFETY: the contexts live as long as the process.
    let from_raw = |context| unsafe { cuda::device_from_raw(context, Arc::new(())) };
    assert_eq!(from_raw(context).unwrap(), device);
    assert_eq!(from_raw(primary).unwrap(), Device::open("cuda:0").unwrap());
    let null = from_raw(std::ptr::null_mut()).unwrap_err();
    assert!(matches!(null, Error::Unsupported { .. }), "{null:?}");
    let (start, end) = (Event::with_timing(&device), Event::with_timing(&device));
    start.record(&stream).unwrap();
    work::spin(&stream, 1_000_000).unwrap();
    end.record(&stream).unwrap();
    end.synchronize_timeout(PATIENCE).unwrap();
    assert!(start.elapsed_time(&end).unwrap() >= 0.9);
    // Its events do not belong to the primary context, whose streams may wait for its markers.
    let mixed = start.record(&gpu.device.default_stream()).unwrap_err();
    assert!(matches!(mixed, Error::DeviceMismatch { .. }), "{mixed:?}");
    let primary = gpu.device.new_stream().unwrap();
    let gate = work::gate(&stream).unwrap();
    primary.wait(&stream.record().unwrap()).unwrap();
    let behind = primary.record().unwrap();
    assert!(!behind.query().unwrap());
    gate.open();
    behind.synchronize_timeout(PATIENCE).unwrap();
    // Its own streams may wait for markers of the primary context too.
    let own = device.new_stream().unwrap();
    own.wait(&primary.record().unwrap()).unwrap();
    own.synchronize_timeout(PATIENCE).unwrap();
}

#[test]
fn a_fault_of_one_gpu_reaches_the_streams_of_another_that_wait_for_it() {
    let name = "a_fault_of_one_gpu_reaches_the_streams_of_another_that_wait_for_it";
    if gpu().is_none() {
        return;
    }
    let Ok(second) = Device::open("cuda:1") else {
        return common::skip(name, "there is one GPU");
    };
    common::in_a_process_of_its_own(|| {
        let first = Device::open("cuda:0").unwrap();
        let (faulty, waiting) = (first.new_stream().unwrap(), second.new_stream().unwrap());
        let before = waiting.record().unwrap();
        before.synchronize_timeout(PATIENCE).unwrap();
        work::spin(&faulty, 50_000_000).unwrap();
        testing::cuda::trap(&faulty).unwrap();
        waiting.wait(&faulty.record().unwrap()).unwrap();
        let behind = waiting.record().unwrap();
        // No call is made on the first GPU.
        let error = behind.synchronize_timeout(PATIENCE).unwrap_err();
        println!("said: {error}");
        assert!(error.cause().is_some(), "{error:?}");
        assert!(before.query().unwrap());
        waiting.synchronize_timeout(PATIENCE).unwrap_err();
        // The driver decides whether the second GPU still works. Driver 580 on H200s ends the
        // contexts of all GPUs; CUDA's documentation promises neither.
        let again = waiting
            .clear_error()
            .and_then(|()| waiting.synchronize_timeout(PATIENCE));
        println!("the second GPU afterwards: {again:?}");
        assert!(
            matches!(again, Ok(()) | Err(Error::DeviceLost { .. })),
            "{again:?}"
        );
    });
}

#[test]
fn an_event_is_shared_with_another_process() {
    let name = "an_event_is_shared_with_another_process";
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

#[test]
fn a_context_reset_under_our_feet_is_an_error() {
    if gpu().is_none() {
        return;
    }
    common::in_a_process_of_its_own(|| {
        let device = Device::open("cuda:0").unwrap();
        let (stream, event) = (device.new_stream().unwrap(), Event::new(&device));
        event.record(&stream).unwrap();
        stream.synchronize().unwrap();
        let pending = stream.record().unwrap();
        type Reset = unsafe extern "system" fn(i32) -> i32;
        let Some(reset) = Bare::new().find::<Reset>("cuDevicePrimaryCtxReset_v2") else {
            return println!("left out: the driver has no reset");
        };
        // SAFETY: takes a device's number. Nothing of ours runs on the device.
        assert_eq!(unsafe { reset(0) }, 0);
        let fresh = Event::new(&device);
        for (what, result) in [
            ("query", pending.query().map(drop)),
            ("synchronize", pending.synchronize()),
            (
                "record",
                stream.record().and_then(|marker| marker.synchronize()),
            ),
            (
                "record again",
                event.record(&stream).and_then(|()| event.synchronize()),
            ),
            (
                "a new event's record",
                fresh.record(&stream).and_then(|()| fresh.synchronize()),
            ),
            ("new stream", device.new_stream().map(drop)),
            ("default stream", device.default_stream().synchronize()),
            ("device", device.synchronize()),
        ] {
            println!("{what}: {result:?}");
            let error = result.unwrap_err();
            assert!(
                matches!(error, Error::DeviceLost { .. }),
                "{what}: {error:?}"
            );
        }
        drop((stream, event, pending, fresh, device));
    });
}

#[test]
fn an_idle_stream_says_so_at_once() {
    let Some(gpu) = gpu() else { return };
    let stream = gpu.device.new_stream().unwrap();
    let gate = work::gate(&stream).unwrap();
    assert!(!stream.query().unwrap());
    gate.open();
    stream.synchronize().unwrap();
    let before = stream.progress().recorded;
    assert!(stream.query().unwrap());
    assert_eq!(stream.progress().recorded, before, "no marker was needed");
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
        text.contains("raw event") && text.contains(&format!("cuda.rs:{line}")),
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

/// How often an operation calls each function of the driver; those that it does not call are left
/// out.
#[cfg(target_os = "linux")]
fn calls_of(
    control: &fencepost_sim_cuda::Control,
    operation: &dyn Fn(),
) -> Vec<(&'static str, u64)> {
    const FUNCTIONS: [&str; 18] = [
        "cuCtxGetCurrent",
        "cuCtxGetId",
        "cuCtxPopCurrent_v2",
        "cuCtxPushCurrent_v2",
        "cuDevicePrimaryCtxGetState",
        "cuEventCreate",
        "cuEventDestroy_v2",
        "cuEventElapsedTime_v2",
        "cuEventQuery",
        "cuEventRecord",
        "cuEventRecordWithFlags",
        "cuEventSynchronize",
        "cuStreamGetCtx",
        "cuStreamGetId",
        "cuStreamIsCapturing",
        "cuStreamQuery",
        "cuStreamWaitEvent",
        "cuThreadExchangeStreamCaptureMode",
    ];
    // The first call creates what later ones use.
    operation();
    let before = FUNCTIONS.map(|name| control.calls(name));
    operation();
    let counts = FUNCTIONS.iter().zip(before);
    counts
        .map(|(name, before)| (*name, control.calls(name) - before))
        .filter(|(_, count)| *count > 0)
        .collect()
}

#[test]
fn a_process_may_end_with_anything_pending() {
    if gpu().is_some() {
        suite::a_process_may_end_with_anything_pending("cuda:0");
    }
}

#[test]
fn a_process_may_end_with_a_closed_gate() {
    // The child opens no device before it has its own exit handler.
    if common::is_child() || gpu().is_some() {
        suite::a_process_may_end_with_a_closed_gate("cuda:0", true);
    }
}

/// On a real driver, too: it is initialised in the parent.
#[cfg(unix)]
#[test]
fn a_forked_child_is_told_so_and_may_drop_everything() {
    if gpu().is_none() {
        return;
    }
    static RAW: std::sync::OnceLock<RawEvent> = std::sync::OnceLock::new();
    static COMPLETE: std::sync::OnceLock<[Event; 2]> = std::sync::OnceLock::new();
    if common::is_child() {
        let device = Device::open("cuda:0").unwrap();
        let complete = [(); 2].map(|()| Event::with_timing(&device));
        for event in &complete {
            event.record(&device.default_stream()).unwrap();
            event.synchronize().unwrap();
        }
        complete[0].elapsed(&complete[1]).unwrap();
        COMPLETE.set(complete).unwrap();
        let raw = RawEvent::new(&device, RawEventOptions::default().timing(true)).unwrap();
        raw.record(&device.default_stream()).unwrap();
        RAW.set(raw).unwrap();
    }
    suite::a_forked_child_is_told_so("cuda:0", |device, _| {
        let (raw, stream) = (RAW.get().unwrap(), device.default_stream());
        let [start, end] = COMPLETE.get().unwrap();
        let options = RawEventOptions::default;
        let results = [
            (
                "cuda::new_stream",
                cuda::new_stream(device, Default::default()).map(drop),
            ),
            ("cuda::model", cuda::model(device).map(drop)),
            ("RawEvent::new", RawEvent::new(device, options()).map(drop)),
            ("RawEvent::open", RawEvent::open(device, &[1; 64]).map(drop)),
            ("RawEvent::record", raw.record(&stream)),
            ("RawEvent::wait", raw.wait(&stream)),
            ("RawEvent::query", raw.query().map(drop)),
            ("RawEvent::synchronize", raw.synchronize()),
            ("RawEvent::elapsed", raw.elapsed(raw).map(drop)),
            ("RawEvent::export", raw.export().map(drop)),
            ("elapsed, complete", start.elapsed(end).map(drop)),
            ("elapsed_time, complete", start.elapsed_time(end).map(drop)),
            // SAFETY: refused before the handle is looked at; it stands for the default stream.
            ("stream_from_raw", unsafe {
                cuda::stream_from_raw(std::ptr::null_mut(), Arc::new(())).map(drop)
            }),
        ];
        let told = |(call, result): &(&str, fencepost::Result<()>)| {
            let is_told = matches!(result, Err(Error::Forked { .. }));
            if !is_told {
                eprintln!("{call} in a forked child: {result:?}");
            }
            is_told
        };
        // How many there are is known, and asking is no use of the driver.
        let listed = Device::list();
        let count = |found: &fencepost::Found| found.devices.len();
        results.iter().all(told) && listed.iter().map(count).sum::<usize>() > 1
    });
}

/// Which GPUs there are is asked of NVML, where that can tell. A scenario is how many GPUs are
/// shown, and how often the driver is initialised for that.
#[cfg(target_os = "linux")]
#[test]
fn asking_leaves_a_forked_child_the_driver() {
    let library = std::env::var_os("FENCEPOST_CUDA_LIBRARY");
    let is_stand_in =
        |path: &std::ffi::OsString| fencepost_sim_cuda::Control::load(path.as_ref()).is_ok();
    let Some(library) = library.filter(is_stand_in) else {
        return common::skip(
            &common::test_name(),
            "FENCEPOST_CUDA_LIBRARY names no stand-in for the CUDA driver",
        );
    };
    let found = || {
        let cuda = |found: &fencepost::Found| found.backend == Backend::Cuda;
        Device::list().into_iter().find(cuda).unwrap()
    };
    let Ok(scenario) = std::env::var("FENCEPOST_TEST_SCENARIO") else {
        for (scenario, variable, value) in [
            ("2 0", "UNUSED", ""),
            ("1 0", "CUDA_VISIBLE_DEVICES", "1"),
            (
                "1 0",
                "CUDA_VISIBLE_DEVICES",
                "GPU-66656e63-6570-6f73-742d-73696d000001",
            ),
            ("0 0", "CUDA_VISIBLE_DEVICES", "-1"),
            // The stand-in for the driver shows both, whatever this says.
            ("2 1", "CUDA_VISIBLE_DEVICES", "MIG-1"),
            ("2 1", "FENCEPOST_SIM_CUDA_MIG", "1"),
            (
                "2 1",
                "FENCEPOST_NVML_LIBRARY",
                "/nowhere/libnvidia-ml.so.1",
            ),
        ] {
            let mut child = common::child(&common::test_name());
            child
                .env("FENCEPOST_NVML_LIBRARY", &library)
                .env("FENCEPOST_TEST_SCENARIO", scenario)
                .env(variable, value);
            assert!(common::run(child).success(), "{variable}={value}");
        }
        return;
    };
    let control = fencepost_sim_cuda::Control::load(library.as_ref()).unwrap();
    let (shown, initialised) = scenario.split_once(' ').unwrap();
    let before = control.calls("cuInit");
    assert_eq!(found().devices.len().to_string(), shown);
    assert!(Device::open("toaster").is_err() && Device::open("cuda:x").is_err());
    assert_eq!((control.calls("cuInit") - before).to_string(), initialised);
    if shown == "0" {
        return;
    }
    // SAFETY: the child calls nothing but this crate, which is what is tested, and _exit.
    match unsafe { libc::fork() } {
        0 => {
            let opened = Device::open("cuda:0").and_then(|device| {
                let stream = device.new_stream()?;
                stream.record()?.synchronize_timeout(PATIENCE)
            });
            let good = match initialised {
                "0" => opened.is_ok(),
                _ => matches!(opened, Err(Error::Forked { .. })),
            };
            if !good {
                eprintln!("{opened:?}");
            }
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(i32::from(!good)) }
        }
        child => {
            let mut status = -1;
            // SAFETY: a child of ours; `status` is an int.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            assert_eq!(status, 0, "the child's checks failed");
        }
    }
}

/// The host takes the place of no driver that is there and fails.
#[test]
fn a_driver_that_fails_is_an_error_and_not_the_host() {
    let library = std::env::var_os("FENCEPOST_CUDA_LIBRARY");
    let control = library
        .as_ref()
        .and_then(|library| fencepost_sim_cuda::Control::load(library.as_ref()).ok());
    let Some(control) = control else {
        return common::skip(
            &common::test_name(),
            "FENCEPOST_CUDA_LIBRARY names no stand-in for the CUDA driver",
        );
    };
    if common::is_child() {
        let code = match std::env::var("FENCEPOST_TEST_SCENARIO").as_deref() {
            Ok("no GPU") => 100,
            _ => 999,
        };
        control.fail_call("cuInit", 1, code);
        let opened = Device::open_best();
        println!("opened: {opened:?}");
        if code == 100 {
            assert_ne!(opened.unwrap().backend(), Backend::Cuda);
            return;
        }
        let Err(Error::Unavailable { device, why, .. }) = opened else {
            panic!("a driver that fails is told");
        };
        assert_eq!(device, "cuda");
        assert!(why.contains("cuInit") && why.contains("999"), "{why}");
        // The failure is not remembered.
        assert_eq!(Device::open_best().unwrap().backend(), Backend::Cuda);
        return;
    }
    for scenario in ["no GPU", "a failure"] {
        let mut child = common::child(&common::test_name());
        child
            .env("FENCEPOST_TEST_SCENARIO", scenario)
            .env_remove("FENCEPOST_DEVICE");
        assert!(common::run(child).success(), "{scenario}");
    }
}

#[test]
fn a_gpu_has_the_same_uuid_each_time_and_no_other_has_it() {
    let Some(gpu) = gpu() else { return };
    let uuid = gpu.device.uuid().unwrap();
    assert_ne!(uuid, [0; 16]);
    assert_eq!(Device::open("cuda:0").unwrap().uuid(), Some(uuid));
    if let Ok(other) = Device::open("cuda:1") {
        assert_ne!(other.uuid(), Some(uuid));
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

/// The stand-in counts the calls on which the costs in `fencepost bench` depend.
#[cfg(target_os = "linux")]
#[test]
fn an_operation_calls_the_driver_no_more_than_it_must() {
    let library = std::env::var_os("FENCEPOST_CUDA_LIBRARY");
    let loaded =
        library.and_then(|library| fencepost_sim_cuda::Control::load(library.as_ref()).ok());
    let Some(control) = loaded else {
        return common::skip(
            &common::test_name(),
            "FENCEPOST_CUDA_LIBRARY names no stand-in for the CUDA driver",
        );
    };
    common::in_a_process_of_its_own(|| {
        let device = Device::open("cuda:0").unwrap();
        let [stream, other, shared, shared_too] = [(); 4].map(|()| device.new_stream().unwrap());
        for stream in [&shared, &shared_too] {
            assert!(cuda::stream_as_raw(stream).is_some());
        }
        let record = [("cuCtxGetId", 1), ("cuEventRecord", 1)];
        let record_known_outside = [record[0], record[1], ("cuStreamIsCapturing", 1)];
        for new_event in [Event::new, Event::with_timing] {
            let event = new_event(&device);
            let calls = |operation: &dyn Fn()| calls_of(&control, operation);
            assert_eq!(calls(&|| event.record(&stream).unwrap()), record);
            // Others may capture a stream whose handle they know.
            let recorded = calls(&|| event.record(&shared).unwrap());
            assert_eq!(recorded, record_known_outside);
            let whole_life = calls(&|| new_event(&device).record(&stream).unwrap());
            assert_eq!(whole_life, record, "native events are used again");
            // Another marker of the event, or of the thread, is recorded again there.
            let twice = record_known_outside.map(|(name, count)| (name, 2 * count));
            let in_turn = calls(&|| {
                event.record(&shared).unwrap();
                event.record(&shared_too).unwrap();
            });
            assert_eq!(in_turn, twice);
            let whole_lives = calls(&|| {
                new_event(&device).record(&shared).unwrap();
                new_event(&device).record(&shared_too).unwrap();
            });
            assert_eq!(whole_lives, twice);
            event.synchronize().unwrap();
            assert_eq!(calls(&|| assert!(event.query().unwrap())), []);
            assert_eq!(calls(&|| event.wait(&other).unwrap()), []);
        }
        // A marker that stays has an event of its own, of which the pool has some.
        let again = calls_of(&control, &|| {
            drop([(); 3].map(|()| shared.record().unwrap()));
        });
        assert_eq!(
            again,
            record_known_outside.map(|(name, count)| (name, 3 * count))
        );
        let [start, end] = [(); 2].map(|()| Event::with_timing(&device));
        let elapsed = [("cuCtxGetId", 1), ("cuEventElapsedTime_v2", 1)];
        // At first, and once they are recorded in place.
        for _ in 0..3 {
            start.record(&stream).unwrap();
            end.record(&stream).unwrap();
            end.synchronize().unwrap();
            for (start, end) in [(&start, &end), (&end, &start), (&start, &start)] {
                let calls = calls_of(&control, &|| drop(start.elapsed(end).unwrap()));
                assert_eq!(calls, elapsed);
            }
        }
    });
}
