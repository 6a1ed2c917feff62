//! `fencepost.Device`.

use std::{
    collections::hash_map::DefaultHasher,
    hash::{Hash as _, Hasher as _},
    sync::OnceLock,
    time::{Duration, Instant},
};

use fencepost::{Device, Error, bindings};
use pyo3::{
    exceptions::{PyTypeError, PyValueError},
    prelude::*,
};

use crate::{
    current,
    error::to_py,
    stream::PyStream,
    wait::{How, limit, wait},
};

/// An accelerator: ``host``, ``cuda:0``, ``vulkan:0``, ``metal``.
///
/// ``Device()`` is the best one there is, or the one that the environment variable
/// ``FENCEPOST_DEVICE`` names. It is opened when it is first used. ``str(device)`` is its name, and
/// two of one name are equal.
///
/// Raises ValueError for a name that no device here has.
#[pyclass(frozen, name = "Device", module = "fencepost")]
pub(crate) struct PyDevice {
    name: String,
    opened: OnceLock<Device>,
}

impl PyDevice {
    pub(crate) fn of(device: Device) -> PyDevice {
        PyDevice {
            name: device.name().into(),
            opened: OnceLock::from(device),
        }
    }

    pub(crate) fn open(&self, py: Python<'_>) -> PyResult<&Device> {
        if let Some(device) = self.opened.get() {
            return Ok(device);
        }
        // Making a context on a GPU takes long.
        let device = py.detach(|| Device::open(&self.name)).map_err(to_py)?;
        Ok(self.opened.get_or_init(|| device))
    }
}

/// The device that an argument means: a `Device`, a name, a `torch.device`; the best one for
/// `None`.
pub(crate) fn device_of(py: Python<'_>, given: Option<&Bound<'_, PyAny>>) -> PyResult<Device> {
    let Some(given) = given else {
        return py.detach(Device::open_best).map_err(to_py);
    };
    if let Ok(device) = given.cast::<PyDevice>() {
        return device.get().open(py).cloned();
    }
    let name = name_of(given)?;
    py.detach(|| Device::open(&name)).map_err(to_py)
}

fn name_of(given: &Bound<'_, PyAny>) -> PyResult<String> {
    // A torch.device says its name as str, but is none.
    let is_name = given.cast::<pyo3::types::PyString>().is_ok()
        || (given.hasattr("type")? && given.hasattr("index")?);
    if !is_name {
        return Err(PyTypeError::new_err(format!(
            "expected a device: a fencepost.Device, a name such as \"cuda:0\", or a torch.device; got {}",
            given.get_type().name()?
        )));
    }
    let name = given.str()?.to_string();
    Ok(match name.as_str() {
        "cpu" => "host".into(),
        "mps" | "mps:0" => "metal".into(),
        _ => name,
    })
}

#[pymethods]
impl PyDevice {
    #[new]
    #[pyo3(signature = (name = None))]
    fn new(py: Python<'_>, name: Option<&Bound<'_, PyAny>>) -> PyResult<PyDevice> {
        device_of(py, name).map(PyDevice::of)
    }

    /// The name by which it is opened.
    #[getter]
    fn name(&self) -> &str {
        &self.name
    }

    /// The API it is reached through: ``host``, ``cuda``, ``vulkan`` or ``metal``.
    #[getter]
    fn backend(&self, py: Python<'_>) -> PyResult<&'static str> {
        Ok(self.open(py)?.backend().name())
    }

    /// The clock that its times are read from, in words.
    #[getter]
    fn clock(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.open(py)?.clock().to_string())
    }

    /// A new stream: in order within itself, unordered against all others.
    fn stream(&self, py: Python<'_>) -> PyResult<PyStream> {
        let device = self.open(py)?;
        let stream = py.detach(|| device.new_stream()).map_err(to_py)?;
        Ok(PyStream::of(stream))
    }

    /// The stream that exists from the start; the same one each time.
    fn default_stream(&self, py: Python<'_>) -> PyResult<PyStream> {
        Ok(PyStream::of(self.open(py)?.default_stream()))
    }

    /// Blocks until everything submitted so far to any of its streams is done.
    ///
    /// With a ``timeout`` in seconds it gives up with a TimeoutError that says what it waited for.
    /// Other threads go on meanwhile, and Ctrl-C ends the wait. Raises RuntimeError for the first
    /// stream that failed, after all were waited for.
    #[pyo3(signature = (timeout = None))]
    fn synchronize(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<()> {
        synchronize(py, self.open(py)?, limit(timeout)?)
    }

    fn __str__(&self) -> &str {
        &self.name
    }

    fn __repr__(&self) -> String {
        format!("fencepost.Device({:?})", self.name)
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other
            .cast::<PyDevice>()
            .is_ok_and(|other| other.get().name == self.name)
    }

    fn __hash__(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.name.hash(&mut hasher);
        hasher.finish()
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> (Bound<'py, PyAny>, (String,)) {
        (slf.get_type().into_any(), (slf.get().name.clone(),))
    }
}

/// Blocks until all streams of `device` are done with what they have.
pub(crate) fn synchronize(
    py: Python<'_>,
    device: &Device,
    limit: Option<Duration>,
) -> PyResult<()> {
    // Streams of others that we remember may be gone; these we must not record on.
    current::forget_wrapped();
    let start = Instant::now();
    let mut first = Ok(());
    for marker in py.detach(|| bindings::record_all(device)) {
        let waited = marker.map_err(to_py).and_then(|marker| {
            let left = limit.map(|limit| limit.saturating_sub(start.elapsed()));
            wait(py, &marker, device.backend(), left, How::Sleep)
        });
        if let Err(error) = &waited
            && error.is_instance_of::<pyo3::exceptions::PyKeyboardInterrupt>(py)
        {
            return waited;
        }
        first = first.and(waited);
    }
    first
}

/// The devices of this machine, the one to prefer first. None of them is opened.
#[pyfunction]
pub(crate) fn devices(py: Python<'_>) -> Vec<PyDevice> {
    let found = py.detach(Device::list).into_iter();
    let names = found.flat_map(|found| found.devices);
    let unopened = |name| PyDevice {
        name,
        opened: OnceLock::new(),
    };
    names.map(unopened).collect()
}

/// The device of a CUDA index or of what names a CUDA device: an index, a name, a torch.device.
pub(crate) fn cuda_device_of(py: Python<'_>, given: &Bound<'_, PyAny>) -> PyResult<Device> {
    let name = match given.extract::<i64>() {
        Ok(index) => format!("cuda:{index}"),
        Err(_) => return device_of(py, Some(given)).and_then(only_cuda),
    };
    py.detach(|| Device::open(&name)).map_err(to_py)
}

fn only_cuda(device: Device) -> PyResult<Device> {
    match device.backend() {
        fencepost::Backend::Cuda => Ok(device),
        _ => Err(PyValueError::new_err(format!(
            "expected a CUDA device such as \"cuda:0\"; got {}",
            device.name()
        ))),
    }
}

/// The index of a CUDA device, where its name has one.
pub(crate) fn cuda_index(device: &Device) -> Option<usize> {
    device.name().strip_prefix("cuda:")?.parse().ok()
}

/// An error for what only CUDA's devices have.
pub(crate) fn cuda_only(what: &str, device: &Device) -> Error {
    Error::Unsupported {
        what: what.into(),
        device: device.name().into(),
        remedy: "use it with a device whose name begins with cuda".into(),
    }
}
