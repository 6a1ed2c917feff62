//! Measuring several sides of a comparison in turns.

use std::{
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};

use crate::{Stop, stats::Stats};

/// One side of a comparison: runs its operation this many times.
pub(super) type Side<'a> = Box<dyn FnMut(u64) -> Result<(), Stop> + 'a>;

/// How a row is measured.
#[derive(Clone, Copy)]
pub(super) struct How {
    /// How often each side gets its turn.
    pub(super) rounds: usize,
    /// The least number of operations in a turn; it is doubled until a turn takes [`SAMPLE`].
    pub(super) batch: u64,
    /// A pause before each turn, in which every thread and core involved goes to sleep.
    pub(super) pause: Option<Duration>,
    /// What the turns are measured by.
    pub(super) clock: Clock,
}

/// What a turn is measured by: a clock that only goes forward.
pub(super) type Clock = fn() -> Duration;

/// The time that passes.
pub(super) fn wall_time() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

/// A shorter turn would measure the clock.
const SAMPLE: Duration = Duration::from_micros(40);

/// Gives each side its turn, `rounds` times, and returns each side's nanoseconds per operation.
///
/// The machine's load and clock speed drift. Sides that take turns see the same drift, so that it
/// cancels out of their ratio. The order is reversed from round to round, because a side's place
/// in the order matters too: up to 4 % beside timed records of CUDA.
pub(super) fn in_turns<const N: usize>(how: How, sides: [Side<'_>; N]) -> Result<[Stats; N], Stop> {
    in_settled_turns(how, &|| Ok(()), sides)
}

/// As [`in_turns`], with an untimed `settle` after each turn. It waits until the device is idle, so
/// that no side finds a queue that another has filled.
pub(super) fn in_settled_turns<const N: usize>(
    how: How,
    settle: &dyn Fn() -> Result<(), Stop>,
    mut sides: [Side<'_>; N],
) -> Result<[Stats; N], Stop> {
    let turn = |side: &mut Side<'_>, operations| {
        let took = turn(how.clock, side, operations)?;
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
                thread::sleep(pause);
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

fn turn(clock: Clock, side: &mut Side<'_>, operations: u64) -> Result<Duration, Stop> {
    let start = clock();
    side(operations)?;
    Ok(clock().saturating_sub(start))
}

/// In it, every thread of the library goes to sleep.
pub(super) const AWAIT_PAUSE: Duration = Duration::from_micros(300);

/// Wakes the thread that awaits.
pub(super) struct Unpark(Thread);

impl Unpark {
    /// What wakes the thread that calls.
    pub(super) fn this_thread() -> Waker {
        Waker::from(Arc::new(Unpark(thread::current())))
    }
}

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs `future` to its end in this thread, which sleeps meanwhile.
pub(super) fn block_on<F: Future + Unpin>(waker: &Waker, mut future: F) -> F::Output {
    let mut context = Context::from_waker(waker);
    loop {
        match Pin::new(&mut future).poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}
