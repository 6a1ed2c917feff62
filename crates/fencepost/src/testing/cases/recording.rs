//! Creating, recording, recording again, dropping.

use super::case;
use crate::{
    error::Error,
    marker::Status,
    testing::{
        Case,
        context::{Context, Verdict, check, check_error, for_both_kinds},
    },
};

pub(super) const CASES: &[Case] = &[
    case!("create", creating_needs_no_device_work, []),
    case!("create", timing_is_off_unless_asked_for, []),
    case!("create", the_default_stream_is_always_the_same, []),
    case!(
        "record",
        record_marks_everything_submitted_so_far,
        [SignalBeforeTheWork, QueryAlwaysTrue]
    ),
    case!("record", record_submits, [RecordNotSubmitted]),
    case!(
        "record",
        record_on_an_idle_stream_completes,
        [RecordNotSubmitted]
    ),
    case!("record", record_never_waits_for_the_device, [RecordBlocks]),
    case!("record", record_on_another_device_is_refused, []),
    case!("record", a_refused_record_leaves_the_event_as_it_was, []),
    case!("record", markers_are_told_apart, []),
    case!("record", a_marker_names_its_source_line, []),
    case!(
        "record",
        an_event_holds_a_marker_made_elsewhere,
        [QueryAlwaysTrue, SignalBeforeTheWork]
    ),
    case!(
        "record again",
        record_again_shows_the_new_marker,
        [QueryAlwaysTrue, SignalBeforeTheWork]
    ),
    case!(
        "record again",
        record_again_while_pending_keeps_both_markers,
        [QueryAlwaysTrue, SignalBeforeTheWork, RecordBlocks]
    ),
    case!(
        "record again",
        record_again_leaves_earlier_waits_alone,
        [WaitForTheLatest, WaitBlocksTheCaller]
    ),
    case!(
        "record again",
        record_again_leaves_earlier_readings_alone,
        []
    ),
    case!(
        "record again",
        record_again_after_completion_completes_again,
        [RecordNotSubmitted]
    ),
    case!(
        "record again",
        many_records_in_sequence_complete,
        [RecordNotSubmitted]
    ),
    case!(
        "record again",
        an_event_moves_between_streams,
        [QueryAlwaysTrue, SignalBeforeTheWork]
    ),
    case!(
        "drop",
        dropping_a_pending_event_disturbs_nobody,
        [WaitDoesNothing, SignalBeforeTheWork, RecordNotSubmitted]
    ),
    case!(
        "drop",
        dropping_a_stream_lets_its_work_finish,
        [RecordNotSubmitted]
    ),
    case!(
        "drop",
        dropping_streams_that_wait_for_each_other_lets_their_work_finish,
        [QueryAlwaysTrue, SignalBeforeTheWork, RecordNotSubmitted]
    ),
    case!("drop", a_new_event_after_drops_starts_fresh, []),
];

fn creating_needs_no_device_work(c: &Context) -> Verdict {
    let stream = c.device.default_stream();
    let gate = c.gate(&stream)?;
    for timing in [false, true] {
        for _ in 0..100 {
            let event = if timing { c.timed() } else { c.event() };
            check!(
                event.status()? == Status::Unrecorded,
                "a new event holds a marker"
            );
            check!(
                event.has_timing() == timing,
                "timing is not what was asked for"
            );
        }
    }
    gate.open();
    c.stream_done(&stream)?;
    Ok(())
}

fn timing_is_off_unless_asked_for(c: &Context) -> Verdict {
    let stream = c.stream()?;
    let (start, end) = (c.event(), c.event());
    start.record(&stream)?;
    end.record(&stream)?;
    check_error!(
        start.elapsed_time(&end),
        Error::TimingDisabled { .. },
        "default events"
    );
    check!(!stream.record()?.has_timing(), "a plain marker has timing");
    Ok(())
}

fn the_default_stream_is_always_the_same(c: &Context) -> Verdict {
    let (one, two) = (c.device.default_stream(), c.device.default_stream());
    check!(one == two, "two calls gave {one} and {two}");
    check!(c.stream()? != one, "a new stream is the default one");
    Ok(())
}

fn record_marks_everything_submitted_so_far(c: &Context) -> Verdict {
    let (stream, log, event) = (c.stream()?, c.log()?, c.event());
    let gate = c.gate(&stream)?;
    c.append(&stream, &log, 1)?;
    event.record(&stream)?;
    c.moment();
    check!(!event.query()?, "complete before the work in front of it");
    gate.open();
    c.event_done(&event)?;
    check!(
        log.read()? == [1],
        "complete, but the work left {:?}",
        log.read()?
    );
    Ok(())
}

fn record_submits(c: &Context) -> Verdict {
    let (stream, log, event) = (c.stream()?, c.log()?, c.event());
    c.append(&stream, &log, 1)?;
    event.record(&stream)?;
    // No other call uses the stream: the record alone must submit the work.
    c.event_done(&event)?;
    check!(log.read()? == [1], "the work left {:?}", log.read()?);
    Ok(())
}

fn record_on_an_idle_stream_completes(c: &Context) -> Verdict {
    let event = c.event();
    event.record(&c.stream()?)?;
    c.event_done(&event)?;
    check!(
        event.status()? == Status::Complete,
        "status is {:?}",
        event.status()?
    );
    Ok(())
}

fn record_never_waits_for_the_device(c: &Context) -> Verdict {
    let stream = c.stream()?;
    let gate = c.gate(&stream)?;
    let events: Vec<_> = (0..100)
        .map(|i| if i % 2 == 0 { c.event() } else { c.timed() })
        .collect();
    for event in &events {
        event.record(&stream)?;
    }
    let last = stream.record()?;
    gate.open();
    c.done(&last)?;
    for event in &events {
        check!(
            event.query()?,
            "a later marker is complete, this one is not"
        );
    }
    Ok(())
}

fn record_on_another_device_is_refused(c: &Context) -> Verdict {
    let stranger = c.stranger();
    check_error!(
        c.event().record(&stranger.new_stream()?),
        Error::DeviceMismatch { .. },
        "an event of the device on a stream of another"
    );
    check_error!(
        crate::Event::new(&stranger).record(&c.stream()?),
        Error::DeviceMismatch { .. },
        "an event of another device on a stream of this one"
    );
    Ok(())
}

fn a_refused_record_leaves_the_event_as_it_was(c: &Context) -> Verdict {
    let (stream, event) = (c.stream()?, c.event());
    let foreign = c.stranger().new_stream()?;
    check_error!(
        event.record(&foreign),
        Error::DeviceMismatch { .. },
        "a foreign stream"
    );
    check!(
        event.status()? == Status::Unrecorded,
        "a refused record was stored"
    );
    let gate = c.gate(&stream)?;
    event.record(&stream)?;
    let held = event.marker();
    check_error!(
        event.record(&foreign),
        Error::DeviceMismatch { .. },
        "a foreign stream"
    );
    check!(
        event.marker() == held,
        "a refused record replaced the marker"
    );
    gate.open();
    c.event_done(&event)?;
    Ok(())
}

fn markers_are_told_apart(c: &Context) -> Verdict {
    let (a, b) = (c.stream()?, c.stream()?);
    let markers = [a.record()?, a.record()?, b.record()?];
    for (i, one) in markers.iter().enumerate() {
        for (j, two) in markers.iter().enumerate() {
            check!((one == two) == (i == j), "{one} and {two} compare wrongly");
        }
    }
    check!(a.id() != b.id(), "two streams share the id {}", a.id());
    Ok(())
}

fn a_marker_names_its_source_line(c: &Context) -> Verdict {
    let (stream, event) = (c.stream()?, c.event());
    event.record(&stream)?;
    let line = line!() - 1;
    let Some(marker) = event.marker() else {
        check!(false, "a recorded event holds no marker");
        return Ok(());
    };
    let at = marker.recorded_at();
    check!(
        at.file() == file!() && at.line() == line,
        "it names {at}, not line {line}"
    );
    Ok(())
}

fn record_again_shows_the_new_marker(c: &Context) -> Verdict {
    let (stream, event) = (c.stream()?, c.event());
    event.record(&stream)?;
    c.event_done(&event)?;
    let gate = c.gate(&stream)?;
    event.record(&stream)?;
    c.moment();
    check!(!event.query()?, "still tells of the first marker");
    check!(
        event.status()? == Status::Pending,
        "status is {:?}",
        event.status()?
    );
    gate.open();
    c.event_done(&event)?;
    check!(event.query()?, "not complete after waiting for it");
    Ok(())
}

fn record_again_while_pending_keeps_both_markers(c: &Context) -> Verdict {
    let (a, b, event) = (c.stream()?, c.stream()?, c.event());
    c.apart(&[&a, &b])?;
    let (gate_a, gate_b) = (c.gate(&a)?, c.gate(&b)?);
    event.record(&a)?;
    let first = event.marker();
    event.record(&b)?;
    let (Some(first), Some(second)) = (first, event.marker()) else {
        check!(false, "a recorded event holds no marker");
        return Ok(());
    };
    check!(first != second, "recording again did not make a new marker");
    gate_a.open();
    c.done(&first)?;
    c.moment();
    check!(
        !event.query()?,
        "the first marker's completion completed the event"
    );
    gate_b.open();
    c.event_done(&event)?;
    Ok(())
}

fn record_again_leaves_earlier_waits_alone(c: &Context) -> Verdict {
    let (producer, consumer, event) = (c.stream()?, c.stream()?, c.event());
    // This stream waits for a marker after a later one was recorded on the same stream.
    let late = c.stream()?;
    c.apart(&[&producer, &consumer, &late])?;
    let first = c.gate(&producer)?;
    event.record(&producer)?;
    event.wait(&consumer)?;
    let after = consumer.record()?;
    let second = c.gate(&producer)?;
    event.record(&producer)?;
    let Some(held) = event.marker() else {
        check!(false, "a recorded event holds no marker");
        return Ok(());
    };
    let third = c.gate(&producer)?;
    event.record(&producer)?;
    late.wait(&held)?;
    let after_held = late.record()?;
    first.open();
    c.done(&after)?;
    second.open();
    c.done(&after_held)?;
    check!(
        !event.query()?,
        "the gate in front of the last record is closed"
    );
    third.open();
    c.event_done(&event)?;
    Ok(())
}

fn record_again_leaves_earlier_readings_alone(c: &Context) -> Verdict {
    let (stream, start, end) = (c.stream()?, c.timed(), c.timed());
    start.record(&stream)?;
    end.record(&stream)?;
    c.event_done(&end)?;
    let (Some(one), Some(two)) = (start.marker(), end.marker()) else {
        check!(false, "a recorded event holds no marker");
        return Ok(());
    };
    let before = one.elapsed(&two)?;
    std::thread::sleep(Context::SPAN);
    start.record(&stream)?;
    end.record(&stream)?;
    c.event_done(&end)?;
    let after = one.elapsed(&two)?;
    check!(before == after, "{before} turned into {after}");
    Ok(())
}

fn record_again_after_completion_completes_again(c: &Context) -> Verdict {
    let (stream, event) = (c.stream()?, c.event());
    for round in 0..3 {
        event.record(&stream)?;
        c.event_done(&event)?;
        check!(event.query()?, "not complete in round {round}");
    }
    c.device.synchronize_timeout(c.options.patience)?;
    check!(
        event.query()?,
        "not complete after the device was synchronized"
    );
    Ok(())
}

fn many_records_in_sequence_complete(c: &Context) -> Verdict {
    let (stream, log) = (c.stream()?, c.log()?);
    let events: Vec<_> = (0..50).map(|_| c.event()).collect();
    for (token, event) in (0..).zip(&events) {
        c.append(&stream, &log, token)?;
        event.record(&stream)?;
    }
    for (count, event) in (1..).zip(&events) {
        c.event_done(event)?;
        let seen = log.read()?.len();
        check!(
            seen >= count,
            "marker {count} is complete with {seen} pieces of work done"
        );
    }
    Ok(())
}

fn an_event_moves_between_streams(c: &Context) -> Verdict {
    let (a, b, event) = (c.stream()?, c.stream()?, c.event());
    c.apart(&[&a, &b])?;
    event.record(&a)?;
    c.event_done(&event)?;
    let gate = c.gate(&b)?;
    event.record(&b)?;
    c.moment();
    check!(!event.query()?, "tells of the stream it was on before");
    event.record(&a)?;
    c.event_done(&event)?;
    gate.open();
    c.stream_done(&b)?;
    check!(event.query()?, "complete, then pending without a record");
    Ok(())
}

fn dropping_a_pending_event_disturbs_nobody(c: &Context) -> Verdict {
    let (producer, consumer, log) = (c.stream()?, c.stream()?, c.log()?);
    let gate = c.gate(&producer)?;
    c.append(&producer, &log, 1)?;
    let event = c.event();
    event.record(&producer)?;
    event.wait(&consumer)?;
    let held = event.marker();
    drop(event);
    c.append(&consumer, &log, 2)?;
    let after = consumer.record()?;
    c.moment();
    check!(
        log.read()?.is_empty(),
        "dropping the event released its waiter"
    );
    gate.open();
    c.done(&after)?;
    check!(log.read()? == [1, 2], "the work ran as {:?}", log.read()?);
    if let Some(held) = held {
        c.done(&held)?;
    }
    Ok(())
}

fn dropping_a_stream_lets_its_work_finish(c: &Context) -> Verdict {
    let log = c.log()?;
    let stream = c.stream()?;
    let gate = c.gate(&stream)?;
    c.append(&stream, &log, 1)?;
    let marker = stream.record()?;
    drop(stream);
    gate.open();
    c.done(&marker)?;
    check!(log.read()? == [1], "the work left {:?}", log.read()?);
    Ok(())
}

fn dropping_streams_that_wait_for_each_other_lets_their_work_finish(c: &Context) -> Verdict {
    for_both_kinds(|record| {
        let (one, two, log) = (c.stream()?, c.stream()?, c.log()?);
        let gate = c.gate(&one)?;
        c.append(&one, &log, 1)?;
        two.wait(&one.record()?)?;
        one.wait(&record(&two)?)?;
        let last = one.record()?;
        drop((one, two));
        c.still_pending(&last, "the gate in front of it is closed")?;
        gate.open();
        c.done(&last)?;
        check!(log.read()? == [1], "the work left {:?}", log.read()?);
        Ok(())
    })
}

fn a_new_event_after_drops_starts_fresh(c: &Context) -> Verdict {
    let stream = c.stream()?;
    for _ in 0..100 {
        let event = c.timed();
        check!(
            event.status()? == Status::Unrecorded,
            "it begins with another event's marker"
        );
        check_error!(
            event.elapsed(&event),
            Error::NotRecorded { .. },
            "a fresh event"
        );
        event.record(&stream)?;
    }
    c.stream_done(&stream)?;
    Ok(())
}

fn an_event_holds_a_marker_made_elsewhere(c: &Context) -> Verdict {
    let stream = c.stream()?;
    let (event, timed, end) = (c.event(), c.timed(), c.timed());
    let gate = c.gate(&stream)?;
    let marker = stream.record()?;
    event.set_marker(marker.clone())?;
    timed.set_marker(marker)?;
    end.record(&stream)?;
    c.moment();
    check!(!event.query()?, "complete behind a closed gate");
    gate.open();
    c.event_done(&event)?;
    check!(event.query()?, "pending after it was waited for");
    c.event_done(&end)?;
    check_error!(
        timed.elapsed(&end),
        Error::TimingDisabled { .. },
        "a marker without timing"
    );
    // Recorded again, the event has timing as it was made with.
    timed.record(&stream)?;
    end.record(&stream)?;
    c.event_done(&end)?;
    let time = timed.elapsed(&end)?;
    check!(!time.is_negative(), "{time}");
    let foreign = c.stranger().new_stream()?.record()?;
    check_error!(
        event.set_marker(foreign),
        Error::DeviceMismatch { .. },
        "a marker of another device"
    );
    check!(event.query()?, "changed by a refused marker");
    Ok(())
}
