//! Clocks, timestamps on them, and the time between two timestamps.
//!
//! A timestamp is raw ticks and the clock they were read from. A duration is computed on the
//! difference of ticks, masked by the clock's valid bits, and only then scaled: so a counter that
//! wraps once between two readings gives the right answer, and no precision is lost to a large
//! absolute value. Timestamps of two clocks never mix.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use crate::{
    error::{Error, Result},
    sync::Ids,
};

/// The clock a device stamps its markers with.
///
/// Cheap to clone; two clocks are equal when timestamps read from them may be compared.
///
/// ```
/// let device = fencepost::Device::open("host")?;
/// let clock = device.clock();
/// println!("{clock}");
/// assert_eq!(clock.valid_bits(), 64);
/// # Ok::<(), fencepost::Error>(())
/// ```
///
/// # References
/// - host: [`std::time::Instant`]
/// - Vulkan: [`timestampPeriod`,
///   `timestampValidBits`](https://registry.khronos.org/vulkan/specs/latest/html/vkspec.html#queries-timestamps)
#[derive(Clone)]
pub struct Clock(Arc<Facts>);

struct Facts {
    id: u64,
    name: String,
    tick_ns: f64,
    valid_bits: u32,
    resolution: Duration,
}

impl Clock {
    /// A clock of its own identity. `valid_bits` from 1 to 64; `tick_ns` is the length of a tick.
    pub(crate) fn new(
        name: impl Into<String>,
        tick_ns: f64,
        valid_bits: u32,
        resolution: Duration,
    ) -> Clock {
        static NEXT: Ids = Ids::new();
        Clock(Arc::new(Facts {
            id: NEXT.next(),
            name: name.into(),
            tick_ns,
            valid_bits: valid_bits.clamp(1, 64),
            resolution,
        }))
    }

    /// The clock's name, such as `host monotonic`.
    ///
    /// ```
    /// # let device = fencepost::Device::open("host")?;
    /// assert_eq!(device.clock().name(), "host monotonic");
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The smallest time this clock can tell apart.
    ///
    /// ```
    /// # let device = fencepost::Device::open("host")?;
    /// assert!(device.clock().resolution() <= std::time::Duration::from_micros(1));
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn resolution(&self) -> Duration {
        self.0.resolution
    }

    /// The length of one tick in nanoseconds.
    ///
    /// ```
    /// # let device = fencepost::Device::open("host")?;
    /// assert_eq!(device.clock().tick_nanos(), 1.0);
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn tick_nanos(&self) -> f64 {
        self.0.tick_ns
    }

    /// How many low bits of a tick count are meaningful; the counter wraps behind them.
    ///
    /// ```
    /// # let device = fencepost::Device::open("host")?;
    /// assert_eq!(device.clock().valid_bits(), 64);
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn valid_bits(&self) -> u32 {
        self.0.valid_bits
    }

    /// The time from one reading of `bits` valid bits to another. A clock's readings may have more
    /// valid bits than the clock promises for all of them.
    pub(crate) fn between(&self, bits: u32, start: u64, end: u64) -> Elapsed {
        let ticks = ticks_between(bits.clamp(1, 64), start, end);
        Elapsed {
            nanos: ticks as f64 * self.0.tick_ns,
            clock: self.clone(),
        }
    }
}

/// The signed number of ticks from `start` to `end`, of `bits` valid bits, right across one wrap.
fn ticks_between(bits: u32, start: u64, end: u64) -> i64 {
    let unused = 64 - bits;
    // Shifting the valid bits to the top makes the arithmetic wrap where the counter does and puts
    // its sign where i64 has its own.
    let difference = (end << unused).wrapping_sub(start << unused);
    (difference as i64) >> unused
}

impl PartialEq for Clock {
    fn eq(&self, other: &Clock) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for Clock {}

impl Hash for Clock {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.id.hash(state);
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({self})")
    }
}

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {:?}", self.0.name, self.0.resolution)
    }
}

/// A point in time on one clock, in raw ticks.
///
/// ```
/// use fencepost::Device;
///
/// let stream = Device::open("host")?.default_stream();
/// let marker = stream.record_timed()?;
/// marker.synchronize()?;
/// let stamp = marker.timestamp()?;
/// println!("{} ticks of {}", stamp.ticks(), stamp.clock());
/// # Ok::<(), fencepost::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Timestamp {
    ticks: u64,
    clock: Clock,
}

impl Timestamp {
    pub(crate) fn new(ticks: u64, clock: Clock) -> Timestamp {
        Timestamp { ticks, clock }
    }

    /// The raw tick count; only the clock's valid bits mean anything.
    ///
    /// ```
    /// # let stream = fencepost::Device::open("host")?.default_stream();
    /// # let marker = stream.record_timed()?;
    /// # marker.synchronize()?;
    /// assert!(marker.timestamp()?.ticks() > 0);
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn ticks(&self) -> u64 {
        self.ticks
    }

    /// The clock the ticks were read from.
    ///
    /// ```
    /// # let device = fencepost::Device::open("host")?;
    /// # let marker = device.default_stream().record_timed()?;
    /// # marker.synchronize()?;
    /// assert_eq!(marker.timestamp()?.clock(), device.clock());
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The time from this timestamp to `end`: negative when `end` is the earlier one.
    ///
    /// # Errors
    /// [`Error::DeviceMismatch`] when the two are of different clocks.
    ///
    /// ```
    /// # let stream = fencepost::Device::open("host")?.default_stream();
    /// let (a, b) = (stream.record_timed()?, stream.record_timed()?);
    /// b.synchronize()?;
    /// let (a, b) = (a.timestamp()?, b.timestamp()?);
    /// assert!(a.elapsed(&b)?.as_nanos_f64() >= 0.0);
    /// assert!(b.elapsed(&a)?.as_nanos_f64() <= 0.0);
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn elapsed(&self, end: &Timestamp) -> Result<Elapsed> {
        if self.clock != end.clock {
            return Err(Error::DeviceMismatch {
                call: "elapsed",
                left: format!("the clock \"{}\"", self.clock.name()),
                right: format!("the clock \"{}\"", end.clock.name()),
            });
        }
        let bits = self.clock.0.valid_bits;
        Ok(self.clock.between(bits, self.ticks, end.ticks))
    }
}

/// The time between two markers: a signed duration, and the clock it was measured on.
///
/// Never clamped: an end that comes before its start is negative.
///
/// ```
/// use fencepost::{Device, Event};
///
/// let device = Device::open("host")?;
/// let stream = device.default_stream();
/// let (start, end) = (Event::with_timing(&device), Event::with_timing(&device));
/// start.record(&stream)?;
/// stream.launch(|| { std::hint::black_box(7 * 6); })?;
/// end.record(&stream)?;
/// end.synchronize()?;
/// let elapsed = start.elapsed(&end)?;
/// println!("{elapsed}, read from {}", elapsed.clock());
/// assert!(!elapsed.is_negative());
/// # Ok::<(), fencepost::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Elapsed {
    nanos: f64,
    clock: Clock,
}

impl Elapsed {
    /// For backends whose driver tells differences only.
    #[cfg_attr(not(feature = "cuda"), allow(dead_code))]
    pub(crate) fn new(nanos: f64, clock: Clock) -> Elapsed {
        Elapsed { nanos, clock }
    }

    /// Nanoseconds, signed.
    ///
    /// ```
    /// # let stream = fencepost::Device::open("host")?.default_stream();
    /// # let (a, b) = (stream.record_timed()?, stream.record_timed()?);
    /// # b.synchronize()?;
    /// assert!(a.elapsed(&b)?.as_nanos_f64() >= 0.0);
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn as_nanos_f64(&self) -> f64 {
        self.nanos
    }

    /// Milliseconds, signed: torch's and CUDA's unit.
    ///
    /// ```
    /// # let stream = fencepost::Device::open("host")?.default_stream();
    /// # let (a, b) = (stream.record_timed()?, stream.record_timed()?);
    /// # b.synchronize()?;
    /// let elapsed = a.elapsed(&b)?;
    /// assert_eq!(elapsed.as_millis_f64(), elapsed.as_nanos_f64() / 1e6);
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn as_millis_f64(&self) -> f64 {
        self.nanos / 1e6
    }

    /// Seconds, signed.
    ///
    /// ```
    /// # let stream = fencepost::Device::open("host")?.default_stream();
    /// # let (a, b) = (stream.record_timed()?, stream.record_timed()?);
    /// # b.synchronize()?;
    /// let elapsed = a.elapsed(&b)?;
    /// assert_eq!(elapsed.as_secs_f64(), elapsed.as_nanos_f64() / 1e9);
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn as_secs_f64(&self) -> f64 {
        self.nanos / 1e9
    }

    /// Whether the end came before the start.
    ///
    /// ```
    /// # let stream = fencepost::Device::open("host")?.default_stream();
    /// # let (a, b) = (stream.record_timed()?, stream.record_timed()?);
    /// # b.synchronize()?;
    /// assert!(!a.elapsed(&b)?.is_negative());
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn is_negative(&self) -> bool {
        self.nanos < 0.0
    }

    /// The length without the sign.
    ///
    /// ```
    /// # let stream = fencepost::Device::open("host")?.default_stream();
    /// # let (a, b) = (stream.record_timed()?, stream.record_timed()?);
    /// # b.synchronize()?;
    /// assert_eq!(a.elapsed(&b)?.unsigned(), b.elapsed(&a)?.unsigned());
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn unsigned(&self) -> Duration {
        Duration::from_nanos(self.nanos.abs().round() as u64)
    }

    /// The clock that was used; its [`resolution`](Clock::resolution) bounds what the figure means.
    ///
    /// ```
    /// # let device = fencepost::Device::open("host")?;
    /// # let stream = device.default_stream();
    /// # let (a, b) = (stream.record_timed()?, stream.record_timed()?);
    /// # b.synchronize()?;
    /// assert_eq!(a.elapsed(&b)?.clock(), device.clock());
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The smallest time the clock can tell apart.
    ///
    /// ```
    /// # let device = fencepost::Device::open("host")?;
    /// # let stream = device.default_stream();
    /// # let (a, b) = (stream.record_timed()?, stream.record_timed()?);
    /// # b.synchronize()?;
    /// assert_eq!(a.elapsed(&b)?.resolution(), device.clock().resolution());
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn resolution(&self) -> Duration {
        self.clock.resolution()
    }
}

/// Two times are in order when they were measured on the same clock; else they do not compare.
///
/// ```
/// let stream = fencepost::Device::open("host")?.default_stream();
/// let (a, b) = (stream.record_timed()?, stream.record_timed()?);
/// assert!(a.elapsed(&a)? <= a.elapsed(&b)?);
/// # Ok::<(), fencepost::Error>(())
/// ```
impl PartialOrd for Elapsed {
    fn partial_cmp(&self, other: &Elapsed) -> Option<std::cmp::Ordering> {
        match self.clock == other.clock {
            true => self.nanos.partial_cmp(&other.nanos),
            false => None,
        }
    }
}

impl fmt::Display for Elapsed {
    /// With the unit that suits the length; a precision counts the digits behind the point.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scale, unit) = match self.nanos.abs() {
            n if n >= 1e9 => (1e9, "s"),
            n if n >= 1e6 => (1e6, "ms"),
            n if n >= 1e3 => (1e3, "µs"),
            _ => (1.0, "ns"),
        };
        let digits = f.precision().unwrap_or(if scale == 1.0 { 0 } else { 3 });
        write!(f, "{:.digits$} {unit}", self.nanos / scale)
    }
}

/// What one reading of the host's clock can tell apart: a property of the system's tick, not of
/// how long a reading takes.
///
/// - Linux: `clock_getres(CLOCK_MONOTONIC)` is 1 ns with high-resolution timers.
/// - Apple: `mach_absolute_time` ticks at 24 MHz on Apple silicon and 1 GHz on Intel.
/// - Windows: `QueryPerformanceFrequency` is 10 MHz.
pub(crate) const HOST_RESOLUTION: Duration =
    if cfg!(all(target_vendor = "apple", target_arch = "aarch64")) {
        Duration::from_nanos(42)
    } else if cfg!(windows) {
        Duration::from_nanos(100)
    } else {
        Duration::from_nanos(1)
    };

/// The one clock that every host device shares, so that their markers may be compared.
pub(crate) fn host_clock() -> Clock {
    static CLOCK: OnceLock<Clock> = OnceLock::new();
    CLOCK
        .get_or_init(|| Clock::new("host monotonic", 1.0, 64, HOST_RESOLUTION))
        .clone()
}

/// Nanoseconds on the host's monotonic clock, since a little before its first reading: never zero.
pub(crate) fn host_ticks() -> u64 {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    let origin = *ORIGIN.get_or_init(Instant::now);
    // A u64 of nanoseconds lasts 584 years.
    1 + origin.elapsed().as_nanos() as u64
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn nanos(bits: u32, tick_ns: f64, start: u64, end: u64) -> f64 {
        let clock = Clock::new("test", tick_ns, bits, Duration::from_nanos(1));
        let start = Timestamp::new(start, clock.clone());
        start.elapsed(&Timestamp::new(end, clock)).unwrap().nanos
    }

    #[test]
    fn a_wrap_between_start_and_end_is_seen_through() {
        for bits in [32, 36, 48, 63] {
            let top = (1_u64 << bits) - 1;
            assert_eq!(nanos(bits, 1.0, top - 4, 5), 10.0, "{bits} bits");
            assert_eq!(nanos(bits, 1.0, 5, top - 4), -10.0, "{bits} bits, reversed");
        }
        assert_eq!(nanos(64, 1.0, u64::MAX - 4, 5), 10.0);
        assert_eq!(nanos(64, 1.0, 5, u64::MAX - 4), -10.0);
    }

    #[test]
    fn bits_above_the_valid_ones_are_ignored() {
        assert_eq!(nanos(36, 1.0, 7 | 0xabc << 40, 9 | 0xdef << 40), 2.0);
    }

    #[test]
    fn ticks_are_scaled_after_the_subtraction() {
        // As f64, these absolute values cannot tell neighbours apart.
        let large = (1 << 62) + 1;
        assert_eq!(nanos(64, 52.08, large, large + 1), 52.08);
    }

    #[test]
    fn two_clocks_never_mix() {
        let one = Clock::new("one", 1.0, 64, Duration::from_nanos(1));
        let two = Clock::new("two", 1.0, 64, Duration::from_nanos(1));
        let error = Timestamp::new(1, one).elapsed(&Timestamp::new(2, two));
        assert!(matches!(error, Err(Error::DeviceMismatch { .. })));
    }

    #[test]
    fn a_duration_prints_in_the_unit_that_suits_it() {
        let clock = host_clock();
        let show = |nanos| {
            Elapsed {
                nanos,
                clock: clock.clone(),
            }
            .to_string()
        };
        assert_eq!(show(0.0), "0 ns");
        assert_eq!(show(-1500.0), "-1.500 µs");
        assert_eq!(show(2_500_000.0), "2.500 ms");
        assert_eq!(show(3e9), "3.000 s");
    }
}
