//! The conformance suite's work on CUDA streams: gates, and kernels that write to logs.
//!
//! **Nothing here frees memory or loads a module while a gate is closed**: both would block until
//! it opens, and the thread that blocks may be the one that opens it
//! (docs/measurements/cuda-stalls.md). So logs are pinned pages that are used again and never
//! freed, and the module is loaded before the first gate closes.

use std::{
    any::Any,
    ffi::c_void,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use super::{
    context::Context,
    driver::{Fault, FunctionHandle, ModuleHandle},
    stream::CudaStream,
};
use crate::{
    contract::StreamImpl,
    error::{Cause, Error, Result},
    host_gate::HostGated,
    sync::lock,
    testing::{
        TestWork,
        bytes::ByteCounterImpl,
        work::{Gate, Log, LogImpl},
    },
};

/// Compiled by the driver for whatever GPU there is.
const PTX: &str = concat!(include_str!("../testing/cuda/kernels.ptx"), "\0");

/// The kernels of one context.
#[derive(Clone, Copy)]
pub(in crate::cuda) struct Kernels {
    append: FunctionHandle,
    pub(super) histogram: FunctionHandle,
    pub(super) reduce: FunctionHandle,
    spin: FunctionHandle,
    trap: FunctionHandle,
}

/// A log's memory: a count, a capacity, and the tokens.
#[derive(Clone, Copy)]
pub(in crate::cuda) struct Pages {
    host: usize,
    device: u64,
}

const BYTES: usize = 1 << 16;
const CAPACITY: usize = BYTES / 4 - 2;

/// Loads the kernels, once.
pub(super) fn kernels(context: &Context) -> Result<Kernels> {
    context
        .kernels
        .get_or_init(|| {
            let load = context.current(|| {
                let mut module = ModuleHandle::NULL;
                // SAFETY: PTX text that ends with a zero, which the driver copies.
                unsafe {
                    context
                        .driver
                        .module_load((&raw mut module, PTX.as_ptr().cast::<c_void>()))
                }?;
                let function = |name: &std::ffi::CStr| {
                    let mut function = FunctionHandle::NULL;
                    // SAFETY: the module was just loaded and is never unloaded; the name is a C
                    // string.
                    unsafe {
                        context
                            .driver
                            .module_function((&raw mut function, module, name.as_ptr()))
                    }?;
                    Ok::<_, Fault>(function)
                };
                Ok(Kernels {
                    append: function(c"fencepost_append")?,
                    histogram: function(c"fencepost_histogram")?,
                    reduce: function(c"fencepost_reduce")?,
                    spin: function(c"fencepost_spin")?,
                    trap: function(c"fencepost_trap")?,
                })
            });
            load.map_err(|fault| context.failed(fault, None))
        })
        .clone()
}

/// The work of one context's devices.
pub(super) struct CudaWork {
    pub(super) context: &'static Context,
}

impl TestWork for CudaWork {
    fn new_log(&self) -> Result<Log> {
        new_log(self.context)
    }

    fn gate(&self, stream: &dyn StreamImpl) -> Result<Gate> {
        let stream = of_stream(stream)?;
        let (timeline, end) = stream.values.now();
        if end.is_some() || timeline.has_failed() {
            // Behind a failure there is nothing to hold back; the driver's stream would be held,
            // and with it what comes after clear_error.
            return Ok(Gate::new(|| ()));
        }
        gate(stream)
    }

    fn append(&self, stream: &dyn StreamImpl, log: &Log, token: u32) -> Result<()> {
        let stream = of_stream(stream)?;
        let (timeline, end) = stream.values.now();
        if end.is_some() {
            // What is submitted behind a failure is refused or never runs.
            return Ok(());
        }
        match timeline.failure() {
            Some(error) => Err(error),
            None => append(stream, log, token),
        }
    }

    /// The stream ends here, by the backend's own way of failing a stream, with nothing submitted.
    ///
    /// A real fault of a kernel ends the whole context, which no process survives as a user of that
    /// device; so the cases about streams that fail and go on cannot be shown by one. What a real
    /// fault does is tested apart, in a process of its own.
    fn fail(&self, stream: &dyn StreamImpl, text: &str) -> Result<()> {
        of_stream(stream)?.fail_from_here(&Cause::new(text));
        Ok(())
    }

    fn byte_counter(&self, capacity: usize) -> Result<Arc<dyn ByteCounterImpl>> {
        super::bytes::new(self.context, capacity)
    }
}

/// The CUDA side of a stream.
fn of_stream(stream: &dyn StreamImpl) -> Result<&CudaStream> {
    let any: &dyn Any = stream;
    any.downcast_ref().ok_or_else(|| Error::Unsupported {
        what: "the work of a CUDA test".into(),
        device: stream.core().device.name.clone(),
        remedy: "use a stream of a CUDA device".into(),
    })
}

fn gate(stream: &CudaStream) -> Result<Gate> {
    let context = stream.context;
    kernels(context)?;
    let word = context
        .take_gate()
        .map_err(|fault| context.failed(fault, None))?;
    match stream.call(|raw| context.wait_gate(raw, word)) {
        Ok(()) => Ok(Gate::new(move || context.open(word))),
        Err(fault) => {
            context.unused(word);
            Err(context.failed(fault, None))
        }
    }
}

fn append(stream: &CudaStream, log: &Log, token: u32) -> Result<()> {
    let context = stream.context;
    let kernels = kernels(context)?;
    let Some(pages) = log.device_address() else {
        return Err(Error::Unsupported {
            what: "a log of another device".into(),
            device: context.name.clone(),
            remedy: "make the log on a CUDA device".into(),
        });
    };
    let (mut pages, mut token) = (pages, token);
    let mut arguments = [
        (&raw mut pages).cast::<c_void>(),
        (&raw mut token).cast::<c_void>(),
    ];
    launch(stream, kernels.append, arguments.as_mut_ptr())
}

/// Keeps the device busy for so long by its own clock.
pub(super) fn spin(stream: &CudaStream, nanos: u64) -> Result<()> {
    let kernels = kernels(stream.context)?;
    let mut nanos = nanos;
    let mut arguments = [(&raw mut nanos).cast::<c_void>()];
    launch(stream, kernels.spin, arguments.as_mut_ptr())
}

/// A fault: the context does not survive it.
pub(super) fn trap(stream: &CudaStream) -> Result<()> {
    let kernels = kernels(stream.context)?;
    launch(stream, kernels.trap, std::ptr::null_mut())
}

/// Launches one thread of `function`, whose parameters `arguments` point to.
fn launch(
    stream: &CudaStream,
    function: FunctionHandle,
    arguments: *mut *mut c_void,
) -> Result<()> {
    let context = stream.context;
    stream
        .call(|raw| {
            let none = std::ptr::null_mut();
            // SAFETY: the function is of this context; the arguments point to values of the types
            // that it takes (kernels.cu), and the driver copies them before it returns.
            unsafe {
                context
                    .driver
                    .launch_kernel((function, 1, 1, 1, 1, 1, 1, 0, raw, arguments, none))
            }
        })
        .map_err(|fault| context.failed(fault, None))
}

fn new_log(context: &'static Context) -> Result<Log> {
    kernels(context)?;
    let used = lock(&context.logs).pop();
    let pages = match used {
        Some(pages) => pages,
        None => {
            let (host, device) = context
                .pinned(BYTES)
                .map_err(|fault| context.failed(fault, None))?;
            Pages { host, device }
        }
    };
    pages.word(0).store(0, Ordering::SeqCst);
    pages.word(1).store(CAPACITY as u32, Ordering::SeqCst);
    Ok(Log::on_device(Arc::new(PinnedLog { context, pages })))
}

impl Pages {
    fn word(&self, index: usize) -> &AtomicU32 {
        debug_assert!(index < BYTES / 4);
        // SAFETY: within pinned memory that is never freed, aligned, and read and written by host
        // and device as whole words only.
        unsafe { AtomicU32::from_ptr((self.host + index * 4) as *mut u32) }
    }
}

struct PinnedLog {
    context: &'static Context,
    pages: Pages,
}

impl LogImpl for PinnedLog {
    fn push(&self, token: u32) {
        let at = self.pages.word(0).fetch_add(1, Ordering::SeqCst) as usize;
        if at < CAPACITY {
            self.pages.word(2 + at).store(token, Ordering::SeqCst);
        }
    }

    fn read(&self) -> Result<Vec<u32>> {
        let count = self.pages.word(0).load(Ordering::SeqCst) as usize;
        Ok((0..count.min(CAPACITY))
            .map(|at| self.pages.word(2 + at).load(Ordering::SeqCst))
            .collect())
    }

    fn device_address(&self) -> Option<u64> {
        Some(self.pages.device)
    }
}

impl Drop for PinnedLog {
    fn drop(&mut self) {
        // A case that failed may have left work behind that still writes here: then a later case
        // sees tokens that are not its own, and fails too; it does not pass wrongly.
        lock(&self.context.logs).push(self.pages);
    }
}
