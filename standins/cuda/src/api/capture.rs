//! Stream capture: <https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__STREAM.html>
//! (`cuStreamBeginCapture`, `cuThreadExchangeStreamCaptureMode`).
//!
//! The stand-in treats these calls as potentially unsafe: allocating and freeing memory,
//! synchronous copies, loading and unloading modules, `cuEventQuery`, `cuEventSynchronize`,
//! `cuStreamQuery`, `cuStreamGetId`, `cuStreamGetFlags`, `cuStreamSynchronize`,
//! `cuCtxSynchronize`.

use crate::codes::{
    CUDA_ERROR_ILLEGAL_STATE, CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_STREAM_CAPTURE_IMPLICIT,
    CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, CUDA_ERROR_STREAM_CAPTURE_ISOLATION,
    CUDA_ERROR_STREAM_CAPTURE_MERGE, CUDA_ERROR_STREAM_CAPTURE_UNJOINED,
    CUDA_ERROR_STREAM_CAPTURE_UNMATCHED, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED,
    CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD, CUresult, CudaResult,
};
use crate::context::Context;
use crate::cupti::{Call, Params, traced};
use crate::driver::Driver;
use crate::entry::{call, call_unlocked, this_thread};
use crate::event::Event;
use crate::ffi::Out;
use crate::graph::{Capture, Node, NodeKind};
use crate::types::{
    CU_STREAM_CAPTURE_MODE_GLOBAL, CU_STREAM_CAPTURE_MODE_RELAXED, CUgraph, CUstream,
};
use crate::work::Work;
use std::cell::Cell;
use std::collections::BTreeSet;
use std::ffi::{c_int, c_uint};

thread_local! {
    /// The capture mode of the thread.
    static MODE: Cell<c_uint> = const { Cell::new(CU_STREAM_CAPTURE_MODE_GLOBAL) };
}

/// # The checks of captures
impl Driver {
    /// Refuses a potentially unsafe call if the thread's mode forbids it, and invalidates the
    /// captures that forbid it.
    pub(crate) fn check_unsafe_call(&mut self) -> CudaResult {
        let thread = this_thread();
        let mode = MODE
            .try_with(Cell::get)
            .unwrap_or(CU_STREAM_CAPTURE_MODE_GLOBAL);
        let mut refused = Ok(());
        for capture in self.captures.values_mut() {
            let forbids = match mode {
                CU_STREAM_CAPTURE_MODE_RELAXED => false,
                _ if capture.thread == thread => capture.mode != CU_STREAM_CAPTURE_MODE_RELAXED,
                CU_STREAM_CAPTURE_MODE_GLOBAL => capture.mode == CU_STREAM_CAPTURE_MODE_GLOBAL,
                _ => false,
            };
            if forbids {
                capture.invalid = true;
                refused = Err(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
            }
        }
        refused
    }

    pub(crate) fn invalidate(&mut self, capture: u64) {
        if let Some(capture) = self.captures.get_mut(&capture) {
            capture.invalid = true;
        }
    }

    pub(crate) fn invalidate_of(&mut self, stream: usize) {
        if let Some((capture, _)) = self.capture_of(stream) {
            self.invalidate(capture);
        }
    }

    pub(crate) fn capture_of(&self, stream: usize) -> Option<(u64, Vec<usize>)> {
        self.streams.get(stream).ok()?.capture.clone()
    }

    pub(crate) fn check_valid(&self, capture: u64) -> CudaResult {
        match self.captures.get(&capture) {
            Some(capture) if !capture.invalid => Ok(()),
            _ => Err(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED),
        }
    }

    /// Refuses a call that is not permitted on a stream that is being captured.
    pub(crate) fn refuse_in_capture(&mut self, stream: usize) -> CudaResult {
        if self.capture_of(stream).is_none() {
            return Ok(());
        }
        self.invalidate_of(stream);
        Err(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED)
    }

    /// Refuses a call that waits for all streams of a context, if one of them is being captured.
    pub(crate) fn refuse_in_any_capture_of(&mut self, context: &Context) -> CudaResult {
        self.refuse(context, true, true, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED)
    }

    /// Refuses the legacy default stream while a blocking stream is being captured, since it would
    /// depend on that stream.
    pub(crate) fn refuse_implicit(&mut self, context: &Context, invalidate: bool) -> CudaResult {
        self.refuse(
            context,
            false,
            invalidate,
            CUDA_ERROR_STREAM_CAPTURE_IMPLICIT,
        )
    }

    fn refuse(
        &mut self,
        context: &Context,
        all: bool,
        invalidate: bool,
        code: CUresult,
    ) -> CudaResult {
        let captures: BTreeSet<u64> = self
            .streams
            .iter()
            .filter(|(_, stream)| stream.context.id == context.id && (all || stream.is_blocking()))
            .filter_map(|(_, stream)| Some(stream.capture.as_ref()?.0))
            .collect();
        if captures.is_empty() {
            return Ok(());
        }
        if invalidate {
            captures
                .into_iter()
                .for_each(|capture| self.invalidate(capture));
        }
        Err(code)
    }
}

/// # The nodes of captures
impl Driver {
    fn add_node(&mut self, stream: usize, kind: NodeKind) -> CudaResult {
        let (capture, dependencies) = self.capture_of(stream).ok_or(CUDA_ERROR_ILLEGAL_STATE)?;
        self.check_valid(capture)?;
        let context = self.stream_ref(stream)?.context.clone();
        let Some(nodes) = self.captures.get_mut(&capture).map(|c| &mut c.nodes) else {
            return Err(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
        };
        nodes.push(Node {
            context,
            kind,
            dependencies,
        });
        let node = nodes.len() - 1;
        self.set_dependencies(stream, capture, vec![node]);
        Ok(())
    }

    pub(crate) fn set_dependencies(&mut self, stream: usize, capture: u64, nodes: Vec<usize>) {
        if let Ok(stream) = self.streams.get_mut(stream) {
            stream.capture = Some((capture, nodes));
        }
    }

    /// Adds work to the capture of the stream. False if the stream is not being captured.
    pub(crate) fn capture_work(&mut self, stream: usize, work: &Work) -> CudaResult<bool> {
        if self.capture_of(stream).is_none() {
            return Ok(false);
        }
        self.add_node(stream, NodeKind::Work(work.clone()))?;
        Ok(true)
    }

    pub(crate) fn capture_external_record(&mut self, stream: usize, event: &Event) -> CudaResult {
        self.add_node(stream, NodeKind::Record(event.clone()))
    }

    pub(crate) fn capture_external_wait(&mut self, stream: usize, event: &Event) -> CudaResult {
        self.add_node(stream, NodeKind::Wait(event.clone()))
    }

    pub(crate) fn is_capture_active(&self, capture: u64) -> bool {
        self.captures.contains_key(&capture)
    }

    /// A wait for an event of `capture`: the stream joins the capture, or gets more dependencies in
    /// it.
    pub(crate) fn join_capture(
        &mut self,
        stream: usize,
        capture: u64,
        nodes: &[usize],
    ) -> CudaResult {
        if !self.is_capture_active(capture) {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        let own = self.capture_of(stream);
        if let Some((own, _)) = own
            && own != capture
        {
            self.invalidate(own);
            self.invalidate(capture);
            return Err(CUDA_ERROR_STREAM_CAPTURE_MERGE);
        }
        if self.stream_ref(stream)?.is_legacy() {
            self.invalidate(capture);
            return Err(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
        }
        self.check_valid(capture)?;
        let mut all: BTreeSet<usize> = nodes.iter().copied().collect();
        all.extend(own.into_iter().flat_map(|(_, nodes)| nodes));
        self.set_dependencies(stream, capture, all.into_iter().collect());
        Ok(())
    }

    /// The error for a captured stream that would wait for work outside the capture.
    pub(crate) fn isolation_error(&mut self, stream: usize) -> CUresult {
        self.invalidate_of(stream);
        CUDA_ERROR_STREAM_CAPTURE_ISOLATION
    }

    fn end_capture(&mut self, stream: usize) -> CudaResult<CUgraph> {
        let (id, last) = self.capture_of(stream).ok_or(CUDA_ERROR_ILLEGAL_STATE)?;
        let Some(capture) = self.captures.get_mut(&id) else {
            return Err(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
        };
        if capture.origin != stream {
            capture.invalid = true;
            return Err(CUDA_ERROR_STREAM_CAPTURE_UNMATCHED);
        }
        if capture.mode != CU_STREAM_CAPTURE_MODE_RELAXED && capture.thread != this_thread() {
            capture.invalid = true;
            return Err(CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD);
        }
        for stream in self.streams.values_mut() {
            stream.capture.take_if(|(of, _)| *of == id);
        }
        let Some(capture) = self.captures.remove(&id).filter(|capture| !capture.invalid) else {
            return Err(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
        };
        // every node must be among the dependencies of the origin stream
        let mut joined = BTreeSet::new();
        let mut open = last;
        while let Some(node) = open.pop() {
            if joined.insert(node) {
                open.extend(&capture.nodes[node].dependencies);
            }
        }
        if joined.len() < capture.nodes.len() {
            return Err(CUDA_ERROR_STREAM_CAPTURE_UNJOINED);
        }
        Ok(self.graphs.insert(capture.nodes))
    }

    /// The status of the stream's capture (0: none, 1: active, 2: invalid), and its id.
    fn capture_status(&mut self, stream: CUstream) -> CudaResult<(c_int, u64)> {
        let stream = self.stream_key(stream)?;
        let own = self.stream_ref(stream)?;
        let context = own.context.clone();
        context.sticky_error.check()?;
        if own.is_legacy() {
            self.refuse_implicit(&context, false)?;
        }
        Ok(match self.capture_of(stream) {
            None => (0, 0),
            Some((capture, _)) if self.check_valid(capture).is_ok() => (1, capture),
            Some((capture, _)) => (2, capture),
        })
    }
}

/// Begins a capture: later work of the stream becomes nodes of a graph and does not run.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamBeginCapture_v2(stream: CUstream, mode: c_uint) -> CUresult {
    traced(
        Call::StreamBeginCapture,
        &Params(stream, mode, ()),
        None,
        || {
            call("cuStreamBeginCapture_v2", |driver| {
                if mode > CU_STREAM_CAPTURE_MODE_RELAXED {
                    return Err(CUDA_ERROR_INVALID_VALUE);
                }
                let stream = driver.stream_key(stream)?;
                driver.check_stream(stream)?;
                if driver.stream_ref(stream)?.is_legacy() {
                    return Err(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
                }
                if driver.capture_of(stream).is_some() {
                    return Err(CUDA_ERROR_ILLEGAL_STATE);
                }
                let id = driver.new_id();
                let capture = Capture {
                    mode,
                    thread: this_thread(),
                    origin: stream,
                    invalid: false,
                    nodes: Vec::new(),
                };
                driver.captures.insert(id, capture);
                driver.set_dependencies(stream, id, Vec::new());
                Ok(())
            })
        },
    )
}

/// Ends the capture that began in this stream.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamEndCapture(stream: CUstream, graph: Out<'_, CUgraph>) -> CUresult {
    traced(
        Call::StreamEndCapture,
        &Params(stream, graph.pointer(), ()),
        None,
        || {
            call("cuStreamEndCapture", |driver| {
                let graph = graph.required()?;
                let stream = driver.stream_key(stream)?;
                let ended = driver.end_capture(stream);
                graph.put(*ended.as_ref().unwrap_or(&0));
                ended.map(drop)
            })
        },
    )
}

/// Whether the stream is being captured. 0: no; 1: yes; 2: the capture is invalid.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamIsCapturing(stream: CUstream, status: Out<'_, c_int>) -> CUresult {
    call("cuStreamIsCapturing", |driver| {
        let out = status.required()?;
        out.put(driver.capture_status(stream)?.0);
        Ok(())
    })
}

/// As [`cuStreamIsCapturing`], with the capture's id. It does not return the graph and its nodes.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamGetCaptureInfo_v2(
    stream: CUstream,
    status: Out<'_, c_int>,
    id: Out<'_, u64>,
    graph: Out<'_, CUgraph>,
    nodes: Out<'_, *const usize>,
    node_count: Out<'_, usize>,
) -> CUresult {
    call("cuStreamGetCaptureInfo_v2", |driver| {
        let out = status.required()?;
        let (status, capture) = driver.capture_status(stream)?;
        out.put(status);
        if status == 1 {
            id.put(capture);
            graph.put(0);
            nodes.put(std::ptr::null());
            node_count.put(0);
        }
        Ok(())
    })
}

/// Replaces the calling thread's capture mode and returns the earlier one.
#[unsafe(no_mangle)]
pub extern "C" fn cuThreadExchangeStreamCaptureMode(mode: Option<&mut c_uint>) -> CUresult {
    call_unlocked("cuThreadExchangeStreamCaptureMode", || {
        let mode = mode.ok_or(CUDA_ERROR_INVALID_VALUE)?;
        if *mode > CU_STREAM_CAPTURE_MODE_RELAXED {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        // a thread that is ending has no mode
        *mode = MODE
            .try_with(|own| own.replace(*mode))
            .unwrap_or(CU_STREAM_CAPTURE_MODE_GLOBAL);
        Ok(())
    })
}
