//! The functions that PyTorch exports for custom Metal kernels (`torch/mps.h`) and for its streams
//! (`ATen/mps/MPSStream.h`). They are looked up at run time, in the library that the loaded PyTorch
//! came with.

use std::{
    ffi::{OsString, c_void},
    path::{Path, PathBuf},
};

use objc2::runtime::ProtocolObject;
use objc2_metal::MTLCommandBuffer;
use pyo3::{exceptions::PyRuntimeError, prelude::*};

/// Names a library to look in instead of PyTorch's own. For tests.
const LIBRARY: &str = "FENCEPOST_TORCH_LIBRARY";

/// What a user can do instead, for the texts of errors.
pub(crate) const INSTEAD: &str = "pass a stream (fencepost.mps.Stream()) for work of your own, \
                                  or time PyTorch's with torch.mps.Event";

pub(crate) type Buffer = ProtocolObject<dyn MTLCommandBuffer>;

/// The functions, with the types that `torch/mps.h` gives them. A C++ exception that leaves one
/// aborts the process. They throw where PyTorch has no MPS, so that is checked first.
pub(crate) struct Symbols {
    pub(crate) get_command_buffer: unsafe extern "C" fn() -> *mut Buffer,
    pub(crate) get_dispatch_queue: unsafe extern "C" fn() -> *mut c_void,
    pub(crate) commit: unsafe extern "C" fn(),
    /// Those for streams, or what is missing.
    pub(crate) streams: Result<StreamSymbols, String>,
}

/// A stream of PyTorch's: an `at::mps::MPSStream*`, which nobody here looks into. PyTorch's streams
/// live as long as the process.
#[derive(Clone, Copy, PartialEq)]
#[repr(transparent)]
pub(crate) struct Address(*mut c_void);

// SAFETY: it is compared, and passed to PyTorch's functions, which any thread may call.
unsafe impl Send for Address {}
// SAFETY: as above.
unsafe impl Sync for Address {}

impl Address {
    /// The default stream, for `set_current`.
    pub(crate) const NULL: Address = Address(std::ptr::null_mut());
}

/// The functions for streams.
///
/// The current stream is the calling thread's. The functions of [`Symbols`] mean that stream.
#[derive(Clone, Copy)]
pub(crate) struct StreamSymbols {
    pub(crate) current: unsafe extern "C" fn() -> Address,
    pub(crate) set_current: unsafe extern "C" fn(Address),
    /// Takes 0 for the default stream, 1 to 32 for those of the pool. It throws for other numbers.
    pub(crate) by_id: unsafe extern "C" fn(i64) -> Address,
}

/// The oldest PyTorch that has the functions, for the texts of errors.
const FOR_KERNELS: &str = "PyTorch 2.1 and later export it (torch/mps.h)";
const FOR_STREAMS: &str = "PyTorch 2.15 and later export it (ATen/mps/MPSStream.h)";

/// Finds the functions of `torch`, the module.
pub(crate) fn find(torch: &Bound<'_, PyAny>) -> PyResult<Symbols> {
    let named = std::env::var_os(LIBRARY).filter(|name| !name.is_empty());
    let library = library(torch, named)?;
    let found = torch.py().detach(|| find_in(&library));
    found.map_err(PyRuntimeError::new_err)
}

/// The library in which PyTorch keeps these functions.
fn library(torch: &Bound<'_, PyAny>, named: Option<OsString>) -> PyResult<PathBuf> {
    if let Some(named) = named {
        return Ok(named.into());
    }
    let mut folder: PathBuf = torch.getattr("__file__")?.extract()?;
    folder.pop();
    Ok(folder.join("lib").join("libtorch_cpu.dylib"))
}

fn find_in(path: &Path) -> Result<Symbols, String> {
    // SAFETY: PyTorch has loaded this library already, so opening it runs no code of it. A library
    // that a test names is the test's own.
    let opened = unsafe { libloading::Library::new(path) };
    let library = opened.map_err(|error| {
        let what = format!("{} cannot be opened ({error})", path.display());
        unreachable_because(&what, FOR_KERNELS)
    })?;
    // The names are mangled as the C++ compilers of macOS do. SAFETY: the types that torch/mps.h
    // gives these functions, which take no argument: they return an id<MTLCommandBuffer>, a
    // dispatch_queue_t and nothing.
    let functions = unsafe {
        let look_up = Lookup {
            library: &library,
            path,
            exported_by: FOR_KERNELS,
        };
        Symbols {
            get_command_buffer: look_up.function(
                "torch::mps::get_command_buffer()",
                "_ZN5torch3mps18get_command_bufferEv",
            )?,
            get_dispatch_queue: look_up.function(
                "torch::mps::get_dispatch_queue()",
                "_ZN5torch3mps18get_dispatch_queueEv",
            )?,
            commit: look_up.function("torch::mps::commit()", "_ZN5torch3mps6commitEv")?,
            streams: find_streams(&library, path),
        }
    };
    // Never closed: the functions are called for as long as the process lives.
    std::mem::forget(library);
    Ok(functions)
}

fn find_streams(library: &libloading::Library, path: &Path) -> Result<StreamSymbols, String> {
    let look_up = Lookup {
        library,
        path,
        exported_by: FOR_STREAMS,
    };
    // SAFETY: the types that ATen/mps/MPSStream.h gives these functions: a stream is an
    // at::mps::MPSStream*, which nobody here looks into, and its number an int64_t.
    unsafe {
        Ok(StreamSymbols {
            current: look_up.function(
                "at::mps::getCurrentMPSStream()",
                "_ZN2at3mps19getCurrentMPSStreamEv",
            )?,
            set_current: look_up.function(
                "at::mps::setCurrentMPSStream()",
                "_ZN2at3mps19setCurrentMPSStreamEPNS0_9MPSStreamE",
            )?,
            by_id: look_up.function("at::mps::getStreamByID()", "_ZN2at3mps13getStreamByIDEx")?,
        })
    }
}

struct Lookup<'a> {
    library: &'a libloading::Library,
    path: &'a Path,
    exported_by: &'static str,
}

impl Lookup<'_> {
    /// # Safety
    /// `T` is the function pointer that `symbol` stands for.
    unsafe fn function<T: Copy>(&self, name: &str, symbol: &str) -> Result<T, String> {
        // SAFETY: the caller's promise.
        match unsafe { self.library.get::<T>(symbol.as_bytes()) } {
            Ok(found) => Ok(*found),
            Err(_) => {
                let what = format!("{} has no {name} ({symbol})", self.path.display());
                Err(unreachable_because(&what, self.exported_by))
            }
        }
    }
}

fn unreachable_because(what: &str, exported_by: &str) -> String {
    format!("PyTorch uses MPS, but its stream cannot be reached: {what}; {exported_by}; {INSTEAD}")
}
