//! The extension module `fencepost._C`: everything native in the Python package.
//!
//! Each module uses only modules that are above it in this list:
//!
//! - `error`: the library's errors as exceptions. `exit`: no Python runs on the library's threads
//!   once the interpreter ends. `wait`: blocking without the GIL.
//! - `place`: the Python line that makes a call. `raised`: exceptions in launched work.
//! - `dlpack`: what a type of tensors tells of its framework's current stream.
//! - `torch`: what PyTorch says about itself. `cuda_streams`: CUDA streams of other libraries, and
//!   the current one. `opencl_queues`: queues of pyopencl.
//! - `raw`, `core`, `elapsed`: what all three event classes are made of.
//! - `objects`: the Rust side of the classes. `arguments`: what a Python argument means.
//! - `like`: the current stream of the framework that a tensor belongs to.
//! - `awaiting`: `await event`. `wait_many`: waiting for many. `interprocess`: events that two
//!   processes share.
//! - `cuda_class`: the class that `fencepost.cuda.Event` is.
//! - `device`: the methods of that class. `mps`: `fencepost.mps`, and PyTorch's own MPS stream.
//! - `correlation`: the host's clock.
//! - `stream`, `marker`, `event`, `cuda`: the methods of the classes. `fastcall`: faster entries to
//!   the most frequent of them. `measure`: `fencepost.measure` and its result.
//! - `span_record`, `trace`: `fencepost.Trace`, its spans and what it has collected. `fastspan`:
//!   faster entries to them.
//!
//! **The GIL** is released in every call that may block, record and wait included. No lock of this
//! crate is held while Python code runs. A lock that a thread may hold while it is blocked in a
//! driver is never taken with the GIL held, because the driver's progress may need Python.
#![allow(non_snake_case)]

// Links the stand-in for Metal.
#[cfg(metal_sim)]
use fencepost_sim_metal as _;
use pyo3::prelude::*;

mod arguments;
mod awaiting;
mod core;
mod correlation;
mod cuda;
mod cuda_class;
mod cuda_streams;
mod device;
mod dlpack;
mod elapsed;
mod error;
mod event;
mod exit;
mod fastcall;
mod fastspan;
#[cfg(feature = "testing")]
mod floors;
mod gate;
mod interprocess;
mod like;
mod marker;
mod measure;
mod mps;
mod objects;
mod opencl_queues;
mod place;
mod raised;
mod raw;
mod span_record;
mod stream;
mod time_keeper;
mod torch;
mod trace;
mod wait;
mod wait_many;

/// Run the command line, and return its exit code. The first of ``args`` is the program's name.
#[pyfunction]
fn _run(py: Python<'_>, args: Vec<std::ffi::OsString>) -> u8 {
    py.detach(|| fencepost_cli::run(args))
}

/// The native part of fencepost, and the functions that PyTorch's ``torch.mps.Event`` is written
/// against.
#[pymodule(gil_used = false)]
mod _C {
    use pyo3::prelude::*;

    #[pymodule_export]
    use super::{
        _run,
        device::{_cuda_count, _devices},
        gate::PyGate,
        measure::{_measurement, _plot, PyMeasurement, PyPlot, measure},
        mps::functions::{
            _mps_live_events, acquire, device_synchronize, elapsed_of, query_event, record,
            release, synchronize, synchronize_event, wait_for,
        },
        mps::stream::{_mps_current_stream, _mps_device, _mps_set_stream},
        mps::stream_base::{_mps_getCurrentStream, _mps_setStream, MpsStreamBase},
        objects::{PyCorrelation, PyDevice, PyEvent, PyHostTime, PyMarker, PyStream},
        place::locations,
        raised::close,
        span_record::{_span_record, PySpanRecord},
        stream::wrap_stream,
        time_keeper::PyTimeKeeper,
        trace::{_summary, PySpan, PySummary, PyTrace},
        wait_many::PyWaits,
    };
    use super::{
        cuda_class::cuda_event,
        fastcall, fastspan,
        mps::stream::MpsStream,
        objects::{CudaEvent, MpsEvent},
    };

    /// Adds the classes whose names would clash with others. Python modules export them under their
    /// own names.
    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        let py = module.py();
        crate::exit::check_interpreter()?;
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        crate::raised::install();
        fastcall::install(py)?;
        fastspan::install(py)?;
        module.add("_CudaEvent", cuda_event(py)?)?;
        module.add("_MpsEvent", py.get_type::<MpsEvent>())?;
        module.add("_MpsStream", py.get_type::<MpsStream>())?;
        // These are not in `__all__`. Pickle looks for the first.
        module.setattr("_CudaEventBase", py.get_type::<CudaEvent>())?;
        #[cfg(feature = "testing")]
        for_tests(module)?;
        Ok(())
    }

    /// Adds what only the package's own tests use.
    #[cfg(feature = "testing")]
    fn for_tests(module: &Bound<'_, PyModule>) -> PyResult<()> {
        let py = module.py();
        module.setattr("_Gate", py.get_type::<crate::gate::TestGate>())?;
        crate::floors::install(py)?;
        module.setattr("_Nothing", py.get_type::<crate::floors::_Nothing>())?;
        let bare_call = wrap_pyfunction!(crate::floors::_bare_call, module)?;
        module.setattr("_bare_call", bare_call)
    }
}
