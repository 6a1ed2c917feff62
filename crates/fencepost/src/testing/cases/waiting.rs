//! Streams that wait for markers.

use super::case;
use crate::{
    contract::Backend,
    device::Device,
    error::Error,
    testing::{
        Case,
        context::{Context, Stop, Verdict, check, check_error, for_both_kinds},
    },
};

pub(super) const CASES: &[Case] = &[
    case!("wait", waiting_for_an_unrecorded_event_is_a_no_op, []),
    case!(
        "wait",
        a_wait_orders_later_work_after_the_marker,
        [WaitDoesNothing, SignalBeforeTheWork, QueryAlwaysTrue]
    ),
    case!(
        "wait",
        a_wait_never_blocks_the_caller,
        [WaitBlocksTheCaller]
    ),
    case!(
        "wait",
        a_wait_is_for_the_held_marker_not_the_latest,
        [WaitForTheLatest]
    ),
    case!(
        "wait",
        waiting_for_a_complete_marker_is_a_no_op,
        [RecordNotSubmitted]
    ),
    case!(
        "wait",
        waiting_for_a_marker_of_the_same_stream_is_a_no_op,
        []
    ),
    case!(
        "wait",
        several_streams_wait_for_one_event,
        [WaitDoesNothing, SignalBeforeTheWork]
    ),
    case!(
        "wait",
        a_wait_holds_back_its_own_stream_only,
        [WaitDoesNothing]
    ),
    case!(
        "wait",
        work_in_front_of_a_wait_is_not_held_back,
        [WaitBlocksTheCaller]
    ),
    case!(
        "wait",
        waits_order_over_several_streams,
        [WaitDoesNothing, SignalBeforeTheWork]
    ),
    case!(
        "wait",
        a_stream_and_a_device_wait_for_an_unrecorded_event_at_once,
        [RecordNotSubmitted]
    ),
    case!(
        "wait",
        a_stream_waits_for_an_event,
        [WaitDoesNothing, SignalBeforeTheWork, QueryAlwaysTrue]
    ),
    case!(
        "wait",
        every_stream_of_a_device_waits_for_an_event,
        [WaitDoesNothing, SignalBeforeTheWork, QueryAlwaysTrue]
    ),
    case!(
        "wait",
        a_stream_made_after_its_device_waits_is_free,
        [RecordNotSubmitted]
    ),
    case!(
        "wait",
        a_stream_waits_for_several_markers,
        [WaitDoesNothing, SignalBeforeTheWork]
    ),
    case!(
        "wait on another device",
        streams_of_one_api_wait_across_devices,
        [WaitDoesNothing, SignalBeforeTheWork]
    ),
    case!(
        "wait across backends",
        a_host_stream_waits_for_any_marker,
        [SignalBeforeTheWork, QueryAlwaysTrue]
    ),
    case!(
        "wait across backends",
        a_stream_waits_for_the_host_when_asked_to,
        [WaitDoesNothing, SignalBeforeTheWork, QueryAlwaysTrue]
    ),
    case!(
        "wait across backends",
        waits_for_the_host_end_in_their_order,
        [WaitDoesNothing, SignalBeforeTheWork, QueryAlwaysTrue]
    ),
];

fn waiting_for_an_unrecorded_event_is_a_no_op(c: &Context) -> Verdict {
    let (stream, log, event) = (c.stream()?, c.log()?, c.event());
    event.wait(&stream)?;
    c.append(&stream, &log, 1)?;
    c.stream_done(&stream)?;
    check!(log.read()? == [1], "the work left {:?}", log.read()?);
    Ok(())
}

fn a_wait_orders_later_work_after_the_marker(c: &Context) -> Verdict {
    let (producer, consumer) = (c.stream()?, c.stream()?);
    let (log, event) = (c.log()?, c.event());
    let gate = c.gate(&producer)?;
    c.append(&producer, &log, 1)?;
    event.record(&producer)?;
    event.wait(&consumer)?;
    c.append(&consumer, &log, 2)?;
    let after = consumer.record()?;
    c.still_pending(&after, "its stream waits for a marker behind a closed gate")?;
    check!(
        log.read()?.is_empty(),
        "work ran in front of the gate: {:?}",
        log.read()?
    );
    gate.open();
    c.done(&after)?;
    check!(log.read()? == [1, 2], "the work ran as {:?}", log.read()?);
    Ok(())
}

fn a_wait_never_blocks_the_caller(c: &Context) -> Verdict {
    let (producer, consumer, event) = (c.stream()?, c.stream()?, c.event());
    let gate = c.gate(&producer)?;
    event.record(&producer)?;
    for _ in 0..10 {
        event.wait(&consumer)?;
    }
    // Only this thread opens the gate: if a wait blocked, the case would hang.
    gate.open();
    c.stream_done(&consumer)?;
    Ok(())
}

fn a_wait_is_for_the_held_marker_not_the_latest(c: &Context) -> Verdict {
    let (producer, consumer) = (c.stream()?, c.stream()?);
    c.apart(&[&producer, &consumer])?;
    let first_gate = c.gate(&producer)?;
    let event = c.event();
    event.record(&producer)?;
    let second_gate = c.gate(&producer)?;
    let latest = producer.record()?;
    event.wait(&consumer)?;
    let after = consumer.record()?;
    first_gate.open();
    c.done(&after)?;
    check!(!latest.query()?, "the second gate is closed");
    second_gate.open();
    c.done(&latest)?;
    Ok(())
}

fn waiting_for_a_complete_marker_is_a_no_op(c: &Context) -> Verdict {
    let (producer, consumer, event) = (c.stream()?, c.stream()?, c.event());
    c.apart(&[&producer, &consumer])?;
    event.record(&producer)?;
    c.event_done(&event)?;
    let gate = c.gate(&producer)?;
    event.wait(&consumer)?;
    c.stream_done(&consumer)?;
    gate.open();
    c.stream_done(&producer)?;
    Ok(())
}

fn waiting_for_a_marker_of_the_same_stream_is_a_no_op(c: &Context) -> Verdict {
    let (stream, log, event) = (c.stream()?, c.log()?, c.event());
    let gate = c.gate(&stream)?;
    event.record(&stream)?;
    event.wait(&stream)?;
    c.append(&stream, &log, 1)?;
    // If the wait blocked this thread, nothing would open the gate.
    stream.wait(&stream.record()?)?;
    gate.open();
    c.stream_done(&stream)?;
    check!(log.read()? == [1], "the work left {:?}", log.read()?);
    Ok(())
}

fn several_streams_wait_for_one_event(c: &Context) -> Verdict {
    let (producer, log, event) = (c.stream()?, c.log()?, c.event());
    let gate = c.gate(&producer)?;
    c.append(&producer, &log, 0)?;
    event.record(&producer)?;
    let mut ends = Vec::new();
    for token in 1..=4 {
        let consumer = c.stream()?;
        event.wait(&consumer)?;
        c.append(&consumer, &log, token)?;
        ends.push(consumer.record()?);
    }
    c.moment();
    check!(
        log.read()?.is_empty(),
        "work ran in front of the gate: {:?}",
        log.read()?
    );
    gate.open();
    for end in &ends {
        c.done(end)?;
    }
    let mut seen = log.read()?;
    check!(
        seen.first() == Some(&0),
        "the producer's work did not come first: {seen:?}"
    );
    seen.sort_unstable();
    check!(seen == [0, 1, 2, 3, 4], "some work is missing: {seen:?}");
    Ok(())
}

fn a_wait_holds_back_its_own_stream_only(c: &Context) -> Verdict {
    let (producer, consumer, other) = (c.stream()?, c.stream()?, c.stream()?);
    c.apart(&[&producer, &consumer, &other])?;
    let (event, log) = (c.event(), c.log()?);
    let gate = c.gate(&producer)?;
    event.record(&producer)?;
    event.wait(&consumer)?;
    c.append(&consumer, &log, 1)?;
    let held = consumer.record()?;
    c.append(&other, &log, 2)?;
    c.stream_done(&other)?;
    c.still_pending(&held, "its stream waits for a marker behind a closed gate")?;
    check!(log.read()? == [2], "the work ran as {:?}", log.read()?);
    gate.open();
    c.done(&held)?;
    Ok(())
}

fn work_in_front_of_a_wait_is_not_held_back(c: &Context) -> Verdict {
    let (producer, consumer) = (c.stream()?, c.stream()?);
    let (event, log) = (c.event(), c.log()?);
    c.apart(&[&producer, &consumer])?;
    let gate = c.gate(&producer)?;
    event.record(&producer)?;
    c.append(&consumer, &log, 1)?;
    let before = consumer.record()?;
    event.wait(&consumer)?;
    c.append(&consumer, &log, 2)?;
    c.done(&before)?;
    check!(log.read()? == [1], "the work ran as {:?}", log.read()?);
    gate.open();
    c.stream_done(&consumer)?;
    Ok(())
}

fn waits_order_over_several_streams(c: &Context) -> Verdict {
    let log = c.log()?;
    let first = c.stream()?;
    let gate = c.gate(&first)?;
    let mut last = first;
    c.append(&last, &log, 0)?;
    for token in 1..8 {
        let next = c.stream()?;
        let event = c.event();
        event.record(&last)?;
        event.wait(&next)?;
        c.append(&next, &log, token)?;
        last = next;
    }
    let end = last.record()?;
    c.still_pending(&end, "the first of its chain is behind a closed gate")?;
    gate.open();
    c.done(&end)?;
    let seen = log.read()?;
    check!(seen == [0, 1, 2, 3, 4, 5, 6, 7], "the work ran as {seen:?}");
    Ok(())
}

fn a_stream_and_a_device_wait_for_an_unrecorded_event_at_once(c: &Context) -> Verdict {
    let (stream, event) = (c.stream()?, c.event());
    stream.wait_event(&event)?;
    c.device.wait_event(&event)?;
    c.stream_done(&stream)?;
    Ok(())
}

fn a_stream_waits_for_an_event(c: &Context) -> Verdict {
    let (producer, consumer) = (c.stream()?, c.stream()?);
    let (log, event) = (c.log()?, c.event());
    let gate = c.gate(&producer)?;
    c.append(&producer, &log, 1)?;
    event.record(&producer)?;
    consumer.wait_event(&event)?;
    c.append(&consumer, &log, 2)?;
    let after = consumer.record()?;
    c.still_pending(&after, "its stream waits for an event behind a closed gate")?;
    gate.open();
    c.done(&after)?;
    check!(log.read()? == [1, 2], "the work ran as {:?}", log.read()?);
    Ok(())
}

fn every_stream_of_a_device_waits_for_an_event(c: &Context) -> Verdict {
    let (producer, log, event) = (c.stream()?, c.log()?, c.event());
    let consumers = [c.device.default_stream(), c.stream()?, c.stream()?];
    let gate = c.gate(&producer)?;
    c.append(&producer, &log, 0)?;
    event.record(&producer)?;
    c.device.wait_event(&event)?;
    let mut ends = Vec::new();
    for (token, consumer) in (1..).zip(&consumers) {
        c.append(consumer, &log, token)?;
        ends.push(consumer.record()?);
    }
    for end in &ends {
        c.still_pending(end, "its device waits for an event behind a closed gate")?;
    }
    gate.open();
    for end in &ends {
        c.done(end)?;
    }
    // The event's own stream goes on.
    c.stream_done(&producer)?;
    let mut seen = log.read()?;
    check!(
        seen.first() == Some(&0),
        "the event's work did not come first: {seen:?}"
    );
    seen.sort_unstable();
    check!(seen == [0, 1, 2, 3], "some work is missing: {seen:?}");
    Ok(())
}

fn a_stream_made_after_its_device_waits_is_free(c: &Context) -> Verdict {
    let (producer, event) = (c.stream()?, c.event());
    let gate = c.gate(&producer)?;
    event.record(&producer)?;
    c.device.wait_event(&event)?;
    let later = c.stream()?;
    c.apart(&[&producer, &later])?;
    c.stream_done(&later)?;
    check!(!event.query()?, "its gate is closed");
    gate.open();
    c.event_done(&event)?;
    Ok(())
}

fn a_stream_waits_for_several_markers(c: &Context) -> Verdict {
    let (one, two, consumer, log) = (c.stream()?, c.stream()?, c.stream()?, c.log()?);
    let (gate_one, gate_two) = (c.gate(&one)?, c.gate(&two)?);
    c.append(&one, &log, 1)?;
    c.append(&two, &log, 2)?;
    consumer.wait(&one.record()?)?;
    consumer.wait(&two.record()?)?;
    c.append(&consumer, &log, 3)?;
    let end = consumer.record()?;
    gate_two.open();
    c.still_pending(&end, "the first of the two is behind a closed gate")?;
    gate_one.open();
    c.done(&end)?;
    let seen = log.read()?;
    check!(
        seen.last() == Some(&3) && seen.len() == 3,
        "the work ran as {seen:?}"
    );
    Ok(())
}

fn streams_of_one_api_wait_across_devices(c: &Context) -> Verdict {
    let sibling = c.sibling()?;
    let (here, there) = (c.stream()?, sibling.new_stream()?);
    let (log, event) = (c.log()?, c.event());
    // Both ways: the other device waits for this one, and this one for the other.
    let gate = c.gate(&here)?;
    c.append(&here, &log, 1)?;
    event.record(&here)?;
    event.wait(&there)?;
    let passed = there.record()?;
    c.still_pending(&passed, "it waits for a marker behind a closed gate")?;
    let back = c.stream()?;
    back.wait(&passed)?;
    c.append(&back, &log, 2)?;
    let end = back.record()?;
    c.still_pending(
        &end,
        "it waits for the other device, which waits for this one",
    )?;
    gate.open();
    c.done(&end)?;
    check!(log.read()? == [1, 2], "the work ran as {:?}", log.read()?);
    Ok(())
}

fn a_host_stream_waits_for_any_marker(c: &Context) -> Verdict {
    let host = Device::new_host(1).new_stream()?;
    let (stream, log) = (c.stream()?, c.log()?);
    let gate = c.gate(&stream)?;
    c.append(&stream, &log, 1)?;
    let marker = stream.record()?;
    host.wait(&marker)?;
    let after = host.record()?;
    c.still_pending(&after, "it waits for a marker behind a closed gate")?;
    gate.open();
    c.done(&after)?;
    check!(
        log.read()? == [1],
        "released before the work: {:?}",
        log.read()?
    );
    Ok(())
}

fn a_stream_waits_for_the_host_when_asked_to(c: &Context) -> Verdict {
    c.can_hold()?;
    for_both_kinds(|record| {
        let (stream, log) = (c.stream()?, c.log()?);
        let (gate, marker) = c.host_marker(None)?;
        if c.device.backend() != Backend::Host {
            check_error!(
                stream.wait(&marker),
                Error::ForeignWait { .. },
                "a wait for the host that nobody asked for"
            );
        }
        let before = record(&stream)?;
        stream.wait_foreign(&marker)?;
        c.append(&stream, &log, 1)?;
        let after = record(&stream)?;
        c.done(&before)?;
        let why = "it waits for a marker of a host stream that is held";
        c.still_pending(&after, why)?;
        let Err(early) = after.synchronize_timeout(c.options.moment) else {
            return Err(Stop::Broken(format!("{why}, but it is complete")));
        };
        check!(
            early.to_string().contains(&marker.to_string()),
            "the timeout does not name {marker}: {early}"
        );
        gate.open();
        c.done(&after)?;
        check!(log.read()? == [1], "the work left {:?}", log.read()?);
        // A marker that is complete holds up nothing.
        stream.wait_foreign(&marker)?;
        c.stream_done(&stream)?;
        Ok(())
    })
}

fn waits_for_the_host_end_in_their_order(c: &Context) -> Verdict {
    c.can_hold()?;
    for_both_kinds(|record| {
        let stream = c.stream()?;
        let ((gate_one, one), (gate_two, two)) = (c.host_marker(None)?, c.host_marker(None)?);
        stream.wait_foreign(&one)?;
        let first = record(&stream)?;
        stream.wait_foreign(&two)?;
        let second = record(&stream)?;
        gate_two.open();
        c.done(&two)?;
        for held in [&first, &second] {
            c.still_pending(held, "the first host stream is held")?;
        }
        gate_one.open();
        c.done(&second)?;
        check!(
            first.query()?,
            "a later marker is complete, this one is not"
        );
        Ok(())
    })
}
