//! What wgpu's operations cost beside the same submits written by hand.

use std::{
    hint::black_box,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use fencepost::{
    Event, Stream,
    wgpu30::wgpu::{self, Buffer, CommandBuffer, CommandEncoderDescriptor, PollType, QuerySet},
};

use super::{
    Bench, Figures, Measure, Row, against,
    harness::{AWAIT_PAUSE, How, Side, Unpark, block_on, in_settled_turns},
};
use crate::{
    Stop,
    wgpu::{Opened, opened},
};

pub(super) const MEASURES: &[Measure] = &[
    ("record", |bench| bench.wgpu_record("record", false)),
    ("record, timed", |bench| {
        bench.wgpu_record("record, timed", true)
    }),
    ("record + synchronize", Bench::wgpu_round_trip),
    ("query, complete", Bench::wgpu_query),
    ("2 ms of work, awaited", Bench::wgpu_await),
    #[cfg(all(target_os = "linux", target_pointer_width = "64"))]
    ("the same, processor time", Bench::wgpu_await_cost),
];

/// Our stream, and timestamp queries by hand, on the same device.
struct Sides {
    ours: Stream,
    bare: &'static Opened,
    queries: Option<QuerySet>,
}

const QUERIES: u32 = 1024;

impl Sides {
    fn settle(&self) -> Result<(), Stop> {
        self.ours.synchronize()?;
        self.bare.wait()
    }

    /// An encoder that writes one timestamp, and its submit.
    fn submit_timed(&self, index: u32) -> Result<(), Stop> {
        let missing = || Stop::Failed("this device has no timestamps".into());
        let queries = self.queries.as_ref().ok_or_else(missing)?;
        let mut encoder = self.bare.encoder();
        encoder.write_timestamp(queries, index % QUERIES);
        self.bare.queue.submit([encoder.finish()]);
        Ok(())
    }
}

impl Opened {
    fn encoder(&self) -> wgpu::CommandEncoder {
        let description = CommandEncoderDescriptor::default();
        self.device.create_command_encoder(&description)
    }

    /// Waits for all that is submitted.
    fn wait(&self) -> Result<(), Stop> {
        self.poll(PollType::wait_indefinitely())
    }

    fn poll(&self, how: PollType) -> Result<(), Stop> {
        let failed = |why: wgpu::PollError| Stop::Failed(format!("Device::poll failed: {why}"));
        self.device.poll(how).map(drop).map_err(failed)
    }

    /// Polls without a pause until what is submitted is over, as a program does without this
    /// library.
    fn poll_until_done(&self) -> Result<(), Stop> {
        let done = Arc::new(AtomicBool::new(false));
        let tell = done.clone();
        self.queue
            .on_submitted_work_done(move || tell.store(true, Ordering::Release));
        while !done.load(Ordering::Acquire) {
            self.poll(PollType::Poll)?;
        }
        Ok(())
    }
}

/// Work that takes the device some two milliseconds.
struct Work {
    on: &'static Opened,
    buffer: Buffer,
    times: usize,
}

const WORK: Duration = Duration::from_millis(2);

impl Work {
    fn new(on: &'static Opened) -> Result<Work, Stop> {
        let buffer = on.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: on.device.limits().max_buffer_size.min(16 << 20),
            usage: wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let mut work = Work {
            on,
            buffer,
            times: 1,
        };
        // The first is slower: it maps the memory.
        work.takes()?;
        while work.takes()? < WORK {
            work.times *= 2;
        }
        Ok(work)
    }

    fn takes(&self) -> Result<Duration, Stop> {
        let start = Instant::now();
        self.submit();
        self.on.wait()?;
        Ok(start.elapsed())
    }

    fn submit(&self) {
        self.on.queue.submit([self.encode()]);
    }

    fn encode(&self) -> CommandBuffer {
        let mut encoder = self.on.encoder();
        for _ in 0..self.times {
            encoder.clear_buffer(&self.buffer, 0, None);
        }
        encoder.finish()
    }
}

impl Bench {
    fn wgpu_sides(&self) -> Result<Sides, Stop> {
        let bare = opened()?;
        let timed = bare.device.features();
        let timed = timed.contains(wgpu::Features::TIMESTAMP_QUERY_INSIDE_ENCODERS);
        let queries = timed.then(|| {
            bare.device.create_query_set(&wgpu::QuerySetDescriptor {
                label: None,
                ty: wgpu::QueryType::Timestamp,
                count: QUERIES,
            })
        });
        Ok(Sides {
            ours: self.device.new_stream()?,
            bare,
            queries,
        })
    }

    /// On an idle queue: some drivers do a submit's work before it returns.
    fn wgpu_record(&self, operation: &'static str, timing: bool) -> Result<Row, Stop> {
        let sides = self.wgpu_sides()?;
        let event = self.new_event(timing);
        let mut index = 0;
        let ours: Side<'_> = Box::new(|n| {
            for _ in 0..n {
                black_box(&event).record(black_box(&sides.ours))?;
            }
            Ok(())
        });
        let bare: Side<'_> = Box::new(|n| {
            for _ in 0..n {
                match timing {
                    true => sides.submit_timed(index)?,
                    false => drop(black_box(sides.bare.queue.submit([]))),
                }
                index = index.wrapping_add(1);
            }
            Ok(())
        });
        let base = match timing {
            true => ("submit of a timestamp by hand", Some(1.15)),
            false => ("empty submit by hand", Some(1.1)),
        };
        self.compare_settled(operation, base, &|| sides.settle(), ours, bare)
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
        self.compare_settled("record + synchronize", base, &|| sides.settle(), ours, bare)
    }

    fn wgpu_query(&self) -> Result<Row, Stop> {
        let sides = self.wgpu_sides()?;
        let event = self.new_event(false);
        event.record(&sides.ours)?;
        event.synchronize()?;
        let ours: Side<'_> = Box::new(|n| {
            for _ in 0..n {
                black_box(black_box(&event).query()?);
            }
            Ok(())
        });
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
        let base = ("a loop of polls", Some(0.1));
        Ok(Row {
            operation: "the same, processor time",
            rounds: how.rounds,
            against: vec![against(&ours, bare, base)],
            figures: ours,
        })
    }

    /// Awaited with this library, by a loop of polls, and by nobody: the thread sleeps until the
    /// work is long over.
    fn wgpu_await_by(&self, how: How) -> Result<[Figures; 3], Stop> {
        let sides = self.wgpu_sides()?;
        let work = Work::new(sides.bare)?;
        let long = 2 * work.takes()?;
        let event: Event = self.new_event(false);
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
        let sides = in_settled_turns(how, &settle, [ours, bare, alone])?;
        Ok(sides.map(|stats| Figures::of(&stats, 1.0)))
    }
}

impl Figures {
    fn less(self, other: &Figures) -> Figures {
        let Figures { median_ns, .. } = other;
        Figures {
            median_ns: self.median_ns - median_ns,
            p5_ns: self.p5_ns - median_ns,
            p95_ns: self.p95_ns - median_ns,
        }
    }
}
