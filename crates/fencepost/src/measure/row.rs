//! A given number of calls in a row.

use std::time::{Duration, Instant};

use super::{
    hold::{Hold, NEVER_RETURNS, longest},
    report::Note,
    sampling::most_entries,
};
use crate::{
    error::{Error, Result},
    event::Event,
    stream::Stream,
};

/// How long a piece of the row may take to queue at least, before the stream is let go.
const HOLD: Duration = Duration::from_millis(20);
/// How much longer than the calls themselves the stream is held at most.
const SPARE: Duration = Duration::from_millis(200);

/// What [`in_a_row`] found out.
///
/// ```
/// # let stream = fencepost::Device::open("host")?.new_stream()?;
/// let row = fencepost::measure::in_a_row(&stream, 100, || stream.launch(|| ()))?;
/// if let Some(note) = &row.ungated {
///     eprintln!("note: {note}");
/// }
/// println!("{:.1} ns each", row.seconds * 1e9 / 100.0);
/// # Ok::<(), fencepost::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Row {
    /// The seconds that all calls took on the device.
    pub seconds: f64,
    /// A [`Note::Ungated`] if the stream was not held for all of them. The seconds of calls that
    /// are shorter on the device than on the host are those of the host then.
    pub ungated: Option<Note>,
}

/// The seconds that `calls` calls of `f` in a row take on the device: for a harness that decides
/// itself how many calls it wants, such as criterion.
/// [`Measure`](crate::measure::Measure) decides better.
///
/// They are queued in pieces of up to some hundred calls, each between two timed records on the
/// held stream; their times are added. What a pair of records takes is part of the time, once for
/// each piece. A piece that does not return while the stream is held is dropped, and its calls are
/// made again in smaller pieces, so `f` may be called more often than `calls`. If a single call
/// does not return, twice, the rest is timed ungated: see the [module](mod@crate::measure) and
/// [`Row::ungated`]. Blocks until all calls are complete.
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
/// let row = in_a_row(&stream, 100, || stream.launch(|| { std::hint::black_box(7 * 6); }))?;
/// println!("{:.1} ns each", row.seconds * 1e9 / 100.0);
/// # Ok::<(), fencepost::Error>(())
/// ```
pub fn in_a_row<E: From<Error>>(
    stream: &Stream,
    calls: u64,
    mut f: impl FnMut() -> Result<(), E>,
) -> Result<Row, E> {
    let device = stream.device();
    let (start, end) = (Event::with_timing(device), Event::with_timing(device));
    // Their native events are made now: that may block on a held stream.
    start.record(stream)?;
    end.record(stream)?;
    end.synchronize()?;
    let mut ungated = Hold::refusal(device);
    let (mut left, mut seconds) = (calls, 0.0);
    // Grows, since nobody knows yet how long a call takes to queue, and how much of the queue.
    let (mut piece, mut most) = (1, most_entries(device.backend()) as u64 - 2);
    let (mut pace, mut failed) = (Duration::ZERO, 0);
    while left > 0 {
        let now = left.min(piece);
        let usual = pace.saturating_mul(now as u32);
        let hold = hold(stream, longest(HOLD, usual, SPARE), &mut ungated)?;
        start.record(stream)?;
        let queueing = Instant::now();
        for _ in 0..now {
            f()?;
        }
        end.record(stream)?;
        let took = queueing.elapsed();
        let was_let_go = hold.is_some_and(|hold| hold.end());
        end.synchronize()?;
        if !was_let_go {
            seconds += start.elapsed(&end)?.as_secs_f64();
            left -= now;
            pace = took / now as u32;
            piece = match took > HOLD / 4 {
                true => (now / 2).max(1),
                false => (piece * 2).min(most),
            };
            failed = 0;
        } else if now > 1 {
            most = now / 2;
            piece = most;
        } else if failed == 0 {
            // It may take this long only the first time, or each time: one call on a stream that
            // is not held tells.
            failed = 1;
            let call = Instant::now();
            f()?;
            pace = call.elapsed();
            stream.synchronize()?;
        } else {
            ungated = Some(NEVER_RETURNS.into());
        }
    }
    let ungated = ungated.map(|why| Note::Ungated { why });
    Ok(Row { seconds, ungated })
}

/// Holds the stream, unless it is not to be held; `ungated` says why once it cannot be.
fn hold(stream: &Stream, longest: Duration, ungated: &mut Option<String>) -> Result<Option<Hold>> {
    if ungated.is_some() {
        return Ok(None);
    }
    match Hold::begin(stream, longest) {
        Ok(hold) => Ok(Some(hold)),
        Err(error @ Error::Unsupported { .. }) => {
            *ungated = Some(error.to_string());
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
