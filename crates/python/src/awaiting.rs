//! `await event`: a future of the running asyncio loop that a callback of the library settles.

use pyo3::{intern, prelude::*, types::PyTuple};

use crate::{core::Core, error::to_py, exit::with_python};

/// The iterator that `__await__` is to give.
pub(crate) fn await_event(event: &Bound<'_, PyAny>, core: &Core) -> PyResult<Py<PyAny>> {
    let py = event.py();
    let event_loop = py
        .import(intern!(py, "asyncio"))?
        .call_method0(intern!(py, "get_running_loop"))?;
    if core.is_native() {
        // The driver tells nobody when such an event completes, so a thread has to ask it.
        let waiting = event.getattr(intern!(py, "synchronize"))?;
        let future =
            event_loop.call_method1(intern!(py, "run_in_executor"), (py.None(), waiting))?;
        return iterator(&future);
    }
    let Some(marker) = core.marker(py) else {
        return Ok(PyTuple::empty(py).try_iter()?.into_any().unbind());
    };
    let future = event_loop.call_method0(intern!(py, "create_future"))?;
    let (told, looping) = (future.clone().unbind(), event_loop.unbind());
    let settled = marker.on_complete(move |result| {
        // Without an interpreter nobody waits any more, and what is held here is dropped with it.
        with_python(move |py| {
            let error = result.err().map(|error| to_py(error).into_value(py));
            let settle = wrap_pyfunction!(settle, py)?;
            // A loop that was closed meanwhile refuses; then, too, nobody waits.
            let call = intern!(py, "call_soon_threadsafe");
            looping
                .call_method1(py, call, (settle, told, error))
                .map(drop)
        });
    });
    settled.map_err(to_py)?;
    iterator(&future)
}

fn iterator(future: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
    Ok(future
        .call_method0(intern!(future.py(), "__await__"))?
        .unbind())
}

/// Settles a future that may have been cancelled meanwhile; called by its loop.
#[pyfunction]
#[pyo3(name = "_settle")]
fn settle(future: &Bound<'_, PyAny>, error: Option<Bound<'_, PyAny>>) -> PyResult<()> {
    if future.call_method0("done")?.is_truthy()? {
        return Ok(());
    }
    match error {
        None => future.call_method1("set_result", (future.py().None(),)),
        Some(error) => future.call_method1("set_exception", (error,)),
    }
    .map(drop)
}
