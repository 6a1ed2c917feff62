//! Contexts: the caller's own, and those that a fault or a reset has ended.

use std::sync::{Arc, mpsc};

use fencepost::{
    Device, Error, Event, cuda,
    testing::{self, work},
};

use crate::{
    PATIENCE,
    bare::{Bare, Handle},
    common, gpu,
};

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
