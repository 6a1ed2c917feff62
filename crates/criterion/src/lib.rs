//! Device time for [criterion]: how long work takes on the device's own clock, by the events of
//! [fencepost].
//!
//! [`DeviceTime`] is a measurement of criterion's. [`OnDevice::iter_on_device`] is how a benchmark
//! runs on it: it holds the stream while calls are queued, so that the host's speed plays no part.
//!
//! ```
//! use criterion::Criterion;
//! use fencepost::Device;
//! use fencepost_criterion::{DeviceTime, OnDevice as _};
//!
//! let stream = Device::open("host")?.new_stream()?;
//! let mut criterion = Criterion::default().with_measurement(DeviceTime::new(&stream));
//! # let mut criterion = criterion
//! #     .without_plots()
//! #     .warm_up_time(std::time::Duration::from_millis(10))
//! #     .measurement_time(std::time::Duration::from_millis(20))
//! #     .sample_size(10)
//! #     .output_directory(&std::env::temp_dir().join("fencepost-criterion-doctest"));
//! criterion.bench_function("sum", |bencher| {
//!     bencher.iter_on_device(&stream, || {
//!         stream.launch(|| { std::hint::black_box((0..100).sum::<u64>()); })
//!     });
//! });
//! # Ok::<(), fencepost::Error>(())
//! ```
//!
//! # How many calls are made
//! Criterion decides by the host's clock alone how many calls it asks for, and doubles their number
//! until enough time has passed. A routine that reports device time but spends no time on the host
//! is asked for 2^63 calls. `iter_on_device` makes each call that it is asked for, and waits for
//! all of them, so the two clocks stay together. A routine of your own for `iter_custom` must do
//! the same.
#![deny(missing_docs, unsafe_code)]

use std::{
    any::type_name_of_val,
    collections::HashSet,
    fmt,
    sync::{Mutex, PoisonError},
};

use criterion::{
    Bencher,
    measurement::{Measurement, ValueFormatter, WallTime},
};
use fencepost::{
    Marker, Result, Stream,
    measure::{Note, in_a_row},
};

/// Time on the clock of a stream's device, in nanoseconds.
///
/// [`Bencher::iter`] with it times what is on the stream between two timed records, one before and
/// one after all calls, and waits for the second. The stream is not held then: see
/// [`OnDevice::iter_on_device`].
///
/// # Panics
/// Criterion's trait has no way to return an error, so [`start`](Measurement::start) and
/// [`end`](Measurement::end) panic with the text of the [error](fencepost::Error) where the stream
/// fails, or where its device has no clock.
///
/// ```
/// use criterion::measurement::Measurement as _;
/// use fencepost_criterion::DeviceTime;
///
/// let stream = fencepost::Device::open("host")?.new_stream()?;
/// let time = DeviceTime::new(&stream);
/// let start = time.start();
/// stream.launch(|| { std::hint::black_box(7 * 6); })?;
/// println!("{} ns", time.end(start));
/// # Ok::<(), fencepost::Error>(())
/// ```
pub struct DeviceTime {
    stream: Stream,
    /// For the texts: its values are nanoseconds too.
    wall: WallTime,
}

impl DeviceTime {
    /// Times what is done on `stream`.
    ///
    /// ```
    /// let stream = fencepost::Device::open("host")?.default_stream();
    /// let time = fencepost_criterion::DeviceTime::new(&stream);
    /// # drop(time);
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn new(stream: &Stream) -> DeviceTime {
        DeviceTime {
            stream: stream.clone(),
            wall: WallTime,
        }
    }
}

impl fmt::Debug for DeviceTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceTime({})", self.stream)
    }
}

impl Measurement for DeviceTime {
    type Intermediate = Marker;
    type Value = f64;

    fn start(&self) -> Marker {
        or_panic(self.stream.record_timed())
    }

    fn end(&self, start: Marker) -> f64 {
        let end = or_panic(self.stream.record_timed());
        or_panic(end.synchronize());
        or_panic(start.elapsed(&end)).as_nanos_f64()
    }

    fn add(&self, one: &f64, two: &f64) -> f64 {
        one + two
    }

    fn zero(&self) -> f64 {
        0.0
    }

    fn to_f64(&self, nanos: &f64) -> f64 {
        *nanos
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        self.wall.formatter()
    }
}

/// Runs a benchmark on a device. For every [`Bencher`] whose measurement is [`DeviceTime`].
///
/// ```
/// use fencepost_criterion::{DeviceTime, OnDevice as _};
///
/// fn bench(bencher: &mut criterion::Bencher<'_, DeviceTime>, stream: &fencepost::Stream) {
///     bencher.iter_on_device(stream, || stream.launch(|| ()));
/// }
/// ```
pub trait OnDevice {
    /// Times calls of `f`, which queues the work of one call on `stream` and returns.
    ///
    /// The stream is held while calls are queued ([`in_a_row`]), so that short work is not measured
    /// by how fast the host launches it. Where it cannot be held, the time is that of the slower of
    /// host and device, and a line on the standard error says so, once for each `f`. Blocks until
    /// all calls are complete.
    ///
    /// # Panics
    /// With the text of the error, if `f` returns one or the stream fails.
    ///
    /// ```
    /// # use fencepost_criterion::{DeviceTime, OnDevice as _};
    /// fn bench(bencher: &mut criterion::Bencher<'_, DeviceTime>, stream: &fencepost::Stream) {
    ///     bencher.iter_on_device(stream, || stream.launch(|| ()));
    /// }
    /// ```
    fn iter_on_device(&mut self, stream: &Stream, f: impl FnMut() -> Result<()>);
}

impl OnDevice for Bencher<'_, DeviceTime> {
    fn iter_on_device(&mut self, stream: &Stream, mut f: impl FnMut() -> Result<()>) {
        self.iter_custom(|calls| {
            let row = or_panic(in_a_row(stream, calls, &mut f));
            if let Some(note) = &row.ungated {
                tell_once(type_name_of_val(&f), note);
            }
            row.seconds * 1e9
        });
    }
}

/// Tells that the function of this type, which no other benchmark has, was measured ungated.
/// Criterion runs it once for each sample.
fn tell_once(function: &'static str, note: &Note) {
    static TOLD: Mutex<Option<HashSet<&str>>> = Mutex::new(None);
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    if told.get_or_insert_default().insert(function) {
        eprintln!("fencepost-criterion: {function}: {note}");
    }
}

fn or_panic<T>(result: Result<T>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}
