//! Streams.

use crate::context::Context;
use crate::marker::Marker;
use crate::types::CU_STREAM_NON_BLOCKING;
use fencepost_sim::Queue;
use std::ffi::c_uint;
use std::sync::Arc;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamKind {
    Legacy,
    PerThread,
    Created,
}

#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) context: Arc<Context>,
    pub(crate) id: u64,
    pub(crate) flags: c_uint,
    pub(crate) kind: StreamKind,
    pub(crate) queue: Queue,
    /// The marker behind everything submitted so far.
    pub(crate) last: Option<Arc<Marker>>,
    /// The id of its capture, and the nodes that its next node depends on.
    pub(crate) capture: Option<(u64, Vec<usize>)>,
}

impl Stream {
    pub(crate) fn is_legacy(&self) -> bool {
        self.kind == StreamKind::Legacy
    }

    pub(crate) fn is_created(&self) -> bool {
        self.kind == StreamKind::Created
    }

    /// Whether it is a blocking stream, which synchronizes with the legacy default stream.
    pub(crate) fn is_blocking(&self) -> bool {
        !self.is_legacy() && self.flags & CU_STREAM_NON_BLOCKING == 0
    }
}
