//! Forks: what a child may do with what its parent opened, and with devices of its own.
#![cfg(all(unix, not(loom)))]

use std::{
    future::{Future as _, IntoFuture as _},
    io::{Read as _, Write as _},
    pin::pin,
    sync::mpsc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use fencepost::{
    Device, Error, Event, Gate, Result, Status, WaitSet, bindings, synchronize_all,
    synchronize_any, testing::work, trace::Trace,
};

mod common;

/// Longer than anything here takes, unless it hangs.
const PATIENCE: Duration = fencepost_sim::HANG_TIMEOUT;

/// Runs `child` in a forked child, and checks that it ends well.
fn in_a_forked_child(child: impl FnOnce()) {
    // SAFETY: the parent's other threads are workers of the library, idle; the child calls nothing
    // but this crate, which is what is tested, and _exit.
    match unsafe { libc::fork() } {
        -1 => panic!("fork failed"),
        0 => {
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child));
            // SAFETY: ends the child at once, without what its parent would do at exit.
            unsafe { libc::_exit(i32::from(outcome.is_err())) }
        }
        pid => {
            let mut status = 0;
            // SAFETY: `status` is a valid place for an int, and `pid` is a child of ours.
            assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
            assert_eq!(status, 0, "the child's checks failed");
        }
    }
}

/// What a task sees when it polls `future` once.
fn poll_once<T>(future: impl Future<Output = T>) -> Poll<T> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

fn is_told(call: &str, result: Result<()>) {
    assert!(
        matches!(result, Err(Error::Forked { .. })),
        "{call}: expected Forked, got {result:?}"
    );
}

#[test]
fn a_child_is_told_by_every_call_that_needs_the_parents_threads() {
    common::in_a_process_of_its_own(|| {
        let device = Device::open("host").unwrap();
        let (idle, held) = (device.new_stream().unwrap(), device.new_stream().unwrap());
        let gate = work::gate(&held).unwrap();
        let (done, pending, fresh) = (
            Event::with_timing(&device),
            Event::with_timing(&device),
            Event::new(&device),
        );
        done.record(&idle).unwrap();
        done.synchronize().unwrap();
        pending.record(&held).unwrap();
        let (complete, open) = (done.marker().unwrap(), pending.marker().unwrap());
        let behind = device.new_stream().unwrap();
        let closed = Gate::with_limit(&device, Duration::MAX).unwrap();
        closed.wait(&behind).unwrap();
        let mut polled = Box::pin((&pending).into_future());
        let waker = Waker::noop();
        assert!(
            polled
                .as_mut()
                .poll(&mut Context::from_waker(waker))
                .is_pending()
        );
        let (mut set, mut looked_at) = (WaitSet::new(), WaitSet::new());
        for set in [&mut set, &mut looked_at] {
            set.insert(1, &open);
            let looked = set.synchronize_next_timeout(Duration::from_millis(1));
            assert!(matches!(looked, Err(Error::Timeout(_))), "{looked:?}");
        }
        in_a_forked_child(|| {
            is_told("synchronize_all", synchronize_all([&open]));
            is_told("synchronize_any", synchronize_any([&open]).unwrap().1);
            let looked = bindings::look_for_ended(&mut looked_at);
            is_told("look_for_ended", looked.unwrap().1);
            let next = set.synchronize_next().unwrap();
            is_told("synchronize_next", next.unwrap().1);
            let own = Device::new_host(1).new_stream().unwrap();
            own.launch(|| std::thread::sleep(Duration::from_millis(10)))
                .unwrap();
            let marker = own.record().unwrap();
            set.insert(2, &marker);
            let next = set.synchronize_next().unwrap();
            is_told("synchronize_next, of the child's own", next.unwrap().1);
            assert!(set.synchronize_next().unwrap().is_none());
            synchronize_all([&marker]).unwrap();
            drop(set);
            is_told("launch, idle", idle.launch(|| {}));
            is_told("launch, held", held.launch(|| {}));
            is_told("Stream::record, idle", idle.record().map(drop));
            is_told("record_timed", held.record_timed().map(drop));
            is_told("Event::record, idle", fresh.record(&idle));
            is_told("Event::record, again", done.record(&idle));
            is_told("Event::wait, complete", done.wait(&idle));
            is_told("Event::wait, pending", pending.wait(&idle));
            is_told("Stream::wait", idle.wait(&open));
            is_told("Stream::wait_foreign", idle.wait_foreign(&open));
            is_told("Gate::wait", closed.wait(&idle));
            is_told("Gate::new", Gate::new(&device).map(drop));
            closed.open();
            closed.fail("the child");
            assert!(!closed.is_open(), "it is the parent's");
            is_told("Stream::query", idle.query().map(drop));
            is_told("Stream::synchronize", idle.synchronize());
            is_told("Stream::error", idle.error().map_or(Ok(()), Err));
            is_told("clear_error", idle.clear_error());
            is_told("new_stream", device.new_stream().map(drop));
            is_told("Device::synchronize", device.synchronize());
            is_told(
                "Device::synchronize_timeout",
                device.synchronize_timeout(PATIENCE),
            );
            is_told(
                "on_complete, complete",
                done.on_complete(|_| unreachable!()),
            );
            is_told(
                "on_complete, pending",
                pending.on_complete(|_| unreachable!()),
            );
            is_told("on_complete, none", fresh.on_complete(|_| unreachable!()));
            is_told(
                "Marker::on_complete",
                complete.on_complete(|_| unreachable!()),
            );
            is_told("query, pending", pending.query().map(drop));
            is_told("status, pending", pending.status().map(drop));
            is_told("Marker::query, pending", open.query().map(drop));
            is_told("synchronize, pending", pending.synchronize());
            is_told("Marker::synchronize, pending", open.synchronize());
            is_told("synchronize_timeout", pending.synchronize_timeout(PATIENCE));
            is_told("elapsed, pending", done.elapsed(&pending).map(drop));
            is_told(
                "elapsed_time, pending",
                done.elapsed_time(&pending).map(drop),
            );
            let Poll::Ready(awaited) = poll_once((&pending).into_future()) else {
                panic!("await: expected Forked, and it waits");
            };
            is_told("await", awaited);
            let again = polled.as_mut().poll(&mut Context::from_waker(waker));
            assert!(
                matches!(again, Poll::Ready(Err(Error::Forked { .. }))),
                "{again:?}"
            );
            // What is known stays known.
            assert!(done.query().unwrap() && complete.query().unwrap() && fresh.query().unwrap());
            assert_eq!(done.status().unwrap(), Status::Complete);
            assert_eq!(fresh.status().unwrap(), Status::Unrecorded);
            done.synchronize().unwrap();
            complete.synchronize().unwrap();
            assert_eq!(done.elapsed_time(&done).unwrap(), 0.0);
            assert!(held.progress().recorded > 0);
            drop((
                polled, done, pending, fresh, idle, held, complete, open, device,
            ));
        });
        gate.open();
        assert!(!closed.is_open() && !behind.query().unwrap());
        closed.open();
        behind.synchronize_timeout(PATIENCE).unwrap();
    });
}

#[test]
fn a_child_opens_a_host_device_of_its_own() {
    common::in_a_process_of_its_own(|| {
        let of_parent = Device::open("host").unwrap();
        of_parent.default_stream().launch(|| {}).unwrap();
        of_parent.synchronize().unwrap();
        let (stuck, pending) = (of_parent.new_stream().unwrap(), Event::new(&of_parent));
        let gate = work::gate(&stuck).unwrap();
        pending.record(&stuck).unwrap();
        in_a_forked_child(|| {
            let device = Device::open("host").unwrap();
            assert_ne!(device, of_parent);
            assert_eq!(
                device,
                Device::open("host").unwrap(),
                "one for the whole child"
            );
            let stream = device.new_stream().unwrap();
            let event = Event::with_timing(&device);
            let (tell, told) = mpsc::channel();
            let tell_again = tell.clone();
            stream.launch(move || tell.send("ran").unwrap()).unwrap();
            event.record(&stream).unwrap();
            event
                .on_complete(move |_| tell_again.send("called").unwrap())
                .unwrap();
            event.synchronize_timeout(PATIENCE).unwrap();
            assert_eq!(told.recv_timeout(PATIENCE).unwrap(), "ran");
            assert_eq!(told.recv_timeout(PATIENCE).unwrap(), "called");
            // Events of the parent mean nothing to it.
            is_told("wait for the parent's", pending.wait(&stream));
            is_told("Stream::wait", stream.wait(&pending.marker().unwrap()));
            is_told("record the parent's", pending.record(&stream));
            stream.synchronize().unwrap();
            in_a_forked_child(|| {
                is_told("grandchild", stream.record().map(drop));
                let device = Device::open("host").unwrap();
                device.default_stream().launch(|| {}).unwrap();
                device.synchronize_timeout(PATIENCE).unwrap();
            });
        });
        gate.open();
    });
}

/// How a child is forked in a closure that a thread of the library runs.
type Forks = fn() -> libc::pid_t;

/// A child that hangs is ended by a signal.
fn fork() -> libc::pid_t {
    // SAFETY: the child calls nothing but this crate, which is what is tested, and alarm.
    unsafe {
        let child = libc::fork();
        if child == 0 {
            libc::alarm(60);
        }
        child
    }
}

/// Checks that the child ends with status 0 by itself.
fn ends_well(child: libc::pid_t) {
    let mut status = 0;
    // SAFETY: `status` is a valid place for an int, and `child` is a child of ours.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0);
}

/// Such a child runs nothing of its parent's but the closure that it was forked in.
#[test]
fn a_child_forked_in_host_work_or_a_callback_ends_with_it() {
    const IN_THE_CLOSURE: Forks = || match fork() {
        0 => fencepost::blocking(|| 0),
        child => child,
    };
    const IN_A_BLOCKING_CALL: Forks = || fencepost::blocking(fork);
    const IN_A_PANIC: Forks = || match fork() {
        0 => std::panic::resume_unwind(Box::new("in the child")),
        child => child,
    };
    common::in_a_process_of_its_own(|| {
        let device = Device::new_host(1);
        let stream = device.new_stream().unwrap();
        for forks in [IN_THE_CLOSURE, IN_A_BLOCKING_CALL, IN_A_PANIC] {
            for in_a_callback in [false, true] {
                let (tell, told) = mpsc::channel();
                let (mut written, mut next) = std::io::pipe().unwrap();
                let closure = move || match forks() {
                    0 => {}
                    child => tell.send(child).unwrap(),
                };
                let mut after = move || next.write_all(b"x").unwrap();
                if in_a_callback {
                    let marker = stream.record().unwrap();
                    marker.on_complete(move |_| closure()).unwrap();
                    marker.on_complete(move |_| after()).unwrap();
                } else {
                    stream.launch(closure).unwrap();
                    stream.launch(after).unwrap();
                }
                ends_well(told.recv_timeout(PATIENCE).unwrap());
                let mut all = String::new();
                written.read_to_string(&mut all).unwrap();
                assert_eq!(all, "x", "what comes next runs in the parent alone");
            }
        }
        stream.synchronize_timeout(PATIENCE).unwrap();
    });
}

#[test]
fn a_child_touches_nothing_of_its_parents_trace_and_may_make_one() {
    common::in_a_process_of_its_own(|| {
        let stream = Device::open("host").unwrap().new_stream().unwrap();
        let trace = Trace::new();
        trace.span("before", &stream).end();
        let (open, host) = (
            trace.span("open", &stream).into_owned(),
            trace.host_span("host").into_owned(),
        );
        let mut guards = Some((open, host, trace.clone()));
        in_a_forked_child(|| {
            trace.host_span("child").end();
            trace.span("child", &stream).end();
            trace.instant("child", &stream).with("number", 1);
            trace.host_instant("child");
            drop(guards.take());
            assert_eq!(trace.collect().finished, 0);
            let own = Trace::new();
            let stream = Device::open("host").unwrap().new_stream().unwrap();
            let (one, two) = (own.span("own", &stream), own.host_span("own"));
            drop((one, two));
            stream.synchronize().unwrap();
            assert_eq!(own.collect().finished, 2);
            drop(trace.clone());
        });
        drop(guards);
        stream.synchronize().unwrap();
        let summary = trace.collect();
        assert_eq!((summary.finished, summary.dropped), (3, 0), "{summary}");
    });
}
