//! Streams: of the library's own, of the caller's, the default ones, and full ones.

use std::{
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use fencepost::{Device, Error, Event, Marker, Status, Stream, cuda, testing::work};

use crate::{
    PATIENCE,
    bare::{Bare, Handle, current_context, make_current},
    gpu,
};

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

#[test]
fn a_dropped_stream_is_used_again_once_its_work_is_done() {
    let Some(gpu) = gpu() else { return };
    // In a process that has used several contexts, the driver makes a stream only once no other is
    // held (docs/measurements/cuda-stalls.md).
    crate::common::in_a_process_of_its_own(|| are_used_again(&gpu.device));
}

fn are_used_again(device: &Device) {
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
