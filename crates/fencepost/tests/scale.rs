//! Ten thousand streams.
#![cfg(not(loom))]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use fencepost::{Device, Event, Marker, Stream, testing::work};

const PATIENCE: Duration = fencepost_sim::HANG_TIMEOUT;

#[test]
fn ten_thousand_live_streams_wait_for_each_other_in_a_random_order() {
    const STREAMS: usize = 10_000;
    const STEPS: usize = 60_000;
    const MOST_WAITS: usize = 3;

    let device = Device::new_host(2);
    let streams: Vec<_> = (0..STREAMS).map(|_| device.new_stream().unwrap()).collect();
    let events: Vec<_> = (0..STREAMS).map(|_| Event::new(&device)).collect();
    // All streams wait for this gate, so that all are live at the same time.
    let root = device.new_stream().unwrap();
    let gate = work::gate(&root).unwrap();
    let opened = root.record().unwrap();

    let mut state = 1_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let clock = Arc::new(AtomicU32::new(1));
    let ran: Arc<Vec<AtomicU32>> = Arc::new((0..STEPS).map(|_| AtomicU32::new(0)).collect());
    // The last step of each stream, and what each step must come after.
    let mut last: Vec<Option<usize>> = vec![None; STREAMS];
    let mut after: Vec<Vec<usize>> = Vec::with_capacity(STEPS);
    for step in 0..STEPS {
        // Every stream gets work once; the rest goes to random streams.
        let here = if step < STREAMS {
            step
        } else {
            random(STREAMS)
        };
        let mut awaited = Vec::new();
        if last[here].is_none() {
            streams[here].wait(&opened).unwrap();
        }
        for _ in 0..random(MOST_WAITS + 1) {
            let there = random(STREAMS);
            events[there].wait(&streams[here]).unwrap();
            awaited.extend(last[there]);
        }
        awaited.extend(last[here]);
        let (clock, ran) = (clock.clone(), ran.clone());
        streams[here]
            .launch(move || {
                ran[step].store(clock.fetch_add(1, Ordering::SeqCst), Ordering::SeqCst);
            })
            .unwrap();
        events[here].record(&streams[here]).unwrap();
        last[here] = Some(step);
        after.push(awaited);
    }
    assert_eq!(
        clock.load(Ordering::SeqCst),
        1,
        "work ran in front of the gate"
    );
    gate.open();
    device.synchronize_timeout(PATIENCE).unwrap();

    for (step, awaited) in after.iter().enumerate() {
        let at = ran[step].load(Ordering::SeqCst);
        assert_ne!(at, 0, "step {step} never ran");
        for &earlier in awaited {
            let before = ran[earlier].load(Ordering::SeqCst);
            assert!(
                before < at,
                "step {earlier} ran after step {step}, which waits for it"
            );
        }
    }
}

/// The end of a chain of ten thousand streams, each waiting for the one before; `first` is at its
/// head.
fn end_of_chain(device: &Device, first: Stream) -> Marker {
    let mut last = first;
    for _ in 0..CHAIN {
        let next = device.new_stream().unwrap();
        next.wait(&last.record().unwrap()).unwrap();
        last = next;
    }
    last.record().unwrap()
}

const CHAIN: usize = 10_000;

#[test]
fn a_failure_runs_down_a_chain_of_ten_thousand_streams() {
    let device = Device::new_host(2);
    let first = device.new_stream().unwrap();
    let gate = work::gate(&first).unwrap();
    work::fail(&first, "at the head").unwrap();
    let end = end_of_chain(&device, first);
    gate.open();
    let error = end.synchronize_timeout(PATIENCE).unwrap_err();
    let cause = error.cause().unwrap();
    assert!(cause.root().contains("at the head"), "{error}");
    assert_eq!(cause.hops(), CHAIN);
    assert!(
        error.to_string().len() < 600,
        "the text grows with the chain: {error}"
    );
}

#[test]
fn completion_runs_down_a_chain_of_ten_thousand_streams() {
    let device = Device::new_host(2);
    let first = device.new_stream().unwrap();
    let gate = work::gate(&first).unwrap();
    let end = end_of_chain(&device, first);
    gate.open();
    end.synchronize_timeout(PATIENCE).unwrap();
}
