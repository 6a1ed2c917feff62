//! What Metal's operations cost beside the same command buffers written by hand.

use std::{cell::RefCell, hint::black_box};

use fencepost::metal::objc2::rc::autoreleasepool;

use super::{Bench, GATE, Measure, Row, harness::Side, queries, records};
use crate::Stop;

mod bare;

pub(super) const MEASURES: &[Measure] = &[
    ("record, timed", |bench| {
        autoreleasepool(|_| bench.metal_record())
    }),
    ("record + synchronize, timed", |bench| {
        autoreleasepool(|_| bench.metal_round_trip())
    }),
    ("query, complete", |bench| {
        autoreleasepool(|_| bench.metal_query())
    }),
    (GATE, |bench| autoreleasepool(|_| bench.metal_gate())),
    ("measure, each sample", |bench| {
        autoreleasepool(|_| bench.measure_sample())
    }),
];

impl Bench {
    fn metal_record(&self) -> Result<Row, Stop> {
        let (stream, event) = (self.device.new_stream()?, self.new_event(true));
        let native = RefCell::new(bare::Stream::new(&self.device)?);
        let settle = || {
            native.borrow().synchronize();
            Ok(stream.synchronize()?)
        };
        let ours: Side<'_> = Box::new(|n| {
            records(&event, &stream, n)?;
            Ok(())
        });
        let bare: Side<'_> = Box::new(|n| {
            let mut native = native.borrow_mut();
            (0..n).try_for_each(|_| black_box(&mut native).record_timed())?;
            Ok(())
        });
        let base = ("blit, signal and commit by hand", None);
        self.compare_settled("record, timed", base, &settle, ours, bare)
    }

    fn metal_round_trip(&self) -> Result<Row, Stop> {
        let (stream, event) = (self.device.new_stream()?, self.new_event(true));
        let native = RefCell::new(bare::Stream::new(&self.device)?);
        let ours: Side<'_> = Box::new(|n| {
            for _ in 0..n {
                event.record(&stream)?;
                event.synchronize()?;
            }
            Ok(())
        });
        let bare: Side<'_> = Box::new(|n| {
            let mut native = native.borrow_mut();
            for _ in 0..n {
                native.record_timed()?;
                native.synchronize();
            }
            Ok(())
        });
        let base = ("the same and waitUntilCompleted", None);
        self.compare_settled("record + synchronize, timed", base, &|| Ok(()), ours, bare)
    }

    fn metal_query(&self) -> Result<Row, Stop> {
        let (stream, event) = (self.device.new_stream()?, self.new_event(true));
        event.record(&stream)?;
        event.synchronize()?;
        let mut native = bare::Stream::new(&self.device)?;
        native.record_timed()?;
        native.synchronize();
        let ours: Side<'_> = Box::new(|n| queries(&event, n));
        let bare: Side<'_> = Box::new(|n| {
            for _ in 0..n {
                black_box(black_box(&native).query());
            }
            Ok(())
        });
        let base = ("MTLCommandBuffer.status", None);
        self.compare_settled("query, complete", base, &|| Ok(()), ours, bare)
    }

    fn metal_gate(&self) -> Result<Row, Stop> {
        let stream = self.device.new_stream()?;
        let native = RefCell::new(bare::Stream::new(&self.device)?);
        let settle = || {
            native.borrow().synchronize();
            Ok(stream.synchronize()?)
        };
        let ours: Side<'_> = Box::new(|n| self.gates(&stream, n));
        let bare: Side<'_> = Box::new(|n| {
            let mut native = native.borrow_mut();
            (0..n).try_for_each(|_| black_box(&mut native).wait_and_signal())
        });
        let base = ("wait, commit and signal by hand", None);
        self.compare_settled(GATE, base, &settle, ours, bare)
    }
}
