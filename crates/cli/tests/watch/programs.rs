//! Programs that are stuck, in the ways that people report.

use std::{
    ffi::{c_int, c_uint, c_void},
    io::Read as _,
    os::unix::{net::UnixStream, process::parent_id},
    path::PathBuf,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    time::Duration,
};

use fencepost::bindings::TIME_KEEPER;

use super::cuda::{Cuda, Event, Stream};

/// `CU_STREAM_NON_BLOCKING`.
const NON_BLOCKING: c_uint = 1;
/// `CU_STREAM_PER_THREAD`.
const PER_THREAD: Stream = 2;

pub(crate) type Program = super::running::Program<Gpu>;

/// The device, with the words that hold streams.
pub(crate) struct Gpu {
    pub(crate) cuda: Cuda,
    context: usize,
    words: u64,
    spin: usize,
}

/// The variable by which the program is one whose own tool holds CUPTI.
pub(crate) const HOLDS_CUPTI: &str = "FENCEPOST_TEST_HOLDS_CUPTI";

fn stand_in() -> PathBuf {
    std::env::var_os("FENCEPOST_CUDA_LIBRARY")
        .expect("the stand-in's path")
        .into()
}

/// Subscribes to CUPTI by its library's own function, before anybody else can.
fn hold_cupti() {
    let callback = counts as *const c_void;
    let mut subscriber = 0;
    // SAFETY: the library is the stand-in, which may be loaded anywhere, and cupti_callbacks.h
    // declares the function of this name with this type
    unsafe {
        let library = libloading::Library::new(stand_in()).expect("the stand-in loads");
        let library: &'static libloading::Library = Box::leak(Box::new(library));
        let subscribe = library.get::<Subscribe>(b"cuptiSubscribe").expect("it has");
        let code = subscribe(&raw mut subscriber, callback, std::ptr::null_mut());
        assert_eq!(code, 0);
    }
}

impl Gpu {
    pub(crate) fn open() -> Gpu {
        if std::env::var_os(HOLDS_CUPTI).is_some() {
            hold_cupti();
        }
        let cuda = Cuda::load(&stand_in());
        cuda.init(0);
        let (mut context, mut words, mut module, mut spin) = (0, std::ptr::null_mut(), 0, 0);
        cuda.retain(&raw mut context, 0);
        cuda.set_current(context);
        cuda.allocate_host(&raw mut words, 64, 0);
        cuda.load_module(&raw mut module, c"image".as_ptr().cast());
        cuda.get_function(&raw mut spin, module, c"fencepost_spin".as_ptr());
        Gpu {
            cuda,
            context,
            words: words.addr() as u64,
            spin,
        }
    }

    pub(crate) fn stream(&self) -> Stream {
        let mut stream = 0;
        self.cuda.create_stream(&raw mut stream, NON_BLOCKING);
        stream
    }

    fn event(&self) -> Event {
        let mut event = 0;
        self.cuda.create_event(&raw mut event, 2);
        event
    }

    /// An event recorded on a stream.
    fn recorded(&self, stream: Stream) -> Event {
        let event = self.event();
        self.cuda.record(event, stream);
        event
    }

    /// Holds a stream for ever: nobody writes the word.
    pub(crate) fn hold(&self, stream: Stream) {
        self.cuda.wait_value(stream, self.words, 1, 0);
    }

    pub(crate) fn launch(&self, stream: Stream, nanoseconds: u64) {
        let mut nanoseconds = nanoseconds;
        let mut parameters = [(&raw mut nanoseconds).cast::<c_void>()];
        let none = std::ptr::null_mut();
        let (function, parameters) = (self.spin, parameters.as_mut_ptr());
        self.cuda
            .launch_kernel(function, 1, 1, 1, 1, 1, 1, 0, stream, parameters, none);
    }

    /// A stream that waits for what `before` has, and has work of its own.
    fn behind(&self, before: Stream) -> Stream {
        let stream = self.stream();
        self.cuda.wait(stream, self.recorded(before), 0);
        self.launch(stream, 10);
        stream
    }
}

static RELEASED: AtomicBool = AtomicBool::new(false);

/// A function of the program that waits for what never happens.
extern "C" fn waits_for_ever(_: *mut c_void) {
    while !RELEASED.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn missing_record(gpu: &Gpu) {
    let (a, b) = (gpu.stream(), gpu.stream());
    gpu.cuda.wait(b, gpu.event(), 0);
    gpu.hold(a);
    gpu.launch(a, 10);
}

fn wrong_event(gpu: &Gpu) {
    let (a, b) = (gpu.stream(), gpu.stream());
    gpu.launch(a, 10);
    let _ready = gpu.recorded(a);
    gpu.hold(a);
    gpu.cuda.wait(b, gpu.recorded(a), 0);
    gpu.launch(b, 10);
    gpu.cuda.synchronize_stream(b);
}

fn recorded_again(gpu: &Gpu) {
    let (a, b, c) = (gpu.stream(), gpu.stream(), gpu.stream());
    gpu.hold(a);
    let event = gpu.recorded(a);
    gpu.cuda.wait(b, event, 0);
    gpu.launch(b, 10);
    gpu.cuda.record(event, c);
    gpu.cuda.synchronize_stream(b);
}

fn through_the_host(gpu: &Gpu) {
    let a = gpu.stream();
    gpu.cuda
        .launch_host(a, waits_for_ever, std::ptr::null_mut());
    gpu.cuda.synchronize_stream(a);
    RELEASED.store(true, Ordering::Relaxed);
}

fn function_waits_for_its_stream(gpu: &Gpu) {
    let a = gpu.stream();
    gpu.cuda
        .launch_host(a, waits_for_ever, std::ptr::null_mut());
    gpu.launch(a, 10);
}

fn module_load(gpu: &Gpu) {
    let a = gpu.stream();
    gpu.hold(a);
    let mut module = 0;
    gpu.cuda
        .load_module(&raw mut module, c"image".as_ptr().cast());
}

fn full_queue(gpu: &Gpu) {
    let a = gpu.stream();
    gpu.hold(a);
    for _ in 0..20 {
        gpu.launch(a, 10);
    }
}

fn forgotten_gate(gpu: &Gpu) {
    let a = gpu.stream();
    gpu.hold(a);
    gpu.cuda.synchronize_stream(a);
}

fn collective(gpu: &Gpu) {
    // One rank's kernel waits for the other's, which waits for what nobody starts.
    let (a, b, c) = (gpu.stream(), gpu.stream(), gpu.stream());
    gpu.launch(a, 3_600_000_000_000);
    gpu.hold(c);
    gpu.cuda.wait(b, gpu.recorded(c), 0);
    gpu.launch(b, 10);
    gpu.cuda.synchronize_stream(a);
}

fn chain(gpu: &Gpu) {
    let a = gpu.stream();
    gpu.hold(a);
    let b = gpu.behind(a);
    let c = gpu.behind(b);
    gpu.cuda.synchronize_stream(c);
}

/// As `Device::keep_time` records events, which go on.
fn keeps_time(gpu: &Gpu) {
    let (held, time, event) = (gpu.stream(), gpu.stream(), gpu.event());
    gpu.hold(held);
    std::thread::scope(|scope| {
        let ticks = || loop {
            gpu.cuda.set_current(gpu.context);
            gpu.cuda.record(event, time);
            std::thread::sleep(Duration::from_millis(20));
        };
        let thread = std::thread::Builder::new().name(TIME_KEEPER.into());
        thread.spawn_scoped(scope, ticks).expect("a thread");
        gpu.cuda.synchronize_stream(held);
    });
}

fn long_chain(gpu: &Gpu) {
    let mut last = gpu.stream();
    gpu.hold(last);
    for _ in 0..10 {
        last = gpu.behind(last);
    }
    gpu.cuda.synchronize_stream(last);
}

fn circle(gpu: &Gpu) {
    let (a, b) = (gpu.stream(), gpu.stream());
    gpu.cuda.wait_value(a, gpu.words + 4, 1, 0);
    gpu.cuda.wait(b, gpu.recorded(a), 0);
    gpu.cuda.write_value(b, gpu.words + 4, 1, 0);
    gpu.cuda.synchronize_stream(b);
}

/// Nothing behind the value begins, though it looks like the usual wait for busy work.
fn value_in_front(gpu: &Gpu) {
    let (a, b) = (gpu.stream(), gpu.stream());
    gpu.hold(a);
    gpu.launch(b, 3_600_000_000_000);
    gpu.cuda.wait(a, gpu.recorded(b), 0);
    gpu.cuda.synchronize_stream(a);
}

/// The value may be written already, so that the stream is at what is behind.
fn value_of_a_stream(gpu: &Gpu) {
    let (a, b) = (gpu.stream(), gpu.stream());
    gpu.cuda.wait_value(a, gpu.words + 4, 1, 0);
    gpu.launch(a, 10);
    gpu.launch(b, 3_600_000_000_000);
    gpu.cuda.write_value(b, gpu.words + 4, 1, 0);
    gpu.cuda.synchronize_stream(a);
}

/// The usual way to let a second stream do a part of the work.
fn fork_and_join(gpu: &Gpu) {
    let (a, b) = (gpu.stream(), gpu.stream());
    gpu.launch(a, 3_600_000_000_000);
    gpu.cuda.wait(b, gpu.recorded(a), 0);
    gpu.cuda.wait(a, gpu.recorded(b), 0);
    gpu.cuda.synchronize_stream(a);
}

fn default_stream(gpu: &Gpu) {
    let mut blocking = 0;
    gpu.cuda.create_stream(&raw mut blocking, 0);
    gpu.hold(0);
    gpu.launch(blocking, 10);
    gpu.cuda.synchronize_stream(blocking);
}

fn behind_the_streams(gpu: &Gpu) {
    let mut blocking = 0;
    gpu.cuda.create_stream(&raw mut blocking, 0);
    gpu.hold(blocking);
    gpu.launch(0, 10);
    gpu.cuda.synchronize_stream(0);
}

/// The first launch runs, and the others are behind it. The driver would say the same if it were
/// over, and the second ran.
fn in_turn(gpu: &Gpu) {
    let mut blocking = 0;
    gpu.cuda.create_stream(&raw mut blocking, 0);
    for stream in [blocking, 0, blocking] {
        gpu.launch(stream, 3_600_000_000_000);
    }
}

fn destroyed_stream(gpu: &Gpu) {
    let (a, b) = (gpu.stream(), gpu.stream());
    gpu.launch(a, 3_600_000_000_000);
    gpu.cuda.wait(b, gpu.recorded(a), 0);
    gpu.launch(b, 10);
    gpu.cuda.destroy_stream(a);
    gpu.cuda.synchronize_stream(b);
}

fn destroyed_event(gpu: &Gpu) {
    let (a, b) = (gpu.stream(), gpu.stream());
    gpu.hold(a);
    let event = gpu.recorded(a);
    gpu.cuda.wait(b, event, 0);
    gpu.cuda.destroy_event(event);
    gpu.launch(b, 10);
    gpu.cuda.synchronize_stream(b);
}

fn graph(gpu: &Gpu) {
    let a = gpu.stream();
    let (mut graph, mut exec) = (0, 0);
    gpu.cuda.begin_capture(a, 0);
    gpu.launch(a, 3_600_000_000_000);
    gpu.cuda.end_capture(a, &raw mut graph);
    gpu.cuda.instantiate(&raw mut exec, graph, 0);
    gpu.cuda.launch_graph(exec, a);
    gpu.cuda.synchronize_stream(a);
}

fn capture_under_way(gpu: &Gpu) {
    let (a, b) = (gpu.stream(), gpu.stream());
    gpu.hold(a);
    // Relaxed: nothing else is forbidden meanwhile.
    gpu.cuda.begin_capture(b, 2);
    gpu.launch(b, 10);
}

fn release_of_memory(gpu: &Gpu) {
    let a = gpu.stream();
    let mut memory = 0;
    gpu.cuda.allocate(&raw mut memory, 64);
    gpu.hold(a);
    gpu.cuda.free(memory);
}

fn event_synchronize(gpu: &Gpu) {
    let a = gpu.stream();
    gpu.hold(a);
    gpu.cuda.synchronize_event(gpu.recorded(a));
}

fn context_synchronize(gpu: &Gpu) {
    let a = gpu.stream();
    gpu.hold(a);
    gpu.cuda.synchronize();
}

fn two_threads(gpu: &Gpu) {
    let a = gpu.stream();
    gpu.hold(a);
    let b = gpu.behind(a);
    std::thread::scope(|scope| {
        let named = std::thread::Builder::new().name("loader".into());
        let wait = || {
            gpu.cuda.set_current(gpu.context);
            gpu.cuda.synchronize_stream(b);
        };
        named.spawn_scoped(scope, wait).expect("a thread");
        gpu.cuda.synchronize_stream(a);
    });
}

fn thread_default(gpu: &Gpu) {
    gpu.hold(PER_THREAD);
    gpu.launch(PER_THREAD, 10);
    gpu.cuda.synchronize_stream(PER_THREAD);
}

fn half_done(gpu: &Gpu) {
    let (a, b) = (gpu.stream(), gpu.stream());
    for _ in 0..3 {
        gpu.launch(a, 10);
        gpu.recorded(a);
    }
    gpu.launch(a, 3_600_000_000_000);
    gpu.cuda.wait(b, gpu.recorded(a), 0);
    gpu.launch(b, 10);
    gpu.cuda.synchronize_stream(b);
}

static CALLS: AtomicU32 = AtomicU32::new(0);

/// The callback of the program's own profiler.
unsafe extern "C" fn counts(_: *mut c_void, _: c_int, _: c_uint, _: *const c_void) {
    CALLS.fetch_add(1, Ordering::Relaxed);
}

type Subscribe = unsafe extern "C" fn(*mut usize, *const c_void, *mut c_void) -> c_int;
type Unsubscribe = unsafe extern "C" fn(usize) -> c_int;
type Enable = unsafe extern "C" fn(c_uint, usize, c_int, c_uint) -> c_int;

/// Uses CUPTI itself, as a program that is linked with it finds its functions.
fn profiled(gpu: &Gpu) {
    let a = gpu.stream();
    let this = libloading::os::unix::Library::this();
    let (mut subscriber, none) = (0, std::ptr::null_mut());
    // SAFETY: cupti_callbacks.h declares the functions of these names with these types
    let (subscribe, unsubscribe, enable) = unsafe {
        (
            this.get::<Subscribe>(b"cuptiSubscribe").expect("preloaded"),
            this.get::<Unsubscribe>(b"cuptiUnsubscribe")
                .expect("preloaded"),
            this.get::<Enable>(b"cuptiEnableCallback")
                .expect("preloaded"),
        )
    };
    let callback = counts as *const c_void;
    // SAFETY: the pointer is to a handle, and the callback is one of CUPTI's type
    unsafe {
        assert_eq!(subscribe(&raw mut subscriber, callback, none), 0);
        assert_eq!(
            subscribe(&raw mut subscriber, callback, none),
            39,
            "one at a time"
        );
        assert_eq!(enable(1, subscriber, 1, 307), 0);
    }
    gpu.launch(a, 10);
    gpu.recorded(a);
    assert_eq!(
        CALLS.load(Ordering::Relaxed),
        2,
        "before and after one launch"
    );
    // SAFETY: the subscriber is the one from above
    unsafe {
        assert_eq!(enable(0, subscriber, 1, 307), 0);
        gpu.launch(a, 10);
        assert_eq!(unsubscribe(subscriber), 0);
    }
    gpu.launch(a, 10);
    assert_eq!(CALLS.load(Ordering::Relaxed), 2);
    gpu.hold(a);
    gpu.cuda.synchronize_stream(a);
}

/// Ends all use of CUPTI, as some profilers do.
fn finalized(gpu: &Gpu) {
    let a = gpu.stream();
    gpu.launch(a, 10);
    let this = libloading::os::unix::Library::this();
    // SAFETY: cupti_activity.h declares the function of this name with this type
    unsafe {
        let finalize = this.get::<unsafe extern "C" fn() -> c_int>(b"cuptiFinalize");
        assert_eq!(finalize.expect("preloaded")(), 0);
    }
    std::thread::sleep(Duration::from_secs(2));
    gpu.hold(a);
    gpu.cuda.synchronize_stream(a);
}

fn ends_well(gpu: &Gpu) {
    let a = gpu.stream();
    gpu.launch(a, 10);
    gpu.cuda.synchronize_stream(a);
    std::process::exit(0);
}

fn ends_with_work(gpu: &Gpu) {
    let a = gpu.stream();
    gpu.hold(a);
    gpu.launch(a, 10);
    std::process::exit(8);
}

/// Threads that make, use and destroy streams and events, whatever calls return, while reports are
/// asked for.
fn does_anything(gpu: &Gpu) {
    let control = fencepost_sim_cuda::Control::load(&stand_in()).expect("the stand-in's control");
    let seed = std::env::var("FENCEPOST_SIM_SEED").expect("a seed");
    let seed: u64 = seed.parse().expect("a number");
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let threads = [1, 2, 3].map(|thread| {
            let control = &control;
            scope.spawn(move || {
                gpu.cuda.set_current(gpu.context);
                does_anything_on(gpu, control, seed * 8 + thread);
            })
        });
        scope.spawn(|| {
            let fencepost = parent_id();
            while !over.load(Ordering::Relaxed) {
                // SAFETY: it is the parent, which handles this signal
                unsafe { libc::kill(fencepost as i32, libc::SIGUSR1) };
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        let ended = threads.map(|thread| thread.join().is_ok());
        over.store(true, Ordering::Relaxed);
        assert_eq!(ended, [true; 3]);
    });
    control.clear_faults();
    gpu.cuda.synchronize();
    let violations = control.violations();
    for violation in &violations {
        eprintln!("{violation}");
    }
    std::process::exit(i32::from(!violations.is_empty()));
}

/// `CUDA_ERROR_OUT_OF_MEMORY`.
const OUT_OF_MEMORY: c_uint = 2;

fn does_anything_on(gpu: &Gpu, control: &fencepost_sim_cuda::Control, seed: u64) {
    const FAILING: [&str; 5] = [
        "cuEventRecord",
        "cuStreamWaitEvent",
        "cuStreamCreate",
        "cuStreamQuery",
        "cuEventQuery",
    ];

    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as usize % below
    };
    let cuda = &gpu.cuda;
    let (mut streams, mut events): (Vec<Stream>, Vec<Event>) = (Vec::new(), Vec::new());
    for _ in 0..2_000 {
        let any = |list: &[usize], at: usize| list.get(at % list.len().max(1)).copied();
        let (stream, event) = (any(&streams, random(64)), any(&events, random(64)));
        // SAFETY: the streams and events are this thread's own, and alive
        unsafe {
            match (random(12), stream, event) {
                (0 | 1, _, _) => {
                    let mut stream = 0;
                    if (cuda.create_stream)(&raw mut stream, random(2) as c_uint) == 0 {
                        streams.push(stream);
                    }
                }
                (2, _, _) => {
                    let mut event = 0;
                    if (cuda.create_event)(&raw mut event, 2) == 0 {
                        events.push(event);
                    }
                }
                (3, Some(stream), _) if streams.len() > 3 => {
                    streams.retain(|other| *other != stream);
                    (cuda.destroy_stream)(stream);
                }
                (4, _, Some(event)) if events.len() > 3 => {
                    events.retain(|other| *other != event);
                    (cuda.destroy_event)(event);
                }
                (5, _, _) => control.fail_call(FAILING[random(5)], 1, OUT_OF_MEMORY),
                (6 | 7, Some(stream), Some(event)) => drop((cuda.record)(event, stream)),
                (8 | 9, Some(stream), Some(event)) => drop((cuda.wait)(stream, event, 0)),
                (10, Some(stream), _) => gpu.launch(stream, 100_000),
                (11, Some(stream), _) => drop((cuda.synchronize_stream)(stream)),
                _ => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }
}

/// As is permitted: the driver releases the streams once their work is done.
fn destroys_busy_streams(gpu: &Gpu) {
    for _ in 0..3 {
        let a = gpu.stream();
        gpu.launch(a, 10);
        gpu.cuda.destroy_stream(a);
    }
    // Long enough for a report of what does not move.
    std::thread::sleep(Duration::from_secs(2));
    std::process::exit(0);
}

/// Closes what it did not open, as daemons do, and opens files under the same numbers.
fn closes_everything(gpu: &Gpu) {
    for descriptor in 0..4096 {
        // SAFETY: nothing of this program uses them any more
        unsafe { libc::close(descriptor) };
    }
    let a = gpu.stream();
    gpu.launch(a, 10);
    gpu.cuda.synchronize_stream(a);
    std::process::exit(3);
}

/// A child that is forked has none of the threads.
fn forks(gpu: &Gpu) {
    let a = gpu.stream();
    gpu.launch(a, 10);
    gpu.cuda.synchronize_stream(a);
    // SAFETY: the child calls what may be called there, and ends
    let child = unsafe { libc::fork() };
    if child == 0 {
        let mut stream = 0;
        // In a child the driver says that it is not initialized.
        // SAFETY: the pointer is to a handle
        let code = unsafe { gpu.cuda.call_create_stream(&raw mut stream, 0) };
        // SAFETY: it only ends the child
        unsafe { libc::_exit(if code == 0 { 1 } else { 0 }) };
    }
    let mut status = 0;
    // SAFETY: the pointer is to an int
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    std::process::exit(if status == 0 { 4 } else { 5 });
}

/// As many processes that use CUDA, one after the other. `fencepost watch` must let go of each.
fn comes_and_goes(_: &Gpu) {
    const TIMES: usize = 200;

    let socket = std::env::var_os("FENCEPOST_WATCH_SOCKET").expect("the library's socket");
    let connect = || UnixStream::connect(&socket).expect("fencepost listens");
    for _ in 0..TIMES {
        connect();
    }
    // What this one is asked for tells that the others were taken.
    let mut last = connect();
    let limit = Some(Duration::from_millis(100));
    last.set_read_timeout(limit).expect("a limit");
    let fencepost = parent_id();
    while last.read(&mut [0; 64]).is_err() {
        // SAFETY: it is the parent, which handles this signal
        unsafe { libc::kill(fencepost as i32, libc::SIGUSR1) };
    }
    let descriptors = format!("/proc/{fencepost}/fd");
    let count = || std::fs::read_dir(&descriptors).expect("a folder").count();
    for _ in 0..6_000 {
        if count() < TIMES / 2 {
            std::process::exit(6);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    std::process::exit(1);
}

macro_rules! program {
    ($run:ident, $($told:literal),+) => { program!($run [], $($told),+) };
    ($run:ident [$($set:expr),*], $($told:literal),+) => {
        Program {
            name: stringify!($run),
            run: $run,
            set: &[$($set),*],
            told: &[$($told),+],
        }
    };
}

/// Programs that are not stuck.
pub(crate) static OTHERS: &[Program] = &[
    program!(ends_well, ""),
    program!(destroys_busy_streams, ""),
    program!(closes_everything, ""),
    program!(forks, ""),
    program!(ends_with_work, ""),
    program!(does_anything, ""),
    program!(comes_and_goes, ""),
];

pub(crate) static PROGRAMS: &[Program] = &[
    program!(
        missing_record,
        "1 wait was for an event that had never been recorded",
        "stream 1 of cuda:0: 2 pieces of work pending"
    ),
    program!(
        wrong_event,
        "waits for marker 2 of stream 1 of cuda:0",
        "waits for a value in memory (cuStreamWaitValue)"
    ),
    program!(
        recorded_again,
        "that event was recorded again since, as marker 1 of stream 3: this wait is for the \
         earlier record"
    ),
    program!(
        through_the_host,
        "is in a function of the program that the driver calls (cuLaunchHostFunc)",
        "this is a circle through the host"
    ),
    program!(
        function_waits_for_its_stream,
        "is in a function of the program that the driver calls (cuLaunchHostFunc), or is at the 1 \
         piece of work around that"
    ),
    program!(
        module_load[("FENCEPOST_SIM_CUDA_MODULE_WAITS", "1")],
        "has been in cuModuleLoadData for",
        "loading a module waits for streams that have work"
    ),
    program!(
        full_queue[("FENCEPOST_SIM_CUDA_QUEUE_DEPTH", "8")],
        "has been in cuLaunchKernel for stream 1 for",
        "it returns late where the stream's queue is full"
    ),
    program!(
        forgotten_gate,
        "waits for a value in memory (cuStreamWaitValue), which no stream that was seen writes"
    ),
    program!(
        collective,
        "last submitted: kernel fencepost_spin",
        "stream 2 of cuda:0: 2 pieces of work pending, 0 of 0 markers complete waits for marker 1 \
         of stream 3 of cuda:0"
    ),
    program!(
        chain,
        "stuck is stream 1 of cuda:0 (1 stream lies between): it waits for a value in memory",
        "stream 3 waits for marker 1 of stream 2 of cuda:0"
    ),
    program!(
        keeps_time,
        "nothing has moved for 500 ms",
        "stream 1 of cuda:0: 1 piece of work pending"
    ),
    program!(long_chain, "(9 streams lie between)", "… 6 more streams …"),
    program!(
        circle,
        "The waits form a circle, which ends only if something that was not seen writes the value, \
         such as the host or a kernel.",
        "waits for a value in memory that a write sets on stream 2 of cuda:0"
    ),
    program!(
        value_in_front,
        "stream 1 of cuda:0: 2 pieces of work pending, 0 of 0 markers complete waits for a value \
         in memory (cuStreamWaitValue), which no stream that was seen writes, or is at the 1 piece \
         of work around that, or, where that is over, waits for marker 1 of stream 2 of cuda:0"
    ),
    program!(
        value_of_a_stream,
        "waits for a value in memory that a write sets on stream 2 of cuda:0, or is at the 1 piece \
         of work around that"
    ),
    program!(
        fork_and_join,
        "stuck is stream 1 of cuda:0 (1 stream lies between): the work in front of marker 1 is not \
         done",
        "stream 2 waits for marker 1 of stream 1 of cuda:0"
    ),
    program!(
        default_stream,
        "waits for what came before it, by the default stream's order, on stream 2 \"default\""
    ),
    program!(
        behind_the_streams,
        "waits for what came before it, by the default stream's order, on stream 1"
    ),
    program!(
        in_turn,
        "stream 1 of cuda:0: 2 pieces of work pending, 0 of 0 markers complete waits for what came \
         before it, by the default stream's order, on stream 2 \"default\" of cuda:0, or is at work \
         of its own: which of the two is unknown"
    ),
    program!(
        destroyed_stream,
        "waits for marker 1 of stream 1",
        "was destroyed with this work pending"
    ),
    program!(destroyed_event, "that event was destroyed since"),
    program!(
        graph,
        "last submitted: a graph, whose inside cannot be seen"
    ),
    program!(
        capture_under_way,
        "whether it has come further is unknown: a stream is being captured"
    ),
    program!(
        release_of_memory,
        "has been in cuMemFree_v2 for",
        "releasing memory waits for all work that was submitted before"
    ),
    program!(event_synchronize, "has been in cuEventSynchronize for"),
    program!(context_synchronize, "has been in cuCtxSynchronize for"),
    program!(
        two_threads,
        "(loader) has been in cuStreamSynchronize for stream 2 for",
        "has been in cuStreamSynchronize for stream 1 for"
    ),
    program!(
        thread_default,
        "\"default of thread",
        "only its own thread can ask for it"
    ),
    program!(
        profiled,
        "stream 1 of cuda:0: 3 pieces of work pending, 1 of 1 markers complete",
        "waits for a value in memory",
        "has been in cuStreamSynchronize for stream 1"
    ),
    program!(
        finalized,
        "the program has ended all use of CUPTI (cuptiFinalize), so calls went by unseen for",
        "waits for a value in memory",
        "has been in cuStreamSynchronize for stream 2"
    ),
    program!(
        half_done,
        "stream 1 of cuda:0: 2 pieces of work pending, 3 of 4 markers complete",
        "last kernel: fencepost_spin"
    ),
];
