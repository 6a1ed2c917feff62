//! Gates, which the host opens.

use std::sync::mpsc;

use super::case;
use crate::{
    Gate,
    contract::Backend,
    error::Error,
    testing::{
        Case,
        context::{Context, Stop, Verdict, check, check_error, for_both_kinds},
    },
};

pub(super) const CASES: &[Case] = &[
    case!(
        "gate",
        a_gate_holds_its_stream_until_it_is_opened,
        [WaitDoesNothing, SignalBeforeTheWork, QueryAlwaysTrue]
    ),
    case!(
        "gate",
        waiting_for_a_gate_never_blocks_the_caller,
        [WaitBlocksTheCaller]
    ),
    case!(
        "gate",
        a_gate_holds_back_only_what_is_behind_the_wait,
        [WaitDoesNothing, WaitBlocksTheCaller]
    ),
    case!(
        "gate",
        one_gate_holds_several_streams,
        [WaitDoesNothing, SignalBeforeTheWork]
    ),
    case!(
        "gate",
        several_gates_hold_one_stream,
        [WaitDoesNothing, SignalBeforeTheWork]
    ),
    case!(
        "gate",
        waiting_for_an_open_gate_is_a_no_op,
        [RecordNotSubmitted]
    ),
    case!(
        "gate",
        a_gate_that_fails_lets_its_streams_go_and_fails_them,
        [WaitDoesNothing, QueryAlwaysTrue, FailureLooksPending]
    ),
    case!(
        "gate",
        waiting_for_a_failed_gate_fails_the_stream,
        [WaitDoesNothing, FailureStopsAtTheWait]
    ),
    case!(
        "gate",
        a_cleared_stream_does_not_fail_by_earlier_waits,
        [QueryAlwaysTrue, WaitDoesNothing]
    ),
    case!(
        "gate",
        a_stream_fails_by_gate_after_gate_and_goes_on,
        [WaitDoesNothing, QueryAlwaysTrue]
    ),
    case!(
        "gate",
        a_failure_of_a_gate_travels_along_waits,
        [WaitDoesNothing, QueryAlwaysTrue]
    ),
    case!(
        "gate",
        a_gate_that_is_dropped_before_it_is_open_fails,
        [WaitDoesNothing, QueryAlwaysTrue]
    ),
    case!(
        "gate",
        a_gate_fails_at_its_limit,
        [WaitDoesNothing, QueryAlwaysTrue]
    ),
    case!("gate", the_first_end_of_a_gate_counts, [RecordNotSubmitted]),
    case!(
        "gate",
        events_and_callbacks_wait_for_a_gate,
        [WaitDoesNothing, SignalBeforeTheWork]
    ),
    case!(
        "gate",
        a_timeout_names_the_gate_that_is_not_open,
        [WaitDoesNothing]
    ),
    case!("gate", a_gate_of_another_device_is_refused, []),
];

/// A gate without a limit, which a slow machine might reach.
#[track_caller]
fn gate(c: &Context) -> Result<Gate, Stop> {
    c.can_hold()?;
    Ok(Gate::with_limit(&c.device, std::time::Duration::MAX)?)
}

fn a_gate_holds_its_stream_until_it_is_opened(c: &Context) -> Verdict {
    for_both_kinds(|record| {
        let (stream, log, gate) = (c.stream()?, c.log()?, gate(c)?);
        gate.wait(&stream)?;
        c.append(&stream, &log, 1)?;
        let marker = record(&stream)?;
        c.still_pending(&marker, "its stream waits for a closed gate")?;
        check!(
            log.read()?.is_empty() && !gate.is_open(),
            "work ran in front of the gate: {:?}",
            log.read()?
        );
        gate.open();
        c.done(&marker)?;
        check!(log.read()? == [1], "the work left {:?}", log.read()?);
        Ok(())
    })
}

fn waiting_for_a_gate_never_blocks_the_caller(c: &Context) -> Verdict {
    let (stream, gate) = (c.stream()?, gate(c)?);
    for _ in 0..10 {
        gate.wait(&stream)?;
    }
    // Only this thread opens the gate: if a wait blocked, the case would hang.
    gate.open();
    c.stream_done(&stream)?;
    Ok(())
}

fn a_gate_holds_back_only_what_is_behind_the_wait(c: &Context) -> Verdict {
    let (stream, other) = (c.stream()?, c.stream()?);
    c.apart(&[&stream, &other])?;
    let (log, gate) = (c.log()?, gate(c)?);
    c.append(&stream, &log, 1)?;
    let before = stream.record()?;
    gate.wait(&stream)?;
    c.append(&stream, &log, 3)?;
    let behind = stream.record()?;
    c.done(&before)?;
    c.append(&other, &log, 2)?;
    c.stream_done(&other)?;
    c.still_pending(&behind, "its stream waits for a closed gate")?;
    check!(log.read()? == [1, 2], "the work ran as {:?}", log.read()?);
    gate.open();
    c.done(&behind)?;
    Ok(())
}

fn one_gate_holds_several_streams(c: &Context) -> Verdict {
    let (log, gate) = (c.log()?, gate(c)?);
    let mut ends = Vec::new();
    for token in 1..=4 {
        let stream = c.stream()?;
        gate.wait(&stream)?;
        c.append(&stream, &log, token)?;
        ends.push(stream.record()?);
    }
    c.moment();
    check!(
        log.read()?.is_empty(),
        "work ran in front of the gate: {:?}",
        log.read()?
    );
    for end in &ends {
        check!(!end.query()?, "{end} is complete behind a closed gate");
    }
    gate.open();
    for end in &ends {
        c.done(end)?;
    }
    let mut seen = log.read()?;
    seen.sort_unstable();
    check!(seen == [1, 2, 3, 4], "some work is missing: {seen:?}");
    Ok(())
}

fn several_gates_hold_one_stream(c: &Context) -> Verdict {
    let (stream, log) = (c.stream()?, c.log()?);
    let (one, two) = (gate(c)?, gate(c)?);
    one.wait(&stream)?;
    c.append(&stream, &log, 1)?;
    let first = stream.record()?;
    two.wait(&stream)?;
    c.append(&stream, &log, 2)?;
    let second = stream.record()?;
    two.open();
    for held in [&first, &second] {
        c.still_pending(held, "the first gate is closed")?;
    }
    one.open();
    c.done(&second)?;
    check!(first.query()?, "{second} is complete, and {first} is not");
    check!(log.read()? == [1, 2], "the work ran as {:?}", log.read()?);
    Ok(())
}

fn waiting_for_an_open_gate_is_a_no_op(c: &Context) -> Verdict {
    let (stream, gate) = (c.stream()?, gate(c)?);
    gate.open();
    gate.wait(&stream)?;
    c.stream_done(&stream)?;
    gate.wait(&stream)?;
    drop(gate);
    c.stream_done(&stream)?;
    Ok(())
}

fn a_gate_that_fails_lets_its_streams_go_and_fails_them(c: &Context) -> Verdict {
    for_both_kinds(|record| {
        let (one, two, log) = (c.stream()?, c.stream()?, c.log()?);
        let gate = gate(c)?;
        let before = [record(&one)?, record(&two)?];
        let mut held = Vec::new();
        for stream in [&one, &two] {
            gate.wait(stream)?;
            c.append(stream, &log, 1)?;
            held.push(record(stream)?);
        }
        gate.fail("the disk is full");
        for marker in &held {
            c.failed(marker, "the disk is full")?;
            c.is_failure(marker.query(), "the disk is full")?;
        }
        for marker in &before {
            c.done(marker)?;
        }
        c.failed(&one.record()?, "the disk is full")?;
        for stream in [&one, &two] {
            stream.clear_error()?;
            c.done(&record(stream)?)?;
        }
        // A GPU cannot take back what is queued.
        let ran = match c.device.backend() {
            Backend::Host => 0,
            _ => 2,
        };
        check!(
            log.read()? == vec![1; ran],
            "the work left {:?}",
            log.read()?
        );
        for marker in &held {
            c.failed(marker, "the disk is full")?;
        }
        Ok(())
    })
}

fn waiting_for_a_failed_gate_fails_the_stream(c: &Context) -> Verdict {
    let (stream, gate) = (c.stream()?, gate(c)?);
    gate.fail("the disk is full");
    let before = stream.record()?;
    gate.wait(&stream)?;
    c.failed(&stream.record()?, "the disk is full")?;
    c.done(&before)?;
    stream.clear_error()?;
    c.stream_done(&stream)?;
    Ok(())
}

/// A wait from before `clear_error` may hold a device for longer, since no API can take it back. It
/// ends with the failure that was cleared all the same.
fn a_cleared_stream_does_not_fail_by_earlier_waits(c: &Context) -> Verdict {
    for_both_kinds(|record| {
        let (stream, other, log) = (c.stream()?, c.stream()?, c.log()?);
        let (one, two) = (gate(c)?, gate(c)?);
        one.wait(&stream)?;
        two.wait(&stream)?;
        let before = record(&stream)?;
        one.fail("the disk is full");
        c.failed(&before, "the disk is full")?;
        stream.clear_error()?;
        c.append(&stream, &log, 1)?;
        let between = record(&stream)?;
        other.wait(&between)?;
        let dependent = record(&other)?;
        two.fail("the file is gone");
        let behind = record(&stream)?;
        for marker in [&behind, &between, &dependent] {
            c.done(marker)?;
            check!(marker.query()?, "{marker} was awaited, and is pending");
        }
        check!(log.read()? == [1], "the work left {:?}", log.read()?);
        c.failed(&before, "the disk is full")?;
        if let Some(error) = stream.error() {
            return Err(error.into());
        }
        Ok(())
    })
}

/// Each time nothing is recorded behind the wait before the gate fails.
fn a_stream_fails_by_gate_after_gate_and_goes_on(c: &Context) -> Verdict {
    let (stream, dependent) = (c.stream()?, c.stream()?);
    for _ in 0..3 {
        let gate = gate(c)?;
        gate.wait(&stream)?;
        gate.fail("the disk is full");
        c.failed(&stream.record()?, "the disk is full")?;
        stream.clear_error()?;
    }
    for _ in 0..3 {
        let gate = gate(c)?;
        gate.wait(&stream)?;
        dependent.wait(&stream.record()?)?;
        gate.fail("the disk is full");
        for stream in [&dependent, &stream] {
            c.failed(&stream.record()?, "the disk is full")?;
            stream.clear_error()?;
        }
    }
    for stream in [&dependent, &stream] {
        c.stream_done(stream)?;
    }
    Ok(())
}

fn a_failure_of_a_gate_travels_along_waits(c: &Context) -> Verdict {
    let (held, second, third) = (c.stream()?, c.stream()?, c.stream()?);
    let gate = gate(c)?;
    gate.wait(&held)?;
    second.wait(&held.record()?)?;
    third.wait(&second.record()?)?;
    let end = third.record()?;
    gate.fail("the disk is full");
    c.failed(&end, "the disk is full")?;
    c.failed(&second.record()?, "the disk is full")?;
    Ok(())
}

fn a_gate_that_is_dropped_before_it_is_open_fails(c: &Context) -> Verdict {
    let (stream, gate) = (c.stream()?, gate(c)?);
    gate.set_name("of a case");
    gate.wait(&stream)?;
    let marker = stream.record()?;
    drop(gate);
    c.failed(&marker, "was dropped before it was opened")?;
    c.failed(&marker, "\"of a case\"")?;
    c.failed(&marker, file!())
}

fn a_gate_fails_at_its_limit(c: &Context) -> Verdict {
    c.can_hold()?;
    let stream = c.stream()?;
    c.can_hold()?;
    let gate = Gate::with_limit(&c.device, c.options.moment)?;
    gate.wait(&stream)?;
    let marker = stream.record()?;
    c.failed(&marker, "was not opened within")?;
    gate.open();
    check!(!gate.is_open(), "it has failed before it was opened");
    c.failed(&marker, "was not opened within")
}

fn the_first_end_of_a_gate_counts(c: &Context) -> Verdict {
    let (stream, opened, failed) = (c.stream()?, gate(c)?, gate(c)?);
    opened.wait(&stream)?;
    opened.open();
    opened.open();
    opened.fail("too late");
    check!(opened.is_open(), "the gate was opened before it failed");
    c.stream_done(&stream)?;
    failed.fail("the disk is full");
    failed.fail("too late");
    failed.open();
    check!(!failed.is_open(), "the gate failed before it was opened");
    failed.wait(&stream)?;
    c.failed(&stream.record()?, "the disk is full")
}

fn events_and_callbacks_wait_for_a_gate(c: &Context) -> Verdict {
    let (stream, start, end) = (c.stream()?, c.timed(), c.timed());
    let gate = gate(c)?;
    start.record(&stream)?;
    gate.wait(&stream)?;
    end.record(&stream)?;
    let (tell, told) = mpsc::channel();
    end.on_complete(move |result| tell.send(result.is_ok()).unwrap_or(()))?;
    c.event_done(&start)?;
    c.moment();
    check!(
        told.try_recv().is_err() && !end.query()?,
        "the event is behind a closed gate, but complete"
    );
    gate.open();
    let told = told.recv_timeout(c.options.patience);
    check!(
        told == Ok(true),
        "the callback came with {told:?} once the gate was open"
    );
    let took = c.took(&start, &end)?;
    check!(took > 0.0, "the gate was closed for {took} ms");
    Ok(())
}

fn a_timeout_names_the_gate_that_is_not_open(c: &Context) -> Verdict {
    c.can_hold()?;
    let stream = c.stream()?;
    let gate = Gate::new(&c.device)?;
    let made = line!() - 1;
    gate.set_name("of a case");
    gate.wait(&stream)?;
    let marker = stream.record()?;
    let Err(early) = marker.synchronize_timeout(c.options.moment) else {
        return Err(Stop::Broken(
            "the gate is closed, but the marker complete".into(),
        ));
    };
    let text = early.to_string();
    for part in [
        format!("stuck is {gate}: it is not opened yet"),
        format!("waits for {gate}, made at {}:{made}", file!()),
    ] {
        check!(text.contains(&part), "\"{part}\" is not in: {text}");
    }
    gate.open();
    c.done(&marker)?;
    Ok(())
}

fn a_gate_of_another_device_is_refused(c: &Context) -> Verdict {
    let stranger = Gate::new(&c.stranger())?;
    let stream = c.stream()?;
    check_error!(
        stranger.wait(&stream),
        Error::DeviceMismatch { .. },
        "a gate of another device"
    );
    c.stream_done(&stream)?;
    Ok(())
}
