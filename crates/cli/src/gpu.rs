//! The pipeline on a GPU: a host stream loads, the GPU's streams count and reduce.
//!
//! | stage | stream | waits for |
//! |---|---|---|
//! | load: reads the next chunk into memory that the GPU can read | a host stream | the reduce that used the memory before, by an event of the GPU |
//! | histogram: a kernel counts the chunk's bytes | those of the GPU but the last, in turn | the chunk's load |
//! | reduce: a kernel adds the chunk's counts to the sum | the GPU's last | the chunk's histogram, by an event |
//!
//! A host stream waits for a GPU's marker without blocking a thread. The other way round the GPU's
//! queue would stall, so the submitting thread waits for the load. Loads are submitted as many
//! chunks ahead as there are buffers.

use std::{
    panic::resume_unwind,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use fencepost::{Device, Error, Event, Marker, Stream, testing::work::ByteCounter, trace::Trace};

use crate::{
    pipeline::{Outcome, Plan, STAGES, Source, interval, turn},
    stats::Interval,
};

/// A chunk's memory, and the events before and after each stage's work.
struct Slot {
    counter: ByteCounter,
    /// How many bytes the load brought, once it is complete.
    loaded: Arc<AtomicUsize>,
    load: (Event, Event),
    histogram: (Event, Event),
    reduce: (Event, Event),
}

/// The streams: the host's, the GPU's that count, and the GPU's that reduces.
struct Streams {
    load: Stream,
    histogram: Vec<Stream>,
    reduce: Stream,
}

struct Shared {
    source: Mutex<Source>,
    name: String,
    /// Why a load failed.
    failure: OnceLock<String>,
    trace: Option<Trace>,
}

/// When each chunk was in each stage, since the first one was. The host's clock times the loads,
/// and the GPU's the rest.
#[derive(Default)]
struct Times {
    first: [Option<Marker>; 2],
    stages: [Vec<Interval>; 3],
}

/// Runs the pipeline over `source`, and calls `progress` with the bytes of each chunk that is done.
pub(crate) fn run(
    device: &Device,
    source: Source,
    plan: &Plan,
    trace: Option<&Trace>,
    mut progress: impl FnMut(u64),
) -> Result<Outcome, String> {
    let shared = Arc::new(Shared {
        source: Mutex::new(source),
        name: plan.name.clone(),
        failure: OnceLock::new(),
        trace: trace.cloned(),
    });
    pump(device, plan, &shared, &mut progress)
        .map_err(|error| {
            let said = shared.failure.get().cloned();
            said.unwrap_or_else(|| error.to_string())
        })
        .and_then(|outcome| {
            Ok(Outcome {
                plain: turn(&shared.source)?.plain(),
                ..outcome
            })
        })
}

fn pump(
    device: &Device,
    plan: &Plan,
    shared: &Arc<Shared>,
    progress: &mut impl FnMut(u64),
) -> Result<Outcome, Error> {
    let host = Device::open("host")?;
    let streams = Streams::new(&host, device, plan.streams)?;
    let sum = ByteCounter::new(device, 0)?;
    let (chunks, buffers) = (plan.chunks().unwrap_or(u64::MAX), plan.buffers());
    let ring = (0..buffers)
        .map(|_| Slot::new(&host, device, plan.buffer_bytes()))
        .collect::<Result<Vec<_>, _>>()?;
    let slot = |chunk: u64| &ring[(chunk % buffers) as usize];
    let mut times = Times::default();
    // Of the chunk whose kernels were submitted last, for each slot.
    let mut lens = vec![0; ring.len()];
    let (mut submitted, mut harvested, mut bytes) = (0, 0, 0);

    // The stages are timed by two clocks, whose times do not mix. The host's times the whole.
    let began = Instant::now();
    for chunk in 0..buffers {
        slot(chunk).load(&streams, shared, chunk, plan.len_of(chunk))?;
    }
    while submitted < chunks {
        let chunk = submitted;
        let slot = slot(chunk);
        let len_before = &mut lens[(chunk % buffers) as usize];
        slot.load.1.synchronize()?;
        if chunk >= buffers {
            // Both kernels are complete, because the load waited for them. They are read before
            // their events are recorded again.
            slot.harvest_kernels(&mut times)?;
            progress(*len_before);
            harvested += 1;
        }
        let len = slot.loaded.load(Ordering::Acquire);
        if len == 0 {
            // An input of unknown length has ended, and the loads behind this one are empty too.
            break;
        }
        times.stages[0].push(interval(&mut times.first[0], &slot.load)?);
        slot.submit(&streams, shared, &sum, (chunk, len))?;
        *len_before = len as u64;
        bytes += len as u64;
        submitted += 1;
        if chunk + buffers < chunks {
            let next = chunk + buffers;
            slot.load(&streams, shared, next, plan.len_of(next))?;
        }
    }
    for chunk in harvested..submitted {
        slot(chunk).reduce.1.synchronize()?;
        slot(chunk).harvest_kernels(&mut times)?;
        progress(lens[(chunk % buffers) as usize]);
    }
    let wall_nanos = (submitted > 0).then(|| began.elapsed().as_nanos() as f64);
    streams.load.synchronize()?;
    Ok(Outcome {
        counts: sum.read()?,
        bytes,
        chunks: submitted,
        plain: None,
        times: times.stages,
        one_clock_from: 1,
        wall_nanos,
    })
}

impl Streams {
    fn new(host: &Device, device: &Device, count: usize) -> Result<Streams, Error> {
        let named = |device: &Device, name: &str| {
            let stream = device.new_stream()?;
            stream.set_name(name);
            Ok::<_, Error>(stream)
        };
        Ok(Streams {
            load: named(host, "load")?,
            histogram: (2..count.max(3))
                .map(|number| named(device, &format!("histogram {}", number - 1)))
                .collect::<Result<_, _>>()?,
            reduce: named(device, "reduce")?,
        })
    }
}

impl Shared {
    /// Calls `f`, which submits a stage of a chunk to `stream`: a span of the trace. Within the two
    /// events of the stage: when they are complete, it is.
    fn traced<R>(&self, (stage, chunk): (usize, u64), stream: &Stream, f: impl FnOnce() -> R) -> R {
        let begin = |trace: &Trace| trace.span(STAGES[stage], stream).into_owned();
        let span = self.trace.as_ref().map(begin);
        let _span = span.map(|span| span.with("chunk", chunk));
        f()
    }
}

impl Slot {
    fn new(host: &Device, device: &Device, bytes: usize) -> Result<Slot, Error> {
        let pair = |device| (Event::with_timing(device), Event::with_timing(device));
        Ok(Slot {
            counter: ByteCounter::new(device, bytes)?,
            loaded: Arc::default(),
            load: pair(host),
            histogram: pair(device),
            reduce: pair(device),
        })
    }

    /// Puts the load of the next chunk on its stream, after the reduce that used the memory before.
    fn load(
        &self,
        streams: &Streams,
        shared: &Arc<Shared>,
        chunk: u64,
        len: usize,
    ) -> Result<(), Error> {
        // Never recorded in the first round: a no-op then.
        self.reduce.1.wait(&streams.load)?;
        self.load.0.record(&streams.load)?;
        shared.traced((0, chunk), &streams.load, || {
            self.submit_load(&streams.load, shared, len)
        })?;
        self.load.1.record(&streams.load)
    }

    fn submit_load(&self, stream: &Stream, shared: &Arc<Shared>, len: usize) -> Result<(), Error> {
        let (shared, counter) = (shared.clone(), self.counter.clone());
        let loaded = self.loaded.clone();
        stream.launch(move || {
            let filled = turn(&shared.source).and_then(|mut source| {
                let read = counter.fill(len, |bytes| source.fill(bytes));
                read.unwrap_or_else(|| Err("there is no memory for the chunk".into()))
            });
            match filled {
                Ok(len) => loaded.store(len, Ordering::Release),
                Err(why) => {
                    let why = format!("reading {} failed: {why}", shared.name);
                    let _ = shared.failure.set(why.clone());
                    resume_unwind(Box::new(why));
                }
            }
        })
    }

    /// Puts the kernels of a loaded chunk on their streams.
    fn submit(
        &self,
        streams: &Streams,
        shared: &Shared,
        sum: &ByteCounter,
        (chunk, len): (u64, usize),
    ) -> Result<(), Error> {
        let histogram = &streams.histogram[chunk as usize % streams.histogram.len()];
        self.load.1.wait(histogram)?;
        self.histogram.0.record(histogram)?;
        shared.traced((1, chunk), histogram, || self.counter.count(histogram, len))?;
        self.histogram.1.record(histogram)?;

        self.histogram.1.wait(&streams.reduce)?;
        self.reduce.0.record(&streams.reduce)?;
        shared.traced((2, chunk), &streams.reduce, || {
            self.counter.add_to(&streams.reduce, sum)
        })?;
        self.reduce.1.record(&streams.reduce)
    }

    /// Reads when the kernels were at work. They must be complete.
    fn harvest_kernels(&self, times: &mut Times) -> Result<(), Error> {
        for (stage, events) in [(1, &self.histogram), (2, &self.reduce)] {
            times.stages[stage].push(interval(&mut times.first[1], events)?);
        }
        Ok(())
    }
}
