//! `fencepost.TimeKeeper`.

use std::sync::{Mutex, PoisonError};

use fencepost::{Device, TimeKeeper};
use pyo3::prelude::*;

use crate::objects::PyDevice;

/// Keeps long times of a device exact until it is closed: what ``Device.keep_time()`` returns.
///
/// As a context manager it is closed at the end of the block. One that is dropped is closed too.
#[pyclass(frozen, weakref, name = "TimeKeeper", module = "fencepost")]
pub(crate) struct PyTimeKeeper {
    device: Device,
    keeper: Mutex<Option<TimeKeeper>>,
}

impl PyTimeKeeper {
    pub(crate) fn of(keeper: TimeKeeper) -> PyTimeKeeper {
        PyTimeKeeper {
            device: keeper.device().clone(),
            keeper: Mutex::new(Some(keeper)),
        }
    }

    fn take(&self) -> Option<TimeKeeper> {
        let mut keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner);
        keeper.take()
    }
}

#[pymethods]
impl PyTimeKeeper {
    /// The device whose time it keeps.
    #[getter]
    fn device(&self) -> PyDevice {
        PyDevice::of(self.device.clone())
    }

    /// End it. Never blocks. Does nothing the second time.
    fn close(&self, py: Python<'_>) {
        py.detach(|| drop(self.take()));
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (kind, exception, traceback, /))]
    fn __exit__(
        &self,
        py: Python<'_>,
        kind: &Bound<'_, PyAny>,
        exception: &Bound<'_, PyAny>,
        traceback: &Bound<'_, PyAny>,
    ) -> bool {
        let _ = (kind, exception, traceback);
        self.close(py);
        false
    }

    fn __repr__(&self) -> String {
        format!("<fencepost.TimeKeeper of {}>", self.device)
    }
}
