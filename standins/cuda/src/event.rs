//! Events: <https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__EVENT.html>. Record, query
//! and synchronise need no current context, as on driver 580.

use crate::boundary::Out;
use crate::codes::{
    CUDA_ERROR_CAPTURED_EVENT, CUDA_ERROR_ILLEGAL_STATE, CUDA_ERROR_INVALID_HANDLE,
    CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_NOT_READY, CUresult, Done,
};
use crate::context::Context;
use crate::entry::{call, call_then};
use crate::face::Face;
use crate::ipc::Shared;
use crate::stream::CUstream;
use crate::work::{Point, wait_all};
use fencepost_sim::{Command, TimestampQuery};
use std::ffi::c_uint;
use std::sync::{Arc, Mutex, PoisonError};

/// A key, never a pointer.
pub type CUevent = usize;

/// Waits for the event sleep rather than spin. The stand-in always sleeps.
pub const CU_EVENT_BLOCKING_SYNC: c_uint = 1;
/// The event takes no time.
pub const CU_EVENT_DISABLE_TIMING: c_uint = 2;
/// The event may be opened in another process.
pub const CU_EVENT_INTERPROCESS: c_uint = 4;

/// What times are rounded down to, in ticks of a nanosecond: about half a microsecond, as the
/// documentation says.
const RESOLUTION: u64 = 500;

/// What an event holds.
#[derive(Clone, Debug)]
pub(crate) enum State {
    Unrecorded,
    Recorded(Arc<Point>),
    /// Last recorded in a capture, behind these nodes of it.
    Captured {
        capture: u64,
        after: Vec<usize>,
    },
}

/// An event. Copies are the same event: a graph or another process may hold one.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) context: Arc<Context>,
    pub(crate) flags: c_uint,
    state: Arc<Mutex<State>>,
    /// What other processes know of it, if it is for them too.
    pub(crate) shared: Option<Arc<Shared>>,
}

impl Event {
    pub(crate) fn new(context: Arc<Context>, flags: c_uint, shared: Option<Arc<Shared>>) -> Event {
        Event {
            context,
            flags,
            state: Arc::new(Mutex::new(State::Unrecorded)),
            shared,
        }
    }

    pub(crate) fn state(&self) -> State {
        let own = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match (&*own, &self.shared) {
            // the latest record may be another process's
            (State::Unrecorded | State::Recorded(_), Some(shared)) => match shared.recorded() {
                0 => State::Unrecorded,
                record => State::Recorded(Point::shared(&self.context, shared.clone(), record)),
            },
            (own, _) => own.clone(),
        }
    }

    pub(crate) fn hold(&self, state: State) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    pub(crate) fn new_query(&self) -> Done<Option<TimestampQuery>> {
        if self.flags & CU_EVENT_DISABLE_TIMING != 0 {
            return Ok(None);
        }
        let query = self.context.device.new_query();
        query
            .map(Some)
            .map_err(|error| self.context.code_of(&error))
    }
}

impl Face {
    pub(crate) fn event(&self, handle: CUevent) -> Done<Event> {
        self.events
            .get(handle)
            .cloned()
            .map_err(|missing| self.misused("event", handle, missing))
    }

    /// The point that an event stands for, to look at from the host.
    fn point_of(&mut self, event: CUevent) -> Done<(Arc<Context>, Option<Arc<Point>>)> {
        let event = self.event(event)?;
        event.context.trouble.check()?;
        let point = match event.state() {
            // once the capture has ended, an H200's driver 580 knows the event as nothing
            State::Captured { capture, .. } if !self.is_going_on(capture) => {
                return Err(CUDA_ERROR_INVALID_VALUE);
            }
            State::Captured { capture, .. } => {
                self.invalidate(capture);
                return Err(CUDA_ERROR_CAPTURED_EVENT);
            }
            State::Recorded(point) => Some(point),
            State::Unrecorded => None,
        };
        self.unsafe_call()?;
        Ok((event.context, point))
    }

    fn record(&mut self, event: CUevent, stream: CUstream, external: bool) -> Done {
        let event = self.event(event)?;
        let stream = self.stream(stream)?;
        let context = self.enter(stream)?;
        event.context.trouble.check()?;
        if context.id != event.context.id {
            return Err(CUDA_ERROR_INVALID_HANDLE);
        }
        match self.capture_of(stream) {
            Some(_) if external => self.capture_external_record(stream, &event),
            Some((capture, after)) => {
                self.check_valid(capture)?;
                event.hold(State::Captured { capture, after });
                Ok(())
            }
            None if external => Err(CUDA_ERROR_ILLEGAL_STATE),
            None => {
                let query = event.new_query()?;
                let Some(shared) = &event.shared else {
                    let point = self.submit(stream, Vec::new(), query)?;
                    event.hold(State::Recorded(point));
                    return Ok(());
                };
                let record = shared.recorded() + 1;
                let complete = shared.clone();
                let complete = Command::run(move || complete.complete(record));
                let point = self.submit(stream, vec![complete], query)?;
                shared.record(record);
                event.hold(State::Recorded(point));
                Ok(())
            }
        }
    }

    fn elapsed(&mut self, start: CUevent, end: CUevent) -> Done<f32> {
        let (start, end) = (self.event(start)?, self.event(end)?);
        start.context.trouble.check()?;
        end.context.trouble.check()?;
        if start.context.id != end.context.id {
            return Err(CUDA_ERROR_INVALID_HANDLE);
        }
        let ends = [&start, &end].map(|event| match event.state() {
            _ if event.flags & CU_EVENT_DISABLE_TIMING != 0 => Err(CUDA_ERROR_INVALID_HANDLE),
            State::Unrecorded => Err(CUDA_ERROR_INVALID_HANDLE),
            State::Captured { .. } => Err(CUDA_ERROR_CAPTURED_EVENT),
            State::Recorded(point) => Ok(point),
        });
        let [start, end] = ends;
        let tick = |point: Arc<Point>| {
            point.result().unwrap_or(Err(CUDA_ERROR_NOT_READY))?;
            let tick = point.query.as_ref().and_then(TimestampQuery::read);
            tick.ok_or(CUDA_ERROR_NOT_READY)
        };
        let (start, end) = (start?, end?);
        let steps = |tick: u64| (tick / RESOLUTION) as i64;
        let steps = steps(tick(end)?) - steps(tick(start)?);
        Ok((steps as f64 * RESOLUTION as f64 / 1e6) as f32)
    }
}

/// Makes an event in the current context.
#[unsafe(no_mangle)]
pub extern "C" fn cuEventCreate(event: Out<'_, CUevent>, flags: c_uint) -> CUresult {
    call("cuEventCreate", |face| {
        let event = event.needed()?;
        let context = face.current()?;
        let across = flags & CU_EVENT_INTERPROCESS != 0;
        if flags & !7 != 0 || across && flags & CU_EVENT_DISABLE_TIMING == 0 {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        let shared = across.then(|| Shared::new(face.new_id())).transpose()?;
        event.put(face.events.insert(Event::new(context, flags, shared)));
        Ok(())
    })
}

/// Destroys an event, at once for the caller. Waits for it that were submitted before are not
/// disturbed.
#[unsafe(no_mangle)]
pub extern "C" fn cuEventDestroy_v2(event: CUevent) -> CUresult {
    call("cuEventDestroy_v2", |face| {
        let gone = face
            .events
            .remove(event, face.recycle)
            .map_err(|missing| face.misused("event", event, missing))?;
        gone.context.trouble.check()
    })
}

/// Makes the event hold the point behind everything in the stream, in place of what it held.
#[unsafe(no_mangle)]
pub extern "C" fn cuEventRecord(event: CUevent, stream: CUstream) -> CUresult {
    call("cuEventRecord", |face| face.record(event, stream, false))
}

/// The same; with the flag `CU_EVENT_RECORD_EXTERNAL`, in a capture, the graph records the event
/// when it runs.
#[unsafe(no_mangle)]
pub extern "C" fn cuEventRecordWithFlags(
    event: CUevent,
    stream: CUstream,
    flags: c_uint,
) -> CUresult {
    call("cuEventRecordWithFlags", |face| match flags {
        0 | 1 => face.record(event, stream, flags == 1),
        _ => Err(CUDA_ERROR_INVALID_VALUE),
    })
}

/// Whether what the event holds is done; an event never recorded is.
#[unsafe(no_mangle)]
pub extern "C" fn cuEventQuery(event: CUevent) -> CUresult {
    call("cuEventQuery", |face| match face.point_of(event)?.1 {
        None => Ok(()),
        Some(point) => point.result().unwrap_or(Err(CUDA_ERROR_NOT_READY)),
    })
}

/// Waits until what the event holds now is done.
#[unsafe(no_mangle)]
pub extern "C" fn cuEventSynchronize(event: CUevent) -> CUresult {
    call_then(
        "cuEventSynchronize",
        |face| face.point_of(event),
        |(context, point)| wait_all(&context, point.as_slice()),
    )
}

/// The milliseconds between two events that are done, with a resolution of about half a
/// microsecond.
#[unsafe(no_mangle)]
pub extern "C" fn cuEventElapsedTime(
    milliseconds: Out<'_, f32>,
    start: CUevent,
    end: CUevent,
) -> CUresult {
    call("cuEventElapsedTime", |face| {
        let milliseconds = milliseconds.needed()?;
        milliseconds.put(face.elapsed(start, end)?);
        Ok(())
    })
}

/// The same, as CUDA 12.8 and later name it.
#[unsafe(no_mangle)]
pub extern "C" fn cuEventElapsedTime_v2(
    milliseconds: Out<'_, f32>,
    start: CUevent,
    end: CUevent,
) -> CUresult {
    call("cuEventElapsedTime_v2", |face| {
        let milliseconds = milliseconds.needed()?;
        milliseconds.put(face.elapsed(start, end)?);
        Ok(())
    })
}
