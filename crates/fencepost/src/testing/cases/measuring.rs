//! How long a call takes on the device.

use std::time::Duration;

use super::case;
use crate::{
    error::Error,
    measure::{Measure, Note},
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
];

const BUDGET: Duration = Duration::from_millis(20);
/// In nanoseconds, or rounds of a loop.
const WORK: u64 = 100_000;

fn a_measured_call_takes_the_time_of_its_work(c: &Context) -> Verdict {
    let stream = c.stream()?;
    // Kernels that are loaded with the first launch are loaded before the stream is held.
    let found = Measure::new(&stream)
        .budget(BUDGET)
        .run(|| work::spin(&stream, WORK))?;
    let no_work = |note: &Note| matches!(note, Note::NoWork { .. });
    check!(!found.samples().is_empty(), "there is no sample: {found}");
    check!(
        !found.notes().iter().any(no_work),
        "no work was seen: {found}"
    );
    check!(found.median() > 0.0, "it took no time: {found}");
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
    let found = match measure.run(|| work::spin(&stream, WORK)) {
        Err(Error::Unsupported { what, .. }) => return Err(Stop::Skip(what)),
        found => found?,
    };
    check!(found.calls() == (0, 1), "{:?} calls", found.calls());
    check!(found.alone() == found.median(), "{found}");
    check!(found.median() > 0.0, "it took no time: {found}");
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
    // In the warm-up, and on the held stream.
    for good_calls in [0, 1, 5, 40] {
        let stream = c.stream()?;
        let mut calls = 0;
        let found = Measure::new(&stream).run(|| {
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
        check!(calls == good_calls + 1, "called {calls} times");
        c.done(&stream.record()?)?;
    }
    Ok(())
}
