//! What wgpu's operations cost beside the same submits written by hand.

use std::{hint::black_box, thread};

use fencepost::{Stream, wgpu30::wgpu::PollType};

use super::{
    Base, Bench, Figures, Measure, Row, against,
    harness::{AWAIT_PAUSE, How, Side, Unpark, block_on, in_settled_turns},
    queries, records, row,
};
use crate::{
    Stop,
    wgpu::{Opened, opened},
};
use bare::{Queries, Work};

#[allow(unsafe_code)]
mod bare;

pub(super) const MEASURES: &[Measure] = &[
    ("record", Bench::wgpu_record),
    ("record, timed", Bench::wgpu_record_timed),
    ("record + synchronize", Bench::wgpu_round_trip),
    ("query, complete", Bench::wgpu_query),
    ("2 ms of work, awaited", Bench::wgpu_await),
    #[cfg(all(target_os = "linux", target_pointer_width = "64"))]
    ("the same, processor time", Bench::wgpu_await_cost),
];

/// Our stream, and the same device by hand.
struct Sides {
    ours: Stream,
    bare: &'static Opened,
}

impl Sides {
    fn settle(&self) -> Result<(), Stop> {
        self.ours.synchronize()?;
        self.bare.wait()
    }
}

impl Bench {
    fn wgpu_sides(&self) -> Result<Sides, Stop> {
        Ok(Sides {
            ours: self.device.new_stream()?,
            bare: opened()?,
        })
    }

    /// On an idle queue: some drivers do a submit's work before it returns.
    fn wgpu_record(&self) -> Result<Row, Stop> {
        let sides = self.wgpu_sides()?;
        let event = self.new_event(false);
        let ours: Side<'_> = Box::new(|n| records(&event, &sides.ours, n));
        let bare: Side<'_> = Box::new(|n| {
            for _ in 0..n {
                black_box(sides.bare.queue.submit([]));
            }
            Ok(())
        });
        let base = ("empty submit by hand", Some(1.1));
        let settle = || sides.settle();
        #[cfg(not(target_vendor = "apple"))]
        if let Some(signalled) = bare::Signalled::new(sides.bare)? {
            let floor: Side<'_> = Box::new(|n| {
                (0..n).for_each(|_| signalled.submit(None));
                Ok(())
            });
            let how = self.how(301, 32, None);
            let [ours, bare, floor] = in_settled_turns(how, &settle, [ours, bare, floor])?;
            let bases = [(&bare, base), (&floor, ("signal added, looked for", None))];
            return Ok(row("record", how, &ours, bases));
        }
        self.compare_settled("record", base, &settle, ours, bare)
    }

    fn wgpu_record_timed(&self) -> Result<Row, Stop> {
        const READ: Base = ("timestamp, resolved and mapped", Some(1.15));
        const UNREAD: Base = ("timestamp that nobody reads", None);
        let sides = self.wgpu_sides()?;
        let event = self.new_event(true);
        let (mut read, mut unread) = (Queries::new(sides.bare)?, Queries::new(sides.bare)?);
        let ours: Side<'_> = Box::new(|n| records(&event, &sides.ours, n));
        let read: Side<'_> = Box::new(|n| {
            read.rewind();
            (0..n).for_each(|_| read.submit_and_read());
            Ok(())
        });
        let unread: Side<'_> = Box::new(|n| {
            unread.rewind();
            (0..n).for_each(|_| unread.submit());
            Ok(())
        });
        let how = self.how(301, 32, None);
        let settle = || sides.settle();
        #[cfg(not(target_vendor = "apple"))]
        if let Some(signalled) = bare::Signalled::new(sides.bare)? {
            let mut marked = Queries::new(sides.bare)?;
            let floor: Side<'_> = Box::new(|n| {
                marked.rewind();
                (0..n).for_each(|_| marked.mark_and_read(&signalled));
                Ok(())
            });
            // The buffers of the first one are made first.
            let all = [read, ours, floor, unread];
            let [read, ours, floor, unread] = in_settled_turns(how, &settle, all)?;
            let bases = [
                (&read, READ),
                (&floor, ("with a signal, in error scopes", None)),
                (&unread, UNREAD),
            ];
            return Ok(row("record, timed", how, &ours, bases));
        }
        let [read, ours, unread] = in_settled_turns(how, &settle, [read, ours, unread])?;
        let bases = [(&read, READ), (&unread, UNREAD)];
        Ok(row("record, timed", how, &ours, bases))
    }

    fn wgpu_round_trip(&self) -> Result<Row, Stop> {
        let sides = self.wgpu_sides()?;
        let event = self.new_event(false);
        let ours: Side<'_> = Box::new(|n| {
            for _ in 0..n {
                event.record(&sides.ours)?;
                event.synchronize()?;
            }
            Ok(())
        });
        let bare: Side<'_> = Box::new(|n| {
            for _ in 0..n {
                sides.bare.queue.submit([]);
                sides.bare.wait()?;
            }
            Ok(())
        });
        let base = ("empty submit + poll that waits", None);
        let settle = || sides.settle();
        self.compare_settled("record + synchronize", base, &settle, ours, bare)
    }

    fn wgpu_query(&self) -> Result<Row, Stop> {
        let sides = self.wgpu_sides()?;
        let event = self.new_event(false);
        event.record(&sides.ours)?;
        event.synchronize()?;
        let ours: Side<'_> = Box::new(|n| queries(&event, n));
        let bare: Side<'_> = Box::new(|n| (0..n).try_for_each(|_| sides.bare.poll(PollType::Poll)));
        let base = ("Device::poll", None);
        self.compare_settled("query, complete", base, &|| sides.settle(), ours, bare)
    }

    /// From the submit of the work until a thread that awaits its end goes on.
    fn wgpu_await(&self) -> Result<Row, Stop> {
        let how = self.how(151, 1, Some(AWAIT_PAUSE));
        let [ours, bare, _] = self.wgpu_await_by(how)?;
        let base = ("a loop of polls", Some(1.2));
        Ok(Row {
            operation: "2 ms of work, awaited",
            rounds: how.rounds,
            against: vec![against(&ours, bare, base)],
            figures: ours,
        })
    }

    /// The processor time that all threads spend meanwhile, less what the work itself takes: a
    /// driver may do that on the processor.
    #[cfg(all(target_os = "linux", target_pointer_width = "64"))]
    fn wgpu_await_cost(&self) -> Result<Row, Stop> {
        let mut how = self.how(151, 1, Some(AWAIT_PAUSE));
        how.clock = super::processor::time;
        let [ours, bare, alone] = self.wgpu_await_by(how)?;
        let (ours, bare) = (ours.less(&alone), bare.less(&alone));
        // A driver that does the work inside of the submit leaves nothing to wait for, and then
        // the difference is noise.
        let bound = (bare.median_ns > 200_000.0).then_some(0.1);
        Ok(Row {
            operation: "the same, processor time",
            rounds: how.rounds,
            against: vec![against(&ours, bare, ("a loop of polls", bound))],
            figures: ours,
        })
    }

    /// Awaited with this library, by a loop of polls, and by nobody: the thread sleeps until the
    /// work is long over.
    fn wgpu_await_by(&self, how: How) -> Result<[Figures; 3], Stop> {
        let sides = self.wgpu_sides()?;
        let work = Work::new(sides.bare)?;
        let long = 2 * work.takes()?;
        let event = self.new_event(false);
        let waker = Unpark::this_thread();
        let ours: Side<'_> = Box::new(|n| {
            for _ in 0..n {
                work.submit();
                event.record(&sides.ours)?;
                block_on(&waker, (&event).into_future())?;
            }
            Ok(())
        });
        let bare: Side<'_> = Box::new(|n| {
            for _ in 0..n {
                work.submit();
                sides.bare.poll_until_done()?;
            }
            Ok(())
        });
        let alone: Side<'_> = Box::new(|n| {
            for _ in 0..n {
                work.submit();
                thread::sleep(long);
            }
            Ok(())
        });
        let settle = || sides.settle();
        let stats = in_settled_turns(how, &settle, [ours, bare, alone])?;
        Ok(stats.map(|stats| Figures::of(&stats, 1.0)))
    }
}

#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
impl Figures {
    /// What is left without the median of `other`.
    fn less(self, other: &Figures) -> Figures {
        Figures {
            median_ns: self.median_ns - other.median_ns,
            p5_ns: self.p5_ns - other.median_ns,
            p95_ns: self.p95_ns - other.median_ns,
        }
    }
}
