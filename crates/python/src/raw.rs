//! The raw event behind an event of this package, once somebody needs it for themselves: another
//! process, a CUDA graph, or a caller that asked for the handle.
//!
//! # Exposing a raw event while another thread records
//!
//! Exposing takes the marker that the event holds, and makes the marker's raw event the one that
//! counts. A record that happens at the same time may put a newer marker into the event. No record
//! is lost, because the two sides do their steps in opposite order:
//!
//! | thread | first | then |
//! |---|---|---|
//! | exposes | sets `exposing` | takes the marker from the event |
//! | records | puts its marker into the event | looks at `exposing` and `raw` |
//!
//! The event's own lock orders the two accesses to the marker, and an event without a record has
//! none to expose. So either the exposed marker is the new one, or the record sees `exposing` or
//! `raw`, waits until `exposing` is false, and records the raw event too.

use std::{
    any::Any,
    ffi::c_void,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use fencepost::{
    Backend, Device, Error, Marker, Result, Stream, bindings,
    cuda::{RawEvent as CudaEvent, RawEventOptions},
};
use pyo3::{exceptions::PyValueError, prelude::*};

use crate::error::cuda_only;

/// What the constructors of events take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flags {
    pub(crate) timing: bool,
    pub(crate) blocking: bool,
    pub(crate) interprocess: bool,
    pub(crate) external: bool,
}

impl Flags {
    pub(crate) fn with_timing(timing: bool) -> Flags {
        Flags {
            timing,
            ..Flags::default()
        }
    }

    pub(crate) fn check(self) -> PyResult<Flags> {
        match self.interprocess && self.timing {
            true => Err(PyValueError::new_err(
                "an event with interprocess=True has no timing: CUDA shares no time between \
                 processes; leave enable_timing out, and time with another event",
            )),
            false => Ok(self),
        }
    }
}

/// One CUDA event for life. Others may record it too, so its state is never remembered.
#[derive(Debug)]
pub(crate) struct RawEvent {
    pub(crate) event: CudaEvent,
    pub(crate) device: Device,
    recorded: AtomicBool,
}

impl RawEvent {
    pub(crate) fn is_recorded(&self) -> bool {
        self.recorded.load(Ordering::Acquire)
    }

    pub(crate) fn record(&self, stream: &Stream) -> Result<()> {
        if self.device != *stream.device() {
            return Err(self.mismatch(stream));
        }
        self.event.record(stream)?;
        self.recorded.store(true, Ordering::Release);
        Ok(())
    }

    /// The error for a record on `other`, a stream or marker of another device.
    pub(crate) fn mismatch(&self, other: &impl ToString) -> Error {
        bindings::device_mismatch(
            "record",
            format!("an event of {}", self.device),
            other.to_string(),
        )
    }

    /// The `CUevent` as an integer; 0 before the first record.
    pub(crate) fn handle(&self) -> usize {
        match self.is_recorded() {
            true => self.event.raw() as usize,
            false => 0,
        }
    }
}

/// Whether an event is exposed, and as which raw event.
#[derive(Debug, Default)]
pub(crate) struct Exposure {
    /// Set once, for good. In a box, since most events have none, and each object of Python is as
    /// large as what it may hold.
    raw: OnceLock<Box<RawEvent>>,
    /// Whether a thread is about to set `raw`.
    exposing: AtomicBool,
}

impl Exposure {
    #[inline]
    pub(crate) fn get(&self) -> Option<&RawEvent> {
        self.raw.get().map(|raw| &**raw)
    }

    /// Whether the raw event is exposed, or may be at this moment.
    #[inline]
    pub(crate) fn is_under_way(&self) -> bool {
        self.exposing.load(Ordering::Acquire) || self.raw.get().is_some()
    }

    /// The raw event, after waiting for a thread that exposes it at this moment.
    pub(crate) fn settled(&self) -> Option<&RawEvent> {
        while self.exposing.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        self.get()
    }

    /// Opens the event that another process exported.
    pub(crate) fn open(device: &Device, handle: &[u8; 64]) -> Result<Exposure> {
        let raw = RawEvent {
            event: CudaEvent::open(device, handle)?,
            device: device.clone(),
            recorded: AtomicBool::new(true),
        };
        Ok(Exposure {
            raw: OnceLock::from(Box::new(raw)),
            exposing: AtomicBool::new(false),
        })
    }

    /// The event that somebody else has made, and `owner` keeps alive.
    ///
    /// # Safety
    /// Those of [`CudaEvent::from_raw`].
    pub(crate) unsafe fn of_handle(
        device: &Device,
        handle: usize,
        flags: Flags,
        owner: Arc<dyn Any + Send + Sync>,
    ) -> Result<Exposure> {
        let options = RawEventOptions::default().timing(flags.timing);
        // SAFETY: passed on to the caller.
        let event = unsafe { CudaEvent::from_raw(device, handle as *mut c_void, options, owner) }?;
        let raw = RawEvent {
            event,
            device: device.clone(),
            // Nobody can tell. The driver takes one that was never recorded for complete.
            recorded: AtomicBool::new(true),
        };
        Ok(Exposure {
            raw: OnceLock::from(Box::new(raw)),
            exposing: AtomicBool::new(false),
        })
    }

    /// Takes over the raw event of `opened`. Nobody else may know this event yet.
    pub(crate) fn adopt(&self, mut opened: Exposure) {
        if let Some(raw) = opened.raw.take() {
            let _ = self.raw.set(raw);
        }
    }

    /// The raw event, which is made on `device` if there is none yet.
    pub(crate) fn get_or_create(&self, device: &Device, flags: Flags) -> Result<&RawEvent> {
        if let Some(raw) = self.get() {
            return Ok(raw);
        }
        if device.backend() != Backend::Cuda {
            return Err(cuda_only("an event for other processes or graphs", device));
        }
        let options = RawEventOptions::default()
            .timing(flags.timing)
            .blocking_sync(flags.blocking)
            .interprocess(flags.interprocess)
            .external(flags.external);
        let raw = RawEvent {
            event: CudaEvent::new(device, options)?,
            device: device.clone(),
            recorded: AtomicBool::new(false),
        };
        Ok(self.raw.get_or_init(|| Box::new(raw)))
    }

    /// Exposes the raw event of the marker that `held` returns, for good; `None` if there is no
    /// marker.
    pub(crate) fn expose(
        &self,
        held: impl FnOnce() -> Option<(Device, Marker)>,
    ) -> Result<Option<&RawEvent>> {
        struct Exposing<'a>(&'a AtomicBool);

        impl Drop for Exposing<'_> {
            fn drop(&mut self) {
                self.0.store(false, Ordering::Release);
            }
        }

        // One thread at a time. The next one finds the raw event, or no marker was there and it
        // looks again.
        while self
            .exposing
            .compare_exchange(false, true, Ordering::AcqRel, Ordering::Relaxed)
            .is_err()
        {
            std::thread::yield_now();
        }
        let _exposing = Exposing(&self.exposing);
        if let Some(raw) = self.get() {
            return Ok(Some(raw));
        }
        let Some((device, marker)) = held() else {
            return Ok(None);
        };
        let Some(event) = bindings::raw_event_of(&marker) else {
            // The marker has failed, and says so, or it is of another backend.
            marker.query()?;
            return Err(cuda_only("a native event", &device));
        };
        let raw = RawEvent {
            event,
            device,
            recorded: AtomicBool::new(true),
        };
        Ok(Some(self.raw.get_or_init(|| Box::new(raw))))
    }
}

/// Destroying a CUDA event may block in the driver, so the GIL is released for it.
impl Drop for Exposure {
    fn drop(&mut self) {
        if let Some(raw) = self.raw.take() {
            // Without an interpreter the closure is dropped, and the raw event with it.
            Python::try_attach(|py| py.detach(move || drop(raw)));
        }
    }
}
