//! Measuring several sides of a comparison in turns.

use std::time::{Duration, Instant};

use crate::{Stop, stats::Stats};

/// One side: runs its operation this many times.
pub(super) type Side<'a> = Box<dyn FnMut(u64) -> Result<(), Stop> + 'a>;

/// How a row is measured.
#[derive(Clone, Copy)]
pub(super) struct How {
    /// How often each side gets its turn.
    pub(super) rounds: usize,
    /// How many operations a turn has at least; as many more as fill [`SAMPLE`].
    pub(super) batch: u64,
    /// A rest before each turn, so that every thread and core involved has gone to sleep.
    pub(super) pause: Option<Duration>,
}

/// A turn shorter than this would measure the clock.
const SAMPLE: Duration = Duration::from_micros(40);

/// Gives each side its turn, `rounds` times over, and tells each one's nanoseconds per operation.
///
/// In turns, because what else the machine does, and how fast it clocks, drifts: neighbours in time
/// see the same, so it cancels out of their ratio. Each round goes the other way round than the
/// last, because who comes after whom matters too: beside timed records of CUDA by up to 4 %.
pub(super) fn in_turns<const N: usize>(how: How, sides: [Side<'_>; N]) -> Result<[Stats; N], Stop> {
    in_settled_turns(how, &|| Ok(()), sides)
}

/// As [`in_turns`], with `settle` after each turn, untimed: it lets a device come to rest, so that
/// no side meets the queue that another filled.
pub(super) fn in_settled_turns<const N: usize>(
    how: How,
    settle: &dyn Fn() -> Result<(), Stop>,
    mut sides: [Side<'_>; N],
) -> Result<[Stats; N], Stop> {
    let turn = |side: &mut Side<'_>, operations| {
        let took = turn(side, operations)?;
        settle()?;
        Ok::<Duration, Stop>(took)
    };
    let mut batches = [how.batch; N];
    if how.pause.is_none() {
        for (side, batch) in sides.iter_mut().zip(&mut batches) {
            // Twice, since the first turn warms up.
            for _ in 0..2 {
                while turn(side, *batch)? < SAMPLE {
                    *batch *= 2;
                }
            }
        }
    }
    let mut samples = [(); N].map(|()| Vec::with_capacity(how.rounds));
    for round in 0..how.rounds {
        for place in 0..N {
            let at = if round % 2 == 0 { place } else { N - 1 - place };
            if let Some(pause) = how.pause {
                std::thread::sleep(pause);
            }
            let took = turn(&mut sides[at], batches[at])?;
            samples[at].push(took.as_nanos() as f64 / batches[at] as f64);
        }
    }
    let mut stats = Vec::with_capacity(N);
    for samples in samples {
        stats.extend(Stats::of(samples));
    }
    stats
        .try_into()
        .map_err(|_| Stop::Failed("a measurement of no rounds".into()))
}

fn turn(side: &mut Side<'_>, operations: u64) -> Result<Duration, Stop> {
    let start = Instant::now();
    side(operations)?;
    Ok(start.elapsed())
}
