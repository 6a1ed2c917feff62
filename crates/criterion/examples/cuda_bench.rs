//! Criterion on the device time of a CUDA stream. The work is a timed record of an event; put the
//! launch of your own kernel in its place, on the handle of the stream.
//!
//!     cargo run --release -p fencepost-criterion --features cuda --example cuda_bench -- --bench

use criterion::Criterion;
use fencepost::{Device, Event, cuda};
use fencepost_criterion::{DeviceTime, OnDevice as _};

fn main() -> Result<(), fencepost::Error> {
    let device = match Device::open("cuda:0") {
        Ok(device) => device,
        Err(error) => {
            println!("nothing to measure: {error}");
            return Ok(());
        }
    };
    let stream = device.new_stream()?;
    println!(
        "{} on CUstream {:?}",
        cuda::model(&device)?,
        cuda::stream_as_raw(&stream)
    );
    let event = Event::with_timing(&device);
    let mut criterion = Criterion::default()
        .configure_from_args()
        .without_plots()
        .with_measurement(DeviceTime::new(&stream));
    criterion.bench_function("timed record", |bencher| {
        bencher.iter_on_device(&stream, || event.record(&stream));
    });
    criterion.final_summary();
    Ok(())
}
