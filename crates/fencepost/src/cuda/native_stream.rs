//! The driver's side of a stream: its handle, whose it is, and what a call on it needs.

use std::{
    any::Any,
    ffi::c_void,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, ThreadId},
};

use super::{
    context::Context,
    driver::{EventHandle, StreamHandle},
    fault::Fault,
};
use crate::error::{Error, Result};

pub(crate) struct NativeStream {
    context: &'static Context,
    raw: StreamHandle,
    origin: Origin,
    /// The driver's number for it, never used again; a handle may be.
    number: Option<u64>,
    /// Whether it may be in a capture: its handle is known outside, or it has waited for a marker
    /// of a capture.
    shared: AtomicBool,
}

/// Whose stream it is, and what a call on it needs.
pub(super) enum Origin {
    /// Made by us, destroyed by us.
    Own,
    /// The caller's, kept alive by this.
    Caller(#[allow(dead_code)] Arc<dyn Any + Send + Sync>),
    /// The legacy default stream: whichever context is current when it is named.
    Legacy,
    /// The per-thread default stream of this thread: another stream in every other thread.
    PerThread(ThreadId),
}

/// `CU_STREAM_LEGACY`; the null handle means the same to functions compiled without per-thread
/// default streams, as all of ours are.
pub(super) const LEGACY: StreamHandle = StreamHandle(std::ptr::without_provenance_mut(1));
/// `CU_STREAM_PER_THREAD`.
pub(super) const PER_THREAD: StreamHandle = StreamHandle(std::ptr::without_provenance_mut(2));

impl NativeStream {
    pub(super) fn new(
        context: &'static Context,
        raw: StreamHandle,
        origin: Origin,
    ) -> NativeStream {
        // SAFETY: the stream is alive; for a default one its context is made current below.
        let ask = || unsafe { context.driver.number_of(raw) };
        let number = match origin {
            Origin::Own | Origin::Caller(_) => ask(),
            Origin::Legacy | Origin::PerThread(_) => {
                context.calls.current(|| Ok(ask())).ok().flatten()
            }
        };
        NativeStream {
            context,
            raw,
            shared: AtomicBool::new(!matches!(origin, Origin::Own)),
            origin,
            number,
        }
    }

    pub(super) fn number(&self) -> Option<u64> {
        self.number
    }

    /// The handle, where the stream is ours.
    pub(super) fn own(&self) -> Option<StreamHandle> {
        matches!(self.origin, Origin::Own).then_some(self.raw)
    }

    /// Whether it is the legacy default stream, which other streams wait for, and which waits for
    /// them.
    pub(super) fn is_legacy(&self) -> bool {
        matches!(self.origin, Origin::Legacy)
    }

    /// Its handle, for the caller's own submits.
    pub(super) fn export(&self) -> *mut c_void {
        self.shared.store(true, Ordering::Relaxed);
        self.raw.0
    }

    /// It is about to wait for a marker of a capture, which makes it part of that.
    pub(super) fn joins_capture(&self) {
        self.shared.store(true, Ordering::Relaxed);
    }

    /// Calls the driver with this stream's handle.
    #[inline]
    pub(crate) fn call<R>(
        &self,
        call: impl FnOnce(StreamHandle) -> Result<R, Fault>,
    ) -> Result<R, Fault> {
        match self.origin {
            // These need no current context (seen on driver 580; docs/measurements).
            Origin::Own | Origin::Caller(_) => {
                self.context.calls.check_alive()?;
                call(self.raw)
            }
            Origin::Legacy | Origin::PerThread(_) => self.context.calls.current(|| call(self.raw)),
        }
    }

    /// As [`call`](NativeStream::call); `call` also gets whether a capture is going on in the
    /// stream.
    pub(super) fn call_in_capture_or_not<R>(
        &self,
        call: impl FnOnce(StreamHandle, bool) -> Result<R, Fault>,
    ) -> Result<R, Fault> {
        self.call(|raw| {
            let may_capture = self.shared.load(Ordering::Relaxed);
            let captured = may_capture && self.context.calls.is_capturing(raw)?;
            call(raw, captured)
        })
    }

    /// Whether the handle of `other` may be used wherever ours may.
    pub(super) fn check_same_thread(&self, other: &NativeStream) -> Result<bool> {
        self.check_thread()?;
        other.check_thread()?;
        Ok(matches!(self.origin, Origin::PerThread(_))
            == matches!(other.origin, Origin::PerThread(_)))
    }

    #[inline]
    pub(super) fn check_thread(&self) -> Result<()> {
        match self.origin {
            Origin::PerThread(thread) => self.check_own_thread(thread),
            _ => Ok(()),
        }
    }

    fn check_own_thread(&self, owner: ThreadId) -> Result<()> {
        if owner == thread::current().id() {
            return Ok(());
        }
        Err(Error::Unsupported {
            what: "using one thread's per-thread default stream from another".into(),
            device: self.context.name.clone(),
            remedy: "its handle means another stream there: use a stream made with \
                     cuStreamCreate, or wrap the handle in this thread"
                .into(),
        })
    }

    /// Whether a capture is going on in it.
    #[inline]
    pub(super) fn is_capturing(&self) -> Result<bool, Fault> {
        match self.shared.load(Ordering::Relaxed) {
            true => self.ask_whether_capturing(),
            false => Ok(false),
        }
    }

    /// Whether work of the stream would become part of a capture, its own or one that the legacy
    /// stream must not disturb: there a call that is no part of a graph breaks the capture.
    pub(super) fn is_in_capture(&self) -> Result<bool, Fault> {
        match self.shared.load(Ordering::Relaxed) {
            true => self.call(|raw| self.context.calls.is_in_capture(raw)),
            false => Ok(false),
        }
    }

    #[inline(never)]
    fn ask_whether_capturing(&self) -> Result<bool, Fault> {
        self.call(|raw| self.context.calls.is_capturing(raw))
    }

    /// Records `event`; `None` where a capture is going on, or where the driver refuses.
    #[inline(always)]
    pub(super) fn record_outside_capture(&self, event: EventHandle) -> Option<()> {
        match self.origin {
            // As `call`, once for both of its uses.
            Origin::Own | Origin::Caller(_) => {
                let calls = &self.context.calls;
                calls.check_alive().ok()?;
                if self.shared.load(Ordering::Relaxed)
                    && !matches!(calls.is_capturing(self.raw), Ok(false))
                {
                    return None;
                }
                // SAFETY: as in `Calls::record`.
                unsafe { self.context.driver.event_record((event, self.raw)) }.ok()
            }
            Origin::Legacy | Origin::PerThread(_) => self.record_default(event),
        }
    }

    #[inline(never)]
    fn record_default(&self, event: EventHandle) -> Option<()> {
        match self.is_capturing() {
            Ok(false) => self.call(|raw| self.context.calls.record(event, raw)).ok(),
            _ => None,
        }
    }
}
