//! Puts the questions that CUDA's documentation leaves open to a driver, and prints what it
//! answers:
//!
//! ```text
//! cargo run -p fencepost-sim-cuda --example answers -- libcuda.so.1 >real
//! cargo run -p fencepost-sim-cuda --example answers -- target/debug/libfencepost_sim_cuda.so >stand-in
//! diff real stand-in
//! ```
//!
//! Each difference is a fault of the stand-in. It needs one GPU that nobody else in the process
//! uses.

#![allow(non_snake_case)] // the names are the driver's

use libloading::Library;
use std::ffi::{c_int, c_uint, c_void};
use std::sync::atomic::{AtomicU32, Ordering};

type Handle = usize;

macro_rules! cuda {
    ($($name:ident($($argument:ident: $ty:ty),*);)*) => {
        /// The driver. Every call is given pointers to local variables of the right type, and
        /// handles the driver made; stale ones only where that is the question.
        struct Cuda { $($name: unsafe extern "C" fn($($ty),*) -> c_uint,)* }

        impl Cuda {
            fn load(path: &str) -> Result<Cuda, libloading::Error> {
                // SAFETY: a driver, or its stand-in, as whoever runs this says; loading one does
                // nothing else.
                let library = unsafe { Library::new(path)? };
                let cuda = Cuda { $(
                    // SAFETY: of the signature of the driver's reference, as named below; never
                    // unloaded.
                    $name: *unsafe { library.get(concat!(stringify!($name), "\0"))? },
                )* };
                std::mem::forget(library);
                Ok(cuda)
            }

            $(fn $name(&self, $($argument: $ty),*) -> c_uint {
                // SAFETY: pointers are to local variables of the right type; handles are the
                // driver's own, stale only where what it then answers is the question.
                unsafe { (self.$name)($($argument),*) }
            })*
        }
    };
}

cuda! {
    cuInit(flags: c_uint);
    cuDevicePrimaryCtxRetain(context: *mut Handle, device: c_int);
    cuDevicePrimaryCtxRelease_v2(device: c_int);
    cuDevicePrimaryCtxReset_v2(device: c_int);
    cuCtxSetCurrent(context: Handle);
    cuCtxGetId(context: Handle, id: *mut u64);
    cuCtxSynchronize();
    cuStreamCreate(stream: *mut Handle, flags: c_uint);
    cuStreamDestroy_v2(stream: Handle);
    cuStreamQuery(stream: Handle);
    cuStreamSynchronize(stream: Handle);
    cuStreamGetCtx(stream: Handle, context: *mut Handle);
    cuStreamGetId(stream: Handle, id: *mut u64);
    cuStreamGetFlags(stream: Handle, flags: *mut c_uint);
    cuStreamWaitEvent(stream: Handle, event: Handle, flags: c_uint);
    cuStreamWaitValue32_v2(stream: Handle, address: u64, value: u32, flags: c_uint);
    cuStreamBeginCapture_v2(stream: Handle, mode: c_uint);
    cuStreamEndCapture(stream: Handle, graph: *mut Handle);
    cuStreamIsCapturing(stream: Handle, status: *mut c_int);
    cuThreadExchangeStreamCaptureMode(mode: *mut c_uint);
    cuGraphInstantiateWithFlags(exec: *mut Handle, graph: Handle, flags: u64);
    cuGraphLaunch(exec: Handle, stream: Handle);
    cuEventCreate(event: *mut Handle, flags: c_uint);
    cuEventDestroy_v2(event: Handle);
    cuEventRecord(event: Handle, stream: Handle);
    cuEventRecordWithFlags(event: Handle, stream: Handle, flags: c_uint);
    cuEventQuery(event: Handle);
    cuEventSynchronize(event: Handle);
    cuEventElapsedTime(milliseconds: *mut f32, start: Handle, end: Handle);
    cuIpcGetEventHandle(handle: *mut [u8; 64], event: Handle);
    cuMemAlloc_v2(address: *mut u64, len: usize);
    cuMemFree_v2(address: u64);
    cuMemHostAlloc(pointer: *mut *mut c_void, len: usize, flags: c_uint);
}

const NON_BLOCKING: c_uint = 1;
const NO_TIMING: c_uint = 2;
const MODES: [(&str, c_uint); 3] = [("global", 0), ("thread-local", 1), ("relaxed", 2)];

fn made(make: impl FnOnce(*mut Handle) -> c_uint) -> Handle {
    let mut handle = 0;
    assert_eq!(make(&raw mut handle), 0);
    handle
}

impl Cuda {
    fn event(&self, flags: c_uint) -> Handle {
        made(|out| self.cuEventCreate(out, flags))
    }

    fn stream(&self, flags: c_uint) -> Handle {
        made(|out| self.cuStreamCreate(out, flags))
    }

    fn elapsed(&self, start: Handle, end: Handle) -> c_uint {
        let mut milliseconds = 0.0;
        self.cuEventElapsedTime(&raw mut milliseconds, start, end)
    }

    fn end(&self, stream: Handle) -> c_uint {
        let mut graph = 0;
        self.cuStreamEndCapture(stream, &raw mut graph)
    }

    /// Asks while a capture is under way, and whether it survives.
    fn beside(&self, what: &str, mode: c_uint, ask: impl FnOnce(Handle) -> c_uint) {
        let captured = self.stream(NON_BLOCKING);
        assert_eq!(self.cuStreamBeginCapture_v2(captured, mode), 0);
        let answer = ask(captured);
        let ended = self.end(captured);
        println!("{what}: {answer}, then the capture ends with {ended}");
        self.cuStreamDestroy_v2(captured);
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1);
    let cuda = Cuda::load(path.as_deref().unwrap_or("libcuda.so.1"))?;
    assert_eq!(cuda.cuInit(0), 0);
    let context = made(|out| cuda.cuDevicePrimaryCtxRetain(out, 0));
    assert_eq!(cuda.cuCtxSetCurrent(context), 0);
    let (stream, blocking) = (cuda.stream(NON_BLOCKING), cuda.stream(0));
    let (event, other) = (cuda.event(0), cuda.event(0));
    let untimed = cuda.event(NO_TIMING);

    println!("# events");
    println!("elapsed, never recorded: {}", cuda.elapsed(event, other));
    println!("bad flags: {}", cuda.cuEventCreate(&mut 0, 8));
    println!(
        "interprocess with timing: {}",
        cuda.cuEventCreate(&mut 0, 4)
    );
    let mut name = [0; 64];
    println!(
        "export of a plain event: {}",
        cuda.cuIpcGetEventHandle(&raw mut name, untimed)
    );
    cuda.cuEventRecord(event, stream);
    println!("elapsed, one recorded: {}", cuda.elapsed(event, other));
    cuda.cuEventRecord(untimed, stream);
    println!("elapsed, one untimed: {}", cuda.elapsed(event, untimed));
    cuda.cuCtxSynchronize();
    println!(
        "external record, no capture: {}",
        cuda.cuEventRecordWithFlags(event, stream, 1)
    );
    println!(
        "external wait, no capture: {}",
        cuda.cuStreamWaitEvent(stream, event, 1)
    );

    println!("# without a current context");
    cuda.cuCtxSetCurrent(0);
    println!("create: {}", cuda.cuEventCreate(&mut 0, 0));
    println!("record in null: {}", cuda.cuEventRecord(event, 0));
    println!("record: {}", cuda.cuEventRecord(event, stream));
    println!("synchronise: {}", cuda.cuEventSynchronize(event));
    println!("query: {}", cuda.cuEventQuery(event));
    println!("elapsed: {}", cuda.elapsed(event, event));
    println!("wait: {}", cuda.cuStreamWaitEvent(stream, event, 0));
    println!("stream query: {}", cuda.cuStreamQuery(stream));
    cuda.cuCtxSetCurrent(context);

    println!("# beside a capture in global mode, same thread");
    cuda.beside("event query", 0, |_| cuda.cuEventQuery(event));
    cuda.beside("event synchronise", 0, |_| cuda.cuEventSynchronize(event));
    cuda.beside("elapsed", 0, |_| cuda.elapsed(event, event));
    cuda.beside("record elsewhere", 0, |_| cuda.cuEventRecord(event, stream));
    cuda.beside("wait elsewhere", 0, |_| {
        cuda.cuStreamWaitEvent(stream, event, 0)
    });
    cuda.beside("event create", 0, |_| cuda.cuEventCreate(&mut 0, 0));
    cuda.beside("event destroy", 0, |_| cuda.cuEventDestroy_v2(other));
    cuda.beside("stream query", 0, |_| cuda.cuStreamQuery(stream));
    cuda.beside("stream synchronise", 0, |_| {
        cuda.cuStreamSynchronize(stream)
    });
    cuda.beside("context synchronise", 0, |_| cuda.cuCtxSynchronize());
    cuda.beside("stream create", 0, |_| {
        cuda.cuStreamCreate(&mut 0, NON_BLOCKING)
    });
    cuda.beside("stream destroy", 0, |_| {
        cuda.cuStreamDestroy_v2(cuda.stream(0))
    });
    let mut memory = 0;
    cuda.beside("memory", 0, |_| cuda.cuMemAlloc_v2(&raw mut memory, 4));
    cuda.cuMemAlloc_v2(&raw mut memory, 4);
    cuda.beside("free", 0, |_| cuda.cuMemFree_v2(memory));
    let mut pinned = std::ptr::null_mut();
    cuda.beside("host memory", 0, |_| {
        cuda.cuMemHostAlloc(&raw mut pinned, 4, 0)
    });

    println!("# an event query beside a capture, by its mode and that of another thread");
    for (capture, capture_mode) in MODES {
        for (thread, thread_mode) in MODES {
            let what = format!("{capture} capture, {thread} thread");
            cuda.beside(&what, capture_mode, |_| {
                std::thread::scope(|scope| {
                    let asking = scope.spawn(|| {
                        let mut mode = thread_mode;
                        cuda.cuThreadExchangeStreamCaptureMode(&raw mut mode);
                        cuda.cuEventQuery(event)
                    });
                    asking.join().unwrap_or(c_uint::MAX)
                })
            });
        }
    }

    println!("# in a capture in relaxed mode");
    let captured = |s| assert_eq!(cuda.cuEventRecord(event, s), 0);
    cuda.beside("query of a captured event", 2, |s| {
        captured(s);
        cuda.cuEventQuery(event)
    });
    cuda.beside("synchronise with a captured event", 2, |s| {
        captured(s);
        cuda.cuEventSynchronize(event)
    });
    cuda.beside("elapsed of a captured event", 2, |s| {
        captured(s);
        cuda.elapsed(event, event)
    });
    cuda.beside("wait for it in the legacy stream", 2, |s| {
        captured(s);
        cuda.cuStreamWaitEvent(0, event, 0)
    });
    println!("query once it has ended: {}", cuda.cuEventQuery(event));
    println!(
        "wait once it has ended: {}",
        cuda.cuStreamWaitEvent(stream, event, 0)
    );
    cuda.cuEventRecord(event, stream);
    cuda.cuEventSynchronize(event);
    cuda.beside("wait for an event from outside", 2, |s| {
        cuda.cuStreamWaitEvent(s, event, 0)
    });
    let fresh = cuda.event(0);
    cuda.beside("wait for an event never recorded", 2, |s| {
        cuda.cuStreamWaitEvent(s, fresh, 0)
    });
    cuda.beside("query of the stream", 2, |s| cuda.cuStreamQuery(s));
    cuda.beside("context of the stream", 2, |s| {
        cuda.cuStreamGetCtx(s, &mut 0)
    });
    cuda.beside("number of the stream", 2, |s| cuda.cuStreamGetId(s, &mut 0));
    cuda.beside("flags of the stream", 2, |s| {
        cuda.cuStreamGetFlags(s, &mut 0)
    });
    cuda.beside("synchronise with the stream", 2, |s| {
        cuda.cuStreamSynchronize(s)
    });
    cuda.beside("capture again", 2, |s| cuda.cuStreamBeginCapture_v2(s, 2));
    cuda.beside("record in null", 2, |_| cuda.cuEventRecord(fresh, 0));
    println!("end without a capture: {}", cuda.end(stream));
    println!(
        "capture of the legacy stream: {}",
        cuda.cuStreamBeginCapture_v2(1, 2)
    );
    cuda.cuStreamBeginCapture_v2(blocking, 2);
    let mut status = 0;
    println!(
        "beside a blocking stream, is null capturing: {}",
        cuda.cuStreamIsCapturing(0, &raw mut status)
    );
    println!("record in null: {}", cuda.cuEventRecord(fresh, 0));
    println!("then the capture ends with {}", cuda.end(blocking));

    println!("# an external record");
    assert_eq!(cuda.cuMemHostAlloc(&raw mut pinned, 4, 0), 0);
    // SAFETY: four bytes, aligned, never freed
    let word = unsafe { AtomicU32::from_ptr(pinned.cast()) };
    word.store(0, Ordering::SeqCst);
    let external = cuda.event(0);
    cuda.cuStreamBeginCapture_v2(stream, 2);
    cuda.cuStreamWaitValue32_v2(stream, pinned.addr() as u64, 1, 0);
    println!(
        "record: {}",
        cuda.cuEventRecordWithFlags(external, stream, 1)
    );
    println!("query before the end: {}", cuda.cuEventQuery(external));
    let graph = made(|out| cuda.cuStreamEndCapture(stream, out));
    println!("query before a launch: {}", cuda.cuEventQuery(external));
    let exec = made(|out| cuda.cuGraphInstantiateWithFlags(out, graph, 0));
    println!("launch: {}", cuda.cuGraphLaunch(exec, stream));
    println!("query while it is held: {}", cuda.cuEventQuery(external));
    word.store(1, Ordering::SeqCst);
    println!("synchronise: {}", cuda.cuStreamSynchronize(stream));
    println!("query: {}", cuda.cuEventQuery(external));

    println!("# a reset of the primary context");
    let id = || {
        let mut id = 0;
        (cuda.cuCtxGetId(context, &raw mut id), id)
    };
    let before = id();
    println!("reset: {}", cuda.cuDevicePrimaryCtxReset_v2(0));
    println!("number: {}", id().0);
    println!("context synchronise: {}", cuda.cuCtxSynchronize());
    println!("event create: {}", cuda.cuEventCreate(&mut 0, 0));
    println!("set current: {}", cuda.cuCtxSetCurrent(context));
    println!("query: {}", cuda.cuEventQuery(fresh));
    println!("record: {}", cuda.cuEventRecord(fresh, stream));
    println!("synchronise: {}", cuda.cuEventSynchronize(fresh));
    println!("event destroy: {}", cuda.cuEventDestroy_v2(fresh));
    println!("stream destroy: {}", cuda.cuStreamDestroy_v2(stream));
    let again = made(|out| cuda.cuDevicePrimaryCtxRetain(out, 0));
    println!(
        "same handle: {}, same number: {}",
        again == context,
        before == id()
    );
    println!("release: {}", cuda.cuDevicePrimaryCtxRelease_v2(0));
    println!("release: {}", cuda.cuDevicePrimaryCtxRelease_v2(0));
    println!(
        "release of nothing: {}",
        cuda.cuDevicePrimaryCtxRelease_v2(0)
    );
    Ok(())
}
