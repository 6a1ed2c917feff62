//! What a trace has collected, as Python objects.

use std::sync::Arc;

use fencepost::{
    bindings::{Entries, Entry, EntryState, EntryTrack},
    trace::Value,
};
use pyo3::{
    IntoPyObjectExt as _,
    prelude::*,
    types::{PyDict, PyString, PyTuple},
};

use crate::{measure::of_this_module, trace::attributes_of};

/// A span or an instant that a trace has collected: what ``Trace.spans()`` lists.
///
/// Times are integers: nanoseconds since 1970.
#[pyclass(frozen, weakref, name = "SpanRecord", module = "fencepost")]
pub(crate) struct PySpanRecord {
    entry: Entry,
    track: Arc<EntryTrack>,
}

/// All of them, in their order.
pub(crate) fn records(entries: Entries) -> Vec<PySpanRecord> {
    let tracks: Vec<_> = entries.tracks.into_iter().map(Arc::new).collect();
    let with_track = |entry: Entry| {
        let track = tracks.get(entry.track)?.clone();
        Some(PySpanRecord { entry, track })
    };
    entries.entries.into_iter().filter_map(with_track).collect()
}

#[pymethods]
impl PySpanRecord {
    /// The name that it was begun with.
    #[getter]
    fn name(&self) -> &str {
        &self.entry.name
    }

    /// What it is on: a stream, as in ``stream 3 "load"``, or the name of a thread.
    #[getter]
    fn track(&self) -> &str {
        &self.track.name
    }

    /// The name of the stream's device; None for one of a thread.
    #[getter]
    fn device(&self) -> Option<&str> {
        self.track.device.as_deref()
    }

    /// The number that the system has for the thread; None for one of a stream.
    #[getter]
    fn thread_id(&self) -> Option<u64> {
        self.track.thread
    }

    /// When it began.
    #[getter]
    fn start_ns(&self) -> i64 {
        self.entry.start
    }

    /// When it ended; of one that has not, the last moment that is known of it.
    #[getter]
    fn end_ns(&self) -> i64 {
        self.entry.end
    }

    /// By how many nanoseconds both times may be off. Their difference is far more exact.
    #[getter]
    fn uncertainty_ns(&self) -> u32 {
        self.entry.uncertainty
    }

    /// Whether it is an instant, whose start is its end.
    #[getter]
    fn is_instant(&self) -> bool {
        self.entry.is_mark
    }

    /// ``"complete"``, ``"failed"`` or ``"unfinished"``.
    #[getter]
    fn state(&self) -> &'static str {
        match &self.entry.state {
            EntryState::Failed(_) => "failed",
            EntryState::Complete => "complete",
            _ => "unfinished",
        }
    }

    /// Why its stream failed; None unless it did.
    #[getter]
    fn error(&self) -> Option<&str> {
        match &self.entry.state {
            EntryState::Failed(why) => Some(why),
            _ => None,
        }
    }

    /// Its attributes, as a new dict.
    #[getter]
    fn attributes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let attributes = PyDict::new(py);
        for (name, value) in &self.entry.attributes {
            let value = match value {
                Value::Signed(value) => value.into_bound_py_any(py)?,
                Value::Unsigned(value) => value.into_bound_py_any(py)?,
                Value::Float(value) => value.into_bound_py_any(py)?,
                Value::Bool(value) => value.into_bound_py_any(py)?,
                Value::Text(value) => value.into_bound_py_any(py)?,
                _ => continue,
            };
            attributes.set_item(name, value)?;
        }
        Ok(attributes)
    }

    /// The places, in the list of ``Trace.spans()``, of those that it waited for.
    #[getter]
    fn awaited<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.entry.awaited)
    }

    /// It can be pickled, and so be sent to another process.
    fn __reduce__<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<(Bound<'py, PyAny>, PickledRecord<'py>)> {
        let (entry, track) = (&self.entry, &self.track);
        let track = (track.name.clone(), track.device.clone(), track.thread);
        let times = (entry.start, entry.end, entry.uncertainty);
        let how = (
            entry.is_mark,
            self.state().into(),
            self.error().map(Into::into),
        );
        let rest = (self.attributes(py)?, entry.awaited.clone());
        let made = of_this_module(py, "_span_record")?;
        Ok((made, (entry.name.clone(), track, times, how, rest)))
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let name = PyString::new(py, &self.entry.name).repr()?;
        let length = self.entry.end.saturating_sub(self.entry.start);
        let length = match self.entry.is_mark {
            true => "instant".to_owned(),
            false => format!("{length} ns"),
        };
        let (track, state) = (&self.track.name, self.state());
        Ok(format!(
            "<fencepost.SpanRecord {name} of {track}: {length}, {state}>"
        ))
    }
}

type Track = (String, Option<String>, Option<u64>);
type Times = (i64, i64, u32);
/// Whether it is a mark, its state, and why it failed.
type How = (bool, String, Option<String>);
type Rest<'py> = (Bound<'py, PyDict>, Vec<usize>);
type PickledRecord<'py> = (String, Track, Times, How, Rest<'py>);

/// Return the record that was pickled as this.
#[pyfunction]
pub(crate) fn _span_record(
    name: String,
    track: Track,
    times: Times,
    how: How,
    rest: Rest<'_>,
) -> PyResult<PySpanRecord> {
    let (start, end, uncertainty) = times;
    let (is_mark, state, why) = how;
    let state = match (why, &*state) {
        (Some(why), _) => EntryState::Failed(why),
        (None, "complete") => EntryState::Complete,
        (None, _) => EntryState::Unfinished,
    };
    let (attributes, awaited) = rest;
    let (track_name, device, thread) = track;
    Ok(PySpanRecord {
        entry: Entry {
            name,
            track: 0,
            is_mark,
            start,
            end,
            uncertainty,
            state,
            attributes: attributes_of("_span_record", Some(&attributes))?,
            awaited,
        },
        track: Arc::new(EntryTrack {
            name: track_name,
            device,
            thread,
        }),
    })
}
