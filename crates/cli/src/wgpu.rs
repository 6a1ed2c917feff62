//! A device of wgpu for `check` and `bench`. The library opens none by itself: it takes those of
//! its callers.

use std::{
    pin::pin,
    sync::OnceLock,
    task::{Context, Poll, Waker},
};

use fencepost::{
    Device, Stream,
    wgpu30::{
        self,
        wgpu::{self, Features},
    },
};

use crate::Stop;

/// What `--device` calls it.
pub(crate) const NAME: &str = "wgpu30";

/// The device that [`open`] has opened, as wgpu knows it.
pub(crate) struct Opened {
    pub(crate) device: wgpu::Device,
    pub(crate) queue: wgpu::Queue,
    pub(crate) stream: Stream,
}

static OPENED: OnceLock<Opened> = OnceLock::new();

/// The device, if `name`, or `FENCEPOST_DEVICE` where there is none, names one of wgpu.
pub(crate) fn open_named(name: Option<&str>) -> Option<Result<Device, Stop>> {
    let variable = std::env::var("FENCEPOST_DEVICE").ok();
    let name = name.or(variable.as_deref())?;
    let unknown = || {
        let what = "wgpu has one, and WGPU_ADAPTER_NAME chooses its adapter";
        Stop::Usage(format!("unknown device {name:?}: {what}; use {NAME}"))
    };
    match name {
        NAME => Some(open()),
        _ => name.starts_with("wgpu").then(|| Err(unknown())),
    }
}

/// The device of wgpu's first adapter. `WGPU_ADAPTER_NAME` and wgpu's other variables choose it.
fn open() -> Result<Device, Stop> {
    if OPENED.get().is_none() {
        let fresh = make()?;
        let _ = OPENED.set(fresh);
    }
    Ok(opened()?.stream.device().clone())
}

pub(crate) fn opened() -> Result<&'static Opened, Stop> {
    let missing = || Stop::Usage(format!("no device of wgpu is open; use --device {NAME}"));
    OPENED.get().ok_or_else(missing)
}

fn make() -> Result<Opened, Stop> {
    let found = |what: &str, why: String| Stop::Usage(format!("{NAME}: {what}: {why}"));
    let instance =
        wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
    let adapter = ready(wgpu::util::initialize_adapter_from_env_or_default(
        &instance, None,
    ))
    .map_err(|why| found("no adapter", why.to_string()))?;
    // What an adapter lacks, the suite skips.
    let timing = Features::TIMESTAMP_QUERY | Features::TIMESTAMP_QUERY_INSIDE_ENCODERS;
    let descriptor = wgpu::DeviceDescriptor {
        required_features: adapter.features() & timing,
        required_limits: adapter.limits(),
        ..Default::default()
    };
    let (device, queue) = ready(adapter.request_device(&descriptor))
        .map_err(|why| found("no device", why.to_string()))?;
    let stream = wgpu30::stream(&device, &queue)?;
    Ok(Opened {
        device,
        queue,
        stream,
    })
}

/// What a future gives that has nothing to wait for, as wgpu's have on native systems.
fn ready<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::yield_now(),
        }
    }
}
