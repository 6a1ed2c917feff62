//! OpenCL devices: how they are found, opened and wrapped.

use std::{ffi::c_void, sync::Arc, time::Instant};

use super::{
    context::{Context, ON_DEVICE},
    exit::leave_at_exit,
    fault::{Fault, check},
    loader::{ContextHandle, DeviceHandle, Loader, PROFILING, QueueHandle, ask},
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

/// Every context that was made or wrapped, with its device once that could be made. They are never
/// forgotten: a device that could not be made is made in the same context by the next try.
static DEVICES: Mutex<Vec<(&'static Context, Option<DeviceRef>)>> = Mutex::new(Vec::new());

/// The known context that `is` says, with its device.
fn known(is: impl Fn(&Context) -> bool) -> Option<(&'static Context, Option<DeviceRef>)> {
    let devices = lock(&DEVICES);
    devices.iter().find(|(context, _)| is(context)).cloned()
}

/// Makes a context known, unless one that `is` says has become known meanwhile: then that one is
/// the result, and the caller's is released.
fn learn(context: &'static Context, is: impl Fn(&Context) -> bool) -> &'static Context {
    let mut devices = lock(&DEVICES);
    let first = devices.iter().find(|(context, _)| is(context));
    let Some(first) = first.map(|(context, _)| *context) else {
        devices.push((context, None));
        drop(devices);
        leave_at_exit(context);
        context.loss().join();
        return context;
    };
    drop(devices);
    // SAFETY: ours, and nothing was made in it.
    let _ = unsafe { context.loader.release_context(context.raw) };
    first
}

/// The device in a known context.
fn device_in(context: &'static Context) -> Result<DeviceRef> {
    let made = DeviceRef::new(new_device(context)?);
    let mut devices = lock(&DEVICES);
    let known = devices
        .iter_mut()
        .find(|(known, _)| std::ptr::eq(*known, context));
    let first = known.map(|(_, device)| device.get_or_insert_with(|| made.clone()).clone());
    drop(devices);
    Ok(first.unwrap_or(made))
}

/// The device of this index, in a context of its own; the same one each time, until it is lost.
pub(crate) fn open(index: usize) -> Result<DeviceRef> {
    let name = format!("opencl:{index}");
    let loader = Loader::to_call(&name)?;
    let is_it = |context: &Context| context.name == name && context.loss().lost().is_none();
    match known(is_it) {
        Some((_, Some(device))) => return Ok(device),
        Some((context, None)) => return device_in(context),
        None => {}
    }
    let Some(device) = loader.found.get(index).copied() else {
        return Err(Error::Unavailable {
            device: name,
            why: format!("there are {} OpenCL devices", loader.found.len()),
        });
    };
    let raw = new_context(loader, &[device]).map_err(|fault| fault.error(&name))?;
    let context = Context::new(loader, raw, device, name.clone());
    device_in(learn(context, is_it))
}

/// See [`crate::opencl::device_from_raw`].
///
/// # Safety
/// As there.
pub(super) unsafe fn device_from_raw(
    context: *mut c_void,
    device: *mut c_void,
) -> Result<DeviceRef> {
    let loader = Loader::to_call("opencl")?;
    if context.is_null() || device.is_null() {
        return Err(null_handle("a context or a device"));
    }
    let (raw, device) = (ContextHandle(context), DeviceHandle(device));
    let is_it = |known: &Context| known.raw == raw && known.device == device;
    match known(is_it) {
        Some((context, Some(device))) => {
            context.check_usable()?;
            return Ok(device);
        }
        Some((context, None)) => return device_in(context),
        None => {}
    }
    // SAFETY: the context is alive, as the caller promises. From here on we keep it alive, so its
    // handle names no other one later.
    unsafe { loader.retain_context(raw) }.map_err(|fault| fault.error("opencl"))?;
    let name = name_in(loader, raw, device);
    device_in(learn(Context::new(loader, raw, device, name), is_it))
}

/// The name of a device in a context of the caller's, which is alive.
fn name_in(loader: &Loader, context: ContextHandle, device: DeviceHandle) -> String {
    let in_context = format!("opencl (context {:p}", context.0);
    // SAFETY: the context is alive. One that does not tell its devices has no numbers for them.
    let devices = unsafe { loader.devices_in(context) }.unwrap_or_default();
    match devices.iter().position(|known| *known == device) {
        // Devices of one context may have the same model.
        Some(at) if devices.len() > 1 => {
            format!("{in_context}, device {} of {})", at + 1, devices.len())
        }
        _ => format!("{in_context})"),
    }
}

/// See [`crate::opencl::stream_from_raw`].
///
/// # Safety
/// As there.
pub(super) unsafe fn stream_from_raw(queue: *mut c_void) -> Result<(Arc<ClStream>, DeviceRef)> {
    let loader = Loader::to_call("opencl")?;
    if queue.is_null() {
        return Err(null_handle("a command queue"));
    }
    let queue = QueueHandle(queue);
    let failed = |fault: Fault| fault.error("opencl");
    // SAFETY: the queue is alive, as the caller promises; the types are those of the answers.
    let (context, device, properties) = unsafe {
        (
            loader.of_queue(queue, ask::QUEUE_CONTEXT, std::ptr::null_mut::<c_void>()),
            loader.of_queue(queue, ask::QUEUE_DEVICE, std::ptr::null_mut::<c_void>()),
            loader.of_queue(queue, ask::QUEUE_PROPERTIES, 0_u64),
        )
    };
    let properties = properties.map_err(failed)?;
    if properties & ON_DEVICE != 0 {
        return Err(Error::Unsupported {
            what: "a queue on the device (CL_QUEUE_ON_DEVICE)".into(),
            device: "opencl".into(),
            remedy: "pass a host queue: only kernels submit to a queue on the device".into(),
        });
    }
    let (context, device) = (context.map_err(failed)?, device.map_err(failed)?);
    // SAFETY: those of a queue that is alive.
    let device = unsafe { device_from_raw(context, device) }?;
    let stream = of_device(&*device)?
        .wrap(queue, properties)
        .map_err(failed)?;
    Ok((stream, device))
}

fn null_handle(of: &str) -> Error {
    Error::Unsupported {
        what: format!("a null handle in place of {of}"),
        device: "opencl".into(),
        remedy: "pass a handle that a function of OpenCL returned".into(),
    }
}

pub(crate) fn new_context(
    loader: &Loader,
    devices: &[DeviceHandle],
) -> Result<ContextHandle, Fault> {
    let mut code = 0;
    let none = std::ptr::null_mut();
    // SAFETY: devices of the loader's; without properties their platform is taken.
    let raw = unsafe {
        loader.create_context(
            std::ptr::null(),
            devices.len() as u32,
            devices.as_ptr(),
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

    /// The stream on a queue of the caller's in this context; where there is one already, that one.
    fn wrap(&self, queue: QueueHandle, properties: u64) -> Result<Arc<ClStream>, Fault> {
        let alive = self.streams.alive();
        if let Some(known) = alive.into_iter().find(|stream| stream.queue == queue) {
            return Ok(known);
        }
        let context = self.context;
        // SAFETY: the queue is alive, as the caller of `stream_from_raw` promises. The stream
        // releases it, so that its handle names no other queue while the stream is known.
        unsafe { context.loader.retain_queue(queue) }?;
        let stream = ClStream::new(self.core.clone(), context, queue, properties);
        // Another thread may have wrapped it meanwhile: then `stream` goes.
        let is_it = |known: &ClStream| known.queue == queue;
        Ok(self.streams.find_or_add(stream, is_it))
    }

    fn make_stream(&self) -> Result<Arc<ClStream>> {
        let context = self.context;
        context.check_usable()?;
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
        self.context.check_usable()?;
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
