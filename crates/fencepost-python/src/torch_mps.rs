//! PyTorch's own MPS stream, which is what a drop-in for `torch.mps.Event` has to mark where PyTorch is at
//! work: a marker on any other queue would time nothing of PyTorch's.
//!
//! PyTorch has no Python call for it. It is reached through the functions that PyTorch exports for custom
//! Metal kernels (`torch/mps.h`): the command buffer that is open, the queue under which it may be touched,
//! and its commit. They are looked up at run time in the library that the loaded PyTorch came with.
//!
//! | state | a call without a stream |
//! |---|---|
//! | PyTorch is not loaded, or has no MPS | goes to the current stream of `fencepost.mps` |
//! | it has, and the functions are there | an error: this version cannot encode on that buffer yet |
//! | it has, and they are not | an error that names what is missing |
//!
//! Never does it measure another queue in silence.

use std::{ffi::OsString, path::PathBuf};

use pyo3::{
    exceptions::{PyNotImplementedError, PyRuntimeError},
    prelude::*,
};

use crate::current::loaded;

/// Names a library to look in, in place of PyTorch's own: for tests, on any system.
const LIBRARY: &str = "FENCEPOST_TORCH_LIBRARY";

/// What is looked up, by the names that the C++ compilers of macOS give it.
const SYMBOLS: [(&str, &str); 3] = [
    (
        "torch::mps::get_command_buffer()",
        "_ZN5torch3mps18get_command_bufferEv",
    ),
    (
        "torch::mps::get_dispatch_queue()",
        "_ZN5torch3mps18get_dispatch_queueEv",
    ),
    ("torch::mps::commit()", "_ZN5torch3mps6commitEv"),
];

const INSTEAD: &str = "pass a stream (fencepost.mps.Stream()) for work of your own, or time PyTorch's with \
                       torch.mps.Event";

/// An error where a call without a stream would have to go to PyTorch's MPS stream.
pub(crate) fn refuse_if_in_use(py: Python<'_>) -> PyResult<()> {
    let named = std::env::var_os(LIBRARY);
    if !cfg!(target_os = "macos") && named.is_none() {
        return Ok(());
    }
    let Some(torch) = loaded(py, "torch")? else {
        return Ok(());
    };
    if !uses_mps(&torch) {
        return Ok(());
    }
    let library = library(&torch, named)?;
    py.detach(|| find(&library))
        .map_err(PyRuntimeError::new_err)?;
    Err(PyNotImplementedError::new_err(format!(
        "PyTorch uses MPS, and its stream was found in {}; but this version of fencepost cannot put a marker on \
         it: its Metal backend does not encode into PyTorch's command buffer yet; {INSTEAD}",
        library.display()
    )))
}

/// Whether a stream of PyTorch's is there: it makes it with the first use, which it does not tell.
fn uses_mps(torch: &Bound<'_, PyAny>) -> bool {
    let ask = || -> PyResult<bool> {
        let mps = torch.getattr("backends")?.getattr("mps")?;
        mps.call_method0("is_available")?.is_truthy()
    };
    ask().unwrap_or(false)
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

/// Whether all functions are there.
fn find(path: &std::path::Path) -> Result<(), String> {
    let missing = |what: String| {
        format!(
            "PyTorch uses MPS, but its stream cannot be reached: {what}; PyTorch 2.1 and later export it \
             (torch/mps.h); {INSTEAD}"
        )
    };
    // SAFETY: PyTorch has loaded this library already, so nothing of it runs for this; a library that a test
    // names is the test's own.
    let library = unsafe { libloading::Library::new(path) }
        .map_err(|error| missing(format!("{} cannot be opened ({error})", path.display())))?;
    for (name, symbol) in SYMBOLS {
        // SAFETY: only looked up, never called.
        let found = unsafe { library.get::<*const ()>(symbol.as_bytes()) };
        if found.is_err() {
            return Err(missing(format!(
                "{} has no {name} ({symbol})",
                path.display()
            )));
        }
    }
    Ok(())
}
