//! Query, status, synchronize, progress.

use std::{
    sync::mpsc,
    time::{Duration, Instant},
};

use super::case;
use crate::{
    error::Error,
    marker::Status,
    testing::{
        Case,
        context::{Context, Stop, Verdict, check},
    },
};

pub(super) const CASES: &[Case] = &[
    case!("query", query_is_true_without_a_record, []),
    case!(
        "query",
        query_is_false_while_pending_and_true_after,
        [QueryAlwaysTrue, SignalBeforeTheWork]
    ),
    case!(
        "query",
        query_never_blocks_and_may_be_repeated,
        [QueryAlwaysTrue]
    ),
    case!(
        "query",
        status_tells_three_states_apart,
        [QueryAlwaysTrue, SignalBeforeTheWork]
    ),
    case!(
        "query",
        a_stream_tells_whether_it_is_idle,
        [QueryAlwaysTrue, RecordNotSubmitted]
    ),
    case!(
        "synchronize",
        synchronize_without_a_record_returns_at_once,
        []
    ),
    case!(
        "synchronize",
        synchronize_blocks_until_complete,
        [
            SynchronizeReturnsEarly,
            QueryAlwaysTrue,
            SignalBeforeTheWork
        ]
    ),
    case!(
        "synchronize",
        synchronize_may_be_repeated,
        [RecordNotSubmitted]
    ),
    case!("synchronize", a_later_marker_completes_the_earlier_ones, []),
    case!(
        "synchronize",
        a_timeout_explains_itself,
        [
            SynchronizeReturnsEarly,
            QueryAlwaysTrue,
            DeadlineIgnored,
            SignalBeforeTheWork
        ]
    ),
    case!("synchronize", a_timeout_names_the_end_of_the_chain, []),
    case!(
        "synchronize",
        a_timeout_follows_waits_on_the_device,
        [WaitDoesNothing, SignalBeforeTheWork]
    ),
    case!(
        "synchronize",
        a_zero_timeout_looks_once,
        [DeadlineIgnored, SynchronizeReturnsEarly]
    ),
    case!("synchronize", a_timeout_uses_nothing_up, [DeadlineIgnored]),
    case!("synchronize", an_endless_timeout_is_none, []),
    case!(
        "synchronize",
        a_stream_and_its_device_synchronize,
        [SynchronizeReturnsEarly, QueryAlwaysTrue]
    ),
    case!("synchronize", a_device_synchronizes_again_and_again, []),
    case!(
        "synchronize",
        a_waiting_streams_end_completes_what_it_waited_for,
        [WaitDoesNothing, SynchronizeReturnsEarly]
    ),
    case!(
        "synchronize",
        progress_counts_markers,
        [SignalBeforeTheWork]
    ),
];

fn query_is_true_without_a_record(c: &Context) -> Verdict {
    for event in [c.event(), c.timed()] {
        check!(event.query()?, "false before the first record");
    }
    Ok(())
}

fn query_is_false_while_pending_and_true_after(c: &Context) -> Verdict {
    let (stream, event) = (c.stream()?, c.event());
    let gate = c.gate(&stream)?;
    event.record(&stream)?;
    c.moment();
    check!(!event.query()?, "true behind a closed gate");
    gate.open();
    c.event_done(&event)?;
    check!(event.query()?, "false after synchronize");
    Ok(())
}

fn query_never_blocks_and_may_be_repeated(c: &Context) -> Verdict {
    let (stream, event) = (c.stream()?, c.event());
    let gate = c.gate(&stream)?;
    event.record(&stream)?;
    for _ in 0..1000 {
        check!(!event.query()?, "true behind a closed gate");
    }
    // Only this thread opens the gate: if a query blocked, the case would hang.
    gate.open();
    c.event_done(&event)?;
    for _ in 0..1000 {
        check!(event.query()?, "false after it was true");
    }
    Ok(())
}

fn status_tells_three_states_apart(c: &Context) -> Verdict {
    let (stream, event) = (c.stream()?, c.event());
    check!(
        event.status()? == Status::Unrecorded,
        "new: {:?}",
        event.status()?
    );
    let gate = c.gate(&stream)?;
    event.record(&stream)?;
    c.moment();
    check!(
        event.status()? == Status::Pending,
        "held back: {:?}",
        event.status()?
    );
    gate.open();
    c.event_done(&event)?;
    check!(
        event.status()? == Status::Complete,
        "waited for: {:?}",
        event.status()?
    );
    Ok(())
}

fn a_stream_tells_whether_it_is_idle(c: &Context) -> Verdict {
    let (stream, log) = (c.stream()?, c.log()?);
    let gate = c.gate(&stream)?;
    c.append(&stream, &log, 1)?;
    check!(!stream.query()?, "idle behind a closed gate");
    gate.open();
    c.stream_done(&stream)?;
    // A query must submit nothing: an idle stream stays idle while it is asked.
    let idle = stream.record()?;
    c.done(&idle)?;
    check!(idle.query()?, "busy after synchronize");
    Ok(())
}

fn synchronize_without_a_record_returns_at_once(c: &Context) -> Verdict {
    let stream = c.device.default_stream();
    let gate = c.gate(&stream)?;
    let event = c.event();
    event.synchronize()?;
    event.synchronize_timeout(Duration::ZERO)?;
    gate.open();
    c.stream_done(&stream)?;
    Ok(())
}

fn synchronize_blocks_until_complete(c: &Context) -> Verdict {
    let (stream, log, event) = (c.stream()?, c.log()?, c.event());
    let gate = c.gate(&stream)?;
    c.append(&stream, &log, 1)?;
    event.record(&stream)?;
    let marker = event.marker();
    let moment = c.options.moment;
    let opener = std::thread::spawn(move || {
        std::thread::sleep(moment);
        gate.open();
    });
    event.synchronize()?;
    let seen = log.read()?;
    let _ = opener.join();
    check!(seen == [1], "returned with {seen:?} done");
    if let Some(marker) = marker {
        c.done(&marker)?;
    }
    Ok(())
}

fn synchronize_may_be_repeated(c: &Context) -> Verdict {
    let (stream, event) = (c.stream()?, c.event());
    event.record(&stream)?;
    for _ in 0..3 {
        c.event_done(&event)?;
    }
    Ok(())
}

fn a_later_marker_completes_the_earlier_ones(c: &Context) -> Verdict {
    let stream = c.stream()?;
    let gate = c.gate(&stream)?;
    let earlier: Vec<_> = (0..10).map(|_| stream.record()).collect::<Result<_, _>>()?;
    let last = stream.record()?;
    gate.open();
    c.done(&last)?;
    for marker in &earlier {
        check!(marker.query()?, "{last} is complete, {marker} is not");
    }
    Ok(())
}

fn a_timeout_explains_itself(c: &Context) -> Verdict {
    let stream = c.stream()?;
    c.done(&stream.record()?)?;
    let gate = c.gate(&stream)?;
    let marker = stream.record()?;
    let line = line!() - 1;
    let timeout = match marker.synchronize_timeout(c.options.moment) {
        Err(Error::Timeout(timeout)) => timeout,
        other => {
            check!(false, "expected a timeout, got {other:?}");
            return Ok(());
        }
    };
    let text = timeout.to_string();
    check!(
        timeout.marker == marker.value(),
        "it names marker {}",
        timeout.marker
    );
    check!(
        timeout.stream == stream.to_string(),
        "it names {}",
        timeout.stream
    );
    check!(
        timeout.limit == c.options.moment,
        "it names {:?}",
        timeout.limit
    );
    check!(
        timeout.recorded_at.line() == line,
        "it names {}",
        timeout.recorded_at
    );
    check!(timeout.completed < timeout.recorded, "it tells {timeout:?}");
    check!(
        text.contains(&stream.to_string()),
        "the text names no stream: {text}"
    );
    check!(
        text.contains(file!()),
        "the text names no source line: {text}"
    );
    gate.open();
    c.done(&marker)?;
    Ok(())
}

/// All three streams are the device's, and the first is held.
fn a_timeout_follows_waits_on_the_device(c: &Context) -> Verdict {
    let stream = |name| Ok::<_, Error>(c.stream()?.with_name(name));
    let (first, second, third) = (
        stream("the first")?,
        stream("between")?,
        stream("the last")?,
    );
    c.apart(&[&first, &second, &third])?;
    // Earlier waits, which are over, are not told.
    let over = c.stream()?.with_name("over");
    third.wait(&over.record()?)?;
    c.stream_done(&over)?;
    let gate = c.gate(&first)?;
    let held = first.record()?;
    second.wait(&held)?;
    let between = second.record()?;
    third.wait(&between)?;
    let end = third.record()?;
    let start = Instant::now();
    // Streams of host work park a moment after they were submitted.
    let text = loop {
        let Err(early) = end.synchronize_timeout(c.options.moment) else {
            return Err(Stop::Broken("the first is held, but it is complete".into()));
        };
        let text = early.to_string();
        if text.contains("\"the first\"") || start.elapsed() > c.options.patience {
            break text;
        }
    };
    for part in [
        format!("\"the last\" waits for {between}, recorded at {}", file!()),
        format!("\"between\" waits for {held}, recorded at {}", file!()),
    ] {
        check!(text.contains(&part), "\"{part}\" is not in: {text}");
    }
    check!(
        !text.contains("\"over\""),
        "a wait that is over is told: {text}"
    );
    gate.open();
    c.done(&end)?;
    Ok(())
}

/// The last stream is one of the device. It waits, through a host stream, for a closure.
fn a_timeout_names_the_end_of_the_chain(c: &Context) -> Verdict {
    c.can_hold()?;
    let (host, stream) = (c.stranger(), c.stream()?.with_name("the last"));
    let (first, second) = (host.new_stream()?, host.new_stream()?);
    let (go, held) = mpsc::channel::<()>();
    first.launch(move || held.recv().unwrap_or(()))?;
    let launched = line!() - 1;
    second.wait(&first.record()?)?;
    let between = second.record()?;
    stream.wait_foreign(&between)?;
    let end = stream.record()?;
    let start = Instant::now();
    // The closure starts, and the streams park, a moment after they were submitted.
    let text = loop {
        let Err(early) = end.synchronize_timeout(c.options.moment) else {
            return Err(Stop::Broken(
                "the closure is held, but it is complete".into(),
            ));
        };
        let text = early.to_string();
        if text.contains("has been running") || start.elapsed() > c.options.patience {
            break text;
        }
    };
    for part in [
        format!("stuck is {first} (1 stream lies between): it has been running the closure"),
        format!("the closure launched at {}:{launched} for", file!()),
        format!("\"the last\" waits for {between}, recorded at {}", file!()),
    ] {
        check!(
            text.contains(&part),
            "\"{part}\" is not in the text: {text}"
        );
    }
    drop(go);
    c.done(&end)?;
    Ok(())
}

fn a_zero_timeout_looks_once(c: &Context) -> Verdict {
    let stream = c.stream()?;
    let gate = c.gate(&stream)?;
    let marker = stream.record()?;
    let looked = marker.synchronize_timeout(Duration::ZERO);
    check!(
        matches!(looked, Err(Error::Timeout(_))),
        "pending, and it says {looked:?}"
    );
    gate.open();
    c.done(&marker)?;
    marker.synchronize_timeout(Duration::ZERO)?;
    Ok(())
}

fn a_timeout_uses_nothing_up(c: &Context) -> Verdict {
    let (stream, event) = (c.stream()?, c.event());
    let gate = c.gate(&stream)?;
    event.record(&stream)?;
    for _ in 0..3 {
        let early = event.synchronize_timeout(Duration::from_millis(1));
        check!(
            matches!(early, Err(Error::Timeout(_))),
            "pending, and it says {early:?}"
        );
    }
    gate.open();
    c.event_done(&event)?;
    Ok(())
}

fn an_endless_timeout_is_none(c: &Context) -> Verdict {
    let event = c.event();
    event.record(&c.stream()?)?;
    event.synchronize_timeout(Duration::MAX)?;
    Ok(())
}

fn a_stream_and_its_device_synchronize(c: &Context) -> Verdict {
    let (one, two, log) = (c.stream()?, c.stream()?, c.log()?);
    c.apart(&[&one, &two])?;
    let gate = c.gate(&one)?;
    c.append(&one, &log, 1)?;
    c.append(&two, &log, 2)?;
    c.stream_done(&two)?;
    check!(
        log.read()? == [2],
        "one stream waited for the other: {:?}",
        log.read()?
    );
    let early = c.device.synchronize_timeout(c.options.moment);
    check!(
        matches!(early, Err(Error::Timeout(_))),
        "one is held back: {early:?}"
    );
    gate.open();
    c.device.synchronize_timeout(c.options.patience)?;
    check!(log.read()? == [2, 1], "the work ran as {:?}", log.read()?);
    Ok(())
}

fn a_device_synchronizes_again_and_again(c: &Context) -> Verdict {
    // First without any work, then with work that is done.
    for _ in 0..3 {
        c.device.synchronize_timeout(c.options.patience)?;
    }
    let (stream, log) = (c.stream()?, c.log()?);
    c.append(&stream, &log, 1)?;
    for _ in 0..3 {
        c.device.synchronize_timeout(c.options.patience)?;
        check!(log.read()? == [1], "the work left {:?}", log.read()?);
    }
    Ok(())
}

fn a_waiting_streams_end_completes_what_it_waited_for(c: &Context) -> Verdict {
    let (producer, consumer, event) = (c.stream()?, c.stream()?, c.event());
    let gate = c.gate(&producer)?;
    event.record(&producer)?;
    event.wait(&consumer)?;
    let moment = c.options.moment;
    let opener = std::thread::spawn(move || {
        std::thread::sleep(moment);
        gate.open();
    });
    c.stream_done(&consumer)?;
    let complete = event.query()?;
    let _ = opener.join();
    check!(complete, "its waiter is done, and the marker is pending");
    c.stream_done(&producer)?;
    Ok(())
}

fn progress_counts_markers(c: &Context) -> Verdict {
    let stream = c.stream()?;
    let before = stream.progress();
    let gate = c.gate(&stream)?;
    let held = c.event();
    held.record(&stream)?;
    held.record(&stream)?;
    c.moment();
    let pending = stream.progress();
    check!(
        pending.recorded >= before.recorded + 2,
        "recorded: {pending:?} after {before:?}"
    );
    check!(
        pending.completed == before.completed,
        "completed: {pending:?} after {before:?}"
    );
    gate.open();
    c.event_done(&held)?;
    let after = stream.progress();
    check!(
        after.completed >= before.completed + 2,
        "completed: {after:?} after {before:?}"
    );
    check!(
        after.completed <= after.recorded,
        "more complete than recorded: {after:?}"
    );
    Ok(())
}
