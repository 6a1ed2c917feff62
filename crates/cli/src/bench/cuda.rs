//! What CUDA's operations cost beside the bare driver's.

use std::{
    hint::black_box,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{self, Poll},
    thread,
};

use fencepost::{Event, Stream, cuda, testing::work};

use super::{
    Base, Bench, Figures, GATE, Measure, Row, against,
    harness::{AWAIT_PAUSE, How, Side, Unpark, block_on, in_settled_turns},
    queries, records, row, tracing,
};
use crate::Stop;

#[allow(unsafe_code)]
mod bare;

pub(super) const MEASURES: &[Measure] = &[
    ("record", |bench| {
        bench.cuda_record("record", false, 1.25, Handle::Hidden)
    }),
    ("record, handle known outside", |bench| {
        bench.cuda_record("record, handle known outside", false, 1.25, Handle::Shown)
    }),
    ("record, timed", |bench| {
        bench.cuda_record("record, timed", true, 1.08, Handle::Hidden)
    }),
    ("create + record + drop", |bench| {
        bench.cuda_cycle("create + record + drop", false, 0.65)
    }),
    ("create + record + drop, timed", |bench| {
        bench.cuda_cycle("create + record + drop, timed", true, 0.85)
    }),
    ("query, complete", Bench::cuda_query),
    ("wait, complete", Bench::cuda_wait),
    (GATE, Bench::cuda_gate),
    ("record + synchronize, timed", |bench| {
        bench.cuda_round_trip("record + synchronize, timed", true, Some(1.1))
    }),
    // The driver completes an untimed event of an idle stream at once, without the GPU.
    ("record + synchronize, idle stream", |bench| {
        bench.cuda_round_trip("record + synchronize, idle stream", false, None)
    }),
    (
        "kernel + record + synchronize",
        Bench::cuda_kernel_round_trip,
    ),
    ("elapsed, complete", Bench::cuda_elapsed),
    ("measure, each sample", Bench::measure_sample),
    ("await, nothing to do", |bench| {
        bench.cuda_await("await, nothing to do", 0, Some(1.5))
    }),
    ("await, 20 µs of work", |bench| {
        bench.cuda_await("await, 20 µs of work", 20_000, None)
    }),
    ("await, 200 µs of work", |bench| {
        bench.cuda_await("await, 200 µs of work", 200_000, None)
    }),
    ("await, 2 ms of work", |bench| {
        bench.cuda_await("await, 2 ms of work", 2_000_000, Some(1.02))
    }),
    #[cfg(all(target_os = "linux", target_pointer_width = "64"))]
    ("await, 200 µs, processor time", |bench| {
        bench.cuda_await_cost("await, 200 µs, processor time", 200_000)
    }),
    #[cfg(all(target_os = "linux", target_pointer_width = "64"))]
    ("await, 2 ms, processor time", |bench| {
        bench.cuda_await_cost("await, 2 ms, processor time", 2_000_000)
    }),
    ("each of 200 awaited", Bench::cuda_await_many),
    ("callback, nothing to do", |bench| {
        bench.cuda_callback("callback, nothing to do", 0)
    }),
    ("callback, 200 µs of work", |bench| {
        bench.cuda_callback("callback, 200 µs of work", 200_000)
    }),
    ("span of a stream", Bench::cuda_span),
    ("bare records of 256 pairs", Bench::cuda_pairs),
    ("span of a thread", Bench::host_span),
    ("next of 10,000 + work", Bench::any_of_many),
    ("next of 10,000 + 10 ms of work", Bench::any_of_many_asleep),
    ("synchronize_any of 10,000", Bench::any_of_many_at_once),
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
        let ours: Side<'_> = Box::new(|n| records(&event, &sides.ours, n));
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
        let ours: Side<'_> = Box::new(|n| queries(&event, n));
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

    /// A span of a stream, which the trace keeps. Its thread takes spans in meanwhile.
    fn cuda_span(&self) -> Result<Row, Stop> {
        let (sides, trace) = (self.sides()?, tracing::kept());
        let (start, end) = (sides.bare.event(true)?, sides.bare.event(true)?);
        let ours: Side<'_> = Box::new(|n| {
            for _ in 0..n {
                let span = black_box(&trace).span(black_box("forward"), black_box(&sides.ours));
                drop(black_box(span));
            }
            Ok(())
        });
        let bare: Side<'_> = Box::new(|n| {
            for _ in 0..n {
                black_box(&sides.bare).record(black_box(&start))?;
                black_box(&sides.bare).record(black_box(&end))?;
            }
            Ok(())
        });
        let base = ("two timed cuEventRecord", Some(1.05));
        let row = self.compare("span of a stream", base, &sides, ours, bare)?;
        tracing::nothing_is_lost(&trace)?;
        Ok(row)
    }

    /// What a span pays the driver for: a trace has up to 256 pairs of events in use, where the
    /// bare side of [`cuda_span`](Bench::cuda_span) records one pair again and again.
    fn cuda_pairs(&self) -> Result<Row, Stop> {
        const PAIRS: usize = 256;
        let sides = self.sides()?;
        let pair = || Ok::<_, Stop>([sides.bare.event(true)?, sides.bare.event(true)?]);
        let (one, many) = (
            pair()?,
            (0..PAIRS).map(|_| pair()).collect::<Result<Vec<_>, _>>()?,
        );
        let record = |pair: &[bare::Event; 2]| {
            let [start, end] = pair;
            black_box(&sides.bare).record(black_box(start))?;
            black_box(&sides.bare).record(black_box(end))
        };
        let mut next = 0;
        let in_turn: Side<'_> = Box::new(|n| {
            for _ in 0..n {
                record(&many[next % PAIRS])?;
                next += 1;
            }
            Ok(())
        });
        let again: Side<'_> = Box::new(|n| (0..n).try_for_each(|_| record(&one)));
        let base = ("two timed cuEventRecord", None);
        self.compare("bare records of 256 pairs", base, &sides, in_turn, again)
    }

    /// What is behind the gate is let go in the same turn, so the queue stays short.
    fn cuda_gate(&self) -> Result<Row, Stop> {
        let sides = self.sides()?;
        let word = sides.bare.word()?;
        let ours: Side<'_> = Box::new(|n| self.gates(&sides.ours, n));
        let bare: Side<'_> = Box::new(|n| {
            for _ in 0..n {
                black_box(&sides.bare).wait_and_store(black_box(&word))?;
            }
            Ok(())
        });
        let base = ("cuStreamWaitValue32 + store", None);
        self.compare(GATE, base, &sides, ours, bare)
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

    fn cuda_elapsed(&self) -> Result<Row, Stop> {
        let sides = self.sides()?;
        let (start, end) = (self.new_event(true), self.new_event(true));
        let (first, last) = (sides.bare.event(true)?, sides.bare.event(true)?);
        // Twice, as events in use are: from the second time on they are recorded in place.
        for _ in 0..2 {
            start.record(&sides.ours)?;
            end.record(&sides.ours)?;
            sides.bare.record(&first)?;
            sides.bare.record(&last)?;
        }
        sides.settle()?;
        end.synchronize()?;
        let ours: Side<'_> = Box::new(|n| {
            for _ in 0..n {
                black_box(black_box(&start).elapsed(black_box(&end))?);
            }
            Ok(())
        });
        let bare: Side<'_> = Box::new(|n| {
            for _ in 0..n {
                black_box(black_box(&first).elapsed(black_box(&last))?);
            }
            Ok(())
        });
        let locks = [AtomicBool::new(false), AtomicBool::new(false)];
        let checked: Side<'_> = Box::new(|n| {
            for _ in 0..n {
                let (start, end) = black_box(((&first, &locks[0]), (&last, &locks[1])));
                black_box(sides.bare.checked_elapsed(start, end)?);
            }
            Ok(())
        });
        let how = self.how(301, 32, None);
        let settle = || sides.settle();
        let [ours, bare, checked] = in_settled_turns(how, &settle, [ours, bare, checked])?;
        let bases = [
            (&bare, ("cuEventElapsedTime", Some(1.2))),
            (&checked, ("+ cuCtxGetId, two locks", None)),
        ];
        Ok(row("elapsed, complete", how, &ours, bases))
    }

    /// The time until a thread that awaits an event goes on, beside one that waits by spinning in
    /// the driver. Before each turn everything has gone to sleep.
    fn cuda_await(
        &self,
        operation: &'static str,
        nanos: u64,
        bound: Option<f64>,
    ) -> Result<Row, Stop> {
        let how = self.how(151, 1, Some(AWAIT_PAUSE));
        self.await_by(operation, nanos, how, bound)
    }

    /// The processor time that all threads spend meanwhile.
    #[cfg(all(target_os = "linux", target_pointer_width = "64"))]
    fn cuda_await_cost(&self, operation: &'static str, nanos: u64) -> Result<Row, Stop> {
        let mut how = self.how(151, 1, Some(AWAIT_PAUSE));
        how.clock = super::processor::time;
        self.await_by(operation, nanos, how, Some(0.5))
    }

    fn await_by(
        &self,
        operation: &'static str,
        nanos: u64,
        how: How,
        bound: Option<f64>,
    ) -> Result<Row, Stop> {
        let sides = self.sides()?;
        let (event, native) = (self.new_event(false), sides.bare.event(false)?);
        let waker = Unpark::this_thread();
        let ours: Side<'_> = Box::new(|n| {
            for _ in 0..n {
                work::spin(&sides.ours, nanos)?;
                event.record(&sides.ours)?;
                block_on(&waker, (&event).into_future())?;
            }
            Ok(())
        });
        let bare: Side<'_> = Box::new(|n| {
            for _ in 0..n {
                work::spin(&sides.bare.owner, nanos)?;
                sides.bare.record(&native)?;
                native.synchronize()?;
            }
            Ok(())
        });
        let settle = || sides.settle();
        let [ours, bare] = in_settled_turns(how, &settle, [ours, bare])?;
        Ok(row(
            operation,
            how,
            &ours,
            [(&bare, ("Record + Synchronize", bound))],
        ))
    }

    /// From the launch until this thread, which sleeps, was woken by a callback.
    fn cuda_callback(&self, operation: &'static str, nanos: u64) -> Result<Row, Stop> {
        let sides = self.sides()?;
        let event = self.new_event(false);
        let ours: Side<'_> = Box::new(|n| {
            for _ in 0..n {
                work::spin(&sides.ours, nanos)?;
                event.record(&sides.ours)?;
                let is_done = Arc::new(AtomicBool::new(false));
                let (tell, thread) = (is_done.clone(), thread::current());
                event.on_complete(move |_| {
                    tell.store(true, Ordering::Release);
                    thread.unpark();
                })?;
                while !is_done.load(Ordering::Acquire) {
                    thread::park();
                }
            }
            Ok(())
        });
        let bare: Side<'_> = Box::new(|n| {
            for _ in 0..n {
                work::spin(&sides.bare.owner, nanos)?;
                sides.bare.call_back()?;
            }
            Ok(())
        });
        let how = self.how(151, 1, Some(AWAIT_PAUSE));
        let settle = || sides.settle();
        let [ours, bare] = in_settled_turns(how, &settle, [ours, bare])?;
        let base = ("cuLaunchHostFunc", None);
        Ok(row(operation, how, &ours, [(&bare, base)]))
    }

    /// One of many events that are awaited at the same time.
    fn cuda_await_many(&self) -> Result<Row, Stop> {
        const MANY: usize = 200;
        let sides = self.sides()?;
        let waker = Unpark::this_thread();
        let ours: Side<'_> = Box::new(|n| {
            for _ in 0..n {
                let mut futures = Vec::with_capacity(MANY);
                for _ in 0..MANY {
                    work::spin(&sides.ours, 0)?;
                    let event = self.new_event(false);
                    event.record(&sides.ours)?;
                    futures.push((&event).into_future());
                }
                // All are polled before any is waited for.
                let mut context = task::Context::from_waker(&waker);
                let mut pending = Vec::new();
                for mut future in futures {
                    match Pin::new(&mut future).poll(&mut context) {
                        Poll::Ready(done) => done?,
                        Poll::Pending => pending.push(future),
                    }
                }
                for future in pending {
                    block_on(&waker, future)?;
                }
            }
            Ok(())
        });
        let bare: Side<'_> = Box::new(|n| {
            for _ in 0..n {
                let mut events = Vec::with_capacity(MANY);
                for _ in 0..MANY {
                    work::spin(&sides.bare.owner, 0)?;
                    let event = sides.bare.event(false)?;
                    sides.bare.record(&event)?;
                    events.push(event);
                }
                for event in &events {
                    event.synchronize()?;
                }
            }
            Ok(())
        });
        let how = self.how(31, 1, Some(AWAIT_PAUSE));
        let settle = || sides.settle();
        let [ours, bare] = in_settled_turns(how, &settle, [ours, bare])?;
        let share = MANY as f64;
        let (ours, bare) = (Figures::of(&ours, share), Figures::of(&bare, share));
        let against = against(&ours, bare, ("each of 200 synchronized", None));
        Ok(Row {
            operation: "each of 200 awaited",
            rounds: how.rounds,
            figures: ours,
            against: vec![against],
        })
    }
}
