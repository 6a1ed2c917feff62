//! What CUDA's operations cost beside the bare driver's.

use std::hint::black_box;

use fencepost::{Event, Stream, cuda, testing::work};

use super::{Base, Bench, Measure, Row, harness::Side};
use crate::Stop;

#[allow(unsafe_code)]
mod bare;

pub(super) const MEASURES: &[Measure] = &[
    |bench| bench.cuda_record("record", false, 1.25, Handle::Hidden),
    |bench| bench.cuda_record("record, handle known outside", false, 1.25, Handle::Shown),
    |bench| bench.cuda_record("record, timed", true, 1.08, Handle::Hidden),
    |bench| bench.cuda_cycle("create + record + drop", false, 0.65),
    |bench| bench.cuda_cycle("create + record + drop, timed", true, 0.85),
    Bench::cuda_query,
    Bench::cuda_wait,
    |bench| bench.cuda_round_trip("record + synchronize, timed", true, Some(1.1)),
    // The driver completes an untimed event of an idle stream at once, without the GPU.
    |bench| bench.cuda_round_trip("record + synchronize, idle stream", false, None),
    Bench::cuda_kernel_round_trip,
];

/// Whether the stream's native handle was given out. Others may capture the stream then, so that
/// each record asks the driver whether they do.
#[derive(PartialEq)]
enum Handle {
    Hidden,
    Shown,
}

/// Our stream and a bare one of the same device.
struct Sides {
    ours: Stream,
    bare: bare::Stream,
}

impl Sides {
    fn settle(&self) -> Result<(), Stop> {
        self.ours.synchronize()?;
        self.bare.synchronize()
    }
}

impl Bench {
    fn sides(&self) -> Result<Sides, Stop> {
        Ok(Sides {
            ours: self.device.new_stream()?,
            bare: bare::Stream::new(&self.device)?,
        })
    }

    /// An event of ours and a native one, both recorded and known to be complete.
    fn complete_events(&self, sides: &Sides) -> Result<(Event, bare::Event), Stop> {
        let (event, native) = (self.new_event(false), sides.bare.event(false)?);
        event.record(&sides.ours)?;
        event.synchronize()?;
        sides.bare.record(&native)?;
        native.synchronize()?;
        Ok((event, native))
    }

    /// Both sides in turns; all work is done after each turn.
    fn compare(
        &self,
        operation: &'static str,
        base: Base,
        sides: &Sides,
        ours: Side<'_>,
        bare: Side<'_>,
    ) -> Result<Row, Stop> {
        self.compare_settled(operation, base, &|| sides.settle(), ours, bare)
    }

    fn cuda_record(
        &self,
        operation: &'static str,
        timing: bool,
        bound: f64,
        handle: Handle,
    ) -> Result<Row, Stop> {
        let sides = self.sides()?;
        if handle == Handle::Shown {
            let _ = cuda::stream_as_raw(&sides.ours);
        }
        let (event, native) = (self.new_event(timing), sides.bare.event(timing)?);
        let ours: Side<'_> = Box::new(|n| {
            for _ in 0..n {
                black_box(&event).record(black_box(&sides.ours))?;
            }
            Ok(())
        });
        let bare: Side<'_> = Box::new(|n| {
            for _ in 0..n {
                black_box(&sides.bare).record(black_box(&native))?;
            }
            Ok(())
        });
        let base = ("cuEventRecord", Some(bound));
        self.compare(operation, base, &sides, ours, bare)
    }

    fn cuda_cycle(&self, operation: &'static str, timing: bool, bound: f64) -> Result<Row, Stop> {
        let sides = self.sides()?;
        let ours: Side<'_> = Box::new(|n| {
            for _ in 0..n {
                let event = self.new_event(timing);
                event.record(&sides.ours)?;
                drop(black_box(event));
            }
            Ok(())
        });
        let bare: Side<'_> = Box::new(|n| {
            for _ in 0..n {
                let event = sides.bare.event(timing)?;
                sides.bare.record(&event)?;
                drop(black_box(event));
            }
            Ok(())
        });
        let base = ("cuEventCreate + Record + Destroy", Some(bound));
        self.compare(operation, base, &sides, ours, bare)
    }

    fn cuda_query(&self) -> Result<Row, Stop> {
        let sides = self.sides()?;
        let (event, native) = self.complete_events(&sides)?;
        let ours: Side<'_> = Box::new(|n| {
            for _ in 0..n {
                black_box(black_box(&event).query()?);
            }
            Ok(())
        });
        let bare: Side<'_> = Box::new(|n| {
            for _ in 0..n {
                black_box(black_box(&native).query()?);
            }
            Ok(())
        });
        let base = ("cuEventQuery", Some(0.1));
        self.compare("query, complete", base, &sides, ours, bare)
    }

    fn cuda_wait(&self) -> Result<Row, Stop> {
        let sides = self.sides()?;
        let waiter = self.device.new_stream()?;
        let (event, native) = self.complete_events(&sides)?;
        let ours: Side<'_> = Box::new(|n| {
            for _ in 0..n {
                black_box(&event).wait(black_box(&waiter))?;
            }
            Ok(())
        });
        let bare: Side<'_> = Box::new(|n| {
            for _ in 0..n {
                black_box(&sides.bare).wait(black_box(&native))?;
            }
            Ok(())
        });
        let base = ("cuStreamWaitEvent", Some(0.2));
        self.compare("wait, complete", base, &sides, ours, bare)
    }

    fn cuda_round_trip(
        &self,
        operation: &'static str,
        timing: bool,
        bound: Option<f64>,
    ) -> Result<Row, Stop> {
        let sides = self.sides()?;
        let (event, native) = (self.new_event(timing), sides.bare.event(timing)?);
        let ours: Side<'_> = Box::new(|n| {
            for _ in 0..n {
                event.record(&sides.ours)?;
                event.synchronize()?;
            }
            Ok(())
        });
        let bare: Side<'_> = Box::new(|n| {
            for _ in 0..n {
                sides.bare.record(&native)?;
                native.synchronize()?;
            }
            Ok(())
        });
        let base = ("cuEventRecord + Synchronize", bound);
        self.compare(operation, base, &sides, ours, bare)
    }

    fn cuda_kernel_round_trip(&self) -> Result<Row, Stop> {
        let sides = self.sides()?;
        let (event, native) = (self.new_event(false), sides.bare.event(false)?);
        let ours: Side<'_> = Box::new(|n| {
            for _ in 0..n {
                work::spin(&sides.ours, 0)?;
                event.record(&sides.ours)?;
                event.synchronize()?;
            }
            Ok(())
        });
        let bare: Side<'_> = Box::new(|n| {
            for _ in 0..n {
                work::spin(&sides.bare.owner, 0)?;
                sides.bare.record(&native)?;
                native.synchronize()?;
            }
            Ok(())
        });
        let base = ("kernel + Record + Synchronize", Some(1.1));
        self.compare("kernel + record + synchronize", base, &sides, ours, bare)
    }
}
