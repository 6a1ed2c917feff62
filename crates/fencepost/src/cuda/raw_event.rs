//! Raw events: one `CUevent` for life, which others may record again at any time, another
//! process or a graph. So nothing about it is remembered, each query asks the driver, and it is
//! never pooled.

use std::sync::Arc;

use super::{
    context::Context,
    device::of_device,
    driver::{EventHandle, Fault, INVALID_HANDLE, IpcHandle},
    marker::CudaMarker,
    stream::CudaStream,
};
use crate::{
    clock::Elapsed,
    contract::{DeviceImpl, MarkerImpl},
    error::{Error, Result},
    sync::{Mutex, lock},
};

pub(crate) struct RawEvent {
    context: &'static Context,
    event: EventHandle,
    /// Whether a stream that is captured makes the graph record it, or wait for it.
    external: bool,
    timing: bool,
    /// The marker whose event it is, where it is not ours.
    owner: Option<Arc<dyn MarkerImpl>>,
}

/// `CU_EVENT_DISABLE_TIMING`.
const NO_TIMING: u32 = 0b10;
/// `CU_EVENT_INTERPROCESS`; the driver shares no event with timing.
const INTERPROCESS: u32 = 0b100;
/// `CU_EVENT_RECORD_EXTERNAL` and `CU_EVENT_WAIT_EXTERNAL`.
const EXTERNAL: u32 = 1;

/// The handles that this process has given out, since the driver's error for opening one of them
/// here does not say what is wrong.
static EXPORTED: Mutex<Vec<[u8; 64]>> = Mutex::new(Vec::new());

impl RawEvent {
    /// An event that graphs record, or wait for.
    pub(crate) fn external(device: &dyn DeviceImpl, timing: bool) -> Result<RawEvent> {
        RawEvent::new(device, if timing { 0 } else { NO_TIMING }, true)
    }

    /// An event that can be exported.
    pub(crate) fn interprocess(device: &dyn DeviceImpl) -> Result<RawEvent> {
        RawEvent::new(device, NO_TIMING | INTERPROCESS, false)
    }

    /// With the flags of `cuEventCreate`.
    pub(crate) fn new(device: &dyn DeviceImpl, flags: u32, external: bool) -> Result<RawEvent> {
        let context = context_of(device)?;
        let event = context
            .create(flags)
            .map_err(|fault| context.failed(fault, None))?;
        Ok(RawEvent {
            context,
            event,
            external,
            timing: flags & NO_TIMING == 0,
            owner: None,
        })
    }

    /// The event of a marker, with what it holds; `None` where that has none.
    pub(crate) fn of(marker: &Arc<dyn MarkerImpl>) -> Option<RawEvent> {
        let imp = CudaMarker::of(&**marker)?;
        Some(RawEvent {
            context: imp.context,
            event: imp.hand_out()?,
            external: false,
            timing: marker.point().timing,
            owner: Some(marker.clone()),
        })
    }

    pub(crate) fn open(device: &dyn DeviceImpl, handle: &[u8; 64]) -> Result<RawEvent> {
        let context = context_of(device)?;
        if lock(&EXPORTED).contains(handle) {
            return Err(Error::Unsupported {
                what: "opening an event in the process that exported it".into(),
                device: context.name.clone(),
                remedy: "use the event itself here, and open the handle in another process".into(),
            });
        }
        let mut event = EventHandle::NULL;
        context
            .current(|| {
                let handle = IpcHandle(*handle);
                // SAFETY: `event` is one handle; the driver checks what it is given.
                unsafe { context.driver.ipc_open_event((&raw mut event, handle)) }
            })
            .map_err(|fault| context.failed(fault, None))?;
        Ok(RawEvent {
            context,
            event,
            external: false,
            timing: false,
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
        let recorded = self.in_graph(stream).and_then(|in_graph| {
            stream.call(|raw| match in_graph {
                // SAFETY: the event is ours, alive, and of this context, as the stream is.
                true => unsafe {
                    let call = (self.event, raw, EXTERNAL);
                    self.context.driver.event_record_with_flags(call)
                },
                false => self.context.record(self.event, raw),
            })
        });
        recorded.map_err(|fault| self.failed(fault))
    }

    pub(crate) fn wait(&self, stream: &CudaStream) -> Result<()> {
        let waited = self.in_graph(stream).and_then(|in_graph| {
            stream.call(|raw| {
                let flags = if in_graph { EXTERNAL } else { 0 };
                stream.context.wait_event(raw, self.event, flags)
            })
        });
        waited.map_err(|fault| self.failed(fault))
    }

    /// Whether a call on `stream` is the graph's to make. The flag for it is refused elsewhere.
    fn in_graph(&self, stream: &CudaStream) -> Result<bool, Fault> {
        match self.external {
            true => stream.is_capturing(),
            false => Ok(false),
        }
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

    /// The time from this event to `end`, as they were recorded last.
    pub(crate) fn elapsed(&self, end: &RawEvent) -> Result<Elapsed> {
        let name = &self.context.name;
        for (which, event) in [("start", self), ("end", end)] {
            if !event.timing {
                return Err(Error::TimingDisabled { which });
            }
        }
        if !std::ptr::eq(self.context, end.context) {
            return Err(Error::DeviceMismatch {
                call: "elapsed",
                left: format!("an event of {name}"),
                right: format!("an event of {}", end.context.name),
            });
        }
        match self.context.elapsed(self.event, end.event) {
            Ok(Some(millis)) => Ok(Elapsed::new(
                f64::from(millis) * 1e6,
                self.context.clock.clone(),
            )),
            Ok(None) => Err(Error::NotReady {
                which: if self.query()? { "end" } else { "start" },
                marker: format!("the last record of a raw event of {name}"),
            }),
            // What the driver says of an event that was never recorded; both are alive.
            Err(fault) if fault.code() == Some(INVALID_HANDLE) => Err(Error::NotRecorded {
                which: "start or end",
            }),
            Err(fault) => Err(self.failed(fault)),
        }
    }

    /// Its handle.
    pub(crate) fn raw(&self) -> *mut std::ffi::c_void {
        self.event.0
    }

    fn failed(&self, fault: Fault) -> Error {
        self.context.failed(fault, None)
    }
}

impl Drop for RawEvent {
    fn drop(&mut self) {
        if self.owner.is_none() {
            self.context.destroy(self.event);
        }
    }
}

fn context_of(device: &dyn DeviceImpl) -> Result<&'static Context> {
    match of_device(device) {
        Some(cuda) => Ok(cuda.context),
        None => Err(Error::Unsupported {
            what: "a CUDA event".into(),
            device: device.core().name.as_str().into(),
            remedy: "open a device whose name begins with cuda".into(),
        }),
    }
}
