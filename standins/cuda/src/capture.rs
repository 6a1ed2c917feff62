//! Stream capture and graphs:
//! <https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__STREAM.html> (`cuStreamBeginCapture`,
//! `cuThreadExchangeStreamCaptureMode`),
//! <https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__GRAPH.html>.
//!
//! Taken as potentially unsafe calls: allocating and freeing memory, synchronous copies, loading
//! and unloading modules, `cuEventQuery`, `cuEventSynchronize`, `cuStreamQuery`, `cuStreamGetId`,
//! `cuStreamGetFlags`, `cuStreamSynchronize`, `cuCtxSynchronize`.

use crate::boundary::Out;
use crate::codes::{
    CUDA_ERROR_ILLEGAL_STATE, CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_STREAM_CAPTURE_IMPLICIT,
    CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, CUDA_ERROR_STREAM_CAPTURE_ISOLATION,
    CUDA_ERROR_STREAM_CAPTURE_MERGE, CUDA_ERROR_STREAM_CAPTURE_UNJOINED,
    CUDA_ERROR_STREAM_CAPTURE_UNMATCHED, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED,
    CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD, CUresult, Done,
};
use crate::context::Context;
use crate::entry::{call, plain, this_thread};
use crate::event::{Event, State};
use crate::face::Face;
use crate::stream::CUstream;
use crate::work::{Op, Point, submit_to};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::ffi::{c_int, c_uint};
use std::sync::Arc;

/// A key, never a pointer.
pub type CUgraph = usize;
/// A key, never a pointer.
pub type CUgraphExec = usize;

/// `CU_STREAM_CAPTURE_MODE_GLOBAL`.
pub const GLOBAL: c_uint = 0;
/// `CU_STREAM_CAPTURE_MODE_THREAD_LOCAL`.
pub const THREAD_LOCAL: c_uint = 1;
/// `CU_STREAM_CAPTURE_MODE_RELAXED`.
pub const RELAXED: c_uint = 2;

thread_local! {
    static MODE: Cell<c_uint> = const { Cell::new(GLOBAL) };
}

/// One piece of a graph, and which others it comes after.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    context: Arc<Context>,
    what: What,
    after: Vec<usize>,
}

#[derive(Clone, Debug)]
enum What {
    Work(Op),
    Record(Event),
    Wait(Event),
}

#[derive(Debug)]
pub(crate) struct Capture {
    mode: c_uint,
    thread: u64,
    origin: usize,
    invalid: bool,
    nodes: Vec<Node>,
}

#[derive(Debug)]
pub(crate) struct GraphExec {
    nodes: Vec<Node>,
    /// A graph does not run beside itself.
    last: Option<Arc<Point>>,
}

/// # What captures forbid
impl Face {
    /// Refuses a potentially unsafe call where the thread's mode forbids it, and spoils the
    /// captures it would upset.
    pub(crate) fn unsafe_call(&mut self) -> Done {
        let thread = this_thread();
        let mode = MODE.try_with(Cell::get).unwrap_or(GLOBAL);
        let mut refused = Ok(());
        for capture in self.captures.values_mut() {
            let upset = match mode {
                RELAXED => false,
                _ if capture.thread == thread => capture.mode != RELAXED,
                GLOBAL => capture.mode == GLOBAL,
                _ => false,
            };
            if upset {
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

    pub(crate) fn check_valid(&self, capture: u64) -> Done {
        match self.captures.get(&capture) {
            Some(capture) if !capture.invalid => Ok(()),
            _ => Err(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED),
        }
    }

    /// Refuses a call that a capturing stream cannot take at all.
    pub(crate) fn refuse_in_capture(&mut self, stream: usize) -> Done {
        if self.capture_of(stream).is_none() {
            return Ok(());
        }
        self.invalidate_of(stream);
        Err(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED)
    }

    /// Refuses a call that waits for every stream of a context.
    pub(crate) fn refuse_in_any_capture_of(&mut self, context: &Context) -> Done {
        self.refuse(context, true, true, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED)
    }

    /// Refuses the legacy default stream while a blocking stream is captured, as that would depend
    /// on it.
    pub(crate) fn refuse_implicit(&mut self, context: &Context, invalidate: bool) -> Done {
        self.refuse(
            context,
            false,
            invalidate,
            CUDA_ERROR_STREAM_CAPTURE_IMPLICIT,
        )
    }

    fn refuse(&mut self, context: &Context, all: bool, invalidate: bool, code: CUresult) -> Done {
        let captures: BTreeSet<u64> = self
            .streams
            .iter()
            .filter(|(_, stream)| {
                stream.context.id == context.id && (all || stream.blocks_legacy())
            })
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

/// # What captures take in
impl Face {
    fn add_node(&mut self, stream: usize, what: What) -> Done {
        let (capture, after) = self.capture_of(stream).ok_or(CUDA_ERROR_ILLEGAL_STATE)?;
        self.check_valid(capture)?;
        let context = self.stream_ref(stream)?.context.clone();
        let Some(nodes) = self.captures.get_mut(&capture).map(|c| &mut c.nodes) else {
            return Err(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
        };
        nodes.push(Node {
            context,
            what,
            after,
        });
        let node = nodes.len() - 1;
        self.depend(stream, capture, vec![node]);
        Ok(())
    }

    fn depend(&mut self, stream: usize, capture: u64, after: Vec<usize>) {
        if let Ok(stream) = self.streams.get_mut(stream) {
            stream.capture = Some((capture, after));
        }
    }

    /// False if the stream is not being captured.
    pub(crate) fn capture_node(&mut self, stream: usize, op: &Op) -> Done<bool> {
        if self.capture_of(stream).is_none() {
            return Ok(false);
        }
        self.add_node(stream, What::Work(op.clone()))?;
        Ok(true)
    }

    pub(crate) fn capture_external_record(&mut self, stream: usize, event: &Event) -> Done {
        self.add_node(stream, What::Record(event.clone()))
    }

    pub(crate) fn capture_external_wait(&mut self, stream: usize, event: &Event) -> Done {
        self.add_node(stream, What::Wait(event.clone()))
    }

    pub(crate) fn is_going_on(&self, capture: u64) -> bool {
        self.captures.contains_key(&capture)
    }

    /// A wait for an event captured in `capture`: the stream joins it, or depends on more of it.
    pub(crate) fn join_capture(&mut self, stream: usize, capture: u64, after: &[usize]) -> Done {
        if !self.is_going_on(capture) {
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
        let mut all: BTreeSet<usize> = after.iter().copied().collect();
        all.extend(own.into_iter().flat_map(|(_, after)| after));
        self.depend(stream, capture, all.into_iter().collect());
        Ok(())
    }

    /// A captured stream was to wait for work outside of the capture.
    pub(crate) fn isolated(&mut self, stream: usize) -> CUresult {
        self.invalidate_of(stream);
        CUDA_ERROR_STREAM_CAPTURE_ISOLATION
    }

    fn end_capture(&mut self, stream: usize) -> Done<CUgraph> {
        let (id, after) = self.capture_of(stream).ok_or(CUDA_ERROR_ILLEGAL_STATE)?;
        let Some(capture) = self.captures.get_mut(&id) else {
            return Err(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
        };
        if capture.origin != stream {
            capture.invalid = true;
            return Err(CUDA_ERROR_STREAM_CAPTURE_UNMATCHED);
        }
        if capture.mode != RELAXED && capture.thread != this_thread() {
            capture.invalid = true;
            return Err(CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD);
        }
        for stream in self.streams.values_mut() {
            stream.capture.take_if(|(of, _)| *of == id);
        }
        let Some(capture) = self.captures.remove(&id).filter(|capture| !capture.invalid) else {
            return Err(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
        };
        let mut joined = BTreeSet::new();
        let mut open = after;
        while let Some(node) = open.pop() {
            if joined.insert(node) {
                open.extend(&capture.nodes[node].after);
            }
        }
        if joined.len() < capture.nodes.len() {
            return Err(CUDA_ERROR_STREAM_CAPTURE_UNJOINED);
        }
        Ok(self.graphs.insert(capture.nodes))
    }

    /// Each node goes into a queue of its own, so that whatever the graph does not order runs in
    /// any order.
    fn launch(&mut self, exec: CUgraphExec, stream: usize) -> Done {
        let context = self.enter(stream)?;
        let (nodes, last) = match self.execs.get(exec) {
            Ok(exec) => (exec.nodes.clone(), exec.last.clone()),
            Err(missing) => return Err(self.misused("graph exec", exec, missing)),
        };
        if let Some((capture, before)) = self.capture_of(stream) {
            return self.launch_in_capture(stream, capture, &before, nodes);
        }
        let mut start = self.barriers(stream)?;
        start.extend(self.stream_ref(stream)?.last.clone());
        start.extend(last);
        let mut points: Vec<Arc<Point>> = Vec::new();
        for node in &nodes {
            let mut after = start.clone();
            after.extend(node.after.iter().map(|&earlier| points[earlier].clone()));
            let (commands, query) = match &node.what {
                What::Work(op) => (self.commands(&node.context, op)?, None),
                What::Record(event) => (Vec::new(), event.new_query()?),
                What::Wait(event) => {
                    if let State::Recorded(point) = event.state() {
                        after.push(point);
                    }
                    (Vec::new(), None)
                }
            };
            let queue = node.context.device.new_queue();
            let queue = queue.map_err(|error| node.context.code_of(&error))?;
            let point = submit_to(&node.context, &queue, &after, commands, query)?;
            if let What::Record(event) = &node.what {
                event.hold(State::Recorded(point.clone()));
            }
            points.push(point);
        }
        let behind = points.iter().map(Point::wait).collect();
        let end = self.submit(stream, behind, None)?;
        context.trouble.check()?;
        if let Ok(exec) = self.execs.get_mut(exec) {
            exec.last = Some(end);
        }
        Ok(())
    }

    fn launch_in_capture(
        &mut self,
        stream: usize,
        capture: u64,
        before: &[usize],
        nodes: Vec<Node>,
    ) -> Done {
        self.check_valid(capture)?;
        let Some(into) = self.captures.get_mut(&capture).map(|c| &mut c.nodes) else {
            return Err(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
        };
        let first = into.len();
        let added = first..first + nodes.len();
        for mut node in nodes {
            node.after.iter_mut().for_each(|earlier| *earlier += first);
            if node.after.is_empty() {
                node.after = before.to_vec();
            }
            into.push(node);
        }
        if !added.is_empty() {
            self.depend(stream, capture, added.collect());
        }
        Ok(())
    }
}

/// Begins to capture a stream: what is put into it goes into a graph and does not run.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamBeginCapture_v2(stream: CUstream, mode: c_uint) -> CUresult {
    call("cuStreamBeginCapture_v2", |face| {
        if mode > RELAXED {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        let stream = face.stream(stream)?;
        face.enter(stream)?;
        if face.stream_ref(stream)?.is_legacy() {
            return Err(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
        }
        if face.capture_of(stream).is_some() {
            return Err(CUDA_ERROR_ILLEGAL_STATE);
        }
        let id = face.new_id();
        let capture = Capture {
            mode,
            thread: this_thread(),
            origin: stream,
            invalid: false,
            nodes: Vec::new(),
        };
        face.captures.insert(id, capture);
        face.depend(stream, id, Vec::new());
        Ok(())
    })
}

/// Ends the capture that began on this stream.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamEndCapture(stream: CUstream, graph: Out<'_, CUgraph>) -> CUresult {
    call("cuStreamEndCapture", |face| {
        let graph = graph.needed()?;
        let stream = face.stream(stream)?;
        let ended = face.end_capture(stream);
        graph.put(*ended.as_ref().unwrap_or(&0));
        ended.map(drop)
    })
}

/// Whether the stream is being captured (1), or was until something spoiled the capture (2).
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamIsCapturing(stream: CUstream, status: Out<'_, c_int>) -> CUresult {
    call("cuStreamIsCapturing", |face| {
        let out = status.needed()?;
        out.put(face.status(stream)?.0);
        Ok(())
    })
}

/// The same, with the capture's number. The graph in the making and its nodes are not shown.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamGetCaptureInfo_v2(
    stream: CUstream,
    status: Out<'_, c_int>,
    id: Out<'_, u64>,
    graph: Out<'_, CUgraph>,
    nodes: Out<'_, *const usize>,
    node_count: Out<'_, usize>,
) -> CUresult {
    call("cuStreamGetCaptureInfo_v2", |face| {
        let out = status.needed()?;
        let (status, capture) = face.status(stream)?;
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

impl Face {
    fn status(&mut self, stream: CUstream) -> Done<(c_int, u64)> {
        let stream = self.stream(stream)?;
        let own = self.stream_ref(stream)?;
        let context = own.context.clone();
        context.trouble.check()?;
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

/// Changes how the calling thread minds captures, and gives the mode it had.
#[unsafe(no_mangle)]
pub extern "C" fn cuThreadExchangeStreamCaptureMode(mode: Option<&mut c_uint>) -> CUresult {
    plain("cuThreadExchangeStreamCaptureMode", || {
        let mode = mode.ok_or(CUDA_ERROR_INVALID_VALUE)?;
        if *mode > RELAXED {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        // a thread that is ending has no mode any more
        *mode = MODE.try_with(|own| own.replace(*mode)).unwrap_or(GLOBAL);
        Ok(())
    })
}

/// Makes a graph ready to run.
#[unsafe(no_mangle)]
pub extern "C" fn cuGraphInstantiateWithFlags(
    exec: Out<'_, CUgraphExec>,
    graph: CUgraph,
    _flags: u64,
) -> CUresult {
    call("cuGraphInstantiateWithFlags", |face| {
        let exec = exec.needed()?;
        let nodes = match face.graphs.get(graph) {
            Ok(nodes) => nodes.clone(),
            Err(missing) => return Err(face.misused("graph", graph, missing)),
        };
        exec.put(face.execs.insert(GraphExec { nodes, last: None }));
        Ok(())
    })
}

/// Runs a graph in a stream.
#[unsafe(no_mangle)]
pub extern "C" fn cuGraphLaunch(exec: CUgraphExec, stream: CUstream) -> CUresult {
    call("cuGraphLaunch", |face| {
        let stream = face.stream(stream)?;
        face.launch(exec, stream)
    })
}

/// Destroys a graph that is ready to run; a run under way is not disturbed.
#[unsafe(no_mangle)]
pub extern "C" fn cuGraphExecDestroy(exec: CUgraphExec) -> CUresult {
    call("cuGraphExecDestroy", |face| {
        let gone = face.execs.remove(exec, face.recycle);
        gone.map(drop)
            .map_err(|missing| face.misused("graph exec", exec, missing))
    })
}

/// Destroys a graph.
#[unsafe(no_mangle)]
pub extern "C" fn cuGraphDestroy(graph: CUgraph) -> CUresult {
    call("cuGraphDestroy", |face| {
        let gone = face.graphs.remove(graph, face.recycle);
        gone.map(drop)
            .map_err(|missing| face.misused("graph", graph, missing))
    })
}
