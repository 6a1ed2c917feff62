//! Many threads, and many markers.

use std::{
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use super::case;
use crate::{
    contract::Backend,
    error::{Error, Result},
    marker::Status,
    testing::{
        Case,
        context::{Context, Stop, Verdict, check},
    },
};

pub(super) const CASES: &[Case] = &[
    case!(
        "threads",
        one_event_is_used_by_many_threads,
        [RecordNotSubmitted]
    ),
    case!(
        "threads",
        a_blocked_thread_stops_no_other_call,
        [RecordNotSubmitted, SynchronizeReturnsEarly, QueryAlwaysTrue]
    ),
    case!(
        "threads",
        many_threads_wait_for_one_marker,
        [SynchronizeReturnsEarly, QueryAlwaysTrue]
    ),
    case!(
        "threads",
        an_event_is_dropped_by_another_thread,
        [RecordNotSubmitted]
    ),
    case!(
        "a full queue",
        a_hundred_thousand_records_may_be_pending,
        [RecordBlocks]
    ),
];

/// Joins threads that return a result each.
fn join(handles: Vec<thread::JoinHandle<Result<()>>>) -> Verdict {
    for handle in handles {
        match handle.join() {
            Ok(result) => result?,
            Err(_) => return Err(Stop::Broken("a thread panicked".into())),
        }
    }
    Ok(())
}

fn one_event_is_used_by_many_threads(c: &Context) -> Verdict {
    let event = Arc::new(c.timed());
    let handles = (0..8)
        .map(|_| {
            let (event, stream) = (event.clone(), c.stream()?);
            let patience = c.options.patience;
            Ok(thread::spawn(move || {
                for _ in 0..200 {
                    event.record(&stream)?;
                    event.wait(&stream)?;
                    event.query()?;
                    event.status()?;
                    event.synchronize_timeout(patience)?;
                    event.elapsed_time(&event)?;
                }
                Ok(())
            }))
        })
        .collect::<Result<Vec<_>>>()?;
    join(handles)?;
    c.event_done(&event)?;
    check!(
        event.status()? == Status::Complete,
        "status is {:?}",
        event.status()?
    );
    Ok(())
}

fn a_blocked_thread_stops_no_other_call(c: &Context) -> Verdict {
    let (held, free, event) = (c.stream()?, c.stream()?, Arc::new(c.event()));
    let other = c.stream()?;
    c.apart(&[&held, &free, &other])?;
    let gate = c.gate(&held)?;
    event.record(&held)?;
    let blocked = {
        let (event, patience) = (event.clone(), c.options.patience);
        thread::spawn(move || event.synchronize_timeout(patience))
    };
    c.moment();
    // Every call on the same event, while a thread is blocked on the marker it held.
    check!(!event.query()?, "true behind a closed gate");
    event.wait(&free)?;
    event.record(&other)?;
    c.event_done(&event)?;
    event.on_complete(|_| {})?;
    drop(event);
    let finished = blocked.is_finished();
    gate.open();
    join(vec![blocked])?;
    check!(
        !finished,
        "the blocked thread came back before the gate opened"
    );
    c.stream_done(&free)?;
    Ok(())
}

fn many_threads_wait_for_one_marker(c: &Context) -> Verdict {
    let (stream, log) = (c.stream()?, c.log()?);
    let gate = c.gate(&stream)?;
    c.append(&stream, &log, 1)?;
    let marker = stream.record()?;
    let waiters = (0..16).map(|_| {
        let (marker, log, patience) = (marker.clone(), log.clone(), c.options.patience);
        thread::spawn(move || {
            marker.synchronize_timeout(patience)?;
            match log.read()?.len() {
                1 => Ok(()),
                _ => Err(Error::not_ready("awaited", marker.to_string())),
            }
        })
    });
    let waiters: Vec<_> = waiters.collect();
    c.moment();
    gate.open();
    join(waiters)
}

fn an_event_is_dropped_by_another_thread(c: &Context) -> Verdict {
    let stream = c.stream()?;
    let gate = c.gate(&stream)?;
    let event = c.event();
    event.record(&stream)?;
    join(vec![thread::spawn(move || {
        drop(event);
        Ok(())
    })])?;
    gate.open();
    c.stream_done(&stream)?;
    Ok(())
}

fn a_hundred_thousand_records_may_be_pending(c: &Context) -> Verdict {
    const RECORDS: u64 = 100_000;
    // A Vulkan driver may block a submit while its queue is full. NVIDIA's does so after about
    // 6,550 submits, and reports the device as lost after ten seconds. On Vulkan, and wgpu on
    // it, the gate opens before that.
    const AT_LEAST: u64 = 1_000;
    let may_block = matches!(c.device.backend(), Backend::Vulkan | Backend::Wgpu30);
    let (stream, event) = (c.stream()?, c.event());
    let gate = c.gate(&stream)?;
    let (recorded_all, wait) = mpsc::channel::<()>();
    let watched = stream.clone();
    let opener = thread::spawn(move || {
        let limit = if may_block { 4 } else { 3600 };
        let late = wait.recv_timeout(Duration::from_secs(limit));
        let progress = watched.progress();
        gate.open();
        (late == Err(RecvTimeoutError::Timeout)).then_some(progress.recorded)
    });
    let mut failed = None;
    for _ in 0..RECORDS {
        if let Err(error) = event.record(&stream) {
            failed = Some(error);
            break;
        }
    }
    let progress = stream.progress();
    drop(recorded_all);
    let blocked_at = opener.join().ok().flatten();
    if let Some(error) = failed {
        return Err(error.into());
    }
    let pending = progress.recorded - progress.completed;
    match blocked_at {
        Some(recorded) => check!(recorded >= AT_LEAST, "blocked with {recorded} pending"),
        None => check!(pending >= RECORDS, "{pending} are pending of {RECORDS}"),
    }
    // A slow device may take long, as long as it makes progress.
    let mut completed = stream.progress().completed;
    while let Err(error) = c.event_done(&event) {
        let now = stream.progress().completed;
        if now == completed {
            return Err(error.into());
        }
        completed = now;
    }
    Ok(())
}
