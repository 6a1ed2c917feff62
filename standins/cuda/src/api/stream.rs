//! Streams: <https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__STREAM.html>.

use crate::codes::{
    CUDA_ERROR_ILLEGAL_STATE, CUDA_ERROR_INVALID_HANDLE, CUDA_ERROR_INVALID_VALUE,
    CUDA_ERROR_NOT_READY, CUresult, CudaResult,
};
use crate::context::Context;
use crate::cupti::{Call, Params, traced};
use crate::driver::Driver;
use crate::entry::{call, call_then, this_thread};
use crate::event::EventState;
use crate::ffi::Out;
use crate::log::LOG;
use crate::marker::Marker;
use crate::stream::{Stream, StreamKind};
use crate::types::{
    CU_STREAM_LEGACY, CU_STREAM_NON_BLOCKING, CU_STREAM_PER_THREAD, CUcontext, CUevent, CUstream,
};
use std::ffi::{c_int, c_uint};
use std::sync::Arc;

impl Driver {
    fn new_stream(
        &mut self,
        context: &Arc<Context>,
        flags: c_uint,
        kind: StreamKind,
    ) -> CudaResult<usize> {
        let queue = context
            .device
            .new_queue()
            .map_err(|error| context.code_of(&error))?;
        let id = self.new_id();
        Ok(self.streams.insert(Stream {
            context: context.clone(),
            id,
            flags,
            kind,
            queue,
            last: None,
            capture: None,
        }))
    }

    /// The key of a stream in the table. For a special handle it depends on the current context,
    /// and for the per-thread default stream on the calling thread.
    pub(crate) fn stream_key(&mut self, handle: CUstream) -> CudaResult<usize> {
        let (thread, kind) = match handle {
            0 | CU_STREAM_LEGACY => (None, StreamKind::Legacy),
            CU_STREAM_PER_THREAD => (Some(this_thread()), StreamKind::PerThread),
            _ => {
                return match self.streams.get(handle) {
                    Ok(_) => Ok(handle),
                    Err(why) => Err(self.bad_handle("stream", handle, why)),
                };
            }
        };
        let context = self.current()?;
        if let Some(&stream) = self.defaults.get(&(context.id, thread)) {
            return Ok(stream);
        }
        let stream = self.new_stream(&context, 0, kind)?;
        self.defaults.insert((context.id, thread), stream);
        Ok(stream)
    }

    pub(crate) fn stream_ref(&self, key: usize) -> CudaResult<&Stream> {
        self.streams.get(key).map_err(|_| CUDA_ERROR_INVALID_HANDLE)
    }

    /// The checks before every use of a stream: its context has no sticky error, and no capture
    /// forbids the use. Returns the context.
    pub(crate) fn check_stream(&mut self, key: usize) -> CudaResult<Arc<Context>> {
        let stream = self.stream_ref(key)?;
        let context = stream.context.clone();
        context.sticky_error.check()?;
        if stream.is_legacy() {
            self.refuse_implicit(&context, true)?;
        }
        Ok(context)
    }

    /// The markers that a host's wait for the stream waits for.
    fn markers(&self, key: usize) -> CudaResult<Vec<Arc<Marker>>> {
        let stream = self.stream_ref(key)?;
        let mut markers: Vec<_> = stream.last.iter().cloned().collect();
        if stream.is_legacy() {
            markers.extend(self.last_markers(&stream.context, false));
        }
        Ok(markers)
    }
}

/// Creates a stream in the current context.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamCreate(stream: Out<'_, CUstream>, flags: c_uint) -> CUresult {
    traced(
        Call::StreamCreate,
        &Params(stream.pointer(), flags, ()),
        None,
        || create("cuStreamCreate", stream, flags),
    )
}

/// Creates a stream. The stand-in ignores its priority.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamCreateWithPriority(
    stream: Out<'_, CUstream>,
    flags: c_uint,
    priority: c_int,
) -> CUresult {
    traced(
        Call::StreamCreateWithPriority,
        &Params(stream.pointer(), flags, priority),
        None,
        || create("cuStreamCreateWithPriority", stream, flags),
    )
}

fn create(name: &'static str, stream: Out<'_, CUstream>, flags: c_uint) -> CUresult {
    call(name, |driver| {
        let stream = stream.required()?;
        let context = driver.current()?;
        if flags & !CU_STREAM_NON_BLOCKING != 0 {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        stream.put(driver.new_stream(&context, flags, StreamKind::Created)?);
        Ok(())
    })
}

/// Destroys a stream without blocking. Its work still runs.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamDestroy_v2(stream: CUstream) -> CUresult {
    traced(Call::StreamDestroy, &Params(stream, (), ()), None, || {
        call("cuStreamDestroy_v2", |driver| {
            if stream <= CU_STREAM_PER_THREAD {
                LOG.violation("cuStreamDestroy_v2: a default stream cannot be destroyed");
                return Err(CUDA_ERROR_INVALID_HANDLE);
            }
            if driver.streams.get(stream).is_ok() {
                driver.invalidate_of(stream);
            }
            let removed = driver
                .streams
                .remove(stream, driver.recycle)
                .map_err(|why| driver.bad_handle("stream", stream, why))?;
            if let Some(end) = &removed.last
                && !end.settled()
            {
                removed
                    .context
                    .keep_destroyed_stream(removed.is_blocking(), end.clone());
            }
            removed.context.sticky_error.check()
        })
    })
}

/// Whether all work of the stream is complete.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamQuery(stream: CUstream) -> CUresult {
    call("cuStreamQuery", |driver| {
        let stream = driver.stream_key(stream)?;
        driver.check_stream(stream)?;
        driver.refuse_in_capture(stream)?;
        driver.check_unsafe_call()?;
        for end in driver.markers(stream)? {
            end.result().unwrap_or(Err(CUDA_ERROR_NOT_READY))?;
        }
        Ok(())
    })
}

/// Blocks until all work of the stream is complete.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamSynchronize(stream: CUstream) -> CUresult {
    traced(
        Call::StreamSynchronize,
        &Params(stream, (), ()),
        None,
        || {
            call_then(
                "cuStreamSynchronize",
                |driver| {
                    let stream = driver.stream_key(stream)?;
                    let context = driver.check_stream(stream)?;
                    driver.refuse_in_capture(stream)?;
                    driver.check_unsafe_call()?;
                    Ok((context, driver.markers(stream)?))
                },
                |(context, markers)| context.wait_all(&markers),
            )
        },
    )
}

/// The stream's context.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamGetCtx(stream: CUstream, context: Out<'_, CUcontext>) -> CUresult {
    call("cuStreamGetCtx", |driver| {
        let out = context.required()?;
        let stream = driver.stream_key(stream)?;
        let context = driver.stream_ref(stream)?.context.clone();
        context.sticky_error.check()?;
        out.put(driver.handle_of(&context)?);
        Ok(())
    })
}

/// The id of a stream, which no other stream of this process ever has.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamGetId(stream: CUstream, id: Out<'_, u64>) -> CUresult {
    call("cuStreamGetId", |driver| {
        let id = id.required()?;
        let stream = driver.stream_key(stream)?;
        driver.refuse_in_capture(stream)?;
        let stream = driver.stream_ref(stream)?;
        stream.context.sticky_error.check()?;
        id.put(stream.id);
        Ok(())
    })
}

/// The flags of the stream's creation.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamGetFlags(stream: CUstream, flags: Out<'_, c_uint>) -> CUresult {
    call("cuStreamGetFlags", |driver| {
        let flags = flags.required()?;
        let stream = driver.stream_key(stream)?;
        driver.refuse_in_capture(stream)?;
        let stream = driver.stream_ref(stream)?;
        stream.context.sticky_error.check()?;
        flags.put(stream.flags);
        Ok(())
    })
}

/// Makes later work of the stream wait for the marker that the event has now.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamWaitEvent(stream: CUstream, event: CUevent, flags: c_uint) -> CUresult {
    traced(
        Call::StreamWaitEvent,
        &Params(stream, event, flags),
        None,
        || {
            call("cuStreamWaitEvent", |driver| {
                let stream = driver.stream_key(stream)?;
                let event = driver.event(event)?;
                driver.check_stream(stream)?;
                event.context.sticky_error.check()?;
                let capturing = driver.capture_of(stream);
                let external = match flags {
                    0 => false,
                    1 if capturing.is_some() => true,
                    1 => return Err(CUDA_ERROR_ILLEGAL_STATE),
                    _ => return Err(CUDA_ERROR_INVALID_VALUE),
                };
                if external {
                    return driver.capture_external_wait(stream, &event);
                }
                match event.state() {
                    EventState::Captured { capture, nodes } => {
                        driver.join_capture(stream, capture, &nodes)
                    }
                    EventState::Unrecorded => Ok(()),
                    EventState::Recorded(_) if capturing.is_some() => {
                        Err(driver.isolation_error(stream))
                    }
                    EventState::Recorded(marker) if marker.settled() => Ok(()),
                    EventState::Recorded(marker) => {
                        let wait = vec![marker.wait()];
                        driver.submit(stream, wait, None).map(drop)
                    }
                }
            })
        },
    )
}
