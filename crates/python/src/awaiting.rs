//! `await event`: a future of the running asyncio loop. A callback of the library sets its result.

use pyo3::{intern, prelude::*, types::PyTuple};

use crate::{core::Core, error::to_py, exit::with_python};

/// The iterator that `__await__` returns.
pub(crate) fn await_event(event: &Bound<'_, PyAny>, core: &Core) -> PyResult<Py<PyAny>> {
    let py = event.py();
    let event_loop = py
        .import(intern!(py, "asyncio"))?
        .call_method0(intern!(py, "get_running_loop"))?;
    // The marker first: whether the event is raw may change at any time.
    let Some(marker) = core.marker(py) else {
        if !core.is_raw() {
            return Ok(PyTuple::empty(py).try_iter()?.into_any().unbind());
        }
        // The driver notifies nobody when a raw event completes, so a thread polls it.
        let waiting = event.getattr(intern!(py, "synchronize"))?;
        let future =
            event_loop.call_method1(intern!(py, "run_in_executor"), (py.None(), waiting))?;
        return iterator(&future);
    };
    let future = event_loop.call_method0(intern!(py, "create_future"))?;
    let (awaited, event_loop) = (future.clone().unbind(), event_loop.unbind());
    let registered = marker.on_complete(move |result| {
        // Without an interpreter nobody awaits the future any more.
        with_python(move |py| {
            let error = result.err().map(|error| to_py(error).into_value(py));
            let settle = wrap_pyfunction!(settle, py)?;
            // A loop that was closed meanwhile refuses the call. Then nobody awaits it either.
            let call = intern!(py, "call_soon_threadsafe");
            event_loop
                .call_method1(py, call, (settle, awaited, error))
                .map(drop)
        });
    });
    registered.map_err(to_py)?;
    iterator(&future)
}

fn iterator(future: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
    Ok(future
        .call_method0(intern!(future.py(), "__await__"))?
        .unbind())
}

/// Sets the result of a future, unless it was cancelled meanwhile. Called by its loop.
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
