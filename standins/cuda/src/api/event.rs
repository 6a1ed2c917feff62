//! Events: <https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__EVENT.html>.
//!
//! As on driver 580, records, queries and synchronizations need no current context.

use crate::codes::{
    CUDA_ERROR_CAPTURED_EVENT, CUDA_ERROR_ILLEGAL_STATE, CUDA_ERROR_INVALID_HANDLE,
    CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_NOT_READY, CUDA_ERROR_NOT_SUPPORTED, CUresult, CudaResult,
};
use crate::context::Context;
use crate::cupti::{Call, Params, traced};
use crate::driver::Driver;
use crate::entry::{call, call_then};
use crate::event::{Event, EventState};
use crate::ffi::Out;
use crate::marker::Marker;
use crate::shared_event::SharedEvent;
use crate::types::{CU_EVENT_DISABLE_TIMING, CU_EVENT_INTERPROCESS, CUevent, CUstream};
use fencepost_sim::{Command, TimestampQuery};
use std::ffi::c_uint;
use std::sync::Arc;

/// The resolution of elapsed times in nanoseconds, as seen on an H200. CUDA documents about half a
/// microsecond.
const RESOLUTION: u64 = 32;

impl Driver {
    pub(crate) fn event(&self, handle: CUevent) -> CudaResult<Event> {
        self.events
            .get(handle)
            .cloned()
            .map_err(|why| self.bad_handle("event", handle, why))
    }

    /// The marker of an event, for a query or wait of the host.
    fn marker_of(&mut self, event: CUevent) -> CudaResult<(Arc<Context>, Option<Arc<Marker>>)> {
        let event = self.event(event)?;
        event.context.sticky_error.check()?;
        let marker = match event.state() {
            // driver 580 on an H200 returns this code once the capture has ended
            EventState::Captured { capture, .. } if !self.is_capture_active(capture) => {
                return Err(CUDA_ERROR_INVALID_VALUE);
            }
            EventState::Captured { capture, .. } => {
                self.invalidate(capture);
                return Err(CUDA_ERROR_CAPTURED_EVENT);
            }
            EventState::Recorded(marker) => Some(marker),
            EventState::Unrecorded => None,
        };
        self.check_unsafe_call()?;
        Ok((event.context, marker))
    }

    fn record(&mut self, event: CUevent, stream: CUstream, external: bool) -> CudaResult {
        let event = self.event(event)?;
        let stream = self.stream_key(stream)?;
        let context = self.check_stream(stream)?;
        event.context.sticky_error.check()?;
        if context.id != event.context.id {
            return Err(CUDA_ERROR_INVALID_HANDLE);
        }
        match self.capture_of(stream) {
            Some(_) if external => self.capture_external_record(stream, &event),
            Some((capture, nodes)) => {
                self.check_valid(capture)?;
                event.set_state(EventState::Captured { capture, nodes });
                Ok(())
            }
            None if external => Err(CUDA_ERROR_ILLEGAL_STATE),
            None => {
                let query = event.new_query()?;
                let Some(shared) = &event.shared else {
                    let marker = self.submit(stream, Vec::new(), query)?;
                    event.set_state(EventState::Recorded(marker));
                    return Ok(());
                };
                let record = shared.recorded() + 1;
                let complete = shared.clone();
                let complete = Command::run(move || complete.complete(record));
                let marker = self.submit(stream, vec![complete], query)?;
                shared.record(record);
                event.set_state(EventState::Recorded(marker));
                Ok(())
            }
        }
    }

    fn elapsed(&mut self, start: CUevent, end: CUevent) -> CudaResult<f32> {
        let (start, end) = (self.event(start)?, self.event(end)?);
        start.context.sticky_error.check()?;
        end.context.sticky_error.check()?;
        if start.context.id != end.context.id {
            return Err(CUDA_ERROR_INVALID_HANDLE);
        }
        let markers = [&start, &end].map(|event| match event.state() {
            _ if event.flags & CU_EVENT_DISABLE_TIMING != 0 => Err(CUDA_ERROR_INVALID_HANDLE),
            EventState::Unrecorded => Err(CUDA_ERROR_INVALID_HANDLE),
            EventState::Captured { .. } => Err(CUDA_ERROR_CAPTURED_EVENT),
            EventState::Recorded(marker) => Ok(marker),
        });
        let [start, end] = markers;
        let tick = |marker: Arc<Marker>| {
            marker.result().unwrap_or(Err(CUDA_ERROR_NOT_READY))?;
            let tick = marker.query.as_ref().and_then(TimestampQuery::read);
            tick.ok_or(CUDA_ERROR_NOT_READY)
        };
        let (start, end) = (start?, end?);
        let steps = |tick: u64| (tick / RESOLUTION) as i64;
        let steps = steps(tick(end)?) - steps(tick(start)?);
        // as in the driver, an `f32` tells 32 ns up to a quarter of a second
        Ok((steps as f64 * RESOLUTION as f64 / 1e6) as f32)
    }
}

/// Creates an event in the current context.
#[unsafe(no_mangle)]
pub extern "C" fn cuEventCreate(event: Out<'_, CUevent>, flags: c_uint) -> CUresult {
    call("cuEventCreate", |driver| {
        let event = event.required()?;
        let context = driver.current()?;
        let across = flags & CU_EVENT_INTERPROCESS != 0;
        if flags & !7 != 0 || across && flags & CU_EVENT_DISABLE_TIMING == 0 {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        if across && !driver.ipc_events {
            return Err(CUDA_ERROR_NOT_SUPPORTED);
        }
        let shared = across
            .then(|| SharedEvent::new(driver.new_id()))
            .transpose()?;
        event.put(driver.events.insert(Event::new(context, flags, shared)));
        Ok(())
    })
}

/// Destroys an event without blocking. Waits for it that were submitted earlier are not affected.
#[unsafe(no_mangle)]
pub extern "C" fn cuEventDestroy_v2(event: CUevent) -> CUresult {
    traced(Call::EventDestroy, &Params(event, (), ()), None, || {
        call("cuEventDestroy_v2", |driver| {
            let removed = driver
                .events
                .remove(event, driver.recycle)
                .map_err(|why| driver.bad_handle("event", event, why))?;
            removed.context.sticky_error.check()
        })
    })
}

/// Records the event: its marker is now the one behind all earlier work of the stream.
#[unsafe(no_mangle)]
pub extern "C" fn cuEventRecord(event: CUevent, stream: CUstream) -> CUresult {
    traced(Call::EventRecord, &Params(event, stream, ()), None, || {
        call("cuEventRecord", |driver| {
            driver.record(event, stream, false)
        })
    })
}

/// As [`cuEventRecord`]. With the flag `CU_EVENT_RECORD_EXTERNAL`, in a capture, the graph records
/// the event when it runs.
#[unsafe(no_mangle)]
pub extern "C" fn cuEventRecordWithFlags(
    event: CUevent,
    stream: CUstream,
    flags: c_uint,
) -> CUresult {
    traced(
        Call::EventRecordWithFlags,
        &Params(event, stream, flags),
        None,
        || {
            call("cuEventRecordWithFlags", |driver| match flags {
                0 | 1 => driver.record(event, stream, flags == 1),
                _ => Err(CUDA_ERROR_INVALID_VALUE),
            })
        },
    )
}

/// Whether the event's marker is complete. An event that was never recorded is complete.
#[unsafe(no_mangle)]
pub extern "C" fn cuEventQuery(event: CUevent) -> CUresult {
    call("cuEventQuery", |driver| match driver.marker_of(event)?.1 {
        None => Ok(()),
        Some(marker) => marker.result().unwrap_or(Err(CUDA_ERROR_NOT_READY)),
    })
}

/// Blocks until the marker that the event has now is complete.
#[unsafe(no_mangle)]
pub extern "C" fn cuEventSynchronize(event: CUevent) -> CUresult {
    traced(Call::EventSynchronize, &Params(event, (), ()), None, || {
        call_then(
            "cuEventSynchronize",
            |driver| driver.marker_of(event),
            |(context, marker)| context.wait_all(marker.as_slice()),
        )
    })
}

/// The milliseconds between two complete events, rounded to an `f32`.
#[unsafe(no_mangle)]
pub extern "C" fn cuEventElapsedTime(
    milliseconds: Out<'_, f32>,
    start: CUevent,
    end: CUevent,
) -> CUresult {
    call("cuEventElapsedTime", |driver| {
        let milliseconds = milliseconds.required()?;
        milliseconds.put(driver.elapsed(start, end)?);
        Ok(())
    })
}

/// As [`cuEventElapsedTime`], by its name since CUDA 12.8.
#[unsafe(no_mangle)]
pub extern "C" fn cuEventElapsedTime_v2(
    milliseconds: Out<'_, f32>,
    start: CUevent,
    end: CUevent,
) -> CUresult {
    call("cuEventElapsedTime_v2", |driver| {
        let milliseconds = milliseconds.required()?;
        milliseconds.put(driver.elapsed(start, end)?);
        Ok(())
    })
}
