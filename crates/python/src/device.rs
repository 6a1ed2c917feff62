//! The methods of `fencepost.Device`.

use std::{
    borrow::Cow,
    collections::hash_map::DefaultHasher,
    hash::{Hash as _, Hasher as _},
};

use fencepost::{Device, HostOptions, bindings};
use pyo3::{
    exceptions::{PyTypeError, PyValueError},
    prelude::*,
};

use crate::{
    arguments::{Name, Parameter, device_of},
    cuda_streams::forget_wrapped,
    error::to_py,
    objects::{PyCorrelation, PyDevice, PyStream},
    place,
    time_keeper::PyTimeKeeper,
    wait::{Ended, Limit, WaitMode, correlate, limit, wait},
};

#[pymethods]
impl PyDevice {
    #[new]
    #[pyo3(signature = (name = None))]
    fn new(py: Python<'_>, name: Option<&Bound<'_, PyAny>>) -> PyResult<PyDevice> {
        device_of(py, name, Parameter::new("Device", "name")).map(PyDevice::of)
    }

    /// The name by which it is opened.
    #[getter]
    fn name(&self) -> &str {
        &self.name
    }

    /// What its streams are called in texts behind its name; None while it has none. May be set.
    ///
    /// Devices with the same name are equal whatever their labels are, and pickling leaves it out.
    #[getter]
    fn label(&self, py: Python<'_>) -> PyResult<Option<String>> {
        Ok(self.open(py)?.label())
    }

    #[setter]
    fn set_label(&self, py: Python<'_>, label: Option<Name>) -> PyResult<()> {
        let label = label.map_or_else(String::new, |label| label.0);
        self.open(py)?.set_label(&label);
        Ok(())
    }

    /// The API it is reached through: ``host``, ``cuda``, ``vulkan``, ``opencl`` or
    /// ``metal``.
    #[getter]
    fn backend(&self, py: Python<'_>) -> PyResult<&'static str> {
        Ok(self.open(py)?.backend().name())
    }

    /// The clock that its times are read from, in words.
    #[getter]
    fn clock(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.open(py)?.clock().to_string())
    }

    /// The 16 bytes of the GPU's UUID, the same for its devices of all backends; None on the host
    /// and on Metal.
    #[getter]
    fn uuid(&self, py: Python<'_>) -> PyResult<Option<Cow<'static, [u8]>>> {
        let uuid = self.open(py)?.uuid();
        Ok(uuid.map(|uuid| Cow::Owned(uuid.to_vec())))
    }

    /// Return a new host device with ``workers`` threads of its own. The device ``host`` shares its
    /// threads with the whole process.
    ///
    /// At most ``workers`` pieces of work run at once. Work that blocks does not count: other
    /// threads take its place, up to ``max_threads`` in all (by default 4,096). Once that many are
    /// blocked, no other work starts until one of them returns.
    ///
    /// It belongs to this process: it cannot be pickled, and no other device has its name.
    ///
    /// Raises ValueError for less than one worker, and for fewer threads than workers.
    #[staticmethod]
    #[pyo3(signature = (workers, *, max_threads = None))]
    fn new_host(py: Python<'_>, workers: i64, max_threads: Option<i64>) -> PyResult<PyDevice> {
        let number = |parameter: Parameter, number: i64, least: usize| {
            let number = usize::try_from(number).ok().filter(|n| *n >= least);
            number.ok_or_else(|| {
                PyValueError::new_err(format!("{parameter}: expected at least {least}"))
            })
        };
        let workers = number(Parameter::new("new_host", "workers"), workers, 1)?;
        let mut options = HostOptions::new(workers);
        if let Some(most) = max_threads {
            let parameter = Parameter::new("new_host", "max_threads");
            options = options.max_threads(number(parameter, most, workers)?);
        }
        Ok(PyDevice::of(py.detach(|| Device::new_host_with(options))))
    }

    /// Make a new stream. It is in order within itself, and unordered against all other streams.
    fn stream(&self, py: Python<'_>) -> PyResult<PyStream> {
        let device = self.open(py)?;
        let stream = py.detach(|| device.new_stream()).map_err(to_py)?;
        Ok(PyStream::of(stream))
    }

    /// Return the stream that exists from the start, the same one each time.
    fn default_stream(&self, py: Python<'_>) -> PyResult<PyStream> {
        Ok(PyStream::of(self.open(py)?.default_stream()))
    }

    /// Read the device's clock beside the host's, for ``Marker.host_time()``, and return that as a
    /// ``Correlation``.
    ///
    /// It blocks for some 50 to 100 µs on a GPU. On CUDA it waits for a stream of its own alone; on
    /// Vulkan without calibrated timestamps it waits for what is on its hardware queue. Raises
    /// NotImplementedError for a device without timestamps, and TimeoutError after ten seconds.
    /// Ctrl-C ends the wait.
    fn correlate(&self, py: Python<'_>) -> PyResult<PyCorrelation> {
        Ok(PyCorrelation(correlate(py, self.open(py)?)?))
    }

    /// Block until everything submitted so far to any of its streams is done.
    ///
    /// After ``timeout`` seconds it raises TimeoutError, which says what it waited for. Other
    /// threads keep running meanwhile, and Ctrl-C ends the wait. If streams have failed, it raises
    /// RuntimeError for the first of them, after it has waited for all.
    #[pyo3(signature = (timeout = None))]
    fn synchronize(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        synchronize_device(py, self.open(py)?, limit(timeout)?)
    }

    /// Keep long times of this device exact, until what it returns is closed.
    ///
    /// CUDA's times are an ``f32`` of milliseconds, off by half a microsecond at 16 s and by 0.12
    /// ms at an hour. Meanwhile a thread records an event each 200 ms on a stream of its own, and
    /// times between events that are recorded within are known within a microsecond. On all other
    /// devices times are exact anyway, and it does nothing.
    ///
    /// >>> import fencepost
    /// >>> with fencepost.Device("host").keep_time() as keeper:
    /// ...     print(keeper.device)
    /// host
    fn keep_time(&self, py: Python<'_>) -> PyResult<PyTimeKeeper> {
        let device = self.open(py)?;
        let keeper = py.detach(|| device.keep_time()).map_err(to_py)?;
        Ok(PyTimeKeeper::of(keeper))
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

    /// The device itself, which never changes.
    fn __copy__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    /// The device itself, which never changes.
    fn __deepcopy__<'py>(slf: Bound<'py, Self>, _memo: &Bound<'py, PyAny>) -> Bound<'py, Self> {
        slf
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyAny>, (String,))> {
        let device = slf.get();
        // The names of `new_host`, which no other process knows.
        match device.name.starts_with("host#") {
            true => Err(PyTypeError::new_err(format!(
                "{} belongs to this process and cannot be pickled; make one there with \
                 Device.new_host()",
                device.name
            ))),
            false => Ok((slf.get_type().into_any(), (device.name.clone(),))),
        }
    }
}

pub(crate) fn synchronize_device(py: Python<'_>, device: &Device, limit: Limit) -> PyResult<()> {
    // A wrapped stream of another library may have been destroyed, and must not be recorded on.
    forget_wrapped();
    let mut first = Ok(());
    let at = place::of_caller(py);
    for marker in py.detach(|| bindings::record_all(device, at)) {
        let waited = match marker {
            Ok(marker) => wait(py, &marker, device.backend(), limit, WaitMode::Sleep),
            Err(error) => Err(Ended::Failed(error)),
        };
        match waited {
            Ok(()) => {}
            Err(Ended::Failed(error)) => first = first.and(Err(error)),
            Err(raised @ Ended::Raised(_)) => return Err(raised.into()),
        }
    }
    first.map_err(to_py)
}

/// Return the devices of these names. None of them is opened. Without names: those of this machine,
/// the preferred one first; that initialises drivers in this process.
#[pyfunction]
#[pyo3(signature = (names = None))]
pub(crate) fn _devices(py: Python<'_>, names: Option<Vec<String>>) -> Vec<PyDevice> {
    let listed = || {
        let found = py.detach(Device::list).into_iter();
        found.flat_map(|found| found.devices).collect()
    };
    let names = names.unwrap_or_else(listed);
    names.into_iter().map(PyDevice::unopened).collect()
}

/// Return how many CUDA devices there are, without initialising the driver; None where only the
/// driver can tell.
#[pyfunction]
pub(crate) fn _cuda_count(py: Python<'_>) -> Option<usize> {
    py.detach(bindings::cuda_count_uninitialised)
}
