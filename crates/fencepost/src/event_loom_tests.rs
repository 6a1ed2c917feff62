//! The event's word and its slot, on a backend made for loom: markers that are recorded again in place, as
//! CUDA's are, and complete when the test says so.

use std::{any::Any, panic::Location, sync::Arc, time::Instant};

use super::Event;
use crate::{
    backend::{Backend, DeviceImpl, MarkerImpl, Point, StreamImpl, Told},
    device::Device,
    error::{Error, Result},
    marker::Marker,
    stream::Stream,
    sync::{Ordering, thread},
    timeline::{DeviceCore, StreamCore, Timeline, loom_tests::stream_core},
};

struct FakeDevice(Arc<FakeStream>);

struct FakeStream {
    core: Arc<StreamCore>,
    timeline: Arc<Timeline>,
    told: Told,
}

struct FakeMarker {
    point: Point,
    told: Told,
}

impl MarkerImpl for FakeMarker {
    fn point(&self) -> &Point {
        &self.point
    }
    fn told_by_timeline(&self) -> Told {
        self.told
    }
    fn query(&self) -> Result<bool> {
        self.point.timeline.check(self.point.value)
    }
    fn wait_until(&self, _: Option<Instant>) -> Result<bool> {
        self.query()
    }
    fn timestamp(&self) -> Result<crate::Timestamp> {
        unreachable!("no test asks for a time")
    }
}

impl FakeStream {
    fn next(&self) -> u64 {
        self.core.recorded.fetch_add(1, Ordering::AcqRel) + 1
    }
}

impl StreamImpl for FakeStream {
    fn core(&self) -> &Arc<StreamCore> {
        &self.core
    }
    fn mark(&self, timing: bool, at: &'static Location<'static>) -> Result<Arc<dyn MarkerImpl>> {
        let point = Point {
            timeline: self.timeline.clone(),
            value: self.next(),
            at,
            timing,
        };
        let told = self.told;
        Ok(Arc::new(FakeMarker { point, told }))
    }
    fn remarks(&self) -> bool {
        true
    }
    fn remark(&self, held: &mut Arc<dyn MarkerImpl>, _: &'static Location<'static>) -> Option<u64> {
        let held: &mut dyn Any = Arc::get_mut(held)?;
        let marker = held.downcast_mut::<FakeMarker>()?;
        let value = self.next();
        // Where a backend calls its driver: another thread may run meanwhile.
        thread::yield_now();
        marker.point.value = value;
        Some(value)
    }
    fn wait(&self, _: &Marker) -> Result<()> {
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
}

/// An event that was recorded once, and completed.
fn recorded(told: Told) -> (Arc<Event>, Stream, Arc<Timeline>) {
    let core = stream_core();
    let timeline = Timeline::new(core.clone(), 0);
    let fake = Arc::new(FakeStream {
        core,
        timeline: timeline.clone(),
        told,
    });
    let device = Device::new(Arc::new(FakeDevice(fake.clone())));
    let stream = Stream::new(fake, device.clone());
    let event = Arc::new(Event::new(&device));
    event.record(&stream).unwrap();
    timeline.advance(1).fire();
    (event, stream, timeline)
}

/// Whatever a query by another thread remembers meanwhile, after a record the new marker counts.
fn a_query_never_takes_the_old_marker_for_the_new(told: Told) {
    loom::model(move || {
        let (event, stream, timeline) = recorded(told);
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
    a_query_never_takes_the_old_marker_for_the_new(Told::Nothing);
}

#[test]
fn a_query_while_recording_where_the_timeline_tells_completion() {
    a_query_never_takes_the_old_marker_for_the_new(Told::Completion);
}

#[test]
fn a_query_while_recording_where_the_timeline_tells_all() {
    a_query_never_takes_the_old_marker_for_the_new(Told::All);
}

#[test]
fn whoever_holds_a_marker_keeps_it_as_it_was() {
    loom::model(|| {
        let (event, stream, _) = recorded(Told::Completion);
        let holding = {
            let event = event.clone();
            thread::spawn(move || {
                let marker = event.marker().unwrap();
                let value = marker.imp().point().value;
                thread::yield_now();
                assert_eq!(
                    marker.imp().point().value,
                    value,
                    "changed under its holder"
                );
                value
            })
        };
        event.record(&stream).unwrap();
        let seen = holding.join().unwrap();
        assert!(seen == 1 || seen == 2);
        assert_eq!(event.marker().unwrap().imp().point().value, 2);
    });
}

#[test]
fn two_threads_that_record_leave_the_later_marker_pending() {
    loom::model(|| {
        let (event, stream, timeline) = recorded(Told::Completion);
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
