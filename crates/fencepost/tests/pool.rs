//! The pool of a host device: work that blocks by means which the library does not know, and how
//! many threads run at once.
#![cfg(not(loom))]

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use fencepost::{Device, Error, HostOptions, Stream};

/// Only a hang takes longer.
const PATIENCE: Duration = fencepost_sim::HANG_TIMEOUT;

/// Work that blocks until it is released, each piece on a stream of its own.
struct Blocked {
    release: mpsc::Sender<()>,
    streams: Vec<Stream>,
}

impl Blocked {
    fn on(device: &Device, count: usize) -> Blocked {
        let (release, released) = mpsc::channel();
        let released = Arc::new(Mutex::new(released));
        let streams = (0..count).map(|_| {
            let (stream, released) = (device.new_stream().unwrap(), released.clone());
            let work = move || {
                let _ = released.lock().unwrap().recv();
            };
            stream.launch(work).unwrap();
            stream
        });
        Blocked {
            streams: streams.collect(),
            release,
        }
    }

    fn release(self) {
        for _ in &self.streams {
            self.release.send(()).unwrap();
        }
        for stream in &self.streams {
            stream.synchronize_timeout(PATIENCE).unwrap();
        }
    }
}

/// Keeps a core busy, without a system call.
fn compute(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        std::hint::spin_loop();
    }
}

#[test]
fn work_behind_more_blocked_pieces_than_any_fixed_number_of_threads_runs() {
    let device = Device::new_host(2);
    let blocked = Blocked::on(&device, 600);
    let last = device.new_stream().unwrap();
    last.launch(|| {}).unwrap();
    last.synchronize_timeout(PATIENCE).unwrap();
    blocked.release();
}

/// Without sleeping: a worker that sleeps for a lock is one that blocks, and is replaced.
#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
fn note_this_thread(threads: &Mutex<HashSet<thread::ThreadId>>) {
    loop {
        if let Ok(mut threads) = threads.try_lock() {
            threads.insert(thread::current().id());
            return;
        }
        thread::yield_now();
    }
}

// Elsewhere the library cannot tell a thread that computes from one that blocks.
#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
#[test]
fn work_that_computes_runs_on_no_more_threads_than_the_pool_has_workers() {
    let device = Device::new_host(2);
    let threads = Arc::new(Mutex::new(HashSet::new()));
    let streams: Vec<_> = (0..10_000)
        .map(|_| {
            let (stream, threads) = (device.new_stream().unwrap(), threads.clone());
            let work = move || {
                compute(Duration::from_micros(20));
                note_this_thread(&threads);
            };
            stream.launch(work).unwrap();
            stream
        })
        .collect();
    for stream in &streams {
        stream.synchronize_timeout(PATIENCE).unwrap();
    }
    // Much longer than a look at the threads takes, so that a worker is seen at work often.
    for stream in &streams[..20] {
        let threads = threads.clone();
        let work = move || {
            compute(Duration::from_millis(20));
            note_this_thread(&threads);
        };
        stream.launch(work).unwrap();
    }
    for stream in &streams {
        stream.synchronize_timeout(PATIENCE).unwrap();
    }
    assert!(threads.lock().unwrap().len() <= 2, "{threads:?}");
}

#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
#[test]
fn blocked_pieces_alone_are_replaced_so_no_more_than_the_workers_compute_at_once() {
    let device = Device::new_host(2);
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let compute_on = |streams: &[Stream]| {
        for stream in streams {
            let (now, most) = (now.clone(), most.clone());
            let work = move || {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                compute(Duration::from_micros(500));
                now.fetch_sub(1, Ordering::SeqCst);
            };
            stream.launch(work).unwrap();
        }
        for stream in streams {
            stream.synchronize_timeout(PATIENCE).unwrap();
        }
    };
    let streams: Vec<_> = (0..300).map(|_| device.new_stream().unwrap()).collect();
    let blocked = Blocked::on(&device, 100);
    compute_on(&streams);
    blocked.release();
    // The threads that were blocked a moment ago are still there.
    compute_on(&streams);
    assert!(most.load(Ordering::SeqCst) <= 2, "{most:?} at once");
}

#[test]
fn a_timeout_behind_as_many_blocked_pieces_as_there_may_be_threads_says_so() {
    let device = Device::new_host_with(HostOptions::new(1).max_threads(4));
    let blocked = Blocked::on(&device, 4);
    let last = device.new_stream().unwrap();
    last.launch(|| {}).unwrap();
    let end = last.record().unwrap();
    let start = Instant::now();
    loop {
        let limit = Duration::from_millis(20);
        let error = end.synchronize_timeout(limit).unwrap_err();
        let Error::Timeout(_) = error else {
            panic!("{error}");
        };
        let text = error.to_string();
        // It takes a moment until all four are blocked, and are seen to be.
        if text.contains("all 4 threads") {
            assert!(text.contains("1 stream has work queued"), "{text}");
            assert!(text.contains("HostOptions::max_threads"), "{text}");
            assert!(!text.contains("look at the work submitted"), "{text}");
            break;
        }
        assert!(start.elapsed() < PATIENCE, "{text}");
    }
    blocked.release();
    end.synchronize_timeout(PATIENCE).unwrap();
}

#[test]
fn work_that_says_it_blocks_may_panic_or_nest_and_its_worker_counts_again() {
    // Off host work it just calls what it is given.
    assert_eq!(fencepost::blocking(|| 7), 7);
    // Two threads are enough only if whoever has returned counts as a worker again.
    let device = Device::new_host_with(HostOptions::new(1).max_threads(2));
    for _ in 0..4 {
        let (consumer, producer) = (device.new_stream().unwrap(), device.new_stream().unwrap());
        let (sender, receiver) = mpsc::channel();
        let outer = move || {
            let inner = || receiver.recv();
            let got: Result<(), _> = fencepost::blocking(|| fencepost::blocking(inner));
            assert_eq!(got, Ok(()));
            fencepost::blocking(|| panic!("on purpose"))
        };
        consumer.launch(outer).unwrap();
        producer.launch(move || sender.send(()).unwrap()).unwrap();
        let error = consumer.synchronize_timeout(PATIENCE).unwrap_err();
        assert!(error.to_string().contains("on purpose"), "{error}");
        producer.synchronize_timeout(PATIENCE).unwrap();
    }
}
