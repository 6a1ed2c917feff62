//! How to measure.

use std::time::Duration;

use crate::{error::Error, stream::Stream};

/// How to measure. [`measure`](crate::measure()) is the short way.
///
/// ```
/// use std::time::Duration;
/// use fencepost::{Device, measure::Measure};
///
/// let stream = Device::open("host")?.new_stream()?;
/// let found = Measure::new(&stream)
///     .budget(Duration::from_millis(50))
///     .run(|| stream.launch(|| { std::hint::black_box(7 * 6); }))?;
/// println!("{found}");
/// # Ok::<(), fencepost::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Measure<'a> {
    pub(super) stream: &'a Stream,
    pub(super) budget: Duration,
    pub(super) cold: bool,
    /// How long the gate stays closed at least.
    pub(super) hold: Duration,
}

impl<'a> Measure<'a> {
    /// Measures on `stream`, for 0.2 s at most, with a warm cache. Does nothing yet.
    ///
    /// ```
    /// # let stream = fencepost::Device::open("host")?.new_stream()?;
    /// let found = fencepost::measure::Measure::new(&stream).run(|| stream.launch(|| ()))?;
    /// # drop(found);
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn new(stream: &'a Stream) -> Measure<'a> {
        Measure {
            stream,
            budget: Duration::from_millis(200),
            cold: false,
            hold: Duration::from_millis(20),
        }
    }

    /// For how long samples are taken at most, on the host's clock. The warm-up comes on top: the
    /// first call; then three more, or as many as spend the budget if that is fewer; and yet more
    /// for up to a tenth of the budget and 10 ms. If a call takes longer than some milliseconds to
    /// queue, one on the held stream follows, to see whether the function returns there. At least
    /// one sample is taken, however long it lasts: three calls, or one with a cold cache.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # let stream = fencepost::Device::open("host")?.new_stream()?;
    /// let measure = fencepost::measure::Measure::new(&stream).budget(Duration::from_secs(1));
    /// # drop(measure);
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    #[must_use]
    pub fn budget(mut self, budget: Duration) -> Measure<'a> {
        self.budget = budget;
        self
    }

    /// Whether memory larger than the device's last cache is written before each sample, so that
    /// the call finds nothing of its own in there. The time of that write does not count. A sample
    /// is then a single call less an empty pair. The host, CUDA and OpenCL know the size of their
    /// caches, and on the others it is [`Error::Unsupported`]. On CUDA twice the size of the L2
    /// cache is taken of the device's memory by the first such measurement, and kept for the next
    /// ones.
    ///
    /// ```
    /// # let stream = fencepost::Device::open("host")?.new_stream()?;
    /// let cold = fencepost::measure::Measure::new(&stream).cold(true);
    /// # drop(cold);
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    #[must_use]
    pub fn cold(mut self, cold: bool) -> Measure<'a> {
        self.cold = cold;
        self
    }

    pub(super) fn unsupported<E: From<Error>>(&self, what: &str, remedy: &str) -> E {
        E::from(Error::Unsupported {
            what: format!("measuring with {what}"),
            device: self.stream.device().name().into(),
            remedy: remedy.into(),
        })
    }
}
