//! Two streams that overlap: one fills buffers, the other sums them up, ordered by events alone.
//!
//! `cargo run --release -p fencepost --example overlap`

use std::sync::{Arc, Mutex, PoisonError};

use fencepost::{Device, Event, Marker};

const BUFFERS: usize = 2;
const ROUNDS: u64 = 16;
const LENGTH: usize = 1 << 20;

fn main() -> fencepost::Result<()> {
    let device = Device::open("host")?;
    let (fill, sum) = (device.new_stream()?, device.new_stream()?);
    // The locks are never contended: the events keep the two streams apart.
    let buffers: Vec<_> = (0..BUFFERS)
        .map(|_| Arc::new(Mutex::new(vec![0_u64; LENGTH])))
        .collect();
    let (filled, free): (Vec<Event>, Vec<Event>) = (0..BUFFERS)
        .map(|_| (Event::new(&device), Event::new(&device)))
        .unzip();
    let total = Arc::new(Mutex::new(0_u64));
    let mut busy: Vec<(Marker, Marker)> = Vec::new();

    let begin = fill.record_timed()?;
    for round in 0..ROUNDS {
        let slot = round as usize % BUFFERS;

        // Not before the other stream is done with what the buffer held. In the first rounds the
        // event was never recorded, and waiting for it is a no-op.
        free[slot].wait(&fill)?;
        let buffer = buffers[slot].clone();
        let start = fill.record_timed()?;
        fill.launch(move || {
            let mut buffer = buffer.lock().unwrap_or_else(PoisonError::into_inner);
            buffer
                .iter_mut()
                .enumerate()
                .for_each(|(i, x)| *x = round ^ i as u64);
        })?;
        busy.push((start, fill.record_timed()?));
        filled[slot].record(&fill)?;

        filled[slot].wait(&sum)?;
        let (buffer, total) = (buffers[slot].clone(), total.clone());
        let start = sum.record_timed()?;
        sum.launch(move || {
            let buffer = buffer.lock().unwrap_or_else(PoisonError::into_inner);
            let part: u64 = buffer.iter().sum();
            *total.lock().unwrap_or_else(PoisonError::into_inner) += part;
        })?;
        busy.push((start, sum.record_timed()?));
        free[slot].record(&sum)?;
    }
    let end = sum.record_timed()?;
    end.synchronize()?;

    let mut work = 0.0;
    for (start, end) in &busy {
        work += start.elapsed(end)?.as_millis_f64();
    }
    let whole = begin.elapsed(&end)?.as_millis_f64();
    let total = *total.lock().unwrap_or_else(PoisonError::into_inner);
    println!("sum {total}: {work:.1} ms of work in {whole:.1} ms");
    let expected: u64 = (0..ROUNDS)
        .map(|round| (0..LENGTH as u64).map(|i| round ^ i).sum::<u64>())
        .sum();
    assert_eq!(total, expected, "the events kept the order");
    Ok(())
}
