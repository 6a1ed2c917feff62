//! What a sample of `fencepost::measure` costs the host, on any device.

use std::time::{Duration, Instant};

use fencepost::{Event, Gate, measure::Measure};

use super::{Bench, Row, row};
use crate::{Stop, stats::Stats};

/// How many samples a batch by hand has: as many as the largest of `measure` on CUDA.
const BATCH: usize = 26;

impl Bench {
    /// An empty function, so that all that is left is the cost of measuring: four timed records,
    /// twelve calls, three times between events, and the sample's part of a batch and a warm-up.
    pub(super) fn measure_sample(&self) -> Result<Row, Stop> {
        let how = self.how(31, 1, None);
        let stream = self.device.new_stream()?;
        let events: Vec<_> = (0..BATCH * 4)
            .map(|_| Event::with_timing(&self.device))
            .collect();
        let by_hand = || -> Result<f64, Stop> {
            let began = Instant::now();
            let gate = Gate::new(&self.device)?;
            gate.wait(&stream)?;
            for event in &events {
                event.record(&stream)?;
            }
            gate.open();
            for sample in events.chunks_exact(4) {
                sample[3].synchronize()?;
                for pair in sample.windows(2) {
                    pair[0].elapsed(&pair[1])?;
                }
            }
            Ok(began.elapsed().as_nanos() as f64 / BATCH as f64)
        };
        let measured = || -> Result<f64, Stop> {
            let began = Instant::now();
            let measure = Measure::new(&stream).budget(Duration::from_millis(5));
            let found = measure.run(|| Ok::<_, fencepost::Error>(()))?;
            Ok(began.elapsed().as_nanos() as f64 / found.samples().len() as f64)
        };
        by_hand()?;
        let (mut ours, mut bare) = (Vec::new(), Vec::new());
        for _ in 0..how.rounds {
            ours.push(measured()?);
            bare.push(by_hand()?);
        }
        let stats = |nanos| {
            Stats::of(nanos).ok_or_else(|| Stop::Failed("a measurement of no rounds".into()))
        };
        let (ours, bare) = (stats(ours)?, stats(bare)?);
        let base = ("the same by hand", None);
        Ok(row("measure, each sample", how, &ours, [(&bare, base)]))
    }
}
