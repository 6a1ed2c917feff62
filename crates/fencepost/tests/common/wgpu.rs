//! Devices of wgpu for tests, and what the validation layer says of their use.
#![allow(dead_code)]

use std::{
    future::Future,
    pin::pin,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    task::{Context, Poll, Waker},
};

use fencepost::{
    Device, Error, Stream,
    testing::work,
    wgpu30::{self, wgpu},
};

use super::common;

/// A device of wgpu, for one test at a time.
pub(crate) struct Gpu {
    pub(crate) device: wgpu::Device,
    pub(crate) queue: wgpu::Queue,
    pub(crate) alone: Alone,
}

/// While it is alive, no other test has a device. The test fails on any message of the validation
/// layer in that time.
pub(crate) struct Alone {
    /// How many messages there were before.
    said: usize,
    _guard: MutexGuard<'static, ()>,
}

impl Gpu {
    pub(crate) fn stream(&self) -> Stream {
        wgpu30::stream(&self.device, &self.queue).unwrap()
    }

    /// The stream's device, which the suite and the model take.
    pub(crate) fn fencepost(&self) -> Device {
        self.stream().device().clone()
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        let messages = validation_messages();
        if !std::thread::panicking() {
            assert!(messages.len() == self.said, "{:#?}", &messages[self.said..]);
        }
    }
}

/// A new device with all that the backend can use, if there is an adapter.
pub(crate) fn gpu() -> Option<Gpu> {
    gpu_with(wanted())
}

/// The features that timing takes.
pub(crate) fn wanted() -> wgpu::Features {
    wgpu::Features::TIMESTAMP_QUERY | wgpu::Features::TIMESTAMP_QUERY_INSIDE_ENCODERS
}

/// A new device with these features, if there is an adapter.
pub(crate) fn gpu_with(features: wgpu::Features) -> Option<Gpu> {
    static ONE: Mutex<()> = Mutex::new(());
    let guard = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let alone = Alone {
        said: validation_messages().len(),
        _guard: guard,
    };
    match open(features) {
        Ok((device, queue)) => Some(Gpu {
            device,
            queue,
            alone,
        }),
        Err(why) => {
            common::skip(&common::test_name(), &why);
            None
        }
    }
}

/// Holds what comes behind it on the stream. Where nothing can, the test counts as skipped.
pub(crate) fn hold(stream: &Stream) -> Option<work::Gate> {
    match work::gate(stream) {
        Ok(gate) => Some(gate),
        Err(why @ Error::Unsupported { .. }) => {
            common::skip(&common::test_name(), &why.to_string());
            None
        }
        Err(other) => panic!("{other}"),
    }
}

/// A second device, beside that of [`gpu`].
pub(crate) fn open(features: wgpu::Features) -> Result<(wgpu::Device, wgpu::Queue), String> {
    let adapter = adapter()?;
    let descriptor = wgpu::DeviceDescriptor {
        required_features: features,
        required_limits: adapter.limits(),
        ..Default::default()
    };
    ready(adapter.request_device(&descriptor)).map_err(|why| why.to_string())
}

/// The first one. Its instance has what wgpu's own variables say, such as `WGPU_VALIDATION=1`.
fn adapter() -> Result<wgpu::Adapter, String> {
    listen();
    let instance =
        wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
    let found = ready(instance.enumerate_adapters(wgpu::Backends::all()));
    let first = found.into_iter().next();
    first.ok_or_else(|| "wgpu finds no adapter".to_owned())
}

/// What a future gives that has nothing to wait for, as wgpu's have on native systems.
pub(crate) fn ready<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let context = &mut Context::from_waker(Waker::noop());
    loop {
        match future.as_mut().poll(context) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::yield_now(),
        }
    }
}

/// The warnings and errors of the validation layer so far.
pub(crate) fn validation_messages() -> Vec<String> {
    listen();
    lock().clone()
}

/// Messages that say nothing of a wrong use.
const OF_NO_INTEREST: &[&str] = &[
    // The loader's, about variables.
    "[Loader Message",
    // The objects that the message before is about.
    "\tobjects: (",
    // Layer 1.3.239 does not know the source language WGSL, which every shader of wgpu's names.
    "Invalid source language operand: 10",
];

static MESSAGES: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn lock() -> MutexGuard<'static, Vec<String>> {
    MESSAGES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hears what wgpu logs. It asks the layer for what is logged at the level that is set when its
/// instance is made.
fn listen() {
    struct Listener;
    impl log::Log for Listener {
        fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
            metadata.level() <= log::Level::Warn
        }
        fn log(&self, record: &log::Record<'_>) {
            if !self.enabled(record.metadata()) {
                return;
            }
            eprintln!("{}: {}", record.target(), record.args());
            let text = record.args().to_string();
            let is_heard = record.target().starts_with("wgpu_hal::vulkan::instance");
            if is_heard && !OF_NO_INTEREST.iter().any(|part| text.contains(part)) {
                lock().push(text);
            }
        }
        fn flush(&self) {}
    }
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        log::set_logger(&Listener).expect("the only logger");
        log::set_max_level(log::LevelFilter::Warn);
    });
}
