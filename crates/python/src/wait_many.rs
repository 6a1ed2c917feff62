//! Waiting for many, as `fencepost._many` builds its functions on it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use fencepost::{Event, Marker, Result, WaitSet, bindings};
use pyo3::{intern, prelude::*};

use crate::{
    arguments::{Parameter, core_of},
    awaiting::settle,
    core::Core,
    error::to_py,
    exit::with_python,
    objects::PyMarker,
    raw::RawEvent,
    wait::{Limit, in_slices, limit},
};

/// Events and markers that are waited for, by their places in a list, with one limit.
#[pyclass(frozen, weakref, name = "_Waits", module = "fencepost._C")]
pub(crate) struct PyWaits {
    set: Mutex<WaitSet<usize>>,
    limit: Limit,
}

/// What is waited for in place of one object.
enum Target<'a> {
    Marker(&'a Marker),
    Event(&'a Event),
    Raw(&'a RawEvent),
    /// Nothing was recorded yet.
    Nothing,
}

impl<'a> Target<'a> {
    fn of(object: &'a Bound<'_, PyAny>, call: &'static str) -> PyResult<Target<'a>> {
        if let Ok(marker) = object.cast::<PyMarker>() {
            return Ok(Target::Marker(&marker.get().0));
        }
        let parameter = Parameter::new(call, "events");
        match core_of(object, parameter) {
            Ok(core) => Ok(Target::of_core(core)),
            Err(_) => Err(parameter.expected("events and markers of fencepost", object)),
        }
    }

    fn of_core(core: &'a Core) -> Target<'a> {
        match (core.raw(), core.event()) {
            (Some(raw), _) => Target::Raw(raw),
            (None, Some(event)) => Target::Event(event),
            // It may have become raw in between.
            (None, None) => core.raw().map_or(Target::Nothing, Target::Raw),
        }
    }
}

/// An end that was told: the place in the list, and whether it is a failure.
type Ended = (usize, bool);

impl PyWaits {
    /// Called without the GIL: a thread may block while it holds the set.
    fn set(&self) -> MutexGuard<'_, WaitSet<usize>> {
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What has ended until now, from `first` on.
    fn all(set: &mut WaitSet<usize>, first: Option<(usize, Result<()>)>) -> Vec<Ended> {
        let mut ended = Vec::new();
        let mut next = first;
        while let Some((at, how)) = next {
            ended.push((at, how.is_err()));
            next = bindings::look_for_ended(set);
        }
        ended
    }
}

#[pymethods]
impl PyWaits {
    /// `call` is the function that errors name.
    #[new]
    fn new(
        py: Python<'_>,
        call: &str,
        events: Vec<Bound<'_, PyAny>>,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<PyWaits> {
        let limit = limit(timeout)?;
        let call = match call {
            "wait" => "wait",
            "as_completed" => "as_completed",
            "wait_async" => "wait_async",
            _ => "as_completed_async",
        };
        let targets = events.iter().map(|event| Target::of(event, call));
        let targets = targets.collect::<PyResult<Vec<_>>>()?;
        let set = py.detach(|| {
            let mut set = WaitSet::new();
            for (at, target) in targets.into_iter().enumerate() {
                match target {
                    Target::Marker(marker) => set.insert(at, marker),
                    Target::Event(event) => set.insert(at, event),
                    Target::Raw(raw) => set.insert(at, &raw.event),
                    Target::Nothing => bindings::insert_complete(&mut set, at),
                }
            }
            set
        });
        Ok(PyWaits {
            set: Mutex::new(set),
            limit,
        })
    }

    /// Block until some have ended, and return their places and whether each has failed; none where
    /// the limit has passed, or nothing is left.
    fn some(&self, py: Python<'_>) -> PyResult<Vec<Ended>> {
        let ended = in_slices(py, self.limit, |slice| {
            let mut set = self.set();
            let first = bindings::next_ended(&mut set, slice)?;
            let is_over = first.is_some() || set.is_empty();
            Ok(is_over.then(|| PyWaits::all(&mut set, first)))
        })?;
        Ok(ended.unwrap_or_default())
    }

    /// As `some`, but never blocks.
    fn look(&self, py: Python<'_>) -> Vec<Ended> {
        py.detach(|| {
            let mut set = self.set();
            let first = bindings::look_for_ended(&mut set);
            PyWaits::all(&mut set, first)
        })
    }

    /// Set the result of `future` once some have ended. Return whether none has yet.
    fn wake(&self, py: Python<'_>, event_loop: Py<PyAny>, future: Py<PyAny>) -> bool {
        let callback = move || {
            // Without an interpreter nobody awaits the future any more.
            with_python(move |py| {
                let settle = wrap_pyfunction!(settle, py)?;
                // A loop that was closed meanwhile refuses the call. Then nobody awaits it either.
                let call = intern!(py, "call_soon_threadsafe");
                event_loop
                    .call_method1(py, call, (settle, future, py.None()))
                    .map(drop)
            });
        };
        py.detach(|| bindings::on_next_ended(&mut self.set(), callback))
    }

    /// The seconds that are left of the limit; None without one.
    fn left(&self) -> Option<f64> {
        self.limit.left_of_given().map(|left| left.as_secs_f64())
    }

    /// The TimeoutError that tells what is left.
    fn timed_out(&self, py: Python<'_>) -> PyErr {
        let given = self.limit.given.unwrap_or_default();
        to_py(py.detach(|| bindings::timeout_of_set(&self.set(), given)))
    }

    /// Forget what is left.
    fn close(&self, py: Python<'_>) {
        py.detach(|| drop(std::mem::take(&mut *self.set())));
    }
}
