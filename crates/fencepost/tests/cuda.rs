//! The CUDA backend: on a machine without NVIDIA's driver, that it says so; on one with it, the
//! conformance suite, its mutants, and what belongs to CUDA alone.
//!
//! Tests that need a device pass without one and say that they were left out.
#![cfg(all(feature = "cuda", not(loom)))]

use std::{
    process::Command,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use fencepost::{
    Backend, Device, Error, Event, Status,
    conformance::{self, Outcome},
    cuda,
};

mod common;

/// The first GPU, if there is one.
fn gpu() -> Option<Device> {
    let found = Device::list()
        .into_iter()
        .find(|found| found.backend == Backend::Cuda)
        .expect("the registry has an entry for CUDA");
    match found.missing {
        Some(why) => {
            println!("left out: {why}");
            None
        }
        None => Some(Device::open("cuda:0").unwrap()),
    }
}

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn without_a_driver_it_is_an_error_that_says_so() {
    let found = Device::list()
        .into_iter()
        .find(|found| found.backend == Backend::Cuda)
        .unwrap();
    match found.missing {
        Some(why) => {
            assert!(!why.is_empty());
            let error = Device::open("cuda:0").unwrap_err();
            assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
            assert!(error.to_string().contains(&why), "{error}");
        }
        None => {
            assert_eq!(found.devices[0], "cuda:0");
            let beyond = format!("cuda:{}", found.devices.len());
            let error = Device::open(&beyond).unwrap_err();
            assert!(matches!(error, Error::UnknownDevice { .. }), "{error:?}");
        }
    }
}

#[test]
fn a_library_that_is_no_driver_is_an_error() {
    if std::env::var_os("FENCEPOST_TEST_CHILD").is_some() {
        let error = Device::open("cuda:0").unwrap_err();
        println!("said: {error}");
        assert!(error.to_string().contains("FENCEPOST_CUDA_LIBRARY") || cfg!(unix));
        return;
    }
    // A library that is not there, and one that is there and has none of the symbols.
    for library in ["/nowhere/libcuda.so", "libc.so.6"] {
        let status = child("a_library_that_is_no_driver_is_an_error")
            .env("FENCEPOST_CUDA_LIBRARY", library)
            .status()
            .unwrap();
        assert!(status.success(), "{library}");
    }
}

/// This test program again, running one test.
fn child(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", test, "--nocapture"])
        .env("FENCEPOST_TEST_CHILD", test);
    command
}

#[test]
fn a_gpu_keeps_every_promise() {
    let Some(device) = gpu() else { return };
    println!(
        "{device} is {}, clock: {}",
        cuda::model(&device).unwrap(),
        device.clock()
    );
    let summary = conformance::run(&device, "", |case, outcome, time| match outcome {
        Outcome::Passed => println!("ok {} ({time:?})", case.name),
        Outcome::Failed(why) => println!("FAILED {}: {why}", case.name),
        Outcome::Skipped(why) => println!("skipped {}: {why}", case.name),
    });
    println!("{summary}");
    assert_eq!(summary.failed, 0, "see the output");
    assert!(summary.passed >= 80, "only {} cases ran", summary.passed);
}

#[test]
fn every_mutant_dies_by_every_case_that_claims_it() {
    let Some(device) = gpu() else { return };
    let table = conformance::kill_mutants(|| cuda::fresh(&device).unwrap());
    common::write_table("mutants-cuda", "Mutants of the CUDA backend", &table.to_string());
    let complaints = table.complaints();
    assert!(complaints.is_empty(), "{complaints:#?}");
}

#[test]
fn a_record_in_place_keeps_other_holders_of_the_marker() {
    let Some(device) = gpu() else { return };
    let stream = device.new_stream().unwrap();
    let event = Event::with_timing(&device);
    event.record(&stream).unwrap();
    let mut native = Vec::new();
    let mut look = |event: &Event| {
        let marker = event.marker().unwrap();
        native.push(cuda::with_raw_event(&marker, |raw| raw as usize).unwrap());
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
    let Some(device) = gpu() else { return };
    let stream = device.new_stream().unwrap();
    let raw = cuda::raw_stream(&stream).unwrap();
    // SAFETY: the stream is kept alive by what is given along.
    let again = unsafe { cuda::stream_from_raw(raw, Arc::new(stream.clone())) }.unwrap();
    assert_eq!(again, stream);
    assert_eq!(again.device(), &device);
    let other = device.new_stream().unwrap();
    assert_ne!(other, stream);
    assert!(cuda::raw_stream(&Device::open("host").unwrap().default_stream()).is_none());
}

#[test]
fn default_streams_are_told_apart() {
    let Some(device) = gpu() else { return };
    let legacy = device.default_stream();
    legacy.record().unwrap().synchronize_timeout(PATIENCE).unwrap();
    let timed = (legacy.record_timed().unwrap(), legacy.record_timed().unwrap());
    timed.1.synchronize_timeout(PATIENCE).unwrap();
    assert!(!timed.0.elapsed(&timed.1).unwrap().is_negative());
}

#[test]
fn blocking_streams_synchronize() {
    let Some(device) = gpu() else { return };
    let options = cuda::StreamOptions::default().blocking_sync(true);
    let stream = cuda::new_stream(&device, options).unwrap();
    for _ in 0..10 {
        let event = Event::new(&device);
        event.record(&stream).unwrap();
        event.synchronize().unwrap();
        assert_eq!(event.status().unwrap(), Status::Complete);
    }
}

#[test]
fn a_gpu_stream_waits_for_the_host_when_asked_to() {
    let Some(device) = gpu() else { return };
    let host = Device::new_host(2).new_stream().unwrap();
    let stream = device.new_stream().unwrap();
    let (go, wait) = mpsc::channel::<()>();
    host.launch(move || drop(wait.recv())).unwrap();
    let marker = host.record().unwrap();
    let plain = stream.wait(&marker).unwrap_err();
    assert!(matches!(plain, Error::ForeignWait { .. }), "{plain:?}");
    let before = stream.record().unwrap();
    stream.wait_foreign(&marker).unwrap();
    let after = stream.record().unwrap();
    before.synchronize_timeout(PATIENCE).unwrap();
    let early = after.synchronize_timeout(Duration::from_millis(20));
    assert!(matches!(early, Err(Error::Timeout(_))), "{early:?}");
    drop(go);
    after.synchronize_timeout(PATIENCE).unwrap();
    // And the other way about: the host's stream waits, without blocking a thread.
    host.wait(&stream.record().unwrap()).unwrap();
    host.synchronize_timeout(PATIENCE).unwrap();
}

#[test]
fn a_host_failure_fails_the_gpu_stream_that_waits_for_it() {
    let Some(device) = gpu() else { return };
    let host = Device::new_host(2).new_stream().unwrap();
    let stream = device.new_stream().unwrap();
    let (go, wait) = mpsc::channel::<()>();
    host.launch(move || {
        drop(wait.recv());
        std::panic::resume_unwind(Box::new("no more paper"));
    })
    .unwrap();
    let marker = host.record().unwrap();
    let before = stream.record().unwrap();
    stream.wait_foreign(&marker).unwrap();
    let after = stream.record().unwrap();
    drop(go);
    let error = after.synchronize_timeout(PATIENCE).unwrap_err();
    assert!(error.to_string().contains("no more paper"), "{error}");
    before.synchronize_timeout(PATIENCE).unwrap();
    let error = stream.record().unwrap().synchronize_timeout(PATIENCE).unwrap_err();
    assert!(error.to_string().contains("no more paper"), "{error}");
    stream.clear_error().unwrap();
    stream.synchronize_timeout(PATIENCE).unwrap();
}

#[test]
fn a_fault_of_a_kernel_is_what_everyone_sees() {
    let name = "a_fault_of_a_kernel_is_what_everyone_sees";
    if gpu().is_none() {
        return;
    }
    if std::env::var_os("FENCEPOST_TEST_CHILD").is_none() {
        let start = Instant::now();
        let status = child(name).status().unwrap();
        assert!(status.success(), "{status}");
        assert!(start.elapsed() < Duration::from_secs(60));
        return;
    }
    let device = Device::open("cuda:0").unwrap();
    let (stream, other) = (device.new_stream().unwrap(), device.new_stream().unwrap());
    let before = stream.record_timed().unwrap();
    before.synchronize_timeout(PATIENCE).unwrap();
    let waiting = other.record().unwrap();
    waiting.synchronize_timeout(PATIENCE).unwrap();
    cuda::trap(&stream).unwrap();
    let after = stream.record().unwrap();
    let (tell, told) = mpsc::channel();
    after.on_complete(move |result| drop(tell.send(result))).unwrap();
    let first = after.synchronize_timeout(PATIENCE).unwrap_err();
    assert!(matches!(first, Error::DeviceLost { .. }), "{first:?}");
    println!("said: {first}");
    let heard = told.recv_timeout(PATIENCE).unwrap().unwrap_err();
    assert_eq!(heard.to_string(), first.to_string());
    assert!(before.query().unwrap(), "complete markers stay complete");
    for error in [
        other.record().and_then(|marker| marker.synchronize()).unwrap_err(),
        device.new_stream().unwrap_err(),
        stream.clear_error().unwrap_err(),
        device.synchronize().unwrap_err(),
        stream.error().unwrap(),
    ] {
        assert!(matches!(error, Error::DeviceLost { .. }), "{error:?}");
        assert_eq!(error.cause().unwrap().root(), first.cause().unwrap().root());
    }
}

#[test]
fn timed_records_block_in_the_driver_and_nobody_else_with_them() {
    let Some(device) = gpu() else { return };
    let host = Device::new_host(1).new_stream().unwrap();
    let stream = device.new_stream().unwrap();
    let (go, wait) = mpsc::channel::<()>();
    host.launch(move || drop(wait.recv())).unwrap();
    stream.wait_foreign(&host.record().unwrap()).unwrap();
    let (recorder, (tell, told)) = (stream.clone(), mpsc::channel());
    let thread = std::thread::spawn(move || {
        for count in 1..=3000 {
            recorder.record_timed().unwrap();
            let _ = tell.send(count);
        }
    });
    let mut count = 0;
    while let Ok(now) = told.recv_timeout(Duration::from_millis(300)) {
        count = now;
    }
    println!("{count} timed records before the driver blocks");
    // Other streams, other events, and this stream's own progress go on meanwhile.
    let other = device.new_stream().unwrap();
    other.record().unwrap().synchronize_timeout(PATIENCE).unwrap();
    assert!(stream.progress().recorded >= count);
    drop(go);
    thread.join().unwrap();
    stream.synchronize_timeout(PATIENCE).unwrap();
}
