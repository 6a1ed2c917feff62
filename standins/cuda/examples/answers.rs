//! Calls a driver where CUDA's documentation leaves the result open, and prints the results:
//!
//! ```text
//! stand_in=target/debug/libfencepost_sim_cuda.so
//! cargo run -p fencepost-sim-cuda --example answers -- libcuda.so.1 >real
//! cargo run -p fencepost-sim-cuda --example answers -- $stand_in >stand-in
//! diff real stand-in
//! ```
//!
//! Each difference is a defect of the stand-in. The first run needs a GPU. It resets the primary
//! context, so no other code of the process may use that.

#![allow(non_snake_case)] // the names are the driver's

use libloading::Library;
use std::ffi::{c_int, c_uint, c_void};
use std::sync::atomic::{AtomicU32, Ordering};

type Handle = usize;

macro_rules! cuda {
    ($($name:ident($($argument:ident: $ty:ty),*);)*) => {
        /// The driver's functions. Every call gets pointers to local variables of the right type
        /// and handles of the driver. A handle is stale only where the result of that is printed.
        struct Cuda { $($name: unsafe extern "C" fn($($ty),*) -> c_uint,)* }

        impl Cuda {
            fn load(path: &str) -> Result<Cuda, libloading::Error> {
                // SAFETY: the user names a driver or its stand-in, which may be loaded
                let library = unsafe { Library::new(path)? };
                let cuda = Cuda { $(
                    // SAFETY: the signature is that of the driver's reference, and the library is
                    // never unloaded
                    $name: *unsafe { library.get(concat!(stringify!($name), "\0"))? },
                )* };
                std::mem::forget(library);
                Ok(cuda)
            }

            $(fn $name(&self, $($argument: $ty),*) -> c_uint {
                // SAFETY: pointers are to local variables of the right type, and handles are the
                // driver's; it detects the stale ones
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

    /// Calls `ask` during a capture. Prints its result, and that of the end of the capture.
    fn during_capture(&self, what: &str, mode: c_uint, ask: impl FnOnce(Handle) -> c_uint) {
        let captured = self.stream(NON_BLOCKING);
        assert_eq!(self.cuStreamBeginCapture_v2(captured, mode), 0);
        let answer = ask(captured);
        let ended = self.end(captured);
        println!("{what}: {answer}, then the capture ends with {ended}");
        self.cuStreamDestroy_v2(captured);
    }
}

/// The objects that the calls use.
struct Objects {
    context: Handle,
    stream: Handle,
    blocking: Handle,
    event: Handle,
    other: Handle,
    untimed: Handle,
    /// An event that is not recorded.
    fresh: Handle,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1);
    let cuda = Cuda::load(path.as_deref().unwrap_or("libcuda.so.1"))?;
    assert_eq!(cuda.cuInit(0), 0);
    let context = made(|out| cuda.cuDevicePrimaryCtxRetain(out, 0));
    assert_eq!(cuda.cuCtxSetCurrent(context), 0);
    let objects = Objects {
        context,
        stream: cuda.stream(NON_BLOCKING),
        blocking: cuda.stream(0),
        event: cuda.event(0),
        other: cuda.event(0),
        untimed: cuda.event(NO_TIMING),
        fresh: cuda.event(0),
    };
    cuda.events(&objects);
    cuda.without_context(&objects);
    cuda.global_capture(&objects);
    cuda.query_by_modes(&objects);
    cuda.relaxed_capture(&objects);
    cuda.external_record(&objects);
    cuda.reset(&objects);
    Ok(())
}

impl Cuda {
    fn events(&self, objects: &Objects) {
        let &Objects {
            stream,
            event,
            other,
            untimed,
            ..
        } = objects;
        println!("# events");
        println!("elapsed, never recorded: {}", self.elapsed(event, other));
        println!("bad flags: {}", self.cuEventCreate(&mut 0, 8));
        println!(
            "interprocess with timing: {}",
            self.cuEventCreate(&mut 0, 4)
        );
        let mut name = [0; 64];
        println!(
            "export of a plain event: {}",
            self.cuIpcGetEventHandle(&raw mut name, untimed)
        );
        self.cuEventRecord(event, stream);
        println!("elapsed, one recorded: {}", self.elapsed(event, other));
        self.cuEventRecord(untimed, stream);
        println!("elapsed, one untimed: {}", self.elapsed(event, untimed));
        self.cuCtxSynchronize();
        println!(
            "external record, no capture: {}",
            self.cuEventRecordWithFlags(event, stream, 1)
        );
        println!(
            "external wait, no capture: {}",
            self.cuStreamWaitEvent(stream, event, 1)
        );
    }

    fn without_context(&self, objects: &Objects) {
        let &Objects {
            context,
            stream,
            event,
            ..
        } = objects;
        println!("# without a current context");
        self.cuCtxSetCurrent(0);
        println!("create: {}", self.cuEventCreate(&mut 0, 0));
        println!("record in null: {}", self.cuEventRecord(event, 0));
        println!("record: {}", self.cuEventRecord(event, stream));
        println!("synchronise: {}", self.cuEventSynchronize(event));
        println!("query: {}", self.cuEventQuery(event));
        println!("elapsed: {}", self.elapsed(event, event));
        println!("wait: {}", self.cuStreamWaitEvent(stream, event, 0));
        println!("stream query: {}", self.cuStreamQuery(stream));
        self.cuCtxSetCurrent(context);
    }

    fn global_capture(&self, objects: &Objects) {
        let &Objects {
            stream,
            event,
            other,
            ..
        } = objects;
        println!("# beside a capture in global mode, same thread");
        self.during_capture("event query", 0, |_| self.cuEventQuery(event));
        self.during_capture("event synchronise", 0, |_| self.cuEventSynchronize(event));
        self.during_capture("elapsed", 0, |_| self.elapsed(event, event));
        self.during_capture("record elsewhere", 0, |_| self.cuEventRecord(event, stream));
        self.during_capture("wait elsewhere", 0, |_| {
            self.cuStreamWaitEvent(stream, event, 0)
        });
        self.during_capture("event create", 0, |_| self.cuEventCreate(&mut 0, 0));
        self.during_capture("event destroy", 0, |_| self.cuEventDestroy_v2(other));
        self.during_capture("stream query", 0, |_| self.cuStreamQuery(stream));
        self.during_capture("stream synchronise", 0, |_| {
            self.cuStreamSynchronize(stream)
        });
        self.during_capture("context synchronise", 0, |_| self.cuCtxSynchronize());
        self.during_capture("stream create", 0, |_| {
            self.cuStreamCreate(&mut 0, NON_BLOCKING)
        });
        self.during_capture("stream destroy", 0, |_| {
            self.cuStreamDestroy_v2(self.stream(0))
        });
        let mut memory = 0;
        self.during_capture("memory", 0, |_| self.cuMemAlloc_v2(&raw mut memory, 4));
        self.cuMemAlloc_v2(&raw mut memory, 4);
        self.during_capture("free", 0, |_| self.cuMemFree_v2(memory));
        let mut pinned = std::ptr::null_mut();
        self.during_capture("host memory", 0, |_| {
            self.cuMemHostAlloc(&raw mut pinned, 4, 0)
        });
    }

    fn query_by_modes(&self, objects: &Objects) {
        let &Objects { event, .. } = objects;
        println!("# an event query beside a capture, by its mode and that of another thread");
        for (capture, capture_mode) in MODES {
            for (thread, thread_mode) in MODES {
                let what = format!("{capture} capture, {thread} thread");
                self.during_capture(&what, capture_mode, |_| {
                    std::thread::scope(|scope| {
                        let asking = scope.spawn(|| {
                            let mut mode = thread_mode;
                            self.cuThreadExchangeStreamCaptureMode(&raw mut mode);
                            self.cuEventQuery(event)
                        });
                        asking.join().unwrap_or(c_uint::MAX)
                    })
                });
            }
        }
    }

    fn relaxed_capture(&self, objects: &Objects) {
        let &Objects {
            stream,
            event,
            fresh,
            ..
        } = objects;
        println!("# in a capture in relaxed mode");
        let captured = |s| assert_eq!(self.cuEventRecord(event, s), 0);
        self.during_capture("query of a captured event", 2, |s| {
            captured(s);
            self.cuEventQuery(event)
        });
        self.during_capture("synchronise with a captured event", 2, |s| {
            captured(s);
            self.cuEventSynchronize(event)
        });
        self.during_capture("elapsed of a captured event", 2, |s| {
            captured(s);
            self.elapsed(event, event)
        });
        self.during_capture("wait for it in the legacy stream", 2, |s| {
            captured(s);
            self.cuStreamWaitEvent(0, event, 0)
        });
        println!("query once it has ended: {}", self.cuEventQuery(event));
        println!(
            "wait once it has ended: {}",
            self.cuStreamWaitEvent(stream, event, 0)
        );
        self.cuEventRecord(event, stream);
        self.cuEventSynchronize(event);
        self.during_capture("wait for an event from outside", 2, |s| {
            self.cuStreamWaitEvent(s, event, 0)
        });
        self.during_capture("wait for an event never recorded", 2, |s| {
            self.cuStreamWaitEvent(s, fresh, 0)
        });
        self.streams_in_capture(objects);
    }

    fn streams_in_capture(&self, objects: &Objects) {
        let &Objects {
            stream,
            blocking,
            fresh,
            ..
        } = objects;
        self.during_capture("query of the stream", 2, |s| self.cuStreamQuery(s));
        self.during_capture("context of the stream", 2, |s| {
            self.cuStreamGetCtx(s, &mut 0)
        });
        self.during_capture("number of the stream", 2, |s| self.cuStreamGetId(s, &mut 0));
        self.during_capture("flags of the stream", 2, |s| {
            self.cuStreamGetFlags(s, &mut 0)
        });
        self.during_capture("synchronise with the stream", 2, |s| {
            self.cuStreamSynchronize(s)
        });
        self.during_capture("capture again", 2, |s| self.cuStreamBeginCapture_v2(s, 2));
        self.during_capture("record in null", 2, |_| self.cuEventRecord(fresh, 0));
        println!("end without a capture: {}", self.end(stream));
        println!(
            "capture of the legacy stream: {}",
            self.cuStreamBeginCapture_v2(1, 2)
        );
        self.cuStreamBeginCapture_v2(blocking, 2);
        let mut status = 0;
        println!(
            "beside a blocking stream, is null capturing: {}",
            self.cuStreamIsCapturing(0, &raw mut status)
        );
        println!("record in null: {}", self.cuEventRecord(fresh, 0));
        println!("then the capture ends with {}", self.end(blocking));
    }

    fn external_record(&self, objects: &Objects) {
        let &Objects { stream, .. } = objects;
        println!("# an external record");
        let mut pinned = std::ptr::null_mut();
        assert_eq!(self.cuMemHostAlloc(&raw mut pinned, 4, 0), 0);
        // SAFETY: four bytes, aligned, never freed
        let word = unsafe { AtomicU32::from_ptr(pinned.cast()) };
        word.store(0, Ordering::SeqCst);
        let external = self.event(0);
        self.cuStreamBeginCapture_v2(stream, 2);
        self.cuStreamWaitValue32_v2(stream, pinned.addr() as u64, 1, 0);
        println!(
            "record: {}",
            self.cuEventRecordWithFlags(external, stream, 1)
        );
        println!("query before the end: {}", self.cuEventQuery(external));
        let graph = made(|out| self.cuStreamEndCapture(stream, out));
        println!("query before a launch: {}", self.cuEventQuery(external));
        let exec = made(|out| self.cuGraphInstantiateWithFlags(out, graph, 0));
        println!("launch: {}", self.cuGraphLaunch(exec, stream));
        println!(
            "query while the graph waits: {}",
            self.cuEventQuery(external)
        );
        word.store(1, Ordering::SeqCst);
        println!("synchronise: {}", self.cuStreamSynchronize(stream));
        println!("query: {}", self.cuEventQuery(external));
    }

    fn reset(&self, objects: &Objects) {
        let &Objects {
            context,
            stream,
            fresh,
            ..
        } = objects;
        println!("# a reset of the primary context");
        let id = || {
            let mut id = 0;
            (self.cuCtxGetId(context, &raw mut id), id)
        };
        let before = id();
        println!("reset: {}", self.cuDevicePrimaryCtxReset_v2(0));
        println!("number: {}", id().0);
        println!("context synchronise: {}", self.cuCtxSynchronize());
        println!("event create: {}", self.cuEventCreate(&mut 0, 0));
        println!("set current: {}", self.cuCtxSetCurrent(context));
        println!("query: {}", self.cuEventQuery(fresh));
        println!("record: {}", self.cuEventRecord(fresh, stream));
        println!("synchronise: {}", self.cuEventSynchronize(fresh));
        println!("event destroy: {}", self.cuEventDestroy_v2(fresh));
        println!("stream destroy: {}", self.cuStreamDestroy_v2(stream));
        let again = made(|out| self.cuDevicePrimaryCtxRetain(out, 0));
        println!(
            "same handle: {}, same number: {}",
            again == context,
            before == id()
        );
        println!("release: {}", self.cuDevicePrimaryCtxRelease_v2(0));
        println!("release: {}", self.cuDevicePrimaryCtxRelease_v2(0));
        println!(
            "release of nothing: {}",
            self.cuDevicePrimaryCtxRelease_v2(0)
        );
    }
}
