//! What Vulkan's operations cost beside the same submits written by hand.

use std::{cell::RefCell, hint::black_box};

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
        bench.vulkan_record("record behind held work", false)
    }),
    ("record behind held work, timed", |bench| {
        bench.vulkan_record("record behind held work, timed", true)
    }),
    ("record + synchronize", |bench| {
        bench.vulkan_round_trip("record + synchronize", false)
    }),
    ("record + synchronize, timed", |bench| {
        bench.vulkan_round_trip("record + synchronize, timed", true)
    }),
    ("query, complete", Bench::vulkan_query),
    (GATE, Bench::vulkan_gate),
    ("measure, each sample", Bench::measure_sample),
];

/// The number of records in each operation of a turn.
const MORE: u64 = 32;

/// Our stream, and a semaphore and queries by hand, on the same device.
struct Sides {
    ours: Stream,
    bare: RefCell<bare::Stream>,
    gate: RefCell<Option<Gate>>,
}

impl Sides {
    /// Blocks the queue of each, so that only the calls are measured. Otherwise a driver that
    /// computes on the processor would sometimes be woken.
    fn block(&self) -> Result<(), Stop> {
        *self.gate.borrow_mut() = Some(work::gate(&self.ours)?);
        self.bare.borrow_mut().block()
    }

    fn settle(&self) -> Result<(), Stop> {
        drop(self.gate.borrow_mut().take());
        self.bare.borrow().unblock()?;
        self.ours.synchronize()?;
        self.bare.borrow().synchronize()
    }
}

fn record(native: &mut bare::Stream, timing: bool) -> Result<(), Stop> {
    match timing {
        true => native.record_timed(),
        false => native.record(),
    }
}

fn submit(timing: bool) -> &'static str {
    match timing {
        true => "submit and query reset by hand",
        false => "submit by hand",
    }
}

impl Bench {
    fn vulkan_sides(&self) -> Result<Sides, Stop> {
        Ok(Sides {
            ours: self.device.new_stream()?,
            bare: RefCell::new(bare::Stream::new(&self.device)?),
            gate: RefCell::new(None),
        })
    }

    fn vulkan_record(&self, operation: &'static str, timing: bool) -> Result<Row, Stop> {
        let sides = self.vulkan_sides()?;
        let event = self.new_event(timing);
        // A turn has many records, so that the two submits that block the queues do not count.
        let ours: Side<'_> = Box::new(|n| {
            sides.block()?;
            records(&event, &sides.ours, n * MORE)
        });
        let bare: Side<'_> = Box::new(|n| {
            sides.block()?;
            let mut native = sides.bare.borrow_mut();
            (0..n * MORE).try_for_each(|_| record(black_box(&mut native), timing))
        });
        let how = self.how(301, 16, None);
        let [ours, bare] = in_settled_turns(how, &|| sides.settle(), [ours, bare])?;
        let (ours, bare) = (
            Figures::of(&ours, MORE as f64),
            Figures::of(&bare, MORE as f64),
        );
        let against = against(&ours, bare, (submit(timing), Some(1.1)));
        Ok(Row {
            operation,
            rounds: how.rounds,
            figures: ours,
            against: vec![against],
        })
    }

    fn vulkan_round_trip(&self, operation: &'static str, timing: bool) -> Result<Row, Stop> {
        let sides = self.vulkan_sides()?;
        let event = self.new_event(timing);
        let ours: Side<'_> = Box::new(|n| {
            for _ in 0..n {
                event.record(&sides.ours)?;
                event.synchronize()?;
            }
            Ok(())
        });
        let bare: Side<'_> = Box::new(|n| {
            let mut native = sides.bare.borrow_mut();
            for _ in 0..n {
                record(&mut native, timing)?;
                native.synchronize()?;
            }
            Ok(())
        });
        let base = ("the same by hand", None);
        self.compare_settled(operation, base, &|| sides.settle(), ours, bare)
    }

    fn vulkan_query(&self) -> Result<Row, Stop> {
        let sides = self.vulkan_sides()?;
        let event = self.new_event(false);
        event.record(&sides.ours)?;
        event.synchronize()?;
        sides.bare.borrow_mut().record()?;
        sides.settle()?;
        let ours: Side<'_> = Box::new(|n| queries(&event, n));
        let bare: Side<'_> = Box::new(|n| {
            let native = sides.bare.borrow();
            for _ in 0..n {
                black_box(black_box(&*native).query()?);
            }
            Ok(())
        });
        let base = ("vkGetSemaphoreCounterValue", None);
        self.compare_settled("query, complete", base, &|| sides.settle(), ours, bare)
    }

    /// By hand one semaphore serves all waits, since each is over before the next begins.
    fn vulkan_gate(&self) -> Result<Row, Stop> {
        let sides = self.vulkan_sides()?;
        let ours: Side<'_> = Box::new(|n| self.gates(&sides.ours, n));
        let bare: Side<'_> = Box::new(|n| {
            let mut native = sides.bare.borrow_mut();
            for _ in 0..n {
                black_box(&mut native).block()?;
                native.unblock()?;
            }
            Ok(())
        });
        let base = ("submit + vkSignalSemaphore by hand", None);
        self.compare_settled(GATE, base, &|| sides.settle(), ours, bare)
    }
}
