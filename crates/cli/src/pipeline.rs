//! The byte histogram of a file, counted on streams that only events order.
//!
//! | stage | stream | waits for |
//! |---|---|---|
//! | load: reads the next chunk into a buffer of the ring | the first | the host, which hands out a buffer when `reduce` is done with it |
//! | histogram: counts the chunk's bytes | those in between, in turn | the chunk's load |
//! | reduce: adds the chunk's counts to the sum | the last | the chunk's histogram |
//!
//! With two streams the last two stages share one; with one stream all do. The calling thread
//! submits. When the ring is full, it waits until half of the buffers are free: were it woken for
//! each, waking it would cost the streams a good part of their time.

use std::{
    fs::File,
    io::{ErrorKind, Read},
    panic::resume_unwind,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use fencepost::{Device, Error, Event, Marker, Stream, trace::Trace};

use crate::stats::Interval;

/// The stages' names, in their order.
pub(crate) const STAGES: [&str; 3] = ["load", "histogram", "reduce"];

pub(crate) type Counts = [u64; 256];

/// The times of each chunk are kept until the end: 48 bytes a chunk.
pub(crate) const MOST_CHUNKS: u64 = 1 << 22;

/// How the input is divided.
pub(crate) struct Plan {
    /// The input's name, for messages.
    pub(crate) name: String,
    pub(crate) streams: usize,
    /// The file's length when it was opened; `None` for an input that ends when it ends.
    pub(crate) bytes: Option<u64>,
    pub(crate) chunk: usize,
}

impl Plan {
    pub(crate) fn chunks(&self) -> Option<u64> {
        Some(self.bytes?.div_ceil(self.chunk as u64))
    }

    /// One buffer for each stream keeps all of them busy. With more, a stage that is ahead need not
    /// stop for one that is behind, and the submitting thread sleeps longer; so there are some
    /// more, as long as they take little memory.
    pub(crate) fn buffers(&self) -> u64 {
        const LITTLE: u64 = 64 << 20;
        const ENOUGH: u64 = 32;
        let streams = self.streams.max(2) as u64;
        let more = (4 * streams).min(ENOUGH).min(LITTLE / self.chunk as u64);
        more.max(streams).min(self.chunks().unwrap_or(u64::MAX))
    }

    pub(crate) fn buffer_bytes(&self) -> usize {
        self.bytes.unwrap_or(u64::MAX).min(self.chunk as u64) as usize
    }

    pub(crate) fn memory(&self) -> u64 {
        self.buffers() * self.buffer_bytes() as u64
    }

    /// How many bytes a chunk has: at most, where the input's length is unknown.
    pub(crate) fn len_of(&self, chunk: u64) -> usize {
        let rest = self.bytes.map(|bytes| bytes - chunk * self.chunk as u64);
        rest.unwrap_or(u64::MAX).min(self.chunk as u64) as usize
    }
}

/// The input, read once from its start to its end.
pub(crate) struct Source {
    from: Box<dyn Read + Send>,
    /// For an input that cannot be read twice: what a plain loop counted as it was read.
    plain: Option<Box<Counts>>,
    ended: bool,
    chunks: u64,
}

impl Source {
    /// A file of the length that its plan says.
    pub(crate) fn file(from: impl Read + Send + 'static) -> Source {
        Source {
            from: Box::new(from),
            plain: None,
            ended: false,
            chunks: 0,
        }
    }

    /// An input of unknown length, which is counted in a plain loop as it is read.
    pub(crate) fn endless(from: impl Read + Send + 'static) -> Source {
        Source {
            plain: Some(Box::new([0; 256])),
            ..Source::file(from)
        }
    }

    /// The plain counts, of an input that cannot be read twice.
    pub(crate) fn plain(&self) -> Option<Counts> {
        self.plain.as_deref().copied()
    }

    /// Reads the next chunk into `buffer` and returns its length. A file fills the buffer. An input
    /// of unknown length leaves a part of it where it ends, and from then on all of it.
    pub(crate) fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, String> {
        let Some(plain) = &mut self.plain else {
            read_whole(&mut *self.from, buffer)?;
            return Ok(buffer.len());
        };
        let mut len = 0;
        // A terminal goes on after its end, if it is asked again.
        while !self.ended && len < buffer.len() {
            match self.from.read(&mut buffer[len..]) {
                Ok(0) => self.ended = true,
                Ok(n) => len += n,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        if len > 0 && self.chunks == MOST_CHUNKS {
            return Err(format!(
                "it has more than {MOST_CHUNKS} chunks; use a larger --chunk"
            ));
        }
        self.chunks += 1;
        for &byte in &buffer[..len] {
            plain[byte as usize] += 1;
        }
        Ok(len)
    }
}

/// The result.
pub(crate) struct Outcome {
    pub(crate) counts: Counts,
    /// How many bytes and chunks there were.
    pub(crate) bytes: u64,
    pub(crate) chunks: u64,
    /// The counts of a plain loop, if the source has them.
    pub(crate) plain: Option<Counts>,
    /// For each stage, when each chunk was in it by the device's clock, in nanoseconds since the
    /// first chunk was.
    pub(crate) times: [Vec<Interval>; 3],
    /// The first of the stages whose times are by one clock, together with those behind it.
    pub(crate) one_clock_from: usize,
    /// From the first event of the first chunk to the last event of the last, by the device's
    /// clock. On a GPU, where a host stream loads, by the host's.
    pub(crate) wall_nanos: Option<f64>,
}

/// What the stages share.
struct Shared {
    source: Mutex<Source>,
    sum: Mutex<Counts>,
    /// Why a stage failed. Its stream fails then, and so do those that wait for it.
    failure: OnceLock<String>,
    trace: Option<Trace>,
}

/// A buffer of the ring. Events alone order the stages that use it. Safe code needs a lock to share
/// it; if that is ever contended, or the buffer does not hold what the stage before left, the
/// events failed to order the stages.
struct Buffer {
    holds: Holds,
    bytes: Vec<u8>,
    len: usize,
    counts: Counts,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Holds {
    Nothing,
    Bytes(u64),
    Counts(u64),
}

/// A buffer and the events of its chunk: one before and one after each stage's work.
struct Slot {
    buffer: Arc<Mutex<Buffer>>,
    events: [(Event, Event); 3],
}

/// Runs the pipeline over `source`, and calls `progress` with the bytes of each chunk that is done.
/// In `trace` each stage of a chunk is a span.
pub(crate) fn run(
    device: &Device,
    source: Source,
    plan: &Plan,
    trace: Option<&Trace>,
    mut progress: impl FnMut(u64),
) -> Result<Outcome, String> {
    let ring: Option<Vec<Slot>> = (0..plan.buffers())
        .map(|_| Slot::new(device, plan.buffer_bytes()))
        .collect();
    let ring = ring.ok_or("not enough memory for the buffers; use a smaller --chunk")?;
    let shared = Arc::new(Shared {
        source: Mutex::new(source),
        sum: Mutex::new([0; 256]),
        failure: OnceLock::new(),
        trace: trace.cloned(),
    });
    let mut times = [(); 3].map(|()| Vec::new());
    let done = pump(device, plan, &ring, &shared, &mut times, &mut progress).map_err(|error| {
        // What a stage says about its failure is clearer than what failing did to the streams.
        let said = shared.failure.get().cloned();
        said.unwrap_or_else(|| error.to_string())
    })?;
    let counts = *turn(&shared.sum)?;
    Ok(Outcome {
        counts,
        bytes: done.bytes,
        chunks: done.chunks,
        plain: turn(&shared.source)?.plain(),
        wall_nanos: done.wall_nanos,
        times,
        one_clock_from: 0,
    })
}

/// What passed through the pipeline, and how long that took.
struct Done {
    bytes: u64,
    chunks: u64,
    wall_nanos: Option<f64>,
}

/// Submits every chunk and waits for all. An input of unknown length has ended where a chunk is
/// empty. The chunks behind it, submitted by then, are empty too, and count for nothing.
fn pump(
    device: &Device,
    plan: &Plan,
    ring: &[Slot],
    shared: &Arc<Shared>,
    times: &mut [Vec<Interval>; 3],
    progress: &mut impl FnMut(u64),
) -> Result<Done, Error> {
    let streams = named_streams(device, plan.streams)?;
    let (chunks, slots) = (plan.chunks().unwrap_or(u64::MAX), ring.len() as u64);
    let slot_of = |chunk: u64| &ring[(chunk % slots) as usize];
    let mut first = None;
    let mut done = Done {
        bytes: 0,
        chunks: 0,
        wall_nanos: None,
    };
    // Returns whether the chunk has bytes.
    let mut harvest = |chunk: u64| {
        let slot = slot_of(chunk);
        let len = slot.harvest(&mut first, times)? as u64;
        if len > 0 {
            done.bytes += len;
            done.chunks += 1;
            done.wall_nanos = times[2].last().map(|reduced| reduced.end);
            progress(len);
        }
        Ok::<bool, Error>(len > 0)
    };

    let (mut submitted, mut harvested) = (0, 0);
    while submitted < chunks {
        if submitted - harvested == slots {
            let half = harvested + slots.div_ceil(2);
            // One stream reduces all chunks in their order.
            slot_of(half - 1).events[2].1.synchronize()?;
            let mut ended = false;
            for chunk in harvested..half {
                ended |= !harvest(chunk)?;
            }
            harvested = half;
            if ended {
                break;
            }
        }
        slot_of(submitted).submit(plan, &streams, shared, submitted)?;
        submitted += 1;
    }
    for chunk in harvested..submitted {
        harvest(chunk)?;
    }
    Ok(done)
}

/// Streams with names that say what they do.
fn named_streams(device: &Device, count: usize) -> Result<Vec<Stream>, Error> {
    let named = (0..count).map(|number| {
        let stream = device.new_stream()?;
        match (number, count) {
            (0, 1) => stream.set_name("all stages"),
            (0, _) => stream.set_name("load"),
            (1, 2) => stream.set_name("histogram and reduce"),
            (number, _) if number == count - 1 => stream.set_name("reduce"),
            (number, _) => stream.set_name(&format!("histogram {number}")),
        }
        Ok(stream)
    });
    named.collect()
}

/// Counts the same chunks with the same code on the calling thread, without a stream or an event.
pub(crate) fn run_on_one_thread(mut file: File, plan: &Plan) -> Result<Counts, String> {
    let mut bytes = vec![0; plan.buffer_bytes()];
    let mut sum = [0; 256];
    for chunk in 0..plan.chunks().unwrap_or(0) {
        let bytes = &mut bytes[..plan.len_of(chunk)];
        read_whole(&mut file, bytes)
            .map_err(|why| format!("reading {} failed: {why}", plan.name))?;
        add(&mut sum, &count(bytes));
    }
    Ok(sum)
}

fn add(sum: &mut Counts, counts: &Counts) {
    for (sum, count) in sum.iter_mut().zip(counts) {
        *sum += count;
    }
}

impl Slot {
    /// `None` without the memory for it.
    fn new(device: &Device, bytes: usize) -> Option<Slot> {
        let mut buffer = Vec::new();
        buffer.try_reserve_exact(bytes).ok()?;
        buffer.resize(bytes, 0);
        Some(Slot {
            buffer: Arc::new(Mutex::new(Buffer {
                holds: Holds::Nothing,
                bytes: buffer,
                len: 0,
                counts: [0; 256],
            })),
            events: [(); 3].map(|()| (Event::with_timing(device), Event::with_timing(device))),
        })
    }

    /// Puts the three stages of a chunk on their streams. The slot's earlier chunk is done.
    fn submit(
        &self,
        plan: &Plan,
        streams: &[Stream],
        shared: &Arc<Shared>,
        chunk: u64,
    ) -> Result<(), Error> {
        let [load, histogram, reduce] = stage_streams(streams, chunk);
        let [loaded, counted, _] = &self.events;
        let name = plan.name.clone();
        let len = plan.len_of(chunk);

        self.stage((0, chunk), load, shared, move |shared, buffer| {
            buffer.pass_on(Holds::Nothing, Holds::Bytes(chunk))?;
            buffer.len = turn(&shared.source)?
                .fill(&mut buffer.bytes[..len])
                .map_err(|why| format!("reading {name} failed: {why}"))?;
            Ok(())
        })?;
        loaded.1.wait(histogram)?;
        self.stage((1, chunk), histogram, shared, move |_, buffer| {
            buffer.pass_on(Holds::Bytes(chunk), Holds::Counts(chunk))?;
            buffer.counts = count(&buffer.bytes[..buffer.len]);
            Ok(())
        })?;
        counted.1.wait(reduce)?;
        self.stage((2, chunk), reduce, shared, move |shared, buffer| {
            buffer.pass_on(Holds::Counts(chunk), Holds::Nothing)?;
            let mut sum = turn(&shared.sum)?;
            add(&mut sum, &buffer.counts);
            Ok(())
        })
    }

    /// Puts the `work` of a stage on `stream`, between its two events.
    fn stage(
        &self,
        (stage, chunk): (usize, u64),
        stream: &Stream,
        shared: &Arc<Shared>,
        work: impl FnOnce(&Shared, &mut Buffer) -> Result<(), String> + Send + 'static,
    ) -> Result<(), Error> {
        let (start, end) = &self.events[stage];
        let (shared, buffer) = (shared.clone(), self.buffer.clone());
        start.record(stream)?;
        // Within the two events: when they are complete, it is.
        let trace = shared.trace.clone();
        let span = trace
            .as_ref()
            .map(|trace| trace.span(STAGES[stage], stream).with("chunk", chunk));
        stream.launch(move || {
            let done = turn(&buffer).and_then(|mut buffer| work(&shared, &mut buffer));
            if let Err(why) = done {
                // The first failure is the cause of all that follow. Unwinding fails the stream,
                // and with it everything that waits for it; the panic hook has nothing to add.
                let _ = shared.failure.set(why.clone());
                resume_unwind(Box::new(why));
            }
        })?;
        drop(span);
        end.record(stream)
    }

    /// Waits for the chunk's last event, then reads when each stage was at work. `first` is the
    /// start of the first chunk, and is set by that. Returns the chunk's length.
    fn harvest(
        &self,
        first: &mut Option<Marker>,
        times: &mut [Vec<Interval>; 3],
    ) -> Result<usize, Error> {
        let [_, _, (_, done)] = &self.events;
        done.synchronize()?;
        let buffer = self.buffer.lock().unwrap_or_else(PoisonError::into_inner);
        if buffer.len == 0 {
            return Ok(0);
        }
        for (events, times) in self.events.iter().zip(times) {
            times.push(interval(first, events)?);
        }
        Ok(buffer.len)
    }
}

/// From one complete event to the other, in nanoseconds since `first`, which is set to the start of
/// this one where there is none.
pub(crate) fn interval(
    first: &mut Option<Marker>,
    (start, end): &(Event, Event),
) -> Result<Interval, Error> {
    let took = start.elapsed(end)?.as_nanos_f64();
    if first.is_none() {
        *first = start.marker();
    }
    let since = match (&*first, start.marker()) {
        (Some(first), Some(start)) => first.elapsed(&start)?.as_nanos_f64(),
        _ => 0.0,
    };
    Ok(Interval {
        start: since,
        end: since + took,
    })
}

impl Buffer {
    /// Checks what the stage before left, and notes what the next stage finds.
    fn pass_on(&mut self, from: Holds, to: Holds) -> Result<(), String> {
        if self.holds != from {
            let found = self.holds;
            return Err(format!(
                "the events did not keep the stages in order: found {found:?} instead of {from:?}"
            ));
        }
        self.holds = to;
        Ok(())
    }
}

/// The streams of the chunk's load, histogram and reduce.
fn stage_streams(streams: &[Stream], chunk: u64) -> [&Stream; 3] {
    match streams {
        [load, between @ .., reduce] if !between.is_empty() => {
            let turn = chunk % between.len() as u64;
            [load, &between[turn as usize], reduce]
        }
        [load, .., rest] => [load, rest, rest],
        [all] => [all; 3],
        [] => unreachable!("the arguments ask for at least one stream"),
    }
}

/// Takes a lock that no other thread holds if the events order the stages.
pub(crate) fn turn<T>(of: &Mutex<T>) -> Result<MutexGuard<'_, T>, String> {
    of.try_lock().map_err(|_| {
        "the events did not keep the stages in order: two used one buffer at once".into()
    })
}

fn read_whole(file: &mut dyn Read, mut rest: &mut [u8]) -> Result<(), String> {
    let wanted = rest.len();
    while !rest.is_empty() {
        match file.read(rest) {
            Ok(0) => {
                let missing = rest.len();
                return Err(format!(
                    "the file shrank meanwhile: {missing} of {wanted} bytes are gone"
                ));
            }
            Ok(n) => rest = &mut rest[n..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(())
}

/// Counts in four tables, so that equal bytes in a row are no chain of additions to one word.
fn count(bytes: &[u8]) -> Counts {
    let mut tables = [[0_u64; 256]; 4];
    let mut quads = bytes.chunks_exact(4);
    for quad in &mut quads {
        for (table, &byte) in tables.iter_mut().zip(quad) {
            table[byte as usize] += 1;
        }
    }
    for &byte in quads.remainder() {
        tables[0][byte as usize] += 1;
    }
    std::array::from_fn(|byte| tables.iter().map(|table| table[byte]).sum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek as _, Write as _};

    #[test]
    fn every_byte_is_counted_once() {
        for len in [0, 1, 2, 3, 4, 5, 1023] {
            let bytes: Vec<u8> = (0..len).map(|i| (i * 7 % 251) as u8).collect();
            let mut plain = [0; 256];
            for &byte in &bytes {
                plain[byte as usize] += 1;
            }
            assert_eq!(count(&bytes), plain, "{len} bytes");
        }
    }

    #[test]
    fn each_number_of_streams_has_its_stages() {
        let device = Device::new_host(1);
        let streams: Vec<_> = (0..5).map(|_| device.new_stream().unwrap()).collect();
        let ids = |n: usize, chunk| {
            stage_streams(&streams[..n], chunk)
                .map(|s| streams.iter().position(|other| other == s).unwrap())
        };
        assert_eq!(ids(1, 3), [0, 0, 0]);
        assert_eq!(ids(2, 3), [0, 1, 1]);
        assert_eq!(ids(3, 3), [0, 1, 2]);
        assert_eq!(ids(5, 3), [0, 1, 4]);
        assert_eq!(ids(5, 4), [0, 2, 4]);
    }

    #[test]
    fn the_ring_is_bounded_whatever_the_file() {
        let plan = |streams, bytes, chunk| Plan {
            name: "f".into(),
            streams,
            bytes: Some(bytes),
            chunk,
        };
        assert_eq!(plan(4, 0, 1024).memory(), 0);
        assert_eq!(plan(4, 10, 1024).memory(), 10);
        assert_eq!(plan(1, u64::MAX, 1024).memory(), 8 << 10);
        assert_eq!(plan(4, 1 << 50, 1024).memory(), 16 << 10);
        assert_eq!(plan(33, 1 << 50, 1024).memory(), 33 << 10);
        assert_eq!(plan(4, 2500, 1000).chunks(), Some(3));
        assert_eq!(plan(4, 2500, 1000).len_of(2), 500);
        let unknown = Plan {
            bytes: None,
            ..plan(4, 0, 1024)
        };
        assert_eq!(unknown.memory(), 16 << 10);
    }

    #[test]
    fn a_stage_out_of_order_is_noticed() {
        let device = Device::new_host(1);
        let slot = Slot::new(&device, 1).unwrap();
        let mut buffer = turn(&slot.buffer).unwrap();
        assert!(turn(&slot.buffer).is_err(), "somebody has it");
        assert!(buffer.pass_on(Holds::Bytes(1), Holds::Counts(1)).is_err());
        buffer.pass_on(Holds::Nothing, Holds::Bytes(1)).unwrap();
        assert!(buffer.pass_on(Holds::Bytes(2), Holds::Counts(2)).is_err());
    }

    /// Runs over a file of `bytes` that claims to be of `claimed`.
    fn run_over(options: &File, claimed: u64, streams: usize) -> Result<Outcome, String> {
        let plan = Plan {
            name: "the file".into(),
            streams,
            bytes: Some(claimed),
            chunk: 10,
        };
        let source = Source::file(options.try_clone().unwrap());
        run(&Device::new_host(2), source, &plan, None, |_| {})
    }

    /// Gives a few bytes at a time, as a pipe may, and goes on after its end, as a terminal does.
    struct Trickle {
        left: usize,
        ends: usize,
    }

    impl Read for Trickle {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            let n = into.len().min(3).min(self.left);
            if n == 0 {
                self.ends += 1;
                assert_eq!(self.ends, 1, "it is read after its end");
            }
            into[..n].fill(b'x');
            self.left -= n;
            Ok(n)
        }
    }

    #[test]
    fn an_input_of_unknown_length_is_read_to_its_end_and_no_further() {
        for streams in [1, 2, 3, 8] {
            for (bytes, chunks) in [(0, 0), (1, 1), (9, 1), (10, 1), (11, 2), (1005, 101)] {
                let plan = Plan {
                    name: "the pipe".into(),
                    streams,
                    bytes: None,
                    chunk: 10,
                };
                let source = Source::endless(Trickle {
                    left: bytes,
                    ends: 0,
                });
                let mut told = 0;
                let outcome =
                    run(&Device::new_host(2), source, &plan, None, |n| told += n).unwrap();
                let bytes = bytes as u64;
                assert_eq!((outcome.bytes, outcome.chunks), (bytes, chunks));
                assert_eq!(told, bytes);
                assert_eq!(outcome.counts[usize::from(b'x')], bytes);
                assert_eq!(outcome.plain, Some(outcome.counts));
                assert_eq!(outcome.wall_nanos.is_some(), chunks > 0);
                for times in outcome.times {
                    assert_eq!(times.len() as u64, chunks);
                }
            }
        }
    }

    #[test]
    fn a_file_that_shrinks_ends_every_stage_with_the_reason() {
        for streams in [1, 2, 3, 8] {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&[1; 105]).unwrap();
            file.rewind().unwrap();
            let Err(why) = run_over(&file, 1000, streams) else {
                panic!("there is less than the plan says");
            };
            let expected = "reading the file failed: the file shrank meanwhile";
            assert!(why.starts_with(expected), "{why}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_ends_every_stage_with_the_reason() {
        for streams in [1, 2, 3, 8] {
            let folder = tempfile::tempdir().unwrap();
            let write_only = File::create(folder.path().join("f")).unwrap();
            let Err(why) = run_over(&write_only, 1000, streams) else {
                panic!("it is not open for reading");
            };
            assert!(why.starts_with("reading the file failed: "), "{why}");
        }
    }
}
