//! The end of a process while everything is in use. Each test runs in a process of its own.
#![cfg(all(unix, not(loom)))]

use std::{
    process::{Output, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use fencepost::{Device, Error, Event, Gate, Marker, Stream, testing::work};

mod common;

/// Objects that live until the process ends.
struct Statics {
    device: Device,
    event: Event,
    pending: Event,
    marker: Marker,
    stream: Stream,
    held: Stream,
}

static STATICS: OnceLock<Statics> = OnceLock::new();

/// Fills the statics with events in every state, and with callbacks that never run.
fn fill() -> &'static Statics {
    STATICS.get_or_init(|| {
        let device = Device::open("host").unwrap();
        let (stream, held) = (device.new_stream().unwrap(), device.new_stream().unwrap());
        let (event, pending) = (Event::with_timing(&device), Event::new(&device));
        event.record(&stream).unwrap();
        event.synchronize().unwrap();
        // The gate is never opened or dropped.
        std::mem::forget(work::gate(&held).unwrap());
        pending.record(&held).unwrap();
        pending
            .on_complete(|_| unreachable!("the gate never opens"))
            .unwrap();
        stream.wait(&pending.marker().unwrap()).unwrap();
        stream
            .launch(|| unreachable!("the gate never opens"))
            .unwrap();
        let marker = stream.record().unwrap();
        Statics {
            device,
            event,
            pending,
            marker,
            stream,
            held,
        }
    })
}

/// Makes every call that may come late: none may crash, hang or print.
fn use_all(statics: &Statics) {
    assert!(statics.event.query().unwrap());
    assert!(!statics.pending.query().unwrap());
    assert!(!statics.marker.query().unwrap());
    statics.event.record(&statics.held).unwrap();
    drop(Event::new(&statics.device));
    let dropped = Event::with_timing(&statics.device);
    dropped.record(&statics.held).unwrap();
    drop(dropped);
    drop(statics.stream.clone());
}

thread_local! {
    static LOCAL: OnDrop = const { OnDrop };
}
struct OnDrop;
impl Drop for OnDrop {
    fn drop(&mut self) {
        use_all(fill());
    }
}

/// The child of a fork has the memory and none of the threads.
fn fork(statics: &Statics) {
    // SAFETY: the parent's other threads are workers of the library, idle on a futex; the child
    // calls nothing but this crate, which is what is tested, and _exit.
    match unsafe { libc::fork() } {
        -1 => panic!("fork failed"),
        0 => {
            let outcome = std::panic::catch_unwind(|| {
                // Known results need no thread; what else there is says why it never completes.
                assert!(statics.event.query().unwrap());
                statics.event.marker().unwrap();
                let pending = [
                    statics.pending.query().map(drop),
                    statics.marker.query().map(drop),
                    statics.event.record(&statics.held),
                ];
                for result in pending {
                    assert!(matches!(result, Err(Error::Forked { .. })), "{result:?}");
                }
                drop(Event::new(&statics.device));
                drop(statics.stream.clone());
                match statics.marker.synchronize() {
                    Err(Error::Forked { .. }) => {}
                    other => panic!("expected Forked, got {other:?}"),
                }
                match statics
                    .pending
                    .synchronize_timeout(Duration::from_secs(3600))
                {
                    Err(Error::Forked { .. }) => {}
                    other => panic!("expected Forked, got {other:?}"),
                }
                // Nothing would run a callback of it, so none is taken.
                match statics.event.on_complete(|_| panic!("no thread runs this")) {
                    Err(Error::Forked { .. }) => {}
                    other => panic!("expected Forked, got {other:?}"),
                }
                // Pools and devices of the parent are dropped silently.
                drop(statics.device.clone());
            });
            // SAFETY: ends the child at once, without the destructors of the parent's statics.
            unsafe { libc::_exit(i32::from(outcome.is_err())) }
        }
        child => {
            let mut status = 0;
            // SAFETY: `status` is a valid place for an int, and `child` is our own.
            assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
            assert_eq!(status, 0, "the child's checks failed");
            // The parent works as before.
            use_all(statics);
            let stream = statics.device.new_stream().unwrap();
            stream.launch(|| {}).unwrap();
            stream.synchronize().unwrap();
            std::process::exit(0);
        }
    }
}

/// Runs `scenario`, which ends its process, in a process of its own: the test `name` once more,
/// told by a variable that it is the child.
fn ends_quietly(name: &str, scenario: fn(&'static Statics)) {
    if common::is_child() {
        scenario(fill());
        unreachable!("a scenario ends its process");
    }
    let mut child = common::child(name)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + fencepost_sim::HANG_TIMEOUT;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("the child hangs");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let Output {
        status,
        stdout,
        stderr,
    } = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&stderr);
    // The process ends in the middle of its only test.
    let ran = String::from_utf8_lossy(&stdout).contains("running 1 test");
    assert!(ran, "the child did not run {name}");
    assert!(status.success(), "{status:?}: {text}");
    assert!(text.is_empty(), "it prints: {text}");
}

#[test]
fn exit_with_events_in_statics_and_pending_callbacks_is_quiet() {
    let name = "exit_with_events_in_statics_and_pending_callbacks_is_quiet";
    ends_quietly(name, |_| std::process::exit(0));
}

#[test]
fn exit_while_host_work_runs_does_not_wait_for_it() {
    ends_quietly(
        "exit_while_host_work_runs_does_not_wait_for_it",
        |statics| {
            let stream = statics.device.new_stream().unwrap();
            let (tell, told) = std::sync::mpsc::channel();
            let long = move || {
                tell.send(()).unwrap();
                std::thread::sleep(Duration::from_secs(3600));
            };
            stream.launch(long).unwrap();
            told.recv().unwrap();
            std::process::exit(0)
        },
    );
}

#[test]
fn exit_with_a_closed_gate_is_quiet() {
    ends_quietly("exit_with_a_closed_gate_is_quiet", |statics| {
        static GATE: OnceLock<Gate> = OnceLock::new();
        let gate = GATE.get_or_init(|| Gate::new(&statics.device).unwrap());
        let stream = statics.device.new_stream().unwrap();
        gate.wait(&stream).unwrap();
        stream
            .launch(|| unreachable!("the gate never opens"))
            .unwrap();
        std::process::exit(0);
    });
}

#[test]
fn exit_handlers_may_still_use_events() {
    ends_quietly("exit_handlers_may_still_use_events", |_| {
        extern "C" fn late() {
            use_all(fill());
        }
        // SAFETY: `late` takes and returns nothing and unwinds into nobody, as atexit(3) asks: a
        // panic in an extern "C" function ends the process, which is what the test would see.
        assert_eq!(unsafe { libc::atexit(late) }, 0);
        std::process::exit(0)
    });
}

#[test]
fn destructors_of_thread_locals_may_still_use_events() {
    ends_quietly("destructors_of_thread_locals_may_still_use_events", |_| {
        std::thread::spawn(|| LOCAL.with(|_| {})).join().unwrap();
        std::process::exit(0)
    });
}

#[test]
fn a_forked_child_gets_errors_and_no_hangs() {
    ends_quietly("a_forked_child_gets_errors_and_no_hangs", fork);
}
