//! Measures work of a known length, to see how far off `measure` is on a machine.
//!
//! On a machine that does nothing else:
//!
//! `cargo run --release -p fencepost --features conformance,vulkan --example known_length vulkan:0`
//!
//! What is compared is how much longer one piece of work is than another, so that what a launch
//! costs cancels out. On the host the work is a closure that looks at the clock until its time is
//! over, on CUDA a kernel that does so. Elsewhere it is a loop, and what a round takes is known by
//! the host's clock, over many runs in a row.

use std::time::{Duration, Instant};

use fencepost::{Backend, Device, Result, Stream, measure::Measure, testing::work};

/// Nanoseconds.
const LENGTHS: [u64; 4] = [200_000, 400_000, 1_000_000, 5_000_000];

/// Rounds of a loop. Mesa's llvmpipe ends every loop after 65,535 of them.
const ROUNDS: [u64; 4] = [8_000, 16_000, 32_000, 64_000];

/// Queues work of this length.
fn spin(stream: &Stream, amount: u64) -> Result<()> {
    if stream.device().backend() != Backend::Host {
        return work::spin(stream, amount);
    }
    stream.launch(move || {
        let (began, length) = (Instant::now(), Duration::from_nanos(amount));
        while began.elapsed() < length {
            std::hint::spin_loop();
        }
    })
}

/// The nanoseconds of a round, by the host's clock.
fn nanos_a_round(stream: &Stream) -> Result<f64> {
    const RUNS: u64 = 64;
    let fastest = |rounds| -> Result<Duration> {
        let mut best = Duration::MAX;
        for _ in 0..15 {
            let began = Instant::now();
            for _ in 0..RUNS {
                spin(stream, rounds)?;
            }
            stream.synchronize()?;
            best = best.min(began.elapsed());
        }
        Ok(best)
    };
    // The device takes longer for these than the host does to queue them.
    let (few, many) = (ROUNDS[2], ROUNDS[3]);
    let longer = fastest(many)?.as_nanos() as f64 - fastest(few)?.as_nanos() as f64;
    Ok(longer / (RUNS * (many - few)) as f64)
}

fn main() -> Result<()> {
    let device = Device::open(&std::env::args().nth(1).unwrap_or("host".into()))?;
    let stream = device.new_stream()?;
    println!("{device}, {}", device.clock());
    let (amounts, nanos) = match device.backend() {
        Backend::Host | Backend::Cuda => (LENGTHS, 1.0),
        _ => (ROUNDS, nanos_a_round(&stream)?),
    };
    println!("    length      median   longer by   measured       off");
    let mut shortest = None;
    for amount in amounts {
        let measure = Measure::new(&stream).budget(Duration::from_secs(1));
        let found = measure.run(|| spin(&stream, amount))?;
        let micros = |amount: u64| amount as f64 * nanos / 1e3;
        let median = found.median() * 1e6;
        print!("{:>7.1} µs {median:>8.1} µs", micros(amount));
        let first = *shortest.get_or_insert(median);
        if amount > amounts[0] {
            let (known, measured) = (micros(amount - amounts[0]), median - first);
            let off = (measured / known - 1.0) * 100.0;
            print!(" {known:>8.1} µs {measured:>7.1} µs {off:>+7.2} %");
        }
        println!();
        for note in found.notes() {
            println!("  note: {note}");
        }
    }
    Ok(())
}
