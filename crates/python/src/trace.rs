//! `fencepost.Trace`, and the spans that it collects.

use std::{
    borrow::Cow,
    error::Error,
    io::{self, ErrorKind},
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use fencepost::{
    Stream, bindings,
    trace::{HostSpan, Options, Span, Summary, Trace, Value},
};
use pyo3::{
    exceptions::{PyOSError, PyOverflowError, PyRuntimeError, PyTypeError, PyValueError},
    intern,
    prelude::*,
    types::{PyBool, PyDict, PyFloat, PyInt, PyString, PyType},
};

use crate::{
    arguments::{Parameter, current_to_hold, device_of, with_stream},
    error::CallResult,
    measure::of_this_module,
    objects::PyDevice,
    place,
    span_record::{PySpanRecord, records},
};

/// Attributes as they were given.
pub(crate) type Attributes = Vec<(String, Value)>;

/// Collects spans: what ran when, on streams and on threads, on one axis.
///
/// ``capacity`` is how many finished spans are kept, a million by default; beyond that the oldest
/// is dropped for each new one. ``pending`` is how many spans of a stream may be begun and not
/// complete; beyond that new ones are dropped, so that a full queue of the driver never makes the
/// program wait. ``summary()`` counts what was dropped.
///
/// Tracing never makes a program fail, and never waits for the device. Waits between streams that
/// are made through this package become arrows. As a context manager it takes in what is complete
/// at the end of the block. It may be used on.
#[pyclass(frozen, weakref, name = "Trace", module = "fencepost")]
pub(crate) struct PyTrace(pub(crate) Trace);

#[pymethods]
impl PyTrace {
    #[new]
    #[pyo3(signature = (*, capacity = None, pending = None))]
    fn new(
        capacity: Option<&Bound<'_, PyAny>>,
        pending: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<PyTrace> {
        let mut options = Options::default();
        if let Some(capacity) = capacity {
            options = options.capacity(positive(capacity, "capacity")?);
        }
        if let Some(pending) = pending {
            options = options.pending(positive(pending, "pending")?);
        }
        Ok(PyTrace(Trace::with_options(options)))
    }

    /// Return a span of this name: ``with trace.span("load", stream): ...``, or a decorator, by
    /// which each call is a span.
    ///
    /// With ``stream`` it covers the work that is submitted to that stream in the block, by the
    /// device's clock. It takes a stream as ``Event.record`` does, or a device or its name, which
    /// stand for the device's current stream. Without one it is a span of the calling thread.
    ///
    /// Attributes are numbers and strings. Raises TypeError for others, and OverflowError for an
    /// int that does not fit into 64 bits. Lone surrogates in texts are replaced. An exception that
    /// leaves the block becomes the attribute ``exception``, which is the name of its class.
    #[pyo3(signature = (name, /, stream = None, **attributes))]
    fn span(
        slf: &Bound<'_, Self>,
        name: &Bound<'_, PyAny>,
        stream: Option<&Bound<'_, PyAny>>,
        attributes: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<PySpan> {
        let attributes = attributes_of("span", attributes)?;
        PySpan::new(slf, name, stream, attributes)
    }

    /// Mark a moment: on ``stream`` behind everything submitted to it so far, or without a stream
    /// on the calling thread. Streams and attributes are as in ``span``.
    #[pyo3(signature = (name, /, stream = None, **attributes))]
    fn instant(
        &self,
        py: Python<'_>,
        name: &Bound<'_, PyAny>,
        stream: Option<&Bound<'_, PyAny>>,
        attributes: Option<&Bound<'_, PyDict>>,
    ) -> CallResult {
        let name = text_of(name_of("instant", name)?);
        let attributes = attributes_of("instant", attributes)?;
        let Some(stream) = stream else {
            bindings::host_instant(&self.0, &name, attributes, || thread_name(py));
            return Ok(());
        };
        let at = place::of_record(py);
        on_stream(py, stream, "instant", |stream| {
            let attributes = attributes.clone();
            py.detach(|| bindings::instant_at(&self.0, &name, stream, attributes, at));
            Ok(())
        })
    }

    /// Write what there is to ``path``, in the format that its suffix names: ``.pftrace`` for
    /// Perfetto, ``.json`` for Chrome, ``.svg`` for a picture.
    ///
    /// ``path`` is a str, or an ``os.PathLike`` of str. Never waits for the device: work that is
    /// not complete is shown as unfinished. Raises ValueError for an unknown suffix, and OSError
    /// where the file cannot be written, with ``errno`` and ``filename``. Nothing is half-written,
    /// and the trace is kept.
    fn save(&self, py: Python<'_>, path: &Bound<'_, PyAny>) -> PyResult<()> {
        let path = path_of(path)?;
        let saved = py.detach(|| self.0.save(&path));
        saved.map_err(|error| unsaved(error, path))
    }

    /// Take in what is complete, and return how many spans are finished, failed, unfinished and
    /// dropped. Never waits for work.
    fn summary(&self, py: Python<'_>) -> PySummary {
        PySummary(py.detach(|| self.0.collect()))
    }

    /// Take in what is complete, and return a list of all that there is.
    ///
    /// Spans come in the order of track, then of start; an outer one is in front of those inside
    /// it. Behind them come the instants.
    fn spans(&self, py: Python<'_>) -> Vec<PySpanRecord> {
        py.detach(|| records(bindings::trace_entries(&self.0)))
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (kind, exception, traceback, /))]
    fn __exit__(
        &self,
        py: Python<'_>,
        kind: &Bound<'_, PyAny>,
        exception: &Bound<'_, PyAny>,
        traceback: &Bound<'_, PyAny>,
    ) -> bool {
        let _ = (kind, exception, traceback);
        self.summary(py);
        false
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        format!("<fencepost.Trace: {}>", py.detach(|| self.0.summary()))
    }
}

fn path_of(path: &Bound<'_, PyAny>) -> PyResult<PathBuf> {
    path.extract().map_err(|error: PyErr| {
        let is_type = error.is_instance_of::<PyTypeError>(path.py());
        match is_type {
            true => {
                Parameter::new("save", "path").expected("a str, or an os.PathLike of str", path)
            }
            false => error,
        }
    })
}

/// The error of a save. What the system says of a file has a number, by which `OSError` picks its
/// subclass.
#[cold]
fn unsaved(error: io::Error, path: PathBuf) -> PyErr {
    let source = error.source().and_then(|source| source.downcast_ref());
    let number = source.and_then(io::Error::raw_os_error);
    let (text, path) = (error.to_string(), path.into_os_string());
    match number {
        // The fourth is the number that Windows has for it, and stands in for the first
        // (https://docs.python.org/3/library/exceptions.html#OSError).
        Some(number) if cfg!(windows) => PyOSError::new_err((0, text, path, number)),
        Some(number) => PyOSError::new_err((number, text, path)),
        None if error.kind() == ErrorKind::InvalidInput => PyValueError::new_err(text),
        None => error.into(),
    }
}

fn positive(number: &Bound<'_, PyAny>, argument: &'static str) -> PyResult<usize> {
    let parameter = Parameter::new("Trace", argument);
    match number.extract::<i64>() {
        Ok(positive @ 1..) => Ok(usize::try_from(positive).unwrap_or(usize::MAX)),
        Err(error) if error.is_instance_of::<PyTypeError>(number.py()) => {
            Err(parameter.expected("a positive int", number))
        }
        _ => Err(PyValueError::new_err(format!(
            "{parameter}: expected a positive number of at most 63 bits; got {number}"
        ))),
    }
}

/// A span: what ``Trace.span`` returns. It begins where its block begins, and ends where that ends.
///
/// ``with`` may use it again once it has ended. As a decorator it makes a span of each call, also
/// of calls at the same time. Called functions may be coroutines and generators; their spans last
/// until they are over.
#[pyclass(frozen, weakref, name = "Span", module = "fencepost")]
pub(crate) struct PySpan {
    trace: Py<PyTrace>,
    name: Py<PyString>,
    stream: Option<Py<PyAny>>,
    attributes: Attributes,
    open: Mutex<Option<Open>>,
}

enum Open {
    Stream(Span<'static>),
    Thread(HostSpan<'static>),
}

impl PySpan {
    #[inline]
    pub(crate) fn new(
        trace: &Bound<'_, PyTrace>,
        name: &Bound<'_, PyAny>,
        stream: Option<&Bound<'_, PyAny>>,
        attributes: Attributes,
    ) -> PyResult<PySpan> {
        Ok(PySpan {
            trace: trace.clone().unbind(),
            name: name_of("span", name)?.clone().unbind(),
            stream: stream.map(|stream| stream.clone().unbind()),
            attributes,
            open: Mutex::new(None),
        })
    }

    /// No Python code runs while this is locked.
    fn open(&self) -> MutexGuard<'_, Option<Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[inline]
    fn begin(&self, py: Python<'_>) -> CallResult {
        if self.open().is_some() {
            return Err(already_open().into());
        }
        let trace = &self.trace.get().0;
        let name = text_of(self.name.bind(py));
        let open = match &self.stream {
            None => Open::Thread(self.begin_on_thread(py, trace, &name)),
            Some(stream) => {
                let at = place::of_record(py);
                let begin = |stream: &Stream| {
                    let span = bindings::span_at(trace, &name, stream, at);
                    for (name, value) in &self.attributes {
                        span.add(name, value.clone());
                    }
                    span
                };
                let begin = |stream: &Stream| Ok(py.detach(|| begin(stream)));
                Open::Stream(on_stream(py, stream.bind(py), "span", begin)?)
            }
        };
        // Threads that begin one span at once: the other one ends here.
        let other = self.open().replace(open);
        end(py, other);
        Ok(())
    }

    fn begin_on_thread(&self, py: Python<'_>, trace: &Trace, name: &str) -> HostSpan<'static> {
        let mut span = bindings::host_span(trace, name, || thread_name(py));
        for (name, value) in &self.attributes {
            span.add(name, value.clone());
        }
        span
    }

    /// Ends the span. `kind` is the class of the exception that leaves the block, or None.
    #[inline]
    pub(crate) fn exit(&self, py: Python<'_>, kind: &Bound<'_, PyAny>) {
        let open = self.open().take();
        let open = match kind.is_none() {
            true => open,
            false => open.map(|open| open.raised(kind)),
        };
        end(py, open);
    }
}

/// Ends a span, if there is one. A record may block in the driver, so the GIL is released for it.
#[inline]
fn end(py: Python<'_>, open: Option<Open>) {
    match open {
        None => {}
        Some(Open::Thread(span)) => span.end(),
        Some(Open::Stream(span)) => py.detach(|| span.end()),
    }
}

impl Open {
    fn add(&mut self, name: &str, value: Value) {
        match self {
            Open::Stream(span) => span.add(name, value),
            Open::Thread(span) => span.add(name, value),
        }
    }

    #[cold]
    fn raised(mut self, kind: &Bound<'_, PyAny>) -> Open {
        let name = kind.cast::<PyType>().ok().and_then(|kind| kind.name().ok());
        if let Some(name) = name {
            self.add("exception", name.to_string().into());
        }
        self
    }
}

#[cold]
fn already_open() -> PyErr {
    PyRuntimeError::new_err("this span has begun and not ended; Trace.span() makes another one")
}

#[pymethods]
impl PySpan {
    /// Add attributes to the span, which has begun and not ended: ``span.add(tokens=17)``.
    ///
    /// Raises RuntimeError for one that has not begun, or has ended.
    #[pyo3(signature = (**attributes))]
    fn add(&self, attributes: Option<&Bound<'_, PyDict>>) -> PyResult<()> {
        let attributes = attributes_of("add", attributes)?;
        let mut open = self.open();
        let Some(open) = &mut *open else {
            return Err(PyRuntimeError::new_err(
                "this span has not begun, or has ended; give attributes to Trace.span()",
            ));
        };
        for (name, value) in attributes {
            open.add(&name, value);
        }
        Ok(())
    }

    /// Return a span like this one that has not begun.
    fn _again(&self, py: Python<'_>) -> PySpan {
        PySpan {
            trace: self.trace.clone_ref(py),
            name: self.name.clone_ref(py),
            stream: self.stream.as_ref().map(|stream| stream.clone_ref(py)),
            attributes: self.attributes.clone(),
            open: Mutex::new(None),
        }
    }

    fn __call__<'py>(
        slf: &Bound<'py, Self>,
        function: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let tracing = slf.py().import(intern!(slf.py(), "fencepost._tracing"))?;
        tracing.call_method1(intern!(slf.py(), "decorate"), (slf, function))
    }

    fn __enter__(slf: &Bound<'_, Self>) -> CallResult<Py<Self>> {
        slf.get().begin(slf.py())?;
        Ok(slf.clone().unbind())
    }

    /// End the span.
    #[pyo3(signature = (kind, exception, traceback, /))]
    fn __exit__(
        &self,
        py: Python<'_>,
        kind: &Bound<'_, PyAny>,
        exception: &Bound<'_, PyAny>,
        traceback: &Bound<'_, PyAny>,
    ) -> bool {
        let _ = (exception, traceback);
        self.exit(py, kind);
        false
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let state = match self.open().is_some() {
            true => "open",
            false => "not open",
        };
        let name = self.name.bind(py).repr()?;
        Ok(format!("<fencepost.Span {name}, {state}>"))
    }
}

impl Drop for PySpan {
    /// One that nobody has ended ends here.
    fn drop(&mut self) {
        let open = self.open().take();
        if open.is_some() {
            Python::try_attach(|py| end(py, open));
        }
    }
}

/// How many spans a trace has: what ``Trace.summary()`` returns.
#[pyclass(frozen, name = "Summary", module = "fencepost")]
pub(crate) struct PySummary(Summary);

#[pymethods]
impl PySummary {
    /// How many spans and instants are complete.
    #[getter]
    fn finished(&self) -> usize {
        self.0.finished
    }

    /// How many did not complete because their stream failed.
    #[getter]
    fn failed(&self) -> usize {
        self.0.failed
    }

    /// How many spans of streams are not over, or not known to be.
    #[getter]
    fn unfinished(&self) -> usize {
        self.0.unfinished
    }

    /// How many could not be recorded, or are not kept any more.
    #[getter]
    fn dropped(&self) -> u64 {
        self.0.dropped
    }

    /// Why the first span was dropped that could not be recorded; None if none was.
    #[getter]
    fn first_error(&self) -> Option<&str> {
        self.0.first_error.as_deref()
    }

    /// It can be pickled, and so be sent to another process.
    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, PickledSummary)> {
        let by_state = (self.0.finished, self.0.failed, self.0.unfinished);
        let missing = (self.0.dropped, self.0.lost);
        let error = self.0.first_error.clone();
        Ok((of_this_module(py, "_summary")?, (by_state, missing, error)))
    }

    fn __str__(&self) -> String {
        self.0.to_string()
    }

    fn __repr__(&self) -> String {
        format!("<fencepost.Summary: {}>", self.0)
    }
}

type PickledSummary = ((usize, usize, usize), (u64, u64), Option<String>);

/// Return the summary that was pickled as this.
#[pyfunction]
pub(crate) fn _summary(
    by_state: (usize, usize, usize),
    missing: (u64, u64),
    first_error: Option<String>,
) -> PySummary {
    PySummary(bindings::summary_of(by_state, missing, first_error))
}

/// Calls `f` with the stream that an argument means.
#[inline]
fn on_stream<R>(
    py: Python<'_>,
    object: &Bound<'_, PyAny>,
    call: &'static str,
    f: impl Fn(&Stream) -> CallResult<R>,
) -> CallResult<R> {
    let parameter = Parameter::new(call, "stream");
    if object.is_exact_instance_of::<PyDevice>() || object.is_instance_of::<PyString>() {
        let device = device_of(py, Some(object), parameter)?;
        let stream = current_to_hold(py, &device, "tracing")?;
        return f(&stream);
    }
    with_stream(py, object, parameter, f)
}

#[inline]
fn name_of<'a, 'py>(
    call: &'static str,
    name: &'a Bound<'py, PyAny>,
) -> PyResult<&'a Bound<'py, PyString>> {
    match name.cast::<PyString>() {
        Ok(name) => Ok(name),
        Err(_) => Err(Parameter::new(call, "name").expected("a str", name)),
    }
}

/// A text as Rust has it, which knows no lone surrogates: they are replaced, since a trace never
/// makes a program fail.
#[inline]
fn text_of<'a>(text: &'a Bound<'_, PyString>) -> Cow<'a, str> {
    // The first is the faster one.
    text.to_cow().unwrap_or_else(|_| text.to_string_lossy())
}

pub(crate) fn attributes_of(
    call: &'static str,
    attributes: Option<&Bound<'_, PyDict>>,
) -> PyResult<Attributes> {
    let attributes = attributes.into_iter().flatten();
    attributes
        .map(|(name, value)| attribute_of(call, name.cast()?, &value))
        .collect()
}

/// An attribute that a call was given.
pub(crate) fn attribute_of(
    call: &'static str,
    name: &Bound<'_, PyString>,
    value: &Bound<'_, PyAny>,
) -> PyResult<(String, Value)> {
    let name = text_of(name).into_owned();
    let value = if let Ok(text) = value.cast::<PyString>() {
        Value::Text(text_of(text).into_owned())
    } else if let Ok(truth) = value.cast::<PyBool>() {
        Value::Bool(truth.is_true())
    } else if let Ok(number) = value.cast::<PyInt>() {
        let signed = number.extract().map(Value::Signed);
        let number = signed.or_else(|_| number.extract().map(Value::Unsigned));
        number.map_err(|_| {
            let text = "a number that fits into 64 bits, or a str";
            PyOverflowError::new_err(format!("{call}() attribute '{name}': expected {text}"))
        })?
    } else if let Ok(number) = value.cast::<PyFloat>() {
        Value::Float(number.value())
    } else {
        let got = value.get_type().fully_qualified_name()?;
        return Err(PyTypeError::new_err(format!(
            "{call}() attribute '{name}': expected an int, a float, a bool or a str; got {got}"
        )));
    };
    Ok((name, value))
}

/// The name that Python has for the calling thread.
#[cold]
fn thread_name(py: Python<'_>) -> Option<String> {
    let threading = py.import(intern!(py, "threading")).ok()?;
    let thread = threading.call_method0(intern!(py, "current_thread")).ok()?;
    let name = thread.getattr(intern!(py, "name")).ok()?;
    Some(text_of(name.cast().ok()?).into_owned())
}
