//! Tests of the Metal backend on the stand-in for Metal: the conformance suite, its mutants, and
//! what belongs to Metal alone. Nothing here counts as Apple hardware. Without Metal: the library
//! says so.
#![cfg(not(loom))]

#[cfg(not(any(target_vendor = "apple", metal_sim)))]
#[test]
fn without_metal_it_is_an_error_that_says_what_brings_it() {
    let found = fencepost::Device::list()
        .into_iter()
        .find(|found| found.backend == fencepost::Backend::Metal)
        .unwrap();
    let why = found.missing.unwrap();
    assert!(why.contains("a Mac brings it"), "{why}");
    let error = fencepost::Device::open("metal").unwrap_err();
    assert!(error.to_string().contains(&why), "{error}");
}

#[cfg(metal_sim)]
mod common;
#[cfg(metal_sim)]
#[path = "common/suite.rs"]
mod suite;
#[cfg(metal_sim)]
#[path = "metal/support.rs"]
mod support;

#[cfg(metal_sim)]
mod stand_in {
    use std::{
        sync::{Arc, mpsc},
        time::Duration,
    };

    use fencepost::{
        Device, Error, Event, metal,
        testing::{self, work},
    };
    use fencepost_sim_metal::{Control, Setup};
    use objc2::rc::autoreleasepool;
    use objc2_metal::{
        MTLBlitCommandEncoder, MTLCommandBuffer, MTLCommandEncoder, MTLCommandQueue,
        MTLCopyAllDevices, MTLDevice, MTLSharedEvent,
    };

    use super::{common, suite, support::*};

    /// Runs the whole suite, and returns how many cases passed.
    fn keeps_every_promise(device: &Device) -> usize {
        suite::keeps_every_promise(device, |_| false)
    }

    /// In a process of its own: devices that are opened by name stay open.
    #[test]
    fn a_device_keeps_every_promise() {
        common::in_a_process_of_its_own(|| {
            let passed = keeps_every_promise(&Device::open("metal").unwrap());
            assert!(passed >= 80, "only {passed} cases passed");
            let said = Control.violations();
            assert!(said.is_empty(), "{said:#?}");
        });
    }

    #[test]
    fn a_device_that_kept_every_promise_leaves_nothing_behind() {
        let one = Setup {
            devices: 1,
            ..Setup::seeded(fencepost_sim::seed_or(5))
        };
        with_setup(one, |_| {
            assert!(keeps_every_promise(&gpu()) >= 80);
        });
    }

    /// Each seed gives command buffers and handlers another order.
    #[test]
    fn promises_about_the_host_and_dropped_streams_are_kept_with_every_seed() {
        with_gpu(|device, _| {
            suite::keeps(
                device,
                &[
                    "a_stream_waits_for_the_host_when_asked_to",
                    "waits_for_the_host_end_in_their_order",
                    "a_host_failure_fails_whoever_waits_for_it_at_any_distance",
                    "host_work_that_waits_behind_a_stream_held_by_it_is_refused",
                    "dropping_streams_that_wait_for_each_other_lets_their_work_finish",
                ],
            );
        });
    }

    /// In a process of its own: some mutants leave threads behind that hang.
    #[test]
    fn every_mutant_dies_by_every_case_that_claims_it() {
        common::in_a_process_of_its_own(|| {
            suite::every_mutant_dies(
                "mutants-metal",
                "Mutants of the Metal backend (stand-in)",
                || testing::metal::fresh(0).unwrap(),
            );
        });
    }

    #[test]
    fn a_machine_without_a_device_says_so() {
        let none = Setup {
            devices: 0,
            ..Setup::seeded(1)
        };
        with_setup(none, |_| {
            let error = Device::open("metal").unwrap_err();
            assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
            assert!(error.to_string().contains("has no device"), "{error}");
        });
    }

    #[test]
    fn a_system_before_macos_10_15_says_so() {
        let old = Setup {
            is_before_10_15: true,
            ..Setup::seeded(1)
        };
        with_setup(old, |_| {
            let error = testing::metal::fresh(0).unwrap_err();
            assert!(error.to_string().contains("macOS 10.15"), "{error}");
        });
    }

    /// Metal may give another object for the same device each time.
    #[test]
    fn devices_are_told_apart_by_more_than_their_objects() {
        common::in_a_process_of_its_own(|| {
            let device = Device::open("metal").unwrap();
            let found = Device::list()
                .into_iter()
                .find(|found| found.backend == fencepost::Backend::Metal)
                .unwrap();
            assert_eq!(found.devices, ["metal", "metal:1"]);
            let stream = autoreleasepool(|_| {
                let raw = MTLCopyAllDevices().iter().next().unwrap();
                assert_eq!(metal::device_from_raw(&raw).unwrap(), device);
                metal::stream_from_raw(&raw.newCommandQueue().unwrap()).unwrap()
            });
            assert_eq!(stream.device(), &device);
        });
    }

    #[test]
    fn devices_are_opened_by_name_and_stay_the_same() {
        common::in_a_process_of_its_own(|| {
            let (first, second) = (Device::open("metal"), Device::open("metal:1"));
            let (first, second) = (first.unwrap(), second.unwrap());
            assert_eq!(first, Device::open("metal:0").unwrap());
            assert_eq!((first.name(), second.name()), ("metal", "metal:1"));
            assert_ne!(first, second);
            assert!(Device::open("metal:2").is_err());
            assert_eq!(Device::open_best().unwrap(), first);
            assert!(first.clock().name().contains("stand-in"));
        });
    }

    /// Buffers of one queue overlap; nothing but the stream's chain orders them.
    #[test]
    fn command_buffers_of_a_stream_run_in_its_order() {
        with_gpu(|device, session| {
            let (stream, theirs) = (device.new_stream().unwrap(), Theirs::new(device));
            let log = work::new_log(device).unwrap();
            session.pause_all();
            for value in 1..=40 {
                work::append(&stream, &log, value).unwrap();
                let buffer = metal::command_buffer(&stream).unwrap();
                theirs.fill(&buffer, value as u8);
                buffer.commit();
            }
            let marker = stream.record().unwrap();
            session.resume_all();
            done(&marker);
            assert_eq!(theirs.value(), 40);
            assert_eq!(log.read().unwrap(), (1..=40).collect::<Vec<_>>());
        });
    }

    /// Its place is where it was made, whenever it is committed. So is its place in the queue, for
    /// hardware on which a waiting buffer stops those behind it.
    #[test]
    fn a_command_buffer_has_its_place_before_it_is_committed() {
        let place = |device: &Device| {
            let (stream, theirs) = (device.new_stream().unwrap(), Theirs::new(device));
            let first = metal::command_buffer(&stream).unwrap();
            let second = metal::command_buffer(&stream).unwrap();
            let behind = stream.record_timed().unwrap();
            theirs.fill(&second, 2);
            second.commit();
            is_pending(&behind);
            theirs.fill(&first, 1);
            // Dropping commits it: otherwise it would hold up the stream for ever.
            drop(first);
            done(&behind);
            assert_eq!(theirs.value(), 2);
        };
        with_gpu(|device, _| place(device));
        let one_channel = Setup {
            channels: Some(1),
            ..Setup::seeded(fencepost_sim::seed_or(2))
        };
        with_setup(one_channel, |_| place(&gpu()));
    }

    /// The event may show its value before the buffer has a time. Handlers run in any order.
    #[test]
    fn a_complete_marker_has_its_time_in_the_order_of_the_stream() {
        with_gpu(|device, session| {
            let stream = device.new_stream().unwrap();
            session.pause_all();
            let markers: Vec<_> = (0..100).map(|_| stream.record_timed().unwrap()).collect();
            session.resume_all();
            for marker in markers.iter().rev() {
                while !marker.query().unwrap() {
                    std::thread::yield_now();
                }
                marker.timestamp().unwrap();
            }
            let ticks = markers
                .iter()
                .map(|marker| marker.timestamp().unwrap().ticks());
            assert!(ticks.is_sorted(), "a time is not its own marker's");
        });
    }

    /// Metal promises no time for an empty command buffer.
    #[test]
    fn a_timed_marker_has_a_command_buffer_with_work_in_it() {
        with_gpu(|device, session| {
            let stream = device.new_stream().unwrap();
            let before = session.calls("blitCommandEncoder");
            let (start, end) = (
                stream.record_timed().unwrap(),
                stream.record_timed().unwrap(),
            );
            done(&end);
            assert_eq!(session.calls("blitCommandEncoder"), before + 2);
            assert!(!start.elapsed(&end).unwrap().is_negative());
        });
    }

    /// Handlers of two queues run in any order too.
    #[test]
    fn a_complete_marker_means_that_those_its_stream_waited_for_are_complete() {
        with_gpu(|device, session| {
            let streams: Vec<_> = (0..4).map(|_| device.new_stream().unwrap()).collect();
            session.pause_all();
            let mut markers = vec![streams[0].record_timed().unwrap()];
            for turn in 1..60 {
                let stream = &streams[turn % 4];
                stream.wait(&markers[turn - 1]).unwrap();
                markers.push(stream.record_timed().unwrap());
            }
            session.resume_all();
            done(&markers[59]);
            for marker in &markers {
                assert!(marker.query().unwrap(), "{marker} is not complete");
                marker.timestamp().unwrap();
            }
        });
    }

    #[test]
    fn records_and_waits_take_no_command_buffer_where_none_is_needed() {
        with_gpu(|device, session| {
            let (one, two) = (device.new_stream().unwrap(), device.new_stream().unwrap());
            let before = session.calls("commandBuffer");
            let marker = one.record().unwrap();
            assert!(marker.query().unwrap(), "nothing was submitted before it");
            let gate = work::gate(&one).unwrap();
            let markers: Vec<_> = (0..1000).map(|_| one.record().unwrap()).collect();
            for marker in &markers {
                two.wait(marker).unwrap();
            }
            assert_eq!(
                session.calls("commandBuffer"),
                before + 1,
                "one behind the gate"
            );
            let behind = two.record().unwrap();
            assert_eq!(
                session.calls("commandBuffer"),
                before + 2,
                "one behind the waits"
            );
            is_pending(&behind);
            gate.open();
            done(&behind);
        });
    }

    /// Streams wait for each other in turn, thousands deep, and all handlers run at once.
    #[test]
    fn a_long_chain_of_waits_does_not_nest() {
        with_setup(Setup::seeded(fencepost_sim::seed_or(3)), |session| {
            let device = gpu();
            let (one, two) = (device.new_stream().unwrap(), device.new_stream().unwrap());
            session.pause_callbacks();
            let gate = work::gate(&one).unwrap();
            let mut last = one.record().unwrap();
            for _ in 0..900 {
                for stream in [&two, &one] {
                    stream.wait(&last).unwrap();
                    last = stream.record().unwrap();
                }
            }
            gate.open();
            session.resume_callbacks();
            done(&last);
        });
    }

    #[test]
    fn two_devices_wait_for_each_other_on_the_device() {
        with_gpu(|device, session| {
            let other = testing::metal::fresh(1).unwrap();
            let (here, there) = (device.new_stream().unwrap(), other.new_stream().unwrap());
            let gate = work::gate(&here).unwrap();
            there.wait(&here.record().unwrap()).unwrap();
            let behind = there.record_timed().unwrap();
            is_pending(&behind);
            assert!(
                session.pending_work().len() >= 2,
                "{:?}",
                session.pending_work()
            );
            let mixed = here.record_timed().unwrap().elapsed(&behind);
            assert!(
                matches!(mixed, Err(Error::DeviceMismatch { .. })),
                "{mixed:?}"
            );
            gate.open();
            done(&behind);
        });
    }

    #[test]
    fn the_callers_own_command_buffers_are_marked_inside() {
        with_gpu(|device, session| {
            let (stream, theirs) = (device.new_stream().unwrap(), Theirs::new(device));
            let gate = work::gate(&stream).unwrap();
            let loaded = stream.record().unwrap();
            let (first, second) = (theirs.buffer(), theirs.buffer());
            metal::wait_into(&loaded, &first).unwrap();
            theirs.fill(&first, 1);
            let reserved = metal::record_into(device, &first).unwrap();
            let place = reserved.marker().recorded_at();
            assert_eq!((place.file(), place.line()), (file!(), line!() - 2));
            let marker = reserved.marker();
            assert!(marker.has_timing() && !marker.query().unwrap());
            for refused in [
                marker.synchronize_timeout(PATIENCE).unwrap_err(),
                stream.wait(&marker).unwrap_err(),
                metal::wait_into(&marker, &second).unwrap_err(),
                marker.on_complete(|_| {}).unwrap_err(),
            ] {
                assert!(matches!(refused, Error::NotSubmitted { .. }), "{refused:?}");
            }
            first.commit();
            let marker = reserved.submitted();
            metal::wait_into(&marker, &second).unwrap();
            theirs.fill(&second, 2);
            let last = metal::record_into(device, &second).unwrap();
            second.commit();
            let last = last.submitted();
            stream.wait(&last).unwrap();
            let behind = stream.record_timed().unwrap();
            is_pending(&last);
            assert!(session.wait_idle(Duration::from_millis(1)) || !behind.query().unwrap());
            gate.open();
            done(&behind);
            assert!(last.query().unwrap(), "the stream waited for it");
            // Only the device knows what a buffer of the caller waited for.
            done(&marker);
            assert_eq!(theirs.value(), 2);
            for (earlier, later) in [(&marker, &last), (&last, &behind)] {
                assert!(!earlier.elapsed(later).unwrap().is_negative());
            }
            let late = metal::record_into(device, &second).unwrap_err();
            assert!(matches!(late, Error::Unsupported { .. }), "{late:?}");
            let late = metal::wait_into(&behind, &second).unwrap_err();
            assert!(late.to_string().contains("before you commit"), "{late}");
        });
    }

    /// The caller's buffer may be one without retained references. Metal does not say of any buffer
    /// that it keeps events alive.
    #[test]
    fn an_event_lives_as_long_as_a_command_buffer_that_uses_it() {
        with_gpu(|device, session| {
            let theirs = Theirs::new(device);
            session.pause_all();
            let reserved = {
                let (stream, other) = (device.new_stream().unwrap(), device.new_stream().unwrap());
                let log = work::new_log(device).unwrap();
                work::append(&stream, &log, 1).unwrap();
                let buffer = autoreleasepool(|_| {
                    let queue = &theirs.queue;
                    queue.commandBufferWithUnretainedReferences().unwrap()
                });
                let loaded = stream.record().unwrap();
                metal::wait_into(&loaded, &buffer).unwrap();
                other.wait(&loaded).unwrap();
                let _behind = other.record_timed().unwrap();
                let reserved = metal::record_into(device, &buffer).unwrap();
                buffer.commit();
                reserved.submitted()
            };
            session.resume_all();
            done(&reserved);
        });
    }

    #[test]
    fn a_command_buffer_never_waits_for_a_marker_behind_itself() {
        with_gpu(|device, _| {
            let stream = device.new_stream().unwrap();
            let first = metal::command_buffer(&stream).unwrap();
            let between = stream.record().unwrap();
            let second = metal::command_buffer(&stream).unwrap();
            let behind = stream.record_timed().unwrap();
            for (marker, buffer) in [(&between, &first), (&behind, &first), (&behind, &second)] {
                let error = metal::wait_into(marker, buffer).unwrap_err();
                assert!(error.to_string().contains("would never end"), "{error}");
            }
            metal::wait_into(&between, &second).unwrap();
            first.commit();
            second.commit();
            done(&behind);
        });
    }

    #[test]
    fn a_mark_in_a_command_buffer_of_another_device_is_refused() {
        with_gpu(|device, _| {
            let other = testing::metal::fresh(1).unwrap();
            let error = metal::record_into(&other, &Theirs::new(device).buffer()).unwrap_err();
            assert!(matches!(error, Error::DeviceMismatch { .. }), "{error:?}");
        });
    }

    #[test]
    fn the_end_of_a_command_buffer_is_marked_while_others_encode() {
        with_gpu_of(
            |setup| setup.handlers_beside_encoders = true,
            |device, session| {
                let (stream, theirs) = (device.new_stream().unwrap(), Theirs::new(device));
                let (first, second) = (theirs.buffer(), theirs.buffer());
                let encoder = autoreleasepool(|_| first.blitCommandEncoder().unwrap());
                let reserved = metal::record_end(device, &[&first], None).unwrap();
                let place = reserved.marker().recorded_at();
                assert_eq!((place.file(), place.line()), (file!(), line!() - 2));
                let marker = reserved.marker();
                assert!(marker.has_timing() && !marker.query().unwrap());
                let early = stream.wait(&marker).unwrap_err();
                assert!(matches!(early, Error::NotSubmitted { .. }), "{early:?}");
                // The marker covers what is encoded from now on, too.
                autoreleasepool(|_| {
                    encoder.fillBuffer_range_value(&theirs.memory, (0..4).into(), 1);
                    encoder.endEncoding();
                });
                session.pause(&theirs.queue);
                first.commit();
                let marker = reserved.submitted();
                let event = Event::with_timing(device);
                event.set_marker(marker.clone()).unwrap();
                stream.wait(&marker).unwrap();
                let behind = stream.record_timed().unwrap();
                metal::wait_into(&marker, &second).unwrap();
                theirs.fill(&second, 2);
                let last = metal::record_end(device, &[&second], None).unwrap();
                second.commit();
                let last = last.submitted();
                is_pending(&marker);
                assert!(!event.query().unwrap() && !behind.query().unwrap());
                session.resume(&theirs.queue);
                for marker in [&behind, &last] {
                    done(marker);
                }
                assert!(event.query().unwrap(), "the stream waited for it");
                assert_eq!(theirs.value(), 2, "the second waited for the first");
                for later in [&behind, &last] {
                    assert!(!marker.elapsed(later).unwrap().is_negative());
                }
                let late = metal::record_end(device, &[&first], None).unwrap_err();
                assert!(late.to_string().contains("before you commit"), "{late}");
                let none = metal::record_end(device, &[], None).unwrap_err();
                assert!(matches!(none, Error::Unsupported { .. }), "{none:?}");
            },
        );
    }

    #[test]
    fn the_end_of_several_command_buffers_is_that_of_the_last_in_any_order() {
        with_gpu(|device, session| {
            let (here, there) = (Theirs::new(device), Theirs::new(device));
            for paused in [&here, &there] {
                let (one, other) = (here.buffer(), there.buffer());
                let reserved = metal::record_end(device, &[&one, &other], None).unwrap();
                session.pause(&paused.queue);
                one.commit();
                other.commit();
                let marker = reserved.submitted();
                let waits = here.buffer();
                metal::wait_into(&marker, &waits).unwrap();
                let reserved = metal::record_end(device, &[&waits], None).unwrap();
                waits.commit();
                let behind = reserved.submitted();
                is_pending(&marker);
                is_pending(&behind);
                session.resume(&paused.queue);
                done(&behind);
                done(&marker);
                assert!(!marker.elapsed(&behind).unwrap().is_negative());
            }
        });
    }

    #[test]
    fn an_end_behind_another_comes_no_sooner() {
        with_gpu(|device, session| {
            let (here, there) = (Theirs::new(device), Theirs::new(device));
            let reserved = metal::record_end(device, &[&here.buffer()], None).unwrap();
            let early = metal::record_end(device, &[&there.buffer()], Some(&reserved.marker()));
            assert!(
                matches!(early, Err(Error::NotSubmitted { .. })),
                "{early:?}"
            );
            let first = here.buffer();
            here.fill(&first, 1);
            let reserved = metal::record_end(device, &[&first], None).unwrap();
            session.pause(&here.queue);
            first.commit();
            let mut markers = vec![reserved.submitted()];
            for _ in 0..100 {
                let next = there.buffer();
                there.fill(&next, 2);
                let reserved = metal::record_end(device, &[&next], markers.last()).unwrap();
                next.commit();
                markers.push(reserved.submitted());
                // The queue has room for few buffers.
                autoreleasepool(|_| next.waitUntilCompleted());
            }
            let waits = there.buffer();
            metal::wait_into(&markers[100], &waits).unwrap();
            let reserved = metal::record_end(device, &[&waits], None).unwrap();
            waits.commit();
            let waits = reserved.submitted();
            is_pending(&markers[100]);
            is_pending(&waits);
            session.resume(&here.queue);
            done(&waits);
            done(&markers[100]);
            for pair in markers.windows(2) {
                assert!(pair[0].query().unwrap());
                assert!(!pair[0].elapsed(&pair[1]).unwrap().is_negative());
            }
        });
    }

    #[test]
    fn a_dropped_reservation_is_abandoned() {
        with_gpu(|device, _| {
            let theirs = Theirs::new(device);
            let end: fn(&_, &_) -> _ = |device, buffer| metal::record_end(device, &[buffer], None);
            for (is_committed, record) in [
                (false, metal::record_into as fn(&_, &_) -> _),
                (true, metal::record_into),
                (true, end),
            ] {
                let buffer = theirs.buffer();
                let reserved = record(device, &buffer).unwrap();
                let marker = reserved.marker();
                drop(reserved);
                if is_committed {
                    buffer.commit();
                    autoreleasepool(|_| buffer.waitUntilCompleted());
                }
                let error = marker.synchronize().unwrap_err();
                assert!(matches!(error, Error::Abandoned { .. }), "{error:?}");
            }
        });
    }

    /// In a process of its own: the device that the queue belongs to stays open.
    #[test]
    fn a_plain_mark_on_the_callers_queue_names_what_to_do_instead() {
        common::in_a_process_of_its_own(|| {
            let theirs = Theirs::new(&Device::open("metal:1").unwrap());
            let stream = metal::stream_from_raw(&theirs.queue).unwrap();
            let queue = metal::stream_as_raw(&stream).unwrap();
            assert!(std::ptr::addr_eq(&*queue, &*theirs.queue));
            assert_eq!(stream.device(), &Device::open("metal:1").unwrap());
            let other = Device::open("metal").unwrap().new_stream().unwrap();
            let gate = work::gate(&other).unwrap();
            let pending = other.record().unwrap();
            for error in [
                stream.record().unwrap_err(),
                Event::with_timing(stream.device())
                    .record(&stream)
                    .unwrap_err(),
                stream.wait(&pending).unwrap_err(),
                stream.wait_foreign(&pending).unwrap_err(),
            ] {
                assert!(matches!(error, Error::Unsupported { .. }), "{error:?}");
                let text = error.to_string();
                assert!(
                    text.contains("record_into") && text.contains("wait_into"),
                    "{text}"
                );
            }
            gate.open();
            stream.device().synchronize().unwrap();
            // The buffers that the stream makes are in order, whatever else is in the queue.
            for value in 1..=20 {
                let buffer = metal::command_buffer(&stream).unwrap();
                theirs.fill(&buffer, value);
                let last =
                    (value == 20).then(|| metal::record_into(stream.device(), &buffer).unwrap());
                buffer.commit();
                if let Some(last) = last {
                    done(&last.submitted());
                }
            }
            assert_eq!(theirs.value(), 20);
            assert!(
                Control.violations().is_empty(),
                "{:#?}",
                Control.violations()
            );
        });
    }

    /// Buffers that the caller commits to a stream's queue do not change the stream's order.
    #[test]
    fn a_streams_queue_is_given_out_and_stays_in_order() {
        with_gpu(|device, _| {
            let stream = device.new_stream().unwrap();
            let queue = metal::stream_as_raw(&stream).unwrap();
            let gate = work::gate(&stream).unwrap();
            let marker = stream.record_timed().unwrap();
            autoreleasepool(|_| {
                let own = queue.commandBuffer().unwrap();
                metal::wait_into(&marker, &own).unwrap();
                let end = metal::record_into(device, &own).unwrap();
                own.commit();
                let end = end.submitted();
                let last = stream.record_timed().unwrap();
                assert!(!end.query().unwrap() && !last.query().unwrap());
                gate.open();
                done(&last);
                done(&end);
                assert!(marker.query().unwrap());
            });
            let host = Device::open("host").unwrap();
            let refused = metal::stream_as_raw(&host.default_stream()).unwrap_err();
            assert!(matches!(refused, Error::Unsupported { .. }), "{refused:?}");
        });
    }

    #[test]
    fn the_native_event_comes_to_the_markers_value() {
        with_gpu(|device, _| {
            let stream = device.new_stream().unwrap();
            let gate = work::gate(&stream).unwrap();
            let marker = stream.record().unwrap();
            let (event, value) = metal::marker_as_raw(&marker).unwrap();
            assert!(event.signaledValue() < value);
            gate.open();
            done(&marker);
            assert!(event.signaledValue() >= value);
            let host = Device::open("host").unwrap().default_stream();
            assert!(metal::marker_as_raw(&host.record().unwrap()).is_none());
            work::fail(&stream, "boom").unwrap();
            assert!(metal::marker_as_raw(&stream.record().unwrap()).is_none());
        });
    }

    #[test]
    fn callbacks_and_futures_are_told_by_handlers() {
        with_gpu(|device, _| {
            let stream = device.new_stream().unwrap();
            let gate = work::gate(&stream).unwrap();
            let marker = stream.record_timed().unwrap();
            let (tell, told) = mpsc::channel();
            marker
                .on_complete(move |result| tell.send(result.is_ok()).unwrap())
                .unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .build()
                .unwrap();
            gate.open();
            runtime.block_on(async { marker.clone().await }).unwrap();
            assert!(told.recv_timeout(PATIENCE).unwrap());
        });
    }

    #[test]
    fn bytes_are_counted_by_kernels() {
        with_gpu(|device, _| {
            let (one, two) = (device.new_stream().unwrap(), device.new_stream().unwrap());
            let counter = work::ByteCounter::new(device, 1000).unwrap();
            let sum = work::ByteCounter::new(device, 0).unwrap();
            counter.fill(1000, |bytes| bytes.fill(7)).unwrap();
            let counted = Event::new(device);
            for _ in 0..3 {
                counter.count(&one, 999).unwrap();
                counted.record(&one).unwrap();
                counted.wait(&two).unwrap();
                counter.add_to(&two, &sum).unwrap();
                counted.record(&two).unwrap();
                counted.wait(&one).unwrap();
            }
            counted.synchronize_timeout(PATIENCE).unwrap();
            let counts = sum.read().unwrap();
            assert_eq!((counts[7], counts.iter().sum::<u64>()), (2997, 2997));
        });
    }

    #[test]
    fn many_threads_use_one_stream() {
        with_gpu(|device, _| {
            let stream = Arc::new(device.new_stream().unwrap());
            let log = work::new_log(device).unwrap();
            std::thread::scope(|threads| {
                for thread in 0..4 {
                    let (stream, log) = (&stream, &log);
                    threads.spawn(move || {
                        for turn in 0..20 {
                            work::append(stream, log, thread * 100 + turn).unwrap();
                            let marker = stream.record_timed().unwrap();
                            done(&marker);
                        }
                    });
                }
            });
            let tokens = log.read().unwrap();
            assert_eq!(tokens.len(), 80);
            for thread in 0..4 {
                let own = tokens.iter().filter(|token| **token / 100 == thread);
                assert!(own.is_sorted(), "{tokens:?}");
            }
        });
    }

    #[test]
    fn a_process_may_end_with_anything_pending() {
        suite::a_process_may_end_with_anything_pending("metal");
    }

    #[test]
    fn a_process_may_end_with_a_closed_gate() {
        suite::a_process_may_end_with_a_closed_gate("metal", false);
    }

    #[test]
    fn a_forked_child_is_told_so_and_may_drop_everything() {
        // Looking for devices is an error too: nothing of Objective-C can be called there.
        suite::a_forked_child_is_told_so("metal", |_, _| {
            let says_so = |error: Error| error.to_string().contains("fork()");
            Device::open("metal").is_err_and(says_so) && testing::metal::fresh(0).is_err()
        });
    }
}
