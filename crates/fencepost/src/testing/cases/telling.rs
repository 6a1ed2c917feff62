//! Callbacks and futures.

use std::{
    future::{Future, IntoFuture},
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    task::{Context as Task, Poll, Wake, Waker},
    time::{Duration, Instant},
};

use super::case;
use crate::{
    error::{Error, Result},
    marker::Marker,
    testing::{
        Case,
        context::{Context, Stop, Verdict, check},
    },
};

pub(super) const CASES: &[Case] = &[
    case!(
        "on complete",
        a_callback_runs_once_after_completion,
        [SignalBeforeTheWork, RecordNotSubmitted]
    ),
    case!(
        "on complete",
        a_callback_of_a_complete_marker_runs_soon,
        [RecordNotSubmitted]
    ),
    case!(
        "on complete",
        a_callback_of_an_unrecorded_event_runs_soon,
        []
    ),
    case!(
        "on complete",
        callbacks_run_in_order_of_completion,
        [RecordNotSubmitted]
    ),
    case!(
        "on complete",
        callbacks_keep_their_order_whoever_else_asks,
        [RecordNotSubmitted]
    ),
    case!(
        "on complete",
        a_callback_runs_without_the_callers_locks,
        [RecordNotSubmitted]
    ),
    case!(
        "on complete",
        a_callback_may_use_every_call,
        [RecordNotSubmitted, FailureLooksPending]
    ),
    case!(
        "on complete",
        a_panic_in_a_callback_is_caught,
        [RecordNotSubmitted]
    ),
    case!(
        "on complete",
        a_callback_learns_of_a_failure,
        [RecordNotSubmitted]
    ),
    case!(
        "on complete",
        awaiting_wakes_on_completion,
        [SignalBeforeTheWork, QueryAlwaysTrue, RecordNotSubmitted]
    ),
    case!("on complete", awaiting_an_unrecorded_event_is_ready, []),
    case!(
        "on complete",
        awaiting_a_failure_is_an_error,
        [QueryAlwaysTrue]
    ),
    case!(
        "on complete",
        dropping_a_future_cancels_the_wake_up_alone,
        [RecordNotSubmitted]
    ),
];

/// Runs a future on this thread; `None` if it is not ready after `patience`.
fn block_on<F: Future>(future: F, patience: Duration) -> Option<F::Output> {
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let deadline = Instant::now() + patience;
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Task::from_waker(&waker)) {
            return Some(output);
        }
        let left = deadline.checked_duration_since(Instant::now())?;
        std::thread::park_timeout(left);
    }
}

/// What a callback sent; an error if it never ran.
fn told<T>(c: &Context, told: &mpsc::Receiver<T>) -> Result<T, Stop> {
    told.recv_timeout(c.options.patience)
        .map_err(|_| Stop::Broken("the callback never came".into()))
}

fn a_callback_runs_once_after_completion(c: &Context) -> Verdict {
    let (stream, log, event) = (c.stream()?, c.log()?, c.event());
    let gate = c.gate(&stream)?;
    c.append(&stream, &log, 1)?;
    event.record(&stream)?;
    let (tell, heard) = mpsc::channel();
    let seen = log.clone();
    event.on_complete(move |result| {
        let _ = tell.send((result.is_ok(), seen.read()));
    })?;
    c.moment();
    check!(
        heard.try_recv().is_err(),
        "the callback came while the marker is pending"
    );
    gate.open();
    let (ok, seen) = told(c, &heard)?;
    check!(ok, "the callback was told of a failure");
    check!(seen? == [1], "the callback came before the work");
    c.stream_done(&stream)?;
    c.moment();
    check!(heard.try_recv().is_err(), "the callback came twice");
    Ok(())
}

fn a_callback_of_a_complete_marker_runs_soon(c: &Context) -> Verdict {
    let event = c.event();
    event.record(&c.stream()?)?;
    c.event_done(&event)?;
    let (tell, heard) = mpsc::channel();
    event.on_complete(move |result| tell.send(result.is_ok()).unwrap_or(()))?;
    check!(told(c, &heard)?, "the callback was told of a failure");
    Ok(())
}

fn a_callback_of_an_unrecorded_event_runs_soon(c: &Context) -> Verdict {
    let (tell, heard) = mpsc::channel();
    c.event()
        .on_complete(move |result| tell.send(result.is_ok()).unwrap_or(()))?;
    check!(told(c, &heard)?, "the callback was told of a failure");
    Ok(())
}

fn callbacks_run_in_order_of_completion(c: &Context) -> Verdict {
    let stream = c.stream()?;
    let gate = c.gate(&stream)?;
    let markers: Vec<_> = (0..50).map(|_| stream.record()).collect::<Result<_>>()?;
    let (tell, heard) = mpsc::channel();
    // Registered in reverse, so that the order of registration cannot look like that of completion.
    for (number, marker) in markers.iter().enumerate().rev() {
        let tell = tell.clone();
        marker.on_complete(move |_| tell.send(number).unwrap_or(()))?;
    }
    gate.open();
    for expected in 0..markers.len() {
        let number = told(c, &heard)?;
        check!(
            number == expected,
            "callback {number} came in place of {expected}"
        );
    }
    Ok(())
}

/// Threads that ask learn of completion too, and then register callbacks of their own.
fn callbacks_keep_their_order_whoever_else_asks(c: &Context) -> Verdict {
    const ROUNDS: usize = 10;
    const MARKERS: usize = 30;
    const ASKERS: usize = 2;
    let stream = c.stream()?;
    for round in 0..ROUNDS {
        let gate = c.gate(&stream)?;
        let markers: Vec<_> = (0..MARKERS)
            .map(|_| stream.record())
            .collect::<Result<_>>()?;
        let (tell, heard) = mpsc::channel();
        for (number, marker) in markers.iter().enumerate().rev() {
            let tell = tell.clone();
            marker.on_complete(move |_| tell.send((number, false)).unwrap_or(()))?;
        }
        let askers = [(); ASKERS].map(|()| {
            let (markers, tell, patience) = (markers.clone(), tell.clone(), c.options.patience);
            std::thread::spawn(move || ask_and_call_back(&markers, &tell, patience))
        });
        gate.open();
        let mut next = 0;
        for _ in 0..MARKERS * (1 + ASKERS) {
            let (number, is_late) = told(c, &heard)?;
            if is_late {
                check!(
                    number < next,
                    "round {round}: a late callback of marker {number} came before {next}"
                );
            } else {
                check!(
                    number == next,
                    "round {round}: callback {number} came in place of {next}"
                );
                next += 1;
            }
        }
        for asker in askers {
            let _ = asker.join();
        }
    }
    Ok(())
}

/// Asks each marker until it is complete, and has a late callback of it tell its number.
fn ask_and_call_back(
    markers: &[Marker],
    tell: &mpsc::Sender<(usize, bool)>,
    patience: Duration,
) -> Result<()> {
    let start = Instant::now();
    for (number, marker) in markers.iter().enumerate() {
        while !marker.query()? {
            if start.elapsed() > patience {
                return Ok(());
            }
            std::thread::yield_now();
        }
        let tell = tell.clone();
        marker.on_complete(move |_| tell.send((number, true)).unwrap_or(()))?;
    }
    Ok(())
}

fn a_callback_runs_without_the_callers_locks(c: &Context) -> Verdict {
    let (stream, event) = (c.stream()?, c.event());
    event.record(&stream)?;
    c.event_done(&event)?;
    let lock = Arc::new(Mutex::new(()));
    let (tell, heard) = mpsc::channel();
    let held = lock.lock().unwrap_or_else(PoisonError::into_inner);
    let theirs = lock.clone();
    // If the callback ran on this thread, it would never get the lock.
    event.on_complete(move |_| {
        drop(theirs.lock());
        let _ = tell.send(());
    })?;
    drop(held);
    told(c, &heard)
}

fn a_callback_may_use_every_call(c: &Context) -> Verdict {
    let (stream, other) = (c.stream()?, c.stream()?);
    let event = Arc::new(c.timed());
    event.record(&stream)?;
    let (tell, heard) = mpsc::channel();
    let (inner, patience) = (event.clone(), c.options.patience);
    let nested = tell.clone();
    event.on_complete(move |result| {
        let work = || -> Result<f64> {
            result?;
            inner.record(&other)?;
            inner.wait(&stream)?;
            inner.synchronize_timeout(patience)?;
            inner.on_complete(move |result| drop(nested.send(result.map(|()| 0.0))))?;
            inner.query()?;
            inner.elapsed_time(&inner)
        };
        let _ = tell.send(work());
    })?;
    // One from the callback, and one from the callback that it registered.
    for _ in 0..2 {
        let time = told(c, &heard)??;
        check!(time == 0.0, "{time} ms from an event to itself");
    }
    let (dead, tell_dead) = (c.stream()?, mpsc::channel());
    c.fail(&dead, "in front of a callback")?;
    let marker = dead.record()?;
    let _ = c.done(&marker);
    let again = marker.clone();
    marker.on_complete(move |_| drop(tell_dead.0.send(again.query())))?;
    c.is_failure(told(c, &tell_dead.1)?, "in front of a callback")
}

fn a_panic_in_a_callback_is_caught(c: &Context) -> Verdict {
    let (stream, event) = (c.stream()?, c.event());
    let before = c.device.callback_panics();
    event.record(&stream)?;
    // Without the panic hook: a panic that the case asks for needs no report.
    event.on_complete(|_| std::panic::resume_unwind(Box::new("a callback's own fault")))?;
    let (tell, heard) = mpsc::channel();
    event.on_complete(move |result| tell.send(result.is_ok()).unwrap_or(()))?;
    check!(told(c, &heard)?, "the next callback was told of a failure");
    let panics = c.device.callback_panics() - before;
    check!(panics >= 1, "the panic was not counted");
    c.stream_done(&stream)?;
    Ok(())
}

fn a_callback_learns_of_a_failure(c: &Context) -> Verdict {
    let stream = c.stream()?;
    let gate = c.gate(&stream)?;
    c.fail(&stream, "told to a callback")?;
    let marker = stream.record()?;
    let (tell, heard) = mpsc::channel();
    let late = tell.clone();
    marker.on_complete(move |result| drop(tell.send(result)))?;
    gate.open();
    c.is_failure(told(c, &heard)?, "told to a callback")?;
    marker.on_complete(move |result| drop(late.send(result)))?;
    c.is_failure(told(c, &heard)?, "told to a callback")
}

fn awaiting_wakes_on_completion(c: &Context) -> Verdict {
    let (stream, log, event) = (c.stream()?, c.log()?, c.event());
    let gate = c.gate(&stream)?;
    c.append(&stream, &log, 1)?;
    event.record(&stream)?;
    let moment = c.options.moment;
    let opener = std::thread::spawn(move || {
        std::thread::sleep(moment);
        gate.open();
    });
    let outcome = block_on((&event).into_future(), c.options.patience);
    let seen = log.read()?;
    let _ = opener.join();
    match outcome {
        Some(result) => result?,
        None => check!(false, "the future never woke"),
    }
    check!(seen == [1], "ready with {seen:?} done");
    // The marker's own future too, now that it is complete.
    let again = event
        .marker()
        .map(|m| block_on(m.into_future(), c.options.patience));
    check!(
        matches!(again, Some(Some(Ok(())))),
        "complete, and not ready: {again:?}"
    );
    Ok(())
}

fn awaiting_an_unrecorded_event_is_ready(c: &Context) -> Verdict {
    let outcome = block_on((&c.event()).into_future(), c.options.patience);
    check!(matches!(outcome, Some(Ok(()))), "got {outcome:?}");
    Ok(())
}

fn awaiting_a_failure_is_an_error(c: &Context) -> Verdict {
    let stream = c.stream()?;
    c.fail(&stream, "awaited")?;
    match block_on(stream.record()?.into_future(), c.options.patience) {
        Some(result) => c.is_failure(result, "awaited"),
        None => Err(Stop::Broken("the future never woke".into())),
    }
}

fn dropping_a_future_cancels_the_wake_up_alone(c: &Context) -> Verdict {
    struct Count(AtomicUsize);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let (stream, log) = (c.stream()?, c.log()?);
    let gate = c.gate(&stream)?;
    c.append(&stream, &log, 1)?;
    let marker = stream.record()?;
    let count = Arc::new(Count(AtomicUsize::new(0)));
    let waker = Waker::from(count.clone());
    for _ in 0..10 {
        let mut future = Box::pin(marker.clone().into_future());
        let polled = future.as_mut().poll(&mut Task::from_waker(&waker));
        check!(polled.is_pending(), "ready behind a closed gate");
    }
    // This function's and the waker's: the dropped futures keep none.
    let owners = Arc::strong_count(&count);
    check!(owners == 2, "{} wakers are still registered", owners - 2);
    gate.open();
    c.done(&marker)?;
    check!(log.read()? == [1], "the work left {:?}", log.read()?);
    check!(
        count.0.load(Ordering::SeqCst) == 0,
        "a dropped future was woken"
    );
    Ok::<(), Error>(()).map_err(Stop::from)
}
