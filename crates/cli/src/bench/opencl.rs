//! What OpenCL's operations cost beside the same calls written by hand.

use std::{
    cell::RefCell,
    hint::black_box,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use fencepost::{
    Stream,
    testing::work::{self, Gate},
};

use super::{
    Bench, Figures, GATE, Measure, Row, against,
    harness::{Side, in_settled_turns},
    queries, records,
};
use crate::Stop;

#[allow(unsafe_code)]
mod bare;

pub(super) const MEASURES: &[Measure] = &[
    ("record behind held work", |bench| {
        bench.opencl_record("record behind held work", false)
    }),
    ("record behind held work, timed", |bench| {
        bench.opencl_record("record behind held work, timed", true)
    }),
    ("record + synchronize", Bench::opencl_round_trip),
    ("query, complete", Bench::opencl_query),
    (GATE, Bench::opencl_gate),
    ("measure, each sample", Bench::measure_sample),
];

/// The number of records in each operation of a turn.
const MORE: u64 = 32;

/// Our stream, and a queue of the same device that is used by hand.
struct Sides {
    ours: Stream,
    bare: bare::Queue,
    gate: RefCell<Option<Gate>>,
}

impl Sides {
    /// Blocks the queue of each, so that only the calls are measured. Otherwise a driver that
    /// computes on the processor would sometimes be woken.
    fn block(&self) -> Result<(), Stop> {
        *self.gate.borrow_mut() = Some(work::gate(&self.ours)?);
        self.bare.block()
    }

    fn settle(&self) -> Result<(), Stop> {
        drop(self.gate.borrow_mut().take());
        self.bare.unblock()?;
        self.ours.synchronize()?;
        self.bare.finish()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Bench {
    fn opencl_sides(&self) -> Result<Sides, Stop> {
        Ok(Sides {
            ours: self.device.new_stream()?,
            bare: bare::Queue::new(&self.device)?,
            gate: RefCell::new(None),
        })
    }

    fn opencl_record(&self, operation: &'static str, timing: bool) -> Result<Row, Stop> {
        let (sides, event) = (&self.opencl_sides()?, &self.new_event(timing));
        let ours = || -> Side<'_> {
            Box::new(|n| {
                sides.block()?;
                records(event, &sides.ours, n * MORE)
            })
        };
        let mut held = None;
        let bare: Side<'_> = Box::new(|n| {
            sides.block()?;
            for _ in 0..n * MORE {
                // The event before goes, as that of ours does.
                held = Some(black_box(&sides.bare).mark()?);
            }
            Ok(())
        });
        // A command's event has to be kept until the command is over: PoCL ends the process where
        // one fails whose event nobody holds. And the marker needs it, too.
        let (kept, mut of_marker) = (Mutex::new(Vec::new()), None);
        let keeping: Side<'_> = Box::new(|n| {
            sides.block()?;
            for _ in 0..n * MORE {
                let event = Arc::new(black_box(&sides.bare).mark()?);
                lock(&kept).push(event.clone());
                of_marker = Some(event);
            }
            Ok(())
        });
        let settle = || {
            sides.settle()?;
            lock(&kept).clear();
            Ok(())
        };
        // A turn has so many records that neither side's is made longer, which would be unfair, and
        // that what blocks the queues does not count.
        let how = self.how(301, 16, None);
        let of_each = |stats| Figures::of(&stats, MORE as f64);
        let [figures, bare] = in_settled_turns(how, &settle, [ours(), bare])?.map(of_each);
        // In turns of their own: the memory that one side frees makes the others dearer.
        let [again, keeping] = in_settled_turns(how, &settle, [ours(), keeping])?.map(of_each);
        let against = vec![
            against(&figures, bare, ("a marker and clFlush by hand", Some(1.1))),
            against(&again, keeping, ("the same, its event kept", None)),
        ];
        Ok(Row {
            operation,
            rounds: how.rounds,
            figures,
            against,
        })
    }

    fn opencl_round_trip(&self) -> Result<Row, Stop> {
        let sides = self.opencl_sides()?;
        let event = self.new_event(false);
        let ours: Side<'_> = Box::new(|n| {
            for _ in 0..n {
                event.record(&sides.ours)?;
                event.synchronize()?;
            }
            Ok(())
        });
        let bare: Side<'_> = Box::new(|n| (0..n).try_for_each(|_| sides.bare.mark()?.wait()));
        let base = ("the same by hand", None);
        self.compare_settled("record + synchronize", base, &|| sides.settle(), ours, bare)
    }

    fn opencl_query(&self) -> Result<Row, Stop> {
        let sides = self.opencl_sides()?;
        let event = self.new_event(false);
        event.record(&sides.ours)?;
        event.synchronize()?;
        let native = sides.bare.mark()?;
        native.wait()?;
        let ours: Side<'_> = Box::new(|n| queries(&event, n));
        let bare: Side<'_> = Box::new(|n| {
            for _ in 0..n {
                black_box(black_box(&native).query()?);
            }
            Ok(())
        });
        let base = ("clGetEventInfo", Some(0.1));
        self.compare_settled("query, complete", base, &|| sides.settle(), ours, bare)
    }

    fn opencl_gate(&self) -> Result<Row, Stop> {
        let sides = self.opencl_sides()?;
        let ours: Side<'_> = Box::new(|n| self.gates(&sides.ours, n));
        let bare: Side<'_> = Box::new(|n| {
            for _ in 0..n {
                black_box(&sides.bare).block()?;
                sides.bare.unblock()?;
            }
            Ok(())
        });
        let base = ("barrier and user event by hand", None);
        self.compare_settled(GATE, base, &|| sides.settle(), ours, bare)
    }
}
