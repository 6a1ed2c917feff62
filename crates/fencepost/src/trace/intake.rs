//! Taking in what is complete: from events of the device to records on its axis.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use super::{
    axis::{Anchor, Axis},
    clocks::Reading,
    pending::Ended,
    recorder::{Pair, Recorder},
    shared::Shared,
    store::{Named, Told},
};
use crate::{
    contract::{Sample, Stamp},
    device::Device,
    error::{Error, Result},
    event::Event,
    marker::Marker,
    place::Place,
    rerecord::Glimpse,
    sync::{Ordering, lock},
    time_keeper::TimeKeeper,
};

/// What collects knows of devices. One thread at a time collects.
#[derive(Default)]
pub(super) struct Intake {
    clocks: HashMap<u64, DeviceClock>,
}

struct DeviceClock {
    device: Device,
    axis: Axis,
    /// So that spans of hours are exact.
    _keeper: Option<TimeKeeper>,
    /// The last reading of both clocks, and its position.
    last: Option<(Stamp, f64)>,
    /// Holds the marker of that reading, where it is one.
    stamp: Event,
    read: Option<Instant>,
    /// Not before this.
    next: Option<Instant>,
    pause: Duration,
}

/// How long a device may take to give its time. Behind work that is held back it takes for ever.
const PATIENCE: Duration = Duration::from_millis(150);

/// How old a reading becomes while spans come in.
const OLD: Duration = Duration::from_secs(1);

/// As above, when somebody collects.
const NEW: Duration = Duration::from_millis(20);

/// How far apart attempts are made at most, where none succeeds.
const LONGEST: Duration = Duration::from_secs(60);

/// So many spans go into the store at once, so that locks are taken seldom that who records takes.
const AT_ONCE: usize = 16;

/// A span that is over, on its way into the store.
struct Over {
    ended: Ended<Pair>,
    start: f64,
    length: f64,
    /// Those of its two markers.
    values: [u64; 2],
    failure: Option<String>,
}

/// What became of a span.
enum Fate {
    Pending,
    /// When it began, and how long it took; NaN of a mark.
    Complete(f64, f64),
    /// When it began, where that is known.
    Failed(f64, Error),
    Lost(Error),
}

/// What a round has found.
#[derive(Clone, Copy, Default)]
pub(super) struct Found {
    /// How many were taken in.
    pub(super) taken: usize,
    /// How many are ended and pending.
    pub(super) pending: usize,
}

impl Shared {
    /// Takes in what is complete. Never waits for work of the user's; a device whose clock cannot
    /// be read soon keeps its spans pending.
    pub(super) fn collect(&self) -> Found {
        self.take_in_all(NEW, |_| ())
    }

    /// As [`collect`](Shared::collect), on the trace's own thread.
    pub(super) fn round(&self) -> Found {
        // This thread makes calls of the driver while others may capture.
        self.take_in_all(OLD, |device| device.imp().prepare_thread())
    }

    fn take_in_all(&self, age: Duration, prepare: impl Fn(&Device)) -> Found {
        let mut intake = lock(&self.intake);
        let mut found = Found::default();
        let mut over = Vec::new();
        self.note_sleep();
        for recorder in self.recorders() {
            // In this order: once the stream is gone, no span is begun.
            let is_over = recorder.is_over();
            let (open, ended) = recorder.pending.count();
            let Some(device) = recorder.device() else {
                continue;
            };
            let clock = intake.clock(&device);
            if ended > 0 || clock.last.is_none() {
                prepare(&device);
                clock.keep(self, age);
                found.taken += self.take_in(&recorder, clock);
                found.pending += recorder.pending.count().1;
            } else if open == 0 && is_over {
                over.push(recorder.core.id);
            }
        }
        self.forget(&over);
        drop(intake);
        self.take_in_threads();
        found
    }

    /// Reads the host's clocks again where they have come apart, since the system slept.
    fn note_sleep(&self) {
        let reading = Reading::now();
        let mut readings = lock(&self.readings);
        if readings
            .last()
            .is_some_and(|last| reading.has_slept_since(last))
        {
            readings.push(reading);
        }
    }

    fn take_in(&self, recorder: &Recorder, clock: &DeviceClock) -> usize {
        let (mut taken, mut failed) = (0, false);
        let mut over = Vec::with_capacity(AT_ONCE);
        let seen = self.since_origin(Instant::now()) as f64;
        let all = recorder.pending.take_ended();
        // If the last one is complete, so is all before it, and no other is asked of the driver.
        if let Some(last) = all.last() {
            last.ask();
        }
        let mut all = all.into_iter();
        let mut left = Vec::new();
        while let Some(ended) = all.next() {
            let (fate, values) = clock.fate(&ended);
            let (start, length, failure) = match fate {
                Fate::Pending => {
                    // What was begun later is later on the stream.
                    let is_last = !ended.began();
                    left.push(ended);
                    if is_last {
                        left.extend(all);
                        break;
                    }
                    continue;
                }
                Fate::Complete(start, length) => (start, length, None),
                Fate::Failed(start, error) => (start, seen, Some(error.to_string())),
                Fate::Lost(error) => {
                    self.lost(Some(&error));
                    recorder.pending.free([(ended, false)]);
                    taken += 1;
                    continue;
                }
            };
            failed |= failure.is_some();
            taken += 1;
            over.push(Over {
                ended,
                start,
                length,
                values,
                failure,
            });
            if over.len() == AT_ONCE {
                self.add(recorder, &mut over);
            }
        }
        self.add(recorder, &mut over);
        recorder.pending.give_back(left);
        if failed {
            // Their markers keep the cause of a failure alive, which is reported when it is gone.
            recorder.pending.drop_free();
        }
        taken
    }

    /// Moves spans into the store, then frees their slots.
    fn add(&self, recorder: &Recorder, over: &mut Vec<Over>) {
        let noted = recorder
            .pending
            .take(over.iter().map(|over| over.ended.slot));
        let mut stored = lock(&self.store);
        for (over, noted) in over.iter().zip(&noted) {
            let attributes = noted.attributes.as_deref();
            stored.store.add(&Told {
                track: recorder.track,
                name: Named::Text(&noted.name),
                attributes: attributes.map_or(&[], Vec::as_slice),
                start: over.start,
                length: over.length,
                values: over.values,
                is_mark: over.ended.is_mark,
                failure: over.failure.as_deref(),
            });
        }
        drop(stored);
        let freed: Vec<_> = over
            .drain(..)
            .map(|over| (over.ended, over.failure.is_none()))
            .collect();
        recorder.pending.free(freed);
    }
}

impl Ended<Pair> {
    fn markers(&self) -> Option<(Marker, Marker)> {
        let start = self.pair.start.marker()?;
        let end = match self.is_mark {
            true => start.clone(),
            false => self.pair.end.marker()?,
        };
        Some((start, end))
    }

    /// Has the timeline of its stream learn whether it is over.
    fn ask(&self) {
        if let Some((_, end)) = self.markers() {
            drop(end.imp().query());
        }
    }

    /// Whether the device has come to its start.
    fn began(&self) -> bool {
        let start = self.pair.start.marker();
        start.is_some_and(|start| !matches!(start.imp().query(), Ok(false)))
    }

    /// The values of its two markers.
    pub(super) fn values(&self) -> [u64; 2] {
        self.markers()
            .map_or([0, 0], |(start, end)| [start.value(), end.value()])
    }
}

impl Intake {
    fn clock(&mut self, device: &Device) -> &mut DeviceClock {
        let make = || DeviceClock {
            device: device.clone(),
            axis: Axis::default(),
            _keeper: None,
            last: None,
            stamp: Event::with_timing(device),
            read: None,
            next: None,
            pause: OLD,
        };
        self.clocks.entry(device.core().id).or_insert_with(make)
    }

    /// The axes of all devices, by their numbers.
    pub(super) fn axes(&self) -> HashMap<u64, Axis> {
        let axes = self.clocks.iter();
        axes.map(|(device, clock)| (*device, clock.axis.clone()))
            .collect()
    }

    /// When a span began that is pending, on its device's axis, where it did.
    pub(super) fn start_of(&self, recorder: &Recorder, pair: &Pair) -> Option<f64> {
        let clock = self.clocks.get(&recorder.core.device.id)?;
        let start = pair.start.marker()?;
        match start.imp().query() {
            Ok(true) => clock.position(&start).ok(),
            _ => None,
        }
    }
}

impl DeviceClock {
    /// Reads the clocks, unless they were read within `age`. After a failure the trace's own thread
    /// waits before it tries again. Whoever collects tries at once: the device may be idle by now,
    /// and nobody may collect again.
    fn keep(&mut self, shared: &Shared, age: Duration) {
        let now = Instant::now();
        let is_new = self.read.is_some_and(|read| now.duration_since(read) < age);
        let is_too_early = age >= OLD && self.next.is_some_and(|next| now < next);
        if is_new || is_too_early {
            return;
        }
        match self.read(shared) {
            Ok(()) => {
                self.read = Some(now);
                self.next = None;
                self.pause = OLD;
            }
            Err(error) => {
                shared.note_error(&error);
                self.next = now.checked_add(self.pause);
                self.pause = (self.pause * 2).min(LONGEST);
            }
        }
    }

    fn read(&mut self, shared: &Shared) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut look = || Instant::now() < deadline && !shared.stopping.load(Ordering::Relaxed);
        let sample = self.device.imp().correlate(Place::unknown(), &mut look)?;
        let host = match sample.host.checked_duration_since(shared.origin.at) {
            Some(since) => since.as_nanos() as f64,
            None => -(shared.origin.at.duration_since(sample.host).as_nanos() as f64),
        };
        let position = match &self.last {
            Some((last, at)) => at + last.until(&sample.stamp)?.as_nanos_f64(),
            None => {
                self.axis = axis_of(&sample, &self.device);
                match self.device.keep_time() {
                    Ok(keeper) => self._keeper = Some(keeper),
                    Err(error) => shared.note_error(&error),
                }
                0.0
            }
        };
        self.axis.add(Anchor {
            position,
            host,
            error: sample.error.as_nanos() as f64,
        });
        if let Stamp::Marker(marker) = &sample.stamp {
            let marker = Marker::new(marker.clone(), self.device.clone());
            self.stamp.set_marker(marker)?;
        }
        self.last = Some((sample.stamp, position));
        // The stamp is complete, which its event knows from now on.
        self.stamp.query().map(|_| ())
    }

    fn position(&self, marker: &Marker) -> Result<f64> {
        let Some((stamp, at)) = &self.last else {
            return Err(Error::not_ready("held", marker.to_string()));
        };
        Ok(at + stamp.elapsed(&**marker.imp())?.as_nanos_f64())
    }

    /// What became of a span, and the values of its two markers.
    fn fate(&self, ended: &Ended<Pair>) -> (Fate, [u64; 2]) {
        if let Some((start, length, values)) = self.complete_at_once(ended) {
            return (Fate::Complete(start, length), values);
        }
        let Some((start, end)) = ended.markers() else {
            return (Fate::Pending, [0, 0]);
        };
        let values = [start.value(), end.value()];
        (self.fate_of(ended.is_mark, &start, &end), values)
    }

    /// When a complete span began, how long it took, and the values of its markers, where native
    /// objects tell the times. It writes nothing to the events, which would be memory that the
    /// thread that records has to fetch back, and takes no lock of theirs.
    fn complete_at_once(&self, ended: &Ended<Pair>) -> Option<(f64, f64, [u64; 2])> {
        let (_, at) = self.last.as_ref()?;
        let between = |start: &Glimpse<'_>, end: &Glimpse<'_>| {
            let told = self.device.imp().elapsed_between(start, end);
            told.map(|elapsed| elapsed.as_nanos_f64())
        };
        let start = ended.pair.start.glimpse()?;
        let (began, value) = (
            at + between(&self.stamp.glimpse()?, &start)?,
            start.value()?,
        );
        if ended.is_mark {
            return Some((began, f64::NAN, [value; 2]));
        }
        let end = ended.pair.end.glimpse()?;
        Some((began, between(&start, &end)?, [value, end.value()?]))
    }

    fn fate_of(&self, is_mark: bool, start: &Marker, end: &Marker) -> Fate {
        let mut began = f64::NAN;
        for (marker, is_start) in [(start, true), (end, false)] {
            // As it is, and not as one that the user has seen: nobody has asked for a failure yet.
            match marker.imp().query() {
                Ok(true) if is_start => match self.position(marker) {
                    Ok(position) => began = position,
                    Err(Error::NotReady { .. }) => return Fate::Pending,
                    Err(error) => return Fate::Lost(error),
                },
                Ok(true) => {}
                Ok(false) => return Fate::Pending,
                Err(error @ (Error::StreamFailed { .. } | Error::DeviceLost { .. })) => {
                    return Fate::Failed(began, error);
                }
                Err(error) => return Fate::Lost(error),
            }
        }
        if is_mark {
            return Fate::Complete(began, f64::NAN);
        }
        match start.imp().elapsed(&**end.imp()) {
            Ok(length) => Fate::Complete(began, length.as_nanos_f64()),
            Err(Error::NotReady { .. }) => Fate::Pending,
            Err(error) => Fate::Lost(error),
        }
    }
}

fn axis_of(sample: &Sample, device: &Device) -> Axis {
    let tick_nanos = device.core().clock.tick_nanos();
    let (timestamp, is_rounded) = match &sample.stamp {
        Stamp::Clock(timestamp) => (Some(timestamp.clone()), false),
        Stamp::Marker(marker) => {
            let timestamp = marker.timestamp().ok();
            let is_rounded = timestamp.is_none();
            (timestamp, is_rounded)
        }
    };
    let ticks = timestamp.map(|timestamp| (timestamp.ticks(), tick_nanos));
    Axis::new(sample.is_host_clock, is_rounded, ticks)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::trace::Trace;

    #[test]
    fn a_clock_that_could_not_be_read_is_asked_again_by_whoever_collects() {
        let device = Device::open("host").unwrap();
        let (trace, stream) = (Trace::new(), device.new_stream().unwrap());
        let mut intake = lock(&trace.shared().intake);
        // As after failures: the device was busy for long.
        intake.clock(&device).next = Instant::now().checked_add(LONGEST);
        drop(intake);
        trace.span("step", &stream).end();
        stream.synchronize().unwrap();
        assert_eq!(trace.collect().finished, 1);
    }
}
