//! Time a piece of work on a stream.
//!
//! `cargo run -p fencepost --example quickstart`

use fencepost::{Device, Event};

fn main() -> fencepost::Result<()> {
    // Closures run on host streams; a GPU's work is submitted through its own API.
    let device = Device::open("host")?;
    let stream = device.default_stream();
    let (start, end) = (Event::with_timing(&device), Event::with_timing(&device));

    start.record(&stream)?;
    stream.launch(|| {
        let sum: u64 = (0..10_000_000_u64).map(|x| x ^ (x >> 3)).sum();
        println!("the work to time: {sum}");
    })?;
    end.record(&stream)?;

    println!("{:.3} ms", start.elapsed_time(&end)?);
    let elapsed = start.elapsed(&end)?;
    println!("{elapsed} by the clock \"{}\"", elapsed.clock().name());
    Ok(())
}
