//! The time between markers.

use std::time::{Duration, Instant};

use super::case;
use crate::{
    error::{Error, Result},
    event::Event,
    testing::{
        Case,
        context::{Context, Stop, Verdict, check, check_error},
    },
};

pub(super) const CASES: &[Case] = &[
    case!(
        "elapsed_time",
        elapsed_time_covers_the_work_between,
        [TimeOfTheWrongMarker]
    ),
    case!(
        "elapsed_time",
        elapsed_time_waits_for_both_events,
        [SignalBeforeTheWork]
    ),
    case!(
        "elapsed_time",
        a_deadline_and_a_time_are_two_calls,
        [
            DeadlineIgnored,
            QueryAlwaysTrue,
            SynchronizeReturnsEarly,
            SignalBeforeTheWork
        ]
    ),
    case!(
        "elapsed_time",
        any_synchronize_before_elapsed_time_is_fine,
        [RecordNotSubmitted]
    ),
    case!("elapsed_time", records_back_to_back_have_a_time, []),
    case!(
        "elapsed_time",
        reversed_events_give_a_negative_time,
        [NegativeTimeClamped]
    ),
    case!("elapsed_time", start_equal_to_end_gives_zero, []),
    case!("elapsed_time", elapsed_time_may_be_repeated, []),
    case!(
        "elapsed_time",
        one_event_serves_several_pairs,
        [NegativeTimeClamped]
    ),
    case!(
        "elapsed_time",
        events_of_several_streams_have_a_time,
        [TimeOfTheWrongMarker, NegativeTimeClamped]
    ),
    case!(
        "elapsed",
        elapsed_never_waits,
        [QueryAlwaysTrue, SignalBeforeTheWork]
    ),
    case!("elapsed", a_time_does_not_wait_for_other_work, []),
    case!(
        "elapsed",
        a_synchronized_stream_or_device_has_all_its_times,
        [RecordNotSubmitted]
    ),
    case!("elapsed", elapsed_names_its_clock, []),
    case!("elapsed", times_grow_along_a_stream, []),
    case!(
        "elapsed",
        times_add_up_to_within_what_they_are_known_to,
        [TimeTruncated]
    ),
    case!("elapsed", keeping_the_time_changes_no_short_time, []),
    case!("either", timing_is_checked_first, []),
    case!("timing", errors_of_a_time_name_the_event, [QueryAlwaysTrue]),
    case!("either", a_missing_record_is_checked_second, []),
    case!("either", the_device_is_checked_third, []),
];

/// Two markers of one stream with at least `SPAN` between them on any clock.
fn spaced(c: &Context) -> Result<(Event, Event), Stop> {
    let (stream, start, end) = (c.stream()?, c.timed(), c.timed());
    // A marker in front, whose time a wrong device could give.
    let before = stream.record_timed()?;
    c.done(&before)?;
    start.record(&stream)?;
    c.event_done(&start)?;
    std::thread::sleep(Context::SPAN);
    end.record(&stream)?;
    c.event_done(&end)?;
    Ok((start, end))
}

/// `SPAN` in milliseconds, less the drift between two clocks in that time.
fn span_ms() -> f64 {
    Context::SPAN.as_secs_f64() * 1e3 * 0.999
}

fn elapsed_time_covers_the_work_between(c: &Context) -> Verdict {
    let (stream, start, end) = (c.stream()?, c.timed(), c.timed());
    c.close_together(|| {
        c.done(&stream.record_timed()?)?;
        start.record(&stream)?;
        c.event_done(&start)
    })?;
    // By the host's clock, the stream is held for at least this long between the two markers.
    let gate = c.gate(&stream)?;
    end.record(&stream)?;
    let held = Instant::now();
    std::thread::sleep(Context::SPAN);
    let held = held.elapsed();
    gate.open();
    let took = c.took(&start, &end)?;
    let least = held.as_secs_f64() * 1e3 * 0.999;
    check!(took >= least, "held for {least} ms, and it took {took} ms");
    let whole = held + c.options.patience;
    check!(
        took < whole.as_secs_f64() * 1e3,
        "it took {took} ms, longer than the case"
    );
    Ok(())
}

fn elapsed_time_waits_for_both_events(c: &Context) -> Verdict {
    let (stream, log) = (c.stream()?, c.log()?);
    let (start, end) = (c.timed(), c.timed());
    let gate = c.gate(&stream)?;
    start.record(&stream)?;
    c.append(&stream, &log, 1)?;
    end.record(&stream)?;
    let moment = c.options.moment;
    let opener = std::thread::spawn(move || {
        std::thread::sleep(moment);
        gate.open();
    });
    let took = start.elapsed_time(&end)?;
    let seen = log.read()?;
    let _ = opener.join();
    check!(seen == [1], "returned with {seen:?} done");
    check!(took >= 0.0, "{took} ms in order of the stream");
    Ok(())
}

fn a_deadline_and_a_time_are_two_calls(c: &Context) -> Verdict {
    let (stream, start, end) = (c.stream()?, c.timed(), c.timed());
    start.record(&stream)?;
    let gate = c.gate(&stream)?;
    end.record(&stream)?;
    let early = end.synchronize_timeout(c.options.moment);
    check_error!(early, Error::Timeout(_), "the end is held back");
    check_error!(
        start.elapsed(&end),
        Error::NotReady { .. },
        "the end is pending"
    );
    gate.open();
    c.event_done(&end)?;
    start.elapsed(&end)?;
    Ok(())
}

fn any_synchronize_before_elapsed_time_is_fine(c: &Context) -> Verdict {
    let stream = c.stream()?;
    for (first, second) in [(false, false), (true, false), (false, true), (true, true)] {
        let (start, end) = (c.timed(), c.timed());
        start.record(&stream)?;
        end.record(&stream)?;
        if second {
            c.event_done(&end)?;
        }
        if first {
            c.event_done(&start)?;
        }
        let took = start.elapsed_time(&end)?;
        check!(
            took >= 0.0,
            "{took} ms after synchronizing {first}, {second}"
        );
    }
    Ok(())
}

fn records_back_to_back_have_a_time(c: &Context) -> Verdict {
    let stream = c.stream()?;
    for round in 0..100 {
        let (start, end) = (c.timed(), c.timed());
        start.record(&stream)?;
        end.record(&stream)?;
        let took = c.took(&start, &end)?;
        check!(took >= 0.0, "{took} ms in round {round}");
    }
    Ok(())
}

fn reversed_events_give_a_negative_time(c: &Context) -> Verdict {
    let (start, end) = spaced(c)?;
    let (forward, backward) = (start.elapsed_time(&end)?, end.elapsed_time(&start)?);
    check!(forward >= span_ms(), "forward: {forward} ms");
    check!(
        backward == -forward,
        "{forward} ms forward, {backward} ms backward"
    );
    Ok(())
}

fn start_equal_to_end_gives_zero(c: &Context) -> Verdict {
    let (stream, event) = (c.stream()?, c.timed());
    event.record(&stream)?;
    let none = c.took(&event, &event)?;
    check!(none == 0.0, "{none} ms from an event to itself");
    Ok(())
}

fn elapsed_time_may_be_repeated(c: &Context) -> Verdict {
    let (start, end) = spaced(c)?;
    let first = start.elapsed_time(&end)?;
    for _ in 0..3 {
        c.event_done(&end)?;
        c.event_done(&start)?;
        let again = start.elapsed_time(&end)?;
        check!(again == first, "{first} ms, then {again} ms");
    }
    Ok(())
}

fn one_event_serves_several_pairs(c: &Context) -> Verdict {
    let stream = c.stream()?;
    let events = [c.timed(), c.timed(), c.timed()];
    for event in &events {
        event.record(&stream)?;
        c.event_done(event)?;
        std::thread::sleep(Duration::from_millis(1));
    }
    let [a, b, c] = &events;
    let (ab, bc, ac) = (a.elapsed_time(b)?, b.elapsed_time(c)?, a.elapsed_time(c)?);
    // Each time is rounded to the clock's resolution by itself.
    let slack = 1e-3;
    check!(
        (ab + bc - ac).abs() <= slack,
        "{ab} ms + {bc} ms is not {ac} ms"
    );
    let ca = c.elapsed_time(a)?;
    check!(
        (ca + ac).abs() <= slack,
        "{ac} ms forward, {ca} ms backward"
    );
    Ok(())
}

fn events_of_several_streams_have_a_time(c: &Context) -> Verdict {
    let (one, two) = (c.stream()?, c.stream()?);
    let (start, end) = (c.timed(), c.timed());
    c.close_together(|| {
        c.done(&one.record_timed()?)?;
        c.done(&two.record_timed()?)
    })?;
    start.record(&one)?;
    c.event_done(&start)?;
    std::thread::sleep(Context::SPAN);
    end.record(&two)?;
    c.event_done(&end)?;
    let (forward, backward) = (start.elapsed_time(&end)?, end.elapsed_time(&start)?);
    check!(forward >= span_ms(), "forward: {forward} ms");
    check!(backward <= -span_ms(), "backward: {backward} ms");
    Ok(())
}

fn elapsed_never_waits(c: &Context) -> Verdict {
    let (stream, start, end) = (c.stream()?, c.timed(), c.timed());
    start.record(&stream)?;
    c.event_done(&start)?;
    let gate = c.gate(&stream)?;
    end.record(&stream)?;
    c.moment();
    check!(!end.query()?, "complete before the gate is open");
    check_error!(
        start.elapsed(&end),
        Error::NotReady { which: "end", .. },
        "the end is pending"
    );
    check_error!(
        end.elapsed(&start),
        Error::NotReady { which: "start", .. },
        "start is pending"
    );
    gate.open();
    c.event_done(&end)?;
    start.elapsed(&end)?;
    Ok(())
}

/// The thread that asks may be the one that lets the other work go on.
fn a_time_does_not_wait_for_other_work(c: &Context) -> Verdict {
    let (stream, other) = (c.stream()?, c.stream()?);
    let (start, end) = (c.timed(), c.timed());
    start.record(&stream)?;
    end.record(&stream)?;
    c.event_done(&end)?;
    let gates = [c.gate(&other)?, c.gate(&stream)?];
    let asked = std::thread::scope(|scope| {
        let (tell, asked) = std::sync::mpsc::channel();
        scope.spawn(move || {
            let times = start
                .elapsed(&end)
                .and_then(|_| start.elapsed_time(&end).map(drop));
            // Some backends tell differences only. None may wait here.
            let stamp = end.marker().map(|marker| marker.timestamp());
            drop(stamp);
            let _ = tell.send(times);
        });
        let asked = asked.recv_timeout(c.options.patience);
        for gate in gates {
            gate.open();
        }
        asked
    });
    match asked {
        Ok(times) => Ok(times?),
        Err(_) => Err(Stop::Broken(
            "the time of two complete events waits for work that is held back".into(),
        )),
    }
}

fn a_synchronized_stream_or_device_has_all_its_times(c: &Context) -> Verdict {
    for whole_device in [false, true] {
        let (stream, start, end) = (c.stream()?, c.timed(), c.timed());
        start.record(&stream)?;
        end.record(&stream)?;
        match whole_device {
            true => c.device.synchronize_timeout(c.options.patience)?,
            false => c.stream_done(&stream)?,
        }
        let elapsed = start.elapsed(&end)?;
        check!(!elapsed.is_negative(), "{elapsed} in order of the stream");
    }
    Ok(())
}

fn elapsed_names_its_clock(c: &Context) -> Verdict {
    let (start, end) = spaced(c)?;
    let elapsed = start.elapsed(&end)?;
    check!(
        elapsed.clock() == c.device.clock(),
        "it names {}",
        elapsed.clock()
    );
    check!(
        elapsed.resolution() == c.device.clock().resolution(),
        "another resolution"
    );
    check!(
        elapsed.as_millis_f64() == start.elapsed_time(&end)?,
        "two calls, two times"
    );
    Ok(())
}

fn times_grow_along_a_stream(c: &Context) -> Verdict {
    let stream = c.stream()?;
    let markers: Vec<_> = (0..100)
        .map(|_| stream.record_timed())
        .collect::<Result<_, _>>()?;
    if let Some(last) = markers.last() {
        c.done(last)?;
    }
    for pair in markers.windows(2) {
        let step = pair[0].elapsed(&pair[1])?;
        check!(
            !step.is_negative(),
            "{step} from {} to {}",
            pair[0],
            pair[1]
        );
    }
    Ok(())
}

fn times_add_up_to_within_what_they_are_known_to(c: &Context) -> Verdict {
    let stream = c.stream()?;
    let markers: Vec<_> = (0..30)
        .map(|_| {
            // No whole number of milliseconds.
            std::thread::sleep(Duration::from_micros(1300));
            stream.record_timed()
        })
        .collect::<Result<_, _>>()?;
    if let Some(last) = markers.last() {
        c.done(last)?;
    }
    let (mut sum, mut known_to) = (0.0, 0.0);
    for pair in markers.windows(2) {
        let step = pair[0].elapsed(&pair[1])?;
        check!(
            step.uncertainty() >= step.resolution(),
            "{step} is known to {:?}, by a clock of {:?}",
            step.uncertainty(),
            step.resolution()
        );
        sum += step.as_nanos_f64();
        known_to += step.uncertainty().as_nanos() as f64;
    }
    if let [first, .., last] = &markers[..] {
        let whole = first.elapsed(last)?;
        known_to += whole.uncertainty().as_nanos() as f64;
        check!(
            (sum - whole.as_nanos_f64()).abs() <= known_to,
            "{sum} ns in steps is {whole} in all, and both are known to {known_to} ns"
        );
    }
    Ok(())
}

fn keeping_the_time_changes_no_short_time(c: &Context) -> Verdict {
    let (start, end) = spaced(c)?;
    let before = start.elapsed_time(&end)?;
    let keepers = [c.device.keep_time()?, c.device.keep_time()?];
    check!(keepers[0].device() == &c.device, "of another device");
    let during = start.elapsed_time(&end)?;
    drop(keepers);
    let after = start.elapsed_time(&end)?;
    check!(
        before == during && before == after,
        "{before} ms, {during} ms while time is kept, {after} ms afterwards"
    );
    Ok(())
}

fn timing_is_checked_first(c: &Context) -> Verdict {
    let stranger = Event::new(&c.stranger());
    // Unrecorded, of two devices, and without timing: the error is about timing.
    check_error!(
        c.timed().elapsed_time(&stranger),
        Error::TimingDisabled { which: "end", .. },
        "no timing at the end"
    );
    check_error!(
        c.event().elapsed(&stranger),
        Error::TimingDisabled { which: "start", .. },
        "no timing at either"
    );
    let stream = c.stream()?;
    let gate = c.gate(&stream)?;
    let (start, end) = (c.event(), c.timed());
    start.record(&stream)?;
    end.record(&stream)?;
    // Only this thread opens the gate: if the call waited before the check, the case would hang.
    check_error!(
        start.elapsed_time(&end),
        Error::TimingDisabled { .. },
        "behind a closed gate"
    );
    gate.open();
    c.stream_done(&stream)?;
    Ok(())
}

fn errors_of_a_time_name_the_event(c: &Context) -> Verdict {
    let (stream, start, end) = (c.stream()?, c.timed(), c.timed());
    start.set_name("load begins");
    end.set_name("load ends");
    let names = |result: Result<f64>, name: &str, call: &str| {
        let error = result.err().map(|error| error.to_string());
        let error = error.unwrap_or_default();
        let other = ["load begins", "load ends"]
            .into_iter()
            .find(|other| *other != name);
        check!(
            error.contains(&format!("{name:?}")) && !error.contains(other.unwrap_or_default()),
            "the error of {call} names not {name:?} alone: {error}"
        );
        Ok(())
    };
    let millis = |start: &Event, end: &Event| start.elapsed(end).map(|time| time.as_millis_f64());
    names(start.elapsed_time(&end), "load begins", "elapsed_time")?;
    names(millis(&start, &end), "load begins", "elapsed")?;
    start.record(&stream)?;
    names(start.elapsed_time(&end), "load ends", "elapsed_time")?;
    c.event_done(&start)?;
    let gate = c.gate(&stream)?;
    end.record(&stream)?;
    for (one, two) in [(&start, &end), (&end, &start)] {
        let pending = millis(one, two);
        let is_pending = matches!(
            pending,
            Err(Error::NotReady {
                complete: false,
                ..
            })
        );
        check!(is_pending, "the event is pending: {pending:?}");
        names(pending, "load ends", "elapsed")?;
    }
    gate.open();
    let untimed = c.event();
    untimed.set_name("load begins");
    names(untimed.elapsed_time(&end), "load begins", "elapsed_time")?;
    c.stream_done(&stream)?;
    Ok(())
}

fn a_missing_record_is_checked_second(c: &Context) -> Verdict {
    let stranger = Event::with_timing(&c.stranger());
    check_error!(
        c.timed().elapsed_time(&stranger),
        Error::NotRecorded { which: "start", .. },
        "neither is recorded, and they are of two devices"
    );
    let (stream, start) = (c.stream()?, c.timed());
    let gate = c.gate(&stream)?;
    start.record(&stream)?;
    check_error!(
        start.elapsed_time(&c.timed()),
        Error::NotRecorded { which: "end", .. },
        "the start is pending, the end was never recorded"
    );
    gate.open();
    c.stream_done(&stream)?;
    Ok(())
}

fn the_device_is_checked_third(c: &Context) -> Verdict {
    let stranger = c.stranger();
    let (stream, start, end) = (c.stream()?, c.timed(), Event::with_timing(&stranger));
    let gate = c.gate(&stream)?;
    start.record(&stream)?;
    end.record(&stranger.new_stream()?)?;
    check_error!(
        start.elapsed_time(&end),
        Error::DeviceMismatch { .. },
        "the start is pending"
    );
    check_error!(
        end.elapsed(&start),
        Error::DeviceMismatch { .. },
        "the end is pending"
    );
    gate.open();
    c.stream_done(&stream)?;
    Ok(())
}
