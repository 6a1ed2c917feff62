//! The streams of `fencepost.mps`: the default stream, number 0, and a pool of 32.
//!
//! They are made when they are first used and kept for ever, as PyTorch's are. So a number names
//! the same stream for good.

use std::{
    cell::Cell,
    fmt::Display,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use fencepost::{Device, Stream};
use pyo3::{exceptions::PyRuntimeError, prelude::*};

use crate::error::to_py;

/// How many streams there are beside the default one.
pub(crate) const POOL: usize = 32;

thread_local! {
    /// The number of this thread's current stream.
    static CURRENT: Cell<usize> = const { Cell::new(0) };
}

struct Streams {
    device: Device,
    made: [OnceLock<Stream>; POOL + 1],
}

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

/// The device of all these streams: Metal on a Mac, elsewhere the best one there is.
pub(crate) fn device(py: Python<'_>) -> PyResult<&'static Device> {
    Ok(&streams(py)?.device)
}

/// The stream of a number.
pub(crate) fn stream(py: Python<'_>, number: usize) -> PyResult<&'static Stream> {
    let streams = streams(py)?;
    let slot = streams
        .made
        .get(number)
        .ok_or_else(|| unknown_stream(number))?;
    if let Some(stream) = slot.get() {
        return Ok(stream);
    }
    let stream = match number {
        0 => streams.device.default_stream(),
        _ => py.detach(|| streams.device.new_stream()).map_err(to_py)?,
    };
    Ok(slot.get_or_init(|| stream))
}

/// The number that the argument `stream_id` of a class means: without one it is the next of the
/// pool, in turn.
pub(crate) fn number(stream_id: Option<i64>) -> PyResult<usize> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    match stream_id {
        None => Ok(1 + NEXT.fetch_add(1, Ordering::Relaxed) % POOL),
        Some(id) => known(id),
    }
}

/// The number of a stream; an error for one that no stream has.
pub(crate) fn known(id: i64) -> PyResult<usize> {
    usize::try_from(id)
        .ok()
        .filter(|number| *number <= POOL)
        .ok_or_else(|| unknown_stream(id))
}

/// The exception for a number that no stream has.
pub(crate) fn unknown_stream(number: impl Display) -> PyErr {
    PyRuntimeError::new_err(format!(
        "no MPS stream has the number {number}: 0 is the default stream, 1 to {POOL} are those of \
         the pool"
    ))
}

/// The number of this thread's current stream.
pub(crate) fn current() -> usize {
    CURRENT.get()
}

pub(crate) fn set_current(number: usize) {
    CURRENT.set(number);
}
