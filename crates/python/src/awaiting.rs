//! `await event`: a future of the running asyncio loop. A callback of the library sets its result.

use fencepost::Result;
use pyo3::{
    intern,
    prelude::*,
    types::{PyCFunction, PyTuple},
};

use crate::{
    core::{Core, Pending},
    error::to_py,
    exit::with_python,
};

/// The iterator that `__await__` returns.
pub(crate) fn await_event(event: &Bound<'_, PyAny>, core: &Core) -> PyResult<Py<PyAny>> {
    // What is to be awaited is taken once: another thread may record or expose the event meanwhile.
    await_pending(event.py(), core.pending(event.py()).map_err(to_py)?)
}

/// The same, for what is pending.
pub(crate) fn await_pending(py: Python<'_>, pending: Option<Pending<'_>>) -> PyResult<Py<PyAny>> {
    let event_loop = py
        .import(intern!(py, "fencepost._loops"))?
        .call_method0(intern!(py, "running"))?;
    let Some(pending) = pending else {
        return Ok(PyTuple::empty(py).try_iter()?.into_any().unbind());
    };
    let future = event_loop.call_method0(intern!(py, "create_future"))?;
    let (awaited, event_loop) = (future.clone().unbind(), event_loop.unbind());
    let callback = move |result: Result<()>| {
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
    };
    // It may start a thread.
    let registered = py.detach(|| pending.on_complete(callback)).map_err(to_py)?;
    let done = PyCFunction::new_closure(py, None, None, move |arguments, _| {
        let py = arguments.py();
        let future = arguments.get_item(0)?;
        // A future that is cancelled leaves nothing behind.
        if future.call_method0(intern!(py, "cancelled"))?.is_truthy()? {
            py.detach(|| registered.cancel());
        }
        Ok::<(), PyErr>(())
    })?;
    future.call_method1(intern!(py, "add_done_callback"), (done,))?;
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
pub(crate) fn settle(future: &Bound<'_, PyAny>, error: Option<Bound<'_, PyAny>>) -> PyResult<()> {
    if future.call_method0("done")?.is_truthy()? {
        return Ok(());
    }
    match error {
        None => future.call_method1("set_result", (future.py().None(),)),
        Some(error) => future.call_method1("set_exception", (error,)),
    }
    .map(drop)
}
