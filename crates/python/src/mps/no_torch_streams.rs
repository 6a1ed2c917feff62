//! [`torch_streams`](super::torch_streams) on systems without MPS.

use std::convert::Infallible;

use fencepost::Device;
use pyo3::prelude::*;

use crate::core::Core;

pub(crate) struct TorchStream(Infallible);

type Found = PyResult<Option<&'static TorchStream>>;

pub(crate) fn in_use(_: Python<'_>) -> Found {
    Ok(None)
}

#[inline]
pub(crate) fn in_use_on(_: Python<'_>, _: &Device) -> Found {
    Ok(None)
}

pub(crate) fn numbered(_: Python<'_>, _: usize) -> Found {
    Ok(None)
}

pub(crate) fn given(_: Python<'_>, _: &Bound<'_, PyAny>) -> Found {
    Ok(None)
}

#[inline]
pub(crate) fn given_on(_: Python<'_>, _: &Device, _: &Bound<'_, PyAny>) -> Found {
    Ok(None)
}

pub(crate) fn all(_: Python<'_>) -> PyResult<Vec<&'static TorchStream>> {
    Ok(Vec::new())
}

impl TorchStream {
    pub(crate) fn record(&self, _: Python<'_>, _: &Core) -> PyResult<()> {
        match self.0 {}
    }

    pub(crate) fn wait(&self, _: Python<'_>, _: &Core) -> PyResult<()> {
        match self.0 {}
    }

    pub(crate) fn number(&self) -> usize {
        match self.0 {}
    }

    pub(crate) fn set_current(&self) {
        match self.0 {}
    }
}
