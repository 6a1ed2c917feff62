//! The time between two events of any of the three classes.

use fencepost::{Backend, Device, Elapsed, Error, Result, bindings};
use pyo3::prelude::*;

use crate::{
    core::{Core, detach_bare},
    wait::{Limit, wait_for},
};

/// Checks that a time between the two makes sense. The order of the checks is PyTorch's.
fn check_pair(start: &Core, end: &Core) -> Result<()> {
    check_named(start, end).map_err(|error| bindings::of_events(error, start.name(), end.name()))
}

fn check_named(start: &Core, end: &Core) -> Result<()> {
    let pair = [(start, "start"), (end, "end")];
    for (event, which) in pair {
        if !event.flags.timing {
            return Err(bindings::timing_disabled(which));
        }
    }
    for (event, which) in pair {
        if !event.is_recorded() {
            return Err(bindings::not_recorded(which));
        }
    }
    let (left, right) = (start.device(), end.device());
    if left != right {
        let name = |device: Option<&Device>| {
            device.map_or("no device".into(), |device| format!("an event of {device}"))
        };
        return Err(bindings::device_mismatch(
            "elapsed_time",
            name(left),
            name(right),
        ));
    }
    Ok(())
}

/// The time from `start` to `end`, signed; an error while either is pending.
fn time_now(py: Python<'_>, start: &Core, end: &Core) -> Result<Elapsed> {
    let named = |error| bindings::of_events(error, start.name(), end.name());
    check_pair(start, end)?;
    if let (Some(start), Some(end)) = (start.event(), end.event()) {
        let elapsed = py.detach(|| start.elapsed(end)).map_err(named)?;
        return Ok(elapsed);
    }
    py.detach(|| {
        let unrecorded = bindings::not_recorded;
        let start = start.expose()?.ok_or_else(|| unrecorded("start"))?;
        let end = end.expose()?.ok_or_else(|| unrecorded("end"))?;
        start.event.elapsed(&end.event)
    })
    .map_err(named)
}

/// The milliseconds from `start` to `end`, signed; an error while either is pending.
pub(crate) fn elapsed_now(py: Python<'_>, start: &Core, end: &Core) -> Result<f64> {
    if let (Some(first), Some(last)) = (start.event(), end.event()) {
        // SAFETY: it runs only the library's and the driver's code and drops nothing of others.
        let elapsed = unsafe { detach_bare(py, || bindings::elapsed_at_once(first, last)) };
        if let Some(elapsed) = elapsed {
            return Ok(elapsed.as_millis_f64());
        }
    }
    Ok(time_now(py, start, end)?.as_millis_f64())
}

/// By how many milliseconds [`elapsed_now`] may be off.
pub(crate) fn uncertainty_now(py: Python<'_>, start: &Core, end: &Core) -> Result<f64> {
    Ok(time_now(py, start, end)?.uncertainty().as_secs_f64() * 1e3)
}

/// As [`elapsed_now`], after waiting for both, for at most `limit`. `map` makes the exceptions.
pub(crate) fn elapsed_after(
    py: Python<'_>,
    start: &Core,
    end: &Core,
    limit: Limit,
    map: fn(Error) -> PyErr,
) -> PyResult<f64> {
    check_pair(start, end).map_err(map)?;
    // The markers are taken first: another thread may record again while this one waits.
    if let (Some(first), Some(last)) = (start.marker(py), end.marker(py)) {
        for (event, marker) in [(start, &first), (end, &last)] {
            let backend = event.device().map_or(Backend::Host, Device::backend);
            let name = || event.name();
            wait_for(py, marker, backend, limit, event.wait_mode(), name)?;
        }
        let elapsed = py.detach(|| first.elapsed(&last)).map_err(map)?;
        return Ok(elapsed.as_millis_f64());
    }
    for event in [start, end] {
        event.synchronize(py, limit)?;
    }
    elapsed_now(py, start, end).map_err(map)
}
