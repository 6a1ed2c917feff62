//! What programs do wrong with wgpu, or do beside this library: errors that say so, and no hang.
#![cfg(all(feature = "wgpu30", not(loom)))]

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use fencepost::{Error, Event, Marker, synchronize_all_timeout, wgpu30, wgpu30::wgpu};

mod common;
#[path = "common/wgpu.rs"]
mod gpus;

use gpus::{Gpu, gpu, gpu_with, hold, open, ready, wanted};

const PATIENCE: Duration = fencepost_sim::HANG_TIMEOUT;

/// Work that takes the device some milliseconds.
struct Work(wgpu::Buffer);

impl Work {
    fn new(device: &wgpu::Device) -> Work {
        Work(device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: 16 << 20,
            usage: wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        }))
    }

    fn submit(&self, gpu: &Gpu) {
        self.submit_to(&gpu.device, &gpu.queue, 8);
    }

    fn submit_to(&self, device: &wgpu::Device, queue: &wgpu::Queue, times: usize) {
        let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        for _ in 0..times {
            encoder.clear_buffer(&self.0, 0, None);
        }
        queue.submit([encoder.finish()]);
    }
}

/// Whether the marker is over, and how: a hang fails the test.
fn over(marker: &Marker) -> Result<(), Error> {
    let ended = marker.synchronize_timeout(PATIENCE);
    assert!(!matches!(ended, Err(Error::Timeout(_))), "{ended:?}");
    ended
}

/// Without it, a silent layer would prove nothing.
#[test]
fn the_validation_layer_is_heard() {
    if !std::env::var("WGPU_VALIDATION").is_ok_and(|on| on == "1") {
        return common::skip(&common::test_name(), "WGPU_VALIDATION is not 1");
    }
    // Its messages would fail every test that uses a device at the same time.
    common::in_a_process_of_its_own(|| {
        let (device, _queue) = open(wanted()).unwrap();
        let info = ash::vk::BufferCreateInfo::default()
            .size(0)
            .usage(ash::vk::BufferUsageFlags::TRANSFER_DST);
        // SAFETY: the buffer's size is wrong on purpose: drivers give one without memory.
        unsafe {
            let hal = device.as_hal::<wgpu::hal::api::Vulkan>().unwrap();
            let buffer = hal.raw_device().create_buffer(&info, None).unwrap();
            hal.raw_device().destroy_buffer(buffer, None);
        }
        let messages = gpus::validation_messages();
        let is_about_it = |text: &String| text.contains("VUID-VkBufferCreateInfo-size");
        assert!(messages.iter().any(is_about_it), "{messages:?}");
    });
}

#[test]
fn two_devices_of_wgpu_are_two_devices() {
    let Some(gpu) = gpu() else { return };
    let (device, queue) = open(wanted()).unwrap();
    assert!(
        gpu.device == device && gpu.queue == queue,
        "wgpu compares numbers that each instance gives anew"
    );
    let (here, there) = (gpu.stream(), wgpu30::stream(&device, &queue).unwrap());
    let event = Event::new(here.device());
    let mismatch = event.record(&there);
    assert!(
        matches!(mismatch, Err(Error::DeviceMismatch { .. })),
        "{mismatch:?}"
    );

    Work::new(&gpu.device).submit(&gpu);
    event.record(&here).unwrap();
    match event.wait(&there) {
        Ok(()) => {}
        // Of another device's marker a queue of wgpu knows nothing.
        Err(Error::ForeignWait { .. }) => over(&event.marker().unwrap()).unwrap(),
        Err(other) => panic!("{other}"),
    }
    event.wait(&there).unwrap();
    over(&there.record().unwrap()).unwrap();
    over(&event.marker().unwrap()).unwrap();
}

#[test]
fn a_device_without_timestamps_names_the_feature_to_ask_for() {
    let Some(gpu) = gpu_with(wgpu::Features::empty()) else {
        return;
    };
    let stream = gpu.stream();
    over(&stream.record().unwrap()).unwrap();
    let error = Event::with_timing(stream.device())
        .record(&stream)
        .unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error:?}");
    assert!(error.to_string().contains("TIMESTAMP_QUERY"), "{error}");
    // The stream goes on.
    over(&stream.record().unwrap()).unwrap();
}

#[test]
fn what_is_pending_outlives_the_queue_and_the_device_of_the_caller() {
    let Some(_gpu) = gpu() else { return };
    let (device, queue) = open(wanted()).unwrap();
    let stream = wgpu30::stream(&device, &queue).unwrap();
    Work::new(&device).submit_to(&device, &queue, 8);
    let marker = stream.record_timed().unwrap();
    drop((queue, device));
    over(&marker).unwrap();
    over(&stream.record().unwrap()).unwrap();
    let before = stream.record().unwrap();
    drop(stream);
    over(&before).unwrap();
}

#[test]
fn a_device_that_is_destroyed_leaves_nobody_waiting() {
    let Some(gpu) = gpu() else { return };
    let stream = gpu.stream();
    let work = Work::new(&gpu.device);
    let (tell, told) = mpsc::channel();
    let markers: Vec<_> = (0..32)
        .map(|_| {
            work.submit(&gpu);
            let marker = stream.record_timed().unwrap();
            let tell = tell.clone();
            marker
                .on_complete(move |ended| tell.send(ended.is_ok()).unwrap())
                .unwrap();
            marker
        })
        .collect();
    let waiter = {
        let last = markers[31].clone();
        thread::spawn(move || last.synchronize_timeout(PATIENCE))
    };
    gpu.device.destroy();
    for marker in &markers {
        let _ = over(marker);
        told.recv_timeout(PATIENCE).expect("its callback is called");
    }
    let ended = waiter.join().unwrap();
    assert!(!matches!(ended, Err(Error::Timeout(_))), "{ended:?}");
    let error = stream
        .record()
        .and_then(|marker| over(&marker))
        .unwrap_err();
    assert!(
        matches!(error, Error::DeviceLost { .. } | Error::StreamFailed { .. }),
        "{error:?}"
    );
    assert!(error.to_string().contains("destroy"), "{error}");
}

/// The unwinding drops the encoder, and looks to the library as a panic of another callback's.
#[test]
fn a_panic_that_drops_an_encoder_completes_no_time_in_it() {
    let Some(gpu) = gpu() else { return };
    let stream = gpu.stream();
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    let mark = wgpu30::record_into(stream.device(), &mut encoder).unwrap();
    let unwound = catch_unwind(AssertUnwindSafe(move || {
        let _dropped = encoder;
        panic!("between the mark and the submit");
    }));
    assert!(unwound.is_err());
    let error = over(&mark.submitted()).unwrap_err();
    assert!(error.to_string().contains("without a submit"), "{error}");
}

#[test]
fn a_stream_that_waits_for_a_mark_fails_with_it_when_its_encoder_is_dropped() {
    let Some(gpu) = gpu() else { return };
    let stream = gpu.stream();
    let second = stream.device().new_stream().unwrap();
    let encoder = gpu.device.create_command_encoder(&Default::default());
    let mark = wgpu30::reserve(stream.device(), &encoder)
        .unwrap()
        .submitted();
    // So that all waits below are for pending markers.
    let Some(gate) = hold(&stream) else { return };
    let before = stream.record().unwrap();
    stream.wait(&mark).unwrap();
    second.wait(&stream.record().unwrap()).unwrap();
    let (tell, told) = mpsc::channel();
    drop(encoder);
    gate.open();
    for stream in [&stream, &second] {
        let behind = stream.record().unwrap();
        let tell = tell.clone();
        behind
            .on_complete(move |ended| tell.send(ended).unwrap())
            .unwrap();
        let heard = told.recv_timeout(PATIENCE).expect("a callback");
        for error in [over(&behind).unwrap_err(), heard.unwrap_err()] {
            assert!(error.to_string().contains("without a submit"), "{error}");
        }
        stream.clear_error().unwrap();
        over(&stream.record().unwrap()).unwrap();
    }
    over(&before).unwrap();
    // A mark that completes leaves no failure behind.
    let encoder = gpu.device.create_command_encoder(&Default::default());
    let mark = wgpu30::reserve(stream.device(), &encoder).unwrap();
    gpu.queue.submit([encoder.finish()]);
    stream.wait(&mark.submitted()).unwrap();
    over(&stream.record().unwrap()).unwrap();
}

/// wgpu lets a panic unwind out of `poll`, and drops the other callbacks that were due.
#[test]
fn a_panic_in_a_callback_of_the_callers_takes_no_marker_with_it() {
    let Some(gpu) = gpu() else { return };
    let stream = gpu.stream();
    let work = Work::new(&gpu.device);
    for _ in 0..20 {
        work.submit(&gpu);
        let before = stream.record_timed().unwrap();
        gpu.queue.on_submitted_work_done(|| panic!("on purpose"));
        let after = stream.record_timed().unwrap();
        // Whichever thread meets the panic, here or in the library.
        let _ = catch_unwind(AssertUnwindSafe(|| {
            gpu.device.poll(wgpu::PollType::wait_indefinitely())
        }));
        over(&before).unwrap();
        over(&after).unwrap();
        before.elapsed(&after).unwrap();
    }
}

#[test]
fn callers_may_poll_as_much_as_they_like() {
    let Some(gpu) = gpu() else { return };
    let stream = gpu.stream();
    let stop = Arc::new(AtomicBool::new(false));
    let pollers: Vec<_> = [wgpu::PollType::Poll, wgpu::PollType::wait_indefinitely()]
        .into_iter()
        .map(|how| {
            let (device, stop) = (gpu.device.clone(), stop.clone());
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    device.poll(how.clone()).unwrap();
                    thread::yield_now();
                }
            })
        })
        .collect();
    let event = Event::with_timing(stream.device());
    let told = Arc::new(AtomicUsize::new(0));
    for _ in 0..500 {
        event.record(&stream).unwrap();
        let told = told.clone();
        event
            .on_complete(move |ended| {
                ended.unwrap();
                told.fetch_add(1, Ordering::Relaxed);
            })
            .unwrap();
        over(&event.marker().unwrap()).unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    pollers
        .into_iter()
        .for_each(|poller| poller.join().unwrap());
    stream.synchronize().unwrap();
}

#[test]
fn ten_thousand_events_may_be_pending() {
    let Some(gpu) = gpu() else { return };
    let stream = gpu.stream();
    let work = Work::new(&gpu.device);
    work.submit(&gpu);
    let events: Vec<_> = (0..10_000)
        .map(|number| match number % 2 {
            0 => Event::new(stream.device()),
            _ => Event::with_timing(stream.device()),
        })
        .collect();
    for event in &events {
        event.record(&stream).unwrap();
    }
    synchronize_all_timeout(&events, PATIENCE).unwrap();
    for pair in events.chunks_exact(4) {
        assert!(pair[1].elapsed(&pair[3]).unwrap().as_millis_f64() >= 0.0);
    }
}

/// As a game does without a window: two frames in flight, and nobody polls.
#[test]
fn a_loop_of_frames_never_polls() {
    let Some(gpu) = gpu() else { return };
    let stream = gpu.stream();
    let work = Work::new(&gpu.device);
    let frames: Vec<_> = (0..3)
        .map(|_| Event::with_timing(stream.device()))
        .collect();
    for frame in 0..200 {
        if frame >= 2 {
            let ready = &frames[(frame - 2) % 3];
            ready.synchronize_timeout(PATIENCE).unwrap();
        }
        work.submit_to(&gpu.device, &gpu.queue, 1);
        frames[frame % 3].record(&stream).unwrap();
    }
    over(&frames[199 % 3].marker().unwrap()).unwrap();
}

#[test]
fn many_threads_may_record_and_submit_at_once() {
    let Some(gpu) = gpu() else { return };
    let stream = gpu.stream();
    let work = Work::new(&gpu.device);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..100 {
                    work.submit_to(&gpu.device, &gpu.queue, 1);
                }
            });
        }
        for timed in [false, true, true] {
            let stream = &stream;
            scope.spawn(move || {
                let record = || match timed {
                    true => stream.record_timed(),
                    false => stream.record(),
                };
                let markers: Vec<_> = (0..200).map(|_| record().unwrap()).collect();
                markers.iter().for_each(|marker| over(marker).unwrap());
                for pair in markers.windows(2).filter(|_| timed) {
                    let between = pair[0].elapsed(&pair[1]).unwrap();
                    assert!(between.as_millis_f64() >= 0.0, "{between}");
                }
            });
        }
    });
}

/// wgpu itself reports what the caller did wrong, by an error scope or by its own handler.
#[test]
fn the_callers_error_scopes_hear_nothing_of_ours() {
    let Some(gpu) = gpu() else { return };
    let stream = gpu.stream();
    let scope = gpu.device.push_error_scope(wgpu::ErrorFilter::Validation);
    let marker = stream.record_timed().unwrap();
    let heard = ready(scope.pop());
    assert!(heard.is_none(), "{heard:?}");
    over(&marker).unwrap();
}

/// The thread of a device, which drops the queue where a wait does no harm, ends with it.
#[cfg(target_os = "linux")]
#[test]
fn devices_that_are_dropped_leave_no_thread_behind() {
    common::in_a_process_of_its_own(|| {
        let Some(gpu) = gpu() else { return };
        for _ in 0..20 {
            let (device, queue) = open(wanted()).unwrap();
            let stream = wgpu30::stream(&device, &queue).unwrap();
            Work::new(&device).submit_to(&device, &queue, 1);
            let (tell, told) = mpsc::channel();
            let marker = stream.record().unwrap();
            marker
                .on_complete(move |ended| tell.send(ended).unwrap())
                .unwrap();
            told.recv_timeout(PATIENCE).unwrap().unwrap();
        }
        drop(gpu);
        let start = Instant::now();
        while threads_called("fencepost-wgpu") > 0 {
            assert!(start.elapsed() < PATIENCE, "a device's thread is left");
            thread::sleep(Duration::from_millis(10));
        }
    });
}

#[cfg(target_os = "linux")]
fn threads_called(name: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| {
        // A thread may end meanwhile.
        std::fs::read_to_string(task.ok()?.path().join("comm")).ok()
    });
    names.filter(|found| found.trim() == name).count()
}
