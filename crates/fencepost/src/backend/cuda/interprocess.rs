//! Events that others may record again at any time: shared with another process, part of a graph, or with
//! their handle handed out. One native event for life, so nothing about it is remembered and it is never
//! pooled.

use super::{
    context::Context,
    driver::{Fault, IpcHandle, RawEvent},
    marker::CudaMarker,
    of_device,
    stream::CudaStream,
};
use crate::{
    device::Device,
    error::{Error, Result},
    marker::Marker,
    sync::{Mutex, lock},
};

pub(crate) struct Interprocess {
    context: &'static Context,
    event: RawEvent,
    /// The marker whose event it is, where it is not ours.
    owner: Option<Marker>,
}

/// `CU_EVENT_DISABLE_TIMING | CU_EVENT_INTERPROCESS`: the driver shares no event with timing.
const FLAGS: u32 = 0b110;

/// The handles that this process has given out, since the driver's error for opening one of them here
/// does not say what is wrong.
static EXPORTED: Mutex<Vec<[u8; 64]>> = Mutex::new(Vec::new());

impl Interprocess {
    pub(crate) fn new(device: &Device) -> Result<Interprocess> {
        Interprocess::with_flags(device, FLAGS)
    }

    /// With the flags of `cuEventCreate`.
    pub(crate) fn with_flags(device: &Device, flags: u32) -> Result<Interprocess> {
        let context = context_of(device)?;
        let event = context
            .create(flags)
            .map_err(|fault| context.failed(fault, None))?;
        Ok(Interprocess {
            context,
            event,
            owner: None,
        })
    }

    /// The event of a marker, with what it holds; `None` where that has none.
    pub(crate) fn of(marker: &Marker) -> Option<Interprocess> {
        let imp = CudaMarker::of(marker.imp())?;
        Some(Interprocess {
            context: imp.context,
            event: imp.hand_out()?,
            owner: Some(marker.clone()),
        })
    }

    pub(crate) fn raw(&self) -> *mut std::ffi::c_void {
        self.event.0
    }

    pub(crate) fn open(device: &Device, handle: &[u8; 64]) -> Result<Interprocess> {
        let context = context_of(device)?;
        if lock(&EXPORTED).contains(handle) {
            return Err(Error::Unsupported {
                what: "opening an event in the process that exported it".into(),
                device: context.name.clone(),
                remedy: "use the event itself here, and open the handle in another process".into(),
            });
        }
        let mut event = RawEvent::NULL;
        context
            .current(|| {
                let handle = IpcHandle(*handle);
                // SAFETY: `event` is one handle; the driver checks what it is given.
                unsafe { context.driver.ipc_open_event((&raw mut event, handle)) }
            })
            .map_err(|fault| context.failed(fault, None))?;
        Ok(Interprocess {
            context,
            event,
            owner: None,
        })
    }

    pub(crate) fn export(&self) -> Result<[u8; 64]> {
        let mut handle = IpcHandle([0; 64]);
        self.context
            .current(|| {
                // SAFETY: one handle of the size that the driver fills; the event is alive.
                unsafe {
                    self.context
                        .driver
                        .ipc_get_event((&raw mut handle, self.event))
                }
            })
            .map_err(|fault| self.failed(fault))?;
        let mut exported = lock(&EXPORTED);
        if !exported.contains(&handle.0) {
            exported.push(handle.0);
        }
        Ok(handle.0)
    }

    pub(crate) fn record(&self, stream: &CudaStream) -> Result<()> {
        if !std::ptr::eq(stream.context, self.context) {
            return Err(Error::DeviceMismatch {
                call: "record",
                left: format!("an event of {}", self.context.name),
                right: format!("a stream of {}", stream.context.name),
            });
        }
        stream
            .call(|raw| self.context.record(self.event, raw))
            .map_err(|fault| self.failed(fault))
    }

    /// As [`record`](Interprocess::record); in a stream that is being captured, the graph records the event
    /// each time it runs.
    pub(crate) fn record_external(&self, stream: &CudaStream) -> Result<()> {
        match stream.is_capturing() {
            Ok(false) => self.record(stream),
            Ok(true) => stream
                .call(|raw| {
                    // SAFETY: both are alive and of one context or refused by the driver.
                    // CU_EVENT_RECORD_EXTERNAL is 1.
                    unsafe { self.context.driver.event_record_with((self.event, raw, 1)) }
                })
                .map_err(|fault| self.failed(fault)),
            Err(fault) => Err(self.failed(fault)),
        }
    }

    /// As [`wait`](Interprocess::wait); in a stream that is being captured, the graph waits each time it
    /// runs.
    pub(crate) fn wait_external(&self, stream: &CudaStream) -> Result<()> {
        // CU_EVENT_WAIT_EXTERNAL is 1.
        let flags = match stream.is_capturing() {
            Ok(captures) => u32::from(captures),
            Err(fault) => return Err(self.failed(fault)),
        };
        let driver = self.context.driver;
        stream
            // SAFETY: both handles come from this driver and are alive.
            .call(|raw| unsafe { driver.stream_wait_event((raw, self.event, flags)) })
            .map_err(|fault| self.failed(fault))
    }

    /// Milliseconds; `None` while one of the two is pending.
    pub(crate) fn elapsed(&self, end: &Interprocess) -> Result<Option<f32>> {
        self.context
            .elapsed(self.event, end.event)
            .map_err(|fault| self.failed(fault))
    }

    pub(crate) fn wait(&self, stream: &CudaStream) -> Result<()> {
        stream
            .call(|raw| stream.context.wait_event(raw, self.event))
            .map_err(|fault| self.failed(fault))
    }

    pub(crate) fn query(&self) -> Result<bool> {
        self.context
            .query(self.event)
            .map_err(|fault| self.failed(fault))
    }

    pub(crate) fn synchronize(&self) -> Result<()> {
        self.context
            .synchronize(self.event)
            .map_err(|fault| self.failed(fault))
    }

    fn failed(&self, fault: Fault) -> Error {
        self.context.failed(fault, None)
    }
}

impl Drop for Interprocess {
    fn drop(&mut self) {
        if self.owner.is_none() {
            self.context.destroy(self.event);
        }
    }
}

fn context_of(device: &Device) -> Result<&'static Context> {
    match of_device(device) {
        Some(cuda) => Ok(cuda.context),
        None => Err(Error::Unsupported {
            what: "a CUDA event".into(),
            device: device.name().into(),
            remedy: "open a device whose name begins with cuda".into(),
        }),
    }
}
