//! A device's clock beside the host's: when its markers completed, by the host's monotonic clock.
//!
//! A correlation is one moment that was read on both clocks, with a bound on the error of that
//! reading. The way from there to a marker is a time on the device's clock. The two clocks drift
//! apart, so that the uncertainty grows with the length of that way. Two correlations measure the
//! drift, and a marker between them is placed between them.

use std::{
    cmp::Ordering,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    clock::{Clock, Elapsed, host_clock},
    contract::{MarkerImpl, Sample},
    core::DeviceCore,
    error::{Error, Result},
};

/// How fast a device's clock is taken to drift from the host's at most, where nobody has measured
/// it: two quartz oscillators, each of which may be off by 50 millionths.
pub(crate) const DRIFT_BOUND: f64 = 100e-6;

/// How far the drift of a moment is taken to be from a measured one at most, since oscillators
/// change with their temperature, and the system disciplines its clock.
pub(crate) const WANDER: f64 = 10e-6;

/// A moment on a device's clock and on the host's monotonic clock, by which markers of the device
/// get a [host time](crate::Marker::host_time). Made by
/// [`Device::correlate`](crate::Device::correlate).
///
/// It is a value: it says what was read, and stays as it is. With its [`age`](Correlation::age), it
/// tells less of what happens now, since clocks drift apart: a GPU's was seen to gain 6.2 µs in
/// every second. So the [uncertainty](Correlation::uncertainty_at) grows with the distance from
/// that moment, by 100 µs a second as long as nobody has measured the drift. That is enough for the
/// oscillators of two clocks, but not for a host's clock that is being set right faster than that.
///
/// Where it was read by a stamp, it keeps that as long as it lives: on CUDA and OpenCL an event, on
/// Vulkan without calibrated timestamps a query.
///
/// For an hour of work, take one every second or so, and place each marker by the
/// [two around it](Correlation::with_drift_since).
///
/// ```
/// use fencepost::Device;
///
/// let device = Device::open("host")?;
/// let correlation = device.correlate()?;
/// let marker = device.default_stream().record_timed()?;
/// marker.synchronize()?;
/// let time = marker.host_time(&correlation)?;
/// println!("{:?} ago, ±{:?}", time.instant().elapsed(), time.uncertainty());
/// # Ok::<(), fencepost::Error>(())
/// ```
#[derive(Clone)]
pub struct Correlation {
    device: Arc<DeviceCore>,
    sample: Sample,
    /// By which part of a second the device's clock gains on the host's in a second.
    drift: f64,
    /// How far the real drift may be from that.
    drift_bound: f64,
    /// The other end of the measurement of the drift, and the error there. The line of the drift
    /// goes through it.
    other: Option<(Instant, Duration)>,
}

impl Correlation {
    pub(crate) fn new(device: Arc<DeviceCore>, sample: Sample) -> Correlation {
        Correlation {
            device,
            drift: 0.0,
            drift_bound: if sample.is_host_clock {
                0.0
            } else {
                DRIFT_BOUND
            },
            sample,
            other: None,
        }
    }

    /// The clock of the device.
    ///
    /// ```
    /// # let device = fencepost::Device::open("host")?;
    /// assert_eq!(device.correlate()?.clock(), device.clock());
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn clock(&self) -> &Clock {
        &self.device.clock
    }

    /// The moment that was read on both clocks, on the host's.
    ///
    /// ```
    /// # let device = fencepost::Device::open("host")?;
    /// assert!(device.correlate()?.instant() <= std::time::Instant::now());
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn instant(&self) -> Instant {
        self.sample.host
    }

    /// How long ago that was.
    ///
    /// ```
    /// # let device = fencepost::Device::open("host")?;
    /// let correlation = device.correlate()?;
    /// assert!(correlation.age() <= correlation.age());
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn age(&self) -> Duration {
        self.sample.host.elapsed()
    }

    /// How far the two readings may be apart at most. Zero on the host, whose clock it is.
    ///
    /// ```
    /// # let device = fencepost::Device::open("host")?;
    /// assert!(device.correlate()?.uncertainty().is_zero());
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn uncertainty(&self) -> Duration {
        self.sample.error
    }

    /// How far the device's clock may be at `instant` from where this correlation puts it: the
    /// uncertainty of the readings, and what the clocks may drift from there to `instant`.
    ///
    /// ```
    /// use std::time::Duration;
    /// # let device = fencepost::Device::open("host")?;
    /// let correlation = device.correlate()?;
    /// let later = correlation.instant() + Duration::from_secs(60);
    /// assert!(correlation.uncertainty_at(later) >= correlation.uncertainty());
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn uncertainty_at(&self, instant: Instant) -> Duration {
        let here = (self.sample.host, self.sample.error);
        let other = self.other.unwrap_or(here);
        let (from, to) = if other.0 <= here.0 {
            (other, here)
        } else {
            (here, other)
        };
        // Of these two, one is zero.
        let (early, late) = (
            from.0.saturating_duration_since(instant),
            instant.saturating_duration_since(to.0),
        );
        if late > Duration::ZERO {
            to.1.saturating_add(part_of(late, self.drift_bound))
        } else if early > Duration::ZERO {
            from.1.saturating_add(part_of(early, self.drift_bound))
        } else {
            // Both ends are known. In between, the drift may first be more and then be less.
            let nearer = instant.duration_since(from.0).min(to.0 - instant);
            from.1.max(to.1).saturating_add(part_of(nearer, WANDER))
        }
    }

    /// How much faster than the host's clock the device's runs, in millionths: the microseconds
    /// that it gains in a second. 0 as long as it was [not
    /// measured](Correlation::with_drift_since).
    ///
    /// ```
    /// # let device = fencepost::Device::open("host")?;
    /// assert_eq!(device.correlate()?.drift_ppm(), 0.0);
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn drift_ppm(&self) -> f64 {
        self.drift * 1e6
    }

    /// How far the real drift may be from [`drift_ppm`](Correlation::drift_ppm), in millionths: the
    /// microseconds by which the uncertainty grows in a second.
    ///
    /// ```
    /// # let device = fencepost::Device::open("host")?;
    /// assert_eq!(device.correlate()?.drift_bound_ppm(), 0.0, "it is the host's own clock");
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn drift_bound_ppm(&self) -> f64 {
        self.drift_bound * 1e6
    }

    /// This correlation, with the drift that was measured between another one of the device and
    /// this one. Markers between the two are placed between them, with little more uncertainty than
    /// the two have; outside, the uncertainty grows by 10 µs a second, and by what the two tell of
    /// the drift. Never blocks.
    ///
    /// Two that are too close together to tell the drift within 100 millionths tell nothing: then
    /// this correlation comes back as it is.
    ///
    /// # Errors
    /// [`Error::DeviceMismatch`] for correlations of two devices; [`Error::Ambiguous`]; on CUDA,
    /// the failure of the device.
    ///
    /// ```
    /// use fencepost::Device;
    /// let device = Device::open("host")?;
    /// let before = device.correlate()?;
    /// let marker = device.default_stream().record_timed()?;
    /// marker.synchronize()?;
    /// let correlation = device.correlate()?.with_drift_since(&before)?;
    /// println!("{:.3} ppm", correlation.drift_ppm());
    /// println!("{:?}", marker.host_time(&correlation)?);
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn with_drift_since(&self, earlier: &Correlation) -> Result<Correlation> {
        if self.device.id != earlier.device.id {
            return Err(mismatch(
                "with_drift_since",
                self,
                earlier.device.to_string(),
            ));
        }
        let host = nanos_between(earlier.sample.host, self.sample.host);
        let device = earlier.sample.stamp.until(&self.sample.stamp)?;
        let errors = self.sample.error + earlier.sample.error;
        let unknown = errors.as_nanos() as f64 + uncertainty_of(&device);
        let drift_bound = unknown / host.abs() + WANDER;
        // The line goes through this reading, and reaches the other one by that interval.
        let other_error = earlier
            .sample
            .error
            .saturating_add(nanos(uncertainty_of(&device)));
        Ok(match drift_bound < self.drift_bound {
            true => Correlation {
                drift: device.as_nanos_f64() / host - 1.0,
                drift_bound,
                other: Some((earlier.sample.host, other_error)),
                ..self.clone()
            },
            // Also where the two are of one moment, and the quotient is no number.
            false => self.clone(),
        })
    }

    /// When `marker` completed: it is complete, timed, and of this device or of another one, which
    /// is an error.
    pub(crate) fn time_of(&self, marker: &dyn MarkerImpl) -> Result<HostTime> {
        let way = self.sample.stamp.elapsed(marker)?;
        let host = way.as_nanos_f64() / (1.0 + self.drift);
        let length = nanos(host.abs());
        let instant = match host < 0.0 {
            true => self.sample.host.checked_sub(length),
            false => self.sample.host.checked_add(length),
        };
        let reading = nanos(uncertainty_of(&way));
        Ok(match instant {
            Some(instant) => HostTime {
                instant,
                uncertainty: self.uncertainty_at(instant).saturating_add(reading),
            },
            // Beyond what the host's clock can tell.
            None => HostTime {
                instant: self.sample.host,
                uncertainty: length.saturating_add(reading),
            },
        })
    }

    /// An error unless `device` is the one that this correlation is of.
    pub(crate) fn check_device(&self, device: &DeviceCore, marker: &dyn MarkerImpl) -> Result<()> {
        match device.id == self.device.id {
            true => Ok(()),
            false => Err(mismatch("host_time", self, marker.to_string())),
        }
    }
}

fn mismatch(call: &'static str, correlation: &Correlation, other: String) -> Error {
    Error::DeviceMismatch {
        call,
        left: format!("a correlation of {}", correlation.device),
        right: other,
    }
}

/// How far a time on a device's clock may be from the truth, in nanoseconds.
fn uncertainty_of(elapsed: &Elapsed) -> f64 {
    elapsed.uncertainty().as_nanos() as f64
}

/// The nanoseconds from one instant to another, signed.
fn nanos_between(from: Instant, to: Instant) -> f64 {
    match to.checked_duration_since(from) {
        Some(forward) => forward.as_nanos() as f64,
        None => -(from.duration_since(to).as_nanos() as f64),
    }
}

/// A duration of that many nanoseconds, rounded up: no uncertainty is stated too small.
fn nanos(nanos: f64) -> Duration {
    Duration::from_nanos(nanos.ceil() as u64)
}

fn part_of(duration: Duration, part: f64) -> Duration {
    nanos(duration.as_nanos() as f64 * part)
}

/// As in `cuda:0, ±4.1µs, 1.2s ago, now ±124.1µs`.
impl fmt::Display for Correlation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let age = self.age();
        write!(
            f,
            "{}, ±{:.1?}, {age:.1?} ago, now ±{:.1?}",
            self.device,
            self.uncertainty(),
            self.uncertainty_at(self.sample.host + age)
        )
    }
}

impl fmt::Debug for Correlation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Correlation({self})")
    }
}

/// When something happened on a device, by the host's monotonic clock: an instant, and how far from
/// it the truth may be. Made by [`Marker::host_time`](crate::Marker::host_time).
///
/// Times of all devices are on this one axis, so that they compare: one is less than another where
/// it is earlier whatever the uncertainties hide. Where they overlap, the two do not compare.
///
/// ```
/// use fencepost::Device;
///
/// let (one, two) = (Device::new_host(1), Device::new_host(1));
/// let host_time = |device: &Device| {
///     let marker = device.default_stream().record_timed()?;
///     marker.synchronize()?;
///     marker.host_time(&device.correlate()?)
/// };
/// let (first, second) = (host_time(&one)?, host_time(&two)?);
/// assert!(!(second < first));
/// println!("{} later", first.elapsed(&second));
/// # Ok::<(), fencepost::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HostTime {
    instant: Instant,
    uncertainty: Duration,
}

impl HostTime {
    /// The most likely instant.
    ///
    /// ```
    /// # let device = fencepost::Device::open("host")?;
    /// # let marker = device.default_stream().record_timed()?;
    /// # marker.synchronize()?;
    /// let time = marker.host_time(&device.correlate()?)?;
    /// println!("{:?} ago", time.instant().elapsed());
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn instant(&self) -> Instant {
        self.instant
    }

    /// How far the truth may be from that instant, in either direction.
    ///
    /// ```
    /// # let device = fencepost::Device::open("host")?;
    /// # let marker = device.default_stream().record_timed()?;
    /// # marker.synchronize()?;
    /// let time = marker.host_time(&device.correlate()?)?;
    /// assert!(time.uncertainty() <= std::time::Duration::from_micros(1), "the host is exact");
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn uncertainty(&self) -> Duration {
        self.uncertainty
    }

    /// The earliest instant at which it may have happened.
    ///
    /// ```
    /// # let device = fencepost::Device::open("host")?;
    /// # let marker = device.default_stream().record_timed()?;
    /// # marker.synchronize()?;
    /// let time = marker.host_time(&device.correlate()?)?;
    /// assert!(time.earliest() <= time.instant());
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn earliest(&self) -> Instant {
        // The clock of some systems begins with the system.
        self.instant
            .checked_sub(self.uncertainty)
            .unwrap_or(self.instant)
    }

    /// The latest instant at which it may have happened.
    ///
    /// ```
    /// # let device = fencepost::Device::open("host")?;
    /// # let marker = device.default_stream().record_timed()?;
    /// # marker.synchronize()?;
    /// let time = marker.host_time(&device.correlate()?)?;
    /// assert!(time.latest() >= time.instant());
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn latest(&self) -> Instant {
        self.instant
            .checked_add(self.uncertainty)
            .unwrap_or(self.instant)
    }

    /// The time from this one to `end`, on the host's clock, also of another device. Negative if
    /// `end` is earlier. Its [uncertainty](Elapsed::uncertainty) is the sum of the two.
    ///
    /// ```
    /// # let device = fencepost::Device::open("host")?;
    /// # let stream = device.default_stream();
    /// let (start, end) = (stream.record_timed()?, stream.record_timed()?);
    /// end.synchronize()?;
    /// let correlation = device.correlate()?;
    /// let (start, end) = (start.host_time(&correlation)?, end.host_time(&correlation)?);
    /// assert!(!start.elapsed(&end).is_negative());
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn elapsed(&self, end: &HostTime) -> Elapsed {
        let uncertainty = self.uncertainty.saturating_add(end.uncertainty);
        let nanos = nanos_between(self.instant, end.instant);
        Elapsed::within(nanos, uncertainty.as_nanos() as f64, host_clock())
    }
}

/// One is less than another where it is earlier whatever the uncertainties hide; where they
/// overlap, the two do not compare.
///
/// ```
/// # let device = fencepost::Device::open("host")?;
/// # let stream = device.default_stream();
/// # let (start, end) = (stream.record_timed()?, stream.record_timed()?);
/// # end.synchronize()?;
/// # let correlation = device.correlate()?;
/// let (start, end) = (start.host_time(&correlation)?, end.host_time(&correlation)?);
/// assert!(!(end < start));
/// # Ok::<(), fencepost::Error>(())
/// ```
impl PartialOrd for HostTime {
    fn partial_cmp(&self, other: &HostTime) -> Option<Ordering> {
        if self == other {
            Some(Ordering::Equal)
        } else if self.latest() < other.earliest() {
            Some(Ordering::Less)
        } else if self.earliest() > other.latest() {
            Some(Ordering::Greater)
        } else {
            None
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        clock::Timestamp,
        contract::Stamp,
        core::{Callbacks, Job, StreamCore},
        place::Place,
        timeline::{Awaited, Point, Timeline},
    };

    const SECOND: u64 = 1_000_000_000;

    struct Never;
    impl Callbacks for Never {
        fn push(&self, _: Job) {}
        fn start(&self) {}
        fn panics(&self) -> u64 {
            0
        }
    }

    /// A device whose clock began somewhere, and drifts by so many millionths.
    struct Simulated {
        core: Arc<DeviceCore>,
        stream: Arc<StreamCore>,
        began: Instant,
        origin: u64,
        drift: f64,
    }

    struct TimedMarker(Point, Timestamp);
    impl Awaited for TimedMarker {
        fn point(&self) -> &Point {
            &self.0
        }
        fn query(&self) -> Result<bool> {
            Ok(true)
        }
    }
    impl MarkerImpl for TimedMarker {
        fn wait_until(&self, _: Option<Instant>) -> Result<bool> {
            Ok(true)
        }
        fn timestamp(&self) -> Result<Timestamp> {
            Ok(self.1.clone())
        }
    }

    impl Simulated {
        fn new(origin: u64, drift: f64) -> Simulated {
            let clock = Clock::new("test", 1.0, 64, Duration::from_nanos(1));
            let core = DeviceCore::new("a device", clock, Arc::new(Never));
            Simulated {
                stream: StreamCore::new(core.clone()),
                core,
                // Far enough from the beginning of the system's clock for what tests go back.
                began: Instant::now(),
                origin,
                drift,
            }
        }

        fn read(&self, at: u64) -> Timestamp {
            let ran = at as f64 * (1.0 + self.drift / 1e6);
            Timestamp::new(
                self.origin.wrapping_add(ran as u64),
                self.core.clock.clone(),
            )
        }

        fn host(&self, at: u64) -> Instant {
            self.began + Duration::from_nanos(at)
        }

        /// Both clocks, where the host's is read `late`, and `error` is what is said of that.
        fn correlate(&self, at: u64, late: i64, error: u64) -> Correlation {
            Correlation::new(
                self.core.clone(),
                Sample {
                    stamp: Stamp::Clock(self.read(at)),
                    host: self.host(at.saturating_add_signed(late)),
                    error: Duration::from_nanos(error),
                    is_host_clock: false,
                },
            )
        }

        fn marker(&self, at: u64) -> TimedMarker {
            let point = Point {
                timeline: Timeline::new(self.stream.clone(), 0),
                value: 1,
                at: Place::caller(),
                timing: true,
            };
            TimedMarker(point, self.read(at))
        }
    }

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn an_old_correlation_is_uncertain() {
        let correlation = Simulated::new(7, 0.0).correlate(SECOND, 0, 2000);
        let at = |seconds| correlation.instant() + Duration::from_secs(seconds);
        let error = correlation.uncertainty();
        assert_eq!(error, Duration::from_micros(2));
        assert_eq!(correlation.uncertainty_at(at(0)), error);
        assert_eq!(
            correlation.uncertainty_at(at(1)),
            error + Duration::from_micros(100)
        );
        assert_eq!(correlation.uncertainty_at(at(100)), error + millis(10));
        let before = correlation.instant() - Duration::from_secs(1);
        assert_eq!(
            correlation.uncertainty_at(before),
            error + Duration::from_micros(100)
        );
    }

    #[test]
    fn two_correlations_measure_the_drift() {
        let device = Simulated::new(1 << 60, 6.2);
        let first = device.correlate(0, 0, 2000);
        let last = device.correlate(100 * SECOND, 0, 2000);
        for line in [last.with_drift_since(&first), first.with_drift_since(&last)] {
            let line = line.unwrap();
            assert!(
                (line.drift_ppm() - 6.2).abs() < 1e-3,
                "{}",
                line.drift_ppm()
            );
            let bound = line.drift_bound_ppm();
            assert!(
                (10.04..10.05).contains(&bound),
                "4 µs in 100 s, and 10: {bound}"
            );
            // In between it is the distance from the nearer one that counts.
            let halfway = device.host(50 * SECOND);
            let most = Duration::from_micros(2 + 500) + Duration::from_nanos(2);
            assert!(line.uncertainty_at(halfway) <= most);
            let marker = line.time_of(&device.marker(50 * SECOND)).unwrap();
            let off = nanos_between(halfway, marker.instant());
            assert!(off.abs() < 3.0, "{off} ns");
        }
    }

    /// The line of the drift goes through the other end too, as far as the interval is known.
    #[test]
    fn at_the_other_end_of_a_drift_the_interval_counts_too() {
        let resolution = Duration::from_micros(500);
        let clock = Clock::new("test", 1.0, 64, resolution);
        let mut device = Simulated::new(7, 0.0);
        device.core = DeviceCore::new("a device", clock, Arc::new(Never));
        let first = device.correlate(0, 0, 2000);
        let last = device.correlate(100 * SECOND, 0, 2000);
        let line = last.with_drift_since(&first).unwrap();
        assert!(line.drift_bound_ppm() < 100.0);
        assert!(line.uncertainty_at(first.instant()) >= first.uncertainty() + resolution);
        assert_eq!(
            line.uncertainty_at(last.instant() + Duration::ZERO)
                .as_micros(),
            502
        );
    }

    #[test]
    fn two_correlations_of_one_moment_tell_nothing_of_the_drift() {
        let device = Simulated::new(1, 6.2);
        let first = device.correlate(SECOND, 0, 2000);
        for at in [0, 1, 1000, 40_000_000] {
            let second = device.correlate(SECOND + at, 0, 2000);
            let line = second.with_drift_since(&first).unwrap();
            assert_eq!((line.drift_ppm(), line.drift_bound_ppm()), (0.0, 100.0));
        }
        let other = Simulated::new(1, 0.0).correlate(SECOND, 0, 0);
        let error = first.with_drift_since(&other).unwrap_err();
        assert!(matches!(error, Error::DeviceMismatch { .. }));
    }

    #[test]
    fn overlapping_times_do_not_compare() {
        let began = Instant::now();
        let time = |at, uncertainty| HostTime {
            instant: began + millis(at),
            uncertainty: millis(uncertainty),
        };
        assert!(time(10, 1) < time(13, 1));
        assert!(time(13, 1) > time(10, 1));
        assert_eq!(time(10, 1).partial_cmp(&time(12, 1)), None);
        assert_eq!(time(10, 1).partial_cmp(&time(10, 1)), Some(Ordering::Equal));
        assert_eq!(time(10, 1).elapsed(&time(13, 9)).as_millis_f64(), 3.0);
        assert_eq!(time(13, 9).elapsed(&time(10, 1)).as_millis_f64(), -3.0);
        assert!(time(10, 1).elapsed(&time(13, 9)).uncertainty() >= millis(10));
    }

    proptest! {
        /// Whatever the clocks do within their bounds, the truth is within the uncertainty.
        #[test]
        fn a_host_time_is_within_its_uncertainty(
            origin in any::<u64>(),
            drift in -99.0..99.0_f64,
            first in 3600 * SECOND..7200 * SECOND,
            later in 0..3600 * SECOND,
            at in 0..10_000 * SECOND,
            errors in prop::array::uniform2((0..100_000_i64, any::<bool>())),
        ) {
            let device = Simulated::new(origin, drift);
            let correlate = |at, (error, late): (i64, bool)| {
                device.correlate(at, if late { error } else { -error }, error as u64)
            };
            let one = correlate(first, errors[0]);
            let two = correlate(first + later, errors[1]);
            let (marker, truth) = (device.marker(at), device.host(at));
            let line = two.with_drift_since(&one).unwrap();
            for correlation in [one, two, line] {
                let time = correlation.time_of(&marker).unwrap();
                // The clock of this device counts whole nanoseconds, in steps of an f64.
                let slack = Duration::from_nanos(2);
                prop_assert!(time.earliest() <= truth + slack, "{correlation:?}: {time:?}");
                prop_assert!(truth <= time.latest() + slack, "{correlation:?}: {time:?}");
            }
        }
    }
}
