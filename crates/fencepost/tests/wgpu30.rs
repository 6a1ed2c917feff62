//! Tests of the wgpu backend, on a device of wgpu's own. Without one they count as skipped.
#![cfg(all(feature = "wgpu30", not(loom)))]

use std::{
    future::Future,
    pin::pin,
    sync::{Mutex, MutexGuard, PoisonError, mpsc},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use fencepost::{
    Backend, Device, Error, Event,
    wgpu30::{self, wgpu},
};

mod common;

/// Only a hang takes longer.
const PATIENCE: Duration = Duration::from_secs(120);

/// wgpu's futures are ready at once, but in browsers.
fn ready<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("wgpu's future is pending"),
    }
}

/// A device with its queue, for one test at a time.
struct Gpu {
    device: wgpu::Device,
    queue: wgpu::Queue,
    _alone: MutexGuard<'static, ()>,
}

fn adapter() -> Option<wgpu::Adapter> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends: wgpu::Backends::VULKAN | wgpu::Backends::METAL,
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    ready(instance.request_adapter(&wgpu::RequestAdapterOptions::default())).ok()
}

fn request(adapter: &wgpu::Adapter, features: wgpu::Features) -> (wgpu::Device, wgpu::Queue) {
    let wanted = wgpu::DeviceDescriptor {
        required_features: features & adapter.features(),
        ..wgpu::DeviceDescriptor::default()
    };
    ready(adapter.request_device(&wanted)).unwrap()
}

fn gpu() -> Option<Gpu> {
    static ONE: Mutex<()> = Mutex::new(());
    let alone = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(adapter) = adapter() else {
        common::skip(&common::test_name(), "wgpu finds no adapter here");
        return None;
    };
    let (device, queue) = request(
        &adapter,
        wgpu::Features::TIMESTAMP_QUERY | wgpu::Features::TIMESTAMP_QUERY_INSIDE_ENCODERS,
    );
    Some(Gpu {
        device,
        queue,
        _alone: alone,
    })
}

impl Gpu {
    /// Work that takes a while on a processor.
    fn work(&self) -> wgpu::CommandBuffer {
        let buffer = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: 64 << 20,
            usage: wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let mut encoder = self.device.create_command_encoder(&Default::default());
        for _ in 0..8 {
            encoder.clear_buffer(&buffer, 0, None);
        }
        encoder.finish()
    }
}

#[test]
fn a_marker_completes_without_a_poll_of_the_callers() {
    let Some(gpu) = gpu() else { return };
    let stream = wgpu30::stream(&gpu.device, &gpu.queue).unwrap();
    assert_eq!(stream.device().backend(), Backend::Wgpu30);
    gpu.queue.submit([gpu.work()]);
    let event = Event::new(stream.device());
    event.record(&stream).unwrap();
    event.synchronize_timeout(PATIENCE).unwrap();
    assert!(event.query().unwrap());
    gpu.queue.submit([gpu.work()]);
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
    let (_, other) = request(&adapter().unwrap(), wgpu::Features::empty());
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
    assert!(matches!(
        stream.wait(&pending),
        Err(Error::ForeignWait { .. })
    ));
    assert!(matches!(
        stream.wait_foreign(&pending),
        Err(Error::Unsupported { .. })
    ));
    drop(go);
    pending.synchronize_timeout(PATIENCE).unwrap();
    stream.wait(&pending).unwrap();
    gpu.queue.submit([gpu.work()]);
    host.wait(&stream.record().unwrap()).unwrap();
    host.synchronize_timeout(PATIENCE).unwrap();
}

#[test]
fn after_destroy_what_is_pending_completes_and_what_is_recorded_fails() {
    let Some(gpu) = gpu() else { return };
    let stream = wgpu30::stream(&gpu.device, &gpu.queue).unwrap();
    gpu.queue.submit([gpu.work()]);
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
    let event = std::sync::Arc::new(Event::new(stream.device()));
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
