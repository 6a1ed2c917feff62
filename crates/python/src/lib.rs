//! The extension module `fencepost._C`: everything native in the Python package.
//!
//! - `core` is what all three event classes are made of; `event`, `cuda` and `mps` are these
//!   classes, each with its own manners.
//! - `class` is how events of CUDA are made, `fast` the way into the calls that are made most.
//! - `current` finds the stream that a call means, whoever's it is.
//! - `torch_mps` marks PyTorch's own stream on a Mac, under PyTorch's dispatch queue (`dispatch`).
//! - `wait` blocks without the interpreter's lock and lets Ctrl-C through; `exit` keeps our threads
//!   out of an interpreter that is ending.
//!
//! **The interpreter's lock** is let go in every call that may block, record and wait included. No
//! lock of ours is held while Python code runs, and none that a thread may hold while it is blocked
//! in a driver is taken with the interpreter's lock in hand: the driver's progress may need Python.
#![allow(non_snake_case)]

// Brings the stand-in for Metal into the link.
#[cfg(metal_sim)]
use fencepost_sim_metal as _;
use pyo3::prelude::*;

mod awaiting;
mod class;
mod core;
mod cuda;
mod current;
mod device;
#[cfg(any(target_vendor = "apple", metal_sim))]
mod dispatch;
mod error;
mod event;
mod exit;
mod fast;
#[cfg(feature = "testing")]
mod gate;
mod mps;
mod stream;
mod torch_mps;
mod wait;

/// Runs the command line; returns its exit code. The first of ``args`` is the program's name.
#[pyfunction]
fn _run(py: Python<'_>, args: Vec<std::ffi::OsString>) -> u8 {
    py.detach(|| fencepost_cli::run(args))
}

/// The native part of fencepost, and the functions that PyTorch's ``torch.mps.Event`` is written
/// against.
#[pymodule(gil_used = false)]
mod _C {
    use pyo3::prelude::*;

    use super::{cuda::CudaEvent, mps::MpsEvent, mps::MpsStream};

    #[pymodule_export]
    use super::{
        _run,
        current::wrap_stream,
        device::{PyDevice, devices},
        event::PyEvent,
        exit::close,
        mps::{
            _mps_current_stream, _mps_device, _mps_live_events, _mps_set_stream, acquire,
            elapsed_of, query_event, record, release, synchronize_event, wait_for,
        },
        stream::PyStream,
    };

    /// The classes that share their names with others, and are found in modules of their own.
    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        let py = module.py();
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        crate::fast::install(py)?;
        module.add("_CudaEvent", crate::class::cuda_event(py)?)?;
        // Where pickle finds it; none of the names that the module has for others.
        module.setattr("_CudaEventBase", py.get_type::<CudaEvent>())?;
        #[cfg(feature = "testing")]
        module.setattr("_Gate", py.get_type::<crate::gate::PyGate>())?;
        module.add("_MpsEvent", py.get_type::<MpsEvent>())?;
        module.add("_MpsStream", py.get_type::<MpsStream>())
    }
}
