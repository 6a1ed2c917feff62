//! `fencepost.measure`, and what it returns.

use std::time::Duration;

use fencepost::{
    Backend,
    bindings::{self, MeasurementParts},
    measure::{Measure, Measurement},
};
use pyo3::{exceptions::PyValueError, intern, prelude::*, types::PyBytes};

use crate::{
    arguments::{Parameter, current_to_hold, device_of, stream_of},
    cuda_streams::{StreamRef, current},
    torch,
    wait::{Ended, duration_of},
};

/// Why a stream is not held. A profiler follows each launch, and may wait for the device in it.
const PROFILER: &str = "PyTorch's profiler is on";

/// Measure how long one call of ``fn`` takes on the device, on the device's own clock.
///
/// ``fn`` takes no arguments and queues the work of one call on ``stream``, by default the current
/// one: PyTorch's where PyTorch uses CUDA, otherwise the default stream of the best device. It is
/// called some dozens to thousands of times. Samples are taken for ``budget`` seconds at most, or
/// until the median is known within 1 %; the warm-up comes on top. With ``cold``, memory larger
/// than the device's cache is written before each call, which does not count; on the host, CUDA and
/// OpenCL.
///
/// The stream is held while calls are queued, so the result does not depend on how fast Python is.
/// Where it cannot be held, because ``fn`` waits for the device, a profiler is attached from
/// outside or PyTorch's is on, the result says so.
///
/// An exception in ``fn`` is raised, and the stream is let go. One that took long to come, as from
/// a deadline, is raised only if it recurs on a stream that is not held. Raises ValueError for a
/// budget that is no positive number, NotImplementedError for a stream that is being captured into
/// a graph.
#[pyfunction]
#[pyo3(
    signature = (r#fn, stream = None, *, budget = Budget(Duration::from_millis(200)), cold = false),
    text_signature = "(fn, stream=None, *, budget=0.2, cold=False)"
)]
pub(crate) fn measure(
    py: Python<'_>,
    r#fn: &Bound<'_, PyAny>,
    stream: Option<&Bound<'_, PyAny>>,
    budget: Budget,
    cold: bool,
) -> PyResult<PyMeasurement> {
    if !r#fn.is_callable() {
        return Err(Parameter::new("measure", "fn").expected("a callable", r#fn));
    }
    let stream = match stream {
        Some(stream) => stream_of(py, stream, Parameter::new("measure", "stream"))?,
        None => (*current_stream(py)?).clone(),
    };
    let call = r#fn.clone().unbind();
    let ungated = match stream.device().backend() {
        Backend::Cuda => torch::is_profiling(py)?.then(|| PROFILER.to_owned()),
        _ => None,
    };
    let found = py.detach(|| {
        let measure = Measure::new(&stream).budget(budget.0).cold(cold);
        let raised = |result: PyResult<()>| result.map_err(Ended::Raised);
        let mut call = || raised(Python::attach(|py| call.call0(py).map(drop)));
        let mut look = || raised(Python::attach(|py| py.check_signals()));
        bindings::measure(&measure, &mut call, &mut look, ungated)
    });
    Ok(PyMeasurement(found?))
}

/// What the argument `budget` means.
pub(crate) struct Budget(Duration);

impl FromPyObject<'_, '_> for Budget {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, '_, PyAny>) -> PyResult<Budget> {
        const EXPECTED: &str = "budget must be a positive number of seconds";
        match duration_of(&object, EXPECTED)? {
            Some(budget) if !budget.is_zero() => Ok(Budget(budget)),
            _ => Err(PyValueError::new_err(format!(
                "{EXPECTED}; got {}",
                object.str()?
            ))),
        }
    }
}

/// The stream that is current for a call without one.
fn current_stream(py: Python<'_>) -> PyResult<StreamRef> {
    if torch::cuda_in_use(py)?.is_some() {
        return current(py, None);
    }
    let device = device_of(py, None, Parameter::new("measure", "stream"))?;
    current_to_hold(py, &device, "measuring on")
}

/// How long one call takes on the device: what ``fencepost.measure`` returns.
///
/// All times are seconds. Times that are zero or negative are kept as they were measured. In a
/// notebook it shows its text and its histogram.
#[pyclass(frozen, weakref, name = "Measurement", module = "fencepost")]
pub(crate) struct PyMeasurement(Measurement);

#[pymethods]
impl PyMeasurement {
    /// The median of ``samples``: what one call takes among others in a row.
    #[getter]
    fn median(&self) -> f64 {
        self.0.median()
    }

    /// The pair of times between which the median lies with a probability of at least 95 %; None
    /// with fewer than six samples.
    #[getter]
    fn interval(&self) -> Option<(f64, f64)> {
        self.0.interval()
    }

    /// What a single call takes, less what an empty pair of events takes.
    #[getter]
    fn alone(&self) -> f64 {
        self.0.alone()
    }

    /// One number for each sample, in the order in which they were taken: an ``array.array`` of
    /// doubles. Each is the difference between a short and a long run of calls, divided by the
    /// difference of their numbers; with ``cold`` a single call less an empty pair.
    #[getter]
    fn samples<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let bytes: Vec<u8> = self
            .0
            .samples()
            .iter()
            .flat_map(|sample| sample.to_ne_bytes())
            .collect();
        let array = py.import(intern!(py, "array"))?;
        array.call_method1(intern!(py, "array"), ("d", PyBytes::new(py, &bytes)))
    }

    /// How many calls are in the short and in the long run of a sample.
    #[getter]
    fn calls(&self) -> (usize, usize) {
        self.0.calls()
    }

    /// Whether the stream was held while the calls were queued. If not, ``notes`` says why.
    #[getter]
    fn gated(&self) -> bool {
        self.0.is_gated()
    }

    /// What there is to know before a figure is quoted, a sentence each; empty where all is well.
    #[getter]
    fn notes(&self) -> Vec<String> {
        self.0.notes().iter().map(ToString::to_string).collect()
    }

    /// Return the time that the share ``q`` of the samples lies below, interpolated.
    ///
    /// Raises ValueError for a ``q`` that is not from 0 to 1.
    fn quantile(&self, q: f64) -> PyResult<f64> {
        let wrong = || PyValueError::new_err(format!("q must be from 0 to 1; got {q}"));
        self.0.quantile(q).ok_or_else(wrong)
    }

    /// Return a histogram of the samples: an SVG image, which a notebook shows, and ``str`` gives.
    fn plot(&self) -> PyPlot {
        PyPlot(self.0.to_svg())
    }

    /// It can be pickled, and so be sent to another process.
    fn __reduce__<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<(Bound<'py, PyAny>, PickledMeasurement)> {
        let parts = MeasurementParts::from(&self.0);
        let flags = (parts.ungated, parts.is_idle);
        let numbers = (parts.samples, parts.alone, parts.calls, parts.took);
        Ok((
            of_this_module(py, "_measurement")?,
            (numbers, flags, parts.stream),
        ))
    }

    fn __repr__(&self) -> String {
        self.0.to_string()
    }

    fn _repr_html_(&self) -> String {
        let text = self.0.to_string();
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        format!("<pre>{text}</pre>{}", self.0.to_svg())
    }
}

type PickledMeasurement = (
    (Vec<f64>, f64, (usize, usize), f64),
    (Option<String>, bool),
    String,
);

/// Return the measurement that was pickled as this.
#[pyfunction]
pub(crate) fn _measurement(
    numbers: (Vec<f64>, f64, (usize, usize), f64),
    flags: (Option<String>, bool),
    stream: String,
) -> PyMeasurement {
    let (samples, alone, calls, took) = numbers;
    let (ungated, is_idle) = flags;
    PyMeasurement(Measurement::from(MeasurementParts {
        samples,
        alone,
        calls,
        ungated,
        is_idle,
        stream,
        took,
    }))
}

/// A function of the module by which pickle makes an object again.
pub(crate) fn of_this_module<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    py.import(intern!(py, "fencepost._C"))?.getattr(name)
}

/// A histogram: what ``Measurement.plot()`` returns. ``str(plot)`` is the SVG image.
#[pyclass(frozen, name = "Plot", module = "fencepost")]
pub(crate) struct PyPlot(String);

#[pymethods]
impl PyPlot {
    fn __str__(&self) -> &str {
        &self.0
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, (&str,))> {
        Ok((of_this_module(py, "_plot")?, (&self.0,)))
    }

    fn _repr_svg_(&self) -> &str {
        &self.0
    }

    fn __repr__(&self) -> String {
        format!(
            "<fencepost.Plot: SVG, {} bytes; str() gives it>",
            self.0.len()
        )
    }
}

/// Return the histogram that was pickled as this.
#[pyfunction]
pub(crate) fn _plot(svg: String) -> PyPlot {
    PyPlot(svg)
}
