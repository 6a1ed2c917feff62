//! PyTorch's own MPS stream. A drop-in for `torch.mps.Event` has to mark this stream where PyTorch
//! is at work: a marker on any other queue would time none of PyTorch's work.
//!
//! PyTorch has no Python call for its streams. They are reached through the functions that PyTorch
//! exports for custom Metal kernels: the command buffer that it encodes into, the dispatch queue on
//! which that buffer may be used, and its commit.
//!
//! These functions mean the stream that is current on the thread that calls them. So another stream
//! is made current for as long as they are called, also on the dispatch queue, where Grand Central
//! Dispatch may run work on another thread.
//!
//! # What a call does to PyTorch's stream
//!
//! PyTorch leaves its compute encoder open from one operation to the next, and Metal aborts the
//! process if another encoder is made for that command buffer. Of the three functions only the
//! commit ends the encoder, and then the command buffer is submitted and takes no more work.
//!
//! - **A record encodes nothing into that buffer.** It adds a completed handler
//!   (`metal::record_end`), which Metal allows while an encoder is open, and commits the buffer, as
//!   `torch.mps.Event.record` does. A signal in a separate buffer after it would be no substitute:
//!   Metal starts the buffers of a queue in order, and lets them overlap. `MPSCommandBuffer`
//!   promises that handlers stay with what was committed:
//!   <https://developer.apple.com/documentation/metalperformanceshaders/mpscommandbuffer/commitandcontinue()>
//! - **With timing, a small buffer of ours follows on the same queue.** PyTorch's buffer may be
//!   empty, and Metal promises no time for an empty one. The marker's time is the later of both.
//! - **Markers are ordered among themselves.** Each completes no sooner than the one before it,
//!   with no earlier time, whatever their buffers do.
//! - **A wait commits first, encodes into PyTorch's next buffer, and leaves that open.** So what
//!   PyTorch encodes next is in the buffer that waits. `torch.mps.Event.wait` commits that buffer
//!   too, and Metal's documentation would let later buffers overtake the wait.
//!
//! PyTorch also commits by itself, before and after. Those buffers are ordered against these
//! markers as far as PyTorch's own synchronize() and events rely on it: they too look at the last
//! buffer only.

use std::{
    ptr::NonNull,
    sync::{Mutex, OnceLock, PoisonError},
};

use fencepost::{Device, Error, Marker, Place, bindings, metal};
use objc2::{
    rc::{Retained, autoreleasepool},
    runtime::ProtocolObject,
};
use objc2_metal::{
    MTLBlitCommandEncoder, MTLBuffer, MTLCommandBuffer, MTLCommandEncoder, MTLCommandQueue,
    MTLDevice, MTLResourceOptions,
};
use pyo3::{exceptions::PyRuntimeError, prelude::*};

use super::{
    dispatch::on_queue,
    torch_symbols::{Address, Buffer, INSTEAD, StreamSymbols, Symbols},
};
use crate::{core::Core, error::to_py, place};

/// The loaded PyTorch, which has one device.
pub(crate) struct Torch {
    pub(super) symbols: Symbols,
    device: OnceLock<Device>,
    scratch: OnceLock<Scratch>,
}

pub(crate) struct TorchStream {
    torch: &'static Torch,
    /// 0 is the default stream.
    number: usize,
    /// What PyTorch names it by. Null where PyTorch has this stream alone.
    address: Address,
    /// The last marker. Used on the stream's dispatch queue only.
    last: Mutex<Option<Marker>>,
}

/// While it lives, a stream is current on this thread.
struct Current {
    functions: StreamSymbols,
    before: Address,
}

impl Drop for Current {
    fn drop(&mut self) {
        // SAFETY: what was current on this thread before; streams live as long as the process.
        unsafe { (self.functions.set_current)(self.before) };
    }
}

/// Four bytes of GPU memory that nobody reads.
struct Scratch(Retained<ProtocolObject<dyn MTLBuffer>>);

// SAFETY: command buffers only refer to it, and Metal lets any thread encode that and release it:
// https://developer.apple.com/library/archive/documentation/3DDrawing/Conceptual/MTLBestPracticesGuide/CommandBuffers.html
unsafe impl Send for Scratch {}
// SAFETY: as above.
unsafe impl Sync for Scratch {}

/// Why a marker could not be made.
pub(super) enum Refused {
    /// A call returned nil.
    Nil(&'static str),
    By(Error),
}

impl From<Error> for Refused {
    fn from(error: Error) -> Refused {
        Refused::By(error)
    }
}

impl From<Refused> for PyErr {
    fn from(refused: Refused) -> PyErr {
        match refused {
            Refused::By(error) => to_py(error),
            Refused::Nil(call) => PyRuntimeError::new_err(format!(
                "PyTorch uses MPS, but its stream cannot be reached: {call} returned nil; use \
                 PyTorch's MPS device once before, free memory, or {INSTEAD}"
            )),
        }
    }
}

impl Torch {
    pub(super) fn new(symbols: Symbols) -> Torch {
        Torch {
            symbols,
            device: OnceLock::new(),
            scratch: OnceLock::new(),
        }
    }

    /// The functions for streams; an error where PyTorch lacks one.
    pub(super) fn stream_symbols(&self) -> PyResult<StreamSymbols> {
        let missing = |text: &String| PyRuntimeError::new_err(text.clone());
        self.symbols.streams.as_ref().copied().map_err(missing)
    }
}

impl TorchStream {
    pub(super) fn new(torch: &'static Torch, number: usize, address: Address) -> TorchStream {
        TorchStream {
            torch,
            number,
            address,
            last: Mutex::new(None),
        }
    }

    pub(super) fn is_at(&self, address: Address) -> bool {
        self.address == address
    }

    pub(super) fn number(&self) -> usize {
        self.number
    }

    /// Makes it the calling thread's current stream for good.
    pub(super) fn set_current(&self) {
        if let Ok(functions) = self.torch.symbols.streams {
            // SAFETY: one of PyTorch's streams, which live as long as the process.
            unsafe { (functions.set_current)(self.address) };
        }
    }

    /// Makes it the calling thread's current stream; `None` if it is already.
    fn made_current(&self) -> Option<Current> {
        let functions = self.torch.symbols.streams.as_ref().copied().ok()?;
        // SAFETY: any thread may ask for its current stream.
        let before = unsafe { (functions.current)() };
        if self.is_at(before) {
            return None;
        }
        self.set_current();
        Some(Current { functions, before })
    }

    /// Marks the point behind everything that PyTorch has encoded so far; `event` holds it from now
    /// on.
    pub(crate) fn record(&self, py: Python<'_>, event: &Core) -> PyResult<()> {
        let at = place::of_record(py);
        let held = py.detach(|| {
            let (device, marker) = self.mark(event.flags.timing, at)?;
            event.set_marker(&device, marker).map_err(Refused::By)
        });
        Ok(held?)
    }

    /// Makes what PyTorch encodes from now on run after what `event` holds now.
    pub(crate) fn wait(&self, py: Python<'_>, event: &Core) -> PyResult<()> {
        match event.marker(py) {
            Some(marker) => py.detach(|| self.wait_for(&marker)).map_err(PyErr::from),
            None if event.is_raw() => Err(to_py(bindings::unsupported(
                "a wait of PyTorch's MPS stream for an event of CUDA",
                "metal",
                "synchronize() on the event first",
            ))),
            None => Ok(()),
        }
    }

    fn mark(&self, timing: bool, at: Place) -> Result<(Device, Marker), Refused> {
        self.on_its_queue(|| {
            let open = self.command_buffer()?;
            let device = self.device_of(&open)?;
            let behind = match timing {
                true => Some(self.small_buffer_behind(&open)?),
                false => None,
            };
            let mut buffers = vec![&*open];
            buffers.extend(behind.as_deref());
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            // A marker that failed must not fail the next one.
            let after = last.as_ref().filter(|last| last.query().is_ok());
            let reservation = bindings::record_end_at(&device, &buffers, after, at)?;
            self.commit();
            if let Some(behind) = &behind {
                behind.commit();
            }
            let marker = reservation.submitted();
            *last = Some(marker.clone());
            Ok((device, marker))
        })
    }

    fn wait_for(&self, marker: &Marker) -> Result<(), Refused> {
        // PyTorch's stream cannot be made to fail, so a failure is raised here.
        if marker.query()? {
            return Ok(());
        }
        self.on_its_queue(|| {
            // Ends the encoder that may be open.
            self.commit();
            Ok(metal::wait_into(marker, &*self.command_buffer()?)?)
        })
    }

    pub(super) fn device(&self) -> Result<Device, Refused> {
        match self.torch.device.get() {
            Some(device) => Ok(device.clone()),
            None => self.on_its_queue(|| Ok(self.device_of(&*self.command_buffer()?)?)),
        }
    }

    /// The device of PyTorch's command buffers, which never changes.
    fn device_of(&self, buffer: &Buffer) -> Result<Device, Error> {
        if let Some(device) = self.torch.device.get() {
            return Ok(device.clone());
        }
        let stream = metal::stream_from_raw(&buffer.commandQueue())?;
        let device = self.torch.device.get_or_init(|| stream.device().clone());
        Ok(device.clone())
    }

    /// Runs `work` on PyTorch's dispatch queue, where nobody else uses its command buffer, in an
    /// autorelease pool.
    fn on_its_queue<R: Send>(
        &self,
        work: impl FnOnce() -> Result<R, Refused> + Send,
    ) -> Result<R, Refused> {
        let queue = {
            let _current = self.made_current();
            // SAFETY: any thread may ask for the queue. The stream owns it, and lives as long as
            // the process.
            unsafe { (self.torch.symbols.get_dispatch_queue)() }
        };
        let queue = NonNull::new(queue).ok_or(Refused::Nil("torch::mps::get_dispatch_queue()"))?;
        // SAFETY: a serial dispatch_queue_t that lives as long as the process.
        unsafe {
            on_queue(queue, || {
                let _current = self.made_current();
                autoreleasepool(|_| work())
            })
        }
    }

    /// The command buffer that PyTorch encodes into. Call it on PyTorch's dispatch queue.
    fn command_buffer(&self) -> Result<Retained<Buffer>, Refused> {
        // SAFETY: called on the queue that guards the buffer. The stream owns the buffer, which is
        // retained before anybody else can commit and release it. An MPSCommandBuffer conforms to
        // MTLCommandBuffer:
        // https://developer.apple.com/documentation/metalperformanceshaders/mpscommandbuffer
        let buffer = unsafe { Retained::retain((self.torch.symbols.get_command_buffer)()) };
        buffer.ok_or(Refused::Nil("torch::mps::get_command_buffer()"))
    }

    /// Ends PyTorch's encoder, and commits what PyTorch has encoded. Call it on PyTorch's dispatch
    /// queue.
    fn commit(&self) {
        // SAFETY: called on the queue that guards the stream.
        unsafe { (self.torch.symbols.commit)() };
    }

    /// A command buffer of ours with the smallest possible work, to be committed behind `open`.
    fn small_buffer_behind(&self, open: &Buffer) -> Result<Retained<Buffer>, Refused> {
        let nil = Refused::Nil;
        let queue = open.commandQueue();
        let scratch = match self.torch.scratch.get() {
            Some(scratch) => scratch,
            None => {
                let options = MTLResourceOptions::StorageModePrivate
                    | MTLResourceOptions::HazardTrackingModeUntracked;
                let fresh = queue.device().newBufferWithLength_options(4, options);
                let fresh = fresh.ok_or(nil("newBufferWithLength"))?;
                self.torch.scratch.get_or_init(|| Scratch(fresh))
            }
        };
        let buffer = queue.commandBuffer().ok_or(nil("commandBuffer"))?;
        let encoder = buffer
            .blitCommandEncoder()
            .ok_or(nil("blitCommandEncoder"))?;
        encoder.fillBuffer_range_value(&scratch.0, (0..4).into(), 0);
        encoder.endEncoding();
        Ok(buffer)
    }
}
