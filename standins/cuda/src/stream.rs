//! Streams: <https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__STREAM.html>, waits for and
//! writes of words: <https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__MEMOP.html>.

use crate::boundary::Out;
use crate::codes::{
    CUDA_ERROR_ILLEGAL_ADDRESS, CUDA_ERROR_ILLEGAL_STATE, CUDA_ERROR_INVALID_HANDLE,
    CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_NOT_READY, CUresult, Done,
};
use crate::context::{CUcontext, Context};
use crate::control;
use crate::entry::{call, call_then, this_thread};
use crate::event::{CUevent, State};
use crate::face::Face;
use crate::memory::{CUdeviceptr, Span};
use crate::work::{Compare, HostFunction, Op, Point, wait_all};
use fencepost_sim::Queue;
use std::ffi::{c_int, c_uint, c_void};
use std::sync::Arc;

/// A key, never a pointer, or one of the special handles.
pub type CUstream = usize;

/// The stream that synchronises with all blocking streams of its context. Null is the same.
pub const CU_STREAM_LEGACY: CUstream = 1;
/// The default stream of the calling thread.
pub const CU_STREAM_PER_THREAD: CUstream = 2;
/// A stream that does not synchronise with the legacy default stream.
pub const CU_STREAM_NON_BLOCKING: c_uint = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Legacy,
    PerThread,
    Made,
}

#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) context: Arc<Context>,
    id: u64,
    flags: c_uint,
    kind: Kind,
    pub(crate) queue: Queue,
    /// Behind everything submitted so far.
    pub(crate) last: Option<Arc<Point>>,
    /// The capture it is in, and the nodes that its next one comes after.
    pub(crate) capture: Option<(u64, Vec<usize>)>,
}

impl Stream {
    pub(crate) fn is_legacy(&self) -> bool {
        self.kind == Kind::Legacy
    }

    pub(crate) fn is_made(&self) -> bool {
        self.kind == Kind::Made
    }

    pub(crate) fn blocks_legacy(&self) -> bool {
        !self.is_legacy() && self.flags & CU_STREAM_NON_BLOCKING == 0
    }
}

impl Face {
    fn new_stream(&mut self, context: &Arc<Context>, flags: c_uint, kind: Kind) -> Done<usize> {
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

    /// What a stream handle means to the calling thread: its key in the table.
    pub(crate) fn stream(&mut self, handle: CUstream) -> Done<usize> {
        let (thread, kind) = match handle {
            0 | CU_STREAM_LEGACY => (None, Kind::Legacy),
            CU_STREAM_PER_THREAD => (Some(this_thread()), Kind::PerThread),
            _ => {
                return match self.streams.get(handle) {
                    Ok(_) => Ok(handle),
                    Err(missing) => Err(self.misused("stream", handle, missing)),
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

    pub(crate) fn stream_ref(&self, key: usize) -> Done<&Stream> {
        self.streams.get(key).map_err(|_| CUDA_ERROR_INVALID_HANDLE)
    }

    /// What every use of a stream begins with: its context, in good health and with no capture in
    /// the way.
    pub(crate) fn enter(&mut self, key: usize) -> Done<Arc<Context>> {
        let stream = self.stream_ref(key)?;
        let context = stream.context.clone();
        context.trouble.check()?;
        if stream.is_legacy() {
            self.refuse_implicit(&context, true)?;
        }
        Ok(context)
    }

    /// The points that a wait for the stream waits for.
    fn ends(&self, key: usize) -> Done<Vec<Arc<Point>>> {
        let stream = self.stream_ref(key)?;
        let mut ends: Vec<_> = stream.last.iter().cloned().collect();
        if stream.is_legacy() {
            ends.extend(self.ends_of(&stream.context, false));
        }
        Ok(ends)
    }

    fn word(&self, address: CUdeviceptr) -> Done<Span> {
        if !address.is_multiple_of(4) {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        self.memory.span(address, 4).map_err(|code| match code {
            CUDA_ERROR_ILLEGAL_ADDRESS => CUDA_ERROR_INVALID_VALUE,
            code => code,
        })
    }
}

/// Makes a stream in the current context.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamCreate(stream: Out<'_, CUstream>, flags: c_uint) -> CUresult {
    create("cuStreamCreate", stream, flags)
}

/// Makes a stream; its priority is ignored.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamCreateWithPriority(
    stream: Out<'_, CUstream>,
    flags: c_uint,
    _priority: c_int,
) -> CUresult {
    create("cuStreamCreateWithPriority", stream, flags)
}

fn create(name: &'static str, stream: Out<'_, CUstream>, flags: c_uint) -> CUresult {
    call(name, |face| {
        let stream = stream.needed()?;
        let context = face.current()?;
        if flags & !CU_STREAM_NON_BLOCKING != 0 {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        stream.put(face.new_stream(&context, flags, Kind::Made)?);
        Ok(())
    })
}

/// Destroys a stream. Its work runs on, and the call does not wait for it.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamDestroy_v2(stream: CUstream) -> CUresult {
    call("cuStreamDestroy_v2", |face| {
        if stream <= CU_STREAM_PER_THREAD {
            control::violation("cuStreamDestroy_v2: a default stream cannot be destroyed");
            return Err(CUDA_ERROR_INVALID_HANDLE);
        }
        if face.streams.get(stream).is_ok() {
            face.invalidate_of(stream);
        }
        let gone = face
            .streams
            .remove(stream, face.recycle)
            .map_err(|missing| face.misused("stream", stream, missing))?;
        if let Some(end) = &gone.last
            && !end.settled()
        {
            gone.context.adopt(gone.blocks_legacy(), end.clone());
        }
        gone.context.trouble.check()
    })
}

/// Whether all work of the stream is done.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamQuery(stream: CUstream) -> CUresult {
    call("cuStreamQuery", |face| {
        let stream = face.stream(stream)?;
        face.enter(stream)?;
        face.refuse_in_capture(stream)?;
        face.unsafe_call()?;
        for end in face.ends(stream)? {
            end.result().unwrap_or(Err(CUDA_ERROR_NOT_READY))?;
        }
        Ok(())
    })
}

/// Waits until all work of the stream is done.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamSynchronize(stream: CUstream) -> CUresult {
    call_then(
        "cuStreamSynchronize",
        |face| {
            let stream = face.stream(stream)?;
            let context = face.enter(stream)?;
            face.refuse_in_capture(stream)?;
            face.unsafe_call()?;
            Ok((context, face.ends(stream)?))
        },
        |(context, ends)| wait_all(&context, &ends),
    )
}

/// The stream's context.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamGetCtx(stream: CUstream, context: Out<'_, CUcontext>) -> CUresult {
    call("cuStreamGetCtx", |face| {
        let out = context.needed()?;
        let stream = face.stream(stream)?;
        let context = face.stream_ref(stream)?.context.clone();
        context.trouble.check()?;
        out.put(face.handle_of(&context)?);
        Ok(())
    })
}

/// A number that no other stream of this process ever has.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamGetId(stream: CUstream, id: Out<'_, u64>) -> CUresult {
    call("cuStreamGetId", |face| {
        let id = id.needed()?;
        let stream = face.stream(stream)?;
        face.refuse_in_capture(stream)?;
        let stream = face.stream_ref(stream)?;
        stream.context.trouble.check()?;
        id.put(stream.id);
        Ok(())
    })
}

/// The flags it was made with.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamGetFlags(stream: CUstream, flags: Out<'_, c_uint>) -> CUresult {
    call("cuStreamGetFlags", |face| {
        let flags = flags.needed()?;
        let stream = face.stream(stream)?;
        face.refuse_in_capture(stream)?;
        let stream = face.stream_ref(stream)?;
        stream.context.trouble.check()?;
        flags.put(stream.flags);
        Ok(())
    })
}

/// Makes later work of the stream wait for what the event holds now.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamWaitEvent(stream: CUstream, event: CUevent, flags: c_uint) -> CUresult {
    call("cuStreamWaitEvent", |face| {
        let stream = face.stream(stream)?;
        let event = face.event(event)?;
        face.enter(stream)?;
        event.context.trouble.check()?;
        let capturing = face.capture_of(stream);
        let external = match flags {
            0 => false,
            1 if capturing.is_some() => true,
            1 => return Err(CUDA_ERROR_ILLEGAL_STATE),
            _ => return Err(CUDA_ERROR_INVALID_VALUE),
        };
        if external {
            return face.capture_external_wait(stream, &event);
        }
        match event.state() {
            State::Captured { capture, after } => face.join_capture(stream, capture, &after),
            State::Unrecorded => Ok(()),
            State::Recorded(_) if capturing.is_some() => Err(face.isolated(stream)),
            State::Recorded(point) if point.settled() => Ok(()),
            State::Recorded(point) => {
                let wait = vec![point.wait()];
                face.submit(stream, wait, None).map(drop)
            }
        }
    })
}

/// Makes later work of the stream wait until a word compares as asked.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamWaitValue32_v2(
    stream: CUstream,
    address: CUdeviceptr,
    value: u32,
    flags: c_uint,
) -> CUresult {
    call("cuStreamWaitValue32_v2", |face| {
        // CU_STREAM_WAIT_VALUE_FLUSH changes nothing here
        let compare = match flags & !(1 << 30) {
            0 => Compare::Geq,
            1 => Compare::Eq,
            2 => Compare::And,
            3 => Compare::Nor,
            _ => return Err(CUDA_ERROR_INVALID_VALUE),
        };
        let stream = face.stream(stream)?;
        let wait = Op::Wait {
            word: face.word(address)?,
            value,
            compare,
        };
        face.push(stream, wait).map(drop)
    })
}

/// Writes a word when the stream comes to it.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamWriteValue32_v2(
    stream: CUstream,
    address: CUdeviceptr,
    value: u32,
    flags: c_uint,
) -> CUresult {
    call("cuStreamWriteValue32_v2", |face| {
        // CU_STREAM_WRITE_VALUE_NO_MEMORY_BARRIER changes nothing here
        if flags & !1 != 0 {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        let stream = face.stream(stream)?;
        let word = face.word(address)?;
        face.push(stream, Op::Write { word, value }).map(drop)
    })
}

/// Calls a function on a thread of the driver's when the stream comes to it:
/// <https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__EXEC.html>. Not called once the
/// context has failed.
///
/// # Safety
/// `function` may then be called with `data`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLaunchHostFunc(
    stream: CUstream,
    function: Option<unsafe extern "C" fn(*mut c_void)>,
    data: *mut c_void,
) -> CUresult {
    call("cuLaunchHostFunc", |face| {
        let call = function.ok_or(CUDA_ERROR_INVALID_VALUE)?;
        let stream = face.stream(stream)?;
        let function = HostFunction { call, data };
        face.push(stream, Op::Host(function)).map(drop)
    })
}
