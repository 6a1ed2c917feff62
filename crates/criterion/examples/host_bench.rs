//! Criterion on the device time of a host stream.
//!
//!     cargo run --release -p fencepost-criterion --example host_bench -- --bench

use std::hint::black_box;

use criterion::Criterion;
use fencepost::Device;
use fencepost_criterion::{DeviceTime, OnDevice as _};

fn main() -> Result<(), fencepost::Error> {
    let stream = Device::open("host")?.new_stream()?;
    let mut criterion = Criterion::default()
        .configure_from_args()
        .without_plots()
        .with_measurement(DeviceTime::new(&stream));
    for terms in [10, 1_000, 100_000] {
        criterion.bench_function(&format!("sum of {terms}"), |bencher| {
            bencher.iter_on_device(&stream, || {
                stream.launch(move || {
                    black_box((0..terms).map(black_box).sum::<u64>());
                })
            });
        });
    }
    criterion.final_summary();
    Ok(())
}
