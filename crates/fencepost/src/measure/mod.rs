//! How long a call takes on the device.
//!
//! A pair of events around one call of a short kernel says how long its *launch* took: the device
//! waits for the host between the two. [`measure`](crate::measure()) holds the stream with a
//! [`Gate`](crate::Gate) while it queues, so that the device never waits, and takes the slope
//! between two runs of a different number of calls, so that what the events cost cancels out. What
//! is left is what one call takes in a row.
//!
//! ```
//! use fencepost::{Device, measure};
//!
//! let stream = Device::open("host")?.new_stream()?;
//! let found = measure(&stream, || stream.launch(|| { std::hint::black_box(7 * 6); }))?;
//! println!("{found}");
//! # Ok::<(), fencepost::Error>(())
//! ```
//!
//! # What it does
//! 1. It waits for what is queued on the stream, calls the function once, then a few times more,
//!    and waits for each call. The stream is never held in this warm-up.
//! 2. It takes samples in batches. For each batch it holds the stream and queues, for each sample,
//!    two timed records, one call, a third record, several calls, and a fourth record. Then it lets
//!    the stream go. The first two records are an empty pair.
//! 3. It stops once there are twenty samples and the 95 % interval of their median is within 1 % of
//!    it, or once the budget is spent.
//!
//! Batches grow while the stream's queue takes them. The events, the gate and the memory for cold
//! caches are made before the stream is held.
//!
//! # Functions that do not return while the stream is held
//! A function that waits for the device, or does what the driver refuses while a stream is held
//! (see [`Gate`](crate::Gate)), never returns on a held stream. So a thread of the library opens
//! the gate after 20 ms, or after five times as long as the batch took to queue in the warm-up if
//! that is more; but no later than the budget on top of that time. That batch is dropped. If it
//! happens again, with a single call, the stream is not held any more. Nor is it after an error
//! that took long to come: the function may have a deadline, which it misses because the stream is
//! held. The error is passed on if it recurs. Samples of the held stream are dropped then, and the
//! result says that it is not gated, and why: [`Note::Ungated`].
//!
//! Nor is it held where the driver itself waits for each launch, or a tool looks at each:
//! under `CUDA_LAUNCH_BLOCKING=1`, profilers that are attached from outside (by an environment
//! variable, as Nsight's are) and `compute-sanitizer`. A profiler that the program itself starts is
//! not seen here; in Python that of PyTorch is.

mod hold;
mod options;
mod picture;
pub(crate) mod report;
mod row;
mod sampling;
mod seconds;
mod statistics;

use crate::{
    error::{Error, Result},
    stream::Stream,
};

use self::sampling::Sampler;
pub use self::{
    options::Measure,
    report::{Measurement, Note},
    row::{Row, in_a_row},
};

/// Measures how long one call of `f` takes on the device, with a budget of 0.2 s and a warm cache.
/// `f` queues the work of one call on `stream`. See [`Measure::run`].
///
/// # Errors
/// Those of [`Measure::run`].
///
/// ```
/// use fencepost::{Device, measure};
///
/// let stream = Device::open("host")?.new_stream()?;
/// let found = measure(&stream, || stream.launch(|| { std::hint::black_box(7 * 6); }))?;
/// assert!(!found.samples().is_empty());
/// # Ok::<(), fencepost::Error>(())
/// ```
pub fn measure<E: From<Error>>(
    stream: &Stream,
    f: impl FnMut() -> Result<(), E>,
) -> Result<Measurement, E> {
    Measure::new(stream).run(f)
}

impl Measure<'_> {
    /// Measures how long one call of `f` takes on the device, as the [module](mod@crate::measure)
    /// says. `f` queues the work of one call on the stream and returns. It is called on this
    /// thread, some dozens to thousands of times. Blocks for about the budget.
    ///
    /// If `f` returns an error, or panics, the stream is let go, and the error or the panic is
    /// passed on; an error that took long to come on the held stream only if it recurs on one that
    /// is not held.
    ///
    /// # Errors
    /// Those of `f`. [`Error::Unsupported`] for a budget of zero, for a stream that is being
    /// captured into a graph, and for a cold cache on a device whose cache is not known; those of
    /// [`Stream::record_timed`] and [`Stream::synchronize`].
    ///
    /// # References
    /// - those of [`Gate::wait`](crate::Gate::wait), [`Event::record`](crate::Event::record) and
    ///   [`Event::elapsed`](crate::Event::elapsed)
    /// - a cold cache: [`cuMemsetD32Async`](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__MEM.html),
    ///   [`clEnqueueFillBuffer`](https://registry.khronos.org/OpenCL/specs/3.0-unified/html/OpenCL_API.html#clEnqueueFillBuffer);
    ///   on the host a buffer that is written
    /// - the interval: [Hyndman and Fan, *Sample quantiles in statistical
    ///   packages*](https://doi.org/10.2307/2684934) for quantiles; order statistics of the
    ///   binomial distribution for the interval of the median
    ///
    /// ```
    /// # let stream = fencepost::Device::open("host")?.new_stream()?;
    /// let found = fencepost::measure::Measure::new(&stream).run(|| stream.launch(|| ()))?;
    /// println!("{:.1} ns a call", found.median() * 1e9);
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn run<E: From<Error>>(
        &self,
        mut f: impl FnMut() -> Result<(), E>,
    ) -> Result<Measurement, E> {
        self.run_and_look(&mut f, &mut || Ok(()), None)
    }

    /// See [`crate::bindings::measure`].
    pub(crate) fn run_and_look<E: From<Error>>(
        &self,
        f: &mut dyn FnMut() -> Result<(), E>,
        look: &mut dyn FnMut() -> Result<(), E>,
        ungated: Option<String>,
    ) -> Result<Measurement, E> {
        if self.budget.is_zero() {
            return Err(self.unsupported("a budget of zero", "give it some time, such as 0.2 s"));
        }
        Sampler::new(self, f, look).run(ungated)
    }
}
