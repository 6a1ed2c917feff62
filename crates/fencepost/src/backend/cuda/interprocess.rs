//! Events that two processes share: one native event for life, which others may record again at any
//! time, so nothing about it is remembered and it is never pooled.

use super::{
    context::Context,
    driver::{Fault, IpcHandle, RawEvent},
    of_device,
    stream::CudaStream,
};
use crate::{
    device::Device,
    error::{Error, Result},
    sync::{Mutex, lock},
};

pub(crate) struct Interprocess {
    context: &'static Context,
    event: RawEvent,
}

/// `CU_EVENT_DISABLE_TIMING | CU_EVENT_INTERPROCESS`: the driver shares no event with timing.
const FLAGS: u32 = 0b110;

/// The handles that this process has given out, since the driver's error for opening one of them here
/// does not say what is wrong.
static EXPORTED: Mutex<Vec<[u8; 64]>> = Mutex::new(Vec::new());

impl Interprocess {
    pub(crate) fn new(device: &Device) -> Result<Interprocess> {
        let context = context_of(device)?;
        let event = context
            .create(FLAGS)
            .map_err(|fault| context.failed(fault, None))?;
        Ok(Interprocess { context, event })
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
        Ok(Interprocess { context, event })
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
        self.context.destroy(self.event);
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
