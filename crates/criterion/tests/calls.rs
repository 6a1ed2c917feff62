//! Criterion asks for a number of calls that a device can make.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use criterion::{Criterion, measurement::Measurement};
use fencepost::Device;
use fencepost_criterion::{DeviceTime, OnDevice as _};

fn criterion<M: Measurement + 'static>(name: &str, measurement: M) -> Criterion<M> {
    Criterion::default()
        .without_plots()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(10))
        .measurement_time(Duration::from_millis(20))
        .output_directory(&Path::new(env!("CARGO_TARGET_TMPDIR")).join(name))
        .with_measurement(measurement)
}

#[test]
fn every_call_that_criterion_asks_for_runs() {
    let stream = Device::open("host").unwrap().new_stream().unwrap();
    let (queued, ran) = (AtomicU64::new(0), Arc::new(AtomicU64::new(0)));
    criterion("calls", DeviceTime::new(&stream)).bench_function("nothing", |bencher| {
        bencher.iter_on_device(&stream, || {
            queued.fetch_add(1, Ordering::Relaxed);
            let ran = ran.clone();
            stream.launch(move || {
                ran.fetch_add(1, Ordering::Relaxed);
            })
        });
    });
    let (queued, ran) = (queued.into_inner(), ran.load(Ordering::Relaxed));
    assert_eq!(queued, ran);
    // It would be asked for 2^63 of them if no time passed on the host.
    assert!((1..1 << 40).contains(&ran), "{ran} calls");
}

#[test]
fn what_calls_no_device_ends_too() {
    let stream = Device::open("host").unwrap().new_stream().unwrap();
    let calls = AtomicU64::new(0);
    criterion("no-work", DeviceTime::new(&stream)).bench_function("no work", |bencher| {
        bencher.iter_on_device(&stream, || {
            calls.fetch_add(1, Ordering::Relaxed);
            Ok(())
        });
    });
    assert!((1..1 << 40).contains(&calls.into_inner()));
}

#[test]
fn plain_iter_is_timed_by_the_device_too() {
    let stream = Device::open("host").unwrap().new_stream().unwrap();
    criterion("iter", DeviceTime::new(&stream)).bench_function("iter", |bencher| {
        bencher.iter(|| stream.launch(|| ()).unwrap());
    });
}

#[test]
#[should_panic(expected = "no more paper")]
fn an_error_of_the_work_ends_the_benchmark() {
    let stream = Device::open("host").unwrap().new_stream().unwrap();
    criterion("error", DeviceTime::new(&stream)).bench_function("error", |bencher| {
        bencher.iter_on_device(&stream, || {
            stream.launch(|| std::panic::resume_unwind(Box::new("no more paper")))
        });
    });
}
