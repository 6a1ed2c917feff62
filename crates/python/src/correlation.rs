//! The methods of `fencepost.Correlation` and `fencepost.HostTime`, and the place of an instant on
//! the clock of `time.monotonic()`.

use std::{
    cmp::Ordering,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    time::{Duration, Instant},
};

use fencepost::HostTime;
use pyo3::{basic::CompareOp, intern, prelude::*};

use crate::{
    error::to_py,
    objects::{PyCorrelation, PyHostTime},
};

#[pymethods]
impl PyCorrelation {
    /// The clock of the device, in words.
    #[getter]
    fn clock(&self) -> String {
        self.0.clock().to_string()
    }

    /// How many seconds ago it was read.
    #[getter]
    fn age(&self) -> f64 {
        self.0.age().as_secs_f64()
    }

    /// How far the two readings may be apart at most, in seconds: 0.0 on the host.
    #[getter]
    fn uncertainty(&self) -> f64 {
        self.0.uncertainty().as_secs_f64()
    }

    /// How much faster than the host's clock the device's runs, in millionths: the microseconds
    /// that it gains in a second. 0.0 as long as it was not measured.
    #[getter]
    fn drift_ppm(&self) -> f64 {
        self.0.drift_ppm()
    }

    /// How far the real drift may be from ``drift_ppm``: the microseconds by which the uncertainty
    /// grows in a second.
    #[getter]
    fn drift_bound_ppm(&self) -> f64 {
        self.0.drift_bound_ppm()
    }

    /// Return this correlation, with the drift that was measured since ``earlier``. Markers between
    /// the two are placed between them. Never blocks.
    ///
    /// Two that are too close together tell nothing of the drift: then it is as it was. Raises
    /// RuntimeError for correlations of two devices.
    fn with_drift_since(
        &self,
        py: Python<'_>,
        earlier: &Bound<'_, PyCorrelation>,
    ) -> PyResult<PyCorrelation> {
        let earlier = &earlier.get().0;
        let line = py.detach(|| self.0.with_drift_since(earlier));
        line.map(PyCorrelation).map_err(to_py)
    }

    fn __repr__(&self) -> String {
        format!("<fencepost.Correlation: {}>", self.0)
    }
}

#[pymethods]
impl PyHostTime {
    /// Seconds on the clock of ``time.monotonic()``.
    #[getter]
    fn monotonic(&self) -> f64 {
        self.monotonic_ns as f64 / 1e9
    }

    /// Nanoseconds on the clock of ``time.monotonic_ns()``.
    #[getter]
    fn monotonic_ns(&self) -> i64 {
        self.monotonic_ns
    }

    /// How far the truth may be from that in either direction, in seconds.
    #[getter]
    fn uncertainty(&self) -> f64 {
        self.uncertainty.as_secs_f64()
    }

    fn __richcmp__(&self, other: &Bound<'_, PyAny>, op: CompareOp) -> PyResult<Py<PyAny>> {
        let py = other.py();
        let Ok(other) = other.cast::<PyHostTime>() else {
            return Ok(py.NotImplemented());
        };
        let order = self.time.partial_cmp(&other.get().time);
        let holds = match op {
            CompareOp::Eq => order == Some(Ordering::Equal),
            CompareOp::Ne => order != Some(Ordering::Equal),
            _ => order.is_some_and(|order| op.matches(order)),
        };
        Ok(holds.into_pyobject(py)?.to_owned().into_any().unbind())
    }

    fn __hash__(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.time.hash(&mut hasher);
        hasher.finish()
    }

    fn __repr__(&self) -> String {
        format!(
            "<fencepost.HostTime: {:.9} s, ±{:.1?}>",
            self.monotonic(),
            self.uncertainty
        )
    }
}

impl PyHostTime {
    /// `time`, on the clock of `time.monotonic()`. The library's clock may begin elsewhere, or be
    /// another one (on Windows before Python 3.13), so the two are read one beside the other.
    pub(crate) fn of(py: Python<'_>, time: HostTime) -> PyResult<PyHostTime> {
        let module = py.import(intern!(py, "time"))?;
        let clock = module.getattr(intern!(py, "monotonic_ns"))?;
        let mut best: Option<(Duration, Instant, i64)> = None;
        for _ in 0..READINGS {
            let before = Instant::now();
            let nanos: i64 = clock.call0()?.extract()?;
            let half = before.elapsed() / 2;
            if best.is_none_or(|(least, ..)| half < least) {
                best = Some((half, before + half, nanos));
            }
        }
        let (error, instant, nanos) = best.unwrap_or((Duration::MAX, Instant::now(), 0));
        let forward = time.instant().saturating_duration_since(instant).as_nanos() as i64;
        let back = instant.saturating_duration_since(time.instant()).as_nanos() as i64;
        let info = module.call_method1(intern!(py, "get_clock_info"), ("monotonic",))?;
        let step: f64 = info.getattr(intern!(py, "resolution"))?.extract()?;
        let step = Duration::try_from_secs_f64(step).unwrap_or_default();
        Ok(PyHostTime {
            time,
            monotonic_ns: nanos.saturating_add(forward).saturating_sub(back),
            uncertainty: time
                .uncertainty()
                .saturating_add(error)
                .saturating_add(step),
        })
    }
}

/// How often the two clocks are read: the closest reading counts.
const READINGS: usize = 5;
