//! Clocks, timestamps on them, and the time between two timestamps.
//!
//! A timestamp is raw ticks and the clock that they were read from. A duration is the difference of
//! two tick counts, masked by the clock's valid bits, brought to the right number of wraps
//! ([`wraps`](crate::wraps)), and only then scaled. So it loses no precision to large absolute
//! values. Timestamps of two clocks are never compared.

use std::{
    fmt,
    hash::{Hash, Hasher},
    ops::Deref,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    error::{Error, Result},
    fork::Lasting,
    steps::Steps,
    sync::Ids,
    wraps::{self, Reading},
};

/// The clock of a device: what the timestamps of its markers are read from.
///
/// Cheap to clone. Two clocks are equal if their timestamps may be compared.
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
/// - CUDA, which tells differences only: [`cuEventElapsedTime`](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__EVENT.html)
/// - Vulkan: [`timestampPeriod` and `timestampValidBits`](https://registry.khronos.org/vulkan/specs/latest/html/vkspec.html#queries-timestamps)
/// - OpenCL: [`CL_PROFILING_COMMAND_END`](https://registry.khronos.org/OpenCL/specs/3.0-unified/html/OpenCL_API.html#clGetEventProfilingInfo)
/// - Metal: [`gpuEndTime`](https://developer.apple.com/documentation/metal/mtlcommandbuffer/gpuendtime)
/// - wgpu: [`Queue::get_timestamp_period`](https://docs.rs/wgpu/30.0.2/wgpu/struct.Queue.html#method.get_timestamp_period)
#[derive(Clone)]
pub struct Clock(Shared);

/// What clones of a clock share.
#[derive(Clone)]
enum Shared {
    Counted(Arc<Facts>),
    /// Lives until the process ends, so that its references need not be counted: each elapsed time
    /// holds one.
    Static(&'static Facts),
}

impl Deref for Shared {
    type Target = Facts;

    #[inline]
    fn deref(&self) -> &Facts {
        match self {
            Shared::Counted(facts) => facts,
            Shared::Static(facts) => facts,
        }
    }
}

struct Facts {
    id: u64,
    name: String,
    tick_ns: f64,
    valid_bits: u32,
    /// What the reference says, until the steps are seen.
    resolution: Duration,
    /// For clocks whose reference does not say how they move on.
    steps: Option<Steps>,
}

impl Clock {
    /// A clock that is equal to no other. `tick_ns` is the length of a tick in nanoseconds,
    /// `valid_bits` is from 1 to 64.
    pub(crate) fn new(
        name: impl Into<String>,
        tick_ns: f64,
        valid_bits: u32,
        resolution: Duration,
    ) -> Clock {
        Clock::make(name.into(), tick_ns, valid_bits, resolution, None)
    }

    /// As [`new`](Clock::new), for a clock that states the resolution that it is seen to have, and
    /// `resolution` until then. Steps of fewer than `finest` ticks are not believed.
    #[cfg_attr(
        not(any(
            feature = "cuda",
            feature = "opencl",
            feature = "vulkan",
            feature = "wgpu30"
        )),
        allow(dead_code)
    )]
    pub(crate) fn learning(
        name: impl Into<String>,
        tick_ns: f64,
        valid_bits: u32,
        resolution: Duration,
        finest: u64,
    ) -> Clock {
        let steps = Some(Steps::new(finest));
        Clock::make(name.into(), tick_ns, valid_bits, resolution, steps)
    }

    fn make(
        name: String,
        tick_ns: f64,
        valid_bits: u32,
        resolution: Duration,
        steps: Option<Steps>,
    ) -> Clock {
        static NEXT: Ids = Ids::new();
        Clock(Shared::Counted(Arc::new(Facts {
            id: NEXT.next(),
            name,
            tick_ns,
            valid_bits: valid_bits.clamp(1, 64),
            resolution,
            steps,
        })))
    }

    /// The same clock, never to be freed: for devices that live as long as the process.
    pub(crate) fn kept_for_ever(self) -> Clock {
        match self.0 {
            Shared::Counted(facts) => Clock(Shared::Static(Box::leak(Box::new(facts)))),
            shared => Clock(shared),
        }
    }

    /// The name of the clock, such as `host monotonic`. For reading, not for parsing.
    ///
    /// ```
    /// # let device = fencepost::Device::open("host")?;
    /// assert_eq!(device.clock().name(), "host monotonic");
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The smallest difference in time that this clock can tell. Shorter durations are noise.
    ///
    /// On a GPU, except on Metal, it is what the clock is seen to do: the steps that the first
    /// times between markers have in common, 32 ns on an H200. Before six different times were
    /// read, it is what the reference or the driver says: half a microsecond on CUDA, the length of
    /// a tick on Vulkan and wgpu, `CL_DEVICE_PROFILING_TIMER_RESOLUTION` on OpenCL. Never blocks,
    /// and asks no driver.
    ///
    /// ```
    /// # let device = fencepost::Device::open("host")?;
    /// assert!(device.clock().resolution() <= std::time::Duration::from_micros(1));
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn resolution(&self) -> Duration {
        match self.step() {
            // Rounded up, so that no clock seems finer than it is.
            Some(ticks) => Duration::from_nanos((ticks as f64 * self.0.tick_ns).ceil() as u64),
            None => self.0.resolution,
        }
    }

    /// The step that the clock is seen to make, in ticks, or a multiple of it.
    pub(crate) fn step(&self) -> Option<u64> {
        self.0.steps.as_ref()?.step()
    }

    /// The length of one tick, in nanoseconds.
    ///
    /// ```
    /// # let device = fencepost::Device::open("host")?;
    /// assert_eq!(device.clock().tick_nanos(), 1.0);
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn tick_nanos(&self) -> f64 {
        self.0.tick_ns
    }

    /// How many low bits of a tick count are valid, from 1 to 64. The counter wraps to 0 beyond
    /// them.
    ///
    /// ```
    /// # let device = fencepost::Device::open("host")?;
    /// assert_eq!(device.clock().valid_bits(), 64);
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn valid_bits(&self) -> u32 {
        self.0.valid_bits
    }

    /// The time between two readings, by the bits that are valid in both.
    pub(crate) fn between(&self, start: Reading, end: Reading) -> Result<Elapsed> {
        let tick_ns = self.0.tick_ns;
        match wraps::ticks_between(tick_ns, start, end) {
            Some(ticks) => {
                self.saw(|| ticks.unsigned_abs() as u64);
                Ok(Elapsed::new(ticks as f64 * tick_ns, self.clone()))
            }
            None => Err(Error::Ambiguous {
                clock: self.0.name.clone(),
                period: wraps::period(tick_ns, start, end),
                known_to: wraps::known_to(start, end),
            }),
        }
    }

    /// A time that the driver gives as an `f32` of milliseconds, on a clock of 1 ns a tick.
    #[cfg_attr(not(feature = "cuda"), allow(dead_code))]
    #[inline(always)]
    pub(crate) fn millis(&self, millis: f32) -> Elapsed {
        /// Below this, an `f32` tells the nanosecond.
        const EXACT: f32 = 16.0;
        let nanos = f64::from(millis) * 1e6;
        if millis.abs() < EXACT {
            // To the next whole number: `round` is a call where the processor need not have it. As
            // one of 32 bits, which takes fewer instructions, and is enough for 16 ms.
            self.saw(|| (nanos.abs() + 0.5) as u32 as u64);
        }
        Elapsed {
            nanos,
            clock: self.clone(),
            rounding: Rounding::Millis,
        }
    }

    /// Whether it does not know its steps yet, and further times may tell.
    #[cfg_attr(not(feature = "cuda"), allow(dead_code))]
    pub(crate) fn is_learning(&self) -> bool {
        self.0.steps.as_ref().is_some_and(Steps::is_learning)
    }

    #[inline(always)]
    fn saw(&self, difference: impl FnOnce() -> u64) {
        if let Some(steps) = &self.0.steps
            && steps.is_learning()
        {
            steps.saw(difference());
        }
    }
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
        write!(f, "{}, {:?}", self.0.name, self.resolution())
    }
}

/// A point in time on one clock, in raw ticks: what [`Marker::timestamp`](crate::Marker::timestamp)
/// gives.
///
/// That of a clock of few [valid bits](Clock::valid_bits) also holds when the host submitted the
/// marker and when it saw it complete, so that the time between two of them is right however often
/// the counter has wrapped. That has a limit, since the host's clock and the device's may drift
/// apart by a thousandth: beyond some 400 periods of the counter the time may be
/// [`Error::Ambiguous`], and marks in between are needed, whose times add up. With 32 bits of 1 ns
/// each that is 28 minutes, with 36 bits 7 hours.
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
    reading: Reading,
    clock: Clock,
}

impl Timestamp {
    /// Of as many valid bits as the clock promises.
    pub(crate) fn new(ticks: u64, clock: Clock) -> Timestamp {
        let reading = Reading {
            ticks,
            bits: clock.0.valid_bits,
            bounds: None,
        };
        Timestamp { reading, clock }
    }

    /// A reading with more valid bits than the clock promises for all of its readings, or one whose
    /// time the host knows.
    #[cfg_attr(not(any(feature = "vulkan", feature = "wgpu30")), allow(dead_code))]
    pub(crate) fn of(reading: Reading, clock: Clock) -> Timestamp {
        Timestamp { reading, clock }
    }

    /// The raw tick count. Only the clock's [valid bits](Clock::valid_bits) are meaningful, and the
    /// length of a tick is [`Clock::tick_nanos`].
    ///
    /// ```
    /// # let stream = fencepost::Device::open("host")?.default_stream();
    /// # let marker = stream.record_timed()?;
    /// # marker.synchronize()?;
    /// assert!(marker.timestamp()?.ticks() > 0);
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn ticks(&self) -> u64 {
        self.reading.ticks
    }

    /// The clock that the ticks were read from.
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

    /// The time from this timestamp to `end`. Negative if `end` is earlier.
    ///
    /// # Errors
    /// [`Error::DeviceMismatch`] for timestamps of two clocks; [`Error::Ambiguous`] where the clock
    /// wraps, and the host cannot tell how often it did.
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
        // No other reading was submitted and seen at the very same nanoseconds.
        if self == end && self.reading.bounds.is_some() {
            return Ok(Elapsed::new(0.0, self.clock.clone()));
        }
        self.clock.between(self.reading, end.reading)
    }
}

/// The time between two markers: a signed duration, and the clock that it was measured on.
///
/// An end that is earlier than its start gives a negative time; it is never clamped to zero. Two
/// are equal if time and clock are.
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
#[derive(Clone, Debug)]
pub struct Elapsed {
    nanos: f64,
    clock: Clock,
    rounding: Rounding,
}

/// How far off a time may be, besides the steps of its clock.
#[derive(Clone, Copy, Debug)]
enum Rounding {
    /// It is as good as an `f64`.
    None,
    /// The driver gave an `f32` of milliseconds.
    Millis,
    /// By so many nanoseconds.
    Nanos(f64),
}

/// Half the distance to the next `f32`: how far off a number rounded to one may be.
#[cfg_attr(not(feature = "cuda"), allow(dead_code))]
pub(crate) fn half_step(number: f32) -> f64 {
    let number = number.abs();
    (f64::from(number.next_up()) - f64::from(number)) / 2.0
}

impl Elapsed {
    /// A time that is not the difference of two timestamps.
    pub(crate) fn new(nanos: f64, clock: Clock) -> Elapsed {
        let rounding = Rounding::None;
        Elapsed {
            nanos,
            clock,
            rounding,
        }
    }

    /// A time that may be `off` by so many nanoseconds, besides the steps of its clock.
    pub(crate) fn within(nanos: f64, off: f64, clock: Clock) -> Elapsed {
        let rounding = Rounding::Nanos(off);
        Elapsed {
            nanos,
            clock,
            rounding,
        }
    }

    /// The time from the end to the start.
    pub(crate) fn reversed(self) -> Elapsed {
        Elapsed {
            nanos: -self.nanos,
            ..self
        }
    }

    /// The time in nanoseconds, signed.
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

    /// The time in milliseconds, signed: the unit of PyTorch and CUDA.
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

    /// The time in seconds, signed.
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

    /// Whether the end is earlier than the start.
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

    /// The length of the time without its sign, rounded to whole nanoseconds.
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

    /// The clock that it was measured on.
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

    /// The [resolution](Clock::resolution) of that clock: what is shorter is noise.
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

    /// How far the true time may be from this one, earlier or later: the clock's resolution, and
    /// what was lost on the way. It is never less than the [resolution](Clock::resolution).
    ///
    /// CUDA gives times as an `f32` of milliseconds: 10 ns or less are lost below a quarter of a
    /// second, 0.5 µs at 16 s and 0.12 ms at an hour.
    /// [`Device::keep_time`](crate::Device::keep_time) keeps a long time exact there.
    ///
    /// # References
    /// - [`cuEventElapsedTime`](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__EVENT.html)
    ///
    /// ```
    /// # let stream = fencepost::Device::open("host")?.default_stream();
    /// # let (a, b) = (stream.record_timed()?, stream.record_timed()?);
    /// # b.synchronize()?;
    /// let elapsed = a.elapsed(&b)?;
    /// println!("{elapsed} ± {:?}", elapsed.uncertainty());
    /// assert!(elapsed.uncertainty() >= elapsed.resolution());
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn uncertainty(&self) -> Duration {
        let rounding = match self.rounding {
            Rounding::None => self.nanos.abs() * f64::EPSILON / 2.0,
            // This is the number that the driver gave: an f64 holds more than its product lost.
            Rounding::Millis => half_step((self.nanos / 1e6) as f32) * 1e6,
            Rounding::Nanos(nanos) => nanos,
        };
        self.resolution() + Duration::from_nanos(rounding.round() as u64)
    }
}

impl PartialEq for Elapsed {
    fn eq(&self, other: &Elapsed) -> bool {
        self.nanos == other.nanos && self.clock == other.clock
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
    /// In the unit that suits the length: ns, µs, ms or s. A precision is the number of digits
    /// behind the point.
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

/// The resolution of the host's clock: the length of the system's tick, not the duration of a
/// reading.
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

/// The clock that all host devices share, so that times between their markers can be taken.
pub(crate) fn host_clock() -> Clock {
    static CLOCK: Lasting<Clock> = Lasting::new();
    CLOCK
        .get_or_make(|| Clock::new("host monotonic", 1.0, 64, HOST_RESOLUTION).kept_for_ever())
        .clone()
}

/// Nanoseconds on the host's monotonic clock, since its first reading. Never zero.
pub(crate) fn host_ticks() -> u64 {
    host_now().1
}

/// Now, as an instant and in ticks of the host's clock.
pub(crate) fn host_now() -> (Instant, u64) {
    static ORIGIN: Lasting<Instant> = Lasting::new();
    let origin = *ORIGIN.get_or_make(Instant::now);
    let since = origin.elapsed();
    // A u64 of nanoseconds lasts 584 years.
    (origin + since, 1 + since.as_nanos() as u64)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::ops::RangeInclusive;

    use super::*;
    use crate::wraps::Bounds;

    /// What was read at some time from the first to the last of `seen`, by the host's clock.
    fn stamp(clock: &Clock, bits: u32, ticks: u64, seen: RangeInclusive<u64>) -> Timestamp {
        let (before, after) = seen.into_inner();
        let reading = Reading {
            ticks,
            bits,
            bounds: Some(Bounds { before, after }),
        };
        Timestamp::of(reading, clock.clone())
    }

    fn nanos(bits: u32, tick_ns: f64, start: u64, end: u64) -> f64 {
        let clock = Clock::new("test", tick_ns, bits, Duration::from_nanos(1));
        let [start, end] = [start, end].map(|ticks| stamp(&clock, bits, ticks, 0..=1000));
        start.elapsed(&end).unwrap().nanos
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
    fn a_time_that_nobody_can_tell_is_an_error_that_says_what_to_do() {
        let clock = Clock::new("test", 1.0, 32, Duration::from_nanos(1));
        let at = |seen| stamp(&clock, 32, 7, seen);
        let error = at(0..=9_000_000_000).elapsed(&at(0..=1000)).unwrap_err();
        assert!(matches!(error, Error::Ambiguous { .. }), "{error:?}");
        let text = error.to_string();
        for part in [
            "starts over every 4.29 s",
            "to within 9.02 s",
            "synchronize()",
        ] {
            assert!(text.contains(part), "{part} in: {text}");
        }
        let unseen = Timestamp::new(7, clock.clone());
        let error = unseen.elapsed(&unseen).unwrap_err();
        assert!(matches!(error, Error::Ambiguous { .. }), "{error:?}");
    }

    #[test]
    fn the_time_from_a_reading_to_itself_is_zero_however_late_it_was_seen() {
        // It starts over every 67 ms.
        let clock = Clock::new("test", 1.0, 26, Duration::from_nanos(1));
        let at = |ticks| stamp(&clock, 26, ticks, 0..=1_000_000_000);
        assert_eq!(at(7).elapsed(&at(7)).unwrap().nanos, 0.0);
        let error = at(7).elapsed(&at(8)).unwrap_err();
        assert!(matches!(error, Error::Ambiguous { .. }), "{error:?}");
    }

    #[test]
    fn bits_above_the_valid_ones_are_ignored() {
        assert_eq!(nanos(36, 1.0, 7 | 0xabc << 40, 9 | 0xdef << 40), 2.0);
    }

    #[test]
    fn two_readings_are_compared_by_the_bits_that_both_have() {
        let clock = Clock::new("test", 1.0, 32, Duration::from_nanos(1));
        let reading = |ticks, bits| stamp(&clock, bits, ticks, 0..=1000);
        let start = reading(7, 64);
        let end = (1 << 33) + 9;
        let nanos = |bits| start.elapsed(&reading(end, bits)).unwrap().nanos;
        assert_eq!(nanos(64), 2.0 + (1_u64 << 33) as f64);
        assert_eq!(nanos(32), 2.0);
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
    fn a_time_says_what_a_float_of_milliseconds_has_lost() {
        let clock = Clock::learning("test", 1.0, 64, Duration::from_nanos(500), 8);
        for (millis, lost) in [
            (0.000_96_f32, 0),
            (200.0, 8),
            (-200.0, 8),
            (10_000.0, 488),
            (3_600_000.0, 125_000),
        ] {
            let told = clock.millis(millis).uncertainty();
            assert_eq!(told, Duration::from_nanos(500 + lost), "{millis} ms");
        }
        for step in 0..16_u16 {
            let _ = clock.millis((1312.0 + 32.0 * f32::from(step)) / 1e6);
        }
        assert_eq!(clock.resolution(), Duration::from_nanos(32));
        assert_eq!(clock.to_string(), "test, 32ns");
        assert_eq!(clock.millis(0.000_96).uncertainty(), clock.resolution());
        let kept = Elapsed::within(3.6e12, 700.0, clock).uncertainty();
        assert_eq!(kept, Duration::from_nanos(732));
        let exact = Elapsed::new(3.6e12, host_clock()).uncertainty();
        assert_eq!(exact, HOST_RESOLUTION);
    }

    #[test]
    fn a_duration_prints_in_the_unit_that_suits_it() {
        let clock = host_clock();
        let show = |nanos| Elapsed::new(nanos, clock.clone()).to_string();
        assert_eq!(show(0.0), "0 ns");
        assert_eq!(show(-1500.0), "-1.500 µs");
        assert_eq!(show(2_500_000.0), "2.500 ms");
        assert_eq!(show(3e9), "3.000 s");
    }
}
