//! `fencepost.mps` and the native functions that PyTorch's own `torch.mps.Event` is written
//! against.
//!
//! Streams are those of a pool of 32, made when they are first used and kept for ever, as PyTorch's
//! are: so a stream's number names it for good. Number 0 is the default stream.

use std::{
    cell::Cell,
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use fencepost::{Device, Stream};
use pyo3::{
    exceptions::{PyRuntimeError, PyTypeError},
    intern,
    prelude::*,
    sync::PyOnceLock,
    types::{PyBool, PyInt},
};

use crate::{
    core::{Core, Flags},
    device,
    error::{to_py, to_py_mps},
    event::core_of,
    torch_mps,
    wait::{How, limit, wait},
};

/// How many streams there are beside the default one.
const POOL: usize = 32;

struct Streams {
    device: Device,
    made: [OnceLock<Stream>; POOL + 1],
}

/// The device and its streams: on a Mac Metal, elsewhere the best there is.
fn streams(py: Python<'_>) -> PyResult<&'static Streams> {
    static STREAMS: OnceLock<Streams> = OnceLock::new();
    if let Some(streams) = STREAMS.get() {
        return Ok(streams);
    }
    let named = std::env::var_os("FENCEPOST_DEVICE").is_some_and(|name| !name.is_empty());
    let device = py
        .detach(|| match cfg!(target_os = "macos") && !named {
            true => Device::open("metal"),
            false => Device::open_best(),
        })
        .map_err(to_py)?;
    Ok(STREAMS.get_or_init(|| Streams {
        device,
        made: [const { OnceLock::new() }; POOL + 1],
    }))
}

impl Streams {
    fn get(&self, py: Python<'_>, number: usize) -> PyResult<&Stream> {
        let slot = self.made.get(number).ok_or_else(|| no_stream(number))?;
        if let Some(stream) = slot.get() {
            return Ok(stream);
        }
        let stream = match number {
            0 => self.device.default_stream(),
            _ => py.detach(|| self.device.new_stream()).map_err(to_py)?,
        };
        Ok(slot.get_or_init(|| stream))
    }
}

fn no_stream(number: impl std::fmt::Display) -> PyErr {
    PyRuntimeError::new_err(format!(
        "no MPS stream has the number {number}: 0 is the default stream, 1 to {POOL} are those of the pool"
    ))
}

thread_local! {
    static CURRENT: Cell<usize> = const { Cell::new(0) };
}

/// The stream that a call means.
enum Target {
    Ours(&'static Stream),
    Torch(&'static torch_mps::Torch),
}

/// The stream of that number; without one PyTorch's own, where PyTorch uses MPS, else the current
/// one.
fn target(py: Python<'_>, number: Option<usize>) -> PyResult<Target> {
    let number = match number {
        Some(number) => number,
        None => match torch_mps::in_use(py)? {
            Some(torch) => return Ok(Target::Torch(torch)),
            None => CURRENT.get(),
        },
    };
    streams(py)?.get(py, number).map(Target::Ours)
}

fn record_on(py: Python<'_>, core: &Core, number: Option<usize>) -> PyResult<()> {
    match target(py, number)? {
        Target::Ours(stream) => core.record(py, stream).map_err(|error| to_py_mps(*error)),
        Target::Torch(torch) => torch.record(py, core),
    }
}

fn wait_on(py: Python<'_>, core: &Core, number: Option<usize>) -> PyResult<()> {
    match target(py, number)? {
        Target::Ours(stream) => core.wait(py, stream).map_err(|error| to_py_mps(*error)),
        Target::Torch(torch) => torch.wait(py, core),
    }
}

/// As in `torch.mps`, not the default for an event that was never recorded.
fn query(py: Python<'_>, core: &Core) -> PyResult<bool> {
    Ok(core.query(py).map_err(|error| to_py_mps(*error))? && core.is_recorded(py))
}

fn elapsed(py: Python<'_>, start: &Core, end: &Core) -> PyResult<f64> {
    let millis = start.elapsed_after(py, end, None, to_py_mps)?;
    match millis < 0.0 {
        true => Err(PyRuntimeError::new_err(format!(
            "the end event was not recorded after the start event, but {:.6} ms before it; swap the two, or use \
             fencepost.Event, whose times are signed",
            -millis
        ))),
        false => Ok(millis),
    }
}

/// A drop-in for ``torch.mps.Event``: on a Mac on Metal, elsewhere on the best device there is.
///
/// Without a stream it is the current one (``fencepost.mps.current_stream``); on a Mac where
/// PyTorch is loaded and uses MPS, PyTorch's own, or an error where that cannot be reached.
///
/// It is what ``fencepost.Event`` is but for three things, as in PyTorch: ``query()`` is False
/// before the first record; ``elapsed_time`` of events in reverse order is a RuntimeError; and so
/// is one of events without timing or never recorded.
#[pyclass(frozen, subclass, name = "Event", module = "fencepost.mps")]
pub(crate) struct MpsEvent {
    pub(crate) core: Core,
}

#[pymethods]
impl MpsEvent {
    #[new]
    #[pyo3(signature = (enable_timing = false))]
    fn new(enable_timing: bool) -> MpsEvent {
        MpsEvent {
            core: with_timing(enable_timing),
        }
    }

    /// Marks the point behind everything submitted to ``stream`` so far, and holds it from now on.
    ///
    /// Never waits for the device. Raises RuntimeError for what is no ``fencepost.mps.Stream``. On
    /// PyTorch's stream it commits what PyTorch has encoded, as ``torch.mps.Event.record`` does.
    #[pyo3(signature = (stream = None))]
    fn record(&self, py: Python<'_>, stream: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        record_on(py, &self.core, number_of(stream)?)
    }

    /// Makes later work of ``stream`` run after what this event holds now. The calling thread never
    /// blocks.
    ///
    /// PyTorch's stream cannot be made to fail: where this event has failed, the call raises
    /// instead.
    #[pyo3(signature = (stream = None))]
    fn wait(&self, py: Python<'_>, stream: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        wait_on(py, &self.core, number_of(stream)?)
    }

    /// Whether what it holds is complete; False before the first record, as in PyTorch. Never
    /// blocks.
    fn query(&self, py: Python<'_>) -> PyResult<bool> {
        query(py, &self.core)
    }

    /// Blocks until what it holds is complete; returns at once before the first record.
    ///
    /// With a ``timeout`` in seconds, which PyTorch's lacks, it gives up with a TimeoutError that
    /// says what it waited for. Other threads go on meanwhile, and Ctrl-C ends the wait.
    #[pyo3(signature = (timeout = None))]
    fn synchronize(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<()> {
        self.core.synchronize(py, limit(timeout)?)
    }

    /// The milliseconds from this event to ``end_event``. Waits for both, and for nothing else.
    ///
    /// May be called again, before or after ``synchronize()``. Raises RuntimeError without timing,
    /// before the first record, and when the end came before the start.
    fn elapsed_time(&self, py: Python<'_>, end_event: &Bound<'_, PyAny>) -> PyResult<f64> {
        elapsed(py, &self.core, core_of(end_event)?)
    }

    fn __repr__(&self) -> String {
        format!("<fencepost.mps.Event, {}>", self.core.state())
    }
}

impl Drop for MpsEvent {
    fn drop(&mut self) {
        self.core.release();
    }
}

fn with_timing(timing: bool) -> Core {
    Core::new(Flags {
        timing,
        ..Flags::default()
    })
}

/// The number of a `fencepost.mps.Stream`.
fn number_of(stream: Option<&Bound<'_, PyAny>>) -> PyResult<Option<usize>> {
    match stream {
        None => Ok(None),
        Some(stream) => match stream.cast::<MpsStream>() {
            Ok(stream) => Ok(Some(stream.get().number)),
            Err(_) => Err(PyRuntimeError::new_err(format!(
                "expected an MPS stream (fencepost.mps.Stream), but got {}",
                stream.get_type().name()?
            ))),
        },
    }
}

/// A stream of the MPS pool: ``Stream()`` is the next of 32, in turn; ``Stream(stream_id=n)`` is
/// number ``n``.
///
/// They are kept for as long as the process lives, as PyTorch's are, so the thirty-third is the
/// first again.
#[pyclass(frozen, name = "Stream", module = "fencepost.mps")]
pub(crate) struct MpsStream {
    number: usize,
}

#[pymethods]
impl MpsStream {
    #[new]
    #[pyo3(signature = (*, stream_id = None))]
    fn new(stream_id: Option<i64>) -> PyResult<MpsStream> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = match stream_id {
            None => 1 + (NEXT.fetch_add(1, Ordering::Relaxed) % POOL as u64) as usize,
            Some(id) => usize::try_from(id)
                .ok()
                .filter(|number| *number <= POOL)
                .ok_or_else(|| no_stream(id))?,
        };
        Ok(MpsStream { number })
    }

    /// Its number: 0 for the default stream.
    #[getter]
    fn stream_id(&self) -> usize {
        self.number
    }

    /// The same stream as a ``fencepost.Stream``, for work on it.
    #[getter]
    fn stream(&self, py: Python<'_>) -> PyResult<crate::stream::PyStream> {
        let stream = streams(py)?.get(py, self.number)?;
        Ok(crate::stream::PyStream::of(stream.clone()))
    }

    /// Blocks until everything submitted to it so far is done; with a ``timeout`` in seconds, for
    /// at most that.
    #[pyo3(signature = (timeout = None))]
    fn synchronize(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<()> {
        let limit = limit(timeout)?;
        let stream = streams(py)?.get(py, self.number)?;
        let marker = py.detach(|| stream.record()).map_err(to_py_mps)?;
        wait(py, &marker, stream.device().backend(), limit, How::Spin)
    }

    /// Whether everything submitted to it so far is done. Never blocks.
    fn query(&self, py: Python<'_>) -> PyResult<bool> {
        let stream = streams(py)?.get(py, self.number)?;
        py.detach(|| stream.query()).map_err(to_py_mps)
    }

    /// Records ``event``, or a new one without timing, and returns it.
    #[pyo3(signature = (event = None))]
    fn record_event(slf: &Bound<'_, Self>, event: Option<Bound<'_, PyAny>>) -> PyResult<Py<PyAny>> {
        let event = match event {
            Some(event) => event,
            None => Bound::new(slf.py(), MpsEvent::new(false))?.into_any(),
        };
        event.call_method1("record", (slf,))?;
        Ok(event.unbind())
    }

    /// Makes later work of this stream run after what ``event`` holds now.
    fn wait_event(slf: &Bound<'_, Self>, event: &Bound<'_, PyAny>) -> PyResult<()> {
        event.call_method1("wait", (slf,)).map(drop)
    }

    /// Makes later work of this stream run after everything submitted to ``stream`` so far.
    fn wait_stream(&self, py: Python<'_>, stream: &MpsStream) -> PyResult<()> {
        let all = streams(py)?;
        let (mine, other) = (all.get(py, self.number)?, all.get(py, stream.number)?);
        py.detach(|| mine.wait(&other.record()?)).map_err(to_py_mps)
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other
            .cast::<MpsStream>()
            .is_ok_and(|other| other.get().number == self.number)
    }

    fn __hash__(&self) -> usize {
        self.number
    }

    fn __repr__(&self) -> String {
        format!("<fencepost.mps.Stream {}>", self.number)
    }
}

/// The stream that this thread's calls without a stream go to.
#[pyfunction]
pub(crate) fn _mps_current_stream() -> MpsStream {
    MpsStream {
        number: CURRENT.get(),
    }
}

/// Makes ``stream`` this thread's current one.
#[pyfunction]
pub(crate) fn _mps_set_stream(stream: &MpsStream) {
    CURRENT.set(stream.number);
}

/// The device of ``fencepost.mps``.
#[pyfunction]
pub(crate) fn _mps_device(py: Python<'_>) -> PyResult<device::PyDevice> {
    Ok(device::PyDevice::of(streams(py)?.device.clone()))
}

/// The events behind the numbers of the native functions. Only looked up under the lock.
static EVENTS: Mutex<Option<HashMap<u64, Arc<Core>>>> = Mutex::new(None);
/// Counts up for as long as the process lives, so that no number ever names a second event.
static NEXT_EVENT: AtomicU64 = AtomicU64::new(1);

fn events() -> MutexGuard<'static, Option<HashMap<u64, Arc<Core>>>> {
    EVENTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The event of a number.
fn event(id: &Bound<'_, PyAny>) -> PyResult<Arc<Core>> {
    let number = event_number(id)?;
    let found = events()
        .as_ref()
        .and_then(|events| events.get(&number?).cloned());
    found.ok_or_else(|| invalid(id))
}

/// A number that an event could have; `None` for integers that are out of range.
fn event_number(id: &Bound<'_, PyAny>) -> PyResult<Option<u64>> {
    static INDEX: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = id.py();
    if id.cast::<PyBool>().is_ok() {
        return Err(no_number(id));
    }
    if id.cast::<PyInt>().is_ok() {
        return Ok(id.extract().ok());
    }
    // NumPy's integers and their like.
    let index = INDEX.get_or_try_init(py, || {
        let operator = py.import(intern!(py, "operator"))?;
        PyResult::Ok(operator.getattr("index")?.unbind())
    })?;
    let number = index.call1(py, (id,)).map_err(|_| no_number(id))?;
    Ok(number.extract(py).ok())
}

fn no_number(id: &Bound<'_, PyAny>) -> PyErr {
    PyTypeError::new_err(format!(
        "an event ID is an integer that _mps_acquireEvent returned; got {}",
        id.get_type()
            .name()
            .map_or_else(|_| "something else".into(), |name| name.to_string())
    ))
}

fn invalid(id: &Bound<'_, PyAny>) -> PyErr {
    let shown = id.str().map(|text| text.to_string());
    PyRuntimeError::new_err(format!(
        "Invalid Event ID: {}; use one that _mps_acquireEvent returned and that is not released yet",
        shown.unwrap_or_default()
    ))
}

/// A new event; returns the number that names it. Numbers are never used again.
#[pyfunction]
#[pyo3(name = "_mps_acquireEvent")]
pub(crate) fn acquire(enable_timing: bool) -> u64 {
    let id = NEXT_EVENT.fetch_add(1, Ordering::Relaxed);
    let core = Arc::new(with_timing(enable_timing));
    events().get_or_insert_default().insert(id, core);
    id
}

/// Lets go of an event. Pending work and waits are not disturbed.
#[pyfunction]
#[pyo3(name = "_mps_releaseEvent")]
pub(crate) fn release(id: &Bound<'_, PyAny>) -> PyResult<()> {
    let number = event_number(id)?;
    let released = events().as_mut().and_then(|events| events.remove(&number?));
    // Dropped behind the lock.
    released.map(drop).ok_or_else(|| invalid(id))
}

/// Records an event on the stream of that number; on the current one without.
#[pyfunction]
#[pyo3(name = "_mps_recordEvent", signature = (id, stream_id = None))]
pub(crate) fn record(
    py: Python<'_>,
    id: &Bound<'_, PyAny>,
    stream_id: Option<i64>,
) -> PyResult<()> {
    record_on(py, &*event(id)?, stream_number(stream_id)?)
}

/// Makes later work of the stream of that number, or of the current one, run after what the event
/// holds now.
#[pyfunction]
#[pyo3(name = "_mps_waitForEvent", signature = (id, stream_id = None))]
pub(crate) fn wait_for(
    py: Python<'_>,
    id: &Bound<'_, PyAny>,
    stream_id: Option<i64>,
) -> PyResult<()> {
    wait_on(py, &*event(id)?, stream_number(stream_id)?)
}

fn stream_number(id: Option<i64>) -> PyResult<Option<usize>> {
    id.map(|id| usize::try_from(id).map_err(|_| no_stream(id)))
        .transpose()
}

/// Whether what the event holds is complete; False before the first record.
#[pyfunction]
#[pyo3(name = "_mps_queryEvent")]
pub(crate) fn query_event(py: Python<'_>, id: &Bound<'_, PyAny>) -> PyResult<bool> {
    query(py, &*event(id)?)
}

/// Blocks until what the event holds is complete.
#[pyfunction]
#[pyo3(name = "_mps_synchronizeEvent")]
pub(crate) fn synchronize_event(py: Python<'_>, id: &Bound<'_, PyAny>) -> PyResult<()> {
    event(id)?.synchronize(py, None)
}

/// The milliseconds between two events; waits for both.
#[pyfunction]
#[pyo3(name = "_mps_elapsedTimeOfEvents")]
pub(crate) fn elapsed_of(
    py: Python<'_>,
    start_id: &Bound<'_, PyAny>,
    end_id: &Bound<'_, PyAny>,
) -> PyResult<f64> {
    let (start, end) = (event(start_id)?, event(end_id)?);
    elapsed(py, &start, &end)
}

/// How many events the native functions hold, for tests.
#[pyfunction]
pub(crate) fn _mps_live_events() -> usize {
    events().as_ref().map_or(0, HashMap::len)
}
