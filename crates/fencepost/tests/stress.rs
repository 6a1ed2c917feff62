//! Many threads on the same few objects. ThreadSanitizer runs these tests too.
#![cfg(not(loom))]

use std::{
    sync::{
        Arc, Barrier,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use fencepost::{Device, Event, Stream};

const PATIENCE: Duration = fencepost_sim::HANG_TIMEOUT;

/// A small pseudo-random number; `state` is the generator's.
fn random(state: &mut u64, below: usize) -> usize {
    *state = state
        .wrapping_mul(6364136223846793005)
        .wrapping_add(1442695040888963407);
    ((*state >> 33) as usize) % below
}

fn streams(device: &Device, count: usize) -> Vec<Stream> {
    (0..count).map(|_| device.new_stream().unwrap()).collect()
}

#[test]
fn sixty_four_threads_record_wait_query_and_drop_the_same_events() {
    const THREADS: usize = 64;
    const ROUNDS: usize = 500;
    let device = Device::new_host(2);
    let streams = Arc::new(streams(&device, 8));
    let events: Arc<Vec<Event>> = Arc::new((0..8).map(|_| Event::with_timing(&device)).collect());
    let ran = Arc::new(AtomicU64::new(0));
    let barrier = Arc::new(Barrier::new(THREADS));
    let threads: Vec<_> = (0..THREADS as u64)
        .map(|seed| {
            let (streams, events) = (streams.clone(), events.clone());
            let (ran, barrier, device) = (ran.clone(), barrier.clone(), device.clone());
            thread::spawn(move || {
                barrier.wait();
                let mut state = seed;
                let mut launched = 0;
                // An event of this thread: others see it by its effect on the streams only.
                let mut own = Event::new(&device);
                for _ in 0..ROUNDS {
                    let stream = &streams[random(&mut state, streams.len())];
                    let event = &events[random(&mut state, events.len())];
                    match random(&mut state, 10) {
                        0 => event.record(stream).unwrap(),
                        // It may hold another thread's marker by now, of any stream. Streams wait
                        // for markers that exist, so no circle can arise.
                        1 => event.wait(stream).unwrap(),
                        2 => assert!(event.query().is_ok()),
                        3 => event.synchronize_timeout(PATIENCE).unwrap(),
                        4 => {
                            let other = &events[random(&mut state, events.len())];
                            if let (Some(a), Some(b)) = (event.marker(), other.marker()) {
                                drop(a.elapsed(&b));
                            }
                        }
                        5 => {
                            let ran = ran.clone();
                            launched += 1;
                            let count = move || {
                                ran.fetch_add(1, Ordering::Relaxed);
                            };
                            stream.launch(count).unwrap();
                        }
                        6 => own.record(stream).unwrap(),
                        7 => own.wait(stream).unwrap(),
                        8 => own = Event::new(&device),
                        _ => event.on_complete(|result| result.unwrap()).unwrap(),
                    }
                }
                launched
            })
        })
        .collect();
    let launched: u64 = threads
        .into_iter()
        .map(|thread| thread.join().unwrap())
        .sum();
    for stream in streams.iter() {
        stream.synchronize_timeout(PATIENCE).unwrap();
    }
    assert_eq!(ran.load(Ordering::Relaxed), launched);
    assert_eq!(device.callback_panics(), 0);
    for event in events.iter() {
        event.synchronize_timeout(PATIENCE).unwrap();
    }
}

#[test]
fn the_last_owner_may_be_any_thread() {
    const THREADS: usize = 8;
    let device = Device::new_host(2);
    for _ in 0..100 {
        let stream = device.new_stream().unwrap();
        let event = Arc::new(Event::new(&device));
        stream.launch(|| {}).unwrap();
        event.record(&stream).unwrap();
        let barrier = Arc::new(Barrier::new(THREADS));
        let threads: Vec<_> = (0..THREADS)
            .map(|number| {
                let (stream, event, barrier) = (stream.clone(), event.clone(), barrier.clone());
                thread::spawn(move || {
                    barrier.wait();
                    if number % 2 == 0 {
                        event.wait(&stream).unwrap();
                    }
                    drop(event);
                    drop(stream);
                })
            })
            .collect();
        drop((stream, event));
        for thread in threads {
            thread.join().unwrap();
        }
    }
    device.synchronize_timeout(PATIENCE).unwrap();
}

#[test]
fn failures_and_clear_error_race_with_everything_else() {
    let device = Device::new_host(2);
    let streams = Arc::new(streams(&device, 4));
    let threads: Vec<_> = (0..8_u64)
        .map(|seed| {
            let (streams, device) = (streams.clone(), device.clone());
            thread::spawn(move || {
                let mut state = seed;
                let event = Event::new(&device);
                for _ in 0..500 {
                    let stream = &streams[random(&mut state, streams.len())];
                    // A call may fail because another thread has failed the stream. None may
                    // hang.
                    match random(&mut state, 6) {
                        0 => drop(stream.launch(|| std::panic::resume_unwind(Box::new("x")))),
                        1 => stream.clear_error().unwrap(),
                        2 => event.record(stream).unwrap(),
                        3 => drop(event.wait(stream)),
                        4 => drop(event.synchronize_timeout(PATIENCE)),
                        _ => drop(stream.launch(|| {})),
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    for stream in streams.iter() {
        // Another stream's failure may still arrive here.
        while stream.synchronize_timeout(PATIENCE).is_err() {
            stream.clear_error().unwrap();
        }
    }
}

#[test]
fn a_device_of_its_own_ends_with_its_last_stream() {
    for _ in 0..50 {
        let device = Device::new_host(2);
        let (one, two) = (device.new_stream().unwrap(), device.new_stream().unwrap());
        one.launch(|| {}).unwrap();
        two.wait(&one.record().unwrap()).unwrap();
        let end = two.record().unwrap();
        drop((device, one, two));
        end.synchronize_timeout(PATIENCE).unwrap();
    }
}
