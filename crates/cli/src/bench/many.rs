//! What it costs to be woken by any of many events, on any device.

use std::time::Duration;

use fencepost::{Backend, Event, Gate, Stream, WaitSet, synchronize_any, testing::work};

use super::{
    Bench, Row,
    harness::{How, Side, in_turns},
    row,
};
use crate::Stop;

/// How many events are waited for at the same time.
const MANY: usize = 10_000;

/// What the names of these rows contain.
pub(super) const NAME: &str = "of 10,000";

/// How many streams are in use at the same time, but for the host's.
const STREAMS: usize = 16;

/// Why these rows are left out, if they are: a GPU's streams that share a hardware connection with
/// many that are held may be held too, and then no row ends.
pub(super) fn left_out(backend: Backend) -> Option<&'static str> {
    const CONNECTIONS: &str = "CUDA_DEVICE_MAX_CONNECTIONS";
    let connections = std::env::var(CONNECTIONS).ok();
    let few = backend == Backend::Cuda && !is_enough(connections.as_deref());
    few.then_some(
        "The rows of 10,000 events are left out: they hold 15 streams, which need a hardware \
         connection each, so that they hold no other.\n\
         Set CUDA_DEVICE_MAX_CONNECTIONS=32 to measure them.",
    )
}

fn is_enough(connections: Option<&str>) -> bool {
    // The driver has 8 unless told otherwise, and takes some for itself.
    connections.is_some_and(|given| given.trim().parse().is_ok_and(|n: usize| n > STREAMS))
}

/// Events that are pending until the gate is opened.
struct Held {
    gate: Gate,
    events: Vec<Event>,
    streams: Vec<Stream>,
}

impl Held {
    fn release(self) -> Result<(), Stop> {
        self.gate.open();
        for stream in self.streams {
            stream.synchronize()?;
        }
        Ok(())
    }
}

impl Bench {
    /// Beside the one that wakes: each on a stream of its own on the host, on 15 streams elsewhere.
    fn held(&self) -> Result<Held, Stop> {
        let streams = match self.device.backend() {
            Backend::Host => MANY - 1,
            _ => STREAMS - 1,
        };
        let gate = Gate::with_limit(&self.device, Duration::MAX)?;
        let streams = (0..streams).map(|_| {
            let stream = self.device.new_stream()?;
            gate.wait(&stream)?;
            Ok(stream)
        });
        let streams = streams.collect::<Result<Vec<_>, Stop>>()?;
        let events = (0..MANY - 1).map(|at| {
            let event = self.new_event(false);
            event.record(&streams[at % streams.len()])?;
            Ok(event)
        });
        Ok(Held {
            events: events.collect::<Result<_, Stop>>()?,
            gate,
            streams,
        })
    }

    /// A stream that is not held, on which work has run: the first launch of a kernel loads its
    /// module, which CUDA does not do before held streams go on.
    fn free(&self) -> Result<Stream, Stop> {
        let stream = self.device.new_stream()?;
        let event = self.new_event(false);
        self.work_and_record(&stream, &event, 0)?;
        event.synchronize()?;
        Ok(stream)
    }

    /// Work of the least size, and `event` behind it.
    fn work_and_record(&self, stream: &Stream, event: &Event, nanos: u64) -> Result<(), Stop> {
        match self.device.backend() {
            Backend::Host => stream.launch(move || {
                std::thread::sleep(Duration::from_nanos(nanos));
            })?,
            _ => work::spin(stream, nanos)?,
        }
        Ok(event.record(stream)?)
    }

    pub(super) fn any_of_many(&self) -> Result<Row, Stop> {
        let how = self.how(301, 8, None);
        self.wake_by_set("next of 10,000 + work", 0, how, Some(1.5))
    }

    pub(super) fn any_of_many_asleep(&self) -> Result<Row, Stop> {
        let how = self.how(101, 1, Some(Duration::from_micros(1500)));
        let operation = "next of 10,000 + 10 ms of work";
        self.wake_by_set(operation, 10_000_000, how, Some(1.5))
    }

    /// The others are in a set from the start, so what is measured is an insertion and a wake-up.
    fn wake_by_set(
        &self,
        operation: &'static str,
        nanos: u64,
        how: How,
        bound: Option<f64>,
    ) -> Result<Row, Stop> {
        let stream = self.free()?;
        let held = self.held()?;
        let (one, event) = (self.new_event(false), self.new_event(false));
        let mut set = WaitSet::new();
        for event in &held.events {
            set.insert(false, event);
        }
        let many: Side<'_> = Box::new(|n| {
            for _ in 0..n {
                self.work_and_record(&stream, &event, nanos)?;
                set.insert(true, &event);
                match set.synchronize_next()? {
                    Some((true, result)) => result?,
                    other => return Err(Stop::Failed(format!("{other:?} ended"))),
                }
            }
            Ok(())
        });
        let alone: Side<'_> = Box::new(|n| {
            for _ in 0..n {
                self.work_and_record(&stream, &one, nanos)?;
                one.synchronize()?;
            }
            Ok(())
        });
        let [many, alone] = in_turns(how, [many, alone])?;
        held.release()?;
        let base = ("work + record + synchronize", bound);
        Ok(row(operation, how, &many, [(&alone, base)]))
    }

    /// One call that is given all of them, and so looks at each.
    pub(super) fn any_of_many_at_once(&self) -> Result<Row, Stop> {
        let how = self.how(51, 1, None);
        let stream = self.free()?;
        let held = self.held()?;
        let event = self.new_event(false);
        let all: Vec<_> = held.events.iter().chain([&event]).collect();
        let many: Side<'_> = Box::new(|n| {
            for _ in 0..n {
                self.work_and_record(&stream, &event, 0)?;
                synchronize_any(all.iter().copied())?.1?;
            }
            Ok(())
        });
        let alone: Side<'_> = Box::new(|n| {
            for _ in 0..n {
                self.work_and_record(&stream, &event, 0)?;
                synchronize_any([&event])?.1?;
            }
            Ok(())
        });
        let [many, alone] = in_turns(how, [many, alone])?;
        held.release()?;
        let base = ("synchronize_any of one", None);
        Ok(row(
            "synchronize_any of 10,000",
            how,
            &many,
            [(&alone, base)],
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_that_are_held_need_a_connection_each() {
        for (given, enough) in [
            (None, false),
            (Some("8"), false),
            (Some("16"), false),
            (Some("17"), true),
            (Some("32"), true),
            (Some("many"), false),
        ] {
            assert_eq!(is_enough(given), enough, "{given:?}");
        }
        assert_eq!(left_out(Backend::Host), None);
    }
}
