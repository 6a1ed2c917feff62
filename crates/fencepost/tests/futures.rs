//! `.await` on markers and events, in tokio and without a runtime.
#![cfg(not(loom))]

use std::{
    future::{Future, IntoFuture},
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::Thread,
    time::Duration,
};

use fencepost::{Device, Error, Event, testing::work};

/// A minimal executor: polls, parks, and polls again.
fn block_on<T>(future: impl IntoFuture<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future.into_future());
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        std::thread::park();
    }
}

#[test]
fn a_bare_block_on_awaits_a_marker_and_an_event() {
    let device = Device::open("host").unwrap();
    let stream = device.new_stream().unwrap();
    for _ in 0..100 {
        let event = Event::new(&device);
        stream.launch(|| {}).unwrap();
        event.record(&stream).unwrap();
        block_on(&event).unwrap();
        assert!(event.query().unwrap());
        stream.launch(|| {}).unwrap();
        block_on(stream.record().unwrap()).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokio_awaits_a_hundred_markers_at_once() {
    let device = Device::open("host").unwrap();
    let gates_and_markers: Vec<_> = (0..100)
        .map(|_| {
            let stream = device.new_stream().unwrap();
            let gate = work::gate(&stream).unwrap();
            (gate, stream.record().unwrap())
        })
        .collect();
    let (gates, markers): (Vec<_>, Vec<_>) = gates_and_markers.into_iter().unzip();
    let tasks: Vec<_> = markers
        .into_iter()
        .map(|marker| tokio::spawn(async move { marker.await }))
        .collect();
    tokio::task::yield_now().await;
    drop(gates);
    for task in tasks {
        task.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_timeout_of_tokio_gives_up_and_the_device_goes_on() {
    let device = Device::open("host").unwrap();
    let stream = device.new_stream().unwrap();
    let gate = work::gate(&stream).unwrap();
    let event = Event::new(&device);
    event.record(&stream).unwrap();
    for _ in 0..10 {
        let early = tokio::time::timeout(Duration::from_millis(1), (&event).into_future()).await;
        assert!(early.is_err(), "the stream is held back");
    }
    gate.open();
    (&event).await.unwrap();
}

#[tokio::test]
async fn awaiting_a_failed_marker_tells_the_cause() {
    let stream = Device::open("host").unwrap().new_stream().unwrap();
    work::fail(&stream, "seen by a task").unwrap();
    let error = stream.record().unwrap().await.unwrap_err();
    assert!(matches!(error, Error::StreamFailed { .. }));
    assert!(error.to_string().contains("seen by a task"), "{error}");
}

#[test]
fn a_future_moves_between_executors() {
    let stream = Device::open("host").unwrap().new_stream().unwrap();
    let gate = work::gate(&stream).unwrap();
    let mut future = Box::pin(stream.record().unwrap().into_future());
    // Polled here with a waker that does nothing, then on another thread: the last waker is woken.
    let polled = future
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()));
    assert!(polled.is_pending());
    let elsewhere = std::thread::spawn(move || block_on(future));
    std::thread::sleep(Duration::from_millis(20));
    gate.open();
    elsewhere.join().unwrap().unwrap();
}

#[test]
fn a_waker_that_panics_harms_nobody_else() {
    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            std::panic::resume_unwind(Box::new("a waker's own fault"));
        }
    }
    let stream = Device::open("host").unwrap().new_stream().unwrap();
    let gate = work::gate(&stream).unwrap();
    let marker = stream.record().unwrap();
    let waker = Waker::from(Arc::new(Panics));
    let mut bad = Box::pin(marker.clone().into_future());
    assert!(
        bad.as_mut()
            .poll(&mut Context::from_waker(&waker))
            .is_pending()
    );
    let good = std::thread::spawn(move || block_on(marker));
    std::thread::sleep(Duration::from_millis(20));
    gate.open();
    good.join().unwrap().unwrap();
    stream.synchronize().unwrap();
}

/// What a waker unwinds with may panic when it is dropped. Whoever else waits is woken.
#[test]
fn a_waker_that_panics_twice_keeps_nobody_from_being_woken() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            // A panic in a panic ends the process.
            if !std::thread::panicking() {
                std::panic::resume_unwind(Box::new("the payload's drop"));
            }
        }
    }
    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            std::panic::resume_unwind(Box::new(Bomb));
        }
    }
    let device = Device::new_host(2);
    let stream = device.new_stream().unwrap();
    let gate = work::gate(&stream).unwrap();
    let marker = stream.record().unwrap();
    let waker = Waker::from(Arc::new(Panics));
    let mut first = Box::pin((&marker).into_future());
    let polled = first.as_mut().poll(&mut Context::from_waker(&waker));
    assert!(polled.is_pending());
    let waits = std::thread::spawn(move || marker.synchronize_timeout(fencepost_sim::HANG_TIMEOUT));
    let then = stream.record().unwrap();
    let awaited = std::thread::spawn(move || block_on(then));
    gate.open();
    waits.join().unwrap().unwrap();
    awaited.join().unwrap().unwrap();
    stream
        .synchronize_timeout(fencepost_sim::HANG_TIMEOUT)
        .unwrap();
}
