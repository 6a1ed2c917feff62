//! `fencepost run`: the main job.

use std::{
    fs::File,
    io::{ErrorKind, Read as _, Seek as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use fencepost::{Backend, Device, bindings, trace::Trace};
use indicatif::ProgressBar;
use serde::Serialize;

use crate::{
    Stop, WIDTH, align_numbers, gpu, open,
    pipeline::{self, Counts, MOST_CHUNKS, Outcome, Plan, STAGES, Source},
    print, print_json, progress_bar,
    stats::{Interval, Stats, common, entropy, union},
    table, units, wrap,
};

/// Count a file's bytes in a pipeline that only events order, and time each stage
///
/// Reads a file in chunks. Each chunk passes three stages on different streams: load, histogram and
/// reduce. Nothing but events orders them. Prints how long each stage took by the device's clock,
/// how far the stages overlapped, the throughput and the file's entropy, and checks the histogram
/// against a plain single-threaded count. On the host it also prints how much faster the streams
/// are than one thread that runs the same code over the same chunks.
#[derive(clap::Args)]
#[command(after_long_help = JSON_HELP)]
pub(crate) struct Args {
    /// The device, by its name in `fencepost devices` [default: FENCEPOST_DEVICE, or the one that
    /// `fencepost devices` marks]
    #[arg(long, value_name = "NAME")]
    device: Option<String>,

    /// The file to read, or - for the standard input [default: this program's own executable]
    ///
    /// The standard input may be a pipe of any length. It cannot be read twice, so the plain count
    /// is made as each chunk is loaded, and its time is part of the load.
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,

    /// How many streams: one loads, one reduces, and the others count histograms [default: on the
    /// host two more than there are cores, on a GPU 4]
    ///
    /// Of two streams one loads and the other does the rest; a single stream does everything. On a
    /// GPU a host stream loads, and there are at least three streams.
    #[arg(long, value_name = "N", value_parser = parse_streams, allow_negative_numbers = true)]
    streams: Option<usize>,

    /// The size of a chunk in bytes; K, M and G stand for KiB, MiB and GiB
    #[arg(long, value_name = "SIZE", default_value = "1M", value_parser = units::parse_chunk,
        allow_negative_numbers = true)]
    chunk: usize,

    /// Write when each chunk was in each stage, and what waited for what, to a file
    ///
    /// Its suffix names the format: .svg is a picture, .pftrace is for Perfetto, .json for Chrome.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,

    /// Print one JSON object instead of the table
    #[arg(long)]
    json: bool,
}

const JSON_HELP: &str = "\
JSON fields of run (times in nanoseconds on the device's clock, sizes in bytes):
  device, clock, clock_resolution_ns  the device and its clock
  input, bytes, chunk_bytes, chunks   the file (\"standard input\" for -), and how
                                      it was divided
  streams                             how many streams were asked for
  stages                              for each: stage, n, min_ns, median_ns,
                                      p95_ns, max_ns, total_ns; the times are
                                      null when n is 0
  wall_ns                             from the start of the first chunk to the
                                      end of the last
  overlap                             the sum of the stages' total_ns divided by
                                      wall_ns; 1.0 means not at all
  overlaps                            for each two stages that one clock times,
                                      the least first: stages, both_ns when both
                                      were at work, and share, both_ns divided
                                      by the time of the shorter one
  throughput_bytes_per_s              bytes divided by the seconds of wall_ns
  trace                               with --trace: file, finished, failed,
                                      unfinished, dropped; else null
  one_thread                          on the host, for a file of 1 MiB or more:
                                      the same code over the same chunks on one
                                      thread and on the streams, in turns, the
                                      best of 3 each: bytes (the first 512 MiB
                                      at most), streams_bytes_per_s,
                                      one_thread_bytes_per_s, and ratio, the
                                      first divided by the second; else null
  entropy_bits_per_byte               of the whole file
  histogram                           256 counts
  matches                             whether a plain count gives the same
wall_ns, overlap and throughput_bytes_per_s are null for an empty file.

Exit codes: 0 success, 1 a check or a device failed, 2 bad arguments.";

const MOST_STREAMS: usize = 4096;
/// For all buffers of the ring together.
const MOST_MEMORY: u64 = 4 << 30;

fn parse_streams(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n @ 1..=MOST_STREAMS) => Ok(n),
        _ => Err(format!("expected a number from 1 to {MOST_STREAMS}")),
    }
}

#[derive(Serialize)]
struct Report {
    device: String,
    clock: String,
    clock_resolution_ns: u64,
    input: String,
    bytes: u64,
    chunk_bytes: usize,
    chunks: u64,
    streams: usize,
    stages: Vec<Stage>,
    one_thread: Option<Comparison>,
    wall_ns: Option<f64>,
    overlap: Option<f64>,
    overlaps: Vec<Overlap>,
    throughput_bytes_per_s: Option<f64>,
    trace: Option<Traced>,
    entropy_bits_per_byte: f64,
    histogram: Vec<u64>,
    matches: bool,
}

/// The streams beside one thread. By the host's clock, since one thread has no events.
#[derive(Serialize)]
struct Comparison {
    bytes: u64,
    streams_bytes_per_s: f64,
    one_thread_bytes_per_s: f64,
    ratio: f64,
}

#[derive(Serialize)]
struct Stage {
    stage: &'static str,
    n: usize,
    min_ns: Option<f64>,
    median_ns: Option<f64>,
    p95_ns: Option<f64>,
    max_ns: Option<f64>,
    total_ns: Option<f64>,
}

/// How far two stages overlapped.
#[derive(Serialize)]
struct Overlap {
    stages: [&'static str; 2],
    both_ns: f64,
    share: f64,
    /// The stage that was at work for less time.
    #[serde(skip)]
    shorter: &'static str,
}

/// What was written to the file that `--trace` names.
#[derive(Serialize)]
struct Traced {
    file: String,
    finished: usize,
    failed: usize,
    unfinished: usize,
    dropped: u64,
}

pub(crate) fn run(args: &Args) -> Result<(), Stop> {
    if let Some(path) = &args.trace {
        refuse_unwritable(path)?;
        refuse_the_input(path, args.input.as_deref())?;
    }
    let device = open(args.device.as_deref())?;
    let (name, file) = input(args)?;
    let plan = Plan {
        name,
        streams: args.streams.unwrap_or_else(|| default_streams(&device)),
        bytes: file.as_ref().map(|(_, bytes)| *bytes),
        chunk: args.chunk,
    };
    refuse_the_absurd(&plan)?;

    let template = match plan.bytes {
        Some(_) => "{msg:11} {wide_bar} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}",
        None => "{msg:11} {spinner} {bytes} {binary_bytes_per_sec}",
    };
    let bar = progress_bar(plan.bytes, template);
    let job = Job {
        device: &device,
        plan: &plan,
        trace: args.trace.as_deref().map(|path| (Trace::new(), path)),
        bar: &bar,
    };
    let (outcome, plain, one_thread, traced) = match file {
        Some((file, bytes)) => job.over_file(file, bytes)?,
        None => {
            let (outcome, traced) = job.pipeline(Source::endless(std::io::stdin()))?;
            let plain = outcome.plain;
            // It cannot be read again.
            (outcome, plain, None, traced)
        }
    };
    bar.finish_and_clear();

    let matches = plain == Some(outcome.counts);
    let report = report(&device, &plan, outcome, one_thread, traced, matches);
    match args.json {
        true => print_json(&report)?,
        false => print(&text(&report))?,
    }
    match matches {
        true => Ok(()),
        false => Err(Stop::Failed(format!(
            "the histogram differs from a plain single-threaded count of {}; if nothing wrote to \
             the file meanwhile, this is a bug: please report it",
            plan.name
        ))),
    }
}

/// The input's name, and the file with its length, unless it is the standard input.
fn input(args: &Args) -> Result<(String, Option<(File, u64)>), Stop> {
    match &args.input {
        Some(path) if path.as_os_str() == "-" => Ok(("standard input".into(), None)),
        Some(path) => Ok((path.display().to_string(), Some(open_regular(path)?))),
        None => {
            let path = std::env::current_exe().map_err(|error| {
                Stop::Usage(format!(
                    "cannot find this program's executable: {error}; name a file with --input"
                ))
            })?;
            Ok((path.display().to_string(), Some(open_regular(&path)?)))
        }
    }
}

/// What the main job runs with.
struct Job<'a> {
    device: &'a Device,
    plan: &'a Plan,
    trace: Option<(Trace, &'a Path)>,
    bar: &'a ProgressBar,
}

/// The pipeline's result, the plain counts, the comparison and what was traced.
type Results = (Outcome, Option<Counts>, Option<Comparison>, Option<Traced>);

impl Job<'_> {
    fn over_file(&self, file: File, bytes: u64) -> Result<Results, Stop> {
        let (device, plan, bar) = (self.device, self.plan, self.bar);
        let mut again = file
            .try_clone()
            .map_err(|error| Stop::Failed(format!("cannot keep {} open: {error}", plan.name)))?;
        let (outcome, traced) = self.pipeline(Source::file(file))?;
        bar.set_message("plain count");
        bar.set_position(0);
        let plain = plain_count(&mut again, bytes, |bytes| bar.inc(bytes))
            .map_err(|why| Stop::Failed(format!("reading {} again failed: {why}", plan.name)))?;
        bar.set_message("one thread");
        let one_thread = match device.backend() {
            Backend::Host => compare(device, &mut again, plan, bytes).map_err(Stop::Failed)?,
            // The same code does not run elsewhere.
            _ => None,
        };
        Ok((outcome, Some(plain), one_thread, traced))
    }

    /// Runs the pipeline and writes the trace, also of a pipeline that fails.
    fn pipeline(&self, source: Source) -> Result<(Outcome, Option<Traced>), Stop> {
        self.bar.set_message("pipeline");
        let done = |bytes| self.bar.inc(bytes);
        let trace = self.trace.as_ref().map(|(trace, _)| trace);
        let outcome = match self.device.backend() {
            Backend::Host => pipeline::run(self.device, source, self.plan, trace, done),
            _ => gpu::run(self.device, source, self.plan, trace, done),
        };
        let save = |(trace, path): &(Trace, &Path)| {
            let summary = trace.collect();
            trace.save(path).map(|()| Traced {
                file: path.display().to_string(),
                finished: summary.finished,
                failed: summary.failed,
                unfinished: summary.unfinished,
                dropped: summary.dropped,
            })
        };
        let saved = self.trace.as_ref().map(save).transpose();
        let outcome = outcome.map_err(Stop::Failed)?;
        let traced = saved.map_err(|error| Stop::Failed(error.to_string()))?;
        Ok((outcome, traced))
    }
}

/// An error before the run, rather than behind it.
pub(crate) fn refuse_unwritable(path: &Path) -> Result<(), Stop> {
    bindings::can_save_trace(path).map_err(|error| match error.kind() {
        ErrorKind::InvalidInput => Stop::Usage(format!("--trace: {error}")),
        _ => {
            let path = path.display();
            Stop::Usage(format!("--trace: cannot write {path}: {error}"))
        }
    })
}

/// The trace would replace the file that is read.
fn refuse_the_input(trace: &Path, input: Option<&Path>) -> Result<(), Stop> {
    let place = |path: &Path| std::fs::canonicalize(path).ok();
    let input = input.filter(|input| *input != Path::new("-"));
    match input.and_then(place) {
        None => Ok(()),
        input if input != place(trace) => Ok(()),
        _ => {
            let trace = trace.display();
            let text = format!("--trace: {trace} is the input; name another file");
            Err(Stop::Usage(text))
        }
    }
}

/// Opens `path` only if it is a regular file: opening a pipe may block for ever.
fn open_regular(path: &Path) -> Result<(File, u64), Stop> {
    let what_works = "; name a regular file that you may read, or - for the standard input";
    let name = path.display();
    let unreadable = |error| Stop::Usage(format!("cannot read {name}: {error}{what_works}"));
    let kind = std::fs::metadata(path).map_err(unreadable)?.file_type();
    if kind.is_dir() {
        let text = format!("{name} is a directory{what_works}");
        return Err(Stop::Usage(text));
    }
    if !kind.is_file() {
        let text = format!("{name} is a pipe, a device or the like{what_works}");
        return Err(Stop::Usage(text));
    }
    let file = File::open(path).map_err(unreadable)?;
    let bytes = file.metadata().map_err(unreadable)?.len();
    Ok((file, bytes))
}

fn refuse_the_absurd(plan: &Plan) -> Result<(), Stop> {
    if plan.memory() > MOST_MEMORY {
        return Err(Stop::Usage(format!(
            "--streams {} with --chunk {} needs {} of buffers; the limit is {}",
            plan.streams,
            plan.chunk,
            units::size(plan.memory() as f64),
            units::size(MOST_MEMORY as f64),
        )));
    }
    if let (Some(bytes), Some(chunks @ MOST_CHUNKS..)) = (plan.bytes, plan.chunks())
        && chunks > MOST_CHUNKS
    {
        return Err(Stop::Usage(format!(
            "--chunk {} divides {} into {} chunks; the limit is {MOST_CHUNKS}: use --chunk {} or \
             more",
            plan.chunk,
            plan.name,
            chunks,
            bytes.div_ceil(MOST_CHUNKS),
        )));
    }
    Ok(())
}

/// What the pipeline's result is compared with: a simple loop on one thread, without streams.
fn plain_count(file: &mut File, bytes: u64, progress: impl Fn(u64)) -> Result<Counts, String> {
    file.rewind().map_err(|error| error.to_string())?;
    let mut counts = [0; 256];
    let mut buffer = vec![0; 1 << 16];
    let mut seen = 0;
    loop {
        let n = match file.read(&mut buffer) {
            Ok(n) => n,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.to_string()),
        };
        for &byte in &buffer[..n] {
            counts[byte as usize] += 1;
        }
        seen += n as u64;
        progress(n as u64);
        if seen > bytes {
            let text = format!("it was {bytes} bytes long at first, and now there is more");
            return Err(text);
        }
        if n == 0 {
            break;
        }
    }
    match seen == bytes {
        true => Ok(counts),
        false => Err(format!("it was {bytes} bytes long at first, now {seen}")),
    }
}

/// With as many streams that count as there are cores, those that load and reduce find a core
/// whenever a stream that counts waits for them.
fn default_streams(device: &Device) -> usize {
    match device.backend() {
        Backend::Host => std::thread::available_parallelism().map_or(1, usize::from) + 2,
        _ => 4,
    }
    .min(MOST_STREAMS)
}

/// A shorter file says nothing.
const LEAST_COMPARED: u64 = 1 << 20;
/// More would only take longer; without optimisation, many times as long.
const MOST_COMPARED: u64 = if cfg!(debug_assertions) { 4 } else { 512 } << 20;
const ROUNDS: usize = 3;

/// Runs the pipeline and one thread in turns over the file's beginning.
fn compare(
    device: &Device,
    file: &mut File,
    plan: &Plan,
    bytes: u64,
) -> Result<Option<Comparison>, String> {
    if bytes < LEAST_COMPARED {
        return Ok(None);
    }
    let bytes = bytes.min(MOST_COMPARED);
    let plan = Plan {
        name: plan.name.clone(),
        bytes: Some(bytes),
        ..*plan
    };
    let mut from_start = || {
        file.rewind().map_err(|error| error.to_string())?;
        file.try_clone().map_err(|error| error.to_string())
    };
    let (mut streams, mut one_thread) = (Duration::MAX, Duration::MAX);
    for _ in 0..ROUNDS {
        let input = from_start()?;
        let start = Instant::now();
        let on_one = pipeline::run_on_one_thread(input, &plan)?;
        one_thread = one_thread.min(start.elapsed());

        let input = from_start()?;
        let start = Instant::now();
        let input = Source::file(input);
        let on_streams = pipeline::run(device, input, &plan, None, |_| {})?.counts;
        streams = streams.min(start.elapsed());
        if on_one != on_streams {
            return Err(format!(
                "one thread and the streams count {} differently; if nothing wrote to the file \
                 meanwhile, this is a bug: please report it",
                plan.name
            ));
        }
    }
    let rate = |time: Duration| bytes as f64 / time.as_secs_f64();
    Ok(Some(Comparison {
        bytes,
        streams_bytes_per_s: rate(streams),
        one_thread_bytes_per_s: rate(one_thread),
        ratio: rate(streams) / rate(one_thread),
    }))
}

fn report(
    device: &Device,
    plan: &Plan,
    outcome: Outcome,
    one_thread: Option<Comparison>,
    trace: Option<Traced>,
    matches: bool,
) -> Report {
    let clock = device.clock();
    let stages = STAGES.into_iter().zip(&outcome.times);
    let stages: Vec<_> = stages
        .map(|(stage, times)| {
            let stats = Stats::of(times.iter().map(|interval| interval.length()).collect());
            Stage {
                stage,
                n: stats.map_or(0, |stats| stats.n),
                min_ns: stats.map(|stats| stats.min),
                median_ns: stats.map(|stats| stats.median),
                p95_ns: stats.map(|stats| stats.p95),
                max_ns: stats.map(|stats| stats.max),
                total_ns: stats.map(|stats| stats.total),
            }
        })
        .collect();
    // By a coarse clock the whole may have taken no time.
    let wall = outcome.wall_nanos.filter(|&wall| wall > 0.0);
    let busy: f64 = stages.iter().filter_map(|stage| stage.total_ns).sum();
    Report {
        device: device.to_string(),
        clock: clock.name().into(),
        clock_resolution_ns: clock.resolution().as_nanos() as u64,
        input: plan.name.clone(),
        bytes: outcome.bytes,
        chunk_bytes: plan.chunk,
        chunks: outcome.chunks,
        streams: plan.streams,
        stages,
        one_thread,
        wall_ns: outcome.wall_nanos,
        overlap: wall.map(|wall| busy / wall),
        overlaps: overlaps(outcome.times, outcome.one_clock_from),
        throughput_bytes_per_s: wall.map(|wall| outcome.bytes as f64 / wall * 1e9),
        trace,
        entropy_bits_per_byte: entropy(&outcome.counts),
        histogram: outcome.counts.to_vec(),
        matches,
    }
}

/// How far each two stages overlapped, the least first. Those in front of `first` are by another
/// clock.
fn overlaps(times: [Vec<Interval>; 3], first: usize) -> Vec<Overlap> {
    let times = times.map(union);
    let mut overlaps = Vec::new();
    for right in first + 1..STAGES.len() {
        for left in first..right {
            let busy = |stage: usize| times[stage].iter().map(|i| i.length()).sum::<f64>();
            let shorter = if busy(left) < busy(right) {
                left
            } else {
                right
            };
            // By a coarse clock a stage may have taken no time.
            if busy(shorter) > 0.0 {
                let both_ns = common(&times[left], &times[right]);
                overlaps.push(Overlap {
                    stages: [STAGES[left], STAGES[right]],
                    both_ns,
                    share: both_ns / busy(shorter),
                    shorter: STAGES[shorter],
                });
            }
        }
    }
    overlaps.sort_by(|a, b| a.share.total_cmp(&b.share));
    overlaps
}

/// The lines on the two stages that overlapped least, and on the trace.
fn more_lines(report: &Report) -> String {
    let least = match report.overlaps.first() {
        Some(least) if report.streams > 1 => paragraph(&format!(
            "least: {} and {} were at work at once for {:.0} % of the time of {}",
            least.stages[0],
            least.stages[1],
            least.share * 100.0,
            least.shorter
        )),
        _ => String::new(),
    };
    let trace = match &report.trace {
        Some(trace) => format!(
            "trace: {} spans in {}{}\n",
            trace.finished,
            crate::printable(&trace.file),
            match trace.dropped {
                0 => String::new(),
                dropped => format!("; {dropped} are missing"),
            }
        ),
        None => String::new(),
    };
    least + &trace
}

/// One row for each stage.
fn stages(report: &Report) -> comfy_table::Table {
    let header = ["stage", "n", "min", "median", "p95", "max", "total"];
    let mut table = table(header);
    for stage in &report.stages {
        let times = [
            stage.min_ns,
            stage.median_ns,
            stage.p95_ns,
            stage.max_ns,
            stage.total_ns,
        ];
        let mut row = vec![stage.stage.into(), stage.n.to_string()];
        row.extend(times.map(or_none));
        table.add_row(row);
    }
    align_numbers(&mut table, 1);
    table
}

fn or_none(nanos: Option<f64>) -> String {
    nanos.map_or("-".into(), units::time)
}

fn plural(count: u64) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// `text` in lines of a terminal's width, those behind the first indented.
fn paragraph(text: &str) -> String {
    wrap(text, WIDTH - 2).replace('\n', "\n  ") + "\n"
}

/// A line of its own, where one thread was measured too.
fn speed(report: &Report) -> String {
    let Some(compared) = &report.one_thread else {
        return String::new();
    };
    paragraph(&format!(
        "speed: {:.2} times one thread ({}/s on {} stream{}, {}/s on one thread with the same \
         code; best of {ROUNDS}{})",
        compared.ratio,
        units::size(compared.streams_bytes_per_s),
        report.streams,
        plural(report.streams as u64),
        units::size(compared.one_thread_bytes_per_s),
        match compared.bytes < report.bytes {
            true => format!(", over the first {}", units::size(compared.bytes as f64)),
            false => String::new(),
        },
    ))
}

fn text(report: &Report) -> String {
    const NONE: &str = "none: there was nothing to do";
    let overlap = report
        .overlap
        .map_or(format!("overlap: {NONE}"), |overlap| {
            format!(
                "overlap: on {} stream{}, {overlap:.2} stages were at work at once (1.0 means one \
             after the other)",
                report.streams,
                plural(report.streams as u64)
            )
        });
    let throughput = report.throughput_bytes_per_s.map_or(NONE.into(), |rate| {
        format!(
            "{}/s, {} in all",
            units::size(rate),
            or_none(report.wall_ns)
        )
    });
    let matches = match report.matches {
        true => "matches a plain single-threaded count",
        false => "DIFFERS from a plain single-threaded count",
    };
    format!(
        "device: {}, timed by the clock \"{}\" with a resolution of {} ns\n\
         file: {}\n\
         bytes: {} in {} chunk{} of {}\n\
         \n{}\n\n\
         {}\
         {}\
         throughput: {throughput}\n\
         {}\
         entropy: {:.4} bits per byte\n\
         histogram: {matches}\n",
        report.device,
        report.clock,
        report.clock_resolution_ns,
        crate::printable(&report.input),
        report.bytes,
        report.chunks,
        plural(report.chunks),
        units::size(report.chunk_bytes as f64),
        stages(report).trim_fmt(),
        paragraph(&overlap),
        more_lines(report),
        speed(report),
        report.entropy_bits_per_byte,
    )
}
