//! Blocking waits. They release the GIL, and let Ctrl-C end them.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use fencepost::{Backend, Correlation, Device, Error, Marker, Stream, bindings};
use pyo3::{
    exceptions::{PyOverflowError, PyTypeError, PyValueError},
    prelude::*,
};

use crate::{error::to_py, place};

/// How long a wait goes on before it looks for signals. Ctrl-C must be answered within 100 ms.
const SLICE: Duration = Duration::from_millis(50);
/// How long a thread polls a GPU before it sleeps. A driver's own wait polls for as long as it
/// takes.
const SPIN: Duration = Duration::from_millis(5);

thread_local! {
    static IN_WORK: Cell<bool> = const { Cell::new(false) };
}

/// Runs `f` as host work of a stream. Python handles no signals on this thread.
pub(crate) fn in_work<R>(f: impl FnOnce() -> R) -> R {
    IN_WORK.set(true);
    let result = f();
    IN_WORK.set(false);
    result
}

/// How a thread waits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum WaitMode {
    /// Polls a GPU for a while before it sleeps, for the shortest delay.
    Spin,
    /// Sleeps at once.
    Sleep,
}

/// The limit of one blocking call, which may be made of several waits.
#[derive(Clone, Copy)]
pub(crate) struct Limit {
    began: Instant,
    /// As the caller gave it.
    pub(crate) given: Option<Duration>,
}

impl Limit {
    /// No limit.
    pub(crate) fn never() -> Limit {
        Limit {
            began: Instant::now(),
            given: None,
        }
    }

    /// How much is left of it, and `most` at most.
    fn left(&self, most: Duration) -> Duration {
        self.given.map_or(most, |given| {
            most.min(given.saturating_sub(self.began.elapsed()))
        })
    }

    /// How much is left of it; `None` without one.
    pub(crate) fn left_of_given(&self) -> Option<Duration> {
        self.given
            .map(|given| given.saturating_sub(self.began.elapsed()))
    }

    /// The limit as the caller gave it, once it has passed.
    fn passed(&self) -> Option<Duration> {
        self.given.filter(|given| self.began.elapsed() >= *given)
    }
}

/// Why a wait ended early.
pub(crate) enum Ended {
    /// What it waited for has failed, or the limit has passed.
    Failed(Error),
    /// A signal handler raised this exception, whatever its type. The call must raise it at once,
    /// and begin no other wait.
    Raised(PyErr),
}

impl From<Error> for Ended {
    fn from(error: Error) -> Ended {
        Ended::Failed(error)
    }
}

impl From<Ended> for PyErr {
    fn from(ended: Ended) -> PyErr {
        match ended {
            Ended::Failed(error) => to_py(error),
            Ended::Raised(exception) => exception,
        }
    }
}

/// Blocks until `marker` is complete, for at most `limit`.
pub(crate) fn wait(
    py: Python<'_>,
    marker: &Marker,
    device: Backend,
    limit: Limit,
    mode: WaitMode,
) -> Result<(), Ended> {
    wait_for(py, marker, device, limit, mode, || None)
}

/// As [`wait`], for a marker that an event holds; `name` is that of the event.
pub(crate) fn wait_for(
    py: Python<'_>,
    marker: &Marker,
    device: Backend,
    limit: Limit,
    mode: WaitMode,
    name: impl Fn() -> Option<String>,
) -> Result<(), Ended> {
    // The library detects circles of waits inside host work, but only among waits without a
    // deadline. Such a wait cannot be cut into slices.
    if IN_WORK.get() && limit.given.is_none() {
        return py.detach(|| marker.synchronize()).map_err(Ended::Failed);
    }
    let mut spin = match mode == WaitMode::Spin && device != Backend::Host {
        true => SPIN,
        false => Duration::ZERO,
    };
    loop {
        let slice = limit.left(SLICE);
        let spin_now = std::mem::take(&mut spin).min(slice);
        match py.detach(|| wait_slice(marker, slice, spin_now)) {
            Ok(true) => return Ok(()),
            Ok(false) => {
                py.check_signals().map_err(Ended::Raised)?;
                if let Some(given) = limit.passed() {
                    let name = name();
                    let error = py.detach(|| bindings::timeout(marker, given, name));
                    return Err(Ended::Failed(error));
                }
            }
            Err(error) => return Err(Ended::Failed(error)),
        }
    }
}

/// Calls `wait` with slices of `limit`, without the GIL, until it gives something; `None` once the
/// limit has passed. Without a slice, `wait` is to block for as long as it takes.
pub(crate) fn in_slices<T: Send>(
    py: Python<'_>,
    limit: Limit,
    mut wait: impl FnMut(Option<Duration>) -> Result<Option<T>, Error> + Send,
) -> PyResult<Option<T>> {
    // As in `wait_for`: the library is to see a wait of host work that has no deadline.
    if IN_WORK.get() && limit.given.is_none() {
        return py.detach(|| wait(None)).map_err(to_py);
    }
    loop {
        let slice = limit.left(SLICE);
        if let Some(given) = py.detach(|| wait(Some(slice))).map_err(to_py)? {
            return Ok(Some(given));
        }
        py.check_signals()?;
        if limit.passed().is_some() {
            return Ok(None);
        }
    }
}

/// Whether the marker is complete after `slice` at most.
fn wait_slice(marker: &Marker, slice: Duration, spin: Duration) -> Result<bool, Error> {
    let start = Instant::now();
    while start.elapsed() < spin {
        if marker.query()? {
            return Ok(true);
        }
        std::hint::spin_loop();
    }
    bindings::wait_slice(marker, slice.saturating_sub(start.elapsed()))
}

/// Reads the device's clock beside the host's.
pub(crate) fn correlate(py: Python<'_>, device: &Device) -> Result<Correlation, Ended> {
    let at = place::of_record(py);
    let mut raised = None;
    let mut look = || match Python::attach(|py| py.check_signals()) {
        Ok(()) => true,
        Err(exception) => {
            raised = Some(exception);
            false
        }
    };
    let found = py.detach(|| bindings::correlate_at(device, at, &mut look));
    match raised {
        Some(exception) => Err(Ended::Raised(exception)),
        None => found.map_err(Ended::Failed),
    }
}

/// Blocks until everything submitted to `stream` so far is done, for at most `limit`.
pub(crate) fn synchronize(py: Python<'_>, stream: &Stream, limit: Limit) -> PyResult<()> {
    let at = place::of_caller(py);
    let marker = py.detach(|| bindings::mark_at(stream, at)).map_err(to_py)?;
    let backend = stream.device().backend();
    Ok(wait(py, &marker, backend, limit, WaitMode::Spin)?)
}

/// Blocks until `done` returns `true`, for at most `limit`; returns whether it did. For raw events,
/// which have no marker.
pub(crate) fn poll(
    py: Python<'_>,
    limit: Limit,
    mode: WaitMode,
    mut done: impl FnMut() -> Result<bool, Error> + Send,
) -> PyResult<bool> {
    loop {
        let polled = py.detach(|| {
            let slice = Instant::now();
            let mut pause = Duration::from_micros(10);
            loop {
                if done()? {
                    return Ok(Some(true));
                }
                if limit.passed().is_some() {
                    return Ok(Some(false));
                }
                if slice.elapsed() >= SLICE {
                    return Ok(None);
                }
                if mode == WaitMode::Spin && limit.began.elapsed() < SPIN {
                    std::hint::spin_loop();
                } else {
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(Duration::from_millis(1));
                }
            }
        });
        if let Some(done) = polled.map_err(to_py)? {
            return Ok(done);
        }
        py.check_signals()?;
    }
}

/// The limit that an argument `timeout`, in seconds, means, from now on.
pub(crate) fn limit(timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Limit> {
    const EXPECTED: &str =
        "timeout must be a number of seconds of at least 0, or None to wait without one";
    let Some(timeout) = timeout else {
        return Ok(Limit::never());
    };
    Ok(Limit {
        given: duration_of(timeout, EXPECTED)?,
        ..Limit::never()
    })
}

/// A number of seconds as a duration; `None` for one that no clock can reach, which is no limit.
/// `expected` begins the text of an error.
pub(crate) fn duration_of(
    seconds: &Bound<'_, PyAny>,
    expected: &str,
) -> PyResult<Option<Duration>> {
    match seconds.extract::<f64>() {
        Ok(number) if number >= 0.0 => Ok(Duration::try_from_secs_f64(number).ok()),
        Ok(_) => {
            let got = seconds.str()?;
            Err(PyValueError::new_err(format!("{expected}; got {got}")))
        }
        Err(error) if error.is_instance_of::<PyOverflowError>(seconds.py()) => Err(
            PyValueError::new_err(format!("{expected}; got a larger one")),
        ),
        Err(error) if error.is_instance_of::<PyTypeError>(seconds.py()) => {
            let got = seconds.get_type().fully_qualified_name()?;
            Err(PyTypeError::new_err(format!("{expected}; got {got}")))
        }
        Err(error) => Err(error),
    }
}
