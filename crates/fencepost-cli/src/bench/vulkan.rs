//! What Vulkan's operations cost beside the same submits written by hand.

use std::{cell::RefCell, hint::black_box};

use fencepost::{Stream, vulkan::bare};

use super::{Bench, Measure, Row, harness::Side};
use crate::Stop;

pub(super) const MEASURES: &[Measure] = &[
    |bench| bench.vulkan_record("record", false),
    |bench| bench.vulkan_record("record, timed", true),
    |bench| bench.vulkan_round_trip("record + synchronize", false),
    |bench| bench.vulkan_round_trip("record + synchronize, timed", true),
    Bench::vulkan_query,
];

/// Our stream, and a semaphore and queries by hand, on the same device.
struct Sides {
    ours: Stream,
    bare: RefCell<bare::Line>,
}

impl Sides {
    fn settle(&self) -> Result<(), Stop> {
        self.ours.synchronize()?;
        Ok(self.bare.borrow().synchronize()?)
    }
}

fn record(line: &mut bare::Line, timing: bool) -> Result<(), Stop> {
    Ok(match timing {
        true => line.record_timed(),
        false => line.record(),
    }?)
}

fn submit(timing: bool) -> &'static str {
    match timing {
        true => "the same submit and query reset by hand",
        false => "the same submit by hand",
    }
}

impl Bench {
    fn vulkan_sides(&self) -> Result<Sides, Stop> {
        Ok(Sides {
            ours: self.device.new_stream()?,
            bare: RefCell::new(bare::Line::new(&self.device)?),
        })
    }

    fn vulkan_record(&self, operation: &'static str, timing: bool) -> Result<Row, Stop> {
        let sides = self.vulkan_sides()?;
        let event = self.new_event(timing);
        let ours: Side<'_> = Box::new(|n| {
            for _ in 0..n {
                black_box(&event).record(black_box(&sides.ours))?;
            }
            Ok(())
        });
        let bare: Side<'_> = Box::new(|n| {
            let mut line = sides.bare.borrow_mut();
            (0..n).try_for_each(|_| record(black_box(&mut line), timing))
        });
        let base = (submit(timing), Some(1.1));
        self.compare_settled(operation, base, &|| sides.settle(), ours, bare)
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
            let mut line = sides.bare.borrow_mut();
            for _ in 0..n {
                record(&mut line, timing)?;
                line.synchronize()?;
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
        let ours: Side<'_> = Box::new(|n| {
            for _ in 0..n {
                black_box(black_box(&event).query()?);
            }
            Ok(())
        });
        let bare: Side<'_> = Box::new(|n| {
            let line = sides.bare.borrow();
            for _ in 0..n {
                black_box(black_box(&*line).query()?);
            }
            Ok(())
        });
        let base = ("vkGetSemaphoreCounterValue", None);
        self.compare_settled("query, complete", base, &|| sides.settle(), ours, bare)
    }
}
