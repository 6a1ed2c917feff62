//! OpenCL devices: how they are found, opened and wrapped.

use std::{sync::Arc, time::Instant};

use super::{
    context::{Context, PROFILING},
    fault::{Fault, check},
    gates::open_at_exit,
    loader::{ContextHandle, DeviceHandle, Loader},
    stream::ClStream,
};
use crate::{
    bracket,
    clock::Timestamp,
    contract::{Backend, DeviceImpl, DeviceRef, Look, Missing, Sample, Stamp, StreamImpl},
    core::{DeviceCore, Streams},
    error::{Error, Result},
    place::Place,
    sync::{Mutex, lock},
};

pub(crate) struct ClDevice {
    core: Arc<DeviceCore>,
    pub(crate) context: &'static Context,
    default: Arc<ClStream>,
    streams: Streams<ClStream>,
}

/// How many devices there are.
pub(crate) fn count() -> Result<usize, Missing> {
    Ok(Loader::get()?.found.len())
}

/// Whether the first device is a GPU or another accelerator: on a CPU the host backend has fewer
/// layers.
pub(crate) fn is_hardware() -> bool {
    let Ok(loader) = Loader::get() else {
        return false;
    };
    let first = loader.found.first();
    first.is_some_and(|device| !loader.is_forked() && loader.is_hardware(*device))
}

/// The device of this index, in a context of its own; the same one each time.
pub(crate) fn open(index: usize) -> Result<DeviceRef> {
    static OPENED: Mutex<Vec<(usize, DeviceRef)>> = Mutex::new(Vec::new());
    let name = format!("opencl:{index}");
    let loader = Loader::to_call(&name)?;
    let Some(device) = loader.found.get(index).copied() else {
        return Err(Error::Unavailable {
            device: name,
            why: format!("there are {} OpenCL devices", loader.found.len()),
        });
    };
    let known = |opened: &[(usize, DeviceRef)]| {
        let known = opened.iter().find(|(known, _)| *known == index);
        known.map(|(_, device)| device.clone())
    };
    if let Some(device) = known(&lock(&OPENED)) {
        return Ok(device);
    }
    let raw = new_context(loader, device).map_err(|fault| fault.error(&name))?;
    let context = Context::new(loader, raw, device, name);
    let made = DeviceRef::new(new_device(context)?);
    // Two threads may have made one; the first counts.
    let mut opened = lock(&OPENED);
    let first = known(&opened);
    if first.is_none() {
        open_at_exit(context);
        opened.push((index, made.clone()));
    }
    Ok(first.unwrap_or(made))
}

fn new_context(loader: &Loader, device: DeviceHandle) -> Result<ContextHandle, Fault> {
    let mut code = 0;
    let none = std::ptr::null_mut();
    // SAFETY: one device of the loader's; without properties its platform is taken.
    let raw = unsafe {
        loader.create_context(
            std::ptr::null(),
            1,
            &raw const device,
            None,
            none,
            &raw mut code,
        )
    }?;
    check("clCreateContext", code)?;
    Ok(ContextHandle(raw))
}

/// A device in `context`, with streams and an identity of its own.
pub(crate) fn new_device(context: &'static Context) -> Result<ClDevice> {
    let core = context.device_core();
    let queue = context.new_queue().map_err(|fault| context.failed(fault))?;
    let default = ClStream::new(core.clone(), context, queue, PROFILING);
    let streams = Streams::new();
    streams.add(&default);
    Ok(ClDevice {
        core,
        context,
        default,
        streams,
    })
}

/// The OpenCL device behind a device of any backend.
pub(crate) fn of_device(device: &dyn DeviceImpl) -> Result<&ClDevice> {
    let any: &dyn std::any::Any = device;
    any.downcast_ref().ok_or_else(|| Error::Unsupported {
        what: "a call of OpenCL".into(),
        device: device.core().name.clone(),
        remedy: "open a device whose name begins with opencl".into(),
    })
}

impl ClDevice {
    /// Whether the device's timer counts on the clock of its profiling times: whether a marker's
    /// time lies between two of its readings.
    fn has_timer(&self, at: Place, look: Look<'_>) -> Result<bool> {
        let context = self.context;
        if let Some(known) = context.has_timer.get() {
            return Ok(*known);
        }
        let Ok(before) = context.timer() else {
            return Ok(*context.has_timer.get_or_init(|| false));
        };
        let stream = self.make_stream()?;
        let sample = bracket::sample(&*stream, at, look)?;
        let Stamp::Marker(marker) = sample.stamp else {
            return Ok(false);
        };
        let time = marker.timestamp()?.ticks();
        let after = context.timer();
        let between = after.is_ok_and(|after| before <= time && time <= after);
        Ok(*context.has_timer.get_or_init(|| between))
    }

    fn make_stream(&self) -> Result<Arc<ClStream>> {
        let context = self.context;
        context.check_fork()?;
        let queue = context.new_queue().map_err(|fault| context.failed(fault))?;
        let stream = ClStream::new(self.core.clone(), context, queue, PROFILING);
        self.streams.add(&stream);
        Ok(stream)
    }
}

impl DeviceImpl for ClDevice {
    fn core(&self) -> &Arc<DeviceCore> {
        &self.core
    }

    fn backend(&self) -> Backend {
        Backend::OpenCl
    }

    fn uuid(&self) -> Option<[u8; 16]> {
        self.context.uuid
    }

    fn default_stream(&self) -> Arc<dyn StreamImpl> {
        self.default.clone()
    }

    fn new_stream(&self) -> Result<Arc<dyn StreamImpl>> {
        Ok(self.make_stream()?)
    }

    fn streams(&self) -> Vec<Arc<dyn StreamImpl>> {
        let streams = self.streams.alive().into_iter();
        streams
            .map(|stream| stream as Arc<dyn StreamImpl>)
            .collect()
    }

    fn correlate(&self, at: Place, look: Look<'_>) -> Result<Sample> {
        self.context.check_fork()?;
        if !self.has_timer(at, &mut *look)? {
            return bracket::sample(&*self.make_stream()?, at, look);
        }
        let read = || {
            let before = Instant::now();
            let time = self.context.timer();
            let after = Instant::now();
            let time = time.map_err(|fault| self.context.failed(fault))?;
            let stamp = Stamp::Clock(Timestamp::new(time, self.context.clock.clone()));
            Ok(Sample::between(before, after, stamp))
        };
        let mut best = read()?;
        for _ in 1..READINGS {
            best = best.or_closer(read()?);
        }
        Ok(best)
    }
}

/// How often a timer is read: the closest reading counts.
const READINGS: usize = 8;
