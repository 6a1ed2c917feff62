//! The functions that PyTorch exports for custom Metal kernels (`torch/mps.h`). They are looked up
//! at run time, in the library that the loaded PyTorch came with.

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
}

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
    let library = unsafe { libloading::Library::new(path) }.map_err(|error| {
        unreachable_because(&format!("{} cannot be opened ({error})", path.display()))
    })?;
    // The names are mangled as the C++ compilers of macOS do. SAFETY: the types that torch/mps.h
    // gives these functions, which take no argument: they return an id<MTLCommandBuffer>, a
    // dispatch_queue_t and nothing.
    let functions = unsafe {
        Symbols {
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
        }
    };
    // Never closed: the functions are called for as long as the process lives.
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
        "PyTorch uses MPS, but its stream cannot be reached: {what}; PyTorch 2.1 and later export \
         it (torch/mps.h); {INSTEAD}"
    )
}
