//! Seeds determine the trace, and the trace is complete.

mod support;

use fencepost_sim::{Order, Submission, TraceEntry, TraceEvent, with_seeds};
use std::collections::HashSet;
use support::{device, queue};

/// The trace of various commands on three queues.
fn busy_trace(seed: u64) -> Vec<TraceEntry> {
    let device = device(seed);
    let queues = [Order::InOrder, Order::Overlapping, Order::OrderedSignals]
        .map(|order| queue(&device, order));
    let semaphore = device.new_semaphore(0).unwrap();
    let query = device.new_query().unwrap();
    semaphore.notify(2, |_| ()).unwrap();
    for round in 0..4 {
        for queue in &queues {
            queue
                .submit(Submission::new().run(|| ()).run(|| ()).on_completed(|_| ()))
                .unwrap();
        }
        queues[0]
            .submit(Submission::new().signal(&semaphore, round + 1))
            .unwrap();
        queues[1]
            .submit(Submission::new().wait(&semaphore, round).run(|| ()))
            .unwrap();
    }
    queues[2]
        .submit(Submission::new().timestamp(&query))
        .unwrap();
    device.run_until_idle();
    assert_eq!(device.pending_work(), Vec::<String>::new());
    device.trace()
}

#[test]
fn one_seed_gives_one_trace() {
    with_seeds(20, |seed| assert_eq!(busy_trace(seed), busy_trace(seed)));
}

#[test]
fn different_seeds_give_different_traces() {
    let traces: HashSet<String> = (0..50)
        .map(|seed| {
            busy_trace(seed)
                .iter()
                .map(|entry| format!("{entry}\n"))
                .collect()
        })
        .collect();
    assert_eq!(traces.len(), 50);
}

#[test]
fn every_batch_is_submitted_started_and_reported_once() {
    with_seeds(50, |seed| {
        let trace = busy_trace(seed);
        let of = |pick: fn(&TraceEvent) -> Option<u64>| {
            let mut batches: Vec<u64> = trace
                .iter()
                .filter_map(|entry| pick(&entry.event))
                .collect();
            batches.sort_unstable();
            batches
        };
        let all: Vec<u64> = (0..21).collect();
        assert_eq!(
            of(|e| if let TraceEvent::Submitted { batch, .. } = e {
                Some(*batch)
            } else {
                None
            }),
            all
        );
        assert_eq!(
            of(|e| if let TraceEvent::Started { batch, .. } = e {
                Some(*batch)
            } else {
                None
            }),
            all
        );
        assert_eq!(
            of(|e| if let TraceEvent::Completed { batch, .. } = e {
                Some(*batch)
            } else {
                None
            }),
            all
        );
    });
}
