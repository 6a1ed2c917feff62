//! How long a call takes on the device.

use std::time::{Duration, Instant};

use super::case;
use crate::{
    error::{Error, Result},
    measure::{Measure, Measurement, Note, in_a_row},
    stream::Stream,
    testing::{
        Case,
        context::{Context, Stop, Verdict, check, check_error},
        work,
    },
};

pub(super) const CASES: &[Case] = &[
    case!("measure", a_measured_call_takes_the_time_of_its_work, []),
    case!("measure", a_cold_call_is_measured_alone, []),
    case!("measure", a_function_that_waits_is_measured_ungated, []),
    case!("measure", an_error_of_the_function_lets_the_stream_go, []),
    case!(
        "measure",
        a_deadline_of_the_function_is_not_missed_for_the_hold,
        []
    ),
    case!("measure", an_error_that_takes_long_is_passed_on, []),
    case!("measure", a_row_that_takes_long_to_queue_is_held, []),
    case!("measure", a_row_that_waits_says_that_it_was_not_held, []),
];

const BUDGET: Duration = Duration::from_millis(20);
/// So that a function is called as often as it takes, however slow the machine is.
const ANY_BUDGET: Duration = Duration::from_secs(3600);
/// In nanoseconds, or rounds of a loop.
const WORK: u64 = 100_000;

/// Measures until what is found is right, which only a fault keeps it from for a minute. A text
/// says what is wrong with a measurement.
fn until(
    mut measure: impl FnMut() -> Result<Result<Measurement, String>, Stop>,
) -> Result<Measurement, Stop> {
    let begin = Instant::now();
    loop {
        let wrong = match measure()? {
            Ok(found) => return Ok(found),
            Err(wrong) => wrong,
        };
        let waited = begin.elapsed();
        check!(
            waited < Duration::from_secs(60),
            "no measurement of a minute was right: {wrong}"
        );
    }
}

fn a_measured_call_takes_the_time_of_its_work(c: &Context) -> Verdict {
    let stream = c.stream()?;
    let no_work = |note: &Note| matches!(note, Note::NoWork { .. });
    // On a loaded machine a sample may say anything, but not always.
    let found = until(|| {
        let found = Measure::new(&stream)
            .budget(BUDGET)
            .run(|| work::spin(&stream, WORK))?;
        let right = found.median() > 0.0 && !found.notes().iter().any(no_work);
        Ok(match right {
            true => Ok(found),
            false => Err(found.to_string()),
        })
    })?;
    check!(!found.samples().is_empty(), "there is no sample: {found}");
    check!(
        found.to_string().lines().count() <= 5,
        "the text is too long: {found}"
    );
    c.done(&stream.record()?)?;
    Ok(())
}

fn a_cold_call_is_measured_alone(c: &Context) -> Verdict {
    let stream = c.stream()?;
    let measure = Measure::new(&stream).budget(BUDGET).cold(true);
    let found = until(|| {
        let found = match measure.run(|| work::spin(&stream, WORK)) {
            Err(Error::Unsupported { what, .. }) => return Err(Stop::Skip(what)),
            found => found?,
        };
        Ok(match found.median() > 0.0 {
            true => Ok(found),
            false => Err(found.to_string()),
        })
    })?;
    check!(found.calls() == (0, 1), "{:?} calls", found.calls());
    check!(found.alone() == found.median(), "{found}");
    c.done(&stream.record()?)?;
    Ok(())
}

fn a_function_that_waits_is_measured_ungated(c: &Context) -> Verdict {
    let stream = c.stream()?;
    let found = Measure::new(&stream)
        .budget(BUDGET)
        .run(|| c.done(&stream.record()?))?;
    check!(!found.is_gated(), "it was held: {found}");
    check!(
        matches!(found.notes(), [Note::Ungated { .. }, ..]),
        "it does not say why: {found}"
    );
    check!(!found.samples().is_empty(), "there is no sample: {found}");
    Ok(())
}

fn an_error_of_the_function_lets_the_stream_go(c: &Context) -> Verdict {
    c.can_hold()?;
    // In the warm-up, and on the held stream.
    for good_calls in [0, 1, 5, 40] {
        let stream = c.stream()?;
        let mut calls = 0;
        let found = Measure::new(&stream).budget(ANY_BUDGET).run(|| {
            calls += 1;
            match calls > good_calls {
                true => Err(Error::Unavailable {
                    device: "the work".into(),
                    why: "there is no more paper".into(),
                }),
                false => work::spin(&stream, 1_000),
            }
        });
        check_error!(found, Error::Unavailable { .. }, "the function's error");
        // On a held stream a call may fail late on a slow machine, and is then made once more.
        let bad_calls = 1..=1 + usize::from(good_calls > 1);
        check!(
            bad_calls.contains(&(calls - good_calls)),
            "called {calls} times, and not {good_calls} and {bad_calls:?}"
        );
        c.done(&stream.record()?)?;
    }
    Ok(())
}

/// The function fails if the device does not get on with its work, as it does not while the
/// stream is held.
fn a_deadline_of_the_function_is_not_missed_for_the_hold(c: &Context) -> Verdict {
    let stream = c.stream()?;
    let found = until(|| {
        let found = match with_a_deadline(c, &stream) {
            // A busy machine may miss the deadline by itself, but not always.
            Err(error @ Error::Timeout { .. }) => return Ok(Err(error.to_string())),
            found => found?,
        };
        Ok(Ok(found))
    })?;
    check!(!found.is_gated(), "it was held: {found}");
    check!(!found.samples().is_empty(), "there is no sample: {found}");
    Ok(())
}

/// Measures a function that gives up once the device is late.
fn with_a_deadline(c: &Context, stream: &Stream) -> Result<Measurement> {
    let budget = Duration::from_millis(1);
    let (mut calls, mut missed, mut longest) = (0, false, Duration::ZERO);
    Measure::new(stream).budget(budget).run(|| {
        let began = Instant::now();
        let marker = stream.record()?;
        calls += 1;
        // As long as the budget, so the warm-up is over with the second call.
        std::thread::sleep(budget);
        if calls > 2 && !missed {
            // On a busy machine a call takes longer, and a late one is late beside the others.
            let limit = Duration::from_millis(15).max(longest * 4);
            let waited = marker.synchronize_timeout(limit);
            missed = waited.is_err();
            return waited;
        }
        c.done(&marker)?;
        longest = longest.max(began.elapsed());
        Ok(())
    })
}

/// An error that the hold is not the reason of recurs on a stream that is not held.
fn an_error_that_takes_long_is_passed_on(c: &Context) -> Verdict {
    let stream = c.stream()?;
    let mut calls = 0;
    let found = Measure::new(&stream).budget(ANY_BUDGET).run(|| {
        calls += 1;
        if calls <= 20 {
            return work::spin(&stream, 1_000);
        }
        std::thread::sleep(Duration::from_millis(30));
        Err(Error::Unavailable {
            device: "the work".into(),
            why: "there is no more paper".into(),
        })
    });
    check_error!(found, Error::Unavailable { .. }, "the function's error");
    c.done(&stream.record()?)?;
    Ok(())
}

/// Such calls take longer to queue than a stream is held for calls that nothing is known of.
fn a_row_that_takes_long_to_queue_is_held(c: &Context) -> Verdict {
    let stream = c.stream()?;
    let mut held = Vec::new();
    let row = in_a_row(&stream, 2, || {
        work::spin(&stream, 1_000)?;
        let marker = stream.record()?;
        std::thread::sleep(Duration::from_millis(30));
        held.push(!marker.query()?);
        Ok::<(), Error>(())
    })?;
    match row.ungated {
        Some(note) => check!(!note.to_string().is_empty(), "it does not say why"),
        None => check!(held.ends_with(&[true, true]), "held: {held:?}"),
    }
    Ok(())
}

fn a_row_that_waits_says_that_it_was_not_held(c: &Context) -> Verdict {
    let stream = c.stream()?;
    let row = in_a_row(&stream, 10, || c.done(&stream.record()?))?;
    check!(
        matches!(row.ungated, Some(Note::Ungated { .. })),
        "it does not say so: {row:?}"
    );
    Ok(())
}
