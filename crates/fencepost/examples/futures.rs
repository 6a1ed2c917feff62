//! Await events in tokio: a hundred streams, no thread blocked.
//!
//! `cargo run -p fencepost --example futures`

use fencepost::{Device, Event};

#[tokio::main]
async fn main() -> fencepost::Result<()> {
    let device = Device::open("host")?;
    let tasks: Vec<_> = (0..100_u64)
        .map(|number| {
            let device = device.clone();
            tokio::spawn(async move {
                let stream = device.new_stream()?;
                let (start, end) = (Event::with_timing(&device), Event::with_timing(&device));
                start.record(&stream)?;
                stream.launch(move || {
                    std::hint::black_box((0..number * 1000).sum::<u64>());
                })?;
                end.record(&stream)?;
                (&end).await?;
                start.elapsed(&end)
            })
        })
        .collect();
    let mut longest = 0.0_f64;
    for task in tasks {
        let elapsed = match task.await {
            Ok(result) => result?,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        };
        longest = longest.max(elapsed.as_millis_f64());
    }
    println!("a hundred streams; the slowest took {longest:.3} ms");
    Ok(())
}
