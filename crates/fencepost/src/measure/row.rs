//! A given number of calls in a row.

use std::time::{Duration, Instant};

use super::{hold::Hold, sampling::most_entries};
use crate::{
    error::{Error, Result},
    event::Event,
    stream::Stream,
};

/// How long a piece of the row may take to queue at least, before the stream is let go.
const HOLD: Duration = Duration::from_millis(20);

/// The seconds that `calls` calls of `f` in a row take on the device: for a harness that decides
/// itself how many calls it wants, such as criterion.
/// [`Measure`](crate::measure::Measure) decides better.
///
/// They are queued in pieces of some hundred calls, each between two timed records on the held
/// stream; their times are added. A piece that does not return while the stream is held is timed on
/// the stream as it is then, no longer held: see the [module](mod@crate::measure). What a pair of
/// records takes is part of the time, once for each piece. Blocks until all calls are complete.
///
/// # Errors
/// Those of `f`, and of [`Stream::record_timed`], [`Stream::synchronize`] and
/// [`Gate::wait`](crate::Gate::wait). The stream is let go then.
///
/// # References
/// - those of [`Gate::wait`](crate::Gate::wait) and [`Event::record`]
///
/// ```
/// use fencepost::{Device, measure::in_a_row};
///
/// let stream = Device::open("host")?.new_stream()?;
/// let seconds = in_a_row(&stream, 100, || stream.launch(|| { std::hint::black_box(7 * 6); }))?;
/// println!("{:.1} ns each", seconds * 1e9 / 100.0);
/// # Ok::<(), fencepost::Error>(())
/// ```
pub fn in_a_row<E: From<Error>>(
    stream: &Stream,
    calls: u64,
    mut f: impl FnMut() -> Result<(), E>,
) -> Result<f64, E> {
    let device = stream.device();
    let (start, end) = (Event::with_timing(device), Event::with_timing(device));
    // Their native events are made now: that may block on a held stream.
    start.record(stream)?;
    end.record(stream)?;
    end.synchronize()?;
    let mut held = Hold::refusal(device).is_none();
    let (mut left, mut seconds) = (calls, 0.0);
    // Grows, since nobody knows yet how much of the queue a call takes.
    let mut piece = 8;
    while left > 0 {
        let now = left.min(piece);
        let hold = match held {
            true => hold(stream)?,
            false => None,
        };
        held = hold.is_some();
        start.record(stream)?;
        let queueing = Instant::now();
        for _ in 0..now {
            f()?;
        }
        end.record(stream)?;
        // Once let go, a row that goes on is timed as it is.
        let was_let_go = hold.is_some_and(|hold| hold.end());
        piece = match was_let_go || queueing.elapsed() > HOLD / 4 {
            true => (piece / 2).max(1),
            false => (piece * 2).min(most_entries(device.backend()) as u64 - 2),
        };
        held &= !(was_let_go && now == 1);
        end.synchronize()?;
        seconds += start.elapsed(&end)?.as_secs_f64();
        left -= now;
    }
    Ok(seconds)
}

/// Holds the stream, where it can be held.
fn hold(stream: &Stream) -> Result<Option<Hold>> {
    match Hold::begin(stream, HOLD) {
        Ok(hold) => Ok(Some(hold)),
        Err(Error::Unsupported { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
