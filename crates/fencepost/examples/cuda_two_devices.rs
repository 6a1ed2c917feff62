//! Two GPUs: one takes what the other makes, and waits for it on the device, not on the host.
//!
//! `cargo run --release -p fencepost --features cuda --example cuda_two_devices [BYTES]`, on a
//! machine with two NVIDIA GPUs.

use std::error::Error;

use cudarc::driver::{CudaContext, CudaSlice};
use fencepost::{Device, Event, cuda};

const ROUNDS: u8 = 8;

fn main() -> Result<(), Box<dyn Error>> {
    let length = match std::env::args().nth(1) {
        Some(bytes) => bytes.parse()?,
        None => 1 << 24,
    };
    let devices = [Device::open("cuda:0")?, Device::open("cuda:1")?];
    let contexts = [CudaContext::new(0)?, CudaContext::new(1)?];
    for context in &contexts {
        // SAFETY: what cudarc's own events would order, ours do below.
        unsafe { context.disable_event_tracking() };
    }
    let theirs = [contexts[0].new_stream()?, contexts[1].new_stream()?];
    let stream = |i: usize| {
        // SAFETY: a stream of this process's driver, kept alive by the `Arc` given along.
        unsafe { cuda::stream_from_raw(theirs[i].cu_stream().cast(), theirs[i].clone()) }
    };
    let (first, second) = (stream(0)?, stream(1)?);

    let mut made: CudaSlice<u8> = theirs[0].alloc_zeros(length)?;
    let mut taken = Vec::new();
    for _ in 0..ROUNDS {
        taken.push(theirs[1].alloc_zeros::<u8>(length)?);
    }
    let (full, free) = (Event::new(&devices[0]), Event::new(&devices[1]));
    let mut copies = Vec::new();
    for (round, taken) in (1..).zip(&mut taken) {
        // Not before the other GPU has taken what was made last; in the first round a no-op.
        free.wait(&first)?;
        theirs[0].memcpy_htod(&vec![round; length], &mut made)?;
        full.record(&first)?;

        full.wait(&second)?;
        let start = second.record_timed()?;
        theirs[1].memcpy_dtod(&made, taken)?;
        copies.push((start, second.record_timed()?));
        free.record(&second)?;
    }
    for (round, (taken, (start, end))) in (1..).zip(taken.iter().zip(&copies)) {
        end.synchronize()?;
        let millis = start.elapsed(end)?.as_millis_f64();
        let speed = length as f64 / millis / 1e6;
        println!("round {round}: copied in {millis:.3} ms, {speed:.1} GB/s");
        let copy: Vec<u8> = theirs[1].clone_dtoh(taken)?;
        assert!(copy.iter().all(|&byte| byte == round), "copied too early");
    }
    Ok(())
}
