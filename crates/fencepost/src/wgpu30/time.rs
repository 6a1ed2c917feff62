//! Times of markers.

use crate::{
    clock::Timestamp,
    epochs::Time,
    error::{Error, Result},
};

pub(crate) enum NoTime {}

impl Time for NoTime {
    fn timestamp(&self) -> Result<Timestamp> {
        Err(Error::timing_disabled("held"))
    }
}
