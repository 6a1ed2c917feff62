//! Tests of the wgpu backend, on a device of wgpu's own. Without one they count as skipped.
#![cfg(all(feature = "wgpu30", not(loom)))]

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use fencepost::{
    Backend, Device, Error, Event, Gate, testing,
    wgpu30::{self, wgpu},
};

mod common;
#[path = "common/wgpu.rs"]
mod devices;
#[path = "common/suite.rs"]
mod suite;

use devices::{Gpu, gpu, gpu_with, hold, open};

/// Only a hang takes longer.
const PATIENCE: Duration = Duration::from_secs(120);

/// Work that takes a while on a processor.
fn work(gpu: &Gpu) -> wgpu::CommandBuffer {
    let buffer = gpu.device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 64 << 20,
        usage: wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    for _ in 0..8 {
        encoder.clear_buffer(&buffer, 0, None);
    }
    encoder.finish()
}

#[test]
fn a_marker_completes_without_a_poll_of_the_callers() {
    let Some(gpu) = gpu() else { return };
    let stream = wgpu30::stream(&gpu.device, &gpu.queue).unwrap();
    assert_eq!(stream.device().backend(), Backend::Wgpu30);
    gpu.queue.submit([work(&gpu)]);
    let event = Event::new(stream.device());
    event.record(&stream).unwrap();
    event.synchronize_timeout(PATIENCE).unwrap();
    assert!(event.query().unwrap());
    gpu.queue.submit([work(&gpu)]);
    let (tell, told) = mpsc::channel();
    let marker = stream.record().unwrap();
    marker
        .on_complete(move |result| tell.send(result).unwrap())
        .unwrap();
    told.recv_timeout(PATIENCE).unwrap().unwrap();
    assert!(marker.query().unwrap());
}

#[test]
fn a_queue_has_one_stream_from_the_start() {
    let Some(gpu) = gpu() else { return };
    let one = wgpu30::stream(&gpu.device, &gpu.queue).unwrap();
    let two = wgpu30::stream(&gpu.device.clone(), &gpu.queue.clone()).unwrap();
    assert_eq!(one.id(), two.id());
    assert_eq!(one.device(), two.device());
    let third = one.device().new_stream().unwrap();
    assert_ne!(one.id(), third.id());
    third.wait(&one.record().unwrap()).unwrap();
    third.synchronize_timeout(PATIENCE).unwrap();
}

#[test]
fn a_queue_of_another_device_is_refused() {
    let Some(gpu) = gpu() else { return };
    let (_, other) = open(wgpu::Features::empty()).unwrap();
    match wgpu30::stream(&gpu.device, &other) {
        Err(Error::DeviceMismatch { .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_stream_waits_for_no_pending_marker_of_another_backend() {
    let Some(gpu) = gpu() else { return };
    let stream = wgpu30::stream(&gpu.device, &gpu.queue).unwrap();
    let host = Device::open("host").unwrap().new_stream().unwrap();
    let (go, wait) = mpsc::channel::<()>();
    host.launch(move || {
        let _ = wait.recv();
    })
    .unwrap();
    let pending = host.record().unwrap();
    let error = stream.wait(&pending).unwrap_err();
    assert!(matches!(error, Error::ForeignWait { .. }), "{error:?}");
    assert!(!error.to_string().contains("wait_foreign"), "{error}");
    assert!(matches!(
        stream.wait_foreign(&pending),
        Err(Error::Unsupported { .. })
    ));
    drop(go);
    pending.synchronize_timeout(PATIENCE).unwrap();
    stream.wait(&pending).unwrap();
    gpu.queue.submit([work(&gpu)]);
    host.wait(&stream.record().unwrap()).unwrap();
    host.synchronize_timeout(PATIENCE).unwrap();
}

#[test]
fn a_gate_is_refused_where_it_is_made_and_says_why() {
    let Some(gpu) = gpu() else { return };
    let error = Gate::new(gpu.stream().device()).unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error:?}");
    assert!(error.to_string().contains("binary semaphores"), "{error}");
}

#[test]
fn after_destroy_what_is_pending_completes_and_what_is_recorded_fails() {
    let Some(gpu) = gpu() else { return };
    let stream = wgpu30::stream(&gpu.device, &gpu.queue).unwrap();
    gpu.queue.submit([work(&gpu)]);
    let pending = stream.record().unwrap();
    gpu.device.destroy();
    let refused = stream.record().unwrap();
    let error = refused.synchronize_timeout(PATIENCE).unwrap_err();
    assert!(
        error.to_string().contains("takes no more submits"),
        "{error}"
    );
    pending.synchronize_timeout(PATIENCE).unwrap();
    assert!(matches!(
        stream.clear_error(),
        Err(Error::DeviceLost { .. })
    ));
    drop((refused, pending));
}

#[test]
fn a_callback_of_the_users_that_runs_in_a_record_may_record() {
    let Some(gpu) = gpu() else { return };
    let stream = wgpu30::stream(&gpu.device, &gpu.queue).unwrap();
    let event = Arc::new(Event::new(stream.device()));
    event.record(&stream).unwrap();
    event.synchronize_timeout(PATIENCE).unwrap();
    let (tell, told) = mpsc::channel();
    let (again, on) = (event.clone(), stream.clone());
    gpu.queue.on_submitted_work_done(move || {
        again.record(&on).unwrap();
        tell.send(again.query().is_ok()).unwrap();
        panic!("a callback of the user's");
    });
    // It is due once wgpu sees the first record complete, which may be later than an event does.
    let start = Instant::now();
    let told = loop {
        event.record(&stream).unwrap();
        match told.try_recv() {
            Ok(told) => break told,
            Err(_) => assert!(start.elapsed() < PATIENCE),
        }
        event.synchronize_timeout(PATIENCE).unwrap();
    };
    assert!(told);
    event.synchronize_timeout(PATIENCE).unwrap();
    stream.synchronize_timeout(PATIENCE).unwrap();
}

/// How many cases of the suite run: half of them hold the queue.
fn at_least(gpu: &Gpu) -> usize {
    match testing::work::gate(&gpu.stream()) {
        Ok(_) => 120,
        Err(_) => 60,
    }
}

#[test]
fn a_device_keeps_every_promise() {
    let Some(gpu) = gpu() else { return };
    let stream = wgpu30::stream(&gpu.device, &gpu.queue).unwrap();
    let passed = suite::keeps_every_promise(stream.device(), |_| false);
    assert!(passed >= at_least(&gpu), "only {passed} cases passed");
}

#[test]
fn a_time_is_there_once_its_marker_is_complete() {
    let Some(gpu) = gpu() else { return };
    let stream = wgpu30::stream(&gpu.device, &gpu.queue).unwrap();
    let (start, end) = (stream.record_timed().unwrap(), {
        gpu.queue.submit([work(&gpu)]);
        stream.record_timed().unwrap()
    });
    end.synchronize_timeout(PATIENCE).unwrap();
    assert!(start.elapsed(&end).unwrap().as_nanos_f64() > 0.0);
    assert!(end.elapsed(&start).unwrap().as_nanos_f64() < 0.0);
    assert_eq!(end.elapsed(&end).unwrap().as_nanos_f64(), 0.0);
}

#[test]
fn marks_in_an_encoder_of_the_callers_have_times() {
    let Some(gpu) = gpu() else { return };
    let stream = wgpu30::stream(&gpu.device, &gpu.queue).unwrap();
    let device = stream.device();
    // Slots are used again: more rounds than a set has, some of them abandoned.
    for round in 0..300 {
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        let start = wgpu30::record_into(device, &mut encoder).unwrap();
        let end = wgpu30::record_into(device, &mut encoder).unwrap();
        let mark = end.marker();
        assert!(!mark.query().unwrap());
        assert!(matches!(
            mark.synchronize(),
            Err(Error::NotSubmitted { .. })
        ));
        if round % 3 == 0 {
            continue;
        }
        gpu.queue.submit([encoder.finish()]);
        let (start, end) = (start.submitted(), end.submitted());
        end.synchronize_timeout(PATIENCE).unwrap();
        let took = start.elapsed(&end).unwrap().as_nanos_f64();
        assert!((0.0..60e9).contains(&took), "{took} ns in round {round}");
    }
}

#[test]
fn a_pass_has_times_if_it_was_begun_with_them() {
    let Some(gpu) = gpu_with(wgpu::Features::TIMESTAMP_QUERY) else {
        return;
    };
    let stream = wgpu30::stream(&gpu.device, &gpu.queue).unwrap();
    // The first slot is one whose queries nothing ever wrote. Each is used again, also behind an
    // encoder that was not submitted.
    let rounds = [
        (false, true),
        (true, true),
        (false, true),
        (true, true),
        (true, false),
        (false, true),
    ];
    for (begun, submits) in rounds {
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        let times = wgpu30::PassTimes::new(stream.device()).unwrap();
        drop(encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
            label: None,
            timestamp_writes: begun.then(|| times.compute()),
        }));
        let (start, end) = times.record_into(&mut encoder).unwrap();
        if !submits {
            continue;
        }
        gpu.queue.submit([encoder.finish()]);
        let (start, end) = (start.submitted(), end.submitted());
        end.synchronize_timeout(PATIENCE).unwrap();
        match start.elapsed(&end) {
            Ok(took) => assert!(begun && took.as_nanos_f64() >= 0.0, "{took}"),
            Err(error) => assert!(!begun && error.to_string().contains("no time"), "{error}"),
        }
    }
    let error = stream.record_timed().unwrap_err();
    assert!(
        error
            .to_string()
            .contains("TIMESTAMP_QUERY_INSIDE_ENCODERS"),
        "{error}"
    );
}

#[test]
fn a_render_pass_has_times() {
    let Some(gpu) = gpu_with(wgpu::Features::TIMESTAMP_QUERY) else {
        return;
    };
    let stream = gpu.stream();
    let texture = gpu.device.create_texture(&wgpu::TextureDescriptor {
        label: None,
        size: wgpu::Extent3d {
            width: 64,
            height: 64,
            depth_or_array_layers: 1,
        },
        mip_level_count: 1,
        sample_count: 1,
        dimension: wgpu::TextureDimension::D2,
        format: wgpu::TextureFormat::Rgba8Unorm,
        usage: wgpu::TextureUsages::RENDER_ATTACHMENT,
        view_formats: &[],
    });
    let view = texture.create_view(&Default::default());
    let times = wgpu30::PassTimes::new(stream.device()).unwrap();
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    drop(encoder.begin_render_pass(&wgpu::RenderPassDescriptor {
        color_attachments: &[Some(wgpu::RenderPassColorAttachment {
            view: &view,
            depth_slice: None,
            resolve_target: None,
            ops: wgpu::Operations::default(),
        })],
        timestamp_writes: Some(times.render()),
        ..Default::default()
    }));
    let (start, end) = times.record_into(&mut encoder).unwrap();
    gpu.queue.submit([encoder.finish()]);
    let (start, end) = (start.submitted(), end.submitted());
    end.synchronize_timeout(PATIENCE).unwrap();
    let took = start.elapsed(&end).unwrap();
    assert!(took.as_nanos_f64() >= 0.0, "{took}");
}

#[test]
fn without_features_there_are_no_times_and_the_error_names_the_feature() {
    let Some(gpu) = gpu_with(wgpu::Features::empty()) else {
        return;
    };
    let stream = wgpu30::stream(&gpu.device, &gpu.queue).unwrap();
    for refused in [
        stream.record_timed().unwrap_err(),
        wgpu30::PassTimes::new(stream.device()).unwrap_err(),
    ] {
        assert!(matches!(refused, Error::Unsupported { .. }), "{refused:?}");
        assert!(refused.to_string().contains("TIMESTAMP_QUERY"), "{refused}");
    }
    // Its period is 1 all the same.
    assert_eq!(gpu.queue.get_timestamp_period(), 1.0);
    stream
        .record()
        .unwrap()
        .synchronize_timeout(PATIENCE)
        .unwrap();
}

#[test]
fn a_mark_whose_encoder_was_never_submitted_fails_and_says_so() {
    let Some(gpu) = gpu() else { return };
    let stream = wgpu30::stream(&gpu.device, &gpu.queue).unwrap();
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    let marks = [
        wgpu30::reserve(stream.device(), &encoder).unwrap(),
        wgpu30::record_into(stream.device(), &mut encoder).unwrap(),
    ];
    drop(encoder);
    for mark in marks {
        let host = Device::open("host").unwrap().new_stream().unwrap();
        let marker = mark.submitted();
        host.wait(&marker).unwrap();
        for error in [
            marker.synchronize_timeout(PATIENCE).unwrap_err(),
            host.synchronize_timeout(PATIENCE).unwrap_err(),
        ] {
            assert!(error.to_string().contains("without a submit"), "{error}");
        }
    }
    let encoder = gpu.device.create_command_encoder(&Default::default());
    let abandoned = wgpu30::reserve(stream.device(), &encoder).unwrap();
    let marker = abandoned.marker();
    drop(abandoned);
    assert!(matches!(marker.synchronize(), Err(Error::Abandoned { .. })));
}

#[test]
fn a_mark_in_an_encoder_is_told_without_a_poll_of_the_callers() {
    let Some(gpu) = gpu() else { return };
    let stream = wgpu30::stream(&gpu.device, &gpu.queue).unwrap();
    let encoder = gpu.device.create_command_encoder(&Default::default());
    let mark = wgpu30::reserve(stream.device(), &encoder).unwrap();
    gpu.queue.submit([work(&gpu), encoder.finish()]);
    let marker = mark.submitted();
    let (tell, told) = mpsc::channel();
    marker
        .on_complete(move |result| tell.send(result).unwrap())
        .unwrap();
    told.recv_timeout(PATIENCE).unwrap().unwrap();
    // The queue's order keeps the wait.
    stream.wait(&marker).unwrap();
    stream.synchronize_timeout(PATIENCE).unwrap();
}

#[test]
fn a_panic_in_a_callback_of_the_callers_hides_no_mark_in_an_encoder() {
    let Some(gpu) = gpu() else { return };
    let stream = wgpu30::stream(&gpu.device, &gpu.queue).unwrap();
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    encoder.on_submitted_work_done(|| panic!("a callback of the user's"));
    let marks = [
        wgpu30::reserve(stream.device(), &encoder).unwrap(),
        wgpu30::record_into(stream.device(), &mut encoder).unwrap(),
    ];
    let uncalled = Arc::new(());
    let called = uncalled.clone();
    encoder.on_submitted_work_done(move || std::mem::forget(called));
    gpu.queue.submit([encoder.finish()]);
    let start = Instant::now();
    // The panic comes out of the poll that finds the callbacks due.
    while catch_unwind(AssertUnwindSafe(|| gpu.device.poll(wgpu::PollType::Poll))).is_ok() {
        assert!(start.elapsed() < PATIENCE);
    }
    assert_eq!(
        Arc::strong_count(&uncalled),
        1,
        "wgpu called the one behind"
    );
    for mark in marks {
        mark.submitted().synchronize_timeout(PATIENCE).unwrap();
    }
}

#[test]
fn an_index_of_another_device_is_taken_by_wgpu_and_a_marker_is_not() {
    let Some(gpu) = gpu() else { return };
    let (device, queue) = open(devices::wanted()).unwrap();
    let (one, two) = (gpu.stream(), wgpu30::stream(&device, &queue).unwrap());
    // The indices of both begin at 1.
    for _ in 0..4 {
        queue.submit([]);
    }
    device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
    let Some(gate) = hold(&one) else { return };
    let index = gpu.queue.submit([]);
    let polled = device.poll(wgpu::PollType::Wait {
        submission_index: Some(index),
        timeout: Some(Duration::ZERO),
    });
    assert!(polled.is_ok(), "{polled:?}: its work is held");
    let event = Event::new(one.device());
    assert!(matches!(
        event.record(&two),
        Err(Error::DeviceMismatch { .. })
    ));
    let held = one.record_timed().unwrap();
    assert!(matches!(two.wait(&held), Err(Error::ForeignWait { .. })));
    let other = two.record_timed().unwrap();
    assert!(matches!(
        other.elapsed(&held),
        Err(Error::DeviceMismatch { .. })
    ));
    gate.open();
    held.synchronize_timeout(PATIENCE).unwrap();
}

#[test]
fn no_drop_waits_for_work_that_is_held() {
    let Some(gpu) = gpu() else { return };
    let Gpu {
        device,
        queue,
        alone: _alone,
    } = gpu;
    let stream = wgpu30::stream(&device, &queue).unwrap();
    let Some(gate) = hold(&stream) else { return };
    let event = Event::with_timing(stream.device());
    event.record(&stream).unwrap();
    let (tell, told) = mpsc::channel();
    event
        .on_complete(move |result| tell.send(result).unwrap())
        .unwrap();
    // The caller's are the first to go, so ours are the last owners.
    drop((queue, device));
    drop(event);
    drop(stream);
    gate.open();
    told.recv_timeout(PATIENCE).unwrap().unwrap();
}

#[test]
fn a_marker_is_told_in_front_of_work_that_the_last_owner_of_the_queue_would_wait_for() {
    let Some(gpu) = gpu() else { return };
    let Gpu {
        device,
        queue,
        alone: _alone,
    } = gpu;
    let stream = wgpu30::stream(&device, &queue).unwrap();
    let Some(front) = hold(&stream) else { return };
    let marker = stream.record().unwrap();
    let Some(behind) = hold(&stream) else { return };
    let (tell, told) = mpsc::channel();
    marker
        .on_complete(move |result| tell.send(result).unwrap())
        .unwrap();
    drop((queue, device));
    drop((stream, marker));
    front.open();
    told.recv_timeout(PATIENCE).unwrap().unwrap();
    behind.open();
}

/// Half a second of pending work or more: it goes on until the test opens the gate.
#[test]
fn destroy_and_submits_do_not_wait_while_markers_are_waited_for() {
    let Some(gpu) = gpu() else { return };
    let stream = wgpu30::stream(&gpu.device, &gpu.queue).unwrap();
    let encoder = gpu.device.create_command_encoder(&Default::default());
    let mark = wgpu30::reserve(stream.device(), &encoder).unwrap();
    let Some(gate) = hold(&stream) else { return };
    gpu.queue.submit([encoder.finish()]);
    let (marker, mark) = (stream.record().unwrap(), mark.submitted());
    let (tell, told) = mpsc::channel();
    for marker in [&marker, &mark] {
        let tell = tell.clone();
        let send = move |result| tell.send(result).unwrap();
        marker.on_complete(send).unwrap();
    }
    let waiting = {
        let marker = marker.clone();
        thread::spawn(move || marker.synchronize_timeout(PATIENCE))
    };
    // All threads are where they wait.
    thread::sleep(Duration::from_millis(500));
    gpu.queue.submit([]);
    gpu.device.destroy();
    assert!(!marker.query().unwrap(), "the gate is closed");
    gate.open();
    waiting.join().unwrap().unwrap();
    for _ in 0..2 {
        told.recv_timeout(PATIENCE).unwrap().unwrap();
    }
}

/// By hand, with lavapipe's driver: elsewhere it counts as skipped.
#[test]
fn on_lavapipe_a_record_waits_for_the_work_before_by_wgpus_doing() {
    let Some(gpu) = gpu() else { return };
    if gpu.device.adapter_info().driver != "llvmpipe" {
        return common::skip(&common::test_name(), "the driver is not lavapipe");
    }
    let stream = wgpu30::stream(&gpu.device, &gpu.queue).unwrap();
    gpu.queue.submit([]);
    gpu.queue.submit([work(&gpu)]);
    let before = stream.record().unwrap();
    let after = stream.record().unwrap();
    assert!(before.query().unwrap(), "the second record waited for it");
    after.synchronize_timeout(PATIENCE).unwrap();
}

/// As on APIs that have no signals of ours.
#[test]
fn a_device_that_polls_keeps_every_promise() {
    let Some(gpu) = gpu() else { return };
    let device = testing::wgpu30::polled(&gpu.device, &gpu.queue).unwrap();
    let passed = suite::keeps_every_promise(&device, |_| false);
    assert!(passed >= at_least(&gpu), "only {passed} cases passed");
    gpu.device.destroy();
    let refused = device.default_stream().record().unwrap();
    let error = refused.synchronize_timeout(PATIENCE).unwrap_err();
    assert!(
        error.to_string().contains("takes no more submits"),
        "{error}"
    );
}

#[test]
fn a_mark_inside_of_a_pass_fails_without_a_panic_of_ours() {
    let Some(gpu) = gpu() else { return };
    let stream = wgpu30::stream(&gpu.device, &gpu.queue).unwrap();
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    let pass = encoder
        .begin_compute_pass(&Default::default())
        .forget_lifetime();
    let mark = wgpu30::record_into(stream.device(), &mut encoder).unwrap();
    drop(pass);
    let heard = |call: &mut dyn FnMut()| {
        let scope = gpu.device.push_error_scope(wgpu::ErrorFilter::Validation);
        call();
        devices::ready(scope.pop()).is_some()
    };
    let (mut encoder, mut commands) = (Some(encoder), None);
    let finished = heard(&mut || commands = encoder.take().map(|encoder| encoder.finish()));
    let submitted = heard(&mut || {
        gpu.queue.submit(commands.take());
    });
    assert!(finished || submitted, "wgpu refuses one of the two");
    let error = mark.submitted().synchronize_timeout(PATIENCE).unwrap_err();
    assert!(error.to_string().contains("refused the submit"), "{error}");
    stream
        .record_timed()
        .unwrap()
        .synchronize_timeout(PATIENCE)
        .unwrap();
}

/// Both backends use one queue here, and this thread alone submits to it.
#[cfg(all(feature = "vulkan", not(target_vendor = "apple")))]
#[test]
fn a_stream_waits_on_the_device_for_what_vulkan_has_submitted() {
    use fencepost::vulkan::{Features, device_from_raw};
    let Some(gpu) = gpu() else { return };
    // SAFETY: nothing is destroyed through it.
    let Some(hal) = (unsafe { gpu.device.as_hal::<wgpu::hal::api::Vulkan>() }) else {
        return common::skip(&common::test_name(), "wgpu is not on Vulkan");
    };
    let keep = Arc::new(gpu.device.clone());
    // SAFETY: wgpu's own objects, which it keeps alive, with timeline semaphores enabled.
    let vulkan = unsafe {
        device_from_raw(
            hal.shared_instance().raw_instance().clone(),
            hal.raw_physical_device(),
            hal.raw_device().clone(),
            Features::default(),
            hal.raw_queue(),
            hal.queue_family_index(),
            Arc::new(std::sync::Mutex::new(())),
            keep,
        )
    }
    .unwrap();
    drop(hal);
    let (ours, theirs) = (gpu.stream(), vulkan.default_stream());
    let Some(gate) = hold(&ours) else { return };
    let pending = theirs.record().unwrap();
    ours.wait(&pending).unwrap();
    let behind = ours.record().unwrap();
    assert!(!pending.query().unwrap() && !behind.query().unwrap());
    gate.open();
    behind.synchronize_timeout(PATIENCE).unwrap();
    assert!(pending.query().unwrap());
    // What is held for the host depends on a signal that is not made yet.
    let host = Device::open("host").unwrap().new_stream().unwrap();
    let (go, wait) = mpsc::channel::<()>();
    host.launch(move || {
        let _ = wait.recv();
    })
    .unwrap();
    theirs.wait_foreign(&host.record().unwrap()).unwrap();
    let held = theirs.record().unwrap();
    assert!(matches!(ours.wait(&held), Err(Error::ForeignWait { .. })));
    drop(go);
    held.synchronize_timeout(PATIENCE).unwrap();
}
