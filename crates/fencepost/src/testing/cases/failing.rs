//! What a failure does to its stream and to those that wait for it.

use std::{
    error::Error as _,
    sync::{Arc, Barrier, mpsc},
    thread,
    time::Duration,
};

use super::case;
use crate::{
    Marker, Stream,
    error::Error,
    testing::{
        Case,
        context::{Context, Stop, Verdict, check, check_error, for_both_kinds},
    },
};

pub(super) const CASES: &[Case] = &[
    case!(
        "failure",
        a_failure_is_an_error_and_never_false,
        [FailureLooksPending, QueryAlwaysTrue]
    ),
    case!(
        "failure",
        a_failure_sticks_to_its_stream,
        [FirstErrorForgotten, QueryAlwaysTrue]
    ),
    case!(
        "failure",
        the_first_cause_is_what_everyone_sees,
        [FirstErrorForgotten, QueryAlwaysTrue]
    ),
    case!("failure", work_behind_a_failure_never_runs, []),
    case!(
        "failure",
        work_in_front_of_a_failure_stays_complete,
        [RecordNotSubmitted]
    ),
    case!(
        "failure",
        waiting_for_a_failed_marker_fails_the_waiter,
        [WaitDoesNothing, FailureStopsAtTheWait]
    ),
    case!(
        "failure",
        a_stream_that_waits_already_is_released_and_fails,
        [WaitDoesNothing, SignalBeforeTheWork]
    ),
    case!(
        "failure",
        a_thread_that_waits_already_is_released,
        [
            SynchronizeReturnsEarly,
            QueryAlwaysTrue,
            SignalBeforeTheWork
        ]
    ),
    case!("failure", a_failure_travels_along_waits, [WaitDoesNothing]),
    case!(
        "failure",
        a_host_failure_fails_whoever_waits_for_it_at_any_distance,
        [WaitDoesNothing, SignalBeforeTheWork]
    ),
    case!(
        "failure",
        a_failure_is_told_while_another_wait_holds_the_stream,
        [WaitDoesNothing, SignalBeforeTheWork]
    ),
    case!(
        "failure",
        other_streams_are_not_harmed,
        [RecordNotSubmitted]
    ),
    case!(
        "failure",
        a_time_of_a_failed_marker_is_its_failure,
        [QueryAlwaysTrue]
    ),
    case!(
        "failure",
        clear_error_makes_a_stream_usable,
        [RecordNotSubmitted]
    ),
    case!(
        "failure",
        clear_error_without_a_failure_does_nothing,
        [RecordNotSubmitted]
    ),
    case!("failure", a_failed_marker_stays_failed, [QueryAlwaysTrue]),
    case!(
        "failure",
        a_panic_in_host_work_is_the_cause,
        [QueryAlwaysTrue]
    ),
    case!(
        "failure",
        an_error_that_host_work_returns_is_the_cause,
        [QueryAlwaysTrue]
    ),
    case!("deadlock", host_work_that_waits_for_itself_is_refused, []),
    case!(
        "deadlock",
        host_work_of_two_streams_in_a_circle_is_refused,
        []
    ),
    case!("deadlock", a_circle_through_a_waiting_stream_is_refused, []),
    case!(
        "deadlock",
        host_work_that_waits_behind_a_stream_held_by_it_is_refused,
        [RecordNotSubmitted]
    ),
    case!(
        "deadlock",
        host_work_may_wait_for_other_streams,
        [RecordNotSubmitted]
    ),
];

fn a_failure_is_an_error_and_never_false(c: &Context) -> Verdict {
    let (stream, event) = (c.stream()?, c.event());
    c.fail(&stream, "asked for")?;
    event.record(&stream)?;
    let _ = c.event_done(&event);
    c.is_failure(event.query(), "asked for")?;
    c.is_failure(event.status(), "asked for")?;
    c.is_failure(c.event_done(&event), "asked for")
}

fn a_failure_sticks_to_its_stream(c: &Context) -> Verdict {
    let stream = c.stream()?;
    c.fail(&stream, "sticky")?;
    c.failed(&stream.record()?, "sticky")?;
    for _ in 0..3 {
        c.failed(&stream.record()?, "sticky")?;
    }
    c.is_failure(c.stream_done(&stream), "sticky")?;
    let error = stream.error();
    check!(error.is_some(), "the stream tells of no failure");
    Ok(())
}

fn the_first_cause_is_what_everyone_sees(c: &Context) -> Verdict {
    let stream = c.stream()?;
    c.fail(&stream, "the first")?;
    c.failed(&stream.record()?, "the first")?;
    // Whether it is refused or skipped, a second failure must not replace the first.
    let _ = c.fail(&stream, "the second");
    c.failed(&stream.record()?, "the first")?;
    Ok(())
}

fn work_behind_a_failure_never_runs(c: &Context) -> Verdict {
    let (stream, log) = (c.stream()?, c.log()?);
    let gate = c.gate(&stream)?;
    c.append(&stream, &log, 1)?;
    c.fail(&stream, "in the middle")?;
    c.append(&stream, &log, 2)?;
    let end = stream.record()?;
    gate.open();
    c.failed(&end, "in the middle")?;
    let _ = c.append(&stream, &log, 3);
    c.moment();
    check!(log.read()? == [1], "the work ran as {:?}", log.read()?);
    Ok(())
}

fn work_in_front_of_a_failure_stays_complete(c: &Context) -> Verdict {
    let stream = c.stream()?;
    let gate = c.gate(&stream)?;
    let before = stream.record()?;
    c.fail(&stream, "after a marker")?;
    let behind = stream.record()?;
    gate.open();
    c.done(&before)?;
    c.failed(&behind, "after a marker")?;
    check!(before.query()?, "the marker in front was taken back");
    Ok(())
}

fn waiting_for_a_failed_marker_fails_the_waiter(c: &Context) -> Verdict {
    let (dead, waiter, log) = (c.stream()?, c.stream()?, c.log()?);
    c.fail(&dead, "upstream")?;
    let marker = dead.record()?;
    c.failed(&marker, "upstream")?;
    waiter.wait(&marker)?;
    let _ = c.append(&waiter, &log, 1);
    let after = waiter.record()?;
    c.failed(&after, "upstream")?;
    check!(log.read()?.is_empty(), "work ran behind a failed wait");
    let error = c.stream_done(&waiter).err();
    let hops = error
        .as_ref()
        .and_then(Error::cause)
        .map(|cause| cause.hops());
    check!(hops == Some(1), "the cause is not chained: {error:?}");
    Ok(())
}

fn a_stream_that_waits_already_is_released_and_fails(c: &Context) -> Verdict {
    let (dead, waiter, log) = (c.stream()?, c.stream()?, c.log()?);
    let gate = c.gate(&dead)?;
    c.fail(&dead, "upstream")?;
    waiter.wait(&dead.record()?)?;
    c.append(&waiter, &log, 1)?;
    let after = waiter.record()?;
    c.still_pending(&after, "it waits for a marker behind a closed gate")?;
    gate.open();
    c.failed(&after, "upstream")?;
    check!(log.read()?.is_empty(), "work ran behind a failed wait");
    Ok(())
}

fn a_thread_that_waits_already_is_released(c: &Context) -> Verdict {
    let stream = c.stream()?;
    let gate = c.gate(&stream)?;
    c.fail(&stream, "under a waiter")?;
    let marker = stream.record()?;
    let moment = c.options.moment;
    let opener = thread::spawn(move || {
        thread::sleep(moment);
        gate.open();
    });
    let verdict = c.failed(&marker, "under a waiter");
    let _ = opener.join();
    verdict
}

fn a_failure_travels_along_waits(c: &Context) -> Verdict {
    let first = c.stream()?;
    let gate = c.gate(&first)?;
    c.fail(&first, "far upstream")?;
    let mut last = first;
    for _ in 0..5 {
        let next = c.stream()?;
        next.wait(&last.record()?)?;
        last = next;
    }
    let end = last.record()?;
    gate.open();
    c.failed(&end, "far upstream")
}

fn a_host_failure_fails_whoever_waits_for_it_at_any_distance(c: &Context) -> Verdict {
    c.can_hold()?;
    const CAUSE: &str = "no more paper";
    for_both_kinds(|record| {
        let streams = [c.stream()?, c.stream()?, c.stream()?, c.stream()?];
        let (gate, marker) = c.host_marker(Some(CAUSE))?;
        let before = record(&streams[0])?;
        streams[0].wait_foreign(&marker)?;
        let mut last = record(&streams[0])?;
        let mut ends = vec![last.clone()];
        let in_front = streams[1].record()?;
        for stream in &streams[1..] {
            stream.wait(&last)?;
            last = record(stream)?;
            ends.push(last.clone());
        }
        let unharmed = c.stream()?;
        unharmed.wait(&before)?;
        gate.open();
        for (hops, end) in (1..).zip(&ends) {
            let error = c.done(end).err();
            let cause = error.as_ref().and_then(Error::cause);
            check!(
                cause.is_some_and(|cause| cause.root().contains(CAUSE) && cause.hops() == hops),
                "\"{CAUSE}\" is {hops} waits away, but the error is {error:?}"
            );
        }
        c.done(&before)?;
        c.done(&in_front)?;
        c.stream_done(&unharmed)?;
        for stream in &streams {
            c.is_failure(c.stream_done(stream), CAUSE)?;
            check!(stream.error().is_some(), "{stream} tells of no failure");
            c.failed(&stream.record()?, CAUSE)?;
            stream.clear_error()?;
            c.stream_done(stream)?;
        }
        Ok(())
    })
}

fn a_failure_is_told_while_another_wait_holds_the_stream(c: &Context) -> Verdict {
    c.can_hold()?;
    const CAUSE: &str = "under two waits";
    let (held, behind) = (c.stream()?, c.stream()?);
    let (failing, one) = c.host_marker(Some(CAUSE))?;
    let (holding, two) = c.host_marker(None)?;
    held.wait_foreign(&one)?;
    held.wait_foreign(&two)?;
    let first = held.record()?;
    behind.wait(&first)?;
    let second = behind.record()?;
    // Callbacks and threads that are asleep when the failure comes, and calls that come after it.
    let (tell, told) = mpsc::channel();
    let (patience, markers) = (c.options.patience, [&first, &second]);
    let mut asleep = Vec::new();
    for marker in markers {
        let (by_callback, by_thread) = (tell.clone(), tell.clone());
        marker.on_complete(move |result| drop(by_callback.send(result)))?;
        let marker = marker.clone();
        asleep.push(thread::spawn(move || {
            drop(by_thread.send(marker.synchronize_timeout(patience)));
        }));
    }
    c.still_pending(&second, "it is behind two waits for the host")?;
    failing.open();
    let mut verdicts: Vec<Verdict> = markers.map(|marker| c.failed(marker, CAUSE)).into();
    for _ in 0..4 {
        verdicts.push(match told.recv_timeout(patience / 2) {
            Ok(result) => c.is_failure(result, CAUSE),
            Err(_) => Err(Stop::Broken(
                "a sleeping thread or callback was not told".into(),
            )),
        });
    }
    holding.open();
    for thread in asleep {
        let _ = thread.join();
    }
    verdicts.into_iter().collect()
}

fn other_streams_are_not_harmed(c: &Context) -> Verdict {
    let (dead, well, log) = (c.stream()?, c.stream()?, c.log()?);
    c.fail(&dead, "elsewhere")?;
    c.failed(&dead.record()?, "elsewhere")?;
    c.append(&well, &log, 1)?;
    c.stream_done(&well)?;
    check!(log.read()? == [1], "the work left {:?}", log.read()?);
    let fresh = c.stream()?;
    c.stream_done(&fresh)?;
    Ok(())
}

fn a_time_of_a_failed_marker_is_its_failure(c: &Context) -> Verdict {
    let (stream, start, end) = (c.stream()?, c.timed(), c.timed());
    start.record(&stream)?;
    c.event_done(&start)?;
    c.fail(&stream, "timed")?;
    end.record(&stream)?;
    let _ = c.event_done(&end);
    c.is_failure(start.elapsed_time(&end), "timed")?;
    c.is_failure(end.elapsed_time(&start), "timed")?;
    c.is_failure(start.elapsed(&end), "timed")
}

fn clear_error_makes_a_stream_usable(c: &Context) -> Verdict {
    let (stream, log, event) = (c.stream()?, c.log()?, c.event());
    for round in 1..=3 {
        c.fail(&stream, "to be cleared")?;
        event.record(&stream)?;
        c.is_failure(c.event_done(&event), "to be cleared")?;
        stream.clear_error()?;
        check!(stream.error().is_none(), "the failure is still there");
        c.append(&stream, &log, round)?;
        event.record(&stream)?;
        c.event_done(&event)?;
        check!(event.query()?, "not complete after waiting for it");
    }
    check!(
        log.read()? == [1, 2, 3],
        "the work ran as {:?}",
        log.read()?
    );
    Ok(())
}

fn clear_error_without_a_failure_does_nothing(c: &Context) -> Verdict {
    let stream = c.stream()?;
    let gate = c.gate(&stream)?;
    let marker = stream.record()?;
    stream.clear_error()?;
    check!(!marker.query()?, "complete behind a closed gate");
    gate.open();
    c.done(&marker)?;
    Ok(())
}

fn a_failed_marker_stays_failed(c: &Context) -> Verdict {
    let (stream, event) = (c.stream()?, c.event());
    c.fail(&stream, "for good")?;
    event.record(&stream)?;
    let Some(marker) = event.marker() else {
        check!(false, "a recorded event holds no marker");
        return Ok(());
    };
    c.failed(&marker, "for good")?;
    stream.clear_error()?;
    c.stream_done(&stream)?;
    // Later markers of the stream are complete; this one stays failed.
    c.failed(&marker, "for good")?;
    c.is_failure(event.query(), "for good")
}

fn a_panic_in_host_work_is_the_cause(c: &Context) -> Verdict {
    c.needs_host_work()?;
    let stream = c.stream()?;
    stream.launch(|| std::panic::resume_unwind(Box::new("spilled the milk")))?;
    let line = line!() - 1;
    let marker = stream.record()?;
    c.failed(&marker, "spilled the milk")?;
    c.failed(&marker, &format!("{}:{line}", file!()))?;
    check_error!(
        stream.launch(|| {}),
        Error::StreamFailed { .. },
        "work on a failed stream"
    );
    Ok(())
}

fn an_error_that_host_work_returns_is_the_cause(c: &Context) -> Verdict {
    c.needs_host_work()?;
    let (stream, next) = (c.stream()?, c.stream()?);
    stream.try_launch(|| Ok::<_, Error>(()))?;
    let before = stream.record()?;
    stream.try_launch(|| Err(std::io::Error::other("the milk is off")))?;
    let line = line!() - 1;
    let marker = stream.record()?;
    c.done(&before)?;
    c.failed(&marker, &format!("{}:{line}", file!()))?;
    c.failed(&marker, "returned an error: the milk is off")?;
    let error = c.done(&marker).unwrap_err();
    let cause = error.cause().and_then(|cause| cause.source());
    check!(
        cause.is_some_and(|cause| cause.is::<std::io::Error>()),
        "the cause of \"{error}\" has the source {cause:?} in place of the error"
    );
    // A failure that work passes on keeps its first cause.
    next.try_launch(move || marker.synchronize())?;
    let error = c.stream_done(&next).unwrap_err();
    let hops = error.cause().map(|cause| cause.hops());
    check!(hops == Some(1), "it came by {hops:?} waits: {error}");
    c.is_failure(Err::<(), _>(error), "the milk is off")
}

/// Runs `work` on `stream` and returns its result.
fn in_work<T: Send + 'static>(
    c: &Context,
    stream: &Stream,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Stop> {
    let (tell, told) = mpsc::channel();
    stream.launch(move || drop(tell.send(work())))?;
    told.recv_timeout(c.options.patience)
        .map_err(|_| Stop::Broken("host work hangs".into()))
}

fn host_work_that_waits_for_itself_is_refused(c: &Context) -> Verdict {
    c.needs_host_work()?;
    let stream = c.stream()?;
    let own = stream.clone();
    let result = in_work(c, &stream, move || own.synchronize())?;
    check_error!(result, Error::WouldDeadlock { .. }, "its own stream");
    let own = stream.clone();
    let result = in_work(c, &stream, move || own.device().synchronize())?;
    check_error!(result, Error::WouldDeadlock { .. }, "its own device");
    let (own, event) = (stream.clone(), c.event());
    let result = in_work(c, &stream, move || {
        event.record(&own)?;
        event.synchronize_timeout(Duration::from_secs(3600))
    })?;
    check_error!(
        result,
        Error::WouldDeadlock { .. },
        "its own event, with a deadline far off"
    );
    c.stream_done(&stream)?;
    Ok(())
}

fn host_work_of_two_streams_in_a_circle_is_refused(c: &Context) -> Verdict {
    c.needs_host_work()?;
    let (one, two) = (c.stream()?, c.stream()?);
    let barrier = Arc::new(Barrier::new(2));
    let (tell, told) = mpsc::channel();
    for (own, other) in [(&one, &two), (&two, &one)] {
        let (other, barrier, tell) = (other.clone(), barrier.clone(), tell.clone());
        own.launch(move || {
            // Both are running: each now waits for a marker behind the other.
            barrier.wait();
            let _ = tell.send(other.record().and_then(|marker| marker.synchronize()));
        })?;
    }
    drop(tell);
    let mut refused = 0;
    for _ in 0..2 {
        match told.recv_timeout(c.options.patience) {
            Ok(Ok(())) => {}
            Ok(Err(Error::WouldDeadlock { cycle })) => {
                check!(
                    cycle.contains(&one.to_string()),
                    "the text names no stream: {cycle}"
                );
                refused += 1;
            }
            Ok(Err(other)) => return Err(other.into()),
            Err(_) => check!(false, "the circle hangs"),
        }
    }
    check!(refused >= 1, "both waits returned, and neither was refused");
    c.stream_done(&one)?;
    c.stream_done(&two)?;
    Ok(())
}

fn a_circle_through_a_waiting_stream_is_refused(c: &Context) -> Verdict {
    c.needs_host_work()?;
    let (one, two) = (c.stream()?, c.stream()?);
    let (tell, told) = mpsc::channel();
    let (own, other) = (one.clone(), two.clone());
    one.launch(move || {
        let circle = || {
            // The other stream waits for a marker behind this work, and this work for that stream.
            other.wait(&own.record()?)?;
            other.record()?.synchronize()
        };
        let _ = tell.send(circle());
    })?;
    match told.recv_timeout(c.options.patience) {
        Ok(result) => check_error!(result, Error::WouldDeadlock { .. }, "a circle of two"),
        Err(_) => check!(false, "the circle hangs"),
    }
    c.stream_done(&two)?;
    Ok(())
}

fn host_work_that_waits_behind_a_stream_held_by_it_is_refused(c: &Context) -> Verdict {
    c.can_hold()?;
    for_both_kinds(|record| {
        let (held, host) = (c.stream()?, c.stranger().new_stream()?);
        let gate = c.gate(&held)?;
        let before = record(&held)?;
        let (give, given) = mpsc::channel::<[Marker; 2]>();
        let (tell, told) = mpsc::channel();
        let patience = c.options.patience;
        host.launch(move || {
            let Ok([before, behind]) = given.recv() else {
                return;
            };
            // The work in front of the wait completes, though the stream is held behind it.
            let front = before.synchronize_timeout(patience);
            drop(tell.send((front, behind.synchronize())));
        })?;
        held.wait_foreign(&host.record()?)?;
        let behind = record(&held)?;
        let _ = give.send([before, behind]);
        c.moment();
        gate.open();
        let Ok((front, circle)) = told.recv_timeout(patience * 3 / 2) else {
            return Err(Stop::Broken("the circle hangs".into()));
        };
        front?;
        check_error!(
            circle,
            Error::WouldDeadlock { .. },
            "a stream held by this very work"
        );
        c.stream_done(&held)?;
        c.stream_done(&host)?;
        Ok(())
    })
}

fn host_work_may_wait_for_other_streams(c: &Context) -> Verdict {
    c.needs_host_work()?;
    // More pieces of work block than any pool has workers.
    let (last, log) = (c.stream()?, c.log()?);
    let gate = c.gate(&last)?;
    c.append(&last, &log, 1)?;
    let awaited = last.record()?;
    let patience = c.options.patience;
    let ends: Vec<_> = (0..32)
        .map(|_| {
            let (stream, awaited) = (c.stream()?, awaited.clone());
            stream.launch(move || {
                if awaited.synchronize_timeout(patience).is_err() {
                    std::panic::resume_unwind(Box::new("gave up"));
                }
            })?;
            stream.record()
        })
        .collect::<Result<_, _>>()?;
    gate.open();
    for end in &ends {
        c.done(end)?;
    }
    Ok(())
}
