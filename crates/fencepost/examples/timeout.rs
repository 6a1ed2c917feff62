//! A wait that gives up and explains itself, a failure that travels, and the way back.
//!
//! `cargo run -p fencepost --example timeout`

use std::{sync::mpsc, time::Duration};

use fencepost::{Device, Error};

fn main() -> fencepost::Result<()> {
    let device = Device::open("host")?;
    let (load, compute) = (device.new_stream()?, device.new_stream()?);

    // Work that never ends by itself, and a stream that waits for it.
    let (go, held) = mpsc::channel::<()>();
    load.launch(move || held.recv().unwrap_or(()))?;
    compute.wait(&load.record()?)?;
    let done = compute.record()?;
    match done.synchronize_timeout(Duration::from_millis(50)) {
        Err(Error::Timeout(timeout)) => println!("{timeout}\n"),
        other => println!("not a timeout: {other:?}"),
    }
    drop(go);
    done.synchronize()?;

    // A failure sticks to its stream and travels along waits; nobody hangs.
    load.launch(|| std::panic::resume_unwind(Box::new("the disk is full")))?;
    compute.wait(&load.record()?)?;
    if let Err(error) = compute.synchronize() {
        println!("{error}\n");
    }

    // Both streams are usable again, once their owner says so.
    load.clear_error()?;
    compute.clear_error()?;
    compute.wait(&load.record()?)?;
    compute.synchronize()?;
    println!("and on it goes");
    Ok(())
}
