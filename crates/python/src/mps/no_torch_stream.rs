//! [`torch_stream`](super::torch_stream) on systems without MPS.

use std::convert::Infallible;

use fencepost::Device;
use pyo3::prelude::*;

use crate::core::Core;

pub(crate) struct TorchStream(Infallible);

pub(crate) fn in_use(_: Python<'_>) -> PyResult<Option<&'static TorchStream>> {
    Ok(None)
}

#[inline]
pub(crate) fn in_use_on(_: Python<'_>, _: &Device) -> PyResult<Option<&'static TorchStream>> {
    Ok(None)
}

impl TorchStream {
    pub(crate) fn record(&self, _: Python<'_>, _: &Core) -> PyResult<()> {
        match self.0 {}
    }

    pub(crate) fn wait(&self, _: Python<'_>, _: &Core) -> PyResult<()> {
        match self.0 {}
    }
}
