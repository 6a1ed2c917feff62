//! PyTorch's own MPS stream, which is what a drop-in for `torch.mps.Event` has to mark where
//! PyTorch is at work: a marker on any other queue would time nothing of PyTorch's.
//!
//! PyTorch has no Python call for it. It is reached through the functions that PyTorch exports for
//! custom Metal kernels (`torch/mps.h`): the command buffer that it encodes into, the dispatch
//! queue under which that may be touched, and its commit. They are looked up at run time, in the
//! library that the loaded PyTorch came with.
//!
//! | state | a call without a stream |
//! |---|---|
//! | PyTorch is not loaded, or has no MPS | goes to the current stream of `fencepost.mps` |
//! | it has, and its current stream is the default one | goes to PyTorch's stream |
//! | it has, and another stream is current, which the functions do not reach | an error |
//! | it has, and a function is missing or gives nothing | an error that names it |
//!
//! Never does it measure another queue in silence.
//!
//! # What is done to PyTorch's stream
//!
//! PyTorch leaves its compute encoder open from one operation to the next, and Metal ends the
//! process when anything is encoded beside it. Of the three functions only the commit ends that
//! encoder, and then what was encoded is on its way in a command buffer that nobody can add to.
//!
//! - **A record encodes nothing into that buffer.** It has it tell when it has completed
//!   (`metal::record_end`), which Metal allows beside an open encoder, and commits it, as
//!   `torch.mps.Event.record` does. A signal in a buffer of its own behind it would be no
//!   substitute: Metal starts the buffers of a queue in order, and lets them overlap.
//!   `MPSCommandBuffer` promises that handlers stay with what was committed:
//!   <https://developer.apple.com/documentation/metalperformanceshaders/mpscommandbuffer/commitandcontinue()>
//! - **With timing, a small buffer of ours follows on the same queue**: PyTorch's may be empty, and
//!   nothing promises a time to an empty one. The time is the later of both.
//! - **Marks are in order among themselves**: each completes no sooner than the one before it, with
//!   no earlier time, whatever their buffers do.
//! - **A wait commits first, encodes into PyTorch's next buffer, and leaves that open**: so what
//!   PyTorch encodes next is in the buffer that waits. `torch.mps.Event.wait` commits there, and
//!   what follows is in buffers that Metal's documentation would let overtake the wait.
//!
//! What PyTorch committed by itself before, and what it commits by itself after, is before and
//! behind these buffers as far as PyTorch's own synchronize() and events rely on it: they too look
//! at the last buffer only.

#[cfg(not(any(target_vendor = "apple", metal_sim)))]
pub(crate) use elsewhere::*;
#[cfg(any(target_vendor = "apple", metal_sim))]
pub(crate) use metal::*;

/// There is no MPS.
#[cfg(not(any(target_vendor = "apple", metal_sim)))]
mod elsewhere {
    use std::convert::Infallible;

    use fencepost::Device;
    use pyo3::prelude::*;

    use crate::core::Core;

    pub(crate) struct Torch(Infallible);

    pub(crate) fn in_use(_: Python<'_>) -> PyResult<Option<&'static Torch>> {
        Ok(None)
    }

    pub(crate) fn in_use_on(_: Python<'_>, _: &Device) -> PyResult<Option<&'static Torch>> {
        Ok(None)
    }

    impl Torch {
        pub(crate) fn record(&self, _: Python<'_>, _: &Core) -> PyResult<()> {
            match self.0 {}
        }

        pub(crate) fn wait(&self, _: Python<'_>, _: &Core) -> PyResult<()> {
            match self.0 {}
        }
    }
}

#[cfg(any(target_vendor = "apple", metal_sim))]
mod metal {
    use std::{
        ffi::{OsString, c_void},
        path::{Path, PathBuf},
        ptr::NonNull,
        sync::{Mutex, OnceLock, PoisonError},
    };

    use fencepost::{Backend, Device, Error, Marker, metal};
    use objc2::{
        rc::{Retained, autoreleasepool},
        runtime::ProtocolObject,
    };
    use objc2_metal::{
        MTLBlitCommandEncoder, MTLBuffer, MTLCommandBuffer, MTLCommandEncoder, MTLCommandQueue,
        MTLDevice, MTLResourceOptions,
    };
    use pyo3::{exceptions::PyRuntimeError, prelude::*, sync::PyOnceLock};

    use crate::{
        core::Core,
        current::loaded,
        dispatch::on_queue,
        error::{to_py, to_py_mps},
    };

    /// Names a library to look in, in place of PyTorch's own: for tests.
    const LIBRARY: &str = "FENCEPOST_TORCH_LIBRARY";

    const INSTEAD: &str = "pass a stream (fencepost.mps.Stream()) for work of your own, or time PyTorch's with \
                           torch.mps.Event";

    type Buffer = ProtocolObject<dyn MTLCommandBuffer>;

    /// PyTorch's functions, by the types that `torch/mps.h` gives them. A C++ exception that leaves
    /// one ends the process; they throw where PyTorch has no MPS, which is asked before.
    pub(crate) struct Torch {
        get_command_buffer: unsafe extern "C" fn() -> *mut Buffer,
        get_dispatch_queue: unsafe extern "C" fn() -> *mut c_void,
        commit: unsafe extern "C" fn(),
        device: OnceLock<Device>,
        scratch: OnceLock<Scratch>,
        /// The last mark: used under PyTorch's dispatch queue.
        last: Mutex<Option<Marker>>,
    }

    /// Four bytes that nobody reads.
    struct Scratch(Retained<ProtocolObject<dyn MTLBuffer>>);

    // SAFETY: it is only named in command buffers, and Metal lets any thread do so and release it:
    // https://developer.apple.com/library/archive/documentation/3DDrawing/Conceptual/MTLBestPracticesGuide/CommandBuffers.html
    unsafe impl Send for Scratch {}
    // SAFETY: as above.
    unsafe impl Sync for Scratch {}

    /// Why a mark could not be made.
    enum Refused {
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
                Refused::By(error) => to_py_mps(error),
                Refused::Nil(call) => PyRuntimeError::new_err(format!(
                    "PyTorch uses MPS, but its stream cannot be reached: {call} gave nothing; use PyTorch's MPS \
                     device once before, free memory, or {INSTEAD}"
                )),
            }
        }
    }

    /// PyTorch's stream, where a call without a stream has to go to it.
    pub(crate) fn in_use(py: Python<'_>) -> PyResult<Option<&'static Torch>> {
        static TORCH: PyOnceLock<Torch> = PyOnceLock::new();
        let Some(torch) = loaded(py, "torch")? else {
            return Ok(None);
        };
        if !uses_mps(&torch) {
            return Ok(None);
        }
        let functions = match TORCH.get(py) {
            Some(functions) => functions,
            None => {
                let named = std::env::var_os(LIBRARY).filter(|name| !name.is_empty());
                let library = library(&torch, named)?;
                let found = py.detach(|| find(&library));
                let found = found.map_err(PyRuntimeError::new_err)?;
                TORCH.get_or_init(py, || found)
            }
        };
        on_its_default_stream(&torch)?;
        Ok(Some(functions))
    }

    /// As [`in_use`], where PyTorch's device is `device`.
    pub(crate) fn in_use_on(py: Python<'_>, device: &Device) -> PyResult<Option<&'static Torch>> {
        if device.backend() != Backend::Metal {
            return Ok(None);
        }
        let Some(torch) = in_use(py)? else {
            return Ok(None);
        };
        let its = py.detach(|| torch.device())?;
        Ok((its == *device).then_some(torch))
    }

    /// Whether a stream of PyTorch's is there: it makes it with the first use, which it does not
    /// tell.
    fn uses_mps(torch: &Bound<'_, PyAny>) -> bool {
        let ask = || -> PyResult<bool> {
            let mps = torch.getattr("backends")?.getattr("mps")?;
            mps.call_method0("is_available")?.is_truthy()
        };
        ask().unwrap_or(false)
    }

    /// The functions reach the default stream. Versions of PyTorch that have others tell which is
    /// current.
    fn on_its_default_stream(torch: &Bound<'_, PyAny>) -> PyResult<()> {
        let Ok(current) = torch
            .getattr("mps")
            .and_then(|mps| mps.getattr("current_stream"))
        else {
            return Ok(());
        };
        let number: i64 = current.call0()?.getattr("stream_id")?.extract()?;
        match number {
            0 => Ok(()),
            number => Err(PyRuntimeError::new_err(format!(
                "PyTorch's current MPS stream is number {number}, and the functions that PyTorch exports reach its \
                 default stream only: leave torch.mps.stream(…) for this call, or {INSTEAD}"
            ))),
        }
    }

    /// Where PyTorch keeps these functions.
    fn library(torch: &Bound<'_, PyAny>, named: Option<OsString>) -> PyResult<PathBuf> {
        if let Some(named) = named {
            return Ok(named.into());
        }
        let mut folder: PathBuf = torch.getattr("__file__")?.extract()?;
        folder.pop();
        Ok(folder.join("lib").join("libtorch_cpu.dylib"))
    }

    fn find(path: &Path) -> Result<Torch, String> {
        // SAFETY: PyTorch has loaded this library already, so nothing of it runs for this; a
        // library that a test names is the test's own.
        let library = unsafe { libloading::Library::new(path) }.map_err(|error| {
            unreachable_because(&format!("{} cannot be opened ({error})", path.display()))
        })?;
        // By the names that the C++ compilers of macOS give them. SAFETY: the types of torch/mps.h
        // for these names, which hold no argument: an id<MTLCommandBuffer>, a dispatch_queue_t and
        // nothing.
        let functions = unsafe {
            Torch {
                get_command_buffer: look_up(
                    &library,
                    path,
                    "torch::mps::get_command_buffer()",
                    "_ZN5torch3mps18get_command_bufferEv",
                )?,
                get_dispatch_queue: look_up(
                    &library,
                    path,
                    "torch::mps::get_dispatch_queue()",
                    "_ZN5torch3mps18get_dispatch_queueEv",
                )?,
                commit: look_up(
                    &library,
                    path,
                    "torch::mps::commit()",
                    "_ZN5torch3mps6commitEv",
                )?,
                device: OnceLock::new(),
                scratch: OnceLock::new(),
                last: Mutex::new(None),
            }
        };
        // The functions are called for as long as the process lives.
        std::mem::forget(library);
        Ok(functions)
    }

    /// # Safety
    /// `T` is the function pointer that `symbol` stands for.
    unsafe fn look_up<T: Copy>(
        library: &libloading::Library,
        path: &Path,
        name: &str,
        symbol: &str,
    ) -> Result<T, String> {
        // SAFETY: the caller's promise.
        match unsafe { library.get::<T>(symbol.as_bytes()) } {
            Ok(found) => Ok(*found),
            Err(_) => Err(unreachable_because(&format!(
                "{} has no {name} ({symbol})",
                path.display()
            ))),
        }
    }

    fn unreachable_because(what: &str) -> String {
        format!(
            "PyTorch uses MPS, but its stream cannot be reached: {what}; PyTorch 2.1 and later export it \
             (torch/mps.h); {INSTEAD}"
        )
    }

    impl Torch {
        /// Marks the point behind everything that PyTorch has encoded so far; `core` holds it from
        /// now on.
        pub(crate) fn record(&self, py: Python<'_>, core: &Core) -> PyResult<()> {
            let held = py.detach(|| {
                let (device, marker) = self.mark(core.flags.timing)?;
                core.hold(&device, marker).map_err(Refused::By)
            });
            Ok(held?)
        }

        /// Makes what PyTorch encodes from now on run after what `core` holds now.
        pub(crate) fn wait(&self, py: Python<'_>, core: &Core) -> PyResult<()> {
            match core.marker(py) {
                Some(marker) => py.detach(|| self.wait_for(&marker)).map_err(PyErr::from),
                None if core.is_native() => Err(to_py(Error::Unsupported {
                    what: "a wait of PyTorch's MPS stream for an event of CUDA".into(),
                    device: "metal".into(),
                    remedy: "synchronize() on the event first".into(),
                })),
                None => Ok(()),
            }
        }

        fn mark(&self, timing: bool) -> Result<(Device, Marker), Refused> {
            self.under_its_queue(|| {
                let open = self.command_buffer()?;
                let device = self.device_of(&open)?;
                let behind = match timing {
                    true => Some(self.small_buffer_behind(&open)?),
                    false => None,
                };
                let mut buffers = vec![&*open];
                buffers.extend(behind.as_deref());
                let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
                // What has failed fails no more than itself.
                let after = last.as_ref().filter(|last| last.query().is_ok());
                let reservation = metal::record_end(&device, &buffers, after)?;
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
            // PyTorch's stream cannot be made to fail: the failure is the caller's.
            if marker.query()? {
                return Ok(());
            }
            self.under_its_queue(|| {
                // Ends the encoder that may be open.
                self.commit();
                Ok(metal::wait_into(marker, &*self.command_buffer()?)?)
            })
        }

        fn device(&self) -> Result<Device, Refused> {
            match self.device.get() {
                Some(device) => Ok(device.clone()),
                None => self.under_its_queue(|| Ok(self.device_of(&*self.command_buffer()?)?)),
            }
        }

        /// The device of PyTorch's command buffers, which is the same one for ever.
        fn device_of(&self, buffer: &Buffer) -> Result<Device, Error> {
            if let Some(device) = self.device.get() {
                return Ok(device.clone());
            }
            let stream = metal::stream_from_queue(&buffer.commandQueue())?;
            Ok(self.device.get_or_init(|| stream.device().clone()).clone())
        }

        /// Runs `work` where nobody else touches PyTorch's command buffer, in an autorelease pool.
        fn under_its_queue<R: Send>(
            &self,
            work: impl FnOnce() -> Result<R, Refused> + Send,
        ) -> Result<R, Refused> {
            // SAFETY: any thread may ask for the queue; the stream keeps it, and lives as long as
            // the process.
            let queue = unsafe { (self.get_dispatch_queue)() };
            let queue =
                NonNull::new(queue).ok_or(Refused::Nil("torch::mps::get_dispatch_queue()"))?;
            // SAFETY: a dispatch_queue_t, serial, that lives on as said above.
            unsafe { on_queue(queue, || autoreleasepool(|_| work())) }
        }

        /// The command buffer that PyTorch encodes into. Call it under PyTorch's dispatch queue.
        fn command_buffer(&self) -> Result<Retained<Buffer>, Refused> {
            // SAFETY: called under the queue that guards it, and what it gives, of which the stream
            // is the owner, is retained before anybody else may come to commit and release it. An
            // MPSCommandBuffer answers to MTLCommandBuffer:
            // https://developer.apple.com/documentation/metalperformanceshaders/mpscommandbuffer
            let buffer = unsafe { Retained::retain((self.get_command_buffer)()) };
            buffer.ok_or(Refused::Nil("torch::mps::get_command_buffer()"))
        }

        /// Commits what PyTorch has encoded, and ends its encoder first. Call it under PyTorch's
        /// dispatch queue.
        fn commit(&self) {
            // SAFETY: called under the queue that guards the stream.
            unsafe { (self.commit)() };
        }

        /// A command buffer of ours with the least work there is, to be committed behind `open`.
        fn small_buffer_behind(&self, open: &Buffer) -> Result<Retained<Buffer>, Refused> {
            let nil = Refused::Nil;
            let queue = open.commandQueue();
            let scratch = match self.scratch.get() {
                Some(scratch) => scratch,
                None => {
                    let options = MTLResourceOptions::StorageModePrivate
                        | MTLResourceOptions::HazardTrackingModeUntracked;
                    let fresh = queue.device().newBufferWithLength_options(4, options);
                    let fresh = fresh.ok_or(nil("newBufferWithLength"))?;
                    self.scratch.get_or_init(|| Scratch(fresh))
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
}
