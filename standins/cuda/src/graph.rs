//! Captures and graphs.

use crate::context::Context;
use crate::event::Event;
use crate::marker::Marker;
use crate::work::Work;
use std::ffi::c_uint;
use std::sync::Arc;

/// One node of a graph.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) context: Arc<Context>,
    pub(crate) kind: NodeKind,
    /// The indices of the nodes that it runs after.
    pub(crate) dependencies: Vec<usize>,
}

#[derive(Clone, Debug)]
pub(crate) enum NodeKind {
    Work(Work),
    Record(Event),
    Wait(Event),
}

/// A capture that has not ended.
#[derive(Debug)]
pub(crate) struct Capture {
    pub(crate) mode: c_uint,
    pub(crate) thread: u64,
    /// The stream that it began in.
    pub(crate) origin: usize,
    pub(crate) invalid: bool,
    pub(crate) nodes: Vec<Node>,
}

/// An executable graph.
#[derive(Debug)]
pub(crate) struct GraphExec {
    pub(crate) nodes: Vec<Node>,
    /// The marker behind its latest launch. The next launch waits for it, since launches of one
    /// graph do not overlap.
    pub(crate) last: Option<Arc<Marker>>,
}
