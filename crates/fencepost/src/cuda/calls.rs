//! The driver's calls on the events and streams of one context.

use std::ffi::c_void;

use super::driver::{ContextHandle, DevicePointer, Driver, EventHandle, StreamHandle};
use super::fault::{CAPTURE_IMPLICIT, Fault, NOT_READY};
use crate::fork::Process;

/// A context as the driver knows it, with the calls that are made in it.
#[derive(Clone, Copy)]
pub(crate) struct Calls {
    driver: &'static Driver,
    pub(super) raw: ContextHandle,
    /// The driver's number for it; never used again, while `raw` may be. Old drivers have none.
    id: Option<u64>,
    /// The process that opened it.
    process: Process,
}

impl Calls {
    pub(super) fn new(driver: &'static Driver, raw: ContextHandle, id: Option<u64>) -> Calls {
        Calls {
            driver,
            raw,
            id,
            process: Process::this(),
        }
    }

    /// Whether this is the context that `raw` names now; `id` is the driver's number for that one.
    pub(super) fn is(&self, raw: ContextHandle, id: Option<u64>) -> bool {
        self.raw == raw && self.id == id
    }

    /// Whether the context is still the one it was. Another part of the process may have destroyed
    /// or reset it. The driver says so when it is asked for the context's number, and crashes when
    /// it is given a stream or event that was in it (seen on driver 580). A reset between the two
    /// calls is a race that only the caller who resets can prevent.
    #[inline(always)]
    pub(super) fn check_alive(&self) -> Result<(), Fault> {
        let Some(id) = self.id else {
            return Ok(());
        };
        let mut now = 0;
        // SAFETY: `now` is a u64; the driver looks the handle up before it uses it.
        unsafe { self.driver.ctx_id((self.raw, &raw mut now)) }?;
        match now == id {
            true => Ok(()),
            false => Err(Fault::CONTEXT_GONE),
        }
    }

    /// Whether this process was forked from the one that opened the context.
    pub(super) fn is_forked(&self) -> bool {
        !self.process.is_this()
    }

    /// Calls the driver with this context current, then restores the one that was current before.
    pub(crate) fn current<R>(&self, call: impl FnOnce() -> Result<R, Fault>) -> Result<R, Fault> {
        self.check_alive()?;
        // SAFETY: the context is retained, or its owner keeps it alive (stream_from_raw).
        unsafe { self.driver.ctx_push((self.raw,)) }?;
        let result = call();
        let mut popped = ContextHandle::NULL;
        // SAFETY: takes off what was pushed above.
        let _ = unsafe { self.driver.ctx_pop((&raw mut popped,)) };
        result
    }

    fn relaxed<R>(&self, call: impl FnOnce() -> R) -> R {
        self.driver.relaxed(call)
    }

    /// A new event, with the flags of `cuEventCreate`.
    pub(super) fn create_event(&self, flags: u32) -> Result<EventHandle, Fault> {
        let mut event = EventHandle::NULL;
        self.current(|| {
            // SAFETY: `event` is one handle.
            unsafe { self.driver.event_create((&raw mut event, flags)) }
        })?;
        Ok(event)
    }

    /// Destroys an event that must not be recorded again. An error is dropped: the caller could do
    /// nothing about it, and after the driver's end there is no driver to call.
    pub(super) fn destroy_event(&self, event: EventHandle) {
        if !self.is_forked() && self.check_alive().is_ok() {
            // SAFETY: the event is ours, and its last owner has let go; the driver frees it once it
            // is complete.
            let _ = unsafe { self.driver.event_destroy((event,)) };
        }
    }

    /// Records `event` on `stream`. No lock is held: the driver may block here while its queue is
    /// full.
    #[inline(always)]
    pub(super) fn record(&self, event: EventHandle, stream: StreamHandle) -> Result<(), Fault> {
        // SAFETY: the event is one of this context's pool, and alive; the stream is of this context
        // and alive, as its owner promises.
        unsafe { self.driver.event_record((event, stream)) }
    }

    /// Makes later work of `stream` run after what `event` has captured now. The event may be of
    /// another context or device.
    pub(super) fn wait_event(
        &self,
        stream: StreamHandle,
        event: EventHandle,
        flags: u32,
    ) -> Result<(), Fault> {
        // SAFETY: both handles come from this driver and are alive: the caller holds their owners.
        // https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__STREAM.html
        unsafe { self.driver.stream_wait_event((stream, event, flags)) }
    }

    /// Whether `event` is complete. Never blocks.
    pub(super) fn query(&self, event: EventHandle) -> Result<bool, Fault> {
        // SAFETY: as in `record`.
        is_done(self.relaxed(|| unsafe { self.driver.event_query((event,)) }))
    }

    /// Blocks until `event` is complete.
    pub(super) fn synchronize(&self, event: EventHandle) -> Result<(), Fault> {
        // SAFETY: as in `record`.
        self.relaxed(|| unsafe { self.driver.event_synchronize((event,)) })
    }

    /// Milliseconds, as the driver gives them; `Ok(None)` while one of the two is pending.
    #[inline(always)]
    pub(super) fn elapsed(
        &self,
        start: EventHandle,
        end: EventHandle,
    ) -> Result<Option<f32>, Fault> {
        self.check_alive()?;
        let mut time = 0.0;
        // Unlike a query, this breaks no capture (standins/cuda/examples/answers.rs).
        // SAFETY: as in `record`; `time` is one float.
        let asked = unsafe { self.driver.event_elapsed((&raw mut time, start, end)) };
        Ok(is_done(asked)?.then_some(time))
    }

    /// A new stream.
    pub(super) fn create_stream(&self) -> Result<StreamHandle, Fault> {
        let mut stream = StreamHandle::NULL;
        self.current(|| {
            // CU_STREAM_NON_BLOCKING: unordered against the legacy default stream too.
            // SAFETY: `stream` is one handle.
            unsafe { self.driver.stream_create((&raw mut stream, 1)) }
        })?;
        Ok(stream)
    }

    /// Whether `stream` has nothing left to do. Never blocks.
    pub(super) fn is_idle(&self, stream: StreamHandle) -> Result<bool, Fault> {
        // SAFETY: as in `record`.
        is_done(self.relaxed(|| unsafe { self.driver.stream_query((stream,)) }))
    }

    /// As [`is_capturing`](Calls::is_capturing), and `true` for the legacy stream beside a capture
    /// that it must not disturb.
    pub(super) fn is_in_capture(&self, stream: StreamHandle) -> Result<bool, Fault> {
        match self.is_capturing(stream) {
            Err(Fault::Code {
                code: CAPTURE_IMPLICIT,
                ..
            }) => Ok(true),
            asked => asked,
        }
    }

    /// Whether a capture is going on in `stream`. For the legacy stream, beside the capture of a
    /// stream that it waits for, that is an error, which leaves the capture whole. A record or a
    /// query of the legacy stream gives the same error there, and breaks the capture, in every mode
    /// ([stream
    /// capture](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__STREAM.html)).
    #[inline]
    pub(super) fn is_capturing(&self, stream: StreamHandle) -> Result<bool, Fault> {
        let mut status = 0;
        // SAFETY: the stream is alive, `status` is an int.
        match unsafe { self.driver.stream_is_capturing((stream, &raw mut status)) } {
            Ok(()) => Ok(status != 0),
            // A driver from before captures.
            Err(Fault::Missing(_)) => Ok(false),
            Err(fault) => Err(fault),
        }
    }

    /// Makes later work of `stream` run once the 32 bits at `address` are `value` or more, compared
    /// cyclically.
    ///
    /// # Safety
    /// The address is device-visible memory that is never freed.
    pub(super) unsafe fn wait_value(
        &self,
        stream: StreamHandle,
        address: u64,
        value: u32,
    ) -> Result<(), Fault> {
        // CU_STREAM_WAIT_VALUE_GEQ is 0.
        // SAFETY: passed on to the caller; the stream is alive, as in `record`.
        unsafe { self.driver.stream_wait_value((stream, address, value, 0)) }
    }

    /// Zeroed page-locked memory that the device sees: its addresses for the host and the device.
    /// Never freed.
    pub(crate) fn allocate_page_locked(&self, bytes: usize) -> Result<(usize, u64), Fault> {
        let (mut host, mut device): (*mut c_void, u64) = (std::ptr::null_mut(), 0);
        self.current(|| {
            // CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP: for streams of every context.
            // SAFETY: `host` is one pointer.
            unsafe { self.driver.host_alloc((&raw mut host, bytes, 0b11)) }?;
            // SAFETY: `device` is one device pointer; `host` was just allocated and mapped.
            unsafe { self.driver.host_pointer((&raw mut device, host, 0)) }
        })?;
        // SAFETY: freshly allocated, of that many bytes, and known to nobody else yet.
        unsafe { host.cast::<u8>().write_bytes(0, bytes) };
        Ok((host as usize, device))
    }

    /// Memory of the device. Never freed.
    pub(super) fn allocate(&self, bytes: usize) -> Result<DevicePointer, Fault> {
        let mut address = 0;
        self.current(|| {
            // SAFETY: `address` is one device pointer.
            unsafe { self.driver.mem_alloc((&raw mut address, bytes)) }
        })?;
        Ok(address)
    }

    /// Writes zeros over that many words of the device's memory.
    ///
    /// # Safety
    /// The stream is alive, and so is the memory of this context, until the write is complete.
    pub(super) unsafe fn clear(
        &self,
        stream: StreamHandle,
        address: DevicePointer,
        words: usize,
    ) -> Result<(), Fault> {
        // SAFETY: passed on to the caller.
        unsafe { self.driver.set_words((address, 0, words, stream)) }
    }
}

/// Whether something is complete, by the driver's answer.
fn is_done(answer: Result<(), Fault>) -> Result<bool, Fault> {
    match answer {
        Ok(()) => Ok(true),
        Err(fault) if fault.code() == Some(NOT_READY) => Ok(false),
        Err(fault) => Err(fault),
    }
}
