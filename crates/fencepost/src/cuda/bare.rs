//! The bare driver, for measuring what our calls cost beside it: one native call each, nothing
//! kept.

use super::{
    context::Context,
    device::of_device,
    driver::{EventHandle, Fault, StreamHandle},
};
use crate::{device::Device, error::Result};

/// A native stream of a device, and the calls on native events.
///
/// For measuring only: nothing orders it with streams of this crate but what the driver does.
///
/// ```no_run
/// use fencepost::{Device, cuda::bare};
/// let device = Device::open("cuda:0")?;
/// let stream = bare::Stream::new(&device)?;
/// let event = stream.event(false)?;
/// stream.record(&event)?;
/// event.synchronize()?;
/// # Ok::<(), fencepost::Error>(())
/// ```
pub struct Stream {
    context: &'static Context,
    raw: StreamHandle,
}

/// A native event; destroyed when dropped.
///
/// ```no_run
/// # use fencepost::{Device, cuda::bare};
/// let stream = bare::Stream::new(&Device::open("cuda:0")?)?;
/// assert!(stream.event(true)?.query()?);
/// # Ok::<(), fencepost::Error>(())
/// ```
pub struct Event {
    context: &'static Context,
    raw: EventHandle,
}

impl Stream {
    /// `cuStreamCreate` with `CU_STREAM_NON_BLOCKING`. The device's context stays current in the
    /// calling thread, so that bare calls pay for nothing but themselves.
    ///
    /// ```no_run
    /// # use fencepost::{Device, cuda::bare};
    /// bare::Stream::new(&Device::open("cuda:0")?)?.synchronize()?;
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn new(device: &Device) -> Result<Stream> {
        let context = of_device(device.imp())?.context;
        let mut raw = StreamHandle::NULL;
        // SAFETY: the context is retained for the life of the process.
        told(context, unsafe {
            context.driver.ctx_push((context.calls.raw,))
        })?;
        // SAFETY: `raw` is one handle.
        told(context, unsafe {
            context.driver.stream_create((&raw mut raw, 1))
        })?;
        Ok(Stream { context, raw })
    }

    /// `cuEventCreate`.
    ///
    /// ```no_run
    /// # use fencepost::{Device, cuda::bare};
    /// drop(bare::Stream::new(&Device::open("cuda:0")?)?.event(false)?);
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    #[inline]
    pub fn event(&self, timing: bool) -> Result<Event> {
        let mut raw = EventHandle::NULL;
        let flags = if timing { 0 } else { 2 };
        // SAFETY: `raw` is one handle.
        told(self.context, unsafe {
            self.context.driver.event_create((&raw mut raw, flags))
        })?;
        Ok(Event {
            context: self.context,
            raw,
        })
    }

    /// `cuEventRecord`.
    ///
    /// ```no_run
    /// # use fencepost::{Device, cuda::bare};
    /// let stream = bare::Stream::new(&Device::open("cuda:0")?)?;
    /// stream.record(&stream.event(false)?)?;
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    #[inline]
    pub fn record(&self, event: &Event) -> Result<()> {
        // SAFETY: both are alive and of this context.
        told(self.context, unsafe {
            self.context.driver.event_record((event.raw, self.raw))
        })
    }

    /// `cuStreamWaitEvent`.
    ///
    /// ```no_run
    /// # use fencepost::{Device, cuda::bare};
    /// let stream = bare::Stream::new(&Device::open("cuda:0")?)?;
    /// stream.wait(&stream.event(false)?)?;
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    #[inline]
    pub fn wait(&self, event: &Event) -> Result<()> {
        // SAFETY: as in `record`.
        told(self.context, unsafe {
            self.context
                .driver
                .stream_wait_event((self.raw, event.raw, 0))
        })
    }

    /// Waits for everything on the stream, by an event of its own.
    ///
    /// ```no_run
    /// # use fencepost::{Device, cuda::bare};
    /// bare::Stream::new(&Device::open("cuda:0")?)?.synchronize()?;
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn synchronize(&self) -> Result<()> {
        let event = self.event(false)?;
        self.record(&event)?;
        event.synchronize()
    }
}

impl Event {
    /// `cuEventQuery`.
    ///
    /// ```no_run
    /// # use fencepost::{Device, cuda::bare};
    /// let stream = bare::Stream::new(&Device::open("cuda:0")?)?;
    /// assert!(stream.event(false)?.query()?);
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    #[inline]
    pub fn query(&self) -> Result<bool> {
        // SAFETY: the event is alive.
        match unsafe { self.context.driver.event_query((self.raw,)) } {
            Err(fault) if fault.code() == Some(super::driver::NOT_READY) => Ok(false),
            other => told(self.context, other).map(|()| true),
        }
    }

    /// `cuEventSynchronize`.
    ///
    /// ```no_run
    /// # use fencepost::{Device, cuda::bare};
    /// let stream = bare::Stream::new(&Device::open("cuda:0")?)?;
    /// stream.event(false)?.synchronize()?;
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    #[inline]
    pub fn synchronize(&self) -> Result<()> {
        // SAFETY: the event is alive.
        told(self.context, unsafe {
            self.context.driver.event_synchronize((self.raw,))
        })
    }
}

#[inline]
fn told(context: &Context, result: Result<(), Fault>) -> Result<()> {
    result.map_err(|fault| context.driver.error(fault, &context.name))
}

impl Drop for Event {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: made by us, and nobody else has it.
        let _ = unsafe { self.context.driver.event_destroy((self.raw,)) };
    }
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("bare::Stream")
    }
}

impl std::fmt::Debug for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("bare::Event")
    }
}
