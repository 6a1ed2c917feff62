//! What spans of a trace cost the thread that records them.

use std::{hint::black_box, time::Instant};

use fencepost::trace::{Options, Trace};

use super::{
    Bench, Row,
    harness::{Side, in_turns},
    row,
};
use crate::Stop;

impl Bench {
    /// A span of a thread, which the trace keeps.
    pub(super) fn host_span(&self) -> Result<Row, Stop> {
        let trace = kept();
        let ours: Side<'_> = Box::new(|n| {
            for _ in 0..n {
                drop(black_box(black_box(&trace).host_span(black_box("forward"))));
            }
            Ok(())
        });
        let clock: Side<'_> = Box::new(|n| {
            for _ in 0..n {
                black_box(Instant::now());
                black_box(Instant::now());
            }
            Ok(())
        });
        // Of a span's own buffer, with its share of moving it.
        let how = self.how(1001, 512, None);
        let [ours, clock] = in_turns(how, [ours, clock])?;
        nothing_is_lost(&trace)?;
        let base = ("two clock reads", Some(2.0));
        Ok(row("span of a thread", how, &ours, [(&clock, base)]))
    }
}

/// A trace that keeps what a measurement needs.
pub(super) fn kept() -> Trace {
    Trace::with_options(Options::default().capacity(100_000))
}

/// An error if spans were not recorded: what is dropped costs less. Those beyond the capacity were.
pub(super) fn nothing_is_lost(trace: &Trace) -> Result<(), Stop> {
    let summary = trace.collect();
    match summary.lost {
        0 => Ok(()),
        _ => Err(Stop::Failed(format!(
            "spans of a measurement are lost: {summary}"
        ))),
    }
}
