//! What spans of a trace cost the thread that records them, and who saves them.

use std::{
    fs,
    hint::black_box,
    io,
    path::Path,
    time::{Duration, Instant},
};

use fencepost::trace::{Options, Trace};

use super::{
    Bench, Row,
    harness::{Side, in_turns},
    row,
};
use crate::{Stop, stats::Stats};

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

/// How many spans are saved at once, as many as a trace keeps by default.
const SAVED: u32 = 1_000_000;

impl Bench {
    /// A million spans as a file for Perfetto, beside a file of the same bytes. That they take at
    /// most a second is 1,000 ns each.
    pub(super) fn trace_save(&self) -> Result<Row, Stop> {
        let how = self.how(11, 1, None);
        let spans = if self.quick { SAVED / 100 } else { SAVED };
        let trace = Trace::new();
        for _ in 0..spans {
            drop(trace.host_span("forward"));
        }
        let folder = std::env::temp_dir();
        let path = |name: &str| folder.join(format!("fencepost-{}-{name}", std::process::id()));
        let (saved, bare) = (path("saved.pftrace"), path("bare"));
        let files = Files([&saved, &bare]);
        trace.save(&saved).map_err(unwritten)?;
        let bytes = fs::read(&saved).map_err(unwritten)?;

        let each = |took: Duration| took.as_nanos() as f64 / f64::from(spans);
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..how.rounds {
            let began = Instant::now();
            trace.save(&saved).map_err(unwritten)?;
            ours.push(each(began.elapsed()));
            let began = Instant::now();
            fs::write(&bare, &bytes).map_err(unwritten)?;
            theirs.push(each(began.elapsed()));
        }
        drop(files);
        nothing_is_lost(&trace)?;
        let stats = |nanos| {
            Stats::of(nanos).ok_or_else(|| Stop::Failed("a measurement of no rounds".into()))
        };
        let (ours, theirs) = (stats(ours)?, stats(theirs)?);
        let base = ("the bytes alone", None);
        Ok(row("trace save, each span", how, &ours, [(&theirs, base)]))
    }
}

/// Files that go when a measurement is over.
struct Files<'a>([&'a Path; 2]);

impl Drop for Files<'_> {
    fn drop(&mut self) {
        for file in self.0 {
            let _ = fs::remove_file(file);
        }
    }
}

fn unwritten(error: io::Error) -> Stop {
    Stop::Failed(error.to_string())
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
