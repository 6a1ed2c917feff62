//! The event's word and its slot, on a backend made for loom: markers that are recorded again in
//! place, as CUDA's are, and complete when the test says so.

use std::{
    any::Any,
    num::NonZeroUsize,
    sync::{Arc, OnceLock},
};

use super::Event;
use crate::timeline::Point;
use crate::{
    contract::{
        Backend, DeviceImpl, DeviceRef, Look, MarkerImpl, Sample, StreamImpl, TimelineKnowledge,
    },
    core::{DeviceCore, StreamCore},
    device::Device,
    error::{Error, Result},
    marker::{Marker, Status},
    place::Place,
    rerecord::{Lock, Rerecord, Rerecorded},
    stream::Stream,
    sync::{AtomicU64, Ordering, thread},
    timeline::{Awaited, Timeline, loom_tests::stream_core},
};

struct FakeDevice(Arc<FakeStream>);

struct FakeStream {
    core: Arc<StreamCore>,
    timeline: Arc<Timeline>,
    knowledge: TimelineKnowledge,
    /// What its markers are recorded by, which tells the value that was recorded last. A driver's
    /// own order between a record and a question is none here.
    native: AtomicU64,
    /// What happens while the driver records.
    meanwhile: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

struct FakeMarker {
    point: Point,
    knowledge: TimelineKnowledge,
    native: usize,
}

impl Awaited for FakeMarker {
    fn point(&self) -> &Point {
        &self.point
    }
}

impl MarkerImpl for FakeMarker {
    fn may_be_changed(&self) -> bool {
        true
    }

    fn timeline_knowledge(&self) -> TimelineKnowledge {
        self.knowledge
    }
    fn timed_native(&self) -> Option<NonZeroUsize> {
        NonZeroUsize::new(self.native).filter(|_| self.point.timing)
    }
}

impl StreamImpl for FakeStream {
    fn core(&self) -> &Arc<StreamCore> {
        &self.core
    }
    fn mark(&self, timing: bool, at: Place) -> Result<Arc<dyn MarkerImpl>> {
        let point = Point {
            timeline: self.timeline.clone(),
            value: self.core.next_value(),
            at,
            timing,
        };
        self.native.store(point.value, Ordering::Relaxed);
        Ok(Arc::new(FakeMarker {
            point,
            knowledge: self.knowledge,
            native: std::ptr::from_ref(&self.native).addr(),
        }))
    }
    fn record_again(&self, event: Rerecord<'_>, _: Place) -> Option<Rerecorded> {
        let (mut marker, lock) = event.begin::<FakeMarker>()?;
        if !Arc::ptr_eq(&marker.point.timeline, &self.timeline) {
            return None;
        }
        let lock = Lock::of(&self.core, Some(lock));
        let value = self.core.count();
        drop(lock);
        // Where a backend calls its driver: another thread may run meanwhile.
        thread::yield_now();
        if let Some(meanwhile) = self.meanwhile.get() {
            meanwhile();
        }
        self.native.store(value, Ordering::Relaxed);
        marker.point.value = value;
        Some(marker.finish())
    }
    fn wait(&self, _: &Arc<dyn MarkerImpl>) -> Result<()> {
        Ok(())
    }
    fn completed(&self) -> u64 {
        self.timeline.completed()
    }
    fn failure(&self) -> Option<Error> {
        None
    }
    fn clear_error(&self) -> Result<()> {
        Ok(())
    }
}

impl DeviceImpl for FakeDevice {
    fn core(&self) -> &Arc<DeviceCore> {
        &self.0.core.device
    }
    fn backend(&self) -> Backend {
        Backend::Host
    }
    fn default_stream(&self) -> Arc<dyn StreamImpl> {
        self.0.clone()
    }
    fn new_stream(&self) -> Result<Arc<dyn StreamImpl>> {
        Ok(self.0.clone())
    }
    fn streams(&self) -> Vec<Arc<dyn StreamImpl>> {
        vec![self.0.clone()]
    }
    fn correlate(&self, _: Place, _: Look<'_>) -> Result<Sample> {
        unreachable!("no model takes a correlation")
    }
}

/// A device with two streams, whose markers complete when their timelines are advanced.
fn streams(knowledge: TimelineKnowledge) -> (Device, [(Stream, Arc<Timeline>); 2]) {
    let core = stream_core();
    let fake = |core: Arc<StreamCore>| {
        let timeline = Timeline::new(core.clone(), 0);
        Arc::new(FakeStream {
            core,
            timeline,
            knowledge,
            native: AtomicU64::new(0),
            meanwhile: OnceLock::new(),
        })
    };
    let other = fake(StreamCore::new(core.device.clone()));
    let first = fake(core);
    let device = Device::new(DeviceRef::new(FakeDevice(first.clone())));
    let stream = |fake: Arc<FakeStream>| {
        let timeline = fake.timeline.clone();
        (Stream::new(fake, device.clone()), timeline)
    };
    let streams = [stream(first), stream(other)];
    (device, streams)
}

/// An event that was recorded once, and completed.
fn recorded(knowledge: TimelineKnowledge) -> (Arc<Event>, Stream, Arc<Timeline>) {
    let (device, [(stream, timeline), _]) = streams(knowledge);
    let event = Arc::new(Event::new(&device));
    event.record(&stream).unwrap();
    timeline.advance(1).fire();
    (event, stream, timeline)
}

/// An event that was recorded twice on the first stream, so that this one's lock guards it.
fn delegated() -> (Arc<Event>, [(Stream, Arc<Timeline>); 2]) {
    let (device, streams) = streams(TimelineKnowledge::Completion);
    let event = Arc::new(Event::with_timing(&device));
    event.record(&streams[0].0).unwrap();
    event.record(&streams[0].0).unwrap();
    assert!(event.slot.is_delegated());
    (event, streams)
}

fn fake(stream: &Stream) -> &FakeStream {
    let any: &dyn Any = stream.imp();
    any.downcast_ref().unwrap()
}

/// Whatever a query by another thread remembers meanwhile, after a record the new marker counts.
fn a_query_never_takes_the_old_marker_for_the_new(knowledge: TimelineKnowledge) {
    loom::model(move || {
        let (event, stream, timeline) = recorded(knowledge);
        let asking = {
            let event = event.clone();
            thread::spawn(move || event.query().unwrap())
        };
        event.record(&stream).unwrap();
        let pending = event.query().unwrap();
        assert!(!pending, "complete by the old marker's word");
        asking.join().unwrap();
        assert!(!event.query().unwrap(), "remembered for the wrong marker");
        timeline.advance(stream.progress().recorded).fire();
        assert!(event.query().unwrap());
    });
}

#[test]
fn a_query_while_recording_where_the_marker_is_asked() {
    a_query_never_takes_the_old_marker_for_the_new(TimelineKnowledge::Nothing);
}

#[test]
fn a_query_while_recording_where_the_timeline_tells_completion() {
    a_query_never_takes_the_old_marker_for_the_new(TimelineKnowledge::Completion);
}

#[test]
fn a_query_while_recording_where_the_timeline_tells_all() {
    a_query_never_takes_the_old_marker_for_the_new(TimelineKnowledge::All);
}

/// A thread that takes the marker out, and gives it with the value that it has there.
fn holding(event: &Arc<Event>) -> thread::JoinHandle<(Marker, u64)> {
    let event = event.clone();
    thread::spawn(move || {
        let marker = event.marker().unwrap();
        let value = marker.imp().point().value;
        (marker, value)
    })
}

/// The value of a marker that was held while its event was recorded again.
fn held(holding: thread::JoinHandle<(Marker, u64)>) -> u64 {
    let (marker, value) = holding.join().unwrap();
    let now = marker.imp().point().value;
    assert_eq!(now, value, "changed under its holder");
    value
}

#[test]
fn whoever_holds_a_marker_keeps_it_as_it_was() {
    loom::model(|| {
        let (event, stream, _) = recorded(TimelineKnowledge::Completion);
        let holding = holding(&event);
        event.record(&stream).unwrap();
        let seen = held(holding);
        assert!(seen == 1 || seen == 2);
        assert_eq!(event.marker().unwrap().imp().point().value, 2);
    });
}

#[test]
fn two_threads_that_record_leave_the_later_marker_pending() {
    loom::model(|| {
        let (event, stream, timeline) = recorded(TimelineKnowledge::Completion);
        let other = {
            let (event, stream) = (event.clone(), stream.clone());
            thread::spawn(move || event.record(&stream).unwrap())
        };
        event.record(&stream).unwrap();
        other.join().unwrap();
        let held = event.marker().unwrap().imp().point().value;
        assert!(!event.query().unwrap());
        timeline.advance(held).fire();
        assert!(event.query().unwrap(), "the word stands for another marker");
    });
}

#[test]
fn whoever_holds_a_marker_of_a_delegated_slot_keeps_it_as_it_was() {
    loom::model(|| {
        let (event, [(stream, _), _]) = delegated();
        let holding = holding(&event);
        event.record(&stream).unwrap();
        let seen = held(holding);
        assert!(seen == 2 || seen == 3);
        assert_eq!(event.marker().unwrap().imp().point().value, 3);
    });
}

/// The lock of the slot changes from the primary stream's to its own and back, while another thread
/// looks for it.
#[test]
fn a_slot_is_taken_back_while_others_use_it() {
    loom::model(|| {
        let (event, [primary, other]) = delegated();
        let holding = holding(&event);
        event.record(&other.0).unwrap();
        event.record(&other.0).unwrap();
        held(holding);
        assert!(
            !event.slot.is_delegated(),
            "to a stream that is not primary"
        );
        event.record(&primary.0).unwrap();
        let marker = event.marker().unwrap();
        assert!(Arc::ptr_eq(&marker.imp().point().timeline, &primary.1));
    });
}

#[test]
fn two_threads_that_record_on_two_streams_leave_one_whole_marker() {
    loom::model(|| {
        let (event, [primary, other]) = delegated();
        let recording = {
            let (event, stream) = (event.clone(), other.0.clone());
            thread::spawn(move || event.record(&stream).unwrap())
        };
        event.record(&primary.0).unwrap();
        recording.join().unwrap();
        let held = event.marker().unwrap();
        let (point, on_primary) = (held.imp().point(), 3);
        match Arc::ptr_eq(&point.timeline, &primary.1) {
            true => assert_eq!(point.value, on_primary),
            false => assert_eq!(point.value, 1),
        }
        assert!(!event.query().unwrap());
        point.timeline.advance(point.value).fire();
        assert!(event.query().unwrap(), "the word stands for another marker");
    });
}

/// Two events that one lock guards, and the values of their stream.
#[test]
fn events_of_one_stream_never_share_a_value() {
    loom::model(|| {
        let (device, [(stream, _), _]) = streams(TimelineKnowledge::Completion);
        let events = [(); 2].map(|()| Arc::new(Event::new(&device)));
        for event in &events {
            event.record(&stream).unwrap();
            event.record(&stream).unwrap();
        }
        let recording = {
            let (event, stream) = (events[0].clone(), stream.clone());
            thread::spawn(move || event.record(&stream).unwrap())
        };
        events[1].record(&stream).unwrap();
        recording.join().unwrap();
        let values = events
            .each_ref()
            .map(|event| event.marker().unwrap().imp().point().value);
        assert!(values == [5, 6] || values == [6, 5], "{values:?}");
    });
}

/// A query answers while the driver holds up a record of the event: whoever asks may be who lets
/// the driver go on.
#[test]
fn a_query_does_not_wait_for_a_record_that_goes_on() {
    loom::model(|| {
        let (event, [(stream, timeline), _]) = delegated();
        timeline.advance(1).fire();
        let asked = Arc::downgrade(&event);
        let meanwhile = Box::new(move || {
            let event = asked.upgrade().unwrap();
            assert!(!event.query().unwrap());
            assert_eq!(event.status().unwrap(), Status::Pending);
        });
        assert!(fake(&stream).meanwhile.set(meanwhile).is_ok());
        event.record(&stream).unwrap();
        timeline.advance(3).fire();
        assert!(event.query().unwrap());
    });
}

/// While a marker is lent, a record and whoever wants the marker wait; a query does not.
#[test]
fn a_lent_marker_stays_as_it_is() {
    loom::model(|| {
        let (event, [(stream, timeline), _]) = delegated();
        timeline.advance(2).fire();
        let recording = {
            let event = event.clone();
            thread::spawn(move || event.record(&stream).unwrap())
        };
        if let Some(lent) = event.slot.lend_complete() {
            let before = lent.point().value;
            // Where a backend calls its driver.
            thread::yield_now();
            assert!(event.query().unwrap(), "pending while it is lent");
            assert!(event.slot.lend_complete().is_none(), "lent twice");
            assert_eq!((before, lent.point().value), (2, 2));
        }
        recording.join().unwrap();
        assert!(event.slot.lend_complete().is_none(), "lent while pending");
        assert_eq!(event.marker().unwrap().imp().point().value, 3);
    });
}

/// Asks the native object of one of two streams, as who reads a time does; what it tells, where
/// that is to be believed.
fn told_at_once(event: &Event, streams: [&Stream; 2]) -> Option<u64> {
    let glimpse = event.slot.glimpse()?;
    let asked = glimpse.native().unwrap().get();
    let natives = streams.map(|stream| &fake(stream).native);
    let mut of_it = natives
        .into_iter()
        .filter(|native| std::ptr::from_ref(*native).addr() == asked);
    let told = of_it.next().unwrap().load(Ordering::Relaxed);
    glimpse.is_current().then_some(told)
}

#[test]
fn a_time_read_without_a_lock_is_that_of_the_marker_that_is_complete() {
    loom::model(|| {
        let (event, [(stream, timeline), (other, _)]) = delegated();
        timeline.advance(2).fire();
        let streams = [&stream, &other];
        assert_eq!(told_at_once(&event, streams), Some(2));
        let recording = {
            let (event, stream) = (event.clone(), stream.clone());
            thread::spawn(move || event.record(&stream).unwrap())
        };
        if let Some(told) = told_at_once(&event, streams) {
            assert_eq!(told, 2, "of the record that goes on");
        }
        recording.join().unwrap();
        assert_eq!(told_at_once(&event, streams), None, "while pending");
        timeline.advance(3).fire();
        assert_eq!(told_at_once(&event, streams), Some(3));
    });
}

/// The marker that is replaced is gone, and its native object is recorded for another event.
#[test]
fn a_time_read_without_a_lock_is_never_that_of_another_marker() {
    loom::model(|| {
        let (event, [(stream, timeline), (other, of_other)]) = delegated();
        timeline.advance(2).fire();
        // What the event comes to hold is complete by the time that it does.
        of_other.advance(1).fire();
        let recording = {
            let (event, stream, other) = (event.clone(), stream.clone(), other.clone());
            thread::spawn(move || {
                event.record(&other).unwrap();
                fake(&stream).native.store(99, Ordering::Relaxed);
            })
        };
        if let Some(told) = told_at_once(&event, [&stream, &other]) {
            assert_eq!(told, 2);
        }
        recording.join().unwrap();
    });
}

/// A blank event is an unrecorded one, until what it kept is recorded again in place.
#[test]
fn a_blank_event_tells_nothing_of_the_marker_that_it_keeps() {
    loom::model(|| {
        let (event, [(stream, timeline), _]) = delegated();
        timeline.advance(2).fire();
        let mut event = Arc::into_inner(event).unwrap();
        assert!(event.forget());
        let event = Arc::new(event);
        assert_eq!(told_at_once(&event, [&stream, &stream]), None);
        let recording = {
            let (event, stream) = (event.clone(), stream.clone());
            thread::spawn(move || assert!(event.record_in_place(&stream, Place::unknown())))
        };
        match event.status().unwrap() {
            Status::Unrecorded | Status::Pending => {}
            Status::Complete => panic!("by the marker before"),
        }
        assert!(event.slot.lend_complete().is_none());
        if let Some(marker) = event.marker() {
            assert_eq!(marker.imp().point().value, 3);
        }
        recording.join().unwrap();
        assert_eq!(event.status().unwrap(), Status::Pending);
        assert_eq!(event.marker().unwrap().imp().point().value, 3);
    });
}
