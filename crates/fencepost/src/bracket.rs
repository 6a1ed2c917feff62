//! Reading a device's clock by a stamp of its own, between two reads of the host's: for devices
//! whose clock the API does not read beside the host's.

use std::time::{Duration, Instant};

use crate::{
    contract::{Sample, Stamp, StreamImpl},
    error::Result,
    explain,
    place::Place,
};

/// How many stamps are made: the closest one counts. The first ones may wait for earlier work on
/// the hardware queue, or for a GPU that is waking up.
const STAMPS: usize = 8;

/// How long a stamp may take. Behind work that is held back it takes for ever.
const LIMIT: Duration = Duration::from_secs(10);

/// Makes stamps on `stream`, on which nothing else is, and waits for each. The device made a stamp
/// at some time between the host's read before its record and the one after its completion.
pub(crate) fn sample(stream: &dyn StreamImpl, at: Place) -> Result<Sample> {
    let stamp = || {
        let before = Instant::now();
        let marker = stream.mark(true, at)?;
        match marker.wait_until(before.checked_add(LIMIT))? {
            true => Ok(Sample::between(
                before,
                Instant::now(),
                Stamp::Marker(marker),
            )),
            false => Err(explain::timeout(&marker, LIMIT)),
        }
    };
    let mut best: Sample = stamp()?;
    for _ in 1..STAMPS {
        best = best.or_closer(stamp()?);
    }
    Ok(best)
}
