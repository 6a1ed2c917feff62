//! `fencepost bench`: what each operation costs beside a bare primitive, measured in turns.

use std::{
    hint::black_box,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use fencepost::{Backend, Device, Event, Gate, Stream};
use serde::Serialize;

use crate::{Stop, align_numbers, open, print, print_json, progress_bar, stats::Stats, table};
use bare::{Naive, NaiveEvent, PingPong};
use harness::{How, Side, in_settled_turns, in_turns};

mod bare;
mod cuda;
mod harness;
mod many;
mod measuring;
#[cfg(target_vendor = "apple")]
mod metal;
mod opencl;
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
#[allow(unsafe_code)]
mod processor;
mod tracing;
mod vulkan;
#[cfg(feature = "wgpu30")]
mod wgpu;

/// Measure what each operation costs beside the bare primitive or driver call
///
/// In each of many rounds the operation and the primitives below it take turns. A row has the
/// median of the rounds, and p5 and p95 show their spread. The ratio is the operation's median
/// divided by the primitive's. `within` and `OVER` say whether it keeps its bound; the exit code
/// does not depend on it.
///
/// The rows that wake another thread also depend on the cores that the two threads run on. If p5
/// and p95 are far apart, measure again, or on fixed cores, as with `taskset -c 0,1`.
#[derive(clap::Args)]
#[command(after_long_help = "\
JSON fields of bench: device, cpus, debug_build, quick, left_out (why some rows\n\
are not measured, or null), and for each of rows:\n\
operation, rounds, median_ns, p5_ns, p95_ns, and for each of against: name,\n\
median_ns, p5_ns, p95_ns, ratio, bound, verdict (the last two null where there\n\
is no bound).")]
pub(crate) struct Args {
    /// The device, by its name in `fencepost devices` [default: FENCEPOST_DEVICE, or the one that
    /// `fencepost devices` marks]
    #[arg(long, value_name = "NAME")]
    device: Option<String>,

    /// Measure only the rows whose operation contains TEXT
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    filter: String,

    /// Run a few rounds only: shows that everything works, but its figures mean little
    #[arg(long)]
    quick: bool,

    /// Print one JSON object instead of the table
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    device: String,
    cpus: usize,
    debug_build: bool,
    quick: bool,
    left_out: Option<&'static str>,
    rows: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    operation: &'static str,
    rounds: usize,
    #[serde(flatten)]
    figures: Figures,
    against: Vec<Against>,
}

#[derive(Serialize)]
struct Against {
    name: &'static str,
    #[serde(flatten)]
    figures: Figures,
    ratio: f64,
    bound: Option<f64>,
    verdict: Option<&'static str>,
}

#[derive(Serialize)]
struct Figures {
    median_ns: f64,
    p5_ns: f64,
    p95_ns: f64,
}

impl Figures {
    /// Those of one of `share` equal parts of the operation.
    fn of(stats: &Stats, share: f64) -> Figures {
        Figures {
            median_ns: stats.median / share,
            p5_ns: stats.p5 / share,
            p95_ns: stats.p95 / share,
        }
    }
}

/// What an operation is compared with: its name, and the bound of the ratio.
type Base = (&'static str, Option<f64>);

const ON_HOST: &[Measure] = &[
    ("query, complete", Bench::query_complete),
    ("query, pending", Bench::query_pending),
    ("record on idle stream", Bench::record),
    ("record on idle stream, timed", Bench::record_timed),
    ("launch + record + synchronize", Bench::wake_hot),
    ("the same after 1.5 ms of sleep", Bench::wake_cold),
    ("create + drop", Bench::create),
    ("create + record + drop", Bench::create_record),
    ("each of 10,000 live streams", Bench::streams),
    ("a closure behind 500 blocked", Bench::behind_blocked),
    (GATE, Bench::gate),
    ("next of 10,000 + work", Bench::any_of_many),
    ("next of 10,000 + 10 ms of work", Bench::any_of_many_asleep),
    ("synchronize_any of 10,000", Bench::any_of_many_at_once),
    ("measure, each sample", Bench::measure_sample),
    ("span of a thread", Bench::host_span),
    ("trace save, each span", Bench::trace_save),
];

fn measures_of(backend: Backend) -> Result<&'static [Measure], Stop> {
    Ok(match backend {
        Backend::Host => ON_HOST,
        Backend::Cuda => cuda::MEASURES,
        Backend::Vulkan => vulkan::MEASURES,
        Backend::OpenCl => opencl::MEASURES,
        #[cfg(target_vendor = "apple")]
        Backend::Metal => metal::MEASURES,
        #[cfg(feature = "wgpu30")]
        Backend::Wgpu30 => wgpu::MEASURES,
        other => {
            return Err(Stop::Usage(format!(
                "bench has no measures for {other} yet; use --device host"
            )));
        }
    })
}

pub(crate) fn run(args: &Args) -> Result<(), Stop> {
    let device = open(args.device.as_deref())?;
    let bench = Bench {
        device,
        quick: args.quick,
    };
    let backend = bench.device.backend();
    let mut measures: Vec<_> = measures_of(backend)?
        .iter()
        .filter(|(name, _)| name.contains(&args.filter))
        .collect();
    if measures.is_empty() {
        let filter = &args.filter;
        return Err(Stop::Usage(format!(
            "no row contains \"{filter}\"; without --filter, all rows are measured"
        )));
    }
    let is_of_many = |name: &str| name.contains(many::NAME);
    let left_out =
        many::left_out(backend).filter(|_| measures.iter().any(|(name, _)| is_of_many(name)));
    if left_out.is_some() {
        measures.retain(|(name, _)| !is_of_many(name));
    }
    let bar = progress_bar(measures.len() as u64, "{msg:11} {wide_bar} {pos}/{len}");
    bar.set_message("measuring");
    let mut rows = Vec::new();
    for (name, measure) in measures {
        let row = measure(&bench)?;
        debug_assert_eq!(row.operation, *name);
        rows.push(row);
        bar.inc(1);
    }
    bar.finish_and_clear();
    let report = Report {
        // The clock's name names the hardware, or says that there is none.
        device: format!("{}, {}", bench.device, bench.device.clock().name()),
        cpus: std::thread::available_parallelism().map_or(1, usize::from),
        debug_build: cfg!(debug_assertions),
        quick: bench.quick,
        left_out,
        rows,
    };
    match args.json {
        true => print_json(&report),
        false => print(&text(&report)),
    }
}

/// The operation of a row, and what measures it.
type Measure = (&'static str, fn(&Bench) -> Result<Row, Stop>);

struct Bench {
    device: Device,
    quick: bool,
}

impl Bench {
    fn how(&self, rounds: usize, batch: u64, pause: Option<Duration>) -> How {
        let rounds = if self.quick { 5 } else { rounds };
        How {
            rounds,
            batch,
            pause,
            clock: harness::wall_time,
        }
    }

    /// For operations that take nanoseconds.
    fn short(&self) -> How {
        self.how(1001, 64, None)
    }

    fn new_event(&self, timing: bool) -> Event {
        match timing {
            true => Event::with_timing(&self.device),
            false => Event::new(&self.device),
        }
    }

    /// Both sides of a GPU in turns; `settle` waits for all work after each turn.
    fn compare_settled(
        &self,
        operation: &'static str,
        base: Base,
        settle: &dyn Fn() -> Result<(), Stop>,
        ours: Side<'_>,
        bare: Side<'_>,
    ) -> Result<Row, Stop> {
        let how = self.how(301, 32, None);
        let [ours, bare] = in_settled_turns(how, settle, [ours, bare])?;
        Ok(row(operation, how, &ours, [(&bare, base)]))
    }

    fn query_complete(&self) -> Result<Row, Stop> {
        let stream = self.device.new_stream()?;
        let event = Event::new(&self.device);
        event.record(&stream)?;
        event.synchronize()?;
        self.query("query, complete", &event)
    }

    fn query_pending(&self) -> Result<Row, Stop> {
        let (holder, stream) = (self.device.new_stream()?, self.device.new_stream()?);
        let (release, held) = mpsc::channel::<()>();
        holder.launch(move || {
            // Ends when the sender is dropped.
            let _ = held.recv();
        })?;
        stream.wait(&holder.record()?)?;
        let event = Event::new(&self.device);
        event.record(&stream)?;
        let row = self.query("query, pending", &event);
        drop(release);
        event.synchronize()?;
        row
    }

    fn query(&self, operation: &'static str, event: &Event) -> Result<Row, Stop> {
        let word = Arc::new(AtomicU64::new(1));
        let query: Side<'_> = Box::new(|n| queries(event, n));
        let load: Side<'_> = Box::new(|n| {
            for _ in 0..n {
                black_box(black_box(&word).load(Ordering::Acquire));
            }
            Ok(())
        });
        let how = self.short();
        let [query, load] = in_turns(how, [query, load])?;
        let base = ("an atomic load behind an Arc", Some(3.0));
        Ok(row(operation, how, &query, [(&load, base)]))
    }

    fn record(&self) -> Result<Row, Stop> {
        self.record_idle("record on idle stream", Event::new(&self.device))
    }

    fn record_timed(&self) -> Result<Row, Stop> {
        let event = Event::with_timing(&self.device);
        self.record_idle("record on idle stream, timed", event)
    }

    fn record_idle(&self, operation: &'static str, event: Event) -> Result<Row, Stop> {
        let stream = self.device.new_stream()?;
        let mutex = Mutex::new(0_u64);
        let record: Side<'_> = Box::new(|n| records(&event, &stream, n));
        let lock_and_clock: Side<'_> = Box::new(|n| {
            for _ in 0..n {
                drop(black_box(
                    black_box(&mutex)
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner),
                ));
                black_box(Instant::now());
            }
            Ok(())
        });
        let how = self.short();
        let [record, lock_and_clock] = in_turns(how, [record, lock_and_clock])?;
        let base = ("lock + unlock + clock read", Some(3.0));
        Ok(row(operation, how, &record, [(&lock_and_clock, base)]))
    }

    fn wake_hot(&self) -> Result<Row, Stop> {
        self.wake("launch + record + synchronize", self.how(801, 32, None))
    }

    fn wake_cold(&self) -> Result<Row, Stop> {
        let pause = Some(Duration::from_micros(1500));
        let how = self.how(801, 1, pause);
        self.wake("the same after 1.5 ms of sleep", how)
    }

    /// A round trip to another thread.
    fn wake(&self, operation: &'static str, how: How) -> Result<Row, Stop> {
        let stream = self.device.new_stream()?;
        let event = Event::new(&self.device);
        let ping_pong = PingPong::new()?;
        let naive = Naive::new()?;
        let naive_event = Arc::new(NaiveEvent::default());
        let fencepost: Side<'_> = Box::new(|n| {
            for _ in 0..n {
                stream.launch(|| {
                    black_box(());
                })?;
                event.record(&stream)?;
                event.synchronize()?;
            }
            Ok(())
        });
        let bare: Side<'_> = Box::new(|n| {
            for _ in 0..n {
                ping_pong.round_trip();
            }
            Ok(())
        });
        let condvars: Side<'_> = Box::new(|n| {
            for _ in 0..n {
                naive.launch(|| {
                    black_box(());
                });
                naive.record(&naive_event);
                naive_event.synchronize();
            }
            Ok(())
        });
        let [fencepost, bare, condvars] = in_turns(how, [fencepost, bare, condvars])?;
        let bases = [
            (&bare, ("park/unpark ping-pong", Some(1.3))),
            (&condvars, ("mutex + condvar queue, event", Some(1.0))),
        ];
        Ok(row(operation, how, &fencepost, bases))
    }

    /// What is behind the gate is let go at once.
    fn gate(&self) -> Result<Row, Stop> {
        let stream = self.device.new_stream()?;
        let naive = Naive::new()?;
        let ours: Side<'_> = Box::new(|n| self.gates(&stream, n));
        let condvars: Side<'_> = Box::new(|n| {
            for _ in 0..n {
                let event = Arc::new(NaiveEvent::default());
                naive.wait(&event);
                event.signal();
            }
            Ok(())
        });
        let settle = || {
            naive.settle();
            Ok(stream.synchronize()?)
        };
        let base = ("mutex + condvar queue, event", None);
        self.compare_settled(GATE, base, &settle, ours, condvars)
    }

    /// Gates that are made, waited for and opened.
    fn gates(&self, stream: &Stream, count: u64) -> Result<(), Stop> {
        for _ in 0..count {
            let gate = Gate::new(&self.device)?;
            black_box(&gate).wait(black_box(stream))?;
            gate.open();
        }
        Ok(())
    }

    fn create(&self) -> Result<Row, Stop> {
        let create: Side<'_> = Box::new(|n| {
            for _ in 0..n {
                drop(black_box(Event::new(black_box(&self.device))));
            }
            Ok(())
        });
        let how = self.short();
        let [create] = in_turns(how, [create])?;
        Ok(row("create + drop", how, &create, []))
    }

    fn create_record(&self) -> Result<Row, Stop> {
        let stream = self.device.new_stream()?;
        let create: Side<'_> = Box::new(|n| {
            for _ in 0..n {
                let event = Event::new(black_box(&self.device));
                event.record(&stream)?;
                drop(black_box(event));
            }
            Ok(())
        });
        let how = self.short();
        let [create] = in_turns(how, [create])?;
        Ok(row("create + record + drop", how, &create, []))
    }

    /// Many live streams that wait for each other: whether the time for one grows with their
    /// number.
    fn streams(&self) -> Result<Row, Stop> {
        const FEW: usize = 1_000;
        const MANY: usize = 10_000;
        let many: Side<'_> = Box::new(|n| (0..n).try_for_each(|_| self.live_streams(MANY)));
        let few: Side<'_> = Box::new(|n| (0..n).try_for_each(|_| self.live_streams(FEW)));
        let how = self.how(15, 1, None);
        let [many, few] = in_turns(how, [many, few])?;
        let (many, few) = (
            Figures::of(&many, MANY as f64),
            Figures::of(&few, FEW as f64),
        );
        let against = against(&many, few, ("each of 1,000", None));
        Ok(Row {
            operation: "each of 10,000 live streams",
            rounds: how.rounds,
            figures: many,
            against: vec![against],
        })
    }

    /// The first closure behind many that block by means that the library cannot see, from the
    /// launch of the first of them.
    fn behind_blocked(&self) -> Result<Row, Stop> {
        const LIMIT: Duration = Duration::from_millis(50);
        let how = self.how(15, 1, None);
        let (mut ours, mut bare) = (Vec::new(), Vec::new());
        for _ in 0..how.rounds {
            ours.push(behind_blocked_closures()?);
            bare.push(bare::behind_blocked_threads(BLOCKED)?);
        }
        let nanos = |times: Vec<Duration>| {
            let nanos = times.iter().map(|time| time.as_nanos() as f64).collect();
            Stats::of(nanos).ok_or_else(|| Stop::Failed("a measurement of no rounds".into()))
        };
        let (ours, bare) = (nanos(ours)?, nanos(bare)?);
        let limit = nanos(vec![LIMIT])?;
        let bases = [
            (&bare, ("threads of their own", None)),
            (&limit, ("the limit", Some(1.0))),
        ];
        Ok(row("a closure behind 500 blocked", how, &ours, bases))
    }

    /// Streams that each work, wait for an earlier one, and work again.
    fn live_streams(&self, count: usize) -> Result<(), Stop> {
        let done = Arc::new(AtomicU64::new(0));
        let work = || {
            let done = done.clone();
            move || {
                done.fetch_add(1, Ordering::Relaxed);
            }
        };
        let mut streams = Vec::with_capacity(count);
        let mut events: Vec<Event> = Vec::with_capacity(count);
        for i in 0..count {
            let stream = self.device.new_stream()?;
            stream.launch(work())?;
            // A hash spreads the waits over all earlier streams.
            if let Some(earlier) = events.get(i.wrapping_mul(0x9e37_79b1) % i.max(1)) {
                earlier.wait(&stream)?;
            }
            stream.launch(work())?;
            let event = Event::new(&self.device);
            event.record(&stream)?;
            streams.push(stream);
            events.push(event);
        }
        for event in &events {
            event.synchronize()?;
        }
        match done.load(Ordering::Relaxed) {
            n if n == 2 * count as u64 => Ok(()),
            n => Err(Stop::Failed(format!(
                "{n} of {} pieces of work ran: please report this bug",
                2 * count
            ))),
        }
    }
}

const BLOCKED: usize = 500;

const GATE: &str = "gate: make, wait, open";

fn behind_blocked_closures() -> Result<Duration, Stop> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    // Without threads from an earlier round.
    let device = Device::new_host(cores);
    let (release, blocked) = mpsc::channel::<()>();
    let blocked = Arc::new(Mutex::new(blocked));
    let streams = (0..BLOCKED).map(|_| device.new_stream());
    let streams = streams.collect::<Result<Vec<_>, _>>()?;
    let last = device.new_stream()?;
    let (tell, told) = mpsc::channel();
    let start = Instant::now();
    for stream in &streams {
        let blocked = blocked.clone();
        stream.launch(move || {
            // Ends when the sender is dropped.
            let _ = blocked
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .recv();
        })?;
    }
    last.launch(move || {
        let _ = tell.send(start.elapsed());
        drop(release);
    })?;
    for stream in streams.iter().chain([&last]) {
        stream.synchronize()?;
    }
    told.recv().map_err(|error| Stop::Failed(error.to_string()))
}

/// The row of an operation: `ours`, and the bases it is compared with.
fn row<const N: usize>(
    operation: &'static str,
    how: How,
    ours: &Stats,
    bases: [(&Stats, Base); N],
) -> Row {
    let figures = Figures::of(ours, 1.0);
    let against = bases.map(|(stats, base)| against(&figures, Figures::of(stats, 1.0), base));
    Row {
        operation,
        rounds: how.rounds,
        against: against.into(),
        figures,
    }
}

/// Records of one event of ours.
#[inline]
fn records(event: &Event, stream: &Stream, count: u64) -> Result<(), Stop> {
    for _ in 0..count {
        black_box(event).record(black_box(stream))?;
    }
    Ok(())
}

/// Queries of one event of ours.
#[inline]
fn queries(event: &Event, count: u64) -> Result<(), Stop> {
    for _ in 0..count {
        black_box(black_box(event).query()?);
    }
    Ok(())
}

fn against(ours: &Figures, theirs: Figures, (name, bound): Base) -> Against {
    let ratio = ours.median_ns / theirs.median_ns;
    Against {
        name,
        figures: theirs,
        ratio,
        bound,
        verdict: bound.map(|bound| if ratio <= bound { "within" } else { "OVER" }),
    }
}

/// In no more columns than the table has for it, also where a side is a thousand times the other.
fn ratio(ratio: f64) -> String {
    match ratio < 100.0 {
        true => format!("{ratio:.2}"),
        false => format!("{ratio:.0}"),
    }
}

fn text(report: &Report) -> String {
    let mut table = table(["operation", "median", "p5", "p95", "ratio", "bound", ""]);
    for row in &report.rows {
        let [median, p5, p95] = figures(&row.figures);
        table.add_row([row.operation, &median, &p5, &p95, "", "", ""]);
        for base in &row.against {
            let [median, p5, p95] = figures(&base.figures);
            table.add_row([
                &format!("- {}", base.name),
                &median,
                &p5,
                &p95,
                &ratio(base.ratio),
                &base
                    .bound
                    .map_or(String::new(), |bound| format!("≤ {bound}")),
                base.verdict.unwrap_or_default(),
            ]);
        }
    }
    align_numbers(&mut table, 1);
    let mut notes = String::new();
    if report.debug_build {
        notes.push_str(
            "This is a debug build: its figures mean nothing. Use cargo run --release.\n",
        );
    }
    if let Some(why) = report.left_out {
        notes.push_str(why);
        notes.push('\n');
    }
    if report.quick {
        notes.push_str("This is a quick run of few rounds: its figures mean little.\n");
    }
    format!(
        "device: {}, {} CPUs\n\
         The time of one operation, measured in turns with the bare primitives (-).\n\
         {notes}\n{}\n",
        report.device,
        report.cpus,
        table.trim_fmt()
    )
}

fn figures(figures: &Figures) -> [String; 3] {
    [figures.median_ns, figures.p5_ns, figures.p95_ns].map(crate::units::time)
}
