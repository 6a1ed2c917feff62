//! Reading a device's clock by a stamp of its own, between two reads of the host's: for devices
//! whose clock the API does not read beside the host's.

use std::time::{Duration, Instant};

use crate::{
    contract::{Look, Sample, Stamp, StreamImpl},
    error::{Error, Result},
    explain,
    place::Place,
};

/// How many stamps are made: the closest one counts. The first ones may wait for earlier work on
/// the hardware queue, or for a GPU that is waking up.
const STAMPS: usize = 8;

/// How long all stamps may take. Behind work that is held back one takes for ever.
const LIMIT: Duration = Duration::from_secs(10);

/// How long a wait goes on before it looks whether to go on.
const SLICE: Duration = Duration::from_millis(50);

/// Makes stamps on `stream`, on which nothing else is, and waits for each. The device made a stamp
/// at some time between the host's read before its record and the one after its completion. If the
/// time is over after the first, those that there are count.
pub(crate) fn sample(stream: &dyn StreamImpl, at: Place, look: Look<'_>) -> Result<Sample> {
    let began = Instant::now();
    let mut best = stamp(stream, at, began, look)?;
    for _ in 1..STAMPS {
        match stamp(stream, at, began, look) {
            Err(Error::Timeout(_)) => break,
            next => best = best.or_closer(next?),
        }
    }
    Ok(best)
}

fn stamp(stream: &dyn StreamImpl, at: Place, began: Instant, look: Look<'_>) -> Result<Sample> {
    let deadline = began + LIMIT;
    let before = Instant::now();
    let marker = stream.mark(true, at)?;
    loop {
        let slice = deadline.min(Instant::now() + SLICE);
        if marker.wait_until(Some(slice))? {
            let stamp = Stamp::Marker(marker);
            return Ok(Sample::between(before, Instant::now(), stamp));
        }
        if Instant::now() >= deadline || !look() {
            return Err(explain::timeout(&marker, began.elapsed().min(LIMIT)));
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::{device::Device, gate::Gate};

    #[test]
    fn a_stamp_that_is_held_back_ends_when_the_caller_says_so() {
        let device = Device::open("host").unwrap();
        let stream = device.new_stream().unwrap();
        let gate = Gate::new(&device).unwrap();
        gate.wait(&stream).unwrap();
        let mut looks = 0;
        let mut look = || {
            looks += 1;
            looks < 2
        };
        let began = Instant::now();
        let held = sample(stream.imp(), Place::caller(), &mut look);
        let Err(Error::Timeout(timeout)) = held else {
            panic!("it did not end");
        };
        assert!(timeout.limit <= began.elapsed(), "it says {timeout}");
        gate.open();
        assert!(sample(stream.imp(), Place::caller(), &mut || true).is_ok());
        assert_eq!(looks, 2);
    }
}
