//! The native functions that PyTorch's own `torch.mps.Event` is written against. They name events
//! by numbers, and streams too: each takes a `stream_id`.
//!
//! | function | what the number of a stream means |
//! |---|---|
//! | `_mps_acquireEvent` | the stream on which a record without a number marks |
//! | `_mps_recordEvent`, `_mps_waitForEvent` | the stream that is marked, and that waits |
//! | the other four | nothing: an event holds the same, whatever stream a call names |
//!
//! Without a number a call means the current stream. A number that no stream has is an error
//! everywhere.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use pyo3::{
    exceptions::{PyRuntimeError, PyTypeError},
    intern,
    prelude::*,
    sync::PyOnceLock,
    types::{PyBool, PyInt},
};

use super::{
    calls::{self, Target},
    pool,
    torch_streams::all,
};
use crate::{
    core::Core,
    device::synchronize_device,
    raw::Flags,
    wait::{Limit, limit},
};

/// The events by number. The lock is held for a look-up only.
static EVENTS: Mutex<Option<HashMap<u64, Arc<NumberedEvent>>>> = Mutex::new(None);
/// Counts up while the process lives, so that no number ever names a second event.
static NEXT_EVENT: AtomicU64 = AtomicU64::new(1);

/// An event that these functions name.
struct NumberedEvent {
    core: Core,
    /// The stream that it was acquired for.
    stream_id: Option<i64>,
}

fn events() -> MutexGuard<'static, Option<HashMap<u64, Arc<NumberedEvent>>>> {
    EVENTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The event of a number.
fn event(id: &Bound<'_, PyAny>) -> PyResult<Arc<NumberedEvent>> {
    let number = event_number(id)?;
    let found = events()
        .as_ref()
        .and_then(|events| events.get(&number?).cloned());
    found.ok_or_else(|| invalid(id))
}

/// An ID as a number that an event could have; `None` for integers out of range.
fn event_number(id: &Bound<'_, PyAny>) -> PyResult<Option<u64>> {
    static INDEX: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = id.py();
    if id.cast::<PyBool>().is_ok() {
        return Err(no_number(id));
    }
    if id.cast::<PyInt>().is_ok() {
        return Ok(id.extract().ok());
    }
    // Integers of NumPy and the like.
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
        "Invalid Event ID: {}; use one that _mps_acquireEvent returned and that is not released \
         yet",
        shown.unwrap_or_default()
    ))
}

/// The stream of a call.
fn target(py: Python<'_>, stream_id: Option<i64>) -> PyResult<Target> {
    match stream_id {
        Some(id) => Target::numbered(py, pool::known(id)?),
        None => Target::current(py),
    }
}

/// Refuses a number that no stream has.
fn check(stream_id: Option<i64>) -> PyResult<()> {
    stream_id.map_or(Ok(()), |id| pool::known(id).map(drop))
}

/// Make a new event, and return the number that names it. Numbers are never used again.
///
/// With the number of a stream, a record that names none marks that stream.
#[pyfunction]
#[pyo3(name = "_mps_acquireEvent", signature = (enable_timing, stream_id = None))]
pub(crate) fn acquire(enable_timing: bool, stream_id: Option<i64>) -> PyResult<u64> {
    check(stream_id)?;
    let id = NEXT_EVENT.fetch_add(1, Ordering::Relaxed);
    let event = Arc::new(NumberedEvent {
        core: Core::new(Flags::with_timing(enable_timing)),
        stream_id,
    });
    events().get_or_insert_default().insert(id, event);
    Ok(id)
}

/// Release an event. Pending work and waits are not disturbed.
#[pyfunction]
#[pyo3(name = "_mps_releaseEvent", signature = (id, stream_id = None))]
pub(crate) fn release(id: &Bound<'_, PyAny>, stream_id: Option<i64>) -> PyResult<()> {
    check(stream_id)?;
    let number = event_number(id)?;
    let released = events().as_mut().and_then(|events| events.remove(&number?));
    // Dropped without the lock.
    released.map(drop).ok_or_else(|| invalid(id))
}

/// Record an event on the stream of that number, by default on the one that it was acquired for,
/// or on the current one.
#[pyfunction]
#[pyo3(name = "_mps_recordEvent", signature = (id, stream_id = None))]
pub(crate) fn record(
    py: Python<'_>,
    id: &Bound<'_, PyAny>,
    stream_id: Option<i64>,
) -> PyResult<()> {
    let event = event(id)?;
    calls::record(py, &event.core, &target(py, stream_id.or(event.stream_id))?)
}

/// Make later work of the stream of that number, by default of the current one, run after what the
/// event holds now.
#[pyfunction]
#[pyo3(name = "_mps_waitForEvent", signature = (id, stream_id = None))]
pub(crate) fn wait_for(
    py: Python<'_>,
    id: &Bound<'_, PyAny>,
    stream_id: Option<i64>,
) -> PyResult<()> {
    calls::wait(py, &event(id)?.core, &target(py, stream_id)?)
}

/// Return whether what the event holds is complete; False before the first record.
#[pyfunction]
#[pyo3(name = "_mps_queryEvent", signature = (id, stream_id = None))]
pub(crate) fn query_event(
    py: Python<'_>,
    id: &Bound<'_, PyAny>,
    stream_id: Option<i64>,
) -> PyResult<bool> {
    check(stream_id)?;
    calls::query(py, &event(id)?.core)
}

/// Block until what the event holds is complete.
#[pyfunction]
#[pyo3(name = "_mps_synchronizeEvent", signature = (id, stream_id = None))]
pub(crate) fn synchronize_event(
    py: Python<'_>,
    id: &Bound<'_, PyAny>,
    stream_id: Option<i64>,
) -> PyResult<()> {
    check(stream_id)?;
    event(id)?.core.synchronize(py, Limit::never())
}

/// Return the milliseconds between two events. Waits for both.
#[pyfunction]
#[pyo3(
    name = "_mps_elapsedTimeOfEvents",
    signature = (start_id, end_id, stream_id = None)
)]
pub(crate) fn elapsed_of(
    py: Python<'_>,
    start_id: &Bound<'_, PyAny>,
    end_id: &Bound<'_, PyAny>,
    stream_id: Option<i64>,
) -> PyResult<f64> {
    check(stream_id)?;
    let (start, end) = (event(start_id)?, event(end_id)?);
    calls::elapsed(py, &start.core, &end.core)
}

/// Return how many events these functions hold. For tests.
#[pyfunction]
pub(crate) fn _mps_live_events() -> usize {
    events().as_ref().map_or(0, HashMap::len)
}

/// Block until everything submitted to any stream of the device is done, PyTorch's own included.
#[pyfunction]
#[pyo3(name = "_mps_synchronize", signature = (timeout = None))]
pub(crate) fn synchronize(py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
    synchronize_all(py, limit(timeout)?)
}

/// As ``_mps_synchronize``, under PyTorch's name.
#[pyfunction]
#[pyo3(name = "_mps_deviceSynchronize")]
pub(crate) fn device_synchronize(py: Python<'_>) -> PyResult<()> {
    synchronize_all(py, Limit::never())
}

fn synchronize_all(py: Python<'_>, limit: Limit) -> PyResult<()> {
    let record = |stream| {
        let event = Core::new(Flags::default());
        calls::record(py, &event, &Target::Torch(stream)).map(|()| event)
    };
    let recorded = all(py)?.into_iter().map(record);
    for event in recorded.collect::<PyResult<Vec<_>>>()? {
        event.synchronize(py, limit)?;
    }
    synchronize_device(py, pool::device(py)?, limit)
}
